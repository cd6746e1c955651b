"""Which speed of forgetting ranks a log's next categories best, and the mixture that a network begins with.

    python -m tests.bench.habits --run-id R

Reads the training and validation dates of a run that was prepared; no test date, no network. The mixture is made by
`model.data.habits` from the newest training rows; all rankings are judged on the validation rows, with popularity
deciding where a user has nothing. In brackets: the 95 % interval of the difference from the fading history, over users.
"""

import argparse

import numpy as np
import pandas as pd

from lake.places import vocabulary_folder
from lake.table import Table
from model.arrays import Array
from model.data.candidates import columns_of, flat, lengths
from model.data.features import PROFILE, pad
from model.data.frames import read_frame
from model.data.habits import SPEEDS, comes_again, likeliest_habits
from model.data.vocabulary import Vocabulary
from model.judging.metrics import UserBootstrap, distribution_values, interval, truth_ranks
from model.training.plan import TrainingPlan

DATES = 4  # as model.finetune, which is slow to import
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
    plan = TrainingPlan.load(parser.parse_args().run_id)
    table, known = (
        Table("examples", plan.tables["examples"]),
        Vocabulary.load(vocabulary_folder(plan.run_id), "category_id"),
    )
    columns = [*PROFILE, "next_category", "next_category_key", "next_categories", "next_shares"]
    train, valid = (read_frame(table, days, columns) for days in (plan.train[-DATES:], plan.valid))
    valid = valid[valid["next_category"].notna()].reset_index(drop=True)
    everyone = (known.counts + 0.5) / (known.counts + 0.5).sum()
    came = train["next_category_key"].to_numpy(np.int64)
    index = known.index(came) - 1 - known.buckets
    usual = np.where(index >= 0, everyone[np.maximum(index, 0)], everyone.min())
    habits = likeliest_habits(profile_of(train), came, usual)

    top = profile_of(valid)
    places = known.index(top["longterm_category_keys"]) - 1 - known.buckets
    rows, at = np.nonzero(places >= 0)

    def scores(weights: tuple[float, ...], for_all: float) -> Array:
        dense = np.tile(for_all * everyone, (len(valid), 1))
        dense[rows, places[rows, at]] += comes_again(top, weights)[rows, at]
        return dense

    speeds = tuple(tuple(float(one == name) for one in SPEEDS) for name in SPEEDS)
    tried = {name: scores(weights, 1e-6) for name, weights in zip(SPEEDS, speeds, strict=True)}
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
