"""The audit as a whole: good data passes; the command, a page of data docs and the history tell what fails."""

import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from importlib import import_module
from pathlib import Path

import great_expectations as gx
import pandas as pd
import pytest

from expectations import audit
from expectations.suite import between, equal, zero
from lake import audits
from lake.errors import AuditFailed, NotStaged, PublishRefused
from lake.publish import publish
from lake.settings import settings
from lake.staging import Run, Verdict, read_staged, read_verdict
from lake.table import Table
from lake.tables import made_by
from tests.expectations.cases import stage_rows
from tests.lake.stagings import JAN_1, JAN_2, JAN_3, read_files, rejected, stage_files
from tests.tables import groups_of, of_group


@pytest.mark.spark
def test_what_the_jobs_make_of_a_good_log_passes(spark, lake, land, monkeypatch):
    def row(user: str, time: str, behavior: str, **more) -> dict:
        return {
            "user_id": user,
            "event_time": time,
            "behavior": behavior,
            "item_id": "i",
            "category_id": "c",
            **more,
        }

    land(
        JAN_1,
        [
            row("u", "2025-01-01T10:00:00Z", "view"),
            row("u", "2025-01-01T10:00:00Z", "view"),  # a duplicate
            row("u", "2025-01-01T23:50:00Z", "cart"),  # its session goes on after midnight
            {"user_id": "v", "event_time": "2025-01-01T12:00:00Z", "behavior": "search", "query": "shoes"},
        ],
    )
    land(
        JAN_2,
        [
            row("u", "2025-01-02T00:10:00Z", "purchase", price="9.99"),
            row("v", "2025-01-02T08:00:00Z", "view"),
        ],
    )
    monkeypatch.setenv("MEANDER_HORIZON_DAYS", "1")  # of two days, the second is what the first has labels from
    both, first = ["--from", f"{JAN_1}", "--to", f"{JAN_2}"], ["--day", f"{JAN_1}"]
    steps = [(group, both) for group in groups_of("behavior_daily")] + [("examples", first)]
    for group, days in steps:
        import_module(made_by(group)).main([*days, "--run-id", "r"])
        tables = of_group(group)
        verdicts = audit.main([*(word for table in tables for word in ("--table", table)), "--run-id", "r"])
        assert [(v.table, v.verdict, v.failed) for v in verdicts] == [(table, "passed", []) for table in tables]
        for table in tables:
            assert publish(table, "r")["verdict"] == "passed"

    # The history has one row for each expectation of each audit.
    config = settings()
    for group, days in steps:
        for table in of_group(group):
            suite, lines = audit.suite_of(table), audits.read(table).to_pylist()
            assert len(lines) == len(suite.rows(config)) + len(suite.figures(config))
            assert {(line["verdict"], line["success"], line["run_id"]) for line in lines} == {("passed", True, "r")}
            assert {(line["first"], line["last"]) for line in lines} == {(JAN_1, JAN_1 if days is first else JAN_2)}


def test_of_an_ingest_that_was_killed_between_its_two_tables_neither_is_audited(lake):
    """Cleared alone, the audit would let new events through beside the rejected rows of the try before."""
    both = ["--table", "events", "--table", "quarantine"]
    first, second = (Run(RUN, JAN_1, JAN_1) for _ in range(2))
    stage_files("quarantine", RUN, rejected(JAN_1, "old"), [JAN_1], 0, run=first)
    with pytest.raises(NotStaged, match="has staged nothing for events"):
        audit.main([*both, "--run-id", RUN])
    stage_files("events", RUN, [], [JAN_1], 0, run=first)
    again = stage_files("events", RUN, [], [JAN_1], 0, run=second, audited="")
    for tables in (both, [*both[2:], *both[:2]]):
        with pytest.raises(NotStaged, match="has staged events again, and not quarantine: its stage step was ended"):
            audit.main([*tables, "--run-id", RUN])
    assert read_staged("events", RUN) == again
    with pytest.raises(PublishRefused, match="has not been audited since it was staged"):
        publish("events", RUN)


def test_an_audit_imports_the_suite_of_its_table_and_no_other():
    check = (
        "import sys; from expectations.audit import suite_of; from lake.tables import TABLES; suite_of('quarantine');"
        "print(*(table for table in TABLES if f'expectations.{table}' in sys.modules))"
    )
    asked = subprocess.run([sys.executable, "-c", check], check=True, capture_output=True, text=True)
    assert asked.stdout.split() == ["quarantine"]


RUN = "scheduled__2025-01-01T00:00:00+00:00"


@pytest.mark.spark
def test_a_failed_audit_says_what_was_found_where_people_look_and_readers_keep_what_they_had(spark, lake, monkeypatch):
    stage_files("quarantine", "before", rejected(JAN_1, "old"), [JAN_1], 0)
    publish("quarantine", "before")
    monkeypatch.setenv("MEANDER_DOCS_URL", "https://docs.example/meander")
    row = {"raw": "{}", "file": "f", "source": "test", "dt": JAN_1}
    # Two that must not be, and of 100 input rows more than a fifth of what may be rejected, which would only warn.
    run = Run(RUN, JAN_1, JAN_1)
    rows = [{**row, "reason": "bad luck"}, {**row, "reason": "missing_user", "line": 0}]
    counted = {"input": 100, "ignored": 0, "rejected": {"missing_user": 2}}
    stage_rows("quarantine", RUN, rows, [JAN_1], run=run, counts={"by_day": {f"{JAN_1}": counted}})
    # The second table is audited too, although the first one fails, and only the one that failed is told of.
    nothing = {"by_day": {f"{JAN_1}": {"input": 0, "ignored": 0, "rejected": {}}}}
    stage_rows("events", RUN, [], [JAN_1], run=run, counts=nothing)
    with pytest.raises(AuditFailed) as caught:
        audit.main(["--table", "quarantine", "--table", "events", "--run-id", RUN])
    warned = read_verdict("events", RUN)
    assert warned.verdict == "warned"
    assert [said.split(" [")[0] for said in warned.failed] == ["the day has events"]
    assert "the day has events" not in str(caught.value)

    verdict = read_verdict("quarantine", RUN)
    assert verdict.verdict == "failed"
    assert verdict.stage_id == read_staged("quarantine", RUN).stage_id
    for said in (
        "lines are counted from 1 [line: 1 unexpected, such as [0]]",
        "such as [text of 8 characters]",
        verdict.docs,
    ):
        assert said in str(caught.value)
    assert "docs/runbook.md#audit-failed" in str(caught.value)
    assert "bad luck" not in str(caught.value), "what a log holds stays in the lake"

    # The address of the page, and the page itself, which names what failed and shows examples.
    assert verdict.docs.startswith("https://docs.example/meander/scheduled__2025-01-01T00-00-00-00-00-")
    page = (lake / "lake" / "_docs" / verdict.docs.removeprefix("https://docs.example/meander/")).read_text()
    for said in ("lines are counted from 1", "text of 8 characters", "missing_user", RUN):
        assert said in page
    assert "bad luck" not in page

    lines = audits.read("quarantine").to_pylist()
    broken = {(line["column"], line["severity"]): line for line in lines if not line["success"]}
    assert set(broken) == {("reason", "critical"), ("line", "critical"), ("rejected_share", "warning")}
    assert broken["line", "critical"]["said"] == "lines are counted from 1 [line: 1 unexpected, such as [0]]"
    assert {(line["verdict"], line["docs"]) for line in lines} == {("failed", verdict.docs)}

    with pytest.raises(PublishRefused, match="lines are counted from 1"):
        publish("quarantine", RUN)
    assert read_files(Table("quarantine"), "raw") == [(JAN_1, "old")]


def test_an_expectation_that_cannot_be_judged_is_an_error_and_no_verdict():
    context = gx.get_context(mode="ephemeral")
    with pytest.raises(RuntimeError, match="figures: expect_column_values_to_be_between could not run"):
        audit.validate(context, "figures", pd.DataFrame({"n": [1]}), [zero("m", "m is a column")], "COMPLETE")


ALL = [JAN_1 + timedelta(days=n) for n in range(4)]
D1, D2, D3, D4 = map(str, ALL)


def verdict_of(table: str, *bad: str, said: str = "failed", owns_more: bool = False) -> Verdict:
    """Return a verdict as `audit` returns it: with all days that failed."""
    unmet = {day: ["broken"] for day in bad}
    return Verdict(table, "r", "s", said if bad or owns_more else "passed", [], "", 0.0, "", unmet, sorted(bad))


@pytest.mark.parametrize(
    ("verdicts", "withheld"),
    [
        pytest.param([verdict_of("events")], [], id="nothing failed"),
        pytest.param([verdict_of("interests", D1)], [D1], id="the first day"),
        pytest.param([verdict_of("interests", D2, D3)], [D2, D3], id="days in the middle"),
        pytest.param([verdict_of("interests", D4)], [D4], id="the last day"),
        pytest.param([verdict_of("interests", D1, D2, D3, D4)], [], id="all days: the whole run fails"),
        pytest.param([verdict_of("quarantine", D1), verdict_of("events", D3)], [D1, D3], id="each in one table"),
        pytest.param([verdict_of("quarantine", D1, D2), verdict_of("events", D3, D4)], [], id="together all"),
        pytest.param([verdict_of("quarantine"), verdict_of("events", D2)], [D2], id="in a table that has passed, too"),
        pytest.param(
            [verdict_of("quarantine", owns_more=True), verdict_of("events", D2)], [], id="one fails on no known day"
        ),
        pytest.param([verdict_of("sessions", D2)], [], id="sessions of days that touch are published together"),
    ],
)
def test_which_days_are_withheld(verdicts, withheld):
    found = audit.withhold(verdicts, ALL, publish_good_days=True)
    assert [each.withheld for each in found] == [withheld] * len(verdicts)
    assert [each.verdict for each in found] == [each.verdict for each in verdicts]
    # Whoever asks about a day that is withheld is told why, also of a table that has not failed on it.
    assert all(set(withheld) <= set(each.unmet) for each in found)
    assert all(each.withheld == [] for each in audit.withhold(verdicts, ALL, publish_good_days=False))


def test_a_day_that_passed_says_why_it_is_withheld():
    quarantine, events = audit.withhold(
        [verdict_of("quarantine"), verdict_of("events", D2)], ALL, publish_good_days=True
    )
    assert quarantine.unmet == {D2: ["not published, since events of the day failed"]}
    assert events.unmet == {D2: ["broken"]}
    assert (quarantine.of_published, events.of_published) == ("passed", "passed")


def test_a_day_that_its_table_only_warns_of_says_first_why_it_is_withheld():
    warned = replace(verdict_of("quarantine"), verdict="warned", unmet={D2: ["few rows"]})
    quarantine, _ = audit.withhold([warned, verdict_of("events", D2)], ALL, publish_good_days=True)
    assert quarantine.unmet == {D2: ["not published, since events of the day failed", "few rows"]}


def test_sessions_of_a_day_take_those_that_touch_it_along_and_no_others():
    apart = [JAN_1, JAN_2, JAN_3 + timedelta(days=3), JAN_3 + timedelta(days=4)]
    (found,) = audit.withhold([verdict_of("sessions", D2)], apart, publish_good_days=True)
    assert found.withheld == [D1, D2]
    assert found.unmet == {D1: ["not published, since a day that touches it failed"], D2: ["broken"]}


def test_tables_of_one_job_withhold_the_same_days_and_have_no_verdict_before_all_are_judged(lake, monkeypatch):
    run, found = Run(RUN, JAN_1, JAN_3), {"quarantine": (), "events": (D2,)}
    days = [JAN_1, JAN_2, JAN_3]
    rows = {
        "quarantine": [row for day in days for row in rejected(day, "x")],
        "events": [{"event_id": "x", "dt": day, "landed": day} for day in days],
    }
    for table in rows:
        stage_files(table, RUN, rows[table], days, None, run=run, audited="")

    def judged(_, staged, config):
        assert config.publish_good_days
        if found.get(staged.table) is None:
            raise RuntimeError("killed")
        return replace(verdict_of(staged.table, *found[staged.table]), run_id=RUN, stage_id=staged.stage_id)

    monkeypatch.setattr(audit, "spark_session", lambda *_: None)
    monkeypatch.setattr(audit, "audit", judged)
    both = ["--table", "quarantine", "--table", "events", "--run-id", RUN]
    events = found.pop("events")
    with pytest.raises(RuntimeError, match="killed"):
        audit.main(both)
    assert read_verdict("quarantine", RUN) is None, "its second day would be published without events"
    found["events"] = events
    assert [verdict.withheld for verdict in audit.main(both)] == [[D2], [D2]]
    for table in ("quarantine", "events"):
        assert publish(table, RUN)["withheld"] == [D2]
        assert [day for day, _ in read_files(Table(table), KEY[table])] == [JAN_1, JAN_3]
    found["events"] = (D1, D2, D3)
    with pytest.raises(AuditFailed, match="is not published, readers keep what they had"):
        audit.main(both)


KEY = {"quarantine": "raw", "events": "event_id"}


@pytest.mark.spark
def test_one_bad_day_of_three_is_withheld_by_a_setting_and_else_all_of_them(spark, lake, monkeypatch):
    row = {"raw": "{}", "file": "f", "source": "test", "reason": "missing_user"}
    # A twentieth of the input may be rejected: on the second day it is a tenth; on the third enough for a warning.
    counted = {
        str(day): {"input": n, "ignored": 0, "rejected": {"missing_user": 1}}
        for day, n in ((JAN_1, 1000), (JAN_2, 10), (JAN_3, 50))
    }
    days = [JAN_1, JAN_2, JAN_3]
    stage_rows("quarantine", RUN, [{**row, "dt": day} for day in days], days, counts={"by_day": counted})
    (found,) = audit.main(["--table", "quarantine", "--run-id", RUN])
    assert (found, found.verdict, found.withheld) == (read_verdict("quarantine", RUN), "failed", ["2025-01-02"])
    assert publish("quarantine", RUN)["verdict"] == "warned", "of the third day alone"
    assert [day for day, _ in read_files(Table("quarantine"), "raw")] == [JAN_1, JAN_3]
    monkeypatch.setenv("MEANDER_PUBLISH_GOOD_DAYS", "false")
    with pytest.raises(AuditFailed, match=r"is not published, readers keep what they had.* on 2025-01-02"):
        audit.main(["--table", "quarantine", "--run-id", RUN])
    assert read_verdict("quarantine", RUN).withheld == []


@pytest.mark.spark
def test_a_verdict_on_several_days_says_which_of_them_it_is_about(spark, lake):
    row = {"raw": "{}", "file": "f", "source": "test", "reason": "missing_user"}
    rows = [{**row, "dt": JAN_1}, {**row, "dt": JAN_2}, {**row, "dt": JAN_2}, {**row, "dt": JAN_3}]
    # A hundredth of the input may be rejected without a warning: on the second day it is two.
    counted = {
        str(day): {"input": n * share, "ignored": 0, "rejected": {"missing_user": n}}
        for day, n, share in ((JAN_1, 1, 1000), (JAN_2, 2, 50), (JAN_3, 1, 1000))
    }
    days = [JAN_1, JAN_2, JAN_3]
    stage_rows("quarantine", RUN, rows, days, counts={"by_day": counted})
    (found,) = audit.main(["--table", "quarantine", "--run-id", RUN])
    assert (found.verdict, found) == ("warned", read_verdict("quarantine", RUN))
    why = "rejections stay well below the limit [rejected_share: {}]"
    reasons = "of 2,100 rows 4 missing_user, such as f (guests may be left out, by `guests`)"
    assert found.failed == [why.format("1 unexpected, such as [0.02]") + f" on 2025-01-02: {reasons}"]
    assert found.unmet == {"2025-01-02": [why.format("0.02")]}
    page = Path(found.docs).read_text()
    assert "1 of 3<br><small>2025-01-02</small>" in page
    assert [line["said"] for line in audits.read("quarantine").to_pylist() if not line["success"]] == found.failed


def test_of_figures_each_day_has_its_own_value_however_many_there_are():
    days = [JAN_1 + timedelta(days=number) for number in range(700)]
    share = [None if number % 2 else number / 1000 for number in range(700)]
    figures = pd.DataFrame({"day": days, "share": share, "rows": range(700), "upstream": [*range(699), 7]})
    context = gx.get_context(mode="ephemeral")
    expected = [between("share", 0.1, None, "enough"), equal("rows", "upstream", "as many")]
    found = {
        result.expectation_config.description: audit.observed_on_days(result, {}, figures)
        for result in audit.validate(context, "figures", figures, expected, "COMPLETE")
    }
    # Of no share nothing is expected; 0.098 is the last that is too small.
    assert found["enough"] == {days[number]: audit.figure_text(number / 1000) for number in range(0, 100, 2)}
    assert found["as many"] == {days[699]: "699 and 7"}
    (all_of_them,) = audit.validate(context, "all", figures, [between("rows", -2, -1, "none")], "COMPLETE")
    assert len(audit.observed_on_days(all_of_them, {}, figures)) == 700


@pytest.mark.spark
def test_rows_that_break_an_expectation_are_counted_on_their_days_and_those_of_no_day_fail_all(spark, lake):
    row = {"raw": "{}", "file": "f", "source": "test", "reason": "missing_user", "line": 1}
    rows = [
        *({**row, "dt": JAN_1, "line": line} for line in (0, -1, 5)),
        {**row, "dt": JAN_2, "file": None},
        {**row, "dt": None},  # on no day that the run owns
    ]
    counted = {
        str(day): {"input": 1000, "ignored": 0, "rejected": {"missing_user": n}} for day, n in ((JAN_1, 3), (JAN_2, 1))
    }
    stage_rows("quarantine", RUN, rows, [JAN_1, JAN_2], counts={"by_day": counted})
    with pytest.raises(AuditFailed, match=r"lines are counted from 1 .* on 2025-01-01"):
        audit.main(["--table", "quarantine", "--run-id", RUN])
    found = read_verdict("quarantine", RUN)
    kept = 'expect_column_values_to_not_be_null {"column": "file"} [file: 1 row]'
    assert found.unmet == {"2025-01-01": ["lines are counted from 1 [line: 2 rows]"], "2025-01-02": [kept]}
    no_day = [line for line in found.failed if '"dt"' in line]
    assert len(no_day) == 1
    assert "2025" not in no_day[0]


@pytest.mark.spark
def test_rows_of_no_day_let_no_day_through(spark, lake):
    """Who knows whose they are? A publish of the other days would lose them."""
    row = {"raw": "{}", "file": "f", "source": "test", "reason": "missing_user", "line": 1}
    rows = [{**row, "dt": JAN_1}, {**row, "dt": JAN_2, "line": 0}, {**row, "dt": None, "line": 0}]
    counted = {str(day): {"input": 1000, "ignored": 0, "rejected": {"missing_user": 1}} for day in (JAN_1, JAN_2)}
    stage_rows("quarantine", RUN, rows, [JAN_1, JAN_2], counts={"by_day": counted})
    with pytest.raises(AuditFailed, match="lines are counted from 1"):
        audit.main(["--table", "quarantine", "--run-id", RUN])
    assert read_verdict("quarantine", RUN).withheld == []
