"""Airflow's REST API as the local Airflow asks it: logged in once, and never content with another answer."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
import requests

from dags.local.client import AirflowClient
from dags.local.ports import HOST, free_port

WELL = {"status": "healthy"}


class WebServer(BaseHTTPRequestHandler):
    """Answers what it is told to, and keeps what it was asked for."""

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        content = json.loads(self.rfile.read(length)) if length else None
        self.server.asked.append((self.command, self.path, self.headers.get("Authorization"), content))
        status, answer = self.server.answers[self.path.partition("?")[0]]
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *_: Any) -> None:
        pass


class Client(AirflowClient):
    """Asks a server of a test."""

    password = "p"

    def __init__(self, port: int):
        self.port = port

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}/team"


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    with HTTPServer((HOST, 0), WebServer) as server:
        server.asked, server.answers = [], {"/team/auth/token": (201, {"access_token": "t"})}
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_who_asks_logs_in_once(server):
    server.answers["/team/api/v2/pools"] = (201, {"name": "spark"})
    client = Client(server.server_port)
    for slots in (1, 2):
        assert client.api("POST", "pools", json={"slots": slots}) == {"name": "spark"}
    assert server.asked == [
        ("POST", "/team/auth/token", None, {"username": "admin", "password": "p"}),
        ("POST", "/team/api/v2/pools", "Bearer t", {"slots": 1}),
        ("POST", "/team/api/v2/pools", "Bearer t", {"slots": 2}),
    ]


def test_an_answer_that_is_not_expected_is_an_error_that_says_what_was_asked(server):
    server.answers["/team/api/v2/backfills"] = (503, {"detail": "database is locked"})
    client = Client(server.server_port)
    assert client.api("POST", "backfills", expect=(200, 503)) == {"detail": "database is locked"}
    with pytest.raises(requests.HTTPError, match=r"POST backfills: 503 .*database is locked"):
        client.api("POST", "backfills")


def test_runs_come_by_day_and_a_run_id_is_no_path(server):
    days = ("2025-03-02", "2025-03-01", None)
    runs = [{"data_interval_start": day, "run_after": "2025-03-03", "dag_run_id": f"of {day}"} for day in days]
    server.answers["/team/api/v2/dags/behavior_daily/dagRuns"] = (200, {"dag_runs": runs})
    path = "/team/api/v2/dags/behavior_daily/dagRuns/a%2Fb%2B00%3A00/taskInstances"
    server.answers[path] = (200, {"task_instances": [1]})
    server.answers[f"{path}/promote/xcomEntries/return_value"] = (200, {"value": {"champion": 2}})
    client = Client(server.server_port)
    assert [run["dag_run_id"] for run in client.runs("behavior_daily")] == ["of None", "of 2025-03-01", "of 2025-03-02"]
    assert client.tasks("behavior_daily", "a/b+00:00") == [1]
    assert client.result("behavior_daily", "a/b+00:00", "promote") == {"champion": 2}


@pytest.mark.parametrize(
    ("parts", "healthy"),
    [
        ({"metadatabase": WELL, "scheduler": WELL, "dag_processor": WELL, "triggerer": {"status": None}}, True),
        ({"metadatabase": WELL, "scheduler": {"status": "unhealthy"}, "dag_processor": WELL}, False),
    ],
)
def test_it_is_healthy_when_all_parts_that_days_need_are(server, parts, healthy):
    server.answers["/team/api/v2/monitor/health"] = (200, parts)
    assert Client(server.server_port).healthy() is healthy


def test_who_does_not_answer_is_not_healthy():
    assert not Client(free_port()).healthy()
