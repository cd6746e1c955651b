"""One message for one cause, whatever happens to the webhook."""

import asyncio
import json
import logging
import os
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pendulum
import pytest
from airflow.sdk import BaseNotifier
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSensorTimeout, AirflowSkipException

from dags.shared.alert_memory import AlertMemory, name_of
from dags.shared.alerts import Alert, FailureNotifier, alert_missed_deadline, failure_alert, resend_queued, send_alert
from dags.shared.assets import ASSETS
from dags.shared.model import Monitor, Promote
from dags.shared.publish import Publish, require_all_days
from dags.shared.waits import WaitForEarlierDays, WaitForLanding, WaitForPublished
from lake.errors import LOG_FORMAT, PublishRefused, WorkerFailed
from lake.places import table_path
from lake.publish import publish
from lake.staging import Verdict, read_staged, read_verdict, write_verdict
from lake.table import Table
from model.monitor import SECTIONS
from tests.lake.stagings import stage_files
from tests.test_project import RUNBOOK

RUN = "scheduled__2025-03-02T00:00:00+00:00"


def alert(**changed: Any) -> Alert:
    said = {
        "level": "failure",
        "dag_id": "behavior_daily",
        "run_id": RUN,
        "day": "2025-03-01",
        "table": "events",
        "what": "at most 5.00% of the input is rejected: 12.3%",
        "readers": "Readers see what was published before.",
        "section": "audit-failed",
    }
    return Alert(**{**said, **changed})


class Receiver(BaseHTTPRequestHandler):
    """A webhook that keeps what it gets, as long as it is well."""

    status = 204
    messages: ClassVar[list[dict[str, Any]]] = []

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        if self.status < 300:
            self.messages.append(json.loads(content))
        self.send_response(self.status)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def received(lake, monkeypatch) -> Iterator[list[dict[str, Any]]]:
    """What a webhook has got so far."""
    Receiver.messages.clear()
    server = HTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    monkeypatch.setenv("MEANDER_ALERT_WEBHOOK", f"http://127.0.0.1:{server.server_port}/hook?token=secret")
    yield Receiver.messages
    server.shutdown()
    server.server_close()


def queued_by_an_earlier_version(folder):
    """Queue an alert as it was done in a folder that all users know, and return the folder of queued alerts."""
    AlertMemory(str(folder / "meander" / "_alerts")).keep_unsent("old", {**asdict(alert()), "text": "queued long ago"})
    unsent = folder / "meander" / "_alerts" / "unsent"
    for file in unsent.iterdir():
        os.utime(file, (0, 0))
    for place in (unsent, unsent.parent, unsent.parent.parent):
        place.chmod(0o755)
    return unsent


def test_a_name_of_a_file_calls_nobody_in_a_chat_and_is_no_link_there(received):
    """Slack reads `<` in a text, and Mattermost `@`; whoever may write to the landing chooses the names of files."""
    name = "@all <!channel> <https://evil.example|all is well>&\x1b[2J\u202e.csv"
    assert send_alert(alert(what=f"{name}: expected a readable file"))
    (message,) = received
    shown = "@\u2060all &lt;!channel&gt; &lt;https://evil.example|all is well&gt;&amp;\\x1b[2J\\u202e.csv"
    assert f": {shown}: expected a readable file. Readers" in message["text"]
    assert message["what"] == f"{name}: expected a readable file", "a program gets it as it is"


def test_a_message_names_all_that_a_person_needs(received):
    assert send_alert(alert())
    assert received == [
        {
            "level": "failure",
            "dag_id": "behavior_daily",
            "run_id": RUN,
            "day": "2025-03-01",
            "table": "events",
            "what": "at most 5.00% of the input is rejected: 12.3%",
            "readers": "Readers see what was published before.",
            "section": "audit-failed",
            "runbook": "docs/runbook.md#audit-failed",
            "text": "FAILED: behavior_daily 2025-03-01 events: at most 5.00% of the input is rejected: 12.3%. "
            "Readers see what was published before. Runbook: docs/runbook.md#audit-failed",
        }
    ]


def test_days_and_numbers_make_no_other_cause_and_everything_else_does(received):
    assert send_alert(alert())
    assert not send_alert(alert(day="2025-03-02", what="at most 5.00% of the input is rejected: 40.0%"))
    for other in (
        {"dag_id": "predict_daily"},
        {"table": "sessions"},
        {"what": "prices are prices"},
        {"level": "warning"},
    ):
        assert send_alert(alert(**other)), other
    assert len(received) == 5


def sent_before(lake, **ago):
    """Let the one alert have been sent longer ago."""
    (file,) = (lake / "lake" / "_alerts").glob("*.json")
    known = json.loads(file.read_text())
    file.write_text(json.dumps({**known, "told": (datetime.now(UTC) - timedelta(**ago)).isoformat()}))


def test_a_cause_that_persists_sends_another_alert_after_the_hours_that_are_set_with_the_number_of_suppressed_ones(
    received, lake, monkeypatch
):
    monkeypatch.setenv("MEANDER_ALERT_QUIET_HOURS", "10")
    send_alert(alert())
    sent_before(lake, hours=9)
    for day in ("2025-03-02", "2025-03-03"):
        assert not send_alert(alert(day=day))
    sent_before(lake, hours=11)
    assert send_alert(alert(day="2025-03-04"))
    assert len(received) == 2
    assert "(suppressed 2 times since " in received[1]["text"]
    assert not send_alert(alert(day="2025-03-05")), "the hours begin again"


def test_ids_make_no_other_cause(received):
    for staging in ("20250302T010203-0badcafe", "20250303T010203-12345678"):
        send_alert(alert(what=f"the first is stage={staging}/dt=2025-03-01 of 7a6b5c4d-1111-4222-8333-1234567890ab"))
    assert len(received) == 1


def test_days_that_fail_at_the_same_instant_are_one_message(received):
    with ThreadPoolExecutor(8) as at_once:
        told = list(at_once.map(lambda n: send_alert(alert(day=f"2025-03-{n:02}")), range(1, 31)))
    assert (sum(told), len(received)) == (1, 1)


def test_a_task_that_was_killed_while_it_sent_keeps_others_from_sending_for_a_minute_alone(received, lake):
    send_alert(alert())
    (file,) = (lake / "lake" / "_alerts").glob("*.json")
    file.unlink()
    claim = file.parent / "claims" / file.name
    claim.touch()
    # Sending takes up to ten seconds; who has not sent it two minutes later was killed.
    for ago, told in ((15, False), (120, True)):
        os.utime(claim, (time.time() - ago,) * 2)
        assert send_alert(alert()) is told, ago


def age(lake):
    """Make what could not be sent older than a message that may be on its way."""
    for file in (lake / "lake" / "_alerts" / "unsent").iterdir():
        os.utime(file, (0, 0))


def test_a_webhook_that_is_down_fails_nothing_and_the_next_message_takes_the_unsent_along(
    received, monkeypatch, caplog, lake
):
    monkeypatch.setattr(Receiver, "status", 500)
    assert not send_alert(alert())
    assert "alert not sent (HTTPError)" in caplog.text
    assert "secret" not in caplog.text, "the address is one"
    assert not send_alert(alert(day="2025-03-02"))
    monkeypatch.setattr(Receiver, "status", 204)
    age(lake)
    assert send_alert(alert(table="sessions"))
    assert [(message["table"], message["day"]) for message in received] == [
        ("sessions", "2025-03-01"),
        ("events", "2025-03-01"),
    ]
    assert send_alert(alert(table="interests"))
    assert len(received) == 3, "what was taken along is not sent again"


def test_what_cannot_be_taken_along_makes_no_second_message(received, lake, caplog):
    unsent = lake / "lake" / "_alerts" / "unsent"
    unsent.mkdir(parents=True)
    (unsent / "half.json").write_text("{")
    age(lake)
    assert send_alert(alert())
    assert len(received) == 1
    assert "queued alerts could not be sent (" in caplog.text


def test_the_runbook_quotes_the_log_lines_of_an_alert_that_does_not_come(received, lake, monkeypatch, caplog, tmp_path):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(Receiver, "status", 500)
    send_alert(alert())  # not sent
    age(lake)
    send_alert(alert())  # suppressed; the queued one is not sent either
    with AlertMemory(str(lake / "lake" / "_alerts")).claim(alert().cause):
        send_alert(alert())
    monkeypatch.setenv("MEANDER_LAKE", "/proc/no/lake")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    queued_by_an_earlier_version(tmp_path).chmod(0o777)
    resend_queued(None)
    (tmp_path / f"meander-{os.getuid()}").rmdir()
    (tmp_path / f"meander-{os.getuid()}").touch()
    send_alert(alert())  # neither recorded nor sent
    section = RUNBOOK.split("## No alert came")[1].split("\n## ")[0]
    quotes = [quote for line in re.findall(r"^  - (\*.*?\*):", section, re.MULTILINE) for quote in line.split(", *")]
    assert len(quotes) == 7
    assert [quote for quote in quotes if quote.strip("*. ") not in caplog.text] == []


def test_where_the_lake_cannot_be_reached_it_is_told_all_the_same_and_once(received, monkeypatch, tmp_path):
    monkeypatch.setenv("MEANDER_LAKE", "/proc/no/lake")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert [send_alert(alert()), send_alert(alert())] == [True, False]
    assert len(received) == 1


def test_the_memory_of_this_machine_is_for_its_user_alone(received, monkeypatch, tmp_path):
    monkeypatch.setenv("MEANDER_LAKE", "/proc/no/lake")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    send_alert(alert())
    assert [(path.name, path.stat().st_mode & 0o777) for path in tmp_path.glob("meander*")] == [
        (f"meander-{os.getuid()}", 0o700)
    ]


def test_the_memory_of_this_machine_does_not_grow_for_ever(received, monkeypatch, tmp_path, caplog):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("dags.shared.alerts.MACHINE_FILES", 4)
    place = tmp_path / f"meander-{os.getuid()}" / "_alerts"
    memory = AlertMemory(str(place))
    (tmp_path / f"meander-{os.getuid()}").mkdir(mode=0o700)
    now = time.time()
    for n in range(6):
        # The smaller the number, the older, by a day; the causes have one more that is older than 90 days.
        memory.record_sent(f"cause {n}", f"sent {n}")
        memory.keep_unsent(f"cause {n}", {**asdict(alert()), "text": f"queued {n}"})
        with memory.claim(f"cause {n}"):
            pass
    for folder, days in ((place, [100, 95, 3, 2, 1, 0]), (place / "unsent", [100, 95, 94, 93, 92, 91])):
        for name, ago in zip([name_of(f"cause {n}") for n in range(6)], days, strict=True):
            os.utime(folder / name, (now - ago * 86400 - 3600,) * 2)
    monkeypatch.setattr(Receiver, "status", 500)
    resend_queued(None)
    # What waits to be sent is kept however old it is.
    assert [memory.read_unsent(name_of(f"cause {n}")) is not None for n in range(6)] == [False] * 2 + [True] * 4
    assert [memory.last_sent(f"cause {n}") is not None for n in range(6)] == [False] * 2 + [True] * 4
    assert "removed 2 of the oldest queued alerts, which were never sent" in caplog.text
    os.utime(place / name_of("cause 4"), (now - 91 * 86400,) * 2)
    resend_queued(None)
    assert [memory.last_sent(f"cause {n}") is not None for n in range(6)] == [False, False, True, True, False, True]
    assert [memory.read_unsent(name_of(f"cause {n}")) is not None for n in range(6)] == [False] * 2 + [True] * 4


@pytest.mark.parametrize("planted", ["file", "open folder", "link", "folder of another user"])
def test_where_nothing_can_be_recorded_an_alert_is_sent_and_nobody_can_keep_it_back(
    received, monkeypatch, tmp_path, planted
):
    monkeypatch.setenv("MEANDER_LAKE", "/proc/no/lake")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    place, elsewhere = tmp_path / f"meander-{os.getuid()}", tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    if planted == "file":
        place.touch()
    elif planted == "link":
        place.symlink_to(elsewhere)
    else:
        place.mkdir(mode=0o700)
    if planted == "open folder":
        place.chmod(0o755)
    if planted == "folder of another user":
        if os.getuid():
            pytest.skip("only root can make a folder of another user")
        os.chown(place, 65534, 65534)
    # What would silence the cause, and what would be sent as if it were ours.
    if place.is_dir():
        memory = AlertMemory(f"{place}/_alerts")
        memory.record_sent(alert().cause, "planted")
        memory.keep_unsent("forged", {**asdict(alert()), "text": "forged"})
        for file in (place / "_alerts" / "unsent").iterdir():
            os.utime(file, (0, 0))
    assert [send_alert(alert()), send_alert(alert())] == [True, True]
    assert [message["text"] for message in received] == [alert().text] * 2


def test_what_an_earlier_version_has_queued_on_this_machine_is_sent_once(received, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    unsent = queued_by_an_earlier_version(tmp_path)
    resend_queued(None)
    resend_queued(None)
    assert [message["text"] for message in received] == ["queued long ago"]
    assert list(unsent.iterdir()) == []


@pytest.mark.parametrize("planted", ["open folder", "open queue", "link", "folder of another user"])
def test_what_another_user_may_have_queued_is_not_sent(received, monkeypatch, tmp_path, caplog, planted):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    unsent = queued_by_an_earlier_version(tmp_path)
    if planted == "open folder":
        (tmp_path / "meander").chmod(0o777)
    elif planted == "open queue":
        unsent.chmod(0o775)
    elif planted == "link":
        (tmp_path / "meander").rename(tmp_path / "elsewhere")
        (tmp_path / "meander").symlink_to(tmp_path / "elsewhere")
    else:
        if os.getuid():
            pytest.skip("only root can make a folder of another user")
        os.chown(unsent.parent, 65534, 65534)
    resend_queued(None)
    assert received == []
    assert len(list(unsent.iterdir())) == 1
    assert f"{tmp_path / 'meander'} may hold queued alerts, which are not sent" in caplog.text


def test_settings_that_are_not_valid_fail_no_task_and_the_log_has_the_alert(received, monkeypatch, tmp_path, caplog):
    """A task that has failed for its settings would end in an error of its alert."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("MEANDER_HORIZON_DAYS", "soon")
    assert not send_alert(alert())
    assert "alert not sent (SettingsInvalid)" in caplog.text
    assert alert().text in caplog.text
    resend_queued(None)
    monkeypatch.delenv("MEANDER_HORIZON_DAYS")
    for file in (tmp_path / f"meander-{os.getuid()}" / "_alerts" / "unsent").iterdir():
        os.utime(file, (0, 0))
    resend_queued(None)
    assert [message["text"] for message in received] == [alert().text]


def test_a_task_that_fails_for_a_variable_that_is_no_setting_sends_an_alert_that_names_it(received, lake, monkeypatch):
    """It has to be told by the very settings that it is about."""
    monkeypatch.setenv("MEANDER_LANDNIG", "/secret/landing")
    with pytest.raises(AirflowFailException) as failed:
        WaitForLanding(task_id="wait", day="2025-03-01", wanted="True").poke({})
    FailureNotifier()({**context("wait_for_landing", ""), "exception": failed.value})
    (message,) = received
    what = "MEANDER_LANDNIG is set, and there is no such setting: did you mean MEANDER_LANDING?"
    assert message["what"] == f"wait_for_landing: {what}"
    assert message["section"] == "settings-invalid"
    assert "secret" not in json.dumps(message)
    assert list((lake / "lake" / "_alerts").glob("*.json")), "the lake keeps that it was sent"
    # Nothing of what comes with the end of a task, or of a day, is stopped by it.
    resend_queued(None)
    be_late("behavior_daily", "events")
    assert [message["section"] for message in received] == ["settings-invalid", "tables-late"]


def test_a_memory_that_fails_after_an_alert_was_sent_makes_no_second_one(received, monkeypatch, lake, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    post = Receiver.do_POST

    def post_and_break(handler: Receiver) -> None:
        (queued,) = (lake / "lake" / "_alerts" / "unsent").iterdir()
        queued.unlink()
        queued.mkdir()  # which cannot be removed as a file is
        (queued / "x").touch()
        post(handler)

    monkeypatch.setattr(Receiver, "do_POST", post_and_break)
    assert send_alert(alert())
    assert len(received) == 1


def test_a_clock_that_was_ahead_silences_a_cause_for_the_hours_that_are_set_and_no_longer(received, lake):
    send_alert(alert())
    sent_before(lake, days=-10)
    assert not send_alert(alert())
    (file,) = (lake / "lake" / "_alerts").glob("*.json")
    assert datetime.fromisoformat(json.loads(file.read_text())["told"]) <= datetime.now(UTC), "they begin now"
    sent_before(lake, hours=13)
    assert send_alert(alert())


def test_a_claim_from_the_future_keeps_nobody_from_sending(received, lake):
    send_alert(alert())
    (file,) = (lake / "lake" / "_alerts").glob("*.json")
    file.unlink()
    claim = file.parent / "claims" / file.name
    claim.touch()
    os.utime(claim, (time.time() + 86_400,) * 2)
    assert send_alert(alert())


def test_what_is_over_is_never_told_again(received, monkeypatch):
    monkeypatch.setenv("MEANDER_ALERT_QUIET_HOURS", "0")
    assert [send_alert(alert(), once=True), send_alert(alert(), once=True), send_alert(alert())] == [True, False, True]


def test_the_runbook_is_linked_where_airflow_has_an_address(monkeypatch):
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://airflow.example.org/data/")
    address = "https://airflow.example.org/data/meander/page/runbook#audit-failed"
    assert alert().text.endswith(f"Runbook: {address}")


class Notes(BaseNotifier):
    """A notifier of a provider: its arguments are templates."""

    template_fields = ("message",)
    sent: ClassVar[list[str]] = []
    fails: ClassVar[type[BaseException] | None] = None

    def __init__(self, message: str):
        super().__init__()
        self.message = message

    def notify(self, _context: Any) -> None:
        if self.fails:
            raise self.fails
        self.sent.append(self.message)


def test_any_notifier_of_airflow_will_do(lake, monkeypatch):
    monkeypatch.setenv("MEANDER_ALERT_NOTIFIER", f"{__name__}.Notes")
    monkeypatch.setenv("MEANDER_ALERT_NOTIFIER_OPTIONS", '{"message": "{{ alert.dag_id }} of {{ alert.day }}"}')
    assert send_alert(alert())
    assert Notes.sent == ["behavior_daily of 2025-03-01"]


def test_what_a_notifier_did_not_send_goes_along_with_the_next_message(lake, monkeypatch, caplog):
    monkeypatch.setenv("MEANDER_ALERT_NOTIFIER", f"{__name__}.Notes")
    monkeypatch.setenv("MEANDER_ALERT_NOTIFIER_OPTIONS", '{"message": "{{ text }}"}')
    monkeypatch.setattr(Notes, "sent", [])
    monkeypatch.setattr(Notes, "fails", ConnectionError)
    assert not send_alert(alert())
    assert "alert not sent (ConnectionError)" in caplog.text
    # A process that is killed while it sends, which no `except` of ours may catch, has sent nothing either.
    monkeypatch.setattr(Notes, "fails", KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        send_alert(alert(table="interests"))
    monkeypatch.setattr(Notes, "fails", None)
    age(lake)
    send_alert(alert(table="sessions"))
    tables = [message.split(":")[1].split()[-1] for message in Notes.sent]
    assert (tables[0], sorted(tables[1:])) == ("sessions", ["events", "interests"])


def context(task_id: str, error: str, kind: type[Exception] = AirflowException) -> dict[str, Any]:
    start = pendulum.datetime(2025, 3, 1, tz="UTC")
    return {
        "ti": SimpleNamespace(dag_id="behavior_daily", run_id=RUN, task_id=task_id),
        "exception": kind(error),
        "data_interval_start": start,
        "data_interval_end": start.add(days=1),
    }


def test_a_failed_task_is_told_with_the_line_that_names_a_section():
    error = (
        "Cannot execute: spark-submit\nlake.errors.AuditFailed: 12.3% is rejected [docs/runbook.md#audit-failed]\nbye"
    )
    told = failure_alert(context("events.audit", error))
    assert (told.table, told.day, told.section) == ("events", "2025-03-01", "audit-failed")
    assert told.what == "events.audit: lake.errors.AuditFailed: 12.3% is rejected"
    assert told.text.endswith("docs/runbook.md#audit-failed")


def test_what_a_job_has_logged_is_told_without_the_time_and_level_of_its_log():
    logged = logging.LogRecord("meander", logging.ERROR, "", 0, "AuditFailed: 12.3% is rejected", (), None)
    line = logging.Formatter(LOG_FORMAT).format(logged)
    told = failure_alert(context("events.audit", f"Cannot execute\n{line} [docs/runbook.md#audit-failed]"))
    assert told.what == "events.audit: AuditFailed: 12.3% is rejected"


def test_of_two_sections_the_last_is_what_went_wrong_in_the_end():
    error = f"{WorkerFailed('worker 1 ended')}\n{PublishRefused('not audited')}\nbye"
    assert failure_alert(context("examples.publish", error)).section == "publish-refused"


def test_a_run_by_hand_is_about_no_day():
    by_hand = context("split", "from=2017-02-01 is after to=2017-01-01")
    by_hand["data_interval_end"] = by_hand["data_interval_start"]
    assert failure_alert(by_hand).text.startswith("FAILED: behavior_daily: split: from=2017-02-01 is after")


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        ("Traceback\nKeyError: 'ann'", AirflowException, "KeyError; its message is in the log of the task"),
        ("The value 'ann' of the\ntype STRING", AirflowException, "what it said is in the log of the task"),
        ("ann", KeyError, "KeyError; its message is in the log of the task"),
        ("The value 'ann'\nof a row", ValueError, "ValueError; its message is in the log of the task"),
        (
            "model.score ended with exit code 1: KeyError",
            AirflowException,
            "model.score ended with exit code 1: KeyError",
        ),
    ],
)
def test_a_failure_that_nobody_has_foreseen_is_told_by_its_class_and_not_by_what_it_may_quote(error, kind, said):
    told = failure_alert(context("pretrain", error, kind))
    assert (told.table, told.what, told.section) == ("", f"pretrain: {said}", "unexpected")


def test_a_task_that_was_killed_is_told_as_such():
    assert failure_alert(context("pretrain", "") | {"exception": None}).what == "pretrain: the task was killed"


def test_a_task_that_fails_for_good_sends_one_message(received):
    for _ in range(3):
        FailureNotifier()(context("events.audit", "12.3% is rejected [docs/runbook.md#audit-failed]"))
    assert len(received) == 1


# --- what waits, and what is late -----------------------------------------------------------------------

DAY = date(2025, 3, 1)


def put(table: str) -> None:
    stage_files(table, f"{table} {DAY}", [], [DAY], 1)
    publish(table, f"{table} {DAY}")


def stage_warned(run: str) -> None:
    """Stage a day of sessions whose audit has warned just now."""
    stage_files("sessions", run, [], [DAY], 1, audited="warned")
    write_verdict(replace(read_verdict("sessions", run), audited=datetime.now(UTC).isoformat()))


def run_publish(run: str) -> None:
    outlets = {"outlet_events": {ASSETS["sessions"]: SimpleNamespace(extra={})}}
    Publish(task_id="publish", tables=("sessions",), run=run).execute(context("sessions.publish", "") | outlets)


def test_a_warning_of_an_audit_is_told_once_however_often_its_publish_is_run(received, monkeypatch):
    monkeypatch.setenv("MEANDER_ALERT_QUIET_HOURS", "0")
    stage_warned("killed")
    publish("sessions", "killed")  # the task was killed before it could tell
    for _ in range(3):
        run_publish("killed")
    assert [message["what"] for message in received] == ["prices are prices"]
    stage_warned("again")
    for _ in range(2):
        run_publish("again")
    assert [message["what"] for message in received] == ["prices are prices"] * 2, "another audit has warned"


BEFORE = DAY - timedelta(days=1)


def stage_withheld() -> None:
    """Stage two days of interests, of which one failed its audit and the other was warned of."""
    staged = stage_files("interests", "chunk", [], [BEFORE, DAY], 1, audited="")
    unmet = {str(BEFORE): ["few users"], str(DAY): ["no users"]}
    said = ("interests", "chunk", staged.stage_id, "failed", ["no users", "few users"], "", 0.0)
    write_verdict(Verdict(*said, unmet=unmet, withheld=[str(DAY)]))


def publish_chunk(run: str = "chunk", **more: Any) -> dict[str, Any]:
    outlets = {"outlet_events": {ASSETS["interests"]: SimpleNamespace(extra={})}}
    about = context("interests.publish", "") | outlets
    Publish(task_id="publish", tables=("interests",), run=run, **more).execute(about)
    return outlets["outlet_events"][ASSETS["interests"]].extra


def test_a_publish_that_withholds_a_day_publishes_the_others_and_fails_for_good(received):
    stage_withheld()
    with pytest.raises(AirflowFailException, match=r"interests of 2025-03-01 failed the audit .*: no users"):
        publish_chunk()
    assert Table("interests").basis(BEFORE) == 1
    assert Table("interests").basis(DAY) is None
    # Of the day that readers see. The task's failure tells of the other.
    assert [message["what"] for message in received] == ["few users"]


def test_where_others_go_on_it_alerts_itself_and_a_later_task_fails_until_the_day_is_repaired(received):
    stage_withheld()
    assert publish_chunk(goes_on=True)["withheld"] == ["2025-03-01"]
    told = received[-1]
    assert (told["level"], told["table"], told["section"]) == ("failure", "interests", "audit-failed")
    assert "interests of 2025-03-01 failed the audit and is not published: no users" in told["what"]
    with pytest.raises(AirflowFailException, match="interests of 2025-03-01 failed"):
        require_all_days(["chunk", "another"], ["events", "interests"])
    stage_files("interests", "repair", [], [DAY], 2)
    publish("interests", "repair")
    require_all_days(["chunk", "another"], ["events", "interests"])


def test_of_all_chunks_with_withheld_days_one_alerts_and_the_last_task_of_each_run_names_all_days(received):
    chunks = [f"chunk {n}" for n in range(3)]
    for n, chunk in enumerate(chunks):
        # Of a first, a second, and a first and third day: in words these differ by more than numbers.
        days = [DAY + timedelta(days=4 * n + k) for k in range(4)]
        bad = [[days[0]], [days[1]], [days[0], days[2]]][n]
        staged = stage_files("interests", chunk, [], days, 1, audited="")
        unmet = {str(day): ["no users"] for day in bad}
        write_verdict(
            Verdict("interests", chunk, staged.stage_id, "failed", ["no users"], "", 0.0, "", unmet, [*unmet])
        )
        publish_chunk(chunk, goes_on=True)
    (told,) = received
    assert "interests of 2025-03-01 failed the audit" in told["what"]
    with pytest.raises(AirflowFailException) as failed:
        require_all_days(chunks, ["interests"])
    for run in ("first", "second", "second"):
        about = context("all_days", str(failed.value))
        about["ti"].run_id = run
        FailureNotifier(each_run=True)(about)
    assert len(received) == 3, "a task that is cleared, and fails again, is told once"
    assert "interests of 2025-03-01, 2025-03-06, 2025-03-09 and 2025-03-11 failed the audit" in received[1]["what"]
    assert [(message["section"], message["run_id"]) for message in received[1:]] == [
        ("audit-failed", "first"),
        ("audit-failed", "second"),
    ]


@pytest.mark.parametrize("then", [[], [str(DAY)]])
def test_the_last_task_asks_what_readers_see_and_not_an_audit_that_ran_since(received, then):
    stage_withheld()
    publish_chunk(goes_on=True)
    staged = read_staged("interests", "chunk")
    said = ("interests", "chunk", staged.stage_id, "failed" if then else "passed", [], "", 0.0)
    write_verdict(Verdict(*said, unmet={day: ["no users"] for day in then}, withheld=then))
    with pytest.raises(AirflowFailException, match="2025-03-01"):
        require_all_days(["chunk"], ["interests"])


def test_a_publish_takes_along_what_could_not_be_sent(received, monkeypatch, lake):
    monkeypatch.setattr(Receiver, "status", 500)
    stage_warned("r")
    run_publish("r")
    monkeypatch.setattr(Receiver, "status", 204)
    age(lake)
    stage_files("sessions", "well", [], [DAY], 2)
    run_publish("well")
    assert [message["what"] for message in received] == ["prices are prices"]


def timed_out(dag_id: str, sensor: Any) -> None:
    about = context(sensor.task_id, "")
    about |= {"task": sensor, "exception": AirflowSensorTimeout(f"waited for 48 hours: {sensor.timeout_message()}")}
    about["ti"].dag_id = dag_id
    FailureNotifier()(about)


def test_all_that_waits_for_a_day_that_has_not_landed_is_one_message(received):
    waits = {
        "behavior_daily": WaitForLanding(task_id="wait_for_landing", day=str(DAY), wanted="True"),
        "predict_daily": WaitForPublished(task_id="wait_for_interests", table="interests", day=str(DAY)),
        "serve_daily": WaitForPublished(task_id="wait_for_predictions", table="predictions", day=str(DAY)),
    }
    for dag_id, sensor in waits.items():
        timed_out(dag_id, sensor)
    assert [message["section"] for message in received] == ["landing-missing"]
    assert "waited for 48 hours: 2025-03-01 has not landed" in received[0]["text"]


def test_a_day_that_is_there_is_not_what_is_waited_for(received):
    put("events")
    put("interests")
    timed_out("serve_daily", WaitForPublished(task_id="w", table="predictions", day=str(DAY)))
    timed_out("monitor_daily", WaitForPublished(task_id="w", table="interests", day=str(DAY)))
    assert len(received) == 2, "two causes: predictions are missing, and a sensor does not see interests"


def be_late(dag_id: str, tables: str, state: str = "running") -> None:
    run = {"dag_id": dag_id, "dag_run_id": RUN, "data_interval_end": "2025-03-02T00:00:00Z", "state": state}
    deadline = {"deadline_time": datetime(2025, 3, 2, 6, tzinfo=UTC)}
    asyncio.run(alert_missed_deadline({"dag_run": run, "deadline": deadline}, tables=tables))


def test_predictions_that_only_wait_are_not_told_beside_what_they_wait_for(received):
    be_late("behavior_daily", "events, sessions, interests")
    be_late("predict_daily", "predictions")
    (message,) = received
    assert message["what"] == "events, sessions, interests of the day are not published by 2025-03-02 06:00 UTC"
    assert (message["day"], message["section"]) == ("2025-03-01", "tables-late")


def test_what_is_late_is_what_readers_lack(received):
    put("events")
    put("sessions")
    be_late("predict_daily", "predictions")
    assert "interests of the day are not published by 2025-03-02 06:00 UTC, and predictions wait" in received[0]["what"]
    be_late("behavior_daily", "events, sessions, interests")
    assert len(received) == 1
    put("interests")
    be_late("behavior_daily", "events, sessions, interests")
    assert len(received) == 1, "readers have all of it, whichever run made it"
    be_late("predict_daily", "predictions")
    assert [message["table"] for message in received] == ["predictions", "predictions"]


def test_a_table_that_cannot_be_read_keeps_no_alert_back(received):
    put("events")
    for commit in Path(table_path("events"), "_delta_log").iterdir():
        commit.write_text("no JSON")
    timed_out("predict_daily", WaitForPublished(task_id="w", table="events", day=str(DAY)))
    be_late("behavior_daily", "events, sessions")
    assert [message["section"] for message in received] == ["tables-late", "tables-late"]
    assert received[1]["what"] == "events, sessions of the day are not published by 2025-03-02 06:00 UTC"


def test_a_run_that_has_failed_was_told_as_such(received):
    be_late("behavior_daily", "events, sessions, interests", state="failed")
    assert received == []


# --- what monitor_daily has found ------------------------------------------------------------------------


def found(kind: str, name: str, day: str, *, ok: bool = False, version: int | None = None) -> dict[str, Any]:
    """A finding as model.monitor prints it."""
    about = {"kind": kind, "name": name, "table": "t", "day": day, "model_version": version, "ok": ok}
    return {**about, "why": f"{name} has moved", "section": SECTIONS[kind]}


@pytest.fixture
def says(tmp_path, monkeypatch):
    """Let the process of a task print what is given, as the module does that it would run."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    # Bytecode of a text of the same length from the same second would be taken for that of the new one.
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")

    def prepare(task: Any, printed: dict[str, Any]) -> Any:
        (tmp_path / "told.py").write_text(f"print({json.dumps(json.dumps(printed))})")
        task.module = "told"
        return task

    return prepare


@pytest.fixture
def watch(says):
    """Run the task on findings, as if model.monitor had printed them."""

    def run(*findings: dict[str, Any]) -> None:
        says(Monitor(task_id="watch", arguments=[], run="r"), {"findings": findings}).execute(context("watch", ""))

    return run


def test_what_drifts_together_is_one_message(received, watch):
    inputs = [found("input drift", name, "2025-03-01") for name in ("frequency", "purchases")]
    watch(*inputs, found("volume", "events", "2025-03-01"), found("input drift", "fine", "2025-03-01", ok=True))
    assert [message["what"] for message in received] == [
        "frequency has moved; purchases has moved",
        "events has moved",
    ]


def test_an_outcome_is_told_once_though_it_is_looked_at_on_each_day(received, watch, monkeypatch):
    monkeypatch.setenv("MEANDER_ALERT_QUIET_HOURS", "0")
    for judged, version in (("2025-03-02", 1), ("2025-03-02", 1), ("2025-03-09", 1), ("2025-03-09", 2)):
        watch(found("outcome", "recall@5", judged, version=version))
    assert [message["day"] for message in received] == ["2025-03-02", "2025-03-09", "2025-03-09"]


# --- what is not published ---------------------------------------------------------------------------------


def publish_overtaken(table: str, days: list[date], name: str) -> None:
    """Publish what a run has staged for some days, of which readers have rows of a newer staging by then."""
    for run in (name, f"newer than {name}"):
        stage_files(table, run, [], days, 1)
    publish(table, f"newer than {name}")
    outlets = {"outlet_events": {ASSETS[table]: SimpleNamespace(extra={})}}
    Publish(task_id="publish", tables=(table,), run=name).execute(context(f"{table}.publish", "") | outlets)


def test_days_that_are_refused_are_told_once_for_each_table_however_many_they_are(received):
    days = [DAY + timedelta(days=n) for n in range(5)]
    publish_overtaken("events", days, "all five")
    publish_overtaken("events", days[:1], "the first")
    publish_overtaken("sessions", days[:1], "sessions")
    what = "rows of this run for 2025-03-01, 2025-03-02, 2025-03-03 and 2 more were not published: "
    assert [(message["level"], message["table"], message["what"]) for message in received] == [
        # Nobody loads a landing day twice at once without knowing it. Sessions are overtaken in any backfill.
        ("warning", "events", f"{what}those of a newer staging are"),
        ("info", "sessions", "rows of this run for 2025-03-01 were not published: those of a newer staging are"),
    ]


# --- where a message sends people ------------------------------------------------------------------------


def test_every_message_sends_people_to_a_section_that_the_runbook_has(received, watch, says):
    # Whatever may be told: what failed and why, what is late, what the audit, the gate and the monitor have to say.
    for sensor in (
        WaitForLanding(task_id="landing", day=str(DAY), wanted="True"),
        WaitForPublished(task_id="published", table="sessions", day=str(DAY)),
        WaitForEarlierDays(task_id="earlier", day=str(DAY), begins_with="w", publishes="p"),
    ):
        timed_out(sensor.task_id, sensor)
    FailureNotifier()(context("pretrain", "KeyError: 'x'"))
    watch(*(found(kind, kind, "2025-03-01") for kind in SECTIONS))

    stage_warned("warned")
    run_publish("warned")

    publish_overtaken("sessions", [DAY], "overtaken")

    decision = {"promoted": False, "version": 2, "champion": 1, "reasons": ["worse"]}
    refused = context("promote", "")
    refused["ti"].xcom_push = lambda *_: None
    with pytest.raises(AirflowSkipException):
        says(Promote(task_id="promote", run="r"), decision).execute(refused)

    sections = {message["section"] for message in received}
    assert sections == {
        "landing-missing", "tables-late", "unexpected", "the-audit-warned", "promote-was-skipped",
        "a-run-succeeded-but-its-day-did-not-change",
        "outcomes-worse", "scores-drift", "inputs-drift", "volume-unusual", "landing-changed",
    }  # fmt: skip
    headings = re.findall(r"^## (.*)$", RUNBOOK, re.MULTILINE)
    # As GitHub and the page make links of them.
    assert sections - {re.sub(r"[^a-z0-9 -]", "", each.lower()).replace(" ", "-") for each in headings} == set()
