"""What the states need of landing days, from events, or from summaries that an earlier run has kept.

Three kinds of summaries, which lake/summaries.py keeps; the keys say from which files of `events` each was made:

on_time  sums by user and category over the events of a date that landed by its end: on it, or in the folder of the day
         before, where a shop's own day ends after midnight UTC. They count wherever their date does, whatever else
         lands. So the sums of a date need its files alone, and those of a block of days are added up from smaller
         blocks.
late     the events that landed after their date, each as it is: they are few, may have been delivered before, and are
         cut by their own dates. Those that had landed in time are left out.
last     the last L events of every user as of the end of a block, by which none older has to be read.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from lake.blocks import Block, block_of, cover
from lake.days import ONE_DAY, days_between
from lake.kinds import EVENT, FORM, KEPT_EVENT, LATE, ON_TIME, SUMS, Kind, blocks_of
from lake.settings import Settings
from lake.summaries import Key, Landings, Summaries, key_of
from lake.table import DataFile, Table

log = logging.getLogger(__name__)


# ---- from events ----


def distinct_events(events: DataFrame) -> DataFrame:
    """Keep each event once, with the first day on which it arrived.

    Copies of an event are equal in every column that is read here, so it does not matter whose values are kept.
    """
    columns = ("event_time", "behavior", "item_id", "category_id", "price", "dt")
    return (
        events.repartition("user_id")
        .groupBy("user_id", "event_id")
        .agg(F.min("landed").alias("landed"), *(F.first(name).alias(name) for name in columns))
        .select(*EVENT.fieldNames())
    )


def sums_by_day(events: DataFrame, weights: Mapping[str, int], *by: str) -> DataFrame:
    """Sum events by user, `by`, day and landing, so that far fewer rows are repeated for each T.

    Args:
        events: their rows.
        weights: of one event of each behavior.
        by: more columns.
    """
    weight = F.create_map(*(F.lit(part) for pair in weights.items() for part in pair))[F.col("behavior")]
    bought = F.col("behavior") == "purchase"
    return events.groupBy("user_id", *by, "dt", "landed").agg(
        F.min("event_time").alias("first_event_time"),
        F.max("event_time").alias("last_event_time"),
        F.count("*").alias("n"),
        F.sum(weight).cast("bigint").alias("weight"),
        F.count_if(bought).alias("purchases"),
        F.sum(F.when(bought, F.col("price"))).cast("decimal(38, 4)").alias("spend"),
    )


def daily_sums(events: DataFrame, weights: Mapping[str, int]) -> DataFrame:
    """Sum events by user, category, day and landing: the columns of `SUMS`, each day a block, and `landed`."""
    return (
        sums_by_day(events, weights, "category_id")
        .withColumn("days", F.array(F.struct("dt", "weight")))
        .withColumnRenamed("dt", "first")
        .withColumn("last", F.col("first"))
        .select(*SUMS.fieldNames(), "landed")
    )


def last_of(events: DataFrame, length: int, *more: str) -> DataFrame:
    """Keep the last `length` events of each user, and of each of `more`, with their place from the newest as `rank`."""
    newest_first = Window.partitionBy("user_id", *more).orderBy(F.desc("event_time"), F.desc("event_id"))
    return events.withColumn("rank", F.row_number().over(newest_first)).where(F.col("rank") <= length)


def without_repeats(late: DataFrame, on_time: DataFrame) -> DataFrame:
    """Leave out late events that had landed in time, given the events that landed in time for the same dates."""
    ids = ["user_id", "event_id"]
    # Of the two, the late events are few: what is looked up is a few rows of many, and those are few again.
    repeated = on_time.select(*ids).join(late.select(*ids), on=ids, how="left_semi")
    return late.join(repeated, on=ids, how="left_anti")


# ---- from smaller summaries, with `first` of the block that they become a part of ----


def merged_sums(parts: DataFrame) -> DataFrame:
    """Add up summaries of days that do not overlap."""
    return (
        parts.groupBy("first", "last", "user_id", "category_id")
        .agg(
            F.min("first_event_time").alias("first_event_time"),
            F.max("last_event_time").alias("last_event_time"),
            *(F.sum(name).alias(name) for name in ("n", "weight", "purchases")),
            F.sum("spend").cast("decimal(38, 4)").alias("spend"),
            F.flatten(F.collect_list("days")).alias("days"),
        )
        .select(*SUMS.fieldNames())
    )


def merged_late(parts: DataFrame) -> DataFrame:
    """Keep each late event once, with the first day on which it arrived."""
    columns = [name for name in KEPT_EVENT.fieldNames() if name not in ("user_id", "event_id", "first", "landed")]
    return (
        parts.groupBy("first", "user_id", "event_id")
        .agg(F.min("landed").alias("landed"), *(F.first(name).alias(name) for name in columns))
        .select(*KEPT_EVENT.fieldNames())
    )


# ---- kept in the lake ----


@dataclass(frozen=True)
class Source:
    """The events that summaries are made from: one version of the table, and how far they are summed up.

    Attributes:
        events: the pinned table.
        landings: its files by landing day.
        sizes: the sizes of blocks in days.
        weights: of one event of each behavior.
    """

    spark: SparkSession
    events: Table
    landings: Landings
    sizes: Sequence[int]
    weights: Mapping[str, int]

    def key(self, kind: Kind, block: Block) -> Key:
        """Return the key of the summary of a block."""
        return kind.key(self.landings, block, self.weights)

    def keys(self, kind: Kind, blocks: Collection[Block]) -> dict[Block, Key]:
        """Return the keys of the summaries of those blocks that have an event."""
        return kind.keys(self.landings, blocks, self.weights)

    def read(self, files: Collection[DataFile]) -> DataFrame:
        """Return events from files."""
        return self.events.read_files(self.spark, files).select(*EVENT.fieldNames())


def on_time_of_days(source: Source, days: Collection[date]) -> DataFrame:
    """Sum up the events of some dates that landed by the end of their date."""
    two = source.landings.dates_of_two(days)
    events = source.read(source.landings.on_time_of(day for day in days if day not in two))
    if two:
        events = events.unionByName(distinct_events(source.read(source.landings.on_time_of(two))))
    # They are known from their date on, also those that landed before.
    return daily_sums(events.withColumn("landed", F.col("dt")), source.weights).select(*SUMS.fieldNames())


def late_of_days(source: Source, days: Collection[date]) -> DataFrame:
    """Return the late events that landed on some days and had not landed in time."""
    files = source.landings.late_on(days)
    fresh = without_repeats(source.read(files), source.read(source.landings.first_seen(files)))
    return merged_late(fresh.withColumn("first", F.col("landed")))


# By kind, how the summaries of single days are made from events, and those of larger blocks from their parts.
OF_DAYS = {ON_TIME.name: on_time_of_days, LATE.name: late_of_days}
MERGED = {ON_TIME.name: merged_sums, LATE.name: merged_late}


def summaries(source: Source, kind: Kind, blocks: Collection[Block]) -> DataFrame:
    """Return the summaries of blocks: those that are kept, and the others, made from the largest parts that are.

    What is made is kept. A day without an event has no summary.
    """
    kept = Summaries.of(kind.name, kind.schema)
    wanted = source.keys(kind, blocks)
    missing = [block for block, key in wanted.items() if not kept.has(block, key)]
    parts = {block: source.keys(kind, parts_of(block, kind, source, kept)) for block in missing}
    days = {part: key for of in parts.values() for part, key in of.items() if not kept.has(part, key)}
    if days:
        log.info("summing up %d landing days, %s: %s to %s", len(days), kind.name, min(days).first, max(days).last)
        kept = kept.keep(OF_DAYS[kind.name](source, [day.first for day in days]), days, source.events)
    if larger := {block: of for block, of in parts.items() if len(block.days) > 1}:
        named = [(part.first, block.first, block.last) for block, of in larger.items() for part in of]
        names = source.spark.createDataFrame(named, "first date, block_first date, block_last date")
        rows = kept.read(source.spark, [pair for of in larger.values() for pair in of.items()])
        rows = rows.join(F.broadcast(names), on="first", how="inner").drop("first", "last")
        rows = rows.withColumnsRenamed({"block_first": "first", "block_last": "last"})
        kept = kept.keep(MERGED[kind.name](rows), {block: wanted[block] for block in larger}, source.events)
    return kept.read(source.spark, wanted.items())


def parts_of(block: Block, kind: Kind, source: Source, kept: Summaries) -> list[Block]:
    """Return the parts of a block that is not kept: the largest of those that are, and single days for the rest."""
    smaller = [size for size in source.sizes if size < len(block.days)]
    if not smaller:
        return [Block(day, day) for day in block.days]
    parts = cover(block.first, block.last, [max(smaller)])
    return [
        one
        for part in parts
        for one in ([part] if kept.has(part, source.key(kind, part)) else parts_of(part, kind, source, kept))
    ]


def sums_until(source: Source, as_of: Sequence[date], config: Settings, *, include_late: bool) -> DataFrame:
    """Return sums over the history of the dates `as_of`: the columns of `SUMS`, and `landed`.

    No row crosses a day at which something changes for one of these dates.
    """

    def of(kind: Kind) -> DataFrame:
        blocks = blocks_of(kind, as_of, config, source.landings, source.sizes, include_late=include_late)
        return summaries(source, kind, blocks)

    on_time, late = of(ON_TIME).withColumn("landed", F.col("last")), of(LATE)
    return on_time.unionByName(daily_sums(distinct_events(late), source.weights))


# ---- the last events ----


def last_until(source: Source, as_of: Sequence[date], config: Settings, *, include_late: bool) -> DataFrame:
    """Return events among which are the last L of every user at each of the dates `as_of`; columns as `EVENT`.

    They are those kept as of the last block that ends before the dates, and all that are known since later days.
    """
    landings, newest = source.landings, as_of[-1]
    landed_by = max(newest, landings.newest or newest) if include_late else newest
    end = block_of(as_of[0] + ONE_DAY, min(source.sizes)).first - ONE_DAY
    kept = Summaries.of("last", KEPT_EVENT)

    def key(end: date) -> Key:
        days = days_between(end - timedelta(days=config.history_days - 1), end)
        return key_of(landings.known_since(days), FORM, config.sequence_length, config.history_days)

    def since(earlier: date, later: date) -> DataFrame:
        return source.read(landings.known_since(days_between(earlier + ONE_DAY, later)))

    if not kept.has(Block(end, end), key(end)):
        oldest = end - timedelta(days=config.history_days)
        size = min(source.sizes)
        # An older one is a beginning: what has landed since is added to it. All this is only of the history.
        ends = [end - timedelta(days=days) for days in range(size, config.history_days, size)]
        before = next((day for day in ends if kept.has(Block(day, day), key(day))), None)
        rows = since(before or oldest, end)
        if before:
            rows = rows.unionByName(kept.read(source.spark, [(Block(before, before), key(before))]).drop("first"))
        log.info("keeping the last events as of %s, from those as of %s", end, before or "no earlier day")
        last = last_of(distinct_events(rows.where(F.col("dt") > F.lit(oldest))), config.sequence_length)
        kept = kept.keep(last.withColumn("first", F.lit(end)), {Block(end, end): key(end)}, source.events)
    rows = kept.read(source.spark, [(Block(end, end), key(end))]).drop("first")
    return distinct_events(rows.unionByName(since(end, landed_by).where(F.col("dt") <= F.lit(newest))))
