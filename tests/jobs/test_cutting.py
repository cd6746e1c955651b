"""Cutting sorted events into sessions, batch by batch: the same sessions wherever a batch ends."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pyspark.sql.pandas.types import to_arrow_schema
from pyspark.sql.types import StructType

from jobs.cutting import cut
from lake.schemas import EVENTS, SESSION_EVENT, SESSIONS
from tests.session_oracle import Landed, Session, difficult_logs, named, sessions

GAP = timedelta(minutes=30)
FIRST = date(2025, 1, 1)
COLUMNS = to_arrow_schema(StructType([EVENTS["user_id"], *SESSION_EVENT]))
TWICE = ((0, 0), (0, 2), (0, 0, 1))


def in_batches(rows: list[dict], sizes: list[int]) -> list[pa.RecordBatch]:
    """Return events in order, in batches of these sizes, over and over; one may be empty."""
    ordered = sorted(rows, key=lambda row: (row["user_id"], row["event_time"], row["event_id"]))
    found, at, turn = [], 0, 0
    while at < len(ordered):
        size = sizes[turn % len(sizes)]
        found.append(pa.RecordBatch.from_pylist(ordered[at : at + size], COLUMNS))
        at, turn = at + size, turn + 1
    return found


def rows_of(batches: list[pa.RecordBatch], **how) -> list[dict]:
    """Return the sessions of events, each as a dict; every batch has the columns and types of the table."""
    found = list(cut(batches, GAP, **how))
    assert all(batch.schema.equals(to_arrow_schema(SESSIONS)) for batch in found)
    return [row for batch in found for row in batch.to_pylist()]


def told(rows: list[dict]) -> list[Session]:
    """Return sessions as the oracle tells them."""
    return [(row["user_id"], tuple(event["event_id"] for event in row["events"])) for row in rows]


def seen(log: list[Landed]) -> list[dict]:
    when = {"behavior": "view", "item_id": "i"}
    return [
        {**when, "user_id": row.user_id, "event_id": row.event_id, "event_time": row.event_time.replace(tzinfo=UTC)}
        for row in log
    ]


# A night owl, who is cut at a midnight, and then somebody else: a batch may end anywhere in between.
awake = [Landed("", datetime(2025, 1, 1, 23, 55) + timedelta(minutes=25) * n, f"e{n:03}", FIRST) for n in range(120)]


@given(
    st.lists(difficult_logs(GAP, FIRST, 4, TWICE).map(lambda log: log[:200]), min_size=1, max_size=3),
    st.lists(st.integers(1, 40), min_size=1, max_size=3).map(lambda sizes: [*sizes, 0, 7]),
)
@example([awake, awake[:3]], [1])
@example([awake, awake[:3]], [29])
def test_sessions_are_those_of_the_oracle_wherever_a_batch_ends(logs, sizes):
    log = named(logs)
    found = told(rows_of(in_batches(seen(log), sizes)))
    assert found == sessions([row.event for row in log], GAP)


def at(day: int, hour: int, minute: int = 0) -> datetime:
    return datetime(2025, 1, day, hour, minute, tzinfo=UTC)


def event(event_id: str, when: datetime, user: str = "u", behavior: str = "view", price: str | None = None) -> dict:
    row = {"event_id": event_id, "user_id": user, "event_time": when, "behavior": behavior}
    return {**row, "item_id": f"i {event_id}", "category_id": "c", "price": price and Decimal(price)}


BOUGHT = [
    event("a1", at(1, 9), behavior="search"),
    event("a2", at(1, 9, 10), behavior="purchase", price="99999999999999.9999"),
    event("a3", at(1, 9, 20), behavior="purchase", price="99999999999999.9999"),
    event("a4", at(1, 9, 30), behavior="purchase"),  # no price known
    event("a5", at(1, 9, 40), behavior="cart", price="7"),  # seen with its price, not paid
    event("b1", at(1, 12), behavior="favorite", price="5"),
    event("c1", at(1, 23, 50)),
    event("c2", at(2, 0, 10), behavior="purchase", price="0.0001"),
    event("d1", datetime(1969, 12, 31, 23, 50, tzinfo=UTC), user="v"),  # before all that is counted from
]


@pytest.mark.parametrize("size", [1, 3, 100])
def test_what_a_session_says_is_the_same_wherever_a_batch_ends(size):
    rows = rows_of(in_batches(BOUGHT, [size]))
    counts = ("views", "searches", "carts", "favorites", "purchases", "revenue", "converted", "dt")
    assert [(row["session_id"], *(row[name] for name in counts)) for row in rows] == [
        # Two of the largest prices: more than an integer of 64 bits holds in ten-thousandths.
        ("a1", 0, 1, 1, 0, 3, Decimal("199999999999999.9998"), True, date(2025, 1, 1)),
        ("b1", 0, 0, 0, 1, 0, Decimal(0), False, date(2025, 1, 1)),
        ("c1", 1, 0, 0, 0, 1, Decimal("0.0001"), True, date(2025, 1, 2)),
        ("d1", 1, 0, 0, 0, 0, Decimal(0), False, date(1969, 12, 31)),
    ]
    first = rows[0]
    assert (first["user_id"], first["start_time"], first["end_time"]) == ("u", at(1, 9), at(1, 9, 40))
    ordered = sorted(BOUGHT, key=lambda row: (row["user_id"], row["event_time"]))
    whole = [{name: row.get(name) for name in SESSION_EVENT.fieldNames()} for row in ordered]
    assert [told for row in rows for told in row["events"]] == whole


@pytest.mark.parametrize("size", [1, 2, 100])
def test_of_some_days_only_the_sessions_that_end_on_them_come_out(size):
    batches = in_batches(BOUGHT, [size])
    assert [row["session_id"] for row in rows_of(batches, days=[date(2025, 1, 2)])] == ["c1"]
    assert [row["session_id"] for row in rows_of(batches, days=[date(2025, 1, 1)])] == ["a1", "b1"]
    assert rows_of(batches, days=[date(2025, 1, 3)]) == []


def test_no_events_no_sessions():
    assert rows_of([]) == rows_of([pa.RecordBatch.from_pylist([], COLUMNS)]) == []
