"""The audit as a whole: good data passes; the command, a page of data docs and the history tell what fails."""

import subprocess
import sys
from importlib import import_module

import great_expectations as gx
import pandas as pd
import pytest

from expectations import audit
from expectations.suite import zero
from lake import audits
from lake.errors import AuditFailed, PublishRefused
from lake.publish import publish
from lake.settings import settings
from lake.staging import read_staged, read_verdict
from lake.table import Table
from lake.tables import made_by
from tests.expectations.cases import stage_rows
from tests.lake.stagings import JAN_1, JAN_2, read_files, rejected, stage_files
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
    rows = [{**row, "reason": "bad luck"}, {**row, "reason": "missing_user", "line": 0}]
    counted = {"input": 100, "ignored": 0, "rejected": {"missing_user": 2}}
    stage_rows("quarantine", RUN, rows, [JAN_1], counts={"by_day": {f"{JAN_1}": counted}})
    # The second table is audited too, although the first one fails, and only the one that failed is told of.
    stage_rows("events", RUN, [], [JAN_1], counts={"by_day": {f"{JAN_1}": {"input": 0, "ignored": 0, "rejected": {}}}})
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
    assert "bad luck" not in str(caught.value), "what a log holds is in the data docs alone"

    # The address of the page, and the page itself, which names what failed and shows examples.
    assert verdict.docs.startswith("https://docs.example/meander/scheduled__2025-01-01T00-00-00-00-00-")
    page = (lake / "lake" / "_docs" / verdict.docs.removeprefix("https://docs.example/meander/")).read_text()
    for said in ("lines are counted from 1", "bad luck", "missing_user", RUN):
        assert said in page

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
