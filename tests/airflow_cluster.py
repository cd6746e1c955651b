"""Airflow as in production, on this machine: each part a process of its own, nothing embedded, nothing local."""

import json
import shlex
import shutil
import subprocess
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from urllib.parse import quote

from dags.standalone import BIN, HOST, LocalAirflow, free_port
from tests import postgres
from tests.spark_cluster import SparkCluster

BROKER_PASSWORD = "b@ck/er"  # has to be escaped in an address
# Executors of one core each: two for a job, two jobs at once. They live for seconds: a quick start is all that counts.
SPARK_DEFAULTS = """
spark.cores.max 2
spark.executor.cores 1
spark.executor.memory 1g
spark.executor.extraJavaOptions -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Xshare:auto
spark.driver.bindAddress 127.0.0.1
spark.driver.host 127.0.0.1
spark.ui.enabled false
spark.sql.shuffle.partitions 4
"""
PARTS = ("api-server", "scheduler", "dag-processor", "triggerer", "celery worker --queues default,train")


@dataclass
class AirflowCluster(LocalAirflow):
    """Celery workers behind Redis, metadata in PostgreSQL, and a Spark standalone cluster of a master and two workers.

    The DAGs and jobs are those of one machine; settings alone differ.
    """

    database: postgres.Server | None = field(default=None, init=False, repr=False)
    spark: SparkCluster | None = field(default=None, init=False, repr=False)

    @property
    def conf(self) -> Path:
        """Folder of Spark's defaults, as a cluster's administrator would write them."""
        return self.home / "conf"

    @cached_property
    def environment(self) -> dict[str, str]:
        metadata = self.database.url(database="airflow").removeprefix("postgresql")
        master = self.spark.address
        host, port = master.rsplit(":", 1)
        broker = f"redis://:{quote(BROKER_PASSWORD, safe='')}@{HOST}:{self.state['broker']}/0"
        changed = {
            "MEANDER_SPARK_MASTER": master,
            "SPARK_CONF_DIR": str(self.conf),
            "AIRFLOW_CONN_SPARK_DEFAULT": json.dumps({"conn_type": "spark", "host": host, "port": int(port)}),
            "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"postgresql+psycopg2{metadata}",
            "AIRFLOW__CELERY__BROKER_URL": broker,
            "AIRFLOW__CELERY__RESULT_BACKEND": f"db+postgresql{metadata}",
            "AIRFLOW__CELERY__WORKER_CONCURRENCY": "4",
            "AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT": "86400",
            # Celery would refuse to unpickle as root; nothing here is pickled.
            "C_FORCE_ROOT": "true",
        }
        return {**super().environment, **changed}

    def spawn_all(self) -> None:
        broker = shutil.which("redis-server")
        if broker is None:
            raise RuntimeError(
                "the tests of a cluster start a Redis server, and there is none on the PATH. "
                "Debian, Ubuntu: sudo apt-get install redis-server"
            )
        self.conf.mkdir(parents=True, exist_ok=True)
        (self.conf / "spark-defaults.conf").write_text(SPARK_DEFAULTS)
        self.database = postgres.Server()
        with self.database.connect() as admin:
            admin.execute("create database airflow")
        self.spark = SparkCluster(self.home / "spark", cores=2, memory="3g")
        self.remember(broker=free_port())
        options = ["--port", str(self.state["broker"]), "--bind", HOST, "--save", "", "--requirepass", BROKER_PASSWORD]
        self.spawn("broker", [broker, *options])
        airflow = shlex.quote(str(BIN / "airflow"))
        subprocess.run(
            [str(BIN / "airflow"), "db", "migrate"],
            env=self.environment,
            cwd=self.home,
            check=True,
            capture_output=True,
        )
        # One process group: it ends as a whole, and is waited for as a whole.
        together = "".join(f"{airflow} {part} >{part.split()[0]}.log 2>&1 &\n" for part in PARTS)
        self.spawn("airflow", ["/bin/sh", "-c", f"{together}wait"])

    def stop(self) -> None:
        super().stop()
        if self.spark is not None:
            self.spark.stop()
        if self.database is not None:
            self.database.remove()
        self.spark = self.database = None
