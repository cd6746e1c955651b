"""A lake and landing files on S3: Spark on a cluster, delta-rs and Petastorm make there what they make on a disk."""

import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import fsspec
import pytest

from lake.jvm import FRUGAL
from lake.settings import settings
from lake.storage import list_files
from lake.table import Table
from model.versions.registry import Registry
from tests.lake.published import rows
from tests.s3_server import BUCKET, S3Server
from tests.spark_cluster import SparkCluster
from tests.tables import of_dag
from tests.waiting import until

pytestmark = pytest.mark.e2e

FIRST, AS_OF = date(2025, 2, 1), date(2025, 3, 8)
DAY = AS_OF + timedelta(days=1)
WEEKLY = ("--every", "7")
TABLES = of_dag("behavior_daily")
# With the second compiler, an executor spent nearly half of its CPU time on compiling.
SPARK_DEFAULTS = """
spark.executor.extraJavaOptions {options}
spark.driver.extraClassPath {jars}/*
spark.executor.extraClassPath {jars}/*
spark.cores.max 2
spark.executor.cores 1
spark.executor.memory 1g
spark.driver.bindAddress 127.0.0.1
spark.driver.host 127.0.0.1
spark.ui.enabled false
spark.sql.shuffle.partitions 4
"""


@pytest.fixture(scope="module")
def jars(request: pytest.FixtureRequest) -> Path:
    """Return the folder of the jars that Spark needs for S3."""
    folder: Path | None = request.config.getoption("--s3a-jars")
    if folder is None:
        pytest.skip("Spark needs jars for S3: make test-s3a")
    return folder.resolve()


@pytest.fixture(scope="module")
def expected(jars: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Make the log and the tables on a local disk; return their rows after the history and after one more day."""
    folder = tmp_path_factory.mktemp("local")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEANDER_LANDING", str(folder / "landing"))
        patch.setenv("MEANDER_LAKE", str(folder / "lake"))
        patch.setenv("MEANDER_HORIZON_DAYS", "7")
        days = str((DAY - FIRST).days + 1)
        small = ("--categories", "8", "--items", "20", "--crawlers", "0", "--whale", "0")
        run("jobs.simulate", "--from", FIRST, "--days", days, "--events", "6000", "--users", "60", *small)
        run("dags.cli", "daily", "--from", FIRST, "--to", AS_OF, "--chunk-days", "999", *WEEKLY)
        history = all_rows()
        run("dags.cli", "daily", "--from", DAY, "--to", DAY)
        return {"history": history, "day": all_rows(), "folder": str(folder)}


@pytest.fixture(scope="module")
def s3(jars: Path, expected: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """Start a store that holds the same log, and a Spark cluster; the settings point at both."""
    folder = tmp_path_factory.mktemp("s3")
    (folder / "conf").mkdir()
    (folder / "conf" / "spark-defaults.conf").write_text(SPARK_DEFAULTS.format(jars=jars, options=FRUGAL))
    server = S3Server(folder / "changes.log")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        patch.setenv("MEANDER_LANDING", f"s3://{BUCKET}/landing")
        patch.setenv("MEANDER_LAKE", f"s3://{BUCKET}/lake")
        patch.setenv("MEANDER_MLFLOW_URI", f"sqlite:///{folder / 'mlflow.db'}")
        patch.setenv("MEANDER_HORIZON_DAYS", "7")
        patch.setenv("SPARK_CONF_DIR", str(folder / "conf"))
        # As any tool of a shop would bring it there.
        fsspec.filesystem("s3").put(f"{expected['folder']}/landing", f"{BUCKET}/landing", recursive=True)
        cluster = SparkCluster(folder / "spark", cores=2, memory="3g")
        patch.setenv("MEANDER_SPARK_MASTER", cluster.address)
        yield server
        cluster.stop()
    server.stop()


def all_rows() -> dict[str, list[str]]:
    """Return those of all tables; of where a landing file lies, quarantine keeps what is below the landing folder."""
    landing = settings().landing if "://" in settings().landing else f"file:{settings().landing}"
    return {table: sorted(row.replace(landing, "") for row in rows(table)) for table in TABLES}


def differences(found: dict[str, list[str]], expected: dict[str, list[str]]) -> list[str]:
    """Return a few of the rows that are in one of them only, instead of the thousands that pytest would show."""
    told = []
    for table in TABLES:
        surplus, missing = Counter(found[table]), Counter(expected[table])
        for sign, rest in (("+", surplus - missing), ("-", missing - surplus)):
            told += [f"{sign} {table}: {row}" for row in sorted(rest.elements())[:3]]
    return told


def run(module: str, *arguments: object) -> None:
    subprocess.run([sys.executable, "-m", module, *map(str, arguments)], check=True)


def publish(run_id: str, *tables: str) -> None:
    named = [part for table in tables for part in ("--table", table)]
    run("expectations.audit", *named, "--run-id", run_id)
    run("lake.publish", *named, "--run-id", run_id)


def kill_when_it_writes(server: S3Server, place: str, *command: object) -> None:
    """Start a command in a process group of its own, and kill that when it writes to a place."""
    before = len(server.changes())
    process = subprocess.Popen([sys.executable, "-m", *map(str, command)], start_new_session=True)

    def writes() -> bool:
        assert process.poll() is None
        return any(place in change for change in server.changes()[before:])

    until(f"{command} to write to {place}", writes, every=0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_the_tables_are_those_of_a_disk_also_when_a_run_was_killed_and_nothing_is_renamed(s3, expected):
    run("dags.cli", "daily", "--from", FIRST, "--to", AS_OF, "--chunk-days", "999", *WEEKLY)
    assert differences(all_rows(), expected["history"]) == []

    day = ("dags.cli", "daily", "--from", DAY, "--to", DAY)
    kill_when_it_writes(s3, "/lake/sessions/stage=", *day)
    only_events = {
        table: expected["day" if table in ("quarantine", "events") else "history"][table] for table in TABLES
    }
    assert differences(all_rows(), only_events) == [], "what was published is there, what is half written is not"
    run(*day)
    assert differences(all_rows(), expected["day"]) == []

    changes = s3.changes()
    assert [change for change in changes if change.endswith(" copy")] == [], "S3 can only rename by a copy"
    commits = [change for change in changes if re.search(r"PUT \S*/_delta_log/\d{20}\.json", change)]
    assert len(commits) >= 3 * len(TABLES), "each table was made, and published to twice"
    assert all(change.endswith(" if-none-match") for change in commits), "one that is there is never replaced"


def test_a_model_learns_and_predicts_from_there(s3, expected):
    run("jobs.examples", "--from", FIRST, "--to", AS_OF - timedelta(days=7), *WEEKLY, "--missing", "--run-id", "x")
    publish("x", "examples")
    run("model.prepare", "--day", AS_OF, "--run-id", "r", "--valid-dates", "1", "--test-dates", "1")
    small = ("--run-id", "r", "--epochs", "1", "--batch", "32")
    run("model.pretrain", *small, "--workers", "2", "--launcher", "spark")
    run("model.finetune", *small)
    run("model.evaluate", "--run-id", "r", "--resamples", "20")
    registry = Registry.of(settings())
    version = registry.candidate()
    assert version is not None
    run("model.promote", "--model-version", version, "--since", AS_OF)

    run("model.score", "--day", DAY, "--run-id", "p")
    publish("p", "predictions")
    predictions = Table("predictions")
    assert predictions.rows_by("dt") == {DAY: Table("interests").rows_by("dt")[DAY]}
    user = predictions.head(DAY, 1)[0]["user_id"]
    run("dags.cli", "explain", user, "--day", DAY)
    run("dags.cli", "monitor", "--day", DAY)
    assert list_files(registry.artifact_folder(version)), "what is champion lies there too"
