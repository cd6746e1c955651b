"""Small input is worked on in one task: by fewer jobs of Spark, and to the same rows."""

import gzip
from datetime import UTC, date, datetime, timedelta

import pytest

from jobs import ingest, interests, sessionize
from jobs.arguments import job_parser, parse_run
from lake import small
from lake.settings import settings
from tests.jobs import naive
from tests.jobs.tables import publish_log, publish_staged, published_rows, staged_rows

pytestmark = pytest.mark.spark

MOST = small.ONE_TASK_BYTES
FIRST = date(2025, 1, 1)
DAYS = [FIRST + timedelta(days=n) for n in range(2)]


@pytest.fixture(autouse=True)
def _as_in_production(spark, monkeypatch):
    """Other tests exchange their few rows."""
    monkeypatch.setattr(small, "ONE_TASK_BYTES", MOST)


def jobs_of(spark, work):
    """Return how many jobs of Spark some work starts, and what it returns."""
    tracker = spark.sparkContext.statusTracker()
    before = set(tracker.getJobIdsForGroup(None))
    found = work()
    return len(set(tracker.getJobIdsForGroup(None)) - before), found


def delivery(day):
    """Return what lands on a day: of 40 users, with a repeat, a late event, and two rows that are rejected."""
    rows = [
        {
            "event_time": f"{day}T{(7 * n) % 24:02}:{n % 60:02}:00Z",
            "user_id": f"u{n % 40}",
            "behavior": ("view", "cart", "purchase")[n % 3],
            "item_id": f"i{n % 7}",
            "category_id": f"c{n % 3}" if n % 5 else None,
            "price": f"{n}.25",
        }
        for n in range(120)
    ]
    late = {**rows[0], "event_time": f"{day - timedelta(days=1)}T23:50:00Z"}
    return [*rows, rows[0], late, {**rows[1], "behavior": "stare"}, "no json"]


def loaded(days):
    """Take days to readers, and return the rows of all four tables, in one order."""
    for day in days:
        args = ["--day", str(day), "--run-id", f"run {day}"]
        for staged in ingest.main(args):
            publish_staged(staged)
        for job in (sessionize, interests):
            publish_staged(job.main(args))
    return {
        table: sorted(map(str, published_rows(table))) for table in ("quarantine", "events", "sessions", "interests")
    }


def test_a_small_day_has_the_rows_of_a_large_one(lake, land, spark, monkeypatch):
    for day in DAYS:
        # Several files, of which Spark makes several partitions, and one of which is packed.
        rows = delivery(day)
        for n in range(3):
            land(day, rows[n::4], f"{n}.jsonl")
        packed = land(day, rows[3::4], "3.jsonl")
        packed.with_suffix(".jsonl.gz").write_bytes(gzip.compress(packed.read_bytes()))
        packed.unlink()
    in_one_task = loaded(DAYS)
    monkeypatch.setenv("MEANDER_LAKE", str(lake / "another"))
    monkeypatch.setattr(small, "ONE_TASK_BYTES", 0)
    assert loaded(DAYS) == in_one_task
    # 120 rows and a late one a day; a row that is there twice is one event.
    assert len(in_one_task["events"]) == 2 * 121
    assert len(in_one_task["quarantine"]) == 2 * 2


def test_few_events_are_cut_by_one_job_and_many_are_exchanged_first(lake, spark, monkeypatch):
    noon = datetime(2025, 1, 1, 12, tzinfo=UTC)
    publish_log([naive.event(f"e{n:02}", f"u{n % 3}", noon + timedelta(minutes=9 * n)) for n in range(50)])
    few, of_few = jobs_of(spark, lambda: sessionize.main(["--day", str(FIRST), "--run-id", "few"]))
    assert few == 1
    monkeypatch.setattr(small, "ONE_TASK_BYTES", 0)
    many, of_many = jobs_of(spark, lambda: sessionize.main(["--day", str(FIRST), "--run-id", "many"]))
    assert many > 1
    assert sorted(map(str, staged_rows(of_many))) == sorted(map(str, staged_rows(of_few)))


def test_few_rows_of_several_files_are_written_by_one_task(lake, land, spark, monkeypatch):
    for n, row in enumerate(delivery(FIRST)[:3]):
        land(FIRST, [row], f"{n}.jsonl")
    args = ["--day", str(FIRST), "--run-id"]
    few, (of_few, _) = jobs_of(spark, lambda: ingest.main([*args, "few"]))
    monkeypatch.setattr(small, "ONE_TASK_BYTES", 0)
    many, (of_many, _) = jobs_of(spark, lambda: ingest.main([*args, "many"]))
    assert few < many
    assert sorted(map(str, staged_rows(of_few))) == sorted(map(str, staged_rows(of_many)))
    assert len(staged_rows(of_few)) == 3


def test_packed_files_count_as_what_is_in_them(lake, land, monkeypatch):
    plain = land(FIRST, delivery(FIRST)[:50], "a.jsonl")
    packed = plain.with_name("a.jsonl.gz")
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    run, _ = parse_run(job_parser("jobs.ingest", ""), ["--day", str(FIRST), "--run-id", "r"])
    assert ingest.find_input(run, settings()).bytes == plain.stat().st_size + 10 * packed.stat().st_size


def test_rows_of_small_files_are_in_one_partition(spark):
    rows = spark.range(0, 10, 1, 4)
    assert [small.in_one_task(rows, size).rdd.getNumPartitions() for size in (MOST - 1, MOST)] == [1, 4]


def test_what_is_small_is_told_by_bytes():
    assert small.is_small(4 * 1024 * 1024 - 1)
    assert not small.is_small(4 * 1024 * 1024)
