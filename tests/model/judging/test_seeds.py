"""What pretraining gains over several seeds is as uncertain as users and seeds make it together."""

from dataclasses import dataclass

import numpy as np
import pytest

from model.judging.metrics import UserBootstrap, interval
from tests.bench.seeds import gains, over_seeds, values_of
from tests.model.tiny_examples import example, examples

IDS = ["bread", "milk", "rope", "soap", "tea", "wine"]


@dataclass
class Said:
    """What a network says of some rows."""

    categories: np.ndarray
    items: np.ndarray
    answers: dict[str, np.ndarray]


def test_an_interval_over_seeds_knows_how_far_these_lie_apart():
    # In each resample of users the first seed gains nothing and the second one: of two, one is drawn.
    samples = over_seeds(np.tile([0.0, 1.0], (4000, 1)), seed=1)
    assert set(samples) == {0.0, 1.0}
    assert samples.mean() == pytest.approx(0.5, abs=0.03)
    # Of three, two are drawn: 0, 3 or 6, or a mean of two of them. Their variance is that of a mean of three
    # trainings: 9, which is that of the seeds with one degree of freedom less, divided by three.
    samples = over_seeds(np.tile([0.0, 3.0, 6.0], (20_000, 1)), seed=2)
    assert set(samples) == {0.0, 1.5, 3.0, 4.5, 6.0}
    assert samples.var() == pytest.approx(9 / 3, rel=0.05)


def test_with_a_single_seed_the_interval_is_that_over_users():
    of_users = np.random.default_rng(0).normal(size=(50, 1))
    assert interval(over_seeds(of_users, seed=3)) == interval(of_users[:, 0])


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
