"""A plan as commands: Airflow's own parser and forms take them, and they make what was planned and no more."""

import argparse
import json
import shlex
from datetime import date, timedelta
from pathlib import Path

import pytest
from airflow.cli.cli_parser import get_parser
from airflow.dag_processing.dagbag import DagBag
from airflow.serialization.serialized_objects import DagSerialization

from dags.shared.backfill import history, merged, minutes, steps
from jobs.arguments import as_of_parser, parse_run
from lake.backfill.costs import Costs
from lake.backfill.plan import BackfillPlan, DayRun, HistoryRange, Redo

JAN = [date(2025, 1, n) for n in range(1, 32)]
BAG = DagBag(dag_folder=Path(__file__).resolve().parents[3] / "dags")
COSTS = Costs({"interests": [(10, 5.0)], "examples": [(10, 7.0)]})
COSTS_OF_NOTHING = Costs({name: [] for name in ("sessions", "interests", "examples")})


def behavior(day: date, *tables: str, note: str = "") -> DayRun:
    return DayRun("behavior", day, tables, len(tables), 10, 3.0, note=note)


def commands(*runs: DayRun) -> list[str]:
    return [command for step in steps(list(runs), COSTS) for command in step.commands]


def options(command: str) -> argparse.Namespace:
    """Parse a command as Airflow does."""
    program, *arguments = shlex.split(command)
    assert program == "airflow"
    return get_parser().parse_args(arguments)


def require_form_takes(dag_id: str, conf: dict[str, object]) -> None:
    """Validate a run's parameters as Airflow does."""
    dag = DagSerialization.deserialize_dag(DagSerialization.serialize_dag(BAG.dags[dag_id]))
    assert set(conf) <= set(dag.params), "Airflow would take what no form knows, and the DAG would not look at it"
    dag.params.deep_merge(conf).validate()


def test_days_side_by_side_that_make_the_same_tables_are_one_backfill():
    everything = ("quarantine", "events", "sessions", "interests")
    runs = [
        behavior(JAN[0], *everything),
        behavior(JAN[1], *everything),
        behavior(JAN[2], "sessions"),
        behavior(JAN[4], "sessions"),
    ]
    first, second, third = steps(runs, COSTS)
    assert first.commands == [
        "airflow backfill create --dag-id behavior_daily --from-date 2025-01-01 --to-date 2025-01-02 "
        "--max-active-runs 2 --reprocess-behavior completed "
        """--dag-run-conf '{"tables": ["events", "sessions", "interests"]}'"""
    ]
    assert (first.runs, first.partitions, first.rows, first.seconds) == (2, 8, 20, 6.0)
    assert [(step.first, step.last) for step in (second, third)] == [(JAN[2], JAN[2]), (JAN[4], JAN[4])]


def test_airflow_takes_the_commands_and_the_forms_take_what_they_say():
    version = DayRun("predictions", JAN[0], ("predictions",), 1, 10, 3.0, model_version=3)
    champion = DayRun("predictions", JAN[1], ("predictions",), 1, 10, 3.0)
    found = [options(command) for command in commands(behavior(JAN[0], "interests"), version, champion)]
    assert [(o.subcommand, o.dag_id, o.reprocess_behavior, o.max_active_runs) for o in found] == [
        ("create", "behavior_daily", "completed", 2),
        ("create", "predict_daily", "completed", 2),
        ("create", "predict_daily", "completed", 2),
    ]
    assert [f"{o.from_date:%Y-%m-%d} {o.to_date:%Y-%m-%d}" for o in found] == [
        "2025-01-01 2025-01-01",
        "2025-01-01 2025-01-01",
        "2025-01-02 2025-01-02",
    ]
    confs = [json.loads(o.dag_run_conf) for o in found]
    assert confs == [{"tables": ["interests"]}, {"model_version": 3}, {"model_version": None}]
    for parsed, conf in zip(found, confs, strict=True):
        require_form_takes(parsed.dag_id, conf)


def test_the_range_that_is_sooner_is_a_run_of_history():
    runs = [behavior(day, "events") for day in JAN[:2]]
    plan = BackfillPlan("bad-day", JAN[0], JAN[1], "events", runs=runs, whole=HistoryRange(JAN[0], JAN[1], 7, 20, 4.0))
    parsed = options(history(plan))
    assert (parsed.subcommand, parsed.dag_id) == ("trigger", "behavior_history")
    conf = json.loads(parsed.conf)
    assert conf == {"from": "2025-01-01", "to": "2025-01-02", "chunk_days": 90, "interests_every": 7}
    require_form_takes("behavior_history", conf)


@pytest.mark.usefixtures("lake")
def test_dates_at_one_distance_are_one_job_and_its_audit_and_publish():
    days = [*(JAN[n] for n in (0, 7, 14)), JAN[16], JAN[20]]
    runs = [DayRun("examples", day, ("examples",), 1, 10, 7.0) for day in days]
    found = steps(runs, COSTS)
    named = "--run-id plan--examples--2025-01-01--2025-01-15"
    assert found[0].commands == [
        f"python -m jobs.examples --from 2025-01-01 --to 2025-01-15 --every 7 {named}",
        f"python -m expectations.audit --table examples {named}",
        f"python -m lake.publish --table examples {named}",
    ]
    assert (found[0].runs, found[0].seconds) == (3, 7.0), "one job, which starts once"
    made = []
    for step in found:
        _, _, _, *arguments = shlex.split(step.commands[0])
        run, args = parse_run(as_of_parser("jobs.examples", None, ""), arguments)
        made += [run.first + timedelta(days=n) for n in range(0, (run.last - run.first).days + 1, args.every)]
    assert made == days


@pytest.mark.parametrize(("table", "job"), [("sessions", "jobs.sessionize"), ("interests", "jobs.interests")])
def test_one_job_over_the_days_of_a_backfill_is_named_where_it_takes_less_time(table, job):
    # A job takes 3 s and 0.2 s a row: three of ten rows 15 s, one of thirty 9 s.
    costs = Costs({table: [(10, 5.0), (20, 7.0)]})
    runs = [DayRun("behavior", day, (table,), 1, 10, 5.0) for day in JAN[:3]]
    (step,) = steps(runs, costs)
    assert (step.what, step.seconds) == ("behavior_daily", 15.0)
    assert step.sooner is not None
    assert (step.sooner.what, step.sooner.seconds, step.sooner.tables) == (job, 9.0, [table])
    assert step.sooner.commands == [
        f"python -m {job} --from 2025-01-01 --to 2025-01-03 --run-id plan--{table}--2025-01-01--2025-01-03",
        f"python -m expectations.audit --table {table} --run-id plan--{table}--2025-01-01--2025-01-03",
        f"python -m lake.publish --table {table} --run-id plan--{table}--2025-01-01--2025-01-03",
    ]
    (single,) = steps(runs[:1], costs)
    assert single.sooner is None


def test_no_job_is_named_that_takes_as_long_or_makes_less():
    runs = [DayRun("behavior", day, ("sessions",), 1, 10, 5.0) for day in JAN[:3]]
    (as_long,) = steps(runs, Costs({"sessions": [(10, 5.0), (20, 10.0)]}))
    assert (as_long.seconds, as_long.sooner) == (15.0, None)
    (unknown,) = steps([DayRun("behavior", day, ("sessions",), 1, 10, None) for day in JAN[:3]], COSTS_OF_NOTHING)
    assert (unknown.seconds, unknown.sooner) == (None, None)
    two_tables = [DayRun("behavior", day, ("sessions", "interests"), 2, 10, 5.0) for day in JAN[:3]]
    (both,) = steps(two_tables, Costs({"sessions": [(10, 1.0)], "interests": [(10, 1.0)]}))
    assert both.sooner is None


def test_runs_that_make_the_same_in_another_way_are_steps_of_their_own():
    late = [DayRun("interests", day, ("interests",), 1, 10, 5.0, include_late=True) for day in JAN[:2]]
    examples = [
        DayRun("examples", day, ("examples",), 1, 10, 7.0, include_late=late)
        for day, late in ((JAN[0], True), (JAN[1], False))
    ]
    scored = [
        DayRun("predictions", day, ("predictions",), 1, 10, 3.0, model_version=version)
        for day, version in ((JAN[0], 3), (JAN[1], 3), (JAN[2], 4))
    ]
    found = steps([*late, *examples, *scored], COSTS)
    assert [(step.what, step.first, step.last, step.runs) for step in found] == [
        ("jobs.interests", JAN[0], JAN[1], 2),
        ("jobs.examples", JAN[0], JAN[0], 1),
        ("jobs.examples", JAN[1], JAN[1], 1),
        ("predict_daily", JAN[0], JAN[1], 2),
        ("predict_daily", JAN[2], JAN[2], 1),
    ]
    restated = [step.commands[0] for step in found if "--include-late" in shlex.split(step.commands[0])]
    assert restated == [found[0].commands[0], found[1].commands[0]]


def test_days_side_by_side_of_one_reason_are_one_line():
    redo = [Redo("events", JAN[n], 10, why) for n, why in ((0, "a"), (1, "a"), (2, "b"), (4, "b"))]
    assert list(merged(redo)) == [
        ("2025-01-01 to 2025-01-02", 20, "a"),
        ("2025-01-03", 10, "b"),
        ("2025-01-05", 10, "b"),
    ]


def test_two_minutes_and_more_are_told_in_minutes():
    assert [minutes(seconds) for seconds in (119.0, 120.0, 149.0)] == ["119 s", "2 min", "2 min"]
