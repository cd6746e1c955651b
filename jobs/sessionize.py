"""Cut each user's events into sessions and stage the partitions that one landing day, or a range, has changed.

Reads   events    from P-1 00:00 - gap to P+1 00:00 + gap (UTC), for every partition P that changed
Writes  sessions  dt=P, the date of a session's last event; staged only

The rule, and why partition P needs no other events, is in docs/design.md under "Sessions".
"""

import logging
from collections.abc import Collection, Iterable, Iterator
from datetime import UTC, date, datetime, time, timedelta

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from jobs.arguments import job_parser, parse_run
from jobs.inputs import published_events, without_withheld
from lake.days import ONE_DAY, days_between
from lake.errors import run_main
from lake.looking_back import nothing_before
from lake.reach import changed_by, partitions_to_stage
from lake.schemas import MONEY, SESSION_EVENT, SESSIONS
from lake.session import spark_session
from lake.settings import Settings, settings
from lake.staging import Staged, stage
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


def dates_near(days: Iterable[date], gap: timedelta) -> set[date]:
    """Return the dates whose events decide which sessions end on `days`.

    Not all from the first to the last: one event with a wrong clock changes a day of another year.

    >>> sorted(found.day for found in dates_near([date(2025, 1, 9), date(2025, 1, 20)], timedelta(minutes=30)))
    [7, 8, 9, 10, 18, 19, 20, 21]
    """
    windows = (read_window(day, day, gap) for day in days)
    return {near for start, end in windows for near in days_between(start.date(), end.date())}


def landed_files(events: Table, days: Collection[date]) -> Iterator[DataFile]:
    """Yield the files of events that landed on some days, also those of earlier deliveries of these days.

    Events that are not delivered again have to leave their sessions. If all are, the run stages the same partitions.
    """
    first, last = str(min(days)), str(max(days))
    # A publish replaces the files of the delivery before it: the log tells of them, so no older version is opened. Of
    # the log, what is older than these days is not read.
    since = nothing_before(min(days))
    again = [c["version"] for c in events.commits(since) if first <= c["last"] and c["first"] <= last]
    for files in (events.files_of("landed", days), *events.replaced_by(again, since).values()):
        for file in files:
            if file.partition["landed"] in days:
                yield file


def populated_and_published(events: Table) -> tuple[set[date], set[date]]:
    """Return the dates that have an event or a session, and of these the published partitions of sessions."""
    sessions = Table.find("sessions")
    populated = set(events.rows_by("dt")) | (set(sessions.rows_by("dt")) if sessions else set())
    return populated, {day for day in populated if sessions and sessions.basis(day) is not None}


def days_to_stage(events: Table, landed: Collection[date], config: Settings) -> tuple[list[date], list[date]]:
    """Return the partitions that landing days have changed: those that a run stages, and those that it postpones."""
    changed = changed_by(landed_files(events, landed), timedelta(minutes=config.session_gap_minutes))
    return partitions_to_stage(changed, landed, *populated_and_published(events), config.late_days)


def main(argv: list[str] | None = None) -> Staged:
    """Compute the partitions that changed from the events that decide them, and stage them."""
    run, _ = parse_run(job_parser("jobs.sessionize", __doc__), argv)
    config = settings()
    gap = timedelta(minutes=config.session_gap_minutes)
    spark = spark_session("sessionize", config)
    events, landed = published_events(run)
    landed = without_withheld(days_between(run.first, run.last), landed)

    days, postponed = days_to_stage(events, landed, config)
    if postponed:
        log.warning(
            "late events changed sessions of %s, older than MEANDER_LATE_DAYS=%d: `meander plan --reason late-data` "
            "prints how to restate them",
            ", ".join(map(str, postponed)),
            config.late_days,
        )
    start, end = read_window(days[0], days[-1], gap)
    nearby = events.read(spark, dates=dates_near(days, gap))
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
