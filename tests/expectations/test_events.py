"""The suite of `events`: an input row is an event once, on its day, and can be what it says."""

from datetime import date, datetime, time, timedelta
from decimal import Decimal
from types import SimpleNamespace

import pandas as pd
import pytest

from expectations import duplicates as module
from expectations.duplicates import duplicates
from expectations.events import after_landing, beyond_bound, lateness_moved, strangers
from expectations.fields import FIELDS
from lake import small
from lake.days import days_between
from lake.settings import Settings
from lake.staging import read_staged
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
from tests.jobs.tables import publish_rows

# Landing days, one after the other. What the last should have is told by the seven before it that do not fail.
GOOD = [date(2025, 1, n) for n in range(10, 13)]
BROKEN, LOST, IN_BUDGET, REJECTED, HALF_LATE, LATE, EMPTY, MANY = (date(2025, 1, n) for n in range(13, 21))


KEY = "0000ffff"
USER = f"{KEY}-{'0' * 31}f"


def event(n: int, day: date = BROKEN, **changes) -> dict:
    """Make a good event that happened and landed on a day, and change it."""
    good = {
        "event_id": f"{n:032x}",
        "user_id": USER,
        "event_time": datetime.combine(day, time(9)),
        "behavior": "view",
        "item_id": "i",
        "price": Decimal("1.5"),
        "source": "test",
        "copies": 1,
        "dt": day,
        "landed": day,
    }
    return {**good, **changes}


def happened(day: date) -> dict:
    return {"event_time": datetime.combine(day, time(9)), "dt": day}


# Events of one landing day, each with what is wrong with it.
ROWS: Tagged = [
    (event(1), ""),
    (event(2, event_id=None), "not null event_id, between duplicate_ids"),  # an id that is missing is an id less
    (event(3, user_id=None), "not null user_id"),
    (event(4, event_time=None), "not null event_time"),
    (event(5, behavior=None), "not null behavior"),
    (event(6, source=None), "not null source"),
    (event(7, copies=None), "not null copies"),
    (event(8, dt=None), "not null dt"),
    (event(9, landed=None), "not null landed"),
    (event(10, event_id="10"), "length event_id"),
    (event(11, user_id="u" * 1024), "between strangers"),
    (event(12, user_id="u" * 1025), "length user_id, between strangers"),
    (event(13, user_id=""), "length user_id, between strangers"),
    *((event(14 + n, behavior=each), "") for n, each in enumerate(("view", "search", "cart", "favorite", "purchase"))),
    (event(20, behavior="browse"), "in set behavior"),
    (event(21, price=Decimal(0)), ""),
    (event(22, price=Decimal("-0.0001")), "between price"),
    (event(23, price=None), ""),
    (event(24, copies=0), "between copies"),
    (event(25, copies=3), ""),
    (event(1), "between duplicate_ids"),
    # The last moment of the day before, and the last of the day.
    (event(26, event_time=datetime(2025, 1, 12, 23, 59, 59, 999_999)), "between outside_partition"),
    (event(27, event_time=datetime(2025, 1, 13, 23, 59, 59, 999_999)), ""),
    (event(28, **happened(date(2025, 1, 14))), "between after_landing"),
    # The floor, of events that are possible, and as late as they may be.
    (event(29, **happened(date(2000, 1, 1))), ""),
    (event(30, **happened(date(1999, 12, 31))), "between before_floor, between too_late"),
    (event(31, behavior="search", item_id=None), ""),
    (event(32, behavior="view", item_id=None), "between without_item"),
    (event(33, behavior="purchase", item_id=None), "between without_item"),
    (event(34, user_id="u\x7f"), "between unusable_text, between strangers"),
    (event(35, item_id="\u2066"), "between unusable_text"),
    (event(36, category_id="\ufdd0"), "between unusable_text"),
    (event(37, category_id="\U0002fffe"), "between unusable_text"),
    (event(38, query="\ufffd"), "between unusable_text"),
    (event(39, query="\r"), "between unusable_text"),
    (event(40, query="\t\n"), ""),
    (event(41, item_id="\t"), "between unusable_text"),
    (event(42, item_id="é" * 1024), ""),
    (event(43, item_id="é" * 1024 + "i"), "between unusable_text"),
    # A joiner, private use, a tag of a flag; and the sixth event of its user and date, or one after it.
    (event(44, category_id="\u200d\ue000\U000e0041"), "between beyond_bound"),
    # Another key, a digit too few or too many, capitals, an end of a line: no pseudonyms by the key of the lake.
    *(
        (event(45 + n, user_id=each), "between strangers")
        for n, each in enumerate((f"0000fffe{USER[8:]}", USER[:-1], f"{USER}0", USER.upper(), f"x{USER}"))
    ),
    (event(50, user_id=f"{USER}\n"), "between unusable_text, between strangers"),
]


def late(n: int, day: date) -> dict:
    return event(n, day, **happened(day - timedelta(days=1)))


# Landing days: their events, input rows, and how many of these were ignored and rejected. What landed on one day may
# land on another again.
DAYS = {
    **{day: ([event(1, day), event(2, day)], 2, 0, 0) for day in GOOD},
    # All but two of the rows with a fault stand for one input row each: one says none, one says 0, one says 3.
    BROKEN: ([], len(ROWS) - 1 + 1, 1, 0),
    LOST: ([event(1, LOST), event(2, LOST, copies=30)], 38, 5, 1),  # 31 + 5 + 1 are 37
    IN_BUDGET: ([event(1, IN_BUDGET, copies=18)], 20, 1, 1),
    REJECTED: ([event(1, REJECTED, copies=17)], 19, 1, 1),
    HALF_LATE: ([late(1, HALF_LATE), late(2, HALF_LATE), event(3, HALF_LATE), event(4, HALF_LATE)], 4, 0, 0),
    LATE: ([late(1, LATE), late(2, LATE), event(3, LATE)], 3, 0, 0),
    EMPTY: ([], 0, 0, 0),
    MANY: ([event(n, MANY) for n in range(5)], 5, 0, 0),
}


@pytest.fixture(scope="module")
def seen(spark, shared_lake) -> Seen:
    rows = without_tags(ROWS) + [each for events, *_ in DAYS.values() for each in events]
    by_day = {
        f"{day}": {"input": read, "accepted": 1000, "ignored": ignored, "rejected": {"missing_user": rejected}}
        for day, (_, read, ignored, rejected) in DAYS.items()
    }
    # Counted by the ingest, of days with thousands of events.
    by_day[str(LATE)]["largest_user_share"], by_day[str(HALF_LATE)]["largest_user_share"] = 0.21, 0.2
    # On the last day no event has any field that it may lack.
    filled = {f"{day}": dict.fromkeys(FIELDS, 0 if day == MANY else 100) for day in DAYS}
    stage_rows("events", "r", rows, list(DAYS), counts={"by_day": by_day, "filled": filled}, key_id=KEY)
    with pytest.MonkeyPatch.context() as patch:
        # The events of the last day, which all are of one user and date.
        patch.setenv("MEANDER_MAX_EVENTS_PER_USER_DAY", "5")
        patch.setenv("MEANDER_MAX_DAYS_LATE", str((BROKEN - date(2000, 1, 1)).days))
        return see(spark, "events", "r")


@pytest.mark.spark
def test_an_audit_counts_every_row_that_is_broken_and_no_other(seen):
    assert seen.rows_counted() + seen.counted(BROKEN) == expected(ROWS)
    # An id has to be unique within its landing day only.
    assert not any(seen.counted(day) for day in DAYS if day not in (BROKEN, MANY))
    assert seen.counted(MANY) == {f"between {field}_vanished": 1 for field in FIELDS}


@pytest.mark.spark
def test_few_events_are_searched_for_equal_ids_without_spark(spark, seen, monkeypatch):
    staged, figures = read_staged("events", "r"), pd.DataFrame({"day": list(DAYS)})
    with_spark = duplicates(staged.read(spark), staged, "event_id", figures)
    monkeypatch.setattr(small, "ONE_TASK_BYTES", 2**20)
    # Two have one id, and one has none.
    assert with_spark.tolist() == [2 * (day == BROKEN) for day in DAYS]
    assert duplicates(None, staged, "event_id", figures).tolist() == with_spark.tolist()
    monkeypatch.setattr(module, "FEW_FILES", len(staged.files) - 1)
    with pytest.raises(AttributeError, match="select"):  # Spark is asked, which has no rows here
        duplicates(None, staged, "event_id", figures)


@pytest.mark.spark
def test_input_rows_are_events_duplicates_ignored_or_rejected(seen):
    # 2 of the copies more than rows, and 2 fewer: the rows on the day of those with faults are one less than all.
    on_its_day = len(ROWS) - 1
    assert {day: seen.on(day, "input", "accounted_for", "rejected_share") for day in DAYS} == {
        **dict.fromkeys(GOOD, (2, 2, 0)),
        BROKEN: (on_its_day + 1, on_its_day + 1, 0),
        LOST: (38, 37, 1 / 38),
        IN_BUDGET: (20, 20, 0.05),
        REJECTED: (19, 19, 1 / 19),
        HALF_LATE: (4, 4, 0),
        LATE: (3, 3, 0),
        EMPTY: (0, 0, 0),
        MANY: (5, 5, 0),
    }


@pytest.mark.spark
def test_late_events_are_those_of_a_day_before_they_landed(seen):
    assert [seen.on(day, "late_share") for day in (HALF_LATE, LATE, EMPTY, MANY)] == [(0.5,), (2 / 3,), (None,), (0,)]


def lateness(*deliveries: dict[int, int], published: int = 0) -> list[float | None]:
    """Return what moved on each of some landing days, each with {days late: events}; the first ones are published."""
    begins = date(2025, 2, 1)
    parts = [(begins + timedelta(days=n), late, rows) for n, of in enumerate(deliveries) for late, rows in of.items()]
    early = [(day, late, rows) for day, late, rows in parts if day < begins + timedelta(days=published)]
    if published:
        events = [
            event(n, day, **happened(day - timedelta(days=late)))
            for day, late, rows in early
            for n in range(1 + 100 * late, 1 + 100 * late + rows)
        ]
        publish_rows("events", events, *days_between(begins, begins + timedelta(days=published - 1)))
    files = [
        SimpleNamespace(path=f"stage=s/dt={day - timedelta(days=late)}/landed={day}/p.parquet", rows=rows)
        for day, late, rows in parts
        if (day, late, rows) not in early
    ]
    days = [begins + timedelta(days=n) for n in range(published, len(deliveries))]
    found = lateness_moved(SimpleNamespace(files=files), pd.DataFrame({"day": days}))
    return [None if pd.isna(moved) else moved for moved in found]


YESTERDAY, TODAY = {1: 20}, {0: 20}


@pytest.mark.parametrize(
    ("deliveries", "moved"),
    [
        pytest.param([YESTERDAY] * 10, [1] + [0] * 9, id="the log of yesterday each morning is told once"),
        pytest.param([TODAY] * 8 + [YESTERDAY], [0] * 8 + [1], id="a day late all at once"),
        pytest.param([YESTERDAY] * 8 + [TODAY], [1] + [0] * 7 + [1], id="in time all at once"),
        pytest.param([YESTERDAY] * 8 + [{2: 20}], [1] + [0] * 7 + [1], id="another day later"),
        pytest.param([{9: 1, 4: 19}, {9: 19, 4: 1}], [1, 0.9], id="from four days to nine"),
        # A folder of Shanghai begins at 16:00 UTC: two hours of six are of the day before; then it comes a day late.
        pytest.param([{0: 4, 1: 2}] * 4 + [{1: 4, 2: 2}], [2 / 6, 0, 0, 0, 4 / 6], id="a zone east of UTC"),
        # One of New York has hours of the day after.
        pytest.param([{0: 15, -1: 5}, {0: 15, -1: 5}, {1: 15, 0: 5}], [0, 0, 0.75], id="a zone west of UTC"),
        pytest.param([{0: 99, 30: 1}, {0: 99, 17: 1}], [0.01, 0.01], id="a thin tail is no change"),
        pytest.param([TODAY, {}, YESTERDAY], [0, None, 1], id="of a day without events nothing is known"),
        # The median of a week is that of the old days while these are the most.
        pytest.param(
            [TODAY] * 7 + [YESTERDAY] * 5, [0] * 7 + [1, 1, 1, 1, 0], id="a lasting change is told for half a week"
        ),
        pytest.param([YESTERDAY] + [{}] * 7 + [YESTERDAY], [1] + [None] * 7 + [1], id="older days tell nothing"),
    ],
)
def test_how_late_events_come_is_compared_with_the_week_before(lake, deliveries, moved):
    assert lateness(*deliveries) == pytest.approx(moved)
    # So it is with days that are published, whatever else is.
    assert lateness(*deliveries, published=1) == pytest.approx(moved[1:])


@pytest.mark.spark
def test_no_event_is_from_after_the_day_of_its_folder_in_the_zone_of_the_folders(spark):
    times = {
        date(2024, 3, 9): ("2024-03-10 04:59:59.999999", "2024-03-10 05:00:00"),
        date(2024, 3, 10): ("2024-03-11 03:59:59.999999", "2024-03-11 04:00:00", "2024-03-11 04:30:00"),
        date(2024, 11, 3): ("2024-11-04 04:59:59.999999", "2024-11-04 05:00:00"),
        date(2024, 11, 4): ("2024-11-04 15:59:59.999999", "2024-11-04 16:00:00"),
        date(2024, 11, 5): ("2024-11-05 23:59:59.999999", "2024-11-06 00:00:00"),
        date(2024, 11, 6): ("2024-11-07 04:59:59.999999",),
    }
    new_york = ["America/New_York"]
    # Of two folders of other zones on one day the later end counts; what is not told is measured in UTC.
    zones = {f"{day}": new_york for day in times} | {"2024-11-04": ["Asia/Shanghai"]}
    zones |= {"2024-11-06": ["America/New_York", "Asia/Shanghai"]}
    del zones["2024-11-05"]
    rows = [(day, datetime.fromisoformat(text)) for day, texts in times.items() for text in texts]
    staged = SimpleNamespace(counts={"folder_zones": zones})
    figures = pd.DataFrame({"day": list(times), "after_landing": [7] * len(times)})
    found = after_landing(spark.createDataFrame(rows, "landed date, event_time timestamp"), staged, figures)
    assert found.tolist() == [1, 2, 1, 1, 7, 0]


@pytest.mark.spark
def test_the_share_of_one_user_is_that_of_its_day_and_unknown_of_a_small_one(seen):
    assert [seen.on(day, "largest_user_share") for day in (HALF_LATE, LATE, MANY)] == [(0.2,), (0.21,), (None,)]
    (line,) = [each for each in seen.verdict.unmet[str(LATE)] if "one user" in each]
    assert "of 5,000 events or more, at most 20% are one user's" in line


@pytest.mark.spark
def test_volume_is_that_of_a_landing_day_against_the_landing_days_before(seen):
    # The median of 2, 2, 2, 33 or so, 2, 1, 1, 4, 3 and 0.
    assert seen.on(MANY, "rows", "usual_rows", "volume_ratio") == (5, 2, 2.5)
    # Seven days are before the one, six before the other.
    assert seen.on(HALF_LATE, "rows", "usual_rows", "volume_ratio") == (4, 2, 2)
    assert seen.on(REJECTED, "rows", "usual_rows", "volume_ratio") == (1, None, None)


@pytest.mark.spark
def test_every_expectation_is_seen_failing(seen):
    assert set(seen.broken) == all_of("events")
    assert seen.verdict.verdict == "failed"


def test_without_pseudonyms_a_user_may_have_any_id_and_without_a_bound_any_number_of_events():
    staged, figures = SimpleNamespace(key_id=""), pd.DataFrame({"day": [BROKEN, LOST]})
    assert strangers(None, staged, figures).tolist() == [0, 0]
    assert beyond_bound(None, figures, Settings()).tolist() == [0, 0]


def test_a_strange_day_warns_beyond_its_limits_and_not_at_them(monkeypatch):
    figures = {
        "rejected_share": [0, 0.05, 0.0501],
        "rows": [1, 0],
        "lateness_moved": [0, 0.5, 0.51, 1],
        "largest_user_share": [0.2, 0.201],
        "volume_ratio": [0.5, 2, 0.499, 2.001],
        **{f"{field}_ratio": [0.5, 0.499, 1] for field in FIELDS},
    }
    limits = {
        "between rejected_share": [0.0501],
        "warning rows": [0],
        "warning lateness_moved": [0.51, 1],
        "warning largest_user_share": [0.201],
        "warning volume_ratio": [0.499, 2.001],
        **{f"warning {field}_ratio": [0.499] for field in FIELDS},
    }
    assert refused("events", figures) == limits
    assert warnings_of("events") == {each for each in limits if each.startswith("warning")}
    # The events of a shop with many rejections may be published without its quarantine.
    monkeypatch.setenv("MEANDER_MAX_REJECTED_SHARE", "0.06")
    assert refused("events", figures)["between rejected_share"] == []
