"""A Spark standalone cluster of the tests' own: a master and workers, each a process that can be killed."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyspark

from lake.jvm import SHORT_LIVED_JVM
from lake.session import NOTHING
from tests.waiting import until

HOME = Path(pyspark.__file__).parent


@dataclass(frozen=True)
class Host:
    """Where a daemon runs.

    Attributes:
        address: at which the others find it.
        inside: a command that runs another one there, such as `ip netns exec NAME`.
    """

    address: str = "127.0.0.1"
    inside: tuple[str, ...] = ()


class SparkCluster:
    """A master and workers on this machine, on free ports.

    Args:
        folder: for their logs and the files of their executors.
        master: where the master runs.
        workers: where each worker runs.
        cores: of each worker.
        memory: of each worker, in Spark's words.
        environment: variables of the daemons and executors besides ours.

    Attributes:
        address: of the master, `spark://host:port`.
    """

    def __init__(
        self,
        folder: Path,
        master: Host = Host(),
        workers: Sequence[Host] = (Host(), Host()),
        cores: int = 1,
        memory: str = "1g",
        environment: Mapping[str, str] = NOTHING,
    ):
        self.folder, self.workers, self.environment = folder, workers, environment
        self.options = ["--cores", str(cores), "--memory", memory, "--webui-port", "0"]
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        folder.mkdir(parents=True, exist_ok=True)
        try:
            self.begin("master", master, "master.Master", "--port", "0", "--webui-port", "0")
            self.address = self.wait("master", r"Starting Spark master at (spark://\S+)")
            for number in range(len(workers)):
                self.start_worker(number)
        except BaseException:
            self.stop()
            raise

    def begin(self, name: str, host: Host, kind: str, *arguments: str) -> None:
        """Start one of Spark's own daemons; its output is `<name>.log`."""
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("SPARK_")},
            **self.environment,
            "SPARK_HOME": str(HOME),
            "SPARK_LOCAL_IP": host.address,
            "SPARK_NO_DAEMONIZE": "1",
            "SPARK_DAEMON_JAVA_OPTS": f"{SHORT_LIVED_JVM} {self.environment.get('SPARK_DAEMON_JAVA_OPTS', '')}",
            "PYSPARK_PYTHON": sys.executable,
        }
        daemon = [str(HOME / "bin" / "spark-class"), f"org.apache.spark.deploy.{kind}", "--host", host.address]
        with (self.folder / f"{name}.log").open("wb") as log:
            self.processes[name] = subprocess.Popen(
                [*host.inside, *daemon, *arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )

    def wait(self, name: str, pattern: str) -> str:
        """Wait until a daemon has logged something, and return the first group of the pattern."""
        log = self.folder / f"{name}.log"

        def found() -> re.Match[str] | None:
            assert self.processes[name].poll() is None, log.read_text(errors="replace")
            return re.search(pattern, log.read_text(errors="replace"))

        return until(f"{pattern} in {log}", found)[1]

    def start_worker(self, number: int) -> None:
        """Start a worker, a new one in the place of one that was killed, and wait until the master has it."""
        name = f"worker-{number}"
        options = [*self.options, "--work-dir", str(self.folder / name)]
        self.begin(name, self.workers[number], "worker.Worker", *options, self.address)
        self.wait(name, r"(Successfully registered with master)")

    def kill_worker(self, number: int) -> None:
        """Kill a worker with all its executors, as when its machine is lost."""
        process = self.processes.pop(f"worker-{number}")
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def stop(self) -> None:
        for process in reversed(self.processes.values()):
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()
        self.processes.clear()
