"""What the sensors wait for, and what they say when they give up."""

import re
from datetime import UTC, date, datetime, timedelta
from types import SimpleNamespace

import pytest
from airflow.sdk.exceptions import AirflowFailException, AirflowSensorTimeout

from dags.shared.waits import WaitForLanding, WaitForPublished
from lake.publish import publish
from tests.lake.stagings import stage_files


@pytest.mark.usefixtures("lake")
def test_published_means_that_a_run_has_published_that_day_even_if_it_is_empty():
    def waits_for(day):
        return not WaitForPublished(task_id="wait", table="interests", day=day).poke({})

    assert waits_for("2025-03-09"), "the table is not there yet"
    stage_files("interests", "run", [], owns=[date(2025, 3, 9)], basis=1)
    assert waits_for("2025-03-09"), "staged is not published"
    publish("interests", "run")
    assert not waits_for("2025-03-09")
    assert waits_for("2025-03-10")


@pytest.mark.parametrize(
    "sensor",
    [
        WaitForPublished(task_id="w", table="interests", day="2025-03-09"),
        WaitForLanding(task_id="w", day="2025-03-09", wanted="True"),
    ],
    ids=["published", "landed"],
)
def test_nothing_is_waited_for_where_a_variable_is_no_setting(lake, monkeypatch, sensor):
    monkeypatch.setenv("MEANDER_LAEK", "/x")
    with pytest.raises(AirflowFailException, match=r"MEANDER_LAEK is set, .* did you mean MEANDER_LAKE\?"):
        sensor.poke({})


@pytest.mark.parametrize(
    ("sensor", "said"),
    [
        (
            WaitForPublished(task_id="w", table="interests", day="2025-03-09", timeout=timedelta(days=2)),
            "waited for 48 hours: interests of 2025-03-09 are not published [docs/runbook.md#tables-late]",
        ),
        (
            WaitForLanding(task_id="w", day="2025-03-09", wanted="True", timeout=timedelta(days=2)),
            "waited for 48 hours: 2025-03-09 has not landed, or is incomplete [docs/runbook.md#landing-missing]",
        ),
    ],
    ids=["published", "landed"],
)
def test_a_wait_that_gives_up_says_what_did_not_come_and_where_to_read_on(lake, sensor, said):
    ti = SimpleNamespace(get_first_reschedule_date=lambda _: datetime.now(UTC) - timedelta(days=2, seconds=1))
    with pytest.raises(AirflowSensorTimeout, match=re.escape(said)):
        sensor.execute({"ti": ti})
