"""A step that is forked is the process that `python -m` would be, ends with its task, and outlives nobody."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fsspec.config
import psutil
import pytest

from dags.local.step_server import OURS, STEPS, keep, read_fsspec_variables
from dags.shared.forked import fork
from dags.shared.process import end_politely
from tests.dags.step_server import ROOT, StepServer
from tests.waiting import until

# Longer than any wait here: only who is ended does not sleep on.
SLEEP = "import time; time.sleep(900)"
# A step with a child that holds the same output, as a training with workers has.
FAMILY = f"""
import subprocess, sys
print(subprocess.Popen([sys.executable, "-c", {SLEEP!r}]).pid, flush=True)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StepServer]:
    made = StepServer(tmp_path_factory.mktemp("steps"))
    yield made
    made.stop()


@pytest.fixture
def impatient(tmp_path: Path) -> Iterator[StepServer]:
    """A server that gives a step half a second to end."""
    made = StepServer(tmp_path, patience=0.5)
    yield made
    made.stop()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[StepServer]:
    """A server that a test may kill."""
    made = StepServer(tmp_path)
    yield made
    made.stop()


def gone(number: int) -> bool:
    """Tell whether a process has ended; one that was not collected has."""
    try:
        return psutil.Process(number).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def require_gone(*numbers: int) -> None:
    """Make sure that processes end within a minute: it takes no work, and a test that hangs tells late."""
    ends = time.monotonic() + 60
    while left := [number for number in numbers if not gone(number)]:
        assert time.monotonic() < ends, f"{left} did not end"
        time.sleep(0.05)


def test_it_gets_its_arguments_variables_and_folder_and_nothing_of_the_server(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = "import json, os, sys; print(json.dumps([__name__, sys.argv[1:], dict(os.environ), os.getcwd()]))"
    status, printed = server.run(code, "--day", "2025-01-01", TZ="UTC", ODD="\udcff\n")
    name, arguments, variables, folder = json.loads(printed)
    assert (status, name, arguments, folder) == (0, "__main__", ["--day", "2025-01-01"], str(tmp_path))
    assert variables == {**server.environment, "TZ": "UTC", "ODD": "\udcff\n"}


def test_variables_count_that_python_reads_when_it_starts(server, tmp_path):
    (tmp_path / "beside.py").write_text("print('found')")
    here = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{server.environment['PYTHONPATH']}", "TZ": "Asia/Tokyo"}
    assert server.run("import beside, time; print(time.strftime('%Z'))", **here) == (0, "found\nJST\n")


def test_variables_count_that_fsspec_reads_when_it_is_imported(server, tmp_path):
    (tmp_path / "conf.json").write_text('{"gs": {"token": "anon"}}')
    code = "import json; from fsspec.config import conf; print(json.dumps(conf, sort_keys=True))"
    status, printed = server.run(code, FSSPEC_S3_ENDPOINT_URL="http://store", FSSPEC_CONFIG_DIR=str(tmp_path))
    assert (status, json.loads(printed)["gs"]) == (0, {"token": "anon"})
    assert json.loads(printed)["s3"] == {"endpoint_url": "http://store"}


def test_what_fsspec_knew_before_is_forgotten(monkeypatch, tmp_path):
    monkeypatch.setattr(fsspec.config, "conf", {"s3": {"key": "of the server"}})
    monkeypatch.setenv("FSSPEC_CONFIG_DIR", str(tmp_path))
    read_fsspec_variables()
    assert "s3" not in fsspec.config.conf


def test_what_it_prints_comes_in_order_and_at_once(server):
    step = server.step("import sys, time; print('one'); print('two', file=sys.stderr); time.sleep(900)")
    with step:
        assert [step.stdout.readline(), step.stdout.readline()] == ["one\n", "two\n"]


@pytest.mark.parametrize(
    ("code", "status", "last"),
    [
        ("print('well')", 0, "well"),
        ("import sys; sys.exit(3)", 3, ""),
        ("import sys; sys.exit('no such day')", 1, "no such day"),
        ("raise RuntimeError('no luck')", 1, "RuntimeError: no luck"),
        ("import os; os.kill(os.getpid(), 9)", -9, ""),
        # Python waits for its threads, and then asks who wants to be told of the end.
        (
            "import atexit, threading, time; atexit.register(print, 'bye');"
            "threading.Thread(target=lambda: (time.sleep(0.2), print('thread'))).start(); print('main')",
            0,
            "bye",
        ),
    ],
)
def test_it_ends_as_python_ends(server, code, status, last):
    ended, printed = server.run(code)
    assert (ended, (printed.splitlines() or [""])[-1]) == (status, last)
    assert "thread" in printed or "threading" not in code


def test_it_is_seen_in_a_list_of_processes_as_what_it_runs(server):
    with server.step(SLEEP, "--day", "2025-01-01") as step:
        command = f"{sys.executable} -m of_a_test --day 2025-01-01"
        until("the step to name itself", lambda: " ".join(psutil.Process(step.pid).cmdline()).strip() == command)


def test_code_of_ours_is_read_anew_and_libraries_are_there(server):
    code = f"import json, sys; print(json.dumps([n for n in sys.modules if n.partition('.')[0] in {OURS}]))"
    assert server.run(code) == (0, "[]\n")
    assert server.run("import sys; print('numpy' in sys.modules)") == (0, "True\n")


def test_no_two_draw_the_same_numbers(server):
    code = "import random, numpy; print(random.random(), numpy.random.random())"
    first, second = (server.run(code)[1].split() for _ in range(2))
    assert len({*first, *second}) == 4


def test_the_steps_of_every_table_are_imported():
    assert {"expectations.audit", "jobs.ingest", "jobs.sessionize", "jobs.interests", "model.score"} <= {*STEPS}


# --- how it ends ---


def test_a_child_that_outlives_it_is_ended_and_not_waited_for(server):
    with server.step(FAMILY) as step:
        (child,) = map(int, step.stdout)
    assert step.returncode == 0
    require_gone(child)


def test_it_ends_with_its_children_when_the_block_is_left(server):
    step = server.step(FAMILY + SLEEP)

    def interrupted() -> None:
        with step:
            assert step.stdout.readline()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert step.returncode == -signal.SIGTERM
    assert [process for process in psutil.process_iter() if group_of(process) == step.pid] == []


def group_of(process: psutil.Process) -> int | None:
    try:
        return None if process.status() == psutil.STATUS_ZOMBIE else os.getpgid(process.pid)
    except (psutil.NoSuchProcess, ProcessLookupError):
        return None


def test_it_ends_as_a_whole_when_it_is_asked_to(server):
    with server.step(FAMILY + SLEEP) as step:
        child = int(step.stdout.readline())
        end_politely(step)
        assert list(step.stdout) == []
    assert step.returncode == -signal.SIGTERM
    require_gone(child)


def test_one_that_does_not_end_politely_is_ended_for_good(impatient):
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf'); time.sleep(900)"
    with impatient.step(deaf) as step:
        assert step.stdout.readline() == "deaf\n"
    assert step.returncode == -signal.SIGKILL


@contextmanager
def task(server: StepServer) -> Iterator[tuple[subprocess.Popen[str], int, int]]:
    """Run a task as a process, and yield it with the numbers of its step and of the child of that."""
    (server.modules / "of_a_test.py").write_text(FAMILY + SLEEP)
    code = f"""
import time
from dags.shared.forked import fork
step = fork({str(server.socket)!r}, "of_a_test", [], {server.environment!r})
print(step.pid, step.stdout.readline(), flush=True)
time.sleep(900)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT) as started:
        try:
            step, child = map(int, started.stdout.readline().split())
            yield started, step, child
        finally:
            started.kill()


def test_it_does_not_outlive_a_task_that_is_killed(server):
    with task(server) as (started, step, child):
        started.kill()
        require_gone(step, child)


def test_it_does_not_outlive_its_keeper_where_its_task_does_nothing_about_it(server):
    with task(server) as (started, step, child):
        started.send_signal(signal.SIGSTOP)
        psutil.Process(step).parent().kill()
        require_gone(step)
    os.kill(child, signal.SIGKILL)  # of which nobody is left who knows


def test_it_does_not_outlive_its_keeper_and_is_tried_again(server):
    with server.step(FAMILY + SLEEP) as step:
        child = int(step.stdout.readline())
        psutil.Process(step.pid).parent().kill()
        require_gone(step.pid)
    assert step.returncode == -signal.SIGKILL, "which Airflow tries again"
    require_gone(child)


def test_a_reader_of_its_output_does_not_wait_for_the_child_of_one_whose_keeper_was_killed(server):
    with server.step(FAMILY + SLEEP) as step:
        child = int(step.stdout.readline())
        reader = threading.Thread(target=step.stdout.read, daemon=True)
        reader.start()
        psutil.Process(step.pid).parent().kill()
        reader.join(60)
        if waits := reader.is_alive():
            os.kill(child, signal.SIGKILL)
        assert not waits
    assert step.returncode == -signal.SIGKILL
    require_gone(child)


def test_a_kernel_that_cannot_watch_it_leaves_the_task_without_a_number(monkeypatch):
    """The keeper ends then, the kernel ends the step with it, and the task starts the step by itself."""

    def not_there(_: int) -> int:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(os, "pidfd_open", not_there)
    keeper, task = socket.socketpair()
    with keeper, task:
        with pytest.raises(OSError, match="not implemented"):
            keep(os.getpid(), keeper)
        keeper.close()
        assert task.recv(100) == b""


def test_it_goes_on_without_the_server(own_server):
    flag = own_server.modules / "go on"
    code = f"import pathlib, time\nprint('begun')\nwhile not pathlib.Path({str(flag)!r}).exists(): time.sleep(0.05)\n"
    with own_server.step(code + "raise SystemExit(7)") as step:
        assert step.stdout.readline() == "begun\n"
        own_server.stop()
        flag.touch()
        assert step.stdout.read() == ""
    assert step.returncode == 7
    assert own_server.step("") is None, "the next one starts by itself"


def test_where_no_server_ever_was_there_is_no_step(tmp_path):
    assert fork(str(tmp_path / "none.sock"), "of_a_test", [], {}) is None
    assert fork(str(tmp_path / "no" / "folder.sock"), "of_a_test", [], {}) is None


def test_a_request_that_says_nothing_harms_no_other(server):
    with socket.socket(socket.AF_UNIX) as visitor:
        folder = os.open(server.socket.parent, os.O_PATH)
        visitor.connect(f"/proc/self/fd/{folder}/{server.socket.name}")
        os.close(folder)
    assert server.run("print('well')") == (0, "well\n")


def test_when_libraries_are_installed_anew_steps_start_by_themselves(own_server):
    (own_server.socket.parent / "installed").touch()
    assert own_server.step("print('old libraries')") is None
    own_server.process.wait(600)
    assert not own_server.socket.exists()
