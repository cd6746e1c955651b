"""The parts of Airflow are forks of one process, which has imported what they and their tasks need."""

import configparser
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dags.local.step_server import OURS

DAGS = Path(__file__).parents[3] / "dags"
# What a DAG file and a task import that are not there already.
IMPORTS = f"""
import json, sys, threading
from importlib import import_module
from dags.local.parts import prepare

prepare()
threads, there = threading.active_count(), set(sys.modules)
ours = [name for name in there if name.partition(".")[0] in {OURS}]
for name in sys.argv[1:]:
    import_module(name)
more = [name for name in sys.modules if name not in there and name.partition(".")[0] not in {OURS}]
from airflow.configuration import conf
from airflow._shared.secrets_masker import redact
key = conf.get("api_auth", "jwt_secret")
print(json.dumps([threads, sorted(ours), sorted(more), key, redact(f"told: {{key}}")]))
"""
# Ends as the first argument of a part says.
PARTS = """
import json, os, signal, sys, time
from dags.local.parts import run_parts

def run(arguments):
    print(*arguments, flush=True)
    if arguments[1:] == ["is killed"]:
        os.kill(os.getpid(), signal.SIGKILL)
    if arguments[1:] == ["is broken"]:
        raise ValueError(arguments[0])
    sys.exit(*(int(said) if said.isdigit() else said for said in arguments[1:]))

run_parts(json.loads(sys.argv[1]), run)
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("airflow")


@pytest.fixture(scope="module")
def prepared(home: Path) -> tuple[int, list[str], list[str], str, str]:
    """Return the threads and our modules that are there at a fork, libraries that are not, a key, and it in a log."""
    dags = [f"dags.{file.stem}" for file in DAGS.glob("*.py") if file.stem not in ("__init__", "plugin")]
    variables = {**os.environ, "AIRFLOW_HOME": str(home), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    command = [sys.executable, "-c", IMPORTS, *dags, "lake.landing", "lake.publish"]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return tuple(json.loads(done.stdout.splitlines()[-1]))


def test_no_thread_of_python_holds_a_lock_that_would_stay_closed_in_a_fork(prepared):
    assert prepared[0] == 1


def test_our_code_is_read_anew_by_each_task(prepared):
    assert prepared[1] == ["dags", "dags.local", "dags.local.parts"]


def test_a_task_imports_no_library(prepared):
    assert prepared[2] == []


def test_the_parts_and_later_commands_have_the_same_keys(prepared, home):
    written = configparser.ConfigParser(interpolation=None)
    written.read(home / "airflow.cfg")
    assert written["api_auth"]["jwt_secret"] == prepared[3] != ""


def test_a_key_that_was_made_at_the_first_start_is_hidden_in_logs_from_the_beginning(prepared):
    assert prepared[4] == "told: ***"


def run_parts(folder: Path, *parts: list[str]) -> tuple[int, list[str], str]:
    """Return exit code, output, and what is told of parts that have ended."""
    command = [sys.executable, "-c", PARTS, json.dumps(parts)]
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True, check=False)
    ended = folder / "airflow.ended"
    return done.returncode, sorted(done.stdout.splitlines()), ended.read_text() if ended.exists() else ""


@pytest.mark.parametrize(("how", "code"), [("0", 0), ("3", 3), ("is killed", -signal.SIGKILL), ("is broken", 1)])
def test_it_is_told_how_a_part_has_ended(tmp_path, how, code):
    assert run_parts(tmp_path, ["scheduler", how]) == (0, [f"scheduler {how}"], f"scheduler ended with {code}\n")


def test_why_a_part_has_ended_is_in_the_log(tmp_path):
    command = [sys.executable, "-c", PARTS, json.dumps([["scheduler", "no database"]])]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "no database\n" in done.stderr
    assert (tmp_path / "airflow.ended").read_text() == "scheduler ended with 1\n"


def test_a_scheduler_that_is_late_to_say_that_it_lives_does_not_take_itself_for_a_dead_one(tmp_path):
    """It looks for those every five minutes; the web server calls it unhealthy as soon as ever."""
    asks = """
import sys
from airflow.configuration import conf
from dags.local.parts import run_parts

run_parts([["scheduler"], ["api-server"]],
          lambda of: print(of[0], conf.getint("scheduler", "scheduler_health_check_threshold"), flush=True))
"""
    variables = {**os.environ, "AIRFLOW_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", asks], cwd=tmp_path, env=variables, check=True, stdout=subprocess.PIPE, text=True
    )
    assert sorted(done.stdout.splitlines()[-2:]) == ["api-server 30", "scheduler 300"]


def test_the_database_comes_first_and_without_it_no_part_begins(tmp_path):
    assert run_parts(tmp_path, ["db", "0"], ["triggerer", "0"]) == (
        0,
        ["db 0", "triggerer 0"],
        "triggerer ended with 0\n",
    )
    (tmp_path / "airflow.ended").unlink()
    assert run_parts(tmp_path, ["db", "2"], ["triggerer", "0"]) == (2, ["db 2"], "")
