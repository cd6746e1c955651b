"""
## Back to what applications saw before

One task, by hand, for when the predictions that applications see are wrong. From one instant on they see an older
load, whole: without parameters the one that was served before, or the newest of a day, of a model version, or the
generation with a number. `meander serve status` lists what there is. It takes seconds, and nothing is computed but
a comparison for the record.

What was gone back from does not come back by itself; the next *day* does, when `serve_daily` has loaded it. So mend
its predictions too (let another model version be champion), or pause `serve_daily`.

**If it fails**
- `rollback`, message *generation-missing*: nothing in the store fits. Load the day again: `meander serve load --day D`.
- `rollback`, message *serving-unavailable*: the database cannot be reached. Applications cannot reach it either.

Clearing the task goes back once, and not one further each time. To go forward again: `meander serve switch --day D`.
"""

import pendulum
from airflow.sdk import Param, dag

from dags.shared.run_ids import RUN_OF_DAG
from dags.shared.serve import RequireStore, ServeJob
from dags.shared.wiring import DAG_DEFAULTS

DAY = "{{ '--day=%s' % params.day if params.day else '' }}"
VERSION = "{{ '--model-version=%d' % params.model_version if params.model_version else '' }}"
GENERATION = "{{ '--generation=%d' % params.generation if params.generation else '' }}"


@dag(
    schedule=None,
    start_date=pendulum.datetime(2000, 1, 1, tz="UTC"),
    max_active_runs=1,
    tags=["serving", "tier_1"],
    doc_md=__doc__,
    params={
        "day": Param(
            None,
            type=["null", "string"],
            format="date",
            title="Day",
            description="Back to the newest load of this day; empty: what was served before",
        ),
        "model_version": Param(
            None,
            type=["null", "integer"],
            minimum=1,
            title="Model version",
            description="Back to the newest day that this version predicted",
        ),
        "generation": Param(
            None,
            type=["null", "integer"],
            minimum=1,
            title="Generation",
            description="Back to this load",
        ),
    },
    **DAG_DEFAULTS,
)
def serve_rollback() -> None:
    rollback = ServeJob(task_id="rollback", arguments=["rollback", DAY, VERSION, GENERATION], run=RUN_OF_DAG)
    RequireStore(task_id="store") >> rollback


serve_rollback()
