"""The parts of the page's sentences: days, tables, numbers, the rows that readers see, and repairs."""

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
    """Name days: consecutive ones as a range, and at most three days or ranges.

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
    words = [str(days[0]) if len(days) == 1 else f"{days[0]} to {days[-1]}" for days in ranges]
    more = sum(map(len, ranges[3:]))
    if more:
        words = [*words[:3], f"{counted(more, 'day')} more"]
    return ", ".join(words[:-1]) + " and " + words[-1] if len(words) > 1 else words[0]


def tables_in_words(cells: list[Cell]) -> str:
    """Name the tables of cells, each once."""
    return " and ".join(dict.fromkeys(cell.table for cell in cells))


def what_readers_see(cells: list[Cell]) -> str:
    """Describe the rows that readers see of tables and days whose newest rows are not published."""
    published = [cell for cell in cells if cell.rows is not None]
    unpublished = [cell for cell in cells if cell.rows is None]
    parts = []
    if published:
        parts.append(f"the rows published before for {days_in_words(cell.day for cell in published)}")
    if unpublished:
        days = days_in_words(cell.day for cell in unpublished)
        parts.append(f"no rows of {tables_in_words(unpublished)} for {days}")
    return " and ".join(parts).capitalize() + "; other days are not affected."


def how_to_repair(broken: list[Cell]) -> str:
    """Describe the safe repair of tables and days that failed the audit."""
    first = broken[0]
    stage = f"{TABLES[first.table].group}.stage"
    if first.table in EACH_DAY:
        return (
            f"Check the data docs. Have the landing repaired, then clear {stage} of that run with downstream. "
            "Not safe: raising a limit so that the audit passes."
        )
    return f"Check the data docs, repair the cause, then clear {stage} of that run with downstream."
