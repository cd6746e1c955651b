"""Rows of a partition that have the same id, which no suite allows.

They are counted by themselves: beside other figures, Spark would carry all of these along with each id. Few rows are
counted without Spark.
"""

from collections import defaultdict
from collections.abc import Iterable
from datetime import date

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from lake.schemas import TABLES
from lake.small import is_small
from lake.staging import Staged

# Read one after the other: on an object store, each costs as long as some megabytes.
FEW_FILES = 64


def duplicates(rows: DataFrame, staged: Staged, column: str, figures: pd.DataFrame) -> "pd.Series[int]":
    """Return by how many there are fewer ids than staged rows on the day of each line of figures.

    Args:
        rows: the staged ones.
        staged: their files.
        column: the ids; a missing one is an id less.
        figures: have a column `day`.
    """
    if are_few(staged):
        found = ids_again((day, ids) for day, ids in staged.read_files(column) if day)
    else:
        found = count_duplicates(rows.select(F.col(TABLES[staged.table].owned_by).alias("day"), column), column)
    return pd.Series([found.get(day, 0) for day in figures["day"]], index=figures.index)


def are_few(staged: Staged) -> bool:
    """Return whether the staged rows are so few that to read them is quicker than to ask Spark."""
    return is_small(staged.bytes) and len(staged.files) <= FEW_FILES


def count_duplicates(ids: DataFrame, column: str) -> dict[date, int]:
    """Return, of the days on which an id is there again, or missing, by how many there are fewer ids than rows.

    Rows are counted by eight bytes of their ids, and by all of them only where two have the same.
    """
    # The hash of a missing id would be one.
    keys = ids.withColumn("key", F.when(F.col(column).isNotNull(), F.xxhash64(column)))
    found = {day for day, fewer in by_day(keys.groupBy("day").agg(less_than_rows("key"))).items() if fewer}
    if not found:
        return {}
    return by_day(ids.where(F.col("day").isin(found)).groupBy("day").agg(less_than_rows(column)))


def ids_again(files: Iterable[tuple[date, pa.Array | pa.ChunkedArray]]) -> dict[date, int]:
    """Return by how many there are fewer ids than rows on each day, given the ids of files with their days."""
    of_day = defaultdict[date, list[pa.Array]](list)
    for day, ids in files:
        of_day[day] += ids.chunks if isinstance(ids, pa.ChunkedArray) else [ids]
    return {
        day: sum(map(len, ids)) - pc.count_distinct(pa.chunked_array(ids), mode="only_valid").as_py()
        for day, ids in of_day.items()
    }


def less_than_rows(column: str) -> Column:
    """Return the aggregate, named `count`, of how many fewer values of a column there are than rows."""
    return (F.count("*") - F.count_distinct(column)).alias("count")


def by_day(counted: DataFrame) -> dict[date, int]:
    """Return {day: count} of a frame with these columns."""
    return {row["day"]: row["count"] for row in counted.collect()}
