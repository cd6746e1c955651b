"""All methods are measured on the same rows, slice by slice; differences are paired; what does not fit is refused."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import brier_score_loss, f1_score, roc_auc_score

from model.judging.baselines import cheap_baselines
from model.judging.boosted import BoostedTrees
from model.judging.comparison import (
    DIFFERENCE_COLUMNS,
    METRIC_COLUMNS,
    SLICES,
    Comparison,
    Scores,
    evaluate,
    labels_of_one_answer,
    scores_of,
    slices,
    thresholds,
)
from tests.model.resampled import middle, resampled
from tests.model.tiny_examples import example, examples

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
def found(test_rows) -> Comparison:
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
    assert sizes["first_item", "all"] == 3
    assert sizes["churned", "all"] == 4
    assert sizes["next_category", "migrated"] == 1


def test_a_label_that_is_true_of_all_or_of_none_is_no_question(test_rows):
    # Of the churned label some are true, some are not; nobody buys, everybody who can be told moves on.
    churned = [True, False, None, False]
    rows = test_rows.iloc[:4].assign(purchased=[False] * 4, migrated=[True, None, True, None], churned=churned)
    assert labels_of_one_answer(rows) == ["migrated", "purchased"]
    assert labels_of_one_answer(rows.iloc[:0]) == ["migrated", "purchased", "churned"]


def test_tasks_that_are_left_out_are_in_no_table(found):
    left = found.without_tasks(["churned"])
    for before, after in ((found.metrics, left.metrics), (found.differences, left.differences)):
        assert "churned" in set(before["task"])
        assert set(after["task"]) == set(before["task"]) - {"churned"}
        assert after.equals(before[before["task"] != "churned"].reset_index(drop=True))


def test_a_true_category_that_is_no_candidate_is_a_miss_of_all_and_is_reported(found):
    assert found.unseen_categories == pytest.approx(1 / 3)
    for method in ("perfect", "blind"):
        assert value(found.metrics, method=method, metric="recall@5", slice="all", task="next_category") == (
            pytest.approx(2 / 3)
        )
    assert value(found.metrics, method="perfect", metric="recall@1", slice="migrated", task="next_category") == 1


def test_all_that_came_is_measured_though_the_label_is_one_of_it():
    # Of six categories; a has three that come equally often, of which the table calls bread the first. Rope is none.
    ids = ["bread", "milk", "oats", "rice", "soap", "tea"]
    rows = examples(
        example("a", ["tea"], ["bread", "milk", "tea"]),
        example("b", ["tea"], ["rope", "rope", "soap"]),
        example("c", ["tea"], []),
    )
    scores = Scores("said", np.array([[1, 8, 6, 5, 4, 2], [3, 1, 1, 1, 2, 2], [1, 1, 1, 1, 1, 1]], float))
    found = evaluate(rows, rows, ids, [scores], resamples=5).metrics
    found = found[(found["slice"] == "all") & (found["task"] == "next_category")].set_index("metric")
    assert found["n"].unique().tolist() == [2]
    # Bread is the last of six, but milk, which came as often, the first. What came most often to b cannot be said.
    assert found["value"]["recall@5"] == 0
    assert found["value"]["tied_recall@5"] == 1 / 2
    # Of a: milk is first, tea fifth, bread sixth. Of b: soap is level with tea, so third.
    of_a = (1 + 1 / np.log2(6)) / (1 + 1 / np.log2(3) + 1 / np.log2(4))
    of_b = (1 / 3 / np.log2(4)) / (2 / 3 + 1 / 3 / np.log2(3))
    assert found["value"]["shares_ndcg@5"] == pytest.approx((of_a + of_b) / 2)
    chances = [1 / 26, 8 / 26, 2 / 26]
    of_a, of_b = -np.log(chances).mean(), -(2 * np.log(1e-7) + np.log(2 / 10)) / 3
    assert found["value"]["cross_entropy"] == pytest.approx((of_a + of_b) / 2)


def test_sets_are_measured_of_the_methods_that_have_them():
    rows = examples(
        example("a", ["tea"], ["tea"]), example("b", ["tea"], ["milk"]), example("c", ["tea"], ["rope"]),
        example("d", ["tea"], []),
    )  # fmt: skip
    chances = np.array([[0.2, 0.3, 0.5], [0.1, 0.2, 0.7], [0.5, 0.3, 0.2], [0.9, 0.1, 0.0]])
    scores = [Scores("sets", chances, reach=0.5), Scores("none", chances)]
    found = evaluate(rows, rows, CATEGORIES, scores, ["sets"], resamples=20)
    table = found.metrics[(found.metrics["slice"] == "all") & found.metrics["metric"].str.startswith("set_")]
    assert table["method"].unique().tolist() == ["sets"]
    # Tea is first; before milk stands tea with 0.7; rope is no category. Two categories, one, and two.
    assert table.set_index("metric")["value"].to_dict() == pytest.approx({"set_coverage": 1 / 3, "set_size": 5 / 3})
    assert "set_size" not in set(found.differences["metric"])
    assert "recall@5" in set(found.differences["metric"])


def test_items_are_measured_by_the_first_and_by_all_that_came():
    # Of a, 6 comes first, then 9 and 5; of b only 7; of c nothing.
    rows = examples(
        example("a", ["tea"], ["tea"], next_items=[6, 9, 5]),
        example("b", ["tea"], ["tea"], next_items=[7]),
        example("c", ["tea"], ["tea"]),
    )
    lists = np.zeros((3, 20), np.int64)
    lists[:, :4] = [[5, 4, 6, 8], [1, 2, 3, 4], [5, 6, 7, 8]]
    lists[1, 10] = 7
    found = evaluate(rows, rows, CATEGORIES, [Scores("lists", next_item=lists)], resamples=5).metrics
    found = found[found["slice"] == "all"].set_index(["task", "metric"])["value"]
    # a's first item stands third; of b's the eleventh place is too far back for ten.
    assert found["first_item"].to_dict() == pytest.approx(
        {
            "recall@10": 1 / 2,
            "recall@20": 2 / 2,
            "ndcg@10": (1 / np.log2(4)) / 2,
            "ndcg@20": (1 / np.log2(4) + 1 / np.log2(12)) / 2,
            "mrr": (1 / 3 + 1 / 11) / 2,
        }
    )
    # Of a's three items two are offered, first and third.
    gain, best = 1 + 1 / np.log2(4), 1 + 1 / np.log2(3) + 1 / np.log2(4)
    assert found["next_items"].to_dict() == pytest.approx(
        {
            "recall@10": (2 / 3) / 2,
            "recall@20": (2 / 3 + 1) / 2,
            "ndcg@10": (gain / best) / 2,
            "ndcg@20": (gain / best + 1 / np.log2(12)) / 2,
            "hit_rate@10": 1 / 2,
            "hit_rate@20": 2 / 2,
            "mrr": (1 + 1 / 11) / 2,
        }
    )


def test_a_metric_that_is_not_defined_on_a_slice_is_nan(found):
    assert np.isnan(value(found.metrics, method="perfect", task="churned", metric="roc_auc", slice="migrated"))


def test_a_slice_without_rows_is_shown_as_such():
    rows = examples(*(example(f"u{n}", ["tea"], ["tea"]) for n in range(3)))
    found = evaluate(rows, rows, CATEGORIES, [perfect(rows)], resamples=10).metrics
    part = found[(found["slice"] == "migrated") & (found["task"] == "next_category")]
    assert (part["n"] == 0).all()
    assert part["value"].isna().all()


# --- how sure: every number again from rows written out --------------------------------------------------

# Ann has four rows and dan one, so drawing rows in place of users would give other bounds.
USERS = ["ann", "ann", "ann", "ann", "bob", "bob", "bob", "cem", "cem", "dan", "eve", "eve"]
CHURNED = np.array([1, 0, 0, 1, 0, 0, 1, 0, 1, 0, 1, 0], bool)


@pytest.fixture(scope="module")
def pair() -> tuple[pd.DataFrame, Scores, Scores]:
    """Return rows of five users and two methods; on some rows either is better. Three rows are of migrated users."""
    rows = examples(
        *(
            example(user, ["tea"], ["tea"], churned=bool(gone), migrated=at in (0, 4, 9))
            for at, (user, gone) in enumerate(zip(USERS, CHURNED, strict=True))
        )
    )
    first = np.array([1, 1, 0, 1, 1, 0, 1, 0, 1, 1, 0, 1])
    second = np.array([1, 0, 0, 1, 0, 1, 1, 0, 0, 1, 0, 0])

    def scores(right: np.ndarray) -> np.ndarray:
        # Tea is first, or the last of three.
        return np.where(right[:, None] == 1, [0.1, 0.2, 0.7], [0.5, 0.4, 0.1])

    good = np.array([0.8, 0.3, 0.4, 0.6, 0.1, 0.3, 0.7, 0.65, 0.5, 0.2, 0.35, 0.1])
    poor = np.array([0.6, 0.5, 0.2, 0.5, 0.3, 0.6, 0.4, 0.3, 0.7, 0.4, 0.3, 0.2])
    return (
        rows,
        Scores("new", scores(first), binary={"churned": good}, thresholds={"churned": 0.35}),
        Scores("old", scores(second), binary={"churned": poor}),
    )


@pytest.fixture(scope="module")
def compared(pair) -> Comparison:
    rows, new, old = pair
    return evaluate(rows, rows, CATEGORIES, [old, new], ["new"], resamples=80, seed=3)


def calibration(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the gaps between what was said and what came, added up over fifteen groups of probabilities."""
    groups = np.floor(probabilities * 15)
    gaps = [abs((labels[groups == one] - probabilities[groups == one]).sum()) for one in set(groups)]
    return sum(gaps) / len(labels)


MEASURES = {
    ("next_category", "recall@1"): lambda rows, scores: float((scores.next_category[rows].argmax(axis=1) == 2).mean()),
    # Tea is all that comes: of the methods' three categories it is first, or last with half the gain.
    ("next_category", "shares_ndcg@5"): lambda rows, scores: float(
        np.where(scores.next_category[rows].argmax(axis=1) == 2, 1, 1 / np.log2(4)).mean()
    ),
    ("next_category", "cross_entropy"): lambda rows, scores: float(-np.log(scores.next_category[rows][:, 2]).mean()),
    # The first choice is tea with 0.7, or bread with 0.5, which never comes.
    ("next_category", "calibration_error"): lambda rows, scores: calibration(
        scores.next_category[rows].argmax(axis=1) == 2, scores.next_category[rows].max(axis=1)
    ),
    ("churned", "roc_auc"): lambda rows, scores: (
        roc_auc_score(CHURNED[rows], scores.binary["churned"][rows]) if 0 < CHURNED[rows].mean() < 1 else np.nan
    ),
    ("churned", "brier"): lambda rows, scores: brier_score_loss(CHURNED[rows], scores.binary["churned"][rows]),
    ("churned", "calibration_error"): lambda rows, scores: calibration(CHURNED[rows], scores.binary["churned"][rows]),
    ("churned", "f1"): lambda rows, scores: f1_score(
        CHURNED[rows],
        scores.binary["churned"][rows] >= scores.thresholds.get("churned", 0.5),
        zero_division=0,
    ),
}


@pytest.mark.parametrize(("task", "metric"), MEASURES)
@pytest.mark.parametrize("part", ["all", "migrated"])
def test_values_and_bounds_are_those_of_a_bootstrap_by_hand(pair, compared, task, metric, part):
    rows, new, old = pair
    everyone = np.arange(len(rows)) if part == "all" else np.array([0, 4, 9])

    def measure(drawn: np.ndarray, scores: Scores) -> float:
        kept = drawn[np.isin(drawn, everyone)]
        return MEASURES[task, metric](kept, scores) if len(kept) else np.nan

    def numbers(table: pd.DataFrame) -> list[float]:
        table = table[(table["task"] == task) & (table["metric"] == metric) & (table["slice"] == part)]
        (row,) = table[table["method"] == "new"].to_dict("records")
        assert (row["n"], row["users"]) == ((12, 5) if part == "all" else (3, 3))
        return [row["value"], row["low"], row["high"]]

    def found(scores: Scores) -> tuple[float, np.ndarray]:
        value, samples = measure(everyone, scores), resampled(USERS, lambda drawn: measure(drawn, scores), 80, 3)
        if metric != "calibration_error":
            return value, samples
        # Chance adds to it once in the rows, and twice in a resample of them.
        bias = np.nanmean(samples) - value
        return max(value - bias, 0), np.maximum(samples - 2 * bias, 0)

    (value, of_new), (of_old_value, of_old) = found(new), found(old)
    assert numbers(compared.metrics) == pytest.approx([value, *middle(of_new)], nan_ok=True)
    gain = value - of_old_value
    assert numbers(compared.differences) == pytest.approx([gain, *middle(of_new - of_old)], nan_ok=True)
    assert set(compared.differences["against"]) == {"old"}


def test_the_same_seed_gives_the_same_bounds_and_another_seed_others(pair):
    rows, new, old = pair
    once, again, other = (
        evaluate(rows, rows, CATEGORIES, [new, old], ["new"], resamples=20, seed=seed).differences for seed in (1, 1, 2)
    )
    pd.testing.assert_frame_equal(once, again)
    assert (once["low"] != other["low"]).any()


def test_a_method_is_compared_on_the_tasks_that_both_answer(test_rows):
    silent = Scores("silent", binary={"churned": np.full(4, 0.5)})
    found = evaluate(test_rows, test_rows, CATEGORIES, [perfect(test_rows), silent], ["perfect"], resamples=10)
    assert set(found.differences["task"]) == {"churned"}


def test_slices_are_cut_by_tenure_and_by_the_terciles_of_training():
    # By the training rows the terciles are 2 and 3; by the test rows they would be 2.8 and 5.
    train = examples(*(example("u", ["tea"] * n, []) for n in (1, 2, 2, 2, 3, 3, 3, 4)))
    rows = examples(
        example("light and new", ["tea"] * 2, [], tenure_seconds=30 * DAY),
        example("heavy", ["tea"] * 3, [], tenure_seconds=31 * DAY),
        example("and migrated", ["tea"] * 3, ["milk"] * 5, tenure_seconds=99 * DAY),
        example("and not", ["tea"] * 9, ["tea"] * 5, tenure_seconds=99 * DAY),
        example("between", ["tea"] * 9, [], tenure_seconds=99 * DAY, frequency=2.5),
        example("heaviest", ["tea"] * 9, [], tenure_seconds=99 * DAY),
    )
    found = slices(rows, train, lookback_days=30)
    assert {name: np.flatnonzero(part).tolist() for name, part in found.items()} == {
        "all": [0, 1, 2, 3, 4, 5],
        "judged": [2, 3],
        "migrated": [2],
        "new users": [0],
        "light users": [0],
        "heavy users": [1, 2, 3, 5],
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
        (lambda methods: methods[0].next_category.__setitem__((0, 0), -0.5), r"negative, received -0\.5; .* softmax"),
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
    assert {"first_item", "next_items", "churned"} <= set(measured["task"])
    assert "next_category" not in set(measured["task"])
    assert found.unseen_categories == 0
