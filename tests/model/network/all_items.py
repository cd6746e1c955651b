"""The logits of all items that may come next, each of them computed: what ranking a few of them has to agree with."""

from keras import ops

from model.network.layers import add_at
from model.network.network import MASK_LOGIT, mixture


def item_logits(network, out, x, first):
    """Return (B, V - first + L) logits: of the known items, then of those that the vocabulary does not know."""
    table = ops.cast(network.encoder.embed.fields["item"].embeddings, "float32")
    anew = ops.matmul(out["item"], ops.transpose(table)) + network.item_bias
    in_vocabulary = mixture(anew, add_at(ops.zeros_like(anew), x["item"], out["again"]))[:, first:]
    unknown = ops.where(x["item"] < first, out["again"], 0.0)
    unknown = ops.where(unknown > 0, ops.log(ops.maximum(unknown, 1e-30)), MASK_LOGIT)
    return ops.concatenate([in_vocabulary, unknown], axis=1)
