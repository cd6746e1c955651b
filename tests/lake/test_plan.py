"""The planner: its runs make the tables right, and whatever it leaves out of them is right already."""

import shutil
from datetime import date, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples_of
from hypothesis import strategies as st

from lake.plan import make
from tests.lake.daily_runs import DailyRuns
from tests.lake.stagings import JAN_1
from tests.session_oracle import ONE_DAY, Landed

DAYS = [JAN_1 + n * ONE_DAY for n in range(7)]
USERS = ("ann", "bob")
# Around midnight, where sessions reach into other partitions, and far from it.
MINUTES = (0, 10, 29, 300, 700, 1_100, 1_412, 1_430, 1_439)

few = examples_of(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


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
@given(landing=logs(), order=st.permutations(DAYS), again=st.lists(st.sampled_from(DAYS), max_size=2))
def test_the_runs_for_late_data_make_the_tables_that_making_everything_would(lake, landing, order, again):
    # In any order, so that late events and whole days come after what should know them.
    shop = with_everything(fresh(lake, landing), order)
    for day in again:  # delivered again, with half of what it held
        shop.landing[day] = shop.landing[day][::2]
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
