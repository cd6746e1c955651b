"""A cluster on one machine: days, a training on two Spark tasks, and predictions, as a single machine makes them.

Airflow on PostgreSQL with Celery behind Redis, and a Spark standalone cluster that loses a worker on the way.
"""

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests

from dags.evaluation import Evaluation
from dags.standalone import LocalAirflow, free_port
from lake import storage
from lake.table import Table
from tests.airflow_cluster import AirflowCluster
from tests.lake.published import checksum

pytestmark = pytest.mark.e2e

FIRST, AS_OF = date(2025, 1, 1), date(2025, 3, 8)
# Three days for the cluster; all that was before is history.
DAYS = [AS_OF + timedelta(days=n) for n in (1, 2, 3)]
# The week that ends with AS_OF begins on this Sunday.
WEEK = AS_OF - timedelta(days=6)
WEEKS = 9
TABLES = ("quarantine", "events", "sessions", "interests")
SETTINGS = {
    "MEANDER_SOURCE": "canonical",
    "MEANDER_HORIZON_DAYS": "7",
    "MEANDER_LOOKBACK_DAYS": "14",
    "MEANDER_PROMOTION_APPROVAL": "true",
}


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The lake of a single machine that has loaded everything; one with the history alone is `cluster`, beside it."""
    monkeypatch.setenv("MEANDER_LANDING", str(tmp_path / "landing"))
    monkeypatch.setenv("MEANDER_LAKE", str(tmp_path / "alone"))
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    log = ["--from", str(FIRST), "--days", str((DAYS[-1] - FIRST).days + 1), "--events", "12000", "--users", "80"]
    small = ["--categories", "8", "--items", "20", "--crawlers", "0", "--whale", "0", "--broken", "0"]
    subprocess.run([sys.executable, "-m", "jobs.simulate", *log, *small], check=True)
    daily = [sys.executable, "-m", "dags.cli", "daily"]
    history = ["--from", str(FIRST), "--to", str(AS_OF), "--chunk-days", "999", "--every", "7"]
    subprocess.run([*daily, *history], check=True)
    shutil.copytree(tmp_path / "alone", tmp_path / "cluster")
    subprocess.run([*daily, "--from", str(DAYS[0]), "--to", str(DAYS[-1])], check=True)
    return tmp_path / "alone"


@pytest.fixture
def airflow(alone: Path, tmp_path: Path) -> Iterator[AirflowCluster]:
    folders = {"MEANDER_LAKE": str(tmp_path / "cluster"), "MEANDER_LANDING": str(tmp_path / "landing")}
    cluster = AirflowCluster(tmp_path / "home", {**folders, **SETTINGS}, port=free_port())
    cluster.start()
    yield cluster
    cluster.stop()
    assert not cluster.running


def lose_a_worker(airflow: AirflowCluster) -> None:
    """Kill a Spark worker as soon as an executor of it works for a job; another one comes half a minute later."""
    deadline = time.monotonic() + 300
    log = airflow.home / "spark" / "worker-0.log"
    while "Asked to launch executor" not in log.read_text():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)
    time.sleep(5)  # the executor has registered, and has tasks
    airflow.spark.kill_worker(0)
    airflow.spark.wait("master", r"(Telling app of lost executor)")
    time.sleep(30)
    airflow.spark.start_worker(0)


def wait(airflow: LocalAirflow, dag_id: str, seconds: int = 1800) -> dict[str, Any]:
    """Wait until every run of the DAG has ended or asks a person, and return the newest of its runs."""
    deadline = time.monotonic() + seconds
    while True:
        runs = airflow.runs(dag_id)
        if runs and all(run["state"] in ("success", "failed") or asks(airflow, run) for run in runs):
            return runs[-1]
        assert time.monotonic() < deadline, [(run["dag_run_id"], run["state"]) for run in runs]
        time.sleep(1)


def asks(airflow: LocalAirflow, run: dict[str, Any]) -> bool:
    """Tell whether a task of the run waits for somebody's answer."""
    return "awaiting_input" in {state for state, _ in states(airflow, run).values()}


def question(run: dict[str, Any]) -> str:
    """Return where Airflow keeps what `approve` of the run asks."""
    run_id = requests.utils.quote(run["dag_run_id"], safe="")
    return f"dags/{run['dag_id']}/dagRuns/{run_id}/taskInstances/approve/-1/hitlDetails"


def answer(airflow: LocalAirflow, run: dict[str, Any], chosen: str) -> dict[str, tuple[str, int]]:
    """Answer what `approve` asks, and return the states of the tasks when the run has ended."""
    airflow.api("PATCH", question(run), json={"chosen_options": [chosen]})
    return states(airflow, wait(airflow, run["dag_id"]))


def ask_again(airflow: LocalAirflow, run: dict[str, Any]) -> dict[str, Any]:
    """Clear `approve` and what follows it, and return what it asks."""
    again = {"dry_run": False, "only_failed": False, "include_downstream": True, "task_ids": ["approve"]}
    airflow.api("POST", f"dags/{run['dag_id']}/clearTaskInstances", json={**again, "dag_run_id": run["dag_run_id"]})
    asked = wait(airflow, run["dag_id"])
    assert asks(airflow, asked), states(airflow, asked)
    return airflow.api("GET", question(run))


def states(airflow: LocalAirflow, run: dict[str, Any]) -> dict[str, tuple[str, int]]:
    """Return {task: (state, tries)} of a run."""
    found = airflow.tasks(run["dag_id"], run["dag_run_id"])
    return {task["task_id"]: (task["state"], task["try_number"]) for task in found}


def page(airflow: LocalAirflow, path: str) -> str:
    """Return a page of ours as somebody sees it who is logged in; nobody else does."""
    assert requests.get(airflow.url + path, timeout=30).status_code == 401
    shown = requests.get(airflow.url + path, headers={"Authorization": f"Bearer {airflow.token}"}, timeout=30)
    assert shown.status_code == 200
    return shown.text


def test_a_cluster_makes_what_one_machine_makes_and_learns_and_predicts(
    airflow: AirflowCluster, alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    expected = {table: checksum(table) for table in TABLES}
    monkeypatch.setenv("MEANDER_LAKE", str(tmp_path / "cluster"))
    assert checksum("events") != expected["events"], "three days are missing"

    # --- three days, and a machine that is lost ---
    airflow.backfill("behavior_daily", DAYS[0], DAYS[-1], at_once=2, reprocess="none")
    lose_a_worker(airflow)
    assert wait(airflow, "behavior_daily")["state"] == "success"
    assert {run["state"] for run in airflow.runs("behavior_daily")} == {"success"}
    assert {table: checksum(table) for table in TABLES} == expected

    # --- the model, trained by two tasks of a barrier stage ---
    conf = {"preset": "tiny", "epochs": 1, "weeks": WEEKS, "workers": 2, "launcher": "spark"}
    airflow.backfill("model_weekly", WEEK, WEEK, at_once=1, reprocess="none", conf=conf)
    learned = wait(airflow, "model_weekly")
    if asks(airflow, learned):
        answer(airflow, learned, "Approve")
        learned = wait(airflow, "model_weekly")
    assert learned["state"] == "success", states(airflow, learned)
    dates = [AS_OF - timedelta(days=7 * n) for n in range(WEEKS, 0, -1)]
    assert list(Table("examples").rows_by("dt")) == dates, "the last T is the last whose horizon is over"

    # A refusal is no failure, and says why where people look.
    done = states(airflow, learned)
    decision = airflow.result("model_weekly", learned["dag_run_id"], "promote")
    assert done["promote"][0] == ("success" if decision["promoted"] else "skipped")
    assert decision["reasons"]
    run = requests.utils.quote(f"model_weekly--{learned['dag_run_id']}", safe="")
    tab = page(airflow, f"/meander/model/?run={run}")
    assert ("become champion" in tab) is decision["promoted"]
    assert "from scratch" in tab, "what it is compared with is there"
    links = airflow.api("GET", f"dags/model_weekly/dagRuns/{learned['dag_run_id']}/taskInstances/promote/links")[
        "extra_links"
    ]
    assert "from scratch" in page(airflow, links["Evaluation report"])
    assert "/runs?searchFilter=" in links["MLflow"]

    # --- a person is asked ---
    # What the gate says of a model of one epoch is chance; here it lets it through.
    evaluation = Evaluation.of(f"model_weekly--{learned['dag_run_id']}")
    passed = {**evaluation.decision, "promote": True, "reasons": ["better than <everything>"]}
    storage.write_json(storage.join(evaluation.folder, "decision.json"), passed)
    asked = ask_again(airflow, learned)
    assert "better than <everything>" in asked["body"]
    assert evaluation.report_link in asked["body"]
    assert asked["defaults"] == ["Reject"], "an answer that never comes changes nothing"
    assert answer(airflow, learned, "Reject")["promote"][0] == "skipped"
    ask_again(airflow, learned)
    assert answer(airflow, learned, "Approve")["promote"][0] == "success"
    assert airflow.result("model_weekly", learned["dag_run_id"], "promote")["champion"] == decision["version"]

    # --- predictions ---
    airflow.backfill("predict_daily", DAYS[-1], DAYS[-1], at_once=1, reprocess="none")
    predicted = wait(airflow, "predict_daily")
    assert predicted["state"] == "success", states(airflow, predicted)
    assert Table("predictions").rows_by("dt") == {DAYS[-1]: Table("interests").rows_by("dt")[DAYS[-1]]}
    assert {row["model_version"] for row in Table("predictions").head(DAYS[-1], 1000)} == {decision["version"]}

    # --- a day before any model: nothing to wait for, a person has to decide ---
    airflow.backfill("predict_daily", WEEK - timedelta(days=1), WEEK - timedelta(days=1), at_once=1, reprocess="none")
    deadline = time.monotonic() + 900
    while not (early := [run for run in airflow.runs("predict_daily") if run["state"] == "failed"]):
        assert time.monotonic() < deadline
        time.sleep(1)
    assert states(airflow, early[0])["predictions.stage"] == ("failed", 1)
