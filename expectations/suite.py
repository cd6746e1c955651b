"""The parts of every suite: expectations on rows, and expectations on a few figures a day.

Great Expectations on Spark starts jobs for each expectation, so only properties of single rows are expected of rows
(not null, in a set, in a range). Properties of a table (sums that agree with the upstream table, volume compared with
recent days) are measured in one Spark aggregation, unique keys in one of their own (expectations/duplicates.py): a line
for each partition that the run owns. What is expected is expected of that small frame.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from statistics import median
from typing import Any

import great_expectations.expectations as gxe
import pandas as pd
from great_expectations.expectations.expectation import Expectation
from great_expectations.expectations.metadata_types import FailureSeverity
from pyspark.sql import Column, DataFrame, SparkSession

from lake.settings import Settings
from lake.staging import Staged
from lake.table import Table

CRITICAL, WARNING = FailureSeverity.CRITICAL, FailureSeverity.WARNING
RECENT_DAYS = 28


@dataclass(frozen=True)
class Suite:
    """The expectations of one table.

    Attributes:
        rows: expectations on the staged rows, run by Great Expectations on Spark.
        measures: named aggregates over the staged rows of one owned partition; all are computed in one pass.
        extend: adds figures of the upstream table and of recent days to the measured ones, one row for each partition.
        figures: expectations on those figures.
        explain: says of some figures, by their names, what is behind them; asked if an expectation is not met.
    """

    rows: Callable[[Settings], list[Expectation]]
    measures: Callable[[Settings], dict[str, Column]]
    extend: Callable[[SparkSession, DataFrame, Staged, pd.DataFrame, Settings], pd.DataFrame]
    figures: Callable[[Settings], list[Expectation]]
    explain: Callable[[DataFrame, Staged], dict[str, str]] | None = None


def not_null(*columns: str) -> list[Expectation]:
    """Expect that every row has these columns."""
    return [gxe.ExpectColumnValuesToNotBeNull(column=name, severity=CRITICAL) for name in columns]


def between(column: str, low: float | None, high: float | None, why: str, severity: Any = CRITICAL) -> Expectation:
    """Expect that a column lies in a range; a null passes."""
    return gxe.ExpectColumnValuesToBeBetween(
        column=column, min_value=low, max_value=high, severity=severity, description=why
    )


def zero(column: str, why: str) -> Expectation:
    """Expect that a figure is 0 in every partition."""
    return between(column, 0, 0, why)


def equal(left: str, right: str, why: str) -> Expectation:
    """Expect that two figures agree in every partition."""
    return gxe.ExpectColumnPairValuesToBeEqual(column_A=left, column_B=right, severity=CRITICAL, description=why)


def rejected_share(rejected: pd.Series, input_rows: pd.Series) -> pd.Series:
    """Return the share of input rows that were rejected; 0 of a day without input."""
    return (rejected / input_rows.where(input_rows > 0)).fillna(0.0)


def few_rejected(config: Settings) -> Expectation:
    """Expect that rejections are within the budget: of `events` too, which may be published without `quarantine`."""
    limit = float(config.max_rejected_share)
    why = f"at most {limit:.2%} of the input is rejected (MEANDER_MAX_REJECTED_SHARE)"
    return between("rejected_share", 0, limit, why)


def usual_volume(low: float, high: float) -> Expectation:
    """Warn when a partition is much smaller or larger than the recent ones."""
    return between(
        "volume_ratio",
        low,
        high,
        f"rows are {low:g} to {high:g} times the median of the {RECENT_DAYS} days before",
        WARNING,
    )


def with_volume_ratio(staged: Staged, figures: pd.DataFrame) -> pd.DataFrame:
    """Add `usual_rows`, the median of the days before, published or staged here, and `volume_ratio` against it.

    Both are null while there are fewer than 7 earlier days: a new table has no usual volume.
    """
    table = Table.find(staged.table)
    history = table.rows_by(table.spec.owned_by) if table else {}
    history = {**history, **dict(zip(figures["day"], figures["rows"], strict=True))}

    def usual(day: date) -> float | None:
        before = [n for other, n in history.items() if day - timedelta(days=RECENT_DAYS) <= other < day]
        return float(median(before)) if len(before) >= 7 else None

    usual_rows = pd.Series([usual(day) for day in figures["day"]], dtype="float64", index=figures.index)
    ratio = figures["rows"] / usual_rows.where(usual_rows > 0)
    return figures.assign(usual_rows=usual_rows, volume_ratio=ratio)
