"""Run a command as a process group of its own, of which nothing is left when we end, however we end."""

import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

# Waits for the end of its input, which comes when we close it, end, or are killed: nobody can forget or refuse that.
# Then it ends the group: first politely, so that a trainer can close its files, ten seconds later for good.
GUARD = """
read -r _
kill -s TERM -- "-$0"
for _ in $(seq 100); do kill -s 0 -- "-$0" || exit; sleep 0.1; done
kill -s KILL -- "-$0"
"""


@contextmanager
def process_group(command: Sequence[str], environment: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    """Start a command; its `stdout` has what it and all its children print. At the end, its `returncode` is known.

    The group ends with its leader, with the `with` block, and with this process, even if that one is killed: a
    training that goes on by itself would write into the checkpoint of the next try.
    """
    with (
        subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, encoding="utf-8", errors="backslashreplace", bufsize=1, start_new_session=True,
        ) as leader,
        # In a session of its own: what ends us as a group must not end the guard.
        subprocess.Popen(
            ["/bin/sh", "-c", GUARD, str(leader.pid)], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, start_new_session=True,
        ) as guard,
    ):  # fmt: skip
        # A child that outlives the leader keeps the output open, and whoever reads it would wait for ever.
        def end_with_the_leader() -> None:
            leader.wait()
            guard.stdin.close()

        follower = threading.Thread(target=end_with_the_leader, daemon=True)
        follower.start()
        try:
            yield leader
        finally:
            if leader.poll() is None:
                guard.stdin.close()
            follower.join()
            guard.wait()  # until the whole group is gone


def end_politely(leader: subprocess.Popen[str]) -> None:
    """Ask a whole group to end; for signal handlers, which must not wait."""
    with suppress(ProcessLookupError):
        os.killpg(leader.pid, signal.SIGTERM)
