"""What the page has read, kept between two requests: small answers that would be the same if they were read again."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any, TypeVar

from lake.table import Table

Answer = TypeVar("Answer")


class Cache:
    """Answers by what they were read from; one object for all threads of the web server.

    Args:
        most: answers of tables that are kept, those that were used last.
    """

    def __init__(self, most: int = 512):
        self.most = most
        self._answers: OrderedDict[tuple[str, str], tuple[int, Any]] = OrderedDict()
        self._lock = Lock()
        self._files: dict[str, tuple[str, Any]] = {}

    def of_version(self, table: Table, question: str, read: Callable[[], Answer]) -> Answer:
        """Return the answer of a version of a table to a question, and read it if it is not kept.

        The id of a table is made with it, so another lake at the same place gives answers of its own.
        """
        key = (table.delta.metadata().id, question)
        with self._lock:
            version, kept = self._answers.get(key, (None, None))
            if version == table.version:
                self._answers.move_to_end(key)
                same: Answer = kept
                return same
        answer = read()
        with self._lock:
            # In place of that of another version: some answers are whole histories.
            self._answers[key] = table.version, answer
            self._answers.move_to_end(key)
            while len(self._answers) > self.most:
                self._answers.popitem(last=False)
        return answer

    def of_files(self, stamps: Mapping[str, str], read: Callable[[str], Answer]) -> dict[str, Answer]:
        """Return what `read` makes of each file, and forget all other files.

        Args:
            stamps: by path what the storage says of the file (size, time): a file whose stamp has not changed is not
                read again.
            read: makes the answer from a path.
        """
        # Another thread may put other files in its place meanwhile; nobody changes a dict that is kept.
        kept = self._files
        unread = [path for path, stamp in stamps.items() if path not in kept or kept[path][0] != stamp]
        # The first look of a web server reads every file; waiting for storage takes the time, not the CPU.
        with ThreadPoolExecutor(max_workers=16) as pool:
            new = dict(zip(unread, pool.map(read, unread), strict=True))
        answers = {path: new[path] if path in new else kept[path][1] for path in stamps}
        self._files = {path: (stamp, answers[path]) for path, stamp in stamps.items()}
        return answers
