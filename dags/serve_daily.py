"""
## Predictions of one day for applications: from the lake into PostgreSQL

Waits until the `predictions` of the day are published, *loads* and checks them, and *switches*: from one instant on,
applications see the complete new day. Until the switch they see the previous day, unchanged.

**If it fails**
- `store` and all later tasks are *skipped*: no serving store is set. This is no fault if no application needs one.
- `wait_for_predictions` (after two days): `predict_daily` has not published that day. Repair that run, then clear the
  task.
- `load`, message *serving-unavailable*: the database cannot be reached; clear the task when it can. *serving-refused*:
  too many rows cannot be served, or the database rejects a statement.
- `switch`, message *serving-refused*: more would change than the limits allow; the log has the numbers. Applications
  see the day before. If the change is right, backfill the day again with *force*, or run `meander serve switch --day D
  --force`; if not, repair the predictions.
- `switch` is *skipped*: a later day has been served already, or a person went back from this load.

Each message ends in its section of `docs/runbook.md`; an error with a section is not retried unless it is temporary.

**Clear or backfill** any day, in any order: an old day is loaded and available to `serve_rollback`, but becomes current
only with *even_if_older*. A repeated load changes nothing. When a day is predicted again, clear `load` of that day
here. To go back, see `serve_rollback`.
"""

from datetime import timedelta

import pendulum
from airflow.sdk import CronDataIntervalTimetable, Param, dag

from dags.shared.run_ids import RUN_OF_DAG
from dags.shared.serve import RequireStore, ServeJob
from dags.shared.waits import WaitForPublished
from dags.shared.wiring import DAG_DEFAULTS, DAY

FORCE = "{{ '--force' if params.force else '' }}"
IF_NEWER = "{{ '' if params.even_if_older else '--if-newer' }}"


@dag(
    # The same days as predict_daily, from which it waits for its input.
    schedule=CronDataIntervalTimetable("0 0 * * *", timezone="UTC"),
    start_date=pendulum.datetime(2000, 1, 1, tz="UTC"),
    # One day may wait for its predictions while another is loaded.
    max_active_runs=2,
    tags=["serving", "tier_1"],
    doc_md=__doc__,
    params={
        "force": Param(
            False,
            type="boolean",
            title="Force the switch",
            description="Even if more would change for applications than the limits allow",
        ),
        "even_if_older": Param(
            False,
            type="boolean",
            title="Even if older",
            description="Even if a later day has been served, or this load has been replaced",
        ),
    },
    **DAG_DEFAULTS,
)
def serve_daily() -> None:
    store = RequireStore(task_id="store")
    ready = WaitForPublished(task_id="wait_for_predictions", table="predictions", day=DAY, timeout=timedelta(days=2))
    load = ServeJob(task_id="load", arguments=["load", "--day", DAY], run=RUN_OF_DAG)
    switch = ServeJob(task_id="switch", arguments=["switch", "--day", DAY, FORCE, IF_NEWER], run=RUN_OF_DAG)
    store >> ready >> load >> switch


serve_daily()
