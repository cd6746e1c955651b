"""What the process of a job says at its end: one line for what Meander expects, and never what a terminal acts on."""

import subprocess
import sys

import pytest

HOSTILE = "name\\x1b[2J\\x9b31m\\u202e\\r"
RUN = f"""
import logging
from lake.errors import SourceMismatch, run_main

def main():
    logging.getLogger("jobs").warning("columns: %s", "{HOSTILE}")
    ENDING

run_main(main)
"""


@pytest.mark.parametrize(
    ("ending", "code", "last"),
    [
        (f'raise SourceMismatch("{HOSTILE}")', 1, f"ERROR meander: SourceMismatch: {HOSTILE} [docs/runbook.md#source-"),
        (f'raise ValueError("{HOSTILE}")', 1, f"ValueError: {HOSTILE}"),
        ("raise SystemExit(3)", 3, f"columns: {HOSTILE}"),
        ("return", 0, f"columns: {HOSTILE}"),
    ],
)
def test_what_a_log_says_is_text_in_the_log_of_a_job_too(ending, code, last):
    """Names of columns come from files, and a log is read on a terminal and by Airflow's page, which shows colours."""
    done = subprocess.run([sys.executable, "-c", RUN.replace("ENDING", ending)], capture_output=True, check=False)
    said = done.stderr.decode()
    assert done.returncode == code
    assert all(each.isprintable() for each in said.replace("\n", ""))
    assert last.replace("\\\\", "\\") in said.splitlines()[-1]
