"""A small task on the rows of tiny_rows: what the tests of loop and launch train."""

from typing import Any

import keras
from keras import ops

from model.training.loop import FitConfig


class TinyTask:
    """Embeddings of the last items, dropout and a dense layer; squared error."""

    def __init__(self, dropout: float = 0.1):
        items, x = keras.Input((4,), dtype="int32"), keras.Input((2,))
        embedded = keras.layers.Embedding(20, 3)(items)
        hidden = keras.layers.Concatenate()([ops.sum(embedded, axis=1), x])
        hidden = keras.layers.Dense(8, activation="relu")(hidden)
        hidden = keras.layers.Dropout(dropout)(hidden)
        # The output is never in half precision.
        output = None if keras.config.dtype_policy().name == "float64" else "float32"
        self.model = keras.Model([items, x], keras.layers.Dense(1, dtype=output)(hidden))

    def loss(self, batch: dict[str, Any], training: bool) -> tuple[Any, Any, dict[str, tuple[Any, Any]]]:
        """Return the squared errors as sums."""
        predicted = self.model([batch["items"], batch["x"]], training=training)[:, 0]
        y, weights = (ops.cast(batch[name], predicted.dtype) for name in ("y", "weight"))
        errors = ops.square(predicted - y) * weights
        loss, weight = ops.sum(errors), ops.sum(weights)
        return loss, weight, {"square": (loss, weight)}


def config(**changes: Any) -> FitConfig:
    """Return a short training: 3 epochs, checkpoints every 4 steps."""
    usual = {"global_batch": 32, "shards": 2, "epochs": 3, "learning_rate": 0.02, "warmup_steps": 5, "patience": 0}
    usual |= {"weight_decay": 0.01, "checkpoint_every": 4, "log_every": 10, "seed": 3}
    return FitConfig(**{**usual, **changes})
