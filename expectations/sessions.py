"""Expectations of staged `sessions`: the session rule, and every event of the days in exactly one session."""

from collections import Counter
from datetime import date, timedelta

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from great_expectations.expectations.expectation import Expectation
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from expectations.duplicates import are_few, by_day, duplicates, ids_again, less_than_rows
from expectations.suite import Suite, between, equal, not_null, usual_volume, with_volume_ratio, zero
from lake.days import ONE_DAY
from lake.reach import dates_in_sessions, in_sessions
from lake.settings import Settings
from lake.small import is_small
from lake.staging import Staged
from lake.table import Table

ID = "event_id"
COUNTS = ("views", "searches", "carts", "favorites", "purchases")


def rows(config: Settings) -> list[Expectation]:
    """Expect that each session is whole."""
    return [
        *not_null("session_id", "user_id", "start_time", "end_time", "revenue", "converted", "events", "dt"),
        *(between(name, 0, None, "counts are not negative") for name in COUNTS),
        between("revenue", 0, None, "revenue is not negative"),
    ]


def measures(config: Settings) -> dict[str, Column]:
    """Measure the sessions that end on one date."""
    gap = F.lit(timedelta(minutes=config.session_gap_minutes))
    times = F.col("events.event_time")
    # The pauses between neighbouring events; a negative one means that events are not in order.
    pauses = F.zip_with(F.slice(times, 2, 2_000_000_000), times, lambda later, earlier: later - earlier)
    none = F.lit(timedelta(0))
    counted = sum((F.col(name) for name in COUNTS), F.lit(0))
    return {
        "outside_partition": F.count_if(F.to_date("end_time") != F.col("dt")),
        "crosses_two_midnights": F.count_if(F.datediff("end_time", "start_time") > 1),
        "wrong_ends": F.count_if(
            ~F.array_min(times).eqNullSafe(F.col("start_time")) | ~F.array_max(times).eqNullSafe(F.col("end_time"))
        ),
        "pause_too_long": F.count_if(F.exists(pauses, lambda pause: (pause > gap) | (pause < none))),
        "miscounted": F.count_if(counted != F.size("events")),
        "misjudged": F.count_if(F.col("converted") != (F.col("purchases") > 0)),
        "mean_events": F.avg(F.size("events")),
        "users": F.approx_count_distinct("user_id"),
    }


def extend(
    spark: SparkSession, staged_rows: DataFrame, staged: Staged, figures: pd.DataFrame, config: Settings
) -> pd.DataFrame:
    """Add how often an id is there again, and the events of each date in the upstream table and in staged sessions.

    Events of a date are in sessions of that date or the next. So they can be counted on dates whose next day is staged
    too, or has no events at all; on other dates both figures are null.
    """
    events = Table("events", staged.inputs["events"])
    dates, owned = dates_in_sessions(events), set(staged.owns)
    days = [day for day in staged.owns if day + ONE_DAY in owned or day + ONE_DAY not in dates]
    if are_few(staged):
        in_sessions = events_in_few(staged)
    else:
        times = staged_rows.select(F.explode("events.event_time").alias("time"))
        in_sessions = by_day(times.groupBy(F.to_date("time").alias("day")).agg(F.count("*").alias("count")))
    columns = {"events_upstream": count_events(spark, events, days), "events_in_sessions": in_sessions}
    figures = figures.assign(duplicate_ids=duplicates(staged_rows, staged, "session_id", figures))
    for name, counts in columns.items():
        values = [counts.get(day, 0) if day in days else None for day in figures["day"]]
        figures[name] = pd.Series(values, dtype="float64", index=figures.index)
    return with_volume_ratio(staged, figures)


def count_events(spark: SparkSession, events: Table, days: list[date]) -> dict[date, int]:
    """Return how many events some dates have, each counted once, however often it was delivered.

    A landing day has an event once. So of a date of which nothing came late or early the log knows the number; of
    another one, only events whose id is among those that did can be there again.
    """
    files = in_sessions(events, events.files_of("dt", days))
    counts = Counter[date]()
    for file in files:
        counts[file.partition["dt"]] += file.rows
    late = [file for file in files if file.partition["landed"] != file.partition["dt"]]
    if late:
        touched = {file.partition["dt"] for file in late}
        near = [file for file in files if file.partition["dt"] in touched]
        if is_small(sum(file.bytes for file in near)):
            counts.subtract(ids_again((file.partition["dt"], events.read_file(file, [ID])[ID]) for file in near))
            return counts
        # Eight bytes of an id are looked up; which ids are equal, all of it decides.
        key = F.xxhash64("event_id").alias("key")
        of_late = events.read_files(spark, late).select(key)
        landed = events.read_files(spark, near)
        again = landed.select(key, "event_id", F.col("dt").alias("day")).join(of_late, on="key", how="left_semi")
        counts.subtract(by_day(again.groupBy("day").agg(less_than_rows("event_id"))))
    return counts


def events_in_few(staged: Staged) -> dict[date, int]:
    """Return how many events of each date are in the sessions of a few small files, without Spark."""
    counts = Counter[date]()
    for _, events in staged.read_files("events"):
        times = pc.list_flatten(events).field("event_time")
        for found in pc.value_counts(times.cast(pa.date32())).to_pylist():
            counts[found["values"]] += found["counts"]
    return counts


def expected_figures(config: Settings) -> list[Expectation]:
    """Expect the session rule, and that every event is in a session."""
    return [
        zero("duplicate_ids", "session_id is unique"),
        equal("events_upstream", "events_in_sessions", "every event of the date is in exactly one session"),
        zero("outside_partition", "dt is the date of the last event"),
        zero("crosses_two_midnights", "a session crosses at most one midnight"),
        zero("wrong_ends", "start and end are those of the session's events"),
        zero("pause_too_long", "events are in time order, with no pause longer than the gap"),
        zero("miscounted", "the counts by behavior add up to the events"),
        zero("misjudged", "converted is true exactly for sessions with a purchase"),
        usual_volume(0.5, 2.0),
    ]


SUITE = Suite(rows, measures, extend, expected_figures)
