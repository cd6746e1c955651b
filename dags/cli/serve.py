"""`meander serve`: the serving store from a shell."""

from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich import box
from rich.table import Table as Grid

from dags.cli.console import AsJson, Day, as_date, out, print_json
from dags.shared.run_ids import of_person
from lake.errors import SettingsInvalid
from lake.settings import settings

serve = typer.Typer(no_args_is_help=True, help="Serve predictions to applications: the store in PostgreSQL.")

Version = Annotated[
    int | None, typer.Option("--model-version", min=1, help="the newest day that this version predicted")
]
Number = Annotated[int | None, typer.Option("--generation", min=1, help="this generation")]


@serve.command()
def status(as_json: AsJson = False) -> None:
    """Show the generations in the store, the one that applications see, and the last switches."""
    from lake.serving import pointer as serving
    from lake.serving.layout import require_layout
    from lake.serving.load import in_words
    from lake.serving.store import open_store

    with open_store(settings()) as store:
        require_layout(store)
        current, generations = serving.current(store), serving.generations(store)
        set_aside = serving.rows_set_aside(store)
        switches = serving.switches(store, limit=10)
    shown = [
        {**asdict(each), "set_aside": set_aside.get(each.generation, {}), "current": each == current}
        for each in generations
    ]
    if as_json:
        print_json({"generations": shown, "switches": switches})
        return
    heads = ["generation", "state", "day", "model version", "users", "version of the lake", "set aside", ""]
    grid = Grid(*heads, box=box.SIMPLE)
    for entry in shown:
        *attributes, reasons, is_current = entry.values()
        values = [*attributes, sum(reasons.values())]
        texts = ["-" if v is None else f"{v:,}" if isinstance(v, int) else str(v) for v in values]
        grid.add_row(*texts, "<- applications" if is_current else "")
    out.print(grid)
    for generation, reasons in set_aside.items():
        out.print(f"set aside from generation {generation}: {in_words(reasons)}", soft_wrap=True)
    for entry in switches:
        exceeded = "; ".join(entry["exceeded"])
        out.print(
            f"{entry['switched']:%Y-%m-%d %H:%M:%S}  to generation {entry['generation']} (day {entry['day']}) by "
            f"{entry['run_id']}{f', forced: {exceeded}' if exceeded else ''}",
            soft_wrap=True,
        )  # fmt: skip


@serve.command()
def load(
    day: Day = None, workers: Annotated[int | None, typer.Option(min=1, help="connections that copy at once")] = None
) -> None:
    """Load the published predictions of a day; applications see no change."""
    from jobs import serve as job
    from lake.serving.load import WORKERS, in_words

    date = as_date(day)
    if date is None:
        raise SettingsInvalid("meander serve load needs --day T; `meander predictions` lists the predicted days")
    result = job.load(settings(), date, of_person(), workers or WORKERS)
    how = "was loaded before" if result["already"] else f"took {result['seconds']:.1f} s"
    how += f"; set aside: {in_words(result['set_aside'])}" if result["set_aside"] else ""
    out.print(
        f"generation {result['generation']}: {result['users']:,} users of {result['day']} by model version "
        f"{result['model_version']}; {how}. Next: meander serve switch --day {result['day']}",
        soft_wrap=True,
    )  # fmt: skip


@serve.command()
def diff(day: Day = None, as_json: AsJson = False) -> None:
    """Show what a switch to a loaded day (the newest by default) would change for applications."""
    from lake.serving import pointer as serving
    from lake.serving.layout import require_layout
    from lake.serving.store import open_store

    with open_store(settings()) as store:
        require_layout(store)
        old, new = serving.current(store), serving.find(store, as_date(day))
        report = serving.compare(store, old, new, serving.Limits.of(settings()))
    if as_json:
        print_json(report)
        return
    _print_report(report)


def _print_report(report: dict[str, Any]) -> None:
    """Print a report of `lake.serving.pointer.compare`."""
    drift = report.get("drift", {})
    grid = Grid("what", "value", box=box.SIMPLE)
    for name, value in {**report, **{f"change of mean {score}": change for score, change in drift.items()}}.items():
        if isinstance(value, dict) and "generation" in value:
            text = f"generation {value['generation']}, day {value['day']}, model version {value['model_version']}"
            grid.add_row(name, f"{text}, {value['users']:,} users")
        elif isinstance(value, int | float):
            grid.add_row(name.replace("_", " "), f"{value:.4f}" if isinstance(value, float) else f"{value:,}")
    out.print(grid)
    refused = "; ".join(report["exceeded"])
    verdict = f"A switch would be refused: {refused}" if refused else "Within the limits."
    out.print(verdict, soft_wrap=True)


@serve.command()
def switch(
    day: Day = None,
    force: Annotated[bool, typer.Option("--force", help="even if more would change than the limits allow")] = False,
) -> None:
    """Let applications see a loaded day."""
    from jobs import serve as job

    date = as_date(day)
    if date is None:
        raise SettingsInvalid(
            "meander serve switch needs --day T; `meander serve status` lists the days that are loaded"
        )
    result = job.switch(settings(), date, of_person(), force=force)
    out.print(result["why"], soft_wrap=True)


@serve.command()
def rollback(day: Day = None, model_version: Version = None, generation: Number = None) -> None:
    """Let applications see the previous generation, or an older day, model version or generation."""
    from jobs import serve as job

    result = job.rollback(settings(), of_person(), as_date(day), model_version, generation)
    out.print(result["why"], soft_wrap=True)


@serve.command()
def grants(
    writer: Annotated[str, typer.Option(help="role that loads")] = "meander_writer",
    reader: Annotated[str, typer.Option(help="role of the applications")] = "meander_reader",
) -> None:
    """Print the SQL that makes the store and both roles, for an administrator of the database to run."""
    from lake.serving.layout import grants as grants_sql

    out.print(grants_sql(settings().serving_schema, writer, reader), soft_wrap=True)
