"""Each cheap method ranks what it is named for first, and is never better or worse for ties or unknown users."""

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.linear_model import LogisticRegression

from model.judging.baselines import (
    LABELS,
    BaseRate,
    Blend,
    CurrentInterest,
    LastCategory,
    MarkovChain,
    MostPopular,
    RecencyFrequency,
    SessionKNN,
    WholeHistory,
    cheap_baselines,
    top_items,
)
from model.judging.metrics import truth_ranks
from tests.model.tiny_examples import example, examples, shop

CATEGORIES = ["bread", "cheese", "milk", "soap", "tea"]


@pytest.fixture(scope="module")
def log() -> tuple[pd.DataFrame, pd.DataFrame]:
    return shop(60, ["2026-01-03", "2026-01-10", "2026-01-17"]), shop(60, ["2026-02-07"], seed=1)


SHOP_CATEGORIES = [f"c{n:02d}" for n in range(12)]


def train() -> pd.DataFrame:
    """Milk is what came next most often, then tea; among items 2, then 1 and 3."""
    return examples(
        example("a", ["tea", "milk"], ["milk", "milk"], items=[7, 5, 7, 7, 6], next_items=[1, 2]),
        example("b", ["milk"], ["milk"], items=[8, 9], next_items=[2]),
        example("c", ["bread"], ["tea"], next_items=[2, 3]),
        example("d", ["bread"], []),
    )


# Of three rows, and one that is spread over all five.
POPULAR = {"bread": 0.05, "cheese": 0.05, "milk": 2.2 / 4, "soap": 0.05, "tea": 1.2 / 4}


def over_popularity(shares: dict[str, float], popular: dict[str, float] = POPULAR) -> list[float]:
    """Return what a method says that gives these shares to what it knows: popularity gets a thousandth."""
    total = sum(shares.values())
    return [0.999 * shares.get(name, 0) / total + 0.001 * popular[name] for name in CATEGORIES]


def order(method, row) -> list[str]:
    """Return the categories in the order in which a method ranks them for one user."""
    scores = method.fit(train(), train(), CATEGORIES).next_category(examples(row))
    return [CATEGORIES[at] for at in np.argsort(-scores[0], kind="stable")]


# --- every answer by hand ------------------------------------------------------------------------------

BUSY = example("x", ["bread", "bread", "tea"], [], older=["cheese", "cheese", "cheese", "soap"], items=[7, 8, 7, 2]) | {
    "longterm_shares": np.array([0.1, 0.2, 0.3, 0.4])
}  # of cheese, bread, soap, tea
# Of the last events, newest first: tea, bread, bread, soap and three times cheese.
TEA = 1 / sum(0.8**place for place in range(7))
# How like BUSY's last days (bread twice, tea once) are those of a (tea, milk) and of c (bread). Of the three who came
# back two had milk, so its weight is log(4/3), and that of bread and tea log(4/2).
NORM = np.hypot(np.log(3), np.log(2))
LIKE_A = np.log(2) / NORM * np.log(2) / np.hypot(np.log(2), np.log(4 / 3))
LIKE_C = np.log(3) / NORM

ANSWERS = {
    "most popular": {"next_category": list(POPULAR.values()), "next_item": [2, 1, 3, 0]},
    # Places from the last: cheese 1, soap 2, bread 3, tea 4.
    "last category": {
        "next_category": over_popularity({"cheese": 1, "soap": 2, "bread": 3, "tea": 4}),
        "next_item": [2, 7, 8, 1],
    },
    "current interest": {"next_category": over_popularity({"bread": 2, "tea": 1}), "next_item": [7, 2, 8, 1]},
    "whole history": {"next_category": over_popularity({"cheese": 3, "bread": 2, "soap": 1, "tea": 1})},
    "decayed history": {"next_category": over_popularity({"cheese": 1, "bread": 2, "soap": 3, "tea": 4})},
    # One step was seen, from tea to milk, beside fifty imaginary ones to what is popular. Of items 7 goes to 5, 6
    # and itself alike, and 8 to 9: BUSY has 7 in the places 1 and 3 from the end, so each gets (0.8 + 0.512) / 3, and 8
    # in place 2, which is 0.64.
    "Markov chain": {
        "next_category": over_popularity(
            {name: share + TEA * ((name == "milk") - share) / 51 for name, share in POPULAR.items()}
        ),
        "next_item": [9, 5, 6, 7],
    },
    # a went to milk and to the items 1 and 2, c to tea and to 2 and 3.
    "session kNN": {"next_category": over_popularity({"milk": LIKE_A, "tea": LIKE_C}), "next_item": [2, 3, 1, 0]},
    # A mean of others, and a regression: see below.
    "tuned blend": {"next_category": None},
    "logistic RFM": {"binary": None},
    # One user of four churned; of one alone it is known that the interest stayed.
    "base rate": {"binary": {**dict.fromkeys(LABELS, 0.75), "migrated": 0.0, "churned": 0.25}},
}


@pytest.mark.parametrize("method", cheap_baselines(), ids=lambda method: method.name)
def test_every_method_answers_exactly_what_it_says(method):
    method.fit(train(), train(), CATEGORIES)
    answers, row = ANSWERS[method.name], examples(BUSY)
    assert set(method.tasks) == set(answers)
    ask = {
        "next_category": lambda: method.next_category(row)[0].tolist(),
        "next_item": lambda: method.next_item(row, 4)[0].tolist(),
        "binary": lambda: {label: values.tolist() for label, values in method.binary(row).items()},
    }
    for task, answer in ask.items():
        if task not in answers:
            with pytest.raises(NotImplementedError, match=f"{method.name} does not predict"):
                answer()
        elif task == "binary" and answers[task]:
            assert answer() == {label: [rate] for label, rate in answers[task].items()}
        elif answers[task]:
            assert answer() == pytest.approx(answers[task], rel=1e-5)


# --- next category -------------------------------------------------------------------------------------


def test_last_category_goes_back_in_time_then_to_the_popular_ones():
    assert order(LastCategory(), BUSY) == ["tea", "bread", "soap", "cheese", "milk"]


def test_a_sequence_longer_than_a_number_can_halve_keeps_its_order():
    row = example("x", ["soap", *["bread"] * 3000, "tea"], [])
    assert order(LastCategory(), row)[:2] == ["tea", "bread"]


def test_current_interest_does_not_look_behind_the_lookback():
    assert order(CurrentInterest(), BUSY)[:3] == ["bread", "tea", "milk"]


def test_among_equals_the_popular_one_comes_first():
    row = example("x", ["bread", "milk", "tea"], [])
    assert order(CurrentInterest(), row)[:3] == ["milk", "tea", "bread"]


def test_a_step_of_the_markov_chain_is_from_one_event_to_the_very_next_of_one_user():
    steps = examples(
        # What is no candidate stands between the two.
        example("x", ["soap", "rope", "cheese"], ["milk"]),
        # The later of two dates holds the steps of the earlier one.
        example("y", ["bread", "tea", "soap"], ["milk"], day="2026-01-17"),
        example("y", ["bread", "tea"], ["milk"], day="2026-01-10"),
    )
    method = MarkovChain().fit(steps, steps, CATEGORIES)
    popular = {"bread": 0.05, "cheese": 0.05, "milk": 0.8, "soap": 0.05, "tea": 0.05}

    def after(step: str) -> dict[str, float]:
        return {name: (50 * share + (name == step)) / 51 for name, share in popular.items()}

    expected = dict.fromkeys(CATEGORIES, popular) | {"bread": after("tea"), "tea": after("soap")}
    for name, transitions in zip(CATEGORIES, method.transitions, strict=True):
        assert transitions == pytest.approx(list(expected[name].values())), name
    # Of eleven events it looks at the last ten.
    said = method.next_category(examples(example("z", ["tea", *["bread"] * 10], [])))[0]
    assert said == pytest.approx(over_popularity(after("tea"), popular), rel=1e-5)


def test_session_knn_predicts_what_came_next_for_those_who_are_alike():
    known = examples(
        *(example(f"s{n}", ["soap", "tea"], ["cheese"]) for n in range(3)),
        *(example(f"b{n}", ["bread", "bread", "milk"], ["bread"]) for n in range(9)),
    )
    method = SessionKNN()
    method.neighbours = 3
    scores = method.fit(known, known, CATEGORIES).next_category(examples(example("x", ["tea", "soap", "soap"], [])))
    assert CATEGORIES[scores[0].argmax()] == "cheese"


def test_neighbours_are_the_newest_rows_of_users_who_came_back():
    known = examples(
        example("new", ["soap"], ["tea"], day="2026-01-10"),
        example("newer", ["bread"], ["bread"], day="2026-01-17"),
        example("gone", ["soap"], [], day="2026-01-24"),
        example("old", ["soap"], ["cheese"], day="2026-01-03"),
    )
    method = SessionKNN()
    method.most_rows = 2
    scores = method.fit(known, known, CATEGORIES).next_category(examples(example("x", ["soap"], [])))[0]
    popular = dict.fromkeys(CATEGORIES, 0.2 / 4) | {"bread": 0.3, "cheese": 0.3, "tea": 0.3}
    assert scores == pytest.approx(over_popularity({"tea": 1}, popular), rel=1e-5)


def test_a_blend_is_the_mean_under_which_what_came_in_validation_is_likeliest():
    # Half of them went to milk, which popularity expects with 0.55, half stayed with soap, as the last days say.
    valid = examples(*(example(f"v{n}", ["soap"], ["milk" if n % 2 else "soap"]) for n in range(20)))
    blend = Blend([MostPopular(), CurrentInterest()]).fit(train(), valid, CATEGORIES)
    tried = np.linspace(0.001, 0.999, 999)
    milk, soap = (tried * a + (1 - tried) * b for a, b in ((0.55, 0.001 * 0.55), (0.05, 0.999 + 0.001 * 0.05)))
    best = tried[np.argmax(np.log(milk) + np.log(soap))]
    assert blend.weights == pytest.approx([best, 1 - best], abs=2e-3)
    parts = np.array([list(POPULAR.values()), over_popularity({"soap": 1})])
    assert blend.next_category(examples(example("x", ["soap"], [])))[0] == pytest.approx(
        blend.weights @ parts, rel=1e-4
    )


def test_a_blend_is_of_all_that_ranks_categories_and_each_is_judged_alone_too():
    alone = {name for name, answers in ANSWERS.items() if "next_category" in answers} - {Blend.name}
    assert {part.name for part in Blend().parts} == alone
    assert {method.name for method in cheap_baselines()} == set(ANSWERS)


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


def test_rates_are_those_of_the_rows_that_have_the_label():
    rows = examples(*(example(f"u{n}", ["tea"], ["tea"], migrated=[True, False, None][n % 3]) for n in range(9)))
    assert BaseRate().fit(rows, rows, CATEGORIES).binary(rows.head(2))["migrated"].tolist() == [0.5, 0.5]


def test_logistic_regression_is_that_of_logarithms_in_standard_units(log):
    names = ["recency_seconds", "frequency", "active_days", "spend", "history_events", "tenure_seconds"]
    draws = np.random.default_rng(0)
    # In the shop these go together, and would stand in for each other.
    known, new = (rows.assign(**{name: draws.integers(0, 50, len(rows)) for name in names}) for rows in log)
    found = RecencyFrequency().fit(known, new, SHOP_CATEGORIES).binary(new)
    assert set(found) == set(LABELS)
    for label, said in found.items():
        rows = known[known[label].notna()]
        logs, others = (np.log(1 + frame[names].to_numpy(float)) for frame in (rows, new))
        mean, spread = logs.mean(axis=0), logs.std(axis=0)
        regression = LogisticRegression(max_iter=500).fit((logs - mean) / spread, rows[label].astype(bool))
        assert said == pytest.approx(regression.predict_proba((others - mean) / spread)[:, 1], abs=1e-4), label


def test_a_label_of_one_class_is_given_its_rate():
    rows = examples(*(example(f"u{n}", ["tea", "tea"], ["tea", "tea"]) for n in range(3)))
    found = RecencyFrequency().fit(rows, rows, CATEGORIES).binary(rows)
    assert found["churned"].tolist() == [0.0, 0.0, 0.0]
