"""The `meander` command: days run from a shell, and what a person or a machine can ask afterwards."""

import json
import re
import shutil
from datetime import date
from io import StringIO
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from dags.cli.console import PlainConsole
from dags.cli.main import app, landed_bytes, main
from lake.errors import AuditFailed, MeanderError, TableMissing
from lake.publish import publish
from lake.staging import Verdict, write_verdict
from lake.table import Table
from tests.lake.landed import load
from tests.lake.stagings import JAN_1, JAN_2, JAN_3, audit, published, rejected, stage_files

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


def bad(day: str) -> list:
    """Return rows of a day of which half have no user: more than may be rejected."""
    return [event(user, f"{day}T12:00:00Z") for user in ("u00", None)]


@pytest.mark.spark
def test_a_chunk_with_bad_days_ends_in_what_its_days_do_one_by_one(spark, lake, land, monkeypatch):
    """Of five days the first, the third and the last are bad; the third was loaded before, when it was good."""
    land("2025-01-03", [event("u00", "2025-01-03T00:10:00Z"), event("u01", "2025-01-03T09:00:00Z")])
    assert invoke("daily", "--from", "2025-01-03", "--to", "2025-01-03").exit_code == 0
    for day in ("2025-01-01", "2025-01-03", "2025-01-05"):
        land(day, bad(day))
    # A session that goes on past midnight, from a good day into the bad one.
    land("2025-01-02", [event("u00", "2025-01-02T23:50:00Z"), event("u02", "2025-01-02T08:00:00Z")])
    # A late event of the bad day, and one right after midnight, which can go on with its last session.
    late = event("u03", "2025-01-03T23:55:00Z", "purchase", price="3.00")
    land("2025-01-04", [event("u00", "2025-01-04T10:00:00Z"), late, event("u03", "2025-01-04T00:05:00Z")])

    found = {}
    for chunk_days in (5, 1):
        there = lake / f"by {chunk_days}"
        shutil.copytree(lake / "lake", there)
        monkeypatch.setenv("MEANDER_LAKE", str(there))
        with pytest.raises(AuditFailed) as caught:
            invoke("daily", "--from", "2025-01-01", "--to", "2025-01-05", "--chunk-days", str(chunk_days))
        assert "events of 2025-01-01, 2025-01-03 and 2025-01-05 failed" in caught.value.message or chunk_days == 1
        assert caught.value.message.count("of the input is rejected") == (2 if chunk_days == 5 else 6)
        found[chunk_days] = {table: content(table) for table in ("quarantine", "events", "sessions", "interests")}
    assert found[5] == found[1]
    assert {row["landed"].day for row in found[5]["events"]} == {2, 3, 4}, "of the third day what readers had"
    assert found[5]["quarantine"] == []
    assert {row["dt"].day for row in found[5]["interests"]} == {2, 3, 4}
    # u00 goes on from the second day into the third, and u03 from the third into the fourth.
    ends = sorted((row["user_id"], row["dt"].day, len(row["events"])) for row in found[5]["sessions"])
    assert ends == [("u00", 3, 2), ("u00", 4, 1), ("u01", 3, 1), ("u02", 2, 1), ("u03", 4, 2)]

    monkeypatch.setenv("MEANDER_LAKE", str(lake / "by 5"))
    (_, chunk) = sorted(json.loads(invoke("days", "--json").stdout), key=lambda run: run["first"], reverse=True)
    assert (chunk["verdict"], chunk["events"]) == ("failed", 5)
    assert chunk["withheld"]["events"] == ["2025-01-01", "2025-01-03", "2025-01-05"]
    said = " ".join(invoke("days").stdout.split())
    assert "events of 2025-01-01, 2025-01-03 and 2025-01-05 failed the audit; the other days of the run are" in said

    # The rows for which they failed are shown all the same, by the command that is named.
    told = rf"quarantine of 2025-01-03 that run .* `meander (show quarantine --run {chunk['run_id']} --day 2025-01-03)`"
    with pytest.raises(TableMissing, match=told) as caught:
        invoke("show", "quarantine", "--day", "2025-01-03")
    named = re.search(told, str(caught.value))[1].split()
    (row,) = json.loads(invoke(*named, "--json").stdout)
    assert (row["dt"], row["reason"]) == ("2025-01-03", "missing_user")
    assert json.loads(row["raw"])["event_time"] == "2025-01-03T12:00:00Z"

    monkeypatch.setenv("MEANDER_LAKE", str(lake / "lake"))
    monkeypatch.setenv("MEANDER_PUBLISH_GOOD_DAYS", "false")
    before = content("events")
    with pytest.raises(AuditFailed, match="is not published, readers keep what they had"):
        invoke("daily", "--from", "2025-01-01", "--to", "2025-01-02", "--chunk-days", "2")
    assert content("events") == before


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (TableMissing("no sessions"), "events of 2025-01-02 failed .*; no sessions"),
        (MemoryError("out of memory"), "^out of memory$"),
    ],
)
def test_what_failed_an_audit_is_said_although_another_error_ends_the_command(lake, monkeypatch, error, said):
    def job(module: str) -> SimpleNamespace:
        def main(_: list[str]) -> None:
            if module != "jobs.ingest":
                raise error

        return SimpleNamespace(main=main)

    def publish_without_a_day(table: str, run_id: str) -> dict:
        return {"table": table, "run_id": run_id, "withheld": ["2025-01-02"]}

    shown = []
    monkeypatch.setattr("dags.cli.main.import_module", job)
    monkeypatch.setattr("lake.session.spark_session", lambda *_, **__: None)
    monkeypatch.setattr("expectations.audit.main", lambda _: [])
    monkeypatch.setattr("lake.publish.publish", publish_without_a_day)
    monkeypatch.setattr("dags.cli.main._print_days", lambda *args: shown.append(args))
    monkeypatch.setattr("dags.cli.main.err", PlainConsole(file=(written := StringIO()), width=1000))
    with pytest.raises(type(error), match=said):
        invoke("daily", *DAYS, "--chunk-days", "3")
    assert shown == [(JAN_1, JAN_3, False)]
    if isinstance(error, MemoryError):
        assert "events of 2025-01-02 failed the audit" in written.getvalue()


def content(table: str) -> list[dict]:
    """Return the rows that readers see, sorted."""
    pinned = Table(table)
    rows = [row for day in pinned.rows_by("dt") for row in pinned.head(day, 1000)]
    return sorted(rows, key=lambda row: json.dumps(row, default=str, sort_keys=True))


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


def test_an_error_of_another_kind_is_shown_as_text_too(monkeypatch, capsys):
    """It may quote what a file says."""

    def fails():
        raise ValueError("found \x1b[2J\u202e[/x]")

    monkeypatch.setattr("dags.cli.main.app", fails)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    printed = capsys.readouterr().err
    assert printed.startswith("Traceback")
    assert printed.endswith("ValueError: found \\x1b[2J\\u202e[/x]\n")


def test_a_raw_row_is_shown_as_the_text_that_it_is(lake):
    raw = '[/evil] [bold]u1[/bold] \x1b[2J"\t:smile:'
    stage_files("quarantine", "r", rejected(JAN_1, raw), [JAN_1], 0)
    publish("quarantine", "r")
    assert r'[/evil] [bold]u1[/bold] \x1b[2J"\t:smile:' in invoke("show", "quarantine").stdout
    (row,) = json.loads(invoke("show", "quarantine", "--json").stdout)
    assert row["raw"] == raw


COMMAND = "`meander show quarantine --run bad --day 2025-01-01` shows its rows; see docs/runbook.md#audit-failed"
REFUSED = f"quarantine of 2025-01-01 that run 'bad' has staged failed the audit, so readers do not see it: {COMMAND}"


def test_rows_that_an_audit_refused_are_shown_by_their_run_and_whoever_asks_for_their_day_is_told_of_it(lake):
    stage_files("quarantine", "bad", rejected(JAN_1, "[/x]", "two"), [JAN_1], None, audited="failed")
    # Nothing was ever published.
    for day in ([], ["--day", "2025-01-01"]):
        with pytest.raises(TableMissing, match=rf"^quarantine has no published version.*; {re.escape(REFUSED)} \["):
            invoke("show", "quarantine", *day)
    for arguments in (["--run", "bad"], ["--run-id", "bad", "--day", "2025-01-01"]):
        shown = invoke("show", "quarantine", *arguments).stdout
        assert "raw     [/x]" in shown
        assert shown.endswith(
            "2 of 2 rows dt=2025-01-01 that run 'bad' has staged for quarantine; it failed its audit, so readers do "
            "not see it\n"
        )
    shown = invoke("show", "quarantine", "--run", "bad", "--limit", "1", "--json")
    assert [row["raw"] for row in json.loads(shown.stdout)] == ["[/x]"]
    assert shown.stderr.startswith("1 of 2 rows dt=2025-01-01 that run 'bad'")


def test_who_looks_at_published_rows_is_told_of_newer_ones_that_an_audit_refused(lake):
    published("good", rejected(JAN_1, "seen"), [JAN_1], None)
    # Of an older day than the one that is shown.
    stage_files("quarantine", "old", [], [date(2024, 12, 31)], None, audited="failed")
    assert invoke("show", "quarantine").stderr == ""
    stage_files("quarantine", "bad", rejected(JAN_1, "hidden"), [JAN_1], None, audited="failed")
    shown = invoke("show", "quarantine")
    assert "1 of 1 rows of quarantine dt=2025-01-01, version" in shown.stdout
    assert "hidden" not in shown.stdout
    assert shown.stderr == f"{REFUSED}\n"
    # A machine gets the rows, and a person is told all the same.
    shown = invoke("show", "quarantine", "--json")
    assert ([row["raw"] for row in json.loads(shown.stdout)], shown.stderr) == (["seen"], f"{REFUSED}\n")
    # Without a day, the newest one is meant: also one that readers do not see yet.
    for n in (1, 2, 3, 4):
        stage_files("quarantine", f"r {n}", [], [date(2025, 1, 2 + n)], None, audited="failed")
    assert [line.partition("'")[2].partition("'")[0] for line in invoke("show", "quarantine").stderr.splitlines()] == [
        *("r 2", "r 3", "r 4")
    ]
    assert "--run 'r 4' --day 2025-01-06`" in invoke("show", "quarantine").stderr
    with pytest.raises(TableMissing, match=r"no rows of 2025-01-06; it has .* run 'r 4' has staged failed the audit"):
        invoke("show", "quarantine", "--day", "2025-01-06")
    assert invoke("show", "quarantine", "--day", "2025-01-01").stderr == f"{REFUSED}\n"
    published("repaired", rejected(JAN_1, "seen"), [JAN_1], None)
    assert invoke("show", "quarantine", "--day", "2025-01-01").stderr == ""


def test_of_a_run_of_several_days_the_newest_that_failed_is_shown(lake):
    staged = stage_files(
        "quarantine",
        "r",
        [row for day in (JAN_1, JAN_2, JAN_3) for row in rejected(day, str(day))],
        [JAN_1, JAN_2, JAN_3],
        None,
    )
    failed = Verdict("quarantine", "r", staged.stage_id, "failed", [], "", 0.0, withheld=["2025-01-01", "2025-01-02"])
    write_verdict(failed)
    for arguments, day in (([], JAN_2), (["--day", "2025-01-03"], JAN_3)):
        (row,) = json.loads(invoke("show", "quarantine", "--run", "r", "--json", *arguments).stdout)
        assert row["raw"] == str(day)
    audit(staged)
    (row,) = json.loads(invoke("show", "quarantine", "--run", "r", "--json").stdout)
    assert row["raw"] == str(JAN_3), "none failed"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["quarantine", "--run", "other"], "run 'other' has staged nothing for quarantine"),
        (
            ["quarantine", "--run", "r", "--day", "2025-02-01"],
            "no rows of 2025-02-01 that run 'r' .* 2025-01-01 to 2025-01-01",
        ),
        (["quarantine", "--run", "r", "--user", "ann"], "quarantine has no column user_id"),
    ],
)
def test_what_a_run_has_not_staged_is_said(lake, arguments, said):
    stage_files("quarantine", "r", rejected(JAN_1, "x"), [JAN_1], None, audited="failed")
    with pytest.raises(MeanderError, match=said):
        invoke("show", *arguments)


def test_a_run_that_has_staged_no_row_of_a_table_says_so(lake):
    stage_files("quarantine", "r", [], [JAN_1], None, audited="failed")
    told = "there are no rows that run 'r' has staged for quarantine; it failed its audit, so readers do not see it\n"
    assert invoke("show", "quarantine", "--run", "r").stdout == told
    shown = invoke("show", "quarantine", "--run", "r", "--json")
    assert (json.loads(shown.stdout), shown.stderr) == ([], told)


def test_settings_are_listed_with_their_values(lake, monkeypatch):
    monkeypatch.setenv("MEANDER_SESSION_GAP_MINUTES", "45")
    listed = json.loads(invoke("settings", "--json").stdout)
    assert listed["MEANDER_SESSION_GAP_MINUTES"] == 45
    assert listed["MEANDER_LAKE"] == str(lake / "lake")


def test_an_invalid_setting_is_named_with_what_was_received(lake, monkeypatch):
    monkeypatch.setenv("MEANDER_SESSION_GAP_MINUTES", "soon")
    with pytest.raises(MeanderError, match="MEANDER_SESSION_GAP_MINUTES='soon'"):
        invoke("settings")


@pytest.mark.parametrize("command", [["tables"], ["show", "events"], ["daily", *DAYS], ["serve", "status"]])
def test_no_command_does_anything_with_a_variable_that_is_no_setting(lake, monkeypatch, command):
    monkeypatch.setenv("MEANDER_LANDNIG", "/x")
    with pytest.raises(MeanderError, match=r"MEANDER_LANDNIG is set, .* did you mean MEANDER_LANDING\?"):
        invoke(*command)
    assert not (lake / "lake").exists()


def test_settings_are_listed_before_a_variable_that_is_none_is_told(lake, monkeypatch):
    monkeypatch.setenv("MEANDER_LANDNIG", "/x")
    for arguments, listed in (([], "MEANDER_LANDING "), (["--json"], '"MEANDER_LANDING": ')):
        shown = CliRunner().invoke(app, ["settings", *arguments])
        assert listed in shown.stdout
        assert "MEANDER_LANDNIG is set, and there is no such setting" in str(shown.exception)


def test_help_is_given_whatever_is_set(lake, monkeypatch):
    monkeypatch.setenv("MEANDER_LANDNIG", "/x")
    monkeypatch.setattr("sys.argv", ["meander", "show", "--help"])
    shown = CliRunner().invoke(app, ["show", "--help"])
    assert (shown.exit_code, "--limit" in shown.stdout) == (0, True)


def test_days_whose_landing_is_another_one_are_named_and_so_are_runs_that_cannot_be_read(lake, land):
    land(JAN_1, ["{}"], "a")
    load("r", JAN_1)
    land(JAN_1, ["{}"], "[b]")
    (lake / "lake" / "_runs" / "[foreign]").mkdir()
    (lake / "lake" / "_runs" / "[foreign]" / "events.7-ab.json").write_text("{")
    shown = invoke("days").stdout
    what = "files in the landing: 2, read: 1; came later: 1 ([b])"
    assert f"2025-01-01: {what}; see docs/runbook.md#landing-changed\n" in shown
    assert "run [foreign]: a manifest cannot be read; see docs/runbook.md#not-staged\n" in shown
    first, second = json.loads(invoke("days", "--json").stdout)
    assert (first["run_id"], first["landing"]) == ("r", {"2025-01-01": what})
    assert (second["run_id"], second["first"], second["verdict"]) == ("[foreign]", None, "unreadable")
    assert [run["run_id"] for run in json.loads(invoke("days", *DAYS, "--json").stdout)] == ["r", "[foreign]"]


@pytest.mark.parametrize("command", ["days", "tables"])
def test_a_log_that_is_damaged_or_gone_is_named_by_every_command(lake, land, command):
    land(JAN_1, ["{}"], "a")
    load("r", JAN_1)
    log = lake / "lake" / "events" / "_delta_log"
    newest = max(log.glob("*.json"))
    content = newest.read_bytes()
    newest.write_bytes(content[:20])
    with pytest.raises(MeanderError, match=f"the log {log} cannot be read") as error:
        invoke(command)
    assert error.value.code == "table-unreadable"
    newest.write_bytes(content)
    log.rename(lake / "moved")
    with pytest.raises(MeanderError, match=f"the log of {log.parent} is gone"):
        invoke(command)


def test_the_bytes_that_have_landed_are_those_of_the_days_that_are_asked_for(lake, land):
    land("2025-01-01", [event("u", "2025-01-01T10:00:00Z")])
    land("2025-01-02", [event("u", "2025-01-02T10:00:00Z")] * 3)
    folders = {day: lake / "landing" / f"dt={day}" for day in ("2025-01-01", "2025-01-02")}
    by_day = {
        date.fromisoformat(day): sum(file.stat().st_size for file in folder.iterdir() if not file.name.startswith("_"))
        for day, folder in folders.items()
    }
    first, second = by_day
    assert 0 < by_day[first] < by_day[second]
    # Which day has not landed, its ingest says.
    assert landed_bytes([second, date(2025, 1, 3)]) == by_day[second]
    assert landed_bytes([first, second]) == sum(by_day.values())
