"""Which segment a user is in, by the rule of a model."""

import numpy as np

from model.versions.segments import SegmentRule, segments
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
