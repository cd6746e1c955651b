"""A training on two hosts, one of which is cut off: two network namespaces with their own addresses, and Spark between.

Needs root and Debian's `iproute2`; without them it is skipped.
"""

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.model.test_launch import REPO, TRAINING, results, same_training, start
from tests.model.tiny_rows import write
from tests.spark_cluster import Host, SparkCluster

pytestmark = [pytest.mark.tf, pytest.mark.spark, pytest.mark.e2e]

BRIDGE, NETWORK = "meander0", "10.213.77"
# Whoever waits for a lost machine gives up soon; Spark's own numbers are two minutes.
DEFAULTS = f"""
spark.driver.host {NETWORK}.1
spark.driver.bindAddress {NETWORK}.1
spark.executor.memory 512m
spark.executor.heartbeatInterval 5s
spark.network.timeout 30s
spark.network.timeoutInterval 10s
spark.ui.enabled false
"""


def ip(*arguments: str, check: bool = True) -> None:
    subprocess.run(["ip", *arguments], check=check, capture_output=True)


@pytest.fixture
def hosts() -> Iterator[list[Host]]:
    """Two hosts behind a switch: cutting a cable is `ip link set NAME down`."""
    if os.geteuid() or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and Debian's iproute2")
    names = ["meander-a", "meander-b"]
    made = []
    try:
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
            made.append(Host(address, ("ip", "netns", "exec", name)))
        yield made
    except subprocess.CalledProcessError as error:
        if len(made) == len(names):
            raise  # from the test
        pytest.skip(f"this kernel gives no network namespaces: {error.stderr.decode().strip()}")
    finally:
        for name in names:
            ip("link", "del", name, check=False)
            ip("netns", "del", name, check=False)
        ip("link", "del", BRIDGE, check=False)


def test_a_host_that_is_cut_off_ends_the_training_in_time_and_it_goes_on_later(hosts: list[Host], tmp_path: Path):
    write(tmp_path / "train", [[300, 20], [], [7], [500]])
    write(tmp_path / "valid", [[50]])
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "spark-defaults.conf").write_text(DEFAULTS)
    alone = start(tmp_path, "--checkpoint", "alone", "--precision", "float64")
    assert alone.returncode == 0, alone.stderr

    cluster = SparkCluster(tmp_path / "cluster", Host(f"{NETWORK}.1"), hosts)
    settings = {
        "MEANDER_SPARK_MASTER": cluster.address,
        "SPARK_CONF_DIR": str(tmp_path / "conf"),
        "SPARK_LOCAL_IP": f"{NETWORK}.1",
    }
    two = ["--workers", "2", "--launcher", "spark", "--checkpoint", "two", "--precision", "float64"]
    try:
        command = [sys.executable, "-m", TRAINING, str(tmp_path), *two, "--tells", "1:17"]
        with subprocess.Popen(
            command,
            cwd=REPO,
            env={**os.environ, **settings},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as training:
            deadline = time.monotonic() + 180
            while not (tmp_path / "told").exists():
                assert training.poll() is None, training.stdout.read()
                assert time.monotonic() < deadline
                time.sleep(0.1)
            ip("link", "set", "meander-b", "down")
            cut = time.monotonic()
            ended = threading.Timer(240, training.kill)
            ended.start()
            said, _ = training.communicate()
            ended.cancel()
        assert training.returncode not in (0, -9), said
        assert time.monotonic() - cut < 180
        assert "Spark has lost a machine of the training" in said
        assert "The same command goes on from the last checkpoint" in said

        # The machine comes back, and the same command ends where an undisturbed training does.
        ip("link", "set", "meander-b", "up")
        cluster.kill_worker(1)
        cluster.start_worker(1)
        resumed = start(tmp_path, *two, env=settings)
    finally:
        cluster.stop()
    assert resumed.returncode == 0, resumed.stderr
    assert "resumed at epoch 0, step " in resumed.stderr
    first, second = results(resumed.stderr)
    assert first["checksum"] == second["checksum"]
    same_training(first, results(alone.stdout)[0])
