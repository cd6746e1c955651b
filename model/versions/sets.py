"""Sets of categories that hold the next one with a stated probability: split conformal prediction.

Adaptive prediction sets (Romano, Sesia and Candès, arXiv:2006.02544), without their draw at random: a user's
categories are taken from the likeliest on, until those that have been taken are likely enough together. How likely that
is, is not what the model claims, but what was enough for 90 % of the validation rows. So coverage holds whatever the
model is worth, for a user drawn as those of the validation rows were; a worse model has larger sets. It is an average
over users, and does not hold for each kind of them.

Shapes: N rows, C categories.
"""

import math

import numpy as np

from model.arrays import Array

COVERAGE = 0.9
# Rows at once: of thousands of categories, sums of all rows in double precision would take gigabytes.
AT_ONCE = 2048


def mass_before(probabilities: Array, columns: Array) -> Array:
    """Return how likely the categories are together that stand before some column in its row, (N,) float64.

    Args:
        probabilities: (N, C). Of equal ones the first column stands first.
        columns: (N,) of each row; infinite where it is -1, no category.

    >>> mass_before(np.array([[0.2, 0.5, 0.3]] * 4), np.array([1, 2, 0, -1])).round(2).tolist()
    [0.0, 0.5, 0.8, inf]
    """
    found = np.full(len(columns), np.inf)
    known = np.flatnonzero(columns >= 0)
    for start in range(0, len(known), AT_ONCE):
        rows = known[start : start + AT_ONCE]
        chances, column = np.asarray(probabilities[rows], np.float64), columns[rows, None]
        own = np.take_along_axis(chances, column, axis=1)
        before = (chances > own) | ((chances == own) & (np.arange(chances.shape[1]) < column))
        found[rows] = (chances * before).sum(axis=1)
    return found


def reach_of(before: Array, coverage: float = COVERAGE) -> float | None:
    """Return how likely those before a category may be for it to be in the set; None if too few rows can tell.

    Args:
        before: (N,) of what came, on validation rows.
        coverage: share of rows whose set is to hold what comes.

    Returns:
        The smallest number so that, of N + 1 rows in any order, the last one is within it with that probability. None
        also where too often something came that is no category of the model: no set would hold it.

    >>> reach_of(np.arange(9) / 10), reach_of(np.arange(19) / 20), reach_of(np.arange(8) / 10)
    (0.8, 0.85, None)
    """
    place = math.ceil((len(before) + 1) * coverage)
    if place > len(before):
        return None
    reach = float(np.sort(before)[place - 1])
    return reach if math.isfinite(reach) else None


def sizes(probabilities: Array, reach: float) -> Array:
    """Return how many categories, from the likeliest on, are in the set of each row, (N,) int64: one at least.

    >>> sizes(np.array([[0.2, 0.5, 0.3], [0.9, 0.1, 0.0]]), 0.5).tolist()
    [2, 1]
    """
    found = np.empty(len(probabilities), np.int64)
    for start in range(0, len(probabilities), AT_ONCE):
        rows = slice(start, start + AT_ONCE)
        ordered = -np.sort(-np.asarray(probabilities[rows], np.float64), axis=1)
        before = np.cumsum(ordered, axis=1) - ordered
        found[rows] = (before <= reach + _ROUNDING).sum(axis=1)
    return found


def held(before: Array, reach: float) -> Array:
    """Return whether the set of each row holds the category before which so much stands, (N,) bool.

    >>> held(np.array([0.2, 0.9, np.inf]), 0.5).tolist()
    [True, False, False]
    """
    return np.asarray(before <= reach + _ROUNDING)


# Sums of the same numbers in another order differ by less than this.
_ROUNDING = 1e-9
