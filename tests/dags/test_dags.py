"""Every DAG parses, keeps the house rules, and submits exactly the commands on file."""

from datetime import UTC, date, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk.exceptions import AirflowException, AirflowFailException, ParamValidationError
from airflow.serialization.serialized_objects import DagSerialization
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import UndefinedError

import lake.publish
from dags.behavior_history import cut
from dags.operators import ASSETS, DataDocs, Publish, SparkJob, WaitForEarlierDays, fail_for_good
from lake.errors import AuditFailed, CommitContended, PublishRefused
from lake.staging import Verdict, write_verdict

REPO = Path(__file__).resolve().parents[2]
BAG = DagBag(dag_folder=REPO / "dags")
TASKS = [task for dag in BAG.dags.values() for task in dag.tasks]
GROUPS = [f"{table}.{step}" for table in ("events", "sessions", "interests") for step in ("stage", "audit", "publish")]


def name(task):
    return f"{task.dag_id}.{task.task_id}"


def test_the_bag_holds_exactly_the_dags_and_tasks_we_know():
    assert BAG.import_errors == {}
    assert {dag_id: sorted(dag.task_ids) for dag_id, dag in BAG.dags.items()} == {
        "behavior_daily": sorted([*GROUPS, "wait_for_landing", "wait_for_earlier_days"]),
        "behavior_history": sorted([*GROUPS, "split"]),
    }


@pytest.mark.parametrize("dag", BAG.dags.values(), ids=lambda dag: dag.dag_id)
def test_house_rules(dag):
    assert "**If it fails**" in dag.doc_md
    assert any(tag.startswith("tier_") for tag in dag.tags)
    assert dag.catchup is False
    assert dag.start_date.year < 2010, "Airflow backfills no day before the start date"
    assert all(task.owner == "meander" and task.retries == 2 for task in dag.tasks)
    assert all(task.pool == "spark" for task in dag.tasks if isinstance(task, SparkJob))


@pytest.mark.parametrize("dag", BAG.dags.values(), ids=lambda dag: dag.dag_id)
def test_nothing_is_published_unaudited_and_features_follow_published_events(dag):
    upstream = {task.task_id: task.upstream_task_ids - {"split", "wait_for_landing"} for task in dag.tasks}
    waits = {"wait_for_earlier_days"} & upstream.keys()
    for table in ("events", "sessions", "interests"):
        assert upstream[f"{table}.publish"] == {f"{table}.audit"}
        assert upstream[f"{table}.audit"] == {f"{table}.stage"}
    assert upstream["sessions.stage"] == {"events.publish"}
    assert upstream["interests.stage"] == (waits or {"events.publish"})
    assert all(upstream[wait] == {"events.publish"} for wait in waits)


def test_a_run_processes_the_utc_day_that_has_just_ended():
    timetable = BAG.dags["behavior_daily"].timetable
    assert type(timetable).__name__ == "CronDataIntervalTimetable", "@daily would have an interval of no length"


def render(task):
    """Render a task's templates; what a mapped task gets from its chunk stays a name in angle brackets."""
    ready = task.prepare_for_execution()
    if hasattr(ready, "application_args"):
        chunk = {id(part): f"<{part._key}>" for part in (*ready.application_args, ready.run) if hasattr(part, "_key")}
        ready.application_args = [chunk.get(id(part), part) for part in ready.application_args]
        ready.run = chunk.get(id(ready.run), ready.run)
    ready.render_template_fields(
        {
            "data_interval_start": datetime(2025, 3, 9, tzinfo=UTC),
            "run_id": "golden",
            "params": {"interests_every": 7},
            "task": ready,
        }
    )
    return ready


@pytest.mark.parametrize("task", [t for t in TASKS if isinstance(t, SparkJob)], ids=name)
def test_the_command_submitted(task, golden):
    rendered = render(task)
    golden(
        f"{name(task)}.json",
        {
            "application": str(Path(rendered.application).relative_to(REPO)),
            "args": rendered.application_args,
            "conf": rendered.conf,
            "name": rendered.name,
        },
    )


def test_a_misspelt_name_in_a_template_is_an_error():
    task = BAG.dags["behavior_daily"].get_task("events.stage").prepare_for_execution()
    task.application_args = ["{{ data_intervall_start }}"]
    with pytest.raises(UndefinedError, match="data_intervall_start"):
        task.render_template_fields({"run_id": "r", "data_interval_start": datetime(2025, 3, 9, tzinfo=UTC)})


@pytest.mark.parametrize(
    ("first_task", "publish", "goes_on"),
    [
        pytest.param("success", "running", False, id="an earlier day that is worked on is waited for"),
        pytest.param("queued", None, False, id="so is one that has just begun"),
        pytest.param("up_for_reschedule", None, True, id="one that waits for its landing may never come"),
        pytest.param("success", "success", True, id="a published day is not"),
        pytest.param("success", "upstream_failed", True, id="nor one that failed"),
        pytest.param(None, None, True, id="nor one that has not begun: two days would wait for each other"),
    ],
)
def test_interests_wait_for_earlier_days(first_task, publish, goes_on):
    asked = {}

    def get_task_states(**query):
        asked.update(query)
        return {"backfill__1": {"wait_for_landing": first_task, "events.publish": publish}}

    sensor = render(BAG.dags["behavior_daily"].get_task("wait_for_earlier_days"))
    assert isinstance(sensor, WaitForEarlierDays)
    assert sensor.poke({"ti": SimpleNamespace(get_task_states=get_task_states)}) is goes_on
    assert max(asked["logical_dates"]) == datetime(2025, 3, 8, tzinfo=UTC), "the day before"


# --- the form of behavior_history -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("conf", "wrong"),
    [
        ({"from": "2017-01-01", "to": "2017-01-31"}, None),
        ({"from": "2017-01-01"}, "to"),
        ({"from": "yesterday", "to": "2017-01-31"}, "from"),
        ({"from": "2017-01-01", "to": "2017-01-31", "chunk_days": 0}, "chunk_days"),
        ({"from": "2017-01-01", "to": "2017-01-31", "interests_every": "often"}, "interests_every"),
    ],
)
def test_the_form_takes_dates_and_whole_numbers(conf, wrong):
    form = DagSerialization.deserialize_dag(DagSerialization.serialize_dag(BAG.dags["behavior_history"])).params
    if wrong is None:
        assert form.deep_merge(conf).validate()["chunk_days"] == 90
        return
    with pytest.raises((ParamValidationError, ValueError), match=wrong):
        form.deep_merge(conf).validate()


def split(**params):
    call = BAG.dags["behavior_history"].get_task("split").python_callable
    return call({"chunk_days": 90, "interests_every": 1, **params}, "manual__1")


def test_every_chunk_has_a_run_id_of_its_own():
    assert split(**{"from": "2017-01-01", "to": "2017-01-03", "chunk_days": 2}) == [
        {"first": "2017-01-01", "last": "2017-01-01", "run": "manual__1--2017-01-01"},
        {"first": "2017-01-02", "last": "2017-01-03", "run": "manual__1--2017-01-02"},
    ]


def test_a_range_that_ends_before_it_begins_is_refused_for_good():
    with pytest.raises(AirflowFailException, match="from=2017-02-01 is after to=2017-01-01"):
        split(**{"from": "2017-02-01", "to": "2017-01-01"})


@given(
    first=st.dates(date(2016, 1, 1), date(2018, 1, 1)),
    length=st.integers(1, 800),
    days=st.integers(1, 400),
    every=st.integers(1, 40),
)
def test_chunks_cover_the_range_once_and_keep_the_rhythm_of_interests(first, length, days, every):
    last = date.fromordinal(first.toordinal() + length - 1)
    chunks = cut(first, last, days, every)
    covered = [day for a, b in chunks for day in range(a.toordinal(), b.toordinal() + 1)]
    assert covered == list(range(first.toordinal(), last.toordinal() + 1))
    assert all((last - end).days % every == 0 for _, end in chunks)


# --- what a task says ------------------------------------------------------------------------------


def test_the_serialized_dags_keep_the_buttons_to_the_data_docs():
    for dag in BAG.dags.values():
        read_back = DagSerialization.deserialize_dag(DagSerialization.serialize_dag(dag))
        buttons = {task.task_id: sorted(task.extra_links) for task in read_back.tasks if task.extra_links}
        assert buttons == {
            f"{group}.{step}": [f"Data docs: {table}" for table in tables]
            for group, tables in {
                "events": ("events", "quarantine"),
                "sessions": ("sessions",),
                "interests": ("interests",),
            }.items()
            for step in ("audit", "publish")
        }


@pytest.mark.usefixtures("lake")
def test_a_button_leads_to_the_page_of_this_run():
    verdict = Verdict("events", "run 1", "stage", "passed", [], "/meander/data-docs/run-1/events.html", 1.0)
    write_verdict(verdict)
    link = DataDocs("events").get_link
    assert link(SimpleNamespace(run="run 1"), ti_key=None) == "/meander/data-docs/run-1/events.html"
    assert link(SimpleNamespace(run="run 2"), ti_key=None) == "", "a run that was not audited has no page"


def test_a_publish_tells_the_assets_what_readers_now_see(monkeypatch):
    def publish(table, run_id):
        return {
            "table": table, "run_id": run_id, "version": 3, "rows": 7, "partitions": 1, "refused": [],
            "verdict": "warned", "docs": f"/docs/{table}", "already": False,
        }  # fmt: skip

    monkeypatch.setattr(lake.publish, "publish", publish)
    task = Publish(task_id="publish", tables=("quarantine", "events"), run="run 1")
    events = {ASSETS[table]: SimpleNamespace(extra={}) for table in ("quarantine", "events")}
    reports = task.execute({"outlet_events": events})

    assert list(reports) == ["quarantine", "events"]
    assert events[ASSETS["events"]].extra == {
        "rows": 7, "version": 3, "verdict": "warned", "docs": "/docs/events", "run_id": "run 1", "refused": [],
    }  # fmt: skip
    assert task.outlets == [ASSETS["quarantine"], ASSETS["events"]]


def test_what_needs_a_person_is_not_retried_and_what_may_pass_is():
    output = f"Cannot execute.\n12:00 INFO hello\n12:01 ERROR meander: {AuditFailed('price: -1')}\nbye"
    with pytest.raises(AirflowFailException, match=r"^12:01 ERROR.*: price: -1 \[docs.*#audit-failed\]$"):
        fail_for_good(AirflowException(output))
    with pytest.raises(AirflowFailException, match="publish-refused"):
        fail_for_good(PublishRefused("not audited"))
    fail_for_good(CommitContended("others won"))
    fail_for_good(AirflowException("Error code is: 137"))
