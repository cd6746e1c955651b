"""How far planner, page and `meander days` look back unless they are asked for more (docs/decisions/0043).

Whatever they look at costs what it holds, so without a limit each of them would get slower every day. A year of days is
what the calendar of the page shows, and what a user's interest is computed from.
"""

from datetime import UTC, date, datetime, time, timedelta

from lake.settings import Settings
from lake.table import Table

# The calendar of the page has a year and the week in which it ends.
AT_LEAST = timedelta(weeks=53)
# So far may the clock of a host be behind that of the one that named a landing day.
CLOCKS = timedelta(days=35)


def first_day(config: Settings, events: Table | None) -> date:
    """Return the first day that is looked at: as far before the newest landing day as interests reach, at least a year.

    Args:
        config: the history of a user.
        events: the newest version of the table; nothing is old where there is none.
    """
    newest = max(events.rows_by("landed"), default=None) if events else None
    if newest is None:
        return date.min
    # A day of the future is a typing error, which must hide nothing.
    newest = min(newest, datetime.now(UTC).date())
    return newest - max(AT_LEAST, timedelta(days=config.history_days))


def nothing_before(day: date) -> datetime | None:
    """Return a time before which no run has staged or published a landing day from `day` on; None if there is none.

    Days of the future, such as of a log that is made up, may have been loaded at any time.

    >>> print(nothing_before(date(2025, 2, 5)), nothing_before(date.min), nothing_before(date(9999, 1, 1)))
    2025-01-01 00:00:00+00:00 None None
    """
    if day - date.min < CLOCKS or day > datetime.now(UTC).date():
        return None
    return datetime.combine(day - CLOCKS, time(), UTC)
