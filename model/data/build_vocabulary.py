"""Make a vocabulary from events, by Spark: which ids are known, in which order."""

import logging
from typing import Literal

import numpy as np
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from model.data.vocabulary import Vocabulary

log = logging.getLogger(__name__)


def build(
    events: DataFrame, field: Literal["item_id", "category_id"], buckets: int, min_count: int, max_size: int
) -> Vocabulary:
    """Count the ids of a field in the events of the training window, and make them known.

    The result depends on the set of events alone: not on their order or partitions, nor on how often one was delivered.

    Args:
        events: rows of `events`, such as `Table("events", version).read(spark, first, last, landed_by=last)`: what was
            published, happened and landed up to the last date of the training window.
        field: whose ids to count.
        buckets: B of the vocabulary.
        min_count: how many events an id needs to be known.
        max_size: how many ids are known at most; the most frequent ones.
    """
    # Copies of an event that was delivered twice are equal, so distinct pairs are distinct events.
    counted = events.where(F.col(field).isNotNull()).select("event_id", F.col(field).alias("id")).distinct()
    ranked = keyed(counted.groupBy("id").count(), F.xxhash64("id")).persist()
    try:
        report_collisions(ranked, field)
        kept = ranked.where((F.col("rank") == 1) & (F.col("count") >= min_count))
        rows = kept.orderBy(F.desc("count"), "key").limit(max_size).select("key", "id", "count").collect()
    finally:
        ranked.unpersist()
    log.info("%d ids of %s are known, with at least %d events each", len(rows), field, min_count)
    return Vocabulary(
        field,
        np.array([row["key"] for row in rows], np.int64),
        [row["id"] for row in rows],
        buckets,
        np.array([row["count"] for row in rows], np.int64),
    )


def keyed(counts: DataFrame, key: Column) -> DataFrame:
    """Add the key of each id, and its `rank` among the ids of that key: the more frequent first, then the smaller id.

    An id whose key is 0 has no rank: 0 means none.
    """
    same_key = Window.partitionBy("key").orderBy(F.desc("count"), "id")
    keyed = counts.withColumn("key", key)
    return keyed.withColumn("rank", F.when(F.col("key") != 0, F.row_number().over(same_key)))


def report_collisions(ranked: DataFrame, field: str) -> None:
    """Warn of ids that will be taken for another one, because both have the same key."""
    lost = ranked.where((F.col("rank") > 1) | F.col("rank").isNull()).orderBy(F.desc("count"), "id").limit(20).collect()
    for row in lost:
        log.warning(
            "%s %r (%d events) is not told apart from another one: both have the key %d",
            field,
            row["id"],
            row["count"],
            row["key"],
        )
