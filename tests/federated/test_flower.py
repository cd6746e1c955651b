"""Flower averages what shops send, in its own environment: `make federated` makes it; without it these are skipped."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

REPO = Path(__file__).resolve().parents[2]
FLOWER = REPO / ".venv-flower" / "bin" / "python"

pytestmark = pytest.mark.skipif(not FLOWER.exists(), reason="make federated installs Flower")

# Flower's program, in a process that may neither open a port nor call anybody.
WITHOUT_NETWORK = """
import runpy, sys
def refuse(event, _):
    if event in ("socket.bind", "socket.connect", "socket.getaddrinfo", "socket.sendto"):
        raise SystemExit(f"the network is used: {event}")
sys.addaudithook(refuse)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
FIRST = {"a": np.zeros((2, 3), np.float32), "b/0": np.ones(2, np.float32)}


@pytest.fixture
def flower(tmp_path):
    """Return what starts Flower for two rounds with two shops: one adds 1 and has 100 rows, two adds 2 and has 300."""

    def run(does: str = "", planted: str = "") -> subprocess.CompletedProcess:
        shops = [
            {
                "name": name,
                "run_id": f"run-{name}",
                "command": [str(FLOWER), str(Path(__file__).with_name("shop.py"))],
                "environment": {
                    "ADD": add,
                    "ROWS": rows,
                    "DOES": does if name == "two" else "",
                    "TELLS": str(tmp_path / f"{name}.json"),
                },
            }
            for name, add, rows in (("one", "1", "100"), ("two", "2", "300"))
        ]
        (tmp_path / "shops.json").write_text(json.dumps(shops))
        with (tmp_path / "first.npz").open("wb") as stream:
            np.savez(stream, **FIRST, encoder=np.array("e" * 64), rows=np.array(0))
        command = [FLOWER, "-c", WITHOUT_NETWORK, REPO / "federated" / "flower.py", "--rounds", "2"]
        for option in ("shops.json", "first.npz", "last.npz", "crossed.json"):
            name = {"first.npz": "arrays", "last.npz": "out"}.get(option, option.removesuffix(".json"))
            command += [f"--{name}", tmp_path / option]
        environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PLANTED": planted}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    return run


def test_arrays_are_averaged_by_rows_and_nothing_else_crosses(flower, tmp_path):
    done = flower(planted="a secret of who averages")
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "last.npz") as last:
        assert sorted(last.files) == ["a", "b/0", "encoder"]
        # (100 * 1 + 300 * 2) / 400 = 1.75 in each of two rounds.
        np.testing.assert_array_equal(last["a"], FIRST["a"] + np.float32(3.5))
        np.testing.assert_array_equal(last["b/0"], FIRST["b/0"] + np.float32(3.5))
        assert str(last["encoder"]) == "e" * 64
    crossed = json.loads((tmp_path / "crossed.json").read_text())
    message = {"arrays": ["a", "b/0"], "bytes": 4 * (6 + 2)}
    sent = [message | {"shop": shop, "numbers": {"rows": rows}} for shop, rows in (("one", 100), ("two", 300))]
    assert crossed == sent * 2
    for shop in ("one", "two"):
        told = json.loads((tmp_path / f"{shop}.json").read_text())
        assert told["given"] == ["a", "b/0", "encoder"]
        assert (told["arguments"], told["run"]) == (["-m", "model.federated", "round"], f"run-{shop}")
        # Python itself may set LC_CTYPE.
        assert set(told["variables"]) - {"LC_CTYPE"} == {"ADD", "ROWS", "DOES", "TELLS"}


@pytest.mark.parametrize(
    ("does", "message"),
    [
        ("fails", "RuntimeError: two could not train: its process ended with 1, and its own log says why"),
        ("sends a list of users", "arrays of other names or shapes"),
        ("leaves one out", "arrays of other names or shapes"),
        ("cuts one", "arrays of other names or shapes"),
        ("sends no number", "something else than finite 32-bit numbers"),
        ("has no rows", "must have learnt from a row at least, got 0"),
        ("has another encoder", "two has another pretrained encoder"),
        ("packs it", "must hold arrays that are not packed"),
    ],
)
def test_a_shop_that_does_anything_else_ends_the_training(flower, tmp_path, does, message):
    done = flower(does)
    assert done.returncode != 0
    assert message in done.stderr
    said = done.stderr[done.stderr.index("Traceback") :]
    assert "a row of ann" not in said
    assert not (tmp_path / "last.npz").exists()
