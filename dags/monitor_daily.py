"""
## Monitoring of one day: outcomes of predictions, drift, volume

Waits until the `interests` of the day are published, then measures
- the newest *predictions whose horizon has ended* and that have examples (from `model_weekly`, weekly): the metrics of
  the evaluation, by model version, compared with the offline evaluation;
- *drift* of the scores from the day predicted before, and of the users' behaviour from the same weekday before;
- the *volume* of events that landed, compared with the same weekday of the weeks before.

Its findings are in `<lake>/_monitor/` and on the page *Meander*. A finding that needs attention sends an alert, one for
each cause; it fails no run and takes nothing back.

**If it fails**
- `wait_for_interests` (after two days): `behavior_daily` has not published that day. Repair that run, then clear the
  task.
- `watch`: clear it. It only reads tables, and writes its findings again.

**Clear or backfill** any day, in any order. A past day is measured with the tables as they are now.
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
