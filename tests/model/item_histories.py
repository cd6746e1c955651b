"""Histories of items, written by hand: what each user did on which day."""

from collections.abc import Sequence
from datetime import date

import numpy as np
import pandas as pd

from model.data.item_history import ItemHistory


def history(**events: Sequence[tuple[str, int]]) -> ItemHistory:
    """Return the history of users with these events, each a date and the key of an item, in the order of their time.

    Each landed on its date.
    """
    users = sorted(events)
    days = [(date.fromisoformat(day) - date(1970, 1, 1)).days for user in users for day, _ in events[user]]
    items = np.array([item for user in users for _, item in events[user]], np.int64)
    keys, columns = np.unique(items, return_inverse=True)
    first = np.cumsum([0, *(len(events[user]) for user in users)])
    day = np.array(days, np.int32)
    return ItemHistory(pd.Index(users, dtype=object), first, columns.astype(np.int32), day, day, keys)
