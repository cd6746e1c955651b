"""What is told of each run, from what it left: its rows, how far it came, how long it took."""

from dataclasses import replace
from datetime import datetime, timedelta

from lake import storage
from lake.places import run_folder
from lake.publish import publish
from lake.runs import RunSummary, summarize
from lake.staging import Staged, Verdict, write_staged, write_verdict
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


def test_a_run_is_told_in_numbers(lake):
    # Of ten input rows six were events, of which four are left when repeats count once; three were for nobody.
    counts = {"input": 10, "accepted": 6, "ignored": 3}
    events = [{"event_id": f"e{n}", "dt": JAN_1, "landed": JAN_1} for n in range(4)]
    first = stage_files("events", "r", events, [JAN_1], 1, counts=counts, seconds=10.0)
    stage_files("quarantine", "r", rejected(JAN_1, "a"), [JAN_1], 1, seconds=30.0)
    stage_files("sessions", "r", sessions(JAN_1, 2), [JAN_1], 1, counts={"postponed": ["2024-12-30"]}, seconds=1.0)
    # From the start of the first stage to the end of the last audit, not the sum of what each took.
    ended = datetime.fromisoformat(first.started) + timedelta(seconds=90)
    write_verdict(Verdict("events", "r", first.stage_id, "passed", [], "", 5.0, ended.isoformat()))
    for table in ("events", "quarantine", "sessions"):
        publish(table, "r")
    outcomes = {"input": 10, "events": 4, "duplicates": 2, "ignored": 3, "quarantined": 1}
    made = dict.fromkeys(name for name, table in KNOWN.items() if table.reads) | {"sessions": 2}
    (run,) = summarize()
    assert run == RunSummary(JAN_1, JAN_1, "r", outcomes | made, "passed", 90.0, ["2024-12-30"], {})
    assert list(run.counts) == [*outcomes, *made], "in this order they are shown"
    assert run.as_json() == {
        "first": "2025-01-01", "last": "2025-01-01", "run_id": "r", **outcomes, **made,
        "verdict": "passed", "seconds": 90.0, "postponed": ["2024-12-30"], "refused": {},
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
