"""The report as one HTML page that needs nothing else: no network, no other file, Plotly's JavaScript inside.

The page opens with the gate's decision in words. All numbers are also in plain tables, so that they can be read and
copied without JavaScript. The templates escape what they are given; only our own style and script and Plotly's
JavaScript go into the page as they are.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from lake.labels import LABELS
from model.judging.comparison import METRIC_COLUMNS, SLICES
from model.judging.gate import Decision
from model.judging.metrics import LOWER_IS_BETTER
from model.judging.report.content import Report
from model.judging.report.figures import (
    Figure,
    calibration_figure,
    confusion_figure,
    first_choice_figure,
    flow_figure,
    histogram_figure,
    history_figures,
    known_labels,
    moves,
    precision_recall_figure,
    roc_figure,
    slices_figure,
)

HERE = Path(__file__).parent

# Columns of the table at the top: title, task, metric, slice.
HEADLINES = (
    ("Recall@5, all", "next_category", "recall@5", "all"),
    ("Recall@5, migrated", "next_category", "recall@5", "migrated"),
    ("Recall@5, any tied first", "next_category", "tied_recall@5", "all"),
    ("NDCG@5 of shares", "next_category", "shares_ndcg@5", "all"),
    ("Cross entropy", "next_category", "cross_entropy", "all"),
    ("Sets of 90 %: coverage", "next_category", "set_coverage", "all"),
    ("Sets of 90 %: categories", "next_category", "set_size", "all"),
    ("Next items: Recall@20", "next_items", "recall@20", "all"),
    ("Next items: NDCG@10", "next_items", "ndcg@10", "all"),
    *((f"{label.title} AUC", label.name, "roc_auc", "all") for label in LABELS),
    *((f"{label.title}: calibration error", label.name, "calibration_error", "all") for label in LABELS),
)
# The metrics that are drawn for each slice: task, metric, caption.
BY_SLICE = (
    ("next_category", "recall@5", "Recall@5 of the next category"),
    ("next_category", "shares_ndcg@5", "NDCG@5 of the shares of all next categories"),
    ("next_category", "set_coverage", "How often the set of categories holds the next one; 90 % is promised for all"),
    ("next_items", "recall@20", "Recall@20 of the next items"),
    *((label.name, "roc_auc", f"Area under the ROC curve, {label.score}") for label in LABELS),
)

# What a table shows for a number that is not defined.
MISSING = "n/a"


def number(value: float, digits: int = 3) -> str:
    """Return a number for a table; `MISSING` for one that is not defined.

    >>> number(0.12345), number(float("nan"))
    ('0.123', 'n/a')
    """
    return MISSING if pd.isna(value) else f"{value:.{digits}f}"


templates = Environment(
    loader=FileSystemLoader(HERE / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
templates.filters["number"] = number
templates.globals["MISSING"] = MISSING
# NaN is no JSON: the page could not be read. The order of keys is the one in which the figures were written.
templates.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "allow_nan": False}


@dataclass(frozen=True)
class Plot:
    """The place of a figure in the page.

    Attributes:
        number: of the figure in the list that the page's script draws from.
        caption: above it.
        height: in pixels.
    """

    number: int
    caption: str
    height: int


class Plots:
    """The figures of the page, numbered in the order in which they are added."""

    def __init__(self) -> None:
        self.figures: list[Figure] = []

    def add(self, figure: Figure, caption: str) -> Plot:
        self.figures.append(figure)
        return Plot(len(self.figures) - 1, caption, figure["layout"].get("height", 340))


@dataclass(frozen=True)
class Score:
    """A number of the table at the top, with its interval, and whether it is the best of its column."""

    value: float
    low: float
    high: float
    best: bool


@dataclass(frozen=True)
class Head:
    """The section of a binary head: its title, the share of rows whose label is true, what these did, and the plots."""

    title: str
    rate: float
    did: str
    plots: list[Plot]


def headlines(report: Report) -> tuple[list[str], list[tuple[str, list[Score | None]]]]:
    """Return the table of all methods on the metrics that matter most.

    Returns:
        The titles of the columns that any method has a number for, and for each method its name and its scores; None
        where a method has no number.
    """
    table = report.evaluation.metrics[list(METRIC_COLUMNS)].dropna(subset=["value"])
    measured: dict[tuple[str, ...], tuple[float, float, float]] = {}
    for method, task, metric, part, value, low, high in table.iloc[:, :7].itertuples(index=False):
        measured[(method, task, metric, part)] = (value, low, high)
    names = [method.name for method in report.methods]
    columns = [(title, key) for title, *key in HEADLINES if any((name, *key) in measured for name in names)]
    rows = []
    for name in names:
        scores: list[Score | None] = []
        for _, key in columns:
            if (name, *key) not in measured:
                scores.append(None)
                continue
            value, low, high = measured[(name, *key)]
            best = (min if key[1] in LOWER_IS_BETTER else max)(
                measured[(other, *key)][0] for other in names if (other, *key) in measured
            )
            scores.append(Score(value, low, high, value == best))
        rows.append((name, scores))
    return [title for title, _ in columns], rows


def checks(decision: Decision) -> list[dict[Hashable, Any]]:
    """Return the checks of the gate, with the gain and its interval in words."""
    rows = []
    for check in decision.checks.to_dict("records"):
        gain, low, high = (float(check[name]) for name in ("gain", "low", "high"))
        known = not np.isnan(gain)
        rows.append(
            {
                **check,
                "gain": f"{gain:+.4f}" if known else MISSING,
                "interval": f"{low:+.4f} … {high:+.4f}" if known else MISSING,
            }
        )
    return rows


def slice_plots(report: Report, plots: Plots) -> list[Plot]:
    """Draw the metrics of BY_SLICE that were measured."""
    measured = report.evaluation.metrics
    return [
        plots.add(slices_figure(report, task, metric), caption)
        for task, metric, caption in BY_SLICE
        if ((measured["task"] == task) & (measured["metric"] == metric) & measured["value"].notna()).any()
    ]


def flow_plots(report: Report, plots: Plots) -> tuple[list[Plot], list[Plot]]:
    """Draw where interest flows, and what the model put first; nothing where the model or the rows have no category."""
    if report.methods[0].next_category is None or not len(moves(report)[0]):
        return [], []
    flows = [
        plots.add(flow_figure(report, predicted=True), "Predicted"),
        plots.add(flow_figure(report, predicted=False), "Actual"),
    ]
    return flows, [
        plots.add(confusion_figure(report), "The category that the model put first"),
        plots.add(first_choice_figure(report), "How often the category that was put first came"),
    ]


def heads(report: Report, plots: Plots) -> list[Head]:
    """Draw the binary heads of the model, those whose label is true of some rows and false of others."""
    sections = []
    for label in LABELS:
        if label.name not in report.methods[0].binary:
            continue
        _, answers = known_labels(report, label.name)
        if len(np.unique(answers)) < 2:
            continue
        drawn = [
            plots.add(roc_figure(report, label.name), f"{label.title}: ROC curve"),
            plots.add(precision_recall_figure(report, label.name), f"{label.title}: precision and recall"),
            plots.add(calibration_figure(report, label.name), f"{label.title}: calibration"),
            plots.add(histogram_figure(report, label.name), f"{label.title}: the model's scores by what happened"),
        ]
        sections.append(Head(label.title, answers.mean(), label.did, drawn))
    return sections


def training_plots(report: Report, plots: Plots) -> list[Plot]:
    """Draw the curves of training; none without a history."""
    if report.history is None:
        return []
    return [plots.add(figure, metric) for metric, figure in history_figures(report.history).items()]


def render(report: Report) -> str:
    """Return the page as HTML."""
    days = report.test["dt"].astype(str).str[:10]
    # The plots are numbered as they are added: here in the order in which the page shows them.
    plots = Plots()
    by_slice = slice_plots(report, plots)
    flows, first_choices = flow_plots(report, plots)
    sections = heads(report, plots)
    training = training_plots(report, plots)
    columns, scores = headlines(report)
    return templates.get_template("page.html").render(
        title=report.title,
        facts=report.facts,
        rows=len(report.test),
        users=report.test["user_id"].nunique(),
        first=days.min(),
        last=days.max(),
        unseen=report.evaluation.unseen_categories,
        decision=report.decision,
        failed=len(report.decision.against) if report.decision else 0,
        checks=checks(report.decision) if report.decision else [],
        columns=columns,
        scores=scores,
        slices=SLICES,
        by_slice=by_slice,
        flows=flows,
        first_choices=first_choices,
        heads=sections,
        training=training,
        costs=report.costs,
        metrics=report.evaluation.metrics,
        differences=report.evaluation.differences,
        figures=plots.figures,
        style=_ours("report.css"),
        script=_ours("report.js"),
        plotly=Markup(get_plotlyjs()),
    )


def _ours(name: str) -> Markup:
    """Return a file of ours that goes into the page as it is."""
    return Markup((HERE / "static" / name).read_text(encoding="utf-8"))
