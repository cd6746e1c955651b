"""Expectations of staged `predictions`: every user of the interests once, and numbers that can be probabilities."""

from collections.abc import Callable
from datetime import date, timedelta

import great_expectations.expectations as gxe
import pandas as pd
from great_expectations.expectations.expectation import Expectation
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from expectations.duplicates import duplicates
from expectations.suite import CRITICAL, RECENT_DAYS, WARNING, Suite, between, equal, not_null, zero
from lake.labels import LABELS, PROBABILITIES
from lake.rules import SEGMENTS
from lake.settings import Settings
from lake.staging import Staged
from lake.table import Table

SCORES = tuple(label.score for label in LABELS)
# A mean probability moves with the season, and a new model version may be calibrated differently, but not by this much.
USUAL_DRIFT = 0.1
# 32-bit probabilities of all categories add up to 1 only approximately.
ROUNDING = 1e-6


def rows(config: Settings) -> list[Expectation]:
    """Expect that each prediction is whole and its numbers are possible."""
    return [
        *not_null("user_id", "model_version", "segment", "unseen_events", "dt"),
        *not_null("category_ids", "category_probabilities", "item_ids", "item_probabilities"),
        *not_null(*PROBABILITIES),
        *(between(name, 0, 1, "a probability lies in 0 to 1") for name in PROBABILITIES),
        between("risk_percentile", 0, 100, "a percentile lies in 0 to 100"),
        between("unseen_events", 0, None, "counts are not negative"),
        gxe.ExpectColumnValuesToBeInSet(column="segment", value_set=list(SEGMENTS), severity=CRITICAL),
    ]


def measures(config: Settings) -> dict[str, Column]:
    """Measure the predictions at one T."""

    def in_either(broken: Callable[[str], Column]) -> Column:
        return F.count_if(broken("category") | broken("item"))

    def uneven(kind: str) -> Column:
        return F.size(f"{kind}_ids") != F.size(f"{kind}_probabilities")

    def repeated(kind: str) -> Column:
        return F.size(F.array_distinct(f"{kind}_ids")) != F.size(f"{kind}_ids")

    def impossible(kind: str) -> Column:
        # NaN is larger than every number.
        return F.exists(f"{kind}_probabilities", lambda p: p.isNull() | ~p.between(0, 1))

    def rising(kind: str) -> Column:
        values = F.col(f"{kind}_probabilities")
        steps = F.zip_with(F.slice(values, 2, 2_000_000_000), values, lambda later, earlier: later - earlier)
        return F.exists(steps, lambda step: step > 0)

    total = F.aggregate("category_probabilities", F.lit(0.0), lambda so_far, p: so_far + p)
    return {
        "model_versions": F.count_distinct("model_version"),
        "uneven": in_either(uneven),
        "repeated": in_either(repeated),
        "impossible": in_either(impossible),
        "rising": in_either(rising),
        "more_than_one": F.count_if(total > 1 + ROUNDING),
        "without_category": F.count_if(F.size("category_ids") < 1),
        **{f"mean_{label.score}": F.avg(label.probability) for label in LABELS},
        "unseen": F.coalesce(F.sum("unseen_events"), F.lit(0)),
    }


def day_before(table: Table | None, day: date) -> date | None:
    """Return the last of the recent days before `day` that has published predictions, or None."""
    days = table.rows_by() if table else {}
    return max((d for d in days if day - timedelta(days=RECENT_DAYS) <= d < day), default=None)


def extend(
    spark: SparkSession, staged_rows: DataFrame, staged: Staged, figures: pd.DataFrame, config: Settings
) -> pd.DataFrame:
    """Add the users of the interests that were read, and the differences from the predictions of the day before.

    These differences are null where there is no day before.
    """
    interests, published = Table("interests", staged.inputs["interests"]), Table.find("predictions")
    added = []
    for day in figures["day"]:
        upstream = interests.read(spark, day, day).select("user_id")
        ours = staged_rows.where(F.col("dt") == F.lit(day))
        missing = upstream.join(ours, on="user_id", how="left_anti").count()
        compared: dict[str, float | None] = {"users_upstream": upstream.count(), "missing_users": missing}
        before = day_before(published, day)
        if published is not None and before is not None:
            compared |= drift(ours, published.read(spark, before, before))
        added.append(compared)
    names = ["users_upstream", "missing_users", "changed_top", *(f"drift_{score}" for score in SCORES)]
    columns = {n: pd.Series([f.get(n) for f in added], dtype="float64", index=figures.index) for n in names}
    return figures.assign(duplicate_users=duplicates(staged_rows, staged, "user_id", figures), **columns)


def drift(ours: DataFrame, theirs: DataFrame) -> dict[str, float | None]:
    """Return the differences of mean probabilities, and the share of users on both days whose top category differs."""
    means = [F.avg(label.probability).alias(label.score) for label in LABELS]
    now, then = ours.agg(*means).collect()[0], theirs.agg(*means).collect()[0]
    moved = {
        f"drift_{score}": abs(now[score] - then[score]) if None not in (now[score], then[score]) else None
        for score in SCORES
    }
    top = F.try_element_at("category_ids", F.lit(1))
    both = ours.select("user_id", top.alias("now")).join(
        theirs.select("user_id", top.alias("then")), on="user_id", how="inner"
    )
    changed = both.agg(F.avg((~F.col("now").eqNullSafe(F.col("then"))).cast("double"))).collect()[0][0]
    return {**moved, "changed_top": changed}


def expected_figures(config: Settings) -> list[Expectation]:
    """Expect every user once, possible numbers, and no great change against the day before."""
    drifted = "the mean probability of {} is near that of the day before"
    return [
        zero("duplicate_users", "a user has one prediction at T"),
        zero("missing_users", "every user of the interests has a prediction"),
        equal("users_upstream", "rows", "as many predictions as users of the interests"),
        between("model_versions", 0, 1, "one model version made all predictions of a day"),
        zero("uneven", "lists that belong together are equally long"),
        zero("repeated", "no list holds anything twice"),
        zero("impossible", "probabilities in lists lie in 0 to 1"),
        zero("rising", "lists are in order of falling probability"),
        zero("more_than_one", "probabilities of categories add up to at most 1"),
        zero("without_category", "every user has a next category"),
        *(between(f"drift_{score}", 0, USUAL_DRIFT, drifted.format(score), WARNING) for score in SCORES),
        between("changed_top", 0, 0.5, "at most half of the users have another top category than before", WARNING),
    ]


SUITE = Suite(rows, measures, extend, expected_figures)
