"""What the parts of the `meander` command share: where they print, and options that many of them have."""

import sys
from datetime import date, datetime
from typing import Annotated

import typer
from rich.console import Console

# Written to a file or a pipe, a table keeps its width: nobody resizes a log.
out = Console(width=None if sys.stdout.isatty() else 150)
err = Console(stderr=True)

AsJson = Annotated[bool, typer.Option("--json", help="print JSON, for a machine to read")]
Day = Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="a UTC date")]


def as_date(value: datetime | None) -> date | None:
    """Return the date that was given on the command line."""
    return value.date() if value else None
