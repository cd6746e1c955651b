"""Does pretraining pay, over several seeds? Two networks of each run, row by row: fine-tuned, and from scratch.

    python -m tests.bench.seeds --run-ids accuracy accuracy-2 accuracy-3

The runs differ in their seed alone: same tables, same dates, so the same test rows. Both networks are asked without the
trees of a stack. Prints, for each number, the mean gain over the seeds, in brackets the approximate 95 % interval over
users and seeds together, then the gain of each seed by itself. `tests.bench.accuracy --seeds` makes such runs.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.metrics import roc_auc_score

from lake.errors import InputInvalid
from lake.labels import NAMES
from lake.places import network_folder
from lake.table import Table
from model.arrays import Array
from model.data.candidates import columns_of, flat, lengths
from model.data.frames import read_frame
from model.judging.comparison import is_true
from model.judging.metrics import (
    UserBootstrap,
    distribution_values,
    hits_in_lists,
    interval,
    list_values,
    ranking_values,
    truth_ranks,
)
from model.training.plan import TrainingPlan
from model.versions.artifact import Artifact, Prediction

RESAMPLES = 500


def over_seeds(values: Array, samples: Array) -> tuple[float, float]:
    """Return the bounds of the 95 % interval of the mean over seeds, as uncertain as users and seeds make it together.

    Of one seed, the interval over users. Of more, mean and t times the root of both variances: that over users, from
    the resamples, and that of a mean of S trainings. The degrees of freedom are those of Satterthwaite (Biometrics
    Bulletin 2, 1946): S - 1 where the seeds make all of it, and ever more, the less they do. It is approximate: of two
    seeds that make most of the variance, but not all, it covers some 90 % in place of 95.

    Args:
        values: `(S,)` the number of each seed.
        samples: `(R, S)` likewise in each resample of users.
    """
    if len(values) == 1:
        return interval(samples[:, 0])
    of_users = float(np.nanvar(samples.mean(axis=1), ddof=1))
    of_seeds = float(np.var(values, ddof=1)) / len(values)
    total = of_users + of_seeds
    freedom = (len(values) - 1) * (total / of_seeds) ** 2 if of_seeds else np.inf
    reach = float(stats.t.ppf(0.975, freedom)) * np.sqrt(total)
    return float(values.mean() - reach), float(values.mean() + reach)


def values_of(said: Prediction, rows: pd.DataFrame, ids: Sequence[str]) -> dict[str, Array]:
    """Return each number of each row, `(N,)`; NaN where it is not defined."""
    index = pd.Index(list(ids), dtype=object)
    truth = columns_of(index, rows["next_category"])
    recall = ranking_values(truth_ranks(said.categories, truth), (5,))["recall@5"]
    recall = np.where(rows["next_category"].notna(), recall, np.nan)
    owners = np.repeat(np.arange(len(rows)), lengths(rows["next_categories"]))
    came = columns_of(index, flat(rows["next_categories"], object))
    told = distribution_values(said.categories, owners, came, flat(rows["next_shares"], np.float64))
    many = lengths(rows["next_item_keys"])
    items = list_values(hits_in_lists(said.items, list(rows["next_item_keys"])), np.maximum(many, 1))
    return {
        "Recall@5 of the next category": recall,
        "of migrated users": np.where(is_true(rows["migrated"]), recall, np.nan),
        "any tied first": told["tied_recall@5"],
        "NDCG@5 of shares": told["shares_ndcg@5"],
        "Recall@20 of the next items": np.where(many > 0, items["recall@20"], np.nan),
        "NDCG@10": np.where(many > 0, items["ndcg@10"], np.nan),
    }


def gains(
    pairs: Sequence[tuple[Prediction, Prediction]], rows: pd.DataFrame, ids: Sequence[str], bootstrap: UserBootstrap
) -> Mapping[str, tuple[Array, Array]]:
    """Return by number the gain of each seed, `(S,)`, and in each resample of users, `(R, S)`.

    Args:
        pairs: what the pretrained network of each seed says, and the one from scratch.
        rows: N test rows.
        ids: of the categories, in the order of the predictions.
        bootstrap: over the users of these rows.
    """
    found: dict[str, tuple[Array, Array]] = {}
    of_rows = [[values_of(said, rows, ids) for said in pair] for pair in pairs]
    for name in of_rows[0][0]:
        gained = np.stack([one[name] - other[name] for one, other in of_rows], axis=1)  # (N, S)
        known = np.flatnonzero(~np.isnan(gained).any(axis=1))
        found[name] = gained[known].mean(axis=0), bootstrap.means(gained[known], known)
    for label in NAMES:
        known = np.flatnonzero(rows[label].notna().to_numpy())
        truth = is_true(rows[label])[known]
        values, samples = [], []
        for pair in pairs:
            one, other = (said.answers[label][known].astype(np.float64) for said in pair)
            areas = [bootstrap.areas(truth, chances, known)[0] for chances in (one, other)]
            values.append(roc_auc_score(truth, one) - roc_auc_score(truth, other))
            samples.append(areas[0] - areas[1])
        found[f"AUC {label}"] = np.array(values), np.stack(samples, axis=1)
    return found


def require_pairs(plans: Sequence[TrainingPlan]) -> None:
    """Check that the runs differ in their seed alone.

    Raises:
        InputInvalid: something else differs from the first run, or two have one seed.
    """
    for plan in plans[1:]:
        for name in (field.name for field in fields(TrainingPlan) if field.name not in ("run_id", "seed")):
            own, first = getattr(plan, name), getattr(plans[0], name)
            if own != first:
                raise InputInvalid(
                    f"--run-ids: the runs must differ in their seed alone; {name} of run {plan.run_id!r} is {own}, and "
                    f"{first} of {plans[0].run_id!r}"
                )
    seeds = {plan.run_id: plan.seed for plan in plans}
    if len(set(seeds.values())) < len(plans):
        raise InputInvalid(
            f"--run-ids: each run must have a seed of its own, received {seeds} for {len(plans)} runs; the same "
            "training twice tells nothing of how far two lie apart"
        )


def main(argv: list[str] | None = None) -> None:
    """Print a line for each number."""
    parser = argparse.ArgumentParser(
        prog="tests.bench.seeds", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run-ids", required=True, nargs="+", metavar="R", help="runs that differ in their seed alone")
    parser.add_argument("--max-users", type=int, default=20_000, metavar="N", help="whose rows are measured")
    args = parser.parse_args(argv)
    plans = [TrainingPlan.load(run_id) for run_id in args.run_ids]
    require_pairs(plans)
    rows = read_frame(Table("examples", plans[0].tables["examples"]), plans[0].test, most_users=args.max_users)
    pairs, ids = [], None
    for plan in plans:
        networks = [Artifact.load(network_folder(plan.run_id, name)) for name in ("finetuned", "scratch")]
        ids = ids or networks[0].category_ids
        if any(network.category_ids != ids for network in networks):
            raise InputInvalid(f"run {plan.run_id!r} knows other categories than {plans[0].run_id!r}")
        pairs.append((networks[0].predict(rows), networks[1].predict(rows)))
    bootstrap = UserBootstrap(rows["user_id"].to_numpy(), RESAMPLES, plans[0].seed)
    sys.stdout.write(f"{len(rows)} test rows, {len(plans)} seeds\n")
    for name, (values, samples) in gains(pairs, rows, ids or [], bootstrap).items():
        low, high = over_seeds(values, samples)
        each = ", ".join(f"{value:+.4f}" for value in values)
        sys.stdout.write(f"{name}: {values.mean():+.4f} ({low:+.4f} to {high:+.4f}); by seed {each}\n")


if __name__ == "__main__":
    main()
