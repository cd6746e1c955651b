"""Files that are no tables are searched for ids, and what cannot be searched or changed is named, never an error."""

import gzip
import os
from pathlib import Path

import pytest

from lake.privacy.folders import redact_messages, remove_pages, search, search_below
from lake.privacy.matching import NamedUsers

ANN = NamedUsers(frozenset({"ann73194517"}))
TEXT = b"user ann73194517 was here"
NOT_READ, NO_FILE = "may not be read, so it was not searched", "is no file, so it was not searched"


@pytest.fixture
def denied(monkeypatch) -> None:
    """Let nobody list folders named `theirs`: the tests may run as root, who may."""
    scandir = os.scandir

    def scan(place):
        if str(place).endswith("theirs"):
            raise PermissionError(13, "Permission denied", str(place))
        return scandir(place)

    monkeypatch.setattr(os, "scandir", scan)


def test_each_folder_that_may_not_be_listed_is_named_and_all_others_are_searched(tmp_path, denied):
    for name in ("a/theirs", "b", "c/theirs"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "b" / "x.log").write_bytes(TEXT)
    found = search_below(str(tmp_path), ANN)
    assert found.files == [f"{tmp_path}/b/x.log"]
    assert found.unsearched == dict.fromkeys([f"{tmp_path}/a/theirs", f"{tmp_path}/c/theirs"], NOT_READ)


def test_a_link_to_what_is_searched_anyway_is_left_out_and_what_is_no_file_is_named(tmp_path):
    """Airflow makes `latest`, a link to the folder of the day; a pipe would be waited for without end."""
    logs, elsewhere = tmp_path / "logs", tmp_path / "logs-of-others"
    (logs / "2025-01-01").mkdir(parents=True)
    elsewhere.mkdir()
    for folder in (logs / "2025-01-01", elsewhere):
        (folder / "x.log").write_bytes(TEXT)
    (logs / "latest").symlink_to(logs / "2025-01-01")
    (logs / "relative").symlink_to("2025-01-01")
    (logs / "same.log").symlink_to("2025-01-01/x.log")
    (logs / "nowhere").symlink_to("gone")
    (logs / "others").symlink_to(elsewhere)
    (logs / "others.log").symlink_to(elsewhere / "x.log")
    os.mkfifo(logs / "pipe")
    found = search_below(str(logs), ANN)
    assert found.files == [f"{logs}/2025-01-01/x.log", f"{logs}/others.log"]
    assert found.unsearched == {f"{logs}/others": NO_FILE, f"{logs}/pipe": NO_FILE}
    assert search([f"{logs}/pipe"], ANN).unsearched == {f"{logs}/pipe": NO_FILE}


@pytest.mark.parametrize("suffix", [".html", ".json"])
def test_pages_and_messages_that_cannot_be_read_are_named_and_end_nothing(tmp_path, suffix):
    folder, elsewhere = tmp_path / "docs", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    (folder / f"a{suffix}").symlink_to(elsewhere)
    (folder / "cut.gz").write_bytes(gzip.compress(TEXT * 99)[:-9])
    # Not in UTF-8.
    (folder / f"z{suffix}").write_bytes(b"\xff " + TEXT)
    changed, unsearched = (remove_pages if suffix == ".html" else redact_messages)(str(folder), ANN)
    assert changed == 1
    assert unsearched == {f"{folder}/a{suffix}": NO_FILE, f"{folder}/cut.gz": NOT_READ}
    page = folder / f"z{suffix}"
    assert not page.exists() if suffix == ".html" else page.read_bytes() == b"\xff user (forgotten) was here"


def test_a_page_that_cannot_be_removed_is_named(tmp_path, monkeypatch):
    (tmp_path / "a.html").write_bytes(TEXT)

    def unlink(path: object, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "remove", unlink)
    assert remove_pages(str(tmp_path), ANN) == (
        0,
        {f"{tmp_path}/a.html": "has the id, and could not be changed (PermissionError)"},
    )
    assert Path(tmp_path, "a.html").exists()
