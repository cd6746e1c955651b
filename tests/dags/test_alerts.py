"""One message for one cause, whatever happens to the webhook."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace
from typing import Any, ClassVar

import pendulum
import pytest
from airflow.sdk import BaseNotifier

from dags.alerts import Alert, TellFailure, failure, tell

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
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("MEANDER_ALERT_WEBHOOK", f"http://127.0.0.1:{server.server_port}/hook?token=secret")
    yield Receiver.messages
    server.shutdown()
    server.server_close()


def test_a_message_names_all_that_a_person_needs(received):
    assert tell(alert())
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
            "text": "FAILED: behavior_daily 2025-03-01 events: at most 5.00% of the input is rejected: 12.3%. "
            "Readers see what was published before. Runbook: docs/runbook.md#audit-failed",
        }
    ]


def test_days_and_numbers_make_no_other_cause_and_everything_else_does(received):
    assert tell(alert())
    assert not tell(alert(day="2025-03-02", what="at most 5.00% of the input is rejected: 40.0%"))
    for other in (
        {"dag_id": "predict_daily"},
        {"table": "sessions"},
        {"what": "prices are prices"},
        {"level": "warning"},
    ):
        assert tell(alert(**other)), other
    assert len(received) == 5


def test_what_stays_wrong_is_told_again_later_with_how_often_it_came(received, monkeypatch):
    tell(alert())
    for day in ("2025-03-02", "2025-03-03"):
        tell(alert(day=day))
    monkeypatch.setenv("MEANDER_ALERT_QUIET_HOURS", "0")
    assert tell(alert(day="2025-03-04"))
    assert len(received) == 2
    assert "(and 2 times since " in received[1]["text"]


def test_a_webhook_that_is_down_fails_nothing_and_the_next_message_of_the_cause_tries_again(
    received, monkeypatch, caplog
):
    monkeypatch.setattr(Receiver, "status", 500)
    assert not tell(alert())
    assert "could not be sent (HTTPError)" in caplog.text
    assert "secret" not in caplog.text, "the address is one"
    monkeypatch.setattr(Receiver, "status", 204)
    assert tell(alert(day="2025-03-02"))
    assert [message["day"] for message in received] == ["2025-03-02"]


class Notes(BaseNotifier):
    """A notifier of a provider: its arguments are templates."""

    template_fields = ("message",)
    sent: ClassVar[list[str]] = []

    def __init__(self, message: str):
        super().__init__()
        self.message = message

    def notify(self, _context: Any) -> None:
        self.sent.append(self.message)


def test_any_notifier_of_airflow_will_do(lake, monkeypatch):
    monkeypatch.setenv("MEANDER_ALERT_NOTIFIER", f"{__name__}.Notes")
    monkeypatch.setenv("MEANDER_ALERT_NOTIFIER_OPTIONS", '{"message": "{{ alert.dag_id }} of {{ alert.day }}"}')
    assert tell(alert())
    assert Notes.sent == ["behavior_daily of 2025-03-01"]


def context(task_id: str, error: str) -> dict[str, Any]:
    start = pendulum.datetime(2025, 3, 1, tz="UTC")
    return {
        "ti": SimpleNamespace(dag_id="behavior_daily", run_id=RUN, task_id=task_id),
        "exception": RuntimeError(error),
        "data_interval_start": start,
        "data_interval_end": start.add(days=1),
    }


def test_a_failed_task_is_told_with_the_line_that_names_a_section():
    error = (
        "Cannot execute: spark-submit\nlake.errors.AuditFailed: 12.3% is rejected [docs/runbook.md#audit-failed]\nbye"
    )
    told = failure(context("events.audit", error))
    assert (told.table, told.day, told.section) == ("events", "2025-03-01", "audit-failed")
    assert told.what == "events.audit: lake.errors.AuditFailed: 12.3% is rejected"
    assert told.text.endswith("docs/runbook.md#audit-failed")


def test_a_failure_that_nobody_has_foreseen_is_told_by_its_last_line():
    told = failure(context("pretrain", "Traceback\nKeyError: 'x'"))
    assert (told.table, told.what, told.section) == ("", "pretrain: KeyError: 'x'", "unexpected")


def test_a_task_that_fails_for_good_sends_one_message(received):
    for _ in range(3):
        TellFailure()(context("events.audit", "12.3% is rejected [docs/runbook.md#audit-failed]"))
    assert len(received) == 1
