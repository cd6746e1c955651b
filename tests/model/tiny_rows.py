"""A few rows with lists, in files and row groups of any length: what the tests of input, loop and launch read."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from model.data.features import pad
from model.data.input import Input

FIELDS = {"id": ("int64", ()), "items": ("int32", (4,)), "x": ("float32", (2,)), "y": ("float32", ())}
COLUMNS = ["id", "items", "a", "b", "y"]


def write(folder: Path, layout: list[list[int]], seed: int = 0) -> list[str]:
    """Write one file for each list of `layout`, with row groups of those lengths, and return the paths.

    Ids count up over all files. `y` depends on the items and on a and b, so that there is something to learn.
    """
    random = np.random.default_rng(seed)
    weights = random.normal(size=20)
    paths, next_id = [], 0
    for number, groups in enumerate(layout):
        path = folder / "examples" / f"stage=s{number % 2}" / f"dt=2017-01-{number + 1:02d}" / f"part-{number}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        tables = []
        for rows in groups:
            items = [random.integers(1, 20, random.integers(0, 7)) for _ in range(rows)]
            a, b = random.normal(size=(2, rows))
            y = [2 * p - q + weights[i[-4:]].sum() for p, q, i in zip(a, b, items, strict=True)]
            ids = range(next_id, next_id + rows)
            next_id += rows
            columns = [pa.array(ids, pa.int64()), pa.array(items, pa.list_(pa.int64())), *map(pa.array, (a, b))]
            columns.append(pa.array(y, pa.float64()))
            tables.append(pa.table(columns, COLUMNS))
        empty = pa.table([pa.array([], t) for t in _TYPES], COLUMNS)
        with pq.ParquetWriter(path, empty.schema) as writer:
            for table in tables:
                writer.write_table(table.cast(empty.schema))
        paths.append(str(path))
    return paths


_TYPES = [pa.int64(), pa.list_(pa.int64()), pa.float64(), pa.float64(), pa.float64()]


def transform(frame: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return the arrays of FIELDS for some rows."""
    return {
        "id": frame["id"].to_numpy(),
        "items": pad(frame["items"], 4, np.int32),
        "x": frame[["a", "b"]].to_numpy(np.float32),
        "y": frame["y"].to_numpy(np.float32),
    }


def source(paths: list[str], **options: Any) -> Input:
    """Return the input of files that `write` made."""
    return Input(paths, COLUMNS, transform, FIELDS, **options)
