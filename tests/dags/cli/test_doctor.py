"""The doctor says what is wrong on this machine, and how to mend it."""

import json
import re
from datetime import UTC, datetime
from importlib import resources

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from dags.cli.doctor import check_java, check_landing, check_rows
from dags.cli.main import app
from lake.errors import LandingUnreadable, SourceMismatch


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


@pytest.mark.spark
def test_the_doctor_names_a_variable_that_is_no_setting_and_goes_on_with_those_that_are(spark, land, monkeypatch):
    land("2025-01-01", [event("ann", "2025-01-01T12:00:00Z")])
    monkeypatch.setenv("MEANDER_LANDNIG", "/x")
    found = {r["check"]: r for r in json.loads(invoke("doctor", "--json").stdout)}
    assert found.pop("settings") == {
        "check": "settings",
        "ok": False,
        "found": "MEANDER_LANDNIG is set, and there is no such setting: did you mean MEANDER_LANDING? "
        "[docs/runbook.md#settings-invalid]",
    }
    assert [name for name, each in found.items() if "MEANDER_LANDNIG" in each["found"]] == []
    assert {name for name, each in found.items() if each["ok"]} == {
        *("python", "java", "spark", "lake", "source", "landing", "rows", "serving")
    }


def test_the_doctor_counts_the_days_that_have_landed_and_names_the_first_that_has_not(land):
    for day in ("2025-01-01", "2025-01-04", "2025-01-05"):
        land(day, [event("ann", f"{day}T12:00:00Z")])
    assert check_landing() == (
        "3 days, 2025-01-01 to 2025-01-05; 2 days in between are missing, the first is 2025-01-02; a day is complete "
        "once no file has changed for 10 minutes, for days before yesterday at once"
    )


def test_the_doctor_finds_a_name_that_no_run_would_read_on_any_day(land):
    for day in ("2025-01-01", "2025-01-02", "2025-01-03"):
        file = land(day, [event("ann", f"{day}T12:00:00Z")])
    file.parent.with_name("dt=2025-01-02").joinpath("12:30.jsonl").write_text("")
    with pytest.raises(LandingUnreadable, match=r"dt=2025-01-02/12:30\.jsonl: expected a name without `:`.*rename it"):
        check_landing()


@pytest.mark.parametrize(
    ("marker", "minutes", "says"),
    [
        ("_SUCCESS", "10", "by its marker _SUCCESS"),
        ("_SUCCESS,*.jsonl", "3", "by all of its markers _SUCCESS, *.jsonl and a quiet time of 3 minutes"),
        ("_SUCCESS,*.jsonl", "0", "by all of its markers _SUCCESS, *.jsonl"),
        ("", "0", "as soon as its folder exists: set MEANDER_LANDING_MARKER or MEANDER_LANDING_QUIET_MINUTES"),
        ("", "3", "once no file has changed for 3 minutes, for days before yesterday at once"),
    ],
)
def test_the_doctor_says_what_completes_a_day(land, monkeypatch, marker, minutes, says):
    (land("2025-01-01", [event("ann", "2025-01-01T12:00:00Z")]).parent / "_SUCCESS").touch()
    monkeypatch.setenv("MEANDER_LANDING_MARKER", marker)
    monkeypatch.setenv("MEANDER_LANDING_QUIET_MINUTES", minutes)
    assert check_landing() == f"1 days, 2025-01-01 to 2025-01-01; a day is complete {says}"


def test_the_doctor_checks_the_files_of_a_day_that_is_still_arriving_and_says_that_it_is(land):
    today = datetime.now(UTC).date()
    land(today, [event("ann", f"{today}T00:00:00Z")])
    assert f"; {today} has not landed yet: " in check_landing()
    assert "changed 0 minutes ago" in check_landing()
    land(today, ["no record"])
    with pytest.raises(SourceMismatch):
        check_landing()


@pytest.mark.spark
def test_the_doctor_shows_what_becomes_of_the_rows_at_both_ends_of_the_landing(spark, land, monkeypatch):
    monkeypatch.setattr("jobs.preview.ROWS", 2)
    many = [event(f"u{n}", f"2025-01-01T12:00:0{n}Z") for n in range(7)]
    land("2025-01-01", many, "a.jsonl")
    # Of the newest day, rows of Parquet, of which the last have no user.
    folder = land("2025-01-03", [], "empty.jsonl").parent
    users = ["ann", "bob", "cem", None, None]
    rows = [{**event(user, "2025-01-03T12:00:00Z", "purchase"), "price": 1.5} for user in users]
    pq.write_table(pa.Table.from_pylist(rows), folder / "b.parquet")
    land("2025-01-02", ["{}"], "never looked at.jsonl")
    with pytest.raises(RuntimeError) as raised:
        check_rows()
    assert str(raised.value).splitlines() == [
        "8 of 2025-01-01 and 2025-01-03: 6 event, 2 missing_user (guests may be left out, by `guests`)",
        "  user_id     from user_id: 75%, such as x  a",
        "  event_time  from event_time: 100%, such as 2025-01-03 12:00:00  2025-01-01 12:00:00  2025-01-01 12:00:01",
        "  behavior    from behavior: 100%, such as view  purchase",
        "  item_id     from item_id: 100%, such as a",
        "  category_id from category_id: 100%, such as a",
        "  query       from query: 0%",
        "  price       from price: 50%, such as 1.5000",
        "  too many rows are rejected (MEANDER_MAX_REJECTED_SHARE)",
    ]
    monkeypatch.setenv("MEANDER_MAX_REJECTED_SHARE", "0.25")
    assert check_rows().startswith("8 of 2025-01-01")


@pytest.mark.spark
def test_the_doctor_finds_a_time_format_that_fits_no_row(spark, land, lake, monkeypatch):
    source = yaml.safe_load((resources.files("jobs") / "sources" / "canonical.yaml").read_text())
    source["time"]["format"] = "yyyy/MM/dd HH:mm"
    (lake / "mine.yaml").write_text(yaml.safe_dump(source))
    monkeypatch.setenv("MEANDER_SOURCE", str(lake / "mine.yaml"))
    land("2025-01-01", [event("ann", "2025-01-01T12:00:00Z")])
    with pytest.raises(RuntimeError, match=r"^1 of 2025-01-01: 1 unparsable_time \(does `time.format` fit\?\)"):
        check_rows()


def test_the_doctor_judges_no_rows_by_a_spark_that_does_not_see_its_copies(land, monkeypatch):
    assert check_rows() == "there are none yet"
    land("2025-01-01", [event("ann", "2025-01-01T12:00:00Z")])
    monkeypatch.setenv("MEANDER_SPARK_MASTER", "sc://spark.internal:15002")
    assert check_rows() == "not looked at, since Spark is at sc://spark.internal:15002, not on this machine"


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
