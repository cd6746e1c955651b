"""Checkpoints: folders that are written whole and then made current by one small file.

    <folder>/current.json                 {"step": "step-00000120-1f0c9a3e"}
    <folder>/step-00000120-1f0c9a3e/arrays.npz   every array, by name
    <folder>/step-00000120-1f0c9a3e/state.json   the rest

A reader follows `current.json`, so whoever dies while writing leaves the checkpoint before in force. Any storage that
fsspec speaks will do; with workers on several hosts it has to be one that all of them see.
"""

import io
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import numpy as np

from lake import storage
from model.arrays import Array

log = logging.getLogger("meander")

Arrays = Mapping[str, Array]


@dataclass(frozen=True)
class Checkpoint:
    """What one save kept: arrays by name, and a dict that JSON can hold."""

    arrays: dict[str, Array]
    state: dict[str, Any]


def save(folder: str, step: int, arrays: Arrays, state: Mapping[str, Any]) -> None:
    """Write a checkpoint, make it the current one, and drop those before it.

    Args:
        folder: of all checkpoints of one training.
        step: part of the name, for people.
        arrays: of any numpy type, also those that ml_dtypes adds (bfloat16).
        state: everything else.
    """
    name = f"step-{step:08d}-{uuid4().hex[:8]}"
    fs, inner = storage.filesystem(storage.join(folder, name))
    fs.makedirs(inner, exist_ok=True)
    # numpy writes the types of ml_dtypes as nameless bytes, so they go as integers of their size with a note.
    foreign = {key: value.dtype.name for key, value in arrays.items() if value.dtype.kind == "V"}
    plain = {key: value.view(f"u{value.dtype.itemsize}") if key in foreign else value for key, value in arrays.items()}
    # Array names hold slashes, which are no good as names of zip members; they are listed in their order instead.
    numbered = {str(i): value for i, value in enumerate(plain.values())}
    with fs.open(storage.join(inner, "arrays.npz"), "wb") as file:
        np.savez(file, **numbered)  # type: ignore[arg-type]  # no array is named as its one option, `allow_pickle`
    storage.write_json(
        storage.join(folder, name, "state.json"), {"names": list(plain), "foreign": foreign, "state": dict(state)}
    )
    storage.write_json(storage.join(folder, "current.json"), {"step": name})
    # Also what a save that was killed has left: a state may hold what nobody may know once the training is done.
    for old in sorted({path.split("/", 1)[0] for path in storage.list_files(folder) if "/" in path} - {name}):
        _drop(folder, old)
    log.info("checkpoint: step %d in %s", step, storage.join(folder, name))


def load(folder: str) -> Checkpoint | None:
    """Return the current checkpoint of a folder, or None when there is none."""
    current = storage.read_json(storage.join(folder, "current.json"))
    if current is None:
        return None
    content = storage.read_json(storage.join(folder, current["step"], "state.json"))
    if content is None:
        raise FileNotFoundError(f"{folder} names {current['step']} as its checkpoint, but that folder is not whole")
    fs, inner = storage.filesystem(storage.join(folder, current["step"], "arrays.npz"))
    with np.load(io.BytesIO(fs.cat_file(inner))) as stored:
        arrays = {key: stored[str(i)] for i, key in enumerate(content["names"])}
    arrays = {
        key: value.view(np.dtype(content["foreign"][key])) if key in content["foreign"] else value
        for key, value in arrays.items()
    }
    return Checkpoint(arrays, content["state"])


def _drop(folder: str, name: str) -> None:
    fs, inner = storage.filesystem(storage.join(folder, name))
    try:
        fs.rm(inner, recursive=True)
    except FileNotFoundError:
        log.info("checkpoint: %s was gone already", name)
