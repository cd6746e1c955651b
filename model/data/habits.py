"""How fast habits change: by what mixture of old and new interest the users of a log come back to their categories.

A shop of groceries sees the same baskets all year; another sells what is wanted for a month. So no speed of forgetting
is right for both. Of each user the table says how interest is spread at four speeds, and the training rows of a log
say how much each of these is worth there.

Shapes: N rows, P categories of the profile, S speeds.
"""

from collections.abc import Mapping

import numpy as np

from model.arrays import Array

# Columns of `interests`, from the slowest: the whole history, the one that fades by MEANDER_HALF_LIFE_DAYS, W, a week.
SPEEDS = ("longterm_counts", "longterm_shares", "longterm_current_counts", "longterm_week_counts")
# Of a model that does not say: by the fading history alone.
FADING = (0.0, 1.0, 0.0, 0.0)
# So many more rows, as a part of those there are, are taken to come from the fading history. It alone has all that a
# user ever did and no zero, so that everything can come again; and where speeds say the same, it is the one.
FOR_FADING = 0.05
# However faithful users are, what all choose keeps this much: what is divided by it stays finite.
LEAST_FOR_ALL = 0.01
# Weights are found when none of them moves by more. Those that go to nothing lose a twentieth of their rest each round.
STILL = 1e-6


def spread(amounts: Array) -> Array:
    """Return what part of a user's interest each category has at one speed, (N, P) float64.

    Shares stay what they are: those of all categories are 1 together, and the profile may not have a place for all.
    """
    return np.asarray(amounts / np.maximum(amounts.sum(axis=1, keepdims=True), 1))


def likeliest_habits(top: Mapping[str, Array], came: Array, usual: Array) -> tuple[float, ...]:
    """Return the weight of each speed under which what came next is likeliest, with 1 for what all users choose.

    What comes is taken as drawn from a mixture of the user's interest at each speed and of what all choose; its weights
    are found by expectation maximisation, with `FOR_FADING`. Every worker reads the same rows in the same order, and
    nothing here depends on how a processor adds up, so that all find the same.

    Args:
        top: (N, P) by column, with `longterm_category_keys`.
        came: (N,) keys of the categories that came next, 0 for none.
        usual: (N,) the share that each of them has of everyone's events, none of them 0.

    Returns:
        `FADING` where no row tells.
    """
    told = came != 0
    if not told.any():
        return FADING
    same = (top["longterm_category_keys"] == came[:, None])[told]
    chances = np.stack([*((spread(top[name])[told] * same).sum(axis=1) for name in SPEEDS), usual[told]])
    more = FOR_FADING * np.array([*FADING, 0.0])
    weights, before = np.full(len(chances), 1 / len(chances)), np.zeros(len(chances))
    while np.abs(weights - before).max() > STILL:
        joint = weights[:, None] * chances
        # A running sum, since one of any other order would be another one on another processor.
        of_rows = np.cumsum(joint / joint.sum(axis=0), axis=1)[:, -1] / told.sum()
        weights, before = (of_rows + more) / (1 + FOR_FADING), weights
    return tuple(round(float(weight / max(weights[-1], LEAST_FOR_ALL)), 3) for weight in weights[:-1])
