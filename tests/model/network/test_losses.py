"""Sampled softmax against the full one, and which labels take part in a loss."""

import numpy as np
import pytest
from keras import ops

from model.data.features import PROFILE_VALUES
from model.network.losses import FinetuneTask, PretrainTask, draw, log_inclusion, sampled_softmax
from model.network.network import BINARY, Finetuned, Pretrained, build
from tests.model.network.test_network import CONFIG, batch

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


def test_the_right_logits_are_left_alone_on_average_and_only_with_the_correction():
    """At the logits of the true distribution, the expected gradient over labels and draws is zero."""
    random = np.random.default_rng(0)
    logits = random.normal(0, 1, SIZE).astype(np.float32)
    p, rounds = softmax(logits), 1500
    log_q = np.asarray(log_inclusion(np.arange(SIZE), 8, SIZE))
    corrected, as_they_are = np.zeros(SIZE), np.zeros(SIZE)
    for seed in range(rounds):
        drawn, first = (np.asarray(part) for part in draw(seed, 8, SIZE))
        label = random.choice(SIZE, p=p / p.sum())
        candidates = np.unique(np.append(drawn[first], label))
        corrected[candidates] += softmax(logits[candidates] - log_q[candidates])
        as_they_are[candidates] += softmax(logits[candidates])
        for gradient in (corrected, as_they_are):
            gradient[label] -= 1
    assert np.abs(corrected / rounds).max() < 0.03
    assert np.abs(as_they_are / rounds).max() > 0.03


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
        **dict.fromkeys(BINARY, np.full(4, -1, np.float32)),
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


def test_the_loss_is_that_of_the_next_category_and_a_part_of_the_others():
    network, now = build(Finetuned, CONFIG), labelled()
    out = {name: np.asarray(value, np.float64) for name, value in network(now).items()}
    category = -np.log(softmax(out["category"]))
    expected = {"next_category": category[0, 3] + category[1, 5]}
    for name in BINARY:
        known = (now[name] >= 0) & (now["weight"] > 0)
        q = 1 / (1 + np.exp(-out[name][known]))
        expected[name] = -(now[name][known] * np.log(q) + (1 - now[name][known]) * np.log(1 - q)).sum()
    # When everything is drawn, all items are candidates: those that come anew, and those of the events again.
    table = np.asarray(network.encoder.embed.fields["item"].embeddings, np.float64)
    anew, again = np.exp(out["item"] @ table.T + np.asarray(network.item_bias, np.float64)), out["again"]
    everything = anew[:, 1:].sum(axis=1) + again.sum(axis=1)
    # The first user: 3, by the vocabulary or again from place 0; 9; and one that is unknown, again from place 2.
    first = -np.log(np.array([anew[0, 3] + again[0, 0], anew[0, 9], again[0, 2]]) / everything[0]).mean()
    expected["next_item"] = first - np.log(anew[1, 1] / everything[1])

    total, _, metrics = values(FinetuneTask(network, negatives=20_000).loss(now, training=False))
    assert {name: metrics[f"{name}_loss"][0] for name in expected} == pytest.approx(expected, rel=1e-3)
    # Users' items are noise beside their category, and the binary answers are several.
    weights = {"next_category": 1, "next_item": 0.1, **dict.fromkeys(BINARY, 0.5)}
    assert total == pytest.approx(sum(weights[name] * expected[name] for name in expected), rel=1e-3)
    # Scoring offers the same weights: 5 is the first index of a known item here, and what is below comes again or not.
    offered, place = (np.asarray(part) for part in network.best_items(network(now), now, first=5, top=35 + 7))
    assert offered.sum(axis=1) == pytest.approx([1] * 4, rel=1e-4)
    nine = offered[0][place[0] == 9 - 5]
    assert nine * (everything - anew[:, 1:5].sum(axis=1))[0] == pytest.approx([anew[0, 9]], rel=1e-3)


def test_recall_counts_a_label_with_at_most_four_categories_before_it():
    network = build(Finetuned, CONFIG)
    # Nothing but the bias speaks: category 0, which is none, before 1, before 2, and so on.
    network.encoder.embed.fields["category"].embeddings.assign(np.zeros((12, 16)))
    network.category_bias.assign(-np.arange(12.0))
    now = {
        **labelled(),
        "profile": np.zeros((4, 5), np.int32),
        "profile_values": np.zeros((4, 5, PROFILE_VALUES), "f4"),
    }
    # 1 to 4 stand before 5, and 5 too before 6; the third user has no label, the fourth is filling.
    now["next_category"] = np.array([5, 6, 0, 1], np.int32)
    now["migrated"] = np.array([0, 1, 1, 1], np.float32)
    _, _, metrics = values(FinetuneTask(network, negatives=4).loss(now, training=False))
    assert metrics["recall_at_5"] == (1, 2)
    assert metrics["recall_at_5_migrated"] == (0, 1)
    now["migrated"] = np.array([1, 0, 1, 1], np.float32)
    _, _, metrics = values(FinetuneTask(network, negatives=4).loss(now, training=False))
    assert metrics["recall_at_5_migrated"] == (1, 1)


def test_pretraining_adds_up_the_item_and_the_category_of_each_next_event():
    network = build(Pretrained, CONFIG)
    network.item_bias.assign(np.linspace(0, 2, CONFIG.items))
    now = {**batch(), "weight": np.array([1, 1, 0, 1], np.float32)}
    # A search has no item, and an item may have no category. Of 7 and 4 events, 6 and 3 have one before them; the third
    # user, with one event, and the fourth, with none, have nothing to say.
    now["item"][0, 2], now["category"][1, 3] = 0, 0
    next_events = [(0, place) for place in range(1, 7)] + [(1, place) for place in range(1, 4)]
    out = {name: np.asarray(value, np.float64) for name, value in network(now).items()}
    table = np.asarray(network.encoder.embed.fields["item"].embeddings, np.float64)
    of_item = -np.log(softmax(out["item"] @ table.T + np.asarray(network.item_bias, np.float64)))
    of_category = -np.log(softmax(out["category"]))
    item = sum(of_item[user, at - 1, now["item"][user, at]] for user, at in next_events if (user, at) != (0, 2))
    category = sum(
        of_category[user, at - 1, now["category"][user, at]] for user, at in next_events if (user, at) != (1, 3)
    )

    total, weight, metrics = values(PretrainTask(network, negatives=20_000).loss(now, training=False))
    assert weight == 9
    assert metrics["next_item_loss"] == pytest.approx((item, 8), rel=1e-3)
    assert metrics["next_category_loss"] == pytest.approx((category, 8), rel=1e-3)
    assert total == pytest.approx(item + category, rel=1e-3)
    # A row that only fills the batch takes no part.
    now["weight"][1] = 0
    assert values(PretrainTask(network, negatives=20_000).loss(now, training=False))[1] == 6


def test_draws_differ_from_step_to_step_in_training_alone():
    task = PretrainTask(build(Pretrained, CONFIG), negatives=4)
    now = {**batch(), "weight": np.ones(4, np.float32)}
    assert values(task.loss(now, training=False)) == values(task.loss(now, training=False))
    before = ops.convert_to_numpy(task.model.draws.state)
    task.loss(now, training=True)
    assert (ops.convert_to_numpy(task.model.draws.state) != before).any()
