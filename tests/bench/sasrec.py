"""Judge RecTools' SASRec on the next items of the test rows of a run, in an environment of its own.

    uv venv /tmp/sasrec
    uv pip install --python /tmp/sasrec/bin/python 'rectools[torch]' deltalake 'pyarrow<20' scikit-learn xxhash
    /tmp/sasrec/bin/python -m tests.bench.sasrec --lake /tmp/judge/lake --run-id accuracy --epochs 20

It learns from all events up to the first validation date, as our pretraining does, and is asked at each test date T for
20 items, from what the user did up to T, items taken before among them. Recall and NDCG are those of
`model.judging.metrics`: the numbers stand beside `next items` of `meander model --run-id accuracy`.
"""

import argparse
import json
import re
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash
from deltalake import DeltaTable
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel

from model.judging.metrics import hits_in_lists, list_values


def read(lake: Path, table: str, version: int, columns: list[str], days: list[str] | None = None) -> pd.DataFrame:
    """Return some columns of one version of a table, of some dates."""
    delta = DeltaTable(str(lake / table), version=version)
    filters = [("dt", "in", days)] if days else None
    files = [uri.removeprefix("file://") for uri in delta.file_uris(partition_filters=filters)]
    parts = [
        pq.read_table(file, columns=columns, partitioning=None).append_column(
            "dt", pa.array([re.search(r"/dt=([^/]+)/", file)[1]] * pq.read_metadata(file).num_rows)
        )
        for file in files
    ]
    return pa.concat_tables(parts).to_pandas()


def key(item: str) -> int:
    """Return the key of an id: Spark's xxhash64, seed 42, signed."""
    value = xxhash.xxh64_intdigest(item.encode(), seed=42)
    return value - (1 << 64) if value >= 1 << 63 else value


def interactions(events: pd.DataFrame, until: str) -> Dataset:
    """Return the events up to a date as RecTools wants them."""
    known = events[events["dt"] <= until]
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


def main() -> None:
    """Train, recommend, measure."""
    parser = argparse.ArgumentParser(
        prog="tests.bench.sasrec", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lake", type=Path, required=True)
    parser.add_argument("--run-id", required=True)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--loss", default="softmax", help="sampled_softmax where there are too many items for all")
    parser.add_argument("--negatives", type=int, default=512, help="items beside each that came next, for other losses")
    parser.add_argument("--length", type=int, default=50, help="events of a sequence; ours are MEANDER_SEQUENCE_LENGTH")
    args = parser.parse_args()
    plan = json.loads((args.lake / "_models" / args.run_id / "plan.json").read_text())
    events = read(args.lake, "events", plan["tables"]["events"], ["event_id", "user_id", "item_id", "event_time"])
    events = events.dropna(subset=["item_id"]).drop_duplicates("event_id").sort_values(["event_time", "event_id"])
    keys = {item: key(item) for item in events["item_id"].unique()}
    events["key"] = events["item_id"].map(keys)
    test = read(args.lake, "examples", plan["tables"]["examples"], ["user_id", "next_item_keys"], plan["test"])
    test = test[test["next_item_keys"].map(len) > 0]

    began = time.monotonic()
    model = SASRecModel(
        session_max_len=args.length,
        n_factors=64,
        n_blocks=2,
        n_heads=2,
        epochs=args.epochs,
        batch_size=128,
        lr=1e-3,
        loss=args.loss,
        n_negatives=args.negatives,
        deterministic=True,
    )
    model.fit(interactions(events, plan["valid"][0]))
    seconds = time.monotonic() - began
    found = []
    for day, rows in test.groupby("dt"):
        dataset = interactions(events, str(day))
        users = rows["user_id"].to_numpy()
        offered = model.recommend(users, dataset, k=20, filter_viewed=False, on_unsupported_targets="warn")
        lists = offered.sort_values(Columns.Rank).groupby(Columns.User)[Columns.Item].agg(list)
        filled = [(lists.get(user, []) + [0] * 20)[:20] for user in users]
        relevant = list(rows["next_item_keys"])
        sizes = np.array([len(wanted) for wanted in relevant])
        found.append(pd.DataFrame(list_values(hits_in_lists(np.array(filled), relevant), sizes)))
    means = pd.concat(found).mean()
    sys.stdout.write(
        f"SASRec, {args.epochs} epochs in {seconds:.0f} s, {len(test)} rows: "
        f"recall@20 {means['recall@20']:.4f}, ndcg@10 {means['ndcg@10']:.4f}\n"
    )


if __name__ == "__main__":
    main()
