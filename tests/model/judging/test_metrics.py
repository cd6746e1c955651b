"""Metrics equal the libraries' on the same rows, ties never help, and the bootstrap keeps a user's rows together."""

import numpy as np
import pytest
from sklearn.calibration import calibration_curve as observed_rates
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    brier_score_loss,
    f1_score,
    log_loss,
    ndcg_score,
    precision_score,
    recall_score,
    roc_auc_score,
)

from model.judging.metrics import (
    BINARY_METRICS,
    UserBootstrap,
    best_threshold,
    binary_metrics,
    calibration_gaps,
    distribution_values,
    hits_in_lists,
    interval,
    list_values,
    ranking_values,
    ranks_within,
    truth_ranks,
    without_bias,
)


@pytest.fixture
def head():
    """Return the users, labels and probabilities of 400 rows; probabilities repeat, so that there are ties."""
    draws = np.random.default_rng(3)
    users = draws.integers(0, 80, 400)
    probabilities = draws.integers(0, 21, 400) / 20
    return users, draws.random(400) < probabilities, probabilities


# --- binary heads --------------------------------------------------------------------------------------


def test_binary_metrics_are_those_of_scikit_learn(head):
    _, labels, probabilities = head
    found = binary_metrics(labels, probabilities, threshold=0.6)
    assert set(found) == set(BINARY_METRICS)
    found.pop("calibration_error")  # scikit-learn has none
    said = probabilities >= 0.6
    assert found == pytest.approx(
        {
            "roc_auc": roc_auc_score(labels, probabilities),
            "pr_auc": average_precision_score(labels, probabilities),
            "log_loss": log_loss(labels, np.clip(probabilities, 1e-7, 1 - 1e-7)),
            "brier": brier_score_loss(labels, probabilities),
            "accuracy": accuracy_score(labels, said),
            "precision": precision_score(labels, said),
            "recall": recall_score(labels, said),
            "f1": f1_score(labels, said),
        }
    )


def test_the_calibration_error_is_the_gap_between_said_and_seen_in_fifteen_groups():
    # 0.065 and 0.07 lie on the two sides of 1/15, and on one side of 1/14 and of 1/16. In the first group 0.075 are
    # expected and one is seen, in the second 0.07 and none; the third is certain, and right.
    labels, probabilities = np.array([True, False, False, True]), np.array([0.01, 0.065, 0.07, 1.0])
    found = binary_metrics(labels, probabilities)["calibration_error"]
    assert found == pytest.approx((0.925 + 0.07 + 0) / 4)

    draws = np.random.default_rng(7)
    probabilities = draws.random(500)
    labels = draws.random(500) < probabilities**2
    seen, said = observed_rates(labels, probabilities, n_bins=15)
    sizes = np.histogram(probabilities, 15, (0, 1))[0]
    assert binary_metrics(labels, probabilities)["calibration_error"] == pytest.approx(
        (sizes * np.abs(seen - said)).sum() / 500
    )


@pytest.mark.parametrize("labels", [np.ones(3, bool), np.zeros(3, bool)])
def test_areas_are_not_defined_for_one_class(labels):
    found = binary_metrics(labels, np.array([0.1, 0.5, 0.9]))
    assert np.isnan(found["roc_auc"])
    assert np.isnan(found["pr_auc"])
    assert np.isfinite(found["log_loss"])


def test_no_rows_have_no_metrics():
    found = binary_metrics(np.zeros(0, bool), np.zeros(0))
    assert set(found) == set(BINARY_METRICS)
    assert np.isnan(list(found.values())).all()


def test_certainty_that_is_wrong_costs_much_but_not_everything():
    assert 8 < binary_metrics(np.array([True, False]), np.array([0.0, 0.0]))["log_loss"] < 20


@pytest.mark.parametrize("strange", [1.2, -0.1, np.nan])
def test_what_is_no_probability_is_refused(strange):
    with pytest.raises(ValueError, match="sigmoid"):
        binary_metrics(np.array([True, False]), np.array([0.5, strange]))


def test_the_best_threshold_is_the_one_with_the_highest_f1(head):
    _, labels, probabilities = head
    best = best_threshold(labels, probabilities)
    at = {threshold: binary_metrics(labels, probabilities, threshold)["f1"] for threshold in np.unique(probabilities)}
    assert at[best] == pytest.approx(max(at.values()))


def test_a_threshold_without_positives_is_the_usual_one():
    assert best_threshold(np.zeros(3, bool), np.array([0.1, 0.2, 0.3])) == 0.5


# --- rankings ------------------------------------------------------------------------------------------


def test_a_method_that_gives_all_one_score_is_last():
    assert truth_ranks(np.zeros((2, 5)), np.array([0, 4])).tolist() == [5, 5]


def test_a_truth_that_is_no_candidate_is_a_miss_in_every_metric():
    ranks = truth_ranks(np.eye(3), np.array([-1, 1, 2]))
    found = ranking_values(ranks, ks=(1, 3))
    assert {name: values[0] for name, values in found.items()} == dict.fromkeys(found, 0.0)
    assert found["recall@1"].tolist() == [0, 1, 1]


def test_ranks_do_not_depend_on_how_rows_are_cut():
    draws = np.random.default_rng(0)
    scores, truth = draws.integers(0, 9, (50, 30)).astype(np.float32), draws.integers(0, 30, 50)
    whole = truth_ranks(scores, truth)
    assert truth_ranks(scores, truth, chunk=7).tolist() == whole.tolist()


@pytest.mark.parametrize(
    ("scores", "truth", "words"),
    [
        (np.zeros((2, 3)), np.array([0]), "truth"),
        (np.zeros((1, 3)), np.array([3]), "3 candidates"),
        (np.array([[0.0, np.nan]]), np.array([0]), "NaN"),
    ],
)
def test_scores_that_do_not_fit_are_refused(scores, truth, words):
    with pytest.raises(ValueError, match=words):
        truth_ranks(scores, truth)


def test_ndcg_of_one_truth_is_that_of_scikit_learn():
    draws = np.random.default_rng(1)
    scores, truth = draws.random((40, 12)), draws.integers(0, 12, 40)
    ours = ranking_values(truth_ranks(scores, truth), ks=(5,))["ndcg@5"].mean()
    assert ours == pytest.approx(ndcg_score(np.eye(12)[truth], scores, k=5))


def test_ranks_among_the_best_are_those_among_all():
    draws = np.random.default_rng(0)
    scores = draws.integers(0, 9, (50, 30)).astype(np.float32)  # many are level
    rows, columns = np.repeat(np.arange(50), 30), np.tile(np.arange(30), 50)
    whole = truth_ranks(scores[rows], columns)
    for k in (1, 5, 30, 99):
        found = ranks_within(scores, rows, columns, k, chunk=7)
        assert np.where(found <= k, found, 0).tolist() == np.where(whole <= k, whole, 0).tolist()


def test_ndcg_of_shares_is_that_of_scikit_learn():
    draws = np.random.default_rng(1)
    scores, shares = draws.random((40, 12)), draws.dirichlet(np.full(12, 0.3), 40)
    came = (np.repeat(np.arange(40), 12), np.tile(np.arange(12), 40), shares.ravel())
    found = distribution_values(scores, *came, k=5)["shares_ndcg@5"]
    assert found.mean() == pytest.approx(ndcg_score(shares, scores, k=5))


def test_a_row_to_which_nothing_came_has_no_value_and_no_scores_are_no_certainty():
    came = (np.array([0, 2]), np.array([1, 0]), np.ones(2))
    found = distribution_values(np.array([[0.0, 0.0], [1.0, 2.0], [3.0, 1.0]]), *came, k=1)
    for values in found.values():
        assert np.isnan(values).tolist() == [False, True, False]
    # Of two that are level neither is first; the least probability is one in ten million.
    assert found["tied_recall@1"][[0, 2]].tolist() == [0, 1]
    assert found["cross_entropy"][[0, 2]] == pytest.approx([-np.log(1e-7), -np.log(3 / 4)])


def test_lists_hit_what_came_true_and_a_repeated_key_once():
    lists = np.array([[7, 7, 9], [0, 5, 0], [4, 3, 2]])
    relevant = [np.array([7, 9]), np.array([5, 6]), np.array([], np.int64)]
    assert hits_in_lists(lists, relevant).tolist() == [[True, False, True], [False, True, False], [False] * 3]


def test_no_recommendation_is_never_a_hit():
    assert not hits_in_lists(np.array([[0, 0]]), [np.array([0])]).any()


def test_ndcg_of_several_truths_is_that_of_scikit_learn():
    draws = np.random.default_rng(2)
    relevance = draws.random((30, 15)) < 0.2
    relevance[:, 0] = True
    order = np.argsort(-draws.random((30, 15)), axis=1)
    found = list_values(np.take_along_axis(relevance, order, axis=1), relevance.sum(axis=1), ks=(10,))
    scores = np.empty((30, 15))
    np.put_along_axis(scores, order, np.tile(np.arange(15)[::-1], (30, 1)).astype(float), axis=1)
    assert found["ndcg@10"].mean() == pytest.approx(ndcg_score(relevance, scores, k=10))


def test_a_list_shorter_than_k_is_refused():
    with pytest.raises(ValueError, match="k=20"):
        list_values(np.zeros((1, 10), bool), np.ones(1), ks=(20,))


# --- how sure ------------------------------------------------------------------------------------------


def test_a_resample_weighs_rows_as_scikit_learn_does(head):
    users, labels, probabilities = head
    bootstrap = UserBootstrap(users, resamples=5, seed=1)
    found = bootstrap.binary(labels, probabilities, threshold=0.5)
    for at in range(5):
        weights = bootstrap.counts[at, bootstrap.user]
        assert found["roc_auc"][at] == pytest.approx(roc_auc_score(labels, probabilities, sample_weight=weights))
        assert found["pr_auc"][at] == pytest.approx(
            average_precision_score(labels, probabilities, sample_weight=weights)
        )
        assert found["brier"][at] == pytest.approx(brier_score_loss(labels, probabilities, sample_weight=weights))
        assert found["f1"][at] == pytest.approx(f1_score(labels, probabilities >= 0.5, sample_weight=weights))


def test_the_rows_of_a_user_are_drawn_together():
    bootstrap = UserBootstrap(np.array(["a", "a", "b", "b"]), resamples=200, seed=0)
    values = np.array([[1.0], [1.0], [0.0], [0.0]])
    # Two users: a resample holds both, or one of them twice. Rows drawn alone would also give quarters.
    assert set(bootstrap.means(values).ravel()) == {0.0, 0.5, 1.0}


def test_a_slice_is_resampled_with_the_whole():
    users = np.array(["a", "a", "b"])
    bootstrap = UserBootstrap(users, resamples=50, seed=0)
    means = bootstrap.means(np.array([[1.0], [0.0]]), rows=np.array([0, 2])).ravel()
    expected = bootstrap.counts[:, 0] / (bootstrap.counts[:, 0] + bootstrap.counts[:, 1])
    assert means.tolist() == expected.tolist()


def test_an_interval_holds_the_truth_as_often_as_it_says_if_users_are_drawn_and_not_their_rows():
    # Three hundred logs of 40 users with 6 rows each. Users differ, and the rows of one are alike; the truth is 0.
    draws = np.random.default_rng(0)
    users = np.repeat(np.arange(40), 6)
    logs = draws.normal(size=(40, 300))[users] + 0.3 * draws.normal(size=(240, 300))

    def held(bootstrap: UserBootstrap) -> float:
        bounds = np.array([interval(samples) for samples in bootstrap.means(logs).T])
        return float(((bounds[:, 0] <= 0) & (bounds[:, 1] >= 0)).mean())

    assert 0.91 < held(UserBootstrap(users, 400)) < 0.98
    assert held(UserBootstrap(np.arange(240), 400)) < 0.7, "six times as many rows say hardly more"


def test_the_interval_of_the_calibration_error_holds_the_truth_more_often_without_the_bias_of_chance():
    # 200 logs of 60 users with 5 rows, the mood of a user being the same in all of them. What is said is off by 0.1 in
    # one group and right in two.
    draws = np.random.default_rng(5)
    users = np.repeat(np.arange(60), 5)
    bootstrap = UserBootstrap(users, 200, seed=1)
    said = np.tile([0.3, 0.5, 0.7, 0.3, 0.5], 60)
    truth = np.where(said == 0.3, said + 0.1, said)
    expected = 0.1 * 2 / 5
    plain, corrected, values = [], [], []
    for _ in range(200):
        mood = draws.uniform(-0.1, 0.1, 60)[users]
        gaps = calibration_gaps(draws.random(300) < truth + mood, said)
        value = np.abs(gaps.sum(axis=0)).sum() / 300
        samples = np.abs(bootstrap.means(gaps)).sum(axis=1)
        better, shifted = without_bias(value, samples)
        values.append([value, better])
        for bounds, found in ((plain, samples), (corrected, shifted)):
            low, high = interval(found)
            bounds.append(low <= expected <= high)
    of_plain, of_corrected = np.mean(values, axis=0) - expected
    assert abs(of_corrected) < 0.7 * of_plain
    # In two groups nothing is off, where more than half of the bias stays: so not quite 95 %.
    assert np.mean(plain) < 0.75
    assert np.mean(corrected) > 0.84


def test_an_interval_leaves_out_a_fortieth_on_each_side():
    assert interval(np.arange(1001.0)) == pytest.approx((25.0, 975.0))


def test_a_paired_difference_is_surer_than_its_parts(head):
    users, labels, probabilities = head
    bootstrap = UserBootstrap(users, resamples=300)
    better = np.clip(probabilities + 0.05 * (2 * labels - 1), 0, 1)
    first, _ = bootstrap.areas(labels, better)
    second, _ = bootstrap.areas(labels, probabilities)
    low, high = interval(first - second)
    assert 0 < low < high
    assert high - low < np.subtract(*interval(first)[::-1])


def test_the_same_seed_gives_the_same_resamples():
    users = np.arange(20) % 7
    assert (UserBootstrap(users, 10, seed=4).counts == UserBootstrap(users, 10, seed=4).counts).all()
    assert (UserBootstrap(users, 10, seed=4).counts != UserBootstrap(users, 10, seed=5).counts).any()


def test_resamples_without_the_metric_are_left_out_of_the_interval():
    assert interval(np.array([np.nan, 1.0, 1.0])) == (1.0, 1.0)
    assert np.isnan(interval(np.array([np.nan]))).all()


def test_in_a_resample_that_holds_no_row_of_a_slice_nothing_is_defined():
    bootstrap = UserBootstrap(np.array(["a", "b"]), 50)
    found = bootstrap.binary(np.array([True]), np.array([0.9]), rows=np.array([0]))
    without = bootstrap.counts[:, 0] == 0
    assert without.any()
    assert set(found) == set(BINARY_METRICS)
    assert all(np.isnan(values[without]).all() for values in found.values())
    assert (found["f1"][~without] == 1).all()


def test_areas_of_a_slice_without_rows_are_not_defined():
    roc, precision = UserBootstrap(np.arange(3), 4).areas(np.zeros(0, bool), np.zeros(0), np.zeros(0, np.int64))
    assert np.isnan([*roc, *precision]).all()
