"""The format of source files in YAML, and the shipped sources. A new source is one YAML file and no code."""

from importlib import resources
from pathlib import Path
from typing import Literal, Self
from zoneinfo import ZoneInfo

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from lake.errors import SourceInvalid
from lake.rules import BEHAVIORS

BehaviorName = Literal["view", "search", "cart", "favorite", "purchase", "ignore"]


class Strict(BaseModel):
    """A part of a source file: an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Time(Strict):
    """The column, format and zone of event times."""

    column: str
    format: str = Field(
        description="epoch_s, epoch_ms, epoch_us, iso8601 (also for a Parquet timestamp), "
        "or a Spark datetime pattern such as yyyy-MM-dd HH:mm:ss"
    )
    zone: str = Field("UTC", description="IANA zone of times that carry none")

    @field_validator("zone")
    @classmethod
    def zone_is_known(cls, zone: str) -> str:
        """Reject a zone that no time zone database knows."""
        try:
            ZoneInfo(zone)
        except (KeyError, ValueError) as error:
            raise ValueError(f"{zone!r} is not an IANA time zone such as Asia/Shanghai") from error
        return zone


class Behavior(Strict):
    """The behavior of each raw value: a column and its values, or one behavior for every row."""

    column: str | None = None
    values: dict[str, BehaviorName] = Field(default_factory=dict)
    constant: BehaviorName | None = None

    @model_validator(mode="after")
    def one_way(self) -> Self:
        """Require either a constant, or a column with values."""
        by_column = self.column is not None and bool(self.values)
        if by_column == (self.constant is not None):
            raise ValueError("behavior needs either `column` and `values`, or `constant` alone")
        return self


class Source(Strict):
    """One kind of log: the format of its files and the meaning of their columns.

    Files that end in .parquet are read as Parquet whatever `format` says; other files are text of one record a line.
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    description: str
    format: Literal["csv", "jsonl", "parquet"]
    delimiter: str = Field(",", min_length=1, max_length=1)
    quote: str = Field('"', min_length=1, max_length=1)
    header: bool = Field(True, description="csv: the first line of each file names the columns")
    encoding: str = "utf-8"
    columns: list[str] = Field(default_factory=list, description="csv: every column, in file order")
    user_id: str
    item_id: str | None = None
    category_id: str | None = None
    query: str | None = None
    price: str | None = None
    time: Time
    behavior: Behavior
    repeats: Literal["drop", "keep"] = Field(
        "drop", description="identical rows of a landing day: one event, or as many events as there are rows"
    )

    @field_validator("encoding")
    @classmethod
    def encoding_keeps_lines(cls, encoding: str) -> str:
        """Reject an encoding whose newline is not the byte of ASCII: lines are split before they are decoded."""
        try:
            newline = "\n".encode(encoding)
        except LookupError as error:
            raise ValueError(f"{encoding!r} is not a known encoding, such as utf-8 or gb18030") from error
        if newline != b"\n":
            raise ValueError(f"{encoding!r} does not write a newline as one byte; convert the files to utf-8")
        return encoding

    @model_validator(mode="after")
    def columns_are_named(self) -> Self:
        """Require that csv sources list their columns, and that the used columns are among them."""
        if self.format == "csv" and not self.columns:
            raise ValueError("a csv source lists its `columns` in file order")
        unknown = sorted(set(self.used_columns) - set(self.columns)) if self.columns else []
        if unknown:
            raise ValueError(f"{', '.join(unknown)} is used but not among `columns`")
        return self

    @property
    def required_columns(self) -> list[str]:
        """Columns without which no row could become an event."""
        return list(dict.fromkeys(c for c in (self.user_id, self.time.column, self.behavior.column) if c))

    @property
    def used_columns(self) -> list[str]:
        """Every column that is read, each once."""
        optional = (self.item_id, self.category_id, self.query, self.price)
        return list(dict.fromkeys([*self.required_columns, *(c for c in optional if c)]))


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


def load_source(name_or_path: str) -> Source:
    """Return a shipped source by its name, or your own by the path of its YAML file.

    Raises:
        SourceInvalid: there is no such source, or its file is invalid.
    """
    if name_or_path.endswith((".yaml", ".yml")):
        path = Path(name_or_path)
        if not path.is_file():
            raise SourceInvalid(f"MEANDER_SOURCE={name_or_path}: there is no such file")
        text = path.read_text(encoding="utf-8")
    elif name_or_path in shipped_sources():
        text = (resources.files("jobs") / "sources" / f"{name_or_path}.yaml").read_text(encoding="utf-8")
    else:
        raise SourceInvalid(
            f"MEANDER_SOURCE={name_or_path!r} is neither a shipped source ({', '.join(shipped_sources())}) "
            "nor the path of a .yaml file"
        )
    try:
        return Source.model_validate(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise SourceInvalid(f"{name_or_path} is not YAML: {error}") from error
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, e['loc'])) or 'source'}: {e['msg']}" for e in error.errors()]
        raise SourceInvalid(f"{name_or_path}: {'; '.join(problems)}") from None


# `ignore` is a word of source files; every other behavior is one of the lake's.
assert set(BEHAVIORS) == set(BehaviorName.__args__) - {"ignore"}  # type: ignore[attr-defined]
