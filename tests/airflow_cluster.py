"""Airflow as in production, on this machine: each part a process of its own, nothing embedded, nothing local."""

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from functools import cached_property
from urllib.parse import quote

from dags.local.client import USER
from dags.local.ports import HOST, free_port
from dags.local.standalone import LocalAirflow
from lake.jvm import SHORT_LIVED_JVM
from tests import postgres
from tests.s3_server import BUCKET, SECRET_KEY, S3Server
from tests.spark_cluster import SparkCluster

BROKER_PASSWORD = "b@ck/er"  # has to be escaped in an address
ALERT_SECRET = "hook-for-those-on-call"
SESSION_KEY, TOKEN_KEY = "signs-what-a-browser-keeps", "signs-what-the-parts-say-to-each-other"
FERNET_KEY = "dGhpcnR5LXR3byBieXRlcyBvZiBvbmUgdGVzdCBrZXk="
# What nobody may read in logs, rendered templates and pages: as it is, and as an address spells it.
SECRETS = {
    spelled: what
    for what, secret in {
        "PostgreSQL's password": postgres.PASSWORD,
        "the broker's password": BROKER_PASSWORD,
        "the object store's key": SECRET_KEY,
        "the alerts' webhook": ALERT_SECRET,
        "the key that encrypts connections": FERNET_KEY,
        "the key that signs sessions": SESSION_KEY,
        "the key that signs tokens": TOKEN_KEY,
    }.items()
    for spelled in (secret, quote(secret, safe=""))
}
# A name for each role of those who use Airflow.
USERS = {USER: "Admin", "olga": "Op", "vera": "Viewer"}
# One executor of two cores for a job, two jobs at once. They live for seconds: a quick start is all that counts.
SPARK_DEFAULTS = {
    "spark.cores.max": 2,
    "spark.executor.cores": 2,
    "spark.executor.memory": "1g",
    "spark.executor.extraJavaOptions": SHORT_LIVED_JVM,
    "spark.driver.bindAddress": HOST,
    "spark.driver.host": HOST,
    "spark.ui.enabled": "false",
    "spark.sql.shuffle.partitions": 2,
}
COMMANDS = """
import json, sys
from airflow.__main__ import main

for arguments in json.loads(sys.argv[1]):
    sys.argv = ["airflow", *arguments]
    main()
"""
PARTS = (
    ["api-server"],
    ["scheduler"],
    ["dag-processor"],
    ["triggerer"],
    ["celery", "worker", "--queues", "default,train,serve"],
)


def java_properties(values: dict[str, object]) -> str:
    """Return options that set these system properties, quoted as Spark reads SPARK_SUBMIT_OPTS."""
    quoted = (f"-D{name}={value}".replace("\\", "\\\\").replace('"', '\\"') for name, value in values.items())
    return " ".join(f'"{option}"' for option in quoted)


@dataclass
class AirflowCluster(LocalAirflow):
    """Celery workers behind Redis, metadata and MLflow in PostgreSQL, users with roles, logs of tasks on an S3 store.

    Spark is a standalone cluster of a master and two workers. The DAGs and jobs are those of one machine; settings
    alone differ.
    """

    database: postgres.Server | None = field(default=None, init=False, repr=False)
    spark: SparkCluster | None = field(default=None, init=False, repr=False)
    store: S3Server | None = field(default=None, init=False, repr=False)

    @property
    def mlflow_uri(self) -> str:
        """Where the registry is."""
        return self.database.url(database="mlflow").replace("postgresql", "postgresql+psycopg2", 1)

    @cached_property
    def environment(self) -> dict[str, str]:
        metadata = self.database.url(database="airflow").removeprefix("postgresql")
        master = self.spark.address
        host, port = master.rsplit(":", 1)
        broker = f"redis://:{quote(BROKER_PASSWORD, safe='')}@{HOST}:{self.state['broker']}/0"
        changed = {
            **self.store.environment,
            "MEANDER_SPARK_MASTER": master,
            "MEANDER_MLFLOW_URI": self.mlflow_uri,
            "MEANDER_SERVING_URL": self.database.url(database="shop"),
            "MEANDER_ALERT_WEBHOOK": f"http://{HOST}:{self.state['nobody']}/{ALERT_SECRET}",
            # Not in a SPARK_CONF_DIR, with which no JVM would start from the archive of classes.
            "SPARK_SUBMIT_OPTS": f"{SHORT_LIVED_JVM} {java_properties(SPARK_DEFAULTS)}",
            "AIRFLOW_CONN_SPARK_DEFAULT": json.dumps({"conn_type": "spark", "host": host, "port": int(port)}),
            "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"postgresql+psycopg2{metadata}",
            "AIRFLOW__CELERY__BROKER_URL": broker,
            "AIRFLOW__CELERY__RESULT_BACKEND": f"db+postgresql{metadata}",
            "AIRFLOW__CELERY__WORKER_CONCURRENCY": "4",
            # Seconds for the broker to take a task; the default of 1 is too short for a busy machine.
            "AIRFLOW__CELERY__OPERATION_TIMEOUT": "60",
            "AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT": "86400",
            "AIRFLOW__CORE__AUTH_MANAGER": "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager",
            # Seconds until a DAG file is read again: none changes.
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "3600",
            # On one machine a shorter one hurries a single day on; here several runs keep the scheduler busy.
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "1",
            "AIRFLOW__CORE__FERNET_KEY": FERNET_KEY,
            "AIRFLOW__API__SECRET_KEY": SESSION_KEY,
            "AIRFLOW__API_AUTH__JWT_SECRET": TOKEN_KEY,
            # Two Airflows on one machine must not share the ports on which logs are served.
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(self.state["worker_log_port"]),
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(self.state["trigger_log_port"]),
            "AIRFLOW__LOGGING__REMOTE_LOGGING": "True",
            "AIRFLOW__LOGGING__REMOTE_BASE_LOG_FOLDER": f"s3://{BUCKET}/logs",
            "AIRFLOW__LOGGING__REMOTE_LOG_CONN_ID": "aws_default",
            # So that what is shown comes from the store.
            "AIRFLOW__LOGGING__DELETE_LOCAL_LOGS": "True",
            "AIRFLOW_CONN_AWS_DEFAULT": "aws://",
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
        self.database = postgres.Server()
        with self.database.connect() as admin:
            for name in ("airflow", "mlflow", "shop"):
                admin.execute(f"create database {name}")
        self.store = S3Server(self.home / "store.log")
        # A training writes to the registry from there, and no task is sent the password.
        registry = {"MEANDER_MLFLOW_URI": self.mlflow_uri}
        self.spark = SparkCluster(self.home / "spark", cores=2, memory="3g", environment=registry)
        ports = ("broker", "nobody", "worker_log_port", "trigger_log_port")
        self.remember(**{name: free_port() for name in ports})
        options = ["--port", str(self.state["broker"]), "--bind", HOST, "--save", "", "--requirepass", BROKER_PASSWORD]
        self.spawn("broker", [broker, *options])
        person = ["--firstname", "A", "--lastname", "Person", "--password", self.state["password"]]
        people = [
            ["users", "create", "--username", name, "--role", role, "--email", f"{name}@localhost", *person]
            for name, role in USERS.items()
        ]
        self.airflow_commands(["db", "migrate"], *people)
        self.spawn_airflow(PARTS)

    def airflow_commands(self, *commands: list[str]) -> None:
        """Run the airflow command with each of these arguments, in one process: most of the time is loading it."""
        run = [sys.executable, "-c", COMMANDS, json.dumps(commands)]
        done = subprocess.run(run, env=self.environment, cwd=self.home, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def stop(self) -> None:
        super().stop()
        if self.spark is not None:
            self.spark.stop()
        if self.database is not None:
            self.database.remove()
        if self.store is not None:
            self.store.stop()
        self.spark = self.database = self.store = None
