"""Process groups: found again by another command, ended as a whole, and never mistaken for somebody else's."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, replace

import psutil
import pytest

from dags.local import processes
from dags.local.processes import ProcessGroup

# Far longer than any test: only who is ended does not sleep on.
SLEEP = "import time; time.sleep(900)"
# A process that starts another one and names it.
PARENT = f"""
import subprocess, sys
print(subprocess.Popen([sys.executable, "-c", {SLEEP!r}]).pid, flush=True)
"""
# Does not end when it is asked to, and says when it has got so far.
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True)\n" + SLEEP

Start = Callable[[str], tuple[subprocess.Popen[str], ProcessGroup, str]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start the leader of a group; returns it, the group and the first line that it prints."""
    leaders: list[subprocess.Popen[str]] = []

    def start_leader(code: str) -> tuple[subprocess.Popen[str], ProcessGroup, str]:
        command = [sys.executable, "-c", code]
        leader = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True, text=True)
        leaders.append(leader)
        assert leader.stdout is not None
        return leader, ProcessGroup.led_by(leader.pid), leader.stdout.readline().strip()

    yield start_leader
    for leader in leaders:
        with suppress(ProcessLookupError):
            os.killpg(leader.pid, signal.SIGKILL)
        leader.communicate()


def runs(process: int) -> bool:
    """Tell whether a process runs; one that has ended and was not collected does not."""
    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def pids(group: ProcessGroup) -> set[int]:
    return {process.pid for process in group.members()}


def test_a_group_is_ended_with_its_children(start):
    leader, group, child = start(PARENT + SLEEP)
    assert pids(group) == {leader.pid, int(child)}
    group.end()
    assert not group.alive
    assert (runs(leader.pid), runs(int(child))) == (False, False)


@pytest.mark.parametrize("collected", [False, True])
def test_a_child_is_ended_whose_parent_is_gone(start, collected):
    leader, group, child = start(PARENT)
    if collected:
        leader.wait()
    else:
        # It has ended, and its number is still taken.
        os.waitid(os.P_PID, leader.pid, os.WEXITED | os.WNOWAIT)
        assert psutil.Process(leader.pid).status() == psutil.STATUS_ZOMBIE
    assert pids(group) == {int(child)}
    group.end()
    assert not group.alive
    assert not runs(int(child))


def test_what_does_not_end_when_it_is_asked_to_is_ended_for_good(start, monkeypatch):
    _, group, said = start(DEAF)
    assert said == "deaf"
    monkeypatch.setattr(processes, "ENDINGS", ((signal.SIGTERM, 0.5),))
    group.end()
    assert group.alive
    monkeypatch.setattr(processes, "ENDINGS", ((signal.SIGTERM, 0.5), (signal.SIGKILL, 60)))
    group.end()
    assert not group.alive


def test_a_group_whose_number_now_belongs_to_another_is_left_alone(start):
    leader, group, _ = start(PARENT + SLEEP)
    earlier = replace(group, born=group.born - 60)
    assert not earlier.alive
    earlier.end()
    assert runs(leader.pid)


def test_a_group_is_found_again_and_ended_by_another_command(start):
    leader, group, child = start(PARENT + SLEEP)
    written = json.dumps(asdict(group))
    end = (
        "import json, sys; from dags.local.processes import ProcessGroup; ProcessGroup(**json.loads(sys.argv[1])).end()"
    )
    subprocess.run([sys.executable, "-c", end, written], check=True)
    assert (runs(leader.pid), runs(int(child))) == (False, False)


def test_a_group_is_found_again_after_the_clock_was_set(start, monkeypatch):
    _, group, _ = start(PARENT + SLEEP)
    # All times since 1970 are counted from that of the start of the machine.
    told = psutil.boot_time()
    monkeypatch.setattr(psutil._psplatform, "boot_time", lambda: told + 3600)
    assert psutil.boot_time() == told + 3600
    assert group.alive
