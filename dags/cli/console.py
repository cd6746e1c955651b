"""Shared parts of the `meander` command: the consoles that it prints to, and common options."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from datetime import date, datetime
from typing import Annotated

import typer
from rich.console import Console

# In a file or a pipe, a table has a fixed width.
out = Console(width=None if sys.stdout.isatty() else 150)
err = Console(stderr=True)

AsJson = Annotated[bool, typer.Option("--json", help="print JSON, for a machine to read")]
Day = Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="a UTC date")]
First = Annotated[datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], help="first date")]
Last = Annotated[datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="last date, included")]


def as_date(value: datetime | None) -> date | None:
    """Return the date of an option."""
    return value.date() if value else None


@contextlib.contextmanager
def libraries_hushed() -> Iterator[None]:
    """Buffer the output to stderr, also that of libraries in C++, and print it only if the block fails.

    TensorFlow logs instructions and devices of the machine before any setting can silence it.
    """
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as buffer:
        os.dup2(buffer.fileno(), 2)
        try:
            yield
        except BaseException:
            buffer.seek(0)
            os.write(stderr, buffer.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
