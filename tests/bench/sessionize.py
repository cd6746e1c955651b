"""Measure sessions beside what a user would pick instead: `python -m tests.bench.sessionize --rows 2_000_000`.

Every engine reads the same Parquet files and writes all columns of `sessions` as Parquet, a folder for each date: our
rule on Spark, the same rule as a user would write it in Spark SQL, DuckDB, Polars. Nothing is timed before all have
written the same rows. Then each runs in a process of its own, on the same cores: once cold, and as often as asked warm.
Memory is the most that this process and its children, the JVM among them, held at once; CPU seconds are of all of them,
and say more than seconds where others use the machine.

Events come in visits of five, and 2 % are delivered twice. One user never pauses, so that the rule cuts at midnight.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import duckdb
import polars as pl
import psutil
from rich.console import Console
from rich.table import Table as Grid

GAP = timedelta(minutes=30)
FILES = 8
CODEC = "zstd"
BEHAVIORS = ("view", "view", "view", "view", "search", "cart", "favorite", "purchase")
COUNTS = {"views": "view", "searches": "search", "carts": "cart", "favorites": "favorite", "purchases": "purchase"}
FIELDS = ("event_time", "event_id", "behavior", "item_id", "category_id", "query", "price")

# --- what each engine does: read the files of a folder, write those of another one ----------------------------------


def ours(cores: int) -> Callable[[str, str], None]:
    """The rule of jobs/sessionize.py, in a session as `meander daily` has it."""
    from jobs.sessionize import sessions_of

    spark = spark_of(cores)

    def run(source: str, target: str) -> None:
        rows = sessions_of(spark.read.parquet(source), GAP)
        rows.write.partitionBy("dt").option("compression", CODEC).parquet(target)

    return run


def spark_sql(cores: int) -> Callable[[str, str], None]:
    """The same rule as text."""
    spark = spark_of(cores)
    counts = ", ".join(f"count_if(behavior = '{kind}') as {name}" for name, kind in COUNTS.items())
    query = f"""
    with once as (
        select * from (select *, lag(event_id) over w as before from {{events}} window w as {ORDERED})
        where before is null or before <> event_id),
    gaps as (select *, lag(event_time) over w as previous from once window w as {ORDERED}),
    chains as (select *, coalesce(event_time - previous > interval '{GAP.seconds}' second, true) as opens from gaps),
    begun as (
        select *, last_value(case when opens then event_time end) ignore nulls over w as chain
        from chains window w as {SO_FAR}),
    marked as (
        select *, sum(case when opens or (previous < date_trunc('day', event_time)
            and chain < date_trunc('day', event_time) - interval '1' day) then 1 else 0 end) over w as n
        from begun window w as {SO_FAR})
    select events[0].event_id as session_id, * except (n, revenue), cast(coalesce(revenue, 0) as decimal(28, 4)) as
        revenue, purchases > 0 as converted, to_date(end_time) as dt
    from (
        select user_id, n, min(event_time) as start_time, max(event_time) as end_time, {counts},
            sum(price) filter (where behavior = 'purchase') as revenue,
            array_sort(collect_list(struct({", ".join(FIELDS)}))) as events
        from marked group by user_id, n)
    """

    def run(source: str, target: str) -> None:
        rows = spark.sql(query, events=spark.read.parquet(source))
        rows.write.partitionBy("dt").option("compression", CODEC).parquet(target)

    return run


def by_duckdb(cores: int) -> Callable[[str, str], None]:
    """DuckDB's SQL, which writes the folders by itself."""
    db = duckdb.connect()
    db.execute(f"set timezone = 'UTC'; set threads = {cores}")
    counts = ", ".join(f"count_if(behavior = '{kind}')::bigint as {name}" for name, kind in COUNTS.items())
    struct = ", ".join(f"{name} := {name}" for name in FIELDS)

    def run(source: str, target: str) -> None:
        db.execute(f"""
        copy (
            with once as (
                select * from (
                    select *, lag(event_id) over w as before from read_parquet('{source}/*.parquet')
                    window w as {ORDERED})
                where before is distinct from event_id),
            gaps as (select *, lag(event_time) over w as previous from once window w as {ORDERED}),
            chains as (
                select *, coalesce(event_time - previous > interval {GAP.seconds} second, true) as opens from gaps),
            begun as (
                select *, last_value(case when opens then event_time end ignore nulls) over w as chain
                from chains window w as {SO_FAR}),
            marked as (
                select *, sum((opens or coalesce(previous < date_trunc('day', event_time)
                    and chain < date_trunc('day', event_time) - interval 1 day, false))::int) over w as n
                from begun window w as {SO_FAR})
            select events[1].event_id as session_id, * exclude (n, revenue),
                coalesce(revenue, 0)::decimal(28, 4) as revenue, purchases > 0 as converted, end_time::date as dt
            from (
                select user_id, n, min(event_time) as start_time, max(event_time) as end_time, {counts},
                    sum(price) filter (where behavior = 'purchase') as revenue,
                    list(struct_pack({struct}) order by event_time, event_id) as events
                from marked group by user_id, n)
        ) to '{target}' (format parquet, partition_by (dt), compression {CODEC})""")

    return run


def by_polars(cores: int) -> Callable[[str, str], None]:
    """Polars, lazily: after one sort, neighbours are found by shifting whole columns."""
    same_user = pl.col("user_id").eq_missing(pl.col("user_id").shift(1))
    midnight = pl.col("event_time").dt.truncate("1d")
    crosses = (pl.col("previous") < midnight) & (pl.col("chain") < midnight - timedelta(days=1))
    counts = [(pl.col("behavior") == kind).sum().cast(pl.Int64).alias(name) for name, kind in COUNTS.items()]
    money = pl.Decimal(28, 4)
    revenue = pl.col("price").filter(pl.col("behavior") == "purchase").cast(money).sum().cast(money)

    def run(source: str, target: str) -> None:
        (
            pl.scan_parquet(f"{source}/*.parquet")
            .sort("user_id", "event_time", "event_id")
            .filter((same_user & pl.col("event_id").eq_missing(pl.col("event_id").shift(1))).not_())
            .with_columns(pl.when(same_user).then(pl.col("event_time").shift(1)).alias("previous"))
            .with_columns((pl.col("event_time") - pl.col("previous") > GAP).fill_null(True).alias("opens"))
            .with_columns(pl.when("opens").then("event_time").forward_fill().alias("chain"))
            .with_columns((pl.col("opens") | crosses.fill_null(False)).cum_sum().alias("n"))
            .group_by("n")
            .agg(
                pl.col("event_id").first().alias("session_id"),
                pl.col("user_id").first(),
                pl.col("event_time").first().alias("start_time"),
                pl.col("event_time").last().alias("end_time"),
                *counts,
                revenue.fill_null(0).alias("revenue"),
                pl.struct(FIELDS).alias("events"),
            )
            .drop("n")
            .with_columns((pl.col("purchases") > 0).alias("converted"), pl.col("end_time").dt.date().alias("dt"))
            .sink_parquet(pl.PartitionBy(target, key="dt", include_key=False), compression=CODEC, mkdir=True)
        )

    return run


ORDERED = "(partition by user_id order by event_time, event_id)"
SO_FAR = "(partition by user_id order by event_time, event_id rows between unbounded preceding and current row)"
# Takes a number of cores, and returns what reads the files of one folder and writes those of another one.
Engine = Callable[[int], Callable[[str, str], None]]
ENGINES: dict[str, Engine] = {"Meander": ours, "Spark SQL": spark_sql, "DuckDB": by_duckdb, "Polars": by_polars}


def spark_of(cores: int):
    """Return a session of that many cores, whose partitions fit them."""
    os.environ |= {"MEANDER_SPARK_MASTER": f"local[{cores}]"}
    from lake.session import spark_session
    from lake.settings import settings

    return spark_session("bench", settings())


# --- the log, and what was made of it ---------------------------------------------------------------------------------


def write_log(folder: Path, rows: int, whale: float, users: int) -> None:
    """Write events of a month as Parquet files."""
    folder.mkdir()
    names = ", ".join(f"'{name}'" for name in BEHAVIORS)
    with duckdb.connect() as db:
        db.execute("set timezone = 'UTC'; set threads = 2")
        for number in range(FILES):
            first, last = number * rows // FILES, (number + 1) * rows // FILES
            db.execute(f"""
            copy (
                with drawn as (
                    select i, hash(i // 5, 1) as visit, hash(i, 2) as r from range({first}, {last}) t(i)),
                events as (
                    select md5(i::varchar) as event_id,
                        case when visit % 1000 < {whale * 1000} then 'whale'
                            else 'u' || ((visit >> 16) % {users})::varchar end as user_id,
                        timestamptz '2025-01-01' + to_microseconds(((visit >> 20) % (30 * 86400)::ubigint)::bigint
                            * 1000000 + (i % 5) * 60000000 + (r % 1000000)::bigint) as event_time,
                        [{names}][(r % {len(BEHAVIORS)} + 1)::int] as behavior,
                        ((r >> 8) % 5000)::varchar as item, ((r >> 8) % 50)::varchar as category,
                        ((r >> 24) % 10000)::int as cents, r % 50 = 0 as twice
                    from drawn)
                select event_id, user_id, event_time, behavior,
                    case when behavior <> 'search' then item end as item_id, category as category_id,
                    case when behavior = 'search' then 'words of ' || item end as query,
                    (cents / 100.0)::decimal(18, 4) as price
                from (select * from events union all select * from events where twice)
            ) to '{folder}/part-{number}.parquet' (format parquet, compression {CODEC})""")


def digest(folder: Path) -> tuple[int, ...]:
    """Return the number of sessions and of their events, and two sums over all columns of all rows."""
    parts = ", ".join(
        f"epoch_us(e.{name})" if name == "event_time" else f"e.{name}" + ("::decimal(18, 4)" if name == "price" else "")
        for name in FIELDS
    )
    columns = ", ".join(
        [
            *("session_id", "user_id", "epoch_us(start_time)", "epoch_us(end_time)", *(f"{n}::bigint" for n in COUNTS)),
            *("revenue::decimal(28, 4)", "converted", "dt::date", f"list_transform(events, lambda e: row({parts}))"),
        ]
    )
    with duckdb.connect() as db:
        db.execute("set timezone = 'UTC'; set threads = 2")
        found = db.execute(
            "select count(*), sum(len(events)), bit_xor(h), sum(h % 1000003) from (select events, "
            f"hash({columns}) as h from read_parquet('{folder}/**/*.parquet', hive_partitioning = true))"
        ).fetchone()
    assert found, "an aggregate has a row"
    return tuple(map(int, found))


# --- running, and what it took ----------------------------------------------------------------------------------------


@dataclass
class Cost:
    """What an engine took: seconds and CPU seconds of each run, the first one cold, and its peak memory in bytes."""

    seconds: list[float]
    cpus: list[float]
    peak: int

    @property
    def cpu(self) -> float:
        """CPU seconds of all runs."""
        return sum(self.cpus)


def spent() -> float:
    """Return the CPU seconds of this process and of all below it, such as a JVM, which nobody waits for at the end."""
    me, total = psutil.Process(), 0.0
    for one in (me, *children(me)):
        try:
            total += sum(one.cpu_times()[:4])
        except psutil.NoSuchProcess:
            continue
    return total


def serve(
    engine: Callable[[int], Callable[[str, str], None]], source: str, target: str, cores: int, times: int
) -> None:
    """Be the process of an engine: print what each run took as JSON, the first one from the start on."""
    took = []
    began, before = time.perf_counter(), spent()
    run = engine(cores)
    for number in range(times):
        shutil.rmtree(target, ignore_errors=True)
        if number:
            began, before = time.perf_counter(), spent()
        run(source, target)
        took.append((time.perf_counter() - began, spent() - before))
    print(json.dumps(took))  # noqa: T201


def measure(
    name: str, source: Path, target: Path, cores: int, times: int, module: str = "tests.bench.sessionize"
) -> Cost:
    """Run an engine of a module in a process of its own, on the first cores of this machine."""
    arguments = [name, str(source), str(target), str(cores), str(times)]
    process = subprocess.Popen(
        [sys.executable, "-m", module, "--serve", *arguments],
        env={**os.environ, "POLARS_MAX_THREADS": str(cores)}, stdout=subprocess.PIPE, text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores]),
    )  # fmt: skip
    watched, peak = psutil.Process(process.pid), 0
    while process.poll() is None:
        time.sleep(0.1)
        total = 0
        for one in (watched, *children(watched)):
            try:
                total += one.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        peak = max(peak, total)
    assert process.stdout, "it is a pipe"
    said = process.stdout.read()
    if process.returncode:
        raise RuntimeError(f"{name} ended with {process.returncode}")
    took = json.loads(said.splitlines()[-1])
    return Cost([seconds for seconds, _ in took], [cpu for _, cpu in took], peak)


def children(process: psutil.Process) -> list[psutil.Process]:
    """Return what descends from a process; nothing if it has ended."""
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def main() -> None:
    """Write the log, compare what the engines make of it, then time them by turns and print a table."""
    if sys.argv[1:2] == ["--serve"]:
        name, source, target, cores, times = sys.argv[2:]
        serve(ENGINES[name], source, target, int(cores), int(times))
        return
    parser = argparse.ArgumentParser(prog="tests.bench.sessionize", description=__doc__)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--users", type=int, help="default: one for 100 rows")
    parser.add_argument("--whale", type=float, default=0.02, help="share of all events of one user, who never pauses")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--times", type=int, default=3, help="warm runs of each")
    parser.add_argument("--engines", nargs="*", choices=ENGINES, default=list(ENGINES))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="meander-bench-") as folder:
        source = Path(folder, "events")
        write_log(source, args.rows, args.whale, args.users or max(args.rows // 100, 1))
        digests = {}
        for name in args.engines:
            target = Path(folder, name)
            measure(name, source, target, args.cores, 1)
            digests[name] = digest(target)
        assert len(set(digests.values())) == 1, f"they do not write the same rows: {digests}"
        sessions, events, *_ = next(iter(digests.values()))
        delivered = duckdb.sql(f"select count(*) from '{source}/*.parquet'").fetchall()[0][0]
        costs = {}
        for name in args.engines:
            costs[name] = measure(name, source, Path(folder, name), args.cores, 1 + args.times)
            assert digest(Path(folder, name)) == digests[name]
    title = f"{delivered:,} rows of {events:,} events in {sessions:,} sessions; {args.cores} cores"
    grid = Grid("", "cold, s", "warm, s", "cold, CPU s", "warm, CPU s", "CPU beside the least", "peak MB", title=title)
    best = min(min(cost.cpus[1:]) for cost in costs.values())
    for name, cost in costs.items():
        spreads = [f"{min(warm):.1f} to {max(warm):.1f}" for warm in (cost.seconds[1:], cost.cpus[1:])]
        cold = f"{cost.seconds[0]:.1f}", f"{cost.cpus[0]:.1f}"
        beside = f"{min(cost.cpus[1:]) / best:.2f}"
        grid.add_row(name, cold[0], spreads[0], cold[1], spreads[1], beside, f"{cost.peak / 1e6:,.0f}")
    Console(width=110).print(grid)


if __name__ == "__main__":
    main()
