"""Stage every active user's state at the end of a date T: what they did last, and what they care about.

Reads   events     dt <= T and landed <= T (what was known at the end of T), no further back than the history setting
Writes  interests  dt=T, staged only

A range makes the state at many T in one job: each event is counted at every T that it can matter for.
"""

import logging
from datetime import date, timedelta

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from jobs.arguments import job_parser, parse_run
from jobs.inputs import published_events
from lake.errors import SettingsInvalid, run_main
from lake.landing import days_between
from lake.schemas import BEHAVIORS, INTERESTS
from lake.session import spark_session
from lake.settings import Settings, settings
from lake.staging import Run, Staged, stage

log = logging.getLogger(__name__)

# How much one event says about interest, in the order in which shoppers commit themselves.
WEIGHTS = {"view": 1, "search": 1, "favorite": 2, "cart": 3, "purchase": 4}

# Decayed weights are summed as whole millionths: unlike a floating-point sum, a whole one does not depend on the order
# of the rows.
MILLION = 1_000_000


def known_events(events: DataFrame) -> DataFrame:
    """Keep each event once, with the first day on which it arrived.

    Copies of an event are equal in every column that is read here, so it does not matter whose values are kept.
    """
    columns = ("event_time", "behavior", "item_id", "category_id", "price", "dt")
    return (
        events.repartition("user_id")
        .groupBy("user_id", "event_id")
        .agg(F.min("landed").alias("landed"), *(F.first(name).alias(name) for name in columns))
    )


def at_each(rows: DataFrame, as_of: list[date], config: Settings, *, include_late: bool) -> DataFrame:
    """Repeat each row for every T at which it counts, as `as_of`, with its age in days and whether W covers it.

    Args:
        rows: events, or sums of them, with the columns `dt` and `landed`.
        as_of: the dates T.
        config: W and the length of the history.
        include_late: also count what landed after T.
    """

    def counts_at(day: Column) -> Column:
        in_history = (F.col("dt") <= day) & (F.datediff(day, F.col("dt")) < config.history_days)
        return in_history if include_late else in_history & (F.col("landed") <= day)

    days = F.filter(F.array(*(F.lit(day) for day in as_of)), counts_at)
    return (
        rows.withColumn("as_of", F.explode(days))
        .withColumn("age", F.datediff("as_of", "dt"))
        .withColumn("in_window", F.col("age") < config.lookback_days)
    )


def days_of_activity(events: DataFrame) -> DataFrame:
    """Sum events by user and day, so that far fewer rows are repeated for each T."""
    bought = F.col("behavior") == "purchase"
    return events.groupBy("user_id", "dt", "landed").agg(
        F.max("event_time").alias("last_event_time"),
        F.count("*").alias("n"),
        F.count_if(bought).alias("purchases"),
        F.sum(F.when(bought, F.col("price"))).alias("spend"),
    )


def activity(days: DataFrame) -> DataFrame:
    """Return recency, frequency and spend of every user who was active in the lookback, from `days_of_activity`."""

    def in_window(name: str) -> Column:
        return F.coalesce(F.sum(F.when(F.col("in_window"), F.col(name))), F.lit(0))

    end_of_day = F.date_add("as_of", 1).cast("timestamp")
    return (
        days.groupBy("user_id", "as_of")
        .agg(
            F.max("last_event_time").alias("last_event_time"),
            in_window("n").cast("bigint").alias("frequency"),
            F.size(F.collect_set(F.when(F.col("in_window"), F.col("dt")))).cast("bigint").alias("active_days"),
            in_window("purchases").cast("bigint").alias("purchases"),
            in_window("spend").cast("double").alias("spend"),
            F.sum("n").alias("history_events"),
        )
        .where("frequency > 0")
        .withColumn("recency_seconds", F.unix_seconds(end_of_day) - F.unix_seconds("last_event_time"))
    )


def last_events(events: DataFrame, length: int) -> DataFrame:
    """Return each user's last `length` events at each T as arrays, oldest first."""
    newest_first = Window.partitionBy("user_id", "as_of").orderBy(F.desc("event_time"), F.desc("event_id"))
    codes = F.create_map(*(F.lit(part) for pair in zip(BEHAVIORS, range(1, 6), strict=True) for part in pair))
    kept = events.withColumn("rank", F.row_number().over(newest_first)).where(F.col("rank") <= length)
    event = F.struct(
        (-F.col("rank")).alias("order"),
        F.when(F.col("item_id").isNull(), 0).otherwise(F.xxhash64("item_id")).alias("item"),
        F.when(F.col("category_id").isNull(), 0).otherwise(F.xxhash64("category_id")).alias("category"),
        codes[F.col("behavior")].alias("behavior"),
        F.unix_seconds("event_time").alias("second"),
    )
    kept = kept.groupBy("user_id", "as_of").agg(F.array_sort(F.collect_list(event)).alias("last"))
    seconds = F.col("last.second")

    def gap(second: Column, position: Column) -> Column:
        return F.when(position == 0, 0).otherwise(second - seconds[position - 1])

    return kept.select(
        "user_id",
        "as_of",
        F.col("last.item").alias("item_keys"),
        F.col("last.category").alias("category_keys"),
        F.col("last.behavior").alias("behaviors"),
        seconds.alias("event_seconds"),
        F.transform(seconds, gap).alias("gap_seconds"),
    )


def category_shares(events: DataFrame, half_life_days: float) -> DataFrame:
    """Return the distribution over categories: of the lookback, and of the whole history decayed by age."""
    weight = F.create_map(*(F.lit(part) for pair in WEIGHTS.items() for part in pair))[F.col("behavior")]
    decayed = F.round(weight * MILLION * F.pow(F.lit(0.5), F.col("age") / half_life_days)).cast("bigint")
    by_category = (
        events.where(F.col("category_id").isNotNull())
        .groupBy("user_id", "as_of", "category_id")
        .agg(
            F.count_if("in_window").alias("n"),
            F.sum(F.when(F.col("in_window"), weight).otherwise(0)).alias("current"),
            F.sum(decayed).alias("longterm"),
        )
    )

    def ranked(amount: str) -> Column:
        """Collect a user's categories by falling amount, then id; those that amount to nothing are left out."""
        entry = F.struct((-F.col(amount)).alias("minus"), F.col("category_id").alias("id"), F.col("n"))
        return F.array_sort(F.collect_list(F.when(F.col(amount) > 0, entry)))

    def shares(entries: str, total: str) -> Column:
        return F.transform(F.col(f"{entries}.minus"), lambda minus: -minus / F.col(total))

    return (
        by_category.groupBy("user_id", "as_of")
        .agg(
            ranked("current").alias("now"),
            ranked("longterm").alias("ever"),
            F.sum("current").alias("now_total"),
            F.sum("longterm").alias("ever_total"),
        )
        .select(
            "user_id",
            "as_of",
            F.col("now.id").alias("current_categories"),
            F.col("now.n").alias("current_counts"),
            shares("now", "now_total").alias("current_shares"),
            F.col("ever.id").alias("longterm_categories"),
            shares("ever", "ever_total").alias("longterm_shares"),
        )
    )


def interests(once: DataFrame, as_of: list[date], config: Settings, *, include_late: bool = False) -> DataFrame:
    """Return one row for each T in `as_of` and user active in the W days up to T.

    Args:
        once: events as `known_events` returns them, at least those whose date lies in the history of any T; they are
            read three times, so it pays to have them persisted.
        as_of: the dates T.
        config: W, L, history and half-life.
        include_late: also count events up to T that arrived after T, for a restatement.
    """
    known = at_each(once, as_of, config, include_late=include_late)
    active_days = at_each(days_of_activity(once), as_of, config, include_late=include_late)
    keys = ["user_id", "as_of"]
    joined = (
        activity(active_days)
        .join(last_events(known, config.sequence_length), on=keys, how="inner")
        .join(category_shares(known, config.half_life_days), on=keys, how="left")
        .withColumn("dominant_category", F.try_element_at("current_categories", F.lit(1)))
        .withColumnRenamed("as_of", "dt")
    )
    # A user whose log has no categories has empty distributions, not unknown ones.
    for field in INTERESTS:
        if field.name.startswith(("current_", "longterm_")):
            joined = joined.withColumn(field.name, F.coalesce(field.name, F.array().cast(field.dataType)))
    return joined.select(*INTERESTS.fieldNames())


def as_of_days(run: Run, every: int) -> list[date]:
    """Return every `every`-th date of the run's range, counted back from its last.

    >>> [day.day for day in as_of_days(Run("r", date(2017, 1, 1), date(2017, 1, 15)), 7)]
    [1, 8, 15]
    """
    if every < 1:
        raise SettingsInvalid(f"--every counts days and must be at least 1; received {every}")
    return sorted(days_between(run.first, run.last)[::-1][::every])


def main(argv: list[str] | None = None) -> Staged:
    """Read the history of the dates asked for, stage their states."""
    parser = job_parser("jobs.interests", __doc__)
    parser.add_argument(
        "--every", type=int, default=1, metavar="N", help="only every N-th date of a range, the last included"
    )
    parser.add_argument("--include-late", action="store_true", help="restate: also count events that arrived after T")
    run, args = parse_run(parser, argv)
    config = settings()
    as_of = as_of_days(run, args.every)
    spark = spark_session("interests")
    table = published_events(run)
    oldest = as_of[0] - timedelta(days=config.history_days - 1)
    events = table.read(spark, oldest, as_of[-1], landed_by=None if args.include_late else as_of[-1])
    once = known_events(events).persist()
    try:
        staged = stage(
            interests(once, as_of, config, include_late=args.include_late),
            "interests",
            run,
            owns=as_of,
            basis=table.version,
            counts={"as_of": [str(day) for day in as_of], "include_late": args.include_late},
            inputs={"events": table.version},
        )
    finally:
        once.unpersist()
    log.info("staged the interests of %d users at %d dates, %s to %s", staged.rows, len(as_of), as_of[0], as_of[-1])
    return staged


if __name__ == "__main__":
    run_main(main)
