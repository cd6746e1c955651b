"""The local Airflow: its environment, its start, its end, and what people see of a demo."""

import json
import sqlite3
import stat
import sys
import time
from contextlib import closing
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from werkzeug.security import generate_password_hash

from dags.local import commands as local_module
from dags.local import standalone
from dags.local.commands import choice, follow, main, show
from dags.local.standalone import LocalAirflow, LocalError, write_private

PARTS = """
import sys, time
from dags.local.parts import run_parts

def run(arguments):
    if arguments == ["scheduler"]:
        sys.exit(print("cannot import name") or 3)
    time.sleep(600)

run_parts([["api-server"], ["scheduler"]], run)
"""


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


def test_who_reads_while_it_is_written_never_gets_a_part(tmp_path):
    # As a status asked for beside a start: one that came between emptying and writing found no JSON.
    file = tmp_path / "local.json"
    write_private(file, {"n": 0, "filler": "x" * 100_000})
    with file.open() as earlier:
        write_private(file, {"n": 1})
        assert json.load(earlier)["n"] == 0, "who had opened the file reads the old content to its end"
    assert json.loads(file.read_text()) == {"n": 1}
    assert list(tmp_path.iterdir()) == [file]


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


def test_a_part_of_airflow_that_ends_while_the_others_start_is_told_of_at_once(local, monkeypatch):
    monkeypatch.setattr(standalone, "HANGS_SECONDS", 60)  # long before that
    (local.home / "airflow.ended").write_text("triggerer ended with 0\n")  # of an earlier start
    local.spawn("airflow", [sys.executable, "-c", PARTS])
    said = r"airflow is not complete: scheduler ended with 3; the end of .*airflow\.log:\ncannot import name"
    with pytest.raises(LocalError, match=said):
        local.wait("airflow", lambda: time.sleep(0.2))
    assert local.running
    local.stop()
    assert not local.running


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        (None, "password in {home}/password.json"),
        ("p", "password in {home}/password.json"),
        (
            "changed in the page",
            "password as it was changed in MLflow; without {home}/basic_auth.db, users are made anew",
        ),
    ],
)
def test_mlflow_keeps_its_users_and_the_passwords_that_they_have_changed(local, monkeypatch, capsys, stored, said):
    users = local.home / "basic_auth.db"
    if stored:
        with closing(sqlite3.connect(users)) as database:
            database.execute("create table users (id integer, username text, password_hash text)")
            rows = [(1, "admin", stored), (2, "vera", "hers")]
            hashed = [(number, name, generate_password_hash(secret)) for number, name, secret in rows]
            database.executemany("insert into users values (?, ?, ?)", hashed)
            database.commit()
    before = users.read_bytes() if stored else None
    started = []
    monkeypatch.setattr(local_module.subprocess, "run", lambda command, **_: started.append(command))
    # The command sets it for its process where it is not set.
    monkeypatch.setenv("MEANDER_LAKE", str(local.home / "lake"))
    local_module.mlflow(local)
    assert len(started) == 1
    assert (users.read_bytes() if stored else None) == before
    assert said.format(home=local.home) in capsys.readouterr().out


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
    monkeypatch.setattr(local_module, "LOOK_SECONDS", 0.1)
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


@dataclass
class LockedTwice(OneRun):
    """An Airflow whose database is locked as a backfill is made, and again as what is left of it is cancelled."""

    answers: list[dict[str, Any]] = field(default_factory=lambda: [LOCKED, RUNNING_ALREADY, {"id": 8}])
    expected: set[tuple[int, ...]] = field(default_factory=set)

    def api(self, method: str, path: str, expect: tuple[int, ...] = (200, 201), **_: Any) -> dict[str, Any]:  # noqa: ARG002  as the one that asks
        if method == "POST":
            self.expected.add(expect)
            return self.answers.pop(0)
        # No backfill is open before the first try, and the one that is left after it cannot be cancelled.
        left = [{"id": 7, "completed_at": None}] if len(self.answers) in (1, 2) else []
        return {"dags": [{"dag_id": "behavior_daily"}], "backfills": left} if method == "GET" else LOCKED

    def runs(self, dag_id: str) -> list[dict[str, Any]]:
        state = "success" if self.answers else "queued"
        return [{"dag_id": dag_id, "dag_run_id": "r", "state": state, "data_interval_start": "2025-03-02T00:00:00Z"}]


LOCKED = {"detail": "Database is locked."}
RUNNING_ALREADY = {"detail": "There is already a running backfill for dag behavior_daily"}


def test_a_backfill_is_asked_for_again_while_what_a_lock_has_left_of_it_is_still_there(tmp_path, monkeypatch):
    monkeypatch.setattr(standalone, "UNHEALTHY_SECONDS", 0)
    airflow = LockedTwice(tmp_path, {})
    day = date(2025, 3, 2)
    assert airflow.backfill("behavior_daily", day, day, at_once=1, reprocess="failed") == {"r"}
    assert airflow.expected == {(200, 409, 503)}, "neither answer ends the command"

    always = LockedTwice(tmp_path, {}, answers=[LOCKED] + [RUNNING_ALREADY] * standalone.LOCKED_TRIES)
    with pytest.raises(LocalError, match="stayed locked, so the backfill of behavior_daily was not made"):
        always.backfill("behavior_daily", day, day, at_once=1, reprocess="failed")


def test_what_was_remembered_of_a_start_is_kept_by_the_next_one(local):
    local.remember(port=7)
    again = LocalAirflow(local.home, {})
    assert (again.state["port"], again.state["password"]) == (7, "p")
    assert again.url == "http://127.0.0.1:7"


def test_nothing_is_started_with_a_variable_that_is_no_setting(tmp_path, monkeypatch):
    monkeypatch.setenv("MEANDER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MEANDER_LANDNIG", "/x")
    with pytest.raises(SystemExit, match=r"MEANDER_LANDNIG is set, .* did you mean MEANDER_LANDING\?"):
        main(["up"])
    assert not (tmp_path / "home").exists()


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
