"""The state of Meander's DAGs in Airflow: whether the schedule is on, the runs in progress, the failed runs."""

from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from urllib.parse import quote

from airflow.configuration import conf
from airflow.models.dag import DagModel
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from sqlalchemy import select
from sqlalchemy.orm import Session

from dags.shared.run_ids import DAILY, HISTORY

PREDICT = "predict_daily"
DAGS = (DAILY, PREDICT, "model_weekly", HISTORY)
# A run that failed longer ago and was not cleared is no longer a problem: the calendar still shows its day.
FAILURE_WINDOW = timedelta(days=7)


@dataclass(frozen=True)
class FailedRun:
    """A DAG run that failed within FAILURE_WINDOW, and its failed tasks as (task id, map index)."""

    dag_id: str
    run_id: str
    day: date | None
    ended: datetime
    tasks: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class AirflowState:
    """The state of Airflow that the page needs.

    Attributes:
        scheduled: whether days run by schedule: the scheduler creates runs and `behavior_daily` is not paused.
        busy: the runs in progress or queued, as (DAG, run id), with the day that each is for.
        failed: the runs that failed within FAILURE_WINDOW and whose DAG has not succeeded for the same day since.
    """

    scheduled: bool = False
    busy: dict[tuple[str, str], date | None] = field(default_factory=dict)
    failed: tuple[FailedRun, ...] = ()


def load_airflow_state(session: Session, now: datetime) -> AirflowState:
    """Read Airflow's database, by four small queries."""
    paused = session.scalar(select(DagModel.is_paused).where(DagModel.dag_id == DAILY))
    busy = session.execute(
        select(DagRun.dag_id, DagRun.run_id, DagRun.data_interval_start).where(
            DagRun.dag_id.in_(DAGS), DagRun.state.in_(("running", "queued"))
        )
    )
    ended = session.execute(
        select(DagRun.dag_id, DagRun.run_id, DagRun.state, DagRun.data_interval_start, DagRun.end_date)
        .where(DagRun.dag_id.in_(DAGS), DagRun.state.in_(("failed", "success")), DagRun.end_date > now - FAILURE_WINDOW)
        .order_by(DagRun.end_date)
    ).all()
    last = {(run.dag_id, run.data_interval_start): run for run in ended}
    failed = [run for run in last.values() if run.state == "failed"]
    tasks: dict[tuple[str, str], list[tuple[str, int]]] = {}
    for task in session.execute(
        select(TaskInstance.dag_id, TaskInstance.run_id, TaskInstance.task_id, TaskInstance.map_index)
        .where(TaskInstance.dag_id.in_(DAGS), TaskInstance.state == "failed")
        .where(TaskInstance.run_id.in_([run.run_id for run in failed]))
        .order_by(TaskInstance.task_id, TaskInstance.map_index)
    ):
        tasks.setdefault((task.dag_id, task.run_id), []).append((task.task_id, task.map_index))
    return AirflowState(
        scheduled=conf.getboolean("scheduler", "use_job_schedule") and paused is False,
        busy={(run.dag_id, run.run_id): _day(run.dag_id, run.data_interval_start) for run in busy},
        failed=tuple(
            FailedRun(
                run.dag_id,
                run.run_id,
                _day(run.dag_id, run.data_interval_start),
                run.end_date,
                tuple(tasks.get((run.dag_id, run.run_id), ())),
            )
            for run in failed
        ),
    )


def _day(dag_id: str, start: datetime | None) -> date | None:
    # The interval of a run by hand is not that of the days that `behavior_history` loads.
    return start.date() if start and dag_id != HISTORY else None


def link(dag_id: str, run_id: str, task: tuple[str, int] | None = None) -> str:
    """Return the path of a run, or of a task's log, below Airflow's address.

    >>> link("behavior_daily", "backfill__2025-03-01T00:00:00+00:00", ("events.stage", -1))
    'dags/behavior_daily/runs/backfill__2025-03-01T00%3A00%3A00%2B00%3A00/tasks/events.stage'
    """
    path = f"dags/{quote(dag_id, safe='')}/runs/{quote(run_id, safe='')}"
    if task is None:
        return path
    name, index = task
    return f"{path}/tasks/{quote(name, safe='')}" + (f"/mapped/{index}" if index >= 0 else "")
