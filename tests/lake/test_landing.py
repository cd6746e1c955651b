"""The landing area: when a day is complete, and which of its files are data."""

import os
from datetime import date
from pathlib import Path

import pytest

from lake.errors import LandingMissing, LandingUnreadable
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


@pytest.fixture
def folder(lake: Path, land) -> Path:
    """The folder of a day with one file."""
    return land(DAY, ["{}"]).parent


def test_links_inside_a_day_are_files_of_it_and_so_is_what_a_linked_day_holds(landing, folder, lake):
    (folder / "again.jsonl").symlink_to("part-0.jsonl")
    (lake / "landing" / "dt=2025-01-02").symlink_to(folder)
    for day in (DAY, date(2025, 1, 2)):
        assert [Path(file).name for file in landing.files(day)] == ["again.jsonl", "part-0.jsonl"]


@pytest.mark.parametrize(
    "target", ["/etc/passwd", "../dt=2025-01-02/part-0.jsonl", "../../landing/dt=2025-01-02/part-0.jsonl"]
)
def test_a_link_that_leads_out_of_its_day_is_named_and_the_day_is_not_read(landing, folder, land, target):
    land("2025-01-02", ["{}"])
    (folder / "stolen.jsonl").symlink_to(target)
    with pytest.raises(LandingUnreadable, match=r"/dt=2025-01-01/stolen\.jsonl: .* found a link that leads out of it"):
        landing.files(DAY)


@pytest.mark.parametrize("target", ["/etc", ".", "nowhere", "itself", "/dev/zero"])
def test_a_link_to_what_is_no_file_is_named_too(landing, folder, target):
    (folder / "itself").symlink_to(target)
    with pytest.raises(LandingUnreadable, match=r"/dt=2025-01-01/itself: .* found something else"):
        landing.files(DAY)


def test_a_pipe_which_would_be_read_for_ever_is_named(landing, folder):
    os.mkfifo(folder / "pipe")
    with pytest.raises(LandingUnreadable, match=r"/dt=2025-01-01/pipe: expected a file"):
        landing.files(DAY)


def test_a_hidden_link_is_not_followed(landing, folder):
    (folder / "_archive").symlink_to("/")
    (folder / ".passwd").symlink_to("/etc/passwd")
    assert [Path(file).name for file in landing.files(DAY)] == ["part-0.jsonl"]


@pytest.mark.parametrize("name", ["10:30.jsonl", "hour=10:30/a.jsonl"])
def test_a_name_that_spark_cannot_read_is_refused_with_what_to_do(landing, folder, land, name):
    land(DAY, ["{}"], name)
    with pytest.raises(LandingUnreadable, match=f"/dt=2025-01-01/{name}: expected a name without `:`.*rename it"):
        landing.files(DAY)


@pytest.mark.parametrize("name", ["a\n.jsonl", "a\x1b[2J.jsonl", "a\u202ejsonl.exe", os.fsdecode(b"\xff.jsonl")])
def test_a_name_that_cannot_be_shown_is_told_in_ascii(landing, folder, land, name):
    land(DAY, ["{}"], name)
    with pytest.raises(LandingUnreadable, match="expected a name that can be stored and shown everywhere") as raised:
        landing.files(DAY)
    assert ascii(name)[1:-1] in str(raised.value)
    assert str(raised.value).isascii()
