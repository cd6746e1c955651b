"""Runs and versions in a real MLflow store: what is kept, who is champion when, and that files never change."""

import hashlib
import os
import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest

from lake import storage
from lake.errors import ModelMissing, SettingsInvalid
from model.promote import main
from model.training.plan import TrainingPlan
from model.versions.registry import code_version, content_hash
from tests.model.standin_artifact import CARD, registry, save

JUL_1, JUL_8, JUL_15, JUL_22 = (date(2017, 7, day) for day in (1, 8, 15, 22))


@pytest.fixture
def store(lake, mlflow_store):
    """An empty store beside the lake."""
    shutil.copy(mlflow_store, lake / "mlflow.db")
    return lake


def registered(lake, run_id="run", **card):
    """Register a stand-in as a version of a run, and return its number."""
    folder = save(lake / "trained" / run_id, **card)
    with registry().start_run(run_id, "evaluate") as tracked:
        return registry().register(folder, {**CARD, **card}, tracked)


# ---- the store ----


TRAINING = """
import logging, socket
logging.basicConfig(level=logging.INFO)

def refuse(*arguments, **_):
    print("reached out", arguments, flush=True)
    raise OSError("there is no network here")

socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse

from lake.settings import settings
from model.versions.registry import Registry
with Registry.of(settings()).start_run("r", "pretrain") as run:
    run.log_metrics(1, {"loss": 1.0})
"""


def test_many_processes_make_one_store_beside_the_lake_quietly_and_tell_nobody(lake, tmp_path):
    # As outside of a test: MLflow reports nothing from within one.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "CI"))}
    environment |= {"HOME": str(tmp_path / "home"), "XDG_CONFIG_HOME": str(tmp_path / "home")}
    (tmp_path / "elsewhere").mkdir()
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TRAINING],
            cwd=tmp_path / "elsewhere",
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    (line,) = [line for text in said for line in text.splitlines()]
    assert line == f"INFO:model.versions.registry:making the MLflow store {tmp_path}/mlflow.db"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "mlflow.db", "mlflow.db.lock"]
    assert list((tmp_path / "elsewhere").iterdir()) == []
    # The later one found the run of this command finished, or went on in it.
    runs = registry().client.search_runs([registry().experiment_id])
    assert {run.data.metrics["loss"] for run in runs} == {1.0}


def test_a_lake_elsewhere_needs_an_address_for_the_store(lake, monkeypatch):
    monkeypatch.setenv("MEANDER_LAKE", "s3://bucket/lake")
    with pytest.raises(SettingsInvalid, match=r"MEANDER_LAKE=s3://bucket/lake is not a local path.*MEANDER_MLFLOW_URI"):
        registry().champion()
    monkeypatch.setenv("MEANDER_MLFLOW_URI", "https://mlflow.example")
    assert registry().uri == "https://mlflow.example"


# ---- runs ----


def test_a_run_keeps_what_was_asked_and_where_it_came_from(store):
    with registry().start_run("weekly 1", "pretrain", {"epochs": 3}, {"examples": 7}) as tracked:
        tracked.log_metrics(1, {"loss": 2.0, "recall@5": 0.25})
        tracked.log_metrics(2, {"loss": 1.0})
        tracked.log_params({"epochs": 4, "more": True})
        tracked.log_text("<h1>hello</h1>", "report.html")
    run = registry().client.get_run(tracked.id)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"epochs": "3", "more": "True"}
    assert run.data.metrics == {"loss": 1.0, "recall_at_5": 0.25}
    steps = registry().client.get_metric_history(tracked.id, "loss")
    assert [(metric.step, metric.value) for metric in steps] == [(1, 2.0), (2, 1.0)]
    tags = run.data.tags
    assert (tags["meander.run_id"], tags["meander.kind"], tags["table.examples"]) == ("weekly 1", "pretrain", "7")
    assert tags["code"].startswith(code_version()[:40])
    lock = (Path(__file__).parents[3] / "requirements.lock").read_bytes()
    assert f"lock {hashlib.sha256(lock).hexdigest()[:12]}," in tags["environment"]
    assert "tensorflow 2." in tags["environment"]
    assert list((store / "lake" / "_mlflow" / "runs").rglob("report.html"))


def test_more_numbers_than_mlflow_takes_at_once_are_kept_too(store):
    numbers = {f"metric {n}": float(n) for n in range(250)}
    with registry().start_run("r", "evaluate", {f"param {n}": n for n in range(250)}) as tracked:
        tracked.log_metrics(0, numbers)
    kept = registry().client.get_run(tracked.id).data
    assert kept.metrics == numbers
    assert len(kept.params) == 250


def test_a_command_that_failed_goes_on_in_its_run_and_one_that_ended_or_was_changed_starts_another(store):
    run_id = "it's scheduled__2017-12-23T00:00:00+00:00"
    with pytest.raises(ZeroDivisionError), registry().start_run(run_id, "pretrain", {"epochs": 3}) as first:
        raise ZeroDivisionError
    assert registry().client.get_run(first.id).info.status == "FAILED"
    with registry().start_run(run_id, "pretrain", {"epochs": 3}) as second:
        assert registry().client.get_run(first.id).info.status == "RUNNING"
    assert second.id == first.id
    with pytest.raises(ZeroDivisionError), registry().start_run(run_id, "pretrain", {"epochs": 3}) as third:
        raise ZeroDivisionError
    with registry().start_run(run_id, "pretrain", {"epochs": 4}) as fourth:
        pass
    with registry().start_run(run_id, "finetune", {"epochs": 3}) as other:
        pass
    assert len({first.id, third.id, fourth.id, other.id}) == 4


# ---- versions ----


def test_a_version_has_its_own_copy_of_the_files(store):
    version = registered(store)
    folder = Path(registry().artifact_folder(version))
    assert folder.is_absolute()
    before = (folder / "card.json").read_text()
    save(store / "trained" / "run", horizon_days=7)
    assert (folder / "card.json").read_text() == before
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*.*")) == ["card.json", "weights/part.bin"]
    assert registry().describe(version)["table.examples"] == "3"
    assert registry().describe(version)["horizon_days"] == "28"


def test_registering_the_same_files_again_gives_the_same_version(store):
    assert registered(store, "first") == registered(store, "first") == 1
    assert registered(store, "first", horizon_days=7) == 2
    assert registered(store, "second", horizon_days=7) == 3, "another run has a version of its own, of the same files"
    assert registry().artifact_folder(2) == registry().artifact_folder(3)
    assert (registry().version_of("first"), registry().version_of("second")) == (2, 3)


def test_a_copy_that_was_cut_short_is_made_whole(store):
    folder = Path(registry().artifact_folder(registered(store, "first")))
    (folder / "weights" / "part.bin").write_bytes(b"\0" * 10)
    (folder / "card.json").unlink()
    registered(store, "second")
    assert content_hash(str(folder)) == folder.name


def test_a_lake_may_be_moved(store, tmp_path, monkeypatch):
    version = registered(store)
    (tmp_path / "new").mkdir()
    for name in ("lake", "mlflow.db"):
        shutil.move(store / name, tmp_path / "new" / name)
    monkeypatch.setenv("MEANDER_LAKE", str(tmp_path / "new" / "lake"))
    assert registry().artifact_folder(version).startswith(str(tmp_path / "new" / "lake"))


def test_files_that_are_gone_and_versions_that_never_were_are_named(store):
    with pytest.raises(ModelMissing, match=r"there is no version 9 of meander in sqlite:.*it holds none"):
        registry().artifact_folder(9)
    with pytest.raises(ModelMissing, match=r"run 'other' has registered no version of meander; run model.evaluate"):
        registry().version_of("other")
    version = registered(store)
    shutil.rmtree(registry().artifact_folder(version))
    with pytest.raises(ModelMissing, match=r"the files of version 1 of meander are gone.*#model-missing"):
        registry().artifact_folder(version)
    with pytest.raises(ModelMissing, match=r"there is no model at .*nothing: it holds no file"):
        content_hash(str(store / "nothing"))


# ---- champions ----


def test_there_is_no_champion_before_the_first_promotion(store):
    assert (registry().champion(), registry().candidate()) == (None, None)
    with pytest.raises(ModelMissing, match=r"champion on 2017-07-01: none has been promoted yet; versions are none"):
        registry().champion_at(JUL_1)
    version = registered(store)
    registry().set_candidate(version)
    assert (registry().champion(), registry().candidate()) == (None, version)
    with pytest.raises(ModelMissing, match=r"none has been promoted yet; versions are 1; give --model-version"):
        registry().champion_at(JUL_1)


def test_a_past_day_has_the_champion_of_that_day(store):
    one, two, three = (registered(store, name) for name in ("one", "two", "three"))
    assert [registry().promote(one, JUL_8), registry().promote(two, JUL_22)] == [one, two]
    assert registry().champion() == two
    assert (registry().find_champion(JUL_1), registry().find_champion(JUL_8)) == (None, one)
    days = [JUL_8, JUL_15, date(2017, 7, 21), JUL_22, date(2030, 1, 1)]
    assert [registry().champion_at(day) for day in days] == [one, one, one, two, two]
    with pytest.raises(ModelMissing) as missing:
        registry().champion_at(JUL_1)
    assert str(missing.value) == (
        "no version of meander was champion on 2017-07-01: champions are version 1 since 2017-07-08, version 2 since "
        "2017-07-22; give --model-version to score with another, or run the training for that day first "
        "[docs/runbook.md#model-missing]"
    )

    # A backfill promotes a model for a past week: it counts for that week, and the present champion stays.
    assert registry().promote(three, JUL_15) == two
    assert registry().champion() == two
    assert [registry().champion_at(day) for day in days] == [one, three, three, two, two]


def test_of_two_that_count_from_one_day_the_last_promoted_is_champion_and_one_may_go_back(store):
    one, two = registered(store, "one"), registered(store, "two")
    registry().promote(one, JUL_8)
    registry().promote(two, JUL_8)
    assert registry().champion_at(JUL_8) == registry().champion() == two
    registry().promote(one, JUL_8)
    assert registry().champion_at(JUL_8) == registry().champion() == one
    registry().promote(two, JUL_15)
    registry().promote(one, JUL_22)
    assert [registry().champion_at(day) for day in (JUL_8, JUL_15, JUL_22)] == [one, two, one]
    assert registry().describe(one)["champion_since"] == "2017-07-22"


def test_a_run_that_is_done_again_does_not_meet_itself(store):
    one, two = registered(store, "one"), registered(store, "two")
    registry().promote(one, JUL_1)
    registry().promote(two, JUL_8)
    assert registry().find_champion(JUL_8, other_than="two") == one
    assert registry().find_champion(JUL_8, other_than="one") == two
    assert registry().find_champion(JUL_1, other_than="one") is None


def test_a_version_cannot_be_champion_of_days_before_its_training(store):
    one = registered(store, "one", as_of=str(JUL_8))
    with pytest.raises(SettingsInvalid) as refused:
        main(["--model-version", str(one), "--since", str(JUL_1)])
    assert str(refused.value) == (
        "version 1 has learnt from what was known on 2017-07-08, so it cannot be champion since 2017-07-01: "
        "predictions of the days between, and trainings that start from it, would know their future; "
        "give --since 2017-07-08 or a later day [docs/runbook.md#settings-invalid]"
    )
    assert registry().champion() is None
    main(["--model-version", str(one), "--since", str(JUL_8)])
    assert registry().champion() == one


def test_a_version_that_is_not_there_cannot_be_promoted(store):
    with pytest.raises(ModelMissing, match=r"there is no version 3 of meander"):
        registry().promote(3, JUL_1)


# ---- the command ----


def evaluated(lake, run_id, promote, reasons=("better than all",)):
    """Leave what model.evaluate leaves of a run, and return its version."""
    plan = TrainingPlan(run_id, date(2017, 12, 23), {}, [], [], [], [], 28, 30, 5, 50, warm_start=None, seed=0)
    plan.save()
    decision = {"promote": promote, "reasons": list(reasons)}
    storage.write_json(f"{plan.folder}/evaluation/decision.json", decision)
    return registered(lake, run_id)


def test_a_candidate_that_passed_the_gate_becomes_champion_from_its_date_on(store, capsys):
    version = evaluated(store, "run:1", promote=True)
    for _ in range(2):
        main(["--run-id", "run:1"])
        said = capsys.readouterr().out
        assert said == '{"promoted": true, "version": 1, "champion": 1, "reasons": ["better than all"]}\n'
    assert registry().champion_at(date(2017, 12, 23)) == version
    with pytest.raises(ModelMissing):
        registry().champion_at(date(2017, 12, 22))


def test_a_candidate_that_did_not_pass_leaves_the_champion(store, capsys):
    evaluated(store, "good", promote=True)
    evaluated(store, "bad", promote=False, reasons=["worse on migrated"])
    main(["--run-id", "good"])
    capsys.readouterr()
    main(["--run-id", "bad"])
    assert capsys.readouterr().out == (
        '{"promoted": false, "version": 2, "champion": 1, "reasons": ["worse on migrated"]}\n'
    )
    assert registry().champion() == 1


def test_a_person_may_go_back_to_an_older_version(store, capsys):
    for name in ("one", "two"):
        evaluated(store, name, promote=True)
        main(["--run-id", name])
    main(["--model-version", "1", "--since", "2018-01-05"])
    assert (registry().champion(), registry().champion_at(date(2018, 1, 4))) == (1, 2)


def test_a_promotion_says_what_it_needs(store):
    with pytest.raises(ModelMissing, match=r"run 'new' has no plan at .*run model.prepare"):
        main(["--run-id", "new"])
    TrainingPlan("new", JUL_1, {}, [], [], [], [], 28, 30, 5, 50, warm_start=None, seed=0).save()
    with pytest.raises(
        ModelMissing, match=r"run 'new' was not evaluated: there is no .*decision.json; run model.evaluate"
    ):
        main(["--run-id", "new"])
    for arguments in ([], ["--run-id", "r", "--model-version", "1", "--since", "2017-01-01"], ["--model-version", "1"]):
        with pytest.raises(SettingsInvalid, match=r"give either --run-id, or both --model-version and --since"):
            main(arguments)
