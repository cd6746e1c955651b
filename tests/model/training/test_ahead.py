"""Batches made ahead: in order, all of them, bounded, and nothing left running."""

import threading
import time

import pytest

from model.training.ahead import BATCHES, ahead


def numbers(end, seen, closed):
    try:
        for number in range(end):
            seen.append(number)
            yield number
    finally:
        closed.append(threading.current_thread().name)


def test_everything_comes_once_and_in_order():
    closed = []
    assert list(ahead(numbers(50, [], closed), lambda number: number * 2)) == [number * 2 for number in range(50)]
    assert len(closed) == 1
    assert list(ahead(numbers(0, [], closed), str)) == []
    assert list(ahead(numbers(BATCHES, [], closed), str)) == [str(number) for number in range(BATCHES)]


def test_it_is_made_before_it_is_asked_for_but_not_without_bound():
    seen, here = [], threading.current_thread().name
    made = ahead(numbers(50, seen, []), lambda _number: threading.current_thread().name)
    assert next(made) != here
    deadline = time.monotonic() + 30
    while len(seen) < 1 + BATCHES and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)  # a thread without bound would go on
    assert seen == list(range(1 + BATCHES))
    made.close()


def test_an_error_comes_where_its_batch_would():
    closed = []

    def make(number):
        if number == 2:
            raise ValueError("the third")
        return number

    made = ahead(numbers(9, [], closed), make)
    assert [next(made), next(made)] == [0, 1]
    with pytest.raises(ValueError, match="the third"):
        next(made)
    assert len(closed) == 1


def test_left_early_it_closes_what_it_reads_and_ends_its_thread():
    before, closed = threading.active_count(), []
    given = numbers(50, [], closed)  # held here, so that not its end as an object closes it
    made = ahead(given, str)
    next(made)
    assert threading.active_count() == before + 1
    made.close()
    assert threading.active_count() == before
    assert len(closed) == 1
