"""What the suites share: how many rows are usual, and what part of the input is rejected."""

from datetime import date, timedelta

import pandas as pd

from expectations.suite import rejected_share, with_volume_ratio
from lake.publish import publish
from lake.staging import Staged
from tests.lake.stagings import stage_files

D = date(2025, 1, 30)
# Partitions of `events` are owned by landing day; on what date the events happened is of no matter here.
LONG_AGO = date(2024, 11, 30)


def before(days: int) -> date:
    return D - timedelta(days=days)


def staged(table: str = "events") -> Staged:
    return Staged(table, "r", "stage", D, D, [D], 1, 1, [])


def volumes(rows: dict[date, int]) -> list[tuple[float | None, float | None]]:
    """Return the usual rows and the ratio of each day, when a run stages so many rows."""
    found = with_volume_ratio(staged(), pd.DataFrame({"day": list(rows), "rows": list(rows.values())}))
    pairs = found[["usual_rows", "volume_ratio"]].astype(object)
    return list(pairs.where(pairs.notna(), None).itertuples(index=False, name=None))


def test_usual_is_the_median_of_the_28_days_before_published_or_staged_by_the_same_run(lake):
    published = {
        before(29): 50,  # too long ago for D, and just near enough for the day before it
        before(28): 1,
        before(6): 2,
        before(5): 3,
        before(4): 4,
        before(3): 5,
        before(1): 1,  # what the run replaces
        D: 1_000,  # a day is not measured by itself, nor by a later one
        D + timedelta(days=1): 500,
    }
    rows = [{"dt": LONG_AGO, "landed": day} for day, count in published.items() for _ in range(count)]
    stage_files("events", "before", rows, list(published), 1)
    publish("events", "before")
    assert volumes({before(2): 60, before(1): 70, D: 10}) == [
        (None, None),  # 50, 1, 2, 3, 4, 5: six days are too few
        (4, 17.5),  # and 60: seven are enough
        (4, 2.5),  # 1, 2, 3, 4, 5, 60 and 70: the mean would be 20.7
    ]


def test_where_nothing_was_published_and_where_nothing_is_usual_no_volume_is_unusual(lake):
    week = {before(n): 0 for n in range(7, 0, -1)}
    assert volumes({**week, D: 5}) == [(None, None)] * 7 + [(0, None)]


def test_the_rejected_share_is_of_the_input_and_of_none_it_is_none():
    assert list(rejected_share(pd.Series([1, 0]), pd.Series([20, 0]))) == [0.05, 0]
