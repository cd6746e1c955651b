"""The launcher: workers start together and end together; what they train is in test_launch_hosts.py."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from model.training.launch import ENDED, LOST, Outcome, WorkerFailed, launch, root_failure
from tests.model.plain_worker import SLEEPS_SECONDS

REPO = Path(__file__).resolve().parents[3]
PLAIN = "tests.model.plain_worker"


@pytest.fixture(autouse=True)
def _workers_find_the_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    # Workers run where the launcher runs; `python -m` looks for tests.model there.
    monkeypatch.chdir(REPO)


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


def test_each_worker_gets_its_number_and_the_addresses_of_all(capfd):
    outcomes = launch(PLAIN, ["ends", "--day", "2017-01-01"], 3)
    said = [outcome.lines[-1] for outcome in outcomes]
    assert [line.split()[0] for line in said] == ["0", "1", "2"]
    addresses = {line.split("of ")[1].split(" in")[0] for line in said}
    assert len(addresses) == 1
    assert len(set(re.findall(r"127\.0\.0\.1:(\d+)", addresses.pop()))) == 3
    assert all("['ends', '--day', '2017-01-01']" in line for line in said)
    assert f"[worker 2] {said[2]}" in capfd.readouterr().err


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


def test_a_run_that_takes_too_long_is_ended(capfd):
    began = time.monotonic()
    with pytest.raises(WorkerFailed, match=r"worker 0 of 2 .*it was not done after 1 s"):
        launch(PLAIN, ["sleeps"], 2, timeout=1)
    assert 1 <= time.monotonic() - began < SLEEPS_SECONDS
    assert all(map(gone, pids(capfd.readouterr().err)))


def test_workers_end_when_the_launcher_is_killed():
    code = f"from model.training.launch import launch; launch({PLAIN!r}, ['sleeps'], 2)"
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
        ((PLAIN, [], 1, "ssh"), "launcher must be one of process, spark, got 'ssh'"),
        (("model.nothing", [], 1), "Python can import, got 'model.nothing'"),
    ],
)
def test_what_cannot_be_launched_is_refused(arguments, says):
    with pytest.raises(ValueError, match=says):
        launch(*arguments)


@pytest.mark.spark
def test_spark_starts_a_process_in_each_barrier_task(spark, capfd):
    outcomes = launch(PLAIN, ["ends"], 2, "spark")
    said = [outcome.lines[-1] for outcome in outcomes]
    assert sorted(line.split()[0] for line in said) == ["0", "1"]
    assert all(f"in {REPO} " in line for line in said)
    assert len({line.split("of ")[1].split(" in")[0] for line in said}) == 1
    assert f"[worker 1] {said[1]}" in capfd.readouterr().err


@pytest.mark.spark
@pytest.mark.parametrize(("how", "says"), [("fails", "exit code 1; "), ("killed", "signal SIGKILL; ")])
def test_on_spark_too_the_others_end_when_one_fails(spark, capfd, how, says):
    with pytest.raises(WorkerFailed, match=rf"(?s)worker 1 of 2 .* ended with {says}"):
        launch(PLAIN, [how], 2, "spark")
    # Spark did not try again, and nobody waited for worker 0, which sleeps.
    said = capfd.readouterr().err
    assert "nobody has ended this worker" not in said
    assert len(pids(said)) <= 2
    assert all(map(gone, pids(said)))


@pytest.mark.spark
def test_workers_end_when_their_spark_job_is_cancelled(spark, tmp_path):
    def cancel_once_both_run() -> None:
        deadline = time.monotonic() + SLEEPS_SECONDS
        while len(list(tmp_path.iterdir())) < 2 and time.monotonic() < deadline:
            time.sleep(0.1)
        spark.interruptAll()

    threading.Thread(target=cancel_once_both_run, daemon=True).start()
    with pytest.raises(Exception, match=r"(?i)cancel"):
        launch(PLAIN, ["sleeps", str(tmp_path)], 2, "spark")
    started = [int(path.name) for path in tmp_path.iterdir()]
    assert len(started) == 2
    assert all(map(gone, started))
