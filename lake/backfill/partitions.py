"""Which partitions are made again, and why, for each reason that can be given."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta

from lake.backfill.history import Change, Commit, History
from lake.reach import ONE_DAY, session_days, session_days_of
from lake.settings import Settings

# Table, day, and why it is made again.
Found = tuple[str, date, str]


@dataclass(frozen=True)
class Asked:
    """What a plan is asked for; see `lake.backfill.planner.make`."""

    reason: str
    first: date | None = None
    last: date | None = None
    table: str = "events"

    def within(self, day: date) -> bool:
        """Tell whether a day was asked for."""
        return (self.first is None or self.first <= day) and (self.last is None or day <= self.last)


def partitions(history: History, config: Settings, asked: Asked) -> dict[str, dict[date, str]]:
    """Return why partitions are made again, by table and day; the first reason that is found is told."""
    rule = {"late-data": late_data, "code": code, "bad-day": bad_day}[asked.reason]
    why: dict[str, dict[date, str]] = {name: {} for name in history.rows}
    for table, day, found in rule(history, config, asked):
        why[table].setdefault(day, found)
    for table in ("examples", "predictions"):
        for day in why["interests"].keys() & history.made[table].keys():
            why[table].setdefault(day, "its interests are made again")
    return why


def late_data(history: History, config: Settings, asked: Asked) -> Iterator[Found]:
    """Find what does not know all events that have landed since it was made."""
    states = history.made["interests"]
    for change in history.changes:
        if not asked.within(change.landed):
            continue
        words = in_words(change, config)
        for day in unaware_sessions(history, config, change):
            yield "sessions", day, words
        for day, made in states.items():
            if made.inputs["events"] < change.version and in_history(change, day, config, late=made.include_late):
                yield "interests", day, words
        for day, made in history.made["examples"].items():
            if made.inputs["events"] < change.version and in_horizon(change, day, made):
                yield "examples", day, f"labels: {words}"
    for table in ("examples", "predictions"):
        for day, made in history.made[table].items():
            if day in states and asked.within(day) and made.inputs["interests"] < states[day].version:
                yield table, day, "its interests were made again since"


def bad_day(history: History, config: Settings, asked: Asked) -> Iterator[Found]:
    """Find what landing days that are delivered again can change."""
    for landed in filter(asked.within, sorted(history.made["events"])):
        yield from delivered_again(history, config, landed, f"{landed} is delivered again")


def code(history: History, config: Settings, asked: Asked) -> Iterator[Found]:
    """Find what a changed job has made; what was made from it follows."""
    if asked.table == "events":
        for landed in filter(asked.within, sorted(history.made["events"])):
            yield from delivered_again(history, config, landed, f"the code behind events changed, landed {landed}")
        return
    made = history.rows["sessions"] if asked.table == "sessions" else history.made[asked.table]
    for day in filter(asked.within, made):
        yield asked.table, day, f"the code behind {asked.table} changed"


def delivered_again(history: History, config: Settings, landed: date, why: str) -> Iterator[Found]:
    """Find what can change when a landing day is made again and may hold any events up to its date."""
    for table in ("events", "quarantine"):
        yield table, landed, why
    dates = history.dates_of.get(landed, set())
    # Events on dates that the day did not hold before are known only when they have landed: its own run restates
    # their sessions, and a plan for late data names what that run has to leave.
    for day in {landed}.union(*map(session_days, dates)) & history.known:
        yield "sessions", day, why
    oldest = min(dates, default=landed)
    for day, made in history.made["interests"].items():
        begins = oldest if made.include_late else landed
        if begins <= day < landed + config.history_days * ONE_DAY:
            yield "interests", day, why
    for day, made in history.made["examples"].items():
        known_by = oldest if made.include_late else landed
        if day < landed and known_by <= end_of_horizon(day, made):
            yield "examples", day, f"labels: {why}"


# ---- which events can change what ----


def unaware_sessions(history: History, config: Settings, change: Change) -> list[date]:
    """Return the session partitions that events can change and that were made without them."""
    gap = timedelta(minutes=config.session_gap_minutes)
    reached = {day for file in change.files for day in session_days_of(file, gap)}
    return sorted(
        day for day in reached & history.known if day not in history.known_by or history.known_by[day] < change.version
    )


def in_history(change: Change, day: date, config: Settings, *, late: bool) -> bool:
    """Tell whether the state at `day`, restated with `late` events or not, counts these; see jobs.interests."""
    in_time = late or change.landed <= day
    return in_time and timedelta(0) <= day - change.day < config.history_days * ONE_DAY


def in_horizon(change: Change, day: date, made: Commit) -> bool:
    """Tell whether the labels at `day`, as they were made, count these events; see jobs.examples."""
    ends = end_of_horizon(day, made)
    return day < change.day <= ends and (made.include_late or change.landed <= ends)


def end_of_horizon(day: date, made: Commit) -> date:
    """Return the last day of the labels at `day`: those that there are keep their horizon, whatever is set now."""
    days: int = made.counts["horizon_days"]
    return day + days * ONE_DAY


def too_late(change: Change, config: Settings) -> bool:
    """Tell whether events are older than what the run of their landing day restates by itself."""
    return change.day < change.landed - config.late_days * ONE_DAY


def in_words(change: Change, config: Settings) -> str:
    """Say which events are not known yet."""
    older = f", older than MEANDER_LATE_DAYS={config.late_days}" if too_late(change, config) else ""
    what = "were taken back, landed" if change.taken_back else "landed"
    return f"events of {change.day} {what} {change.landed}{older}"
