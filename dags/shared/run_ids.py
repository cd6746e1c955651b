"""Run ids: the names of a run's files, rows and commits, and the run of Airflow that each belongs to.

    <run>                           a run of behavior_daily
    <run>--<first>                  a chunk of a run of behavior_history, named by its first day
    <DAG>--<run>                    a run of any other DAG: Airflow gives runs of two DAGs for one date the same id
    cli-<first>-<last>-<time>       a chunk of `meander daily`
    cli-<12 hexadecimal digits>     a command of a person by `meander serve`
    plan--<table>--<first>--<last>  a job of a reprocessing plan, which a person runs

<run> is Airflow's own id of the run, such as `scheduled__2025-03-01T00:00:00+00:00`; <first> and <last> are dates, and
<time> is the time at which the chunk began. The staged files of a run are identified by its run id and the table, in a
folder that `lake.staging.run_folder` names.
"""

import re
import uuid
from datetime import date, datetime

DAILY, HISTORY = "behavior_daily", "behavior_history"
# DAGs whose name is a part of the ids of their runs.
NAMED_DAGS = ("model_weekly", "predict_daily", "monitor_daily", "serve_daily", "serve_rollback", "upkeep_weekly")
WITHOUT_AIRFLOW = ("cli-", "plan--")
# The beginnings of the ids that Airflow creates.
AIRFLOW_PREFIXES = ("scheduled__", "backfill__", "manual__", "asset_triggered__")


def of_dag(dag_id: str, run: str) -> str:
    """Return the id of a run with the name of its DAG.

    >>> of_dag("predict_daily", "scheduled__2025-03-01T00:00:00+00:00")
    'predict_daily--scheduled__2025-03-01T00:00:00+00:00'
    """
    return f"{dag_id}--{run}"


# Templates, for the tasks of a DAG.
RUN = "{{ run_id }}"
RUN_OF_DAG = of_dag("{{ dag.dag_id }}", RUN)
FIRST_DAY_OF_CHUNK = "{{ task.run.split('--')[-1] }}"


def of_chunk(run: str, first: date) -> str:
    """Return the id of a chunk of a run of behavior_history, since each chunk stages files of its own.

    >>> of_chunk("manual__2025-04-01T00:00:00+00:00", date(2025, 1, 1))
    'manual__2025-04-01T00:00:00+00:00--2025-01-01'
    """
    return f"{run}--{first}"


def of_days(first: date, last: date) -> str:
    """Return a new id for days that a person runs without Airflow."""
    return f"cli-{first}-{last}-{datetime.now():%Y%m%dT%H%M%S%f}"  # noqa: DTZ005  a name only


def of_person() -> str:
    """Return a new id for a command of a person on the serving store."""
    return f"cli-{uuid.uuid4().hex[:12]}"


def of_plan(table: str, first: date, last: date) -> str:
    """Return the id of a job of a plan; the same for the same plan.

    >>> of_plan("sessions", date(2025, 1, 4), date(2025, 1, 5))
    'plan--sessions--2025-01-04--2025-01-05'
    """
    return f"plan--{table}--{first}--{last}"


def airflow_run(run_id: str) -> tuple[str, str] | None:
    """Return the DAG and Airflow's own id of a run, or None for a run without Airflow.

    >>> airflow_run("predict_daily--scheduled__2025-03-01T00:00:00+00:00")
    ('predict_daily', 'scheduled__2025-03-01T00:00:00+00:00')
    >>> airflow_run("backfill__2025-03-01T00:00:00+00:00")
    ('behavior_daily', 'backfill__2025-03-01T00:00:00+00:00')
    >>> airflow_run("manual__2025-04-01T00:00:00+00:00--2025-01-01")
    ('behavior_history', 'manual__2025-04-01T00:00:00+00:00')
    """
    if run_id.startswith(WITHOUT_AIRFLOW):
        return None
    dag_id, _, run = run_id.partition("--")
    if dag_id in NAMED_DAGS and run:
        return dag_id, run
    run, _, first = run_id.rpartition("--")
    if run and re.fullmatch(r"\d{4}-\d\d-\d\d", first):
        return HISTORY, run
    return (DAILY, run_id) if run_id.startswith(AIRFLOW_PREFIXES) else None
