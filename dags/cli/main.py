"""The `meander` command: the steps of the DAGs for a person, without Airflow and in one Spark session."""

import os
import shlex
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import date
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table as Grid
from rich.text import Text

from dags.cli.backfill import plan
from dags.cli.console import AsJson, Day, First, Last, as_date, err, out, print_json
from dags.cli.doctor import doctor
from dags.cli.forget import forget
from dags.cli.model import explain, model, monitor, predictions
from dags.cli.pseudonyms import identity, rekey
from dags.cli.serve import serve
from dags.cli.source import source
from dags.shared import run_ids
from lake.days import days_between, days_in_words
from lake.errors import AuditFailed, MeanderError, SettingsInvalid, TableMissing, end_at_once
from lake.landing import Landing
from lake.pseudonyms import in_lake
from lake.schemas import TABLES
from lake.settings import Settings, known_settings, settings
from lake.small import is_small
from lake.tables import GROUPS, comes_after, groups_of, made_by
from lake.text import visible

# How many runs whose audit failed are named beside published rows.
SHOWN_RUNS = 3


def daily(
    first: First = None,
    last: Last = None,
    chunk_days: Annotated[int, typer.Option(min=1, help="days handled by one Spark job a table")] = 1,
    every: Annotated[int, typer.Option(min=1, help="interests only at every N-th date of a chunk")] = 1,
    allow_shrink: Annotated[
        bool, typer.Option("--allow-shrink", help="take deliveries with fewer files or rows than readers see")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Stage, audit and publish what behavior_daily makes of each day (or chunk of days), in order.

    A day that fails its audit stops no other one (MEANDER_PUBLISH_GOOD_DAYS), and the command fails at the end.
    """
    begins, ends = as_date(first), as_date(last)
    if begins is None or ends is None or begins > ends:
        raise SettingsInvalid(f"meander daily needs --from D1 --to D2, D1 not after D2; received {begins} and {ends}")
    from lake.session import spark_session

    days, failures = days_between(begins, ends), list[str]()
    with Progress(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=err) as progress:
        task = progress.add_task("starting Spark", total=None)
        spark_session("daily", settings(), short_lived=is_small(landed_bytes(days)))
        for chunk in (days[i : i + chunk_days] for i in range(0, len(days), chunk_days)):
            flags = {
                "events": ["--allow-shrink"] if allow_shrink else [],
                "interests": ["--every", str(every)],
            }

            def tell(what: str, chunk: list[date] = chunk) -> None:
                progress.update(task, description=f"{chunk[0]} to {chunk[-1]}: {what}")

            try:
                run_chunk(chunk, flags, tell, failures)
            except Exception as error:
                if failures:  # of days before: another error must not hide them
                    progress.stop()
                    with suppress(Exception):  # such as a lake that cannot be read any more
                        _print_days(begins, ends, as_json)
                    if isinstance(error, MeanderError):
                        raise type(error)("; ".join([*failures, error.message])) from error
                    err.print("; ".join(failures), soft_wrap=True)
                raise
    _print_days(begins, ends, as_json)
    if failures:
        raise AuditFailed("; ".join(failures))


def run_chunk(
    chunk: Sequence[date], flags: Mapping[str, list[str]], tell: Callable[[str], None], failures: list[str]
) -> None:
    """Stage, audit and publish the tables of a chunk of days; add to `failures` what failed an audit, in words.

    Of a group of tables that fails as a whole nothing is published, and what is made from it is not made.

    Args:
        chunk: days without a gap.
        flags: more flags of the jobs, by group of tables.
        tell: is told of each step.
        failures: of it and of chunks before; they are there even if another error ends this.

    Raises:
        AuditFailed: something fails, and nothing else is wanted then (MEANDER_PUBLISH_GOOD_DAYS).
    """
    from expectations import audit
    from lake.publish import publish, require_whole

    run_id, not_made = run_ids.of_days(chunk[0], chunk[-1]), set[str]()
    span = ["--from", str(chunk[0]), "--to", str(chunk[-1]), "--run-id", run_id]
    for group in groups_of("behavior_daily"):
        module, tables = made_by(group), GROUPS[group]
        if not_made.intersection(comes_after(group)):
            not_made.add(group)
            continue
        try:
            tell(module.split(".")[-1])
            import_module(module).main([*span, *flags.get(group, [])])
            tell(f"audit of {' and '.join(tables)}")
            audit.main([*(part for table in tables for part in ("--table", table)), "--run-id", run_id])
            reports = [publish(table, run_id) for table in tables]
        except AuditFailed as error:
            if not settings().publish_good_days:
                raise
            not_made.add(group)
            failures.append(error.message)
            continue
        try:
            require_whole(reports)
        except AuditFailed as error:
            failures.append(error.message)


def landed_bytes(days: list[date]) -> int:
    """Return the bytes of the landing files of some days; a day that has not landed is told by its ingest."""
    found = Landing.of(settings()).found(days)
    return sum(file.bytes for files in found.values() for file in files.values())


def days(first: First = None, last: Last = None, as_json: AsJson = False) -> None:
    """Show each run of the last year: rows in and out, verdict, seconds. Older ones with --from."""
    _print_days(as_date(first), as_date(last), as_json)


def _print_days(first: date | None, last: date | None, as_json: bool) -> None:
    from lake.looking_back import begin
    from lake.runs import COUNTS, summarize
    from lake.table import Table

    events = Table.find("events")
    begins = begin(settings(), events, first, last)
    runs = summarize(begins, last, Landing.of(settings()), with_older=first is None)
    if as_json:
        print_json([run.as_json() for run in runs])
        return
    # A line is as wide as a terminal: most lakes have forgotten nobody.
    shown = [name for name in COUNTS if name != "forgotten" or any(run.counts[name] for run in runs)]
    grid = Grid("day", *shown, "verdict", "seconds", box=box.SIMPLE)
    for column in grid.columns[1:]:
        column.justify = "right"
    colors = {"passed": "green", "warned": "yellow", "refused": "yellow", "failed": "red"}
    for run in runs:
        numbers = ["-" if (n := run.counts[name]) is None else f"{n:,}" for name in shown]
        verdict = Text(visible(run.verdict), style=colors.get(run.verdict, "red"))
        grid.add_row(run.period, *numbers, verdict, f"{run.seconds:,.0f}")
    out.print(grid)
    for run in runs:
        if run.postponed:
            days = ", ".join(run.postponed)
            out.print(f"{run.first}: late events changed sessions of {days}; see docs/runbook.md#late-data")
        for table, kept in run.refused.items():
            days = ", ".join(kept)
            out.print(f"{run.first}: refused {table} of {days}, of which readers see newer rows; see docs/runbook.md")
        for table, kept in run.withheld.items():
            failed = days_in_words(map(date.fromisoformat, kept))
            out.print(
                f"{run.first}: {table} of {failed} failed the audit; the other days of the run are published; see "
                "docs/runbook.md#audit-failed"
            )
        for day, lines in run.unmet.items():
            for line in lines:
                section = "audit-failed" if line.partition(":")[0].endswith(" failed") else "the-audit-warned"
                out.print(f"{day}: {visible(line)}; see docs/runbook.md#{section}", soft_wrap=True)
        for line in run.supplied:
            out.print(f"{run.period}: {visible(line)}; see docs/runbook.md#supplier-changed", soft_wrap=True)
        for day, difference in run.landing.items():
            out.print(f"{day}: {visible(difference)}; see docs/runbook.md#landing-changed", soft_wrap=True)
        if run.verdict == "unreadable":
            out.print(f"run {visible(run.run_id)}: a manifest cannot be read; see docs/runbook.md#not-staged")
    if first is None and events and min(events.rows_by("landed"), default=begins) < begins:
        out.print(f"Shown are days from {begins} on, and runs of older days since then; other runs with --from.")


def tables(as_json: AsJson = False) -> None:
    """Show the published tables: version, rows, dates, size."""
    from lake.table import Table

    entries = []
    for name, spec in TABLES.items():
        table = Table.find(name)
        rows = table.rows_by("dt") if table else {}
        entries.append(
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
        print_json(entries)
        return
    grid = Grid(*entries[0], box=box.SIMPLE)
    for entry in entries:
        grid.add_row(*("-" if v is None else f"{v:,}" if isinstance(v, int) else str(v) for v in entry.values()))
    out.print(grid)
    out.print(f"lake: {settings().lake}", soft_wrap=True)


def show(
    table: Annotated[str, typer.Argument(metavar="TABLE", help="a table of docs/tables.md")],
    day: Day = None,
    run: Annotated[
        str, typer.Option("--run", "--run-id", metavar="RUN", help="what this run has staged, published or not")
    ] = "",
    limit: Annotated[int, typer.Option(min=1, help="rows at most")] = 10,
    user: Annotated[str, typer.Option(help="of this user alone: as in the lake, or the shop's id if you may")] = "",
    as_json: AsJson = False,
) -> None:
    """Show rows of one published partition (the newest by default), without Spark.

    With --run, rows that the run has staged: those that an audit has refused are published nowhere.
    """
    if table not in TABLES:
        raise SettingsInvalid(f"there is no table {table!r}; choose one of {', '.join(TABLES)}")
    if user and "user_id" not in TABLES[table].schema.fieldNames():
        raise SettingsInvalid(f"{table} has no column user_id, so --user cannot choose its rows")
    if run:
        _show_staged(table, run, as_date(day), limit, user, as_json)
        return
    from lake.table import Table

    asked = as_date(day)
    try:
        pinned = Table(table)
    except TableMissing as error:
        raise TableMissing("; ".join([error.message, *_refused(table, asked, asked)])) from error
    partitions = pinned.rows_by("dt")
    wanted = asked or max(partitions, default=None)
    # Without a day, the newest one is meant, also if readers do not see it yet.
    refused = _refused(table, wanted, asked)
    if wanted is None:
        out.print("; ".join([f"{table} is published, but has no rows, version {pinned.version}", *refused]))
        return
    if wanted not in partitions:
        available = f"{min(partitions)} to {max(partitions)}" if partitions else "no rows"
        raise TableMissing("; ".join([f"{table} has no rows of {wanted}; it has {available}", *refused]))
    rows = pinned.head(wanted, limit, in_lake(user, pinned.key_id, settings()) if user else None)
    _print_rows(rows, as_json)
    if not as_json:
        out.print(f"{len(rows)} of {partitions[wanted]:,} rows of {table} dt={wanted}, version {pinned.version}")
    for line in refused:
        err.print(line, soft_wrap=True)


def _show_staged(table: str, run: str, day: date | None, limit: int, user: str, as_json: bool) -> None:
    """Show rows that a run has staged for a table: without a day, of the newest one that failed, or of all."""
    from lake.staging import read_staged
    from lake.unpublished import failed_days, head, rows_by_date, standing

    staged = read_staged(table, run)
    told, by_date = f"run {staged.run_id!r} has staged for {table}; {standing(staged)}", rows_by_date(staged)
    dates = [known for known in by_date if known]
    wanted = day or max(set(dates).intersection(failed_days(staged)) or dates, default=None)
    # To a machine, rows alone.
    where = err if as_json else out
    if wanted not in by_date:
        available = f"{min(dates)} to {max(dates)}" if dates else "no rows"
        if day is None:
            _print_rows([], as_json)
            where.print(f"there are no rows that {told}", soft_wrap=True)
            return
        raise TableMissing(f"there are no rows of {wanted} that {told}; it has {available}")
    rows, left_out = head(staged, wanted, limit, in_lake(user, staged.key_id, settings()) if user else None)
    _print_rows(rows, as_json)
    forgotten = f"; {left_out:,} of forgotten users are left out" if left_out else ""
    where.print(f"{len(rows)} of {by_date[wanted]:,} rows dt={wanted} that {told}{forgotten}", soft_wrap=True)


def _refused(table: str, first: date | None, last: date | None) -> list[str]:
    """Say of the newest stagings of some days that failed their audit that they did, and how their rows are shown."""
    # Of other tables, a day that fails is none of those by which rows are shown.
    if TABLES[table].owned_by != "dt":
        return []
    from lake.unpublished import refused_by_audit

    by_run: dict[str, list[date]] = {}
    for day, staged in refused_by_audit(table, first, last).items():
        by_run.setdefault(staged.run_id, []).append(day)
    # Those of the newest days: `meander days` lists all.
    return [
        f"{table} of {days_in_words(failed)} that run {run!r} has staged failed the audit, so readers do not see it: "
        f"`meander show {table} --run {shlex.quote(run)} --day {failed[-1]}` shows its rows; see "
        "docs/runbook.md#audit-failed"
        for run, failed in [*by_run.items()][-SHOWN_RUNS:]
    ]


def _print_rows(rows: Sequence[Mapping[str, Any]], as_json: bool) -> None:
    if as_json:
        print_json(rows)
        return
    for row in rows:
        grid = Grid(show_header=False, box=None, padding=(0, 2, 0, 0))
        for name, value in row.items():
            text = (
                f"{value[:5]} ... ({len(value)} in total)" if isinstance(value, list) and len(value) > 5 else str(value)
            )
            grid.add_row(Text(visible(name), style="bold"), text)
        out.print(grid, "")


def show_settings(as_json: AsJson = False) -> None:
    """Show every setting: its variable, value and meaning."""
    values = known_settings().model_dump(mode="json")
    if as_json:
        print_json({f"MEANDER_{name.upper()}": value for name, value in values.items()})
    else:
        grid = Grid("variable", "value", "meaning", box=box.SIMPLE)
        for name, field in Settings.model_fields.items():
            grid.add_row(f"MEANDER_{name.upper()}", str(values[name]), field.description)
        out.print(grid)
    # After the list, in which whoever has mistyped a name finds the right one.
    settings()


def simulate(context: typer.Context) -> None:
    """Write a synthetic log of any size into the landing (`meander simulate --help` for its options)."""
    from jobs import simulate as job

    job.main(context.args)


app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, pretty_exceptions_enable=False)
# These say which variables are no settings beside what else they have to say.
SAY_IT_THEMSELVES = ("doctor", "settings")


@app.callback()
def require_valid_settings(context: typer.Context) -> None:
    """Fail before a command does anything if a `MEANDER_*` variable has an invalid value, or is no setting."""
    if context.invoked_subcommand not in SAY_IT_THEMSELVES and "--help" not in sys.argv:
        settings()


# In the order in which `meander --help` lists them.
app.command()(daily)
app.command()(days)
app.command()(plan)
app.command()(tables)
app.command()(show)
app.command()(model)
app.command()(predictions)
app.command()(explain)
app.command()(monitor)
app.command()(identity)
app.command()(rekey)
app.command("settings")(show_settings)
app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})(
    simulate
)
app.command()(doctor)
app.command()(forget)
app.add_typer(serve, name="serve")
app.add_typer(source, name="source")


def main() -> None:
    """Run the command; an error of Meander ends with one line and exit code 1."""
    # By default all is in the folder of one person. A lake elsewhere may be shared: the shell's umask says with whom.
    if ".meander" in Path(os.environ.get("MEANDER_LAKE") or ".meander").parts:
        os.umask(0o077)
    try:
        app()
    except MeanderError as error:
        err.print(Text(type(error).__name__, style="bold red"), f": {error}", sep="", soft_wrap=True)
        sys.exit(1)
    except Exception:  # noqa: BLE001  whatever it is, Python would print what a file says as it is
        err.print(traceback.format_exc(), soft_wrap=True, end="")
        sys.exit(1)
    finally:
        end_at_once()
