"""A field that vanishes is found by the days before, and what is usual raises no alarm."""

import json
import math
from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest

from expectations.events import extend, failed_otherwise
from expectations.fields import FIELDS, MIN_EXPECTED, compare, fields_are_there, recent_shares, shares, with_fields
from jobs.input_counts import MAY_BE_NULL
from lake.publish import publish
from lake.settings import settings
from lake.staging import Staged
from tests.lake.stagings import stage_files

D = date(2025, 3, 1)


def before(*values: float, field: str = "price") -> dict[date, dict[str, float]]:
    """Return the shares of the days before D, the last value for the day before."""
    return {D - timedelta(days=n): {field: value} for n, value in enumerate(reversed(values), 1)}


def told(share: float, *earlier: float, accepted: int = 1000) -> tuple[bool, float]:
    return compare(D, accepted, {**before(*earlier), D: {"price": share}}, "price")


WEEK = [0.1] * 7


@pytest.mark.parametrize(
    ("share", "earlier", "accepted", "vanished", "ratio"),
    [
        pytest.param(0.0, WEEK, 1000, True, 0.0, id="gone"),
        pytest.param(0.04, WEEK, 1000, False, 0.4, id="less than half"),
        pytest.param(0.06, WEEK, 1000, False, 0.6, id="a little less"),
        pytest.param(0.2, WEEK, 1000, False, 1.0, id="more"),
        pytest.param(0.0, WEEK[1:], 1000, False, None, id="six days are too few"),
        pytest.param(0.0, WEEK, 499, False, None, id="49.9 rows are too few"),
        pytest.param(0.0, WEEK, 500, True, 0.0, id="50 rows are enough"),
        pytest.param(0.0, [*WEEK, 0.0], 1000, False, None, id="a day before had none either"),
        pytest.param(0.03, [0.1, 0.1, 0.1, 0.1, 0.1, 0.02, 0.1], 1000, False, 1.0, id="a day before was like it"),
        pytest.param(0.0, [0.0] * 7, 1000, False, None, id="it was never there"),
    ],
)
def test_what_a_share_says(share, earlier, accepted, vanished, ratio):
    found = told(share, *earlier, accepted=accepted)
    assert found[0] is vanished
    assert math.isnan(found[1]) if ratio is None else found[1] == pytest.approx(ratio)


def test_only_the_28_days_before_count():
    old = {D - timedelta(days=n): {"price": 0.1} for n in (*range(23, 29), 29)}
    later = {D + timedelta(days=1): {"price": 0.1}}
    assert compare(D, 1000, {**old, **later, D: {"price": 0.0}}, "price")[0] is False
    assert compare(D, 1000, {**old, D - ONE: {"price": 0.1}, D: {"price": 0.0}}, "price")[0] is True


ONE = timedelta(days=1)


def test_a_field_without_a_column_has_nothing_to_say():
    assert compare(D, 1000, {**before(*WEEK), D: {"query": 0.0}}, "price")[0] is False


def test_days_that_differ_by_chance_alone_raise_hardly_an_alarm():
    # A year of small days: 1,000 rows, of which 2 to 30 % have the field. Nothing is ever wrong.
    random = np.random.default_rng(7)
    alarms = 0
    for rate in (0.02, 0.05, 0.1, 0.3):
        drawn = random.binomial(1000, rate, size=365) / 1000
        known = {D + timedelta(days=n): {"price": float(share)} for n, share in enumerate(drawn)}
        for day in known:
            vanished, ratio = compare(day, 1000, known, "price")
            alarms += vanished or ratio < 0.5
    assert alarms == 0


def test_the_fields_are_those_that_the_job_counts():
    assert FIELDS == MAY_BE_NULL
    assert MIN_EXPECTED == 50, "the table above names it"


def counts(day: date, accepted: int, **filled: int) -> dict:
    by_day = {str(day): {"input": accepted, "accepted": accepted, "ignored": 0, "rejected": {}}}
    return {"by_day": by_day, "filled": {str(day): filled}, "may_vanish": []}


def test_shares_are_of_accepted_rows_and_a_day_without_any_has_none():
    assert shares(counts(D, 200, price=50, query=0)) == {D: {"price": 0.25, "query": 0.0}}
    assert shares(counts(D, 0, price=0)) == {}
    assert shares({"by_day": {}}) == {}, "a run from before fields were counted"


@pytest.mark.parametrize(("may_vanish", "vanished"), [([], [1]), (["price"], [0])])
def test_a_day_is_compared_with_what_readers_see_of_the_days_before(lake, may_vanish, vanished):
    for n in range(8, 0, -1):
        day = D - n * ONE
        stage_files("events", f"r{n}", [], [day], None, counts=counts(day, 1000, price=100, query=10, item_id=0))
        publish("events", f"r{n}")
    # The day before was delivered again, and that counts: half of it has a price.
    stage_files("events", "again", [], [D - ONE], None, counts=counts(D - ONE, 1000, price=500, query=1, item_id=0))
    publish("events", "again")
    now = {**counts(D, 1000, price=0, query=4, item_id=0), "may_vanish": may_vanish}
    staged = Staged("events", "r", "s", D, D, [D], 1, 1, [], counts=now)
    found = with_fields(staged, pd.DataFrame({"day": [D]}))
    assert list(found["price_vanished"]) == vanished
    # That of query is not known: it should be in 10 rows. category_id has no column.
    ratios = {name: float(found[f"{name}_ratio"].iloc[0]) for name in FIELDS}
    assert ratios["price"] == 0.0
    assert all(math.isnan(ratios[name]) for name in ("query", "item_id", "category_id"))
    expected = {expectation.column for expectation in fields_are_there()}
    assert expected == set(found.columns) - {"day"}


def test_a_day_without_a_field_is_no_excuse_for_the_days_after_it_in_a_chunk(lake):
    """Each day of a chunk is judged as if the days before it had been loaded one by one: a failed one is not there."""
    old = [D - n * ONE for n in range(9, 0, -1)]
    for day in old:
        stage_files("events", f"r{day}", [], [day], None, counts=counts(day, 1000, price=100))
        publish("events", f"r{day}")
    # The day before was published with prices, and is delivered again without; the two after it have none either.
    chunk = [D - ONE, D, D + ONE, D + 2 * ONE]
    parts = [counts(day, 1000, price=price) for day, price in zip(chunk, (0, 0, 0, 100), strict=True)]
    now = {
        "by_day": {k: v for part in parts for k, v in part["by_day"].items()},
        "filled": {k: v for part in parts for k, v in part["filled"].items()},
    }

    def vanished(**more) -> list[int]:
        staged = Staged("events", "r", "s", chunk[0], chunk[-1], chunk, 1, 1, [], counts={**now, **more})
        return list(with_fields(staged, pd.DataFrame({"day": chunk}))["price_vanished"])

    assert vanished() == [1, 1, 1, 0]
    assert vanished(may_vanish=["price"]) == [0, 0, 0, 0]


def test_a_day_that_fails_otherwise_is_no_excuse_for_the_days_after_it(lake):
    """Of 12 days, the ninth has 20 rows left after rejections, too few to miss a price; the last two have none."""
    days = [D + n * ONE for n in range(12)]
    rows = [20 if n == 8 else 100 for n in range(12)]
    prices = [0 if n in (8, 10, 11) else 90 for n in range(12)]
    parts = [counts(day, accepted, price=price) for day, accepted, price in zip(days, rows, prices, strict=True)]
    merged = {name: {k: v for part in parts for k, v in part[name].items()} for name in ("by_day", "filled")}
    merged["by_day"][str(days[8])] |= {"input": 100, "rejected": {"missing_user": 80}}
    staged = Staged("events", "r", "s", days[0], days[-1], days, 1, 1, [], counts=merged)
    for each in merged["by_day"].values():
        each.setdefault("rejected", {})
    figures = pd.DataFrame({"day": days, "rows": rows, "copies": rows, "late": 0, "after_landing": 0})
    found = extend(None, None, staged, figures, settings())
    assert list(found["price_vanished"]) == [0] * 10 + [1, 1]


@pytest.mark.parametrize("broken", ["rejected_share", "accounted_for", "strangers"])
def test_which_days_fail_whatever_fields_they_have(broken):
    figures = pd.DataFrame(
        {"day": [D, D + ONE], "rejected_share": 0.05, "input": 10, "accounted_for": 10, "strangers": 0}
    )
    assert failed_otherwise(figures, settings()) == set()
    figures[broken] = [figures[broken][0], 9]
    assert failed_otherwise(figures, settings()) == {D + ONE}


def test_commits_tell_the_newest_of_a_day_that_was_not_refused():
    def commit(refused: list[str], accepted: int, price: int) -> dict[str, str]:
        return {"refused": json.dumps(refused), "counts": json.dumps(counts(D, accepted, price=price))}

    made = [commit([str(D)], 1, 1), commit([], 4, 1), commit([], 2, 2)]
    assert recent_shares(made) == {D: {"price": 0.25}}
