"""The audit as a whole: good data passes; the command, a page of data docs and the history tell what fails."""

from datetime import timedelta

import pytest

from expectations import audit
from jobs import examples, ingest, interests, sessionize
from lake import audits
from lake.errors import AuditFailed
from lake.publish import publish
from lake.settings import settings
from lake.staging import read_verdict
from tests.expectations.cases import stage_rows
from tests.lake.stagings import JAN_1, JAN_2

pytestmark = pytest.mark.spark


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
    steps = (
        (ingest, ("events", "quarantine"), both),
        (sessionize, ("sessions",), both),
        (interests, ("interests",), both),
        (examples, ("examples",), first),
    )
    for job, tables, days in steps:
        job.main([*days, "--run-id", "r"])
        verdicts = audit.main([*(word for table in tables for word in ("--table", table)), "--run-id", "r"])
        assert [(v.table, v.verdict, v.failed) for v in verdicts] == [(table, "passed", []) for table in tables]
        for table in tables:
            assert publish(table, "r")["verdict"] == "passed"

    # The history has one row for each expectation of each audit.
    config = settings()
    for _, tables, days in steps:
        for table in tables:
            suite, lines = audit.SUITES[table], audits.read(table).to_pylist()
            assert len(lines) == len(suite.rows(config)) + len(suite.figures(config))
            assert {(line["verdict"], line["success"], line["run_id"]) for line in lines} == {("passed", True, "r")}
            assert {(line["first"], line["last"]) for line in lines} == {(JAN_1, JAN_1 if days is first else JAN_2)}


def test_a_failed_audit_says_what_was_found_where_people_look(spark, lake, monkeypatch):
    monkeypatch.setenv("MEANDER_DOCS_URL", "https://docs.example/meander")
    row = {"raw": "{}", "file": "f", "source": "test", "dt": JAN_1}
    rows = [{**row, "reason": "bad luck"}, {**row, "reason": "missing_user", "line": 0}]
    counted = {"input": 1_000, "ignored": 0, "rejected": {"missing_user": 2}}
    manifest = {"counts": {"by_day": {f"{JAN_1}": counted}}}
    stage_rows(spark, "quarantine", "scheduled__2025-01-01T00:00:00+00:00", rows, [JAN_1], **manifest)
    with pytest.raises(AuditFailed) as caught:
        audit.main(["--table", "quarantine", "--run-id", "scheduled__2025-01-01T00:00:00+00:00"])

    verdict = read_verdict("quarantine", "scheduled__2025-01-01T00:00:00+00:00")
    assert verdict is not None
    assert verdict.verdict == "failed"
    for said in (
        "lines are counted from 1 [line: 1 unexpected, such as [0]]",
        "such as ['bad luck']",
        verdict.docs,
    ):
        assert said in str(caught.value)
    assert "docs/runbook.md#audit-failed" in str(caught.value)

    # The address of the page, and the page itself, which names what failed and shows examples.
    assert verdict.docs.startswith("https://docs.example/meander/scheduled__2025-01-01T00-00-00-00-00-")
    page = (lake / "lake" / "_docs" / verdict.docs.removeprefix("https://docs.example/meander/")).read_text()
    for said in (
        "lines are counted from 1",
        "bad luck",
        "missing_user",
        "scheduled__2025-01-01T00:00:00+00:00",
    ):
        assert said in page

    lines = audits.read("quarantine").to_pylist()
    broken = {line["column"]: line for line in lines if not line["success"]}
    assert set(broken) == {"reason", "line"}
    assert broken["line"]["said"] == "lines are counted from 1 [line: 1 unexpected, such as [0]]"
    assert {(line["verdict"], line["docs"]) for line in lines} == {("failed", verdict.docs)}


def test_every_day_that_a_run_owns_is_measured_by_itself(spark, lake):
    # Two days that make up for each other's loss in the sum, and one without any row.
    days = [JAN_1 + timedelta(days=n) for n in range(3)]
    rows = [
        {"reason": "missing_user", "raw": "{}", "file": "f", "source": "test", "dt": day} for day in (days[0], days[1])
    ]
    by_day = {
        f"{day}": {"input": 1_000, "ignored": 0, "rejected": {"missing_user": n}}
        for day, n in zip(days, (2, 0, 0), strict=True)
    }
    stage_rows(spark, "quarantine", "r", rows, days, counts={"by_day": by_day})
    verdict = audit.audit(spark, "quarantine", "r")
    assert [said.split(" [")[0] for said in verdict.failed] == ["every rejected input row is kept"]
