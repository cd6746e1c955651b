"""The landing area: when a day is complete, and which of its files are data."""

from datetime import date
from pathlib import Path

import pytest

from lake.errors import LandingMissing
from lake.landing import Landing
from lake.settings import settings

DAY = date(2025, 1, 1)


@pytest.fixture
def landing(lake: Path) -> Landing:
    return Landing(str(lake / "landing"))


@pytest.fixture
def marked(lake: Path) -> Landing:
    """The same folder, whose days are complete when they have a marker."""
    return Landing(str(lake / "landing"), "_SUCCESS")


def test_the_settings_name_the_landing_and_its_marker(monkeypatch):
    monkeypatch.setenv("MEANDER_LANDING", "s3://shop/landing/")
    monkeypatch.setenv("MEANDER_LANDING_MARKER", "_DONE")
    assert Landing.of(settings()) == Landing("s3://shop/landing/", "_DONE")
    assert Landing.of(settings()).folder(DAY) == "s3://shop/landing/dt=2025-01-01"


def test_a_day_has_landed_when_its_folder_is_there(landing, lake):
    assert not landing.has_landed(DAY)
    (lake / "landing" / "dt=2025-01-01").mkdir(parents=True)
    assert landing.has_landed(DAY)
    assert landing.files(DAY) == [], "a day without a single event is an empty folder"


def test_with_a_marker_the_folder_alone_does_not_do(marked, lake, land):
    file = land(DAY, ["{}"])
    assert not marked.has_landed(DAY)
    with pytest.raises(LandingMissing, match=r"2025-01-01 has not landed.*/landing/dt=2025-01-01/_SUCCESS"):
        marked.files(DAY)
    (lake / "landing" / "dt=2025-01-01" / "_SUCCESS").touch()
    assert marked.has_landed(DAY)
    assert marked.files(DAY) == [str(file)]


def test_a_missing_day_is_named_with_the_folder_that_should_be_there(landing):
    with pytest.raises(LandingMissing, match=r"2025-01-01 has not landed: there is no .*/landing/dt=2025-01-01"):
        landing.files(DAY)


def test_hidden_files_and_folders_are_not_data(landing, land):
    hidden = ("_SUCCESS", ".part-0.jsonl.crc", "_temporary/0/part-1.jsonl", ".staging/part-2.jsonl")
    for name in (*hidden, *(f"hour=01/{name}" for name in hidden)):
        land(DAY, ["{}"], name)
    data = [str(land(DAY, ["{}"], name)) for name in ("a.jsonl", "hour=01/b.jsonl")]
    assert landing.files(DAY) == data


def test_a_folder_that_is_only_marked_is_a_day_without_an_event(marked, lake):
    # On an object store an empty folder cannot be.
    (lake / "landing" / "dt=2025-01-01").mkdir(parents=True)
    (lake / "landing" / "dt=2025-01-01" / "_SUCCESS").touch()
    assert marked.files(DAY) == []


def test_a_neighbouring_day_is_another_one(landing, land):
    land("2025-01-10", ["{}"])
    assert not landing.has_landed(DAY)


def test_the_days_of_a_landing_are_its_dated_folders(landing, lake):
    assert landing.days() == []
    # A folder that only looks like a day is none. A disk lists many in an order of its own.
    days = [date(2025, 1, n) for n in range(1, 29)]
    for name in (*(f"dt={day}" for day in days[::-1]), "dt=2025-02-30", "incoming"):
        (lake / "landing" / name).mkdir(parents=True)
    assert landing.days() == days
