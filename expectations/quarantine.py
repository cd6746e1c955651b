"""Expectations of staged `quarantine`: it has every rejected row, each with a reason, and they are few."""

import great_expectations.expectations as gxe
import pandas as pd
from great_expectations.expectations.expectation import Expectation
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from expectations.suite import CRITICAL, WARNING, Suite, between, equal, few_rejected, not_null, rejected_share
from lake.settings import Settings
from lake.staging import Staged

# The reasons of jobs.ingest: a contract between two folders that do not import each other. A test compares them with
# jobs/rejections.py.
REASONS = (
    *(
        "undecodable",
        "malformed_line",
        "field_too_long",
        "unusable_text",
        "missing_time",
        "unparsable_time",
        "time_before_floor",
    ),
    *(
        "time_after_landing",
        "missing_user",
        "unknown_behavior",
        "missing_item",
        "invalid_price",
        "negative_price",
    ),
)


def rows(config: Settings) -> list[Expectation]:
    """Expect that each rejected row has its reason and its place."""
    return [
        *not_null("reason", "raw", "file", "source", "dt"),
        gxe.ExpectColumnValuesToBeInSet(column="reason", value_set=list(REASONS), severity=CRITICAL),
        between("line", 1, None, "lines are counted from 1"),
    ]


def measures(config: Settings) -> dict[str, Column]:
    """Measure one landing day."""
    return {"unknown_time": F.count_if(F.col("reason").isin("missing_time", "unparsable_time"))}


def extend(
    spark: SparkSession, staged_rows: DataFrame, staged: Staged, figures: pd.DataFrame, config: Settings
) -> pd.DataFrame:
    """Add the counts that the ingest made of the landing files."""
    counted = [staged.counts["by_day"][str(day)] for day in figures["day"]]
    input_rows = pd.Series([day["input"] for day in counted], index=figures.index)
    return figures.assign(
        rejected=[sum(day["rejected"].values()) for day in counted],
        rejected_share=rejected_share(figures["rows"], input_rows),
    )


def expected_figures(config: Settings) -> list[Expectation]:
    """Expect that all rejected rows are kept and that their share is within the budget."""
    well_below = float(config.max_rejected_share) / 5
    return [
        equal("rejected", "rows", "every rejected input row is kept"),
        few_rejected(config),
        between("rejected_share", 0, well_below, "rejections stay well below the limit", WARNING),
    ]


SUITE = Suite(rows, measures, extend, expected_figures)
