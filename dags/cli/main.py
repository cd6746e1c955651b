"""The `meander` command: the steps of the DAGs for a person, without Airflow and in one Spark session."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict
from datetime import date, datetime
from importlib import import_module
from importlib.metadata import version as installed_version
from typing import Annotated, Any

import typer
from rich import box
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table as Grid

from dags.cli.console import AsJson, Day, as_date, err, libraries_hushed, out
from dags.cli.serve import serve
from lake import landing, places, storage
from lake.errors import MeanderError, ModelMissing, SettingsInvalid, TableMissing
from lake.schemas import TABLES
from lake.settings import Settings, settings
from lake.tables import GROUPS, made_by, made_in

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, pretty_exceptions_enable=False)
app.add_typer(serve, name="serve")

First = Annotated[datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], help="first date")]
Last = Annotated[datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="last date, included")]


def main() -> None:
    """Run the command; our own failures end in one line and exit code 1."""
    try:
        app()
    except MeanderError as error:
        err.print(f"[bold red]{type(error).__name__}[/]: {error}", highlight=False, soft_wrap=True)
        sys.exit(1)


@app.command()
def daily(
    first: First = None,
    last: Last = None,
    chunk_days: Annotated[int, typer.Option(min=1, help="days handled by one Spark job a table")] = 1,
    every: Annotated[int, typer.Option(min=1, help="interests only at every N-th date of a chunk")] = 1,
    as_json: AsJson = False,
) -> None:
    """Stage, audit and publish events, sessions and interests of each day (or chunk of days), in order."""
    begins, ends = as_date(first), as_date(last)
    if begins is None or ends is None or begins > ends:
        raise SettingsInvalid(f"meander daily needs --from D1 --to D2, D1 not after D2; received {begins} and {ends}")
    from expectations import audit
    from lake.publish import publish
    from lake.session import spark_session

    made = set(made_in("behavior_daily"))
    steps = [(made_by(group), tables) for group, tables in GROUPS.items() if made.intersection(tables)]
    days = landing.days_between(begins, ends)
    with Progress(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=err) as progress:
        task = progress.add_task("starting Spark", total=None)
        spark_session("daily")
        for chunk in (days[i : i + chunk_days] for i in range(0, len(days), chunk_days)):
            run_id = f"cli-{chunk[0]}-{chunk[-1]}-{datetime.now():%Y%m%dT%H%M%S%f}"  # noqa: DTZ005  a name only
            for module, tables in steps:
                name = module.split(".")[-1]
                progress.update(task, description=f"{chunk[0]} to {chunk[-1]}: {name}")
                extra = ["--every", str(every)] if name == "interests" else []
                import_module(module).main(
                    ["--from", str(chunk[0]), "--to", str(chunk[-1]), "--run-id", run_id, *extra]
                )
                progress.update(task, description=f"{chunk[0]} to {chunk[-1]}: audit of {' and '.join(tables)}")
                audit.main([*(part for table in tables for part in ("--table", table)), "--run-id", run_id])
                for table in tables:
                    publish(table, run_id)
    _print_days(begins, ends, as_json)


@app.command()
def days(first: First = None, last: Last = None, as_json: AsJson = False) -> None:
    """Show what each run did: rows in and out, verdict, seconds."""
    _print_days(as_date(first), as_date(last), as_json)


def _print_days(first: date | None, last: date | None, as_json: bool) -> None:
    from lake.runs import COUNTS, summarize

    runs = summarize(first, last)
    if as_json:
        out.print_json(json.dumps([run.as_json() for run in runs]))
        return
    grid = Grid("day", *COUNTS, "verdict", "seconds", box=box.SIMPLE)
    for column in grid.columns[1:]:
        column.justify = "right"
    colors = {"passed": "green", "warned": "yellow", "failed": "red"}
    for run in runs:
        numbers = ["-" if (n := run.counts[name]) is None else f"{n:,}" for name in COUNTS]
        period = str(run.first) if run.first == run.last else f"{run.first} to {run.last}"
        verdict = f"[{colors.get(run.verdict, 'red')}]{run.verdict}[/]"
        grid.add_row(period, *numbers, verdict, f"{run.seconds:,.0f}")
    out.print(grid)
    for run in runs:
        if run.postponed:
            days = ", ".join(run.postponed)
            out.print(f"{run.first}: late events changed sessions of {days}; see docs/runbook.md#late-data")


@app.command()
def plan(
    reason: Annotated[str, typer.Option(help="late-data, code (of a job changed) or bad-day (is delivered again)")],
    first: First = None,
    last: Last = None,
    table: Annotated[str, typer.Option(help="with code: the table whose job changed")] = "events",
    as_json: AsJson = False,
) -> None:
    """Say what has to be made again, why, what it costs, and the commands that do it; nothing is changed."""
    from dags.shared import backfill as planning
    from lake.backfill.planner import make

    made = make(reason, as_date(first), as_date(last), table)
    if as_json:
        out.print_json(json.dumps(planning.as_json(made)))
    else:
        planning.show(made, out)


@app.command()
def tables(as_json: AsJson = False) -> None:
    """Show the published tables: version, rows, dates, size."""
    from lake.table import Table

    found = []
    for name, spec in TABLES.items():
        table = Table.find(name)
        rows = table.rows_by("dt") if table else {}
        found.append(
            {
                "table": name,
                "one row": spec.meaning,
                "version": table.version if table else None,
                "rows": sum(rows.values()),
                "first": min(rows, default=None),
                "last": max(rows, default=None),
                "partitions": len(rows),
                "files": len(table.files) if table else 0,
                "bytes": sum(file.bytes for file in table.files) if table else 0,
            }
        )
    if as_json:
        out.print_json(json.dumps(found, default=str))
        return
    grid = Grid(*found[0], box=box.SIMPLE)
    for entry in found:
        grid.add_row(*("-" if v is None else f"{v:,}" if isinstance(v, int) else str(v) for v in entry.values()))
    out.print(grid)
    out.print(f"lake: {settings().lake}", soft_wrap=True)


@app.command()
def show(
    table: Annotated[str, typer.Argument(help=f"one of {', '.join(TABLES)}")],
    day: Day = None,
    limit: Annotated[int, typer.Option(min=1, help="rows at most")] = 10,
    as_json: AsJson = False,
) -> None:
    """Show rows of one published partition (the newest by default), without Spark."""
    if table not in TABLES:
        raise SettingsInvalid(f"there is no table {table!r}; choose one of {', '.join(TABLES)}")
    from lake.table import Table

    pinned = Table(table)
    partitions = pinned.rows_by("dt")
    wanted = as_date(day) or max(partitions, default=None)
    if not partitions and day is None:
        out.print(f"{table} is published and has no rows, version {pinned.version}")
        return
    if wanted not in partitions:
        known = f"{min(partitions)} to {max(partitions)}" if partitions else "no partition"
        raise TableMissing(f"{table} has no rows of {wanted}; it holds {known}")
    rows = pinned.head(wanted, limit)
    if as_json:
        out.print_json(json.dumps(rows, default=str))
        return
    for row in rows:
        grid = Grid(show_header=False, box=None, padding=(0, 2, 0, 0))
        for name, value in row.items():
            text = f"{value[:5]} ... {len(value)} in all" if isinstance(value, list) and len(value) > 5 else str(value)
            grid.add_row(f"[bold]{name}[/]", text)
        out.print(grid, "")
    out.print(f"{len(rows)} of {partitions[wanted]:,} rows of {table} dt={wanted}, version {pinned.version}")


@app.command()
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
    from model.versions import registry

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
                "champion since": sorted(
                    key.removeprefix(registry.SINCE) for key in tags if key.startswith(registry.SINCE)
                ),
                "run": tags.get("run_id", ""),
                "code": tags.get("code_version", ""),
            }
        )
    if as_json:
        out.print_json(json.dumps(versions))
        return
    if not versions:
        out.print("no version of the model is registered yet; model_weekly, or its commands, make one")
        return
    grid = Grid(*versions[0], box=box.SIMPLE)
    for entry in versions:
        grid.add_row(*(", ".join(v) if isinstance(v, list) else str(v) for v in entry.values()))
    out.print(grid)
    out.print(f"registry: {settings().tracking_place}", soft_wrap=True)


def _print_evaluation(run_id: str, as_json: bool) -> None:
    from dags.shared.evaluation import COLUMNS, Evaluation, number, verdict

    evaluation = Evaluation.of(run_id)
    decision = evaluation.decision
    if decision is None:
        raise ModelMissing(f"run {run_id!r} has no evaluation: {evaluation.folder} has no decision.json")
    if as_json:
        out.print_json(json.dumps({"decision": decision, "metrics": evaluation.metrics}))
        return
    grid = Grid("method", *(heading for heading, *_ in COLUMNS), box=box.SIMPLE)
    for column in grid.columns[1:]:
        column.justify = "right"
    for method, values in evaluation.rows():
        grid.add_row(method, *map(number, values))
    out.print(grid)
    out.print(verdict(decision))
    for reason in decision["reasons"]:
        out.print(f"  - {reason}", highlight=False, markup=False)
    out.print(f"report: {evaluation.report}", soft_wrap=True)


@app.command()
def predictions(first: First = None, last: Last = None, as_json: AsJson = False) -> None:
    """Show the published predictions of each day: how many users, by which version of the model."""
    from lake.table import Table

    table = Table("predictions")
    rows, begins, ends = table.rows_by("dt"), as_date(first), as_date(last)
    published: dict[str, dict[str, Any]] = {}
    for commit in table.commits():  # newest first; a commit that lost to a newer one names its day as refused
        if commit["first"] not in json.loads(commit["refused"]):
            published.setdefault(commit["first"], {**commit, "counts": json.loads(commit["counts"])})
    found = [
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
        out.print_json(json.dumps(found))
        return
    grid = Grid("day", "users", "model version", "events", "of unseen items", "verdict", box=box.SIMPLE)
    for column in grid.columns[1:]:
        column.justify = "right"
    for entry in found:
        grid.add_row(*(f"{value:,}" if isinstance(value, int) else str(value) for value in entry.values()))
    out.print(grid)


@app.command()
def explain(
    user: Annotated[str, typer.Argument(help="the shop's own id; without one, somebody who is likely to migrate")] = "",
    day: Day = None,
    model_version: Annotated[
        int | None, typer.Option(min=1, help="of the registry; default: the one behind the published predictions")
    ] = None,
) -> None:
    """Say in words what is expected of one user, and why: recent events, interest, prediction, segment."""
    from lake.table import Table
    from model.explain import explain as explain_user
    from model.explain import in_words

    wanted = as_date(day) or max(Table("interests" if user else "predictions").rows_by("dt"), default=None)
    if wanted is None:
        raise TableMissing("there are no published interests to explain; run `meander daily` first")
    with libraries_hushed():
        found = explain_user(user or _likely_to_migrate(wanted), wanted, model_version)
    out.print(in_words(found), highlight=False, markup=False)


def _likely_to_migrate(day: date) -> str:
    """Return the user of a day whom the model expects most surely to migrate, of the first thousand."""
    from lake.table import Table

    some = Table("predictions").head(day, 1000)
    if not some:
        raise TableMissing(f"there are no published predictions of {day}; name a user, or run model.score first")
    migrating = [row for row in some if row["segment"] == "migrating"]
    return str(max(migrating or some, key=lambda row: row["migration_probability"])["user_id"])


@app.command()
def monitor(day: Day = None, as_json: AsJson = False) -> None:
    """Show what came true of predictions, what drifts and whether as much landed as usual; changes nothing."""
    from lake.table import Table
    from model.monitor import watch

    events = Table.find("events")
    wanted = as_date(day) or max(events.rows_by("landed") if events else {}, default=None)
    if wanted is None:
        raise TableMissing("events has no published day yet, so there is none to look at; run `meander daily` first")
    found = watch(wanted)
    if as_json:
        out.print_json(json.dumps([asdict(finding) for finding in found], default=str))
        return
    if not found:
        out.print(
            f"{wanted}: there is nothing to compare yet: no horizon is over, and no day before has the same tables"
        )
        return
    grid = Grid("kind", "name", "of", "version", "value", "compared with", "", box=box.SIMPLE)
    for finding in found:
        reference = "-" if finding.reference is None else f"{finding.reference:,.3f}"
        version = "-" if finding.model_version is None else str(finding.model_version)
        verdict = "" if finding.ok else "[yellow]look[/]"
        about = (finding.kind, finding.name, str(finding.day), version)
        grid.add_row(*about, f"{finding.value:,.3f}", reference, verdict)
    out.print(grid)


@app.command(name="settings")
def show_settings(as_json: AsJson = False) -> None:
    """Show every setting: its variable, value and meaning."""
    values = settings().model_dump(mode="json")
    if as_json:
        out.print_json(json.dumps({f"MEANDER_{name.upper()}": value for name, value in values.items()}))
        return
    grid = Grid("variable", "value", "meaning", box=box.SIMPLE)
    for name, field in Settings.model_fields.items():
        grid.add_row(f"MEANDER_{name.upper()}", str(values[name]), field.description)
    out.print(grid)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})
def simulate(context: typer.Context) -> None:
    """Write a synthetic log of any size into the landing (`meander simulate --help` for its options)."""
    from jobs import simulate as job

    job.main(context.args)


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Check Python, Java, Spark, the lake and the landing: what is wrong, and how to mend it."""
    checks = [
        ("settings", _check_settings),
        ("python", _check_python),
        ("java", _check_java),
        ("spark", _check_spark),
        ("lake", _check_lake),
        ("source", _check_source),
        ("landing", _check_landing),
        ("serving", _check_serving),
    ]
    results = []
    for name, check in checks:
        try:
            results.append({"check": name, "ok": True, "found": check()})
        except Exception as error:  # noqa: BLE001  a doctor reports whatever is wrong and goes on
            results.append({"check": name, "ok": False, "found": str(error)})
    if as_json:
        out.print_json(json.dumps(results))
    else:
        for result in results:
            mark = "[green]ok   [/]" if result["ok"] else "[bold red]wrong[/]"
            out.print(f"{mark} {result['check']:<9}{result['found']}", highlight=False, soft_wrap=True)
    raise typer.Exit(0 if all(result["ok"] for result in results) else 1)


def _check_settings() -> str:
    return f"lake {settings().lake}, landing {settings().landing}, source {settings().source}"


def _check_python() -> str:
    if sys.version_info[:2] != (3, 11):
        raise RuntimeError(f"found Python {sys.version.split()[0]}, need 3.11; run `make setup`")
    return f"{sys.version.split()[0]} at {sys.executable}"


def _check_java() -> str:
    # As spark-submit looks for it: JAVA_HOME first, then the PATH.
    home = os.environ.get("JAVA_HOME")
    java = shutil.which(f"{home}/bin/java" if home else "java")
    if java is None:
        where = f"JAVA_HOME={home}" if home else "the PATH"
        raise RuntimeError(f"found no java at {where}; install a Java 17 runtime, such as openjdk-17-jre-headless")
    said = subprocess.run([java, "-version"], capture_output=True, text=True, check=True).stderr
    version = said.split('"')[1]
    if not 17 <= int(version.split(".")[0]) <= 22:
        raise RuntimeError(f"found Java {version}, Spark 4.0 needs 17 to 22; install openjdk-17-jre-headless")
    return f"{version} at {java}"


def _check_spark() -> str:
    from lake.session import spark_session

    began = datetime.now()  # noqa: DTZ005  a duration only
    spark = spark_session("doctor")
    rows = spark.range(1000).count()
    seconds = (datetime.now() - began).total_seconds()  # noqa: DTZ005
    master = settings().spark_master or "local[*]"
    return f"{installed_version('pyspark')} on {master}, counted {rows} rows in {seconds:.0f} s"


def _check_lake() -> str:
    from lake.table import Table

    probe = places.probe_file()
    storage.write_json(probe, {"written": True})
    if storage.read_json(probe) != {"written": True}:
        raise RuntimeError(f"{settings().lake}: what was written could not be read back; check rights and free space")
    fs, inner = storage.filesystem(probe)
    fs.rm(inner.rsplit("/", 1)[0], recursive=True)
    published = [name for name in TABLES if Table.find(name)]
    return f"writable, published: {', '.join(published) or 'nothing yet; run `meander daily`'}"


def _check_source() -> str:
    from jobs.source import load_source

    source = load_source(settings().source)
    return f"{source.name}: {source.description.strip()}"


def _check_landing() -> str:
    from jobs.raw_rows import check_files
    from jobs.source import load_source

    names = storage.list_files(settings().landing)
    found = sorted({name.split("/")[0].removeprefix("dt=") for name in names if name.startswith("dt=")})
    if not found:
        raise RuntimeError(
            f"{settings().landing} holds no dt=YYYY-MM-DD/ folder; put the log's files there, "
            "under the day on which they arrived"
        )
    newest = date.fromisoformat(found[-1])
    check_files(load_source(settings().source), landing.files(newest))
    gaps = [d for d in landing.days_between(date.fromisoformat(found[0]), newest) if str(d) not in found]
    missing = f"; {len(gaps)} days in between are missing, the first is {gaps[0]}" if gaps else ""
    return f"{len(found)} days, {found[0]} to {found[-1]}{missing}"


def _check_serving() -> str:
    if not settings().serving_url.get_secret_value():
        return "no store for applications is set (MEANDER_SERVING_URL); nothing here needs one"
    from lake.serving.layout import found_columns
    from lake.serving.pointer import current
    from lake.serving.postgres import connect

    with connect() as connection:
        served = current(connection) if found_columns(connection) else None
        server = connection.info.parameter_status("server_version")
    return f"PostgreSQL {server}, applications see {served or 'nothing yet; run `meander serve load`'}"
