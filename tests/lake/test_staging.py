"""Staging: files under fresh names and a manifest, seen by nobody but the audit and the publish."""

from datetime import UTC, datetime, timedelta

import pytest

from lake import storage
from lake.errors import NotStaged, SchemaMismatch, TableMissing
from lake.places import run_folder
from lake.publish import publish
from lake.reach import changed_by
from lake.schemas import EVENTS, QUARANTINE, SESSIONS
from lake.staging import Run, read_staged, stage
from lake.table import Table
from tests.lake.stagings import JAN_1, JAN_2, JAN_3, audit, rejected, stage_files


def events(spark, *rows):
    """Build events from (id, dt, landed)."""
    return spark.createDataFrame(
        [
            (i, "u", datetime(dt.year, dt.month, dt.day, 9), "view", "i", None, None, None, "t", 1, dt, on)
            for i, dt, on in rows
        ],
        EVENTS,
    )


@pytest.mark.spark
def test_what_is_staged_is_described_by_its_manifest_and_published_as_it_was_staged(spark, lake):
    # e1 is late: it happened the day before it landed.
    rows = events(spark, ("e1", JAN_1, JAN_2), ("e2", JAN_2, JAN_2), ("e3", JAN_2, JAN_2))
    run = Run("manual__2025-01-02T00:00:00+00:00", JAN_2, JAN_2)
    stage_files("quarantine", "read", [], [JAN_1], None, key_id="9c3f01aa")
    publish("quarantine", "read")
    # The order of columns is the table's, whatever order a job ends in.
    staged = stage(rows.select(*rows.columns[::-1]), "events", run, [JAN_2], run.basis, {"input": 3}, {"quarantine": 1})

    assert read_staged("events", run.run_id) == staged
    assert (staged.rows, staged.counts, staged.inputs) == (3, {"input": 3}, {"quarantine": 1})
    assert staged.key_id == "9c3f01aa", "users are named as in what was read"
    assert (staged.order, staged.basis) == (run.order, run.order)
    assert {file.path.split("/", 1)[1].rsplit("/", 1)[0]: file.rows for file in staged.files} == {
        "dt=2025-01-01/landed=2025-01-02": 1,
        "dt=2025-01-02/landed=2025-01-02": 2,
    }
    # Spark writes times in a way of which the footers tell the ends.
    assert {file.times["event_time"][0][:16] for file in staged.files} == {"2025-01-01T09:00", "2025-01-02T09:00"}
    assert sorted(staged.read(spark).collect()) == sorted(rows.collect())

    # Staged again under the same id, it stands beside what was staged before, which may be on its way to readers.
    run = Run(run.run_id, JAN_2, JAN_2)
    again = stage(rows, "events", run, [JAN_2], run.basis)
    paths = [{file.path for file in each.files} for each in (staged, again)]
    assert paths[0].isdisjoint(paths[1])
    assert read_staged("events", run.run_id) == again
    assert paths[0] | paths[1] <= storage.list_files(str(lake / "lake" / "events")).keys()

    audit(again)
    publish("events", run.run_id)
    table = Table("events")
    assert sorted(table.read(spark).collect()) == sorted(rows.collect())
    assert (table.rows_by("dt"), table.rows_by("landed")) == ({JAN_1: 1, JAN_2: 2}, {JAN_2: 3})


@pytest.mark.spark
def test_a_reader_gets_the_days_that_it_asks_for_ends_included(spark, lake):
    # An event is named by the day it happened on and the day it landed on.
    days = [(dt, landed) for landed in (JAN_1, JAN_2, JAN_3) for dt in (JAN_1, JAN_2, JAN_3) if dt <= landed]
    rows = [{"event_id": f"{dt:%d}{landed:%d}", "dt": dt, "landed": landed} for dt, landed in days]
    stage_files("events", "r", rows, [JAN_1, JAN_2, JAN_3], 1)
    publish("events", "r")
    table = Table("events")
    asked = {
        "01 to 02": {"first": JAN_1, "last": JAN_2},
        "from 02": {"first": JAN_2},
        "landed from 02": {"landed_from": JAN_2},
        "landed by 02": {"landed_by": JAN_2},
        "of 02, landed on 02": {"first": JAN_2, "last": JAN_2, "landed_from": JAN_2, "landed_by": JAN_2},
    }
    found = {name: sorted(r.event_id for r in table.read(spark, **some).collect()) for name, some in asked.items()}
    assert found == {
        "01 to 02": ["0101", "0102", "0103", "0202", "0203"],
        "from 02": ["0202", "0203", "0303"],
        "landed from 02": ["0102", "0103", "0202", "0203", "0303"],
        "landed by 02": ["0101", "0102", "0202"],
        "of 02, landed on 02": ["0202"],
    }


@pytest.mark.spark
def test_a_staging_without_rows_publishes_its_days_as_empty(spark, lake):
    stage_files("sessions", "before", [{"session_id": "s", "dt": JAN_1}], [JAN_1], 1)
    publish("sessions", "before")
    run = Run("r", JAN_1, JAN_2)
    staged = stage(spark.createDataFrame([], SESSIONS), "sessions", run, [JAN_1, JAN_2], basis=2)
    assert (staged.rows, staged.files, staged.read(spark).count()) == (0, [], 0)
    assert staged.read(spark).schema.fieldNames() == SESSIONS.fieldNames()

    audit(staged)
    assert publish("sessions", "r")["partitions"] == 2
    table = Table("sessions")
    assert (table.rows_by(), table.read(spark).count(), table.head(JAN_1, 10)) == ({}, 0, [])
    assert table.read(spark).schema.fieldNames() == SESSIONS.fieldNames()
    assert (table.basis(JAN_1), table.basis(JAN_2), table.basis(JAN_3)) == (2, 2, None)


@pytest.mark.spark
def test_rows_that_do_not_fit_the_schema_leave_nothing_behind(spark, lake):
    rows = spark.createDataFrame([], QUARANTINE).drop("raw").withColumnRenamed("line", "line_number")
    with pytest.raises(SchemaMismatch, match=r"missing raw string; missing line bigint; unexpected line_number bigint"):
        stage(rows, "quarantine", Run("r", JAN_1, JAN_1), [JAN_1], 1)
    assert not storage.exists(str(lake / "lake" / "quarantine"))
    # Nor do rows of a day that the run does not own: a publish would leave them behind without a word.
    strays = events(spark, ("e1", JAN_1, JAN_1), ("e2", JAN_2, JAN_2), ("e3", JAN_3, JAN_3))
    with pytest.raises(SchemaMismatch, match=r"lie in landed 2025-01-01, 2025-01-03, which run 'r' does not own"):
        stage(strays, "events", Run("r", JAN_2, JAN_2), [JAN_2], 1)
    with pytest.raises(NotStaged):
        read_staged("events", "r")


def test_a_file_is_described_by_all_of_its_row_groups(lake):
    # The latest event stands in the second group, the earliest in the third; of the last, nobody knows the time.
    noon = datetime(2025, 1, 1, 12, 0)
    times = [noon, noon.replace(hour=23, minute=50), noon.replace(hour=0, minute=10), noon.replace(hour=9), None]
    rows = [
        {"event_id": f"e{n}", "event_time": time and time.replace(tzinfo=UTC), "dt": JAN_1, "landed": JAN_1}
        for n, time in enumerate(times)
    ]
    (file,) = stage_files("events", "r", rows, [JAN_1], 1, rows_in_group=1).files
    ends = ["2025-01-01T00:10:00.000000Z", "2025-01-01T23:50:00.000000Z"]
    assert (file.rows, file.times) == (5, {"event_time": ends})
    # From these ends a run tells which sessions it has to make again: here also those beyond both midnights.
    publish("events", "r")
    changed = changed_by(Table("events").files, timedelta(minutes=30))
    assert sorted(str(day) for day in changed) == ["2024-12-31", "2025-01-01", "2025-01-02", "2025-01-03"]


def test_readers_do_not_see_what_is_staged(lake):
    stage_files("quarantine", "first", rejected(JAN_1, "a"), [JAN_1], 1)
    with pytest.raises(TableMissing, match="quarantine has no published version"):
        Table("quarantine")
    assert Table.find("quarantine") is None

    publish("quarantine", "first")
    before = Table("quarantine")
    stage_files("quarantine", "second", rejected(JAN_1, "b", "c"), [JAN_1], 2)
    after = Table("quarantine")
    assert (after.version, after.files, after.rows_by()) == (before.version, before.files, {JAN_1: 1})


def test_a_run_that_was_killed_before_its_manifest_has_staged_nothing(lake):
    staged = stage_files("quarantine", "r", rejected(JAN_1, "a"), [JAN_1], 1)
    (lake / "lake" / "_runs" / "r" / f"quarantine.{staged.stage_id}.json").unlink()
    assert storage.list_files(str(lake / "lake" / "quarantine")).keys() == {staged.files[0].path}
    with pytest.raises(NotStaged, match="run 'r' has staged nothing for quarantine"):
        read_staged("quarantine", "r")


def test_run_ids_that_differ_have_folders_that_differ(lake):
    # Airflow's run ids hold colons and pluses; each is one folder, below the lake whatever it says.
    ids = ["a:b", "a+b", "a/b", "a-b", "../../etc", "手动"]
    folders = [run_folder(run_id) for run_id in ids]
    assert len(set(folders)) == len(ids)
    assert {folder.rsplit("/", 1)[0] for folder in folders} == {f"{lake}/lake/_runs"}
