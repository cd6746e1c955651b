"""Measure training and scoring on a run that model.pretrain and model.finetune have finished.

    python -m tests.bench.training --run-id R [--rows 20000]

Each part stands beside what one would write by hand: the reader beside pyarrow with tf.data, the loop beside
`keras.Model.fit`, batch prediction beside `model.predict`. All in one process, one after the other, on the same rows of
one pinned table version; every number is rows a second. Transforms (keys to indices, padding) are part of both readers.
"""

import argparse
import tempfile
import time
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.table import Table as Grid

from lake import storage
from lake.table import Table
from model.data.features import STATE
from model.data.frames import read_frame
from model.finetune import examples
from model.network.losses import FinetuneTask
from model.network.network import Finetuned, build
from model.training.launch import make_strategy
from model.training.loop import FitConfig, fit
from model.training.plan import TrainingPlan
from model.versions.artifact import Artifact

BATCH = 256


def rate(rows: int, work: Callable[[], object]) -> float:
    """Return rows a second of one run of `work`."""
    began = time.perf_counter()
    work()
    return rows / (time.perf_counter() - began)


class Plain(keras.Model):
    """The same network and losses, trained by `keras.Model.fit`."""

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


def by_hand(plan, artifact, days, labels):
    """Read the days with pyarrow, transform them, and give them to tf.data."""
    rows = read_frame(Table("examples", plan.tables["examples"]), days, artifact.features.columns(labels=True))
    arrays = artifact.features.labelled(rows) if labels else artifact.features.state(rows)
    arrays["weight"] = np.ones(len(rows), np.float32)
    return tf.data.Dataset.from_tensor_slices(arrays).shuffle(16_384, seed=1).batch(BATCH, drop_remainder=True)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(prog="tests.bench.training", description=__doc__)
    parser.add_argument("--run-id", required=True)
    parser.add_argument("--dates", type=int, default=10, help="training dates to use")
    args = parser.parse_args()
    plan = TrainingPlan.load(args.run_id)
    artifact = Artifact.load(storage.join(plan.folder, "finetuned"))
    days = plan.train[-args.dates :]
    source = examples(plan, artifact.features, days)
    rows = source.steps(BATCH) * BATCH
    source.row_groups  # noqa: B018  the footers are read once, outside the measurement
    found: list[tuple[str, float, str, float]] = []

    def read() -> None:
        for _ in source.epoch(0, BATCH, shards=4).dataset():
            pass

    def read_by_hand() -> None:
        for _ in by_hand(plan, artifact, days, labels=True):
            pass

    found.append(("reader", rate(rows, read), "pyarrow + tf.data", rate(rows, read_by_hand)))

    # The step alone: the same batch again and again. The first call compiles and is not measured.
    task = FinetuneTask(build(Finetuned, artifact.config))
    variables = task.model.trainable_variables
    optimizer = keras.optimizers.AdamW(1e-4)
    optimizer.build(variables)
    batch = next(iter(source.epoch(0, BATCH, shards=4).dataset()))

    @tf.function
    def step(batch):
        with tf.GradientTape() as tape:
            total, weight, _ = task.loss(batch, training=True)
            loss = total / weight
        gradients = tape.gradient(loss, variables)
        optimizer.apply([tf.convert_to_tensor(g) if g is not None else None for g in gradients], variables)
        return loss

    step(batch)
    steps = source.steps(BATCH)
    alone = rate(rows, lambda: [step(batch) for _ in range(steps)][-1].numpy())

    def loop(epochs: int):
        with tempfile.TemporaryDirectory() as folder:
            config = FitConfig(BATCH, shards=4, epochs=epochs, learning_rate=1e-4)
            return fit(
                lambda: FinetuneTask(build(Finetuned, artifact.config)), make_strategy(), source, None, config, folder
            )

    result = loop(2)
    both = 2 * rows / result.seconds

    plain = Plain(build(Finetuned, artifact.config))
    plain.compile(optimizer=keras.optimizers.AdamW(1e-4))
    data = by_hand(plan, artifact, days, labels=True)
    plain.fit(data, epochs=1, verbose=0)
    by_fit = rate(rows, lambda: plain.fit(data, epochs=1, verbose=0))
    found.append(("step alone", alone, "", float("nan")))
    found.append(("reader + step", both, "keras fit, data in memory", by_fit))

    frame = read_frame(Table("examples", plan.tables["examples"]), days, STATE)
    artifact.predict(frame.head(1))
    scored = rate(len(frame), lambda: artifact.predict(frame))
    network = artifact.finetuned
    state = artifact.features.state(frame)
    network.predict({name: value[:BATCH] for name, value in state.items()}, batch_size=BATCH, verbose=0)
    predicted = rate(len(frame), lambda: network.predict(artifact.features.state(frame), batch_size=BATCH, verbose=0))
    found.append(("scoring, all outputs", scored, "model.predict, heads alone", predicted))

    grid = Grid("part", "rows/s", "beside", "rows/s", "ratio")
    for name, ours, other, theirs in found:
        ratio = "-" if np.isnan(theirs) else f"{ours / theirs:.2f}"
        grid.add_row(name, f"{ours:,.0f}", other, "-" if np.isnan(theirs) else f"{theirs:,.0f}", ratio)
    out = Console()
    out.print(grid)
    out.print(
        f"{rows:,} rows, batch {BATCH}; the step waited for data {result.waited / result.seconds:.0%} of the time"
    )


if __name__ == "__main__":
    main()
