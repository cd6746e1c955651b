"""Every path below the lake, as people find it there."""

from datetime import date

import pytest

from lake import places
from lake.settings import settings

# An id of Airflow's, and what it is called in paths.
RUN = "manual__2025-01-01T00:00:00+00:00"
NAME = "manual__2025-01-01T00-00-00-00-00-31d00d8e"


@pytest.fixture(params=["/data/lake", "/data/lake/", "s3://shop/lake"])
def root(request, monkeypatch) -> str:
    monkeypatch.setenv("MEANDER_LAKE", request.param)
    return request.param.rstrip("/")


def test_the_paths_are_these(root):
    assert places.run_name(RUN) == NAME
    run, model = f"{root}/_runs/{NAME}", f"{root}/_models/{NAME}"
    paths = [
        (places.table_path("events"), f"{root}/events"),
        (places.staged_folder("events", "x"), f"{root}/events/stage=x"),
        (places.audits_path(), f"{root}/audits"),
        (places.order_path(), f"{root}/_order"),
        (places.runs_folder(), f"{root}/_runs"),
        (places.run_folder(RUN), run),
        (places.manifest_file(run, "events", "7-ab"), f"{run}/events.7-ab.json"),
        (places.verdict_beside(f"{run}/events.7-ab.json"), f"{run}/events.7-ab.audit.json"),
        (places.docs_page(RUN, "events"), f"{NAME}/events.html"),
        (places.models_folder(), f"{root}/_models"),
        (places.model_folder(RUN), model),
        (places.plan_file(RUN), f"{model}/plan.json"),
        (places.vocabulary_folder(RUN), f"{model}/vocabulary"),
        (places.network_folder(RUN, "lora"), f"{model}/lora"),
        (places.card_file(f"{model}/lora"), f"{model}/lora/card.json"),
        (places.checkpoints_folder(RUN, "pretrain"), f"{model}/checkpoints/pretrain"),
        (places.evaluation_folder(RUN), f"{model}/evaluation"),
        (places.metrics_file(RUN), f"{model}/evaluation/metrics.json"),
        (places.differences_file(RUN), f"{model}/evaluation/differences.json"),
        (places.decision_file(RUN), f"{model}/evaluation/decision.json"),
        (places.report_file(RUN), f"{model}/evaluation/report.html"),
        (places.registry_folder(), f"{root}/_mlflow"),
        (places.monitor_folder(), f"{root}/_monitor"),
        (places.monitor_file(date(2025, 1, 2)), f"{root}/_monitor/2025-01-02.json"),
        (places.alerts_folder(settings().lake), f"{root}/_alerts"),
        (places.probe_file(), f"{root}/_doctor/probe.json"),
        (places.forgotten_path(), f"{root}/_forgotten"),
        (places.receipts_folder(), f"{root}/_receipts"),
        (places.receipt_file("forget-1"), f"{root}/_receipts/forget-1.json"),
        (places.landed_file("forget-1"), f"{root}/_receipts/forget-1.landed.json"),
    ]
    assert [path for path, _ in paths] == [expected for _, expected in paths]


def test_a_run_is_found_by_its_id_and_by_its_name(root):
    assert places.model_folder(NAME) == places.model_folder(RUN)
    assert places.run_name("cli-2025.01") == "cli-2025.01"


@pytest.mark.parametrize(
    "run",
    [
        "",
        ".",
        "..",
        "...",
        "../..",
        "/",
        "/etc",
        "a/../../b",
        "..\\x",
        "\0",
        "\n",
        "\ud800",
        "é",
        "r" * 201,
        "r/" * 3000,
    ],
)
def test_whatever_a_run_is_called_its_files_are_in_one_folder_of_its_own(root, run):
    folder = places.run_folder(run)
    name = folder.removeprefix(f"{root}/_runs/")
    assert name.isascii()
    assert name.isprintable()
    assert 9 <= len(name) <= 200
    assert "/" not in name
    assert name not in (".", "..")
    # It is found by its name, and no other run has that.
    assert places.run_name(name) == name
    assert places.run_name(f"{run}x") != name


def test_a_run_s_folder_is_the_one_it_always_was(root):
    for name in ("r", "scheduled__2025-01-01", "cli-2025.01", "_r", ".r", "r" * 200):
        assert places.run_name(name) == name
