"""A process group ends as a whole: with its leader, with us, and even when we are killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dags.shared import process
from dags.shared.process import end_politely, process_group

# Longer than any wait here: only who is ended does not sleep on.
SLEEP = "import time; time.sleep(240)"
# A leader with a child that holds the same output, as a training with workers does.
FAMILY = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {SLEEP!r}])
print(child.pid, flush=True)
"""


def python(code):
    return [sys.executable, "-c", code]


def gone(number, within=60):
    """Tell whether a process ends within some seconds; one that has ended but was not collected counts as ended."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.05)
    return False


def test_output_comes_line_by_line_and_the_exit_code_at_the_end():
    code = "import sys; print('one', flush=True); print('two', file=sys.stderr, flush=True); sys.exit(3)"
    with process_group(python(code), os.environ) as leader:
        assert [line.rstrip() for line in leader.stdout] == ["one", "two"]
    assert leader.returncode == 3


def test_nobody_waits_for_a_child_that_outlives_its_leader():
    began = time.monotonic()
    with process_group(python(FAMILY), os.environ) as leader:
        (child,) = [int(line) for line in leader.stdout]
    assert time.monotonic() - began < 120, "the output stayed open until the child ended by itself"
    assert leader.returncode == 0
    assert gone(child)


def test_a_group_is_ended_when_the_block_is_left_by_an_error():
    seen = []

    def interrupted():
        with process_group(python(FAMILY + SLEEP), os.environ) as leader:
            seen.extend([leader, int(leader.stdout.readline())])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    leader, child = seen
    assert leader.returncode == -signal.SIGTERM
    assert gone(child)


def test_a_group_that_is_asked_to_end_does_so_as_a_whole():
    with process_group(python(FAMILY + SLEEP), os.environ) as leader:
        child = int(leader.stdout.readline())
        end_politely(leader)
        assert list(leader.stdout) == []
    assert leader.returncode == -signal.SIGTERM
    assert gone(child)
    end_politely(leader)  # once more does no harm


def test_who_does_not_end_politely_is_ended_for_good(monkeypatch):
    # Half a second of patience instead of ten.
    monkeypatch.setattr(process, "GUARD", process.GUARD.replace("seq 100", "seq 5"))
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True);"
    with process_group(python(f"{deaf} import time; time.sleep(60)"), os.environ) as leader:
        assert leader.stdout.readline() == "deaf\n"
    assert leader.returncode == -signal.SIGKILL


def test_a_group_does_not_outlive_who_started_it_and_was_killed():
    owner = f"""
import os
from dags.shared.process import process_group
with process_group({python(FAMILY + SLEEP)!r}, os.environ) as leader:
    print(leader.pid, leader.stdout.readline(), flush=True)
    leader.wait()
"""
    with subprocess.Popen(python(owner), stdout=subprocess.PIPE, text=True) as started:
        leader, child = map(int, started.stdout.readline().split())
        started.kill()
    assert gone(leader)
    assert gone(child)
