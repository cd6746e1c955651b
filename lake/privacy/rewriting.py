"""Parquet files without some of their rows, one row group at a time; no file is ever changed in its place."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lake import storage
from lake.privacy.matching import Chosen
from lake.schemas import TABLES
from lake.staging import StagedFile

Change = Callable[[pa.Table, pa.Array], pa.Table]


class FileUnreadable(ValueError):
    """A Parquet file, or a page of it, is damaged, or its storage does not give it: by rights, or no connection.

    Attributes:
        error: the class of what was raised, whose message may quote a value.
    """

    def __init__(self, file: str, error: Exception):
        super().__init__(f"{file} cannot be read ({type(error).__name__})")
        self.error = type(error).__name__


@contextmanager
def reading(file: str) -> Iterator[None]:
    """Raise all that a damaged file, or one that its storage does not give, leads to as one error; not that it is gone.

    Raises:
        FileUnreadable: instead of it.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise FileUnreadable(file, error) from error


@dataclass(frozen=True)
class Rewritten:
    """What became of a file.

    Attributes:
        old: its path in the folder of the table.
        new: the file in its place; None if no row is left.
        rows: how many rows were chosen, so removed or changed.
    """

    old: str
    new: StagedFile | None
    rows: int


def without(rows: pa.Table, mask: pa.Array) -> pa.Table:
    """Return the rows that are not chosen."""
    return rows.filter(pc.invert(mask))


def may_hold(column: pq.ColumnChunkMetaData, between: Callable[[str, str], bool]) -> bool:
    """Return whether a column of a row group may have a chosen value, by its least and its greatest one."""
    known = column.statistics
    return known is None or not known.has_min_max or not isinstance(known.min, str) or between(known.min, known.max)


def count_chosen(root: str, path: str, chosen: Chosen) -> int:
    """Count the chosen rows of a file; of the other columns nothing is read.

    Raises:
        FileUnreadable: a part of the file that is needed for it is damaged.
        FileNotFoundError: it is gone.
    """
    found = 0
    with reading(path), storage.parquet_file(storage.join(root, path)) as file:
        place = {file.metadata.schema.column(n).path: n for n in range(file.metadata.num_columns)}
        for n in range(file.num_row_groups):
            if chosen.between and not may_hold(
                file.metadata.row_group(n).column(place[chosen.columns[0]]), chosen.between
            ):
                continue
            mask = chosen.mask(file.read_row_group(n, columns=list(chosen.columns)))
            found += pc.sum(mask).as_py() or 0
    return found


def rewrite(
    table: str, root: str, path: str, chosen: Chosen, change: Change = without, target: str = ""
) -> Rewritten | None:
    """Write a file anew, beside the old one, without its chosen rows; None, and no file, where none is chosen.

    The new file has the schema, the order of rows and the row groups of the old one.

    Args:
        table: whose file it is.
        root: the folder of the table.
        path: the file below it.
        chosen: the rows.
        change: what becomes of a row group, given its rows and which are chosen; without those by default.
        target: the new file below `root`; a new name beside the old one by default.

    Raises:
        FileUnreadable: a part of the file is damaged, or its storage does not give it.
        FileNotFoundError: it is gone.
        OSError: the new one cannot be written. After an error there is none.
    """
    if not (found := count_chosen(root, path, chosen)):
        return None
    folder, _, name = path.rpartition("/")
    target = target or f"{folder}/{name.removesuffix('.parquet')}-{uuid4().hex[:8]}.parquet".removeprefix("/")
    fs, place = storage.filesystem(storage.join(root, target))
    rows_left = 0
    try:
        with ExitStack() as opened:
            with reading(path):
                file = opened.enter_context(storage.parquet_file(storage.join(root, path)))
                codec = file.metadata.row_group(0).column(0).compression.lower()
            stream = opened.enter_context(fs.open(place, "wb"))
            # As Spark writes the files of a staging: no schema but that of Parquet.
            with pq.ParquetWriter(
                stream, file.schema_arrow, compression="none" if codec == "uncompressed" else codec, store_schema=False
            ) as writer:
                for n in range(file.num_row_groups):
                    with reading(path):
                        group = file.read_row_group(n)
                        left = change(group, chosen.mask(group))
                    rows_left += left.num_rows
                    if left.num_rows:
                        writer.write_table(left, row_group_size=left.num_rows)
    except BaseException:
        storage.remove(storage.join(root, target))
        raise
    if not rows_left:
        storage.remove(storage.join(root, target))
        return Rewritten(path, None, found)
    (footer,) = storage.read_footers(root, [target])
    size = int(fs.size(place))
    new = StagedFile.of(table, target, size, footer) if table in TABLES else StagedFile(target, footer.num_rows, size)
    return Rewritten(path, new, found)
