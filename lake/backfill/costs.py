"""Estimates of how long a job takes, from past ones."""

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations


@dataclass(frozen=True)
class Costs:
    """Seconds of staging and audit, from the commits: for each table, (rows, seconds) of the newest ones."""

    past: Mapping[str, list[tuple[int, float]]]

    def seconds(self, table: str, rows: int) -> float | None:
        """Return the seconds of one job; None when there was none."""
        return estimate(self.past[table], rows)


def estimate(past: list[tuple[int, float]], rows: int) -> float | None:
    """Return the seconds of a job with `rows` rows, from (rows, seconds) of past ones; None without any.

    A job has a part that does not depend on its rows and one that does: the line of Theil and Sen, whose slope is the
    median of those between any two jobs: a single job that waited for the machine does not move it.

    >>> estimate([(100, 11.0), (200, 12.0), (300, 13.0), (100, 99.0)], 1000)
    20.0
    >>> estimate([(100, 7.0)], 1000), estimate([], 1)
    (7.0, None)
    """
    if not past:
        return None
    slopes = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in combinations(past, 2) if a[0] != b[0]]
    slope = max(0.0, statistics.median(slopes)) if slopes else 0.0
    base = max(0.0, statistics.median(seconds - slope * n for n, seconds in past))
    return round(base + slope * rows, 1)


def total(seconds: Iterable[float | None]) -> float | None:
    """Add times of which one may be unknown.

    >>> total([1.0, 2.0]), total([1.0, None])
    (3.0, None)
    """
    times = list(seconds)
    return None if None in times else float(sum(time for time in times if time is not None))
