"""The first rows of a file that nobody has described yet, and how it is read: for `meander source init`.

Encoding, delimiter, header, lines above it and a list of events in each row are found out; what columns mean says
jobs/first_source.py.
"""

import csv
import json
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import pyarrow as pa
from charset_normalizer import from_bytes

from jobs.avro_rows import avro_schema, is_avro, rows_of
from jobs.json_array import is_array
from jobs.json_columns import DEPTH
from jobs.landing_files import LINE_BYTES, are_names, first_bytes, first_elements, is_parquet, record
from jobs.orc_rows import is_orc, orc_batches, orc_schema
from jobs.packed import parts_of, readable
from jobs.source import NULLS, java_charset
from lake import storage
from lake.errors import SourceMismatch

ROWS = 1000
# A log may have broken rows: so many of its values have to fit.
MOST = 0.9
# Longest first: `||` is not two empty columns.
DELIMITERS = ("||", "::", ",", ";", "\t", "|")


@dataclass(frozen=True)
class Sample:
    """The first rows of a file as texts: by column, the values that are there; and the keys that read it."""

    keys: dict[str, Any]
    columns: dict[str, list[str]]
    rows: int
    doubts: tuple[tuple[str, str], ...] = ()
    types: Mapping[str, pa.DataType] = field(default_factory=dict)


def look_into(file: str, named: Collection[str] = ()) -> Sample:
    """Return the first rows of a file, and the keys of a source that reads it.

    Args:
        file: its path or address. Of a .zip, the first of its files that has a row is looked at.
        named: columns that a person has named.

    Raises:
        LandingUnreadable: it cannot be read.
        SourceMismatch: it has neither a row nor a header, or is no table.
    """
    header_alone = None
    for part in parts_of(file):
        sample = sample_of_part(part, named)
        if sample and sample.rows:
            return sample
        header_alone = header_alone or sample
    if header_alone is None:
        raise SourceMismatch(f"{file} has no row; a source is written by looking at some")
    return header_alone


def sample_of_part(file: str, named: Collection[str]) -> Sample | None:
    """Return what `look_into` does, of a file that is no .zip or is in one; None if it has neither row nor header."""
    head = first_bytes(file)
    if is_parquet(file, head):
        with storage.parquet_file(file) as opened:
            return table_sample(opened.schema_arrow, opened.iter_batches(batch_size=ROWS))
    if is_orc(file, head):
        with readable(file):
            return table_sample(orc_schema(file), orc_batches(file, ROWS))
    if is_avro(file, head):
        with readable(file):
            return objects_sample(avro_schema(file), list(islice(rows_of(file), ROWS)))
    text, encoding, doubts = decoded(head)
    is_cut = len(head) > LINE_BYTES
    keys = {} if encoding == "utf-8" else {"encoding": encoding}
    if is_array(text):
        # The text may be shorter than what was read of the file.
        lines = [row.decode() for row in first_elements(file, text.encode(), "utf-8", ROWS, is_cut=is_cut)]
    else:
        lines = text.splitlines()
        lines = lines[: -1 if len(lines) > 1 and is_cut else None][:ROWS]
    # A batch without events may stand before lines of JSON.
    rows = [line for line in lines if line.strip() not in ("", "[]")]
    if not rows:
        return None
    if rows[0].lstrip().startswith("{"):
        objects = [found for row in rows if (found := record(row))]
        if objects:
            columns, each = columns_of_objects(objects)
            return Sample({"format": "jsonl", **keys, **each}, columns, len(objects), doubts)
    return csv_sample(file, lines, keys, doubts, named)


def decoded(head: bytes) -> tuple[str, str, tuple[tuple[str, str], ...]]:
    """Return the text of the first bytes of a file, its encoding, and what is doubtful of it."""
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return head[: len(head) // 2 * 2].decode("utf-16", errors="replace"), "utf-16", ()
    # Of a longer file, the last character may be cut.
    for cut in range(4 if len(head) > LINE_BYTES else 1):
        with suppress(UnicodeDecodeError):
            return head[: len(head) - cut].decode("utf-8-sig"), "utf-8", ()
    best = from_bytes(head).best()
    encoding = best.encoding.replace("_", "-") if best and java_charset(best.encoding) else "windows-1252"
    doubt = "The file is not UTF-8; its encoding was guessed by its letters: do names with accents look right?"
    return head.decode(encoding, errors="replace"), encoding, (("encoding", doubt),)


def columns_of_objects(objects: Sequence[Mapping[str, Any]]) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Return the values of objects by column; and the list whose elements are events, where nearly all have one.

    >>> columns_of_objects([{"session": 7, "events": [{"aid": 1}, {"aid": 2}]}])
    ({'session': ['7'], 'events.aid': ['1', '2']}, {'each': 'events'})
    """
    columns: dict[str, list[str]] = {}
    lists: Counter[str] = Counter()

    def add(row: Mapping[str, Any], above: str, depth: int) -> None:
        for key, value in row.items():
            name = f"{above}{key}"
            if isinstance(value, dict) and depth > 1:
                add(value, f"{name}.", depth - 1)
            elif isinstance(value, list) and value and all(isinstance(each, dict) for each in value):
                lists[name] += 1
                for each in value:
                    add(each, f"{name}.", 1)
            elif isinstance(value, (str, int, float)) and value != "":
                columns.setdefault(name, []).append(value if isinstance(value, str) else json.dumps(value))

    for each in objects:
        add(each, "", DEPTH)
    name, n = next(iter(lists.most_common(1)), ("", 0))
    is_each = n >= MOST * len(objects)
    # Other lists would need a row for each of their elements.
    inner = [other for other in lists if not (is_each and other == name)]
    return {
        column: values
        for column, values in columns.items()
        if not any(column.startswith(f"{other}.") for other in inner)
    }, ({"each": name} if is_each else {})


def table_sample(schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> Sample | None:
    """Return the first rows of a Parquet or ORC file; None if it has none."""
    batch = next(batches, None)
    return objects_sample(schema, batch.to_pylist() if batch else [])


def objects_sample(schema: pa.Schema, rows: Sequence[Mapping[str, Any]]) -> Sample | None:
    """Return rows of a Parquet, ORC or Avro file; None if there are none."""
    if not rows:
        return None
    kept = (dict, list, int, float)
    objects = [
        {name: value if isinstance(value, kept) else as_text(value) for name, value in row.items() if value is not None}
        for row in rows
    ]
    columns, each = columns_of_objects(objects)
    return Sample({"format": "parquet", **each}, columns, len(objects), types={one.name: one.type for one in schema})


def as_text(value: Any) -> str:
    """Return a value of Parquet as text; some writers have no type for texts, only bytes."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def csv_sample(
    file: str,
    lines: list[str],
    keys: dict[str, Any],
    doubts: tuple[tuple[str, str], ...],
    named: Collection[str] = (),
) -> Sample | None:
    """Return the first rows of a file of CSV; None if no line has a text."""
    has_sep = bool(re.fullmatch(r'"?sep=.{1,2}"?', lines[0]))
    numbered = [(n, line) for n, line in enumerate(lines) if line.strip() and not (has_sep and n == 0)]
    if not numbered:
        return None
    rows, skip = [line for _, line in numbered], 0
    delimiter = find_delimiter(rows)
    # Lines above the header have fewer columns than all others.
    widths = [len(split(row, delimiter)) for row in rows]
    usual = Counter(widths).most_common(1)[0][0]
    while skip < len(rows) - 1 and widths[skip] < usual:
        skip += 1
    table = [split(row, delimiter) for row in rows[skip:]]
    keys = {"format": "csv", **({"delimiter": delimiter} if delimiter != "," else {}), **keys}
    # Each line above counts, also one without a text; the first line alone is found again if it names the delimiter.
    above = numbered[skip][0]
    if above > int(has_sep):
        keys["skip_lines"] = above
    if any('\\"' in row for row in rows):
        keys["escape"] = "backslash"
    names = [each.strip() for each in table[0]]
    if not is_header(names, named):
        names = [f"c{n}" for n in range(1, usual + 1)]
        keys |= {"header": False, "columns": names}
        doubts = (*doubts, ("columns", "The file has no header: give the columns their names, here and below."))
    else:
        table = table[1:]
    nulls = {word.lower() for word in NULLS} | {""}
    columns = {
        name: [row[n].strip() for row in table if len(row) == len(names) and row[n].strip().lower() not in nulls]
        for n, name in enumerate(names)
        # What has no name, or that of another one, cannot be read.
        if name and names.count(name) == 1
    }
    if len(names) < 3:
        raise SourceMismatch(
            f"{file}: found {len(names)} columns by {delimiter!r}; an event needs at least a user, a time and an item. "
            "Is it CSV or JSON, one record a line?"
        )
    return Sample(keys, columns, len(table), doubts)


def is_header(names: Sequence[str], named: Collection[str]) -> bool:
    """Return whether the values of a first line are names of columns: each row of a log has a time, and no name is one.

    A column may have no name, such as the index that pandas writes.

    >>> is_header(["", "user", "price (EUR)"], ()), is_header(["u1", "Tue 5 Mar, 10:00", "i1"], ())
    (True, False)
    >>> is_header(["7", "8", "9"], ["8"])
    True
    """
    said = [name for name in names if name]
    is_datum = any(re.search(r"^\W*\d|\d:\d\d|\d{4}", name) for name in said)
    return bool(said) and (are_names(said) or not is_datum or not set(said).isdisjoint(named))


def split(row: str, delimiter: str) -> list[str]:
    """Return the values of a line of CSV."""
    if len(delimiter) > 1:
        return row.split(delimiter)
    return next(csv.reader([row], delimiter=delimiter, skipinitialspace=True))


def find_delimiter(rows: Sequence[str]) -> str:
    """Return what splits most lines into the same number of values, and into most of them."""

    def fit(delimiter: str) -> tuple[float, int]:
        width, n = Counter(len(split(row, delimiter)) for row in rows).most_common(1)[0]
        return (0.0, 1) if width == 1 else (n / len(rows), width)

    return max(DELIMITERS, key=lambda each: (round(fit(each)[0], 1), len(each), fit(each)[1]))
