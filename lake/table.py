"""Reading published tables: one pinned version, whole days, no JVM jar."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime
from functools import cached_property, reduce
from typing import Any

import pyarrow as pa
from arro3.core import DataType, Field
from arro3.core import Table as AnsweredTable
from deltalake import DeltaTable, QueryBuilder
from deltalake.exceptions import CommitFailedError, TableNotFoundError
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import StringType, StructType, TimestampType

from lake import storage
from lake.errors import TableMissing
from lake.places import table_path
from lake.schemas import TABLES

# What a landing day held before it was delivered again is looked up in the log, see jobs.sessionize: unlike the data
# files that upkeep removes, its entries (a few KiB a commit) are kept.
WHOLE_LOG = {"delta.logRetentionDuration": "interval 36500 days"}
COMMIT_FILE = re.compile(r"\d{20}\.json")


@dataclass(frozen=True)
class DataFile:
    """One live Parquet file of a table version.

    `times` has the first and the last time in it by timestamp column, for the columns whose times are in the log.
    """

    path: str
    rows: int
    bytes: int
    partition: dict[str, date]
    times: dict[str, tuple[datetime, datetime]]


def create_missing(path: str, schema: Any, **described: Any) -> None:
    """Create an empty Delta table unless there is one; several processes may try concurrently."""
    if DeltaTable.is_deltatable(path):
        return
    try:
        DeltaTable.create(path, schema, mode="ignore", **described)
    except CommitFailedError:
        # Another process created it after the check, which is as good.
        if not DeltaTable.is_deltatable(path):
            raise


def read_log(path: str, last: int, after: int = -1) -> dict[int, str]:
    """Return {version: text} of the commits after one version of a table up to `last`, newest first.

    Where the log was cleaned, it begins with the oldest commit that is left.
    """
    # Not by `DeltaTable.history`: it also returns commits that came after the table was opened, and counts versions
    # down from the open one, so that each commit would get the version of another.
    log = storage.join(path, "_delta_log")
    versions = {int(name[:20]): name for name in storage.list_files(log) if COMMIT_FILE.fullmatch(name)}
    wanted = {version: versions[version] for version in sorted(versions, reverse=True) if after < version <= last}
    texts = storage.read_texts(log, list(wanted.values()))
    return {version: texts[name] for version, name in wanted.items() if name in texts}


def actions(commit: str, kind: str) -> list[dict[str, Any]]:
    """Return the actions of one kind, such as `remove`, in the text of a commit."""
    # A commit has a line for each action.
    return [json.loads(line)[kind] for line in commit.splitlines() if line.startswith(f'{{"{kind}":')]


def history(path: str, last: int) -> list[dict[str, Any]]:
    """Return what is said of each commit up to version `last`, newest first, each with its `version`."""
    return [
        {**info, "version": version}
        for version, commit in read_log(path, last).items()
        for info in actions(commit, "commitInfo")
    ]


class Table:
    """One version of a published table, for reading. lake/staging.py and lake/publish.py write tables.

    Args:
        name: a table of lake/schemas.py.
        version: the Delta version to pin; the newest when None. It stays pinned for the life of the object.

    Raises:
        TableMissing: the table, or that version of it, has not been published.
    """

    def __init__(self, name: str, version: int | None = None):
        self.name = name
        self.spec = TABLES[name]
        self.path = table_path(name)
        try:
            self.delta = DeltaTable(self.path, version=version)
        except TableNotFoundError:
            raise TableMissing(f"{name} has no published version at {self.path}") from None
        except Exception as error:
            # delta-rs raises a bare error for a version that is not in the log.
            if version is not None and DeltaTable.is_deltatable(self.path):
                raise TableMissing(f"{name} has no version {version} at {self.path}: {error}") from error
            raise
        self.version = self.delta.version()

    @staticmethod
    def find(name: str) -> "Table | None":
        """Return the newest version of a table, or None when nothing has been published."""
        return Table(name) if DeltaTable.is_deltatable(table_path(name)) else None

    @cached_property
    def files(self) -> list[DataFile]:
        """Every live file, sorted by path."""
        actions = self.delta.get_add_actions(flatten=True)
        columns = {n: actions.column(n).to_pylist() for n in ("path", "num_records", "size_bytes")}
        partitions = {c: actions.column(f"partition.{c}").to_pylist() for c in self.spec.partition_by}
        # delta-rs leaves out the columns of which no file has a value.
        logged = set(actions.schema.names)
        ends = {
            field.name: [actions.column(f"{end}.{field.name}").to_pylist() for end in ("min", "max")]
            for field in self.spec.schema
            if isinstance(field.dataType, TimestampType) and {f"min.{field.name}", f"max.{field.name}"} <= logged
        }
        files = [
            DataFile(
                path,
                rows,
                size,
                {c: partitions[c][i] for c in partitions},
                {c: (first[i], last[i]) for c, (first, last) in ends.items() if first[i] and last[i]},
            )
            for i, (path, rows, size) in enumerate(
                zip(columns["path"], columns["num_records"], columns["size_bytes"], strict=True)
            )
        ]
        return sorted(files, key=lambda file: file.path)

    def rows_by(self, column: str = "dt") -> dict[date, int]:
        """Return {partition value: rows}, sorted, from the log alone: no data is read."""
        totals: dict[date, int] = {}
        for file in self.files:
            totals[file.partition[column]] = totals.get(file.partition[column], 0) + file.rows
        return dict(sorted(totals.items()))

    def basis(self, owned: date) -> int | None:
        """Return the basis (see lake/publish.py) of a partition; None when no run has published it, not even empty."""
        version: int | None = self.delta.transaction_version(f"{self.spec.owned_by}={owned}")
        return version

    def commits(self) -> list[dict[str, Any]]:
        """Return the metadata of each publish up to this version, newest first."""
        return [entry for entry in history(self.path, self.version) if "run_id" in entry]

    def read(
        self,
        spark: SparkSession,
        first: date | None = None,
        last: date | None = None,
        landed_from: date | None = None,
        landed_by: date | None = None,
    ) -> DataFrame:
        """Return the rows with `first` <= dt <= `last` and, of events, with `landed_from` <= landed <= `landed_by`.

        Only the files of those partitions are opened.
        """
        wanted = [
            file
            for file in self.files
            if (first is None or file.partition["dt"] >= first)
            and (last is None or file.partition["dt"] <= last)
            and (landed_from is None or file.partition["landed"] >= landed_from)
            and (landed_by is None or file.partition["landed"] <= landed_by)
        ]
        return read_parquet(spark, self.path, [file.path for file in wanted], self.spec.schema)

    def query(self, sql: str, *others: "Table") -> pa.Table:
        """Return the answer to a query on this version, and on those of others, each under its name; without Spark.

        DataFusion runs the query, and opens only the files that it needs by the log. For small answers: all rows are
        kept in memory.
        """
        builder = QueryBuilder()
        for table in (self, *others):
            builder = builder.register(table.name, table.delta)
        answer = builder.execute(sql).read_all()
        # DataFusion answers with string views, with which pyarrow can do less than with strings.
        columns = [answer[name].cast(without_views(answer[name].type)) for name in answer.column_names]
        return pa.table(AnsweredTable.from_arrays(columns, names=answer.column_names))

    def batches(self, day: date, size: int) -> Iterator[tuple[DataFile, pa.RecordBatch]]:
        """Yield the rows of partition `dt` = `day`, at most `size` at once, with their file; without Spark.

        Partition columns are not in the rows but in `DataFile.partition`.
        """
        for file in self.files:
            if file.partition["dt"] == day:
                with storage.parquet_file(storage.join(self.path, file.path)) as opened:
                    for batch in opened.iter_batches(batch_size=size):
                        yield file, batch

    def head(self, day: date, limit: int) -> list[dict[str, Any]]:
        """Return up to `limit` rows of partition `dt` = `day`, without Spark."""
        rows: list[dict[str, Any]] = []
        for file, batch in self.batches(day, limit):
            rows += [{**row, **file.partition} for row in batch.to_pylist()]
            if len(rows) >= limit:
                break
        return rows[:limit]


def without_views(kind: DataType) -> DataType:
    """Return a type with plain strings where it has string views, also inside lists and structs."""

    def plain(field: Field) -> Field:
        return Field(field.name, without_views(field.type), nullable=field.nullable)

    if DataType.is_string_view(kind):
        return DataType.utf8()
    if DataType.is_list(kind):
        return DataType.list(plain(kind.value_field))
    if DataType.is_struct(kind):
        return DataType.struct([plain(field) for field in kind.fields])
    return kind


def read_parquet(spark: SparkSession, root: str, files: list[str], schema: StructType) -> DataFrame:
    """Read Parquet files below `root`, with their partition columns from the Hive-style folders, as `schema`.

    Raises:
        ValueError: a file is not below a `column=value` folder.
    """
    # Each file is named, not its folder: a folder has live and dead files, once another Delta tool has compacted or
    # deleted some of it. Such a tool writes to folders of another layout, and Spark reads one layout at a time.
    staged = [path for path in files if path.startswith("stage=")]
    others = [path for path in files if not path.startswith("stage=")]
    with_stage = StructType(list(schema.fields)).add("stage", StringType())
    frames = [
        spark.read.schema(with_stage if layout is staged else schema)
        .option("basePath", storage.spark_path(root))
        .parquet(*(storage.spark_path(storage.join(root, path)) for path in layout))
        .select(*schema.fieldNames())
        for layout in (staged, others)
        if layout
    ]
    return reduce(DataFrame.unionAll, frames) if frames else spark.createDataFrame([], schema)
