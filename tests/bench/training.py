"""Measure training and scoring, by `--run-id` on a run that was trained, or on rows that are made up.

    python -m tests.bench.training --run-id R [--dates 10]
    MEANDER_LAKE=/tmp/speed python -m tests.bench.training --made-up [--dates 4]

Each part stands beside what one would write by hand: the reader beside pyarrow with tf.data, the loop beside
`keras.Model.fit`, batch prediction beside `model.predict`. All in one process, one after the other, on the same rows of
one pinned table version. Transforms (keys to indices, padding) are part of both readers. Before steps are timed, both
loops train from the same weights on the same batches: the results have to agree.

Rows a second are what a person waits for, on a machine with nothing else to do. The CPU time of a row, user and system,
can be compared on a busy one as well. Page faults say whether freed memory is kept (model/memory.py).

How scoring scales is asked of workers like those of Spark, of one thread each, alone and two at once: what they have to
share, such as the memory's bandwidth, shows as CPU time of a row.
"""

import argparse
import logging
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from datetime import date
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from rich.console import Console
from rich.table import Table as Grid

from lake.places import network_folder
from lake.table import Table
from model.data.features import STATE
from model.data.frames import read_frame
from model.data.input import Input
from model.finetune import examples
from model.network.losses import FinetuneTask
from model.network.network import Finetuned, build
from model.score import load_artifact
from model.training.launch import make_strategy
from model.training.loop import FitConfig, fit
from model.training.plan import TrainingPlan
from model.versions.artifact import Artifact
from tests.bench import made_up_run

log = logging.getLogger(__name__)

BATCH = 256
RATE = 1e-4
ROUNDS = 3  # of each worker that scores
BARRIER_SECONDS = 300  # for the slowest one to compile, or to fail


@dataclass(frozen=True)
class Cost:
    """What some rows took: rows a second; CPU microseconds a row; the system's share of them; page faults a batch."""

    rate: float
    cpu: float
    system: float
    faults: float


def cost(rows: int, work: Callable[[], object]) -> Cost:
    """Return the cost of one run of `work`."""
    began = now()
    work()
    return between(rows, began, now())


Moment = tuple[float, resource.struct_rusage]


def now() -> Moment:
    """Return the time, and what this process has used so far."""
    return time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)


def between(rows: int, began: Moment, ended: Moment) -> Cost:
    """Return the cost of rows that took from one moment to another."""
    user, system, faults = (
        getattr(ended[1], name) - getattr(began[1], name) for name in ("ru_utime", "ru_stime", "ru_minflt")
    )
    cpu = user + system
    return Cost(rows / (ended[0] - began[0]), 1e6 * cpu / rows, system / cpu, faults / (rows / BATCH))


class Plain(keras.Model):
    """The same network and losses, trained by `keras.Model.fit` with the same optimiser."""

    def __init__(self, network: Finetuned):
        super().__init__()
        self.network, self.task = network, FinetuneTask(network)

    def train_step(self, batch):
        with tf.GradientTape() as tape:
            total, weight, _ = self.task.loss(batch, training=True)
            loss = total / weight
        gradients = tape.gradient(loss, self.network.trainable_variables)
        self.optimizer.apply(
            [tf.convert_to_tensor(g) if g is not None else None for g in gradients], self.network.trainable_variables
        )
        return {"loss": loss}


def plain(artifact: Artifact, steps: int) -> Plain:
    """Return the network with random weights and what `fit` here trains it by: AdamW, cosine decay, clipped norm."""
    model = Plain(build(Finetuned, artifact.config))
    rate = keras.optimizers.schedules.CosineDecay(RATE, steps)
    model.compile(optimizer=keras.optimizers.AdamW(rate, weight_decay=0.0, global_clipnorm=1.0))
    return model


def config(epochs: int) -> FitConfig:
    """Return how our loop trains: as `plain`."""
    return FitConfig(BATCH, shards=4, epochs=epochs, learning_rate=RATE)


@dataclass
class Held:
    """Stands in for an `Input` whose batches are in memory already: what is left of a training is the steps."""

    source: Input
    files: list[str] = field(init=False)
    columns: Sequence[str] = field(init=False)
    fields: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.files, self.columns, self.fields = self.source.files, self.source.columns, self.source.fields
        epoch = self.source.epoch(0, BATCH, shards=4)
        self.held, self.counts = list(epoch.batches()), epoch.counts

    def steps(self, _batch: int) -> int:
        return len(self.held)

    def epoch(self, *_: Any) -> SimpleNamespace:
        return SimpleNamespace(batches=lambda: (batch for batch in self.held), counts=self.counts)


def require_equal_training(artifact: Artifact, held: Held) -> None:
    """Train an epoch by our loop and one by `keras.Model.fit`, and compare what became of the weights.

    All weights together: those without a gradient but for rounding, such as the biases of attention keys, AdamW moves
    as far as others, to either side.

    Raises:
        AssertionError: they differ.
    """
    with tempfile.TemporaryDirectory() as folder:
        task = lambda: FinetuneTask(build(Finetuned, artifact.config))  # noqa: E731
        result = fit(task, make_strategy(), held, None, config(1), folder)  # type: ignore[arg-type]
    keras.utils.set_random_seed(0)  # as the loop does: the same initial weights and dropout
    theirs = plain(artifact, len(held.held))
    start = flat(theirs.network)
    arrays = {name: np.concatenate([batch[name] for batch in held.held]) for name in held.held[0]}
    data = tf.data.Dataset.from_tensor_slices(arrays).batch(BATCH)
    theirs.fit(data, epochs=1, verbose=0, shuffle=False)
    after = flat(theirs.network)
    apart = np.linalg.norm(flat(result.task.model) - after) / np.linalg.norm(after - start)
    log.info("after %d steps, weights are apart by %.3f %% of how far they moved", len(held.held), 100 * apart)
    assert apart < 0.02, (
        f"our loop and keras.Model.fit trained differently: weights are apart by {apart:.2%} of the way"
    )


def flat(network: Any) -> Any:
    """Return all weights that are trained as one vector."""
    return np.concatenate([np.ravel(weight) for weight in network.trainable_variables])


def by_hand(plan, artifact, days, labels):
    """Read the days with pyarrow, transform them, and give them to tf.data."""
    rows = read_frame(Table("examples", plan.tables["examples"]), days, artifact.features.columns(labels=True))
    arrays = artifact.features.labelled(rows) if labels else artifact.features.state(rows)
    arrays["weight"] = np.ones(len(rows), np.float32)
    return tf.data.Dataset.from_tensor_slices(arrays).shuffle(16_384, seed=1).batch(BATCH, drop_remainder=True)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(prog="tests.bench.training", description=__doc__)
    run = parser.add_mutually_exclusive_group(required=True)
    run.add_argument("--run-id", help="a run that model.finetune has finished")
    run.add_argument("--made-up", action="store_true", help="make one up, in a lake that does not exist yet")
    parser.add_argument("--dates", type=int, default=10, help="training dates to use")
    args = parser.parse_args()
    if args.made_up:
        made_up_run.make(args.dates, items=68_000, categories=303, preset="tiny")
    plan = TrainingPlan.load(args.run_id or made_up_run.RUN)
    artifact = Artifact.load(network_folder(plan.run_id, "finetuned"))
    found = training(plan, artifact, plan.train[-args.dates :]) | scoring(plan, artifact, plan.train[-args.dates :])

    grid = Grid("part", "rows/s", "CPU us/row", "system", "faults/batch")
    for name, took in found.items():
        grid.add_row(name, f"{took.rate:,.0f}", f"{took.cpu:,.0f}", f"{took.system:.0%}", f"{took.faults:,.0f}")
    ratios = Grid("ratio", "by time", "by CPU")
    for name, other in COMPARED:
        one, two = found[name], found[other]
        ratios.add_row(f"{name} / {other}", f"{one.rate / two.rate:.2f}", f"{two.cpu / one.cpu:.2f}")
    Console().print(grid, ratios)

    frame = read_frame(Table("examples", plan.tables["examples"]), plan.train[-1:], STATE)
    one, two = (of_workers(number, network_folder(plan.run_id, "finetuned"), frame) for number in (1, 2))
    Console().print(
        f"scoring by workers of one thread: {one:.0f} CPU us/row alone, {two:.0f} two at once: {2 * one / two:.2f}"
    )


# By what one would write by hand.
COMPARED = [
    ("first epoch's reader", "pyarrow + tf.data"),
    ("later epochs' reader", "pyarrow + tf.data"),
    ("step alone", "keras fit, data in memory"),
    ("reader + step", "keras fit, data in memory"),
    ("reader + step, heads phase", "keras fit, data in memory"),
    ("scoring, all outputs", "model.predict, heads alone"),
]


def training(plan: TrainingPlan, artifact: Artifact, days: list[date]) -> dict[str, Cost]:
    """Measure readers and steps. Compiling is a part of none: each runs once before it is measured."""
    frozen = artifact.pretrained.encoder if artifact.pretrained else None
    source = examples(plan, artifact.features, days, frozen)
    rows = source.steps(BATCH) * BATCH
    source.row_groups  # noqa: B018  the footers are read once, outside the measurement
    next(source.once(BATCH).batches())  # so that the frozen encoder is compiled
    found = {}

    def read(epoch: int) -> None:
        for _ in source.epoch(epoch, BATCH, shards=4).batches():
            pass

    def read_by_hand() -> None:
        for _ in by_hand(plan, artifact, days, labels=True):
            pass

    found["first epoch's reader"] = cost(rows, lambda: read(0))
    found["later epochs' reader"] = cost(rows, lambda: read(1))

    held = Held(source)
    require_equal_training(artifact, held)
    for name, rows_from, heads in (
        ("step alone", held, False),
        ("reader + step", source, False),
        ("reader + step, heads phase", source, True),
    ):
        found[name] = loop(artifact, rows_from, rows, name, heads=heads)

    model = plain(artifact, 3 * source.steps(BATCH))
    data = by_hand(plan, artifact, days, labels=True)
    model.fit(data, epochs=1, verbose=0)
    found["keras fit, data in memory"] = cost(2 * rows, lambda: model.fit(data, epochs=2, verbose=0))
    found["pyarrow + tf.data"] = cost(rows, read_by_hand)
    return found


def loop(artifact: Artifact, source: Any, rows: int, name: str, *, heads: bool) -> Cost:
    """Return what the second and third epoch of our loop take; the first one compiles."""
    ends: list[Moment] = []

    def task() -> FinetuneTask:
        network = build(Finetuned, artifact.config)
        network.encoder.trainable = not heads
        return FinetuneTask(network, known_last=heads)

    def note(_step: int, metrics: dict[str, float]) -> None:
        if "epoch" in metrics:
            ends.append(now())

    with tempfile.TemporaryDirectory() as folder:
        result = fit(task, make_strategy(), source, None, config(3), folder, note)
    log.info("%s: waited for data %.1f %% of the time", name, 100 * result.waited / result.seconds)
    return between(2 * rows, ends[0], ends[-1])


def scoring(plan: TrainingPlan, artifact: Artifact, days: list[date]) -> dict[str, Cost]:
    """Measure what scores rows, all outputs of ours and the heads alone by Keras."""
    frame = read_frame(Table("examples", plan.tables["examples"]), days, STATE)
    network = artifact.finetuned
    assert network is not None

    def heads(rows: pd.DataFrame) -> None:
        network.predict(artifact.features.state(rows), batch_size=BATCH, verbose=0)

    for work in (artifact.predict, heads):
        work(frame.head(BATCH))
    return {
        "scoring, all outputs": cost(len(frame), lambda: artifact.predict(frame)),
        "model.predict, heads alone": cost(len(frame), lambda: heads(frame)),
    }


def score_alone(folder: str, frame: pd.DataFrame, begin: Any) -> list[float]:
    """Score rows as a worker of Spark does, and return the CPU microseconds of a row in each round.

    Args:
        folder: of the model.
        frame: the rows.
        begin: a barrier for all workers, before each round: none scores while another one is still compiling.
    """
    artifact = load_artifact(folder)
    artifact.predict(frame.head(BATCH))
    took = []
    for _ in range(ROUNDS):
        begin.wait()
        took.append(cost(len(frame), lambda: artifact.predict(frame)).cpu)
    return took


def of_workers(number: int, folder: str, frame: pd.DataFrame) -> float:
    """Return the CPU microseconds of a row of so many workers at once: of the slowest one, in the best round."""
    with multiprocessing.get_context("spawn").Manager() as shared:
        begin = shared.Barrier(number, timeout=BARRIER_SECONDS)
        with ProcessPoolExecutor(number, multiprocessing.get_context("spawn")) as pool:
            took = list(pool.map(score_alone, [folder] * number, [frame] * number, [begin] * number))
    return min(max(of_round) for of_round in zip(*took, strict=True))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main()
