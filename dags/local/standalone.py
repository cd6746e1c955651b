"""One local Airflow beside one Spark Connect server: started, asked and stopped.

Spark's start-up is most of a small day. The Connect server pays it once; the DAGs are the same as on a
cluster, only the setting `MEANDER_SPARK_MASTER` differs. `make up`, `make demo` and the end-to-end test use
it.
"""

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any

from dags import PREFIX
from dags.local.client import USER, AirflowClient
from dags.local.ports import HOST, free_port, port_open
from dags.local.processes import ProcessGroup
from lake.environment import environment_of
from lake.jvm import APPLICATION, FROM_ARCHIVE
from lake.settings import settings

LOCKED_TRIES = 6  # Airflow closes a backfill without runs that a lock has left after two minutes: within four tries
# Only what hangs is not ready after so long: on a slow and busy machine a start of half a minute takes many minutes.
HANGS_SECONDS = 900
TELL_SECONDS = 30  # until a person hears what is still waited for
UNHEALTHY_SECONDS = 45  # after so long without a heartbeat Airflow calls its scheduler unhealthy (30), and some more
BIN = Path(sys.executable).parent
PRIVATE = 0o077  # umask: what is written is for its owner alone
# The parts of Airflow, as one process group. Not by `airflow standalone`: its scheduler and triggerer serve logs on all
# interfaces, and no setting names another address (3.3). The web server reads the logs of this machine from the disk.
AIRFLOW = (
    ["db", "migrate"],
    ["api-server"],
    ["scheduler", "--skip-serve-logs"],
    ["dag-processor"],
    ["triggerer", "--skip-serve-logs"],
)


class LocalError(Exception):
    """A process of ours did not start, or a command or run failed; the message says which, and why."""


@dataclass
class LocalAirflow(AirflowClient):
    """Airflow and Spark below one folder, with ports and a password of their own.

    Args:
        home: holds everything that runs leave behind, unless a `MEANDER_*` variable says otherwise.
        settings: `MEANDER_*` variables for the tasks. They win over the environment, and are remembered: a
            later start without them gets the same, unless the environment says otherwise.
        port: of the UI; 0 takes the last one, 8080, or a free one.
        spark_slots: Spark tasks at once. Two keep two cores busy while one of them reads or commits.
        spark_options: of the JVM that computes; with one collector thread less to start and to feed than by default.
        tell: takes a line for the person who waits for a start that takes long.
    """

    home: Path
    settings: dict[str, str]
    port: int = 0
    spark_slots: int = 2
    spark_options: str = f"-XX:+UseParallelGC {FROM_ARCHIVE}"
    tell: Callable[[str], None] | None = field(default=None, repr=False)
    children: list[subprocess.Popen[bytes]] = field(default_factory=list, repr=False)

    # --- what is remembered between `up` and `down` ------------------------------------------------

    @property
    def state_file(self) -> Path:
        return self.home / "local.json"

    @property
    def state(self) -> dict[str, Any]:
        """Ports, password and processes of the last start; empty before the first."""
        return json.loads(self.state_file.read_text()) if self.state_file.exists() else {}

    def remember(self, **changes: Any) -> None:
        write_private(self.state_file, {**self.state, **changes})

    @property
    def groups(self) -> dict[str, ProcessGroup]:
        """The process groups of the last start, by name and in its order."""
        groups = self.state.get("groups", {})
        # Versions before kept the start as text, which says nothing here.
        return {
            name: ProcessGroup(group["group"], group["born"] if isinstance(group["born"], float) else None)
            for name, group in groups.items()
        }

    @property
    def password(self) -> str:
        return str(self.state["password"])

    @property
    def password_file(self) -> Path:
        """Where the admin reads the password, and Airflow too."""
        return self.home / "password.json"

    def make_password(self) -> str:
        """Return the admin's password, made at the first call."""
        # Letters and digits: one that began with a dash would be taken for an option by Airflow's commands.
        self.remember(password=self.state.get("password") or secrets.token_hex(16))
        write_private(self.password_file, {USER: self.password})
        return self.password

    def make_private_home(self) -> None:
        """Make the folder that holds databases, logs and the lake, or take from others what they may do in it."""
        self.home.mkdir(parents=True, exist_ok=True)
        if self.home.stat().st_mode & 0o077:
            try:
                self.home.chmod(0o700)
            except PermissionError as error:
                raise LocalError(
                    f"{self.home} is another user's, and others may read it; set MEANDER_HOME to a folder of yours"
                ) from error

    @property
    def step_server(self) -> Path:
        """The socket of the process from which steps are forked."""
        return self.home.absolute() / "steps.sock"

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.state['port']}"

    @cached_property
    def environment(self) -> dict[str, str]:
        """The variables that every process of this Airflow gets."""
        airflow = self.home / "airflow"
        return {
            "MEANDER_LAKE": str(self.home / "lake"),
            "MEANDER_LANDING": str(self.home / "landing"),
            **self.state["settings"],
            **inherited(),
            **self.settings,
            "MEANDER_DOCS_URL": f"{PREFIX}/data-docs",
            # What these processes say to each other must not go through a proxy.
            "NO_PROXY": f"{HOST},localhost",
            "no_proxy": f"{HOST},localhost",
            "MEANDER_SPARK_MASTER": f"sc://{HOST}:{self.state['spark_port']}",
            "MEANDER_STEP_SERVER": str(self.step_server),
            # Whoever may use Spark runs code as its owner, and every user of this machine reaches the port.
            "SPARK_CONNECT_AUTHENTICATE_TOKEN": self.state["spark_token"],
            # `airflow`, `spark-submit` and the Python of the workers must be those of this environment.
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "PYSPARK_PYTHON": sys.executable,
            # Nothing here listens to the outside (tests/e2e/test_backfill.py). Unset, Spark warns in each task's log
            # that it had to guess.
            "SPARK_LOCAL_IP": HOST,
            "AIRFLOW_HOME": str(airflow),
            # Seconds that a writer waits for another one; the default of 5 is too short for a busy machine.
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{airflow}/airflow.db?timeout=60",
            "AIRFLOW__CORE__DAGS_FOLDER": str(Path(__file__).parents[1]),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            # One idle process each; the default of 32 fills a laptop's memory.
            "AIRFLOW__CORE__PARALLELISM": "4",
            # A backfill of a paused DAG stays queued for ever, without a word.
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            # Seconds; by default those of a quiet machine: on a busy one, to load a DAG file takes longer.
            "AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT": "300",
            "AIRFLOW__DAG_PROCESSOR__DAG_FILE_PROCESSOR_TIMEOUT": "600",
            "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",
            # Seconds until a DAG file is read again; at the default of 30, that alone takes an eighth of a core.
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "120",
            # Half the default: a small day has ten steps one after the other, and waits after each.
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.5",
            # Old logs are loaded by hand. Yesterday will not land here, and its run would wait for two days.
            "AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE": os.environ.get("AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE", "False"),
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USER}:admin",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(self.password_file),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__API__HOST": HOST,
            "AIRFLOW__API__PORT": str(self.state["port"]),
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        }

    # --- start and stop ----------------------------------------------------------------------------

    def start(self) -> None:
        """Start everything, wait until it is ready, and make the pools.

        Raises:
            LocalError: one of them did not come up.
            SettingsInvalid: of the shell's variables: with them, the tasks of every run would fail.
        """
        settings()
        self.make_private_home()
        wanted = (self.port, self.state.get("port"), 8080)
        self.remember(
            port=next((port for port in wanted if port and not port_open(port)), None) or free_port(),
            settings={**self.state.get("settings", {}), **self.settings},
            spark_port=free_port(),
            spark_token=secrets.token_hex(32),
        )
        for old in ("environment", "token"):
            self.__dict__.pop(old, None)
        self.make_password()
        try:
            self.spawn_all()
            self.wait("airflow", self.healthy)
            self.wait("airflow", self.dags_parsed)
        except BaseException:
            self.stop()
            raise
        self.make_pool("spark", self.spark_slots, "Spark tasks at once on this machine")
        # A training takes all cores, or all GPUs; two would only get in each other's way.
        self.make_pool("train", 1, "Trainings at once on this machine")

    def spawn_all(self) -> None:
        """Start the processes that are waited for, Airflow as the last one."""
        self.spawn_spark()
        self.spawn_steps()
        self.spawn_airflow(AIRFLOW)
        self.wait("spark", lambda: port_open(self.state["spark_port"]))
        self.wait("steps", self.step_server.exists)

    def spawn_spark(self) -> None:
        """Start Spark's server. Its Python workers run code of jobs and trainings, which needs no secret of Airflow."""
        self.spawn("spark", self.spark_command(), environment_of("spark-connect-server", self.environment))

    def spawn_steps(self) -> None:
        """Start the process from which steps are forked, with no secret: each step is told its own."""
        self.step_server.unlink(missing_ok=True)
        command = [sys.executable, "-m", "dags.local.step_server", str(self.step_server)]
        # As in each step that starts by itself: see dags/shared/runs.py.
        as_steps = {"PYTHONUNBUFFERED": "1", "PYTHONSAFEPATH": "1"}
        self.spawn("steps", command, environment_of("step-server", self.environment) | as_steps)

    def spawn_airflow(self, parts: Sequence[list[str]]) -> None:
        """Start these parts of Airflow; `airflow.ended` says which of them have ended, and `wait` looks there."""
        # -P: nothing is imported from the working directory, which has a folder `airflow`.
        self.spawn("airflow", [sys.executable, "-P", "-m", "dags.local.parts", json.dumps(parts)])

    def make_pool(self, name: str, slots: int, description: str) -> None:
        """Make a pool, or bring one that is there already up to date."""
        pool = {"name": name, "slots": slots, "description": description, "include_deferred": False}
        if self.api("POST", "pools", expect=(201, 409), json=pool).get("name") is None:
            self.api("PATCH", f"pools/{name}", json=pool)

    def spark_command(self) -> list[str]:
        conf = {
            "spark.connect.grpc.binding.address": HOST,
            "spark.connect.grpc.binding.port": str(self.state["spark_port"]),
            # Dates are UTC everywhere; a session that forgets to say so must not get the laptop's zone.
            "spark.sql.session.timeZone": "UTC",
            # A laptop has few cores and small days: 200 partitions would be 200 near-empty tasks a shuffle.
            "spark.sql.shuffle.partitions": str(settings().shuffle_partitions),
            # Steps of days and trainings take turns.
            "spark.scheduler.mode": "FAIR",
            # Not `as_uri()`: Hadoop takes %20 for three characters.
            "spark.scheduler.allocation.file": f"file:{Path(__file__).with_name('fairscheduler.xml')}",
            **APPLICATION,
            # Nothing outside this machine has business with the engine.
            "spark.driver.bindAddress": HOST,
            "spark.driver.host": HOST,
            "spark.ui.enabled": "false",
            # What a killed task left in its session is freed after ten minutes, not after an hour.
            "spark.connect.session.manager.defaultSessionTimeout": "10m",
            "spark.local.dir": str(self.home / "tmp"),
            "spark.sql.warehouse.dir": str(self.home / "tmp" / "warehouse"),
            # Hadoop gives a new file the rights that this says, whatever those of the process are.
            "spark.hadoop.fs.permissions.umask-mode": f"{PRIVATE:03o}",
        }
        options = [part for key, value in conf.items() for part in ("--conf", f"{key}={value}")]
        return [
            str(BIN / "spark-submit"),
            *("--class", "org.apache.spark.sql.connect.service.SparkConnectServer"),
            *("--name", "meander", "--master", "local[*]"),
            *("--driver-memory", settings().driver_memory),
            *("--driver-java-options", f"{self.spark_options} -Duser.timezone=UTC"),
            *options,
            "spark-internal",
        ]

    def spawn(self, name: str, command: list[str], environment: dict[str, str] | None = None) -> None:
        """Start a process group of its own, its output in `<home>/<name>.log`; nobody else reads what it writes."""
        (self.home / f"{name}.ended").unlink(missing_ok=True)
        with (self.home / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                command, env=environment or self.environment, cwd=self.home, stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, start_new_session=True, umask=PRIVATE,
            )  # fmt: skip
        self.children.append(process)
        group = ProcessGroup.led_by(process.pid)
        self.remember(groups={**self.state.get("groups", {}), name: asdict(group)})

    def wait(self, name: str, ready: Callable[[], bool]) -> None:
        """Wait until `ready()`, as long as the process group lives, and tell now and then that it still does.

        Raises:
            LocalError: the group or a part of it ended, or it is not ready after HANGS_SECONDS.
        """
        began = last_word = time.monotonic()
        log, ended = self.home / f"{name}.log", self.home / f"{name}.ended"
        while not ready():
            now = time.monotonic()
            if not self.groups[name].alive:
                raise LocalError(f"{name} ended while starting; the end of {log}:\n{tail(log)}")
            if ended.exists() and (parts := ended.read_text().split("\n")[0]):
                raise LocalError(f"{name} is not complete: {parts}; the end of {log}:\n{tail(log)}")
            if now - began > HANGS_SECONDS:
                raise LocalError(f"{name} was not ready after {HANGS_SECONDS} s; the end of {log}:\n{tail(log)}")
            if self.tell and now - last_word > TELL_SECONDS:
                last_word = now
                self.tell(f"     {now - began:4.0f} s  {name} is still starting; it writes {log}")
            time.sleep(0.3)

    @property
    def running(self) -> bool:
        """Whether any process of the last start still lives."""
        return any(group.alive for group in self.groups.values())

    def stop(self) -> None:
        """End all process groups: first politely, after 20 seconds for good."""
        groups = self.groups
        # Airflow was started last: its tasks then end by themselves and not because Spark went away.
        for name in reversed(groups):
            groups[name].end()
        for child in self.children:
            child.wait()  # ended by now: collects it
        self.children.clear()
        if groups:
            self.remember(groups={})

    # --- ask ---------------------------------------------------------------------------------------

    def airflow(self, *arguments: str) -> str:
        """Run the airflow command and return what it printed.

        Raises:
            LocalError: it failed.
        """
        command = [str(BIN / "airflow"), *arguments]
        for _ in range(LOCKED_TRIES):
            done = subprocess.run(
                command, env=self.environment, cwd=self.home, capture_output=True, text=True, check=False, umask=PRIVATE
            )
            if done.returncode == 0:
                return done.stdout
            if "database is locked" not in done.stderr:
                break
            self.wait_out_lock()
        last_lines = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        raise LocalError(f"airflow {' '.join(arguments)} ended with {done.returncode}:\n{last_lines}")

    def wait_out_lock(self) -> None:
        """Wait after SQLite was locked, and bring Airflow back to where the same can be asked again.

        Of a backfill that could not be made, Airflow deletes the runs that it had made already. A scheduler that had
        begun with one of them dies of that (seen in 3.3.2), and nobody starts it again. The backfill itself stays where
        the database was still locked; for two minutes Airflow then refuses another one of its DAG.
        """
        time.sleep(UNHEALTHY_SECONDS)
        if not self.healthy():
            self.stop()
            self.start()
        for dag in self.api("GET", "dags")["dags"]:
            if any(run["state"] in ("queued", "running") for run in self.runs(dag["dag_id"])):
                continue
            for orphan in self.backfills(dag["dag_id"]):
                if orphan["completed_at"] is None:
                    # 409: Airflow has closed it by now.
                    self.api("PUT", f"backfills/{orphan['id']}/cancel", expect=(200, 409, 503))

    def backfill(
        self, dag_id: str, first: date, last: date, at_once: int, reprocess: str, conf: dict[str, Any] | None = None
    ) -> set[str]:
        """Let Airflow backfill a DAG, and return the ids of the runs that it has queued.

        Args:
            dag_id: a DAG with a schedule.
            first: the first day on which an interval begins.
            last: the last such day, included.
            at_once: how many days may run at the same time.
            reprocess: which days that have a run already are run again: none, failed or completed.
            conf: the runs' parameters that differ from the form's.
        """
        # One at a time is all that Airflow takes for a DAG, and it closes an ended one within half a minute.
        while any(b["completed_at"] is None for b in self.backfills(dag_id)):
            time.sleep(1)
        asked = {
            "dag_id": dag_id,
            "from_date": f"{first}T00:00:00Z",
            "to_date": f"{last}T00:00:00Z",
            "max_active_runs": at_once,
            "reprocess_behavior": reprocess,
            "dag_run_conf": conf,
        }
        for _ in range(LOCKED_TRIES):
            # 503: the database was locked. 409: so it was too when the backfill of the try before was to be removed.
            if "id" in self.api("POST", "backfills", expect=(200, 409, 503), json=asked):
                break
            self.wait_out_lock()
        else:
            raise LocalError(f"Airflow's database stayed locked, so the backfill of {dag_id} was not made; try again")
        queued = [run for run in self.runs(dag_id) if run["state"] in ("queued", "running")]
        return {run["dag_run_id"] for run in queued if str(first) <= run["data_interval_start"][:10] <= str(last)}

    def dags_parsed(self) -> bool:
        return bool(self.api("GET", "dags")["total_entries"] >= 8)

    def log_lines(self, task: dict[str, Any]) -> Iterator[str]:
        """Return the log of a task's last try as readable lines."""
        folder = f"dag_id={task['dag_id']}/run_id={task['dag_run_id']}/task_id={task['task_id']}"
        if task["map_index"] >= 0:
            folder += f"/map_index={task['map_index']}"
        file = self.home / "airflow" / "logs" / folder / f"attempt={task['try_number']}.log"
        for line in file.read_text().splitlines() if file.exists() else []:
            yield json.loads(line).get("event", "") if line.startswith("{") else line


def inherited() -> dict[str, str]:
    """Return the shell's variables for our processes: without other Airflows and Sparks, and with paths made absolute.

    Another Airflow's database address would otherwise be migrated and used by this one, and a relative path would mean
    another place in a process that runs elsewhere.
    """
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW", "SPARK_", "PYSPARK_"))}
    for name in ("MEANDER_LAKE", "MEANDER_LANDING", "MEANDER_DATA_DOCS", "MEANDER_IDENTITY_MAP", "MEANDER_SOURCE"):
        value = kept.get(name, "")
        is_path = name != "MEANDER_SOURCE" or value.endswith((".yaml", ".yml"))
        if value and is_path and "://" not in value:
            kept[name] = str(Path(value).absolute())
    return kept


def write_private(file: Path, content: dict[str, Any]) -> None:
    """Write a JSON file that only its owner may read, whoever might read it before: ours hold passwords.

    Whoever reads it meanwhile, as `python -m dags.local status` may beside a start, gets the old or the new content,
    never a part.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f"{file.name}.{os.getpid()}.tmp")
    unfinished.unlink(missing_ok=True)
    unfinished.touch(mode=0o600)
    unfinished.write_text(json.dumps(content, indent=2))
    unfinished.replace(file)


def tail(file: Path, lines: int = 30) -> str:
    """Return the last lines of a log."""
    return "\n".join(file.read_text(errors="replace").splitlines()[-lines:])
