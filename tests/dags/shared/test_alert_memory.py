"""What tasks remember together of alerts: who tells a cause now, when it was told, what could not be sent."""

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dags.shared.alert_memory import AlertMemory, ToldCause


@pytest.fixture
def memory(tmp_path):
    return AlertMemory(str(tmp_path))


def files(memory: AlertMemory, *folder: str) -> list[str]:
    return sorted(file.name for file in Path(memory.folder, *folder).glob("*") if file.is_file())


def test_one_task_at_a_time_tells_a_cause(memory):
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


def test_a_cause_is_known_once_it_was_told(memory):
    assert memory.told("a") is None
    memory.note_told("a", "text")
    told = memory.told("a")
    assert (told.cause, told.text, told.since) == ("a", "text", [])
    assert datetime.now(UTC) - datetime.fromisoformat(told.told) < timedelta(hours=1)
    assert memory.told("b") is None


def test_a_cause_that_was_told_is_told_again_when_it_was_quiet_for_long_enough():
    nine_hours_ago = (datetime.now(UTC) - timedelta(hours=9)).isoformat()
    told = ToldCause("a", nine_hours_ago, "text", [])
    assert (told.within(timedelta(hours=10)), told.within(timedelta(hours=8))) == (True, False)


def test_the_newest_hundred_days_on_which_a_cause_came_again_are_kept_until_it_is_told_again(memory):
    memory.note_told("a", "text")
    began = memory.told("a").told
    for day in range(1, 103):
        memory.note_again(memory.told("a"), f"day {day}")
    told = memory.told("a")
    assert (told.told, told.text) == (began, "text")
    assert (len(told.since), told.since[0], told.since[-1]) == (100, "day 3", "day 102")
    memory.note_told("a", "other")
    assert memory.told("a").since == []


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


def test_a_message_that_is_kept_is_not_taken_for_a_cause_that_was_told(memory):
    memory.keep_unsent("a", {"text": "a"})
    assert memory.told("a") is None
    memory.note_told("a", "text")
    (file,) = files(memory)
    assert json.loads(Path(memory.folder, file).read_text())["cause"] == "a"
