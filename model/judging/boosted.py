"""Gradient-boosted trees on hand-made features: the baseline that is hardest to beat (LightGBM, Ke et al., NIPS 2017).

Binary labels come from the scalars of `interests`. The next category comes from one row for each pair of a user and a
candidate: how much, how lately and how regularly that user met that category, and how popular it is with all.

Letters used for shapes in this module:

    N  rows    C  categories    P  pairs of row and candidate    F  features
"""

from typing import Any

import lightgbm as lgb
import numpy as np
import pandas as pd

from model.arrays import Array
from model.data.features import SCALARS
from model.judging.baselines import LABELS, Baseline, category_matrix, columns_of, flat, lengths

PAIR_FEATURES = (
    "count",
    "share",
    "smoothed_share",
    "expected_events",
    "lift",
    "days",
    "share_of_days",
    "events_a_day",
    "current_count",
    "current_share",
    "week_count",
    "decayed_share",
    "age_seconds",
    "rank_by_count",
    "rank_by_current",
    "rank_by_decayed",
    "popularity",
    "recent_popularity",
    "share_of_events",
    "history_events",
    "history_days_active",
    "frequency",
    "active_days",
    "recency_seconds",
    "tenure_seconds",
)

# Deterministic with a fixed number of threads.
_PARAMETERS: dict[str, Any] = {
    "objective": "binary",
    "deterministic": True,
    "force_row_wise": True,
    "verbose": -1,
    "num_leaves": 15,
    "feature_fraction": 0.7,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "lambda_l2": 5.0,
}
_PATIENCE = 40


def scalar_features(frame: pd.DataFrame) -> Array:
    """Return what describes a user as a whole, `(N, F)` float64; NaN where it is not known."""
    values = frame[list(SCALARS)].to_numpy(np.float64)
    by_name = dict(zip(SCALARS, values.T, strict=True))

    def ratio(above: Array, below: Array) -> Array:
        shares: Array = np.divide(above, below, out=np.full(len(above), np.nan), where=below > 0)
        return shares

    # Days between two visits, and how overdue the next one is.
    gap = ratio(by_name["tenure_seconds"], by_name["history_days_active"])
    ratios = [
        gap,
        ratio(by_name["recency_seconds"], gap),
        ratio(by_name["frequency"], by_name["active_days"]),
        ratio(by_name["spend"], by_name["frequency"]),
        ratio(by_name["frequency"], by_name["history_events"]),
        ratio(by_name["active_days"], by_name["history_days_active"]),
    ]
    shapes = [
        shape
        for kind in ("current", "longterm")
        for shape in (lengths(frame[f"{kind}_categories"]), *concentration(frame[f"{kind}_shares"]))
    ]
    return np.column_stack([values, *ratios, *shapes])


def concentration(shares: "pd.Series[Any]") -> tuple[Array, Array]:
    """Return the entropy (nats) and the largest of each list of shares, both `(N,)`."""
    rows = np.repeat(np.arange(len(shares)), lengths(shares))
    values = flat(shares, np.float64)
    positive = np.where(values > 0, values, 1)
    entropy = np.bincount(rows, weights=-positive * np.log(positive), minlength=len(shares))
    largest = np.zeros(len(shares))
    np.maximum.at(largest, rows, values)
    return entropy, largest


def rank_within(groups: Array, values: Array) -> Array:
    """Return the place of each value among those of its group, 0 for the largest; groups are sorted.

    >>> rank_within(np.array([0, 0, 0, 1]), np.array([2.0, 5.0, 2.0, 1.0])).tolist()
    [1, 0, 2, 0]
    """
    order = np.lexsort((-values, groups))
    sizes = np.bincount(groups)
    starts = np.repeat(np.cumsum(sizes) - sizes, sizes)
    places = np.empty(len(groups), np.int64)
    places[order] = np.arange(len(groups)) - starts
    return places


class BoostedTrees(Baseline):
    """LightGBM for the next category and for the binary labels, stopped early on the validation rows.

    Args:
        seed: of sampling and bagging.
        most_rows: training rows that are turned into pairs; more are sampled down to it. On the demo log 12,000 rows
            are a million pairs, and 20,000 rows were no better.
        most_popular: candidates that every user has besides the categories of their own history; categories that are
            no candidate stand below all candidates, by popularity.
        rounds: trees at most.
        threads: of LightGBM. They wait busily for each other, so more than there are idle cores slow it down badly.
    """

    name = "boosted trees"
    tasks = ("next_category", "binary")

    # Rows turned into pairs at once when predicting: bounds the memory to some 50 MB.
    _AT_ONCE = 2048

    def __init__(
        self, seed: int = 1, most_rows: int = 12_000, most_popular: int = 40, rounds: int = 600, threads: int = 2
    ):
        self.seed, self.most_rows, self.most_popular = seed, most_rows, most_popular
        self.rounds, self.threads = rounds, threads

    def learn(self, train: pd.DataFrame, valid: pd.DataFrame) -> None:
        self.heads = {label: self._learn_label(label, train, valid) for label in LABELS}
        self._learn_popularity(train)
        self.ranker = self._learn_pairs(train, valid)

    def _boost(self, train: tuple[Array, Array], valid: tuple[Array, Array], **parameters: Any) -> lgb.Booster | None:
        """Grow trees until the validation loss no longer falls; None where a side has one class only."""
        if any(len(np.unique(labels)) < 2 for _, labels in (train, valid)):
            return None
        rows = lgb.Dataset(*train)
        return lgb.train(
            _PARAMETERS | {"seed": self.seed, "num_threads": self.threads} | parameters,
            rows,
            self.rounds,
            valid_sets=[lgb.Dataset(*valid, reference=rows)],
            callbacks=[lgb.early_stopping(_PATIENCE, verbose=False)],
        )

    # --- binary labels ---

    def _learn_label(self, label: str, train: pd.DataFrame, valid: pd.DataFrame) -> lgb.Booster | float:
        sides = []
        for frame in (train, valid):
            labelled = frame[frame[label].notna()]
            sides.append((scalar_features(labelled), labelled[label].astype(bool).to_numpy().astype(np.float64)))
        size = max(len(sides[0][1]) // 400, 5)
        model = self._boost(sides[0], sides[1], learning_rate=0.03, min_data_in_leaf=size)
        if model is not None:
            return model
        return float(sides[0][1].mean()) if len(sides[0][1]) else 0.5

    def binary(self, frame: pd.DataFrame) -> dict[str, Array]:
        features = scalar_features(frame)
        return {
            label: np.full(len(frame), model)
            if isinstance(model, float)
            else np.asarray(model.predict(features, num_threads=self.threads))
            for label, model in self.heads.items()
        }

    # --- next category ---

    def _learn_popularity(self, train: pd.DataFrame) -> None:
        size = len(self.categories)
        recent = train[train["dt"] > train["dt"].max() - pd.Timedelta(days=28)]
        labels = columns_of(self.categories, recent["next_category"].dropna())
        counts = np.bincount(labels[labels >= 0], minlength=size) + 0.5
        self.recent_popularity = counts / counts.sum()  # (C,)
        events = category_matrix(train, "next_categories", "next_shares", self.categories).sum(axis=0)
        events = np.asarray(events).ravel() + 0.5
        self.share_of_events = events / events.sum()  # (C,)
        # A category new in the last weeks is a candidate too.
        self.common = np.argsort(-(self.popularity + self.recent_popularity), kind="stable")[: self.most_popular]

    def pairs(self, frame: pd.DataFrame) -> tuple[Array, Array, Array]:
        """Return the row and the category of each pair, both `(P,)`, sorted, and its features `(P, F)` float32."""
        size = len(self.categories)
        own_rows = np.repeat(np.arange(len(frame)), lengths(frame["longterm_categories"]))
        own_columns = columns_of(self.categories, flat(frame["longterm_categories"], object))
        is_candidate = own_columns >= 0
        own = (own_rows * size + own_columns)[is_candidate]
        everyone = np.repeat(np.arange(len(frame)), len(self.common)) * size + np.tile(self.common, len(frame))
        codes = np.unique(np.concatenate([own, everyone]))
        rows, columns = codes // size, codes % size
        at = np.searchsorted(codes, own)

        def of_pair(name: str, missing: float = 0.0) -> Array:
            values = np.full(len(codes), missing)
            values[at] = flat(frame[name], np.float64)[is_candidate]
            return values

        def of_user(name: str) -> Array:
            return np.asarray(frame[name].to_numpy(np.float64)[rows])

        count, days = of_pair("longterm_counts"), of_pair("longterm_days")
        current, decayed = of_pair("longterm_current_counts"), of_pair("longterm_shares")
        history, dates, frequency = (of_user(n) for n in ("history_events", "history_days_active", "frequency"))
        usual = self.share_of_events[columns]
        share = count / np.maximum(history, 1)
        features = {
            "count": count,
            "share": share,
            # As if each user had begun with twenty events spread as everyone's are.
            "smoothed_share": (count + 20 * usual) / (history + 20),
            "expected_events": share * frequency,
            "lift": np.log((share + 1e-4) / usual),
            "days": days,
            "share_of_days": days / np.maximum(dates, 1),
            "events_a_day": count / np.maximum(days, 1),
            "current_count": current,
            "current_share": current / np.maximum(frequency, 1),
            "week_count": of_pair("longterm_week_counts"),
            "decayed_share": decayed,
            "age_seconds": of_pair("longterm_age_seconds", np.nan),
            "rank_by_count": rank_within(rows, count),
            "rank_by_current": rank_within(rows, current),
            "rank_by_decayed": rank_within(rows, decayed),
            "popularity": self.popularity[columns],
            "recent_popularity": self.recent_popularity[columns],
            "share_of_events": usual,
            "history_events": history,
            "history_days_active": dates,
            "frequency": frequency,
            "active_days": of_user("active_days"),
            "recency_seconds": of_user("recency_seconds"),
            "tenure_seconds": of_user("tenure_seconds"),
        }
        return rows, columns, np.column_stack([features[name] for name in PAIR_FEATURES]).astype(np.float32)

    def _learn_pairs(self, train: pd.DataFrame, valid: pd.DataFrame) -> lgb.Booster | None:
        sides = []
        for frame in (train, valid):
            labelled = frame[frame["next_category"].notna()]
            if len(labelled) > self.most_rows:
                chosen = np.random.default_rng(self.seed).choice(len(labelled), self.most_rows, replace=False)
                labelled = labelled.iloc[np.sort(chosen)]
            truth = columns_of(self.categories, labelled["next_category"])
            rows, columns, features = self.pairs(labelled)
            sides.append((features, (columns == truth[rows]).astype(np.float64)))
        # One pair in some ninety is true: pointwise log loss ranks as well here as LambdaRank and XE-NDCG, and its
        # scores are probabilities. Small trees with large leaves did best on the validation rows of the demo log.
        size = max(len(sides[0][1]) // 2000, 5)
        return self._boost(sides[0], sides[1], learning_rate=0.05, min_data_in_leaf=size)

    def next_category(self, frame: pd.DataFrame) -> Array:
        scores = np.empty((len(frame), len(self.categories)), np.float32)
        for start in range(0, len(frame), self._AT_ONCE):
            part = frame.iloc[start : start + self._AT_ONCE]
            chances = np.tile(self.popularity, (len(part), 1))
            if self.ranker is not None:
                rows, columns, features = self.pairs(part)
                of_pairs = np.asarray(self.ranker.predict(features, num_threads=self.threads))
                # The popularity of the others, scaled to lie below the least likely candidate of the row.
                least = np.full(len(part), np.inf)
                np.minimum.at(least, rows, of_pairs)
                chances *= (0.5 * least / self.popularity.max())[:, None]
                chances[rows, columns] = of_pairs
            scores[start : start + len(part)] = chances / chances.sum(axis=1, keepdims=True)
        return scores
