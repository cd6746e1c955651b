"""Lines of files that Spark does not read itself, read by Python on its workers: one task for each file.

These are packed files (jobs/packed.py), files with a line that is too long for Spark (jobs/long_lines.py), and files
whose rows become lines of JSON: arrays of JSON (jobs/json_array.py), ORC (jobs/orc_rows.py) and Avro
(jobs/avro_rows.py).
"""

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import date

import fsspec
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession

from jobs import avro_rows, json_array, orc_rows, packed
from jobs.file_tasks import rows_of_files

# A task gives its rows to Spark in batches of about this size.
BATCH_BYTES, BATCH_ROWS = 4 << 20, 10_000
LINES = "landed date, file string, position bigint, value binary"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def read_lines(
    spark: SparkSession,
    files: Sequence[str],
    days: Sequence[date],
    most: int,
    end: bytes,
    used: Collection[str],
    ids: Collection[str],
    array: str = "",
) -> DataFrame:
    """Return the lines of some files as Spark would, each with its file as an address and its number in it, from 0.

    Args:
        spark: the session.
        files: names or addresses.
        days: the landing day of each.
        most: bytes that are kept of a longer line.
        end: of a line, if it is none of the usual ones; see `jobs.packed.lines_of`.
        used: of ORC and Avro, the values that are needed.
        ids: those of them that are ids.
        array: the encoding of files that are arrays of JSON, see `jobs.landing_files.Layout`.
    """

    def read(n: int, file: str) -> Iterator[pa.RecordBatch]:
        return in_batches(file, days[n], lines_of(file, most, end, used, ids, array))

    return rows_of_files(spark, files, read, LINES)


def in_batches(file: str, day: date, found: Iterable[bytes]) -> Iterator[pa.RecordBatch]:
    """Yield the lines of one file with their place, as `LINES` has it.

    Raises:
        LandingUnreadable: it cannot be read to its end.
    """
    lines: list[bytes] = []
    size = first = 0
    with packed.readable(file):
        for line in found:
            lines.append(line)
            size += len(line)
            if size >= BATCH_BYTES or len(lines) >= BATCH_ROWS:
                yield batch_of(file, day, first, lines)
                first, size, lines = first + len(lines), 0, []
    if lines:
        yield batch_of(file, day, first, lines)


def lines_of(
    file: str,
    most: int,
    end: bytes,
    used: Collection[str] | None = None,
    ids: Collection[str] = (),
    array: str = "",
) -> Iterator[bytes]:
    """Yield the lines of a text file, or rows of an array, ORC or Avro as JSON; of a longer one, its beginning.

    Args:
        file: its name.
        most: bytes that are kept of a line.
        end: of a line, see `read_lines`.
        used: of ORC and Avro, the values that are needed; without it, all columns are read.
        ids: those of them that are ids.
        array: the encoding of an array of JSON; empty for other files.
    """
    if array:
        with packed.unpacked(file) as stream:
            yield from json_array.elements(stream, file, most, array)
        return
    if kind := table_kind(file):
        rows = orc_rows.json_lines if kind == "ORC" else avro_rows.json_lines
        yield from (line[:most] for line in rows(file, used, ids))
        return
    with packed.unpacked(file) as stream:
        for n, line in enumerate(packed.lines_of(stream, most, end)):
            yield line if n else line.removeprefix(BYTE_ORDER_MARK)


def table_kind(file: str) -> str:
    """Return whether a file is ORC or Avro, whose rows are lines of JSON in UTF-8; empty if it is neither."""
    if packed.is_packed(file):
        return ""
    with fsspec.open(file, "rb") as stream:
        head = stream.read(len(avro_rows.MAGIC))
    return "ORC" if orc_rows.is_orc(file, head) else "Avro" if avro_rows.is_avro(file, head) else ""


def batch_of(file: str, day: date, first: int, lines: list[bytes]) -> pa.RecordBatch:
    """Return lines with their place, of which the first has a number in its file."""
    n = len(lines)
    columns = [
        pa.array([day] * n, pa.date32()),
        pa.array([address_of(file)] * n, pa.string()),
        pa.array(range(first, first + n), pa.int64()),
        pa.array(lines, pa.binary()),
    ]
    return pa.RecordBatch.from_arrays(columns, names=["landed", "file", "position", "value"])


def address_of(file: str) -> str:
    """Return the address of a file as Spark writes those that it reads.

    >>> address_of("/data/dt=2025-03-02/log 1.csv.xz"), address_of("s3://shop/dt=2025-03-02/100%.zip")
    ('file:///data/dt=2025-03-02/log%201.csv.xz', 's3://shop/dt=2025-03-02/100%25.zip')
    """
    address = file if "://" in file else f"file://{file}"
    return re.sub(r'[\x00- "%<>\\^`{|}#?\[\]\x7f]', lambda sign: f"%{ord(sign[0]):02X}", address)
