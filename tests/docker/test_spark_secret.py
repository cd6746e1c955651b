"""A Spark cluster as compose.yaml starts it: who does not know the secret runs nothing there."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from lake.jvm import FRUGAL
from tests.spark_cluster import Host, SparkCluster
from tests.waiting import until

DOCKER = Path(__file__).resolve().parents[2] / "docker"
COMPOSE = yaml.safe_load((DOCKER / "compose.yaml").read_text())
SECRET = "known-to-few"
COUNTS = """
import sys
from pyspark.sql import SparkSession
spark = (
    SparkSession.builder.master(sys.argv[1]).appName(sys.argv[2])
    .config("spark.executor.memory", "512m").config("spark.executor.extraJavaOptions", sys.argv[3])
    .config("spark.driver.host", "127.0.0.1").config("spark.ui.enabled", "false").getOrCreate()
)
# By a shuffle, so that blocks travel and spill too.
print("rows", spark.range(1000).repartition(2).selectExpr("sum(id)").first()[0], flush=True)
"""


def of_daemon(name: str) -> dict[str, str]:
    """Return what a daemon of compose.yaml knows of Spark, with the secret filled in."""
    given = COMPOSE["services"][name]["environment"]
    return {
        key: re.sub(r"\$\{SPARK_SECRET[^}]*\}", SECRET, given[key])
        for key in ("SPARK_DAEMON_JAVA_OPTS", "_SPARK_AUTH_SECRET")
    }


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkCluster]:
    environment = of_daemon("spark-worker")
    assert environment == of_daemon("spark-master")
    started = SparkCluster(tmp_path_factory.mktemp("cluster"), workers=[Host()], memory="1g", environment=environment)
    yield started
    started.stop()


def defaults(folder: Path, secret: str) -> Path:
    """Return a folder with Spark's defaults, as a worker of compose.yaml writes them before it starts."""
    given = {**COMPOSE["services"]["worker"]["environment"], "SPARK_CONF_DIR": str(folder), "SPARK_SECRET": secret}
    shell, script, *_ = COMPOSE["services"]["worker"]["command"]
    environment = {name: given[name] for name in ("SPARK_CONF_DIR", "SPARK_SECRET")} | {"PATH": os.environ["PATH"]}
    said = subprocess.check_output(
        [shell, DOCKER / script.removeprefix("/"), "echo", "a  b"], env=environment, text=True
    )
    assert said == "a  b\n", "it runs what it is given"
    (file,) = folder.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    return folder


def client(cluster: SparkCluster, name: str, folder: Path, log: Path) -> subprocess.Popen[bytes]:
    """Start a driver that counts rows on the cluster, with the defaults in a folder."""
    command = [sys.executable, "-c", COUNTS, cluster.address, name, FRUGAL]
    environment = {**os.environ, "SPARK_CONF_DIR": str(folder), "PYSPARK_PYTHON": sys.executable}
    with log.open("wb") as output:
        return subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT, cwd=log.parent)


@pytest.mark.e2e
def test_only_a_driver_that_knows_the_secret_runs_jobs_on_the_cluster(cluster, tmp_path):
    nothing = tmp_path / "nothing"
    nothing.mkdir()
    strangers = {"stranger": nothing, "guesser": defaults(tmp_path / "guessed", "guessed")}
    logs = {name: tmp_path / f"{name}.log" for name in [*strangers, "driver"]}
    refused = [client(cluster, name, given, logs[name]) for name, given in strangers.items()]
    try:
        for process, log in zip(refused, logs.values(), strict=False):
            # A driver asks again for a minute; each time it is told the same.
            until(f"the master's answer in {log}", lambda log=log: b"Failed to connect to master" in log.read_bytes())
            assert process.poll() is None
    finally:
        for process in refused:
            process.kill()
            process.wait()
    driver = client(cluster, "driver", defaults(tmp_path / "known", SECRET), logs["driver"])
    driver.wait()
    assert driver.returncode == 0, logs["driver"].read_text()
    assert b"rows 499500\n" in logs["driver"].read_bytes()
    registered = re.findall(r"Registered app (\S+)", (cluster.folder / "master.log").read_text())
    assert registered == ["driver"]
