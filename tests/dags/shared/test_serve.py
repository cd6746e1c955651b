"""Serving under Airflow: where the address comes from, that nobody reads it, and what a task says."""

import json
import sys

import pytest
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from dags.shared.serve import RequireStore, ServeJob, store_url
from tests.lake.predicted import DAY_1, DAY_2, publish_users
from tests.lake.served import load, opened, switch
from tests.postgres import PASSWORD

RUN = "serve_daily--scheduled__2025-01-01"


def serve(*arguments: str, run: str = RUN) -> dict:
    return ServeJob(task_id="task", arguments=list(arguments), run=run).execute({})


@pytest.fixture
def connection(serving, monkeypatch):
    """Serve a first day, then give the address of the store to Airflow alone, as its connection."""
    publish_users(DAY_1, "ann")
    load(DAY_1, "first")
    with opened() as store:
        switch(store, DAY_1, "first")
    monkeypatch.delenv("MEANDER_SERVING_URL")
    info = serving.info
    described = {"host": info.host, "port": info.port, "login": info.user, "password": PASSWORD, "schema": info.dbname}
    monkeypatch.setenv("AIRFLOW_CONN_MEANDER_SERVING", json.dumps({"conn_type": "generic", **described}))


@pytest.mark.usefixtures("lake")
def test_without_a_store_the_task_is_skipped_and_says_how_to_have_one():
    with pytest.raises(AirflowSkipException, match="the Airflow connection `meander_serving`, or set MEANDER_SERVING"):
        RequireStore(task_id="store").execute({})


def test_the_setting_is_enough(serving, monkeypatch):
    assert RequireStore(task_id="store").execute({}) is None
    assert store_url().startswith("postgresql://postgres:")


def test_the_connection_comes_before_the_setting_and_keeps_what_it_says_about_tls(lake, monkeypatch):
    monkeypatch.setenv("MEANDER_SERVING_URL", "postgresql://setting/db")
    said = {"conn_type": "postgres", "host": "h", "login": "w", "password": "p@ss/w", "schema": "db"}
    monkeypatch.setenv("AIRFLOW_CONN_MEANDER_SERVING", json.dumps({**said, "extra": {"sslmode": "verify-full"}}))
    assert store_url() == "postgresql://w:p%40ss%2Fw@h/db?sslmode=verify-full"


def test_each_step_works_by_the_connection_and_no_log_has_its_password(serving, connection, capfd):
    publish_users(DAY_2, "ann")
    assert serve("load", "--day", str(DAY_2))["users"] == 1
    assert serve("switch", "--day", str(DAY_2), "--if-newer")["outcome"] == "switched"
    assert serve("rollback", run="serve_rollback--manual")["outcome"] == "switched"
    assert serving.execute("select dt from meander.predictions").fetchall() == [(DAY_1,)]
    with pytest.raises(AirflowSkipException, match="was current before and has been replaced"):
        serve("switch", "--day", str(DAY_2), "--if-newer")
    log = "".join(capfd.readouterr())
    assert f"running {sys.executable} -m jobs.serve" in log, "commands are logged, and have no password either"
    assert [secret for secret in (PASSWORD, "p%40ss%2Fword") if secret in log] == []


def test_the_address_is_in_no_rendered_field(connection):
    task = ServeJob(task_id="task", arguments=["load"], run=RUN)
    rendered = [str(getattr(task, field)) for field in task.template_fields]
    assert [text for text in rendered if "p%40ss" in text or "127.0.0.1" in text] == []
    assert "p%40ss%2Fword" in task.variables()["MEANDER_SERVING_URL"]


def test_a_store_that_cannot_be_reached_is_tried_again(lake, monkeypatch, postgres):
    monkeypatch.setenv("MEANDER_SERVING_URL", postgres.url(more="?port=1"))
    publish_users(DAY_1, "ann")
    with pytest.raises(Exception, match=r"jobs\.serve ended with exit code 1") as failed:
        serve("load", "--day", str(DAY_1))
    assert not isinstance(failed.value, AirflowFailException)


def test_a_day_with_too_many_rows_that_cannot_be_served_is_not_tried_again(serving):
    publish_users(DAY_1, "a\0b", "c\0d", "ann")
    with pytest.raises(AirflowFailException, match=r"2 of 3 rows cannot be served.*#serving-refused\]"):
        serve("load", "--day", str(DAY_1))


def test_what_the_server_rejects_is_not_tried_again(serving):
    publish_users(DAY_1, "ann")
    # As on a standby that has become the address of the store.
    serving.execute(f"alter database {serving.info.dbname} set default_transaction_read_only = on")
    with pytest.raises(AirflowFailException, match=r"read-only transaction, SQLSTATE 25006\).*#serving-refused\]"):
        serve("load", "--day", str(DAY_1))
