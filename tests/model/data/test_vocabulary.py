"""Keys, indices and ids: each leads to the others, old indices stay, and the order of the events does not matter."""

import logging
from datetime import date

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyspark.sql import functions as F

from model.data.vocabulary import Vocabulary, build

KEYS = st.integers(-(2**63), 2**63 - 1)
KNOWN = st.lists(KEYS.filter(bool), unique=True, max_size=30)
ANY = st.lists(KEYS, max_size=30)
BUCKETS = st.integers(1, 7)


def vocabulary(keys, buckets=3):
    """Make a vocabulary whose ids are the keys as text, counted 1, 2, 3, ..."""
    return Vocabulary("item_id", np.array(keys, np.int64), [str(k) for k in keys], buckets, np.arange(1, len(keys) + 1))


def array(keys):
    return np.array(keys, np.int64)


@given(KNOWN, ANY, BUCKETS)
def test_every_key_has_the_index_that_a_dictionary_would_give_it(known, others, buckets):
    found = vocabulary(known, buckets).index(array(known + others + [0]))
    places = {key: 1 + buckets + place for place, key in enumerate(known)}
    wanted = [0 if key == 0 else places.get(key, 1 + key % buckets) for key in [*known, *others, 0]]
    assert (found.dtype, found.tolist()) == (np.int32, wanted)


@given(KNOWN, ANY, BUCKETS)
def test_indices_lie_below_the_size_and_tell_what_is_known(known, others, buckets):
    words = vocabulary(known, buckets)
    indices = words.index(array(others))
    assert words.size == 1 + buckets + len(known)
    assert ((indices >= 0) & (indices < words.size)).all()
    assert words.known(indices).tolist() == [key in known for key in others]
    assert words.unseen(array(others)).tolist() == [key != 0 and key not in known for key in others]


@given(KNOWN, BUCKETS)
def test_an_index_leads_back_to_its_id(known, buckets):
    words = vocabulary(known, buckets)
    assert [words.id_of(int(index)) for index in words.index(array(known))] == [str(key) for key in known]
    assert [words.id_of(index) for index in range(buckets + 1)] == ["", *["(other)"] * buckets]


def test_indices_have_the_shape_of_the_keys():
    words = vocabulary([5, -7])
    assert words.index(np.zeros((2, 0, 3), np.int64)).shape == (2, 0, 3)
    assert words.index(array([[5, 0], [-7, 5]])).tolist() == [[4, 0], [5, 4]]
    assert words.index(np.int64(5)) == 4


def test_there_is_no_id_outside_the_vocabulary():
    with pytest.raises(IndexError, match="indices of item_id are 0 to 4; received 5"):
        vocabulary([5]).id_of(5)
    with pytest.raises(IndexError, match="received -1"):
        vocabulary([5]).id_of(-1)


@given(KNOWN, ANY)
def test_a_warm_start_keeps_every_old_index_and_appends_what_is_new(old, others):
    others = list(dict.fromkeys(key for key in others if key))
    before = vocabulary(old)
    after = before.extend(array(others), [f"new {key}" for key in others], array([100] * len(others)))
    new = [key for key in others if key not in old]
    assert after.index(array(old)).tolist() == before.index(array(old)).tolist()
    assert after.keys.tolist() == old + new
    assert after.ids == [*before.ids, *(f"new {key}" for key in new)]
    assert after.counts.tolist() == [*before.counts.tolist(), *[100] * len(new)]
    assert after.buckets == before.buckets


def test_the_share_of_unseen_keys_leaves_out_those_of_nothing():
    words = vocabulary([5, 6])
    assert words.share_unseen(array([[5, 0], [7, 8]])) == 2 / 3
    assert words.share_unseen(array([0, 0])) == 0.0
    assert words.share_unseen(array([])) == 0.0


@pytest.mark.parametrize("known", [[], [5], [2**63 - 1, -(2**63), 7]])
def test_what_is_saved_is_loaded(tmp_path, known):
    saved = vocabulary(known)
    saved.save(str(tmp_path / "model"))
    loaded = Vocabulary.load(str(tmp_path / "model"), "item_id")
    assert (loaded.field, loaded.ids, loaded.buckets) == (saved.field, saved.ids, saved.buckets)
    assert loaded.keys.tolist() == known
    assert loaded.counts.tolist() == saved.counts.tolist()
    assert loaded.index(array([*known, 3, 0])).tolist() == saved.index(array([*known, 3, 0])).tolist()


@pytest.mark.parametrize(
    ("keys", "ids", "buckets", "said"),
    [
        pytest.param([1, 1], ["a", "b"], 1, "must be distinct, and 0 means none", id="a key twice"),
        pytest.param([1, 0], ["a", "b"], 1, "must be distinct, and 0 means none", id="the key of nothing"),
        pytest.param([1], ["a", "b"], 1, "received 1 keys, 2 ids and 1 counts", id="an id too many"),
        pytest.param([1], ["a"], 0, "buckets must be at least 1.*received 0", id="no bucket"),
    ],
)
def test_what_cannot_be_a_vocabulary_is_refused(keys, ids, buckets, said):
    with pytest.raises(ValueError, match=said):
        Vocabulary("item_id", array(keys), ids, buckets)


# --- built from events ------------------------------------------------------------------------------------

# Two ids of nine characters that have the same XXH64 (seed 42), found by running its last steps backwards.
TWINS = ("lYGtg3Qjb", "c4Ox9q8F4")


def events(spark, ids, repeat=()):
    """Make events of these items, one each, those at the places `repeat` delivered again on a later day."""
    rows = [(f"e{n}", item, date(2025, 1, 1)) for n, item in enumerate(ids)]
    rows += [(f"e{n}", ids[n], date(2025, 1, 2)) for n in repeat]
    return spark.createDataFrame(rows, "event_id string, item_id string, landed date")


def key_of(spark, ids):
    rows = spark.createDataFrame([(value,) for value in ids], "id string").select("id", F.xxhash64("id").alias("key"))
    return {row["id"]: row["key"] for row in rows.collect()}


@pytest.mark.spark
def test_ids_are_ordered_by_falling_frequency_then_key_and_each_event_counts_once(spark):
    ids = [*"aaa", *"bb", *"cc", *"dd", *"e", None, None, None, None]
    words = build(events(spark, ids, repeat=[9, 9, 9]), "item_id", buckets=2, min_count=1, max_size=10)
    keys = key_of(spark, "abcde")
    assert words.ids == ["a", *sorted("bcd", key=keys.__getitem__), "e"]
    assert words.keys.tolist() == [keys[name] for name in words.ids]
    assert words.counts.tolist() == [3, 2, 2, 2, 1]
    assert (words.field, words.buckets, words.size) == ("item_id", 2, 8)


@pytest.mark.spark
def test_rare_ids_and_those_beyond_the_largest_size_are_not_known(spark):
    log = events(spark, [*"aaa", *"bb", *"cc", *"d"])
    keys = key_of(spark, "bc")
    assert sorted(build(log, "item_id", buckets=1, min_count=2, max_size=10).ids) == ["a", "b", "c"]
    assert build(log, "item_id", 1, 1, max_size=2).ids == ["a", min("bc", key=keys.__getitem__)]
    assert build(log, "item_id", 1, min_count=9, max_size=2).size == 2


@pytest.mark.spark
def test_the_order_and_the_partitions_of_the_events_do_not_matter(spark):
    ids = [f"i{n % 40}" for n in range(300)] + [f"i{n % 7}" for n in range(100)]
    log = events(spark, ids, repeat=range(0, 400, 3))
    built = [
        build(frame, "item_id", buckets=5, min_count=8, max_size=15)
        for frame in (log.coalesce(1), log.repartition(7, F.rand(1)).orderBy(F.rand(2)))
    ]
    assert built[0].keys.tolist() == built[1].keys.tolist()
    assert built[0].ids == built[1].ids
    assert built[0].counts.tolist() == built[1].counts.tolist()
    assert len(built[0].ids) == 15, "ids of equal frequency stand on either side of the cut"


@pytest.mark.spark
def test_of_two_ids_with_one_key_the_more_frequent_one_is_kept_then_the_smaller_and_it_is_said(spark, caplog):
    small, large = sorted(TWINS)
    assert len(set(key_of(spark, TWINS).values())) == 1
    with caplog.at_level(logging.WARNING):
        assert build(events(spark, [small, large, large, "x"]), "item_id", 1, 2, 10).ids == [large]
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        f"item_id {small!r} (1 events) is not told apart from another one"
    ]
    assert build(events(spark, [large, small]), "item_id", 1, 1, 10).ids == [small]
