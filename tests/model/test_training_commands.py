"""The commands of a training, from published tables to a registered candidate, on a small simulated shop."""

from contextlib import ExitStack
from datetime import date, timedelta

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from jobs import examples, ingest, interests, simulate
from lake import storage
from lake.errors import ModelMissing
from lake.publish import publish
from lake.settings import settings
from lake.staging import read_staged
from lake.table import Table
from model import evaluate, finetune, prepare, pretrain, promote
from model.data.frames import read_frame
from model.judging import comparison as evaluation
from model.network import network
from model.training.plan import TrainingPlan
from model.versions.artifact import Artifact
from model.versions.registry import Registry
from tests.lake.stagings import audit
from tests.model.hidden_files import hidden
from tests.model.small_network import SMALL

pytestmark = [pytest.mark.spark, pytest.mark.tf]

FIRST = date(2025, 1, 1)
EVERY_FOUR_DAYS = [FIRST + timedelta(days=4 * n) for n in range(9)]
# A first training, and one four days later, when the labels of one more date are whole.
AS_OF, LATER = date(2025, 2, 5), date(2025, 2, 9)


def january(*days):
    return [date(2025, 1, day) for day in days]


def run(job, tables, run_id, *arguments):
    """Stage and publish; audits have their own tests."""
    job.main([*map(str, arguments), "--run-id", run_id])
    for table in tables:
        audit(read_staged(table, run_id))
        publish(table, run_id)


def test_from_tables_to_a_candidate(lake, spark, mlflow_store, monkeypatch):
    (lake / "mlflow.db").write_bytes(mlflow_store.read_bytes())
    monkeypatch.setitem(network.PRESETS, "tiny", SMALL)
    days = (LATER - FIRST).days + 1
    shop = {"from": FIRST, "days": days, "users": 60, "events": 4000, "crawlers": 0, "whale": 0}
    simulate.main([part for name, value in shop.items() for part in (f"--{name}", str(value))])
    run(ingest, ("quarantine", "events"), "e", "--from", FIRST, "--to", LATER)
    as_of = ("--from", FIRST, "--to", EVERY_FOUR_DAYS[-1], "--every", 4)
    run(interests, ("interests",), "i", *as_of)
    run(examples, ("examples",), "x", *as_of, "--missing")

    with pytest.raises(ModelMissing, match="run 'r' has no plan"):
        pretrain.main(["--run-id", "r"])
    plan = prepare.main(["--day", str(AS_OF), "--run-id", "r", "--valid-dates", "1", "--test-dates", "1"])
    assert TrainingPlan.load("r") == plan
    assert plan.warm_start is None
    # Labels are of the seven days after a date: those of February 2nd are not whole, those of the 25th reach into the
    # test, and those of the 17th into the validation.
    assert (plan.train, plan.valid, plan.test) == (january(1, 5, 9, 13), january(21), january(29))
    assert plan.pretrain == january(1, 5, 9, 13, 17, 21)
    states, labelled = (Table(name, plan.tables[name]) for name in ("interests", "examples"))
    with ExitStack() as none_of_its_business:
        none_of_its_business.enter_context(hidden(labelled, EVERY_FOUR_DAYS))
        none_of_its_business.enter_context(hidden(states, set(states.rows_by()) - set(plan.pretrain)))
        pretrain.main(["--run-id", "r", "--epochs", "1", "--batch", "32"])
    # From it fine-tuning knows how many events a row has at most: those of the setting.
    assert Artifact.load(storage.join(plan.folder, "pretrained")).card["sequence_length"] == plan.sequence_length
    with ExitStack() as none_of_its_business:
        none_of_its_business.enter_context(hidden(labelled, set(EVERY_FOUR_DAYS) - {*plan.train, *plan.valid}))
        none_of_its_business.enter_context(hidden(states, states.rows_by()))
        finetune.main(["--run-id", "r", "--epochs", "1", "--batch", "32"])
        finetune.main(["--run-id", "r", "--epochs", "1", "--start", "scratch", "--batch", "32"])

    # From scratch it may take as many steps as both trainings together.
    took = {name: storage.read_json(f"{plan.folder}/{name}/card.json")["cost"] for name in ("finetuned", "scratch")}
    before = Artifact.load(storage.join(plan.folder, "pretrained")).card["cost"]["steps"]
    of_phases = [took["finetuned"][phase]["steps"] for phase in ("heads", "finetuned")]
    assert took["scratch"]["all"]["steps"] >= before + sum(of_phases) > 0

    # What evaluation reads: its frames in their order, and the rows on which thresholds are chosen.
    read, chosen_on = [], []
    real_frame, real_thresholds = evaluate.read_frame, evaluation.thresholds

    def frame(table, days, *arguments, **options):
        read.append((table.version, list(days)))
        return real_frame(table, days, *arguments, **options)

    def thresholds(rows, binary):
        chosen_on.append({day.date() for day in rows["dt"].astype("datetime64[ns]")})
        return real_thresholds(rows, binary)

    later = [day for day in Table("events").rows_by() if day > max(plan.test)]
    with (
        monkeypatch.context() as spy,
        hidden(states, states.rows_by()),
        hidden(labelled, [date(2025, 2, 2)]),
        hidden(Table("events"), later),
    ):
        spy.setattr(evaluate, "read_frame", frame)
        spy.setattr(evaluate, "thresholds", thresholds)
        spy.setattr(evaluation, "thresholds", thresholds)
        decision = evaluate.main(["--run-id", "r", "--resamples", "20"])
    assert read == [(labelled.version, days) for days in (plan.valid, plan.test, plan.train)]
    assert len(chosen_on) > 3
    assert all(days == set(plan.valid) for days in chosen_on)

    folder = storage.join(plan.folder, "evaluation")
    metrics = storage.read_json(f"{folder}/metrics.json")["metrics"]
    measured = {row["method"] for row in metrics}
    assert {"model", "from scratch", "boosted trees", "whole history", "base rate"} <= measured
    # Everything is measured on all rows of the test date that have the label.
    test = read_frame(labelled, plan.test)
    count = {"churned": len(test), "migrated": test["migrated"].notna().sum()}
    for label, rows in count.items():
        assert {row["n"] for row in metrics if row["task"] == label and row["slice"] == "all"} == {rows}
    assert storage.read_json(f"{folder}/decision.json")["promote"] == decision.promote
    registry = Registry.of(settings())
    version = registry.candidate()
    assert registry.version_of("r") == version
    # The network that was registered is what was trained; with trees, where these gain, it says what was measured.
    kept = Artifact.load(registry.artifact_folder(version))
    assert kept.card["sequence_length"] == 4, "the network of this test has room for so many events; the lake keeps 50"
    trained = Artifact.load(storage.join(plan.folder, "finetuned"))
    assert (kept.predict_alone(test).answers["churned"] == trained.predict(test).answers["churned"]).all()
    said, place = kept.predict(test).answers["churned"], {"method": "model", "task": "churned", "slice": "all"}
    (area,) = [one["value"] for one in metrics if {**place, "metric": "roc_auc"}.items() <= one.items()]
    assert roc_auc_score(test["churned"].astype(bool), said) == pytest.approx(area)
    # The card's numbers are of the validation date.
    said = kept.predict(read_frame(labelled, plan.valid))
    surprise = said.surprise[~np.isnan(said.surprise)]
    assert kept.card["surprise_quantiles"] == pytest.approx(np.quantile(surprise, np.arange(101) / 100), abs=2e-6)
    at_risk = np.quantile(said.answers["churned"], 0.8)
    assert kept.card["segment_thresholds"]["at_risk"] == pytest.approx(at_risk, abs=2e-6)
    # Of the phases, what was best on the validation date: the second may do harm.
    least = {
        phase: min(epoch["valid_next_category_loss"] for epoch in epochs)
        for phase, epochs in kept.card["history"].items()
        if phase != "answers"
    }
    assert least.keys() == {"heads", "finetuned"}
    assert kept.card["kept"] == min(least, key=least.get)

    done = promote.main(["--run-id", "r"])
    assert done.promoted == decision.promote
    assert registry.champion() == (version if decision.promote else None)
    # By hand it becomes champion in any case, and the next training starts from it: with its indices and its weights.
    promote.main(["--model-version", str(version), "--since", str(AS_OF)])
    later = ["--day", str(LATER), "--run-id", "s", "--valid-dates", "1", "--test-dates", "1", "--seed", "2"]
    again = prepare.main(later)
    assert (again.warm_start, again.test) == (version, [date(2025, 2, 2)])
    pretrain.main(["--run-id", "s", "--epochs", "1", "--batch", "32"])
    grown = Artifact.load(storage.join(again.folder, "pretrained"))
    known = kept.items.size
    assert grown.items.ids[: len(kept.items.ids)] == kept.items.ids
    assert grown.items.size > known
    before, after = (model.pretrained.encoder.embed.fields["item"].get_weights()[0] for model in (kept, grown))
    # A few steps away from the champion's, whose initial values differed by 0.05 and more from other ones.
    assert np.abs(after[:known] - before).mean() < 0.02
