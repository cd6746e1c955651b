"""What the parts of the `meander` command share: where they print, and options that many of them have."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from datetime import date, datetime
from typing import Annotated

import typer
from rich.console import Console

# Written to a file or a pipe, a table keeps its width: nobody resizes a log.
out = Console(width=None if sys.stdout.isatty() else 150)
err = Console(stderr=True)

AsJson = Annotated[bool, typer.Option("--json", help="print JSON, for a machine to read")]
Day = Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="a UTC date")]
First = Annotated[datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], help="first date")]
Last = Annotated[datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="last date, included")]


def as_date(value: datetime | None) -> date | None:
    """Return the date that was given on the command line."""
    return value.date() if value else None


@contextlib.contextmanager
def libraries_hushed() -> Iterator[None]:
    """Hold back what is written to stderr, also by libraries in C++, and show it only if the block fails.

    TensorFlow says which instructions and devices it found, before any setting can silence it.
    """
    sys.stderr.flush()
    mine = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(mine, held.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(mine, 2)
            os.close(mine)
