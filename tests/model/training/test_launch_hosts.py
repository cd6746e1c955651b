"""Trainings of several workers: they train what one does, go on where one was lost, and listen to nobody else.

The last test is of two hosts, one of which is cut off: two network namespaces with their own addresses, and Spark
between. These need root and Debian's `iproute2`. Without them there are two Spark workers on one host, so one process
trains, and one of the Spark workers is killed.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dags.local.standalone import HANGS_SECONDS
from lake.jvm import FRUGAL
from tests.listening import doors, family, open_to_others
from tests.model.tiny_rows import write
from tests.model.tiny_training import MODULE as TRAINING
from tests.spark_cluster import Host, SparkCluster
from tests.waiting import until

pytestmark = pytest.mark.tf

REPO = Path(__file__).resolve().parents[3]
BRIDGE, NETWORK = "meander0", "10.213.77"
ANSWER_SECONDS = 3  # for an answer that never comes; one that comes takes microseconds
# Whoever waits for a lost machine gives up soon; Spark's own numbers are two minutes.
DEFAULTS = """
spark.executor.extraJavaOptions {options}
spark.driver.host {address}
spark.driver.bindAddress {address}
spark.executor.memory 512m
spark.executor.heartbeatInterval 5s
spark.network.timeout 30s
spark.network.timeoutInterval 5s
spark.ui.enabled false
"""


def results(text: str) -> list[dict[str, Any]]:
    """Return what each worker said at its end, in the order of the workers."""
    found = [json.loads(line.split("RESULT ", 1)[1]) for line in text.splitlines() if "RESULT " in line]
    return sorted(found, key=lambda result: result["worker"])


def start(folder: Path, *argv: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", TRAINING, str(folder), *argv]
    environment = {**os.environ, **(env or {})}
    return subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=REPO, env=environment, timeout=HANGS_SECONDS
    )


def start_beside(folder: Path, *argv: str, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", TRAINING, str(folder), *argv]
    both = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen(command, cwd=REPO, env={**os.environ, **(env or {})}, text=True, **both)


def until_told(training: subprocess.Popen[str], told: Path) -> None:
    """Wait until a worker tells that it trains."""

    def tells() -> bool:
        assert training.poll() is None, training.stdout.read()
        return told.exists()

    until("a worker to tell that it trains", tells)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files for training of uneven row groups, and one for validation."""
    folder = tmp_path_factory.mktemp("tiny")
    write(folder / "train", [[300, 20], [], [7], [500]])
    write(folder / "valid", [[50]])
    return folder


@pytest.fixture(scope="module")
def alone_and_mirrored(rows: Path) -> list[dict[str, Any]]:
    """What one replica and then two of one process make of them, in double precision: what differs is not rounding."""
    done = start(rows, "--replicas", "2", "--checkpoint", "alone", "--precision", "float64")
    assert done.returncode == 0, done.stderr
    return results(done.stdout)


@pytest.fixture(scope="module")
def alone(alone_and_mirrored: list[dict[str, Any]]) -> dict[str, Any]:
    return alone_and_mirrored[0]


def same_training(one: dict[str, Any], other: dict[str, Any]) -> None:
    for mine, yours in zip(one["history"], other["history"], strict=True):
        assert mine == pytest.approx(yours, rel=1e-6)  # sums of losses are single precision
    for mine, yours in zip(one["weights"], other["weights"], strict=True):
        np.testing.assert_allclose(mine, yours, rtol=0, atol=1e-9)


def test_two_replicas_of_one_process_train_what_one_does(alone_and_mirrored):
    one, two = alone_and_mirrored
    same_training(two, one)
    assert one["history"][-1]["loss"] < one["history"][0]["loss"]


def test_two_workers_of_one_machine_are_one_process_that_listens_to_nobody_and_goes_on_where_it_was_killed(rows, alone):
    two = ["--workers", "2", "--checkpoint", "two", "--precision", "float64"]
    told = rows / "told"
    with start_beside(rows, *two, "--tells", "0:17") as training:
        until_told(training, told)
        assert doors(family(training.pid)) == set()
        training.kill()
        assert results(training.communicate()[0]) == []
    told.unlink()

    resumed = start(rows, *two)
    assert resumed.returncode == 0, resumed.stderr
    assert "resumed at epoch 0, step " in resumed.stderr
    (both,) = results(resumed.stdout)
    same_training(both, alone)
    # 25 steps of 32 of 827 rows.
    for epoch in (1, 2):
        assert [both["counts"][epoch][name] for name in ("total", "used", "skipped", "repeated")] == [827, 800, 27, 0]


# --- on two hosts ---


@dataclass(frozen=True)
class Hosts:
    """A host of the Spark master, and two that work.

    Attributes:
        master, workers: where Spark runs.
        cables: whether they are behind a switch, from which the second one can be cut off.
    """

    master: Host
    workers: list[Host]
    cables: bool

    def lose(self, cluster: SparkCluster) -> None:
        """Cut the second host off, or kill what runs there."""
        if self.cables:
            ip("link", "set", "meander-b", "down")
        else:
            cluster.kill_worker(1)

    def bring_back(self, cluster: SparkCluster) -> None:
        """Let the second host begin anew."""
        if self.cables:
            ip("link", "set", "meander-b", "up")
            cluster.kill_worker(1)
        cluster.start_worker(1)


def ip(*arguments: str, check: bool = True) -> None:
    subprocess.run(["ip", *arguments], check=check, capture_output=True)


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    """Two hosts behind a switch where the kernel gives them to us: cutting a cable is `ip link set NAME down`."""
    names = ["meander-a", "meander-b"]
    try:
        workers = [] if os.geteuid() or shutil.which("ip") is None else list(behind_a_switch(names))
    except subprocess.CalledProcessError:
        workers = []
    try:
        if workers:
            yield Hosts(Host(f"{NETWORK}.1"), workers, cables=True)
        else:
            yield Hosts(Host(), [Host(), Host()], cables=False)
    finally:
        if shutil.which("ip"):
            for name in names:
                ip("link", "del", name, check=False)
                ip("netns", "del", name, check=False)
            ip("link", "del", BRIDGE, check=False)


def behind_a_switch(names: list[str]) -> Iterator[Host]:
    """Make a switch and hosts of these names behind it.

    Raises:
        CalledProcessError: this kernel gives no network namespaces.
    """
    ip("link", "add", BRIDGE, "type", "bridge")
    ip("addr", "add", f"{NETWORK}.1/24", "dev", BRIDGE)
    ip("link", "set", BRIDGE, "up")
    for number, name in enumerate(names, 2):
        address = f"{NETWORK}.{number}"
        ip("netns", "add", name)
        ip("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
        ip("link", "set", name, "master", BRIDGE, "up")
        ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
        ip("-n", name, "link", "set", "eth0", "up")
        ip("-n", name, "link", "set", "lo", "up")
        yield Host(address, ("ip", "netns", "exec", name))


def doors_of_tensorflow(cluster: SparkCluster, hosts: Hosts) -> list[tuple[str, int]]:
    """Return the address of TensorFlow's server on each of several hosts; nothing else listens on all interfaces."""
    found = []
    for number, host in enumerate(hosts.workers):
        everywhere = {
            (port, command)
            for address, port, command in open_to_others(family(cluster.processes[f"worker-{number}"].pid))
            if address in ("0.0.0.0", "::")
        }
        assert len(everywhere) == hosts.cables, "one process of one host needs no server"
        for port, command in everywhere:
            assert "model.training.launch" in command
            found.append((host.address, port))
    return found


def answers(address: str, port: int, caller: str) -> bool:
    """Tell whether a server answers a call from an address of ours."""
    try:
        socket.create_connection((address, port), ANSWER_SECONDS, source_address=(caller, 0)).close()
    except TimeoutError:
        return False
    return True


@pytest.mark.spark
@pytest.mark.e2e
def test_a_host_that_is_cut_off_ends_the_training_in_time_and_it_goes_on_later(rows, alone, hosts, tmp_path):
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "spark-defaults.conf").write_text(
        DEFAULTS.format(address=hosts.master.address, options=FRUGAL)
    )
    cluster = SparkCluster(tmp_path / "cluster", hosts.master, hosts.workers)
    settings = {
        "MEANDER_SPARK_MASTER": cluster.address,
        "SPARK_CONF_DIR": str(tmp_path / "conf"),
        "SPARK_LOCAL_IP": hosts.master.address,
    }
    on_spark = ["--workers", "2", "--launcher", "spark", "--checkpoint", "spark", "--precision", "float64"]
    told = rows / "told"
    try:
        tells = "1:17" if hosts.cables else "0:17"
        with start_beside(rows, *on_spark, "--tells", tells, env=settings) as training:
            try:
                until_told(training, told)
                open_doors = doors_of_tensorflow(cluster, hosts)
                answered = [answers(*door, hosts.master.address) for door in open_doors]
                hosts.lose(cluster)
                told.unlink()
                # It waits neither for ever nor for the two hours after which TCP looks for the other end by itself.
                said, _ = training.communicate(timeout=HANGS_SECONDS)
            finally:
                training.kill()
        # The master is no machine of the training. Only where the kernel lets nobody close a port, it is answered.
        assert len(answered) == (2 if hosts.cables else 0)
        assert not any(answered) or "is open to every machine that reaches this one" in said, said
        assert training.returncode != 0, said
        assert "Spark has lost a machine of the training" in said
        assert "The same command goes on from the last checkpoint" in said

        # The machine comes back, and the same command ends where an undisturbed training does.
        hosts.bring_back(cluster)
        resumed = start(rows, *on_spark, env=settings)
    finally:
        cluster.stop()
    assert resumed.returncode == 0, resumed.stderr
    assert "resumed at epoch 0, step " in resumed.stderr
    trained = results(resumed.stderr)
    assert [result["worker"] for result in trained] == ([0, 1] if hosts.cables else [0])
    assert len({result["checksum"] for result in trained}) == 1
    same_training(trained[0], alone)
