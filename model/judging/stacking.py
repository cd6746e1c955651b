"""Fit what a network's answers and those of trees give together, and keep it for each answer that gains by it.

Only validation rows are looked at: neither side has learnt from them (the network chose its epoch by them, the trees
their number), and test rows are for the judgement of the whole. The gain itself is measured on users that the weights
were not fitted on.

Letters used for shapes in this module:

    N  rows    C  categories    K  offered categories
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.optimize import minimize
from scipy.special import log_softmax

from model.arrays import Array
from model.data.candidates import columns_of
from model.judging.baselines import LABELS
from model.judging.comparison import is_true
from model.judging.metrics import UserBootstrap, interval
from model.versions.stack import BIAS, NETWORK, TREES, Stack, likeliest, log_odds, pooled, reordered
from model.versions.trees import AT_ONCE, Trees

CATEGORY = "next_category"
NO_TREES = "too little variety for trees"
# Parts of the users, by which weights are fitted on some and judged on others.
FOLDS = 5
RESAMPLES = 300
# As the gate: what fewer users say decides nothing.
FEWEST_USERS = 50
# With yes, and with no, among those that weights are fitted on: with fewer, a bias alone takes a label for certain.
FEWEST_OF_A_KIND = 10
# How strongly the weights of a label are drawn to the network as it is, in rows: keeps them finite where nothing else
# does, and is lost among the rows of a shop.
_PULL = 0.1
# A probability that is wrong beyond doubt would outweigh all others.
_LEAST = 1e-7

Weights = Mapping[str, float]
# From the positions of some rows, and whether trees have a say, to weights; from weights to the log loss of each row.
Fit = Callable[[Array, bool], Weights]
Loss = Callable[[Weights, Array], Array]


@dataclass(frozen=True)
class Gain:
    """What an answer gains by the trees, on validation rows of users that its weights were not fitted on.

    Attributes:
        answer: `next_category`, or a label.
        alone, together: log loss in nats of the network, and of both. The network has its own weight and bias too, so
            that what is gained by these alone is no gain of the trees.
        low, high: 95 % interval of the difference, positive where both are better; paired, over users. These four are
            NaN where they were not measured, or are not shown.
        users: how many it is measured on.
        kept: whether the whole interval is above 0.
        why: the reason for which the four are NaN; else empty.
    """

    answer: str
    alone: float
    together: float
    low: float
    high: float
    users: int
    kept: bool
    why: str = ""

    @staticmethod
    def untold(answer: str, users: int, why: str) -> "Gain":
        """Return that of an answer whose gain cannot be measured: it stays the network's."""
        none = float("nan")
        return Gain(answer, alone=none, together=none, low=none, high=none, users=users, kept=False, why=why)

    def without_small_group(self, least: int) -> "Gain":
        """Return it without its numbers if they are of fewer than `least` users."""
        if self.why or self.users >= least:
            return self
        hidden = float("nan")
        why = f"{self.users} users are too few to show numbers of"
        return replace(self, alone=hidden, together=hidden, low=hidden, high=hidden, why=why)

    def __str__(self) -> str:
        verdict = "with trees" if self.kept else "the network alone"
        if self.why:
            return f"{self.answer}: {verdict}; {self.why}"
        return (
            f"{self.answer}: {verdict}; log loss {self.alone:.4f} alone, {self.together:.4f} together, "
            f"gain {self.low:+.4f} to {self.high:+.4f}, {self.users} users"
        )


def fit_stack(
    trees: Trees, categories: Array, answers: Mapping[str, Array], valid: pd.DataFrame, seed: int
) -> tuple[Stack | None, list[Gain]]:
    """Return the stack of a network and trees, None where no answer gains, and what each answer gains.

    Args:
        trees: grown on other rows.
        categories: `(N, C)` what the network says of the validation rows, in the trees' order of categories.
        answers: `(N,)` what it says of each label.
        valid: the N rows, with labels.
        seed: of the parts of users and the bootstrap.
    """
    users = valid["user_id"].to_numpy()
    gains, chosen = [], {}
    truth = columns_of(trees.candidates.categories, valid[CATEGORY])
    offered = likeliest(categories)
    chances = trees.of_offered(valid, offered)
    # Where what came was not offered, the order of the others says nothing.
    rows = np.flatnonzero((truth[:, None] == offered).any(axis=1))
    ranked = CategoryFit(categories, offered, chances, truth)
    if trees.ranker is None:
        gains.append(Gain.untold(CATEGORY, len(np.unique(users[rows])), NO_TREES))
    else:
        gains.append(gain_of(CATEGORY, ranked.fit, ranked.loss, rows, users, seed))
    chosen[CATEGORY] = ranked.fit(rows, True) if gains[-1].kept else None
    said = trees.binary(valid)
    for label in LABELS:
        head = AnswerFit(answers[label], said[label], is_true(valid[label]))
        known = np.flatnonzero(valid[label].notna().to_numpy())
        if len(np.unique(said[label][known])) < 2:
            # A rate, or trees without a branch: a second bias, and two of them have no best value.
            gains.append(Gain.untold(label, len(np.unique(users[known])), NO_TREES))
        else:
            gains.append(gain_of(label, head.fit, head.loss, known, users, seed, head.truth))
        chosen[label] = head.fit(known, True) if gains[-1].kept else None
    kept = {label: weights for label in LABELS if (weights := chosen[label]) is not None}
    if not kept and chosen[CATEGORY] is None:
        return None, gains
    return Stack(trees.only(list(kept), ranker=chosen[CATEGORY] is not None), chosen[CATEGORY], kept), gains


def gain_of(
    answer: str, fit: Fit, loss: Loss, rows: Array, users: Array, seed: int, truth: Array | None = None
) -> Gain:
    """Return what an answer gains on users that its weights were not fitted on: each part is judged by the others.

    Args:
        answer: its name.
        fit: gives weights from the rows at some positions, with trees or without.
        loss: log loss of the rows at some positions with weights.
        rows: `(n,)` positions that can be judged.
        users: `(N,)` ids of the users of all rows.
        seed: of the parts and the bootstrap.
        truth: `(N,)` bool, of an answer that is yes or no.
    """
    _, number = np.unique(users, return_inverse=True)
    part = np.random.default_rng(seed).integers(0, FOLDS, number.max(initial=0) + 1)[number]
    many = len(np.unique(users[rows]))
    if many < FEWEST_USERS:
        return Gain.untold(answer, many, f"{many} users are too few to tell")
    if truth is not None:
        fitted = [rows[part[rows] != fold] for fold in range(FOLDS)]
        of_a_kind = [len(np.unique(users[some[truth[some] == kind]])) for some in fitted for kind in (False, True)]
        if min(of_a_kind) < FEWEST_OF_A_KIND:
            return Gain.untold(answer, many, f"fewer than {FEWEST_OF_A_KIND} users with yes, or with no, cannot tell")
    before, after = np.zeros((2, len(rows)))
    for fold in range(FOLDS):
        own = part[rows] == fold
        before[own] = loss(fit(rows[~own], False), rows[own])
        after[own] = loss(fit(rows[~own], True), rows[own])
    samples = UserBootstrap(users, RESAMPLES, seed).means((before - after)[:, None], rows)[:, 0]
    low, high = interval(samples)
    return Gain(answer, float(before.mean()), float(after.mean()), low, high, many, kept=low > 0)


@dataclass(frozen=True)
class CategoryFit:
    """The order of the offered categories.

    Attributes:
        categories: `(N, C)` of the network.
        offered: `(N, K)` columns.
        chances: `(N, K)` of the trees.
        truth: `(N,)` column of what came, which is offered in all rows that are asked for.
    """

    categories: Array
    offered: Array
    chances: Array
    truth: Array

    def fit(self, rows: Array, trees: bool) -> Weights:
        """Return the powers with which what came is likeliest; none is negative.

        That of the trees is 0 without `trees`.
        """
        own = self.categories[rows[:, None], self.offered[rows]].astype(np.float64)
        sides = np.stack([np.log(np.maximum(own, 1e-9)), np.log(np.maximum(self.chances[rows], 1e-9))])  # (2, n, K)
        came = self.truth[rows, None] == self.offered[rows]

        def loss(powers: Array) -> tuple[float, Array]:
            logs = log_softmax(np.tensordot(powers, sides, 1), axis=1)
            # Of the log likelihood: what came, minus what was expected to.
            slope = (sides * (came - np.exp(logs))).sum(axis=2).mean(axis=1)
            return -float(logs[came].mean()), -slope

        bounds = [(0, None), (0, None if trees else 0)]
        found = minimize(loss, [1.0, 0.0], jac=True, method="L-BFGS-B", bounds=bounds).x
        return {NETWORK: round(float(found[0]), 6), TREES: round(float(found[1]), 6)}

    def loss(self, weights: Weights, rows: Array) -> Array:
        """Return the log loss of each row, `(n,)`."""
        chances = np.empty(len(rows), np.float32)
        for start in range(0, len(rows), AT_ONCE):
            part = rows[start : start + AT_ONCE]
            together = reordered(self.categories[part], self.offered[part], self.chances[part], weights)
            chances[start : start + AT_ONCE] = together[np.arange(len(part)), self.truth[part]]
        return np.asarray(-np.log(np.maximum(chances, _LEAST)))


@dataclass(frozen=True)
class AnswerFit:
    """One label.

    Attributes:
        network, trees: `(N,)` probabilities.
        truth: `(N,)` bool, which holds where the label is known.
    """

    network: Array
    trees: Array
    truth: Array

    def fit(self, rows: Array, trees: bool) -> Weights:
        """Return the weights with which the labels are likeliest; only the bias may be negative.

        That of the trees is 0 without `trees`. A small pull to the network as it is keeps all finite where the labels
        do not, as where they are all alike.
        """
        sides = np.stack([log_odds(self.network[rows]), log_odds(self.trees[rows]), np.ones(len(rows))])  # (3, n)
        truth = self.truth[rows]

        def loss(weights: Array) -> tuple[float, Array]:
            odds, away = weights @ sides, weights - as_it_is
            slope = (sides * (1 / (1 + np.exp(-odds)) - truth)).mean(axis=1)
            likely = float((np.logaddexp(0, odds) - truth * odds).mean())
            return likely + pull / 2 * float(away @ away), slope + pull * away

        as_it_is, pull = np.array([1.0, 0.0, 0.0]), _PULL / len(rows)
        bounds = [(0, None), (0, None if trees else 0), (None, None)]
        found = minimize(loss, as_it_is, jac=True, method="L-BFGS-B", bounds=bounds).x
        return dict(zip((NETWORK, TREES, BIAS), (round(float(one), 6) for one in found), strict=True))

    def loss(self, weights: Weights, rows: Array) -> Array:
        """Return the log loss of each row, `(n,)`."""
        chances = pooled(self.network[rows], self.trees[rows], weights).astype(np.float64)
        right = np.where(self.truth[rows], chances, 1 - chances)
        return np.asarray(-np.log(np.maximum(right, _LEAST)))
