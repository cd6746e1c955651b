"""`meander doctor`: checks of everything that Meander needs on this machine, each with its repair."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import date, datetime, timedelta
from importlib.metadata import version as installed_version
from typing import TYPE_CHECKING, Any

import typer
from rich.text import Text

from dags.cli.console import AsJson, out, print_json
from lake import places, storage
from lake.days import days_between
from lake.errors import SourceMismatch
from lake.landing import Landing, require_files_inside
from lake.schemas import TABLES
from lake.settings import known_settings, settings

if TYPE_CHECKING:
    from jobs.preview import Preview


def doctor(as_json: AsJson = False) -> None:
    """Check settings, Python, Java, Spark, lake, source, landing and serving store; name the repair of each failure.

    Where it is certain what has to be changed in the source's file, the change is printed as a diff, for `patch`.
    """
    changes: list[str] = []
    checks: list[tuple[str, Callable[[], str]]] = [
        ("settings", check_settings),
        ("python", check_python),
        ("java", check_java),
        ("spark", check_spark),
        ("lake", check_lake),
        ("source", check_source),
        ("landing", check_landing),
        ("rows", lambda: check_rows(changes)),
        ("serving", check_serving),
    ]
    results: list[dict[str, Any]] = []
    for name, check in checks:
        try:
            results.append({"check": name, "ok": True, "found": check()})
        except Exception as error:  # noqa: BLE001  whatever fails is reported, and the next check follows
            results.append({"check": name, "ok": False, "found": str(error)})
        if name == "rows" and changes:
            results[-1]["diff"] = changes[0]
    if as_json:
        print_json(results)
    else:
        for result in results:
            mark = Text("ok   ", style="green") if result["ok"] else Text("wrong", style="bold red")
            out.print(mark, f"{result['check']:<9}{result['found']}", soft_wrap=True)
        # As it stands: a console would change tabs, and `patch` would not find the lines.
        for diff in changes:
            typer.echo(f"\n{diff}", nl=False)
    raise typer.Exit(0 if all(result["ok"] for result in results) else 1)


def check_settings() -> str:
    # The other checks go on with those that are known.
    config = settings()
    return f"lake {config.lake}, landing {config.landing}, source {config.source}"


def check_python() -> str:
    if sys.version_info[:2] != (3, 11):
        raise RuntimeError(f"expected Python 3.11, found {sys.version.split()[0]}; run `make setup`")
    return f"{sys.version.split()[0]} at {sys.executable}"


def check_java() -> str:
    # In the order of spark-submit: JAVA_HOME first, then the PATH.
    home = os.environ.get("JAVA_HOME")
    java = shutil.which(f"{home}/bin/java" if home else "java")
    if java is None:
        where = f"JAVA_HOME={home}" if home else "the PATH"
        raise RuntimeError(f"there is no java at {where}; install a Java 17 runtime, such as openjdk-17-jre-headless")
    printed = subprocess.run([java, "-version"], capture_output=True, text=True, check=True).stderr
    version = printed.split('"')[1]
    if not 17 <= int(version.split(".")[0]) <= 22:
        raise RuntimeError(f"Spark 4.1 needs Java 17 to 22, found {version}; install openjdk-17-jre-headless")
    return f"{version} at {java}"


def check_spark() -> str:
    from lake.session import spark_session

    began = datetime.now()  # noqa: DTZ005  a duration only
    spark = spark_session("doctor", known_settings())
    rows = spark.range(1000).count()
    seconds = (datetime.now() - began).total_seconds()  # noqa: DTZ005
    master = known_settings().spark_master or "local[*]"
    return f"{installed_version('pyspark')} on {master}, counted {rows} rows in {seconds:.0f} s"


def check_lake() -> str:
    from lake.table import Table

    probe = places.probe_file()
    storage.write_json(probe, {"written": True})
    if storage.read_json(probe) != {"written": True}:
        lake = known_settings().lake
        raise RuntimeError(f"{lake}: a file was written, but not read back; check rights and free space")
    fs, inner = storage.filesystem(probe)
    fs.rm(inner.rsplit("/", 1)[0], recursive=True)
    published = [name for name in TABLES if Table.find(name)]
    return f"writable, published: {', '.join(published) or 'nothing yet; run `meander daily`'}"


def check_source() -> str:
    from jobs.source import load_source

    source = load_source(known_settings().source)
    return f"{source.name}: {source.description.strip()}; words that mean no value: {' '.join(source.nulls) or 'none'}"


def check_landing() -> str:
    from jobs.contract import against_contract
    from jobs.drift import columns_of, told
    from jobs.landing_files import by_version, check_files
    from jobs.source import load_source
    from lake.runs import told_of_contract
    from lake.table import Table

    landing = Landing.of(known_settings())
    names = storage.list_files(known_settings().landing)
    days = sorted({name.split("/")[0].removeprefix("dt=") for name in names if name.startswith("dt=")})
    if not days:
        raise RuntimeError(
            f"{known_settings().landing} has no folder dt=YYYY-MM-DD/; put the log's files there, "
            "into the folder of the day on which they arrived"
        )
    for name in days:
        try:
            day = datetime.strptime(name, "%Y-%m-%d").date()  # noqa: DTZ007  a date has no zone
        except ValueError as error:
            raise RuntimeError(f"dt={name} is no day; name the folder as dt=2024-03-05") from error
        if str(day) != name:
            raise RuntimeError(f"the folder dt={name} is not read; rename it to dt={day}")
    newest = date.fromisoformat(days[-1])
    of_days = landing.found(map(date.fromisoformat, days))
    for day, found_on in of_days.items():
        require_files_inside(landing.folder(day), list(found_on))
    present = of_days[newest]
    files = list(present)
    source = load_source(known_settings().source)
    parts = by_version(source, [storage.join(landing.folder(newest), name) for name in files])
    for version, found in parts:
        check_files(version, found)
    published = Table.find("events")
    columns = columns_of(source, parts, newest, newest, published.commits() if published else [])
    with_rows = [storage.join(landing.folder(newest), name) for name, file in present.items() if file.bytes]
    columns |= against_contract(known_settings().contract, source, {newest: with_rows})
    supplied = "".join(f"; {message}" for message in (*told(source, columns), *told_of_contract(columns)))
    gaps = [d for d in days_between(date.fromisoformat(days[0]), newest) if str(d) not in days]
    missing = f"; {len(gaps)} days in between are missing, the first is {gaps[0]}" if gaps else ""
    minutes = landing.quiet // timedelta(minutes=1)
    # The file of such a marker is not the last one that is written.
    waits = minutes and any("*" in name for name in landing.markers)
    complete = (
        f"by {'its marker' if len(landing.markers) == 1 else 'all of its markers'} {', '.join(landing.markers)}"
        f"{f' and a quiet time of {minutes} minutes' if waits else ''}"
        if landing.markers
        else f"once no file has changed for {minutes} minutes, for days before yesterday at once"
        if minutes
        else "as soon as its folder exists: set MEANDER_LANDING_MARKER or MEANDER_LANDING_QUIET_MINUTES"
    )
    lacks = landing.lacks(newest)
    incomplete = f"; {newest} has not landed yet: {lacks}" if lacks else ""
    return f"{len(days)} days, {days[0]} to {days[-1]}{missing}; a day is complete {complete}{incomplete}{supplied}"


def check_rows(changes: list[str] | None = None) -> str:
    """Judge a few rows; a change of the source that is certain to mend what is wrong is added to `changes`."""
    from jobs.preview import preview
    from jobs.remedy import Trial, certain_change
    from jobs.source import load_source
    from lake.session import spark_session

    config, landing = known_settings(), Landing.of(known_settings())
    days = landing.days()
    if not days:
        return "there are none yet"
    if not on_this_machine(config.spark_master):
        return f"not looked at, since Spark is at {config.spark_master}, not on this machine"
    chosen = sorted({days[0], days[-1]})
    spark, source = spark_session("doctor", config), load_source(config.source)
    trial = Trial(landing, chosen, lambda described, days: preview(spark, described, landing, days, config))

    def change(found: "Preview | None") -> str:
        if changes is None or not (said := certain_change(trial, config.source, found)):
            return ""
        changes.append(said.diff)
        return f"\n  {said.words}"

    try:
        found = trial.judge(source, chosen)
    except SourceMismatch as error:
        raise SourceMismatch(f"{error.message}{change(None)}") from error
    if not found.rows:
        return f"{' and '.join(map(str, chosen))}: no rows"
    told = f"{found.rows:,} of {' and '.join(map(str, chosen))}: {became(found)}"
    told += change(found) if found.rejected else ""
    if sum(found.rejected.values()) > float(config.max_rejected_share) * found.rows:
        raise RuntimeError(f"{told}\n  too many rows are rejected (MEANDER_MAX_REJECTED_SHARE)")
    return told


def on_this_machine(spark_master: str) -> bool:
    """Return whether Spark can read the temporary files of this machine."""
    return bool(re.match(r"(local|sc://(127\.0\.0\.1|localhost)|$)", spark_master))


def became(found: "Preview") -> str:
    """Return what became of a few rows, in words: a line for each field of an event, of each of several sources."""
    from expectations.quarantine import REMEDIES

    outcomes = ", ".join(
        f"{n:,} {name}{f' ({REMEDIES[name]})' if name in REMEDIES else ''}" for name, n in found.outcomes.items()
    )
    lines = [outcomes]
    for field in found.fields:
        samples = f", such as {'  '.join(field.samples)}" if field.samples else ""
        lines.append(f"  {field.name:<11} from {field.read_from or 'nothing'}: {field.filled:.0%}{samples}")
    for name, part in found.parts.items():
        lines.append(f"{name}, {part.rows:,} rows: {became(part)}")
    return "\n".join(lines)


def check_serving() -> str:
    if not known_settings().serving_url.get_secret_value():
        return "no store for applications is set (MEANDER_SERVING_URL); nothing here needs one"
    from lake.serving.layout import columns_in_store
    from lake.serving.pointer import current
    from lake.serving.store import open_store

    with open_store(known_settings()) as store:
        served = current(store) if columns_in_store(store) else None
        server = store.connection.info.parameter_status("server_version")
    return f"PostgreSQL {server}, applications see {served or 'nothing yet; run `meander serve load`'}"
