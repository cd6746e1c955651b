"""Tasks of a barrier stage without Spark: threads, each with the address of a machine; Linux has all of 127.0.0.0/8."""

import json
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from lake.environment import handed_to_tasks
from model.training.launch import Outcome, run_in_barrier
from tests.listening import doors, family

MACHINES = ("127.0.0.1", "127.0.0.2", "127.0.0.3")


class Stage:
    """What the tasks of a stage share."""

    def __init__(self, machines: Sequence[str]):
        self.machines = machines
        self.messages = [""] * len(machines)
        self.doors: set[tuple[str, int, str]] = set()
        self.meet = threading.Barrier(len(machines))


@dataclass
class Task:
    """What BarrierTaskContext tells a task."""

    stage: Stage
    rank: int

    def partitionId(self) -> int:  # noqa: N802  Spark's name
        return self.rank

    def getTaskInfos(self) -> list[Any]:  # noqa: N802  Spark's name
        return [SimpleNamespace(address=f"{machine}:1") for machine in self.stage.machines]

    def resources(self) -> dict[str, Any]:
        return {}

    def allGather(self, message: str) -> list[str]:  # noqa: N802  Spark's name
        self.stage.messages[self.rank] = message
        self.barrier()
        # All listen now: each has said where, and none has heard it.
        self.stage.doors |= doors(family())
        self.barrier()
        return list(self.stage.messages)

    def barrier(self) -> None:
        self.stage.meet.wait()


def on_machines(
    module: str, argv: list[str], workers: int, timeout: float | None, stage: Stage | None = None
) -> list[Outcome]:
    """Run the workers of a launch, each on a machine of its own, as `_launch_on_spark` does on Spark."""
    stage = stage or Stage(MACHINES[:workers])
    env, theirs = json.loads(json.dumps(handed_to_tasks(os.environ)))

    def run(rank: int) -> Outcome:
        return run_in_barrier(Task(stage, rank), module, argv, workers, timeout, env, theirs, str(Path.cwd()))

    with ThreadPoolExecutor(workers) as threads:
        return list(threads.map(run, range(workers)))
