"""The `meander` command: days run from a shell, and what a person or a machine can ask afterwards."""

import contextlib
import json
import os
import re
from dataclasses import asdict, replace
from datetime import date

import pytest
from typer.testing import CliRunner

from dags.cli.console import libraries_hushed
from dags.cli.main import _check_java, _check_landing, app, main
from dags.page import models
from dags.shared.evaluation import Evaluation
from lake import storage
from lake.errors import MeanderError
from lake.places import run_folder
from lake.publish import publish
from tests.lake.stagings import audit, stage_files
from tests.model.standin_artifact import CARD, save

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


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["show", "orders"], "there is no table 'orders'; choose one of events"),
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
    assert capsys.readouterr().err.startswith("TableMissing: events has no published version")


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
    assert _check_landing() == (
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
        assert _check_java() == f"{version} at {java}"
        return
    with pytest.raises(RuntimeError, match=f"found Java {re.escape(version)}, Spark 4.0 needs 17 to 22"):
        _check_java()


def test_settings_are_listed_with_their_values(lake, monkeypatch):
    monkeypatch.setenv("MEANDER_SESSION_GAP_MINUTES", "45")
    listed = json.loads(invoke("settings", "--json").stdout)
    assert listed["MEANDER_SESSION_GAP_MINUTES"] == 45
    assert listed["MEANDER_LAKE"] == str(lake / "lake")


def test_an_invalid_setting_is_named_with_what_was_received(lake, monkeypatch):
    monkeypatch.setenv("MEANDER_SESSION_GAP_MINUTES", "soon")
    with pytest.raises(MeanderError, match="MEANDER_SESSION_GAP_MINUTES='soon'"):
        invoke("settings")


# --- the model ------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")  # MLflow asks SQLAlchemy for it
def test_the_versions_of_the_model_are_listed_with_when_they_were_champion(lake):
    from model.versions import registry

    assert "no version of the model is registered yet" in invoke("model").stdout
    assert models.champion() is None
    for run in ("first", "second"):
        with registry.start_run(run, "evaluate") as tracked:
            registry.set_candidate(registry.register(save(lake / run, name=run), {**CARD, "name": run}, tracked))
    registry.promote(1, date(2025, 1, 7))
    first, second = json.loads(invoke("model", "--json").stdout)
    assert (first["version"], first["alias"], first["champion since"], first["run"]) == (
        1, "champion", ["2025-01-07"], "first",
    )  # fmt: skip
    assert (second["version"], second["alias"], second["champion since"]) == (2, "candidate", [])
    assert "2025-01-07" in invoke("model").stdout
    # The page asks the same registry.
    assert models.champion() == models.Champion(1, ("2025-01-07",), "first")


@pytest.mark.usefixtures("lake")
def test_the_evaluation_of_a_training_is_shown_with_the_word_of_the_gate():
    evaluation = Evaluation.of("model_weekly--r")
    values = {"meander": {"all": 0.6186, "migrated": 0.5}, "last category": {"all": 0.4, "migrated": float("nan")}}
    metrics = [
        {"method": method, "task": "next_category", "metric": "recall@5", "slice": name, "value": value}
        for method, by_slice in values.items()
        for name, value in by_slice.items()
    ]
    decision = {"promote": True, "reasons": ["better than [all] baselines"]}
    storage.write_json(storage.join(evaluation.folder, "metrics.json"), {"metrics": metrics})
    storage.write_json(storage.join(evaluation.folder, "decision.json"), decision)
    said = invoke("model", "--run-id", "model_weekly--r").stdout
    rows = {line.split("  ")[1].strip(): line.split() for line in said.splitlines() if "0." in line}
    assert rows["meander"][1:] == ["0.619", "0.500", "-", "-", "-", "-", "-"]
    assert rows["last category"][2:] == ["0.400", "-", "-", "-", "-", "-", "-"]
    assert "become champion" in said
    assert "better than [all] baselines" in said
    assert f"report: {evaluation.report}" in said
    assert json.loads(invoke("model", "--run-id", "model_weekly--r", "--json").stdout)["decision"] == decision


def predicted(day, run_id, version, *users):
    """Publish predictions of a day, as model.score stages them."""
    rows = [
        {"user_id": user, "model_version": version, "segment": segment, "migration_probability": migrates, "dt": day}
        for user, segment, migrates in users
    ]
    staged = stage_files("predictions", run_id, rows, owns=[day], basis=version, audited="")
    staged = replace(staged, counts={"model_version": version, "events": 10, "unseen_events": 1})
    storage.write_json(storage.join(run_folder(run_id), "predictions.json"), asdict(staged))
    audit(staged, "warned")
    publish("predictions", run_id)


@pytest.mark.usefixtures("lake")
def test_published_predictions_are_counted_by_day_and_name_the_version_behind_them():
    users = [("ann", "stable", 0.9), ("bob", "migrating", 0.7), ("cem", "migrating", 0.8)]
    predicted(date(2025, 1, 1), "a", 2, *users)
    predicted(date(2025, 1, 2), "b", 2, *users)
    predicted(date(2025, 1, 2), "c", 3, *users[:2])
    predicted(date(2025, 1, 2), "late", 1, *users)  # refused: it was staged from something older
    found = json.loads(invoke("predictions", "--json").stdout)
    assert [list(entry.values()) for entry in found] == [
        ["2025-01-01", 3, 2, 10, 1, "warned"],
        ["2025-01-02", 2, 3, 10, 1, "warned"],
    ]
    assert "2025-01-01" not in invoke("predictions", "--from", "2025-01-02").stdout


@pytest.mark.usefixtures("lake")
def test_who_is_explained_by_default_is_likely_to_migrate():
    predicted(date(2025, 1, 1), "a", 2, ("ann", "stable", 0.9), ("bob", "migrating", 0.7), ("cem", "migrating", 0.8))
    stage_files("interests", "i", [], owns=[date(2025, 1, 1)], basis=1)
    publish("interests", "i")
    with pytest.raises(MeanderError, match="user 'cem' has no state at 2025-01-01"):
        invoke("explain")
    with pytest.raises(MeanderError, match="user 'dan' has no state at 2025-01-01"):
        invoke("explain", "dan", "--day", "2025-01-01")


def test_what_libraries_say_is_shown_only_with_a_failure(capfd):
    with libraries_hushed():
        os.write(2, b"found no GPU\n")
    with contextlib.suppress(MeanderError), libraries_hushed():
        os.write(2, b"out of memory\n")
        raise MeanderError("no model")
    os.write(2, b"afterwards\n")
    assert capfd.readouterr().err == "out of memory\nafterwards\n"


def test_the_monitor_shows_what_somebody_has_to_look_at(lake):
    for day, rows in ((date(2025, 3, 1), 9), (date(2025, 3, 8), 2)):
        events = [{"event_id": f"{day} {n}", "user_id": "u", "landed": day, "dt": day} for n in range(rows)]
        stage_files("events", f"r {day}", events, [day], 1)
        publish("events", f"r {day}")
    (found,) = json.loads(invoke("monitor", "--json").stdout)
    assert (found["kind"], found["value"], found["reference"], found["ok"]) == ("volume", 2.0, 9.0, False)
    assert "look" in invoke("monitor").stdout
    assert "nothing to compare yet" in invoke("monitor", "--day", "2025-03-01").stdout
