"""Staged rows that an audit has refused are found by day and shown, as far as a manifest names them."""

from dataclasses import replace
from datetime import date

import pytest

from lake import storage
from lake.errors import NotStaged
from lake.places import manifest_file, run_folder, staged_folder, table_path
from lake.privacy.forgotten import list_users
from lake.publish import publish
from lake.staging import NO_VALUE, Verdict, read_staged, write_verdict
from lake.unpublished import head, refused_by_audit, rows_by_date, standing
from tests.lake.stagings import JAN_1, JAN_2, JAN_3, audit, published, rejected, stage_files

DAYS = [JAN_1, JAN_2, JAN_3]


def stage(run, *rows, days=(JAN_1,), audited="failed", **more):
    """Stage rows of `quarantine`, or one for each day."""
    given = list(rows) or [row for day in days for row in rejected(day, run)]
    return stage_files("quarantine", run, given, list(days), None, audited=audited, **more)


def withhold(staged, *days):
    write_verdict(
        Verdict("quarantine", staged.run_id, staged.stage_id, "failed", ["x"], "", 0.0, withheld=[*map(str, days)])
    )


def refused(first=None, last=None):
    """Return {day: run} of what was refused."""
    return {day: staged.run_id for day, staged in refused_by_audit("quarantine", first, last).items()}


def raws(staged, day=JAN_1, limit=10):
    rows, left_out = head(staged, day, limit)
    return [row["raw"] for row in rows], left_out


def test_a_staging_that_failed_is_found_whether_or_not_anything_is_published(lake):
    assert refused() == {}
    stage("first")
    assert refused() == {JAN_1: "first"}
    published("second", rejected(JAN_2, "x"), [JAN_2], 5)
    assert refused() == {JAN_1: "first"}
    assert (refused(JAN_1, JAN_1), refused(JAN_2), refused(None, JAN_1)) == ({JAN_1: "first"}, {}, {JAN_1: "first"})


def test_of_a_day_its_newest_staging_counts(lake):
    stage("failed")
    stage("waits", audited="")
    assert refused() == {}, "it is being repaired"
    stage("failed again")
    assert refused() == {JAN_1: "failed again"}
    stage("good", audited="passed")
    publish("quarantine", "good")
    assert refused() == {}


def test_what_readers_see_is_not_refused(lake):
    """An audit that ran again, with another limit, changes nothing of what was published."""
    staged = stage("r", audited="passed")
    publish("quarantine", "r")
    audit(staged, "failed")
    assert refused() == {}


def test_a_day_that_was_withheld_is_found_and_the_published_days_of_its_run_are_not(lake):
    staged = stage("r", days=DAYS, audited="")
    withhold(staged, JAN_2)
    assert refused() == {JAN_2: "r"}, "the others have passed, and wait to be published"
    publish("quarantine", "r")
    assert refused() == {JAN_2: "r"}
    assert standing(staged) == "2025-01-02 failed the audit, so readers do not see that of it"


def test_what_cannot_be_read_hides_no_other(lake):
    stage("good to read")
    damaged = stage("damaged", days=[JAN_2])
    storage.write_bytes(manifest_file(run_folder("damaged"), "quarantine", damaged.stage_id), b"{")
    assert refused() == {JAN_1: "good to read"}


def test_what_has_no_manifest_is_not_looked_at(lake):
    """It was given up half written, or a run is writing it now."""
    staged = stage("r")
    storage.remove(manifest_file(run_folder("r"), "quarantine", staged.stage_id))
    assert refused() == {}
    with pytest.raises(NotStaged, match="has no manifest of it"):
        read_staged("quarantine", "r")
    assert list(storage.list_files(staged_folder("quarantine", staged.stage_id))), "its files are there"


def test_staged_rows_are_shown_by_date_with_all_columns_up_to_a_limit(lake):
    staged = stage("r", *rejected(JAN_1, "a", "b", "c"), *rejected(JAN_2, "d"), days=[JAN_1, JAN_2])
    assert rows_by_date(staged) == {JAN_1: 3, JAN_2: 1}
    assert raws(staged, limit=2) == (["a", "b"], 0)
    assert raws(staged, JAN_3) == ([], 0)
    assert head(staged, JAN_2, 10) == (
        [{"reason": "missing_user", "raw": "d", "file": "f", "line": None, "source": "test", "dt": JAN_2}],
        0,
    )


def test_rows_without_a_date_are_counted_and_shown_too(lake):
    """An audit fails for them, so somebody has to see them."""
    staged = stage("r", *rejected(JAN_1, "a"), {**rejected(JAN_1, "b")[0], "dt": NO_VALUE})
    assert rows_by_date(staged) == {JAN_1: 1, None: 1}
    assert [row["raw"] for row in head(staged, None, 10)[0]] == ["b"]


def test_rows_of_users_who_were_forgotten_since_are_left_out_and_counted(lake):
    raw = ['{"user": "ann"}', '{"user": "bob"}', "u,ann,5", '{"user": "joanna"}']
    staged = stage("r", *rejected(JAN_1, *raw))
    assert raws(staged) == (raw, 0)
    list_users(["ann"])
    assert raws(staged) == ([raw[1], raw[3]], 2)
    assert raws(staged, limit=1) == ([raw[1]], 1), "what is left out makes room for what is not"


def test_of_a_table_of_users_their_rows_are_chosen_or_left_out_by_the_user(lake):
    events = [{"event_id": f"{n}", "user_id": user, "dt": JAN_1, "landed": JAN_2} for n, user in enumerate("abab")]
    staged = stage_files("events", "r", events, [JAN_2], None, audited="failed")
    of_a, none = head(staged, JAN_1, 10, "a")
    assert ([row["event_id"] for row in of_a], none) == (["0", "2"], 0)
    assert (of_a[0]["dt"], of_a[0]["landed"]) == (JAN_1, JAN_2)
    list_users(["a"])
    assert head(staged, JAN_1, 10, "a") == ([], 2)
    assert [row["event_id"] for row in head(staged, JAN_1, 10)[0]] == ["1", "3"]


def test_files_that_are_gone_are_an_error_that_says_so(lake):
    staged = stage("r")
    storage.remove_files(table_path("quarantine"), [file.path for file in staged.files])
    with pytest.raises(
        NotStaged, match=r"part-0.parquet, which run 'r' staged for quarantine, is gone: upkeep removes"
    ):
        head(staged, JAN_1, 10)


def test_what_an_audit_has_said_is_told(lake):
    def told(audited):
        return standing(stage("r", audited=audited))

    assert told("") == "it was not audited, so readers do not see it"
    assert told("failed") == "it failed its audit, so readers do not see it"
    assert told("warned") == "its audit warned, so readers see it once it is published"
    staged = stage("r", audited="")
    # Of an older staging of the run, a verdict says nothing about this one.
    audit(replace(staged, stage_id="7-ab"), "failed")
    assert standing(staged) == "it was not audited, so readers do not see it"


def test_old_runs_are_not_read_for_a_new_day(lake, monkeypatch):
    """A lake of years has thousands."""
    asked = []
    listed = storage.list_entries
    monkeypatch.setattr(storage, "list_entries", lambda root, since: asked.append(since) or listed(root, since))
    refused(date(2025, 3, 1))
    assert [str(since.date()) for since in asked] == ["2025-01-25"]
