"""Benches beside ours know of an event on the evening of a date what our tables do."""

import pandas as pd

from tests.bench.known_events import first_arrivals, known_at

EVENTS = pd.DataFrame(
    [
        ("03", "tea", "2026-01-02 09:00", "2026-01-02", "2026-01-02"),
        ("01", "milk", "2026-01-02 09:00", "2026-01-02", "2026-01-05"),  # late, and delivered once more after that
        ("01", "milk", "2026-01-02 09:00", "2026-01-02", "2026-01-04"),
        ("02", None, "2026-01-01 09:00", "2026-01-01", "2026-01-01"),  # a search
        ("04", "salt", "2026-01-03 09:00", "2026-01-03", "2026-01-03"),
    ],
    columns=["event_id", "item_id", "event_time", "dt", "landed"],
)


def test_an_event_that_had_not_arrived_is_not_known():
    known = first_arrivals(EVENTS)
    assert known[["event_id", "landed"]].to_numpy().tolist() == [
        ["01", "2026-01-04"], ["03", "2026-01-02"], ["04", "2026-01-03"]
    ]  # fmt: skip
    for day, ids in (("2026-01-01", []), ("2026-01-02", ["03"]), ("2026-01-03", ["03", "04"])):
        assert known_at(known, day)["event_id"].tolist() == ids
    assert known_at(known, "2026-01-04")["event_id"].tolist() == ["01", "03", "04"]
