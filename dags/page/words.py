"""Phrases of which the page's sentences are made: days, tables, numbers, and what they mean for readers."""

from collections.abc import Iterable
from datetime import date, timedelta

from dags.page.state import EACH_DAY, Cell
from lake.tables import TABLES


def counted(number: int, thing: str) -> str:
    """Return a number with its noun.

    >>> counted(1, "run"), counted(2, "run")
    ('1 run', '2 runs')
    """
    return f"{number} {thing}" + ("" if number == 1 else "s")


def days_in_words(days: Iterable[date]) -> str:
    """Name days, those in a row as a range, and of many the first three.

    >>> days_in_words(date(2025, 1, n) for n in (1, 2, 3, 5))
    '2025-01-01 to 2025-01-03 and 2025-01-05'
    >>> days_in_words(date(2025, 1, n) for n in (1, 3, 5, 7, 9))
    '2025-01-01, 2025-01-03, 2025-01-05 and 2 days more'
    """
    ranges: list[list[date]] = []
    for day in sorted(set(days)):
        if ranges and day - ranges[-1][-1] == timedelta(days=1):
            ranges[-1].append(day)
        else:
            ranges.append([day])
    words = [str(some[0]) if len(some) == 1 else f"{some[0]} to {some[-1]}" for some in ranges]
    more = sum(map(len, ranges[3:]))
    if more:
        words = [*words[:3], f"{counted(more, 'day')} more"]
    return ", ".join(words[:-1]) + " and " + words[-1] if len(words) > 1 else words[0]


def tables_in_words(cells: list[Cell]) -> str:
    """Name the tables of cells, each once."""
    return " and ".join(dict.fromkeys(cell.table for cell in cells))


def what_readers_see(cells: list[Cell]) -> str:
    """Say what readers see of tables and days whose newest rows they do not see."""
    old = [cell for cell in cells if cell.rows is not None]
    none = [cell for cell in cells if cell.rows is None]
    parts = []
    if old:
        parts.append(f"what was published before of {days_in_words(cell.day for cell in old)}")
    if none:
        parts.append(f"no rows of {tables_in_words(none)} of {days_in_words(cell.day for cell in none)}")
    return " and ".join(parts).capitalize() + "; other days are not touched."


def how_to_repair(broken: list[Cell]) -> str:
    """Say what is safe to do about tables and days that failed the audit."""
    first = broken[0]
    stage = f"{TABLES[first.table].group}.stage"
    if first.table in EACH_DAY:
        return (
            f"Look at the data docs. Have the landing repaired, then clear {stage} of that run with downstream. "
            "Not safe: raising a limit to get through."
        )
    return f"Look at the data docs, mend the cause, then clear {stage} of that run with downstream."
