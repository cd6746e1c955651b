"""The partitions to reprocess, and why, for each reason that a plan can have."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta

from lake.backfill.history import Change, Commit, History
from lake.days import ONE_DAY
from lake.reach import session_days, session_days_of
from lake.settings import Settings

# Table, day, and why it is reprocessed.
Affected = tuple[str, date, str]


@dataclass(frozen=True)
class Request:
    """The arguments of a plan; see `lake.backfill.planner.plan_backfill`."""

    reason: str
    first: date | None = None
    last: date | None = None
    table: str = "events"

    def within(self, day: date) -> bool:
        """Return whether a day is between the first and the last one."""
        return (self.first is None or self.first <= day) and (self.last is None or day <= self.last)


def partitions(history: History, config: Settings, request: Request) -> dict[str, dict[date, str]]:
    """Return why partitions are reprocessed, by table and day: of several reasons, the first."""
    rule = {"late-data": late_data, "code": code, "bad-day": bad_day}[request.reason]
    why: dict[str, dict[date, str]] = {name: {} for name in history.rows}
    for table, day, cause in rule(history, config, request):
        why[table].setdefault(day, cause)
    for table in ("examples", "predictions"):
        for day in why["interests"].keys() & history.latest[table].keys():
            why[table].setdefault(day, "its interests are reprocessed")
    return why


def late_data(history: History, config: Settings, request: Request) -> Iterator[Affected]:
    """Yield the partitions that were computed before some of their events landed."""
    states = history.latest["interests"]
    for change in history.changes:
        if not request.within(change.landed):
            continue
        words = in_words(change, config)
        for day in unaware_sessions(history, config, change):
            yield "sessions", day, words
        for day, commit in states.items():
            if commit.inputs["events"] < change.version and in_history(change, day, config, late=commit.include_late):
                yield "interests", day, words
        for day, commit in history.latest["examples"].items():
            if commit.inputs["events"] < change.version and in_horizon(change, day, commit):
                yield "examples", day, f"labels: {words}"
    for table in ("examples", "predictions"):
        for day, commit in history.latest[table].items():
            if day in states and request.within(day) and commit.inputs["interests"] < states[day].version:
                yield table, day, "its interests were published again since"


def bad_day(history: History, config: Settings, request: Request) -> Iterator[Affected]:
    """Yield the partitions that landing days can change when they are delivered again."""
    for landed in filter(request.within, sorted(history.latest["events"])):
        yield from delivered_again(history, config, landed, f"{landed} is delivered again")


def code(history: History, config: Settings, request: Request) -> Iterator[Affected]:
    """Yield the partitions that a changed job has computed; `partitions` adds those computed from them."""
    if request.table == "events":
        for landed in filter(request.within, sorted(history.latest["events"])):
            yield from delivered_again(history, config, landed, f"the code behind events changed, landed {landed}")
        return
    days = history.rows["sessions"] if request.table == "sessions" else history.latest[request.table]
    for day in filter(request.within, days):
        yield request.table, day, f"the code behind {request.table} changed"


def delivered_again(history: History, config: Settings, landed: date, why: str) -> Iterator[Affected]:
    """Yield the partitions that can change when a landing day is loaded again, with any events up to its date."""
    for table in ("events", "quarantine"):
        yield table, landed, why
    dates = history.dates_of.get(landed, set())
    # The new delivery may have events on dates that the old one did not. Their sessions are restated by the run of
    # the landing day, and a plan for late data names the partitions that this run postpones.
    for day in {landed}.union(*map(session_days, dates)) & history.populated:
        yield "sessions", day, why
    oldest = min(dates, default=landed)
    for day, commit in history.latest["interests"].items():
        begins = oldest if commit.include_late else landed
        if begins <= day < landed + config.history_days * ONE_DAY:
            yield "interests", day, why
    for day, commit in history.latest["examples"].items():
        begins = oldest if commit.include_late else landed
        if day < landed and begins <= end_of_horizon(day, commit):
            yield "examples", day, f"labels: {why}"


# ---- which events can change what ----


def unaware_sessions(history: History, config: Settings, change: Change) -> list[date]:
    """Return the session partitions that events can change and that were computed without them."""
    gap = timedelta(minutes=config.session_gap_minutes)
    reached = {day for file in change.files for day in session_days_of(file, gap)}
    basis = history.sessions_basis
    return sorted(day for day in reached & history.populated if day not in basis or basis[day] < change.version)


def in_history(change: Change, day: date, config: Settings, *, late: bool) -> bool:
    """Return whether the interests at `day` include these events, if restated with `late` ones; see jobs.interests."""
    in_time = late or change.landed <= day
    return in_time and timedelta(0) <= day - change.day < config.history_days * ONE_DAY


def in_horizon(change: Change, day: date, commit: Commit) -> bool:
    """Return whether the labels at `day` include these events, as `commit` computed them; see jobs.examples."""
    ends = end_of_horizon(day, commit)
    return day < change.day <= ends and (commit.include_late or change.landed <= ends)


def end_of_horizon(day: date, commit: Commit) -> date:
    """Return the last day of the published labels at `day`: they keep their horizon, whatever the setting is now."""
    days: int = commit.counts["horizon_days"]
    return day + days * ONE_DAY


def too_late(change: Change, config: Settings) -> bool:
    """Return whether events are older than those that the run of their landing day restates."""
    return change.day < change.landed - config.late_days * ONE_DAY


def in_words(change: Change, config: Settings) -> str:
    """Describe the events that are not included yet."""
    older = f", older than MEANDER_LATE_DAYS={config.late_days}" if too_late(change, config) else ""
    what = "were taken back, landed" if change.taken_back else "landed"
    return f"events of {change.day} {what} {change.landed}{older}"
