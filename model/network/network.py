"""The network: an encoder of event sequences, what it is pretrained with, and what it is fine-tuned for.

Shapes: B users, L events, D width, P categories of the profile, C categories and V items of the vocabularies (padding
and out-of-vocabulary buckets included), K next items.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import keras
import numpy as np
from keras import ops

from lake.errors import SettingsInvalid
from lake.labels import NAMES
from model.data.features import GAP_BUCKETS, PROFILE_VALUES, SCALAR_VALUES
from model.data.habits import FADING, SPEEDS
from model.data.vocabulary import Vocabulary
from model.network.layers import (
    BEHAVIOR_CODES,
    MASK_LOGIT,
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
# Where the numbers of a category have the logs of its events.
LOG_COUNTS = {"longterm_counts": 0, "longterm_current_counts": 2, "longterm_week_counts": 3}
# Ranking all items: of how many users at a time is told by how many logits (16 MiB) they have together, but it is never
# fewer than some; and how many logits stand for one another until the best are looked for.
LOGITS_AT_ONCE = 4 << 20
LEAST_USERS = 8
GROUP = 32


@dataclass(frozen=True)
class NetworkConfig:
    """Everything that the shape of the network depends on.

    Attributes:
        items, categories: sizes of the vocabularies.
        events, profile, next_items: L, P, K.
        width, layers, heads, dropout: of the encoder.
        hidden, head_dropout: of each head.
        policy: Keras dtype policy; `mixed_bfloat16` computes in bfloat16 and keeps weights in float32.
        habits: the weight of each of `model.data.habits.SPEEDS` in what comes again, as training began. It is no part
            of the text, by which trainings from before there were habits are known.
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
    habits: tuple[float, ...] = field(default=FADING, repr=False)


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
    user b and no later one. With `places` (B, K) the rows at these places alone, (B, K, D): the last block works for no
    others.
    """

    def __init__(self, config: NetworkConfig | dict[str, Any], **kwargs: Any):
        super().__init__(config, **kwargs)
        c = self.config
        self.embed = EventEmbedding(c.items, c.categories, c.width, c.events, name="embed")
        self.drop = keras.layers.Dropout(c.dropout)
        self.blocks = [Block(c.width, c.heads, c.dropout, name=f"block_{i}") for i in range(c.layers)]
        self.norm = keras.layers.LayerNormalization(epsilon=1e-6, name="norm")

    def call(self, event: dict[str, Any], training: bool | None = None, places: Any = None) -> Any:
        x = self.drop(self.embed(event), training=training)
        for block in self.blocks[:-1]:
            x = block(x, training=training)
        return self.norm(self.blocks[-1](x, training=training, places=places))

    def last(self, event: dict[str, Any], training: bool | None = None) -> Any:
        """Return (B, D): what a call gives at the last real event; zeros for a user without events."""
        count = events_of(event)
        state = self(event, training=training, places=ops.maximum(count - 1, 0))[:, 0]
        return state * ops.cast(count > 0, state.dtype)

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
        return {"item": self.to_item(hidden), "category": self.category_logits(hidden)}

    def category_logits(self, hidden: Any) -> Any:
        """Return (B, K, C) float32 of the encoder's vectors (B, K, D)."""
        table = ops.cast(self.encoder.embed.fields["category"].embeddings, self.compute_dtype)
        logits = ops.matmul(self.to_category(hidden), ops.transpose(table))
        return ops.cast(logits, "float32") + self.category_bias

    def surprise(self, event: dict[str, Any], last: int) -> Any:
        """Return (B,): mean negative log likelihood, in nats, of the categories of the `last` most recent events.

        The first event of a sequence has nothing before it and does not count; 0 where there is no other.
        """
        last = ops.minimum(last, ops.shape(event["category"])[1] - 1)
        # The event at each of these places, all of them before the newest, says what follows.
        places = events_of(event) - 1 - last + ops.arange(last)  # (B, last)
        real = ops.cast(places >= 0, "float32")
        places = ops.maximum(places, 0)
        following = ops.take_along_axis(event["category"], places + 1, axis=1)
        logits = self.category_logits(self.encoder(event, training=False, places=places))
        loss = keras.losses.sparse_categorical_crossentropy(following, logits, from_logits=True)
        counts = real * ops.cast(following > 0, "float32")
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
        # Keras would round what comes in to the precision that is computed in, and with it the logarithms of counts, of
        # which 8 bits leave a count up to 2 % wrong. Each layer rounds what it is given itself.
        self.autocast = False
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

    def call(self, x: dict[str, Any], training: bool | None = None, last: Any = None) -> dict[str, Any]:
        """Return what the class says; `last` (B, D) stands in for what `encoder.last` gives, where it is known."""
        if last is None:
            last = self.encoder.last(x, training=training)
        vectors, in_profile, lasting, scalars = self._lasting(x)
        both = ops.concatenate([ops.cast(last, lasting.dtype), lasting], axis=-1)
        user = self.state_drop(self.state(both), training=training)
        out = {name: self.heads[name](user, training=training) for name in ("category", "item")}
        table = ops.cast(self.encoder.embed.fields["category"].embeddings, "float32")
        logits = ops.matmul(out["category"], ops.transpose(table)) + self.category_bias
        first = comes_again(ops.cast(x["profile_values"], "float32"), in_profile, self.config.habits)
        scores = self.pair_score(vectors, user, in_profile, training=training)
        again = first * ops.exp(ops.minimum(scores, REPEAT_LOGIT_MAX))
        return {
            "category": mixture(logits, add_at(ops.zeros_like(logits), x["profile"], again)),
            "item": out["item"],
            "again": self._again(x, user),
            **self._answers(lasting, scalars, training),
        }

    def answers(self, x: dict[str, Any], training: bool | None = None) -> dict[str, Any]:
        """Return the logits of `BINARY` alone, as `call` gives them, without the encoder: a small part of the cost."""
        _, _, lasting, scalars = self._lasting(x)
        return self._answers(lasting, scalars, training)

    def _lasting(self, x: dict[str, Any]) -> tuple[Any, Any, Any, Any]:
        """Return vectors of the profile (B, P, D), where it has a category (B, P), what lasts of a user, scalars."""
        embedded = self.encoder.embed.fields["category"](x["profile"])  # (B, P, D)
        in_profile = ops.cast(x["profile"] > 0, "float32")
        vectors, mean = self.reader(embedded, x["profile_values"], in_profile)
        scalars = (ops.cast(x["scalars"], "float32") - self.scalar_mean) / self.scalar_scale
        return vectors, in_profile, ops.concatenate([mean, ops.cast(scalars, mean.dtype)], axis=-1), scalars

    def _answers(self, lasting: Any, scalars: Any, training: bool | None) -> dict[str, Any]:
        state = self.state_drop(self.binary_state(ops.stop_gradient(lasting)), training=training)
        wide = self.wide(scalars)  # (B, 3)
        return {name: self.heads[name](state, training=training)[:, 0] + wide[:, i] for i, name in enumerate(BINARY)}

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

    def item_logits_by(self, first: int) -> tuple[Any, Any]:
        """Return what `best_items` ranks the known items by, for many batches: see `whole_groups`."""
        table = ops.cast(self.encoder.embed.fields["item"].embeddings, "float32")
        return whole_groups(table[first:], self.item_bias[first:])

    def best_items(
        self, out: dict[str, Any], x: dict[str, Any], first: int, top: int, grouped: tuple[Any, Any] | None = None
    ) -> tuple[Any, Any]:
        """Return the `top` likeliest next items: their probabilities (B, top), best first, and places (B, top).

        Places are those of the known items, whose indices begin with `first`; then, by the place where it stands first
        among the events, those of each item that the vocabulary does not know: such an item can only come again.
        Equally likely ones stand in the order of their places.

        The mixture of all items is never made: what comes again are L items at most, and no other item can be likelier
        than the `top` ones that come anew.

        `grouped` is `item_logits_by(first)`, where it is at hand: to make it is to move the whole table.
        """
        again, index = out["again"], x["item"]
        length, known = ops.shape(again)[1], self.config.items - first
        comes = again > 0
        place = ops.where(index >= first, index - first, known + ops.arange(length))
        total = ops.log(ops.maximum(ops.sum(again, axis=1), 1e-30))
        logit = ops.log(ops.where(comes, again, 1.0))
        if known:
            table = ops.cast(self.encoder.embed.fields["item"].embeddings, "float32")
            own = ops.sum(out["item"][:, None] * ops.take(table, index, axis=0), axis=-1) + ops.take(
                self.item_bias, index
            )
            logit = ops.logaddexp(ops.where(index >= first, own, MASK_LOGIT), logit)
        logit = ops.where(comes, logit, MASK_LOGIT)
        if known:
            table, bias = self.item_logits_by(first) if grouped is None else grouped
            anew, at, total_anew = best_of_all(out["item"], table, bias, min(top, known))
            # Those that also come again stand among the others.
            twice = ops.any(at[:, :, None] == ops.where(comes, place, -1)[:, None], axis=-1)
            logit = ops.concatenate([ops.where(twice, MASK_LOGIT, anew), logit], axis=1)
            place = ops.concatenate([at, place], axis=1)
            total = ops.logaddexp(total, total_anew)
        order = ops.argsort(place, axis=1)
        place = ops.take_along_axis(place, order, axis=1)
        best, at = ops.top_k(ops.take_along_axis(logit, order, axis=1), top)
        return ops.exp(best - total[:, None]), ops.take_along_axis(place, at, axis=1)


def whole_groups(table: Any, bias: Any) -> tuple[Any, Any]:
    """Return embeddings of items (V, D) as (D, V') and their biases (V,) as (V',), filled up to whole groups.

    What fills up is no item, and less likely than any.
    """
    padding = -table.shape[0] % GROUP
    filled = ops.pad(ops.convert_to_tensor(bias), ((0, padding),), constant_values=MASK_LOGIT)
    return ops.transpose(ops.pad(table, ((0, padding), (0, 0)))), filled


def best_of_all(query: Any, table: Any, bias: Any, top: int) -> tuple[Any, Any, Any]:
    """Return the `top` highest of the logits `query @ table + bias`, and how much all of them weigh.

    Equal ones stand in the order of their places. Logits of a few users at a time are in memory.

    Args:
        query: (B, D).
        table: (D, V'), as `whole_groups` gives it.
        bias: (V',), likewise.
        top: V at most.

    Returns:
        values (B, top), places (B, top), and the log of the sum of the exponentials of all logits (B,).
    """
    batch, groups = query.shape[0], bias.shape[0] // GROUP
    users = max(LEAST_USERS, 1 << max(LOGITS_AT_ONCE // (groups * GROUP), 1).bit_length() - 1)
    users = batch if batch % users else users  # all, where they do not divide the batch

    def of_some(query: Any) -> tuple[Any, Any, Any]:
        logits = ops.matmul(query, table) + bias  # (users, V)
        # The best ones lie in the groups with the highest peaks, and there are as few peaks as there are groups.
        grouped = ops.reshape(logits, (-1, GROUP))
        peaks = ops.max(ops.reshape(logits, (-1, groups, GROUP)), axis=-1)
        group = ops.sort(ops.top_k(peaks, min(top, groups))[1], axis=1)  # so that the first of equal ones stays first
        rows = group + groups * ops.arange(ops.shape(group)[0])[:, None]
        within = ops.reshape(ops.take(grouped, rows, axis=0), (-1, min(top, groups) * GROUP))
        value, at = ops.top_k(within, top)
        place = ops.take_along_axis(group, at // GROUP, axis=1) * GROUP + at % GROUP
        # The share of the highest one says what all weigh: one operation, instead of a pass for each step of the sum.
        share = ops.take_along_axis(ops.softmax(logits), place[:, :1], axis=1)
        return value, place, (value[:, :1] - ops.log(share))[:, 0]

    if users == batch:
        return of_some(query)
    parts = ops.map(of_some, ops.reshape(query, (batch // users, users, -1)))
    value, place, total = (ops.reshape(part, (batch, *part.shape[2:])) for part in parts)
    return value, place, total


def events_of(event: dict[str, Any]) -> Any:
    """Return (B, 1) int32: how many real events each user has."""
    return ops.sum(ops.cast(event["behavior"] > 0, "int32"), axis=1, keepdims=True)


def comes_again(values: Any, real: Any, habits: tuple[float, ...]) -> Any:
    """Return the weight with which each category of the profile comes again at first, (B, P); all that is new has 1.

    Args:
        values: (B, P, F), what `Features.profile_values` says of each category.
        real: (B, P), 1 where there is a category.
        habits: the weight of each of `SPEEDS`.
    """
    total = ops.zeros_like(real)
    for name, weight in zip(SPEEDS, habits, strict=True):
        if weight and name == "longterm_shares":
            total = total + weight * values[..., -1] ** 2 * real  # the root of a share
        elif weight:
            events = ops.expm1(values[..., LOG_COUNTS[name]]) * real
            total = total + weight * events / ops.maximum(ops.sum(events, axis=1, keepdims=True), 1)
    return total


def mixture(anew: Any, again: Any) -> Any:
    """Return the logits of what comes anew with these logits, or again with these weights, 0 or more."""
    return ops.logaddexp(anew, ops.log(again + 1e-30))


def as_config(config: NetworkConfig | dict[str, Any]) -> NetworkConfig:
    """Return the config itself, also from what `get_config` made of it."""
    if isinstance(config, NetworkConfig):
        return config
    lists: dict[str, Any] = {name: tuple(config[name]) for name in ("hidden", "habits") if name in config}
    return NetworkConfig(**{**config, **lists})


def as_noted(config: NetworkConfig) -> dict[str, Any]:
    """Return what is kept of a config, which code from before there were habits can read where it has the same."""
    return {name: value for name, value in asdict(config).items() if name != "habits" or value != FADING}


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
    from sklearn.linear_model import LogisticRegression  # where a training begins; scoring does without

    mean, scale = measure_scalars(network, scalars)
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


def measure_scalars(network: Finetuned, scalars: Any) -> tuple[Any, Any]:
    """Let a network see scalars as deviations from those of some rows (N, SCALAR_VALUES); return mean and scale."""
    mean, scale = np.mean(scalars, axis=0), np.maximum(np.std(scalars, axis=0), 1e-2)
    network.scalar_mean.assign(mean)
    network.scalar_scale.assign(scale)
    return mean, scale


def grow(network: Pretrained, old: Pretrained) -> None:
    """Take over the weights of a network whose vocabularies were shorter; what is new keeps its initial values.

    Raises:
        SettingsInvalid: the two differ in more than the vocabularies.
    """
    # Habits are measured anew by each fine-tuning.
    now = network.config
    same = replace(old.config, items=now.items, categories=now.categories, habits=now.habits)
    if same != now:
        raise SettingsInvalid(
            f"a warm start needs the champion's network, {old.config}; received {now}; choose its --preset, "
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
        block.attend._key_dense.trainable = block.attend._output_dense.trainable = False
    for layer in adapted(encoder).values():
        layer.enable_lora(rank)
        layer.bias.trainable = False


def adapted(encoder: Encoder) -> dict[str, Any]:
    """Return the layers that `adapt` gives adapters, by name."""
    return {
        f"{block.name}/{place}": layer
        for block in encoder.blocks
        for place, layer in (
            ("query", block.attend._query_dense),
            ("value", block.attend._value_dense),
            ("widen", block.widen),
            ("narrow", block.narrow),
        )
    }


def share(network: Finetuned) -> None:
    """Leave trainable what several shops can learn together without a word about their catalogues.

    That is every layer but the encoder, of which the second halves of the adapters alone (FFA-LoRA, arXiv:2403.12313):
    an adapter is a product, and products can be averaged by one factor only where the other is the same for all. The
    biases of the outputs say how much of each category and item a shop sells; they stay what they are.
    """
    adapt(network.encoder)
    for layer in adapted(network.encoder).values():
        layer.lora_kernel_a.trainable = False
    network.item_bias.trainable = network.category_bias.trainable = False


def shared(network: Finetuned) -> dict[str, Any]:
    """Return what shops that learn together exchange, by name, after `share`.

    These are the trainable variables, and the first halves of the adapters, which have to be the same at all.
    """
    halves = {
        f"{name}/{half}": getattr(layer, f"lora_kernel_{half}")
        for name, layer in adapted(network.encoder).items()
        for half in "ab"
    }
    rest = {
        f"{layer.name}/{number}": variable
        for layer in network.layers
        if layer is not network.encoder
        for number, variable in enumerate(layer.trainable_variables)
    }
    return halves | rest
