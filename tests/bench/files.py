"""Measure what it takes to find files of `events` in a lake of many small ones: `python -m tests.bench.files`.

Each landing day has a file of its own date, and one of each of so many dates before it. No data is written: what is
measured depends on the log alone. CPU seconds of this process, the least of three, after one, two and three years.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from deltalake import DeltaTable
from rich.console import Console
from rich.table import Table as Grid

from lake.days import ONE_DAY
from lake.places import table_path
from lake.publish import added, ensure_table
from lake.staging import StagedFile
from lake.summaries import Landings
from lake.table import Table

FIRST, YEAR = date(2022, 1, 1), 365


def land(days: range, late: int) -> None:
    """Add the files of landing days to the log, in one commit, and write a checkpoint."""
    actions = []
    for landed in (FIRST + n * ONE_DAY for n in days):
        for dt in (landed - n * ONE_DAY for n in range(late + 1)):
            times = {"event_time": [f"{dt}T11:00:00.000000Z", f"{dt}T13:00:00.000000Z"]}
            file = StagedFile(f"stage=7-{landed:%Y%m%d}/dt={dt}/landed={landed}/part-00000.parquet", 3, 3000, times)
            actions.append(added(file, {"dt": str(dt), "landed": str(landed)}, data_change=True))
    delta = DeltaTable(table_path("events"))
    delta.create_write_transaction(actions, "append", delta.schema(), delta.metadata().partition_columns)
    DeltaTable(table_path("events")).create_checkpoint()


def least(do: Callable[[], Any]) -> float:
    """Return the CPU seconds of the cheapest of three times."""
    taken = []
    for _ in range(3):
        began = time.process_time()
        do()
        taken.append(time.process_time() - began)
    return min(taken)


def main() -> None:
    """Make the log year by year, and print a table."""
    parser = argparse.ArgumentParser(prog="tests.bench.files", description=__doc__)
    parser.add_argument("--late", type=int, default=180, metavar="DAYS", help="older dates in a delivery")
    args = parser.parse_args()
    found: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MEANDER_LAKE"] = folder
        ensure_table("events")
        for year in range(3):
            land(range(year * YEAR, (year + 1) * YEAR), args.late)
            last = FIRST + (year + 1) * YEAR * ONE_DAY - timedelta(days=1)
            checkpoint = max(Path(table_path("events")).glob("_delta_log/*.checkpoint.parquet"))
            measured = {
                "files": f"{len(Table('events').files):,}",
                "MB of a checkpoint": f"{checkpoint.stat().st_size / 1e6:.1f}",
                "open the table": f"{least(lambda: Table('events')):.2f}",
                "files of a landing day": f"{least(lambda day=last: Table('events').files_of('landed', [day])):.2f}",
                "all files, as interests do": f"{least(lambda: Landings(Table('events'))):.2f}",
            }
            for what, value in measured.items():
                found.setdefault(what, []).append(value)
    grid = Grid("CPU seconds", *(f"year {n + 1}" for n in range(3)))
    for what, values in found.items():
        grid.add_row(what, *values)
    Console().print(grid)


if __name__ == "__main__":
    main()
