"""The operator that publishes the staged files of a run."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from dags.shared.alerts import Alert, day_of, resend_queued, send_alert
from dags.shared.assets import ASSETS
from dags.shared.endings import checked_settings, raise_without_retry
from dags.shared.links import DataDocs
from lake.tables import TABLES

if TYPE_CHECKING:
    from lake.staging import Verdict


def require_all_days(runs: Iterable[str], tables: Sequence[str]) -> None:
    """Fail a task, for good, if readers lack days of some runs that failed their audit; not those repaired since.

    All that has staged is asked about, not what verdicts say: an audit may have run again, with other limits.
    """
    from lake.errors import MeanderError
    from lake.publish import publish, require_whole
    from lake.staging import find_staged

    staged = [(table, run) for run in runs for table in tables if find_staged(table, run)]
    try:
        # Publishing again changes nothing, and tells what readers see now.
        require_whole([publish(table, run) for table, run in staged])
    except MeanderError as error:
        raise_without_retry(error)
        raise


def warnings_of(verdict: "Verdict") -> list[str]:
    """Return, in words, what an audit has warned of on the days that were published."""
    if not verdict.withheld:
        return verdict.failed
    of_days = (lines for day, lines in verdict.unmet.items() if day not in verdict.withheld)
    return list(dict.fromkeys(line for lines in of_days for line in lines))


class Publish(BaseOperator):
    """Commit the staged files of a run; the assets' events have the rows and version that readers now see.

    Where days have failed their audit, the others are published. Then the task fails, or, if `goes_on`, sends the alert
    itself, so that what is made of the other days is made: a later task has to fail.
    """

    template_fields = ("run",)

    def __init__(self, *, tables: tuple[str, ...], run: Any, goes_on: bool = False, **kwargs: Any):
        super().__init__(outlets=[ASSETS[table] for table in tables], **kwargs)
        self.tables = tables
        self.run = run
        self.goes_on = goes_on
        self.operator_extra_links = tuple(DataDocs(table) for table in tables)

    def execute(self, context: Any) -> dict[str, Any]:
        from lake.errors import AuditFailed, MeanderError
        from lake.publish import publish, require_whole

        checked_settings()
        reports = {}
        for table in self.tables:
            try:
                reports[table] = report = publish(table, self.run)
            except MeanderError as error:
                raise_without_retry(error)
                raise
            self.log.info("%s: %d rows are version %d", table, report["rows"], report["version"])
            context["outlet_events"][ASSETS[table]].extra = {
                key: report[key] for key in ("rows", "version", "verdict", "docs", "run_id", "refused", "withheld")
            }
            if report["verdict"] == "warned":
                self.warn(table, context, already=report["already"])
            if report["refused"]:
                self.alert_refused(table, report["refused"], context)
        try:
            require_whole(reports.values())
        except AuditFailed as error:
            if not self.goes_on:
                raise_without_retry(error)
            self.alert_withheld(error.message, context)
        resend_queued(context)
        return reports

    def alert_withheld(self, what: str, context: Any) -> None:
        """Send an alert that names the days that failed their audit, while what is made of the others goes on."""
        group = TABLES[self.tables[0]].group
        about = (self.dag_id, context["ti"].run_id, day_of(context), group, what)
        readers = "Readers see what was published before of these days, and the other days of the run."
        # The first of all chunks, however many days fail: a later task names all days.
        alert = Alert("failure", *about, readers, section="audit-failed")
        send_alert(alert, context, cause=f"withheld|{self.dag_id}|{group}")

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
        for broken in warnings_of(verdict) if verdict else []:
            about = (self.dag_id, context["ti"].run_id, day_of(context), table, broken.rstrip("."))
            send_alert(
                Alert("warning", *about, "Readers see the day.", section="the-audit-warned"), context, since=since
            )
