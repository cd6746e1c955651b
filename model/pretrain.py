"""Pretrain the encoder on the event sequences of all users: what comes next, at every position.

Reads   interests    the dates that model.prepare chose, one pinned version
Writes  <lake>/_models/<run>/pretrained/, checkpoints, and an MLflow run

No label is used. When model.prepare found a champion, its weights are where this starts.
"""

from collections.abc import Callable

from lake.errors import run_main
from lake.places import checkpoints_folder, network_folder
from lake.settings import settings
from lake.table import Table
from model.data.features import SEQUENCE, Features
from model.data.input import Input
from model.data.vocabulary import Vocabulary
from model.network.losses import PretrainTask
from model.network.network import PRESETS, NetworkConfig, Pretrained, build, grow, network_config, start_with_popularity
from model.training import launch
from model.training.common import (
    KEEP_BYTES,
    Cost,
    fit_config,
    is_chief,
    launched,
    report,
    tracked,
    training_parser,
    vocabularies,
)
from model.training.loop import FitResult, fit
from model.training.plan import TrainingPlan
from model.versions.artifact import Artifact
from model.versions.registry import Registry

MIN_STEPS = 600


def main(argv: list[str] | None = None) -> None:
    """Train, here or in several workers, and keep the result."""
    parser = training_parser("model.pretrain", __doc__)
    parser.add_argument("--preset", default="tiny", choices=sorted(PRESETS), help="size of the network")
    parser.add_argument(
        "--epochs", type=int, metavar="N", help=f"passes over the sequences; default: for {MIN_STEPS} steps"
    )
    args = parser.parse_args(argv)
    plan = TrainingPlan.load(args.run_id)
    if launched("model.pretrain", argv, args):
        return
    registry = Registry.of(settings())
    strategy = launch.make_strategy(args.workers)
    items, categories = vocabularies(plan)
    config = network_config(args.preset, items.size, categories.size)
    artifact = Artifact({"sequence_length": plan.sequence_length}, config, items, categories)
    source = sequences(plan, artifact.features)
    how = fit_config(args.preset, args, plan, source.rows, args.epochs, MIN_STEPS)
    params = {"preset": args.preset, "network": config, "fit": how, "warm_start": plan.warm_start}
    with tracked(registry, plan, "pretrain", params) as run:
        result = fit(
            task_of(plan, config, items, categories, registry),
            strategy,
            source,
            None,
            how,
            checkpoints_folder(plan.run_id, "pretrain"),
            run.log_metrics,
            {"tables": plan.tables, "network": str(config), "warm_start": plan.warm_start},
        )
    report("pretrain", result)
    if is_chief():
        keep(plan, args.preset, artifact, result)


def sequences(plan: TrainingPlan, features: Features) -> Input:
    """Return the events of all users at the dates for pretraining."""
    return Input.of_table(
        Table("interests", plan.tables["interests"]),
        plan.pretrain,
        list(SEQUENCE),
        features.sequence,
        features.sequence_fields(),
        keep_bytes=KEEP_BYTES,
    )


def task_of(
    plan: TrainingPlan, config: NetworkConfig, items: Vocabulary, categories: Vocabulary, registry: Registry
) -> Callable[[], PretrainTask]:
    """Return what makes the task: a network that begins with what is popular, or as the champion where there is one."""
    old = None if plan.warm_start is None else Artifact.load(registry.artifact_folder(plan.warm_start)).pretrained

    def task() -> PretrainTask:
        network = build(Pretrained, config)
        start_with_popularity(network, items, categories)
        if old is not None:
            grow(network, old)
        return PretrainTask(network)

    return task


def keep(plan: TrainingPlan, preset: str, artifact: Artifact, result: FitResult) -> None:
    """Write the network with its card."""
    artifact.pretrained = build(Pretrained, artifact.config)
    artifact.pretrained.set_weights(result.task.model.get_weights())
    artifact.card |= {
        "run_id": plan.run_id,
        "preset": preset,
        "tables": plan.tables,
        "cost": vars(Cost.of(result)),
        "history": result.history,
    }
    artifact.save(network_folder(plan.run_id, "pretrained"))


if __name__ == "__main__":
    run_main(main)
