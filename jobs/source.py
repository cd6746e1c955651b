"""The format of source files in YAML, and the shipped sources. A new source is one YAML file and no code."""

import codecs
import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from fnmatch import fnmatchcase
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    field_validator,
    model_validator,
)

from jobs import sql_value, time_pattern
from jobs.yaml_file import STEPS, YamlFile
from lake.errors import SourceInvalid, SourceMismatch
from lake.rules import BEHAVIORS
from lake.text import composed

BehaviorName = Literal["view", "search", "cart", "favorite", "purchase", "ignore"]

# What databases, spreadsheets and languages write for "no value". A source may give a list of its own.
NULLS = (
    *("\\N", "NULL", "(null)", "[null]", "<null>", "nil", "None", "(none)", "undefined", "NaN", "NaT", "<NA>", "NA"),
    *("N/A", "#N/A", "#NULL!", "(not set)", "-"),
    # How Spark reads NaN in JSON, and the identifier that stands for none.
    *('"NaN"', "00000000-0000-0000-0000-000000000000"),
)

# Other words for a format: what a file is, its bytes say.
FORMATS = {"json": "jsonl", "orc": "parquet", "avro": "parquet"}

# Java's names of Python's encodings, but for those whose names follow a rule; see `java_charset`.
CHARSETS = {
    **{"utf-8": "UTF-8", "utf-8-sig": "UTF-8", "ascii": "US-ASCII", "gbk": "GBK", "gb2312": "GB2312"},
    **{"gb18030": "GB18030", "cp936": "GBK", "big5": "Big5", "big5hkscs": "Big5-HKSCS", "cp950": "x-windows-950"},
    **{"shift_jis": "Shift_JIS", "cp932": "windows-31j", "euc_jp": "EUC-JP", "euc_kr": "EUC-KR"},
    **{
        "cp949": "x-windows-949",
        "koi8-r": "KOI8-R",
        "koi8-u": "KOI8-U",
        "tis-620": "TIS-620",
        "cp874": "x-windows-874",
    },
    **{"mac-roman": "x-MacRoman", "utf-16": "UTF-16LE", "utf-16-le": "UTF-16LE", "utf-16-be": "UTF-16BE"},
}


def java_charset(encoding: str) -> str | None:
    """Return Java's name of an encoding that Python knows by any name; None if ingest cannot read it.

    >>> [java_charset(each) for each in ("latin-1", "utf-8-sig", "cp1252", "UTF-16", "utf-7", "no such")]
    ['ISO-8859-1', 'UTF-8', 'windows-1252', 'UTF-16LE', None, None]
    """
    try:
        name = codecs.lookup(encoding).name
    except LookupError:
        return None
    if name.startswith("iso8859-"):
        return name.replace("iso8859-", "ISO-8859-")
    if name.startswith("cp125"):
        return name.replace("cp", "windows-")
    if name in ("cp437", "cp850", "cp852", "cp855", "cp857", "cp858", "cp866"):
        return name.replace("cp", "IBM")
    return CHARSETS.get(name)


class Strict(BaseModel):
    """A part of a source file: an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Value(Strict):
    """Where a value of an event comes from: the first of some columns that has one, or an expression of them.

    In YAML it is written `user`, `[user, cookie]` or `{sql: "coalesce(user, concat('c-', cookie))"}`. In JSON and
    Parquet, `properties.product_id` is the key `product_id` inside `properties`, `items.0.id` the first item's `id`.
    """

    columns: tuple[str, ...]
    sql: str | None = None


def _value(given: Any) -> Any:
    if given is None or isinstance(given, Value):
        return given
    if isinstance(given, str) and given:
        return Value(columns=(given,))
    if isinstance(given, list) and given and all(isinstance(name, str) and name for name in given):
        return Value(columns=tuple(given))
    if isinstance(given, dict) and set(given) == {"sql"} and isinstance(given["sql"], str):
        return Value(columns=tuple(sql_value.columns(given["sql"])), sql=given["sql"])
    raise ValueError("Input should be a valid string: the name of a column, a list of names, or {sql: an expression}")


Place = Annotated[Value, BeforeValidator(_value)]


def _lists(given: Any) -> Any:
    return (given,) if isinstance(given, str) and given else given


# Paths of lists, each one inside of an element of the one before.
Lists = Annotated[tuple[str, ...], BeforeValidator(_lists)]


def _formats(given: Any) -> str | tuple[str, ...]:
    formats = [given] if isinstance(given, str) else given
    if not isinstance(formats, list) or not formats or not all(isinstance(each, str) for each in formats):
        raise ValueError("Input should be a valid string: a format, or a list of formats")
    for each in formats:
        if problem := time_pattern.problem(each):
            raise ValueError(problem)
    if others := [each for each in formats[:-1] if each in time_pattern.EPOCHS]:
        raise ValueError(
            f"any number is a time in {others[0]}, so that what stands behind it is not tried; write it last"
        )
    return given if isinstance(given, str) else tuple(formats)


def _zone(zone: str) -> str:
    """Reject a zone that no time zone database knows."""
    try:
        ZoneInfo(zone)
    except (KeyError, ValueError, OSError) as error:
        raise ValueError(f"{zone!r} is not an IANA time zone such as Asia/Shanghai") from error
    return zone


Zone = Annotated[str, AfterValidator(_zone)]


def _format(given: Any) -> Any:
    return FORMATS.get(given, given) if isinstance(given, str) else given


Format = Annotated[Literal["csv", "jsonl", "parquet"], BeforeValidator(_format)]


class Time(Strict):
    """The column, format and zone of event times."""

    column: Place
    format: Annotated[str | tuple[str, ...], PlainValidator(_formats)] = Field(
        description="epoch_s, epoch_ms, epoch_us, epoch_ns, iso8601 (also for a Parquet timestamp), "
        "or a Spark datetime pattern such as yyyy-MM-dd HH:mm:ss; or a list of these: the first that fits counts"
    )
    zone: Zone = Field("UTC", description="IANA zone of times that carry none")

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats in the order in which they are tried."""
        return (self.format,) if isinstance(self.format, str) else self.format


class Behavior(Strict):
    """The behavior of each raw value: a column and its values, or one behavior for every row."""

    column: Place | None = None
    values: dict[str, BehaviorName] = Field(default_factory=dict)
    others: Literal["reject", "ignore"] = Field("reject", description="what happens to rows with any other value")
    constant: BehaviorName | None = None

    @model_validator(mode="after")
    def one_way(self) -> Self:
        """Require either a constant, or a column with values."""
        by_column = self.column is not None and bool(self.values)
        if by_column == (self.constant is not None):
            raise ValueError("behavior needs either `column` and `values`, or `constant` alone")
        return self


class Guests(Strict):
    """Rows of people without an account: their user is empty, or one that stands for all of them."""

    users: tuple[str, ...] = Field((), description='values of the user that mean nobody, such as ["0", "-1"]')
    are: Literal["rejected", "ignored"] = Field("rejected", description="rejected as missing_user, or ignored")


class Amounts(Strict):
    """How prices are written, if not as plain numbers such as 1299.00."""

    decimal: Literal[".", ","] = Field(".", description="the sign before the fraction; the other one groups thousands")
    divide_by: int = Field(1, ge=1, description="100 for prices in cents, 1000000 for micros")


class Items(Strict):
    """A table of its own with the category of each item; how its files are read, where not as the log."""

    folder: str = Field("items", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", description="beside the folders of the days")
    item_id: Place
    category_id: Place
    price: Place | None = Field(None, description="of rows that have none")
    amounts: Amounts | None = Field(None, description="how these prices are written, if not as those of the log")
    changed: Time | None = Field(None, description="when a row was changed; the latest of an item counts")
    where: str | None = Field(None, description="an expression: only rows for which it is true count")
    format: Format | None = None
    delimiter: str | None = None
    quote: str | None = None
    escape: Literal["quote", "backslash"] | None = None
    header: bool | None = None
    skip_lines: int | None = None
    encoding: str | None = None
    columns: list[str] | None = None

    def as_source(self, of: "Source") -> "Source":
        """Return how the table is read: as a log of items that say their category.

        Raises:
            ValueError: its keys do not fit together.
        """
        own = ("format", "delimiter", "quote", "escape", "header", "skip_lines", "encoding", "columns")
        said = {key: value for key in own if (value := getattr(self, key)) is not None}
        behavior: dict[str, Any] = {"constant": "view"}
        if self.where is not None:
            # Both are named: a word that is named has its meaning also where it is among `nulls`.
            column = {"sql": f"if({self.where}, 'yes', 'no')"}
            behavior = {"column": column, "values": {"yes": "view", "no": "ignore"}}
        # Without a time of change, each row counts since ever.
        ever = {"column": {"sql": "'1900-01-01T00:00:00Z'"}, "format": "iso8601"}
        inherited = {"format": of.format, "encoding": of.encoding, "nulls": of.nulls}
        # Objects of JSON leave out what they do not have; a header and a schema name what some row has.
        may_have = {*self.category_id.columns, *(self.price.columns if self.price else ())}
        may_lack = may_have - set(self.item_id.columns)
        if said.get("format", of.format) == "jsonl":
            said["may_lack"] = sorted(may_lack)
        return Source.model_validate(
            {
                **{"name": of.name, "description": f"The items of {of.name}.", **inherited, **said},
                **{"user_id": self.item_id, "item_id": self.item_id, "category_id": self.category_id},
                **{"price": self.price, "amounts": self.amounts or of.amounts},
                # A row without an item says nothing.
                **{"time": self.changed or ever, "behavior": behavior, "guests": {"are": "ignored"}},
            }
        )


@dataclass(frozen=True)
class Version:
    """How some files of a source are read, where they are not as the source itself says.

    Attributes:
        since: the first landing day of such files.
        files: the pattern of their names below the folder of the day; empty: of all that no other pattern matches.
        source: how they are read.
    """

    since: date
    files: str
    source: "Source"


class Source(Strict):
    """One kind of log: the format of its files and the meaning of their columns.

    Files that are Parquet are read as Parquet whatever `format` says; other files are text of one record a line, or one
    array of JSON.
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    description: str
    format: Format
    delimiter: str = Field(",", min_length=1, description=r"csv: one character or more, such as || or \t")
    quote: str = Field('"', max_length=1, description="csv: around a value that has a delimiter; empty: nothing is")
    escape: Literal["quote", "backslash"] = Field(
        "quote", description='csv: what stands before a quote inside of quotes: "" or \\"'
    )
    multiline: bool = Field(False, description="csv: a value in quotes may have several lines")
    header: bool = Field(True, description="csv: a line of each file names the columns")
    skip_lines: int = Field(0, ge=0, le=50, description="csv: lines above the header or the first row")
    encoding: str = "utf-8"
    columns: list[str] = Field(
        default_factory=list,
        description="csv: every column, in file order; may be left out where a header names them, in any order",
    )
    each: Lists = Field((), description="the list of which each element is a row of its own; of lists in lists, all")
    split: str = Field(
        "", description='what is between the elements of `each` where it is one text, such as " "; json: a list of JSON'
    )
    may_lack: list[str] = Field(default_factory=list, description="columns that a file may be without")
    nulls: tuple[str, ...] = Field(NULLS, description="words that mean no value, whatever the case of their letters")
    user_id: Place
    guests: Guests = Guests()
    item_id: Place | None = None
    category_id: Place | None = None
    query: Place | None = None
    price: Place | None = None
    amounts: Amounts | None = None
    items: Items | None = Field(None, description="a table of its own with the category of each item")
    time: Time
    folder_zone: Zone = Field(
        "UTC", description="IANA zone whose days the landing folders are: no event of dt=D is from after its end there"
    )
    behavior: Behavior
    repeats: Literal["drop", "keep"] = Field(
        "drop", description="identical rows of a landing day: one event, or as many events as there are rows"
    )

    may_vanish: list[Literal["item_id", "category_id", "query", "price"]] = Field(
        default_factory=list,
        description="fields that may vanish from one day to the next: their loss is a warning, that of others fails",
    )

    evolve: bool = Field(
        False,
        description="Parquet: take columns whose types differ from those of the days before, or that are gone",
    )

    versions: tuple[Any, ...] = Field((), description="how other files are read, see `Version`")

    @field_validator("nulls")
    @classmethod
    def words_have_one_form(cls, words: tuple[str, ...]) -> tuple[str, ...]:
        """Bring the words into the form that texts of the log are brought into."""
        return tuple(composed(word) for word in words)

    @field_validator("delimiter", mode="before")
    @classmethod
    def tab_is_a_tab(cls, delimiter: Any) -> Any:
        r"""Take `\t` without quotes, which YAML reads as two characters, for a tab."""
        return "\t" if delimiter == r"\t" else delimiter

    @field_validator("delimiter")
    @classmethod
    def delimiter_delimits(cls, delimiter: str) -> str:
        """Reject what no parser can take for the end of a value."""
        if set(delimiter) & set('\\"\r\n'):
            raise ValueError(f"{delimiter!r} cannot delimit values: it has a backslash, a quote or the end of a line")
        return delimiter

    @field_validator("encoding")
    @classmethod
    def encoding_is_known(cls, encoding: str) -> str:
        """Reject an encoding that Spark cannot read."""
        if java_charset(encoding) is None:
            raise ValueError(
                f"{encoding!r} is not a known encoding, such as utf-8, utf-16, iso-8859-1, windows-1252 or gb18030; "
                "convert the files to utf-8"
            )
        return encoding

    @model_validator(mode="after")
    def columns_are_named(self) -> Self:
        """Require that the used columns are among those listed, and that each name means one column."""
        if self.format == "csv" and not self.columns and not self.header:
            raise ValueError("a csv source without a header lists its `columns` in file order")
        twice = sorted({name for name in self.columns if self.columns.count(name) > 1})
        if twice:
            raise ValueError(f"`columns` has {', '.join(twice)} more than once; give each column a name of its own")
        unknown = sorted(set(self.file_columns) - set(self.columns)) if self.columns else []
        if unknown:
            raise ValueError(f"{', '.join(unknown)} is used but not among `columns`")
        names = sorted(self.used_columns, key=str.lower)
        for one, other in pairwise(names):
            if one.lower() == other.lower():
                raise ValueError(f"{one} and {other} are both used; Spark does not tell names apart by case")
        never = sorted(set(self.may_lack) - set(self.used_columns))
        if never:
            raise ValueError(f"{', '.join(never)} is in `may_lack` but not used")
        return self

    @model_validator(mode="after")
    def fields_that_may_vanish_are_mapped(self) -> Self:
        """Require that a field that may vanish has a column."""
        unmapped = [name for name in self.may_vanish if not self.has(name)]
        if unmapped:
            raise ValueError(f"{', '.join(unmapped)} is in `may_vanish`, but no column is named for it")
        return self

    @model_validator(mode="after")
    def keys_fit_the_format(self) -> Self:
        """Reject keys that mean nothing for the format."""
        if self.split and len(self.each) != 1:
            raise ValueError("`split` says how the text of one list is split; name its column in `each`")
        if self.split not in ("", "json") and any(name.startswith(f"{self.each[0]}.") for name in self.used_columns):
            raise ValueError(f"`split: {self.split}` makes texts, and a part of them is read; for objects, say json")
        if self.each and self.format == "csv" and not self.split:
            raise ValueError('`each` of a csv file is a column of text: say in `split` what is between, such as " "')
        for name in self.used_columns if self.format != "csv" else ():
            inner = next((other for other in self.used_columns if other.startswith(f"{name}.")), None)
            if inner and name not in self.each:
                raise ValueError(f"{name} is read as a value, and {inner} as a part of it; it is one or the other")
        for outer, inner in pairwise(self.each):
            if not inner.startswith(f"{outer}."):
                raise ValueError(f"`each` has {inner} after {outer}, but is not inside of it, as {outer}.{inner} is")
        if self.each and not any(f"{name}.".startswith(f"{self.each[-1]}.") for name in self.used_columns):
            raise ValueError(f"`each` is {self.each[-1]}, of which no part is read, such as {self.each[-1]}.id")
        if self.quote and (self.quote in self.delimiter or self.quote in "\\\r\n"):
            raise ValueError(f"{self.quote!r} cannot be around values: it is a part of the delimiter, or ends a line")
        if self.multiline and (self.format != "csv" or not self.quote or self.escape != "quote"):
            raise ValueError("`multiline` is for csv files with a quote character that is doubled inside of quotes")
        if self.escape == "backslash" and not self.quote:
            raise ValueError("`escape: backslash` needs a quote character")
        return self

    @model_validator(mode="after")
    def items_can_be_read(self) -> Self:
        """Reject an item table whose keys do not fit together."""
        if self.items is not None:
            try:
                self.items.as_source(self)
            except ValidationError as error:
                raise ValueError(f"items: {'; '.join(each['msg'] for each in error.errors())}") from None
        return self

    def has(self, field: str) -> bool:
        """Return whether events may have a field: from a column, or category and price from the item table."""
        of_items = field in ("category_id", "price") and getattr(self.items, field, None) is not None
        return of_items or getattr(self, field) is not None

    @property
    def charset(self) -> str:
        """Java's name of the encoding."""
        return java_charset(self.encoding) or self.encoding

    @property
    def required(self) -> list[Value]:
        """Values without which no row could become an event."""
        return [value for value in (self.user_id, self.time.column, self.behavior.column) if value]

    @property
    def optional(self) -> list[Value]:
        """Values that an event may be without."""
        return [value for value in (self.item_id, self.category_id, self.query, self.price) if value]

    @property
    def required_columns(self) -> list[str]:
        """Columns without which no row could become an event."""
        return list(dict.fromkeys(name for value in self.required for name in value.columns))

    @property
    def used_columns(self) -> list[str]:
        """Every column that is read, each once."""
        return list(dict.fromkeys(name for value in (*self.required, *self.optional) for name in value.columns))

    @property
    def lists(self) -> tuple[str, ...]:
        """The lists of `each` that are lists in the file, and no texts."""
        return () if self.split else self.each

    def file_column(self, name: str) -> str:
        """Return the column of a file from which a used one comes: the text of a list, for what is in that list."""
        texts = self.each if self.split else ()
        return next((text for text in texts if name.startswith(f"{text}.")), name)

    @property
    def file_columns(self) -> list[str]:
        """Every column that a file has of those that are read, each once."""
        return list(dict.fromkeys(map(self.file_column, self.used_columns)))

    def on(self, day: date) -> dict[str, "Source"]:
        """Return how files that landed on a day are read: by the pattern of their names, "" for all other files."""
        found = {"": self}
        for version in sorted(self.versions, key=lambda each: each.since):
            if version.since <= day:
                found[version.files] = version.source
        return found

    def of(self, day: date, name: str) -> "Source":
        """Return how one file is read.

        Args:
            day: its landing day.
            name: its name below the folder of the day.

        Raises:
            SourceMismatch: the patterns of two versions match it.
        """
        kinds = self.on(day)
        matching = sorted(pattern for pattern in kinds if pattern and fnmatchcase(name, pattern))
        if not matching and "" not in kinds:
            raise SourceMismatch(
                f"dt={day}/{name}: source {self.name} has no source for it: its patterns are {', '.join(kinds)}; add "
                "one that matches, with any of its sources or another one"
            )
        if len(matching) > 1:
            raise SourceMismatch(
                f"dt={day}/{name}: source {self.name} has several {'versions' if '' in kinds else 'sources'} for it, "
                f"by the patterns {' and '.join(matching)}; make them such that one matches"
            )
        return kinds[matching[0] if matching else ""]

    @property
    def names(self) -> list[str]:
        """The names of the sources that read its files: its own, or those that it consists of."""
        return sorted({version.source.name for version in self.versions} or {self.name})

    def null_pattern(self, but: Iterable[str] = ()) -> str:
        """Return the regular expression of Java that matches the words of `nulls`, but for some, and no other text."""
        kept = {composed(word).lower() for word in but}
        words = [re.escape(word) for word in self.nulls if word.lower() not in kept]
        return f"(?iu)^(?:{'|'.join(words)})$" if words else "(?!)"


class Part(Source):
    """One of several sources: a file of it without a byte has no rows, also where its files have a header."""


class Sources(Source):
    """Several sources, each for the files whose names match a pattern; it reads no other files."""

    def on(self, day: date) -> dict[str, Source]:
        """Return how files that landed on a day are read, by the pattern of their names."""
        return {pattern: source for pattern, source in super().on(day).items() if pattern}


def quoted(column: str) -> str:
    """Return the name of a column, which may be any text, as SQL writes it.

    >>> quoted("price`s")
    '`price``s`'
    """
    return "`" + column.replace("`", "``") + "`"


def shipped_sources() -> list[str]:
    """Return the names of the sources that ship with the project."""
    folder = resources.files("jobs") / "sources"
    return sorted(Path(entry.name).stem for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load_source(name_or_path: str, *, part_of: str = "") -> Source:
    """Return a shipped source by its name, or your own by the path of its YAML file.

    Args:
        name_or_path: of the source.
        part_of: the file that lists it among its `sources`; such a one has none itself.

    Raises:
        SourceInvalid: there is no such source, or its file is invalid.
    """
    if name_or_path.endswith((".yaml", ".yml")):
        path = Path(name_or_path)
        if not path.is_file():
            raise SourceInvalid(f"MEANDER_SOURCE={name_or_path}: there is no such file")
        data = path.read_bytes()
    elif name_or_path in shipped_sources():
        data = (resources.files("jobs") / "sources" / f"{name_or_path}.yaml").read_bytes()
    else:
        raise SourceInvalid(
            f"MEANDER_SOURCE={name_or_path!r} is neither a shipped source ({', '.join(shipped_sources())}) "
            "nor the path of a .yaml file"
        )
    file = YamlFile(name_or_path, data)
    content = dict(file.content) if isinstance(file.content, dict) else file.content
    if isinstance(content, dict) and "sources" in content:
        if part_of:
            raise SourceInvalid(f"{part_of}: sources: {name_or_path} has `sources` itself; name its parts here")
        return _sources(file, name_or_path, content)
    said = content.pop("versions", []) if isinstance(content, dict) else []
    source = _validated(file, name_or_path, content, [])
    if not isinstance(said, list):
        raise SourceInvalid(f"{name_or_path}: versions: expected a list (line {file.line(['versions'])})")
    versions = tuple(_version(file, name_or_path, content, each, n) for n, each in enumerate(said))
    places = [(version.since, version.files) for version in versions]
    for n, place in enumerate(places):
        if place in places[:n]:
            raise SourceInvalid(
                f"{name_or_path}: versions: two count from {place[0]} for the same files; remove one of them "
                f"(line {file.line(['versions', n])})"
            )
    return source.model_copy(update={"versions": versions}) if versions else source


def _sources(file: YamlFile, path: str, content: dict[str, Any]) -> Sources:
    """Return the source that consists of those that a file lists, each for a pattern of names."""
    line = f"(line {file.line(['sources'])})"
    listed = content["sources"]
    if set(content) != {"name", "description", "sources"} or not isinstance(listed, dict) or len(listed) < 2:
        raise SourceInvalid(
            f"{path}: expected `name`, `description` and `sources`, and no other key: two or more patterns of names "
            f'such as "web/*", each with a shipped source or the path of a .yaml file {line}'
        )
    found: dict[str, Source] = {}
    loaded: dict[str, Source] = {}
    for pattern, named in listed.items():
        if not isinstance(pattern, str) or not pattern or not isinstance(named, str):
            raise SourceInvalid(f'{path}: sources: expected text such as "web/*": web.yaml, found {pattern!r} {line}')
        # A path is as seen from this file.
        place = str(Path(path).parent / named) if named.endswith((".yaml", ".yml")) else named
        # Several patterns may have one source.
        if place not in loaded:
            loaded[place] = load_source(place, part_of=path)
        source = found[pattern] = loaded[place]
        if any(version.files for version in source.versions):
            raise SourceInvalid(f"{path}: sources: {named} has `files` itself; name its parts here {line}")
    # Checked as those of any source are.
    keys = {"format": "jsonl", "user_id": "-", "time": {"column": "-", "format": "iso8601"}}
    own = {"name": content["name"], "description": content["description"]}
    _validated(file, path, {**own, **keys, "behavior": {"constant": "view"}}, [])
    names, repeats = [source.name for source in loaded.values()], {source.repeats for source in loaded.values()}
    if len(names) < 2 or len({content["name"], *names}) <= len(names) or len(repeats) > 1:
        raise SourceInvalid(
            f"{path}: sources: expected two or more; their names have to differ from each other and from "
            f"{content['name']!r}, found {', '.join(names)}, and `repeats` has to be the same for all {line}"
        )
    # Files are grouped by how they are read, so that of one source there is one part, whatever the pattern.
    parts = {
        id(source): Part.model_construct(**{**dict(source), "versions": ()})
        for each in loaded.values()
        for source in (each, *(version.source for version in each.versions))
    }
    versions = [Version(date.min, pattern, parts[id(each)]) for pattern, each in found.items()]
    versions += [
        Version(v.since, pattern, parts[id(v.source)]) for pattern, each in found.items() for v in each.versions
    ]
    vanishing = list(dict.fromkeys(field for each in found.values() for field in each.may_vanish))
    first = dict(next(iter(found.values())))
    return Sources.model_construct(**{**first, **own, "versions": tuple(versions), "may_vanish": vanishing})


# What is the same for all files of a source: a name makes the ids of events, and a landing day is judged as a whole.
OF_ALL_VERSIONS = ("name", "description", "repeats", "may_vanish", "evolve", "versions")


def _version(file: YamlFile, name: str, content: dict[str, Any], said: Any, n: int) -> Version:
    """Return the n-th version that a file lists: its own keys count, and those of the source where it has none."""
    place: STEPS = ["versions", n]
    if not isinstance(said, dict) or not {"from", "files"} & set(said):
        raise SourceInvalid(
            f"{name}: versions.{n}: expected `from` (a landing day), `files` (a pattern of names) or both, and the "
            f"keys that differ (line {file.line(place)})"
        )
    since, files = said.get("from", date.min), said.get("files", "")
    if not isinstance(since, date) or isinstance(since, datetime):
        raise SourceInvalid(
            f"{name}: versions.{n}.from: expected a date such as 2025-03-01, found {since!r} "
            f"(line {file.line([*place, 'from'])})"
        )
    if not isinstance(files, str) or ("files" in said and not files):
        raise SourceInvalid(
            f'{name}: versions.{n}.files: expected a pattern of names such as "orders*.csv", found {files!r} '
            f"(line {file.line([*place, 'files'])})"
        )
    own = {key: value for key, value in said.items() if key not in ("from", "files")}
    for key in OF_ALL_VERSIONS:
        if key in own:
            raise SourceInvalid(
                f"{name}: versions.{n}.{key}: it is the same for all versions; write it above them "
                f"(line {file.line([*place, key])})"
            )
    inherited = {key: value for key, value in content.items() if key not in ("may_vanish", "evolve")}
    # An empty value takes a key of the source away.
    merged = {key: value for key, value in {**inherited, **own}.items() if value is not None}
    version = _validated(file, name, merged, place)
    whole = _validated(file, name, content, [])
    vanishing = [field for field in whole.may_vanish if version.has(field)]
    return Version(since, files, version.model_copy(update={"evolve": whole.evolve, "may_vanish": vanishing}))


def _validated(file: YamlFile, name: str, content: Any, place: STEPS) -> Source:
    """Return the source that some keys describe; a mistake is told with the line of the place that they are from."""
    try:
        return Source.model_validate(content)
    except ValidationError as error:
        problems = [_told(file, [*place, *each["loc"]], each["type"], each["msg"]) for each in error.errors()]
        raise SourceInvalid(f"{name}: {'; '.join(problems)}") from None


def _told(file: YamlFile, place: STEPS, kind: str, message: str) -> str:
    """Return a mistake with its place, its line and, where it is certain, what to write."""
    remedy = ""
    if kind == "extra_forbidden":
        near = difflib.get_close_matches(str(place[-1]), _keys(), n=1)
        remedy = f"did you mean {near[0]}?" if near else "docs/sources.md has all keys"
    elif "should be a valid string" in message or kind == "string_too_short":
        remedy = file.remedy(place)
    return (
        f"{'.'.join(map(str, place)) or 'source'}: {message.removeprefix('Value error, ')}"
        f"{f'; {remedy}' if remedy else ''} (line {file.line(place)})"
    )


def _keys() -> list[str]:
    return [key for part in (Source, Time, Behavior, Guests, Amounts, Items) for key in part.model_fields]


# `ignore` is a word of source files; every other behavior is one of the lake's.
assert set(BEHAVIORS) == set(BehaviorName.__args__) - {"ignore"}  # type: ignore[attr-defined]
