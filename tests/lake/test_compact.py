"""Compaction: fewer files with the same rows, whoever publishes or compacts at the same time."""

import itertools
import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, Field, TableFeatures, write_deltalake
from deltalake.schema import PrimitiveType

from lake import compact as compacting
from lake import storage
from lake import upkeep as upkeeping
from lake.backfill.planner import plan_backfill
from lake.compact import LiveFile, compact, packed
from lake.log import actions, read_log
from lake.places import table_path
from lake.runs import summarize
from lake.settings import settings
from lake.table import Table
from lake.upkeep import MaintenanceResult, maintain_table, upkeep
from tests.lake.daily_runs import DailyRuns
from tests.lake.stagings import JAN_1, JAN_2, JAN_3, published, read_files, rejected
from tests.session_oracle import ONE_DAY, Landed


def compacted() -> tuple[int, list[str], str]:
    return compact("quarantine", table_path("quarantine"))


def maintained() -> MaintenanceResult:
    return maintain_table("quarantine", table_path("quarantine"), 7 * ONE_DAY)


def raws() -> list:
    return read_files(Table("quarantine"), "raw")


def said_by_the_newest_commit(kind: str) -> list[dict[str, Any]]:
    path = table_path("quarantine")
    version = DeltaTable(path).version()
    return actions(read_log(path, version)[version], kind)


def meanwhile(monkeypatch: pytest.MonkeyPatch, did: Callable[[], object]) -> None:
    """Let something happen once, when a merged file is written and before it is committed."""

    def then(*arguments: Any) -> bool:
        monkeypatch.setattr(compacting, "replace_files", replace_files)
        did()
        return replace_files(*arguments)

    replace_files = compacting.replace_files
    monkeypatch.setattr(compacting, "replace_files", then)


def test_compaction_makes_fewer_files_and_changes_nothing_that_a_check_looks_at(lake):
    published("1", rejected(JAN_1, "a") + rejected(JAN_2, "b"), [JAN_1, JAN_2, JAN_3], 7, copies=2)
    published("2", rejected(JAN_2, "c"), [JAN_2], 8)
    before = Table("quarantine")
    result = maintained()
    after = Table("quarantine")
    assert (len(before.files), len(after.files), result.compacted) == (4, 2, 1)
    assert raws() == read_files(before, "raw") == [(JAN_1, "a")] * 3 + [(JAN_2, "c")]
    assert after.rows_by() == before.rows_by()
    assert after.commits() == before.commits(), "it is not a publish"
    assert [after.basis(day) for day in (JAN_1, JAN_2, JAN_3)] == [7, 8, 7], "nothing is newer or older than it was"
    assert after.version > before.version
    # And again there is nothing to do.
    assert maintained().compacted == 0


def test_what_came_or_went_since_a_version_are_files_of_publishes_also_those_that_were_merged_since(lake):
    published("1", rejected(JAN_1, "a") + rejected(JAN_2, "b"), [JAN_1, JAN_2], 1, copies=1)
    old = Table("quarantine")
    published("2", rejected(JAN_2, "c"), [JAN_2], 2, copies=1)
    new = Table("quarantine")
    assert compacted() == (2, [], "")
    table = Table("quarantine")
    files = [file for version in (old, new) for file in version.files_of("dt", [JAN_2])]
    assert table.changed_since(old.version, [JAN_1, JAN_2]) == {JAN_2: {file.path: file.bytes for file in files}}
    assert len(files) == 4
    # Of other dates, or since a later version, nothing; and nobody knows if a commit between them is gone.
    assert table.changed_since(old.version, [JAN_1]) == {}
    assert table.changed_since(new.version, [JAN_1, JAN_2]) == {}
    storage.remove(f"{table.path}/_delta_log/{new.version:020}.json")
    assert table.changed_since(old.version, [JAN_1, JAN_2]) is None


def test_each_partition_is_compacted_in_a_commit_of_its_own(lake):
    # So that a publish in between costs one of them and not all.
    published("1", rejected(JAN_1, "a") + rejected(JAN_2, "b"), [JAN_1, JAN_2], 1, copies=1)
    assert compacted() == (2, [], "")
    path = table_path("quarantine")
    commits = read_log(path, DeltaTable(path).version()).values()
    assert [len(actions(commit, "remove")) for commit in commits] == [2, 2, 0, 0]


def test_to_runs_and_plans_a_compaction_is_no_restatement(lake):
    def landed(name, day):
        return Landed("ann", datetime(day.year, day.month, day.day, 12), name, day)

    shop = DailyRuns({day: [landed(f"e{day:%d}", day)] for day in (JAN_1, JAN_2, JAN_3)})
    for day in shop.landing:
        shop.day(day)
    runs, rows = summarize(), shop.found()
    # z_order writes every file anew, as a compaction of many small ones would.
    for table in ("events", "sessions", "interests"):
        DeltaTable(table_path(table)).optimize.z_order(["user_id"])
    upkeep(settings())
    assert plan_backfill(settings(), "late-data").redo == []
    assert (summarize(), shop.found()) == (runs, rows)
    # A day that runs after it is published as ever, over what was compacted.
    shop.landing[JAN_3] = [*shop.landing[JAN_3], landed("late", JAN_3)]
    shop.day(JAN_3)
    assert shop.found() == shop.expected()


def test_a_partition_that_is_published_whenever_it_is_compacted_is_left_for_the_next_time(lake, monkeypatch):
    runs = itertools.count(1)

    def publish_anew() -> None:
        n = next(runs)
        published(f"{n}", rejected(JAN_1, f"{n}"), [JAN_1], n, copies=1)

    def opened_before_a_publish(path: str) -> DeltaTable:
        table = DeltaTable(path)
        publish_anew()
        return table

    publish_anew()
    with monkeypatch.context() as patch:
        patch.setattr(compacting, "DeltaTable", opened_before_a_publish)
        assert compacted() == (0, ["2025-01-01"], "")
    assert raws() == [(JAN_1, f"{next(runs) - 1}")] * 2, "the last publish is what readers see"
    assert compacted() == (1, [], "")


def test_publishes_and_compactions_at_once_lose_nothing(lake):
    published("0", rejected(JAN_1, "0"), [JAN_1], 1, copies=3)
    failed = []

    def run_days() -> None:
        try:
            for n in range(1, 16):
                published(
                    f"{n}", rejected(JAN_1 if n % 2 else JAN_2, f"{n}"), [JAN_1 if n % 2 else JAN_2], n + 1, copies=3
                )
        except Exception as error:  # noqa: BLE001  told by the assertion below
            failed.append(error)

    runs = threading.Thread(target=run_days)
    runs.start()
    while runs.is_alive():
        maintained()
    runs.join()
    assert failed == []
    assert raws() == [(JAN_1, "15")] * 4 + [(JAN_2, "14")] * 4


def test_files_are_merged_up_to_what_a_reader_opens_in_one_go(lake):
    # Of some hundred KiB each, as a partition of a small shop is: far from 128 MiB.
    text = [" ".join(f"{n * n}" for n in range(at, at + 40_000)) for at in (0, 40_000)]
    staged = published("1", rejected(JAN_1, *text), [JAN_1], 1, copies=1)
    assert [file.bytes > 256 * 1024 for file in staged.files] == [True, True]
    result = maintained()
    assert (result.compacted, len(Table("quarantine").files)) == (1, 1)
    assert len(raws()) == 4


# ---- two at once ----


def test_two_that_merge_the_same_files_keep_each_row_once(lake, monkeypatch):
    published("1", rejected(JAN_1, "a"), [JAN_1], 1, copies=2)
    second = []
    meanwhile(monkeypatch, lambda: second.append(compacted()))
    assert compacted() == (0, ["2025-01-01"], "")
    assert second == [(1, [], "")]
    assert raws() == [(JAN_1, "a")] * 3
    there = [name for name in storage.list_files(table_path("quarantine")) if name.endswith(".parquet")]
    assert len([name for name in there if "stage=merged-" in name]) == 1, "the loser takes its file away"


def test_two_that_look_at_the_same_version_keep_each_row_once(lake, monkeypatch):
    class Overtaken(DeltaTable):
        def create_write_transaction(self, *arguments: object, **more: object) -> None:
            monkeypatch.setattr(compacting, "DeltaTable", DeltaTable)
            second.append(compacted())
            super().create_write_transaction(*arguments, **more)

    second: list[object] = []
    published("1", rejected(JAN_1, "a"), [JAN_1], 1, copies=2)
    monkeypatch.setattr(compacting, "DeltaTable", Overtaken)
    assert compacted() == (0, ["2025-01-01"], "")
    assert second == [(1, [], "")]
    assert raws() == [(JAN_1, "a")] * 3


def test_a_publish_of_another_day_between_the_look_and_the_commit_costs_no_merge(lake, monkeypatch):
    published("1", rejected(JAN_1, "a"), [JAN_1], 1, copies=2)

    class Overtaken(DeltaTable):
        def create_write_transaction(self, *arguments: object, **more: object) -> None:
            monkeypatch.setattr(compacting, "DeltaTable", DeltaTable)
            published("2", rejected(JAN_2, "b"), [JAN_2], 2)
            super().create_write_transaction(*arguments, **more)

    monkeypatch.setattr(compacting, "DeltaTable", Overtaken)
    assert compacted() == (1, [], "")
    assert raws() == [(JAN_1, "a")] * 3 + [(JAN_2, "b")]
    assert len(Table("quarantine").files) == 2


def test_a_publish_of_the_day_while_its_files_are_merged_is_what_readers_see(lake, monkeypatch):
    published("1", rejected(JAN_1, "a"), [JAN_1], 1, copies=2)
    meanwhile(monkeypatch, lambda: published("2", rejected(JAN_1, "b"), [JAN_1], 2))
    assert compacted() == (0, ["2025-01-01"], "")
    assert raws() == [(JAN_1, "b")]


def test_a_merge_that_slept_until_another_upkeep_gave_its_file_up_is_not_committed(lake, monkeypatch):
    published("1", rejected(JAN_1, "a"), [JAN_1], 1, copies=2)

    def a_month_later() -> None:
        # Without a retention, the file is as old as one of a month ago.
        monkeypatch.setattr(upkeeping, "compact", lambda *_, **__: (0, [], ""))
        assert maintain_table("quarantine", table_path("quarantine"), 0 * ONE_DAY).removed == 1

    meanwhile(monkeypatch, a_month_later)
    assert compacted() == (0, ["2025-01-01"], "")
    assert raws() == [(JAN_1, "a")] * 3


def test_what_a_killed_merge_leaves_is_removed_as_a_staging_is(lake, monkeypatch):
    published("1", rejected(JAN_1, "a"), [JAN_1], 1, copies=2)

    def killed() -> None:
        raise KeyboardInterrupt

    meanwhile(monkeypatch, killed)
    with pytest.raises(KeyboardInterrupt):
        compacted()
    assert raws() == [(JAN_1, "a")] * 3
    monkeypatch.setattr(upkeeping, "compact", lambda *_, **__: (0, [], ""))
    assert maintain_table("quarantine", table_path("quarantine"), 0 * ONE_DAY).removed == 1
    assert raws() == [(JAN_1, "a")] * 3


def test_a_merged_file_that_was_replaced_is_removed_without_giving_anything_up(lake):
    published("1", rejected(JAN_1, "a"), [JAN_1], 1, copies=1)
    compacted()
    published("2", rejected(JAN_1, "b"), [JAN_1], 2)
    before = Table("quarantine").version
    assert maintain_table("quarantine", table_path("quarantine"), 0 * ONE_DAY).removed == 3
    assert (Table("quarantine").version, raws()) == (before, [(JAN_1, "b")])


# ---- what the log and the file hold ----


def test_the_log_says_that_no_data_changed_and_holds_no_text_of_a_row(lake):
    published("1", rejected(JAN_1, "a secret", "another secret"), [JAN_1], 1, copies=1)
    compacted()
    (added,) = said_by_the_newest_commit("add")
    removed = said_by_the_newest_commit("remove")
    assert [action["dataChange"] for action in (added, *removed)] == [False] * 3
    assert json.loads(added["stats"]) == {"numRecords": 4}
    (info,) = said_by_the_newest_commit("commitInfo")
    assert "run_id" not in info
    log = "".join(read_log(table_path("quarantine"), 9).values())
    assert "secret" not in log


EVENT = {"event_id": "e", "user_id": "u", "price": Decimal("1.5000"), "copies": 1, "dt": JAN_1, "landed": JAN_1}
TIMES = [datetime(2025, 1, 1, hour, 30, tzinfo=UTC) for hour in (5, 23, 0)]
ROWS = {
    # Lists, decimals, nulls and times, as in the columns of every table.
    "events": [{**EVENT, "event_time": at, "item_id": None if n else "i"} for n, at in enumerate(TIMES)],
    "interests": [{"user_id": f"u{n}", "item_ids": [f"{n}", None], "item_keys": [n, 0], "dt": JAN_1} for n in range(3)],
}


@pytest.mark.parametrize("group_bytes", [1, 1 << 26])
@pytest.mark.parametrize("table", ROWS)
def test_a_merged_file_has_the_rows_the_columns_and_the_times_of_its_parts(lake, monkeypatch, table, group_bytes):
    monkeypatch.setattr(compacting, "GROUP_BYTES", group_bytes)
    staged = published("1", ROWS[table], [JAN_1], 1, copies=1, table=table)
    parts = [storage.read_file(storage.join(table_path(table), file.path)) for file in staged.files]
    before = [file.times for file in Table(table).files]
    assert compact(table, table_path(table)) == (1, [], "")
    (file,) = Table(table).files
    merged = storage.read_file(storage.join(table_path(table), file.path))
    assert merged.schema.equals(parts[0].schema)
    assert merged.to_pylist() == [row for part in parts for row in part.to_pylist()]
    assert (file.rows, file.times) == (6, before[0])
    assert file.times.get("event_time") == ((TIMES[2], TIMES[1]) if table == "events" else None)
    with storage.parquet_file(storage.join(table_path(table), file.path)) as opened:
        assert opened.metadata.num_row_groups == (2 if group_bytes == 1 else 1), "memory is bounded"
        assert opened.metadata.row_group(0).column(0).compression == "SNAPPY"


def test_a_column_that_came_later_is_null_in_the_rows_of_before(lake):
    published("1", rejected(JAN_1, "a"), [JAN_1], 1, copies=1)
    path = table_path("quarantine")
    DeltaTable(path).alter.add_columns(Field("severity", PrimitiveType("string")))
    assert compacted() == (1, [], "")
    (file,) = Table("quarantine").files
    merged = storage.read_file(storage.join(path, file.path))
    assert merged.column("severity").to_pylist() == [None, None]
    assert merged.column("raw").to_pylist() == ["a", "a"]


def test_files_that_hold_other_rows_than_the_log_says_stay_as_they_are(lake):
    staged = published("1", rejected(JAN_1, "a", "b"), [JAN_1], 1, copies=1)
    short = pa.table({"raw": ["a"]})
    pq.write_table(short, storage.join(table_path("quarantine"), staged.files[1].path))
    merged, skipped, problem = compacted()
    assert (merged, skipped) == (0, [])
    assert "2 files in dt=2025-01-01 hold 3 rows, where the log says 4; they stay" in problem
    assert [file.path for file in Table("quarantine").files] == [file.path for file in staged.files]
    assert not [name for name in storage.list_files(table_path("quarantine")) if "merged-" in name]


def test_a_table_in_which_another_tool_may_have_hidden_rows_of_a_file_is_left_alone(lake):
    published("1", rejected(JAN_1, "a"), [JAN_1], 1, copies=1)
    path = table_path("quarantine")
    DeltaTable(path).alter.add_feature(TableFeatures.DeletionVectors, allow_protocol_versions_increase=True)
    assert compacted() == (0, [], "")
    assert len(Table("quarantine").files) == 2


def test_rows_without_a_day_are_merged_too(lake):
    # As another tool may write them: Delta allows null in a partition column.
    published("1", rejected(JAN_1, "a"), [JAN_1], 1)
    path = table_path("quarantine")
    schema = pa.schema(DeltaTable(path).schema().to_arrow())
    for raw in ("x", "y"):
        write_deltalake(path, pa.Table.from_pylist([{"raw": raw, "dt": None}], schema), mode="append")
    assert compacted() == (1, [], "")
    with_null = [file for file in compacting.live_files(DeltaTable(path)) if file.partition == {"dt": None}]
    (file,) = with_null
    assert sorted(storage.read_file(storage.join(path, file.path)).column("raw").to_pylist()) == ["x", "y"]


def test_files_are_packed_up_to_the_size_that_they_should_have():
    files = [LiveFile(name, size, 1, 0, {}) for name, size in (("a", 60), ("b", 60), ("c", 60), ("d", 128), ("e", 1))]
    sized = [LiveFile(file.path, file.bytes << 20, 1, 0, {}) for file in files]
    assert ["".join(file.path for file in some) for some in packed(sized)] == ["ab", "c", "d", "e"]
