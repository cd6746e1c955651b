"""Airflow on this machine: `python -m dags.local up | down | status | demo | mlflow`, for `make up` and its like.

Everything lies below `.meander/` (or MEANDER_HOME); MEANDER_LAKE and MEANDER_LANDING may lie elsewhere.
"""

import argparse
import json
import os
import secrets
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from dags import PREFIX
from dags.local.client import USER
from dags.local.standalone import BIN, HANGS_SECONDS, PRIVATE, LocalAirflow, LocalError
from dags.shared.evaluation import LOCAL_MLFLOW
from dags.shared.run_ids import of_dag
from lake.environment import environment_of
from lake.errors import SettingsInvalid
from lake.settings import settings

HISTORY = (date(2017, 1, 1), date(2017, 12, 23))
DAYS = (date(2017, 12, 24), date(2017, 12, 26))
SOURCE = "completejourney"
# People buy groceries about once a week: within 7 days, the dominant category of 38 % of users is a tie of one or two
# items, which nobody can predict. Within four weeks it is 28 %.
HORIZON_DAYS = 28

# History in halves: few Spark jobs, and each fits a laptop. Interests of history only teach: weekly do.
HISTORY_CONF = {"from": str(HISTORY[0]), "to": str(HISTORY[1]), "chunk_days": 182, "interests_every": 7}
# The interval of model_weekly that ends with the history.
LEARN_FROM = HISTORY[1] - timedelta(days=6)
MODEL_CONF = {"preset": "tiny", "weeks": 28}
# Two days at once: while one waits for Airflow or commits, the other computes.
DAYS_AT_ONCE = 2

# Between two looks at runs. Each look is work for Airflow's web server, which takes it from the days and the training.
LOOK_SECONDS = 3
DONE = {"success", "failed", "upstream_failed", "skipped", "removed"}
# The steps that people wait for, and what they have done when they have succeeded.
DONE_WORDS = {
    "publish": "published",
    "prepare": "has split the dates and made the vocabulary",
    "pretrain": "has trained",
    "finetune": "has trained",
    "scratch": "has trained, for comparison",
    "evaluate": "has judged",
    "promote": "has made the candidate champion",
}
REFUSED = "skipped: the gate has refused"


def say(text: str = "") -> None:
    """Tell the person who waits; unbuffered, since the output may be piped."""
    print(text, flush=True)  # noqa: T201


def up(local: LocalAirflow) -> None:
    """Start Airflow and Spark, unless they run."""
    if not local.running:
        say(f"Starting Airflow and Spark below {local.home} (half a minute)")
        local.start()
    status(local)


def down(local: LocalAirflow) -> None:
    """Stop what `up` started."""
    was = local.running
    local.stop()
    say("Stopped." if was else "Nothing was running.")


def status(local: LocalAirflow) -> None:
    """Say whether it runs, and how to get in: where the password is, and not what, since logs keep what is printed.

    Raises:
        SystemExit: it does not run.
    """
    if not local.running:
        sys.exit("Airflow is not running. Start it: make up")
    say(f"Airflow:    {local.url}   user {USER}   password in {local.password_file}")
    say(f"Data docs:  {local.url}{PREFIX}/data-docs/   (after logging in)")
    say(f"Lake:       {local.environment['MEANDER_LAKE']}")
    source = local.environment.get("MEANDER_SOURCE", "canonical")
    say(f"Landing:    {local.environment['MEANDER_LANDING']}   source {source}")
    say("MLflow:     make mlflow   (without Airflow)")
    say("Stop it:    make down")


def demo(local: LocalAirflow) -> None:
    """Load a year of a real log, train and judge a model on it, predict in the days that follow; show the result."""
    began = time.monotonic()
    local.settings |= {"MEANDER_SOURCE": SOURCE, "MEANDER_HORIZON_DAYS": str(HORIZON_DAYS)}
    local.stop()
    say(f"1/5  Starting Airflow and Spark below {local.home}")
    try:
        local.start()
        say(f"2/5  Writing the log of {HISTORY[0]} to {DAYS[1]} as landing files")
        module(local, "jobs.export_completejourney", "--from", HISTORY[0], "--to", DAYS[1])
        say(f"3/5  behavior_history: {HISTORY[0]} to {HISTORY[1]}")
        run_id = f"demo__{datetime.now(UTC):%Y-%m-%dT%H:%M:%S}"
        local.airflow("dags", "trigger", "behavior_history", "--run-id", run_id, "--conf", json.dumps(HISTORY_CONF))
        follow(local, {"behavior_history": {run_id}})
        # At once: a training leaves a part of two cores free, and neither needs what the other makes.
        say(f"4/5  model_weekly: as of {HISTORY[1]}; beside it behavior_daily: backfill of {DAYS[0]} to {DAYS[1]}")
        # A backfill of the one week, and not a run by hand: that would take its week from the clock.
        (learned,) = begin_backfill(local, "model_weekly", LEARN_FROM, LEARN_FROM, conf=MODEL_CONF)
        days = begin_backfill(local, "behavior_daily", *DAYS)
        follow(local, {"model_weekly": {learned}, "behavior_daily": days})
        say(f"5/5  predict_daily: backfill of {DAYS[0]} to {DAYS[1]}")
        conf = choice(local.result("model_weekly", learned, "promote"))
        follow(local, {"predict_daily": begin_backfill(local, "predict_daily", *DAYS, conf=conf)})
        show_result(local, of_dag("model_weekly", learned))
        minutes = (time.monotonic() - began) / 60
        say(f"Done in {minutes:.1f} minutes. Airflow is stopped; `make up` opens it again on the same data:")
        status(local)
    finally:
        local.stop()


def choice(decision: dict[str, Any]) -> dict[str, Any]:
    """Return what predict_daily is told after `promote` has decided: no version, as long as there is a champion."""
    if decision["champion"]:
        return {"model_version": None}  # said, because a run that is run again keeps what it was told before
    say(f"     there is no champion yet: the candidate, version {decision['version']}, shows what it would predict")
    return {"model_version": decision["version"]}


def begin_backfill(
    local: LocalAirflow, dag_id: str, first: date, last: date, conf: dict[str, Any] | None = None
) -> set[str]:
    """Let Airflow backfill a DAG, and return the ids of the runs."""
    if any(open_one["completed_at"] is None for open_one in local.backfills(dag_id)):
        say("     an earlier backfill was interrupted; Airflow ends that one first")
    return local.backfill(dag_id, first, last, at_once=DAYS_AT_ONCE, reprocess="completed", conf=conf)


def show_result(local: LocalAirflow, model_run: str) -> None:
    """Show what the runs made: tables, the model and its judgement, predictions, one user explained."""
    say()
    module(local, "dags.cli", "days", "--from", HISTORY[0], "--to", DAYS[1])
    module(local, "dags.cli", "model", "--run-id", model_run)
    module(local, "dags.cli", "model")
    module(local, "dags.cli", "predictions", "--from", DAYS[0], "--to", DAYS[1])
    module(local, "dags.cli", "explain", "--day", DAYS[1])
    say()


def mlflow(local: LocalAirflow) -> None:
    """Show MLflow's UI on the store beside the lake, until it is interrupted; Airflow need not run."""
    lake = local.state.get("settings", {}).get("MEANDER_LAKE", str(local.home / "lake"))
    os.environ.setdefault("MEANDER_LAKE", lake)
    uri = settings().tracking_uri
    if uri.startswith(("http://", "https://")):
        say(f"MLflow:     {settings().tracking_place}")
        return
    host, port = LOCAL_MLFLOW.removeprefix("http://").split(":")
    local.make_private_home()
    password = local.make_password()
    users = local.home / "basic_auth.db"
    place = f"in {local.password_file}"
    if users.exists() and not knows_password(users, password):
        place = f"as it was changed in MLflow; without {users}, users are made anew"
    say(f"MLflow:     {LOCAL_MLFLOW}   user {USER}   password {place}")
    say(f"Store:      {settings().tracking_place}\nStop it:    Ctrl-C")
    command = ["mlflow", "server", "--host", host, "--port", port, "--workers", "1", "--app-name", "basic-auth"]
    # Not as arguments: a password in them would be seen in the list of processes.
    environment = environment_of("mlflow-server", os.environ)
    environment |= {"MLFLOW_BACKEND_STORE_URI": uri, "MLFLOW_AUTH_ADMIN_USERNAME": USER}
    environment |= {"MLFLOW_AUTH_ADMIN_PASSWORD": password, "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(32)}
    environment |= {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    # What it leaves beside the store belongs to the other things of this folder.
    subprocess.run([str(BIN / command[0]), *command[1:]], env=environment, cwd=local.home, check=True, umask=PRIVATE)


def knows_password(users: Path, password: str) -> bool:
    """Tell whether a password is that of the admin in MLflow's database of users."""
    from werkzeug.security import check_password_hash

    with closing(sqlite3.connect(users)) as database:
        try:
            row = database.execute("select password_hash from users where username = ?", [USER]).fetchone()
        except sqlite3.OperationalError:
            return True  # MLflow was ended before it made the table, and makes the admin now
    return row is None or check_password_hash(row[0], password)


def follow(local: LocalAirflow, waiting: dict[str, set[str]]) -> None:
    """Show a line whenever a table of one of these runs is published, until all have ended.

    Args:
        local: where they run.
        waiting: ids of runs by DAG.

    Raises:
        LocalError: one of them failed.
    """
    began, shown = time.monotonic(), set()
    alive = began
    left = {(dag_id, run_id) for dag_id, runs in waiting.items() for run_id in runs}
    while left:
        time.sleep(LOOK_SECONDS)
        alive = time.monotonic() if local.healthy() else alive
        if time.monotonic() - alive > HANGS_SECONDS:
            raise LocalError(f"Airflow's scheduler has stopped; {local.home / 'airflow.log'} says why. Try again")
        runs = {(dag_id, run["dag_run_id"]): run for dag_id in waiting for run in local.runs(dag_id)}
        for dag_id, run_id in sorted(left):
            run = runs[dag_id, run_id]
            for task in local.tasks(dag_id, run_id) if run["state"] != "queued" else []:
                key = (dag_id, run_id, task["task_id"], task["map_index"], task["try_number"], task["state"])
                if task["state"] in DONE and task["start_date"] and key not in shown:
                    shown.add(key)
                    show(run, task, time.monotonic() - began)
            if run["state"] in ("success", "failed"):
                left.remove((dag_id, run_id))
                if run["state"] == "failed":
                    explain(local, dag_id, run_id)
                    raise LocalError(f"{dag_id} {run_id} failed; `make up` opens Airflow on what is there")


def show(run: dict[str, Any], task: dict[str, Any], seconds: float) -> None:
    """Print a published table, a step of the model, or a task that failed."""
    group, _, step = task["task_id"].rpartition(".")
    what = {
        "success": DONE_WORDS.get(step, ""),
        "failed": f"{step} failed" if group else "failed",
        "skipped": REFUSED,
    }.get(task["state"], "")
    if what:
        # The last day of the interval: the day of a daily run, the as-of date of a weekly one.
        end = run["data_interval_end"]
        day = str(datetime.fromisoformat(end).date() - timedelta(days=1)) if end else ""
        say(f"     {seconds:4.0f} s  {task['rendered_map_index'] or day:12} {group or step:11} {what}")


def explain(local: LocalAirflow, dag_id: str, run_id: str) -> None:
    """Print the end of the log of each task that failed."""
    for task in local.tasks(dag_id, run_id):
        if task["state"] == "failed":
            say(f"\n{task['task_id']} of {run_id} failed. The end of its log:")
            say("\n".join(f"    {line}" for line in list(local.log_lines(task))[-15:]))


def module(local: LocalAirflow, name: str, *arguments: object) -> None:
    """Run one of our modules with the tasks' settings; what it prints is shown.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    command = [sys.executable, "-m", name, *map(str, arguments)]
    subprocess.run(command, env=local.environment, check=True, umask=PRIVATE)


def main(argv: list[str] | None = None) -> None:
    """Run one command."""
    parser = argparse.ArgumentParser(prog="dags.local", description="Airflow and Spark on this machine.")
    parser.add_argument("command", choices=["up", "down", "status", "demo", "mlflow"])
    parser.add_argument("--port", type=int, default=0, help="of the UI; default: the last one, 8080 or a free one")
    args = parser.parse_args(argv)
    local = LocalAirflow(Path(os.environ.get("MEANDER_HOME", ".meander")).resolve(), {}, args.port, tell=say)
    # A stopped demo stops what it started: without this, a polite kill would skip every `finally`.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        {"up": up, "down": down, "status": status, "demo": demo, "mlflow": mlflow}[args.command](local)
    except KeyboardInterrupt:
        sys.exit(130)
    except (LocalError, SettingsInvalid) as error:
        sys.exit(f"\n{error}")
    except subprocess.CalledProcessError as error:
        command = " ".join(map(str, error.cmd))
        sys.exit(f"\n{command}\n{error.stdout or ''}{error.stderr or ''}ended with {error.returncode}")
