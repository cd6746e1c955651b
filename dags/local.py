"""Airflow on this machine: `python -m dags.local up | down | status | demo`, for `make up` and its like.

Everything lies below `.meander/` (or MEANDER_HOME); MEANDER_LAKE and MEANDER_LANDING may lie elsewhere.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from dags.standalone import USER, LocalAirflow, LocalError

HISTORY = (date(2017, 1, 1), date(2017, 9, 30))
WEEK = (date(2017, 10, 1), date(2017, 10, 7))

# History in quarters: few Spark jobs, and each fits a laptop. Interests of history only teach: weekly do.
HISTORY_CONF = {"from": str(HISTORY[0]), "to": str(HISTORY[1]), "chunk_days": 91, "interests_every": 7}
# Two days at once: while one waits for Airflow or commits, the other computes.
DAYS_AT_ONCE = 2

DONE = {"success", "failed", "upstream_failed", "skipped", "removed"}


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
    """Say whether it runs, and how to get in.

    Raises:
        SystemExit: it does not run.
    """
    if not local.running:
        sys.exit("Airflow is not running. Start it: make up")
    say(f"Airflow:    {local.url}   user {USER}   password {local.state['password']}")
    say(f"Data docs:  {local.url}/meander/data-docs/   (after logging in)")
    say(f"Lake:       {local.environment['MEANDER_LAKE']}")
    source = local.environment.get("MEANDER_SOURCE", "canonical")
    say(f"Landing:    {local.environment['MEANDER_LANDING']}   source {source}")
    say("Stop it:    make down")


def demo(local: LocalAirflow) -> None:
    """Load nine months of a real shop log with one DAG, backfill a week with the other, show the result."""
    began = time.monotonic()
    local.settings["MEANDER_SOURCE"] = "completejourney"
    local.stop()
    say(f"1/4  Starting Airflow and Spark below {local.home}")
    try:
        local.start()
        say(f"2/4  Writing the log of {HISTORY[0]} to {WEEK[1]} as landing files")
        module(local, "jobs.export_completejourney", "--from", HISTORY[0], "--to", WEEK[1])
        say(f"3/4  behavior_history: {HISTORY[0]} to {HISTORY[1]}")
        run_id = f"demo__{datetime.now(UTC):%Y-%m-%dT%H:%M:%S}"
        local.airflow("dags", "trigger", "behavior_history", "--run-id", run_id, "--conf", json.dumps(HISTORY_CONF))
        follow(local, "behavior_history", {run_id})
        say(f"4/4  behavior_daily: backfill of {WEEK[0]} to {WEEK[1]}")
        if any(backfill["completed_at"] is None for backfill in local.backfills("behavior_daily")):
            say("     an earlier backfill was interrupted; Airflow ends that one first")
        days = local.backfill("behavior_daily", *WEEK, at_once=DAYS_AT_ONCE, reprocess="completed")
        follow(local, "behavior_daily", days)
        say()
        module(local, "dags.cli", "days", "--from", HISTORY[0], "--to", WEEK[1])
        say()
        minutes = (time.monotonic() - began) / 60
        say(f"Done in {minutes:.1f} minutes. Airflow is stopped; `make up` opens it again on the same data:")
        status(local)
    finally:
        local.stop()


def follow(local: LocalAirflow, dag_id: str, waiting: set[str]) -> None:
    """Show a line whenever a table of one of these runs is published, until all have ended.

    Raises:
        LocalError: one of them failed.
    """
    began, shown = time.monotonic(), set()
    while waiting:
        time.sleep(1)
        runs = {run["dag_run_id"]: run for run in local.runs(dag_id) if run["dag_run_id"] in waiting}
        for run_id, run in runs.items():
            for task in local.tasks(dag_id, run_id) if run["state"] != "queued" else []:
                key = (run_id, task["task_id"], task["map_index"], task["try_number"], task["state"])
                if task["state"] in DONE and task["start_date"] and key not in shown:
                    shown.add(key)
                    show(run, task, time.monotonic() - began)
            if run["state"] in ("success", "failed"):
                waiting = waiting - {run_id}
                if run["state"] == "failed":
                    explain(local, dag_id, run_id)
                    raise LocalError(f"{dag_id} {run_id} failed; `make up` opens Airflow on what is there")


def show(run: dict[str, Any], task: dict[str, Any], seconds: float) -> None:
    """Print a published table, or a task that failed."""
    if task["task_id"].endswith(".publish") or task["state"] == "failed":
        day = (run["data_interval_start"] or "")[:10]
        chunk = task["rendered_map_index"] or day
        what = "published" if task["state"] == "success" else f"{task['task_id'].split('.')[-1]} {task['state']}"
        say(f"     {seconds:4.0f} s  {chunk:12} {task['task_id'].split('.')[0]:10} {what}")


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
    subprocess.run([sys.executable, "-m", name, *map(str, arguments)], env=local.environment, check=True)


def main(argv: list[str] | None = None) -> None:
    """Run one command."""
    parser = argparse.ArgumentParser(prog="dags.local", description="Airflow and Spark on this machine.")
    parser.add_argument("command", choices=["up", "down", "status", "demo"])
    parser.add_argument("--port", type=int, default=0, help="of the UI; default: the last one, 8080 or a free one")
    args = parser.parse_args(argv)
    local = LocalAirflow(Path(os.environ.get("MEANDER_HOME", ".meander")).resolve(), {}, args.port)
    # A stopped demo stops what it started: without this, a polite kill would skip every `finally`.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        {"up": up, "down": down, "status": status, "demo": demo}[args.command](local)
    except LocalError as error:
        sys.exit(f"\n{error}")
    except subprocess.CalledProcessError as error:
        command = " ".join(map(str, error.cmd))
        sys.exit(f"\n{command}\n{error.stdout or ''}{error.stderr or ''}ended with {error.returncode}")


if __name__ == "__main__":
    main()
