"""The suite of `examples`: features from before the end of T, labels from after it, and a row for every state."""

from dataclasses import replace
from datetime import date, datetime, time, timedelta

import pandas as pd
import pytest
from pyspark.sql.types import StringType, StructField, StructType

from expectations import examples
from expectations.examples import drift, state_sum
from lake.publish import publish
from lake.schemas import EXAMPLES, INTERESTS
from lake.settings import settings
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
from tests.expectations.test_interests import state
from tests.lake.stagings import stage_files

T = date(2025, 1, 20)
BEGIN = datetime(2025, 1, 21)  # the horizon, of seven days
CLOSE = datetime(2025, 1, 28)
MICROSECOND = timedelta(microseconds=1)
KEY_A, KEY_B = -8582455328737087284, -6391946315847899181  # xxhash64 of "a" and "b"

# Ten events of two categories before T, and five after it.
FEATURES = {"current_counts": [9, 1], "longterm_counts": [9, 1], "longterm_current_counts": [9, 1]}
FEATURES |= {"frequency": 10, "history_events": 10}


def example(user: str, **changes) -> dict:
    """Make a good example of a user who moved from `a` to `b`, and change it."""
    good = {
        **state(user, **FEATURES),
        "horizon_days": 7,
        "next_categories": ["b", "a"],
        "next_counts": [4, 1],
        "next_shares": [0.9, 0.1],
        "next_category": "b",
        "next_category_key": KEY_B,
        "next_item_keys": [11, 13],
        "next_events": 5,
        "migrated": True,
        "js_distance": 0.6,
        "g_p_value": 0.01,
        "purchased": True,
        "churned": False,
        "first_label_time": BEGIN,
        "last_label_time": CLOSE - MICROSECOND,
    }
    return {**good, **changes}


NOTHING = {
    **{name: [] for name in ("next_categories", "next_counts", "next_shares", "next_item_keys")},
    **dict.fromkeys(("next_category", "migrated", "js_distance", "g_p_value", "first_label_time", "last_label_time")),
    "next_category_key": 0,
    "next_events": 0,
    "purchased": False,
    "churned": True,
}
STAYED = {"next_categories": ["a", "b"], "next_category": "a", "next_category_key": KEY_A}
UNJUDGED = {"migrated": None, "js_distance": None, "g_p_value": None}
LABELS = ("horizon_days", "next_category_key", "next_events", "purchased", "churned", "next_categories", "next_counts")
LABELS += ("next_shares", "next_item_keys")

# Examples of one T, each with what is wrong with it.
ROWS: Tagged = [
    (example("good"), ""),
    *((example(f"no {name}", **{name: None}), f"not null {name}") for name in LABELS if name != "next_categories"),
    # Without its categories an example has no next category either.
    (example("no categories", next_categories=None), "not null next_categories, between wrong_category"),
    (example("no dt", dt=None), "not null dt"),
    (example("nobody", user_id=None), "not null user_id, between duplicate_users"),  # a missing user is a user less
    (example("good"), "between duplicate_users"),
    # Numbers at the ends of what is possible, and beyond them.
    *((example(f"horizon {n}", horizon_days=n), "between horizon_days") for n in (6, 8)),
    (example("fewer than none", next_events=-1), "between next_events, between overcounted, between wrong_items"),
    *((example(f"distance {n}", js_distance=n), "") for n in (0.0, 1.0)),
    *((example(f"distance {n}", js_distance=n), "between js_distance") for n in (-0.01, 1.01)),
    *((example(f"p {n}", g_p_value=n, migrated=n < 0.05), "") for n in (0.0, 1.0)),
    *((example(f"p {n}", g_p_value=n, migrated=n < 0.05), "between g_p_value") for n in (-0.01, 1.01)),
    # Features: the last second of T, and the first after it.
    (example("last moment", last_event_time=BEGIN - MICROSECOND), ""),
    (example("after T", last_event_time=BEGIN), "between after_day"),
    (example("category after T", longterm_age_seconds=[40, 0]), "between after_day"),
    (example("event after T", event_seconds=[0, int(BEGIN.timestamp())]), "between after_day"),
    # Labels: the first moment of the horizon and the last, which the good one has, and those before and after.
    (example("early", first_label_time=BEGIN - MICROSECOND), "between labels_outside"),
    (example("late", last_label_time=CLOSE), "between labels_outside"),
    (example("backwards", first_label_time=CLOSE - MICROSECOND, last_label_time=BEGIN), "between labels_outside"),
    (example("no first", first_label_time=None), "between untimed"),
    (example("no last", last_label_time=None), "between untimed"),
    (example("gone", **NOTHING), ""),
    (example("first of nothing", **NOTHING | {"first_label_time": BEGIN}), "between untimed"),
    (example("last of nothing", **NOTHING | {"last_label_time": BEGIN}), "between untimed"),
    (example("churned and did something", churned=True), "between misjudged_churn"),
    (example("gone and not churned", **NOTHING | {"churned": False}), "between misjudged_churn"),
    (example("bought nothing", **NOTHING | {"purchased": True}), "between purchases_of_nothing"),
    # Arrays.
    (example("uneven", next_shares=[1.0]), "between uneven"),
    (example("no distribution", next_shares=[0.9, 0.2]), "between not_a_distribution"),
    (example("more in categories than at all", next_counts=[5, 1]), "between overcounted"),
    (example("a category without event", next_counts=[5, 0]), "between overcounted"),
    (example("another category", next_category="c"), "between wrong_category"),
    (example("another key", next_category_key=KEY_A), "between wrong_category"),
    (example("an item twice", next_item_keys=[1, 1]), "between wrong_items"),
    (example("as many items as events", next_item_keys=[1, 2, 3, 4, 5]), ""),
    (example("more items than events", next_item_keys=[1, 2, 3, 4, 5, 6]), "between wrong_items"),
    (example("as many items as may be", next_events=200, next_item_keys=list(range(100))), ""),
    (example("more items than may be", next_events=200, next_item_keys=list(range(101))), "between wrong_items"),
    # Migration is judged from 5 events on on either side, which the good one has after T.
    (example("few after, not judged", next_counts=[3, 1], **UNJUDGED), ""),
    (example("few before, not judged", current_counts=[3, 1], **UNJUDGED), ""),
    # Two of what is wrong beside one that is right: where they are confused, one would make up for the other.
    *((example(f"few after, judged {n}", next_counts=[3, 1]), "between wrongly_unjudged") for n in (1, 2)),
    *((example(f"few before, judged {n}", current_counts=[3, 1]), "between wrongly_unjudged") for n in (1, 2)),
    *((example(f"enough, no {name}", **{name: None}), "between wrongly_unjudged") for name in UNJUDGED),
    (example("moved, and is said to have stayed", migrated=False), "between misjudged_migration"),
    (example("moved by chance", g_p_value=0.05), "between misjudged_migration"),
    (example("stayed by chance", g_p_value=0.06, migrated=False), ""),
    (example("stayed", **STAYED, migrated=False), ""),
    *((example(f"stayed, said to have moved {n}", **STAYED), "between misjudged_migration") for n in (1, 2)),
]

# A good T, with what happened around it; one whose states are others than its examples say; and one where a state has
# the features of another value. The T of the faults is so long before them that it says nothing of what is usual.
FAULTS = T
GOOD, LOST, CHANGED = date(2025, 4, 20), date(2025, 5, 20), date(2025, 6, 20)


def after(days: int, day: date = GOOD) -> date:
    return day + timedelta(days=days)


def simply(user: str, day: date, **changes) -> dict:
    """Make an example at another T that is good by itself."""
    midnight = datetime.combine(after(1, day), time())
    return {**example(user), "dt": day, "first_label_time": midnight, "last_label_time": midnight, **changes}


EXAMPLE_ROWS = [
    simply("one", GOOD),
    simply("gone", GOOD, **NOTHING),
    simply("one", LOST),
    simply("without a state", LOST, **NOTHING),
    simply("one", CHANGED, spend=9.25),
]
# What the examples were made from. Neither users without an example nor other days count.
STATES = [
    *({**state(user, **FEATURES), "dt": GOOD} for user in ("one", "gone")),
    *({**state(user, **FEATURES), "dt": LOST} for user in ("one", "two", "three")),
    {**state("one", **FEATURES), "dt": CHANGED, "spend": 9.5},
    {**state("one", **FEATURES), "dt": after(1)},
]


def happened(event_id: str, user: str, dt: date, landed: date | None = None) -> dict:
    return {"event_id": event_id, "user_id": user, "dt": dt, "landed": landed or dt}


EVENTS = [
    # The first day of the horizon and the last, one that arrived on the last, two on a day, and one of them twice.
    happened("1", "one", after(1)),
    happened("1", "one", after(1), landed=after(3)),
    happened("2", "one", after(7)),
    happened("3", "one", after(2), landed=after(7)),
    happened("4", "one", after(4)),
    happened("5", "one", after(4)),
    # At T, after the horizon, and not known at its end.
    happened("6", "one", GOOD),
    happened("7", "one", after(8)),
    happened("8", "one", after(7), landed=after(8)),
    # Of one who has no example at this T.
    happened("9", "without a state", after(1)),
    # An event where the example counts five, and five.
    happened("10", "one", after(1, LOST)),
    *(happened(f"1{n}", "one", after(n, CHANGED)) for n in (1, 2, 3, 5, 7)),
    happened("20", "good", after(1, FAULTS)),
]
# All landing days of the horizons are published, but two in the middle of one and the last of another.
LANDED = [after(n, day) for day in (FAULTS, GOOD) for n in range(9)]
LANDED += [after(n, LOST) for n in range(7)] + [after(n, CHANGED) for n in (1, 2, 3, 5, 7)]

# What is usual. Shares of churned users: 1 of 5, 1 of 5, none. Of migrated ones: 1 of 2 judged, none of 1, none judged.
WEEKS = {
    after(-21): [{"churned": n < 1, "migrated": (True, False, None, None, None)[n]} for n in range(5)],
    after(-14): [{"churned": n < 1, "migrated": (False, None, None, None, None)[n]} for n in range(5)],
    after(-7): [{"churned": False, "migrated": None}],
}


@pytest.fixture(scope="module")
def seen(spark, shared_lake) -> Seen:
    days = [GOOD, LOST, CHANGED]
    stage_files("interests", "upstream", STATES, [*days, after(1)], 1)
    stage_files("events", "upstream", EVENTS, sorted(set(LANDED)), 1)
    inputs = {name: publish(name, "upstream")["version"] for name in ("interests", "events")}
    before = [example(f"{n}", dt=day, **row) for day, week in WEEKS.items() for n, row in enumerate(week)]
    stage_files("examples", "before", before, list(WEEKS), 0)
    publish("examples", "before")
    rows = without_tags(ROWS) + EXAMPLE_ROWS
    stage_rows("examples", "r", rows, [FAULTS, *days], inputs=inputs, counts={"include_late": False})
    return see(spark, "examples", "r")


@pytest.mark.spark
def test_an_audit_counts_every_example_that_is_broken_and_no_other(seen):
    assert seen.rows_counted() + seen.counted(FAULTS) == expected(ROWS)
    assert not seen.counted(GOOD)
    assert seen.counted(LOST) == {"between missing_landings": 1}
    assert seen.counted(CHANGED) == {"between missing_landings": 2}


@pytest.mark.spark
def test_every_state_has_an_example_with_its_features_unchanged(seen):
    assert [seen.on(day, "rows_upstream", "rows") for day in (GOOD, LOST, CHANGED)] == [(2, 2), (3, 2), (1, 1)]
    same = {day: len(set(seen.on(day, "states_upstream", "states"))) == 1 for day in (GOOD, LOST, CHANGED)}
    assert same == {GOOD: True, LOST: False, CHANGED: False}


@pytest.mark.spark
def test_the_labels_count_exactly_the_events_of_the_horizon_that_were_known_at_its_end(seen):
    pairs = [seen.on(day, "events_upstream", "next_events_total") for day in (GOOD, LOST, CHANGED)]
    assert pairs == [(5, 5), (1, 5), (5, 5)]
    assert seen.on(FAULTS, "events_upstream") == (1,)


def events_upstream(spark, day, **changes):
    """Return the events of the horizon of a day, as the audit of the same rows counts them in another run."""
    staged = replace(read_staged("examples", "r"), **changes)
    zeros = dict.fromkeys(("rows", "judged", "churned", "migrated"), 0)
    figures = pd.DataFrame({"day": staged.owns, **zeros})
    found = examples.extend(spark, staged.read(spark), staged, figures, settings()).set_index("day")
    return found.loc[day, ["events_upstream", "missing_landings"]].tolist()


@pytest.mark.spark
def test_a_restatement_counts_what_arrived_later_and_waits_for_no_landing_day(spark, shared_lake, seen):
    late = {"include_late": True}
    assert events_upstream(spark, GOOD, counts=late)[0] == 5 + 1
    assert events_upstream(spark, CHANGED, counts=late)[1] == 0


@pytest.mark.spark
def test_events_of_a_date_are_none_of_its_horizon_also_where_they_are_of_that_of_another_date(spark, shared_lake, seen):
    assert events_upstream(spark, GOOD, owns=[after(-1), GOOD]) == [5, 0]


@pytest.mark.spark
def test_shares_are_compared_with_those_of_recent_dates_published_or_staged_by_the_same_run(seen):
    # Of two users one has churned and one is judged, and has migrated. 0.2, 0.2 and 0 were usual; of only two dates a
    # share of migrated users is known, which is too few.
    assert seen.on(GOOD, "churned_share", "migrated_share", "churned_drift", "migrated_drift") == (
        0.5, 1, pytest.approx(0.3), None,
    )  # fmt: skip
    # With that date itself there are three: 0.5, 0 and 1.
    assert seen.on(LOST, "churned_share", "migrated_share", "churned_drift", "migrated_drift") == (
        0.5, 1, pytest.approx(0.3), 0.5,
    )  # fmt: skip
    # The other three are too long ago.
    assert seen.on(CHANGED, "churned_drift", "migrated_drift") == (None, None)


@pytest.mark.spark
def test_every_expectation_is_seen_failing(seen):
    assert set(seen.broken) == all_of("examples")
    assert seen.verdict.verdict == "failed"


@pytest.mark.spark
def test_any_feature_that_changes_changes_the_sum_of_the_states(spark):
    other = {list: lambda each: each[:1], str: lambda each: f"{each}!", datetime: lambda each: each - MICROSECOND}
    features = [name for name in INTERESTS.fieldNames() if name != "dt"]
    rows = [("", example("u"))]
    for name in features:
        value = rows[0][1][name]
        rows.append((name, example("u", **{name: other.get(type(value), lambda each: each + 1)(value)})))
    schema = StructType([StructField("changed", StringType()), *EXAMPLES.fields])
    frame = spark.createDataFrame([(key, *(row[n] for n in EXAMPLES.fieldNames())) for key, row in rows], schema)
    sums = {row["changed"]: row["sum"] for row in frame.groupBy("changed").agg(state_sum().alias("sum")).collect()}
    assert [name for name in features if sums[name] == sums[""]] == []


def test_a_drift_is_the_difference_from_the_median_of_at_least_three_recent_dates():
    usual = {after(-1): 0.25, after(-2): 0.5, after(-56): 1.0}
    assert drift({**usual, GOOD: 0.75}, GOOD) == 0.25
    assert drift({**usual, GOOD: 0.25}, GOOD) == -0.25
    # Later dates and what is not known are no part of it, and neither is what is more than 56 days old.
    more = {after(1): 0.0, after(-3): None, after(-4): float("nan"), after(-57): 0.0}
    assert drift({**usual, **more, GOOD: 0.75}, GOOD) == 0.25
    two = {day: share for day, share in usual.items() if day != after(-56)}
    assert drift({**two, after(-57): 1.0, GOOD: 0.75}, GOOD) is None
    for unknown in (None, float("nan")):
        assert drift({**usual, GOOD: unknown}, GOOD) is None
    assert drift(usual, GOOD) is None


def test_shares_that_moved_either_way_only_warn():
    drifts = [-0.151, -0.15, 0, 0.15, 0.151]
    limits = {"warning churned_drift": [-0.151, 0.151], "warning migrated_drift": [-0.151, 0.151]}
    assert refused("examples", {"churned_drift": drifts, "migrated_drift": drifts}) == limits
    assert warnings_of("examples") == set(limits)
