"""
## What became of one day: outcomes against predictions, drift, volume

Waits until the `interests` of the day are published, then looks at
- the newest *predictions whose horizon is over* and that have examples (`model_weekly` makes those, weekly): the
  metrics of the evaluation, by model version, beside what the evaluation had promised;
- *drift* of the scores against the day predicted before, and of what users do against the same weekday before;
- the *volume* that landed against the same weekday of the weeks before.

What it finds is kept in `<lake>/_monitor/` and shown on the page *Meander*. What somebody has to look at is told, one
message for each cause; it fails nothing and takes nothing back.

**If it fails**
- `wait_for_interests` (after two days): `behavior_daily` has not published that day. Mend it there, then clear the
  task.
- `watch`: clear it. It only reads, and writes its findings again.

**Clear or backfill** any day, in any order. A past day is looked at with the tables as they are now.
"""

from datetime import timedelta

import pendulum
from airflow.sdk import CronDataIntervalTimetable, dag

from dags.shared.model import Monitor
from dags.shared.run_ids import RUN_OF_DAG
from dags.shared.waits import WaitForPublished
from dags.shared.wiring import DAG_DEFAULTS, DAY


@dag(
    schedule=CronDataIntervalTimetable("0 0 * * *", timezone="UTC"),
    start_date=pendulum.datetime(2000, 1, 1, tz="UTC"),
    max_active_runs=2,
    tags=["model", "tier_2"],
    doc_md=__doc__,
    **DAG_DEFAULTS,
)
def monitor_daily() -> None:
    ready = WaitForPublished(task_id="wait_for_interests", table="interests", day=DAY, timeout=timedelta(days=2))
    watch = Monitor(task_id="watch", arguments=["--day", DAY], run=RUN_OF_DAG)
    ready >> watch


monitor_daily()
