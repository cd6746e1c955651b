"""Sessions by example: where they are cut, and what one says.

That the rule keeps its promises on any log, in any order of days, is in tests/jobs/test_session_rule.py.
"""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from pyspark.sql import functions as F

from jobs import sessionize
from jobs.sessionize import read_window, sessions_of
from lake.days import days_between
from lake.table import Table
from tests.jobs import naive
from tests.jobs.tables import publish_log, staged_rows

pytestmark = pytest.mark.spark

GAP = timedelta(minutes=30)
SCHEMA = (
    "event_id string, user_id string, event_time timestamp, behavior string, item_id string, "
    "category_id string, query string, price decimal(18,4), dt date"
)


@pytest.fixture
def log(spark):
    """Build events of January 2025 (UTC) from one list of times like "01 23:50" for each user."""

    def build(**users):
        rows = [
            event(f"{user} {n:03}", time, user=user) for user, times in users.items() for n, time in enumerate(times)
        ]
        return spark.createDataFrame(rows, SCHEMA)

    return build


def event(event_id, time, user="u", behavior="view", item="i", query=None, price=None):
    when = datetime.strptime(f"2025-01-{time}", "%Y-%m-%d %H:%M").replace(tzinfo=UTC)
    return (event_id, user, when, behavior, item, "c", query, price and Decimal(price), when.date())


def awake(begin, hours):
    """Return a time every 20 minutes."""
    start = datetime.strptime(f"2025-01-{begin}", "%Y-%m-%d %H:%M")
    return [f"{start + timedelta(minutes=20) * n:%d %H:%M}" for n in range(hours * 3)]


def test_where_sessions_start(log):
    # Name of a user: (their events, those of them at which a session starts).
    cases = {
        "a pause of exactly the gap stays inside": (["01 10:00", "01 10:30"], ["01 10:00"]),
        "a longer pause cuts": (["01 10:00", "01 10:31"], ["01 10:00", "01 10:31"]),
        "midnight alone does not cut": (["01 23:50", "02 00:10"], ["01 23:50"]),
        "one event is a session": (["01 10:00"], ["01 10:00"]),
        "events at one time are together": (["01 10:00", "01 10:00", "01 10:00"], ["01 10:00"]),
        "one night through is one session": (awake("01 12:00", 36), ["01 12:00"]),
        "a second midnight cuts": (awake("01 12:00", 37), ["01 12:00", "03 00:00"]),
        "who never sleeps gets a session a day": (
            awake("01 12:00", 72),
            ["01 12:00", "03 00:00", "04 00:00"],
        ),
        "begun at midnight is not before it": (awake("01 00:00", 49), ["01 00:00", "03 00:00"]),
        "a minute before midnight is before it": (
            ["01 23:59", *awake("02 00:00", 25)],
            ["01 23:59", "03 00:00"],
        ),
        "a nap ends the chain that a cut needs": (
            [*awake("01 12:00", 24), *awake("02 12:11", 14)],
            ["01 12:00", "02 12:11"],
        ),
    }
    sessions = sessions_of(log(**{name: times for name, (times, _) in cases.items()}), GAP)
    found = {name: [] for name in cases}
    times = F.date_format("start_time", "dd HH:mm").alias("time")
    for row in sessions.select("user_id", times).orderBy("start_time").collect():
        found[row["user_id"]].append(row["time"])
    assert found == {name: expected for name, (_, expected) in cases.items()}


def test_what_a_session_says(spark):
    events = [
        event("e4", "02 00:20", behavior="purchase", price="2.5"),
        event("e1", "01 23:40", behavior="search", item=None, query="tea"),
        event("e3", "02 00:10", behavior="cart", price="9"),  # seen with its price, not paid
        # Two at one time are in the order of their ids.
        event("e2b", "02 00:00", behavior="favorite"),
        event("e2a", "02 00:00", behavior="view"),
        event("e5", "02 00:20", behavior="purchase", price="0.25"),
        event("e6", "02 00:20", behavior="purchase"),  # no price known
        # The same event, delivered on another day.
        event("e3", "02 00:10", behavior="cart", price="9"),
        event("f1", "01 23:40", user="v"),
    ]
    sessions = {
        row["user_id"]: row
        for row in sessions_of(spark.createDataFrame(events, SCHEMA), GAP)
        .withColumn("start_time", F.date_format("start_time", "dd HH:mm"))
        .withColumn("end_time", F.date_format("end_time", "dd HH:mm"))
        .collect()
    }
    assert sorted(sessions) == ["u", "v"]
    session = sessions["u"]
    assert (session.session_id, session.start_time, session.end_time) == ("e1", "01 23:40", "02 00:20")
    assert session.dt == date(2025, 1, 2), "the date of the last event"
    assert [e.event_id for e in session.events] == ["e1", "e2a", "e2b", "e3", "e4", "e5", "e6"]
    assert [e.query for e in session.events] == ["tea", *[None] * 6]
    counts = (session.views, session.searches, session.carts, session.favorites, session.purchases)
    assert counts == (1, 1, 1, 1, 3)
    assert (session.revenue, session.converted) == (Decimal("2.7500"), True)
    assert (sessions["v"].revenue, sessions["v"].converted, sessions["v"].dt) == (0, False, date(2025, 1, 1))


def test_a_day_has_the_sessions_that_end_on_it(log):
    events = log(
        evening=["01 23:00", "01 23:30"],
        night=["01 23:50", "02 00:10"],
        morning=["02 08:00"],
        night_after=["02 23:50", "03 00:10"],
    )
    found = sessions_of(events, GAP, [date(2025, 1, 2)]).select("user_id", "dt").collect()
    assert sorted(map(tuple, found)) == [("morning", date(2025, 1, 2)), ("night", date(2025, 1, 2))]


def test_a_day_depends_on_the_day_before_and_a_gap_on_either_side():
    start, end = read_window(date(2025, 1, 2), date(2025, 1, 3), GAP)
    assert (start, end) == (
        datetime(2024, 12, 31, 23, 30, tzinfo=UTC),
        datetime(2025, 1, 4, 0, 30, tzinfo=UTC),
    )


def test_a_day_with_one_wrong_clock_reads_what_is_near_both_dates_and_not_between(lake, spark, monkeypatch):
    wrong, day = date(2024, 12, 1), date(2025, 1, 10)

    def at_noon(dt, landed, user):
        when = datetime.combine(dt, datetime.min.time(), UTC) + timedelta(hours=12)
        return naive.event(f"{dt} {user}", user, when, landed=landed)

    others = days_between(wrong + timedelta(days=1), day - timedelta(days=1))
    rows = [at_noon(dt, dt, f"u{n}") for dt in others for n in range(5)]
    publish_log([*rows, at_noon(day, day, "u1"), at_noon(wrong, day, "u1")])
    opened, plain = [], Table.read_files

    def noted(table, session, files):
        opened.extend(files := list(files))
        return plain(table, session, files)

    monkeypatch.setattr(Table, "read_files", noted)
    # The day before the one with the wrong clock has no event, and is no partition.
    staged = sessionize.main(["--day", str(day), "--run-id", "r"])
    assert staged.owns == [wrong, wrong + timedelta(days=1), day]
    near = [wrong, *(wrong + timedelta(days=n) for n in (1, 2)), *(day - timedelta(days=n) for n in (2, 1, 0))]
    assert sorted({file.partition["dt"] for file in opened}) == near
    assert sum(file.rows for file in opened) == 2 + 4 * 5, "of 197"
    # Those of the date after the wrong one are five users' own, at noon.
    assert sorted((row["dt"], row["user_id"]) for row in staged_rows(staged)) == [
        (wrong, "u1"),
        *((wrong + timedelta(days=1), f"u{n}") for n in range(5)),
        (day, "u1"),
    ]
