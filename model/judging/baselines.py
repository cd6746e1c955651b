"""Methods that cost nothing, or little: what a network has to beat to be worth its training.

Each learns from rows of `examples` and answers any of three questions about others: which category comes next, which
items, and the probability of each binary label. Each is asked only what it has an answer to (`tasks`).

Letters used for shapes in this module:

    N  rows    C  categories    K  length of a list of items    I  items

Every ranking ends in the same way: candidates about which a method knows nothing stand below all others, in the order
of popularity. So no method gains or loses by ties.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from lake.labels import NAMES
from lake.rules import TOP_ITEMS
from model.arrays import Array
from model.data.candidates import columns_of, flat, lengths
from model.data.item_history import ItemHistory
from model.judging.metrics import hits_in_lists, truth_ranks

LABELS = NAMES

# Rows whose items are scored at once: bounds the memory of methods that know something of very many items.
AT_ONCE = 512
# What popularity gets of each row's probability: below any share that a real event can have.
_FALLBACK = 1e-3


# --- from frames to matrices ---------------------------------------------------------------------------


def category_matrix(
    frame: pd.DataFrame, ids: str, values: str | None, categories: "pd.Index[Any]"
) -> sparse.csr_matrix:
    """Return one line for each row, one column for each category, `(N, C)` float64.

    Args:
        frame: with the list columns `ids` and `values`.
        ids: column of category ids; those that are not in `categories` are left out.
        values: column of the numbers to be placed; None places ones.
        categories: the ids of the columns, each once.
    """
    rows = np.repeat(np.arange(len(frame)), lengths(frame[ids]))
    columns = columns_of(categories, flat(frame[ids], object))
    numbers = np.ones(len(rows)) if values is None else flat(frame[values], np.float64)
    is_candidate = columns >= 0
    places = (rows[is_candidate], columns[is_candidate])
    return sparse.csr_matrix((numbers[is_candidate], places), shape=(len(frame), len(categories)))


def shares_of(matrix: sparse.spmatrix) -> sparse.csr_matrix:
    """Return each line divided by its sum; lines of zeros stay as they are."""
    totals = np.asarray(matrix.sum(axis=1)).ravel()
    inverse = np.divide(1, totals, out=np.zeros_like(totals), where=totals > 0)
    return sparse.csr_matrix(sparse.diags_array(inverse) @ matrix)


def events_of(frame: pd.DataFrame, keys: str) -> tuple[Array, Array, Array]:
    """Return the row, the place (0 for the newest) and the key of all events of the sequences that have one."""
    sizes = lengths(frame[keys])
    rows = np.repeat(np.arange(len(frame)), sizes)
    places = np.repeat(np.cumsum(sizes), sizes) - 1 - np.arange(len(rows))
    values = flat(frame[keys], np.int64)
    return rows[values != 0], places[values != 0], values[values != 0]


def sequence_categories(frame: pd.DataFrame, categories: "pd.Index[Any]") -> "pd.Series[Any]":
    """Return the column of each category key that the frame mentions, by the pairs of key and id in its lists."""
    keys = flat(frame["longterm_category_keys"], np.int64)
    _, first = np.unique(keys, return_index=True)
    columns = columns_of(categories, flat(frame["longterm_categories"], object)[first])
    return pd.Series(columns, index=keys[first])[columns >= 0]


def category_events(frame: pd.DataFrame, categories: "pd.Index[Any]") -> tuple[Array, Array, Array]:
    """Return row, place (0 for the newest) and category column of all events of the sequences with a candidate."""
    rows, places, keys = events_of(frame, "category_keys")
    columns = sequence_categories(frame, categories).reindex(keys).fillna(-1).to_numpy(np.int64)
    is_candidate = columns >= 0
    return rows[is_candidate], places[is_candidate], columns[is_candidate]


def top_items(scores: sparse.csr_matrix, keys: Array, popular: Array, k: int) -> Array:
    """Return each row's k best items as keys, `(N, k)` int64, filled up with popular ones that it does not hold yet.

    Args:
        scores: `(N, I)`, above 0 for each item that may be named; ties go to the item with the smaller column.
        keys: `(I,)` int64 key of each column.
        popular: keys by falling popularity.
        k: items of each row; 0 where there are not as many.
    """
    scores = sparse.csr_matrix(scores)
    scores.sort_indices()
    lists = np.zeros((scores.shape[0], k), np.int64)
    for row in range(scores.shape[0]):
        part = slice(scores.indptr[row], scores.indptr[row + 1])
        values, columns = scores.data[part], scores.indices[part]
        if len(values) > k:
            # Sort only what can be among the k best, all that are level with the last of them included.
            kept = values >= np.partition(values, -k)[-k]
            values, columns = values[kept], columns[kept]
        own = keys[columns[np.argsort(-values, kind="stable")[:k]]]
        lists[row, : len(own)] = own
        if len(own) < k:
            fresh = popular[: 2 * k][~np.isin(popular[: 2 * k], own)][: k - len(own)]
            lists[row, len(own) : len(own) + len(fresh)] = fresh
    return lists


def places_of(keys: Array, wanted: Array) -> Array:
    """Return the place of each wanted key among sorted ones, -1 where it is not there."""
    if not len(keys):
        return np.full(len(wanted), -1)
    places = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
    return np.where(keys[places] == wanted, places, -1)


def matrix_of(values: Array, rows: Array, columns: Array, many: int, history: ItemHistory) -> sparse.csr_matrix:
    """Return one number for each pair of a row and an item of a history, `(N, I)`."""
    return sparse.csr_matrix((values.astype(np.float64), (rows, columns)), shape=(many, len(history.keys)))


def known_at(train: pd.DataFrame, valid: pd.DataFrame) -> date:
    """Return the date whose evening is the last that may be learnt from: the first of validation, as in pretraining."""
    return pd.Timestamp(train["dt"].max() if valid.empty else valid["dt"].min()).date()


def with_items(frame: pd.DataFrame, history: ItemHistory) -> pd.DataFrame:
    """Return the rows that items came to, of users whose history is known."""
    return frame[(lengths(frame["next_item_keys"]) > 0) & history.has(frame)]


def item_steps(parts: Iterable[tuple[Array, Array]], size: int, reach: int) -> sparse.csr_matrix:
    """Return how often one item came up to `reach` events after another one of the same user, `(I, I)`.

    An item after itself is a step like any other: shoppers take the same again.

    Args:
        parts: whose event each is, and its item, in the order of users and then of time.
        size: I.
        reach: 1 for events that follow each other.
    """
    total = sparse.csr_matrix((size, size), dtype=np.float32)
    for owners, items in parts:
        earlier, later = [], []
        for distance in range(1, reach + 1):
            follows = owners[distance:] == owners[:-distance]
            earlier.append(items[:-distance][follows])
            later.append(items[distance:][follows])
        steps = np.concatenate(earlier), np.concatenate(later)
        # Numbers of events are whole, and float32 has all of them up to 16 million.
        total = total + sparse.csr_matrix((np.ones(len(steps[0]), np.float32), steps), shape=(size, size))
    return sparse.csr_matrix(total)


def largest_of_rows(matrix: sparse.csr_matrix, most: int) -> sparse.csr_matrix:
    """Return a matrix with the `most` largest numbers of each line alone; of equal ones those of the smaller columns.

    Args:
        matrix: of any number of lines.
        most: numbers of each, at least one.
    """
    matrix.sort_indices()
    sizes = np.diff(matrix.indptr)
    kept = np.ones(matrix.nnz, bool)
    for line in np.flatnonzero(sizes > most):
        part = slice(matrix.indptr[line], matrix.indptr[line + 1])
        numbers = matrix.data[part]
        # Without sorting them: some methods give a number to each of all items.
        least = np.partition(numbers, len(numbers) - most)[len(numbers) - most]
        kept[part] = numbers > least
        equal = part.start + np.flatnonzero(numbers == least)
        kept[equal[: most - np.count_nonzero(kept[part])]] = True
    indptr = np.append(0, np.cumsum(np.minimum(sizes, most)))
    return sparse.csr_matrix((matrix.data[kept], matrix.indices[kept], indptr), shape=matrix.shape)


def likeliest_weights(of_truth: Array, rounds: int) -> Array:
    """Return the weights of a mixture under which what came is likeliest, by expectation maximisation, `(M,)`.

    Args:
        of_truth: `(M, n)` what each of M methods gave to each of n things that came; alike without any.
        rounds: of the maximisation.
    """
    weights = np.full(len(of_truth), 1 / len(of_truth))
    for _ in range(rounds if of_truth.shape[1] else 0):
        joint = weights[:, None] * of_truth
        # What no method gave anything to says nothing of them.
        weights = (joint / np.maximum(joint.sum(axis=0), 1e-300)).mean(axis=1)
        weights /= weights.sum()
    return weights


def climb(weights: Array, judge: Callable[[Array], float], steps: Sequence[float]) -> Array:
    """Return weights from which no step makes one better: each in turn is multiplied, as long as the judge says more.

    Args:
        weights: to begin with.
        judge: how good the scores are that weights make.
        steps: by which one weight is multiplied; zero leaves its method out.
    """
    best, rising = judge(weights), True
    while rising:
        rising = False
        for at in range(len(weights)):
            for step in steps:
                tried = weights.copy()
                tried[at] *= step
                if tried.sum() and (value := judge(tried / tried.sum())) > best:
                    weights, best, rising = tried / tried.sum(), value, True
    return weights


# --- the methods ---------------------------------------------------------------------------------------


class Baseline:
    """What all methods share: the popularity of categories and items, learned by `fit`.

    Attributes:
        name: as tables and plots call it.
        tasks: what it answers: `next_category`, `next_item`, `binary`.
    """

    name = ""
    tasks: tuple[str, ...] = ()
    _learnt: tuple[pd.DataFrame, pd.DataFrame, list[str]] | None = None

    def fit(self, train: pd.DataFrame, valid: pd.DataFrame, categories: Sequence[str]) -> "Baseline":
        """Learn from rows of `examples`, unless it has from these very rows: one method may be part of several others.

        Args:
            train: rows whose horizons end before the first row of `valid`.
            valid: rows to tune on; most methods have nothing to tune.
            categories: the candidates, in the order of the columns of `next_category`.
        """
        ids = list(categories)
        if self._learnt is not None:
            of_train, of_valid, of_ids = self._learnt
            if of_train is train and of_valid is valid and of_ids == ids:
                return self
        self._learnt = train, valid, ids
        self.categories = pd.Index(ids)
        labels = columns_of(self.categories, train["next_category"].dropna())
        # One imaginary row, spread over all categories, so that none is impossible.
        counts = np.bincount(labels[labels >= 0], minlength=len(categories)) + 1 / max(len(categories), 1)
        self.popularity = counts / counts.sum()  # (C,)
        counted = pd.Series(flat(train["next_item_keys"], np.int64)).value_counts()
        counted = counted[counted.index != 0].sort_index().sort_values(ascending=False, kind="stable")
        self.popular_items = counted.index.to_numpy(np.int64)
        self.item_counts = counted.to_numpy(np.float64)  # of each of these
        self.learn(train, valid)
        return self

    def learn(self, train: pd.DataFrame, valid: pd.DataFrame) -> None:
        """Learn what only this method needs."""

    def next_category(self, frame: pd.DataFrame) -> Array:
        """Return a probability for each category, `(N, C)` float32; it is the order that counts."""
        raise NotImplementedError(f"{self.name} does not predict categories")

    def next_item(self, frame: pd.DataFrame, k: int) -> Array:
        """Return the k items most likely to come, as keys, best first, `(N, k)` int64."""
        lists = [np.zeros((0, k), np.int64)]
        for start in range(0, len(frame), AT_ONCE):
            scores, keys = self.item_scores(frame.iloc[start : start + AT_ONCE])
            lists.append(top_items(scores, keys, self.popular_items, k))
        return np.concatenate(lists)

    def item_scores(self, frame: pd.DataFrame) -> tuple[sparse.csr_matrix, Array]:
        """Return how likely items are to come, `(N, I)`, above 0 for those of which this method knows something.

        Also the key of each of the I columns, in rising order.
        """
        raise NotImplementedError(f"{self.name} does not predict items")

    def binary(self, frame: pd.DataFrame) -> dict[str, Array]:
        """Return the probability of each label of `LABELS`, each `(N,)` float64."""
        raise NotImplementedError(f"{self.name} does not predict labels")

    def over_popularity(self, scores: sparse.spmatrix) -> Array:
        """Turn scores of some categories into probabilities of all, popularity deciding below them and among equals."""
        dense = shares_of(scores).toarray().astype(np.float32)
        dense *= 1 - _FALLBACK
        dense += _FALLBACK * self.popularity.astype(np.float32)
        return np.asarray(dense / dense.sum(axis=1, keepdims=True))

    def own_items(
        self, frame: pd.DataFrame, weight: Array, events: tuple[Array, ...]
    ) -> tuple[sparse.csr_matrix, Array]:
        """Return the items of each row's own sequence with the sum of their events' weights, as `item_scores`."""
        rows, _, values = events
        keys, columns = np.unique(values, return_inverse=True)
        return sparse.csr_matrix((weight, (rows, columns)), shape=(len(frame), len(keys))), keys


class MostPopular(Baseline):
    """The same for everyone: what came next most often in the training rows."""

    name = "most popular"
    tasks = ("next_category", "next_item")

    def next_category(self, frame: pd.DataFrame) -> Array:
        return np.tile(self.popularity.astype(np.float32), (len(frame), 1))

    most_items = 100

    def item_scores(self, frame: pd.DataFrame) -> tuple[sparse.csr_matrix, Array]:
        keys = self.popular_items[: self.most_items]
        order = np.argsort(keys)
        counts = np.tile(self.item_counts[: self.most_items][order], (len(frame), 1))
        return sparse.csr_matrix(counts), keys[order]


class LastCategory(Baseline):
    """The category of the newest event, then of the one before, and so on; for items likewise."""

    name = "last category"
    tasks = ("next_category", "next_item")

    def next_category(self, frame: pd.DataFrame) -> Array:
        rows, places, columns = category_events(frame, self.categories)
        # Each event outweighs all older ones together, however often they repeat; 900 places stay above zero.
        weights = 0.5 ** np.minimum(places, 900).astype(np.float64)
        newest = sparse.csr_matrix((weights, (rows, columns)), shape=(len(frame), len(self.categories)))
        # As powers those would fall below popularity: only their order is kept.
        ranks = newest.tocsr()
        for row in range(len(frame)):
            part = slice(ranks.indptr[row], ranks.indptr[row + 1])
            ranks.data[part] = np.argsort(np.argsort(ranks.data[part], kind="stable"), kind="stable") + 1
        return self.over_popularity(ranks)

    def item_scores(self, frame: pd.DataFrame) -> tuple[sparse.csr_matrix, Array]:
        events = events_of(frame, "item_keys")
        return self.own_items(frame, 0.5 ** np.minimum(events[1], 900).astype(np.float64), events)


class CurrentInterest(Baseline):
    """No change: what the last W days showed; for items, how often they stand in the sequence."""

    name = "current interest"
    tasks = ("next_category", "next_item")

    def next_category(self, frame: pd.DataFrame) -> Array:
        return self.over_popularity(category_matrix(frame, "current_categories", "current_shares", self.categories))

    def item_scores(self, frame: pd.DataFrame) -> tuple[sparse.csr_matrix, Array]:
        events = events_of(frame, "item_keys")
        # The newer of two that are equally frequent comes first.
        return self.own_items(frame, 1 + 1e-3 / (1 + events[1]), events)


class OfHistory(Baseline):
    """What methods share that look at all that a user ever did with items, where this is at hand.

    Args:
        history: of items; None where it is not at hand, as where a plan names no table of events. Then these methods
            have no answer about items, or one from the sequences alone.
    """

    def __init__(self, history: ItemHistory | None = None):
        self.history = history


class WholeHistory(OfHistory):
    """The user's whole history: every event counts alike; of items that came equally often, the newest comes first."""

    name = "whole history"

    def __init__(self, history: ItemHistory | None = None):
        super().__init__(history)
        self.tasks = ("next_category",) if history is None else ("next_category", "next_item")

    def next_category(self, frame: pd.DataFrame) -> Array:
        return self.over_popularity(category_matrix(frame, "longterm_categories", "longterm_counts", self.categories))

    def item_scores(self, frame: pd.DataFrame) -> tuple[sparse.csr_matrix, Array]:
        if self.history is None:
            return super().item_scores(frame)
        own = self.history.pairs(frame)
        values = own.count + 1e-3 / (1 + own.newest)
        return matrix_of(values, own.rows, own.columns, len(frame), self.history), self.history.keys


class DecayedHistory(WholeHistory):
    """The user's whole history, older events counting less: the long-term interest as the table holds it.

    Of items, dates count and not events: each item has the number of its dates, halved in each half-life since the
    newest of them. The half-life is that under which the items of the validation rows are found best.
    """

    name = "decayed history"

    half_lives = (7.0, 14.0, 30.0, 60.0, 120.0, 240.0)
    # Validation rows that are enough to tune one number on.
    most_rows = 2_000

    def learn(self, train: pd.DataFrame, valid: pd.DataFrame) -> None:  # noqa: ARG002
        self.half_life = self.half_lives[2]
        if self.history is None:
            return
        labelled = with_items(valid, self.history).head(self.most_rows)
        if labelled.empty:
            return
        found = {}
        for tried in self.half_lives:
            self.half_life = tried
            hits = hits_in_lists(self.next_item(labelled, TOP_ITEMS), list(labelled["next_item_keys"]))
            found[tried] = (hits.sum(axis=1) / lengths(labelled["next_item_keys"])).mean()
        # A month, unless another one finds more.
        self.half_life = max((self.half_lives[2], *self.half_lives), key=lambda one: found[one])

    def next_category(self, frame: pd.DataFrame) -> Array:
        return self.over_popularity(category_matrix(frame, "longterm_categories", "longterm_shares", self.categories))

    def item_scores(self, frame: pd.DataFrame) -> tuple[sparse.csr_matrix, Array]:
        if self.history is None:
            return super().item_scores(frame)
        own = self.history.pairs(frame)
        values = own.days * 0.5 ** (own.age / self.half_life) + 1e-9 / (1 + own.newest)
        return matrix_of(values, own.rows, own.columns, len(frame), self.history), self.history.keys


class MarkovChain(OfHistory):
    """First-order Markov chain: from each category (item) to the one of the next event.

    Steps between categories are those of the sequences of the training rows. Steps between items are those of all
    events of the users that are judged, up to the first validation date, or else of the sequences too. The state is
    where the user's last ten events are, the newer the likelier. Categories are smoothed towards popularity by `prior`
    imaginary transitions.
    """

    name = "Markov chain"
    tasks: tuple[str, ...] = ("next_category", "next_item")
    prior = 50.0

    def learn(self, train: pd.DataFrame, valid: pd.DataFrame) -> None:
        # Sequences of one user at several dates overlap; the latest holds most of what there is to count.
        latest = train.sort_values("dt", kind="stable").drop_duplicates("user_id", keep="last")
        size = len(self.categories)
        rows, places, columns = category_events(latest, self.categories)
        follows = (rows[1:] == rows[:-1]) & (places[1:] == places[:-1] - 1)
        steps = (columns[:-1][follows], columns[1:][follows])
        counts = sparse.csr_matrix((np.ones(follows.sum()), steps), shape=(size, size)).toarray()
        counts += self.prior * self.popularity
        self.transitions = counts / counts.sum(axis=1, keepdims=True)  # (C, C)

        if self.history is None or not self.history.events:
            rows, _, keys = events_of(latest, "item_keys")
            self.items, columns = np.unique(keys, return_inverse=True)
            self.item_transitions = shares_of(item_steps([(rows, columns)], len(self.items), 1))
        else:
            self.items = self.history.keys
            until = known_at(train, valid)
            self.item_transitions = shares_of(item_steps(self.history.until(until), len(self.items), 1))

    @staticmethod
    def state(rows: Array, places: Array, columns: Array, shape: tuple[int, int]) -> sparse.csr_matrix:
        """Return where each row's last ten events are, as shares."""
        recent = places < 10
        weights = 0.8 ** places[recent].astype(np.float64)
        return shares_of(sparse.csr_matrix((weights, (rows[recent], columns[recent])), shape=shape))

    def next_category(self, frame: pd.DataFrame) -> Array:
        shape = (len(frame), len(self.categories))
        state = self.state(*category_events(frame, self.categories), shape)
        return self.over_popularity(sparse.csr_matrix(state @ self.transitions))

    def item_state(self, frame: pd.DataFrame) -> sparse.csr_matrix:
        """Return at which items each row's last ten events are, as shares, `(N, I)`."""
        rows, places, keys = events_of(frame, "item_keys")
        columns = places_of(self.items, keys)
        known = columns >= 0
        return self.state(rows[known], places[known], columns[known], (len(frame), len(self.items)))

    def item_scores(self, frame: pd.DataFrame) -> tuple[sparse.csr_matrix, Array]:
        return sparse.csr_matrix(self.item_state(frame) @ self.item_transitions), self.items


class CoVisits(MarkovChain):
    """Items that the same users took near those of the user's last ten events, before or after them.

    Two events are near if at most `reach - 1` others of the user lie between them. How often two items were, divided
    by the root of how often each was near any, as item-to-item methods do, so that what all take does not stand first
    with everyone. Each item keeps its `most_near`. It learns from as many users as have `most_events` together.
    """

    name = "co-visited items"
    tasks = ("next_item",)

    reach = 10
    most_near = 50
    # An event makes up to twenty pairs of items, which take some 400 bytes while they are counted.
    most_events = 3_000_000

    def learn(self, train: pd.DataFrame, valid: pd.DataFrame) -> None:
        if self.history is None or not self.history.events:
            self.items, self.item_transitions = np.zeros(0, np.int64), sparse.csr_matrix((0, 0))
            return
        self.items = self.history.keys
        known = self.history.within(self.most_events)
        steps = item_steps(known.until(known_at(train, valid)), len(self.items), self.reach)
        near = sparse.csr_matrix(steps + steps.T)
        del steps
        root = np.sqrt(np.maximum(np.asarray(near.sum(axis=0, dtype=np.float64)).ravel(), 1)).astype(np.float32)
        # In place: these are the largest arrays of an evaluation.
        near.data /= root[near.indices]
        near.data /= np.repeat(root, np.diff(near.indptr))
        self.item_transitions = largest_of_rows(near, self.most_near)

    def next_category(self, frame: pd.DataFrame) -> Array:
        raise NotImplementedError(f"{self.name} does not predict categories")


class SessionKNN(Baseline):
    """What came next for the users whose recent events were most alike, weighted by how alike (cosine).

    As session kNN, which neural recommenders have often failed to beat (Jannach and Ludewig, RecSys 2017; Ludewig and
    Jannach, UMUAI 28, 2018), with the lookback in place of a session: categories weighted by their inverse frequency,
    neighbours among the most recent training rows.
    """

    name = "session kNN"
    tasks = ("next_category", "next_item")

    neighbours = 200
    most_rows = 5_000

    def learn(self, train: pd.DataFrame, valid: pd.DataFrame) -> None:  # noqa: ARG002
        alive = train[train["next_category"].notna()].sort_values("dt", kind="stable").tail(self.most_rows)
        seen = category_matrix(alive, "current_categories", "current_counts", self.categories)
        rows_with_category = np.asarray((seen > 0).sum(axis=0)).ravel()
        self.weights = np.log((1 + len(alive)) / (1 + rows_with_category))
        self.trained = self.vectors(alive)
        self.outcomes = category_matrix(alive, "next_categories", "next_shares", self.categories)
        rows = np.repeat(np.arange(len(alive)), lengths(alive["next_item_keys"]))
        self.items, columns = np.unique(flat(alive["next_item_keys"], np.int64), return_inverse=True)
        shape = (len(alive), len(self.items))
        self.item_outcomes = sparse.csr_matrix((np.ones(len(rows)), (rows, columns)), shape=shape)

    def vectors(self, frame: pd.DataFrame) -> sparse.csr_matrix:
        """Return each row's recent categories as a vector of length 1, `(N, C)`."""
        counts = category_matrix(frame, "current_categories", "current_counts", self.categories)
        counts.data = np.log1p(counts.data)
        weighted = counts @ sparse.diags_array(self.weights)
        norms = np.sqrt(np.asarray(weighted.multiply(weighted).sum(axis=1)).ravel())
        return sparse.csr_matrix(
            sparse.diags_array(np.divide(1, norms, out=np.zeros_like(norms), where=norms > 0)) @ weighted
        )

    def likeness(self, frame: pd.DataFrame) -> sparse.csr_matrix:
        """Return the cosine of each row with its nearest training rows, `(N, training rows)`."""
        vectors, trained = self.vectors(frame), sparse.csr_matrix(self.trained.T)
        k = min(self.neighbours, trained.shape[1])
        parts = []
        for start in range(0, len(frame), AT_ONCE):
            cosine = (vectors[start : start + AT_ONCE] @ trained).toarray()
            nearest = np.argpartition(-cosine, k - 1, axis=1)[:, :k]
            rows = np.repeat(np.arange(len(cosine)), k)
            values = cosine[rows, nearest.ravel()]
            parts.append(sparse.csr_matrix((values, (rows, nearest.ravel())), shape=cosine.shape))
        return sparse.vstack(parts, format="csr")

    def next_category(self, frame: pd.DataFrame) -> Array:
        return self.over_popularity(self.likeness(frame) @ self.outcomes)

    def item_scores(self, frame: pd.DataFrame) -> tuple[sparse.csr_matrix, Array]:
        return sparse.csr_matrix(self.likeness(frame) @ self.item_outcomes), self.items


class Blend(Baseline):
    """A weighted mean of the other methods' probabilities, the weights tuned on the validation rows.

    First the weights under which the categories that came next are likeliest, by expectation maximisation: as weights
    of a mixture they have one optimum. From there, each weight in turn is made larger or smaller as long as Recall@5
    rises: what is likely need not be what ranks well.
    """

    name = "tuned blend"
    tasks = ("next_category",)

    rounds = 100
    steps = (0.0, 0.25, 0.5, 2.0, 4.0)
    # Validation rows that are enough to tune seven numbers on.
    most_rows = 4_000

    def __init__(self, parts: Sequence[Baseline] | None = None):
        self.parts = rankings() if parts is None else list(parts)

    def learn(self, train: pd.DataFrame, valid: pd.DataFrame) -> None:
        for part in self.parts:
            part.fit(train, valid, list(self.categories))
        self.weights = np.full(len(self.parts), 1 / len(self.parts))
        labelled = valid[columns_of(self.categories, valid["next_category"]) >= 0].head(self.most_rows)
        if labelled.empty:
            return
        truth = columns_of(self.categories, labelled["next_category"])
        chances = np.stack([part.next_category(labelled) for part in self.parts])  # (parts, n, C)
        of_truth = chances[:, np.arange(len(labelled)), truth].astype(np.float64)  # (parts, n)
        self.weights = likeliest_weights(of_truth, self.rounds)

        def recall(weights: Array) -> float:
            return float((truth_ranks(np.tensordot(weights.astype(np.float32), chances, 1), truth) <= 5).mean())

        self.weights = climb(self.weights, recall, self.steps)

    def next_category(self, frame: pd.DataFrame) -> Array:
        total = np.zeros((len(frame), len(self.categories)), np.float32)
        for weight, part in zip(self.weights, self.parts, strict=True):
            total += np.float32(weight) * part.next_category(frame)
        return total


class BaseRate(Baseline):
    """For everyone the share of training rows that have the label."""

    name = "base rate"
    tasks = ("binary",)

    def learn(self, train: pd.DataFrame, valid: pd.DataFrame) -> None:  # noqa: ARG002
        labels = {label: train[label].dropna().astype(float) for label in LABELS}
        self.rates = {label: float(values.mean()) if len(values) else 0.5 for label, values in labels.items()}

    def binary(self, frame: pd.DataFrame) -> dict[str, Array]:
        return {label: np.full(len(frame), rate) for label, rate in self.rates.items()}


class RecencyFrequency(Baseline):
    """Logistic regression on recency, frequency, spend and tenure, as in RFM analysis, on logarithms."""

    name = "logistic RFM"
    tasks = ("binary",)
    columns = ("recency_seconds", "frequency", "active_days", "spend", "history_events", "tenure_seconds")

    def features(self, frame: pd.DataFrame) -> Array:
        """Return the logarithms of the columns, `(N, 6)`."""
        values = frame[list(self.columns)].to_numpy(np.float64)
        return np.asarray(np.log1p(np.maximum(np.nan_to_num(values), 0)))

    def learn(self, train: pd.DataFrame, valid: pd.DataFrame) -> None:  # noqa: ARG002
        self.models: dict[str, Pipeline | float] = {}
        for label in LABELS:
            labelled = train[train[label].notna()]
            truth = labelled[label].astype(bool).to_numpy()
            if truth.any() and not truth.all():
                model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
                self.models[label] = model.fit(self.features(labelled), truth)
            else:
                self.models[label] = float(truth.mean()) if len(truth) else 0.5

    def binary(self, frame: pd.DataFrame) -> dict[str, Array]:
        features = self.features(frame)
        return {
            label: np.full(len(frame), model) if isinstance(model, float) else model.predict_proba(features)[:, 1]
            for label, model in self.models.items()
        }


def rankings(history: ItemHistory | None = None) -> list[Baseline]:
    """Return one of each method that ranks categories, most of them items too, not fitted."""
    return [
        MostPopular(),
        LastCategory(),
        CurrentInterest(),
        WholeHistory(history),
        DecayedHistory(history),
        MarkovChain(history),
        SessionKNN(),
    ]


def cheap_baselines(history: ItemHistory | None = None) -> list[Baseline]:
    """Return one of each, not fitted; with a history of items those too that look at nothing else."""
    blend = Blend(rankings(history))
    return [
        *blend.parts,
        *([] if history is None else [CoVisits(history)]),
        blend,
        BaseRate(),
        RecencyFrequency(),
    ]
