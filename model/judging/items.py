"""Items that may come next, and two methods that order them: a blend and boosted trees.

Both look at what the simple methods of baselines.py say of items, which know a user's whole history: without them, the
item head of a network would be compared with methods that see as little as it does.

Letters used for shapes in this module:

    N  rows    I  items    M  methods    P  pairs of row and item    F  features
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import lightgbm as lgb
import numpy as np
import pandas as pd
from scipy import sparse

from lake.rules import TOP_ITEMS
from model.arrays import Array
from model.data.candidates import flat, lengths, rank_within
from model.data.item_history import ItemHistory
from model.judging.baselines import (
    AT_ONCE,
    Baseline,
    CoVisits,
    climb,
    largest_of_rows,
    likeliest_weights,
    places_of,
    rankings,
    shares_of,
    with_items,
)
from model.judging.boosted import Boosted

log = logging.getLogger(__name__)

# Candidates of each method for a row.
MOST_EACH = 100


@dataclass(frozen=True)
class Pairs:
    """What the methods say of some rows.

    Attributes:
        rows, columns: `(P,)` row and item of each pair, sorted.
        shares: `(P, M)` what each method gives to it of all that it gives to its candidates for that row.
    """

    rows: Array
    columns: Array
    shares: Array


class ItemCandidates:
    """The items that any method puts among its first for a row.

    Args:
        history: of the users that are judged.
        most_each: items that each method names for a row.
        parts: the methods, with this history; None for one of each.
    """

    def __init__(self, history: ItemHistory, most_each: int = MOST_EACH, parts: Sequence[Baseline] | None = None):
        self.history, self.most_each = history, most_each
        self.parts = [*rankings(history), CoVisits(history)] if parts is None else list(parts)

    def fit(self, train: pd.DataFrame, valid: pd.DataFrame, categories: Sequence[str]) -> "ItemCandidates":
        """Let the methods learn, see `Baseline.fit`."""
        for part in self.parts:
            part.fit(train, valid, categories)
        came = flat(train["next_item_keys"], np.int64)
        self.keys = np.unique(np.concatenate([self.history.keys, came[came != 0]]))  # (I,)
        return self

    def pairs(self, frame: pd.DataFrame) -> Pairs:
        """Return what the methods say of the items of some rows."""
        size = max(len(self.keys), 1)
        codes, values = [], []
        for part in self.parts:
            scores, keys = part.item_scores(frame)
            columns = places_of(self.keys, keys)
            best = largest_of_rows(shares_of(scores), self.most_each).tocoo()
            known = (columns[best.col] >= 0) & (best.data > 0)
            codes.append(best.row[known].astype(np.int64) * size + columns[best.col[known]])
            values.append(best.data[known])
        pairs = np.unique(np.concatenate(codes))
        shares = np.zeros((len(pairs), len(self.parts)), np.float32)
        for at, (of_part, given) in enumerate(zip(codes, values, strict=True)):
            shares[np.searchsorted(pairs, of_part), at] = given
        return Pairs(pairs // size, pairs % size, shares)

    def came(self, pairs: Pairs, frame: pd.DataFrame) -> Array:
        """Return of which pairs the item came, `(P,)` bool."""
        size = max(len(self.keys), 1)
        rows = np.repeat(np.arange(len(frame)), lengths(frame["next_item_keys"]))
        columns = places_of(self.keys, flat(frame["next_item_keys"], np.int64))
        true = (rows * size + columns)[columns >= 0]
        return np.isin(pairs.rows * size + pairs.columns, true)


class ItemBlend(Baseline):
    """A weighted mean of what the methods say of items, the weights tuned on the validation rows.

    As the blend of categories: first the weights under which the items that came are likeliest, then each in turn is
    made larger or smaller as long as Recall@20 rises.
    """

    name = "tuned blend of items"
    tasks = ("next_item",)

    rounds = 100
    steps = (0.0, 0.25, 0.5, 2.0, 4.0)
    # Validation rows that are enough to tune eight numbers on.
    most_rows = 2_000

    def __init__(self, candidates: ItemCandidates, seed: int = 1):
        self.candidates, self.seed = candidates, seed

    def learn(self, train: pd.DataFrame, valid: pd.DataFrame) -> None:
        known = self.candidates.fit(train, valid, list(self.categories))
        self.weights = np.full(len(known.parts), 1 / len(known.parts))
        labelled = with_items(valid, known.history)
        labelled = labelled.sample(min(self.most_rows, len(labelled)), random_state=self.seed)
        parts = [labelled.iloc[start : start + AT_ONCE] for start in range(0, len(labelled), AT_ONCE)]
        made = [known.pairs(part) for part in parts]
        if not sum(len(pairs.rows) for pairs in made):
            return
        came = np.concatenate([known.came(pairs, part) for pairs, part in zip(made, parts, strict=True)])
        rows = np.concatenate([pairs.rows + AT_ONCE * at for at, pairs in enumerate(made)])
        shares = np.concatenate([pairs.shares for pairs in made]).T.astype(np.float64)  # (M, P)
        judge = _Recall(rows, came, lengths(labelled["next_item_keys"]))
        begin = likeliest_weights(shares[:, came], self.rounds)
        self.weights = climb(begin, lambda weights: judge.of(weights @ shares), self.steps)

    def item_scores(self, frame: pd.DataFrame) -> tuple[sparse.csr_matrix, Array]:
        pairs = self.candidates.pairs(frame)
        return _matrix(pairs, pairs.shares @ self.weights, frame, self.candidates)


class _Recall:
    """Recall@20 of scores of pairs, for many scores of the same pairs.

    Args:
        rows: `(P,)` of each pair, sorted.
        came: `(P,)` whether its item came.
        many: `(N,)` items that came to each row, candidates or not; none is 0.
    """

    def __init__(self, rows: Array, came: Array, many: Array):
        sizes = np.bincount(rows, minlength=len(many))
        self.places = rows, np.arange(len(rows)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        self.many = many
        # At least as wide as what is looked at.
        self.width = max(int(sizes.max(initial=0)), TOP_ITEMS)
        self.came = self._spread(came.astype(np.float64), 0.0)

    def _spread(self, values: Array, otherwise: float) -> Array:
        table = np.full((len(self.many), self.width), otherwise)
        table[self.places] = values
        return table

    def of(self, scores: Array) -> float:
        """Return the mean over the rows."""
        best = np.argpartition(-self._spread(scores, -1.0), TOP_ITEMS - 1, axis=1)[:, :TOP_ITEMS]
        return float((np.take_along_axis(self.came, best, axis=1).sum(axis=1) / self.many).mean())


def _matrix(pairs: Pairs, scores: Array, frame: pd.DataFrame, known: ItemCandidates) -> tuple[sparse.csr_matrix, Array]:
    shape = (len(frame), len(known.keys))
    matrix = sparse.csr_matrix((scores.astype(np.float64), (pairs.rows, pairs.columns)), shape=shape)
    matrix.eliminate_zeros()
    return matrix, known.keys


class ItemTrees(Boosted):
    """LightGBM over pairs of a row and an item that any of the methods names for it.

    The trees see what each method says, and how much, how lately and how regularly the user took the item. They learn
    from the newest third of the training dates. There, the methods know what they would have known at the first of
    these dates: trees that were shown what methods say of steps which they have counted would trust them too much.

    Args:
        candidates: of the users that are judged.
        seed: as in `Boosted`.
        most_pairs: the budget: a sample of training rows is drawn that makes no more pairs, of validation rows one that
            makes a third as many. A pair takes some 150 bytes.
        most_tried, rounds, threads: as in `Boosted`.
    """

    name = "boosted trees of items"
    tasks: tuple[str, ...] = ("next_item",)

    rate = 0.1

    def __init__(
        self,
        candidates: ItemCandidates,
        seed: int = 1,
        most_pairs: int = 1_500_000,
        most_tried: int = 300_000,
        rounds: int = 300,
        threads: int = 2,
    ):
        super().__init__(seed, most_tried, rounds, threads)
        self.candidates, self.most_pairs = candidates, most_pairs

    def learn(self, train: pd.DataFrame, valid: pd.DataFrame) -> None:
        ids = list(self.categories)
        older, newer = by_newest_third(train, valid)
        self.candidates.fit(train, valid, ids)
        self.ranker: lgb.Booster | None = None
        since, why = self.candidates.history.since, "too few dates or items to learn from"
        if since is not None and len(newer) and pd.Timestamp(since) > pd.Timestamp(newer["dt"].min()):
            why = f"what users took is known from {since} on, after the first date to learn from"
        elif len(older) and len(newer):
            before = ItemCandidates(self.candidates.history).fit(older, newer, ids)
            self.ranker = self._boost(
                self._labelled(newer, before, self.most_pairs),
                self._labelled(valid, self.candidates, self.most_pairs // 3),
                self.rate,
            )
        if self.ranker is None:
            log.info("%s have no answer: %s", self.name, why)
        self.tasks = () if self.ranker is None else ("next_item",)

    def item_scores(self, frame: pd.DataFrame) -> tuple[sparse.csr_matrix, Array]:
        if self.ranker is None:
            return super().item_scores(frame)
        pairs = self.candidates.pairs(frame)
        seen = self._features(frame, pairs, self.candidates)
        chances = np.asarray(self.ranker.predict(seen, num_threads=self.threads))
        return _matrix(pairs, chances, frame, self.candidates)

    def _labelled(self, frame: pd.DataFrame, known: ItemCandidates, most: int) -> tuple[Array, Array]:
        """Return the features of the pairs of a sample of rows, and which of their items came."""
        labelled = with_items(frame, known.history).sample(frac=1, random_state=self.seed)
        if labelled.empty:
            return np.zeros((0, 0), np.float32), np.zeros(0)
        features, came, total = [], [], 0
        for start in range(0, len(labelled), AT_ONCE):
            part = labelled.iloc[start : start + AT_ONCE]
            pairs = known.pairs(part)
            total += len(pairs.rows)
            if total > most and start:
                break
            features.append(self._features(part, pairs, known))
            came.append(known.came(pairs, part).astype(np.float64))
        return np.concatenate(features), np.concatenate(came)

    @staticmethod
    def _features(frame: pd.DataFrame, pairs: Pairs, known: ItemCandidates) -> Array:
        """Return what trees see of each pair, `(P, F)` float32; NaN for what the user never took.

        Args:
            frame: the rows.
            pairs: of these rows.
            known: whose pairs they are: its items are their columns.
        """
        own = known.history.pairs(frame)
        size = len(known.history.keys) + 1
        # Both orders of columns are those of the keys, so codes of one rise with codes of the other.
        place = places_of(known.history.keys, known.keys)[pairs.columns]
        at = places_of(own.rows * size + own.columns, np.where(place >= 0, pairs.rows * size + place, -1))
        had = at >= 0

        def of_own(values: Array) -> Array:
            found = np.full(len(pairs.rows), np.nan)
            found[had] = values[at[had]]
            return found

        events = np.bincount(own.rows, own.count, len(frame))
        numbers = {
            "count": own.count,
            "share": own.count / np.maximum(events[own.rows], 1),
            "days": own.days,
            "age": own.age,
            "newest": own.newest,
            "rank_by_count": rank_within(own.rows, own.count),
            "rank_by_days": rank_within(own.rows, own.days),
            "interval": np.where(own.days > 1, own.span / np.maximum(own.days - 1, 1), np.nan),
            "overdue": np.where(own.days > 1, own.age * (own.days - 1) / np.maximum(own.span, 1), np.nan),
        }
        kinds = np.bincount(own.rows, minlength=len(frame))
        of_user = [frame[name].to_numpy(np.float64)[pairs.rows] for name in OF_USER]
        ranks = [rank_within(pairs.rows, shares) for shares in pairs.shares.T]
        columns = [
            *pairs.shares.T,
            *ranks,
            *(of_own(numbers[name]) for name in OWN),
            *of_user,
            events[pairs.rows],
            (kinds / np.maximum(events, 1))[pairs.rows],
        ]
        return np.column_stack(columns).astype(np.float32)


# What is known of a pair if the user had the item, and of the user.
OWN = ("count", "share", "days", "age", "newest", "rank_by_count", "rank_by_days", "interval", "overdue")
OF_USER = ("frequency", "active_days", "history_days_active", "recency_seconds", "tenure_seconds")


def by_newest_third(train: pd.DataFrame, valid: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the training rows of the newest third of their dates, after those that may be known at the first of these.

    Labels of a row end no later than the gap between training and validation is wide.
    """
    dates: Any = np.sort(pd.to_datetime(train["dt"].unique()))
    if not len(dates) or valid.empty:
        return train.iloc[:0], train.iloc[:0]
    first = dates[-max(len(dates) // 3, 1)]
    gap = pd.Timestamp(valid["dt"].min()) - dates[-1]
    days = pd.to_datetime(train["dt"])
    return train[(days + gap <= first).to_numpy()], train[(days >= first).to_numpy()]


def item_methods(history: ItemHistory, seed: int, simple: Sequence[Baseline]) -> list[Baseline]:
    """Return one of each, not fitted; of `simple` methods, those that name items are their parts, and learn once."""
    candidates = ItemCandidates(history, parts=[method for method in simple if "next_item" in method.tasks])
    return [ItemBlend(candidates, seed), ItemTrees(candidates, seed)]
