"""The network: an encoder of event sequences, what it is pretrained with, and what it is fine-tuned for.

Shapes: B users, L events, D width, P categories of the profile, C categories and V items of the vocabularies (padding
and out-of-vocabulary buckets included), K next items.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import keras
import numpy as np
from keras import ops
from sklearn.linear_model import LogisticRegression

from lake.errors import SettingsInvalid
from lake.labels import NAMES
from model.data.features import GAP_BUCKETS, PROFILE_VALUES, SCALAR_VALUES
from model.data.vocabulary import Vocabulary
from model.network.layers import (
    BEHAVIOR_CODES,
    Block,
    EventEmbedding,
    Head,
    PairScore,
    ProfileReader,
    add_at,
    is_real,
    last_real,
)

BINARY = NAMES

# Repeated items: at first, all events of a user together have about the weight of all other items. The few weights by
# age and behavior are scaled up, so that they change faster than an optimizer changes each of many weights.
REPEAT_LOGIT_START = -4.0
REPEAT_RATE_SCALE = 10.0
# A scalar that was the same for all training rows, such as money in a shop without purchases, may later be a thousand
# deviations away. This bound keeps the sum over a user's events finite (32 bits end at e^88); those of usual users are
# far below it.
REPEAT_LOGIT_MAX = 60.0
MASK_LOGIT = -1e9


@dataclass(frozen=True)
class NetworkConfig:
    """Everything that the shape of the network depends on.

    Attributes:
        items, categories: sizes of the vocabularies.
        events, profile, next_items: L, P, K.
        width, layers, heads, dropout: of the encoder.
        hidden, head_dropout: of each head.
        policy: Keras dtype policy; `mixed_bfloat16` computes in bfloat16 and keeps weights in float32.
    """

    items: int
    categories: int
    events: int = 64
    profile: int = 128
    next_items: int = 16
    width: int = 64
    layers: int = 2
    heads: int = 2
    dropout: float = 0.1
    hidden: tuple[int, ...] = (512, 512)
    head_dropout: float = 0.5
    policy: str = "float32"


# `tiny` trains on a laptop; `large` holds more than 100 million parameters in its encoder alone.
PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {},
    "base": {"events": 256, "profile": 256, "width": 256, "layers": 6, "heads": 8},
    "large": {"events": 512, "profile": 512, "width": 1024, "layers": 10, "heads": 16, "policy": "mixed_bfloat16"},
}


def network_config(preset: str, items: int, categories: int) -> NetworkConfig:
    """Return a preset for vocabularies of these sizes.

    Raises:
        SettingsInvalid: there is no such preset.
    """
    if preset not in PRESETS:
        raise SettingsInvalid(f"--preset must be one of {', '.join(PRESETS)}; received {preset!r}")
    return replace(NetworkConfig(items, categories), **PRESETS[preset])


def inputs_of(config: NetworkConfig) -> dict[str, Any]:
    """Return an input of one user without events, from which the shapes of all weights follow."""
    names = ("item", "category", "behavior", "gap", "slot", "age")
    return {
        **{name: np.zeros((1, config.events), np.int32) for name in names},
        "profile": np.zeros((1, config.profile), np.int32),
        "profile_values": np.zeros((1, config.profile, PROFILE_VALUES), np.float32),
        "scalars": np.zeros((1, SCALAR_VALUES), np.float32),
    }


class Network(keras.Model):
    """What our networks have in common: all that they are follows from their config."""

    def __init__(self, config: NetworkConfig | dict[str, Any], **kwargs: Any):
        super().__init__(**kwargs)
        self.config = as_config(config)

    def build(self, input_shape: Any) -> None:
        """Do nothing: the first call builds each layer. Keras would trace the call before, and again for each part."""

    def get_config(self) -> dict[str, Any]:
        return {"config": asdict(self.config), "name": self.name, "trainable": self.trainable}


@keras.saving.register_keras_serializable(package="meander")
class Encoder(Network):
    """A causal Transformer over event embeddings (SASRec, arXiv:1808.09781).

    Input: dict of int32 (B, L), see model/data/features.py. Output: (B, L, D); row [b, t] has seen events 0..t of
    user b and no later one.
    """

    def __init__(self, config: NetworkConfig | dict[str, Any], **kwargs: Any):
        super().__init__(config, **kwargs)
        c = self.config
        self.embed = EventEmbedding(c.items, c.categories, c.width, c.events, name="embed")
        self.drop = keras.layers.Dropout(c.dropout)
        self.blocks = [Block(c.width, c.heads, c.dropout, name=f"block_{i}") for i in range(c.layers)]
        self.norm = keras.layers.LayerNormalization(epsilon=1e-6, name="norm")

    def call(self, event: dict[str, Any], training: bool | None = None) -> Any:
        x = self.drop(self.embed(event), training=training)
        for block in self.blocks:
            x = block(x, training=training)
        return self.norm(x)

    def attention(self, event: dict[str, Any]) -> Any:
        """Return (B, L): how much the last real event attends to each event in the last block, mean over heads."""
        x = self.embed(event)
        for block in self.blocks[:-1]:
            x = block(x, training=False)
        _, weights = self.blocks[-1](x, training=False, return_attention=True)  # (B, heads, L, L)
        return last_real(ops.cast(ops.mean(weights, axis=1), "float32"), event["behavior"])


@keras.saving.register_keras_serializable(package="meander")
class Pretrained(Network):
    """The encoder with the two things it is pretrained for: the next item and the next category at every position.

    Both output layers are tied to the embeddings of the events.
    """

    def __init__(self, config: NetworkConfig | dict[str, Any], **kwargs: Any):
        super().__init__(config, **kwargs)
        c = self.config
        self.encoder = Encoder(c, name="encoder")
        self.to_item = keras.layers.Dense(c.width, name="to_item")
        self.to_category = keras.layers.Dense(c.width, name="to_category")
        self.item_bias = self.add_weight(shape=(c.items,), initializer="zeros", autocast=False, name="item_bias")
        self.category_bias = self.add_weight(
            shape=(c.categories,), initializer="zeros", autocast=False, name="category_bias"
        )
        # Of the sampled negatives. A part of the network's state, so a resumed training goes on with the same draws.
        self.draws = keras.random.SeedGenerator(1)

    def call(self, event: dict[str, Any], training: bool | None = None) -> dict[str, Any]:
        """Return `item` (B, L, D), to be compared with item embeddings, and `category` (B, L, C) logits, float32."""
        hidden = self.encoder(event, training=training)
        table = ops.cast(self.encoder.embed.fields["category"].embeddings, self.compute_dtype)
        logits = ops.matmul(self.to_category(hidden), ops.transpose(table))
        return {"item": self.to_item(hidden), "category": ops.cast(logits, "float32") + self.category_bias}

    def surprise(self, event: dict[str, Any], last: int) -> Any:
        """Return (B,): mean negative log likelihood, in nats, of the categories of the `last` most recent events.

        The first event of a sequence has nothing before it and does not count; 0 where there is no other.
        """
        logits = self(event, training=False)["category"][:, :-1]  # (B, L-1, C)
        following = event["category"][:, 1:]
        loss = keras.losses.sparse_categorical_crossentropy(following, logits, from_logits=True)
        real = is_real(event["behavior"])[:, 1:]
        from_the_end = ops.flip(ops.cumsum(ops.flip(real, axis=1), axis=1), axis=1)  # 1 at the last real event
        counts = real * ops.cast(from_the_end <= last, "float32") * ops.cast(following > 0, "float32")
        return ops.sum(loss * counts, axis=1) / ops.maximum(ops.sum(counts, axis=1), 1.0)


@keras.saving.register_keras_serializable(package="meander")
class Finetuned(Network):
    """The encoder, the profile and the scalars together, with one head for each thing to be predicted.

    Output of a call, all float32: dict of `category` (B, C) logits; `item` (B, D), to be compared with item embeddings;
    `again` (B, L), the weight of each item of the events to come again, at its first place; and a logit (B,) for each
    of `BINARY`. Categories and items are mixtures of what comes anew and what comes again (RepeatNet,
    arXiv:1812.02646): weights add up, so that also an item which the vocabulary does not know can come again.
    """

    def __init__(self, config: NetworkConfig | dict[str, Any], **kwargs: Any):
        super().__init__(config, **kwargs)
        c = self.config
        self.encoder = Encoder(c, name="encoder")
        self.reader = ProfileReader(c.width, name="profile_reader")
        self.pair_score = PairScore(c.width, c.head_dropout / 2, name="pair_score")
        self.state = keras.layers.Dense(2 * c.width, activation="gelu", name="state")
        # The binary labels of a user at neighbouring dates are nearly the same: what sees the last events learns users
        # by heart, and so does an encoder that is taught by them. So their state sees numbers and the long-term
        # interest alone, and teaches neither.
        self.binary_state = keras.layers.Dense(2 * c.width, activation="gelu", name="binary_state")
        self.state_drop = keras.layers.Dropout(c.dropout)
        heads = {"category": c.width, "item": c.width, **dict.fromkeys(BINARY, 1)}
        self.heads = {name: Head(units, c.hidden, c.head_dropout, name=name) for name, units in heads.items()}
        # Scalars are measured against those of the training rows, see `start_with_scalars`.
        shape = {"shape": (SCALAR_VALUES,), "trainable": False, "autocast": False}
        self.scalar_mean = self.add_weight(**shape, initializer="zeros", name="scalar_mean")
        self.scalar_scale = self.add_weight(**shape, initializer="ones", name="scalar_scale")
        # Beside the deep heads a straight line from the scalars, which says most about who comes back (wide and deep,
        # arXiv:1606.07792).
        self.wide = keras.layers.Dense(len(BINARY), kernel_initializer="zeros", dtype="float32", name="wide")
        # How much each event makes its own item come again: by age, behavior, item and user.
        self.age = keras.layers.Embedding(GAP_BUCKETS, 1, embeddings_initializer="zeros", name="age")
        self.behavior = keras.layers.Embedding(BEHAVIOR_CODES, 1, embeddings_initializer="zeros", name="behavior")
        self.repeatable = keras.layers.Dense(1, kernel_initializer="zeros", name="repeatable")
        self.faithful = keras.layers.Dense(1, kernel_initializer="zeros", name="faithful")
        self.category_bias = self.add_weight(
            shape=(c.categories,), initializer="zeros", autocast=False, name="category_bias"
        )
        self.item_bias = self.add_weight(shape=(c.items,), initializer="zeros", autocast=False, name="item_bias")
        self.draws = keras.random.SeedGenerator(1)

    def call(self, x: dict[str, Any], training: bool | None = None) -> dict[str, Any]:
        last = last_real(self.encoder(x, training=training), x["behavior"])  # (B, D)
        embedded = self.encoder.embed.fields["category"](x["profile"])  # (B, P, D)
        in_profile = ops.cast(x["profile"] > 0, "float32")
        vectors, mean = self.reader(embedded, x["profile_values"], in_profile)
        scalars = (ops.cast(x["scalars"], "float32") - self.scalar_mean) / self.scalar_scale
        lasting = ops.concatenate([mean, ops.cast(scalars, mean.dtype)], axis=-1)
        user = self.state_drop(self.state(ops.concatenate([last, lasting], axis=-1)), training=training)
        states = {
            **dict.fromkeys(("category", "item"), user),
            **dict.fromkeys(BINARY, self.state_drop(self.binary_state(ops.stop_gradient(lasting)), training=training)),
        }
        out = {name: head(states[name], training=training) for name, head in self.heads.items()}
        wide = self.wide(scalars)  # (B, 3)
        table = ops.cast(self.encoder.embed.fields["category"].embeddings, "float32")
        logits = ops.matmul(out["category"], ops.transpose(table)) + self.category_bias
        # The last number of the profile is the root of the long-term share, with which a category comes back at first.
        share = ops.cast(x["profile_values"], "float32")[..., -1] ** 2 * in_profile
        scores = self.pair_score(vectors, user, in_profile, training=training)
        again = share * ops.exp(ops.minimum(scores, REPEAT_LOGIT_MAX))
        return {
            "category": mixture(logits, add_at(ops.zeros_like(logits), x["profile"], again)),
            "item": out["item"],
            "again": self._again(x, user),
            **{name: out[name][:, 0] + wide[:, i] for i, name in enumerate(BINARY)},
        }

    def _again(self, x: dict[str, Any], user: Any) -> Any:
        by_event = self.age(x["age"]) + self.behavior(x["behavior"])  # (B, L, 1)
        by_item = self.repeatable(self.encoder.embed.fields["item"](x["item"]))
        weight = REPEAT_RATE_SCALE * by_event + by_item + self.faithful(user)[:, None, :]
        weight = ops.exp(ops.minimum(ops.cast(weight, "float32")[..., 0] + REPEAT_LOGIT_START, REPEAT_LOGIT_MAX))
        weight = weight * is_real(x["behavior"]) * is_real(x["item"])  # a search has no item
        return add_at(ops.zeros_like(weight), x["slot"], weight)

    @property
    def binary_layers(self) -> list[keras.layers.Layer]:
        """What the binary answers alone come from."""
        return [self.binary_state, self.wide, *(self.heads[name] for name in BINARY)]

    def item_logits(self, out: dict[str, Any], x: dict[str, Any], first: int) -> Any:
        """Return (B, V - first + L) logits of all that may come next: for scoring, where each is needed.

        First those of the known items, whose indices begin with `first`. Then, by the place where it stands first among
        the events, those of each item that the vocabulary does not know: such an item can only come again.
        """
        table = ops.cast(self.encoder.embed.fields["item"].embeddings, "float32")
        anew = ops.matmul(out["item"], ops.transpose(table)) + self.item_bias
        in_vocabulary = mixture(anew, add_at(ops.zeros_like(anew), x["item"], out["again"]))[:, first:]
        unknown = ops.where(x["item"] < first, out["again"], 0.0)
        unknown = ops.where(unknown > 0, ops.log(ops.maximum(unknown, 1e-30)), MASK_LOGIT)
        return ops.concatenate([in_vocabulary, unknown], axis=1)


def mixture(anew: Any, again: Any) -> Any:
    """Return the logits of what comes anew with these logits, or again with these weights, 0 or more."""
    return ops.logaddexp(anew, ops.log(again + 1e-30))


def as_config(config: NetworkConfig | dict[str, Any]) -> NetworkConfig:
    """Return the config itself, also from what `get_config` made of it."""
    if isinstance(config, NetworkConfig):
        return config
    return NetworkConfig(**{**config, "hidden": tuple(config["hidden"])})


def build(kind: type[keras.Model], config: NetworkConfig) -> Any:
    """Return a network with all its weights, initialized, under the config's dtype policy."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(config.policy)
    try:
        network = kind(config)
        network(inputs_of(config))
    finally:
        keras.config.set_dtype_policy(before)
    return network


def start_from(network: Finetuned, pretrained: Pretrained) -> None:
    """Take the pretrained encoder and output layers into a network that is to be fine-tuned."""
    network.encoder.set_weights(pretrained.encoder.get_weights())
    network.item_bias.assign(pretrained.item_bias)
    network.category_bias.assign(pretrained.category_bias)


def start_with_popularity(network: Pretrained | Finetuned, items: Vocabulary, categories: Vocabulary) -> None:
    """Let the output biases be the log frequencies, so that training need not find out what is popular."""
    for bias, vocabulary in ((network.item_bias, items), (network.category_bias, categories)):
        counts = np.concatenate([np.ones(1 + vocabulary.buckets), np.maximum(vocabulary.counts, 1)])
        bias.assign(np.log(counts / counts.sum()).astype(np.float32))


def start_with_scalars(network: Finetuned, scalars: Any, labels: Mapping[str, Any]) -> None:
    """Measure scalars against those of some training rows, and begin each binary answer as a logistic regression.

    The deep heads have nothing to add at first: what they learn is what a straight line from the scalars does not say.

    Args:
        network: of random weights.
        scalars: (N, SCALAR_VALUES).
        labels: (N,) for each of `BINARY`; negative where it is not known.
    """
    mean, scale = np.mean(scalars, axis=0), np.maximum(np.std(scalars, axis=0), 1e-2)
    network.scalar_mean.assign(mean)
    network.scalar_scale.assign(scale)
    kernel, bias = (np.zeros(weights.shape, np.float32) for weights in network.wide.weights)
    for i, name in enumerate(BINARY):
        labelled = labels[name] >= 0
        truth = labels[name][labelled] > 0.5
        if truth.any() and not truth.all():
            line = LogisticRegression(C=0.1, max_iter=500).fit(((scalars - mean) / scale)[labelled], truth)
            # Rounded, so that all workers begin alike even where their processors add up in another order.
            kernel[:, i], bias[i] = line.coef_[0].round(3), line.intercept_[0].round(3)
        deep = network.heads[name].out.kernel
        deep.assign(np.zeros(deep.shape, np.float32))
    network.wide.set_weights([kernel, bias])


def grow(network: Pretrained, old: Pretrained) -> None:
    """Take over the weights of a network whose vocabularies were shorter; what is new keeps its initial values.

    Raises:
        SettingsInvalid: the two differ in more than the vocabularies.
    """
    same = replace(old.config, items=network.config.items, categories=network.config.categories)
    if same != network.config:
        raise SettingsInvalid(
            f"a warm start needs the champion's network, {old.config}; received {network.config}; choose its --preset, "
            "or run model.prepare with --cold"
        )
    for weight, old_weight in zip(network.weights, old.weights, strict=True):
        values, old_values = np.array(weight), np.array(old_weight)
        values[: len(old_values)] = old_values
        weight.assign(values)


def adapt(encoder: Encoder, rank: int = 8) -> None:
    """Freeze the encoder but for low-rank adapters in its blocks (LoRA, arXiv:2106.09685)."""
    encoder.embed.trainable = False
    encoder.norm.trainable = False
    for block in encoder.blocks:
        block.attend_norm.trainable = block.forward_norm.trainable = False
        attend = block.attend
        for layer in (attend._query_dense, attend._value_dense, block.widen, block.narrow):
            layer.enable_lora(rank)
            layer.bias.trainable = False
        attend._key_dense.trainable = attend._output_dense.trainable = False
