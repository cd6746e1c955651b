"""Measure what a day of interest flows on the page reads and takes: `python -m tests.bench.page [--users 200000]`.

Makes predictions of some days and examples of the last one, of made-up users with so many categories, then looks at the
last day as the page does, in a process that has looked at nothing. Bytes are those that this process reads from files,
CPU seconds those of all its threads; *kept* is what the answer takes in the cache of the web server.
"""

import argparse
import os
import pickle
import tempfile
import time
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql.pandas.types import to_arrow_schema
from rich.console import Console
from rich.table import Table as Grid

from dags.page import drawing, flows
from dags.page.cache import Cache
from lake.labels import PROBABILITIES
from lake.places import table_path
from lake.publish import publish
from lake.rules import TOP_CATEGORIES
from lake.schemas import TABLES
from lake.staging import Run, Staged, StagedFile, new_stage_id, write_staged
from tests.lake.stagings import audit

LAST = date(2025, 12, 31)
Answer = TypeVar("Answer")


def names(prefix: str, codes: np.ndarray) -> pa.Array:
    """Return the names of numbered things."""
    return pa.DictionaryArray.from_arrays(
        pa.array(codes.ravel().astype(np.int32)), pa.array([f"{prefix}-{n:05}" for n in range(codes.max() + 1)])
    ).cast(pa.string())


def predictions(users: int, categories: int, draw: np.random.Generator) -> dict[str, pa.Array]:
    """Make up columns of `predictions`; a few categories have most users."""
    popular = 1 / np.arange(1, categories + 1)
    chosen = draw.choice(categories, (users, TOP_CATEGORIES), p=popular / popular.sum())
    shares = draw.dirichlet(np.full(TOP_CATEGORIES + 1, 0.4), users)[:, :TOP_CATEGORIES]
    ends = pa.array(np.arange(0, users * TOP_CATEGORIES + 1, TOP_CATEGORIES, dtype=np.int32))
    return {
        "category_ids": pa.ListArray.from_arrays(ends, names("category", chosen)),
        "category_probabilities": pa.ListArray.from_arrays(ends, pa.array(-np.sort(-shares, axis=1).ravel())),
        "current_category": names("category", chosen[:, 0]),
        **{name: pa.array(draw.random(users)) for name in PROBABILITIES},
    }


def examples(users: int, categories: int, draw: np.random.Generator) -> dict[str, pa.Array]:
    """Make up columns of `examples`."""
    return {
        "dominant_category": names("category", draw.integers(0, categories, users)),
        "next_category": names("category", draw.integers(0, categories, users)),
        "next_events": pa.array(draw.integers(0, 5, users)),
    }


def put(table: str, day: date, columns: dict[str, pa.Array]) -> None:
    """Publish a day of a table as one file; columns that are not given are null, or a user's number."""
    schema = to_arrow_schema(TABLES[table].schema)
    rows = len(next(iter(columns.values())))
    columns |= {"user_id": pa.array([f"user-{n:08}" for n in range(rows)])}
    inside = pa.schema([field for field in schema if field.name not in TABLES[table].partition_by])
    filled = [columns[f.name].cast(f.type) if f.name in columns else pa.nulls(rows, f.type) for f in inside]
    run = Run(f"{table} {day}", day, day)
    stage_id = new_stage_id(run)
    path = f"stage={stage_id}/dt={day}/part-0.parquet"
    place = Path(table_path(table), path)
    place.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_arrays(filled, schema=inside), place, row_group_size=100_000)
    files = [StagedFile.of(table, path, place.stat().st_size, pq.read_metadata(place))]
    staged = Staged(table, run.run_id, stage_id, day, day, [day], run.basis, run.order, files)
    write_staged(staged)
    audit(staged)
    publish(table, run.run_id)


def bytes_read() -> int:
    """Return the bytes that this process has read until now."""
    return int(Path("/proc/self/io").read_text().split()[1])


def main() -> None:
    """Make the lake, look at the page, and print a table."""
    parser = argparse.ArgumentParser(prog="tests.bench.page", description=__doc__)
    parser.add_argument("--users", type=int, default=200_000, help="of a day")
    parser.add_argument("--categories", type=int, default=3_000, help="of the shop")
    parser.add_argument("--days", type=int, default=7, help="of predictions")
    parser.add_argument("--least", type=int, default=5, help="MEANDER_MIN_GROUP")
    args = parser.parse_args()
    grid = Grid("", "MB read", "CPU seconds", "kB kept")
    cache = Cache()

    def timed(what: str, do: Callable[[], Answer]) -> Answer:
        read, began = bytes_read(), time.process_time()
        answer = do()
        spent, size = time.process_time() - began, len(pickle.dumps(answer, pickle.HIGHEST_PROTOCOL))
        grid.add_row(what, f"{(bytes_read() - read) / 1e6:.1f}", f"{spent:.2f}", f"{size / 1000:,.0f}")
        return answer

    def drawn(predicted: Any, actual: Any) -> list[Any]:
        kept = drawing.greatest([predicted, actual])
        return [(drawing.sankey(some, kept, "now", "next"), flows.movers(some)[:8]) for some in (predicted, actual)]

    with tempfile.TemporaryDirectory() as folder:
        os.environ["MEANDER_LAKE"] = folder
        draw = np.random.default_rng(1)
        for ago in range(args.days, -1, -1):
            if ago == 0:
                timed(f"drift of {args.days} days", lambda: flows.drift(cache, timedelta(days=371)))
            put("predictions", LAST - timedelta(days=ago), predictions(args.users, args.categories, draw))
        put("examples", LAST, examples(args.users, args.categories, draw))
        timed("drift, a day later", lambda: flows.drift(cache, timedelta(days=371)))
        predicted = timed("predicted flows of a day", lambda: flows.predicted(cache, LAST, args.least))
        actual = timed("actual flows of a day", lambda: flows.actual(cache, LAST, args.least))
        timed("what is drawn of both", lambda: drawn(predicted, actual))
    Console().print(grid)


if __name__ == "__main__":
    main()
