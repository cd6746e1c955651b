"""The parts of Airflow on one machine, as forks of one process: `python -m dags.local.parts PARTS`.

To import Airflow is most of the start of each part, and to import what DAG files need most of what Airflow does for a
short task. Both are done here once. The scheduler, Celery's workers and the DAG processor fork a process for each task
and each DAG file, and these find the libraries imported too. Our own code is read anew each time; libraries that are
installed anew are not, until Airflow is started again (`make down`, `make up`).

PARTS is a JSON list: of each part the arguments of the `airflow` command. The others go on without a part that ends, so
a line in `airflow.ended` says that it has.
"""

import gc
import json
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path

from setproctitle import setproctitle

# On a machine so busy that the scheduler says nothing of itself for half a minute, it would take itself for another one
# that has died, and end the running tasks as its orphans. There is no other one, but for one that was killed before.
VARIABLES = {"scheduler": {"AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "300"}}
ENDED = "airflow.ended"  # in the folder where this runs
# What the parts and their tasks import of others' code. tests/dags/local/test_parts.py tells what is missing here.
LIBRARIES = (
    "airflow.__main__",
    "airflow.dag_processing.dagbag",
    "airflow.sdk.execution_time.task_runner",
    # Of DAG files and our operators.
    "airflow.sdk.bases.operatorlink",
    "airflow.sdk.bases.sensor",
    "airflow.sdk.definitions.connection",
    "airflow.sdk.definitions.decorators",
    "airflow.providers.apache.spark.operators.spark_submit",
    "airflow.providers.standard.decorators.python",
    "airflow.providers.standard.operators.hitl",
    "pydantic_settings",
    # Of tasks that look at the lake themselves: sensors, and those that publish.
    "deltalake",
    "fsspec.implementations.local",
    "pyarrow.compute",
    "pyarrow.parquet",
    "pyspark.sql",
)


def prepare() -> None:
    """Import what the parts share, and make the keys by which they know each other."""
    # Next to nothing of it is garbage.
    gc.disable()
    for library in LIBRARIES:
        import_module(library)
    # In `airflow.cfg`, at the first start. Each part would make keys of its own, and believe no other one.
    configuration = import_module("airflow.configuration")
    configuration.write_default_airflow_configuration_if_needed()
    # What Airflow hides in logs it has noted when it was imported, before there were any.
    configuration.conf.mask_secrets()
    # A fork shares the memory that nobody writes to, and looking for garbage writes to every object.
    gc.freeze()
    gc.enable()


def run_airflow(arguments: list[str]) -> None:
    """Be the `airflow` command with these arguments."""
    from airflow.__main__ import main

    sys.argv = ["airflow", *arguments]
    setproctitle(" ".join(sys.argv))
    main()  # type: ignore[no-untyped-call]


def fork(run: Callable[[list[str]], None], arguments: list[str]) -> int:
    """Run one part in a process of its own, and return its number."""
    sys.stdout.flush()
    sys.stderr.flush()
    process = os.fork()
    if process:
        return process
    for name, value in VARIABLES.get(arguments[0], {}).items():
        os.environ.setdefault(name, value)
    code = 1
    try:
        run(arguments)
        code = 0
    except SystemExit as asked:
        # As Python itself does: a number is the exit code, anything else a message.
        code = asked.code if isinstance(asked.code, int) else int(asked.code is not None)
        if asked.code is not None and not isinstance(asked.code, int):
            print(asked.code, file=sys.stderr)  # noqa: T201
    except BaseException:  # noqa: BLE001  # whatever it is, only this part ends
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def run_parts(parts: list[list[str]], run: Callable[[list[str]], None] = run_airflow) -> None:
    """Run all parts until the last one ends; before them, to its end, a first one whose name is `db`.

    Raises:
        SystemExit: that one failed.
    """
    names: dict[int, str] = {}
    for arguments in parts:
        process = fork(run, arguments)
        if arguments[0] != "db":
            names[process] = arguments[0]
        elif code := os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]):
            sys.exit(code)
    while names:
        process, status = os.wait()
        name = names.pop(process)
        # Whoever follows is reaped also where the disk is full.
        with suppress(OSError), Path(ENDED).open("a") as ended:
            ended.write(f"{name} ended with {os.waitstatus_to_exitcode(status)}\n")


if __name__ == "__main__":
    prepare()
    run_parts(json.loads(sys.argv[1]))
