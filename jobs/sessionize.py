"""Cut each user's events into sessions and stage the partitions that one landing day, or a range, has changed.

Reads   events    from P-1 00:00 - gap to P+1 00:00 + gap (UTC), for every partition P that changed
Writes  sessions  dt=P, the date of a session's last event; staged only

The rule, and why partition P needs no other events, is in docs/design.md under "Sessions".
"""

import logging
from collections.abc import Collection, Iterable, Iterator
from datetime import UTC, date, datetime, time, timedelta

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import to_arrow_schema

from jobs.arguments import job_parser, parse_run
from jobs.copied_sessions import Unchanged, cut_by, find_unchanged
from jobs.cutting import cut
from jobs.inputs import published_events, without_withheld
from lake.days import ONE_DAY, days_between
from lake.errors import run_main
from lake.looking_back import nothing_before
from lake.reach import changed_by, dates_in_sessions, in_sessions, is_early, partitions_to_stage
from lake.schemas import SESSION_EVENT, SESSIONS
from lake.session import spark_session
from lake.settings import Settings, settings
from lake.small import is_small
from lake.staging import Staged, stage
from lake.table import DataFile, Table, read_parquet

log = logging.getLogger(__name__)

# Each executor keeps the ids of the users with a change in memory, and so does the driver: 40 MB of so many.
MOST_USERS = 1_000_000
# What is read of an event, and the order in which events are cut.
COLUMNS = ("user_id", *SESSION_EVENT.fieldNames())
ORDER = ("user_id", "event_time", "event_id")


def read_window(first: date, last: date, gap: timedelta) -> tuple[datetime, datetime]:
    """Return the half-open span of event times that decides which sessions end on `first` to `last`.

    >>> read_window(date(2025, 1, 2), date(2025, 1, 2), timedelta(minutes=30))[0].isoformat()
    '2024-12-31T23:30:00+00:00'
    """
    return (
        datetime.combine(first, time(), UTC) - ONE_DAY - gap,
        datetime.combine(last, time(), UTC) + ONE_DAY + gap,
    )


def sessions_of(events: DataFrame, gap: timedelta, days: Collection[date] | None = None) -> DataFrame:
    """Return the sessions of events; with `days`, those whose last event falls on one of them.

    All events of a user are brought into one partition. Copies of an event that was delivered on two days are
    neighbours in this order, so dropping them needs no shuffle.
    """

    def sessions(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        return cut(batches, gap, days)

    by_user = events.select(*COLUMNS).repartition("user_id")
    return by_user.sortWithinPartitions(*ORDER).mapInArrow(sessions, SESSIONS)


def sessions_in(events: Table, files: Iterable[DataFile], gap: timedelta, days: Collection[date]) -> pa.Table:
    """Return the same of the events in a few small files, without Spark.

    A worker of Spark is a process, which takes two seconds of CPU to import what is here already.
    """
    nothing = pa.schema([events.stored.field(name) for name in COLUMNS]).empty_table()
    # A file may say that one of its columns has no null, such as a behavior that is the same in each row.
    read = [nothing, *(events.read_file(file, COLUMNS) for file in files)]
    rows = pa.concat_tables(read, promote_options="default")
    in_order = rows.sort_by([(name, "ascending") for name in ORDER])
    return pa.Table.from_batches(cut(in_order.to_batches(), gap, days), to_arrow_schema(SESSIONS))


def sessions_on(
    spark: SparkSession, events: Table, days: list[date], own: Collection[date], gap: timedelta
) -> DataFrame:
    """Return the sessions of some days; of days that are not a run's `own`, those of users without a change are copied.

    Who runs a day again gets it from its events, whatever is published of it.
    """
    unchanged = find_unchanged(events, {day: dates_near([day], gap) for day in days if day not in own}, gap)
    users = users_with_a_change(spark, events, unchanged, gap) if unchanged else None
    if unchanged is None or users is None:
        return sessions_of(events_near(spark, events, days, gap), gap, days)
    copied = unchanged.days
    log.info("copying sessions of %s, but those of %d users", ", ".join(map(str, copied)), users.num_rows)
    changed = F.broadcast(spark.createDataFrame(users))
    published = unchanged.sessions.read_files(spark, unchanged.sessions.files_of("dt", copied))
    sessions = published.join(changed, "user_id", "left_anti").select(*SESSIONS.fieldNames())
    of_changed = events_near(spark, events, copied, gap).join(changed, "user_id", "left_semi")
    sessions = sessions.unionAll(sessions_of(of_changed, gap, copied))
    if rest := [day for day in days if day not in copied]:
        sessions = sessions.unionAll(sessions_of(events_near(spark, events, rest, gap), gap, rest))
    return sessions


def users_with_a_change(spark: SparkSession, events: Table, unchanged: Unchanged, gap: timedelta) -> pa.Table | None:
    """Return the users who have an event near some days in a file that came or went; None if there are too many."""
    rows = within(read_parquet(spark, events.path, unchanged.changed, events.spec.schema), unchanged.days, gap)
    users = rows.select("user_id").distinct().limit(MOST_USERS + 1).toArrow()
    return None if users.num_rows > MOST_USERS else users


def events_near(spark: SparkSession, events: Table, days: list[date], gap: timedelta) -> DataFrame:
    """Return the events that decide which sessions end on some days."""
    return within(events.read_files(spark, files_near(events, days, gap)), days, gap)


def files_near(events: Table, days: list[date], gap: timedelta) -> list[DataFile]:
    """Return the files of the events that decide which sessions end on some days."""
    return in_sessions(events, events.files_of("dt", dates_near(days, gap)))


def within(events: DataFrame, days: list[date], gap: timedelta) -> DataFrame:
    """Return the events that are inside of what is read for some days."""
    start, end = read_window(days[0], days[-1], gap)
    return events.where((F.col("event_time") >= F.lit(start)) & (F.col("event_time") < F.lit(end)))


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

    And those of events of these dates that landed before, which are in sessions since these days landed.
    Events that are not delivered again have to leave their sessions. If all are, the run stages the same partitions.
    """
    first, last = str(min(days)), str(max(days))
    # A publish replaces the files of the delivery before it: the log tells of them, so no older version is opened. Of
    # the log, what is older than these days is not read.
    since = nothing_before(min(days))
    again = [c["version"] for c in events.commits(since) if first <= c["last"] and c["first"] <= last]
    for files in (events.files_of("landed", days), *events.replaced_by(again, since).values()):
        for file in in_sessions(events, files):
            if file.partition["landed"] in days:
                yield file
    for file in events.files_of("dt", days):
        if is_early(file) and file.partition["landed"] not in days:
            yield file


def populated_and_published(events: Table) -> tuple[set[date], set[date]]:
    """Return the dates that have an event or a session, and of these the published partitions of sessions."""
    sessions = Table.find("sessions")
    populated = dates_in_sessions(events) | (set(sessions.rows_by("dt")) if sessions else set())
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
    files = files_near(events, days, gap)
    small = is_small(sum(file.bytes for file in files))
    if small:
        sessions = spark.createDataFrame(sessions_in(events, files, gap, days), SESSIONS)
    else:
        sessions = sessions_on(spark, events, days, days_between(run.first, run.last), gap)
    staged = stage(
        sessions,
        "sessions",
        run,
        owns=days,
        basis=events.version,
        counts={"postponed": [str(day) for day in postponed], "cut_by": cut_by(events, events.version, gap)},
        inputs={"events": events.version},
        small=small,
    )
    log.info("staged %d sessions on %d days, %s to %s", staged.rows, len(days), days[0], days[-1])
    return staged


if __name__ == "__main__":
    run_main(main)
