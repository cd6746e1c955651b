"""Tables that jobs read and what they stage, without Spark."""

from collections.abc import Iterable
from datetime import date
from typing import Any

import pyarrow.parquet as pq

from lake import storage
from lake.days import days_between
from lake.places import table_path
from lake.publish import publish
from lake.staging import Staged, partition_of
from lake.table import Table
from tests.lake.stagings import audit, stage_files


def publish_rows(table: str, rows: list[dict[str, Any]], *days: date, **more: Any) -> None:
    """Publish rows as days of a table, each time as newer than before; `more` is for the manifest."""
    published = Table.find(table)
    run_id = f"{table} {published.version if published else 'first'}"
    stage_files(table, run_id, rows, list(days), (published.version if published else 0) + 1, **more)
    publish(table, run_id)


def publish_log(log: list[dict[str, Any]], *days: date) -> None:
    """Publish events, and all landing days between the first and the last of theirs and of `days`."""
    landed = [*(row["landed"] for row in log), *days]
    publish_rows("events", log, *days_between(min(landed), max(landed)))


def publish_staged(staged: Staged) -> dict[str, Any]:
    """Publish what a job staged, as if the audit had passed; it has its own tests."""
    audit(staged)
    return publish(staged.table, staged.run_id)


def staged_rows(staged: Staged) -> list[dict[str, Any]]:
    """Return what a job staged."""
    return rows_of_files(staged.table, (file.path for file in staged.files))


def published_rows(table: str) -> list[dict[str, Any]]:
    """Return what readers of a table see."""
    return rows_of_files(table, (file.path for file in Table(table).files))


def rows_of_files(table: str, paths: Iterable[str]) -> list[dict[str, Any]]:
    """Return the rows of Parquet files of a table, with their partition columns."""
    found = []
    fs, root = storage.filesystem(table_path(table))
    for path in paths:
        with fs.open(storage.join(root, path), "rb") as stream:
            rows = pq.ParquetFile(stream).read().to_pylist()
        values = {name: date.fromisoformat(v) for name, v in partition_of(path).items() if name != "stage"}
        found += [{**row, **values} for row in rows]
    return found
