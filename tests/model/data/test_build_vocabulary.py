"""A vocabulary built from events: what is frequent is known, and the order of the events does not matter."""

import logging
from datetime import date

import pytest
from pyspark.sql import functions as F

from model.data.build_vocabulary import build

pytestmark = pytest.mark.spark

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


def test_ids_are_ordered_by_falling_frequency_then_key_and_each_event_counts_once(spark):
    ids = [*"aaa", *"bb", *"cc", *"dd", *"e", None, None, None, None]
    words = build(events(spark, ids, repeat=[9, 9, 9]), "item_id", buckets=2, min_count=1, max_size=10)
    keys = key_of(spark, "abcde")
    assert words.ids == ["a", *sorted("bcd", key=keys.__getitem__), "e"]
    assert words.keys.tolist() == [keys[name] for name in words.ids]
    assert words.counts.tolist() == [3, 2, 2, 2, 1]
    assert (words.field, words.buckets, words.size) == ("item_id", 2, 8)


def test_rare_ids_and_those_beyond_the_largest_size_are_not_known(spark):
    log = events(spark, [*"aaa", *"bb", *"cc", *"d"])
    keys = key_of(spark, "bc")
    assert sorted(build(log, "item_id", buckets=1, min_count=2, max_size=10).ids) == ["a", "b", "c"]
    assert build(log, "item_id", 1, 1, max_size=2).ids == ["a", min("bc", key=keys.__getitem__)]
    assert build(log, "item_id", 1, min_count=9, max_size=2).size == 2


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


def test_of_two_ids_with_one_key_the_more_frequent_one_is_kept_then_the_smaller_and_it_is_said(spark, caplog):
    small, large = sorted(TWINS)
    assert len(set(key_of(spark, TWINS).values())) == 1
    with caplog.at_level(logging.WARNING):
        assert build(events(spark, [small, large, large, "x"]), "item_id", 1, 2, 10).ids == [large]
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        f"item_id {small!r} (1 events) is not told apart from another one"
    ]
    assert build(events(spark, [large, small]), "item_id", 1, 1, 10).ids == [small]
