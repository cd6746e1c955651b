"""The operators that run a module of Meander, as a plain process or on Spark."""

import json
import os
import shlex
import subprocess
import sys
from collections import deque
from collections.abc import Iterable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from airflow.providers.apache.spark.hooks.spark_submit import SparkSubmitHook
from airflow.providers.apache.spark.operators.spark_submit import SparkSubmitOperator
from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowException

from dags.shared.endings import checked_settings, describe_exit, raise_without_retry, skip_unless, without_values
from dags.shared.forked import Forked, fork
from dags.shared.links import DataDocs
from dags.shared.process import end_politely, process_group
from lake.environment import environment_of
from lake.settings import known_settings

CONF = {
    # Retries belong to Airflow alone: with YARN's own two attempts on top, a broken job would run six times.
    "spark.yarn.maxAppAttempts": "1",
}


def source_file(module: str) -> str:
    """Return the file of a module, without importing anything: the DAG processor must not load an engine."""
    package, *rest = module.split(".")
    spec = find_spec(package)
    assert spec is not None, module
    assert spec.submodule_search_locations, module
    return str(Path(spec.submodule_search_locations[0], *rest).with_suffix(".py"))


def without_blanks(arguments: Iterable[str]) -> list[str]:
    """Return the arguments that are not empty: a flag that a run does not use renders to an empty text.

    >>> without_blanks(["--run-id", "r", ""])
    ['--run-id', 'r']
    """
    return [part for part in arguments if part]


class RunsModule(BaseOperator):
    """For operators that run a module of Meander as a plain process: it gets the variables it needs, none of Airflow's.

    Its output is the task's log, and it ends with the task.
    """

    # Enough for an error and the lines before it; a training may log for hours.
    TAIL_LINES = 500
    leader: subprocess.Popen[str] | Forked | None = None

    def run_module(self, module: str, arguments: Iterable[str], server: str = "", **variables: str) -> deque[str]:
        """Run `python -m module` with these variables besides those it needs, and return the last lines it printed.

        Args:
            module: to run.
            arguments: of the module.
            server: of which it is a fork, if the server answers.
            variables: the names are those of the environment.

        Raises:
            AirflowFailException: it failed with an error that needs a person, or a setting is not valid.
            AirflowException: it failed with another error, or was killed.
        """
        checked_settings()
        command = [sys.executable, "-m", module, *arguments]
        self.log.info("running %s", shlex.join(command))
        environment = environment_of(module, os.environ) | {
            # People watch the log grow.
            "PYTHONUNBUFFERED": "1",
            # Nothing is imported from the working directory: `lake/audits` there may be a table, not the module.
            "PYTHONSAFEPATH": "1",
            **variables,
        }
        lines: deque[str] = deque(maxlen=self.TAIL_LINES)
        forked = fork(server, module, command[3:], environment) if server else None
        if server and forked is None:
            self.log.info("the step server does not answer at %s; the step starts by itself, and takes longer", server)
        with forked or process_group(command, environment) as self.leader:
            assert self.leader.stdout is not None, "it is a pipe"
            for line in self.leader.stdout:
                lines.append(line.rstrip())
                self.log.info("%s", lines[-1])
        code = self.leader.returncode
        assert code is not None, "the group has ended"
        if code > 0:  # the last lines of a killed process do not name the cause
            raise_without_retry(AirflowException("\n".join(lines)))
        if code:
            # The error of a task goes into its alert, and so out of the machine.
            last = without_values(lines[-1]) if lines else "it said nothing"
            raise AirflowException(f"{module} {describe_exit(code)}: {last}")
        return lines

    def on_kill(self) -> None:
        if self.leader:
            end_politely(self.leader)
        else:
            super().on_kill()


class SparkJob(RunsModule, SparkSubmitOperator):
    """Run a module of Meander on Spark, with `--run-id` and the other arguments; skipped unless `wanted`.

    Under spark-submit, except where Spark is a Connect server: its client is Python alone, and starts without a JVM.
    """

    template_fields = (*SparkSubmitOperator.template_fields, "run", "wanted")

    def __init__(
        self,
        *,
        module: str,
        arguments: list[Any],
        run: Any,
        docs: tuple[str, ...] = (),
        wanted: str = "True",
        **kwargs: Any,
    ):
        super().__init__(
            # The installed file: spark-submit needs a path. On a cluster, the same image has the same path.
            application=source_file(module),
            application_args=[*arguments, "--run-id", run],
            conn_id="spark_default",
            name=f"meander {module}",
            conf=CONF,
            # With a local master the driver does all the work. A ceiling: it costs nothing until it is used.
            driver_memory=known_settings().driver_memory,
            pool="spark",
            **kwargs,
        )
        self.module = module
        self.run = run
        self.wanted = wanted
        self.operator_extra_links = tuple(DataDocs(table) for table in docs)

    def execute(self, context: Any) -> None:
        skip_unless(self.wanted)
        arguments = self.application_args = without_blanks(self.application_args or [])
        config = checked_settings()
        if config.spark_master.startswith("sc://"):
            self.run_module(self.module, arguments, server=config.step_server)
            return
        try:
            super().execute(context)
        except AirflowException as error:
            raise_without_retry(error)
            raise

    def _get_hook(self) -> SparkSubmitHook:
        hook = super()._get_hook()
        # spark-submit is the driver, which needs no more than the module; by default it gets all that Airflow has.
        hook.submit = partial(hook.submit, env=environment_of(self.module, os.environ))  # type: ignore[method-assign]
        return hook


class ModelJob(RunsModule):
    """Run a module of Meander as a plain process; a module that trains or evaluates starts its own workers, if any.

    The last JSON object that it prints is the task's result.
    """

    template_fields = ("arguments", "run")

    def __init__(self, *, module: str, arguments: list[str], run: str, pool: str = "train", **kwargs: Any):
        super().__init__(pool=pool, **kwargs)
        self.module = module
        self.arguments = [*arguments, "--run-id", run]
        self.run = run

    def variables(self) -> dict[str, str]:
        """Return what the process gets besides the variables that its module needs."""
        return {}

    def execute(self, context: Any) -> dict[str, Any] | None:  # noqa: ARG002  Airflow's signature
        return result(self.run_module(self.module, without_blanks(self.arguments), **self.variables()))


def result(lines: Iterable[str]) -> dict[str, Any] | None:
    """Return the last JSON object among the lines, if there is one; libraries may print lines after it.

    >>> result(["loading", '{"promoted": true}', "bye"]), result(["bye"])
    ({'promoted': True}, None)
    """
    for line in reversed(list(lines)):
        if line.startswith("{"):
            try:
                content: dict[str, Any] = json.loads(line)
            except ValueError:
                continue
            return content
    return None
