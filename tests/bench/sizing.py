"""Measure what an event costs, check that a larger log costs what the constants say, and size a cluster by them.

    python -m tests.bench.sizing [--small 500_000] [--large 1_500_000] [--check 4_000_000] [--terabytes 1]

Runs the daily steps, each a Spark application of its own, on logs of three sizes. Two, of one day each, give the
constants of docs/sizing.md, by a straight line through them: a fixed part, and a part for each row. The third one has
four days, is predicted from these, and then measured: what a row costs must not depend on the days over which the rows
are spread. The numbers come from Spark's own event log: the time that tasks held a core; bytes shuffled, spilled and
written; and the memory that tasks took for what they had read of a shuffle. The simulated log has the shape of a shop's
(`python -m jobs.simulate --help`). At the end: what the constants say of a day of so many terabytes.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from deltalake import DeltaTable
from rich.console import Console
from rich.table import Table as Grid

from lake.tables import GROUPS, groups_of, made_by

DAY = date(2025, 1, 1)
# Of the log that checks the constants.
CHECK_DAYS = 4
# Days before today in which late events fall on an ordinary day, of which sessions are cut again.
LATE_DAYS = 2
# What a date costs that is cut for the next one and not written, as a part of what a written one costs, with
# the half an hour that is kept of the date before it (docs/decisions/0046).
NOT_WRITTEN = 0.5
# What adaptive execution lets a task read of a shuffle (spark.sql.adaptive.advisoryPartitionSizeInBytes), and the
# part of an executor's heap that its tasks share (spark.memory.fraction).
TASK_BYTES, TASKS_SHARE = 64e6, 0.6
# What a task takes at the least tells nothing about one that has read less than this.
TELLING_BYTES = 25_000_000
# What is measured of an application: the words for it, and how many of Spark's units make one of ours.
MEASURES = {
    "seconds": ("seconds", 1.0),
    "cores": ("core seconds", 1e3),
    "shuffled": ("MB shuffled", 1e6),
    "spilled": ("MB spilled", 1e6),
    "written": ("MB written", 1e6),
}


@dataclass(frozen=True)
class Line:
    """A cost that grows with the events: `fixed + each * events`."""

    fixed: float
    each: float

    @staticmethod
    def through(one: tuple[int, float], other: tuple[int, float]) -> "Line":
        """Return the line through two measurements.

        >>> Line.through((100, 30.0), (300, 50.0))
        Line(fixed=20.0, each=0.1)
        """
        each = (other[1] - one[1]) / (other[0] - one[0])
        return Line(one[1] - each * one[0], each)

    def at(self, events: int) -> float:
        return self.fixed + self.each * events


def tasks(log: Path) -> Iterator[dict[str, Any]]:
    """Yield the metrics of each task that an application's event log tells of."""
    for file in sorted(path for path in log.rglob("*") if path.is_file()):
        for line in file.read_text().splitlines():
            if line.startswith('{"Event":"SparkListenerTaskEnd"'):
                yield json.loads(line).get("Task Metrics") or {}


def metrics(log: Path) -> dict[str, float]:
    """Return the sums over all tasks, in the smallest unit; as `memory`, the most that one took for a byte read."""
    found: dict[str, float] = defaultdict(float)
    for task in tasks(log):
        read = task.get("Shuffle Read Metrics", {})
        shuffled = read.get("Remote Bytes Read", 0) + read.get("Local Bytes Read", 0)
        if shuffled > TELLING_BYTES:
            found["memory"] = max(found["memory"], task.get("Peak Execution Memory", 0) / shuffled)
        found["cores"] += task.get("Executor Run Time", 0)
        found["shuffled"] += task.get("Shuffle Write Metrics", {}).get("Shuffle Bytes Written", 0)
        found["spilled"] += task.get("Disk Bytes Spilled", 0)
        found["written"] += task.get("Output Metrics", {}).get("Bytes Written", 0)
    return found


def run(name: str, module: str, *arguments: str, environment: dict[str, str]) -> dict[str, float]:
    """Run one application and return what it took."""
    with tempfile.TemporaryDirectory(prefix="meander-conf-") as folder:
        (Path(folder) / "log").mkdir()
        defaults = (
            f"spark.eventLog.enabled true\nspark.eventLog.compress false\nspark.eventLog.dir file://{folder}/log\n"
        )
        (Path(folder) / "spark-defaults.conf").write_text(defaults)
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", module, *arguments], env={**os.environ, **environment, "SPARK_CONF_DIR": folder},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            sys.exit(f"{name} failed:\n{done.stderr[-3000:]}")
        return {**metrics(Path(folder) / "log"), "seconds": time.perf_counter() - began}


@dataclass(frozen=True)
class Measured:
    """What a log took: rows and bytes that landed, users with interests, and the costs of each step."""

    rows: int
    landed: int
    users: int
    costs: dict[str, dict[str, float]]


def measure(events: int, days: int, folder: Path) -> Measured:
    """Simulate a log of about so many events, and run it through all steps."""
    environment = {
        "MEANDER_LAKE": str(folder / "lake"),
        "MEANDER_LANDING": str(folder / "landing"),
        "MEANDER_SOURCE": "canonical",
    }
    simulated = ["--events", str(events), "--days", str(days), "--from", str(DAY)]
    run("simulate", "jobs.simulate", *simulated, environment=environment)
    landed = sum(file.stat().st_size for file in (folder / "landing").rglob("*") if file.is_file())
    last = str(DAY + timedelta(days=days - 1))
    costs = {}
    for group in groups_of("behavior_daily"):
        module, tables = made_by(group), GROUPS[group]
        step = module.split(".")[-1]
        named = ["--run-id", "sizing"]
        # Interests are of one date, and read all days before it.
        span = ["--day", last] if step == "interests" else ["--from", str(DAY), "--to", last]
        costs[step] = run(step, module, *span, *named, environment=environment)
        chosen = [part for table in tables for part in ("--table", table)]
        costs[f"audit of {' and '.join(tables)}"] = run(
            "audit", "expectations.audit", *chosen, *named, environment=environment
        )
        for table in tables:
            run("publish", "lake.publish", "--table", table, *named, environment=environment)
    manifest = json.loads(next((folder / "lake" / "_runs").rglob("events.*-????????.json")).read_text())
    rows = sum(int(of_day["input"]) for of_day in manifest["counts"]["by_day"].values())
    users = DeltaTable(str(folder / "lake" / "interests")).count()
    return Measured(rows, landed, users, costs)


def main() -> None:
    """Measure two sizes, predict a third, measure it, and print the constants and how well they held."""
    parser = argparse.ArgumentParser(
        prog="tests.bench.sizing", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in (("small", 500_000), ("large", 1_500_000), ("check", 4_000_000)):
        number = {"type": lambda text: int(text.replace("_", "")), "default": default}
        parser.add_argument(f"--{name}", metavar="EVENTS", **number)
    parser.add_argument("--terabytes", type=float, default=1, help="that land on a day (default: 1)")
    args = parser.parse_args()
    measured = []
    for events, days in ((args.small, 1), (args.large, 1), (args.check, CHECK_DAYS)):
        with tempfile.TemporaryDirectory(prefix="meander-sizing-") as folder:
            measured.append(measure(events, days, Path(folder)))
    small, large, check = measured
    lines = {
        (step, measure): Line.through(
            (small.rows, small.costs[step].get(measure, 0) / scale),
            (large.rows, large.costs[step].get(measure, 0) / scale),
        )
        for step in small.costs
        for measure, (_, scale) in MEASURES.items()
    }
    out = Console(width=130)
    show_constants(out, lines, check)
    row_bytes = large.landed / large.rows
    out.print(f"landing: {row_bytes:.0f} bytes a row; {large.users:,} users of {large.rows:,} rows")
    show_cluster(out, lines, check, rows=args.terabytes * 1e12 / row_bytes)


def show_constants(out: Console, lines: dict[tuple[str, str], Line], check: Measured) -> None:
    """Print the constants, and how well they predict the third log."""
    grid = Grid("step", "measure", "fixed", "a million rows", f"predicted for {check.rows:,}", "measured", "off by")
    for (step, measure), line in lines.items():
        words, scale = MEASURES[measure]
        expected, real = line.at(check.rows), check.costs[step].get(measure, 0) / scale
        if max(expected, real) < 0.05:
            continue
        off = f"{(expected / real - 1) * 100:+.0f} %" if real else "-"
        grid.add_row(step, words, *(f"{n:,.1f}" for n in (line.fixed, line.each * 1e6, expected, real)), off)
    out.print(grid)


def show_cluster(out: Console, lines: dict[tuple[str, str], Line], check: Measured, rows: float) -> None:
    """Print what a day of so many rows needs: the formulas of docs/sizing.md with these constants."""
    # What each step reads on an ordinary day: sessions are cut again where late events fall.
    reads: dict[str, float] = {
        "ingest": 1,
        "audit of quarantine and events": 1,
        "sessionize": LATE_DAYS + 1 + NOT_WRITTEN,
        "audit of sessions": LATE_DAYS + 1,
        # What landed. The summaries of the history, which it merges, are not in it: see tests/bench/history.py.
        "interests": 1,
        "audit of interests": 1,
    }
    grid = Grid("step", "days read", "core hours", "TB shuffled", "partitions", "GB of heap a core")
    for step, days in reads.items():
        hours = lines[step, "cores"].each * rows * days / 3600
        shuffled = lines[step, "shuffled"].each * 1e6 * rows * days
        heap = check.costs[step].get("memory", 0) * TASK_BYTES / TASKS_SHARE
        numbers = (f"{hours:,.0f}", f"{shuffled / 1e12:,.2f}", f"{shuffled / TASK_BYTES:,.0f}", f"{heap / 1e9:.1f}")
        grid.add_row(step, f"{days:,}", *numbers)
    out.print(f"a day of {rows:,.0f} rows:")
    out.print(grid)


if __name__ == "__main__":
    main()
