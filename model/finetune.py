"""Fine-tune a pretrained encoder on labelled examples: heads first, then the encoder too.

In the first phase the encoder is frozen and says of a row always the same: that is computed once.
What is kept is of the phase with the lower validation loss.

Reads   examples    the training and validation dates of the plan, one pinned version
Writes  <lake>/_models/<run>/finetuned/ (or scratch/, lora/), checkpoints, and an MLflow run

    --start scratch   the same network from random weights: what pretraining has to beat. It may take as many steps as
                      pretraining and both phases together, and stops, as they do, by the validation loss; with
                      --dp-noise as many as both phases
    --adapter lora    instead of the whole encoder, train low-rank adapters in it: the cheap option
    --dp-noise Z      differential privacy for each user: each step takes one row of each user who is drawn, clips its
                      gradient, and adds noise. The last phase is kept, whatever the validation says, and the card
                      tells epsilon. It holds for what is learned here: not for the pretrained encoder, the vocabulary,
                      or the numbers of card and report
"""

import argparse
import logging
import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lake.errors import run_main
from lake.places import checkpoints_folder, network_folder
from lake.settings import settings
from lake.table import Table
from model.arrays import Array
from model.data.features import PROFILE, STATE, Features, pad
from model.data.frames import read_frame
from model.data.habits import FADING, likeliest_habits
from model.data.input import Input
from model.data.own_labels import COLUMNS as OWN_COLUMNS
from model.data.own_labels import own_labels
from model.data.users import UserDraws
from model.network import tf
from model.network.losses import ANSWERS_LOSS, AnswersTask, FinetuneTask
from model.network.network import (
    Encoder,
    Finetuned,
    NetworkConfig,
    adapt,
    build,
    start_from,
    start_with_popularity,
    start_with_scalars,
)
from model.training import launch
from model.training.common import (
    KEEP_BYTES,
    Cost,
    Tracked,
    fit_config,
    is_chief,
    launched,
    report,
    tracked,
    training_parser,
)
from model.training.loop import FitConfig, FitResult, fit
from model.training.plan import TrainingPlan
from model.training.private import Privacy, Spent
from model.versions.artifact import Artifact
from model.versions.registry import Registry, provenance
from model.versions.segments import segment_thresholds

log = logging.getLogger(__name__)

MIN_STEPS = 200  # of each phase
MAX_USERS = 20_000  # whose rows give the numbers of the card, and the start of the binary answers
START_DATES = 4  # whose rows say where the binary answers begin: users at neighbouring dates are nearly the same
# Learning rate of the second phase, as a share of the first: it adjusts pretrained weights and should not destroy them.
SECOND_RATE = 0.5
# The last phase, of the binary answers alone: its passes, as a multiple of those of another phase, and its learning
# rate as a share of the first. A pass costs a small part of another one.
ANSWERS, ANSWER_PASSES, ANSWER_RATE = "answers", 6, 0.5
STATES_AT_ONCE = 256  # rows of which the frozen encoder's last state is computed together


def main(argv: list[str] | None = None) -> None:
    """Train the phases, here or in several workers, and keep the result."""
    parser = training_parser("model.finetune", __doc__)
    parser.add_argument(
        "--start", default="pretrained", choices=["pretrained", "scratch"], help="weights to start from"
    )
    parser.add_argument("--adapter", default="none", choices=["none", "lora"], help="what of the encoder is trained")
    parser.add_argument(
        "--epochs",
        type=int,
        metavar="N",
        help=f"passes of each of the two phases; default: for {MIN_STEPS} steps. From scratch both are one phase, with "
        "as many passes more as pretraining had steps, but not with --dp-noise",
    )
    parser.add_argument(
        "--dp-noise",
        type=float,
        default=0.0,
        metavar="Z",
        help="standard deviation of the noise, as a multiple of --dp-clip; default: 0, no differential privacy",
    )
    parser.add_argument(
        "--dp-clip", type=float, default=1.0, metavar="C", help="greatest norm of what one user adds to a gradient"
    )
    parser.add_argument(
        "--dp-delta",
        type=float,
        default=1e-5,
        metavar="D",
        help="chance that epsilon does not hold; below one in the number of users",
    )
    args = parser.parse_args(argv)
    privacy = Privacy(args.dp_clip, args.dp_noise) if args.dp_noise else None
    plan = TrainingPlan.load(args.run_id)
    if launched("model.finetune", argv, args):
        return
    registry = Registry.of(settings())
    strategy = launch.make_strategy(args.workers)
    base = Artifact.load(network_folder(plan.run_id, "pretrained"))
    if privacy is None:
        # With differential privacy no number may be computed from the rows as they are.
        base = replace(base, config=replace(base.config, habits=first_habits(plan, base.features)))
        log.info("how much the history, the fading one, the lookback and the week say: %s", base.config.habits)
    name = "scratch" if args.start == "scratch" else "lora" if args.adapter == "lora" else "finetuned"
    frozen = base.pretrained.encoder if args.start == "pretrained" and base.pretrained else None
    train = examples(plan, base.features, plan.train, frozen, own=privacy is not None)
    valid = examples(plan, base.features, plan.valid, frozen)
    drawn = UserDraws(train) if privacy else None
    rows, before = drawn.users if drawn else train.rows, base.card.get("cost", {}).get("steps", 0)
    phases = phases_of(name, base.card["preset"], args, plan, rows, privacy, pretrained_steps=before)
    spent = spent_by(phases, drawn, args.dp_delta) if drawn else None
    if spent:
        log.info("%s: epsilon %.2f at delta %g for each of %d users", name, spent.epsilon, spent.delta, spent.users)
    params = {"preset": base.card["preset"], "network": base.config, "start": args.start, "adapter": args.adapter}
    params["habits"] = base.config.habits
    with tracked(registry, plan, name, params) as run:
        best, results = fit_phases(plan, base, name, args.start, phases, strategy, drawn or train, valid, run)
    log.info("%s: kept what phase %r ended with", name, best.phase)
    if is_chief():
        keep(plan, base, name, best, results, spent)


@dataclass(frozen=True)
class Best:
    """What is kept of a training.

    Attributes:
        phase: the one with the lowest validation loss.
        network: which it ended with.
        answers: whether the binary answers are those of the last phase, which teaches them alone.
    """

    phase: str
    network: Finetuned
    answers: bool = False


def fit_phases(
    plan: TrainingPlan,
    base: Artifact,
    name: str,
    start: str,
    phases: dict[str, FitConfig],
    strategy: Any,
    train: Input | UserDraws,
    valid: Input,
    run: Tracked,
) -> tuple[Best, dict[str, FitResult]]:
    """Train the phases, each from where the one before has ended; the binary answers from where the best one has.

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
        the best phase, and the result of each; of a training with differential privacy, the last phase.
    """
    private = isinstance(train, UserDraws)
    begin = None if private else first_answers(plan, base.features)
    results: dict[str, FitResult] = {}
    best: Best | None = None
    weights: list[Array] | None = None
    for phase, config in phases.items():
        run.log_params({f"fit.{phase}": config})
        if phase == ANSWERS and best is not None:
            weights = best.network.get_weights()
        results[phase] = fit(
            task_of(base, start, phase, weights, begin),
            strategy,
            train,
            valid,
            config,
            checkpoints_folder(plan.run_id, f"{name}-{phase}"),
            after(sum(result.steps for result in results.values()), run),
            identity(plan, base, start) | {"before": list(results)},
        )
        report(f"{name}, {phase}", results[phase])
        network = plain(base.config, results[phase].task.model)
        weights = network.get_weights()
        if phase == ANSWERS and best is not None:
            before, now = answers_loss(results[best.phase]), answers_loss(results[phase])
            if now < before:
                best = Best(best.phase, network, answers=True)
            log.info(
                "%s: binary answers of phase %r kept, validation loss %.6f before and %.6f after their own",
                name, phase if best.answers else best.phase, before, now,
            )  # fmt: skip
            continue
        # On a small log the second phase may learn users by heart from its first pass on.
        if best is None or private or results[phase].best_metric < results[best.phase].best_metric:
            best = Best(phase, network)
    assert best is not None
    return best, results


def identity(plan: TrainingPlan, base: Artifact, start: str) -> dict[str, Any]:
    """Return what a checkpoint has to come from. Without habits it is that of a training from before there were any."""
    habits = base.config.habits
    own: dict[str, Any] = {} if habits == FADING else {"habits": habits}
    return {"tables": plan.tables, "network": str(base.config), "start": start, **own}


def answers_loss(result: FitResult) -> float:
    """Return the validation loss of all binary answers together, in the epoch that was kept.

    It is what the phase of these answers chooses its epoch by, and finite also where a label is not known of any row.
    """
    return result.history[result.best_epoch][f"valid_{ANSWERS_LOSS}"]


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


def first_habits(plan: TrainingPlan, features: Features) -> tuple[float, ...]:
    """Return how much interest at each speed says of what comes next, by the newest training rows."""
    return likeliest_habits(*what_came(plan, features))


def what_came(plan: TrainingPlan, features: Features) -> tuple[dict[str, Array], Array, Array]:
    """Return what `likeliest_habits` takes, of the newest training rows."""
    table = Table("examples", plan.tables["examples"])
    wanted = [*PROFILE, "next_category_key"]
    rows = read_frame(table, plan.train[-START_DATES:], wanted, most_users=MAX_USERS)
    top = {name: pad(rows[name], features.profile, kind, keep="first") for name, kind in PROFILE.items()}
    came = rows["next_category_key"].to_numpy(np.int64)
    return top, came, features.usual_shares[features.categories.index(came)]


def phases_of(
    name: str,
    preset: str,
    args: argparse.Namespace,
    plan: TrainingPlan,
    rows: int,
    privacy: Privacy | None = None,
    pretrained_steps: int = 0,
) -> dict[str, FitConfig]:
    """Return how each phase trains: heads, then the encoder too at a lower rate; from scratch, as many steps in one.

    From scratch that is at least as many as pretraining and both phases have together, so that what pretraining gains
    is not what more steps gain. Steps of the champion that pretraining may have started from are not counted. With
    differential privacy it is no more than both phases have: nothing would stop early, and each step costs epsilon.

    Last come the binary answers alone, by their own loss: they need more passes than the next category, of which the
    others stop by what is good for it. With differential privacy they would cost more epsilon, and are left out.

    With `privacy`, `rows` is the number of users, since a pass takes about one row of each.
    """
    heads = replace(fit_config(preset, args, plan, rows, args.epochs, MIN_STEPS), privacy=privacy)
    # Of many passes over a small log the later ones may do harm.
    heads = replace(heads, metric="next_category_loss", patience=3)
    rate, passes = ANSWER_RATE * heads.learning_rate, ANSWER_PASSES * heads.epochs
    last = replace(heads, metric=ANSWERS_LOSS, patience=2, learning_rate=rate, epochs=passes)
    answers = {} if privacy else {ANSWERS: last}
    if name == "scratch":
        passes = 2 * heads.epochs
        if privacy is None:
            passes += math.ceil(pretrained_steps / max(rows // heads.global_batch, 1))
        return {"all": replace(heads, epochs=passes), **answers}
    return {"heads": heads, name: replace(heads, learning_rate=SECOND_RATE * heads.learning_rate), **answers}


def spent_by(phases: dict[str, FitConfig], drawn: UserDraws, delta: float) -> Spent:
    """Return what all steps of all phases spend together; see `Spent.of` for its errors."""
    config = next(iter(phases.values()))
    assert config.privacy is not None
    steps = sum(phase.epochs for phase in phases.values()) * drawn.steps(config.global_batch)
    return Spent.of(config.privacy, drawn.rate(config.global_batch), steps, drawn.users, delta)


def examples(
    plan: TrainingPlan, features: Features, days: list[date], frozen: Encoder | None = None, *, own: bool = False
) -> Input:
    """Return the labelled rows of some dates.

    Args:
        plan: of the run.
        features: what is made of a row.
        days: the dates.
        frozen: an encoder; what it says of the last events is then in the rows as `last`.
        own: whether labels follow from each user's own events alone, as differential privacy needs it.
    """
    table = Table("examples", plan.tables["examples"])
    fields, columns = features.fields(labels=True), features.columns(labels=True)
    states = None if frozen is None else last_states(frozen)
    if frozen is not None:
        fields |= {"last": ("float32", (frozen.config.width,))}
    if own:
        columns = list(dict.fromkeys((*columns, *OWN_COLUMNS)))

    def transform(rows: pd.DataFrame) -> dict[str, Array]:
        arrays = features.labelled(own_labels(rows, features.categories) if own else rows)
        return arrays if states is None else {**arrays, "last": states(arrays)}

    return Input.of_table(table, days, columns, transform, fields, keep_bytes=KEEP_BYTES)


def last_states(encoder: Encoder) -> Callable[[Mapping[str, Array]], Array]:
    """Return what gives the last state of each row, (N, D) float32, of the arrays of N rows, without dropout."""
    last = tf.function(encoder.last, autograph=False)
    names = encoder.embed.fields

    def states(arrays: Mapping[str, Array]) -> Array:
        rows = len(arrays["behavior"])
        found = np.zeros((rows, encoder.config.width), np.float32)
        for at in range(0, rows, STATES_AT_ONCE):
            # Filled up with the first row, so that one compiled function serves all.
            place = np.arange(at, at + STATES_AT_ONCE)
            place = np.where(place < rows, place, at)
            state = last({name: tf.constant(arrays[name][place]) for name in names})
            found[at : at + STATES_AT_ONCE] = tf.cast(state, tf.float32).numpy()[: rows - at]
        return found

    return states


def task_of(
    base: Artifact, start: str, phase: str, weights: list[Array] | None, begin: dict[str, Array] | None
) -> Callable[[], FinetuneTask | AnswersTask]:
    """Return what makes the task of a phase, with the weights that the phase before has left.

    The first one begins with what is popular and with what `begin`, arrays of labelled rows, say of the binary answers;
    with None it begins without, since that would tell of the rows.
    """

    def task() -> FinetuneTask | AnswersTask:
        network = build(Finetuned, base.config)
        if weights is not None:
            network.set_weights(weights)
        else:
            start_with_popularity(network, base.items, base.categories)
            if begin is not None:
                start_with_scalars(network, begin["scalars"], begin)
            if start == "pretrained" and base.pretrained is not None:
                start_from(network, base.pretrained)
        if phase == ANSWERS:
            of_answers = {id(layer) for layer in network.binary_layers}
            for layer in (*network.layers, *network.heads.values()):
                layer.trainable = id(layer) in of_answers
            network.item_bias.trainable = network.category_bias.trainable = False
            return AnswersTask(network)
        if phase == "heads":
            network.encoder.trainable = False
        elif phase != "all":
            # They have had their passes over the same users; the encoder teaches them nothing.
            for layer in network.binary_layers:
                layer.trainable = False
        if phase == "lora":
            adapt(network.encoder)
        frozen = phase == "heads" and start == "pretrained" and base.pretrained is not None
        return FinetuneTask(network, known_last=frozen)

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


def keep(
    plan: TrainingPlan,
    base: Artifact,
    name: str,
    best: Best,
    results: dict[str, FitResult],
    spent: Spent | None = None,
) -> None:
    """Write the network of the best phase with its card: what it was made from, and the numbers that its use needs.

    Of a training with differential privacy also what it has spent: a training that cannot tell is not kept.
    """
    if spent is not None and sum(result.steps for result in results.values()) != spent.steps:
        raise RuntimeError(f"the phases took other steps than the {spent.steps} that epsilon was computed for")
    artifact = Artifact(
        base.card, base.config, base.items, base.categories, finetuned=best.network, pretrained=base.pretrained
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
        # Those that it learnt from. What was pretrained elsewhere may have room for fewer than this lake keeps.
        "sequence_length": base.features.events,
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
        "answers_kept": best.answers,
        "history": {phase: result.history for phase, result in results.items()},
        # Single numbers become tags of the registered version.
        **({} if spent is None else {"epsilon": spent.epsilon, "delta": spent.delta, "privacy": asdict(spent)}),
        **provenance(),
    }
    artifact.save(network_folder(plan.run_id, name))


if __name__ == "__main__":
    run_main(main)
