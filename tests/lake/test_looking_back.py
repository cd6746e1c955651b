"""Planner, page and `meander days` look back a year, and say of it what the whole past says, for less reading."""

import json
import os
import shutil
from collections.abc import Callable
from copy import copy
from dataclasses import asdict, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dags.cli.main import _print_days
from dags.page import state
from dags.page.cache import Cache
from dags.page.problems import freshness
from dags.page.state import LakeSnapshot
from jobs import sessionize
from lake import looking_back, storage
from lake.backfill import history, planner
from lake.backfill.planner import plan_backfill
from lake.days import ONE_DAY, days_between
from lake.log import read_log
from lake.looking_back import begin, first_day, loaded_since
from lake.places import table_path
from lake.runs import summarize
from lake.settings import settings
from lake.staging import write_verdict
from lake.table import Table
from tests.bench import years as bench
from tests.bench.metadata import whole_past
from tests.bench.years import FIRST_DAY, Years
from tests.lake.stagings import JAN_1, published

DAYS = 40
# Its sessions are published without a row before all others.
WITHOUT_SESSIONS = FIRST_DAY - 20 * ONE_DAY


def small(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Point the settings at a lake in which ten days count as a year, with late data and redeliveries."""
    for name, value in (("LAKE", folder / "lake"), ("LANDING", folder / "landing"), ("HISTORY_DAYS", 8)):
        monkeypatch.setenv(f"MEANDER_{name}", str(value))
    monkeypatch.setenv("MEANDER_LOOKBACK_DAYS", "4")
    monkeypatch.setenv("MEANDER_HORIZON_DAYS", "2")
    monkeypatch.setattr(looking_back, "AT_LEAST", 10 * ONE_DAY)
    monkeypatch.setattr(looking_back, "CLOCKS", 2 * ONE_DAY)
    for module in (history, planner):
        monkeypatch.setattr(module, "SAMPLE", 3)
    monkeypatch.setattr("lake.log.COMMITS_AT_ONCE", 4)
    monkeypatch.setattr(bench, "LATE_BY", (0, 1, 2, 8, 9))
    monkeypatch.setattr(bench, "REDELIVERED_EVERY", 5)
    monkeypatch.setattr(bench, "REDELIVERED_AFTER", 3)
    monkeypatch.setattr(bench, "REPAIRED_EVERY", 19)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, Years]:
    """Forty daily runs, in a folder that tests copy."""
    folder = tmp_path_factory.mktemp("years")
    with pytest.MonkeyPatch.context() as monkeypatch:
        small(monkeypatch, folder)
        years = Years()
        years.publish("sessions", "empty", WITHOUT_SESSIONS, [WITHOUT_SESSIONS], {}, 1, inputs={"events": 0})
        years.run(0, DAYS)
        # Nothing that was computed from it is made anew.
        years.behavior(newest(DAYS) - 6 * ONE_DAY, "delivered-again")
    return folder, years


@pytest.fixture
def years(made, tmp_path, monkeypatch) -> Years:
    """A copy of forty daily runs, which may go on."""
    folder, before = made
    # With the times of folders.
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    small(monkeypatch, tmp_path)
    mine = Years()
    mine.order, mine.today = before.order, before.today
    mine.files, mine.sessions, mine.postponed, mine.labelled = map(
        copy, (before.files, before.sessions, before.postponed, before.labelled)
    )
    for table in before.logs:
        mine.logs[table] = bench.Log(table)
        mine.published(table)
    return mine


@pytest.fixture
def read(monkeypatch) -> list[str]:
    """The small files that are read."""
    names: list[str] = []
    of_many, of_one = storage.read_texts, state._staging

    def texts(folder: str, some: list[str]) -> dict[str, str]:
        names.extend(some)
        return of_many(folder, some)

    def staging(fs: Any, path: str, *, has_verdict: bool) -> Any:
        names.append(path)
        return of_one(fs, path, has_verdict=has_verdict)

    monkeypatch.setattr(storage, "read_texts", texts)
    monkeypatch.setattr(state, "_staging", staging)
    return names


def with_all(ask: Callable[[], Any]) -> Any:
    """Return an answer for which the whole past is read."""
    with whole_past():
        return ask()


def newest(days: int) -> date:
    return FIRST_DAY + (days - 1) * ONE_DAY


def snapshot(first: date | None = None, cache: Cache | None = None) -> LakeSnapshot:
    noon = datetime.combine(max(Table("events").rows_by("landed")), datetime.min.time(), UTC) + timedelta(hours=36)
    return LakeSnapshot.load(cache or Cache(), noon, None, first)


# ---- what is looked at ----


@pytest.mark.parametrize(
    ("landed", "history_days", "expected"),
    [
        pytest.param([date(2024, 6, 1), date(2025, 1, 8)], 30, date(2024, 1, 3), id="the calendar of the page"),
        pytest.param([date(2025, 1, 8)], 400, date(2023, 12, 5), id="a longer history of users"),
        pytest.param([], 30, date.min, id="without a landing day nothing is old"),
    ],
)
def test_the_first_day_is_that_of_the_calendar_or_of_the_history(lake, monkeypatch, landed, history_days, expected):
    monkeypatch.setenv("MEANDER_HISTORY_DAYS", str(history_days))
    for n, day in enumerate(landed):
        row = {
            "event_id": "e",
            "user_id": "u",
            "event_time": datetime(2025, 1, 1, tzinfo=UTC),
            "dt": JAN_1,
            "landed": day,
        }
        published(f"{n}", [row], [day], n + 1, table="events")
    assert first_day(settings(), Table.find("events")) == expected


def test_a_landing_day_of_the_future_hides_none_of_today(lake):
    row = {"event_id": "e", "user_id": "u", "event_time": datetime(2025, 1, 1, tzinfo=UTC), "dt": JAN_1}
    published("typo", [{**row, "landed": date(2062, 1, 1)}], [date(2062, 1, 1)], 1, table="events")
    today = datetime.now(UTC).date()
    assert today - timedelta(days=372) <= first_day(settings(), Table("events")) <= today - timedelta(days=371)


def test_of_the_log_the_commits_since_a_time_are_read_and_one_by_a_clock_that_was_behind(years):
    path, last = table_path("events"), Table("events").version
    told = {entry["version"]: entry["timestamp"] / 1000 for entry in Table("events").commits()}
    assert list(told) == list(range(last, 0, -1))
    since = datetime.fromtimestamp(told[last - 6], UTC)
    expected = [v for v in told if told[v] >= since.timestamp()]
    assert list(read_log(path, last, since=since)) == expected
    assert read_log(path, last, since=since) == {v: text for v, text in read_log(path, last).items() if v in expected}
    # Of four that are read at once the oldest says that it is of 1970.
    file = f"{path}/_delta_log/{last - 3:020}.json"
    fs, place = storage.filesystem(file)
    text = fs.cat_file(place).decode()
    fs.pipe_file(place, text.replace(f'"timestamp":{int(told[last - 3] * 1000)}', '"timestamp":1').encode())
    assert list(read_log(path, last, since=since)) == expected
    assert read_log(path, last, since=datetime.fromtimestamp(told[last] + 1, UTC)) == {}


def test_folders_in_which_nothing_happened_since_a_time_are_not_listed(tmp_path):
    for name, age in (("old", 9), ("young", 1)):
        (tmp_path / name / "in").mkdir(parents=True)
        (tmp_path / name / "in" / "file").write_text("")
        moment = (datetime.now(UTC) - timedelta(days=age)).timestamp()
        os.utime(tmp_path / name, (moment, moment))
    week = datetime.now(UTC) - timedelta(days=7)
    assert list(storage.list_entries(str(tmp_path), week)) == ["young/in/file"]
    assert list(storage.list_entries(str(tmp_path))) == ["old/in/file", "young/in/file"]


def test_on_an_object_store_folders_have_the_time_of_their_newest_file(lake_on_s3):
    storage.write_bytes(f"{lake_on_s3}/runs/a/1", b"")
    storage.write_bytes(f"{lake_on_s3}/runs/b/in/2", b"")
    written = min(entry["LastModified"] for entry in storage.list_entries(f"{lake_on_s3}/runs").values())
    assert list(storage.list_entries(f"{lake_on_s3}/runs", written)) == ["a/1", "b/in/2"]
    assert storage.list_entries(f"{lake_on_s3}/runs", written + timedelta(days=1)) == {}
    assert storage.list_names(f"{lake_on_s3}/runs") == ["a", "b"]


# ---- the answers ----


def test_the_plan_of_a_year_is_the_one_that_the_whole_past_gives_for_these_landing_days(years, monkeypatch):
    first = first_day(settings(), Table("events"))
    assert first == newest(DAYS) - 10 * ONE_DAY
    plan = plan_backfill(settings(), "late-data")
    assert {entry.table for entry in plan.redo} >= {"sessions", "interests"}, "there is something to compare"
    assert (plan.first, plan.looked_from) == (None, first)
    assert asdict(plan) == asdict(with_all(lambda: plan_backfill(settings(), "late-data")))
    of_these = with_all(lambda: plan_backfill(settings(), "late-data", first))
    assert {(entry.table, entry.day) for entry in plan.redo} >= {(entry.table, entry.day) for entry in of_these.redo}
    assert of_these.looked_from is None


def test_a_plan_has_the_landing_days_of_long_ago_that_were_loaded_lately(years):
    landed = FIRST_DAY + 8 * ONE_DAY
    before = {(entry.table, entry.day) for entry in plan_backfill(settings(), "late-data").redo}
    years.behavior(landed, "corrected")
    plan = plan_backfill(settings(), "late-data")
    alone = with_all(lambda: plan_backfill(settings(), "late-data", landed, landed))
    assert ("predictions", landed) in {(entry.table, entry.day) for entry in alone.redo}
    assert {(entry.table, entry.day) for entry in plan.redo} >= before | {(one.table, one.day) for one in alone.redo}
    assert asdict(plan) == asdict(with_all(lambda: plan_backfill(settings(), "late-data")))
    assert ("predictions", landed) not in before
    assert plan.scope == (
        f"Landing days from {newest(DAYS) - 10 * ONE_DAY} on count, and older ones that were loaded since then; others "
        "with --from."
    )
    assert plan_backfill(settings(), "late-data", newest(DAYS)).scope == ""


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        pytest.param(None, None, newest_day := FIRST_DAY + 29 * ONE_DAY, id="a year"),
        pytest.param(FIRST_DAY, None, FIRST_DAY, id="from an older day"),
        pytest.param(None, FIRST_DAY + 20 * ONE_DAY, FIRST_DAY + 10 * ONE_DAY, id="a year before an old day"),
        pytest.param(None, FIRST_DAY + 35 * ONE_DAY, FIRST_DAY + 25 * ONE_DAY, id="and before one in the year"),
        pytest.param(None, FIRST_DAY + 60 * ONE_DAY, newest_day, id="up to a day that has not come"),
        pytest.param(None, date.min, date.min, id="no day is before the first of all"),
    ],
)
def test_who_asks_up_to_a_day_gets_the_year_before_it(years, first, last, expected):
    assert begin(settings(), Table("events"), first, last) == expected


def test_older_days_count_if_they_were_loaded_since_the_first_one():
    first = date(2025, 1, 10)
    loaded = {"refused": '["2025-01-03"]', "published": "2025-01-10T00:00:00+00:00"}
    commits = [
        {**loaded, "first": "2025-01-02", "last": "2025-01-04"},
        {**loaded, "first": "2025-01-09", "last": "2025-01-12"},
        {**loaded, "first": "2025-01-11", "last": "2025-01-11"},
        {**loaded, "first": "2025-01-06", "last": "2025-01-06", "published": "2025-01-10T00:30:00+01:00"},
    ]
    assert loaded_since(first, commits) == {date(2025, 1, n) for n in (2, 4, 9)}


def test_runs_up_to_an_old_day_are_told(years, capsys):
    last = FIRST_DAY + 20 * ONE_DAY
    _print_days(None, last, as_json=True)
    told = {run["first"] for run in json.loads(capsys.readouterr().out)}
    assert told >= {str(day) for day in days_between(FIRST_DAY + 10 * ONE_DAY, last)}
    assert max(told) == str(last)


@pytest.mark.parametrize("reason", ["late-data", "bad-day", "code"])
@pytest.mark.parametrize("ago", [0, 4, 9, 21, 39])
def test_the_plan_for_any_landing_days_is_the_one_that_the_whole_past_gives(years, monkeypatch, reason, ago):
    first = newest(DAYS) - ago * ONE_DAY
    asked = (settings(), reason, first, first + 2 * ONE_DAY)
    assert asdict(plan_backfill(*asked)) == asdict(with_all(lambda: plan_backfill(*asked)))


def test_labels_that_look_further_ahead_are_planned_as_well(years, monkeypatch):
    monkeypatch.setenv("MEANDER_HORIZON_DAYS", "9")
    years.examples(days_between(newest(DAYS) - 30 * ONE_DAY, newest(DAYS) - 9 * ONE_DAY))
    years.deliver_again(newest(DAYS) - 9 * ONE_DAY, newest(DAYS))
    first = newest(DAYS) - 9 * ONE_DAY
    plan = plan_backfill(settings(), "bad-day", first, first)
    assert min(entry.day for entry in plan.redo if entry.table == "examples") == first - 9 * ONE_DAY
    whole = with_all(lambda: plan_backfill(settings(), "bad-day", first, first))
    assert asdict(plan) == asdict(whole)


def test_events_that_were_taken_back_are_planned_however_old_they_are(years, monkeypatch):
    landed = newest(DAYS) - 4 * ONE_DAY
    with monkeypatch.context() as patched:
        patched.setattr(bench, "LATE_BY", (0, 30))
        years.behavior(landed, "wrong-clock")
    years.behavior(landed, "corrected")
    asked = (settings(), "late-data", landed, None)
    whole = with_all(lambda: plan_backfill(*asked))
    assert {entry.day for entry in whole.redo if entry.table == "sessions"} >= {landed - 30 * ONE_DAY}
    assert asdict(plan_backfill(*asked)) == asdict(whole)


def test_the_page_shows_of_a_year_what_the_whole_past_shows(years, monkeypatch):
    lake, whole = snapshot(), snapshot(date.min)
    assert lake.first == newest(DAYS) - 10 * ONE_DAY
    assert {table for table, days in lake.cells.items() if days} >= {"events", "sessions", "interests", "predictions"}
    for table, cells in whole.cells.items():
        assert {day: cell for day, cell in lake.cells[table].items() if day >= lake.first} == {
            day: cell for day, cell in cells.items() if day >= lake.first
        }
    # Of older days, those to which something was done since: events are late by up to nine days.
    older = {day for cells in lake.cells.values() for day in cells if day < lake.first}
    assert older
    assert min(older) > FIRST_DAY
    for table in lake.cells:
        for day in older & lake.cells[table].keys():
            assert (lake.cells[table][day].state, lake.cells[table][day].rows) == (
                whole.cells[table][day].state,
                whole.cells[table][day].rows,
            )
    assert max(cell.restated for cell in lake.cells["events"].values()) == 1, "a day that was delivered again"
    assert lake.late == [late for late in whole.late if late.landed[1] >= lake.first - 2 * ONE_DAY] != []
    assert lake.last == whole.last
    assert min(whole.cells["events"]) == FIRST_DAY


def test_the_page_tells_what_was_done_lately_to_a_day_of_long_ago(years):
    failed, halfway, quiet = (FIRST_DAY + n * ONE_DAY for n in (5, 7, 9))
    assert failed not in snapshot().cells["events"]
    _, verdict = years.stage("events", "redelivered", failed, [failed], {(failed, failed): 1})
    write_verdict(replace(verdict, verdict="failed", failed=["prices are prices"]))
    # Loaded without a row by a run that ends before its sessions: those of before are shown.
    years.publish("events", "emptied", halfway, [halfway], {})
    cells = snapshot().cells
    assert (cells["events"][failed].state, cells["events"][failed].rows) == ("failed", 102)
    assert (cells["events"][halfway].state, cells["events"][halfway].rows) == ("published", 0)
    assert cells["sessions"][halfway].state == cells["interests"][halfway].state == "published"
    assert not any(quiet in of_table for of_table in cells.values())
    assert {run.run_id for run in summarize(newest(DAYS) - 10 * ONE_DAY, with_older=True)} >= {"redelivered", "emptied"}


def test_a_day_of_long_ago_that_was_published_without_a_row_is_not_missing(years):
    years.publish("events", "again", WITHOUT_SESSIONS, [WITHOUT_SESSIONS], {})
    cells = snapshot().cells
    assert (cells["sessions"][WITHOUT_SESSIONS].state, cells["sessions"][WITHOUT_SESSIONS].rows) == ("published", 0)
    assert cells["interests"][WITHOUT_SESSIONS].state == "missing"


def test_the_page_shows_older_days_when_they_are_asked_for(years):
    asked = FIRST_DAY + 5 * ONE_DAY
    lake, whole = snapshot(asked), snapshot(date.min)
    assert lake.first == asked
    assert lake.cells["events"][asked] == whole.cells["events"][asked]
    assert lake.cells["sessions"][asked] == whole.cells["sessions"][asked]


def test_a_table_that_was_not_published_for_long_is_told_all_the_same(years):
    years.examples(sorted(years.labelled)[-2:])
    for _ in range(20):
        years.today += ONE_DAY
        years.behavior(years.today, f"later-{years.today}")
    lake = snapshot()
    assert max(lake.current["predictions"]) == newest(DAYS)
    shown = {cell.state for day, cell in lake.cells["predictions"].items() if day >= lake.first}
    assert shown == {"missing"}
    # One publish of the examples was of two days, which its manifest tells.
    whole = snapshot(date.min).current["examples"]
    assert len({commit.stage_id for commit in whole.values()}) < len(whole)
    assert lake.current["examples"] == whole


def test_what_was_published_again_of_long_ago_is_not_the_newest_day_of_a_table(years):
    for _ in range(20):
        years.today += ONE_DAY
        years.behavior(years.today, f"later-{years.today}")
    years.predictions(FIRST_DAY + 3 * ONE_DAY, "again")
    assert {one.table: one.day for one in freshness(snapshot())}["predictions"] == newest(DAYS)


def test_runs_of_a_year_are_told_as_all_runs_tell_them(years, monkeypatch):
    first = first_day(settings(), Table("events"))
    told = summarize(first)
    assert told == with_all(lambda: summarize(first))
    assert told == [run for run in summarize() if run.last >= first]
    assert len(told) < len(summarize()) / 2


@pytest.mark.parametrize("ago", [0, 2, 25])
def test_a_run_of_sessions_stages_what_the_whole_log_tells(years, monkeypatch, ago):
    landed = [newest(DAYS) - ago * ONE_DAY]
    # Delivered once more, without its events of before: those days have to be staged as well.
    with monkeypatch.context() as patched:
        patched.setattr(bench, "LATE_BY", (0,))
        years.behavior(landed[0], "shrunk")

    def staged() -> tuple[list[date], list[date]]:
        return sessionize.days_to_stage(Table("events"), landed, settings())

    assert staged() == with_all(staged)
    assert landed[0] - 2 * ONE_DAY in staged()[0]


# ---- the reading ----


QUESTIONS: dict[str, Callable[[], Any]] = {
    "the plan for late data": lambda: plan_backfill(settings(), "late-data"),
    "the page": lambda: snapshot().cells,
    "the runs": lambda: summarize(first_day(settings(), Table("events")), with_older=True),
    "the sessions of a run": lambda: sessionize.days_to_stage(
        Table("events"), [max(Table("events").rows_by("landed"))], settings()
    ),
}


def test_how_much_is_read_does_not_depend_on_the_age_of_the_lake(years, read):
    def count(ask: Callable[[], Any]) -> int:
        read.clear()
        ask()
        return len(read)

    before = {name: count(ask) for name, ask in QUESTIONS.items()}
    years.run(DAYS, 2 * DAYS)
    after = {name: count(ask) for name, ask in QUESTIONS.items()}
    whole = {name: with_all(lambda ask=ask: count(ask)) for name, ask in QUESTIONS.items()}
    # A block of commits of each table, or a redelivery more or less.
    assert {name: n for name, n in after.items() if n > before[name] + 30} == {}
    assert {name: n for name, n in whole.items() if n < 1.5 * after[name]} == {}
