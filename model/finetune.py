"""Fine-tune a pretrained encoder on labelled examples: heads first, then the encoder too.

What is kept is of the phase with the lower validation loss.

Reads   examples    the training and validation dates of the plan, one pinned version
Writes  <lake>/_models/<run>/finetuned/ (or scratch/, lora/), checkpoints, and an MLflow run

    --start scratch   the same network with the same number of steps, from random weights: what pretraining has to beat
    --adapter lora    instead of the whole encoder, train low-rank adapters in it: the cheap option
"""

import argparse
import logging
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from lake.errors import run_main
from lake.places import checkpoints_folder, network_folder
from lake.settings import settings
from lake.table import Table
from model.arrays import Array
from model.data.features import STATE, Features
from model.data.frames import read_frame
from model.data.input import Input
from model.network.losses import FinetuneTask
from model.network.network import (
    Finetuned,
    NetworkConfig,
    adapt,
    build,
    start_from,
    start_with_popularity,
    start_with_scalars,
)
from model.training import launch
from model.training.common import Cost, Tracked, fit_config, is_chief, launched, report, tracked, training_parser
from model.training.loop import FitConfig, FitResult, fit
from model.training.plan import TrainingPlan
from model.versions.artifact import Artifact
from model.versions.registry import Registry, provenance
from model.versions.segments import segment_thresholds

log = logging.getLogger(__name__)

MIN_STEPS = 200  # of each phase
MAX_USERS = 20_000  # whose rows give the numbers of the card, and the start of the binary answers
START_DATES = 4  # whose rows say where the binary answers begin: users at neighbouring dates are nearly the same
# Learning rate of the second phase, as a share of the first: it adjusts pretrained weights and should not destroy them.
SECOND_RATE = 0.5


def main(argv: list[str] | None = None) -> None:
    """Train the phases, here or in several workers, and keep the result."""
    parser = training_parser("model.finetune", __doc__)
    parser.add_argument(
        "--start", default="pretrained", choices=["pretrained", "scratch"], help="weights to start from"
    )
    parser.add_argument("--adapter", default="none", choices=["none", "lora"], help="what of the encoder is trained")
    parser.add_argument(
        "--epochs", type=int, metavar="N", help=f"passes of each of the two phases; default: for {MIN_STEPS} steps"
    )
    args = parser.parse_args(argv)
    plan = TrainingPlan.load(args.run_id)
    if launched("model.finetune", argv, args):
        return
    registry = Registry.of(settings())
    strategy = launch.make_strategy(args.workers)
    base = Artifact.load(network_folder(plan.run_id, "pretrained"))
    name = "scratch" if args.start == "scratch" else "lora" if args.adapter == "lora" else "finetuned"
    train, valid = (examples(plan, base.features, days) for days in (plan.train, plan.valid))
    phases = phases_of(name, base.card["preset"], args, plan, train.rows)
    params = {"preset": base.card["preset"], "network": base.config, "start": args.start, "adapter": args.adapter}
    with tracked(registry, plan, name, params) as run:
        best, results = fit_phases(plan, base, name, args.start, phases, strategy, train, valid, run)
    log.info("%s: kept what phase %r ended with", name, best.phase)
    if is_chief():
        keep(plan, base, name, best, results)


@dataclass(frozen=True)
class Best:
    """The phase with the lowest validation loss, and the network that it ended with."""

    phase: str
    network: Finetuned


def fit_phases(
    plan: TrainingPlan,
    base: Artifact,
    name: str,
    start: str,
    phases: dict[str, FitConfig],
    strategy: Any,
    train: Input,
    valid: Input,
    run: Tracked,
) -> tuple[Best, dict[str, FitResult]]:
    """Train the phases, each from where the one before has ended.

    Args:
        plan: of the run.
        base: what was pretrained.
        name: of what comes out.
        start: `pretrained` or `scratch`.
        phases: how each is trained.
        strategy: of TensorFlow.
        train: labelled rows to learn from.
        valid: those that decide which epoch and which phase is best.
        run: where the numbers of each step go.

    Returns:
        the best phase, and the result of each.
    """
    begin = first_answers(plan, base.features)
    results: dict[str, FitResult] = {}
    best: Best | None = None
    weights: list[Array] | None = None
    for phase, config in phases.items():
        run.log_params({f"fit.{phase}": config})
        results[phase] = fit(
            task_of(base, start, phase, weights, begin),
            strategy,
            train,
            valid,
            config,
            checkpoints_folder(plan.run_id, f"{name}-{phase}"),
            after(sum(result.steps for result in results.values()), run),
            {"tables": plan.tables, "network": str(base.config), "start": start, "before": list(results)},
        )
        report(f"{name}, {phase}", results[phase])
        network = plain(base.config, results[phase].task.model)
        weights = network.get_weights()
        # On a small log the second phase may learn users by heart from its first pass on.
        if best is None or results[phase].best_metric < results[best.phase].best_metric:
            best = Best(phase, network)
    assert best is not None
    return best, results


def after(steps: int, run: Tracked) -> Callable[[int, Mapping[str, float]], None]:
    """Return what keeps the numbers of a phase's step, counted on from the steps of the phases before."""

    def log_metrics(step: int, metrics: Mapping[str, float]) -> None:
        run.log_metrics(steps + step, metrics)

    return log_metrics


def first_answers(plan: TrainingPlan, features: Features) -> dict[str, Array]:
    """Return the arrays of the newest training rows, which say where the binary answers begin."""
    table = Table("examples", plan.tables["examples"])
    recent = read_frame(table, plan.train[-START_DATES:], features.columns(labels=True), most_users=MAX_USERS)
    return features.labelled(recent)


def phases_of(name: str, preset: str, args: argparse.Namespace, plan: TrainingPlan, rows: int) -> dict[str, FitConfig]:
    """Return how each phase trains: heads, then the encoder too at a lower rate; from scratch, as many steps in one."""
    heads = fit_config(preset, args, plan, rows, args.epochs, MIN_STEPS)
    # Of many passes over a small log the later ones may do harm.
    heads = replace(heads, metric="next_category_loss", patience=3)
    if name == "scratch":
        return {"all": replace(heads, epochs=2 * heads.epochs)}
    return {"heads": heads, name: replace(heads, learning_rate=SECOND_RATE * heads.learning_rate)}


def examples(plan: TrainingPlan, features: Features, days: list[date]) -> Input:
    """Return the labelled rows of some dates."""
    table = Table("examples", plan.tables["examples"])
    return Input.of_table(table, days, features.columns(labels=True), features.labelled, features.fields(labels=True))


def task_of(
    base: Artifact, start: str, phase: str, weights: list[Array] | None, begin: dict[str, Array]
) -> Callable[[], FinetuneTask]:
    """Return what makes the task of a phase, with the weights that the phase before has left.

    The first one begins with what is popular and with what `begin`, arrays of labelled rows, say of the binary answers.
    """

    def task() -> FinetuneTask:
        network = build(Finetuned, base.config)
        if weights is not None:
            network.set_weights(weights)
        else:
            start_with_popularity(network, base.items, base.categories)
            start_with_scalars(network, begin["scalars"], begin)
            if start == "pretrained" and base.pretrained is not None:
                start_from(network, base.pretrained)
        if phase == "heads":
            network.encoder.trainable = False
        elif phase != "all":
            # They have had their passes over the same users; the encoder teaches them nothing.
            for layer in network.binary_layers:
                layer.trainable = False
        if phase == "lora":
            adapt(network.encoder)
        return FinetuneTask(network)

    return task


def plain(config: NetworkConfig, network: Finetuned) -> Finetuned:
    """Return a network of this process alone with the same weights; adapters are merged into what they adapt."""
    merged: Finetuned = build(Finetuned, config)
    with tempfile.TemporaryDirectory() as folder:
        # Saving merges adapters (keras.layers.Dense.save_own_variables), and leaves the strategy behind.
        file = Path(folder, "network.weights.h5")
        network.save_weights(file)
        merged.load_weights(file)
    return merged


def keep(plan: TrainingPlan, base: Artifact, name: str, best: Best, results: dict[str, FitResult]) -> None:
    """Write the network of the best phase with its card: what it was made from, and the numbers that its use needs."""
    artifact = Artifact(
        {}, base.config, base.items, base.categories, finetuned=best.network, pretrained=base.pretrained
    )
    if name == "scratch":
        artifact.pretrained = None
    # Of the validation rows: the training rows would look safer and less surprising than new ones do.
    rows = read_frame(Table("examples", plan.tables["examples"]), plan.valid, STATE, most_users=MAX_USERS)
    prediction = artifact.predict(rows)
    surprise = prediction.surprise[~np.isnan(prediction.surprise)]
    quantiles = np.quantile(surprise, np.linspace(0, 1, 101)) if len(surprise) else np.zeros(101)
    artifact.card = {
        "name": name,
        **{key: value for key, value in asdict(plan).items() if key not in ("tables",)},
        "tables": plan.tables,
        "preset": base.card["preset"],
        "surprise_quantiles": [round(float(value), 6) for value in quantiles],
        "segment_thresholds": segment_thresholds(prediction.answers["migrated"], prediction.answers["churned"]),
        "unseen": {
            "item_id": base.items.share_unseen(np.concatenate(list(rows["item_keys"]))),
            "category_id": base.categories.share_unseen(np.concatenate(list(rows["category_keys"]))),
        },
        "cost": {phase: vars(Cost.of(result)) for phase, result in results.items()},
        "kept": best.phase,
        "history": {phase: result.history for phase, result in results.items()},
        **provenance(),
    }
    artifact.save(network_folder(plan.run_id, name))


if __name__ == "__main__":
    run_main(main)
