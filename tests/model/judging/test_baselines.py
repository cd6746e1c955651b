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
    CoVisits,
    CurrentInterest,
    DecayedHistory,
    LastCategory,
    MarkovChain,
    MostPopular,
    RecencyFrequency,
    SessionKNN,
    WholeHistory,
    cheap_baselines,
    item_steps,
    largest_of_rows,
    top_items,
)
from model.judging.metrics import truth_ranks
from tests.model.item_histories import history
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


# --- items, by all that a user ever did ---------------------------------------------------------------

# x took 1 often, long ago, and 2 and 3 lately, 3 on more dates; y took 5 and then 6, twice, the second time after that
# day. Nothing of it is in the sequences.
EVER = history(
    x=[*[("2025-03-01", 1)] * 5, ("2026-01-20", 3), ("2026-01-29", 2), ("2026-01-30", 3), ("2026-01-30", 2)],
    y=[("2025-06-01", 5), ("2025-06-02", 6), ("2025-06-02", 6), ("2025-06-03", 5), ("2026-02-02", 7)],
)


def of_history(method, *rows, valid=None, k=3) -> list[list[int]]:
    """Return the items that a method names for rows without sequences, popular ones left out."""
    known = train().assign(next_item_keys=[np.zeros(0, np.int64)] * 4)
    method.fit(known, known if valid is None else valid, CATEGORIES)
    return method.next_item(examples(*rows), k).tolist()


def test_items_of_the_whole_history_count_however_long_ago_they_were():
    rows = (example("x", ["tea"], []), example("y", ["tea"], []), example("z", ["tea"], []))
    # Of 2 and 3, twice each, 2 is the newer one; of 5 and 6 likewise.
    assert of_history(WholeHistory(EVER), *rows) == [[1, 2, 3], [5, 6, 0], [0, 0, 0]]


def test_what_happened_after_a_date_is_no_history_of_it():
    early = example("x", ["tea"], [], day="2026-01-29")
    assert of_history(WholeHistory(EVER), early) == [[1, 2, 3]]
    assert of_history(WholeHistory(EVER), example("x", ["tea"], [], day="2026-01-28")) == [[1, 3, 0]]
    assert of_history(WholeHistory(EVER), example("y", ["tea"], [], day="2026-02-02"), k=4) == [[5, 6, 7, 0]]


def test_decayed_items_have_the_half_life_under_which_those_of_validation_are_found():
    # Of 40 items, 30 were taken on ten dates, and ten once, a week before. Twenty are named. Ten dates, halved for 205
    # days, are more than one of a week ago from a half-life of 60 days on; halved for 68 days they are so from 30 on.
    for month, came, half_life in (("2025-07", range(100, 130), 60), ("2025-11", range(200, 210), 7)):
        old = [(f"{month}-{day:02}", 100 + item) for day in range(15, 25) for item in range(30)]
        ever = history(x=[*old, *(("2026-01-24", 200 + item) for item in range(10))])
        valid = examples(example("x", ["tea"], ["tea"], next_items=list(came)))
        method = DecayedHistory(ever)
        found = of_history(method, example("x", ["tea"], []), valid=valid, k=20)[0]
        assert method.half_life == half_life
        assert set(found[:10]) <= set(came)
    # Without a validation row a month.
    method = DecayedHistory(ever)
    of_history(method, example("x", ["tea"], []), valid=train().head(0))
    assert method.half_life == 30
    # Where no half-life finds anything, or nobody's history is known, it stays.
    for valid in (examples(example("x", ["tea"], ["tea"], next_items=[99])), examples(
        example("z", ["tea"], ["tea"], next_items=[1]), example("z", ["tea"], ["tea"], next_items=[2])
    )):  # fmt: skip
        of_history(method, example("x", ["tea"], []), valid=valid)
        assert method.half_life == 30


def test_of_items_on_equally_many_dates_the_newest_comes_first():
    ever = history(x=[("2026-01-24", item) for item in (4, 2, 3)])
    assert of_history(DecayedHistory(ever), example("x", ["tea"], [])) == [[3, 2, 4]]


def test_the_half_life_is_judged_by_users_whose_history_is_known():
    ever = history(x=[("2025-07-01", 1), ("2026-01-24", 2)])
    method = DecayedHistory(ever)
    method.most_rows = 1
    # Of z nothing is known, but for x the newer of two items comes, where one is named.
    valid = examples(*(example(user, ["tea"], ["tea"], next_items=[2]) for user in ("z", "x")))
    asked = []
    method.next_item = lambda rows, k: asked.append(rows["user_id"].tolist()) or np.zeros((len(rows), k), np.int64)
    method.fit(train(), valid, CATEGORIES)
    assert asked == [["x"]] * 6


def test_the_markov_chain_of_items_counts_all_steps_that_were_known_then():
    # y went from 5 to 6, to 6, and to 5, and later from 5 to 7; x from 1 to 1 four times.
    rows = [example("p", ["tea"], [], items=[item]) for item in (6, 1, 5)]
    # 1 was followed by itself four times of five, then by 3. Who is at 6 goes to 5 or 6 alike, the smaller first.
    assert of_history(MarkovChain(EVER), *rows) == [[5, 6, 0], [1, 3, 0], [6, 0, 0]]
    later = examples(example("q", ["tea"], [], day="2026-02-02"))
    assert of_history(MarkovChain(EVER), rows[2], valid=later) == [[6, 7, 0]]


def test_steps_up_to_a_distance_are_counted_within_a_user_alone():
    owners, items = np.array([0, 0, 0, 1, 1]), np.array([0, 1, 1, 2, 0])
    one, two = (item_steps([(owners, items)], 3, reach).toarray().tolist() for reach in (1, 2))
    assert one == [[0, 1, 0], [0, 1, 0], [1, 0, 0]]
    assert two == [[0, 2, 0], [0, 1, 0], [1, 0, 0]]
    parts = [(owners[:3], items[:3]), (owners[3:], items[3:])]
    assert item_steps(parts, 3, 2).toarray().tolist() == two


def test_items_are_co_visited_on_both_sides_and_less_if_they_are_near_everything():
    # 1 is near 2 twice and near 3 once; 3 is near 1, 4, 5, 6 and 7.
    ever = history(
        a=[("2026-01-01", 1), ("2026-01-02", 2)], b=[("2026-01-01", 2), ("2026-01-02", 1)],
        c=[("2026-01-01", 3), ("2026-01-02", 1)],
        **{f"d{item}": [("2026-01-01", 3), ("2026-01-02", item)] for item in (4, 5, 6, 7)},
    )  # fmt: skip
    row = example("p", ["tea"], [], items=[1])
    method = CoVisits(ever)
    assert of_history(method, row) == [[2, 3, 0]]
    scores, keys = method.item_scores(examples(row))
    found = dict(zip(keys[scores.indices].tolist(), scores.data.tolist(), strict=True))
    # How near any: 1 three times, 2 twice, 3 five times.
    assert found == pytest.approx({2: 2 / np.sqrt(3 * 2), 3: 1 / np.sqrt(3 * 5)})
    method.most_near = 1
    assert of_history(method, row) == [[2, 0, 0]]


def test_co_visits_of_too_many_events_are_those_of_some_whole_users():
    ever = history(**{f"u{n:02}": [("2026-01-01", 2 * n), ("2026-01-02", 2 * n + 1)] for n in range(20)})
    method = CoVisits(ever)
    method.most_events = 11  # two each
    method.fit(train(), train(), CATEGORIES)
    users = ever.within(11).users
    assert len(users) == 5
    near = {(2 * n + a, 2 * n + 1 - a) for n in range(20) if f"u{n:02}" in users for a in (0, 1)}
    found = method.item_transitions.tocoo()
    assert set(zip(method.items[found.row].tolist(), method.items[found.col].tolist(), strict=True)) == near
    assert found.data.tolist() == [1] * 10


def test_of_each_line_the_largest_numbers_are_kept_and_of_equal_ones_the_first():
    lines = [[1.0, 3, 0, 3, 2], [0, 0, 0, 0, 0], [5, 0, 0, 0, 0], [2, 2, 2, 9, 2], [0, 4, 4, 0, 4]]
    found = largest_of_rows(sparse.csr_matrix(np.array(lines)), 2)
    assert found.toarray().tolist() == [[0, 3, 0, 3, 0], [0] * 5, [5, 0, 0, 0, 0], [2, 0, 0, 9, 0], [0, 4, 4, 0, 0]]
    assert found.nnz == 7
    assert largest_of_rows(sparse.csr_matrix((2, 5)), 2).toarray().tolist() == [[0] * 5] * 2
    assert largest_of_rows(sparse.csr_matrix((0, 0)), 2).shape == (0, 0)


def test_methods_with_a_history_are_those_without_and_co_visits():
    without, given = ({method.name for method in methods} for methods in (cheap_baselines(), cheap_baselines(EVER)))
    assert given - without == {"co-visited items"}
    items = {method.name for method in cheap_baselines(EVER) if "next_item" in method.tasks}
    assert {"whole history", "decayed history", "co-visited items"} < items
    assert of_history(CoVisits(history()), example("x", ["tea"], [], items=[1])) == [[0, 0, 0]]


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
