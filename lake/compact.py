"""Compaction: the small files of a partition become one file with the same rows, in a commit that changes no data.

The file is a staging of its own: a process that is killed before its commit leaves what upkeep gives up and removes as
any other staging (docs/decisions/0020). The commit names the version after the one in which each replaced file was
looked up, and delta-rs may not retry it: of two upkeeps that merge the same files, one wins.
"""

import logging
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable
from deltalake.transaction import RemoveAction

from lake import storage
from lake.commits import until_first
from lake.errors import CommitContended, UpkeepFailed
from lake.privacy.rewriting import FileUnreadable, reading
from lake.publish import added, given_up
from lake.staging import NO_VALUE, StagedFile, times_in
from lake.table import with_columns

log = logging.getLogger(__name__)

# A reader opens each file; beyond this size, fewer of them save nothing.
TARGET_BYTES = 128 * 1024 * 1024
# What is in memory at once: rows are read in batches, and written when so many bytes have come together.
BATCH_ROWS, GROUP_BYTES = 4096, 64 * 1024 * 1024


@dataclass(frozen=True)
class LiveFile:
    """One file of the newest version of any Delta table: `partition` as in the log; `rows` is None where it is not.

    `written` is when its rows came into the table, in milliseconds since 1970.
    """

    path: str
    bytes: int
    rows: int | None
    written: int
    partition: dict[str, str | None]

    @property
    def folder(self) -> str:
        """The folders of its partition, such as `dt=2025-01-01`."""
        return "/".join(f"{column}={NO_VALUE if value is None else value}" for column, value in self.partition.items())


def live_files(delta: DeltaTable) -> list[LiveFile]:
    """Return the files of the version that is open, sorted by path."""
    actions = pa.table(delta.get_add_actions(flatten=True))
    by = delta.metadata().partition_columns
    columns = ["path", "size_bytes", "num_records", "modification_time", *(f"partition.{column}" for column in by)]
    files = (
        LiveFile(path, size, rows, written, {c: None if v is None else str(v) for c, v in zip(by, values, strict=True)})
        for path, size, rows, written, *values in zip(
            *(actions.column(name).to_pylist() for name in columns), strict=True
        )
    )
    return sorted(files, key=lambda file: file.path)


def compact(name: str, path: str, *, dry_run: bool = False) -> tuple[int, list[str], str]:
    """Merge the small files of each partition that has several, each in a commit of its own that changes no row.

    Returns:
        how many partitions were merged, and those that stay for the next time, since other commits replaced files of
        theirs meanwhile; and what keeps others from being merged, files with other rows than the log says or that
        cannot be read: empty if nothing does.
    """
    delta = DeltaTable(path)
    if features := delta.protocol().reader_features:
        by = ", ".join(features)
        log.warning("%s: not compacted, another tool has given it features that may hide rows of a file: %s", name, by)
        return 0, [], ""
    small: dict[str, list[LiveFile]] = defaultdict(list)
    for file in live_files(delta):
        if file.bytes < TARGET_BYTES:
            small[file.folder].append(file)
    merged, skipped, failed = 0, [], []
    for folder, files in sorted(small.items()):
        several = [some for some in packed(files) if len(some) > 1]
        if not several:
            continue
        try:
            is_merged = dry_run or all(merge(path, some) for some in several)
        except (FileUnreadable, FileNotFoundError, UpkeepFailed) as error:
            failed.append(error.message if isinstance(error, UpkeepFailed) else str(error))
            continue
        if is_merged:
            merged += 1
        else:
            log.warning("%s: left %s as it is, other commits came in between", name, folder or "the table")
            skipped.append("/".join(str(value) for value in files[0].partition.values()))
    problem = ""
    if failed:
        problem = (
            f"{len(failed)} of {merged + len(skipped) + len(failed)} partitions could not be merged: "
            f"{'; '.join(failed)}; put those files back from a copy, or have their dates published anew"
        )
    return merged, skipped, problem


def packed(files: list[LiveFile]) -> Iterator[list[LiveFile]]:
    """Yield the files in lists that are not larger than a file should be.

    >>> [[f.path for f in some] for some in packed([LiveFile(n, 50 << 20, 1, 0, {}) for n in "abc"])]
    [['a', 'b'], ['c']]
    """
    some: list[LiveFile] = []
    for file in files:
        if some and sum(one.bytes for one in some) + file.bytes > TARGET_BYTES:
            yield some
            some = []
        some.append(file)
    if some:
        yield some


def merge(path: str, files: list[LiveFile]) -> bool:
    """Replace files of one partition by one with their rows; return False, and change nothing, if one is replaced."""
    delta = DeltaTable(path)
    stage_id = f"merged-{uuid4().hex}"
    merged = write_merged(path, delta, files, stage_id)
    if replace_files(path, files, merged, stage_id):
        return True
    storage.remove_files(path, [merged.path])
    return False


def write_merged(path: str, delta: DeltaTable, files: list[LiveFile], stage_id: str) -> StagedFile:
    """Write the rows of files into a new one, in their order, with the columns that the table has now.

    Raises:
        UpkeepFailed: a file has other rows than the log says.
        FileUnreadable: one is damaged, or its storage does not give it.
    """
    by = delta.metadata().partition_columns
    schema = pa.schema([field for field in pa.schema(delta.schema().to_arrow()) if field.name not in by])
    folder = "/".join(filter(None, (f"stage={stage_id}", files[0].folder)))
    target = f"{folder}/part-0.parquet"
    fs, place = storage.filesystem(storage.join(path, target))
    fs.makedirs(fs._parent(place), exist_ok=True)
    try:
        # As Spark writes the files of a staging: snappy, and no schema but that of Parquet.
        with (
            fs.open(place, "wb") as stream,
            pq.ParquetWriter(stream, schema, compression="snappy", store_schema=False) as writer,
        ):
            for group in row_groups(path, files, schema):
                writer.write_table(group, row_group_size=group.num_rows)
    except Exception:
        storage.remove_files(path, [target])
        raise
    (footer,) = storage.read_footers(path, [target])
    logged = [file.rows for file in files]
    if None not in logged and footer.num_rows != sum(logged):  # type: ignore[arg-type]
        storage.remove_files(path, [target])
        raise UpkeepFailed(
            f"{len(files)} files in {files[0].folder} hold {footer.num_rows} rows, where the log says {sum(logged)}; "  # type: ignore[arg-type]
            "they stay as they are"
        )
    times = times_in(footer, [field.name for field in schema if pa.types.is_timestamp(field.type)])
    return StagedFile(target, footer.num_rows, fs.size(place), times)


def row_groups(path: str, files: list[LiveFile], schema: pa.Schema) -> Iterator[pa.Table]:
    """Yield the rows of files as tables with the columns of a schema; those that a file does not have are null."""
    batches: list[pa.RecordBatch] = []
    size = 0
    for file in files:
        for batch in batches_of(path, file):
            batches.append(with_columns(batch, schema).select(schema.names).cast(schema))
            size += batch.nbytes
            if size >= GROUP_BYTES:
                yield pa.Table.from_batches(batches, schema)
                batches, size = [], 0
    if batches:
        yield pa.Table.from_batches(batches, schema)


def batches_of(path: str, file: LiveFile) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a file, some at a time.

    Raises:
        FileUnreadable: it is damaged, or its storage does not give it.
    """
    with reading(file.path), storage.parquet_file(storage.join(path, file.path)) as opened:
        yield from opened.iter_batches(batch_size=BATCH_ROWS)


def replace_files(path: str, files: list[LiveFile], merged: StagedFile, stage_id: str) -> bool:
    """Commit that a merged file replaces others; return False if one of them is not in the newest version any more."""

    def attempt() -> bool:
        delta = DeltaTable(path)
        live = {file.path for file in live_files(delta)}
        # An upkeep that believes this one dead may have given its file up, see lake/upkeep.py.
        if (
            not live.issuperset(file.path for file in files)
            or delta.transaction_version(given_up(stage_id)) is not None
        ):
            return False
        now = int(time.time() * 1000)
        partition = files[0].partition
        delta.create_write_transaction(
            [
                added(merged, partition, data_change=False, written=max(file.written for file in files)),
                *(RemoveAction(file.path, False, now, file.bytes, partition) for file in files),
            ],
            "append",
            delta.schema(),
            delta.metadata().partition_columns,
            # The id says to upkeep that the file was in the table. Without the id of a run it is no publish.
            commit_properties=CommitProperties(custom_metadata={"stage_id": stage_id}, max_commit_retries=0),
        )
        return True

    try:
        # Another commit that was first may have replaced one of the files.
        return until_first(attempt, "other commits", "the files stay as they are")
    except CommitContended:
        return False
