"""Which days the jobs after ingest take: those of the run, but for days whose events the run itself has withheld."""

import re
from datetime import date

import pytest

from jobs.inputs import published_events, without_withheld
from jobs.sessionize import landed_files
from lake.errors import AuditFailed, TableMissing
from lake.publish import publish
from lake.staging import Run, Verdict, read_staged, write_verdict
from lake.table import Table
from tests.lake.stagings import JAN_1, JAN_2, JAN_3, stage_files

DAYS = [JAN_1, JAN_2, JAN_3]


def load(run_id: str, days: list[date], *withheld: date, visible: bool = True) -> None:
    """Stage and publish events of some days, of which the audit withholds some."""
    rows = [{"event_id": f"e{day}", "dt": day, "landed": day} for day in days]
    staged = stage_files("events", run_id, rows, days, None, audited="")
    bad = [str(day) for day in withheld]
    said = "failed" if bad else "passed"
    unmet = {day: ["price is there"] for day in bad}
    write_verdict(Verdict("events", run_id, staged.stage_id, said, [], "", 0.0, unmet=unmet, withheld=bad))
    if visible:
        publish("events", run_id)


def taken(run_id: str = "r") -> list[date]:
    return published_events(Run(run_id, JAN_1, JAN_3))[1]


@pytest.mark.parametrize("bad", DAYS)
def test_a_day_that_the_run_withheld_is_left_out(lake, bad):
    load("r", DAYS, bad)
    assert taken() == [day for day in DAYS if day != bad]


def test_a_day_that_was_withheld_is_left_out_although_readers_see_an_older_delivery_of_it(lake):
    load("before", DAYS)
    load("r", DAYS, JAN_2)
    assert taken() == [JAN_1, JAN_3], "a run of that day alone would have ended at its audit"
    assert taken("of another run") == DAYS, "only the run that withheld it leaves it out"


def test_a_day_that_was_withheld_counts_again_once_it_was_repaired(lake):
    load("r", DAYS, JAN_2)
    load("repair", [JAN_2])
    assert taken() == DAYS


def test_a_day_that_readers_see_counts_although_an_audit_that_ran_after_the_publish_withholds_it(lake):
    load("r", DAYS)
    staged = read_staged("events", "r")
    bad = [str(JAN_2)]
    write_verdict(Verdict("events", "r", staged.stage_id, "failed", [], "", 0.0, unmet={bad[0]: ["x"]}, withheld=bad))
    assert taken() == DAYS


def test_a_day_that_nobody_has_published_is_an_error_as_ever(lake):
    load("r", [JAN_1, JAN_2], JAN_2)
    with pytest.raises(TableMissing, match=re.escape("events that landed on 2025-01-03 are not published yet")):
        taken()


def test_what_earlier_deliveries_held_is_read_from_the_log_and_no_older_version_is_opened(lake, monkeypatch):
    for delivery in range(3):
        # Each delivery of the second day has an event of another date, which the next one has no longer.
        gone = {"event_id": f"late {delivery}", "dt": date(2024, 12, 1 + delivery), "landed": JAN_2}
        rows = [gone, *({"event_id": f"e{day}", "dt": day, "landed": day} for day in (JAN_1, JAN_2))]
        stage_files("events", f"r{delivery}", rows, [JAN_1, JAN_2], None)
        publish("events", f"r{delivery}")
    events = Table("events")
    of_all_versions = [file for version in range(1, events.version + 1) for file in Table("events", version).files]
    by_opening = {file.path: file for file in of_all_versions if file.partition["landed"] == JAN_2}
    monkeypatch.setattr(Table, "__init__", lambda *_: pytest.fail("a version is opened"))
    found = list(landed_files(events, [JAN_2]))
    assert {file.path: file for file in found} == by_opening
    assert sorted({file.partition["dt"] for file in found}) == [*(date(2024, 12, n) for n in (1, 2, 3)), JAN_2]


def test_dates_that_were_all_withheld_are_an_error_which_names_them():
    assert without_withheld([JAN_3], DAYS) == [JAN_3]
    with pytest.raises(AuditFailed, match="the events of 2025-01-02 failed their audit in this run"):
        without_withheld([JAN_2], [JAN_1, JAN_3])
