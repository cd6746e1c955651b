"""The operators of our DAGs: wait, run a Spark job or a training, publish, promote; and their buttons."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterable
from datetime import UTC, date, datetime, time, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from airflow.providers.apache.spark.operators.spark_submit import SparkSubmitOperator
from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import Asset, BaseOperator, BaseOperatorLink, BaseSensorOperator
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSensorTimeout, AirflowSkipException

from dags.shared.alerts import Alert, day_of, tell
from dags.shared.process import end_politely, process_group, without_airflow
from lake.tables import TABLES

# `x-` is Airflow's mark of a scheme of one's own. For another, each task would load all providers that know one.
ASSETS = {table: Asset(name=table, uri=f"x-meander://lake/{table}") for table in TABLES}
CHAMPION = Asset(name="champion", uri="x-meander://model/champion")

CONF = {
    # Retries belong to Airflow alone: with YARN's own two attempts on top, a broken job would run six times.
    "spark.yarn.maxAppAttempts": "1",
}


def below_base(address: str) -> str:
    """Return where a page of ours is found in a browser: Airflow may itself live below a path of its server.

    >>> below_base("https://docs.example.org/x.html"), below_base("")
    ('https://docs.example.org/x.html', '')
    """
    base = urlsplit(conf.get("api", "base_url", fallback="") or "").path.rstrip("/")
    return base + address if address.startswith("/") else address


class DataDocs(BaseOperatorLink):
    """The button on a task that opens the data docs of what its run staged for one table."""

    def __init__(self, table: str):
        self.table = table

    @property
    def name(self) -> str:
        return f"Data docs: {self.table}"

    @property
    def xcom_key(self) -> str:
        return f"data_docs_{self.table}"

    def get_link(self, operator: BaseOperator, *, ti_key: Any) -> str:  # noqa: ARG002  Airflow's signature
        """Return the address that the audit noted; Airflow asks on the worker, when the task has ended."""
        from lake.staging import read_verdict

        verdict = read_verdict(self.table, operator.run)
        return below_base(verdict.docs) if verdict else ""


class EvaluationReport(BaseOperatorLink):
    """The button on a task that opens what its run's model was found to be worth."""

    name = "Evaluation report"
    xcom_key = "evaluation_report"

    def get_link(self, operator: BaseOperator, *, ti_key: Any) -> str:  # noqa: ARG002  Airflow's signature
        """Return the address under which dags/page/app.py shows the report, once there is one."""
        from dags.shared.evaluation import Evaluation

        return below_base(Evaluation.of(operator.run).report_link)


class MlflowRuns(BaseOperatorLink):
    """The button on a task that opens its run in MLflow: parameters, curves, table versions, plots."""

    name = "MLflow"
    xcom_key = "mlflow"

    def get_link(self, operator: BaseOperator, *, ti_key: Any) -> str:  # noqa: ARG002  Airflow's signature
        """Return the address in MLflow's UI, once there is an evaluation; asking MLflow takes seconds."""
        from dags.shared.evaluation import Evaluation, mlflow_link

        return mlflow_link(operator.run) if Evaluation.of(operator.run).decision else ""


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


# Others were first, or a machine was lost: the next try may well succeed.
MAY_PASS = {"commit-contended", "worker-failed", "serving-busy", "serving-unavailable"}


def fail_for_good(error: Exception) -> None:
    """Raise what Airflow does not retry when `error` names a section of the runbook: that needs a person."""
    named = [
        line
        for line in str(error).splitlines()
        for section in re.findall(r"\[docs/runbook\.md#([a-z-]+)\]", line)
        if section not in MAY_PASS
    ]
    if named:
        raise AirflowFailException(named[-1].strip()) from error


def skip_unless(wanted: str) -> None:
    """Skip this task, and with it what needs its work, when a rendered condition says so.

    Raises:
        AirflowSkipException: `wanted` is anything but `True`.
    """
    if wanted != "True":
        raise AirflowSkipException("this table is not among those that the run was asked to make")


class Wait(BaseSensorOperator):
    """A sensor that says what it has waited for, and where to read on, when its time is over."""

    # The table that has to hold the day first; dags.shared.alerts tells once what several tasks have waited for.
    awaits = ""

    def execute(self, context: Any) -> Any:
        try:
            return super().execute(context)
        except AirflowSensorTimeout as error:
            hours = timedelta(seconds=self.timeout) // timedelta(hours=1)
            raise AirflowSensorTimeout(f"waited for {hours} hours: {self.lacks()}") from error

    def lacks(self) -> str:
        """Return what did not come, with its section of the runbook."""
        raise NotImplementedError


class WaitForLanding(Wait):
    """Wait until the shop has delivered a day; skipped when the run is not to read it."""

    template_fields = ("day", "wanted")
    awaits = "events"

    def __init__(self, *, day: str, wanted: str, **kwargs: Any):
        # `reschedule` gives the worker back between two looks.
        super().__init__(mode="reschedule", poke_interval=timedelta(minutes=5), **kwargs)
        self.day = day
        self.wanted = wanted

    def poke(self, context: Any) -> bool:  # noqa: ARG002  Airflow's signature
        from lake.landing import has_landed

        skip_unless(self.wanted)
        return has_landed(date.fromisoformat(self.day))

    def lacks(self) -> str:
        return f"{self.day} has not landed, or not wholly [docs/runbook.md#landing-missing]"


class WaitForPublished(Wait):
    """Wait until a table's partition of a day is published: by time and not by asset, so that it can be backfilled."""

    template_fields = ("day",)

    def __init__(self, *, table: str, day: str, **kwargs: Any):
        super().__init__(mode="reschedule", poke_interval=timedelta(minutes=1), **kwargs)
        self.table = self.awaits = table
        self.day = day

    def lacks(self) -> str:
        return f"{self.table} of {self.day} are not published [docs/runbook.md#tables-late]"

    def poke(self, context: Any) -> bool:  # noqa: ARG002  Airflow's signature
        from lake.table import Table

        published = Table.find(self.table)
        # Not the rows: a day without any counts as well, once a run has published that.
        return published is not None and published.basis(date.fromisoformat(self.day)) is not None


class WaitForEarlierDays(Wait):
    """Wait until no earlier day, of those that Airflow is working on, can still publish events.

    The state at the end of a day counts everything that had landed by then. A day whose run has failed, has
    not begun or still lacks its landing is not waited for: that could take for ever, and the audit of `interests` warns
    of missing days.
    """

    # Airflow works on a few days at once; none of them is further apart than this.
    HORIZON = 31
    ENDED = ("success", "failed", "upstream_failed", "skipped", "removed")

    template_fields = ("day",)

    def __init__(self, *, day: str, begins_with: str, publishes: str, **kwargs: Any):
        # Mostly there is nothing to wait for, or seconds.
        super().__init__(mode="reschedule", poke_interval=timedelta(seconds=15), **kwargs)
        self.day = day
        self.begins_with = begins_with
        self.publishes = publishes

    def poke(self, context: Any) -> bool:
        midnight = datetime.combine(date.fromisoformat(self.day), time(), UTC)
        runs = context["ti"].get_task_states(
            dag_id=self.dag_id,
            task_ids=[self.begins_with, self.publishes],
            logical_dates=[midnight - timedelta(days=n) for n in range(1, self.HORIZON + 1)],
        )
        busy = [
            run_id
            for run_id, states in runs.items()
            # A day that has not landed yet keeps nobody waiting: it may never come, and the audit warns of it.
            if states.get(self.begins_with) not in (None, "up_for_reschedule")
            and states.get(self.publishes) not in self.ENDED
        ]
        if busy:
            self.log.info("waiting for %s", ", ".join(sorted(busy)))
        return not busy

    def lacks(self) -> str:
        return "earlier days are still at work, the log says which [docs/runbook.md#tables-late]"


class RunsModule:
    """For operators that run one of our modules as a plain process: it gets our settings and nothing of Airflow's.

    Its output is the task's log, and it ends with the task.
    """

    # An error and what led to it; a training may log for hours.
    REMEMBERED = 500
    leader: subprocess.Popen[str] | None = None

    def run_module(self, module: str, arguments: Iterable[str], **variables: str) -> deque[str]:
        """Run `python -m module` with these variables besides our own, and return the last lines that it printed.

        Raises:
            AirflowFailException: it has failed, and the last line says what a person has to do.
            AirflowException: it has failed otherwise, or was killed.
        """
        command = [sys.executable, "-m", module, *arguments]
        self.log.info("running %s", shlex.join(command))
        environment = without_airflow(os.environ) | {
            # People watch the log grow.
            "PYTHONUNBUFFERED": "1",
            # Of the folder we are in, nothing is imported: `lake/audits` there is a table, and no module of ours.
            "PYTHONSAFEPATH": "1",
            **variables,
        }
        said: deque[str] = deque(maxlen=self.REMEMBERED)
        with process_group(command, environment) as self.leader:
            for line in self.leader.stdout:
                said.append(line.rstrip())
                self.log.info("%s", said[-1])
        code = self.leader.returncode
        if code > 0:  # who is killed has said nothing about it
            fail_for_good(AirflowException("\n".join(said)))
        if code:
            last = said[-1] if said else "nothing"
            raise AirflowException(f"{module} {ended(code)}; it said last: {last}")
        return said

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
            driver_memory="4g",
            pool="spark",
            **kwargs,
        )
        self.module = module
        self.run = run
        self.wanted = wanted
        self.operator_extra_links = tuple(DataDocs(table) for table in docs)

    def execute(self, context: Any) -> None:
        from lake.settings import settings

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
        """Return what the process gets besides our own environment."""
        return {}

    def execute(self, context: Any) -> dict[str, Any] | None:  # noqa: ARG002  Airflow's signature
        return result(self.run_module(self.module, without_blanks(self.arguments), **self.variables()))


def ended(code: int) -> str:
    """Say in words how a process ended.

    >>> ended(2), ended(-9)
    ('ended with exit code 2', 'was ended by SIGKILL (often: the memory was used up)')
    """
    if code > 0:
        return f"ended with exit code {code}"
    often = " (often: the memory was used up)" if code == -signal.SIGKILL else ""
    return f"was ended by {signal.Signals(-code).name}{often}"


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


class Approve(ApprovalOperator):
    """Ask a person before a candidate becomes champion, when the setting `promotion_approval` is on.

    Nobody is asked about a candidate that the gate has refused. An answer that does not come in time is a *Reject*:
    `promote` is skipped then, and the champion stays.
    """

    template_fields = (*ApprovalOperator.template_fields, "run")
    # The run of the next week has to wait for this one.
    PATIENCE = timedelta(days=6)

    def __init__(self, *, run: str, **kwargs: Any):
        super().__init__(
            subject="Shall the candidate become champion?",
            defaults=self.REJECT,
            response_timeout=self.PATIENCE,
            **kwargs,
        )
        self.run = run
        self.operator_extra_links = (EvaluationReport(), MlflowRuns())

    def execute(self, context: Any) -> Any:
        from dags.shared.evaluation import Evaluation
        from lake.settings import settings

        decision = Evaluation.of(self.run).decision
        if not settings().promotion_approval:
            self.log.info("nobody is asked: MEANDER_PROMOTION_APPROVAL is off")
        elif decision is None or not decision["promote"]:
            self.log.info("nobody is asked: the gate has not let the candidate through")
        else:
            self.body = approval_text(decision["reasons"], below_base(Evaluation.of(self.run).report_link))
            return super().execute(context)
        return None


def approval_text(reasons: list[str], report: str) -> str:
    """Return what a person reads before answering, in Markdown.

    >>> print(approval_text(["better than the champion"], "/meander/report"))
    The gate has let it through:
    <BLANKLINE>
    - better than the champion
    <BLANKLINE>
    [Evaluation report](/meander/report)
    """
    said = "\n".join(f"- {reason}" for reason in reasons)
    return f"The gate has let it through:\n\n{said}\n\n[Evaluation report]({report})"


class Promote(ModelJob):
    """Let the gate decide; a champion that stays makes the task *skipped*, so that everybody sees it, and says why.

    Nothing has failed then, and nobody has to act: predictions go on with the champion that there is.
    """

    def __init__(self, **kwargs: Any):
        super().__init__(module="model.promote", arguments=[], pool="default_pool", outlets=[CHAMPION], **kwargs)
        self.operator_extra_links = (EvaluationReport(), MlflowRuns())

    def execute(self, context: Any) -> dict[str, Any]:
        decision = super().execute(context)
        if decision is None:
            raise AirflowException(f"{self.module} did not print its decision")
        why, champion = "; ".join(decision["reasons"]), decision["champion"]
        if not decision["promoted"]:
            # A skipped task has no return value of its own.
            context["ti"].xcom_push("return_value", decision)
            stays = f"champion stays version {champion}" if champion else "there is no champion"
            refusal = f"the gate has refused version {decision['version']}: {why}"
            readers = "Predictions go on with the champion." if champion else "Nothing predicts."
            about = (self.dag_id, context["ti"].run_id, day_of(context), "")
            tell(Alert("info", *about, refusal, readers, section="promote-was-skipped"), context)
            raise AirflowSkipException(f"the gate has refused version {decision['version']}, {stays}: {why}")
        self.log.info("version %s passed the gate, champion is version %s: %s", decision["version"], champion, why)
        context["outlet_events"][CHAMPION].extra = {"run_id": self.run, **decision}
        return decision


class Publish(BaseOperator):
    """Commit what a run staged, and say in the assets' events what readers now see."""

    template_fields = ("run",)

    def __init__(self, *, tables: tuple[str, ...], run: Any, **kwargs: Any):
        super().__init__(outlets=[ASSETS[table] for table in tables], **kwargs)
        self.tables = tables
        self.run = run
        self.operator_extra_links = tuple(DataDocs(table) for table in tables)

    def execute(self, context: Any) -> dict[str, Any]:
        from lake.errors import MeanderError
        from lake.publish import publish

        reports = {}
        for table in self.tables:
            try:
                reports[table] = report = publish(table, self.run)
            except MeanderError as error:
                fail_for_good(error)
                raise
            self.log.info("%s: %d rows are version %d", table, report["rows"], report["version"])
            context["outlet_events"][ASSETS[table]].extra = {
                key: report[key] for key in ("rows", "version", "verdict", "docs", "run_id", "refused")
            }
            if report["verdict"] == "warned":
                self.warn(table, context)
        return reports

    def warn(self, table: str, context: Any) -> None:
        """Tell what the audit has warned of: published all the same, and worth a look in the morning."""
        from lake.staging import read_verdict

        verdict = read_verdict(table, self.run)
        for broken in verdict.failed if verdict else []:
            about = (self.dag_id, context["ti"].run_id, day_of(context), table, broken.rstrip("."))
            tell(Alert("warning", *about, "Readers see the day.", section="the-audit-warned"), context)


class Monitor(ModelJob):
    """Run model.monitor, and tell each finding that somebody has to look at; a finding fails nothing."""

    def __init__(self, **kwargs: Any):
        super().__init__(module="model.monitor", pool="default_pool", **kwargs)

    def execute(self, context: Any) -> dict[str, Any]:
        watched = super().execute(context)
        if watched is None:
            raise AirflowException(f"{self.module} did not print what it found")
        told: dict[tuple[str, str, int | None], list[dict[str, Any]]] = {}
        for found in watched["findings"]:
            if not found["ok"]:
                told.setdefault((found["kind"], found["day"], found["model_version"]), []).append(found)
        for (kind, day, version), bad in told.items():
            # What drifts together has one cause. An outcome is looked at again each day, and does not change any more.
            about = (self.dag_id, context["ti"].run_id, day, bad[0]["table"])
            what = "; ".join(found["why"] for found in bad)
            readers = "Readers see what was published; nothing was taken back."
            over = kind == "outcome"
            cause = "|".join((self.dag_id, kind, str(version), day if over else ""))
            tell(Alert("warning", *about, what, readers, bad[0]["section"]), context, cause, once=over)
        return watched
