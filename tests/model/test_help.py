"""What `--help` of every command of the model prints is on file: a change of it is seen in review.

After a change on purpose: UPDATE_GOLDEN=1 pytest tests/model/test_help.py
"""

from pathlib import Path

import pytest

COMMANDS = ["model.evaluate", "model.monitor", "model.prepare", "model.promote", "model.score"]
# They import TensorFlow before they look at their arguments.
TRAININGS = ["model.federated", "model.finetune", "model.pretrain"]


@pytest.mark.parametrize("command", [*COMMANDS, *(pytest.param(name, marks=pytest.mark.tf) for name in TRAININGS)])
def test_the_help_of_a_command(command, golden_help):
    golden_help(command)


def test_no_file_is_left_of_a_command_that_is_gone():
    files = (Path(__file__).parent / "golden").glob("*.txt")
    assert sorted(file.stem for file in files) == sorted(COMMANDS + TRAININGS)
