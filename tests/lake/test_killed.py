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
from lake.publish import main as publish_main
from lake.publish import publish
from lake.staging import Verdict, write_verdict
from lake.table import Table
from tests.lake.stagings import JAN_1, read_files

pytestmark = pytest.mark.spark

KEYS = {"events": "item_id", "quarantine": "raw"}
TABLES = ["--table", "quarantine", "--table", "events"]
STAGE = ["jobs.ingest", "--day", f"{JAN_1}", "--run-id", "r"]
AUDIT = ["expectations.audit", *TABLES, "--run-id", "r"]
PUBLISH = ["lake.publish", *TABLES, "--run-id", "r"]


def view(item: str, user: str = "u") -> dict:
    return {"user_id": user, "event_time": "2025-01-01T10:00:00Z", "behavior": "view", "item_id": item}


# The first delivery, and what comes in its place: fewer events, others, and a row that is rejected.
FIRST_DELIVERY = [view("old 1"), view("old 2"), view("old 3")]
SECOND_DELIVERY = [view("new 1"), view("new 2"), view("nobody's", user="")]


def rows() -> dict[str, list]:
    """Return what readers see."""
    return {table: read_files(Table(table), key) for table, key in KEYS.items()}


def run_without_audit(run_id: str) -> dict[str, list]:
    """Run the day undisturbed, and return what readers see then."""
    for staged in ingest.main(["--day", f"{JAN_1}", "--run-id", run_id]):
        write_verdict(Verdict(staged.table, run_id, staged.stage_id, "passed", [], "", 0.0))
        publish(staged.table, run_id)
    return rows()


def kill(module: list[str], folder: Path, sign: str) -> str:
    """Start a command, kill it with all its children, and say when.

    Args:
        module: the module to run, and its arguments.
        folder: where to look for the sign.
        sign: kill as soon as something new in `folder` matches this pattern, or a moment after; with none, at any time
            within the first ten seconds.
    """
    before, began = set(folder.glob(sign)) if sign else set(), time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", *module],
        env={**os.environ},
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    patience = 60.0 if sign else random.uniform(0, 10)
    while process.poll() is None and time.monotonic() - began < patience:
        if sign and set(folder.glob(sign)) - before:
            time.sleep(random.choice([0, 0.01, 0.1]))
            break
        time.sleep(0.001)
    lived = time.monotonic() - began
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    return f"{module[0]} after {lived:.3f} s, {sign or 'at random'}: {process.wait()}"


@pytest.fixture
def expected(spark, lake, land, tmp_path, monkeypatch) -> tuple[dict, dict]:
    """The rows before and after the run that will be killed; the lake holds those before."""
    monkeypatch.setenv("MEANDER_MAX_REJECTED_SHARE", "0.5")
    land(JAN_1, SECOND_DELIVERY)
    with monkeypatch.context() as other:
        other.setenv("MEANDER_LAKE", str(tmp_path / "undisturbed"))
        new = run_without_audit("undisturbed")
    land(JAN_1, FIRST_DELIVERY)
    old = run_without_audit("before")
    land(JAN_1, SECOND_DELIVERY)
    assert [len(old["events"]), len(old["quarantine"])] == [3, 0]
    assert [len(new["events"]), len(new["quarantine"])] == [2, 1]
    return old, new


@pytest.fixture
def seen(expected) -> Iterator[list]:
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


def test_a_run_killed_anywhere_and_run_again_ends_in_the_rows_of_an_undisturbed_run(expected, seen, lake):
    old, new = expected
    killed = []

    # Killed while Spark writes, or between the two manifests, and at any time.
    for sign in (random.choice(["lake/events/stage=*", "lake/_runs/r/events.json"]), ""):
        killed.append(kill(STAGE, lake, sign))
        assert rows() == old, killed
    ingest.main(STAGE[1:])

    # Killed when its first page stands but not its verdict.
    killed.append(kill(AUDIT, lake, "lake/_docs/r/quarantine.html"))
    assert rows() == old, killed
    audit.main(AUDIT[1:])

    # Killed at any time, and between the commits of two tables.
    for sign in ("lake/quarantine/_delta_log/*", "lake/events/_delta_log/*"):
        killed.append(kill(PUBLISH, lake, sign))
        assert all(found in (old[table], new[table]) for table, found in rows().items()), killed
    publish_main(PUBLISH[1:])

    assert rows() == new, killed
    assert all(found in (old[table], new[table]) for table, found in seen), killed
    assert ("events", old["events"]) in seen
    for table in KEYS:
        assert [commit["run_id"] for commit in Table(table).commits()] == ["r", "before"]


def test_a_publish_killed_at_any_instant_has_published_all_or_nothing(expected, lake):
    # The commit itself takes some milliseconds: a process that is ready for it says so, and is killed within them.
    old, new = expected
    staged = ingest.main(STAGE[1:])
    for part in staged:
        write_verdict(Verdict(part.table, "r", part.stage_id, "passed", [], "", 0.0))
    script = "from lake.publish import publish; print(flush=True); publish('events', 'r'); publish('quarantine', 'r')"
    for _ in range(4):
        process = subprocess.Popen([sys.executable, "-c", script], env={**os.environ}, stdout=subprocess.PIPE)
        assert process.stdout
        process.stdout.readline()
        time.sleep(random.uniform(0, 0.06))
        process.kill()
        process.wait()
        process.stdout.close()
        assert all(found in (old[table], new[table]) for table, found in rows().items())
    ended = [publish(table, "r") for table in KEYS]
    assert rows() == new, json.dumps(ended)
