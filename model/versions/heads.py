"""The binary heads of a trained network, as its files note them, compared with the labels of the code."""

from lake import storage
from lake.errors import HeadsDiffer
from lake.labels import NAMES

# Of a model whose files do not note its heads: it was trained before any other was added.
UNNOTED = ["migrated", "purchased", "churned"]


def require_heads(folder: str) -> None:
    """Check that the model in a folder has a head for each label, in the order of `lake.labels`.

    A network that is pretrained only has no heads, and passes.

    Raises:
        HeadsDiffer: it was trained for other labels.
    """
    if not storage.exists(storage.join(folder, "finetuned.weights.h5")):
        return
    heads = (storage.read_json(storage.join(folder, "network.json")) or {}).get("binary", UNNOTED)
    if heads != list(NAMES):
        raise HeadsDiffer(
            f"the model at {folder} has the heads {', '.join(heads)}, and lake/labels.py lists {', '.join(NAMES)}; "
            "train again with model.prepare --cold, or run the code that this model was trained with"
        )
