"""What `--help` of every job says is on file: a change of it is seen in review.

After a change on purpose: UPDATE_GOLDEN=1 pytest tests/jobs/test_help.py
"""

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

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
    ("arguments", "code", "told"),
    [
        pytest.param(
            ["--day", "yesterday", "--run-id", "r"],
            2,
            "'yesterday' is not a date; give YYYY-MM-DD",
            id="no date",
        ),
        pytest.param(["--day", "2025-03-02"], 2, "required: --run-id", id="no run id"),
        pytest.param(["--run-id", "r"], 1, "SettingsInvalid: give either --day, or both --from and --to", id="no day"),
    ],
)
def test_a_job_that_is_asked_wrongly_says_so_and_fails(arguments, code, told):
    finished = subprocess.run(
        [sys.executable, "-m", "jobs.ingest", *arguments], capture_output=True, text=True, check=False
    )
    assert finished.returncode == code
    assert told in finished.stderr
    assert "Traceback" not in finished.stderr
