"""
## Upkeep: fewer and smaller files

Merges the small files of each partition; removes files that no reader, run or model needs: of rows that were replaced
longer ago than `MEANDER_RETENTION_DAYS`, and of stagings that were never published; removes data docs older than
`MEANDER_DOCS_DAYS`. Texts of rejected rows, events and landing files go when the settings `MEANDER_KEEP_*_DAYS` say so.
The result of the task has files and bytes, before and after, for each table.

It may run in parallel with every other run. It keeps the files of a run in progress, rows replaced within the
retention, and versions that a training or a registered model has pinned. A partition that is published while it is
merged is skipped until the next week.

**If it fails**
- `upkeep`: the message names the tables that have a problem, see the runbook; the others were maintained. Clear it.
  Readers see the same rows as before.
- A publish fails with *files that run R staged are gone*: that run waited longer than the retention. Clear its `stage`
  with downstream.

**To preview its result**: trigger it with *dry_run*.
"""

import pendulum
from airflow.sdk import CronDataIntervalTimetable, Param, dag

from dags.shared.run_ids import RUN_OF_DAG
from dags.shared.runs import ModelJob
from dags.shared.wiring import DAG_DEFAULTS


@dag(
    # On Sunday morning, when the training of the week has read its tables and traffic is low.
    schedule=CronDataIntervalTimetable("0 6 * * 0", timezone="UTC"),
    start_date=pendulum.datetime(2000, 1, 2, tz="UTC"),
    # Two runs in parallel would merge the same files.
    max_active_runs=1,
    tags=["lake", "tier_2"],
    doc_md=__doc__,
    params={
        "dry_run": Param(
            False,
            type="boolean",
            title="Dry run",
            description="Report the files that would be merged and removed, and change nothing",
        ),
    },
    **DAG_DEFAULTS,
)
def upkeep_weekly() -> None:
    # It needs no Spark and no GPU, so it waits for no slot of their pools.
    ModelJob(
        task_id="upkeep",
        module="lake.upkeep",
        arguments=["{{ '--dry-run' if params.dry_run else '' }}"],
        run=RUN_OF_DAG,
        pool="default_pool",
    )


upkeep_weekly()
