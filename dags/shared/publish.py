"""The operator that publishes the staged files of a run."""

from typing import Any

from airflow.sdk import BaseOperator

from dags.shared.alerts import Alert, day_of, resend_queued, send_alert
from dags.shared.assets import ASSETS
from dags.shared.endings import raise_without_retry
from dags.shared.links import DataDocs


class Publish(BaseOperator):
    """Commit the staged files of a run; the assets' events have the rows and version that readers now see."""

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
                raise_without_retry(error)
                raise
            self.log.info("%s: %d rows are version %d", table, report["rows"], report["version"])
            context["outlet_events"][ASSETS[table]].extra = {
                key: report[key] for key in ("rows", "version", "verdict", "docs", "run_id", "refused")
            }
            if report["verdict"] == "warned":
                self.warn(table, context, already=report["already"])
        resend_queued(context)
        return reports

    def warn(self, table: str, context: Any, *, already: bool) -> None:
        """Send an alert for each warning of the audit; the table is published nevertheless.

        A task that is cleared has published `already`, and has sent the alerts if it was not killed in between.
        """
        from lake.staging import read_verdict

        verdict = read_verdict(table, self.run)
        since = verdict.audited if verdict and already else ""
        for broken in verdict.failed if verdict else []:
            about = (self.dag_id, context["ti"].run_id, day_of(context), table, broken.rstrip("."))
            send_alert(
                Alert("warning", *about, "Readers see the day.", section="the-audit-warned"), context, since=since
            )
