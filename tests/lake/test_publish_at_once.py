"""Many publishes at once, on a disk and on S3: none is lost, and of each day the newest basis stays."""

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from threading import Barrier

import pytest

from lake.publish import publish
from lake.table import Table
from tests.lake.commands import start
from tests.lake.stagings import JAN_1, JAN_2, read_files, rejected, stage_files

MANY = 6


@pytest.fixture(autouse=True, params=["disk", "s3"])
def _store(request: pytest.FixtureRequest, lake: Path) -> None:
    if request.param == "s3":
        request.getfixturevalue("lake_on_s3")


def at_once(*calls: Callable[[], dict]) -> list[dict]:
    """Make all calls at the same instant, each in a thread, and return what they returned."""
    together = Barrier(len(calls))

    def wait_and_call(call: Callable[[], dict]) -> dict:
        together.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(wait_and_call, calls))


def publishes(run_ids: list[str]) -> list[Callable[[], dict]]:
    return [lambda run_id=run_id: publish("quarantine", run_id) for run_id in run_ids]


def test_the_first_publishes_of_a_table_to_different_days_all_go_through(lake):
    days = [JAN_1 + timedelta(days=n) for n in range(MANY)]
    for day in days:
        stage_files("quarantine", f"run {day}", rejected(day, f"{day}"), [day], basis=1)
    done = at_once(*publishes([f"run {day}" for day in days]))
    assert not any(report["refused"] or report["already"] for report in done)
    table = Table("quarantine")
    assert read_files(table, "raw") == [(day, f"{day}") for day in days]
    assert sorted(commit["run_id"] for commit in table.commits()) == [f"run {day}" for day in days]


def test_of_many_publishes_to_one_day_the_newest_basis_stays(lake):
    # All runs own the first day, each also one of its own: losing the first must not cost it the other.
    days = [JAN_1 + timedelta(days=n) for n in range(1, MANY + 1)]
    for basis, day in enumerate(days, start=1):
        rows = rejected(JAN_1, f"from {basis}") + rejected(day, f"from {basis}")
        stage_files("quarantine", f"run {basis}", rows, [JAN_1, day], basis)
    runs = [f"run {basis}" for basis in range(1, MANY + 1)]
    random.shuffle(runs)
    done = at_once(*publishes(runs))
    expected = [(JAN_1, f"from {MANY}")] + [(day, f"from {basis}") for basis, day in enumerate(days, start=1)]
    assert read_files(Table("quarantine"), "raw") == expected
    assert all(set(report["refused"]) <= {"2025-01-01"} for report in done)
    assert next(report for report in done if report["run_id"] == f"run {MANY}")["refused"] == []


def test_one_run_published_by_many_is_committed_once(lake):
    # Airflow starts a task again while its first try still lives.
    stage_files("quarantine", "r", rejected(JAN_1, "a", "b"), [JAN_1], basis=1)
    done = at_once(*publishes(["r"] * MANY))
    assert sorted(report["already"] for report in done) == [False] + [True] * (MANY - 1)
    assert len(Table("quarantine").commits()) == 1
    assert read_files(Table("quarantine"), "raw") == [(JAN_1, "a"), (JAN_1, "b")]


def test_processes_publish_at_once_as_threads_do(lake):
    for basis in (1, 2, 3):
        for table, key in (("quarantine", "raw"), ("sessions", "session_id")):
            rows = [{key: f"from {basis}", "dt": day} for day in (JAN_1, JAN_2)]
            stage_files(table, f"run {basis}", rows, [JAN_1, JAN_2], basis)
    tables = ("--table", "quarantine", "--table", "sessions")
    with ThreadPoolExecutor(3) as pool:
        processes = list(pool.map(lambda n: start("lake.publish", *tables, "--run-id", f"run {n}"), (2, 3, 1)))
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    for table, key in (("quarantine", "raw"), ("sessions", "session_id")):
        assert read_files(Table(table), key) == [(JAN_1, "from 3"), (JAN_2, "from 3")]
        assert len(Table(table).commits()) == 3
