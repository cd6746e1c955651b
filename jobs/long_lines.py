"""Find text files with a line that is too long for Spark, which takes a line into memory whole, however long it is.

Python reads those files (jobs/python_rows.py), and keeps the beginning of such a line. docs/decisions/0045 has the
reasons.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import pyarrow as pa
from pyspark.sql import SparkSession

from jobs.file_tasks import rows_of_files
from jobs.landing_files import LINE_BYTES, LandingFiles, Layout, chunks, end_of_line
from jobs.packed import aligned, readable, unpacked
from lake import storage
from lake.errors import LandingUnreadable

# So many bytes of text are read here sooner than a worker of Python starts; of a packed file, for each byte ten.
HERE_BYTES = 32 * 2**20
PACKED = 10
FOUND = pa.schema([("n", pa.int64()), ("is_long", pa.bool_()), ("error", pa.string())])


def by_reader(spark: SparkSession, found: LandingFiles) -> dict[Layout, list[str]]:
    """Return text files by their layout, which says of those with too long a line that Python reads them.

    Raises:
        LandingUnreadable: a file cannot be read to its end.
    """
    groups: dict[Layout, list[str]] = defaultdict(list)
    for layout, files in found.text.items():
        unseen = [] if layout.by_python else [file for file in files if file in found.beyond]
        long = with_long_lines(spark, unseen, end_of_line(layout.charset))
        for file in files:
            groups[replace(layout, by_python=layout.by_python or file in long)].append(file)
    return groups


def with_long_lines(spark: SparkSession, files: Sequence[str], end: bytes) -> set[str]:
    """Return those of some files that have a line of more than `LINE_BYTES`.

    All are read to their ends, many bytes by Spark's workers, a task for each file; of each, a mebibyte is in memory
    at a time.

    Args:
        spark: the session.
        files: plain or packed text.
        end: of a line of UTF-16; empty for all other encodings, see `jobs.packed.lines_of`.

    Raises:
        LandingUnreadable: a file cannot be read to its end.
    """
    if are_few_bytes(files):
        return {file for file in files if has_long_line(file, end)}

    def look(n: int, file: str) -> Iterator[pa.RecordBatch]:
        is_long, error = False, None
        try:
            is_long = has_long_line(file, end)
        except LandingUnreadable as found:
            error = found.message
        yield pa.RecordBatch.from_pylist([{"n": n, "is_long": is_long, "error": error}], schema=FOUND)

    rows = rows_of_files(spark, files, look, "n bigint, is_long boolean, error string").collect()
    for row in rows:
        if row["error"]:
            raise LandingUnreadable(row["error"])
    return {files[row["n"]] for row in rows if row["is_long"]}


def are_few_bytes(files: Iterable[str]) -> bool:
    """Return whether some files have few bytes together; none is asked for its size that does not matter any more."""
    total = 0
    for file in files:
        fs, inner = storage.filesystem(file)
        with readable(file):
            total += int(fs.size(inner)) * (PACKED if file.endswith((".gz", ".bz2")) else 1)
        if total > HERE_BYTES:
            return False
    return True


def has_long_line(file: str, end: bytes) -> bool:
    """Return whether a file has a line of more than `LINE_BYTES`; see `with_long_lines`."""
    begun = 0  # bytes of the line that has not ended yet
    with readable(file), unpacked(file) as stream:
        while block := b"".join(chunks(stream, LINE_BYTES)):
            first, last = ends_in(block, end)
            if begun + first > LINE_BYTES:
                return True
            # Without an end, the block is the first of its line, or the last of the file: else the line was too long.
            begun = len(block) - last
    return False


def ends_in(block: bytes, end: bytes) -> tuple[int, int]:
    r"""Return how many bytes of a block stand before its first end of a line, and behind which place its last one ends.

    Without one, these are all bytes, and 0.

    >>> ends_in(b"ab\rc\nd", b""), ends_in(b"abc", b""), ends_in("\u0a00ab\nc".encode("utf-16-be"), b"\0\n")
    ((2, 5), (3, 0), (6, 8))
    """
    if not end:
        firsts = [place for sign in (b"\n", b"\r") if (place := block.find(sign)) >= 0]
        return min(firsts, default=len(block)), max(block.rfind(b"\n"), block.rfind(b"\r")) + 1
    if (first := aligned(block, end, 0)) < 0:
        return len(block), 0
    last = block.rfind(end)
    while last % 2:
        last = block.rfind(end, 0, last + len(end) - 1)
    return first, last + len(end)
