"""One Airflow on this machine for all tests that need one: to start it, and to keep it up, is most of their work."""

import contextlib
import os
import shutil
import threading
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil
import pytest

from dags.local.ports import free_port
from dags.local.standalone import LocalAirflow
from lake.jvm import SHORT_LIVED_JVM
from tests.listening import doors
from tests.waiting import until

LOOK_SECONDS = 1.0  # between two looks at what runs: most tasks live longer


class UnderBasePath(LocalAirflow):
    """Airflow as it stands behind a proxy: below a path. As long as it runs, it is looked at what listens.

    Attributes:
        commands: of all its processes that were seen.
        doors: the addresses, ports and commands of those that listened.
    """

    def __init__(self, *arguments: Any, **more: Any):
        super().__init__(*arguments, **more)
        self.commands: set[str] = set()
        self.doors: set[tuple[str, int, str]] = set()
        self.ended = threading.Event()

    def look(self) -> None:
        """Remember what runs, and what listens: its process groups, and what has a group of its own below them."""
        while not self.ended.wait(LOOK_SECONDS):
            processes = self.processes()
            for process in processes:
                with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                    self.commands.add(" ".join(process.cmdline()))
            self.doors |= doors(processes)

    def processes(self) -> list[psutil.Process]:
        """Return the members of all groups, and what descends from them, by one look at the machine's processes."""
        groups = {group.group for group in self.groups.values()}
        children: dict[int, list[psutil.Process]] = {}
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
                if os.getpgid(process.pid) in groups:
                    found.append(process)
                else:
                    children.setdefault(process.ppid(), []).append(process)
        for process in found:  # grows meanwhile
            found += children.pop(process.pid, [])
        return found

    @property
    def url(self) -> str:
        return f"{super().url}/team/airflow"

    @cached_property
    def environment(self) -> dict[str, str]:
        # Seconds until a DAG file is read again: none changes.
        return {**super().environment, "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "3600"}


@pytest.fixture(scope="session")
def running_airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAirflow]:
    """Airflow and Spark on this machine, whose lake and landing each module fills and empties."""
    folder = tmp_path_factory.mktemp("airflow")
    settings = {
        "MEANDER_LAKE": str(folder / "lake"),
        "MEANDER_LANDING": str(folder / "landing"),
        "MEANDER_SOURCE": "canonical",
        # The page leaves out groups of few users, and these lakes have few.
        "MEANDER_MIN_GROUP": "1",
    }
    # A port of its own: two Airflows that start at once would both find 8080 free.
    local = UnderBasePath(folder / "home", settings, port=free_port(), spark_options=SHORT_LIVED_JVM)
    local.start()
    looks = threading.Thread(target=local.look, daemon=True)
    looks.start()
    yield local
    local.ended.set()
    looks.join()
    local.stop()
    assert not local.running


@pytest.fixture(scope="module")
def airflow(running_airflow: LocalAirflow) -> Iterator[LocalAirflow]:
    """That Airflow with an empty lake and landing, to which the settings of the tests of this module point."""
    folders = [Path(running_airflow.settings[name]) for name in ("MEANDER_LAKE", "MEANDER_LANDING")]
    with pytest.MonkeyPatch.context() as patch:
        for name, value in running_airflow.settings.items():
            patch.setenv(name, value)
        yield running_airflow
    for dag_id in ("behavior_daily", "behavior_history"):
        for run in running_airflow.runs(dag_id):
            if run["state"] in ("queued", "running"):
                running_airflow.api("PATCH", f"dags/{dag_id}/dagRuns/{run['dag_run_id']}", json={"state": "failed"})
    # Each may be empty, or not there at all; a task that is just being ended may still write.
    for folder in folders:
        until(f"{folder} to be gone", lambda folder=folder: shutil.rmtree(folder, True) or not folder.exists())
