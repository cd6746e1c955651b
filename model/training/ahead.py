"""Make the next batches while a step runs.

A thread and not `tf.data`: its datasets from a generator change how the whole process frees memory (model/memory.py),
and under MirroredStrategy all of its datasets end in one.
"""

from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Given = TypeVar("Given")
Made = TypeVar("Made")

BATCHES = 4


def ahead(given: Generator[Given, None, None], make: Callable[[Given], Made]) -> Generator[Made, None, None]:
    """Yield `make` of each thing that a generator yields; a thread is up to BATCHES of them ahead.

    What the generator or `make` raises is raised where its batch would be. The generator is closed with this one.
    """

    def following() -> Made | None:
        for thing in given:
            return make(thing)
        return None

    with ThreadPoolExecutor(1, "ahead") as thread:
        waiting: deque[Future[Made | None]] = deque(thread.submit(following) for _ in range(BATCHES))
        try:
            while (made := waiting.popleft().result()) is not None:
                waiting.append(thread.submit(following))
                yield made
        finally:
            for future in waiting:
                future.cancel()
            # In its thread: a generator cannot be closed while it runs.
            thread.submit(given.close).result()
