"""Stage every active user's state at the end of a date T: what they did last, and what they care about.

Reads   events     dt <= T and landed <= T (what was known at the end of T), no further back than the history setting,
                   and of these only what no summary holds (jobs/summaries.py)
Writes  interests  dt=T, staged only; and the summaries that were missing, for later days

A range makes the state at many T in one job: each sum is counted at every T that it can matter for.
"""

import logging
from collections.abc import Sequence
from datetime import date

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from jobs.arguments import as_of_days, as_of_parser, parse_run
from jobs.inputs import published_events, without_withheld
from jobs.summaries import Source, daily_sums, last_of, last_until, sums_until
from lake.errors import run_main
from lake.rules import BEHAVIOR_CODES, BLOCK_DAYS, WEEK_DAYS
from lake.schemas import INTERESTS
from lake.session import spark_session
from lake.settings import Settings, settings
from lake.staging import Staged, stage
from lake.summaries import Landings

log = logging.getLogger(__name__)

# Decay is counted in billionths, as integers: unlike a sum of floating-point numbers, theirs does not depend on the
# order in which rows are added.
BILLION = 1_000_000_000
WHOLE = "decimal(38, 0)"  # 64 bits are too few for a year of a user who has a twentieth of all events


def at_each(rows: DataFrame, as_of: list[date], config: Settings, *, include_late: bool) -> DataFrame:
    """Repeat each row for every T at which it counts, as `as_of`, and tell what its dates are within.

    Args:
        rows: sums of the events of the dates `first` to `last`, which no span of a T cuts, that landed by `landed`.
        as_of: the dates T.
        config: W and the length of the history.
        include_late: also count events that landed after T.
    """

    def counts_at(day: Column) -> Column:
        in_history = (F.col("last") <= day) & (F.datediff(day, F.col("first")) < config.history_days)
        return in_history if include_late else in_history & (F.col("landed") <= day)

    days = F.filter(F.array(*(F.lit(day) for day in as_of)), counts_at)
    age = F.datediff("as_of", "first")
    return (
        rows.withColumn("as_of", F.explode(days))
        .withColumn("in_window", age < config.lookback_days)
        .withColumn("in_week", age < WEEK_DAYS)
    )


def total_within(span: str, name: str) -> Column:
    """Sum a column over the rows within a span: `in_window` or `in_week`."""
    return F.coalesce(F.sum(F.when(F.col(span), F.col(name))), F.lit(0))


def seconds_to_end(time: Column) -> Column:
    """Return the seconds from a time to the end of `as_of`."""
    return F.unix_seconds(F.date_add("as_of", 1).cast("timestamp")) - F.unix_seconds(time)


def decayed(days: str, half_life_days: float) -> Column:
    """Return the weight of an array of days at `as_of`, in billionths, each day's halved in each half-life."""

    # All events of a day are equally old, and rounding the decay, not each event, keeps sums exact.
    def share(day: Column) -> Column:
        age = F.datediff("as_of", day)
        return F.round(BILLION * F.pow(F.lit(0.5), age / half_life_days)).cast("bigint")

    def add(total: Column, day: Column) -> Column:
        return (total + day["weight"] * share(day["dt"])).cast(WHOLE)

    return F.aggregate(days, F.lit(0).cast(WHOLE), add)


def dates_of(days: str) -> Column:
    """Return the dates of an array of days, all in one of the largest blocks, as the bits of a number."""
    size = max(BLOCK_DAYS)

    def add(bits: Column, day: Column) -> Column:
        return bits.bitwiseOR(F.call_function("shiftleft", F.lit(1).cast("bigint"), F.pmod(ordinal(day["dt"]), size)))

    return F.aggregate(days, F.lit(0).cast("bigint"), add)


def ordinal(day: Column) -> Column:
    """Return the number of a date as Python counts it, by which blocks are aligned."""
    return F.unix_date(day) + date(1970, 1, 1).toordinal()


def count_dates(dates: str) -> Column:
    """Count the dates in the bits of numbers, one for each block."""
    return F.sum(F.bit_count(dates)).cast("bigint")


def by_block(sums: DataFrame, half_life_days: float) -> DataFrame:
    """Add up the sums at each T by user, category and block of dates, whatever landing or summary they are from."""
    within = F.when(F.col("in_window"), F.col("dates")).otherwise(F.lit(0).cast("bigint"))
    return (
        sums.withColumn("dates", dates_of("days"))
        .repartition("user_id")
        .groupBy("user_id", "as_of", "category_id", F.floor(ordinal(F.col("first")) / max(BLOCK_DAYS)).alias("block"))
        .agg(
            F.min("first_event_time").alias("first_event_time"),
            F.max("last_event_time").alias("last_event_time"),
            F.sum("n").alias("n"),
            total_within("in_window", "n").alias("window_n"),
            total_within("in_week", "n").alias("week_n"),
            total_within("in_window", "weight").alias("current"),
            F.sum(decayed("days", half_life_days)).cast(WHOLE).alias("longterm"),
            total_within("in_window", "purchases").alias("purchases"),
            total_within("in_window", "spend").alias("spend"),
            # Late events can be of a date that has others: a date counts once.
            F.bit_or("dates").alias("dates"),
            F.bit_or(within).alias("window_dates"),
        )
    )


def activity(blocks: DataFrame) -> DataFrame:
    """Return recency, frequency and spend of every user active in the lookback, from `by_block`."""
    summed = ("n", "window_n", "week_n", "purchases", "spend")
    return (
        blocks.groupBy("user_id", "as_of", "block")
        .agg(
            F.min("first_event_time").alias("first_event_time"),
            F.max("last_event_time").alias("last_event_time"),
            *(F.sum(name).alias(name) for name in summed),
            F.bit_or("dates").alias("dates"),
            F.bit_or("window_dates").alias("window_dates"),
        )
        .groupBy("user_id", "as_of")
        .agg(
            F.max("last_event_time").alias("last_event_time"),
            F.sum("window_n").cast("bigint").alias("frequency"),
            count_dates("window_dates").alias("active_days"),
            F.sum("purchases").cast("bigint").alias("purchases"),
            F.sum("spend").cast("double").alias("spend"),
            F.sum("week_n").cast("bigint").alias("week_frequency"),
            F.sum("n").alias("history_events"),
            count_dates("dates").alias("history_days_active"),
            seconds_to_end(F.min("first_event_time")).alias("tenure_seconds"),
        )
        .where("frequency > 0")
        .withColumn("recency_seconds", seconds_to_end(F.col("last_event_time")))
    )


def last_events(events: DataFrame, length: int) -> DataFrame:
    """Return each user's last `length` events at each T as arrays, oldest first."""
    codes = F.create_map(*(F.lit(part) for pair in BEHAVIOR_CODES.items() for part in pair))
    kept = last_of(events, length, "as_of")
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
    return F.transform(F.col(f"{entries}.minus"), lambda minus: -minus.cast("double") / F.col(total).cast("double"))


def category_shares(blocks: DataFrame, longterm_categories: int = 0) -> DataFrame:
    """Return the distribution over categories: of the lookback, and of the whole history decayed by age.

    Args:
        blocks: as `by_block` returns them.
        longterm_categories: how many categories of the second are kept, with the shares that they have among all; all
            of them when 0.
    """
    by_category = (
        blocks.where(F.col("category_id").isNotNull())
        .groupBy("user_id", "as_of", "category_id")
        .agg(
            *(F.sum(name).alias(name) for name in ("n", "window_n", "week_n", "current", "longterm")),
            count_dates("dates").alias("days"),
            seconds_to_end(F.max("last_event_time")).alias("age_seconds"),
        )
    )
    ever = ranked("longterm", "n", "days", "window_n", "week_n", "age_seconds")
    return (
        by_category.groupBy("user_id", "as_of")
        .agg(
            ranked("current", "window_n").alias("now"),
            (F.slice(ever, 1, longterm_categories) if longterm_categories else ever).alias("ever"),
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


def states(
    sums: DataFrame, last: DataFrame, as_of: list[date], config: Settings, *, include_late: bool = False
) -> DataFrame:
    """Return one row for each T in `as_of` and user active in the W days up to T.

    Args:
        sums: as `sums_until` returns them, of the history of all T.
        last: events, each once, among which are the last L of every user at each T.
        as_of: the dates T.
        config: W, L, history and half-life.
        include_late: also count events up to T that arrived after T, for a restatement.
    """

    def repeated(rows: DataFrame) -> DataFrame:
        return at_each(rows, as_of, config, include_late=include_late)

    blocks = by_block(repeated(sums), config.half_life_days)
    one_day = last.withColumn("first", F.col("dt")).withColumn("last", F.col("dt"))
    keys = ["user_id", "as_of"]
    joined = (
        activity(blocks)
        .join(last_events(repeated(one_day), config.sequence_length), on=keys, how="inner")
        .join(category_shares(blocks, config.longterm_categories), on=keys, how="left")
        .withColumn("dominant_category", F.try_element_at("current_categories", F.lit(1)))
        .withColumnRenamed("as_of", "dt")
    )
    # A user whose events have no categories has empty distributions, not null ones.
    for field in INTERESTS:
        if field.name.startswith(("current_", "longterm_")):
            joined = joined.withColumn(field.name, F.coalesce(field.name, F.array().cast(field.dataType)))
    return joined.select(*INTERESTS.fieldNames())


def from_events(once: DataFrame, as_of: list[date], config: Settings, *, include_late: bool = False) -> DataFrame:
    """Return the same from all events of the history, as `distinct_events` returns them: without any summary."""
    return states(daily_sums(once), once, as_of, config, include_late=include_late)


def main(argv: list[str] | None = None) -> Staged:
    """Sum up the landing days that no summary holds, and stage the states at the requested dates from summaries."""
    parser = as_of_parser("jobs.interests", __doc__, "restate: also count events that arrived after T")
    run, args = parse_run(parser, argv)
    config = settings()
    spark = spark_session("interests", config)
    table, landed = published_events(run)
    as_of = without_withheld(as_of_days(run, args.every), landed)
    source = Source(spark, table, Landings(table), BLOCK_DAYS)
    sums = sums_until(source, as_of, config, include_late=args.include_late)
    last = last_until(source, as_of, config, include_late=args.include_late)
    staged = stage(
        states(sums, last, as_of, config, include_late=args.include_late),
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
    log.info("staged the interests of %d users at %d dates, %s to %s", staged.rows, len(as_of), as_of[0], as_of[-1])
    return staged


if __name__ == "__main__":
    run_main(main)
