"""Measure what planner, page, `meander days` and a publish take on a lake of one, two and three years of daily runs.

    python -m tests.bench.metadata [--years 3]

No data is read by any of them: what they cost depends on manifests and logs alone. tests/bench/years.py makes the lake,
in a temporary folder. A line is CPU seconds of this process, the least of three times, for an operation that finds
nothing in a cache, except where it says so; imports are not counted. The goal: under 2 s each, and three years at most
1.5 times one.

Before anything is timed, each answer is compared with the one for which the whole past is read (lake/looking_back.py).
"""

import argparse
import gc
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, date, datetime, timedelta
from datetime import time as day_time
from typing import Any
from unittest.mock import patch

from rich.console import Console
from rich.table import Table as Grid

from dags.page import problems, state
from dags.page.airflow_state import AirflowState
from dags.page.cache import Cache
from dags.page.state import LakeSnapshot
from jobs import sessionize
from jobs.sessionize import days_to_stage
from lake import runs
from lake.backfill import history
from lake.backfill.planner import plan_backfill
from lake.days import ONE_DAY
from lake.looking_back import first_day
from lake.publish import publish
from lake.runs import summarize
from lake.settings import settings
from lake.table import Table
from tests.bench.years import FIRST_DAY, Years, files_of

YEAR = 365
TIMES = 3


@contextmanager
def whole_past() -> Iterator[None]:
    """Read the whole past for each answer."""
    with ExitStack() as patches:
        for module in (history, runs, sessionize, state):
            patches.enter_context(patch.object(module, "nothing_before", lambda _: None))
        patches.enter_context(patch.object(history, "NEIGHBOURS", timedelta.max))
        yield


def answers(last: date, noon: datetime) -> list[Any]:
    """Return what planner, page, `meander days` and a run of sessions say of the days that they look at."""
    first, landed = first_day(settings(), Table("events")), [last, last - timedelta(days=90)]
    lake = LakeSnapshot.load(Cache(), noon, last)
    return [
        plan_backfill(settings(), "late-data"),
        plan_backfill(settings(), "bad-day", last - timedelta(days=6), last),
        {table: {day: cell for day, cell in days.items() if day >= first} for table, days in lake.cells.items()},
        summarize(first, with_older=True),
        *(days_to_stage(Table("events"), [day], settings()) for day in landed),
    ]


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
        "days": lambda: summarize(first_day(settings(), Table("events")), with_older=True),
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
            last = years.today
            noon = datetime.combine(last + ONE_DAY, day_time(12), UTC)
            with whole_past():
                expected = answers(last, noon)
            if answers(last, noon) != expected:
                raise SystemExit(f"after {year + 1} years, an answer is another than for the whole past")
            del expected
            # What the bench itself keeps of the lake is nothing that a command has to look through.
            gc.collect()
            gc.freeze()
            taken: dict[str, list[float]] = {}
            for _ in range(TIMES):
                for name, do in operations(years, (year + 1) * YEAR).items():
                    begin = time.process_time()
                    do()
                    taken.setdefault(name, []).append(time.process_time() - begin)
                years.published("sessions")
            for name, some in taken.items():
                seconds.setdefault(name, []).append(min(some))
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
