"""Days of a run that failed their audit are withheld: the others are published, and readers keep what they had.

Verdicts are written by hand; which days an audit withholds is tested in tests/expectations/test_audit.py.
"""

import json
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta

import pytest

from lake.backfill.history import History
from lake.backfill.planner import plan_backfill
from lake.deliveries import published
from lake.errors import AuditFailed, PublishRefused
from lake.publish import main as publish_main
from lake.publish import publish, require_whole
from lake.runs import summarize
from lake.settings import settings
from lake.staging import Run, Verdict, write_verdict
from lake.table import Table
from tests.lake.stagings import JAN_1, JAN_2, JAN_3, read_files, rejected, stage_files

DAYS = [JAN_1, JAN_2, JAN_3]
WHY = "at most 5.00% of the input is rejected [rejected_share: 0.5]"
LOW = "rejections stay well below the limit [rejected_share: 0.02]"


def seen(table: str = "quarantine") -> list[tuple[date, str]]:
    """Return the rows that readers see."""
    return read_files(Table(table), {"quarantine": "raw", "events": "event_id"}[table])


def rows_of(name: str, days: list[date] = DAYS) -> list[dict]:
    """Return one rejected row for each day, with the same text."""
    return [row for day in days for row in rejected(day, name)]


def judge(staged, *bad: date, warned: tuple[date, ...] = ()) -> Verdict:
    """Write a verdict by which these days failed and the others did not."""
    unmet = {str(day): [LOW] for day in warned} | {str(day): [WHY] for day in bad}
    said = "failed" if bad else "warned" if warned else "passed"
    verdict = Verdict(staged.table, staged.run_id, staged.stage_id, said, [WHY], "/docs/page.html", 0.0, unmet=unmet)
    verdict.withheld.extend(map(str, bad))
    write_verdict(verdict)
    return verdict


def stage_new(*bad: date, warned: tuple[date, ...] = (), run: str = "r"):
    staged = stage_files("quarantine", run, rows_of("new"), DAYS, None, audited="", counts=read_of(DAYS))
    judge(staged, *bad, warned=warned)
    return staged


def read_of(days: list[date]) -> dict:
    return {"by_day": {str(day): {"input": 10} for day in days}}


@pytest.mark.parametrize("bad", DAYS)
def test_readers_get_the_good_days_and_keep_what_they_had_of_the_bad_one(lake, bad):
    stage_files("quarantine", "before", rows_of("old"), DAYS, None)
    publish("quarantine", "before")
    before = Table("quarantine").basis(bad)
    staged = stage_new(bad)
    done = publish("quarantine", "r")
    assert seen() == [(day, "old" if day == bad else "new") for day in DAYS]
    assert {name: done[name] for name in ("rows", "partitions", "refused", "withheld", "verdict", "already")} == {
        "rows": 2, "partitions": 2, "refused": [], "withheld": [str(bad)], "verdict": "passed", "already": False,
    }  # fmt: skip
    table = Table("quarantine")
    # Nothing of the log calls the bad day newer than it is: any run of it may replace it.
    assert [table.basis(day) for day in DAYS] == [before if day == bad else staged.order for day in DAYS]
    commit = table.commits()[0]
    assert [json.loads(commit[name]) for name in ("refused", "withheld", "unmet")] == [[str(bad)], [str(bad)], []]
    assert (commit["verdict"], commit["published_rows"]) == ("passed", "2")
    # Whoever looks back takes the bad day from the run before.
    assert {day: read.run_id for day, read in published(table.commits()).items()} == {
        day: "r" for day in DAYS if day != bad
    }, "the run before has not told what it read"
    assert publish("quarantine", "r") == {**done, "already": True}
    assert Table("quarantine").version == table.version


def test_a_bad_day_of_a_first_load_is_not_published_at_all_not_even_as_empty(lake):
    stage_new(JAN_2)
    publish("quarantine", "r")
    assert seen() == [(JAN_1, "new"), (JAN_3, "new")]
    assert Table("quarantine").basis(JAN_2) is None


def test_a_bad_day_that_was_repaired_is_withheld_no_longer(lake):
    stage_new(JAN_2)
    publish("quarantine", "r")
    stage_files("quarantine", "repair", rejected(JAN_2, "repaired"), [JAN_2], None)
    publish("quarantine", "repair")
    assert seen() == [(JAN_1, "new"), (JAN_2, "repaired"), (JAN_3, "new")]
    again = publish("quarantine", "r")
    assert (again["withheld"], again["refused"]) == ([], ["2025-01-02"]), "what readers see is newer"


def test_a_newer_day_and_a_bad_one_are_both_kept_each_for_its_own_reason(lake):
    staged = stage_new(JAN_2, warned=(JAN_1, JAN_3))
    stage_files("quarantine", "newer", rejected(JAN_3, "newer"), [JAN_3], None)
    publish("quarantine", "newer")
    done = publish("quarantine", "r")
    assert seen() == [(JAN_1, "new"), (JAN_3, "newer")]
    assert (done["withheld"], done["refused"], done["rows"]) == (["2025-01-02"], ["2025-01-03"], 1)
    assert done["verdict"] == "warned"
    told = Table("quarantine").commits()[0]
    assert json.loads(told["refused"]) == ["2025-01-02", "2025-01-03"]
    assert staged.rows == 3


def test_a_bad_day_of_which_readers_see_newer_rows_before_the_publish_is_refused_and_not_withheld(lake):
    stage_new(JAN_2)
    stage_files("quarantine", "newer", rejected(JAN_2, "newer"), [JAN_2], None)
    publish("quarantine", "newer")
    done = publish("quarantine", "r")
    assert (done["withheld"], done["refused"]) == ([], ["2025-01-02"])
    assert seen() == [(JAN_1, "new"), (JAN_2, "newer"), (JAN_3, "new")]


def test_where_all_days_may_fail_alone_but_none_is_withheld_nothing_is_published(lake):
    staged = stage_files("quarantine", "r", rows_of("new"), DAYS, None, audited="")
    write_verdict(Verdict("quarantine", "r", staged.stage_id, "failed", [WHY], "", 0.0, unmet={str(JAN_2): [WHY]}))
    with pytest.raises(Exception, match="failed its audit"):
        publish("quarantine", "r")
    assert Table.find("quarantine") is None


def test_the_command_publishes_prints_and_ends_with_an_error_that_names_day_and_reason(lake, capsys):
    stage_new(JAN_2)
    with pytest.raises(AuditFailed) as caught:
        publish_main(["--table", "quarantine", "--run-id", "r"])
    assert caught.value.message == (
        f"quarantine of 2025-01-02 failed the audit and is not published: {WHY}. All other days are published"
    )
    assert json.loads(capsys.readouterr().out)["withheld"] == ["2025-01-02"]
    assert seen() == [(JAN_1, "new"), (JAN_3, "new")]


def test_a_run_that_withheld_a_day_has_failed_and_names_it_with_the_reason(lake):
    stage_new(JAN_2, warned=(JAN_1,))
    publish("quarantine", "r")
    (run,) = summarize()
    assert (run.verdict, run.refused, run.withheld) == ("failed", {}, {"quarantine": ["2025-01-02"]})
    assert run.counts["quarantined"] == 2
    assert run.unmet == {"2025-01-01": [f"quarantine warned: {LOW}"], "2025-01-02": [f"quarantine failed: {WHY}"]}


def test_a_plan_takes_a_withheld_day_for_not_loaded_and_lists_what_was_made_without_it_once_it_is_repaired(lake):
    def load(run_id: str, days: list[date], *bad: date) -> None:
        rows = [{"event_id": f"e{day}", "event_time": at_noon(day), "dt": day, "landed": day} for day in days]
        judge(stage_files("events", run_id, rows, days, None, audited="", counts=read_of(days)), *bad)
        publish("events", run_id)

    load("r", DAYS, JAN_2)
    version = Table("events").version
    counts = {"as_of": [str(JAN_1), str(JAN_3)], "include_late": False}
    stage_files("interests", "r", [], [JAN_1, JAN_3], version, counts=counts, inputs={"events": version})
    publish("interests", "r")
    assert sorted(History.read().latest["events"]) == [JAN_1, JAN_3]
    assert not [redo for redo in plan_backfill(settings(), "late-data").redo if redo.table == "interests"]
    load("repair", [JAN_2])
    planned = plan_backfill(settings(), "late-data").redo
    assert [redo.day for redo in planned if redo.table == "interests"] == [JAN_3], "it was made without the second day"


def lacking_with_another_audit(*bad: date, first: tuple[date, ...] = ()) -> list[str]:
    """Publish a run of three days, audit it again, and return what a publish says that readers lack."""
    staged = stage_new(*first)
    publish("quarantine", "r")
    judge(staged, *bad)
    done = publish("quarantine", "r")
    assert done["already"]
    assert done["partitions"] == len(DAYS) - len(done["withheld"])
    return done["withheld"]


@pytest.mark.parametrize(
    ("first", "then", "lacking"),
    [
        pytest.param((JAN_2,), (JAN_2,), ["2025-01-02"], id="the same"),
        # A limit was lowered. Readers see these days nevertheless.
        pytest.param((), (JAN_2,), [], id="all were published"),
        pytest.param((JAN_2,), (JAN_1, JAN_2), ["2025-01-02"], id="one more"),
    ],
)
def test_what_readers_lack_is_told_from_the_table_and_not_from_an_audit_that_ran_since(lake, first, then, lacking):
    assert lacking_with_another_audit(*then, first=first) == lacking


def test_a_day_that_an_audit_lets_through_after_the_publish_is_no_success_without_it(lake):
    with pytest.raises(PublishRefused, match=r"published without 2025-01-02, .* run the stage step again"):
        lacking_with_another_audit(first=(JAN_2,))
    assert seen() == [(JAN_1, "new"), (JAN_3, "new")]
    stage_new()
    assert publish("quarantine", "r")["withheld"] == []
    assert seen() == [(day, "new") for day in DAYS]


def test_a_day_whose_older_rows_are_of_the_same_basis_is_lacking(lake):
    """What is made from events has the version of these as its basis, which two stagings may share."""
    stage_files("sessions", "before", [], [JAN_1, JAN_3], 5)
    publish("sessions", "before")
    judge(stage_files("sessions", "r", [], [JAN_1, JAN_3], 5, audited=""), JAN_3)
    assert publish("sessions", "r")["withheld"] == ["2025-01-03"]
    assert publish("sessions", "r")["withheld"] == ["2025-01-03"]


def test_the_days_of_several_runs_are_named_together_and_all_of_them(lake):
    reports = []
    for n in range(0, 8, 2):
        days = [JAN_1 + timedelta(days=n), JAN_1 + timedelta(days=n + 1)]
        judge(stage_files("quarantine", f"r{n}", [], days, None, audited=""), days[0])
        reports.append(publish("quarantine", f"r{n}"))
    with pytest.raises(AuditFailed) as caught:
        require_whole(reports)
    assert caught.value.message == (
        "quarantine of 2025-01-01, 2025-01-03, 2025-01-05 and 2025-01-07 failed the audit and is not published: "
        f"{WHY}. All other days are published"
    )


def at_noon(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, 12, tzinfo=UTC)


def steps(run_id: str) -> list[Callable[[], object]]:
    """Return what a run does after its job: it stages both tables in one try, judges and publishes them."""
    run = Run(run_id, JAN_1, JAN_3)
    events = [{"event_id": f"new {day}", "dt": day, "landed": day} for day in DAYS]
    kept: dict[str, object] = {}

    def staged(table: str, rows: list[dict]) -> None:
        kept[table] = stage_files(table, run_id, rows, DAYS, None, run=run, audited="", counts=read_of(DAYS))

    return [
        lambda: staged("events", events),
        lambda: staged("quarantine", rows_of("new")),
        lambda: judge(kept["quarantine"], JAN_2),
        lambda: judge(kept["events"], JAN_2),
        lambda: publish("quarantine", run_id),
        lambda: publish("events", run_id),
    ]


@pytest.mark.parametrize("killed_after", range(6))
def test_a_run_that_is_killed_anywhere_and_run_again_ends_in_the_same_days(lake, killed_after):
    whole = steps("r")
    for step in whole[:killed_after]:
        step()
    for table in ("events", "quarantine"):
        if Table.find(table):
            assert JAN_2 not in [day for day, _ in seen(table)], "nobody ever sees the bad day"
    for step in steps("r"):
        step()
    assert seen("events") == [(day, f"new {day}") for day in (JAN_1, JAN_3)]
    assert seen() == [(JAN_1, "new"), (JAN_3, "new")]
