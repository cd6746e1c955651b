"""The training loop in one process; several workers are in test_launch_hosts.py."""

import math
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from lake.errors import TrainingDiverged
from model.data.input import Input
from model.training import checkpoint as checkpoints
from model.training import loop
from model.training.loop import FitConfig, FitResult, fit, rate_at
from tests.model.tiny_rows import source, write
from tests.model.tiny_task import TinyTask, config

pytestmark = pytest.mark.tf


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> Input:
    return source(write(tmp_path_factory.mktemp("train"), [[200, 20], [], [7], [100]]), shuffle_rows=64)


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> Input:
    return source(write(tmp_path_factory.mktemp("valid"), [[50]]))


@pytest.fixture
def run(train: Input, valid: Input, tmp_path: Path) -> Any:
    def start(task: Any = TinyTask, folder: str = "checkpoint", **options: Any) -> FitResult:
        log = options.pop("log", lambda *_: None)
        identity = options.pop("identity", None)
        judge = options.pop("valid", valid)
        where = str(tmp_path / folder)
        return fit(task, tf.distribute.get_strategy(), train, judge, config(**options), where, log, identity)

    start.folder = str(tmp_path)
    return start


class Died(Exception):
    """Stands for the end of a process in the middle of an epoch."""


def test_the_rate_rises_in_a_line_and_falls_along_a_cosine():
    plan = FitConfig(global_batch=1, learning_rate=0.1, warmup_steps=10)
    rates = [rate_at(step, plan, 110) for step in range(111)]
    assert rates[0] == pytest.approx(0.01)
    assert rates[9] == rates[10] == pytest.approx(0.1)
    assert rates[60] == pytest.approx(0.05)
    assert rates[110] == pytest.approx(0)
    assert rates == sorted(rates[:10]) + sorted(rates[10:], reverse=True)
    assert rate_at(0, FitConfig(global_batch=1, learning_rate=0.1), 10) == pytest.approx(0.1)


def test_a_training_learns_and_says_what_it_did(run):
    said = []
    result = run(log=lambda step, metrics: said.append((step, metrics)))
    losses = [epoch["loss"] for epoch in result.history]
    assert losses[-1] < losses[0] / 2
    assert (result.steps, result.epochs) == (30, 3)
    assert [(c.total, c.used, c.skipped) for c in result.counts] == [(327, 320, 7)] * 3
    steps = [step for step, metrics in said if "loss" in metrics]
    assert steps[0] == 4  # a checkpoint fetches the numbers too, so that it holds the sums of the epoch so far
    assert [metrics["epoch"] for _, metrics in said if "epoch" in metrics] == [0, 1, 2]
    assert result.history[0]["valid_loss"] == result.history[0]["valid_square"]


def test_a_validation_counts_each_row_once(run, valid):
    result = run(epochs=1)
    rows = {name: np.concatenate([b[name] for b in valid.once(50).batches()]) for name in ("items", "x", "y")}
    predicted = result.task.model.predict([rows["items"], rows["x"]], verbose=0)[:, 0]
    # 50 rows in global batches of 32: 14 rows are there twice.
    assert result.best_metric == pytest.approx(np.mean((predicted - rows["y"]) ** 2), rel=1e-5)


def test_each_epoch_takes_the_rows_in_another_order(run):
    class Counted(TinyTask):
        """Its metric is the mean of the rows' ids: of 327 rows another seven are left out in each epoch."""

        def loss(self, batch, training):
            loss, weight, _ = super().loss(batch, training)
            ids = keras.ops.cast(batch["id"], "float32")
            return loss, weight, {"id": (keras.ops.sum(ids * batch["weight"]), weight)}

    seen = [epoch["id"] for epoch in run(Counted, valid=None).history]
    assert len(set(seen)) == 3
    # Those of 0 to 326 have a mean of 163, whichever few are left out.
    assert seen == pytest.approx([163] * 3, abs=3.5)


def test_a_training_that_died_ends_where_an_undisturbed_one_does(run):
    # Dropout is on: its seeds are part of the checkpoint.
    undisturbed = run(folder="undisturbed", log_every=1)
    # Between two checkpoints of the first epoch, at its end, and in the middle of the second.
    for dies_after in (5, 10, 16):

        def die(step: int, metrics: dict[str, float], dies_after: int = dies_after) -> None:
            if step >= dies_after:
                raise Died

        folder = f"dies after {dies_after}"
        with pytest.raises(Died):
            run(folder=folder, log=die, log_every=1)
        resumed = run(folder=folder, log_every=1)
        assert resumed.checksum == undisturbed.checksum
        assert resumed.history == undisturbed.history
        assert resumed.counts[0].used < 320


def test_a_training_that_is_done_is_not_done_again(run):
    first = run()
    again = run()
    assert again.checksum == first.checksum
    assert again.counts == []
    assert again.best_metric == first.best_metric


def test_the_checkpoint_of_another_training_is_not_resumed(run, caplog):
    run(epochs=1)
    for change in ({"learning_rate": 0.01}, {"seed": 4}, {"identity": {"examples": 2}}):
        caplog.clear()
        result = run(epochs=1, **change)
        assert "a checkpoint of another training: starting anew" in caplog.text
        assert len(result.counts) == 1


def test_the_best_weights_are_kept_and_patience_ends_a_training(run):
    # Far too high a rate: the validation gets worse and better as it likes.
    result = run(epochs=30, learning_rate=0.8, patience=2, clip_norm=0.0)
    judged = [epoch["valid_loss"] for epoch in result.history]
    assert result.best_metric == min(judged)
    assert result.best_epoch == judged.index(min(judged))
    assert result.epochs == len(judged) < 30
    assert result.epochs - 1 - result.best_epoch == 2
    found = checkpoints.load(run.folder + "/checkpoint")
    kept = [variable.numpy() for variable in result.task.model.variables]
    np.testing.assert_equal(kept, [found.arrays[f"best/{i}"] for i in range(len(kept))])
    assert not np.array_equal(kept[0], found.arrays["now/0"])
    assert run(epochs=30, learning_rate=0.8, patience=2, clip_norm=0.0).checksum == result.checksum


def test_without_validation_the_last_weights_stay(run):
    result = run(valid=None, epochs=2)
    assert math.isnan(result.best_metric)
    assert (result.best_epoch, result.epochs) == (1, 2)


def test_frozen_weights_stay_as_they_are(run):
    class Frozen(TinyTask):
        def __init__(self) -> None:
            super().__init__()
            table = next(layer for layer in self.model.layers if isinstance(layer, keras.layers.Embedding))
            table.trainable = False
            self.before = table.get_weights()[0]
            self.table = table

    result = run(Frozen)
    np.testing.assert_array_equal(result.task.table.get_weights()[0], result.task.before)
    assert result.history[-1]["loss"] < result.history[0]["loss"]


def test_weights_of_one_dimension_do_not_decay(run):
    class Still(TinyTask):
        """Its loss has no gradient: whatever changes is decay."""

        def loss(self, batch, training):
            loss, weight, _ = super().loss(batch, training)
            return loss * 0, weight, {}

    before = {}

    class Seen(Still):
        def __init__(self) -> None:
            super().__init__()
            for variable in self.model.trainable_variables:
                variable.assign(np.ones(variable.shape))
                before[variable.path] = variable.numpy()

    result = run(Seen, weight_decay=0.5, valid=None)
    for variable in result.task.model.trainable_variables:
        assert np.array_equal(variable.numpy(), before[variable.path]) == (len(variable.shape) == 1)


def test_a_variable_is_changed_as_by_the_optimiser_of_keras():
    random = np.random.default_rng(5)
    start = [random.normal(size=shape) for shape in ((6, 3), (4,))]
    changed = []
    for kind in (keras.optimizers.AdamW, loop._AdamW):
        variables = [keras.Variable(value, dtype="float32") for value in start]
        optimizer = kind(0.1, weight_decay=0.2)
        optimizer.exclude_from_weight_decay(var_list=variables[1:])
        optimizer.build(variables)
        draws = np.random.default_rng(6)
        for step in range(4):
            optimizer.learning_rate = 0.1 / (1 + step)
            optimizer.apply([tf.constant(draws.normal(size=v.shape), tf.float32) for v in variables], variables)
        # Its moments, too, go into checkpoints.
        changed.append([np.asarray(value) for value in (*variables, *optimizer.variables)])
    theirs, ours = changed
    assert not np.allclose(ours[0], start[0], atol=0.05)
    for one, other in zip(theirs, ours, strict=True):
        np.testing.assert_allclose(other, one, rtol=3e-5, atol=1e-6)


def test_a_gradient_is_clipped_by_its_global_norm(run):
    # With clipping to next to nothing Adam's denominator is what remains: nothing is learned.
    still = run(folder="a", clip_norm=1e-12, valid=None, weight_decay=0.0)
    free = run(folder="b", clip_norm=0.0, valid=None, weight_decay=0.0)
    assert still.history[-1]["loss"] > free.history[-1]["loss"] * 2
    assert "gradient_norm" in still.history[0]
    assert "gradient_norm" not in free.history[0]


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        pytest.param(0.0, (1.2, 1.6), id="no limit"),
        pytest.param(0.5, (0.3, 0.4), id="above the limit"),
        pytest.param(3.0, (1.2, 1.6), id="the sum is above the limit, the mean is not"),
    ],
)
def test_gradients_are_the_mean_over_the_rows_and_then_clipped(limit, expected):
    # Sums over five rows, of norm 10; the mean has norm 2.
    sums = [tf.constant([[6.0, 0.0]]), tf.constant([8.0], tf.float64)]
    (one, other), norm = loop._averaged(sums, tf.constant(5.0), limit)
    assert (one.dtype, other.dtype, norm.dtype) == (tf.float32, tf.float64, tf.float32)
    assert float(norm) == pytest.approx(2)
    np.testing.assert_allclose(one, [[expected[0], 0]], rtol=1e-6)
    np.testing.assert_allclose(other, [expected[1]], rtol=1e-6)


def test_compiled_and_in_half_precision_it_learns_much_the_same(run):
    def task() -> TinyTask:
        return TinyTask(dropout=0.0)  # XLA draws other numbers

    plain = run(task, folder="a")
    compiled = run(task, folder="b", jit_compile=True)
    assert [e["loss"] for e in compiled.history] == pytest.approx([e["loss"] for e in plain.history], rel=1e-3)
    half = run(task, folder="c", precision="mixed_bfloat16")
    assert [e["loss"] for e in half.history] == pytest.approx([e["loss"] for e in plain.history], rel=0.1)
    assert {variable.dtype for variable in half.task.model.trainable_variables} == {"float32"}
    assert keras.config.dtype_policy().name == "float32"


def test_a_loss_that_is_no_number_ends_the_training(run):
    class Broken(TinyTask):
        def loss(self, batch, training):
            loss, weight, metrics = super().loss(batch, training)
            return loss / 0.0, weight, metrics

    with pytest.raises(TrainingDiverged, match="lower learning_rate"):
        run(Broken)


def test_what_cannot_be_trained_is_refused(run):
    with pytest.raises(ValueError, match=r"metric must be one of .*'square'.*, got 'accuracy'"):
        run(metric="accuracy")
