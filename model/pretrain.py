"""Pretrain the encoder on the event sequences of all users: what comes next, at every position.

Reads   interests    the dates that model.prepare chose, one pinned version
Writes  <lake>/_models/<run>/pretrained/, checkpoints, and an MLflow run

No label is used. When model.prepare found a champion, its weights are where this starts.
"""

import sys
from typing import Any

from lake.errors import run_main
from lake.places import checkpoints_folder, network_folder
from lake.table import Table
from model.data.features import SEQUENCE, Features
from model.data.input import Input
from model.network.losses import PretrainTask
from model.network.network import PRESETS, Pretrained, build, grow, network_config, start_with_popularity
from model.training import launch
from model.training.common import Cost, fit_config, is_chief, report, tracked, training_parser, vocabularies
from model.training.loop import fit
from model.training.plan import Plan
from model.versions import registry
from model.versions.artifact import Artifact

LEAST_STEPS = 600


def main(argv: list[str] | None = None) -> None:
    """Train, here or in several workers, and keep the result."""
    parser = training_parser("model.pretrain", __doc__)
    parser.add_argument("--preset", default="tiny", choices=sorted(PRESETS), help="size of the network")
    parser.add_argument(
        "--epochs", type=int, metavar="N", help=f"passes over the sequences; default: for {LEAST_STEPS} steps"
    )
    args = parser.parse_args(argv)
    plan = Plan.load(args.run_id)
    if args.workers > 1 and not launch.in_worker():
        launch.launch("model.pretrain", sys.argv[1:] if argv is None else argv, args.workers, args.launcher)
        return
    strategy = launch.make_strategy()
    items, categories = vocabularies(plan)
    config = network_config(args.preset, items.size, categories.size)
    features = Features(items, categories, config.events, config.profile, config.next_items)
    source = Input.of_table(
        Table("interests", plan.tables["interests"]),
        plan.pretrain,
        list(SEQUENCE),
        features.sequence,
        features.sequence_fields(),
    )
    how = fit_config(args.preset, args, plan, source.rows, args.epochs, LEAST_STEPS)
    old = None if plan.warm_start is None else Artifact.load(registry.artifact_folder(plan.warm_start)).pretrained

    def task() -> PretrainTask:
        network = build(Pretrained, config)
        start_with_popularity(network, items, categories)
        if old is not None:
            grow(network, old)
        return PretrainTask(network)

    params = {"preset": args.preset, "network": config, "fit": how, "warm_start": plan.warm_start}
    with tracked(plan, "pretrain", params) as run:
        result = fit(
            task,
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
        network = build(Pretrained, config)
        network.set_weights(result.task.model.get_weights())
        card: dict[str, Any] = {
            "run_id": plan.run_id,
            "preset": args.preset,
            "tables": plan.tables,
            "cost": vars(Cost.of(result)),
            "history": result.history,
        }
        Artifact(card, config, items, categories, pretrained=network).save(network_folder(plan.run_id, "pretrained"))


if __name__ == "__main__":
    run_main(main)
