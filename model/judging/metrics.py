"""How good predictions are, and how sure we can be of it: binary heads, rankings, and a bootstrap over users.

Letters used for shapes in this module:

    N  rows    C  candidates (categories or items)    K  length of a list    U  users    R  resamples    M  measures

A *row* is one user at one date, so a user has several rows, and they are alike. Intervals therefore come from
resampling users with all their rows (the cluster bootstrap), never single rows.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from model.arrays import Array

BINARY_METRICS = (
    "roc_auc",
    "pr_auc",
    "log_loss",
    "brier",
    "calibration_error",
    "accuracy",
    "precision",
    "recall",
    "f1",
)
LOWER_IS_BETTER = frozenset({"log_loss", "brier", "calibration_error", "cross_entropy", "set_size"})

# A probability of exactly 0 or 1 that turns out wrong would cost an infinite log loss.
MIN_PROBABILITY = 1e-7
CALIBRATION_BINS = 15


# --- binary heads --------------------------------------------------------------------------------------


def binary_metrics(labels: Array, probabilities: Array, threshold: float = 0.5) -> dict[str, float]:
    """Return the metrics of `BINARY_METRICS` for one head.

    Args:
        labels: `(N,)` bool.
        probabilities: `(N,)` of the label being true.
        threshold: a row counts as predicted true from this probability on; only the last four metrics depend on it.

    Returns:
        Metric to value. The area under the ROC curve, under the precision-recall curve (average precision) are NaN when
        the labels hold one class only; precision, recall and F1 are 0 where they would divide by 0; `calibration_error`
        is the expected calibration error over 15 equal bins (Guo et al., arXiv:1706.04599).

    >>> metrics = binary_metrics(np.array([True, False, True]), np.array([0.9, 0.2, 0.4]))
    >>> metrics["roc_auc"], round(metrics["accuracy"], 3), metrics["precision"], metrics["recall"]
    (1.0, 0.667, 1.0, 0.5)
    """
    labels, probabilities = checked_binary(labels, probabilities)
    if not len(labels):
        return dict.fromkeys(BINARY_METRICS, float("nan"))
    both = labels.any() and not labels.all()
    areas = {
        "roc_auc": float(roc_auc_score(labels, probabilities)) if both else float("nan"),
        "pr_auc": float(average_precision_score(labels, probabilities)) if both else float("nan"),
    }
    sums = binary_terms(labels, probabilities, threshold).sum(axis=0, keepdims=True)  # (1, M)
    return areas | {name: float(values[0]) for name, values in from_binary_sums(sums).items()}


def checked_binary(labels: Array, probabilities: Array) -> tuple[Array, Array]:
    """Return labels as bool and probabilities as float64, both `(N,)`.

    Raises:
        ValueError: lengths differ, or something is no probability.
    """
    labels, probabilities = np.asarray(labels, bool), np.asarray(probabilities, np.float64)
    if labels.shape != probabilities.shape or labels.ndim != 1:
        raise ValueError(
            f"labels and probabilities must be of one length, received {labels.shape} and {probabilities.shape}"
        )
    if not ((probabilities >= 0) & (probabilities <= 1)).all():
        strange = probabilities[~((probabilities >= 0) & (probabilities <= 1))][:3]
        raise ValueError(
            f"probabilities must lie in [0, 1], received {strange.tolist()}; pass scores through a sigmoid"
        )
    return labels, probabilities


def binary_terms(labels: Array, probabilities: Array, threshold: float) -> Array:
    """Return what each row adds to the metrics that are functions of sums over rows, `(N, M)`."""
    clipped = np.clip(probabilities, MIN_PROBABILITY, 1 - MIN_PROBABILITY)
    predicted = probabilities >= threshold
    columns = (
        np.ones(len(labels)),
        -np.log(np.where(labels, clipped, 1 - clipped)),
        (labels - probabilities) ** 2,
        predicted == labels,
        predicted & labels,
        predicted,
        labels,
    )
    return np.column_stack([*columns, calibration_gaps(labels, probabilities)]).astype(np.float64)


def calibration_gaps(labels: Array, probabilities: Array) -> Array:
    """Return what came minus what was said for each row, in the column of its probability's bin, `(N, bins)`."""
    gaps = np.zeros((len(labels), CALIBRATION_BINS))
    place = np.minimum((probabilities * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    gaps[np.arange(len(labels)), place] = labels - probabilities
    return gaps


def from_binary_sums(sums: Array) -> dict[str, Array]:
    """Turn sums `(R, M)` of `binary_terms` into metrics, each `(R,)`."""
    n, log_loss, brier, right, hits, predicted, true = sums[:, :7].T
    with np.errstate(divide="ignore", invalid="ignore"):
        # Where a resample holds no row of a slice, nothing is defined.
        none = np.where(n > 0, 0.0, np.nan)
        precision = np.where(predicted > 0, hits / predicted, none)
        recall = np.where(true > 0, hits / true, none)
        f1 = np.where(predicted + true > 0, 2 * hits / (predicted + true), none)
        return {
            "log_loss": log_loss / n,
            "brier": brier / n,
            "calibration_error": np.abs(sums[:, 7:]).sum(axis=1) / n,
            "accuracy": right / n,
            "precision": precision,
            "recall": recall,
            "f1": f1,
        }


def best_threshold(labels: Array, probabilities: Array) -> float:
    """Return the threshold with the highest F1: to be chosen on validation rows, and used on test rows.

    >>> best_threshold(np.array([True, True, False]), np.array([0.3, 0.2, 0.1]))
    0.2
    """
    labels, probabilities = checked_binary(labels, probabilities)
    if not labels.any():
        return 0.5
    precision, recall, thresholds = precision_recall_curve(labels, probabilities)
    with np.errstate(divide="ignore", invalid="ignore"):
        f1 = np.nan_to_num(2 * precision * recall / (precision + recall))
    return float(thresholds[np.argmax(f1[:-1])])


# --- rankings ------------------------------------------------------------------------------------------


def truth_ranks(scores: Array, truth: Array, chunk: int = 4096) -> Array:
    """Return the rank of each row's truth among all candidates, 1 for the best: full ranking, nothing sampled.

    Ties count against the method: the truth stands behind every candidate with the same score, so a method that gives
    all candidates one score is last, not first.

    Args:
        scores: `(N, C)`.
        truth: `(N,)` column of the true candidate, or -1 when it is none of them.
        chunk: rows compared at once, which bounds the memory.

    Returns:
        `(N,)` float64; infinite where the truth is no candidate, so that such a row counts as a miss in every metric.

    Raises:
        ValueError: shapes do not fit, a score is NaN, or a truth lies beyond the candidates.

    >>> truth_ranks(np.array([[0.1, 0.7, 0.2], [0.5, 0.5, 0.0], [0.5, 0.3, 0.2]]), np.array([1, 0, -1])).tolist()
    [1.0, 2.0, inf]
    """
    scores, truth = np.asarray(scores), np.asarray(truth)
    if scores.ndim != 2 or truth.shape != scores.shape[:1]:
        raise ValueError(f"scores must be (N, C) and truth (N,), received {scores.shape} and {truth.shape}")
    if len(truth) and (truth.max() >= scores.shape[1] or truth.min() < -1):
        raise ValueError(f"truth must be a column of the {scores.shape[1]} candidates or -1, received {truth.max()}")
    ranks = np.full(len(truth), np.inf)
    for start in range(0, len(truth), chunk):
        part = scores[start : start + chunk]
        if np.isnan(part).any():
            raise ValueError(f"scores of rows {start} to {start + len(part) - 1} hold NaN")
        rows = np.flatnonzero(truth[start : start + chunk] >= 0)
        own = part[rows, truth[start + rows]]
        ranks[start + rows] = (part[rows] >= own[:, None]).sum(axis=1)
    return ranks


def ranking_values(ranks: Array, ks: Sequence[int] = (1, 5, 10)) -> dict[str, Array]:
    """Return Recall@k, NDCG@k and the reciprocal rank of each row, each `(N,)`, for one true candidate a row.

    >>> values = ranking_values(np.array([1.0, 3.0, np.inf]), ks=(1, 5))
    >>> values["recall@5"].tolist(), values["ndcg@5"].tolist(), values["mrr"].round(3).tolist()
    ([1.0, 1.0, 0.0], [1.0, 0.5, 0.0], [1.0, 0.333, 0.0])
    """
    ranks = np.asarray(ranks, np.float64)
    values: dict[str, Array] = {}
    for k in ks:
        values[f"recall@{k}"] = (ranks <= k).astype(np.float64)
    for k in ks:
        values[f"ndcg@{k}"] = np.where(ranks <= k, 1 / np.log2(1 + ranks), 0.0)
    return values | {"mrr": 1 / ranks}


def distribution_values(scores: Array, rows: Array, columns: Array, shares: Array, k: int = 5) -> dict[str, Array]:
    """Return how well scores tell all that came, not the first of it alone, each `(N,)`.

    - `tied_recall@k`: 1 where any of the candidates with the largest share is among the k best. Which of several that
      are level counts as the first is decided by the order of a table, which nobody can learn from the user.
    - `shares_ndcg@k`: each of the k best gains its share, discounted by its rank; divided by that of the best ranking.
    - `cross_entropy`: of the shares against the scores divided by their sum, in nats.

    As in `truth_ranks`, ties of scores count against the method, and what is no candidate cannot be had: it takes part
    in the best ranking, and has the least probability in the cross entropy.

    Args:
        scores: `(N, C)`, none negative.
        rows: `(P,)` row of each category that came.
        columns: `(P,)` its column, or -1 when it is no candidate.
        shares: `(P,)` its share; those of a row sum to 1. A row without any has NaN everywhere.
        k: how many of the best ones are looked at.

    Raises:
        ValueError: a score is negative.

    >>> found = distribution_values(np.array([[0.5, 0.3, 0.2]]), np.zeros(2, int), np.array([1, 2]), np.full(2, 0.5), 1)
    >>> {name: values.round(3).tolist() for name, values in found.items()}
    {'tied_recall@1': [0.0], 'shares_ndcg@1': [0.0], 'cross_entropy': [1.407]}
    """
    scores = np.asarray(scores)
    if scores.size and scores.min() < 0:
        raise ValueError(f"scores must not be negative, received {scores.min()}; pass logits through a softmax")
    n = len(scores)
    known = columns >= 0
    ranks = np.full(len(rows), np.inf)
    ranks[known] = ranks_within(scores, rows[known], columns[known], k)
    largest, best = np.zeros(n), np.full(n, np.inf)
    np.maximum.at(largest, rows, shares)
    first = shares == largest[rows]
    np.minimum.at(best, rows[first], ranks[first])
    order = np.lexsort((-shares, rows))
    place = np.arange(len(rows)) - np.searchsorted(rows[order], rows[order])
    ideal = np.bincount(rows[order], np.where(place < k, shares[order] / np.log2(2 + place), 0), n)
    gained = np.bincount(rows, np.where(ranks <= k, shares / np.log2(1 + ranks), 0), n)
    total = scores.sum(axis=1, dtype=np.float64)
    chances = np.zeros(len(rows))
    with np.errstate(divide="ignore", invalid="ignore"):
        chances[known] = np.nan_to_num(scores[rows[known], columns[known]] / total[rows[known]])
        values = {
            f"tied_recall@{k}": (best <= k).astype(np.float64),
            f"shares_ndcg@{k}": gained / ideal,
            "cross_entropy": np.bincount(rows, -shares * np.log(np.maximum(chances, MIN_PROBABILITY)), n),
        }
    some = np.bincount(rows, minlength=n) > 0
    return {name: np.where(some, of_rows, np.nan) for name, of_rows in values.items()}


def ranks_within(scores: Array, rows: Array, columns: Array, k: int, chunk: int = 4096) -> Array:
    """Return the rank of each pair of row and column as in `truth_ranks`, `(P,)`; some number above k for others.

    >>> ranks_within(np.array([[0.4, 0.1, 0.4, 0.1]]), np.zeros(4, int), np.arange(4), 2).tolist()
    [2.0, inf, 2.0, inf]
    """
    k = min(k, scores.shape[1])
    top, level = np.zeros((len(scores), k)), np.zeros(len(scores))
    for start in range(0, len(scores) if k else 0, chunk):
        part = scores[start : start + chunk]
        best = np.partition(part, -k, axis=1)[:, -k:]
        top[start : start + chunk] = best
        # Level with the last of the best ones there may be others.
        level[start : start + chunk] = (part >= best[:, :1]).sum(axis=1)
    if not k:
        return np.full(len(rows), np.inf)
    own = scores[rows, columns].astype(np.float64)
    above = (top[rows] >= own[:, None]).sum(axis=1)
    return np.where(own > top[rows, 0], above, np.where(own == top[rows, 0], level[rows], np.inf))


def hits_in_lists(lists: Array, relevant: Sequence[Array]) -> Array:
    """Return which recommended keys are relevant, `(N, K)` bool.

    Args:
        lists: `(N, K)` int64 keys, best first; 0 stands for no recommendation.
        relevant: for each row the keys that came true.

    A key that a list repeats counts once, at its first place.
    """
    lists = np.asarray(lists, np.int64)
    n, k = lists.shape
    sizes = np.fromiter((len(keys) for keys in relevant), np.int64, n)
    wanted_rows = np.repeat(np.arange(n), sizes)
    wanted_keys = np.concatenate([np.asarray(keys, np.int64) for keys in relevant]) if n else np.zeros(0, np.int64)
    rows = np.repeat(np.arange(n), k)
    # Rows and keys become one number, so that membership is one sorted search instead of N small ones.
    codes, uniques = pd.factorize(np.concatenate([lists.ravel(), wanted_keys]))
    pairs = np.concatenate([rows, wanted_rows]) * len(uniques) + codes
    offered, wanted = pairs[: n * k], pairs[n * k :]
    first = np.zeros(n * k, bool)
    first[np.unique(offered, return_index=True)[1]] = True
    named = np.isin(offered, wanted) & first & (lists.ravel() != 0)
    return np.asarray(named.reshape(n, k))


def list_values(hits: Array, relevant: Array, ks: Sequence[int] = (10, 20)) -> dict[str, Array]:
    """Return Recall@k, NDCG@k, hit rate and reciprocal rank of each row, each `(N,)`, for several truths a row.

    Recall@k divides by all that came true, as RecTools and RecBole do, so that it may be unable to reach 1; NDCG@k has
    binary gains and divides by the best possible list. The reciprocal rank is that of the first hit, 0 without one.

    Args:
        hits: `(N, K)` of `hits_in_lists`.
        relevant: `(N,)` how many keys came true, at least 1.
        ks: none above K.

    >>> values = list_values(np.array([[True, False, True], [False, False, False]]), np.array([4, 1]), ks=(1, 3))
    >>> values["recall@3"].tolist(), values["hit_rate@3"].tolist(), values["mrr"].tolist()
    ([0.5, 0.0], [1.0, 0.0], [1.0, 0.0])
    """
    if max(ks) > hits.shape[1]:
        raise ValueError(f"lists hold {hits.shape[1]} candidates, k={max(ks)} needs as many")
    discounts = 1 / np.log2(np.arange(2, hits.shape[1] + 2))
    ideal = np.concatenate([[0], np.cumsum(discounts)])
    values: dict[str, Array] = {}
    for k in ks:
        hits_at_k = hits[:, :k].sum(axis=1)
        values[f"recall@{k}"] = hits_at_k / relevant
        values[f"ndcg@{k}"] = hits[:, :k] @ discounts[:k] / ideal[np.minimum(relevant, k)]
        values[f"hit_rate@{k}"] = (hits_at_k > 0).astype(np.float64)
    first = np.where(hits.any(axis=1), hits.argmax(axis=1) + 1, np.inf)
    return values | {"mrr": 1 / first}


# --- how sure ------------------------------------------------------------------------------------------


class UserBootstrap:
    """Resamples of users, drawn once, so that every method and every slice is measured on the same ones.

    Users are drawn with replacement and bring all their rows (the cluster bootstrap: Field and Welsh, J. R. Stat. Soc.
    B 69, 2007). Because methods share the resamples, the difference of two of them is paired.

    Args:
        users: `(N,)` whose row each is.
        resamples: R.
        seed: of the draws.
    """

    # Resamples weighted at once where every row needs its weight: bounds the memory to about 100 N numbers.
    _AT_ONCE = 100

    def __init__(self, users: Array, resamples: int = 1000, seed: int = 0):
        self.user, names = pd.factorize(np.asarray(users))
        draws = np.random.default_rng(seed)
        each = np.full(len(names), 1 / max(len(names), 1))
        # How often each resample holds each user, (R, U).
        self.counts = draws.multinomial(len(names), each, size=resamples).astype(np.float64)

    def sums(self, values: Array, rows: Array | None = None) -> Array:
        """Return the sum of `values` `(n, M)` over the rows of each resample, `(R, M)`.

        Args:
            values: one line for each row, or for each of `rows`.
            rows: `(n,)` positions of the rows that are looked at; all by default.
        """
        users = self.user if rows is None else self.user[rows]
        by_user = np.zeros((self.counts.shape[1], values.shape[1]))
        np.add.at(by_user, users, values)
        return self.counts @ by_user

    def means(self, values: Array, rows: Array | None = None) -> Array:
        """Return the mean of `values` `(n, M)` over the rows of each resample, `(R, M)`; NaN where it has none."""
        totals = self.sums(np.column_stack([values, np.ones(len(values))]), rows)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(totals[:, :-1] / totals[:, -1:])

    def areas(self, labels: Array, scores: Array, rows: Array | None = None) -> tuple[Array, Array]:
        """Return the area under the ROC curve, and average precision, in each resample, both `(R,)`.

        They equal scikit-learn's with the multiplicities as sample weights, but the rows are sorted once for all R.

        Args:
            labels: `(n,)` bool.
            scores: `(n,)`, higher for true.
            rows: `(n,)` positions of these rows; all by default.
        """
        users = self.user if rows is None else self.user[rows]
        order = np.argsort(-np.asarray(scores), kind="stable")
        labels, scores, users = np.asarray(labels, bool)[order], np.asarray(scores)[order], users[order]
        if not len(labels):
            return (np.full(len(self.counts), np.nan),) * 2
        # Rows of equal score enter the curves together.
        starts = np.flatnonzero(np.r_[True, scores[1:] != scores[:-1]])
        roc, precision = np.empty(len(self.counts)), np.empty(len(self.counts))
        for at in range(0, len(self.counts), self._AT_ONCE):
            weights = self.counts[at : at + self._AT_ONCE, users]  # (r, n)
            true = np.add.reduceat(weights * labels, starts, axis=1)
            false = np.add.reduceat(weights * ~labels, starts, axis=1)
            hits, misses = np.cumsum(true, axis=1), np.cumsum(false, axis=1)
            with np.errstate(divide="ignore", invalid="ignore"):
                # A false row is outranked by every true row above it, and by half of those level with it.
                roc[at : at + self._AT_ONCE] = ((hits - true / 2) * false).sum(axis=1) / (hits[:, -1] * misses[:, -1])
                part = np.where(hits > 0, hits / (hits + misses), 0.0)
                average = np.where(misses[:, -1] > 0, (part * true).sum(axis=1) / hits[:, -1], np.nan)
                precision[at : at + self._AT_ONCE] = average
        return roc, precision

    def binary(
        self, labels: Array, probabilities: Array, threshold: float = 0.5, rows: Array | None = None
    ) -> dict[str, Array]:
        """Return the metrics of `binary_metrics` in each resample, each `(R,)`."""
        labels, probabilities = checked_binary(labels, probabilities)
        roc, precision = self.areas(labels, probabilities, rows)
        sums = self.sums(binary_terms(labels, probabilities, threshold), rows)
        return {"roc_auc": roc, "pr_auc": precision, **from_binary_sums(sums)}


def without_bias(value: float, samples: Array) -> tuple[float, Array]:
    """Return a calibration error and its bootstrap samples `(R,)`, both without their bias.

    Gaps by chance do not cancel, since each counts by its size: the error that is measured is too high, and that of a
    resample, in which chance strikes once more, is too high twice. By how much is what the mean of the resamples lies
    above the value (Efron and Tibshirani 1993, chapter 10); it is taken off once, and twice. Some bias stays:
    of a bin in which what is said is right, more than half. Nothing is below 0.

    >>> without_bias(0.05, np.array([0.06, 0.07, 0.08]))[0].__round__(3)
    0.03
    """
    if np.isnan(samples).all():
        return value, samples
    bias = float(np.nanmean(samples)) - value
    return max(value - bias, 0.0), np.maximum(samples - 2 * bias, 0.0)


def interval(samples: Array, level: float = 0.95) -> tuple[float, float]:
    """Return the percentile interval of bootstrap samples; resamples in which the metric is not defined are left out.

    >>> interval(np.arange(101.0), level=0.5)
    (25.0, 75.0)
    """
    samples = np.asarray(samples, np.float64)
    samples = samples[~np.isnan(samples)]
    if not len(samples):
        return float("nan"), float("nan")
    low, high = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
