"""Measure a day of a few thousand rows: `python -m tests.bench.small_day [--beside FOLDER]...`.

Prints what `meander daily` of one day takes, in a process of its own, and what the steps of behavior_daily and
predict_daily take as Airflow runs them on one machine: a process each, all clients of one Spark Connect server, and
forks of the step server of a version that has one. Each FOLDER holds another version of the code, which does the same
in turn, in a lake of its own, on the same landing files; with its own environment, if `make setup` was run there.

CPU seconds are those of all processes that a command starts, and of what the servers do meanwhile, but not those of
their start. They can be compared on a busy machine, where seconds cannot.
"""

import argparse
import ctypes
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table as Grid

from dags.local.ports import free_port, port_open
from dags.shared.forked import Forked, fork

HERE = Path(__file__).parents[2]
STEP_SERVER = "dags/local/step_server.py"
# The variables that say where the servers are.
SERVERS = ("MEANDER_SPARK_MASTER", "MEANDER_STEP_SERVER")
FIRST = date(2025, 1, 1)
PR_SET_CHILD_SUBREAPER = 36

# What each version of the code does by itself: print how it starts its Spark server, publish, make a model.
SERVER = """
import json, sys
from collections import defaultdict
from pathlib import Path
try:
    from dags.local.standalone import LocalAirflow
except ImportError:  # until 2026-11-28
    from dags.standalone import LocalAirflow
# Of the ports that a version remembers, Spark's alone is used.
LocalAirflow.state = defaultdict(int, spark_port=int(sys.argv[2]), spark_token=sys.argv[3], settings={})
local = LocalAirflow(Path(sys.argv[1]), {})
print(json.dumps([local.spark_command(), local.environment]))
"""
PUBLISH = "import sys; from lake.publish import publish; [publish(name, sys.argv[1]) for name in sys.argv[2:]]"
MODEL = """
import sys
from datetime import date
import numpy as np
from lake.settings import settings
try:
    from model.data.vocabulary import Vocabulary
    from model.network.network import Finetuned, Pretrained, build, network_config
    from model.versions.artifact import Artifact
    from model.versions.registry import Registry
    registry = Registry.of(settings())
except ImportError:  # until 2026-11-29
    from model import registry
    from model.artifact import Artifact
    from model.network import Finetuned, Pretrained, build, network_config
    from model.vocabulary import Vocabulary
known = [
    Vocabulary(name, np.arange(1, size + 1), [str(n) for n in range(size)], buckets, np.arange(size, 0, -1))
    for name, size, buckets in (("item_id", 10_000, 64), ("category_id", 50, 8))
]
config = network_config("tiny", *(vocabulary.size for vocabulary in known))
networks = {"finetuned": build(Finetuned, config), "pretrained": build(Pretrained, config)}
card = {"model": "made-up", "horizon_days": 7, "lookback_days": settings().lookback_days, "min_events": 5,
    "tables": {"examples": 0}, "surprise_quantiles": np.linspace(0, 1, 101).tolist(),
    "segment_thresholds": {"at_risk": 0.4, "migrating": 0.5}}
Artifact(card, config, *known, **networks).save(sys.argv[1])
with registry.start_run("made-up", "evaluate") as tracked:
    registry.promote(registry.register(sys.argv[1], card, tracked), date(2025, 1, 1))
"""


@dataclass
class Cost:
    """What something took: seconds, and CPU seconds of all its processes."""

    seconds: float = 0.0
    cpu: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.seconds + other.seconds, self.cpu + other.cpu)


def inherit_orphans() -> None:
    """Become the parent of each process whose own one ends before it: Spark's JVM outlives its Python by a moment."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)


def run(command: list[str], environment: dict[str, str], log: Path, server: "Server | None" = None) -> Cost:
    """Run a command to the end of the last process that it has started, and return what all of them took.

    Raises:
        RuntimeError: it failed.
    """
    others = {process.pid for process in server.processes} if server else set()
    before = server.cpu() if server else 0.0
    began, cpu, code = time.perf_counter(), 0.0, None
    with log.open("wb") as output:
        leader = subprocess.Popen(command, env=environment, cwd=log.parent, stdout=output, stderr=subprocess.STDOUT)
    while code is None or {child.pid for child in psutil.Process().children()} - others:
        pid, status, used = os.wait4(-1, 0)
        cpu += used.ru_utime + used.ru_stime
        if pid == leader.pid:
            code = leader.returncode = os.waitstatus_to_exitcode(status)
            seconds = time.perf_counter() - began
    if code:
        raise RuntimeError(f"{command} ended with {code}; the end of {log}:\n{log.read_text()[-3000:]}")
    cost = Cost(seconds, cpu + (server.cpu() - before if server else 0.0))
    tell(cost, " ".join(command[1:]))
    return cost


@dataclass(frozen=True)
class Server:
    """A Spark Connect server that runs, and a step server, of a version that has one."""

    process: subprocess.Popen[bytes]
    environment: dict[str, str]
    steps: subprocess.Popen[bytes] | None = None

    @property
    def processes(self) -> list[subprocess.Popen[bytes]]:
        return [process for process in (self.process, self.steps) if process]

    def cpu(self) -> float:
        """Return the CPU seconds of the servers, of Python workers and of steps until now."""
        total = 0.0
        for started in self.processes:
            main = psutil.Process(started.pid)
            for process in (main, *main.children(recursive=True)):
                with suppress(psutil.NoSuchProcess):
                    total += sum(process.cpu_times()[:4])
        return total

    def fork(self, module: str, arguments: tuple[str, ...], environment: dict[str, str]) -> Cost:
        """Run a module as a fork of the step server, and return what it took.

        Raises:
            RuntimeError: it failed.
        """
        assert self.steps, "this version has one"
        began, before = time.perf_counter(), self.cpu()
        with forked(environment["MEANDER_STEP_SERVER"], module, arguments, environment) as step:
            printed = step.stdout.read()
        seconds = time.perf_counter() - began
        if step.returncode:
            raise RuntimeError(f"{module} ended with {step.returncode}; the end of what it said:\n{printed[-3000:]}")
        while psutil.Process(self.steps.pid).children():  # its keeper is not collected yet
            time.sleep(0.01)
        cost = Cost(seconds, self.cpu() - before)
        tell(cost, f"fork of {module} {' '.join(arguments)}")
        return cost


def forked(server: str, module: str, arguments: tuple[str, ...], environment: dict[str, str]) -> Forked:
    """Return a fork of a step server.

    Raises:
        RuntimeError: it does not answer.
    """
    step = fork(server, module, arguments, environment)
    if step is None:
        raise RuntimeError(f"no step server answers at {server}")
    return step


def tell(cost: Cost, what: str) -> None:
    """Print what something took."""
    print(f"{cost.seconds:6.1f} {cost.cpu:6.1f}  {' '.join(what.split())[:100]}", flush=True)  # noqa: T201


@dataclass(frozen=True)
class Code:
    """A version of the code, and the lake that it fills."""

    name: str
    folder: Path
    home: Path
    costs: dict[str, list[Cost]] = field(default_factory=lambda: defaultdict(list))

    @property
    def interpreter(self) -> str:
        """The Python of this version's own environment, if `make setup` has made one: it may pin other packages."""
        own = self.folder / ".venv" / "bin" / "python"
        return str(own) if own.exists() else sys.executable

    @property
    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("MEANDER_", "SPARK_", "PYSPARK_"))}
        return kept | {
            "PYTHONPATH": str(self.folder),
            "MEANDER_LAKE": str(self.home / "lake"),
            "MEANDER_LANDING": str(self.home.parent / "landing"),
            "MEANDER_SOURCE": "canonical",
        }

    def python(self, *arguments: str, server: Server | None = None) -> Cost:
        """Run Python with this version of the code, and return what it took."""
        environment = self.environment_at(server) if server else self.environment
        return run([self.interpreter, *arguments], environment, self.home / "log", server)

    def environment_at(self, server: Server) -> dict[str, str]:
        """Return the variables of a client of a server."""
        master = {name: server.environment[name] for name in SERVERS if name in server.environment}
        return server.environment | self.environment | master

    def module(self, name: str, *arguments: str, server: Server) -> Cost:
        """Run a step, as a task does, and return what it took."""
        if server.steps:
            return server.fork(name, arguments, self.environment_at(server))
        return self.python("-m", name, *arguments, server=server)

    def keep(self, name: str, costs: dict[str, Cost]) -> None:
        """Keep what some steps took, each and together."""
        for step, cost in (*costs.items(), (name, sum(costs.values(), Cost()))):
            self.costs[step].append(cost)

    def daily(self, first: date, last: date, *more: str) -> Cost:
        """Take days to readers by `meander daily`."""
        return self.python("-m", "dags.cli", "daily", "--from", str(first), "--to", str(last), *more)

    @contextmanager
    def server(self) -> Iterator[Server]:
        """Start this version's Spark server, as `make up` does, and end it after the block."""
        arguments = [str(self.home), str(free_port()), secrets.token_hex(16)]
        said = subprocess.run(
            [self.interpreter, "-c", SERVER, *arguments], env=self.environment, cwd=self.home, capture_output=True,
            text=True, check=True,
        )  # fmt: skip
        command, environment = json.loads(said.stdout)
        with (self.home / "server.log").open("wb") as log:
            process = subprocess.Popen(command, env=environment, cwd=self.home, stdout=log, stderr=log)
            steps, socket = None, Path(environment.get("MEANDER_STEP_SERVER", "/none"))
            if (self.folder / STEP_SERVER).is_file():
                command = [self.interpreter, "-m", "dags.local.step_server", str(socket)]
                steps = subprocess.Popen(command, env=environment, cwd=self.home, stdout=log, stderr=log)
        server = Server(process, environment, steps)
        try:
            while not (port_open(int(arguments[1])) and (steps is None or socket.exists())):
                if any(started.poll() is not None for started in server.processes):
                    raise RuntimeError(f"a server of {self.folder} ended; see {self.home}/server.log")
                time.sleep(0.2)
            yield server
        finally:
            for started in server.processes:
                started.terminate()
                started.wait()

    def steps(self, server: Server, day: date) -> Iterator[tuple[str, Cost]]:
        """Take a day to readers by the steps of behavior_daily, and yield what each took; none runs beside another."""
        run_id = f"steps-{day}"
        groups = (
            ("jobs.ingest", "quarantine", "events"),
            ("jobs.sessionize", "sessions"),
            ("jobs.interests", "interests"),
        )
        for module, *tables in groups:
            yield from self.step(server, module, tables, day, run_id)

    def step(
        self, server: Server, module: str, tables: list[str], day: date, run_id: str
    ) -> Iterator[tuple[str, Cost]]:
        """Stage, audit and publish the tables of one module. Airflow publishes in its own process: not counted."""
        yield module, self.module(module, "--day", str(day), "--run-id", run_id, server=server)
        of_tables = [part for table in tables for part in ("--table", table)]
        audit = self.module("expectations.audit", *of_tables, "--run-id", run_id, server=server)
        yield f"audit of {' and '.join(tables)}", audit
        self.python("-c", PUBLISH, run_id, *tables)


def main() -> None:
    """Make a lake of some weeks by each version, then measure days that follow."""
    parser = argparse.ArgumentParser(prog="tests.bench.small_day", description=__doc__)
    parser.add_argument("--beside", type=Path, metavar="FOLDER", action="append", default=[], help="may be repeated")
    parser.add_argument("--rows", type=int, default=3000, help="of a day")
    parser.add_argument("--weeks", type=int, default=4, help="of history before the days that are measured")
    parser.add_argument("--times", type=int, default=2, help="days that are measured, one after the other")
    args = parser.parse_args()
    inherit_orphans()
    known = 7 * args.weeks
    days = [FIRST + timedelta(days=known + number) for number in range(2 * args.times)]
    with tempfile.TemporaryDirectory(prefix="meander-bench-") as folder:
        folders = [path.resolve() for path in (*args.beside, HERE)]
        codes = [Code(path.name, path, Path(folder, str(number))) for number, path in enumerate(folders)]
        for code in codes:
            code.home.mkdir()
        log = ["--events", str(args.rows * (known + len(days))), "--users", str(args.rows)]
        codes[-1].python("-m", "jobs.simulate", "--from", str(FIRST), "--days", str(known + len(days)), *log)
        for code in codes:
            code.daily(FIRST, days[0] - timedelta(days=1), "--chunk-days", str(known), "--every", "7")
        for day in days[: args.times]:
            for code in codes:
                code.costs["meander daily"].append(code.daily(day, day))
        for code in codes:
            with code.server() as server:
                measure_steps(code, server, days[args.times :])
    show(codes)


def measure_steps(code: Code, server: Server, days: list[date]) -> None:
    """Measure the steps of behavior_daily of each of some days, and as often those of predict_daily of the last one."""
    for day in days:
        code.keep("behavior_daily, all steps", dict(code.steps(server, day)))
    code.python("-c", MODEL, str(code.home / "model"))
    for number in range(len(days)):
        step = code.step(server, "model.score", ["predictions"], days[-1], f"score-{number}")
        code.keep("predict_daily, all steps", dict(step))


def show(codes: list[Code]) -> None:
    """Print the least that each thing took, of the times that it was measured."""
    grid = Grid("seconds, CPU seconds", *(code.name for code in codes), "CPU ratio of the last to the first")
    for name in codes[-1].costs:
        least = [
            Cost(min(cost.seconds for cost in found), min(cost.cpu for cost in found)) if found else None
            for found in (code.costs[name] for code in codes)
        ]
        first, last = next(cost for cost in least if cost), least[-1]
        assert last, "each thing has been measured of the last one"
        shown = (f"{cost.seconds:6.1f} {cost.cpu:6.1f}" if cost else "-" for cost in least)
        grid.add_row(name, *shown, f"{last.cpu / first.cpu:.2f}" if last is not first else "-")
    Console(width=110).print(grid)


if __name__ == "__main__":
    main()
