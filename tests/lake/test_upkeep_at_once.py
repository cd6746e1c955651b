"""Two upkeeps at the same time as publishes of old and of new stagings, audits and readers, on a disk and on S3.

Upkeeps and publishes are processes, and the files are older than the retention. `make test` does this once for each
storage, `make torture` many times.
"""

import json
import os
import random
import re
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import hypothesis
import pytest
from deltalake import DeltaTable

from lake import audits, storage
from lake.errors import PublishRefused
from lake.places import audits_path, run_folder, table_path
from lake.publish import publish
from lake.settings import settings
from lake.table import Table
from tests.lake.commands import start
from tests.lake.stagings import JAN_1, read_files, rejected, stage_files
from tests.s3_server import BUCKET

# In the profile of `make test`, 25 examples are one round.
ROUNDS = hypothesis.settings().max_examples // 25
LINE = audits.AuditLine(
    "events", "r", "s", JAN_1, JAN_1, datetime(2025, 1, 1, tzinfo=UTC), "e", "c", "critical", True, "", "passed", ""
)
# How many stagings wait, and how many files a staging that nobody will publish has: on S3, each of them takes longer.
SIZES = {"disk": (24, 300), "s3": (5, 10)}
NEW = [JAN_1 + timedelta(days=n) for n in range(3)]
COPIES = 2
# By so many days all becomes older in each round.
MONTH = 30
Age = Callable[[int], None]


@pytest.fixture(params=list(SIZES))
def store(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def age(store: str, request: pytest.FixtureRequest, lake: Path) -> Age:
    """Return what lets everything that is in the lake now be older by some days: files, and what commits say."""
    server = request.getfixturevalue("s3_server") if store == "s3" else None
    if server:
        request.getfixturevalue("lake_on_s3")

    def older(days: int) -> None:
        root = settings().lake
        for name in storage.list_files(root):
            if re.search(r"_delta_log/\d{20}\.json$", name):
                rewrite(storage.join(root, name), days)
        if server:
            server.age(root.removeprefix(f"s3://{BUCKET}/"), days)
        else:
            for file in Path(root).rglob("*.*"):
                written = file.stat().st_mtime - days * 86_400
                os.utime(file, (written, written))

    return older


def rewrite(commit: str, days: int) -> None:
    """Let what a commit says of times be older."""
    fs, place = storage.filesystem(commit)
    lines = [json.loads(line) for line in fs.cat_file(place).decode().splitlines()]
    for action in (content for line in lines for content in line.values()):
        for name in ("timestamp", "deletionTimestamp", "modificationTime"):
            if action.get(name):
                action[name] -= days * 86_400_000
    # All at once: readers open the table meanwhile.
    fs.pipe_file(f"{place}.new", "".join(f"{json.dumps(line)}\n" for line in lines).encode())
    fs.mv(f"{place}.new", place)


def stage_copies(run_id: str, raw: str, day: date, basis: int) -> None:
    """Stage one row in several files, as a day of several Spark tasks is."""
    staged = stage_files("quarantine", run_id, rejected(day, raw), [day], basis)
    (file,) = staged.files
    fs, place = storage.filesystem(storage.join(table_path("quarantine"), file.path))
    for n in range(1, COPIES):
        fs.cp_file(place, place.replace("part-0", f"part-{n}"))
    for path in storage.list_files(run_folder(run_id)):
        manifest = storage.join(run_folder(run_id), path)
        content = storage.read_json(manifest) or {}
        if "files" in content:
            (one,) = content["files"]
            content["files"] = [{**one, "path": one["path"].replace("part-0", f"part-{n}")} for n in range(COPIES)]
            storage.write_json(manifest, content)


def give_up(files: int) -> None:
    """Leave what a killed staging leaves, which takes a while to remove."""
    folder = storage.join(table_path("quarantine"), f"stage=killed-{uuid4().hex}", f"dt={JAN_1}")
    for n in range(files):
        fs, place = storage.filesystem(storage.join(folder, f"part-{n}.parquet"))
        fs.makedirs(place.rpartition("/")[0], exist_ok=True)
        fs.pipe_file(place, b"half a file")


class Readers:
    """Threads that open the newest version, and read all its rows some time later, until they are stopped."""

    def __init__(self) -> None:
        self.failed: list[str] = []
        self.reads = 0
        self.month = 0
        self.done = threading.Event()
        self.threads = [threading.Thread(target=self.read) for _ in range(2)]
        for thread in self.threads:
            thread.start()

    def read(self) -> None:
        while not self.done.is_set():
            month, table = self.month, Table("quarantine")
            self.done.wait(random.uniform(0, 0.5))
            try:
                read_files(table, "raw")
                self.reads += 1
            except Exception as error:  # noqa: BLE001  told by the test
                # Whoever opened a version before everything became a month older has held it for that long.
                if month == self.month:
                    self.failed.append(f"version {table.version}: {error!r}")

    def stop(self) -> None:
        self.done.set()
        for thread in self.threads:
            thread.join()


@pytest.fixture
def readers(age: Age) -> Iterator[Readers]:
    stage_copies("first", "first", JAN_1, 1)
    publish("quarantine", "first")
    readers = Readers()
    yield readers
    readers.stop()


def unreadable(path: str, since: int) -> list[str]:
    """Return the files that versions of a table name, from one version on, and that do not exist."""
    there = storage.list_files(path)
    gone = []
    for version in range(since, DeltaTable(path).version() + 1):
        files = DeltaTable(path, version=version).get_add_actions().column("path").to_pylist()
        gone += [f"version {version}: {file}" for file in files if file not in there]
    return gone


@pytest.mark.torture
def test_every_file_of_every_version_that_is_kept_exists_whoever_publishes_while_upkeep_removes(store, age, readers):
    waiting, files = SIZES[store]
    days = [NEW[-1] + timedelta(days=n) for n in range(1, waiting + 1)]
    seen = {JAN_1: "first"}
    for n in range(ROUNDS):
        runs = {f"{day} {n}": day for day in days}
        for run_id, day in runs.items():
            stage_copies(run_id, run_id, day, n + 2)
        give_up(files)
        audits.record([LINE])
        age(MONTH)
        readers.month += 1
        since = {path: DeltaTable(path).version() for path in (table_path("quarantine"), audits_path())}

        upkeeps = [start("lake.upkeep", "--run-id", f"u{n}") for n in range(2)]
        publishes = [start("tests.lake.publish_many", *list(runs)[half::2]) for half in (0, 1)]
        for day in NEW:
            stage_copies(f"new {day} {n}", f"new {n}", day, n + 2)
            publish("quarantine", f"new {day} {n}")
            audits.record([LINE])
            seen[day] = f"new {n}"
        for process in (*upkeeps, *publishes):
            process.join()

        assert [process.exitcode for process in (*upkeeps, *publishes)] == [0, 0, 0, 0]
        published = {commit["run_id"] for commit in Table("quarantine").commits()}
        seen |= {day: run_id for run_id, day in runs.items() if run_id in published}
        # Upkeep may have removed the text of a rejected row, which ends with its round, where that is old enough.
        may_be_gone = {day for day, raw in seen.items() if MONTH * (n - int(raw[-2:])) >= settings().keep_raw_days}
        found = read_files(Table("quarantine"), "raw")
        assert [(day, seen[day] if raw is None and day in may_be_gone else raw) for day, raw in found] == sorted(
            (day, raw) for day, raw in seen.items() for _ in range(COPIES)
        )
        assert [unreadable(path, version) for path, version in since.items()] == [[], []]
        assert readers.failed == []
        # Whoever was refused stays refused: its files are gone.
        for run_id in runs.keys() - published:
            with pytest.raises(PublishRefused, match="are gone"):
                publish("quarantine", run_id)
    assert readers.reads > 0
    assert audits.read().num_rows == ROUNDS * (1 + len(NEW))
