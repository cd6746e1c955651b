"""Run pytest again and again, each time in a fork of a process that has imported large libraries once: its arguments.

A script that knows nothing of the project, so that a fork imports the project from the folder it is given. It reads a
line of JSON for each run, `{"folder": ..., "arguments": [...], "output": ...}`, and prints the exit status, or `null`
if it hung.
"""

import json
import os
import signal
import sys
import time
import warnings

# Only a change that makes a test wait for ever takes so long.
HANGS_SECONDS = 900


def run(folder: str, arguments: list[str], output: str) -> int:
    """Run pytest in a folder, before whose packages no others come, and return its exit status."""
    import pytest

    os.setsid()
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.chdir(folder)
    os.environ["PYTHONPATH"] = folder
    sys.path.insert(0, folder)
    return int(pytest.main(arguments))


def status_of(child: int) -> int | None:
    """Wait for a child, end what it has left running, and return its exit status; None if it hung."""
    ends = time.monotonic() + HANGS_SECONDS
    status: int | None = None
    while status is None and time.monotonic() < ends:
        ended, how = os.waitpid(child, os.WNOHANG)
        status = os.waitstatus_to_exitcode(how) if ended else None
        time.sleep(0.05)
    try:
        os.killpg(child, signal.SIGKILL)
    except ProcessLookupError:
        return status
    if status is None:
        os.waitpid(child, 0)
    return status


def main() -> None:
    """Import, then fork for each line."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in sys.argv[1:]:
            __import__(name)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            status = 99
            try:
                status = run(**json.loads(line))
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
        sys.stdout.write(f"{json.dumps(status_of(child))}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
