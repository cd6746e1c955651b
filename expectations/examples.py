"""Expectations of staged `examples`: features from before the end of T, labels from after, a row for each state."""

from datetime import date, timedelta
from statistics import median

import pandas as pd
from great_expectations.expectations.expectation import Expectation
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from expectations.duplicates import duplicates
from expectations.interests import does_not_add_up, length_differs, seen_after_day
from expectations.suite import WARNING, Suite, between, equal, not_null, zero
from lake.days import days_between
from lake.labels import NAMES
from lake.rules import MAX_ITEMS, SIGNIFICANCE
from lake.schemas import EXAMPLES, INTERESTS
from lake.settings import Settings
from lake.staging import Staged
from lake.table import Table

NEXT = ("next_categories", "next_counts", "next_shares")
# Examples are often a week apart: this many days hold enough of them to say what is usual.
RECENT_DAYS = 56
ENOUGH_DATES = 3
USUAL_DRIFT = 0.15
# Labels whose share is compared with that of recent dates, and what it is a share of.
WATCHED = {"churned": "rows", "migrated": "judged"}


def rows(config: Settings) -> list[Expectation]:
    """Expect that each example has its labels."""
    horizon = config.horizon_days
    return [
        *not_null("user_id", "dt", "horizon_days", "next_category_key", "next_events", "purchased", "churned"),
        *not_null(*NEXT, "next_item_keys"),
        between("horizon_days", horizon, horizon, "labels are of the horizon that is set (MEANDER_HORIZON_DAYS)"),
        between("next_events", 0, None, "counts are not negative"),
        between("js_distance", 0, 1, "a Jensen-Shannon distance"),
        between("g_p_value", 0, 1, "a probability"),
    ]


def measures(config: Settings) -> dict[str, Column]:
    """Measure the examples at one T."""
    begin = F.date_add("dt", 1).cast("timestamp")
    close = F.date_add("dt", 1 + config.horizon_days).cast("timestamp")
    first, last = F.col("first_label_time"), F.col("last_label_time")
    nothing = F.col("next_events") == 0

    def total(counts: str) -> Column:
        return F.aggregate(counts, F.lit(0).cast("bigint"), lambda so_far, count: so_far + count)

    too_few = F.least(total("current_counts"), total("next_counts")) < config.min_events
    unjudged = [F.col(name).isNull() != too_few for name in ("migrated", "js_distance", "g_p_value")]
    moved = (F.col("dominant_category") != F.col("next_category")) & (F.col("g_p_value") < SIGNIFICANCE)
    top = F.try_element_at("next_categories", F.lit(1))
    key = F.when(top.isNull(), 0).otherwise(F.xxhash64(top))
    items = F.size("next_item_keys")
    return {
        "after_day": F.count_if(seen_after_day()),
        "labels_outside": F.count_if((first < begin) | (last >= close) | (first > last)),
        "untimed": F.count_if((first.isNull() != nothing) | (last.isNull() != nothing)),
        "misjudged_churn": F.count_if(F.col("churned") != nothing),
        "purchases_of_nothing": F.count_if(F.col("purchased") & nothing),
        "uneven": F.count_if(length_differs(NEXT)),
        "not_a_distribution": F.count_if(does_not_add_up("next_shares")),
        "overcounted": F.count_if(
            F.exists("next_counts", lambda n: n < 1) | (total("next_counts") > F.col("next_events"))
        ),
        "wrong_category": F.count_if(~top.eqNullSafe(F.col("next_category")) | (key != F.col("next_category_key"))),
        "wrong_items": F.count_if(
            (items > F.least(F.col("next_events"), F.lit(MAX_ITEMS)))
            | (items != F.size(F.array_distinct("next_item_keys")))
        ),
        "wrongly_unjudged": F.count_if(unjudged[0] | unjudged[1] | unjudged[2]),
        "misjudged_migration": F.count_if(F.col("migrated") != moved),
        "next_events_total": F.coalesce(F.sum("next_events"), F.lit(0)),
        "states": state_sum(),
        "judged": F.count("migrated"),
        **{name: F.count_if(name) for name in NAMES},
    }


def state_sum() -> Column:
    """Return a number that any change to a feature of any row changes, small enough to be exact as a float."""
    features = [name for name in INTERESTS.fieldNames() if name in EXAMPLES.fieldNames()]
    return F.coalesce(F.sum(F.pmod(F.xxhash64(*features), F.lit(2**31))), F.lit(0))


def extend(
    spark: SparkSession, staged_rows: DataFrame, staged: Staged, figures: pd.DataFrame, config: Settings
) -> pd.DataFrame:
    """Add figures of the upstream tables: the states at each T, and the events of these users in the days after it."""
    events, interests = (Table(name, staged.inputs[name]) for name in ("events", "interests"))
    states = interests.rows_by("dt")
    at_each = interests.read(spark, dates=staged.owns)
    sums = {row["dt"]: row["states"] for row in at_each.groupBy("dt").agg(state_sum().alias("states")).collect()}
    horizon = timedelta(days=config.horizon_days)
    as_of = F.explode(F.array(*(F.lit(day) for day in staged.owns))).alias("day")
    horizons = {day: days_between(day + timedelta(days=1), day + horizon) for day in staged.owns}
    nearby = events.read(spark, dates={date for dates in horizons.values() for date in dates})
    after = F.datediff("dt", "day").between(1, config.horizon_days)
    known = F.lit(True) if staged.counts["include_late"] else F.datediff("landed", "day") <= config.horizon_days
    users = staged_rows.select("user_id", F.col("dt").alias("day")).distinct()
    by_day = (
        nearby.select("user_id", "event_id", "dt", "landed", as_of)
        .where(after & known)
        .join(users, on=["user_id", "day"], how="left_semi")
        .groupBy("day")
        .agg(F.count_distinct("user_id", "event_id").alias("n"))
    )
    counts = {row["day"]: row["n"] for row in by_day.collect()}
    missing = [
        0 if staged.counts["include_late"] else sum(events.basis(d) is None for d in horizons[day])
        for day in figures["day"]
    ]
    figures = figures.assign(
        duplicate_users=duplicates(staged_rows, staged, "user_id", figures),
        rows_upstream=[states.get(day, 0) for day in figures["day"]],
        states_upstream=[sums.get(day, 0) for day in figures["day"]],
        events_upstream=[counts.get(day, 0) for day in figures["day"]],
        missing_landings=missing,
    )
    return with_drift(spark, staged, figures)


def with_drift(spark: SparkSession, staged: Staged, figures: pd.DataFrame) -> pd.DataFrame:
    """Add the distance of the shares of migrated and of churned users from the median of recent dates.

    Both are null while fewer than 3 earlier dates are published or staged here, and on a date without a user.
    """
    table = Table.find("examples")
    earlier = staged.owns[0] - timedelta(days=RECENT_DAYS)
    published = (
        table.read(spark, earlier, staged.owns[-1])
        .groupBy("dt")
        .agg(*(F.avg(F.col(name).cast("int")).alias(name) for name in WATCHED))
        .collect()
        if table
        else []
    )
    for name, whole in WATCHED.items():
        here = figures[name] / figures[whole].where(figures[whole] > 0)
        shares = {row["dt"]: row[name] for row in published}
        shares.update(zip(figures["day"], here, strict=True))
        drifts = pd.Series([drift(shares, day) for day in figures["day"]], dtype="float64", index=figures.index)
        figures = figures.assign(**{f"{name}_share": here, f"{name}_drift": drifts})
    return figures


def drift(shares: dict[date, float | None], day: date) -> float | None:
    """Return by how much the share of a day exceeds the median of the recent ones, or None if there are too few."""
    recent = {other: share for other, share in shares.items() if share is not None and not pd.isna(share)}
    before = [share for other, share in recent.items() if day - timedelta(days=RECENT_DAYS) <= other < day]
    return recent[day] - median(before) if day in recent and len(before) >= ENOUGH_DATES else None


def expected_figures(config: Settings) -> list[Expectation]:
    """Expect that features and labels are from their own side of T, and that the labels agree with the events."""
    usual = f"is within {USUAL_DRIFT:g} of the median of the {RECENT_DAYS} days before"
    return [
        zero("duplicate_users", "a user has one example at T"),
        zero("after_day", "no event after the end of T is behind any feature"),
        zero("labels_outside", "labels are of events after T and within the horizon"),
        zero("untimed", "label times are known exactly when there is a label event"),
        equal("rows_upstream", "rows", "every state at T has an example"),
        equal("states_upstream", "states", "the features are those of the state, unchanged"),
        equal("events_upstream", "next_events_total", "exactly the events of the horizon that were known then count"),
        zero("missing_landings", "every landing day of the horizon is published"),
        zero("misjudged_churn", "churned is true exactly for users without events"),
        zero("purchases_of_nothing", "who purchased did something"),
        zero("uneven", "arrays that belong together are equally long"),
        zero("not_a_distribution", "shares add up to 1"),
        zero("overcounted", "each category has an event, and together at most as many as there are"),
        zero("wrong_category", "the next category and its key are those of the largest share"),
        zero("wrong_items", f"items are distinct, at most {MAX_ITEMS}, and at most as many as events"),
        zero(
            "wrongly_unjudged", "migration is judged exactly where both sides have enough events (MEANDER_MIN_EVENTS)"
        ),
        zero("misjudged_migration", "migrated is true exactly if the dominant category changed beyond sampling noise"),
        between("churned_drift", -USUAL_DRIFT, USUAL_DRIFT, f"the share of churned users {usual}", WARNING),
        between("migrated_drift", -USUAL_DRIFT, USUAL_DRIFT, f"the share of migrated users {usual}", WARNING),
    ]


SUITE = Suite(rows, measures, extend, expected_figures)
