"""Gradients of differential privacy: what one person changes is bounded, and noise hides it.

DP-SGD of Abadi et al., arXiv:1607.00133, for users instead of examples (McMahan et al., arXiv:1710.06963). A batch has
one row of each user who takes part (model/data/users.py). The gradient of each row alone is clipped to the norm C;
their sum, which one user changes by C at most, gets Gaussian noise of standard deviation z C in each number, and is
divided by the expected number of users, not by that of those who were drawn.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lake.errors import SettingsInvalid
from model.network import tf
from model.training.accountant import epsilon

Gradients = list[Any]
Sums = dict[str, tuple[Any, Any]]


@dataclass(frozen=True)
class Privacy:
    """How a training hides each user.

    Attributes:
        clip_norm: C, greatest norm of what a user adds to a gradient.
        noise: z, standard deviation of the noise as a multiple of C.
    """

    clip_norm: float
    noise: float

    def __post_init__(self) -> None:
        for name, value in (("--dp-clip", self.clip_norm), ("--dp-noise", self.noise)):
            if not (value > 0 and math.isfinite(value)):
                raise SettingsInvalid(f"{name} must be a number above 0, got {value}")


@dataclass(frozen=True)
class Spent:
    """What a model says of its privacy: (epsilon, delta) for each user.

    Attributes:
        epsilon, delta: of the guarantee.
        clip_norm, noise: see `Privacy`.
        rate: probability of a user in a step.
        steps: of all phases.
        users: there were.
    """

    epsilon: float
    delta: float
    clip_norm: float
    noise: float
    rate: float
    steps: int
    users: int

    @staticmethod
    def of(privacy: Privacy, rate: float, steps: int, users: int, delta: float) -> "Spent":
        """Return what so many steps spend.

        Raises:
            SettingsInvalid: delta allows to tell of one user all there is, or there is no finite epsilon.
        """
        if not 0 < delta < 1 / users:
            raise SettingsInvalid(
                f"--dp-delta must be above 0 and below 1/{users}, since it may be the chance that one of the {users} "
                f"users is given away, got {delta}"
            )
        spent = epsilon(rate, privacy.noise, steps, delta)
        if not math.isfinite(spent):
            raise SettingsInvalid(
                f"with --dp-noise {privacy.noise}, {steps} steps and a probability of {rate:.3g} no finite epsilon is "
                "known for this training, so it would promise nothing; raise --dp-noise"
            )
        return Spent(spent, delta, privacy.clip_norm, privacy.noise, rate, steps, users)


def clipped_sum(
    gradients_of: Callable[[dict[str, Any]], tuple[Gradients, Any]],
    batch: dict[str, Any],
    shapes: Gradients,
    clip_norm: float,
) -> tuple[Gradients, Sums]:
    """Return the sum of the clipped gradients of all rows of weight 1, one row after the other, and what to report.

    One gradient is in memory at a time, whatever the batch.

    Args:
        gradients_of: returns the gradients and the loss of a batch.
        batch: tensors (B, ...).
        shapes: tensors or variables of the shapes and types of the gradients.
        clip_norm: C.

    Returns:
        the sum, and sums with their weights: `loss`, and `clipped`, the share of rows whose gradient was too long.
    """
    real = tf.where(batch["weight"] > 0)[:, 0]

    def add(i: Any, total: Gradients, loss: Any, clipped: Any) -> tuple[Any, Gradients, Any, Any]:
        row = {name: tf.gather(values, real[i : i + 1]) for name, values in batch.items()}
        gradients, of_row = gradients_of(row)
        norm = tf.sqrt(tf.add_n([tf.reduce_sum(tf.square(tf.cast(part, tf.float32))) for part in gradients]))
        # A row whose gradient is no number adds nothing; its loss ends the training.
        scale = tf.where(tf.math.is_finite(norm), clip_norm / tf.maximum(norm, clip_norm), 0.0)
        parts = [tf.math.multiply_no_nan(part, tf.cast(scale, part.dtype)) for part in gradients]
        total = [before + part for before, part in zip(total, parts, strict=True)]
        return i + 1, total, loss + tf.cast(of_row, tf.float32), clipped + tf.cast(norm > clip_norm, tf.float32)

    rows = tf.size(real)
    zeros = [tf.zeros(part.shape, part.dtype) for part in shapes]
    _, total, loss, clipped = tf.while_loop(
        lambda i, *_: i < rows, add, (0, zeros, tf.zeros(()), tf.zeros(())), parallel_iterations=1
    )
    count = tf.cast(rows, tf.float32)
    return total, {"loss": (loss, count), "clipped": (clipped, count)}


def noisy(total: Gradients, deviation: float, seed: Any) -> Gradients:
    """Return a sum with Gaussian noise in each of its numbers, the same on all replicas.

    Args:
        total: of the gradients.
        deviation: standard deviation of the noise.
        seed: tensor (2,), another one for each step.
    """
    return [
        part
        + deviation
        * tf.random.stateless_normal(part.shape, tf.random.experimental.stateless_fold_in(seed, i), dtype=part.dtype)
        for i, part in enumerate(total)
    ]
