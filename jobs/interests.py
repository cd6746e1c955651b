"""Stage every active user's state at the end of a date T: what they did last, and what they care about.

Reads   events     dt <= T and landed <= T (what was known at the end of T), no further back than the history setting,
                   and of these only what no summary holds (jobs/summaries.py)
Writes  interests  dt=T, staged only; and the summaries that were missing, for later days

A range makes the state at many T in one job: each sum is counted at every T that it can matter for.
"""

import logging
from collections.abc import Sequence
from datetime import date
from decimal import ROUND_HALF_UP, Decimal

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
LARGEST = max(BLOCK_DAYS)
WHOLE = "decimal(38, 0)"  # 64 bits are too few for a year of a user who has a twentieth of all events


def at_each(rows: DataFrame, as_of: list[date], config: Settings, *, include_late: bool) -> DataFrame:
    """Repeat each row for every T at which it counts, as `as_of`, and tell what its dates are within.

    Args:
        rows: sums of the events of the dates `first` to `last`, which no span of a T cuts, that landed by `landed`.
            Those with a date `until` are not needed at that T or a later one.
        as_of: the dates T.
        config: W and the length of the history.
        include_late: also count events that landed after T.
    """

    def counts_at(day: Column) -> Column:
        counts = (F.col("last") <= day) & (F.datediff(day, F.col("first")) < config.history_days)
        if not include_late:
            counts &= F.col("landed") <= day
        if "until" in rows.columns:
            counts &= F.col("until").isNull() | (day < F.col("until"))
        return counts

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


def at_each_day(rows: DataFrame) -> DataFrame:
    """Repeat each row for every day in its `days`: `dt`, `weight`, and `dates`, the day as a bit of its block.

    What is summed over all days of the row stands in the first one, and is 0 in the others.
    """
    first = F.col("position") == 0
    return (
        rows.drop("weight")
        .select("*", F.posexplode("days").alias("position", "day"))
        .withColumns({name: F.when(first, F.col(name)).otherwise(0) for name in ("n", "purchases")})
        .withColumns(
            {
                "spend": F.when(first, F.col("spend")),
                "dt": F.col("day.dt"),
                "weight": F.col("day.weight"),
                "dates": F.call_function(
                    "shiftleft", F.lit(1).cast("bigint"), F.pmod(ordinal(F.col("day.dt")), LARGEST)
                ),
            }
        )
    )


def decays(config: Settings) -> list[int]:
    """Return by age in days what is left of a weight, in billionths: halved in each half-life, rounded half up."""
    left = (Decimal(BILLION * 0.5 ** (age / config.half_life_days)) for age in range(config.history_days))
    return [int(share.quantize(Decimal(1), ROUND_HALF_UP)) for share in left]


def exact_sum(name: str) -> Column:
    """Add up a column of 64-bit numbers beyond 64 bits: by halves, which is quicker than decimals."""
    high = F.sum(F.shiftright(name, 32)).cast(WHOLE)
    low = F.sum(F.col(name).bitwiseAND(F.lit((1 << 32) - 1))).cast(WHOLE)
    return (high * F.lit(1 << 32) + low).cast(WHOLE)


def ordinal(day: Column) -> Column:
    """Return the number of a date as Python counts it, by which blocks are aligned."""
    return F.unix_date(day) + date(1970, 1, 1).toordinal()


def blocks_back() -> Column:
    """Return how many of the largest blocks lie between the block of a row's dates and that of `as_of`."""
    return F.floor(ordinal(F.col("as_of")) / LARGEST) - F.floor(ordinal(F.col("first")) / LARGEST)


def block_names(name: str, days: int) -> list[str]:
    """Return the names of one column for each block that a span of so many days up to T can touch, T's own first."""
    return [f"{name}_{back}" for back in range((days - 1) // LARGEST + 2)]


def dates_within(span: Column, names: Sequence[str]) -> list[Column]:
    """Collect the dates within a span as bits, in a column for each block: a date of several rows counts once."""
    return [
        F.bit_or(F.when(span & (F.col("back") == back), F.col("dates"))).alias(name) for back, name in enumerate(names)
    ]


def count_dates(dates: Sequence[Column]) -> Column:
    """Count the dates in the bits of several columns."""
    return sum((F.coalesce(F.bit_count(bits), F.lit(0)) for bits in dates), F.lit(0)).cast("bigint")


def by_category(sums: DataFrame, config: Settings) -> DataFrame:
    """Add up the sums at each T by user and category, whatever landing or summary they are from."""
    left = F.expr(f"array({', '.join(f'{share}L' for share in decays(config))})")
    return (
        at_each_day(sums)
        .withColumn("back", blocks_back())
        # All events of a day are equally old, and rounding the decay, not each event, keeps sums exact.
        .withColumn("decayed", F.col("weight") * left[F.datediff("as_of", "dt")])
        .groupBy("user_id", "as_of", "category_id")
        .agg(
            F.min("first_event_time").alias("first_event_time"),
            F.max("last_event_time").alias("last_event_time"),
            F.sum("n").alias("n"),
            total_within("in_window", "n").alias("window_n"),
            total_within("in_week", "n").alias("week_n"),
            total_within("in_window", "weight").alias("current"),
            exact_sum("decayed").alias("longterm"),
            total_within("in_window", "purchases").alias("purchases"),
            total_within("in_window", "spend").alias("spend"),
            *dates_within(F.lit(True), block_names("dates", config.history_days)),
            *dates_within(F.col("in_window"), block_names("window_dates", config.lookback_days)),
        )
    )


def last_events(events: DataFrame, as_of: list[date], config: Settings, *, include_late: bool) -> DataFrame:
    """Return each user's last L events at each T as arrays, oldest first; arguments as in `states`."""
    codes = F.create_map(*(F.lit(part) for pair in BEHAVIOR_CODES.items() for part in pair))
    one_day = events.withColumn("first", F.col("dt")).withColumn("last", F.col("dt"))
    if len(as_of) > 1:
        # An event is not repeated from the date on at which L newer ones are known. Those that landed by their date are
        # known then; in order of time the L-th of them has the latest date, and none is older than the history if this
        # event is not.
        newer = "over (partition by user_id order by event_time, event_id)"
        of_date = f"lead(if(landed <= dt, dt, null), {config.sequence_length}) ignore nulls"
        one_day = one_day.withColumn("until", F.expr(f"{of_date} {newer}"))
    repeated = at_each(one_day, as_of, config, include_late=include_late)
    kept = last_of(repeated, config.sequence_length, "as_of")
    event = F.struct(
        (-F.col("rank")).alias("order"),
        F.when(F.col("item_id").isNull(), 0).otherwise(F.xxhash64("item_id")).alias("item"),
        F.when(F.col("category_id").isNull(), 0).otherwise(F.xxhash64("category_id")).alias("category"),
        codes[F.col("behavior")].alias("behavior"),
        F.unix_seconds("event_time").alias("second"),
        F.col("item_id").alias("id"),
    )
    kept = kept.groupBy("user_id", "as_of").agg(ranked(event).alias("last"))
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


def entry(amount: str, *fields: str, ties: Sequence[Column] = ()) -> Column:
    """Return a category's entry in a ranking: `minus`, the amount below zero, its `id`, and what `fields` name.

    Sorted, entries are in the order of falling amounts, then `ties`, then ids. Null if the amount is 0, or the id null.
    """
    values = F.struct((-F.col(amount)).alias("minus"), *ties, F.col("category_id").alias("id"), *fields)
    return F.when((F.col(amount) > 0) & F.col("category_id").isNotNull(), values)


def ranked(entries: Column | str) -> Column:
    """Collect the entries of a group in their order; null ones are left out."""
    return F.array_sort(F.collect_list(entries))


def shares_of(entries: str, total: str) -> Column:
    """Return the share that each of the entries has in the total amount."""
    return F.transform(F.col(f"{entries}.minus"), lambda minus: -minus.cast("double") / F.col(total).cast("double"))


def by_user(categories: DataFrame, config: Settings) -> DataFrame:
    """Return what every user active in the lookback does, and cares about: all columns but the last events.

    What they care about are distributions over categories: of the lookback, and of the whole history decayed by age.
    Of the history's as many categories are kept as the setting says, with the shares that they have among all.

    Args:
        categories: as `by_category` returns them.
        config: W, history, and how many categories are kept.
    """
    dates, window_dates = (
        [F.col(name) for name in block_names(*span)]
        for span in (("dates", config.history_days), ("window_dates", config.lookback_days))
    )
    has_category = F.col("category_id").isNotNull()
    ever = ranked("ever")
    if config.longterm_categories:
        ever = F.slice(ever, 1, config.longterm_categories)
    return (
        categories.withColumn("days", count_dates(dates))
        .withColumn("age_seconds", seconds_to_end(F.col("last_event_time")))
        .withColumn("now", entry("current", "window_n"))
        .withColumn("ever", entry("longterm", "n", "days", "window_n", "week_n", "age_seconds"))
        # Sorted by hand: Spark would sort too, but let the entries be made inside the aggregate, which interprets them.
        # Across this sort they are made before it, by compiled code, and once.
        .sortWithinPartitions("user_id", "as_of")
        .groupBy("user_id", "as_of")
        .agg(
            F.max("last_event_time").alias("last_event_time"),
            F.sum("window_n").cast("bigint").alias("frequency"),
            count_dates([F.bit_or(bits) for bits in window_dates]).alias("active_days"),
            F.sum("purchases").cast("bigint").alias("purchases"),
            F.sum("spend").cast("double").alias("spend"),
            F.sum("week_n").cast("bigint").alias("week_frequency"),
            F.sum("n").alias("history_events"),
            count_dates([F.bit_or(bits) for bits in dates]).alias("history_days_active"),
            seconds_to_end(F.min("first_event_time")).alias("tenure_seconds"),
            ranked("now").alias("now"),
            ever.alias("ever"),
            F.sum(F.when(has_category, F.col("current"))).alias("now_total"),
            F.sum(F.when(has_category, F.col("longterm"))).alias("ever_total"),
        )
        .where("frequency > 0")
        .withColumn("recency_seconds", seconds_to_end(F.col("last_event_time")))
        .withColumns(
            {
                "current_categories": F.col("now.id"),
                "current_counts": F.col("now.window_n"),
                "current_shares": shares_of("now", "now_total"),
                "longterm_categories": F.col("ever.id"),
                "longterm_shares": shares_of("ever", "ever_total"),
                "longterm_category_keys": F.transform("ever.id", lambda category: F.xxhash64(category)),
                "longterm_counts": F.col("ever.n"),
                "longterm_days": F.col("ever.days"),
                "longterm_current_counts": F.col("ever.window_n"),
                "longterm_week_counts": F.col("ever.week_n"),
                "longterm_age_seconds": F.col("ever.age_seconds"),
                "dominant_category": F.try_element_at("now.id", F.lit(1)),
            }
        )
        .drop("now", "ever", "now_total", "ever_total")
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
    # Before rows are repeated: fewer of them are moved then.
    repeated = at_each(sums.repartition("user_id"), as_of, config, include_late=include_late)
    keys = ["user_id", "as_of"]
    return (
        by_user(by_category(repeated, config), config)
        .join(last_events(last, as_of, config, include_late=include_late), on=keys, how="inner")
        .withColumnRenamed("as_of", "dt")
        .select(*INTERESTS.fieldNames())
    )


def from_events(once: DataFrame, as_of: list[date], config: Settings, *, include_late: bool = False) -> DataFrame:
    """Return the same from all events of the history, as `distinct_events` returns them: without any summary."""
    return states(daily_sums(once, config.weights), once, as_of, config, include_late=include_late)


def main(argv: list[str] | None = None) -> Staged:
    """Sum up the landing days that no summary holds, and stage the states at the requested dates from summaries."""
    parser = as_of_parser("jobs.interests", __doc__, "restate: also count events that arrived after T")
    run, args = parse_run(parser, argv)
    config = settings()
    spark = spark_session("interests", config)
    table, landed = published_events(run)
    as_of = without_withheld(as_of_days(run, args.every), landed)
    source = Source(spark, table, Landings(table), BLOCK_DAYS, config.weights)
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
            "behavior_weights": config.behavior_weights,
        },
        inputs={"events": table.version},
    )
    log.info("staged the interests of %d users at %d dates, %s to %s", staged.rows, len(as_of), as_of[0], as_of[-1])
    return staged


if __name__ == "__main__":
    run_main(main)
