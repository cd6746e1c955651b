"""`meander plan`: the reprocessing plan, printed for a person or as JSON for a machine."""

import json
from dataclasses import asdict
from itertools import groupby
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table as Grid

from dags.cli.console import AsJson, First, Last, as_date, out, print_json
from dags.shared.backfill import MAX_LINES, history, merged, minutes, span, steps
from lake.backfill.costs import total
from lake.backfill.plan import BackfillPlan


def plan(
    reason: Annotated[str, typer.Option(help="late-data, code (of a job changed) or bad-day (is delivered again)")],
    first: First = None,
    last: Last = None,
    table: Annotated[str, typer.Option(help="with code: the table whose job changed")] = "events",
    as_json: AsJson = False,
) -> None:
    """Print the reprocessing plan: partitions, reasons, estimated times and commands. Changes nothing.

    For late-data, without --from, landing days of the last year count, and older ones loaded within it.
    """
    from lake.backfill.planner import plan_backfill
    from lake.settings import settings

    backfill = plan_backfill(settings(), reason, as_date(first), as_date(last), table)
    if as_json:
        print_json(for_a_machine(backfill))
    else:
        show(backfill, out)


def show(plan: BackfillPlan, out: Console) -> None:
    """Print a plan for a person."""
    if not plan.redo:
        days = "" if plan.first is None and plan.last is None else f" from {plan.first or '-'} to {plan.last or '-'}"
        why = (
            "every table already includes all arrived events"
            if plan.reason == "late-data"
            else "no affected partition is published"
        )
        out.print(f"Nothing to reprocess for {plan.reason}{days}: {why}.")
        if plan.scope:
            out.print(plan.scope)
        return
    grid = Grid("table", "day", "rows now", "why", box=box.SIMPLE)
    grid.columns[2].justify = "right"
    for table, entries in groupby(plan.redo, lambda entry: entry.table):
        lines = list(merged(list(entries)))
        for days, rows, why in lines[:MAX_LINES]:
            grid.add_row(table, days, f"{rows:,}", why)
        if len(lines) > MAX_LINES:
            grid.add_row("", f"and {len(lines) - MAX_LINES} more", "", "--json lists all")
    out.print(grid)
    grid = Grid("step", "runs", "days", "tables", "partitions", "rows now", "estimate", box=box.SIMPLE)
    todo = steps(plan.runs, plan.costs)
    for number, step in enumerate(todo, 1):
        days = span(step.first, step.last)
        counts = (f"{step.partitions:,}", f"{step.rows:,}", minutes(step.seconds))
        grid.add_row(f"{number} {step.what}", str(step.runs), days, ", ".join(step.tables), *counts)
    out.print(grid)

    def print_verbatim(text: str) -> None:
        out.print(text, soft_wrap=True)

    estimate = minutes(total(step.seconds for step in todo))
    out.print(
        f"Estimated total: {estimate} for staging and audit, from past runs. "
        "Airflow's scheduling delay is not included."
    )
    out.print(
        "Run the steps in order, each after the previous one has finished: "
        "Airflow runs one backfill of a DAG at a time.\n"
    )
    for step in todo:
        if step.note:
            print_verbatim(f"# {step.note}")
        for command in step.commands:
            print_verbatim(command)
        if step.sooner:
            print_verbatim(f"# or by one job, in {minutes(step.sooner.seconds)} instead of {minutes(step.seconds)}:")
            for command in step.sooner.commands:
                print_verbatim(command)
    if plan.whole:
        out.print(
            f"\nFaster, in {minutes(plan.whole.seconds)}: instead of the steps with events, a few large jobs over "
            f"{plan.whole.first} to {plan.whole.last}:\n"
        )
        print_verbatim(history(plan))
    for step in steps(plan.optional, plan.costs):
        dates = f"{span(step.first, step.last)} ({step.runs})"
        out.print(
            f"\nOptional ({minutes(step.seconds)}): by design, interests of {dates} exclude events that arrived after "
            "their date. To include the late events anyway:\n"
        )
        for command in step.commands:
            print_verbatim(command)
    kept = ", ".join(f"{entry.table} {entry.partitions:,}" for entry in plan.untouched if entry.partitions)
    out.print(f"\nUntouched partitions: {kept or 'none'}. Models and their training data do not change.")
    if plan.scope:
        out.print(plan.scope)


def for_a_machine(plan: BackfillPlan) -> dict[str, Any]:
    """Return a plan as plain values for JSON, dates as text."""
    content = asdict(plan)
    del content["costs"], content["runs"], content["optional"]
    todo = steps(plan.runs, plan.costs)
    content |= {
        "seconds": total(step.seconds for step in todo),
        "steps": [asdict(step) for step in todo],
        "instead": history(plan) if plan.whole else None,
        "optional": [asdict(step) for step in steps(plan.optional, plan.costs)],
    }
    plain: dict[str, Any] = json.loads(json.dumps(content, default=str))
    return plain
