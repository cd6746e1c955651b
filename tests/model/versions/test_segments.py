"""Which segment a user is in, by the rule of a model."""

import numpy as np

from model.versions.segments import SegmentRule, segment_thresholds, segments
from tests.model.states import DAY


def test_a_user_is_in_the_first_segment_that_applies():
    days, events = np.array([30, 31, 31, 31, 31, 31]) * DAY, np.array([99, 4, 5, 5, 5, 5])
    churned, migrated = np.array([1, 1, 0.6, 0.59, 0.59, 0]), np.array([1, 1, 1, 0.5, 0.49, 0])
    card = {"lookback_days": 30, "min_events": 5, "segment_thresholds": {"at_risk": 0.6, "migrating": 0.5}}
    rule = SegmentRule.of(card)
    assert rule == SegmentRule(new_days=30, new_events=5, at_risk=0.6, migrating=0.5)
    assert SegmentRule.of({"lookback_days": 7, "min_events": 3}) == SegmentRule(7, 3, at_risk=0.5, migrating=0.5)
    found = segments(events, days, churned, migrated, rule).tolist()
    assert found == ["new", "new", "at_risk", "migrating", "stable", "stable"]


def test_of_what_is_rare_a_fifth_of_the_users_is_at_risk_or_migrating_too():
    # All probabilities round to 0 at six decimals.
    rare = np.linspace(1e-9, 3e-7, 100).astype(np.float32)
    found = segment_thresholds(rare, rare[::-1] / 7)
    rule = SegmentRule(30, 5, **found)
    ones = np.full(100, 99)
    assert (segments(ones, ones * DAY, np.zeros(100), rare, rule) == "migrating").sum() == 20
    assert (segments(ones, ones * DAY, rare[::-1] / 7, np.zeros(100), rule) == "at_risk").sum() == 20
