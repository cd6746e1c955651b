"""The suite of `predictions`: every user of the interests once, and numbers that can be probabilities."""

from collections import Counter
from datetime import date, timedelta

import pytest

from expectations.predictions import day_before
from lake.labels import LABELS, PROBABILITIES
from lake.publish import publish
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

BROKEN = date(2024, 12, 1)
T = date(2025, 1, 20)
EMPTY = date(2025, 1, 22)


def said(user: str, day: date = BROKEN, **changes) -> dict:
    """Make a good prediction of a user, and change it."""
    good = {
        "user_id": user,
        "model_version": 3,
        "category_ids": ["a", "b"],
        "category_probabilities": [0.7, 0.3],
        "current_category": "a",
        **dict.fromkeys(PROBABILITIES, 0.25),
        "purchase_probability": 1.0,
        "churn_probability": 0.0,
        "item_ids": ["i", "j"],
        "item_probabilities": [0.5, 0.5],
        "surprise": 2.5,
        "risk_percentile": 50.0,
        "segment": "stable",
        "unseen_events": 0,
        "dt": day,
    }
    return {**good, **changes}


LISTS = ("category_ids", "category_probabilities", "item_ids", "item_probabilities")
NAN = float("nan")
BOTH_KINDS = ("category", "item")

# Predictions of one day, each with what is wrong with it.
ROWS: Tagged = [
    (said("good"), ""),
    (said("of a stranger", current_category=None, surprise=None, risk_percentile=None), ""),
    (said("nobody", user_id=None), "not null user_id, between duplicate_users"),  # a missing user is a user less
    *(
        (said(f"no {column}", **{column: None}), f"not null {column}")
        for column in ("model_version", *LISTS, *PROBABILITIES, "segment", "unseen_events", "dt")
    ),
    *((said(f"{column} 0", **{column: 0.0}), "") for column in PROBABILITIES),
    *(
        (said(f"{column} {value}", **{column: value}), f"between {column}")
        for column in PROBABILITIES
        for value in (-0.01, 1.01, NAN)
    ),
    *((said(f"risk {value}", risk_percentile=value), "") for value in (0.0, 100.0)),
    *((said(f"risk {value}", risk_percentile=value), "between risk_percentile") for value in (-0.1, 100.1, NAN)),
    (said("fewer than none", unseen_events=-1), "between unseen_events"),
    *((said(segment, segment=segment), "") for segment in ("migrating", "at_risk", "new")),
    (said("loyal", segment="loyal"), "in set segment"),
    (said("certain, up to rounding", category_probabilities=[1.0, 5e-7], item_ids=[], item_probabilities=[]), ""),
    (said("alike", category_probabilities=[0.5, 0.5]), ""),
    (said("more than all", category_probabilities=[0.7, 0.4]), "between more_than_one"),
    (said("more than rounding", category_probabilities=[1.0, 2e-6]), "between more_than_one"),
    (said("items more than all", item_probabilities=[0.7, 0.6]), ""),  # several of them may be next
    (said("nothing next", category_ids=[], category_probabilities=[]), "between without_category"),
    *((said(f"uneven {kind}", **{f"{kind}_probabilities": [0.5]}), "between uneven") for kind in BOTH_KINDS),
    *((said(f"{kind} twice", **{f"{kind}_ids": ["a", "a"]}), "between repeated") for kind in BOTH_KINDS),
    *((said(f"{kind} rises", **{f"{kind}_probabilities": [0.3, 0.4]}), "between rising") for kind in BOTH_KINDS),
    *(
        (said(f"{kind} {value}", **{f"{kind}_probabilities": [0.5, value]}), "between impossible")
        for kind in BOTH_KINDS
        for value in (None, -0.01)
    ),
    (said("item over 1", item_probabilities=[1.01, 0.5]), "between impossible"),
    (said("item of no number", item_probabilities=[NAN, 0.5]), "between impossible, between rising"),
    (
        said("category of no number", category_probabilities=[NAN, 0.1]),
        "between impossible, between rising, between more_than_one",
    ),
    # Of one user there are two, and of another (see below) none: by number alone the one makes up for the other.
    (said("good"), "between duplicate_users"),
]

# T, against the newest day before it that has predictions.
BEFORE = [
    said(user, T - timedelta(days=2), **dict.fromkeys(PROBABILITIES, 0.5)) for user in ("u0", "u1", "u2", "u3", "gone")
]
AT_T = [
    said("u0", T, category_ids=["b", "a"]),
    said("u1", T, category_ids=["b", "a"]),
    said("u2", T, category_ids=[], category_probabilities=[]),  # none is another one too
    said("u3", T, churn_probability=1.0, model_version=4),
    said("new", T, churn_probability=1.0, category_ids=["b", "a"]),  # was not there to change
]


@pytest.fixture(scope="module")
def seen(spark, shared_lake) -> Seen:
    # The users of the interests; some of them have no prediction, and those of another day have no business here.
    of_day = {
        BROKEN: {row["user_id"] for row in without_tags(ROWS) if row["user_id"] and row["dt"]} | {"lost"},
        T: {row["user_id"] for row in AT_T} | {"lost", "lost too"},
        T - timedelta(days=1): {"of yesterday"},
    }
    users = [{"user_id": user, "dt": day} for day, found in of_day.items() for user in sorted(found)]
    stage_files("interests", "upstream", users, list(of_day), 1)
    version = publish("interests", "upstream")["version"]
    other = {"category_ids": ["z", "y"]}
    published = [
        *BEFORE,
        said("u3", T - timedelta(days=3), **other),  # an older day
        said("u3", T + timedelta(days=1), **other),  # a later day, and the last one before the empty day
    ]
    stage_files("predictions", "before", published, sorted({row["dt"] for row in published}), 1)
    publish("predictions", "before")
    stage_rows("predictions", "r", without_tags(ROWS) + AT_T, [BROKEN, T, EMPTY], inputs={"interests": version})
    return see(spark, "predictions", "r")


@pytest.mark.spark
def test_an_audit_counts_every_prediction_that_is_broken_and_no_other(seen):
    missing = Counter({"between missing_users": 1})
    assert seen.rows_counted() + seen.counted(BROKEN) == expected(ROWS) + missing
    assert seen.counted(T) == {"between missing_users": 2, "between without_category": 1}
    assert not seen.counted(EMPTY)


@pytest.mark.spark
def test_predictions_are_as_many_as_users_of_the_interests_of_the_day(seen):
    assert seen.on(T, "users_upstream", "rows", "model_versions") == (7, 5, 2)
    assert seen.on(EMPTY, "users_upstream", "rows", "model_versions") == (0, 0, 0)
    # The user that is missing and the one that is there twice; and one that has no name.
    users, rows, versions = seen.on(BROKEN, "users_upstream", "rows", "model_versions")
    assert (rows - users, versions) == (1, 1)


DRIFTS = ("drift_migration", "drift_purchase", "drift_churn", "changed_top")


@pytest.mark.spark
def test_a_day_is_compared_with_the_newest_one_before_it(seen):
    # From 0.5 migration fell to 0.25, purchases rose to 1, and churn fell to 0.4. Of the four users on both days three
    # have another top.
    assert seen.on(T, *DRIFTS) == pytest.approx((0.25, 0.5, 0.1, 0.75))


@pytest.mark.spark
def test_where_one_of_two_days_is_missing_or_empty_nothing_is_compared(seen):
    assert seen.on(BROKEN, *DRIFTS) == seen.on(EMPTY, *DRIFTS) == (None,) * 4


@pytest.mark.spark
def test_every_expectation_is_seen_failing_but_one_of_the_drifts(seen):
    assert all_of("predictions") - set(seen.broken) == {"warning drift_churn"}
    assert seen.verdict.verdict == "failed"


def test_the_day_before_is_the_newest_of_the_28_before(lake):
    days = [T - timedelta(days=28), T, T + timedelta(days=1)]
    stage_files("predictions", "p", [said("u", day) for day in days], days, 1)
    publish("predictions", "p")
    table = Table("predictions")
    assert day_before(table, T + timedelta(days=2)) == T + timedelta(days=1)
    assert day_before(table, T) == T - timedelta(days=28)  # not T itself
    assert day_before(table, T - timedelta(days=28)) is None
    assert day_before(table, T + timedelta(days=29)) == T + timedelta(days=1)
    assert day_before(table, T + timedelta(days=30)) is None
    assert day_before(None, T) is None


def test_changes_warn_beyond_their_limits_and_not_at_them():
    drifts = {f"drift_{label.score}": [0, 0.1, 0.101] for label in LABELS}
    figures = {**drifts, "changed_top": [0, 0.5, 0.501], "model_versions": [0, 1, 2]}
    warnings = {**{f"warning {name}": [0.101] for name in drifts}, "warning changed_top": [0.501]}
    assert refused("predictions", figures) == {**warnings, "between model_versions": [2]}
    assert warnings_of("predictions") == set(warnings)
