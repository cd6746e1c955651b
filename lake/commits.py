"""A commit that others may overtake: whoever was not first looks at the table again, and decides anew."""

import random
import time
from collections.abc import Callable
from typing import TypeVar

from deltalake.exceptions import CommitFailedError

from lake.errors import CommitContended

Result = TypeVar("Result")

ATTEMPTS = 50
# How much longer each pause may be than the one before it, in seconds.
PAUSE = 0.05


def until_first(attempt: Callable[[], Result], others: str, outcome: str) -> Result:
    """Call `attempt` until no other commit comes before its own, and return what it returns.

    It looks at the table, and commits without the retries of delta-rs (`max_commit_retries=0`): what it has seen may no
    longer be true after another commit.

    Args:
        attempt: raises `CommitFailedError` where another commit came first.
        others: who they are, for the error.
        outcome: what has happened therefore, for the error.

    Raises:
        CommitContended: others came first 50 times in a row.
    """
    for number in range(ATTEMPTS):
        try:
            return attempt()
        except CommitFailedError as error:
            overtaken = error
            # Of those who try at once, each waits for another time.
            time.sleep(random.uniform(0, PAUSE * (number + 1)))
    raise CommitContended(f"{others} came first {ATTEMPTS} times in a row; {outcome}") from overtaken
