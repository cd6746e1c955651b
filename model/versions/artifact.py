"""What a trained model is on disk, and how to predict with it: the one way, for evaluation, scoring and explanation.

    card.json                 what it was trained on, and what it needs to be used
    network.json              shape of the network, and its binary heads
    finetuned.weights.h5      or pretrained.weights.h5 alone, after pretraining
    pretrained.weights.h5
    vocabulary/               keys, ids and indices of items and categories

Shapes: N rows, C known categories, L events.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
from keras import ops

from lake import storage
from lake.errors import ModelMissing
from lake.places import card_file
from lake.rules import TOP_ITEMS
from model.arrays import Array
from model.data.features import Features
from model.data.vocabulary import Vocabulary
from model.network.network import BINARY, Finetuned, NetworkConfig, Pretrained, as_config, build
from model.versions.heads import require_heads

# Rows at once; the last batch is filled up to it, so that one compiled function serves all.
BATCH = 256
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
    """A model in memory. `finetuned` is None after pretraining alone; `pretrained` is None for one from scratch."""

    card: dict[str, Any]
    config: NetworkConfig
    items: Vocabulary
    categories: Vocabulary
    finetuned: Finetuned | None = None
    pretrained: Pretrained | None = None

    @property
    def features(self) -> Features:
        """What turns rows into the arrays of this network."""
        return Features(self.items, self.categories, self.config.events, self.config.profile, self.config.next_items)

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
        if self.finetuned is None:
            raise ModelMissing("this model is pretrained only, and predicts nothing yet; run model.finetune")
        parts: list[dict[str, Array]] = []
        for batch, real in _batches(self.features.state(rows)):
            out = self._forward(batch)
            parts.append({name: ops.convert_to_numpy(value)[:real] for name, value in out.items()})
        if not parts:
            return self._nobody()
        output = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return Prediction(
            categories=output["categories"],
            items=self._keys(output["item_places"], rows),
            item_probabilities=output["item_probabilities"],
            answers={name: output[name] for name in BINARY},
            surprise=output["surprise"],
        )

    def _keys(self, places: Array, rows: pd.DataFrame) -> Array:
        """Return the keys of places among the logits of `Finetuned.item_logits`."""
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
        """Return a compiled function from a batch of arrays to what `Prediction` is made from."""
        items, categories = 1 + self.items.buckets, 1 + self.categories.buckets
        top = min(TOP_ITEMS, len(self.items.keys) + self.config.events)

        def forward(batch: dict[str, Any]) -> dict[str, Any]:
            network = self.finetuned
            assert network is not None
            out = network(batch, training=False)
            # Neither padding nor a bucket of unknown ids is something to predict.
            probability, place = ops.top_k(ops.softmax(network.item_logits(out, batch, items)), top)
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
        import tensorflow as tf

        return tf.function(forward)

    def _nobody(self) -> Prediction:
        top = min(TOP_ITEMS, len(self.items.keys) + self.config.events)
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
        storage.write_json(storage.join(folder, "network.json"), {**asdict(self.config), "binary": BINARY})
        storage.write_json(card_file(folder), self.card)

    @staticmethod
    def load(folder: str) -> "Artifact":
        """Read a model.

        Raises:
            ModelMissing: there is none.
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
        return Artifact(card, shape, items, categories, **networks)


def _batches(arrays: dict[str, Array]) -> Iterator[tuple[dict[str, Array], int]]:
    """Yield batches of BATCH rows, the last one filled up by repeating its first row, with the number of real rows."""
    rows = len(arrays["item"])
    for at in range(0, rows, BATCH):
        place = np.arange(at, at + BATCH)
        real = min(BATCH, rows - at)
        place = np.where(place < rows, place, at)
        yield {name: array[place] for name, array in arrays.items()}, real
