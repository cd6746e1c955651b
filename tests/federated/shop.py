"""Stands in for the Python of a shop: adds a number to each array it is given, or does what the test asks for instead.

    python shop.py -m model.federated round --run-id R --arrays FILE --out FILE --passes N

Its environment says ADD, ROWS, and DOES: what is wrong with what it sends.
"""

import json
import os
import sys
from pathlib import Path

import numpy as np


def main() -> None:
    """Take one round."""
    asked = dict(zip(sys.argv[4::2], sys.argv[5::2], strict=True))
    with np.load(asked["--arrays"], allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    told = {
        "variables": sorted(os.environ),
        "arguments": sys.argv[1:4],
        "run": asked["--run-id"],
        "given": sorted(arrays),
    }
    Path(os.environ["TELLS"]).write_text(json.dumps(told), encoding="utf-8")
    sent = {"encoder": arrays.pop("encoder"), "rows": np.array(int(os.environ["ROWS"]))}
    sent |= {name: values + np.float32(os.environ["ADD"]) for name, values in arrays.items()}
    match os.environ["DOES"]:
        case "fails":
            sys.exit("no time in a row of ann")
        case "sends a list of users":
            sent["users"] = np.arange(7, dtype=np.float32)
        case "leaves one out":
            del sent["b/0"]
        case "cuts one":
            sent["a"] = sent["a"][:1]
        case "sends no number":
            sent["a"][0, 0] = np.nan
        case "has no rows":
            sent["rows"] = np.array(0)
        case "has another encoder":
            sent["encoder"] = np.array("f" * 64)
    with Path(asked["--out"]).open("wb") as stream:
        (np.savez_compressed if os.environ["DOES"] == "packs it" else np.savez)(stream, **sent)


if __name__ == "__main__":
    main()
