"""The parts of the page's sentences: days, tables, numbers, the rows that readers see, and repairs."""

from dags.page.state import EACH_DAY, Cell
from lake.days import days_in_words
from lake.tables import TABLES


def counted(number: int, thing: str) -> str:
    """Return a number with its noun.

    >>> counted(1, "run"), counted(2, "run")
    ('1 run', '2 runs')
    """
    return f"{number} {thing}" + ("" if number == 1 else "s")


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
            f"Check the data docs. Have the landing repaired, then clear {stage} of that run with downstream; "
            "of a run whose other days are published, running the day that failed is enough. "
            "Not safe: raising a limit so that the audit passes."
        )
    return f"Check the data docs, repair the cause, then clear {stage} of that run with downstream."
