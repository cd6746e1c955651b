"""Upkeep: fewer files with the same rows, and nothing removed that a reader, a run or a model may still need."""

import itertools
import json
import os
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from deltalake import DeltaTable

from lake import audits, commits, storage
from lake import publish as publishing
from lake import upkeep as upkeeping
from lake.errors import CommitContended, PublishRefused, UpkeepFailed
from lake.log import history
from lake.places import audits_path, model_folder, table_path
from lake.publish import publish
from lake.schemas import TABLES
from lake.settings import Settings, settings
from lake.table import Table
from lake.upkeep import MaintenanceResult, delta_tables, main, maintain_table, prune_alerts, prune_docs, upkeep
from tests.lake.stagings import JAN_1, JAN_2, JAN_3, published, read_files, rejected, stage_files
from tests.session_oracle import ONE_DAY

DAY_SECONDS = 86_400
WEEK = 7 * ONE_DAY


def place(path: str) -> Path:
    return Path(table_path("quarantine")) / path


def age(days: int) -> None:
    """Let everything that is in the lake now be older: files, commits, and what the commits say of files."""
    root = Path(settings().lake)
    for entry in root.rglob("_delta_log/*.json"):
        lines = [json.loads(line) for line in entry.read_text().splitlines()]
        for action in (content for line in lines for content in line.values()):
            for name in ("timestamp", "deletionTimestamp", "modificationTime"):
                if action.get(name):
                    action[name] -= days * DAY_SECONDS * 1000
        written = entry.stat()
        entry.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        os.utime(entry, (written.st_atime, written.st_mtime))
    aged(root, days)


def aged(folder: Path, days: int) -> None:
    """Let the files in a folder be older."""
    for file in folder.rglob("*.*"):
        written = file.stat().st_mtime - days * DAY_SECONDS
        os.utime(file, (written, written))


def maintained(retention: timedelta = WEEK) -> MaintenanceResult:
    return maintain_table("quarantine", table_path("quarantine"), retention)


def raws(version: int | None = None) -> list:
    return read_files(Table("quarantine", version), "raw")


LINE = audits.AuditLine(
    "events", "r", "s", JAN_1, JAN_1, datetime(2025, 1, 1, tzinfo=UTC), "e", "c", "critical", True, "", "passed", ""
)


def test_the_history_of_audits_is_compacted_too(lake):
    for _ in range(3):
        audits.record([LINE])
    (result, *_) = upkeep(settings())
    assert (result.what, result.compacted) == ("audits", 1)
    assert len(DeltaTable(audits_path()).file_uris()) == 1
    assert audits.read().num_rows == 3


# ---- what is removed, and what is not ----


@pytest.fixture
def replaced_long_ago(lake):
    """Three versions of a day, of which the first two were replaced a month ago."""
    for n in (1, 2, 3):
        published(f"{n}", rejected(JAN_1, f"version {n}"), [JAN_1], n)
    age(30)
    return table_path("quarantine")


def test_what_was_replaced_longer_ago_than_the_retention_is_removed(replaced_long_ago):
    result = maintained()
    assert (result.files_before, result.files_after, result.removed) == (3, 1, 2)
    assert result.bytes_after == sum(file.bytes for file in Table("quarantine").files) < result.bytes_before
    assert raws() == [(JAN_1, "version 3")]


def test_a_reader_goes_on_reading_a_version_that_was_replaced_within_the_retention(replaced_long_ago):
    reader = Table("quarantine")
    published("4", rejected(JAN_1, "version 4"), [JAN_1], 4)
    maintained()
    assert read_files(reader, "raw") == [(JAN_1, "version 3")]


def test_a_retention_longer_than_the_log_remembers_replaced_files_holds_as_well(replaced_long_ago):
    published("4", rejected(JAN_1, "version 4"), [JAN_1], 4)
    age(8)
    # A checkpoint lists what was replaced in the last week only.
    DeltaTable(replaced_long_ago).create_checkpoint()
    reader = Table("quarantine", 3)
    maintained(20 * ONE_DAY)
    assert read_files(reader, "raw") == [(JAN_1, "version 3")]


@pytest.mark.parametrize(
    "pin",
    [
        pytest.param(lambda: f"{model_folder('weekly')}/plan.json", id="a training"),
        pytest.param(lambda: f"{settings().lake}/_mlflow/versions/1f/card.json", id="a registered model"),
    ],
)
def test_the_version_that_a_model_was_made_from_stays_readable(replaced_long_ago, pin):
    storage.write_json(pin(), {"tables": {"quarantine": 2, "events": 1}})
    result = maintained()
    assert (result.removed, result.pinned) == (1, 1)
    assert raws(2) == [(JAN_1, "version 2")]


def test_a_pin_of_a_lake_that_was_deleted_holds_up_nothing(replaced_long_ago):
    storage.write_json(f"{model_folder('weekly')}/plan.json", {"tables": {"quarantine": 99}})
    assert maintained().removed == 2


def test_the_log_tells_all_that_was_ever_published_however_long_ago(lake):
    # What a landing day held before it was delivered again is looked up there, after years too.
    published("1", rejected(JAN_1, "a"), [JAN_1], 1)
    published("2", rejected(JAN_1, "b"), [JAN_1], 2)
    age(1000)
    published("3", rejected(JAN_1, "c"), [JAN_1], 3)
    delta = DeltaTable(table_path("quarantine"))
    delta.create_checkpoint()
    delta.cleanup_metadata()
    maintained()
    assert [commit["run_id"] for commit in Table("quarantine").commits()] == ["3", "2", "1"]


def test_what_a_running_job_has_staged_stays_and_is_published_after_it(replaced_long_ago):
    stage_files("quarantine", "running", rejected(JAN_2, "staged"), [JAN_2], 5)
    maintained()
    publish("quarantine", "running")
    assert raws() == [(JAN_1, "version 3"), (JAN_2, "staged")]


def test_a_staging_that_was_given_up_is_removed_and_can_not_be_published_any_more(lake):
    published("1", rejected(JAN_1, "a"), [JAN_1], 1)
    stage_files("quarantine", "given up", rejected(JAN_1, "b"), [JAN_1], 2)
    age(30)
    assert maintained().removed == 1
    with pytest.raises(PublishRefused, match="1 files that run 'given up' staged for quarantine are gone"):
        publish("quarantine", "given up")
    assert raws() == [(JAN_1, "a")]
    published("given up", rejected(JAN_1, "b"), [JAN_1], 2)
    assert raws() == [(JAN_1, "b")]
    assert publish("quarantine", "given up")["already"]


def test_stagings_of_a_table_that_was_never_published_are_removed_as_any_other(lake):
    stage_files("quarantine", "old", rejected(JAN_1, "a"), [JAN_1], 1)
    age(30)
    stage_files("quarantine", "new", rejected(JAN_2, "b"), [JAN_2], 2)
    planned, *_ = upkeep(settings(), dry_run=True)
    assert (planned.what, planned.removed, planned.files_after) == ("quarantine", 1, 2)
    assert Table.find("quarantine") is None
    done, *_ = upkeep(settings())
    assert (done.what, done.removed, done.files_after) == ("quarantine", 1, 1)
    with pytest.raises(PublishRefused, match="1 files that run 'old' staged for quarantine are gone"):
        publish("quarantine", "old")
    publish("quarantine", "new")
    assert raws() == [(JAN_2, "b")]


def test_the_files_of_a_table_whose_log_is_gone_stay(lake):
    published("1", rejected(JAN_1, "a"), [JAN_1], 1)
    age(30)
    log, moved = Path(table_path("quarantine"), "_delta_log"), lake / "moved"
    log.rename(moved)
    log.mkdir()
    for dry_run in (True, False):
        part, *_ = upkeep(settings(), dry_run=dry_run)
        assert (part.what, part.removed, part.files_after) == ("quarantine", 0, 1)
        assert part.problem == (
            "its log is gone, so nobody knows which of its files readers need, and none was removed; put the folder "
            f"{log} back from a copy"
        )
    log.rmdir()
    moved.rename(log)
    assert raws() == [(JAN_1, "a")]


def test_a_table_whose_stagings_are_young_is_not_made_by_upkeep(lake):
    stage_files("quarantine", "new", rejected(JAN_2, "b"), [JAN_2], 2)
    part, *_ = upkeep(settings())
    assert (part.what, part.removed, part.files_after) == ("quarantine", 0, 1)
    assert Table.find("quarantine") is None


# ---- a publish of a staging that is given up at the same time ----


@pytest.fixture
def waiting(lake) -> str:
    """A staging that has waited for a month, beside a day that is published; return the name of its run."""
    published("1", rejected(JAN_1, "a"), [JAN_1], 1)
    stage_files("quarantine", "waiting", rejected(JAN_2, "b", "c"), [JAN_2], 2)
    age(30)
    return "waiting"


GONE = "1 files that run 'waiting' staged for quarantine are gone"


def test_a_staging_that_upkeep_gives_up_between_the_look_and_the_commit_of_its_publish_is_not_published(
    waiting, monkeypatch
):
    def overtaken(*arguments: object) -> None:
        monkeypatch.setattr(publishing, "commit", commit)
        assert maintained().removed == 1
        commit(*arguments)

    commit = publishing.commit
    monkeypatch.setattr(publishing, "commit", overtaken)
    with pytest.raises(PublishRefused, match=GONE):
        publish("quarantine", waiting)
    assert raws() == [(JAN_1, "a")]


def test_a_staging_that_is_published_before_upkeep_gives_it_up_keeps_its_files(waiting, monkeypatch):
    def overtaken(*arguments: object) -> set[str]:
        monkeypatch.setattr(upkeeping, "give_up", give_up)
        publish("quarantine", waiting)
        return give_up(*arguments)

    # Another one is given up all the same.
    stage_files("quarantine", "given up", rejected(JAN_3, "d"), [JAN_3], 2)
    age(30)
    give_up = upkeeping.give_up
    monkeypatch.setattr(upkeeping, "give_up", overtaken)
    assert maintained().removed == 1
    assert raws() == [(JAN_1, "a"), (JAN_2, "b"), (JAN_2, "c")]


def test_a_staging_that_is_published_while_upkeep_gives_it_up_keeps_its_files(waiting, monkeypatch):
    class Overtaken(DeltaTable):
        def create_write_transaction(self, *arguments: object, **more: object) -> None:
            if not already:
                already.append(publish("quarantine", waiting))
            super().create_write_transaction(*arguments, **more)

    already: list[dict] = []
    monkeypatch.setattr(upkeeping, "DeltaTable", Overtaken)
    assert maintained().removed == 0
    assert already[0]["rows"] == 2
    assert raws() == [(JAN_1, "a"), (JAN_2, "b"), (JAN_2, "c")]


def test_a_staging_whose_files_upkeep_is_about_to_remove_is_not_published(waiting, monkeypatch):
    def overtaken(*arguments: object) -> None:
        with pytest.raises(PublishRefused, match=GONE):
            publish("quarantine", waiting)
        remove_files(*arguments)

    remove_files = storage.remove_files
    monkeypatch.setattr(storage, "remove_files", overtaken)
    assert maintained().removed == 1
    assert raws() == [(JAN_1, "a")]


def test_what_an_upkeep_that_was_killed_has_given_up_is_removed_by_the_next(waiting, monkeypatch):
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(storage, "remove_files", killed)
        with pytest.raises(KeyboardInterrupt):
            maintained()
    with pytest.raises(PublishRefused, match=GONE):
        publish("quarantine", waiting)
    before = commits_of(table_path("quarantine"))
    assert maintained().removed == 1
    assert commits_of(table_path("quarantine")) == before, "it is given up once"
    assert maintained().removed == 0


def test_nothing_is_removed_where_publishes_win_each_commit(waiting, monkeypatch):
    class Overtaken(DeltaTable):
        def create_write_transaction(self, *arguments: object, **more: object) -> None:
            n = next(runs)
            published(f"{n}", rejected(JAN_1, f"{n}"), [JAN_1], n)
            super().create_write_transaction(*arguments, **more)

    runs = itertools.count(2)
    monkeypatch.setattr(upkeeping, "DeltaTable", Overtaken)
    monkeypatch.setattr(commits, "ATTEMPTS", 3)
    with pytest.raises(CommitContended, match="publishes came first 3 times in a row; no file was removed"):
        maintained()
    publish("quarantine", waiting)
    assert raws() == [(JAN_1, "4"), (JAN_2, "b"), (JAN_2, "c")]


# ---- what is missing ----


def test_files_that_readers_need_and_that_are_gone_are_told(replaced_long_ago):
    storage.write_json(f"{model_folder('weekly')}/plan.json", {"tables": {"quarantine": 2}})
    for version, told in ((3, 1), (2, 2)):
        (gone,) = Table("quarantine", version).files
        place(gone.path).unlink()
        problem = maintained().problem
        assert problem.startswith(f"{told} files that readers need are missing, the first is stage=")


def test_a_file_that_cannot_be_read_keeps_no_other_from_being_merged_and_nothing_old_from_going(replaced_long_ago):
    staged = published("4", rejected(JAN_2, "b") + rejected(JAN_3, "c"), [JAN_2, JAN_3], 4, copies=1)
    damaged = place(staged.files[0].path)
    damaged.write_bytes(damaged.read_bytes()[:-20])
    result = maintained()
    assert result.problem == (
        f"1 of 2 partitions could not be merged: {staged.files[0].path} cannot be read (ArrowInvalid); put those files "
        "back from a copy, or have their dates published anew"
    )
    assert (result.removed, result.compacted) == (2, 1), "the two versions of a month ago, and the other day"
    files = {day: [file for file in Table("quarantine").files if file.partition["dt"] == day] for day in (JAN_2, JAN_3)}
    assert (len(files[JAN_2]), len(files[JAN_3])) == (2, 1)
    # Nothing is left of the file that was begun in its place.
    assert len(list(place("").glob("stage=merged-*/**/*.parquet"))) == 1


def test_what_an_upkeep_with_a_shorter_retention_has_removed_is_not_missing(lake):
    for n in (1, 2):
        published(f"{n}", rejected(JAN_1, f"version {n}"), [JAN_1], n)
    age(2)
    assert maintained(ONE_DAY).removed == 1
    assert maintained().problem == ""


def test_publishing_again_is_a_no_op_also_when_its_files_were_replaced_and_removed(replaced_long_ago):
    maintained()
    assert publish("quarantine", "1")["already"]


def test_old_data_docs_are_removed_and_nothing_else_of_their_folder(lake):
    folder = lake / "docs"
    for name in ("old/events.html", "new/events.html", "index.html", "old/notes.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("page")
    aged(folder, 6)
    (folder / "new" / "events.html").write_text("page")
    aged(folder, 2)
    pruned = prune_docs(str(folder), WEEK)
    assert (pruned.what, pruned.files_before, pruned.files_after, pruned.removed) == ("data docs", 4, 3, 1)
    assert sorted(storage.list_files(str(folder))) == ["index.html", "new/events.html", "old/notes.txt"]


def test_what_was_sent_long_ago_is_forgotten_and_what_waits_to_be_sent_is_not(lake):
    folder = lake / "lake" / "_alerts"
    for name in ("old.json", "new.json", "unsent/old.json", "claims/old.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")
    aged(folder, 6)
    (folder / "new.json").write_text("{}")
    aged(folder, 2)
    # The second claim is that of a task which may be at work.
    (folder / "claims" / "new.json").write_text("{}")
    assert prune_alerts(settings().lake, WEEK, dry_run=True).removed == 2
    pruned = prune_alerts(settings().lake, WEEK)
    assert (pruned.what, pruned.files_before, pruned.files_after, pruned.removed) == ("alerts", 5, 3, 2)
    assert sorted(storage.list_files(str(folder))) == ["claims/new.json", "new.json", "unsent/old.json"]


def test_lines_of_audits_end_after_the_days_of_their_setting(lake, monkeypatch):
    now = datetime.now(UTC)
    for days in (1, 9, 11, 30):
        audits.record([replace(LINE, audited=now - timedelta(days=days), run_id=f"{days} days ago")])

    def kept() -> list[str]:
        return audits.read()["run_id"].to_pylist()

    upkeep(settings())
    assert len(kept()) == 4, "by default for ever"
    monkeypatch.setenv("MEANDER_KEEP_AUDITS_DAYS", "10")
    upkeep(settings(), dry_run=True)
    assert len(kept()) == 4
    upkeep(settings())
    assert kept() == ["9 days ago", "1 days ago"]


def test_each_age_is_the_one_that_its_setting_names(lake):
    # Replaced files and data docs of 30 days ago: one is older than its setting, and the other is not.
    page = Path(settings().docs_folder) / "1" / "quarantine.html"
    page.parent.mkdir(parents=True)
    page.write_text("page")
    for n in (1, 2):
        published(f"{n}", rejected(JAN_1, f"version {n}"), [JAN_1], n)
    age(30)
    for retention, docs, removed in (
        (31, 31, [0, 0, 0]),
        (31, 29, [0, 1, 0]),
        (29, 31, [1, 0, 0]),
        (29, 29, [1, 1, 0]),
    ):
        results = upkeep(Settings(retention_days=retention, docs_days=docs), dry_run=True)
        assert [result.removed for result in results] == removed


# ---- logs of years ----


def commits_of(path: str) -> list[int]:
    """Return the versions whose commits are in the log."""
    return [int(name[:20]) for name in storage.list_files(f"{path}/_delta_log") if re.fullmatch(r"\d{20}\.json", name)]


def grow_old(path: str) -> None:
    """Make a checkpoint, and let Delta clean the log of what is older than it keeps."""
    delta = DeltaTable(path)
    delta.create_checkpoint()
    delta.cleanup_metadata()


def test_a_table_whose_log_delta_has_cleaned_is_maintained_as_any_other(lake):
    # Made as by an earlier version of this code: Delta keeps its log for a month.
    DeltaTable.create(audits_path(), audits.SCHEMA, name="audits")
    for _ in range(3):
        audits.record([LINE])
    grow_old(audits_path())
    age(365)
    for _ in range(3):
        audits.record([LINE])
    grow_old(audits_path())
    assert commits_of(audits_path()) == [3, 4, 5, 6], "versions 0 to 2 are gone"
    assert [commit["version"] for commit in history(audits_path(), 5)] == [5, 4, 3]
    (result, *_) = upkeep(settings())
    # What it merged stays for those who read it now.
    assert (result.problem, result.compacted, result.files_after, result.removed) == ("", 1, 7, 0)
    age(8)
    (result, *_) = upkeep(settings())
    assert (result.problem, result.files_after, result.removed) == ("", 1, 6)
    assert audits.read().num_rows == 6


def test_every_table_is_maintained_after_years_and_its_log_is_whole(lake):
    for n in range(4):
        for table in TABLES:
            stage_files(table, f"{n}", [], [JAN_1], n + 1)
            publish(table, f"{n}")
        audits.record([LINE])
        for _, path in delta_tables():
            grow_old(path)
        age(365)
    results = upkeep(settings())
    assert [result.what for result in results] == [*TABLES, "audits", "data docs", "alerts"]
    assert [result.problem for result in results] == [""] * len(results)
    # Each was created and then written four times; of the audits, the four files were merged.
    last = {name: 5 if name == "audits" else 4 for name in (*TABLES, "audits")}
    assert {name: commits_of(path) for name, path in delta_tables()} == {n: [*range(v + 1)] for n, v in last.items()}


def test_a_pin_of_a_version_that_is_no_longer_in_the_log_holds_up_nothing(lake):
    published("1", rejected(JAN_1, "a"), [JAN_1], 1)
    delta = DeltaTable(table_path("quarantine"))
    delta.alter.set_table_properties({"delta.logRetentionDuration": "interval 30 days"})
    grow_old(table_path("quarantine"))
    age(365)
    published("2", rejected(JAN_1, "b"), [JAN_1], 2)
    grow_old(table_path("quarantine"))
    assert commits_of(table_path("quarantine"))[0] > 1
    storage.write_json(f"{model_folder('weekly')}/plan.json", {"tables": {"quarantine": 1}})
    assert maintained().pinned == 0
    assert raws() == [(JAN_1, "b")]


# ---- the command ----


def test_a_table_that_fails_does_not_keep_the_others_from_being_maintained(lake, capsys):
    published("1", rejected(JAN_1, "a"), [JAN_1], 1)
    audits.record([LINE])
    audits.record([LINE])
    (Path(table_path("quarantine")) / "_delta_log" / f"{2:020}.json").write_text("no json")
    with pytest.raises(UpkeepFailed, match="1 of 4 parts of the lake have a problem: quarantine: ") as failed:
        main(["--run-id", "r"])
    assert "upkeep-failed" in str(failed.value)
    parts = json.loads(capsys.readouterr().out)["parts"]
    assert [(part["what"], bool(part["problem"]), part["compacted"]) for part in parts] == [
        ("quarantine", True, 0), ("audits", False, 1), ("data docs", False, 0), ("alerts", False, 0),
    ]  # fmt: skip


def test_a_dry_run_says_what_it_would_do_and_does_nothing(lake, capsys, monkeypatch):
    monkeypatch.setenv("MEANDER_KEEP_RAW_DAYS", "0")
    published("1", rejected(JAN_1, "a"), [JAN_1], 1)
    published("2", rejected(JAN_1, "b"), [JAN_1], 2, copies=1)
    stage_files("quarantine", "given up", rejected(JAN_2, "c"), [JAN_2], 2)
    page = Path(settings().docs_folder) / "1" / "quarantine.html"
    page.parent.mkdir(parents=True)
    page.write_text("page")
    age(100)
    before = storage.list_files(settings().lake)
    main(["--run-id", "r", "--dry-run"])
    planned = json.loads(capsys.readouterr().out)
    assert (planned["run_id"], planned["dry_run"], planned["compacted"], planned["removed"]) == ("r", True, 1, 3)
    assert planned["files_before"] == planned["files_after"] == 5
    assert storage.list_files(settings().lake) == before
    main(["--run-id", "r"])
    done = json.loads(capsys.readouterr().out)
    # What no upkeep removes is told: manifests and verdicts of three runs, what was committed, the numbers of stagings.
    assert sorted(planned["kept"]) == ["_order/_delta_log", "_runs", "quarantine/_delta_log"]
    assert (planned["kept"]["_runs"]["files"], planned["kept"]["quarantine/_delta_log"]["files"]) == (6, 3)
    # Two runs, the basis and the staging of the one day, the key of pseudonyms; and the last number.
    assert planned["kept"]["quarantine/_delta_log"]["transactions"] == 5
    assert planned["kept"]["_order/_delta_log"]["transactions"] == 1
    assert all(size["bytes"] > 0 for size in planned["kept"].values())
    # The two merged files stay for those who read them now.
    assert (done["compacted"], done["removed"], done["files_after"]) == (1, 3, 3)
    assert [part["what"] for part in done["parts"]] == ["quarantine", "data docs", "alerts"]


def test_an_empty_lake_needs_no_upkeep(lake):
    docs, alerts = upkeep(settings())
    assert (docs.what, docs.files_before, docs.removed) == ("data docs", 0, 0)
    assert (alerts.what, alerts.files_before, alerts.removed) == ("alerts", 0, 0)


def test_however_many_versions_there_are_a_table_is_opened_a_few_times(lake, monkeypatch):
    opened = []

    def counted(path: str) -> DeltaTable:
        opened.append(path)
        return DeltaTable(path)

    monkeypatch.setattr(upkeeping, "DeltaTable", counted)
    counts = []
    for first, last in ((1, 5), (6, 20)):
        for n in range(first, last + 1):
            published(f"{n}", rejected(JAN_1 + n % 5 * ONE_DAY, f"{n}"), [JAN_1 + n % 5 * ONE_DAY], n)
        opened.clear()
        maintained()
        counts.append(len(opened))
    assert counts[0] == counts[1] < 5
    assert len(storage.list_files(table_path("quarantine"))) > 20, "all were replaced within the retention"
