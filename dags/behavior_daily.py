"""
## One day of behaviour: landing files become events, sessions and interests

Waits until the day has landed, then for each table: *stage* writes files that no reader sees, *audit* validates them
against the table's expectations, *publish* makes them visible in one commit. `sessions` and `interests` are computed
from published `events`, in parallel; `interests` also waits for runs of earlier days that are in progress.

**If it fails**
- `wait_for_landing` (after two days): the shop has not delivered. Ask for the files, then clear the task.
- `stage`: the log names the invalid file or setting. Nothing is published; repair it, then clear the task.
- `audit`: a critical expectation failed. The log names it, and the button *Data docs* shows examples. Readers
  see the rows published before. Have the landing repaired, then clear `stage` **with downstream**.
- `publish`: clear it. Publishing twice changes nothing.

Each message ends in its section of `docs/runbook.md`; an error that has one is not retried.

**Clear or backfill** any day, in any order, also while other days run: a run replaces exactly the partitions that it
owns, and rows computed from older events never replace newer ones. `meander plan` lists the days to reprocess; the
parameter *tables* limits a run to some tables. One case needs a person: when a day is repaired after later days have
run, their `interests` do not include it (their audit has warned: *every landing day of the lookback is published*).
Clear the group `interests` of those days.
"""

from datetime import timedelta

import pendulum
from airflow.sdk import CronDataIntervalTimetable, Param, TaskGroup, dag

from dags.shared.deadlines import expected
from dags.shared.waits import WaitForEarlierDays, WaitForLanding
from dags.shared.wiring import ALLOW_SHRINK, DAG_DEFAULTS, DAY, SHRINK_FLAGS, stage_audit_publish
from lake.tables import comes_after, groups_of

GROUPS = groups_of("behavior_daily")
# Renders to True or False.
WANTED = "{{{{ '{}' in params.tables }}}}"


@dag(
    # Runs for a UTC day once it has ended. `@daily` would have no interval, and so no day.
    schedule=CronDataIntervalTimetable("0 0 * * *", timezone="UTC"),
    # Airflow backfills no day before this one, and logs may be old.
    start_date=pendulum.datetime(2000, 1, 1, tz="UTC"),
    # One day may wait for its landing while another is processed; more would only queue for the pool.
    max_active_runs=2,
    deadline=expected(", ".join(GROUPS)),
    tags=["behavior", "tier_1"],
    doc_md=__doc__,
    params={
        "tables": Param(
            list(GROUPS),
            type="array",
            items={"type": "string", "enum": list(GROUPS)},
            minItems=1,
            title="Tables",
            description="The tables to compute; the others do not change. `meander plan` names those that need it",
        ),
        "allow_shrink": ALLOW_SHRINK,
    },
    **DAG_DEFAULTS,
)
def behavior_daily() -> None:
    landed = WaitForLanding(
        task_id="wait_for_landing", day=DAY, wanted=WANTED.format("events"), timeout=timedelta(days=2)
    )

    groups = {}
    for table in GROUPS:
        with TaskGroup(table) as groups[table]:
            # A group that is not wanted is skipped, which does not block the groups after it.
            rule = "all_success" if table == "events" else "none_failed"
            wanted, flags = WANTED.format(table), SHRINK_FLAGS.get(table, [])
            stage_audit_publish(table, ["--day", DAY], flags=flags, wanted=wanted, trigger_rule=rule)

    # Other tables need no such care: rows computed from older events never replace newer ones.
    earlier = WaitForEarlierDays(
        task_id="wait_for_earlier_days",
        day=DAY,
        begins_with="wait_for_landing",
        publishes="events.publish",
        trigger_rule="none_failed",
        timeout=timedelta(days=2),
    )
    landed >> groups["events"] >> earlier
    for table in GROUPS[1:]:
        before = [earlier] if table == "interests" else [groups[name] for name in comes_after(table)]
        before >> groups[table]


behavior_daily()
