"""One training loop for one process, several GPUs of a host and several hosts.

The task says what the model and the loss are; the strategy says on how many replicas; the rest is here. What is
optimised does not depend on the number of replicas: each replica sums its losses and weights, both are added up over
all replicas, and the gradient is that of

    sum of losses / sum of weights        over the global batch.

    class Task:
        def __init__(self):
            self.model = keras.Sequential([keras.layers.Dense(1)]); self.model.build((None, 3))
        def loss(self, batch, training):
            error = ops.square(batch["y"] - self.model(batch["x"], training=training)[:, 0])
            loss, weight = ops.sum(error * batch["weight"]), ops.sum(batch["weight"])
            return loss, weight, {"rmse": (loss, weight)}

    result = fit(Task, make_strategy(), train, valid, FitConfig(global_batch=512, epochs=3), "/tmp/run/checkpoint")
    result.task.model, result.best_metric, result.checksum

Own loop, since `keras.Model.fit` of Keras 3 fails under MultiWorkerMirroredStrategy (keras-team/keras#20585) and has no
checkpoint inside an epoch. Optimiser: AdamW (Loshchilov and Hutter, arXiv:1711.05101), weight decay on matrices alone;
linear warm-up, then cosine decay to zero (arXiv:1608.03983); gradients clipped by their global norm (arXiv:1211.5063).

With `privacy`, a batch has one row of each of some users, who are drawn at random, and gradients are those of
model/training/private.py. No validation decides then: nothing but noisy gradients may reach the weights. The key of
draws and noise is secret; a checkpoint has it until the training is done.
"""

import hashlib
import json
import logging
import math
import secrets
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np

from lake.errors import SettingsInvalid, TrainingDiverged
from model.arrays import Array
from model.data.input import Batch, Counts, Epoch, Input
from model.data.users import DrawnEpoch, UserDraws, noise_seed
from model.memory import keep_freed_memory
from model.network import keras, tf
from model.training import checkpoint as checkpoints
from model.training.ahead import ahead
from model.training.private import Privacy, clipped_sum, noisy

log = logging.getLogger("meander")

Sums = dict[str, tuple[Any, Any]]
Structure = TypeVar("Structure")
Log = Callable[[int, dict[str, float]], None]


class Task(Protocol):
    """What is trained.

    Attributes:
        model: a built Keras model; its `trainable_variables` are trained. Make it in `__init__`: the loop calls the
            factory inside the scope of the strategy. Random draws have to come from seed generators of its layers
            (Keras' own do), whose state is saved with the weights.
    """

    model: Any

    def loss(self, batch: dict[str, Any], training: bool) -> tuple[Any, Any, Sums]:
        """Return the sum of the loss, the sum of its weights, and {metric: (sum, weight)}, over a batch.

        Args:
            batch: tensors `(B, ...)` by name; rows with `weight` 0 must not count.
            training: whether dropout and the like are on.
        """
        ...


@dataclass(frozen=True)
class FitConfig:
    """Everything about a training but the task and the data.

    Attributes:
        global_batch: rows of a step over all replicas.
        shards: parts that the data is cut into; a multiple of the number of workers. It changes the batches, the
            number of workers does not.
        epochs: passes over the data at most.
        learning_rate: the highest, reached after `warmup_steps`.
        warmup_steps: steps in which it rises from 0, linearly.
        weight_decay: decoupled from the gradient; on variables with two dimensions or more.
        clip_norm: the greatest global norm of a gradient; 0 for no limit.
        patience: epochs without a better validation metric after which to stop; 0 for never.
        metric: what of the validation decides, `loss` or a metric of the task; lower is better.
        seed: of the shuffling, and of the initial weights and dropout (`keras.utils.set_random_seed`).
        precision: Keras dtype policy, `float32` or `mixed_bfloat16`.
        jit_compile: compile loss and gradients by XLA.
        checkpoint_every: steps from one checkpoint to the next inside an epoch; 0 for the ends of epochs alone.
        log_every: steps from one log line to the next.
        privacy: of each user, or None for a training without. `patience` and `clip_norm` do not count with it.
    """

    global_batch: int
    shards: int = 1
    epochs: int = 1
    learning_rate: float = 1e-3
    warmup_steps: int = 0
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    patience: int = 0
    metric: str = "loss"
    seed: int = 0
    precision: str = "float32"
    jit_compile: bool = False
    checkpoint_every: int = 0
    log_every: int = 50
    privacy: Privacy | None = None


@dataclass
class FitResult:
    """What a training ended with.

    Attributes:
        task: with the best weights in its model, or the last ones where nothing was validated.
        steps: optimiser steps in all, those before a resume included.
        epochs: epochs in all.
        best_epoch: whose weights are in the model, counted from 0.
        best_metric: its validation metric; nan where nothing was validated.
        history: one dict for each epoch: mean training metrics and, as `valid_...`, validation metrics.
        counts: what the reader of this worker counted, one for each epoch of this run.
        checksum: sha256 of the weights in the model; equal on all workers.
        seconds: this run took, without start-up.
        waited: of these, seconds in which the step waited for data.
    """

    task: Any
    steps: int
    epochs: int
    best_epoch: int
    best_metric: float
    history: list[dict[str, float]]
    counts: list[Counts]
    checksum: str
    seconds: float
    waited: float


def rate_at(step: int, config: FitConfig, total: int) -> float:
    """Return the learning rate of a step, counted from 0: linear warm-up, then cosine decay to 0 at `total`.

    >>> config = FitConfig(1, learning_rate=1.0, warmup_steps=4)
    >>> [round(rate_at(step, config, 8), 2) for step in range(9)]
    [0.25, 0.5, 0.75, 1.0, 1.0, 0.85, 0.5, 0.15, 0.0]
    """
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, total - config.warmup_steps)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def checksum(variables: list[Any]) -> str:
    """Return the sha256 of the bytes of variables in their order."""
    digest = hashlib.sha256()
    for variable in variables:
        digest.update(np.ascontiguousarray(_array(variable)).tobytes())
    return digest.hexdigest()


def _array(variable: Any) -> Array:
    return np.asarray(keras.ops.convert_to_numpy(variable))


def fit(
    task_factory: Callable[[], Task],
    strategy: tf.distribute.Strategy,
    train: Input | UserDraws,
    valid: Input | None,
    config: FitConfig,
    checkpoint: str,
    log_metrics: Log = lambda _step, _metrics: None,
    identity: Mapping[str, Any] | None = None,
) -> FitResult:
    """Train until the epochs are over or patience is, and return the task with the best weights.

    Resumes from the checkpoint in the folder when that is of the same training (the same config, files, columns,
    variables and `identity`); a checkpoint of another training is left alone until the first save replaces it.
    The result of a resumed training equals that of an undisturbed one.

    Args:
        task_factory: makes the task; called once, inside the scope of the strategy.
        strategy: of `model.training.launch.make_strategy`.
        train: rows to train on; `UserDraws` if and only if the config has `privacy`.
        valid: rows to validate on after each epoch, or None.
        config: how.
        checkpoint: folder of the checkpoints, seen by all workers; the chief writes.
        log_metrics: called on the chief with (step, {name: value}) every `log_every` steps and after each epoch.
        identity: whatever else makes this training another one, such as table versions.

    Raises:
        InputInvalid: the data cannot be cut as the config asks.
        SettingsInvalid: privacy is asked of several processes, or of XLA.
        TrainingDiverged: the loss is no longer finite.
    """
    return _Loop(task_factory, strategy, train, valid, config, checkpoint, log_metrics, identity or {}).run()


@dataclass
class _Progress:
    """Where a training stands; the part of a checkpoint that is not an array."""

    fingerprint: str
    epoch: int = 0
    step: int = 0  # inside the epoch
    total_steps: int = 0
    best_epoch: int = -1
    best_metric: float = math.inf
    done: bool = False
    history: list[dict[str, float]] = field(default_factory=list)
    sums: dict[str, list[float]] = field(default_factory=dict)  # of the epoch so far
    key: str = ""  # of the draws and the noise of a private training, in hexadecimal; gone when it is done


class _AdamW(keras.optimizers.AdamW):
    """AdamW for gradients that were added up over the replicas already: Keras' own would add them up once more."""

    def _all_reduce_sum_gradients(self, grads_and_vars: Any) -> Any:
        return grads_and_vars

    def _apply_weight_decay(self, variables: Any) -> None:
        """Do nothing: `update_step` does it."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Change a variable as Keras' own does, in two passes over it instead of a dozen: tables of items are large."""
        at = self._get_variable_index(variable)
        if self.weight_decay and self._use_weight_decay(variable):
            kept = 1 - tf.cast(learning_rate, variable.dtype) * tf.cast(self.weight_decay, variable.dtype)
            variable.assign(variable * kept)
        step = tf.cast(self.iterations + 1, variable.dtype)
        # Called once for each replica, whose parts of the moments these handles are.
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[at].value.handle,
            v=self._velocities[at].value.handle,
            beta1_power=tf.pow(tf.cast(self.beta_1, variable.dtype), step),
            beta2_power=tf.pow(tf.cast(self.beta_2, variable.dtype), step),
            lr=tf.cast(learning_rate, variable.dtype),
            beta1=tf.cast(self.beta_1, variable.dtype),
            beta2=tf.cast(self.beta_2, variable.dtype),
            epsilon=tf.cast(self.epsilon, variable.dtype),
            grad=tf.cast(gradient, variable.dtype),
            use_locking=True,
        )


class _Loop:
    def __init__(
        self,
        task_factory: Callable[[], Task],
        strategy: tf.distribute.Strategy,
        train: Input | UserDraws,
        valid: Input | None,
        config: FitConfig,
        checkpoint: str,
        log_metrics: Log,
        identity: Mapping[str, Any],
    ):
        self.strategy, self.train, self.valid = strategy, train, valid
        self.config, self.checkpoint, self.log_metrics = config, checkpoint, log_metrics
        resolver = strategy.cluster_resolver
        spec = resolver.cluster_spec().as_dict() if resolver else {}
        self.workers = max(1, sum(len(hosts) for hosts in spec.values()))
        self.worker = int(resolver.task_id or 0) if self.workers > 1 else 0
        self.chief = self.worker == 0
        self.replicas = strategy.num_replicas_in_sync
        if config.global_batch % self.replicas:
            raise ValueError(
                f"global_batch must be a multiple of the replicas, got {config.global_batch} and {self.replicas}"
            )
        if config.privacy and self.workers > 1:
            raise SettingsInvalid(
                f"differential privacy needs one process, which alone knows the key of its noise, got {self.workers}; "
                "leave out --launcher spark: --workers then says how many replicas the process has"
            )
        if config.privacy and config.jit_compile:
            raise SettingsInvalid(
                "differential privacy goes row by row, which XLA does not make faster; leave out --jit"
            )
        if bool(config.privacy) != isinstance(train, UserDraws):
            raise ValueError("train must be UserDraws if and only if config.privacy is set")
        keras.utils.set_random_seed(config.seed)
        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy(config.precision)
        try:
            with strategy.scope():
                self.task = task_factory()
                self.optimizer = _AdamW(1.0, weight_decay=config.weight_decay, name="adamw")
                self.variables = list(self.task.model.trainable_variables)
                flat = [variable for variable in self.variables if len(variable.shape) < 2]
                self.optimizer.exclude_from_weight_decay(var_list=flat)
                self.optimizer.build(self.variables)
        finally:
            keras.config.set_dtype_policy(before)
        self.steps_per_epoch = train.steps(config.global_batch)
        self.progress = _Progress(self._fingerprint(identity))
        self.best: list[Array] | None = None
        self.train_step = tf.function(self._private_step if config.privacy else self._train_step, autograph=False)
        self.valid_step = tf.function(self._valid_step, autograph=False)
        self.waited = 0.0
        self.counts: list[Counts] = []

    def _fingerprint(self, identity: Mapping[str, Any]) -> str:
        config = {k: v for k, v in asdict(self.config).items() if k not in ("checkpoint_every", "log_every")}
        if self.config.privacy is None:
            del config["privacy"]  # trainings from before there was the option go on
        content = {
            "config": config,
            "data": [
                [source.files, source.columns, {k: [str(d), s] for k, (d, s) in source.fields.items()}]
                for source in (self.train, self.valid)
                if source
            ],
            # No names: Keras counts up those that it makes, so a second model in one process has others.
            "variables": [[list(v.shape), str(v.dtype), v.trainable] for v in self.task.model.variables],
            "identity": dict(identity),
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()

    # --- one step ---

    def _gradients(self, batch: dict[str, Any]) -> tuple[list[Any], Any, Any, Sums]:
        with tf.GradientTape() as tape:
            loss, weight, metrics = self.task.loss(batch, training=True)
            loss = tf.cast(loss, tf.float32)
        gradients = tape.gradient(loss, [variable.value for variable in self.variables])
        # Embeddings give IndexedSlices. Their all-reduce gathers every slice of every replica, and the optimiser visits
        # the whole table anyway (its moments decay), so they are made dense: 4 bytes times the table for each step and
        # replica, which is little beside the work for tables up to some 100 MiB.
        dense = [
            tf.zeros_like(variable.value) if gradient is None else tf.convert_to_tensor(gradient)
            for gradient, variable in zip(gradients, self.variables, strict=True)
        ]
        return dense, loss, weight, metrics

    def _train_step(self, batch: dict[str, Any], rate: Any) -> Sums:
        # XLA compiles what one replica computes; collectives stay outside, since XLA has none on the CPU.
        compute = (
            tf.function(self._gradients, autograph=False, jit_compile=True)
            if self.config.jit_compile
            else self._gradients
        )

        def replica(batch: dict[str, Any]) -> Sums:
            gradients, loss, weight, metrics = compute(batch)
            sums = _with_loss(loss, weight, metrics)
            gradients, sums = _added_up((gradients, sums))
            total = tf.maximum(sums["loss"][1], 1e-12)
            gradients, norm = _averaged(gradients, total, self.config.clip_norm)
            if self.config.clip_norm:
                sums["gradient_norm"] = (norm, tf.ones(()))
            self.optimizer.learning_rate = rate
            self.optimizer.apply(gradients, self.variables)
            return sums

        return self._first(self.strategy.run(replica, args=(batch,)))

    def _private_step(self, batch: dict[str, Any], rate: Any, seed: Any) -> Sums:
        privacy = self.config.privacy
        assert privacy is not None

        def gradients_of(row: dict[str, Any]) -> tuple[list[Any], Any]:
            gradients, loss, _, _ = self._gradients(row)
            return gradients, loss

        def replica(batch: dict[str, Any], seed: Any) -> Sums:
            total, sums = clipped_sum(gradients_of, batch, self.variables, privacy.clip_norm)
            total, sums = _added_up((total, sums))
            total = noisy(total, privacy.noise * privacy.clip_norm, seed)
            self.optimizer.learning_rate = rate
            self.optimizer.apply([part / self.config.global_batch for part in total], self.variables)
            return sums

        return self._first(self.strategy.run(replica, args=(batch, seed)))

    def _valid_step(self, batch: dict[str, Any]) -> Sums:
        def replica(batch: dict[str, Any]) -> Sums:
            sums = _with_loss(*self.task.loss(batch, training=False))
            return _added_up(sums)

        return self._first(self.strategy.run(replica, args=(batch,)))

    def _first(self, sums: Any) -> Sums:
        """Return the value of one local replica: after the all-reduce they are all the same."""
        first: Sums = tf.nest.map_structure(lambda value: self.strategy.experimental_local_results(value)[0], sums)
        return first

    # --- epochs ---

    def run(self) -> FitResult:
        began = time.monotonic()
        keep_freed_memory()
        self._resume()
        progress, config = self.progress, self.config
        total = config.epochs * self.steps_per_epoch
        while not progress.done:
            self._train_epoch(total)
            metrics = _means(progress.sums)
            if self.valid is not None:
                metrics |= {f"valid_{name}": value for name, value in self._validate().items()}
                if config.metric not in {name.removeprefix("valid_") for name in metrics}:
                    raise ValueError(f"metric must be one of {sorted(metrics)}, got {config.metric!r}")
                value = metrics[f"valid_{config.metric}"]
                if config.privacy:
                    progress.best_metric = value  # of the weights that are kept; it decides nothing
                elif value < progress.best_metric:
                    progress.best_metric, progress.best_epoch = value, progress.epoch
                    self.best = [_array(variable) for variable in self.task.model.variables]
            progress.history.append(metrics)
            self._report({f"epoch_{name}": value for name, value in metrics.items()} | {"epoch": progress.epoch})
            progress.epoch, progress.step, progress.sums = progress.epoch + 1, 0, {}
            waiting = progress.epoch - 1 - progress.best_epoch if self.valid is not None and not config.privacy else 0
            progress.done = progress.epoch >= config.epochs or bool(config.patience and waiting >= config.patience)
            if progress.done:
                progress.key = ""
            self._save()
        if self.best is not None:
            _assign(self.task.model.variables, self.best)
        return FitResult(
            task=self.task,
            steps=progress.total_steps,
            epochs=progress.epoch,
            best_epoch=progress.best_epoch if self.best is not None else progress.epoch - 1,
            best_metric=progress.best_metric if progress.best_metric < math.inf else math.nan,
            history=progress.history,
            counts=self.counts,
            checksum=checksum(self.task.model.variables),
            seconds=time.monotonic() - began,
            waited=self.waited,
        )

    def _train_epoch(self, total: int) -> None:
        progress, config = self.progress, self.config
        epoch = self._epoch()
        pending: list[Sums] = []
        with closing(self._fed(epoch)) as batches:
            for batch in batches:
                rate = tf.constant(rate_at(progress.total_steps, config, total), tf.float32)
                seed = [tf.constant(noise_seed(int(progress.key, 16), progress.total_steps))] if config.privacy else []
                pending.append(self.train_step(batch, rate, *seed))
                progress.step += 1
                progress.total_steps += 1
                checkpoint_due = config.checkpoint_every and progress.step % config.checkpoint_every == 0
                if progress.step % config.log_every == 0 or checkpoint_due:
                    self._settle(pending, float(rate))
                if checkpoint_due and progress.step < self.steps_per_epoch:
                    self._save()
        if pending:
            self._settle(pending, float(rate))
        self.counts.append(epoch.counts)

    def _epoch(self) -> Epoch | DrawnEpoch:
        at, config = self.progress, self.config
        if isinstance(self.train, UserDraws):
            return self.train.epoch(at.epoch, config.global_batch, config.shards, int(at.key, 16), at.step)
        return self.train.epoch(
            at.epoch, config.global_batch, config.shards, self.worker, self.workers, config.seed, at.step
        )

    def _settle(self, pending: list[Sums], rate: float) -> None:
        """Fetch the numbers of the steps since the last call: until then the device was not waited for."""
        sums: dict[str, list[float]] = {}
        for step in pending:
            _add(sums, step)
        pending.clear()
        _add(self.progress.sums, sums)
        # With differential privacy, a step may have drawn nobody: then there is nothing to tell.
        means = {name: mean for name, mean in _means(sums).items() if sums[name][1]}
        if not math.isfinite(means.get("loss", 0.0)):
            raise TrainingDiverged(
                f"the loss is {means['loss']} at step {self.progress.total_steps}; lower learning_rate "
                f"({self.config.learning_rate}) or raise warmup_steps ({self.config.warmup_steps})"
            )
        self._report(means | {"learning_rate": rate})

    def _validate(self) -> dict[str, float]:
        assert self.valid is not None
        epoch = self.valid.once(self.config.global_batch, self.config.shards, self.worker, self.workers)
        sums: dict[str, list[float]] = {}
        with closing(self._fed(epoch)) as batches:
            for step in [self.valid_step(batch) for batch in batches]:
                _add(sums, step)
        return _means(sums)

    def _fed(self, epoch: Epoch | DrawnEpoch) -> Generator[Any, None, None]:
        """Yield the batches of an epoch as the strategy wants them, and count the time that is waited for them."""
        with closing(ahead(epoch.batches(), self._placed)) as batches:
            while True:
                began = time.monotonic()
                batch = next(batches, None)
                self.waited += time.monotonic() - began
                if batch is None:
                    return
                yield batch

    def _placed(self, batch: Batch) -> Any:
        """Return a batch as tensors, cut where this process has several replicas."""
        tensors = {name: tf.convert_to_tensor(values) for name, values in batch.items()}
        local = self.replicas // self.workers
        if local == 1:
            return tensors
        parts = {name: tf.split(values, local) for name, values in tensors.items()}

        def of_replica(context: Any) -> dict[str, Any]:
            return {name: values[context.replica_id_in_sync_group % local] for name, values in parts.items()}

        return self.strategy.experimental_distribute_values_from_function(of_replica)

    def _report(self, metrics: dict[str, float]) -> None:
        if self.chief:
            step = self.progress.total_steps
            log.info("step %d: %s", step, " ".join(f"{name}={value:.6g}" for name, value in metrics.items()))
            self.log_metrics(step, metrics)

    # --- checkpoints ---

    @property
    def _state(self) -> list[Any]:
        return [*self.task.model.variables, *self.optimizer.variables]

    def _save(self) -> None:
        # The chief's values are everyone's: all replicas apply the same gradients to the same weights.
        if not self.chief:
            return
        arrays = {f"now/{i}": _array(variable) for i, variable in enumerate(self._state)}
        arrays |= {f"best/{i}": value for i, value in enumerate(self.best or [])}
        checkpoints.save(self.checkpoint, self.progress.total_steps, arrays, asdict(self.progress))

    def _resume(self) -> None:
        checkpoint = checkpoints.load(self.checkpoint)
        if checkpoint and checkpoint.state["fingerprint"] == self.progress.fingerprint:
            self.progress = _Progress(**checkpoint.state)
            _assign(self._state, [checkpoint.arrays[f"now/{i}"] for i in range(len(self._state))])
            best = [value for name, value in checkpoint.arrays.items() if name.startswith("best/")]
            self.best = best or None
            log.info("resumed at epoch %d, step %d", self.progress.epoch, self.progress.step)
        elif checkpoint:
            log.warning("%s holds a checkpoint of another training: starting anew", self.checkpoint)
        if self.config.privacy and not self.progress.key and not self.progress.done:
            self.progress.key = new_key()
            self._save()  # before the first step: a run that goes on after a kill makes no second draw
        if self.workers > 1:
            self._require_same_start()

    def _require_same_start(self) -> None:
        """Refuse to go on where workers do not see the same checkpoint."""

        def replica() -> Any:
            step = tf.constant(float(self.progress.total_steps))
            return tf.distribute.get_replica_context().all_reduce("sum", step)

        total = self.strategy.experimental_local_results(self.strategy.run(tf.function(replica)))[0]
        if float(total) != self.progress.total_steps * self.replicas:
            raise RuntimeError(
                f"worker {self.worker} starts at step {self.progress.total_steps}, others elsewhere: "
                f"{self.checkpoint} has to be a folder that all workers share"
            )


def new_key() -> str:
    """Return 128 random bits in hexadecimal."""
    return secrets.token_hex(16)


def _added_up(values: Structure) -> Structure:
    """Return tensors added up over the replicas, one collective for each type: they get packed together."""
    flat = tf.nest.flatten(values)
    for dtype in dict.fromkeys(value.dtype for value in flat):
        places = [i for i, value in enumerate(flat) if value.dtype == dtype]
        added = tf.distribute.get_replica_context().all_reduce("sum", [flat[i] for i in places])
        for i, value in zip(places, added, strict=True):
            flat[i] = value
    packed: Structure = tf.nest.pack_sequence_as(values, flat)
    return packed


def _averaged(gradients: list[Any], total: Any, limit: float) -> tuple[list[Any], Any]:
    """Return gradients, whose types may differ, divided by a total, and their global norm.

    Where there is a limit, they are made smaller until their global norm is no greater; the norm is that before.
    """
    precise = tf.float64 if any(gradient.dtype == tf.float64 for gradient in gradients) else tf.float32
    # Half the sum of the squares, in one pass.
    norm = tf.sqrt(2 * tf.add_n([tf.nn.l2_loss(tf.cast(gradient, precise)) for gradient in gradients]))
    share = 1 / tf.cast(total, precise)
    norm = norm * share
    if limit:
        share = share * limit / tf.maximum(norm, limit)
    return [gradient * tf.cast(share, gradient.dtype) for gradient in gradients], tf.cast(norm, tf.float32)


def _with_loss(loss: Any, weight: Any, metrics: Sums) -> Sums:
    sums = {"loss": (loss, weight)} | dict(metrics)
    return {name: (tf.cast(a, tf.float32), tf.cast(b, tf.float32)) for name, (a, b) in sums.items()}


def _add(sums: dict[str, list[float]], more: Mapping[str, Any]) -> None:
    for name, (value, weight) in more.items():
        total = sums.setdefault(name, [0.0, 0.0])
        total[0] += float(value)
        total[1] += float(weight)


def _means(sums: Mapping[str, list[float]]) -> dict[str, float]:
    return {name: value / weight if weight else math.nan for name, (value, weight) in sums.items()}


def _assign(variables: list[Any], values: list[Array]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
