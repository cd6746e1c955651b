"""What pretraining and fine-tuning have in common: arguments, input, workers, and where results go."""

import argparse
import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

from lake.errors import SettingsInvalid
from lake.places import vocabulary_folder
from model.data.vocabulary import Vocabulary
from model.network.network import PRESETS
from model.training import launch
from model.training.loop import FitConfig, FitResult
from model.training.plan import TrainingPlan
from model.versions.registry import Registry

log = logging.getLogger(__name__)

# The peak rate of each preset, for its batch; wider networks bear less.
FIT: dict[str, FitConfig] = {
    "tiny": FitConfig(global_batch=128, shards=4, learning_rate=2e-3, weight_decay=0.01),
    "base": FitConfig(global_batch=512, shards=8, learning_rate=5e-4, weight_decay=0.01, checkpoint_every=500),
    "large": FitConfig(global_batch=1024, shards=16, learning_rate=2e-4, weight_decay=0.01, checkpoint_every=500),
}

# Arrays of a training are kept for its later epochs up to this size, in a file of each worker below TMPDIR: of `tiny`
# some 800,000 examples. More rows are read anew in each epoch, of which a large log needs few.
KEEP_BYTES = 8 << 30

# Steps that a pass over the rows should at least have, and the smallest batch that is chosen for it.
STEPS_OF_A_PASS = 64
MIN_BATCH = 32


def training_parser(prog: str, doc: str | None) -> argparse.ArgumentParser:
    """Return a parser with what every training takes."""
    parser = argparse.ArgumentParser(prog=prog, description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run-id", required=True, metavar="R", help="the run that model.prepare has planned")
    parser.add_argument("--batch", type=int, metavar="N", help="rows of a step over all workers; default: the preset's")
    parser.add_argument("--learning-rate", type=float, metavar="X", help="the highest; default: the preset's")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="replicas that share each batch")
    parser.add_argument(
        "--launcher",
        default="process",
        choices=["process", "spark"],
        help="all in this process, or each on a machine of its own, in Spark barrier tasks",
    )
    parser.add_argument("--jit", action="store_true", help="compile the step by XLA")
    return parser


def launched(module: str, argv: list[str] | None, args: argparse.Namespace) -> bool:
    """Start the workers of a training on Spark and wait for them, unless this process is one, or is to train alone.

    Args:
        module: of the command.
        argv: its arguments; None for those of this process.
        args: the same, parsed.

    Returns:
        whether all is done; if not, it is for this process to train.
    """
    if args.launcher == "process" or args.workers <= 1 or launch.in_worker():
        return False
    launch.launch(module, sys.argv[1:] if argv is None else argv, args.workers)
    return True


def fit_config(
    preset: str, args: argparse.Namespace, plan: TrainingPlan, rows: int, epochs: int | None, least_steps: int
) -> FitConfig:
    """Return how to train: the preset's way, with what the arguments change.

    A small log gets a smaller batch and more passes than a large one, so that the optimizer takes enough steps.

    Args:
        preset: names the network.
        args: of `training_parser`.
        plan: of the run.
        rows: to train on.
        epochs: passes over them; None for as many as `least_steps` need.
        least_steps: when `epochs` is None.

    Raises:
        SettingsInvalid: the preset is unknown, or the workers do not divide the batch.
    """
    if preset not in PRESETS:
        raise SettingsInvalid(f"--preset must be one of {', '.join(PRESETS)}; received {preset!r}")
    config = FIT[preset]
    shards = max(config.shards, args.workers)
    batch = args.batch or max(MIN_BATCH, min(config.global_batch, power_of_two(rows // STEPS_OF_A_PASS)))
    batch = min(batch, power_of_two(rows))
    if batch % shards or shards % args.workers:
        raise SettingsInvalid(
            f"--workers {args.workers} has to divide {shards} shards, and these the batch of {batch} rows (of {rows} "
            "in all); give another --workers or --batch"
        )
    if epochs is None:
        epochs = -(-least_steps // max(rows // batch, 1))
    steps = epochs * (rows // batch)
    return replace(
        config,
        global_batch=batch,
        shards=shards,
        epochs=epochs,
        learning_rate=args.learning_rate or config.learning_rate,
        warmup_steps=min(200, steps // 5),
        seed=plan.seed,
        precision=PRESETS[preset].get("policy", "float32"),
        jit_compile=args.jit,
    )


def power_of_two(number: int) -> int:
    """Return the largest power of two that is not above a number, 1 at least.

    >>> [power_of_two(n) for n in (0, 1, 3, 64, 100)]
    [1, 1, 2, 64, 64]
    """
    return 1 << (max(number, 1).bit_length() - 1)


def vocabularies(plan: TrainingPlan) -> tuple[Vocabulary, Vocabulary]:
    """Return the vocabularies of items and categories that model.prepare built."""
    folder = vocabulary_folder(plan.run_id)
    return Vocabulary.load(folder, "item_id"), Vocabulary.load(folder, "category_id")


def is_chief() -> bool:
    """Tell whether this process writes results: the first worker, or the only process."""
    return int(json.loads(os.environ.get("TF_CONFIG", "{}")).get("task", {}).get("index", 0)) == 0


class Tracked(Protocol):
    """Where the parameters and numbers of a training go."""

    def log_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Keep the numbers of a step."""

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Keep settings."""


class _Silent:
    """Stands in for the MLflow run on all workers but the first."""

    def log_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        pass

    def log_params(self, params: Mapping[str, Any]) -> None:
        pass


@contextmanager
def tracked(registry: Registry, plan: TrainingPlan, kind: str, params: Mapping[str, Any]) -> Iterator[Tracked]:
    """Open the MLflow run of this training on the chief; elsewhere something that keeps nothing."""
    if not is_chief():
        yield _Silent()
        return
    with registry.start_run(plan.run_id, kind, params, plan.tables) as run:
        yield run


@dataclass(frozen=True)
class Cost:
    """What a training took, for the card and for people."""

    seconds: float
    waited: float
    steps: int
    rows: int

    @staticmethod
    def of(result: FitResult) -> "Cost":
        """Return the cost of the part of a training that this process ran."""
        used = sum(count.used for count in result.counts)
        return Cost(round(result.seconds, 1), round(result.waited, 1), result.steps, used)


def report(kind: str, result: FitResult) -> None:
    """Say how a training ended; the checksum has to be the same on all workers."""
    cost = Cost.of(result)
    log.info(
        "%s: %d steps in %.0f s, %.0f rows/s, %.0f %% of the time waiting for data; best epoch %d, metric %.4f",
        kind,
        cost.steps,
        cost.seconds,
        cost.rows / max(cost.seconds, 1e-9),
        100 * cost.waited / max(cost.seconds, 1e-9),
        result.best_epoch,
        result.best_metric,
    )
    log.info("%s: checksum of the weights %s", kind, result.checksum)
