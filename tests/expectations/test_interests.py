"""The suite of `interests`: nothing from after T, and every active user."""

from datetime import UTC, date, datetime, timedelta

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
LONG = {name: [1] * 51 for name in ("item_keys", "category_keys", "behaviors", "event_seconds", "gap_seconds")}
LONG["item_ids"] = ["i1"] * 51

# Each case: states, each with its reason; users that are active upstream and have none; what must fail.
CASES = {
    "columns are missing": (
        [state("good")] + [state(f"no {name}", **{name: None}) for name in (*ARRAYS, *SCALARS)],
        0,
        # A missing user is a user less, and a state without its date does not stand beside the others at T.
        not_null(*ARRAYS, *SCALARS) | {"between duplicate_users", "equal active_upstream", "equal events_upstream"},
    ),
    "numbers are impossible": (
        [
            state("just seen", recency_seconds=0),
            state("seen W days ago", recency_seconds=30 * 86_400),
            state("seen before that", recency_seconds=30 * 86_400 + 1),
            state("never seen", frequency=0),
            state("on more days than there are", active_days=31),
            state("paid to shop", spend=-0.01),
            state("less than never seen this week", week_frequency=-1),
            state("known for longer than history goes back", tenure_seconds=365 * 86_400 + 1),
            state("known and never seen", history_days_active=0),
        ],
        0,
        between("recency_seconds", "frequency", "active_days", "spend", "week_frequency", "history_days_active")
        | between("tenure_seconds", "contradicting_counts")
        | {"equal events_upstream"},
    ),
    "arrays are wrong": (
        [
            state(
                "no category",
                current_categories=[],
                current_counts=[],
                current_shares=[],
                dominant_category=None,
            ),
            state("uneven", behaviors=[1]),
            state("too long", **LONG),
            state("padding", behaviors=[0, 1]),
            state("unordered", gap_seconds=[0, -60]),
            state("no distribution", longterm_shares=[0.7, 0.2]),
        ],
        0,
        between("uneven", "too_long", "unknown_behaviors", "unordered", "not_a_distribution"),
    ),
    "an array of the long-term interest is too short": ([state("uneven", longterm_days=[1])], 0, between("uneven")),
    "a week holds more events than the month": ([state("u", week_frequency=3)], 0, between("contradicting_counts")),
    "a month holds more events than the history": (
        [state("u", history_events=1)],
        0,
        between("contradicting_counts"),
    ),
    "a week in a category holds more events than the month": (
        [state("u", longterm_week_counts=[0, 2])],
        0,
        between("contradicting_counts"),
    ),
    "a month in a category holds more events than the history": (
        [state("u", longterm_current_counts=[2, 1])],
        0,
        between("contradicting_counts"),
    ),
    "a category has fewer than no events": (
        [state("u", longterm_week_counts=[-1, 1])],
        0,
        between("contradicting_counts"),
    ),
    "there are more days than events": (
        [state("u", history_days_active=3), state("v", longterm_days=[1, 2]), state("w", longterm_days=[0, 1])],
        0,
        between("more_days_than_events"),
    ),
    "users are missing, and twice": (
        [state("one"), state("one"), state("two")],
        2,  # one alone would be made up for by the user who is there twice
        {"between duplicate_users", "equal active_upstream", "equal events_upstream"},
    ),
    "a number counts an event that was not known at T": (
        [state("good"), state("leak", frequency=3, history_events=3)],
        0,
        {"equal events_upstream"},
    ),
    "an event of the sequence lies after T": (
        [state("good"), state("leak", event_seconds=[at(40), at(0)])],
        0,
        between("after_day"),
    ),
    "the newest event of a category lies after T": (
        [state("last moment", longterm_age_seconds=[1, 100]), state("leak", longterm_age_seconds=[0, 100])],
        0,
        between("after_day"),
    ),
    "the last event lies after T": (
        [state("good"), state("leak", last_event_time=datetime(2025, 1, 21), recency_seconds=0)],
        0,
        between("after_day"),
    ),
}


def publish_upstream(rows: list[dict], lost: int = 0) -> dict:
    """Publish two events at T of each user with a state and of `lost` others; return what the manifest says of it."""
    users = {row["user_id"] or "nobody" for row in rows} | {f"lost {n}" for n in range(lost)}
    seen = {"event_time": datetime(2025, 1, 20, 12), "dt": T, "landed": T}
    both = enumerate([*sorted(users), *sorted(users)])
    events = [{"event_id": f"{n:032}", "user_id": user, **seen} for n, user in both]
    # Neither what lies outside the lookback nor what was not known at T makes a user active at T.
    old, late = date(2024, 12, 21), T + timedelta(days=1)
    events.append({"event_id": "old", "user_id": "gone", "dt": old, "landed": T})
    stage_files("events", "upstream", events, [T], 1)
    publish("events", "upstream")
    stage_files("events", "late", [{"event_id": "late", "user_id": "unknown", "dt": T, "landed": late}], [late], 1)
    version = publish("events", "late")["version"]
    return {"counts": {"as_of": [f"{T}"], "include_late": False}, "inputs": {"events": version}}


@pytest.mark.spark
@pytest.mark.parametrize("case", CASES)
def test_an_audit_fails_on_what_is_broken_and_on_nothing_else(spark, lake, case):
    rows, lost, expected = CASES[case]
    stage_rows(spark, "interests", "r", rows, [T], **publish_upstream(rows, lost))
    assert audit_and_see(spark, "interests", "r")[1] == expected


def test_every_critical_expectation_is_seen_failing():
    require_all_were_seen_failing("interests", (expected for _, _, expected in CASES.values()))


@pytest.mark.spark
def test_missing_landing_days_and_an_unusual_number_of_users_only_warn(spark, lake):
    days = [JAN_1 + timedelta(days=n) for n in range(7)]
    stage_files("interests", "before", [state(f"{n}", dt=day) for day in days for n in range(10)], days, 0)
    publish("interests", "before")
    stage_files("events", "early", [{"event_id": "e", "user_id": "one", "dt": JAN_1, "landed": JAN_1}], [JAN_1], 1)
    publish("events", "early")
    rows = [state("one", frequency=3, history_events=3)]  # the early one is within the lookback
    stage_rows(spark, "interests", "r", rows, [T], **publish_upstream(rows))
    verdict, _ = audit_and_see(spark, "interests", "r")
    assert sorted(said.split(" [")[0] for said in verdict.failed) == [
        "every landing day of the lookback is published",
        "rows are 0.7 to 1.4 times the median of the 28 days before",
    ]
    assert publish("interests", "r")["verdict"] == "warned"
    assert Table("interests").rows_by()[T] == 1
