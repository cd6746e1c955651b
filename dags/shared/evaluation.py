"""What the evaluation of a run found and what the gate decided, read from the files that model.evaluate left."""

import math
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import quote

from dags import PREFIX
from lake import storage
from lake.labels import NAMES
from lake.places import decision_file, evaluation_folder, metrics_file, report_file, run_name
from lake.settings import known_settings

REPORT = "report.html"
# Where `make mlflow` shows a store that has no server of its own.
LOCAL_MLFLOW = "http://127.0.0.1:5000"

# The numbers that people compare, of all that model.evaluate measures: heading, task, metric, slice.
COLUMNS = (
    ("next category recall@5", "next_category", "recall@5", "all"),
    ("migrated users", "next_category", "recall@5", "migrated"),
    ("any tied first", "next_category", "tied_recall@5", "all"),
    ("NDCG@5 of shares", "next_category", "shares_ndcg@5", "all"),
    ("cross entropy", "next_category", "cross_entropy", "all"),
    ("next items recall@20", "next_items", "recall@20", "all"),
    ("migrated users", "next_items", "recall@20", "migrated"),
    *((f"AUC {name}", name, "roc_auc", "all") for name in NAMES),
    *((f"calibration error {name}", name, "calibration_error", "all") for name in NAMES),
)


@dataclass(frozen=True)
class Evaluation:
    """The evaluation of one run; every part of it may not be there (yet).

    Attributes:
        slug: the run's name in paths.
    """

    slug: str

    @staticmethod
    def of(run_id: str) -> "Evaluation":
        """Return the evaluation of a run of model_weekly, or of its commands by hand."""
        return Evaluation(run_name(run_id))

    @property
    def folder(self) -> str:
        return evaluation_folder(self.slug)

    @property
    def report(self) -> str:
        """Where the page lies."""
        return report_file(self.slug)

    @property
    def report_link(self) -> str:
        """Address of the page in Airflow's UI; empty when there is none."""
        return f"{PREFIX}/models/{self.slug}/evaluation/{REPORT}" if storage.exists(self.report) else ""

    @cached_property
    def decision(self) -> dict[str, Any] | None:
        """The decision of the gate: `promote`, `reasons`, and more."""
        return storage.read_json(decision_file(self.slug))

    @cached_property
    def measured(self) -> dict[str, Any]:
        """What was measured: `metrics`, and the labels that are `not_judged`."""
        return storage.read_json(metrics_file(self.slug)) or {}

    @property
    def not_judged(self) -> list[str]:
        """The labels that are true of all users that were measured, or of none."""
        return list(self.measured.get("not_judged", []))

    @property
    def columns(self) -> list[tuple[str, str, str, str]]:
        """Those of COLUMNS that are judged."""
        return [column for column in COLUMNS if column[1] not in self.not_judged]

    def rows(self) -> list[tuple[str, list[float | None]]]:
        """Return for each method its number for each of `columns`; None where it has no answer to the task."""
        metrics = self.measured.get("metrics", [])
        values = {(m["method"], m["task"], m["metric"], m["slice"]): m["value"] for m in metrics}
        methods = dict.fromkeys(m["method"] for m in metrics)
        return [(method, [values.get((method, *column[1:])) for column in self.columns]) for method in methods]


def verdict(decision: dict[str, Any]) -> str:
    """Say in one line what the gate decided."""
    if decision["promote"]:
        return "The gate lets the candidate become champion."
    return "The champion stays: the gate has refused."


def number(value: float | None) -> str:
    """Show a metric.

    >>> number(0.61849), number(None)
    ('0.618', '-')
    """
    return "-" if value is None or math.isnan(value) else f"{value:.3f}"  # NaN: not defined on that slice


def mlflow_link(run_id: str) -> str:
    """Return where MLflow's UI shows the runs of a run of ours: pretraining, fine-tuning, evaluation."""
    from model.versions.registry import Registry

    registry = Registry.of(known_settings())
    uri = registry.uri
    # A browser asks who is there; a link that says it would show a password.
    server = re.sub(r"//[^/@]*@", "//", uri).rstrip("/") if uri.startswith(("http://", "https://")) else LOCAL_MLFLOW
    only_ours = quote(f"tags.`meander.run_id` = '{run_id}'")
    return f"{server}/#/experiments/{registry.experiment_id}/runs?searchFilter={only_ours}"
