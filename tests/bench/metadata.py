"""Measure what planner, page, `meander days` and a publish take on a lake of one, two and three years of daily runs.

    python -m tests.bench.metadata [--years 3]

No data is read by any of them: what they cost depends on manifests and logs alone. tests/bench/years.py makes the lake,
in a temporary folder. A line is CPU seconds of this process, for an operation that finds nothing in a cache, except
where it says so; imports are not counted. The goal: under 2 s each, and three years at most 1.5 times one.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from datetime import time as day_time
from typing import Any

from rich.console import Console
from rich.table import Table as Grid

from dags.page import problems
from dags.page.airflow_state import AirflowState
from dags.page.cache import Cache
from dags.page.state import LakeSnapshot
from jobs.sessionize import days_to_stage
from lake.backfill.planner import plan_backfill
from lake.days import ONE_DAY
from lake.publish import publish
from lake.runs import summarize
from lake.settings import settings
from lake.table import Table
from tests.bench.years import FIRST_DAY, Years, files_of

YEAR = 365


def operations(years: Years, days: int) -> dict[str, Callable[[], Any]]:
    """Return what is measured on a lake of so many days, by name; in this order."""
    last = FIRST_DAY + (days - 1) * ONE_DAY
    noon = datetime.combine(last + ONE_DAY, day_time(12), UTC)
    airflow = AirflowState(scheduled=True, busy={}, failed=())
    cache = Cache()

    def page() -> None:
        lake = LakeSnapshot.load(cache, noon, last)
        problems.problems(lake, airflow)
        problems.notes(lake, airflow)
        problems.freshness(lake)
        problems.cells_needing_attention(lake, 12)

    staged, _ = years.stage("sessions", "bench", last, [last], {(last,): 30}, years.logs["events"].version())
    files_of(staged)
    return {
        "plan --reason late-data": lambda: plan_backfill(settings(), "late-data"),
        "plan --reason bad-day, a week": lambda: plan_backfill(settings(), "bad-day", last - timedelta(days=6), last),
        "the page, first": page,
        "the page, again": page,
        "days": summarize,
        "what a run of sessions stages": lambda: days_to_stage(Table("events"), [last], settings()),
        "publish of a day": lambda: publish("sessions", "bench"),
    }


def measure(number: int) -> None:
    """Print the table."""
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"MEANDER_LAKE": f"{folder}/lake", "MEANDER_LANDING": f"{folder}/landing"}
        years = Years()
        years.run(0, 40)
        for do in operations(years, 40).values():
            do()  # what is imported at the first use
        years.published("sessions")
        for year in range(number):
            years.run(max(40, year * YEAR), (year + 1) * YEAR)
            for name, do in operations(years, (year + 1) * YEAR).items():
                begin = time.process_time()
                do()
                seconds.setdefault(name, []).append(time.process_time() - begin)
            years.published("sessions")
        commits = sum(log.version() for log in years.logs.values())
        files = len(Table("events").files)
    grid = Grid("CPU seconds", *(f"year {n + 1}" for n in range(number)), "last / first")
    for name, taken in seconds.items():
        grid.add_row(name, *(f"{one:.2f}" for one in taken), f"{taken[-1] / taken[0]:.1f}")
    console = Console()
    console.print(grid)
    console.print(f"{commits:,} commits, {files:,} files of events at the end")


def main() -> None:
    """Read the arguments and measure."""
    parser = argparse.ArgumentParser(prog="tests.bench.metadata", description=__doc__)
    parser.add_argument("--years", type=int, default=3, help="how many years of daily runs")
    measure(parser.parse_args().years)


if __name__ == "__main__":
    main()
