"""One Spark session for all tests, and a lake and landing of their own for each."""

import gc
import json
import logging
import os
import time
from collections.abc import Callable, Generator, Iterator
from datetime import date
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any
from uuid import uuid4

import hypothesis
import pytest
from xdist.scheduler import LoadFileScheduling

# Runs in an environment of its own, which has what ours has not.
collect_ignore = ["bench/sasrec.py"]

# Naive times in test rows mean UTC, whatever the zone of the machine.
os.environ["TZ"] = "UTC"
time.tzset()

# Beside Spark on two cores, how long an example takes says nothing. The same few examples in each run of the tests;
# `make torture` draws many, and others each time.
hypothesis.settings.register_profile("few", deadline=None, max_examples=25, derandomize=True, database=None)
hypothesis.settings.register_profile("torture", deadline=None, max_examples=500, print_blob=True)
hypothesis.settings.load_profile("few")

# It tells at the end of the process that it closes its connections, into a stream that pytest has closed.
logging.getLogger("py4j").setLevel(logging.WARNING)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Take the folder of the jars that Spark needs for S3; see `make test-s3a`."""
    parser.addoption("--s3a-jars", type=Path, help="folder of the jars of docker/s3a.xml")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect no garbage while tests are collected, and never look for it in what was imported by then.

    That stays, and walking through it again and again is a seventh of the work of the tests in TensorFlow.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


# Tests that take minutes, and begin first: left for the end, one process would be waited for by the others. Beside
# those that wait for servers and for each other run some that compute.
FIRST = (
    "tests/e2e/test_cluster",
    "tests/e2e/test_page",
    "tests/e2e/test_backfill",
    "tests/jobs/",
    "tests/expectations/",
    "tests/model/test_training_commands",
    # A process gets its next file before its last two tests: this short one has to wait for the cluster, and the long
    # one after it only for the backfill.
    "tests/dags/local/test_jvm",
    "tests/model/training/test_launch_hosts",
    "tests/docker/",
)
# Files that need the same dear thing go to one process, which makes it once: Airflow, or a session of Spark.
AIRFLOW = ("tests/e2e/test_page", "tests/e2e/test_backfill")
# Tests of Spark that share no session: they start processes of their own.
SPARK_OF_THEIR_OWN = ("tests/dags/local/", "tests/model/training/test_launch_hosts")


@cache
def shares_spark(file: Path) -> bool:
    """Tell whether tests of a file ask for the session of their process: a second one would be a second, cold JVM."""
    return "pytest.mark.spark" in file.read_text(encoding="utf-8")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the tests that take longest."""
    items.sort(key=lambda item: [not item.nodeid.startswith(name) for name in FIRST])


class ByWhatTheyNeed(LoadFileScheduling):
    """Gives a process a file as a whole, or all files that need the same dear thing."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        if file.startswith(AIRFLOW):
            return "Airflow"
        if not file.startswith(SPARK_OF_THEIR_OWN) and shares_spark(self.config.rootpath / file):
            return "Spark"
        return file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByWhatTheyNeed:
    """Distribute the tests over the processes of `pytest -n`."""
    return ByWhatTheyNeed(config, log)


@pytest.fixture(scope="session", autouse=True)
def _settings_of_the_tests() -> Iterator[None]:
    """Set what a shell may not leak into the tests, before any Spark session is made."""
    patch = pytest.MonkeyPatch()
    for name in list(os.environ):
        if name.startswith(("MEANDER_", "SPARK_", "AIRFLOW__")) and name != "AIRFLOW__CORE__LOAD_EXAMPLES":
            patch.delenv(name)
    # Tiny inputs: two shuffle partitions are quicker than two hundred, and still more than one.
    patch.setenv("MEANDER_SHUFFLE_PARTITIONS", "2")
    patch.setenv("MEANDER_DRIVER_MEMORY", "2g")
    # Two tasks at once on a machine of one core too: those of a barrier stage wait for each other.
    patch.setenv("MEANDER_SPARK_MASTER", "local[2]")
    from lake.jvm import SHORT_LIVED_JVM

    # Nothing runs often enough to be worth the second compiler.
    patch.setenv("SPARK_SUBMIT_OPTS", SHORT_LIVED_JVM)
    yield
    patch.undo()


@pytest.fixture(scope="session")
def spark(_settings_of_the_tests: None) -> Iterator[Any]:
    """The session that jobs get too: they ask for the one of this process."""
    from lake import small
    from lake.session import spark_session
    from lake.settings import settings

    # The few rows of a test are exchanged between tasks, as those of a large shop are.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(small, "ONE_TASK_BYTES", 0)
        yield spark_session("tests", settings())


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Point the settings at an empty lake and landing of this test, and return the folder that holds both."""
    monkeypatch.setenv("MEANDER_LAKE", str(tmp_path / "lake"))
    monkeypatch.setenv("MEANDER_LANDING", str(tmp_path / "landing"))
    monkeypatch.setenv("MEANDER_SOURCE", "canonical")
    return tmp_path


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Return an S3 server of this run."""
    from tests.s3_server import S3Server

    server = S3Server(tmp_path_factory.mktemp("s3") / "changes.log")
    yield server
    server.stop()


@pytest.fixture
def lake_on_s3(lake: Path, s3_server: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    """Point the settings at an empty lake and landing on that server, and return the address that holds both."""
    from tests.s3_server import BUCKET

    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    address = f"s3://{BUCKET}/{uuid4().hex}"
    monkeypatch.setenv("MEANDER_LAKE", f"{address}/lake")
    monkeypatch.setenv("MEANDER_LANDING", f"{address}/landing")
    return address


@pytest.fixture(scope="session")
def postgres() -> Iterator[Any]:
    """Return a PostgreSQL server of this run."""
    from tests.postgres import Server

    server = Server()
    yield server
    server.remove()


@pytest.fixture
def serving(lake: Path, postgres: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Point the settings at a new, empty database of that server, and return a connection of its administrator."""
    import psycopg

    name = f"t{uuid4().hex}"
    with postgres.connect() as admin:
        admin.execute(f"create database {name}")
    monkeypatch.setenv("MEANDER_SERVING_URL", postgres.url(database=name))
    with psycopg.connect(postgres.url(database=name), autocommit=True) as connection:
        yield connection
    with postgres.connect() as admin:
        admin.execute(f"drop database {name} with (force)")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, Any], None]:
    """Compare a text, or what JSON can hold, with a file of the folder `golden` next to the test.

    After a change on purpose, UPDATE_GOLDEN=1 in the environment writes the file; review shows what has changed in it.
    """

    def compare(name: str, content: Any) -> None:
        file = request.path.parent / "golden" / name
        text = content if isinstance(content, str) else json.dumps(content, indent=2) + "\n"
        if os.environ.get("UPDATE_GOLDEN"):
            file.parent.mkdir(exist_ok=True)
            file.write_text(text, encoding="utf-8")
        assert file.exists(), f"no golden file {file}; look at the output, then run with UPDATE_GOLDEN=1"
        assert text == file.read_text(encoding="utf-8")

    return compare


@pytest.fixture
def golden_help(
    golden: Callable[[str, Any], None], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], None]:
    """Compare what `python -m MODULE --help` prints with the golden file `MODULE.txt`."""

    def compare(module: str) -> None:
        monkeypatch.setenv("COLUMNS", "110")
        main = import_module(module).main
        with pytest.raises(SystemExit) as stopped:
            main(["--help"])
        assert stopped.value.code == 0
        golden(f"{module}.txt", capsys.readouterr().out)

    return compare


@pytest.fixture
def land(lake: Path) -> Callable[..., Path]:
    """Write rows (dicts of the canonical columns, or ready text lines) as a landing file of a day."""

    def write(day: date | str, rows: list[dict[str, Any] | str], name: str = "part-0.jsonl") -> Path:
        file = lake / "landing" / f"dt={day}" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        file.write_text("".join(f"{line}\n" for line in lines))
        return file

    return write
