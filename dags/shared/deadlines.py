"""The deadline of a scheduled day; runs of a backfill, or by hand, have none."""

from datetime import datetime, timedelta
from typing import Any

from airflow.sdk.definitions.callback import AsyncCallback
from airflow.sdk.definitions.deadline import BaseDeadlineReference, DeadlineAlert, deadline_reference

from dags.shared.alerts import alert_missed_deadline
from lake.settings import known_settings


@deadline_reference
class ScheduledDayEnd(BaseDeadlineReference):
    """The end of the run's day if the schedule created the run; None for other runs.

    By Airflow's own reference, the logical date, each day of a backfill would be late before it begins.
    """

    required_kwargs = {"dag_id", "run_id"}  # noqa: RUF012  Airflow's name and type

    def _evaluate_with(self, *, session: Any, dag_id: str, run_id: str) -> datetime | None:
        from airflow.models.dagrun import DagRun
        from sqlalchemy import select

        run = session.scalar(select(DagRun).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id))
        return run.data_interval_end if run is not None and run.run_type == "scheduled" else None


def expected(tables: str) -> DeadlineAlert:
    """Return the deadline of a daily DAG: `MEANDER_EXPECTED_HOURS` after the end of its day, as on the Meander page."""
    return DeadlineAlert(
        reference=ScheduledDayEnd(),
        interval=timedelta(hours=known_settings().expected_hours),
        callback=AsyncCallback(alert_missed_deadline, kwargs={"tables": tables}),
        name=f"{tables} are expected",
    )
