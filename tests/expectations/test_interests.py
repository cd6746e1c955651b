"""The suite of `interests`: nothing from after T, every active user, and the whole history of each."""

from collections import Counter
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pandas as pd
import pytest

from expectations import interests
from expectations.audit import measure
from lake.blocks import Block
from lake.kinds import ON_TIME, SUMS
from lake.publish import publish
from lake.rules import WEIGHTS
from lake.schemas import INTERESTS
from lake.settings import settings
from lake.staging import read_staged
from lake.summaries import Landings, Summaries
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

T = date(2025, 1, 20)
MIDNIGHT = datetime(2025, 1, 21, tzinfo=UTC)  # the end of T


def at(before_midnight: int) -> int:
    """Return seconds since 1970 of an instant so many seconds before the end of T."""
    return int(MIDNIGHT.timestamp()) - before_midnight


def state(user: str, **changes) -> dict:
    """Make a good state of a user with two events, 100 and 40 seconds before the end of T, and change it."""
    good = {
        "user_id": user,
        "item_keys": [11, 12],
        "item_ids": ["i11", "i12"],
        "category_keys": [21, 22],
        "behaviors": [1, 5],
        "event_seconds": [at(100), at(40)],
        "gap_seconds": [0, 60],
        "current_categories": ["a", "b"],
        "current_counts": [1, 1],
        "current_shares": [0.8, 0.2],
        "dominant_category": "a",
        "longterm_categories": ["a", "b"],
        "longterm_shares": [0.7, 0.3],
        "longterm_category_keys": [21, 22],
        "longterm_counts": [1, 1],
        "longterm_days": [1, 1],
        "longterm_current_counts": [1, 1],
        "longterm_week_counts": [0, 1],
        "longterm_age_seconds": [40, 100],
        "last_event_time": datetime(2025, 1, 20, 23, 59, 20),
        "recency_seconds": 40,
        "frequency": 2,
        "active_days": 1,
        "purchases": 1,
        "spend": 9.5,
        "week_frequency": 2,
        "history_events": 2,
        "history_days_active": 1,
        "tenure_seconds": 100,
        "dt": T,
    }
    return {**good, **changes}


ARRAYS = ("item_keys", "item_ids", "category_keys", "behaviors", "event_seconds", "gap_seconds", "current_categories")
ARRAYS += ("current_counts", "current_shares", "longterm_categories", "longterm_shares", "longterm_category_keys")
ARRAYS += ("longterm_counts", "longterm_days", "longterm_current_counts", "longterm_week_counts")
ARRAYS += ("longterm_age_seconds",)
SCALARS = ("user_id", "last_event_time", "recency_seconds", "frequency", "week_frequency", "history_events")
SCALARS += ("history_days_active", "tenure_seconds", "dt")


def long(events: int) -> dict:
    """Return the arrays of a sequence of so many events."""
    numbers = {name: [1] * events for name in ("item_keys", "category_keys", "behaviors", "event_seconds")}
    return {**numbers, "gap_seconds": [0] * events, "item_ids": ["i1"] * events}


W, HISTORY = 30 * 86_400, 365 * 86_400
NO_CATEGORY = {"current_categories": [], "current_counts": [], "current_shares": [], "dominant_category": None}
# States of one day, each with what is wrong with it.
ROWS: Tagged = [
    (state("good"), ""),
    *((state(f"no {name}", **{name: None}), f"not null {name}") for name in (*ARRAYS, *SCALARS) if name != "user_id"),
    (state("nobody", user_id=None), "not null user_id, between duplicate_users"),  # a missing user is a user less
    (state("good"), "between duplicate_users"),
    # Numbers at the ends of what is possible, and beyond them.
    *((state(f"seen {n} s ago", recency_seconds=n), "") for n in (0, W)),
    *((state(f"seen {n} s ago", recency_seconds=n), "between recency_seconds") for n in (-1, W + 1)),
    (state("not seen", frequency=0, week_frequency=0), "between frequency"),
    *((state(f"on {n} days", active_days=n), "") for n in (1, 30, None)),
    *((state(f"on {n} days", active_days=n), "between active_days") for n in (0, 31)),
    (state("paid nothing", spend=0.0), ""),
    (state("paid to shop", spend=-0.01), "between spend"),
    (state("a quiet week", week_frequency=0), ""),
    (state("a negative week", week_frequency=-1), "between week_frequency, between contradicting_counts"),
    (state("on no day", history_days_active=0), "between history_days_active"),
    (state("on all days", history_days_active=365, history_events=365), ""),
    (state("on more days than all", history_days_active=366, history_events=366), "between history_days_active"),
    *((state(f"known for {n} s", tenure_seconds=n), "") for n in (0, HISTORY)),
    *((state(f"known for {n} s", tenure_seconds=n), "between tenure_seconds") for n in (-1, HISTORY + 1)),
    # Arrays.
    (state("without category", **NO_CATEGORY), ""),
    *((state(f"uneven {name}", **{name: [1]}), "between uneven") for name in ("behaviors", "current_counts")),
    (state("uneven days", longterm_days=[1]), "between uneven"),
    (state("as long as it may be", **long(50)), ""),
    (state("too long", **long(51)), "between too_long"),
    (state("all behaviors", **long(5) | {"behaviors": [1, 2, 3, 4, 5]}), ""),
    *((state(f"behavior {code}", behaviors=[code, 1]), "between unknown_behaviors") for code in (0, 6)),
    (state("two at once", gap_seconds=[0, 0]), ""),
    (state("backwards", gap_seconds=[0, -60]), "between unordered"),
    (state("rounded", longterm_shares=[0.7, 0.3 + 5e-7]), ""),
    (state("more than rounded", longterm_shares=[0.7, 0.3 - 2e-6]), "between not_a_distribution"),
    (state("current too much", current_shares=[0.8, 0.3]), "between not_a_distribution"),
    # The week lies in the month and the month in the history, in all and in each category.
    (state("week over month", week_frequency=3), "between contradicting_counts"),
    (state("month over history", history_events=1), "between contradicting_counts"),
    (state("category: week over month", longterm_week_counts=[0, 2]), "between contradicting_counts"),
    (state("category: month over history", longterm_current_counts=[2, 1]), "between contradicting_counts"),
    (state("category: a negative week", longterm_week_counts=[-1, 1]), "between contradicting_counts"),
    (state("more days than events", history_days_active=3), "between more_days_than_events"),
    (state("category: more days than events", longterm_days=[1, 2]), "between more_days_than_events"),
    (state("category: on no day", longterm_days=[0, 1]), "between more_days_than_events"),
    # The last second of T, and the first after it.
    (state("last second", event_seconds=[at(100), at(1)]), ""),
    (state("event after T", event_seconds=[at(100), at(0)]), "between after_day"),
    (state("last moment", last_event_time=datetime(2025, 1, 20, 23, 59, 59, 999_999)), ""),
    (state("last event after T", last_event_time=datetime(2025, 1, 21)), "between after_day"),
    (state("category of the last second", longterm_age_seconds=[1, 100]), ""),
    (state("category after T", longterm_age_seconds=[100, 0]), "between after_day"),
]

# Other days, farther apart than the lookback, so that what is recent at one is not at another: one that lost something,
# one before which landing days were never published, and the first one of all, before which there are none.
LOST, MISSING = date(2025, 3, 20), date(2025, 5, 1)
BEGINS = LOST - timedelta(days=365)


def ago(days: int, day: date = LOST) -> date:
    return day - timedelta(days=days)


def happened(event_id: str, user: str, dt: date, landed: date | None = None) -> dict:
    return {"event_id": event_id, "user_id": user, "dt": dt, "landed": landed or dt}


EVENTS = [
    # Within the lookback by one day, known by one day: 3 events on 2 days, and 2 older days.
    happened("1", "known", ago(29)),
    happened("2", "known", ago(29), landed=LOST),
    happened("3", "known", LOST),
    happened("1", "known", ago(29), landed=ago(20)),  # arrived again
    happened("4", "known", ago(30)),
    happened("5", "known", ago(364)),
    # Before the history (and first of all), not known at T, and after T.
    happened("6", "known", ago(365)),
    happened("7", "known", ago(100), landed=ago(-1)),
    happened("8", "known", ago(1), landed=ago(-1)),
    happened("9", "known", ago(-1)),
    # Not active at T: seen too long ago, and not known yet.
    happened("10", "gone", ago(30)),
    happened("11", "late", ago(2), landed=ago(-1)),
    # Active, and without a state.
    happened("12", "lost", LOST),
    happened("13", "lost", LOST),
    # The farthest that count at BEGINS, the first T of the run.
    happened("16", "known", ago(29, BEGINS), landed=BEGINS),
    happened("17", "known", ago(364, BEGINS), landed=BEGINS),
    # Active at MISSING only.
    happened("14", "later", MISSING),
    happened("15", "later", ago(3, MISSING)),
]
EARLY = {"event_seconds": [0, 0], "last_event_time": datetime(2024, 3, 20)}
STATES = [
    # Of `known` the audit has to find that an old day is not counted.
    state("known", dt=LOST, frequency=3, active_days=2, week_frequency=1, history_events=4, history_days_active=3),
    state("later", dt=MISSING, active_days=2, history_days_active=2),
    state(
        "known",
        dt=BEGINS,
        frequency=2,
        active_days=2,
        week_frequency=1,
        history_events=3,
        history_days_active=3,
        **EARLY,
    ),
]
# All landing days that a run has published, with events or without: all but two before MISSING.
LANDED = [day for n in range(0, 31 + 365) if (day := ago(n, MISSING)) not in (ago(29, MISSING), ago(10, MISSING))]


@pytest.fixture(scope="module")
def seen(spark, shared_lake) -> Seen:
    before = sorted({event["landed"] for event in EVENTS} | set(LANDED))
    stage_files("events", "upstream", EVENTS, before, 1)
    version = publish("events", "upstream")["version"]
    # A summary of a landing day that has its events, and more weight than they have.
    sums = {"user_id": "later", "n": 1, "weight": 1, "days": [{"dt": MISSING, "weight": 1}]}
    kept, block = spark.createDataFrame([{**sums, "first": MISSING, "last": MISSING}], SUMS), Block(MISSING, MISSING)
    events = Table("events")
    Summaries.of(ON_TIME.name, SUMS).keep(kept, ON_TIME.keys(Landings(events), [block], WEIGHTS), events)
    # A week of ten users a day, seven weeks before MISSING.
    week = [ago(n, MISSING) for n in range(22, 29)]
    stage_files("interests", "before", [state(f"{n}", dt=day) for day in week for n in range(10)], week, 0)
    publish("interests", "before")
    rows, counts = without_tags(ROWS) + STATES, {"include_late": False}
    stage_rows("interests", "r", rows, [BEGINS, T, LOST, MISSING], counts=counts, inputs={"events": version})
    return see(spark, "interests", "r")


@pytest.mark.spark
def test_an_audit_counts_every_state_that_is_broken_and_no_other(seen):
    # No event is published of the users with faults, who are all in the sample, but for the one who has no id.
    sampled = {"between sample_differs": len(ROWS) - 1}
    assert seen.rows_counted() + seen.counted(T) == expected(ROWS) + Counter(sampled)
    assert not seen.counted(BEGINS)
    assert seen.counted(LOST) == {"between sample_differs": 1}, "a user without a state"
    assert seen.counted(MISSING) == {"between summaries_differ": 1}


UPSTREAM = ("active_upstream", "events_upstream", "days_upstream")


@pytest.mark.spark
def test_users_and_events_of_the_lookback_and_days_of_the_history_are_those_that_were_known_then(seen):
    assert seen.on(LOST, *UPSTREAM) == (2, 3 + 2, 4 + 1)
    assert seen.on(LOST, "rows", "frequency_total", "days_total") == (1, 3, 3)
    assert seen.on(MISSING, *UPSTREAM) == seen.on(MISSING, "rows", "frequency_total", "days_total") == (1, 2, 2)
    assert seen.on(BEGINS, *UPSTREAM) == seen.on(BEGINS, "rows", "frequency_total", "days_total") == (1, 2, 3)
    # No event is published that is near the states with faults.
    assert seen.on(T, *UPSTREAM) == (0, 0, 0)


@pytest.mark.spark
def test_landing_days_of_the_lookback_that_nobody_has_published_are_counted(seen):
    # One of the two is the first day of the lookback of MISSING.
    days = (BEGINS, T, LOST, MISSING)
    assert [seen.on(day, "missing_landings") for day in days] == [(0,), (0,), (0,), (2,)]


@pytest.mark.spark
def test_volume_is_compared_with_the_days_before(seen):
    assert seen.on(MISSING, "rows", "usual_rows", "volume_ratio") == (1, 10, 0.1)
    assert seen.on(LOST, "usual_rows", "volume_ratio") == (None, None)


@pytest.mark.spark
def test_every_expectation_is_seen_failing(seen):
    assert set(seen.broken) == all_of("interests")
    assert seen.verdict.verdict == "failed"


@pytest.mark.spark
def test_a_restatement_counts_what_arrived_later(spark, shared_lake, seen):
    staged = replace(read_staged("interests", "r"), counts={"include_late": True})
    figures = pd.DataFrame({"day": staged.owns, "rows": 0})
    found = interests.extend(spark, staged.read(spark), staged, figures, settings()).set_index("day")
    # One more user, of one event; and of `known` one more in the lookback and one before it, on days of their own.
    assert tuple(found.loc[LOST, list(UPSTREAM)]) == (2 + 1, 5 + 1 + 1, 5 + 1 + 2)


@pytest.mark.spark
def test_a_lookback_shorter_than_a_week_lies_in_the_week(spark, shared_lake, monkeypatch):
    monkeypatch.setenv("MEANDER_LOOKBACK_DAYS", "3")
    in_the_week = {"frequency": 1, "week_frequency": 2, "longterm_week_counts": [1, 1]}
    states = [
        state("good", **in_the_week, longterm_current_counts=[0, 1]),
        state("in all", **in_the_week | {"frequency": 3, "history_events": 3}, longterm_current_counts=[0, 1]),
        state("in a category", **in_the_week | {"longterm_counts": [2, 1]}, longterm_current_counts=[2, 1]),
    ]
    stage_rows("interests", "short", states, [T])
    staged = read_staged("interests", "short")
    figures, _ = measure(interests.SUITE, staged.read(spark), staged, settings())
    assert list(figures["contradicting_counts"]) == [2]


def test_missing_landings_and_an_unusual_number_of_users_only_warn():
    figures = {"missing_landings": [0, 1], "volume_ratio": [0.7, 1.4, 0.699, 1.401]}
    limits = {"warning missing_landings": [1], "warning volume_ratio": [0.699, 1.401]}
    assert refused("interests", figures) == limits
    assert warnings_of("interests") == set(limits)


@pytest.mark.spark
def test_where_categories_are_cut_shares_may_add_up_to_less_and_no_more_categories_than_that_are_kept(spark):
    def counted(kept: int, *shares: list[float]) -> tuple[int, int]:
        arrays = [name for name in ARRAYS if name.startswith("longterm_") and name != "longterm_shares"]
        rows = [state(f"{n}", longterm_shares=each) for n, each in enumerate(shares)]
        rows = [{**row, **{name: row[name][:1] * len(row["longterm_shares"]) for name in arrays}} for row in rows]
        config = settings().model_copy(update={"longterm_categories": kept})
        wanted = ("not_a_distribution", "too_long")
        measured = [interests.measures(config)[name].alias(name) for name in wanted]
        (found,) = spark.createDataFrame(rows, INTERESTS).agg(*measured).collect()
        return tuple(found)

    some = [0.5], [0.5, 0.2], [0.5, 0.5], [0.6, 0.2, 0.2], [0.9, 0.2], []
    assert counted(0, *some) == (3, 0), "all are kept: the first two and the last but one add up to something else"
    assert counted(2, *some) == (2, 1), "of two, the second may have been cut; the first had room"
    assert counted(1, *some) == (1, 4)
