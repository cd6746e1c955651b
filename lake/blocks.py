"""Blocks of landing days: which of them, summed up once, serve the states at some dates. Pure, no storage."""

from collections.abc import Collection, Sequence
from datetime import date, timedelta
from typing import NamedTuple

from lake.days import ONE_DAY, days_between
from lake.rules import WEEK_DAYS


class Block(NamedTuple):
    """Consecutive landing days, both ends included: one, or as many as a size says, aligned to its multiples."""

    first: date
    last: date

    @property
    def days(self) -> list[date]:
        """Every day of the block."""
        return days_between(*self)


def block_of(day: date, size: int) -> Block:
    """Return the aligned block of `size` days that holds a day.

    >>> block = block_of(date(1970, 1, 2), 8)
    >>> f"{block.first} to {block.last}"
    '1969-12-29 to 1970-01-05'
    """
    first = day - timedelta(days=day.toordinal() % size)
    return Block(first, first + timedelta(days=size - 1))


def cover(first: date, last: date, sizes: Sequence[int], cuts: Collection[date] = ()) -> list[Block]:
    """Cut `first` to `last` into blocks, each as large as possible, in order.

    Args:
        first: the first day.
        last: the last day, included.
        sizes: the sizes of blocks in days; single days are always among them.
        cuts: days before which no block may continue: it lies on one side of each of them.

    >>> [(a.day, b.day) for a, b in cover(date(2025, 1, 1), date(2025, 1, 9), [2, 4], cuts=[date(2025, 1, 8)])]
    [(1, 4), (5, 6), (7, 7), (8, 8), (9, 9)]
    """
    blocks = []
    while first <= last:
        for size in sorted({*sizes, 1}, reverse=True):
            block = block_of(first, size)
            crosses = any(block.first < cut <= block.last for cut in cuts)
            if block.first == first and block.last <= last and not crosses:
                blocks.append(block)
                first = block.last + ONE_DAY
                break
    return blocks


def cuts_of(as_of: Collection[date], lookback_days: int, history_days: int) -> set[date]:
    """Return the days at which something changes for a state at one of the dates T.

    The week, the lookback and the history of T begin on such a day, and the day after T is the first that it excludes.
    """
    spans = (0, WEEK_DAYS, lookback_days, history_days)
    return {day + ONE_DAY - timedelta(days=span) for day in as_of for span in spans}
