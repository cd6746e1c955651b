"""What was read is not read again, and what has changed is."""

import pickle
import shutil
from datetime import date
from weakref import ref

import pytest

from dags.page.cache import Cache
from lake.table import Table
from tests.dags.page_lake import put

MAR_1 = date(2025, 3, 1)
PICKLED = len(pickle.dumps("1", pickle.HIGHEST_PROTOCOL))


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
    cache = Cache(max_bytes=2 * PICKLED)
    put("sessions", MAR_1, [])
    for question in ("first", "second", "first", "third"):
        cache.of_version(table(), question, read)
    assert read.count == 3
    assert cache.of_version(table(), "first", read) == "1"
    assert cache.of_version(table(), "second", read) == "4"


def test_a_long_answer_takes_the_place_of_several_short_ones(lake):
    cache = Cache(max_bytes=100 + 2 * PICKLED)
    put("sessions", MAR_1, [])
    answers = {"short": "1", "other": "2", "long": "l" * 100, "last": "3"}
    for question in answers:
        cache.of_version(table(), question, answers[question].upper)
    # What is kept is told again, and what is not is read anew.
    told = [cache.of_version(table(), question, lambda: "anew") for question in ("last", "long", "other", "short")]
    assert told == ["3", "L" * 100, "anew", "anew"]


def test_the_answer_of_another_version_takes_the_place_of_the_one_before_in_bytes_too(lake, read):
    cache = Cache(max_bytes=2 * PICKLED)
    for basis in (1, 2, 3):
        put("sessions", MAR_1, [], basis=basis)
        cache.of_version(table(), "sum", read)
    cache.of_version(table(), "mean", read)
    assert read.count == 4
    assert [cache.of_version(table(), question, read) for question in ("sum", "mean")] == ["3", "4"]


def test_an_answer_that_failed_is_asked_again(lake):
    cache = Cache()
    put("sessions", MAR_1, [])

    def fails() -> str:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        cache.of_version(table(), "sum", fails)
    assert cache.of_version(table(), "sum", lambda: "well") == "well"


def test_a_file_is_read_again_when_its_stamp_changes_and_not_because_others_were_asked_for():
    cache, paths = Cache(), []

    def read(path: str) -> str:
        paths.append(path)
        return f"{path} {len(paths)}"

    assert cache.of_files({"a": "1"}, read) == {"a": "a 1"}
    assert cache.of_files({"a": "1", "b": "1"}, read) == {"a": "a 1", "b": "b 2"}
    assert cache.of_files({"a": "2", "b": "1"}, read) == {"a": "a 3", "b": "b 2"}
    assert cache.of_files({"b": "1"}, read) == {"b": "b 2"}
    assert cache.of_files({"a": "2", "b": "1"}, read) == {"a": "a 3", "b": "b 2"}


def test_of_many_files_those_that_were_asked_for_last_are_kept():
    cache, paths = Cache(max_files=1), []
    for asked in ("a", "b", "c"):
        cache.of_files({asked: "1"}, paths.append)
    cache.of_files({"b": "1", "c": "1"}, paths.append)
    assert paths == ["a", "b", "c"]
    cache.of_files({"a": "1"}, paths.append)
    assert paths == ["a", "b", "c", "a"]


def test_an_answer_is_believed_for_so_many_seconds_and_each_question_has_its_own(monkeypatch):
    cache, reads, now = Cache(), Reads(), [100.0]
    monkeypatch.setattr("dags.page.cache.time.monotonic", lambda: now[0])
    assert cache.for_a_while("landing", 60, reads) == "1"
    now[0] = 159.9
    assert [cache.for_a_while(question, 60, reads) for question in ("landing", "another")] == ["1", "2"]
    now[0] = 160.0
    assert [cache.for_a_while(question, 60, reads) for question in ("landing", "another")] == ["3", "2"]


def test_an_answer_that_is_too_old_is_not_kept(monkeypatch):
    class Listing:
        """What can be looked at from outside."""

    cache, now = Cache(), [100.0]
    monkeypatch.setattr("dags.page.cache.time.monotonic", lambda: now[0])
    monday = ref(cache.for_a_while("monday", 60, Listing))
    now[0] = 159.0
    cache.for_a_while("tuesday", 60, Listing)
    assert monday() is not None
    now[0] = 161.0
    cache.for_a_while("wednesday", 60, Listing)
    assert monday() is None
