"""Data docs and evaluations are shown to who may see our runs, and nothing else is."""

import os
import re

import pytest
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from airflow.api_fastapi.core_api.security import get_user
from fastapi.testclient import TestClient

from dags.page.app import app
from dags.page.views import may_see
from dags.plugin import MeanderPlugin
from dags.shared.evaluation import Evaluation
from lake import storage
from tests.foreign import foreign


@pytest.fixture
def docs(tmp_path, monkeypatch):
    """A docs folder with one page, and a secret beside it."""
    monkeypatch.setenv("MEANDER_LAKE", str(tmp_path / "lake"))
    monkeypatch.setenv("MEANDER_DATA_DOCS", str(tmp_path / "docs"))
    page = tmp_path / "docs" / "run-1" / "events.html"
    page.parent.mkdir(parents=True)
    page.write_text("<h1>events</h1>")
    (tmp_path / "docs" / "run-1" / "notes.txt").write_text("secret")
    (tmp_path / "secret.html").write_text("secret")
    return tmp_path


@pytest.fixture
def visitor(docs):
    return TestClient(app, raise_server_exceptions=False)


@pytest.fixture
def reader(docs, monkeypatch):
    """Somebody who is logged in and may see the runs; both are tried for real in tests/e2e."""
    ann = SimpleAuthManagerUser(username="ann", role="viewer")
    for dependency, stand_in in ((get_user, lambda: ann), (may_see, lambda: None)):
        monkeypatch.setitem(app.dependency_overrides, dependency, stand_in)
    return TestClient(app)


RUN = "model_weekly--scheduled__2025-03-09T00:00:00+00:00"
METHODS = {"<i>model</i>": (0.61849, 0.5), "last category": (0.4, None)}


@pytest.fixture
def evaluated(docs):
    """The evaluation of a run whose gate refused, with what a shop's category could be called."""
    evaluation = Evaluation.of(RUN)
    metrics = [
        {"method": method, "task": "next_category", "metric": "recall@5", "slice": name, "value": value}
        for method, values in METHODS.items()
        for name, value in zip(("all", "migrated"), values, strict=True)
        if value is not None
    ]
    decision = {"promote": False, "reasons": ["worse on <script>alert(1)</script>"]}
    storage.write_json(storage.join(evaluation.folder, "metrics.json"), {"metrics": metrics})
    storage.write_json(storage.join(evaluation.folder, "decision.json"), decision)
    (docs / evaluation.report).write_text("<h1>report</h1>")
    return evaluation


def policy(answer) -> dict[str, str]:
    """Return the content policy of a page by its directives."""
    parts = (part.strip().partition(" ") for part in answer.headers["content-security-policy"].split(";"))
    return {name: value for name, _, value in parts}


@pytest.mark.parametrize(
    "path",
    [
        "/data-docs/",
        "/data-docs/run-1/events.html",
        "/data-docs/run-1/none.html",
        "/models/run-1/evaluation/report.html",
        "/model/?run=run-1",
    ],
)
def test_who_is_not_logged_in_sees_nothing(visitor, path):
    assert visitor.get(path).status_code == 401
    assert visitor.get(path, headers={"Authorization": "Bearer forged"}).status_code in (401, 403, 500)


def test_a_page_is_shown_in_a_sandbox_where_nothing_runs_and_nothing_is_loaded(reader):
    answer = reader.get("/data-docs/run-1/events.html")
    assert (answer.status_code, answer.text) == (200, "<h1>events</h1>")
    assert policy(answer) == {"default-src": "'none'", "style-src": "'unsafe-inline'", "sandbox": ""}


def test_the_index_links_the_pages(reader):
    text = reader.get("/data-docs/").text
    assert '<a href="run-1/events.html">run-1/events</a>' in text
    assert foreign(text) == []


def test_the_index_begins_with_the_newest_page(reader, docs):
    for name, written in (("old", 1), ("new", 3), ("middle", 2)):
        page = docs / "docs" / name / "events.html"
        page.parent.mkdir()
        page.touch()
        os.utime(page, (1_700_000_000 + written, 1_700_000_000 + written))
    os.utime(docs / "docs" / "run-1" / "events.html", (0, 0))
    listed = re.findall(r'href="([a-z]+)/events.html"', reader.get("/data-docs/").text)
    assert listed == ["new", "middle", "old"]


def test_the_index_of_no_docs_is_empty(reader, monkeypatch, tmp_path):
    monkeypatch.setenv("MEANDER_DATA_DOCS", str(tmp_path / "none"))
    assert "<li>" not in reader.get("/data-docs/").text


@pytest.mark.parametrize(
    "path",
    [
        "/data-docs/run-1/notes.txt",
        "/data-docs/run-1/../../secret.html",
        "/data-docs/../secret.html",
        "/data-docs/%2e%2e/secret.html",
        "/data-docs/..%2fsecret.html",
        "/data-docs/run-1/..%2f..%2fsecret.html",
        "/data-docs/run-1/%2e%2e%2f%2e%2e%2fsecret.html",
        "/data-docs/..%5csecret.html/x.html",
        "/data-docs//etc/passwd",
        "/data-docs/run-1/events.html%00.html",
        "/models/run-1/evaluation/report.html",
        "/models/../evaluation/report.html",
        "/models/%2e%2e/evaluation/report.html",
        "/models/..%2f..%2fdocs/evaluation/report.html",
        "/models/run-1%2f..%2f..%2fsecret/evaluation/report.html",
        "/models/run-1/evaluation/../../../../secret.html",
        "/models/run-1/plan.json",
    ],
)
def test_no_path_leads_out_of_the_docs(reader, path):
    answer = reader.get(path)
    assert answer.status_code in (404, 422)
    assert "secret" not in answer.text.replace("secret.html", "")


def test_a_report_is_shown_in_a_sandbox_that_loads_nothing(reader, evaluated):
    answer = reader.get(f"/models/{evaluated.slug}/evaluation/report.html")
    assert (answer.status_code, answer.text) == (200, "<h1>report</h1>")
    assert policy(answer) == {
        "default-src": "'none'",
        "style-src": "'unsafe-inline'",
        "script-src": "'unsafe-inline'",
        "img-src": "data: blob:",
        "sandbox": "allow-scripts allow-popups",
    }


def test_the_tab_of_a_run_says_what_the_gate_decided_and_why(reader, evaluated):
    answer = reader.get("/model/", params={"run": RUN})
    assert answer.status_code == 200
    assert "The champion stays" in answer.text
    assert "worse on &lt;script&gt;" in answer.text, "what comes from a log is no markup"
    assert "<td>&lt;i&gt;model&lt;/i&gt;</td><td>0.618</td><td>0.500</td>" in answer.text
    assert "<td>last category</td><td>0.400</td><td>-</td>" in answer.text
    # Its links carry the login, so nothing in it may run.
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "allow-scripts" not in answer.headers["content-security-policy"]
    assert foreign(answer.text) == []
    link = answer.text.split('href="..')[1].split('"')[0]
    assert reader.get(link).text == "<h1>report</h1>"


@pytest.mark.parametrize("run", ["behavior_daily--manual__1", "../../secret", "", "\x00"])
def test_the_tab_of_a_run_without_a_model_says_so(reader, evaluated, run):
    answer = reader.get("/model/", params={"run": run})
    assert answer.status_code == 200
    assert "no evaluation" in answer.text


def test_airflow_finds_the_app_and_its_menu_entry():
    assert MeanderPlugin().fastapi_apps[0]["url_prefix"] == "/meander"
    # No slash in front: an address is below Airflow's own, whatever its base path is.
    assert [(view["href"], view["destination"]) for view in MeanderPlugin.external_views] == [
        ("meander/page/", "nav"),
        ("meander/data-docs/", "nav"),
        ("meander/page/run?dag={DAG_ID}&run={RUN_ID}", "dag_run"),
        ("meander/model/?run={DAG_ID}--{RUN_ID}", "dag_run"),
    ]
