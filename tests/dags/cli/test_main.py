"""The `meander` command: days run from a shell, and what a person or a machine can ask afterwards."""

import json

import pytest
from typer.testing import CliRunner

from dags.cli.main import app, main
from lake.errors import MeanderError
from lake.publish import publish
from tests.lake.stagings import JAN_1, rejected, stage_files

DAYS = ["--from", "2025-01-01", "--to", "2025-01-03"]


def invoke(*args):
    """Run a command and return what it printed; a failure is raised as it is."""
    return CliRunner().invoke(app, list(args), catch_exceptions=False)


def event(user, time, behavior="view", **more):
    return {"user_id": user, "event_time": time, "behavior": behavior, "item_id": "i", "category_id": "c", **more}


@pytest.fixture
def three_days(land):
    """Three days, in the first of which one of a hundred rows has no user: that is within the rejection budget."""
    visits = [event(f"u{n:02}", f"2025-01-01T10:{n % 60:02}:00Z") for n in range(99)]
    land("2025-01-01", [*visits, event(None, "2025-01-01T11:00:00Z")])
    # u00 goes on after midnight, so this session belongs to the second day; the row that came twice is one event.
    twice = event("u00", "2025-01-02T00:05:00Z", "purchase", price="2.50")
    land("2025-01-02", [event("u00", "2025-01-01T23:50:00Z"), twice, twice])
    land("2025-01-03", [event("new", "2025-01-03T12:00:00Z")])


@pytest.mark.spark
def test_daily_runs_each_chunk_of_days_and_the_questions_after_it_are_answered(spark, three_days):
    ran = invoke("daily", *DAYS, "--chunk-days", "2", "--every", "2", "--json")
    assert ran.exit_code == 0, ran.output
    first, second = json.loads(ran.stdout)
    names = ("first", "last", "input", "events", "duplicates", "ignored", "quarantined", "sessions", "interests")
    # 99 users, two sessions of u00. Interests are made at the end of each chunk alone.
    assert [first[name] for name in names] == ["2025-01-01", "2025-01-02", 103, 101, 1, 0, 1, 100, 99]
    assert [second[name] for name in names] == ["2025-01-03", "2025-01-03", 1, 1, 0, 0, 0, 1, 100]
    assert {first["verdict"], second["verdict"]} <= {"passed", "warned"}

    names = ("rows", "partitions", "first", "last")
    tables = {
        entry["table"]: [entry[name] for name in names] for entry in json.loads(invoke("tables", "--json").stdout)
    }
    assert tables["events"] == [102, 3, "2025-01-01", "2025-01-03"]
    assert tables["sessions"] == [101, 3, "2025-01-01", "2025-01-03"]
    assert tables["interests"] == [199, 2, "2025-01-02", "2025-01-03"]
    assert tables["quarantine"] == [1, 1, "2025-01-01", "2025-01-01"]
    assert tables["predictions"] == [0, 0, None, None]

    (session,) = json.loads(invoke("show", "sessions", "--day", "2025-01-02", "--json").stdout)
    assert (session["user_id"], session["revenue"], len(session["events"])) == ("u00", "2.5000", 2)
    (rejected,) = json.loads(invoke("show", "quarantine", "--json").stdout)
    assert (rejected["reason"], rejected["line"]) == ("missing_user", 100)
    assert "1 of 1 rows of sessions dt=2025-01-02" in invoke("show", "sessions", "--day", "2025-01-02").stdout
    # Without a day, the newest.
    assert "1 of 1 rows of events dt=2025-01-03" in invoke("show", "events").stdout
    listed = invoke("days").stdout
    assert "2025-01-01 to 2025-01-02" in listed
    assert "2025-01-01" not in invoke("days", "--from", "2025-01-03").stdout


@pytest.mark.usefixtures("lake")
def test_days_that_were_refused_are_listed_with_their_run(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    for run in ("older", "newer"):
        stage_files("quarantine", run, rejected(JAN_1, run), [JAN_1], None)
    for run in ("newer", "older"):
        publish("quarantine", run)
    found = {run["run_id"]: run for run in json.loads(invoke("days", "--json").stdout)}
    told = [(found[run]["verdict"], found[run]["quarantined"], found[run]["refused"]) for run in ("older", "newer")]
    assert told == [("refused", 0, {"quarantine": ["2025-01-01"]}), ("passed", 1, {})]
    said = " ".join(invoke("days").stdout.split())
    assert "2025-01-01: refused quarantine of 2025-01-01, of which readers see newer rows; see docs/runbook.md" in said


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["show", "orders"], "there is no table 'orders'; choose one of quarantine, events"),
        (["show", "events"], "events has no published version"),
        (["monitor"], "events has no published day yet"),
        (["daily", "--from", "2025-01-02", "--to", "2025-01-01"], "received 2025-01-02 and 2025-01-01"),
        (["daily"], "needs --from D1 --to D2"),
        (["model", "--run-id", "r"], "run 'r' has no evaluation: .*/_models/r/evaluation has no decision.json"),
        (["predictions"], "predictions has no published version"),
        (["explain", "ann"], "interests has no published version"),
        (["explain"], "predictions has no published version"),
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
    printed = capsys.readouterr().err
    assert printed.startswith("TableMissing: events has no published version")
    assert printed.endswith(" [docs/runbook.md#table-missing]\n")


def test_a_raw_row_is_shown_as_the_text_that_it_is(lake):
    raw = '[/evil] [bold]u1[/bold] \x1b[2J"\t:smile:'
    stage_files("quarantine", "r", rejected(JAN_1, raw), [JAN_1], 0)
    publish("quarantine", "r")
    assert r'[/evil] [bold]u1[/bold] \x1b[2J"\t:smile:' in invoke("show", "quarantine").stdout
    (row,) = json.loads(invoke("show", "quarantine", "--json").stdout)
    assert row["raw"] == raw


def test_settings_are_listed_with_their_values(lake, monkeypatch):
    monkeypatch.setenv("MEANDER_SESSION_GAP_MINUTES", "45")
    listed = json.loads(invoke("settings", "--json").stdout)
    assert listed["MEANDER_SESSION_GAP_MINUTES"] == 45
    assert listed["MEANDER_LAKE"] == str(lake / "lake")


def test_an_invalid_setting_is_named_with_what_was_received(lake, monkeypatch):
    monkeypatch.setenv("MEANDER_SESSION_GAP_MINUTES", "soon")
    with pytest.raises(MeanderError, match="MEANDER_SESSION_GAP_MINUTES='soon'"):
        invoke("settings")
