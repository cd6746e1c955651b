"""The bootstrap over users written out row by row: slow, and easy to believe."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


def resampled(
    users: Sequence[str], measure: Callable[[np.ndarray[Any, Any]], float], resamples: int, seed: int
) -> np.ndarray[Any, Any]:
    """Return what `measure` finds in each resample: users are drawn, and bring all their rows, as often as drawn.

    Args:
        users: whose row each is.
        measure: a number, or NaN, from the positions of rows, of which some stand there several times.
        resamples: how many.
        seed: the draws are those of model.judging.metrics.UserBootstrap.
    """
    names = list(dict.fromkeys(users))
    draws = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)
    found = []
    for drawn in draws:
        times = dict(zip(names, drawn, strict=True))
        found.append(measure(np.array([row for row, user in enumerate(users) for _ in range(times[user])], int)))
    return np.array(found)


def middle(samples: np.ndarray[Any, Any]) -> list[float]:
    """Return between which two numbers 95 % of the samples lie."""
    return np.percentile(samples[~np.isnan(samples)], [2.5, 97.5]).tolist()
