"""Boosted trees learn habits, are the same at every run, and never rank a stranger above a candidate."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chi2_contingency
from sklearn.metrics import roc_auc_score

from model.data.candidates import (
    LABEL_FEATURES,
    PAIR_FEATURES,
    concentration,
    habit_features,
    label_features,
    scalar_features,
)
from model.judging.baselines import LABELS, MostPopular
from model.judging.boosted import BoostedTrees
from model.judging.metrics import truth_ranks
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


def test_trees_learn_who_comes_back_nearly_as_well_as_can_be(log, fitted):
    test = log[2]
    found = fitted.binary(test)
    assert set(found) == set(LABELS)
    # In this shop it is chance, but for how busy one is.
    best = roc_auc_score(test["churned"], -test["frequency"])
    assert roc_auc_score(test["churned"], found["churned"]) > best - 0.05


def test_trees_stop_as_soon_as_they_no_longer_help_on_the_validation_rows(log, fitted):
    train = log[0]
    # There the busy are those who leave: every tree makes it worse.
    turned = train.assign(churned=~train["churned"], purchased=~train["purchased"])
    heads = trees().fit(train, turned, CATEGORIES).trees.heads
    assert (heads["churned"].best_iteration, heads["purchased"].best_iteration) == (1, 1)
    assert fitted.trees.heads["churned"].best_iteration > 10


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
    monkeypatch.setattr("model.versions.trees.AT_ONCE", 16)
    assert fitted.next_category(test)[20] == pytest.approx(fitted.next_category(test.iloc[[20]])[0], abs=1e-7)


def test_what_is_no_candidate_stands_below_all_candidates(fitted):
    row = examples(example("x", ["c11", "c11"], [], older=["c10"]))
    rows, columns, features = fitted.candidates.pairs(row)
    assert set(rows) == {0}
    assert {10, 11} <= set(columns)
    assert features.shape == (len(columns), len(PAIR_FEATURES))
    scores = fitted.next_category(row)[0]
    strangers = np.setdiff1d(np.arange(12), columns)
    assert len(strangers)
    assert scores[strangers].max() < scores[columns].min()
    assert np.argsort(-scores[strangers]).tolist() == np.argsort(-fitted.popularity[strangers]).tolist()


def test_pairs_hold_what_the_user_did_with_the_category_and_what_all_do():
    train = examples(
        # The last 28 days do not reach back to the first row.
        example("p", ["a"], ["a", "a", "b"], day="2026-01-03"),
        example("q", ["a"], ["b"], day="2026-01-31"),
    )
    method = BoostedTrees(rounds=1, most_popular=1, threads=1).fit(train, train, ["a", "b", "c"])
    # Of the categories that everyone has beside their own there is one, which is b.
    assert method.candidates.pairs(examples(example("x", ["rope"], [])))[1].tolist() == [1]

    row = example(
        "x", ["a", "a", "b"], [], older=["a", "c"], history_days_active=4, active_days=2, tenure_seconds=9 * 86_400
    ) | {
        "longterm_days": np.array([2, 1, 1]),
        # Of a, b and c: what is old counts less, but c was a purchase.
        "longterm_shares": np.array([0.5, 0.2, 0.3]),
    }
    rows, columns, features = method.candidates.pairs(examples(row))
    assert (rows.tolist(), columns.tolist()) == ([0, 0, 0], [0, 1, 2])
    of_user = {
        "history_events": 5, "history_days_active": 4, "frequency": 3, "active_days": 2, "recency_seconds": 86_400,
        "tenure_seconds": 9 * 86_400,
    }  # fmt: skip
    # Next categories: a once and b once in two rows, of all three one third more. Events: a 2/3, b 1/3 and 1, of all
    # three one half more.
    expected = [
        {
            "count": 3, "share": 3 / 5, "smoothed_share": (3 + 20 / 3.5 * (2 / 3 + 1 / 2)) / 25,
            "expected_events": 3 / 5 * 3, "lift": np.log((3 / 5 + 1e-4) / ((2 / 3 + 1 / 2) / 3.5)),
            "days": 2, "share_of_days": 2 / 4, "events_a_day": 3 / 2, "current_count": 2, "current_share": 2 / 3,
            "week_count": 1, "decayed_share": 0.5, "age_seconds": 2 * 86_400,
            "rank_by_count": 0, "rank_by_current": 0, "rank_by_decayed": 0,
            "popularity": (1 + 1 / 3) / 3, "recent_popularity": 0.5 / 2.5, "share_of_events": (2 / 3 + 1 / 2) / 3.5,
        },
        {
            "count": 1, "share": 1 / 5, "smoothed_share": (1 + 20 / 3.5 * 0.5) / 25,
            "expected_events": 1 / 5 * 3, "lift": np.log((1 / 5 + 1e-4) / (0.5 / 3.5)),
            "days": 1, "share_of_days": 1 / 4, "events_a_day": 1, "current_count": 0, "current_share": 0,
            "week_count": 0, "decayed_share": 0.3, "age_seconds": 4 * 86_400,
            "rank_by_count": 2, "rank_by_current": 2, "rank_by_decayed": 1,
            "popularity": (1 / 3) / 3, "recent_popularity": 0.5 / 2.5, "share_of_events": 0.5 / 3.5,
        },
    ]  # fmt: skip
    for at, values in zip((0, 2), expected, strict=True):
        found = dict(zip(PAIR_FEATURES, features[at].tolist(), strict=True))
        assert found == pytest.approx(values | of_user, rel=1e-5)
    # A candidate from popularity alone was never met.
    never = dict(zip(PAIR_FEATURES, method.candidates.pairs(examples(example("x", ["a"], [])))[2][1], strict=True))
    assert (never["count"], never["days"], np.isnan(never["age_seconds"])) == (0, 0, True)


def pairs_of(method: BoostedTrees, frame: pd.DataFrame) -> list[np.ndarray]:
    """Fit on a frame, and return what the trees of the next category learn from: the pairs of train, and of valid."""
    learnt = []

    def boost(train, valid, rate):
        learnt[:] = [train[0], valid[0]]

    method._boost = boost
    method.fit(frame, frame, CATEGORIES)
    return learnt


def test_all_rows_of_a_log_are_learnt_from_within_four_million_pairs():
    few = shop(30, ["2026-01-03"])
    few = few[few["next_category"].notna()].head(10)
    assert [len(pairs) for pairs in pairs_of(BoostedTrees(), few)] == [10 * 12] * 2
    # A row has its own categories, and all twelve are common: of that many pairs a budget has to have room.
    room = few["longterm_categories"].map(len) + 12
    many = few.loc[few.index.repeat(3000)]
    train, valid = pairs_of(BoostedTrees(), many)
    assert 4_000_000 > room.sum() * 3000 > 500_000
    assert len(train) == 30_000 * 12
    # Of validation a quarter is enough: all again here, but with half of the budget not.
    assert len(valid) == 30_000 * 12
    train, valid = pairs_of(BoostedTrees(most_pairs=600_000), many)
    assert len(train) == 30_000 * 12
    fits = 150_000 / room.mean() * 12
    assert 0.98 * fits < len(valid) < 1.02 * fits


def test_rows_are_sampled_down_to_what_was_asked_for_each_once(log):
    train = log[0].assign(spend=np.arange(len(log[0])), recency_seconds=np.arange(len(log[0])))
    known = train[train["next_category"].notna()]
    at = PAIR_FEATURES.index("recency_seconds")

    def sampled(seed: int) -> list[int]:
        method = BoostedTrees(seed=seed, most_pairs=700)
        pairs = pairs_of(method, train)[0]
        chosen = sorted(set(pairs[:, at].astype(int)))
        # What is learnt of the rows that were chosen is what they are.
        np.testing.assert_array_equal(pairs, method.candidates.pairs(train.iloc[chosen])[2])
        return chosen

    once = sampled(1)
    # Each has up to nine categories of its own, and twelve that are common.
    assert 700 // 21 <= len(once) <= 700 // 13
    assert set(once) <= set(known["recency_seconds"])
    assert sampled(1) == once
    assert sampled(2) != once


def test_how_large_trees_are_is_what_does_best_on_validation(monkeypatch):
    grown = []

    def grow(self, rows, of_valid, rate, **how):
        assert len(np.unique(rows[0])) == len(rows[0]), "each row is drawn once"
        grown.append((len(rows[1]), len(of_valid[1]), rate, how["num_leaves"], how["lambda_l2"]))
        loss = (
            {7: 0.3, 15: 0.2, 31: 0.1}[how["num_leaves"]] if len(of_valid[1]) == 60 else 0.5 - how["num_leaves"] / 100
        )
        return SimpleNamespace(best_score={"valid_0": {"binary_logloss": loss}})

    monkeypatch.setattr(BoostedTrees, "_grow", grow)
    rows = np.arange(180.0)[:, None], np.arange(180) % 2
    trees(most_tried=60)._boost(rows, (rows[0][:90], rows[1][:90]), 0.1)
    # Each is tried on a sample in large steps, and the best one is grown on all in small ones.
    tried = [(60, 60, 0.2, leaves, penalty) for leaves, penalty in ((15, 5), (7, 5), (31, 5), (31, 50))]
    assert grown == [*tried, (180, 90, 0.1, 31, 5)]


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


def test_scalar_features_are_the_scalars_their_ratios_and_the_shapes_of_the_interest():
    values = {
        "recency_seconds": 86_400, "frequency": 6, "active_days": 3, "purchases": 1, "spend": 12.0,
        "history_events": 24, "history_days_active": 8, "tenure_seconds": 16 * 86_400, "week_frequency": 2,
    }  # fmt: skip
    row = example("x", ["tea", "tea", "milk", "milk"], [], older=["soap"] * 4, **values)
    found = scalar_features(examples(row))[0]
    # Two days between two visits, half of that gone; then events a day, money an event, and what is lately of all.
    ratios = [2 * 86_400, 1 / 2, 6 / 3, 12 / 6, 6 / 24, 3 / 8]
    # How many categories, their entropy and the largest share: lately of milk and tea, ever of those and soap.
    shapes = [2, np.log(2), 1 / 2, 3, 1.5 * np.log(2), 1 / 2]
    assert found == pytest.approx([*values.values(), *ratios, *shapes])


def g(*windows: list[float]) -> float:
    """Return G of two windows of counts by scipy."""
    return float(chi2_contingency(np.array(windows), correction=False, lambda_="log-likelihood").statistic)


def test_habits_are_how_the_lookback_stands_to_the_history():
    # Lately four times tea and twice milk; before that milk six times, soap three times and tea once.
    row = example(
        "x", ["tea"] * 4 + ["milk"] * 2, [], older=["milk"] * 6 + ["soap"] * 3 + ["tea"], tenure_seconds=60 * 86_400
    )
    stranger = example("y", [], [])
    found = habit_features(examples(row, stranger))
    # Of all sixteen events eight are milk, five tea and three soap; a month has eight.
    spread = np.array([8, 5, 3]) / 16
    tests = [
        g([2, 4, 0], [6, 1, 3]), g([2, 4, 0], list(6 * spread)), g([2, 4, 0], list(8 * spread)),
    ]  # fmt: skip
    assert found[0] == pytest.approx([4 / 6, 1 / 10, 5 / 16, 4, 2, (5 - 8) * 6 / 16, *tests])
    assert np.isnan(found[1][:3]).all()
    assert found[1][[3, 4, 6, 7, 8]].tolist() == [0] * 5
    # Of two that are level lately, the favourite is what came more often ever.
    level = habit_features(examples(example("z", ["tea", "milk"], [], older=["tea"])))[0]
    assert level[:5] == pytest.approx([1 / 2, 1, 2 / 3, 1, 1])
    both = label_features(examples(row))
    assert both.shape == (1, LABEL_FEATURES)
    np.testing.assert_array_equal(both[0], [*scalar_features(examples(row))[0], *found[0]])


def test_a_ratio_to_nothing_is_not_known():
    nothing = dict.fromkeys(("frequency", "active_days", "history_days_active", "history_events"), 0)
    found = scalar_features(examples(example("x", ["c00"], [], **nothing)))[0]
    assert np.isnan(found[9:15]).all()
    assert np.isfinite(np.delete(found, slice(9, 15))).all()
