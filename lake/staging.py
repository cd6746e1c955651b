"""Staging: write new Parquet files into a table's folder under fresh names, invisible to every reader.

What a run staged for a table is described by one small file, its manifest, which the audit and the publish read.
Until a publish names the files in a Delta commit nobody sees them, so a job may be killed, repeated or run twice.

Each staging has a number of the lake (lake/order.py), which says what is newer, and a manifest of its own: where two
tries of a task overlap, that of the newer one counts, whichever is written last. Times are there for people alone.
"""

import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, date, datetime
from typing import Any
from uuid import uuid4

import pyarrow.parquet as pq
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import TimestampType

from lake import storage
from lake.errors import NotStaged, PublishRefused, SchemaMismatch
from lake.order import take_number
from lake.places import is_manifest, manifest_file, run_folder, staged_folder, table_path, verdict_beside
from lake.schemas import TABLES, require_schema
from lake.table import read_parquet

NO_VALUE = "__HIVE_DEFAULT_PARTITION__"  # how Spark names the folder of rows whose partition column is null


def told_to_the_log(moment: datetime) -> str:
    """Return a time in UTC as Delta's log tells it.

    >>> told_to_the_log(datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC))
    '2025-01-02T03:04:05.000000Z'
    """
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"


@dataclass(frozen=True)
class StagedFile:
    """One staged Parquet file: its path in the table's folder, rows and bytes.

    `times` holds, by timestamp column, the first and the last time in it; not of columns that are null throughout.
    """

    path: str
    rows: int
    bytes: int
    times: dict[str, list[str]] = field(default_factory=dict)

    @staticmethod
    def of(table: str, path: str, size: int, footer: pq.FileMetaData) -> "StagedFile":
        """Describe a file of a table by its footer."""
        place = {footer.schema.column(n).path: n for n in range(footer.num_columns)}
        times = {}
        for name in (column.name for column in TABLES[table].schema if isinstance(column.dataType, TimestampType)):
            groups = [footer.row_group(n).column(place[name]).statistics for n in range(footer.num_row_groups)]
            known = [group for group in groups if group is not None and group.has_min_max]
            if known:
                ends = min(group.min for group in known), max(group.max for group in known)
                times[name] = [told_to_the_log(end) for end in ends]
        return StagedFile(path, footer.num_rows, size, times)


@dataclass(frozen=True)
class Staged:
    """What a run staged for one table.

    Attributes:
        table, run_id: whose it is.
        stage_id: names this staging; staging again under the same run id makes a new one.
        first, last: the days that the run was asked for.
        owns: partition values that the publish replaces as a whole, also those that got no row.
        basis: what the rows were computed from, see lake/publish.py.
        order: its number: a newer staging has a higher one.
        files: the staged files.
        counts: numbers about the staging that the audit and the reports use, such as input rows.
        inputs: {table: version} that was read.
        started, seconds: when the staging began and how long it took.
    """

    table: str
    run_id: str
    stage_id: str
    first: date
    last: date
    owns: list[date]
    basis: int
    order: int
    files: list[StagedFile]
    counts: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, int] = field(default_factory=dict)
    started: str = ""
    seconds: float = 0.0

    @property
    def rows(self) -> int:
        """Number of staged rows."""
        return sum(file.rows for file in self.files)

    def read(self, spark: SparkSession) -> DataFrame:
        """Return the staged rows."""
        return read_parquet(spark, table_path(self.table), [f.path for f in self.files], TABLES[self.table].schema)


@dataclass(frozen=True)
class Run:
    """One staging run: its id, the days asked for, its number, and when it began.

    It is made before its input is looked at: what has come by then is known to each staging that has a higher number.
    """

    run_id: str
    first: date
    last: date
    order: int = field(default_factory=take_number)
    began: float = field(default_factory=time.time)

    @property
    def basis(self) -> int:
        """The number of the run: the basis of what is computed from landing files."""
        return self.order


def partition_of(path: str) -> dict[str, str]:
    """Return the partition values in the path of a staged file.

    >>> partition_of("stage=x/dt=2017-01-01/part-0.parquet")
    {'dt': '2017-01-01'}
    """
    return dict(part.split("=", 1) for part in path.split("/")[1:-1])


def stage(
    rows: DataFrame,
    table: str,
    run: Run,
    owns: list[date],
    basis: int,
    counts: dict[str, Any] | None = None,
    inputs: dict[str, int] | None = None,
) -> Staged:
    """Write `rows` as new files of `table` and describe them in the run's manifest, which is written last.

    Raises:
        SchemaMismatch: the columns are not those of lake/schemas.py, or a row lies in a partition that is not owned.
        PublishRefused: a newer try of the run has staged meanwhile.
    """
    require_schema(table, rows.schema)
    spec = TABLES[table]
    stage_id = new_stage_id(run)
    folder = staged_folder(table, stage_id)
    # `rebalance` lets Spark choose the number of files by size: one for a small day, many for a big one.
    (
        rows.select(*spec.schema.fieldNames())
        .hint("rebalance", *spec.partition_by)
        .write.partitionBy(*spec.partition_by)
        .parquet(storage.spark_path(folder))
    )
    sizes = {name: size for name, size in storage.list_files(folder).items() if name.endswith(".parquet")}
    files = [
        StagedFile.of(table, f"stage={stage_id}/{name}", sizes[name], footer)
        for name, footer in zip(sizes, storage.read_footers(folder, list(sizes)), strict=True)
    ]
    # A row without a partition value is the audit's to tell, as every other null is.
    strays = {partition_of(file.path)[spec.owned_by] for file in files} - {str(day) for day in owns} - {NO_VALUE}
    if strays:
        days = ", ".join(sorted(strays))
        raise SchemaMismatch(
            f"rows for {table} lie in {spec.owned_by} {days}, which run {run.run_id!r} does not own: they would be lost"
        )
    started = datetime.fromtimestamp(run.began, UTC).isoformat(timespec="microseconds")
    staged = Staged(
        table,
        run.run_id,
        stage_id,
        run.first,
        run.last,
        sorted(owns),
        basis,
        run.order,
        files,
        counts or {},
        inputs or {},
        started,
    )
    staged = replace(staged, seconds=round(time.time() - run.began, 3))
    write_staged(staged)
    return staged


def new_stage_id(run: Run) -> str:
    """Return a name for a staging of a run that no other staging has."""
    return f"{run.order}-{uuid4().hex[:8]}"


def write_staged(staged: Staged) -> None:
    """Keep the manifest of a staging, beside those of earlier stagings of its run.

    Raises:
        PublishRefused: the run has a newer one, of another try that was quicker.
    """
    folder = run_folder(staged.run_id)
    newest = read_newest(folder, storage.list_files(folder), staged.table)
    if newest and newest.order >= staged.order and newest.stage_id != staged.stage_id:
        raise PublishRefused(
            f"{staged.table} of run {staged.run_id!r} was staged meanwhile by a newer try, number {newest.order}; "
            f"this one, number {staged.order}, is given up"
        )
    storage.write_json(manifest_file(folder, staged.table, staged.stage_id), asdict(staged))


def read_staged(table: str, run_id: str) -> Staged:
    """Return the newest staging of a run for a table.

    Raises:
        NotStaged: there is none, or another lake or run id was meant.
    """
    folder = run_folder(run_id)
    staged = read_newest(folder, storage.list_files(folder), table)
    if staged is None:
        raise NotStaged(
            f"run {run_id!r} has staged nothing for {table}: {folder} has no manifest of it; run its stage step first"
        )
    return staged


def read_newest(folder: str, files: Iterable[str], table: str) -> Staged | None:
    """Return the newest staging for a table among the files in the folder of a run, or None when there is none."""
    contents = [storage.read_json(storage.join(folder, name)) for name in files if is_manifest(name, table)]
    return max((parse_staged(content) for content in contents if content), key=lambda s: s.order, default=None)


def order_of(content: Mapping[str, Any]) -> int:
    """Return the number of the staging that a manifest or a commit tells of.

    Before there were numbers, the time of its start ordered them, in microseconds.
    """
    return int(content.get("order") or datetime.fromisoformat(content["started"]).timestamp() * 1_000_000)


def parse_staged(content: dict[str, Any]) -> Staged:
    """Return the manifest that a JSON file holds."""
    return Staged(
        **{
            **content,
            "order": order_of(content),
            "first": date.fromisoformat(content["first"]),
            "last": date.fromisoformat(content["last"]),
            "owns": [date.fromisoformat(day) for day in content["owns"]],
            "files": [StagedFile(**file) for file in content["files"]],
        }
    )


@dataclass(frozen=True)
class Verdict:
    """What the audit found for one staging.

    Attributes:
        stage_id: the staging that was audited; a publish of any other is refused.
        verdict: passed, warned (warnings only) or failed (a critical expectation broke).
        failed: the expectations that broke, in words, critical ones first.
        docs: address of the data docs of this audit.
        seconds: how long the audit took.
        audited: when it ended, UTC, ISO 8601.
    """

    table: str
    run_id: str
    stage_id: str
    verdict: str
    failed: list[str]
    docs: str
    seconds: float
    audited: str = ""


def write_verdict(verdict: Verdict) -> None:
    """Keep an audit's verdict beside the manifest that it judged."""
    manifest = manifest_file(run_folder(verdict.run_id), verdict.table, verdict.stage_id)
    storage.write_json(verdict_beside(manifest), asdict(verdict))


def verdict_on(staged: Staged) -> Verdict | None:
    """Return the verdict on this very staging, or None when it was not audited."""
    folder = run_folder(staged.run_id)
    manifest = manifest_file(folder, staged.table, staged.stage_id)
    # The second is where verdicts lay before stagings were numbered, on whatever was staged last.
    for path in (manifest, storage.join(folder, f"{staged.table}.json")):
        content = storage.read_json(verdict_beside(path))
        if content and content["stage_id"] == staged.stage_id:
            return Verdict(**content)
    return None


def read_verdict(table: str, run_id: str) -> Verdict | None:
    """Return the verdict on the newest staging of a run for a table, or None when it was not audited."""
    folder = run_folder(run_id)
    staged = read_newest(folder, storage.list_files(folder), table)
    return verdict_on(staged) if staged else None
