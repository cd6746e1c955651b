"""Measure a candidate on later dates than any it was trained on, beside everything it has to beat, and decide.

Reads   examples    training, validation and test dates of the plan, one pinned version
        models      finetuned, scratch and lora of the run, and the present champion
Writes  <lake>/_models/<run>/evaluation/: metrics.json, differences.json, decision.json, report.html; an MLflow run; and
        the candidate as a registered version with the alias `candidate`

What every method sees is the same rows. Above --max-users, those users are taken whose hashed ids are lowest: the same
ones for every method, date and run.
"""

import argparse
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from lake import storage
from lake.errors import HeadsDiffer, ModelMissing, run_main
from lake.places import card_file, decision_file, differences_file, metrics_file, network_folder, report_file
from lake.settings import settings
from lake.table import Table
from model.arrays import Array
from model.data.frames import read_frame
from model.data.lineage import SETTINGS, differences
from model.judging.baselines import LABELS, cheap_baselines
from model.judging.boosted import BoostedTrees
from model.judging.comparison import Comparison, Scores, evaluate, scores_of, thresholds
from model.judging.gate import Criterion, Decision, Rule, decide
from model.judging.report import Report, render
from model.training.plan import TrainingPlan
from model.versions.registry import Registry, TrackedRun

if TYPE_CHECKING:
    from model.versions.artifact import Artifact, Prediction

log = logging.getLogger(__name__)

MODEL, SCRATCH, LORA, CHAMPION = "model", "from scratch", "adapters (LoRA)", "champion"
# Of the validation dates: what decides which epoch and which phase is kept.
LOSS = "valid_next_category_loss"
# What the gate asks about: the order of the next category for everyone. A champion is replaced only for a gain beyond
# chance. A baseline that chance cannot tell from the network has to be behind: only the network answers all tasks.
RULE = Rule(Criterion("next_category", "recall@5"), certain_over_baselines=False)


def load_artifact(folder: str) -> "Artifact":
    """Return the model of a folder; here, and not above, since TensorFlow takes seconds to import."""
    from model.versions.artifact import Artifact

    return Artifact.load(folder)


def scores(name: str, artifact: "Artifact", test: pd.DataFrame, valid: pd.DataFrame, categories: list[str]) -> Scores:
    """Return what a model says about the test rows, with its categories in the order of `categories`."""
    prediction = artifact.predict(test)
    column = {category: place for place, category in enumerate(artifact.category_ids)}
    wide = np.zeros((len(test), len(categories)), np.float32)
    for place, category in enumerate(categories):
        if category in column:
            wide[:, place] = prediction.categories[:, column[category]]
    return Scores(name, wide, prediction.items, binary(prediction), thresholds(valid, binary(artifact.predict(valid))))


def binary(prediction: "Prediction") -> dict[str, Array]:
    """Return the probabilities of the labels by name."""
    return {label: prediction.answers[label].astype(np.float64) for label in LABELS}


def models(plan: TrainingPlan, registry: Registry, load: Callable[[str], "Artifact"]) -> dict[str, "Artifact"]:
    """Return the models to compare by name, the candidate first.

    Args:
        plan: of the run.
        registry: that has the champion.
        load: makes an artifact of an address.

    Raises:
        ModelMissing: the run has no candidate.
    """
    folders = {MODEL: "finetuned", LORA: "lora", SCRATCH: "scratch"}
    artifacts = {
        name: load(network_folder(plan.run_id, folder))
        for name, folder in folders.items()
        if storage.exists(card_file(network_folder(plan.run_id, folder)))
    }
    if MODEL not in artifacts:
        if LORA not in artifacts:
            raise ModelMissing(f"run {plan.run_id!r} has no model at {plan.folder}/finetuned; run model.finetune first")
        artifacts = {MODEL: artifacts.pop(LORA), **artifacts}
    if (version := comparable_champion(plan, registry)) is not None:
        try:
            artifacts[CHAMPION] = load(registry.artifact_folder(version))
        except HeadsDiffer as error:
            log.warning(
                "the champion, version %d, is left out, and only the baselines have to be beaten: %s", version, error
            )
    return artifacts


def comparable_champion(plan: TrainingPlan, registry: Registry) -> int | None:
    """Return the champion when the training ended, or None when there is none that the same labels can judge."""
    version = registry.find_champion(plan.as_of)
    if version is None:
        return None
    now, then = {name: int(getattr(plan, name)) for name in SETTINGS}, registry.settings_of(version)
    for name in differences(now, then):
        log.warning(
            "the champion, version %d, learnt with %s=%d, and this training has %d: they answer different questions, "
            "so it is left out, and only the baselines have to be beaten; train with %s=%d to compare the two",
            version, SETTINGS[name], then[name], now[name], SETTINGS[name], then[name],
        )  # fmt: skip
    return None if differences(now, then) else version


def history_of(artifact: "Artifact", plan: TrainingPlan) -> pd.DataFrame:
    """Return the training curves: pretraining, then the phases of fine-tuning; one row a run, metric and epoch."""
    pretrained = storage.read_json(card_file(network_folder(plan.run_id, "pretrained"))) or {}
    curves = {"pretrain": pretrained.get("history", []), **artifact.card["history"]}
    rows = [
        (run, metric, epoch, value)
        for run, epochs in curves.items()
        for epoch, means in enumerate(epochs)
        for metric, value in means.items()
        if metric.endswith(("loss", "recall_at_5", "recall_at_5_migrated"))
    ]
    return pd.DataFrame(rows, columns=["run", "metric", "step", "value"])


def costs_of(artifacts: Mapping[str, "Artifact"], plan: TrainingPlan) -> pd.DataFrame:
    """Return what each phase of each training of the run took, and its best validation loss; one row a phase."""
    pretrained = storage.read_json(card_file(network_folder(plan.run_id, "pretrained"))) or {}
    # Training, phase, what it took, its epochs, whether it was kept.
    phases: list[tuple[str, str, dict[str, float], list[dict[str, float]], str]] = []
    if pretrained:
        phases.append(("pretraining", "", pretrained["cost"], [], ""))
    for name, artifact in artifacts.items():
        card = artifact.card
        for phase in sorted(card["cost"], key=lambda phase: phase != "heads") if name != CHAMPION else ():
            kept = "yes" if phase == card.get("kept") else ""
            phases.append((name, phase, card["cost"][phase], card["history"][phase], kept))
    return pd.DataFrame(
        {
            "training": name,
            "phase": phase,
            "seconds": f"{cost['seconds']:,.0f}",
            "steps": f"{cost['steps']:,}",
            "rows a second": f"{cost['rows'] / max(cost['seconds'], 1e-9):,.0f}",
            "best loss of the next category": f"{min(e[LOSS] for e in epochs):.4f}" if epochs else "",
            "Recall@5 then": f"{min(epochs, key=lambda e: e[LOSS])['valid_recall_at_5']:.4f}" if epochs else "",
            "kept": kept,
        }
        for name, phase, cost, epochs, kept in phases
    )


def headline(comparison: Comparison) -> dict[str, float]:
    """Return the candidate's own numbers as metrics of MLflow."""
    own = comparison.metrics[comparison.metrics["method"] == MODEL]
    return {
        f"{task}/{metric}/{part.replace(' ', '_')}": value
        for task, metric, part, value in zip(own["task"], own["metric"], own["slice"], own["value"], strict=True)
        if np.isfinite(value)
    }


def main(argv: list[str] | None = None, load: Callable[[str], "Artifact"] = load_artifact) -> Decision:
    """Measure, decide, report, register."""
    parser = argparse.ArgumentParser(
        prog="model.evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run-id", required=True, metavar="R", help="the run whose models are measured")
    parser.add_argument("--max-users", type=int, default=20_000, metavar="N", help="users at most in each split")
    parser.add_argument("--resamples", type=int, default=500, metavar="N", help="of the bootstrap over users")
    args = parser.parse_args(argv)
    registry = Registry.of(settings())
    plan = TrainingPlan.load(args.run_id)
    rows = Rows.read(plan, args.max_users)
    artifacts = models(plan, registry, load)
    candidate = artifacts[MODEL]
    methods = answers(artifacts, rows, candidate.category_ids, plan.seed)
    comparison = evaluate(
        rows.test,
        rows.train,
        candidate.category_ids,
        methods,
        [MODEL],
        lookback_days=plan.lookback_days,
        resamples=args.resamples,
        seed=plan.seed,
    )
    baselines = [method.name for method in methods if method.name not in artifacts]
    champion = CHAMPION if CHAMPION in artifacts else None
    decision = decide(MODEL, champion, baselines, comparison.metrics, comparison.differences, RULE)
    unseen = unseen_shares(candidate, rows.test)
    page = render(
        Report(
            f"Evaluation of {plan.run_id}",
            comparison,
            decision,
            rows.test,
            candidate.category_ids,
            methods,
            history_of(candidate, plan),
            facts_of(plan, candidate, unseen),
            costs_of(artifacts, plan),
        )
    )
    with registry.start_run(plan.run_id, "evaluate", {"rule": RULE, "rows": len(rows.test)}, plan.tables) as run:
        write(plan, comparison, decision, page)
        run.log_metrics(
            0, {**headline(comparison), **{name.replace(" ", "_"): share for name, share in unseen.items()}}
        )
        run.log_text(page, "report.html")
        version = register_candidate(plan, candidate, registry, run)
    log.info("version %d: %s", version, str(decision).replace("\n", " "))
    return decision


@dataclass(frozen=True)
class Rows:
    """The examples of each part of a plan, the same users for every method."""

    train: pd.DataFrame
    valid: pd.DataFrame
    test: pd.DataFrame

    @staticmethod
    def read(plan: TrainingPlan, most_users: int) -> "Rows":
        """Return the rows of the pinned table, of so many users at most in each part."""
        table = Table("examples", plan.tables["examples"])
        return Rows(*(read_frame(table, days, most_users=most_users) for days in (plan.train, plan.valid, plan.test)))


def answers(artifacts: Mapping[str, "Artifact"], rows: Rows, categories: list[str], seed: int) -> list[Scores]:
    """Return what each model, and then each baseline, says of the test rows."""
    train, valid, test = rows.train, rows.valid, rows.test
    methods = [scores(name, artifact, test, valid, categories) for name, artifact in artifacts.items()]
    for baseline in (*cheap_baselines(), BoostedTrees(seed=seed)):
        log.info("baseline: %s", baseline.name)
        methods.append(scores_of(baseline.fit(train, valid, categories), test, valid))
    return methods


def unseen_shares(candidate: "Artifact", test: pd.DataFrame) -> dict[str, float]:
    """Return the shares of the test rows' events whose item, and whose category, the candidate does not know."""
    return {
        "items unknown": candidate.items.share_unseen(np.concatenate(list(test["item_keys"]))),
        "categories unknown": candidate.categories.share_unseen(np.concatenate(list(test["category_keys"]))),
    }


def facts_of(plan: TrainingPlan, candidate: "Artifact", unseen: Mapping[str, float]) -> dict[str, str]:
    """Return what stands at the top of the report."""
    return {
        "run": plan.run_id,
        "as of": str(plan.as_of),
        "train": f"{plan.train[0]} to {plan.train[-1]}",
        "horizon": f"{plan.horizon_days} days",
        "tables": ", ".join(f"{name} version {version}" for name, version in plan.tables.items()),
        "code": str(candidate.card.get("code", "")),
        **{name: f"{share:.1%} of the events" for name, share in unseen.items()},
    }


def write(plan: TrainingPlan, comparison: Comparison, decision: Decision, page: str) -> None:
    """Keep what came out in the folder of the run; the decision, which model.promote reads, is last."""
    storage.write_json(metrics_file(plan.run_id), {"metrics": comparison.metrics.to_dict("records")})
    storage.write_json(differences_file(plan.run_id), {"differences": comparison.differences.to_dict("records")})
    fs, inner = storage.filesystem(report_file(plan.run_id))
    fs.pipe_file(inner, page.encode())
    storage.write_json(
        decision_file(plan.run_id),
        {"promote": decision.promote, "reasons": decision.reasons, "checks": decision.checks.to_dict("records")},
    )


def register_candidate(plan: TrainingPlan, candidate: "Artifact", registry: Registry, run: TrackedRun) -> int:
    """Make the files of the candidate a registered version with the alias `candidate`, and return its number."""
    folder = network_folder(plan.run_id, "finetuned" if candidate.card["name"] == "finetuned" else "lora")
    version = registry.register(folder, candidate.card, run)
    registry.set_candidate(version)
    return version


if __name__ == "__main__":
    run_main(main)
