"""The inputs of the jobs after ingest: published tables, which must have the requested days."""

from datetime import date, timedelta

from lake.days import days_between, days_in_words
from lake.errors import AuditFailed, HorizonIncomplete, TableMissing
from lake.staging import Run, find_staged, verdict_on
from lake.table import Table


def published_events(run: Run) -> tuple[Table, list[date]]:
    """Return the newest version of `events` and the days of the run, of which it must have all events that landed.

    A day whose events this run has withheld, as they failed their audit, is left out, as in a run of that day alone:
    until readers see newer ones.

    Raises:
        TableMissing: the events of a day have not been published.
    """
    events, withheld = Table("events"), {}
    if (staged := find_staged("events", run.run_id)) and (verdict := verdict_on(staged)):
        withheld = dict.fromkeys(map(date.fromisoformat, verdict.withheld), staged.order)
    days = [
        day for day in days_between(run.first, run.last) if day not in withheld or is_seen(events, day, withheld[day])
    ]
    missing = [day for day in days if events.basis(day) is None]
    if missing:
        raise TableMissing(
            f"events that landed on {listed(missing)} are not published yet; run jobs.ingest for these days first"
        )
    return events, days


def is_seen(events: Table, day: date, order: int) -> bool:
    """Return whether readers see events of a landing day of the staging with this number, or of a newer one.

    Of the very one too: an audit may run again after the publish, and withhold with other limits what readers see.
    """
    return (events.basis(day) or 0) >= order


def without_withheld(wanted: list[date], days: list[date]) -> list[date]:
    """Return the dates asked for that are among the days that `published_events` has returned.

    Raises:
        AuditFailed: none is, so there is nothing to do.
    """
    if left := [day for day in wanted if day in days]:
        return left
    raise AuditFailed(
        f"nothing was staged: the events of {days_in_words(wanted)} failed their audit in this run and were withheld"
    )


def published_interests(as_of: list[date]) -> Table:
    """Return the newest version of `interests`, which must have the states at the dates `as_of`.

    Raises:
        TableMissing: the states at a date have not been published.
    """
    interests = Table("interests")
    missing = [day for day in as_of if interests.basis(day) is None]
    if missing:
        raise TableMissing(f"interests at {listed(missing)} are not published yet; run jobs.interests for them first")
    return interests


def events_of_horizons(as_of: list[date], horizon_days: int, *, include_late: bool) -> Table:
    """Return the newest version of `events`, in which the `horizon_days` days after each date must be complete.

    With `include_late` it is enough that a landing day of the end of the horizon or later is published: the log may
    have landed in one folder, long after it happened.

    Raises:
        HorizonIncomplete: the events after a date are not available yet.
    """
    events = Table("events")
    newest = max(events.rows_by("landed"), default=None)
    for day in as_of:
        horizon = [day + timedelta(days=n) for n in range(1, horizon_days + 1)]
        missing = [landed for landed in horizon if events.basis(landed) is None]
        if include_late and (horizon[-1] not in missing or (newest and newest >= horizon[-1])):
            continue
        if missing:
            raise HorizonIncomplete(
                f"examples at T={day} need the H={horizon_days} days after it, up to {horizon[-1]}, but events that "
                f"landed on {listed(missing)} are not published; run jobs.ingest for them, or ask for an earlier T"
            )
    return events


def listed(days: list[date]) -> str:
    """List up to ten days for a message.

    >>> listed([date(2017, 1, 1), date(2017, 1, 2)])
    '2017-01-01, 2017-01-02'
    """
    more = f" and {len(days) - 10} more" if len(days) > 10 else ""
    return ", ".join(map(str, days[:10])) + more
