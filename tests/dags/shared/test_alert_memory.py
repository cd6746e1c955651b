"""The alerts that tasks share: claims of a cause, the last alert that was sent, alerts that could not be sent."""

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dags.shared.alert_memory import AlertMemory, SentAlert


@pytest.fixture
def memory(tmp_path):
    return AlertMemory(str(tmp_path))


def files(memory: AlertMemory, *folder: str) -> list[str]:
    return sorted(file.name for file in Path(memory.folder, *folder).glob("*") if file.is_file())


def test_one_task_at_a_time_sends_a_cause(memory):
    with memory.claim("a") as first, memory.claim("a") as second, memory.claim("b") as other:
        assert (first, second, other) == (True, False, True)
    with memory.claim("a") as again:
        assert again


def test_who_did_not_get_a_claim_leaves_it_to_its_owner(memory):
    with memory.claim("a"):
        with memory.claim("a"):
            pass
        with memory.claim("a") as third:
            assert not third


def test_a_claim_ends_with_an_error_and_is_not_that_of_what_is_unsent(memory):
    with pytest.raises(ZeroDivisionError), memory.claim("a"):
        raise ZeroDivisionError
    with memory.claim("a") as again, memory.claim_unsent() as unsent, memory.claim_unsent() as second:
        assert (again, unsent, second) == (True, True, False)
    assert files(memory, "claims") == []


def test_a_cause_is_recorded_once_its_alert_was_sent(memory):
    assert memory.last_sent("a") is None
    memory.record_sent("a", "text")
    last = memory.last_sent("a")
    assert (last.cause, last.text, last.suppressed) == ("a", "text", [])
    assert datetime.now(UTC) - datetime.fromisoformat(last.sent) < timedelta(hours=1)
    assert memory.last_sent("b") is None


def test_an_alert_is_suppressed_until_the_period_after_the_last_one_has_passed():
    nine_hours_ago = (datetime.now(UTC) - timedelta(hours=9)).isoformat()
    last = SentAlert("a", nine_hours_ago, "text", [])
    assert (last.within(timedelta(hours=10)), last.within(timedelta(hours=8))) == (True, False)


def test_the_newest_hundred_days_with_a_suppressed_alert_are_kept_until_the_next_alert(memory):
    memory.record_sent("a", "text")
    began = memory.last_sent("a").sent
    for day in range(1, 103):
        memory.record_suppressed(memory.last_sent("a"), f"day {day}")
    last = memory.last_sent("a")
    assert (last.sent, last.text) == (began, "text")
    assert (len(last.suppressed), last.suppressed[0], last.suppressed[-1]) == (100, "day 3", "day 102")
    memory.record_sent("a", "other")
    assert memory.last_sent("a").suppressed == []


def test_the_file_of_a_cause_has_the_keys_that_older_versions_wrote(memory):
    memory.record_sent("a", "text")
    memory.record_suppressed(memory.last_sent("a"), "2025-03-02")
    (name,) = files(memory)
    content = json.loads(Path(memory.folder, name).read_text())
    assert content == {"cause": "a", "told": memory.last_sent("a").sent, "text": "text", "since": ["2025-03-02"]}


def test_what_is_unsent_is_there_until_it_is_removed_and_not_listed_while_it_may_be_on_its_way(memory):
    for cause in ("a", "b"):
        memory.keep_unsent(cause, {"text": cause})
    assert memory.unsent() == []
    names = files(memory, "unsent")
    for name in names:
        os.utime(Path(memory.folder, "unsent", name), (0, 0))
    assert memory.unsent() == names
    assert sorted(memory.read_unsent(name)["text"] for name in names) == ["a", "b"]
    memory.remove_sent("a")
    (left,) = memory.unsent()
    assert memory.read_unsent(left) == {"text": "b"}
    memory.remove_unsent(left)
    assert memory.unsent() == []
    assert memory.read_unsent(left) is None


def test_a_queued_alert_is_not_taken_for_one_that_was_sent(memory):
    memory.keep_unsent("a", {"text": "a"})
    assert memory.last_sent("a") is None
    memory.record_sent("a", "text")
    (file,) = files(memory)
    assert json.loads(Path(memory.folder, file).read_text())["cause"] == "a"
