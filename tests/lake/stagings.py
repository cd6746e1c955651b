"""Stagings made without Spark: real Parquet files and a real manifest, as `lake.staging.stage` leaves them."""

import time
from collections import defaultdict
from dataclasses import asdict
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql.pandas.types import to_arrow_schema

from lake import storage
from lake.schemas import TABLES
from lake.staging import Staged, StagedFile, Verdict, run_folder, write_verdict
from lake.table import Table, table_path

JAN_1, JAN_2, JAN_3 = (date(2025, 1, n) for n in (1, 2, 3))


def rejected(day: date, *raws: str) -> list[dict[str, Any]]:
    """Make rows of `quarantine`, told apart by their raw text."""
    return [{"reason": "missing_user", "raw": raw, "file": "f", "source": "test", "dt": day} for raw in raws]


def stage_files(
    table: str,
    run_id: str,
    rows: list[dict[str, Any]],
    owns: list[date],
    basis: int,
    *,
    audited: str = "passed",
    counts: dict[str, Any] | None = None,
) -> Staged:
    """Stage rows, one file a partition; columns that a row does not name are null.

    Args:
        table: as in `lake.staging.stage`.
        run_id: names the run.
        rows: dicts of the table's columns.
        owns: as in `lake.staging.stage`.
        basis: as in `lake.staging.stage`.
        audited: verdict to leave beside it; none when empty.
        counts: as in `lake.staging.stage`.
    """
    spec, began = TABLES[table], time.time()
    schema = to_arrow_schema(spec.schema)
    inside = pa.schema([field for field in schema if field.name not in spec.partition_by])
    by_partition: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        by_partition["/".join(f"{name}={row[name]}" for name in spec.partition_by)].append(row)
    stage_id, files = uuid4().hex, []
    for partition, part in by_partition.items():
        path = f"stage={stage_id}/{partition}/part-0.parquet"
        place = Path(table_path(table)) / path
        place.parent.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(part, inside), place)
        files.append(StagedFile(path, len(part), place.stat().st_size))
    started = datetime.fromtimestamp(began, UTC).isoformat(timespec="microseconds")
    days = (min(owns), max(owns), sorted(owns))
    staged = Staged(table, run_id, stage_id, *days, basis, files, counts or {}, started=started)
    storage.write_json(storage.join(run_folder(run_id), f"{table}.json"), asdict(staged))
    if audited:
        audit(staged, audited)
    return staged


def audit(staged: Staged, verdict: str = "passed") -> None:
    """Stand in for expectations.audit, which has its own tests and starts Spark."""
    failed = [] if verdict == "passed" else ["prices are prices"]
    write_verdict(Verdict(staged.table, staged.run_id, staged.stage_id, verdict, failed, "/docs/page.html", 0.0))


def read_files(table: Table, column: str) -> list[tuple[date, Any]]:
    """Return (dt, value of a column) of every row of a table version, sorted, from the data files themselves."""
    found = []
    for file in table.files:
        values = pq.ParquetFile(Path(table.path) / file.path).read([column]).column(column).to_pylist()
        assert len(values) == file.rows
        found += [(file.partition["dt"], value) for value in values]
    return sorted(found)
