"""What is read from the log in one go is what delta-rs says of each version, one question at a time."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from deltalake import DeltaTable

from lake import storage
from lake import table as tables
from lake.compact import compact
from lake.log import read_log, transactions
from lake.places import table_path
from lake.table import Table
from tests.lake.stagings import JAN_1, JAN_2, JAN_3, published, rejected


@pytest.fixture
def log(lake) -> str:
    """The log of a table with publishes before, at and after a checkpoint, and commits that are no publish."""
    for n, day in enumerate((JAN_1, JAN_2, JAN_1, JAN_3, JAN_2)):
        published(f"{n}", rejected(day, f"{n}"), [day], 10 + n, copies=1)
        if n == 2:
            DeltaTable(table_path("quarantine")).create_checkpoint()
    compact("quarantine", table_path("quarantine"))
    published("last", rejected(JAN_1, "last"), [JAN_1], 99)
    # A day that was published before, since the checkpoint.
    published("newest", rejected(JAN_3, "newest"), [JAN_3], 100)
    return table_path("quarantine")


DAYS = [f"dt={day}" for day in (JAN_1, JAN_2, JAN_3)]
NAMES = [*(f"run={n}" for n in range(5)), "run=last", "run=newest", *DAYS, "never"]


def asked_one_by_one(path: str, version: int) -> dict[str, int]:
    delta = DeltaTable(path, version=version)
    return {name: number for name in NAMES if (number := delta.transaction_version(name)) is not None}


def test_the_transactions_of_each_version_are_those_that_delta_rs_tells_one_by_one(log):
    last = DeltaTable(log).version()
    found = [transactions(log, version) for version in range(last + 1)]
    assert [{k: v for k, v in one.items() if k in NAMES} for one in found] == [
        asked_one_by_one(log, version) for version in range(last + 1)
    ]
    assert found[0] == {}
    assert (found[-1][f"dt={JAN_1}"], found[-1][f"dt={JAN_2}"]) == (99, 14)


def test_commits_before_a_checkpoint_are_not_read(log):
    for version in (1, 2, 3):
        storage.remove(f"{log}/_delta_log/{version:020}.json")
    table = Table("quarantine")
    assert {name: table.transaction(name) for name in NAMES if table.transaction(name)} == asked_one_by_one(
        log, table.version
    )


def test_where_a_commit_after_the_checkpoint_is_gone_delta_rs_is_asked(log, monkeypatch):
    last = DeltaTable(log).version()
    DeltaTable(log).create_checkpoint()
    # As if the checkpoint were of a kind that is not read here: the log alone does not tell.
    storage.remove(f"{log}/_delta_log/{3:020}.checkpoint.parquet")
    storage.remove(f"{log}/_delta_log/{1:020}.json")
    monkeypatch.setattr("lake.log.CHECKPOINT_FILE", tables.ADDED)
    assert transactions(log, last) is None
    assert Table("quarantine").transaction(f"dt={JAN_2}") == 14


def by_opening(version: int) -> list[tables.DataFile]:
    after = {file.path for file in Table("quarantine", version).files}
    return [file for file in Table("quarantine", version - 1).files if file.path not in after]


def test_the_files_that_commits_replaced_are_those_of_the_version_before(log):
    versions = range(1, DeltaTable(log).version() + 1)
    replaced = Table("quarantine").replaced_by(list(versions))
    assert replaced == {version: by_opening(version) for version in versions}
    # The third publish replaced both files of the first, the compaction those of each day, the last two what it merged.
    assert [len(files) for files in replaced.values()] == [0, 0, 2, 0, 2, 2, 2, 2, 1, 1]


def test_replaced_files_are_told_with_rows_bytes_days_and_times(lake):
    noon = datetime(2025, 1, 1, 12, 0, 0, 1, tzinfo=UTC)
    row = {"event_id": "e", "user_id": "u", "event_time": noon, "dt": JAN_1, "landed": JAN_2}
    published("1", [row], [JAN_2], 1, table="events")
    (before,) = Table("events").files
    published("2", [], [JAN_2], 2, table="events")
    assert Table("events").replaced_by([2]) == {2: [before]}
    assert (before.rows, before.partition, before.times["event_time"]) == (
        1,
        {"dt": JAN_1, "landed": JAN_2},
        (noon, noon),
    )


def test_no_version_is_opened_for_it(log, monkeypatch):
    table, expected = Table("quarantine"), by_opening(3)

    def opened(*_: object, **__: object) -> None:
        raise AssertionError("a version was opened")

    monkeypatch.setattr(tables, "DeltaTable", opened)
    assert table.replaced_by([3]) == {3: expected}


def test_a_file_of_another_tool_is_looked_up_in_its_version(log):
    path = f"{log}/_delta_log/{1:020}.json"
    fs, place = storage.filesystem(path)
    lines = [json.loads(line) for line in fs.cat_file(place).decode().splitlines()]
    # A member first that no action of ours begins with.
    lines = [{"add": {"size": line["add"]["size"], **line["add"]}} if "add" in line else line for line in lines]
    fs.pipe_file(place, "".join(f"{json.dumps(line)}\n" for line in lines).encode())
    assert Table("quarantine").replaced_by([3]) == {3: by_opening(3)}


def test_some_clocks_that_were_wrong_hide_no_commit_that_is_young_enough(tmp_path):
    """A commit a day; of the newest 128, which are read at once, the eight oldest say that they are of 2020."""
    log, now = tmp_path / "_delta_log", datetime(2025, 1, 1, tzinfo=UTC)
    log.mkdir()
    for version in range(300):
        made = (
            now - timedelta(days=299 - version) if version not in range(172, 180) else datetime(2020, 1, 1, tzinfo=UTC)
        )
        said = {"commitInfo": {"timestamp": int(made.timestamp() * 1000), "operation": "WRITE"}}
        (log / f"{version:020}.json").write_text(json.dumps(said, separators=(",", ":")))
    assert list(read_log(str(tmp_path), 299, since=now - timedelta(days=280))) == list(range(299, 18, -1))
