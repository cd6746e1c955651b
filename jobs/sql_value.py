"""The escape hatch of a source: a value as one expression of Spark SQL over the columns of its row, and nothing else.

An expression is taken apart into its words here, before Spark starts. It may use the row's columns, constants,
operators and the functions below: nothing that reads another row, a file, the clock, a variable or chance, and nothing
that fails the whole day because of one row.
"""

import re
from collections.abc import Callable

# fmt: off
FUNCTIONS = frozenset(
    (
        "coalesce", "nvl", "nullif", "if", "ifnull", "nvl2", "greatest", "least", "concat", "concat_ws",
        "lower", "upper", "initcap", "trim", "ltrim", "rtrim", "btrim", "replace", "translate", "substring",
        "substr", "left", "right", "lpad", "rpad", "reverse", "split", "split_part", "length", "char_length",
        "instr", "locate", "position", "startswith", "endswith", "contains", "regexp_extract",
        "regexp_replace", "regexp_substr", "rlike", "regexp_like", "ascii", "hex", "unhex", "md5", "sha2",
        "crc32", "xxhash64", "url_encode", "try_url_decode", "get_json_object", "try_cast", "try_to_number",
        "try_to_timestamp", "try_add", "try_subtract", "try_multiply", "try_divide", "try_element_at", "abs",
        "sign", "round", "bround", "floor", "ceil", "ceiling", "unix_seconds", "unix_millis",
    )
)
WORDS = frozenset(
    (
        "case", "when", "then", "else", "end", "and", "or", "not", "in", "is", "null", "like", "ilike",
        "rlike", "between", "true", "false", "as", "escape", "both", "leading", "trailing", "from", "for",
    )
)
TYPES = frozenset(
    (
        "string", "int", "integer", "bigint", "long", "double", "float", "decimal", "boolean", "date",
        "timestamp", "smallint",
    )
)
# fmt: on
TOKEN = re.compile(
    r"""(?P<blank>\s+)|(?P<text>'(?:[^'\\]|\\.|'')*')|(?P<number>\d+(?:\.\d+)?)|
    (?P<name>(?:`(?:[^`]|``)+`|[^\W\d]\w*)(?:\.(?:`(?:[^`]|``)+`|\w+))*)|
    (?P<sign><=>|<=|>=|<>|!=|==|\|\||[-+*/%<>=(),])""",
    re.VERBOSE,
)
COMPUTED = {"+", "-", "*"}
COMPARED = {"<", ">", "<=", ">=", "=", "==", "!=", "<>", "<=>", "in", "between"}


def tokens(sql: str) -> list[tuple[str, str]]:
    """Return the kind and text of each word of an expression, blanks left out.

    Kinds: text, number, sign, word (of SQL), type, function, column.

    Raises:
        ValueError: it has what an expression of a source may not have.
    """
    found: list[tuple[str, str]] = []
    at = 0
    while at < len(sql):
        match = TOKEN.match(sql, at)
        if match is None or sql.startswith(("--", "/*"), at):
            raise ValueError(f"the expression may not have {sql[at : at + 2]!r} (character {at + 1})")
        at = match.end()
        if match.lastgroup != "blank":
            found.append((str(match.lastgroup), match[0]))
    return [_kind(found, n) for n in range(len(found))]


def _kind(found: list[tuple[str, str]], n: int) -> tuple[str, str]:
    kind, text = found[n]
    if kind != "name":
        return kind, text
    word = text.lower()
    before = found[n - 1][1].lower() if n else ""
    called = n + 1 < len(found) and found[n + 1][1] == "("
    if before == "as" and word in TYPES:
        return "type", text
    if word in WORDS:
        return "word", text
    if called:
        if word in ("cast", "to_timestamp", "to_number", "element_at"):
            raise ValueError(f"{word} fails the whole day if one row does not fit; write try_{word}")
        if word not in FUNCTIONS:
            raise ValueError(
                f"the function {word} may not be used here; those that may: {', '.join(sorted(FUNCTIONS))}"
            )
        return "function", text
    if word == "select":
        raise ValueError("an expression has no subquery: it is computed from one row")
    return "column", text


def columns(sql: str) -> list[str]:
    """Return the columns that an expression reads, each once, in order.

    >>> columns("if(`order id` is not null, 'buy', properties.event)")
    ['order id', 'properties.event']

    Raises:
        ValueError: it is no expression that a source may have.
    """
    words = tokens(sql)
    if not words:
        raise ValueError("the expression is empty")
    depth = 0
    for n, (kind, text) in enumerate(words):
        depth += {"(": 1, ")": -1}.get(text, 0) if kind == "sign" else 0
        if depth < 0:
            raise ValueError("the expression closes a bracket that is not open")
        if text in ("/", "%"):
            raise ValueError(f"{text} fails the whole day if one row divides by zero; write try_divide(a, b)")
        if text.lower() in COMPUTED | COMPARED:
            around = [word for word in words[max(n - 1, 0) : n + 3] if word[1] not in "(-"]
            name = next((word for kind, word in around if kind == "column"), None)
            if name and (text in COMPUTED or "number" in {kind for kind, _ in around}):
                raise ValueError(
                    f"{name} is text, and fails the whole day if one row has no number; "
                    f"write try_cast({name} as decimal(20, 4)) {text} ..."
                )
    if depth:
        raise ValueError("the expression leaves a bracket open")
    return list(dict.fromkeys(unquoted(text) for kind, text in words if kind == "column"))


def unquoted(name: str) -> str:
    """Return the name of a column as the log has it."""
    parts = re.findall(r"`((?:[^`]|``)+)`|([^`.]+)", name)
    return ".".join(quoted.replace("``", "`") or plain for quoted, plain in parts)


def with_columns(sql: str, write: Callable[[str], str]) -> str:
    """Return an expression with each column written in another way."""
    return " ".join(write(unquoted(text)) if kind == "column" else text for kind, text in tokens(sql))
