"""What was read is not read again, and what has changed is."""

import shutil
from datetime import date

import pytest

from dags.page.cache import Cache
from lake.table import Table
from tests.dags.page_lake import put

MAR_1 = date(2025, 3, 1)


class Reads:
    """Answers that are counted: "1", "2", ..."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> str:
        self.count += 1
        return str(self.count)


@pytest.fixture
def read() -> Reads:
    return Reads()


def table() -> Table:
    return Table("sessions")


def test_an_answer_is_read_once_for_each_version_and_question(lake, read):
    cache = Cache()
    put("sessions", MAR_1, [])
    assert [cache.of_version(table(), "sum", read) for _ in range(2)] == ["1", "1"]
    assert cache.of_version(table(), "mean", read) == "2"
    older = table()
    put("sessions", MAR_1, [], basis=2)
    assert cache.of_version(table(), "sum", read) == "3"
    # The newest answer takes the place of the one before: of a long backfill, not every version's history is kept.
    assert cache.of_version(older, "sum", read) == "4"
    assert cache.of_version(older, "mean", read) == "2"


def test_another_table_at_the_same_place_is_asked_again(lake, read):
    cache = Cache()
    put("sessions", MAR_1, [])
    first = table()
    assert cache.of_version(first, "sum", read) == "1"
    shutil.rmtree(lake / "lake")
    put("sessions", MAR_1, [])
    assert (table().path, table().version) == (first.path, first.version)
    assert cache.of_version(table(), "sum", read) == "2"


def test_of_many_answers_those_that_were_used_last_are_kept(lake, read):
    cache = Cache(max_answers=2)
    put("sessions", MAR_1, [])
    for question in ("first", "second", "first", "third"):
        cache.of_version(table(), question, read)
    assert read.count == 3
    assert cache.of_version(table(), "first", read) == "1"
    assert cache.of_version(table(), "second", read) == "4"


def test_an_answer_that_failed_is_asked_again(lake):
    cache = Cache()
    put("sessions", MAR_1, [])

    def fails() -> str:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        cache.of_version(table(), "sum", fails)
    assert cache.of_version(table(), "sum", lambda: "well") == "well"


def test_a_file_is_read_again_when_its_stamp_changes_or_it_was_gone():
    cache, paths = Cache(), []

    def read(path: str) -> str:
        paths.append(path)
        return f"{path} {len(paths)}"

    assert cache.of_files({"a": "1"}, read) == {"a": "a 1"}
    assert cache.of_files({"a": "1", "b": "1"}, read) == {"a": "a 1", "b": "b 2"}
    assert cache.of_files({"a": "2", "b": "1"}, read) == {"a": "a 3", "b": "b 2"}
    assert cache.of_files({"b": "1"}, read) == {"b": "b 2"}
    assert cache.of_files({"a": "2", "b": "1"}, read) == {"a": "a 4", "b": "b 2"}
