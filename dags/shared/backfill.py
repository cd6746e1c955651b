"""The commands of a reprocessing plan: the DAG or job for each part of it; for `meander plan` and the page."""

import json
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import date, timedelta
from itertools import groupby
from typing import Any

from dags.shared.run_ids import of_plan
from lake.backfill.costs import Costs, total
from lake.backfill.plan import CHUNK_DAYS, BackfillPlan, DayRun, Redo
from lake.days import ONE_DAY
from lake.tables import TABLES, made_by

# `max_active_runs` of these DAGs.
MAX_ACTIVE_RUNS = 2
# Printed for each table; the others are counted, and --json lists all.
MAX_LINES = 20


@dataclass(frozen=True)
class Step:
    """Runs of one kind over a range of days, and the commands that start them.

    Attributes:
        what: the DAG or job.
        first, last: the days, both included.
        tables: the tables to compute, by the names of the DAG's groups.
        runs, partitions, rows, seconds: totals of the runs; seconds are None without a past run to estimate from.
        commands: in the order in which a person types them.
        note: a precondition that a person has to check first.
        sooner: one job over the same days, where that takes less time.
    """

    what: str
    first: date
    last: date
    tables: list[str]
    runs: int
    partitions: int
    rows: int
    seconds: float | None
    commands: list[str]
    note: str = ""
    sooner: "Step | None" = None


def steps(runs: list[DayRun], costs: Costs) -> list[Step]:
    """Return the steps in order: each begins after the previous one has ended.

    Consecutive days of a DAG with the same tables are one backfill.
    """
    todo: list[Step] = []
    for (job, *_), group in groupby(runs, lambda run: (run.job, run.tables, run.model_version, run.include_late)):
        if job in ("behavior", "predictions"):
            todo += [backfill(part, costs) for part in split(list(group), lambda a, b, _: b - a == ONE_DAY)]
        else:
            # Equally spaced dates, which --every can name.
            parts = split(list(group), lambda a, b, step: step in (None, b - a))
            todo += [by_hand(part, costs) for part in parts]
    return todo


def split(runs: list[DayRun], fits: Callable[[date, date, timedelta | None], bool]) -> Iterator[list[DayRun]]:
    """Cut runs, sorted by day, where `fits(day, next day, distance of those before)` does not hold."""
    part: list[DayRun] = []
    for run in runs:
        step = part[1].day - part[0].day if len(part) > 1 else None
        if part and not fits(part[-1].day, run.day, step):
            yield part
            part = []
        part.append(run)
    if part:
        yield part


def backfill(runs: list[DayRun], costs: Costs) -> Step:
    """Return the step that reprocesses these days by an Airflow backfill."""
    run = runs[0]
    if run.job == "behavior":
        dag_id, tables = "behavior_daily", list(dict.fromkeys(TABLES[name].group for name in run.tables))
        conf: dict[str, Any] = {"tables": tables}
    else:
        dag_id, tables, conf = "predict_daily", list(run.tables), {"model_version": run.model_version}
    # Always pass the conf explicitly: a reprocessed run otherwise keeps its earlier conf.
    command = [
        *("airflow", "backfill", "create", "--dag-id", dag_id),
        *("--from-date", str(run.day), "--to-date", str(runs[-1].day)),
        *("--max-active-runs", str(MAX_ACTIVE_RUNS), "--reprocess-behavior", "completed"),
        *("--dag-run-conf", json.dumps(conf)),
    ]
    step = step_of(dag_id, runs, tables, total(run.seconds for run in runs), [command])
    if len(runs) > 1 and run.job == "behavior" and len(run.tables) == 1:
        alone = by_hand(runs, costs)
        if step.seconds is not None and alone.seconds is not None and alone.seconds < step.seconds:
            return replace(step, sooner=alone)
    return step


def by_hand(runs: list[DayRun], costs: Costs) -> Step:
    """Return the step that computes these dates by one job, its audit and its publish."""
    first, last, table = runs[0].day, runs[-1].day, runs[0].tables[0]
    distance = (runs[1].day - first).days if len(runs) > 1 else 1
    every = ["--every", str(distance)] if distance > 1 else []
    late = ["--include-late"] if runs[0].include_late else []
    named = ["--run-id", of_plan(table, first, last)]
    commands = [
        ["python", "-m", made_by(table), "--from", str(first), "--to", str(last), *every, *late, *named],
        ["python", "-m", "expectations.audit", "--table", table, *named],
        ["python", "-m", "lake.publish", "--table", table, *named],
    ]
    seconds = costs.seconds(table, sum(run.rows for run in runs))
    return step_of(made_by(table), runs, [table], seconds, commands)


def step_of(what: str, runs: list[DayRun], tables: list[str], seconds: float | None, commands: list[list[str]]) -> Step:
    """Return the step with the totals of its runs."""
    return Step(
        what,
        runs[0].day,
        runs[-1].day,
        tables,
        len(runs),
        sum(run.covers for run in runs),
        sum(run.rows for run in runs),
        seconds,
        [shlex.join(command) for command in commands],
        "; ".join(run.note for run in runs if run.note),
    )


def history(plan: BackfillPlan) -> str:
    """Return the command that starts `plan.whole`."""
    assert plan.whole is not None
    conf = {
        "from": str(plan.whole.first),
        "to": str(plan.whole.last),
        "chunk_days": CHUNK_DAYS,
        "interests_every": plan.whole.every,
    }
    return shlex.join(["airflow", "dags", "trigger", "behavior_history", "--conf", json.dumps(conf)])


def minutes(seconds: float | None) -> str:
    """Format an estimate.

    >>> minutes(None), minutes(42), minutes(1380)
    ('unknown', '42 s', '23 min')
    """
    if seconds is None:
        return "unknown"
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def merged(entries: list[Redo]) -> Iterator[tuple[str, int, str]]:
    """Merge consecutive days with the same reason into one line each: (days, rows, reason)."""
    part: list[Redo] = []
    for entry in entries:
        if part and (entry.why != part[0].why or entry.day - part[-1].day != ONE_DAY):
            yield span(part[0].day, part[-1].day), sum(e.rows for e in part), part[0].why
            part = []
        part.append(entry)
    yield span(part[0].day, part[-1].day), sum(e.rows for e in part), part[0].why


def span(first: date, last: date) -> str:
    """Format a range of days.

    >>> span(date(2017, 1, 1), date(2017, 1, 1)), span(date(2017, 1, 1), date(2017, 1, 2))
    ('2017-01-01', '2017-01-01 to 2017-01-02')
    """
    return str(first) if first == last else f"{first} to {last}"
