"""A step server for tests: the real one with next to nothing imported, so that it starts at once."""

import os
import subprocess
import sys
from pathlib import Path

from dags.shared.forked import Forked, fork
from tests.waiting import until

ROOT = Path(__file__).parents[2]
# The same server with next to nothing imported, and a file of its own for what is installed.
SERVER = """
import sys
from pathlib import Path
from dags.local import step_server

step_server.STEPS = ("lake.errors", "numpy.random")
step_server.PATIENCE_SECONDS = float(sys.argv[2])
step_server.INSTALLED = Path(sys.argv[1]).parent / "installed"
step_server.main()
"""


class StepServer:
    """A step server, and the module that its steps run."""

    def __init__(self, folder: Path, patience: float = 10):
        # An address of a socket has 107 bytes; a path may be longer.
        self.socket = folder / ("deep" * 30) / "steps.sock"
        self.socket.parent.mkdir()
        self.modules = folder
        self.environment = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(self.socket), str(patience)],
            env={**self.environment, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "ONLY_OF_THE_SERVER": "1"},
            start_new_session=True,
        )
        until("the server to listen", self.listens)

    def listens(self) -> bool:
        step = self.step("") if self.socket.exists() else None
        if step:
            with step:
                step.stdout.read()
        return step is not None

    def step(self, code: str, *arguments: str, **variables: str) -> Forked | None:
        (self.modules / "of_a_test.py").write_text(code)
        return fork(str(self.socket), "of_a_test", arguments, {**self.environment, **variables})

    def run(self, code: str, *arguments: str, **variables: str) -> tuple[int | None, str]:
        """Return how a step has ended, and what it printed."""
        step = self.step(code, *arguments, **variables)
        assert step is not None
        with step:
            printed = step.stdout.read()
        return step.returncode, printed

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
