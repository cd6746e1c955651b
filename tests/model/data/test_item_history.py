"""What users ever did with items is known as it was on the evening of a date, each event once."""

from datetime import date, datetime

import numpy as np
import pandas as pd
import pytest

from lake.publish import publish
from lake.table import Table
from model.data.item_history import ItemHistory, by_hash
from tests.jobs.naive import key
from tests.lake.stagings import stage_files
from tests.model.item_histories import history

DAY = [date(2025, 1, n) for n in range(1, 11)]
TEA, MILK, SALT = (key(name) for name in ("tea", "milk", "salt"))


def event(event_id: str, user: str, item: str | None, day: int, hour: int = 9, landed: int | None = None) -> dict:
    when = datetime(2025, 1, day, hour)
    arrived = DAY[(landed or day) - 1]
    return {
        "event_id": event_id, "user_id": user, "event_time": when, "item_id": item, "dt": when.date(), "landed": arrived
    }  # fmt: skip


@pytest.fixture
def events(lake):
    rows = [
        event("04", "ann", "tea", 2, 8),
        event("03", "ann", "milk", 2, 8),  # at the same instant; the smaller id comes first
        event("02", "ann", "tea", 2, 7),
        event("05", "ann", "tea", 5),
        event("06", "ann", None, 5, 10),  # a search
        event("07", "ann", "salt", 4, landed=7),  # late
        event("05", "ann", "tea", 5, landed=6),  # delivered again
        event("08", "bob", "milk", 3),
        event("09", "cem", "salt", 3),  # nobody asks for
        event("10", "ann", "salt", 9),
    ]
    stage_files("events", "e", rows, sorted({row["landed"] for row in rows}), 1)
    publish("events", "e")
    return Table("events")


def asked(*rows: tuple[str, int]) -> pd.DataFrame:
    return pd.DataFrame({"user_id": [user for user, _ in rows], "dt": [DAY[day - 1] for _, day in rows]})


def pairs(history: ItemHistory, *rows: tuple[str, int]) -> list[tuple]:
    """Return row, key, count, days, age, span and place of each pair."""
    found = history.pairs(asked(*rows))
    keys = history.keys[found.columns].tolist()
    numbers = (found.count, found.days, found.age, found.span, found.newest)
    return sorted(zip(found.rows.tolist(), keys, *(values.tolist() for values in numbers), strict=True))


def test_each_event_counts_once_as_it_was_known_on_the_evening_of_the_date(events):
    history = ItemHistory.read(events, ["bob", "ann"], DAY[8])
    assert history.keys.tolist() == sorted([TEA, MILK, SALT])
    # On the 5th: tea twice on the 2nd and once today, milk between; the salt of the 4th had not arrived.
    assert pairs(history, ("ann", 5)) == sorted([(0, TEA, 3, 2, 0, 3, 0), (0, MILK, 1, 1, 3, 0, 2)])
    # On the 7th it had: it stands before the tea of the 5th.
    assert pairs(history, ("bob", 7), ("ann", 7)) == sorted(
        [(0, MILK, 1, 1, 4, 0, 0), (1, TEA, 3, 2, 2, 3, 0), (1, MILK, 1, 1, 5, 0, 3), (1, SALT, 1, 1, 3, 0, 1)]
    )
    assert pairs(history, ("ann", 1), ("bob", 2)) == []


def test_nobody_but_those_asked_for_is_there(events):
    history = ItemHistory.read(events, ["bob", "ann"], DAY[8])
    frame = asked(("cem", 9), ("ann", 9), ("dan", 9))
    assert history.has(frame).tolist() == [False, True, False]
    assert set(history.pairs(frame).rows) == {1}
    assert ItemHistory.read(events, ["dan"], DAY[8]).events == 0
    assert pairs(ItemHistory.read(events, [], DAY[8]), ("ann", 9)) == []


def test_nothing_is_read_that_happened_or_arrived_after_the_last_date(events):
    history = ItemHistory.read(events, ["ann"], DAY[5])
    assert pairs(history, ("ann", 9)) == sorted([(0, TEA, 3, 2, 4, 3, 0), (0, MILK, 1, 1, 7, 0, 2)])


def test_events_come_user_by_user_in_the_order_of_their_time(events):
    history = ItemHistory.read(events, ["bob", "ann"], DAY[8])
    ((owners, items),) = history.until(DAY[7])
    assert owners.tolist() == [0, 0, 0, 0, 0, 1]
    assert history.keys[items].tolist() == [TEA, MILK, TEA, SALT, TEA, MILK]
    ((owners, _),) = history.until(DAY[5])
    assert len(owners) == 5  # without the salt


def test_of_too_many_events_users_are_left_out_with_all_that_they_did_and_told(events, caplog):
    # In the order of their hashes: dan has none, cem one event, ann six and bob one.
    assert by_hash(["ann", "bob", "cem", "dan"]).tolist() == ["dan", "cem", "ann", "bob"]
    everyone = ["ann", "bob", "cem", "dan"]
    whole = ItemHistory.read(events, everyone, DAY[8], most_events=8)
    assert whole.events == 8
    assert caplog.text == ""
    part = ItemHistory.read(events, everyone, DAY[8], most_events=7)
    assert part.users.tolist() == ["ann", "cem", "dan"]
    assert pairs(part, ("ann", 2), ("bob", 9), ("cem", 9)) == sorted(
        [(0, TEA, 2, 1, 0, 0, 0), (0, MILK, 1, 1, 0, 0, 1), (2, SALT, 1, 1, 6, 0, 0)]
    )
    assert part.has(asked(("bob", 9), ("dan", 9))).tolist() == [False, True]
    assert part.since is None
    assert "item baselines know the events of 3 of 4 users: with the others it would be more than 7" in caplog.text
    assert ItemHistory.read(events, everyone, DAY[8], most_events=6).users.tolist() == ["cem", "dan"]
    assert ItemHistory.read(events, everyone, DAY[8], most_events=0).users.tolist() == ["dan"]


def test_a_part_of_a_history_has_the_same_users_as_one_that_was_read_with_this_budget(events):
    everyone = ["ann", "bob", "cem", "dan"]
    whole = ItemHistory.read(events, everyone, DAY[8])
    for most in (0, 1, 2, 7, 8):
        read, part = ItemHistory.read(events, everyone, DAY[8], most_events=most), whole.within(most)
        assert part.users.tolist() == read.users.tolist()
        asked_of = [(user, 9) for user in everyone]
        assert pairs(part, *asked_of) == pairs(read, *asked_of)
        assert part.keys.tolist() == whole.keys.tolist()


def test_users_who_are_left_out_are_as_all_whatever_their_ids():
    """Ids are given out in the order of registration: the first hundred are the oldest customers."""
    ever = history(**{f"u{n:03}": [("2026-01-01", n)] * 2 for n in range(1000)})
    part = ever.within(601)
    assert len(part.users) == 300
    assert part.events == 600
    by_hundred = np.bincount(ever.keys[part.item] // 100) / 2
    assert by_hundred.min() > 15
    assert by_hundred.max() < 45


@pytest.mark.parametrize(("most_rows", "items"), [(4, [TEA, SALT]), (3, [SALT]), (0, [SALT])])
def test_of_too_large_a_table_the_oldest_dates_are_not_read(events, caplog, most_rows, items):
    """One row is of the 9th, which is read in any case, and three are of the 5th."""
    history = ItemHistory.read(events, ["ann", "bob"], DAY[8], most_rows=most_rows)
    assert history.keys[history.item].tolist() == items
    assert history.since == DAY[5 if len(items) == 1 else 4]
    assert f"from {history.since} on" in caplog.text


def test_rows_that_landed_after_the_last_date_are_not_looked_through(events):
    """Of the 5th two rows had landed on the 5th, and one more on the 6th; of the 2nd and the 3rd there are five."""
    history = ItemHistory.read(events, ["ann"], DAY[4], most_rows=7)
    assert history.since is None
    assert history.events == 4
    assert ItemHistory.read(events, ["ann"], DAY[4], most_rows=6).since == DAY[2]
