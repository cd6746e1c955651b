"""Which published sessions a run may copy: those of users without a change, on days of which few events came or went.

A run cuts the days again on which late events fall. On an ordinary day these are two, and one event in a hundred is
late; so most of their sessions are what is published already (docs/decisions/0057).
"""

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import date, timedelta

from jobs.cutting import RULE
from lake import storage
from lake.days import ONE_DAY
from lake.looking_back import nothing_before
from lake.table import Table

# A day of which a larger part of the bytes came or went is cut as a whole.
LARGEST_CHANGE = 0.25


@dataclass(frozen=True)
class Unchanged:
    """What a run need not cut again.

    Attributes:
        sessions: the published sessions.
        days: the partitions of which sessions are copied, sorted.
        changed: {path: bytes} of the files of events near these days that came or went since they were cut. Whoever has
            no event in them, near these days, has the same sessions.
    """

    sessions: Table
    days: list[date]
    changed: dict[str, int]


def rule_of(gap: timedelta) -> str:
    """Return what a run says of how it cuts. Sessions that were cut by another rule are not copied.

    >>> rule_of(timedelta(minutes=30))
    '1, 30 minutes'
    """
    return f"{RULE}, {gap // timedelta(minutes=1)} minutes"


def find_unchanged(events: Table, days: Collection[date], near: Collection[date], gap: timedelta) -> Unchanged | None:
    """Return of which days little came or went since their sessions were published; None if of none of them.

    Args:
        events: the version of which the sessions are wanted.
        days: the partitions that are wanted.
        near: the dates whose events decide about them, see `jobs.sessionize.dates_near`.
        gap: the longest pause inside a session.
    """
    sessions = Table.find("sessions")
    if sessions is None or sessions.key_id != events.key_id:
        return None
    cut_from = basis_by_day(sessions, days, gap)
    changed = events.changed_since(min(cut_from.values()), near) if cut_from else None
    if changed is None:
        return None
    there = bytes_by_day((file.partition["dt"], file.bytes) for file in events.files_of("dt", near))
    moved = bytes_by_day((day, size) for day, files in changed.items() for size in files.values())
    few = [
        day
        for day in sorted(cut_from)
        # The sessions of a day also depend on all of the day before, and on no more than a gap of other days.
        if moved.get(day, 0) + moved.get(day - ONE_DAY, 0) <= LARGEST_CHANGE * there.get(day, 0)
    ]
    paths = {path: size for files in changed.values() for path, size in files.items()}
    # Of a file that upkeep has removed since, nobody can tell the users.
    if not few or not all(storage.exists(storage.join(events.path, path)) for path in paths):
        return None
    return Unchanged(sessions, few, paths)


def basis_by_day(sessions: Table, days: Collection[date], gap: timedelta) -> dict[date, int]:
    """Return from which version of events the published sessions of some days were cut, if by the rule of today."""
    # Of commits from before stagings had numbers, or runs had a rule, nothing is known.
    by_rule = {
        int(commit["order"])
        for commit in sessions.commits(nothing_before(min(days)))
        if json.loads(commit["counts"]).get("rule") == rule_of(gap)
    }
    return {
        day: basis
        for day in days
        if sessions.transaction(f"staged={day}") in by_rule and (basis := sessions.basis(day)) is not None
    }


def bytes_by_day(sizes: Iterable[tuple[date, int]]) -> dict[date, int]:
    """Return the sum of the bytes of each day."""
    total: dict[date, int] = {}
    for day, size in sizes:
        total[day] = total.get(day, 0) + size
    return total
