"""The session partitions that an event can change, and those that a run restates: rules shared by job and planner."""

from collections.abc import Collection, Iterable, Mapping, Set
from datetime import UTC, date, datetime, time, timedelta

from lake.days import ONE_DAY
from lake.table import DataFile, Table


def is_early(file: DataFile) -> bool:
    """Return whether its events landed before their date: in the folder of a day that ends after midnight UTC."""
    return file.partition["landed"] < file.partition["dt"]


def in_sessions(events: Table, files: Iterable[DataFile]) -> list[DataFile]:
    """Return the files of a version of `events` that sessions are made from: all but those that wait for their date.

    Early events of a date are in sessions from the publish of its own landing day on. Before, they are a few hours of a
    date without the others, and would be published as all of it. The run of that landing day then stages them.
    """
    return [file for file in files if not is_early(file) or events.basis(file.partition["dt"]) is not None]


def dates_in_sessions(events: Table) -> set[date]:
    """Return the dates of a version of `events` that have an event in sessions."""
    dates = set(events.rows_by("dt"))
    # Only a date that has not landed itself can wait, and only on the day after one that has: no zone is a day behind.
    waiting = {day for day in dates if events.basis(day) is None and events.basis(day - ONE_DAY) is not None}
    there = {file.partition["dt"] for file in in_sessions(events, events.files_of("dt", waiting))} if waiting else set()
    return dates - waiting | there


def session_days(day: date, *, early: bool = True, late: bool = True) -> list[date]:
    """Return the session partitions that an event on `day` can change: the rule is in docs/design.md under "Sessions".

    Args:
        day: X, the date of the event.
        early: it may lie within the gap after midnight, so that it can join a session that ended on X-1.
        late: it may lie within the gap before midnight, so that X+1 may become a full day, and cut the midnight after.

    >>> [partition.day for partition in session_days(date(2025, 1, 10), early=False)]
    [10, 11, 12]
    """
    return [day + n * ONE_DAY for n, reached in ((-1, early), (0, True), (1, True), (2, late)) if reached]


def session_days_of(file: DataFile, gap: timedelta) -> list[date]:
    """Return the session partitions that the events of a file can change, by the times of the file in the log."""
    day = file.partition["dt"]
    if "event_time" not in file.times:
        return session_days(day)  # written by another Delta tool
    first, last = file.times["event_time"]
    midnight = datetime.combine(day, time(), UTC)
    return session_days(day, early=first - midnight <= gap, late=midnight + ONE_DAY - last <= gap)


def changed_by(files: Iterable[DataFile], gap: timedelta) -> dict[date, date]:
    """Return the session partitions that events in files can change, each with the newest event date behind it."""
    changed: dict[date, date] = {}
    for file in files:
        day = file.partition["dt"]
        for partition in session_days_of(file, gap):
            changed[partition] = max(day, changed.get(partition, day))
    return changed


def partitions_to_stage(
    changed: Mapping[date, date], landed: Collection[date], populated: Set[date], published: Set[date], late_days: int
) -> tuple[list[date], list[date]]:
    """Split the changed session partitions into those that a run stages and those that it postpones to a backfill.

    The date of the event decides. Neighbours are staged or postponed together, or an event would be in two sessions.
    A date without an event or a session cannot have a session, so it is left out. The days of the run itself are always
    staged, so that an empty day is published as empty. Only published partitions are postponed: the first load of an
    old log is not a restatement.

    Args:
        changed: each partition that can have changed, with the newest event date behind it.
        landed: the landing days of the run.
        populated: dates that have an event or a session.
        published: partitions of sessions that a run has published.
        late_days: how many days before the first of `landed` an event may lie, for its partitions to be restated.
    """
    oldest = min(landed) - late_days * ONE_DAY
    days = set(landed)
    now = {day for day in changed if day in populated} | days
    postponed = {day for day in now - days if changed[day] < oldest and day in published}
    # A session may cross the midnight between two neighbours: staging only one of them could show it in both.
    while pulled := {day for day in postponed if {day - ONE_DAY, day + ONE_DAY} & (now - postponed)}:
        postponed -= pulled
    return sorted(now - postponed), sorted(postponed)
