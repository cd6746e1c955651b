"""The suite of `predictions`: every user of the interests once, and numbers that can be probabilities."""

from datetime import date, timedelta

import pytest

from lake.publish import publish
from tests.expectations.cases import (
    audit_and_see,
    between,
    not_null,
    require_all_were_seen_failing,
    stage_rows,
)
from tests.lake.stagings import stage_files

T = date(2025, 1, 20)


def said(user: str, **changes) -> dict:
    """Make a good prediction of a user, and change it."""
    good = {
        "user_id": user,
        "model_version": 3,
        "category_ids": ["a", "b"],
        "category_probabilities": [0.7, 0.3],
        "current_category": "a",
        "migration_probability": 0.2,
        "purchase_probability": 1.0,
        "churn_probability": 0.0,
        "item_ids": ["i", "j"],
        "item_probabilities": [0.5, 0.5],
        "surprise": 2.5,
        "risk_percentile": 50.0,
        "segment": "stable",
        "unseen_events": 0,
        "dt": T,
    }
    return {**good, **changes}


LISTS = ("category_ids", "category_probabilities", "item_ids", "item_probabilities")
PROBABILITIES = ("migration_probability", "purchase_probability", "churn_probability")
NEEDED = ("user_id", "model_version", *LISTS, *PROBABILITIES, "segment", "unseen_events", "dt")
NAN = float("nan")

# Each case: predictions, each with its reason; users of the interests that have none; what must fail.
CASES = {
    "columns are missing": (
        [said("good"), said("unknown", current_category=None, surprise=None, risk_percentile=None)]
        + [said(f"no {name}", **{name: None}) for name in NEEDED],
        0,
        # Neither a prediction without its user nor one without its date is there for the user who needs it.
        not_null(*NEEDED) | {"between missing_users", "equal users_upstream", "between duplicate_users"},
    ),
    "numbers are impossible": (
        [
            said("below", **dict.fromkeys(PROBABILITIES, -0.1), risk_percentile=-1.0, unseen_events=-1),
            said("above", **dict.fromkeys(PROBABILITIES, 1.1), risk_percentile=100.5),
            said("none at all", **dict.fromkeys(PROBABILITIES, NAN), risk_percentile=NAN),
            said("of another kind", segment="loyal"),
        ],
        0,
        between(*PROBABILITIES, "risk_percentile", "unseen_events") | {"in set segment"},
    ),
    "lists are wrong": (
        [
            said("edges", category_probabilities=[1.0, 5e-7], item_ids=[], item_probabilities=[]),
            said("no next category", category_ids=[], category_probabilities=[]),
            said("uneven", item_probabilities=[0.5]),
            said("twice", item_ids=["i", "i"]),
            said("rising", item_probabilities=[0.4, 0.5]),
            said("more than all", category_probabilities=[0.7, 0.4]),
            said("no number", item_probabilities=[0.5, None]),
        ],
        0,
        between("uneven", "repeated", "rising", "more_than_one", "without_category", "impossible"),
    ),
    "the other lists are wrong": (
        [
            said("no number", category_probabilities=[NAN, 0.1]),
            said("likelier than certain", item_probabilities=[1.5, 0.5]),
            said("twice", category_ids=["a", "a"]),
        ],
        0,
        between("impossible", "more_than_one", "rising", "repeated"),
    ),
    "two versions of the model predict one day": (
        [said("one"), said("two", model_version=4)],
        0,
        between("model_versions"),
    ),
    "a user is missing and another is there twice": (
        [said("one"), said("one"), said("two")],
        1,  # by number alone the one would make up for the other
        between("duplicate_users", "missing_users"),
    ),
    "users are missing": ([said("one")], 2, {"between missing_users", "equal users_upstream"}),
}


def publish_upstream(rows: list[dict], lost: int = 0, day: date = T) -> dict:
    """Publish interests of each user with a prediction and of `lost` others; return what the manifest says of it."""
    users = {row["user_id"] or "nobody" for row in rows} | {f"lost {n}" for n in range(lost)}
    states = [{"user_id": user, "dt": day} for user in sorted(users)]
    # Users of another day have no business here.
    states.append({"user_id": "of yesterday", "dt": day - timedelta(days=1)})
    stage_files("interests", f"upstream {day}", states, [day, day - timedelta(days=1)], 1)
    return {"inputs": {"interests": publish("interests", f"upstream {day}")["version"]}}


@pytest.mark.spark
@pytest.mark.parametrize("case", CASES)
def test_an_audit_fails_on_what_is_broken_and_on_nothing_else(spark, lake, case):
    rows, lost, expected = CASES[case]
    stage_rows(spark, "predictions", "r", rows, [T], **publish_upstream(rows, lost))
    assert audit_and_see(spark, "predictions", "r")[1] == expected


def test_every_critical_expectation_is_seen_failing():
    require_all_were_seen_failing("predictions", (expected for _, _, expected in CASES.values()))


def publish_day(day: date, rows: list[dict]) -> None:
    stage_files("predictions", f"of {day}", rows, [day], 1)
    publish("predictions", f"of {day}")


@pytest.mark.spark
def test_predictions_that_are_unlike_those_of_the_day_before_only_warn(spark, lake):
    before = T - timedelta(days=2)
    # Neither an older day nor a later one is what T is compared with, and neither is one from long ago.
    publish_day(T - timedelta(days=3), [said("u0", dt=T - timedelta(days=3), category_ids=["z", "y"])])
    moved = {"migration_probability": 0.31, "churn_probability": 0.09}
    publish_day(before, [said(f"u{n}", dt=before, **moved) for n in range(4)])
    publish_day(T + timedelta(days=1), [said("u0", dt=T + timedelta(days=1), category_ids=["z", "y"])])
    changed = {"category_ids": ["b", "a"]}
    rows = [said("u0", **changed), said("u1", **changed), said("u2"), said("u3"), said("u4", **changed)]
    stage_rows(spark, "predictions", "r", rows, [T], **publish_upstream(rows))
    verdict, _ = audit_and_see(spark, "predictions", "r")
    # Half of the four who were there before have another top category, and half is not more than half.
    assert [line.split(" [")[0] for line in verdict.failed] == [
        "the mean probability of migration is near that of the day before"
    ]
    assert publish("predictions", "r")["verdict"] == "warned"

    rows[2] = said("u2", **changed)
    stage_rows(spark, "predictions", "again", rows, [T], **publish_upstream(rows))
    verdict, _ = audit_and_see(spark, "predictions", "again")
    assert sorted(line.split(" [")[0] for line in verdict.failed) == [
        "at most half of the users have another top category than before",
        "the mean probability of migration is near that of the day before",
    ]


@pytest.mark.spark
def test_the_first_day_and_one_without_users_pass(spark, lake):
    rows = [said("one")]
    stage_rows(spark, "predictions", "first", rows, [T], **publish_upstream(rows))
    assert audit_and_see(spark, "predictions", "first")[0].verdict == "passed"
    publish("predictions", "first")
    empty = T + timedelta(days=1)
    stage_files("interests", "none", [], [empty], 1)
    version = publish("interests", "none")["version"]
    stage_rows(spark, "predictions", "empty", [], [empty], inputs={"interests": version})
    assert audit_and_see(spark, "predictions", "empty")[0].verdict == "passed"
