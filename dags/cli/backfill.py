"""`meander plan`: what has to be made again, printed for a person or as JSON for a machine."""

import json
from dataclasses import asdict
from itertools import groupby
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table as Grid

from dags.cli.console import AsJson, First, Last, as_date, out
from dags.shared.backfill import LINES, history, merged, minutes, span, steps
from lake.backfill.costs import total
from lake.backfill.plan import BackfillPlan


def plan(
    reason: Annotated[str, typer.Option(help="late-data, code (of a job changed) or bad-day (is delivered again)")],
    first: First = None,
    last: Last = None,
    table: Annotated[str, typer.Option(help="with code: the table whose job changed")] = "events",
    as_json: AsJson = False,
) -> None:
    """Say what has to be made again, why, what it costs, and the commands that do it; nothing is changed."""
    from lake.backfill.planner import plan_backfill
    from lake.settings import settings

    backfill = plan_backfill(settings(), reason, as_date(first), as_date(last), table)
    if as_json:
        out.print_json(json.dumps(for_a_machine(backfill)))
    else:
        show(backfill, out)


def show(plan: BackfillPlan, out: Console) -> None:
    """Print a plan for a person."""
    if not plan.redo:
        days = "" if plan.first is None and plan.last is None else f" from {plan.first or '-'} to {plan.last or '-'}"
        why = "every table knows all events that have landed" if plan.reason == "late-data" else "none is published"
        out.print(f"Nothing to do for {plan.reason}{days}: {why}.")
        return
    grid = Grid("table", "day", "rows now", "why", box=box.SIMPLE)
    grid.columns[2].justify = "right"
    for table, entries in groupby(plan.redo, lambda entry: entry.table):
        lines = list(merged(list(entries)))
        for days, rows, why in lines[:LINES]:
            grid.add_row(table, days, f"{rows:,}", why)
        if len(lines) > LINES:
            grid.add_row("", f"and {len(lines) - LINES} more", "", "--json lists all")
    out.print(grid)
    grid = Grid("step", "runs", "days", "makes", "partitions", "rows now", "estimate", box=box.SIMPLE)
    todo = steps(plan.runs, plan.costs)
    for number, step in enumerate(todo, 1):
        days = span(step.first, step.last)
        counts = (f"{step.partitions:,}", f"{step.rows:,}", minutes(step.seconds))
        grid.add_row(f"{number} {step.what}", str(step.runs), days, ", ".join(step.tables), *counts)
    out.print(grid)
    as_it_is = {"highlight": False, "markup": False, "soft_wrap": True}
    everything = minutes(total(step.seconds for step in todo))
    out.print(f"In all {everything} of staging and audit, as past runs took; Airflow's own waiting comes on top.")
    out.print("In this order, each when the one before has ended (Airflow has one backfill of a DAG at a time):\n")
    for step in todo:
        if step.note:
            out.print(f"# {step.note}", **as_it_is)
        for command in step.commands:
            out.print(command, **as_it_is)
        if step.sooner:
            out.print(
                f"# or by one job, in {minutes(step.sooner.seconds)} instead of {minutes(step.seconds)}:", **as_it_is
            )
            for command in step.sooner.commands:
                out.print(command, **as_it_is)
    if plan.whole:
        out.print(
            f"\nSooner, in {minutes(plan.whole.seconds)}, by few large jobs over {plan.whole.first} to "
            f"{plan.whole.last}; instead of the steps that make events:\n"
        )
        out.print(history(plan), **as_it_is)
    for step in steps(plan.optional, plan.costs):
        dates = f"{span(step.first, step.last)} ({step.runs})"
        out.print(
            f"\nOptional: interests of {dates} do not know these late events, which is right: a state is what was "
            f"known at its date. To restate them all the same ({minutes(step.seconds)}):\n"
        )
        for command in step.commands:
            out.print(command, **as_it_is)
    kept = ", ".join(f"{entry.table} {entry.partitions:,}" for entry in plan.untouched if entry.partitions)
    out.print(f"\nUntouched partitions: {kept or 'none'}. Models and what they were trained on stay as they are.")


def for_a_machine(plan: BackfillPlan) -> dict[str, Any]:
    """Return a plan for a machine, dates as text."""
    content = asdict(plan)
    del content["costs"], content["runs"], content["optional"]
    todo = steps(plan.runs, plan.costs)
    content |= {
        "seconds": total(step.seconds for step in todo),
        "steps": [asdict(step) for step in todo],
        "instead": history(plan) if plan.whole else None,
        "optional": [asdict(step) for step in steps(plan.optional, plan.costs)],
    }
    return json.loads(json.dumps(content, default=str))
