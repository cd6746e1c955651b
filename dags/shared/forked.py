"""A step as a fork of the step server, dags/local/step_server.py, which has imported what steps need.

The server answers each request of a task with two lines: the number of the process, and how it has ended. While that
connection is open the step may run; the step ends when the task closes it, ends, or is killed.
"""

import json
import os
import signal
import socket
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from io import BufferedReader
from pathlib import Path
from types import TracebackType


class Forked:
    """A process that the step server has forked, with what a `Popen` of it would have.

    As a context manager it is what `process_group` is for a command: after the block, nothing of its group runs.

    Attributes:
        pid: its number, which is also that of its process group.
        stdout: what it and its children print.
        returncode: None until it has ended; negative for a signal.
    """

    def __init__(self, pid: int, output: int, told: BufferedReader, connection: socket.socket):
        self.pid = pid
        self.told, self.connection = told, connection
        self.stdout = open(output, encoding="utf-8", errors="backslashreplace", buffering=1)  # noqa: SIM115  as Popen's
        self.returncode: int | None = None
        self.follower = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> "Forked":
        self.follower.start()
        return self

    def _follow(self) -> None:
        """Wait for the exit code, and end the group if its keeper was killed.

        At once: a child of the step keeps the output open, and a reader of it would wait for ever.
        """
        answer = b""
        with suppress(OSError):
            answer = self.told.readline()
        if answer:
            self.returncode = int(answer)
            return
        # Nobody is left who would end it. How it has ended, nobody knows: another try is needed.
        self.returncode = -signal.SIGKILL
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        # Whatever still runs is ended now, and the answer comes when it has.
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
        self.follower.join()
        for file in (self.stdout, self.told, self.connection):
            file.close()


def fork(server: str, module: str, arguments: Sequence[str], environment: Mapping[str, str]) -> Forked | None:
    """Let the step server run `python -m module` with these arguments and variables, in this folder.

    Args:
        server: the socket of the server.
        module: to run, as `python -m` would.
        arguments: of the module.
        environment: all variables that the step gets.

    Returns:
        the step, or None if no server answers.
    """
    asked = {"module": module, "arguments": [*arguments], "environment": {**environment}, "folder": str(Path.cwd())}
    reading, writing = os.pipe()
    connection = socket.socket(socket.AF_UNIX)
    told = connection.makefile("rb")
    try:
        _connect(connection, Path(server))
        socket.send_fds(connection, [b"\n"], [writing])
        connection.sendall(json.dumps(asked).encode() + b"\n")
        return Forked(int(told.readline()), reading, told, connection)
    except (OSError, ValueError):  # it is not there, or it hung up without a number
        os.close(reading)
        told.close()
        connection.close()
        return None
    finally:
        os.close(writing)


def _connect(connection: socket.socket, server: Path) -> None:
    """Connect to a socket in any folder: an address may have 107 bytes, and paths are longer."""
    folder = os.open(server.parent, os.O_PATH)
    try:
        connection.connect(f"/proc/self/fd/{folder}/{server.name}")
    finally:
        os.close(folder)
