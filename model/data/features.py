"""From rows of `interests` or `examples` to arrays of static shape: the one way, for training and for scoring.

Shapes: N rows, L events, P categories of the profile, F numbers for each of them, S scalars, K next items.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import DTypeLike

from lake.labels import NAMES
from model.arrays import Array
from model.data.vocabulary import Vocabulary

Fields = dict[str, tuple[str, tuple[int, ...]]]

SEQUENCE = ("item_keys", "category_keys", "behaviors", "gap_seconds")
PROFILE = {
    "longterm_category_keys": np.int64,
    "longterm_shares": np.float64,
    "longterm_counts": np.int64,
    "longterm_days": np.int64,
    "longterm_current_counts": np.int64,
    "longterm_week_counts": np.int64,
    "longterm_age_seconds": np.int64,
}
SCALARS = (
    "recency_seconds",
    "frequency",
    "active_days",
    "purchases",
    "spend",
    "history_events",
    "history_days_active",
    "tenure_seconds",
    "week_frequency",
)
STATE = ("dt", *SEQUENCE, "event_seconds", *PROFILE, *SCALARS)
# Arrays of a place for each event, and for each category of the profile; padding stands behind the real ones.
BY_EVENT = ("item", "category", "behavior", "gap", "slot", "age")
BY_PROFILE = ("profile", "profile_values")
LABELS = ("next_category_key", "next_item_keys", *NAMES)

PROFILE_VALUES = 15
SCALAR_VALUES = len(SCALARS) + 15
GAP_BUCKETS = 50


@dataclass(frozen=True)
class Features:
    """What the network sees of a user.

    Attributes:
        items, categories: from keys to indices.
        events: L, how many of the last events are kept.
        profile: P, how many categories of the long-term interest are kept, those with the largest share.
        next_items: K, how many of the next items are kept as labels.
    """

    items: Vocabulary
    categories: Vocabulary
    events: int
    profile: int
    next_items: int = 16

    def sequence_fields(self) -> Fields:
        """Return {name: (dtype, shape of one row)} of the arrays of `sequence`."""
        return dict.fromkeys(("item", "category", "behavior", "gap"), ("int32", (self.events,)))

    def fields(self, *, labels: bool) -> Fields:
        """Return {name: (dtype, shape of one row)} of the arrays of `state`, or of `labelled`."""
        profile = (self.profile,)
        fields = {**self.sequence_fields(), **dict.fromkeys(("slot", "age"), ("int32", (self.events,)))}
        fields["profile"] = ("int32", profile)
        fields["profile_values"] = ("float32", (self.profile, PROFILE_VALUES))
        fields["scalars"] = ("float32", (SCALAR_VALUES,))
        if labels:
            fields["next_category"] = ("int32", ())
            fields |= dict.fromkeys(("next_items", "next_slots"), ("int32", (self.next_items,)))
            fields |= dict.fromkeys(NAMES, ("float32", ()))
        return fields

    def columns(self, *, labels: bool) -> list[str]:
        """Return the table columns that the arrays are made from."""
        return [*STATE, *LABELS] if labels else list(STATE)

    def sequence(self, rows: pd.DataFrame) -> dict[str, Array]:
        """Return the arrays of the last events: all that pretraining sees.

        They stand oldest first, with padding (index 0) after them, so under a causal mask no event sees padding.
        """
        last = {name: pad(rows[name], self.events, np.int64) for name in SEQUENCE}
        real = last["behaviors"] > 0
        return {
            "item": self.items.index(last["item_keys"]),
            "category": self.categories.index(last["category_keys"]),
            "behavior": last["behaviors"].astype(np.int32),
            "gap": np.where(real, bucket(last["gap_seconds"]), 0).astype(np.int32),
        }

    def last_keys(self, rows: pd.DataFrame) -> Array:
        """Return the item keys of the last events, (N, L) int64, in the places of the other arrays; 0 for none."""
        return pad(rows["item_keys"], self.events, np.int64)

    def state(self, rows: pd.DataFrame) -> dict[str, Array]:
        """Return the arrays of what is known at T."""
        top = {name: pad(rows[name], self.profile, kind, keep="first") for name, kind in PROFILE.items()}
        sequence = self.sequence(rows)
        age = end_of_day(rows["dt"])[:, None] - pad(rows["event_seconds"], self.events, np.int64)
        return {
            **sequence,
            "slot": first_places(self.last_keys(rows)),
            "age": np.where(sequence["behavior"] > 0, bucket(age), 0).astype(np.int32),
            "profile": self.categories.index(top["longterm_category_keys"]),
            "profile_values": self.profile_values(top, rows),
            "scalars": np.concatenate([scalars(rows), shape_of_interest(top)], axis=1).astype(np.float32),
        }

    def profile_values(self, top: dict[str, Array], rows: pd.DataFrame) -> Array:
        """Return (N, P, PROFILE_VALUES) numbers about each category of the profile, 0 for padding.

        How much, how lately and how often, in absolute numbers, as shares of what the user does, against what everyone
        does, and as places among the user's own: what a ranker over (user, category) pairs is given.
        """
        history, frequency, dates = (
            np.maximum(rows[name].to_numpy(np.float64), 1)[:, None]
            for name in ("history_events", "frequency", "history_days_active")
        )
        count, days_with = top["longterm_counts"], top["longterm_days"]
        current, week, decayed = top["longterm_current_counts"], top["longterm_week_counts"], top["longterm_shares"]
        share = count / history
        usual = self.usual_shares[self.categories.index(top["longterm_category_keys"])]
        values = np.stack(
            [
                np.log1p(count),
                np.log1p(days_with),
                np.log1p(current),
                np.log1p(week),
                days(top["longterm_age_seconds"]),
                np.log1p(100 * decayed),
                np.log1p(100 * share),
                np.log1p(share * frequency),
                np.log((share + 1e-4) / usual) / 3,
                np.sqrt(days_with / dates),
                np.sqrt(current / frequency),
                count / np.maximum(days_with, 1) / 3,
                1 / (1 + places(count)),
                1 / (1 + places(current)),
                np.sqrt(decayed),  # last: what the network averages by
            ],
            axis=-1,
        )
        return np.asarray(values * (count > 0)[..., None], np.float32)

    @cached_property
    def usual_shares(self) -> Array:
        """Share of everyone's events in each category index, (C,), none of them 0."""
        known = np.maximum(self.categories.counts, 0) + 0.5
        counts = np.concatenate([np.full(1 + self.categories.buckets, 0.5), known])
        return np.asarray(counts / counts.sum())

    def labelled(self, rows: pd.DataFrame) -> dict[str, Array]:
        """Return the arrays of `state` and the labels; an unknown label is -1, no category or item is 0.

        A next item that the user had before has in `next_slots` the place where it stands first among the last events,
        -1 for others; if the vocabulary does not know it, its index in `next_items` is 0: all that can be said of it is
        that it comes again.
        """
        keys = pad(rows["next_item_keys"], self.next_items, np.int64, keep="first")
        slots = places_of(keys, self.last_keys(rows))
        index = self.items.index(keys)
        return {
            **self.state(rows),
            "next_category": self.categories.index(rows["next_category_key"].to_numpy(np.int64)),
            "next_items": np.where((slots >= 0) & ~self.items.known(index), 0, index).astype(np.int32),
            "next_slots": slots,
            **{name: answers(rows[name]) for name in NAMES},
        }


def pad(lists: "pd.Series[Any]", length: int, dtype: DTypeLike, keep: str = "last") -> Array:
    """Return a column of lists as an array `(rows, length)`, filled up with zeros on the right.

    Args:
        lists: one array for each row; null counts as empty.
        length: of every row of the result.
        dtype: of the result.
        keep: which elements of a longer list stay, the `first` or the `last`.

    >>> pad(pd.Series([[1, 2, 3], [4], None]), 2, np.int32).tolist()
    [[2, 3], [4, 0], [0, 0]]
    """
    if keep not in ("first", "last"):
        raise ValueError(f"keep must be 'first' or 'last', got {keep!r}")
    part = slice(-length, None) if keep == "last" else slice(length)
    cells = [() if cell is None else cell[part] for cell in lists]
    sizes = np.fromiter(map(len, cells), np.int64, len(cells))
    result = np.zeros((len(cells), length), dtype)
    if sizes.any():
        result[np.arange(length) < sizes[:, None]] = np.concatenate(cells)
    return result


def first_places(keys: Array) -> Array:
    """Return for each key of (N, L) the place where it stands first in its row, (N, L) int32.

    >>> first_places(np.array([[7, 5, 7, 5, 9]])).tolist()
    [[0, 1, 0, 1, 4]]
    """
    order = np.argsort(keys, axis=1, kind="stable")
    ordered = np.take_along_axis(keys, order, axis=1)
    begins = np.ones(keys.shape, bool)
    begins[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    run = np.maximum.accumulate(np.where(begins, np.arange(keys.shape[1]), 0), axis=1)
    firsts = np.empty(keys.shape, np.int32)
    np.put_along_axis(firsts, order, np.take_along_axis(order, run, axis=1).astype(np.int32), axis=1)
    return firsts


def places_of(wanted: Array, keys: Array) -> Array:
    """Return where each wanted key of (N, K) stands first among the keys of its row, (N, L), as (N, K) int32.

    -1 for one that is not there, and for 0.

    >>> places_of(np.array([[5, 8, 0]]), np.array([[7, 5, 0, 5]])).tolist()
    [[1, -1, -1]]
    """
    same = (wanted[:, :, None] == keys[:, None, :]) & (wanted != 0)[:, :, None]
    return np.where(same.any(axis=2), same.argmax(axis=2) if keys.shape[1] else -1, -1).astype(np.int32)


def answers(column: "pd.Series[Any]") -> Array:
    """Return a column of answers as (N,) float32: 1 for yes, 0 for no, -1 where the answer is not known.

    >>> answers(pd.Series([True, False, None])).tolist()
    [1.0, 0.0, -1.0]
    """
    return column.map({True: 1.0, False: 0.0}).astype(np.float32).fillna(-1.0).to_numpy(np.float32)


def end_of_day(days: pd.Series) -> Array:
    """Return the second at which each day ends, since 1970-01-01 UTC, as (N,) int64."""
    return (pd.to_datetime(days).to_numpy("datetime64[D]").astype(np.int64) + 1) * 86_400


def bucket(seconds: Array) -> Array:
    """Return a logarithmic bucket for each duration, 1 to GAP_BUCKETS - 1, two for each doubling.

    >>> bucket(np.array([0, 60, 86_400, 30 * 86_400, 10**9])).tolist()
    [1, 3, 21, 31, 48]
    """
    steps = 2 * np.log2(1 + np.maximum(seconds, 0) / 60)
    return np.asarray(1 + np.minimum(steps, GAP_BUCKETS - 2).astype(np.int32))


def days(seconds: Array) -> Array:
    """Return a compressed number of days, so that an hour and a year are both told apart from their likes."""
    return np.asarray(np.log1p(np.maximum(seconds, 0) / 86_400))


def places(amounts: Array) -> Array:
    """Return the place of each amount among those of its row, 0 for the largest; equal ones in their order.

    >>> places(np.array([[2, 5, 2]])).tolist()
    [[1, 0, 2]]
    """
    order = np.argsort(-amounts, axis=1, kind="stable")
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.arange(amounts.shape[1])[None, :], axis=1)
    return ranks


def shape_of_interest(top: dict[str, Array]) -> Array:
    """Return (N, 8), of current and long-term interest: how many categories, how even, how far ahead the first.

    Who has one clear favourite stays with it for longer than who has five alike.
    """
    described = []
    for amounts in (top["longterm_current_counts"], top["longterm_shares"]):
        share = amounts / np.maximum(amounts.sum(axis=1, keepdims=True), 1e-9)
        entropy = -(share * np.log(np.where(share > 0, share, 1))).sum(axis=1)
        first, second = np.sort(share, axis=1)[:, :-3:-1].T if share.shape[1] > 1 else (share[:, 0], 0 * share[:, 0])
        described += [np.log1p((amounts > 0).sum(axis=1)) / 3, entropy / 3, first, first - second]
    return np.stack(described, axis=-1)


def scalars(rows: pd.DataFrame) -> Array:
    """Return (N, len(SCALARS) + 7) numbers about each user: amounts, and how they stand to each other."""
    table = {name: rows[name].to_numpy(np.float64) for name in SCALARS}
    values = [days(v) if name.endswith("_seconds") else np.log1p(np.maximum(v, 0)) for name, v in table.items()]
    usual = table["tenure_seconds"] / np.maximum(table["history_days_active"], 1)
    frequency, events = np.maximum(table["frequency"], 1), np.maximum(table["history_events"], 1)
    dates = np.maximum(table["history_days_active"], 1)
    values += [
        days(usual),
        # How overdue the next visit is, as a difference and as a ratio.
        days(table["recency_seconds"]) - days(usual),
        np.log1p(table["recency_seconds"] / np.maximum(usual, 3600)),
        np.log1p(frequency / np.maximum(table["active_days"], 1)),
        np.log1p(np.maximum(table["spend"], 0) / frequency),
        frequency / events,
        table["active_days"] / dates,
    ]
    return np.asarray(np.stack(values, axis=-1) / 3)
