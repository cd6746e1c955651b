"""Boosted trees learn habits, are the same at every run, and never rank a stranger above a candidate."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from model.baselines import LABELS, MostPopular
from model.boosted import PAIR_FEATURES, BoostedTrees, concentration, scalar_features
from model.metrics import truth_ranks
from tests.model.tiny_examples import example, examples, shop

CATEGORIES = [f"c{n:02d}" for n in range(12)]


def trees(**more) -> BoostedTrees:
    return BoostedTrees(rounds=40, most_popular=4, threads=1, **more)


@pytest.fixture(scope="module")
def log() -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    return (
        shop(90, ["2026-01-03", "2026-01-10", "2026-01-17"]),
        shop(90, ["2026-02-07"], seed=1),
        shop(90, ["2026-02-28"], seed=2),
    )


@pytest.fixture(scope="module")
def fitted(log) -> BoostedTrees:
    train, valid, _ = log
    return trees().fit(train, valid, CATEGORIES)


def test_trees_learn_what_the_next_category_depends_on(log, fitted):
    train, valid, test = log
    truth = pd.Index(CATEGORIES).get_indexer(test["next_category"].astype(object))

    def recall(method) -> float:
        return float((truth_ranks(method.next_category(test), truth)[truth >= 0] <= 2).mean())

    assert recall(fitted) > recall(MostPopular().fit(train, valid, CATEGORIES)) + 0.2


def test_trees_learn_who_comes_back(log, fitted):
    test = log[2]
    found = fitted.binary(test)
    assert set(found) == set(LABELS)
    assert roc_auc_score(test["churned"], found["churned"]) > 0.6


def test_the_same_seed_gives_the_same_scores(log, fitted):
    train, valid, test = log
    again = trees().fit(train, valid, CATEGORIES)
    assert (again.next_category(test) == fitted.next_category(test)).all()
    assert (again.binary(test)["churned"] == fitted.binary(test)["churned"]).all()


def test_scores_are_probabilities_of_all_categories(log, fitted):
    scores = fitted.next_category(log[2])
    assert scores.shape == (90, 12)
    assert (scores > 0).all()
    assert scores.sum(axis=1) == pytest.approx(np.ones(90), abs=1e-4)


def test_a_row_is_judged_by_itself(log, fitted, monkeypatch):
    test = log[2]
    monkeypatch.setattr(fitted, "_AT_ONCE", 16)
    assert fitted.next_category(test)[20] == pytest.approx(fitted.next_category(test.iloc[[20]])[0], abs=1e-7)


def test_what_is_no_candidate_stands_below_all_candidates(fitted):
    row = examples(example("x", ["c11", "c11"], [], older=["c10"]))
    rows, columns, features = fitted.pairs(row)
    assert set(rows) == {0}
    assert {10, 11} <= set(columns)
    assert features.shape == (len(columns), len(PAIR_FEATURES))
    scores = fitted.next_category(row)[0]
    strangers = np.setdiff1d(np.arange(12), columns)
    assert len(strangers)
    assert scores[strangers].max() < scores[columns].min()
    assert np.argsort(-scores[strangers]).tolist() == np.argsort(-fitted.popularity[strangers]).tolist()


def test_pairs_hold_what_the_user_did_with_the_category(fitted):
    row = examples(example("x", ["c01", "c01", "c02"], [], older=["c01", "c09"]))
    _, columns, features = fitted.pairs(row)
    found = pd.DataFrame(features, columns=list(PAIR_FEATURES), index=columns)
    assert found.loc[1, ["count", "share", "current_count", "rank_by_count"]].tolist() == pytest.approx([3, 0.6, 2, 0])
    assert found.loc[9, ["count", "current_count", "age_seconds"]].tolist() == [1, 0, 4 * 86_400]
    # A candidate from popularity alone was never met.
    never = found.loc[found["count"] == 0]
    assert never["age_seconds"].isna().all()


def test_rows_are_sampled_down_to_what_was_asked_for(log):
    train, valid, test = log
    small = trees(most_rows=30).fit(train, valid, CATEGORIES)
    assert np.isfinite(small.next_category(test)).all()


def test_labels_and_categories_without_variety_leave_rates_and_popularity():
    rows = examples(*(example(f"u{n}", ["c00"], []) for n in range(4)))
    found = trees().fit(rows, rows, CATEGORIES)
    assert found.binary(rows)["churned"].tolist() == [1.0] * 4
    assert found.binary(rows)["migrated"].tolist() == [0.5] * 4
    assert found.next_category(rows)[0] == pytest.approx(np.full(12, 1 / 12))


def test_concentration_is_entropy_and_the_largest_share():
    entropy, largest = concentration(pd.Series([[0.5, 0.5], [1.0], []]))
    assert entropy.tolist() == pytest.approx([np.log(2), 0, 0])
    assert largest.tolist() == [0.5, 1.0, 0.0]


def test_scalar_features_stay_finite_or_nan_for_empty_histories():
    row = example("x", ["c00"], [], frequency=0, active_days=0, history_days_active=0, history_events=0)
    assert scalar_features(examples(row)).shape[0] == 1
