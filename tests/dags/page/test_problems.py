"""The sentences of the page for an on-call engineer: problems, the rows that readers see, safe repairs."""

from datetime import UTC, date, datetime, timedelta

import pytest

from dags.page import state
from dags.page.airflow_state import AirflowState, FailedRun
from dags.page.cache import Cache
from dags.page.problems import cells_needing_attention, freshness, notes, problems, readers_see, warned_lately
from dags.page.state import LakeSnapshot
from lake.staging import Run
from tests.dags.page_lake import event, put, put_day, put_events, put_predictions, run_of
from tests.lake.landed import load
from tests.lake.stagings import stage_files
from tests.tables import groups_of, of_dag
from tests.test_project import RUNBOOK

MAR_1, MAR_2, MAR_3, MAR_4 = (date(2025, 3, n) for n in (1, 2, 3, 4))
SCHEDULED = AirflowState(scheduled=True)
CACHE = Cache()


@pytest.fixture
def landed(lake):
    def land(*days: date) -> None:
        for day in days:
            (lake / "landing" / f"dt={day}").mkdir(parents=True)

    return land


def snapshot(expected: date | None = None) -> LakeSnapshot:
    return LakeSnapshot.load(CACHE, datetime.now(UTC), expected)


def only(airflow: AirflowState = SCHEDULED, expected: date | None = None):
    found = problems(snapshot(expected), airflow)
    assert len(found) == 1, [problem.what for problem in found]
    assert_the_runbook_has(found[0])
    return found[0]


def assert_the_runbook_has(problem):
    from dags.page.views import anchor

    headings = {anchor(line[3:]) for line in RUNBOOK.splitlines() if line.startswith("## ")} | {""}
    assert {link.target for link in problem.links if link.kind == "runbook"} <= headings


def test_nothing_is_wrong_when_every_expected_day_is_published(lake, landed):
    landed(MAR_1, MAR_2)
    put_day(MAR_1)
    put_day(MAR_2)
    put_predictions(MAR_1, [])
    assert problems(snapshot(MAR_1), SCHEDULED) == []
    daily = ", ".join(f"{table} up to 2025-03-02" for table in of_dag("behavior_daily") if table != "quarantine")
    assert readers_see(snapshot()) == (
        f"Readers see {daily}, predictions up to 2025-03-01 by version 1 of the model: complete, audited days only."
    )


def test_a_warning_is_no_problem_and_is_cells_needing_attention(lake, landed):
    landed(MAR_1)
    put_day(MAR_1, audited="warned")
    assert problems(snapshot(), SCHEDULED) == []
    assert [(c.table, c.state) for some in cells_needing_attention(snapshot(), 9) for c in some] == [
        ("quarantine", "warned"),
        ("events", "warned"),
    ]


def test_a_warning_on_a_whole_range_is_one_line(lake, landed):
    landed(MAR_1, MAR_2)
    rows = [event(MAR_1, 1), event(MAR_2, 1)]
    put("events", MAR_1, rows, owns=[MAR_1, MAR_2], run="manual__h--2025-03-01", audited="warned")
    lines = [cells for cells in cells_needing_attention(snapshot(), 9) if cells[0].table == "events"]
    assert [[cell.day for cell in cells] for cells in lines] == [[MAR_2, MAR_1]]


def test_a_failed_audit_says_what_broke_what_readers_see_and_what_to_clear(lake, landed):
    landed(MAR_1, MAR_2)
    put_day(MAR_1)
    put_events(MAR_2, audited="failed")
    problem = only()
    assert problem.what == "quarantine and events of 2025-03-02 failed the audit"
    assert problem.why == ("prices are prices",)
    assert problem.readers == "No rows of quarantine and events for 2025-03-02; other days are not affected."
    assert "clear events.stage of that run with downstream" in problem.safe
    kinds = {link.kind: link.target for link in problem.links}
    assert kinds["run"] == ("behavior_daily", run_of(MAR_2), None)
    assert kinds["docs"] == "/docs/page.html"
    assert kinds["runbook"] == "audit-failed"


def test_a_failed_restatement_says_that_readers_keep_the_old_rows(lake, landed):
    landed(MAR_1)
    put_day(MAR_1)
    put("sessions", MAR_1, [], run="manual__again", audited="failed")
    assert only().readers == "The rows published before for 2025-03-01; other days are not affected."


def test_a_run_at_work_is_no_problem_and_one_that_stopped_is(lake, landed):
    landed(MAR_1)
    put_events(MAR_1, audited="", visible=False)
    run = ("behavior_daily", run_of(MAR_1))
    assert problems(snapshot(), AirflowState(scheduled=True, busy={run: MAR_1})) == []
    problem = only()
    assert "staged, but not audited, and the run is not in progress" in problem.what
    assert "Clear events.audit" in problem.safe


def test_a_staging_by_hand_is_believed_to_be_at_work_for_a_while(lake, landed):
    landed(MAR_1)
    put_events(MAR_1, audited="", visible=False, run="cli-2025-03-01")
    assert problems(snapshot(), SCHEDULED) == []
    for hours, told in ((5, 0), (7, 1)):
        later = LakeSnapshot.load(CACHE, datetime.now(UTC) + timedelta(hours=hours))
        assert len(problems(later, SCHEDULED)) == told, hours


def test_a_staging_of_a_host_whose_clock_was_ahead_is_not_believed_to_be_at_work_for_years(lake, landed):
    landed(MAR_1)
    ahead = datetime.now(UTC) + timedelta(days=27_000)
    run = Run("cli", MAR_1, MAR_1, began=ahead.timestamp())
    stage_files("quarantine", "cli", [], [MAR_1], None, run=run, audited="")
    (problem,) = [one for one in problems(snapshot(), SCHEDULED) if "quarantine" in one.what]
    assert "staged, but not audited, and the run is not in progress" in problem.what


def test_a_landing_day_whose_rows_were_refused_is_noted_until_it_is_published_again(lake, landed):
    landed(MAR_1)
    put_events(MAR_1, run="newer", basis=9)
    put_events(MAR_1, run="older", basis=2)
    noted = [line for line in notes(snapshot(), SCHEDULED) if "refused" in line]
    assert noted == [
        f"Rows of {table} for 2025-03-01 were refused: readers see those of a run that began later."
        for table in ("quarantine", "events")
    ]
    # Sessions are refused in any backfill: who asks for the day is told.
    put("sessions", MAR_1, [], run="newer", basis=9)
    put("sessions", MAR_1, [], run="older", basis=2)
    assert len([line for line in notes(snapshot(), SCHEDULED) if "refused" in line]) == 2
    put_events(MAR_1, run="newest", basis=9)
    assert not any("refused" in line for line in notes(snapshot(), SCHEDULED))


def test_days_that_did_not_land_are_told_together(lake, landed):
    landed(MAR_1, MAR_4)
    put_day(MAR_1)
    put_day(MAR_4)
    problem = only()
    assert problem.what == "not landed: 2025-03-02 to 2025-03-03"
    assert [link.target for link in problem.links] == ["landing-missing"]


def test_a_landed_day_waits_for_a_person_where_no_schedule_runs(lake, landed):
    landed(MAR_1, MAR_2)
    put_day(MAR_1)
    by_hand = AirflowState(scheduled=False)
    assert problems(snapshot(), by_hand) == []
    assert any("Landed, but not loaded yet: 2025-03-02" in note for note in notes(snapshot(), by_hand))
    assert only(SCHEDULED, MAR_2).what.startswith("events for 2025-03-02 are missing")


def test_what_is_not_due_yet_is_no_problem(lake, landed):
    landed(MAR_1, MAR_2)
    put_day(MAR_1)
    put_predictions(MAR_1, [])
    # The night's run has brought events; what is made from them follows within the hour.
    put_events(MAR_2)
    assert problems(snapshot(MAR_1), SCHEDULED) == []
    after_events = [group for group in groups_of("behavior_daily") if group != "events"]
    assert [problem.what.split()[0] for problem in problems(snapshot(MAR_2), SCHEDULED)] == after_events


def test_a_landed_day_that_is_being_loaded_is_no_problem(lake, landed):
    landed(MAR_1, MAR_2)
    put_day(MAR_1)
    for busy in ({("behavior_daily", run_of(MAR_2)): MAR_2}, {("behavior_history", "manual__x"): None}):
        assert problems(snapshot(), AirflowState(scheduled=True, busy=busy)) == []


def test_what_lacks_its_input_is_told_once(lake, landed):
    landed(MAR_1, MAR_2, MAR_3)
    put_day(MAR_1)
    put_day(MAR_3)
    put_predictions(MAR_1, [])
    put_predictions(MAR_3, [])
    assert only().what.startswith("events for 2025-03-02 are missing")


def test_missing_predictions_name_the_dag_that_makes_them(lake, landed):
    landed(MAR_1, MAR_2)
    put_day(MAR_1)
    put_day(MAR_2)
    put_predictions(MAR_1, [])
    problem = only()
    assert problem.what == (
        "predictions for 2025-03-02 are missing: their input is published, but no run has produced them"
    )
    assert "Run predict_daily" in problem.safe


def failed(day: date, ended: datetime, task: str, dag_id: str = "behavior_daily") -> AirflowState:
    return AirflowState(scheduled=True, failed=(FailedRun(dag_id, run_of(day), day, ended, ((task, -1),)),))


@pytest.mark.parametrize(
    ("task", "section"),
    [
        ("wait_for_landing", "landing-missing"),
        ("events.audit", "audit-failed"),
        ("all_days", "audit-failed"),
        ("events.publish", "publish-refused"),
        ("events.stage", ""),  # many causes: its log names the section
    ],
)
def test_a_run_that_failed_before_it_staged_anything_is_told(lake, landed, task, section):
    landed(MAR_1)
    put_day(MAR_1)
    problem = only(failed(MAR_2, datetime.now(UTC), task))
    assert problem.what == f"behavior_daily of 2025-03-02 failed in {task}"
    assert [link.target for link in problem.links if link.kind == "runbook"] == [section]
    assert problem.links[0].target == ("behavior_daily", run_of(MAR_2), (task, -1))


def test_a_failed_audit_is_not_told_again_as_a_failed_run(lake, landed):
    landed(MAR_1)
    put_events(MAR_1, audited="failed")
    assert "failed the audit" in only(failed(MAR_1, datetime.now(UTC), "events.audit")).what


def test_a_failed_run_is_over_once_another_has_published_the_day(lake, landed):
    landed(MAR_1)
    put_day(MAR_1)
    assert problems(snapshot(), failed(MAR_1, datetime.now(UTC) - timedelta(hours=1), "events.stage")) == []
    assert len(problems(snapshot(), failed(MAR_1, datetime.now(UTC) + timedelta(hours=1), "events.stage"))) == 1


def test_late_data_is_named_by_the_days_of_the_sessions_that_lack_it(lake, landed):
    landed(MAR_1, MAR_2)
    put_day(MAR_1)
    put_day(MAR_2)
    put("sessions", MAR_2, [], run="manual__late", basis=2, counts={"postponed": [str(MAR_1)]})
    problem = only()
    assert problem.what == "sessions of 2025-03-01 do not include late events"
    assert problem.readers == "`events` includes the late events; `sessions` of those days does not yet."
    assert problem.safe.startswith("Run the `late-data` commands from the plan below.")


def test_late_data_of_long_ago_is_planned_from_the_day_on_which_it_landed(lake, landed):
    long_ago = date(2023, 3, 1)
    landed(long_ago, MAR_1)
    put_day(MAR_1)
    put("sessions", long_ago, [], run="manual__late", basis=2, counts={"postponed": ["2023-02-01"]})
    problem = next(one for one in problems(snapshot(), SCHEDULED) if "late events" in one.what)
    assert problem.safe.startswith(
        "Run the `late-data` commands from `meander plan --reason late-data --from 2023-03-01`."
    )


def test_the_worst_is_told_first(lake, landed):
    days = [date(2025, 3, n) for n in range(1, 8)]
    # The fifth has landed, and nobody has loaded it.
    broken, stopped, gap = days[1:4]
    landed(*(day for day in days if day != gap))
    put_day(days[0])
    put_events(broken, audited="failed")
    put_events(stopped, audited="passed", visible=False)
    put_day(days[5])
    put("sessions", days[5], [], run="manual__late", basis=9, counts={"postponed": [str(days[0])]})
    found = problems(
        snapshot(days[5]),
        failed(days[6], datetime.now(UTC), "wait_for_landing"),
        [{"kind": "volume", "why": "half as many events as usual", "section": "volume-unusual"}],
    )
    assert [problem.what for problem in found] == [
        "quarantine and events of 2025-03-02 failed the audit",
        "quarantine and events of 2025-03-03: audited, but not published, and the run is not in progress",
        "behavior_daily of 2025-03-07 failed in wait_for_landing",
        "not landed: 2025-03-04",
        "events for 2025-03-05 are missing: their input has landed, but no run has produced them",
        "sessions of 2025-03-01 do not include late events",
        "volume: half as many events as usual",
    ]
    # Its audit has passed, so it is the publish that has to run.
    assert found[1].safe.startswith("Clear events.publish of that run with downstream.")
    for problem in found:
        assert_the_runbook_has(problem)


def test_a_warning_is_told_for_four_weeks_of_days(lake, landed):
    last = date(2025, 3, 29)
    landed(MAR_1, MAR_2, last)
    put_events(MAR_1, audited="warned")
    put_events(MAR_2, audited="warned")
    put_events(last)
    assert warned_lately(snapshot()) == {"quarantine": [MAR_2], "events": [MAR_2]}


def test_what_is_cells_needing_attention_begins_with_the_newest_day_and_ends_at_the_limit(lake, landed):
    landed(MAR_1, MAR_2, MAR_3)
    for day in (MAR_1, MAR_2, MAR_3):
        put_events(day, audited="warned")
    found = [(cells[0].day, cells[0].table) for cells in cells_needing_attention(snapshot(), 3)]
    assert found == [(MAR_3, "quarantine"), (MAR_3, "events"), (MAR_3, "sessions")]


def test_freshness_counts_the_days_behind_what_is_expected(lake, landed):
    landed(MAR_1)
    put_day(MAR_1)
    put_predictions(MAR_1, [])
    fresh = {f.table: (f.day, f.days_late) for f in freshness(snapshot(MAR_3))}
    assert fresh["events"] == fresh["predictions"] == (MAR_1, 2)
    assert {f.days_late for f in freshness(snapshot(MAR_1))} == {0}
    assert {f.days_late for f in freshness(snapshot(None))} == {None}


def test_readers_of_an_empty_lake_see_nothing(lake):
    assert readers_see(snapshot()) == "Readers see nothing yet: no table has been published."
    assert problems(snapshot(MAR_1), SCHEDULED) == []


def test_files_that_came_after_the_run_are_a_problem_and_files_that_are_gone_are_said(land, monkeypatch):
    monkeypatch.setattr(state, "LISTED_SECONDS", 0)
    for day in (MAR_1, MAR_2):
        land(day, ["{}"], "a")
        land(day, ["{}"], "b")
    load("manual__r", MAR_1, MAR_2)

    def about_the_landing():
        return [problem for problem in problems(snapshot(), AirflowState(scheduled=False)) if "landing" in problem.what]

    assert about_the_landing() == []
    land(MAR_1, ["{}"], "c")
    land(MAR_2, [], "b").unlink()
    (problem,) = about_the_landing()
    assert problem.what == "the landing of 2025-03-01 has files that no run has read"
    assert problem.why == ("2025-03-01: files in the landing: 3, read: 2; came later: 1 (c)",)
    assert_the_runbook_has(problem)
    said = "Files that were read for 2025-03-02 are gone from the landing; readers keep their rows."
    assert said in notes(snapshot(), AirflowState(scheduled=False))


def test_a_manifest_that_cannot_be_read_is_named(lake, landed):
    landed(MAR_1)
    put_day(MAR_1)
    (lake / "lake" / "_runs" / "foreign").mkdir()
    (lake / "lake" / "_runs" / "foreign" / "events.7-ab.json").write_text("{")
    problem = only()
    assert problem.what.startswith("1 manifest of runs cannot be read")
    assert problem.why == ("foreign/events.7-ab.json",)
