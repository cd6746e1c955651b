"""What the commands share: libraries are hushed."""

import contextlib
import os

from dags.cli.console import libraries_hushed
from lake.errors import MeanderError


def test_what_libraries_say_is_shown_only_with_a_failure(capfd):
    with libraries_hushed():
        os.write(2, b"found no GPU\n")
    with contextlib.suppress(MeanderError), libraries_hushed():
        os.write(2, b"out of memory\n")
        raise MeanderError("no model")
    os.write(2, b"afterwards\n")
    assert capfd.readouterr().err == "out of memory\nafterwards\n"
