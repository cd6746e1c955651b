"""The commands of a training, from published tables to a registered candidate, on a small simulated shop."""

from datetime import date, timedelta

import pytest

from expectations import audit
from jobs import examples, ingest, interests, simulate
from lake import storage
from lake.errors import ModelMissing
from lake.publish import publish
from model import evaluate, finetune, prepare, pretrain, promote, registry
from model.artifact import Artifact
from model.frames import read_frame
from model.run_plan import Plan

pytestmark = [pytest.mark.spark, pytest.mark.tf]

FIRST, LAST = date(2025, 1, 1), date(2025, 3, 12)


def run(job, tables, run_id, *arguments):
    """Stage, audit and publish."""
    job.main([*map(str, arguments), "--run-id", run_id])
    audit.main([*(part for table in tables for part in ("--table", table)), "--run-id", run_id])
    for table in tables:
        publish(table, run_id)


def test_from_tables_to_a_candidate(lake, spark, mlflow_store, monkeypatch):
    (lake / "mlflow.db").write_bytes(mlflow_store.read_bytes())
    monkeypatch.setenv("MEANDER_HORIZON_DAYS", "7")
    simulate.main(
        [
            "--from",
            str(FIRST),
            "--days",
            str((LAST - FIRST).days + 1),
            "--users",
            "60",
            "--events",
            "6000",
            "--crawlers",
            "0",
            "--whale",
            "0",
        ]
    )
    span = ("--from", FIRST, "--to", LAST)
    run(ingest, ("quarantine", "events"), "e", *span)
    run(interests, ("interests",), "i", *span, "--every", 7)
    run(examples, ("examples",), "x", "--from", FIRST, "--to", LAST - timedelta(days=7), "--every", 7, "--missing")

    with pytest.raises(ModelMissing, match="run 'r' has no plan"):
        pretrain.main(["--run-id", "r"])
    plan = prepare.main(["--day", str(LAST), "--run-id", "r", "--valid-dates", "1", "--test-dates", "1"])
    assert Plan.load("r") == plan
    assert plan.warm_start is None
    pretrain.main(["--run-id", "r", "--epochs", "1", "--batch", "32"])
    finetune.main(["--run-id", "r", "--epochs", "1", "--batch", "32"])
    finetune.main(["--run-id", "r", "--epochs", "1", "--start", "scratch", "--batch", "32"])
    decision = evaluate.main(["--run-id", "r", "--resamples", "20"])

    folder = storage.join(plan.folder, "evaluation")
    measured = {row["method"] for row in storage.read_json(f"{folder}/metrics.json")["metrics"]}
    assert {"model", "from scratch", "boosted trees", "whole history", "base rate"} <= measured
    assert storage.read_json(f"{folder}/decision.json")["promote"] == decision.promote
    version = registry.candidate()
    assert registry.version_of("r") == version
    # What was registered predicts as what was trained.
    kept = Artifact.load(registry.artifact_folder(version))
    rows = read_frame(evaluate.Table("examples", plan.tables["examples"]), plan.test)
    trained = Artifact.load(storage.join(plan.folder, "finetuned"))
    assert (kept.predict(rows).churned == trained.predict(rows).churned).all()
    assert len(kept.card["surprise_quantiles"]) == 101
    # Of the phases, what was best on the validation dates: the second may do harm.
    least = {
        phase: min(epoch["valid_next_category_loss"] for epoch in epochs)
        for phase, epochs in kept.card["history"].items()
    }
    assert least.keys() == {"heads", "finetuned"}
    assert kept.card["kept"] == min(least, key=least.get)

    done = promote.main(["--run-id", "r"])
    assert done.promoted == decision.promote
    # By hand it becomes champion in any case, and the next training starts from it.
    promote.main(["--model-version", str(version), "--since", str(LAST - timedelta(days=1))])
    again = prepare.main(["--day", str(LAST), "--run-id", "s", "--valid-dates", "1", "--test-dates", "1"])
    assert again.warm_start == version
    pretrain.main(["--run-id", "s", "--epochs", "1", "--batch", "32"])
