"""The partitions to reprocess, and why, for each reason that a plan can have."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta

from lake.backfill.history import Change, Commit, History
from lake.backfill.pending import Pending
from lake.days import ONE_DAY
from lake.reach import session_days, session_days_of
from lake.settings import Settings

# Table, day, and why it is reprocessed.
Affected = tuple[str, date, str]


@dataclass(frozen=True)
class Request:
    """The arguments of a plan; see `lake.backfill.planner.plan_backfill`.

    `older` are landing days that count although they are before the first one.
    """

    reason: str
    first: date | None = None
    last: date | None = None
    table: str = "events"
    older: frozenset[date] = frozenset()

    def within(self, day: date) -> bool:
        """Return whether a day is between the first and the last one."""
        begins = self.first is None or self.first <= day or day in self.older
        return begins and (self.last is None or day <= self.last)


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
    """Yield the partitions that were computed before some of their events landed, each at the first such change.

    So are those of a landing day of which files have changed since they were read.
    """
    for landed in filter(request.within, history.landing):
        yield from delivered_again(history, config, landed, f"{landed}: {history.landing[landed]}")
    states = history.latest["interests"]
    unaware = {
        table: {rule: Pending(versions) for rule, versions in by_rule(history.latest[table]).items()}
        for table in ("interests", "examples")
    }
    for change in history.changes:
        if not request.within(change.landed):
            continue
        for day in unaware_sessions(history, config, change):
            yield "sessions", day, in_words(change, config)
        for (late, _), days in unaware["interests"].items():
            for day in days.take(*in_history(change, config, late=late), change.version):
                yield "interests", day, in_words(change, config)
        for (late, horizon), days in unaware["examples"].items():
            for day in days.take(*in_horizon(change, horizon, late=late), change.version):
                yield "examples", day, f"labels: {in_words(change, config)}"
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
    """Yield the partitions that can change when a landing day is loaded again, with any events up to its date.

    And of the date after it, where it has some of these.
    """
    for table in ("events", "quarantine"):
        yield table, landed, why
    dates = history.dates_of.get(landed, set())
    # The new delivery may have events on dates that the old one did not. Their sessions are restated by the run of
    # the landing day, and a plan for late data names the partitions that this run postpones.
    for day in {landed}.union(*map(session_days, dates)) & history.populated:
        yield "sessions", day, why
    oldest, newest = min(dates, default=landed), max([landed, *dates])
    for day, commit in history.latest["interests"].items():
        begins = oldest if commit.include_late else landed
        if begins <= day < newest + config.history_days * ONE_DAY:
            yield "interests", day, why
    for day, commit in history.latest["examples"].items():
        begins = oldest if commit.include_late else landed
        if day < newest and begins <= end_of_horizon(day, commit):
            yield "examples", day, f"labels: {why}"


# ---- which events can change what ----


def unaware_sessions(history: History, config: Settings, change: Change) -> list[date]:
    """Return the session partitions that events can change and that were computed without them."""
    if change.in_sessions is None:
        return []
    gap = timedelta(minutes=config.session_gap_minutes)
    reached = {day for file in change.files for day in session_days_of(file, gap)}
    basis = history.sessions_basis
    return sorted(day for day in reached & history.populated if day not in basis or basis[day] < change.in_sessions)


def by_rule(commits: Mapping[date, Commit]) -> dict[tuple[bool, int], dict[date, int]]:
    """Return the days by whether they include late events, and by their horizon; each with its version of `events`."""
    rules: dict[tuple[bool, int], dict[date, int]] = defaultdict(dict)
    for day, commit in commits.items():
        rules[commit.include_late, commit.horizon_days][day] = commit.inputs["events"]
    return rules


def in_history(change: Change, config: Settings, *, late: bool) -> tuple[date, date]:
    """Return the first and the last T whose interests include these events, with or without late ones.

    The rule is in jobs/interests.py.
    """
    return counts_from(change, late=late), change.day + (config.history_days - 1) * ONE_DAY


def in_horizon(change: Change, days: int, *, late: bool) -> tuple[date, date]:
    """Return the first and the last T whose labels of so many days include these events, with or without late ones.

    The rule is in jobs/examples.py. Published labels keep their horizon, whatever the setting is now.
    """
    return counts_from(change, late=late) - days * ONE_DAY, change.day - ONE_DAY


def counts_from(change: Change, *, late: bool) -> date:
    """Return the first day at whose end these events count: with late ones that of the events, else that of landing."""
    return change.day if late else max(change.day, change.landed)


def end_of_horizon(day: date, commit: Commit) -> date:
    """Return the last day of the published labels at `day`."""
    return day + commit.horizon_days * ONE_DAY


def too_late(change: Change, config: Settings) -> bool:
    """Return whether events are older than those that the run of their landing day restates."""
    return change.day < change.landed - config.late_days * ONE_DAY


def in_words(change: Change, config: Settings) -> str:
    """Describe the events that are not included yet."""
    older = f", older than MEANDER_LATE_DAYS={config.late_days}" if too_late(change, config) else ""
    what = "were taken back, landed" if change.taken_back else "landed"
    return f"events of {change.day} {what} {change.landed}{older}"
