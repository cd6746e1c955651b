"""The doctor says what is wrong on this machine, and how to mend it."""

import json
import re

import pytest
from typer.testing import CliRunner

from dags.cli.doctor import check_java, check_landing
from dags.cli.main import app


def invoke(*args):
    """Run a command and return what it printed; a failure is raised as it is."""
    return CliRunner().invoke(app, list(args), catch_exceptions=False)


def event(user, time, behavior="view", **more):
    return {"user_id": user, "event_time": time, "behavior": behavior, "item_id": "i", "category_id": "c", **more}


@pytest.mark.spark
def test_the_doctor_says_what_is_wrong_and_how_to_mend_it(spark, lake, monkeypatch):
    monkeypatch.setenv("MEANDER_SOURCE", "taobo")
    told = invoke("doctor", "--json")
    assert told.exit_code == 1, "scripts ask it as well"
    found = {r["check"]: r for r in json.loads(told.stdout)}
    assert found["python"]["ok"]
    assert found["java"]["ok"]
    assert found["lake"]["ok"]
    assert not found["source"]["ok"]
    assert "neither a shipped source" in found["source"]["found"]
    assert not found["landing"]["ok"]
    assert "put the log's files there" in found["landing"]["found"]


def test_the_doctor_counts_the_days_that_have_landed_and_names_the_first_that_has_not(land):
    for day in ("2025-01-01", "2025-01-04", "2025-01-05"):
        land(day, [event("ann", f"{day}T12:00:00Z")])
    assert check_landing() == (
        "3 days, 2025-01-01 to 2025-01-05; 2 days in between are missing, the first is 2025-01-02"
    )


@pytest.mark.parametrize(
    ("version", "fits"), [("1.8.0_392", False), ("16.0.2", False), ("17.0.1", True), ("22", True), ("23.0.1", False)]
)
def test_the_doctor_knows_which_java_spark_starts_on(tmp_path, monkeypatch, version, fits):
    # What a JVM of that version prints, on stderr.
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\" 2025-01-21' >&2\n")
    java.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    if fits:
        assert check_java() == f"{version} at {java}"
        return
    with pytest.raises(RuntimeError, match=f"Spark 4.1 needs Java 17 to 22, found {re.escape(version)}"):
        check_java()
