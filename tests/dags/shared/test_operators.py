"""Modules as processes under Airflow: what they get, what their end means; how the gate's word is shown."""

import json
import os
import re
import signal
import sys
import threading
import time
from datetime import UTC, date, datetime, timedelta
from types import SimpleNamespace

import pytest
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
)

import model.versions.registry
from dags.shared.evaluation import Evaluation
from dags.shared.operators import (
    CHAMPION,
    EvaluationReport,
    MlflowRuns,
    ModelJob,
    Promote,
    SparkJob,
    WaitForLanding,
    WaitForPublished,
    fail_for_good,
)
from lake import audits, errors, storage
from lake.errors import (
    AuditFailed,
    CommitContended,
    InputInvalid,
    MeanderError,
    PublishRefused,
    ServingBusy,
    ServingUnavailable,
    WorkerFailed,
)
from lake.publish import publish
from tests.lake.stagings import stage_files

RUN = "model_weekly--scheduled__2025-03-09T00:00:00+00:00"


KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, MeanderError)]


@pytest.fixture
def job(tmp_path, monkeypatch):
    """Make a task that runs a module with the code given."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)

    def make(code, kind=ModelJob, **more):
        (tmp_path / "told.py").write_text(code)
        if kind is not Promote:
            more = {"module": "model.pretrain", "arguments": [], **more}
        task = kind(task_id="task", run=RUN, **more)
        task.module = "told"
        return task

    return make


# --- the process ----------------------------------------------------------------------------------------


def test_a_training_gets_our_settings_and_nothing_of_airflows(job, monkeypatch):
    monkeypatch.setenv("MEANDER_LAKE", "/lake")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    for noise in ("AIRFLOW__CORE__FERNET_KEY", "AIRFLOW_CONN_DB", "_AIRFLOW_X", "__AIRFLOW_SUPERVISOR_FD", "TF_CONFIG"):
        monkeypatch.setenv(noise, "noise")
    found = job("import json, os; print(json.dumps(dict(os.environ)))").execute({})
    assert (found["MEANDER_LAKE"], found["CUDA_VISIBLE_DEVICES"]) == ("/lake", "1")
    assert [name for name, value in found.items() if "AIRFLOW" in name or value == "noise"] == []


@pytest.mark.parametrize("kind", [ModelJob, SparkJob])
def test_the_command_names_the_run_and_leaves_out_flags_that_say_nothing(job, capsys, monkeypatch, kind):
    monkeypatch.setenv("MEANDER_SPARK_MASTER", "sc://127.0.0.1:1")
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


def test_the_last_json_line_is_the_result_and_every_line_is_in_the_log(job, capsys):
    task = job("print('epoch 1'); print('{\"loss\": 2.5}'); print('bye')")
    assert task.execute({}) == {"loss": 2.5}
    log = capsys.readouterr().out
    assert [line for line in ("epoch 1", "bye") if line not in log] == []


@pytest.mark.parametrize("kind", [ModelJob, SparkJob])
def test_an_error_with_a_section_in_the_runbook_is_not_tried_again(job, monkeypatch, kind):
    monkeypatch.setenv("MEANDER_SPARK_MASTER", "sc://127.0.0.1:1")
    code = """
from lake.errors import SettingsInvalid, run_main
def main(): raise SettingsInvalid("--preset must be tiny, base or large")
run_main(main)
"""
    with pytest.raises(AirflowFailException, match=r"--preset must be .*\[docs/runbook.md#settings-invalid\]"):
        job(code, kind).execute({})


def test_any_other_error_is_tried_again_and_says_what_came_last(job):
    with pytest.raises(
        AirflowException, match="told ended with exit code 1; it said last: RuntimeError: no luck"
    ) as said:
        job("raise RuntimeError('no luck')").execute({})
    assert not isinstance(said.value, AirflowFailException)


def test_who_is_killed_is_tried_again_whatever_was_said_before(job):
    code = "import os; print('seen: [docs/runbook.md#settings-invalid]', flush=True); os.kill(os.getpid(), 9)"
    with pytest.raises(AirflowException, match="was ended by SIGKILL") as said:
        job(code).execute({})
    assert not isinstance(said.value, AirflowFailException)


@pytest.mark.parametrize("kind", [ModelJob, SparkJob])
def test_a_killed_task_ends_its_process_and_the_workers_of_that(job, monkeypatch, tmp_path, kind):
    monkeypatch.setenv("MEANDER_SPARK_MASTER", "sc://127.0.0.1:1")
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
    with pytest.raises(AirflowException, match="was ended by SIGTERM"):
        task.execute({})
    killer.join()
    group = int((tmp_path / "group").read_text())
    with pytest.raises(ProcessLookupError):
        os.killpg(group, signal.SIGCONT)


# Others were at work, or a machine, the database or a worker was lost: the next try may well succeed.
MAY_PASS = {CommitContended, WorkerFailed, ServingBusy, ServingUnavailable}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_what_may_pass_is_tried_again_and_what_needs_a_person_is_not(kind):
    said = AirflowException(f"Cannot execute.\n12:00 INFO hello\n12:01 ERROR meander: {kind('why')}\nbye")
    if kind in MAY_PASS:
        fail_for_good(kind("why"))
        fail_for_good(said)
        return
    for error in (kind("why"), said):
        with pytest.raises(AirflowFailException, match=rf"why \[docs/runbook.md#{kind.code}\]$"):
            fail_for_good(error)


def test_the_cause_decides_whether_there_is_another_try_and_the_last_one_named_is_told():
    # A worker that ended because of what needs a person: another try ends as this one.
    lost = WorkerFailed(f"worker 1 ended with exit code 1; its last lines:\n    {InputInvalid('no column')}\n")
    with pytest.raises(AirflowFailException, match=r"^no column \[docs/runbook.md#input-invalid\]$"):
        fail_for_good(lost)
    with pytest.raises(AirflowFailException, match="publish-refused"):
        fail_for_good(AirflowException(f"{AuditFailed('first')}\nand so\n{PublishRefused('then')}"))
    fail_for_good(AirflowException("Error code is: 137"))


# --- the gate -------------------------------------------------------------------------------------------


class Told:
    """A task instance that keeps what is pushed to it."""

    run_id = RUN

    def __init__(self):
        self.pushed = {}

    def xcom_push(self, key, value):
        self.pushed[key] = value


def promote(job, **decision):
    decision = {"version": 3, "champion": 2, "reasons": ["better on A", "worse on B"], **decision}
    context = {"ti": Told(), "outlet_events": {CHAMPION: SimpleNamespace(extra={})}}
    return job(f"print({json.dumps(decision)!r})", Promote), context, decision


def test_a_refused_candidate_makes_the_task_skipped_with_every_reason_and_is_told(job, lake):
    task, context, decision = promote(job, promoted=False)
    with pytest.raises(
        AirflowSkipException, match="refused version 3, champion stays version 2: better on A; worse on B"
    ):
        task.execute(context)
    assert context["ti"].pushed == {"return_value": decision}
    (told,) = (storage.read_json(str(file))["text"] for file in (lake / "lake" / "_alerts").glob("*.json"))
    assert "For information" in told
    assert "the gate has refused version 3: better on A; worse on B" in told
    assert "Predictions go on with the champion." in told


@pytest.mark.usefixtures("lake")
def test_a_refused_first_candidate_leaves_no_champion(job):
    task, context, _ = promote(job, promoted=False, champion=None)
    with pytest.raises(AirflowSkipException, match="refused version 3, there is no champion"):
        task.execute(context)


def test_a_promotion_is_told_to_the_asset(job):
    task, context, decision = promote(job, promoted=True, champion=3)
    assert task.execute(context) == decision
    assert context["outlet_events"][CHAMPION].extra == {"run_id": RUN, **decision}
    assert task.outlets == [CHAMPION]


def test_a_promotion_without_a_word_is_a_failure(job):
    with pytest.raises(AirflowException, match="did not print its decision"):
        job("print('hello')", Promote).execute({})


# --- the buttons ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("lake")
def test_the_buttons_lead_to_the_report_and_the_runs_of_this_run_once_there_are_any(monkeypatch):
    task = SimpleNamespace(run=RUN)
    assert EvaluationReport().get_link(task, ti_key=None) == ""
    assert MlflowRuns().get_link(task, ti_key=None) == ""

    evaluation = Evaluation.of(RUN)
    storage.write_json(evaluation.report, {})
    storage.write_json(storage.join(evaluation.folder, "decision.json"), {"promote": False})
    assert evaluation.slug.startswith("model_weekly--scheduled__2025-03-09T00-00-00-00-00-")
    address = f"/meander/models/{evaluation.slug}/evaluation/report.html"
    assert EvaluationReport().get_link(task, ti_key=None) == address

    monkeypatch.setattr(model.versions.registry, "experiment_id", lambda: "7")
    only_ours = "tags.%60meander.run_id%60%20%3D%20%27model_weekly--scheduled__2025-03-09T00%3A00%3A00%2B00%3A00%27"
    for uri, server in (
        ("", "http://127.0.0.1:5000"),
        ("https://mlflow.shop.example/", "https://mlflow.shop.example"),
        ("https://writer:secret@mlflow.shop.example", "https://mlflow.shop.example"),
    ):
        monkeypatch.setenv("MEANDER_MLFLOW_URI", uri)
        address = f"{server}/#/experiments/7/runs?searchFilter={only_ours}"
        assert MlflowRuns().get_link(task, ti_key=None) == address


# --- the wait -------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("lake")
def test_published_means_that_a_run_has_published_that_day_even_if_it_is_empty():
    def waits_for(day):
        return not WaitForPublished(task_id="wait", table="interests", day=day).poke({})

    assert waits_for("2025-03-09"), "the table is not there yet"
    stage_files("interests", "run", [], owns=[date(2025, 3, 9)], basis=1)
    assert waits_for("2025-03-09"), "staged is not published"
    publish("interests", "run")
    assert not waits_for("2025-03-09")
    assert waits_for("2025-03-10")


@pytest.mark.parametrize(
    ("sensor", "said"),
    [
        (
            WaitForPublished(task_id="w", table="interests", day="2025-03-09", timeout=timedelta(days=2)),
            "waited for 48 hours: interests of 2025-03-09 are not published [docs/runbook.md#tables-late]",
        ),
        (
            WaitForLanding(task_id="w", day="2025-03-09", wanted="True", timeout=timedelta(days=2)),
            "waited for 48 hours: 2025-03-09 has not landed, or not wholly [docs/runbook.md#landing-missing]",
        ),
    ],
    ids=["published", "landed"],
)
def test_a_wait_that_gives_up_says_what_did_not_come_and_where_to_read_on(lake, sensor, said):
    ti = SimpleNamespace(get_first_reschedule_date=lambda _: datetime.now(UTC) - timedelta(days=2, seconds=1))
    with pytest.raises(AirflowSensorTimeout, match=re.escape(said)):
        sensor.execute({"ti": ti})
