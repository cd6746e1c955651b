"""Which summaries upkeep removes: those whose events are gone, and rows that no summary names."""

import os
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from lake import storage
from lake.kinds import LATE, ON_TIME
from lake.places import summaries_folder
from lake.publish import publish
from lake.settings import settings
from lake.summaries import KEPT_BLOCKS, TOTALS, unneeded
from lake.table import Table
from lake.upkeep import upkeep
from tests.jobs.naive import event
from tests.lake.stagings import stage_files

NOW = datetime.now(UTC)


@pytest.fixture
def kept(lake):
    """Return a function that makes a summary of a kind, so many days ago, with one file of rows."""

    def keep(kind, block, key, ago, *inputs):
        folder, file, made = (
            summaries_folder(kind),
            f"stage={key}/first={block[:10]}/a.parquet",
            NOW - timedelta(days=ago),
        )
        storage.write_json(storage.join(folder, f"{block}_{key}.json"), {"inputs": inputs, "files": [file]})
        path = Path(folder, file)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"rows")
        for name in (path, Path(folder, f"{block}_{key}.json")):
            os.utime(name, (made.timestamp(), made.timestamp()))

    return keep


def keys(names):
    """Return the keys of the summaries, and those of the files of rows, among some names."""
    jsons = [name.removesuffix(".json").rpartition("_")[2] for name in names if name.endswith(".json")]
    return jsons, [name.partition("/")[0].removeprefix("stage=") for name in names if not name.endswith(".json")]


def test_a_summary_goes_with_the_events_that_it_was_made_from(kept):
    block = "2025-01-01_2025-01-08"
    kept("on_time", block, "current", 400, "a", "b")
    kept("on_time", block, "of replaced files that readers may have", 400, "a", "old")
    kept("on_time", block, "of files that are gone", 400, "a", "gone")
    kept("on_time", block, "just made", 1, "gone")
    gone = unneeded("on_time", {"a", "b", "old"}, NOW - timedelta(days=7))
    assert keys(gone) == (["of files that are gone"], ["of files that are gone"])
    assert gone[0].endswith(".json"), "the summary before its files"


def test_of_the_last_events_a_few_blocks_stay_and_whatever_was_made_within_the_retention(kept):
    for number, ago in ((1, 40), (2, 30), (3, 20), (4, 10)):
        kept("last", f"2025-01-0{number}_2025-01-0{number}", f"k{number}", ago)
    kept("last", "2024-12-31_2024-12-31", "of a repair", 2)
    gone = unneeded("last", (), NOW - timedelta(days=7), 2)
    assert keys(gone) == (["k1", "k2"], ["k1", "k2"])


def test_rows_that_no_summary_names_go_when_they_are_old(kept):
    kept("late", "2025-01-01_2025-01-01", "killed long ago", 20)
    kept("late", "2025-01-02_2025-01-02", "being written", 0)
    for day, key in ((1, "killed long ago"), (2, "being written")):
        storage.remove(storage.join(summaries_folder("late"), f"2025-01-0{day}_2025-01-0{day}_{key}.json"))
    assert keys(unneeded("late", (), NOW - timedelta(days=7))) == ([], ["killed long ago"])
    # Who removes at once what is outdated may not take what a run has just written and not yet named.
    kept("late", "2025-01-03_2025-01-03", "outdated", 1, "gone")
    assert keys(unneeded("late", (), NOW, unnamed=False)) == (["outdated"], ["outdated"])


def test_a_summary_whose_rows_are_gone_goes_though_its_events_are_there(kept):
    kept("late", "2025-01-01_2025-01-01", "whole", 20, "a")
    kept("late", "2025-01-02_2025-01-02", "without rows", 20, "a")
    storage.remove(storage.join(summaries_folder("late"), "stage=without rows/first=2025-01-02/a.parquet"))
    assert keys(unneeded("late", {"a"}, NOW - timedelta(days=7)))[0] == ["without rows"]


def test_upkeep_removes_them_and_says_so(kept):
    stage_files("events", "r", [event("e1", "u1", datetime(2025, 1, 1))], [date(2025, 1, 1)], 1)
    publish("events", "r")
    [file] = Table("events").files
    kept("on_time", "2025-01-01_2025-01-01", "newest", 20, file.path)
    kept("on_time", "2025-01-01_2025-01-01", "replaced", 40, "gone")
    planned = {result.what: result for result in upkeep(settings(), dry_run=True)}
    assert planned["summaries: on_time"].removed == 2
    assert planned["summaries: on_time"].files_after == 4, "nothing was done"
    done = {result.what: result for result in upkeep(settings())}
    assert (done["summaries: on_time"].removed, done["summaries: on_time"].files_after) == (2, 2)
    assert keys(storage.list_files(summaries_folder("on_time"))) == (["newest"], ["newest"])
    assert "summaries: late" not in done, "there are none"


def test_upkeep_knows_every_kind():
    assert set(KEPT_BLOCKS) == {ON_TIME.name, LATE.name, "last", TOTALS}
