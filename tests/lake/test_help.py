"""What `--help` of every command of lake prints is on file: a change of it is seen in review.

After a change on purpose: UPDATE_GOLDEN=1 pytest tests/lake/test_help.py
"""

from pathlib import Path

import pytest

COMMANDS = ["lake.publish", "lake.upkeep"]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command(command, golden_help):
    golden_help(command)


def test_no_file_is_left_of_a_command_that_is_gone():
    assert sorted(file.stem for file in (Path(__file__).parent / "golden").glob("*.txt")) == COMMANDS
