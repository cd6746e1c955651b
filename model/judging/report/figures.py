"""The figures of the report, as plain Plotly specifications: what Plotly's JavaScript draws in the page.

Plotly reads a little HTML in labels, so what comes from the shop's data (category ids) is escaped here too.
"""

import html
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import precision_recall_curve, roc_curve

from lake import labels
from model.arrays import Array
from model.data.candidates import columns_of
from model.judging.comparison import SLICES, Scores, first_choice
from model.judging.metrics import LOWER_IS_BETTER
from model.judging.report.content import Report

LABELS = {label.name: label for label in labels.LABELS}
OTHERS = "all others"

# Told apart by most colour-blind people, on light and on dark ground (after Okabe and Ito).
MODEL_COLOUR = "#2f7de1"
COLOURS = ("#e8833a", "#1a9e77", "#b45fc4", "#c9a227", "#7a8794", "#d1495b")
FLOW_COLOURS = ("#2f7de1", "#e8833a", "#1a9e77", "#b45fc4", "#c9a227", "#d1495b", "#3aa6b9", "#8d6e53", "#7a8794")

# A curve of more points than this looks the same, and weighs more.
_POINTS = 300
Figure = dict[str, Any]


def escape(text: object) -> str:
    """Escape text for a label of a plot.

    >>> escape("<b>Milk & Co</b>")
    '&lt;b&gt;Milk &amp; Co&lt;/b&gt;'
    """
    return html.escape(str(text))


def label_of(category: str, longest: int = 28) -> str:
    """Return a category id as a label of a plot: escaped, and cut where it is very long."""
    return escape(category if len(category) <= longest else f"{category[: longest - 1]}…")


def thinned(*curves: Array) -> list[list[float]]:
    """Return the curves at `_POINTS` of their points at most, the ends included."""
    size = len(curves[0])
    keep = np.unique(np.linspace(0, size - 1, min(size, _POINTS)).round().astype(int))
    return [np.round(curve[keep].astype(float), 5).tolist() for curve in curves]


def colours_of(methods: Sequence[Scores]) -> dict[str, str]:
    """Return a colour for each method; the model's own for the first."""
    rest = {method.name: COLOURS[at % len(COLOURS)] for at, method in enumerate(methods[1:])}
    return {methods[0].name: MODEL_COLOUR, **rest}


def line(name: str, colour: str, points: list[list[float]], **more: Any) -> dict[str, Any]:
    """Return a trace drawn as a line."""
    return {
        "type": "scatter",
        "mode": "lines",
        "name": escape(name),
        "x": points[0],
        "y": points[1],
        "line": {"color": colour, "width": 2},
        **more,
    }


def axes(x: str, y: str, **more: Any) -> dict[str, Any]:
    """Return a layout with titled axes."""
    return {"xaxis": {"title": {"text": x}}, "yaxis": {"title": {"text": y}}, **more}


def dotted(x: list[float], y: list[float]) -> dict[str, Any]:
    """Return a dotted line to compare with."""
    dots = {"color": "#8a939c", "width": 1, "dash": "dot"}
    return {
        "type": "scatter",
        "mode": "lines",
        "x": x,
        "y": y,
        "line": dots,
        "hoverinfo": "skip",
        "showlegend": False,
    }


def known_labels(report: Report, label: str) -> tuple[Array, Array]:
    """Return which rows have a label `(N,)`, and the labels of those."""
    known = report.test[label].notna().to_numpy()
    return known, report.test[label][known].astype(bool).to_numpy()


def _answering(report: Report, label: str) -> list[Scores]:
    return [method for method in report.methods if label in method.binary]


def roc_figure(report: Report, label: str) -> Figure:
    """Draw the ROC curve of each method that has this head."""
    known, labels = known_labels(report, label)
    colours, traces = colours_of(report.methods), [dotted([0, 1], [0, 1])]
    for method in _answering(report, label):
        false, true, _ = roc_curve(labels, method.binary[label][known])
        traces.append(line(method.name, colours[method.name], thinned(false, true)))
    return {"data": traces, "layout": axes("false positive rate", "true positive rate")}


def precision_recall_figure(report: Report, label: str) -> Figure:
    """Draw precision against recall of each method that has this head; dotted the precision of guessing."""
    known, labels = known_labels(report, label)
    rate = float(labels.mean())
    colours, traces = colours_of(report.methods), [dotted([0, 1], [rate, rate])]
    for method in _answering(report, label):
        precision, recall, _ = precision_recall_curve(labels, method.binary[label][known])
        # Its last point is made up (recall 0, precision 1).
        precision, recall = precision[:-1], recall[:-1]
        traces.append(line(method.name, colours[method.name], thinned(recall, precision)))
    layout = axes("recall", "precision")
    layout["yaxis"]["range"] = [0, 1.02]
    return {"data": traces, "layout": layout}


def reliability(labels: Array, probabilities: Array, users: "pd.Series[Any]", least: int) -> list[list[float]]:
    """Return predicted and observed rates of ten groups of about equal size; equal probabilities stay together.

    Groups of fewer than `least` users are left out: they say of single people what they did.
    """
    place = np.searchsorted(np.percentile(probabilities, np.arange(10, 100, 10)), probabilities)
    enough = distinct(users, place, 10) >= max(least, 1)
    rows, predicted, observed = (np.bincount(place, of, 10)[enough] for of in (None, probabilities, labels))
    return thinned(predicted / rows, observed / rows)


def calibration_figure(report: Report, label: str) -> Figure:
    """Draw observed against predicted rates."""
    known, labels = known_labels(report, label)
    users = report.test["user_id"][known]
    colours, traces = colours_of(report.methods), [dotted([0, 1], [0, 1])]
    for method in _answering(report, label):
        points = reliability(labels, method.binary[label][known], users, report.min_group)
        traces.append(line(method.name, colours[method.name], points, mode="lines+markers"))
    return {"data": traces, "layout": axes("predicted probability", "observed rate")}


def first_choice_figure(report: Report) -> Figure:
    """Draw how often the category came that a method put first, against its probability."""
    came = report.test["next_category"].notna().to_numpy()
    truth = columns_of(pd.Index(report.categories, dtype=object), report.test["next_category"])
    users = report.test["user_id"][came]
    colours, traces = colours_of(report.methods), [dotted([0, 1], [0, 1])]
    for method in report.methods:
        if method.next_category is None:
            continue
        right, probabilities = first_choice(method.next_category[came], truth[came])
        # Sums of single precision may end a little above 1.
        points = reliability(right, np.minimum(probabilities, 1), users, report.min_group)
        traces.append(line(method.name, colours[method.name], points, mode="lines+markers"))
    return {"data": traces, "layout": axes("probability of the first category", "share of users for whom it came")}


def histogram_figure(report: Report, label: str) -> Figure:
    """Draw how the model's probabilities are spread among those who did and those who did not."""
    known, labels = known_labels(report, label)
    probabilities = report.methods[0].binary[label][known]
    did, did_not = LABELS[label].did, LABELS[label].did_not
    edges = np.linspace(0, 1, 41)
    traces = []
    for name, part, colour in ((did, labels, MODEL_COLOUR), (did_not, ~labels, "#e8833a")):
        counts, _ = np.histogram(probabilities[part], edges)
        shares = counts / max(part.sum(), 1)
        middles = ((edges[1:] + edges[:-1]) / 2).round(4).tolist()
        hover = "%{y:.1%} of those who " + name + "<extra></extra>"
        traces.append(
            {
                "type": "bar",
                "name": f"{name} ({part.sum():,})",
                "x": middles,
                "y": shares.round(5).tolist(),
                "opacity": 0.65,
            }
            | {"marker": {"color": colour}, "hovertemplate": hover}
        )
    layout = axes("predicted probability", "share of the group", barmode="overlay", bargap=0)
    return {"data": traces, "layout": layout}


def slices_figure(report: Report, task: str, metric: str) -> Figure:
    """Draw a metric of all methods, with intervals, side by side for each slice; the best method on top of each."""
    table = report.evaluation.metrics
    table = table[(table["task"] == task) & (table["metric"] == metric) & table["value"].notna()]
    names = [name for name in SLICES if (table["slice"] == name).any()]
    overall = table[table["slice"] == "all"].sort_values("value", ascending=metric not in LOWER_IS_BETTER)
    order = [escape(name) for name in overall["method"]]
    model, traces, layout = report.methods[0].name, [], {}
    gap = 0.03
    width = (1 - gap * (len(names) - 1)) / max(len(names), 1)
    for at, name in enumerate(names):
        part = table[table["slice"] == name]
        suffix = str(at + 1) if at else ""
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": part["value"].round(5).tolist(),
                "y": [escape(method) for method in part["method"]],
                "xaxis": f"x{suffix}",
                "yaxis": "y",
                "showlegend": False,
                "marker": {"size": 9, "color": [MODEL_COLOUR if m == model else "#8a939c" for m in part["method"]]},
                "error_x": {
                    "type": "data",
                    "symmetric": False,
                    "array": (part["high"] - part["value"]).clip(lower=0).round(5).tolist(),
                    "arrayminus": (part["value"] - part["low"]).clip(lower=0).round(5).tolist(),
                    "color": "#8a939c",
                    "thickness": 1.5,
                    "width": 0,
                },
                "hovertemplate": "%{y}: %{x:.3f}<extra>" + escape(name) + "</extra>",
            }
        )
        start = at * (width + gap)
        title = f"{escape(name)}<br><sub>{int(part['n'].max()):,} rows</sub>"
        layout[f"xaxis{suffix}"] = {"domain": [start, min(start + width, 1)], "title": {"text": title}, "nticks": 4}
    layout["yaxis"] = {"categoryorder": "array", "categoryarray": order, "automargin": True}
    return {"data": traces, "layout": layout | {"height": 150 + 30 * len(order)}}


def moves(report: Report) -> tuple[pd.DataFrame, Array]:
    """Return the rows with a category before and after, and the model's probabilities of these rows `(n, C)`."""
    known = (report.test["dominant_category"].notna() & report.test["next_category"].notna()).to_numpy()
    scores = report.methods[0].next_category
    assert scores is not None
    chances = np.clip(scores[known].astype(float), 0, None)
    return report.test[known], chances / np.maximum(chances.sum(axis=1, keepdims=True), 1e-12)


def flow_figure(report: Report, *, predicted: bool, most: int = 8) -> Figure:
    """Draw how many users went, or are expected to go, from each category to each, as a Sankey diagram.

    Both diagrams have the same categories in the same order: the `most` frequent ones of each side, the rest as one.
    """
    rows, chances = moves(report)
    before, after = rows["dominant_category"].astype(str), rows["next_category"].astype(str)
    left, right = list(before.value_counts().index[:most]), list(after.value_counts().index[:most])
    sides = [[*left, OTHERS], [*right, OTHERS]]
    start = columns_of(pd.Index(left), before)
    start = np.where(start < 0, len(left), start)
    into = columns_of(pd.Index(right), list(report.categories))
    into = np.where(into < 0, len(right), into)
    flows = np.zeros((len(left) + 1, len(right) + 1))
    users = pd.Series(rows["user_id"].to_numpy())
    if predicted:
        grouped = np.zeros((len(rows), len(right) + 1))
        np.add.at(grouped.T, into, chances.T)
        np.add.at(flows, start, grouped)
        # Every user of a category is expected to go a little to each.
        members = np.repeat(distinct(users, start, len(flows))[:, None], flows.shape[1], axis=1)
    else:
        end = columns_of(pd.Index(right), after)
        end = np.where(end < 0, len(right), end)
        np.add.at(flows, (start, end), 1)
        members = distinct(users, start * flows.shape[1] + end, flows.size).reshape(flows.shape)
    flows = in_groups(flows, members, report.min_group)
    gap = 0.018
    y = [
        (np.cumsum(sizes) - sizes / 2) * (1 - gap * (len(sizes) - 1)) + gap * np.arange(len(sizes))
        for sizes in (flows.sum(axis=axis) / max(flows.sum(), 1e-12) for axis in (1, 0))
    ]
    height = 560
    source, target = np.nonzero(flows >= 0.5)
    colours = [FLOW_COLOURS[at % len(FLOW_COLOURS)] for at in range(len(left))] + ["#7a8794"]
    by_id = dict(zip(left, colours, strict=False)) | {OTHERS: "#7a8794"}
    node = {
        "label": [label_of(name) for side in sides for name in side],
        "color": [by_id.get(name, "#9aa5b1") for side in sides for name in side],
        "x": [0.001] * len(sides[0]) + [0.999] * len(sides[1]),
        "y": [float(np.clip(at, 0.001, 0.999)) for side in y for at in side],
        "pad": gap * height,
        "thickness": 14,
        "line": {"width": 0},
        "hovertemplate": "%{label}: %{value:.0f} users<extra></extra>",
    }
    link = {
        "source": source.tolist(),
        "target": (target + len(sides[0])).tolist(),
        "value": flows[source, target].round(2).tolist(),
        "color": [rgba(colours[at], 0.38) for at in source],
        "hovertemplate": "%{source.label} → %{target.label}: %{value:.0f} users<extra></extra>",
    }
    layout = {"height": height, "margin": {"l": 8, "r": 8, "t": 8, "b": 16}}
    return {"data": [{"type": "sankey", "arrangement": "fixed", "node": node, "link": link}], "layout": layout}


def distinct(users: "pd.Series[Any]", place: Array, places: int) -> Array:
    """Return how many different users are at each of some places, `(places,)`."""
    return users.groupby(place).nunique().reindex(range(places), fill_value=0).to_numpy()


def in_groups(flows: Array, members: Array, least: int) -> Array:
    """Return flows of which each has `least` users or more: smaller ones say of single people what they did.

    They are added to the last column, all others, with the smallest of the larger flows of their row, since they would
    be told by themselves otherwise. Where there is none, the row is left out.

    Args:
        flows: `(S, T)`, from each category to each.
        members: `(S, T)`, different users behind each.
        least: users that a flow needs.
    """
    shown = flows.copy()
    last = flows.shape[1] - 1
    for source, (row, behind) in enumerate(zip(flows, members, strict=True)):
        there = np.flatnonzero(row > 0).tolist()
        small = [at for at in there if behind[at] < least]
        # All others first: they already are a sum.
        large = sorted((at for at in there if behind[at] >= least), key=lambda at: (at != last, behind[at]))
        if small:
            merged = [*small, *large[:1]]
            shown[source, merged] = 0
            shown[source, last] += row[merged].sum() if large else 0
    return shown


def rgba(colour: str, opacity: float) -> str:
    """Return a hex colour with an opacity.

    >>> rgba("#ff8000", 0.5)
    'rgba(255,128,0,0.5)'
    """
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"


def confusion_figure(report: Report, most: int = 15) -> Figure:
    """Draw which category the model put first, among users whose next category was another or the same."""
    rows, chances = moves(report)
    actual = rows["next_category"].astype(str)
    first = pd.Series(np.asarray(report.categories, object)[chances.argmax(axis=1)]).astype(str)
    users = pd.Series(rows["user_id"].to_numpy())
    behind = users.groupby(actual.to_numpy()).nunique()
    names = [name for name in actual.value_counts().index if behind[name] >= report.min_group][:most]
    labels = [*names, OTHERS]
    size = len(labels)
    at = [columns_of(pd.Index(names), values) for values in (actual, first)]
    at = [np.where(values < 0, size - 1, values) for values in at]
    counts = np.zeros((size, size))
    np.add.at(counts, (at[0], at[1]), 1)
    counts[distinct(users, at[0], size) < report.min_group] = 0
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    shown = [label_of(name) for name in labels]
    hover = "actual %{y}<br>predicted %{x}<br>%{z:.1%} of %{customdata:,} users<extra></extra>"
    trace = {
        "type": "heatmap",
        "x": shown,
        "y": shown,
        "z": shares.round(4).tolist(),
        "customdata": np.tile(counts.sum(axis=1, keepdims=True), (1, size)).astype(int).tolist(),
        "colorscale": [[0, rgba(MODEL_COLOUR, 0.03)], [0.5, rgba(MODEL_COLOUR, 0.6)], [1, MODEL_COLOUR]],
        "colorbar": {"tickformat": ".0%", "outlinewidth": 0, "thickness": 12},
        "xgap": 1,
        "ygap": 1,
        "hovertemplate": hover,
    }
    layout = axes("predicted", "actual", height=620)
    layout["xaxis"] |= {"tickangle": -50, "automargin": True, "showgrid": False}
    layout["yaxis"] |= {"autorange": "reversed", "automargin": True, "showgrid": False}
    layout["yaxis"]["title"]["standoff"] = 14
    return {"data": [trace], "layout": layout}


def history_figures(history: pd.DataFrame) -> dict[str, Figure]:
    """Draw one figure for each metric of training, one line for each run."""
    figures = {}
    runs = list(dict.fromkeys(history["run"]))
    colours = dict(zip(runs, [MODEL_COLOUR, *COLOURS] * (1 + len(runs) // 7), strict=False))
    for metric, part in history.groupby("metric", sort=False):
        traces = []
        for run, curve in part.groupby("run", sort=False):
            curve = curve.sort_values("step", kind="stable")
            points = thinned(curve["step"].to_numpy(), curve["value"].to_numpy())
            traces.append(line(str(run), colours[run], points))
        figures[str(metric)] = {"data": traces, "layout": axes("step", escape(metric))}
    return figures
