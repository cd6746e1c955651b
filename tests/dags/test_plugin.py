"""The data docs are shown to whoever is logged in to Airflow, and nothing else is."""

import pytest
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from airflow.api_fastapi.core_api.security import get_user
from fastapi.testclient import TestClient

from dags.plugin import MeanderPlugin, app


@pytest.fixture
def docs(tmp_path, monkeypatch):
    """A docs folder with one page, and a secret beside it."""
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
    monkeypatch.setitem(
        app.dependency_overrides, get_user, lambda: SimpleAuthManagerUser(username="ann", role="viewer")
    )
    return TestClient(app)


@pytest.mark.parametrize("path", ["/data-docs/", "/data-docs/run-1/events.html", "/data-docs/run-1/none.html"])
def test_who_is_not_logged_in_sees_nothing(visitor, path):
    assert visitor.get(path).status_code == 401
    assert visitor.get(path, headers={"Authorization": "Bearer forged"}).status_code in (401, 403, 500)


def test_a_page_is_shown_in_a_sandbox(reader):
    answer = reader.get("/data-docs/run-1/events.html")
    assert (answer.status_code, answer.text) == (200, "<h1>events</h1>")
    assert "allow-same-origin" not in answer.headers["content-security-policy"]


def test_the_index_links_the_pages(reader):
    assert '<a href="run-1/events.html">run-1/events</a>' in reader.get("/data-docs/").text


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
    ],
)
def test_no_path_leads_out_of_the_docs(reader, path):
    answer = reader.get(path)
    assert answer.status_code in (404, 422)
    assert "secret" not in answer.text.replace("secret.html", "")


def test_airflow_finds_the_app_and_its_menu_entry():
    assert MeanderPlugin.fastapi_apps[0]["url_prefix"] == "/meander"
    assert MeanderPlugin.external_views[0]["href"] == "/meander/data-docs/"
