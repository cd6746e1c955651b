"""The key of an id without Spark: XXH64 of its UTF-8 bytes with seed 42, which Spark calls `xxhash64`.

Shapes: N texts, B bytes of each.
"""

from collections.abc import Sequence

import numpy as np

from model.arrays import Array

SEED = np.uint64(42)
P1, P2, P3, P4, P5 = (
    np.uint64(prime)
    for prime in (0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5)
)


def keys_of(ids: Sequence[str]) -> Array:
    """Return the key by which the tables name each id, `(N,)` int64.

    >>> keys_of(["a", "b"]).tolist()
    [-8582455328737087284, -6391946315847899181]
    """
    texts = [one.encode() for one in ids]
    sizes = np.fromiter((len(text) for text in texts), np.int64, len(texts))
    keys = np.zeros(len(texts), np.int64)
    # Texts of one length are hashed together.
    for size in np.unique(sizes):
        chosen = np.flatnonzero(sizes == size)
        joined = np.frombuffer(b"".join(texts[at] for at in chosen), np.uint8)
        keys[chosen] = _hashed(joined.reshape(len(chosen), size)).view(np.int64)
    return keys


def _hashed(texts: Array) -> Array:
    """Return the hash of each line of bytes, `(N, B)` uint8, as `(N,)` uint64."""
    # Sums and products of numpy's integers are those of 64 bits, as the hash wants them.
    n, size = texts.shape
    place = 0
    if size >= 32:
        lanes = [np.full(n, seed) for seed in _lane_seeds()]
        while place + 32 <= size:
            lanes = [_round(lane, _words(texts, place + 8 * at, 8)) for at, lane in enumerate(lanes)]
            place += 32
        one, two, three, four = lanes
        found = _rotated(one, 1) + _rotated(two, 7) + _rotated(three, 12) + _rotated(four, 18)
        for lane in lanes:
            found = (found ^ _round(np.zeros_like(lane), lane)) * P1 + P4
    else:
        found = np.full(n, SEED + P5)
    found = found + np.uint64(size)
    while place + 8 <= size:
        found = found ^ _round(np.zeros_like(found), _words(texts, place, 8))
        found, place = _rotated(found, 27) * P1 + P4, place + 8
    if place + 4 <= size:
        found, place = _rotated(found ^ _words(texts, place, 4) * P1, 23) * P2 + P3, place + 4
    for at in range(place, size):
        found = _rotated(found ^ texts[:, at].astype(np.uint64) * P5, 11) * P1
    found = (found ^ found >> np.uint64(33)) * P2
    found = (found ^ found >> np.uint64(29)) * P3
    return np.asarray(found ^ found >> np.uint64(32))


def _lane_seeds() -> list[np.uint64]:
    """Return where the four lanes of a long text begin."""
    with np.errstate(over="ignore"):
        return [SEED + P1 + P2, SEED + P2, SEED, SEED - P1]


def _words(texts: Array, place: int, size: int) -> Array:
    """Return the bytes from a place on as a number of each line, `(N,)` uint64."""
    part = np.ascontiguousarray(texts[:, place : place + size])
    return np.asarray(part.view(f"<u{size}")[:, 0].astype(np.uint64))


def _rotated(numbers: Array, bits: int) -> Array:
    return np.asarray(numbers << np.uint64(bits) | numbers >> np.uint64(64 - bits))


def _round(lane: Array, words: Array) -> Array:
    return np.asarray(_rotated(lane + words * P2, 31) * P1)
