"""Wait for what another process does: a busy machine may take ten times as long as a quiet one."""

import time
from collections.abc import Callable
from typing import TypeVar

from dags.local.standalone import HANGS_SECONDS

Found = TypeVar("Found")


def until(
    what: str | Callable[[], object],
    true: Callable[[], Found],
    every: float = 0.2,
    moves: Callable[[], object] = lambda: None,
) -> Found:
    """Wait until something holds, and return it.

    Args:
        what: is waited for, in words, or what tells at the end why it did not come.
        true: looks, and returns something true when it is there.
        every: seconds between two looks.
        moves: returns what changes as long as nothing hangs, for what may take long. It is asked at each limit alone.

    Raises:
        TimeoutError: it did not come for so long that something hangs.
    """
    ends, before = time.monotonic() + HANGS_SECONDS, moves()
    while not (found := true()):
        if time.monotonic() > ends:
            now = moves()
            if now == before:
                said = what if isinstance(what, str) else what()
                raise TimeoutError(f"waited {HANGS_SECONDS} s in vain for: {said}")
            ends, before = time.monotonic() + HANGS_SECONDS, now
        time.sleep(every)
    return found
