"""The planner: its runs make the tables right, and whatever it leaves out of them is right already."""

import shutil
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples_of
from hypothesis import strategies as st

from lake.errors import SettingsInvalid, TableMissing
from lake.plan import estimate, make, total
from tests.lake.daily_runs import MODEL_VERSION, DailyRuns
from tests.lake.stagings import JAN_1
from tests.session_oracle import ONE_DAY, Landed

DAYS = [JAN_1 + n * ONE_DAY for n in range(7)]
USERS = ("ann", "bob")
# Around midnight, where sessions reach into other partitions, and far from it.
MINUTES = (0, 10, 29, 300, 700, 1_100, 1_412, 1_430, 1_439)

few = examples_of(max_examples=4, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@pytest.fixture(autouse=True)
def _small_spans(lake, monkeypatch):
    """Spans of a few days, so that a week has something beyond each of them."""
    for name, days in (("LATE", 1), ("HISTORY", 4), ("LOOKBACK", 4), ("HORIZON", 2)):
        monkeypatch.setenv(f"MEANDER_{name}_DAYS", str(days))


def event(name: str, user: str, day: date, minute: int, delay: int) -> Landed:
    when = datetime.combine(day, datetime.min.time()) + timedelta(minutes=minute)
    return Landed(user, when, name, min(day + delay * ONE_DAY, DAYS[-1]))


@st.composite
def logs(draw: st.DrawFn) -> dict[date, list[Landed]]:
    """Make what lands on each day of a week; some of it late."""
    drawn = draw(
        st.lists(
            st.tuples(
                st.sampled_from(USERS),
                st.sampled_from(DAYS),
                st.sampled_from(MINUTES),
                st.sampled_from((0, 0, 1, 3, 5)),
            ),
            min_size=6,
            max_size=20,
        )
    )
    landing: dict[date, list[Landed]] = {day: [] for day in DAYS}
    for n, (user, day, minute, delay) in enumerate(drawn):
        late = event(f"e{n:02}", user, day, minute, delay)
        landing[late.landed].append(late)
    return landing


def fresh(folder: Path, landing: dict[date, list[Landed]]) -> DailyRuns:
    """Return a shop with an empty lake."""
    shutil.rmtree(folder / "lake", ignore_errors=True)
    return DailyRuns(landing)


def with_everything(shop: DailyRuns, order: list[date] = DAYS) -> DailyRuns:
    """Run all days, then make examples and predictions of those that can have them."""
    for day in order:
        shop.day(day)
    for day in DAYS[:-2]:
        shop.examples(day)
    for day in DAYS[3:]:
        shop.predictions(day)
    return shop


# ---- late data ----


@few
@given(landing=logs(), order=st.permutations(DAYS), again=st.lists(st.sampled_from(DAYS), min_size=1, max_size=2))
def test_the_runs_for_late_data_make_the_tables_that_making_everything_would(lake, landing, order, again):
    # In any order, so that late events and whole days come after what should know them.
    shop = with_everything(fresh(lake, landing), order)
    for day in again:  # delivered again, without the first of its events
        shop.landing[day] = shop.landing[day][1:]
        shop.events(day)
        shop.sessions(day)
    shop.execute(make("late-data"))
    assert shop.found() == shop.expected()
    assert make("late-data").redo == []


@few
@given(
    lates=st.lists(
        st.tuples(st.sampled_from(DAYS[1:4]), st.sampled_from((5, 20, 480, 900, 1_415, 1_435))), min_size=1, max_size=3
    )
)
def test_every_partition_that_is_planned_for_late_data_would_be_wrong_without_it(lake, lates):
    # Around each late event, its user is awake for two nights: joined by it, these visits become other sessions in
    # every partition that an event of that time can reach. Another user did nothing else.
    gap, log = timedelta(minutes=30), []
    for n, (day, minute) in enumerate(lates):
        late = event(f"late{n}", f"awake{n}", day, minute, 6)
        log += [late, event(f"alone{n}", f"alone{n}", day, minute, 6)]
        steps = [-1, *range(1, 49 * 2)]
        for step in steps:
            when = late.event_time + step * gap
            if when.date() <= DAYS[-1]:
                log.append(Landed(late.user_id, when, f"e{n}-{step:+04}", when.date()))
    shop = fresh(lake, {day: [e for e in log if e.landed == day] for day in DAYS})
    for day in DAYS:
        shop.day(day)
    plan = make("late-data")
    wrong = {day for table in ("sessions",) for day, _ in set(shop.found()[table]) ^ set(shop.expected()[table])}
    assert {entry.day for entry in plan.redo} == wrong
    assert {entry.table for entry in plan.redo} <= {"sessions"}, "interests are what was known at their date"
    # And so are the runs: without any one of them, something stays wrong.
    for left_out in range(len(plan.runs)):
        shutil.rmtree(lake / "kept", ignore_errors=True)
        shutil.copytree(lake / "lake", lake / "kept")
        shop.execute(plan, without=left_out)
        assert shop.found() != shop.expected()
        shutil.rmtree(lake / "lake")
        shutil.move(lake / "kept", lake / "lake")
    shop.execute(plan)
    assert shop.found() == shop.expected()


def test_the_plan_says_why_and_with_which_runs_and_what_stays(lake):
    # Five days late, a day more than the lookback; ann's other visits are in time.
    log = [event(f"e{day:%d}", "ann", day, 700, 0) for day in DAYS] + [event("late", "ann", DAYS[0], 700, 5)]
    shop = with_everything(fresh(lake, {day: [e for e in log if e.landed == day] for day in DAYS}))
    plan = make("late-data")
    why = "events of 2025-01-01 landed 2025-01-06, older than MEANDER_LATE_DAYS=1"
    assert [(entry.table, entry.day, entry.rows, entry.why) for entry in plan.redo] == [
        ("sessions", DAYS[0], 1, why),
        ("sessions", DAYS[1], 1, why),
    ]
    # One run stages both, since its landing can have changed both.
    assert [(run.job, run.day, run.tables, run.covers) for run in plan.runs] == [
        ("behavior", DAYS[0], ("sessions",), 2)
    ]
    # In the history of four days, the states before its arrival do not know it, and are right.
    assert [(run.day, run.include_late) for run in plan.optional] == [(day, True) for day in DAYS[:4]]
    kept = {entry.table: entry.partitions for entry in plan.untouched}
    assert (kept["events"], kept["sessions"], kept["interests"], kept["predictions"]) == (7, 5, 7, 4)
    # Landing days that were not asked for are not looked at.
    assert make("late-data", DAYS[0], DAYS[4]).redo == []
    shop.execute(plan)
    assert make("late-data").redo == []


def test_a_state_that_was_restated_with_late_events_is_restated_again(lake):
    log = [event(f"e{day:%d}", "ann", day, 700, 0) for day in DAYS[:3]]
    shop = fresh(lake, {day: [e for e in log if e.landed == day] for day in DAYS})
    for day in DAYS[:3]:
        shop.day(day)
    shop.interests(DAYS[1], include_late=True)
    shop.landing[DAYS[3]] = [event("late", "bob", DAYS[0], 700, 3)]
    shop.events(DAYS[3])
    runs = [run for run in make("late-data").runs if "interests" in run.tables]
    assert [(run.job, run.day, run.include_late) for run in runs] == [("interests", DAYS[1], True)]


def test_of_two_runs_that_make_the_same_the_day_itself_is_chosen(lake):
    # The second landing holds only an event of the first day, so that its run would stage the same partitions.
    log = [event("a", "ann", DAYS[0], 700, 0), event("b", "bob", DAYS[0], 700, 1), event("c", "cem", DAYS[0], 700, 5)]
    shop = fresh(lake, {day: [e for e in log if e.landed == day] for day in DAYS})
    for day in DAYS:
        shop.day(day)
    assert [run.day for run in make("late-data").runs] == [DAYS[0]]


def test_what_was_made_from_interests_is_made_again_when_they_were(lake):
    log = [event(f"e{day:%d}", "ann", day, 700, 0) for day in DAYS]
    shop = with_everything(fresh(lake, {day: [e for e in log if e.landed == day] for day in DAYS}))
    shop.interests(DAYS[4])
    assert [(entry.table, entry.day, entry.why) for entry in make("late-data").redo] == [
        (table, DAYS[4], "its interests were made again since") for table in ("examples", "predictions")
    ]


def test_a_state_does_not_know_what_its_own_day_was_delivered_again_with(lake):
    log = [event(f"e{day:%d}", "ann", day, 700, 0) for day in DAYS]
    shop = with_everything(fresh(lake, {day: [e for e in log if e.landed == day] for day in DAYS}))
    shop.landing[DAYS[4]] = []
    shop.events(DAYS[4])
    shop.sessions(DAYS[4])
    planned = {(entry.table, entry.day) for entry in make("late-data").redo}
    # Its own state, those that look back to it, what was made of these, and the labels that it belongs to.
    states = {("interests", DAYS[n]) for n in (4, 5, 6)} | {("predictions", DAYS[n]) for n in (4, 5, 6)}
    assert planned == states | {("examples", DAYS[n]) for n in (2, 3, 4)}


def test_sessions_of_a_day_on_which_nothing_has_landed_need_its_folder_first(lake):
    # The log of two days arrives with the second; later something of the first, for which no run of that day stands.
    shop = fresh(lake, {day: [] for day in DAYS})
    shop.landing[DAYS[1]] = [event("a", "ann", DAYS[0], 700, 1), event("b", "ann", DAYS[1], 700, 0)]
    shop.landing[DAYS[4]] = [event("late", "ann", DAYS[0], 710, 4)]
    for day in (DAYS[1], DAYS[4]):
        shop.day(day)
    runs = make("late-data").runs
    assert [(run.day, run.tables) for run in runs] == [(DAYS[1], ("sessions",))], "its landing reaches the first day"
    shop.execute(make("late-data"))
    assert shop.found()["sessions"] == shop.expected()["sessions"]
    # From the third day, nothing reaches it.
    shop = fresh(lake, {day: [] for day in DAYS})
    shop.landing[DAYS[3]] = [event("a", "ann", DAYS[0], 700, 3)]
    shop.landing[DAYS[5]] = [event("late", "ann", DAYS[0], 710, 5)]
    for day in (DAYS[3], DAYS[5]):
        shop.day(day)
    (run,) = make("late-data").runs
    assert (run.day, run.tables) == (DAYS[0], ("quarantine", "events", "sessions"))
    assert run.note == "nothing has landed on 2025-01-01: make an empty landing folder dt=2025-01-01 first"
    shop.execute(make("late-data"))
    assert shop.found()["sessions"] == shop.expected()["sessions"]


# ---- a bad day ----


@few
@given(landing=logs(), again=logs(), bad=st.sampled_from(DAYS[:5]))
def test_the_runs_for_a_bad_day_and_for_what_it_then_holds_make_everything_right(lake, landing, again, bad):
    shop = with_everything(fresh(lake, landing))
    shop.execute(make("late-data"))
    plan = make("bad-day", bad, bad)
    dates = {e.event_time.date() for e in landing[bad]}
    shop.landing[bad] = [replace(e, event_id=f"again {e.event_id}") for e in again[bad]]
    shop.execute(plan)
    if {e.event_time.date() for e in again[bad]} <= dates:
        assert shop.found() == shop.expected(), "what it holds could be known before"
    # Events on dates that it did not hold before appear as late data by themselves.
    shop.execute(make("late-data"))
    assert shop.found() == shop.expected()


def test_older_sessions_than_the_run_of_a_bad_day_restates_are_made_by_other_runs(lake):
    # The bad day held an event of the first one, four days late. Delivered again without it, its own run leaves those
    # sessions to others; only if a new event came just after the midnight before, it would take them along.
    log = [event(f"b{day:%d}", "bob", day, 700, 0) for day in DAYS[:5]]
    log += [event("a", "ann", DAYS[0], 300, 0), event("late", "ann", DAYS[0], 310, 4)]
    shop = with_everything(fresh(lake, {day: [e for e in log if e.landed == day] for day in DAYS}))
    shop.execute(make("late-data"))
    plan = make("bad-day", DAYS[4], DAYS[4])
    assert [(run.day, run.tables) for run in plan.runs if "sessions" in run.tables] == [
        (DAYS[4], ("quarantine", "events", "sessions", "interests")),
        (DAYS[0], ("sessions",)),
        (DAYS[2], ("sessions",)),
    ]
    shop.landing[DAYS[4]] = [event("again", "bob", DAYS[4], 710, 0)]
    shop.execute(plan)
    assert shop.found() == shop.expected()


def test_a_bad_day_is_followed_to_the_predictions_that_were_made_from_it(lake):
    log = [event(f"e{day:%d}", "ann", day, 700, 0) for day in DAYS]
    with_everything(fresh(lake, {day: [e for e in log if e.landed == day] for day in DAYS}))
    plan = make("bad-day", DAYS[2], DAYS[2])
    planned = {table: [e.day for e in plan.redo if e.table == table] for table in {e.table for e in plan.redo}}
    assert (
        planned
        == {
            "events": [DAYS[2]],
            "quarantine": [DAYS[2]],
            "sessions": DAYS[1:5],  # its neighbours, whatever time its new events have
            "interests": DAYS[2:6],  # as far as the history of four days reaches
            "examples": DAYS[0:5],  # labels of the two days before, and the states above that have examples
            "predictions": DAYS[3:6],
        }
    )
    assert [(run.job, run.day, run.tables) for run in plan.runs[:4]] == [
        ("behavior", DAYS[2], ("quarantine", "events", "sessions", "interests")),
        *(("behavior", day, ("interests",)) for day in DAYS[3:6]),
    ]
    # Scored again by the version that had scored them, whoever is champion by now.
    assert {run.model_version for run in plan.runs if run.job == "predictions"} == {MODEL_VERSION}


# ---- code that changed ----


@pytest.mark.parametrize(
    ("table", "makes"),
    [
        ("sessions", {"sessions": DAYS[2:4]}),
        ("interests", {"interests": DAYS[2:4], "examples": DAYS[2:4], "predictions": DAYS[3:4]}),
        ("examples", {"examples": DAYS[2:4]}),
        ("predictions", {"predictions": DAYS[3:4]}),
    ],
)
def test_what_changed_code_has_made_is_planned_with_what_was_made_from_it(lake, table, makes):
    log = [event(f"e{day:%d}", "ann", day, 700, 0) for day in DAYS]
    with_everything(fresh(lake, {day: [e for e in log if e.landed == day] for day in DAYS}))
    plan = make("code", DAYS[2], DAYS[3], table)
    assert {name: [e.day for e in plan.redo if e.table == name] for name in makes} == makes
    assert {entry.table for entry in plan.redo} == set(makes)


def test_events_of_changed_code_are_planned_as_if_they_were_delivered_again(lake):
    log = [event(f"e{day:%d}", "ann", day, 700, 0) for day in DAYS]
    with_everything(fresh(lake, {day: [e for e in log if e.landed == day] for day in DAYS}))
    bad, code = make("bad-day", DAYS[1], DAYS[2]), make("code", DAYS[1], DAYS[2])
    assert [(e.table, e.day) for e in code.redo] == [(e.table, e.day) for e in bad.redo]
    assert code.runs == bad.runs


# ---- costs ----


def landed_daily(lake: Path, days: int) -> DailyRuns:
    """Run so many days, each of which took 10 s for its events, sessions and interests."""
    dates = [JAN_1 + n * ONE_DAY for n in range(days)]
    shop = fresh(lake, {day: [event(f"e{day:%m%d}", "ann", day, 700, 0)] for day in dates})
    shop.took = 10.0
    for day in dates:
        shop.day(day)
    return shop


def test_costs_are_those_of_past_runs_and_one_range_beats_many_days(lake, monkeypatch):
    monkeypatch.setenv("MEANDER_HISTORY_DAYS", "1")
    landed_daily(lake, 7)
    plan = make("bad-day", DAYS[1], DAYS[5])
    # Events, sessions and interests of a day; quarantine is staged with the events.
    assert [run.seconds for run in plan.runs] == [30.0] * 5
    assert plan.whole is not None
    # Three jobs, whose times hardly depend on the rows.
    assert (plan.whole.first, plan.whole.last, plan.whole.every, plan.whole.seconds) == (DAYS[1], DAYS[5], 1, 30.0)
    assert make("bad-day", DAYS[1], DAYS[1]).whole is None, "a day by itself is not a range"


def test_without_past_runs_of_a_table_its_costs_are_not_known():
    assert estimate([], 10) is None
    assert total([1.0, estimate([], 10)]) is None


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
        make(*asked)


def test_without_events_there_is_nothing_to_plan(lake):
    with pytest.raises(TableMissing, match="events has no published version"):
        make("late-data")


def test_a_day_that_was_never_loaded_is_not_loaded_again(lake):
    landed_daily(lake, 2)
    assert make("bad-day", DAYS[4], DAYS[5]).redo == []
