"""The suite of `sessions`: the session rule, and every event of the days in exactly one session."""

from datetime import date, datetime, timedelta
from decimal import Decimal

import pandas as pd
import pytest
from pyspark.sql import functions as F

from expectations import duplicates
from expectations import sessions as module
from expectations.audit import measure
from expectations.duplicates import count_duplicates
from expectations.sessions import SUITE, count_events
from lake import small
from lake.publish import publish
from lake.settings import settings
from lake.staging import read_staged
from lake.table import Table
from tests.expectations.cases import (
    Seen,
    Tagged,
    all_of,
    expected,
    refused,
    see,
    stage_rows,
    warnings_of,
    without_tags,
)
from tests.lake.stagings import stage_files

BROKEN = date(2025, 1, 10)
NOON = datetime(2025, 1, 10, 12)
# Three days in a row of which the run owns all, and one after them that it does not own.
FIRST, SECOND, THIRD, NOT_OWNED = (date(2025, 1, n) for n in range(20, 24))
EMPTY = date(2025, 1, 30)


def session(n: int, *times: datetime, day: date = BROKEN, **changes) -> dict:
    """Make a good session of views at these times (once, at noon, if none is given), and change it."""
    times = times or (NOON,)
    event = {"behavior": "view", "item_id": "i", "category_id": None, "query": None, "price": None}
    good = {
        "session_id": f"s{n}",
        "user_id": f"u{n}",
        "start_time": min(times),
        "end_time": max(times),
        "views": len(times),
        **dict.fromkeys(("searches", "carts", "favorites", "purchases"), 0),
        "revenue": Decimal(0),
        "converted": False,
        "events": [{"event_time": time, "event_id": f"{n}-{i}", **event} for i, time in enumerate(times)],
        "dt": day,
    }
    return {**good, **changes}


def minutes(*after_noon: int) -> list[datetime]:
    return [NOON + timedelta(minutes=n) for n in after_noon]


ONE_OF_EACH = {"views": 1, "searches": 1, "carts": 1, "favorites": 1, "purchases": 1, "converted": True}
# Sessions of one day, each with what is wrong with it.
ROWS: Tagged = [
    (session(1), ""),
    (session(2, *minutes(0, 30, 60)), ""),  # pauses of exactly the gap
    (session(3, NOON, NOON), ""),  # two events at once
    (session(4, *minutes(-725, -700)), ""),  # begins 5 minutes before midnight
    (session(5, *minutes(1, 2, 3, 4, 5), **ONE_OF_EACH), ""),
    (session(6, session_id=None), "not null session_id, between duplicate_ids"),  # a missing id is an id less
    (session(7, user_id=None), "not null user_id"),
    (session(8, start_time=None), "not null start_time, between wrong_ends"),
    (session(9, end_time=None), "not null end_time, between wrong_ends"),
    (session(10, revenue=None), "not null revenue"),
    (session(11, converted=None), "not null converted"),
    (session(12, events=None), "not null events, between wrong_ends"),
    (session(13, dt=None), "not null dt"),
    (session(14, views=-1, carts=2), "between views"),
    (session(15, searches=-1, views=2), "between searches"),
    (session(16, carts=-1, views=2), "between carts"),
    (session(17, favorites=-1, views=2), "between favorites"),
    (session(18, purchases=-1, views=2), "between purchases"),
    (session(19, revenue=Decimal("-0.0001")), "between revenue"),
    (session(20, session_id="s1"), "between duplicate_ids"),
    (session(21, NOON - timedelta(days=1)), "between outside_partition"),
    (session(22, *(NOON - timedelta(minutes=30) * n for n in range(75, -1, -1))), "between crosses_two_midnights"),
    (session(23, *minutes(0, 31)), "between pause_too_long"),
    (session(24, *minutes(0, 20, 10)), "between pause_too_long"),  # time runs backwards
    (session(25, start_time=NOON - timedelta(minutes=1)), "between wrong_ends"),
    (session(26, end_time=NOON + timedelta(minutes=1)), "between wrong_ends"),
    (session(27, events=[], views=0), "between wrong_ends"),  # a session of nothing
    (session(28, views=2), "between miscounted"),
    (session(29, views=0), "between miscounted"),
    (session(30, views=0, purchases=1), "between misjudged"),
    (session(31, converted=True), "between misjudged"),
]


def at(day: date, hour: int, minute: int = 0) -> datetime:
    return datetime(day.year, day.month, day.day, hour, minute)


OVER_MIDNIGHT = session(41, at(FIRST, 23, 50), at(SECOND, 0, 10), day=SECOND)
TWICE = session(43, at(SECOND, 12), day=SECOND)
DAYS = [
    session(42, at(FIRST, 12), day=FIRST),
    OVER_MIDNIGHT,
    TWICE,
    {**TWICE, "session_id": "another"},
    session(44, at(THIRD, 12), day=THIRD),
]


def happened(event_id: str, time: datetime, landed: date | None = None) -> dict:
    return {"event_id": event_id, "event_time": time, "dt": time.date(), "landed": landed or time.date()}


@pytest.fixture(scope="module")
def seen(spark, shared_lake) -> Seen:
    """Audit the days with the sessions above, of events of which some are in none of them."""
    sessions = without_tags(ROWS) + DAYS
    inside = {event["event_id"]: event["event_time"] for each in sessions for event in each["events"] or []}
    events = [happened(event_id, time) for event_id, time in inside.items()]
    events += [
        happened("lost", at(FIRST, 13)),
        happened("43-0", at(SECOND, 12), landed=THIRD),  # arrived again: one event all the same
        # Its session ends on a day that is not owned, so it is in no session here.
        happened("goes on", at(THIRD, 23, 50)),
        happened("goes on after midnight", at(NOT_OWNED, 0, 10)),
    ]
    stage_files("events", "upstream", events, sorted({each["landed"] for each in events}), 1)
    version = publish("events", "upstream")["version"]
    # A week of the same number of sessions each day.
    week = [BROKEN - timedelta(days=n) for n in range(1, 8)]
    stage_files("sessions", "before", [session(n, day=day) for day in week for n in range(10)], week, 0)
    publish("sessions", "before")
    stage_rows("sessions", "r", sessions, [BROKEN, FIRST, SECOND, THIRD, EMPTY], inputs={"events": version})
    return see(spark, "sessions", "r")


@pytest.mark.spark
def test_an_audit_counts_every_session_that_is_broken_and_no_other(seen):
    assert seen.rows_counted() + seen.counted(BROKEN) == expected(ROWS)
    # The session that stands twice has an id of its own each time, and its user may have several.
    assert not any(seen.counted(day) for day in (FIRST, SECOND, THIRD, EMPTY))


@pytest.mark.spark
def test_an_event_that_is_lost_or_doubled_is_noticed_on_its_day_wherever_its_session_ends(seen):
    def counts(day: date) -> tuple:
        return seen.on(day, "events_upstream", "events_in_sessions")

    assert counts(FIRST) == (3, 2)  # of noon, and before midnight in a session of the next day; one is lost
    assert counts(SECOND) == (2, 3)  # after midnight, and one in two sessions
    assert seen.broken["equal events_upstream"].startswith("every event of the date is in exactly one session")
    assert ": 2 unexpected" in seen.broken["equal events_upstream"]


@pytest.mark.spark
def test_events_that_may_be_in_sessions_of_a_day_that_is_not_staged_raise_no_false_alarm(seen):
    assert seen.on(THIRD, "events_upstream", "events_in_sessions") == (None, None)
    # The days after these have no event, so no session of theirs goes on.
    on_the_day = sum(
        event["event_time"].date() == BROKEN for row in without_tags(ROWS) for event in row["events"] or []
    )
    assert seen.on(BROKEN, "events_upstream", "events_in_sessions") == (on_the_day, on_the_day)
    assert seen.on(EMPTY, "events_upstream", "events_in_sessions") == (0, 0)


@pytest.fixture(params=[False, True], ids=["hashed", "all ids have one hash"])
def hashed(request, monkeypatch) -> None:
    """Let ids have hashes of eight bytes, or all of them the same one."""
    if request.param:
        monkeypatch.setattr(F, "xxhash64", lambda *columns: F.length(columns[0]) * 0)


@pytest.mark.spark
def test_what_is_counted_by_hashes_is_counted_by_ids_in_the_end(spark, lake, hashed):
    rows = [(FIRST, "a"), (FIRST, "b"), (SECOND, None), (SECOND, "c"), (THIRD, "d"), (THIRD, "d"), (THIRD, "d")]
    sessions = spark.createDataFrame([*rows, (None, "e"), (None, "e")], "day date, session_id string")
    assert {day: n for day, n in count_duplicates(sessions, "session_id").items() if n} == {SECOND: 1, THIRD: 2}
    late = [happened("late", at(SECOND, 12), landed=THIRD), happened("lost", at(SECOND, 13), landed=THIRD)]
    events = [happened("x", at(FIRST, 12)), happened("y", at(SECOND, 12)), happened("late", at(SECOND, 12)), *late]
    stage_files("events", "twice", events, [FIRST, SECOND, THIRD], 1)
    publish("events", "twice")
    days = [FIRST, SECOND, THIRD]
    # Three of the second day: y, late, which came again, and lost.
    assert [count_events(spark, Table("events"), days)[day] for day in days] == [1, 3, 0]


@pytest.mark.spark
def test_few_sessions_and_events_are_counted_without_spark_as_many_are_with_it(spark, lake, monkeypatch):
    again = [session(50, at(THIRD, 9), day=THIRD), session(50, at(THIRD, 10), at(THIRD, 10, 5), day=THIRD)]
    odd = [session(51, at(FIRST, 8), day=FIRST, session_id=None), session(52, day=FIRST, events=None)]
    events = [
        *(happened(f"first {n}", at(FIRST, n)) for n in range(5)),
        *(happened(f"second {n}", at(SECOND, n)) for n in range(3)),
        happened("second 1", at(SECOND, 1), landed=THIRD),  # arrived again
        happened("second 7", at(SECOND, 7), landed=THIRD),  # late
    ]
    stage_files("events", "upstream", events, [FIRST, SECOND, THIRD], 1)
    version = publish("events", "upstream")["version"]
    rows = [*DAYS, *again, *odd, session(53, day=None), session(54, day=None, session_id="s53")]
    stage_rows("sessions", "r", rows, [FIRST, SECOND, THIRD], inputs={"events": version})
    staged, config = read_staged("sessions", "r"), settings()

    def figures() -> pd.DataFrame:
        sessions = staged.read(spark)
        return SUITE.extend(spark, sessions, staged, measure(SUITE, sessions, staged, config)[0], config)

    many = figures()
    monkeypatch.setattr(small, "ONE_TASK_BYTES", 2**20)
    for reader in (duplicates, module):
        monkeypatch.setattr(reader, "by_day", lambda *_: pytest.fail("Spark counts them"))
    pd.testing.assert_frame_equal(figures(), many)
    assert many["duplicate_ids"].tolist() == [1, 0, 1]
    assert many["events_upstream"].tolist() == [5, 4, 0]
    assert many["events_in_sessions"].tolist()[:2] == [3, 3]


@pytest.mark.spark
def test_volume_is_compared_with_the_days_before(seen):
    staged = len(ROWS) - 1  # one is on no day
    assert seen.on(BROKEN, "rows", "usual_rows", "volume_ratio") == (staged, 10, staged / 10)


@pytest.mark.spark
def test_every_expectation_is_seen_failing(seen):
    assert set(seen.broken) == all_of("sessions")
    assert seen.verdict.verdict == "failed"


def test_half_and_twice_the_usual_number_of_sessions_are_the_limits_of_a_warning():
    assert refused("sessions", {"volume_ratio": [0.5, 2, 0.499, 2.001]}) == {"warning volume_ratio": [0.499, 2.001]}
    assert warnings_of("sessions") == {"warning volume_ratio"}
