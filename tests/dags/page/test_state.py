"""What the page says of each table and day, from what runs left in the lake."""

import shutil
from dataclasses import asdict, replace
from datetime import UTC, date, datetime, timedelta

import pytest

from dags.page import state
from dags.page.cache import Cache
from dags.page.state import PUBLISHED_WITHOUT, LakeSnapshot, listed_landing
from lake import storage
from lake.backfill.planner import plan_backfill
from lake.landing import Landing
from lake.places import run_folder, run_name
from lake.publish import publish
from lake.runs import summarize
from lake.settings import settings
from lake.staging import Run, Verdict, read_staged, write_verdict
from tests.dags.page_lake import ONE_DAY, event, put, put_day, put_events, put_predictions, run_of
from tests.lake.landed import load
from tests.lake.stagings import stage_files, staged_before

MAR_1, MAR_2, MAR_3, MAR_4 = (date(2025, 3, n) for n in (1, 2, 3, 4))
NOW = datetime(2025, 3, 5, 8, tzinfo=UTC)


# One for all tests, as a web server has one for all requests.
CACHE = Cache()


def snapshot(expected: date | None = None) -> LakeSnapshot:
    return LakeSnapshot.load(CACHE, NOW, expected)


def states(table: str, expected: date | None = None) -> dict[date, str]:
    return {day: cell.state for day, cell in snapshot(expected).cells[table].items()}


@pytest.fixture
def landed(lake):
    """Days that have landed; what is in them does not matter here."""

    def land(*days: date) -> None:
        for day in days:
            (lake / "landing" / f"dt={day}").mkdir(parents=True)

    return land


def test_an_empty_lake_has_nothing_to_say(lake):
    lake_now = snapshot()
    assert lake_now.last is None
    assert all(not days for days in lake_now.cells.values())


def test_a_published_day_says_rows_run_and_data_docs(lake, landed):
    landed(MAR_1)
    put_day(MAR_1, events=3)
    cell = snapshot().cells["events"][MAR_1]
    assert (cell.state, cell.rows, cell.restated, cell.run_id) == ("published", 3, 0, run_of(MAR_1))
    assert cell.docs == "/docs/page.html"
    assert cell.published is not None


def test_an_empty_day_is_published_with_no_rows(lake, landed):
    landed(MAR_1)
    put_day(MAR_1, events=0)
    cell = snapshot().cells["events"][MAR_1]
    assert (cell.state, cell.rows) == ("published", 0)


def test_events_stand_under_the_day_on_which_they_landed(lake, landed):
    landed(MAR_1, MAR_2)
    put_day(MAR_1)
    # Two events of March 1st arrive on the 2nd.
    put("events", MAR_2, [event(MAR_1, 8, MAR_2), event(MAR_1, 9, MAR_2)])
    assert {day: cell.rows for day, cell in snapshot().cells["events"].items()} == {MAR_1: 3, MAR_2: 2}


def test_a_warning_is_shown_with_what_it_said(lake, landed):
    landed(MAR_1)
    put_events(MAR_1, audited="warned")
    cell = snapshot().cells["events"][MAR_1]
    assert (cell.state, cell.rows, cell.reasons) == ("warned", 3, ("prices are prices",))


def test_of_several_days_that_is_warned_of_which_the_audit_warned(lake, landed):
    landed(MAR_1, MAR_2, MAR_3)
    rows = [event(day, 1) for day in (MAR_1, MAR_2, MAR_3)]
    staged = put("events", MAR_1, rows, owns=[MAR_1, MAR_2, MAR_3], run="chunk", audited="", visible=False)
    said = Verdict("events", "chunk", staged.stage_id, "warned", ["few on 2025-03-02"], "/docs/page.html", 0.0)
    write_verdict(replace(said, unmet={str(MAR_2): ["few"]}))
    publish("events", "chunk")
    cells = snapshot().cells["events"]
    assert {day: (cell.state, cell.reasons) for day, cell in cells.items()} == {
        MAR_1: ("published", ()),
        MAR_2: ("warned", ("few",)),
        MAR_3: ("published", ()),
    }


@pytest.mark.parametrize("visible", [False, True], ids=["audited", "published"])
def test_of_several_days_that_failed_which_was_withheld(lake, landed, visible):
    landed(MAR_1, MAR_2, MAR_3)
    put("events", MAR_2, [event(MAR_2, 1), event(MAR_2, 2)])
    rows = [event(day, 1) for day in (MAR_1, MAR_2, MAR_3)]
    staged = put("events", MAR_1, rows, owns=[MAR_1, MAR_2, MAR_3], run="chunk", audited="", visible=False)
    said = Verdict("events", "chunk", staged.stage_id, "failed", ["no price on 2025-03-02"], "/docs/page.html", 0.0)
    write_verdict(replace(said, unmet={str(MAR_2): ["no price"], str(MAR_3): ["few"]}, withheld=[str(MAR_2)]))
    if visible:
        publish("events", "chunk")
    lake_now = snapshot()
    cells = lake_now.cells["events"]
    assert (cells[MAR_2].state, cells[MAR_2].reasons, cells[MAR_2].rows) == ("failed", ("no price",), 2)
    assert (cells[MAR_2].run_id, cells[MAR_2].docs) == ("chunk", "/docs/page.html")
    others = [("published", 1), ("warned", 1)] if visible else [("unfinished", None)] * 2
    assert [(cells[day].state, cells[day].rows) for day in (MAR_1, MAR_3)] == others
    assert lake_now.refused["events"] == {}, "it is not refused for a newer one"
    put("events", MAR_2, [event(MAR_2, 3)], run="repair")
    assert snapshot().cells["events"][MAR_2].state == "published"


def test_a_day_that_was_withheld_is_not_there_because_an_audit_that_ran_since_lets_it_through(lake, landed):
    landed(MAR_1, MAR_2)
    staged = put("events", MAR_1, [], owns=[MAR_1, MAR_2], run="chunk", audited="", visible=False)
    said = Verdict("events", "chunk", staged.stage_id, "failed", ["no price"], "", 0.0)
    write_verdict(replace(said, unmet={str(MAR_2): ["no price"]}, withheld=[str(MAR_2)]))
    publish("events", "chunk")
    write_verdict(replace(said, verdict="passed", failed=[]))
    # Not "unfinished": a publish of it is refused.
    assert states("events") == {MAR_1: "published", MAR_2: "failed"}
    assert snapshot().cells["events"][MAR_2].reasons == (PUBLISHED_WITHOUT,)
    # The other way round, readers see the day all the same.
    put("events", MAR_1, [], owns=[MAR_1, MAR_2], run="again")
    staged = read_staged("events", "again")
    write_verdict(
        replace(said, run_id="again", stage_id=staged.stage_id, unmet={str(MAR_2): ["x"]}, withheld=[str(MAR_2)])
    )
    assert states("events")[MAR_2] == "published"


def test_a_publish_while_the_page_is_made_does_not_look_as_if_it_waited(lake, landed, monkeypatch):
    landed(MAR_1)
    put("events", MAR_1, [event(MAR_1, 1)], run="r", visible=False)
    read = state.read_stagings

    def read_then_publish(*arguments):
        found = read(*arguments)
        publish("events", "r")
        return found

    monkeypatch.setattr(state, "read_stagings", read_then_publish)
    assert states("events") == {MAR_1: "published"}


def test_a_day_that_failed_its_first_audit_has_no_rows_for_readers(lake, landed):
    landed(MAR_1)
    put_events(MAR_1, audited="failed")
    cell = snapshot().cells["events"][MAR_1]
    assert (cell.state, cell.rows, cell.reasons) == ("failed", None, ("prices are prices",))


def test_a_day_that_failed_when_it_was_run_again_keeps_its_rows(lake, landed):
    landed(MAR_1)
    put_day(MAR_1, events=3)
    put("events", MAR_1, [event(MAR_1, 1)], run="manual__again", audited="failed")
    cell = snapshot().cells["events"][MAR_1]
    assert (cell.state, cell.rows, cell.run_id) == ("failed", 3, "manual__again")


def test_a_failure_is_over_once_the_day_is_published(lake, landed):
    landed(MAR_1)
    put_events(MAR_1, audited="failed")
    put_events(MAR_1, basis=2)
    assert states("events") == {MAR_1: "published"}


def test_a_failure_of_another_run_is_over_once_the_day_is_published_later(lake, landed):
    landed(MAR_1)
    put("events", MAR_1, [], run="manual__first", audited="failed")
    put_events(MAR_1, basis=2)
    assert states("events") == {MAR_1: "published"}


@pytest.mark.parametrize(
    ("audited", "reason"), [("", "staged, but not audited"), ("passed", "audited, but not published")]
)
def test_a_run_that_did_not_go_on_is_unfinished(lake, landed, audited, reason):
    landed(MAR_1)
    put_events(MAR_1, audited=audited, visible=False)
    cell = snapshot().cells["events"][MAR_1]
    assert (cell.state, cell.reasons) == ("unfinished", (reason,))


def test_a_restated_day_counts_how_often(lake, landed):
    landed(MAR_1)
    put_day(MAR_1)
    put("sessions", MAR_1, [], run="manual__again", basis=2)
    assert snapshot().cells["sessions"][MAR_1].restated == 1
    assert snapshot().cells["events"][MAR_1].restated == 0


def test_a_refused_day_is_not_taken_for_published_by_that_run(lake, landed):
    landed(MAR_1)
    put("sessions", MAR_1, [{"session_id": "new", "dt": MAR_1}], run="manual__newer", basis=9)
    put("sessions", MAR_1, [], run="manual__older", basis=2)
    cell = snapshot().cells["sessions"][MAR_1]
    assert (cell.state, cell.rows, cell.run_id, cell.restated) == ("published", 1, "manual__newer", 0)


def test_rows_that_were_refused_are_named_until_the_day_is_published_again(lake, landed):
    landed(MAR_1)
    put("sessions", MAR_1, [{"session_id": "new", "dt": MAR_1}], run="newer", basis=9)
    put("sessions", MAR_1, [], run="older", basis=2, owns=[MAR_1, MAR_2])
    put("sessions", MAR_1, [], run="older too", basis=3)
    cells = snapshot().cells["sessions"]
    said = ("refused, since this is newer: older", "refused, since this is newer: older too")
    assert (cells[MAR_1].rows, cells[MAR_1].reasons) == (1, said)
    assert (cells[MAR_2].run_id, cells[MAR_2].reasons) == ("older", ())
    put("sessions", MAR_1, [], run="newest", basis=9)
    assert snapshot().cells["sessions"][MAR_1].reasons == ()


def test_what_an_audit_warned_of_is_not_said_of_rows_that_another_run_published(lake, landed):
    landed(MAR_1)
    put("sessions", MAR_1, [{"session_id": "new", "dt": MAR_1}], run="newer", basis=9)
    put("sessions", MAR_1, [], run="older", basis=2, audited="warned")
    cell = snapshot().cells["sessions"][MAR_1]
    assert (cell.state, cell.reasons) == ("published", ("refused, since this is newer: older",))


def test_a_lake_without_numbers_is_told_as_before(lake):
    moment = datetime(2025, 1, 2, 12, tzinfo=UTC)
    staged = staged_before("r", "a", moment)
    publish("quarantine", "r")
    (cell,) = snapshot().cells["quarantine"].values()
    assert (cell.state, cell.rows, cell.run_id) == ("published", 1, "r")
    # Staged again, and not audited: the verdict that lies there is on what was staged before.
    staged_before("r", "b", moment + timedelta(hours=1), audited="")
    verdict = Verdict("quarantine", "r", staged.stage_id, "passed", [], "", 0.0)
    storage.write_json(f"{run_folder('r')}/quarantine.audit.json", asdict(verdict))
    (cell,) = snapshot().cells["quarantine"].values()
    assert (cell.state, cell.rows, cell.reasons) == ("unfinished", 1, ("staged, but not audited",))


@pytest.mark.parametrize("hours", [-2, 0, 2])
def test_what_is_newest_is_not_a_matter_of_clocks(lake, landed, hours):
    landed(MAR_1)
    noon = NOW.timestamp()
    for audited, clock, raws in (("passed", noon, 1), ("failed", noon + hours * 3600, 3)):
        rows = [event(MAR_1, n) for n in range(raws)]
        stage_files("events", "r", rows, [MAR_1], None, run=Run("r", MAR_1, MAR_1, began=clock), audited=audited)
        if audited == "passed":
            publish("events", "r")
    cell = snapshot().cells["events"][MAR_1]
    assert (cell.state, cell.rows, cell.reasons) == ("failed", 1, ("prices are prices",))


def test_a_gap_in_the_landing_is_missing_and_says_so(lake, landed):
    landed(MAR_1, MAR_3)
    put_day(MAR_1)
    put_day(MAR_3)
    cell = snapshot().cells["events"][MAR_2]
    assert (cell.state, cell.reasons, cell.rows) == ("missing", ("has not landed",), None)


def test_a_landed_day_that_no_run_has_loaded_is_missing(lake, landed):
    landed(MAR_1, MAR_2)
    put_day(MAR_1)
    cell = snapshot().cells["events"][MAR_2]
    assert (cell.state, cell.reasons) == ("missing", ("landed, but no run has loaded it",))


def test_days_up_to_the_expected_one_are_missing_and_not_one_more(lake, landed):
    landed(MAR_1)
    put_day(MAR_1)
    assert states("events", expected=MAR_3) == {MAR_1: "published", MAR_2: "missing", MAR_3: "missing"}
    assert states("events", expected=None) == {MAR_1: "published"}


def test_a_day_that_has_begun_to_land_is_not_due_before_its_time(lake, landed):
    landed(MAR_1, MAR_2)
    put_day(MAR_1)
    assert states("events", expected=MAR_1) == {MAR_1: "published"}


def test_a_landing_folder_of_the_future_makes_no_day_missing(lake, landed):
    landed(MAR_1, date(2071, 3, 1))
    put_day(MAR_1)
    assert states("events") == {MAR_1: "published"}


def test_days_before_the_first_one_loaded_are_not_asked_for(lake, landed):
    landed(MAR_1, MAR_2)
    put_day(MAR_2)
    assert states("events") == {MAR_2: "published"}


def test_interests_are_due_on_days_run_one_by_one_alone(lake, landed):
    landed(MAR_1, MAR_2, MAR_3)
    # History: one run for two days, interests on the second alone.
    put("events", MAR_1, [event(MAR_1, 1), event(MAR_2, 1)], owns=[MAR_1, MAR_2], run="manual__h--2025-03-01")
    put("interests", MAR_2, [{"user_id": "ann", "dt": MAR_2}], run="manual__h--2025-03-01")
    put_events(MAR_3)
    assert states("interests") == {MAR_2: "published", MAR_3: "missing"}


def test_predictions_are_due_from_the_first_one_on(lake, landed):
    landed(MAR_1, MAR_2, MAR_3)
    for day in (MAR_1, MAR_2, MAR_3):
        put_day(day)
    put_predictions(MAR_2, [])
    assert states("predictions") == {MAR_2: "published", MAR_3: "missing"}


def test_late_data_waits_until_the_day_is_restated(lake, landed):
    landed(MAR_1, MAR_4)
    put_day(MAR_1)
    put("sessions", MAR_4, [], basis=2, counts={"postponed": [str(MAR_1)]})
    late = snapshot().late
    assert [(one.day, one.landed, one.run_id) for one in late] == [(MAR_1, (MAR_4, MAR_4), run_of(MAR_4))]
    put("sessions", MAR_1, [], run="manual__restated", basis=3)
    assert snapshot().late == []


def test_a_landing_that_cannot_be_seen_does_not_hide_the_lake(lake):
    put_day(MAR_1)
    put_day(MAR_3)
    lake_now = snapshot()
    assert lake_now.landed is None
    assert lake_now.cells["events"][MAR_2].reasons == ("no run has loaded it",)


def test_a_manifest_that_changed_is_read_again(lake, landed):
    landed(MAR_1)
    put_events(MAR_1, audited="")
    assert states("events") == {MAR_1: "unfinished"}
    put_events(MAR_1, audited="failed")
    assert states("events") == {MAR_1: "failed"}
    # Staged once more: what was said of the rows before says nothing of these.
    put_events(MAR_1, audited="")
    assert states("events") == {MAR_1: "unfinished"}


def test_another_lake_at_the_same_place_does_not_show_the_publishes_of_the_one_before(lake, landed):
    landed(MAR_1, MAR_2)
    put("sessions", MAR_1, [{"session_id": "a", "dt": MAR_1}], run="manual__one")
    assert set(snapshot().current["sessions"]) == {MAR_1}
    shutil.rmtree(lake / "lake")
    put("sessions", MAR_2, [{"session_id": "b", "dt": MAR_2}], run="manual__two")
    assert {day: commit.run_id for day, commit in snapshot().current["sessions"].items()} == {MAR_2: "manual__two"}
    assert [staging.staged.run_id for staging in snapshot().stagings["sessions"]] == ["manual__two"]


def test_a_calendar_is_of_whole_weeks_and_ends_with_the_day_asked_for(lake):
    weeks = snapshot().weeks(MAR_4)
    assert (len(weeks), {len(week) for week in weeks}) == (53, {7})
    assert MAR_4 in weeks[-1]
    assert all(week[0].weekday() == 0 for week in weeks)
    assert weeks[0][0] + timedelta(weeks=53) - ONE_DAY == weeks[-1][-1]


def test_the_landing_is_listed_once_for_several_views_and_what_is_loaded_meanwhile_is_no_change(land, monkeypatch):
    land(MAR_1, ["{}"])
    load("r", MAR_1, MAR_1)
    kept, listings, plain = Cache(), [], Landing.found

    def found(landing, days):
        listings.append(days := sorted(days))
        return plain(landing, days)

    monkeypatch.setattr(Landing, "found", found)
    for _ in range(2):
        assert LakeSnapshot.load(kept, NOW).changed == {}
    assert listings == [[MAR_1], [], []], "all of it, and of no day what the listing has"
    land(MAR_1, ["{}"], "late.jsonl")
    assert LakeSnapshot.load(kept, NOW).changed == {}, "not until the listing is old"
    load("again", MAR_1, MAR_1)
    assert LakeSnapshot.load(kept, NOW).changed == {}, "the listing is older than what was read"
    assert listings[-1] == [MAR_1]
    monkeypatch.setattr(state, "LISTED_SECONDS", 0)
    land(MAR_1, ["{}"], "later.jsonl")
    assert set(LakeSnapshot.load(kept, NOW).changed) == {MAR_1}


def test_a_landing_that_is_another_than_what_was_read_is_said_of_its_day_alone(land, monkeypatch):
    monkeypatch.setattr(state, "LISTED_SECONDS", 0)
    for day in (MAR_1, MAR_2):
        land(day, ["{}"])
    load("r", MAR_1, MAR_2)
    assert snapshot().changed == {}
    land(MAR_2, ["{}"], "late.jsonl")
    lake_now = snapshot()
    what = "files in the landing: 2, read: 1; came later: 1 (late.jsonl)"
    assert {day: str(difference) for day, difference in lake_now.changed.items()} == {MAR_2: what}
    cells = lake_now.cells["events"]
    assert [(cells[day].state, cells[day].reasons) for day in (MAR_1, MAR_2)] == [
        ("published", ()),
        ("published", (what,)),
    ]


def test_a_manifest_of_a_table_that_there_is_not_hides_no_other(lake, landed):
    landed(MAR_1)
    put_day(MAR_1)
    (folder,) = (lake / "lake" / "_runs").glob("*")
    (file,) = (file for file in folder.glob("events.*.json") if not file.name.endswith(".audit.json"))
    known = storage.read_json(str(file))
    storage.write_json(str(folder / "events.1000000000000999999-ab.json"), {**known, "table": "orders"})
    assert snapshot().unreadable == [f"{folder.name}/events.1000000000000999999-ab.json"]
    storage.write_json(str(folder / "events.1000000000000999999-ab.json"), known)
    assert snapshot().unreadable == [], "it is read again once it has changed"


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"a_field_of": "a newer version"}'])
def test_a_manifest_that_cannot_be_read_hides_no_other(lake, landed, content):
    landed(MAR_1, MAR_2)
    put_day(MAR_1)
    put_events(MAR_2, audited="failed")
    (folder,) = (lake / "lake" / "_runs").glob("*2025-03-02*")
    (folder / "events.1000000000000999999-ab.json").write_text(content)
    lake_now = snapshot()
    assert lake_now.unreadable == [f"{folder.name}/events.1000000000000999999-ab.json"]
    assert {day: cell.state for day, cell in lake_now.cells["events"].items()} == {MAR_1: "published", MAR_2: "failed"}


def test_a_verdict_that_cannot_be_read_is_none(lake, landed):
    landed(MAR_1)
    staged = put("events", MAR_1, [], audited="passed", visible=False)
    file = lake / "lake" / "_runs" / run_name(staged.run_id) / f"events.{staged.stage_id}.audit.json"
    for content in ("", "{}", '{"stage_id": "' + staged.stage_id + '", "mood": "good"}'):
        file.write_text(content)
        assert snapshot().cells["events"][MAR_1].reasons == ("staged, but not audited",)


LONG_AGO = date(2023, 3, 1)


def test_what_ran_lately_for_a_day_of_long_ago_is_told(lake, landed):
    """Days of which nothing is known are not due, though the table has a day before and days after them."""
    landed(LONG_AGO, MAR_1)
    put_day(MAR_1)
    put_events(LONG_AGO, audited="failed")
    cells = snapshot().cells
    assert {table: cells[table][LONG_AGO].state for table in ("quarantine", "events", "sessions")} == {
        "quarantine": "failed",
        "events": "failed",
        "sessions": "missing",
    }
    assert [day for day in cells["events"] if day < date(2024, 1, 1)] == [LONG_AGO]
    # The process ended before the sessions.
    put_events(LONG_AGO, basis=2)
    cells = snapshot().cells
    assert [cells[table][LONG_AGO].state for table in ("events", "sessions", "interests")] == [
        "published",
        "missing",
        "missing",
    ]


def test_the_landing_of_a_day_of_long_ago_that_was_loaded_lately_is_compared(land, monkeypatch):
    monkeypatch.setattr(state, "LISTED_SECONDS", 0)
    for day in (LONG_AGO, MAR_1):
        land(day, ["{}"])
        load(f"r{day}", day)
    land(LONG_AGO, ["{}"], "late.jsonl")
    assert set(snapshot().changed) == {LONG_AGO}
    plan = plan_backfill(settings(), "late-data")
    assert ("events", LONG_AGO) in {(entry.table, entry.day) for entry in plan.redo}
    (run,) = [
        run for run in summarize(date(2024, 2, 1), landing=Landing.of(settings()), with_older=True) if run.landing
    ]
    assert run.first == LONG_AGO


def test_the_landing_is_listed_once_for_all_parts_of_the_page_and_once_for_older_days(lake, monkeypatch):
    days = []
    monkeypatch.setattr(state, "listed", lambda _, first: days.append(first) or {})
    cache = Cache()
    for first in (MAR_2, MAR_2, MAR_3, MAR_1, LONG_AGO, MAR_2):
        listed_landing(cache, first)
    assert days == [MAR_2, date.min]
