"""Publishing: one commit replaces exactly what the run owns, once, and never by something older."""

import json
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pyspark.sql.types import StringType, StructField, StructType

from lake import commits, staging
from lake import publish as publishing
from lake import table as tables
from lake.errors import (
    CommitContended,
    NotStaged,
    PublishRefused,
    SchemaMismatch,
    SettingsInvalid,
    TableMissing,
    TableUnreadable,
)
from lake.log import actions, read_log
from lake.places import forgotten_path, table_path
from lake.privacy.forgotten import ForgottenUsers, list_users
from lake.publish import main, publish
from lake.schemas import QUARANTINE, TABLES
from lake.staging import Verdict, write_verdict
from lake.table import MADE, Table
from tests.lake.stagings import JAN_1, JAN_2, JAN_3, read_files, rejected, stage_files


def raws() -> list:
    """Return (dt, raw) of everything that readers of `quarantine` see."""
    return read_files(Table("quarantine"), "raw")


def staged_and_published(run_id: str, rows: list, owns: list, basis: int) -> dict:
    stage_files("quarantine", run_id, rows, owns, basis)
    return publish("quarantine", run_id)


# ---- what a publish replaces ----


def test_a_publish_replaces_the_days_it_owns_and_no_others(lake):
    first = rejected(JAN_1, "a", "b", "c") + rejected(JAN_2, "d") + rejected(JAN_3, "e")
    staged_and_published("first", first, [JAN_1, JAN_2, JAN_3], basis=1)
    # The first day shrank to another row, the second became empty, the third is not this run's business.
    done = staged_and_published("second", rejected(JAN_1, "x"), [JAN_1, JAN_2], basis=2)
    assert raws() == [(JAN_1, "x"), (JAN_3, "e")]
    assert done == {
        "table": "quarantine",
        "run_id": "second",
        "version": 2,
        "rows": 1,
        "partitions": 2,
        "refused": [],
        "withheld": [],
        "verdict": "passed",
        "docs": "/docs/page.html",
        "already": False,
    }


def test_nothing_is_published_to_a_lake_that_a_mistyped_name_leads_to(lake, monkeypatch):
    stage_files("quarantine", "r", [], [JAN_1], 0)
    monkeypatch.setenv("MEANDER_LAEK", "/x")
    with pytest.raises(SettingsInvalid, match="did you mean MEANDER_LAKE"):
        main(["--table", "quarantine", "--run-id", "r"])
    assert Table.find("quarantine") is None


def test_a_landing_day_is_replaced_on_whatever_dates_its_events_lie(lake):
    def events(run_id: str, landed, *ids_and_dates) -> None:
        rows = [
            {"event_id": i, "user_id": "u", "event_time": datetime(dt.year, dt.month, dt.day, tzinfo=UTC)}
            | {"dt": dt, "landed": landed}
            for i, dt in ids_and_dates
        ]
        stage_files("events", run_id, rows, [landed], basis=int(run_id))
        publish("events", run_id)

    events("1", JAN_1, ("a", JAN_1))
    events("2", JAN_2, ("b", JAN_1), ("c", JAN_2))
    # Delivered again: the late event is gone, another has come, and what landed the day before stays.
    events("3", JAN_2, ("d", JAN_2))
    assert read_files(Table("events"), "event_id") == [(JAN_1, "a"), (JAN_2, "d")]


def test_the_commit_says_what_it_was_made_from(lake):
    about = {"counts": {"input": 9}, "inputs": {"events": 4}, "seconds": 12.5}
    staged = stage_files("quarantine", "r", rejected(JAN_1, "a"), [JAN_1, JAN_2], 7, audited="", **about)
    write_verdict(Verdict("quarantine", "r", staged.stage_id, "warned", ["few rows"], "/docs/page.html", 3.5))
    assert publish("quarantine", "r")["verdict"] == "warned"
    said = Table("quarantine").commits()[0]
    assert (said["run_id"], said["stage_id"], said["verdict"]) == ("r", staged.stage_id, "warned")
    assert (said["first"], said["last"], said["rows"]) == ("2025-01-01", "2025-01-02", "1")
    # A plan asks what was read and how long it took; pages and alerts ask for the rest.
    assert (json.loads(said["counts"]), json.loads(said["inputs"])) == ({"input": 9}, {"events": 4})
    assert (said["stage_seconds"], said["audit_seconds"]) == ("12.5", "3.5")
    assert (said["started"], said["docs"], json.loads(said["refused"])) == (staged.started, "/docs/page.html", [])


def test_who_follows_the_log_is_told_that_rows_have_come_and_when(lake):
    # Streaming readers leave out what does not change data, such as a compaction.
    staged_and_published("r", rejected(JAN_1, "a"), [JAN_1], basis=1)
    log = (lake / "lake" / "quarantine" / "_delta_log" / f"{1:020}.json").read_text()
    (added,) = (entry["add"] for entry in map(json.loads, log.splitlines()) if "add" in entry)
    assert added["dataChange"] is True
    assert abs(added["modificationTime"] / 1000 - time.time()) < 3600


# ---- publishing again ----


def test_publishing_twice_is_a_no_op(lake):
    first = staged_and_published("r", rejected(JAN_1, "a"), [JAN_1], basis=1)
    again = publish("quarantine", "r")
    assert again == {**first, "already": True}
    assert Table("quarantine").version == first["version"]


def test_publishing_again_does_not_bring_back_what_another_run_has_replaced(lake):
    staged_and_published("first", rejected(JAN_1, "a"), [JAN_1], basis=1)
    staged_and_published("second", rejected(JAN_1, "b"), [JAN_1], basis=2)
    assert publish("quarantine", "first")["already"]
    assert raws() == [(JAN_1, "b")]


def test_a_run_that_stages_and_audits_again_publishes_anew(lake):
    staged_and_published("r", rejected(JAN_1, "a", "b"), [JAN_1], basis=1)
    done = staged_and_published("r", rejected(JAN_1, "c"), [JAN_1], basis=2)
    assert not done["already"]
    assert raws() == [(JAN_1, "c")]


# ---- what is not published ----


def not_audited() -> None:
    stage_files("quarantine", "r", rejected(JAN_1, "new"), [JAN_1], 2, audited="")


def failed() -> None:
    stage_files("quarantine", "r", rejected(JAN_1, "new"), [JAN_1], 2, audited="failed")


def staged_again() -> None:
    stage_files("quarantine", "r", rejected(JAN_1, "new"), [JAN_1], 2)
    stage_files("quarantine", "r", rejected(JAN_1, "newer"), [JAN_1], 3, audited="")


@pytest.mark.parametrize(
    ("staging", "error", "says"),
    [
        pytest.param(lambda: None, NotStaged, "run 'r' has staged nothing for quarantine", id="nothing staged"),
        pytest.param(not_audited, PublishRefused, "quarantine of run 'r' has not been audited", id="no audit"),
        pytest.param(
            failed,
            PublishRefused,
            "quarantine of run 'r' failed its audit: prices are prices",
            id="failed audit",
        ),
        pytest.param(
            staged_again,
            PublishRefused,
            "has not been audited since it was staged",
            id="staged again after the audit",
        ),
    ],
)
def test_what_has_not_passed_its_audit_is_refused_and_readers_keep_what_they_had(lake, staging, error, says):
    staged_and_published("before", rejected(JAN_1, "old"), [JAN_1], basis=1)
    staging()
    with pytest.raises(error, match=says):
        publish("quarantine", "r")
    assert raws() == [(JAN_1, "old")]
    assert Table("quarantine").version == 1


def test_a_refused_first_publish_makes_no_table(lake):
    not_audited()
    with pytest.raises(PublishRefused):
        publish("quarantine", "r")
    assert Table.find("quarantine") is None


def test_a_refused_run_goes_through_once_it_is_mended(lake):
    failed()
    with pytest.raises(PublishRefused):
        publish("quarantine", "r")
    staged_and_published("r", rejected(JAN_1, "mended"), [JAN_1], basis=3)
    assert raws() == [(JAN_1, "mended")]


# ---- the basis ----


def test_a_day_is_not_replaced_by_one_of_an_older_basis_while_the_other_days_of_the_run_go_through(lake):
    staged_and_published("newer", rejected(JAN_2, "from 5"), [JAN_2], basis=5)
    rows = rejected(JAN_1, "from 4") + rejected(JAN_2, "from 4", "from 4 too")
    done = staged_and_published("older", rows, [JAN_1, JAN_2, JAN_3], basis=4)
    # What it says of itself is what readers got of it: one row, on the first of two days; the third was empty.
    assert (done["refused"], done["rows"], done["partitions"]) == (["2025-01-02"], 1, 2)
    assert raws() == [(JAN_1, "from 4"), (JAN_2, "from 5")]
    assert [Table("quarantine").basis(day) for day in (JAN_1, JAN_2, JAN_3)] == [4, 5, 4]
    assert json.loads(Table("quarantine").commits()[0]["refused"]) == ["2025-01-02"]


def test_a_run_whose_days_are_all_overtaken_changes_nothing_but_counts_as_published(lake):
    staged_and_published("newer", rejected(JAN_1, "from 5"), [JAN_1], basis=5)
    done = staged_and_published("older", rejected(JAN_1, "from 4"), [JAN_1], basis=4)
    assert (done["refused"], done["already"]) == (["2025-01-01"], False)
    assert (done["rows"], done["partitions"]) == (0, 0)
    assert publish("quarantine", "older")["already"]
    assert raws() == [(JAN_1, "from 5")]


def test_a_day_published_as_empty_has_a_basis_too(lake):
    staged_and_published("newer", [], [JAN_1], basis=5)
    assert staged_and_published("older", rejected(JAN_1, "from 4"), [JAN_1], basis=4)["refused"] == ["2025-01-01"]
    assert raws() == []


def test_of_two_runs_of_the_same_basis_the_later_publish_counts(lake):
    staged_and_published("one", rejected(JAN_1, "one"), [JAN_1], basis=5)
    assert staged_and_published("two", rejected(JAN_1, "two"), [JAN_1], basis=5)["refused"] == []
    assert raws() == [(JAN_1, "two")]


def test_a_basis_outlives_the_clean_up_of_the_log(lake):
    staged_and_published("newer", rejected(JAN_1, "from 5"), [JAN_1], basis=5)
    staged_and_published("other", rejected(JAN_2, "from 5"), [JAN_2], basis=5)
    delta = Table("quarantine").delta
    delta.alter.set_table_properties({"delta.logRetentionDuration": "interval 0 seconds"})
    delta.create_checkpoint()
    delta.cleanup_metadata()
    assert not (lake / "lake" / "quarantine" / "_delta_log" / "00000000000000000001.json").exists()
    assert staged_and_published("older", rejected(JAN_1, "from 4"), [JAN_1], basis=4)["refused"] == ["2025-01-01"]
    assert publish("quarantine", "newer")["already"]


# ---- overtaken between the look and the commit ----


def test_a_publish_that_comes_second_looks_again_and_names_the_version_that_it_made(lake, monkeypatch):
    stage_files("quarantine", "slow", rejected(JAN_1, "slow"), [JAN_1], 1)
    commit, looks = publishing.commit, []

    def commit_after_another(delta, staged, *args) -> None:
        looks.append((staged.run_id, delta.version()))
        if len(looks) == 1:  # the other publish below comes here too
            staged_and_published("quick", rejected(JAN_2, "quick"), [JAN_2], basis=1)
        commit(delta, staged, *args)

    monkeypatch.setattr(publishing, "commit", commit_after_another)
    done = publish("quarantine", "slow")
    assert looks == [("slow", 0), ("quick", 0), ("slow", 1)]
    assert [(said["version"], said["run_id"]) for said in Table("quarantine").commits()] == [(2, "slow"), (1, "quick")]
    assert (done["version"], done["rows"], done["already"]) == (2, 1, False)


def test_a_day_overtaken_between_the_look_and_the_commit_is_refused_at_the_second_look(lake, monkeypatch):
    stage_files("quarantine", "slow", rejected(JAN_1, "from 4") + rejected(JAN_2, "from 4"), [JAN_1, JAN_2], 4)
    commit, looks = publishing.commit, []

    def commit_after_another(*args) -> None:
        looks.append(args)
        if len(looks) == 1:  # the other publish below comes here too, as the second
            staged_and_published("quick", rejected(JAN_2, "from 5"), [JAN_2], basis=5)
        commit(*args)

    monkeypatch.setattr(publishing, "commit", commit_after_another)
    assert publish("quarantine", "slow")["refused"] == ["2025-01-02"]
    assert len(looks) == 3
    assert raws() == [(JAN_1, "from 4"), (JAN_2, "from 5")]


def test_a_publish_that_always_loses_says_so_and_changes_nothing(lake, monkeypatch):
    stage_files("quarantine", "unlucky", rejected(JAN_1, "unlucky"), [JAN_1], 1)
    commit = publishing.commit

    def commit_after_another(delta, staged, *args) -> None:
        if staged.run_id == "unlucky":
            staged_and_published(f"other {delta.version()}", rejected(JAN_2, "other"), [JAN_2], basis=1)
        commit(delta, staged, *args)

    monkeypatch.setattr(publishing, "commit", commit_after_another)
    monkeypatch.setattr(commits, "ATTEMPTS", 3)
    with pytest.raises(CommitContended, match=r"publishes came first 3 times in a row; nothing of run 'unlucky' is"):
        publish("quarantine", "unlucky")
    assert raws() == [(JAN_2, "other")]
    monkeypatch.undo()


# ---- the command ----


def command(lake, *arguments: str) -> subprocess.CompletedProcess:
    # Our code, and not that of another copy which is installed here.
    ours = str(Path(__file__).parents[2])
    env = {"MEANDER_LAKE": f"{lake}/lake", "PATH": "/usr/bin:/bin", "PYTHONWARNINGS": "error", "PYTHONPATH": ours}
    return subprocess.run(
        [sys.executable, "-m", "lake.publish", *arguments],
        env=env,
        cwd=lake,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_prints_a_line_for_each_table_and_names_what_it_refuses(lake):
    stage_files("quarantine", "r", rejected(JAN_1, "a"), [JAN_1], 1)
    stage_files("sessions", "r", [{"session_id": "s", "dt": JAN_1}], [JAN_1], 1, audited="failed")
    ended = command(lake, "--table", "quarantine", "--table", "sessions", "--run-id", "r")
    assert [json.loads(line)["table"] for line in ended.stdout.splitlines()] == ["quarantine"]
    assert ended.returncode == 1
    said = ended.stderr.strip().splitlines()[-1]
    assert "PublishRefused: sessions of run 'r' failed its audit: prices are prices" in said
    assert "docs/runbook.md#publish-refused" in said
    with pytest.raises(TableMissing):
        Table("sessions")


# ---- columns that change ----


@pytest.fixture
def declare(monkeypatch):
    """Return what lets lake/schemas.py have other columns of `quarantine`."""

    def declare(*columns: StructField) -> None:
        spec = replace(TABLES["quarantine"], schema=StructType(list(columns)))
        for module in (publishing, staging, tables):
            monkeypatch.setitem(module.TABLES, "quarantine", spec)

    return declare


SEVERITY = StructField("severity", StringType(), True, {"comment": "how bad it is"})


def test_a_new_column_reaches_readers_with_the_next_publish_and_is_null_before(lake, declare):
    staged_and_published("old", rejected(JAN_1, "a") + rejected(JAN_2, "b"), [JAN_1, JAN_2], basis=1)
    before = Table("quarantine")
    declare(QUARANTINE["reason"], SEVERITY, *QUARANTINE.fields[1:])
    staged_and_published("new", [{**row, "severity": "high"} for row in rejected(JAN_2, "c")], [JAN_2], basis=2)
    after = Table("quarantine")
    assert [field.name for field in after.delta.schema().fields] == after.spec.schema.fieldNames()
    answer = after.query("select raw, severity from quarantine order by raw")
    assert answer.to_pylist() == [{"raw": "a", "severity": None}, {"raw": "c", "severity": "high"}]
    assert [after.head(day, 1)[0]["severity"] for day in (JAN_1, JAN_2)] == [None, "high"]
    frame = [after.read_file(file, ["severity"]).column("severity").to_pylist() for file in after.files]
    assert sorted(frame, key=str) == [["high"], [None]]
    # It is the same table, which keeps its whole log, and a version that was opened before stays as it was.
    assert after.delta.metadata().id == before.delta.metadata().id
    assert after.delta.metadata().configuration == before.delta.metadata().configuration
    assert read_files(before, "raw") == [(JAN_1, "a"), (JAN_2, "b")]
    assert [commit["run_id"] for commit in after.commits()] == ["new", "old"]


def test_a_publish_without_a_new_column_writes_no_metadata(lake):
    staged_and_published("1", rejected(JAN_1, "a"), [JAN_1], basis=1)
    (commit,) = read_log(table_path("quarantine"), 1, after=0).values()
    assert actions(commit, "metaData") == []


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        pytest.param([f for f in QUARANTINE if f.name != "line"], "line int64 is gone", id="removed"),
        pytest.param(
            [StructField("line", StringType()) if f.name == "line" else f for f in QUARANTINE],
            "line int64 has become string",
            id="retyped",
        ),
        pytest.param(
            [*QUARANTINE, StructField("severity", StringType(), nullable=False)],
            "severity is new and not nullable",
            id="a new one that may not be null",
        ),
    ],
)
def test_columns_that_readers_would_lose_are_refused(lake, declare, columns, told):
    staged_and_published("old", rejected(JAN_1, "a"), [JAN_1], basis=1)
    declare(*columns)
    (row,) = rejected(JAN_1, "b")
    row = {name: value for name, value in {**row, "severity": "high"}.items() if name in {c.name for c in columns}}
    stage_files("quarantine", "new", [row], [JAN_1], 2)
    with pytest.raises(SchemaMismatch, match=f"quarantine has other published columns than .*: {told}. A table keeps"):
        publish("quarantine", "new")
    assert raws() == [(JAN_1, "a")]


def test_where_the_list_of_forgotten_users_cannot_be_read_nothing_is_published_and_the_error_names_it(lake):
    staged_and_published("1", rejected(JAN_1, "a"), [JAN_1], 1)
    list_users(["ann"])
    log = Path(forgotten_path(), "_delta_log")
    newest = max(log.glob("*.json"))
    content = newest.read_bytes()
    newest.write_bytes(content[:20])
    stage_files("quarantine", "2", rejected(JAN_1, "b"), [JAN_1], 2)
    for attempt in (lambda: publish("quarantine", "2"), ForgottenUsers.read):
        with pytest.raises(TableUnreadable, match=rf"the log {log} cannot be read \(DeltaError\); see to the rights"):
            attempt()
    newest.write_bytes(content)
    assert publish("quarantine", "2")["rows"] == 1


def test_a_table_whose_log_is_gone_is_not_begun_anew_and_its_rows_are_back_with_the_log(lake):
    staged_and_published("1", rejected(JAN_1, "a"), [JAN_1], 1)
    folder = Path(table_path("quarantine"))
    (folder / "_delta_log").rename(lake / "moved")
    stage_files("quarantine", "2", rejected(JAN_2, "b"), [JAN_2], 2)
    with pytest.raises(TableUnreadable) as refused:
        publish("quarantine", "2")
    assert refused.value.message == (
        f"the log of {folder} is gone, so nobody knows which of its files are those of the table; put the folder "
        f"{folder / '_delta_log'} back from a copy"
    )
    assert not (folder / "_delta_log").exists()
    (lake / "moved").rename(folder / "_delta_log")
    publish("quarantine", "2")
    assert raws() == [(JAN_1, "a"), (JAN_2, "b")]


def test_a_log_of_which_no_commit_can_be_read_is_not_one_that_is_gone(lake):
    staged_and_published("1", rejected(JAN_1, "a"), [JAN_1], 1)
    log = Path(table_path("quarantine"), "_delta_log")
    for commit in log.glob("*.json"):
        commit.rename(commit.with_suffix(".bak"))
    stage_files("quarantine", "2", rejected(JAN_2, "b"), [JAN_2], 2)
    for attempt in (lambda: publish("quarantine", "2"), lambda: Table.find("quarantine")):
        with pytest.raises(TableUnreadable, match=f"the log {log} cannot be read"):
            attempt()
    assert sorted(file.suffix for file in log.iterdir()) == [".bak", ".bak"]


def test_a_table_whose_folder_was_removed_as_a_whole_is_begun_anew(lake):
    staged_and_published("1", rejected(JAN_1, "a"), [JAN_1], 1)
    shutil.rmtree(table_path("quarantine"))
    staged_and_published("2", rejected(JAN_2, "b"), [JAN_2], 2)
    assert raws() == [(JAN_2, "b")]


def test_nothing_is_published_where_the_log_of_the_list_of_forgotten_users_is_gone(lake):
    staged_and_published("1", rejected(JAN_1, "a"), [JAN_1], 1)
    list_users(["ann"])
    log = Path(forgotten_path(), "_delta_log")
    # A list that is older than the mark gets it when it is read.
    (log.parent / MADE).unlink()
    ForgottenUsers.read()
    log.rename(lake / "moved")
    stage_files("quarantine", "2", rejected(JAN_2, "b"), [JAN_2], 2)
    for attempt in (lambda: publish("quarantine", "2"), ForgottenUsers.read, lambda: list_users(["bob"])):
        with pytest.raises(TableUnreadable, match=rf"the log of .*_forgotten is gone, .* put the folder {log} back"):
            attempt()
    assert not log.exists()
    (lake / "moved").rename(log)
    assert [user in ForgottenUsers.read() for user in ("ann", "bob")] == [True, False]
