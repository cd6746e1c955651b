"""The landing area: when a day is complete, and which of its files are data."""

from datetime import date

import pytest

from lake import landing
from lake.errors import LandingMissing

DAY = date(2025, 1, 1)


def test_a_day_has_landed_when_its_folder_is_there(lake):
    assert not landing.has_landed(DAY)
    (lake / "landing" / "dt=2025-01-01").mkdir(parents=True)
    assert landing.has_landed(DAY)
    assert landing.files(DAY) == [], "a day without a single event is an empty folder"


def test_with_a_marker_the_folder_alone_does_not_do(lake, land, monkeypatch):
    monkeypatch.setenv("MEANDER_LANDING_MARKER", "_SUCCESS")
    file = land(DAY, ["{}"])
    assert not landing.has_landed(DAY)
    with pytest.raises(LandingMissing, match=r"2025-01-01 has not landed.*/landing/dt=2025-01-01/_SUCCESS"):
        landing.files(DAY)
    (lake / "landing" / "dt=2025-01-01" / "_SUCCESS").touch()
    assert landing.has_landed(DAY)
    assert landing.files(DAY) == [str(file)]


def test_a_missing_day_is_named_with_the_folder_that_should_be_there(lake):
    with pytest.raises(LandingMissing, match=r"2025-01-01 has not landed: there is no .*/landing/dt=2025-01-01"):
        landing.files(DAY)


def test_hidden_files_and_folders_are_not_data(land):
    hidden = ("_SUCCESS", ".part-0.jsonl.crc", "_temporary/0/part-1.jsonl", ".staging/part-2.jsonl")
    for name in (*hidden, *(f"hour=01/{name}" for name in hidden)):
        land(DAY, ["{}"], name)
    data = [str(land(DAY, ["{}"], name)) for name in ("a.jsonl", "hour=01/b.jsonl")]
    assert landing.files(DAY) == data


def test_a_folder_that_is_only_marked_is_a_day_without_an_event(lake, monkeypatch):
    # On an object store an empty folder cannot be.
    monkeypatch.setenv("MEANDER_LANDING_MARKER", "_SUCCESS")
    (lake / "landing" / "dt=2025-01-01").mkdir(parents=True)
    (lake / "landing" / "dt=2025-01-01" / "_SUCCESS").touch()
    assert landing.files(DAY) == []


def test_a_neighbouring_day_is_another_one(land):
    land("2025-01-10", ["{}"])
    assert not landing.has_landed(DAY)


def test_the_days_of_a_landing_are_its_dated_folders(lake):
    assert landing.days() == []
    # A folder that only looks like a day is none. A disk lists many in an order of its own.
    days = [date(2025, 1, n) for n in range(1, 29)]
    for name in (*(f"dt={day}" for day in days[::-1]), "dt=2025-02-30", "incoming"):
        (lake / "landing" / name).mkdir(parents=True)
    assert landing.days() == days
