"""Staging: files under fresh names and a manifest, seen by nobody but the audit and the publish."""

from datetime import datetime

import pytest

from lake import storage
from lake.errors import NotStaged, SchemaMismatch, TableMissing
from lake.publish import publish
from lake.schemas import EVENTS, QUARANTINE, SESSIONS
from lake.staging import Run, read_staged, run_folder, stage
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
    # The order of columns is the table's, whatever order a job ends in.
    staged = stage(rows.select(*rows.columns[::-1]), "events", run, [JAN_2], run.basis, {"input": 3}, {"events": 7})

    assert read_staged("events", run.run_id) == staged
    assert (staged.rows, staged.counts, staged.inputs) == (3, {"input": 3}, {"events": 7})
    assert {file.path.split("/", 1)[1].rsplit("/", 1)[0]: file.rows for file in staged.files} == {
        "dt=2025-01-01/landed=2025-01-02": 1,
        "dt=2025-01-02/landed=2025-01-02": 2,
    }
    assert sorted(staged.read(spark).collect()) == sorted(rows.collect())

    audit(staged)
    publish("events", run.run_id)
    table = Table("events")
    assert sorted(table.read(spark).collect()) == sorted(rows.collect())
    assert [row.event_id for row in table.read(spark, last=JAN_1).collect()] == ["e1"]
    assert table.read(spark, landed_by=JAN_1).count() == 0
    assert (table.rows_by("dt"), table.rows_by("landed")) == ({JAN_1: 1, JAN_2: 2}, {JAN_2: 3})


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
    assert not storage.exists(str(lake / "lake"))


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
    (lake / "lake" / "_runs" / "r" / "quarantine.json").unlink()
    assert storage.list_files(str(lake / "lake" / "quarantine")).keys() == {staged.files[0].path}
    with pytest.raises(NotStaged, match="run 'r' has staged nothing for quarantine"):
        read_staged("quarantine", "r")


def test_run_ids_that_differ_have_folders_that_differ(lake):
    # Airflow's run ids hold colons and pluses; each is one folder, below the lake whatever it says.
    ids = ["a:b", "a+b", "a/b", "a-b", "../../etc", "手动"]
    folders = [run_folder(run_id) for run_id in ids]
    assert len(set(folders)) == len(ids)
    assert {folder.rsplit("/", 1)[0] for folder in folders} == {f"{lake}/lake/_runs"}
