"""Measure what differential privacy costs in quality: fine-tune a pretrained encoder with several levels of noise.

    python -m tests.bench.privacy --run-id R [--noise 0.5 1 2 4] [--batch 128] [--adapter lora] [--heads]

Needs a run that `model.pretrain` and `model.finetune` have been through; its networks stay as they are. Each level
trains both phases, of which the last is kept, and is measured on the validation dates, as no training has seen them;
the row without noise is what `model.finetune` has kept. Results that exist are printed anew: delete the folders
`privacy-*` below `checkpoints/` of the run for other ones.
"""

import argparse
import logging

from rich.console import Console
from rich.table import Table as Grid

from lake.places import network_folder
from model.data.users import UserDraws
from model.finetune import examples, fit_phases, phases_of, spent_by
from model.training.common import Tracked
from model.training.launch import make_strategy
from model.training.plan import TrainingPlan
from model.training.private import Privacy
from model.versions.artifact import Artifact

METRICS = {
    "next_category_loss": "loss of the next category",
    "recall_at_5": "Recall@5",
    "recall_at_5_migrated": "of migrated users",
    "churned_loss": "loss of churn",
    "purchased_loss": "loss of purchase",
}


class Nowhere(Tracked):
    """Keeps no numbers."""

    def log_metrics(self, step, metrics):
        pass

    def log_params(self, params):
        pass


def measured(epoch: dict[str, float]) -> list[str]:
    """Return the numbers of the validation after an epoch."""
    return [f"{epoch[f'valid_{name}']:.3f}" for name in METRICS]


def main() -> None:
    """Print one row for each level of noise."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run-id", required=True, metavar="R")
    parser.add_argument("--noise", type=float, nargs="+", default=[0.5, 1.0, 2.0, 4.0], metavar="Z")
    parser.add_argument("--clip", type=float, default=1.0, metavar="C")
    parser.add_argument("--delta", type=float, default=1e-5, metavar="D")
    parser.add_argument("--adapter", default="none", choices=["none", "lora"])
    parser.add_argument("--batch", type=int, default=128, metavar="N", help="users of a step on average")
    parser.add_argument("--epochs", type=int, metavar="N", help="of each of the two phases; default: for 200 steps")
    parser.add_argument("--heads", action="store_true", help="the first phase alone, which is much faster")
    args = parser.parse_args()
    args.learning_rate, args.workers, args.jit = None, 1, False
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")

    plan, strategy = TrainingPlan.load(args.run_id), make_strategy()
    base = Artifact.load(network_folder(plan.run_id, "pretrained"))
    assert base.pretrained is not None
    train = examples(plan, base.features, plan.train, base.pretrained.encoder, own=True)
    valid = examples(plan, base.features, plan.valid, base.pretrained.encoder)
    drawn = UserDraws(train)
    name = "lora" if args.adapter == "lora" else "finetuned"
    grid = Grid("noise", "epsilon", "kept", *METRICS.values())
    plain = Artifact.load(network_folder(plan.run_id, "finetuned")).card
    best = min(plain["history"][plain["kept"]], key=lambda epoch: epoch["valid_next_category_loss"])
    grid.add_row("none", "-", plain["kept"], *measured(best))
    for noise in args.noise:
        phases = phases_of(name, base.card["preset"], args, plan, drawn.users, Privacy(args.clip, noise))
        if args.heads:
            phases = {"heads": phases["heads"]}
        spent = spent_by(phases, drawn, args.delta)
        label = f"privacy-{name}-{noise}"
        _, results = fit_phases(plan, base, label, "pretrained", phases, strategy, drawn, valid, Nowhere())
        for phase, result in results.items():
            # What was spent up to the end of this phase.
            done = dict(list(phases.items())[: list(phases).index(phase) + 1])
            of = spent_by(done, drawn, args.delta)
            row = f"{noise:g}", f"{of.epsilon:.2f}", phase, *measured(result.history[-1])
            logging.info(" | ".join(row))
            grid.add_row(*row)
        logging.info("noise %g, %d users, rate %.4f, %d steps", noise, spent.users, spent.rate, spent.steps)
    Console(width=160).print(grid)


if __name__ == "__main__":
    main()
