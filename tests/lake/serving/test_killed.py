"""A load that is killed at any instant is repaired by the next one, and readers see one generation, whole, always."""

import os
import threading
import time
from collections.abc import Iterator

import psycopg
import pytest

from lake.serving.pointer import READY, current, generations
from tests.lake.commands import kill, start
from tests.lake.predicted import DAY_1, DAY_2, prediction, publish_rows
from tests.lake.served import load, opened, rollback, switch

# Enough that a load takes long enough to be killed inside, and that each day has other users.
USERS = {DAY_1: 2000, DAY_2: 3000}


def publish_day(day, version: int) -> None:
    publish_rows([prediction(f"{day} {n}", day, version) for n in range(USERS[day])], day, basis=version)


class Readers:
    """Threads that look at the view without a pause, and keep each different thing that they saw."""

    def __init__(self, url: str, count: int):
        self.url, self.seen, self.looks, self.failed = url, set(), 0, []
        self.done = threading.Event()
        self.threads = [threading.Thread(target=self.look) for _ in range(count)]

    def look(self) -> None:
        try:
            with psycopg.connect(self.url, autocommit=True) as connection:
                connection.execute("set lock_timeout = '1s'")  # nobody is kept out
                while not self.done.is_set():
                    found = connection.execute(
                        "select count(*), count(distinct user_id), min(dt), max(dt), min(model_version), "
                        "max(model_version) from meander.predictions"
                    ).fetchone()
                    self.seen.add(found)
                    self.looks += 1
                    time.sleep(0.002)  # leave something of two cores to who is looked at
        except psycopg.Error as error:
            self.failed.append(error)


@pytest.fixture
def readers(serving) -> Iterator[Readers]:
    """Load and serve the first day, publish the second one, and look all the time."""
    publish_day(DAY_1, 1)
    publish_day(DAY_2, 2)
    load(DAY_1, "first")
    with opened() as store:
        switch(store, DAY_1, "first")
    found = Readers(os.environ["MEANDER_SERVING_URL"], 2)
    for thread in found.threads:
        thread.start()
    yield found
    found.done.set()
    for thread in found.threads:
        thread.join()


WHOLE = {(USERS[day], USERS[day], day, day, version, version) for day, version in ((DAY_1, 1), (DAY_2, 2))}


def test_readers_see_one_generation_whole_while_the_pointer_moves(readers):
    load(DAY_2, "second")
    with opened() as store:
        for n in range(30):
            looks = readers.looks
            if n % 2:
                rollback(store, f"back {n}", day=DAY_1)
            else:
                switch(store, DAY_2, f"forth {n}", force=True)
            while readers.looks == looks and any(thread.is_alive() for thread in readers.threads):
                time.sleep(0.001)  # however slow they are, they look between any two moves
    readers.done.set()
    for thread in readers.threads:
        thread.join()
    assert readers.failed == []
    assert readers.seen == WHOLE


def test_two_statements_of_one_transaction_see_one_generation_if_it_asks_for_that(readers, serving):
    with psycopg.connect(os.environ["MEANDER_SERVING_URL"]) as reader:
        reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        ask = "select distinct dt from meander.predictions"
        assert reader.execute(ask).fetchall() == [(DAY_1,)]
        load(DAY_2, "second")  # and neither a load nor a switch waits for it
        with opened() as store:
            switch(store, DAY_2, "forth", force=True)
        assert reader.execute(ask).fetchall() == [(DAY_1,)]
        reader.commit()
        assert reader.execute(ask).fetchall() == [(DAY_2,)]


def test_a_load_that_is_killed_anywhere_and_run_again_ends_as_an_undisturbed_one(readers, serving):
    # Undisturbed, it takes half a second.
    killed = [kill(n / 10, "jobs.serve", "load", "--day", str(DAY_2), "--run-id", "r") for n in range(1, 7)]
    done = load(DAY_2, "r")
    assert done["users"] == USERS[DAY_2], killed
    with opened() as store:
        assert [(each.day, each.state) for each in generations(store)] == [(DAY_2, READY), (DAY_1, READY)], killed
    tables = serving.execute("select count(*) from pg_class where relname ~ '^prediction_rows_[0-9]+$'").fetchone()
    assert tables == (2,), f"nothing is left of {killed}"
    assert readers.failed == []
    assert {look[2] for look in readers.seen} == {DAY_1}, killed
    assert readers.seen <= WHOLE, killed


def test_a_switch_that_is_killed_anywhere_has_happened_or_not(readers, serving):
    load(DAY_2, "second")
    killed = []
    for n in range(8):
        forth = n % 2 == 0
        day, command = (DAY_2, ["switch", "--force"]) if forth else (DAY_1, ["rollback"])
        killed.append(kill(0.1, "jobs.serve", *command, "--day", str(day), "--run-id", f"r{n}"))
        assert serving.execute("select count(distinct dt) from meander.predictions").fetchall() == [(1,)], killed
        with opened() as store:
            again = switch(store, day, f"r{n}", force=True) if forth else rollback(store, f"r{n}", day=day)
            assert again["outcome"] in ("switched", "already"), killed
            assert current(store).day == day, killed
    assert readers.failed == []
    assert readers.seen <= WHOLE, killed


def test_two_loads_of_one_day_at_once_make_one_generation(readers):
    both = [start("jobs.serve", "load", "--day", str(DAY_2), "--run-id", f"r{n}") for n in range(2)]
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    with opened() as store:
        assert [each.day for each in generations(store)] == [DAY_2, DAY_1]
