"""Prediction by a model that was loaded: what the network says of each row alone, whatever rows come with it."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from lake.rules import TOP_ITEMS
from tests.model.states import T, state

pytestmark = pytest.mark.tf

EVENTS, CATEGORIES = 48, 6  # that the network sees at most
ITEMS = np.arange(1, 31)


def artifact(card: dict[str, Any] | None = None) -> Any:
    """Make a model with random weights."""
    import keras

    from model.data.vocabulary import Vocabulary
    from model.network.network import Finetuned, NetworkConfig, Pretrained, build
    from model.versions.artifact import Artifact

    keras.utils.set_random_seed(7)
    items = Vocabulary("item_id", ITEMS, [f"i{key}" for key in ITEMS], buckets=2)
    categories = Vocabulary("category_id", np.arange(1, 9), list("abcdefgh"), buckets=1)
    config = NetworkConfig(items.size, categories.size, EVENTS, CATEGORIES, width=8, layers=2, hidden=(8,))
    networks = {"finetuned": build(Finetuned, config), "pretrained": build(Pretrained, config)}
    random = np.random.default_rng(3)
    for network in networks.values():  # those that begin with zeros, too, and nothing is equally likely by chance
        network.set_weights([w + random.normal(0, 0.2, w.shape) for w in network.get_weights()])
    return Artifact(card or {}, config, items, categories, **networks)


def shopper(events: int, categories: int, seed: int) -> dict[str, Any]:
    """Make a state with so many events, and categories of the long-term interest; some items are unknown."""
    random = np.random.default_rng(seed)
    gaps = random.integers(60, 90_000, events)
    end = int(pd.Timestamp(T).timestamp()) + 86_400
    return state(
        f"u{seed}",
        item_keys=random.integers(1, 35, events),
        category_keys=random.integers(1, 10, events),
        behaviors=random.integers(1, 6, events),
        gap_seconds=gaps,
        event_seconds=end - np.cumsum(gaps)[::-1],
        longterm_category_keys=1 + random.permutation(8)[:categories],
        longterm_shares=np.sort(random.dirichlet(np.ones(categories)))[::-1] if categories else np.zeros(0),
        **{
            name: random.integers(1, 9, categories)
            for name in ("longterm_counts", "longterm_days", "longterm_current_counts", "longterm_week_counts")
        },
        longterm_age_seconds=random.integers(1, 10**6, categories),
        frequency=events,
    )


def test_a_batch_with_room_for_its_longest_row_says_what_the_whole_network_says(monkeypatch):
    from keras import ops

    monkeypatch.setattr("model.versions.artifact.BATCH", 4)
    model = artifact()
    # None, few, more than the least room, as many as the network sees, and more; not in the order of their lengths.
    sizes = [(40, 3), (0, 0), (48, 6), (5, 1), (60, 8), (33, 6), (2, 8), (0, 4), (47, 0), (1, 1), (31, 2)]
    rows = pd.DataFrame([shopper(*size, seed) for seed, size in enumerate(sizes)])
    found = model.predict(rows)

    arrays = {name: ops.convert_to_tensor(values) for name, values in model.features.state(rows).items()}
    assert arrays["item"].shape == (11, EVENTS)
    said = model.finetuned(arrays)
    probability, place = (np.asarray(part) for part in model.finetuned.best_items(said, arrays, 3, TOP_ITEMS))
    chances = np.exp(np.asarray(said["category"], np.float64)[:, 2:])
    np.testing.assert_allclose(found.categories, chances / chances.sum(axis=1, keepdims=True), atol=1e-6)
    for name, answers in found.answers.items():
        np.testing.assert_allclose(answers, 1 / (1 + np.exp(-np.asarray(said[name]))), atol=1e-6)
    np.testing.assert_allclose(found.surprise, np.asarray(model.pretrained.surprise(arrays, 20)), rtol=1e-5)
    np.testing.assert_allclose(found.item_probabilities, probability, atol=1e-6)
    own = np.zeros((11, EVENTS), np.int64)
    for row, keys in enumerate(rows["item_keys"]):
        own[row, : len(keys)] = keys[-EVENTS:]
    expected = [
        [ITEMS[at] if at < 30 else own[row, at - 30] for at in places] for row, places in enumerate(place.tolist())
    ]
    np.testing.assert_array_equal(found.items, expected)


def test_rows_of_like_length_come_together_and_each_comes_once(monkeypatch):
    from model.versions import artifact as module

    monkeypatch.setattr(module, "BATCH", 2)
    monkeypatch.setattr(module, "LEAST_EVENTS", 2)
    events, profile = np.array([5, 1, 3, 5, 0]), np.array([1, 2, 0, 2, 0])
    arrays = {
        "behavior": (np.arange(6) < events[:, None]).astype(np.int32),
        "profile": (np.arange(4) < profile[:, None]).astype(np.int32),
        "profile_values": np.ones((5, 4, 3), np.float32),
        "scalars": np.arange(5),
    }
    made = list(module.batches(arrays))
    assert [place.tolist() for _, place in made] == [[4, 1], [2, 0], [3]]
    # Rooms: at least two events, at least one category; the last batch is filled up with its first row.
    assert [batch["behavior"].shape for batch, _ in made] == [(2, 2), (2, 5), (2, 5)]
    assert [batch["profile"].shape for batch, _ in made] == [(2, 2), (2, 1), (2, 2)]
    assert [batch["profile_values"].shape for batch, _ in made] == [(2, 2, 3), (2, 1, 3), (2, 2, 3)]
    assert [batch["scalars"].tolist() for batch, _ in made] == [[4, 1], [2, 0], [3, 3]]


@pytest.mark.parametrize(
    ("card", "events"),
    [
        pytest.param({}, EVENTS, id="of an older training, which did not say"),
        pytest.param({"sequence_length": 20}, 20, id="rows had fewer events"),
        pytest.param({"sequence_length": 50}, EVENTS, id="rows had more events than the network sees"),
    ],
)
def test_arrays_have_room_for_as_many_events_as_a_model_learnt_from(card, events):
    model = artifact(card)
    assert model.features.fields(labels=True)["item"][1] == (events,)
    rows = pd.DataFrame([shopper(60, 3, 1)])
    shorter = pd.DataFrame([{**rows.iloc[0], **{name: rows[name][0][-events:] for name in CUT}}])
    # What is further back does not count.
    for one, other in zip(model.predict(rows).answers.values(), model.predict(shorter).answers.values(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    assert model.predict(rows).items.tolist() == model.predict(shorter).items.tolist()
    assert model.attention(rows).shape == (events,)
    assert model.predict(rows.head(0)).items.shape == (0, TOP_ITEMS)


CUT = ("item_keys", "category_keys", "behaviors", "gap_seconds", "event_seconds")
