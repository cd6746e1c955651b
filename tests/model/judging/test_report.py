"""The report is one page that asks nothing of the network, escapes the shop's words, and draws what was measured."""

import dataclasses
import json
import re
import tomllib
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from plotly.offline import get_plotlyjs
from sklearn.metrics import auc

from model.judging.baselines import BaseRate, CurrentInterest, MostPopular, RecencyFrequency
from model.judging.comparison import Scores, evaluate, scores_of
from model.judging.gate import Decision, decide
from model.judging.report import Report, render
from model.judging.report.figures import (
    OTHERS,
    calibration_figure,
    confusion_figure,
    first_choice_figure,
    flow_figure,
    histogram_figure,
    in_groups,
    precision_recall_figure,
    roc_figure,
    slices_figure,
    thinned,
)
from tests.foreign import foreign
from tests.model.tiny_examples import example, examples, shop

ROOT = Path(__file__).parents[3]
NASTY = "</script><img src=x onerror=alert(1)>"
CATEGORIES = [f"c{n:02d}" for n in range(12)]


@pytest.fixture(scope="module")
def report() -> Report:
    train, test = shop(60, ["2026-01-10"]), shop(60, ["2026-02-07", "2026-02-14"], seed=1)
    current, busy, popular, rates = (
        scores_of(method.fit(train, train, CATEGORIES), test)
        for method in (CurrentInterest(), RecencyFrequency(), MostPopular(), BaseRate())
    )
    # The most frequent category has a name that no page should run.
    test["dominant_category"] = test["dominant_category"].replace("c00", NASTY)
    test["next_category"] = test["next_category"].replace("c00", NASTY)
    categories = [NASTY, *CATEGORIES[1:]]
    methods = [Scores(f"model {NASTY}", current.next_category, current.next_item, busy.binary), busy, popular, rates]
    evaluation = evaluate(test, train, categories, methods, [methods[0].name], resamples=30)
    decision = decide(methods[0].name, None, ["most popular"], evaluation.metrics, evaluation.differences)
    history = pd.DataFrame(
        {"run": ["pretrain"] * 3 + ["finetune"] * 3, "metric": "loss", "step": [0, 1, 2] * 2, "value": [3, 2, 1] * 2}
    )
    costs = pd.DataFrame({"training": [NASTY], "phase": ["heads"], "seconds": ["1,234"]})
    return Report("A title & more", evaluation, decision, test, categories, methods, history, {NASTY: NASTY}, costs)


@pytest.fixture(scope="module")
def page(report) -> str:
    return render(report)


class Reader(HTMLParser):
    """Collects the elements of a page, what they refer to, and its visible text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.handlers: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href") and value]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]

    def handle_data(self, data):
        if self.cdata_elem is None:
            self.text.append(data)


@pytest.fixture(scope="module")
def read(page) -> Reader:
    reader = Reader()
    reader.feed(page)
    return reader


def part_of(page: str, begin: str, end: str) -> str:
    """Return the page from one text to the first of another after it."""
    return begin + page.split(begin, 1)[1].split(end, 1)[0]


def figures_of(page: str) -> list[dict]:
    return json.loads(re.search(r'<script type="application/json" id="figures">(.*?)</script>', page, re.DOTALL)[1])


def test_the_page_refers_to_nothing_outside(read, page):
    assert read.addresses == []
    # Plotly names hosts that it asks for maps; the policy lets it ask none.
    assert foreign(page.replace(get_plotlyjs(), "")) == []
    assert "default-src 'none'" in page
    assert "link" not in read.tags
    assert "iframe" not in read.tags


def test_plotly_is_inside_once(read, page):
    assert read.tags.count("script") == 3
    assert len(re.findall(r"plotly\.js v\d", page)) == 1


def test_what_comes_from_the_shop_is_escaped(read, page):
    assert read.handlers == []
    assert "img" not in read.tags
    assert NASTY not in page
    assert f"model {NASTY}" in "".join(read.text)
    assert f"{NASTY} heads 1,234" in " ".join(" ".join(read.text).split()), "what training cost"


def test_labels_of_plots_are_escaped_too(page):
    figures = json.dumps(figures_of(page))
    assert "&lt;/script&gt;" in figures
    assert "<img" not in figures


def test_an_installed_package_has_the_files_of_the_page():
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["model"]
    packaged = {file for pattern in patterns for file in (ROOT / "model").glob(pattern)}
    files = {file for file in (ROOT / "model").rglob("*") if file.is_file() and "__pycache__" not in file.parts}
    assert packaged == {file for file in files if file.suffix != ".py"}
    assert {file.suffix for file in packaged} == {".html", ".css", ".js"}


def test_every_figure_has_its_place_and_is_a_valid_plot(page):
    figures = figures_of(page)
    places = re.findall(r'id="plot-(\d+)"', page)
    assert [int(place) for place in places] == list(range(len(figures)))
    for figure in figures:
        go.Figure(figure)
    kinds = {trace["type"] for figure in figures for trace in figure["data"]}
    assert kinds == {"scatter", "bar", "heatmap", "sankey"}


def test_the_decision_is_said_in_words_at_the_top(report, read):
    text = " ".join(" ".join(read.text).split())
    word = "Promoted to champion" if report.decision.promote else "Not promoted"
    assert text.index(word) < text.index("Beside every baseline")
    for reason in report.decision.reasons:
        assert reason in text


def test_what_speaks_against_a_candidate_stands_apart_from_what_speaks_for_it(report):
    one = {"criterion": "c", "gain": 0.1, "low": 0.0, "high": 0.2, "users": 9, "asked": "a"}
    checks = pd.DataFrame([{"passed": False, "against": "x", **one}, *[{"passed": True, "against": "y", **one}] * 3])
    decision = Decision(False, ["too bad", "good", "better", "best"], checks)
    verdict = part_of(render(dataclasses.replace(report, decision=decision)), '<section class="verdict', "</section>")
    order = [verdict.index(words) for words in ("too bad", "What speaks for it", "good", "better", "best")]
    assert order == sorted(order)
    assert re.findall(r"<span class=\"(\w+)\">(\w+)</span>", verdict) == [("bad", "failed"), *[("good", "passed")] * 3]


def test_the_best_of_each_column_is_marked(report, page):
    headlines = part_of(page, "<h2>Beside every baseline</h2>", "</table>")
    rows = re.findall(r"<tr>(.*?)</tr>", headlines, re.DOTALL)[1:]
    assert len(rows) == len(report.methods)
    table = [re.findall(r"<td>(.*?)</td>", row, re.DOTALL)[1:] for row in rows]
    titles = re.findall(r'<th scope="col">(.*?)</th>', headlines)[1:]
    # Where less is better, the best one has the least.
    less = {title: any(word in title for word in ("entropy", "error")) for title in titles}
    assert sum(less.values()) > 1
    for title, *column in zip(titles, *table, strict=True):
        values = {cell: float(re.search(r">(\d\.\d{3})<", cell)[1]) for cell in column if "n/a" not in cell}
        marked = {value for cell, value in values.items() if "best" in cell}
        assert marked == {(min if less[title] else max)(values.values())}


def test_every_binary_head_is_compared_at_the_top_drawn_by_slice_and_has_its_own_section(page):
    headlines = part_of(page, "<h2>Beside every baseline</h2>", "</table>")
    for score in ("migration", "purchase", "churn"):
        assert f">{score.capitalize()} AUC</th>" in headlines
        assert f"Area under the ROC curve, {score}" in page
        assert f"{score.capitalize()}: precision and recall" in page


def test_all_numbers_are_in_tables_that_need_no_javascript(report, read):
    assert read.tags.count("tr") > len(report.evaluation.metrics) + len(report.evaluation.differences)


def test_a_page_without_decision_history_and_heads_is_still_a_page(report):
    bare = Scores("bare", report.methods[0].next_category)
    evaluation = evaluate(report.test, report.test, report.categories, [bare], resamples=5)
    page = render(Report("bare", evaluation, None, report.test, report.categories, [bare]))
    assert "The gate was not asked" in page
    assert "Training" not in page
    assert "ROC curve" not in re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)


def test_flows_hold_every_user_predicted_or_actual(report):
    rows = (report.test["dominant_category"].notna() & report.test["next_category"].notna()).sum()
    actual, predicted = (flow_figure(report, predicted=which, most=3)["data"][0] for which in (False, True))
    assert sum(actual["link"]["value"]) == rows
    # Flows of less than half a user are not drawn.
    assert sum(predicted["link"]["value"]) == pytest.approx(rows, abs=3)
    assert actual["node"]["label"] == predicted["node"]["label"]
    assert actual["node"]["label"].count(OTHERS) == 2
    assert len(actual["node"]["label"]) == 8


def test_flows_are_numbers_of_users_and_expected_ones_sums_of_probabilities():
    rows = examples(
        *(example(f"m{n}", ["tea"], ["milk"]) for n in range(2)),
        example("t", ["tea"], ["tea"]),
        example("gone", ["tea"], []),
    )
    scores = Scores("model", np.tile([0.75, 0.25], (4, 1)))
    evaluation = evaluate(rows, rows, ["tea", "milk"], [scores], resamples=5)
    report = Report("flows", evaluation, None, rows, ["tea", "milk"], [scores])

    def drawn(*, predicted: bool, least: int = 1) -> dict[tuple[str, str], float]:
        trace = flow_figure(dataclasses.replace(report, min_group=least), predicted=predicted)["data"][0]
        names, link = trace["node"]["label"], trace["link"]
        ends = zip(link["source"], link["target"], link["value"], strict=True)
        return {(names[source], names[target]): value for source, target, value in ends}

    assert drawn(predicted=False) == {("tea", "milk"): 2, ("tea", "tea"): 1}
    assert drawn(predicted=True) == {("tea", "milk"): 0.75, ("tea", "tea"): 2.25}
    # The one who stays is told neither by a flow nor by what is left over.
    assert drawn(predicted=False, least=2) == {("tea", OTHERS): 3}
    assert drawn(predicted=False, least=3) == {}
    assert drawn(predicted=True, least=3) == drawn(predicted=True)
    assert drawn(predicted=True, least=4) == {}
    # A line for what happened, a column for what the model put first, which is tea for all.
    trace = confusion_figure(report)["data"][0]
    assert trace["y"] == ["milk", "tea", OTHERS]
    assert trace["z"] == [[0, 1, 0], [0, 1, 0], [0, 0, 0]]
    trace = confusion_figure(dataclasses.replace(report, min_group=2))["data"][0]
    assert (trace["y"], trace["z"]) == (["milk", OTHERS], [[0, 1], [0, 0]])
    assert trace["customdata"] == [[2, 2], [0, 0]]


def test_a_user_of_two_dates_is_one_user_of_a_flow():
    rows = examples(
        *(example("m", ["tea"], ["milk"], day=day) for day in ("2026-01-30", "2026-01-31")),
        *(example(user, ["tea"], ["tea"]) for user in ("a", "b")),
    )
    scores = Scores("model", np.tile([0.75, 0.25], (4, 1)))
    evaluation = evaluate(rows, rows, ["tea", "milk"], [scores], resamples=5)
    report = Report("flows", evaluation, None, rows, ["tea", "milk"], [scores], min_group=2)
    trace = flow_figure(report, predicted=False)["data"][0]
    assert [trace["node"]["label"][at] for at in trace["link"]["target"]] == [OTHERS]
    assert trace["link"]["value"] == [4]


@pytest.mark.parametrize(
    ("flows", "members", "shown"),
    [
        pytest.param([[9, 8, 7]], [[5, 5, 5]], [[9, 8, 7]], id="none is small"),
        pytest.param([[9, 2, 7]], [[5, 2, 5]], [[9, 0, 9]], id="hidden among all others"),
        pytest.param([[9, 2, 0]], [[6, 2, 0]], [[0, 0, 11]], id="alone in the rest it would be told"),
        pytest.param([[9, 2, 0, 8]], [[6, 2, 0, 4]], [[0, 0, 0, 19]], id="the rest is small too"),
        pytest.param([[9, 6, 1, 0]], [[9, 6, 1, 0]], [[9, 0, 0, 7]], id="the smallest of the large ones"),
        pytest.param([[4, 3], [9, 0]], [[4, 3], [9, 0]], [[0, 0], [9, 0]], id="no large one"),
    ],
)
def test_flows_of_fewer_than_five_are_told_by_nothing(flows, members, shown):
    assert in_groups(np.array(flows), np.array(members), 5).tolist() == shown


def test_a_number_of_a_few_users_is_not_told(report):
    least = 1 + int(report.evaluation.metrics["users"].min())
    shown = report.evaluation.without_small_groups(least)
    for before, after in (
        (report.evaluation.metrics, shown.metrics),
        (report.evaluation.differences, shown.differences),
    ):
        small = before["users"] < least
        assert small.any()
        assert not small.all()
        assert after.loc[small, ["value", "low", "high"]].isna().all(axis=None)
        pd.testing.assert_frame_equal(after[~small], before[~small])
        pd.testing.assert_frame_equal(
            after.drop(columns=["value", "low", "high"]), before.drop(columns=["value", "low", "high"])
        )
    page = render(dataclasses.replace(report, evaluation=shown, min_group=least))
    assert not re.search(r"\bnan\b", re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL), re.IGNORECASE)


def test_each_line_of_the_confusion_adds_up(report):
    shares = np.array(confusion_figure(report, most=4)["data"][0]["z"])
    assert shares.shape == (5, 5)
    assert shares.sum(axis=1) == pytest.approx(np.ones(5), abs=1e-3)


def of_all(report, task: str, metric: str) -> pd.DataFrame:
    """Return what was measured on all rows, by method."""
    metrics = report.evaluation.metrics
    metrics = metrics[(metrics["task"] == task) & (metrics["metric"] == metric) & (metrics["slice"] == "all")]
    return metrics.set_index("method")


def test_the_best_method_is_drawn_on_top_of_a_slice_with_its_bounds(report):
    figure = slices_figure(report, "next_category", "recall@5")
    drawn = figure["data"][0]
    values = dict(zip(drawn["y"], drawn["x"], strict=True))
    order = figure["layout"]["yaxis"]["categoryarray"]
    assert values[order[-1]] == max(values.values())
    measured = of_all(report, "next_category", "recall@5")
    assert drawn["x"] == pytest.approx(measured["value"].tolist(), abs=1e-5)
    ends = np.array(drawn["x"]) + np.array(drawn["error_x"]["array"])
    starts = np.array(drawn["x"]) - np.array(drawn["error_x"]["arrayminus"])
    assert ends == pytest.approx(measured["high"].tolist(), abs=1e-4)
    assert starts == pytest.approx(measured["low"].tolist(), abs=1e-4)
    # Where less is better, the best one has the least.
    figure = slices_figure(report, "churned", "log_loss")
    values = dict(zip(figure["data"][0]["y"], figure["data"][0]["x"], strict=True))
    assert values[figure["layout"]["yaxis"]["categoryarray"][-1]] == min(values.values()) < max(values.values())


def test_curves_and_histograms_show_what_the_numbers_say(report):
    churned = report.test["churned"].to_numpy(bool)
    model = report.methods[0]
    _, curve, *_ = roc_figure(report, "churned")["data"]
    area = of_all(report, "churned", "roc_auc")["value"][model.name]
    assert auc(curve["x"], curve["y"]) == pytest.approx(area, abs=1e-3)
    guessing, curve, *_ = precision_recall_figure(report, "churned")["data"]
    # From the lowest probability on everyone is found, and as many are right as in all.
    assert (curve["x"][0], curve["y"][0]) == pytest.approx((1, churned.mean()), abs=1e-5)
    assert guessing["y"] == pytest.approx([churned.mean()] * 2)
    did, did_not = histogram_figure(report, "churned")["data"]
    assert (did["name"], did_not["name"]) == (f"did churn ({churned.sum()})", f"did not ({(~churned).sum()})")
    for bars, group in ((did, churned), (did_not, ~churned)):
        assert np.dot(bars["x"], bars["y"]) == pytest.approx(model.binary["churned"][group].mean(), abs=0.0126)


def test_rows_of_equal_probability_are_one_point_of_the_calibration(report):
    # Of twelve users at 0.1 three left, of four at 0.3 two, of four at 0.8 three; of one nobody knows it yet.
    churned = [True] * 3 + [False] * 9 + [True, True, False, False] + [True, True, True, False] + [None]
    test = pd.DataFrame({"churned": churned}, dtype=object).assign(user_id=range(21))
    probabilities = np.array([0.1] * 12 + [0.3] * 4 + [0.8] * 4 + [0.5])
    method = dataclasses.replace(report.methods[0], binary={"churned": probabilities})
    one = dataclasses.replace(report, test=test, methods=[method])
    ideal, drawn = calibration_figure(one, "churned")["data"]
    assert (ideal["x"], ideal["y"]) == ([0, 1], [0, 1])
    assert (drawn["x"], drawn["y"]) == ([0.1, 0.3, 0.8], [0.25, 0.5, 0.75])
    # Points of fewer users than a group needs, however many their rows, are not drawn.
    test.loc[16:19, "user_id"] = [16, 16, 17, 18]
    _, drawn = calibration_figure(dataclasses.replace(one, min_group=4), "churned")["data"]
    assert (drawn["x"], drawn["y"]) == ([0.1, 0.3], [0.25, 0.5])


def test_the_first_category_comes_as_often_as_its_probability_is_drawn(report):
    # Of four users at 0.6 milk came to one, of four at 0.9 tea came to three; one had nothing next.
    chances = np.array([[0.4, 0.6, 0.0]] * 4 + [[0.05, 0.05, 0.9]] * 5)
    nexts = ["milk", "tea", "bread", "tea", "tea", "tea", "tea", "rope", None]
    test = pd.DataFrame({"next_category": nexts}, dtype=object).assign(user_id=range(9))
    methods = [Scores("said", chances), Scores("silent")]
    one = dataclasses.replace(report, test=test, methods=methods, categories=["bread", "milk", "tea"])
    ideal, drawn = first_choice_figure(one)["data"]
    assert (ideal["x"], ideal["y"]) == ([0, 1], [0, 1])
    assert (drawn["x"], drawn["y"]) == ([0.6, 0.9], [0.25, 0.75])
    test.loc[0, "user_id"] = 1
    _, drawn = first_choice_figure(dataclasses.replace(one, min_group=4))["data"]
    assert (drawn["x"], drawn["y"]) == ([0.9], [0.75])


def test_curves_are_thinned_and_keep_their_ends():
    x = np.arange(10_000)
    (thin,) = thinned(x)
    assert len(thin) == 300
    assert (thin[0], thin[-1]) == (0, 9999)
    assert thinned(np.array([1.0, 2.0])) == [[1.0, 2.0]]
