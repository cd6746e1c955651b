"""The key of an id is the same with and without Spark."""

import numpy as np
import pytest

from model.data.keys import keys_of
from tests.jobs.naive import key

# With words of eight bytes, of four, single bytes, and none of each.
SHORT = ["", "a", "abc", "abcd", "stück 7", "12345678", "123456789012", "x" * 31]


def test_keys_are_those_of_the_tables():
    assert keys_of(SHORT).tolist() == [key(text) for text in SHORT]
    assert keys_of([]).tolist() == []
    assert keys_of(SHORT).dtype == np.int64


@pytest.mark.spark
def test_keys_of_texts_of_every_length_are_those_of_spark(spark):
    from pyspark.sql import functions as F

    texts = ["".join(chr(33 + (size * 7 + at * 11) % 90) for at in range(size)) for size in range(0, 101)]
    texts += ["ä€𝄞" * 9, "x" * 2048]
    rows = spark.createDataFrame(list(enumerate(texts)), "place int, id string").select(
        "place", F.xxhash64("id").alias("key")
    )
    found = {row["place"]: row["key"] for row in rows.collect()}
    assert keys_of(texts).tolist() == [found[place] for place in range(len(texts))]
