"""The runs that reprocess the partitions of a plan: as few as possible, in the order in which they have to run."""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Set
from datetime import date, timedelta
from itertools import pairwise
from typing import Any

from lake.backfill.costs import Costs, total
from lake.backfill.history import History
from lake.backfill.partitions import Request, in_history, too_late, unaware_sessions
from lake.backfill.plan import CHUNK_DAYS, DayRun, HistoryRange
from lake.days import ONE_DAY, days_between
from lake.reach import changed_by, partitions_to_stage, session_days
from lake.settings import Settings
from lake.tables import made_in

BEHAVIOR = made_in("behavior_daily")
# Of these, a run makes its own day alone.
OF_ITS_DAY = tuple(table for table in BEHAVIOR if table not in ("quarantine", "events", "sessions"))
# The partitions of a plan, by table and day, each with its reason.
Why = Mapping[str, Mapping[date, str]]


def runs(history: History, config: Settings, why: Why, costs: Costs) -> Iterator[DayRun]:
    """Yield the runs: first those of events, then of the tables computed from events, then of the others."""
    # Dates that have events from landing days that are not delivered again. On other dates, a run may find none.
    stay = (file for file in history.files if file.partition["landed"] not in why["events"])
    lasting = {file.partition["dt"] for file in stay if history.counts(file)}
    populated = lasting if why["events"] else history.populated
    sessions = set(why["sessions"])
    # Of the other runs, none stages a partition of the plan.
    needed = [day for day in history.latest["events"] if day in why["events"] or may_stage(history, day) & sessions]
    staged = {landed: staged_by(history, config, landed, populated) for landed in needed}
    settled = {landed: staged[landed] | settled_by(history, config, landed) for landed in why["events"]}
    redelivered = {
        landed: {"quarantine": {landed}, "events": {landed}, "sessions": sessions & days}
        for landed, days in settled.items()
    }
    # A partition that one of these runs can change, but may postpone, is reprocessed when all of them have ended, even
    # if another run stages it: that run could have come first.
    uncertain = {day for landed, days in settled.items() for day in reached_by(history, landed) - days}
    remaining = sessions - {day for days in settled.values() for day in days - uncertain}
    others, notes = cover_sessions(remaining, staged)
    restated = [day for day in sorted(why["interests"]) if history.latest["interests"][day].include_late]
    for table in OF_ITS_DAY:
        for day in why[table]:
            if table != "interests" or day not in restated:
                (redelivered if day in redelivered else others).setdefault(day, {})[table] = {day}
    for day, covers in sorted(redelivered.items()):
        yield _run(history, costs, "behavior", day, covers)
    for day, covers in sorted(others.items(), key=lambda each: ("events" not in each[1], each[0])):
        yield _run(history, costs, "behavior", day, covers, note=notes.get(day, ""))
    for day in restated:
        yield _run(history, costs, "interests", day, {"interests": {day}}, include_late=True)
    for day in sorted(why["examples"]):
        late = history.latest["examples"][day].include_late
        yield _run(history, costs, "examples", day, {"examples": {day}}, include_late=late)
    for day in sorted(why["predictions"]):
        version = history.latest["predictions"][day].counts.get("model_version")
        yield _run(history, costs, "predictions", day, {"predictions": {day}}, model_version=version)


def _run(history: History, costs: Costs, job: str, day: date, covers: Mapping[str, Set[date]], **more: Any) -> DayRun:
    """Describe one run by the partitions of the plan that it reprocesses."""
    rows = {name: sum(history.rows[name].get(d, 0) for d in days) for name, days in covers.items()}
    seconds = total(costs.seconds(name, n) for name, n in rows.items())
    return DayRun(job, day, tuple(covers), sum(map(len, covers.values())), sum(rows.values()), seconds, **more)


def cover_sessions(
    remaining: set[date], staged: Mapping[date, set[date]]
) -> tuple[dict[date, dict[str, set[date]]], dict[date, str]]:
    """Choose as few runs as possible for partitions of sessions, given those that each landing day's run stages.

    Returns:
        the partitions that each run covers, and notes for days that need one.
    """
    covers: dict[date, dict[str, set[date]]] = {}
    notes = {}
    stages: dict[date, list[date]] = defaultdict(list)
    for landed, days in staged.items():
        for day in days:
            stages[day].append(landed)
    while remaining:
        oldest = min(remaining)
        candidates = {landed: staged[landed] & remaining for landed in stages[oldest]}
        if candidates:
            # The run that covers most of the remaining partitions; of equals the day itself, then the newest.
            best = max(candidates, key=lambda landed: (len(candidates[landed]), landed == oldest, landed))
            covers[best] = {"sessions": candidates[best]}
            remaining = remaining - candidates[best]
        else:
            covers[oldest] = {"quarantine": set(), "events": set(), "sessions": {oldest}}
            notes[oldest] = f"nothing has landed on {oldest}: make an empty landing folder dt={oldest} first"
            remaining = remaining - {oldest}
    return covers, notes


def may_stage(history: History, landed: date) -> set[date]:
    """Return the session partitions that the run of a landing day may stage; it stages no other."""
    changed = (change.day for change in history.changes_by_landing.get(landed, ()))
    return {landed}.union(*map(session_days, changed))


def staged_by(history: History, config: Settings, landed: date, populated: set[date]) -> set[date]:
    """Return the session partitions that the run of a landing day stages, whatever a new delivery contains.

    Args:
        history: of the lake.
        config: how old events may be.
        landed: the landing day.
        populated: dates that certainly have an event or a session when it runs. Another date may have to be staged
            too, but does not add its neighbours.
    """
    gap = timedelta(minutes=config.session_gap_minutes)
    files = (file for change in history.changes_by_landing.get(landed, ()) for file in change.files)
    changed = changed_by(files, gap)

    def staged(dates: set[date]) -> set[date]:
        days, _ = partitions_to_stage(changed, [landed], dates, history.published, config.late_days)
        return set(days)

    uncertain = (changed.keys() & history.populated) - populated
    return staged(populated) | {day for day in uncertain if day in staged(populated | {day})}


def settled_by(history: History, config: Settings, landed: date) -> set[date]:
    """Return the session partitions that the run of a landing day stages if its new delivery changes them.

    Redelivered events may have any time of day. Within MEANDER_LATE_DAYS the run restates every partition that they can
    affect. Partitions that older dates can affect too are left out: the run may postpone them.
    """
    oldest = landed - config.late_days * ONE_DAY
    postponed = {day for dated in history.dates_of.get(landed, set()) if dated < oldest for day in session_days(dated)}
    return reached_by(history, landed) - postponed


def reached_by(history: History, landed: date) -> set[date]:
    """Return the session partitions that events on the dates of a landing day can change, whatever their time."""
    return {day for dated in history.dates_of.get(landed, set()) for day in session_days(dated)} & history.populated


def optional_runs(history: History, config: Settings, request: Request, why: Why, costs: Costs) -> Iterator[DayRun]:
    """Yield runs for the interests that exclude late events, now in sessions, since these arrived after T."""
    if request.reason != "late-data":
        return
    # Events that were taken back before a run included them have changed no interests.
    restated = [
        change
        for change in history.changes
        if request.within(change.landed) and not change.taken_back
        if too_late(change, config) and unaware_sessions(history, config, change)
    ]
    # A date that has events from after it, within the history.
    spans = {(c.day, min(c.landed - ONE_DAY, in_history(c, config, late=True)[1])) for c in restated}
    late = {day for first, last in spans for day in days_between(first, last)}
    for day, commit in sorted(history.latest["interests"].items()):
        if day in late and not commit.include_late and day not in why["interests"]:
            yield _run(history, costs, "interests", day, {"interests": {day}}, include_late=True)


def whole_range(history: History, why: Why, planned: list[DayRun], costs: Costs) -> HistoryRange | None:
    """Return the days of the runs that stage events, if behavior_history takes less time for them than these runs."""
    single = [run for run in planned if run.day in why["events"] and "events" in run.tables]
    days = [run.day for run in single]
    # Only days that are planned: events that are loaded again without need would make other tables look outdated.
    if len(days) < 2 or days != days_between(days[0], days[-1]):
        return None
    first, last = days[0], days[-1]
    states = [day for day in sorted(history.latest["interests"]) if first <= day <= last]
    steps = {(later - earlier).days for earlier, later in pairwise(states)}
    regular = len(steps) == 1 and states[-1] == last
    # Without any interests, the last day alone: behavior_history makes at least that.
    every = steps.pop() if regular else 1 if states else len(days)
    chunks = math.ceil(len(days) / CHUNK_DAYS)
    rows = {name: sum(n for day, n in history.rows[name].items() if first <= day <= last) for name in BEHAVIOR}
    chunk = total(costs.seconds(name, rows[name] // chunks) for name in BEHAVIOR)
    one_by_one = total(run.seconds for run in single)
    if chunk is None or one_by_one is None or chunk * chunks >= one_by_one:
        return None
    return HistoryRange(first, last, every, sum(rows.values()), round(chunk * chunks, 1))
