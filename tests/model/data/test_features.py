"""From rows to arrays: what is kept, where padding stands, and what an unknown id becomes."""

from datetime import date
from math import log, sqrt

import numpy as np
import pandas as pd

from lake.labels import NAMES
from model.data.features import GAP_BUCKETS, Features, bucket, pad
from model.data.vocabulary import Vocabulary

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
        **dict.fromkeys(NAMES),
    }
    return {**good, **changes}


def labelled(*rows):
    return FEATURES.labelled(pd.DataFrame(rows))


def test_events_stand_oldest_first_with_padding_after_them():
    found = labelled(row())
    assert found["item"].tolist() == [[3, 4, 0]]
    assert found["category"].tolist() == [[2, 3, 0]]
    assert found["behavior"].tolist() == [[1, 5, 0]]


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
    all_known, none_known = row(migrated=True, purchased=False, churned=True), row()
    arrays = labelled(row(migrated=False, purchased=True), all_known, none_known)
    assert arrays["migrated"].tolist() == [0, 1, -1]
    assert arrays["purchased"].tolist() == [1, 0, -1]
    assert arrays["churned"].tolist() == [-1, 1, -1]


def test_labels_of_which_every_one_is_known_are_read_as_the_table_types_them():
    rows = pd.DataFrame([row(**dict.fromkeys(NAMES, True)), row(**dict.fromkeys(NAMES, False))])
    for kind in ("bool", "boolean", "object"):
        arrays = FEATURES.labelled(rows.astype(dict.fromkeys(NAMES, kind)))
        assert {name: arrays[name].tolist() for name in NAMES} == {name: [1, 0] for name in NAMES}, kind


def test_a_user_without_events_and_a_frame_without_users_have_shapes():
    nothing = {name: np.zeros(0, np.int64) for name, value in row().items() if isinstance(value, np.ndarray)}
    for found, rows in ((labelled(row(**nothing)), 1), (FEATURES.state(pd.DataFrame([row()]).head(0)), 0)):
        for name, (dtype, shape) in FEATURES.fields(labels=rows == 1).items():
            assert found[name].shape == (rows, *shape), name
            assert found[name].dtype == dtype, name
            assert np.isfinite(found[name]).all(), name


# A user of 20 events, 18 of them with a category: 12 of 22, 4 of 21 and 2 of one that the vocabulary does not know. No
# two numbers are alike, so that none can stand in the place of another.
WORKED = row(
    longterm_category_keys=np.array([22, 21, 7]),
    longterm_shares=np.array([0.36, 0.16, 0.04]),
    longterm_counts=np.array([12, 4, 2]),
    longterm_days=np.array([5, 2, 1]),
    longterm_current_counts=np.array([1, 3, 0]),
    longterm_week_counts=np.array([0, 2, 0]),
    longterm_age_seconds=np.array([10, 1, 30]) * 86_400,
    recency_seconds=86_400 // 4,
    frequency=6,
    active_days=2,
    purchases=1,
    spend=45.0,
    history_events=20,
    history_days_active=8,
    tenure_seconds=40 * 86_400,
    week_frequency=4,
)


def entropy(*shares):
    return -sum(share * log(share) for share in shares)


def test_the_numbers_of_a_user_are_those_that_registered_models_were_trained_on():
    # A model knows them by their places alone: one that changes its place or its scale spoils every model in use. What
    # the model is taught then has to be kept beside the old.
    everyone = Vocabulary("category_id", CATEGORIES.keys, CATEGORIES.ids, buckets=1, counts=np.array([30, 9]))
    found = Features(ITEMS, everyone, events=3, profile=4).state(pd.DataFrame([WORKED]))

    # Everyone's events by category: half a one for none, half a one for the bucket, 30.5 of 21 and 9.5 of 22.
    usual = {22: 9.5 / 41, 21: 30.5 / 41, 7: 0.5 / 41}
    of_22_21_and_7 = [
        [log(13), log(5), log(3)],  # events in it
        [log(6), log(3), log(2)],  # days with one
        [log(2), log(4), log(1)],  # events in the lookback
        [log(1), log(3), log(1)],  # events in the last week
        [log(11), log(2), log(31)],  # days since the newest
        [log(37), log(17), log(5)],  # decayed share, in percent
        [log(61), log(21), log(11)],  # share of the 20 events, in percent
        [log(4.6), log(2.2), log(1.6)],  # that share of the 6 events of the lookback
        [log(0.6001 / usual[22]) / 3, log(0.2001 / usual[21]) / 3, log(0.1001 / usual[7]) / 3],
        [sqrt(5 / 8), sqrt(2 / 8), sqrt(1 / 8)],  # of the days with any event
        [sqrt(1 / 6), sqrt(3 / 6), 0],  # of the events in the lookback
        [12 / 5 / 3, 4 / 2 / 3, 2 / 1 / 3],  # events a day
        [1 / 1, 1 / 2, 1 / 3],  # first, second and third by events
        [1 / 2, 1 / 1, 1 / 3],  # and by those in the lookback
        [0.6, 0.4, 0.2],  # root of the decayed share: by its square the network averages
    ]
    expected = [*zip(*of_22_21_and_7, strict=True), [0] * 15]
    np.testing.assert_allclose(found["profile_values"][0], expected, rtol=1e-6, atol=1e-7)
    assert found["profile"].tolist() == [[3, 2, 1, 0]]

    scalars = [
        log(1.25),  # days since the last event
        log(7),  # events of the lookback
        log(3),  # days with an event in it
        log(2),  # purchases
        log(46),  # money
        log(21),  # events ever
        log(9),  # days with an event ever
        log(41),  # days since the first one
        log(5),  # events of the week
        log(6),  # usually five days from visit to visit
        log(1.25) - log(6),  # so the next one is not due yet
        log(1.05),  # the same as a ratio
        log(4),  # events a day
        log(8.5),  # money an event
        6 / 20,  # of all events those of the lookback
        2 / 8,  # of all days those of the lookback
    ]
    shape = [log(3) / 3, entropy(1 / 4, 3 / 4) / 3, 3 / 4, 2 / 4]  # of the lookback: how many, how even, how far ahead
    shape += [log(4) / 3, entropy(9 / 14, 4 / 14, 1 / 14) / 3, 9 / 14, 5 / 14]  # of the decayed shares
    np.testing.assert_allclose(found["scalars"][0], [*np.divide(scalars, 3), *shape], rtol=1e-6)


def test_times_are_put_into_buckets_of_half_a_doubling():
    found = labelled(row())
    # No time since the one before, for the first; a day. Until the end of the day 25 hours and one.
    assert found["gap"].tolist() == [[1, 21, 0]]
    assert found["age"].tolist() == [[22, 12, 0]]
    # 2 log2(1 + minutes), cut to a whole number; never below 1, which is kept for real events.
    assert bucket(np.array([-5, 0, 1, 59, 60, 179, 180, 10**12])).tolist() == [1, 1, 1, 2, 3, 4, 5, GAP_BUCKETS - 1]


def test_the_order_of_rows_is_kept_and_each_row_stands_for_itself():
    short, long = row(), row(item_keys=np.array([13]), category_keys=np.array([22]), behaviors=np.array([2]),
                             event_seconds=np.array([END - 1]), gap_seconds=np.array([0]))  # fmt: skip
    both, turned = labelled(short, long), labelled(long, short)
    for name in both:
        np.testing.assert_array_equal(both[name], turned[name][::-1], err_msg=name)


def test_padding_takes_lists_of_any_kind():
    assert pad(pd.Series([[1.5], []]), 2, np.float64, keep="first").tolist() == [[1.5, 0], [0, 0]]
