"""A plan as commands: Airflow's own parser and forms take them, and they make what was planned and no more."""

import argparse
import io
import json
import shlex
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path

import pytest
from airflow.cli.cli_parser import get_parser
from airflow.dag_processing.dagbag import DagBag
from airflow.serialization.serialized_objects import DagSerialization
from rich.console import Console
from typer.testing import CliRunner

from dags.cli import app
from dags.plan import as_json, show, steps
from jobs.arguments import as_of_parser, parse_run
from lake.plan import Costs, DayRun, Plan, Redo, Untouched, Whole
from tests.lake.daily_runs import DailyRuns
from tests.session_oracle import Landed

JAN = [date(2025, 1, n) for n in range(1, 32)]
BAG = DagBag(dag_folder=Path(__file__).resolve().parents[2] / "dags")
COSTS = Costs({"interests": [(10, 5.0)], "examples": [(10, 7.0)]})


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
    plan = Plan("bad-day", JAN[0], JAN[1], "events", runs=runs, whole=Whole(JAN[0], JAN[1], 7, 20, 4.0))
    parsed = options(as_json(plan)["instead"])
    assert (parsed.subcommand, parsed.dag_id) == ("trigger", "behavior_history")
    conf = json.loads(parsed.conf)
    assert conf == {"from": "2025-01-01", "to": "2025-01-02", "chunk_days": 90, "interests_every": 7}
    require_form_takes("behavior_history", conf)


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
    costs = Costs({"sessions": [(10, 5.0)], "interests": [(10, 5.0)]})
    runs = [DayRun("behavior", day, (table,), 1, 10, 5.0) for day in JAN[:3]]
    (step,) = steps(runs, costs)
    assert (step.what, step.seconds) == ("behavior_daily", 15.0)
    assert step.sooner is not None
    assert step.sooner.seconds == 5.0
    assert step.sooner.commands[0].startswith(
        f"python -m {job} --from 2025-01-01 --to 2025-01-03 --run-id plan--{table}--"
    )
    (single,) = steps(runs[:1], costs)
    assert single.sooner is None


def test_what_was_restated_with_late_events_is_so_again():
    (command, *_) = commands(DayRun("interests", JAN[0], ("interests",), 1, 10, 5.0, include_late=True))
    assert "--include-late" in shlex.split(command)


@pytest.fixture
def shop(lake, monkeypatch) -> Iterator[DailyRuns]:
    """Ann comes each day of a week, and an event of the first day lands six days late."""
    monkeypatch.setenv("MEANDER_LATE_DAYS", "1")
    days = JAN[:7]
    log = [Landed("ann", datetime(2025, 1, day.day, 12), f"e{day.day}", day) for day in days]
    log.append(Landed("ann", datetime(2025, 1, 1, 13), "late", JAN[6]))
    shop = DailyRuns({day: [e for e in log if e.landed == day] for day in days})
    shop.took = 10.0
    for day in days:
        shop.day(day)
    return shop


def invoke(*args: str) -> str:
    ran = CliRunner().invoke(app, ["plan", *args], catch_exceptions=False)
    assert ran.exit_code == 0
    return ran.stdout


def test_a_person_is_told_what_why_how_long_and_what_to_type(shop):
    said = invoke("--reason", "late-data")
    why = "events of 2025-01-01 landed 2025-01-07, older than MEANDER_LATE_DAYS=1"
    assert f"sessions 2025-01-01 to 2025-01-02 2 {why}" in " ".join(said.split())
    assert "In all 10 s of staging and audit" in said
    assert "airflow backfill create --dag-id behavior_daily --from-date 2025-01-01 --to-date 2025-01-01 " in said
    assert "Optional: interests of 2025-01-01 to 2025-01-06 (6) do not know these late events" in said
    assert "Untouched partitions: events 7, sessions 5, interests 7." in said


def test_a_machine_is_told_the_same(shop):
    said = json.loads(invoke("--reason", "late-data", "--json"))
    assert [(entry["table"], entry["day"]) for entry in said["redo"]] == [
        ("sessions", "2025-01-01"),
        ("sessions", "2025-01-02"),
    ]
    (step,) = said["steps"]
    assert (step["what"], step["tables"], step["partitions"], step["seconds"]) == (
        "behavior_daily",
        ["sessions"],
        2,
        10.0,
    )
    assert (said["seconds"], said["instead"]) == (10.0, None)
    assert said["optional"][0]["commands"][0].startswith(
        "python -m jobs.interests --from 2025-01-01 --to 2025-01-06 --include-"
    )


def test_nothing_to_do_is_said_in_words(shop):
    assert invoke("--reason", "late-data", "--to", "2025-01-03") == (
        "Nothing to do for late-data from - to 2025-01-03: every table knows all events that have landed.\n"
    )
    assert "none is published" in invoke("--reason", "bad-day", "--from", "2025-03-01", "--to", "2025-03-01")


def test_a_long_plan_is_shown_in_part_and_says_so():
    redo = [Redo("sessions", JAN[n], 1, f"reason {n}") for n in range(0, 30)]
    plan = Plan("late-data", None, None, "events", redo=redo, untouched=[Untouched("sessions", 0, 0)])
    out = Console(width=150, file=io.StringIO())
    show(plan, out)
    said = out.file.getvalue()
    assert "and 10 more" in said
    assert "Untouched partitions: none." in said
    assert len(as_json(plan)["redo"]) == 30
