"""The buttons on a task lead to what its run has made, once there is any."""

from types import SimpleNamespace

import pytest

from dags.shared.evaluation import Evaluation
from dags.shared.links import EvaluationReport, MlflowRuns
from lake import storage
from model.versions.registry import Registry

RUN = "model_weekly--scheduled__2025-03-09T00:00:00+00:00"


@pytest.mark.usefixtures("lake")
def test_the_buttons_lead_to_the_report_and_the_runs_of_this_run_once_there_are_any(monkeypatch):
    task = SimpleNamespace(run=RUN)
    assert EvaluationReport().get_link(task, ti_key=None) == ""
    assert MlflowRuns().get_link(task, ti_key=None) == ""

    evaluation = Evaluation.of(RUN)
    storage.write_json(evaluation.report, {})
    storage.write_json(storage.join(evaluation.folder, "decision.json"), {"promote": False})
    assert evaluation.slug.startswith("model_weekly--scheduled__2025-03-09T00-00-00-00-00-")
    address = f"/meander/models/{evaluation.slug}/evaluation/report.html"
    assert EvaluationReport().get_link(task, ti_key=None) == address

    monkeypatch.setattr(Registry, "experiment_id", "7")
    only_ours = "tags.%60meander.run_id%60%20%3D%20%27model_weekly--scheduled__2025-03-09T00%3A00%3A00%2B00%3A00%27"
    for uri, server in (
        ("", "http://127.0.0.1:5000"),
        ("https://mlflow.shop.example/", "https://mlflow.shop.example"),
        ("https://writer:secret@mlflow.shop.example", "https://mlflow.shop.example"),
    ):
        monkeypatch.setenv("MEANDER_MLFLOW_URI", uri)
        address = f"{server}/#/experiments/7/runs?searchFilter={only_ours}"
        assert MlflowRuns().get_link(task, ti_key=None) == address
