"""Judge RecTools' SASRec on the next items of the test rows of a run, in an environment of its own.

    uv venv /tmp/sasrec
    uv pip install --python /tmp/sasrec/bin/python 'rectools[torch]' deltalake 'pyarrow<20' scikit-learn xxhash
    /tmp/sasrec/bin/python -m tests.bench.sasrec --lake /tmp/judge/lake --run-id accuracy --epochs 20 60 \
        --losses softmax gBCE

It learns from all events up to the first validation date, as our pretraining does, once for each number of epochs, loss
and rate that is named. The one with the highest Recall@20 on the validation rows is asked at each test date T for 20
items, from what the user did up to T, items taken before among them. Recall and NDCG are those of
`model.judging.metrics`, with 95 % intervals over users: the numbers stand beside `next items` of
`meander model --run-id accuracy`. It is judged on the same rows: above `--max-users`, those of the lowest hashes.
"""

import argparse
import itertools
import json
import re
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash
from deltalake import DeltaTable
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel

from model.judging.metrics import UserBootstrap, hits_in_lists, interval, list_values
from tests.bench.known_events import first_arrivals, known_at


def read(lake: Path, table: str, version: int, columns: list[str], days: list[str] | None = None) -> pd.DataFrame:
    """Return some columns of one version of a table, of some dates, with what the folders of its files name."""
    delta = DeltaTable(str(lake / table), version=version)
    filters = [("dt", "in", days)] if days else None
    files = [uri.removeprefix("file://") for uri in delta.file_uris(partition_filters=filters)]
    parts = []
    for file in files:
        rows = pq.read_table(file, columns=columns, partitioning=None)
        for name, value in re.findall(r"/(dt|landed)=([^/]+)", file):
            rows = rows.append_column(name, pa.array([value] * len(rows), pa.string()))
        parts.append(rows)
    return pa.concat_tables(parts).to_pandas()


def key(item: str) -> int:
    """Return the key of an id: Spark's xxhash64, seed 42, signed."""
    value = xxhash.xxh64_intdigest(item.encode(), seed=42)
    return value - (1 << 64) if value >= 1 << 63 else value


def interactions(events: pd.DataFrame, until: str) -> Dataset:
    """Return the events that were known on the evening of a date as RecTools wants them."""
    known = known_at(events, until)
    return Dataset.construct(
        pd.DataFrame(
            {
                Columns.User: known["user_id"].to_numpy(),
                Columns.Item: known["key"].to_numpy(),
                Columns.Weight: 1.0,
                Columns.Datetime: known["event_time"].to_numpy(),
            }
        )
    )


def rows_with_items(lake: Path, plan: dict[str, Any], part: str, most_users: int) -> pd.DataFrame:
    """Return the rows of some dates that items came to, of the users that model.evaluate measures."""
    rows = read(lake, "examples", plan["tables"]["examples"], ["user_id", "next_item_keys"], plan[part])
    users = np.unique(rows["user_id"].to_numpy().astype(object))
    # As model.data.frames does, which cannot be imported here.
    users = users[np.argsort(pd.util.hash_array(users), kind="stable")[:most_users]]
    return rows[rows["user_id"].isin(users) & (rows["next_item_keys"].map(len) > 0)]


def judged(model: SASRecModel, events: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Return the metrics of each row, with its `user_id`, from what was known at its date."""
    found = []
    for day, of_day in rows.groupby("dt"):
        users = of_day["user_id"].to_numpy()
        dataset = interactions(events, str(day))
        offered = model.recommend(users, dataset, k=20, filter_viewed=False, on_unsupported_targets="warn")
        lists = offered.sort_values(Columns.Rank).groupby(Columns.User)[Columns.Item].agg(list)
        filled = np.array([(lists.get(user, []) + [0] * 20)[:20] for user in users])
        relevant = list(of_day["next_item_keys"])
        sizes = np.array([len(wanted) for wanted in relevant])
        found.append(pd.DataFrame(list_values(hits_in_lists(filled, relevant), sizes)).assign(user_id=users))
    return pd.concat(found)


def main() -> None:
    """Train what is to be tried, choose by the validation rows, and measure on the test rows."""
    parser = argparse.ArgumentParser(
        prog="tests.bench.sasrec", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lake", type=Path, required=True)
    parser.add_argument("--run-id", required=True)
    parser.add_argument("--epochs", type=int, nargs="+", default=[20], help="each is tried")
    parser.add_argument(
        "--losses",
        nargs="+",
        default=["softmax"],
        help="each is tried; sampled_softmax where items are too many for all",
    )
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-3], help="learning rates; each is tried")
    parser.add_argument("--negatives", type=int, default=512, help="items beside each that came next, for other losses")
    parser.add_argument("--max-users", type=int, default=20_000, help="users in each part, as in model.evaluate")
    parser.add_argument("--resamples", type=int, default=500)
    parser.add_argument("--length", type=int, default=50, help="events of a sequence; ours are MEANDER_SEQUENCE_LENGTH")
    args = parser.parse_args()
    plan = json.loads((args.lake / "_models" / args.run_id / "plan.json").read_text())
    events = read(args.lake, "events", plan["tables"]["events"], ["event_id", "user_id", "item_id", "event_time"])
    events = first_arrivals(events)
    keys = {item: key(item) for item in events["item_id"].unique()}
    events["key"] = events["item_id"].map(keys)
    parts = {name: rows_with_items(args.lake, plan, name, args.max_users) for name in ("valid", "test")}
    best: tuple[float, str, SASRecModel] | None = None
    for epochs, loss, rate in itertools.product(args.epochs, args.losses, args.rates):
        began = time.monotonic()
        model = SASRecModel(
            session_max_len=args.length,
            n_factors=64,
            n_blocks=2,
            n_heads=2,
            epochs=epochs,
            batch_size=128,
            lr=rate,
            loss=loss,
            n_negatives=args.negatives,
            deterministic=True,
        )
        model.fit(interactions(events, plan["valid"][0]))
        name = f"{epochs} epochs, {loss}, rate {rate:g}"
        recall = float(judged(model, events, parts["valid"])["recall@20"].mean())
        seconds = time.monotonic() - began
        sys.stdout.write(f"{name}: {seconds:.0f} s, recall@20 of the validation rows {recall:.4f}\n")
        if best is None or recall > best[0]:
            best = recall, name, model
    assert best is not None
    found = judged(best[2], events, parts["test"])
    bootstrap = UserBootstrap(found["user_id"].to_numpy(), args.resamples, plan["seed"])
    told = []
    for metric in ("recall@20", "ndcg@10"):
        low, high = interval(bootstrap.means(found[[metric]].to_numpy())[:, 0])
        told.append(f"{metric} {found[metric].mean():.4f} ({low:.4f} to {high:.4f})")
    sys.stdout.write(f"SASRec, {best[1]}, {len(found)} test rows: {', '.join(told)}\n")


if __name__ == "__main__":
    main()
