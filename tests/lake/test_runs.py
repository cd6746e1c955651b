"""What is told of each run, from what it left: its rows, how far it came, how long it took."""

import json
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from lake import storage
from lake.errors import NotStaged
from lake.landing import Landing
from lake.places import manifest_file, run_folder
from lake.publish import publish
from lake.runs import RunSummary, summarize
from lake.settings import settings
from lake.staging import Staged, Verdict, write_staged, write_verdict
from lake.table import Table
from tests.lake.landed import load
from tests.lake.stagings import JAN_1, JAN_2, JAN_3, rejected, stage_files
from tests.tables import KNOWN


def sessions(day, count: int) -> list[dict]:
    return [{"session_id": f"s{n}", "dt": day} for n in range(count)]


def verdicts(*run_ids: str) -> dict[str, str]:
    """Return how far each run came; without names, all of them."""
    return {run.run_id: run.verdict for run in summarize() if not run_ids or run.run_id in run_ids}


def test_before_the_first_run_there_is_nothing_to_tell(lake):
    assert summarize() == []
    assert verdicts() == {}


def test_a_run_tells_what_the_supplier_has_changed(lake):
    """Kept with the day: it is said of each run that has seen it, published or not."""
    changes = {"since": "2024-12-31", "changes": ["new: 'shop'", "gone: 'brand'"]}
    stage_files("events", "r", [], [JAN_1], 1, counts={"input": 0, "accepted": 0, "supplied": changes})
    known = {"input": 0, "accepted": 0, "unknown_behaviors": {"swipe": 1203, "": 1}}
    stage_files("events", "r2", [], [JAN_2], 1, counts=known)
    publish("events", "r2")
    first, second = summarize()
    assert (first.period, first.supplied) == (
        "2025-01-01",
        ["columns since 2024-12-31: new: 'shop'", "columns since 2024-12-31: gone: 'brand'"],
    )
    assert second.as_json()["supplied"] == [
        "values of the behavior without a meaning: 'swipe' (1,203 rows), '' (1 rows)"
    ]


def test_a_run_is_told_in_numbers(lake):
    # Of twelve input rows six were events, of which four are left when repeats count once; three were for nobody, and
    # two of users who were forgotten.
    counts = {"input": 12, "accepted": 6, "ignored": 3, "forgotten": 2}
    events = [{"event_id": f"e{n}", "dt": JAN_1, "landed": JAN_1} for n in range(4)]
    first = stage_files("events", "r", events, [JAN_1], 1, counts=counts, seconds=10.0)
    stage_files("quarantine", "r", rejected(JAN_1, "a"), [JAN_1], 1, seconds=30.0)
    stage_files("sessions", "r", sessions(JAN_1, 2), [JAN_1], 1, counts={"postponed": ["2024-12-30"]}, seconds=1.0)
    # From the start of the first stage to the end of the last audit, not the sum of what each took.
    ended = datetime.fromisoformat(first.started) + timedelta(seconds=90)
    write_verdict(Verdict("events", "r", first.stage_id, "passed", [], "", 5.0, ended.isoformat()))
    for table in ("events", "quarantine", "sessions"):
        publish(table, "r")
    outcomes = {"input": 12, "events": 4, "duplicates": 2, "ignored": 3, "quarantined": 1, "forgotten": 2}
    made = dict.fromkeys(name for name, table in KNOWN.items() if table.reads) | {"sessions": 2}
    (run,) = summarize()
    assert run == RunSummary(JAN_1, JAN_1, "r", outcomes | made, "passed", 90.0, ["2024-12-30"], {})
    assert list(run.counts) == [*outcomes, *made], "in this order they are shown"
    assert run.as_json() == {
        "first": "2025-01-01", "last": "2025-01-01", "run_id": "r", **outcomes, **made,
        "verdict": "passed", "seconds": 90.0, "postponed": ["2024-12-30"], "refused": {}, "withheld": {},
        "unmet": {}, "landing": {}, "supplied": [],
    }  # fmt: skip


def test_rows_of_days_that_were_refused_are_not_counted_and_are_no_duplicates(lake):
    # Six accepted rows are four events: three of the first day, one of the second, which a newer run publishes first.
    rows = [{"event_id": f"e{n}", "dt": day, "landed": day} for n, day in enumerate((JAN_1, JAN_1, JAN_1, JAN_2))]
    counts = {"input": 7, "accepted": 6, "ignored": 1}
    stage_files("events", "r", rows, [JAN_1, JAN_2], None, counts=counts)
    stage_files("events", "newer", rows[3:], [JAN_2], None, counts={"input": 1, "accepted": 1, "ignored": 0})
    for run_id in ("newer", "r"):
        publish("events", run_id)
    (run, newer) = summarize()
    assert [run.counts[name] for name in ("input", "events", "duplicates", "ignored")] == [7, 3, 2, 1]
    assert (run.verdict, run.refused) == ("refused", {"events": ["2025-01-02"]})
    assert (newer.counts["events"], newer.verdict, newer.refused) == (1, "passed", {})


def test_a_run_without_one_of_its_days_adds_up(lake):
    # Of the 5 rows of the first day 3 are of events, one of which came twice, 1 is for nobody, and 1 is rejected.
    # The second day has failed: 6 of 9 rows are rejected.
    by_day = {
        "2025-01-01": {"input": 5, "accepted": 3, "ignored": 1, "rejected": {"missing_user": 1}},
        "2025-01-02": {"input": 9, "accepted": 2, "ignored": 1, "rejected": {"missing_user": 6}, "forgotten": 1},
    }
    counts = {"input": 14, "accepted": 5, "ignored": 2, "forgotten": 1, "by_day": by_day}
    events = [{"event_id": f"e{n}", "dt": day, "landed": day} for n, day in enumerate((JAN_1, JAN_1, JAN_2, JAN_2))]
    bad = [*rejected(JAN_1, "a"), *rejected(JAN_2, *"bcdefg")]
    for table, rows in (("events", events), ("quarantine", bad)):
        staged = stage_files(table, "r", rows, [JAN_1, JAN_2], None, audited="", counts=counts)
        told = {"unmet": {str(JAN_2): ["rejected"]}, "withheld": [str(JAN_2)]}
        write_verdict(Verdict(table, "r", staged.stage_id, "failed", [], "", 0.0, **told))
        publish(table, "r")
    (run,) = summarize()
    shown = {
        name: run.counts[name] for name in ("input", "events", "duplicates", "ignored", "quarantined", "forgotten")
    }
    assert shown == {"input": 5, "events": 2, "duplicates": 1, "ignored": 1, "quarantined": 1, "forgotten": 0}
    assert run.counts["input"] == sum(shown.values()) - run.counts["input"]


def test_a_run_is_as_far_as_the_worst_of_its_tables(lake):
    def staged(run_id: str, *audited: str) -> None:
        for table, verdict in zip(("quarantine", "sessions", "interests"), audited, strict=False):
            stage_files(table, run_id, [], [JAN_1], 1, audited=verdict)

    staged("all is well", "passed", "passed")
    staged("one warned", "passed", "warned")
    for run_id in ("all is well", "one warned"):
        for table in ("quarantine", "sessions"):
            publish(table, run_id)
    staged("one not published", "warned", "passed")
    publish("quarantine", "one not published")
    staged("one not audited", "passed", "")
    staged("one failed", "passed", "", "failed")
    assert verdicts() == {
        "all is well": "passed",
        "one warned": "warned",
        "one not published": "not published",
        "one not audited": "not audited",
        "one failed": "failed",
    }


def test_what_an_audit_found_is_told_of_the_day_on_which_it_found_it(lake):
    both = [JAN_1, JAN_2]
    found = {
        "quarantine": {str(JAN_2): ["few rows", "late rows"]},
        "sessions": {str(JAN_1): ["two"], str(JAN_2): ["x"]},
    }
    for table in ("quarantine", "sessions"):
        staged = stage_files(table, "r", [], both, 1, audited="")
        write_verdict(Verdict(table, "r", staged.stage_id, "warned", ["all"], "", 0.0, unmet=found[table]))
        publish(table, "r")
    (run,) = summarize()
    assert run.verdict == "warned"
    assert run.unmet == {
        "2025-01-01": ["sessions warned: two"],
        "2025-01-02": ["quarantine warned: few rows", "quarantine warned: late rows", "sessions warned: x"],
    }
    assert list(run.unmet) == sorted(run.unmet)
    for table in found:
        assert json.loads(Table(table).commits()[0]["unmet"]) == sorted(found[table])


def test_what_is_staged_again_has_yet_to_be_audited_and_published_again(lake):
    stage_files("quarantine", "r", rejected(JAN_1, "a"), [JAN_1], 1)
    publish("quarantine", "r")
    stage_files("quarantine", "r", rejected(JAN_1, "b"), [JAN_1], 2, audited="")
    assert verdicts() == {"r": "not audited"}, "the verdict was on what was staged before"
    stage_files("quarantine", "r", rejected(JAN_1, "b"), [JAN_1], 2)
    assert verdicts() == {"r": "not published"}, "what readers see was staged before"
    publish("quarantine", "r")
    assert verdicts() == {"r": "passed"}


def started(staged: Staged, moment: str) -> None:
    """Let a run have begun at another time."""
    changed = replace(staged, started=f"2025-02-01T{moment}:00.000000+00:00")
    write_staged(changed)


def test_runs_are_told_by_their_days_then_by_their_start_and_those_that_touch_a_range(lake):
    def staged(run_id: str, *days) -> Staged:
        return stage_files("quarantine", run_id, [], list(days), 1)

    started(staged("of the first, again", JAN_1), "09:00")
    started(staged("of the third", JAN_3), "06:00")
    started(staged("of all three", JAN_1, JAN_3), "08:00")
    started(staged("of the first", JAN_1), "07:00")
    started(staged("of the second", JAN_2), "07:00")
    # One that was killed before its first manifest has left a folder and nothing that could be told.
    storage.write_json(f"{run_folder('killed')}/unfinished.json", {})

    def told(*between) -> list[str]:
        return [run.run_id for run in summarize(*between)]

    every = ["of the first", "of the first, again", "of all three", "of the second", "of the third"]
    assert told() == every
    assert told(JAN_2, JAN_2) == ["of all three", "of the second"]
    assert told(JAN_1, JAN_1) == every[:3]
    assert told(JAN_3, None) == ["of all three", "of the third"]
    assert told(None, JAN_1) == every[:3]


def test_a_run_tells_of_its_days_whose_landing_is_another_than_what_it_has_read(land):
    for day in (JAN_1, JAN_2, JAN_3):
        land(day, ["{}"])
    load("first", JAN_1, JAN_2)
    load("second", JAN_2, JAN_3)
    for day in (JAN_1, JAN_2):
        land(day, ["{}"], "late.jsonl")
    what = "files in the landing: 2, read: 1; came later: 1 (late.jsonl)"
    told = {run.run_id: run.landing for run in summarize(landing=Landing.of(settings()))}
    # Of the second day readers see the rows of the second run.
    assert told == {"first": {"2025-01-01": what}, "second": {"2025-01-02": what}}
    (first, second) = summarize(JAN_2, JAN_2, Landing.of(settings()))
    assert (first.landing, second.landing) == ({}, {"2025-01-02": what})
    assert second.as_json()["landing"] == {"2025-01-02": what}
    assert [run.landing for run in summarize()] == [{}, {}], "without a landing there is nothing to compare"


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"a_field_of": "a newer version"}'])
def test_a_manifest_that_cannot_be_read_marks_its_own_run_alone(lake, content):
    staged = {}
    for run_id in ("whole", "half", "published", "lost"):
        staged[run_id] = stage_files("quarantine", run_id, [], [JAN_1], 1)
        if run_id != "lost":
            publish("quarantine", run_id)
    stage_files("sessions", "half", [], [JAN_1], 1)
    for run_id in ("half", "published", "lost"):
        fs, path = storage.filesystem(manifest_file(run_folder(run_id), "quarantine", staged[run_id].stage_id))
        fs.pipe_file(path, content.encode())
    told = [(run.run_id, run.first, run.verdict) for run in summarize()]
    assert told == [
        ("whole", JAN_1, "passed"), ("half", JAN_1, "unreadable"),
        ("published", JAN_1, "unreadable"), ("lost", None, "unreadable"),
    ]  # fmt: skip
    assert [run.as_json()["first"] for run in summarize()][2:] == ["2025-01-01", None]
    assert [run.run_id for run in summarize(JAN_2, JAN_3)] == ["lost"], "of unknown days it is told in any case"
    with pytest.raises(NotStaged, match="cannot be read: it is damaged, or a newer version of Meander wrote it"):
        publish("quarantine", "lost")


def test_an_older_manifest_that_cannot_be_read_is_in_nobodys_way(lake):
    stage_files("quarantine", "r", [], [JAN_1], 1)
    folder = lake / "lake" / "_runs" / "r"
    (old,) = (file for file in folder.iterdir() if not file.name.endswith(".audit.json"))
    old.write_text("")
    with pytest.raises(NotStaged):
        publish("quarantine", "r")
    newer = stage_files("quarantine", "r", rejected(JAN_1, "a"), [JAN_1], 2)
    assert publish("quarantine", "r")["rows"] == newer.rows == 1
    assert verdicts() == {"r": "passed"}
