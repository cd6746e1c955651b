"""The session rule: what it promises, and that the job and its daily runs keep to it.

Four layers, each on logs made to be difficult (tests/session_oracle.py): the oracle keeps the promises of
docs/design.md; `jobs.sessionize` agrees with the oracle; what runs stage ends, in any order and two at a time, in the
tables of one run over everything (without Spark: the oracle cuts the sessions); and so does the whole job on a lake.
"""

import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from tempfile import TemporaryDirectory

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.pandas.types import to_arrow_schema

from jobs import copied_sessions, sessionize
from jobs.sessionize import days_to_stage, read_window, sessions_of
from lake.backfill.planner import plan_backfill
from lake.days import days_between
from lake.publish import publish
from lake.reach import changed_by
from lake.runs import summarize
from lake.schemas import EVENTS
from lake.settings import settings
from lake.table import Table
from tests.jobs.tables import publish_staged, published_rows
from tests.lake.stagings import files_of, stage_files
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

# How some events arrive, in days after their date: late, early, or twice.
LATE_OR_TWICE = ((1,), (3,), (0, 0), (0, 2), (1, 2), (-1,), (-1, 0), (-1, 1))

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


# Who never sleeps is cut for an event of the gap before the day before.
@example(never_idle("01 23:35", 50))
@given(one_user)
def test_the_sessions_of_a_day_depend_on_the_events_of_its_window_alone(log):
    whole_log = by_last_day(log)
    for n in range(DAYS):
        day = FIRST + n * ONE_DAY
        start, end = (edge.replace(tzinfo=None) for edge in read_window(day, day, GAP))
        seen = [e for e in log if start <= e[1] < end]
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


def rows_of_events(log: Iterable[Landed]) -> list[dict]:
    """Make rows of `events`: one for each event and landing day."""
    what = {"behavior": "view", "item_id": "i", "category_id": "c", "source": "test", "copies": 1}
    unique = {(row.event_id, row.landed): row for row in log}
    return [
        {**what, "event_id": row.event_id, "user_id": row.user_id, "event_time": row.event_time.replace(tzinfo=UTC)}
        | {"dt": row.event_time.date(), "landed": row.landed}
        for row in unique.values()
    ]


def told(frame: DataFrame) -> list[Session]:
    """Return sessions as the oracle tells them."""
    rows = frame.select("user_id", "start_time", "events.event_id").collect()
    # A session that starts at a tie with the end of the one before sorts by its ids, as the oracle's do.
    ordered = sorted((row.user_id, row.start_time, tuple(row.event_id)) for row in rows)
    return [(user, events) for user, _, events in ordered]


def require_same(found: Iterable[Session], log: Iterable[Landed], gap: timedelta) -> None:
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


@pytest.mark.spark
@pytest.mark.parametrize("gap", [GAP, ONE_DAY], ids=str)
def test_the_job_agrees_with_the_oracle(spark: SparkSession, gap):
    log = named(gather(difficult_logs(gap, FIRST, 10, LATE_OR_TWICE), 10))
    rows = pa.Table.from_pylist(rows_of_events(log), to_arrow_schema(EVENTS))
    require_same(told(sessions_of(spark.createDataFrame(rows), gap)), log, gap)


# ---- what a run stages ----


# Chance seldom makes it.
late_before_a_long_chain = [
    *(Landed("", time, event_id, time.date()) for _, time, event_id in never_idle("02 00:05", 30)),
    Landed("", datetime(2025, 1, 1, 23, 45), "late", FIRST + 3 * ONE_DAY),
]


@given(difficult_logs(GAP, FIRST, DAYS, LATE_OR_TWICE))
@example(late_before_a_long_chain)
def test_what_lands_on_a_day_changes_no_partition_but_those_that_are_staged_again(log):
    for day in days_between(FIRST, FIRST + (DAYS + 3) * ONE_DAY):
        # What came before its date is in sessions since the run of its date.
        since = {row: max(row.landed, row.event_time.date()) for row in log}
        staged_again = changed_by(files_of(row.event_time for row in log if since[row] == day), GAP)
        before = by_last_day([row.event for row in log if since[row] < day])
        after = by_last_day([row.event for row in log if since[row] <= day])
        changed = {dt for dt in before.keys() | after.keys() if before.get(dt) != after.get(dt)}
        assert changed <= staged_again.keys(), f"what landed on {day}"


class Shop:
    """A lake and what lands in it. A run here decides as the job does what it stages; the oracle cuts the sessions."""

    def __init__(self, log: list[Landed]):
        self.deliver(log)
        self.number = 0

    def deliver(self, log: list[Landed]) -> None:
        """Let another log have landed."""
        self.log = log

    def stage_events(self, *days: date) -> str:
        """Stage what landed on these days, as newer than whatever was staged before, and return the run's id."""
        self.number += 1
        rows = rows_of_events(row for row in self.log if row.landed in days)
        stage_files("events", f"run {self.number}", rows, list(days), self.number)
        return f"run {self.number}"

    def stage_sessions(self, first: date, last: date, run_id: str) -> None:
        """Stage the sessions of a run, from the events that are published now."""
        events, gap = Table("events"), timedelta(minutes=settings().session_gap_minutes)
        days, postponed = days_to_stage(events, days_between(first, last), settings())
        start, end = read_window(days[0], days[-1], gap)
        known = [row for row in published_rows("events") if row["dt"] <= row["landed"] or events.basis(row["dt"])]
        seen = {row["event_id"]: row for row in known if start <= row["event_time"] < end}
        found = sessions(((row["user_id"], row["event_time"], name) for name, row in seen.items()), gap)
        rows = [
            {"user_id": user, "events": [{"event_id": name} for name in ids], "dt": seen[ids[-1]]["dt"]}
            for user, ids in found
        ]
        stage_files(
            "sessions", run_id, [row for row in rows if row["dt"] in days], days, events.version,
            counts={"postponed": [str(day) for day in postponed]}, inputs={"events": events.version},
        )  # fmt: skip

    def run(self, *days: date) -> None:
        """Take the daily steps for one day, or for all of some days at once."""
        run_id = self.stage_events(*days)
        publish("events", run_id)
        self.stage_sessions(days[0], days[-1], run_id)
        publish("sessions", run_id)

    def require_right(self) -> None:
        """Compare the published tables with what has landed, and sessions with the oracle."""
        landed = {(row.event_id, row.landed) for row in self.log}
        assert {(row["event_id"], row["landed"]) for row in published_rows("events")} == landed
        times = {row.event_id: row.event_time for row in self.log}
        found = []
        for row in published_rows("sessions"):
            ids = tuple(event["event_id"] for event in row["events"])
            assert row["dt"] == times[ids[-1]].date(), "the partition of its last event"
            found.append((times[ids[0]], ids, row["user_id"]))
        require_same(((user, ids) for _, ids, user in sorted(found)), self.log, GAP)


LANDING_DAYS = days_between(FIRST, FIRST + 2 * ONE_DAY)


@st.composite
def deliveries(draw: st.DrawFn) -> tuple[list[Landed], list[Landed], list[date]]:
    """Make what landed at first, if anything, what lands at last, and an order of days in which the latter is run."""
    logs = draw(st.lists(difficult_logs(GAP, FIRST, len(LANDING_DAYS), LATE_OR_TWICE), min_size=1, max_size=3))
    # What is late on the last day lands on it, and what is early on the first on that.
    log = [
        Landed(row.user_id, row.event_time, row.event_id, min(max(row.landed, FIRST), LANDING_DAYS[-1]))
        for row in named(logs)
    ]
    order = draw(st.permutations(LANDING_DAYS))
    again = draw(st.lists(st.sampled_from(LANDING_DAYS), max_size=1))
    at_first = draw(st.sampled_from([[], not_yet_right(log, 2), not_yet_right(log, 3)]))
    return at_first, log, [*order, *again]


def not_yet_right(log: list[Landed], one_in: int) -> list[Landed]:
    """Return a log of which most rows are missing, and in which there are others that will be taken back."""
    too_few = log[::one_in]
    return too_few + [Landed(f"x{row.user_id}", row.event_time, f"x{row.event_id}", row.landed) for row in too_few]


@contextmanager
def empty_lake() -> Iterator[None]:
    """Point the settings at an empty lake, of which a test may need several."""
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEANDER_LAKE", folder)
        yield


@given(deliveries())
def test_runs_in_any_order_also_of_days_delivered_again_end_in_the_tables_of_one_run(made):
    at_first, at_last, order = made
    with empty_lake():
        shop = Shop(at_first)
        if at_first:
            shop.run(*LANDING_DAYS)
            shop.require_right()
        shop.deliver(at_last)
        for day in order:
            shop.run(day)
        shop.require_right()


def sparse(*rows: tuple[str, int]) -> list[Landed]:
    """Make one user's log of (time such as "01 23:50", day of January 2025 on which it landed)."""
    return [
        Landed("u", datetime.strptime(f"2025-01-{time}", "%Y-%m-%d %H:%M"), f"e{n}", date(2025, 1, landed))
        for n, (time, landed) in enumerate(rows)
    ]


def january(*days: int) -> list[date]:
    return [date(2025, 1, day) for day in days]


@pytest.mark.parametrize("order", [pytest.param([1, 2, 4], id="forward"), pytest.param([4, 2, 1], id="backward")])
def test_an_event_as_late_as_is_allowed_is_put_into_the_session_it_joins(lake, monkeypatch, order):
    # It lies just after midnight, so it moves a session out of a partition that is one day older than itself.
    monkeypatch.setenv("MEANDER_LATE_DAYS", "2")
    shop = Shop(sparse(("01 23:50", 1), ("02 00:10", 4), ("02 12:00", 2), ("04 12:00", 4)))
    for day in january(*order):
        shop.run(day)
    shop.require_right()


@pytest.mark.parametrize("order", [pytest.param([1, 2], id="forward"), pytest.param([2, 1], id="backward")])
def test_an_event_that_lands_before_its_date_waits_for_the_landing_day_of_it(lake, order):
    # A folder of New York has the evening of the 1st there: two of its events are of 2 January UTC.
    shop = Shop(sparse(("01 23:50", 1), ("02 00:10", 1), ("02 03:00", 1), ("02 12:00", 2)))
    shop.run(january(order[0])[0])
    # Of a date that has not landed itself no session is published, nor does one reach into it.
    alone = {1: [(FIRST, ["e0"])], 2: [(january(2)[0], ["e3"])]}
    assert by_ids(published_rows("sessions")) == alone[order[0]]
    assert Table("sessions").basis(january(3 - order[0])[0]) is None, "no run has published it, not even empty"
    assert plan_backfill(settings(), "late-data").redo == []
    shop.run(january(order[1])[0])
    second = january(2)[0]
    assert by_ids(published_rows("sessions")) == [(second, ["e0", "e1"]), (second, ["e2"]), (second, ["e3"])]
    shop.require_right()


def test_an_event_that_landed_before_its_date_and_is_taken_back_leaves_its_session(lake):
    log = sparse(("01 23:50", 1), ("02 00:10", 1), ("02 12:00", 2))
    shop = Shop(log)
    for day in january(1, 2):
        shop.run(day)
    shop.require_right()
    shop.deliver([row for row in log if row.event_id != "e1"])
    shop.run(FIRST)
    shop.require_right()


def test_a_run_that_is_repeated_stages_what_it_did_at_first(lake, monkeypatch):
    # The first run leaves the late event of the 1st, which can change the 2nd too, to a backfill. If the repetition
    # took the event of the 4th for one near midnight, it would restate the 3rd, and with that one both.
    monkeypatch.setenv("MEANDER_LATE_DAYS", "0")
    shop = Shop(sparse(*((f"0{day} 12:00", day) for day in (1, 2, 3, 4)), ("01 12:10", 4)))
    for day in january(1, 2, 3, 4):
        shop.run(day)
    once = by_ids(published_rows("sessions"))
    assert once[0] == (date(2025, 1, 1), ["e0"]), "the late event is left out"
    shop.run(date(2025, 1, 4))
    assert by_ids(published_rows("sessions")) == once


def by_ids(rows: list[dict]) -> list[tuple[date, list[str]]]:
    """Return the date and the events of each session."""
    return sorted((row["dt"], [event["event_id"] for event in row["events"]]) for row in rows)


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
def test_no_event_stands_in_two_sessions_however_late_it_is(lake, monkeypatch, late_days, log):
    monkeypatch.setenv("MEANDER_LATE_DAYS", late_days)
    shop = Shop(log)
    for day in sorted({row.landed for row in log}):
        shop.run(day)
    shop.require_right()


@pytest.mark.parametrize(
    "late",
    [
        pytest.param("01 12:10", id="with another event in its session"),
        pytest.param("02 12:00", id="the only one of its date"),
    ],
)
def test_a_late_event_that_is_taken_back_leaves_its_session(lake, late):
    log = sparse(("01 12:00", 1), (late, 3), ("03 12:00", 3))
    shop = Shop(log)
    for day in january(1, 2, 3):
        shop.run(day)
    shop.deliver([row for row in log if row.event_id != "e1"])
    shop.run(date(2025, 1, 3))
    shop.require_right()


def test_what_a_delivery_of_several_days_brought_late_leaves_when_one_of_them_comes_again():
    # The older commit begins before the day that is delivered again, or ends after it.
    log = sparse(("01 12:00", 1), ("02 12:00", 2), ("01 12:10", 3), ("03 12:00", 3), ("01 12:20", 4), ("04 12:00", 4))
    for range_of_days, again, taken_back in (([1, 2, 3], 3, "e2"), ([3, 4], 3, "e2"), ([3, 4], 4, "e4")):
        with empty_lake():
            shop = Shop(log)
            for day in january(*({1, 2, 3, 4} - set(range_of_days))):
                shop.run(day)
            shop.run(*january(*range_of_days))
            shop.require_right()
            shop.deliver([row for row in log if row.event_id != taken_back])
            shop.run(date(2025, 1, again))
            shop.require_right()


def test_what_a_delivery_of_several_days_took_back_leaves_when_only_one_of_them_is_made_sessions_of():
    # Its sessions are not made; then one of its days comes again. Its commit begins before that day, or ends after it.
    log = sparse(("01 12:00", 1), ("02 12:00", 2), ("01 12:10", 3), ("03 12:00", 3), ("04 12:00", 4))
    for range_of_days in ([1, 2, 3], [3, 4]):
        with empty_lake():
            shop = Shop(log)
            for day in january(1, 2, 3, 4):
                shop.run(day)
            shop.deliver([row for row in log if row.event_id != "e2"])
            publish("events", shop.stage_events(*january(*range_of_days)))
            shop.run(date(2025, 1, 3))
            shop.require_right()


@pytest.fixture
def two_runs(lake) -> Shop:
    """Two runs that have staged their sessions, each from the events that were published when its turn came."""
    # What landed on the last two days holds late events of the first two, so the newer run stages these too.
    times = [("01 12:00", 1), ("02 12:00", 2), ("02 23:50", 2), ("03 00:10", 3), ("01 12:10", 3), ("02 12:20", 4)]
    shop = Shop(sparse(*times, ("04 12:00", 4)))
    older, newer = shop.stage_events(*january(1, 2)), shop.stage_events(*january(3, 4))
    publish("events", older)
    shop.stage_sessions(*january(1, 2), older)
    publish("events", newer)
    shop.stage_sessions(*january(3, 4), newer)
    return shop


@pytest.mark.parametrize(
    ("order", "overtaken"),
    [
        pytest.param(["run 1", "run 2"], [], id="in turn"),
        pytest.param(["run 2", "run 1"], ["2025-01-01", "2025-01-02"], id="overtaken"),
    ],
)
def test_of_two_runs_the_one_that_saw_more_wins(two_runs, order, overtaken):
    refused = {run_id: publish("sessions", run_id)["refused"] for run_id in order}
    assert refused == {"run 1": overtaken, "run 2": []}
    two_runs.require_right()


def test_two_runs_that_publish_at_the_same_instant_end_in_the_tables_of_one_run(two_runs):
    ready = threading.Barrier(2)

    def publish_now(run_id: str) -> dict:
        ready.wait(timeout=60)
        return publish("sessions", run_id)

    with ThreadPoolExecutor(max_workers=2) as pool:
        reports = list(pool.map(publish_now, ("run 1", "run 2")))

    assert reports[1]["refused"] == []
    two_runs.require_right()


def test_an_ingest_that_was_overtaken_by_a_later_one_of_its_day_is_refused(lake):
    log = sparse(("01 12:00", 1), ("01 12:10", 2), ("02 12:00", 2))
    shop = Shop(log[:1])
    before_the_rest_came = shop.stage_events(*january(1, 2))
    shop.deliver(log)
    shop.run(*january(1, 2))
    assert publish("events", before_the_rest_came)["refused"] == ["2025-01-01", "2025-01-02"]
    shop.require_right()


def test_the_plan_for_late_data_restates_exactly_what_the_runs_had_to_leave(lake, monkeypatch):
    # On the fourth day, two events of the first arrive, of which one joins a session across the midnight.
    times = (("01 12:00", 1), ("01 23:50", 1), ("02 00:05", 2), ("01 12:10", 4), ("01 23:58", 4), ("04 12:00", 4))
    monkeypatch.setenv("MEANDER_LATE_DAYS", "1")
    shop = Shop(sparse(*times))
    for day in january(1, 2, 4):
        shop.run(day)
    plan = plan_backfill(settings(), "late-data")
    assert [str(entry.day) for entry in plan.redo] == ["2025-01-01", "2025-01-02"]
    assert [day for summary in summarize() for day in summary.postponed] == ["2025-01-01", "2025-01-02"]
    # One run stages both.
    (planned,) = plan.runs
    assert (planned.day, planned.tables) == (FIRST, ("sessions",))
    shop.stage_sessions(planned.day, planned.day, "plan")
    publish("sessions", "plan")
    shop.require_right()
    assert plan_backfill(settings(), "late-data").redo == []


# ---- the whole job, on a lake ----


def sessionize_and_publish(first: date, last: date, run_id: str) -> None:
    staged = sessionize.main(["--from", str(first), "--to", str(last), "--run-id", run_id])
    assert staged.inputs == {"events": Table("events").version}
    assert staged.basis == staged.inputs["events"], "a publish is refused when events are newer"
    publish_staged(staged)


@pytest.mark.spark
def test_the_job_over_a_range_and_then_for_days_that_come_again_has_the_sessions_of_the_oracle(
    spark, lake, monkeypatch
):
    # Sessions of who has no change are copied, also where most have one.
    monkeypatch.setattr(copied_sessions, "LARGEST_CHANGE", 1e9)
    # Who never sleeps has a cut at each midnight but the first, for an event that is just inside of what a run reads;
    # and another one is awake at each midnight, so that a session is of the day after it.
    crawler = [Landed("", time, name, time.date()) for _, time, name in never_idle("01 23:35", 80)]
    midnights = sparse(*((f"0{day} {time}", day) for day in range(1, 6) for time in ("00:10", "12:00", "23:50")))
    others = gather(difficult_logs(GAP, FIRST, 3, ((1,), (0, 0), (0, 1))), 2)
    # Whose log is another one at first has rows that are taken back, and others that are missing.
    log, at_first = named([crawler, midnights, *others]), named([crawler, midnights, *others[::-2]])
    landing = {day: [] for day in january(1, 2, 3, 4, 5)} | by_landing_day(at_first)
    shop = Shop([row for rows in landing.values() for row in rows])
    publish("events", shop.stage_events(*landing))
    sessionize_and_publish(*january(1, 5), "range")
    shop.require_right()
    for days in (january(3), january(1, 2), january(5), january(4)):
        landing |= {day: by_landing_day(log).get(day, []) for day in days}
        shop.deliver([row for rows in landing.values() for row in rows])
        publish("events", shop.stage_events(*days))
        sessionize_and_publish(days[0], days[-1], f"again from {days[0]}")
        shop.require_right()


def by_landing_day(log: list[Landed]) -> dict[date, list[Landed]]:
    """Return what landed on each day."""
    found: dict[date, list[Landed]] = defaultdict(list)
    for row in log:
        found[row.landed].append(row)
    return dict(found)


@pytest.mark.spark
def test_an_event_later_than_is_allowed_is_named_and_a_restatement_puts_it_in(spark, lake, monkeypatch, caplog):
    monkeypatch.setenv("MEANDER_LATE_DAYS", "2")
    shop = Shop(sparse(("01 12:00", 1), ("01 12:10", 4), ("04 12:00", 4)))
    shop.run(date(2025, 1, 1))
    publish("events", shop.stage_events(date(2025, 1, 4)))
    staged = sessionize.main(["--day", "2025-01-04", "--run-id", "fourth"])
    assert "late events changed sessions of 2025-01-01, older than MEANDER_LATE_DAYS=2" in caplog.text
    assert staged.owns == [date(2025, 1, 4)]
    assert staged.counts["postponed"] == ["2025-01-01"]
    publish_staged(staged)
    sessionize_and_publish(FIRST, FIRST, "restate")
    shop.require_right()
