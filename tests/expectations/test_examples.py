"""The suite of `examples`: features from before the end of T, labels from after it, and a row for every state."""

from datetime import date, datetime, timedelta

import pytest

from lake.publish import publish
from lake.schemas import INTERESTS
from tests.expectations.cases import (
    audit_and_see,
    between,
    not_null,
    require_all_were_seen_failing,
    stage_rows,
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
UNJUDGED = {"migrated": None, "js_distance": None, "g_p_value": None}
LABELS = ("horizon_days", "next_category_key", "next_events", "purchased", "churned", "next_categories", "next_counts")
LABELS += ("next_shares", "next_item_keys")

# Each case: examples, each with its reason; what differs upstream (see `publish_upstream`); what must fail.
CASES = {
    "columns are missing": (
        [example("good")] + [example(f"no {name}", **{name: None}) for name in ("user_id", "dt", *LABELS)],
        {},
        not_null("user_id", "dt", *LABELS)
        # A missing user is a user less, and an example without its date does not stand beside the others at T.
        | {"between duplicate_users", "equal rows_upstream", "equal states_upstream"}
        # Without its categories an example has no next category either.
        | between("wrong_category"),
    ),
    "numbers are impossible": (
        [
            example("another horizon", horizon_days=6),
            example("farther than can be", js_distance=1.01),
            example("less than impossible", g_p_value=-0.01),
            example("fewer than none", next_events=-1),
        ],
        {},
        between("horizon_days", "js_distance", "g_p_value", "next_events", "overcounted", "wrong_items")
        | {"equal events_upstream"},
    ),
    "a feature comes from after T": (
        [example("good"), example("leak", last_event_time=BEGIN)],
        {},
        between("after_day"),
    ),
    "the newest event of a category comes from after T, and a label from before the horizon": (
        [
            example("good"),
            example("leak", longterm_age_seconds=[40, 0]),
            example("early", first_label_time=BEGIN - MICROSECOND),
        ],
        {},
        between("after_day", "labels_outside"),
    ),
    "a label event comes from after the horizon": (
        [example("good"), example("leak", last_label_time=CLOSE)],
        {},
        between("labels_outside"),
    ),
    "label times run backwards": (
        [example("u", first_label_time=CLOSE - MICROSECOND, last_label_time=BEGIN)],
        {},
        between("labels_outside"),
    ),
    "label times are missing, or of nothing": (
        [
            example("gone", **NOTHING),
            example("none", first_label_time=None, last_label_time=None),
            example("ghost", **{**NOTHING, "first_label_time": BEGIN, "last_label_time": BEGIN}),
        ],
        {},
        between("untimed"),
    ),
    "examples are missing, and twice": (
        [example("one"), example("one"), example("two")],
        {"lost": 2},
        # One lost state would be made up for by the example that is there twice, in number but not in what it says.
        {"between duplicate_users", "equal rows_upstream", "equal states_upstream", "equal events_upstream"},
    ),
    "a feature is not that of the state": (
        [example("good"), example("changed", spend=9.25)],
        {"states": {"changed": {"spend": 9.5}}},
        {"equal states_upstream"},
    ),
    "a label counts an event that did not happen": (
        [example("good"), example("leak", next_events=6)],
        {},
        {"equal events_upstream"},
    ),
    "a label counts an event that was not known at the close": (
        [example("good")],
        {"late": 1},
        {"equal events_upstream"},
    ),
    "a landing day of the horizon is missing": ([example("good")], {"landings": 6}, between("missing_landings")),
    "labels contradict each other": (
        [
            example("churned and did something", churned=True),
            example("bought nothing", **{**NOTHING, "purchased": True}),
            example("uneven", next_shares=[1.0]),
            example("no distribution", next_shares=[0.9, 0.2]),
            example("more events in categories than at all", next_counts=[5, 1]),
            example("another category", next_category="c"),
            example("an item twice", next_item_keys=[1, 1]),
            example("judged from few", next_counts=[3, 1]),
            example("moved by chance", g_p_value=0.06),
        ],
        {},
        between("misjudged_churn", "purchases_of_nothing", "uneven", "not_a_distribution", "overcounted")
        | between("wrong_category", "wrong_items", "wrongly_unjudged", "misjudged_migration"),
    ),
    "labels contradict each other in another way": (
        [
            example("did nothing and has not churned", **{**NOTHING, "churned": False}),
            example("a category without event", next_counts=[5, 0]),
            example("another key", next_category_key=KEY_A),
            example("more items than events", next_item_keys=[1, 2, 3, 4, 5, 6]),
            example("few, and not judged", next_counts=[3, 1], **UNJUDGED),
            example("enough, and not judged", **UNJUDGED),
            example("moved and is said to have stayed", migrated=False),
        ],
        {},
        between("misjudged_churn", "overcounted", "wrong_category", "wrong_items", "wrongly_unjudged")
        | between("misjudged_migration"),
    ),
}


def publish_upstream(rows: list[dict], lost: int = 0, states: dict | None = None, late: int = 0, landings: int = 7):
    """Publish the states of the examples and what these users did; return what the manifest says of it.

    Args:
        rows: the examples.
        lost: users with a state and no example.
        states: {user: columns} of states that differ from the examples.
        late: label events of each user that arrived only after the horizon.
        landings: days of the horizon whose landing is published.
    """
    users = dict.fromkeys(row["user_id"] or "nobody" for row in rows)
    features = {row["user_id"] or "nobody": {name: row[name] for name in INTERESTS.fieldNames()} for row in rows}
    upstream = [{**features[user], "user_id": user, "dt": T, **(states or {}).get(user, {})} for user in users]
    upstream += [{**state(f"lost {n}", **FEATURES)} for n in range(lost)]
    stage_files("interests", "upstream", upstream, [T], 1)
    inputs = {"interests": publish("interests", "upstream")["version"]}

    days = [T + timedelta(days=n) for n in range(9)]
    happened = {row["user_id"] or "nobody": 0 if row["next_events"] == 0 else 5 for row in rows}
    log = [
        {"event_id": f"{user} {n}", "user_id": user, "dt": days[1 + n], "landed": days[min(1 + n, landings)]}
        for user, count in happened.items()
        for n in range(count - late)
    ]
    # Neither what happened outside the horizon, nor what others did in it, is a label; what arrived twice is one.
    log += [
        {"event_id": f"{user} {day}", "user_id": user, "dt": day, "landed": day}
        for user in users
        for day in (T, days[8])
    ]
    log += [{"event_id": "other", "user_id": "without a state", "dt": days[1], "landed": days[1]}]
    log += [{**log[0], "landed": days[2]}] if log[0]["dt"] == days[1] else []
    log += [
        {"event_id": f"{user} late {n}", "user_id": user, "dt": days[7], "landed": days[8]}
        for user in users
        for n in range(late)
    ]
    landed = [T, *days[1 : 1 + landings], days[8]]
    stage_files("events", "upstream", log, landed, 1)
    inputs["events"] = publish("events", "upstream")["version"]
    return {"counts": {"include_late": False}, "inputs": inputs}


@pytest.mark.spark
@pytest.mark.parametrize("case", CASES)
def test_an_audit_fails_on_what_is_broken_and_on_nothing_else(spark, lake, case):
    rows, upstream, expected = CASES[case]
    stage_rows(spark, "examples", "r", rows, [T], **publish_upstream(rows, **upstream))
    assert audit_and_see(spark, "examples", "r")[1] == expected


def test_every_critical_expectation_is_seen_failing():
    require_all_were_seen_failing("examples", (expected for _, _, expected in CASES.values()))


@pytest.mark.spark
def test_a_share_of_churned_or_migrated_users_far_from_the_recent_ones_only_warns(spark, lake):
    weeks = [T - timedelta(days=7 * n) for n in (3, 2, 1)]
    before = [example(f"{n}", dt=day, migrated=n > 5, churned=n > 5) for day in weeks for n in range(10)]
    stage_files("examples", "before", before, weeks, 0)
    publish("examples", "before")
    rows = [example("one")]
    stage_rows(spark, "examples", "r", rows, [T], **publish_upstream(rows))
    verdict, _ = audit_and_see(spark, "examples", "r")
    assert sorted(said.split(" is within")[0] for said in verdict.failed) == [
        "the share of churned users",
        "the share of migrated users",
    ]
    assert publish("examples", "r")["verdict"] == "warned"
