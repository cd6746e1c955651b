"""A run killed at any instant is repaired by running it again, and readers see old rows or new ones, never a mix."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from expectations import audit
from jobs import ingest
from lake.errors import PublishRefused
from lake.publish import main as publish_main
from lake.publish import publish
from lake.staging import Verdict, write_verdict
from lake.table import Table
from tests.lake.commands import kill
from tests.lake.stagings import JAN_1, read_files, rejected, stage_files

KEYS = {"events": "item_id", "quarantine": "raw"}
TABLES = ["--table", "quarantine", "--table", "events"]
DAY = ["--day", f"{JAN_1}", "--run-id", "r"]

Rows = dict[str, list]


def rows() -> Rows:
    """Return what readers see."""
    return {table: read_files(Table(table), key) for table, key in KEYS.items()}


# ---- a whole run ----


def view(item: str, user: str = "u") -> dict:
    return {"user_id": user, "event_time": "2025-01-01T10:00:00Z", "behavior": "view", "item_id": item}


# The first delivery, and what comes in its place: fewer events, others, and a row that is rejected.
FIRST_DELIVERY = [view("old 1"), view("old 2"), view("old 3")]
SECOND_DELIVERY = [view("new 1"), view("new 2"), view("nobody's", user="")]
OLD: Rows = {"events": [(JAN_1, f"old {n}") for n in (1, 2, 3)], "quarantine": []}
NEW: Rows = {
    "events": [(JAN_1, "new 1"), (JAN_1, "new 2")],
    "quarantine": [(JAN_1, json.dumps(SECOND_DELIVERY[2]))],
}


def kill_at_a_sign(module: str, arguments: list[str], folder: Path, sign: str) -> str:
    """Start a command, kill it with all its children as soon as it has written a file, or soon after, and say when.

    Args:
        module: the module to run.
        arguments: its arguments.
        folder: where to look for the sign.
        sign: what is new in `folder` and matches this pattern.
    """
    before, began = set(folder.glob(sign)), time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        env={**os.environ},
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while process.poll() is None and not set(folder.glob(sign)) - before:
        time.sleep(0.001)
    time.sleep(random.choice([0, 0.01, 0.1]))
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    return f"{module} after {time.monotonic() - began:.3f} s, {sign}: {process.wait()}"


@pytest.fixture
def before(spark, lake, land, monkeypatch) -> None:
    """A lake of the first delivery, and the second one in the landing."""
    monkeypatch.setenv("MEANDER_MAX_REJECTED_SHARE", "0.5")
    land(JAN_1, FIRST_DELIVERY)
    for staged in ingest.main(["--day", f"{JAN_1}", "--run-id", "before"]):
        write_verdict(Verdict(staged.table, "before", staged.stage_id, "passed", [], "", 0.0))
        publish(staged.table, "before")
    land(JAN_1, SECOND_DELIVERY)


@pytest.fixture
def seen(before) -> Iterator[list]:
    """All that a reader sees who never stops looking, each thing once: (table, rows)."""
    found, done = [], threading.Event()

    def look() -> None:
        while not done.wait(0.05):
            found.extend(sight for sight in rows().items() if sight not in found)

    reader = threading.Thread(target=look)
    reader.start()
    yield found
    done.set()
    reader.join()


@pytest.mark.spark
def test_a_run_killed_anywhere_and_run_again_ends_in_the_rows_of_an_undisturbed_run(seen, lake, monkeypatch):
    assert rows() == OLD

    # Killed while Spark writes one of the two tables, or when the first manifest stands.
    sign = random.choice(["lake/events/stage=*", "lake/quarantine/stage=*", "lake/_runs/r/events.*.json"])
    killed = [kill_at_a_sign("jobs.ingest", DAY, lake, sign)]
    assert rows() == OLD, killed
    ingest.main(DAY)

    # Ended when its first page stands but not its verdict, with which it can not be published.
    def ended(_: Verdict) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(audit, "write_verdict", ended)
        with pytest.raises(KeyboardInterrupt):
            audit.main([*TABLES, "--run-id", "r"])
    assert list((lake / "lake" / "_docs" / "r").glob("*.html"))
    with pytest.raises(PublishRefused, match="has not been audited"):
        publish_main([*TABLES, "--run-id", "r"])
    audit.main([*TABLES, "--run-id", "r"])

    publish_main([*TABLES, "--run-id", "r"])
    assert rows() == NEW, killed
    assert all(found in (OLD[table], NEW[table]) for table, found in seen), killed
    assert ("events", OLD["events"]) in seen
    for table in KEYS:
        assert [commit["run_id"] for commit in Table(table).commits()] == ["r", "before"]


# ---- its publish ----


def stage_and_audit(run_id: str, delivery: str, count: int, basis: int) -> Rows:
    """Stage both tables of a run, some rows each, and return them as readers would see them."""
    names = [f"{delivery} {n}" for n in range(count)]
    events = [{"item_id": name, "dt": JAN_1, "landed": JAN_1} for name in names]
    stage_files("events", run_id, events, [JAN_1], basis)
    stage_files("quarantine", run_id, rejected(JAN_1, *names), [JAN_1], basis)
    return {table: [(JAN_1, name) for name in names] for table in KEYS}


def test_a_publish_killed_at_any_instant_has_published_each_table_whole_or_not_at_all(lake):
    # A commit takes some milliseconds: a process that is ready for it says so, and is killed within them.
    old = stage_and_audit("old", "old", 3, basis=1)
    publish_main([*TABLES, "--run-id", "old"])
    killed = []
    for n in range(8):
        run_id = f"r{n}"
        new = stage_and_audit(run_id, f"new {n}", 2, basis=n + 2)
        killed.append(kill(0.08, "lake.publish", *TABLES, "--run-id", run_id))
        assert all(found in (old[table], new[table]) for table, found in rows().items()), killed
        publish_main([*TABLES, "--run-id", run_id])
        assert rows() == new, killed
        old = new
    for table in KEYS:
        assert [said["run_id"] for said in Table(table).commits()] == [*(f"r{n}" for n in range(7, -1, -1)), "old"]
