"""Expectations of staged `interests`: nothing from after T, and every active user."""

from datetime import timedelta

import pandas as pd
from great_expectations.expectations.expectation import Expectation
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from expectations.suite import WARNING, Suite, between, equal, not_null, usual_volume, with_volume_ratio, zero
from lake.days import days_between
from lake.rules import BEHAVIORS, WEEK_DAYS
from lake.settings import Settings
from lake.staging import Staged
from lake.table import Table

SEQUENCES = ("item_keys", "item_ids", "category_keys", "behaviors", "event_seconds", "gap_seconds")
CURRENT = ("current_categories", "current_counts", "current_shares")
LONGTERM = (
    "longterm_categories",
    "longterm_shares",
    "longterm_category_keys",
    "longterm_counts",
    "longterm_days",
    "longterm_current_counts",
    "longterm_week_counts",
    "longterm_age_seconds",
)


def rows(config: Settings) -> list[Expectation]:
    """Expect that each user's state is whole."""
    return [
        *not_null("user_id", "last_event_time", "recency_seconds", "frequency", "week_frequency", "history_events"),
        *not_null("history_days_active", "tenure_seconds", "dt"),
        *not_null(*SEQUENCES, *CURRENT, *LONGTERM),
        between("recency_seconds", 0, config.lookback_days * 86_400, "an active user was seen within the lookback"),
        between("frequency", 1, None, "an active user has an event in the lookback"),
        between("active_days", 1, config.lookback_days, "days in the lookback"),
        between("spend", 0, None, "spend is not negative"),
        between("week_frequency", 0, None, "counts are not negative"),
        between("history_days_active", 1, config.history_days, "days in the history"),
        between("tenure_seconds", 0, config.history_days * 86_400, "the first event is within the history"),
    ]


def seen_after_day() -> Column:
    """Return whether any feature of a state comes from after the end of T."""
    end_of_day = F.unix_seconds(F.date_add("dt", 1).cast("timestamp"))
    newest = F.greatest(F.array_max("event_seconds"), F.unix_seconds("last_event_time"))
    # An event in the last second of T is one second old.
    return (newest >= end_of_day) | F.exists("longterm_age_seconds", lambda age: age < 1)


def length_differs(names: tuple[str, ...]) -> Column:
    """Return whether arrays that belong together differ in length."""
    return F.greatest(*(F.size(name) for name in names)) != F.least(*(F.size(name) for name in names))


def does_not_add_up(shares: str) -> Column:
    """Return whether the shares of a distribution that is not empty do not add up to 1."""
    total = F.aggregate(shares, F.lit(0.0), lambda so_far, share: so_far + share)
    return (F.size(shares) > 0) & (F.abs(total - 1) > 1e-6)


def measures(config: Settings) -> dict[str, Column]:
    """Measure the states at one T."""

    def contradict(week: Column, current: Column, history: Column) -> Column:
        # The setting W decides which of the two spans contains the other.
        shorter, longer = (current, week) if config.lookback_days < WEEK_DAYS else (week, current)
        return ~shorter.between(0, longer) | (longer > history)

    counts = ("longterm_week_counts", "longterm_current_counts", "longterm_counts")
    categories = F.arrays_zip(*counts, "longterm_days")
    contradicts = contradict(F.col("week_frequency"), F.col("frequency"), F.col("history_events")) | F.exists(
        categories, lambda category: contradict(*(category[name] for name in counts))
    )
    too_many_days = (F.col("history_days_active") > F.col("history_events")) | F.exists(
        categories, lambda category: ~category["longterm_days"].between(1, category["longterm_counts"])
    )
    return {
        "duplicate_users": F.count("*") - F.count_distinct("user_id"),
        "frequency_total": F.coalesce(F.sum("frequency"), F.lit(0)),
        "days_total": F.coalesce(F.sum("history_days_active"), F.lit(0)),
        "after_day": F.count_if(seen_after_day()),
        "uneven": F.count_if(length_differs(SEQUENCES) | length_differs(CURRENT) | length_differs(LONGTERM)),
        "too_long": F.count_if(F.size("item_keys") > config.sequence_length),
        "unknown_behaviors": F.count_if(F.exists("behaviors", lambda code: ~code.between(1, len(BEHAVIORS)))),
        "unordered": F.count_if(F.exists("gap_seconds", lambda gap: gap < 0)),
        "not_a_distribution": F.count_if(does_not_add_up("current_shares") | does_not_add_up("longterm_shares")),
        "contradicting_counts": F.count_if(contradicts),
        "more_days_than_events": F.count_if(too_many_days),
        "mean_frequency": F.avg("frequency"),
        "without_category": F.count_if(F.col("dominant_category").isNull()),
    }


def extend(
    spark: SparkSession, staged_rows: DataFrame, staged: Staged, figures: pd.DataFrame, config: Settings
) -> pd.DataFrame:
    """Add figures of the upstream table at each T: active users, their events and days, and missing landing days.

    The history is compared by days, not by events: users and partitions are enough for that, so the ids of a year's
    events need not be read and counted.
    """
    events = Table("events", staged.inputs["events"])
    lookback, history = timedelta(days=config.lookback_days - 1), timedelta(days=config.history_days - 1)
    include_late = staged.counts["include_late"]

    def at_each(rows: DataFrame, days: int) -> DataFrame:
        """Repeat each row for every T that includes it, if its date is one of the last `days` days, with T as `day`."""

        def counts_at(day: Column) -> Column:
            near = (F.col("dt") <= day) & (F.datediff(day, "dt") < days)
            return near if include_late else near & (F.col("landed") <= day)

        every = F.array(*(F.lit(day) for day in staged.owns))
        return rows.withColumn("day", F.explode(F.filter(every, counts_at)))

    recent = events.read(spark, staged.owns[0] - lookback, staged.owns[-1]).select("event_id", "dt", "landed")
    happened = at_each(recent, config.lookback_days).groupBy("day").agg(F.count_distinct("event_id").alias("n"))
    visits = events.read(spark, staged.owns[0] - history, staged.owns[-1])
    visits = visits.groupBy("user_id", "dt").agg(F.min("landed").alias("landed"))
    users = (
        at_each(visits, config.history_days)
        .groupBy("user_id", "day")
        .agg(F.count("*").alias("days"), F.min(F.datediff("day", "dt")).alias("age"))
        .where(F.col("age") < config.lookback_days)
    )
    active = users.groupBy("day").agg(F.count("*").alias("users"), F.sum("days").alias("days"))
    counts = {row["day"]: row for row in active.collect()}
    numbers = {row["day"]: row["n"] for row in happened.collect()}
    begins = min(events.rows_by("landed"), default=None)
    missing_landings = [
        sum(events.basis(d) is None for d in days_between(max(begins, day - lookback), day)) if begins else 0
        for day in figures["day"]
    ]
    figures = figures.assign(
        active_upstream=[counts[day]["users"] if day in counts else 0 for day in figures["day"]],
        days_upstream=[counts[day]["days"] if day in counts else 0 for day in figures["day"]],
        events_upstream=[numbers.get(day, 0) for day in figures["day"]],
        missing_landings=missing_landings,
    )
    return with_volume_ratio(staged, figures)


def expected_figures(config: Settings) -> list[Expectation]:
    """Expect that no feature sees the future and that no active user is missing."""
    return [
        zero("duplicate_users", "a user has one state at T"),
        zero("after_day", "no event after the end of T is behind any feature"),
        equal("active_upstream", "rows", "every user active in the lookback has a state"),
        equal("events_upstream", "frequency_total", "exactly the events of the lookback that were known at T count"),
        equal("days_upstream", "days_total", "exactly the days of the history with an event known at T count"),
        zero("uneven", "arrays that belong together are equally long"),
        zero("too_long", "at most L events are kept"),
        zero("unknown_behaviors", f"behaviors are coded 1 to {len(BEHAVIORS)}"),
        zero("unordered", "events are in time order"),
        zero("not_a_distribution", "shares add up to 1"),
        zero("contradicting_counts", "no span of days holds more events than a longer one, and none fewer than 0"),
        zero("more_days_than_events", "days with an event are at least 1, and at most as many as the events"),
        between("missing_landings", 0, 0, "every landing day of the lookback is published", WARNING),
        usual_volume(0.7, 1.4),
    ]


SUITE = Suite(rows, measures, extend, expected_figures)
