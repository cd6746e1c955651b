"""The operators of our DAGs: wait, run a Spark job, publish; they show in Airflow's UI what people need."""

import re
from datetime import UTC, date, datetime, time, timedelta
from importlib.util import find_spec
from typing import Any

from airflow.providers.apache.spark.operators.spark_submit import SparkSubmitOperator
from airflow.sdk import Asset, BaseOperator, BaseOperatorLink, BaseSensorOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException

TABLES = ("quarantine", "events", "sessions", "interests")
ASSETS = {table: Asset(name=table, uri=f"meander://lake/{table}") for table in TABLES}

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
    if found and found[-1] != "commit-contended":  # other publishes kept winning: the next try may well succeed
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


class WaitForEarlierDays(BaseSensorOperator):
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


class SparkJob(SparkSubmitOperator):
    """Run one of our modules under spark-submit, with `--run-id` and the other arguments."""

    template_fields = (*SparkSubmitOperator.template_fields, "run")

    def __init__(self, *, module: str, arguments: list[Any], run: Any, docs: tuple[str, ...] = (), **kwargs: Any):
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
