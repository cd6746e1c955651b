"""Tasks that run a module of a test."""

import os

import pytest

from dags.shared.model import Promote
from dags.shared.runs import ModelJob
from lake.environment import COMMANDS

RUN = "model_weekly--scheduled__2025-03-09T00:00:00+00:00"


@pytest.fixture
def job(tmp_path, monkeypatch):
    """Make a task of the run RUN that runs a module with the code given."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    # It gets what the module in whose place it runs would get.
    monkeypatch.setitem(COMMANDS, "of_a_test", COMMANDS["model.pretrain"])

    def make(code, kind=ModelJob, **more):
        (tmp_path / "of_a_test.py").write_text(code)
        if kind is not Promote:
            more = {"module": "model.pretrain", "arguments": [], **more}
        task = kind(task_id="task", run=RUN, **more)
        task.module = "of_a_test"
        return task

    return make
