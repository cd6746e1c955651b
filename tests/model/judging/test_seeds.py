"""What pretraining gains over several seeds is as uncertain as users and seeds make it together."""

from dataclasses import dataclass, replace
from datetime import date

import numpy as np
import pytest

from lake.errors import InputInvalid
from model.judging.metrics import UserBootstrap, interval
from model.training.plan import TrainingPlan
from tests.bench.seeds import gains, over_seeds, require_pairs, values_of
from tests.model.tiny_examples import example, examples

IDS = ["bread", "milk", "rope", "soap", "tea", "wine"]


@dataclass
class Said:
    """What a network says of some rows."""

    categories: np.ndarray
    items: np.ndarray
    answers: dict[str, np.ndarray]


def test_an_interval_over_seeds_goes_beyond_what_few_of_them_gained():
    # Nothing is uncertain of the users. The mean of 1, 2 and 6 is 3, their variance 7, that of the mean 7/3, and t of
    # two degrees of freedom 4.3027.
    low, high = over_seeds(np.array([1.0, 2.0, 6.0]), np.tile([1.0, 2.0, 6.0], (10, 1)))
    assert (low, high) == pytest.approx((3 - 4.3027 * np.sqrt(7 / 3), 3 + 4.3027 * np.sqrt(7 / 3)), abs=1e-3)


def test_users_and_seeds_add_their_variances():
    # The mean over both seeds is -1 or 1 in half of the resamples each: a variance of 4/3 of four. That of the mean of
    # 0 and 2 is 1. Of (7/3)^2 / 1^2 = 5.44 degrees of freedom, t is 2.509.
    samples = np.array([[-1.0, -1.0], [1.0, 1.0], [0.0, -2.0], [0.0, 2.0]])
    reach = 2.509 * np.sqrt(7 / 3)
    assert over_seeds(np.array([0.0, 2.0]), samples) == pytest.approx((1 - reach, 1 + reach), abs=2e-3)
    # Seeds that agree leave the normal interval over users.
    reach = 1.95996 * np.sqrt(4 / 3)
    assert over_seeds(np.array([1.0, 1.0]), samples) == pytest.approx((1 - reach, 1 + reach), abs=1e-3)


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("of_users", [0.0, 1.0])
def test_an_interval_over_seeds_covers_about_what_it_says(seeds, of_users):
    draws = np.random.default_rng(0)
    covered, times = 0, 600
    for _ in range(times):
        values = draws.normal(size=seeds) + of_users * draws.normal()
        low, high = over_seeds(values, values + of_users * draws.normal(size=(200, 1)))
        covered += low <= 0 <= high
    assert 0.92 < covered / times < 0.98


def test_with_a_single_seed_the_interval_is_that_over_users():
    of_users = np.random.default_rng(0).normal(size=(50, 1))
    assert over_seeds(of_users[:1, 0], of_users) == interval(of_users[:, 0])


DAYS = [date(2026, 1, day) for day in range(1, 7)]
PLAN = TrainingPlan("r", DAYS[5], {"examples": 3}, DAYS[:2], DAYS[:2], DAYS[3:4], DAYS[5:], 1, 30, 5, 50, None, 1)


def test_runs_of_several_seeds_differ_in_nothing_else():
    require_pairs([PLAN, replace(PLAN, run_id="s", seed=2), replace(PLAN, run_id="t", seed=3)])
    changed = {"train": DAYS[:1], "valid": DAYS[2:3], "horizon_days": 2, "tables": {"examples": 4}, "warm_start": 1}
    for name, value in changed.items():
        other = replace(PLAN, run_id="s", seed=2, **{name: value})
        with pytest.raises(InputInvalid, match=f"differ in their seed alone; {name} of run 's' is"):
            require_pairs([PLAN, other])


def test_one_seed_twice_is_refused():
    with pytest.raises(InputInvalid, match=r"a seed of its own, received \{'r': 1, 's': 1\} for 2 runs"):
        require_pairs([PLAN, replace(PLAN, run_id="s")])
    with pytest.raises(InputInvalid, match=r"received \{'r': 1\} for 2 runs"):
        require_pairs([PLAN, PLAN])


def ranked(*first: str) -> np.ndarray:
    """Return scores of the rows, each with one category first and then the others as in `IDS`."""
    return np.array([[9.0 if name == one else 5 - at for at, name in enumerate(IDS)] for one in first])


def test_gains_are_of_the_same_rows_and_by_seed():
    rows = examples(
        example("a", ["tea", "tea"], ["wine", "wine"], next_items=[1, 2]),
        example("b", ["tea", "tea"], ["tea", "tea"]),
        example("c", ["tea"], []),
    )
    items = np.tile(np.arange(1, 21), (3, 1))
    chances = {name: np.array([0.2, 0.4, 0.9]) for name in ("migrated", "purchased", "churned")}
    # Wine is the sixth of six with whoever does not put it first.
    right = Said(ranked("wine", "tea", "tea"), items, chances)
    wrong = Said(ranked("tea", "tea", "tea"), items[:, ::-1] + 1, {**chances, "churned": np.array([0.9, 0.4, 0.2])})
    of_right = values_of(right, rows, IDS)
    assert of_right["Recall@5 of the next category"].tolist() == pytest.approx([1, 1, np.nan], nan_ok=True)
    assert of_right["of migrated users"].tolist() == pytest.approx([1, np.nan, np.nan], nan_ok=True)
    assert of_right["Recall@20 of the next items"].tolist() == pytest.approx([1, np.nan, np.nan], nan_ok=True)
    assert of_right["NDCG@10"][0] == 1

    bootstrap = UserBootstrap(rows["user_id"].to_numpy(), 30, seed=4)
    found = gains([(right, wrong), (right, right)], rows, IDS, bootstrap)
    assert {name: values.tolist() for name, (values, _) in found.items() if "AUC" not in name} == {
        "Recall@5 of the next category": [1 / 2, 0],
        "of migrated users": [1, 0],
        "any tied first": [1 / 2, 0],
        "NDCG@5 of shares": [1 / 2, 0],
        "Recall@20 of the next items": [1 / 2, 0],  # 2 is among those that the other names, 1 is not
        "NDCG@10": [1, 0],
    }
    # Who churned is last by the other, and first by the one.
    assert found["AUC churned"][0].tolist() == [1, 0]
    assert found["AUC purchased"][0].tolist() == [0, 0]
    _, samples = found["Recall@5 of the next category"]
    assert samples.shape == (30, 2)
    # A resample has a and b as often as it has drawn them: of seed one, a alone gains.
    drawn = bootstrap.counts
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(samples[:, 0], drawn[:, 0] / drawn[:, :2].sum(axis=1))
    assert (samples[:, 1][~np.isnan(samples[:, 1])] == 0).all()
