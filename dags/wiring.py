"""What every DAG here shares: defaults, a Spark job as one task, stage >> audit >> publish for a table."""

import re
from collections.abc import Sequence
from datetime import date, timedelta
from importlib.util import find_spec
from typing import Any

from airflow.providers.apache.spark.operators.spark_submit import SparkSubmitOperator
from airflow.sdk import Asset, BaseOperator, BaseOperatorLink, BaseSensorOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from jinja2 import StrictUndefined

DAY = "{{ data_interval_start | ds }}"
RUN = "{{ run_id }}"

# The job that stages a group's tables, and those tables in the order in which they are published: whoever
# sees the events of a landing day can also see what was rejected from it.
JOBS = {"events": "jobs.ingest", "sessions": "jobs.sessionize", "interests": "jobs.interests"}
TABLES = {"events": ("quarantine", "events"), "sessions": ("sessions",), "interests": ("interests",)}
ASSETS = {
    table: Asset(name=table, uri=f"meander://lake/{table}") for tables in TABLES.values() for table in tables
}

# Arguments of every @dag; each DAG states only what differs.
HOUSE = {
    "catchup": False,
    "template_undefined": StrictUndefined,  # a misspelt name in a template fails the task, not vanishes
    "default_args": {
        "owner": "meander",
        # Two more tries outlast a restarted node. What needs a person is not tried again: `fail_for_good`.
        "retries": 2,
        "retry_delay": timedelta(minutes=1),
        "retry_exponential_backoff": True,
        "max_retry_delay": timedelta(minutes=30),
    },
}

CONF = {
    # Retries belong to Airflow alone: with YARN's own two attempts on top, a broken job would run six times.
    "spark.yarn.maxAppAttempts": "1",
}


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
        return verdict.docs if verdict else ""


def fail_for_good(error: Exception) -> None:
    """Raise what Airflow does not retry when `error` names a section of the runbook: that needs a person."""
    found = re.findall(r".*\[docs/runbook\.md#([a-z-]+)\]", str(error))
    if (
        found and found[-1] != "commit-contended"
    ):  # other publishes kept winning: the next try may well succeed
        said = [line for line in str(error).splitlines() if "[docs/runbook.md#" in line]
        raise AirflowFailException(said[-1]) from error


class WaitForLanding(BaseSensorOperator):
    """Wait until the shop has delivered a day."""

    template_fields = ("day",)

    def __init__(self, *, day: str, **kwargs: Any):
        # `reschedule` gives the worker back between two looks.
        super().__init__(mode="reschedule", poke_interval=timedelta(minutes=5), **kwargs)
        self.day = day

    def poke(self, context: Any) -> bool:  # noqa: ARG002  Airflow's signature
        from lake.landing import has_landed

        return has_landed(date.fromisoformat(self.day))


class SparkJob(SparkSubmitOperator):
    """Run one of our modules under spark-submit, with `--run-id` and the other arguments."""

    template_fields = (*SparkSubmitOperator.template_fields, "run")

    def __init__(
        self, *, module: str, arguments: list[Any], run: Any, docs: tuple[str, ...] = (), **kwargs: Any
    ):
        super().__init__(
            # The installed file: spark-submit wants a path. On a cluster, the same image holds the same path.
            application=find_spec(module).origin,
            application_args=[*arguments, "--run-id", run],
            conn_id="spark_default",
            name=f"meander {module}",
            conf=CONF,
            # With a local master the driver does all the work. A ceiling: it costs nothing until it is used.
            driver_memory="4g",
            pool="spark",
            **kwargs,
        )
        self.run = run
        self.operator_extra_links = tuple(DataDocs(table) for table in docs)

    def execute(self, context: Any) -> None:
        try:
            super().execute(context)
        except AirflowException as error:
            fail_for_good(error)
            raise


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
        return reports


def stage_audit_publish(table: str, span: list[Any], run: Any = RUN, flags: Sequence[str] = ()) -> None:
    """Make the three tasks that every table has, inside the task group that carries the table's name.

    Args:
        table: names the group: events (with quarantine), sessions or interests.
        span: the days to run, as flags of the job.
        run: unique for this span: what a run staged is kept under (run, table).
        flags: more flags of the job.
    """
    tables = TABLES[table]
    inlets = [] if table == "events" else [ASSETS["events"]]
    named = [part for name in tables for part in ("--table", name)]

    stage = SparkJob(task_id="stage", module=JOBS[table], arguments=[*span, *flags], run=run, inlets=inlets)
    audit = SparkJob(task_id="audit", module="expectations.audit", arguments=named, run=run, docs=tables)
    publish = Publish(task_id="publish", tables=tables, run=run, inlets=inlets)
    stage >> audit >> publish
