"""Check landing files against their source before Spark starts, and find how each one is laid out.

A file that cannot be opened, or does not have the columns that its source names, fails the run. Rows are not judged
here: jobs/raw_rows.py reads them, jobs/rejections.py classifies them.
"""

import codecs
import csv
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import date
from io import BytesIO
from itertools import chain, islice
from typing import IO, Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from jobs.avro_rows import avro_schema, is_avro
from jobs.json_array import elements, is_array
from jobs.orc_rows import is_orc, may_be_orc, orc_schema
from jobs.packed import SUFFIXES, is_packed, on_storage, parts_of, readable, unpacked
from jobs.source import Part, Source, Value
from lake import storage
from lake.errors import LandingUnreadable, SourceMismatch
from lake.text import SURROUNDING, visible

# The lines by which a file without a header is checked against its source: a few of them may be broken.
SAMPLE_LINES = 100
# The longest line, in bytes; a file is checked by no more of it than that, decompressed.
LINE_BYTES = 1 << 20
# Files with a footer, also where they have no row.
TABLES = (".parquet", ".orc", ".avro")
# Characters of a line's shape that a message shows.
SHOWN = 300
# Packed in ways that nothing here unpacks: the packed bytes would be read as text.
OTHERWISE_PACKED = (
    *(".lzma", ".lz4", ".snappy", ".deflate", ".7z", ".rar", ".tar", ".tgz", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz"),
    *(".tar.zst", ".tar.zstd"),
)
# Ends of names of files that are unpacked when they are read.
UNPACKED = (".gz", ".bz2", *SUFFIXES)
# How a packed file begins, whatever its name is, and the end of its name by which it is read.
BEGINNINGS = {
    b"PK\x03\x04": ("zip", ".zip"),
    b"\xfd7zXZ\0": ("xz", ".xz"),
    b"\x28\xb5\x2f\xfd": ("zstd", ".zst"),
    b"7z\xbc\xaf": ("7z", ""),
    b"\x1f\x8b": ("gzip", ".gz"),
    **{f"BZh{level}1AY&SY".encode(): ("bzip2", ".bz2") for level in range(1, 10)},
    b"\x04\x22\x4d\x18": ("lz4", ""),
}
# A tar has its mark behind the name of its first file, and not at its beginning.
TAR, TAR_AT = (b"ustar\0", b"ustar  \0"), 257
# How files begin that are tables of another kind.
OTHER_TABLES = {
    b"ARROW1\0\0": "Arrow, or Feather; write it as Parquet",
    b"SQLite format 3": "a database of SQLite; export its table as CSV",
    b"\xd0\xcf\x11\xe0": "a file of Excel; export it as CSV",
}
UTF_16 = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}


@dataclass(frozen=True)
class Layout:
    """How the rows of a text file are found.

    Attributes:
        charset: Java's name of the encoding.
        names: csv: the columns in file order.
        header: csv: the line that names them, which is no row; None if there is none.
        preamble: csv: the lines above the header or the first row.
        by_python: whether Python reads the file, since Spark does not, or would take a line into memory whole.
        array: jsonl: Python's name of the encoding of a file that is one array, whose elements are its lines, which are
            in `charset`; empty for any other file.
    """

    charset: str
    names: tuple[str, ...] = ()
    header: str | None = None
    preamble: tuple[str, ...] = ()
    by_python: bool = False
    array: str = ""

    @property
    def lines_above(self) -> int:
        """Number of lines above the first row."""
        return len(self.preamble) + (self.header is not None)


@dataclass(frozen=True)
class ParquetLayout:
    """The types of a Parquet, ORC or Avro file: the kind of each column that is used, and all types as one text.

    A kind is text, whole number, fraction, truth, instant, wall clock, either of these two in nanoseconds, nothing
    (each value is null), date, or other; a column that the file lacks has none.
    """

    kinds: tuple[tuple[str, str], ...]
    types: str


@dataclass
class LandingFiles:
    """The files of a run by their layout, so that each group is read as one.

    Attributes:
        text, parquet: by kind.
        tables: ORC and Avro.
        beyond: text files of more than `LINE_BYTES`, unpacked, of which only the beginning was looked at.
        rows: how many the footer of each Parquet file says that it has.
    """

    text: dict[Layout, list[str]] = field(default_factory=lambda: defaultdict(list))
    parquet: dict[ParquetLayout, list[str]] = field(default_factory=lambda: defaultdict(list))
    tables: list[str] = field(default_factory=list)
    beyond: set[str] = field(default_factory=set)
    rows: dict[str, int] = field(default_factory=dict)


def check_files(source: Source, files: list[str]) -> LandingFiles:
    """Check that every file can be opened and has the columns that its source names; return how they are read.

    A text file without a byte has no rows: Spark writes such files beside others.

    Raises:
        LandingUnreadable: a file cannot be opened, decompressed or read.
        SourceMismatch: a file, or all of them, do not have the columns that the source names.
    """
    return check_looks(source, look_at_all(source, files))


def look_at_all(source: Source, files: Sequence[str]) -> "list[Look]":
    """Check each of some files against its source; return what was found in each, and in each file of a .zip."""

    def look(file: str) -> list[Look]:
        return [look_at(source, part) for part in parts_of(file)]

    with ThreadPoolExecutor(max_workers=16) as pool:
        return list(chain.from_iterable(pool.map(look, files)))


def check_looks(source: Source, looks: "Sequence[Look]") -> LandingFiles:
    """Check that files have together what their source names, and fit each other; see `check_files`."""
    days_with_rows = {landing_folder(look.file) for look in looks if not look.is_empty}
    found = LandingFiles()
    for look in looks:
        if (
            look.is_empty
            and source.header
            and source.format == "csv"
            and not isinstance(source, Part)
            and landing_folder(look.file) not in days_with_rows
        ):
            check_text(source, look.file, b"")  # a header was to be delivered
        elif look.text:
            found.text[look.text].append(look.file)
            if look.beyond:
                found.beyond.add(look.file)
        elif look.parquet:
            found.parquet[look.parquet].append(look.file)
            found.rows[look.file] = look.rows
        elif look.table:
            found.tables.append(look.file)
    require_keys(source, [look for look in looks if look.text])
    require_equal_kinds([(look.file, layout) for look in looks if (layout := look.parquet or look.table)])
    return found


@dataclass(frozen=True)
class Look:
    """What was found in one file: its layout, the keys of JSON lines, rows of Parquet, whether it is a large text."""

    file: str
    text: Layout | None = None
    keys: frozenset[str] = frozenset()
    parquet: ParquetLayout | None = None
    table: ParquetLayout | None = None
    rows: int = 0
    beyond: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether the file has not one byte."""
        return self.text is None and self.parquet is None and self.table is None


def look_at(source: Source, file: str) -> Look:
    """Check one file against its source; keep nothing of its rows."""
    head = first_bytes(file)
    # Whoever writes Parquet writes a footer, also where there is no row: such a file was cut off.
    if not head and not file.endswith(TABLES):
        return Look(file)
    if is_parquet(file, head):
        layout, rows = check_parquet(source, file)
        return Look(file, parquet=layout, rows=rows)
    if is_orc(file, head):
        return Look(file, table=check_table(source, file, "an ORC file", orc_schema))
    if is_avro(file, head):
        return Look(file, table=check_table(source, file, "an Avro file", avro_schema))
    if source.format == "parquet":
        raise SourceMismatch(f"{file}: source {source.name} expects Parquet, ORC or Avro files, found text")
    return replace(check_text(source, file, head), beyond=len(head) > LINE_BYTES)


def by_version(source: Source, files: list[str]) -> list[tuple[Source, list[str]]]:
    """Return files by the version of their source that counts for them; one group without files if there are none.

    Raises:
        SourceMismatch: the patterns of two versions, or of two sources, match a file, or that of none does.
    """
    groups: dict[int, tuple[Source, list[str]]] = {}
    for file in files:
        version = source.of(*day_and_name(file))
        groups.setdefault(id(version), (version, []))[1].append(file)
    return list(groups.values()) or [(source, [])]


def day_and_name(file: str) -> tuple[date, str]:
    """Return the landing day of a file and its name below the folder of that day."""
    _, day, name = re.split(r"/dt=(\d{4}-\d{2}-\d{2})/", file, maxsplit=1)
    return date.fromisoformat(day), name


def days_of(files: Iterable[str]) -> list[date]:
    """Return the landing days of files, sorted."""
    return sorted({day_and_name(file)[0] for file in files})


def landing_folder(file: str) -> str:
    """Return the `dt=` folder of a file."""
    return re.sub(r"(/dt=[^/]+/).*", r"\1", file)


def first_bytes(file: str) -> bytes:
    """Return the first bytes of a file, decompressed, at most one line of the longest kind and its end.

    A few kilobytes of a compressed file may be gigabytes, and one line. So no more than `LINE_BYTES` are read.

    Raises:
        LandingUnreadable: the file cannot be opened or decompressed.
    """
    expected = f"{file}: expected plain text, or text in a .gz, .bz2, .zip, .xz or .zst, found"
    # What it is packed in says the name of the .zip, and not that of a file in it.
    name = on_storage(file)
    known = name.endswith((".gz", ".bz2")) or is_packed(name) or not fsspec.utils.infer_compression(name)
    if not known or name.lower().endswith(OTHERWISE_PACKED):
        raise LandingUnreadable(f"{expected} another compression; unpack it")
    most = len(b"PAR1") if name.endswith(TABLES) else LINE_BYTES + len(b"\r\n")
    with readable(file), unpacked(file) as stream:
        # Not every reader gives as much as it is asked for.
        head = b"".join(chunks(stream, most))
    is_unpacked = name.lower().endswith(UNPACKED)
    if kind := next((kind for beginning, kind in BEGINNINGS.items() if head.startswith(beginning)), None):
        way, end = kind
        may_be_renamed = end and not is_unpacked and not name.endswith(TABLES)
        remedy = f"give it a name that ends in {end}" if may_be_renamed else "unpack it"
        if file.lower().endswith((".xlsx", ".ods")):
            remedy = "it is a spreadsheet: export it as CSV"
        raise LandingUnreadable(f"{expected} bytes that begin as those of {way}; {remedy}")
    if head[TAR_AT:].startswith(TAR):
        raise LandingUnreadable(f"{expected} an archive of files (tar); deliver each of its files alone")
    if is_unpacked and (is_parquet(file, head) or may_be_orc(head) or is_avro(file, head)):
        table = "Parquet" if is_parquet(file, head) else "ORC" if may_be_orc(head) else "Avro"
        raise LandingUnreadable(f"{expected} {table} in it; {table} is not packed again: unpack it")
    if other := next((other for beginning, other in OTHER_TABLES.items() if head.startswith(beginning)), None):
        raise LandingUnreadable(f"{file}: expected text, Parquet, ORC or Avro, found {other}")
    return head


def chunks(stream: IO[bytes], most: int) -> Iterator[bytes]:
    """Yield the first bytes of a stream, in pieces."""
    while most > 0 and (chunk := bytes(stream.read(most))):
        yield chunk
        most -= len(chunk)


def is_parquet(file: str, head: bytes) -> bool:
    """Return whether a file is Parquet, by its name or its first bytes: Athena writes names without a suffix."""
    return file.endswith(".parquet") or head.startswith(b"PAR1")


# ---- text -----------------------------------------------------------------------------------------------


def first_lines(source: Source, file: str, head: bytes) -> tuple[list[str], str]:
    """Return the first lines of a text file, and the name of its encoding; undecodable bytes are replaced.

    Raises:
        LandingUnreadable: the first line is too long.
    """
    encoding = source.encoding
    if source.charset.startswith("UTF-16"):
        encoding = UTF_16.get(head[:2], "utf-16-be" if source.charset == "UTF-16BE" else "utf-16-le")
        wide = head[: LINE_BYTES // 2 * 2].decode(encoding, errors="replace").removeprefix("\ufeff")
        lines = [line.removesuffix("\r") for line in wide.removesuffix("\n").split("\n")]
        return lines[: -1 if len(lines) > 1 and len(head) > LINE_BYTES else None][:SAMPLE_LINES], encoding
    parts = head.removeprefix(codecs.BOM_UTF8).splitlines()
    if parts and len(parts[0]) > LINE_BYTES:
        raise LandingUnreadable(
            f"{file}: expected lines of at most {LINE_BYTES:,} bytes, found a first line that is longer; deliver the "
            "file as text of one record a line"
        )
    if len(parts) > 1 and len(head) > LINE_BYTES:
        parts = parts[:-1]  # only the beginning of it was read
    return [line.decode(encoding, errors="replace") for line in parts[: SAMPLE_LINES + source.skip_lines]], encoding


def array_encoding(source: Source, head: bytes) -> str:
    """Return Python's name of the encoding of what is an array of JSON, by its beginning; empty if it is none."""
    if source.format != "jsonl":
        return ""
    encoding = "utf-8" if source.charset == "UTF-8" else source.encoding
    if source.charset.startswith("UTF-16"):
        encoding = UTF_16.get(head[:2], "utf-16-be" if source.charset == "UTF-16BE" else "utf-16-le")
    return encoding if is_array(head.decode(encoding, errors="replace")) else ""


def first_elements(file: str, head: bytes, encoding: str, most: int = SAMPLE_LINES, *, is_cut: bool) -> list[bytes]:
    """Return the first elements of a file that is an array of JSON, in UTF-8.

    Args:
        file: its name, for messages.
        head: the beginning of its text.
        encoding: of that text, by Python's name.
        most: number of elements.
        is_cut: whether the file goes on behind it.

    Raises:
        LandingUnreadable: the first one is too long, or the array is damaged.
    """
    found = list(islice(elements(BytesIO(head), file, len(head), encoding, is_cut=is_cut), most))
    if is_cut and not found:
        raise LandingUnreadable(
            f"{file}: expected an array of JSON with rows of at most {LINE_BYTES:,} bytes, found a first row that is "
            "longer; deliver the file as one object for each event"
        )
    return found


def first_records(source: Source, file: str, head: bytes) -> list[str]:
    """Return the first lines of a text file, or the first elements of an array of JSON."""
    if encoding := array_encoding(source, head):
        found = first_elements(file, head, encoding, is_cut=len(head) > LINE_BYTES)
        return [element.decode(errors="replace") for element in found]
    return first_lines(source, file, head)[0]


def end_of_line(encoding: str) -> bytes:
    r"""Return the bytes of an end of a line in UTF-16; none for all other encodings, whose ends are the usual ones.

    >>> end_of_line("UTF-16BE"), end_of_line("utf-8")
    (b'\x00\n', b'')
    """
    return "\n".encode(encoding) if encoding.upper().startswith("UTF-16") else b""


def check_text(source: Source, file: str, head: bytes) -> Look:
    """Check one text file against its source by its first bytes."""
    if array := array_encoding(source, head):
        layout = Layout("UTF-8", by_python=True, array=array)
        return Look(file, layout, check_json_lines(source, file, first_records(source, file, head)))
    lines, encoding = first_lines(source, file, head)
    charset = {"utf-16-le": "UTF-16LE", "utf-16-be": "UTF-16BE"}.get(encoding, source.charset)
    packed = is_packed(file)
    if source.format == "jsonl":
        return Look(file, Layout(charset, by_python=packed), check_json_lines(source, file, lines))
    above = preamble_lines(source, lines)
    preamble, rows = tuple(lines[:above]), lines[above:]
    if source.header:
        return Look(file, Layout(charset, header_names(source, file, rows), rows[0], preamble, packed))
    if rows and not source.multiline:
        quote = re.escape(source.quote)
        # What is in quotes does not count; broken quotes can only make the count larger.
        inside = re.compile(f"{quote}[^{quote}]*{quote}" if quote else "(?!)")
        counts = [inside.sub("", line).count(source.delimiter) + 1 for line in rows]
        if max(counts) < len(source.columns) or min(counts) > len(source.columns):
            raise SourceMismatch(
                f"{file}: source {source.name} expects {len(source.columns)} columns ({', '.join(source.columns)}), "
                f"found {counts[0]} in {shape(rows[0])}"
            )
    return Look(file, Layout(charset, tuple(source.columns), None, preamble, packed))


def preamble_lines(source: Source, lines: list[str]) -> int:
    """Return how many lines stand above the header or the first row of a file of CSV."""
    # Spreadsheets write their delimiter into a first line of its own.
    return source.skip_lines or int(bool(lines and re.fullmatch(r'"?sep=.{1,2}"?', lines[0])))


def header_line(source: Source, file: str, head: bytes) -> str:
    """Return the line of a file of CSV that names its columns, by its first bytes; empty if it ends before."""
    lines, _ = first_lines(source, file, head)
    return next(iter(lines[preamble_lines(source, lines) :]), "")


def header_names(source: Source, file: str, lines: list[str]) -> tuple[str, ...]:
    """Return the columns that the header names, in file order; quotes and blanks around a name are no part of it.

    Raises:
        SourceMismatch: the header lacks a column, or has one that is used more than once.
    """
    needed = (name for name in source.used_columns if name not in source.may_lack)
    wanted = source.columns or list(dict.fromkeys(map(source.file_column, needed)))
    names = split_header(source, lines[0]) if lines else ()
    missing = [name for name in wanted if name not in names and name not in source.may_lack]
    missing += [name for name in map(source.file_column, source.may_lack) if name not in names and near(name, names)]
    if missing:
        expected = (
            f"the header line {source.delimiter.join(wanted)!r}"
            if source.columns
            else f"a header with {', '.join(wanted)}"
        )
        header = names_or_shape(list(names), lines[0]) if lines else "an empty file"
        raise SourceMismatch(f"{file}: source {source.name} expects {expected}, found {header}{likely(missing, names)}")
    twice = [name for name in source.file_columns if names.count(name) > 1]
    if twice:
        raise SourceMismatch(
            f"{file}: source {source.name} reads the column {twice[0]}, found it {names.count(twice[0])} times in the "
            "header; have the file delivered with a name for each column"
        )
    return names


def split_header(source: Source, line: str) -> tuple[str, ...]:
    """Return the names in a header line.

    >>> from jobs.source import load_source
    >>> split_header(load_source("rees46"), '"time", user,event ')
    ('time', 'user', 'event')
    """
    blanks = SURROUNDING.replace(source.delimiter, "")
    if len(source.delimiter) == 1 and source.quote and source.quote in line:
        parts = next(csv.reader([line], delimiter=source.delimiter, quotechar=source.quote, skipinitialspace=True))
    else:
        parts = line.split(source.delimiter)
    return tuple(part.strip(blanks).strip(source.quote or None).strip(blanks) for part in parts)


def check_json_lines(source: Source, file: str, lines: list[str]) -> frozenset[str]:
    """Check that a record is an object with what every event needs; return all keys, and the columns found by paths.

    Raises:
        SourceMismatch: no line has what every event needs.
    """
    rows = [line for line in lines if line.strip()]
    if not rows:
        return frozenset()
    found = [columns_of(record(line), source) for line in rows]
    if not any(has_values(source.required, each) for each in found):
        raise SourceMismatch(
            f"{file}: source {source.name} expects JSON objects with {', '.join(source.required_columns)}, "
            f"found {names_or_shape(sorted(json_keys(rows[0])), rows[0])}"
        )
    return frozenset().union(*found, *(json_keys(line) for line in rows))


def require_keys(source: Source, looks: list[Look]) -> None:
    """Check that each column of JSON lines that the source names is a key of some line of the files.

    Raises:
        SourceMismatch: a key is in no line that was looked at.
    """
    keys = frozenset[str]().union(*(look.keys for look in looks))
    if not keys:
        return
    absent = [name for value in source.optional if value.sql is None for name in value.columns if name not in keys]
    wrong = [name for name in absent if name not in source.may_lack or near(name, keys)]
    if wrong:
        raise SourceMismatch(
            f"{looks[0].file} and other files of the run: source {source.name} reads {', '.join(wrong)}, found in none "
            f"of the first {SAMPLE_LINES} lines of each{likely(wrong, keys)}; correct the name, or add it to "
            "`may_lack` of the source if files may lack it"
        )


def record(line: str) -> dict[str, Any]:
    """Return the object that a JSON line is; an empty one if it is none."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def json_keys(line: str) -> set[str]:
    """Return the keys of a JSON object; none if the line is not an object."""
    return set(record(line))


def columns_of(row: dict[str, Any], source: Source) -> set[str]:
    """Return which of the columns that a source uses are in a JSON object, those inside of others too."""
    columns = {name: source.file_column(name) for name in source.used_columns}
    return {name for name, at in columns.items() if at in row or holds(row, at.split("."), source.lists)}


def holds(part: Any, steps: list[str], each: Sequence[str], above: tuple[str, ...] = ()) -> bool:
    """Return whether a part of a JSON object has what a path leads to, through the elements of the lists `each` too.

    Args:
        part: of the object.
        steps: the path from there.
        each: the paths of the lists.
        above: the path to the part.

    >>> holds({"events": [{}, {"id": 7}]}, ["events", "id"], ["events"])
    True
    """
    if not steps:
        return True
    if isinstance(part, list):
        if steps[0].isdigit():
            return int(steps[0]) < len(part) and holds(part[int(steps[0])], steps[1:], each, (*above, steps[0]))
        return ".".join(above) in each and any(holds(element, steps, each, above) for element in part)
    return isinstance(part, dict) and steps[0] in part and holds(part[steps[0]], steps[1:], each, (*above, steps[0]))


def has_values(values: Iterable[Value], columns: set[str]) -> bool:
    """Return whether a row with some columns has a column of each value."""
    return all(columns & set(value.columns) for value in values if value.columns)


def near(name: str, names: Iterable[str]) -> str | None:
    """Return a name that is written in another way: in another case, or with other blanks and underscores."""

    def plain(text: str) -> str:
        return re.sub(r"[\W_]", "", text).lower()

    return next((other for other in names if other != name and plain(other) == plain(name)), None)


def likely(missing: list[str], names: Iterable[str]) -> str:
    """Return for a message which names may be meant by those that are missing."""
    meant = [(name, near(name, names)) for name in missing]
    return "".join(f"; it has {other!r} where the source says {name!r}" for name, other in meant if other)


def names_or_shape(names: list[str], line: str) -> str:
    """Return for a message what a line names as columns; only its shape, if it may be a row of the log."""
    return f"the names {in_a_line(names)!r}" if are_names(names) else shape(line)


def in_a_line(names: Iterable[str]) -> str:
    r"""Return for a message names that a file has given, of any characters and any number, in one short line.

    >>> in_a_line(["user", "\x1b[2J\nERROR"]), len(in_a_line(["a"] * 1000))
    ('user, \\x1b[2J\\nERROR', 304)
    """
    line = visible(", ".join(names)).replace("\n", "\\n")
    return line if len(line) <= SHOWN else f"{line[:SHOWN]} ..."


def are_names(texts: Sequence[str]) -> bool:
    """Return whether texts may be names of columns, and not the values of a row.

    Each row has a time, and no time is a name: it begins with a digit, or has colons.
    """
    return bool(texts) and all(re.sub(r"[ .-]", "_", text.strip(" \"'[]`")).isidentifier() for text in texts)


def shape(line: str) -> str:
    """Return for a message how a line is built, without what it says: messages go to logs, alerts and chats.

    >>> print(shape("ann@example.org;2017-11-24;b7 x"))
    a line of 31 characters like 'a@a.a;9-9-9;x a' (9: digits, a: letters, x: both)
    """
    return f"a line of {len(line):,} characters like {like(line)!r} (9: digits, a: letters, x: both)"


def like(text: str) -> str:
    """Return how a text is built: 9 for digits, a for letters, x for words of both, and what is between them.

    >>> like("ann@example.org;2017-11-24;b7 x")
    'a@a.a;9-9-9;x a'
    """

    def kind(word: re.Match[str]) -> str:
        return "9" if word[0].isdigit() else "a" if word[0].isalpha() else "x"

    # All that is not ASCII counts as a part of words.
    return re.sub(r"(?:\w|[^\x00-\x7f])+", kind, text)[:SHOWN]


# ---- Parquet ----------------------------------------------------------------------------------------------


def check_parquet(source: Source, file: str) -> tuple[ParquetLayout, int]:
    """Check one Parquet file against its source; return the kinds of the columns that are used, and its rows.

    Raises:
        LandingUnreadable: it is no Parquet file.
        SourceMismatch: a column is missing, or of a type that cannot be what the source says.
    """
    fs, inner = storage.filesystem(file)
    try:
        with fs.open(inner, "rb") as stream:
            footer = pq.read_metadata(stream)
        stored = footer.schema
        schema = stored.to_arrow_schema()
        tuple(schema.names)  # fails where one is no text
    except Exception as error:
        raise LandingUnreadable(f"{file}: expected a Parquet file, found {type(error).__name__}: {error}") from error
    int96 = {stored.column(n).path for n in range(len(stored)) if stored.column(n).physical_type == "INT96"}
    return check_columns(source, file, schema, int96), footer.num_rows


def check_table(source: Source, file: str, expected: str, schema_of: Callable[[str], pa.Schema]) -> ParquetLayout:
    """Check one file of ORC or Avro against its source, as `check_parquet`."""
    try:
        schema = schema_of(file)
        tuple(schema.names)  # as above
    except Exception as error:
        raise LandingUnreadable(f"{file}: expected {expected}, found {type(error).__name__}: {error}") from error
    return check_columns(source, file, schema, set())


def check_columns(source: Source, file: str, schema: pa.Schema, int96: Container[str]) -> ParquetLayout:
    """Check the columns of a Parquet, ORC or Avro file against its source; return the kinds of those that are used.

    Args:
        source: of the file.
        file: its name.
        schema: its types.
        int96: names of the columns that Parquet keeps in that type.

    Raises:
        SourceMismatch: a column is missing, or of a type that cannot be what the source says.
    """
    # In one pass: a file of some megabytes may have a hundred thousand columns.
    alike = Counter(name.lower() for name in schema.names)
    twice = [name for name in schema.names if alike[name.lower()] > 1]
    if twice:
        raise SourceMismatch(
            f"{file}: expected columns whose names differ, found {in_a_line(twice)}, which Spark does not tell apart"
        )
    # What is in a list that is one text has the type of that text.
    used = dict.fromkeys([*source.used_columns, *source.file_columns])
    types = {name: parquet_type(schema, source.file_column(name), source.lists) for name in used}
    missing = [name for name, of in types.items() if of is None]
    wrong = [name for name in missing if name not in source.may_lack or near(name, schema.names)]
    if wrong:
        expected = [name for name in source.used_columns if name not in source.may_lack or name in wrong]
        raise SourceMismatch(
            f"{file}: source {source.name} expects {', '.join(expected)}, "
            f"found {in_a_line(schema.names)}; missing: {', '.join(wrong)}{likely(wrong, schema.names)}"
        )
    kinds = {name: parquet_kind(of, name in int96) for name, of in types.items() if of is not None}
    require_kinds(source, file, kinds, types)
    return ParquetLayout(tuple(kinds.items()), str(schema.remove_metadata()))


def parquet_type(schema: pa.Schema, name: str, each: Sequence[str]) -> pa.DataType | None:
    """Return the type of a column, or of a part inside of one; None if there is none."""
    if name in schema.names and name not in each:
        return schema.field(name).type
    steps = name.split(".")
    of: pa.DataType = pa.struct(list(schema))
    for n, step in enumerate(steps):
        if pa.types.is_list(of) or pa.types.is_large_list(of):
            of = of.value_type
            if step.isdigit():
                continue
            if ".".join(steps[:n]) not in each:
                return None
        if not pa.types.is_struct(of) or of.get_field_index(step) < 0:
            return None
        of = of.field(step).type
    is_list = pa.types.is_list(of) or pa.types.is_large_list(of)
    return of.value_type if name in each and is_list else of


def parquet_kind(of: pa.DataType, int96: bool) -> str:
    """Return the kind of a type, see `ParquetLayout`: types that Spark reads as the same text are of one kind."""
    if pa.types.is_dictionary(of):
        of = of.value_type
    if pa.types.is_timestamp(of):
        # INT96 has the resolution of nanoseconds, and Spark has always read it, as an instant.
        if int96:
            return "instant"
        return ("instant" if of.tz else "wall clock") + (" in nanoseconds" if of.unit == "ns" else "")
    kinds = {
        "nothing": pa.types.is_null,
        "text": lambda t: pa.types.is_string(t) or pa.types.is_large_string(t) or str(t).startswith("string"),
        "bytes": lambda t: pa.types.is_binary(t) or pa.types.is_large_binary(t),
        "whole number": pa.types.is_integer,
        "fraction": pa.types.is_floating,
        "decimal": pa.types.is_decimal,
        "truth": pa.types.is_boolean,
        "date": pa.types.is_date,
    }
    return next((kind for kind, is_one in kinds.items() if is_one(of)), "other")


def require_kinds(source: Source, file: str, kinds: dict[str, str], types: dict[str, pa.DataType | None]) -> None:
    """Check that columns have types from which ids, times and prices can be read."""
    no_ids = {"truth", "date", "other"} | {kind for kind in kinds.values() if kind.startswith(("instant", "wall"))}
    checks = [
        (value, "text or whole numbers", no_ids)
        for value in (source.user_id, source.item_id, source.category_id)
        if value
    ]
    checks += [(source.price, "a number", no_ids)] if source.price else []
    checks += [(value, "text", {"other"}) for value in (source.query, source.behavior.column) if value]
    checks.append((source.time.column, "a time", {"other", "truth"}))
    for value, expected, wrong in checks:
        for name in value.columns:
            if value.sql is None and kinds.get(name) in wrong:
                raise SourceMismatch(
                    f"{file}: source {source.name} expects {expected} in {name}, found {types[name]}"
                    + (f"; name a part of it, such as {name}.id" if kinds[name] == "other" else "")
                )
    for name in source.time.column.columns:
        is_time = kinds.get(name, "").startswith(("instant", "wall clock"))
        if is_time and "iso8601" not in source.time.formats and source.time.column.sql is None:
            raise SourceMismatch(
                f"{file}: source {source.name} expects times in {name} as {' or '.join(source.time.formats)}, found "
                f"{types[name]}; write `format: iso8601` for a timestamp"
            )


def require_equal_kinds(kinds: list[tuple[str, ParquetLayout]]) -> None:
    """Check that no column is text in one file and numbers, or times of another kind, in the next."""
    group = {"whole number": "number", "fraction": "number", "decimal": "number", "bytes": "text"}
    first: dict[str, tuple[str, str]] = {}
    for file, layout in kinds:
        for name, exact in layout.kinds:
            kind = group.get(exact, exact.removesuffix(" in nanoseconds"))
            other, before = first.setdefault(name, (file, kind)) if kind != "nothing" else (file, kind)
            if kind != before:
                raise SourceMismatch(
                    f"{file}: {name} is {kind}, which differs from that of {other}, {before}; "
                    "have the files of a day delivered with the same types"
                )
