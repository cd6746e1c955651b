"""
## Upkeep: fewer and smaller files

Merges the small files of each partition; removes files that no reader, run or model needs: of rows that were replaced
longer ago than `MEANDER_RETENTION_DAYS`, and of stagings that were given up; removes data docs older than
`MEANDER_DOCS_DAYS`. The result of the task has files and bytes, before and after, for each table.

It may run beside anything. What a run is staging, what was replaced within the retention, and versions that a training
or a registered model has pinned stay. A partition that is published while it is merged is left for the next week.

**If it fails**
- `upkeep`: clear it. It starts with what is there, and nothing that is visible to readers was changed.
- A publish says *files that run R staged are gone*: that run waited longer than the retention. Clear its `stage` with
  downstream.

**To see first what it would do**: trigger it with *dry_run*.
"""

import pendulum
from airflow.sdk import CronDataIntervalTimetable, Param, dag

from dags.shared.run_ids import RUN_OF_DAG
from dags.shared.runs import ModelJob
from dags.shared.wiring import DAG_DEFAULTS


@dag(
    # On Sunday morning, when the training of the week has read its tables and most shops sleep.
    schedule=CronDataIntervalTimetable("0 6 * * 0", timezone="UTC"),
    start_date=pendulum.datetime(2000, 1, 2, tz="UTC"),
    # Two would merge the same files.
    max_active_runs=1,
    tags=["lake", "tier_2"],
    doc_md=__doc__,
    params={
        "dry_run": Param(
            False,
            type="boolean",
            title="Dry run",
            description="Say what would be merged and removed, and do nothing",
        ),
    },
    **DAG_DEFAULTS,
)
def upkeep_weekly() -> None:
    # It needs no Spark and no GPU, so it waits for none.
    ModelJob(
        task_id="upkeep",
        module="lake.upkeep",
        arguments=["{{ '--dry-run' if params.dry_run else '' }}"],
        run=RUN_OF_DAG,
        pool="default_pool",
    )


upkeep_weekly()
