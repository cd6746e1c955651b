"""Reading published tables: one pinned version, whole days, no JVM jar."""

import json
import logging
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from functools import cached_property, reduce
from typing import Any, TypeVar
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
from arro3.core import DataType, Field
from arro3.core import Table as AnsweredTable
from deltalake import DeltaTable, QueryBuilder
from deltalake import Schema as DeltaSchema
from deltalake.exceptions import CommitFailedError, TableNotFoundError
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import StringType, StructType, TimestampType

from lake import storage
from lake.errors import TableMissing, TableUnreadable
from lake.log import UNREADABLE_LOG, actions, read_log, said_in, transactions
from lake.places import table_path
from lake.pseudonyms import TRANSACTION, from_number
from lake.schemas import TABLES
from lake.small import in_one_task

log = logging.getLogger(__name__)

# What a landing day held before it was delivered again is looked up in the log, see jobs.sessionize: unlike the data
# files that upkeep removes, its entries (a few KiB a commit) are kept.
# The beginning of the line of a file that a publish or a compaction of this code has added.
ADDED = re.compile(r'\{"add":\{"path":"(stage=[^"]+)"')
WHOLE_LOG = {"delta.logRetentionDuration": "interval 36500 days"}
# An empty file in the folder of a table. To Delta it is hidden: no reader opens it, and no vacuum removes it.
MADE = "_made"
# How many rows of a partition are looked through at once for those of a user.
ROWS_AT_ONCE = 8192
# The transaction by which a table says up to which staging rows of forgotten users may come in, see lake/publish.py;
# and what its commit says: the name of the request, and {file: the file in its place}.
FORGOTTEN, FORGOTTEN_BY, FORGOTTEN_FILES = "forgotten", "forgotten_by", "forgotten_files"


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


def was_made(path: str) -> bool:
    """Return whether `mark_made` has marked this table; its log may be gone since."""
    return storage.exists(storage.join(path, MADE))


def mark_made(path: str) -> None:
    """Write down that this table was made, beside its log: one that is gone is told by it from one that never was."""
    try:
        if not was_made(path):
            storage.write_bytes(storage.join(path, MADE), b"")
    except OSError as error:
        # Who may write to the log alone, or only read, does the same as before.
        log.warning("%s cannot be written (%s): nobody would notice that the log is gone", MADE, type(error).__name__)


def create_once(path: str, schema: Any, **described: Any) -> None:
    """Create an empty Delta table unless there is one, or its log is gone.

    Raises:
        TableUnreadable: its log is gone, or the storage does not give it. A new one would show readers an empty table,
            and upkeep would remove the files of the old one.
    """
    if not has_log(path):
        create_missing(path, schema, **described)
    mark_made(path)


def has_log(path: str) -> bool:
    """Return whether a table has a log; false if it never had one.

    Raises:
        TableUnreadable: its log is gone, or the storage does not give it.
    """
    folder = storage.join(path, "_delta_log")
    try:
        if DeltaTable.is_deltatable(path):
            return True
        if not was_made(path):
            return False
        # Another process may have made it meanwhile.
        if DeltaTable.is_deltatable(path):
            return True
        # delta-rs sees no table where it may list a log and not read it.
        names = storage.list_names(folder)
    except OSError as error:
        raise unreadable(path, error) from error
    if names:
        raise unreadable(path, PermissionError())
    raise TableUnreadable(
        f"the log of {path} is gone, so nobody knows which of its files are those of the table; put the folder "
        f"{folder} back from a copy"
    )


def unreadable(path: str, error: Exception) -> TableUnreadable:
    """Return the error that the log of a table cannot be read."""
    folder = storage.join(path, "_delta_log")
    return TableUnreadable(
        f"the log {folder} cannot be read ({type(error).__name__}); see to the rights or the connection, if it is "
        "that; otherwise put it back from a copy"
    )


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


Rows = TypeVar("Rows", pa.Table, pa.RecordBatch)


def rewritten_since(path: str, version: int) -> dict[str, dict[str, Any] | None]:
    """Return the files that were rewritten after a version because users were forgotten.

    Returns:
        {file: `path`, `rows` and `bytes` of the file in its place; None if no row was left}. Their versions name the
        files that are gone.
    """
    newest = DeltaTable(path)
    if newest.transaction_version(FORGOTTEN) is None:
        return {}
    moved: dict[str, dict[str, Any] | None] = {}
    for _, commit in sorted(read_log(path, newest.version(), after=version).items()):
        for said in actions(commit, "commitInfo"):
            new = json.loads(said.get(FORGOTTEN_FILES, "{}"))
            # What was rewritten before may be rewritten again.
            moved = {old: new.get(file["path"], file) if file else None for old, file in moved.items()} | new
    return moved


def files_today(path: str, version: int) -> set[str]:
    """Return the files of a version, by the names that they have since users were forgotten."""
    named = DeltaTable(path, version=version).get_add_actions().column("path").to_pylist()
    moved = rewritten_since(path, version)
    return {now["path"] for file in named if (now := moved.get(file, {"path": file}))}


class Table:
    """One version of a published table, for reading. lake/staging.py and lake/publish.py write tables.

    Args:
        name: a table of lake/schemas.py.
        version: the Delta version to pin; the newest when None. It stays pinned for the life of the object.

    Raises:
        TableMissing: the table, or that version of it, has not been published.
        TableUnreadable: its log is damaged or gone, or the storage does not give it.
    """

    def __init__(self, name: str, version: int | None = None):
        self.name = name
        self.spec = TABLES[name]
        self.path = table_path(name)
        try:
            self.delta = DeltaTable(self.path, version=version)
        except TableNotFoundError:
            has_log(self.path)
            raise TableMissing(f"{name} has no published version at {self.path}") from None
        except Exception as error:
            # delta-rs raises a bare error for a version that is not in the log, and for a log that is damaged.
            if version is not None and Table(name):
                raise TableMissing(f"{name} has no version {version} at {self.path}: {error}") from error
            raise unreadable(self.path, error) from error
        self.version = self.delta.version()
        self._is_pinned = version is not None

    @staticmethod
    def find(name: str) -> "Table | None":
        """Return the newest version of a table, or None when nothing has been published.

        Raises:
            TableUnreadable: its log cannot be read, or is gone.
        """
        return Table(name) if has_log(table_path(name)) else None

    @cached_property
    def files(self) -> list[DataFile]:
        """Every live file, sorted by path."""
        return self._described(range(self._actions.num_rows))

    def files_of(self, column: str, days: Collection[date]) -> list[DataFile]:
        """Return the live files of some days of a partition column, sorted by path."""
        return self._described([n for n, day in enumerate(self._partitions[column]) if day in days])

    @cached_property
    def _actions(self) -> AnsweredTable:
        """What the log says of each live file; a column of which no file has a value is missing."""
        return self.delta.get_add_actions(flatten=True)

    @cached_property
    def _partitions(self) -> dict[str, list[date]]:
        """The values of each partition column, by file, in the order of `_actions`."""
        return {
            column: list(self._actions.column(f"partition.{column}").to_pylist()) for column in self.spec.partition_by
        }

    @cached_property
    def _moved(self) -> dict[str, dict[str, Any] | None]:
        """The files of a version that was asked for which were rewritten since; see `rewritten_since`."""
        return rewritten_since(self.path, self.version) if self._is_pinned else {}

    def _described(self, places: Sequence[int]) -> list[DataFile]:
        """Return the files at some places of `_actions`, sorted by path."""
        # Chosen by pyarrow before they are objects of Python, which take longer; of times, arro3 makes these faster.
        chosen = AnsweredTable.from_arrow(pa.table(self._actions).take(pa.array(places, pa.int64())))
        paths, rows, sizes = (chosen.column(name).to_pylist() for name in ("path", "num_records", "size_bytes"))
        logged = set(chosen.schema.names)
        ends = {
            field.name: [chosen.column(f"{end}.{field.name}").to_pylist() for end in ("min", "max")]
            for field in self.spec.schema
            if isinstance(field.dataType, TimestampType) and {f"min.{field.name}", f"max.{field.name}"} <= logged
        }
        files = [
            DataFile(
                paths[i],
                rows[i],
                sizes[i],
                {column: values[place] for column, values in self._partitions.items()},
                {column: (first[i], last[i]) for column, (first, last) in ends.items() if first[i] and last[i]},
            )
            for i, place in enumerate(places)
        ]
        if self._moved:
            files = [
                replace(file, **now) if (now := self._moved.get(file.path)) else file
                for file in files
                if self._moved.get(file.path, "as it was") is not None
            ]
        return sorted(files, key=lambda file: file.path)

    @cached_property
    def stored(self) -> pa.Schema:
        """The columns that lake/schemas.py has and files hold: all but the partition columns."""
        return stored_columns(self.name)

    def rows_by(self, column: str = "dt") -> dict[date, int]:
        """Return {partition value: rows}, sorted, from the log alone: no data is read."""
        rows = (
            ((file.partition[column], file.rows) for file in self.files)
            if self._moved
            else zip(self._partitions[column], self._actions.column("num_records").to_pylist(), strict=True)
        )
        totals: dict[date, int] = {}
        for day, number in rows:
            totals[day] = totals.get(day, 0) + number
        return dict(sorted(totals.items()))

    def basis(self, owned: date) -> int | None:
        """Return the basis (see lake/publish.py) of a partition; None when no run has published it, not even empty."""
        return self.transaction(f"{self.spec.owned_by}={owned}")

    @cached_property
    def _logs(self) -> dict[datetime | None, Mapping[int, str]]:
        return {}

    def _log(self, since: datetime | None) -> Mapping[int, str]:
        """Return the commits up to this version, newest first, as texts; see `read_log`."""
        if since not in self._logs:
            self._logs[since] = read_log(self.path, self.version, since=since)
        return self._logs[since]

    @cached_property
    def _transactions(self) -> Mapping[str, int] | None:
        return transactions(self.path, self.version)

    def transaction(self, name: str) -> int | None:
        """Return the number of the newest transaction of a name up to this version; None when there is none."""
        if self._transactions is not None:
            return self._transactions.get(name)
        number: int | None = self.delta.transaction_version(name)
        return number

    def replaced_by(self, versions: Sequence[int], since: datetime | None = None) -> dict[int, list[DataFile]]:
        """Return the files that commits replaced, by the version of each commit.

        No version is opened, but for a commit that replaced a file of before `since`.
        """
        commits = self._log(since)
        removed = {v: {unquote(gone["path"]) for gone in actions(commits.get(v, ""), "remove")} for v in versions}
        wanted = set().union(*removed.values())
        known = {
            file.path: file
            for commit in commits.values()
            for line in commit.splitlines()
            if (found := ADDED.match(line)) and unquote(found[1]) in wanted
            for file in [self._added(json.loads(line)["add"])]
        }
        replaced = {}
        for version, paths in removed.items():
            if version in commits and paths <= known.keys():
                replaced[version] = sorted((known[path] for path in paths), key=lambda file: file.path)
            else:
                # The log was cleaned since it was told of them.
                after = {file.path for file in Table(self.name, version).files}
                replaced[version] = [file for file in Table(self.name, version - 1).files if file.path not in after]
        return replaced

    def _added(self, action: dict[str, Any]) -> DataFile:
        """Return the file that an action of the log adds."""
        said = json.loads(action["stats"])
        ends = {
            field.name: tuple(said.get(end, {}).get(field.name) for end in ("minValues", "maxValues"))
            for field in self.spec.schema
            if isinstance(field.dataType, TimestampType)
        }
        return DataFile(
            unquote(action["path"]),
            said["numRecords"],
            action["size"],
            {column: date.fromisoformat(value) for column, value in action["partitionValues"].items()},
            {
                name: (datetime.fromisoformat(first), datetime.fromisoformat(last))
                for name, (first, last) in ends.items()
                if first and last
            },
        )

    @cached_property
    def key_id(self) -> str | None:
        """Return the id of the key of its users' pseudonyms; empty if it has the shop's own ids, None without rows."""
        number = self.delta.transaction_version(TRANSACTION)
        if number is None:  # nothing was published, or before there were pseudonyms
            return "" if self.files else None
        return from_number(number)

    def changed_since(self, version: int, dates: Collection[date]) -> dict[date, dict[str, int]] | None:
        """Return {date: {path: bytes}} of the files whose rows came or went after a version, up to this one.

        What a compaction has written is not among them, but what it has merged is, if it came after the version.

        Args:
            version: of this table.
            dates: of the partition column `dt`; those of others are left out.

        Returns:
            None if that version is newer than this one, if the log of one after it is gone, or if another tool says
            less of its files than ours.
        """
        commits = read_log(self.path, self.version, after=version)
        if len(commits) != self.version - version:
            return None
        changed: dict[date, dict[str, int]] = {}
        for commit in commits.values():
            for action in (*actions(commit, "add"), *actions(commit, "remove")):
                if not {"partitionValues", "size"} <= action.keys():
                    return None
                day = date.fromisoformat(action["partitionValues"]["dt"])
                if action["dataChange"] and day in dates:
                    changed.setdefault(day, {})[unquote(action["path"])] = action["size"]
        return changed

    def identity(self, version: int) -> str | None:
        """Return what tells a version from one of the same number in a log that was made anew or put back.

        None if the commit of that version is gone.
        """
        commit = read_log(self.path, version, after=version - 1).get(version, "")
        moments = [said["timestamp"] for said in actions(commit, "commitInfo") if "timestamp" in said]
        return f"{self.delta.metadata().id} {moments[0]}" if moments else None

    def commits(self, since: datetime | None = None) -> list[dict[str, Any]]:
        """Return the metadata of each publish up to this version, newest first; all of them, or those since a time."""
        return [entry for entry in said_in(self._log(since)) if "run_id" in entry]

    def read(
        self,
        spark: SparkSession,
        first: date | None = None,
        last: date | None = None,
        landed_from: date | None = None,
        landed_by: date | None = None,
        dates: Collection[date] | None = None,
    ) -> DataFrame:
        """Return the rows with `first` <= dt <= `last` and, of events, with `landed_from` <= landed <= `landed_by`.

        With `dates`, dt is one of these as well. Only the files of those partitions are opened.
        """
        wanted_dates = None if dates is None else set(dates)
        happened = self._partitions["dt"]
        landed = self._partitions.get("landed", happened)
        wanted = [
            place
            for place, (day, landing) in enumerate(zip(happened, landed, strict=True))
            if (first is None or day >= first)
            and (last is None or day <= last)
            and (wanted_dates is None or day in wanted_dates)
            and (landed_from is None or landing >= landed_from)
            and (landed_by is None or landing <= landed_by)
        ]
        return self.read_files(spark, self._described(wanted))

    def read_files(self, spark: SparkSession, files: Iterable[DataFile]) -> DataFrame:
        """Return the rows of some files of this version."""
        return read_parquet(spark, self.path, {file.path: file.bytes for file in files}, self.spec.schema)

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
        for file in self.files_of("dt", [day]):
            with storage.parquet_file(storage.join(self.path, file.path)) as opened:
                for batch in opened.iter_batches(batch_size=size):
                    yield file, with_columns(batch, self.stored)

    def read_file(self, file: DataFile, columns: Sequence[str]) -> pa.Table:
        """Return some columns, none of them a partition column, of the rows of one file; without Spark."""
        rows = storage.read_file(storage.join(self.path, file.path), columns)
        return with_columns(rows, pa.schema([self.stored.field(name) for name in columns]))

    def head(self, day: date, limit: int, user_id: str | None = None) -> list[dict[str, Any]]:
        """Return up to `limit` rows of partition `dt` = `day`, of one user if one is given, without Spark."""
        rows: list[dict[str, Any]] = []
        for file, batch in self.batches(day, limit if user_id is None else ROWS_AT_ONCE):
            if user_id is not None:
                batch = batch.filter(pc.equal(batch["user_id"], user_id))
            rows += [{**row, **file.partition} for row in batch.to_pylist()]
            if len(rows) >= limit:
                break
        return rows[:limit]


def key_of_tables() -> str | None:
    """Return the id of the key of the pseudonyms of all tables; empty for none, None where no table has rows.

    All have users by the same key, so one whose log can be read answers for the others.

    Raises:
        TableMissing: no table with rows can be read.
    """
    unread: list[str] = []
    for name in TABLES:
        try:
            table = Table.find(name)
            if table and table.key_id is not None:
                return table.key_id
        except UNREADABLE_LOG as error:
            unread.append(f"{name} ({type(error.__cause__ or error).__name__})")
    if unread:
        raise TableMissing(
            f"nobody can say whether this lake has pseudonyms: the logs of {', '.join(unread)} cannot be read; see to "
            "the rights or the connection, or put one of them back from a copy"
        )
    return None


def stored_columns(table: str) -> pa.Schema:
    """Return the columns of a table that lake/schemas.py has and files hold: all but the partition columns."""
    spec = TABLES[table]
    schema = pa.schema(DeltaSchema.from_json(spec.schema.json()).to_arrow())
    return pa.schema([field for field in schema if field.name not in spec.partition_by])


def with_columns(rows: Rows, schema: pa.Schema) -> Rows:
    """Return rows with nulls in those columns of a schema that were not there yet when their file was written."""
    for field in schema:
        if field.name not in rows.schema.names:
            rows = rows.append_column(field, pa.nulls(rows.num_rows, field.type))
    return rows


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


def read_parquet(spark: SparkSession, root: str, files: Mapping[str, int], schema: StructType) -> DataFrame:
    """Read Parquet files below `root`, with their partition columns from the Hive-style folders, as `schema`.

    Args:
        spark: the session.
        root: the folder of the table.
        files: {path below it: bytes}.
        schema: of all columns.

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
    rows = reduce(DataFrame.unionAll, frames) if frames else spark.createDataFrame([], schema)
    return in_one_task(rows, sum(files.values()))
