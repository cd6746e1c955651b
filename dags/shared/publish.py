"""The operator that publishes the staged files of a run."""

from typing import Any

from airflow.sdk import BaseOperator

from dags.shared.alerts import Alert, day_of, resend_queued, send_alert
from dags.shared.assets import ASSETS
from dags.shared.endings import raise_without_retry
from dags.shared.links import DataDocs
from lake.tables import TABLES


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
            if report["refused"]:
                self.alert_refused(table, report["refused"], context)
        resend_queued(context)
        return reports

    def alert_refused(self, table: str, days: list[str], context: Any) -> None:
        """Send an alert that names the days of which readers see newer rows than those of this run."""
        # What is made from other tables is overtaken whenever days run at once; that two runs load the same landing day
        # at once is no everyday thing.
        level = "info" if TABLES[table].reads else "warning"
        named = ", ".join(days[:3]) + (f" and {len(days) - 3} more" if len(days) > 3 else "")
        what = f"rows of this run for {named} were not published: those of a newer staging are"
        about = (self.dag_id, context["ti"].run_id, day_of(context), table, what)
        section = "a-run-succeeded-but-its-day-did-not-change"
        alert = Alert(level, *about, "Readers see the newer rows.", section=section)
        # However many days it is: one message for all runs of a backfill.
        send_alert(alert, context, cause=f"refused|{self.dag_id}|{table}")

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
