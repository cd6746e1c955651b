"""Sets of categories hold what comes as often as they say, whatever the probabilities are worth."""

import tracemalloc

import numpy as np
import pytest

from model.versions.sets import held, mass_before, reach_of, sizes


def test_a_set_reaches_from_the_likeliest_category_to_the_last_one_before_which_too_little_stands():
    chances = np.array([[0.1, 0.4, 0.2, 0.3]])
    # In order 0.4, 0.3, 0.2, 0.1, so that before them stand 0, 0.4, 0.7 and 0.9.
    before = mass_before(np.repeat(chances, 4, axis=0), np.arange(4))
    assert before == pytest.approx([0.9, 0.0, 0.7, 0.4])
    for reach, size in ((0.0, 1), (0.39, 1), (0.4, 2), (0.69, 2), (0.7, 3), (0.9, 4), (1.0, 4)):
        assert sizes(chances, reach).tolist() == [size]
        # What is in the set, and how many are in it, is one rule.
        assert held(before, reach).sum() == size


def test_equally_likely_categories_stand_in_the_order_of_their_columns():
    chances = np.full((3, 3), 1 / 3)
    assert mass_before(chances, np.arange(3)) == pytest.approx([0, 1 / 3, 2 / 3])
    assert sizes(chances[:1], 1 / 3).tolist() == [2]


def test_what_is_no_category_of_the_model_is_in_no_set():
    before = mass_before(np.array([[0.7, 0.3]]), np.array([-1]))
    assert not held(before, 1.0).any()


def test_the_reach_is_that_of_nine_in_ten_rows_and_one_more():
    # Of 99 rows and a hundredth, 90 are within the 90th smallest; of 100 and one more it takes 91.
    assert reach_of(np.arange(99)[::-1] / 100) == 0.89
    assert reach_of(np.arange(100) / 100) == 0.90
    assert reach_of(np.arange(99) / 100, coverage=0.5) == 0.49


def test_too_few_rows_or_too_many_strangers_promise_nothing():
    assert reach_of(np.zeros(8)) is None
    assert reach_of(np.zeros(9)) == 0
    strangers = np.full(10, np.inf)
    assert reach_of(np.concatenate([np.zeros(89), strangers])) is None
    assert reach_of(np.concatenate([np.zeros(90), strangers[:9]])) == 0
    assert reach_of(np.zeros(0)) is None


@pytest.mark.parametrize("power", [0.3, 1.0, 3.0], ids=["timid", "true", "bold"])
def test_sets_hold_what_comes_also_of_a_model_whose_probabilities_are_wrong(power):
    draws = np.random.default_rng(7)
    truth = draws.dirichlet(np.full(12, 0.4), size=6_000)
    came = (truth.cumsum(axis=1) > draws.random((6_000, 1))).argmax(axis=1)
    said = truth**power / (truth**power).sum(axis=1, keepdims=True)
    before = mass_before(said, came)
    reach = reach_of(before[:3_000])
    # Two deviations of chance, of the 3,000 rows that the reach comes from and of those that are judged.
    assert held(before[3_000:], reach).mean() == pytest.approx(0.9, abs=2 * np.sqrt(2 * 0.09 / 3_000))
    # The claim itself holds for the true ones alone.
    claimed = held(before[3_000:], 0.9).mean()
    assert (claimed < 0.88) == (power == 3.0)


def test_without_any_category_that_is_known_no_set_holds_what_comes():
    assert mass_before(np.zeros((2, 0), np.float32), np.array([-1, -1])).tolist() == [np.inf, np.inf]
    assert mass_before(np.zeros((0, 3), np.float32), np.zeros(0, int)).tolist() == []


def test_rows_are_taken_in_blocks_and_judged_alike(monkeypatch):
    draws = np.random.default_rng(1)
    chances = draws.dirichlet(np.ones(20), 50).astype(np.float32)
    columns = draws.integers(-1, 20, 50)
    whole, wide = mass_before(chances, columns), sizes(chances, 0.5)
    monkeypatch.setattr("model.versions.sets.AT_ONCE", 7)
    assert mass_before(chances, columns).tolist() == whole.tolist()
    assert sizes(chances, 0.5).tolist() == wide.tolist()


@pytest.mark.parametrize(
    "judge", [lambda said: mass_before(said, np.zeros(len(said), int)), lambda said: sizes(said, 0.5)]
)
def test_the_memory_that_is_taken_does_not_grow_with_the_rows(judge):
    said = np.full((16_384, 500), 1 / 500, np.float32)
    tracemalloc.start()
    try:
        judge(said)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # Eight times a block of 2,048 rows; four copies of one in double precision are as much as all rows in single.
    assert peak < said.nbytes * 1.2
