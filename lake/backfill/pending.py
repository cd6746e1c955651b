"""Days by the version that they were computed from: which of them do not know of a change, without looking at each."""

from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from datetime import date


class Pending:
    """Days, each with the version of `events` that its rows were computed from; a day is taken once.

    A tree of minima: to find no day takes a few steps, however many days there are.

    >>> days = Pending({date(2025, 1, 1): 7, date(2025, 1, 2): 5, date(2025, 1, 3): 9})
    >>> [day.day for day in days.take(date(2025, 1, 1), date(2025, 1, 31), 8)]
    [1, 2]
    >>> days.take(date(2025, 1, 1), date(2025, 1, 31), 8)
    []
    """

    def __init__(self, versions: Mapping[date, int]):
        self.days = sorted(versions)
        self.size = 1 << max(0, len(self.days) - 1).bit_length()
        leaves: list[float] = [versions[day] for day in self.days]
        never = float("inf")
        # The children of node n are 2n and 2n + 1; the leaves come last.
        self.least = [never] * self.size + leaves + [never] * (self.size - len(leaves))
        for node in range(self.size - 1, 0, -1):
            self.least[node] = min(self.least[2 * node], self.least[2 * node + 1])

    def take(self, first: date, last: date, version: int) -> list[date]:
        """Take the days from `first` to `last`, both included, that were computed from an older version."""
        begin, end = bisect_left(self.days, first), bisect_right(self.days, last)
        return [self.days[place] for place in self._take(1, 0, self.size, begin, end, version)] if begin < end else []

    def _take(self, node: int, low: int, high: int, begin: int, end: int, version: int) -> list[int]:
        if end <= low or high <= begin or self.least[node] >= version:
            return []
        if high - low == 1:
            self.least[node] = float("inf")
            return [low]
        middle = (low + high) // 2
        taken = self._take(2 * node, low, middle, begin, end, version)
        taken += self._take(2 * node + 1, middle, high, begin, end, version)
        if taken:
            self.least[node] = min(self.least[2 * node], self.least[2 * node + 1])
        return taken
