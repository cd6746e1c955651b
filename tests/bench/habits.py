"""Which speed of forgetting ranks a log's next categories best, and the mixture that a network begins with.

    python -m tests.bench.habits --run-id R

Reads the training and validation dates of a run that was prepared; no test date, no network. The mixtures are measured
as `model.finetune` does, one of them with the fading history alone; all rankings are judged on the validation rows,
with popularity deciding where a user has nothing, and adding its part in the mixtures. In brackets: the 95 % interval
of the difference from the fading history, over users.
"""

import argparse

import numpy as np
import pandas as pd

from lake.places import vocabulary_folder
from lake.table import Table
from model.arrays import Array
from model.data.candidates import columns_of, flat, lengths
from model.data.features import PROFILE, Features, pad
from model.data.frames import read_frame
from model.data.habits import SPEEDS, likeliest_habits, spread
from model.data.vocabulary import Vocabulary
from model.finetune import MAX_USERS, what_came
from model.judging.metrics import UserBootstrap, distribution_values, interval, truth_ranks
from model.network.network import PRESETS, network_config
from model.training.plan import TrainingPlan

METRICS = ("Recall@5", "any tied first", "NDCG@5 of shares")


def profile_of(rows: pd.DataFrame) -> dict[str, Array]:
    """Return (N, P) by column, with room for all categories of every user."""
    room = int(max(lengths(rows["longterm_category_keys"]).max(initial=1), 1))
    return {name: pad(rows[name], room, kind, keep="first") for name, kind in PROFILE.items()}


def judged(scores: Array, rows: pd.DataFrame, ids: "pd.Index[str]") -> Array:
    """Return each of `METRICS` of each row, (N, 3)."""
    ranks = truth_ranks(scores, columns_of(ids, rows["next_category"]))
    came = columns_of(ids, flat(rows["next_categories"], object))
    owners = np.repeat(np.arange(len(rows)), lengths(rows["next_categories"]))
    values = distribution_values(scores, owners, came, flat(rows["next_shares"], np.float64), 5)
    return np.column_stack([ranks <= 5, values["tied_recall@5"], values["shares_ndcg@5"]])


def main() -> None:
    """Print a line for each ranking."""
    parser = argparse.ArgumentParser(
        prog="tests.bench.habits", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run-id", required=True, metavar="R", help="a run that was prepared")
    parser.add_argument("--preset", default="tiny", choices=sorted(PRESETS), help="of the network that begins so")
    args = parser.parse_args()
    plan = TrainingPlan.load(args.run_id)
    table, known = (
        Table("examples", plan.tables["examples"]),
        Vocabulary.load(vocabulary_folder(plan.run_id), "category_id"),
    )
    columns = [*PROFILE, "next_category", "next_categories", "next_shares"]
    valid = read_frame(table, plan.valid, columns, most_users=MAX_USERS)
    valid = valid[valid["next_category"].notna()].reset_index(drop=True)
    everyone = (known.counts + 0.5) / (known.counts + 0.5).sum()
    # No item is looked at here.
    features = Features(known, known, events=1, profile=network_config(args.preset, known.size, known.size).profile)
    interest, came, usual = what_came(plan, features)
    habits = likeliest_habits(interest, came, usual)
    silent = {name: np.zeros_like(interest[name]) for name in SPEEDS if name != "longterm_shares"}
    fading = likeliest_habits({**interest, **silent}, came, usual)

    top = profile_of(valid)
    places = known.index(top["longterm_category_keys"]) - 1 - known.buckets
    rows, at = np.nonzero(places >= 0)

    def scores(weights: tuple[float, ...], for_all: float) -> Array:
        dense = np.tile(for_all * everyone, (len(valid), 1))
        own = sum(weight * spread(top[name]) for name, weight in zip(SPEEDS, weights, strict=True))
        dense[rows, places[rows, at]] += np.asarray(own)[rows, at]
        return dense

    speeds = tuple(tuple(float(one == name) for one in SPEEDS) for name in SPEEDS)
    tried = {name: scores(weights, 1e-6) for name, weights in zip(SPEEDS, speeds, strict=True)}
    tried[f"mixture of the fading history and all {fading}"] = scores(fading, 1.0)
    tried[f"mixture {habits}"] = scores(habits, 1.0)
    ids = pd.Index(known.ids, dtype=object)
    values = {name: judged(of_all, valid, ids) for name, of_all in tried.items()}
    bootstrap = UserBootstrap(valid["user_id"].to_numpy(), 500, plan.seed)
    print(f"{len(valid)} rows of {plan.valid[0]} to {plan.valid[-1]}; {', '.join(METRICS)}")  # noqa: T201
    for name, of_rows in values.items():
        samples = bootstrap.means(of_rows - values["longterm_shares"])
        parts = [f"{mean:.4f} ({low:+.4f} to {high:+.4f})" for mean, (low, high) in zip(
            of_rows.mean(axis=0), (interval(samples[:, place]) for place in range(len(METRICS))), strict=True
        )]  # fmt: skip
        print(f"{name}: {', '.join(parts)}")  # noqa: T201


if __name__ == "__main__":
    main()
