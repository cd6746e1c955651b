"""The suite of `quarantine`: every rejected row is kept and says why, and they are few."""

import pytest

from expectations import quarantine
from jobs import rejections
from lake.errors import PublishRefused
from lake.publish import publish
from lake.table import Table
from tests.expectations.cases import (
    audit_and_see,
    between,
    not_null,
    require_all_were_seen_failing,
    stage_rows,
)
from tests.lake.stagings import JAN_1, read_files, rejected, stage_files

DAY = JAN_1


def row(**changes) -> dict:
    """Make a good row, and change it."""
    return {
        "reason": "missing_user",
        "raw": "{}",
        "file": "f",
        "line": 1,
        "source": "test",
        "dt": DAY,
        **changes,
    }


def counts(read: int, rejected_rows: int) -> dict:
    return {"by_day": {f"{DAY}": {"input": read, "ignored": 0, "rejected": {"missing_user": rejected_rows}}}}


# Each case: rows, each with its reason; the counts of the ingest; what must fail.
CASES = {
    "rows do not say what they should": (
        [
            row(),
            row(reason=None),
            row(raw=None),
            row(file=None),
            row(line=None),  # not known of a large file that several tasks read: fine
            row(source=None),
            row(dt=None),  # and so it is not on its day
            row(reason="bad luck"),
            row(line=0),
        ],
        counts(10_000, 9),
        not_null("reason", "raw", "file", "source", "dt") | {"in set reason", "between line", "equal rejected"},
    ),
    "a rejected row is lost, and there are too many": (
        [row()] * 51,
        counts(1_000, 52),
        {"equal rejected"} | between("rejected_share"),
    ),
}


@pytest.mark.spark
@pytest.mark.parametrize("case", CASES)
def test_an_audit_fails_on_what_is_broken_and_on_nothing_else(spark, lake, case):
    rows, counted, expected = CASES[case]
    stage_rows(spark, "quarantine", "r", rows, [DAY], counts=counted)
    assert audit_and_see(spark, "quarantine", "r")[1] == expected


def test_every_critical_expectation_is_seen_failing():
    require_all_were_seen_failing("quarantine", (expected for _, _, expected in CASES.values()))


@pytest.mark.spark
def test_rejections_near_the_limit_only_warn_and_above_it_readers_keep_what_they_had(spark, lake, monkeypatch):
    stage_files("quarantine", "before", rejected(DAY, "old"), [DAY], 0)
    publish("quarantine", "before")

    stage_rows(spark, "quarantine", "r", [row(raw="new")] * 5, [DAY], counts=counts(100, 5))
    monkeypatch.setenv("MEANDER_MAX_REJECTED_SHARE", "0.049")
    verdict, names = audit_and_see(spark, "quarantine", "r")
    assert names == {"between rejected_share"}
    assert "at most 4.90% of the input is rejected (MEANDER_MAX_REJECTED_SHARE)" in verdict.failed[0]
    with pytest.raises(PublishRefused, match="MEANDER_MAX_REJECTED_SHARE"):
        publish("quarantine", "r")
    assert read_files(Table("quarantine"), "raw") == [(DAY, "old")]

    # The shop says that such a share is usual: the same staging, audited again under another setting, goes through.
    monkeypatch.setenv("MEANDER_MAX_REJECTED_SHARE", "0.05")
    verdict, _ = audit_and_see(spark, "quarantine", "r")
    assert [said.split(" [")[0] for said in verdict.failed] == ["rejections stay well below the limit"]
    assert publish("quarantine", "r")["verdict"] == "warned"
    assert read_files(Table("quarantine"), "raw") == [(DAY, "new")] * 5


def test_the_reasons_expected_are_those_that_ingest_gives():
    assert set(quarantine.REASONS) == set(rejections.REASONS)
    assert len(quarantine.REASONS) == len(rejections.REASONS)
