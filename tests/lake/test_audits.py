"""The history of audits: a row for each expectation of each audit, appended by audits that may run at once."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from threading import Barrier

from lake import audits
from tests.lake.stagings import JAN_1, JAN_2


def line(table: str, run_id: str, expectation: str, minute: int = 0) -> audits.AuditLine:
    return audits.AuditLine(
        table=table,
        run_id=run_id,
        stage_id="s",
        first=JAN_1,
        last=JAN_2,
        audited=datetime(2025, 1, 3, 12, minute, tzinfo=UTC),
        expectation=expectation,
        column="price",
        severity="critical",
        success=False,
        said="no price is negative",
        verdict="failed",
        docs="/docs/r/events.html",
    )


def test_before_the_first_audit_the_history_is_empty(lake):
    assert audits.read().num_rows == 0
    assert audits.read("events").column_names == audits.read().column_names


def test_lines_come_back_as_they_were_recorded_oldest_first(lake):
    late, early, other = (
        line("events", "r2", "b", 30),
        line("events", "r1", "a", 15),
        line("sessions", "r1", "c", 20),
    )
    # Neither as they were recorded nor the other way round are they in order.
    for recorded in (late, early, other):
        audits.record([recorded])
    assert [audits.AuditLine(**row) for row in audits.read().to_pylist()] == [early, other, late]
    assert [audits.AuditLine(**row) for row in audits.read("events").to_pylist()] == [early, late]


def test_the_first_audits_of_a_lake_may_run_at_once(lake):
    # delta-rs fails all but one of the writers that create a table at the same instant.
    together = Barrier(8)

    def record(n: int) -> None:
        together.wait()
        audits.record([line("events", f"r{n}", "a"), line("events", f"r{n}", "b")])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(record, range(8)))
    assert sorted(audits.read()["run_id"].to_pylist()) == sorted(f"r{n}" for n in range(8) for _ in "ab")
