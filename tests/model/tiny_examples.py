"""Rows of `examples` with the columns that models read: built from what a user did, before and after T."""

from collections import Counter
from collections.abc import Sequence
from datetime import date
from typing import Any

import numpy as np
import pandas as pd

from lake.labels import NAMES


def key_of(category: str) -> int:
    """Return a key for a category, as the table has one for each id."""
    return 1 + int.from_bytes(category.encode()[:6], "big")


def example(
    user: str,
    before: Sequence[str],
    after: Sequence[str],
    *,
    day: str = "2026-01-31",
    older: Sequence[str] = (),
    items: Sequence[int] = (),
    next_items: Sequence[int] = (),
    **more: Any,
) -> dict[str, Any]:
    """Return one row: a user with the categories `older`, then `before` in the lookback, and `after` in the horizon.

    The newest event comes last; dominant is the most frequent, among equals the smaller id. Events are a day apart.
    """

    def ranked(events: Sequence[str]) -> tuple[list[str], np.ndarray]:
        counts = sorted(Counter(events).items(), key=lambda entry: (-entry[1], entry[0]))
        return [category for category, _ in counts], np.array([n for _, n in counts], np.int64)

    history = [*older, *before]
    now, now_counts = ranked(before)
    ever, ever_counts = ranked(history)
    then, then_counts = ranked(after)
    recent = Counter(before)
    newest = {category: len(history) - at for at, category in enumerate(history)}
    migrated = None if len(before) < 2 or len(after) < 2 else now[0] != then[0]
    row = {
        "user_id": user,
        "dt": pd.Timestamp(date.fromisoformat(day)),
        "item_keys": np.array(items, np.int64),
        "category_keys": np.array([key_of(category) for category in history], np.int64),
        "current_categories": now,
        "current_counts": now_counts,
        "current_shares": now_counts / max(now_counts.sum(), 1),
        "dominant_category": now[0] if now else None,
        "longterm_categories": ever,
        "longterm_category_keys": np.array([key_of(category) for category in ever], np.int64),
        "longterm_shares": ever_counts / max(ever_counts.sum(), 1),
        "longterm_counts": ever_counts,
        "longterm_days": ever_counts,
        "longterm_current_counts": np.array([recent[category] for category in ever], np.int64),
        "longterm_week_counts": np.array([min(recent[category], 1) for category in ever], np.int64),
        "longterm_age_seconds": np.array([newest[category] * 86_400 for category in ever], np.int64),
        "recency_seconds": 86_400,
        "frequency": len(before),
        "active_days": len(before),
        "purchases": len(before),
        "spend": 2.0 * len(before),
        "history_events": len(history),
        "history_days_active": len(history),
        "tenure_seconds": 86_400 * max(len(history), 1),
        "week_frequency": min(len(before), 7),
        "next_categories": then,
        "next_counts": then_counts,
        "next_shares": then_counts / max(then_counts.sum(), 1),
        "next_category": then[0] if then else None,
        "next_item_keys": np.array(next_items, np.int64),
        **dict.fromkeys(NAMES, bool(after)),  # every event is of every kind that a label may ask for
        "migrated": migrated,
        "churned": not after,
    }
    return row | more


def examples(*rows: dict[str, Any]) -> pd.DataFrame:
    """Return the rows as a frame, typed as a table read from Parquet is."""
    return pd.DataFrame(list(rows)).astype({"migrated": "boolean"})


def shop(users: int, days: Sequence[str], seed: int = 0) -> pd.DataFrame:
    """Return rows of a shop in which habits matter: users keep to a favourite, and the busy ones come back."""
    draws = np.random.default_rng(seed)
    categories = np.array([f"c{n:02d}" for n in range(12)])
    rows = []
    for day in days:
        for user in range(users):
            taste = np.full(12, 0.02)
            taste[user % 7] = 0.5
            taste[(user + 3) % 7] += 0.3
            taste /= taste.sum()
            busy = 2 + user % 9
            older, before = (draws.choice(categories, size=n, p=taste).tolist() for n in (3 * busy, busy))
            comes = draws.random() < busy / 11
            after = draws.choice(categories, size=busy if comes else 0, p=taste).tolist()
            items, bought = draws.integers(1, 40, size=busy), draws.integers(1, 40, size=len(after))
            rows.append(
                example(f"u{user}", before, after, day=day, older=older, items=items, next_items=np.unique(bought))
            )
    return examples(*rows)
