"""What the commands share: texts are shown as they are, libraries are hushed."""

import contextlib
import io
import json
import os
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.table import Table as Grid

from dags.cli import console
from dags.cli.console import PlainConsole, libraries_hushed, print_json
from lake.errors import MeanderError
from lake.text import visible

# What a terminal would act on, or what would change how the text beside it is read.
ACTIVE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
# Also code points that are half of a pair, which no file can be written with, but a string of Python can hold.
TEXTS = st.text(st.characters(exclude_categories=()), max_size=40)


def printed(*values, **options) -> str:
    """Return what a terminal that shows colours would get."""
    file = io.StringIO()
    PlainConsole(file=file, width=100_000, force_terminal=True).print(*values, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("see [docs/runbook.md#audit-failed]", "see [docs/runbook.md#audit-failed]"),
        ("[/x] [bold]raw[/bold] \\[red]", "[/x] [bold]raw[/bold] \\[red]"),
        (":smile: 12.5 'a'", ":smile: 12.5 'a'"),
        ("\x1b[2J\x1b]0;title\x07", r"\x1b[2J\x1b]0;title\x07"),
        ("a\tb\rc\x00\x7f\x9b31m", r"a\tb\rc\x00\x7f\x9b31m"),
        ("\u202egpj.exe\u2066 \ud800", r"\u202egpj.exe\u2066 \ud800"),
        ("女装\u3000 é 10\xa0%", "女装\u3000 é 10\xa0%"),
    ],
)
def test_a_text_is_no_markup_and_controls_no_terminal(text, shown):
    assert printed(text) == f"{shown}\n"
    grid = Grid("raw", show_header=False, box=None, padding=0)
    grid.add_row(text)
    assert printed(grid).rstrip() == shown


@given(TEXTS)
@example("[/x]\x1b[31m")
def test_whatever_a_log_holds_reaches_the_terminal_as_text_alone(text):
    grid = Grid(text, text, title=text, caption=text)
    grid.add_row(text, f"[{text}]")
    grid.add_row(f"[/{text}]", f":{text}:")
    for output in (printed(text, soft_wrap=True), printed(grid)):
        output.encode()
        plain = output.replace("\x1b[1m", "").replace("\x1b[3m", "").replace("\x1b[2;3m", "").replace("\x1b[0m", "")
        assert [c for c in plain if unicodedata.category(c) in ACTIVE and c != "\n"] == []
    assert printed(text, soft_wrap=True) == f"{visible(text)}\n"


@given(st.dictionaries(TEXTS, TEXTS))
def test_json_means_the_same_text_and_holds_no_character_that_a_terminal_acts_on(value):
    file = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(console, "out", PlainConsole(file=file, width=150))
        print_json(value)
    assert set(file.getvalue()) <= {chr(code) for code in range(32, 127)} | {"\n"}
    assert json.loads(file.getvalue()) == value


def test_what_libraries_say_is_shown_only_with_a_failure(capfd):
    with libraries_hushed():
        os.write(2, b"found no GPU\n")
    with contextlib.suppress(MeanderError), libraries_hushed():
        os.write(2, b"out of memory\n")
        raise MeanderError("no model")
    os.write(2, b"afterwards\n")
    assert capfd.readouterr().err == "out of memory\nafterwards\n"
