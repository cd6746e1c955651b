"""A stack is fitted on validation rows, judged on users that it was not fitted on, and built where it gains."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from lake.labels import NAMES
from model.judging.stacking import NO_TREES, AnswerFit, CategoryFit, fit_stack, gain_of
from model.versions.stack import OFFERED, log_odds

CATEGORIES = [f"c{n:02}" for n in range(40)]


def softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits)
    return weights / weights.sum(axis=1, keepdims=True)


def drawn(chances: np.ndarray, draws: np.random.Generator) -> np.ndarray:
    return (chances.cumsum(axis=1) > draws.random((len(chances), 1))).argmax(axis=1)


def sides(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what two sides say of 40 categories, and what came of the product of their powers 0.7 and 0.5."""
    draws = np.random.default_rng(seed)
    network, trees = (softmax(draws.normal(0, 1.5, (rows, 40))) for _ in range(2))
    return network, trees, drawn(softmax(0.7 * np.log(network) + 0.5 * np.log(trees)), draws)


def test_the_powers_are_those_by_which_categories_come():
    network, trees, came = sides(20_000, 1)
    offered = np.tile(np.arange(40), (20_000, 1))
    found = CategoryFit(network, offered, trees, came).fit(np.arange(20_000), trees=True)
    assert found == {"network": pytest.approx(0.7, abs=0.03), "trees": pytest.approx(0.5, abs=0.03)}


def test_the_weights_are_those_by_which_labels_come():
    draws = np.random.default_rng(2)
    network, trees = draws.uniform(0.02, 0.98, (2, 40_000))
    odds = 0.4 * log_odds(network) + 0.9 * log_odds(trees) - 0.5
    truth = draws.random(40_000) < 1 / (1 + np.exp(-odds))
    found = AnswerFit(network, trees, truth).fit(np.arange(40_000), trees=True)
    wanted = {"network": 0.4, "trees": 0.9, "bias": -0.5}
    assert found == {name: pytest.approx(value, abs=0.05) for name, value in wanted.items()}


def test_no_side_speaks_against_itself():
    draws = np.random.default_rng(3)
    network, trees = draws.uniform(0.1, 0.9, (2, 2_000))
    truth = draws.random(2_000) < 1 - trees
    found = AnswerFit(network, trees, truth).fit(np.arange(2_000), trees=True)
    assert found["trees"] == 0
    assert found["network"] >= 0


def test_weights_see_the_rows_that_they_are_fitted_on_alone():
    network, trees, came = sides(400, 4)
    offered = np.tile(np.arange(40), (400, 1))
    some = np.arange(0, 400, 2)
    others = came.copy()
    others[1::2] = 0
    found = [CategoryFit(network, offered, trees, truth).fit(some, trees=True) for truth in (came, others)]
    assert found[0] == found[1]


def test_a_gain_is_measured_on_users_that_the_weights_were_not_fitted_on():
    users = np.repeat([f"u{n}" for n in range(100)], 3)
    fitted, judged = [], []

    def fit(rows: np.ndarray, trees: bool) -> dict[str, float]:
        fitted.append(set(users[rows]))
        return {"trees": float(trees)}

    def loss(weights: dict[str, float], rows: np.ndarray) -> np.ndarray:
        assert not fitted[-1] & set(users[rows])
        if weights["trees"]:
            judged.extend(rows)
        return np.full(len(rows), 0.25 if weights["trees"] else 1.0)

    rows = np.arange(10, 300)
    gain = gain_of("x", fit, loss, rows, users, seed=1)
    assert sorted(judged) == rows.tolist()
    assert (gain.alone, gain.together, gain.low, gain.high, gain.users, gain.kept) == (1, 0.25, 0.75, 0.75, 97, True)


def test_a_gain_that_chance_explains_is_none_and_few_users_tell_nothing():
    users = np.array([f"u{n}" for n in range(60)])
    noise = np.random.default_rng(5).normal(0.02, 1, 60)

    def fit(_: np.ndarray, trees: bool) -> dict[str, float]:
        return {"trees": float(trees)}

    def loss(weights: dict[str, float], rows: np.ndarray) -> np.ndarray:
        return -weights["trees"] * noise[rows]

    unclear = gain_of("x", fit, loss, np.arange(60), users, seed=1)
    assert unclear.low < 0 < unclear.high
    assert not unclear.kept
    noise = np.full(60, 1.0)
    few, enough, all_of_them = (gain_of("x", fit, loss, np.arange(many), users, seed=1) for many in (49, 50, 60))
    assert (few.kept, enough.kept, all_of_them.kept) == (False, True, True)
    assert str(few) == "x: the network alone; 49 users are too few to tell"
    assert (
        str(all_of_them) == "x: with trees; log loss 0.0000 alone, -1.0000 together, gain +1.0000 to +1.0000, 60 users"
    )


class Says:
    """Trees that say what they are told."""

    def __init__(self, categories: np.ndarray, answers: dict[str, np.ndarray]):
        self.categories, self.answers = categories, answers
        self.candidates = SimpleNamespace(categories=pd.Index(CATEGORIES))
        self.ranker, self.kept = "trees", None

    def of_offered(self, _: pd.DataFrame, offered: np.ndarray) -> np.ndarray:
        return np.take_along_axis(self.categories, offered, axis=1)

    def binary(self, _: pd.DataFrame) -> dict[str, np.ndarray]:
        return self.answers

    def only(self, labels: list[str], *, ranker: bool) -> "Says":
        self.kept = (labels, ranker)
        return self


def test_an_answer_is_made_of_both_where_that_gains_and_of_the_network_where_it_does_not():
    rows = 3_000
    network, trees, came = sides(rows, 6)
    draws = np.random.default_rng(7)
    truth = {name: draws.random(rows) < 0.4 for name in NAMES}
    knows = {name: np.where(truth[name], 0.7, 0.2) for name in NAMES}
    guess = dict.fromkeys(NAMES, np.full(rows, 0.4))
    valid = pd.DataFrame(
        {"user_id": np.arange(rows) // 2, "next_category": np.array(CATEGORIES, object)[came], **truth}
    )
    # Of a third of the users it is not known, and what stands there may be anything.
    migrated = pd.array(truth["migrated"], "boolean")
    migrated[valid["user_id"] % 3 == 0] = pd.NA
    valid["migrated"] = migrated
    said = {**guess, "migrated": knows["migrated"]}
    stack, gains = fit_stack(Says(trees, said), network, guess, valid, seed=1)
    assert [gain.answer for gain in gains if gain.kept] == ["next_category", "migrated"]
    assert set(stack.answers) == {"migrated"}
    # Trees of answers that they have no say in are left out.
    assert stack.trees.kept == (["migrated"], True)
    assert stack.answers["migrated"]["trees"] > 0.5
    assert stack.category["trees"] == pytest.approx(0.5, abs=0.1)
    sizes = {gain.answer: gain.users for gain in gains}
    assert sizes["churned"] == rows // 2
    assert sizes["migrated"] == rows // 2 * 2 // 3
    # What came was among the categories that the network finds likeliest for these users alone.
    offered = np.sort(network, axis=1)[:, -OFFERED]
    asked = network[np.arange(rows), came] >= offered
    assert sizes["next_category"] == len(set((np.arange(rows) // 2)[asked])) < rows // 2

    none, gains = fit_stack(Says(np.full_like(trees, 0.1), guess), network, guess, valid, seed=1)
    assert none is None
    assert not any(gain.kept for gain in gains)


def test_without_trees_the_network_gets_its_own_weights():
    network, trees, came = sides(20_000, 8)
    offered, rows = np.tile(np.arange(40), (20_000, 1)), np.arange(20_000)
    ranked = CategoryFit(network, offered, trees, came)
    alone = ranked.fit(rows, trees=False)
    assert alone["trees"] == 0
    assert alone["network"] == pytest.approx(0.66, abs=0.05)
    as_it_is = ranked.loss({"network": 1.0, "trees": 0.0}, rows)
    assert as_it_is == pytest.approx(-np.log(network[rows, came]), rel=1e-4)
    assert ranked.loss(ranked.fit(rows, trees=True), rows).mean() < ranked.loss(alone, rows).mean() < as_it_is.mean()
    truth = rows % 2 == 0
    chances = np.where(truth, 0.9, 0.3)
    head = AnswerFit(chances, chances, truth)
    found = head.loss({"network": 1.0, "trees": 0.0, "bias": 0.0}, rows)
    assert found == pytest.approx(-np.log(np.where(truth, chances, 1 - chances)), rel=1e-5)
    assert head.fit(rows, trees=False)["trees"] == 0


# --- answers of one kind ---


def shop_of(rows: int, seed: int, rate: float, yes: int) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Return validation rows, a user each, of which so many have each label, and what a good network says of them."""
    draws = np.random.default_rng(seed)
    odds = log_odds(np.full(rows, rate)) + draws.normal(0, 0.5, rows)
    chances = 1 / (1 + np.exp(-odds))
    truth = {}
    for name in NAMES:
        truth[name] = np.zeros(rows, bool)
        truth[name][draws.choice(rows, yes, replace=False, p=chances / chances.sum())] = True
    valid = pd.DataFrame({"user_id": np.arange(rows), "next_category": [None] * rows, **truth})
    return valid, dict.fromkeys(NAMES, chances)


@pytest.mark.parametrize(
    ("yes", "varied", "why"),
    [
        (0, False, NO_TREES),  # no such user in validation: the trees are a rate, as BoostedTrees leaves it
        (4_000, False, NO_TREES),  # nobody else
        (1, False, NO_TREES),  # trees without a branch
        (400, False, NO_TREES),  # a rate, though the labels vary
        (0, True, "fewer than 10 users with yes, or with no, cannot tell"),
        (4_000, True, "fewer than 10 users with yes, or with no, cannot tell"),
        (1, True, "fewer than 10 users with yes, or with no, cannot tell"),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_trees_have_no_say_of_labels_without_variety_nor_where_they_say_the_same_of_all(yes, varied, why, seed):
    valid, network = shop_of(4_000, seed, 0.01, yes)
    draws = np.random.default_rng(seed)
    said = draws.uniform(0.001, 0.01, 4_000) if varied else np.full(4_000, 0.002)
    even = np.full((4_000, 40), 1 / 40)
    stack, gains = fit_stack(Says(even, dict.fromkeys(NAMES, said)), even, network, valid, seed)
    assert stack is None
    assert [str(gain) for gain in gains[1:]] == [f"{name}: the network alone; {why}" for name in NAMES]


def test_popularity_has_no_say_in_the_next_category():
    network, trees, came = sides(3_000, 6)
    valid = pd.DataFrame({"user_id": np.arange(3_000), "next_category": np.array(CATEGORIES, object)[came]})
    guess = dict.fromkeys(NAMES, np.full(3_000, 0.4))
    valid = valid.assign(**dict.fromkeys(NAMES, [True, False] * 1_500))
    without = Says(trees, guess)
    assert fit_stack(without, network, guess, valid, seed=1)[1][0].kept
    without.ranker = None
    stack, gains = fit_stack(without, network, guess, valid, seed=1)
    assert (stack, str(gains[0])) == (None, f"next_category: the network alone; {NO_TREES}")


@pytest.mark.parametrize("kind", [False, True])
def test_each_part_of_the_users_needs_ten_of_each_kind_to_fit_on(kind):
    users, rows = np.repeat(np.arange(200), 2), np.arange(400)

    def fit(_: np.ndarray, trees: bool) -> dict[str, float]:
        return {"trees": float(trees)}

    def loss(weights: dict[str, float], some: np.ndarray) -> np.ndarray:
        return np.full(len(some), 1 - 0.5 * weights["trees"])

    # Users in one of five parts are not fitted on; 40 of a kind leave ten in all parts, nine of them never do.
    for many, kept in ((40, True), (9, False)):
        truth = np.where(users < many, kind, not kind)
        assert gain_of("x", fit, loss, rows, users, 1, truth).kept == kept
    # Ten rows of five users are five.
    assert not gain_of("x", fit, loss, rows, users, 1, np.where(users < 5, kind, not kind)).kept


@pytest.mark.parametrize("kind", [False, True])
def test_labels_that_are_all_alike_leave_finite_weights(kind):
    draws = np.random.default_rng(1)
    network, trees = draws.uniform(0.05, 0.2, (2, 500))
    for said in (trees, np.full(500, 0.1)):
        found = AnswerFit(network, said, np.full(500, kind)).fit(np.arange(500), trees=True)
        assert np.abs(list(found.values())).max() < 10


def test_numbers_of_a_small_group_are_not_shown():
    users = np.arange(60)

    def fit(_: np.ndarray, trees: bool) -> dict[str, float]:
        return {"trees": float(trees)}

    def loss(weights: dict[str, float], rows: np.ndarray) -> np.ndarray:
        return np.full(len(rows), 1 - 0.5 * weights["trees"])

    gain = gain_of("x", fit, loss, np.arange(60), users, 1)
    assert gain.without_small_group(60) == gain
    hidden = gain.without_small_group(61)
    assert str(hidden) == "x: with trees; 60 users are too few to show numbers of"
    assert hidden.kept
    assert np.isnan([hidden.alone, hidden.together, hidden.low, hidden.high]).all()
    untold = gain_of("x", fit, loss, np.arange(40), users, 1)
    assert str(untold.without_small_group(61)) == "x: the network alone; 40 users are too few to tell"
