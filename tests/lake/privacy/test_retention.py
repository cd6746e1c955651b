"""What is not kept for ever goes when it is old, in a commit that makes nothing stale; all else stays."""

import shutil
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from deltalake import DeltaTable

from lake.compact import live_files
from lake.errors import UpkeepFailed
from lake.landing import Landing
from lake.places import table_path
from lake.privacy.retention import (
    dated_before,
    end_file,
    end_texts,
    expire,
    expire_landing,
    expire_rows,
    written_before,
)
from lake.publish import publish
from lake.settings import settings
from lake.table import Table
from lake.upkeep import main as upkeep
from lake.upkeep import upkeep as keep
from tests.lake.stagings import JAN_1, JAN_2, JAN_3, read_files, rejected, stage_files

QUARANTINE = "quarantine"
LATER = datetime.now(UTC) + timedelta(days=1)


def put(table: str, run: str, rows: list, days: list[date]) -> None:
    stage_files(table, run, rows, days, None)
    publish(table, run)


def events(*days: date) -> list[dict]:
    return [{"event_id": f"{day}", "event_time": None, "dt": day, "landed": JAN_3} for day in days]


def without_texts(moment: datetime, **more) -> int:
    """Let the texts go of the rows that were written before a moment, and return in how many files there were some."""
    path = table_path(QUARANTINE)
    return expire(QUARANTINE, path, written_before(moment), lambda file: end_texts(path, file, **more), **more).files


def test_the_texts_of_rejected_rows_go_and_the_rows_stay(lake):
    put(QUARANTINE, "r", rejected(JAN_1, "a", "b") + rejected(JAN_2, "c"), [JAN_1, JAN_2])
    before = Table(QUARANTINE)
    assert without_texts(datetime.now(UTC) - timedelta(days=1)) == 0
    assert without_texts(LATER, dry_run=True) == 2
    assert Table(QUARANTINE).version == before.version, "there was no commit"
    assert without_texts(LATER) == 2
    after = Table(QUARANTINE)
    assert read_files(after, "reason") == [(JAN_1, "missing_user")] * 2 + [(JAN_2, "missing_user")]
    assert {row["raw"] for day in (JAN_1, JAN_2) for row in after.head(day, 9)} == {None}
    assert after.rows_by() == before.rows_by()
    assert [after.basis(day) for day in (JAN_1, JAN_2)] == [before.basis(day) for day in (JAN_1, JAN_2)]
    assert after.commits() == before.commits(), "it is not a publish"
    assert without_texts(LATER) == 0, "and again there is nothing to do"


def test_a_file_in_the_place_of_another_is_as_old_as_that(lake):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lake.publish.time", SimpleNamespace(time=lambda: 1000.0, sleep=time.sleep))
        put(QUARANTINE, "r", rejected(JAN_1, "a", "b"), [JAN_1])
    assert [file.written for file in live_files(Table(QUARANTINE).delta)] == [1_000_000]
    assert without_texts(datetime.fromtimestamp(1001, UTC)) == 1
    assert [file.written for file in live_files(Table(QUARANTINE).delta)] == [1_000_000]


def test_events_of_old_dates_go_and_a_publish_in_between_is_not_lost(lake, monkeypatch):
    put("events", "r", events(JAN_1, JAN_2, JAN_3), [JAN_3])

    def publish_in_between(delta):
        if Table("events").version == 1:
            files = dated_before(JAN_2)(delta)
            put("events", "again", events(JAN_1, JAN_2), [JAN_3])
            return files
        return dated_before(JAN_2)(delta)

    assert expire("events", table_path("events"), publish_in_between, end_file).files == 1
    assert Table("events").rows_by() == {JAN_2: 1}


def test_old_landing_days_go_as_a_whole(lake, land, monkeypatch):
    monkeypatch.setenv("MEANDER_KEEP_LANDING_DAYS", "2")
    today = datetime.now(UTC).date()
    young, old = today - timedelta(days=2), today - timedelta(days=3)
    for day in (old, young):
        land(day, ["{}"])
        land(day, [], name="_SUCCESS")
    landing = Landing.of(settings())
    would = expire_landing(settings(), dry_run=True)
    assert (would.files_before, would.files_after, would.removed, landing.days()) == (4, 4, 2, [old, young])
    did = expire_landing(settings())
    assert (did.files_before, did.files_after, did.bytes_before, did.bytes_after, did.removed) == (4, 2, 6, 3, 2)
    assert landing.days() == [young]
    assert len(list(Path(landing.folder(young)).iterdir())) == 2


def test_of_an_old_day_that_is_a_link_only_the_link_goes(lake, land, monkeypatch):
    monkeypatch.setenv("MEANDER_KEEP_LANDING_DAYS", "2")
    file = land(JAN_1, ["{}"])
    elsewhere = lake / "archive"
    file.parent.rename(elsewhere)
    file.parent.symlink_to(elsewhere)
    assert expire_landing(settings()).removed == 0
    assert (Landing.of(settings()).days(), [each.name for each in elsewhere.iterdir()]) == ([], [file.name])


def test_upkeep_applies_the_settings_and_says_what_it_did(lake, land, monkeypatch):
    land(JAN_1, ["{}"])
    put("events", "r", events(JAN_1), [JAN_3])
    put("quarantine", "r", rejected(JAN_1, "young"), [JAN_1])
    monkeypatch.setenv("MEANDER_KEEP_EVENTS_DAYS", "365")
    monkeypatch.setenv("MEANDER_KEEP_LANDING_DAYS", "1")
    # Its dates are years ago; its texts are as old as the test.
    parts = {part.what: part.removed for part in keep(settings())}
    assert parts["landing"] == 1
    assert (Table("events").rows_by(), read_files(Table("quarantine"), "raw")) == ({}, [(JAN_1, "young")])


def test_by_default_events_and_landing_are_kept_for_ever(lake, land):
    land(JAN_1, ["{}"])
    put("events", "r", events(JAN_1), [JAN_3])
    keep(settings())
    assert Table("events").rows_by() == {JAN_1: 1}
    assert Landing.of(settings()).days() == [JAN_1]


def test_events_are_kept_as_long_as_interests_are_computed_from_them(lake, monkeypatch):
    put("events", "r", events(JAN_1), [JAN_3])
    monkeypatch.setenv("MEANDER_KEEP_EVENTS_DAYS", "364")
    with pytest.raises(UpkeepFailed, match="MEANDER_KEEP_EVENTS_DAYS must be 0 or at least MEANDER_HISTORY_DAYS=365"):
        upkeep(["--run-id", "r"])
    assert Table("events").rows_by() == {JAN_1: 1}


# ---- what cannot be read, or removed ----


def age(monkeypatch: pytest.MonkeyPatch, days: int) -> None:
    """Let what is staged and published from now on be some days old."""
    then = time.time() - days * 86400
    monkeypatch.setattr("lake.publish.time", SimpleNamespace(time=lambda: then, sleep=time.sleep))


def problems() -> dict[str, str]:
    return {part.what: part.problem for part in keep(settings()) if part.problem}


@pytest.mark.parametrize("is_gone", [False, True], ids=["cut off", "gone"])
def test_an_old_file_that_cannot_be_read_keeps_no_other_text_and_is_named_until_it_can(lake, monkeypatch, is_gone):
    monkeypatch.setenv("MEANDER_KEEP_RAW_DAYS", "30")
    with monkeypatch.context() as patch:
        age(patch, 31)
        put(QUARANTINE, "r", rejected(JAN_1, "a") + rejected(JAN_2, "b") + rejected(JAN_3, "c"), [JAN_1, JAN_2, JAN_3])
    (file,) = [file.path for file in Table(QUARANTINE).files if file.partition["dt"] == JAN_2]
    place = Path(table_path(QUARANTINE), file)
    content = place.read_bytes()
    place.unlink() if is_gone else place.write_bytes(content[:-20])
    error = "FileNotFoundError" if is_gone else "ArrowInvalid"
    assert problems()[QUARANTINE].startswith(
        f"1 files with texts that are no longer kept cannot be read: {file} ({error}); see to the rights or the "
        "connection, if it is that; otherwise put them back from a copy, or load their days again and publish them"
    )
    texts = {day: [row["raw"] for row in Table(QUARANTINE).head(day, 9)] for day in (JAN_1, JAN_3)}
    assert texts == {JAN_1: [None], JAN_3: [None]}
    with pytest.raises(UpkeepFailed, match=f"quarantine: 1 files with texts .* {file}"):
        upkeep(["--run-id", "r"])
    # Put back, it is as old as it was, and the next upkeep does the rest.
    place.write_bytes(content)
    assert problems() == {}
    assert read_files(Table(QUARANTINE), "raw") == [(day, None) for day in (JAN_1, JAN_2, JAN_3)]


def test_an_old_file_of_events_goes_whether_it_can_be_read_or_not(lake, monkeypatch):
    put("events", "r", events(JAN_1, JAN_2), [JAN_3])
    for file in Table("events").files:
        Path(table_path("events"), file.path).write_bytes(b"PAR1")
    monkeypatch.setenv("MEANDER_KEEP_EVENTS_DAYS", "365")
    assert problems() == {}
    assert Table("events").rows_by() == {}


def test_an_old_landing_day_that_cannot_be_removed_keeps_no_other(lake, land, monkeypatch):
    monkeypatch.setenv("MEANDER_KEEP_LANDING_DAYS", "2")
    for day in (JAN_1, JAN_2, JAN_3):
        land(day, ["{}"])
    landing, rmtree = Landing.of(settings()), shutil.rmtree

    def maybe(place, *arguments, **more):
        if str(place).endswith(str(JAN_2)):
            raise PermissionError(13, "Permission denied", str(place))
        rmtree(place, *arguments, **more)

    monkeypatch.setattr(shutil, "rmtree", maybe)
    did = expire_landing(settings())
    assert landing.days() == [JAN_2]
    assert (did.files_before, did.files_after, did.removed) == (3, 1, 2)
    assert did.problem == (
        f"1 days that are no longer kept could not be removed, or in part: {landing.folder(JAN_2)} (PermissionError); "
        "see to the rights"
    )


def test_a_file_of_the_log_that_cannot_be_read_is_told_as_one(lake, monkeypatch):
    """No setting has an end for its rows, and to load their days again would mend nothing."""
    for day in (JAN_1, JAN_2):
        put(QUARANTINE, f"of {day}", rejected(day, "a"), [day])
    commit = Path(table_path(QUARANTINE), "_delta_log", f"{1:020}.json")
    content = commit.read_text()
    DeltaTable(table_path(QUARANTINE)).create_checkpoint()
    commit.write_text(content.replace('{"add":', '{"adX":'))
    said = expire_rows(QUARANTINE, table_path(QUARANTINE), settings())
    assert said == (
        f"1 files of _delta_log cannot be read, and may have texts of rows: {commit.name} (ValueError); see to the "
        "rights or the connection, if it is that; otherwise put them back from a copy; a checkpoint may be removed, if "
        "there is a newer one"
    )
    commit.write_text(content)
    assert expire_rows(QUARANTINE, table_path(QUARANTINE), settings()) == ""


def test_an_old_landing_day_that_another_upkeep_removes_is_gone(lake, land, monkeypatch):
    monkeypatch.setenv("MEANDER_KEEP_LANDING_DAYS", "2")
    land(JAN_1, ["{}"])
    rmtree = shutil.rmtree

    def twice(place, *arguments, **more):
        rmtree(place, *arguments, **more)
        rmtree(place, *arguments, **more)

    monkeypatch.setattr(shutil, "rmtree", twice)
    did = expire_landing(settings())
    assert (did.removed, did.files_after, did.problem) == (1, 0, "")
    assert Landing.of(settings()).days() == []
