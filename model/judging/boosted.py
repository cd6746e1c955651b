"""Gradient-boosted trees on hand-made features: the baseline that is hardest to beat (LightGBM, Ke et al., NIPS 2017).

Binary labels come from the scalars of `interests`, and from how the lookback stands to the user's own history. The next
category comes from one row for each pair of a user and a candidate: how much, how lately and how regularly that user
met that category, and how popular it is with all.

Letters used for shapes in this module:

    N  rows    C  categories    P  pairs of row and candidate    F  features

What has been grown is in model/versions/trees.py, what the trees see in model/data/candidates.py.
"""

from typing import Any

import lightgbm as lgb
import numpy as np
import pandas as pd

from model.arrays import Array
from model.data.candidates import PAIR_FEATURES, Candidates, columns_of, label_features, lengths
from model.judging.baselines import LABELS, Baseline, category_matrix
from model.versions.trees import AT_ONCE, Trees

# Deterministic with a fixed number of threads.
_PARAMETERS: dict[str, Any] = {
    "objective": "binary",
    "deterministic": True,
    "force_row_wise": True,
    "verbose": -1,
    "feature_fraction": 0.7,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
}
_PATIENCE = 40
# What is tried, on a sample and in large steps; the best on the validation rows is grown on all rows in small ones.
# The last number is the least share of the rows in a leaf, times 1,000.
_TRIED: tuple[dict[str, float], ...] = (
    {"num_leaves": 15, "lambda_l2": 5, "leaf": 1},
    {"num_leaves": 7, "lambda_l2": 5, "leaf": 1},
    {"num_leaves": 31, "lambda_l2": 5, "leaf": 1},
    {"num_leaves": 31, "lambda_l2": 50, "leaf": 4},
)
_TRIED_RATE = 0.2
# Threads of LightGBM wait busily for each other after each step: with few rows for each, they do little else.
_ROWS_A_THREAD = 50_000
# Labels have few features, and small steps cost little.
_PAIRS_RATE, _LABELS_RATE = 0.1, 0.03


class Boosted(Baseline):
    """What methods share that grow trees; how large these are, and how many, say validation rows.

    Args:
        seed: of sampling and bagging.
        most_tried: pairs, or rows, on which the settings are tried out.
        rounds: trees at most.
        threads: of LightGBM at most; fewer for few rows. They wait busily for each other, so more than there are idle
            cores slow it down badly.
    """

    def __init__(self, seed: int, most_tried: int, rounds: int, threads: int):
        self.seed, self.most_tried, self.rounds, self.threads = seed, most_tried, rounds, threads

    def _boost(self, train: tuple[Array, Array], valid: tuple[Array, Array], rate: float) -> lgb.Booster | None:
        """Grow trees in the way that does best on the validation rows; None where a side has one class only."""
        if any(len(np.unique(labels)) < 2 for _, labels in (train, valid)):
            return None
        few = [(rows[chosen], labels[chosen]) for rows, labels in (train, valid) for chosen in [self._drawn(len(rows))]]
        if any(len(np.unique(labels)) < 2 for _, labels in few):
            few = [train, valid]
        tried = [self._grow(few[0], few[1], _TRIED_RATE, **how) for how in _TRIED]
        losses = [booster.best_score["valid_0"]["binary_logloss"] for booster in tried]
        return self._grow(train, valid, rate, **_TRIED[int(np.argmin(losses))])

    def _drawn(self, size: int) -> Array:
        """Return the positions of a sample of `most_tried` at most, in their order."""
        if size <= self.most_tried:
            return np.arange(size)
        return np.sort(np.random.default_rng(self.seed).choice(size, self.most_tried, replace=False))

    def _grow(
        self, train: tuple[Array, Array], valid: tuple[Array, Array], rate: float, leaf: float, **how: float
    ) -> lgb.Booster:
        """Grow trees until the validation loss no longer falls."""
        rows = lgb.Dataset(*train)
        threads = min(self.threads, 1 + len(train[1]) // _ROWS_A_THREAD)
        more = {"learning_rate": rate, "min_data_in_leaf": max(int(leaf * len(train[1]) / 1000), 5)}
        return lgb.train(
            _PARAMETERS | {"seed": self.seed, "num_threads": threads} | more | how,
            rows,
            self.rounds,
            valid_sets=[lgb.Dataset(*valid, reference=rows)],
            callbacks=[lgb.early_stopping(_PATIENCE, verbose=False)],
        )


class BoostedTrees(Boosted):
    """LightGBM for the next category and for the binary labels.

    Args:
        seed: as in `Boosted`.
        most_pairs: the budget: training rows are turned into as many pairs at most, and of validation rows a quarter
            as many; of more rows a sample is drawn that fits. A pair takes some 130 bytes, so 4 million take half a
            gigabyte. The demo's 34,688 training rows are all within it.
        most_tried: as in `Boosted`.
        most_popular: candidates that every user has besides the categories of their own history; categories that are
            no candidate stand below all candidates, by popularity.
        rounds: as in `Boosted`.
        threads: as in `Boosted`.
    """

    name = "boosted trees"
    tasks = ("next_category", "binary")

    def __init__(
        self,
        seed: int = 1,
        most_pairs: int = 4_000_000,
        most_tried: int = 300_000,
        most_popular: int = 40,
        rounds: int = 600,
        threads: int = 2,
    ):
        super().__init__(seed, most_tried, rounds, threads)
        self.most_pairs, self.most_popular = most_pairs, most_popular

    def learn(self, train: pd.DataFrame, valid: pd.DataFrame) -> None:
        heads = {label: self._learn_label(label, train, valid) for label in LABELS}
        self.candidates = self._candidates(train)
        self.trees = Trees(self.candidates, self._learn_pairs(train, valid), heads, self.threads)

    def binary(self, frame: pd.DataFrame) -> dict[str, Array]:
        return self.trees.binary(frame)

    def next_category(self, frame: pd.DataFrame) -> Array:
        return self.trees.next_category(frame)

    # --- binary labels ---

    def _learn_label(self, label: str, train: pd.DataFrame, valid: pd.DataFrame) -> lgb.Booster | float:
        sides = []
        for frame in (train, valid):
            labelled = frame[frame[label].notna()]
            sides.append((label_features(labelled), labelled[label].astype(bool).to_numpy().astype(np.float64)))
        model = self._boost(sides[0], sides[1], _LABELS_RATE)
        if model is not None:
            return model
        return float(sides[0][1].mean()) if len(sides[0][1]) else 0.5

    # --- next category ---

    def _candidates(self, train: pd.DataFrame) -> Candidates:
        size = len(self.categories)
        recent = train[train["dt"] > train["dt"].max() - pd.Timedelta(days=28)]
        labels = columns_of(self.categories, recent["next_category"].dropna())
        counts = np.bincount(labels[labels >= 0], minlength=size) + 0.5
        lately = counts / counts.sum()
        events = category_matrix(train, "next_categories", "next_shares", self.categories).sum(axis=0)
        events = np.asarray(events).ravel() + 0.5
        # A category new in the last weeks is a candidate too.
        common = np.argsort(-(self.popularity + lately), kind="stable")[: self.most_popular]
        return Candidates(self.categories, self.popularity, lately, events / events.sum(), common)

    def _learn_pairs(self, train: pd.DataFrame, valid: pd.DataFrame) -> lgb.Booster | None:
        # One pair in some ninety is true: pointwise log loss ranks as well here as LambdaRank and XE-NDCG, and its
        # scores are probabilities.
        most = self.most_pairs
        return self._boost(self._labelled_pairs(train, most), self._labelled_pairs(valid, most // 4), _PAIRS_RATE)

    def _labelled_pairs(self, frame: pd.DataFrame, most: int) -> tuple[Array, Array]:
        """Return the features of the pairs of rows with a next category, and which of them it is; `most` at most."""
        labelled = frame[frame["next_category"].notna()]
        # At most: a user's own categories are among those that everyone has, too.
        sizes = lengths(labelled["longterm_categories"]) + len(self.candidates.common)
        order = np.random.default_rng(self.seed).permutation(len(labelled))
        labelled = labelled.iloc[np.sort(order[np.cumsum(sizes[order]) <= most])]
        truth = columns_of(self.categories, labelled["next_category"])
        features, is_next = [np.zeros((0, len(PAIR_FEATURES)), np.float32)], [np.zeros(0)]
        for start in range(0, len(labelled), AT_ONCE):
            rows, columns, values = self.candidates.pairs(labelled.iloc[start : start + AT_ONCE])
            features.append(values)
            is_next.append((columns == truth[start + rows]).astype(np.float64))
        return np.concatenate(features), np.concatenate(is_next)
