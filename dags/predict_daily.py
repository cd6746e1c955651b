"""
## Predictions of one day: where each shopper's interest will move next

Waits until the `interests` of the day are published, scores every user with the champion of the day (*stage*),
*audits* the predictions against the table's expectations, and *publishes* them in one commit.

**If it fails**
- `wait_for_interests` (after two days): `behavior_daily` has not published that day. Repair that run, then clear
  the task.
- `stage`, message *model-missing*: no model had become champion by that day. Let `model_weekly` promote one, or
  choose a version in the form.
- `audit`: a critical expectation failed. The log names it, and the button *Data docs* shows examples. Readers see the
  rows published before. If the model is the cause, run the day again with an older version.
- `publish`: clear it. Publishing twice changes nothing.

Each message ends in its section of `docs/runbook.md`; an error that has one is not retried.

**Clear or backfill** any day, in any order. A past day is scored by the model that was champion *then*, unless
*model_version* names another one. The newest run of a day replaces earlier ones. When the `interests` of a day are
recomputed, clear `stage` of that day here.
"""

from datetime import timedelta

import pendulum
from airflow.sdk import CronDataIntervalTimetable, Param, TaskGroup, dag

from dags.shared.deadlines import expected
from dags.shared.run_ids import RUN_OF_DAG
from dags.shared.waits import WaitForPublished
from dags.shared.wiring import DAG_DEFAULTS, DAY, stage_audit_publish

# Without a version, the job takes the version that was champion on that day.
VERSION = "{{ '--model-version=%d' % params.model_version if params.model_version else '' }}"


@dag(
    # The same days as behavior_daily, from which it waits for its input.
    schedule=CronDataIntervalTimetable("0 0 * * *", timezone="UTC"),
    start_date=pendulum.datetime(2000, 1, 1, tz="UTC"),
    # One day may wait for its interests while another is scored; more would only queue for the pool.
    max_active_runs=2,
    deadline=expected("predictions"),
    tags=["model", "tier_1"],
    doc_md=__doc__,
    params={
        "model_version": Param(
            None,
            type=["null", "integer"],
            minimum=1,
            title="Model version",
            description="A version of the registry; empty: the champion of the day",
        ),
    },
    **DAG_DEFAULTS,
)
def predict_daily() -> None:
    ready = WaitForPublished(task_id="wait_for_interests", table="interests", day=DAY, timeout=timedelta(days=2))
    with TaskGroup("predictions") as predictions:
        stage_audit_publish("predictions", ["--day", DAY, VERSION], RUN_OF_DAG)
    ready >> predictions


predict_daily()
