"""Shared by every DAG: the defaults, and stage >> audit >> publish for a table."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from airflow.sdk import Param
from jinja2 import StrictUndefined

from dags.shared.alerts import FailureNotifier
from dags.shared.assets import ASSETS
from dags.shared.publish import Publish
from dags.shared.run_ids import RUN
from dags.shared.runs import SparkJob
from lake.tables import GROUPS, made_by, read_by

DAY = "{{ data_interval_start | ds }}"

# The parameter by which a person takes a delivery that has lost something, and the flag of the stage step that it sets.
ALLOW_SHRINK = Param(
    False,
    type="boolean",
    title="Allow shrink",
    description="Take a delivery that has fewer files or rows of a day than readers see",
)
SHRINK_FLAGS = {"events": ["{{ '--allow-shrink' if params.allow_shrink else '' }}"]}

# Arguments of every @dag; each DAG states only what differs.
DAG_DEFAULTS: dict[str, Any] = {
    "catchup": False,
    "template_undefined": StrictUndefined,  # a misspelt name in a template fails the task, not vanishes
    "default_args": {
        "owner": "meander",
        # Two more tries outlast a restarted node. An error that needs a person is not retried: `raise_without_retry`.
        "retries": 2,
        "retry_delay": timedelta(minutes=1),
        "retry_exponential_backoff": True,
        "max_retry_delay": timedelta(minutes=30),
        "on_failure_callback": FailureNotifier(),
    },
}


def stage_audit_publish(
    table: str,
    span: list[Any],
    run: Any = RUN,
    flags: Sequence[str] = (),
    wanted: str = "True",
    trigger_rule: str = "all_success",
    *,
    goes_on: bool = False,
    one_at_a_time: bool = False,
) -> None:
    """Add the three tasks of a table to the present task group, which has the name of the table.

    Args:
        table: the name of the group, a key of `lake.tables.GROUPS`; `events` includes `quarantine`.
        span: the days to run, as flags of the job.
        run: unique for this span: the files that a run staged are identified by (run, table).
        flags: more flags of the job.
        wanted: a template; the group is skipped unless it renders to True.
        trigger_rule: Airflow's, of the first task.
        goes_on: whether the tasks after this group run although days have failed their audit, of the other days.
        one_at_a_time: whether, of the chunks of a run, one at a time is staged, in their order.
    """
    tables = GROUPS[table]
    inlets = [ASSETS[name] for name in read_by(table)]
    named = [part for name in tables for part in ("--table", name)]

    stage = SparkJob(
        task_id="stage",
        module=made_by(table),
        arguments=[*span, *flags],
        run=run,
        inlets=inlets,
        wanted=wanted,
        trigger_rule=trigger_rule,
        # Of what is ready, Airflow's scheduler takes the lowest map index first.
        max_active_tis_per_dagrun=1 if one_at_a_time else None,
    )
    audit = SparkJob(task_id="audit", module="expectations.audit", arguments=named, run=run, docs=tables)
    publish = Publish(task_id="publish", tables=tables, run=run, goes_on=goes_on, inlets=inlets)
    stage >> audit >> publish
