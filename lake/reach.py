"""Which session partitions an event can change: the rule that jobs.sessionize and the planner share."""

from datetime import date, timedelta

ONE_DAY = timedelta(days=1)


def session_days(day: date, *, early: bool = True, late: bool = True) -> list[date]:
    """Return the session partitions that an event on `day` can change: the rule is in docs/design.md under "Sessions".

    Args:
        day: X, the date of the event.
        early: it may lie within the gap after midnight, so that it can join a session that ended on X-1.
        late: it may lie within the gap before midnight, so that X+1 may become a full day, and cut the midnight after.

    >>> [found.day for found in session_days(date(2025, 1, 10), early=False)]
    [10, 11, 12]
    """
    return [day + n * ONE_DAY for n, reached in ((-1, early), (0, True), (1, True), (2, late)) if reached]
