"""The planner: its runs make the tables right, and whatever it leaves out of them is right already.

Most of it on histories in memory, whose runs follow the real rules (tests/lake/daily_runs.py); one test says that the
logs of a real lake tell the same history.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lake.backfill.costs import estimate, total
from lake.backfill.history import Commit, History
from lake.backfill.partitions import Request
from lake.backfill.plan import CODE, BackfillPlan, HistoryRange
from lake.backfill.planner import plan_backfill, plan_of
from lake.errors import SettingsInvalid, TableMissing
from lake.schemas import TABLES
from lake.settings import Settings, settings
from lake.table import DataFile
from tests.lake.daily_runs import MODEL_VERSION, DailyRuns, RunsInMemory, Shop
from tests.lake.landed import load
from tests.lake.stagings import JAN_1
from tests.session_oracle import ONE_DAY, Landed
from tests.tables import groups_of, of_dag

JAN = {n: JAN_1 + (n - 1) * ONE_DAY for n in range(1, 32)}
DAYS = [JAN[n] for n in range(1, 8)]
USERS = ("ann", "bob")
# What a run of behavior_daily makes.
WHOLE_DAY = of_dag("behavior_daily")
# Around midnight, where sessions reach into other partitions, and far from it.
MINUTES = (0, 10, 29, 300, 700, 1_100, 1_412, 1_430, 1_439)
# Spans of a few days, so that a week has something beyond each of them.
SPANS = {"session_gap_minutes": 30, "late_days": 1, "history_days": 4, "lookback_days": 4, "horizon_days": 2}
CONFIG = Settings(**SPANS)


def event(name: str, user: str, day: date, minute: int, delay: int) -> Landed:
    when = datetime.combine(day, time()) + timedelta(minutes=minute)
    return Landed(user, when, name, min(day + delay * ONE_DAY, DAYS[-1]))


def landing_of(log: Iterable[Landed]) -> dict[date, list[Landed]]:
    """Sort a log by the day on which it lands, of a week."""
    log = list(log)
    return {day: [e for e in log if e.landed == day] for day in DAYS}


def daily_visits() -> dict[date, list[Landed]]:
    """Ann comes at noon of each day of a week, and nothing is late."""
    return landing_of(event(f"e{day:%d}", "ann", day, 700, 0) for day in DAYS)


def in_memory(landing: dict[date, list[Landed]]) -> RunsInMemory:
    return RunsInMemory(landing, CONFIG)


def with_everything(shop: Shop, order: Iterable[date] = DAYS, *, late: Iterable[date] = ()) -> Shop:
    """Run all days that have landed, then make examples and predictions; some states and labels with `late` events."""
    for day in order:
        if day in shop.landing:
            shop.day(day)
    for day in sorted(set(late) & shop.states.keys()):
        shop.interests(day, include_late=True)
    for day in shop.states:
        if day in DAYS[:-2]:
            shop.examples(day, include_late=day in late)
        if day in DAYS[3:]:
            shop.predictions(day)
    return shop


def planned(found: BackfillPlan) -> dict[str, list[date]]:
    """Return the days that a plan has for each table, of those that it has any for."""
    return {table: days for table in TABLES for days in [[e.day for e in found.redo if e.table == table]] if days}


# ---- logs, and days that are delivered again ----


moments = st.tuples(st.sampled_from(USERS), st.sampled_from(MINUTES))
some_days = st.sets(st.sampled_from(DAYS), max_size=3)
two_days = st.tuples(st.sampled_from(DAYS), st.sampled_from(DAYS)).map(sorted)


@st.composite
def logs(draw: st.DrawFn, prefix: str = "e") -> dict[date, list[Landed]]:
    """Make what lands on each day of a week, but for some on which nothing does; some of it late, or a day early."""
    days = st.tuples(moments, st.sampled_from(DAYS), st.sampled_from((0, 0, 1, 3, 5, -1)))
    drawn = draw(st.lists(days, min_size=6, max_size=20))
    log = [event(f"{prefix}{n:02}", user, day, minute, late) for n, ((user, minute), day, late) in enumerate(drawn)]
    never = draw(st.sets(st.sampled_from(DAYS[:-1]), max_size=3))
    return {day: events for day, events in landing_of(log).items() if day not in never}


@st.composite
def corrections(
    draw: st.DrawFn, landing: Mapping[date, list[Landed]], days: Iterable[date]
) -> dict[date, list[Landed]]:
    """Make what days are delivered again with: some of what they held, and new events on the dates that they held."""
    again = {}
    for day in days:
        kept = [e for e in landing[day] if draw(st.booleans())]
        dates = sorted({e.event_time.date() for e in landing[day]})
        new = draw(st.lists(st.tuples(moments, st.sampled_from(dates)), max_size=3)) if dates else []
        again[day] = kept + [
            replace(event(f"again{day:%d}{n}", user, dated, minute, 0), landed=day)
            for n, ((user, minute), dated) in enumerate(new)
        ]
    return again


@st.composite
def corrected_logs(draw: st.DrawFn) -> tuple[dict[date, list[Landed]], dict[date, list[Landed]]]:
    """Make what lands on each day of a week, and what some days side by side are delivered again with."""
    landing = draw(logs())
    first, last = sorted(draw(st.tuples(*[st.sampled_from(sorted(landing))] * 2)))
    return landing, draw(corrections(landing, [day for day in landing if first <= day <= last]))


# ---- late data ----


@given(corrected=corrected_logs(), order=st.permutations(DAYS), late=some_days)
def test_the_runs_for_late_data_make_the_tables_that_making_everything_would(corrected, order, late):
    # In any order, so that late events and whole days come after what should know them.
    landing, again = corrected
    shop = with_everything(in_memory(landing), order, late=late)
    for day in again:
        shop.landing[day] = again[day]
        shop.events(day)
        shop.sessions(day)
    shop.execute(shop.plan("late-data"))
    assert shop.found() == shop.expected()
    assert shop.plan("late-data").redo == []


@given(landing=logs(), order=st.permutations(DAYS), late=some_days)
def test_whatever_is_planned_for_late_data_would_be_wrong_without_it(landing, order, late):
    shop = with_everything(in_memory(landing), order, late=late)
    wrong, redo = shop.wrong(), planned(shop.plan("late-data"))
    # Rows of interests and predictions name their events, so that they differ wherever one is missing.
    assert set(redo.get("interests", ())) == wrong["interests"]
    assert set(redo.get("predictions", ())) == wrong["predictions"]
    # Of a day without users, labels have no row that could show it.
    users = {day for day, _ in shop.expected()["examples"]}
    assert set(redo.get("examples", ())) & users == wrong["examples"]
    # Whether an event that can change sessions does so, only the job can tell; see below.
    assert set(redo.get("sessions", ())) >= wrong["sessions"]
    assert not {"events", "quarantine"} & set(redo)


@given(
    lates=st.lists(
        st.tuples(st.sampled_from(DAYS[1:4]), st.sampled_from((5, 20, 480, 900, 1_415, 1_435))), min_size=1, max_size=3
    )
)
def test_every_partition_of_sessions_that_is_planned_for_late_data_would_be_wrong_without_it(lates):
    # Around each late event, its user is awake for two nights: joined by it, these visits become other sessions in
    # every partition that an event of that time can reach. Another user did nothing else.
    gap, log = timedelta(minutes=30), []
    for n, (day, minute) in enumerate(lates):
        late = event(f"late{n}", f"awake{n}", day, minute, 6)
        log += [late, event(f"alone{n}", f"alone{n}", day, minute, 6)]
        for step in (-1, *range(1, 49 * 2)):
            when = late.event_time + step * gap
            if when.date() <= DAYS[-1]:
                log.append(Landed(late.user_id, when, f"e{n}-{step:+04}", when.date()))
    shop = in_memory(landing_of(log))
    for day in DAYS:
        shop.day(day)
    found = shop.plan("late-data")
    assert set(planned(found).get("sessions", ())) == shop.wrong()["sessions"]
    assert {entry.table for entry in found.redo} <= {"sessions"}, "interests are what was known at their date"
    # And so are the runs: without any one of them, something stays wrong.
    for left_out in range(len(found.runs)):
        other = shop.copied()
        other.execute(found, without=left_out)
        assert other.wrong()["sessions"]
    shop.execute(found)
    assert shop.found() == shop.expected()


@given(corrected=corrected_logs(), order=st.permutations(DAYS), late=some_days)
def test_a_plan_for_all_landing_days_is_the_plans_for_each_of_them_together(corrected, order, late):
    landing, again = corrected
    shop = with_everything(in_memory(landing), order, late=late)
    for day in again:
        shop.landing[day] = again[day]
        shop.day(day)
    each = [shop.plan("late-data", day, day) for day in DAYS]
    together = {(entry.table, entry.day) for entry in shop.plan("late-data").redo}
    assert {(entry.table, entry.day) for found in each for entry in found.redo} == together
    assert shop.plan("late-data", DAYS[0], DAYS[-1]).redo == shop.plan("late-data").redo


@given(corrected=corrected_logs(), late=some_days)
def test_what_is_offered_besides_changes_states_that_were_right_and_then_all_know_the_late_events(corrected, late):
    landing, again = corrected
    shop = with_everything(in_memory(landing), late=late)
    for day in again:
        shop.landing[day] = again[day]
        shop.events(day)
        shop.sessions(day)
    found = shop.plan("late-data")
    shop.execute(found)
    before = shop.read("interests")
    shop.execute(replace(found, runs=found.optional))
    changed = {day for day, _ in set(before) ^ set(shop.read("interests"))}
    assert changed == {run.day for run in found.optional}
    shop.execute(shop.plan("late-data"))
    assert shop.found() == shop.expected()


def test_the_plan_says_why_and_with_which_runs_and_what_stays():
    # Five days late, a day more than the lookback; ann's other visits are in time.
    landing = daily_visits()
    landing[DAYS[5]].append(event("late", "ann", DAYS[0], 700, 5))
    shop = with_everything(in_memory(landing))
    found = shop.plan("late-data")
    why = "events of 2025-01-01 landed 2025-01-06, older than MEANDER_LATE_DAYS=1"
    assert [(entry.table, entry.day, entry.rows, entry.why) for entry in found.redo] == [
        ("sessions", DAYS[0], 1, why),
        ("sessions", DAYS[1], 1, why),
    ]
    # One run stages both, since its landing can have changed both.
    assert [(run.job, run.day, run.tables, run.covers, run.rows) for run in found.runs] == [
        ("behavior", DAYS[0], ("sessions",), 2, 2)
    ]
    # In the history of four days, the states before its arrival do not know it, and are right.
    assert [(run.job, run.day, run.include_late) for run in found.optional] == [
        ("interests", day, True) for day in DAYS[:4]
    ]
    kept = {entry.table: (entry.partitions, entry.rows) for entry in found.untouched}
    expected = {
        "events": (7, 8),  # by landing day
        "quarantine": (0, 0),
        "sessions": (5, 5),
        "interests": (7, 7),
        "examples": (5, 5),
        "predictions": (4, 4),
    }
    assert {table: kept[table] for table in expected} == expected
    # Landing days that were not asked for are not looked at.
    assert shop.plan("late-data", DAYS[0], DAYS[4]).redo == []
    assert shop.plan("late-data", DAYS[6]).redo == []
    assert shop.plan("late-data", DAYS[5], DAYS[5]).redo == found.redo
    shop.execute(found)
    assert shop.plan("late-data").redo == []


def test_a_state_and_labels_that_were_made_with_late_events_are_made_so_again():
    shop = with_everything(in_memory(daily_visits()), late=[DAYS[1]])
    shop.landing[DAYS[6]] = [event("late", "bob", DAYS[1], 700, 5), event("later", "bob", DAYS[2], 700, 4)]
    shop.events(DAYS[6])
    found = shop.plan("late-data")
    assert [(run.job, run.day, run.include_late) for run in found.runs if run.job != "behavior"] == [
        ("interests", DAYS[1], True),  # the first event is late for its own day, and counts all the same
        ("examples", DAYS[1], True),  # so does the second among its labels
        # The seventh has been delivered again without ann's visit, which was a label of the fifth.
        ("examples", DAYS[4], False),
        ("predictions", DAYS[6], False),
    ]
    by_the_dag = [run.day for run in found.runs if run.job == "behavior" and "interests" in run.tables]
    assert DAYS[1] not in by_the_dag, "which would leave late events out"
    assert [run.day for run in found.optional] == DAYS[2:6]
    shop.interests(DAYS[1], include_late=True)
    assert [run.day for run in shop.plan("late-data").optional] == DAYS[2:6], "the second day is restated already"


def test_of_two_runs_that_make_the_same_the_day_itself_is_chosen():
    # The second landing holds only an event of the first day, so that its run would stage the same partitions.
    log = [event("a", "ann", DAYS[0], 700, 0), event("b", "bob", DAYS[0], 700, 1), event("c", "cem", DAYS[0], 700, 5)]
    shop = in_memory(landing_of(log))
    for day in DAYS:
        shop.day(day)
    assert [run.day for run in shop.plan("late-data").runs] == [DAYS[0]]


def test_of_runs_for_a_day_that_has_none_the_one_that_makes_most_is_chosen_then_the_newest():
    # Nothing has landed on the first two days. An event of the first came with the third and the fourth, so that both
    # of their runs stage the first two days; that of the third stages itself besides.
    log = [event("a", "ann", DAYS[0], 700, 2), event("b", "bob", DAYS[1], 700, 1), event("c", "ann", DAYS[2], 700, 0)]
    log += [event("d", "bob", DAYS[0], 700, 3)]

    def runs(*late: Landed) -> list[date]:
        shop = RunsInMemory(landing_of([*log, *late]), Settings(**SPANS | {"late_days": 3}))
        for day in (DAYS[2], DAYS[3], DAYS[6]):
            shop.day(day)
        return [run.day for run in shop.plan("late-data").runs]

    late = event("late", "ann", DAYS[0], 710, 6)
    assert runs(late) == [DAYS[3]]
    # A second one changes the third day too.
    assert runs(late, event("later", "ann", DAYS[1], 710, 5)) == [DAYS[2]]


def test_what_was_made_from_interests_is_made_again_when_they_were():
    shop = with_everything(in_memory(daily_visits()))
    shop.interests(DAYS[4])
    assert [(entry.table, entry.day, entry.why) for entry in shop.plan("late-data").redo] == [
        (table, DAYS[4], "its interests were published again since") for table in ("examples", "predictions")
    ]


def test_a_state_does_not_know_what_its_own_day_was_delivered_again_with():
    shop = with_everything(in_memory(daily_visits()))
    shop.landing[DAYS[4]] = []
    shop.events(DAYS[4])
    shop.sessions(DAYS[4])
    found = shop.plan("late-data")
    # Its own state, those that look back to it, what was made of these, and the labels that it belongs to.
    expected = {"interests": DAYS[4:7], "predictions": DAYS[4:7], "examples": DAYS[2:5], "events": [], "sessions": []}
    again = planned(found)
    assert {table: again.get(table, []) for table in expected} == expected
    assert {entry.why for entry in found.redo} == {
        "events of 2025-01-05 were taken back, landed 2025-01-05",
        "labels: events of 2025-01-05 were taken back, landed 2025-01-05",
        "its interests are reprocessed",
    }


def test_sessions_of_a_day_whose_events_were_all_taken_back_are_planned():
    shop = with_everything(in_memory(daily_visits()))
    shop.landing[DAYS[4]] = []
    shop.events(DAYS[4])
    assert planned(shop.plan("late-data"))["sessions"] == DAYS[4:6], "its own, and the next day, which it can change"


def test_no_state_is_offered_for_late_events_that_were_taken_back():
    landing = daily_visits()
    landing[DAYS[5]].append(event("late", "ann", DAYS[0], 700, 5))
    shop = with_everything(in_memory(landing))
    assert shop.plan("late-data").optional
    shop.landing[DAYS[5]] = shop.landing[DAYS[5]][:-1]
    shop.day(DAYS[5])
    found = shop.plan("late-data")
    assert planned(found)["sessions"] == DAYS[:2], "whether they know them, the log does not tell"
    assert found.optional == []


def test_sessions_of_a_day_on_which_nothing_has_landed_need_its_folder_first():
    # The log of two days arrives with the second; later something of the first, for which no run of that day stands.
    shop = in_memory(landing_of([]))
    shop.landing[DAYS[1]] = [event("a", "ann", DAYS[0], 700, 1), event("b", "ann", DAYS[1], 700, 0)]
    shop.landing[DAYS[4]] = [event("late", "ann", DAYS[0], 710, 4)]
    for day in (DAYS[1], DAYS[4]):
        shop.day(day)
    found = shop.plan("late-data")
    assert [(run.day, run.tables) for run in found.runs] == [(DAYS[1], ("sessions",))], "its landing reaches the first"
    shop.execute(found)
    assert shop.found()["sessions"] == shop.expected()["sessions"]
    # From the third day, nothing reaches it.
    shop = in_memory(landing_of([]))
    shop.landing[DAYS[3]] = [event("a", "ann", DAYS[0], 700, 3)]
    shop.landing[DAYS[5]] = [event("late", "ann", DAYS[0], 710, 5)]
    for day in (DAYS[3], DAYS[5]):
        shop.day(day)
    found = shop.plan("late-data")
    (run,) = found.runs
    assert (run.day, run.tables) == (DAYS[0], ("quarantine", "events", "sessions"))
    assert run.note == "nothing has landed on 2025-01-01: make an empty landing folder dt=2025-01-01 first"
    shop.execute(found)
    assert shop.found()["sessions"] == shop.expected()["sessions"]


# ---- a landing that is another one than what was read ----


@given(corrected=corrected_logs(), late=some_days)
def test_days_whose_landing_has_changed_are_late_data_that_is_loaded_again(corrected, late):
    landing, again = corrected
    shop = with_everything(in_memory(landing), late=late)
    shop.execute(shop.plan("late-data"))
    shop.landing |= again
    changed = dict.fromkeys(again, "the landing has 2 files, 1 were read")
    found = plan_of(replace(shop.history(), landing=changed), shop.config, Request("late-data"))
    assert {entry.day for entry in found.redo if entry.table == "events"} == set(again)
    shop.execute(found)
    shop.execute(shop.plan("late-data"))
    assert shop.found() == shop.expected()


def test_a_day_whose_landing_has_changed_is_planned_like_a_bad_day_and_says_why():
    shop = with_everything(in_memory(daily_visits()))
    changed = {DAYS[2]: "the landing has 2 files, 1 were read", DAYS[6]: "and this one is not asked for"}
    history = replace(shop.history(), landing=changed)
    found = plan_of(history, shop.config, Request("late-data", DAYS[0], DAYS[3]))
    assert planned(found) == planned(shop.plan("bad-day", DAYS[2], DAYS[2]))
    why = "2025-01-03: the landing has 2 files, 1 were read"
    assert {entry.why for entry in found.redo if entry.table in ("events", "sessions")} == {why}
    # Another reason has its own days.
    assert planned(plan_of(history, shop.config, Request("bad-day", DAYS[1], DAYS[1]))) == planned(
        shop.plan("bad-day", DAYS[1], DAYS[1])
    )


def test_files_that_came_after_the_run_are_planned_and_files_that_are_only_gone_are_not(land):
    for day in DAYS[:4]:
        land(day, ["{}"], "a")
        land(day, ["{}"], "b")
    load("r", *DAYS[:4])
    land(DAYS[0], ["{}"], "c")
    land(DAYS[1], ["{}", "{}"], "a")
    land(DAYS[2], ["{}"], "a").unlink()
    found = plan_backfill(settings(), "late-data")
    assert {(entry.day, entry.why) for entry in found.redo if entry.table == "events"} == {
        (DAYS[0], "2025-01-01: files in the landing: 3, read: 2; came later: 1 (c)"),
        (DAYS[1], "2025-01-02: files in the landing: 2, read: 2; changed: 1 (a)"),
    }
    assert [(run.day, run.tables[:2]) for run in found.runs] == [(day, ("quarantine", "events")) for day in DAYS[:2]]
    load("again", *DAYS[:2])
    assert [entry for entry in plan_backfill(settings(), "late-data").redo if entry.table == "events"] == []


# ---- a bad day ----


@given(corrected=corrected_logs(), late=some_days)
def test_the_runs_for_bad_days_make_everything_right_if_what_they_hold_is_of_the_dates_that_they_held(corrected, late):
    landing, again = corrected
    shop = with_everything(in_memory(landing), late=late)
    shop.execute(shop.plan("late-data"))
    found = shop.plan("bad-day", min(again), max(again))
    shop.landing |= again
    shop.execute(found)
    assert shop.found() == shop.expected()
    assert shop.plan("late-data").redo == []


@given(landing=logs(), again=logs("again"), bad=st.sampled_from(DAYS), late=some_days)
def test_what_a_bad_day_then_holds_of_other_dates_is_late_data(landing, again, bad, late):
    assume(bad in landing)
    shop = with_everything(in_memory(landing), late=late)
    shop.execute(shop.plan("late-data"))
    found = shop.plan("bad-day", bad, bad)
    shop.landing[bad] = again.get(bad, [])
    shop.execute(found)
    shop.execute(shop.plan("late-data"))
    assert shop.found() == shop.expected()


def test_older_sessions_than_the_run_of_a_bad_day_restates_are_made_by_other_runs():
    # The bad day held an event of the first one, four days late. Delivered again without it, its own run leaves those
    # sessions to others; only if a new event came just after the midnight before, it would take them along.
    log = [event(f"b{day:%d}", "bob", day, 700, 0) for day in DAYS[:5]]
    log += [event("a", "ann", DAYS[0], 300, 0), event("late", "ann", DAYS[0], 310, 4)]
    shop = with_everything(in_memory(landing_of(log)))
    shop.execute(shop.plan("late-data"))
    found = shop.plan("bad-day", DAYS[4], DAYS[4])
    assert [(run.day, run.tables) for run in found.runs if "sessions" in run.tables] == [
        (DAYS[4], WHOLE_DAY),
        (DAYS[0], ("sessions",)),
        (DAYS[2], ("sessions",)),
    ]
    shop.landing[DAYS[4]] = [event("again", "bob", DAYS[4], 710, 0)]
    shop.execute(found)
    assert shop.found() == shop.expected()


def test_the_run_of_an_empty_landing_day_can_make_the_sessions_of_its_date():
    # Nothing landed on the third day, and its one event came when its date was too old to be restated.
    log = [event(f"b{day:%d}", "bob", day, 700, 0) for day in DAYS if day != DAYS[2]]
    shop = with_everything(in_memory(landing_of([*log, event("late", "ann", DAYS[2], 700, 4)])))
    runs = [run for run in shop.plan("late-data").runs if DAYS[2] == run.day]
    assert [(run.tables, run.note) for run in runs] == [(("sessions",), "")]


def test_what_the_run_of_one_bad_day_leaves_is_made_after_all_of_them_though_another_has_made_it_before():
    # The fifth day held an event of the first. The run of the first makes these sessions, before the fifth is delivered
    # again, whose own run leaves them.
    log = [event(f"b{day:%d}", "bob", day, 700, 0) for day in DAYS[:5]] + [event("late", "ann", DAYS[0], 310, 4)]
    shop = with_everything(in_memory(landing_of(log)))
    shop.execute(shop.plan("late-data"))
    found = shop.plan("bad-day", DAYS[0], DAYS[4])
    assert [(run.day, run.tables, run.covers) for run in found.runs if "sessions" in run.tables][-3:] == [
        (DAYS[4], WHOLE_DAY, len(WHOLE_DAY) + 1),
        (DAYS[0], ("sessions",), 2),
        (DAYS[2], ("sessions",), 1),
    ]
    shop.landing[DAYS[4]] = [event("again", "bob", DAYS[0], 320, 4)]
    shop.execute(found)
    assert shop.found() == shop.expected()


def test_sessions_that_a_bad_day_draws_in_by_a_neighbour_that_may_be_gone_are_made_by_another_run():
    # An event of the first day landed on the fourth. By the visit at midnight, which can change the third day, the run
    # of the fourth draws in the days before. If nothing is left of the third, it leaves them.
    log = [event(f"e{day:%d}", "ann", day, 0 if day == DAYS[3] else 700, 0) for day in DAYS[:4]]
    shop = with_everything(in_memory(landing_of([*log, event("late", "ann", DAYS[0], 710, 3)])))
    assert shop.plan("late-data").redo == []
    found = shop.plan("bad-day", DAYS[2], DAYS[3])
    assert [(run.day, run.tables, run.covers) for run in found.runs if run.tables == ("sessions",)] == [
        (DAYS[0], ("sessions",), 2)
    ]
    shop.landing |= {DAYS[2]: [], DAYS[3]: []}
    shop.execute(found)
    assert shop.found() == shop.expected()


def test_a_bad_day_is_followed_to_the_predictions_that_were_made_from_it():
    shop = with_everything(in_memory(daily_visits()))
    found = shop.plan("bad-day", DAYS[2], DAYS[2])
    expected = {
        "events": [DAYS[2]],
        "quarantine": [DAYS[2]],
        "sessions": DAYS[1:5],  # its neighbours, whatever time its new events have
        "interests": DAYS[2:6],  # as far as the history of four days reaches
        "examples": DAYS[0:5],  # labels of the two days before, and the states above that have examples
        "predictions": DAYS[3:6],
    }
    again = planned(found)
    assert {table: again[table] for table in expected} == expected
    assert [(run.job, run.day, run.tables) for run in found.runs[:4]] == [
        ("behavior", DAYS[2], WHOLE_DAY),
        *(("behavior", day, ("interests",)) for day in DAYS[3:6]),
    ]
    # Scored again by the version that had scored them, whoever is champion by now.
    assert {run.model_version for run in found.runs if run.job == "predictions"} == {MODEL_VERSION}


def test_a_folder_with_events_of_the_date_after_changes_what_counts_these():
    log = [event(f"e{day:%d}", "ann", day, 700, 0) for day in DAYS] + [event("early", "bob", DAYS[1], 5, -1)]
    shop = with_everything(in_memory(landing_of(log)))
    found = planned(shop.plan("bad-day", DAYS[0], DAYS[0]))
    # The early event is in the history of four days of the states of 2 to 5 January, and a label on the 1st.
    assert found["interests"] == DAYS[:5]
    assert found["examples"] == DAYS[:5]
    assert planned(in_memory(landing_of(log)).plan("late-data")) == {}


def test_early_events_are_planned_for_sessions_once_their_date_has_landed():
    log = [event("a", "ann", DAYS[0], 1_430, 0), event("early", "ann", DAYS[1], 5, -1)]
    shop = in_memory(landing_of([*log, event("b", "bob", DAYS[1], 700, 0)]))
    shop.day(DAYS[0])
    assert shop.plan("late-data").redo == [], "it waits for the folder of its date"
    assert shop.history().populated == {DAYS[0]}
    shop.events(DAYS[1])
    plan = shop.plan("late-data")
    assert planned(plan) == {"sessions": DAYS[:2]}
    assert len(plan.runs) == 1, "either day's run stages both"
    shop.execute(plan)
    assert shop.wrong()["sessions"] == set()


def test_a_day_that_was_never_loaded_is_not_loaded_again():
    shop = in_memory(daily_visits())
    shop.day(DAYS[0])
    assert shop.plan("bad-day", DAYS[4], DAYS[5]).redo == []


# ---- code that changed ----


@given(landing=logs(), order=st.permutations(DAYS), late=some_days, table=st.sampled_from(CODE), days=two_days)
def test_after_changed_code_nothing_is_left_that_was_made_from_what_it_had_made(landing, order, late, table, days):
    shop = with_everything(in_memory(landing), order, late=late)
    shop.execute(shop.plan("late-data"))
    shop.execute(shop.plan("code", *days, table))
    assert shop.plan("late-data").redo == []


@pytest.mark.parametrize(
    ("table", "makes"),
    [
        ("sessions", {"sessions": DAYS[2:4]}),
        ("interests", {"interests": DAYS[2:4], "examples": DAYS[2:4], "predictions": DAYS[3:4]}),
        ("examples", {"examples": DAYS[2:4]}),
        ("predictions", {"predictions": DAYS[3:4]}),
    ],
)
def test_what_changed_code_has_made_is_planned_with_what_was_made_from_it(table, makes):
    shop = with_everything(in_memory(daily_visits()))
    found = shop.plan("code", DAYS[2], DAYS[3], table)
    assert planned(found) == makes
    why = {entry.why for entry in found.redo if entry.table == table}
    assert why == {f"the code behind {table} changed"}


def test_sessions_of_changed_code_are_those_that_there_are_whatever_day_has_landed():
    # The event of the third landed on the fifth; its session and one of the fourth were staged by that run.
    history = past((3, 5))
    history = replace(
        history,
        rows={**history.rows, "sessions": {JAN[3]: 1, JAN[4]: 1}},
        commits={**history.commits, "sessions": [Commit(1, (JAN[5],))]},
    )
    assert days_of(history, "sessions", "code", JAN[1], JAN[6], "sessions") == [3, 4]


def test_events_of_changed_code_are_planned_as_if_they_were_delivered_again():
    shop = with_everything(in_memory(daily_visits()))
    bad, code = shop.plan("bad-day", DAYS[1], DAYS[2]), shop.plan("code", DAYS[1], DAYS[2])
    assert [(e.table, e.day) for e in code.redo] == [(e.table, e.day) for e in bad.redo]
    assert code.runs == bad.runs
    assert code.redo[0].why == "the code behind events changed, landed 2025-01-02"


# ---- the last day that counts ----


def past(
    *files: tuple[int, int],
    states: Iterable[int] = (),
    labelled: Iterable[int] = (),
    sessions: Mapping[int, int] | None = None,
    include_late: bool = False,
    horizon_days: int = 3,
    known: int = 1,
) -> History:
    """Write a history down, in days of January.

    Args:
        files: (date, landing day) of events at noon, which came with version 2 of `events`.
        states: dates of interests, each from version `known` of `events`.
        labelled: dates of examples, the same.
        sessions: the version of `events` that partitions know.
        include_late: whether states and labels were made with late events.
        horizon_days: of the labels.
        known: 1, the version before, or 2.
    """
    noon = time(12, tzinfo=UTC)
    as_made: dict[str, Any] = {"include_late": include_late, "horizon_days": horizon_days}
    found = [
        DataFile("", 1, 1, {"dt": JAN[day], "landed": JAN[landed]}, {"event_time": (at, at)})
        for day, landed in files
        for at in [datetime.combine(JAN[day], noon)]
    ]
    commits = {name: [] for name in TABLES} | {
        "events": [Commit(2, tuple(sorted({JAN[landed] for _, landed in files})), rows=len(files))],
        "interests": [Commit(1, (JAN[n],), {"events": known}, as_made) for n in states],
        "examples": [Commit(1, (JAN[n],), {"events": known, "interests": 1}, as_made) for n in labelled],
    }
    rows = {name: {day: 1 for commit in made for day in commit.owns} for name, made in commits.items()}
    return History(commits, rows, found, {}, {JAN[n]: version for n, version in (sessions or {}).items()})


def days_of(history: History, table: str, *asked: Any) -> list[int]:
    """Return the days of January for which a table is planned."""
    return [entry.day.day for entry in plan_of(history, CONFIG, Request(*asked)).redo if entry.table == table]


@pytest.mark.parametrize(
    ("landed", "include_late", "states"),
    [
        (3, False, [3, 4, 5, 6]),  # the last has it in the oldest of its four days
        (5, False, [5, 6]),  # before, it was not known
        (6, False, [6]),
        (7, False, []),  # now its date has left the history
        (7, True, [3, 4, 5, 6]),
    ],
)
def test_states_whose_history_reaches_to_an_event_are_planned_from_the_day_on_that_it_landed(
    landed, include_late, states
):
    every_day = {"states": range(1, 13), "include_late": include_late}
    assert days_of(past((3, landed), **every_day), "interests", "late-data") == states
    assert days_of(past((3, landed), **every_day, known=2), "interests", "late-data") == [], "it is known"


@pytest.mark.parametrize(
    ("landed", "include_late", "labelled"),
    [
        (10, False, [7, 8, 9]),  # the first has it on the last day of its horizon, and it landed on that day
        (11, False, [8, 9]),
        (12, False, [9]),  # landed on the last day of the horizon
        (13, False, []),
        (13, True, [7, 8, 9]),
    ],
)
def test_labels_in_whose_horizon_an_event_lies_and_has_landed_are_planned(landed, include_late, labelled):
    # Made with a horizon of three days; now it would be two.
    every_day = {"labelled": range(1, 13), "include_late": include_late}
    assert days_of(past((10, landed), **every_day), "examples", "late-data") == labelled
    assert days_of(past((10, landed), **every_day, known=2), "examples", "late-data") == [], "it is known"


@pytest.mark.parametrize(
    ("include_late", "states", "labelled"),
    [
        # What was known on the tenth, and later; labels whose horizon has the tenth.
        (False, [10, 11, 12, 13], [7, 8, 9]),
        # Whatever counts the event of the seventh, which landed on the tenth.
        (True, [7, 8, 9, 10, 11, 12, 13], [4, 5, 6, 7, 8, 9]),
    ],
)
def test_a_landing_day_that_comes_again_changes_states_and_labels_that_count_its_events(include_late, states, labelled):
    history = past((7, 10), (10, 10), states=range(1, 16), include_late=include_late)
    assert days_of(history, "interests", "bad-day", JAN[10], JAN[10]) == states
    history = past((7, 10), (10, 10), labelled=range(1, 16), include_late=include_late)
    assert days_of(history, "examples", "bad-day", JAN[10], JAN[10]) == labelled


def test_sessions_that_know_an_older_version_than_the_one_of_an_event_are_planned():
    # An event at noon can change its day and the next.
    history = past((3, 3), (4, 4), (9, 9), sessions={3: 1, 4: 2})
    assert days_of(history, "sessions", "late-data") == [3, 9], "nobody has made those of the ninth"
    assert days_of(history, "sessions", "late-data", JAN[4]) == [9]
    assert days_of(history, "sessions", "late-data", None, JAN[8]) == [3]


@pytest.mark.parametrize(
    ("landed", "older", "optional"),
    [
        (4, "", []),
        # The states of these days do not know it, which is right.
        (5, ", older than MEANDER_LATE_DAYS=1", [3, 4]),
    ],
)
def test_events_are_too_late_when_they_land_more_than_the_days_that_are_set_after_their_date(landed, older, optional):
    found = plan_of(past((3, landed), states=range(1, 13)), CONFIG, Request("late-data"))
    assert {e.why for e in found.redo if e.table == "sessions"} == {f"events of {JAN[3]} landed {JAN[landed]}{older}"}
    assert [run.day.day for run in found.optional] == optional


@pytest.mark.parametrize(
    ("delay", "sessions", "offered"),
    [
        (1, [], []),  # as late as MEANDER_LATE_DAYS allows
        (2, [], []),  # the second day, which it can change, lies beside the third, whose run it is
        (3, DAYS[:2], DAYS[:3]),  # the state of the fourth day knows it
    ],
)
def test_what_the_run_of_its_landing_day_puts_into_sessions_is_not_planned(delay, sessions, offered):
    landing = daily_visits()
    landing[DAYS[delay]].append(event("late", "ann", DAYS[0], 710, delay))
    shop = in_memory(landing)
    for day in DAYS:
        shop.day(day)
    found = shop.plan("late-data")
    assert planned(found).get("sessions", []) == sessions
    assert [run.day for run in found.optional] == offered


# ---- costs ----


def loaded(days: list[date], states: Iterable[date] = (), rows: int = 1, seconds: float = 10.0) -> History:
    """Write a history down in which each day came in time and took so long for each of its tables."""
    made = {name: days if name in WHOLE_DAY else [] for name in TABLES}
    made["interests"] = list(states)
    commits = {
        name: [Commit(n, (day,), {"events": n}, {}, rows, seconds) for n, day in enumerate(owned, 1)][::-1]
        for name, owned in made.items()
    }
    files = [DataFile("", rows, 1, {"dt": day, "landed": day}, {}) for day in days]
    by_day = {name: dict.fromkeys(owned, rows) for name, owned in made.items()}
    return History(commits, by_day, files, {}, {day: n for n, day in enumerate(days, 1)})


def range_for(history: History, days: list[date]) -> HistoryRange | None:
    return plan_of(history, CONFIG, Request("bad-day", days[0], days[-1])).whole


def test_costs_are_those_of_past_runs_and_one_range_beats_many_days():
    shop = RunsInMemory(daily_visits(), Settings(**SPANS | {"history_days": 1}))
    shop.took, shop.audited = 10.0, 2.0
    for day in DAYS:
        shop.day(day)
    found = shop.plan("bad-day", DAYS[1], DAYS[5])
    # Each group of a day took 12 s; quarantine is staged with the events, and audited.
    jobs = len(groups_of("behavior_daily"))
    assert [run.seconds for run in found.runs] == [12.0 * jobs + 2] * 5
    # A job a group and an audit a table, whose times hardly depend on the rows: now one a day of each group.
    assert found.whole == HistoryRange(DAYS[1], DAYS[5], 1, 5 * jobs, 12.0 * jobs + 2)
    assert shop.plan("bad-day", DAYS[1], DAYS[1]).whole is None, "a day by itself is not a range"


def test_a_range_is_cut_into_chunks_of_ninety_days_and_each_costs_its_jobs():
    days = [JAN_1 + n * ONE_DAY for n in range(91)]
    history = loaded(days, days, rows=10)
    tables = len(WHOLE_DAY)
    assert range_for(history, days[:90]) == HistoryRange(days[0], days[89], 1, 90 * tables * 10, tables * 10.0)
    assert range_for(history, days) == HistoryRange(days[0], days[90], 1, 91 * tables * 10, tables * 20.0)


@pytest.mark.parametrize(
    ("states", "every"),
    [
        ([JAN[7], JAN[14], JAN[21]], 7),
        ([JAN[7], JAN[14]], 1),  # counted back from the last day, every 7 days would make others
        ([JAN[7], JAN[20], JAN[21]], 1),
        ([JAN[21]], 1),
        ([], 21),  # none of them, so as few as can be made
    ],
)
def test_the_interests_of_a_range_are_as_far_apart_as_those_that_there_are(states, every):
    days = [JAN[n] for n in range(1, 22)]
    history = loaded(days, [*states, JAN[28]])
    found = range_for(history, days)
    assert found is not None
    assert found.every == every


def test_no_range_is_named_that_is_not_sooner_or_makes_days_that_were_not_asked_for():
    days = [JAN[n] for n in range(1, 5)]
    assert range_for(loaded(days, days), days) is not None
    assert range_for(loaded([JAN[1], JAN[2], JAN[4]], days), days) is None, "the third has never landed"
    assert range_for(loaded(days), days) is None, "nobody knows what interests would take"
    # What takes a second a row takes as long at once. Sessions, of which days have neighbours in common, take none.
    history = loaded(days, days, rows=10)
    by_rows = {name: [*made, Commit(0, (), {}, {}, 20, 20.0)] for name, made in history.commits.items()}
    by_rows["sessions"] = [Commit(1, (), {}, {}, 10, 0.0)]
    assert range_for(replace(history, commits=by_rows), days) is None
    by_rows["sessions"] = [Commit(1, (), {}, {}, 10, 0.1)]
    assert range_for(replace(history, commits=by_rows), days) is not None


def test_the_newest_fifty_runs_of_a_table_say_what_one_takes():
    days = [JAN_1 + n * ONE_DAY for n in range(60)]
    commits = [Commit(n, (day,), rows=n, seconds=float(n)) for n, day in enumerate(days)][::-1]
    history = loaded(days)
    history = replace(history, commits={**history.commits, "sessions": commits})
    past_of = plan_of(history, CONFIG, Request("late-data")).costs.past
    assert past_of["sessions"] == [(n, float(n)) for n in range(59, 9, -1)]


def test_an_estimate_is_never_less_than_nothing_and_does_not_fall_with_rows():
    # Where more rows took less time, rows do not matter.
    assert estimate([(100, 20.0), (200, 10.0)], 1_000) == 15.0
    # A line that begins below zero begins at zero: 0.1 s a row.
    assert estimate([(100, 5.0), (200, 15.0)], 1_000) == 100.0
    # Without past runs of a table its costs are not known, nor those of what it is a part of.
    assert total([1.0, estimate([], 10)]) is None


# ---- a real lake ----


def test_the_logs_of_a_real_lake_tell_the_history_that_these_runs_have_in_memory(lake, monkeypatch):
    for name, days in SPANS.items():
        monkeypatch.setenv(f"MEANDER_{name.upper()}", str(days))
    log = [event("a", "ann", DAYS[0], 1_430, 0), event("b", "ann", DAYS[1], 5, 0), event("c", "bob", DAYS[1], 700, 0)]
    log += [event("early", "bob", DAYS[4], 5, -1), event("waits", "ann", DAYS[3], 5, -1)]
    log += [event("late", "bob", DAYS[0], 10, 4), event("d", "bob", DAYS[4], 300, 0), event("e", "ann", DAYS[4], 9, 0)]
    shops = DailyRuns(landing_of(log)), in_memory(landing_of(log))
    for shop in shops:
        shop.took, shop.audited = 10.0, 2.0
        for day in (DAYS[0], DAYS[1], DAYS[2], DAYS[4]):  # the third is empty, and the fourth never landed
            shop.day(day)
        shop.interests(DAYS[1], include_late=True)
        shop.examples(DAYS[0])
        shop.predictions(DAYS[1])
        # Delivered again: one event is gone, another has come.
        shop.landing[DAYS[1]] = [*shop.landing[DAYS[1]][1:], event("new", "ann", DAYS[1], 701, 0)]
        shop.events(DAYS[1])
        shop.sessions(DAYS[1])
        # A job over a range makes some of its days; of these it may not replace the first, which knows more by now.
        shop.interests(DAYS[0])
        made = [str(DAYS[0]), str(DAYS[2])]
        shop.commit("interests", [], [DAYS[0], DAYS[2]], 1, counts={"as_of": made}, inputs={"events": 1})
    real, pure = shops
    assert real.found() == pure.found()
    assert comparable(History.read()) == comparable(pure.history())
    # So do plans, by the settings in force.
    asked = (("late-data",), ("bad-day", DAYS[0], DAYS[1]), ("code", DAYS[1], DAYS[4], "interests"))
    for each in asked:
        assert real.plan(*each).redo, "there is something to compare"
        assert real.plan(*each) == pure.plan(*each)
    for shop in shops:
        shop.landing[DAYS[3]] = []
        shop.execute(shop.plan("late-data"))
        assert shop.wrong()["sessions"] == set()
    assert real.found() == pure.found()
    assert comparable(History.read()) == comparable(pure.history())


def comparable(history: History) -> dict[str, Any]:
    """Return all that a history says, without the names and sizes of files, by which they are sorted."""

    def plain(files: Iterable[DataFile]) -> list[DataFile]:
        return sorted((replace(f, path="", bytes=0) for f in files), key=lambda f: sorted(f.partition.items()))

    return {
        "commits": {table: list(made) for table, made in history.commits.items()},
        "rows": history.rows,
        "files": plain(history.files),
        "taken_back": {version: plain(files) for version, files in history.taken_back.items()},
        "sessions_basis": history.sessions_basis,
        "landing": history.landing,
    }


# ---- what can not be planned ----


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (("weather",), "reason is one of late-data, code, bad-day; received 'weather'"),
        (("code", JAN_1, JAN_1, "orders"), "table is one of events, .*; received 'orders'"),
        (("bad-day",), "a plan for bad-day needs both from and to; received None and None"),
        (("code", JAN_1), "a plan for code needs both from and to; received 2025-01-01 and None"),
        (("late-data", DAYS[1], DAYS[0]), "from must not be after to; received 2025-01-02 and 2025-01-01"),
    ],
)
def test_what_cannot_be_planned_is_said(lake, asked, says):
    with pytest.raises(SettingsInvalid, match=says):
        plan_backfill(settings(), *asked)


def test_without_events_there_is_nothing_to_plan(lake):
    with pytest.raises(TableMissing, match="events has no published version"):
        plan_backfill(settings(), "late-data", JAN_1, JAN_1)
