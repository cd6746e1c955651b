"""Splitting by time: no label window reaches into a later part."""

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lake.errors import ModelMissing, SettingsInvalid
from model.training.plan import TrainingPlan, split


@given(
    steps=st.lists(st.integers(1, 9), min_size=3, max_size=60),
    horizon=st.integers(1, 30),
    valid=st.integers(1, 4),
    test=st.integers(1, 4),
)
def test_label_windows_end_before_the_next_part_begins(steps, horizon, valid, test):
    days, day = [], date(2017, 1, 1)
    for step in steps:
        days.append(day)
        day += timedelta(days=step)
    try:
        parts = split(days, horizon, valid, test)
    except SettingsInvalid:
        return
    gap = timedelta(days=horizon)
    assert parts.train[-1] + gap <= parts.valid[0]
    assert parts.valid[-1] + gap <= parts.test[0]
    assert parts.test == days[-test:]
    assert len(parts.valid) <= valid
    # Nothing that could have been used is left out.
    unused = set(days) - set(parts.train) - set(parts.valid) - set(parts.test)
    assert all(day + gap > parts.valid[0] for day in unused if day < parts.valid[0])


def test_too_little_history_is_refused_with_what_to_do():
    days = [date(2017, 1, 1) + timedelta(days=7 * n) for n in range(6)]
    with pytest.raises(SettingsInvalid, match=r"6 from 2017-01-01 to .* gaps of 28 days, leave none for training;"):
        split(days, 28, 2, 3)
    with pytest.raises(SettingsInvalid, match="too few to train on: 0 from - to -"):
        split([], 28, 2, 3)


def test_a_plan_is_read_as_it_was_written(lake):
    plan = TrainingPlan(
        "weekly:1", date(2017, 3, 1), {"examples": 3}, [date(2017, 1, 1)], [date(2017, 1, 1)], [date(2017, 2, 1)],
        [date(2017, 2, 20)], 7, 30, 5, 50, None, 1,
    )  # fmt: skip
    plan.save()
    assert TrainingPlan.load("weekly:1") == plan


def test_a_run_without_a_plan_says_what_to_run(lake):
    with pytest.raises(ModelMissing, match=r"run .r. has no plan at .*_models/r; run model\.prepare"):
        TrainingPlan.load("r")
