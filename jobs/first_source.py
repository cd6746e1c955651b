"""A first source, written by looking at a file: for `meander source init`.

How the file is read is found out (jobs/file_sample.py), and how its times and prices are written. What columns mean can
only be guessed, by their names and values. Each guess that may be wrong is a doubt: it is asked, or written down as a
comment.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from zoneinfo import available_timezones

import pyarrow as pa

from jobs.file_sample import MOST, Sample, look_into
from jobs.yaml_file import dump
from lake.errors import SourceMismatch
from lake.rules import BEHAVIORS

# A behavior has so few values.
MOST_VALUES = 50

# Names of columns, the likeliest first. A name that has no such part is no candidate.
NAMES = {
    "user_id": (
        r"^(user|client|customer|visitor|member|household|buyer|shopper|kunden?)[ _.-]?(id|nr|no|key|code)?$",
        r"(user|client|customer|visitor|member|household|account|card|buyer|kunde)[ _.-]?(id|nr|no|key|number|hash)",
        r"^(uid|userid|visitorid)$|^(user|client|customer|visitor|anonymous)_?id$",
        r"user|client|customer|visitor|anonymous|cookie|household|kunde|session",
    ),
    "item_id": (
        r"^(item|product|article|track|song|news|sku|artikel|movie|video)[ _.-]?(id|nr|no|key|code)?$",
        r"(item|product|article|track|song|news|sku|artikel|movie|video|aid)[ _.-]?(id|nr|no|key|code|uri)?$",
        r"item|product|article|artikel|sku|track|song|merchant|stock[ _.-]?code|(^|_)(asin|isbn|gtin|ean|upc)($|_)",
    ),
    "category_id": (
        r"^(category|cat|genre|section|department|warengruppe|mcc)[ _.-]?(id|code)?$",
        r"categor|genre|section|department|warengruppe|artist|mcc|brand",
    ),
    "query": (r"^(query|search|keyword|suche)s?$", r"search[ _.-]?(term|query|phrase|text|keyword)|query|keyword"),
    "price": (r"^(price|amount|preis|betrag)$", r"price|amount|preis|betrag|revenue|sales_value"),
    "behavior": (
        r"^(event|behaviou?r|action|aktion)[ _.-]?(type|name)?$",
        r"event|behaviou?r|action|aktion|(^|_)type$",
    ),
    "time": (
        r"^(event|server)?[ _.-]?(timestamp|time|datetime|ts)$",
        r"timestamp|time|datetime|datum|(^|[_.])ts$|_at$",
        r"date|day|created|when",
    ),
}
# Keys that say what they are of only with the key above them.
GENERIC = ("id", "name", "key", "code", "value", "number", "no", "type")
# Words in the values of a behavior. The first that matches counts: `remove_from_cart` is no cart.
WORDS = {
    "ignore": (
        r"remov|refund|return|cancel|delete|skip|retour|scroll|\binfo\b|dislike|\bun ?(like|fav|wish|star)|"
        r"\bsort|\bfilter|"  # `change of sort order` is no order
        # To look at a cart, or to begin to pay, is neither to add nor to buy.
        r"(view|open|show|begin|start|initiat|abandon)\w* ?(cart|basket|bag|wish ?list|checkout|payment|order)"
    ),
    "favorite": r"fav|like|wish|bookmark|\bstar(red)?\b|merk",
    "cart": r"cart|basket|\badd(ed)?\b|\bbag\b|warenkorb",
    "purchase": r"purchas|buy|bought|order|transaction|paid|pay|kauf|checkout",
    "search": r"search|query|such",
    "view": r"view|^pv$|click|page|detail|play|read|open|visit|impression|listen|watch|ansicht",
}
# Times as texts: how Python reads them, and the format of a source.
FORMATS = (
    ("%Y/%m/%d %H:%M:%S", "yyyy/MM/dd HH:mm:ss"),
    ("%Y/%m/%d %H:%M", "yyyy/MM/dd HH:mm"),
    ("%d.%m.%Y %H:%M:%S", "dd.MM.yyyy HH:mm:ss"),
    ("%d.%m.%Y %H:%M", "dd.MM.yyyy HH:mm"),
    ("%d/%m/%Y %H:%M:%S", "dd/MM/yyyy HH:mm:ss"),
    ("%m/%d/%Y %H:%M:%S", "MM/dd/yyyy HH:mm:ss"),
    ("%d/%m/%Y %H:%M", "dd/MM/yyyy HH:mm"),
    ("%m/%d/%Y %H:%M", "MM/dd/yyyy HH:mm"),
    ("%d/%b/%Y:%H:%M:%S %z", "dd/MMM/yyyy:HH:mm:ss Z"),
    ("%Y%m%d%H%M%S", "yyyyMMddHHmmss"),
    ("%Y-%m-%d", "yyyy-MM-dd"),
    ("%d.%m.%Y", "dd.MM.yyyy"),
    ("%d/%m/%Y", "dd/MM/yyyy"),
    ("%m/%d/%Y", "MM/dd/yyyy"),
    ("%Y%m%d", "yyyyMMdd"),
)
EPOCHS = {10: "epoch_s", 13: "epoch_ms", 16: "epoch_us", 19: "epoch_ns"}
ISO = r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?"
ISO_OFFSET = r" ?(Z|UTC|GMT|[+-]\d{2}:?\d{2})"
# A number in a price, by the sign before its fraction.
COMMA, POINT = r"\d{1,3}(\.\d{3})+,\d+|\d+,\d{1,2}", r"\d{1,3}(,\d{3})+(\.\d+)?|\d+(\.\d+)?"

# Asked for a question, a list of answers (empty: any) and the likely one; returns one of them.
Ask = Callable[[str, Sequence[str], str], str]


@dataclass
class FirstSource:
    """What was found out of a file.

    Attributes:
        content: the keys of the source, in their order.
        doubts: by key, what was assumed and may be wrong.
    """

    content: dict[str, Any]
    doubts: dict[str, list[str]] = field(default_factory=dict)

    def doubt(self, key: str, text: str) -> None:
        """Write down what was assumed of a key."""
        self.doubts.setdefault(key, []).append(text)

    def as_yaml(self) -> str:
        """Return the file: above each key, what was assumed of it."""
        lines = []
        for key, value in self.content.items():
            lines += [f"# {one_line(text)}" for text in self.doubts.get(key, [])]
            flow = isinstance(value, dict) and all(not isinstance(each, (dict, list)) for each in value.values())
            dumped = dump({key: value}, width=1000, default_flow_style=None if flow else False)
            lines.append(dumped.rstrip("\n"))
        return "\n".join(lines) + "\n"


def one_line(text: str) -> str:
    r"""Return a text as a comment can have it: what a file says must not end the line and become a key.

    >>> print(one_line("Assumed: user is a\nevolve: true\x85"))
    Assumed: user is a evolve: true
    """
    return "".join(each if each.isprintable() else " " for each in text).rstrip()


def first_source(file: str, name: str, chosen: Mapping[str, str], ask: Ask | None) -> FirstSource:
    """Return a source for a file.

    Args:
        file: its path or address.
        name: of the source.
        chosen: columns by what they are, as a person has said: `user_id`, `time`, `behavior`, `item_id` and so on.
        ask: asks a person where something is not certain; None if nobody is there.

    Raises:
        LandingUnreadable: the file cannot be read.
        SourceMismatch: no column can be a user or a time, or the file is no table.
    """
    sample = look_into(file, set(chosen.values()))
    found = FirstSource(
        {"name": name, "description": f"Written by `meander source init` from {file.rsplit('/', 1)[-1]}."}
    )
    found.content |= sample.keys
    for key, text in sample.doubts:
        found.doubt(key, text)
    unknown = sorted(set(chosen.values()) - set(sample.columns))
    if unknown:
        raise SourceMismatch(f"{file} has no column {', '.join(unknown)}; it has {', '.join(sample.columns)}")
    roles = choose_columns(found, sample, chosen, ask)
    for role in ("user_id", "item_id", "category_id", "query", "price"):
        if role in roles:
            found.content[role] = roles[role]
    if anonymous := stand_in(sample, roles["user_id"]):
        found.content["user_id"] = [roles["user_id"], anonymous]
        found.doubt("user_id", f"Assumed: where {roles['user_id']} is empty, {anonymous} is the user.")
    rare = [roles[role] for role in ("item_id", "category_id", "query", "price") if role in roles]
    if rare and sample.keys["format"] == "jsonl":
        found.content["may_lack"] = rare  # not each object has each key
    if "price" in roles:
        add_amounts(found, sample.columns[roles["price"]])
    add_time(found, roles["time"], sample, ask)
    add_behavior(found, roles, sample, ask)
    for key in [key for key in found.doubts if key not in found.content]:
        found.doubts.setdefault("description", []).extend(found.doubts.pop(key))
    return found


def choose_columns(found: FirstSource, sample: Sample, chosen: Mapping[str, str], ask: Ask | None) -> dict[str, str]:
    """Return the column of each role; a role that an event can be without may have none."""
    roles = dict(chosen)
    for role in ("time", "behavior", "user_id", "item_id", "price", "query", "category_id"):
        if role in roles:
            continue
        free = [name for name in sample.columns if name not in roles.values()]
        candidates = [name for name in by_name(role, free) if could_be(role, name, sample)]
        others = [name for name in free if could_be(role, name, sample)] if role == "time" else []
        likely = next(iter((*candidates, *others)), "")
        needed = role in ("time", "user_id", "item_id")
        certain = len(candidates) == 1 or (not candidates and not needed)
        if not certain and ask and free:
            likely = ask(f"Which column is the {role.removesuffix('_id')}?", ["", *free], likely)
        elif len(candidates) > 1:
            others_said = ", ".join(candidates[1:])
            found.doubt("behavior" if role == "behavior" else role, f"Assumed: {role} is {likely}, not {others_said}.")
        elif likely and not candidates:
            found.doubt(role, f"Assumed by its values alone: {role} is {likely}.")
        if likely:
            roles[role] = likely
        elif role in ("time", "user_id"):
            raise SourceMismatch(
                f"no column looks like a {role.removesuffix('_id')} among {', '.join(sample.columns)}; name it by "
                f"--{role.removesuffix('_id')} COLUMN"
            )
        elif needed:
            found.doubt("user_id", "No column looks like an item. Events other than searches need one: add item_id.")
    return roles


def stand_in(sample: Sample, user: str) -> str:
    """Return the column that has a user where another one is empty; empty if there is none."""
    if len(sample.columns[user]) == sample.rows or "each" in sample.keys:
        return ""
    others = [name for name in sample.columns if re.search(r"anonymous|cookie|visitor|device", name.lower())]
    return next((name for name in others if name != user and len(sample.columns[name]) == sample.rows), "")


def by_name(role: str, names: Sequence[str]) -> list[str]:
    """Return the names that may be those of a role, the likeliest first.

    >>> by_name("user_id", ["session_id", "price", "user_id"])
    ['user_id']
    >>> by_name("user_id", ["session_id", "anonymous"])
    ['session_id', 'anonymous']
    """

    def rank(name: str) -> int | None:
        parts = name.split(".")
        # `user.id` is user_id, and `events.type` a type.
        last = "_".join(parts[-2:] if parts[-1].lower() in GENERIC else parts[-1:])
        plain = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", last).lower()  # `userId` too
        return next((n for n, pattern in enumerate(NAMES[role]) if re.search(pattern, plain)), None)

    ranked = [(of, n, name) for n, name in enumerate(names) if (of := rank(name)) is not None]
    best = min((of for of, _, _ in ranked), default=0)
    # What only has a part of a name is no rival of what has all of it.
    return [name for of, _, name in sorted(ranked) if of == best or best > 0]


def could_be(role: str, name: str, sample: Sample) -> bool:
    """Return whether the values of a column may be those of a role."""
    values = sample.columns[name]
    if not values:
        return role in ("category_id", "query", "price")
    if role == "time":
        return is_time(sample.types.get(name)) or time_format(values) is not None
    if role == "price":
        return all(re.search(r"\d", value) and len(re.findall("[A-Za-z]", value)) <= 4 for value in values)
    if role == "behavior":
        return len(set(values)) <= (MOST_VALUES if len(values) > 2 * MOST_VALUES else MOST_VALUES // 2)
    return True


def is_time(kind: pa.DataType | None) -> bool:
    """Return whether a type of Parquet is that of times."""
    return kind is not None and (pa.types.is_timestamp(kind) or pa.types.is_date(kind))


def time_format(values: Sequence[str]) -> tuple[str, bool, bool] | None:
    """Return the format that fits nearly all times, whether each says its zone, and whether another format fits too.

    >>> time_format(["2024-03-05 10:00:00"]), time_format(["1709596800000"]), time_format(["13.03.2024 10:00"])
    (('iso8601', False, False), ('epoch_ms', True, False), ('dd.MM.yyyy HH:mm', False, False))
    >>> time_format(["03/04/2024 10:00"]), time_format(["7"])
    (('dd/MM/yyyy HH:mm', False, True), None)
    """

    def fit(pattern: str, way: Callable[[str, str], object]) -> bool:
        return sum(bool(way(pattern, value)) for value in values) >= MOST * len(values)

    if fit(rf"{ISO}({ISO_OFFSET})?", re.fullmatch):
        return "iso8601", fit(f"{ISO_OFFSET}$", re.search), False
    for digits, name in EPOCHS.items():
        if fit(rf"1\d{{{digits - 1}}}(\.\d+)?", re.fullmatch):
            return name, True, False
    fitting = [(spark, "%z" in python) for python, spark in FORMATS if fit(python, is_read)]
    return (*fitting[0], len(fitting) > 1) if fitting else None


def is_read(pattern: str, value: str) -> bool:
    """Return whether Python reads a time by a pattern."""
    try:
        datetime.strptime(value, pattern)  # noqa: DTZ007  whether it can be read is all that is asked
    except ValueError:
        return False
    return True


def add_time(found: FirstSource, column: str, sample: Sample, ask: Ask | None) -> None:
    """Say how times are written, and in which zone."""
    kind = sample.types.get(column)
    read = ("iso8601", bool(getattr(kind, "tz", None)), False) if is_time(kind) else time_format(sample.columns[column])
    if read is None:
        found.doubt("time", "No known format fits the values: write a Spark pattern, see docs/sources.md.")
    form, says_zone, ambiguous = read or ("iso8601", False, False)
    if ambiguous:
        other = form.replace("dd/MM", "MM/dd")
        if ask:
            form = ask(f"No day in {column} tells day from month. How are dates written?", [form, other], form)
        else:
            found.doubt("time", f"Assumed: days come before months. If not, write {other!r}.")
    found.content["time"] = {"column": column, "format": form}
    if not says_zone:
        question, zone = "In which zone are times (such as Europe/Berlin)?", "UTC"
        if ask:
            while (zone := ask(question, [], "UTC")) not in available_timezones():
                question = f"{zone!r} is no IANA time zone. In which zone are times (such as Europe/Berlin)?"
        found.content["time"]["zone"] = zone
        if not ask:
            found.doubt(
                "time", "Assumed: times are in UTC. Write the shop's zone, such as Europe/Berlin, if they are not."
            )


def add_amounts(found: FirstSource, values: Sequence[str]) -> None:
    """Say how prices are written, if not as plain numbers."""
    if all(re.fullmatch(r"-?\d+(\.\d+)?", value) for value in values):
        return
    bare = [re.sub(r"[^\d.,]", "", value) for value in values]
    comma, point = (sum(bool(re.fullmatch(pattern, value)) for value in bare) for pattern in (COMMA, POINT))
    found.content["amounts"] = {"decimal": "," if comma > point else "."}


def add_behavior(found: FirstSource, roles: Mapping[str, str], sample: Sample, ask: Ask | None) -> None:
    """Say what each value of the behavior means, or what every row is."""
    if "behavior" not in roles:
        constant = "purchase" if "price" in roles else "view"
        if ask:
            constant = ask("No column says what the user did. What is every row?", BEHAVIORS, constant)
        else:
            found.doubt("behavior", f"Assumed, since no column says it: every row is a {constant}.")
        found.content["behavior"] = {"constant": constant}
        return
    if not sample.columns[roles["behavior"]]:
        raise SourceMismatch(
            f"{roles['behavior']}, the column of the behavior, has no value in the first {sample.rows:,} rows; name "
            "another one by --behavior COLUMN"
        )
    meanings = {}
    for value, _ in Counter(sample.columns[roles["behavior"]]).most_common():
        meaning = next(
            (name for name, pattern in WORDS.items() if re.search(pattern, value.lower().replace("_", " "))), ""
        )
        if not meaning and ask:
            meaning = ask(f"What is {value!r}?", [*BEHAVIORS, "ignore"], "ignore")
        elif not meaning:
            # Codes such as 0 and 1 say nothing; a day without any event would be of no use.
            meaning = "view" if value.isdigit() else "ignore"
            found.doubt("behavior", f"Assumed, since nothing tells it: {value!r} is {meaning}.")
        meanings[value] = meaning
    found.content["behavior"] = {"column": roles["behavior"], "values": meanings}
