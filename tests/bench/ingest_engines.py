"""Measure ingest beside DuckDB doing the same: `python -m tests.bench.ingest_engines --rows 2_000_000`.

Both read the same JSON lines, CSV or Parquet files of two landing days, clean each value, give each row that cannot be
an event the first reason that applies, fold equal rows of a day into one event, hash its id, and write all columns of
`events` and `quarantine` as Parquet, by landing day and date. Ours is `jobs.ingest`, as `meander daily` runs it, with
its counts and manifests; of DuckDB the rules are written for this log alone. Nothing is timed before both have written
the same events and rejected the same rows of each file for the same reasons. Then each runs in a process of its own, on
the same cores: once cold, and as often as asked warm. Memory is the most that the process and its children held.

Of the rows, 2 % are delivered twice, 1 % are broken, 3 % are of the day before, and `--whale` are of one user.
"""

import argparse
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import duckdb
import yaml
from rich.console import Console
from rich.table import Table as Grid

from tests.bench.sessionize import CODEC, Cost, measure, serve

FILES = 4
DAYS = ("2025-01-01", "2025-01-02")
NAMES = ("user_id", "event_time", "behavior", "item_id", "category_id", "query", "price")
BEHAVIORS = ("view", "search", "cart", "favorite", "purchase")
LABELS = {"json": "JSON lines", "csv": "CSV", "parquet": "Parquet"}
# The same source for each format; files that end in .parquet are read as Parquet.
SOURCE = {
    "name": "bench",
    "description": "a made-up log",
    **{name: name for name in NAMES if name not in ("event_time", "behavior")},
    "time": {"column": "event_time", "format": "iso8601"},
    "behavior": {"column": "behavior", "values": {name: name for name in BEHAVIORS}},
}

# --- what each engine does: read the files of a landing, write into a folder ------------------------------------------


def ours(cores: int) -> Callable[[str, str], None]:
    """Run the job itself, in a session as `meander daily` has it."""
    os.environ |= {"MEANDER_SPARK_MASTER": f"local[{cores}]", "MEANDER_LANDING_QUIET_MINUTES": "0"}
    from jobs import ingest

    def run(source: str, target: str) -> None:
        os.environ |= {
            "MEANDER_LANDING": source,
            "MEANDER_LAKE": target,
            "MEANDER_SOURCE": str(Path(source, "source.yaml")),
        }
        ingest.main(["--from", DAYS[0], "--to", DAYS[-1], "--run-id", "bench"])

    return run


def by_duckdb(cores: int) -> Callable[[str, str], None]:
    """DuckDB's SQL. A table in memory has the judged rows, from which events and quarantine are written."""
    from jobs.rejections import NO_ID
    from jobs.source import NULLS

    db = duckdb.connect()
    db.execute(f"set timezone = 'UTC'; set threads = {cores}")
    words = ", ".join("'" + word.lower().replace("'", "''") + "'" for word in ("", *NULLS))
    db.execute(f"create macro clean(x) as case when lower(trim(x)) not in ({words}) then trim(x) end")
    db.execute("create macro framed(x) as coalesce(length(x) || ':' || x, '-')")
    no_id = NO_ID.replace("'", "''")
    unusable = r"[\p{Cc}\p{Zl}\p{Zp}\x{FEFF}\x{FFFD}\x{202A}-\x{202E}\x{2066}-\x{2069}]"
    named = ", ".join(f"'{name}': 'varchar'" for name in NAMES)
    ids = "concat_ws(' ', user_id, item_id, category_id)"
    identity = ", ".join(
        f"framed({'epoch_us(event_time)' if name == 'event_time' else name}::varchar)"
        for name in ("user_id", "event_time", "behavior", "item_id", "category_id", "query", "price")
    )

    def run(source: str, target: str) -> None:
        kind = Path(source).name
        reader = {
            "json": f"read_json('{source}/dt=*/*.json', format = 'newline_delimited', columns = {{{named}}}, ",
            "csv": f"read_csv('{source}/dt=*/*.csv', all_varchar = true, header = true, ",
            "parquet": f"read_parquet('{source}/dt=*/*.parquet', ",
        }[kind] + "hive_partitioning = false, filename = true)"
        db.execute(f"""
        create or replace temp table judged as
        with texts as (
            select filename as file, regexp_extract(filename, 'dt=([0-9-]+)', 1)::date as landed,
                to_json(delivered) as raw,
                clean(user_id) as user_id, clean(item_id) as item_id, clean(category_id) as category_id,
                clean(query) as query, clean(behavior) as behavior, clean(event_time::varchar) as time_text,
                clean(price::varchar) as price_text
            from {reader} as delivered),
        typed as (
            select *, case when regexp_matches(time_text, '^\\d{{4}}-\\d{{2}}-\\d{{2}}[T ]\\d{{2}}:\\d{{2}}')
                    then try_cast(time_text as timestamptz) end as event_time,
                try_cast(price_text as decimal(18, 4)) as price
            from texts)
        select *, case
                when greatest(length(user_id), length(item_id), length(category_id), length(query)) > 1024
                    then 'field_too_long'
                when regexp_matches({ids}, '{unusable}') or regexp_matches(query, '{unusable}')
                    or greatest(strlen(user_id), strlen(item_id), strlen(category_id)) > 2048 then 'unusable_text'
                when regexp_matches(user_id, '{no_id}') or regexp_matches(item_id, '{no_id}')
                    or regexp_matches(category_id, '{no_id}') then 'not_an_id'
                when time_text is null then 'missing_time'
                when event_time is null then 'unparsable_time'
                when event_time < timestamptz '2000-01-01' then 'time_before_floor'
                when event_time >= landed + interval 1 day then 'time_after_landing'
                when user_id is null then 'missing_user'
                when behavior is null or behavior not in {BEHAVIORS} then 'unknown_behavior'
                when behavior <> 'search' and item_id is null then 'missing_item'
                when price_text is not null and price is null then 'invalid_price'
                when price < 0 then 'negative_price'
            end as reason
        from typed""")
        Path(target).mkdir(parents=True)
        db.execute(f"""
        copy (
            with folded as (
                select landed, user_id, event_time, behavior, item_id, category_id, query, price,
                    count(*)::int as copies
                from judged where reason is null group by all)
            select substring(sha256(concat_ws(',', 'bench', {identity})), 1, 32) as event_id, user_id, event_time,
                behavior, item_id, category_id, query, price, 'bench' as source, copies, event_time::date as dt, landed
            from folded
        ) to '{target}/events' (format parquet, partition_by (landed, dt), compression {CODEC})""")
        db.execute(f"""
        copy (
            select reason, raw[:4096] as raw, file, null::bigint as line, 'bench' as source, landed as dt
            from judged where reason is not null
        ) to '{target}/quarantine' (format parquet, partition_by (dt), compression {CODEC})""")

    return run


ENGINES = {"Meander": ours, "DuckDB": by_duckdb}

# --- the log, and what was made of it ---------------------------------------------------------------------------------


def write_log(folder: Path, rows: int, whale: float) -> None:
    """Write the same rows in each format below a folder: `json/dt=D/0.json` and so on."""
    names, behaviors = ", ".join(NAMES), ", ".join(f"'{name}'" for name in BEHAVIORS)
    with duckdb.connect() as db:
        db.execute("set timezone = 'UTC'; set threads = 2")
        for n, day in enumerate(DAYS):
            for number in range(FILES):
                part = n * FILES + number
                first, last = part * rows // (FILES * len(DAYS)), (part + 1) * rows // (FILES * len(DAYS))
                db.execute(f"""
                create or replace temp table rows as
                with drawn as (select i, hash(i, 1) as h, hash(i, 2) as r from range({first}, {last}) t(i)),
                made as (
                    select case when h % 1000 < {whale * 1000} then 'whale'
                            else 'u' || ((h >> 16) % {rows // 50})::varchar end as user_id,
                        timestamptz '{day}' - case when r % 100 < 3 then interval 1 day else interval 0 day end
                            + to_microseconds(((h >> 20) % 86400::ubigint)::bigint * 1000000) as event_time,
                        [{behaviors}][[1, 1, 1, 1, 1, 1, 2, 3, 4, 5][((r >> 8) % 10 + 1)::int]] as behavior,
                        'i' || ((r >> 16) % 50000)::varchar as item, 'c' || ((r >> 16) % 500)::varchar as category,
                        (((r >> 24) % 100000)::int / 100)::decimal(18, 2) as price, r % 50 = 7 as twice,
                        (r >> 32) % 600 as broken
                    from drawn)
                select case when broken = 1 then null else user_id end as user_id,
                    case when broken = 2 then null when broken = 3 then event_time + interval 9 day else event_time end
                        as event_time,
                    case when broken = 4 then 'hover' else behavior end as behavior,
                    case when behavior <> 'search' and broken <> 5 then item end as item_id,
                    case when behavior <> 'search' then category end as category_id,
                    case when behavior = 'search' then 'words of ' || item end as query,
                    case when behavior = 'search' then null when broken = 6 then -price - 1 else price end as price,
                    twice
                from made;
                insert into rows select * from rows where twice""")
                texts = "* exclude (twice) replace (strftime(event_time, '%Y-%m-%dT%H:%M:%SZ') as event_time)"
                for kind, selected, options in (
                    ("json", texts, "format json"),
                    ("csv", texts, "format csv, header"),
                    ("parquet", names, f"format parquet, compression {CODEC}"),
                ):
                    target = folder / kind / f"dt={day}"
                    target.mkdir(parents=True, exist_ok=True)
                    db.execute(f"copy (select {selected} from rows) to '{target}/{number}.{kind}' ({options})")
    for kind in LABELS:
        source = {**SOURCE, "format": {"json": "jsonl"}.get(kind, kind)}
        (folder / kind / "source.yaml").write_text(yaml.safe_dump(source))


def made(folder: Path) -> tuple[object, ...]:
    """Return the number of events and two sums over all their columns, and the rejected rows by file and reason."""
    parts = (
        "event_id, user_id, epoch_us(event_time), behavior, item_id, category_id, query, price::decimal(18, 4), "
        "source, copies::int, dt::date, landed::date"
    )
    with duckdb.connect() as db:
        db.execute("set timezone = 'UTC'; set threads = 2")
        events = db.execute(
            f"select count(*), sum(copies), bit_xor(h), sum(h % 1000003) from (select copies, hash({parts}) as h from "
            f"read_parquet('{folder}/events/**/*.parquet', hive_partitioning = true))"
        ).fetchone()
        rejected = db.execute(
            "select dt::date, regexp_extract(file, 'dt=.*'), reason, count(*) from "
            f"read_parquet('{folder}/quarantine/**/*.parquet', hive_partitioning = true) group by all order by all"
        ).fetchall()
    assert events, "an aggregate has a row"
    return (*map(int, events), *rejected)


def main() -> None:
    """Write the log, compare what both make of it, then time them by turns and print a table."""
    parser = argparse.ArgumentParser(prog="tests.bench.ingest_engines", description=__doc__)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--whale", type=float, default=0.0, help="share of all events of one user")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--times", type=int, default=3, help="warm runs of each")
    parser.add_argument("--formats", nargs="*", choices=LABELS, default=list(LABELS))
    parser.add_argument("--serve", nargs=5, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        name, source, target, cores, times = args.serve
        serve(ENGINES[name], source, target, int(cores), int(times))
        return
    with tempfile.TemporaryDirectory(prefix="meander-bench-") as temporary:
        folder = Path(temporary)
        write_log(folder, args.rows, args.whale)
        grid = Grid("", "", "cold, s", "warm, s", "warm, beside DuckDB", "CPU s of all", "peak MB")
        for kind in args.formats:
            found: dict[str, tuple[object, ...]] = {}
            costs: dict[str, Cost] = {}
            for times in (1, 1 + args.times):
                for name in ENGINES:
                    target = folder / name
                    costs[name] = measure(name, folder / kind, target, args.cores, times, "tests.bench.ingest_engines")
                    written = made(target)
                    if found.setdefault(name, written) != written:
                        raise SystemExit(f"{name} wrote other rows of {kind} this time")
                    shutil.rmtree(target)
                if found["Meander"] != found["DuckDB"]:
                    raise SystemExit(f"they do not make the same of {kind}: {found}")
            best = min(costs["DuckDB"].seconds[1:])
            for name, cost in costs.items():
                warm = cost.seconds[1:]
                grid.add_row(
                    *(LABELS[kind], name, f"{cost.seconds[0]:.1f}", f"{min(warm):.1f} to {max(warm):.1f}"),
                    *(f"{min(warm) / best:.1f}", f"{cost.cpu:.1f}", f"{cost.peak / 1e6:,.0f}"),
                )
            events, copies, *_ = found["Meander"]
            grid.title = f"{args.rows:,} rows and those twice: {events:,} events of {copies:,} rows; {args.cores} cores"
    Console(width=110).print(grid)


if __name__ == "__main__":
    main()
