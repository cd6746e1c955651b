"""Each cheap method ranks what it is named for first, and is never better or worse for ties or unknown users."""

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from model.baselines import (
    LABELS,
    BaseRate,
    Blend,
    CurrentInterest,
    DecayedHistory,
    LastCategory,
    MarkovChain,
    MostPopular,
    RecencyFrequency,
    SessionKNN,
    WholeHistory,
    cheap_baselines,
    top_items,
)
from model.metrics import truth_ranks
from tests.model.tiny_examples import example, examples, shop

CATEGORIES = ["bread", "cheese", "milk", "soap", "tea"]


@pytest.fixture(scope="module")
def log() -> tuple[pd.DataFrame, pd.DataFrame]:
    return shop(60, ["2026-01-03", "2026-01-10", "2026-01-17"]), shop(60, ["2026-02-07"], seed=1)


SHOP_CATEGORIES = [f"c{n:02d}" for n in range(12)]


def train() -> pd.DataFrame:
    """Milk is what came next most often, then tea."""
    return examples(
        example("a", ["tea", "milk"], ["milk", "milk"], next_items=[1, 2]),
        example("b", ["milk"], ["milk"], next_items=[2]),
        example("c", ["bread"], ["tea"], next_items=[2, 3]),
        example("d", ["bread"], []),
    )


def order(method, row) -> list[str]:
    """Return the categories in the order in which a method ranks them for one user."""
    scores = method.fit(train(), train(), CATEGORIES).next_category(examples(row))
    return [CATEGORIES[at] for at in np.argsort(-scores[0], kind="stable")]


# --- next category -------------------------------------------------------------------------------------

BUSY = example("x", ["bread", "bread", "tea"], [], older=["cheese", "cheese", "cheese", "soap"])


def test_most_popular_is_what_came_next_most_often():
    assert order(MostPopular(), BUSY)[:2] == ["milk", "tea"]


def test_last_category_goes_back_in_time_then_to_the_popular_ones():
    assert order(LastCategory(), BUSY) == ["tea", "bread", "soap", "cheese", "milk"]


def test_a_sequence_longer_than_a_number_can_halve_keeps_its_order():
    row = example("x", ["soap", *["bread"] * 3000, "tea"], [])
    assert order(LastCategory(), row)[:2] == ["tea", "bread"]


def test_current_interest_does_not_look_behind_the_lookback():
    assert order(CurrentInterest(), BUSY)[:3] == ["bread", "tea", "milk"]


def test_whole_history_counts_every_event_alike():
    assert order(WholeHistory(), BUSY)[:2] == ["cheese", "bread"]


def test_decayed_history_takes_the_shares_of_the_table():
    row = BUSY | {"longterm_shares": np.array([0.1, 0.2, 0.3, 0.4])}
    ranked = dict(zip(row["longterm_categories"], row["longterm_shares"], strict=True))
    assert order(DecayedHistory(), row)[:4] == sorted(ranked, key=ranked.get, reverse=True)


def test_among_equals_the_popular_one_comes_first():
    row = example("x", ["bread", "milk", "tea"], [])
    assert order(CurrentInterest(), row)[:3] == ["milk", "tea", "bread"]


def test_the_markov_chain_follows_the_steps_that_others_took():
    steps = examples(*(example(f"u{n}", ["soap", "cheese"] * 20, ["milk"]) for n in range(30)))
    scores = MarkovChain().fit(steps, steps, CATEGORIES).next_category(examples(example("x", ["soap"], [])))
    assert CATEGORIES[scores[0].argmax()] == "cheese"


def test_session_knn_predicts_what_came_next_for_those_who_are_alike():
    known = examples(
        *(example(f"s{n}", ["soap", "tea"], ["cheese"]) for n in range(3)),
        *(example(f"b{n}", ["bread", "bread", "milk"], ["bread"]) for n in range(9)),
    )
    method = SessionKNN()
    method.neighbours = 3
    scores = method.fit(known, known, CATEGORIES).next_category(examples(example("x", ["tea", "soap", "soap"], [])))
    assert CATEGORIES[scores[0].argmax()] == "cheese"


def test_a_blend_puts_its_weight_on_the_part_that_is_right():
    valid = examples(*(example(f"v{n}", ["tea"], ["soap"], older=["soap"] * 5) for n in range(20)))
    blend = Blend([CurrentInterest(), WholeHistory()]).fit(train(), valid, CATEGORIES)
    assert blend.weights[1] > 0.95
    assert blend.weights.sum() == pytest.approx(1)


def test_a_blend_without_a_validation_row_weighs_all_alike():
    blend = Blend([CurrentInterest(), WholeHistory()]).fit(train(), train().head(0), CATEGORIES)
    assert blend.weights.tolist() == [0.5, 0.5]


@pytest.mark.parametrize("method", [m for m in cheap_baselines() if "next_category" in m.tasks], ids=lambda m: m.name)
def test_every_method_gives_a_probability_to_every_category(method, log):
    known, new = log
    scores = method.fit(known, known, SHOP_CATEGORIES).next_category(new)
    assert scores.shape == (60, 12)
    assert (scores > 0).all()
    assert scores.sum(axis=1) == pytest.approx(np.ones(60), abs=1e-4)


@pytest.mark.parametrize("method", [m for m in cheap_baselines() if "next_category" in m.tasks], ids=lambda m: m.name)
def test_a_user_without_a_known_category_gets_the_popular_ones(method):
    ranked = order(method, example("x", ["rope"], [], older=["rope"]))
    assert ranked[:2] == ["milk", "tea"]


@pytest.mark.parametrize("method", [m for m in cheap_baselines() if "next_category" in m.tasks], ids=lambda m: m.name)
def test_a_row_is_judged_by_itself(method, log):
    known, new = log
    method.fit(known, known, SHOP_CATEGORIES)
    alone = method.next_category(new.iloc[[7]])
    assert method.next_category(new)[7] == pytest.approx(alone[0], abs=1e-6)


def test_methods_that_know_the_user_beat_popularity(log):
    known, new = log
    truth = pd.Index(SHOP_CATEGORIES).get_indexer(new["next_category"].astype(object))

    def recall(method) -> float:
        ranks = truth_ranks(method.fit(known, known, SHOP_CATEGORIES).next_category(new), truth)
        return float((ranks[truth >= 0] <= 2).mean())

    popular = recall(MostPopular())
    for method in (CurrentInterest(), WholeHistory(), Blend(), SessionKNN()):
        assert recall(method) > popular + 0.2, method.name


# --- next item -----------------------------------------------------------------------------------------


def items(method, sequence, k=4) -> list[int]:
    return (
        method.fit(train(), train(), CATEGORIES)
        .next_item(examples(example("x", ["tea"], [], items=sequence)), k)[0]
        .tolist()
    )


def test_most_popular_items_are_those_that_came_most_often_ties_by_key():
    assert items(MostPopular(), [9]) == [2, 1, 3, 0]


def test_last_items_go_back_in_time_and_are_filled_up_with_popular_ones():
    assert items(LastCategory(), [7, 8, 7, 2]) == [2, 7, 8, 1]


def test_own_items_come_by_how_often_they_occur():
    assert items(CurrentInterest(), [7, 8, 7, 2]) == [7, 2, 8, 1]


def test_a_search_without_an_item_is_never_recommended():
    assert items(LastCategory(), [0, 7, 0]) == [7, 2, 1, 3]


def test_the_markov_chain_of_items_knows_what_follows():
    steps = examples(*(example(f"u{n}", ["tea"], ["tea"], items=[5, 6], next_items=[1]) for n in range(3)))
    new = examples(example("x", ["tea"], [], items=[5]), example("y", ["tea"], [], items=[77]))
    lists = MarkovChain().fit(steps, steps, CATEGORIES).next_item(new, 2)
    assert lists.tolist() == [[6, 1], [1, 0]]


def test_session_knn_recommends_the_items_of_neighbours():
    known = examples(
        example("s", ["soap"], ["soap"], next_items=[4]), example("b", ["bread"], ["bread"], next_items=[5])
    )
    method = SessionKNN()
    method.neighbours = 1
    lists = method.fit(known, known, CATEGORIES).next_item(examples(example("x", ["soap"], [])), 2)
    assert lists[0].tolist() == [4, 5]


def test_only_the_best_items_are_kept_and_ties_go_to_the_smaller_column():
    scores = sparse.csr_matrix(np.array([[1.0, 3.0, 2.0, 2.0, 2.0]]))
    assert top_items(scores, np.array([10, 11, 12, 13, 14]), np.array([10]), 3).tolist() == [[11, 12, 13]]


# --- binary labels -------------------------------------------------------------------------------------


def test_the_base_rate_is_that_of_the_rows_that_have_the_label():
    found = BaseRate().fit(train(), train(), CATEGORIES).binary(train())
    assert found["churned"].tolist() == [0.25] * 4
    # Of the four users only one has enough events on both sides to be judged.
    assert set(found["migrated"]) <= {0.0, 1.0}


def test_logistic_regression_tells_the_busy_from_the_others(log):
    known, new = log
    found = RecencyFrequency().fit(known, known, SHOP_CATEGORIES).binary(new)
    assert set(found) == set(LABELS)
    busy = (new["frequency"] >= 8).to_numpy()
    assert found["churned"][busy].mean() < found["churned"][~busy].mean() - 0.2
    assert found["churned"] + found["purchased"] == pytest.approx(np.ones(60), abs=1e-3)


def test_a_label_of_one_class_is_given_its_rate():
    rows = examples(*(example(f"u{n}", ["tea", "tea"], ["tea", "tea"]) for n in range(3)))
    found = RecencyFrequency().fit(rows, rows, CATEGORIES).binary(rows)
    assert found["churned"].tolist() == [0.0, 0.0, 0.0]


def test_a_method_says_when_it_has_no_answer():
    method = BaseRate().fit(train(), train(), CATEGORIES)
    with pytest.raises(NotImplementedError, match="base rate does not predict categories"):
        method.next_category(train())


def test_every_method_answers_exactly_what_it_says(log):
    known, new = log
    for method in cheap_baselines():
        method.fit(known, known, SHOP_CATEGORIES)
        answers = {"next_category": method.next_category, "next_item": lambda f, m=method: m.next_item(f, 3)}
        answers["binary"] = method.binary
        for task, answer in answers.items():
            if task in method.tasks:
                answer(new)
            else:
                with pytest.raises(NotImplementedError):
                    answer(new)
