"""What `--help` of every job says is on file: a change of it is seen in review.

After a change on purpose: UPDATE_GOLDEN=1 pytest tests/jobs/test_help.py
"""

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from jobs import ingest

GOLDEN = Path(__file__).parent / "golden"
JOBS = [
    "jobs.examples",
    "jobs.export_completejourney",
    "jobs.ingest",
    "jobs.interests",
    "jobs.serve",
    "jobs.sessionize",
    "jobs.simulate",
    "expectations.audit",
    "lake.publish",
]


@pytest.mark.parametrize("job", JOBS)
def test_the_help_of_a_job(job, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "110")
    with pytest.raises(SystemExit) as stopped:
        import_module(job).main(["--help"])
    file = GOLDEN / f"{job}.txt"
    said = capsys.readouterr().out
    if os.environ.get("UPDATE_GOLDEN"):
        file.write_text(said, encoding="utf-8")
    assert stopped.value.code == 0
    assert said == file.read_text(encoding="utf-8")


def test_no_file_is_left_of_a_job_that_is_gone():
    assert sorted(file.stem for file in GOLDEN.glob("*.txt")) == sorted(JOBS)


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
