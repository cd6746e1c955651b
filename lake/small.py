"""Which input is so small that Spark works on it in one task.

Several tasks have to exchange rows before these can be grouped, joined or written by partition, and each exchange is a
job of Spark, after which the rest of the query is planned anew. Of few rows that is nearly all that a query costs.
"""

from pyspark.sql import DataFrame

# Of files, packed or not.
ONE_TASK_BYTES = 4 * 2**20


def is_small(size: int) -> bool:
    """Return whether files of so many bytes are worked on in one task."""
    return size < ONE_TASK_BYTES


def in_one_task(rows: DataFrame, size: int) -> DataFrame:
    """Return rows that come from files of so many bytes, in one partition if these are small."""
    return rows.coalesce(1) if is_small(size) else rows
