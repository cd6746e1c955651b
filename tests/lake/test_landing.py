"""The landing area: when a day is complete, and which of its files are data."""

import os
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from lake import storage
from lake.errors import LandingMissing, LandingUnreadable, SettingsInvalid
from lake.landing import Landing, LandingFile
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
    monkeypatch.setenv("MEANDER_LANDING_QUIET_MINUTES", "3")
    assert Landing.of(settings()) == Landing("s3://shop/landing/", "_DONE", timedelta(minutes=3))
    assert Landing.of(settings()).folder(DAY) == "s3://shop/landing/dt=2025-01-01"


@pytest.mark.parametrize("address", ["/data/dt=2024-01-01/landing", "s3://shop/dt=2024-01-01/landing", "dt=2024-01-01"])
def test_a_landing_below_a_folder_of_a_day_is_refused(monkeypatch, address):
    monkeypatch.setenv("MEANDER_LANDING", address)
    with pytest.raises(SettingsInvalid, match=r"MEANDER_LANDING=\S+ lies below a folder dt=2024-01-01, which would be"):
        Landing.of(settings())
    monkeypatch.setenv("MEANDER_LANDING", address.replace("dt=2024-01-01", "dt=export"))
    assert Landing.of(settings()).address == address.replace("dt=2024-01-01", "dt=export")


def test_a_landing_below_the_folder_of_a_day_in_which_the_command_runs_is_refused(monkeypatch, tmp_path):
    (tmp_path / "dt=2024-01-01").mkdir()
    monkeypatch.chdir(tmp_path / "dt=2024-01-01")
    monkeypatch.setenv("MEANDER_LANDING", "landing")
    with pytest.raises(SettingsInvalid, match=r"below a folder dt=2024-01-01"):
        Landing.of(settings())


def test_a_day_has_landed_when_its_folder_is_there(landing, lake):
    assert not landing.has_landed(DAY)
    (lake / "landing" / "dt=2025-01-01").mkdir(parents=True)
    assert landing.has_landed(DAY)
    assert landing.files(DAY) == [], "a day without a single event is an empty folder"


def test_a_folder_whose_date_is_written_in_another_way_is_named(landing, lake, land):
    land("2025-1-1", ["{}"])
    land("2025-01-02", ["{}"])
    with pytest.raises(LandingMissing, match=r"The folder dt=2025-1-1 is not read; rename it to dt=2025-01-01"):
        landing.files(DAY)
    with pytest.raises(LandingMissing) as raised:
        landing.files(date(2025, 1, 3))
    assert "is not read" not in str(raised.value)


def test_with_a_marker_the_folder_alone_does_not_do(marked, lake, land):
    file = land(DAY, ["{}"])
    assert not marked.has_landed(DAY)
    with pytest.raises(LandingMissing, match=r"2025-01-01 has not landed.*/landing/dt=2025-01-01/_SUCCESS"):
        marked.files(DAY)
    (lake / "landing" / "dt=2025-01-01" / "_SUCCESS").touch()
    assert marked.has_landed(DAY)
    assert marked.files(DAY) == [str(file)]


def test_of_several_markers_each_has_to_be_there(lake, land):
    landing = Landing(str(lake / "landing"), "web/_SUCCESS, app/_DONE")
    web, app = land(DAY, ["{}"], "web/a.jsonl"), land(DAY, ["{}"], "app/a.jsonl")
    (app.parent / "_DONE").touch()
    assert landing.lacks(DAY).startswith(f"there is no {web.parent}/_SUCCESS; deliver it")
    (web.parent / "_SUCCESS").touch()
    assert landing.files(DAY) == [str(app), str(web)]
    (app.parent / "_DONE").unlink()
    with pytest.raises(LandingMissing, match=r"there is no \S+/dt=2025-01-01/app/_DONE; deliver it"):
        landing.files(DAY)


def test_a_marker_with_a_star_is_any_file_of_that_kind_and_a_quiet_time(lake, land, clock):
    began = datetime.now(UTC)
    day = (began + timedelta(minutes=11)).date()
    landing = Landing(str(lake / "landing"), "web/*, app/*", QUIET)
    assert landing.lacks(day).startswith(f"there is no {landing.folder(day)}/web/*; deliver it")
    land(day, ["{}"], "web/hour=01/a.jsonl")
    land(day, ["{}"], "app/_temporary/a.jsonl")
    land(day, ["{}"], "happy/a.jsonl")
    clock(began + timedelta(minutes=11))
    assert landing.lacks(day).startswith(f"there is no {landing.folder(day)}/app/*; deliver it"), "it is hidden"
    assert landing.lacks(day).endswith("; where nothing happened, a file without a byte does")
    land(day, [], "app/nothing.jsonl").write_bytes(b"")
    assert landing.has_landed(day)
    clock(began)
    assert "changed 0 minutes ago" in landing.lacks(day)
    assert Landing(str(lake / "landing"), "web/*, app/nothing.jsonl", QUIET).lacks(day), "one star asks for quiet"
    assert Landing(str(lake / "landing"), "app/nothing.jsonl", QUIET).has_landed(day)


def test_a_marker_with_a_star_lists_nothing_behind_a_link_out_of_the_landing(lake, land, tmp_path, monkeypatch):
    land(DAY, ["{}"])
    (tmp_path / "outside").mkdir()
    link = lake / "landing" / "dt=2025-01-02"
    link.symlink_to(tmp_path / "outside")
    monkeypatch.setattr("lake.storage.list_entries", lambda _: pytest.fail("it lists what is behind the link"))
    with pytest.raises(LandingUnreadable, match=r"found a link that leads out of it"):
        Landing(str(lake / "landing"), "*.jsonl").delivery(date(2025, 1, 2))


def test_a_table_beside_the_log_has_the_markers_without_a_folder(lake):
    beside = Landing(str(lake), "_SUCCESS, web/*, app-*, app/_SUCCESS", QUIET).beside("items")
    assert (beside.address, beside.markers, beside.quiet) == (f"{lake}/items", ["_SUCCESS"], QUIET)


def test_a_table_beside_the_log_does_not_wait_for_the_files_of_exporters(lake, clock):
    day = datetime.now(UTC).date()
    beside = Landing(str(lake / "landing"), "web-*, app-*", QUIET).beside("items")
    began = datetime.now(UTC)
    folder = Path(beside.folder(day))
    folder.mkdir(parents=True)
    (folder / "items.jsonl").write_text("{}")
    clock(began)
    assert "changed 0 minutes ago" in beside.lacks(day)
    clock(began + timedelta(minutes=11))
    assert beside.has_landed(day)


@pytest.mark.parametrize(
    ("marker", "why"),
    [
        pytest.param("web/*, */_SUCCESS", r"\*/_SUCCESS: \* stands for data files", id="a hidden file"),
        pytest.param("_done/*", r"_done/\*: \* stands for data files", id="in a hidden folder"),
        pytest.param("web?/a.jsonl", r"web\?/a\.jsonl: \* alone", id="another character of patterns"),
        pytest.param("[ab]/*", r"\[ab\]/\*: \* alone", id="a set of characters"),
    ],
)
def test_a_marker_that_can_never_be_there_is_refused(monkeypatch, marker, why):
    monkeypatch.setenv("MEANDER_LANDING_MARKER", marker)
    with pytest.raises(SettingsInvalid, match=f"MEANDER_LANDING_MARKER has {why}"):
        Landing.of(settings())
    monkeypatch.setenv("MEANDER_LANDING_MARKER", "web/*, app_/*.b_, app/_SUCCESS")
    assert Landing.of(settings()).markers == ["web/*", "app_/*.b_", "app/_SUCCESS"]


@pytest.fixture
def clock(monkeypatch):
    """Move the clock, and not that of the disk."""

    def at(moment: datetime) -> None:
        monkeypatch.setattr("lake.landing.now", lambda: moment)

    return at


QUIET = timedelta(minutes=10)


@pytest.mark.parametrize("days_ago", [0, 1])
def test_without_a_marker_a_recent_day_is_complete_once_it_has_been_quiet(lake, land, clock, days_ago):
    landing = Landing(str(lake / "landing"), quiet=QUIET)
    began = datetime.now(UTC)
    # As of the end of the test, which may come after midnight.
    day = (began + timedelta(minutes=11)).date() - timedelta(days=days_ago)
    file = land(day, ["{}"], "hour=01/a.jsonl")
    # A copy that keeps the times of the original has arrived just now.
    for copied in (file, file.parent, file.parent.parent):
        os.utime(copied, (0, 0))
    assert not landing.has_landed(day)
    with pytest.raises(LandingMissing, match=r"dt=.* changed 0 minutes ago, .* for 10 minutes \(MEANDER_LANDING_QUIET"):
        landing.delivery(day)
    clock(began + timedelta(minutes=9))
    assert not landing.has_landed(day)
    clock(began + timedelta(minutes=11))
    assert landing.has_landed(day)
    assert list(landing.delivery(day)) == ["hour=01/a.jsonl"]


def test_a_recent_folder_without_files_and_one_that_is_still_written_are_not_quiet(lake, land, clock):
    landing = Landing(str(lake / "landing"), quiet=QUIET)
    began = datetime.now(UTC)
    (lake / "landing" / f"dt={began.date()}").mkdir(parents=True)
    assert not landing.has_landed(began.date()), "the shop has made it, and its files may follow"
    clock(began + timedelta(minutes=11))
    assert landing.has_landed(began.date())
    # What is hidden is being written.
    written = land(began.date(), ["{}"], "_temporary/part-0.jsonl")
    os.utime(written, ((began + timedelta(minutes=5)).timestamp(),) * 2)
    assert not landing.has_landed(began.date())


def test_a_day_of_the_past_costs_no_look_at_its_files_and_a_marker_needs_no_quiet_time(lake, land, monkeypatch):
    today = datetime.now(UTC).date()
    land(today, ["{}"])
    (lake / "landing" / f"dt={today}" / "_SUCCESS").touch()
    land(today - timedelta(days=2), ["{}"])
    monkeypatch.setattr("lake.landing.last_change", lambda _: pytest.fail("it looks at each file"))
    assert Landing(str(lake / "landing"), quiet=QUIET).has_landed(today - timedelta(days=2))
    assert Landing(str(lake / "landing"), "_SUCCESS", QUIET).has_landed(today)
    assert Landing(str(lake / "landing")).has_landed(today)


def test_a_time_far_ahead_of_the_clock_holds_no_day_back(lake, land, clock):
    today = datetime.now(UTC).date()
    land(today, ["{}"])
    clock(datetime.now(UTC) - timedelta(minutes=9))
    assert not Landing(str(lake / "landing"), quiet=QUIET).has_landed(today), "that much, clocks differ"
    clock(datetime.now(UTC) - timedelta(minutes=20))
    assert Landing(str(lake / "landing"), quiet=QUIET).has_landed(today)


def test_on_an_object_store_a_recent_day_is_quiet_by_the_times_of_its_objects(lake_on_s3, clock):
    landing, began = Landing(f"{lake_on_s3}/landing", quiet=QUIET), datetime.now(UTC)
    fs, folder = storage.filesystem(landing.folder(began.date()))
    assert not landing.has_landed(began.date())
    fs.pipe_file(f"{folder}/a.jsonl", b"{}")
    assert not landing.has_landed(began.date())
    clock(began + timedelta(minutes=11))
    assert landing.has_landed(began.date())


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


def test_a_link_is_as_large_and_as_old_as_the_file_behind_it(landing, folder):
    (folder / "again.jsonl").symlink_to("part-0.jsonl")
    os.utime(folder / "part-0.jsonl", ns=(5, 7))
    assert landing.delivery(DAY)["again.jsonl"] == landing.delivery(DAY)["part-0.jsonl"] == LandingFile(3, "7")


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


@pytest.mark.parametrize("target", ["/etc", "../secret", "/"])
def test_a_day_that_is_a_link_out_of_the_landing_is_not_read(landing, lake, target):
    """Whoever may write to the landing could have every file read that the jobs may read."""
    (lake / "secret").mkdir()
    (lake / "secret" / "a.jsonl").write_text("{}")
    (lake / "landing").mkdir(exist_ok=True)
    (lake / "landing" / "dt=2025-01-01").symlink_to(target)
    with pytest.raises(LandingUnreadable, match=r"dt=2025-01-01: expected a folder, .* a link that leads out of it"):
        landing.files(DAY)
    # Who only looks at it, such as the page, lists nothing of the other place: it may be all files of a machine.
    assert landing.present(DAY) == {}
    today = datetime.now(UTC).date()
    (lake / "landing" / f"dt={today}").symlink_to(target)
    assert Landing(str(lake / "landing"), quiet=timedelta(days=2)).lacks(today) == ""


def test_the_landing_itself_may_be_a_link(lake, land):
    land(DAY, ["{}"])
    (lake / "elsewhere").symlink_to(lake / "landing")
    assert len(Landing(str(lake / "elsewhere")).files(DAY)) == 1


@pytest.mark.parametrize("denied", ["dt=2025-01-01", "dt=2025-01-01/late"])
def test_a_folder_that_may_not_be_listed_is_no_empty_one(landing, folder, monkeypatch, denied):
    """Its files would be missing from a day that is published as passed; without any, the day would be empty."""
    (folder / "late").mkdir()
    scandir = os.scandir

    def scan(place):
        if str(place).endswith(denied):
            raise PermissionError(13, "Permission denied", str(place))
        return scandir(place)

    monkeypatch.setattr(os, "scandir", scan)
    with pytest.raises(LandingUnreadable, match=rf"/{denied}: expected a folder that can be listed, found Permission"):
        landing.files(DAY)


@pytest.mark.parametrize("error", [OSError(16, "Please reduce your request rate"), TimeoutError("no answer")])
def test_a_storage_that_is_busy_says_nothing_of_the_landing(landing, folder, monkeypatch, error):
    """So s3fs tells of SlowDown and the like: a task that is tried again may list the folder."""

    def busy(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("lake.landing.storage.list_entries", busy)
    with pytest.raises(type(error)) as raised:
        landing.files(DAY)
    assert raised.value is error


def test_a_file_in_place_of_the_folder_of_a_day_is_no_empty_day(landing, lake):
    (lake / "landing").mkdir()
    (lake / "landing" / f"dt={DAY}").write_text("{}")
    with pytest.raises(LandingUnreadable, match=r"dt=2025-01-01: expected a folder .* found NotADirectoryError"):
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
