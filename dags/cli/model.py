"""The commands around models: versions and evaluations, predictions, one user explained, what came true."""

import json
from dataclasses import asdict
from datetime import date
from typing import Annotated, Any

import typer
from rich import box
from rich.table import Table as Grid
from rich.text import Text

from dags.cli.console import AsJson, Day, First, Last, as_date, libraries_hushed, out, print_json
from lake.errors import ModelMissing, TableMissing
from lake.labels import NAMES
from lake.pseudonyms import in_lake
from lake.settings import settings


def model(
    run_id: Annotated[
        str, typer.Option("--run-id", help="show the evaluation of this training instead: <DAG>--<run id>")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Show the versions of the model: which one is champion, since when, and which a candidate."""
    if run_id:
        _print_evaluation(run_id, as_json)
        return
    from model.versions.registry import SINCE, Registry

    registry = Registry.of(settings())
    champion, candidate = registry.champion(), registry.candidate()
    versions = []
    for version in range(1, max(champion or 0, candidate or 0) + 1):
        try:
            tags = registry.describe(version)
        except ModelMissing:  # deleted by somebody
            continue
        versions.append(
            {
                "version": version,
                "alias": ", ".join(n for n, v in (("champion", champion), ("candidate", candidate)) if v == version),
                # The day from which on it was champion; more than one when people went back to it.
                "champion since": sorted(key.removeprefix(SINCE) for key in tags if key.startswith(SINCE)),
                "run": tags.get("run_id", ""),
                # Of fine-tuning, for each user; empty for a training without differential privacy.
                "privacy": f"epsilon {float(tags['epsilon']):.2f}, delta {tags['delta']}" if "epsilon" in tags else "",
                "code": tags.get("code", ""),
            }
        )
    if as_json:
        print_json(versions)
        return
    if not versions:
        out.print("no version of the model is registered yet; model_weekly, or its commands, make one")
        return
    grid = Grid(*versions[0], box=box.SIMPLE)
    for entry in versions:
        grid.add_row(*(", ".join(v) if isinstance(v, list) else str(v) for v in entry.values()))
    out.print(grid)
    out.print(f"registry: {registry.place}", soft_wrap=True)


def _print_evaluation(run_id: str, as_json: bool) -> None:
    from dags.shared.evaluation import Evaluation, number, verdict

    evaluation = Evaluation.of(run_id)
    decision = evaluation.decision
    if decision is None:
        raise ModelMissing(f"run {run_id!r} has no evaluation: {evaluation.folder} has no decision.json")
    if as_json:
        print_json({"decision": decision, **evaluation.measured})
        return
    # What is ranked, and below it the probabilities: one table of both is wider than a terminal.
    columns = evaluation.columns
    of_label = [task in NAMES for _, task, *_ in columns]
    for chosen in (False, True):
        shown = [at for at, is_label in enumerate(of_label) if is_label == chosen]
        grid = Grid("method", *(columns[at][0] for at in shown), box=box.SIMPLE)
        for column in grid.columns[1:]:
            column.justify = "right"
        for method, values in evaluation.rows():
            if any(values[at] is not None for at in shown):
                grid.add_row(method, *(number(values[at]) for at in shown))
        if grid.rows:
            out.print(grid)
    for label in evaluation.not_judged:
        out.print(f"not judged: {label}, which is true of all users that were measured, or of none")
    out.print(verdict(decision))
    against = decision.get("against", [])
    for number_of_reason, reason in enumerate(decision["reasons"]):
        if against and number_of_reason == len(against):
            out.print("What speaks for the candidate:")
        out.print(f"  - {reason}")
    out.print(f"report: {evaluation.report}", soft_wrap=True)


def predictions(first: First = None, last: Last = None, as_json: AsJson = False) -> None:
    """Show the published predictions of each day: how many users, by which version of the model."""
    from lake.table import Table

    table = Table("predictions")
    rows, begins, ends = table.rows_by("dt"), as_date(first), as_date(last)
    published: dict[str, dict[str, Any]] = {}
    for commit in table.commits():  # newest first; a commit that lost to a newer one names its day as refused
        if commit["first"] not in json.loads(commit["refused"]):
            published.setdefault(commit["first"], {**commit, "counts": json.loads(commit["counts"])})
    days = [
        {
            "day": day,
            "users": rows.get(date.fromisoformat(day), 0),
            "model version": commit["counts"].get("model_version"),
            "events": commit["counts"].get("events"),
            "of unseen items": commit["counts"].get("unseen_events"),
            "verdict": commit["verdict"],
        }
        for day, commit in sorted(published.items())
        if (begins is None or day >= str(begins)) and (ends is None or day <= str(ends))
    ]
    if as_json:
        print_json(days)
        return
    grid = Grid("day", "users", "model version", "events", "of unseen items", "verdict", box=box.SIMPLE)
    for column in grid.columns[1:]:
        column.justify = "right"
    for entry in days:
        grid.add_row(*(f"{value:,}" if isinstance(value, int) else str(value) for value in entry.values()))
    out.print(grid)


def explain(
    user: Annotated[
        str,
        typer.Argument(
            help="as in the lake, or the shop's own id if you may; without one, somebody who is likely to migrate"
        ),
    ] = "",
    day: Day = None,
    model_version: Annotated[
        int | None, typer.Option(min=1, help="of the registry; default: the one behind the published predictions")
    ] = None,
) -> None:
    """Say in words what is expected of one user, and why: recent events, interest, prediction, segment."""
    from lake.table import Table
    from model.explain import explain as explain_user
    from model.explain import in_words
    from model.versions.registry import Registry

    wanted = as_date(day) or max(Table("interests" if user else "predictions").rows_by("dt"), default=None)
    if wanted is None:
        raise TableMissing("there are no published interests to explain; run `meander daily` first")
    known = in_lake(user, Table("interests").key_id, settings()) if user else _likely_to_migrate(wanted)
    with libraries_hushed():
        explanation = explain_user(known, wanted, Registry.of(settings()), model_version)
    out.print(in_words(explanation))


def _likely_to_migrate(day: date) -> str:
    """Return the user of a day whom the model expects most surely to migrate, of the first thousand."""
    from lake.table import Table

    rows = Table("predictions").head(day, 1000)
    if not rows:
        raise TableMissing(f"there are no published predictions of {day}; name a user, or run model.score first")
    migrating = [row for row in rows if row["segment"] == "migrating"]
    return str(max(migrating or rows, key=lambda row: row["migration_probability"])["user_id"])


def monitor(day: Day = None, as_json: AsJson = False) -> None:
    """Show what came true of predictions, what drifts and whether as much landed as usual; changes nothing."""
    from lake.table import Table
    from model.monitor import watch

    events = Table.find("events")
    wanted = as_date(day) or max(events.rows_by("landed") if events else {}, default=None)
    if wanted is None:
        raise TableMissing("events has no published day yet, so there is none to look at; run `meander daily` first")
    findings = watch(wanted, settings())
    if as_json:
        print_json([asdict(finding) for finding in findings])
        return
    if not findings:
        out.print(
            f"{wanted}: there is nothing to compare yet: no horizon is over, and no day before has the same tables"
        )
        return
    grid = Grid("kind", "name", "of", "version", "value", "compared with", "", box=box.SIMPLE)
    for finding in findings:
        reference = "-" if finding.reference is None else f"{finding.reference:,.3f}"
        version = "-" if finding.model_version is None else str(finding.model_version)
        verdict = "" if finding.ok else Text("look", style="yellow")
        about = (finding.kind, finding.name, str(finding.day), version)
        grid.add_row(*about, f"{finding.value:,.3f}", reference, verdict)
    out.print(grid)
