"""Staging: write new Parquet files into a table's folder under fresh names, invisible to every reader.

What a run staged for a table is described by one small file, its manifest, which the audit and the publish read.
Until a publish names the files in a Delta commit nobody sees them, so a job may be killed, repeated or run twice.

Each staging has a number of the lake (lake/order.py), which says what is newer, and a manifest of its own: where two
tries of a task overlap, that of the newer one counts, whichever is written last. Times are there for people alone.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, date, datetime
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import TimestampType

from lake import storage
from lake.errors import NotStaged, PseudonymsDiffer, PublishRefused, SchemaMismatch
from lake.order import take_number
from lake.places import is_manifest, manifest_file, run_folder, staged_folder, table_path, verdict_beside
from lake.pseudonyms import in_words
from lake.schemas import TABLES, require_schema
from lake.table import Table, read_parquet

# What a JSON file that is damaged, or has other fields than ours, ends in.
UNREADABLE = (ValueError, TypeError, KeyError, AttributeError)
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
        columns = [column.name for column in TABLES[table].schema if isinstance(column.dataType, TimestampType)]
        return StagedFile(path, footer.num_rows, size, times_in(footer, columns))


def times_in(footer: pq.FileMetaData, columns: list[str]) -> dict[str, list[str]]:
    """Return the first and the last time in a file, of timestamp columns that are not null throughout."""
    place = {footer.schema.column(n).path: n for n in range(footer.num_columns)}
    times = {}
    for name in columns:
        groups = [footer.row_group(n).column(place[name]).statistics for n in range(footer.num_row_groups)]
        known = [group for group in groups if group is not None and group.has_min_max]
        if known:
            ends = min(group.min for group in known), max(group.max for group in known)
            times[name] = [told_to_the_log(end) for end in ends]
    return times


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
        key_id: of the key of its users' pseudonyms; empty where users have the shop's own ids.
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
    key_id: str = ""

    @property
    def rows(self) -> int:
        """Number of staged rows."""
        return sum(file.rows for file in self.files)

    def read(self, spark: SparkSession) -> DataFrame:
        """Return the staged rows."""
        files = {file.path: file.bytes for file in self.files}
        return read_parquet(spark, table_path(self.table), files, TABLES[self.table].schema)

    @property
    def bytes(self) -> int:
        """The bytes of the staged files."""
        return sum(file.bytes for file in self.files)

    def read_files(self, column: str) -> Iterator[tuple[date | None, pa.Array]]:
        """Yield one column of each staged file, with the day of the partition, None without one; without Spark."""
        for file in self.files:
            day = partition_of(file.path)[TABLES[self.table].owned_by]
            values = storage.read_file(storage.join(table_path(self.table), file.path), [column])
            yield None if day == NO_VALUE else date.fromisoformat(day), values[column].combine_chunks()


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
    key_id: str = "",
    *,
    small: bool = False,
) -> Staged:
    """Write `rows` as new files of `table` and describe them in the run's manifest, which is written last.

    The key of the pseudonyms is that of the tables that were read, or, of what comes from landing files, `key_id`. What
    comes from a `small` input is written by one task.

    Raises:
        SchemaMismatch: the columns are not those of lake/schemas.py, or a row lies in a partition that is not owned.
        PseudonymsDiffer: the tables that were read have pseudonyms by different keys.
        PublishRefused: a newer try of the run has staged meanwhile.
    """
    staged = write_rows(rows, table, run, owns, basis, counts, inputs, key_id, small=small)
    write_staged(staged)
    return staged


def write_rows(
    rows: DataFrame,
    table: str,
    run: Run,
    owns: list[date],
    basis: int,
    counts: dict[str, Any] | None = None,
    inputs: dict[str, int] | None = None,
    key_id: str = "",
    *,
    small: bool = False,
) -> Staged:
    """Do what `stage` does, all but the manifest: without `write_staged`, nothing can be audited or published."""
    require_schema(table, rows.schema)
    key_id = key_of(inputs) if inputs else key_id
    spec = TABLES[table]
    stage_id = new_stage_id(run)
    folder = staged_folder(table, stage_id)
    rows = rows.select(*spec.schema.fieldNames())
    # `rebalance` lets Spark choose the number of files by size: one for a small day, many for a big one.
    rows = rows.coalesce(1) if small else rows.hint("rebalance", *spec.partition_by)
    rows.write.partitionBy(*spec.partition_by).parquet(storage.spark_path(folder))
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
        key_id=key_id,
    )
    return replace(staged, seconds=round(time.time() - run.began, 3))


def key_of(inputs: Mapping[str, int]) -> str:
    """Return the id of the key by which the users of all these {table: version} have their pseudonyms; empty for none.

    Raises:
        PseudonymsDiffer: they have not one key, so the rows of a user do not meet.
    """
    found = {name: Table(name, version).key_id for name, version in inputs.items()}
    keys = {key_id for key_id in found.values() if key_id is not None}
    if len(keys) > 1:
        tables = "; ".join(f"{name} has {in_words(key_id)}" for name, key_id in found.items() if key_id is not None)
        raise PseudonymsDiffer(
            f"{tables}: expected one key, so that the rows of a user meet; make the older table anew"
        )
    return keys.pop() if keys else ""


def new_stage_id(run: Run) -> str:
    """Return a name for a staging of a run that no other staging has."""
    return f"{run.order}-{uuid4().hex[:8]}"


def write_staged(staged: Staged) -> None:
    """Keep the manifest of a staging, beside those of earlier stagings of its run.

    Raises:
        PublishRefused: the run has a newer one, of another try that was quicker.
    """
    folder = run_folder(staged.run_id)
    newest = read_newest(folder, storage.list_files(folder), staged.table, above=staged.order)
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
    staged = find_staged(table, run_id)
    if staged is None:
        raise NotStaged(
            f"run {run_id!r} has staged nothing for {table}: {run_folder(run_id)} has no manifest of it; run its stage "
            "step first"
        )
    return staged


def find_staged(table: str, run_id: str) -> Staged | None:
    """Return the newest staging of a run for a table, or None when it has staged nothing for it."""
    folder = run_folder(run_id)
    return read_newest(folder, storage.list_files(folder), table)


def require_one_try(tables: Sequence[str], run_id: str) -> None:
    """Check that the newest stagings of a run for these tables, which one job stages, are of the same try of it.

    Raises:
        NotStaged: one of them was not staged, or by an older try: the job was ended before it staged all of them.
    """
    staged = [read_staged(table, run_id) for table in tables]
    newest = max(staged, key=lambda each: each.order)
    if older := [each.table for each in staged if each.order != newest.order]:
        raise NotStaged(
            f"run {run_id!r} has staged {newest.table} again, and not {' and '.join(older)}: its stage step was ended "
            "between them; run the stage step again"
        )


def read_again(staged: Staged) -> Staged:
    """Return a staging as its manifest describes it now."""
    content = storage.read_json(manifest_file(run_folder(staged.run_id), staged.table, staged.stage_id))
    # Before stagings were numbered, a manifest had another name, and was not written again.
    return parse_staged(content) if content else staged


def read_newest(folder: str, files: Iterable[str], table: str, above: int = -1) -> Staged | None:
    """Return the newest staging for a table among the files in the folder of a run, or None when there is none.

    Raises:
        NotStaged: the newest one cannot be read, and its number is above the one that is given.
    """
    newest, unreadable = None, []
    for name in files:
        if not is_manifest(name, table):
            continue
        try:
            staged = read_manifest(storage.join(folder, name))
        except NotStaged as error:
            unreadable.append((order_in_name(name, table), error))
            continue
        if staged and (newest is None or staged.order > newest.order):
            newest = staged
    for order, why in unreadable:
        if order > max(above, newest.order if newest else -1):
            raise why
    return newest


def order_in_name(name: str, table: str) -> int:
    """Return the number of a staging by the name of its manifest; 0 for one from before there were numbers.

    >>> order_in_name("events.1000000000000000007-ab.json", "events"), order_in_name("events.json", "events")
    (1000000000000000007, 0)
    """
    number = name.removeprefix(f"{table}.").partition("-")[0]
    return int(number) if number.isdecimal() else 0


def read_manifest(path: str) -> Staged | None:
    """Return the staging that a manifest describes; None if it is gone.

    Raises:
        NotStaged: it cannot be read.
    """
    try:
        content = storage.read_json(path)
        return None if content is None else parse_staged(content)
    except UNREADABLE as error:
        raise NotStaged(
            f"the manifest {path} cannot be read: it is damaged, or a newer version of Meander wrote it "
            f"({type(error).__name__}); run the stage step again, with the version that is in use"
        ) from error


def order_of(content: Mapping[str, Any]) -> int:
    """Return the number of the staging that a manifest or a commit tells of.

    Before there were numbers, the time of its start ordered them, in microseconds.
    """
    return int(content.get("order") or datetime.fromisoformat(content["started"]).timestamp() * 1_000_000)


def parse_staged(content: dict[str, Any]) -> Staged:
    """Return the manifest that a JSON file holds.

    Raises:
        ValueError, TypeError, KeyError, AttributeError: it holds none, or one of another version.
    """
    if content["table"] not in TABLES:
        raise ValueError(f"there is no table {content['table']!r}")
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
        unmet: by day that the run owns, what broke on it, in words; empty where no day is known, as of older audits.
        withheld: the days that a publish leaves out, since they failed, though it shows the others; see `withhold` in
            expectations/audit.py. None where the audit lets all days through, or none.
    """

    table: str
    run_id: str
    stage_id: str
    verdict: str
    failed: list[str]
    docs: str
    seconds: float
    audited: str = ""
    unmet: dict[str, list[str]] = field(default_factory=dict)
    withheld: list[str] = field(default_factory=list)

    @property
    def of_published(self) -> str:
        """The verdict on the days that a publish shows; `failed` if it may show none.

        >>> on = Verdict("events", "r", "1-ab", "failed", ["no rows"], "", 0.0, unmet={"2025-01-02": ["no rows"]})
        >>> on.of_published, replace(on, withheld=["2025-01-02"]).of_published
        ('failed', 'passed')
        """
        if not self.withheld:
            return self.verdict
        return "warned" if self.unmet.keys() - set(self.withheld) else "passed"

    def said_of(self, day: str) -> str:
        """Return whether a day that is in `unmet` has failed or warned."""
        return "failed" if day in self.withheld else self.of_published


def write_verdict(verdict: Verdict) -> None:
    """Keep an audit's verdict beside the manifest that it judged."""
    manifest = manifest_file(run_folder(verdict.run_id), verdict.table, verdict.stage_id)
    storage.write_json(verdict_beside(manifest), asdict(verdict))


def verdict_names(staged: Staged) -> tuple[str, str]:
    """Return the files, in the folder of a run, that may have the verdict on a staging."""
    # The second is where verdicts lay before stagings were numbered, on whatever was staged last.
    return verdict_beside(f"{staged.table}.{staged.stage_id}.json"), verdict_beside(f"{staged.table}.json")


def verdict_on(staged: Staged) -> Verdict | None:
    """Return the verdict on this very staging, or None when it was not audited."""
    for name in verdict_names(staged):
        # One that cannot be read lets nothing through: the audit has to run again.
        with suppress(*UNREADABLE):
            content = storage.read_json(storage.join(run_folder(staged.run_id), name))
            if content and content["stage_id"] == staged.stage_id:
                return Verdict(**content)
    return None


def read_verdict(table: str, run_id: str) -> Verdict | None:
    """Return the verdict on the newest staging of a run for a table, or None when it was not audited."""
    staged = find_staged(table, run_id)
    return verdict_on(staged) if staged else None
