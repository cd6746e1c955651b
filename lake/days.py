"""Days: UTC dates, ranges of them, and the date arguments of commands."""

import argparse
from collections.abc import Iterable
from datetime import date, timedelta

ONE_DAY = timedelta(days=1)


def days_between(first: date, last: date) -> list[date]:
    """Return every date from `first` to `last`, both included.

    >>> days_between(date(2017, 2, 28), date(2017, 3, 1))
    [datetime.date(2017, 2, 28), datetime.date(2017, 3, 1)]
    """
    return [first + n * ONE_DAY for n in range((last - first).days + 1)]


def days_in_words(days: Iterable[date], at_most: int = 3) -> str:
    """Name days: consecutive ones as a range, and at most so many days or ranges.

    >>> days_in_words(date(2025, 1, n) for n in (1, 2, 3, 5))
    '2025-01-01 to 2025-01-03 and 2025-01-05'
    >>> days_in_words(date(2025, 1, n) for n in (1, 3, 5, 7, 9))
    '2025-01-01, 2025-01-03, 2025-01-05 and 2 days more'
    """
    ranges: list[list[date]] = []
    for day in sorted(set(days)):
        if ranges and day - ranges[-1][-1] == ONE_DAY:
            ranges[-1].append(day)
        else:
            ranges.append([day])
    words = [str(days[0]) if len(days) == 1 else f"{days[0]} to {days[-1]}" for days in ranges]
    more = sum(map(len, ranges[at_most:]))
    if more:
        words = [*words[:at_most], f"{more} day{'s' if more > 1 else ''} more"]
    return ", ".join(words[:-1]) + " and " + words[-1] if len(words) > 1 else words[0]


def utc_date(text: str) -> date:
    """Read a date argument."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a date; give YYYY-MM-DD, such as 2017-09-30") from None
