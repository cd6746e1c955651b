"""Stage examples to learn from: every active user's state at T, with what the user did in the H days after it.

Reads   interests  dt=T
        events     T < dt <= T+H and landed <= T+H (what was known at the end of T+H)
Writes  examples   dt=T, staged only; refused until the landing days T+1 to T+H are all published

The rules of the labels are in docs/design.md under "Examples".
"""

import logging
from collections.abc import Callable
from datetime import date, timedelta

import pandas as pd
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.functions import pandas_udf
from scipy.stats import chi2

from jobs.arguments import as_of_days, as_of_parser, parse_run
from jobs.inputs import events_of_horizons, published_interests
from jobs.interests import entry, ranked, shares_of
from jobs.summaries import distinct_events, sums_by_day
from lake.days import ONE_DAY, days_between
from lake.errors import run_main
from lake.rules import MAX_ITEMS, SIGNIFICANCE
from lake.schemas import EXAMPLES
from lake.session import spark_session
from lake.settings import Settings, settings
from lake.staging import Staged, stage
from lake.table import Table

log = logging.getLogger(__name__)

KEYS = ["user_id", "dt"]


def in_horizons(rows: DataFrame, as_of: list[date], horizon_days: int, *, include_late: bool) -> DataFrame:
    """Repeat each row for every T in whose horizon it lies, with T as `as_of`.

    Args:
        rows: events, or sums of them, with the columns `dt` and `landed`.
        as_of: the dates T.
        horizon_days: H.
        include_late: also count events that landed after T+H.
    """

    def counts_at(day: Column) -> Column:
        happened = F.datediff("dt", day).between(1, horizon_days)
        return happened if include_late else happened & (F.datediff("landed", day) <= horizon_days)

    days = F.filter(F.array(*(F.lit(day) for day in as_of)), counts_at)
    return rows.withColumn("as_of", F.explode(days))


def outcomes(days: DataFrame) -> DataFrame:
    """Return the number of events, their first and last time, and whether there is a purchase, from `sums_by_day`."""
    return days.groupBy("user_id", F.col("as_of").alias("dt")).agg(
        F.sum("n").alias("next_events"),
        (F.sum("purchases") > 0).alias("purchased"),
        F.min("first_event_time").alias("first_label_time"),
        F.max("last_event_time").alias("last_label_time"),
    )


def next_interest(days: DataFrame) -> DataFrame:
    """Return the distribution over categories, weighted as the current interest, from `sums_by_day` by category.

    Among equal shares the category comes first that has more weight with all users together. On a log of receipts a
    quarter of the users have no single first one: by id alone, the alphabet would decide their label.
    """
    by_category = days.groupBy("user_id", "as_of", "category_id").agg(
        F.sum("n").alias("n"), F.sum("weight").alias("weight")
    )
    popular = by_category.groupBy("as_of", "category_id").agg(F.sum("weight").alias("popularity"))
    return (
        by_category.join(popular, on=["as_of", "category_id"], how="inner")
        .groupBy("user_id", F.col("as_of").alias("dt"))
        .agg(
            ranked(entry("weight", "n", ties=[-F.col("popularity")])).alias("next"),
            F.sum("weight").alias("total"),
        )
        .select(
            *KEYS,
            F.col("next.id").alias("next_categories"),
            F.col("next.n").alias("next_counts"),
            shares_of("next", "total").alias("next_shares"),
        )
    )


def first_events_of_items(events: DataFrame) -> DataFrame:
    """Return the first event of each user, item, day and landing, so that fewer rows are repeated for each T."""
    return (
        events.where(F.col("item_id").isNotNull())
        .groupBy("user_id", F.xxhash64("item_id").alias("key"), "dt", "landed")
        .agg(F.min(F.struct("event_time", "event_id")).alias("first"))
    )


def next_items(firsts: DataFrame) -> DataFrame:
    """Return the distinct items in the order of their first event, then its id; at most 100 of them."""
    by_item = firsts.groupBy("user_id", "as_of", "key").agg(F.min("first").alias("first"))
    in_order = ranked(F.struct("first", "key"))
    return by_item.groupBy("user_id", F.col("as_of").alias("dt")).agg(
        F.slice(in_order, 1, MAX_ITEMS).getField("key").alias("next_item_keys")
    )


def chi_square_tail(statistic: pd.Series, degrees: pd.Series) -> pd.Series:
    """Return the probability that chi-square variables exceed the statistics."""
    return pd.Series(chi2.sf(statistic, degrees))


def paired_counts() -> Column:
    """Return an array of structs (`now`, `later`): the events in each category of either side of T."""
    now = F.map_from_arrays("current_categories", "current_counts")
    later = F.map_from_arrays("next_categories", "next_counts")

    def count(counts: Column, category: Column) -> Column:
        return F.coalesce(F.try_element_at(counts, category), F.lit(0))

    return F.transform(
        F.array_union("current_categories", "next_categories"),
        lambda category: F.struct(count(now, category).alias("now"), count(later, category).alias("later")),
    )


def sum_over(pairs: str, term: Callable[[Column, Column], Column]) -> Column:
    """Sum a function of each pair in the order of the array, so that equal rows have equal sums to the last bit."""
    return F.aggregate(pairs, F.lit(0.0), lambda total, pair: total + term(pair["now"], pair["later"]))


def g_statistic() -> Column:
    """Return the statistic of the G-test of homogeneity of `pairs`: chi-square, with a category less as degrees.

    See McDonald, Handbook of Biological Statistics, "G-test of independence".
    """
    everything = F.col("now_total") + F.col("next_total")

    def term(now: Column, later: Column) -> Column:
        share = (now + later) / everything
        return F.when(now > 0, now * F.ln(now / (F.col("now_total") * share))).otherwise(0.0) + F.when(
            later > 0, later * F.ln(later / (F.col("next_total") * share))
        ).otherwise(0.0)

    # The sum for equal distributions is 0, and rounding may make it slightly negative.
    return F.greatest(2 * sum_over("pairs", term), F.lit(0.0))


def js_distance() -> Column:
    """Return the Jensen-Shannon distance of `pairs`, 0 to 1: the root of the divergence in bits.

    See Endres and Schindelin, A new metric for probability distributions, 2003.
    """

    def term(now: Column, later: Column) -> Column:
        p, q = now / F.col("now_total"), later / F.col("next_total")
        return F.when(p > 0, p * F.log2(2 * p / (p + q))).otherwise(0.0) + F.when(
            q > 0, q * F.log2(2 * q / (p + q))
        ).otherwise(0.0)

    return F.sqrt(F.greatest(F.least(sum_over("pairs", term) / 2, F.lit(1.0)), F.lit(0.0)))


def with_migration(joined: DataFrame, min_events: int) -> DataFrame:
    """Add `migrated` and what it is judged by; all three are null below `min_events` on either side."""
    joined = joined.withColumns(
        {
            "pairs": paired_counts(),
            "now_total": F.aggregate("current_counts", F.lit(0).cast("bigint"), lambda total, n: total + n),
            "next_total": F.aggregate("next_counts", F.lit(0).cast("bigint"), lambda total, n: total + n),
        }
    )
    enough = F.least("now_total", "next_total") >= min_events
    degrees = (F.size("pairs") - 1).cast("double")
    # A UDF, because the survival function of chi-square is a regularised incomplete gamma function, and Spark has
    # neither that nor the error function to which it reduces for integer degrees of freedom. It is created here, not at
    # import, when Spark cannot tell yet whether the session is one of Spark Connect.
    tail_udf = pandas_udf(chi_square_tail, "double")  # type: ignore[call-overload]  # stubs want `functionType` too
    tail = tail_udf(F.when(enough, g_statistic()), degrees)
    # With one category on both sides nothing can differ: there is no degree of freedom.
    p_value = F.when(enough, F.when(degrees == 0, 1.0).otherwise(tail))
    changed = F.col("dominant_category") != F.col("next_category")
    return (
        joined.withColumn("g_p_value", p_value)
        .withColumn("js_distance", F.when(enough, js_distance()))
        .withColumn("migrated", F.when(enough, changed & (F.col("g_p_value") < SIGNIFICANCE)))
        .drop("pairs", "now_total", "next_total")
    )


def examples(
    states: DataFrame, once: DataFrame, as_of: list[date], config: Settings, *, include_late: bool = False
) -> DataFrame:
    """Return the rows of `interests` with their labels.

    Args:
        states: rows of `interests` at the dates `as_of`.
        once: events as `distinct_events` returns them, at least those of the horizons; they are read three times, so it
            pays to have them persisted.
        as_of: the dates T.
        config: H, m and the weights of behaviors.
        include_late: also count events up to T+H that arrived after T+H, for a restatement.
    """

    def after(rows: DataFrame) -> DataFrame:
        return in_horizons(rows, as_of, config.horizon_days, include_late=include_late)

    in_categories = sums_by_day(once.where(F.col("category_id").isNotNull()), config.weights, "category_id")
    joined = (
        states.join(outcomes(after(sums_by_day(once, config.weights))), on=KEYS, how="left")
        .join(next_interest(after(in_categories)), on=KEYS, how="left")
        .join(next_items(after(first_events_of_items(once))), on=KEYS, how="left")
    )
    # Users without events have labels too: they churned.
    for field in EXAMPLES:
        if field.name in ("next_categories", "next_counts", "next_shares", "next_item_keys"):
            joined = joined.withColumn(field.name, F.coalesce(field.name, F.array().cast(field.dataType)))
    first = F.try_element_at("next_categories", F.lit(1))
    joined = joined.withColumns(
        {
            "horizon_days": F.lit(config.horizon_days),
            "next_category": first,
            "next_category_key": F.when(first.isNull(), 0).otherwise(F.xxhash64(first)),
            "next_events": F.coalesce("next_events", F.lit(0)),
            "purchased": F.coalesce("purchased", F.lit(False)),
            "churned": F.col("next_events").isNull(),
        }
    )
    return with_migration(joined, config.min_events).select(*EXAMPLES.fieldNames())


def without_examples(as_of: list[date]) -> list[date]:
    """Return those dates that have published interests and no published examples."""
    states, existing = Table.find("interests"), Table.find("examples")
    return [day for day in as_of if states and states.basis(day) and not (existing and existing.basis(day))]


def dates_after(as_of: list[date], horizon_days: int) -> set[date]:
    """Return the dates of the events that labels at the dates `as_of` are made of; these may be years apart.

    >>> sorted(found.day for found in dates_after([date(2025, 1, 1), date(2025, 1, 9)], 2))
    [2, 3, 10, 11]
    """
    return {near for day in as_of for near in days_between(day + ONE_DAY, day + timedelta(days=horizon_days))}


def main(argv: list[str] | None = None) -> Staged:
    """Read the states at the requested dates and the events after them, stage both together."""
    parser = as_of_parser("jobs.examples", __doc__, "restate: also count events that arrived after T+H")
    parser.add_argument(
        "--missing",
        action="store_true",
        help="of a range, only dates that have interests and no examples yet, and the last one in any case",
    )
    run, args = parse_run(parser, argv)
    config = settings()
    as_of = as_of_days(run, args.every)
    if args.missing:
        as_of = [*without_examples(as_of[:-1]), as_of[-1]]
    events = events_of_horizons(as_of, config.horizon_days, include_late=args.include_late)
    interests = published_interests(as_of)
    spark = spark_session("examples", config)
    landed_by = None if args.include_late else as_of[-1] + timedelta(days=config.horizon_days)
    after = events.read(spark, landed_by=landed_by, dates=dates_after(as_of, config.horizon_days))
    once = distinct_events(after).persist()
    states = interests.read(spark, dates=as_of)
    try:
        staged = stage(
            examples(states, once, as_of, config, include_late=args.include_late),
            "examples",
            run,
            owns=as_of,
            # Versions only grow, so the sum has grown whenever either input could have changed.
            basis=events.version + interests.version,
            counts={
                "as_of": [str(day) for day in as_of],
                "include_late": args.include_late,
                "horizon_days": config.horizon_days,
                "min_events": config.min_events,
                "behavior_weights": config.behavior_weights,
            },
            inputs={"events": events.version, "interests": interests.version},
        )
    finally:
        once.unpersist()
    log.info("staged %d examples at %d dates, %s to %s", staged.rows, len(as_of), as_of[0], as_of[-1])
    return staged


if __name__ == "__main__":
    run_main(main)
