"""Measure methods side by side on the same rows: every metric on every slice, with intervals, and paired differences.

Pure functions over frames and arrays; model/evaluate.py reads the tables and calls them.

Letters used for shapes in this module:

    N  rows    C  categories    K  length of a list of items    R  resamples
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import pandas as pd

from lake.rules import TOP_ITEMS
from model.arrays import Array
from model.data.candidates import columns_of, flat, lengths
from model.judging.baselines import LABELS, Baseline
from model.judging.metrics import (
    BINARY_METRICS,
    UserBootstrap,
    best_threshold,
    binary_metrics,
    calibration_gaps,
    distribution_values,
    hits_in_lists,
    interval,
    list_values,
    ranking_values,
    truth_ranks,
    without_bias,
)
from model.versions.sets import held, mass_before, sizes

CATEGORY_KS = (1, 5, 10)
ITEM_KS = (10, 20)

SLICES = {
    "all": "every row that has the label",
    "judged": "users with enough events on both sides to tell whether they migrated",
    "migrated": "users whose dominant category changed by more than chance explains",
    "new users": "first event no longer ago than the lookback",
    "light users": "the third of users with the fewest events in the lookback, by the training rows",
    "heavy users": "the third of users with the most events in the lookback, by the training rows",
}


@dataclass(frozen=True)
class Metric:
    """One number of one method.

    Attributes:
        method: its name.
        task: `next_category` (the dominant one), `next_items` (all items that come), `first_item` (the first of these
            alone), or a label.
        metric: such as `recall@5` or `roc_auc`. `calibration_error` of `next_category` is that of the probability of
            the category that the method puts first. `set_coverage` is how often the set of categories holds the next
            one, `set_size` how many are in it (model/versions/sets.py).
        slice: one of `SLICES`.
        value: NaN where it is not defined.
        low, high: its 95 % interval.
        n, users: how many rows, and users, it is measured on.
    """

    method: str
    task: str
    metric: str
    slice: str
    value: float
    low: float
    high: float
    n: int
    users: int


@dataclass(frozen=True)
class Difference(Metric):
    """A number of one method minus that of another, on the same rows and resamples.

    Attributes:
        against: name of the other method.
    """

    against: str


METRIC_COLUMNS = tuple(field.name for field in fields(Metric))
DIFFERENCE_COLUMNS = ("method", "against", *METRIC_COLUMNS[1:])


@dataclass
class Scores:
    """What one method says about the test rows; None or a missing label where it says nothing.

    Attributes:
        name: of the method.
        next_category: `(N, C)` scores, none negative; divided by their sum they are probabilities.
        next_item: `(N, K)` int64 keys, best first, 0 for none.
        binary: label to `(N,)` probabilities.
        thresholds: label to the probability from which a row counts as predicted true; 0.5 where missing.
        reach: of the sets of categories, see model/versions/sets.py; None where there are none.
    """

    name: str
    next_category: Array | None = None
    next_item: Array | None = None
    binary: dict[str, Array] = field(default_factory=dict)
    thresholds: dict[str, float] = field(default_factory=dict)
    reach: float | None = None


@dataclass
class Comparison:
    """All methods on the same rows: their metrics, and the differences between them.

    Attributes:
        metrics: one row for each `Metric`.
        differences: one row for each `Difference`: method minus `against`.
        unseen_categories: share of true next categories that are no candidate; they count as misses of every method.
    """

    metrics: pd.DataFrame
    differences: pd.DataFrame
    unseen_categories: float

    def without_tasks(self, names: Collection[str]) -> "Comparison":
        """Return it without the rows of some tasks."""

        def others(table: pd.DataFrame) -> pd.DataFrame:
            return table[~table["task"].isin(list(names))].reset_index(drop=True)

        return Comparison(others(self.metrics), others(self.differences), self.unseen_categories)

    def without_small_groups(self, least: int) -> "Comparison":
        """Return it without the numbers of fewer than `least` users, which say of single people what they did.

        The rows stay, with NaN in place of `value`, `low` and `high`.
        """

        def hidden(table: pd.DataFrame) -> pd.DataFrame:
            return table.assign(**{name: table[name].mask(table["users"] < least) for name in ("value", "low", "high")})

        return Comparison(hidden(self.metrics), hidden(self.differences), self.unseen_categories)


def labels_of_one_answer(test: pd.DataFrame) -> list[str]:
    """Return the labels that are true of all test rows or of none: in them no method is better than another.

    Of a log in which nobody buys, such as one of what people listen to, `purchased` is one.
    """
    return [label for label in LABELS if test[label].dropna().nunique() < 2]


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
        scores.next_item = baseline.next_item(frame, TOP_ITEMS)
    if "binary" in baseline.tasks:
        scores.binary = baseline.binary(frame)
        if valid is not None:
            scores.thresholds = thresholds(valid, baseline.binary(valid))
    return scores


def thresholds(frame: pd.DataFrame, binary: dict[str, Array]) -> dict[str, float]:
    """Return for each label the threshold with the highest F1 on these rows (of validation, not of test)."""
    by_label = {}
    for label, probabilities in binary.items():
        labelled = frame[label].notna().to_numpy()
        by_label[label] = best_threshold(frame[label][labelled].astype(bool).to_numpy(), probabilities[labelled])
    return by_label


def is_true(label: "pd.Series[Any]") -> Array:
    """Return where a label is true, `(N,)` bool; null is not."""
    labelled = label.notna().to_numpy()
    true = np.zeros(len(label), bool)
    true[labelled] = label[labelled].astype(bool)
    return true


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


@dataclass(frozen=True)
class Measurement:
    """A metric of a method on a slice, before it is summed up: its value, and that in each resample, `(R,)`."""

    method: str
    task: str
    metric: str
    slice: str
    value: float
    samples: Array
    n: int
    users: int


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
) -> Comparison:
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
    candidates = pd.Index(categories)
    truth = columns_of(candidates, test["next_category"])
    measurements = measure(test, slices(test, train, lookback_days), methods, candidates, bootstrap)
    metrics = [
        Metric(one.method, one.task, one.metric, one.slice, one.value, *interval(one.samples), one.n, one.users)
        for one in measurements
    ]
    has_category = test["next_category"].notna().to_numpy()
    return Comparison(
        pd.DataFrame(metrics, columns=list(METRIC_COLUMNS)),
        pd.DataFrame(differences(measurements, compare), columns=list(DIFFERENCE_COLUMNS)),
        float((truth[has_category] < 0).mean()) if has_category.any() else 0.0,
    )


def measure(
    test: pd.DataFrame,
    parts: dict[str, Array],
    methods: Sequence[Scores],
    candidates: "pd.Index[Any]",
    bootstrap: UserBootstrap,
) -> list[Measurement]:
    """Measure each method on each slice of each task that it has an answer to.

    Args:
        test: rows of `examples`.
        parts: which of these rows belong to each slice.
        methods: each method's scores.
        candidates: ids of the C categories.
        bootstrap: over the users of these rows.
    """
    measurements: list[Measurement] = []
    for ranking in _rankings(test, methods, candidates):
        for part in _parts(parts, ranking.labelled, bootstrap):
            for method, values in ranking.values.items():
                measured = _means(bootstrap, values, part.rows)
                if method in ranking.gaps:
                    gaps = ranking.gaps[method][part.rows]
                    measured["calibration_error"] = _calibration(gaps, bootstrap, part.rows)
                measurements += part.measurements(method, ranking.task, measured)
    for label in LABELS:
        labels = is_true(test[label])
        for part in _parts(parts, test[label].notna().to_numpy(), bootstrap):
            for scores in methods:
                if label in scores.binary:
                    measured = _binary(bootstrap, labels, part.rows, scores, label)
                    measurements += part.measurements(scores.name, label, measured)
    return measurements


def differences(measurements: Sequence[Measurement], compare: Sequence[str]) -> list[Difference]:
    """Return each metric of the methods to compare minus the same one of every other method that has it."""
    by_place: dict[tuple[str, str], dict[str, dict[str, Measurement]]] = {}
    for one in measurements:
        by_place.setdefault((one.task, one.slice), {}).setdefault(one.method, {})[one.metric] = one
    return [
        difference(one, by_method[against][one.metric])
        for by_method in by_place.values()
        for method in compare
        for against in (by_method if method in by_method else ())
        if against != method
        for one in by_method[method].values()
        if one.metric in by_method[against]
    ]


def difference(one: Measurement, other: Measurement) -> Difference:
    """Return the difference of the same metric of two methods; paired, since they share the resamples."""
    low, high = interval(one.samples - other.samples)
    value = one.value - other.value
    return Difference(one.method, one.task, one.metric, one.slice, value, low, high, one.n, one.users, other.method)


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


# What one method's metrics are on some rows: by metric, the value, and that in each resample, `(R,)`.
_Values = dict[str, tuple[float, Array]]


@dataclass(frozen=True)
class _Part:
    """The rows of a slice that have the truth of a task.

    Attributes:
        slice: its name.
        rows: `(n,)` positions.
        users: how many users they are of.
    """

    slice: str
    rows: Array
    users: int

    def measurements(self, method: str, task: str, values: _Values) -> list[Measurement]:
        """Return a method's metrics on these rows, each with what it is of."""
        return [
            Measurement(method, task, metric, self.slice, value, samples, len(self.rows), self.users)
            for metric, (value, samples) in values.items()
        ]


def _parts(slices_of_rows: dict[str, Array], labelled: Array, bootstrap: UserBootstrap) -> list[_Part]:
    """Return the rows of each slice that are `labelled`, `(N,)` bool."""
    positions = {name: np.flatnonzero(chosen & labelled) for name, chosen in slices_of_rows.items()}
    return [_Part(name, rows, len(np.unique(bootstrap.user[rows]))) for name, rows in positions.items()]


@dataclass(frozen=True)
class _Ranking:
    """A task in which candidates are ranked.

    Attributes:
        task: its name.
        values: by method, the metrics of each row, one column for each.
        labelled: `(N,)` which rows have a truth.
        gaps: by method, where it gives probabilities, `calibration_gaps` of its first choice.
    """

    task: str
    values: dict[str, pd.DataFrame]
    labelled: Array
    gaps: dict[str, Array] = field(default_factory=dict)


def _rankings(test: pd.DataFrame, methods: Sequence[Scores], candidates: "pd.Index[Any]") -> list[_Ranking]:
    """Return the tasks in which candidates are ranked, measured on each row."""
    truth = columns_of(candidates, test["next_category"])
    came = (
        np.repeat(np.arange(len(test)), lengths(test["next_categories"])),
        columns_of(candidates, flat(test["next_categories"], object)),
        flat(test["next_shares"], np.float64),
    )
    by_category, gaps = {}, {}
    for method in methods:
        if method.next_category is not None:
            ranked = ranking_values(truth_ranks(method.next_category, truth), CATEGORY_KS)
            values = ranked | distribution_values(method.next_category, *came)
            if method.reach is not None:
                values |= set_values(method.next_category, truth, method.reach)
            by_category[method.name] = pd.DataFrame(values)
            gaps[method.name] = calibration_gaps(*first_choice(method.next_category, truth))
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
        _Ranking("next_category", by_category, test["next_category"].notna().to_numpy(), gaps),
        _Ranking("first_item", by_item, many > 0),
        _Ranking("next_items", by_items, many > 0),
    ]


def set_values(scores: Array, truth: Array, reach: float) -> dict[str, Array]:
    """Return whether the set of each row holds what came next, and how many categories are in it, each `(N,)`."""
    return {
        "set_coverage": held(mass_before(scores, truth), reach).astype(np.float64),
        "set_size": sizes(scores, reach).astype(np.float64),
    }


def first_choice(scores: Array, truth: Array) -> tuple[Array, Array]:
    """Return whether the likeliest category of each row came next, `(N,)` bool, and its probability, `(N,)`."""
    if not scores.shape[1]:
        return np.zeros(len(scores), bool), np.zeros(len(scores))
    first = scores.argmax(axis=1)
    total = scores.sum(axis=1, dtype=np.float64)
    own = scores[np.arange(len(scores)), first]
    return first == truth, np.divide(own, total, out=np.zeros(len(scores)), where=total > 0)


def _calibration(gaps: Array, bootstrap: UserBootstrap, rows: Array) -> tuple[float, Array]:
    value = float(np.abs(gaps.sum(axis=0)).sum() / len(gaps)) if len(gaps) else float("nan")
    return without_bias(value, np.abs(bootstrap.means(gaps, rows)).sum(axis=1))


def _means(bootstrap: UserBootstrap, table: pd.DataFrame, rows: Array) -> _Values:
    values = table.to_numpy()[rows]
    means = values.mean(axis=0) if len(rows) else np.full(table.shape[1], np.nan)
    samples = bootstrap.means(values, rows)
    return {str(metric): (float(means[at]), samples[:, at]) for at, metric in enumerate(table)}


def _binary(bootstrap: UserBootstrap, labels: Array, rows: Array, method: Scores, label: str) -> _Values:
    threshold, probabilities = method.thresholds.get(label, 0.5), method.binary[label][rows]
    values = binary_metrics(labels[rows], probabilities, threshold)
    samples = bootstrap.binary(labels[rows], probabilities, threshold, rows)
    error = "calibration_error"
    values[error], samples[error] = without_bias(values[error], samples[error])
    return {metric: (values[metric], samples[metric]) for metric in BINARY_METRICS}
