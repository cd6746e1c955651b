"""Keys <-> indices <-> raw ids: what a model calls the items and categories of its training window.

A *key* is the stable 64-bit hash by which the tables name an id (xxhash64, 0 for none). An *index* is a row of an
embedding, and belongs to one model version. For a vocabulary with B buckets and K known keys:

    0                none, or padding
    1 .. B           out-of-vocabulary buckets: an unknown key falls into 1 + key mod B
    B+1 .. B+K       the known keys, by falling frequency, then key

A model that starts from another one keeps its indices and appends (`Vocabulary.extend`).
"""

import dataclasses
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lake import storage

NONE_ID, OTHER_ID = "", "(other)"


@dataclasses.dataclass(frozen=True, eq=False)
class Vocabulary:
    """The known keys of one field, in the order of their indices.

    Attributes:
        field: whose keys they are: `item_id` or `category_id`.
        keys: int64 (K,), distinct, none of them 0.
        ids: the shop's own id of each, K strings.
        buckets: B, at least 1.
        counts: int64 (K,), events of each when it became known; 0 where nobody counted.

    Raises:
        ValueError: keys and ids do not fit together, a key is 0 or there twice, or there is no bucket.
    """

    field: str
    keys: NDArray[np.int64]
    ids: list[str]
    buckets: int
    counts: NDArray[np.int64] = dataclasses.field(default_factory=lambda: np.zeros(0, np.int64))

    def __post_init__(self) -> None:
        keys = np.asarray(self.keys, np.int64)
        counts = np.asarray(self.counts, np.int64) if len(self.counts) else np.zeros(len(keys), np.int64)
        if not len(keys) == len(self.ids) == len(counts):
            raise ValueError(
                f"keys, ids and counts of {self.field} must be equally long; "
                f"received {len(keys)} keys, {len(self.ids)} ids and {len(counts)} counts"
            )
        if len(np.unique(keys)) < len(keys) or (keys == 0).any():
            raise ValueError(f"keys of {self.field} must be distinct, and 0 means none; received {keys}")
        if self.buckets < 1:
            raise ValueError(f"buckets must be at least 1, for keys that nobody knows yet; received {self.buckets}")
        object.__setattr__(self, "keys", keys)
        object.__setattr__(self, "counts", counts)
        object.__setattr__(self, "ids", list(self.ids))

    @property
    def size(self) -> int:
        """Number of indices: 1 + B + K."""
        return 1 + self.buckets + len(self.keys)

    @cached_property
    def _sorted(self) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Return the keys in rising order, and the index of each."""
        order = np.argsort(self.keys)
        return self.keys[order], (order + 1 + self.buckets).astype(np.int32)

    def index(self, keys: NDArray[np.int64]) -> NDArray[np.int32]:
        """Return the int32 index of each int64 key, in the shape of `keys`.

        >>> Vocabulary("item_id", np.array([70, -5]), ["a", "b"], buckets=2).index(np.array([[0, 70], [-5, 9]]))
        array([[0, 3],
               [4, 2]], dtype=int32)
        """
        keys = np.asarray(keys, np.int64)
        # Python's kind of remainder, so not negative for a negative key either.
        other = np.where(keys == 0, 0, 1 + np.mod(keys, self.buckets)).astype(np.int32)
        if not len(self.keys):
            return other
        ordered, indices = self._sorted
        place = np.minimum(np.searchsorted(ordered, keys), len(ordered) - 1)
        return np.where(ordered[place] == keys, indices[place], other)

    def known(self, index: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Return True for each index of a known key; an index of none or of a bucket is not."""
        return np.asarray(np.greater(index, self.buckets), np.bool_)

    def unseen(self, keys: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return True for each key that is out of the vocabulary; key 0, no id, is not."""
        return np.asarray((np.asarray(keys) != 0) & ~self.known(self.index(keys)), np.bool_)

    def share_unseen(self, keys: NDArray[np.int64]) -> float:
        """Return the share of unseen ones among the keys that are not 0; 0 when there are none.

        >>> Vocabulary("item_id", np.array([70]), ["a"], buckets=2).share_unseen(np.array([0, 70, 70, 8]))
        0.3333333333333333
        """
        named = np.count_nonzero(keys)
        return float(np.count_nonzero(self.unseen(keys)) / named) if named else 0.0

    def id_of(self, index: int) -> str:
        """Return the raw id of an index: "" for none, "(other)" for a bucket.

        Raises:
            IndexError: there is no such index.
        """
        if not 0 <= index < self.size:
            raise IndexError(f"indices of {self.field} are 0 to {self.size - 1}; received {index}")
        if index <= self.buckets:
            return OTHER_ID if index else NONE_ID
        return self.ids[index - 1 - self.buckets]

    def extend(
        self, keys: NDArray[np.int64], ids: Sequence[str], counts: NDArray[np.int64] | None = None
    ) -> "Vocabulary":
        """Return a vocabulary in which all of this one keep their indices, and what is new follows in its order.

        Of a key that both know under different ids (a collision of hashes) the id of this one stays.
        """
        keys = np.asarray(keys, np.int64)
        new = np.flatnonzero(~self.known(self.index(keys)))
        added = np.zeros(len(new), np.int64) if counts is None else np.asarray(counts, np.int64)[new]
        return Vocabulary(
            self.field,
            np.concatenate([self.keys, keys[new]]),
            [*self.ids, *(ids[place] for place in new.tolist())],
            self.buckets,
            np.concatenate([self.counts, added]),
        )

    def save(self, folder: str) -> None:
        """Write a Parquet file into a folder: index, key, id and count of each known key."""
        table = pa.table(
            {
                "index": pa.array(np.arange(1 + self.buckets, self.size), pa.int32()),
                "key": pa.array(self.keys, pa.int64()),
                "id": pa.array(self.ids, pa.string()),
                "count": pa.array(self.counts, pa.int64()),
            }
        ).replace_schema_metadata({"buckets": str(self.buckets)})
        fs, inner = storage.filesystem(file_of(folder, self.field))
        fs.makedirs(fs._parent(inner), exist_ok=True)
        with fs.open(inner, "wb") as stream:
            pq.write_table(table, stream)

    @staticmethod
    def load(folder: str, field: str) -> "Vocabulary":
        """Return the vocabulary of a field that `save` wrote into a folder."""
        table = storage.read_file(file_of(folder, field))
        keys, counts = (table[name].to_numpy() for name in ("key", "count"))
        return Vocabulary(field, keys, table["id"].to_pylist(), int(table.schema.metadata[b"buckets"]), counts)


def file_of(folder: str, field: str) -> str:
    """Return where the vocabulary of a field lies in a folder."""
    return storage.join(folder, f"vocabulary_{field}.parquet")
