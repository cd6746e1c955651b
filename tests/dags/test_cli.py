"""The `meander` command: days run from a shell, and what a person or a machine can ask afterwards."""

import json

import pytest
from typer.testing import CliRunner

from dags.cli import app, main
from lake.errors import MeanderError

DAYS = ["--from", "2025-01-01", "--to", "2025-01-02"]


def invoke(*args):
    """Run a command and return what it printed; a failure is raised as it is."""
    return CliRunner().invoke(app, list(args), catch_exceptions=False)


def event(user, time, behavior="view", **more):
    return {"user_id": user, "event_time": time, "behavior": behavior, "item_id": "i", "category_id": "c", **more}


@pytest.fixture
def two_days(land):
    """Two days in which one of a hundred rows has no user, which is within the rejection budget."""
    visits = [event(f"u{n:02}", f"2025-01-01T10:{n % 60:02}:00Z") for n in range(99)]
    land("2025-01-01", [*visits, event(None, "2025-01-01T11:00:00Z")])
    # u00 goes on after midnight, so this session belongs to the second day; the row that came twice is one event.
    twice = event("u00", "2025-01-02T00:05:00Z", "purchase", price="2.50")
    land("2025-01-02", [event("u00", "2025-01-01T23:50:00Z"), twice, twice])


@pytest.mark.spark
def test_daily_runs_each_day_and_the_questions_after_it_are_answered(spark, two_days):
    ran = invoke("daily", *DAYS, "--json")
    assert ran.exit_code == 0, ran.output
    first, second = json.loads(ran.stdout)
    names = ("first", "input", "events", "duplicates", "ignored", "quarantined", "sessions", "interests")
    assert [first[name] for name in names] == ["2025-01-01", 100, 99, 0, 0, 1, 99, 99]
    # The second run stages both partitions that its landing changed: 99 sessions of the 1st and one of the 2nd.
    assert [second[name] for name in names] == ["2025-01-02", 3, 2, 1, 0, 0, 100, 99]
    assert {first["verdict"], second["verdict"]} <= {"passed", "warned"}

    tables = {entry["table"]: entry for entry in json.loads(invoke("tables", "--json").stdout)}
    assert tables["events"]["rows"] == 101
    assert tables["sessions"]["rows"] == 100
    assert tables["quarantine"]["rows"] == 1

    (session,) = json.loads(invoke("show", "sessions", "--day", "2025-01-02", "--json").stdout)
    assert (session["user_id"], session["revenue"], len(session["events"])) == ("u00", "2.5000", 2)
    (rejected,) = json.loads(invoke("show", "quarantine", "--json").stdout)
    assert (rejected["reason"], rejected["line"]) == ("missing_user", 100)
    assert "1 of 1 rows of sessions dt=2025-01-02" in invoke("show", "sessions", "--day", "2025-01-02").stdout
    assert "2025-01-02" in invoke("days").stdout


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["show", "orders"], "there is no table 'orders'; choose one of events"),
        (["show", "events"], "events has no published version"),
        (["daily", "--from", "2025-01-02", "--to", "2025-01-01"], "received 2025-01-02 and 2025-01-01"),
        (["daily"], "needs --from D1 --to D2"),
    ],
)
def test_what_cannot_be_done_is_said(lake, args, said):
    with pytest.raises(MeanderError, match=said):
        invoke(*args)


def test_a_failure_of_ours_is_one_line_and_exit_code_1(lake, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["meander", "show", "events"])  # what a shell would pass
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert capsys.readouterr().err.startswith("TableMissing: events has no published version")


@pytest.mark.spark
def test_the_doctor_says_what_is_wrong_and_how_to_mend_it(spark, lake, monkeypatch):
    monkeypatch.setenv("MEANDER_SOURCE", "taobo")
    found = {r["check"]: r for r in json.loads(invoke("doctor", "--json").stdout)}
    assert found["python"]["ok"]
    assert found["java"]["ok"]
    assert found["lake"]["ok"]
    assert not found["source"]["ok"]
    assert "neither a shipped source" in found["source"]["found"]
    assert not found["landing"]["ok"]
    assert "put the log's files there" in found["landing"]["found"]


def test_settings_are_listed_with_their_values(lake, monkeypatch):
    monkeypatch.setenv("MEANDER_SESSION_GAP_MINUTES", "45")
    listed = json.loads(invoke("settings", "--json").stdout)
    assert listed["MEANDER_SESSION_GAP_MINUTES"] == 45
    assert listed["MEANDER_LAKE"] == str(lake / "lake")


def test_an_invalid_setting_is_named_with_what_was_received(lake, monkeypatch):
    monkeypatch.setenv("MEANDER_SESSION_GAP_MINUTES", "soon")
    with pytest.raises(MeanderError, match="MEANDER_SESSION_GAP_MINUTES='soon'"):
        invoke("settings")
