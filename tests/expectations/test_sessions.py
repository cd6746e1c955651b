"""The suite of `sessions`: the session rule, and every event of the days in exactly one session."""

from datetime import date, datetime, timedelta
from decimal import Decimal

import pytest

from lake.publish import publish
from lake.table import Table
from tests.expectations.cases import (
    audit_and_see,
    between,
    not_null,
    require_all_were_seen_failing,
    stage_rows,
)
from tests.lake.stagings import JAN_1, stage_files

DAY = date(2025, 1, 20)
NOON = datetime(2025, 1, 20, 12)


def session(n: int, *times: datetime, **changes) -> dict:
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
        "dt": DAY,
    }
    return {**good, **changes}


def minutes(*after_noon: int) -> list[datetime]:
    return [NOON + timedelta(minutes=n) for n in after_noon]


# Each case: sessions, each with its reason; events of DAY that are in none of them; what must fail.
CASES = {
    "columns are missing": (
        [
            session(1),
            session(2, session_id=None),
            session(3, user_id=None),
            session(4, start_time=None),
            session(5, end_time=None),
            session(6, revenue=None),
            session(7, converted=None),
            session(8, events=None),
            session(9, dt=None),
        ],
        0,
        not_null("session_id", "user_id", "start_time", "end_time", "revenue", "converted", "events", "dt")
        # An id that is missing is an id less, and an end that is missing is not the end of the events.
        | between("duplicate_ids", "wrong_ends"),
    ),
    "numbers are negative": (
        [
            session(1),
            session(2, views=-1, carts=2),
            session(3, searches=-1, views=2),
            session(4, carts=-1, views=2),
            session(5, favorites=-1, views=2),
            session(6, purchases=-1, views=2),
            session(7, revenue=Decimal("-0.0001")),
        ],
        0,
        between("views", "searches", "carts", "favorites", "purchases", "revenue"),
    ),
    "the rule is broken": (
        [
            session(1, *minutes(0, 30, 60)),  # pauses of exactly the gap are fine
            session(1),  # the same session twice
            session(2, NOON - timedelta(days=1)),  # in the partition of another date
            session(3, views=2),  # counts more events than it has
            session(4, views=0, purchases=1),  # a purchase, and not converted
        ],
        1,
        between("duplicate_ids", "outside_partition", "miscounted", "misjudged") | {"equal events_upstream"},
    ),
    "time is wrong": (
        [
            session(1),
            session(2, *minutes(0, 31)),  # a minute too long
            session(3, *(NOON - timedelta(minutes=30) * n for n in range(75, -1, -1))),  # 18 Jan 22:30 to 20 Jan 12:00
            session(4, start_time=NOON - timedelta(minutes=1)),  # before its first event
        ],
        0,
        between("pause_too_long", "crosses_two_midnights", "wrong_ends"),
    ),
}


def publish_upstream(rows: list[dict], lost: int = 0) -> dict:
    """Publish the events that these sessions hold, and `lost` more on DAY; return the manifest's inputs."""
    times = [event["event_time"] for row in rows for event in row["events"] or []] + [NOON] * lost
    events = [{"event_id": f"{n:032}", "event_time": t, "dt": t.date(), "landed": DAY} for n, t in enumerate(times)]
    stage_files("events", "upstream", events, [DAY], 1)
    return {"inputs": {"events": publish("events", "upstream")["version"]}}


@pytest.mark.spark
@pytest.mark.parametrize("case", CASES)
def test_an_audit_fails_on_what_is_broken_and_on_nothing_else(spark, lake, case):
    rows, lost, expected = CASES[case]
    stage_rows(spark, "sessions", "r", rows, [DAY], **publish_upstream(rows, lost))
    assert audit_and_see(spark, "sessions", "r")[1] == expected


def test_every_critical_expectation_is_seen_failing():
    require_all_were_seen_failing("sessions", (expected for _, _, expected in CASES.values()))


@pytest.mark.spark
@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        pytest.param(session(1, events=[], views=0), between("wrong_ends"), id="a session without events"),
        pytest.param(
            session(1, *minutes(0, 20, 10)), between("pause_too_long"), id="events that are not in time order"
        ),
    ],
)
def test_what_no_session_job_should_make_fails_too(spark, lake, broken, expected):
    stage_rows(spark, "sessions", "r", [broken], [DAY], **publish_upstream([broken]))
    assert audit_and_see(spark, "sessions", "r")[1] == expected


@pytest.mark.spark
def test_an_unusual_number_of_sessions_only_warns_and_is_published(spark, lake):
    days = [JAN_1 + timedelta(days=n) for n in range(7)]
    stage_files("sessions", "before", [session(n, dt=day) for day in days for n in range(3)], days, 0)
    publish("sessions", "before")
    rows = [session(n) for n in range(7)]
    manifest = publish_upstream(rows)
    # DAY is more than a week later, and all that is known lies within four weeks of it.
    stage_rows(spark, "sessions", "r", rows, [DAY], **manifest)
    verdict, _ = audit_and_see(spark, "sessions", "r")
    assert [said.split(" [")[0] for said in verdict.failed] == [
        "rows are 0.5 to 2 times the median of the 28 days before"
    ]
    assert publish("sessions", "r")["verdict"] == "warned"
    assert Table("sessions").rows_by()[DAY] == 7
