"""What a trained model is on disk, and how to predict with it: the one way, for evaluation, scoring and explanation.

    card.json                 what it was trained on, and what it needs to be used
    network.json              shape of the network, and its binary heads
    finetuned.weights.h5      or pretrained.weights.h5 alone, after pretraining
    pretrained.weights.h5
    vocabulary/               keys, ids and indices of items and categories
    trees/                    of a stack alone: boosted trees, whose answers and the network's are one

Shapes: N rows, C known categories, L events.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lake import storage
from lake.errors import ModelMissing
from lake.places import card_file
from lake.rules import TOP_ITEMS
from model.arrays import Array
from model.data.features import BY_EVENT, BY_PROFILE, Features
from model.data.vocabulary import Vocabulary
from model.memory import keep_freed_memory
from model.network import keras, ops
from model.network.network import BINARY, Finetuned, NetworkConfig, Pretrained, as_config, as_noted, build
from model.versions.heads import require_heads
from model.versions.stack import Stack

# Rows at once; the last batch is filled up to it, so that one compiled function serves all.
BATCH = 256
# Batches have room for as many events at least: what is ranked, and what the surprise is measured on, has to fit.
LEAST_EVENTS = 32
# How many of the latest events the surprise is measured on: some visits, not the whole sequence.
SURPRISE_EVENTS = 20


@dataclass(frozen=True)
class Prediction:
    """What a model says about N users.

    Attributes:
        categories: (N, C) float32, probability of each known category to be the dominant one of (T, T+H].
        items: (N, TOP_ITEMS) int64, keys of the likeliest next items, best first. An item that the vocabulary does not
            know is among them where the user had it before.
        item_probabilities: (N, TOP_ITEMS) float32, among all items that are known or were had before.
        answers: (N,) float32 for each label of `lake.labels`, the probability of yes.
        surprise: (N,) float32, mean negative log likelihood of the latest events; nan where it is not known.
    """

    categories: Array
    items: Array
    item_probabilities: Array
    answers: dict[str, Array]
    surprise: Array


@dataclass
class Artifact:
    """A model in memory.

    `finetuned` is None after pretraining alone; `pretrained` is None for one from scratch; `stack` is None for a
    network alone.
    """

    card: dict[str, Any]
    config: NetworkConfig
    items: Vocabulary
    categories: Vocabulary
    finetuned: Finetuned | None = None
    pretrained: Pretrained | None = None
    stack: Stack | None = None

    @property
    def features(self) -> Features:
        """What turns rows into the arrays of this network: with room for as many events as it learnt from, no more."""
        events = min(self.config.events, self.card.get("sequence_length", self.config.events))
        return Features(self.items, self.categories, events, self.config.profile, self.config.next_items)

    @cached_property
    def category_ids(self) -> list[str]:
        """Ids of the C known categories, in the order of `Prediction.categories`."""
        return list(self.categories.ids)

    def item_ids(self, keys: Array, rows: pd.DataFrame) -> Array:
        """Return the id of each item, (N, K) str: the vocabulary's, else that of the events of the row; "" for none.

        Args:
            keys: (N, K) int64, `items` of a prediction.
            rows: of `interests`, with `item_ids`.
        """
        index = self.items.index(keys)
        ids = self._ids[index]
        for row, place in zip(*np.nonzero((keys != 0) & ~self.items.known(index)), strict=True):
            own = rows["item_ids"].iloc[row]
            ids[row, place] = own[list(rows["item_keys"].iloc[row]).index(keys[row, place])]
        return ids

    @cached_property
    def _ids(self) -> Array:
        return np.array([self.items.id_of(index) for index in range(self.items.size)], object)

    def predict(self, rows: pd.DataFrame) -> Prediction:
        """Predict for rows of `interests`.

        Raises:
            ModelMissing: the network is pretrained only.
        """
        prediction = self.predict_alone(rows)
        return prediction if self.stack is None else self.stack.applied(prediction, rows)

    def predict_alone(self, rows: pd.DataFrame) -> Prediction:
        """Return what the network says without the trees of a stack; see `predict`."""
        if self.finetuned is None:
            raise ModelMissing("this model is pretrained only, and predicts nothing yet; run model.finetune")
        keep_freed_memory()
        output: dict[str, Array] = {}
        for batch, place in batches(self.features.state(rows)):
            for name, value in self._forward(batch).items():
                of_batch = ops.convert_to_numpy(value)
                of_all = output.setdefault(name, np.empty((len(rows), *of_batch.shape[1:]), of_batch.dtype))
                of_all[place] = of_batch[: len(place)]
        if not output:
            return self._nobody()
        return Prediction(
            categories=output["categories"],
            items=self._keys(output["item_places"], rows),
            item_probabilities=output["item_probabilities"],
            answers={name: output[name] for name in BINARY},
            surprise=output["surprise"],
        )

    def _keys(self, places: Array, rows: pd.DataFrame) -> Array:
        """Return the keys of the places that `Finetuned.best_items` gives."""
        known, own = len(self.items.keys), self.features.last_keys(rows)
        again = np.take_along_axis(own, np.maximum(places - known, 0), axis=1)
        if not known:
            return again
        return np.where(places < known, self.items.keys[np.minimum(places, known - 1)], again)

    def attention(self, rows: pd.DataFrame) -> Array:
        """Return (L,): how much the last event of the one user in `rows` attends to each event of the sequence."""
        if self.finetuned is None:
            raise ModelMissing("this model is pretrained only, and predicts nothing yet; run model.finetune")
        state = self.features.state(rows.head(1))
        return np.asarray(ops.convert_to_numpy(self.finetuned.encoder.attention(state))[0])

    @cached_property
    def _forward(self) -> Any:
        """A compiled function from a batch of arrays to what `Prediction` is made from.

        It ranks items by their weights as they are when it is made, with the first batch: none are to change after it.
        """
        items, categories = 1 + self.items.buckets, 1 + self.categories.buckets
        top = min(TOP_ITEMS, len(self.items.keys) + self.features.events)
        # Once for all batches; a compiled function keeps it.
        grouped = None if self.finetuned is None else self.finetuned.item_logits_by(items)

        def forward(batch: dict[str, Any]) -> dict[str, Any]:
            network = self.finetuned
            assert network is not None
            out = network(batch, training=False)
            # Neither padding nor a bucket of unknown ids is something to predict.
            probability, place = network.best_items(out, batch, items, top, grouped)
            output = {
                "categories": ops.softmax(out["category"][:, categories:]),
                "item_places": place,
                "item_probabilities": probability,
                **{name: ops.sigmoid(out[name]) for name in BINARY},
            }
            if self.pretrained is None:
                output["surprise"] = ops.full(ops.shape(place)[:1], float("nan"))
            else:
                output["surprise"] = self.pretrained.surprise(batch, SURPRISE_EVENTS)
            return output

        if keras.backend.backend() != "tensorflow":
            return forward
        from model.network import tf

        # Batches differ in their numbers of events and of categories; one function serves them all.
        any_room = {*BY_EVENT, *BY_PROFILE}
        arrays = {
            name: tf.TensorSpec((BATCH, None, *shape[1:]) if name in any_room else (BATCH, *shape), dtype)
            for name, (dtype, shape) in self.features.fields(labels=False).items()
        }
        return tf.function(forward, input_signature=[arrays])

    def _nobody(self) -> Prediction:
        top = min(TOP_ITEMS, len(self.items.keys) + self.features.events)
        none = np.zeros(0, np.float32)
        wide = np.zeros((0, top), np.float32)
        return Prediction(
            np.zeros((0, len(self.categories.keys)), np.float32),
            wide.astype(np.int64),
            wide,
            dict.fromkeys(BINARY, none),
            none,
        )

    def save(self, folder: str) -> None:
        """Write the model; the card is last, so a folder with a card is whole."""
        fs, inner = storage.filesystem(folder)
        fs.makedirs(inner, exist_ok=True)
        for name, network in (("finetuned", self.finetuned), ("pretrained", self.pretrained)):
            if network is not None:
                with tempfile.TemporaryDirectory() as local:
                    file = Path(local, f"{name}.weights.h5")
                    network.save_weights(file)
                    fs.put_file(str(file), storage.join(inner, file.name))
        for known in (self.items, self.categories):
            known.save(storage.join(folder, "vocabulary"))
        storage.write_json(storage.join(folder, "network.json"), {**as_noted(self.config), "binary": BINARY})
        if self.stack is not None:
            self.stack.trees.save(storage.join(folder, "trees"))
        self.save_card(folder)

    def save_card(self, folder: str) -> None:
        """Write the card alone, beside what it tells of."""
        storage.write_json(card_file(folder), self.card)

    @staticmethod
    def load(folder: str) -> "Artifact":
        """Read a model.

        Raises:
            ModelMissing: there is none, or the trees of a stack are missing or broken.
            HeadsDiffer: it was trained for other labels than those of `lake.labels`, or for these in another order.
        """
        card = storage.read_json(card_file(folder))
        config = storage.read_json(storage.join(folder, "network.json"))
        if card is None or config is None:
            raise ModelMissing(f"there is no model at {folder}; run model.pretrain and model.finetune first")
        require_heads(folder)
        shape = as_config({name: value for name, value in config.items() if name != "binary"})
        networks: dict[str, Any] = {}
        for name, kind in (("finetuned", Finetuned), ("pretrained", Pretrained)):
            place = storage.join(folder, f"{name}.weights.h5")
            if storage.exists(place):
                networks[name] = build(kind, shape)
                fs, inner = storage.filesystem(place)
                with tempfile.TemporaryDirectory() as local:
                    file = Path(local, f"{name}.weights.h5")
                    fs.get_file(inner, str(file))
                    networks[name].load_weights(file)
        items, categories = (
            Vocabulary.load(storage.join(folder, "vocabulary"), field) for field in ("item_id", "category_id")
        )
        stack = Stack.load(folder, card, list(categories.ids))
        return Artifact(card, shape, items, categories, **networks, stack=stack)


def batches(arrays: dict[str, Array]) -> Iterator[tuple[dict[str, Array], Array]]:
    """Yield batches of BATCH rows with the positions of these rows, the last one filled up by repeating its first row.

    Rows that need as much room come together, and a batch has no more room for events and for categories of the profile
    than the longest of its rows needs: what is left out is padding.
    """
    events = np.sum(arrays["behavior"] > 0, axis=1)
    real = arrays["profile"] > 0
    profile = np.where(real.any(axis=1), real.shape[1] - np.argmax(real[:, ::-1], axis=1), 0)
    order = np.lexsort((profile, events))
    for at in range(0, len(order), BATCH):
        place = order[at : at + BATCH]
        filled = np.concatenate([place, np.full(BATCH - len(place), place[0])])
        room = dict.fromkeys(BY_EVENT, max(events[place].max(), LEAST_EVENTS))
        room |= dict.fromkeys(BY_PROFILE, max(profile[place].max(), 1))
        batch = {
            name: values[filled, : room[name]] if name in room else values[filled] for name, values in arrays.items()
        }
        yield batch, place
