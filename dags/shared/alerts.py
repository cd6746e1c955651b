"""What people are told: one message for one cause, by a webhook, or by any of Airflow's notifiers.

A cause is what failed, where, and how, without its day and numbers: thirty days of a backfill that fail alike are one
message, and so is a day that is tried again. What waits for a day is no cause: the first table that lacks it is. What
stays failed is told again after `MEANDER_ALERT_QUIET_HOURS`, with how often it came meanwhile. What has been told is
remembered below `<lake>/_alerts/`, and so is what could not be sent, until the next message gets through.
"""

import asyncio
import json
import logging
import re
import tempfile
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseNotifier
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import AirflowSensorTimeout

from dags import PREFIX
from lake.errors import LOG_PREFIX
from lake.settings import settings
from lake.tables import TABLES, way_to

if TYPE_CHECKING:
    from dags.shared.alert_memory import AlertMemory

log = logging.getLogger(__name__)

WORDS = {"failure": "FAILED", "warning": "Warning", "info": "For information"}
SECONDS = 10
STILL_UNSENT = "what could not be sent before still cannot (%s): it lies in %s/unsent"
# Numbers, and names that are made of them: run ids, the ids of stagings.
CHANGES = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|\b[0-9a-f]{8,}\b|\d+")


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
        return "|".join((self.level, self.dag_id, self.table, self.section, CHANGES.sub("#", self.what)))

    @property
    def runbook(self) -> str:
        """Where the section is: on the Meander page, if Airflow knows its own address."""
        base = (conf.get("api", "base_url", fallback="") or "").rstrip("/")
        return f"{base}{PREFIX}/page/runbook#{self.section}" if base else f"docs/runbook.md#{self.section}"

    @property
    def text(self) -> str:
        """The message as a person reads it."""
        about = " ".join(part for part in (self.dag_id, self.day, self.table) if part)
        return f"{WORDS[self.level]}: {about}: {self.what}. {self.readers} Runbook: {self.runbook}"


def tell(alert: Alert, context: Any = None, cause: str = "", *, once: bool = False) -> bool:
    """Send a message unless its cause has been told lately; return whether it was sent.

    Nothing here fails a run. What cannot be sent is logged and kept, and the next message, of whatever cause, takes it
    along.

    Args:
        alert: the message.
        context: Airflow's, for the templates of a notifier.
        cause: where it is not what the message says.
        once: never tell this cause again; for what is about a day that is over.
    """
    from dags.shared.alert_memory import AlertMemory
    from lake.places import alerts_folder

    # Where the lake cannot be reached, that is what has to be told: this machine remembers it.
    for folder in (settings().lake, tempfile.gettempdir() + "/meander"):
        memory = AlertMemory(alerts_folder(folder))
        try:
            outcome = tell_if_new(memory, alert, context, cause or alert.cause, once=once)
        except Exception as error:  # noqa: BLE001  whatever it is: the run must go on
            log.error("%s cannot remember alerts: %s", folder, error)
            continue
        if outcome != "unsent":
            resend(memory, context)
        return outcome == "sent"
    return False


def tell_if_new(memory: "AlertMemory", alert: Alert, context: Any, cause: str, *, once: bool) -> str:
    """Send a message if its cause is new, or was told long ago; keep it if it cannot be sent.

    Returns:
        `sent`, `told` when another message has told it, or `unsent`.
    """
    # Days of a backfill that run at once fail at once.
    with memory.claim(cause) as is_ours:
        if not is_ours:
            log.info("another task tells it at this instant: %s", alert.text)
            return "told"
        earlier = memory.told(cause)
        if earlier and (once or earlier.within(quiet())):
            log.info("told at %s already: %s", earlier.told, alert.text)
            memory.note_again(earlier, alert.day)
            return "told"
        again = f" (and {len(earlier.since)} times since {earlier.told[:16]})" if earlier and earlier.since else ""
        text = alert.text + again
        log.warning("%s", text)
        # Before it is sent, so that it is not lost when this process is killed meanwhile.
        memory.keep_unsent(cause, {**asdict(alert), "text": text})
        memory.note_told(cause, text)
        obstacle = send(alert, text, context)
        if obstacle:
            log.error("the alert could not be sent (%s); the next one takes it along: %s", obstacle, alert.text)
            return "unsent"
        memory.remove_sent(cause)
        return "sent"


def quiet() -> timedelta:
    """Return how long a cause that has been told is not told again."""
    return timedelta(hours=settings().alert_quiet_hours)


def resend(memory: "AlertMemory", context: Any) -> None:
    """Send what could not be sent before; the first that fails again is the last that is tried."""
    try:
        names = memory.unsent()
        if not names:
            return
        with memory.claim_unsent() as is_ours:
            for name in names if is_ours else []:
                if message := memory.read_unsent(name):
                    text = message.pop("text")
                    obstacle = send(Alert(**message), text, context)
                    if obstacle:
                        log.error(STILL_UNSENT, obstacle, memory.folder)
                        return
                memory.remove_unsent(name)
    except Exception as error:  # noqa: BLE001  this message is told; what waits, waits for the next one
        log.error(STILL_UNSENT, error, memory.folder)


def send(alert: Alert, text: str, context: Any) -> str:
    """Hand a message to the notifier that is set, and post it to the webhook that is set; the log has it anyway.

    Returns:
        The kind of error that kept one of them from taking it, empty when both have it: not its words, which hold an
        address, a secret.
    """
    config = settings()
    try:
        if config.alert_notifier:
            notify(config.alert_notifier, json.loads(config.alert_notifier_options), alert, text, context)
        if address := config.alert_webhook.get_secret_value():
            import requests

            # `text` is what Slack, Mattermost and Teams show; the rest is for programs.
            content = {**asdict(alert), "runbook": alert.runbook, "text": text}
            requests.post(address, json=content, timeout=SECONDS).raise_for_status()
    except Exception as error:  # noqa: BLE001  a notifier may raise anything
        return type(error).__name__
    return ""


def notify(path: str, options: dict[str, Any], alert: Alert, text: str, context: Any) -> None:
    """Hand a message to a notifier of Airflow."""
    from airflow.sdk.module_loading import import_string

    notifier = import_string(path)(**options)
    # Its templates, such as `{{ text }}`, find the message beside Airflow's own names.
    names = {**(context or {}), "alert": alert, "text": text}
    # Not by calling it: that only logs an error of `notify`, and the message would count as sent.
    notifier._update_context(names)
    notifier.render_template_fields(names)
    notifier.notify(names)


class TellFailure(BaseNotifier):
    """Tell that a task has failed for good; not each of its tries, and not what only waited for it."""

    def notify(self, context: Any) -> None:
        alert = failure(context)
        awaited = getattr(context.get("task"), "awaits", "")
        waited = awaited and alert.day and isinstance(context.get("exception"), AirflowSensorTimeout)
        tell(alert, context, missing(awaited, alert.day) if waited else "")


def first_missing(table: str, day: str) -> str:
    """Return which table holds up another one on a day: the first on the way to it that lacks the day; empty if none.

    >>> first_missing("serving", "2025-03-01")
    ''
    """
    from lake.table import Table

    for name in way_to(table) if table in TABLES else ():
        published = Table.find(name)
        if published is None or published.basis(date.fromisoformat(day)) is None:
            return name
    return ""


def missing(table: str, day: str) -> str:
    """Return the cause of all that waits for a day of a table: whoever waits, and whatever for, it is told once."""
    return f"missing|{first_missing(table, day) or table}"


def failure(context: Any) -> Alert:
    """Return the message of a failed task."""
    ti, error = context["ti"], str(context.get("exception") or "it was ended from outside")
    sections = re.findall(r"\[docs/runbook\.md#([a-z-]+)\]", error)
    lines = [line.strip() for line in error.splitlines() if line.strip()] or [error]
    # The line that names a section is ours; without one, the last line is what went wrong.
    ours = [line for line in lines if "[docs/runbook.md#" in line] or lines
    what = LOG_PREFIX.sub("", re.sub(r"\s*\[docs/runbook\.md#[a-z-]+\]", "", ours[-1]))
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
        tables: which tables the run publishes.
    """
    # The triggerer runs everything in one loop, which a webhook that does not answer would hold up.
    await asyncio.to_thread(late, context, tables.split(", "))


def late(context: Any, tables: list[str]) -> None:
    """Tell which tables are late, or that the table is which they wait for; nothing if readers have the day by now."""
    run = context["dag_run"]
    end = datetime.fromisoformat(str(run["data_interval_end"]).replace("Z", "+00:00"))
    day = str(end.date() - timedelta(days=1))
    lacking = {table: first for table in tables if (first := first_missing(table, day))}
    if not lacking:
        log.info("%s of %s are published, by another run or just now", ", ".join(tables), day)
        return
    if run.get("state") == "failed":
        log.info("%s of %s has failed before its deadline, and that was told", run["dag_id"], day)
        return
    last = [*lacking][-1]
    by = str(context["deadline"]["deadline_time"])[:16].replace("T", " ")
    if lacking[last] in tables:
        what = f"{', '.join(lacking)} of the day are not published by {by} UTC"
    else:
        what = f"{lacking[last]} of the day are not published by {by} UTC, and {', '.join(lacking)} wait for them"
    about = (run["dag_id"], run["dag_run_id"], day, ", ".join(lacking), what)
    alert = Alert("failure", *about, "Readers see the days before.", section="tables-late")
    tell(alert, cause=missing(last, day))
