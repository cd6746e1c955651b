"""Daily runs without Spark: real commits, real rules of what a run owns, and rows that name the events behind them.

What a table holds is worked out by plain Python from the rules in docs/design.md, so that a test can tell whether each
partition knows the events that it should.
"""

from collections.abc import Iterable
from datetime import UTC, date, timedelta

from jobs.sessionize import known_and_published, landed_files, read_window
from lake.plan import Plan
from lake.publish import publish
from lake.reach import ONE_DAY, changed_by, partitions_to_stage
from lake.settings import settings
from lake.staging import Run
from lake.table import Table
from tests.lake.stagings import read_files, stage_files
from tests.session_oracle import Landed, sessions

Rows = list[tuple[date, str]]
NAMED_IN = {"events": "event_id", "sessions": "session_id", "interests": "user_id", "examples": "user_id"}
MODEL_VERSION = 3


class DailyRuns:
    """A shop whose landing is a list of events, and the runs over it.

    Attributes:
        landing: {landing day: its events}; change it to deliver a day again.
        states: the dates T at which interests have been made.
        labelled: those with examples.
        predicted: those with predictions.
        took: seconds that each staging claims to have taken.
    """

    def __init__(self, landing: dict[date, list[Landed]]):
        self.landing = landing
        self.states: set[date] = set()
        self.labelled: set[date] = set()
        self.predicted: set[date] = set()
        self.number = 0
        self.took = 0.0

    # ---- the runs ----

    def stage_and_publish(self, table: str, rows: Rows, owns: list[date], basis: int, **more: object) -> None:
        self.number += 1
        named = NAMED_IN.get(table, "user_id")
        stage_files(
            table,
            f"run {self.number}",
            [{named: name, "dt": day} for day, name in rows],
            owns,
            basis,
            seconds=self.took,
            **more,
        )
        publish(table, f"run {self.number}")

    def events(self, day: date) -> None:
        self.number += 1
        rows = [
            {"event_id": e.event_id, "user_id": e.user_id, "event_time": e.event_time.replace(tzinfo=UTC)}
            | {"dt": e.event_time.date(), "landed": e.landed}
            for e in self.landing[day]
        ]
        for table, its_rows in (("quarantine", []), ("events", rows)):
            stage_files(table, f"run {self.number}", its_rows, [day], self.number, seconds=self.took)
            publish(table, f"run {self.number}")

    def sessions(self, day: date) -> None:
        events, run, gap = Table("events"), Run("any", day, day), timedelta(minutes=settings().session_gap_minutes)
        changed = changed_by(landed_files(events, run), gap)
        days, _ = partitions_to_stage(changed, day, day, *known_and_published(events), settings().late_days)
        published = [e for landed in events.rows_by("landed") for e in self.landing[landed]]
        rows = []
        for partition in days:
            start, end = (edge.replace(tzinfo=None) for edge in read_window(partition, partition, gap))
            rows += [row for row in by_day((e for e in published if start <= e.event_time < end), gap)
                     if row[0] == partition]  # fmt: skip
        self.stage_and_publish("sessions", rows, days, events.version, inputs={"events": events.version})

    def interests(self, day: date, *, include_late: bool = False) -> None:
        events = Table("events")
        published = [e for landed in events.rows_by("landed") for e in self.landing[landed]]
        counts = {"as_of": [str(day)], "include_late": include_late}
        rows = state(published, day, include_late=include_late)
        self.stage_and_publish(
            "interests", rows, [day], events.version, counts=counts, inputs={"events": events.version}
        )
        self.states.add(day)

    def examples(self, day: date) -> None:
        events, interests = Table("events"), Table("interests")
        published = [e for landed in events.rows_by("landed") for e in self.landing[landed]]
        states = [name for dated, name in read_files(interests, "user_id") if dated == day]
        counts = {"as_of": [str(day)], "include_late": False, "horizon_days": settings().horizon_days}
        inputs = {"events": events.version, "interests": interests.version}
        rows = [(day, f"{name} then {labels(published, day)}") for name in states]
        self.stage_and_publish("examples", rows, [day], sum(inputs.values()), counts=counts, inputs=inputs)
        self.labelled.add(day)

    def predictions(self, day: date) -> None:
        interests = Table("interests")
        rows = [(dated, name) for dated, name in read_files(interests, "user_id") if dated == day]
        counts = {"as_of": str(day), "model_version": MODEL_VERSION}
        inputs = {"interests": interests.version}
        self.stage_and_publish("predictions", rows, [day], self.number, counts=counts, inputs=inputs)
        self.predicted.add(day)

    def day(self, day: date) -> None:
        """Take all steps of behavior_daily."""
        self.events(day)
        self.sessions(day)
        self.interests(day)

    def execute(self, plan: Plan, *, without: int | None = None) -> None:
        """Make the runs of a plan, in its order; all, or all but one."""
        for number, run in enumerate(plan.runs):
            for table in run.tables if number != without else ():
                if table == "interests":
                    self.interests(run.day, include_late=run.include_late)
                elif table != "quarantine":
                    getattr(self, table)(run.day)

    # ---- what the tables hold, and what they should ----

    def found(self) -> dict[str, Rows]:
        """Return what readers see."""
        return {table: read_files(Table(table), name) for table, name in NAMED_IN.items() if Table.find(table)} | {
            "predictions": read_files(Table("predictions"), "user_id") if Table.find("predictions") else []
        }

    def expected(self) -> dict[str, Rows]:
        """Return what readers would see if everything had been made now, from all that has landed."""
        gap = timedelta(minutes=settings().session_gap_minutes)
        landed = [e for events in self.landing.values() for e in events]
        states = {day: state(landed, day) for day in self.states}
        tables = {
            "events": [(e.event_time.date(), e.event_id) for e in landed],
            "sessions": by_day(landed, gap),
            "interests": [row for rows in states.values() for row in rows],
            "examples": [
                (day, f"{name} then {labels(landed, day)}") for day in self.labelled for _, name in states[day]
            ],
            "predictions": [row for day in self.predicted for row in states[day]],
        }
        return {table: sorted(rows) for table, rows in tables.items() if Table.find(table) or table == "predictions"}


def by_day(log: Iterable[Landed], gap: timedelta) -> Rows:
    """Return each session by the date of its last event, named by its events."""
    log = list(log)
    times = {e.event_id: e.event_time for e in log}
    return [(times[ids[-1]].date(), ",".join(ids)) for _, ids in sessions((e.event for e in log), gap)]


def state(log: Iterable[Landed], day: date, *, include_late: bool = False) -> Rows:
    """Return a row for each user, named by the events that the state at the end of `day` counts."""
    oldest = day - settings().history_days * ONE_DAY
    by_user: dict[str, set[str]] = {}
    for e in log:
        if oldest < e.event_time.date() <= day and (include_late or e.landed <= day):
            by_user.setdefault(e.user_id, set()).add(e.event_id)
    return [(day, f"{user}: {','.join(sorted(ids))}") for user, ids in sorted(by_user.items())]


def labels(log: Iterable[Landed], day: date) -> str:
    """Name the events of the horizon after `day` that were known at its end."""
    ends = day + settings().horizon_days * ONE_DAY
    return ",".join(sorted({e.event_id for e in log if day < e.event_time.date() <= ends and e.landed <= ends}))
