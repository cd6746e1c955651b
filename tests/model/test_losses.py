"""Sampled softmax against the full one, and which labels take part in a loss."""

import numpy as np
import pytest
from keras import ops

from model.losses import FinetuneTask, PretrainTask, draw, log_inclusion, sampled_softmax
from model.network import BINARY, Finetuned, Pretrained, build
from tests.model.test_network import CONFIG, batch

pytestmark = pytest.mark.tf

SIZE = 30


def softmax(logits):
    e = np.exp(logits - logits.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_what_is_drawn_is_a_set_with_the_probabilities_that_are_corrected_for():
    seen = np.zeros(SIZE)
    for seed in range(400):
        drawn, first = (np.asarray(part) for part in draw(seed, 12, SIZE))
        assert len(set(drawn[first])) == first.sum() == len(set(drawn))
        seen[drawn[first]] += 1
    expected = np.exp(np.asarray(log_inclusion(np.arange(SIZE), 12, SIZE)))
    np.testing.assert_allclose(seen / 400, expected, atol=0.09)  # 3.5 standard errors


def test_when_everything_is_drawn_it_is_the_full_softmax():
    logits = np.random.default_rng(0).normal(0, 1.5, SIZE).astype(np.float32)
    negatives = draw(3, 5_000, SIZE)
    assert len(set(np.asarray(negatives[0]))) == SIZE
    for label in (0, 4, SIZE - 1):
        loss = sampled_softmax(
            logits[[label]], np.array([label]), logits[np.asarray(negatives[0])][None], negatives, SIZE
        )
        assert float(np.asarray(loss)[0]) == pytest.approx(-np.log(softmax(logits)[label]), abs=1e-3)


@pytest.mark.parametrize("corrected", [True, False])
def test_the_right_logits_are_left_alone_on_average_and_only_with_the_correction(corrected):
    """At the logits of the true distribution, the expected gradient over labels and draws is zero."""
    random = np.random.default_rng(0)
    logits = random.normal(0, 1, SIZE).astype(np.float32)
    p, gradient, rounds = softmax(logits), np.zeros(SIZE), 1500
    for seed in range(rounds):
        drawn, first = (np.asarray(part) for part in draw(seed, 8, SIZE))
        label = random.choice(SIZE, p=p / p.sum())
        candidates = np.unique(np.append(drawn[first], label))
        q = np.asarray(log_inclusion(candidates, 8, SIZE)) if corrected else 0
        gradient[candidates] += softmax(logits[candidates] - q)
        gradient[label] -= 1
    assert (np.abs(gradient / rounds).max() < 0.03) == corrected


def test_the_gradient_is_that_of_the_candidates():
    """The hand-written gradient of the test above is the one of the function."""
    import tensorflow as tf

    logits = tf.Variable(np.random.default_rng(0).normal(0, 1, SIZE).astype(np.float32))
    negatives = draw(5, 8, SIZE)
    with tf.GradientTape() as tape:
        sampled = tf.gather(logits, negatives[0])[None]
        loss = sampled_softmax(logits[3:4], np.array([3]), sampled, negatives, SIZE)[0]
    found = np.asarray(tf.convert_to_tensor(tape.gradient(loss, logits)))
    candidates = np.unique(np.append(np.asarray(negatives[0]), 3))
    expected = np.zeros(SIZE)
    expected[candidates] = softmax(logits.numpy()[candidates] - np.asarray(log_inclusion(candidates, 8, SIZE)))
    expected[3] -= 1
    np.testing.assert_allclose(found, expected, atol=1e-5)


def labelled():
    return {
        **batch(),
        "next_category": np.array([3, 5, 0, 2], np.int32),
        "next_items": np.array([[3, 9, 0], [1, 0, 0], [0, 0, 0], [4, 5, 6]], np.int32),
        "next_slots": np.array([[0, -1, 2], [-1, -1, -1], [-1, -1, -1], [-1, -1, -1]], np.int32),
        "migrated": np.array([1, 0, -1, -1], np.float32),
        "purchased": np.array([1, 0, 0, 1], np.float32),
        "churned": np.array([0, 0, 1, 0], np.float32),
        "weight": np.array([1, 1, 1, 0], np.float32),
    }


def values(sums):
    total, weight, metrics = sums
    return float(total), float(weight), {name: (float(a), float(b)) for name, (a, b) in metrics.items()}


def test_unknown_labels_and_filled_up_rows_take_no_part():
    task = FinetuneTask(build(Finetuned, CONFIG), negatives=16)
    total, weight, metrics = values(task.loss(labelled(), training=False))
    assert weight == 3
    counts = {name: count for name, (_, count) in metrics.items()}
    assert counts["next_category_loss"] == 2  # the third has none, the fourth is filling
    assert counts["next_item_loss"] == 2
    assert counts["migrated_loss"] == 2
    assert counts["churned_loss"] == 3
    changed = labelled()
    changed["next_category"][3], changed["churned"][3], changed["next_items"][3] = 7, 1, [9, 9, 9]
    assert values(task.loss(changed, training=False))[0] == pytest.approx(total, rel=1e-6)


def test_the_losses_are_those_of_the_outputs():
    network = build(Finetuned, CONFIG)
    task, now = FinetuneTask(network, negatives=16), labelled()
    out = {name: np.asarray(value, np.float64) for name, value in network(now).items()}
    _, _, metrics = values(task.loss(now, training=False))
    p = softmax(out["category"])
    assert metrics["next_category_loss"][0] == pytest.approx(-np.log(p[0, 3]) - np.log(p[1, 5]), rel=1e-4)
    for name in BINARY:
        known = (now[name] >= 0) & (now["weight"] > 0)
        q = 1 / (1 + np.exp(-out[name][known]))
        expected = -(now[name][known] * np.log(q) + (1 - now[name][known]) * np.log(1 - q)).sum()
        assert metrics[f"{name}_loss"][0] == pytest.approx(expected, rel=1e-4)


def test_the_loss_of_the_next_items_is_that_of_their_logits_when_everything_is_drawn():
    network, now = build(Finetuned, CONFIG), labelled()
    out = network(now)
    table = np.asarray(network.encoder.embed.fields["item"].embeddings, np.float64)
    anew = np.exp(np.asarray(out["item"], np.float64) @ table.T + np.asarray(network.item_bias, np.float64))
    again = np.asarray(out["again"], np.float64)
    total = anew[:, 1:].sum(axis=1) + again.sum(axis=1)
    # The first user: 3, by the vocabulary or again from place 0; 9; and one that is unknown, again from place 2.
    first = -np.log(np.array([anew[0, 3] + again[0, 0], anew[0, 9], again[0, 2]]) / total[0]).mean()
    second = -np.log(anew[1, 1] / total[1])
    _, _, metrics = values(FinetuneTask(network, negatives=20_000).loss(now, training=False))
    assert metrics["next_item_loss"][0] == pytest.approx(first + second, rel=1e-3)
    # Scoring offers the same weights: 5 is the first index of a known item here, and what is below comes again or not.
    offered = np.exp(np.asarray(network.item_logits(out, now, first=5), np.float64))
    assert offered.sum(axis=1) == pytest.approx(total - anew[:, 1:5].sum(axis=1), rel=1e-4)


def test_pretraining_counts_each_position_that_has_a_next_event():
    task = PretrainTask(build(Pretrained, CONFIG), negatives=16)
    now = {**batch(), "weight": np.array([1, 1, 1, 1], np.float32)}
    _, weight, metrics = values(task.loss(now, training=False))
    assert weight == 6 + 3  # of 7 and 4 events; one event and none have no next one
    assert metrics["next_item_loss"][1] == 9
    logits = np.asarray(task.model(now)["category"], np.float64)
    expected = -sum(np.log(softmax(logits[0, t])[now["category"][0, t + 1]]) for t in range(6))
    expected -= sum(np.log(softmax(logits[1, t])[now["category"][1, t + 1]]) for t in range(3))
    assert metrics["next_category_loss"][0] == pytest.approx(expected, rel=1e-4)


def test_draws_differ_from_step_to_step_in_training_alone():
    task = PretrainTask(build(Pretrained, CONFIG), negatives=4)
    now = {**batch(), "weight": np.ones(4, np.float32)}
    assert values(task.loss(now, training=False)) == values(task.loss(now, training=False))
    before = ops.convert_to_numpy(task.model.draws.state)
    task.loss(now, training=True)
    assert (ops.convert_to_numpy(task.model.draws.state) != before).any()
