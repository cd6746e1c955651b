"""The suite of `events`: rows that break each critical expectation, and days that only raise a warning."""

from datetime import UTC, date, datetime, timedelta
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


def event(n: int, **changes) -> dict:
    """Make a good event that happened and landed on DAY, and change it."""
    good = {
        "event_id": f"{n:032x}",
        "user_id": "u",
        "event_time": datetime(2025, 1, 20, 9),
        "behavior": "view",
        "item_id": "i",
        "price": Decimal("1.5"),
        "source": "test",
        "copies": 1,
        "dt": DAY,
        "landed": DAY,
    }
    return {**good, **changes}


def counts(rows: list[dict], lost: int = 0, rejected: int = 0) -> dict:
    """Make the counts of an ingest whose input became these rows, one ignored row and some rejected, and lost some."""
    read = sum(row["copies"] or 1 for row in rows) + 1 + rejected + lost
    return {"by_day": {f"{DAY}": {"input": read, "ignored": 1, "rejected": {"missing_user": rejected}}}}


# Each case: rows, each with its reason; input rows that are nowhere; what must fail. In the case of too many rejections
# one row is rejected, in the others none.
CASES = {
    "columns are missing": (
        [
            event(1),
            event(2, event_id=None),
            event(3, user_id=None),
            event(4, event_time=None),
            event(5, behavior=None),
            event(6, source=None),
            event(7, copies=None),  # and so it does not add up to the input any more
            event(8, dt=None),
            event(9, landed=None),
        ],
        0,
        # An id that is missing is an id less.
        not_null("event_id", "user_id", "event_time", "behavior", "source", "copies", "dt", "landed")
        | {"between duplicate_ids", "equal input"},
    ),
    "values are impossible": (
        [
            event(1),
            event(2, event_id="2"),
            event(3, user_id="u" * 1025),
            event(4, user_id=""),
            event(5, behavior="browse"),
            event(6, price=Decimal("-0.0001")),
            event(7, copies=0),
            event(8, copies=3),  # two of them stand for the row that has none
        ],
        -1,
        {"length event_id", "length user_id", "in set behavior"} | between("price", "copies"),
    ),
    "more is rejected than may be": (
        [event(n) for n in range(1, 10)],  # with one rejected row of eleven
        0,
        {"between rejected_share"},
    ),
    "the day does not add up": (
        [
            event(1),
            event(1),  # the same event twice
            event(2, event_time=datetime(2025, 1, 19, 23, 59, 59), dt=DAY),  # in the partition of another date
            event(3, event_time=datetime(2025, 1, 21), dt=date(2025, 1, 21)),  # after it landed
            event(4, event_time=datetime(1999, 12, 31), dt=date(1999, 12, 31)),  # before the floor
            event(5, behavior="purchase", item_id=None),  # a purchase of nothing
        ],
        1,
        between("duplicate_ids", "outside_partition", "after_landing", "before_floor", "without_item")
        | {"equal input"},
    ),
}


@pytest.mark.spark
@pytest.mark.parametrize("case", CASES)
def test_an_audit_fails_on_what_is_broken_and_on_nothing_else(spark, lake, case):
    rows, lost, expected = CASES[case]
    rejected = int("between rejected_share" in expected)
    stage_rows(spark, "events", "r", rows, [DAY], counts=counts(rows, lost, rejected))
    assert audit_and_see(spark, "events", "r")[1] == expected


def test_every_critical_expectation_is_seen_failing():
    require_all_were_seen_failing("events", (expected for _, _, expected in CASES.values()))


@pytest.mark.spark
def test_a_strange_day_only_warns_and_is_published(spark, lake):
    # Eight days of ten events each, then a day of two, both of them late.
    for n in range(8):
        landed = JAN_1 + timedelta(days=11 + n)
        at = datetime(landed.year, landed.month, landed.day, tzinfo=UTC)
        rows = [event(i, event_time=at, dt=landed, landed=landed) for i in range(10)]
        stage_files("events", f"before {n}", rows, [landed], 1)
        publish("events", f"before {n}")
    late = [event(n, event_time=datetime(2025, 1, 19, 9), dt=date(2025, 1, 19)) for n in (1, 2)]
    stage_rows(spark, "events", "r", late, [DAY], counts=counts(late))
    verdict, _ = audit_and_see(spark, "events", "r")
    assert verdict.verdict == "warned"
    assert sorted(said.split(" [")[0] for said in verdict.failed) == [
        "at most half of the events are late",
        "rows are 0.5 to 2 times the median of the 28 days before",
    ]
    assert publish("events", "r")["verdict"] == "warned"
    assert Table("events").rows_by("landed")[DAY] == 2


@pytest.mark.spark
def test_an_empty_day_only_warns(spark, lake):
    stage_rows(spark, "events", "r", [], [DAY], counts=counts([]))
    verdict, _ = audit_and_see(spark, "events", "r")
    assert [said.split(" [")[0] for said in verdict.failed] == ["the day has events"]
