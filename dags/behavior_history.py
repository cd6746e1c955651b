"""
## A range of days: load history, or load it again

Cuts the range *from*..*to* into chunks of *chunk_days*; each chunk is **one** Spark job a table, with the same stage,
audit and publish as `behavior_daily`. `events` of all chunks come first, since the interests at the end of a day
include all events that had arrived by then. Chunks make their interests one after the other, since each sums up what
those before it have not. The result equals that of the days run one by one.

**If it fails**
- `split`: *from* is after *to*. Trigger again.
- `all_days`: days of some chunks failed their audit, which the message names. All other days are published, and what is
  made from events was made without these. Have the landing repaired, run `behavior_daily` for these days, then what
  `meander plan --reason late-data` lists.
- `interests.stage`, *nothing was staged*: all dates of interests of the chunk (see *interests_every*) are days that
  failed their audit, and `all_days` does not run. Repair these days, then clear `events.stage` of the chunk with
  downstream.
- another task: as for `behavior_daily`. A chunk is named by its first day. Clear the failed task with
  downstream; published chunks stay published.

**Run it again** at any time, also over published days: each chunk replaces the partitions that it owns. There is no
schedule, so no Airflow backfill: this DAG is the backfill of long ranges.
"""

from datetime import date, timedelta
from typing import Any

import pendulum
from airflow.sdk import Param, dag, task, task_group
from airflow.sdk.exceptions import AirflowFailException

from dags.shared.alerts import FailureNotifier
from dags.shared.publish import require_all_days
from dags.shared.run_ids import FIRST_DAY_OF_CHUNK, of_chunk
from dags.shared.wiring import ALLOW_SHRINK, DAG_DEFAULTS, SHRINK_FLAGS, stage_audit_publish
from lake.tables import GROUPS, comes_after, groups_of


def cut(first: date, last: date, days: int, every: int = 1) -> list[tuple[date, date]]:
    """Cut `first`..`last` into chunks of `days`, counted from the end; the first chunk may be shorter.

    `days` is raised to a multiple of `every`, so that each chunk ends on a day of interests.

    >>> [f"{a:%d}-{b:%d}" for a, b in cut(date(2017, 1, 1), date(2017, 1, 10), days=4)]
    ['01-02', '03-06', '07-10']
    >>> [f"{a:%d}-{b:%d}" for a, b in cut(date(2017, 1, 1), date(2017, 1, 10), days=4, every=3)]
    ['01-04', '05-10']
    """
    days = -(-days // every) * every
    ends = [last - timedelta(days=n) for n in range(0, (last - first).days + 1, days)]
    return [(max(first, end - timedelta(days=days - 1)), end) for end in reversed(ends)]


def per_chunk(table: str, chunks: Any, flags: list[str]) -> Any:
    """Return the task group of one table, mapped over the chunks."""

    # The UI and `make demo` name a chunk by its first day.
    @task_group(group_id=table, default_args={"map_index_template": FIRST_DAY_OF_CHUNK})
    def group(first: Any, last: Any, run: Any) -> None:
        # States need summaries of all days before them: two chunks at once would both sum up the first one.
        in_order = table == "interests"
        span = ["--from", first, "--to", last]
        stage_audit_publish(table, span, run, flags, goes_on=True, one_at_a_time=in_order)

    return group.expand_kwargs(chunks)


@dag(
    schedule=None,
    start_date=pendulum.datetime(2000, 1, 1, tz="UTC"),
    # Two histories in parallel could replace the same partitions.
    max_active_runs=1,
    tags=["behavior", "tier_2"],
    doc_md=__doc__,
    params={
        "from": Param(type="string", format="date", title="From", description="First landing day, UTC"),
        "to": Param(type="string", format="date", title="To", description="Last landing day, included"),
        "chunk_days": Param(
            90,
            type="integer",
            minimum=1,
            maximum=3660,
            title="Days in a chunk",
            description="More days: fewer Spark jobs, more memory; rounded up to a multiple of the next number",
        ),
        "interests_every": Param(
            1,
            type="integer",
            minimum=1,
            maximum=366,
            title="Days between interests",
            description="1: interests at the end of every day. 7: every 7th day, the last one is To",
        ),
        "allow_shrink": ALLOW_SHRINK,
    },
    **DAG_DEFAULTS,
)
def behavior_history() -> None:
    @task
    def split(params: dict[str, Any], run_id: str) -> list[dict[str, str]]:
        first, last = date.fromisoformat(params["from"]), date.fromisoformat(params["to"])
        if first > last:
            raise AirflowFailException(f"from={first} is after to={last}; trigger again with from <= to")
        # Staged files are identified by (run, table), so each chunk needs an id of its own.
        return [
            {"first": str(a), "last": str(b), "run": of_chunk(run_id, a)}
            for a, b in cut(first, last, params["chunk_days"], params["interests_every"])
        ]

    chunks = split()  # type: ignore[call-arg,misc]  # Airflow fills both arguments from its context
    flags = {**SHRINK_FLAGS, "interests": ["--every", "{{ params.interests_every }}"]}
    groups = {table: per_chunk(table, chunks, flags.get(table, [])) for table in groups_of("behavior_daily")}
    for table, group in groups.items():
        [groups[name] for name in comes_after(table)] >> group

    # Its alert has the days of all chunks. Those sent when days were withheld share a cause, and have the first ones.
    @task(on_failure_callback=FailureNotifier(each_run=True))
    def all_days(chunks: list[dict[str, str]]) -> None:
        require_all_days([chunk["run"] for chunk in chunks], [name for group in groups for name in GROUPS[group]])

    list(groups.values()) >> all_days(chunks)  # type: ignore[arg-type]  # Airflow hands over the result


behavior_history()
