"""What is known of a user as a whole, and of each pair of a user and a category that may come next: what trees see.

Shapes: N rows, C categories, K offered categories, P pairs of row and candidate, F features.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from model.arrays import Array
from model.data.features import SCALARS

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


# --- from frames to arrays ---


def lengths(lists: "pd.Series[Any]") -> Array:
    """Return the length of each list, `(N,)`."""
    return np.fromiter((len(values) for values in lists), np.int64, len(lists))


def flat(lists: "pd.Series[Any]", dtype: type) -> Array:
    """Return the values of all lists, one after the other."""
    parts: list[Array] = [np.asarray(values, dtype) for values in lists if len(values)]
    return np.concatenate(parts) if parts else np.zeros(0, dtype)


def columns_of(categories: "pd.Index[Any]", ids: Any) -> Array:
    """Return the column of each id, -1 for null and for what is no candidate."""
    return np.asarray(categories.get_indexer(pd.Index(ids, dtype=object)))


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


# Of a user as a whole: the scalars, six ratios of them, three numbers of the shape of each window, and nine of habits.
LABEL_FEATURES = len(SCALARS) + 6 + 2 * 3 + 9


def label_features(frame: pd.DataFrame) -> Array:
    """Return all that trees see of a user as a whole, `(N, F)` float64: `scalar_features`, then `habit_features`."""
    return np.column_stack([scalar_features(frame), habit_features(frame)])


def habit_features(frame: pd.DataFrame) -> Array:
    """Return how the lookback stands to the user's own history, `(N, 9)` float64; NaN where there is nothing.

    Interest migrates where the lookback was an exception, and returns to its habits. Of the favourite, the category
    with the most events in the lookback (of equal ones, with the most in the history):

    - its share in the lookback, in the time before it, and in the whole history; its events, and those of the second,
    - by how many events it would lead the others, were the lookback spread as the history is,
    - G, the statistic by which `examples` tells whether two windows differ, of the lookback against the time before it;
      against a window of as many events that is spread as the history is; and against one of as many events as the
      user has in 30 days.
    """
    rows = np.repeat(np.arange(len(frame)), lengths(frame["longterm_categories"]))
    ever = flat(frame["longterm_counts"], np.float64)
    now = flat(frame["longterm_current_counts"], np.float64)
    before = ever - now

    def total(values: Array) -> Array:
        return np.bincount(rows, values, len(frame))

    def of_favourite(values: Array) -> Array:
        found = np.zeros(len(frame))
        found[rows[favourite]] = values[favourite]
        return found

    def largest_but_favourite(values: Array) -> Array:
        largest = np.zeros(len(frame))
        np.maximum.at(largest, rows, np.where(is_favourite, 0, values))
        return largest

    # The last of each row in this order is its favourite.
    order = np.lexsort((ever, now, rows))
    favourite = order[np.flatnonzero(np.diff(rows[order], append=-1))]
    is_favourite = np.zeros(len(rows), bool)
    is_favourite[favourite] = True
    size, history = total(now), total(ever)
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = ever / history[rows]
        lead = (of_favourite(ever) - largest_but_favourite(ever)) * size / history
        usual = history * 30 * 86_400 / np.maximum(frame["tenure_seconds"].to_numpy(np.float64), 86_400)
        features = [
            of_favourite(now) / size,
            of_favourite(before) / (history - size),
            of_favourite(ever) / history,
            of_favourite(now),
            largest_but_favourite(now),
            lead,
            g_statistic(rows, now, before, len(frame)),
            g_statistic(rows, now, size[rows] * spread, len(frame)),
            g_statistic(rows, now, usual[rows] * spread, len(frame)),
        ]
    return np.column_stack(features)


def g_statistic(rows: Array, one: Array, other: Array, many: int) -> Array:
    """Return G of the test of homogeneity of two windows of each row, `(N,)`: 0 where they are spread alike.

    Args:
        rows: `(P,)` of each count.
        one: `(P,)` counts of one window.
        other: `(P,)` those of the other.
        many: N.

    >>> g_statistic(np.array([0, 0, 1, 1]), np.array([2.0, 2, 4, 0]), np.array([3.0, 3, 0, 4]), 2).round(2).tolist()
    [0.0, 11.09]
    """
    sizes = [np.bincount(rows, counts, many) for counts in (one, other)]
    with np.errstate(divide="ignore", invalid="ignore"):
        share = (one + other) / (sizes[0] + sizes[1])[rows]
        terms = [
            np.where(counts > 0, counts * np.log(counts / (share * size[rows])), 0)
            for counts, size in zip((one, other), sizes, strict=True)
        ]
    return np.asarray(2 * np.bincount(rows, np.nan_to_num(terms[0] + terms[1]), many))


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


@dataclass(frozen=True)
class Candidates:
    """Which categories may come next for a user: those of their own history, and those that are common with all.

    Attributes:
        categories: ids of the C categories.
        popularity: (C,), share of the training rows in which a category comes next.
        recent_popularity: (C,), the same of the last 28 days.
        share_of_events: (C,), of all events that come next.
        common: columns of those that every user has besides their own.
    """

    categories: "pd.Index[Any]"
    popularity: Array
    recent_popularity: Array
    share_of_events: Array
    common: Array

    def pairs(self, frame: pd.DataFrame) -> tuple[Array, Array, Array]:
        """Return the row and the category of each pair, both `(P,)`, sorted, and its features `(P, F)` float32."""
        return self._pairs(frame, np.tile(self.common, (len(frame), 1)))

    def features_of(self, frame: pd.DataFrame, offered: Array) -> Array:
        """Return the features of each row and the categories that it is offered, `(N * K, F)` float32, row by row.

        Args:
            frame: N rows of `interests`.
            offered: `(N, K)` columns, each once in a row; they stand in the place of those that are common.
        """
        rows, columns, features = self._pairs(frame, offered)
        size = len(self.categories)
        wanted = np.arange(len(frame))[:, None] * size + offered
        return np.asarray(features[np.searchsorted(rows * size + columns, wanted.ravel())])

    def _pairs(self, frame: pd.DataFrame, offered: Array) -> tuple[Array, Array, Array]:
        """Return what `pairs` says, of each row's own categories and those that it is offered, `(N, K)`."""
        size = len(self.categories)
        own_rows = np.repeat(np.arange(len(frame)), lengths(frame["longterm_categories"]))
        own_columns = columns_of(self.categories, flat(frame["longterm_categories"], object))
        is_candidate = own_columns >= 0
        own = (own_rows * size + own_columns)[is_candidate]
        codes = np.unique(np.concatenate([own, (np.arange(len(frame))[:, None] * size + offered).ravel()]))
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
