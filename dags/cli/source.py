"""`meander source`: a contract from a source, and a first source from a file."""

import re
import sys
import tempfile
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dags.cli.console import err, out
from dags.cli.doctor import on_this_machine
from lake import storage
from lake.errors import SettingsInvalid, SourceInvalid, SourceMismatch
from lake.landing import Landing, now
from lake.settings import settings
from lake.text import visible

if TYPE_CHECKING:
    from jobs.source import Source

source = typer.Typer(no_args_is_help=True, help="Describe a log: a first source, and a contract with who delivers it.")


@source.command()
def contract(
    check: Annotated[
        Path | None, typer.Option(metavar="FILE", help="compare the newest landing day with this contract instead")
    ] = None,
    version: Annotated[str, typer.Option(help="version of the contract that is written")] = "1.0.0",
) -> None:
    """Write an Open Data Contract from MEANDER_SOURCE, the newest landing day and the suites."""
    from jobs.contract import contract as contract_of
    from jobs.contract import differences, files_by_pattern, landing_object
    from jobs.drift import columns_seen
    from jobs.source import load_source
    from jobs.yaml_file import YamlFile, dump

    config = settings()
    described = load_source(config.source)
    landing = Landing.of(config)
    day, names = newest_files(landing)
    kinds = described.on(day or now().date())
    files = files_by_pattern(described, day, names) if day else {}
    if check:
        if day is None:
            raise SourceMismatch(f"{config.landing} has no complete landing day with a file to compare with {check}")
        agreed = YamlFile(str(check), read_bytes(check)).content
        lines = [
            f"{pattern or 'files'}: {line}"
            for pattern, names in files.items()
            for line in differences(agreed, pattern, kinds[pattern], names)
        ]
        for line in lines:
            out.print(line, soft_wrap=True)
        out.print(f"{day}: {'differs from' if lines else 'as agreed in'} {check}", soft_wrap=True)
        raise typer.Exit(1 if lines else 0)
    from expectations.contract import table_object

    objects = [
        landing_object(kind, pattern, columns_seen(kind, files.get(pattern, [])), config)
        for pattern, kind in kinds.items()
    ]
    written = contract_of(described, version, [*objects, table_object("events", config)], config)
    out.print(dump(written, width=120), soft_wrap=True, end="")
    if day is None:
        err.print(
            f"{config.landing} has no complete landing day with a file: the contract has only columns that the source "
            "reads",
            soft_wrap=True,
        )


@source.command()
def init(
    file: Annotated[str, typer.Argument(metavar="FILE", help="CSV or JSON, plain or packed, Parquet, ORC or Avro")],
    to: Annotated[Path, typer.Option(metavar="FILE", help="the source that is written")] = Path("source.yaml"),
    user: Annotated[str, typer.Option(metavar="COLUMN", help="the column of the user")] = "",
    time: Annotated[str, typer.Option(metavar="COLUMN", help="the column of the time")] = "",
    behavior: Annotated[str, typer.Option(metavar="COLUMN", help="the column of what the user did")] = "",
    item: Annotated[str, typer.Option(metavar="COLUMN", help="the column of the item")] = "",
    category: Annotated[str, typer.Option(metavar="COLUMN", help="the column of the category")] = "",
    price: Annotated[str, typer.Option(metavar="COLUMN", help="the column of the price")] = "",
    preview: Annotated[bool, typer.Option(help="show what becomes of a few rows; it starts Spark")] = True,
) -> None:
    """Write a first source by looking at a file; on a terminal, ask what is not certain."""
    from jobs.first_source import first_source

    if to.suffix not in (".yaml", ".yml"):
        raise SettingsInvalid(f"--to is the name of a file that ends in .yaml; received {to}")
    if to.exists():
        raise SettingsInvalid(f"{to} exists; write to another file, by --to, or remove it")
    roles = {"user_id": user, "time": time, "behavior": behavior, "item_id": item, "category_id": category}
    chosen = {role: column for role, column in {**roles, "price": price}.items() if column}
    name = re.sub(r"[^a-z0-9]+", "_", to.stem.lower()).strip("_")
    name = name if re.match("[a-z]", name) else f"log_{name}".strip("_")
    ask = asked if sys.stdin.isatty() and sys.stdout.isatty() else None
    found = first_source(str(Path(file).resolve()) if "://" not in file else file, name, chosen, ask)
    written = found.as_yaml()
    described = loaded(written, to)
    try:
        with to.open("x", encoding="utf-8") as stream:
            stream.write(written)
    except OSError as error:
        raise SettingsInvalid(f"{to} cannot be written: {error.strerror}; give another file by --to") from error
    out.print(written, soft_wrap=True)
    if preview:
        out.print(f"rows: {became_of(described, file)}", soft_wrap=True)
    out.print(f"Written to {to}. Look at its comments, then: MEANDER_SOURCE={to.resolve()}", soft_wrap=True)


def asked(question: str, answers: Sequence[str], likely: str) -> str:
    """Ask on the terminal until the answer is one of some; an empty one of these is written as `none`."""
    # Names of columns are answers, and a file may have any.
    named = {visible(answer) or "none": answer for answer in answers}
    shown = f"{visible(question)} ({', '.join(named)})" if named else visible(question)
    while True:
        given = str(typer.prompt(shown, default=visible(likely) or "none")).strip()
        if not named or given in named:
            return named.get(given, given)
        out.print(f"{given!r} is none of them")


def became_of(described: "Source", file: str) -> str:
    """Return what becomes of a few rows of a file, as if it had landed today."""
    from dags.cli.doctor import became
    from jobs.preview import judged_ends, summary
    from lake.session import spark_session

    # No row of it is late: that it lands today is made up.
    config = settings().model_copy(update={"max_days_late": 0})
    if not on_this_machine(config.spark_master):
        return f"not looked at, since Spark is at {config.spark_master}, not on this machine"
    spark = spark_session("source", config)
    return became(summary(described, judged_ends(spark, [(described, now().date(), [file])], config)))


def loaded(written: str, to: Path) -> "Source":
    """Return the source that a text is, before it is written.

    Raises:
        SourceInvalid: it is none, for example since a file has no two columns that a source needs.
    """
    from jobs.source import load_source

    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, to.name)
        place.write_text(written, encoding="utf-8")
        try:
            return load_source(str(place))
        except SourceInvalid as error:
            raise SourceInvalid(
                f"{str(error).replace(str(place), str(to))}. So it was not written; answer otherwise, or name columns "
                "by options"
            ) from None


def newest_files(landing: Landing) -> tuple[date | None, list[str]]:
    """Return the newest complete landing day that has files, with a byte each, and these; None if there is none.

    Raises:
        LandingUnreadable: a file is none, or a link that leads out of the folder.
    """
    for day in reversed(landing.days()):
        if landing.has_landed(day):
            names = [name for name, file in landing.delivery(day).items() if file.bytes]
            if names:
                return day, [storage.join(landing.folder(day), name) for name in names]
    return None, []


def read_bytes(file: Path) -> bytes:
    """Return the content of a file.

    Raises:
        SourceInvalid: it cannot be read.
    """
    try:
        return file.read_bytes()
    except OSError as error:
        raise SourceInvalid(f"{file} cannot be read: {error.strerror}") from error
