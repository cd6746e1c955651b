"""A cache between requests of the page: small answers that a second read would only repeat."""

import math
import pickle
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any, TypeVar

from lake.storage import READERS, parts
from lake.table import Table

Answer = TypeVar("Answer")


class Cache:
    """Answers by the table version or file that they were read from; one object for all threads of the web server.

    Args:
        max_bytes: of the answers of tables that are kept, those that were used last.
        max_files: how many files have an answer that is kept beside those that were asked for last.
    """

    def __init__(self, max_bytes: int = 64 * 1024 * 1024, max_files: int = 20_000):
        self.max_bytes = max_bytes
        self.max_files = max_files
        self._bytes = 0
        self._answers: OrderedDict[tuple[str, str], tuple[int, Any, int]] = OrderedDict()
        self._lock = Lock()
        self._files: dict[str, tuple[str, Any]] = {}
        self._recent: dict[str, tuple[float, float, Any]] = {}

    def of_version(self, table: Table, question: str, read: Callable[[], Answer]) -> Answer:
        """Return the answer of a version of a table to a question, and read it if it is not cached.

        Each table has an id of its own, so another lake at the same place gets answers of its own.
        """
        key = (str(table.delta.metadata().id), question)
        with self._lock:
            version, cached, _ = self._answers.get(key, (-1, None, 0))
            if version == table.version:
                self._answers.move_to_end(key)
                answer: Answer = cached
                return answer
        answer = read()
        # Pickled; in memory it is a few times as much. Some answers are whole histories, and some a number.
        size = len(pickle.dumps(answer, pickle.HIGHEST_PROTOCOL))
        with self._lock:
            # In place of that of another version.
            self._bytes -= self._answers.pop(key, (0, None, 0))[2]
            self._answers[key] = table.version, answer, size
            self._bytes += size
            while self._bytes > self.max_bytes:
                _, (_, _, dropped) = self._answers.popitem(last=False)
                self._bytes -= dropped
        return answer

    def of_files(self, stamps: Mapping[str, str], read: Callable[[str], Answer]) -> dict[str, Answer]:
        """Return the answer of `read` for each file.

        Those of other files are kept: one view of the page asks for a year, and the next one for all.

        Args:
            stamps: size and time of each file, by path: a file whose stamp has not changed is not read again.
            read: returns the answer for a path.
        """
        # Another thread may replace this dict meanwhile; none changes it.
        cached = self._files
        unread = [path for path, stamp in stamps.items() if path not in cached or cached[path][0] != stamp]
        new: dict[str, Answer] = {}
        # The first request of a web server reads every file, and mostly waits for storage. Each thread takes a part:
        # to hand over one path at a time takes longer than to read a local file.
        with ThreadPoolExecutor(max_workers=READERS) as pool:
            for part in pool.map(lambda paths: {path: read(path) for path in paths}, parts(unread, READERS)):
                new |= part
        answers = {path: new[path] if path in new else cached[path][1] for path in stamps}
        others = [path for path in cached if path not in stamps][-self.max_files :] if self.max_files else []
        # Those that were asked for last come last.
        self._files = {path: cached[path] for path in others} | {p: (stamp, answers[p]) for p, stamp in stamps.items()}
        return answers

    def for_a_while(self, question: str, seconds: float, read: Callable[[], Answer]) -> Answer:
        """Return the answer to a question that was read within so many seconds, and read it if there is none.

        For what nothing tells of a change: the answer may be older than what it is about.
        """
        with self._lock:
            read_at, _, cached = self._recent.get(question, (-math.inf, 0.0, None))
        if time.monotonic() - read_at < seconds:
            answer: Answer = cached
            return answer
        answer = read()
        with self._lock:
            now = time.monotonic()
            # Questions name days: nobody asks again for most of them.
            self._recent = {q: kept for q, kept in self._recent.items() if now < kept[0] + kept[1]}
            self._recent[question] = now, seconds, answer
        return answer
