"""The suite of `quarantine`: every rejected row is kept and says why, and they are few."""

from collections import Counter
from datetime import date

import pytest

from expectations import quarantine
from jobs import rejections
from lake.publish import publish
from lake.staging import write_verdict
from lake.table import Table
from tests.expectations.cases import (
    Seen,
    Tagged,
    all_of,
    expected,
    refused,
    see,
    stage_rows,
    warnings_of,
    without_tags,
)
from tests.expectations.test_docs import Reader
from tests.lake.stagings import JAN_1, read_files, stage_files

BROKEN, LOST, MADE_UP, TOO_MANY, IN_BUDGET, FEW, NOTHING = (date(2025, 1, n) for n in range(1, 8))


def row(day: date = BROKEN, **changes) -> dict:
    """Make a good row, and change it."""
    good = {"reason": "missing_user", "raw": "{}", "file": "f", "line": 1, "source": "test", "dt": day}
    return {**good, **changes}


def counts(read: int, **rejected: int) -> dict:
    return {"input": read, "ignored": 0, "rejected": rejected}


# Rows of one day, each with what is wrong with it.
ROWS: Tagged = [
    (row(), ""),
    *((row(reason=reason), "") for reason in rejections.REASONS),
    (row(line=None), ""),  # not known of a large file that several tasks read
    (row(reason=None), "not null reason"),
    (row(raw=None), "not null raw"),
    (row(file=None), "not null file"),
    (row(source=None), "not null source"),
    (row(dt=None), "not null dt"),
    (row(reason="bad luck"), "in set reason"),
    (row(line=0), "between line"),
]
# Other days: the rows that are kept, and what the ingest has counted.
DAYS = {
    BROKEN: ([], counts(10_000, missing_user=len(ROWS))),  # one of them is not on its day
    LOST: ([row(LOST)], counts(1_000, missing_user=2)),
    MADE_UP: ([row(MADE_UP)], counts(1_000)),  # one day has too many of what the other has lost
    TOO_MANY: ([row(TOO_MANY)] * 6, counts(100, missing_user=6)),
    IN_BUDGET: ([row(IN_BUDGET)] * 5, counts(100, missing_user=3, missing_item=2)),
    FEW: ([row(FEW)], counts(100, missing_user=1)),
    NOTHING: ([], counts(0)),  # the run owns it all the same
}


@pytest.fixture(scope="module")
def seen(spark, shared_lake) -> Seen:
    rows = without_tags(ROWS) + [each for kept, _ in DAYS.values() for each in kept]
    by_day = {f"{day}": counted for day, (_, counted) in DAYS.items()}
    stage_rows("quarantine", "r", rows, list(DAYS), counts={"by_day": by_day})
    return see(spark, "quarantine", "r")


@pytest.mark.spark
def test_an_audit_counts_every_row_that_is_broken_and_no_other(seen):
    assert seen.rows_counted() == expected(ROWS)


@pytest.mark.spark
def test_every_day_that_a_run_owns_is_measured_by_itself(seen):
    on_its_day = len(ROWS) - 1
    assert {day: seen.on(day, "rejected", "rows", "rejected_share") for day in DAYS} == {
        BROKEN: (on_its_day + 1, on_its_day, on_its_day / 10_000),
        LOST: (2, 1, 0.001),
        MADE_UP: (0, 1, 0.001),
        TOO_MANY: (6, 6, 0.06),
        IN_BUDGET: (5, 5, 0.05),
        FEW: (1, 1, 0.01),
        NOTHING: (0, 0, 0),
    }
    assert seen.broken["equal rejected"].startswith("every rejected input row is kept [rejected, rows: 3 unexpected")


@pytest.mark.spark
def test_every_expectation_is_seen_failing(seen):
    assert set(seen.broken) == all_of("quarantine")
    assert seen.verdict.verdict == "failed"


@pytest.mark.spark
def test_a_verdict_says_what_the_history_says_and_first_what_keeps_the_rows_from_the_readers(seen):
    assert sorted(seen.verdict.failed) == sorted(seen.broken.values())
    assert seen.verdict.failed[-1] == seen.broken["warning rejected_share"]


def test_more_rejections_than_the_setting_allows_fail_and_more_than_a_fifth_of_it_warn(monkeypatch):
    shares = [0, 0.01, 0.0101, 0.05, 0.0501, 1]
    assert refused("quarantine", {"rejected_share": shares}) == {
        "between rejected_share": [0.0501, 1],
        "warning rejected_share": [0.0101, 0.05, 0.0501, 1],
    }
    # A shop may say that more is usual.
    monkeypatch.setenv("MEANDER_MAX_REJECTED_SHARE", "0.5")
    assert refused("quarantine", {"rejected_share": [0.1, 0.11, 0.5, 0.51]}) == {
        "between rejected_share": [0.51],
        "warning rejected_share": [0.11, 0.5, 0.51],
    }
    assert warnings_of("quarantine") == {"warning rejected_share"}


@pytest.mark.spark
def test_rejections_within_the_budget_only_warn_and_readers_get_them(spark, lake):
    stage_files("quarantine", "before", [row(JAN_1, raw="old")], [JAN_1], 0)
    publish("quarantine", "before")
    rows = [row(JAN_1, raw="new")] * 5
    stage_rows("quarantine", "r", rows, [JAN_1], counts={"by_day": {f"{JAN_1}": counts(100, missing_user=5)}})
    seen = see(spark, "quarantine", "r")
    assert (seen.verdict.verdict, set(seen.broken)) == ("warned", {"warning rejected_share"})
    write_verdict(seen.verdict)
    assert publish("quarantine", "r")["verdict"] == "warned"
    assert read_files(Table("quarantine"), "raw") == [(JAN_1, "new")] * 5


@pytest.mark.spark
def test_an_audit_says_why_rows_were_rejected_where_they_stand_and_what_to_look_at(spark, lake):
    place = "/landing/dt=2025-01-01/"
    rows = [
        *(row(JAN_1, reason="unparsable_time", file=f"{place}a.csv", line=line) for line in (9, 2, 3)),
        *(row(JAN_1, reason="time_after_landing", file=f"{place}part/b.parquet", line=None) for _ in range(2)),
        row(JAN_1, reason="missing_item", file=f"{place}a.csv", line=4, raw="ann@example.org"),
        row(JAN_1, reason="negative_price", file=f"{place}a.csv", line=5),
    ]
    counted = counts(8, unparsable_time=3, time_after_landing=2, missing_item=1, negative_price=1)
    stage_rows("quarantine", "r", rows, [JAN_1], counts={"by_day": {f"{JAN_1}": counted}})
    seen = see(spark, "quarantine", "r")
    told = (
        ": of 8 rows 3 unparsable_time, such as 2025-01-01/a.csv line 2 (does `time.format` fit?); "
        "2 time_after_landing, such as 2025-01-01/part/b.parquet (they are after the day of their folder: is "
        "`time.zone` right? Are folders of a shop's own days, which end after midnight UTC? `folder_zone` says of "
        "which zone); 1 missing_item, such as 2025-01-01/a.csv line 4; 1 for other reasons"
    )
    # It is told once, where it keeps the rows from the readers, and what a row says is not told at all.
    critical, warning = seen.verdict.failed
    assert critical.startswith("at most 5.00%")
    assert critical.endswith(f"]{told}")
    assert warning.endswith("]")
    assert seen.broken["between rejected_share"] == critical
    # And so do the data docs of the table and run, the first line of which is what keeps the rows from the readers.
    assert seen.verdict.docs == str(lake / "lake" / "_docs" / "r" / "quarantine.html")
    page = (lake / "lake" / "_docs" / "r" / "quarantine.html").read_text("utf-8")
    cells = Reader(page).texts()
    explained = [cell for cell in cells if told.removeprefix(": ") in cell]
    assert explained == [next(cell for cell in cells if cell.startswith("at most 5.00%"))]
    assert "ann@example.org" not in page


def test_what_to_look_at_is_told_of_reasons_that_there_are():
    assert set(quarantine.REMEDIES) < set(rejections.REASONS)


def test_the_reasons_expected_are_those_that_ingest_gives():
    assert Counter(quarantine.REASONS) == Counter(list(rejections.REASONS))
