"""A model that is arithmetic: it has the interface of `Artifact`, and its answers can be known by hand."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lake.labels import NAMES
from lake.settings import settings
from model.versions.registry import Registry

# XXH64 with seed 42, as in published tables.
KEY = {
    "i1": 7124899531359187511,
    "i2": 3877070857122093591,
    "i3": -300965836206992956,
    "a": -8582455328737087284,
    "b": -6391946315847899181,
}

CARD = {
    "model": "stand-in",
    "horizon_days": 28,
    "lookback_days": 30,
    "min_events": 5,
    "tables": {"examples": 3},
    "surprise_quantiles": np.linspace(0, 1, 101).tolist(),
    "segment_thresholds": {"at_risk": 0.4, "migrating": 0.5},
}


def registry() -> Registry:
    """Return the registry of the settings in force, as a command makes it."""
    return Registry.of(settings())


class Words:
    """A vocabulary with one out-of-vocabulary bucket, index 1."""

    def __init__(self, ids: list[str], keys: dict[str, int] = KEY):
        self.ids = ["", "(other)", *ids]
        self.indices = {keys[name]: at for at, name in enumerate(self.ids) if name in keys} | {0: 0}

    def index(self, keys: np.ndarray) -> np.ndarray:
        return np.array([self.indices.get(int(key), 1) for key in keys.ravel()], np.int32).reshape(keys.shape)

    def known(self, index: np.ndarray) -> np.ndarray:
        return index > 1

    def unseen(self, keys: np.ndarray) -> np.ndarray:
        return (keys != 0) & ~self.known(self.index(keys))

    def share_unseen(self, keys: np.ndarray) -> float:
        return float(self.unseen(keys).sum() / np.count_nonzero(keys))

    def id_of(self, index: int) -> str:
        return self.ids[index]


@dataclass
class Prediction:
    """As model.versions.artifact.Prediction."""

    categories: np.ndarray
    items: np.ndarray
    item_probabilities: np.ndarray
    answers: dict[str, np.ndarray]
    surprise: np.ndarray


class StandIn:
    """Predicts the categories and items of the past; what it says of a user depends on that user's row alone."""

    def __init__(self, card: dict[str, Any], items: list[str], categories: list[str]):
        self.card, self.items, self.categories = card, Words(items), Words(categories)
        self.category_ids = categories
        self.stack = None

    def save_card(self, folder: str) -> None:
        content = {"card": self.card, "items": self.items.ids[2:], "categories": self.category_ids}
        Path(folder, "card.json").write_text(json.dumps(content))

    def predict(self, frame: pd.DataFrame) -> Prediction:
        n = len(frame)
        events = frame["frequency"].to_numpy(np.float64)
        shares = np.zeros((n, len(self.category_ids)), np.float32)
        for row, (names, values) in enumerate(zip(frame["current_categories"], frame["current_shares"], strict=True)):
            for name, value in zip(names, values, strict=True):
                if name in self.category_ids:
                    shares[row, self.category_ids.index(name)] = value
        # The known items, then the user's oldest one, which comes again if it is none of them.
        oldest = [keys[0] if len(keys) else 0 for keys in frame["item_keys"]]
        known = np.array([KEY[name] for name in self.items.ids[2:]])
        items = np.column_stack([np.tile(known, (n, 1)), oldest]).astype(np.int64)
        again = (items[:, -1:] != 0) & ~np.isin(items[:, -1:], known)
        weights = np.column_stack([np.tile(1.0 / (3 + np.arange(len(known))), (n, 1)), again / 2])
        few = np.array([len(keys) < 2 for keys in frame["item_keys"]])
        return Prediction(
            categories=shares,
            items=items,
            item_probabilities=weights / weights.sum(axis=1, keepdims=True),
            answers={
                **dict.fromkeys(NAMES, np.full(n, 0.5)),
                "migrated": 1 - shares.max(axis=1, initial=0),
                "purchased": events / (1 + events),
                "churned": 1 / (1 + events),
            },
            surprise=np.where(few, np.nan, 1 / events),
        )

    def item_ids(self, keys: np.ndarray, frame: pd.DataFrame) -> np.ndarray:  # noqa: ARG002  as the real one
        name = {key: name for name, key in KEY.items()} | {0: ""}
        return np.array([[name[key] for key in row] for row in keys.tolist()], object)

    def attention(self, frame: pd.DataFrame) -> np.ndarray:
        weights = np.zeros(3)
        kept = min(3, len(frame["item_keys"].iloc[0]))
        weights[:kept] = np.arange(1, kept + 1) / np.arange(1, kept + 1).sum()
        return weights


def save(folder: Path, items: tuple[str, ...] = ("i1", "i2"), categories: tuple[str, ...] = ("a", "b"), **card) -> str:
    """Write a stand-in as an artifact's folder, and return its address."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"card": {**CARD, **card}, "items": items, "categories": categories}
    (folder / "card.json").write_text(json.dumps(content))
    (folder / "weights").mkdir(exist_ok=True)
    (folder / "weights" / "part.bin").write_bytes(b"\0" * 1000)
    return str(folder)


def load(folder: str) -> StandIn:
    """Load a stand-in, and leave a line in `<folder>.loads`, so that a test can count how often that was.

    A function of a module, as the real one: a bound method would be sent to Spark's workers by value, each time another
    object, so that no worker would know it again.
    """
    with Path(f"{folder}.loads").open("a") as loads:
        loads.write("loaded\n")
    return StandIn(**json.loads((Path(folder) / "card.json").read_text()))
