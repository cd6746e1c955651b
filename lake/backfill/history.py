"""What a plan is made from: the past of the tables as their logs tell it, read once. Plain values, no storage."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from typing import Any

from lake.landing import days_between
from lake.schemas import TABLES
from lake.table import DataFile, Table


@dataclass(frozen=True)
class Commit:
    """One publish of a table: the days that it replaced, what it read and counted, and what it took.

    Of sessions, `owns` are the landing days: which partitions these changed, their basis tells.
    """

    version: int
    owns: tuple[date, ...]
    inputs: Mapping[str, int] = field(default_factory=dict)
    counts: Mapping[str, Any] = field(default_factory=dict)
    rows: int = 0
    seconds: float = 0.0

    @property
    def include_late(self) -> bool:
        """Whether events count that landed too late for the date of the rows."""
        return bool(self.counts.get("include_late"))


@dataclass(frozen=True)
class Change:
    """Events of `day` that landed on `landed` came with `version` of `events`, or were taken back by it.

    `files` are those in which they stand, or stood.
    """

    version: int
    day: date
    landed: date
    files: tuple[DataFile, ...] = ()
    taken_back: bool = False


@dataclass(frozen=True)
class History:
    """The past of all tables, as far as a plan depends on it. Each mapping by table has every table.

    Attributes:
        commits: the publishes of each table, newest first.
        rows: what readers see of each table, by the date by which a run owns it; a day without a row is not there.
        files: the files of `events` that readers see.
        taken_back: by version of `events`, the files that it replaced since their landing days were delivered again.
        known_by: of each partition of sessions that was published, the version of `events` that it was made from.
    """

    commits: Mapping[str, Sequence[Commit]]
    rows: Mapping[str, Mapping[date, int]]
    files: Sequence[DataFile]
    taken_back: Mapping[int, Sequence[DataFile]]
    known_by: Mapping[date, int]

    @staticmethod
    def read() -> "History":
        """Return the history of what is published now.

        Raises:
            TableMissing: no events are published.
        """
        events = Table("events")
        tables = {name: events if name == "events" else Table.find(name) for name in TABLES}
        commits = {name: _commits(table) if table else [] for name, table in tables.items()}
        rows = {name: found.rows_by(TABLES[name].owned_by) if found else {} for name, found in tables.items()}
        sessions = tables["sessions"]
        basis = {day: sessions.basis(day) for day in {*events.rows_by("dt"), *rows["sessions"]}} if sessions else {}
        return History(
            commits,
            rows,
            events.files,
            _taken_back(commits["events"]),
            {day: version for day, version in sorted(basis.items()) if version is not None},
        )

    @cached_property
    def made(self) -> Mapping[str, Mapping[date, Commit]]:
        """The newest publish of each day, by table."""
        made: dict[str, dict[date, Commit]] = {name: {} for name in self.commits}
        for name, found in self.commits.items():
            for commit in found:
                for day in commit.owns:
                    made[name].setdefault(day, commit)
        return made

    @cached_property
    def known(self) -> set[date]:
        """Dates on which an event or a session stands: any other partition cannot hold a session."""
        return {file.partition["dt"] for file in self.files} | set(self.rows["sessions"])

    @cached_property
    def published(self) -> set[date]:
        """Those of them whose sessions a run has published."""
        return self.known & set(self.known_by)

    @cached_property
    def dates_of(self) -> Mapping[date, set[date]]:
        """The dates of the events that landed on a day."""
        dates: dict[date, set[date]] = defaultdict(set)
        for file in self.files:
            dates[file.partition["landed"]].add(file.partition["dt"])
        return dates

    @cached_property
    def changes(self) -> Sequence[Change]:
        """What came to `events` and what was taken back, newest landing first."""
        found = [
            Change(self.made["events"][landed].version, day, landed, files)
            for (day, landed), files in _by_day(self.files)
        ]
        for version, replaced in self.taken_back.items():
            found += [
                Change(version, day, landed, files, taken_back=True) for (day, landed), files in _by_day(replaced)
            ]
        return sorted(found, key=lambda change: (change.landed, change.day, change.version), reverse=True)

    @cached_property
    def changes_by_landing(self) -> Mapping[date, Sequence[Change]]:
        """The same by landing day."""
        found: dict[date, list[Change]] = defaultdict(list)
        for change in self.changes:
            found[change.landed].append(change)
        return found


def _by_day(files: Iterable[DataFile]) -> Iterable[tuple[tuple[date, date], tuple[DataFile, ...]]]:
    """Group files of `events` by (date, landing day)."""
    grouped: dict[tuple[date, date], tuple[DataFile, ...]] = defaultdict(tuple)
    for file in files:
        grouped[file.partition["dt"], file.partition["landed"]] += (file,)
    return grouped.items()


def _commits(table: Table) -> list[Commit]:
    """Return the publishes of a table, newest first."""
    found = []
    for said in table.commits():
        counts = json.loads(said["counts"])
        asked = days_between(date.fromisoformat(said["first"]), date.fromisoformat(said["last"]))
        as_of = counts.get("as_of") or [str(day) for day in asked]
        owns = set([as_of] if isinstance(as_of, str) else as_of) - set(json.loads(said["refused"]))
        # The events and the quarantine of a run are staged by one job, whose time stands with the events.
        staging = 0.0 if table.name == "quarantine" else float(said["stage_seconds"])
        found.append(
            Commit(
                said["version"],
                tuple(sorted(map(date.fromisoformat, owns))),
                json.loads(said["inputs"]),
                counts,
                int(said["rows"]),
                staging + float(said["audit_seconds"]),
            )
        )
    return found


def _taken_back(commits: Sequence[Commit]) -> dict[int, list[DataFile]]:
    """Return what each publish of `events`, given newest first, replaced of landing days delivered before."""
    delivered: set[date] = set()
    found = {}
    for commit in reversed(commits):
        again = delivered & set(commit.owns)
        if again:
            before = Table("events", commit.version - 1).files
            found[commit.version] = [file for file in before if file.partition["landed"] in again]
        delivered |= set(commit.owns)
    return found
