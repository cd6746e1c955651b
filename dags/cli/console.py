"""Shared parts of the `meander` command: the consoles that it prints to, and common options.

A log may contain any text. What is printed is shown as it is: square brackets are no markup, and characters that would
control the terminal are escaped.
"""

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from datetime import date, datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from lake.text import visible


class PlainConsole(Console):
    """A console that shows every text as it is, alone or in a table; colours are given by `rich.text.Text`."""

    def __init__(self, **options: Any):
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Every text that is printed comes through here, also the cells of tables."""
        return super().render_str(visible(text), **options)


# In a file or a pipe, a table has a fixed width.
out = PlainConsole(width=None if sys.stdout.isatty() else 150)
err = PlainConsole(stderr=True)

AsJson = Annotated[bool, typer.Option("--json", help="print JSON, for a machine to read")]
Day = Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="a UTC date")]
First = Annotated[datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], help="first date")]
Last = Annotated[datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="last date, included")]


def as_date(value: datetime | None) -> date | None:
    """Return the date of an option."""
    return value.date() if value else None


def print_json(value: Any) -> None:
    """Print a value as JSON, with dates as text."""
    # JSON has escapes of its own, which mean the same text to the machine that reads it.
    out.print_json(json.dumps(value, default=str), ensure_ascii=True)


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
