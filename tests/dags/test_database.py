"""What our tasks ask of Airflow and tell it, its deadlines, and what the page reads of it: with a real database."""

from datetime import UTC, date, datetime, timedelta

import pendulum
import pytest
from airflow.models.asset import AssetEvent, AssetModel
from airflow.models.dag import DagModel
from airflow.models.dagbag import DBDagBag
from airflow.models.dagrun import DagRun
from airflow.models.deadline import Deadline
from airflow.models.hitl import HITLDetail
from airflow.utils.session import create_session
from airflow.utils.state import TaskInstanceState
from sqlalchemy import select, update

from dags.page.airflow_state import AirflowState, FailedRun, load_airflow_state
from dags.shared.evaluation import Evaluation
from lake import storage
from lake.table import Table
from tests.dags.airflow_database import Database
from tests.lake.stagings import rejected, stage_files

MAR_9 = datetime(2025, 3, 9, tzinfo=UTC)
EXPECTED_HOURS = 5


@pytest.fixture(scope="module")
def database():
    with pytest.MonkeyPatch.context() as patch:
        # The deadline of a DAG is what the DAG processor was set to.
        patch.setenv("MEANDER_EXPECTED_HOURS", str(EXPECTED_HOURS))
        return Database()


@pytest.fixture
def airflow(database, lake):
    """Airflow without a run."""
    database.clear()
    return database


# --- interests wait for earlier days ------------------------------------------------------------------------


def days_before(airflow, days):
    """Add runs of `behavior_daily` on days before March 9th: {days before: (its wait for the landing, its publish)}."""
    for before, (landing, publish) in days.items():
        states = {"wait_for_landing": landing, "events.publish": publish}
        airflow.add("behavior_daily", MAR_9 - timedelta(days=before), states, run_type="backfill")


@pytest.mark.parametrize(
    ("days", "goes_on"),
    [
        pytest.param({}, True, id="nothing is at work"),
        pytest.param({1: ("success", "running")}, False, id="the day before is published just now"),
        pytest.param({1: ("queued", None)}, False, id="the day before has just begun"),
        pytest.param({1: ("success", "up_for_retry")}, False, id="its publish is tried again in a minute"),
        pytest.param(
            {1: ("success", "success"), 2: ("success", "success"), 3: ("success", None)},
            False,
            id="the last days are done and an earlier one is staged or audited",
        ),
        pytest.param({30: ("success", "scheduled")}, False, id="a month earlier: its events are history that counts"),
        pytest.param(
            {
                1: ("success", "success"),
                2: ("success", "failed"),
                3: ("success", "upstream_failed"),
                4: ("failed", "upstream_failed"),
                5: ("skipped", "skipped"),
                6: ("success", "removed"),
            },
            True,
            id="each has ended, well or not",
        ),
        pytest.param({1: ("up_for_reschedule", None)}, True, id="one that waits for its landing may never come"),
        pytest.param({1: (None, None)}, True, id="one that has not begun may be waiting for this one"),
        pytest.param({-1: ("success", "running")}, True, id="a later day is none of its history"),
    ],
)
def test_interests_wait_for_every_earlier_day_that_can_still_publish(airflow, days, goes_on):
    days_before(airflow, days)
    own = airflow.add("behavior_daily", MAR_9, {"wait_for_landing": "success", "events.publish": "success"})
    ran = airflow.run("behavior_daily", own, "wait_for_earlier_days")
    assert ran.state == ("success" if goes_on else "up_for_reschedule")


# --- a publish, as a worker runs it ---------------------------------------------------------------------------


def test_a_publish_tells_people_of_warnings_and_the_assets_what_readers_now_see(airflow, lake):
    run = airflow.add("behavior_daily", MAR_9)
    day = MAR_9.date()
    # Two events and a rejected row; the audit has warned of the events alone.
    stage_files("quarantine", run, rejected(day, "?"), [day], 1)
    events = [{"event_id": str(n), "user_id": "ann", "landed": day, "dt": day} for n in range(2)]
    stage_files("events", run, events, [day], 1, audited="warned")
    assert airflow.run("behavior_daily", run, "events.publish").state == "success"

    assert (Table("events").rows_by("landed"), Table("quarantine").rows_by("dt")) == ({day: 2}, {day: 1})
    with create_session() as session:
        found = session.execute(select(AssetModel.name, AssetEvent.extra).join(AssetEvent.asset)).all()
    told = {
        table: {"rows": rows, "version": Table(table).version, "verdict": verdict, "docs": "/docs/page.html",
                "run_id": run, "refused": [], "withheld": []}
        for table, rows, verdict in (("quarantine", 1, "passed"), ("events", 2, "warned"))
    }  # fmt: skip
    assert {name: extra for name, extra in found if name in told} == told
    (alert,) = (storage.read_json(str(file))["text"] for file in (lake / "lake" / "_alerts").glob("*.json"))
    assert alert == (
        "Warning: behavior_daily 2025-03-09 events: prices are prices. Readers see the day. "
        "Runbook: docs/runbook.md#the-audit-warned"
    )


# --- a person is asked ----------------------------------------------------------------------------------------


@pytest.fixture
def approve(airflow, monkeypatch):
    """Run the task that asks; without its buttons, of which one asks MLflow, and that takes seconds."""
    monkeypatch.setattr(airflow.bag.dags["model_weekly"].get_task("approve"), "operator_extra_links", ())
    return lambda run: airflow.run("model_weekly", run, "approve").state


def decided(run_id, *, promote):
    folder = Evaluation.of(f"model_weekly--{run_id}").folder
    decision = {"promote": promote, "reasons": ["0.04 better than the champion", "no slice is worse"]}
    storage.write_json(storage.join(folder, "decision.json"), decision)


def questions():
    with create_session() as session:
        return session.scalars(select(HITLDetail)).all()


def test_a_person_is_asked_about_a_candidate_that_the_gate_lets_through_and_silence_is_a_no(
    airflow, approve, monkeypatch
):
    monkeypatch.setenv("MEANDER_PROMOTION_APPROVAL", "true")
    run = airflow.add("model_weekly", MAR_9)
    decided(run, promote=True)
    assert approve(run) == "awaiting_input"
    (question,) = questions()
    assert question.subject == "Shall the candidate become champion?"
    assert question.body.startswith(
        "The gate has let it through:\n\n- 0.04 better than the champion\n- no slice is worse\n\n[Evaluation report]("
    )
    assert (question.options, question.defaults) == (["Approve", "Reject"], ["Reject"])
    with create_session() as session:
        task = session.get(DagRun, session.scalar(select(DagRun.id))).get_task_instance("approve", session=session)
        waits = task.trigger_timeout - task.start_date
    # Before the run of the next week, which waits for this one.
    assert timedelta(days=5) < waits < timedelta(days=7)


@pytest.mark.parametrize(
    ("approval", "promote"),
    [
        pytest.param("true", False, id="the gate has refused it"),
        pytest.param("true", None, id="there is no decision"),
        pytest.param("false", True, id="nobody wants to be asked"),
    ],
)
def test_nobody_is_asked_about_a_candidate_that(airflow, approve, monkeypatch, approval, promote):
    monkeypatch.setenv("MEANDER_PROMOTION_APPROVAL", approval)
    run = airflow.add("model_weekly", MAR_9)
    if promote is not None:
        decided(run, promote=promote)
    # It succeeds, so that `promote` runs, and refuses or promotes as the gate has said.
    assert approve(run) == "success"
    assert questions() == []


# --- deadlines ------------------------------------------------------------------------------------------------


def deadline(dag_id):
    with create_session() as session:
        return session.scalar(select(Deadline.deadline_time).join(DagRun).where(DagRun.dag_id == dag_id))


@pytest.mark.parametrize("dag_id", ["behavior_daily", "predict_daily"])
def test_only_a_day_that_the_schedule_runs_has_a_deadline_some_hours_after_its_end(airflow, dag_id):
    for run_type in ("backfill", "manual"):
        airflow.add(dag_id, MAR_9 - timedelta(days=1), run_type=run_type)
        assert deadline(dag_id) is None, run_type
        airflow.clear()
    airflow.add(dag_id, MAR_9)
    assert deadline(dag_id) == datetime(2025, 3, 10, EXPECTED_HOURS, tzinfo=UTC)


def test_a_run_that_is_done_in_time_loses_its_deadline(airflow):
    airflow.add("predict_daily", MAR_9)
    with create_session() as session:
        # It ends now; a deadline in the past has been missed, whatever happens later.
        session.execute(update(Deadline).values(deadline_time=pendulum.tomorrow()))
        run = session.scalar(select(DagRun))
        for task in run.task_instances:
            task.state = TaskInstanceState.SUCCESS
        session.flush()
        run.dag = DBDagBag().get_latest_version_of_dag("predict_daily", session=session)
        run.update_state(session=session, execute_callbacks=False)
    assert deadline("predict_daily") is None


# --- what the page reads ----------------------------------------------------------------------------------------

NOW = datetime(2025, 3, 12, 8, tzinfo=UTC)


def airflow_state() -> AirflowState:
    with create_session() as session:
        return load_airflow_state(session, NOW)


@pytest.mark.parametrize("paused", [False, True])
def test_days_run_by_themselves_unless_their_dag_is_paused(airflow, paused):
    with create_session() as session:
        session.execute(update(DagModel).where(DagModel.dag_id == "behavior_daily").values(is_paused=paused))
    assert airflow_state().scheduled is not paused


def test_runs_at_work_or_queued_are_busy_with_their_day(airflow):
    running = airflow.add("behavior_daily", MAR_9)
    queued = airflow.add("predict_daily", MAR_9, state="queued")
    # Its interval says nothing of the days that it works on.
    history = airflow.add("behavior_history", MAR_9, run_type="manual", conf={"from": "2017-01-01", "to": "2017-12-31"})
    airflow.add("behavior_daily", MAR_9 - timedelta(days=1), state="success", end_date=NOW)
    airflow.add("upkeep_weekly", MAR_9)
    day = date(2025, 3, 9)
    assert airflow_state().busy == {
        ("behavior_daily", running): day,
        ("predict_daily", queued): day,
        ("behavior_history", history): None,
    }


def test_a_failed_run_is_told_with_its_tasks_until_its_day_has_succeeded_or_a_week_has_passed(airflow):
    def ended(before, run_type, state, hours, states=None, dag_id="behavior_daily"):
        end = NOW - timedelta(hours=hours)
        start = MAR_9 - timedelta(days=before)
        return airflow.add(dag_id, start, states, run_type=run_type, state=state, end_date=end), end

    broke = {"events.audit": "failed", "events.publish": "upstream_failed", "sessions.stage": "failed"}
    told, when = ended(0, "scheduled", "failed", 2, broke)
    # The day before: failed, and made by hand since.
    ended(1, "scheduled", "failed", 3)
    ended(1, "manual", "success", 1)
    # The day before that: a run by hand has failed after that of the schedule had succeeded.
    again, later = ended(2, "manual", "failed", 4)
    ended(2, "scheduled", "success", 5)
    # The same day of another DAG is another thing.
    ended(2, "scheduled", "success", 1, dag_id="predict_daily")
    # A little more and a little less than a week ago.
    ended(3, "scheduled", "failed", 7 * 24 + 1)
    old, long_ago = ended(4, "scheduled", "failed", 7 * 24 - 1)
    assert set(airflow_state().failed) == {
        FailedRun("behavior_daily", told, date(2025, 3, 9), when, (("events.audit", -1), ("sessions.stage", -1))),
        FailedRun("behavior_daily", again, date(2025, 3, 7), later, ()),
        FailedRun("behavior_daily", old, date(2025, 3, 5), long_ago, ()),
    }
