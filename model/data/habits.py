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
ROUNDS = 500
# However faithful users are, what all choose keeps this much: what is divided by it stays finite.
LEAST_FOR_ALL = 0.01


def comes_again(top: Mapping[str, Array], habits: tuple[float, ...]) -> Array:
    """Return the weight with which each category of the profile comes again, (N, P) float64; all that is new has 1.

    Args:
        top: (N, P) by column, of which `SPEEDS` are read.
        habits: the weight of each speed.
    """
    total = np.zeros(top[SPEEDS[0]].shape)
    for name, weight in zip(SPEEDS, habits, strict=True):
        if weight:
            total += weight * spread(name, top[name])
    return total


def spread(name: str, amounts: Array) -> Array:
    """Return what part of a user's interest each category has at one speed, (N, P) float64.

    The shares of the table are of all categories, also of those that the profile has no place for.
    """
    if name == "longterm_shares":
        return np.asarray(amounts, np.float64)
    return np.asarray(amounts / np.maximum(amounts.sum(axis=1, keepdims=True), 1))


def likeliest_habits(top: Mapping[str, Array], came: Array, usual: Array) -> tuple[float, ...]:
    """Return the weight of each speed under which what came next is likeliest, with 1 for what all users choose.

    What comes is taken as drawn from a mixture of the user's interest at each speed and of what all choose. As weights
    of a mixture they have one optimum, which expectation maximisation climbs.

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
    chances = np.stack([*((spread(name, top[name])[told] * same).sum(axis=1) for name in SPEEDS), usual[told]])
    weights = np.full(len(chances), 1 / len(chances))
    for _ in range(ROUNDS):
        joint = weights[:, None] * chances
        weights = (joint / joint.sum(axis=0)).mean(axis=1)
    # Rounded, so that all workers begin alike even where their processors add up in another order.
    return tuple(round(float(weight / max(weights[-1], LEAST_FOR_ALL)), 3) for weight in weights[:-1])
