"""All methods are measured on the same rows, slice by slice; differences are paired; what does not fit is refused."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from model.baselines import CurrentInterest, MostPopular, RecencyFrequency, cheap_baselines
from model.boosted import BoostedTrees
from model.evaluation import (
    DIFFERENCE_COLUMNS,
    METRIC_COLUMNS,
    SLICES,
    Evaluation,
    Scores,
    evaluate,
    scores_of,
    slices,
    thresholds,
)
from tests.model.tiny_examples import example, examples, shop

CATEGORIES = ["bread", "milk", "tea"]
DAY = 86_400


def value(table: pd.DataFrame, **where: str) -> float:
    for column, wanted in where.items():
        table = table[table[column] == wanted]
    assert len(table) == 1, table
    return float(table["value"].iloc[0])


@pytest.fixture
def test_rows() -> pd.DataFrame:
    return examples(
        example("a", ["tea", "tea"], ["tea", "tea"], next_items=[5, 6]),
        example("b", ["tea", "tea"], ["milk", "milk"], next_items=[7]),
        example("c", ["bread"], ["rope"], next_items=[8], tenure_seconds=90 * DAY),
        example("d", ["bread"], [], tenure_seconds=90 * DAY),
    )


def perfect(rows: pd.DataFrame, name: str = "perfect") -> Scores:
    truth = pd.Index(CATEGORIES).get_indexer(rows["next_category"].astype(object))
    items = np.zeros((len(rows), 20), np.int64)
    for row, keys in enumerate(rows["next_item_keys"]):
        items[row, : len(keys)] = keys
    return Scores(
        name,
        np.eye(len(CATEGORIES) + 1)[truth][:, :-1] + np.array([0.02, 0.01, 0]),
        items,
        {"churned": np.where(rows["churned"], 0.9, 0.1)},
    )


def blind(rows: pd.DataFrame, name: str = "blind") -> Scores:
    n = len(rows)
    return Scores(name, np.tile([0.3, 0.2, 0.1], (n, 1)), np.full((n, 20), 99), {"churned": np.full(n, 0.5)})


@pytest.fixture
def found(test_rows) -> Evaluation:
    return evaluate(
        test_rows, test_rows, CATEGORIES, [perfect(test_rows), blind(test_rows)], ["perfect"], resamples=100
    )


def test_the_tables_have_the_columns_that_others_read(found):
    assert tuple(found.metrics.columns) == METRIC_COLUMNS
    assert tuple(found.differences.columns) == DIFFERENCE_COLUMNS
    assert set(found.metrics["slice"]) == set(SLICES)


def test_only_rows_with_a_truth_are_measured(found):
    sizes = found.metrics.drop_duplicates(["task", "slice"]).set_index(["task", "slice"])["n"]
    assert sizes["next_category", "all"] == 3
    assert sizes["next_item", "all"] == 3
    assert sizes["churned", "all"] == 4
    assert sizes["next_category", "migrated"] == 1


def test_a_true_category_that_is_no_candidate_is_a_miss_of_all_and_is_reported(found):
    assert found.unseen_categories == pytest.approx(1 / 3)
    for method in ("perfect", "blind"):
        assert value(found.metrics, method=method, metric="recall@5", slice="all", task="next_category") == (
            pytest.approx(2 / 3)
        )
    assert value(found.metrics, method="perfect", metric="recall@1", slice="migrated", task="next_category") == 1


def test_items_are_measured_by_the_first_and_by_all_that_came(found):
    assert value(found.metrics, method="perfect", task="next_item", metric="ndcg@10", slice="all") == 1
    assert value(found.metrics, method="perfect", task="next_items", metric="recall@20", slice="all") == 1
    assert value(found.metrics, method="blind", task="next_items", metric="mrr", slice="all") == 0


def test_a_metric_that_is_not_defined_on_a_slice_is_nan(found):
    assert np.isnan(value(found.metrics, method="perfect", task="churned", metric="roc_auc", slice="migrated"))


def test_a_slice_without_rows_is_shown_as_such():
    rows = examples(*(example(f"u{n}", ["tea"], ["tea"]) for n in range(3)))
    found = evaluate(rows, rows, CATEGORIES, [perfect(rows)], resamples=10).metrics
    part = found[(found["slice"] == "migrated") & (found["task"] == "next_category")]
    assert (part["n"] == 0).all()
    assert part["value"].isna().all()


def test_differences_are_method_minus_other_on_the_same_rows(found):
    wanted = {"task": "next_category", "metric": "recall@1", "slice": "all"}
    difference = value(found.differences, method="perfect", against="blind", **wanted)
    assert difference == pytest.approx(
        value(found.metrics, method="perfect", **wanted) - value(found.metrics, method="blind", **wanted)
    )
    assert set(found.differences["method"]) == {"perfect"}
    assert set(found.differences["against"]) == {"blind"}


def test_a_method_is_compared_on_the_tasks_that_both_answer(test_rows):
    silent = Scores("silent", binary={"churned": np.full(4, 0.5)})
    found = evaluate(test_rows, test_rows, CATEGORIES, [perfect(test_rows), silent], ["perfect"], resamples=10)
    assert set(found.differences["task"]) == {"churned"}


def test_equal_methods_differ_by_nothing_in_every_resample():
    rows = shop(30, ["2026-02-07"])
    categories = [f"c{n:02d}" for n in range(12)]
    scores = CurrentInterest().fit(rows, rows, categories).next_category(rows)
    found = evaluate(rows, rows, categories, [Scores("a", scores), Scores("b", scores)], ["a"], resamples=50)
    judged = found.differences[found.differences["slice"] == "all"]
    assert (judged[["value", "low", "high"]].dropna() == 0).all(axis=None)


def test_intervals_hold_their_values_and_are_the_same_each_time():
    train, rows = shop(60, ["2026-01-10"]), shop(60, ["2026-02-07", "2026-02-14"], seed=1)
    categories = [f"c{n:02d}" for n in range(12)]
    methods = [
        scores_of(method.fit(train, train, categories), rows, train)
        for method in (MostPopular(), CurrentInterest(), RecencyFrequency())
    ]
    found, again = (evaluate(rows, train, categories, methods, resamples=60, seed=3) for _ in range(2))
    pd.testing.assert_frame_equal(found.metrics, again.metrics)
    judged = found.metrics[(found.metrics["slice"] == "all") & (found.metrics["metric"] != "calibration_error")]
    assert ((judged["low"] <= judged["value"]) & (judged["value"] <= judged["high"])).all()
    auc = value(found.metrics, method="logistic RFM", task="churned", metric="roc_auc", slice="all")
    assert auc == pytest.approx(roc_auc_score(rows["churned"], methods[2].binary["churned"]))
    assert (found.metrics.loc[found.metrics["slice"] == "all", "users"] <= 60).all()


def test_slices_are_cut_by_tenure_and_by_the_terciles_of_training():
    rows = examples(
        example("new", ["tea"], [], tenure_seconds=30 * DAY),
        example("old", ["tea"] * 9, [], tenure_seconds=31 * DAY),
        example("usual", ["tea"] * 5, ["tea"] * 5, tenure_seconds=99 * DAY),
    )
    train = examples(*(example(f"u{n}", ["tea"] * n, []) for n in range(1, 10)))
    found = slices(rows, train, lookback_days=30)
    assert {name: part.tolist() for name, part in found.items()} == {
        "all": [True, True, True],
        "judged": [False, False, True],
        "migrated": [False, False, False],
        "new users": [True, False, False],
        "light users": [True, False, False],
        "heavy users": [False, True, False],
    }


def test_thresholds_come_from_rows_that_have_the_label():
    rows = examples(
        example("a", ["tea", "tea"], ["milk", "milk"]),
        example("b", ["tea", "tea"], ["tea", "tea"]),
        example("c", ["tea"], []),
    )
    assert thresholds(rows, {"migrated": np.array([0.2, 0.1, 0.9])}) == {"migrated": 0.2}


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda methods: methods[0].__setattr__("next_category", np.zeros((4, 2))), r"must be \(4, 3\)"),
        (lambda methods: methods[0].binary.update(churned=np.zeros(3)), "churned must have 4 rows, received 3"),
        (lambda methods: methods[1].__setattr__("name", "perfect"), "different names"),
    ],
)
def test_scores_that_do_not_fit_the_rows_are_refused(test_rows, break_it, words):
    methods = [perfect(test_rows), blind(test_rows)]
    break_it(methods)
    with pytest.raises(ValueError, match=words):
        evaluate(test_rows, test_rows, CATEGORIES, methods, resamples=5)


def test_an_unknown_name_to_compare_is_refused(test_rows):
    with pytest.raises(ValueError, match="nobody"):
        evaluate(test_rows, test_rows, CATEGORIES, [blind(test_rows)], ["nobody"], resamples=5)


def test_a_log_without_categories_is_measured_on_items_and_labels():
    usual = {
        "next_category": None,
        "dominant_category": None,
        "active_days": 2,
        "history_events": 5,
        "history_days_active": 3,
    }
    rows = examples(
        *(example(f"u{n}", [], [], items=[n % 5 + 1], frequency=3 + n % 4, **usual) for n in range(20)),
        *(
            example(f"v{n}", [], [], items=[n % 5 + 1], next_items=[n % 5 + 1], frequency=5 + n % 4, **usual)
            | {"purchased": True, "churned": False}
            for n in range(20)
        ),
    )
    fitted = [method.fit(rows, rows, []) for method in (*cheap_baselines(), BoostedTrees(rounds=5, threads=1))]
    found = evaluate(rows, rows, [], [scores_of(method, rows, rows) for method in fitted], resamples=5)
    measured = found.metrics[(found.metrics["slice"] == "all") & (found.metrics["n"] > 0)]
    assert {"next_item", "next_items", "churned"} <= set(measured["task"])
    assert "next_category" not in set(measured["task"])
    assert found.unseen_categories == 0
