"""Alerts: one for each cause, by a webhook, or by any of Airflow's notifiers.

A cause is the failed step, its place and its error, without days and numbers. So thirty days of a backfill that fail
alike send one alert, and so does a day that is run again and fails again. A task that only waits for a day is no cause:
the first table without that day is. A cause that persists sends another alert after `MEANDER_ALERT_QUIET_HOURS`, with
the number of suppressed ones. `<lake>/_alerts/` records the sent alerts, and queues those that could not be sent; where
it cannot be written, alerts are sent all the same.
"""

import asyncio
import html
import json
import logging
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseNotifier
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import AirflowException, AirflowSensorTimeout

from dags import PREFIX
from dags.shared.endings import SECTION, without_values
from lake.errors import LOG_PREFIX
from lake.settings import known_settings
from lake.tables import TABLES, way_to
from lake.text import visible

if TYPE_CHECKING:
    from dags.shared.alert_memory import AlertMemory

log = logging.getLogger(__name__)

PREFIXES = {"failure": "FAILED", "warning": "Warning", "info": "For information"}
TIMEOUT_SECONDS = 10
WORD_JOINER = "\u2060"
# How long, and in how many files of each kind, this machine keeps alerts that the lake cannot keep.
MACHINE_AGE, MACHINE_FILES = timedelta(days=90), 1000
STILL_UNSENT = "queued alerts could not be sent (%s); they stay in %s/unsent"
# Differs between alerts of one cause: numbers, and names that consist of them, such as run ids and the ids of stagings.
VARIABLE_PARTS = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|\b[0-9a-f]{8,}\b|\d+")


@dataclass(frozen=True)
class Alert:
    """One message.

    Attributes:
        level: `failure`, `warning` or `info`.
        dag_id, run_id, day, table: the subject; empty where there is none.
        what: the event in one line: an expectation with the observed value, an error, a finding.
        readers: the rows that readers see meanwhile.
        section: the section of docs/runbook.md.
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
        """The key of which one alert is sent: equal for messages that differ in days and numbers alone."""
        return "|".join((self.level, self.dag_id, self.table, self.section, VARIABLE_PARTS.sub("#", self.what)))

    @property
    def runbook(self) -> str:
        """The address of the section on the Meander page, if `[api] base_url` is set; otherwise its place in docs."""
        base = (conf.get("api", "base_url", fallback="") or "").rstrip("/")
        return f"{base}{PREFIX}/page/runbook#{self.section}" if base else f"docs/runbook.md#{self.section}"

    @property
    def text(self) -> str:
        """The message as a person reads it."""
        about = " ".join(part for part in (self.dag_id, self.day, self.table) if part)
        return f"{PREFIXES[self.level]}: {about}: {self.what}. {self.readers} Runbook: {self.runbook}"


def send_alert(alert: Alert, context: Any = None, cause: str = "", *, once: bool = False, since: str = "") -> bool:
    """Send an alert unless one of its cause was sent recently; return whether it was sent.

    Nothing here fails a run. An alert that cannot be sent is logged, queued, and sent after the next one of any cause.
    Where nothing can be recorded, an alert is sent all the same: rather twice than never.

    Args:
        alert: the message.
        context: Airflow's, for the templates of a notifier.
        cause: the cause, where it differs from that of the message.
        once: never send this cause again; for findings about a day that do not change any more.
        since: do not send this cause again if it was sent after this time, in ISO 8601.
    """
    cause = cause or alert.cause
    for memory in memories():
        try:
            text = record(memory, alert, cause, once=once, since=since)
        except Exception as error:  # noqa: BLE001  whatever it is: the alert must be sent
            log.error("%s cannot record alerts: %s", memory.folder, error)
            continue
        if not text:
            resend(memory, context)
            return False
        obstacle = deliver(alert, text, context)
        if obstacle:
            log.error("alert not sent (%s); queued, and sent after the next one: %s", obstacle, alert.text)
            return False
        try:
            memory.remove_sent(cause)
        except Exception as error:  # noqa: BLE001  it was sent
            log.error("%s keeps an alert that was sent, and will be sent again: %s", memory.folder, error)
        else:
            resend(memory, context)
        return True
    log.warning("%s", alert.text)
    obstacle = deliver(alert, alert.text, context)
    if obstacle:
        log.error("alert not sent (%s), and nowhere to queue it: %s", obstacle, alert.text)
    return not obstacle


def memories() -> Iterator["AlertMemory"]:
    """Yield the memories of alerts: in the lake, then on this machine, since an alert may be about the lake."""
    from dags.shared.alert_memory import AlertMemory
    from lake.places import alerts_folder

    try:
        lake = known_settings().lake
    except Exception as error:  # noqa: BLE001  an alert may be about settings that are not valid
        log.error("the lake cannot record alerts: %s", error)
    else:
        yield AlertMemory(alerts_folder(lake))
    if folder := private_folder():
        memory = AlertMemory(alerts_folder(folder))
        take_over_queue(memory.folder)
        prune(memory)
        yield memory


def prune(memory: "AlertMemory") -> None:
    """Bound the memory of this machine; that of the lake is bounded by upkeep."""
    try:
        if lost := memory.prune(MACHINE_AGE, MACHINE_FILES):
            log.error("%s: removed %d of the oldest queued alerts, which were never sent", memory.folder, lost)
    except Exception as error:  # noqa: BLE001  alerts are sent all the same
        log.error("%s cannot be cleaned: %s", memory.folder, error)


def private_folder() -> str:
    """Return a folder of this machine that other users can neither read nor write; empty if there is none."""
    folder = Path(tempfile.gettempdir(), f"meander-{os.getuid()}")
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    except OSError as error:
        log.error("%s cannot record alerts: %s", folder, error)
        return ""
    # Anybody may have made it before us, or a link: then alerts could be read, kept back or forged there.
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        log.error("%s cannot record alerts: it is not a folder of this user alone; remove it", folder)
        return ""
    return str(folder)


def take_over_queue(memory: str) -> None:
    """Move the alerts that an earlier version has queued on this machine into the memory that is read now.

    It queued them in a folder whose name everybody knew. Where another user may have made or changed something on the
    way to them, they stay: a forged alert would be sent.
    """
    from lake.places import alerts_folder

    old = Path(tempfile.gettempdir(), "meander")
    alerts = Path(alerts_folder(str(old)))
    queue, unsent = alerts / "unsent", Path(memory, "unsent")
    try:
        for folder in (old, alerts, queue):
            status = folder.lstat()
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o022:
                log.error("%s may hold queued alerts, which are not sent: others may write there; remove it", old)
                return
        for file in queue.iterdir():
            unsent.mkdir(parents=True, exist_ok=True)
            file.rename(unsent / file.name)
    except FileNotFoundError:
        pass  # there is none, or another task has moved it
    except OSError as error:
        log.error("%s: queued alerts stay there: %s", old, error)


def record(memory: "AlertMemory", alert: Alert, cause: str, *, once: bool, since: str) -> str:
    """Record that an alert is sent now, and queue it; return its text, empty if it is suppressed."""
    # Days of a backfill that run in parallel fail at the same time.
    with memory.claim(cause) as is_ours:
        if not is_ours:
            log.info("another task is sending this alert: %s", alert.text)
            return ""
        earlier = memory.last_sent(cause)
        if earlier and (once or earlier.within(suppression_period()) or (since and earlier.after(since))):
            log.info("alert suppressed, already sent at %s: %s", earlier.sent, alert.text)
            memory.record_suppressed(earlier, alert.day)
            return ""
        text = alert.text
        if earlier and earlier.suppressed:
            text += f" (suppressed {len(earlier.suppressed)} times since {earlier.sent[:16]})"
        log.warning("%s", text)
        # Before it is sent, so that it is not lost when this process is killed meanwhile.
        memory.keep_unsent(cause, {**asdict(alert), "text": text})
        memory.record_sent(cause, text)
        return text


def resend_queued(context: Any) -> None:
    """Send the alerts that could not be sent, so that they need not wait for the next alert."""
    for memory in memories():
        resend(memory, context)


def suppression_period() -> timedelta:
    """Return how long after an alert further ones of its cause are suppressed."""
    return timedelta(hours=known_settings().alert_quiet_hours)


def resend(memory: "AlertMemory", context: Any) -> None:
    """Send the queued alerts, up to the first that fails again."""
    try:
        names = memory.unsent()
        if not names:
            return
        with memory.claim_unsent() as is_ours:
            for name in names if is_ours else []:
                if message := memory.read_unsent(name):
                    text = message.pop("text")
                    obstacle = deliver(Alert(**message), text, context)
                    if obstacle:
                        log.error(STILL_UNSENT, obstacle, memory.folder)
                        return
                memory.remove_unsent(name)
    except Exception as error:  # noqa: BLE001  this alert was sent; the queued ones are tried again after the next
        log.error(STILL_UNSENT, error, memory.folder)


def deliver(alert: Alert, text: str, context: Any) -> str:
    """Hand an alert to the configured notifier, and post it to the configured webhook; the log has it anyway.

    Returns:
        The class of the error of one of them, empty when both took it. Not the text of the error, which may contain the
        address, a secret.
    """
    try:
        config = known_settings()
        if config.alert_notifier:
            notify(config.alert_notifier, json.loads(config.alert_notifier_options), alert, text, context)
        if address := config.alert_webhook.get_secret_value():
            import requests

            # `text` is what Slack, Mattermost and Teams show; the rest is for programs.
            content = {**asdict(alert), "runbook": alert.runbook, "text": for_chat(text)}
            requests.post(address, json=content, timeout=TIMEOUT_SECONDS).raise_for_status()
    except Exception as error:  # noqa: BLE001  a notifier may raise anything
        return type(error).__name__
    return ""


def for_chat(text: str) -> str:
    r"""Return a text so that a chat shows it as it is: the name of a landing file may be `<!channel>`, or be a link.

    Slack reads `<!channel>`, and Mattermost `@channel`: behind each @ stands a joiner of words, which nobody sees.

    >>> for_chat("<!channel> <https://evil.example|all is well>: 3 > 2")
    '&lt;!channel&gt; &lt;https://evil.example|all is well&gt;: 3 &gt; 2'
    >>> for_chat("@all") == "@\u2060all"
    True
    """
    return html.escape(visible(text), quote=False).replace("@", f"@{WORD_JOINER}")


def notify(path: str, options: dict[str, Any], alert: Alert, text: str, context: Any) -> None:
    """Hand a message to a notifier of Airflow."""
    from airflow.sdk.module_loading import import_string

    notifier = import_string(path)(**options)
    # Its templates, such as `{{ text }}`, may use the alert and Airflow's own names.
    names = {**(context or {}), "alert": alert, "text": text}
    # Not by calling it: that only logs an error of `notify`, and the message would count as sent.
    notifier._update_context(names)
    notifier.render_template_fields(names)
    notifier.notify(names)


class FailureNotifier(BaseNotifier):
    """Send an alert when a task has failed after its last retry; none for each try, nor for tasks that wait for it.

    Args:
        each_run: whether the failures of two runs are two causes, since the message has what no other run's has.
    """

    def __init__(self, *, each_run: bool = False):
        super().__init__()
        self.each_run = each_run

    def notify(self, context: Any) -> None:
        alert = failure_alert(context)
        awaited = getattr(context.get("task"), "awaits", "")
        timed_out = awaited and alert.day and isinstance(context.get("exception"), AirflowSensorTimeout)
        cause = missing_table_cause(awaited, alert.day) if timed_out else ""
        send_alert(alert, context, f"{alert.cause}|{alert.run_id}" if self.each_run else cause)


def first_missing(table: str, day: str) -> str:
    """Return the first table on the way to a table that is not published for a day; empty if all are.

    >>> first_missing("serving", "2025-03-01")
    ''
    """
    from lake.table import Table

    for name in way_to(table) if table in TABLES else ():
        published = Table.find(name)
        if published is None or published.basis(date.fromisoformat(day)) is None:
            return name
    return ""


def missing_table_cause(table: str, day: str) -> str:
    """Return the cause that all tasks share which wait for a day of a table, or of one computed from it."""
    try:
        first = first_missing(table, day)
    except Exception:  # an alert may be about a lake that cannot be read
        log.exception("cannot see which table of %s is missing", day)
        first = ""
    return f"missing|{first or table}"


def failure_alert(context: Any) -> Alert:
    """Return the alert of a failed task."""
    ti, raised = context["ti"], context.get("exception")
    error = str(raised or "the task was killed")
    lines = [line.strip() for line in error.splitlines() if line.strip()] or [error]
    # A line that ends with a section is a message of Meander, and so is the only line of an error that a task raised
    # by itself. Any other error may quote a row, which must not go to a webhook.
    messages = [line for line in lines if SECTION.search(line)]
    sections = [section[1] for line in lines if (section := SECTION.search(line))]
    if not messages and isinstance(raised, BaseException) and not isinstance(raised, AirflowException):
        messages = [f"{type(raised).__name__}; its message is in the log of the task"]
    elif not messages:
        messages = [without_values(lines[-1])] if len(lines) > 1 else lines
    what = LOG_PREFIX.sub("", re.sub(r"\s*\[docs/runbook\.md#[a-z-]+\]", "", messages[-1]))
    return Alert(
        "failure",
        ti.dag_id,
        ti.run_id,
        day_of(context),
        ti.task_id.split(".")[0] if "." in ti.task_id else "",
        f"{ti.task_id}: {what[:500].rstrip('.')}",
        "Readers see what is published; a day that failed its audit is not.",
        sections[-1] if sections else "unexpected",
    )


def day_of(context: Any) -> str:
    """Return the last complete day of a run's interval; empty for a run by hand."""
    end = context.get("data_interval_end") or getattr(context.get("dag_run"), "data_interval_end", None)
    start = context.get("data_interval_start") or getattr(context.get("dag_run"), "data_interval_start", None)
    if end is None or start == end:
        return ""
    return str(end.date() - timedelta(days=1))


async def alert_missed_deadline(context: Any, tables: str) -> None:
    """Send an alert if a scheduled day is not published by its deadline; Airflow's triggerer calls this.

    Args:
        context: Airflow's data of the run and its deadline, as text.
        tables: the tables that the run publishes, with commas between them.
    """
    # The triggerer runs everything in one loop, which a webhook that does not answer would block.
    await asyncio.to_thread(check_deadline, context, tables.split(", "))


def check_deadline(context: Any, tables: list[str]) -> None:
    """Send an alert that names the unpublished tables, or the table they wait for; none if all are published by now."""
    run = context["dag_run"]
    end = datetime.fromisoformat(str(run["data_interval_end"]).replace("Z", "+00:00"))
    day = str(end.date() - timedelta(days=1))
    try:
        unpublished = {table: first for table in tables if (first := first_missing(table, day))}
    except Exception:  # a lake that cannot be read has no day to show either
        log.exception("cannot see which tables of %s are published", day)
        unpublished = {table: table for table in tables}
    if not unpublished:
        log.info("%s of %s are published, by another run or just now", ", ".join(tables), day)
        return
    if run.get("state") == "failed":
        log.info("%s of %s failed before its deadline, which has sent an alert", run["dag_id"], day)
        return
    last = [*unpublished][-1]
    by = str(context["deadline"]["deadline_time"])[:16].replace("T", " ")
    names = ", ".join(unpublished)
    if unpublished[last] in tables:
        what = f"{names} of the day are not published by {by} UTC"
    else:
        what = f"{unpublished[last]} of the day are not published by {by} UTC, and {names} wait for them"
    about = (run["dag_id"], run["dag_run_id"], day, names, what)
    alert = Alert("failure", *about, "Readers see the days before.", section="tables-late")
    send_alert(alert, cause=missing_table_cause(last, day))
