"""Clean what landed on one day, or on a range of days, and stage it as events and quarantine.

Reads   landing     dt=D, as the source file says
Writes  events      landed=D, over whatever dates the events have; staged only
        quarantine  dt=D, staged only

Input rows = events + duplicates + ignored + quarantined, where duplicates are `copies - 1` summed over events.
"""

import logging
import re
from datetime import date
from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from jobs.arguments import job_parser, parse_run
from jobs.raw_rows import REPLACEMENT, read_rows
from jobs.rejections import CONTENT, EVENT, IGNORED, REASONS, REJECTED, UNUSABLE_IN_QUERIES, judge
from jobs.source import Source, load_source
from lake.days import days_between
from lake.errors import LandingUnreadable, run_main
from lake.landing import Landing
from lake.schemas import EVENTS, QUARANTINE
from lake.session import spark_session
from lake.settings import settings
from lake.staging import Staged, stage

log = logging.getLogger(__name__)

RAW_CHARACTERS = 4096


def event_id(source: Source, occurrence: Column | None = None) -> Column:
    """Hash the identity of an event: its source, its content and, where repeats are kept, its occurrence number.

    So two input rows with the same id are equal in every column, and it does not matter which one is kept.
    """
    parts = [
        F.unix_micros("event_time").cast("string") if name == "event_time" else F.col(name).cast("string")
        for name in CONTENT
    ]
    if occurrence is not None:
        parts.append(occurrence.cast("string"))
    # Each part has its length in front, or two rows that differ only in where one part ends would be equal.
    framed = [F.coalesce(F.concat(F.length(part), F.lit(":"), part), F.lit("-")) for part in parts]
    return F.substring(F.sha2(F.concat_ws(",", F.lit(source.name), *framed), 256), 1, 32)


def to_events(judged: DataFrame, source: Source) -> DataFrame:
    """Fold identical rows of a landing day, or number them where the source keeps repeats."""
    counted = (
        judged.where(F.col("outcome") == EVENT).groupBy("landed", *CONTENT).agg(F.count("*").cast("int").alias("n"))
    )
    if source.repeats == "keep":
        counted = counted.withColumn("occurrence", F.explode(F.sequence(F.lit(1), "n"))).withColumn("n", F.lit(1))
        identity = event_id(source, F.col("occurrence"))
    else:
        identity = event_id(source)
    return counted.select(
        identity.alias("event_id"),
        *CONTENT,
        F.lit(source.name).alias("source"),
        F.col("n").alias("copies"),
        F.to_date("event_time").alias("dt"),
        "landed",
    ).select(*EVENTS.fieldNames())


def to_quarantine(judged: DataFrame, source: Source) -> DataFrame:
    """Return rejected rows as they were delivered, with the reason and the place.

    Their text has to be held by every sink too: a character that cannot be is replaced by U+FFFD.
    """
    # The first data line of a file is line 2 if it has a header.
    first_line = 2 if source.format == "csv" and source.header else 1
    line = F.col("position") - F.col("first_position") + first_line
    starts = judged.groupBy("file").agg(F.min("position").alias("first_position"))
    rejected = judged.where(F.col("outcome") == REJECTED)
    return (
        rejected.join(F.broadcast(starts), on="file", how="left")
        .select(
            "reason",
            F.regexp_replace(F.substring("raw", 1, RAW_CHARACTERS), UNUSABLE_IN_QUERIES, REPLACEMENT).alias("raw"),
            "file",
            F.when(F.col("whole_file"), line).alias("line"),
            F.lit(source.name).alias("source"),
            F.col("landed").alias("dt"),
        )
        .select(*QUARANTINE.fieldNames())
    )


def count_outcomes(judged: DataFrame, days: list[date]) -> dict[str, Any]:
    """Count input rows by day, outcome and reason, in one pass."""
    rows = judged.groupBy("landed", "outcome", "reason").count().collect()
    by_day: dict[str, dict[str, Any]] = {
        str(day): {"input": 0, "accepted": 0, "ignored": 0, "rejected": {}} for day in days
    }
    for row in rows:
        day: dict[str, Any] = by_day[str(row["landed"])]
        day["input"] += row["count"]
        if row["outcome"] == REJECTED:
            day["rejected"][row["reason"]] = row["count"]
        else:
            day["accepted" if row["outcome"] == EVENT else IGNORED] += row["count"]
    total: dict[str, Any] = {
        name: sum(day[name] for day in by_day.values()) for name in ("input", "accepted", "ignored")
    }
    total["rejected"] = {
        reason: n for reason in REASONS if (n := sum(day["rejected"].get(reason, 0) for day in by_day.values()))
    }
    return {**total, "quarantined": sum(total["rejected"].values()), "by_day": by_day}


def unreadable_file_error(spark_error: str) -> LandingUnreadable | None:
    """Return the error for a file that cannot be read to its end, None if Spark's error is about anything else.

    Such a file, for example a gzip that ends too early, is detected only when Spark reads it. A local session and
    Spark Connect raise different errors then, with the same text.
    """
    file = re.search(r"FAILED_READ_FILE\S* Encountered error while reading file (\S+)", spark_error)
    if file is None:
        return None
    causes = re.findall(r"Caused by: (.+)", spark_error)
    cause = causes[-1] if causes else "an error in the middle of it"
    return LandingUnreadable(f"{file[1].rstrip('.')}: expected a readable file, found {cause}")


def main(argv: list[str] | None = None) -> list[Staged]:
    """Read the landing files, classify every row, stage events and quarantine."""
    run = parse_run(job_parser("jobs.ingest", __doc__), argv)[0]
    config = settings()
    source = load_source(config.source)
    landing, days = Landing.of(config), days_between(run.first, run.last)
    files = [file for day in days for file in landing.files(day)]
    spark = spark_session("ingest", config)
    judged = judge(read_rows(spark, source, files), source, config).persist()
    try:
        counts = {**count_outcomes(judged, days), "files": len(files)}
        staged = [
            stage(to_events(judged, source), "events", run, days, run.basis, counts),
            stage(to_quarantine(judged, source), "quarantine", run, days, run.basis, counts),
        ]
    except Exception as error:
        unreadable = unreadable_file_error(str(error))
        if unreadable:
            raise unreadable from error
        raise
    finally:
        judged.unpersist()
    log.info("%s to %s: %s", run.first, run.last, {k: v for k, v in counts.items() if k != "by_day"})
    return staged


if __name__ == "__main__":
    run_main(main)
