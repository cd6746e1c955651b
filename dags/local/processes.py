"""Process groups that outlive the command that started them: found again by a later one, and ended as a whole."""

import contextlib
import os
import signal
import time
from dataclasses import dataclass

import psutil

# How a group is asked to end, and how many seconds it gets for that.
ENDINGS = ((signal.SIGTERM, 20), (signal.SIGKILL, 60))
# The start of the machine is known in whole seconds only.
SAME_START_SECONDS = 2


@dataclass(frozen=True)
class ProcessGroup:
    """A process group that we have started, as it is written down for the command that is to end it.

    Attributes:
        group: its number, which is that of its first process.
        born: when that process began, in seconds since the machine started. Numbers are used again, but not the number
            of a group that has a member.
    """

    group: int
    born: float | None

    @classmethod
    def led_by(cls, process: int) -> "ProcessGroup":
        """Return the group of a process that was started as the leader of a new one, and was not collected yet."""
        return cls(process, seconds_after_boot(psutil.Process(process)))

    def members(self) -> list[psutil.Process]:
        """Return what runs of the group, also processes whose parent is gone; none if its number belongs to another."""
        with contextlib.suppress(psutil.NoSuchProcess):
            began = seconds_after_boot(psutil.Process(self.group))
            if self.born is not None and abs(began - self.born) > SAME_START_SECONDS:
                return []
        return [process for process in psutil.process_iter() if runs_in(process, self.group)]

    @property
    def alive(self) -> bool:
        """Whether any process of the group runs."""
        return bool(self.members())

    def end(self) -> None:
        """End every process of the group, politely at first, and wait until none runs."""
        for how, seconds in ENDINGS:
            if not self.alive:
                return
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.group, how)
            deadline = time.monotonic() + seconds
            # Again and again: one that is asked to end may start another one first.
            while (members := self.members()) and (left := deadline - time.monotonic()) > 0:
                # Not longer: one whose parent does not collect it has ended, but its number stays.
                psutil.wait_procs(members, timeout=min(left, 0.2))


def seconds_after_boot(process: psutil.Process) -> float:
    """Return when a process began, counted from the start of the machine: its clock may be set meanwhile."""
    born: float = process.create_time() - psutil.boot_time()
    return born


def runs_in(process: psutil.Process, group: int) -> bool:
    """Tell whether a process belongs to a group and has not ended; one that was not collected has ended."""
    try:
        return os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE
    except (ProcessLookupError, psutil.NoSuchProcess):
        return False
