"""What `--help` of every job prints is on file: a change of it is seen in review.

After a change on purpose: UPDATE_GOLDEN=1 pytest tests/jobs/test_help.py
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from jobs import ingest

TESTS = Path(__file__).parents[1]
# All of jobs/ that can be run.
JOBS = sorted(f"jobs.{file.stem}" for file in (TESTS.parent / "jobs").glob("*.py") if "\ndef main(" in file.read_text())


@pytest.mark.parametrize("job", JOBS)
def test_the_help_of_a_job(job, golden_help):
    golden_help(job)


def test_no_file_is_left_of_a_job_that_is_gone():
    assert sorted(file.stem for file in (TESTS / "jobs" / "golden").glob("*.txt")) == JOBS


def test_the_help_of_every_command_that_is_stable_is_on_file():
    commands = (TESTS.parent / "docs" / "design.md").read_text(encoding="utf-8").split("## Commands", 1)[1]
    stable = set(re.findall(r"^python -m (\S+)", commands.split("```")[1], re.MULTILINE))
    assert {"jobs.ingest", "model.promote"} < stable
    files = {file.stem: file.parents[1].name for file in TESTS.glob("*/golden/*.txt")}
    assert {module: files.get(module) for module in stable} == {module: module.split(".")[0] for module in stable}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        pytest.param(
            ["--day", "yesterday", "--run-id", "r"], "'yesterday' is not a date; give YYYY-MM-DD", id="no date"
        ),
        pytest.param(["--day", "2025-03-02"], "required: --run-id", id="no run id"),
    ],
)
def test_arguments_that_a_job_does_not_know_are_told_with_its_usage(arguments, told, capsys):
    with pytest.raises(SystemExit) as stopped:
        ingest.main(arguments)
    assert stopped.value.code == 2
    assert told in capsys.readouterr().err


def test_a_job_that_is_asked_wrongly_says_so_and_fails():
    command = [sys.executable, "-m", "jobs.ingest", "--run-id", "r"]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 1
    assert "SettingsInvalid: give either --day, or both --from and --to" in finished.stderr
    assert "Traceback" not in finished.stderr
