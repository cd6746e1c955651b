"""Deadlines in a real metadata database: which runs have one, until when, and which lose it again."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e

REPO = Path(__file__).resolve().parents[2]

# As Airflow's scheduler does it: a run is made, its DAG's deadlines are looked at, and again when it ends.
RUNS = """
import json, sys
import pendulum
from sqlalchemy import select
from airflow.models.dagbag import DBDagBag
from airflow.models.deadline import Deadline
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState, TaskInstanceState
from airflow.utils.types import DagRunTriggeredByType, DagRunType

START, found = pendulum.datetime(2025, 3, 1, tz="UTC"), {}
KINDS = {"scheduled": DagRunType.SCHEDULED, "backfill": DagRunType.BACKFILL_JOB, "manual": DagRunType.MANUAL,
         "on-time": DagRunType.SCHEDULED}
with create_session() as session:
    for dag_id in sys.argv[1:]:
        dag = DBDagBag().get_latest_version_of_dag(dag_id, session=session)
        for n, (name, kind) in enumerate(KINDS.items()):
            start = START.add(days=n)
            run = dag.create_dagrun(
                run_id=name, logical_date=start, data_interval=(start, start.add(days=1)), run_after=start.add(days=1),
                run_type=kind, triggered_by=DagRunTriggeredByType.TEST, state=DagRunState.RUNNING, session=session,
            )
            session.flush()
            if name == "on-time":
                for ti in run.task_instances:
                    ti.state = TaskInstanceState.SUCCESS
                session.flush()
                run.dag = dag
                had = session.scalar(select(Deadline).where(Deadline.dagrun_id == run.id)) is not None
                # It ends now; a deadline in the past has been missed, whatever happens later.
                session.scalar(select(Deadline).where(Deadline.dagrun_id == run.id)).deadline_time = pendulum.tomorrow()
                session.flush()
                run.update_state(session=session, execute_callbacks=False)
                found[f"{dag_id} {name} had one"] = had
            by = session.scalar(select(Deadline.deadline_time).where(Deadline.dagrun_id == run.id))
            found[f"{dag_id} {name}"] = by and (by - run.data_interval_end).total_seconds() / 3600
    session.rollback()
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def deadlines(tmp_path_factory):
    """Hours from the end of its day to the deadline of each run; None for a run that has none."""
    home = tmp_path_factory.mktemp("airflow")
    environment = os.environ | {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(REPO / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "MEANDER_EXPECTED_HOURS": "5",
    }
    python = Path(sys.executable).parent
    for command in (
        [python / "airflow", "db", "migrate"],
        [python / "airflow", "dags", "reserialize"],
        [sys.executable, "-c", RUNS, "behavior_daily", "predict_daily"],
    ):
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=REPO)
        assert ran.returncode == 0, ran.stderr[-4000:]
    return json.loads(ran.stdout.strip().splitlines()[-1])


@pytest.mark.parametrize("dag_id", ["behavior_daily", "predict_daily"])
class TestDeadlines:
    """The same for both."""

    def test_a_day_that_the_schedule_runs_has_one_after_the_hours_that_are_set(self, deadlines, dag_id):
        assert deadlines[f"{dag_id} scheduled"] == 5

    @pytest.mark.parametrize("kind", ["backfill", "manual"])
    def test_a_run_that_a_person_starts_has_none(self, deadlines, dag_id, kind):
        assert deadlines[f"{dag_id} {kind}"] is None

    def test_a_run_that_is_done_in_time_loses_it(self, deadlines, dag_id):
        assert deadlines[f"{dag_id} on-time"] is None
