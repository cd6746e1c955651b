"""The layers of the network. Only `keras.ops` in here, so that they run on every backend of Keras.

Shapes: B users, L events, D width, P categories of the profile, V size of a vocabulary.
Padding stands after the real events and has index 0. Under a causal mask no real event sees it, so no padding mask
is needed; whoever picks or averages positions has to use `is_real`.
"""

from typing import Any

import keras
from keras import ops

from lake.rules import BEHAVIORS
from model.data.features import GAP_BUCKETS

BEHAVIOR_CODES = 1 + len(BEHAVIORS)  # with 0 for padding
MASK_LOGIT = -1e9


def is_real(behavior: Any) -> Any:
    """Return (B, L) float: 1 where there is an event, 0 where there is padding."""
    return ops.cast(behavior > 0, "float32")


def last_real(values: Any, behavior: Any) -> Any:
    """Return (B, D): the vector at the last real event of (B, L, D); zeros for a user without events."""
    real = is_real(behavior)  # (B, L)
    following = ops.concatenate([real[:, 1:], ops.zeros_like(real[:, :1])], axis=1)
    picked = ops.cast(real * (1 - following), values.dtype)  # 1 at the last real event alone
    return ops.sum(values * picked[..., None], axis=1)


def of_rows(dense: Any, x: Any) -> Any:
    """Return what `dense` makes of (B, L, D), all vectors being the rows of one matrix to it.

    TensorFlow then does product, bias and activation in one operation where nothing is learned; with three axes the
    product is put into its shape before the bias, and each of them is a pass of its own.
    """
    y = dense(ops.reshape(x, (-1, x.shape[-1])))
    return ops.reshape(y, (*ops.shape(x)[:-1], y.shape[-1]))


def pick(values: Any, places: Any) -> Any:
    """Return (B, K, D): the vectors of (B, L, D) at these places (B, K)."""
    return ops.take_along_axis(values, places[..., None], axis=1)


@keras.saving.register_keras_serializable(package="meander")
class EventEmbedding(keras.layers.Layer):
    """The sum of what an event is: item, category, behavior, time since the one before, place in the sequence.

    Args:
        items, categories: sizes of the vocabularies, padding and out-of-vocabulary buckets included.
        width: D.
        events: L at most.

    Input: dict of int32 (B, L): item, category, behavior, gap. Output: (B, L, D).
    """

    def __init__(self, items: int, categories: int, width: int, events: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.items, self.categories, self.width, self.events = items, categories, width, events
        sizes = {"item": items, "category": categories, "behavior": BEHAVIOR_CODES, "gap": GAP_BUCKETS}
        # Small at the start, as the sums below and the tied output layers add many of them.
        start = keras.initializers.RandomNormal(stddev=0.05)
        self.fields = {
            name: keras.layers.Embedding(size, width, embeddings_initializer=start.clone(), name=name)
            for name, size in sizes.items()
        }
        self.positions = keras.layers.Embedding(events, width, embeddings_initializer=start.clone(), name="positions")

    def build(self, input_shape: Any) -> None:  # noqa: ARG002  sizes are known without it
        for layer in (*self.fields.values(), self.positions):
            layer.build()
        self.built = True

    def call(self, event: dict[str, Any]) -> Any:
        length = ops.shape(event["item"])[1]
        total = sum(layer(event[name]) for name, layer in self.fields.items())  # (B, L, D)
        return total + self.positions(ops.arange(length))  # (B, L, D) + (L, D)

    def compute_output_shape(self, input_shape: Any) -> tuple[Any, ...]:
        return (*input_shape["item"], self.width)

    def get_config(self) -> dict[str, Any]:
        sizes = {"items": self.items, "categories": self.categories, "width": self.width, "events": self.events}
        return {**super().get_config(), **sizes}


@keras.saving.register_keras_serializable(package="meander")
class Block(keras.layers.Layer):
    """One pre-norm Transformer block with causal self-attention (SASRec, arXiv:1808.09781; pre-norm, arXiv:2002.04745).

    Args:
        width: D.
        heads: must divide `width`.
        dropout: rate after attention and after the feed-forward part.

    Input and output: (B, L, D). With `return_attention`, also the weights (B, heads, L, L). With `places` (B, K), the
    output at these places alone, (B, K, D), for the work of K queries instead of L.
    """

    def __init__(self, width: int, heads: int, dropout: float, **kwargs: Any):
        super().__init__(**kwargs)
        if width % heads:
            raise ValueError(f"width must be a multiple of heads, received width={width}, heads={heads}")
        self.width, self.heads, self.rate = width, heads, dropout
        self.attend_norm = keras.layers.LayerNormalization(epsilon=1e-6)
        self.attend = keras.layers.MultiHeadAttention(heads, width // heads)
        self.forward_norm = keras.layers.LayerNormalization(epsilon=1e-6)
        self.widen = keras.layers.Dense(4 * width, activation="gelu")
        self.narrow = keras.layers.Dense(width)
        self.drop = keras.layers.Dropout(dropout)

    def build(self, input_shape: Any) -> None:
        self.attend_norm.build(input_shape)
        self.attend.build(input_shape, input_shape)
        self.forward_norm.build(input_shape)
        self.widen.build(input_shape)
        self.narrow.build((*input_shape[:-1], 4 * self.width))
        self.built = True

    def call(self, x: Any, training: bool | None = None, return_attention: bool = False, places: Any = None) -> Any:
        y = self.attend_norm(x)
        if places is None:
            y, attention = self._attended(y, y, ops.arange(ops.shape(x)[1]))
        else:
            y, attention = self._attended(pick(y, places), y, places)
            x = pick(x, places)
        x = x + self.drop(y, training=training)
        y = of_rows(lambda rows: self.narrow(self.widen(rows)), self.forward_norm(x))
        x = x + self.drop(y, training=training)
        return (x, attention) if return_attention else x

    def _attended(self, asking: Any, events: Any, places: Any) -> tuple[Any, Any]:
        """Return what vectors (B, K, D) at some places, (K,) or (B, K), take from events (B, L, D) up to these places.

        And how much from which, (B, heads, K, L). It is what `keras.layers.MultiHeadAttention` says, whose weights
        these are, in fewer passes: all vectors of a batch are one matrix to its layers, which would otherwise multiply
        user by user, and the mask is added, so that the way back need not look at it.
        """
        query, key, value = self.attend.query_dense, self.attend.key_dense, self.attend.value_dense
        by_head = [self._by_head(dense, x) for dense, x in ((query, asking), (key, events), (value, events))]
        query, key, value = by_head
        later = ops.arange(ops.shape(events)[1]) > places[..., None]  # (K, L) or (B, K, L)
        hidden = ops.expand_dims(ops.cast(later, "float32") * MASK_LOGIT, -3)
        logits = ops.matmul(query * (self.width // self.heads) ** -0.5, ops.transpose(key, (0, 1, 3, 2)))
        attention = ops.softmax(ops.cast(logits, "float32") + hidden)
        taken = ops.transpose(ops.matmul(ops.cast(attention, value.dtype), value), (0, 2, 1, 3))  # (B, K, heads, d)
        flat = ops.reshape(taken, (1, -1, self.heads, self.width // self.heads))
        return ops.reshape(self.attend.output_dense(flat), ops.shape(asking)), attention

    def _by_head(self, dense: Any, x: Any) -> Any:
        """Return a projection of (B, K, D) as (B, heads, K, D / heads)."""
        projected = dense(ops.reshape(x, (1, -1, self.width)))
        # All sizes by name: what has no places has no size that could be told from it.
        by_place = ops.reshape(projected, (*ops.shape(x)[:2], self.heads, self.width // self.heads))
        return ops.transpose(by_place, (0, 2, 1, 3))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "width": self.width, "heads": self.heads, "dropout": self.rate}


@keras.saving.register_keras_serializable(package="meander")
class Head(keras.layers.Layer):
    """Hidden layers with ReLU and dropout, then a linear output.

    Args:
        units: size of the output.
        hidden: sizes of the hidden layers.
        dropout: rate after each of them.

    Input: (B, D). Output: (B, units), float32 also under mixed precision.
    """

    def __init__(self, units: int, hidden: tuple[int, ...] = (512, 512), dropout: float = 0.5, **kwargs: Any):
        super().__init__(**kwargs)
        self.units, self.hidden, self.rate = units, tuple(hidden), dropout
        self.layers = [keras.layers.Dense(size, activation="relu") for size in self.hidden]
        self.drop = keras.layers.Dropout(dropout)
        self.out = keras.layers.Dense(units, dtype="float32")

    def build(self, input_shape: Any) -> None:
        for layer in (*self.layers, self.out):
            layer.build(input_shape)
            input_shape = (*input_shape[:-1], layer.units)
        self.built = True

    def call(self, x: Any, training: bool | None = None) -> Any:
        for layer in self.layers:
            x = self.drop(layer(x), training=training)
        return self.out(x)

    def compute_output_shape(self, input_shape: Any) -> tuple[Any, ...]:
        return (*input_shape[:-1], self.units)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units, "hidden": self.hidden, "dropout": self.rate}


@keras.saving.register_keras_serializable(package="meander")
class ProfileReader(keras.layers.Layer):
    """Reads the long-term interest: a vector for each of its categories, and one of the whole.

    Args:
        width: D.

    Input: category embeddings (B, P, D), their numbers (B, P, F), and (B, P) float, 1 where there is a category.
    Output: (B, P, D), and the mean (B, D) weighted by long-term share.
    """

    def __init__(self, width: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.width = width
        self.read = keras.layers.Dense(width, activation="gelu")

    def build(self, embedded_shape: Any, values_shape: Any, real_shape: Any) -> None:  # noqa: ARG002  Keras' names
        self.read.build((*embedded_shape[:-1], embedded_shape[-1] + values_shape[-1]))
        self.built = True

    def call(self, embedded: Any, values: Any, real: Any) -> tuple[Any, Any]:
        vectors = of_rows(self.read, ops.concatenate([embedded, ops.cast(values, embedded.dtype)], axis=-1))
        weight = ops.cast(real * values[..., -1] ** 2, vectors.dtype)  # the last number is the root of the share
        total = ops.sum(weight, axis=1, keepdims=True)
        return vectors, ops.sum(vectors * weight[..., None], axis=1) / ops.maximum(total, 1e-3)

    def compute_output_shape(self, embedded_shape: Any, values_shape: Any, real_shape: Any) -> Any:  # noqa: ARG002  Keras' names
        return (*embedded_shape[:-1], self.width), (embedded_shape[0], self.width)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "width": self.width}


@keras.saving.register_keras_serializable(package="meander")
class PairScore(keras.layers.Layer):
    """Scores each category of the profile for a user: what being in it adds to the category's logit.

    The score comes from the category's own numbers (how often, how lately, how much) together with the user's state,
    as a ranker over (user, category) pairs does it, but trained with the network.

    Args:
        width: D.
        dropout: rate on the hidden layer.

    Input: vectors (B, P, D) of `ProfileReader`, user states (B, U), and (B, P) float, 1 where there is a category.
    Output: (B, P) float32, 0 for padding.
    """

    def __init__(self, width: int, dropout: float, **kwargs: Any):
        super().__init__(**kwargs)
        self.width, self.rate = width, dropout
        self.of_pair = keras.layers.Dense(width)
        self.of_user = keras.layers.Dense(width, use_bias=False)
        self.mix = keras.layers.Dense(width, activation="gelu")
        self.drop = keras.layers.Dropout(dropout)
        self.score = keras.layers.Dense(1, use_bias=False, dtype="float32")

    def build(self, vectors_shape: Any, user_shape: Any, real_shape: Any) -> None:  # noqa: ARG002  Keras' names
        self.of_pair.build(vectors_shape)
        self.of_user.build(user_shape)
        for layer in (self.mix, self.score):
            layer.build((*vectors_shape[:-1], self.width))
        self.built = True

    def call(self, vectors: Any, user: Any, real: Any, training: bool | None = None) -> Any:
        pair = of_rows(self.of_pair, vectors) + self.of_user(user)[:, None, :]
        score = self.score(self.drop(of_rows(self.mix, ops.gelu(pair)), training=training))[..., 0]
        return score * ops.cast(real, "float32")

    def compute_output_shape(self, vectors_shape: Any, user_shape: Any, real_shape: Any) -> Any:  # noqa: ARG002  Keras' names
        return vectors_shape[:-1]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "width": self.width, "dropout": self.rate}


def add_at(logits: Any, index: Any, amount: Any) -> Any:
    """Add `amount` (B, P) to the columns `index` (B, P) of `logits` (B, V); equal indices add up."""
    rows = ops.broadcast_to(ops.arange(ops.shape(index)[0])[:, None], ops.shape(index))
    flat = ops.reshape(rows * ops.shape(logits)[1] + index, (-1,))
    added = ops.segment_sum(ops.reshape(amount, (-1,)), flat, num_segments=ops.shape(logits)[0] * ops.shape(logits)[1])
    return logits + ops.reshape(added, ops.shape(logits))
