"""Wait for what another process does: a busy machine may take ten times as long as a quiet one."""

import time
from collections.abc import Callable
from typing import TypeVar

from dags.local.standalone import HANGS_SECONDS

Found = TypeVar("Found")


def until(what: str | Callable[[], object], true: Callable[[], Found], every: float = 0.2) -> Found:
    """Wait until something holds, and return it.

    Args:
        what: is waited for, in words, or what tells at the end why it did not come.
        true: looks, and returns something true when it is there.
        every: seconds between two looks.

    Raises:
        TimeoutError: it did not come for so long that something hangs.
    """
    ends = time.monotonic() + HANGS_SECONDS
    while not (found := true()):
        if time.monotonic() > ends:
            raise TimeoutError(f"waited {HANGS_SECONDS} s in vain for: {what if isinstance(what, str) else what()}")
        time.sleep(every)
    return found
