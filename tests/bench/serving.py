"""Measure the serving store: `python -m tests.bench.serving --users 500_000`. Starts a PostgreSQL server of its own.

Prints users per second of a whole load (copy, index, checks) and of its COPY alone with one and more connections,
beside COPY of Python rows from one process and beside `executemany`, as a JDBC writer does it; then the time of a
switch with its comparison, and how long lookups of single users take, through the view, on one connection.
"""

import argparse
import logging
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from unittest import mock

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
from psycopg import sql
from pyspark.sql.pandas.types import to_arrow_schema
from rich.console import Console
from rich.table import Table as Grid

from lake import storage
from lake.labels import PROBABILITIES
from lake.places import table_path
from lake.publish import commit, ensure_table
from lake.schemas import PREDICTIONS
from lake.serving.load import ROWS_AT_ONCE, WORKERS
from lake.serving.postgres import connect, copy_rows
from lake.settings import settings
from lake.staging import Staged, StagedFile, Verdict
from lake.table import Table
from tests.lake.served import load, opened, rollback, switch
from tests.postgres import Server

DAYS = (date(2025, 1, 1), date(2025, 1, 2))
CATEGORIES, ITEMS = 10, 20
FILE_ROWS = 100_000
LOOKUPS = 5_000


def predictions(users: int, seed: int) -> Iterator[pa.RecordBatch]:
    """Yield rows with lists as long as model.score makes them."""
    random_numbers = np.random.default_rng(seed)
    schema = to_arrow_schema(PREDICTIONS)
    inside = pa.schema([field for field in schema if field.name != "dt"])

    def lists(rows: int, length: int, prefix: str) -> tuple[pa.Array, pa.Array]:
        offsets = np.arange(0, rows * length + 1, length, dtype=np.int32)
        ids = pa.array([f"{prefix}{n}" for n in random_numbers.integers(0, 50_000, rows * length)])
        falling = -np.sort(-random_numbers.dirichlet(np.ones(length), rows), axis=1)
        return pa.ListArray.from_arrays(offsets, ids), pa.ListArray.from_arrays(offsets, pa.array(falling.ravel()))

    for at in range(0, users, FILE_ROWS):
        rows = min(FILE_ROWS, users - at)
        categories, category_p = lists(rows, CATEGORIES, "category ")
        items, item_p = lists(rows, ITEMS, "item ")
        scores = {score: random_numbers.random(rows) for score in PROBABILITIES}
        columns = {
            "user_id": [f"user-{n:09}" for n in range(at, at + rows)],
            "model_version": np.full(rows, 1, np.int32),
            "category_ids": categories,
            "category_probabilities": category_p,
            "current_category": [f"category {n}" for n in random_numbers.integers(0, 50_000, rows)],
            **scores,
            "item_ids": items,
            "item_probabilities": item_p,
            "surprise": random_numbers.random(rows),
            "risk_percentile": random_numbers.random(rows) * 100,
            "segment": random_numbers.choice(["new", "at_risk", "migrating", "stable"], rows),
            "unseen_events": np.zeros(rows, np.int64),
        }
        arrays = [pa.array(columns[field.name]).cast(field.type) for field in inside]
        yield pa.RecordBatch.from_arrays(arrays, schema=inside)


def publish_day(day: date, users: int) -> None:
    """Publish predictions of a day, in files as Spark writes them."""
    ensure_table("predictions")
    files = []
    for number, batch in enumerate(predictions(users, seed=day.day)):
        path = f"stage=bench-{day}/dt={day}/part-{number}.parquet"
        place = Path(table_path("predictions"), path)
        place.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_batches([batch]), place)
        files.append(StagedFile(path, batch.num_rows, place.stat().st_size))
    staged = Staged(
        table="predictions",
        run_id="bench",
        stage_id=f"bench-{day}",
        first=day,
        last=day,
        owns=[day],
        basis=day.day,
        order=day.day,
        files=files,
        started=f"{day}T00:00:00+00:00",
    )
    verdict = Verdict("predictions", "bench", f"bench-{day}", "passed", [], "", 0.0)
    commit(Table("predictions").delta, staged, verdict, [day], [])


@contextmanager
def timed(seconds: dict[str, tuple[float, int]], name: str, rows: int = 0) -> Iterator[None]:
    """Note how long the block takes, and for how many rows if it is a matter of rows."""
    began = time.perf_counter()
    yield
    seconds[name] = (time.perf_counter() - began, rows)


def compare_ways(users: int, slow_rows: int) -> dict[str, tuple[float, int]]:
    """Copy the same day into equal tables without an index, in each way."""
    seconds: dict[str, tuple[float, int]] = {}
    table = Table("predictions")
    columns = [field.name for field in PREDICTIONS if field.name != "dt"]
    names = sql.SQL(", ").join(map(sql.Identifier, columns))

    def empty(connection: psycopg.Connection) -> None:
        connection.execute("drop table if exists bench")
        connection.execute("create table bench as select * from meander.predictions limit 0")

    def some() -> list[tuple]:
        rows: list[tuple] = []
        for _, batch in table.batches(DAYS[0], ROWS_AT_ONCE):
            rows += [tuple(row.values()) for row in batch.to_pylist()]
            if len(rows) >= slow_rows:
                break
        return rows[:slow_rows]

    with connect(settings().serving_url) as connection, connection.cursor() as cursor:
        rows = some()
        empty(connection)
        insert = sql.SQL("insert into bench ({}) values ({})").format(
            names, sql.SQL(", ").join([sql.Placeholder()] * len(columns))
        )
        with timed(seconds, "executemany, 1,000 rows a batch", len(rows)), connection.transaction():
            for at in range(0, len(rows), 1000):
                cursor.executemany(insert, rows[at : at + 1000])
        empty(connection)
        copy_in = sql.SQL("copy bench ({}) from stdin").format(names)
        with timed(seconds, "COPY of Python rows, one process", len(rows)), cursor.copy(copy_in) as copy:
            for row in rows:
                copy.write_row(row)
        for workers in (1, 2, 4):
            empty(connection)
            batches = (batch for _, batch in table.batches(DAYS[0], ROWS_AT_ONCE))
            with timed(seconds, f"COPY of Arrow batches, {workers} connection{'s' * (workers > 1)}", users):
                copy_rows(settings().serving_url, sql.Identifier("bench"), batches, columns, workers)
        connection.execute("drop table bench")
    return seconds


def lookups(users: int) -> list[float]:
    """Return how many milliseconds each of some lookups takes, the first hundred left out."""
    chosen = random.Random(1)
    found = []
    with connect(settings().serving_url) as connection:
        for _ in range(LOOKUPS + 100):
            user = f"user-{chosen.randrange(users):09}"
            began = time.perf_counter()
            row = connection.execute("select * from meander.predictions where user_id = %s", [user]).fetchone()
            found.append(1000 * (time.perf_counter() - began))
            assert row is not None
            assert row[0] == user
    return found[100:]


def main() -> None:
    """Run everything and print a table."""
    parser = argparse.ArgumentParser(prog="tests.bench.serving", description=__doc__)
    parser.add_argument("--users", type=lambda text: int(text.replace("_", "")), default=500_000)
    parser.add_argument("--slow-rows", type=int, default=20_000, help="rows for the two ways that are slow")
    args = parser.parse_args()
    out = Console(width=110)
    logging.disable(logging.INFO)
    server = Server()
    try:
        with tempfile.TemporaryDirectory(prefix="meander-bench-") as folder:
            variables = {"MEANDER_LAKE": f"{folder}/lake", "MEANDER_SERVING_URL": server.url()}
            with mock.patch.dict("os.environ", {**variables, "MEANDER_SERVING_MAX_MOVED": "1"}):
                for day in DAYS:
                    publish_day(day, args.users)
                size = sum(storage.list_files(table_path("predictions")).values()) / len(DAYS)
                seconds: dict[str, tuple[float, int]] = {}
                for day in DAYS:
                    with timed(seconds, f"load of day {day.day}: COPY by {WORKERS}, index, checks", args.users):
                        load(day, "bench")
                    with timed(seconds, f"switch to day {day.day}"), opened() as store:
                        switch(store, day, "bench")
                with timed(seconds, "rollback, with its comparison"), opened() as store:
                    rollback(store, "back")
                seconds |= compare_ways(args.users, args.slow_rows)
                found = lookups(args.users)
    finally:
        server.remove()
    grid = Grid("step", "seconds", "users", "users a second")
    for column in grid.columns[1:]:
        column.justify = "right"
    for name, (spent, rows) in seconds.items():
        grid.add_row(name, f"{spent:,.2f}", *((f"{rows:,}", f"{rows / spent:,.0f}") if rows else ("-", "-")))
    out.print(grid)
    out.print(f"one day: {args.users:,} users, {size / 2**20:,.0f} MiB of Parquet")
    cuts = statistics.quantiles(found, n=100)
    out.print(
        f"{len(found):,} lookups through the view, one connection: {1000 * len(found) / sum(found):,.0f} a second, "
        f"p50 {cuts[49]:.2f} ms, p99 {cuts[98]:.2f} ms"
    )


if __name__ == "__main__":
    main()
