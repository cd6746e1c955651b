"""What `make up` and `make mlflow` start on this machine: who gets in, and what other users of it can read.

Spark's server is started here without Airflow; what all of it listens on, with tasks at work, is in
tests/e2e/test_backfill.py.
"""

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from dags.local.client import ANSWER_SECONDS, USER
from dags.local.commands import status
from dags.local.ports import HOST, free_port, port_open
from dags.local.standalone import LocalAirflow
from dags.shared.evaluation import LOCAL_MLFLOW
from lake.jvm import SHORT_LIVED_JVM
from tests.listening import doors, family, on_loopback, open_to_others
from tests.planted import SECRETS, STORE, planted
from tests.waiting import until

COUNTS = """
from lake.session import spark_session
from lake.settings import settings
print("rows", spark_session("test", settings()).range(7).count())
"""


class Noted(LocalAirflow):
    """Notes what its processes get: one that gives itself a title writes it over its variables."""

    def __init__(self, home: Path, given: dict[str, str], **more: str):
        super().__init__(home, given, **more)
        self.variables: dict[str, dict[str, str]] = {}

    def spawn(self, name: str, command: list[str], environment: dict[str, str] | None = None) -> None:
        self.variables |= {name: environment or self.environment, "airflow": self.environment}
        super().spawn(name, command, environment)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Noted]:
    """The Connect server of `make up`, in a shell with secrets that it has no use for."""
    home = tmp_path_factory.mktemp("up")
    home.chmod(0o755)  # as it was made by earlier versions
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SECRETS.items():
            patch.setenv(name, value)
        local = Noted(home, {}, spark_options=SHORT_LIVED_JVM)
        local.make_private_home()
        local.remember(port=free_port(), spark_port=free_port(), spark_token="of this start", settings={})
        local.make_password()
        local.spawn_spark()
        local.spawn_steps()
        local.wait("spark", lambda: port_open(local.state["spark_port"]))
        local.wait("steps", local.step_server.exists)
    yield local
    local.stop()


def client(local: LocalAirflow, token: str | None) -> subprocess.CompletedProcess[str]:
    """Count rows on the server, as a task does, with a token or without."""
    environment = local.environment | {"SPARK_CONNECT_AUTHENTICATE_TOKEN": token or ""}
    if not token:
        del environment["SPARK_CONNECT_AUTHENTICATE_TOKEN"]
    command = [sys.executable, "-c", COUNTS]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.spark
def test_who_has_the_token_may_use_spark_and_nobody_else(server):
    tasks = client(server, server.environment["SPARK_CONNECT_AUTHENTICATE_TOKEN"])
    assert "rows 7" in tasks.stdout, tasks.stderr
    for token in (None, "another one"):
        stranger = client(server, token)
        assert "rows" not in stranger.stdout
        assert "UNAUTHENTICATED" in stranger.stderr, stranger.stderr


def test_nobody_else_has_steps_forked_and_who_forks_them_knows_no_secret(server):
    assert open_to_others(server.groups["steps"].members()) == set()
    assert stat.S_IMODE(server.step_server.stat().st_mode) & 0o077 == 0
    assert "MEANDER_SERVING_URL" in planted(server.variables["airflow"]), "who needs it knows it"
    assert planted(server.variables["steps"]) == set()


@pytest.mark.spark
def test_spark_listens_on_loopback_alone_and_gets_no_secret_that_it_has_no_use_for(server):
    members = server.groups["spark"].members()
    assert any(port == server.state["spark_port"] for _, port, _ in doors(members))
    assert open_to_others(members) == set()
    assert planted(server.variables["spark"]) <= STORE
    for process in members:
        assert planted(process.environ()) <= STORE
        assert "of this start" not in " ".join(process.cmdline()), "every user of a machine sees all command lines"


@pytest.fixture
def local(tmp_path: Path) -> Iterator[LocalAirflow]:
    """What is kept of a start, and a process of it."""
    home = tmp_path / "home"
    home.mkdir(mode=0o755)  # as earlier versions made it
    local = LocalAirflow(home, {})
    local.make_private_home()
    local.remember(port=free_port(), spark_port=free_port(), spark_token="of this start", settings={})
    local.make_password()
    code = f"import time; open({str(tmp_path / 'written')!r}, 'w').write('x'); time.sleep(900)"
    local.spawn("airflow", [sys.executable, "-c", code])
    until("the process to write", (tmp_path / "written").exists)
    yield local
    local.stop()


def test_no_other_user_reads_what_is_kept_of_a_start(local):
    assert stat.S_IMODE(local.home.stat().st_mode) == 0o700
    # Nor what the processes write elsewhere, such as a lake.
    assert stat.S_IMODE((local.home.parent / "written").stat().st_mode) == 0o600


def test_people_are_told_where_the_password_is_and_not_what(local, capsys):
    status(local)
    said = capsys.readouterr().out
    assert local.password not in said
    assert f"password in {local.home / 'password.json'}" in said
    assert json.loads((local.home / "password.json").read_text()) == {USER: local.password}


@pytest.mark.parametrize(("lake", "rights"), [("", 0o700), ("{}/.meander/own/lake", 0o700), ("{}/shared", 0o755)])
def test_the_command_keeps_the_default_folder_to_its_owner_and_no_other(tmp_path, lake, rights):
    """A person's own folder is theirs; whoever shares a lake has said so by its place."""
    code = "import os; from dags.cli.main import main; os.umask(0o022)\ntry: main()\nfinally: os.mkdir('made')"
    environment = {**os.environ, "MEANDER_LAKE": lake.format(tmp_path)}
    command = [sys.executable, "-c", code, "settings"]
    subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, check=True)
    assert stat.S_IMODE((tmp_path / "made").stat().st_mode) == rights


@pytest.mark.e2e
def test_mlflows_page_asks_for_the_password_and_listens_on_loopback(tmp_path):
    port = int(LOCAL_MLFLOW.rsplit(":", 1)[1])
    if port_open(port):
        pytest.skip(f"somebody listens on {LOCAL_MLFLOW}")
    environment = {**os.environ, "MEANDER_HOME": str(tmp_path / "home"), "PYTHONUNBUFFERED": "1"}
    with (
        (tmp_path / "log").open("wb") as log,
        subprocess.Popen(
            [sys.executable, "-m", "dags.local", "mlflow"], env=environment, stdout=log, stderr=log,
            start_new_session=True,
        ) as started,
    ):  # fmt: skip
        try:

            def answers() -> bool:
                assert started.poll() is None, (tmp_path / "log").read_text()
                return port_open(port)

            until("MLflow's page", answers)
            local = LocalAirflow(tmp_path / "home", {})
            runs = f"{LOCAL_MLFLOW}/api/2.0/mlflow/experiments/search?max_results=5"
            asked = {
                secret: requests.get(runs, auth=(USER, secret), timeout=ANSWER_SECONDS).status_code
                for secret in (local.password, "another one")
            }
            assert asked == {local.password: 200, "another one": 401}
            assert requests.get(LOCAL_MLFLOW, timeout=ANSWER_SECONDS).status_code == 401
            assert local.password not in (tmp_path / "log").read_text()
            found = doors(family(started.pid))
            assert (HOST, port) in {(address, port) for address, port, _ in found}
            assert all(on_loopback(address) for address, _, _ in found)
        finally:
            os.killpg(started.pid, signal.SIGKILL)
