"""The session rule: what it promises, and that the job and its daily runs keep to it.

Three layers, each on logs made to be difficult (tests/session_oracle.py):
the oracle keeps the promises of docs/design.md; `jobs.sessionize` agrees with the oracle; and daily runs
through a real lake, in any order and two at a time, end in the tables of one run over everything.
"""

import json
import threading
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyspark.sql import DataFrame, SparkSession

from jobs import ingest, sessionize
from jobs.sessionize import fold, mark_starts, read_window, sessions_ending_on
from lake.backfill.planner import make
from lake.landing import days_between
from lake.publish import publish
from lake.reach import changed_by
from lake.runs import summarize
from lake.schemas import EVENTS
from lake.staging import Staged, Verdict, write_verdict
from lake.table import Table
from tests.lake.stagings import files_of
from tests.session_oracle import (
    ONE_DAY,
    TICK,
    Event,
    Landed,
    Session,
    difficult_logs,
    gather,
    midnight_of,
    named,
    sessions,
)

GAP = timedelta(minutes=30)
FIRST = date(2025, 1, 1)
DAYS = 6

# How some events arrive, in days after their date: late, or twice.
LATE_OR_TWICE = ((1,), (3,), (0, 0), (0, 2), (1, 2))

one_user = difficult_logs(GAP, FIRST, DAYS).map(lambda log: [row.event for row in log])


# ---- the rule by example: the oracle itself ----


def at(*times: str) -> list[Event]:
    """Make one user's log of times like "01 23:50" (day of January 2025), named e0, e1, ... in that order."""
    return [("u", datetime.strptime(f"2025-01-{time}", "%Y-%m-%d %H:%M"), f"e{n}") for n, time in enumerate(times)]


def never_idle(begin: str, hours: int) -> list[Event]:
    """Make one user's log with an event every 20 minutes."""
    begins = datetime.strptime(f"2025-01-{begin}", "%Y-%m-%d %H:%M")
    return [("u", begins + timedelta(minutes=20) * n, f"e{n:03}") for n in range(hours * 3)]


def starts(log: list[Event], gap: timedelta = GAP) -> list[str]:
    """Return when the sessions of a log start."""
    times = {event_id: time for _, time, event_id in log}
    return [f"{times[events[0]]:%d %H:%M}" for _, events in sessions(log, gap)]


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        pytest.param([], [], id="no events, no sessions"),
        pytest.param(at("01 10:00", "01 10:30"), ["01 10:00"], id="a pause of exactly the gap stays inside"),
        pytest.param(at("01 10:00", "01 10:31"), ["01 10:00", "01 10:31"], id="a longer pause cuts"),
        pytest.param(at("01 23:50", "02 00:10"), ["01 23:50"], id="midnight alone does not cut"),
        pytest.param(never_idle("01 12:00", 36), ["01 12:00"], id="one night through: one session of 36 hours"),
        pytest.param(never_idle("01 12:00", 37), ["01 12:00", "03 00:00"], id="a second midnight cuts"),
        pytest.param(never_idle("01 12:00", 80), ["01 12:00", "03 00:00", "04 00:00"], id="then every midnight"),
        pytest.param(never_idle("01 00:00", 49), ["01 00:00", "03 00:00"], id="begun at midnight is not before it"),
        pytest.param(
            at("01 23:59") + never_idle("02 00:00", 25)[1:],
            ["01 23:59", "03 00:00"],
            id="a minute before midnight is",
        ),
    ],
)
def test_where_sessions_start(log, expected):
    assert starts(log) == expected


def test_ties_are_in_the_order_of_event_ids():
    noon = datetime(2025, 1, 1, 12)
    assert sessions([("u", noon, "b"), ("u", noon, "a"), ("u", noon, "c")], GAP) == [("u", ("a", "b", "c"))]


def test_an_event_that_comes_twice_counts_once():
    log = at("01 10:00", "01 10:10")
    assert sessions(log + log[:1], GAP) == sessions(log, GAP)


def test_users_do_not_meet():
    log = at("01 10:00", "01 10:10")
    assert sessions([*log, ("v", log[0][1], "f0")], GAP) == [("u", ("e0", "e1")), ("v", ("f0",))]


# ---- the rule's promises, on any log ----


@given(one_user)
def test_every_event_is_in_exactly_one_session_and_in_order(log):
    told = [event_id for _, events in sessions(log, GAP) for event_id in events]
    assert told == [event_id for _, event_id in sorted((time, event_id) for _, time, event_id in log)]


@given(one_user, st.sampled_from([TICK, GAP, timedelta(hours=5), ONE_DAY]))
def test_a_session_has_no_long_pause_crosses_one_midnight_at_most_and_lasts_less_than_48_hours(log, gap):
    times = {event_id: time for _, time, event_id in log}
    for _, events in sessions(log, gap):
        span = [times[event_id] for event_id in events]
        assert all(b - a <= gap for a, b in pairwise(span))
        assert (midnight_of(span[-1]) - midnight_of(span[0])) <= ONE_DAY
        assert span[-1] - span[0] < 2 * ONE_DAY


@given(one_user)
def test_sessions_are_apart_by_a_long_pause_or_by_a_midnight_after_a_full_day(log):
    times = {event_id: time for _, time, event_id in log}
    found = [[times[event_id] for event_id in events] for _, events in sessions(log, GAP)]
    for before, after in pairwise(found):
        if after[0] - before[-1] <= GAP:
            midnight = midnight_of(after[0])
            assert before[-1] < midnight
            day_before = [time for time in sorted(times.values()) if time < midnight][::-1]
            awake = next((a for a, b in pairwise(day_before) if a - b > GAP), day_before[-1])
            assert awake < midnight - ONE_DAY


@given(one_user)
def test_the_sessions_of_a_day_depend_on_the_events_around_it_alone(log):
    whole_log = by_last_day(log)
    for n in range(DAYS):
        day = FIRST + n * ONE_DAY
        midnight = datetime.combine(day, datetime.min.time())
        seen = [e for e in log if midnight - ONE_DAY - GAP <= e[1] < midnight + ONE_DAY + GAP]
        assert by_last_day(seen).get(day, []) == whole_log.get(day, [])


@given(one_user, st.integers(0))
def test_an_event_changes_the_days_from_the_one_before_to_the_second_after_alone(log, which):
    if not log:
        return
    event = log[which % len(log)]
    midnight = midnight_of(event[1])
    near = [midnight.date() + n * ONE_DAY for n in (0, 1)]
    if event[1] < midnight + GAP:
        near.append(midnight.date() - ONE_DAY)
    if event[1] >= midnight + ONE_DAY - GAP:
        near.append(midnight.date() + 2 * ONE_DAY)

    before, after = by_last_day([e for e in log if e != event]), by_last_day(log)
    changed = {day for day in before.keys() | after.keys() if before.get(day) != after.get(day)}
    assert changed <= set(near)


def by_last_day(log: list[Event]) -> dict[date, list[tuple[str, tuple[str, ...]]]]:
    """Return the sessions of a log by the date of their last event."""
    times = {event_id: time for _, time, event_id in log}
    days: dict[date, list[tuple[str, tuple[str, ...]]]] = {}
    for session in sessions(log, GAP):
        days.setdefault(times[session[1][-1]].date(), []).append(session)
    return days


# ---- jobs.sessionize against the oracle ----


def events_table(spark: SparkSession, log: list[Landed]) -> DataFrame:
    """Make rows of `events`: one for each event and landing day."""
    what = ("view", "i", "c", None, None, "test", 1)
    rows = {(row.event_id, row.user_id, row.event_time, *what, row.event_time.date(), row.landed) for row in log}
    return spark.createDataFrame(sorted(rows), EVENTS)


def told(frame: DataFrame) -> list[Session]:
    """Return sessions as the oracle tells them."""
    rows = frame.select("user_id", "start_time", "events.event_id").collect()
    # A session that starts at a tie with the end of the one before sorts by its ids, as the oracle's do.
    ordered = sorted((row.user_id, row.start_time, tuple(row.event_id)) for row in rows)
    return [(user, events) for user, _, events in ordered]


def require_same(found: list[Session], log: list[Landed], gap: timedelta) -> None:
    """Compare with the oracle user by user, and show the shortest log on which the two differ."""
    by_user: dict[str, list[Event]] = defaultdict(list)
    for row in log:
        by_user[row.user_id].append(row.event)
    found_by_user: dict[str, list[Session]] = defaultdict(list)
    for session in found:
        found_by_user[session[0]].append(session)
    wrong = [user for user, events in by_user.items() if found_by_user[user] != sessions(events, gap)]
    if wrong:
        user = min(wrong, key=lambda user: len(by_user[user]))
        pytest.fail(
            f"{len(wrong)} of {len(by_user)} users differ from the oracle; the shortest log:\n"
            + "\n".join(f"{time.isoformat()} {event_id}" for _, time, event_id in sorted(by_user[user]))
            + f"\nexpected {sessions(by_user[user], gap)}\nfound    {found_by_user[user]}"
        )
    assert set(found_by_user) == set(by_user)


@pytest.fixture(scope="module")
def many_logs() -> list[Landed]:
    """The logs of 300 users, and one that chance seldom makes: a late event before a long chain."""
    by_hand = [Landed("", time, event_id, time.date()) for _, time, event_id in never_idle("02 00:05", 30)]
    by_hand.append(Landed("", datetime(2025, 1, 1, 23, 45), "late", FIRST + 3 * ONE_DAY))
    return named([*gather(difficult_logs(GAP, FIRST, DAYS, LATE_OR_TWICE), 300), by_hand])


@pytest.mark.spark
@pytest.mark.parametrize("gap", [GAP, timedelta(hours=5), ONE_DAY], ids=str)
def test_the_job_agrees_with_the_oracle(spark, gap):
    log = named(gather(difficult_logs(gap, FIRST, 10, LATE_OR_TWICE), 300))
    require_same(told(fold(mark_starts(events_table(spark, log), gap))), log, gap)


@pytest.mark.spark
def test_each_day_by_itself_from_the_events_around_it_adds_up_to_the_oracle(spark, many_logs):
    events = events_table(spark, many_logs).cache()
    found = []
    for day in days_between(FIRST, FIRST + DAYS * ONE_DAY):
        start, end = (edge.replace(tzinfo=None) for edge in read_window(day, day, GAP))
        seen = events.where((events.event_time >= start) & (events.event_time < end))
        found.append(sessions_ending_on(seen, [day], GAP).select("user_id", "start_time", "events"))
    together = found[0]
    for day in found[1:]:
        together = together.unionAll(day)
    require_same(told(together), many_logs, GAP)
    events.unpersist()


def test_what_lands_on_a_day_changes_no_partition_but_those_that_are_staged_again(many_logs):
    # Each user lives in weeks of their own, so that no partition is staged again for somebody else's sake.
    apart = [
        Landed(row.user_id, row.event_time + shift, row.event_id, row.landed)
        for row in many_logs
        for shift in [int(row.user_id[1:]) * 20 * ONE_DAY]
    ]
    by_user: dict[str, list[Landed]] = defaultdict(list)
    for row in apart:
        by_user[row.user_id].append(row)
    for day in days_between(FIRST, FIRST + (DAYS + 3) * ONE_DAY):
        staged_again = changed_by(files_of(row.event_time for row in apart if row.landed == day), GAP)
        for user, log in by_user.items():
            before = by_last_day([row.event for row in log if row.landed < day])
            after = by_last_day([row.event for row in log if row.landed <= day])
            changed = {dt for dt in before.keys() | after.keys() if before.get(dt) != after.get(dt)}
            assert changed <= staged_again.keys(), f"{user}, what landed on {day}"


# ---- daily runs through a real lake ----

LAST = FIRST + 3 * ONE_DAY
LANDING_DAYS = days_between(FIRST, LAST)


@pytest.fixture(scope="module")
def landed_logs() -> list[Landed]:
    """The logs of 40 users over four days; what is late on the last day lands on it."""
    log = named(gather(difficult_logs(GAP, FIRST, len(LANDING_DAYS), LATE_OR_TWICE), 40))
    return [Landed(row.user_id, row.event_time, row.event_id, min(row.landed, LAST)) for row in log]


def deliver(log: list[Landed], landing: Path) -> None:
    """Write a log as landing files of the `canonical` source; `item_id` keeps the name of an event."""
    by_day: dict[date, list[str]] = {day: [] for day in LANDING_DAYS}
    for row in log:
        fields = {"user_id": row.user_id, "event_time": f"{row.event_time.isoformat()}Z", "behavior": "view"}
        by_day[row.landed].append(json.dumps({**fields, "item_id": row.event_id}) + "\n")
    for day, lines in by_day.items():
        folder = landing / f"dt={day}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "log.jsonl").write_text("".join(lines))


class Lake:
    """A lake and a landing area of its own, in which the settings point once it is opened."""

    def __init__(self, folder: Path, log: list[Landed]):
        self.folder = folder
        deliver(log, folder / "landing")

    def open(self, patch: pytest.MonkeyPatch) -> "Lake":
        for name in ("lake", "landing"):
            patch.setenv(f"MEANDER_{name.upper()}", str(self.folder / name))
        patch.setenv("MEANDER_SOURCE", "canonical")
        return self


def rows_of(spark: SparkSession, table: str) -> list[tuple]:
    """Return all rows of a published table, in an order of their own."""
    return sorted(map(tuple, Table(table).read(spark).collect()), key=repr)


def require_lake_tells(spark: SparkSession, log: list[Landed]) -> None:
    """Compare the published sessions with the oracle, told the ids that ingest gave to the events."""
    ids = dict(Table("events").read(spark).select("item_id", "event_id").collect())
    renamed = [Landed(row.user_id, row.event_time, ids[row.event_id], row.landed) for row in log]
    require_same(told(Table("sessions").read(spark)), renamed, GAP)


def pass_audit(staged: Staged) -> None:
    """Stand in for expectations.audit, which has its own tests and takes longer than all the rest."""
    write_verdict(Verdict(staged.table, staged.run_id, staged.stage_id, "passed", [], "", 0.0))


def stage_events(*days: date, run_id: str) -> None:
    for staged in ingest.main(["--from", str(days[0]), "--to", str(days[-1]), "--run-id", run_id]):
        pass_audit(staged)


def stage_sessions(*days: date, run_id: str) -> None:
    pass_audit(sessionize.main(["--from", str(days[0]), "--to", str(days[-1]), "--run-id", run_id]))


def run(*days: date, run_id: str) -> None:
    """Take the daily steps for one day, or for all days from the first to the last at once."""
    stage_events(*days, run_id=run_id)
    publish("events", run_id)
    stage_sessions(*days, run_id=run_id)
    publish("sessions", run_id)


@pytest.fixture(scope="module")
def expected(spark, landed_logs, tmp_path_factory) -> dict[str, list[tuple]]:
    """The tables after one run over everything."""
    with pytest.MonkeyPatch.context() as patch:
        Lake(tmp_path_factory.mktemp("range"), landed_logs).open(patch)
        run(*LANDING_DAYS, run_id="range")
        require_lake_tells(spark, landed_logs)
        return {table: rows_of(spark, table) for table in ("events", "sessions")}


@pytest.mark.spark
@pytest.mark.parametrize(
    "order",
    [
        pytest.param([0, 1, 2, 3], id="forward"),
        pytest.param([3, 2, 1, 0], id="backward"),
        pytest.param([2, 0, 3, 2, 1, 0], id="shuffled, some repeated"),
    ],
)
def test_daily_runs_in_any_order_end_in_the_tables_of_one_run(
    spark, landed_logs, expected, tmp_path, monkeypatch, order
):
    Lake(tmp_path, landed_logs).open(monkeypatch)
    for n, day in enumerate(order):
        run(LANDING_DAYS[day], run_id=f"run {n}")
    assert rows_of(spark, "events") == expected["events"]
    assert rows_of(spark, "sessions") == expected["sessions"]


@pytest.mark.spark
def test_a_day_delivered_again_with_other_rows_ends_in_the_tables_of_one_run(
    spark, landed_logs, expected, tmp_path, monkeypatch
):
    # At first every other user's rows are missing, and there are rows that will be taken back.
    too_few = [row for row in landed_logs if int(row.user_id[1:]) % 2]
    too_many = [Landed(f"x{row.user_id}", row.event_time, f"x{row.event_id}", row.landed) for row in too_few]
    lake = Lake(tmp_path, too_few + too_many).open(monkeypatch)
    run(*LANDING_DAYS, run_id="range")
    deliver(landed_logs, lake.folder / "landing")
    for day in LANDING_DAYS:
        run(day, run_id=f"again {day}")
    assert rows_of(spark, "events") == expected["events"]
    assert rows_of(spark, "sessions") == expected["sessions"]


def sparse(*rows: tuple[str, int]) -> list[Landed]:
    """Make one user's log of (time such as "01 23:50", day of January 2025 on which it landed)."""
    return [
        Landed("u", datetime.strptime(f"2025-01-{time}", "%Y-%m-%d %H:%M"), f"e{n}", date(2025, 1, landed))
        for n, (time, landed) in enumerate(rows)
    ]


@pytest.mark.spark
@pytest.mark.parametrize("order", [pytest.param([1, 2, 4], id="forward"), pytest.param([4, 2, 1], id="backward")])
def test_an_event_as_late_as_is_allowed_is_put_into_the_session_it_joins(spark, tmp_path, monkeypatch, order):
    # It lies just after midnight, so it moves a session out of a partition that is one day older than itself.
    log = sparse(("01 23:50", 1), ("02 00:10", 4), ("02 12:00", 2), ("04 12:00", 4))
    Lake(tmp_path, log).open(monkeypatch)
    monkeypatch.setenv("MEANDER_LATE_DAYS", "2")
    for day in order:
        run(date(2025, 1, day), run_id=f"run {day}")
    require_lake_tells(spark, log)


@pytest.mark.spark
def test_an_event_later_than_is_allowed_is_named_and_a_restatement_puts_it_in(spark, tmp_path, monkeypatch, caplog):
    log = sparse(("01 12:00", 1), ("01 12:10", 4), ("04 12:00", 4))
    Lake(tmp_path, log).open(monkeypatch)
    monkeypatch.setenv("MEANDER_LATE_DAYS", "2")
    run(date(2025, 1, 1), run_id="first")
    run(date(2025, 1, 4), run_id="fourth")
    assert "late events changed sessions of 2025-01-01, older than MEANDER_LATE_DAYS=2" in caplog.text
    stage_sessions(FIRST, run_id="restate")
    publish("sessions", "restate")
    require_lake_tells(spark, log)


@pytest.mark.spark
def test_a_run_that_is_repeated_stages_what_it_did_at_first(spark, tmp_path, monkeypatch):
    # The first run leaves the late event of the 1st, which can change the 2nd too, to a backfill. If the repetition
    # took the event of the 4th for one near midnight, it would restate the 3rd, and with that one both.
    Lake(tmp_path, sparse(*((f"0{day} 12:00", day) for day in (1, 2, 3, 4)), ("01 12:10", 4))).open(monkeypatch)
    monkeypatch.setenv("MEANDER_LATE_DAYS", "0")
    for day in (1, 2, 3, 4):
        run(date(2025, 1, day), run_id=f"run {day}")
    once = rows_of(spark, "sessions")
    run(date(2025, 1, 4), run_id="again")
    assert rows_of(spark, "sessions") == once


@pytest.mark.spark
@pytest.mark.parametrize(
    ("late_days", "log"),
    [
        pytest.param(
            "2",
            # The first late event is too late, the second is not: both change the session across the midnight.
            sparse(("01 23:40", 1), ("02 00:15", 2), ("01 23:50", 4), ("02 12:00", 4), ("04 12:00", 4)),
            id="a neighbour that is restated draws in the partition before it",
        ),
        pytest.param(
            "0",
            sparse(("01 23:30", 1), ("01 23:50", 2), ("02 00:10", 2)),
            id="so does the day of the run itself",
        ),
    ],
)
def test_no_event_stands_in_two_sessions_however_late_it_is(spark, tmp_path, monkeypatch, late_days, log):
    Lake(tmp_path, log).open(monkeypatch)
    monkeypatch.setenv("MEANDER_LATE_DAYS", late_days)
    for day in sorted({row.landed for row in log}):
        run(day, run_id=f"run {day}")
    require_lake_tells(spark, log)


@pytest.mark.spark
def test_a_late_event_that_is_taken_back_leaves_its_session(spark, tmp_path, monkeypatch):
    log = sparse(("01 12:00", 1), ("01 12:10", 3), ("02 12:00", 2), ("03 12:00", 3))
    lake = Lake(tmp_path, log).open(monkeypatch)
    for day in (1, 2, 3):
        run(date(2025, 1, day), run_id=f"run {day}")
    without_it = [row for row in log if row.event_id != "e1"]
    deliver(without_it, lake.folder / "landing")
    run(date(2025, 1, 3), run_id="delivered again")
    require_lake_tells(spark, without_it)


def stage_two_runs() -> None:
    """Stage the sessions of two runs, each from the events that are published when its turn comes."""
    stage_events(*LANDING_DAYS[:2], run_id="older")
    stage_events(*LANDING_DAYS[2:], run_id="newer")
    publish("events", "older")
    stage_sessions(*LANDING_DAYS[:2], run_id="older")
    publish("events", "newer")
    # What landed later holds late events of the first two days, so the newer run stages these too.
    stage_sessions(*LANDING_DAYS[2:], run_id="newer")


@pytest.mark.spark
@pytest.mark.parametrize(
    ("order", "overtaken"),
    [
        pytest.param(["older", "newer"], [], id="in turn"),
        pytest.param(["newer", "older"], LANDING_DAYS[:2], id="overtaken"),
    ],
)
def test_of_two_runs_the_one_that_saw_more_wins(spark, landed_logs, expected, tmp_path, monkeypatch, order, overtaken):
    Lake(tmp_path, landed_logs).open(monkeypatch)
    stage_two_runs()

    refused = {run_id: publish("sessions", run_id)["refused"] for run_id in order}

    assert refused["newer"] == []
    assert [day for day in refused["older"] if day <= str(LANDING_DAYS[1])] == list(map(str, overtaken))
    assert rows_of(spark, "sessions") == expected["sessions"]


@pytest.mark.spark
def test_two_runs_that_publish_at_the_same_instant_end_in_the_tables_of_one_run(
    spark, landed_logs, expected, tmp_path, monkeypatch
):
    Lake(tmp_path, landed_logs).open(monkeypatch)
    stage_two_runs()

    ready = threading.Barrier(2)

    def publish_now(run_id: str) -> dict:
        ready.wait(timeout=10)
        return publish("sessions", run_id)

    with ThreadPoolExecutor(max_workers=2) as pool:
        reports = list(pool.map(publish_now, ("older", "newer")))

    assert reports[1]["refused"] == []
    assert rows_of(spark, "sessions") == expected["sessions"]


@pytest.mark.spark
def test_an_ingest_that_was_overtaken_by_a_later_one_of_its_day_is_refused(
    spark, landed_logs, expected, tmp_path, monkeypatch
):
    half = [row for row in landed_logs if int(row.user_id[1:]) % 2]
    lake = Lake(tmp_path, half).open(monkeypatch)
    stage_events(*LANDING_DAYS, run_id="before the rest came")
    deliver(landed_logs, lake.folder / "landing")
    run(*LANDING_DAYS, run_id="after")

    report = publish("events", "before the rest came")

    assert report["refused"] == [str(day) for day in LANDING_DAYS]
    assert rows_of(spark, "events") == expected["events"]
    assert rows_of(spark, "sessions") == expected["sessions"]


@pytest.mark.spark
def test_the_plan_for_late_data_restates_exactly_what_the_runs_had_to_leave(spark, tmp_path, monkeypatch):
    # On the fourth day, two events of the first arrive, of which one joins a session across the midnight.
    times = (("01 12:00", 1), ("01 23:50", 1), ("02 00:05", 2), ("01 12:10", 4), ("01 23:58", 4), ("04 12:00", 4))
    log = sparse(*times)
    Lake(tmp_path, log).open(monkeypatch)
    monkeypatch.setenv("MEANDER_LATE_DAYS", "1")
    for day in (1, 2, 4):
        run(date(2025, 1, day), run_id=f"run {day}")
    plan = make("late-data")
    assert [str(entry.day) for entry in plan.redo] == ["2025-01-01", "2025-01-02"]
    assert [day for summary in summarize() for day in summary.postponed] == ["2025-01-01", "2025-01-02"]
    # One run stages both.
    (planned,) = plan.runs
    assert (planned.day, planned.tables) == (FIRST, ("sessions",))
    stage_sessions(planned.day, run_id="plan")
    publish("sessions", "plan")
    require_lake_tells(spark, log)
    assert make("late-data").redo == []
