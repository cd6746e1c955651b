"""A network's answers and those of boosted trees together, as one model (stacked generalization, Wolpert 1992).

The card of a version that is a stack says under `stack` what each answer is made of, and `trees/` beside the network's
weights has the trees. An answer that is not named there is the network's alone. How the weights are chosen is in
model/judging/stacking.py.

Shapes: N rows, C categories, K offered categories.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lake import storage
from lake.errors import ModelMissing
from model.arrays import Array
from model.versions.trees import AT_ONCE, CATEGORY, REPAIR, Trees

if TYPE_CHECKING:
    from model.versions.artifact import Prediction

# The trees are asked about so many of the categories that the network finds likeliest: asking about all would cost as
# much as the network itself, and the others are not among those that anybody is shown.
OFFERED = 30
# Of the two, to be multiplied with the log odds, or the logs, of what each says.
NETWORK, TREES, BIAS = "network", "trees", "bias"
_LEAST = 1e-9


@dataclass(frozen=True)
class Stack:
    """What is made of a network's answers.

    Attributes:
        trees: the other side.
        category: the powers of both sides' chances, by name; None where the network's order of categories stays.
        answers: by label, the weights of both sides' log odds and a bias, by name.
    """

    trees: Trees
    category: Mapping[str, float] | None
    answers: Mapping[str, Mapping[str, float]]

    def applied(self, prediction: "Prediction", rows: pd.DataFrame) -> "Prediction":
        """Return a network's prediction with the answers of both.

        Args:
            prediction: of the network, for N rows.
            rows: the same rows of `interests`.
        """
        answers, categories = dict(prediction.answers), prediction.categories
        if self.category is not None and len(rows):
            offered = likeliest(categories)
            categories = reordered(categories, offered, self.trees.of_offered(rows, offered), self.category)
        said = self.trees.binary(rows) if self.answers and len(rows) else {}
        for label, chances in said.items():
            if label in self.answers:
                answers[label] = pooled(answers[label], chances, self.answers[label])
        return replace(prediction, categories=categories, answers=answers)

    def as_card(self) -> dict[str, Any]:
        """Return what the card says."""
        return {
            "category": None if self.category is None else dict(self.category),
            "answers": {label: dict(weights) for label, weights in self.answers.items()},
        }

    @staticmethod
    def load(folder: str, card: Mapping[str, Any], categories: list[str]) -> "Stack | None":
        """Read the stack of a model; None for one that is a network alone.

        Args:
            folder: of the model.
            card: of the model.
            categories: ids of the C categories of its network.

        Raises:
            ModelMissing: trees are missing, or broken, or of other categories.
        """
        said = card.get("stack")
        if said is None:
            return None
        place = storage.join(folder, "trees")
        trees = Trees.load(place)
        if list(trees.candidates.categories) != categories:
            raise ModelMissing(
                f"the trees at {place} know {len(trees.candidates.categories)} categories, others than the "
                f"{len(categories)} of the network beside them; evaluate the run again with model.evaluate"
            )
        named = [CATEGORY] if said["category"] is not None and trees.ranker is None else []
        if lacking := [*named, *(label for label in said["answers"] if label not in trees.heads)]:
            raise ModelMissing(
                f"the trees at {place} lack {', '.join(lacking)}, which the model's card names; {REPAIR}"
            )
        return Stack(trees, said["category"], said["answers"])


def likeliest(categories: Array) -> Array:
    """Return the columns of the `OFFERED` likeliest categories of each row, (N, K), in their order.

    Args:
        categories: (N, C) probabilities.
    """
    k = min(OFFERED, categories.shape[1])
    found = np.empty((len(categories), k), np.int64)
    for start in range(0, len(categories), AT_ONCE):
        rows = slice(start, start + AT_ONCE)
        found[rows] = np.sort(np.argpartition(-categories[rows], k - 1, axis=1)[:, :k], axis=1)
    return found


def reordered(categories: Array, offered: Array, chances: Array, powers: Mapping[str, float]) -> Array:
    """Return the categories with what the offered ones have together spread anew among them, (N, C) float32.

    Each gets a share in proportion to the product of what both sides say of it, each to its power (a logarithmic
    opinion pool, Genest and Zidek 1986). The others stay as they are.

    Args:
        categories: (N, C) probabilities of the network.
        offered: (N, K) columns.
        chances: (N, K) of the trees, each judged by itself.
        powers: of both sides.

    >>> said = np.array([[0.5, 0.3, 0.2]])
    >>> reordered(said, np.array([[0, 1]]), np.array([[0.1, 0.4]]), {"network": 0, "trees": 1}).round(2).tolist()
    [[0.1599999964237213, 0.6399999856948853, 0.20000000298023224]]
    """
    # What is offered alone in double precision: there are thousands of categories.
    own = np.take_along_axis(np.asarray(categories), offered, axis=1).astype(np.float64)
    logs = powers[NETWORK] * _log(own) + powers[TREES] * _log(chances)
    weights = np.exp(logs - logs.max(axis=1, keepdims=True))
    together = np.array(categories, np.float32)
    np.put_along_axis(
        together, offered, (own.sum(axis=1, keepdims=True) * weights / weights.sum(axis=1, keepdims=True)), axis=1
    )
    return together


def pooled(network: Array, trees: Array, weights: Mapping[str, float]) -> Array:
    """Return the probability that both sides give together, (N,) float32.

    Args:
        network: (N,) probabilities.
        trees: (N,) those of the trees.
        weights: of the log odds of both, and a bias.

    >>> pooled(np.array([0.5, 0.8]), np.array([0.5, 0.5]), {"network": 1, "trees": 0, "bias": 0}).tolist()
    [0.5, 0.800000011920929]
    """
    odds = weights[NETWORK] * log_odds(network) + weights[TREES] * log_odds(trees) + weights[BIAS]
    return np.asarray(1 / (1 + np.exp(-odds)), np.float32)


def log_odds(probabilities: Array) -> Array:
    """Return the log odds of probabilities, of 0 and 1 too, (N,) float64."""
    chances = np.clip(np.asarray(probabilities, np.float64), _LEAST, 1 - _LEAST)
    return np.asarray(np.log(chances) - np.log1p(-chances))


def _log(chances: Array) -> Array:
    return np.asarray(np.log(np.maximum(np.asarray(chances, np.float64), _LEAST)))
