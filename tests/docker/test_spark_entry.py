"""The entry of the image `spark`: executors start as Spark on Kubernetes asks for them, and work for their driver."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyspark
import pytest

from dags.local.ports import HOST, free_port
from dags.local.standalone import HANGS_SECONDS
from lake.jvm import FRUGAL

DOCKER = Path(__file__).resolve().parents[2] / "docker"
ENTRY = DOCKER / "spark-entry.sh"
SECRET = "of-this-job"
# What settings.yaml says of secrets and encryption.
SECURITY = dict(
    re.findall(
        r"(?m)^    (spark\.(?:authenticate|network\.crypto|io\.encryption)\S*) +(\S+)$",
        (DOCKER / "kubernetes" / "settings.yaml").read_text(),
    )
)
# A driver whose own executor has one core, so that two tasks that wait for each other need both executors.
DRIVER = """
import json, sys, time
from pyspark.sql import SparkSession
spark = (
    SparkSession.builder.master("local-cluster[1,1,512]")
    .config("spark.executor.memory", "512m").config("spark.driver.host", sys.argv[1])
    .config("spark.driver.port", sys.argv[2]).config("spark.ui.enabled", "false")
    .config("spark.executor.extraJavaOptions", sys.argv[3]).config(map=json.loads(sys.argv[5]))
    .getOrCreate()
)
print(spark.sparkContext.applicationId, flush=True)
deadline = time.monotonic() + float(sys.argv[4])
while spark.sparkContext._jsc.sc().getExecutorMemoryStatus().size() < 3:
    assert time.monotonic() < deadline, "the other executor has not come"
    time.sleep(0.1)
def ask(_):
    import os
    from pyspark import BarrierTaskContext
    BarrierTaskContext.get().barrier()
    yield os.environ.get("SPARK_EXECUTOR_POD_NAME", "its own")
print(sorted(spark.sparkContext.parallelize(range(2), 2).barrier().mapPartitions(ask).collect()), flush=True)
"""


def test_what_is_asked_for_is_run_as_it_is():
    done = subprocess.run([ENTRY, "echo", "a  b", "*"], capture_output=True, text=True, check=True)
    assert done.stdout == "a  b *\n"


@pytest.fixture
def driver() -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Start a driver, and return it with its port."""
    port = free_port()
    # Spark on Kubernetes makes the secret itself, and gives it to its executors.
    conf = json.dumps({**SECURITY, "spark.authenticate.secret": SECRET})
    command = [sys.executable, "-c", DRIVER, HOST, str(port), FRUGAL, str(HANGS_SECONDS), conf]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield process, port
        process.kill()


@pytest.mark.e2e
def test_an_executor_works_for_its_driver_until_that_ends(driver, tmp_path):
    process, port = driver
    # Spark passes these on as options, the secret by the environment.
    options = [*FRUGAL.split(), *(f"-D{key}={value}" for key, value in SECURITY.items() if "io." not in key)]
    assert len(SECURITY) == 4
    asked = {
        "SPARK_DRIVER_URL": f"spark://CoarseGrainedScheduler@{HOST}:{port}",
        "SPARK_APPLICATION_ID": process.stdout.readline().strip(),
        "SPARK_EXECUTOR_ID": "7",
        "SPARK_EXECUTOR_CORES": "1",
        "SPARK_EXECUTOR_MEMORY": "512m",
        "SPARK_EXECUTOR_POD_IP": HOST,
        "SPARK_EXECUTOR_POD_NAME": "pod-7",
        "SPARK_RESOURCE_PROFILE_ID": "0",
        "SPARK_JAVA_OPT_0": "--add-opens=java.base/java.lang=ALL-UNNAMED",
        "SPARK_JAVA_OPT_1": "--add-opens=java.base/sun.nio.ch=ALL-UNNAMED",
        "SPARK_JAVA_OPT_2": "--add-opens=java.base/java.nio=ALL-UNNAMED",
        **{f"SPARK_JAVA_OPT_{n}": option for n, option in enumerate(options, 3)},
        "_SPARK_AUTH_SECRET": SECRET,
        "SPARK_HOME": str(Path(pyspark.__file__).parent),
        "PYSPARK_PYTHON": sys.executable,
    }
    executor = subprocess.Popen([ENTRY, "executor"], env={**os.environ, **asked}, cwd=tmp_path)
    try:
        assert process.stdout.readline() == "['its own', 'pod-7']\n"
        assert process.wait(HANGS_SECONDS) == 0
        executor.wait(HANGS_SECONDS)
    finally:
        executor.kill()
        executor.wait()
