"""Measure what an event costs, and check that a larger log costs what the measured constants say.

    python -m tests.bench.sizing [--small 500_000] [--large 1_500_000] [--check 4_000_000]

Runs one day through the daily steps, each a Spark application of its own, for logs of three sizes. Two give the
constants of docs/sizing.md, by a straight line through them: a fixed part, and a part for each event. The third one is
predicted from these, and then measured. The numbers come from Spark's own event log: CPU time of all tasks, bytes
shuffled, spilled and written. The simulated log has the shape of a shop's; see `python -m jobs.simulate --help`.
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
from datetime import date
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table as Grid

DAY = date(2025, 1, 1)
STEPS = {
    "ingest": ("jobs.ingest", ("quarantine", "events")),
    "sessionize": ("jobs.sessionize", ("sessions",)),
    "interests": ("jobs.interests", ("interests",)),
}
# What is measured of an application: the words for it, and how many of Spark's units make one of ours.
MEASURES = {
    "seconds": ("seconds", 1.0),
    "cpu": ("CPU seconds of tasks", 1e9),
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
    """Return the sums over all tasks, in the smallest unit."""
    found: dict[str, float] = defaultdict(float)
    for task in tasks(log):
        found["cpu"] += task.get("Executor CPU Time", 0)
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


def one_day(events: int, folder: Path) -> tuple[int, int, dict[str, dict[str, float]]]:
    """Simulate a day of about so many events, run it through all steps; return rows, bytes landed, and costs."""
    environment = {
        "MEANDER_LAKE": str(folder / "lake"),
        "MEANDER_LANDING": str(folder / "landing"),
        "MEANDER_SOURCE": "canonical",
    }
    simulated = ["--events", str(events), "--days", "1", "--from", str(DAY)]
    run("simulate", "jobs.simulate", *simulated, environment=environment)
    size = sum(file.stat().st_size for file in (folder / "landing").rglob("*") if file.is_file())
    costs = {}
    for step, (module, tables) in STEPS.items():
        named = ["--run-id", "sizing"]
        costs[step] = run(step, module, "--day", str(DAY), *named, environment=environment)
        chosen = [part for table in tables for part in ("--table", table)]
        costs[f"audit of {' and '.join(tables)}"] = run(
            "audit", "expectations.audit", *chosen, *named, environment=environment
        )
        for table in tables:
            run("publish", "lake.publish", "--table", table, *named, environment=environment)
    manifest = json.loads(next((folder / "lake" / "_runs").rglob("events.json")).read_text())
    return int(manifest["counts"]["by_day"][str(DAY)]["input"]), size, costs


def main() -> None:
    """Measure two sizes, predict a third, measure it, and print the constants and how well they held."""
    parser = argparse.ArgumentParser(
        prog="tests.bench.sizing", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in (("small", 500_000), ("large", 1_500_000), ("check", 4_000_000)):
        number = {"type": lambda text: int(text.replace("_", "")), "default": default}
        parser.add_argument(f"--{name}", metavar="EVENTS", **number)
    args = parser.parse_args()
    measured = {}
    for name in ("small", "large", "check"):
        with tempfile.TemporaryDirectory(prefix="meander-sizing-") as folder:
            measured[name] = one_day(getattr(args, name), Path(folder))
    (small, _, low), (large, bytes_large, high), (check, _, found) = measured.values()
    out = Console(width=130)
    out.print(f"landing: {bytes_large / large:.0f} bytes a row; sizes {small:,}, {large:,} and {check:,} rows")
    grid = Grid("step", "measure", "fixed", "a million rows", f"predicted for {check:,}", "measured", "off by")
    for step in low:
        for measure, (words, scale) in MEASURES.items():
            line = Line.through((small, low[step].get(measure, 0) / scale), (large, high[step].get(measure, 0) / scale))
            expected, real = line.at(check), found[step].get(measure, 0) / scale
            if max(expected, real) < 0.05:
                continue
            off = f"{(expected / real - 1) * 100:+.0f} %" if real else "-"
            numbers = (line.fixed, line.each * 1e6, expected, real)
            grid.add_row(step, words, *(f"{n:,.1f}" for n in numbers), off)
    out.print(grid)


if __name__ == "__main__":
    main()
