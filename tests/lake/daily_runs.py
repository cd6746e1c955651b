"""Daily runs without Spark: the real rules of what a run owns, and rows that name the events behind them.

What a table holds is worked out by plain Python from the rules in docs/design.md, so that a test can tell whether each
partition knows the events that it should. `DailyRuns` commits to a real lake; `RunsInMemory` keeps what such commits
leave behind, so cheaply that a plan can be tried on hundreds of logs. That both leave the same is a test of its own.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable
from copy import copy
from datetime import UTC, date, timedelta
from typing import Any, Self

from jobs.sessionize import landed_files, populated_and_published, read_window
from lake.backfill.history import Commit, History
from lake.backfill.partitions import Request
from lake.backfill.plan import BackfillPlan
from lake.backfill.planner import plan_backfill, plan_of
from lake.days import ONE_DAY, days_between
from lake.publish import publish
from lake.reach import changed_by, partitions_to_stage
from lake.schemas import TABLES
from lake.settings import Settings, settings
from lake.staging import Verdict, write_verdict
from lake.table import DataFile, Table
from tests.lake.stagings import read_files, stage_files
from tests.session_oracle import Landed, sessions
from tests.tables import groups_of

Rows = list[tuple[date, str]]
NAMED_IN = {
    "events": "event_id",
    "sessions": "session_id",
    "interests": "user_id",
    "examples": "user_id",
    "predictions": "user_id",
}
MODEL_VERSION = 3


class Shop(ABC):
    """A shop whose landing is a list of events, and the runs over it.

    Attributes:
        landing: {landing day: its events}; change it to deliver a day again.
        delivered: what a run has taken of it.
        states: the dates T at which interests have been made, and whether with late events.
        labelled: the same of examples.
        predicted: those with predictions.
        took, audited: seconds that each staging and each audit claims to have taken.
    """

    def __init__(self, landing: dict[date, list[Landed]], config: Settings | None = None):
        self.landing = landing
        self.config = config or settings()
        self.gap = timedelta(minutes=self.config.session_gap_minutes)
        self.delivered: dict[date, list[Landed]] = {}
        self.states: dict[date, bool] = {}
        self.labelled: dict[date, bool] = {}
        self.predicted: set[date] = set()
        self.number = 0
        self.took = 0.0
        self.audited = 0.0

    # ---- where the rows are kept ----

    @abstractmethod
    def commit(self, table: str, rows: list[dict[str, Any]], owns: list[date], basis: int, **said: Any) -> None:
        """Publish rows, of which `said` has `counts` and `inputs`."""

    @abstractmethod
    def version(self, table: str) -> int:
        """Return the newest version of a table."""

    @abstractmethod
    def read(self, table: str) -> Rows:
        """Return what readers see, sorted; nothing if there is no such table."""

    @abstractmethod
    def landed_files(self, day: date) -> Iterable[DataFile]:
        """Return the files of events that landed on a day, and those that an earlier delivery of it held."""

    @abstractmethod
    def populated_and_published(self) -> tuple[set[date], set[date]]:
        """Return the dates on which an event or a session stands, and those whose sessions are published."""

    @abstractmethod
    def plan(
        self, reason: str, first: date | None = None, last: date | None = None, table: str = "events"
    ) -> BackfillPlan:
        """Plan a backfill of what is published."""

    # ---- the runs ----

    def events(self, day: date) -> None:
        # An empty folder is made for a day that has none when a plan asks for it.
        self.landing.setdefault(day, [])
        self.delivered[day] = list(self.landing[day])
        rows = [
            {"event_id": e.event_id, "user_id": e.user_id, "event_time": e.event_time.replace(tzinfo=UTC)}
            | {"dt": e.event_time.date(), "landed": e.landed}
            for e in self.landing[day]
        ]
        basis = self.number
        self.commit("quarantine", [], [day], basis)
        self.commit("events", rows, [day], basis)

    def sessions(self, day: date) -> None:
        changed = changed_by(self.landed_files(day), self.gap)
        days, _ = partitions_to_stage(changed, [day], *self.populated_and_published(), self.config.late_days)
        rows = []
        for partition in days:
            start, end = (edge.replace(tzinfo=None) for edge in read_window(partition, partition, self.gap))
            known = in_sessions(self.published(), self.delivered)
            nearby = (e for e in known if start <= e.event_time < end)
            rows += [(dated, name) for dated, name in by_day(nearby, self.gap) if dated == partition]
        version = self.version("events")
        self.commit("sessions", named("sessions", rows), days, version, inputs={"events": version})

    def interests(self, day: date, *, include_late: bool = False) -> None:
        version = self.version("events")
        counts = {"as_of": [str(day)], "include_late": include_late}
        rows = state(self.published(), day, self.config.history_days, include_late=include_late)
        self.commit("interests", named("interests", rows), [day], version, counts=counts, inputs={"events": version})
        self.states[day] = include_late

    def examples(self, day: date, *, include_late: bool = False) -> None:
        horizon = self.config.horizon_days
        inputs = {"events": self.version("events"), "interests": self.version("interests")}
        counts = {"as_of": [str(day)], "include_late": include_late, "horizon_days": horizon}
        followed = labels(self.published(), day, horizon, include_late=include_late)
        rows = [(day, f"{name} then {followed}") for dated, name in self.read("interests") if dated == day]
        self.commit("examples", named("examples", rows), [day], sum(inputs.values()), counts=counts, inputs=inputs)
        self.labelled[day] = include_late

    def predictions(self, day: date) -> None:
        rows = [(dated, name) for dated, name in self.read("interests") if dated == day]
        counts = {"as_of": str(day), "model_version": MODEL_VERSION}
        inputs = {"interests": self.version("interests")}
        self.commit("predictions", named("predictions", rows), [day], self.number, counts=counts, inputs=inputs)
        self.predicted.add(day)

    def day(self, day: date) -> None:
        """Take all steps of behavior_daily."""
        for group in groups_of("behavior_daily"):
            getattr(self, group)(day)

    def execute(self, plan: BackfillPlan, *, without: int | None = None) -> None:
        """Make the runs of a plan, in its order; all, or all but one."""
        for number, run in enumerate(plan.runs):
            for table in run.tables if number != without else ():
                if table in ("interests", "examples"):
                    getattr(self, table)(run.day, include_late=run.include_late)
                elif table != "quarantine":
                    getattr(self, table)(run.day)

    def published(self) -> list[Landed]:
        """Return the events that readers see."""
        return [e for events in self.delivered.values() for e in events]

    # ---- what the tables hold, and what they should ----

    def found(self) -> dict[str, Rows]:
        """Return what readers see."""
        return {table: self.read(table) for table in NAMED_IN}

    def expected(self) -> dict[str, Rows]:
        """Return what readers would see if everything had been made now, from all that has landed."""
        landed = [e for events in self.landing.values() for e in events]
        states = {
            day: state(landed, day, self.config.history_days, include_late=late) for day, late in self.states.items()
        }
        then = {
            day: labels(landed, day, self.config.horizon_days, include_late=late) for day, late in self.labelled.items()
        }
        tables = {
            "events": [(e.event_time.date(), e.event_id) for e in landed],
            "sessions": by_day(in_sessions(landed, self.delivered), self.gap),
            "interests": [row for rows in states.values() for row in rows],
            "examples": [(day, f"{name} then {then[day]}") for day in then for _, name in states[day]],
            "predictions": [row for day in self.predicted for row in states[day]],
        }
        return {table: sorted(rows) for table, rows in tables.items()}

    def wrong(self) -> dict[str, set[date]]:
        """Return the partitions of each table in which readers see something else than they should."""
        found, expected = self.found(), self.expected()
        return {table: {day for day, _ in set(found[table]) ^ set(expected[table])} for table in found}


class DailyRuns(Shop):
    """Runs that commit to the lake of the settings."""

    def commit(self, table: str, rows: list[dict[str, Any]], owns: list[date], basis: int, **said: Any) -> None:
        self.number += 1
        run_id = f"run {self.number}"
        staged = stage_files(table, run_id, rows, owns, basis, seconds=self.took, audited="", **said)
        write_verdict(Verdict(table, run_id, staged.stage_id, "passed", [], "/docs/page.html", self.audited))
        publish(table, run_id)

    def version(self, table: str) -> int:
        return Table(table).version

    def read(self, table: str) -> Rows:
        return read_files(Table(table), NAMED_IN[table]) if Table.find(table) else []

    def landed_files(self, day: date) -> Iterable[DataFile]:
        return landed_files(Table("events"), [day])

    def populated_and_published(self) -> tuple[set[date], set[date]]:
        return populated_and_published(Table("events"))

    def plan(
        self, reason: str, first: date | None = None, last: date | None = None, table: str = "events"
    ) -> BackfillPlan:
        return plan_backfill(settings(), reason, first, last, table)


class RunsInMemory(Shop):
    """Runs that keep what their commits would leave in the logs of a lake."""

    def __init__(self, landing: dict[date, list[Landed]], config: Settings | None = None):
        super().__init__(landing, config)
        self.commits: dict[str, tuple[Commit, ...]] = dict.fromkeys(TABLES, ())
        self.kept: dict[str, dict[date, list[dict[str, Any]]]] = {name: {} for name in TABLES}
        self.basis: dict[str, dict[date, int]] = {name: {} for name in TABLES}
        self.files: dict[date, list[DataFile]] = {}
        self.taken_back: dict[int, list[DataFile]] = {}

    def copied(self) -> Self:
        """Return a shop with the same past, for a run that this one does not know of."""
        other = copy(self)
        for name in ("landing", "delivered", "states", "labelled", "predicted", "commits", "files", "taken_back"):
            setattr(other, name, getattr(self, name).copy())
        other.kept = {table: days.copy() for table, days in self.kept.items()}
        other.basis = {table: days.copy() for table, days in self.basis.items()}
        return other

    def commit(self, table: str, rows: list[dict[str, Any]], owns: list[date], basis: int, **said: Any) -> None:
        self.number += 1
        # A publish keeps what was made from something newer.
        replaced = [day for day in owns if self.basis[table].get(day, 0) <= basis]
        version = self.version(table) + 1
        for day in replaced:
            self.basis[table][day] = basis
            self.kept[table][day] = [row for row in rows if row[TABLES[table].owned_by] == day]
            if table == "events":
                if day in self.files:
                    self.taken_back[version] = [*self.taken_back.get(version, []), *self.files[day]]
                self.files[day] = files_of_events(self.kept[table][day])
        as_of = said.get("counts", {}).get("as_of", [])
        asked = [date.fromisoformat(day) for day in ([as_of] if isinstance(as_of, str) else as_of)]
        made = set(asked or days_between(min(owns), max(owns))) - (set(owns) - set(replaced))
        # One job stages quarantine and events.
        seconds = self.audited + (0.0 if table == "quarantine" else self.took)
        self.commits[table] = (
            Commit(version, tuple(sorted(made)), rows=len(rows), seconds=seconds, **said),
            *self.commits[table],
        )

    def version(self, table: str) -> int:
        # The table is made by version 0.
        return len(self.commits[table])

    def read(self, table: str) -> Rows:
        return sorted((row["dt"], row[NAMED_IN[table]]) for rows in self.kept[table].values() for row in rows)

    def landed_files(self, day: date) -> Iterable[DataFile]:
        replaced = [file for files in self.taken_back.values() for file in files if file.partition["landed"] == day]
        waited = [file for file in self.files.get(day - ONE_DAY, []) if file.partition["dt"] == day]
        return [*self.counting([*self.files.get(day, []), *replaced]), *waited]

    def counting(self, files: Iterable[DataFile]) -> list[DataFile]:
        """Return the files whose events are in sessions, by when their dates have landed."""
        landed = self.basis["events"]
        return [
            file for file in files if file.partition["dt"] <= file.partition["landed"] or file.partition["dt"] in landed
        ]

    def populated_and_published(self) -> tuple[set[date], set[date]]:
        known = {file.partition["dt"] for files in self.files.values() for file in self.counting(files)}
        known |= {day for day, rows in self.kept["sessions"].items() if rows}
        return known, known & self.basis["sessions"].keys()

    def history(self) -> History:
        """Return what the logs of a lake would say."""
        _, published = self.populated_and_published()
        return History(
            dict(self.commits),
            {name: {day: len(rows) for day, rows in sorted(days.items()) if rows} for name, days in self.kept.items()},
            [file for files in self.files.values() for file in files],
            {version: list(files) for version, files in self.taken_back.items()},
            {day: self.basis["sessions"][day] for day in sorted(published)},
        )

    def plan(
        self, reason: str, first: date | None = None, last: date | None = None, table: str = "events"
    ) -> BackfillPlan:
        return plan_of(self.history(), self.config, Request(reason, first, last, table))


def named(table: str, rows: Rows) -> list[dict[str, Any]]:
    """Return rows of a table that say their day and their name only."""
    return [{NAMED_IN[table]: name, "dt": day} for day, name in rows]


def files_of_events(rows: list[dict[str, Any]]) -> list[DataFile]:
    """Return what the log tells of the files that hold these rows: one for each date."""
    by_partition: dict[tuple[date, date], list[dict[str, Any]]] = {}
    for row in rows:
        by_partition.setdefault((row["dt"], row["landed"]), []).append(row)
    return [
        DataFile("", len(part), 0, {"dt": dt, "landed": landed}, {"event_time": (min(times), max(times))})
        for (dt, landed), part in by_partition.items()
        for times in [[row["event_time"] for row in part]]
    ]


def in_sessions(log: Iterable[Landed], landed: Collection[date]) -> list[Landed]:
    """Return the events that sessions are made from: those before their own date wait until it has landed."""
    return [e for e in log if e.event_time.date() <= e.landed or e.event_time.date() in landed]


def by_day(log: Iterable[Landed], gap: timedelta) -> Rows:
    """Return each session by the date of its last event, named by its events."""
    log = list(log)
    times = {e.event_id: e.event_time for e in log}
    return [(times[ids[-1]].date(), ",".join(ids)) for _, ids in sessions((e.event for e in log), gap)]


def state(log: Iterable[Landed], day: date, history_days: int, *, include_late: bool) -> Rows:
    """Return a row for each user, named by the events that the state at the end of `day` counts."""
    oldest = day - history_days * ONE_DAY
    by_user: dict[str, set[str]] = {}
    for e in log:
        if oldest < e.event_time.date() <= day and (include_late or e.landed <= day):
            by_user.setdefault(e.user_id, set()).add(e.event_id)
    return [(day, f"{user}: {','.join(sorted(ids))}") for user, ids in sorted(by_user.items())]


def labels(log: Iterable[Landed], day: date, horizon_days: int, *, include_late: bool) -> str:
    """Name the events of the horizon after `day` that were known at its end."""
    ends = day + horizon_days * ONE_DAY
    return ",".join(
        sorted({e.event_id for e in log if day < e.event_time.date() <= ends and (include_late or e.landed <= ends)})
    )
