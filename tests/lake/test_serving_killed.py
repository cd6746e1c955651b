"""A load that is killed at any instant is repaired by the next one, and readers see one generation, whole, always."""

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import psycopg
import pytest

from lake.postgres import connect
from lake.serving import READY, generations, rollback, switch
from lake.serving_load import load
from tests.lake.predicted import DAY_1, DAY_2, prediction, publish_rows

# Enough that a load takes long enough to be killed inside, and that each day has other users.
USERS = {DAY_1: 4000, DAY_2: 5000}


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
                connection.execute("set statement_timeout = '2s'")  # nobody is kept out
                while not self.done.is_set():
                    found = connection.execute(
                        "select count(*), count(distinct user_id), min(dt), max(dt), min(model_version), "
                        "max(model_version) from meander.predictions"
                    ).fetchone()
                    self.seen.add(found)
                    self.looks += 1
        except psycopg.Error as error:
            self.failed.append(error)


@pytest.fixture
def readers(serving) -> Iterator[Readers]:
    """Load and serve the first day, publish the second one, and look all the time."""
    publish_day(DAY_1, 1)
    publish_day(DAY_2, 2)
    load(DAY_1, "first")
    with connect() as connection:
        switch(connection, DAY_1, "first")
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
    moves = 60
    for n in range(moves):
        with connect() as connection:
            if n % 2:
                rollback(connection, f"back {n}", day=DAY_1)
            else:
                switch(connection, DAY_2, f"forth {n}", force=True)
    readers.done.set()
    for thread in readers.threads:
        thread.join()
    assert readers.failed == []
    assert readers.seen == WHOLE
    assert readers.looks > moves / 2, "they looked while it moved"


def test_two_statements_of_one_transaction_see_one_generation_if_it_asks_for_that(readers, serving):
    load(DAY_2, "second")
    with psycopg.connect(os.environ["MEANDER_SERVING_URL"]) as reader:
        reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        ask = "select distinct dt from meander.predictions"
        assert reader.execute(ask).fetchall() == [(DAY_1,)]
        with connect() as connection:
            switch(connection, DAY_2, "forth", force=True)
        assert reader.execute(ask).fetchall() == [(DAY_1,)]
        reader.commit()
        assert reader.execute(ask).fetchall() == [(DAY_2,)]


# The command, which says when it is ready: imports take longer than the load.
COMMAND = "import sys; from jobs.serve import main; print(flush=True); main(sys.argv[1:])"


def start(*arguments: str) -> subprocess.Popen:
    """Start a command of jobs.serve, and return when it begins to work."""
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, *arguments],
        env={**os.environ}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    process.stdout.readline()
    return process


def kill(process: subprocess.Popen, after: float) -> str:
    time.sleep(after)
    process.kill()
    with process:
        return f"killed after {after:.3f} s: {process.wait()}"


def test_a_load_that_is_killed_anywhere_and_run_again_ends_as_an_undisturbed_one(readers, serving):
    killed = []
    for longest in (0.02, 0.05, 0.1, 0.2, 0.3):  # undisturbed, it takes about 0.3 s
        killed.append(kill(start("load", "--day", str(DAY_2), "--run-id", "r"), random.uniform(0, longest)))
    done = load(DAY_2, "r")
    assert done["users"] == USERS[DAY_2], killed
    with connect() as connection:
        assert [(each.day, each.state) for each in generations(connection)] == [(DAY_2, READY), (DAY_1, READY)], killed
    tables = serving.execute("select count(*) from pg_class where relname ~ '^prediction_rows_[0-9]+$'").fetchone()
    assert tables == (2,), f"nothing is left of {killed}"
    assert readers.failed == []
    assert readers.seen <= WHOLE - {(USERS[DAY_2], USERS[DAY_2], DAY_2, DAY_2, 2, 2)}, killed


def test_a_switch_that_is_killed_anywhere_has_happened_or_not(readers, serving):
    load(DAY_2, "second")
    killed = []
    for n in range(4):
        run = ["switch", "--force", "--day"] if n % 2 == 0 else ["rollback", "--day"]
        day = DAY_2 if n % 2 == 0 else DAY_1
        killed.append(kill(start(*run, str(day), "--run-id", f"r{n}"), random.uniform(0, 0.08)))
        process = start(*run, str(day), "--run-id", f"again {n}")
        said = json.loads(process.communicate()[0])
        assert said["outcome"] in ("switched", "already"), killed
        assert serving.execute("select distinct dt from meander.predictions").fetchall() == [(day,)], killed
    assert readers.failed == []
    assert readers.seen <= WHOLE, killed


def test_two_loads_of_one_day_at_once_make_one_generation(readers):
    both = [start("load", "--day", str(DAY_2), "--run-id", f"r{n}") for n in range(2)]
    said = [json.loads(process.communicate()[0]) for process in both]
    assert sorted(each["already"] for each in said) == [False, True]
    assert len({each["generation"] for each in said}) == 1
