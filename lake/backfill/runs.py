"""Which runs make the partitions of a plan again: as few as possible, in the order in which they have to be made."""

import math
from collections.abc import Iterator, Mapping, Set
from datetime import date, timedelta
from itertools import pairwise
from typing import Any

from lake.backfill.costs import Costs, total
from lake.backfill.history import History
from lake.backfill.partitions import Asked, in_history, too_late, unaware_sessions
from lake.backfill.plan import CHUNK_DAYS, DayRun, Whole
from lake.landing import days_between
from lake.reach import ONE_DAY, changed_by, partitions_to_stage, session_days
from lake.settings import Settings
from lake.tables import made_in

BEHAVIOR = made_in("behavior_daily")
# Of these, a run makes its own day alone.
OF_ITS_DAY = tuple(table for table in BEHAVIOR if table not in ("quarantine", "events", "sessions"))
# The partitions of a plan, by table and day, each with its reason.
Why = Mapping[str, Mapping[date, str]]


def runs(history: History, config: Settings, why: Why, costs: Costs) -> Iterator[DayRun]:
    """Return the runs: first those that change events, then what is made from events, then what is made of that."""
    # Dates that hold events whatever is delivered again: what stands on any other date may be gone when a run looks.
    lasting = {file.partition["dt"] for file in history.files if file.partition["landed"] not in why["events"]}
    known = lasting if why["events"] else history.known
    staged = {landed: staged_by(history, config, landed, known) for landed in history.made["events"]}
    settled = {landed: staged[landed] | settled_by(history, config, landed) for landed in why["events"]}
    wanted = set(why["sessions"])
    delivering = {
        landed: {"quarantine": {landed}, "events": {landed}, "sessions": wanted & days}
        for landed, days in settled.items()
    }
    # What one of these runs can change but may leave is made when all of them have ended, whoever else has staged it:
    # that could have been before.
    unsure = {day for landed, days in settled.items() for day in reached_by(history, landed) - days}
    left = wanted - {day for days in settled.values() for day in days - unsure}
    making, notes = cover_sessions(left, staged)
    restated = [day for day in sorted(why["interests"]) if history.made["interests"][day].include_late]
    for table in OF_ITS_DAY:
        for day in why[table]:
            if table != "interests" or day not in restated:
                (delivering if day in delivering else making).setdefault(day, {})[table] = {day}
    for day, covers in sorted(delivering.items()):
        yield _run(history, costs, "behavior", day, covers)
    for day, covers in sorted(making.items(), key=lambda each: ("events" not in each[1], each[0])):
        yield _run(history, costs, "behavior", day, covers, note=notes.get(day, ""))
    for day in restated:
        yield _run(history, costs, "interests", day, {"interests": {day}}, include_late=True)
    for day in sorted(why["examples"]):
        late = history.made["examples"][day].include_late
        yield _run(history, costs, "examples", day, {"examples": {day}}, include_late=late)
    for day in sorted(why["predictions"]):
        version = history.made["predictions"][day].counts.get("model_version")
        yield _run(history, costs, "predictions", day, {"predictions": {day}}, model_version=version)


def _run(history: History, costs: Costs, job: str, day: date, covers: Mapping[str, Set[date]], **more: Any) -> DayRun:
    """Describe one run by the partitions of the plan that it makes."""
    rows = {name: sum(history.rows[name].get(d, 0) for d in days) for name, days in covers.items()}
    seconds = total(costs.seconds(name, n) for name, n in rows.items())
    return DayRun(job, day, tuple(covers), sum(map(len, covers.values())), sum(rows.values()), seconds, **more)


def cover_sessions(
    left: set[date], staged: Mapping[date, set[date]]
) -> tuple[dict[date, dict[str, set[date]]], dict[date, str]]:
    """Choose the runs that make partitions of sessions, as few as possible, given what each landing day's run stages.

    Returns:
        what each run covers, and notes for days that need one.
    """
    covers: dict[date, dict[str, set[date]]] = {}
    notes = {}
    while left:
        oldest = min(left)
        able = {landed: days & left for landed, days in staged.items() if oldest in days}
        if able:
            # Whoever makes most of what is left; of equals the day itself, then the newest.
            best = max(able, key=lambda landed: (len(able[landed]), landed == oldest, landed))
            covers[best] = {"sessions": able[best]}
            left = left - able[best]
        else:
            covers[oldest] = {"quarantine": set(), "events": set(), "sessions": {oldest}}
            notes[oldest] = f"nothing has landed on {oldest}: make an empty landing folder dt={oldest} first"
            left = left - {oldest}
    return covers, notes


def staged_by(history: History, config: Settings, landed: date, known: set[date]) -> set[date]:
    """Return the session partitions that a run of a landing day surely makes, whatever it is delivered again with.

    Args:
        history: of the lake.
        config: how old events may be.
        landed: the landing day.
        known: partitions on which something stands for sure when it runs. One that is not among them may have to be
            made too, but draws no neighbour in.
    """
    gap = timedelta(minutes=config.session_gap_minutes)
    files = (file for change in history.changes_by_landing.get(landed, ()) for file in change.files)
    changed = changed_by(files, gap)

    def staged(known: set[date]) -> set[date]:
        days, _ = partitions_to_stage(changed, landed, landed, known, history.published, config.late_days)
        return set(days)

    perhaps = (changed.keys() & history.known) - known
    return staged(known) | {day for day in perhaps if day in staged(known | {day})}


def settled_by(history: History, config: Settings, landed: date) -> set[date]:
    """Return the session partitions that a run of a landing day makes if what it is delivered again with changes them.

    That may lie at any time of its dates. A recent date is restated wherever an event is found to reach; of an older
    one, what is not sure to be pulled along is left.
    """
    oldest = landed - config.late_days * ONE_DAY
    left = {day for dated in history.dates_of.get(landed, set()) if dated < oldest for day in session_days(dated)}
    return reached_by(history, landed) - left


def reached_by(history: History, landed: date) -> set[date]:
    """Return the session partitions that events on the dates of a landing day can change, whatever their time."""
    return {day for dated in history.dates_of.get(landed, set()) for day in session_days(dated)} & history.known


def optional_runs(history: History, config: Settings, asked: Asked, why: Why, costs: Costs) -> Iterator[DayRun]:
    """Return runs for the states that do not know restated late events, since these arrived after T."""
    if asked.reason != "late-data":
        return
    # What was taken back before it was known has changed none of them.
    restated = [
        change
        for change in history.changes
        if asked.within(change.landed) and not change.taken_back
        if too_late(change, config) and unaware_sessions(history, config, change)
    ]
    for day, made in sorted(history.made["interests"].items()):
        late = any(c.day <= day < c.landed and in_history(c, day, config, late=True) for c in restated)
        if late and not made.include_late and day not in why["interests"]:
            yield _run(history, costs, "interests", day, {"interests": {day}}, include_late=True)


def whole_range(history: History, why: Why, planned: list[DayRun], costs: Costs) -> Whole | None:
    """Return the range of the runs that make events, if its few jobs take less time than they do."""
    single = [run for run in planned if run.day in why["events"] and "events" in run.tables]
    days = [run.day for run in single]
    # Only days that are planned: events that are made again without need would make others look old.
    if len(days) < 2 or days != days_between(days[0], days[-1]):
        return None
    first, last = days[0], days[-1]
    states = [day for day in sorted(history.made["interests"]) if first <= day <= last]
    steps = {(later - earlier).days for earlier, later in pairwise(states)}
    regular = len(steps) == 1 and states[-1] == last
    # Without any, the last day alone: behavior_history makes at least that.
    every = steps.pop() if regular else 1 if states else len(days)
    chunks = math.ceil(len(days) / CHUNK_DAYS)
    rows = {name: sum(n for day, n in history.rows[name].items() if first <= day <= last) for name in BEHAVIOR}
    chunk = total(costs.seconds(name, rows[name] // chunks) for name in BEHAVIOR)
    one_by_one = total(run.seconds for run in single)
    if chunk is None or one_by_one is None or chunk * chunks >= one_by_one:
        return None
    return Whole(first, last, every, sum(rows.values()), round(chunk * chunks, 1))
