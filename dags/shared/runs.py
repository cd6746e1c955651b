"""The operators that run one of our modules, as a plain process or on Spark."""

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

from dags.shared.endings import fail_for_good, how_it_ended, skip_unless
from dags.shared.links import DataDocs
from dags.shared.process import end_politely, process_group
from lake.environment import environment_of
from lake.settings import settings

CONF = {
    # Retries belong to Airflow alone: with YARN's own two attempts on top, a broken job would run six times.
    "spark.yarn.maxAppAttempts": "1",
}


def source_file(module: str) -> str:
    """Return the file of a module, without importing anything: the DAG processor must not load an engine."""
    package, *rest = module.split(".")
    return str(Path(find_spec(package).submodule_search_locations[0], *rest).with_suffix(".py"))


def without_blanks(arguments: Iterable[str]) -> list[str]:
    """Return the arguments that say something: a flag that a run does not use renders to nothing.

    >>> without_blanks(["--run-id", "r", ""])
    ['--run-id', 'r']
    """
    return [part for part in arguments if part]


class RunsModule:
    """For operators that run one of our modules as a plain process: it gets the variables it needs, none of Airflow's.

    Its output is the task's log, and it ends with the task.
    """

    # An error and what led to it; a training may log for hours.
    REMEMBERED = 500
    leader: subprocess.Popen[str] | None = None

    def run_module(self, module: str, arguments: Iterable[str], **variables: str) -> deque[str]:
        """Run `python -m module` with these variables besides those it needs, and return the last lines it printed.

        Raises:
            AirflowFailException: it has failed, and the last line says what a person has to do.
            AirflowException: it has failed otherwise, or was killed.
        """
        command = [sys.executable, "-m", module, *arguments]
        self.log.info("running %s", shlex.join(command))
        environment = environment_of(module, os.environ) | {
            # People watch the log grow.
            "PYTHONUNBUFFERED": "1",
            # Of the folder we are in, nothing is imported: `lake/audits` there is a table, and no module of ours.
            "PYTHONSAFEPATH": "1",
            **variables,
        }
        lines: deque[str] = deque(maxlen=self.REMEMBERED)
        with process_group(command, environment) as self.leader:
            for line in self.leader.stdout:
                lines.append(line.rstrip())
                self.log.info("%s", lines[-1])
        code = self.leader.returncode
        if code > 0:  # who is killed has said nothing about it
            fail_for_good(AirflowException("\n".join(lines)))
        if code:
            last = lines[-1] if lines else "nothing"
            raise AirflowException(f"{module} {how_it_ended(code)}; it said last: {last}")
        return lines

    def on_kill(self) -> None:
        if self.leader:
            end_politely(self.leader)
        else:
            super().on_kill()


class SparkJob(RunsModule, SparkSubmitOperator):
    """Run one of our modules on Spark, with `--run-id` and the other arguments; skipped unless `wanted`.

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
            # The installed file: spark-submit wants a path. On a cluster, the same image holds the same path.
            application=source_file(module),
            application_args=[*arguments, "--run-id", run],
            conn_id="spark_default",
            name=f"meander {module}",
            conf=CONF,
            # With a local master the driver does all the work. A ceiling: it costs nothing until it is used.
            driver_memory=settings().driver_memory,
            pool="spark",
            **kwargs,
        )
        self.module = module
        self.run = run
        self.wanted = wanted
        self.operator_extra_links = tuple(DataDocs(table) for table in docs)

    def execute(self, context: Any) -> None:
        skip_unless(self.wanted)
        self.application_args = without_blanks(self.application_args)
        if settings().spark_master.startswith("sc://"):
            self.run_module(self.module, self.application_args)
            return
        try:
            super().execute(context)
        except AirflowException as error:
            fail_for_good(error)
            raise

    def _get_hook(self) -> SparkSubmitHook:
        hook = super()._get_hook()
        # spark-submit is the driver, which needs no more than the module; by default it gets all that Airflow has.
        hook.submit = partial(hook.submit, env=environment_of(self.module, os.environ))
        return hook


class ModelJob(RunsModule, BaseOperator):
    """Run one of our modules as a plain process: what trains or judges a model brings its own workers, if any.

    If the last thing it prints is a JSON object, that is the task's result.
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
    """Return the last JSON object among the lines, if there is one; libraries may say something after it.

    >>> result(["loading", '{"promoted": true}', "bye"]), result(["bye"])
    ({'promoted': True}, None)
    """
    for line in reversed(list(lines)):
        if line.startswith("{"):
            try:
                return json.loads(line)
            except ValueError:
                continue
    return None
