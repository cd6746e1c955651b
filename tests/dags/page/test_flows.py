"""The numbers behind the flow of interest, the movers, the drift, and how they are drawn."""

import shutil
from datetime import date, timedelta

import pyarrow as pa
import pytest

from dags.page import drawing, flows
from dags.page.cache import Cache
from dags.page.flows import NO_CATEGORY, NO_FLOWS, NOTHING, REST, Flows, Mover
from lake.table import Table
from tests.dags.page_lake import prediction, put, put_predictions
from tests.lake.stagings import published

MAR_1, MAR_2, MAR_3 = (date(2025, 3, n) for n in (1, 2, 3))
COLUMNS = ("source", "target", "users", "members")
YEAR = timedelta(days=365)
# One for all tests, as a web server has one for all requests.
CACHE = Cache()


def flows_of(*rows: tuple[str, str, float, int]) -> Flows:
    """Make flows of source, target, users and members."""
    return Flows.of(pa.Table.from_pylist([dict(zip(COLUMNS, row, strict=True)) for row in rows]))


def as_dict(found: Flows) -> dict[tuple[str, str], float]:
    return {pair: pytest.approx(users) for pair, users in found.among(found.names).items()}


def test_without_predictions_and_examples_there_is_no_flow(lake):
    assert (flows.available_days(), flows.drift(CACHE, YEAR)) == ([], [])
    assert flows.predicted(CACHE, MAR_1) is flows.actual(CACHE, MAR_1) is NO_FLOWS


def test_a_predicted_flow_is_the_sum_of_probabilities(lake):
    put_predictions(
        MAR_1,
        [
            prediction("ann", "shoes", {"shoes": 0.75, "hats": 0.25}),
            prediction("bob", "shoes", {"hats": 0.5, "shoes": 0.5}),
            # A user without a category, whose ten categories leave most of the probability over.
            prediction("cem", None, {"hats": 0.25}),
        ],
    )
    put_predictions(MAR_2, [prediction("ann", "hats", {"hats": 1.0})])
    assert as_dict(flows.predicted(CACHE, MAR_1)) == {
        ("shoes", "shoes"): 1.25,
        ("shoes", "hats"): 0.75,
        (NO_CATEGORY, "hats"): 0.25,
        (NO_CATEGORY, REST): 0.75,
    }
    assert flows.available_days() == [MAR_2, MAR_1]


def test_the_actual_flow_counts_what_each_user_did(lake):
    rows = [
        {"user_id": "ann", "dominant_category": "shoes", "next_category": "hats", "next_events": 3},
        {"user_id": "bob", "dominant_category": "shoes", "next_category": "hats", "next_events": 1},
        {"user_id": "cem", "dominant_category": "shoes", "next_category": None, "next_events": 0},
        {"user_id": "dan", "dominant_category": None, "next_category": None, "next_events": 2},
    ]
    put("examples", MAR_1, [{**row, "dt": MAR_1} for row in rows])
    assert as_dict(flows.actual(CACHE, MAR_1)) == {
        ("shoes", "hats"): 2,
        ("shoes", NOTHING): 1,
        (NO_CATEGORY, NO_CATEGORY): 1,
    }
    assert as_dict(flows.actual(CACHE, MAR_2)) == {}


@pytest.mark.parametrize(
    ("found", "shown"),
    [
        pytest.param({"hats": 5, "belts": 6}, {"hats": 5, "belts": 6}, id="large enough"),
        pytest.param({"hats": 4, "belts": 6, "ties": 9}, {REST: 10, "ties": 9}, id="with the smallest larger one"),
        pytest.param({"hats": 4, REST: 8, "ties": 6}, {REST: 12, "ties": 6}, id="with what is any other already"),
        pytest.param({"hats": 4, REST: 2, "ties": 6}, {REST: 12}, id="any other may be small too"),
        pytest.param({"hats": 4, "belts": 4}, {}, id="and may be of the same users, so the source is left out"),
    ],
)
def test_small_groups_are_not_shown_by_themselves(found, shown):
    of_one = [("shoes", target, users, users) for target, users in found.items()]
    # Another source, after it and before it.
    others = {("tea", "tea"): 7, ("ale", "ale"): 6}
    kept = flows.of_groups(flows_of(*of_one, *((*pair, users, users) for pair, users in others.items())), 5)
    assert as_dict(kept) == {("shoes", target): users for target, users in shown.items()} | others
    assert as_dict(flows.of_groups(flows_of(*of_one), 1)) == {("shoes", name): users for name, users in found.items()}


def test_how_many_are_behind_what_was_added_up_is_told_by_the_largest():
    kept = flows.of_groups(flows_of(("shoes", "hats", 0.5, 4), ("shoes", "ties", 2.5, 7), ("shoes", "tea", 4, 9)), 5)
    assert dict(zip((kept.names[n] for n in kept.target), kept.members, strict=True)) == {REST: 7, "tea": 9}


def test_a_prediction_of_few_users_is_no_group_whatever_its_probabilities_add_up_to(lake):
    put_predictions(
        MAR_1,
        [prediction(f"u{n}", "shoes", {"shoes": 0.5, "hats": 0.5}) for n in range(5)]
        + [prediction("ann", "shoes", {"ties": 1.0}), prediction("bob", "tea", {"tea": 0.5})],
    )
    assert as_dict(flows.predicted(CACHE, MAR_1, 5)) == {("shoes", "shoes"): 2.5, ("shoes", REST): 3.5}
    assert len(as_dict(flows.predicted(CACHE, MAR_1))) == 5


def test_scoring_a_day_again_changes_its_flow(lake):
    put_predictions(MAR_1, [prediction("ann", "shoes", {"shoes": 1.0})])
    assert as_dict(flows.predicted(CACHE, MAR_1)) == {("shoes", "shoes"): 1.0}
    put_predictions(MAR_1, [prediction("ann", "shoes", {"hats": 1.0})], basis=2)
    assert as_dict(flows.predicted(CACHE, MAR_1)) == {("shoes", "hats"): 1.0}


def test_another_lake_at_the_same_place_has_flows_of_its_own(lake):
    put_predictions(MAR_1, [prediction("ann", "shoes", {"shoes": 1.0})])
    assert as_dict(flows.predicted(CACHE, MAR_1)) == {("shoes", "shoes"): 1.0}
    shutil.rmtree(lake / "lake")
    put_predictions(MAR_1, [prediction("ann", "shoes", {"hats": 1.0})])
    assert as_dict(flows.predicted(CACHE, MAR_1)) == {("shoes", "hats"): 1.0}


def test_movers_are_sorted_by_how_much_they_change_and_name_real_categories_only():
    found = flows.movers(
        flows_of(
            ("shoes", "hats", 5, 9),
            ("shoes", "shoes", 2, 9),
            ("hats", "belts", 1, 9),
            ("hats", REST, 1, 9),
            (NO_CATEGORY, "belts", 1, 9),
        )
    )
    assert found == [Mover("shoes", 7, 2), Mover("hats", 2, 5), Mover("belts", 0, 2)]
    assert [mover.change for mover in found] == [-5, 3, 2]


def test_drift_is_the_mean_of_each_day(lake):
    put_predictions(MAR_1, [prediction("ann", "shoes", {}), {**prediction("bob", None, {}), "churn_probability": 0.3}])
    put_predictions(MAR_2, [prediction("ann", "shoes", {})])
    drift = flows.drift(CACHE, YEAR)
    assert [(row["dt"], row["users"], row["migration"]) for row in drift] == [(MAR_1, 2, 0.5), (MAR_2, 1, 0.5)]
    assert [row["churn"] for row in drift] == pytest.approx([0.2, 0.1])
    assert [row["purchase"] for row in drift] == [0.25, 0.25]
    # What is told of a day is of as many users, or of none.
    assert [[row["dt"] for row in flows.drift(CACHE, YEAR, least)] for least in (2, 3)] == [[MAR_1], []]


def test_drift_looks_back_so_far_and_reads_each_file_once(lake, monkeypatch):
    read, plain = [], Table.read_file

    def noting(table, file, columns):
        read.append(file.partition["dt"])
        return plain(table, file, columns)

    monkeypatch.setattr(Table, "read_file", noting)
    cache = Cache()
    for day in (MAR_1, MAR_2):
        put_predictions(day, [prediction("ann", "shoes", {})])
    assert [row["dt"] for row in flows.drift(cache, timedelta(days=1))] == read == [MAR_2]
    assert [row["dt"] for row in flows.drift(cache, timedelta(days=2))] == [MAR_1, MAR_2]
    put_predictions(MAR_3, [{**prediction("ann", "shoes", {}), "churn_probability": None}])
    # A window that moves on: March 1st is out of it.
    drift = flows.drift(cache, timedelta(days=2))
    assert [(row["dt"], row["churn"]) for row in drift] == [(MAR_2, 0.1), (MAR_3, None)]
    assert read == [MAR_2, MAR_1, MAR_3]


def test_drift_is_of_all_files_of_a_day(lake):
    rows = [{**prediction("ann", "shoes", {}), "dt": MAR_1}]
    published("r", rows, [MAR_1], 1, copies=2, table="predictions")
    assert [(row["users"], row["migration"]) for row in flows.drift(Cache(), YEAR)] == [(3, 0.5)]


SCRIPT = "<script>alert(1)</script>"


def test_a_name_in_a_chart_is_text():
    charts = (
        drawing.sankey(flows_of((SCRIPT, SCRIPT, 1, 9)), [SCRIPT], "now", "next"),
        drawing.stacked([MAR_1], {SCRIPT: {MAR_1: 1}}),
        drawing.lines([MAR_1, MAR_2], {SCRIPT: {MAR_1: 1}}),
        drawing.legend({SCRIPT: SCRIPT}),
    )
    for chart in charts:
        assert "<script" not in chart
        assert "&lt;script&gt;" in chart


def test_small_categories_are_drawn_as_one():
    found = flows_of(*((f"c{n}", f"c{n}", 100 - n, 9) for n in range(20)))
    chart = drawing.sankey(found, drawing.greatest([found], most=3), "now", "next")
    assert chart.count("<rect") == 8, "three categories and the rest, on either side"
    rest = sum(100 - n for n in range(3, 20))
    assert chart.count(f'{REST} <tspan class="n">{rest:,}</tspan>') == 2


def test_ribbons_fill_their_categories_exactly():
    chart = drawing.sankey(flows_of(("a", "a", 1, 9), ("a", "b", 3, 9)), ["a", "b"], "now", "next", height=110)
    # 4 users share 100 of 110 pixels, the rest is the gap on the right: 25 for each.
    assert 'height="100.0"' in chart
    assert 'height="25.0"' in chart
    assert 'height="75.0"' in chart


def test_bars_stand_on_top_of_each_other():
    chart = drawing.stacked([MAR_1], {"events": {MAR_1: 6}, "quarantined": {MAR_1: 2}}, height=100)
    # 8 of 8: events from the ground (100) to 25, quarantined from there to the top.
    assert 'c0" d="M0.0 100.0V25.0' in chart
    assert 'c1" d="M0.0 25.0V0.0' in chart


def test_a_line_goes_through_the_days_at_the_height_of_their_values():
    days = [date(2025, 3, n) for n in range(1, 6)]
    chart = drawing.lines(days, {"recall": {days[0]: 0.0, days[1]: 0.25, days[4]: 1.0}}, height=100, top=1.0)
    # 980 of 1,000 pixels are four days: a quarter of them to the second day, and up from the ground at 100.
    assert 'points="10.0,100.0 255.0,75.0 990.0,0.0"' in chart
    assert "recall <b>1</b>" in chart, "the newest value"
