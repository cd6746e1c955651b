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
        "not_an_id",
        "missing_time",
        "unparsable_time",
        "time_before_floor",
    ),
    *(
        "too_late",
        "time_after_landing",
        "missing_user",
        "unknown_behavior",
        "missing_item",
        "invalid_price",
        "negative_price",
        "too_many_events",
    ),
)

# What to look at first, for reasons that mostly mean that the source does not fit the log.
REMEDIES = {
    "undecodable": "does `encoding` fit?",
    "malformed_line": "do `delimiter`, `quote`, `escape` and `multiline` fit?",
    "unparsable_time": "does `time.format` fit?",
    "time_after_landing": "they are after the day of their folder: is `time.zone` right? Are folders of a shop's own "
    "days, which end after midnight UTC? `folder_zone` says of which zone",
    "missing_user": "guests may be left out, by `guests`",
    "unknown_behavior": "add them to `behavior.values`, or let `behavior.others` ignore them",
    "invalid_price": "does `amounts` say how prices are written?",
    "too_late": "a log of the past, in one landing day? MEANDER_MAX_DAYS_LATE is the bound",
    "too_many_events": "a robot, or one user that stands for many? MEANDER_MAX_EVENTS_PER_USER_DAY is the bound",
}
SHOWN_REASONS = 3


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


def reasons(staged_rows: DataFrame, staged: Staged) -> dict[str, str]:
    """Say for what reasons rows were rejected, most of them first, each with a place and with what to look at.

    What a row says is not told: messages go to logs, alerts and chats.
    """
    first = F.min(F.struct("file", "line")).alias("place")
    # A reason that is none of ours may be anything.
    reason = F.when(F.col("reason").isin(*REASONS), F.col("reason")).alias("reason")
    found = staged_rows.groupBy(reason).agg(F.count("*").alias("n"), first).collect()
    found = sorted(found, key=lambda row: (-row["n"], row["reason"] or ""))
    parts = []
    for row in found[:SHOWN_REASONS]:
        file, line = row["place"]
        where = f"{(file or '').rpartition('/dt=')[2]}{f' line {line}' if line else ''}"
        why, remedy = row["reason"] or "without a known reason", REMEDIES.get(row["reason"], "")
        parts.append(f"{row['n']:,} {why}, such as {where}{f' ({remedy})' if remedy else ''}")
    if others := sum(row["n"] for row in found[SHOWN_REASONS:]):
        parts.append(f"{others:,} for other reasons")
    read = sum(day["input"] for day in staged.counts["by_day"].values())
    return {"rejected_share": f"of {read:,} rows {'; '.join(parts)}"} if parts else {}


SUITE = Suite(rows, measures, extend, expected_figures, reasons)
