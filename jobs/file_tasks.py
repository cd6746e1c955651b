"""Hand files to Spark's workers: a task for each file, in which Python opens it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession

from jobs.packed import absolute


def rows_of_files(
    spark: SparkSession, files: Sequence[str], read: Callable[[int, str], Iterable[pa.RecordBatch]], columns: str
) -> DataFrame:
    """Return the rows that a function makes of some files.

    What a file on S3 needs, the environment of the workers has to have.

    Args:
        spark: the session.
        files: names or addresses.
        read: makes the rows of one file, from its place among the files and its name as a worker may open it.
        columns: of these rows, with their types.
    """
    names = absolute(files)

    def read_all(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for n in chain.from_iterable(batch.column(0).to_pylist() for batch in batches):
            yield from read(n, names[n])

    return spark.range(0, len(names), 1, numPartitions=len(names)).mapInArrow(read_all, columns)
