"""Training with differential privacy: what a user changes is bounded, noise hides it, and nothing else is used."""

import json
import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from dags.local.standalone import HANGS_SECONDS
from lake.errors import SettingsInvalid
from model.data.users import UserDraws
from model.training import checkpoint as checkpoints
from model.training import loop
from model.training.loop import fit
from model.training.private import Privacy, Spent, clipped_sum, noisy
from tests.model.tiny_rows import source, write
from tests.model.tiny_task import TinyTask, config

pytestmark = pytest.mark.tf

REPO = Path(__file__).resolve().parents[3]
KEY = "5ec12e7" * 4


def write_users(folder):
    """Write the rows of 64 users, five or six each, and return the paths."""
    paths = write(folder, [[200, 120], [7]])
    for path in paths:
        table = pq.read_table(path, partitioning=None)
        names = [f"u{id_ % 64}" for id_ in table["id"].to_pylist()]
        pq.write_table(table.append_column("user_id", [names]), path, row_group_size=200)
    return paths


@pytest.fixture(scope="module")
def train(tmp_path_factory):
    return UserDraws(source(write_users(tmp_path_factory.mktemp("train")), keep_bytes=1 << 30))


@pytest.fixture(scope="module")
def valid(tmp_path_factory):
    return source(write(tmp_path_factory.mktemp("valid"), [[50]]))


@pytest.fixture
def run(train, valid, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "new_key", lambda: KEY)

    def start(task=TinyTask, folder="checkpoint", **options):
        log = options.pop("log", lambda *_: None)
        strategy = options.pop("strategy", None) or tf.distribute.get_strategy()
        options = {"privacy": Privacy(0.5, 0.8), "global_batch": 16, **options}
        return fit(task, strategy, train, valid, config(**options), str(tmp_path / folder), log)

    start.folder = str(tmp_path)
    return start


def rows(draws, count):
    draws.fill()
    arrays = {name: values[:count] for name, values in draws.source.kept.arrays.items()}
    return arrays | {"weight": np.ones(count, np.float32)}


@pytest.fixture(scope="module")
def summed(train):
    """Return what sums the clipped gradients of a batch, and what gives the gradient of some rows, as one vector."""
    keras.utils.set_random_seed(1)
    task = TinyTask(dropout=0.0)
    variables = task.model.trainable_variables

    def gradients_of(batch):
        with tf.GradientTape() as tape:
            loss, _, _ = task.loss(batch, training=True)
        return [tf.convert_to_tensor(g) for g in tape.gradient(loss, [v.value for v in variables])], loss

    def vector(parts):
        return np.concatenate([np.asarray(part).reshape(-1) for part in parts]).astype(np.float64)

    @tf.function(autograph=False)
    def total(batch, clip_norm):
        return clipped_sum(gradients_of, batch, variables, clip_norm)

    def of_batch(batch, clip_norm=0.5):
        parts, sums = total({name: tf.constant(values) for name, values in batch.items()}, tf.constant(clip_norm))
        return vector(parts), {name: [float(x) for x in pair] for name, pair in sums.items()}

    return of_batch, lambda batch: vector(gradients_of(batch)[0])


def test_each_users_gradient_is_clipped_alone_and_all_are_added_up(train, summed):
    of_batch, gradient = summed
    batch = rows(train, 12)
    # Those without weight are empty places, wherever they are: they count nothing.
    batch["weight"][[0, 5, 11]] = 0
    real = np.flatnonzero(batch["weight"])
    alone = [gradient({name: values[i : i + 1] for name, values in batch.items()}) for i in real]
    norms = np.array([np.linalg.norm(one) for one in alone])
    # Four of the nine are too long.
    limit = float((np.sort(norms)[4] + np.sort(norms)[5]) / 2)
    expected = sum(one * min(1, limit / norm) for one, norm in zip(alone, norms, strict=True))
    total, sums = of_batch(batch, limit)
    np.testing.assert_allclose(total, expected, rtol=1e-4, atol=1e-4 * limit)
    assert sums["clipped"] == [4, 9]
    assert sums["loss"][1] == 9


def test_a_user_more_changes_the_sum_by_the_clip_at_most(train, summed):
    of_batch, _ = summed
    batch = rows(train, 6)
    batch["y"][3] = 1e6  # one who is like nobody else
    without = {**batch, "weight": np.array([1, 1, 1, 0, 1, 1], np.float32)}
    more, less = (of_batch(each)[0] for each in (batch, without))
    assert np.linalg.norm(more - less) == pytest.approx(0.5, rel=1e-3)


def test_nobody_drawn_is_a_sum_of_nothing(train, summed):
    batch = rows(train, 6) | {"weight": np.zeros(6, np.float32)}
    total, sums = summed[0](batch)
    assert not total.any()
    assert sums == {"loss": [0, 0], "clipped": [0, 0]}


def test_noise_is_normal_in_each_number_and_another_in_each_step():
    zeros = [tf.zeros((300, 40)), tf.zeros((8000,))]
    once, same, other = (
        [p.numpy() for p in noisy(zeros, 3.0, tf.constant(s, tf.int64))] for s in ([1, 2], [1, 2], [1, 3])
    )
    for part, again, elsewhere in zip(once, same, other, strict=True):
        assert np.array_equal(part, again)
        assert abs(np.corrcoef(part.reshape(-1), elsewhere.reshape(-1))[0, 1]) < 0.06
        # Standard errors are 0.03 for the mean and 0.024 for the deviation.
        assert part.mean() == pytest.approx(0, abs=0.2)
        assert part.std() == pytest.approx(3.0, abs=0.15)
    assert abs(np.corrcoef(once[0].reshape(-1)[:8000], once[1])[0, 1]) < 0.06


class Still(TinyTask):
    """Its loss has no gradient: whatever changes is noise."""

    def loss(self, batch, training):
        loss, weight, metrics = super().loss(batch, training)
        return loss * 0, weight, metrics


def test_the_noise_of_a_step_is_that_of_the_clip_over_the_users_of_a_step(train, tmp_path, monkeypatch):
    """Steps of plain descent add up their noise: 8 of them with z C / B = 0.8 * 0.5 / 16 each."""

    class Descent(loop._AdamW):
        def apply(self, gradients, variables):
            for gradient, variable in zip(gradients, variables, strict=True):
                variable.assign_sub(gradient)

    monkeypatch.setattr(loop, "_AdamW", Descent)
    started = {}

    class Seen(Still):
        def __init__(self):
            super().__init__()
            started["at"] = [v.numpy() for v in self.model.trainable_variables]

    how = config(privacy=Privacy(0.5, 0.8), global_batch=16, epochs=2, weight_decay=0.0)
    result = fit(Seen, tf.distribute.get_strategy(), train, None, how, str(tmp_path / "checkpoint"))
    assert result.steps == 8
    moved = np.concatenate(
        [
            (now.numpy() - before).reshape(-1)
            for now, before in zip(result.task.model.trainable_variables, started["at"], strict=True)
        ]
    )
    # 117 numbers: a standard error of 7 %.
    assert moved.std() == pytest.approx(0.8 * 0.5 / 16 * math.sqrt(8), rel=0.3)


def test_it_learns_without_noise_and_less_with_much(run):
    quiet = run(folder="quiet", privacy=Privacy(5.0, 1e-3), epochs=8)
    losses = [epoch["valid_loss"] for epoch in quiet.history]
    assert losses[-1] < losses[0] / 2
    loud = run(folder="loud", privacy=Privacy(5.0, 50.0), epochs=8)
    assert loud.history[-1]["valid_loss"] > 2 * losses[-1]
    assert set(quiet.history[0]) == {"loss", "clipped", "valid_loss", "valid_square"}


def test_no_validation_decides(run):
    # So much noise that the validation gets worse.
    result = run(privacy=Privacy(5.0, 50.0), epochs=6, patience=1)
    judged = [epoch["valid_loss"] for epoch in result.history]
    assert result.epochs == 6
    assert min(judged) < judged[-1]
    assert result.best_epoch == 5
    assert result.best_metric == judged[-1]
    found = checkpoints.load(run.folder + "/checkpoint")
    assert not [name for name in found.arrays if name.startswith("best/")]
    weights = [variable.numpy() for variable in result.task.model.variables]
    np.testing.assert_equal(weights, [found.arrays[f"now/{i}"] for i in range(len(weights))])


class Died(Exception):
    """Stands for the end of a process in the middle of an epoch."""


def test_one_that_died_ends_where_an_undisturbed_one_does_and_forgets_its_key(run, monkeypatch):
    undisturbed = run(folder="undisturbed", log_every=1, checkpoint_every=3)
    assert undisturbed.steps == 12
    for dies_after in (1, 4, 7):

        def die(step, metrics, dies_after=dies_after):
            if step >= dies_after:
                raise Died

        folder = f"dies after {dies_after}"
        with pytest.raises(Died):
            run(folder=folder, log=die, log_every=1, checkpoint_every=3)
        assert checkpoints.load(f"{run.folder}/{folder}").state["key"] == KEY
        with monkeypatch.context() as patch:
            # The key of the checkpoint counts, also where no step was saved yet.
            patch.setattr(loop, "new_key", lambda: "f" * 32)
            resumed = run(folder=folder, log_every=1, checkpoint_every=3)
        assert resumed.checksum == undisturbed.checksum
        assert resumed.history == undisturbed.history
        assert checkpoints.load(f"{run.folder}/{folder}").state["key"] == ""


def test_another_key_is_another_training(run, monkeypatch):
    one = run(folder="one", epochs=1)
    monkeypatch.undo()
    keys = {loop.new_key() for _ in range(20)}
    assert len(keys) == 20
    assert all(len(key) == 32 for key in keys)
    other = run(folder="other", epochs=1)
    assert other.checksum != one.checksum


def test_two_replicas_train_what_one_does(tmp_path):
    # Each has some of those who take part, and both add the same noise to the sum of all.
    write_users(tmp_path / "train")
    command = [sys.executable, "-m", "tests.model.private_replicas", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPO, timeout=HANGS_SECONDS)
    assert done.returncode == 0, done.stderr
    one, two = (json.loads(line[7:]) for line in done.stdout.splitlines() if line.startswith("RESULT "))
    assert (one["replicas"], two["replicas"]) == (1, 2)
    for mine, yours in zip(one["history"], two["history"], strict=True):
        assert mine == pytest.approx(yours, rel=1e-6)  # sums of losses are single precision
    for mine, yours in zip(one["weights"], two["weights"], strict=True):
        np.testing.assert_allclose(mine, yours, rtol=0, atol=1e-9)


def test_several_processes_are_refused(train, tmp_path):
    spec = SimpleNamespace(as_dict=lambda: {"worker": ["a:1", "b:1"]})
    resolver = SimpleNamespace(cluster_spec=lambda: spec, task_id=0)
    strategy = SimpleNamespace(cluster_resolver=resolver, num_replicas_in_sync=2)
    with pytest.raises(SettingsInvalid, match="needs one process, which alone knows the key of its noise, got 2"):
        fit(TinyTask, strategy, train, None, config(privacy=Privacy(1, 1)), str(tmp_path))


def test_what_cannot_keep_the_promise_is_refused(run, train, valid, tmp_path, monkeypatch):
    for name, values in (("--dp-noise", (1.0, 0.0)), ("--dp-noise", (1.0, math.nan)), ("--dp-clip", (-1.0, 1.0))):
        with pytest.raises(SettingsInvalid, match=f"{name} must be a number above 0"):
            Privacy(*values)
    with pytest.raises(SettingsInvalid, match="leave out --jit"):
        run(jit_compile=True)
    with pytest.raises(ValueError, match="train must be UserDraws if and only if"):
        run(privacy=None)
    with pytest.raises(ValueError, match="train must be UserDraws if and only if"):
        fit(TinyTask, tf.distribute.get_strategy(), valid, None, config(privacy=Privacy(1, 1)), str(tmp_path))


def test_a_training_that_cannot_say_its_epsilon_fails():
    spent = Spent.of(Privacy(0.5, 1.0), 0.03, 400, 1000, 1e-5)
    assert spent.epsilon == pytest.approx(4.326181816292603, rel=1e-4)  # as in test_accountant.py
    assert (spent.clip_norm, spent.noise, spent.rate, spent.steps, spent.users) == (0.5, 1.0, 0.03, 400, 1000)
    for delta in (0.0, 1e-3, 0.5):
        with pytest.raises(SettingsInvalid, match=f"--dp-delta must be above 0 and below 1/1000.*got {delta}"):
            Spent.of(Privacy(0.5, 1.0), 0.03, 400, 1000, delta)
    with pytest.raises(SettingsInvalid, match="no finite epsilon is known for this training"):
        Spent.of(Privacy(0.5, 1e-3), 0.03, 400, 1000, 1e-5)
