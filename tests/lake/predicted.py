"""Predictions of a day, published without Spark and without a model."""

from datetime import date
from typing import Any

from lake.labels import PROBABILITIES
from lake.publish import publish
from tests.lake.stagings import stage_files

DAY_1, DAY_2, DAY_3 = (date(2025, 1, n) for n in (1, 2, 3))


def prediction(user: str, day: date, version: int = 1, **more: Any) -> dict[str, Any]:
    """Make a row that may be served: a stable user who cares for tea."""
    return {
        "user_id": user,
        "model_version": version,
        "category_ids": ["tea", "milk"],
        "category_probabilities": [0.7, 0.1],
        "current_category": "tea",
        **dict.fromkeys(PROBABILITIES, 0.5),
        "migration_probability": 0.2,
        "churn_probability": 0.1,
        "item_ids": ["green tea"],
        "item_probabilities": [0.25],
        "surprise": 1.5,
        "risk_percentile": 40.0,
        "segment": "stable",
        "unseen_events": 0,
        "dt": day,
        **more,
    }


def publish_rows(rows: list[dict[str, Any]], day: date, basis: int = 1) -> None:
    """Publish rows as the predictions of a day; a higher basis replaces a lower one."""
    stage_files("predictions", run := f"{day}-{basis}", rows, owns=[day], basis=basis)
    publish("predictions", run)


def publish_users(day: date, *users: str, version: int = 1, **more: Any) -> None:
    """Publish the same prediction of a day for each of some users, by one version of the model."""
    publish_rows([prediction(user, day, version, **more) for user in users], day, basis=version)
