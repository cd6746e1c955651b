"""The network: nobody sees the future or padding, what is saved is what is loaded, every backend says the same."""

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from zlib import crc32

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.linear_model import LogisticRegression

from lake.errors import SettingsInvalid
from model.data.features import PROFILE_VALUES, SCALAR_VALUES
from model.network.layers import Block, EventEmbedding, Head, PairScore, ProfileReader, add_at, last_real
from model.network.network import (
    BINARY,
    PRESETS,
    REPEAT_RATE_SCALE,
    Encoder,
    Finetuned,
    NetworkConfig,
    Pretrained,
    adapt,
    as_config,
    as_noted,
    build,
    grow,
    network_config,
    start_from,
    start_with_scalars,
)
from tests.model.network.all_items import item_logits

pytestmark = pytest.mark.tf

REPO = Path(__file__).resolve().parents[3]

CONFIG = NetworkConfig(
    items=40, categories=12, events=7, profile=5, width=16, layers=2, heads=2, hidden=(24,), next_items=3
)
LENGTHS = (7, 4, 1, 0)


def batch(seed=0):
    """Make four users with 7, 4, 1 and no events."""
    random = np.random.default_rng(seed)
    real = np.arange(CONFIG.events) < np.array(LENGTHS)[:, None]

    def draw(high):
        return np.where(real, random.integers(1, high, real.shape), 0).astype(np.int32)

    profile = np.where(np.arange(CONFIG.profile) < [[5], [3], [1], [0]], random.integers(1, 12, (4, 5)), 0)
    return {
        "item": draw(40),
        "category": draw(12),
        "behavior": draw(6),
        "gap": draw(50),
        # An event in three is of the item of the first one.
        "slot": np.where(np.arange(CONFIG.events) % 3 == 0, 0, np.arange(CONFIG.events) * real).astype(np.int32),
        "age": draw(50),
        "profile": profile.astype(np.int32),
        "profile_values": (random.random((4, 5, PROFILE_VALUES)) * (profile > 0)[..., None]).astype(np.float32),
        "scalars": random.random((4, SCALAR_VALUES)).astype(np.float32),
    }


def awake(kind, config=CONFIG):
    """Return a network whose weights are all random: fresh ones hold zeros, in which a mistake could hide.

    They are as large as training makes them. Scalars are measured against a real mean and deviation: divided by a scale
    that is about 0, they would be thousands. Weights of 1e22 would come of steps of ten, `REPEAT_RATE_SCALE`, in an
    exponent.
    """
    network = build(kind, config)
    for variable in network.trainable_variables:
        # By its name without that of the network: one more head leaves all other weights as they were.
        random = np.random.default_rng(crc32(variable.path.partition("/")[2].encode()))
        slow = variable.path.endswith(("/age/embeddings", "/behavior/embeddings")) and "embed/" not in variable.path
        centre = 1.0 if variable.path.endswith("/gamma") else 0.0
        variable.assign(random.normal(centre, 0.3 / REPEAT_RATE_SCALE if slow else 0.3, variable.shape))
    if kind is Finetuned:
        random = np.random.default_rng(1)
        network.scalar_mean.assign(random.normal(0.5, 0.1, SCALAR_VALUES))
        network.scalar_scale.assign(random.uniform(0.2, 0.6, SCALAR_VALUES))
    return network


def as_arrays(out):
    return {name: np.asarray(value) for name, value in out.items()}


def test_no_event_sees_a_later_one():
    encoder, now = awake(Encoder), batch()
    changed = {name: value.copy() for name, value in now.items()}
    for name in ("item", "category", "behavior", "gap"):
        changed[name][:, 4:] = np.where(now[name][:, 4:] > 0, 1 + now[name][:, 4:] % 3, 0)
    before, after = np.asarray(encoder(now)), np.asarray(encoder(changed))
    np.testing.assert_allclose(before[:, :4], after[:, :4], atol=1e-6)
    assert np.abs(before[0, 4:] - after[0, 4:]).max() > 1e-3


def test_padding_changes_no_real_event():
    encoder, now = awake(Encoder), batch()
    garbage = {name: value.copy() for name, value in now.items()}
    for name in ("item", "category", "gap"):  # the behavior says what is padding
        garbage[name][now["behavior"] == 0] = 3
    before, after = np.asarray(encoder(now)), np.asarray(encoder(garbage))
    for user, length in enumerate(LENGTHS):
        np.testing.assert_allclose(before[user, :length], after[user, :length], atol=1e-6)


def test_padding_changes_no_prediction():
    network, now = awake(Finetuned), batch()
    garbage = {name: value.copy() for name, value in now.items()}
    for name in ("item", "category", "gap", "age"):
        garbage[name][now["behavior"] == 0] = 3
    garbage["profile_values"][now["profile"] == 0] = 9.0
    before, after = as_arrays(network(now)), as_arrays(network(garbage))
    # Padding of the profile is added to the logit of padding itself, which nobody reads.
    np.testing.assert_allclose(before["category"][:, 1:], after["category"][:, 1:], atol=1e-5)
    for name in ("item", "again", *BINARY):
        np.testing.assert_allclose(before[name], after[name], atol=1e-5)


def test_the_vector_of_a_user_is_that_of_the_last_real_event():
    values = np.arange(4 * 7 * 2, dtype=np.float32).reshape(4, 7, 2)
    found = np.asarray(last_real(values, batch()["behavior"]))
    np.testing.assert_array_equal(found[:3], [values[0, 6], values[1, 3], values[2, 0]])
    np.testing.assert_array_equal(found[3], [0, 0])  # no event, no vector


@pytest.mark.parametrize("kind", ["float32", "mixed_bfloat16"])
def test_the_state_at_chosen_places_is_that_of_the_whole_sequence(kind):
    encoder, now = awake(Encoder, replace(CONFIG, policy=kind)), batch()
    whole = np.asarray(encoder(now)).astype(np.float32)
    places = np.array([[6, 0, 3], [3, 3, 1], [0, 0, 0], [0, 1, 2]], np.int32)
    # bfloat16 has 8 bits: sums in another order differ in the last ones.
    near = {"atol": 1e-5 if kind == "float32" else 0.1}
    at = np.asarray(encoder(now, places=places)).astype(np.float32)
    np.testing.assert_allclose(at, np.take_along_axis(whole, places[..., None], axis=1), **near)
    last = np.asarray(encoder.last(now)).astype(np.float32)
    np.testing.assert_allclose(last[:3], [whole[0, 6], whole[1, 3], whole[2, 0]], **near)
    np.testing.assert_array_equal(last[3], np.zeros(16))  # no event, no state


@pytest.mark.parametrize("places", [None, [[6, 0], [3, 5], [0, 1], [2, 2]]], ids=["at all places", "at some"])
def test_a_block_attends_as_the_layer_of_keras_whose_weights_it_has(places):
    block = Block(16, 2, dropout=0.5)
    block.build((4, 7, 16))
    random = np.random.default_rng(8)
    block.set_weights([random.normal(0, 0.4, weight.shape) for weight in block.get_weights()])
    x, pull = (tf.constant(random.normal(size=(4, k, 16)), tf.float32) for k in (7, 7 if places is None else 2))
    at = None if places is None else np.array(places, np.int32)

    def of_keras():
        y, rows = block.attend_norm(x), x
        if at is None:
            y, attention = block.attend(y, y, use_causal_mask=True, return_attention_scores=True)
        else:
            seen = np.arange(7) <= at[..., None]
            rows, asking = (tf.gather(values, at, batch_dims=1) for values in (x, y))
            y, attention = block.attend(asking, y, attention_mask=seen, return_attention_scores=True)
        rows = rows + y
        return rows + block.narrow(block.widen(block.forward_norm(rows))), attention

    found = []
    for call in (of_keras, lambda: block(x, places=at, return_attention=True)):
        weights = [weight.value for weight in block.trainable_weights]
        with tf.GradientTape() as tape:
            out, attention = call()
            total = tf.reduce_sum(out * pull)
        found.append([out, attention, *tape.gradient(total, weights)])
    assert len(found[0]) == 2 + len(block.get_weights())
    for theirs, ours in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-5)


def test_what_the_last_state_teaches_is_what_the_whole_sequence_teaches():
    encoder, now = awake(Encoder), batch()
    pull = np.random.default_rng(2).normal(size=(4, 16)).astype(np.float32)

    def taught(state):
        with tf.GradientTape() as tape:
            total = keras.ops.sum(state() * pull)
        found = tape.gradient(total, [variable.value for variable in encoder.trainable_variables])
        return [np.asarray(tf.convert_to_tensor(gradient)) for gradient in found]

    whole = taught(lambda: last_real(encoder(now), now["behavior"]))
    for one, other in zip(taught(lambda: encoder.last(now)), whole, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)


def test_a_known_last_state_stands_in_for_the_encoder():
    network, now = awake(Finetuned), batch()
    said, other = as_arrays(network(now)), as_arrays(network(now, last=np.ones((4, 16), np.float32)))
    again = as_arrays(network(now, last=network.encoder.last(now)))
    for name, values in said.items():
        np.testing.assert_array_equal(again[name], values)
    assert np.abs(said["category"] - other["category"]).max() > 1e-3


def ranked(network, now, first, top):
    """Return the `top` best items of all, from the logits of all of them: probabilities and places."""
    logits = np.asarray(item_logits(network, network(now), now, first), np.float64)
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    place = np.argsort(-logits, axis=1, kind="stable")[:, :top]
    return np.take_along_axis(weights / weights.sum(axis=1, keepdims=True), place, axis=1), place


# All users at once, or two; a group of all items, of a few, or of one.
@pytest.mark.parametrize(("users", "group"), [(1 << 20, 64), (2, 4), (2, 1)])
@pytest.mark.parametrize("top", [1, 6, 42])
@pytest.mark.parametrize("ties", [False, True], ids=["", "of items with one logit the first in the vocabulary"])
def test_the_best_items_are_those_of_all(monkeypatch, users, group, top, ties):
    monkeypatch.setattr("model.network.network.LEAST_USERS", users)
    monkeypatch.setattr("model.network.network.LOGITS_AT_ONCE", 1)
    monkeypatch.setattr("model.network.network.GROUP", group)
    network, now = awake(Finetuned), batch()
    # The first user's items are known ones and two that are not; all of them may come again.
    now["item"][0] = [30, 31, 2, 33, 34, 3, 36]
    now["slot"][0] = np.arange(7)
    if ties:
        network.encoder.embed.fields["item"].embeddings.assign(np.zeros((40, 16)))
        network.item_bias.assign(np.arange(40) // 9)
    expected, places = ranked(network, now, 5, top)
    found, place = (np.asarray(part) for part in network.best_items(network(now), now, 5, top))
    real = expected > 1e-12  # the order of those that are impossible says nothing
    np.testing.assert_array_equal(place[real], places[real])
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=1e-9)


def test_a_vocabulary_without_items_still_ranks_what_comes_again():
    network, now = awake(Finetuned), batch()
    expected, places = ranked(network, now, 40, 7)
    found, place = (np.asarray(part) for part in network.best_items(network(now), now, 40, 7))
    real = (expected > 1e-12) & (found > 0)
    np.testing.assert_array_equal(place[real], places[real])
    np.testing.assert_allclose(found[:3], expected[:3], rtol=2e-4, atol=1e-9)
    assert found[3].tolist() == [0] * 7


def test_equal_indices_add_up_in_their_own_row_alone():
    logits = np.zeros((2, 4), np.float32)
    found = add_at(logits, np.array([[1, 1, 3], [0, 2, 2]], np.int32), np.array([[1, 2, 4], [8, 16, 32]], np.float32))
    np.testing.assert_array_equal(np.asarray(found), [[0, 3, 0, 4], [8, 0, 48, 0]])


def test_an_item_comes_again_by_the_age_and_the_behavior_of_its_events():
    network = build(Finetuned, CONFIG)
    network.age.embeddings.assign(np.linspace(0, -0.49, 50)[:, None])  # 0.01 less for each bucket of age
    network.behavior.embeddings.assign(np.linspace(0, 0.1, 6)[:, None])  # 0.02 more for each behavior
    now = {name: np.zeros_like(value[:1]) for name, value in batch().items()}
    # An item viewed twice, a search, which has no item, and an item bought; then padding.
    for name, values in {
        "item": (7, 0, 7, 9),
        "behavior": (1, 2, 1, 5),
        "age": (30, 20, 10, 5),
        "slot": (0, 1, 0, 3),
    }.items():
        now[name][0, :4] = values
    weights = np.asarray(network(now)["again"])[0]
    # A hundredth is a tenth of an exponent, and all begin with e^-4.
    twice = np.exp(10 * (0.02 - 0.30) - 4) + np.exp(10 * (0.02 - 0.10) - 4)
    np.testing.assert_allclose(weights, [twice, 0, 0, np.exp(10 * (0.10 - 0.05) - 4), 0, 0, 0], rtol=1e-5)


def test_a_category_comes_again_by_its_long_term_share_beside_what_is_popular():
    network = build(Finetuned, CONFIG)
    network.encoder.embed.fields["category"].embeddings.assign(np.zeros((12, 16)))
    network.pair_score.score.kernel.assign(np.zeros((16, 1)))
    popular = np.log(np.arange(1, 13) / 78)
    network.category_bias.assign(popular)
    now = {name: np.zeros_like(value[:1]) for name, value in batch().items()}
    now["profile"][0, :2] = 3, 5
    now["profile_values"][0, :3, -1] = 0.6, 0.8, 0.9  # roots of shares; the last one is of padding
    weights = np.exp(np.asarray(network(now)["category"], np.float64)[0])
    expected = np.arange(1, 13) / 78
    expected[[3, 5]] += 0.36, 0.64
    np.testing.assert_allclose(weights, expected, rtol=1e-5)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_each_speed_adds_its_part_of_what_comes_again_times_its_weight(policy):
    # Of counts no more is lost where layers compute in 8 bits.
    network = build(Finetuned, replace(CONFIG, habits=(2.0, 3.0, 5.0, 7.0), policy=policy))
    network.encoder.embed.fields["category"].embeddings.assign(np.zeros((12, 16)))
    network.pair_score.score.kernel.assign(np.zeros((16, 1)))
    now = {name: np.zeros_like(value[:1]) for name, value in batch().items()}
    now["profile"][0, :3] = 3, 5, 7
    # Of three categories, and of padding that no one looks at: events in all, of the lookback, of the week, and shares.
    for place, events in ((0, (12, 4, 2, 9)), (2, (1, 3, 0, 9)), (3, (0, 2, 0, 9))):
        now["profile_values"][0, :4, place] = np.log1p(events)
    now["profile_values"][0, :4, -1] = 0.6, 0.4, 0.2, 0.9  # roots
    expected = np.ones(12)  # with no bias, each new one weighs as much
    expected[3] += 2 * 12 / 18 + 3 * 0.36 + 5 * 1 / 4
    expected[5] += 2 * 4 / 18 + 3 * 0.16 + 5 * 3 / 4 + 7
    expected[7] += 2 * 2 / 18 + 3 * 0.04
    np.testing.assert_allclose(np.exp(np.asarray(network(now)["category"])[0]), expected, rtol=1e-5)


def test_habits_change_what_comes_again_and_no_other_answer():
    now, network = batch(), awake(Finetuned)
    other = build(Finetuned, replace(CONFIG, habits=(2.0, 3.0, 5.0, 7.0)))
    other.set_weights(network.get_weights())
    before, after = as_arrays(network(now)), as_arrays(other(now))
    assert np.abs(before["category"] - after["category"])[:3].max() > 0.1
    for name in set(before) - {"category"}:
        np.testing.assert_array_equal(before[name], after[name], err_msg=name)


@pytest.mark.filterwarnings("ignore:You are using a softmax over axis")  # there is one event to attend to
def test_a_block_without_places_or_users_and_a_sequence_of_one_event_have_shapes():
    block = Block(8, 2, 0.0)
    x = np.ones((3, 4, 8), "f4")
    assert block(x, places=np.zeros((3, 0), "i4")).shape == (3, 0, 8)
    assert block(x[:0]).shape == (0, 4, 8)
    assert block(x[:0], places=np.zeros((0, 2), "i4")).shape == (0, 2, 8)
    # The first event has nothing before it.
    one = {name: value[:, :1] if value.shape[1:2] == (7,) else value for name, value in batch().items()}
    assert np.asarray(awake(Pretrained).surprise(one, 3)).tolist() == [0, 0, 0, 0]


def test_a_user_unlike_any_in_training_is_answered_in_numbers():
    # As money in a shop that had no purchases: a deviation was taken as a hundredth, and one number is 460 of them now.
    network, unlike = awake(Finetuned), np.concatenate([np.eye(SCALAR_VALUES), -np.eye(SCALAR_VALUES)])
    network.scalar_scale.assign(np.full(SCALAR_VALUES, 0.01))
    now = {name: np.repeat(value[:1], len(unlike), axis=0) for name, value in batch().items()}
    now["scalars"] = (np.asarray(network.scalar_mean) + 4.6 * unlike).astype(np.float32)
    out = as_arrays(network(now))
    assert {name for name, value in out.items() if not np.isfinite(value).all()} == set()
    assert np.isfinite(np.asarray(network.best_items(out, now, first=5, top=20)[0])).all()
    assert out["again"].max() > 1e20, "without a bound it would be no number"
    assert out["category"].max() > 40


def test_the_profile_is_read_as_the_mean_of_its_categories_by_share():
    random = np.random.default_rng(0)
    embedded, values = random.normal(size=(1, 3, 8)).astype("f4"), random.random((1, 3, PROFILE_VALUES)).astype("f4")
    values[0, :, -1] = 0.6, 0.8, 0.9  # roots; the third is padding
    vectors, mean = (np.asarray(part) for part in ProfileReader(8)(embedded, values, np.array([[1, 1, 0]], "f4")))
    np.testing.assert_allclose(mean, 0.36 * vectors[:, 0] + 0.64 * vectors[:, 1], rtol=1e-4, atol=1e-6)
    # Of a user without any long-term interest there is no mean.
    nothing = np.asarray(ProfileReader(8)(embedded, values, np.zeros((1, 3), "f4"))[1])
    np.testing.assert_array_equal(nothing, np.zeros((1, 8)))


def test_attention_is_a_distribution_over_the_real_events():
    weights = np.asarray(awake(Finetuned).encoder.attention(batch()))
    np.testing.assert_allclose(weights.sum(axis=1), [1, 1, 1, 0], atol=1e-5)
    assert (weights[1, 4:] < 1e-6).all()


def test_surprise_counts_the_latest_events_alone():
    network, now = awake(Pretrained), batch()
    logits = np.asarray(network(now)["category"], np.float64)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    expected = [
        -np.mean([log_p[user, t - 1, now["category"][user, t]] for t in range(max(1, length - 3), length)])
        if length > 1
        else 0.0
        for user, length in enumerate(LENGTHS)
    ]
    np.testing.assert_allclose(np.asarray(network.surprise(now, 3)), expected, rtol=1e-4)


@pytest.mark.parametrize("kind", [Encoder, Pretrained, Finetuned])
def test_a_network_comes_back_from_its_config_and_weights(kind, tmp_path):
    network = awake(kind)
    network.save_weights(tmp_path / "network.weights.h5")
    again = kind.from_config(json.loads(json.dumps(network.get_config())))
    again(batch())
    again.load_weights(tmp_path / "network.weights.h5")
    before, after = network(batch()), again(batch())
    for name in before if isinstance(before, dict) else [...]:
        np.testing.assert_array_equal(np.asarray(before[name]), np.asarray(after[name]))


@pytest.mark.parametrize(
    "layer",
    [
        EventEmbedding(5, 4, 8, 3, name="x"),
        Block(8, 2, 0.1, name="x"),
        Head(3, (4,), 0.2, name="x"),
        ProfileReader(8, name="x"),
        PairScore(8, 0.3, name="x"),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_every_argument_of_a_layer_comes_back(layer):
    config = layer.get_config()
    assert type(layer).from_config(config).get_config() == config


def test_fine_tuning_starts_where_pretraining_ended():
    pretrained, network = awake(Pretrained), build(Finetuned, CONFIG)
    start_from(network, pretrained)
    np.testing.assert_allclose(np.asarray(network.encoder(batch())), np.asarray(pretrained.encoder(batch())), atol=1e-6)
    np.testing.assert_array_equal(np.asarray(network.item_bias), np.asarray(pretrained.item_bias))


def test_the_binary_answers_begin_as_a_logistic_regression_on_the_known_labels():
    random = np.random.default_rng(3)
    scalars = random.normal(
        5, [2] * (SCALAR_VALUES - 1) + [0], (600, SCALAR_VALUES)
    )  # the last one is the same for all
    likely = 1 / (1 + np.exp(-(scalars[:, 0] - 5)))
    churned = (random.random(600) < likely).astype(np.float32)
    labels = {
        **dict.fromkeys(BINARY, np.full(600, -1, np.float32)),  # of nobody it is known
        "churned": np.where(np.arange(600) < 300, churned, -1),  # of half of the rows it is not known
        "purchased": np.ones(600, np.float32),  # everyone does: no line can say who
    }
    network = build(Finetuned, CONFIG)
    start_with_scalars(network, scalars, labels)

    said = as_arrays(network({**batch(), "scalars": scalars[-4:].astype(np.float32)}, training=False))
    standard = (scalars - scalars.mean(0)) / np.maximum(scalars.std(0), 1e-2)
    line = LogisticRegression(C=0.1).fit(standard[:300], churned[:300])
    np.testing.assert_allclose(said["churned"], line.decision_function(standard[-4:]), atol=0.02)
    assert (said["purchased"] == 0).all()
    assert (said["migrated"] == 0).all()


def test_binary_answers_teach_their_own_layers_alone():
    network = awake(Finetuned)

    def taught():
        with tf.GradientTape() as tape:
            out = network(batch(), training=False)
            answers = sum(keras.ops.sum(out[name]) for name in BINARY)
        found = tape.gradient(answers, [variable.value for variable in network.trainable_variables])
        return {v.path for v, gradient in zip(network.trainable_variables, found, strict=True) if gradient is not None}

    assert taught() == {v.path for layer in network.binary_layers for v in layer.trainable_variables}
    for layer in network.binary_layers:
        layer.trainable = False
    assert taught() == set()


def test_a_grown_network_says_the_same_of_what_it_knew():
    old = awake(Pretrained)
    new = build(Pretrained, replace(CONFIG, items=50, categories=14))
    grow(new, old)
    np.testing.assert_allclose(
        np.asarray(new(batch())["category"])[..., :12], np.asarray(old(batch())["category"]), atol=1e-5
    )
    assert new.item_bias.shape == (50,)
    np.testing.assert_array_equal(np.asarray(new.item_bias)[: CONFIG.items], np.asarray(old.item_bias))


def test_a_network_grows_from_one_that_was_fine_tuned_on_other_habits():
    old = build(Pretrained, replace(CONFIG, habits=(2.0, 1.5, 0.0, 0.25)))
    new = build(Pretrained, CONFIG)
    grow(new, old)
    np.testing.assert_array_equal(np.asarray(new.item_bias), np.asarray(old.item_bias))
    np.testing.assert_array_equal(new.to_item.get_weights()[0], old.to_item.get_weights()[0])


def test_a_network_of_which_no_habits_are_noted_goes_by_the_fading_history():
    noted = json.loads(json.dumps(asdict(replace(CONFIG, habits=(2.0, 1.5, 0.0, 0.25)))))
    assert as_config(noted) == replace(CONFIG, habits=(2.0, 1.5, 0.0, 0.25))
    del noted["habits"]
    assert as_config(noted) == CONFIG
    assert CONFIG.habits == (0, 1, 0, 0)


def test_the_fading_history_alone_is_noted_as_by_code_that_knows_of_no_habits():
    assert "habits" not in as_noted(CONFIG)
    other = replace(CONFIG, habits=(2.0, 1.5, 0.0, 0.25))
    assert as_config(json.loads(json.dumps(as_noted(other)))) == other
    assert as_config(json.loads(json.dumps(as_noted(CONFIG)))) == CONFIG
    # By which a training that was broken off is known again.
    assert str(CONFIG).endswith("policy='float32')")


def test_growing_into_another_shape_is_refused():
    with pytest.raises(SettingsInvalid, match="warm start needs"):
        grow(build(Pretrained, replace(CONFIG, width=32)), awake(Pretrained))


def test_adapters_change_nothing_at_first_and_are_few(tmp_path):
    network = awake(Finetuned)
    before = as_arrays(network(batch()))
    everything = sum(np.prod(v.shape) for v in network.encoder.trainable_variables)
    adapt(network.encoder, rank=2)
    trained = sum(np.prod(v.shape) for v in network.encoder.trainable_variables)
    assert 0 < trained < 0.2 * everything
    np.testing.assert_allclose(as_arrays(network(batch()))["category"], before["category"], atol=1e-5)
    # Trained adapters survive in a network without any.
    for variable in network.encoder.trainable_variables:
        variable.assign(np.random.default_rng(2).normal(0, 0.2, variable.shape))
    network.save_weights(tmp_path / "network.weights.h5")
    plain = build(Finetuned, CONFIG)
    plain.load_weights(tmp_path / "network.weights.h5")
    np.testing.assert_allclose(
        as_arrays(plain(batch()))["category"], as_arrays(network(batch()))["category"], atol=1e-4
    )


def test_large_holds_a_hundred_million_parameters_in_mixed_precision():
    config = network_config("large", items=1000, categories=100)
    of_a_block = 12 * config.width**2  # four projections of attention, and the feed-forward part of 8 D^2
    assert config.layers * of_a_block >= 100_000_000
    assert config.policy == "mixed_bfloat16"


def test_mixed_precision_keeps_weights_and_outputs_in_float32():
    network = build(Finetuned, replace(CONFIG, policy="mixed_bfloat16"))
    assert {variable.dtype for variable in network.trainable_variables} == {"float32"}
    assert keras.backend.standardize_dtype(network.encoder(batch()).dtype) == "bfloat16"
    now = batch()
    assert {np.asarray(value).dtype.name for value in network(now).values()} == {"float32"}
    # A row in which the last state is known says what it says of its events.
    known = network(now, last=np.asarray(network.encoder.last(now), np.float32))
    np.testing.assert_allclose(np.asarray(known["category"]), np.asarray(network(now)["category"]), rtol=1e-6)
    assert keras.config.dtype_policy().name == "float32"  # of everything else


def test_an_unknown_preset_is_named():
    with pytest.raises(SettingsInvalid, match=r"--preset must be one of tiny, base, large; received 'huge'"):
        network_config("huge", 10, 10)
    assert set(PRESETS) == {"tiny", "base", "large"}


def test_jax_says_what_tensorflow_says(tmp_path):
    network, now = awake(Finetuned), batch()
    network.save_weights(tmp_path / "network.weights.h5")
    np.savez(tmp_path / "batch.npz", **now)
    code = f"""
import keras
import numpy as np
from model.network.network import Finetuned, NetworkConfig, build
assert keras.backend.backend() == "jax"
network = build(Finetuned, {CONFIG!r})
network.load_weights({str(tmp_path / "network.weights.h5")!r})
out = network(dict(np.load({str(tmp_path / "batch.npz")!r})))
np.savez({str(tmp_path / "out.npz")!r}, **{{name: np.asarray(value) for name, value in out.items()}})
"""
    # What is compiled here runs once.
    once = {"XLA_FLAGS": "--xla_backend_optimization_level=0"}
    environment = {**os.environ, **once, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", code]  # the model is found from the root of the repository
    done = subprocess.run(command, env=environment, cwd=REPO, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    said, other = as_arrays(network(now)), dict(np.load(tmp_path / "out.npz"))
    assert other.keys() == said.keys()
    # Weights to come again are an exponential: an error of the exponent is a share of the weight.
    np.testing.assert_array_equal(other["again"] > 0, said["again"] > 0)
    for values in (said, other):
        values["again"] = np.log(values["again"], where=values["again"] > 0, out=np.zeros_like(values["again"]))
    for name, value in said.items():
        # Both round to 24 bits, and add in an order of their own: sums of up to 64 numbers in some fifteen layers are
        # about a thousand roundings, most of which cancel. What is wrong differs by far more.
        allowed = 300 * np.finfo(np.float32).eps * max(1, np.abs(value).max())
        np.testing.assert_allclose(other[name], value, rtol=0, atol=allowed, err_msg=name)
        assert np.abs(value).max() < 100, f"{name} is larger than any trained network says"
