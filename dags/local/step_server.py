"""The process from which steps are forked on one machine: `python -m dags.local.step_server SOCKET`.

A step of a small day takes longer to import Great Expectations, PySpark and pandas than to do its work. This process
imports them once. For each step that a task asks for (dags/shared/forked.py) it forks a keeper, and that the step:

- the step runs our module as `python -m` does. Our own code is read anew each time; libraries alone are kept.
- the keeper tells the task the number of the step and how it has ended. It ends the step's process group when the step
  ends, and when the task does: by SIGTERM, so that files can be closed, and ten seconds later by SIGKILL. Should the
  keeper be killed, the kernel ends the step.

Whatever happens to the server itself, steps at work go on. It ends when libraries are installed anew; steps then start
by themselves.
"""

import ctypes
import gc
import json
import logging
import os
import runpy
import select
import shlex
import signal
import socket
import sys
import time
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import fsspec.config
import numpy as np
from setproctitle import getproctitle, setproctitle

from lake.errors import LOG_FORMAT
from lake.tables import GROUPS, made_by

# What they import is what steps need.
STEPS = ("expectations.audit", *sorted({made_by(table) for table in GROUPS}))
OURS = ("dags", "expectations", "jobs", "lake", "model")
# `make setup` writes it when it has installed something.
INSTALLED = Path(sys.prefix, ".installed")
PATIENCE_SECONDS = 10  # between SIGTERM and SIGKILL
END_WITH_PARENT = 1  # PR_SET_PDEATHSIG

log = logging.getLogger("step_server")


def import_libraries() -> None:
    """Import what the steps import, and forget of it what is ours."""
    for module in STEPS:
        import_module(module)
    for name in [*sys.modules]:
        if name.partition(".")[0] in OURS:
            del sys.modules[name]
    # A fork shares the memory that nobody writes to, and looking for garbage writes to every object.
    gc.collect()
    gc.freeze()


def serve(door: socket.socket) -> dict[str, Any] | None:
    """Fork for each task that asks, until libraries are installed anew; return in a step alone, what is asked of it."""
    began = installed()
    signal.signal(signal.SIGCHLD, collect)
    while True:
        task, _ = door.accept()
        if installed() != began:
            log.info("libraries have been installed anew: steps start by themselves until the next `make down up`")
            return None
        if os.fork() == 0:
            door.close()
            try:
                step, asked = fork_step(task)
                if step == 0:
                    return asked
                keep(step, task)
            except Exception:
                log.exception("a step was not begun")
            os._exit(0)
        task.close()


def collect(*_: object) -> None:
    """Collect keepers that have ended, so that the CPU time of their steps counts as ours."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def installed() -> float:
    """Return when something was installed last; 0 in an environment that `make setup` has not made."""
    return INSTALLED.stat().st_mtime if INSTALLED.exists() else 0.0


def fork_step(task: socket.socket) -> tuple[int, dict[str, Any]]:
    """Read what a task asks for, and fork; return the number of the step, 0 in the step, and what is asked of it."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _, (output,), *_ = socket.recv_fds(task, 1, 1)
    with task.makefile("rb") as lines:
        asked = json.loads(lines.readline())
    keeper = os.getpid()
    step = os.fork()
    if step == 0:
        os.setpgid(0, 0)
        ctypes.CDLL(None).prctl(END_WITH_PARENT, signal.SIGKILL)
        if os.getppid() != keeper:  # it was killed before
            os._exit(1)
        task.close()
    else:
        # Here too, since nobody knows who comes first; if the step has, this may no longer be allowed.
        with suppress(OSError):
            os.setpgid(step, step)
        os.close(output)
    return step, {**asked, "output": output}


def keep(step: int, task: socket.socket) -> None:
    """Wait until a step or its task ends, end what is left of the step, and tell the task its exit code."""
    # First: where it cannot be had, the task gets no number, and starts the step by itself.
    ended = os.pidfd_open(step)
    with suppress(OSError):  # the task has ended: so `select` says
        task.sendall(b"%d\n" % step)
    select.select([ended, task.fileno()], [], [])
    code = end_group(step)
    with suppress(OSError):
        task.sendall(b"%d\n" % code)


def end_group(step: int) -> int:
    """End the process group of a child of ours, at first politely, and return the child's exit code."""
    code = None
    for how in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(step, how)
        patient_until = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < patient_until:
            if code is None:
                ended, status = os.waitpid(step, os.WNOHANG)
                code = os.waitstatus_to_exitcode(status) if ended else None
            try:
                os.killpg(step, 0)
            except ProcessLookupError:
                assert code is not None, "a group has its leader until it is collected"
                return code
            time.sleep(0.02)
    return os.waitstatus_to_exitcode(os.waitpid(step, 0)[1]) if code is None else code


def run(module: str, arguments: list[str], environment: dict[str, str], folder: str, output: int) -> None:
    """Be the process of `python -m module`, as far as anybody can tell."""
    for stream in (1, 2):
        os.dup2(output, stream)
    os.close(output)
    os.chdir(folder)
    before = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    now = environment.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:] = [*filter(None, now), *(entry for entry in sys.path if entry not in before)]
    read_fsspec_variables()
    # Python seeds its own generator in each fork.
    np.random.seed()
    sys.argv = [module, *arguments]
    setproctitle(shlex.join([sys.executable, "-m", module, *arguments]))
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def read_fsspec_variables() -> None:
    """Let fsspec read its variables and files again: it reads them when it is imported, and a step has its own."""
    fsspec.config.conf.clear()
    folder = os.environ.get("FSSPEC_CONFIG_DIR") or Path("~/.config/fsspec").expanduser()
    fsspec.config.set_conf_files(str(folder), fsspec.config.conf)
    fsspec.config.set_conf_env(fsspec.config.conf)


def say_in_the_log() -> None:
    """Let `log` write, and leave the root logger to the steps."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(LOG_FORMAT))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False


def main() -> None:
    """Import, then serve; in a step, run it."""
    address = Path(sys.argv[1])
    say_in_the_log()
    # It finds the place of a process's name by its variables, which a step changes: so once before.
    getproctitle()
    import_libraries()
    # Relative: an address may have 107 bytes, and paths are longer.
    os.chdir(address.parent)
    address.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(address.name)
        door.listen()
        log.info("steps are forked from here")
        asked = serve(door)
        if asked is None:
            Path(address.name).unlink()
    if asked is not None:
        run(**asked)


if __name__ == "__main__":
    main()
