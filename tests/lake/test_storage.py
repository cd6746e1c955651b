"""Small files on any storage: found, and written so that a reader sees all of a file or none of it."""

import json
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from threading import Barrier

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.local import LocalFileSystem

from lake import storage


def test_files_are_listed_with_their_path_below_the_folder_and_their_size(tmp_path):
    (tmp_path / "dt=2025-01-01").mkdir()
    (tmp_path / "dt=2025-01-01" / "b.parquet").write_bytes(b"12345")
    (tmp_path / "a.json").write_bytes(b"")
    expected = {"a.json": 0, "dt=2025-01-01/b.parquet": 5}
    for folder in (f"{tmp_path}", f"{tmp_path}/", f"file://{tmp_path}"):
        assert storage.list_files(folder) == expected


def test_of_a_parquet_file_the_columns_that_are_asked_for_are_read_and_none_of_its_folders(tmp_path):
    folder = tmp_path / "dt=2025-01-01"
    folder.mkdir()
    pq.write_table(pa.table({"a": [1, 2], "b": ["x", None]}), folder / "f.parquet")
    for path in (f"{folder}/f.parquet", f"file://{folder}/f.parquet"):
        assert storage.read_file(path).to_pylist() == [{"a": 1, "b": "x"}, {"a": 2, "b": None}]
        assert storage.read_file(path, ["b"]).to_pylist() == [{"b": "x"}, {"b": None}]
    (footer,) = storage.read_footers(f"{tmp_path}", ["dt=2025-01-01/f.parquet"])
    assert (footer.num_rows, footer.num_columns) == (2, 2)


def test_a_folder_that_is_not_there_holds_no_files(tmp_path):
    assert storage.list_files(f"{tmp_path}/nowhere") == {}


def test_old_files_are_told_by_the_listing_and_no_file_is_asked_for(tmp_path, monkeypatch):
    for name, days in (("a/old", 3), ("new", 1)):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text("")
        seconds = datetime.now(UTC).timestamp() - days * 86_400
        os.utime(file, (seconds, seconds))

    def asked(*_: object) -> None:
        raise AssertionError("one request for each file")

    monkeypatch.setattr(LocalFileSystem, "modified", asked)
    assert storage.list_older(f"{tmp_path}", datetime.now(UTC) - timedelta(days=2)) == ["a/old"]
    # Of an object store, the listing says it by another name.
    written = datetime(2025, 1, 1, tzinfo=UTC)
    assert storage.last_written(LocalFileSystem(), "path", {"LastModified": written}) == written


def test_a_relative_folder_is_one_below_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    storage.write_json(".meander/lake/a.json", {})
    assert list(storage.list_files(".meander/lake")) == ["a.json"]
    assert storage.exists(f"{tmp_path}/.meander/lake/a.json")


def test_json_comes_back_as_it_was_written(tmp_path):
    path = f"{tmp_path}/new/folder/a.json"
    assert storage.read_json(path) is None
    storage.write_json(path, {"rows": 3, "days": ["2025-01-01"], "name": "浏览"})
    assert storage.read_json(path) == {"rows": 3, "days": ["2025-01-01"], "name": "浏览"}


def test_json_in_memory_stands_for_an_object_store():
    path = "memory://bucket/runs/a.json"
    storage.write_json(path, {"rows": 3})
    assert storage.read_json(path) == {"rows": 3}
    assert storage.read_json("memory://bucket/runs/b.json") is None
    assert list(storage.list_files("memory://bucket/runs")) == ["a.json"]


@pytest.mark.parametrize("store", ["disk", "s3"])
def test_of_many_that_create_a_file_at_once_one_has_made_it(store, lake, request):
    root, rounds = (request.getfixturevalue("lake_on_s3"), 6) if store == "s3" else (f"{lake}", 30)
    together = Barrier(8)

    def create(path: str) -> bool:
        together.wait()
        return storage.create(path, timedelta(hours=1))

    with ThreadPoolExecutor(8) as pool:
        for n in range(rounds):
            assert sum(pool.map(create, [f"{root}/claims/{n}"] * 8)) == 1


def test_a_file_that_is_removed_between_two_looks_at_it_was_there(tmp_path, monkeypatch):
    claim = f"{tmp_path}/claim"
    assert storage.create(claim, timedelta(hours=1))
    look = storage.LocalFileSystem.modified

    def look_too_late(fs: storage.LocalFileSystem, path: str) -> datetime:
        storage.remove(claim)
        return look(fs, path)

    monkeypatch.setattr(storage.LocalFileSystem, "modified", look_too_late)
    assert not storage.create(claim, timedelta(0)), "whoever made it has done what it was made for"
    assert storage.create(claim, timedelta(0))


def test_a_file_that_has_grown_stale_counts_as_not_there(lake):
    path = f"{lake}/claim"
    assert storage.create(path, timedelta(hours=1))
    assert not storage.create(path, timedelta(hours=1))
    assert storage.create(path, timedelta(0))


def test_a_reader_sees_one_version_of_a_json_file_whole(tmp_path):
    # A file of half a megabyte takes several writes; a plain overwrite is seen cut short here within a few rounds.
    path = f"{tmp_path}/a.json"
    storage.write_json(path, {"n": 0, "filler": ["x" * 100] * 5_000})
    done = threading.Event()

    def write() -> None:
        for n in count(1):
            if done.is_set():
                return
            storage.write_json(path, {"n": n, "filler": ["x" * 100] * 5_000})

    writer = threading.Thread(target=write)
    writer.start()
    seen = set()
    try:
        while len(seen) < 20:
            content = storage.read_json(path)
            assert content is not None
            assert len(content["filler"]) == 5_000
            seen.add(content["n"])
    finally:
        done.set()
        writer.join()
    assert list(storage.list_files(f"{tmp_path}")) == ["a.json"], "an unfinished file was left behind"


def test_a_write_that_is_cut_off_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    path = f"{tmp_path}/a.json"
    storage.write_json(path, {"n": 1})
    # The last step of a write is the rename, so what is killed before it leaves a stray file that nobody reads.
    monkeypatch.setattr(storage.LocalFileSystem, "mv", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    try:
        storage.write_json(path, {"n": 2})
    except KeyboardInterrupt:
        assert json.loads((tmp_path / "a.json").read_text()) == {"n": 1}
    else:
        raise AssertionError("the write was not cut off")


def test_a_folder_that_goes_while_it_is_listed_hides_none_beside_it(tmp_path, monkeypatch):
    for name in "abc":
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    scandir = os.scandir

    @contextmanager
    def scan(place):
        with scandir(place) as found:
            entries = sorted(found, key=lambda entry: entry.name)
        if place == str(tmp_path):
            shutil.rmtree(tmp_path / "b")
        yield entries

    monkeypatch.setattr(os, "scandir", scan)
    week = datetime.now(UTC) - timedelta(days=7)
    assert list(storage.list_entries(str(tmp_path), week)) == ["a/file", "c/file"]
