"""Segments of users: what their history and a model's probabilities say is due to them.

A model's card has what the rule needs. Shapes: N users.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from lake.rules import SEGMENTS
from model.arrays import Array

DAY_SECONDS = 86_400
# The percentile of a model's predictions on its validation rows from which a user is at risk, or migrating.
SEGMENT_PERCENTILE = 80


@dataclass(frozen=True)
class SegmentRule:
    """Where the segments begin.

    Attributes:
        new_days: W; who was first seen within so many days is new.
        new_events: m; who has fewer events in the whole history is new.
        at_risk: churn probability from which a user is at risk.
        migrating: migration probability from which a user is migrating.
    """

    new_days: int
    new_events: int
    at_risk: float
    migrating: float

    @staticmethod
    def of(card: dict[str, Any]) -> "SegmentRule":
        """Return the rule of a model: W and m as it was trained with them, and its own thresholds, 0.5 without them."""
        own = card.get("segment_thresholds") or {}
        at_risk, migrating = own.get("at_risk", 0.5), own.get("migrating", 0.5)
        return SegmentRule(int(card["lookback_days"]), int(card["min_events"]), float(at_risk), float(migrating))


def segment_thresholds(migrated: Array, churned: Array) -> dict[str, float]:
    """Return what a model's card says under `segment_thresholds`, from its predictions on validation rows.

    A share of users, not a fixed probability: how many leave or move on depends on the shop and the horizon, and a
    segment of everyone or of no one is of no use to those who write to it.

    Args:
        migrated: `(N,)` predicted probabilities.
        churned: `(N,)` predicted probabilities.

    >>> segment_thresholds(np.linspace(0, 1, 11), np.linspace(0, 0.1, 11))
    {'at_risk': 0.08, 'migrating': 0.8}
    """
    # To six digits that count, not to a millionth: what is rare has small probabilities, and nobody is below 0.
    of_label = {"at_risk": churned, "migrating": migrated}
    return {name: float(f"{np.percentile(said, SEGMENT_PERCENTILE):.6g}") for name, said in of_label.items()}


def segments(history_events: Array, tenure_seconds: Array, churned: Array, migrated: Array, rule: SegmentRule) -> Array:
    """Return each user's segment, `(N,)` strings: the first of these that applies.

    new        first seen within the lookback W, or we have seen fewer than m events: a welcome is due, and there is
               no habit yet that they could leave or change
    at_risk    among the likeliest to leave: to keep them comes before what to offer them
    migrating  among the likeliest to move on to another category: offer what is predicted next
    stable     everyone else: more of what they care for

    >>> rule = SegmentRule(new_days=30, new_events=5, at_risk=0.4, migrating=0.6)
    >>> seen, events = np.array([1, 30, 90, 90, 90]) * 86_400, np.array([50, 4, 50, 50, 50])
    >>> segments(events, seen, np.array([1, 1, 0.4, 0.1, 0.1]), np.array([1, 1, 1, 0.6, 0.5]), rule).tolist()
    ['new', 'new', 'at_risk', 'migrating', 'stable']
    """
    is_new = (tenure_seconds <= rule.new_days * DAY_SECONDS) | (history_events < rule.new_events)
    return np.select([is_new, churned >= rule.at_risk, migrated >= rule.migrating], SEGMENTS[:3], SEGMENTS[3])
