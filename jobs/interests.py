"""Stage every active user's state at the end of a date T: what they did last, and what they care about.

Reads   events     dt <= T and landed <= T (what was known at the end of T), no further back than the history setting
Writes  interests  dt=T, staged only

A range makes the state at many T in one job: each event is counted at every T that it can matter for.
"""

import logging
from collections.abc import Sequence
from datetime import date, timedelta

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from jobs.arguments import as_of_days, as_of_parser, parse_run
from jobs.inputs import published_events
from lake.errors import run_main
from lake.rules import BEHAVIOR_CODES, WEEK_DAYS
from lake.schemas import INTERESTS
from lake.session import spark_session
from lake.settings import Settings, settings
from lake.staging import Staged, stage

log = logging.getLogger(__name__)

# The weight of one event as evidence of interest, by how much a shopper commits to the item.
WEIGHTS = {"view": 1, "search": 1, "favorite": 2, "cart": 3, "purchase": 4}

# Decay is counted in billionths, as integers: unlike a sum of floating-point numbers, theirs does not depend on the
# order in which rows are added.
BILLION = 1_000_000_000


def distinct_events(events: DataFrame) -> DataFrame:
    """Keep each event once, with the first day on which it arrived.

    Copies of an event are equal in every column that is read here, so it does not matter whose values are kept.
    """
    columns = ("event_time", "behavior", "item_id", "category_id", "price", "dt")
    return (
        events.repartition("user_id")
        .groupBy("user_id", "event_id")
        .agg(F.min("landed").alias("landed"), *(F.first(name).alias(name) for name in columns))
    )


def behavior_weight() -> Column:
    """Return the weight of the row's event, an integer."""
    return F.create_map(*(F.lit(part) for pair in WEIGHTS.items() for part in pair))[F.col("behavior")]


def sums_by_day(events: DataFrame, *by: str) -> DataFrame:
    """Sum events by user, `by`, day and landing, so that far fewer rows are repeated for each T.

    `new_day` is 1 in the first landing of a day and 0 in later ones. Where a later landing counts at T, the first one
    does too, so the sum of `new_day` is the number of days, without a set of them.
    """
    bought = F.col("behavior") == "purchase"
    day = ["user_id", *by, "dt"]
    first_landing = F.row_number().over(Window.partitionBy(*day).orderBy("landed")) == 1
    return (
        events.groupBy(*day, "landed")
        .agg(
            F.min("event_time").alias("first_event_time"),
            F.max("event_time").alias("last_event_time"),
            F.count("*").alias("n"),
            F.sum(behavior_weight()).alias("weight"),
            F.count_if(bought).alias("purchases"),
            F.sum(F.when(bought, F.col("price"))).alias("spend"),
        )
        .withColumn("new_day", first_landing.cast("int"))
    )


def at_each(rows: DataFrame, as_of: list[date], config: Settings, *, include_late: bool) -> DataFrame:
    """Repeat each row for every T at which it counts, as `as_of`, with its age in days, and what that age is within.

    Args:
        rows: events, or sums of them, with the columns `dt` and `landed`.
        as_of: the dates T.
        config: W and the length of the history.
        include_late: also count events that landed after T.
    """

    def counts_at(day: Column) -> Column:
        in_history = (F.col("dt") <= day) & (F.datediff(day, F.col("dt")) < config.history_days)
        return in_history if include_late else in_history & (F.col("landed") <= day)

    days = F.filter(F.array(*(F.lit(day) for day in as_of)), counts_at)
    return (
        rows.withColumn("as_of", F.explode(days))
        .withColumn("age", F.datediff("as_of", "dt"))
        .withColumn("in_window", F.col("age") < config.lookback_days)
        .withColumn("in_week", F.col("age") < WEEK_DAYS)
    )


def total_within(span: str, name: str) -> Column:
    """Sum a column over the rows within a span: `in_window` or `in_week`."""
    return F.coalesce(F.sum(F.when(F.col(span), F.col(name))), F.lit(0))


def seconds_to_end(time: Column) -> Column:
    """Return the seconds from a time to the end of `as_of`."""
    return F.unix_seconds(F.date_add("as_of", 1).cast("timestamp")) - F.unix_seconds(time)


def activity(days: DataFrame) -> DataFrame:
    """Return recency, frequency and spend of every user active in the lookback, from `sums_by_day` at each T."""
    return (
        days.groupBy("user_id", "as_of")
        .agg(
            F.max("last_event_time").alias("last_event_time"),
            total_within("in_window", "n").cast("bigint").alias("frequency"),
            total_within("in_window", "new_day").cast("bigint").alias("active_days"),
            total_within("in_window", "purchases").cast("bigint").alias("purchases"),
            total_within("in_window", "spend").cast("double").alias("spend"),
            total_within("in_week", "n").cast("bigint").alias("week_frequency"),
            F.sum("n").alias("history_events"),
            F.sum("new_day").alias("history_days_active"),
            seconds_to_end(F.min("first_event_time")).alias("tenure_seconds"),
        )
        .where("frequency > 0")
        .withColumn("recency_seconds", seconds_to_end(F.col("last_event_time")))
    )


def last_events(events: DataFrame, length: int) -> DataFrame:
    """Return each user's last `length` events at each T as arrays, oldest first."""
    newest_first = Window.partitionBy("user_id", "as_of").orderBy(F.desc("event_time"), F.desc("event_id"))
    codes = F.create_map(*(F.lit(part) for pair in BEHAVIOR_CODES.items() for part in pair))
    kept = events.withColumn("rank", F.row_number().over(newest_first)).where(F.col("rank") <= length)
    event = F.struct(
        (-F.col("rank")).alias("order"),
        F.when(F.col("item_id").isNull(), 0).otherwise(F.xxhash64("item_id")).alias("item"),
        F.when(F.col("category_id").isNull(), 0).otherwise(F.xxhash64("category_id")).alias("category"),
        codes[F.col("behavior")].alias("behavior"),
        F.unix_seconds("event_time").alias("second"),
        F.col("item_id").alias("id"),
    )
    kept = kept.groupBy("user_id", "as_of").agg(F.array_sort(F.collect_list(event)).alias("last"))
    seconds = F.col("last.second")

    def gap(second: Column, position: Column) -> Column:
        return F.when(position == 0, 0).otherwise(second - seconds[position - 1])

    return kept.select(
        "user_id",
        "as_of",
        F.col("last.item").alias("item_keys"),
        F.col("last.id").alias("item_ids"),
        F.col("last.category").alias("category_keys"),
        F.col("last.behavior").alias("behaviors"),
        seconds.alias("event_seconds"),
        F.transform(seconds, gap).alias("gap_seconds"),
    )


def ranked(amount: str, *fields: str, ties: Sequence[Column] = ()) -> Column:
    """Collect the categories of a group by falling amount, then `ties`, then id; amounts of 0 are left out.

    Each entry has `minus`, the amount below zero, the category's `id`, and what `fields` name.
    """
    entry = F.struct((-F.col(amount)).alias("minus"), *ties, F.col("category_id").alias("id"), *fields)
    return F.array_sort(F.collect_list(F.when(F.col(amount) > 0, entry)))


def shares_of(entries: str, total: str) -> Column:
    """Return the share that each entry of `ranked` has in the total amount."""
    return F.transform(F.col(f"{entries}.minus"), lambda minus: -minus / F.col(total))


def category_shares(days: DataFrame, half_life_days: float) -> DataFrame:
    """Return the distribution over categories: of the lookback, and of the whole history decayed by age.

    Args:
        days: `sums_by_day` by category, at each T.
        half_life_days: the age at which a weight has halved.
    """
    # Integers: all events of a day are equally old, and rounding the decay, not each event, keeps sums exact.
    decay = F.round(BILLION * F.pow(F.lit(0.5), F.col("age") / half_life_days)).cast("bigint")
    by_category = days.groupBy("user_id", "as_of", "category_id").agg(
        F.sum("n").alias("n"),
        total_within("in_window", "n").alias("window_n"),
        total_within("in_week", "n").alias("week_n"),
        F.sum("new_day").alias("days"),
        seconds_to_end(F.max("last_event_time")).alias("age_seconds"),
        total_within("in_window", "weight").alias("current"),
        F.sum(F.col("weight") * decay).alias("longterm"),
    )
    return (
        by_category.groupBy("user_id", "as_of")
        .agg(
            ranked("current", "window_n").alias("now"),
            ranked("longterm", "n", "days", "window_n", "week_n", "age_seconds").alias("ever"),
            F.sum("current").alias("now_total"),
            F.sum("longterm").alias("ever_total"),
        )
        .select(
            "user_id",
            "as_of",
            F.col("now.id").alias("current_categories"),
            F.col("now.window_n").alias("current_counts"),
            shares_of("now", "now_total").alias("current_shares"),
            F.col("ever.id").alias("longterm_categories"),
            shares_of("ever", "ever_total").alias("longterm_shares"),
            F.transform("ever.id", lambda category: F.xxhash64(category)).alias("longterm_category_keys"),
            F.col("ever.n").alias("longterm_counts"),
            F.col("ever.days").alias("longterm_days"),
            F.col("ever.window_n").alias("longterm_current_counts"),
            F.col("ever.week_n").alias("longterm_week_counts"),
            F.col("ever.age_seconds").alias("longterm_age_seconds"),
        )
    )


def interests(once: DataFrame, as_of: list[date], config: Settings, *, include_late: bool = False) -> DataFrame:
    """Return one row for each T in `as_of` and user active in the W days up to T.

    Args:
        once: events as `distinct_events` returns them, at least those whose date lies in the history of any T; they are
            read three times, so it pays to have them persisted.
        as_of: the dates T.
        config: W, L, history and half-life.
        include_late: also count events up to T that arrived after T, for a restatement.
    """

    def repeated(rows: DataFrame) -> DataFrame:
        return at_each(rows, as_of, config, include_late=include_late)

    in_categories = sums_by_day(once.where(F.col("category_id").isNotNull()), "category_id")
    keys = ["user_id", "as_of"]
    joined = (
        activity(repeated(sums_by_day(once)))
        .join(last_events(repeated(once), config.sequence_length), on=keys, how="inner")
        .join(category_shares(repeated(in_categories), config.half_life_days), on=keys, how="left")
        .withColumn("dominant_category", F.try_element_at("current_categories", F.lit(1)))
        .withColumnRenamed("as_of", "dt")
    )
    # A user whose events have no categories has empty distributions, not null ones.
    for field in INTERESTS:
        if field.name.startswith(("current_", "longterm_")):
            joined = joined.withColumn(field.name, F.coalesce(field.name, F.array().cast(field.dataType)))
    return joined.select(*INTERESTS.fieldNames())


def main(argv: list[str] | None = None) -> Staged:
    """Read the history of the requested dates, stage their states."""
    parser = as_of_parser("jobs.interests", __doc__, "restate: also count events that arrived after T")
    run, args = parse_run(parser, argv)
    config = settings()
    as_of = as_of_days(run, args.every)
    spark = spark_session("interests", config)
    table = published_events(run)
    oldest = as_of[0] - timedelta(days=config.history_days - 1)
    events = table.read(spark, oldest, as_of[-1], landed_by=None if args.include_late else as_of[-1])
    once = distinct_events(events).persist()
    try:
        staged = stage(
            interests(once, as_of, config, include_late=args.include_late),
            "interests",
            run,
            owns=as_of,
            basis=table.version,
            counts={
                "as_of": [str(day) for day in as_of],
                "include_late": args.include_late,
                "lookback_days": config.lookback_days,
            },
            inputs={"events": table.version},
        )
    finally:
        once.unpersist()
    log.info("staged the interests of %d users at %d dates, %s to %s", staged.rows, len(as_of), as_of[0], as_of[-1])
    return staged


if __name__ == "__main__":
    run_main(main)
