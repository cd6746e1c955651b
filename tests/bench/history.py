"""Measure what one day of `interests` and its audit read and compute, by how many landing days the lake has.

    python -m tests.bench.history [--days 30 90 365] [--users 150] [--events 400] [--times 4]
    python -m tests.bench.history --days 365 1095    a lake of a year and one of three; the goal: at most 1.1 times

For each number of days, a lake of its own has as many landing days, of which one event in a hundred is a day late. The
states of a day are made and audited first, and its summaries with them; then those of the days that follow are
measured, of all lakes in turn, so that a JVM that gets warm favours none: files, rows and bytes that were opened on the
last day, by their footers, and the least and the median CPU seconds of this process and its JVM.
"""

import argparse
import os
import random
import statistics
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
from pyspark.sql import SparkSession
from rich.console import Console
from rich.table import Table as Grid

from expectations.audit import audit
from jobs import interests
from lake import table
from lake.days import days_between
from lake.session import spark_session
from lake.settings import settings
from lake.staging import read_staged
from tests.jobs.naive import WEIGHTS, event
from tests.jobs.tables import publish_rows

LAST = date(2025, 12, 31)


def events_of(day: date, users: int, count: int, draw: random.Random) -> list[dict[str, Any]]:
    """Draw the events that land on a day."""
    rows = []
    for n in range(count):
        happened = day - timedelta(days=draw.random() < 0.01)
        when = datetime.combine(happened, datetime.min.time(), UTC) + timedelta(seconds=draw.randrange(86_400))
        # A user looks at a few categories, and at each of them several times.
        user, category = draw.randrange(users), draw.randrange(4)
        more = {"item": f"i{draw.randrange(2_000)}", "category": f"c{(7 * user + category) % 50}", "landed": day}
        rows.append(event(f"{day} {n}", f"u{user}", when, draw.choice(list(WEIGHTS)), **more))
    return rows


def cpu_seconds() -> float:
    """Return the CPU seconds of this process and of all that it has started."""
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    return float(sum(sum(process.cpu_times()[:2]) for process in processes))


def noted(opened: list[Path]) -> None:
    """Let `read_parquet`, wherever it was imported to, note the files that it opens."""
    plain = table.read_parquet

    def noting(spark: Any, root: str, files: list[str], schema: Any) -> Any:
        opened.extend(Path(root, file) for file in files)
        return plain(spark, root, files, schema)

    for module in [module for module in sys.modules.values() if getattr(module, "read_parquet", None) is plain]:
        module.read_parquet = noting  # type: ignore[attr-defined]


class Lake:
    """A lake of some landing days up to LAST."""

    def __init__(self, folder: Path, days: int, users: int, count: int):
        self.folder, self.days = folder, days
        self.taken: dict[str, list[float]] = {"states": [], "audit": []}
        self.opened: dict[str, tuple[int, int, int]] = {}
        os.environ["MEANDER_LAKE"] = str(folder)
        draw, landed = random.Random(days), days_between(LAST - timedelta(days=days - 1), LAST)
        publish_rows("events", [row for day in landed for row in events_of(day, users, count, draw)], *landed)

    def run(self, spark: SparkSession, day: date, opened: list[Path]) -> None:
        """Make and audit the states of a day, and keep what it took."""
        os.environ["MEANDER_LAKE"] = str(self.folder)
        config, run_id = settings(), str(day)
        steps: dict[str, Callable[[], object]] = {
            "states": lambda: interests.main(["--day", str(day), "--run-id", run_id]),
            "audit": lambda: audit(spark, read_staged("interests", run_id), config),
        }
        for what, do in steps.items():
            opened.clear()
            before = cpu_seconds()
            do()
            self.taken[what].append(cpu_seconds() - before)
            distinct = set(opened)
            rows = sum(pq.read_metadata(path).num_rows for path in distinct)
            self.opened[what] = len(distinct), rows, sum(path.stat().st_size for path in distinct)


def show(lakes: list[Lake], count: int) -> None:
    """Print a table, and what the last lake's day took by that of the first."""
    grid = Grid(
        "days", "", "files", "rows", "kB", "CPU s: least", "median", "events in all", title="interests of one day"
    )
    # The first day made the summaries.
    taken = [{what: of[1:] for what, of in lake.taken.items()} for lake in lakes]
    for lake, of in zip(lakes, taken, strict=True):
        for what, (files, number, size) in lake.opened.items():
            read = (f"{n:,}" for n in (files, number, size // 1000))
            seconds = (f"{n:.1f}" for n in (min(of[what]), statistics.median(of[what])))
            grid.add_row(f"{lake.days:,}", what, *read, *seconds, f"{lake.days * count:,}")
    console = Console(width=110)
    console.print(grid)
    by_lake = {
        "files": [sum(files for files, *_ in lake.opened.values()) for lake in lakes],
        "rows": [sum(rows for _, rows, _ in lake.opened.values()) for lake in lakes],
        "CPU, least": [sum(min(some) for some in of.values()) for of in taken],
        "CPU, median": [sum(statistics.median(some) for some in of.values()) for of in taken],
    }
    ratios = ", ".join(f"{what} {of[-1] / of[0]:.2f}" for what, of in by_lake.items())
    console.print(f"the last lake's day by that of the first: {ratios}")


def main(argv: list[str] | None = None) -> None:
    """Make the lakes, measure days of each in turn, and print a table."""
    parser = argparse.ArgumentParser(
        prog="tests.bench.history", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--days", type=int, nargs="+", default=[30, 90, 365], metavar="N", help="days of history")
    parser.add_argument("--users", type=int, default=150, metavar="N", help="users of the shop")
    parser.add_argument("--events", type=int, default=400, metavar="N", help="events that land on a day")
    parser.add_argument("--times", type=int, default=4, metavar="N", help="days that are measured")
    args = parser.parse_args(argv)
    opened: list[Path] = []
    noted(opened)
    with tempfile.TemporaryDirectory() as folder:
        lakes = [Lake(Path(folder, str(days)), days, args.users, args.events) for days in args.days]
        spark = spark_session("history", settings())
        for ago in range(args.times, -1, -1):
            # Each lake is as often the first as the last.
            for lake in lakes if ago % 2 else lakes[::-1]:
                lake.run(spark, LAST - timedelta(days=ago), opened)
    show(lakes, args.events)


if __name__ == "__main__":
    main()
