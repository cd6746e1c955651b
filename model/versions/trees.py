"""Boosted trees that have been grown: what they say, and how they lie on disk. model/judging/boosted.py grows them.

    trees.json        candidates, their popularity, and answers without variety
    next_category.txt, <label>.txt      the trees, as LightGBM writes them

Shapes: N rows, C categories, K offered categories, P pairs of row and candidate.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from lake import storage
from lake.errors import ModelMissing
from lake.imports import absent
from model.arrays import Array
from model.data.candidates import LABEL_FEATURES, PAIR_FEATURES, Candidates, label_features

if TYPE_CHECKING:
    import lightgbm as lgb

CATEGORY = "next_category"
# Rows turned into pairs at once: bounds the memory to some 50 MB.
AT_ONCE = 2048


@dataclass(frozen=True)
class Trees:
    """Trees for the next category and for the binary labels.

    Attributes:
        candidates: what may come next.
        ranker: of pairs of a row and a candidate; None where the training rows had too little variety: then
            popularity speaks.
        heads: by label, its trees, or its rate in the training rows where these had too little variety.
        threads: of LightGBM. They wait busily for each other, so more than there are idle cores slow it down badly.
    """

    candidates: Candidates
    ranker: "lgb.Booster | None"
    heads: "Mapping[str, lgb.Booster | float]"
    threads: int = 1

    def binary(self, frame: pd.DataFrame) -> dict[str, Array]:
        """Return the probability of each label, (N,) float64."""
        features = label_features(frame)
        return {
            label: np.full(len(frame), trees)
            if isinstance(trees, float)
            else np.asarray(trees.predict(features, num_threads=self.threads))
            for label, trees in self.heads.items()
        }

    def next_category(self, frame: pd.DataFrame) -> Array:
        """Return the probability of each category to come next, (N, C) float32."""
        popularity = self.candidates.popularity
        scores = np.empty((len(frame), len(popularity)), np.float32)
        for start in range(0, len(frame), AT_ONCE):
            part = frame.iloc[start : start + AT_ONCE]
            chances = np.tile(popularity, (len(part), 1))
            if self.ranker is not None:
                rows, columns, features = self.candidates.pairs(part)
                of_pairs = np.asarray(self.ranker.predict(features, num_threads=self.threads))
                # The popularity of the others, scaled to lie below the least likely candidate of the row.
                least = np.full(len(part), np.inf)
                np.minimum.at(least, rows, of_pairs)
                chances *= (0.5 * least / popularity.max())[:, None]
                chances[rows, columns] = of_pairs
            scores[start : start + len(part)] = chances / chances.sum(axis=1, keepdims=True)
        return scores

    def of_offered(self, frame: pd.DataFrame, offered: Array) -> Array:
        """Return the chance of each offered category to come next, judged by itself, (N, K) float64.

        Args:
            frame: rows of `interests`.
            offered: (N, K) columns, each once in a row. They need not be candidates.
        """
        if self.ranker is None:
            return np.asarray(self.candidates.popularity[offered])
        chances = np.empty(offered.shape)
        for start in range(0, len(frame), AT_ONCE):
            part = slice(start, start + AT_ONCE)
            features = self.candidates.features_of(frame.iloc[part], offered[part])
            chances[part] = np.asarray(self.ranker.predict(features, num_threads=self.threads)).reshape(
                -1, offered.shape[1]
            )
        return chances

    def only(self, labels: Collection[str], *, ranker: bool) -> "Trees":
        """Return those of some labels, and those of the next category or not: what nobody asks, nobody has to keep."""
        heads = {label: self.heads[label] for label in labels}
        return replace(self, ranker=self.ranker if ranker else None, heads=heads)

    def save(self, folder: str) -> None:
        """Write the files of these trees into a folder."""
        known = self.candidates
        boosters = {**self.heads, **({} if self.ranker is None else {CATEGORY: self.ranker})}
        fs, inner = storage.filesystem(folder)
        fs.makedirs(inner, exist_ok=True)
        for name, trees in boosters.items():
            if not isinstance(trees, float):
                fs.pipe_file(storage.join(inner, f"{name}.txt"), trees.model_to_string().encode())
        storage.write_json(
            storage.join(folder, "trees.json"),
            {
                "categories": list(known.categories),
                **{name: np.asarray(getattr(known, name)).tolist() for name in _NUMBERS},
                "heads": {name: trees if isinstance(trees, float) else None for name, trees in self.heads.items()},
                "ranker": self.ranker is not None,
            },
        )

    @staticmethod
    def load(folder: str, threads: int = 1) -> "Trees":
        """Read the trees of a folder.

        Raises:
            ModelMissing: a file is missing, or is not what it should be.
        """
        path = storage.join(folder, "trees.json")
        try:
            content = storage.read_json(path)
            if content is None:
                raise ModelMissing(f"there are no trees at {folder}, though the model's card names them; {REPAIR}")
            candidates = Candidates(
                pd.Index(content["categories"], dtype=object), *(np.asarray(content[name]) for name in _NUMBERS)
            )
            rates = {name: None if rate is None else float(rate) for name, rate in content["heads"].items()}
            ranked = bool(content["ranker"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelMissing(f"{path} is cut off or damaged ({error!r}); {REPAIR}") from error
        heads = {name: _booster(folder, name, LABEL_FEATURES) if rate is None else rate for name, rate in rates.items()}
        return Trees(candidates, _booster(folder, CATEGORY, len(PAIR_FEATURES)) if ranked else None, heads, threads)


_NUMBERS = ("popularity", "recent_popularity", "share_of_events", "common")
REPAIR = (
    "copy the version's files again, or go back to another version with "
    "python -m model.promote --model-version N --since D"
)


def _booster(folder: str, name: str, features: int) -> "lgb.Booster":
    try:
        # LightGBM imports it, where it is installed, for an interface that nobody uses here: a second of a worker.
        with absent("sklearn", "matplotlib"):
            import lightgbm as lgb
    except (ImportError, OSError) as error:
        raise ModelMissing(
            f"LightGBM, which the trees at {folder} need, cannot be loaded here ({error}); install the packages of "
            "requirements.lock, and on Debian libgomp1, or build the image again"
        ) from error

    path = storage.join(folder, f"{name}.txt")
    if not storage.exists(path):
        raise ModelMissing(f"the trees of {name} are missing at {path}; {REPAIR}")
    fs, inner = storage.filesystem(path)
    text = fs.cat_file(inner).decode()
    # LightGBM ends the process at some broken texts, so the end is looked for first.
    if "end of trees" not in text:
        raise ModelMissing(f"the trees of {name} at {path} are cut off; {REPAIR}")
    try:
        trees = lgb.Booster(model_str=text)
    except lgb.basic.LightGBMError as error:
        raise ModelMissing(f"the trees of {name} at {path} cannot be read ({error}); {REPAIR}") from error
    if trees.num_feature() != features:
        raise ModelMissing(
            f"the trees of {name} at {path} look at {trees.num_feature()} features, and this code makes {features}; "
            "train again, or score with the code of that version"
        )
    return trees
