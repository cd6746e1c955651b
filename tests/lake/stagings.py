"""Stagings made without Spark: real Parquet files and a real manifest, as `lake.staging.stage` leaves them."""

import shutil
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, replace
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql.pandas.types import to_arrow_schema

from lake import storage
from lake.places import run_folder, table_path
from lake.publish import publish
from lake.schemas import TABLES
from lake.staging import Run, Staged, StagedFile, Verdict, new_stage_id, write_staged, write_verdict
from lake.table import DataFile, Table

JAN_1, JAN_2, JAN_3 = (date(2025, 1, n) for n in (1, 2, 3))


def rejected(day: date, *raws: str) -> list[dict[str, Any]]:
    """Make rows of `quarantine`, told apart by their raw text."""
    return [{"reason": "missing_user", "raw": raw, "file": "f", "source": "test", "dt": day} for raw in raws]


def stage_files(
    table: str,
    run_id: str,
    rows: list[dict[str, Any]],
    owns: list[date],
    basis: int | None,
    *,
    run: Run | None = None,
    audited: str = "passed",
    rows_in_group: int | None = None,
    **more: Any,
) -> Staged:
    """Stage rows, one file a partition; columns that a row does not name are null.

    Args:
        table: as in `lake.staging.stage`.
        run_id: names the run.
        rows: dicts of the table's columns.
        owns: as in `lake.staging.stage`.
        basis: as in `lake.staging.stage`; the number of the staging when None.
        run: the run, where it has begun before; it begins now when None.
        audited: verdict to leave beside it; none when empty.
        rows_in_group: how many rows each row group of a file has; all of them when None.
        more: other fields of the manifest, such as `counts` and `inputs`.
    """
    spec, run = TABLES[table], run or Run(run_id, min(owns), max(owns))
    schema = to_arrow_schema(spec.schema)
    inside = pa.schema([field for field in schema if field.name not in spec.partition_by])
    by_partition: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        by_partition["/".join(f"{name}={row[name]}" for name in spec.partition_by)].append(row)
    stage_id, files = new_stage_id(run), []
    for partition, part in by_partition.items():
        path = f"stage={stage_id}/{partition}/part-0.parquet"
        fs, place = storage.filesystem(storage.join(table_path(table), path))
        fs.makedirs(place.rpartition("/")[0], exist_ok=True)
        with fs.open(place, "wb") as stream:
            pq.write_table(pa.Table.from_pylist(part, inside), stream, row_group_size=rows_in_group)
        with fs.open(place, "rb") as stream:
            files.append(StagedFile.of(table, path, fs.size(place), pq.read_metadata(stream)))
    started = datetime.fromtimestamp(run.began, UTC).isoformat(timespec="microseconds")
    known = run.basis if basis is None else basis
    days = run.first, run.last, sorted(owns)
    staged = Staged(table, run_id, stage_id, *days, known, run.order, files, started=started, **more)
    write_staged(staged)
    if audited:
        audit(staged, audited)
    return staged


def published(
    run_id: str, rows: list[dict[str, Any]], owns: list[date], basis: int, copies: int = 0, table: str = "quarantine"
) -> Staged:
    """Publish rows; with `copies`, each partition gets so many more files with the same rows. On a local disk only."""
    staged = stage_files(table, run_id, rows, owns, basis)
    more = []
    for file in staged.files:
        for n in range(1, copies + 1):
            copy = file.path.replace("part-0", f"part-{n}")
            shutil.copy(storage.join(table_path(table), file.path), storage.join(table_path(table), copy))
            more.append(replace(file, path=copy))
    staged = replace(staged, files=[*staged.files, *more])
    write_staged(staged)
    audit(staged)
    publish(table, run_id)
    return staged


def staged_before(run_id: str, raw: str, clock: datetime, audited: str = "passed") -> Staged:
    """Stage a row of `quarantine` on JAN_1 as it was done before stagings had numbers.

    The clock ordered them, and a run had one manifest and one verdict for each table.
    """
    folder = run_folder(run_id)
    storage.remove_files(folder, list(storage.list_files(folder)))
    run = Run(run_id, JAN_1, JAN_1, order=int(clock.timestamp() * 1_000_000), began=clock.timestamp())
    staged = stage_files("quarantine", run_id, rejected(JAN_1, raw), [JAN_1], None, run=run, audited="")
    storage.remove_files(folder, list(storage.list_files(folder)))
    manifest = {name: value for name, value in asdict(staged).items() if name != "order"}
    storage.write_json(storage.join(folder, "quarantine.json"), manifest)
    if audited:
        verdict = Verdict("quarantine", run_id, staged.stage_id, audited, [], "/docs/page.html", 0.0)
        storage.write_json(storage.join(folder, "quarantine.audit.json"), asdict(verdict))
    return staged


def audit(staged: Staged, verdict: str = "passed") -> None:
    """Stand in for expectations.audit, which has its own tests and starts Spark."""
    failed = [] if verdict == "passed" else ["prices are prices"]
    write_verdict(Verdict(staged.table, staged.run_id, staged.stage_id, verdict, failed, "/docs/page.html", 0.0))


def read_files(table: Table, column: str) -> list[tuple[date, Any]]:
    """Return (dt, value of a column) of every row of a table version, sorted, from the data files themselves."""
    found = []
    for file in table.files:
        fs, place = storage.filesystem(storage.join(table.path, file.path))
        with fs.open(place, "rb") as stream:
            values = pq.ParquetFile(stream).read([column]).column(column).to_pylist()
        assert len(values) == file.rows
        found += [(file.partition["dt"], value) for value in values]
    return sorted(found)


def files_of(times: Iterable[datetime]) -> list[DataFile]:
    """Return what Delta's log tells of the files, one for each date, that hold events at these times of day in UTC."""
    by_day: dict[date, list[datetime]] = {}
    for moment in times:
        by_day.setdefault(moment.date(), []).append(moment.replace(tzinfo=UTC))
    return [
        DataFile("", len(found), 0, {"dt": day}, {"event_time": (min(found), max(found))})
        for day, found in by_day.items()
    ]
