"""From rows to arrays: what is kept, where padding stands, and what an unknown id becomes."""

from datetime import date

import numpy as np
import pandas as pd

from model.features import GAP_BUCKETS, PROFILE_VALUES, SCALAR_VALUES, Features, bucket, pad
from model.vocabulary import Vocabulary

ITEMS = Vocabulary("item_id", np.array([11, -12, 13]), ["i1", "i2", "i3"], buckets=2)
CATEGORIES = Vocabulary("category_id", np.array([21, 22]), ["a", "b"], buckets=1)
FEATURES = Features(ITEMS, CATEGORIES, events=3, profile=2, next_items=2)
END = 1_483_315_200  # the end of 2017-01-01, in seconds since 1970


def row(**changes):
    """Make a user with two events, the last one an hour before the end of the day."""
    good = {
        "dt": date(2017, 1, 1),
        "item_keys": np.array([11, -12]),
        "category_keys": np.array([21, 22]),
        "behaviors": np.array([1, 5]),
        "event_seconds": np.array([END - 90_000, END - 3_600]),
        "gap_seconds": np.array([0, 86_400]),
        "longterm_category_keys": np.array([22, 21]),
        "longterm_shares": np.array([0.75, 0.25]),
        "longterm_counts": np.array([3, 1]),
        "longterm_days": np.array([2, 1]),
        "longterm_current_counts": np.array([1, 1]),
        "longterm_week_counts": np.array([1, 0]),
        "longterm_age_seconds": np.array([3_600, 90_000]),
        **dict.fromkeys(("recency_seconds", "tenure_seconds"), 3_600),
        **dict.fromkeys(("frequency", "active_days", "purchases", "history_events", "history_days_active"), 2),
        "week_frequency": 1,
        "spend": 9.5,
        "next_category_key": 22,
        "next_item_keys": np.array([13, 99, 11]),
        "migrated": None,
        "purchased": True,
        "churned": False,
    }
    return {**good, **changes}


def labelled(*rows):
    return FEATURES.labelled(pd.DataFrame(rows))


def test_events_stand_oldest_first_with_padding_after_them():
    found = labelled(row())
    assert found["item"].tolist() == [[3, 4, 0]]
    assert found["category"].tolist() == [[2, 3, 0]]
    assert found["behavior"].tolist() == [[1, 5, 0]]
    assert found["gap"][0].tolist() == [bucket(np.array(0)), bucket(np.array(86_400)), 0]
    assert found["age"][0].tolist() == [bucket(np.array(90_000)), bucket(np.array(3_600)), 0]


def test_of_a_long_sequence_the_last_events_are_kept_and_of_a_long_profile_the_first():
    many = np.arange(5)
    long = row(
        item_keys=np.array([99, 99, 11, -12, 13]),
        category_keys=np.full(5, 21),
        behaviors=np.array([1, 1, 2, 3, 4]),
        event_seconds=END - 10 + many,
        gap_seconds=many,
        longterm_category_keys=np.array([22, 21, 7]),
        **{name: np.ones(3) for name in row() if name.startswith("longterm_") and not name.endswith("keys")},
    )
    found = labelled(long)
    assert found["item"].tolist() == [[3, 4, 5]]
    assert found["behavior"].tolist() == [[2, 3, 4]]
    assert found["profile"].tolist() == [[3, 2]]


def test_what_is_unknown_falls_into_a_bucket_and_nothing_is_padding():
    found = labelled(row(item_keys=np.array([98, 0]), category_keys=np.array([5, 0]), next_category_key=0))
    assert found["item"].tolist() == [[1 + 98 % 2, 0, 0]]
    assert found["category"].tolist() == [[1, 0, 0]]
    assert found["next_category"].tolist() == [0]
    assert found["next_items"].tolist() == [[5, 1 + 99 % 2]]


def test_what_comes_again_is_said_by_its_place_among_the_last_events():
    four = dict.fromkeys(("category_keys", "event_seconds", "gap_seconds"), np.zeros(4, np.int64))
    keys = {"item_keys": np.array([13, 99, 0, 99]), "next_item_keys": np.array([99, 13])}
    again = row(**four, **keys, behaviors=np.array([1, 1, 2, 1]))
    found = labelled(again, row(next_item_keys=np.array([98, 11])))
    # Of the last three events the first and the last are of the same item; padding stands for itself.
    assert found["slot"].tolist() == [[0, 1, 0], [0, 1, 2]]
    # 99 is unknown but comes again; 13 was too long ago; 98 is unknown and new; 11 is both known and had before.
    assert found["next_slots"].tolist() == [[0, -1], [-1, 0]]
    assert found["next_items"].tolist() == [[0, 5], [1 + 98 % 2, 3]]


def test_labels_that_are_not_known_are_minus_one():
    found = labelled(row(), row(migrated=True), row(migrated=False))
    assert found["migrated"].tolist() == [-1, 1, 0]
    assert found["purchased"].tolist() == [1, 1, 1]
    assert found["churned"].tolist() == [0, 0, 0]


def test_a_user_without_events_and_a_frame_without_users_have_shapes():
    nothing = {name: np.zeros(0, np.int64) for name, value in row().items() if isinstance(value, np.ndarray)}
    for found, rows in ((labelled(row(**nothing)), 1), (FEATURES.state(pd.DataFrame([row()]).head(0)), 0)):
        for name, (dtype, shape) in FEATURES.fields(labels=rows == 1).items():
            assert found[name].shape == (rows, *shape), name
            assert found[name].dtype == dtype, name
            assert np.isfinite(found[name]).all(), name


def test_the_declared_fields_are_the_ones_that_come():
    found = labelled(row())
    assert {name: (str(a.dtype), a.shape[1:]) for name, a in found.items()} == FEATURES.fields(labels=True)
    assert found["profile_values"].shape[-1] == PROFILE_VALUES
    assert found["scalars"].shape[-1] == SCALAR_VALUES


def test_the_order_of_rows_is_kept_and_each_row_stands_for_itself():
    short, long = row(), row(item_keys=np.array([13]), category_keys=np.array([22]), behaviors=np.array([2]),
                             event_seconds=np.array([END - 1]), gap_seconds=np.array([0]))  # fmt: skip
    both, turned = labelled(short, long), labelled(long, short)
    for name in both:
        np.testing.assert_array_equal(both[name], turned[name][::-1], err_msg=name)


def test_buckets_stay_in_range():
    assert bucket(np.array([-5, 0, 1, 10**12])).tolist() == [1, 1, 1, GAP_BUCKETS - 1]


def test_padding_takes_lists_of_any_kind():
    assert pad(pd.Series([[1.5], []]), 2, np.float64, keep="first").tolist() == [[1.5, 0], [0, 0]]
