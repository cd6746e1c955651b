"""Run a command in its own process group, and terminate that group when this process exits, even on SIGKILL."""

import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Protocol

# Waits for the end of its input, which comes when this process closes it, exits or is killed: none of these can fail to
# close it. Then it ends the group: by SIGTERM, so that a trainer can close its files, and ten seconds later by SIGKILL.
GUARD = """
read -r _
kill -s TERM -- "-$0"
for _ in $(seq 100); do kill -s 0 -- "-$0" || exit; sleep 0.1; done
kill -s KILL -- "-$0"
"""


@contextmanager
def process_group(command: Sequence[str], environment: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    """Start a command; its `stdout` is the output of all its processes. After the block, it has its `returncode`.

    The group ends with its leader, with the `with` block, and with this process, even if that one is killed: a
    training that continued alone would write into the checkpoint of the next try.
    """
    with (
        subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, encoding="utf-8", errors="backslashreplace", bufsize=1, start_new_session=True,
        ) as leader,
        # In a session of its own: a signal to the group of this process must not end the guard.
        subprocess.Popen(
            ["/bin/sh", "-c", GUARD, str(leader.pid)], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, start_new_session=True,
        ) as guard,
    ):  # fmt: skip
        assert guard.stdin is not None, "it is a pipe"
        release = guard.stdin.close

        # A child that outlives the leader keeps the output open, and a reader of it would wait for ever.
        def end_with_the_leader() -> None:
            leader.wait()
            release()

        follower = threading.Thread(target=end_with_the_leader, daemon=True)
        follower.start()
        try:
            yield leader
        finally:
            if leader.poll() is None:
                release()
            follower.join()
            guard.wait()  # until the whole group is gone


class Leader(Protocol):
    """A process that leads a group of its own number."""

    pid: int


def end_politely(leader: Leader) -> None:
    """Send SIGTERM to a group; for signal handlers, which must not wait."""
    with suppress(ProcessLookupError):
        os.killpg(leader.pid, signal.SIGTERM)
