"""Checkpoints: whole or not there, the newest in force, any type of number."""

from unittest.mock import Mock

import ml_dtypes
import numpy as np
import pytest

from lake import storage
from model.training import checkpoint
from model.training.checkpoint import load, save

ARRAYS = {
    "now/0": np.arange(6, dtype="float32").reshape(2, 3),
    "now/1": np.array(3, "int64"),
    "best/dense/kernel": np.array([1.5, -2], ml_dtypes.bfloat16),
    "flags": np.array([True, False]),
}
STATE = {"epoch": 1, "history": [{"loss": 0.1 + 0.2}], "best": None}


@pytest.fixture(params=["local", "memory"])
def folder(request, tmp_path):
    return str(tmp_path / "checkpoint") if request.param == "local" else f"memory://{tmp_path.name}/checkpoint"


def test_what_is_saved_comes_back_to_the_bit(folder):
    assert load(folder) is None
    save(folder, 7, ARRAYS, STATE)
    found = load(folder)
    assert found.state == STATE
    assert list(found.arrays) == list(ARRAYS)
    for name, value in ARRAYS.items():
        assert found.arrays[name].dtype == value.dtype
        assert found.arrays[name].shape == value.shape
        assert found.arrays[name].tobytes() == value.tobytes()


def test_a_save_replaces_the_one_before(folder):
    for step in (1, 2, 3):
        save(folder, step, {"step": np.array(step)}, {"step": step})
    assert load(folder).state == {"step": 3}
    assert len({path.split("/")[0] for path in storage.list_files(folder)} - {"current.json"}) == 1


@pytest.mark.parametrize("dies_at", ["arrays.npz", "state.json", "current.json"])
def test_whoever_dies_while_saving_leaves_the_checkpoint_before(folder, monkeypatch, dies_at):
    save(folder, 1, {"step": np.array(1)}, {"step": 1})
    real = storage.write_json

    def write(path, content):
        if path.endswith(dies_at):
            raise KeyboardInterrupt
        real(path, content)

    def savez(file, **arrays):
        file.write(b"half of")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(storage, "write_json", write)
        if dies_at == "arrays.npz":
            patch.setattr(np, "savez", savez)
        with pytest.raises(KeyboardInterrupt):
            save(folder, 2, {"step": np.array(2)}, {"step": 2})
    assert load(folder).state == {"step": 1}
    save(folder, 3, {"step": np.array(3)}, {"step": 3})
    assert load(folder).state == {"step": 3}


def test_what_a_save_that_was_killed_has_left_goes_with_the_next_one(tmp_path, monkeypatch):
    folder = str(tmp_path / "checkpoints")
    save(folder, 1, {"step": np.array(1)}, {"key": "secret"})
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "_drop", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            save(folder, 2, {"step": np.array(2)}, {"key": "secret"})
    save(folder, 3, {"step": np.array(3)}, {"key": ""})
    texts = [path.read_text() for path in tmp_path.rglob("*.json")]
    assert len(texts) == 2, "the pointer and the state that it names"
    assert not any("secret" in text for text in texts)


def test_a_pointer_to_nothing_is_told_apart_from_no_checkpoint(tmp_path):
    storage.write_json(str(tmp_path / "current.json"), {"step": "step-00000001-gone"})
    with pytest.raises(FileNotFoundError, match="names step-00000001-gone as its checkpoint"):
        load(str(tmp_path))
