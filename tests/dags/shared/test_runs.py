"""Modules as processes under Airflow: what they get, what their end means, and that nothing of them is left."""

import json
import os
import signal
import sys
import threading
import time

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from dags.shared.publish import Publish
from dags.shared.runs import ModelJob, SparkJob
from lake import audits
from tests.dags.step_server import StepServer
from tests.planted import PSEUDONYMS, REGISTRY, SECRETS, SPARK, STORE, planted

RUN = "model_weekly--scheduled__2025-03-09T00:00:00+00:00"


@pytest.fixture(scope="module")
def step_server(tmp_path_factory):
    server = StepServer(tmp_path_factory.mktemp("steps"))
    yield server
    server.stop()


@pytest.fixture(params=["a training", "a client of Spark Connect", "a fork"])
def kind(request, monkeypatch):
    """Kinds of tasks whose module runs in a process that is no JVM."""
    monkeypatch.setenv("MEANDER_SPARK_MASTER", "sc://127.0.0.1:1")
    if request.param == "a fork":
        monkeypatch.setenv("MEANDER_STEP_SERVER", str(request.getfixturevalue("step_server").socket))
    return ModelJob if request.param == "a training" else SparkJob


def test_a_training_gets_what_it_needs_and_nothing_of_airflows(job, monkeypatch):
    for name, value in {**SECRETS, "MEANDER_LAKE": "/lake", "CUDA_VISIBLE_DEVICES": "1", "TF_CONFIG": "{}"}.items():
        monkeypatch.setenv(name, value)
    found = job("import json, os; print(json.dumps(dict(os.environ)))").execute({})
    assert (found["MEANDER_LAKE"], found["CUDA_VISIBLE_DEVICES"]) == ("/lake", "1")
    assert planted(found) == STORE | SPARK | REGISTRY
    assert [name for name in found if "AIRFLOW" in name or name == "TF_CONFIG"] == []


def test_spark_submit_gets_what_its_module_needs_and_nothing_of_airflows(job, monkeypatch, tmp_path):
    submit = tmp_path / "bin" / "spark-submit"
    submit.parent.mkdir()
    submit.write_text(f"#!/bin/sh\nenv -0 >{tmp_path}/environment\n")
    submit.chmod(0o755)
    monkeypatch.setenv("PATH", str(submit.parent), prepend=os.pathsep)
    for name, value in {**SECRETS, "MEANDER_LAKE": "/lake", "AIRFLOW_CONN_SPARK_DEFAULT": "spark://local"}.items():
        monkeypatch.setenv(name, value)
    task = job("", SparkJob)
    task.module = "jobs.ingest"
    task.execute({})
    task._hook._submit_sp.stdout.close()  # which the provider leaves open
    found = dict(line.split("=", 1) for line in (tmp_path / "environment").read_text().split("\0") if line)
    assert found["MEANDER_LAKE"] == "/lake"
    assert planted(found) == STORE | SPARK | PSEUDONYMS
    assert [name for name in found if "AIRFLOW" in name] == []


def test_the_command_names_the_run_and_leaves_out_flags_that_say_nothing(job, capsys, kind):
    job("import sys; print(sys.argv[1:])", kind, arguments=["--preset", "tiny", ""]).execute({})
    assert str(["--preset", "tiny", "--run-id", RUN]) in capsys.readouterr().out


def test_folders_of_a_lake_where_a_task_runs_hide_no_module(job, tmp_path, capsys, monkeypatch):
    (tmp_path / "home" / "lake" / "audits").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "home")
    job("import lake.audits; print('found', lake.audits.__file__)").execute({})
    assert f"found {audits.__file__}" in capsys.readouterr().out


def test_a_client_of_spark_connect_starts_no_jvm(job, capsys, monkeypatch):
    monkeypatch.setenv("MEANDER_SPARK_MASTER", "sc://127.0.0.1:1")
    monkeypatch.setenv("PATH", "/nowhere")  # neither spark-submit nor java
    job("import sys; print('begun by', sys.orig_argv[0])", SparkJob).execute({})
    assert f"begun by {sys.executable}" in capsys.readouterr().out


@pytest.mark.parametrize("there", [True, False])
def test_a_client_of_spark_connect_is_a_fork_of_the_step_server_or_starts_by_itself(
    job, step_server, capsys, monkeypatch, tmp_path, there
):
    monkeypatch.setenv("MEANDER_SPARK_MASTER", "sc://127.0.0.1:1")
    monkeypatch.setenv("MEANDER_STEP_SERVER", str(step_server.socket if there else tmp_path / "none.sock"))
    job("import sys; print('numpy is there:', 'numpy' in sys.modules)", SparkJob).execute({})
    said = capsys.readouterr().out
    assert f"numpy is there: {there}" in said
    assert ("starts by itself" in said) is not there


def test_a_fork_gets_what_its_module_needs_and_nothing_of_airflows(job, step_server, monkeypatch, tmp_path):
    for name, value in {**SECRETS, "MEANDER_LAKE": "/lake", "AIRFLOW_CONN_SPARK_DEFAULT": "spark://local"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MEANDER_SPARK_MASTER", "sc://127.0.0.1:1")
    monkeypatch.setenv("MEANDER_STEP_SERVER", str(step_server.socket))
    file = tmp_path / "environment"
    job(f"import json, os; json.dump(dict(os.environ), open({str(file)!r}, 'w'))", SparkJob).execute({})
    found = json.loads(file.read_text())
    assert found["MEANDER_LAKE"] == "/lake"
    assert planted(found) == STORE | SPARK | REGISTRY
    assert [name for name in found if "AIRFLOW" in name] == []


def test_spark_submit_gets_the_memory_that_the_settings_give_the_driver(job, monkeypatch):
    monkeypatch.setenv("MEANDER_DRIVER_MEMORY", "3g")
    task = job("", SparkJob)
    command = task._get_hook()._build_spark_submit_command(task.application)
    assert command[command.index("--driver-memory") + 1] == "3g"


def test_the_last_json_line_is_the_result_and_every_line_is_in_the_log(job, capsys):
    task = job("print('epoch 1'); print('{\"loss\": 2.5}'); print('bye')")
    assert task.execute({}) == {"loss": 2.5}
    log = capsys.readouterr().out
    assert [line for line in ("epoch 1", "bye") if line not in log] == []


def test_no_module_is_started_with_a_variable_that_is_no_setting(job, monkeypatch, kind, tmp_path):
    """The process would not get it, so nobody else would notice."""
    monkeypatch.setenv("MEANDER_LANDNIG", "/x")
    with pytest.raises(
        AirflowFailException, match=r"did you mean MEANDER_LANDING\? \[docs/runbook.md#settings-invalid\]"
    ):
        job(f"open({str(tmp_path / 'started')!r}, 'w')", kind).execute({})
    assert not (tmp_path / "started").exists()


def test_nothing_is_published_with_a_variable_that_is_no_setting(lake, monkeypatch):
    monkeypatch.setenv("MEANDER_LAEK", "/x")
    with pytest.raises(AirflowFailException, match=r"MEANDER_LAEK is set, .* did you mean MEANDER_LAKE\?"):
        Publish(task_id="publish", tables=("events",), run="r").execute({})


def test_nothing_is_submitted_with_a_variable_that_is_no_setting(job, monkeypatch):
    monkeypatch.setenv("MEANDER_LANDNIG", "/x")
    with pytest.raises(AirflowFailException, match="MEANDER_LANDNIG is set"):
        job("", SparkJob).execute({})


def test_an_error_with_a_section_in_the_runbook_is_not_tried_again(job, kind):
    code = """
from lake.errors import SettingsInvalid, run_main
def main(): raise SettingsInvalid("--preset must be tiny, base or large")
run_main(main)
"""
    with pytest.raises(AirflowFailException, match=r"--preset must be .*\[docs/runbook.md#settings-invalid\]"):
        job(code, kind).execute({})


def test_any_other_error_is_tried_again_and_says_its_class_without_what_it_may_quote_of_a_row(job):
    for code, said in (
        ("raise RuntimeError('ann, 4 Main Street')", "RuntimeError; its message is in the log of the task"),
        ("import sys; print('ann, 4 Main Street'); sys.exit(1)", "what it said is in the log of the task"),
        ("import sys; sys.exit(1)", "it said nothing"),
    ):
        with pytest.raises(AirflowException) as raised:
            job(code).execute({})
        assert str(raised.value).endswith(f"of_a_test ended with exit code 1: {said}")
        assert not isinstance(raised.value, AirflowFailException)


def test_who_is_killed_is_tried_again_whatever_was_said_before(job):
    code = "import os; print('seen: [docs/runbook.md#settings-invalid]', flush=True); os.kill(os.getpid(), 9)"
    with pytest.raises(AirflowException, match="was killed by SIGKILL") as said:
        job(code).execute({})
    assert not isinstance(said.value, AirflowFailException)


def test_a_killed_task_ends_its_process_and_the_workers_of_that(job, tmp_path, kind):
    code = f"""
import os, pathlib, subprocess, sys, time
worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(900)"])
pathlib.Path({str(tmp_path / "being written")!r}).write_text(str(os.getpgid(worker.pid)))
os.rename({str(tmp_path / "being written")!r}, {str(tmp_path / "group")!r})
time.sleep(900)
"""
    task = job(code, kind)

    def kill():
        while task.leader is None or not (tmp_path / "group").exists():
            time.sleep(0.05)
        task.on_kill()

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(AirflowException, match="was killed by SIGTERM"):
        task.execute({})
    killer.join()
    group = int((tmp_path / "group").read_text())
    with pytest.raises(ProcessLookupError):
        os.killpg(group, signal.SIGCONT)
