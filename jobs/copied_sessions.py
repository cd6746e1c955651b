"""Which published sessions a run may copy: those of users without a change, on days of which few events came or went.

Besides its own days, which it cuts as a whole, a run cuts those again on which late events fall. On an ordinary day
these are two, and one event in a hundred is late; so most of their sessions are what is published already
(docs/decisions/0057).
"""

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from jobs.cutting import RULE
from lake import storage
from lake.days import ONE_DAY
from lake.looking_back import nothing_before
from lake.reach import is_early
from lake.table import DataFile, Table

# Where files came or went that have a larger part of the bytes of a day, it is cut as a whole.
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


def cut_by(events: Table, version: int, gap: timedelta) -> dict[str, Any]:
    """Return what a commit says of how its sessions were cut; by another rule or from other events, none is copied.

    Args:
        events: the table that was read.
        version: of it.
        gap: the longest pause inside a session.
    """
    return {"rule": RULE, "gap_minutes": gap // timedelta(minutes=1), "events": events.identity(version)}


def find_unchanged(events: Table, near: Mapping[date, Collection[date]], gap: timedelta) -> Unchanged | None:
    """Return of which days little came or went since their sessions were published; None if of none of them.

    Args:
        events: the version of which the sessions are wanted.
        near: {partition that may be copied: the dates whose events decide about it}.
        gap: the longest pause inside a session.
    """
    sessions = Table.find("sessions") if near else None
    if sessions is None or sessions.key_id != events.key_id:
        return None
    changed: dict[str, int] = {}
    copied = []
    for day, basis in basis_by_day(events, sessions, near, gap).items():
        files = events.changed_since(basis, near[day])
        if files is None:
            continue
        for early in came_to_count(events, basis, near[day]):
            files.setdefault(early.partition["dt"], {})[early.path] = early.bytes
        paths = {path: size for of_day in files.values() for path, size in of_day.items()}
        # The sessions of a day depend on all of it and of the day before, and on no more than a gap of other days.
        moved = sum(size for date_of in (day, day - ONE_DAY) for size in files.get(date_of, {}).values())
        there = sum(file.bytes for file in events.files_of("dt", [day]))
        if moved > LARGEST_CHANGE * there:
            continue
        # Of a file that upkeep has removed since, nobody can tell the users.
        if are_there(events, paths) and are_there(sessions, paths_of(sessions, day)):
            copied.append(day)
            changed |= paths
    return Unchanged(sessions, sorted(copied), changed) if copied else None


def came_to_count(events: Table, version: int, dates: Collection[date]) -> list[DataFile]:
    """Return the files of early events of some dates that are in sessions since a later version than this one.

    They were there, and waited for the landing day of their date; see lake/reach.py.
    """
    early = [file for file in events.files_of("dt", dates) if is_early(file)]
    if not early:
        return []
    since = nothing_before(min(file.partition["dt"] for file in early))
    later = [commit for commit in events.commits(since) if commit["version"] > version]
    return [file for file in early if any(c["first"] <= str(file.partition["dt"]) <= c["last"] for c in later)]


def basis_by_day(events: Table, sessions: Table, days: Collection[date], gap: timedelta) -> dict[date, int]:
    """Return from which version of events the sessions of some days were cut, if they were cut as a run would today."""
    # Of commits from before stagings had numbers, or from before this was told, nothing is known.
    said = {
        int(commit["order"]): json.loads(commit["counts"]).get("cut_by")
        for commit in sessions.commits(nothing_before(min(days)))
    }
    known = {}
    for day in days:
        basis, told = sessions.basis(day), said.get(sessions.transaction(f"staged={day}") or 0)
        if basis is not None and told and told == cut_by(events, basis, gap):
            known[day] = basis
    return known


def paths_of(sessions: Table, day: date) -> list[str]:
    """Return the files of the sessions of a day."""
    return [file.path for file in sessions.files_of("dt", [day])]


def are_there(table: Table, paths: Iterable[str]) -> bool:
    """Return whether all of some files of a table are still there."""
    return all(storage.exists(storage.join(table.path, path)) for path in paths)
