"""The evaluation as one HTML page that needs nothing else: no network, no other file, Plotly's JavaScript inside.

The page opens with the gate's decision in words. All numbers are also in plain tables, so that they can be read and
copied without JavaScript. Whatever comes from the shop's data (category ids) is escaped, in the page and in plots.
"""

import html
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from plotly.offline import get_plotlyjs
from sklearn.metrics import precision_recall_curve, roc_curve

from model.arrays import Array
from model.judging.baselines import LABELS, columns_of
from model.judging.comparison import METRIC_COLUMNS, SLICES, Comparison, Scores
from model.judging.gate import Decision
from model.judging.metrics import LOWER_IS_BETTER, calibration_curve

HEADS = {
    "migrated": ("Migration", "did migrate", "did not"),
    "purchased": ("Purchase", "did purchase", "did not"),
    "churned": ("Churn", "did churn", "did not"),
}
# Columns of the table at the top: title, task, metric, slice.
HEADLINES = (
    ("Recall@5, all", "next_category", "recall@5", "all"),
    ("Recall@5, migrated", "next_category", "recall@5", "migrated"),
    ("NDCG@10, all", "next_category", "ndcg@10", "all"),
    ("MRR, all", "next_category", "mrr", "all"),
    ("Next items: Recall@20", "next_items", "recall@20", "all"),
    ("Next items: NDCG@10", "next_items", "ndcg@10", "all"),
    ("Churn AUC", "churned", "roc_auc", "all"),
    ("Purchase AUC", "purchased", "roc_auc", "all"),
    ("Migration AUC", "migrated", "roc_auc", "all"),
)
OTHERS = "all others"

# Told apart by most colour-blind people, on light and on dark ground (after Okabe and Ito).
MODEL_COLOUR = "#2f7de1"
COLOURS = ("#e8833a", "#1a9e77", "#b45fc4", "#c9a227", "#7a8794", "#d1495b")
FLOW_COLOURS = ("#2f7de1", "#e8833a", "#1a9e77", "#b45fc4", "#c9a227", "#d1495b", "#3aa6b9", "#8d6e53", "#7a8794")

# What a table shows for a number that is not defined.
MISSING = "n/a"

# A curve of more points than this looks the same, and weighs more.
_POINTS = 300
Figure = dict[str, Any]


@dataclass
class Report:
    """What a page is made of.

    Attributes:
        title: of the page.
        evaluation: metrics and differences of all methods.
        decision: of the gate, or None where nothing was to be decided.
        test: the rows that were measured, N of them.
        categories: the candidates, in the order of the score columns.
        methods: the scores of all methods; the first one is the model that the page is about. Its `next_category` has
            to be probabilities: the flows are expected numbers of users.
        history: training curves with the columns `run`, `metric`, `step`, `value`; None or empty without any.
        facts: what the reader may need to know of where this comes from, e.g. table versions and dates.
        costs: what each phase of each training took and gave, with the columns of the table to show; or None.
    """

    title: str
    evaluation: Comparison
    decision: Decision | None
    test: pd.DataFrame
    categories: Sequence[str]
    methods: Sequence[Scores]
    history: pd.DataFrame | None = None
    facts: dict[str, str] = field(default_factory=dict)
    costs: pd.DataFrame | None = None


def escape(text: object) -> str:
    """Escape text for HTML; Plotly reads a little HTML in labels, so it does there as well.

    >>> escape("<b>Milk & Co</b>")
    '&lt;b&gt;Milk &amp; Co&lt;/b&gt;'
    """
    return html.escape(str(text))


def label_of(category: str, longest: int = 28) -> str:
    """Return a category id as a label of a plot: escaped, and cut where it is very long."""
    return escape(category if len(category) <= longest else f"{category[: longest - 1]}…")


# --- figures: plain Plotly specifications ---------------------------------------------------------------


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


def _known(report: Report, label: str) -> tuple[Array, Array]:
    """Return which rows have a label `(N,)`, and the labels of those."""
    known = report.test[label].notna().to_numpy()
    return known, report.test[label][known].astype(bool).to_numpy()


def _answering(report: Report, label: str) -> list[Scores]:
    return [method for method in report.methods if label in method.binary]


def roc_figure(report: Report, label: str) -> Figure:
    """Draw the ROC curve of each method that has this head."""
    known, labels = _known(report, label)
    colours, traces = colours_of(report.methods), [dotted([0, 1], [0, 1])]
    for method in _answering(report, label):
        false, true, _ = roc_curve(labels, method.binary[label][known])
        traces.append(line(method.name, colours[method.name], thinned(false, true)))
    return {"data": traces, "layout": axes("false positive rate", "true positive rate")}


def precision_recall_figure(report: Report, label: str) -> Figure:
    """Draw precision against recall of each method that has this head; dotted the precision of guessing."""
    known, labels = _known(report, label)
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


def calibration_figure(report: Report, label: str) -> Figure:
    """Draw observed against predicted rates, in ten groups of equally many rows."""
    known, labels = _known(report, label)
    colours, traces = colours_of(report.methods), [dotted([0, 1], [0, 1])]
    for method in _answering(report, label):
        curve = calibration_curve(labels, method.binary[label][known])
        points = thinned(curve["predicted"].to_numpy(), curve["observed"].to_numpy())
        traces.append(line(method.name, colours[method.name], points, mode="lines+markers"))
    return {"data": traces, "layout": axes("predicted probability", "observed rate")}


def histogram_figure(report: Report, label: str) -> Figure:
    """Draw how the model's probabilities are spread among those who did and those who did not."""
    known, labels = _known(report, label)
    probabilities = report.methods[0].binary[label][known]
    _, did, did_not = HEADS[label]
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


def _moves(report: Report) -> tuple[pd.DataFrame, Array]:
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
    rows, chances = _moves(report)
    before, after = rows["dominant_category"].astype(str), rows["next_category"].astype(str)
    left, right = list(before.value_counts().index[:most]), list(after.value_counts().index[:most])
    sides = [[*left, OTHERS], [*right, OTHERS]]
    start = columns_of(pd.Index(left), before)
    start = np.where(start < 0, len(left), start)
    into = columns_of(pd.Index(right), list(report.categories))
    into = np.where(into < 0, len(right), into)
    flows = np.zeros((len(left) + 1, len(right) + 1))
    if predicted:
        grouped = np.zeros((len(rows), len(right) + 1))
        np.add.at(grouped.T, into, chances.T)
        np.add.at(flows, start, grouped)
    else:
        end = columns_of(pd.Index(right), after)
        np.add.at(flows, (start, np.where(end < 0, len(right), end)), 1)
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


def rgba(colour: str, opacity: float) -> str:
    """Return a hex colour with an opacity.

    >>> rgba("#ff8000", 0.5)
    'rgba(255,128,0,0.5)'
    """
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"


def confusion_figure(report: Report, most: int = 15) -> Figure:
    """Draw which category the model put first, among users whose next category was another or the same."""
    rows, chances = _moves(report)
    actual = rows["next_category"].astype(str)
    first = pd.Series(np.asarray(report.categories, object)[chances.argmax(axis=1)]).astype(str)
    names = list(actual.value_counts().index[:most])
    labels = [*names, OTHERS]
    size = len(labels)
    at = [columns_of(pd.Index(names), values) for values in (actual, first)]
    at = [np.where(values < 0, size - 1, values) for values in at]
    counts = np.zeros((size, size))
    np.add.at(counts, (at[0], at[1]), 1)
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


# --- the page ------------------------------------------------------------------------------------------


class _Page:
    """Collects the parts of the page, and numbers its figures."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.figures: list[Figure] = []

    def add(self, text: str) -> None:
        self.parts.append(text)

    def section(self, title: str, words: str = "") -> None:
        self.add(f"<h2>{escape(title)}</h2>" + (f"<p>{escape(words)}</p>" if words else ""))

    def figure(self, figure: Figure, caption: str) -> str:
        """Return the place of a figure in the page."""
        number = len(self.figures)
        self.figures.append(figure)
        height = figure["layout"].get("height", 340)
        return (
            f'<figure><figcaption>{escape(caption)}</figcaption><div class="plot" id="plot-{number}" role="img" '
            f'aria-label="{escape(caption)}" style="height:{height}px"></div></figure>'
        )

    def grid(self, figures: Iterable[str], kind: str = "pair") -> None:
        self.add(f'<div class="grid {kind}">{"".join(figures)}</div>')


def number(value: float, digits: int = 3) -> str:
    """Return a number for a table; `MISSING` for one that is not defined.

    >>> number(0.12345), number(float("nan"))
    ('0.123', 'n/a')
    """
    return MISSING if pd.isna(value) else f"{value:.{digits}f}"


def table_of(columns: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "") -> str:
    """Return an HTML table; cells are ready HTML, titles are text."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in columns)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f'<div class="scroll"><table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def decision_part(decision: Decision | None) -> str:
    """Return the gate's decision: in words, then as a table."""
    if decision is None:
        return '<section class="verdict"><h2>No decision</h2><p>The gate was not asked.</p></section>'
    word, kind = ("Promoted to champion", "good") if decision.promote else ("Not promoted", "bad")
    failed = int((~decision.checks["passed"]).sum())
    against, others = (
        f"<ul>{''.join(f'<li>{escape(reason)}</li>' for reason in reasons)}</ul>"
        for reasons in (decision.reasons[:failed], decision.reasons[failed:])
    )
    rows = []
    for check in decision.checks.to_dict("records"):
        kind_of, word_of = ("good", "passed") if check["passed"] else ("bad", "failed")
        gain, low, high = (float(check[name]) for name in ("gain", "low", "high"))
        measured = (MISSING, MISSING) if np.isnan(gain) else (f"{gain:+.4f}", f"{low:+.4f} … {high:+.4f}")
        words = [escape(check[name]) for name in ("against", "criterion")]
        badge = f'<span class="{kind_of}">{word_of}</span>'
        rows.append([badge, *words, *measured, f"{check['users']:,}", escape(check["asked"])])
    columns = ("Check", "Against", "On", "Gain", "95 % interval", "Users", "Asked")
    return (
        f'<section class="verdict {kind}"><h2>{word}</h2>{against if failed else ""}'
        f"<details{' open' if decision.promote else ''}><summary>What speaks for it</summary>{others}</details>"
        f"<details open><summary>The gate's numbers</summary>{table_of(columns, rows)}</details></section>"
    )


def headline_part(report: Report) -> str:
    """Return the table of all methods on the metrics that matter most, the best of each column marked."""
    table = report.evaluation.metrics[list(METRIC_COLUMNS)].dropna(subset=["value"])
    found: dict[tuple[str, ...], tuple[float, float, float]] = {}
    for method, task, metric, part, value, low, high in table.iloc[:, :7].itertuples(index=False):
        found[(method, task, metric, part)] = (value, low, high)
    names = [method.name for method in report.methods]
    shown = [(title, key) for title, *key in HEADLINES if any((name, *key) in found for name in names)]
    rows = []
    for at, name in enumerate(names):
        cells = [f"<strong>{escape(name)}</strong>" if at == 0 else escape(name)]
        for _, key in shown:
            if (name, *key) not in found:
                cells.append(f'<span class="none">{MISSING}</span>')
                continue
            value, low, high = found[(name, *key)]
            best = max(found[(other, *key)][0] for other in names if (other, *key) in found)
            mark = ' class="best"' if value >= best else ""
            cells.append(f"<span{mark}>{number(value)}</span><br><small>{number(low)} … {number(high)}</small>")
        rows.append(cells)
    words = "All methods on the same rows; below each number its 95 % interval by bootstrap over users; best in bold"
    return table_of(("Method", *(title for title, _ in shown)), rows, words)


def details_part(table: pd.DataFrame, title: str) -> str:
    """Return a whole table, folded."""
    rows = [
        [number(value, 4) if isinstance(value, float) else escape(value) for value in row]
        for row in table.itertuples(index=False)
    ]
    return f"<details><summary>{escape(title)}</summary>{table_of(list(table.columns), rows)}</details>"


def render(report: Report) -> str:
    """Return the page as HTML."""
    page = _Page()
    model = report.methods[0]
    facts = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in report.facts.items()
    )
    users = report.test["user_id"].nunique()
    days = report.test["dt"].astype(str).str[:10]
    page.add(
        f"<header><h1>{escape(report.title)}</h1><p>{len(report.test):,} rows of {users:,} users, as-of dates "
        f"{escape(days.min())} to {escape(days.max())}; {report.evaluation.unseen_categories:.1%} of the true next "
        f"categories were unknown to the model.</p><dl>{facts}</dl></header>"
    )
    page.add(decision_part(report.decision))
    page.section("Beside every baseline")
    page.add(headline_part(report))
    measured = report.evaluation.metrics
    by_slice = [
        ("next_category", "recall@5", "Recall@5 of the next category"),
        ("next_items", "recall@20", "Recall@20 of the next items"),
        ("churned", "roc_auc", "Area under the ROC curve, churn"),
    ]
    drawn = [
        page.figure(slices_figure(report, task, metric), words)
        for task, metric, words in by_slice
        if ((measured["task"] == task) & (measured["metric"] == metric) & measured["value"].notna()).any()
    ]
    page.section("Where it holds", "; ".join(f"{name}: {words}" for name, words in SLICES.items()) + ".")
    page.grid(drawn, "single")
    if model.next_category is not None and len(_moves(report)[0]):
        page.section(
            "Where interest flows",
            "From each user's dominant category up to the as-of date to that of the horizon. Left what the model "
            "expects, as sums of its probabilities, right what happened; all but the most frequent categories as one.",
        )
        page.grid(
            [
                page.figure(flow_figure(report, predicted=True), "Predicted"),
                page.figure(flow_figure(report, predicted=False), "Actual"),
            ]
        )
        page.section(
            "Predicted and actual", "Each line adds up to 100 %: of the users with this category, what was put first."
        )
        page.grid([page.figure(confusion_figure(report), "The category that the model put first")], "single")
    for label in LABELS:
        if label not in model.binary or len(np.unique(_known(report, label)[1])) < 2:
            continue
        title, did, _ = HEADS[label]
        page.section(f"{title}: {_known(report, label)[1].mean():.1%} {did}")
        page.grid(
            [
                page.figure(roc_figure(report, label), f"{title}: ROC curve"),
                page.figure(precision_recall_figure(report, label), f"{title}: precision and recall"),
                page.figure(calibration_figure(report, label), f"{title}: calibration"),
                page.figure(histogram_figure(report, label), f"{title}: the model's scores by what happened"),
            ]
        )
    if report.history is not None and len(report.history):
        page.section("Training")
        if report.costs is not None:
            page.add(table_of(report.costs.columns.tolist(), report.costs.map(escape).to_numpy().tolist()))
        page.grid(page.figure(figure, name) for name, figure in history_figures(report.history).items())
    page.section("All numbers")
    page.add(details_part(report.evaluation.metrics, f"Metrics ({len(report.evaluation.metrics):,})"))
    page.add(details_part(report.evaluation.differences, f"Differences ({len(report.evaluation.differences):,})"))
    return _document(report.title, "\n".join(page.parts), page.figures)


def _document(title: str, body: str, figures: list[Figure]) -> str:
    """Put the parts into one document, with its styles, the plots and Plotly itself."""
    # "</" would end the script element early, whatever the JSON says.
    plots = json.dumps(figures, ensure_ascii=False, allow_nan=False).replace("</", "<\\/")
    policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data: blob:"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n<body><main>\n{body}\n"
        "<noscript><p>The plots need JavaScript; the tables do not.</p></noscript></main>\n"
        f'<script type="application/json" id="figures">{plots}</script>\n'
        f"<script>{get_plotlyjs()}</script>\n<script>{_SCRIPT}</script></body></html>\n"
    )


_STYLE = """
:root { --ground: #fbfbfa; --card: #ffffff; --ink: #1f2328; --soft: #5c6670; --line: #e2e5e8; --accent: #2f7de1;
  --good: #14784f; --bad: #b3362b; --good-ground: #e8f5ee; --bad-ground: #fcedeb; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #14171a; --card: #1c2024; --ink: #e6e9ec; --soft: #9aa5b1;
  --line: #30363c; --accent: #6aa8f5; --good: #5fcf9b; --bad: #f28b82; --good-ground: #16291f; --bad-ground: #331d1b; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 40px 24px 80px; }
h1 { font-size: 30px; line-height: 1.2; letter-spacing: -0.01em; margin: 0 0 8px; }
h2 { font-size: 21px; line-height: 1.3; margin: 48px 0 8px; }
p { max-width: 96ch; color: var(--soft); margin: 0 0 12px; }
dl { display: flex; flex-wrap: wrap; gap: 6px 28px; margin: 12px 0 0; font-size: 14px; }
dt { color: var(--soft); display: inline; } dt::after { content: ": "; } dd { display: inline; margin: 0; }
.verdict { margin: 28px 0 0; padding: 20px 24px; border-radius: 10px; border: 1px solid var(--line);
  border-left: 6px solid var(--soft); background: var(--card); }
.verdict h2 { margin: 0 0 8px; font-size: 24px; }
.verdict.good { border-left-color: var(--good); background: var(--good-ground); }
.verdict.good h2, span.good { color: var(--good); }
.verdict.bad { border-left-color: var(--bad); background: var(--bad-ground); }
.verdict.bad h2, span.bad { color: var(--bad); }
.verdict ul { margin: 0 0 12px; padding-left: 20px; color: var(--ink); }
span.good, span.bad { font-weight: 600; }
.scroll { overflow-x: auto; margin: 8px 0 0; }
table { border-collapse: collapse; width: 100%; font-size: 14px; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--soft); padding: 0 0 8px; }
th, td { text-align: left; padding: 7px 12px 7px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--soft); font-weight: 600; }
td small { color: var(--soft); font-size: 12px; white-space: nowrap; }
.best { font-weight: 700; color: var(--accent); } .none { color: var(--soft); }
.grid { display: grid; gap: 20px; margin: 12px 0 0; }
.grid.pair { grid-template-columns: repeat(auto-fit, minmax(min(100%, 480px), 1fr)); }
figure { margin: 0; padding: 16px; background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  min-width: 0; }
figcaption { font-weight: 600; font-size: 15px; margin: 0 0 4px; }
.plot { width: 100%; }
details { margin: 12px 0 0; } summary { cursor: pointer; color: var(--soft); }
@media print { figure, tr { break-inside: avoid; } }
"""

# Draws each figure when it comes near the window, in the colours of the page, and anew when those change.
_SCRIPT = """
(function () {
  "use strict";
  var figures = JSON.parse(document.getElementById("figures").textContent);
  var dark = window.matchMedia("(prefers-color-scheme: dark)");
  var drawn = new Set();
  function merge(base, more) {
    var out = Object.assign({}, base);
    Object.keys(more).forEach(function (key) {
      var both = out[key] && typeof out[key] === "object" && !Array.isArray(out[key]) && typeof more[key] === "object";
      out[key] = both ? merge(out[key], more[key]) : more[key];
    });
    return out;
  }
  function draw(element) {
    var figure = figures[Number(element.id.slice(5))];
    var style = getComputedStyle(document.documentElement);
    var ink = style.getPropertyValue("--ink").trim(), line = style.getPropertyValue("--line").trim();
    var axis = { gridcolor: line, linecolor: line, zerolinecolor: line, zeroline: false, automargin: true };
    var base = {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: ink, family: getComputedStyle(document.body).fontFamily, size: 13 },
      margin: { l: 56, r: 16, t: 24, b: 84 }, hovermode: "closest",
      modebar: { bgcolor: "rgba(0,0,0,0)" },
      legend: { orientation: "h", y: -0.28, yanchor: "top", x: 0, font: { size: 12 } },
      hoverlabel: { align: "left" }, xaxis: axis, yaxis: axis
    };
    Object.keys(figure.layout).forEach(function (key) { if (/^xaxis/.test(key)) { base[key] = axis; } });
    var data = figure.data.map(function (trace) {
      if (trace.type !== "sankey") { return trace; }
      return merge(trace, { textfont: { color: ink, shadow: "none", size: 12 } });
    });
    var options = { displaylogo: false, responsive: true, modeBarButtons: [["toImage"]] };
    Plotly.react(element, data, merge(base, figure.layout), options);
    drawn.add(element);
  }
  var plots = Array.prototype.slice.call(document.querySelectorAll(".plot"));
  var watcher = new IntersectionObserver(function (entries) {
    entries.forEach(function (entry) {
      if (entry.isIntersecting && !drawn.has(entry.target)) { draw(entry.target); }
    });
  }, { rootMargin: "600px" });
  plots.forEach(function (element) { watcher.observe(element); });
  dark.addEventListener("change", function () { drawn.forEach(draw); });
  window.addEventListener("beforeprint", function () { plots.forEach(draw); });
})();
"""
