"""The launcher: workers start together, end together, and train what one process trains."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.launch import ENDED, LOST, Outcome, WorkerFailed, launch, root_failure
from tests.model.tiny_rows import write
from tests.spark_cluster import SparkCluster

REPO = Path(__file__).resolve().parents[2]
PLAIN = "tests.model.plain_worker"
TRAINING = "tests.model.tiny_training"


@pytest.fixture(autouse=True)
def _workers_find_the_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    # Workers run where the launcher runs; `python -m` looks for tests.model there.
    monkeypatch.chdir(REPO)


def gone(pid: int) -> bool:
    """Wait for a process to be gone, up to 10 s."""
    for _ in range(100):
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
    began = time.monotonic()
    with pytest.raises(WorkerFailed, match=rf"(?s)worker 1 of 2 .* ended with {says}"):
        launch(PLAIN, [how], 2)
    assert time.monotonic() - began < 10
    started = pids(capfd.readouterr().err)
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
    with pytest.raises(WorkerFailed, match=r"worker 0 of 2 .*it was not done after 3 s"):
        launch(PLAIN, ["sleeps"], 2, timeout=3)
    assert all(map(gone, pids(capfd.readouterr().err)))


def test_workers_end_when_the_launcher_is_killed():
    code = f"from model.launch import launch; launch({PLAIN!r}, ['sleeps'], 2)"
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
    began = time.monotonic()
    with pytest.raises(WorkerFailed, match=rf"(?s)worker 1 of 2 .* ended with {says}"):
        launch(PLAIN, [how], 2, "spark")
    # Spark did not try again, and nobody waited for worker 0, which sleeps for ten minutes.
    assert time.monotonic() - began < 20
    assert all(map(gone, pids(capfd.readouterr().err)))


@pytest.mark.spark
def test_workers_end_when_their_spark_job_is_cancelled(spark, tmp_path):
    def cancel_once_both_run() -> None:
        deadline = time.monotonic() + 60
        while len(list(tmp_path.iterdir())) < 2 and time.monotonic() < deadline:
            time.sleep(0.1)
        spark.interruptAll()

    threading.Thread(target=cancel_once_both_run, daemon=True).start()
    with pytest.raises(Exception, match=r"(?i)cancel"):
        launch(PLAIN, ["sleeps", str(tmp_path)], 2, "spark")
    started = [int(path.name) for path in tmp_path.iterdir()]
    assert len(started) == 2
    assert all(map(gone, started))


# --- training ---


def results(text: str) -> list[dict[str, Any]]:
    """Return what each worker said at its end, in the order of the workers."""
    found = [json.loads(line.split("RESULT ", 1)[1]) for line in text.splitlines() if "RESULT " in line]
    return sorted(found, key=lambda result: result["worker"])


def start(folder: Path, *argv: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", TRAINING, str(folder), *argv]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=REPO, env={**os.environ, **(env or {})}
    )


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files for training of uneven row groups, and one for validation."""
    folder = tmp_path_factory.mktemp("tiny")
    write(folder / "train", [[300, 20], [], [7], [500]])
    write(folder / "valid", [[50]])
    return folder


@pytest.fixture(scope="module")
def alone(rows: Path) -> dict[str, Any]:
    """What one process makes of them, in double precision: what differs then is not rounding."""
    done = start(rows, "--checkpoint", "alone", "--precision", "float64")
    assert done.returncode == 0, done.stderr
    return results(done.stdout)[0]


def same_training(one: dict[str, Any], other: dict[str, Any]) -> None:
    for mine, yours in zip(one["history"], other["history"], strict=True):
        assert mine == pytest.approx(yours, rel=1e-6)  # sums of losses are single precision
    for mine, yours in zip(one["weights"], other["weights"], strict=True):
        np.testing.assert_allclose(mine, yours, rtol=0, atol=1e-9)


@pytest.mark.tf
def test_two_workers_train_what_one_does_and_go_on_where_one_was_killed(rows, alone):
    began = time.monotonic()
    two = ["--workers", "2", "--checkpoint", "two", "--precision", "float64"]
    killed = start(rows, *two, "--dies", "1:17")
    assert killed.returncode != 0
    assert "worker 1 of 2 (tests.model.tiny_training) ended with signal SIGKILL" in killed.stderr
    assert time.monotonic() - began < 120
    assert results(killed.stderr) == []

    resumed = start(rows, *two)
    assert resumed.returncode == 0, resumed.stderr
    assert "resumed at epoch 0, step " in resumed.stderr
    first, second = results(resumed.stderr)
    assert first["checksum"] == second["checksum"]
    same_training(first, alone)
    # 25 steps of 32 of 827 rows, half of each on either worker.
    for epoch in (1, 2):
        assert [first["counts"][epoch][name] for name in ("total", "used", "skipped", "repeated")] == [827, 400, 27, 0]
        assert [second["counts"][epoch][name] for name in ("total", "used", "skipped", "repeated")] == [827, 400, 0, 0]


@pytest.mark.tf
def test_two_replicas_of_one_process_train_what_one_does(rows, alone):
    mirrored = start(rows, "--replicas", "2", "--checkpoint", "mirrored", "--precision", "float64")
    assert mirrored.returncode == 0, mirrored.stderr
    same_training(results(mirrored.stdout)[0], alone)


@pytest.fixture
def standalone(tmp_path: Path) -> Iterator[str]:
    """Start a Spark standalone master and two workers of one core on this machine, and return the master's address."""
    cluster = SparkCluster(tmp_path / "cluster")
    yield cluster.address
    cluster.stop()


@pytest.mark.tf
@pytest.mark.spark
@pytest.mark.e2e
def test_barrier_tasks_of_a_standalone_cluster_train_what_one_process_does(rows, alone, standalone):
    done = start(
        rows,
        *("--workers", "2", "--launcher", "spark", "--checkpoint", "spark", "--precision", "float64"),
        env={"MEANDER_SPARK_MASTER": standalone, "SPARK_LOCAL_IP": "127.0.0.1"},
    )
    assert done.returncode == 0, done.stderr
    first, second = results(done.stderr)
    assert (first["worker"], second["worker"]) == (0, 1)
    assert first["checksum"] == second["checksum"]
    same_training(first, alone)
