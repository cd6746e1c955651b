"""What people are told: one message for one cause, by a webhook, or by any of Airflow's notifiers.

A cause is what failed, where, and how, without its day and numbers: thirty days of a backfill that fail alike are one
message, and so is a day that is tried again. What stays failed is told again after `MEANDER_ALERT_QUIET_HOURS`, with
how often it came meanwhile. What has been told is remembered below `<lake>/_alerts/`.
"""

import hashlib
import json
import logging
import re
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import BaseNotifier

log = logging.getLogger(__name__)

WORDS = {"failure": "FAILED", "warning": "Warning", "info": "For information"}
SECONDS = 10


@dataclass(frozen=True)
class Alert:
    """One message.

    Attributes:
        level: `failure`, `warning` or `info`.
        dag_id, run_id, day, table: what it is about; empty where it is about none.
        what: what happened, in one line: an expectation with the value observed, an error, a finding.
        readers: what readers see meanwhile.
        section: of docs/runbook.md.
    """

    level: str
    dag_id: str
    run_id: str
    day: str
    table: str
    what: str
    readers: str
    section: str

    @property
    def cause(self) -> str:
        """What two messages have in common when one of them is enough."""
        return "|".join((self.level, self.dag_id, self.table, self.section, re.sub(r"\d+", "#", self.what)))

    @property
    def text(self) -> str:
        """The message as a person reads it."""
        about = " ".join(part for part in (self.dag_id, self.day, self.table) if part)
        return f"{WORDS[self.level]}: {about}: {self.what}. {self.readers} Runbook: docs/runbook.md#{self.section}"


def tell(alert: Alert, context: Any = None) -> bool:
    """Send a message unless its cause has been told lately; return whether it was sent.

    Nothing here fails a run: what cannot be sent is logged, and the next one of its kind tries again. Two that come at
    the same instant may both be sent.
    """
    from lake import storage
    from lake.settings import settings

    config, now = settings(), datetime.now(UTC)
    digest = hashlib.sha256(alert.cause.encode()).hexdigest()[:16]
    place = storage.join(config.lake, "_alerts", f"{digest}.json")
    try:
        known = storage.read_json(place) or {}
        told = datetime.fromisoformat(known["told"]) if known else datetime.min.replace(tzinfo=UTC)
        if now - told < timedelta(hours=config.alert_quiet_hours):
            log.info(
                "told at %s already, and not again before %d hours: %s", told, config.alert_quiet_hours, alert.text
            )
            storage.write_json(place, {**known, "since": [*known["since"], alert.day][-100:]})
            return False
        again = f" (and {len(known['since'])} times since {known['told'][:16]})" if known.get("since") else ""
        log.warning("%s%s", alert.text, again)
        send(alert, alert.text + again, context)
        storage.write_json(place, {"cause": alert.cause, "told": now.isoformat(), "text": alert.text, "since": []})
    except Exception as error:  # noqa: BLE001  whatever it is: the run must go on
        # Not the error's words: those of a webhook hold its address, which is a secret.
        log.error("the alert could not be sent (%s); the next one of this cause tries again", type(error).__name__)
        return False
    return True


def send(alert: Alert, text: str, context: Any) -> None:
    """Hand a message to the notifier that is set, and post it to the webhook that is set; the log has it anyway."""
    from lake.settings import settings

    config = settings()
    if config.alert_notifier:
        from airflow.sdk.module_loading import import_string

        notifier = import_string(config.alert_notifier)(**json.loads(config.alert_notifier_options))
        # Its templates, such as `{{ alert.text }}`, find the message beside Airflow's own names.
        notifier({**(context or {}), "alert": alert})
    if address := config.alert_webhook.get_secret_value():
        import requests

        # `text` is what Slack, Mattermost and Teams show; the rest is for programs.
        requests.post(address, json={**asdict(alert), "text": text}, timeout=SECONDS).raise_for_status()


class TellFailure(BaseNotifier):
    """Tell that a task has failed for good; not each of its tries, and not what only waited for it."""

    def notify(self, context: Any) -> None:
        tell(failure(context), context)


def failure(context: Any) -> Alert:
    """Return the message of a failed task."""
    ti, said = context["ti"], str(context.get("exception") or "it was ended from outside")
    sections = re.findall(r"\[docs/runbook\.md#([a-z-]+)\]", said)
    lines = [line.strip() for line in said.splitlines() if line.strip()] or [said]
    # The line that names a section is ours; without one, the last line is what went wrong.
    named = [line for line in lines if "[docs/runbook.md#" in line] or lines
    what = re.sub(r"\s*\[docs/runbook\.md#[a-z-]+\]", "", named[-1])
    return Alert(
        "failure",
        ti.dag_id,
        ti.run_id,
        day_of(context),
        ti.task_id.split(".")[0] if "." in ti.task_id else "",
        f"{ti.task_id}: {what[:500].rstrip('.')}",
        "Readers see what was published before.",
        sections[-1] if sections else "unexpected",
    )


def day_of(context: Any) -> str:
    """Return the last whole day that a run is about; empty for one by hand."""
    end = context.get("data_interval_end") or getattr(context.get("dag_run"), "data_interval_end", None)
    start = context.get("data_interval_start") or getattr(context.get("dag_run"), "data_interval_start", None)
    if end is None or start == end:
        return ""
    return str(end.date() - timedelta(days=1))


async def tell_late(context: Any, tables: str) -> None:
    """Tell that a scheduled day is not done by its deadline; Airflow's triggerer calls this.

    Args:
        context: what Airflow knows of the run, as text.
        tables: which tables are late.
    """
    run = context["dag_run"]
    end = datetime.fromisoformat(str(run["data_interval_end"]).replace("Z", "+00:00"))
    day = str(end.date() - timedelta(days=1))
    what = f"{tables} of the day are not published by {str(context['deadline']['deadline_time'])[:16]} UTC"
    readers = "Readers see the days before."
    tell(Alert("failure", run["dag_id"], run["dag_run_id"], day, tables, what, readers, "tables-late"))
