"""Measure methods side by side on the same rows: every metric on every slice, with intervals, and paired differences.

Pure functions over frames and arrays; model/evaluate.py reads the tables and calls them.

Letters used for shapes in this module:

    N  rows    C  categories    K  length of a list of items    R  resamples
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from model.arrays import Array
from model.judging.baselines import LABELS, Baseline, columns_of, lengths
from model.judging.metrics import (
    BINARY_METRICS,
    UserBootstrap,
    best_threshold,
    binary_metrics,
    hits_in_lists,
    interval,
    list_values,
    ranking_values,
    truth_ranks,
)

CATEGORY_KS = (1, 5, 10)
ITEM_KS = (10, 20)
MOST_ITEMS = 20

SLICES = {
    "all": "every row that has the label",
    "judged": "users with enough events on both sides to tell whether they migrated",
    "migrated": "users whose dominant category changed by more than chance explains",
    "new users": "first event no longer ago than the lookback",
    "light users": "the third of users with the fewest events in the lookback, by the training rows",
    "heavy users": "the third of users with the most events in the lookback, by the training rows",
}

METRIC_COLUMNS = ("method", "task", "metric", "slice", "value", "low", "high", "n", "users")
DIFFERENCE_COLUMNS = ("method", "against", "task", "metric", "slice", "value", "low", "high", "n", "users")


@dataclass
class Scores:
    """What one method says about the test rows; None or a missing label where it says nothing.

    Attributes:
        name: of the method.
        next_category: `(N, C)` scores, higher for likelier; only their order counts.
        next_item: `(N, K)` int64 keys, best first, 0 for none.
        binary: label to `(N,)` probabilities.
        thresholds: label to the probability from which a row counts as predicted true; 0.5 where missing.
    """

    name: str
    next_category: Array | None = None
    next_item: Array | None = None
    binary: dict[str, Array] = field(default_factory=dict)
    thresholds: dict[str, float] = field(default_factory=dict)


@dataclass
class Evaluation:
    """What came out.

    Attributes:
        metrics: one row for each method, task, metric and slice (`METRIC_COLUMNS`). Tasks: `next_category` (the
            dominant one), `next_items` (all items that come), `first_item` (the first of these alone), and the labels.
            `low` and `high` bound the 95 % interval; `n` counts rows and `users` users; NaN: not defined on that slice.
        differences: method minus `against` on the same rows and resamples (`DIFFERENCE_COLUMNS`).
        unseen_categories: share of true next categories that are no candidate; they count as misses of every method.
    """

    metrics: pd.DataFrame
    differences: pd.DataFrame
    unseen_categories: float


def scores_of(baseline: Baseline, frame: pd.DataFrame, valid: pd.DataFrame | None = None) -> Scores:
    """Return all that a fitted baseline says about a frame.

    Args:
        baseline: fitted.
        frame: the test rows.
        valid: rows to choose the thresholds on, those with the highest F1; 0.5 without them.
    """
    scores = Scores(baseline.name)
    if "next_category" in baseline.tasks:
        scores.next_category = baseline.next_category(frame)
    if "next_item" in baseline.tasks:
        scores.next_item = baseline.next_item(frame, MOST_ITEMS)
    if "binary" in baseline.tasks:
        scores.binary = baseline.binary(frame)
        if valid is not None:
            scores.thresholds = thresholds(valid, baseline.binary(valid))
    return scores


def thresholds(frame: pd.DataFrame, binary: dict[str, Array]) -> dict[str, float]:
    """Return for each label the threshold with the highest F1 on these rows (of validation, not of test)."""
    found = {}
    for label, probabilities in binary.items():
        known = frame[label].notna().to_numpy()
        found[label] = best_threshold(frame[label][known].astype(bool).to_numpy(), probabilities[known])
    return found


def is_true(label: "pd.Series[Any]") -> Array:
    """Return where a label is true, `(N,)` bool; one that is not known is not."""
    known = label.notna().to_numpy()
    found = np.zeros(len(label), bool)
    found[known] = label[known].astype(bool)
    return found


def slices(test: pd.DataFrame, train: pd.DataFrame, lookback_days: int) -> dict[str, Array]:
    """Return which test rows belong to each of `SLICES`, `(N,)` bool."""
    light, heavy = train["frequency"].quantile([1 / 3, 2 / 3])
    return {
        "all": np.ones(len(test), bool),
        "judged": test["migrated"].notna().to_numpy(bool),
        "migrated": is_true(test["migrated"]),
        "new users": (test["tenure_seconds"] <= lookback_days * 86_400).to_numpy(bool),
        "light users": (test["frequency"] <= light).to_numpy(bool),
        "heavy users": (test["frequency"] >= heavy).to_numpy(bool),
    }


# One method on one task and slice: metric to (value, resamples (R,)).
_Measured = dict[str, tuple[float, Array]]


def evaluate(
    test: pd.DataFrame,
    train: pd.DataFrame,
    categories: Sequence[str],
    methods: Sequence[Scores],
    compare: Sequence[str] = (),
    *,
    lookback_days: int = 30,
    resamples: int = 500,
    seed: int = 0,
) -> Evaluation:
    """Measure all methods on the same test rows.

    Args:
        test: rows of `examples`, N of them, in the order of the methods' scores; later than all that was trained on.
        train: the training rows; they say who is a light and who a heavy user.
        categories: the candidates, C of them, in the order of the score columns.
        methods: each method's scores.
        compare: names of the methods that are compared, in pairs, with every other one.
        lookback_days: W.
        resamples: R of the bootstrap over users.
        seed: of the bootstrap.

    Raises:
        ValueError: a method's scores do not fit the rows, or two methods have one name.
    """
    _check(test, categories, methods, compare)
    bootstrap = UserBootstrap(test["user_id"].to_numpy(), resamples, seed)
    parts = slices(test, train, lookback_days)
    truth = columns_of(pd.Index(categories), test["next_category"])
    has_category = test["next_category"].notna().to_numpy()

    metrics: list[tuple[object, ...]] = []
    differences: list[tuple[object, ...]] = []

    def record(task: str, by_slice: dict[str, dict[str, _Measured]], rows_of: dict[str, Array]) -> None:
        for name, measured in by_slice.items():
            size = (len(rows_of[name]), len(np.unique(bootstrap.user[rows_of[name]])))
            for method, found in measured.items():
                for metric, (value, samples) in found.items():
                    metrics.append((method, task, metric, name, value, *interval(samples), *size))
            for method in compare:
                for against in measured if method in measured else ():
                    if against == method:
                        continue
                    for metric, (value, samples) in measured[method].items():
                        other, other_samples = measured[against][metric]
                        bounds = interval(samples - other_samples)
                        differences.append((method, against, task, metric, name, value - other, *bounds, *size))

    for task, values, known in _per_row(test, methods, truth, has_category):
        rows_of = {name: np.flatnonzero(part & known) for name, part in parts.items()}
        by_slice = {
            name: {method: _means(bootstrap, table, rows) for method, table in values.items()}
            for name, rows in rows_of.items()
        }
        record(task, by_slice, rows_of)

    for label in LABELS:
        known = test[label].notna().to_numpy()
        labels = is_true(test[label])
        rows_of = {name: np.flatnonzero(part & known) for name, part in parts.items()}
        by_slice = {
            name: {
                method.name: _binary(bootstrap, labels[rows], method.binary[label][rows], rows, method, label)
                for method in methods
                if label in method.binary
            }
            for name, rows in rows_of.items()
        }
        record(label, by_slice, rows_of)

    unseen = float((truth[has_category] < 0).mean()) if has_category.any() else 0.0
    return Evaluation(
        pd.DataFrame(metrics, columns=list(METRIC_COLUMNS)),
        pd.DataFrame(differences, columns=list(DIFFERENCE_COLUMNS)),
        unseen,
    )


def _check(test: pd.DataFrame, categories: Sequence[str], methods: Sequence[Scores], compare: Sequence[str]) -> None:
    names = [method.name for method in methods]
    if len(set(names)) < len(names):
        raise ValueError(f"methods must have different names, received {names}")
    if missing := [name for name in compare if name not in names]:
        raise ValueError(f"compare names {missing}, which are not among the methods {names}")
    for method in methods:
        if method.next_category is not None and method.next_category.shape != (len(test), len(categories)):
            raise ValueError(
                f"{method.name}: next_category must be ({len(test)}, {len(categories)}), "
                f"received {method.next_category.shape}"
            )
        arrays = {"next_item": method.next_item, **method.binary}
        for what, array in arrays.items():
            if array is not None and len(array) != len(test):
                raise ValueError(f"{method.name}: {what} must have {len(test)} rows, received {len(array)}")


def _per_row(
    test: pd.DataFrame, methods: Sequence[Scores], truth: Array, has_category: Array
) -> list[tuple[str, dict[str, pd.DataFrame], Array]]:
    """Return for each ranking task the metrics of each row by method, and which rows have a truth."""
    by_category = {
        method.name: pd.DataFrame(ranking_values(truth_ranks(method.next_category, truth), CATEGORY_KS))
        for method in methods
        if method.next_category is not None
    }
    relevant = list(test["next_item_keys"])
    many = lengths(test["next_item_keys"])
    first = [keys[:1] for keys in relevant]
    by_item, by_items = {}, {}
    for method in methods:
        if method.next_item is not None:
            ks = tuple(k for k in ITEM_KS if k <= method.next_item.shape[1])
            alone = hits_in_lists(method.next_item, first)
            ranks = np.where(alone.any(axis=1), alone.argmax(axis=1) + 1.0, np.inf)
            by_item[method.name] = pd.DataFrame(ranking_values(ranks, ks))
            hits = hits_in_lists(method.next_item, relevant)
            by_items[method.name] = pd.DataFrame(list_values(hits, np.maximum(many, 1), ks))
    return [
        ("next_category", by_category, has_category),
        ("first_item", by_item, many > 0),
        ("next_items", by_items, many > 0),
    ]


def _means(bootstrap: UserBootstrap, table: pd.DataFrame, rows: Array) -> _Measured:
    values = table.to_numpy()[rows]
    means = values.mean(axis=0) if len(rows) else np.full(table.shape[1], np.nan)
    samples = bootstrap.means(values, rows)
    return {str(metric): (float(means[at]), samples[:, at]) for at, metric in enumerate(table)}


def _binary(
    bootstrap: UserBootstrap,
    labels: Array,
    probabilities: Array,
    rows: Array,
    method: Scores,
    label: str,
) -> _Measured:
    threshold = method.thresholds.get(label, 0.5)
    values = binary_metrics(labels, probabilities, threshold)
    samples = bootstrap.binary(labels, probabilities, threshold, rows)
    return {metric: (values[metric], samples[metric]) for metric in BINARY_METRICS}
