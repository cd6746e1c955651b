"""A cache between requests of the page: small answers that a second read would only repeat."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any, TypeVar

from lake.table import Table

Answer = TypeVar("Answer")


class Cache:
    """Answers by the table version or file that they were read from; one object for all threads of the web server.

    Args:
        max_answers: the number of answers of tables that are kept, those that were used last.
    """

    def __init__(self, max_answers: int = 512):
        self.max_answers = max_answers
        self._answers: OrderedDict[tuple[str, str], tuple[int, Any]] = OrderedDict()
        self._lock = Lock()
        self._files: dict[str, tuple[str, Any]] = {}

    def of_version(self, table: Table, question: str, read: Callable[[], Answer]) -> Answer:
        """Return the answer of a version of a table to a question, and read it if it is not cached.

        Each table has an id of its own, so another lake at the same place gets answers of its own.
        """
        key = (str(table.delta.metadata().id), question)
        with self._lock:
            version, cached = self._answers.get(key, (-1, None))
            if version == table.version:
                self._answers.move_to_end(key)
                answer: Answer = cached
                return answer
        answer = read()
        with self._lock:
            # In place of that of another version: some answers are whole histories.
            self._answers[key] = table.version, answer
            self._answers.move_to_end(key)
            while len(self._answers) > self.max_answers:
                self._answers.popitem(last=False)
        return answer

    def of_files(self, stamps: Mapping[str, str], read: Callable[[str], Answer]) -> dict[str, Answer]:
        """Return the answer of `read` for each file, and drop those of all other files.

        Args:
            stamps: size and time of each file, by path: a file whose stamp has not changed is not read again.
            read: returns the answer for a path.
        """
        # Another thread may replace this dict meanwhile; none changes it.
        cached = self._files
        unread = [path for path, stamp in stamps.items() if path not in cached or cached[path][0] != stamp]
        # The first request of a web server reads every file, and mostly waits for storage.
        with ThreadPoolExecutor(max_workers=16) as pool:
            new = dict(zip(unread, pool.map(read, unread), strict=True))
        answers = {path: new[path] if path in new else cached[path][1] for path in stamps}
        self._files = {path: (stamp, answers[path]) for path, stamp in stamps.items()}
        return answers
