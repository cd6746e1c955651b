"""The launcher: workers start together and end together; what they train is in test_launch_hosts.py.

Most tests run the tasks of Spark's stage in threads (tests/model/barrier.py), the last ones in Spark.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from pyspark.cloudpickle import dumps

from lake.environment import handed_to_tasks
from model.training.launch import (
    ENDED,
    KEY_LENGTH,
    LOST,
    Outcome,
    WorkerFailed,
    _admitted,
    _barrier_task,
    launch,
    root_failure,
)
from tests.listening import doors, family, open_to_others
from tests.model.barrier import MACHINES, Stage, on_machines
from tests.model.plain_worker import SLEEPS_SECONDS
from tests.planted import REGISTRY, SECRETS, STORE, planted

REPO = Path(__file__).resolve().parents[3]
PLAIN = "tests.model.plain_worker"


@pytest.fixture(autouse=True)
def _workers_find_the_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    # Workers run where the launcher runs; `python -m` looks for tests.model there.
    monkeypatch.chdir(REPO)


@pytest.fixture
def machines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `launch` use machines of the test instead of Spark."""
    monkeypatch.setattr("model.training.launch._launch_on_spark", on_machines)


def gone(pid: int) -> bool:
    """Wait for a process to be gone; one that stays sleeps on for as long."""
    deadline = time.monotonic() + SLEEPS_SECONDS / 2
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


def pids(text: str) -> list[int]:
    return [int(pid) for pid in re.findall(r"pid=(\d+)", text)]


@pytest.mark.usefixtures("machines")
def test_each_worker_gets_its_number_and_the_addresses_of_all(capfd):
    outcomes = launch(PLAIN, ["ends", "--day", "2017-01-01"], 3)
    said = [outcome.lines[-1] for outcome in outcomes]
    assert [line.split()[0] for line in said] == ["0", "1", "2"]
    addresses = {line.split("of ")[1].split(" in")[0] for line in said}
    assert len(addresses) == 1
    assert tuple(re.findall(r"(127\.0\.0\.\d):\d+", addresses.pop())) == MACHINES
    assert all("['ends', '--day', '2017-01-01']" in line for line in said)
    assert f"[worker 2] {said[2]}" in capfd.readouterr().err


@pytest.mark.usefixtures("machines")
@pytest.mark.parametrize(("how", "says"), [("fails", "exit code 1; "), ("killed", "signal SIGKILL; ")])
def test_when_one_worker_fails_the_others_end_and_it_is_named(capfd, how, says):
    with pytest.raises(WorkerFailed, match=rf"(?s)worker 1 of 2 .* ended with {says}"):
        launch(PLAIN, [how], 2)
    said = capfd.readouterr().err
    assert "nobody has ended this worker" not in said
    started = pids(said)
    assert len(started) >= 1  # worker 0 may have been ended before it said anything
    assert all(map(gone, started))


def test_the_failure_that_explains_the_others_is_the_one_that_is_named():
    well = Outcome(0, 0, "", [])
    lost = Outcome(0, 1, "", ["a collective has lost worker 1"])  # the launcher may see this before the kill
    ended = Outcome(0, -signal.SIGTERM, ENDED, [])
    killed, failed = Outcome(1, -signal.SIGKILL, "", []), Outcome(1, 1, "", ["no reason at all"])
    assert root_failure([well, killed]) == killed
    assert root_failure([lost, killed]) == killed
    assert root_failure([ended, failed]) == failed
    assert root_failure([ended, killed]) == killed
    unreached = Outcome(1, -signal.SIGTERM, LOST, [])
    assert root_failure([ended, unreached]) == unreached
    assert root_failure([unreached, failed]) == failed
    assert root_failure([lost, failed]) == lost  # both say why: the first is as good as the other
    assert root_failure([well, Outcome(1, 0, "", [])]) is None


@pytest.mark.usefixtures("machines")
def test_a_run_that_takes_too_long_is_ended(capfd):
    began = time.monotonic()
    # Each task has a clock of its own, and the first one to end its worker ends the others.
    with pytest.raises(WorkerFailed, match=r"worker [01] of 2 .*it was not done after 1 s"):
        launch(PLAIN, ["sleeps"], 2, timeout=1)
    assert 1 <= time.monotonic() - began < SLEEPS_SECONDS
    assert all(map(gone, pids(capfd.readouterr().err)))


def test_workers_end_when_the_launcher_is_killed():
    code = f"from tests.model.barrier import on_machines; on_machines({PLAIN!r}, ['sleeps'], 2, None)"
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, cwd=REPO) as launcher:
        started: list[int] = []
        assert launcher.stderr is not None
        for line in launcher.stderr:  # ends when both have ended too early
            started += pids(line)
            if len(started) == 2:
                break
        assert len(started) == 2
        launcher.kill()
        launcher.wait()
        assert all(map(gone, started))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((PLAIN, [], 0), "workers must be 1 or more, got 0"),
        (("model.nothing", [], 1), "Python can import, got 'model.nothing'"),
    ],
)
def test_what_cannot_be_launched_is_refused(arguments, says):
    with pytest.raises(ValueError, match=says):
        launch(*arguments)


# --- who may listen, call and know ---


def test_the_tasks_listen_only_on_the_addresses_of_their_machines():
    before = {port for _, port, _ in doors(family())}
    stage = Stage(MACHINES)
    on_machines(PLAIN, ["ends"], 3, None, stage)
    # On these the other tasks call the first one. TensorFlow's own servers are in test_launch_hosts.py.
    assert {address for address, port, _ in stage.doors if port not in before} == set(MACHINES)
    assert open_to_others(family()) == set()


def test_who_does_not_know_the_key_is_no_task_of_the_stage():
    key = "k" * KEY_LENGTH
    with socket.create_server(("127.0.0.1", 0)) as lifeline:
        callers = [socket.create_connection(lifeline.getsockname()) for _ in range(3)]
        callers[0].sendall(b"x" * KEY_LENGTH)
        callers[1].close()
        callers[2].sendall(key[:10].encode())
        # A network may deliver the key in parts.
        rest = threading.Timer(0.3, callers[2].sendall, [key[10:].encode()])
        rest.start()
        lifeline.settimeout(60)
        (admitted,) = _admitted(lifeline, key, 1)
        rest.join()
        assert admitted.getpeername() == callers[2].getsockname()
        assert callers[0].recv(1) == b"", "it was sent away"
        for connection in (admitted, *callers):
            connection.close()


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MEANDER_LAKE", "/of/the/driver")


@pytest.mark.usefixtures("secrets")
def test_a_pickled_task_has_our_settings_and_no_password():
    task = dumps(_barrier_task(PLAIN, [], 2, None, *handed_to_tasks(os.environ), "."))
    assert b"/of/the/driver" in task
    assert b"planted" not in task


@pytest.mark.usefixtures("secrets", "machines")
def test_a_worker_gets_what_trains_and_no_other_password():
    outcomes = launch(PLAIN, ["tells"], 2)
    for outcome in outcomes:
        found = json.loads(outcome.lines[-1])
        assert found["MEANDER_LAKE"] == "/of/the/driver"
        # As its machine's environment has them: none came with the task.
        assert planted(found) == STORE | REGISTRY


@pytest.mark.usefixtures("machines")
def test_a_registry_with_a_password_has_to_be_told_to_the_executors(monkeypatch):
    # As on a cluster: what the driver's environment says is not in that of the executors.
    monkeypatch.setattr("tests.model.barrier.handed_to_tasks", lambda _: ({}, ["MEANDER_MLFLOW_URI"]))
    monkeypatch.delenv("MEANDER_MLFLOW_URI", raising=False)
    with pytest.raises(WorkerFailed, match=r"worker 0 of 2 .*MEANDER_MLFLOW_URI holds a password.*Spark's executors"):
        launch(PLAIN, ["ends"], 2)


def test_tasks_on_one_machine_train_as_one_process_and_wait_for_each_other():
    first, second = on_machines(PLAIN, ["ends"], 2, None, Stage(["127.0.0.1"] * 2))
    assert "0 of no other" in first.lines[-1]
    assert first.lines[-1].endswith("['ends', '--launcher', 'process']")
    assert second == Outcome(1, 0, "", [])
    # A failure is told by the first one, and the others do not wait for ever.
    failed, waited = on_machines(PLAIN, ["breaks"], 2, None, Stage(["127.0.0.1"] * 2))
    assert (failed.code, waited.code) == (1, 0)


# --- on Spark ---


@pytest.mark.spark
def test_spark_on_one_machine_trains_in_one_process(spark, capfd):
    outcomes = launch(PLAIN, ["ends"], 2)
    said = [outcome.lines[-1] for outcome in outcomes if outcome.lines]
    assert [line.split()[0] for line in said] == ["0"]
    assert f"in {REPO} " in said[0]
    assert f"[worker 0] {said[0]}" in capfd.readouterr().err


@pytest.mark.spark
def test_on_spark_too_a_failure_is_told(spark, capfd):
    with pytest.raises(WorkerFailed, match=r"(?s)worker 0 of 2 .* ended with exit code 1; "):
        launch(PLAIN, ["breaks"], 2)


@pytest.mark.spark
def test_workers_end_when_their_spark_job_is_cancelled(spark, tmp_path):
    def cancel_once_it_runs() -> None:
        deadline = time.monotonic() + SLEEPS_SECONDS
        while len(list(tmp_path.iterdir())) < 1 and time.monotonic() < deadline:
            time.sleep(0.1)
        spark.interruptAll()

    threading.Thread(target=cancel_once_it_runs, daemon=True).start()
    with pytest.raises(Exception, match=r"(?i)cancel"):
        launch(PLAIN, ["sleeps", str(tmp_path)], 2)
    started = [int(path.name) for path in tmp_path.iterdir()]
    assert len(started) == 1
    assert all(map(gone, started))
