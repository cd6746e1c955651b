"""What a source makes of a few rows of the landing, found by the functions of the job itself: for `meander doctor`.

Of each kind of files of a day, the first rows of the first file that has some and the last rows of the last file are
copied into a temporary folder of this machine, and the first rows of each file of JSON with a key that those before it
have not.
There they are read and judged as `jobs.ingest` does, and removed: not in the lake, which may have pseudonyms alone.
"""

import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from functools import reduce
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import orc
from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as F

from jobs.avro_rows import write_first as write_blocks
from jobs.item_table import with_categories
from jobs.landing_files import (
    LINE_BYTES,
    Look,
    by_version,
    check_looks,
    first_bytes,
    first_elements,
    like,
    look_at,
    look_at_all,
)
from jobs.orc_rows import orc_batches
from jobs.packed import on_storage, readable
from jobs.python_rows import table_kind
from jobs.raw_rows import read_rows
from jobs.rejections import CONTENT, EVENT, REJECTED, judge
from jobs.source import Source
from lake import storage
from lake.landing import Landing
from lake.settings import Settings

ROWS = 1000
SAMPLES = 3
# What these say is no secret, and shows how a time or a price was understood.
SHOWN_AS_THEY_ARE = ("event_time", "behavior", "price")


@dataclass(frozen=True)
class Field:
    """What became of one field of an event.

    Attributes:
        name: of the field.
        read_from: the columns, or the expression, that the source names for it; empty if it names none.
        filled: the share of the rows that have it.
        samples: a few values; of ids and queries only how they are built.
    """

    name: str
    read_from: str
    filled: float
    samples: tuple[str, ...]


@dataclass(frozen=True)
class Preview:
    """What became of a few rows.

    Attributes:
        rows: how many there are.
        outcomes: how many of them are events, ignored, or rejected for each reason; most first.
        fields: the fields of an event; of several sources none, since each reads them from its own columns.
        parts: what became of the rows of each of several sources, by its name.
    """

    rows: int
    outcomes: dict[str, int]
    fields: tuple[Field, ...]
    parts: dict[str, "Preview"] = field(default_factory=dict)

    @property
    def rejected(self) -> dict[str, int]:
        """The rejected rows by reason."""
        return {name: n for name, n in self.outcomes.items() if name not in (EVENT, "ignored")}


def preview(spark: SparkSession, source: Source, landing: Landing, days: Sequence[date], config: Settings) -> Preview:
    """Judge a few rows of some days; Spark has to be on this machine.

    Raises:
        LandingUnreadable, SourceMismatch: a file cannot be read, or is not as the source says.
    """
    groups = []
    for day in days:
        files = [storage.join(landing.folder(day), name) for name, file in landing.present(day).items() if file.bytes]
        groups += [(version, day, names) for version, names in (by_version(source, files) if files else [])]
    # Of several kinds of files, the first of the newest day stands for all.
    shown = {kind.name: kind for kind in reversed(source.on(days[-1]).values())}
    rows = {
        name: judged_ends(spark, [group for group in groups if group[0].name == name], config, landing)
        for name in source.names
    }
    parts = {name: summary(shown[name], of_source) for name, of_source in rows.items()}
    if len(parts) == 1:
        return parts[source.name]
    whole = summary(source, [row for of_source in rows.values() for row in of_source])
    return replace(whole, fields=(), parts=parts)


def judged_ends(
    spark: SparkSession,
    groups: Sequence[tuple[Source, date, Sequence[str]]],
    config: Settings,
    landing: Landing | None = None,
) -> list[Row]:
    """Judge the first and the last rows of some files, each group as if it had landed on a day.

    Without a landing, which may have an item table, categories are those of the files alone.
    """
    kept: list[DataFrame] = []
    with tempfile.TemporaryDirectory() as folder:
        parts: list[tuple[Source, date, list[str]]] = []
        for version, day, names in groups:
            target = Path(folder, str(len(parts)), f"dt={day}")
            target.mkdir(parents=True)
            looks = look_at_all(version, names)
            check_looks(version, looks)
            chosen = write_firsts(version, looks, target)
            # Of one file, the rows that are among its first are not among its last.
            last = looks[-1].file
            end = write_last(version, last, target, ROWS if last in chosen else 0)
            parts.append((version, day, [*chosen.values(), *([end] if end else [])]))
        judged = []
        # A time as text is in UTC, and not in the zone of this machine.
        columns = [F.col(name).cast("string").alias(name) for name in (*CONTENT, "outcome", "reason")]
        try:
            for version, day, written in parts:
                if written:
                    rows = judge(read_rows(spark, version, written), version, config)
                    rows = with_categories(spark, rows, version, landing, [day], config, kept) if landing else rows
                    judged.append(rows.select(*columns))
            return reduce(DataFrame.unionByName, judged).collect() if judged else []
        finally:
            for table in kept:
                table.unpersist()


def write_firsts(source: Source, looks: Sequence[Look], target: Path) -> dict[str, str]:
    """Write the first rows of the first file that has some, and for each key of JSON that it does not have, of another.

    Returns:
        The path of each new file, by the file whose rows it has.
    """
    wanted = {name for value in source.optional for name in value.columns}
    written: dict[str, str] = {}
    seen: frozenset[str] = frozenset()
    for n, look in enumerate(looks):
        if (not written or (wanted & look.keys) - seen) and (
            place := write_first(source, look.file, target, f"first{n}")
        ):
            written[look.file] = place
            seen = seen | look.keys
    return written


def write_first(source: Source, file: str, target: Path, name: str = "first") -> str | None:
    """Write the first rows of a file into a folder and return the path of the new file; None if it has no rows."""
    look = look_at(source, file)
    if look.parquet:
        with storage.parquet_file(file) as opened:
            batch = next(opened.iter_batches(batch_size=ROWS), None)
            return write_parquet(opened, pa.Table.from_batches([batch]), target, name) if batch else None
    if look.table and table_kind(file) == "Avro":
        place = target / f"{name}.avro"
        with readable(file), place.open("wb") as written:
            has_rows = write_blocks(file, ROWS, written)
        return str(place) if has_rows else None
    if look.table:
        place = target / f"{name}.orc"
        with readable(file):
            batch = next(orc_batches(file, ROWS, source.file_columns), None)
        if batch:
            orc.write_table(pa.Table.from_batches([batch]), place)
        return str(place) if batch else None
    if not look.text:
        return None
    head = first_bytes(file)
    if encoding := look.text.array:
        rows = first_elements(file, head, encoding, ROWS, is_cut=len(head) > LINE_BYTES)
        if not rows:
            return None
        array = b"[" + b",\n".join(rows) + b"]"
        if encoding != "utf-8":
            # Which byte of a character comes first says the file, and not always its source.
            mark = "\ufeff" if source.charset.startswith("UTF-16") else ""
            array = (mark + array.decode(errors="replace")).encode(encoding, "replace")
        return write_text(array, target, name)
    # The end of a line of UTF-16 is two bytes, of which the second would begin the next line: so its text is cut.
    wide = source.charset.startswith("UTF-16")
    read: bytes | str = head.decode(source.encoding, "ignore") if wide else head
    lines = read.splitlines(keepends=True)
    if len(head) > LINE_BYTES and len(lines) > 1:
        lines = lines[:-1]  # only the beginning of it was read
    if not any(line.strip() for line in lines[look.text.lines_above :]):
        return None
    first = read[:0].join(lines[: look.text.lines_above + ROWS])  # type: ignore[arg-type]  # of one type all
    return write_text(first.encode(source.encoding) if isinstance(first, str) else first, target, name)


def write_last(source: Source, file: str, target: Path, after: int) -> str | None:
    """Write the last rows of a file, as `write_first`, but none of its first `after` ones.

    Returns None also where they cannot be found without reading all of the file. For those of a file in a .zip, its
    first rows stand, unless they were written before: what it holds may be another table than those before it.
    """
    if file != on_storage(file) and not after:
        return write_first(source, file, target, "last")
    look = look_at(source, file)
    if look.parquet:
        with storage.parquet_file(file) as opened:
            if not opened.num_row_groups:
                return None
            rows = opened.read_row_group(opened.num_row_groups - 1)
            before = opened.metadata.num_rows - rows.num_rows
            rows = rows.slice(max(0, rows.num_rows - ROWS, after - before))
            return write_parquet(opened, rows, target, "last") if rows.num_rows else None
    packed = file.endswith((".gz", ".bz2")) or look.table or (look.text and look.text.by_python)
    if not look.text or packed or source.multiline or source.charset.startswith("UTF-16"):
        return None
    fs, inner = storage.filesystem(file)
    size = fs.size(inner)
    with fs.open(inner, "rb") as stream:
        above = b"".join(stream.readline() for _ in range(look.text.lines_above))
        begin = max(stream.tell(), size - LINE_BYTES)
        stream.seek(begin)
        lines = stream.read().splitlines(keepends=True)
    # In the middle of a file, the first line may have begun before.
    lines = lines[after:] if begin == len(above) else lines[1:]
    return write_text(above + b"".join(lines[-ROWS:]), target, "last") if lines else None


def write_text(content: bytes, target: Path, name: str) -> str | None:
    """Write bytes into a folder and return the path of the file; None if there are none."""
    if not content:
        return None
    place = target / f"{name}.txt"
    place.write_bytes(content)
    return str(place)


def write_parquet(opened: pq.ParquetFile, rows: pa.Table, target: Path, name: str) -> str:
    """Write rows of a file into a folder with the types that they have there, and return the path of the new file."""
    place = target / f"{name}.parquet"
    stored = opened.schema
    int96 = any(stored.column(n).physical_type == "INT96" for n in range(len(stored)))
    pq.write_table(rows, place, use_deprecated_int96_timestamps=int96)
    return str(place)


def summary(source: Source, rows: Sequence[Row]) -> Preview:
    """Return what became of judged rows, by outcome and by field."""
    outcomes = Counter(row["reason"] if row["outcome"] == REJECTED else row["outcome"] for row in rows)
    fields = []
    for name in CONTENT:
        values = [row[name] for row in rows if row[name] is not None]
        shown = [each if name in SHOWN_AS_THEY_ARE else like(each) for each in values]
        most = tuple(text for text, _ in Counter(shown).most_common(SAMPLES))
        fields.append(Field(name, read_from(source, name), len(values) / len(rows) if rows else 0.0, most))
    return Preview(len(rows), dict(outcomes.most_common()), tuple(fields))


def read_from(source: Source, field: str) -> str:
    """Return the columns, the expression or the constant from which a source has a field; empty if it has none."""
    if field == "behavior" and source.behavior.constant:
        return f"constant: {source.behavior.constant}"
    times_and_behaviors = {"event_time": source.time.column, "behavior": source.behavior.column}
    value = times_and_behaviors[field] if field in times_and_behaviors else getattr(source, field)
    own = (value.sql or ", ".join(value.columns)) if value else ""
    of_items = getattr(source.items, field, None) if field in ("category_id", "price") else None
    items = f"{source.items.folder}/ by item" if source.items and of_items else ""
    return ", ".join(filter(None, (own, items)))
