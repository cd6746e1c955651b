"""What has to be made again, and why: the smallest set of partitions that the rules of the tables allow, and its runs.

Only the log is read; nothing is changed. A partition is planned if an event that its rows do not know, or that is to
come, *can* change it: by its date and its landing day, and for the outer neighbours of sessions by its distance to
midnight. docs/design.md, "Planning a backfill", has the rules.
"""

import json
import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import cached_property
from itertools import combinations, pairwise
from typing import Any

from lake.errors import SettingsInvalid
from lake.landing import days_between
from lake.reach import ONE_DAY, changed_by, partitions_to_stage, session_days, session_days_of
from lake.schemas import TABLES
from lake.settings import settings
from lake.table import DataFile, Table

REASONS = ("late-data", "code", "bad-day")
# What the code of a job makes; events bring quarantine with them.
CODE = ("events", "sessions", "interests", "examples", "predictions")
# So many of the newest commits of a table say how long one takes.
REMEMBERED = 50
# As behavior_history cuts a range unless it is told otherwise.
CHUNK_DAYS = 90
BEHAVIOR = ("quarantine", "events", "sessions", "interests")


# ---- what a plan says ----


@dataclass(frozen=True)
class Redo:
    """A partition to make again: `day` is the date by which a run owns it, `rows` what readers see of it now."""

    table: str
    day: date
    rows: int
    why: str


@dataclass(frozen=True)
class DayRun:
    """One run of one day.

    Attributes:
        job: `behavior` or `predictions`, each a DAG; `interests` (with late events) or `examples`, each a job alone.
        day: the day it is run for.
        tables: what it makes, in the order of the DAG's groups.
        covers: partitions of the plan that it makes again.
        rows: rows in them now.
        seconds: staging and auditing them, by what past runs took; None when there was none.
        model_version: the version that made the predictions there are.
        include_late: what there is was made with late events, and is to be so again.
        note: what a person has to see to first.
    """

    job: str
    day: date
    tables: tuple[str, ...]
    covers: int
    rows: int
    seconds: float | None
    model_version: int | None = None
    include_late: bool = False
    note: str = ""


@dataclass(frozen=True)
class Costs:
    """What jobs took, staging and audit, as the commits say: for each table, (rows, seconds) of the newest ones."""

    past: dict[str, list[tuple[int, float]]]

    def seconds(self, table: str, rows: int) -> float | None:
        """Return the seconds of one job; None when there was none."""
        return estimate(self.past[table], rows)


def estimate(past: list[tuple[int, float]], rows: int) -> float | None:
    """Return the seconds of a job with `rows` rows, from (rows, seconds) of past ones; None without any.

    A job has a part that does not depend on its rows and one that does: the line of Theil and Sen, whose slope is the
    median of those between any two, since one run that waited for the machine must not move it.

    >>> estimate([(100, 11.0), (200, 12.0), (300, 13.0), (100, 99.0)], 1000)
    20.0
    >>> estimate([(100, 7.0)], 1000), estimate([], 1)
    (7.0, None)
    """
    if not past:
        return None
    slopes = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in combinations(past, 2) if a[0] != b[0]]
    slope = max(0.0, statistics.median(slopes)) if slopes else 0.0
    base = max(0.0, statistics.median(seconds - slope * n for n, seconds in past))
    return round(base + slope * rows, 1)


@dataclass(frozen=True)
class Untouched:
    """What stays as it is in one table."""

    table: str
    partitions: int
    rows: int


@dataclass(frozen=True)
class Whole:
    """The days whose events are planned, side by side, made in large jobs: few starts, but every table of them.

    Attributes:
        first, last: the range, both included.
        every: days between its interests.
        rows: rows in it now.
        seconds: of its jobs, each a table of up to CHUNK_DAYS days.
    """

    first: date
    last: date
    every: int
    rows: int
    seconds: float


@dataclass(frozen=True)
class Plan:
    """What to make again.

    Attributes:
        reason, first, last, table: what was asked.
        redo: the partitions, by table and day.
        runs: the runs that make them, in the order in which they have to be made.
        whole: what takes less time than the runs that make events, if there is such a range.
        optional: runs that restate states which are right by their rule: they were made before late events arrived.
        untouched: what stays, for each table.
        costs: what the times are estimated by.
    """

    reason: str
    first: date | None
    last: date | None
    table: str
    redo: list[Redo] = field(default_factory=list)
    runs: list[DayRun] = field(default_factory=list)
    whole: Whole | None = None
    optional: list[DayRun] = field(default_factory=list)
    untouched: list[Untouched] = field(default_factory=list)
    costs: Costs = field(default_factory=lambda: Costs({}))


def total(seconds: Iterable[float | None]) -> float | None:
    """Add times of which one may be unknown.

    >>> total([1.0, 2.0]), total([1.0, None])
    (3.0, None)
    """
    found = list(seconds)
    return None if None in found else float(sum(s for s in found if s is not None))


def make(reason: str, first: date | None = None, last: date | None = None, table: str = "events") -> Plan:
    """Plan a backfill from what is published now.

    Args:
        reason: `late-data`: whatever does not know all events that have landed since. `bad-day`: landing days that are
            delivered again. `code`: the job of a table has changed.
        first: of `late-data` and `bad-day`, the first landing day that is looked at; of `code`, the first day of the
            table. Only `late-data` can do without: it looks at all.
        last: the last such day, included.
        table: of `code`, whose job has changed.

    Raises:
        SettingsInvalid: an argument cannot be taken.
        TableMissing: no events are published.
    """
    if reason not in REASONS:
        raise SettingsInvalid(f"reason is one of {', '.join(REASONS)}; received {reason!r}")
    if table not in CODE:
        raise SettingsInvalid(f"table is one of {', '.join(CODE)}; received {table!r}")
    if (first is None or last is None) and reason != "late-data":
        raise SettingsInvalid(f"a plan for {reason} needs both from and to; received {first} and {last}")
    if first and last and first > last:
        raise SettingsInvalid(f"from must not be after to; received {first} and {last}")
    return _Planner(reason, first, last, table).plan()


# ---- what the log says ----


@dataclass(frozen=True)
class _Commit:
    """One publish of a table: the days that it replaced, what it read and counted, and what it took.

    Of sessions, `owns` are the landing days: which partitions these changed, their basis tells.
    """

    version: int
    owns: list[date]
    inputs: dict[str, int]
    counts: dict[str, Any]
    rows: int
    seconds: float


@dataclass(frozen=True)
class _Change:
    """Events of `day` that landed on `landed` came with `version` of `events`, or were taken back by it.

    `files` are those in which they stand, or stood.
    """

    version: int
    day: date
    landed: date
    files: tuple[DataFile, ...]
    taken_back: bool = False


def _by_day(files: Iterable[DataFile]) -> Iterable[tuple[tuple[date, date], tuple[DataFile, ...]]]:
    """Group files of `events` by (date, landing day)."""
    grouped: dict[tuple[date, date], tuple[DataFile, ...]] = defaultdict(tuple)
    for file in files:
        grouped[file.partition["dt"], file.partition["landed"]] += (file,)
    return grouped.items()


def _commits(table: Table | None) -> list[_Commit]:
    """Return the publishes of a table, newest first."""
    found = []
    for said in table.commits() if table else []:
        counts = json.loads(said["counts"])
        asked = days_between(date.fromisoformat(said["first"]), date.fromisoformat(said["last"]))
        as_of = counts.get("as_of") or [str(day) for day in asked]
        owns = set([as_of] if isinstance(as_of, str) else as_of) - set(json.loads(said["refused"]))
        # The events and the quarantine of a run are staged by one job, whose time stands with the events.
        staging = 0.0 if table and table.name == "quarantine" else float(said["stage_seconds"])
        found.append(
            _Commit(
                said["version"],
                sorted(map(date.fromisoformat, owns)),
                json.loads(said["inputs"]),
                counts,
                int(said["rows"]),
                staging + float(said["audit_seconds"]),
            )
        )
    return found


# ---- planning ----


class _Planner:
    """One plan in the making: a partition is put into `why` with its reason, and what comes after it follows."""

    def __init__(self, reason: str, first: date | None, last: date | None, table: str):
        self.asked = (reason, first, last, table)
        self.reason, self.first, self.last, self.table = self.asked
        self.config = settings()
        self.gap = timedelta(minutes=self.config.session_gap_minutes)
        self.events = Table("events")
        self.tables = {name: Table.find(name) for name in TABLES}
        self.commits = {name: _commits(found) for name, found in self.tables.items()}
        self.made: dict[str, dict[date, _Commit]] = {name: {} for name in TABLES}
        for name, found in self.commits.items():
            for commit in found:
                for day in commit.owns:
                    self.made[name].setdefault(day, commit)
        self.rows = {name: found.rows_by(TABLES[name].owned_by) if found else {} for name, found in self.tables.items()}
        self.dates_of: dict[date, set[date]] = defaultdict(set)
        for file in self.events.files:
            self.dates_of[file.partition["landed"]].add(file.partition["dt"])
        # A partition on which neither an event nor a session stands cannot hold a session.
        self.known = set(self.events.rows_by("dt")) | set(self.rows["sessions"])
        self.why: dict[str, dict[date, str]] = {name: {} for name in TABLES}
        sessions = self.tables["sessions"]
        self.published = {day for day in self.known if sessions and sessions.basis(day) is not None}
        self.stages: dict[date, set[date]] = {}
        self.restated: list[_Change] = []

    def plan(self) -> Plan:
        """Find the partitions, then the runs that make them."""
        {"late-data": self.late_data, "code": self.code, "bad-day": self.bad_day}[self.reason]()
        self.follow()
        redo = [
            Redo(name, day, self.rows[name].get(day, 0), why)
            for name in TABLES
            for day, why in sorted(self.why[name].items())
        ]
        costs = Costs({name: [(c.rows, c.seconds) for c in found[:REMEMBERED]] for name, found in self.commits.items()})
        runs = list(self.runs(costs))
        kept = [
            Untouched(name, len(left), sum(left.values()))
            for name in TABLES
            for left in [{day: n for day, n in self.rows[name].items() if day not in self.why[name]}]
        ]
        return Plan(
            *self.asked,
            redo=redo,
            runs=runs,
            whole=self.whole(runs, costs),
            optional=list(self.optional(costs)),
            untouched=kept,
            costs=costs,
        )

    def within(self, day: date) -> bool:
        """Tell whether a day was asked for."""
        return (self.first is None or self.first <= day) and (self.last is None or day <= self.last)

    # -- what is made again, by reason

    def late_data(self) -> None:
        """Plan what does not know all events that have landed since it was made."""
        sessions, states, examples = (self.tables["sessions"], self.made["interests"], self.made["examples"])
        for change in self.changes:
            if not self.within(change.landed):
                continue
            for day in session_days(change.day):
                basis = sessions.basis(day) if sessions else None
                behind = day in self.known and (basis is None or basis < change.version)
                if behind and self.touches(change, day):
                    self.add("sessions", day, self.in_words(change))
                    if self.too_late(change):
                        self.restated.append(change)
            for day, made in states.items():
                if made.inputs["events"] < change.version and self.in_history(change, day, made):
                    self.add("interests", day, self.in_words(change))
            for day, made in examples.items():
                if made.inputs["events"] < change.version and self.in_horizon(change, day, made):
                    self.add("examples", day, f"labels: {self.in_words(change)}")
        for name in ("examples", "predictions"):
            for day, made in self.made[name].items():
                if day in states and self.within(day) and made.inputs["interests"] < states[day].version:
                    self.add(name, day, "its interests were made again since")

    def bad_day(self) -> None:
        """Plan what landing days that are delivered again can change."""
        for landed in self.landings():
            self.redeliver(landed, f"{landed} is delivered again")

    def code(self) -> None:
        """Plan what a changed job has made, and what was made from it."""
        if self.table == "events":
            for landed in self.landings():
                self.redeliver(landed, f"the code behind events changed, landed {landed}")
            return
        made = self.made[self.table] if self.table != "sessions" else self.rows["sessions"]
        for day in filter(self.within, made):
            self.add(self.table, day, f"the code behind {self.table} changed")

    def landings(self) -> list[date]:
        """Return the published landing days that were asked for."""
        return sorted(filter(self.within, self.made["events"]))

    def redeliver(self, landed: date, why: str) -> None:
        """Plan what can change when a landing day is made again and may hold any events up to its date."""
        for name in ("events", "quarantine"):
            self.add(name, landed, why)
        dates = self.dates_of[landed]
        # Events on dates that the day did not hold before are known only when they have landed: its own run restates
        # their sessions, and a plan for late data names what that run has to leave.
        for day in {landed}.union(*(session_days(dated) for dated in dates)) & self.known:
            self.add("sessions", day, why)
        oldest = min(dates, default=landed)
        for day, made in self.made["interests"].items():
            begins = oldest if made.counts.get("include_late") else landed
            if begins <= day < landed + self.config.history_days * ONE_DAY:
                self.add("interests", day, why)
        for day, made in self.made["examples"].items():
            known_by = oldest if made.counts.get("include_late") else landed
            if day < landed and known_by <= day + made.counts["horizon_days"] * ONE_DAY:
                self.add("examples", day, f"labels: {why}")

    def follow(self) -> None:
        """Plan what was made from interests that are planned."""
        for name in ("examples", "predictions"):
            for day in self.why["interests"].keys() & self.made[name].keys():
                self.add(name, day, "its interests are made again")

    def optional(self, costs: Costs) -> Iterator[DayRun]:
        """Return runs for the states that do not know restated late events, since these arrived after T."""
        for day, made in sorted(self.made["interests"].items()):
            late = any(c.day <= day < c.landed and self.in_history(c, day, made, late=True) for c in self.restated)
            if late and not self.includes_late("interests", day) and day not in self.why["interests"]:
                yield self.run("interests", day, {"interests": {day}}, costs, include_late=True)

    def add(self, table: str, day: date, why: str) -> None:
        """Plan a partition; the first reason that is found is told."""
        self.why[table].setdefault(day, why)

    # -- which events can change what

    @cached_property
    def changes(self) -> list[_Change]:
        """What came to `events` and what was taken back, newest landing first."""
        found = [
            _Change(self.made["events"][landed].version, day, landed, files)
            for (day, landed), files in _by_day(self.events.files)
        ]
        delivered: set[date] = set()
        for commit in reversed(self.commits["events"]):
            again = delivered & set(commit.owns)
            if again:
                before = [f for f in Table("events", commit.version - 1).files if f.partition["landed"] in again]
                found += [
                    _Change(commit.version, day, landed, files, taken_back=True)
                    for (day, landed), files in _by_day(before)
                ]
            delivered |= set(commit.owns)
        return sorted(found, key=lambda change: (change.landed, change.day, change.version), reverse=True)

    def touches(self, change: _Change, partition: date) -> bool:
        """Tell whether events can change a session partition, one of `session_days` of their date."""
        return any(partition in session_days_of(file, self.gap) for file in change.files)

    def in_history(self, change: _Change, day: date, made: _Commit, *, late: bool = False) -> bool:
        """Tell whether the state at `day` counts these events (or would, restated `late`); see jobs.interests."""
        in_time = late or change.landed <= day or bool(made.counts.get("include_late"))
        return in_time and timedelta(0) <= day - change.day < self.config.history_days * ONE_DAY

    @staticmethod
    def in_horizon(change: _Change, day: date, made: _Commit) -> bool:
        """Tell whether the labels at `day` count these events; see jobs.examples."""
        ends = day + made.counts["horizon_days"] * ONE_DAY
        return day < change.day <= ends and (change.landed <= ends or bool(made.counts.get("include_late")))

    def too_late(self, change: _Change) -> bool:
        """Tell whether events are older than what the run of their landing day restates by itself."""
        return change.day < change.landed - self.config.late_days * ONE_DAY

    def in_words(self, change: _Change) -> str:
        """Say which events are not known yet."""
        older = f", older than MEANDER_LATE_DAYS={self.config.late_days}" if self.too_late(change) else ""
        what = "were taken back, landed" if change.taken_back else "landed"
        return f"events of {change.day} {what} {change.landed}{older}"

    # -- the runs

    def runs(self, costs: Costs) -> Iterator[DayRun]:
        """Return the runs: first those that change events, then what is made from events, then what is made of that."""
        covers: dict[date, dict[str, set[date]]] = defaultdict(lambda: defaultdict(set))
        for landed in self.why["events"]:
            covers[landed] |= {"quarantine": {landed}, "events": {landed}}
        notes = self.cover_sessions(covers)
        restated = [day for day in sorted(self.why["interests"]) if self.includes_late("interests", day)]
        for day in self.why["interests"].keys() - set(restated):
            covers[day]["interests"] = {day}
        for day in sorted(covers, key=lambda day: ("events" not in covers[day], day)):
            yield self.run("behavior", day, covers[day], costs, note=notes.get(day, ""))
        for day in restated:
            yield self.run("interests", day, {"interests": {day}}, costs, include_late=True)
        for day in sorted(self.why["examples"]):
            late = self.includes_late("examples", day)
            yield self.run("examples", day, {"examples": {day}}, costs, include_late=late)
        for day in sorted(self.why["predictions"]):
            version = self.made["predictions"][day].counts.get("model_version")
            yield self.run("predictions", day, {"predictions": {day}}, costs, model_version=version)

    def run(self, job: str, day: date, covers: dict[str, set[date]], costs: Costs, **more: Any) -> DayRun:
        """Describe one run by the partitions of the plan that it makes."""
        rows = {name: sum(self.rows[name].get(d, 0) for d in days) for name, days in covers.items()}
        seconds = total(costs.seconds(name, n) for name, n in rows.items())
        return DayRun(job, day, tuple(covers), sum(map(len, covers.values())), sum(rows.values()), seconds, **more)

    def whole(self, runs: list[DayRun], costs: Costs) -> Whole | None:
        """Return the range of the runs that make events, if its few jobs take less time than they do."""
        single = [run for run in runs if run.day in self.why["events"] and run.job == "behavior"]
        days = [run.day for run in single]
        # Only days that are planned: events that are made again without need would make others look old.
        if len(days) < 2 or days != days_between(days[0], days[-1]):
            return None
        first, last = days[0], days[-1]
        states = [day for day in sorted(self.made["interests"]) if first <= day <= last]
        steps = {(later - earlier).days for earlier, later in pairwise(states)}
        regular = len(steps) == 1 and states[-1] == last
        # Without any, the last day alone: behavior_history makes at least that.
        every = steps.pop() if regular else 1 if states else len(days)
        chunks = math.ceil(len(days) / CHUNK_DAYS)
        rows = {name: sum(n for day, n in self.rows[name].items() if first <= day <= last) for name in BEHAVIOR}
        chunk = total(costs.seconds(name, rows[name] // chunks) for name in BEHAVIOR)
        one_by_one = total(run.seconds for run in single)
        if chunk is None or one_by_one is None or chunk * chunks >= one_by_one:
            return None
        return Whole(first, last, every, sum(rows.values()), round(chunk * chunks, 1))

    def includes_late(self, table: str, day: date) -> bool:
        """Tell whether what there is counts events that landed too late for its date."""
        return bool(self.made[table][day].counts.get("include_late"))

    def cover_sessions(self, covers: dict[date, dict[str, set[date]]]) -> dict[date, str]:
        """Choose the runs that make the planned sessions, as few as possible; return notes for days that need one."""
        wanted = set(self.why["sessions"])
        for landed in self.why["events"]:
            covers[landed]["sessions"] = wanted & self.staged_by(landed)
        left = wanted - {day for made in covers.values() for day in made["sessions"]}
        notes = {}
        while left:
            oldest = min(left)
            able = {
                landed: staged for landed in self.near(oldest) if oldest in (staged := self.staged_by(landed) & left)
            }
            if not able:
                covers[oldest] |= {"quarantine": set(), "events": set(), "sessions": {oldest}}
                notes[oldest] = f"nothing has landed on {oldest}: make an empty landing folder dt={oldest} first"
                left.remove(oldest)
                continue
            # Whoever makes most of what is left; of equals the day itself, then the newest.
            best = max(able, key=lambda landed: (len(able[landed]), landed == oldest, landed))
            covers[best]["sessions"] = able[best]
            left -= able[best]
        return notes

    def near(self, partition: date) -> list[date]:
        """Return the landing days whose run may stage a session partition."""
        found = {change.landed for change in self.changes if partition in session_days(change.day)}
        return sorted(found | ({partition} & self.made["events"].keys()))

    def staged_by(self, landed: date) -> set[date]:
        """Return the planned session partitions that a run of a landing day surely makes right."""
        if landed not in self.stages:
            files = (file for change in self.changes if change.landed == landed for file in change.files)
            changed, late_days = changed_by(files, self.gap), self.config.late_days
            days, _ = partitions_to_stage(changed, landed, landed, self.known, self.published, late_days)
            self.stages[landed] = set(days)
            if landed in self.why["events"]:
                # What it is delivered with may lie at any time of its dates. A recent date is restated wherever an
                # event is found to reach; of an older one, what is not sure to be pulled along is left.
                dates = self.dates_of[landed]
                older = {dated for dated in dates if dated < landed - late_days * ONE_DAY}
                reached, left = (set().union(*map(session_days, some)) for some in (dates - older, older))
                self.stages[landed] |= (reached - left) & self.known
        return self.stages[landed]
