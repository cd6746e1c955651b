"""Expectations of staged `interests`: nothing from after T, and every active user."""

from datetime import timedelta

import pandas as pd
from great_expectations.expectations.expectation import Expectation
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from expectations.duplicates import duplicates
from expectations.known import Known, with_what_was_known
from expectations.suite import WARNING, Suite, between, equal, not_null, usual_volume, with_volume_ratio, zero
from lake.days import days_between
from lake.rules import BEHAVIORS, BLOCK_DAYS, WEEK_DAYS
from lake.settings import Settings
from lake.staging import Staged
from lake.summaries import Landings
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


def does_not_add_up(shares: str, kept: int = 0) -> Column:
    """Return whether the shares of a distribution that is not empty do not add up to 1.

    Where it may have been cut to so many `kept` shares, they add up to at most 1.
    """
    total = F.aggregate(shares, F.lit(0.0), lambda so_far, share: so_far + share)
    too_few = (total < 1 - 1e-6) & (F.size(shares) < kept if kept else F.lit(True))
    return (F.size(shares) > 0) & (too_few | (total > 1 + 1e-6))


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
    too_long = F.size("item_keys") > config.sequence_length
    if config.longterm_categories:
        too_long |= F.size("longterm_shares") > config.longterm_categories
    return {
        "frequency_total": F.coalesce(F.sum("frequency"), F.lit(0)),
        "days_total": F.coalesce(F.sum("history_days_active"), F.lit(0)),
        "after_day": F.count_if(seen_after_day()),
        "uneven": F.count_if(length_differs(SEQUENCES) | length_differs(CURRENT) | length_differs(LONGTERM)),
        "too_long": F.count_if(too_long),
        "unknown_behaviors": F.count_if(F.exists("behaviors", lambda code: ~code.between(1, len(BEHAVIORS)))),
        "unordered": F.count_if(F.exists("gap_seconds", lambda gap: gap < 0)),
        "not_a_distribution": F.count_if(
            does_not_add_up("current_shares") | does_not_add_up("longterm_shares", config.longterm_categories)
        ),
        "contradicting_counts": F.count_if(contradicts),
        "more_days_than_events": F.count_if(too_many_days),
        "mean_frequency": F.avg("frequency"),
        "without_category": F.count_if(F.col("dominant_category").isNull()),
    }


def extend(
    spark: SparkSession, staged_rows: DataFrame, staged: Staged, figures: pd.DataFrame, config: Settings
) -> pd.DataFrame:
    """Add figures of the upstream table at each T: active users, their events and days, and missing landing days."""
    events = Table("events", staged.inputs["events"])
    include_late = staged.counts["include_late"]
    known = Known(spark, events, Landings(events), staged.owns, config, BLOCK_DAYS, include_late=include_late)
    lookback, begins = timedelta(days=config.lookback_days - 1), min(events.rows_by("landed"), default=None)
    missing_landings = [
        sum(events.basis(d) is None for d in days_between(max(begins, day - lookback), day)) if begins else 0
        for day in figures["day"]
    ]
    figures = with_what_was_known(known, staged_rows, figures).assign(
        duplicate_users=duplicates(staged_rows, staged, "user_id", figures), missing_landings=missing_landings
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
        zero("summaries_differ", "each summary has the events that landed: if not, delete _summaries and stage again"),
        zero("sample_differs", "a sample of users has the events and days of the lookback, from the events themselves"),
        zero("uneven", "arrays that belong together are equally long"),
        zero("too_long", "at most L events are kept, and no more categories than MEANDER_LONGTERM_CATEGORIES"),
        zero("unknown_behaviors", f"behaviors are coded 1 to {len(BEHAVIORS)}"),
        zero("unordered", "events are in time order"),
        zero("not_a_distribution", "shares add up to 1, or to less where categories were cut"),
        zero("contradicting_counts", "no span of days holds more events than a longer one, and none fewer than 0"),
        zero("more_days_than_events", "days with an event are at least 1, and at most as many as the events"),
        between("missing_landings", 0, 0, "every landing day of the lookback is published", WARNING),
        usual_volume(0.7, 1.4),
    ]


SUITE = Suite(rows, measures, extend, expected_figures)
