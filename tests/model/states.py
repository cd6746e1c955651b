"""Rows of `interests` for the tests of the model."""

from datetime import UTC, date, datetime
from typing import Any

from pyspark.sql import DataFrame, SparkSession

from lake.schemas import INTERESTS
from tests.model.standin_artifact import KEY

T = date(2017, 7, 1)
END = int(datetime(2017, 7, 2, tzinfo=UTC).timestamp())
DAY = 86_400


def state(user: str, **changes: Any) -> dict[str, Any]:
    """Make the state at T of a user known for 100 days, with an event in `a` an hour ago and one in `b` before."""
    good = {
        "user_id": user,
        "item_keys": [KEY["i3"], KEY["i1"]],
        "item_ids": ["i3", "i1"],
        "category_keys": [KEY["b"], KEY["a"]],
        "behaviors": [1, 5],
        "event_seconds": [END - 2 * DAY, END - 3600],
        "gap_seconds": [0, 2 * DAY - 3600],
        "current_categories": ["a", "b"],
        "current_counts": [1, 1],
        "current_shares": [0.8, 0.2],
        "dominant_category": "a",
        "longterm_categories": ["a", "b"],
        "longterm_shares": [0.75, 0.25],
        "longterm_category_keys": [KEY["a"], KEY["b"]],
        "longterm_counts": [6, 4],
        "longterm_days": [5, 3],
        "longterm_current_counts": [1, 1],
        "longterm_week_counts": [1, 1],
        "longterm_age_seconds": [3600, 2 * DAY],
        "last_event_time": datetime(2017, 7, 1, 23),
        "recency_seconds": 3600,
        "frequency": 2,
        "active_days": 2,
        "purchases": 1,
        "spend": 9.5,
        "week_frequency": 2,
        "history_events": 10,
        "history_days_active": 6,
        "tenure_seconds": 100 * DAY,
        "dt": T,
    }
    return {**good, **changes}


def frame(spark: SparkSession, rows: list[dict[str, Any]]) -> DataFrame:
    """Make a DataFrame of states."""
    return spark.createDataFrame([tuple(row[name] for name in INTERESTS.fieldNames()) for row in rows], INTERESTS)
