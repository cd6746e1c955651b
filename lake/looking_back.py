"""How far planner, page and `meander days` look back unless they are asked for more (docs/decisions/0043).

Whatever they look at costs what it holds, so without a limit each of them would get slower every day. A year of days is
what the calendar of the page shows, and what a user's interest is computed from. What was done to older days within
that year is looked at as well: nobody repairs what is told nowhere.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from lake.days import days_between
from lake.settings import Settings
from lake.table import Table

# The calendar of the page has a year and the week in which it ends.
AT_LEAST = timedelta(weeks=53)
# So far may the clock of a host be behind that of the one that named a landing day.
CLOCKS = timedelta(days=35)


@dataclass(frozen=True)
class Window:
    """The landing days that are looked at.

    Attributes:
        first: the first day of which everything is looked at.
        older: days before it that were loaded since then.
    """

    first: date
    older: frozenset[date] = frozenset()

    def __contains__(self, day: date) -> bool:
        return day >= self.first or day in self.older

    @property
    def oldest(self) -> date:
        """The oldest of the days."""
        return min(self.older, default=self.first)


EVERY_DAY = Window(date.min)


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
    return before(min(newest, datetime.now(UTC).date()), span(config))


def begin(config: Settings, events: Table | None, first: date | None, last: date | None) -> date:
    """Return the first day that is looked at by whoever asks for the days from `first` to `last`, None for no limit.

    Without a first day, a year is looked at: before the last day, if that is old.
    """
    if first is not None:
        return first
    year = first_day(config, events)
    return year if last is None else min(year, before(last, span(config)))


def window(
    config: Settings,
    events: Table,
    first: date | None = None,
    last: date | None = None,
    commits: Callable[[datetime | None], Iterable[Mapping[str, Any]]] | None = None,
) -> Window:
    """Return the landing days that are looked at by whoever asks for those from `first` to `last`, None for no limit.

    Args:
        config: the history of a user.
        events: the newest version of the table.
        first: without it, older days that were loaded lately are looked at as well.
        last: see `begin`.
        commits: returns what `events.commits` does; that itself when None.
    """
    begins = begin(config, events, first, last)
    if first is not None or begins == date.min:
        return Window(begins)
    return Window(begins, loaded_since(begins, (commits or events.commits)(nothing_before(begins))))


def loaded_since(first: date, commits: Iterable[Mapping[str, Any]]) -> frozenset[date]:
    """Return the landing days before `first` that a publish of `events` since then has replaced."""
    older: set[date] = set()
    for commit in commits:
        if is_since(first, commit["published"]) and (begins := date.fromisoformat(commit["first"])) < first:
            days = days_between(begins, min(date.fromisoformat(commit["last"]), before(first, timedelta(days=1))))
            older |= set(days) - set(map(date.fromisoformat, json.loads(commit["refused"])))
    return frozenset(older)


def is_since(first: date, moment: str | datetime) -> bool:
    """Return whether a time, such as of a publish, is on the first day that is looked at or later.

    >>> is_since(date(2025, 1, 2), "2025-01-02T00:00:00+00:00"), is_since(date(2025, 1, 2), "2025-01-01T23:59:59+00:00")
    (True, False)
    """
    then = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    return then.astimezone(UTC).date() >= first


def span(config: Settings) -> timedelta:
    """Return how far is looked back."""
    return max(AT_LEAST, timedelta(days=config.history_days))


def before(day: date, time_ago: timedelta) -> date:
    """Return the day that is so long before another, or the first of all.

    >>> before(date(2025, 1, 2), timedelta(1)), before(date.min, timedelta(1))
    (datetime.date(2025, 1, 1), datetime.date(1, 1, 1))
    """
    return day - min(time_ago, day - date.min)


def nothing_before(day: date) -> datetime | None:
    """Return a time before which no run has staged or published a landing day from `day` on; None if there is none.

    Days of the future, such as of a log that is made up, may have been loaded at any time.

    >>> print(nothing_before(date(2025, 2, 5)), nothing_before(date.min), nothing_before(date(9999, 1, 1)))
    2025-01-01 00:00:00+00:00 None None
    """
    if day - date.min < CLOCKS or day > datetime.now(UTC).date():
        return None
    return datetime.combine(day - CLOCKS, time(), UTC)
