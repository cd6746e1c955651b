"""What the command says of models, evaluations, predictions and what came true of them."""

import json
from dataclasses import replace
from datetime import date

import pytest
from typer.testing import CliRunner

from dags.cli.main import app
from dags.page import models
from dags.shared.evaluation import Evaluation
from lake import storage
from lake.errors import MeanderError
from lake.labels import NAMES
from lake.publish import publish
from lake.staging import write_staged
from tests.lake.stagings import audit, stage_files
from tests.model.standin_artifact import CARD, registry, save


def invoke(*args):
    """Run a command and return what it printed; a failure is raised as it is."""
    return CliRunner().invoke(app, list(args), catch_exceptions=False)


@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")  # MLflow asks SQLAlchemy for it
def test_the_versions_of_the_model_are_listed_with_when_they_were_champion(lake):
    assert "no version of the model is registered yet" in invoke("model").stdout
    assert models.champion() is None
    for run in ("first", "second"):
        with registry().start_run(run, "evaluate") as tracked:
            private = {"epsilon": 3.14159, "delta": 1e-05} if run == "second" else {}
            card = {**CARD, "name": run, "code": f"commit of {run}", **private}
            registry().set_candidate(registry().register(save(lake / run, name=run), card, tracked))
    registry().promote(1, date(2025, 1, 7))
    first, second = json.loads(invoke("model", "--json").stdout)
    assert (first["version"], first["alias"], first["champion since"], first["run"]) == (
        1, "champion", ["2025-01-07"], "first",
    )  # fmt: skip
    assert (second["version"], second["alias"], second["champion since"]) == (2, "candidate", [])
    assert (first["code"], second["code"]) == ("commit of first", "commit of second")
    assert (first["privacy"], second["privacy"]) == ("", "epsilon 3.14, delta 1e-05")
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
    more = [("next_category", "cross_entropy", 2.25), (NAMES[0], "calibration_error", 0.0313)]
    metrics += [
        {"method": "meander", "task": task, "metric": metric, "slice": "all", "value": value}
        for task, metric, value in more
    ]
    decision = {"promote": True, "reasons": ["better than [all] baselines"]}
    storage.write_json(storage.join(evaluation.folder, "metrics.json"), {"metrics": metrics})
    storage.write_json(storage.join(evaluation.folder, "decision.json"), decision)
    said = invoke("model", "--run-id", "model_weekly--r").stdout
    rows = [(line.split("  ")[1].strip(), line.split()) for line in said.splitlines() if "0." in line]
    # Five numbers of the next category and two of items; then the area and the calibration error of each label.
    assert [name for name, _ in rows] == ["meander", "last category", "meander"]
    assert rows[0][1][1:] == ["0.619", "0.500", "-", "-", "2.250", "-", "-"]
    assert rows[1][1][2:] == ["0.400", *"------"]
    none = ["-"] * len(NAMES)
    assert rows[2][1][1:] == [*none, "0.031", *none[1:]]
    assert "become champion" in said
    assert "better than [all] baselines" in said
    assert f"report: {evaluation.report}" in said
    assert json.loads(invoke("model", "--run-id", "model_weekly--r", "--json").stdout)["decision"] == decision
    # Of a log in which nobody buys, the answer who does has no column.
    measured = {"metrics": metrics, "not_judged": ["purchased"]}
    storage.write_json(storage.join(evaluation.folder, "metrics.json"), measured)
    said = invoke("model", "--run-id", "model_weekly--r").stdout
    assert "AUC purchased" not in said
    assert "AUC churned" in said
    assert "not judged: purchased, which is true of all users that were measured, or of none" in said
    # What has refused a candidate is told apart from what speaks for it.
    decision = {"promote": False, "reasons": ["no gain", "better than a guess"], "against": ["no gain"]}
    storage.write_json(storage.join(evaluation.folder, "decision.json"), decision)
    said = [line.strip() for line in invoke("model", "--run-id", "model_weekly--r").stdout.splitlines()]
    told = said.index("- no gain")
    assert said[told - 1 : told + 3] == [
        "The champion stays: the gate has refused.",
        "- no gain",
        "What speaks for the candidate:",
        "- better than a guess",
    ]


def predicted(day, run_id, version, *users):
    """Publish predictions of a day, as model.score stages them."""
    rows = [
        {"user_id": user, "model_version": version, "segment": segment, "migration_probability": migrates, "dt": day}
        for user, segment, migrates in users
    ]
    staged = stage_files("predictions", run_id, rows, owns=[day], basis=version, audited="")
    staged = replace(staged, counts={"model_version": version, "events": 10, "unseen_events": 1})
    write_staged(staged)
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


def test_the_monitor_shows_what_somebody_has_to_look_at(lake):
    for day, rows in ((date(2025, 3, 1), 9), (date(2025, 3, 8), 2)):
        events = [{"event_id": f"{day} {n}", "user_id": "u", "landed": day, "dt": day} for n in range(rows)]
        stage_files("events", f"r {day}", events, [day], 1)
        publish("events", f"r {day}")
    (found,) = json.loads(invoke("monitor", "--json").stdout)
    assert (found["kind"], found["value"], found["reference"], found["ok"]) == ("volume", 2.0, 9.0, False)
    assert "look" in invoke("monitor").stdout
    assert "nothing to compare yet" in invoke("monitor", "--day", "2025-03-01").stdout
