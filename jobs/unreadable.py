"""Find the landing file behind an error of Spark, which names it in its own way or not at all."""

import re
from collections.abc import Iterable

from pyspark.sql import SparkSession

from jobs.landing_files import check_files
from jobs.raw_rows import read_rows
from jobs.source import Source
from lake.errors import LandingUnreadable


def unreadable_file(
    spark: SparkSession, error: Exception, parts: Iterable[tuple[Source, list[str]]]
) -> LandingUnreadable | None:
    """Return the error for the file that an error of Spark is about, None if it is about anything else.

    Args:
        spark: the session.
        error: what was raised while files were read.
        parts: all files that may have been read, with how; asked for only if the error does not name one.
    """
    found = unreadable_file_error(str(error))
    if found is None and is_of_a_task(error):
        return damaged_parquet_error(spark, parts)
    return found


def unreadable_file_error(spark_error: str) -> LandingUnreadable | None:
    """Return the error for a file that cannot be read to its end, None if Spark's error is about anything else.

    Such a file, for example a gzip that ends too early, is detected only when Spark reads it. A local session and
    Spark Connect raise different errors then, with the same text.
    """
    if of_python := re.search(r"LandingUnreadable: (.+?)(?: \[docs/\S+\])?$", spark_error, re.MULTILINE):
        return LandingUnreadable(of_python[1])
    file = re.search(r"FAILED_READ_FILE\S* Encountered error while reading file (\S+)", spark_error)
    if file is None:
        return None
    return LandingUnreadable(f"{file[1].rstrip('.')}: expected a readable file, found {cause_of(spark_error)}")


def is_of_a_task(error: Exception) -> bool:
    """Return whether it is the error of a job of Spark, one of whose tasks has failed."""
    return "Job aborted due to stage failure" in str(error)


def damaged_parquet_error(spark: SparkSession, parts: Iterable[tuple[Source, list[str]]]) -> LandingUnreadable | None:
    """Return the error for the first Parquet file that cannot be read alone, None if each can be.

    Values of Parquet are decoded late, where Spark no longer knows the file: of a damaged page its error names none. So
    each is read again, until one fails.
    """
    for source, files in parts:
        for file in (file for group in check_files(source, files).parquet.values() for file in group):
            try:
                read_rows(spark, source, [file]).write.format("noop").mode("overwrite").save()
            except Exception as error:  # noqa: BLE001  of Spark or of Py4J, whatever the damage leads to
                return LandingUnreadable(f"{file}: expected a readable Parquet file, found {cause_of(str(error))}")
    return None


def cause_of(spark_error: str) -> str:
    """Return the innermost cause that an error of Spark names."""
    lost = re.findall(r"Lost task [^\n]*?\): (.+)", spark_error)
    causes: list[str] = re.findall(r"Caused by: (.+)", spark_error) or lost
    return causes[-1] if causes else "an error in the middle of it"
