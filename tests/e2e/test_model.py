"""Airflow itself trains a tiny model on a simulated log, gate and people have a say, and a later day is predicted."""

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

pytestmark = pytest.mark.e2e

FIRST, AS_OF = date(2025, 1, 1), date(2025, 3, 8)
NEXT = AS_OF + timedelta(days=1)
# The week that ends with AS_OF begins on this Sunday.
WEEK = AS_OF - timedelta(days=6)
WEEKS = 9
SETTINGS = {
    "MEANDER_SOURCE": "canonical",
    "MEANDER_HORIZON_DAYS": "7",
    "MEANDER_LOOKBACK_DAYS": "14",
    "MEANDER_PROMOTION_APPROVAL": "true",
}


@pytest.fixture
def airflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalAirflow]:
    """A running Airflow and Spark on a simulated landing; the test reads the same lake."""
    folders = {"MEANDER_LAKE": str(tmp_path / "lake"), "MEANDER_LANDING": str(tmp_path / "landing")}
    for name, value in {**folders, **SETTINGS}.items():
        monkeypatch.setenv(name, value)
    days = (NEXT - FIRST).days + 1
    log = [
        "--from",
        str(FIRST),
        "--days",
        str(days),
        "--events",
        "12000",
        "--users",
        "80",
        "--categories",
        "8",
        "--crawlers",
        "0",
    ]
    subprocess.run(
        [sys.executable, "-m", "jobs.simulate", *log, "--items", "20", "--whale", "0", "--broken", "0"], check=True
    )
    # A port of its own: two Airflows that start at once would both find 8080 free.
    local = LocalAirflow(tmp_path / "home", {**folders, **SETTINGS}, port=free_port())
    local.start()
    yield local
    local.stop()
    assert not local.running


def wait(airflow: LocalAirflow, dag_id: str, seconds: int = 900) -> dict[str, Any]:
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


def test_a_week_is_learnt_judged_and_used_to_predict_the_next_day(airflow: LocalAirflow):
    history = f'{{"from": "{FIRST}", "to": "{AS_OF}", "interests_every": 7}}'
    airflow.airflow("dags", "trigger", "behavior_history", "--conf", history)
    assert wait(airflow, "behavior_history")["state"] == "success"

    # --- the model ---
    conf = {"preset": "tiny", "epochs": 1, "weeks": WEEKS}
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

    # --- the next day ---
    airflow.backfill("behavior_daily", NEXT, NEXT, at_once=1, reprocess="none")
    assert wait(airflow, "behavior_daily")["state"] == "success"
    airflow.backfill("predict_daily", NEXT, NEXT, at_once=1, reprocess="none")
    predicted = wait(airflow, "predict_daily")
    assert predicted["state"] == "success", states(airflow, predicted)
    assert Table("predictions").rows_by("dt") == {NEXT: Table("interests").rows_by("dt")[NEXT]}
    assert {row["model_version"] for row in Table("predictions").head(NEXT, 1000)} == {decision["version"]}

    # --- a day before any model: nothing to wait for, a person has to decide ---
    airflow.backfill("predict_daily", WEEK - timedelta(days=1), WEEK - timedelta(days=1), at_once=1, reprocess="none")
    deadline = time.monotonic() + 900
    while not (early := [run for run in airflow.runs("predict_daily") if run["state"] == "failed"]):
        assert time.monotonic() < deadline
        time.sleep(1)
    assert states(airflow, early[0])["predictions.stage"] == ("failed", 1)
