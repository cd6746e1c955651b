"""Airflow's own database and its API in this process: our tasks run in it as its workers run them, without a scheduler.

The database is one SQLite file in the empty home of conftest.py, made once for a test module.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from airflow.dag_processing.bundles.manager import DagBundlesManager
from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
from airflow.models.dagbag import DBDagBag
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.sdk.api.datamodels._generated import TaskInstance as Told
from airflow.sdk.execution_time.supervisor import run_task_in_process
from airflow.utils.db import initdb
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState, TaskInstanceState
from airflow.utils.types import DagRunTriggeredByType, DagRunType
from sqlalchemy import delete, select

DAGS = Path(__file__).resolve().parents[2] / "dags"
BUNDLE = "dags-folder"


@dataclass(frozen=True)
class Ran:
    """What became of a task: its state, and the error that ended it, if one did."""

    state: str
    error: BaseException | None


class Database:
    """Airflow's database with our DAGs in it."""

    def __init__(self) -> None:
        with warnings.catch_warnings(action="ignore"):  # of Alembic, about how Airflow's providers are set up for it
            initdb()
        DagBundlesManager().sync_bundles_to_db()
        self.bag = DagBag(dag_folder=DAGS, bundle_path=DAGS, bundle_name=BUNDLE)
        sync_bag_to_db(self.bag, BUNDLE, None)

    def clear(self) -> None:
        """Forget all runs."""
        with create_session() as session:
            session.execute(delete(DagRun))

    def add(
        self,
        dag_id: str,
        start: datetime,
        states: Mapping[str, str] | None = None,
        *,
        run_type: str = "scheduled",
        state: str = "running",
        conf: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> str:
        """Add the run of the interval that begins at `start`, as the scheduler does it, and return its id.

        Args:
            dag_id: names the DAG.
            start: the begin of the interval: a day, or of a weekly DAG a week.
            states: of the tasks that are no longer as the scheduler makes them.
            run_type: `scheduled`, `backfill` or `manual`.
            state: of the run.
            conf: what the form says.
            more: other columns of the run, such as `end_date`.
        """
        end = start + timedelta(days=7 if dag_id.endswith("_weekly") else 1)
        # Airflow has one run for a logical date. A person's is the time at which it is started, here some hours later.
        logical_date = end + timedelta(hours=5) if run_type == "manual" else start
        run_id = f"{run_type}__{end.isoformat()}"
        with create_session() as session:
            run = DBDagBag().get_latest_version_of_dag(dag_id, session=session).create_dagrun(
                run_id=run_id, logical_date=logical_date, data_interval=(start, end), run_after=end, conf=conf,
                run_type=DagRunType(run_type), triggered_by=DagRunTriggeredByType.TEST, state=DagRunState(state),
                session=session,
            )  # fmt: skip
            for task in run.task_instances:
                if task.task_id in (states or {}):
                    task.state = states[task.task_id] and TaskInstanceState(states[task.task_id])
            for name, value in more.items():
                setattr(run, name, value)
        return run_id

    def run(self, dag_id: str, run_id: str, task_id: str) -> Ran:
        """Run a task of a run in this process, against the database, and return what became of it."""
        with create_session() as session:
            task = session.scalar(
                select(TaskInstance).where(
                    TaskInstance.dag_id == dag_id, TaskInstance.run_id == run_id, TaskInstance.task_id == task_id
                )
            )
            # Airflow's API starts only what its scheduler has handed out.
            task.state = TaskInstanceState.QUEUED
            told = Told(
                id=UUID(str(task.id)), task_id=task_id, dag_id=dag_id, run_id=run_id, try_number=1,
                map_index=-1, dag_version_id=UUID(str(task.dag_version_id)),
            )  # fmt: skip
        ran = run_task_in_process(told, self.bag.dags[dag_id].get_task(task_id))
        return Ran(ran.state.value, ran.error)
