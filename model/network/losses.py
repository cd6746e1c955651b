"""Losses: sampled softmax with log-Q correction, and the objectives of pretraining and fine-tuning.

Shapes: B users, L events, D width, N sampled negatives, K labels of a user, V items.
"""

from typing import Any

import keras
from keras import ops

from model.network.layers import MASK_LOGIT, is_real
from model.network.network import BINARY, Finetuned, Pretrained, mixture

# Of all binary answers together, for each row.
ANSWERS_LOSS = "answers_loss"

Sums = tuple[Any, Any, dict[str, tuple[Any, Any]]]


def probability(index: Any, size: int) -> Any:
    """Return the probability of each index in one draw: log((k+2)/(k+1)) / log(size+1).

    A vocabulary is sorted by falling frequency, so this is close to how often items occur (Zipf's law).
    """
    k = ops.cast(index, "float32")
    return ops.log1p(1 / (k + 1)) / ops.log(ops.cast(size + 1, "float32"))


def draw(seed: Any, count: int, size: int) -> tuple[Any, Any]:
    """Draw `count` indices below `size` as a set.

    Returns:
        the indices (N,), sorted, and (N,) bool: false for those that were drawn before.
    """
    u = keras.random.uniform((count,), seed=seed)
    drawn = ops.exp(u * ops.log(ops.cast(size + 1, "float32"))) - 1
    drawn = ops.sort(ops.cast(ops.clip(drawn, 0, size - 1), "int32"))
    first = ops.concatenate([ops.ones((1,), "bool"), drawn[1:] != drawn[:-1]])
    return drawn, first


def log_inclusion(index: Any, count: int, size: int) -> Any:
    """Return the log of the probability that `draw` has an index in its set."""
    return ops.log(-ops.expm1(count * ops.log1p(-probability(index, size))))


def sampled_softmax(true: Any, true_index: Any, sampled: Any, negatives: tuple[Any, Any], size: int) -> Any:
    """Return the cross entropy of each label against itself and the sampled negatives.

    Each logit is lowered by the log of the probability Q that a draw includes it. The logits that minimize this loss
    are then those that minimize the full softmax (candidate sampling; Bengio and Senecal 2008, with the log-Q
    correction as in Yi et al. 2019, doi:10.1145/3298689.3346996), and when everything is drawn, both are the same.

    Args:
        true: logits (...,) of the labels.
        true_index: their indices (...,).
        sampled: logits (..., N) of the negatives.
        negatives: what `draw` returned.
        size: number of indices that are drawn from.
    """
    drawn, first = negatives
    count = ops.shape(drawn)[0]
    corrected = true - log_inclusion(true_index, count, size)
    against = sampled - log_inclusion(drawn, count, size)
    # A negative that is the label itself is none, and one that was drawn twice counts once.
    against = ops.where(first & (true_index[..., None] != drawn), against, MASK_LOGIT)
    return _of_first(ops.concatenate([corrected[..., None], against], axis=-1))


class PretrainTask:
    """Next item (sampled) and next category (full softmax), at every position of every user."""

    def __init__(self, model: Pretrained, negatives: int = 512):
        self.model, self.negatives = model, negatives

    def loss(self, batch: dict[str, Any], training: bool = True) -> Sums:
        """Return sums over positions; see model/training/loop.py."""
        out = self.model(batch, training=training)
        real = is_real(batch["behavior"])[:, 1:] * batch["weight"][:, None]
        item, category = batch["item"][:, 1:], batch["category"][:, 1:]
        items = self.model.encoder.embed.fields["item"].embeddings
        size = self.model.config.items
        negatives = draw(self.model.draws if training else 1, self.negatives, size)
        query = ops.cast(out["item"][:, :-1], "float32")
        bias = self.model.item_bias
        true = ops.sum(query * ops.take(items, item, axis=0), axis=-1) + ops.take(bias, item)
        sampled = ops.matmul(query, ops.transpose(ops.take(items, negatives[0], axis=0)))
        sampled = sampled + ops.take(bias, negatives[0])
        item_loss = sampled_softmax(true, item, sampled, negatives, size)
        logits = out["category"][:, :-1]
        category_loss = keras.losses.sparse_categorical_crossentropy(category, logits, from_logits=True)
        has_item, has_category = real * _positive(item), real * _positive(category)
        item_sum, category_sum = ops.sum(item_loss * has_item), ops.sum(category_loss * has_category)
        metrics = {
            "next_item_loss": (item_sum, ops.sum(has_item)),
            "next_category_loss": (category_sum, ops.sum(has_category)),
        }
        return item_sum + category_sum, ops.sum(real), metrics


class FinetuneTask:
    """All heads at once; a label that is null takes no part.

    Args:
        model: the network.
        negatives: sampled items shared by the batch.
        item_weight, binary_weight: how much these losses count beside that of the next category.
        known_last: whether batches hold the encoder's last state, as `last` (B, D): that of a frozen one is a constant.
    """

    def __init__(
        self,
        model: Finetuned,
        negatives: int = 512,
        item_weight: float = 0.1,
        binary_weight: float = 0.5,
        known_last: bool = False,
    ):
        self.model, self.negatives, self.known_last = model, negatives, known_last
        self.item_weight, self.binary_weight = item_weight, binary_weight

    def loss(self, batch: dict[str, Any], training: bool = True) -> Sums:
        """Return sums over users; see model/training/loop.py."""
        out = self.model(batch, training=training, last=batch["last"] if self.known_last else None)
        weight = batch["weight"]
        label = batch["next_category"]
        per_user = keras.losses.sparse_categorical_crossentropy(label, out["category"], from_logits=True)
        labelled = weight * _positive(label)
        total = ops.sum(per_user * labelled)
        metrics = {"next_category_loss": (ops.sum(per_user * labelled), ops.sum(labelled))}
        true_logit = ops.take_along_axis(out["category"], label[:, None], axis=1)
        ahead = ops.sum(ops.cast(out["category"][:, 1:] > true_logit, "float32"), axis=1)
        metrics["recall_at_5"] = (ops.sum(labelled * ops.cast(ahead < 5, "float32")), ops.sum(labelled))
        moved = labelled * ops.cast(batch["migrated"] > 0.5, "float32")
        metrics["recall_at_5_migrated"] = (ops.sum(moved * ops.cast(ahead < 5, "float32")), ops.sum(moved))
        item_sum, item_count = self._next_items(batch, out, training)
        metrics["next_item_loss"] = (item_sum, item_count)
        total = total + self.item_weight * item_sum
        answered, of_answers = answers_loss(out, batch)
        return total + self.binary_weight * answered, ops.sum(weight), metrics | of_answers

    def _next_items(self, batch: dict[str, Any], out: dict[str, Any], training: bool) -> tuple[Any, Any]:
        """Return the summed loss over users, each user's next items counting 1 together, and the number of users."""
        label, slot, size = batch["next_items"], batch["next_slots"], self.model.config.items  # (B, K)
        drawn, first = draw(self.model.draws if training else 1, self.negatives, size)
        items, bias = self.model.encoder.embed.fields["item"].embeddings, self.model.item_bias
        again = ops.take_along_axis(out["again"], ops.maximum(slot, 0), axis=1) * ops.cast(slot >= 0, "float32")
        anew = ops.einsum("bd,bkd->bk", out["item"], ops.take(items, label, axis=0)) + ops.take(bias, label)
        anew = ops.where(label > 0, anew, MASK_LOGIT)
        sampled = ops.matmul(out["item"], ops.transpose(ops.take(items, drawn, axis=0))) + ops.take(bias, drawn)
        sampled = sampled - log_inclusion(drawn, self.negatives, size)
        # Candidates are the label, what was drawn, and all that may come again; those are certain, not drawn: nothing
        # has to be corrected for them.
        true = ops.where(slot >= 0, mixture(anew, again), anew - log_inclusion(label, self.negatives, size))
        # (B, K, N); index 0 is no item.
        others = ops.where(first & (drawn > 0) & (label[..., None] != drawn), sampled[:, None, :], MASK_LOGIT)
        rest = ops.log(ops.maximum(ops.sum(out["again"], axis=1)[:, None] - again, 1e-30))
        loss = _of_first(ops.concatenate([true[..., None], rest[..., None], others], axis=-1))
        labelled = ops.cast((label > 0) | (slot >= 0), "float32")
        per_user = ops.sum(loss * labelled, axis=1) / ops.maximum(ops.sum(labelled, axis=1), 1.0)
        users = batch["weight"] * ops.cast(ops.sum(labelled, axis=1) > 0, "float32")
        return ops.sum(per_user * users), ops.sum(users)


class AnswersTask:
    """The binary heads alone, the rest of the network being as it is; a label that is null takes no part.

    Args:
        model: the network; only its `binary_layers` are to be trainable.
    """

    def __init__(self, model: Finetuned):
        self.model = model

    def loss(self, batch: dict[str, Any], training: bool = True) -> Sums:
        """Return sums over users; see model/training/loop.py."""
        total, metrics = answers_loss(self.model.answers(batch, training=training), batch)
        return total, ops.sum(batch["weight"]), metrics


def answers_loss(logits: dict[str, Any], batch: dict[str, Any]) -> tuple[Any, dict[str, tuple[Any, Any]]]:
    """Return the sum of the losses of all labels that are known, and {metric: (sum, weight)} of each and of all.

    That of all is for each row, known or not, so it is a number also where no row knows some label.
    """
    total, metrics = ops.zeros(()), {}
    for name in BINARY:
        labelled = batch["weight"] * ops.cast(batch[name] >= 0, "float32")
        loss = keras.losses.binary_crossentropy(batch[name][:, None], logits[name][:, None], from_logits=True)
        metrics[f"{name}_loss"] = (ops.sum(loss * labelled), ops.sum(labelled))
        total = total + ops.sum(loss * labelled)
    metrics[ANSWERS_LOSS] = (total, ops.sum(batch["weight"]))
    return total, metrics


def _of_first(logits: Any) -> Any:
    """Return the cross entropy (...,) of logits (..., N) of which the first is that of the label.

    By the one operation that gives loss and gradient together: a sum of exponentials, and what it teaches, would go
    through so many logits a dozen times.
    """
    first = ops.zeros(ops.shape(logits)[:-1], "int32")
    return keras.losses.sparse_categorical_crossentropy(first, logits, from_logits=True)


def _positive(index: Any) -> Any:
    return ops.cast(index > 0, "float32")
