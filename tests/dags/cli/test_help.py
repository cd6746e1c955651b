"""What `meander --help` and `--help` of each of its commands say is on file: a change of it is seen in review.

After a change on purpose: UPDATE_GOLDEN=1 pytest tests/dags/cli/test_help.py
"""

import os
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from dags.cli.main import app

GOLDEN = Path(__file__).parent / "golden"
MEANDER = typer.main.get_command(app)
# `meander simulate` hands its arguments to jobs.simulate, whose help is on file there.
COMMANDS = [
    (),
    *((name,) for name in MEANDER.commands if name != "simulate"),
    *((group, name) for group in ("serve", "source") for name in MEANDER.commands[group].commands),
]


def file_of(command: tuple[str, ...]) -> Path:
    return GOLDEN / f"{'.'.join(('meander', *command))}.txt"


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_the_help_of_a_command(command, monkeypatch):
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", 110)
    shown = CliRunner().invoke(app, [*command, "--help"], prog_name="meander", catch_exceptions=False)
    assert shown.exit_code == 0
    lines = "".join(f"{line.rstrip()}\n" for line in shown.stdout.splitlines())
    if os.environ.get("UPDATE_GOLDEN"):
        file_of(command).write_text(lines, encoding="utf-8")
    assert lines == file_of(command).read_text(encoding="utf-8")


def test_no_file_is_left_of_a_command_that_is_gone():
    assert sorted(GOLDEN.glob("*.txt")) == sorted(map(file_of, COMMANDS))
