"""Days: UTC dates, ranges of them, and the date arguments of commands."""

import argparse
from datetime import date, timedelta

ONE_DAY = timedelta(days=1)


def days_between(first: date, last: date) -> list[date]:
    """Return every date from `first` to `last`, both included.

    >>> days_between(date(2017, 2, 28), date(2017, 3, 1))
    [datetime.date(2017, 2, 28), datetime.date(2017, 3, 1)]
    """
    return [first + n * ONE_DAY for n in range((last - first).days + 1)]


def utc_date(text: str) -> date:
    """Read a date argument."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a date; give YYYY-MM-DD, such as 2017-09-30") from None
