"""The processes of the local Airflow: found again, ended as a whole, and never mistaken for somebody else's."""

import os
import stat
import subprocess
import sys
import time

import pytest

from dags.local import choice, main, show
from dags.standalone import LocalAirflow, LocalError, alive, began, end_group, write_private


@pytest.fixture
def local(tmp_path, monkeypatch):
    for name in ("MEANDER_LAKE", "MEANDER_LANDING", "MEANDER_SOURCE"):
        monkeypatch.delenv(name, raising=False)
    airflow = LocalAirflow(tmp_path, {})
    airflow.remember(port=1, spark_port=2, worker_log_port=3, trigger_log_port=4, password="p", settings={})
    return airflow


@pytest.fixture
def group():
    """A process with a child, in a process group of their own."""
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'])"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, start_new_session=True)
    yield process.pid
    process.kill()
    process.stdin.close()
    process.wait()


def test_a_group_is_ended_with_its_children(group):
    born = began(group)
    assert alive(group, born)
    end_group(group, born)
    assert not alive(group, born)
    with pytest.raises(ProcessLookupError):
        os.killpg(group, 0)


def test_a_group_whose_number_now_belongs_to_another_is_left_alone(group):
    end_group(group, "an earlier time")
    assert alive(group, began(group))


def test_only_the_owner_reads_the_password(tmp_path):
    write_private(tmp_path / "new" / "password.json", {"admin": "p"})
    assert stat.S_IMODE((tmp_path / "new" / "password.json").stat().st_mode) == 0o600


def test_the_environment_wins_over_what_was_remembered_and_settings_win_over_both(local, monkeypatch):
    assert local.environment["MEANDER_LAKE"] == str(local.home / "lake")
    local.remember(settings={"MEANDER_SOURCE": "completejourney", "MEANDER_LAKE": "/remembered"})
    monkeypatch.setenv("MEANDER_LAKE", "/of/the/shell")
    again = LocalAirflow(local.home, {})
    assert again.environment["MEANDER_SOURCE"] == "completejourney"
    assert again.environment["MEANDER_LAKE"] == "/of/the/shell"
    assert LocalAirflow(local.home, {"MEANDER_LAKE": "/given"}).environment["MEANDER_LAKE"] == "/given"


def test_a_process_that_ends_while_starting_shows_its_log(local):
    local.spawn("airflow", [sys.executable, "-c", "print('no such option'); raise SystemExit(2)"])
    with pytest.raises(LocalError, match=r"airflow ended while starting[\s\S]*no such option"):
        local.wait("airflow", lambda: time.sleep(0.2), 10)
    local.stop()
    assert not local.running


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
