"""Airflow itself backfills three days; one is bad, is repaired and run again. History equals the days."""

import json
import shlex
import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import quote, urljoin

import pytest
import requests

from dags.local.client import ANSWER_SECONDS
from dags.local.standalone import LocalAirflow
from dags.shared.backfill import steps
from lake.backfill.planner import plan_backfill
from lake.settings import settings
from lake.staging import read_verdict
from lake.table import Table
from tests.airflow_runs import ended, states
from tests.lake.published import rows
from tests.listening import on_loopback
from tests.tables import groups_of, of_dag
from tests.waiting import until

pytestmark = pytest.mark.e2e

# What the scheduler does when a day is over, for a day long ago.
SCHEDULED = """
import pendulum
from airflow.models.dagbag import DBDagBag
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState
from airflow.utils.types import DagRunTriggeredByType, DagRunType

start = pendulum.datetime(2025, 4, 1, tz="UTC")
with create_session() as session:
    DBDagBag().get_latest_version_of_dag("behavior_daily", session=session).create_dagrun(
        run_id="scheduled__2025-04-01", logical_date=start, data_interval=(start, start.add(days=1)),
        run_after=start.add(days=1), run_type=DagRunType.SCHEDULED, triggered_by=DagRunTriggeredByType.TIMETABLE,
        state=DagRunState.QUEUED, session=session,
    )
"""

FIRST, BAD, LAST = date(2025, 3, 1), date(2025, 3, 2), date(2025, 3, 3)
TABLES, GROUPS = of_dag("behavior_daily"), groups_of("behavior_daily")


def event(user: str, when: str, behavior: str = "view", item: str = "shoe") -> dict[str, Any]:
    return {
        "user_id": user,
        "event_time": f"2025-03-{when}Z",
        "behavior": behavior,
        "item_id": item,
        "category_id": "c",
    }


ACROSS_MIDNIGHT = event("ann", "01T23:50:00")
LANDED: dict[date, list[dict[str, Any]]] = {
    FIRST: [event("ann", "01T10:00:00"), event("ann", "01T10:05:00", "purchase"), ACROSS_MIDNIGHT],
    BAD: [event("ann", "02T00:05:00"), event("bob", "02T12:00:00", "cart"), event("bob", "02T12:10:00")],
    # One came late, one had been delivered before.
    LAST: [
        event("bob", "03T09:00:00"),
        event("bob", "02T12:20:00"),
        ACROSS_MIDNIGHT,
        event("cem", "03T09:00:00"),
    ],
}
BROKEN = [event("ann", "02T00:05:00"), event("", "02T12:00:00"), event("bob", "02T12:10:00", "stare")]


def land(folder: Path, day: date, rows: list[dict[str, Any]]) -> None:
    file = folder / f"dt={day}" / "log.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def wait(airflow: LocalAirflow, dag_id: str) -> dict[str, dict[str, Any]]:
    """Wait until no run of these days is at work, and return them by the day they process; of a form, the newest."""
    days = (str(FIRST), str(LAST)) if dag_id == "behavior_daily" else ("", "~")
    return {(run["data_interval_start"] or "")[:10]: run for run in ended(airflow, dag_id, days=days)}


def run_id(runs: dict[str, dict[str, Any]], day: date) -> str:
    """Return what Airflow calls the run of a day."""
    return str(runs[str(day)]["dag_run_id"])


def alerted(alerts: Path) -> str:
    """Return the texts of all alerts so far."""
    return "\n".join(json.loads(file.read_text())["text"] for file in sorted(alerts.glob("*.json")))


def verdicts(table: str, day: date) -> list[str]:
    """Return the verdicts with which a day was published, newest first."""
    return [commit["verdict"] for commit in Table(table).commits() if commit["last"] == str(day)]


def test_a_bad_day_stays_out_is_repaired_and_history_equals_the_days(airflow: LocalAirflow, tmp_path: Path):
    lake, landing = (Path(airflow.settings[name]) for name in ("MEANDER_LAKE", "MEANDER_LANDING"))
    for day, landed in LANDED.items():
        land(landing, day, BROKEN if day == BAD else landed)

    # --- three days at once, one of them bad ---
    airflow.backfill("behavior_daily", FIRST, LAST, at_once=3, reprocess="none")
    runs = wait(airflow, "behavior_daily")
    assert {day: run["state"] for day, run in runs.items()} == {
        str(FIRST): "success",
        str(BAD): "failed",
        str(LAST): "success",
    }
    said = [line for task in airflow.tasks("behavior_daily", run_id(runs, FIRST)) for line in airflow.log_lines(task)]
    assert sum("running " in line for line in said) == 2 * len(GROUPS), "of each table, a stage and an audit"
    assert not any("starts by itself" in line for line in said), "all are forks"
    bad = states(airflow, runs[str(BAD)])
    assert bad["events.stage"] == ("success", 1)
    assert bad["events.audit"] == ("failed", 1), "what a person must repair is not retried"
    assert {bad[f"{t}.publish"][0] for t in GROUPS} == {"upstream_failed"}

    # Readers see the good days, and of the bad one nothing: neither its good rows nor its rejected ones.
    assert list(Table("events").rows_by("landed")) == [FIRST, LAST]
    assert Table("events").basis(BAD) is None
    assert Table("quarantine").basis(BAD) is None
    assert [day for day in (FIRST, BAD, LAST) if Table("interests").basis(day) is not None] == [FIRST, LAST]

    # The button on the failed task leads to the page that says why, for whoever is logged in.
    links = airflow.api(
        "GET", f"dags/behavior_daily/dagRuns/{runs[str(BAD)]['dag_run_id']}/taskInstances/events.audit/links"
    )
    page = urljoin(airflow.url, links["extra_links"]["Data docs: quarantine"])
    assert requests.get(page, timeout=ANSWER_SECONDS).status_code == 401
    shown = requests.get(page, headers={"Authorization": f"Bearer {airflow.token}"}, timeout=ANSWER_SECONDS)
    assert shown.status_code == 200
    verdict = read_verdict("quarantine", runs[str(BAD)]["dag_run_id"])
    assert verdict is not None
    assert any(said.startswith("at most 5.00% of the input is rejected") for said in verdict.failed)

    # --- repaired, and only the failed day is run again ---
    land(landing, BAD, LANDED[BAD])
    assert len(airflow.backfill("behavior_daily", FIRST, LAST, at_once=3, reprocess="failed")) == 1
    again = wait(airflow, "behavior_daily")
    assert {run["state"] for run in again.values()} == {"success"}
    assert states(airflow, again[str(BAD)])["events.audit"][0] == "success"
    assert again[str(FIRST)] == runs[str(FIRST)]
    assert list(Table("events").rows_by("landed")) == [FIRST, BAD, LAST]

    # The last day's interests were made without the bad day, and their audit had warned: the plan knows, and its
    # command makes them again, and nothing else.
    assert verdicts("interests", LAST) == ["warned"]
    plan = plan_backfill(settings(), "late-data")
    assert [(entry.table, entry.day) for entry in plan.redo] == [("interests", LAST)]
    (step,) = steps(plan.runs, plan.costs)
    until(
        "the backfill to be closed",
        lambda: all(one["completed_at"] for one in airflow.backfills("behavior_daily")),
        every=3,
    )
    airflow.airflow(*shlex.split(step.commands[0])[1:])
    planned = wait(airflow, "behavior_daily")[str(LAST)]
    assert planned["state"] == "success"
    done = {task: state for task, (state, _) in states(airflow, planned).items()}
    assert {task for task, state in done.items() if state == "success"} == {
        *("interests.stage", "interests.audit", "interests.publish", "wait_for_earlier_days"),
    }
    others = tuple(group for group in GROUPS if group != "interests")
    assert {state for task, state in done.items() if task.startswith((*others, "wait_for_l"))} == {"skipped"}
    assert verdicts("interests", LAST) == ["passed", "warned"]
    assert plan_backfill(settings(), "late-data").redo == []

    # --- a day that the schedule runs has a deadline, the days of a backfill have none ---
    alerts = lake / "_alerts"
    assert "tables-late" not in alerted(alerts)
    subprocess.run([sys.executable, "-c", SCHEDULED], env=airflow.environment, check=True, capture_output=True)
    until("an alert that the tables are late", lambda: "tables-late" in alerted(alerts))
    assert f"behavior_daily 2025-04-01 {', '.join(GROUPS)}" in alerted(alerts)
    # The failed audit of the bad day, told once.
    assert alerted(alerts).count("#audit-failed") == 1

    # The assets say what readers got.
    told = airflow.api("GET", "assets/events", params={"order_by": "-timestamp"})["asset_events"]
    mine = [entry["extra"] for entry in told if entry["extra"]["docs"].endswith("/events.html")]
    assert mine[0]["version"] == Table("events").version
    assert mine[0]["verdict"] in ("passed", "warned")

    # --- the same days at once, in two chunks, into an empty lake ---
    by_day = {table: rows(table) for table in TABLES}
    shutil.move(lake, tmp_path / "lake_by_day")
    conf = {"from": str(FIRST), "to": str(LAST), "chunk_days": 2}
    airflow.api("POST", "dags/behavior_history/dagRuns", json={"logical_date": None, "conf": conf})
    assert [run["state"] for run in wait(airflow, "behavior_history").values()] == ["success"]
    assert {table: rows(table) for table in TABLES} == by_day
    assert len(by_day["events"]) == 10

    # --- upkeep, beside it all ---
    airflow.api("POST", "dags/upkeep_weekly/dagRuns", json={"logical_date": None})
    assert [run["state"] for run in wait(airflow, "upkeep_weekly").values()] == ["success"]
    (run,) = airflow.runs("upkeep_weekly")
    said = airflow.result("upkeep_weekly", run["dag_run_id"], "upkeep")
    summaries = {f"summaries: {kind}" for kind in ("on_time", "late", "last", "totals")}
    assert {part["what"] for part in said["parts"]} == {*TABLES, *summaries, "audits", "alerts", "data docs"}
    assert said["removed"] == 0, "everything is younger than the retention"
    assert {table: rows(table) for table in TABLES} == by_day

    # --- who else may see all this ---
    # The web server shows the logs of tasks without the servers that Airflow opens on all interfaces for them.
    log = f"dags/upkeep_weekly/dagRuns/{quote(run['dag_run_id'])}/taskInstances/upkeep/logs/1"
    assert "running" in json.dumps(airflow.api("GET", log)["content"])
    # The lake is not in the folder that is closed to others: its files are.
    assert [path for path in lake.rglob("*") if path.stat().st_mode & 0o077] == []


def test_nothing_of_all_that_runs_on_this_machine_listens_to_the_outside(airflow: LocalAirflow):
    # As long as the session's Airflow ran: its parts, Spark, and the tasks of the days above.
    for part in (
        "airflow scheduler",
        "SparkConnectServer",
        "dags.local.step_server",
        "jobs.ingest",
        "expectations.audit",
    ):
        assert any(part in command for command in airflow.commands), part
    assert {airflow.state["port"], airflow.state["spark_port"]} <= {port for _, port, _ in airflow.doors}
    assert {door for door in airflow.doors if not on_loopback(door[0])} == set()
