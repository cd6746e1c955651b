"""Measure the daily pipeline on a simulated log: `make bench`, or `python -m tests.bench.daily --events 5_000_000`.

Prints seconds, CPU seconds and events per second of each step, what audits take beside the staging of the same rows,
the peak memory of Python and the JVM together, whether rows are conserved, whether the sessions of a sample of users
are those of the naive oracle, and, in the same run, how long DuckDB takes to cut the same events into sessions.
"""

import argparse
import logging
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from importlib import import_module
from pathlib import Path
from unittest import mock

import duckdb
import psutil
from rich.console import Console
from rich.table import Table as Grid

from expectations import audit
from jobs import sessionize, simulate
from lake.days import days_between
from lake.publish import publish
from lake.runs import OUTCOMES, summarize
from lake.table import Table
from lake.tables import GROUPS, groups_of, made_by
from tests.bench.sessionize import spent
from tests.session_oracle import sessions as oracle

FIRST = date(2025, 1, 1)
EPOCH = datetime(1970, 1, 1)  # naive UTC, as the oracle wants it


class PeakMemory(threading.Thread):
    """Watch the resident memory of this process and its children, the JVM among them."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak = 0
        self.done = threading.Event()

    def run(self) -> None:
        me = psutil.Process()
        while not self.done.wait(0.25):
            total = 0
            for process in (me, *me.children(recursive=True)):
                try:
                    total += process.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            self.peak = max(self.peak, total)


@dataclass
class Cost:
    """What a step took: seconds, and CPU seconds of this process and the JVM."""

    seconds: float = 0.0
    cpu: float = 0.0


@contextmanager
def timed(costs: dict[str, Cost], name: str) -> Iterator[None]:
    """Add what the block takes to `costs[name]`."""
    began, before = time.perf_counter(), spent()
    yield
    costs[name].seconds += time.perf_counter() - began
    costs[name].cpu += spent() - before


def audit_of(tables: Sequence[str]) -> str:
    """Return what the audit of some tables is called here."""
    return f"audit of {' and '.join(tables)}"


def audits_beside_stagings(costs: dict[str, Cost]) -> Grid:
    """Return what audits take beside the staging of the same rows, by CPU seconds; the goal is 0.15."""
    grid = Grid("CPU seconds", "staging", "audit", "audit / staging")
    pairs = {
        group: (costs[made_by(group).split(".")[-1]].cpu, costs[audit_of(GROUPS[group])].cpu)
        for group in groups_of("behavior_daily")
    }
    pairs["all"] = (sum(staging for staging, _ in pairs.values()), sum(audited for _, audited in pairs.values()))
    for name, (staging, audited) in pairs.items():
        grid.add_row(name, f"{staging:.1f}", f"{audited:.1f}", f"{audited / staging:.2f}")
    return grid


def files_of(name: str) -> list[str]:
    """Return the paths of a table's live files."""
    table = Table(name)
    return [f"{table.path}/{file.path}" for file in table.files]


def duckdb_sessions(gap_minutes: int) -> int:
    """Cut all published events by the same rule in DuckDB, events included, and return how many sessions there are."""
    query = f"""
    with once as (
        select distinct on (event_id) user_id, event_time, event_id, behavior, item_id, category_id, price
        from read_parquet({files_of("events")}, hive_partitioning = false)),
    gaps as (
        select *, lag(event_time) over w as previous from once
        window w as (partition by user_id order by event_time, event_id)),
    chains as (
        select *, coalesce(event_time - previous > interval {gap_minutes} minute, true) as opens from gaps),
    begun as (
        select *, last_value(case when opens then event_time end ignore nulls) over
            (partition by user_id order by event_time, event_id rows unbounded preceding) as chain from chains),
    marked as (
        select *, opens or (previous < date_trunc('day', event_time)
            and chain < date_trunc('day', event_time) - interval 1 day) as starts from begun),
    numbered as (
        select *, sum(starts::int) over
            (partition by user_id order by event_time, event_id rows unbounded preceding) as n from marked)
    select count(*) from (
        select user_id, n, min(event_time), max(event_time),
            list((event_time, event_id, behavior, item_id, category_id, price) order by event_time, event_id)
        from numbered group by user_id, n)
    """
    with duckdb.connect() as db:
        db.execute("set timezone = 'UTC'; set threads = 2")
        return int(db.execute(query).fetchall()[0][0])


def sample_agrees(share: int, gap_minutes: int) -> tuple[int, int]:
    """Compare the sessions of one in `share` users with the oracle's; return users and sessions compared.

    Raises:
        AssertionError: they differ.
    """
    with duckdb.connect() as db:
        db.execute("set timezone = 'UTC'")
        chosen = f"hash(user_id) % {share} = 0"
        log = db.execute(
            "select distinct user_id, epoch_us(event_time), event_id "
            f"from read_parquet({files_of('events')}, hive_partitioning = false) where {chosen}"
        ).fetchall()
        found = db.execute(
            "select user_id, list_transform(events, lambda e: e.event_id) "
            f"from read_parquet({files_of('sessions')}, hive_partitioning = false) where {chosen}"
        ).fetchall()
    wanted = oracle(((u, EPOCH + timedelta(microseconds=t), e) for u, t, e in log), timedelta(minutes=gap_minutes))
    assert sorted((user, tuple(ids)) for user, ids in found) == sorted(wanted)
    return len({user for user, _ in wanted}), len(wanted)


def main() -> None:
    """Run everything and print two tables."""
    parser = argparse.ArgumentParser(prog="tests.bench.daily", description=__doc__)
    parser.add_argument("--events", type=lambda text: int(text.replace("_", "")), default=5_000_000)
    parser.add_argument("--days", type=int, default=10)
    parser.add_argument(
        "--chunk-days", type=int, default=1, help="as of `meander daily`: days in one Spark job a table"
    )
    args = parser.parse_args()
    out = Console(width=110)
    logging.disable(logging.INFO)
    last = FIRST + timedelta(days=args.days - 1)
    costs: dict[str, Cost] = defaultdict(Cost)
    memory = PeakMemory()
    with tempfile.TemporaryDirectory(prefix="meander-bench-") as folder:
        variables = {
            "MEANDER_LAKE": f"{folder}/lake",
            "MEANDER_LANDING": f"{folder}/landing",
            "MEANDER_SOURCE": "canonical",
            # No late event is left to a backfill: the sessions are compared with those of the whole log.
            "MEANDER_LATE_DAYS": str(args.days),
        }
        with mock.patch.dict("os.environ", variables):
            with timed(costs, "simulate"):
                simulate.main(["--events", str(args.events), "--days", str(args.days), "--from", str(FIRST)])
            size = sum(file.stat().st_size for file in Path(folder, "landing").rglob("*") if file.is_file())
            memory.start()
            days = days_between(FIRST, last)
            for chunk in (days[i : i + args.chunk_days] for i in range(0, len(days), args.chunk_days)):
                run_id = f"bench-{chunk[0]}"
                for group in groups_of("behavior_daily"):
                    module, tables = made_by(group), GROUPS[group]
                    with timed(costs, module.split(".")[-1]):
                        import_module(module).main(
                            ["--from", str(chunk[0]), "--to", str(chunk[-1]), "--run-id", run_id]
                        )
                    with timed(costs, audit_of(tables)):
                        audit.main([*(a for t in tables for a in ("--table", t)), "--run-id", run_id])
                    for table in tables:
                        with timed(costs, "publish"):
                            publish(table, run_id)
            memory.done.set()
            runs = summarize()
            staged = Table("sessions").rows_by("dt")
            with timed(costs, "DuckDB sessions"):
                by_duckdb = duckdb_sessions(gap_minutes=30)
            with timed(costs, "sessionize the range"):
                sessionize.main(["--from", str(FIRST), "--to", str(last), "--run-id", "bench-range"])
            users, compared = sample_agrees(share=20, gap_minutes=30)

    rows = sum(run.counts["input"] or 0 for run in runs)
    kept = sum(run.counts[what] or 0 for run in runs for what in OUTCOMES if what != "input")
    grid = Grid("step", "seconds", "CPU seconds", "input rows a second")
    for name, cost in costs.items():
        grid.add_row(name, f"{cost.seconds:,.1f}", f"{cost.cpu:,.1f}", f"{rows / cost.seconds:,.0f}")
    out.print(grid)
    out.print(audits_beside_stagings(costs))
    out.print(f"landing: {rows:,} rows in {args.days} days, {size / 2**20:,.0f} MiB")
    out.print(f"rows in = events + duplicates + ignored + quarantined + forgotten: {rows:,} = {kept:,}: {rows == kept}")
    out.print(f"sessions: {sum(staged.values()):,} by the daily runs, {by_duckdb:,} by DuckDB over everything")
    out.print(f"oracle: {compared:,} sessions of {users:,} users are the same")
    out.print(f"peak memory of Python and the JVM: {memory.peak / 2**30:.1f} GiB")
    ratio = costs["sessionize the range"].seconds / costs["DuckDB sessions"].seconds
    out.print(
        f"one sessionize job over the range, staged, takes {ratio:.1f} times what DuckDB takes to cut the same sessions"
    )


if __name__ == "__main__":
    main()
