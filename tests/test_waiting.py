"""A wait ends where nothing moves any more, however long it took until then."""

import pytest

from tests import waiting


@pytest.fixture(autouse=True)
def _hangs_at_once(monkeypatch):
    monkeypatch.setattr(waiting, "HANGS_SECONDS", 0)


def test_what_does_not_come_hangs():
    with pytest.raises(TimeoutError, match="waited 0 s in vain for: a bus"):
        waiting.until("a bus", lambda: False, every=0.001)


def test_what_moves_is_waited_for_beyond_the_limit_and_what_stands_still_is_not():
    states = iter([1, 2, 3, 3])
    with pytest.raises(TimeoutError, match="in vain for: still at 3"):
        waiting.until(lambda: "still at 3", lambda: False, every=0.001, moves=lambda: next(states))
    assert next(states, None) is None, "it was asked once more after each change"
    looks = iter([False, False, False, "there"])
    moving = iter(range(9))
    assert waiting.until("", lambda: next(looks), every=0.001, moves=lambda: next(moving)) == "there"
