"""Which days a job is asked for, and how days are named to people."""

from datetime import date

import pytest

from jobs.arguments import as_of_days, as_of_parser, job_parser, parse_run
from jobs.inputs import listed
from lake.errors import SettingsInvalid
from lake.staging import Run

# A run takes its number from the lake.
pytestmark = pytest.mark.usefixtures("lake")


def march(day):
    return date(2025, 3, day)


def test_a_day_is_a_range_of_one_day():
    run, _ = parse_run(job_parser("job", None), ["--day", "2025-03-02", "--run-id", "r"])
    assert (run.run_id, run.first, run.last) == ("r", march(2), march(2))
    run, _ = parse_run(job_parser("job", None), ["--from", "2025-03-02", "--to", "2025-03-04", "--run-id", "r"])
    assert (run.first, run.last) == (march(2), march(4))


def test_every_date_of_a_range_is_meant_and_no_late_event_unless_it_is_said():
    days = ["--from", "2025-03-02", "--to", "2025-03-04", "--run-id", "r"]
    run, args = parse_run(as_of_parser("job", None, "late"), days)
    assert as_of_days(run, args.every) == [march(2), march(3), march(4)]
    assert args.include_late is False


def test_as_of_dates_are_counted_back_from_the_last():
    assert as_of_days(Run("r", march(1), march(31)), 10) == [march(1), march(11), march(21), march(31)]
    assert as_of_days(Run("r", march(1), march(30)), 10) == [march(10), march(20), march(30)]
    assert as_of_days(Run("r", march(1), march(3)), 10) == [march(3)]
    with pytest.raises(SettingsInvalid, match=r"--every counts days and must be at least 1; received 0"):
        as_of_days(Run("r", march(1), march(3)), 0)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        pytest.param([], "give either --day, or both --from and --to", id="no day"),
        pytest.param(["--from", "2025-03-02"], "give either --day, or both", id="half a range"),
        pytest.param(["--to", "2025-03-02"], "give either --day, or both", id="the other half"),
        pytest.param(["--day", "2025-03-02", "--to", "2025-03-02"], "give either", id="a day and an end"),
        pytest.param(["--day", "2025-03-02", "--from", "2025-03-02", "--to", "2025-03-02"], "give either", id="both"),
        pytest.param(["--from", "2025-03-02", "--to", "2025-03-01"], "--from must not be after --to", id="backwards"),
    ],
)
def test_which_days_are_meant_has_to_be_clear(arguments, told):
    with pytest.raises(SettingsInvalid, match=told):
        parse_run(job_parser("job", None), [*arguments, "--run-id", "r"])


def test_a_run_takes_no_number_of_a_lake_that_a_mistyped_name_leads_to(lake, monkeypatch):
    monkeypatch.setenv("MEANDER_LAEK", "/lake")
    with pytest.raises(SettingsInvalid, match="did you mean MEANDER_LAKE"):
        parse_run(job_parser("job", None), ["--day", "2025-03-02", "--run-id", "r"])
    assert not (lake / "lake").exists()


def test_a_message_names_ten_days_and_counts_the_others():
    days = [march(n) for n in range(1, 13)]
    assert listed(days[:10]) == ", ".join(f"2025-03-{n:02}" for n in range(1, 11))
    assert listed(days).endswith("2025-03-10 and 2 more")
