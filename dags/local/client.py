"""Airflow's REST API, as far as the local Airflow is asked by it."""

from functools import cached_property
from typing import Any
from urllib.parse import quote

import requests

USER = "admin"
ANSWER_SECONDS = 120  # for an answer of the web server, which shares the machine with all that it starts


class AirflowClient:
    """An Airflow that can be asked; a subclass knows where it is, and the password of its admin."""

    @property
    def url(self) -> str:
        """Where its web server is."""
        raise NotImplementedError

    @property
    def password(self) -> str:
        """Of USER."""
        raise NotImplementedError

    @cached_property
    def token(self) -> str:
        """What the REST API takes as a proof of having logged in."""
        login = {"username": USER, "password": self.password}
        answer = requests.post(f"{self.url}/auth/token", json=login, timeout=ANSWER_SECONDS)
        answer.raise_for_status()
        return str(answer.json()["access_token"])

    def api(self, method: str, path: str, expect: tuple[int, ...] = (200, 201), **request: Any) -> dict[str, Any]:
        """Call Airflow's REST API as the admin and return the answer.

        Raises:
            requests.HTTPError: the status is not one of `expect`.
        """
        headers = {"Authorization": f"Bearer {self.token}"}
        answer = requests.request(
            method, f"{self.url}/api/v2/{path}", headers=headers, timeout=ANSWER_SECONDS, **request
        )
        if answer.status_code not in expect:
            raise requests.HTTPError(f"{method} {path}: {answer.status_code} {answer.text[:500]}")
        content: dict[str, Any] = answer.json()
        return content

    def healthy(self) -> bool:
        """Tell whether the web server answers, and says that all parts are well."""
        try:
            parts = requests.get(f"{self.url}/api/v2/monitor/health", timeout=ANSWER_SECONDS).json()
        except (requests.ConnectionError, requests.Timeout, ValueError):
            return False
        return all(parts[name]["status"] == "healthy" for name in ("metadatabase", "scheduler", "dag_processor"))

    def backfills(self, dag_id: str) -> list[dict[str, Any]]:
        """Return the backfills of a DAG, open and closed ones."""
        return list(self.api("GET", "backfills", params={"dag_id": dag_id, "limit": 1000})["backfills"])

    def runs(self, dag_id: str) -> list[dict[str, Any]]:
        """Return the DAG's runs, by the day they process."""
        runs = self.api("GET", f"dags/{dag_id}/dagRuns", params={"limit": 1000})["dag_runs"]
        return sorted(runs, key=lambda run: (run["data_interval_start"] or "", run["run_after"]))

    def tasks(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Return the task instances of a run."""
        path = f"dags/{dag_id}/dagRuns/{quote(run_id, safe='')}/taskInstances"
        return list(self.api("GET", path, params={"limit": 1000})["task_instances"])

    def result(self, dag_id: str, run_id: str, task_id: str) -> Any:
        """Return what a task of a run has returned."""
        path = f"dags/{dag_id}/dagRuns/{quote(run_id, safe='')}/taskInstances/{task_id}"
        return self.api("GET", f"{path}/xcomEntries/return_value")["value"]
