"""The input of a plan: the past of the tables, read once from their logs. Plain values, no storage."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import cached_property
from typing import Any

from lake.days import days_between
from lake.deliveries import changed_since_read, published
from lake.landing import Landing
from lake.looking_back import EVERY_DAY, Window, before, nothing_before
from lake.reach import is_early
from lake.schemas import TABLES
from lake.table import DataFile, Table

# An event on D can change the sessions of D-1, as can one on D-3, but no older one. So a run of a day that landed
# before D-4 makes none of these sessions anew: no event is dated after the day after it has landed.
NEIGHBOURS = timedelta(days=4)
# Times are estimated from so many of the newest commits of a table.
SAMPLE = 50


@dataclass(frozen=True)
class Commit:
    """One publish of a table: the days that it replaced, the versions that it read, its counts and its seconds.

    `owns` of sessions are landing days; the basis of a partition shows which run made it.
    """

    version: int
    owns: tuple[date, ...]
    inputs: Mapping[str, int] = field(default_factory=dict)
    counts: Mapping[str, Any] = field(default_factory=dict)
    rows: int = 0
    seconds: float = 0.0

    @property
    def include_late(self) -> bool:
        """Whether its rows include events that landed too late for their date."""
        return bool(self.counts.get("include_late"))

    @property
    def horizon_days(self) -> int:
        """Days of its labels; 0 where it has none."""
        return int(self.counts.get("horizon_days", 0))


@dataclass(frozen=True)
class Change:
    """Events of `day`, landed on `landed`, that `version` of `events` added, or took back.

    `files` are the files that hold them, or held them. `in_sessions` is the version since which sessions may differ:
    of events before their date, which wait for its landing day, it is a later one; None while they wait.
    """

    version: int
    day: date
    landed: date
    in_sessions: int | None
    files: tuple[DataFile, ...] = ()
    taken_back: bool = False


@dataclass(frozen=True)
class History:
    """The past of all tables, as far as a plan depends on it. Each mapping by table has every table.

    Attributes:
        commits: the publishes of each table, newest first.
        rows: the published rows of each table, by the date by which a run owns it; days without a row are left out.
        files: the published files of `events`.
        taken_back: by version of `events`, the files that it replaced since their landing days were delivered again.
        sessions_basis: of each published partition of sessions, the version of `events` that it was made from.
        landing: how the landing differs from what was read of it, by landing day, where there is more to read.
        begins: the first landing day whose changes are known; what can only be changed by those before it may be
            missing in `commits`.
    """

    commits: Mapping[str, Sequence[Commit]]
    rows: Mapping[str, Mapping[date, int]]
    files: Sequence[DataFile]
    taken_back: Mapping[int, Sequence[DataFile]]
    sessions_basis: Mapping[date, int]
    landing: Mapping[date, str] = field(default_factory=dict)
    begins: date = date.min

    @staticmethod
    def read(landing: Landing | None = None, days: Window = EVERY_DAY) -> "History":
        """Return the history of what is published now, and where `landing` has more than what was read of it.

        Args:
            landing: the landing area; None where its files do not matter.
            days: the landing days that matter. Of what was published before the oldest, only what its events can change
                is read.

        Raises:
            TableMissing: no events are published.
        """
        events, first = Table("events"), days.oldest
        tables = {name: events if name == "events" else Table.find(name) for name in TABLES}
        begins = min((file.partition["dt"] for file in events.files if file.partition["landed"] in days), default=first)
        begins = before(min(begins, first), NEIGHBOURS)
        since = nothing_before(begins)
        entries = {name: table.commits(since) if table else [] for name, table in tables.items()}
        # Times are estimated from some, however old.
        entries |= {name: table.commits() for name, table in tables.items() if table and len(entries[name]) < SAMPLE}
        commits = {name: [_commit(name, entry) for entry in of] for name, of in entries.items()}
        known = {day for commit in commits["events"] for day in commit.owns}
        taken_back = _taken_back(events, commits["events"], begins, since)
        gone = [file.partition for files in taken_back.values() for file in files]
        oldest = min((partition["dt"] for partition in gone if partition["landed"] in days), default=date.max)
        lost = any(file.partition["landed"] not in known for file in events.files if file.partition["landed"] >= begins)
        if since and (lost or before(oldest, NEIGHBOURS) < begins):
            return History.read(landing)
        rows = {name: table.rows_by(TABLES[name].owned_by) if table else {} for name, table in tables.items()}
        sessions = tables["sessions"]
        basis = {day: sessions.basis(day) for day in {*events.rows_by("dt"), *rows["sessions"]}} if sessions else {}
        return History(
            commits,
            rows,
            events.files,
            taken_back,
            {day: version for day, version in sorted(basis.items()) if version is not None},
            landing_differences(landing, entries["events"], days=days) if landing else {},
            begins,
        )

    @cached_property
    def latest(self) -> Mapping[str, Mapping[date, Commit]]:
        """The newest publish of each day, by table."""
        latest: dict[str, dict[date, Commit]] = {name: {} for name in self.commits}
        for name, commits in self.commits.items():
            for commit in commits:
                for day in commit.owns:
                    latest[name].setdefault(day, commit)
        return latest

    @cached_property
    def loaded_first(self) -> Mapping[date, int]:
        """The version of `events` that had a landing day for the first time, as far as it is known."""
        return {day: commit.version for commit in self.commits["events"] for day in commit.owns}

    def counts(self, file: DataFile) -> bool:
        """Return whether the events of a file are in sessions; early ones wait for their date, see lake/reach.py."""
        return not is_early(file) or file.partition["dt"] in self.loaded_first

    @cached_property
    def populated(self) -> set[date]:
        """Dates that have an event or a session: no other partition can have a session."""
        return {file.partition["dt"] for file in self.files if self.counts(file)} | set(self.rows["sessions"])

    @cached_property
    def published(self) -> set[date]:
        """The populated dates whose sessions a run has published."""
        return self.populated & set(self.sessions_basis)

    @cached_property
    def dates_of(self) -> Mapping[date, set[date]]:
        """The dates of the events that landed on each day."""
        dates: dict[date, set[date]] = defaultdict(set)
        for file in self.files:
            dates[file.partition["landed"]].add(file.partition["dt"])
        return dates

    @cached_property
    def changes(self) -> Sequence[Change]:
        """The additions to `events` and what was taken back, newest landing first."""

        def change(version: int, day: date, landed: date, files: tuple[DataFile, ...], *, taken_back: bool) -> Change:
            since = version if day <= landed else self.loaded_first.get(day)
            return Change(version, day, landed, since and max(since, version), files, taken_back)

        recent = _by_day(file for file in self.files if file.partition["landed"] >= self.begins)
        changes = [
            change(self.latest["events"][landed].version, day, landed, files, taken_back=False)
            for (day, landed), files in recent
        ]
        for version, replaced in self.taken_back.items():
            changes += [
                change(version, day, landed, files, taken_back=True) for (day, landed), files in _by_day(replaced)
            ]
        return sorted(changes, key=lambda change: (change.landed, change.day, change.version), reverse=True)

    @cached_property
    def changes_by_landing(self) -> Mapping[date, Sequence[Change]]:
        """The changes of sessions by landing day."""
        by_landing: dict[date, list[Change]] = defaultdict(list)
        for change in self.changes:
            if change.in_sessions is not None:
                by_landing[change.landed].append(change)
        return by_landing


def landing_differences(
    landing: Landing,
    commits: Iterable[Mapping[str, Any]],
    listed: Mapping[date, str] | None = None,
    days: Window = EVERY_DAY,
) -> dict[date, str]:
    """Return, in words, how the landing differs from what was read, of the days that have more.

    Args:
        landing: the landing area.
        commits: those of `events`, as Table.commits() returns them.
        listed: an earlier listing, see `changed_since_read`.
        days: those that are compared.
    """
    reads = {day: read for day, read in published(commits).items() if day in days}
    different = changed_since_read(landing, reads, listed)
    # What is only gone would be read again for nothing, and refused.
    return {day: str(difference) for day, difference in different.items() if difference.has_more}


def _by_day(files: Iterable[DataFile]) -> Iterable[tuple[tuple[date, date], tuple[DataFile, ...]]]:
    """Group files of `events` by (date, landing day)."""
    grouped: dict[tuple[date, date], tuple[DataFile, ...]] = defaultdict(tuple)
    for file in files:
        grouped[file.partition["dt"], file.partition["landed"]] += (file,)
    return grouped.items()


def _commit(table: str, entry: Mapping[str, Any]) -> Commit:
    """Return a publish of a table."""
    counts = json.loads(entry["counts"])
    requested = days_between(date.fromisoformat(entry["first"]), date.fromisoformat(entry["last"]))
    as_of = counts.get("as_of") or [str(day) for day in requested]
    owns = set([as_of] if isinstance(as_of, str) else as_of) - set(json.loads(entry["refused"]))
    # One job stages the events and the quarantine of a run; its time is counted with the events.
    staging = 0.0 if table == "quarantine" else float(entry["stage_seconds"])
    return Commit(
        entry["version"],
        tuple(sorted(map(date.fromisoformat, owns))),
        json.loads(entry["inputs"]),
        counts,
        int(entry["rows"]),
        staging + float(entry["audit_seconds"]),
    )


def _taken_back(
    events: Table, commits: Sequence[Commit], first: date, since: datetime | None
) -> dict[int, list[DataFile]]:
    """Return, by version, the files that publishes of `events` replaced because a landing day was delivered again.

    `commits` are newest first, all since a time; landing days before `first` do not matter.
    """
    delivered: set[date] = set()
    again: dict[int, set[date]] = {}
    for commit in reversed(commits):
        if days := delivered & set(commit.owns):
            again[commit.version] = days
        delivered |= {day for day in commit.owns if day >= first}
    replaced = events.replaced_by(list(again), since)
    return {v: [file for file in replaced[v] if file.partition["landed"] in days] for v, days in again.items()}
