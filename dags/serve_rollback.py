"""
## Back to what applications saw before

One task, started by hand when the predictions that applications see are wrong. From one instant on they see a complete
older load: without parameters the one that was served before, or the newest load of a day or of a model version, or the
generation with a number. `meander serve status` lists them. It takes seconds, and computes only a comparison for the
record.

The load that was rolled back does not become current again by itself. The next *day* does, when `serve_daily` has
loaded it: repair its predictions too (make another model version champion), or pause `serve_daily`.

**If it fails**
- `rollback`, message *generation-missing*: the store has no such generation. Load the day again:
  `meander serve load --day D`.
- `rollback`, message *serving-unavailable*: the database cannot be reached. Applications cannot reach it either.

A cleared task does not go back one generation further. To go forward again: `meander serve switch --day D`.
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
            description="Back to the newest load of this day; empty: the load that was served before",
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
