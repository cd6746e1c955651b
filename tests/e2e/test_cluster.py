"""A cluster on one machine: a day, a training on two Spark tasks, and predictions, as a single machine makes them.

The log is of no shop: it tells what people listen to. Nobody buys anything in it.

Airflow on PostgreSQL with Celery behind Redis, users with roles, logs of tasks on an S3 store, and a Spark standalone
cluster that loses a worker on the way. Whatever can be read there tells no secret.
"""

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
import requests
import yaml

from dags.local.client import ANSWER_SECONDS
from dags.local.ports import free_port
from dags.local.standalone import LocalAirflow
from dags.shared.evaluation import Evaluation
from lake import storage
from lake.publish import publish
from lake.table import Table
from tests.airflow_cluster import SECRETS, USERS, AirflowCluster
from tests.airflow_runs import done, ended, states
from tests.lake.published import checksum
from tests.lake.stagings import stage_files
from tests.s3_server import BUCKET
from tests.tables import of_dag
from tests.waiting import until

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]

FIRST, AS_OF = date(2025, 1, 1), date(2025, 3, 8)
# The day for the cluster; all that was before is history.
DAY = AS_OF + timedelta(days=1)
# The week that ends with AS_OF begins on this Sunday.
WEEK = AS_OF - timedelta(days=6)
WEEKS = 9
TABLES = of_dag("behavior_daily")
SETTINGS = {
    "MEANDER_HORIZON_DAYS": "7",
    "MEANDER_LOOKBACK_DAYS": "14",
    "MEANDER_PROMOTION_APPROVAL": "true",
}


# Artists are the categories, a play is a view, a like a favorite; what else a player tells is left out.
SOURCE = """
name: listening
description: what people listen to
format: csv
delimiter: "\t"
user_id: user
item_id: track
category_id: artist
query: words
time: {column: played_at, format: iso8601}
behavior:
  column: event
  values: {play: view, like: favorite, search: search}
  others: ignore
"""


def write_log(landing: Path) -> None:
    """Write a file a day of 80 people, who have tastes that change, and pause for some weeks."""
    draw = random.Random(5)
    artists = [f"artist {n}" for n in range(8)]
    tastes = [draw.sample(artists, 3) for _ in range(80)]
    for day in (FIRST + timedelta(days=n) for n in range((DAY - FIRST).days + 1)):
        lines = ["user\tplayed_at\tevent\tartist\ttrack\twords"]
        for user, taste in enumerate(tastes):
            pauses = random.Random(f"{user} {day.isocalendar().week}").random() < 0.2
            if draw.random() < 0.03:
                taste[draw.randrange(3)] = draw.choice(artists)
            if pauses or draw.random() < 0.3:
                continue
            at = datetime.combine(day, time(draw.randrange(6, 22)), UTC)
            for _ in range(draw.randint(2, 6)):
                at += timedelta(seconds=draw.randrange(20, 400))
                artist = draw.choices(taste, (5, 3, 2))[0]
                event = draw.choices(("play", "like", "skip", "search"), (80, 10, 5, 5))[0]
                said = f"{artist}\ttrack {draw.randrange(20)} of {artist}\t" if event != "search" else "\t\tnew songs"
                lines.append(f"person{user}\t{at:%Y-%m-%dT%H:%M:%SZ}\t{event}\t{said}")
        folder = landing / f"dt={day}"
        folder.mkdir(parents=True)
        (folder / "plays.tsv").write_text("\n".join(lines) + "\n")


# The history of a log and then a day, for both of which Spark starts once; the lake in between is kept as a copy.
LOADS = """
import os, shutil, sys
from dags.cli.main import app

lake, copy, history, day = sys.argv[1:]
app(["daily", *history.split()], standalone_mode=False)
shutil.copytree(lake, f"{copy}.part")
os.rename(f"{copy}.part", copy)
app(["daily", *day.split()], standalone_mode=False)
"""


def settings_in(folder: Path) -> dict[str, str]:
    """Return the settings of both machines."""
    return {
        **SETTINGS,
        "MEANDER_SOURCE": str(folder / "listening.yaml"),
        "MEANDER_LANDING": str(folder / "landing"),
    }


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Future[None]]:
    """Loads a log into the lake `alone`, on a single machine: the history, then a day.

    After the history, `cluster` is there, a copy of the lake without that day.
    """
    lake, copy = tmp_path / "alone", tmp_path / "cluster"
    environment = {**os.environ, "MEANDER_LAKE": str(lake), **settings_in(tmp_path)}
    history = f"--from {FIRST} --to {AS_OF} --chunk-days 999 --every 7"
    arguments = [str(lake), str(copy), history, f"--from {DAY} --to {DAY}"]
    (tmp_path / "listening.yaml").write_text(SOURCE)
    write_log(tmp_path / "landing")

    def load() -> None:
        subprocess.run([sys.executable, "-c", LOADS, *arguments], env=environment, check=True)

    with ThreadPoolExecutor(1) as machine:
        yield machine.submit(load)


@pytest.fixture
def airflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AirflowCluster]:
    given = {"MEANDER_LAKE": str(tmp_path / "cluster"), **settings_in(tmp_path)}
    cluster = AirflowCluster(tmp_path / "home", given, port=free_port())
    cluster.start()
    for name, value in {**given, "MEANDER_MLFLOW_URI": cluster.mlflow_uri}.items():
        monkeypatch.setenv(name, value)
    yield cluster
    cluster.stop()
    assert not cluster.running


def lose_a_worker(airflow: AirflowCluster) -> None:
    """Kill the first Spark worker of which an executor works for a job, and start another one."""
    folder = airflow.home / "spark"

    def busy() -> list[int]:
        logs = {number: (folder / f"worker-{number}").rglob("stderr") for number in (0, 1)}
        return [n for n, some in logs.items() if any("Running task" in log.read_text() for log in some)]

    number = until("an executor to work", busy)[0]
    airflow.spark.kill_worker(number)
    airflow.spark.wait("master", r"(Telling app of lost executor)")
    airflow.spark.start_worker(number)


def wait(airflow: LocalAirflow, dag_id: str) -> dict[str, Any]:
    """Wait until every run of the DAG has ended or asks a person, and return the newest of its runs."""
    return ended(airflow, dag_id, lambda run: done(run) or asks(airflow, run))[-1]


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


def page(airflow: LocalAirflow, path: str) -> str:
    """Return a page of ours as somebody sees it who is logged in; nobody else does."""
    assert requests.get(airflow.url + path, timeout=ANSWER_SECONDS).status_code == 401
    shown = requests.get(
        airflow.url + path, headers={"Authorization": f"Bearer {airflow.token}"}, timeout=ANSWER_SECONDS
    )
    assert shown.status_code == 200
    return shown.text


def what_applications_see(airflow: AirflowCluster) -> list[tuple[object, ...]]:
    """Return day, model version and users of what the serving store shows."""
    with psycopg.connect(airflow.database.url(database="shop")) as shop:
        return shop.execute("select dt, model_version, count(*) from meander.predictions group by 1, 2").fetchall()


def status(airflow: AirflowCluster, who: str, method: str, path: str, **request: Any) -> int:
    """Return with what status Airflow answers one of its users."""
    login = {"username": who, "password": airflow.state["password"]}
    token = requests.post(f"{airflow.url}/auth/token", json=login, timeout=ANSWER_SECONDS).json()["access_token"]
    headers = {"Authorization": f"Bearer {token}"}
    return requests.request(method, airflow.url + path, headers=headers, timeout=ANSWER_SECONDS, **request).status_code


def require_roles(airflow: AirflowCluster) -> None:
    """Who may see may not run anything again, and who may do that gives nobody rights."""
    run = airflow.runs("behavior_daily")[0]
    clear = {"dry_run": True, "dag_run_id": run["dag_run_id"], "only_failed": False}
    backfill = {"dag_id": "behavior_daily", "from_date": f"{FIRST}T00:00:00Z", "to_date": f"{FIRST}T00:00:00Z"}
    asked = {
        "see": ("GET", "/api/v2/dags/behavior_daily/dagRuns", {}),
        "see Meander's page": ("GET", "/meander/page/", {}),
        "clear": ("POST", "/api/v2/dags/behavior_daily/clearTaskInstances", {"json": clear}),
        "backfill": ("POST", "/api/v2/backfills/dry_run", {"json": backfill}),
        "give rights": ("GET", "/auth/fab/v1/users", {}),
    }
    may = {}
    for who, role in USERS.items():
        answers = {what: status(airflow, who, method, path, **more) for what, (method, path, more) in asked.items()}
        may[role] = [what for what, answer in answers.items() if answer == 200]
        assert set(answers.values()) <= {200, 403}, answers
    assert may == {"Admin": list(asked), "Op": list(asked)[:-1], "Viewer": list(asked)[:2]}


def require_health(airflow: AirflowCluster) -> None:
    """The containers' own checks find these processes healthy."""
    services = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())["services"]
    for service in ("scheduler", "worker"):
        kind, *command = services[service]["healthcheck"]["test"]
        assert kind == "CMD"
        command = [part.replace("$$", "$") for part in command]  # as compose reads it
        subprocess.run(command, env=airflow.environment, cwd=airflow.home, check=True, capture_output=True)


def require_logs_on_the_store_without_secrets(airflow: AirflowCluster) -> None:
    """Whatever somebody can read tells no secret: logs of tasks, of processes, of Spark; rendered templates; pages."""
    shown: dict[str, str] = {}
    jobs = 0
    on_store = airflow.store.client().get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix="logs/")
    for entry in (entry for part in on_store for entry in part.get("Contents", [])):
        shown[entry["Key"]] = airflow.store.client().get_object(Bucket=BUCKET, Key=entry["Key"])["Body"].read().decode()
    logs = [*airflow.home.rglob("*.log"), *airflow.home.rglob("stdout"), *airflow.home.rglob("stderr")]
    shown |= {str(file): file.read_text(errors="replace") for file in logs}
    for dag_id in ("behavior_daily", "model_weekly", "predict_daily", "serve_daily", "serve_rollback"):
        for run in airflow.runs(dag_id):
            for task in airflow.tasks(dag_id, run["dag_run_id"]):
                shown[f"{run['dag_run_id']} {task['task_id']}"] = json.dumps(task)
                # One that follows a failed one never began.
                if task["operator_name"] == "SparkJob" and task["state"] in ("success", "failed"):
                    jobs += 1
                    assert task["rendered_fields"], task
                    folder = f"logs/dag_id={dag_id}/run_id={run['dag_run_id']}/task_id={task['task_id']}/"
                    assert any(name.startswith(folder) for name in shown), folder
    for path in ("/meander/page/", "/meander/model/", "/api/v2/connections", "/api/v2/config"):
        answer = requests.get(
            airflow.url + path, headers={"Authorization": f"Bearer {airflow.token}"}, timeout=ANSWER_SECONDS
        )
        shown[path] = answer.text
    assert jobs, "their logs and templates were looked at"
    assert airflow.spark.address in "".join(shown.values()), "what is no secret is found"
    assert [
        f"{what} in {where}" for where, text in shown.items() for secret, what in SECRETS.items() if secret in text
    ] == []

    run = airflow.runs("behavior_daily")[0]
    run_id = requests.utils.quote(run["dag_run_id"], safe="")
    log = airflow.api("GET", f"dags/behavior_daily/dagRuns/{run_id}/taskInstances/sessions.stage/logs/1")
    assert "s3://" in json.dumps(log["content"][:2])
    assert "sessions" in json.dumps(log["content"][2:])
    assert not list((airflow.home / "airflow" / "logs").rglob("task_id=sessions.stage/attempt=1.log"))


def test_a_cluster_makes_what_one_machine_makes_and_learns_and_predicts(
    alone: Future[None],
    airflow: AirflowCluster,  # starts while the history is loaded
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    until("the history to be loaded", lambda: alone.done() or (tmp_path / "cluster").exists())
    if alone.done():
        alone.result()  # it ended early, or was quick
    before = {table: checksum(table) for table in TABLES}

    # --- a day, and a machine that is lost ---
    airflow.backfill("behavior_daily", DAY, DAY, at_once=1, reprocess="none")
    lose_a_worker(airflow)
    assert wait(airflow, "behavior_daily")["state"] == "success"
    made = {table: checksum(table) for table in TABLES}
    assert made["events"] != before["events"], "a day was missing"
    alone.result()
    with monkeypatch.context() as there:
        there.setenv("MEANDER_LAKE", str(tmp_path / "alone"))
        assert {table: checksum(table) for table in TABLES} == made

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
    # Nobody buys, so no method is better at saying who does.
    assert Evaluation.of(f"model_weekly--{learned['dag_run_id']}").not_judged == ["purchased"]
    assert "AUC migrated" in tab
    assert "AUC churned" in tab
    assert "AUC purchased" not in tab
    assert "Not judged: purchased" in tab
    links = airflow.api("GET", f"dags/model_weekly/dagRuns/{learned['dag_run_id']}/taskInstances/promote/links")[
        "extra_links"
    ]
    assert "from scratch" in page(airflow, links["Evaluation report"])
    assert "/runs?searchFilter=" in links["MLflow"]

    require_roles(airflow)
    require_health(airflow)

    # --- a person is asked ---
    # What the gate says of a model of one epoch is chance; here it lets it through.
    evaluation = Evaluation.of(f"model_weekly--{learned['dag_run_id']}")
    passed = {**evaluation.decision, "promote": True, "reasons": ["better than <everything>"]}
    storage.write_json(storage.join(evaluation.folder, "decision.json"), passed)
    asked = ask_again(airflow, learned)
    assert "better than <everything>" in asked["body"]
    assert evaluation.report_link in asked["body"]
    assert asked["defaults"] == ["Reject"], "an answer that never comes changes nothing"
    no_right = status(airflow, "vera", "PATCH", f"/api/v2/{question(learned)}", json={"chosen_options": ["Approve"]})
    assert no_right == 403
    assert answer(airflow, learned, "Reject")["promote"][0] == "skipped"
    ask_again(airflow, learned)
    assert answer(airflow, learned, "Approve")["promote"][0] == "success"
    assert airflow.result("model_weekly", learned["dag_run_id"], "promote")["champion"] == decision["version"]

    # --- predictions, also for applications, and back ---
    airflow.backfill("predict_daily", DAY, DAY, at_once=1, reprocess="none")
    predicted = wait(airflow, "predict_daily")
    assert predicted["state"] == "success", states(airflow, predicted)
    users = Table("interests").rows_by("dt")[DAY]
    assert Table("predictions").rows_by("dt") == {DAY: users}
    said = Table("predictions").head(DAY, 1000)
    assert {row["model_version"] for row in said} == {decision["version"]}
    assert max(row["purchase_probability"] for row in said) < 0.1, "of what nobody has done"
    # A day to go back to: the same answers, as if they had been given the day before.
    stage_files("predictions", "before", [{**row, "dt": AS_OF} for row in said], [AS_OF], Table("interests").version)
    publish("predictions", "before")
    airflow.backfill("serve_daily", AS_OF, DAY, at_once=1, reprocess="none")
    # A day before any model, judged below.
    airflow.backfill("predict_daily", WEEK - timedelta(days=1), WEEK - timedelta(days=1), at_once=1, reprocess="none")
    served = wait(airflow, "serve_daily")
    assert served["state"] == "success", states(airflow, served)
    assert what_applications_see(airflow) == [(DAY, decision["version"], users)]
    airflow.api("POST", "dags/serve_rollback/dagRuns", json={"logical_date": None})
    assert wait(airflow, "serve_rollback")["state"] == "success"
    assert what_applications_see(airflow) == [(AS_OF, decision["version"], users)]

    # --- a day before any model: nothing to wait for, a person has to decide ---
    early = ended(airflow, "predict_daily")[0]
    assert early["state"] == "failed"
    assert states(airflow, early)["predictions.stage"] == ("failed", 1)

    require_logs_on_the_store_without_secrets(airflow)
