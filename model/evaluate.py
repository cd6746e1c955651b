"""Finish a candidate, measure it on later dates than any it was trained on, beside all it has to beat, and decide.

Reads   examples    training, validation and test dates of the plan, one pinned version
        events      of the users that are measured, up to the last test date: what item baselines know
        models      finetuned, scratch and lora of the run, and the present champion
Writes  <lake>/_models/<run>/candidate/: the network, with the trees of a stack and the card of both;
        <lake>/_models/<run>/evaluation/: metrics.json, differences.json, decision.json, report.html; an MLflow run; and
        the candidate as a registered version with the alias `candidate`

The candidate is the fine-tuned network, and for each answer that gains by it on validation rows, boosted trees as well
(decision 0038). A network that was trained with differential privacy stays alone: trees would tell of single users.

What every method sees is the same rows. Above --max-users, those users are taken whose hashed ids are lowest: the same
ones for every method, date and run. Baselines learn from as many more users as --max-rows has room for at all training
dates: the network has learnt from all.
"""

import argparse
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lake import storage
from lake.errors import HeadsDiffer, ModelMissing, run_main
from lake.places import card_file, decision_file, differences_file, metrics_file, network_folder, report_file
from lake.settings import settings
from lake.table import Table
from model.arrays import Array
from model.data.candidates import columns_of
from model.data.features import PROFILE, SCALARS
from model.data.frames import read_frame
from model.data.item_history import ItemHistory
from model.data.lineage import SETTINGS, differences, value_of
from model.judging.baselines import LABELS, CurrentInterest, RecencyFrequency, cheap_baselines
from model.judging.boosted import BoostedTrees
from model.judging.comparison import Comparison, Scores, evaluate, labels_of_one_answer, scores_of, thresholds
from model.judging.gate import Criterion, Decision, Rule, decide
from model.judging.items import item_methods
from model.judging.report import Report, render
from model.judging.stacking import Gain, fit_stack
from model.training.plan import TrainingPlan
from model.versions.registry import Registry, TrackedRun, copy_files
from model.versions.segments import segment_thresholds
from model.versions.sets import COVERAGE, mass_before, reach_of
from model.versions.stack import Stack

if TYPE_CHECKING:
    from model.versions.artifact import Artifact, Prediction

log = logging.getLogger(__name__)

MODEL, SCRATCH, LORA, CHAMPION = "model", "from scratch", "adapters (LoRA)", "champion"
# The candidate without the trees of its stack.
ALONE = "network alone"
# Of the validation dates: what decides which epoch and which phase is kept.
LOSS = "valid_next_category_loss"
# What the gate asks about: the order of the next category for everyone. A champion is replaced only for a gain beyond
# chance. A baseline that chance cannot tell from the network has to be behind: only the network answers all tasks.
# No other answer that is published may be worse for it, or be one that a simple method gives as well.
RULE = Rule(
    Criterion("next_category", "recall@5"),
    certain_over_baselines=False,
    heads=(Criterion("next_items", "recall@20"), *(Criterion(label, "roc_auc") for label in LABELS)),
    own_baselines={"next_items": CurrentInterest.name, **dict.fromkeys(LABELS, RecencyFrequency.name)},
    # Methods that look at all that a user ever took may know items better than the network, which sees the last events.
    strongest=(Criterion("next_items", "recall@20"),),
)
# What baselines learn from: not the ids of items and the times of events, which are most of a row.
LEARNT = (
    "item_keys",
    "category_keys",
    *(f"current_{name}" for name in ("categories", "counts", "shares")),
    "longterm_categories",
    *PROFILE,
    *SCALARS,
    *(f"next_{name}" for name in ("categories", "shares", "category", "item_keys")),
    *LABELS,
)


def load_artifact(folder: str) -> "Artifact":
    """Return the model of a folder; here, and not above, since TensorFlow takes seconds to import."""
    from model.versions.artifact import Artifact

    return Artifact.load(folder)


@dataclass(frozen=True)
class Said:
    """What a model says of the validation and the test rows."""

    valid: "Prediction"
    test: "Prediction"

    @staticmethod
    def by(artifact: "Artifact", rows: "Rows") -> "Said":
        """Ask a model."""
        return Said(artifact.predict(rows.valid), artifact.predict(rows.test))

    def stacked(self, stack: Stack, rows: "Rows") -> "Said":
        """Return what the network that has said this says together with trees."""
        return Said(stack.applied(self.valid, rows.valid), stack.applied(self.test, rows.test))


def scores(name: str, said: Said, own: list[str], rows: "Rows", categories: list[str]) -> Scores:
    """Return what a model says about the test rows, with its `own` categories in the order of `categories`."""
    column = {category: place for place, category in enumerate(own)}
    wide = np.zeros((len(rows.test), len(categories)), np.float32)
    for place, category in enumerate(categories):
        if category in column:
            wide[:, place] = said.test.categories[:, column[category]]
    chosen = thresholds(rows.valid, binary(said.valid))
    return Scores(name, wide, said.test.items, binary(said.test), chosen, reach_on(said.valid, own, rows.valid))


def reach_on(prediction: "Prediction", own: list[str], valid: pd.DataFrame) -> float | None:
    """Return the reach of the sets of a model's categories by what it says of validation rows; None if they are few."""
    came = valid["next_category"].notna().to_numpy()
    truth = columns_of(pd.Index(own, dtype=object), valid["next_category"])
    return reach_of(mass_before(prediction.categories[came], truth[came]))


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
    version = registry.find_champion(plan.as_of, other_than=plan.run_id)
    if version is None:
        return None
    now, then = {name: value_of(name, getattr(plan, name)) for name in SETTINGS}, registry.settings_of(version)
    for name in differences(now, then):
        log.warning(
            "the champion, version %d, learnt with %s=%s, and this training has %s: they answer different questions, "
            "so it is left out, and only the baselines have to be beaten; train with %s=%s to compare the two",
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
    """Return what each phase of each training took, and the validation loss of what it kept; one row a phase."""
    pretrained = storage.read_json(card_file(network_folder(plan.run_id, "pretrained"))) or {}
    # Training, phase, what it took, its epochs, whether it was kept.
    phases: list[tuple[str, str, dict[str, float], dict[str, float] | None, str]] = []
    if pretrained:
        phases.append(("pretraining", "", pretrained["cost"], None, ""))
    for name, artifact in artifacts.items():
        card = artifact.card
        order = {"heads": 0, "answers": 2}
        for phase in sorted(card["cost"], key=lambda phase: order.get(phase, 1)) if name != CHAMPION else ():
            is_kept = card.get("answers_kept") if phase == "answers" else phase == card.get("kept")
            kept = "yes" if is_kept else ""
            # Of the phase of the binary answers it says nothing.
            epochs = [epoch for epoch in card["history"][phase] if LOSS in epoch]
            # The best epoch is kept, with differential privacy the last: nothing else looks at the rows.
            last = epochs[-1] if epochs else None
            told = last if card.get("privacy") else min(epochs, key=lambda epoch: epoch[LOSS], default=None)
            phases.append((name, phase, card["cost"][phase], told, kept))
    return pd.DataFrame(
        {
            "training": name,
            "phase": phase,
            "seconds": f"{cost['seconds']:,.0f}",
            "steps": f"{cost['steps']:,}",
            "rows a second": f"{cost['rows'] / max(cost['seconds'], 1e-9):,.0f}",
            "loss of the next category": f"{told[LOSS]:.4f}" if told else "",
            "Recall@5 then": f"{told['valid_recall_at_5']:.4f}" if told else "",
            "kept": kept,
        }
        for name, phase, cost, told, kept in phases
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
    parser.add_argument(
        "--max-rows",
        type=int,
        default=400_000,
        metavar="N",
        help="training rows of baselines, where --max-users has fewer",
    )
    parser.add_argument("--resamples", type=int, default=500, metavar="N", help="of the bootstrap over users")
    args = parser.parse_args(argv)
    registry = Registry.of(settings())
    plan = TrainingPlan.load(args.run_id)
    rows = Rows.read(plan, args.max_users, args.max_rows)
    artifacts = models(plan, registry, load)
    candidate = artifacts[MODEL]
    methods, gains = answers(artifacts, rows, plan.seed, settings().min_group)
    stacked = candidate.stack is not None
    comparison = evaluate(
        rows.test,
        rows.train,
        candidate.category_ids,
        methods,
        [MODEL, ALONE] if stacked else [MODEL],
        lookback_days=plan.lookback_days,
        resamples=args.resamples,
        seed=plan.seed,
    )
    baselines = [method.name for method in methods if method.name not in (*artifacts, ALONE)]
    champion = CHAMPION if CHAMPION in artifacts else None
    scratch = SCRATCH if SCRATCH in artifacts else None
    # What all do, or nobody: no method is better at saying it.
    not_judged = labels_of_one_answer(rows.test)
    comparison = comparison.without_tasks(not_judged)
    rule = replace(RULE, heads=tuple(head for head in RULE.heads if head.task not in not_judged))
    decision = decide(MODEL, champion, baselines, comparison.metrics, comparison.differences, rule, scratch, ALONE)
    # The gate has seen all; people see no group that is too small.
    comparison = comparison.without_small_groups(settings().min_group)
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
            facts_of(plan, candidate, unseen, gains, not_judged),
            costs_of(artifacts, plan),
            settings().min_group,
        )
    )
    with registry.start_run(plan.run_id, "evaluate", {"rule": rule, "rows": len(rows.test)}, plan.tables) as run:
        write(plan, comparison, not_judged, decision, page)
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
    # All that the users of the validation and the test rows did with items; None where the plan names no events.
    history: ItemHistory | None = None

    @staticmethod
    def read(plan: TrainingPlan, most_users: int, most_rows: int) -> "Rows":
        """Return the rows of the pinned table.

        Args:
            plan: of the run.
            most_users: in each part at most.
            most_rows: training rows at most, where those of `most_users` are fewer; with what baselines read alone.
        """
        table = Table("examples", plan.tables["examples"])
        learning = max(most_users, most_rows // len(plan.train))
        valid, test = (read_frame(table, days, most_users=most_users) for days in (plan.valid, plan.test))
        history = None
        if "events" in plan.tables:
            users = {*valid["user_id"], *test["user_id"]}
            history = ItemHistory.read(Table("events", plan.tables["events"]), users, max(plan.test))
        return Rows(read_frame(table, plan.train, LEARNT, learning), valid, test, history)


def answers(
    artifacts: Mapping[str, "Artifact"], rows: Rows, seed: int, min_group: int
) -> tuple[list[Scores], list[Gain]]:
    """Return what each model, and then each baseline, says of the test rows, and what the candidate gains by trees.

    The candidate becomes a stack where that gains. Of gains, on its card too, numbers of fewer than `min_group` users
    are left out.
    """
    train, valid, test = rows.train, rows.valid, rows.test
    candidate = artifacts[MODEL]
    categories = candidate.category_ids
    trees = BoostedTrees(seed=seed)
    log.info("baseline: %s", trees.name)
    trees.fit(train, valid, categories)
    alone, gains = Said.by(candidate, rows), list[Gain]()
    said = alone
    if "epsilon" not in candidate.card:
        candidate.stack, gains = fit_stack(trees.trees, alone.valid.categories, binary(alone.valid), valid, seed)
    gains = [gain.without_small_group(min_group) for gain in gains]
    for gain in gains:
        log.info("stack: %s", gain)
    if candidate.stack is not None:
        said = alone.stacked(candidate.stack, rows)
        answered = said.valid.answers
        candidate.card = {
            **candidate.card,
            "stack": {**candidate.stack.as_card(), "gains": [str(gain) for gain in gains]},
            "segment_thresholds": segment_thresholds(answered["migrated"], answered["churned"]),
        }
    reach = reach_on(said.valid, categories, valid)
    if reach is not None:
        # A tag of the version too, which model.monitor reads.
        candidate.card = {**candidate.card, "set_coverage": COVERAGE, "set_reach": reach}
    # What the others say is kept no longer than it takes to score it: of many users it takes gigabytes.
    methods = [
        scores(name, said if name == MODEL else Said.by(artifact, rows), artifact.category_ids, rows, categories)
        for name, artifact in artifacts.items()
    ]
    if candidate.stack is not None:
        methods.append(scores(ALONE, alone, categories, rows, categories))
    history = rows.history
    simple = cheap_baselines(history)
    for baseline in (*simple, *([] if history is None else item_methods(history, seed, simple))):
        log.info("baseline: %s", baseline.name)
        methods.append(scores_of(baseline.fit(train, valid, categories), test, valid))
    return [*methods, scores_of(trees, test, valid)], gains


def unseen_shares(candidate: "Artifact", test: pd.DataFrame) -> dict[str, float]:
    """Return the shares of the test rows' events whose item, and whose category, the candidate does not know."""
    return {
        "items unknown": candidate.items.share_unseen(np.concatenate(list(test["item_keys"]))),
        "categories unknown": candidate.categories.share_unseen(np.concatenate(list(test["category_keys"]))),
    }


def facts_of(
    plan: TrainingPlan, candidate: "Artifact", unseen: Mapping[str, float], gains: list[Gain], not_judged: list[str]
) -> dict[str, str]:
    """Return what stands at the top of the report."""
    return {
        "run": plan.run_id,
        "as of": str(plan.as_of),
        "train": f"{plan.train[0]} to {plan.train[-1]}",
        "horizon": f"{plan.horizon_days} days",
        "tables": ", ".join(f"{name} version {version}" for name, version in plan.tables.items()),
        "code": str(candidate.card.get("code", "")),
        **({"privacy": privacy_in_words(candidate.card)} if "epsilon" in candidate.card else {}),
        **{f"stack, {one.answer}": str(one).partition(": ")[2] for one in gains if one.answer not in not_judged},
        **{f"{label}: not judged": "true of all test rows, or of none" for label in not_judged},
        **{name: f"{share:.1%} of the events" for name, share in unseen.items()},
    }


def privacy_in_words(card: Mapping[str, Any]) -> str:
    """Return what the card of a model that was fine-tuned with differential privacy promises, and what it does not."""
    return (
        f"epsilon {card['epsilon']:.2f} at delta {card['delta']:g} for each user, for what fine-tuning has learned; "
        "not for the pretrained encoder, the vocabulary, and the numbers of this page. Epsilons of several models of "
        "the same users add up"
    )


def write(plan: TrainingPlan, comparison: Comparison, not_judged: list[str], decision: Decision, page: str) -> None:
    """Keep what came out in the folder of the run; the decision, which model.promote reads, is last."""
    storage.write_json(
        metrics_file(plan.run_id), {"metrics": comparison.metrics.to_dict("records"), "not_judged": not_judged}
    )
    storage.write_json(differences_file(plan.run_id), {"differences": comparison.differences.to_dict("records")})
    fs, inner = storage.filesystem(report_file(plan.run_id))
    fs.pipe_file(inner, page.encode())
    storage.write_json(
        decision_file(plan.run_id),
        {
            "promote": decision.promote,
            "reasons": decision.reasons,
            "against": decision.against,
            "checks": decision.checks.to_dict("records"),
        },
    )


def register_candidate(plan: TrainingPlan, candidate: "Artifact", registry: Registry, run: TrackedRun) -> int:
    """Make the candidate as it was judged a registered version with the alias `candidate`, and return its number."""
    network = network_folder(plan.run_id, "finetuned" if candidate.card["name"] == "finetuned" else "lora")
    folder = network_folder(plan.run_id, "candidate")
    # What an earlier evaluation has left: it may have been a stack, and this one not.
    storage.remove_files(folder, list(storage.list_files(folder)))
    copy_files(network, folder)
    if candidate.stack is not None:
        candidate.stack.trees.save(storage.join(folder, "trees"))
    candidate.save_card(folder)
    version = registry.register(folder, candidate.card, run)
    registry.set_candidate(version)
    return version


if __name__ == "__main__":
    run_main(main)
