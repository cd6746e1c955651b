"""The local Airflow: its environment, its start, its end, and what people see of a demo."""

import stat
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dags.local import commands as local_module
from dags.local import standalone
from dags.local.commands import choice, follow, main, show
from dags.local.standalone import LocalAirflow, LocalError, write_private


@pytest.fixture
def local(tmp_path, monkeypatch):
    for name in ("MEANDER_LAKE", "MEANDER_LANDING", "MEANDER_SOURCE"):
        monkeypatch.delenv(name, raising=False)
    airflow = LocalAirflow(tmp_path, {})
    airflow.remember(port=1, spark_port=2, spark_token="t", password="p", settings={})
    return airflow


def test_only_the_owner_reads_the_password(tmp_path):
    write_private(tmp_path / "new" / "password.json", {"admin": "p"})
    assert stat.S_IMODE((tmp_path / "new" / "password.json").stat().st_mode) == 0o600
    old = tmp_path / "old.json"
    old.touch(mode=0o644)
    write_private(old, {"admin": "p"})
    assert stat.S_IMODE(old.stat().st_mode) == 0o600


def test_the_environment_wins_over_what_was_remembered_and_settings_win_over_both(local, monkeypatch):
    assert local.environment["MEANDER_LAKE"] == str(local.home / "lake")
    local.remember(settings={"MEANDER_SOURCE": "completejourney", "MEANDER_LAKE": "/remembered"})
    monkeypatch.setenv("MEANDER_LAKE", "/of/the/shell")
    again = LocalAirflow(local.home, {})
    assert again.environment["MEANDER_SOURCE"] == "completejourney"
    assert again.environment["MEANDER_LAKE"] == "/of/the/shell"
    assert LocalAirflow(local.home, {"MEANDER_LAKE": "/given"}).environment["MEANDER_LAKE"] == "/given"


def test_airflow_finds_the_dags_where_they_are(local):
    folder = Path(local.environment["AIRFLOW__CORE__DAGS_FOLDER"])
    assert (folder / "behavior_daily.py").is_file()
    assert (folder / ".airflowignore").is_file()


def test_a_process_that_ends_while_starting_shows_its_log(local, monkeypatch):
    monkeypatch.setattr(standalone, "HANGS_SECONDS", 60)  # long before that
    local.spawn("airflow", [sys.executable, "-c", "print('no such option'); raise SystemExit(2)"])
    with pytest.raises(LocalError, match=r"airflow ended while starting[\s\S]*no such option"):
        local.wait("airflow", lambda: time.sleep(0.2))
    local.stop()
    assert not local.running


def test_a_start_that_takes_long_says_so_until_it_is_taken_for_one_that_hangs(local, monkeypatch):
    monkeypatch.setattr(standalone, "TELL_SECONDS", 0.2)
    monkeypatch.setattr(standalone, "HANGS_SECONDS", 2)
    told = []
    local.tell = told.append
    local.spawn("airflow", [sys.executable, "-c", "print('I wait', flush=True); import time; time.sleep(600)"])
    with pytest.raises(LocalError, match=r"airflow was not ready after 2 s; the end of .*airflow\.log:\nI wait"):
        local.wait("airflow", lambda: False)
    assert len(told) > 1
    assert told[0].endswith(f"airflow is still starting; it writes {local.home / 'airflow.log'}")
    # What comes in time is not told of as slow, and what runs is not ended by the wait.
    told.clear()
    local.wait("airflow", lambda: True)
    assert told == []
    assert local.running
    local.stop()
    assert not local.running


@dataclass
class OneRun(LocalAirflow):
    """What an Airflow would tell of one run in this state."""

    state_of_run: str = "running"
    scheduler_lives: bool = True
    looks: int = 0

    def healthy(self) -> bool:
        self.looks += 1
        assert self.looks < 60, "whoever looks for so long never stops"
        return self.scheduler_lives

    def runs(self, dag_id: str) -> list[dict[str, Any]]:
        return [{"dag_id": dag_id, "dag_run_id": "r", "state": self.state_of_run}]

    def tasks(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:  # noqa: ARG002  as the one that asks
        return []


def test_a_run_that_fails_and_a_scheduler_that_is_gone_end_the_demo(tmp_path, monkeypatch):
    follow(OneRun(tmp_path, {}, state_of_run="success"), {"behavior_daily": {"r"}})
    with pytest.raises(LocalError, match=r"behavior_daily r failed"):
        follow(OneRun(tmp_path, {}, state_of_run="failed"), {"behavior_daily": {"r"}})
    monkeypatch.setattr(local_module, "HANGS_SECONDS", 1)
    with pytest.raises(LocalError, match=r"Airflow's scheduler has stopped; .*airflow\.log says why"):
        follow(OneRun(tmp_path, {}, scheduler_lives=False), {"behavior_daily": {"r"}})


@dataclass
class AfterALock(OneRun):
    """An Airflow whose database was locked while a backfill was made; keeps what it is asked to change."""

    asked: list[tuple[str, str]] = field(default_factory=list)

    def api(self, method: str, path: str, **_: Any) -> dict[str, Any]:
        if method != "GET":
            self.asked.append((method, path))
        open_one, closed = {"id": 7, "completed_at": None}, {"id": 6, "completed_at": "2025-03-03T00:00:00Z"}
        return {"dags": [{"dag_id": "behavior_daily"}], "backfills": [open_one, closed]}


def test_a_backfill_without_runs_that_a_lock_has_left_is_cancelled_and_one_at_work_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(standalone, "UNHEALTHY_SECONDS", 0)
    left = AfterALock(tmp_path, {}, state_of_run="success")
    left.wait_out_lock()
    assert left.asked == [("PUT", "backfills/7/cancel")]
    for state in ("queued", "running"):
        at_work = AfterALock(tmp_path, {}, state_of_run=state)
        at_work.wait_out_lock()
        assert at_work.asked == []


def test_what_was_remembered_of_a_start_is_kept_by_the_next_one(local):
    local.remember(port=7)
    again = LocalAirflow(local.home, {})
    assert (again.state["port"], again.state["password"]) == (7, "p")
    assert again.url == "http://127.0.0.1:7"


def test_down_and_status_when_nothing_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MEANDER_HOME", str(tmp_path))
    main(["down"])
    assert capsys.readouterr().out == "Nothing was running.\n"
    with pytest.raises(SystemExit, match="make up"):
        main(["status"])


@pytest.mark.parametrize(
    ("task", "line"),
    [
        ({"task_id": "events.publish", "rendered_map_index": "2017-07-02"}, "2017-07-02   events      published"),
        ({"task_id": "predictions.publish"}, "2017-12-23   predictions published"),
        ({"task_id": "pretrain"}, "2017-12-23   pretrain    has trained"),
        ({"task_id": "promote", "state": "skipped"}, "2017-12-23   promote     skipped: the gate has refused"),
        ({"task_id": "examples.audit", "state": "failed"}, "2017-12-23   examples    audit failed"),
        ({"task_id": "evaluate", "state": "failed"}, "2017-12-23   evaluate    failed"),
        ({"task_id": "examples.stage"}, None),
        ({"task_id": "wait_for_events"}, None),
    ],
)
def test_what_people_wait_for_is_one_line_with_the_last_day_of_its_interval(capsys, task, line):
    run = {"data_interval_start": "2017-12-17T00:00:00Z", "data_interval_end": "2017-12-24T00:00:00Z"}
    show(run, {"state": "success", "rendered_map_index": None, **task}, 7.2)
    assert capsys.readouterr().out == (f"        7 s  {line}\n" if line else "")


def test_without_a_champion_the_demo_predicts_with_the_candidate_and_says_so(capsys):
    assert choice({"champion": 2, "version": 3}) == {"model_version": None}
    assert choice({"champion": None, "version": 3}) == {"model_version": 3}
    assert "there is no champion yet" in capsys.readouterr().out
