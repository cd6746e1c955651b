"""Every DAG parses, keeps the house rules, and submits exactly the commands on file."""

import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pendulum
import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk import BaseSensorOperator
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException, ParamValidationError
from airflow.serialization.serialized_objects import DagSerialization
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import Template, UndefinedError

from dags.behavior_history import cut
from dags.shared.alerts import FailureNotifier
from dags.shared.links import DataDocs
from dags.shared.run_ids import airflow_run
from dags.shared.runs import ModelJob, SparkJob, without_blanks
from dags.shared.serve import RequireStore, ServeJob
from lake.environment import COMMANDS
from lake.staging import Verdict, write_verdict
from tests.lake.stagings import stage_files
from tests.tables import KNOWN, groups_of, of_group

REPO = Path(__file__).resolve().parents[2]
BAG = DagBag(dag_folder=REPO / "dags")
TASKS = [task for dag in BAG.dags.values() for task in dag.tasks]
# The groups of tables that each DAG makes.
MAKES = {
    "behavior_daily": groups_of("behavior_daily"),
    "behavior_history": groups_of("behavior_daily"),
    "model_weekly": groups_of("model_weekly"),
    "predict_daily": groups_of("predict_daily"),
    "monitor_daily": (),
    "upkeep_weekly": (),
    "serve_daily": (),
    "serve_rollback": (),
}
MODEL_STEPS = ("prepare", "pretrain", "finetune", "scratch", "evaluate", "approve", "promote")


def name(task):
    return f"{task.dag_id}.{task.task_id}"


@cache
def scheduler_dag(dag_id):
    """Return a DAG as Airflow's scheduler knows it: read back from the database."""
    return DagSerialization.deserialize_dag(DagSerialization.serialize_dag(BAG.dags[dag_id]))


def groups(dag_id, *steps):
    return [f"{table}.{step}" for table in MAKES[dag_id] for step in steps or ("stage", "audit", "publish")]


def test_the_bag_holds_exactly_the_dags_and_tasks_we_know():
    assert BAG.import_errors == {}
    others = {
        "behavior_daily": ["wait_for_landing", "wait_for_earlier_days"],
        "behavior_history": ["split", "all_days"],
        "model_weekly": ["wait_for_events", *MODEL_STEPS],
        "predict_daily": ["wait_for_interests"],
        "monitor_daily": ["wait_for_interests", "watch"],
        "upkeep_weekly": ["upkeep"],
        "serve_daily": ["store", "wait_for_predictions", "load", "switch"],
        "serve_rollback": ["store", "rollback"],
    }
    assert {dag_id: set(dag.task_ids) for dag_id, dag in BAG.dags.items()} == {
        dag_id: {*groups(dag_id), *others[dag_id]} for dag_id in MAKES
    }


def test_a_variable_that_is_no_setting_takes_no_dag_away(monkeypatch):
    """Its tasks fail and say why; without the DAGs nobody would be told of it."""
    monkeypatch.setenv("MEANDER_LANDNIG", "/x")
    bag = DagBag(dag_folder=REPO / "dags")
    assert (bag.import_errors, bag.dags.keys()) == ({}, BAG.dags.keys())


def test_a_dag_file_and_the_plugin_load_no_engine_no_model_no_pages_and_no_cloud():
    # Each task loads them again, and each look of a sensor.
    check = f"""
import sys
from airflow.dag_processing.dagbag import DagBag
from dags.plugin import MeanderPlugin
assert len(DagBag(dag_folder={str(REPO / "dags")!r}).dags) == {len(MAKES)}
heavy = {{"model", "tensorflow", "keras", "mlflow", "jobs", "deltalake", "boto3", "fastapi"}}
loaded = {{name.split(".")[0] for name in sys.modules}} & heavy | {{"dags.page"}} & set(sys.modules)
assert not loaded, loaded
"""
    ran = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("dag", BAG.dags.values(), ids=lambda dag: dag.dag_id)
def test_house_rules(dag):
    assert "**If it fails**" in dag.doc_md
    assert any(tag.startswith("tier_") for tag in dag.tags)
    assert dag.catchup is False
    assert dag.start_date.year < 2010, "Airflow backfills no day before the start date"
    # Two runs that a person can start at once, or of which one waits; of others, two would be in each other's way.
    assert dag.max_active_runs == (2 if dag.dag_id.endswith("_daily") else 1)
    assert all(task.owner == "meander" for task in dag.tasks)


@pytest.mark.parametrize("task", TASKS, ids=name)
def test_a_task_is_tried_three_times_within_minutes_and_told_when_it_fails_for_good(task):
    assert task.retries == 2
    assert (task.retry_delay, task.max_retry_delay) == (timedelta(minutes=1), timedelta(minutes=30))
    assert task.retry_exponential_backoff
    (told,) = task.on_failure_callback
    assert isinstance(told, FailureNotifier)
    # Its message has all days of the run.
    assert told.each_run == (task.task_id == "all_days")


def test_spark_and_training_are_rationed_by_their_pools_and_training_and_serving_go_to_their_own_workers():
    learns = {"pretrain", "finetune", "scratch", "evaluate"}
    for task in TASKS:
        wanted = "train" if task.task_id in learns else "spark" if isinstance(task, SparkJob) else "default_pool"
        assert task.pool == wanted, name(task)
        # Workers of `serve` alone have the password of the serving store.
        knows_store = isinstance(task, ServeJob | RequireStore)
        assert task.queue == ("train" if task.task_id in learns else "serve" if knows_store else "default"), name(task)


# What each task reads and writes, for the graph of assets in Airflow's UI.
GRAPH = {
    f"{dag_id}.{group}.publish": (KNOWN[group].reads, of_group(group))
    for dag_id, made in MAKES.items()
    for group in made
} | {"model_weekly.promote": ((), ("champion",))}


def test_the_graph_of_assets_shows_what_comes_from_what():
    found = {
        name(task): tuple(tuple(each.name for each in some) for some in (task.inlets, task.outlets)) for task in TASKS
    }
    assert {task: parts for task, parts in found.items() if parts[1]} == GRAPH


@pytest.mark.parametrize("dag", BAG.dags.values(), ids=lambda dag: dag.dag_id)
def test_nothing_is_published_unaudited(dag):
    upstream = {task.task_id: task.upstream_task_ids - {"split"} for task in dag.tasks}
    for table in MAKES[dag.dag_id]:
        assert upstream[f"{table}.publish"] == {f"{table}.audit"}
        assert upstream[f"{table}.audit"] == {f"{table}.stage"}


def test_a_history_stages_the_interests_of_one_chunk_at_a_time_since_each_sums_up_what_those_before_have_not():
    limits = {task.task_id: task.max_active_tis_per_dagrun for task in scheduler_dag("behavior_history").tasks}
    assert {task: limit for task, limit in limits.items() if limit is not None} == {"interests.stage": 1}


@pytest.mark.parametrize("dag_id", ["behavior_daily", "behavior_history"])
def test_a_table_follows_those_that_it_is_made_from_once_they_are_published(dag_id):
    dag = BAG.dags[dag_id]
    upstream = {task.task_id: task.upstream_task_ids - {"split", "wait_for_landing"} for task in dag.tasks}
    # Between events and interests.
    waits = {"wait_for_earlier_days"} & upstream.keys()
    assert all(upstream[wait] == {"events.publish"} for wait in waits)
    follows = {group: {f"{KNOWN[read].group}.publish" for read in KNOWN[group].reads} for group in MAKES[dag_id]}
    assert follows["sessions"] == {"events.publish"}
    follows["interests"] = waits or follows["interests"]
    assert {group: upstream[f"{group}.stage"] for group in MAKES[dag_id]} == follows


def test_a_model_is_judged_beside_one_from_scratch_before_it_is_promoted():
    upstream = {task.task_id: task.upstream_task_ids for task in BAG.dags["model_weekly"].tasks}
    assert upstream["examples.stage"] == {"wait_for_events"}
    assert {step: upstream[step] for step in MODEL_STEPS} == {
        "prepare": {"examples.publish"},
        "pretrain": {"prepare"},
        "finetune": {"pretrain"},
        "scratch": {"pretrain"},
        "evaluate": {"finetune", "scratch"},
        "approve": {"evaluate"},
        "promote": {"approve"},
    }
    assert BAG.dags["model_weekly"].max_active_runs == 1


def test_predictions_follow_published_interests():
    upstream = {task.task_id: task.upstream_task_ids for task in BAG.dags["predict_daily"].tasks}
    assert upstream["predictions.stage"] == {"wait_for_interests"}
    assert BAG.dags["predict_daily"].max_active_runs == 2


def test_a_day_is_served_once_it_is_loaded_and_only_where_there_is_a_store():
    upstream = {task.task_id: task.upstream_task_ids for task in BAG.dags["serve_daily"].tasks}
    assert upstream == {
        "store": set(),
        "wait_for_predictions": {"store"},
        "load": {"wait_for_predictions"},
        "switch": {"load"},
    }
    assert BAG.dags["serve_rollback"].get_task("rollback").upstream_task_ids == {"store"}


@pytest.mark.parametrize("task", [t for t in TASKS if isinstance(t, SparkJob | ModelJob)], ids=name)
def test_the_module_that_a_task_runs_exists(task):
    file = Path(task.application) if isinstance(task, SparkJob) else REPO / f"{task.module.replace('.', '/')}.py"
    assert file.is_file()


@pytest.mark.parametrize(
    ("dag_id", "first", "last"),
    [
        *(
            (f"{each}_daily", "2025-03-11T00:00", "2025-03-12T00:00")
            for each in ("behavior", "predict", "serve", "monitor")
        ),
        # Sunday to Sunday.
        ("model_weekly", "2025-03-02T00:00", "2025-03-09T00:00"),
        ("upkeep_weekly", "2025-03-02T06:00", "2025-03-09T06:00"),
    ],
)
def test_a_run_is_about_the_utc_day_or_week_that_has_just_ended(dag_id, first, last):
    wednesday = pendulum.datetime(2025, 3, 12, 10)
    interval = scheduler_dag(dag_id).timetable.infer_manual_data_interval(run_after=wednesday)
    assert (f"{interval.start:%Y-%m-%dT%H:%M}", f"{interval.end:%Y-%m-%dT%H:%M}") == (first, last)


@pytest.mark.parametrize("dag_id", ["behavior_history", "serve_rollback"])
def test_what_a_person_starts_has_no_schedule(dag_id):
    assert not scheduler_dag(dag_id).timetable.can_be_scheduled


def render(task, **params):
    """Render a task's templates; what a mapped task gets from its chunk stays a name in angle brackets."""
    ready = task.prepare_for_execution()
    if hasattr(ready, "application_args"):
        chunk = {id(part): f"<{part._key}>" for part in (*ready.application_args, ready.run) if hasattr(part, "_key")}
        ready.application_args = [chunk.get(id(part), part) for part in ready.application_args]
        ready.run = chunk.get(id(ready.run), ready.run)
    dag = BAG.dags[task.dag_id]
    defaults = {key: None if key in ("from", "to") else value for key, value in dag.params.dump().items()}
    ready.render_template_fields(
        {
            "data_interval_start": pendulum.datetime(2025, 3, 9),
            # Sunday to Sunday, or one day.
            "data_interval_end": pendulum.datetime(2025, 3, 16 if task.dag_id == "model_weekly" else 10),
            "run_id": "golden",
            "params": {**defaults, **params},
            "task": ready,
            "dag": dag,
            **(dag.user_defined_macros or {}),
        }
    )
    return ready


@pytest.mark.parametrize("module", sorted({t.module for t in TASKS if isinstance(t, SparkJob | ModelJob)}))
def test_what_a_module_gets_of_the_environment_is_written_down(module):
    assert module in COMMANDS


def command_of(task):
    """Return what a task submits to Spark, or the process that it starts."""
    rendered = render(task, interests_every=7) if task.dag_id == "behavior_history" else render(task)
    if isinstance(task, ModelJob):
        return {"command": ["-m", rendered.module, *without_blanks(rendered.arguments)]}
    return {
        "application": str(Path(rendered.application).relative_to(REPO)),
        "args": without_blanks(rendered.application_args),
        "conf": rendered.conf,
        "name": rendered.name,
    }


@pytest.mark.parametrize("dag_id", BAG.dags)
def test_the_commands_of_a_dag(dag_id, golden):
    tasks = [task for task in TASKS if task.dag_id == dag_id and isinstance(task, SparkJob | ModelJob)]
    golden(f"{dag_id}.json", {task.task_id: command_of(task) for task in sorted(tasks, key=name)})


def test_no_file_is_left_of_a_dag_that_is_gone():
    assert {file.stem for file in (Path(__file__).parent / "golden").iterdir()} == BAG.dags.keys()


@pytest.mark.parametrize("task", [t for t in TASKS if isinstance(getattr(t, "run", None), str)], ids=name)
def test_a_run_id_leads_to_the_run_of_airflow_that_has_made_it(task):
    run = "scheduled__2025-03-09T00:00:00+00:00"
    run_id = Template(task.run).render(run_id=run, dag=BAG.dags[task.dag_id])
    assert airflow_run(run_id) == (task.dag_id, run)


def arguments(task_id, dag_id="model_weekly", **params):
    rendered = render(BAG.dags[dag_id].get_task(task_id), **params)
    return without_blanks(rendered.application_args if isinstance(rendered, SparkJob) else rendered.arguments)


def test_what_the_form_says_reaches_the_commands():
    assert "--cold" in arguments("prepare", cold=True)
    said = arguments("pretrain", preset="tiny", epochs=1, workers=2, launcher="spark")
    assert said[:-2] == ["--preset", "tiny", "--epochs=1", "--workers", "2", "--launcher", "spark"]
    assert arguments("finetune", adapter="lora")[:4] == ["--start", "pretrained", "--adapter", "lora"]
    assert "lora" not in arguments("scratch", adapter="lora"), "there is nothing to adapt"
    assert arguments("finetune", dp_noise=1.5)[4] == "--dp-noise=1.5"
    assert "--dp-noise=0.0" not in arguments("finetune"), "without noise a training has all its options"
    assert arguments("predictions.stage", "predict_daily", model_version=3)[2] == "--model-version=3"
    assert len(arguments("predictions.stage", "predict_daily")) == 4, "without a version, the champion of the day"
    assert "--force" in arguments("switch", "serve_daily", force=True)
    assert "--if-newer" not in arguments("switch", "serve_daily", even_if_older=True)
    back = arguments("rollback", "serve_rollback", day="2025-03-08", model_version=2, generation=7)
    assert back[:4] == ["rollback", "--day=2025-03-08", "--model-version=2", "--generation=7"]


def test_examples_are_looked_at_up_to_the_last_date_whose_horizon_is_over(monkeypatch):
    monkeypatch.setenv("MEANDER_HORIZON_DAYS", "28")
    assert arguments("examples.stage", weeks=3)[:4] == ["--from", "2025-02-01", "--to", "2025-02-15"]
    prepare = arguments("prepare", weeks=3)
    assert prepare[prepare.index("--alike-from") + 1] == "2025-02-01", "older ones may be of another horizon"
    waits = render(BAG.dags["model_weekly"].get_task("wait_for_events"))
    assert (waits.table, waits.day) == ("events", "2025-03-15"), "the last day of the horizon of the last date"


@pytest.mark.parametrize(
    ("horizon", "last"),
    [
        # As of Saturday, March 15th: of the Saturdays before, the last whose horizon has ended by then.
        ("7", "2025-03-08"),
        ("8", "2025-03-01"),
        ("14", "2025-03-01"),
        ("30", "2025-02-08"),
    ],
)
def test_no_label_of_an_example_lies_in_the_future(monkeypatch, horizon, last):
    monkeypatch.setenv("MEANDER_HORIZON_DAYS", horizon)
    assert arguments("examples.stage", weeks=1)[:6] == ["--from", last, "--to", last, "--every", "7"]


def test_upkeep_can_be_asked_to_say_only_what_it_would_do():
    assert arguments("upkeep", "upkeep_weekly", dry_run=True)[0] == "--dry-run"
    assert arguments("upkeep", "upkeep_weekly") == ["--run-id", "upkeep_weekly--golden"]


@pytest.mark.parametrize("task_id", ["wait_for_landing", *(f"{group}.stage" for group in MAKES["behavior_daily"])])
def test_a_run_that_makes_some_tables_skips_the_others(task_id):
    task = BAG.dags["behavior_daily"].get_task(task_id)
    wanted = {"wait_for_landing": "events"}.get(task_id, task_id.split(".")[0])
    others = [table for table in MAKES["behavior_daily"] if table != wanted]
    assert render(task).wanted == render(task, tables=[wanted]).wanted == "True"
    left_out = render(task, tables=others)
    with pytest.raises(AirflowSkipException, match="not in the parameter `tables` of the run"):
        left_out.poke({}) if task_id == "wait_for_landing" else left_out.execute({})


def test_a_skipped_group_holds_up_none_that_comes_after_it():
    dag = BAG.dags["behavior_daily"]
    rules = {task.task_id: task.trigger_rule for task in dag.tasks}
    # Those that come right after another group; within a group, a skipped stage skips its audit and publish.
    after = {*(f"{group}.stage" for group in MAKES["behavior_daily"] if group != "events"), "wait_for_earlier_days"}
    assert rules == {task_id: "none_failed" if task_id in after else "all_success" for task_id in dag.task_ids}


def test_a_misspelt_name_in_a_template_is_an_error():
    task = BAG.dags["behavior_daily"].get_task("events.stage").prepare_for_execution()
    task.application_args = ["{{ data_intervall_start }}"]
    with pytest.raises(UndefinedError, match="data_intervall_start"):
        task.render_template_fields({"run_id": "r", "data_interval_start": datetime(2025, 3, 9, tzinfo=UTC)})


WAITS = {
    "behavior_daily.wait_for_landing",
    "behavior_daily.wait_for_earlier_days",
    "model_weekly.wait_for_events",
    "predict_daily.wait_for_interests",
    "monitor_daily.wait_for_interests",
    "serve_daily.wait_for_predictions",
}


def test_what_waits_gives_its_worker_back_between_two_looks_and_gives_up_after_two_days():
    waits = {name(task): task for task in TASKS if isinstance(task, BaseSensorOperator)}
    assert waits.keys() == WAITS
    for task in waits.values():
        assert (task.mode, task.timeout) == ("reschedule", 2 * 24 * 3600), name(task)
        assert 10 <= task.poke_interval <= 300, name(task)


# --- the forms --------------------------------------------------------------------------------------


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
def test_the_form_of_history_takes_dates_and_whole_numbers(conf, wrong):
    if wrong is None:
        assert form("behavior_history").deep_merge(conf).validate()["chunk_days"] == 90
        return
    with pytest.raises((ParamValidationError, ValueError), match=wrong):
        form("behavior_history").deep_merge(conf).validate()


def form(dag_id):
    return scheduler_dag(dag_id).params


@pytest.mark.parametrize(
    ("dag_id", "conf", "wrong"),
    [
        ("model_weekly", {}, None),
        ("model_weekly", {"preset": "tiny", "epochs": 1, "workers": 2, "launcher": "spark", "cold": True}, None),
        ("model_weekly", {"preset": "huge"}, "preset"),
        ("model_weekly", {"adapter": "prefix"}, "adapter"),
        ("model_weekly", {"workers": 0}, "workers"),
        ("model_weekly", {"epochs": 0}, "epochs"),
        ("predict_daily", {"model_version": 2}, None),
        ("predict_daily", {"model_version": "latest"}, "model_version"),
        ("behavior_daily", {"tables": ["sessions"]}, None),
        ("behavior_daily", {"tables": ["orders"]}, "tables"),
        ("behavior_daily", {"tables": []}, "tables"),
        ("upkeep_weekly", {"dry_run": True}, None),
        ("upkeep_weekly", {"dry_run": "perhaps"}, "dry_run"),
        ("serve_daily", {"force": True, "even_if_older": True}, None),
        ("serve_daily", {"force": "yes"}, "force"),
        ("serve_rollback", {"day": "2025-03-08", "model_version": 1, "generation": 1}, None),
        ("serve_rollback", {"day": "yesterday"}, "day"),
        ("serve_rollback", {"generation": 0}, "generation"),
    ],
)
def test_the_forms_take_what_the_commands_take(dag_id, conf, wrong):
    if wrong is None:
        form(dag_id).deep_merge(conf).validate()
        return
    with pytest.raises((ParamValidationError, ValueError), match=wrong):
        form(dag_id).deep_merge(conf).validate()


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


@pytest.mark.parametrize("dag", BAG.dags.values(), ids=lambda dag: dag.dag_id)
def test_the_serialized_dags_keep_their_buttons(dag):
    tasks = scheduler_dag(dag.dag_id).tasks
    buttons = {task.task_id: sorted(task.extra_links) for task in tasks if task.extra_links}
    docs = {
        group: [f"Data docs: {table}" for table in sorted(of_group(group.split(".")[0]))]
        for group in groups(dag.dag_id, "audit", "publish")
    }
    judged = {
        step: ["Evaluation report", "MLflow"] for step in ("evaluate", "approve", "promote") if step in dag.task_ids
    }
    assert buttons == docs | judged


def audited(run_id: str, docs: str) -> None:
    """Leave what a run and its audit leave of events."""
    staged = stage_files("events", run_id, [], [date(2025, 1, 1)], 1, audited="")
    write_verdict(Verdict("events", run_id, staged.stage_id, "passed", [], docs, 1.0))


@pytest.mark.usefixtures("lake")
def test_a_button_leads_to_the_page_of_this_run():
    audited("run 1", "/meander/data-docs/run-1/events.html")
    link = DataDocs("events").get_link
    assert link(SimpleNamespace(run="run 1"), ti_key=None) == "/meander/data-docs/run-1/events.html"
    assert link(SimpleNamespace(run="run 2"), ti_key=None) == "", "a run that was not audited has no page"


@pytest.mark.usefixtures("lake")
def test_a_button_leads_below_the_path_that_airflow_has_on_its_server(monkeypatch):
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://shop.example/tools/airflow/")
    for run, docs in (("here", "/meander/data-docs/run/events.html"), ("elsewhere", "https://docs.example/x.html")):
        audited(run, docs)
    link = DataDocs("events").get_link
    assert link(SimpleNamespace(run="here"), ti_key=None) == "/tools/airflow/meander/data-docs/run/events.html"
    assert link(SimpleNamespace(run="elsewhere"), ti_key=None) == "https://docs.example/x.html"


@pytest.mark.parametrize("dag_id", ["behavior_daily", "behavior_history"])
def test_a_person_may_let_a_delivery_shrink_and_only_the_job_that_reads_it_hears_of_it(dag_id):
    def flagged(**params):
        tasks = (task for task in BAG.dags[dag_id].tasks if isinstance(task, SparkJob))
        more = {"interests_every": 1} if dag_id == "behavior_history" else {}
        return [task.task_id for task in tasks if "--allow-shrink" in render(task, **more, **params).application_args]

    assert flagged(allow_shrink=True) == ["events.stage"]
    assert flagged() == []
