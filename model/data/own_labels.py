"""Labels that follow from a user's own events alone, for a training with differential privacy.

Where a user turns to several categories alike, `examples` names the one that all users together turn to more (decision
0008). So with one user more or less, the labels of others may change, and an accountant that counts what one user's
gradient adds would promise too much. Here each user has an order of the categories of their own, by a hash, and that
decides. No order that is the same for all: a network would learn it.
"""

import hashlib
from typing import Any

import numpy as np
import pandas as pd

from lake.rules import SIGNIFICANCE
from model.data.vocabulary import Vocabulary

# What the labels are made from, beside those of the table.
COLUMNS = ("user_id", "next_categories", "next_shares", "dominant_category", "g_p_value")


def own_labels(rows: pd.DataFrame, categories: Vocabulary) -> pd.DataFrame:
    """Return the rows with `next_category_key` and `migrated` as the user's own events have them.

    A row without a tie stays as it is. A category that the vocabulary does not know is no label after a tie: its key is
    not in the row.

    Args:
        rows: of `examples`, with `COLUMNS`.
        categories: keys and ids of categories.
    """
    key_of = dict(zip(categories.ids, categories.keys.tolist(), strict=True))
    keys = rows["next_category_key"].to_numpy(np.int64, copy=True)
    moved = rows["migrated"].to_numpy(object, copy=True)
    users, dominant, p_values = (rows[name].to_numpy(object) for name in ("user_id", "dominant_category", "g_p_value"))
    for row, (shares, names) in enumerate(zip(rows["next_shares"], rows["next_categories"], strict=True)):
        if shares is None or len(shares) < 2:
            continue
        tied = [name for name, share in zip(names, shares, strict=True) if share == shares[0]]
        if len(tied) > 1:
            chosen = min(tied, key=order_of(users[row]))
            keys[row] = key_of.get(chosen, 0)
            if not pd.isna(moved[row]):
                moved[row] = bool(dominant[row] != chosen and p_values[row] < SIGNIFICANCE)
    return rows.assign(next_category_key=keys, migrated=pd.array(moved, "boolean"))


def order_of(user: str) -> Any:
    """Return what sorts categories in the order of a user."""
    seed = hashlib.blake2b(user.encode(), digest_size=16).digest()
    return lambda category: hashlib.blake2b(category.encode(), key=seed, digest_size=8).digest()
