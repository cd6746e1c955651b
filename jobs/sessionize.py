"""Cut each user's events into sessions and stage the partitions that one landing day, or a range, has changed.

Reads   events    from P-1 00:00 - gap to P+1 00:00 + gap (UTC), for every partition P that changed
Writes  sessions  dt=P, the date of a session's last event; staged only

The rule, and why partition P needs no other events, is in docs/design.md under "Sessions".
"""

import logging
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, time, timedelta

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from jobs.arguments import job_parser, parse_run
from jobs.inputs import published_events
from lake.days import ONE_DAY
from lake.errors import run_main
from lake.reach import changed_by, partitions_to_stage
from lake.schemas import MONEY, SESSION_EVENT, SESSIONS
from lake.session import spark_session
from lake.settings import Settings, settings
from lake.staging import Run, Staged, stage
from lake.table import DataFile, Table

log = logging.getLogger(__name__)


def read_window(first: date, last: date, gap: timedelta) -> tuple[datetime, datetime]:
    """Return the half-open span of event times that decides which sessions end on `first` to `last`.

    >>> read_window(date(2025, 1, 2), date(2025, 1, 2), timedelta(minutes=30))[0].isoformat()
    '2024-12-31T23:30:00+00:00'
    """
    return (
        datetime.combine(first, time(), UTC) - ONE_DAY - gap,
        datetime.combine(last, time(), UTC) + ONE_DAY + gap,
    )


def mark_starts(events: DataFrame, gap: timedelta) -> DataFrame:
    """Keep each event once and add `starts`: true on the first event of every session.

    A chain is a run of events with no gap longer than `gap`. A chain opens a session, and one that already fills the
    whole day before a midnight is cut at that midnight.
    """
    in_order = Window.partitionBy("user_id").orderBy("event_time", "event_id")
    so_far = in_order.rowsBetween(Window.unboundedPreceding, Window.currentRow)
    midnight = F.date_trunc("day", "event_time")

    # Copies of an event that was delivered on two days are neighbours here, so dropping them needs no extra shuffle.
    previous_id = F.coalesce(F.lag("event_id").over(in_order), F.lit(""))
    events = events.withColumn("previous_id", previous_id).where(F.col("previous_id") != F.col("event_id"))
    events = events.withColumn("previous", F.lag("event_time").over(in_order))
    events = events.withColumn(
        "opens_chain",
        F.col("previous").isNull() | (F.col("event_time") - F.col("previous") > F.lit(gap)),
    )
    events = events.withColumn(
        "chain_start",
        F.last(F.when(F.col("opens_chain"), F.col("event_time")), ignorenulls=True).over(so_far),
    )
    crosses_midnight = F.col("previous") < midnight
    fills_the_day_before = F.col("chain_start") < midnight - F.lit(ONE_DAY)
    starts = F.col("opens_chain") | (crosses_midnight & fills_the_day_before)
    return events.withColumn("starts", starts).drop("previous_id", "previous", "opens_chain", "chain_start")


def fold(marked: DataFrame) -> DataFrame:
    """Fold marked events into one row a session, its events in time order."""
    in_order = Window.partitionBy("user_id").orderBy("event_time", "event_id")
    so_far = in_order.rowsBetween(Window.unboundedPreceding, Window.currentRow)
    first_event = F.last(F.when(F.col("starts"), F.col("event_id")), ignorenulls=True).over(so_far)

    def count(behavior: str) -> Column:
        return F.count_if(F.col("behavior") == behavior)

    revenue = F.sum(F.when(F.col("behavior") == "purchase", F.col("price")))
    return (
        marked.withColumn("session_id", first_event)
        .groupBy("user_id", "session_id")
        .agg(
            F.min("event_time").alias("start_time"),
            F.max("event_time").alias("end_time"),
            count("view").alias("views"),
            count("search").alias("searches"),
            count("cart").alias("carts"),
            count("favorite").alias("favorites"),
            count("purchase").alias("purchases"),
            F.coalesce(revenue, F.lit(0)).cast(MONEY).alias("revenue"),
            # The struct begins with time and id, so sorting it puts the events in order.
            F.array_sort(F.collect_list(F.struct(*SESSION_EVENT.fieldNames()))).alias("events"),
        )
        .withColumn("converted", F.col("purchases") > 0)
        .withColumn("dt", F.to_date("end_time"))
        .select(*SESSIONS.fieldNames())
    )


def sessions_ending_on(events: DataFrame, days: Iterable[date], gap: timedelta) -> DataFrame:
    """Return the sessions whose last event falls on one of `days`, given the events of `read_window`."""
    return fold(mark_starts(events, gap)).where(F.col("dt").isin(list(days)))


def landed_files(events: Table, run: Run) -> Iterator[DataFile]:
    """Yield the files of events that landed on the run's days, also those of earlier deliveries of these days.

    Events that are not delivered again have to leave their sessions. If all are, the run stages the same partitions.
    """
    overwritten = [
        Table("events", commit["version"])
        for commit in events.commits()
        if commit["version"] < events.version and str(run.first) <= commit["last"] and commit["first"] <= str(run.last)
    ]
    for table in (events, *overwritten):
        for file in table.files:
            if run.first <= file.partition["landed"] <= run.last:
                yield file


def populated_and_published(events: Table) -> tuple[set[date], set[date]]:
    """Return the dates that have an event or a session, and of these the published partitions of sessions."""
    sessions = Table.find("sessions")
    populated = set(events.rows_by("dt")) | (set(sessions.rows_by("dt")) if sessions else set())
    return populated, {day for day in populated if sessions and sessions.basis(day) is not None}


def days_to_stage(events: Table, run: Run, config: Settings) -> tuple[list[date], list[date]]:
    """Return the changed partitions that a run stages, and those that it postpones to a backfill."""
    changed = changed_by(landed_files(events, run), timedelta(minutes=config.session_gap_minutes))
    return partitions_to_stage(changed, run.first, run.last, *populated_and_published(events), config.late_days)


def main(argv: list[str] | None = None) -> Staged:
    """Compute the partitions that changed from the events that decide them, and stage them."""
    run, _ = parse_run(job_parser("jobs.sessionize", __doc__), argv)
    config = settings()
    gap = timedelta(minutes=config.session_gap_minutes)
    spark = spark_session("sessionize", config)
    events = published_events(run)

    days, postponed = days_to_stage(events, run, config)
    if postponed:
        log.warning(
            "late events changed sessions of %s, older than MEANDER_LATE_DAYS=%d: `meander plan --reason late-data` "
            "prints how to restate them",
            ", ".join(map(str, postponed)),
            config.late_days,
        )
    start, end = read_window(days[0], days[-1], gap)
    nearby = events.read(spark, start.date(), end.date())
    nearby = nearby.where((F.col("event_time") >= F.lit(start)) & (F.col("event_time") < F.lit(end)))
    staged = stage(
        sessions_ending_on(nearby, days, gap),
        "sessions",
        run,
        owns=days,
        basis=events.version,
        counts={"postponed": [str(day) for day in postponed]},
        inputs={"events": events.version},
    )
    log.info("staged %d sessions on %d days, %s to %s", staged.rows, len(days), days[0], days[-1])
    return staged


if __name__ == "__main__":
    run_main(main)
