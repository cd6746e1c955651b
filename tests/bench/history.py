"""Measure what one day of `interests` and its audit read and compute, by how many landing days the lake has.

    python -m tests.bench.history [--days 30 90 365] [--users 150] [--events 400]
    python -m tests.bench.history --days 365 1095    a lake of a year and one of three; the goal: at most 1.1 times

For each number of days, a lake of its own has as many landing days, of which one event in a hundred is a day late. The
states of the last day but one are made and audited first, and its summaries with them; then those of the last day are
measured: files, rows and bytes that were opened, by their footers, and CPU seconds of this process and its JVM.
"""

import argparse
import os
import random
import sys
import tempfile
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
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


def measured(days: int, users: int, count: int, opened: list[Path]) -> dict[str, tuple[int, int, int, float]]:
    """Return the files, rows, bytes and CPU seconds of the last of so many days, of its states and of their audit."""
    draw, first = random.Random(days), LAST - timedelta(days=days - 1)
    landed = days_between(first, LAST)
    publish_rows("events", [row for day in landed for row in events_of(day, users, count, draw)], *landed)
    found, config = {}, settings()
    spark = spark_session("history", config)
    for day in (LAST - timedelta(days=1), LAST):
        run_id = f"{days} {day}"
        for what, do in (
            ("states", lambda: interests.main(["--day", str(day), "--run-id", run_id])),  # noqa: B023
            ("audit", lambda: audit(spark, read_staged("interests", run_id), config)),  # noqa: B023
        ):
            opened.clear()
            before = cpu_seconds()
            do()
            spent, distinct = cpu_seconds() - before, set(opened)
            rows = sum(pq.read_metadata(path).num_rows for path in distinct)
            found[what] = len(distinct), rows, sum(path.stat().st_size for path in distinct), spent
    return found


def main(argv: list[str] | None = None) -> None:
    """Measure each history, the shortest first, and print a table."""
    parser = argparse.ArgumentParser(
        prog="tests.bench.history", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--days", type=int, nargs="+", default=[30, 90, 365], metavar="N", help="days of history")
    parser.add_argument("--users", type=int, default=150, metavar="N", help="users of the shop")
    parser.add_argument("--events", type=int, default=400, metavar="N", help="events that land on a day")
    args = parser.parse_args(argv)
    spark_session("history", settings())
    opened: list[Path] = []
    noted(opened)
    grid = Grid("days", "", "files", "rows", "kB", "CPU seconds", "events in all", title="interests of one day")
    rows = []
    for days in args.days:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["MEANDER_LAKE"] = folder
            of = measured(days, args.users, args.events, opened)
        for what, (files, number, size, spent) in of.items():
            read = (f"{n:,}" for n in (files, number, size // 1000))
            grid.add_row(f"{days:,}", what, *read, f"{spent:.1f}", f"{days * args.events:,}")
        rows.append(sum(number for _, number, *_ in of.values()))
    console = Console(width=100)
    console.print(grid)
    console.print(f"rows that the last lake's day reads, by those of the first: {rows[-1] / rows[0]:.2f}")


if __name__ == "__main__":
    main()
