"""Petastorm on today's pyarrow and numpy: rows and order as pyarrow reads them, and nothing else that is changed."""

import importlib.metadata
import runpy
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from lake import storage
from model.data import petastorm_reader
from model.data.input import Input
from model.data.petastorm_reader import RowGroup, RowGroupReader

# Of each type a value, an empty or zero one, and null: (file, row group, row) by the place in the list.
TYPES: dict[str, tuple[pa.DataType, list[Any]]] = {
    "id": (pa.int64(), [1, 0, None]),
    "text": (pa.string(), ["straße", "", None]),
    "long_text": (pa.large_string(), ["a" * 300, "", None]),
    "price": (pa.decimal128(12, 2), [Decimal("12.30"), Decimal("0.00"), None]),
    "time": (pa.timestamp("us", tz="UTC"), [datetime(2017, 3, 1, 23, 59, 59, 999_999), datetime(1970, 1, 1), None]),
    "day": (pa.date32(), [date(2017, 3, 1), date(1970, 1, 1), None]),
    "flag": (pa.bool_(), [True, False, None]),
    "keys": (pa.list_(pa.int64()), [[3, 1, 2], [], None]),
    "baskets": (pa.list_(pa.list_(pa.int32())), [[[1, 2], [], [3]], [], None]),
    "named": (pa.struct([("a", pa.int32()), ("b", pa.string())]), [{"a": 1, "b": "x"}, {"a": None, "b": ""}, None]),
    "kind": (pa.dictionary(pa.int8(), pa.string()), ["new", "", None]),
}
# Rows of each row group of each file; a row group without rows is one that a writer may leave.
LAYOUT = [[4, 1, 7], [3], [2, 5]]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Files of all types, their values shifted from row to row, so that no two row groups are alike."""
    folder = tmp_path_factory.mktemp("rows")
    paths, row = [], 0
    for number, lengths in enumerate(LAYOUT):
        path = folder / f"stage=s{number % 2}" / f"dt=2017-01-0{number + 1}" / "part-0.parquet"
        path.parent.mkdir(parents=True)
        schema = pa.schema([("row", pa.int64()), *((name, of) for name, (of, _) in TYPES.items())])
        with pq.ParquetWriter(path, schema) as writer:
            for length in lengths:
                rows = range(row, row + length)
                columns = [pa.array([values[(r + r // 3) % 3] for r in rows], of) for of, values in TYPES.values()]
                writer.write_table(pa.table([pa.array(rows, pa.int64()), *columns], schema))
                row += length
        paths.append(str(path))
    return paths


def groups_of(paths: Sequence[str]) -> list[RowGroup]:
    found = []
    for path in paths:
        fs, inner = storage.filesystem(path)
        with fs.open(inner, "rb") as file:
            footer = pq.read_metadata(file)
        found += [RowGroup(path, i, footer.row_group(i).num_rows) for i in range(footer.num_row_groups)]
    return found


def frames(groups: Sequence[RowGroup], columns: Sequence[str]) -> list[pd.DataFrame]:
    """Return the frames that a reader gives to its transform, one for each of its answers."""
    seen: list[pd.DataFrame] = []

    def transform(frame: pd.DataFrame) -> pd.DataFrame:
        seen.append(frame)
        return pd.DataFrame({"place": [np.array([len(seen) - 1])]})

    reader = RowGroupReader(groups, columns, transform, [("place", np.dtype("int64"))])
    try:
        assert [int(answer.place[0, 0]) for answer in reader] == list(range(len(groups)))
    finally:
        reader.stop()
        reader.join()
    return seen


def by_pyarrow(group: RowGroup, columns: Sequence[str]) -> pd.DataFrame:
    fs, inner = storage.filesystem(group.path)
    with fs.open(inner, "rb") as file:
        return pq.ParquetFile(file).read_row_group(group.index, list(columns)).to_pandas()


def assert_same(frame: pd.DataFrame, expected: pd.DataFrame) -> None:
    assert set(frame.columns) == set(expected.columns)
    pd.testing.assert_frame_equal(frame[list(expected.columns)], expected)


@pytest.mark.parametrize("seed", range(3))
def test_row_groups_come_in_the_order_asked_for_and_hold_what_pyarrow_reads(files, seed):
    columns = ["row", *TYPES]
    groups = groups_of(files)
    # Every row group once, and two of them again: an evaluation repeats rows.
    order = [groups[i] for i in [*np.random.default_rng(seed).permutation(len(groups)), 0, 3]]
    read = frames(order, columns)
    assert len(read) == len(order) == 8
    for frame, group in zip(read, order, strict=True):
        assert_same(frame, by_pyarrow(group, columns))
    starts = dict(zip(groups, [0, 4, 5, 12, 15, 17], strict=True))
    assert [frame["row"].tolist() for frame in read] == [
        list(range(starts[group], starts[group] + group.rows)) for group in order
    ]


@pytest.mark.parametrize("name", TYPES)
def test_a_column_of_any_type_is_read_alone(files, name):
    for frame, group in zip(frames(groups_of(files), [name]), groups_of(files), strict=True):
        assert_same(frame, by_pyarrow(group, [name]))


def test_what_a_transform_returns_comes_back_as_it_was(files):
    def transform(frame: pd.DataFrame) -> pd.DataFrame:
        rows = frame["row"].to_numpy()
        return pd.DataFrame({"doubled": [rows * 2.0], "small": [rows.astype("int32")]})

    fields = [("doubled", np.dtype("float64")), ("small", np.dtype("int32"))]
    reader = RowGroupReader(groups_of(files)[:2], ["row"], transform, fields)
    answers = [next(reader), next(reader)]
    reader.stop()
    reader.join()
    assert [(a.doubled.tolist(), a.small.tolist(), a.small.dtype) for a in answers] == [
        ([[0, 2, 4, 6]], [[0, 1, 2, 3]], np.dtype("int32")),
        ([[8]], [[4]], np.dtype("int32")),
    ]


def test_partitions_are_those_that_pyarrow_finds_in_the_paths(files):
    folder = Path(files[0]).parents[2]
    expected = pa.dataset.dataset(folder, partitioning="hive").to_table(["row", "stage", "dt"]).to_pandas()
    rows = Input(
        files,
        ["row", "stage", "dt"],
        lambda frame: {
            "row": frame["row"].to_numpy(),
            "stage": frame["stage"].str[1:].to_numpy("int64"),
            "day": frame["dt"].str[-2:].to_numpy("int64"),
        },
        {"row": ("int64", ()), "stage": ("int64", ()), "day": ("int64", ())},
    )
    read = [
        tuple(map(int, row)) for b in rows.once(2).batches() for row in zip(b["row"], b["stage"], b["day"], strict=True)
    ]
    assert read == sorted((row.row, int(row.stage[1:]), int(row.dt[-2:])) for row in expected.itertuples())


def test_an_object_store_gives_the_same_rows(files, lake_on_s3):
    copies = []
    for path in files:
        copy = storage.join(lake_on_s3, "rows", *Path(path).parts[-3:])
        fs, inner = storage.filesystem(copy)
        fs.put_file(path, inner)
        copies.append(copy)
    columns = ["row", *TYPES]
    for frame, group in zip(frames(groups_of(copies)[::-1], columns), groups_of(files)[::-1], strict=True):
        assert_same(frame, by_pyarrow(group, columns))


def test_readers_in_several_threads_do_not_disturb_each_other(files):
    groups = groups_of(files)
    orders = [[groups[i] for i in np.random.default_rng(seed).permutation(len(groups))] * 5 for seed in range(8)]
    with ThreadPoolExecutor(len(orders)) as pool:
        read = list(pool.map(lambda order: frames(order, ["row", "baskets"]), orders))
    for order, given in zip(orders, read, strict=True):
        for frame, group in zip(given, order, strict=True):
            assert_same(frame, by_pyarrow(group, ["row", "baskets"]))


def test_pyarrow_and_numpy_stay_as_they_are():
    script = """
import sys
import numpy, pyarrow, pyarrow.parquet
from lake import storage
rooms = [numpy, pyarrow, pyarrow.lib, pyarrow.parquet, pyarrow.parquet.core]
before = [dict(vars(room)) for room in rooms]
from model.data import petastorm_reader
for room, names in zip(rooms, before):
    # Submodules that are imported on the way become attributes of their packages.
    new = {name: value for name, value in vars(room).items() if names.get(name) is not value}
    assert all(f"{room.__name__}.{name}" in sys.modules for name in new), (room, new)
assert "pyarrow.filesystem" not in sys.modules and "petastorm.hdfs.namenode" not in sys.modules
assert not hasattr(numpy, "unicode_") and not hasattr(pyarrow.parquet, "ParquetDatasetPiece")
assert "pyspark" not in sys.modules and "tensorflow" not in sys.modules
"""
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True)


def test_another_version_of_petastorm_is_refused(monkeypatch):
    installed = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata, "version", lambda name: "0.14.0" if name == "petastorm" else installed(name)
    )
    with pytest.raises(ImportError, match=r"petastorm 0\.14\.0 is installed, .*Install petastorm==0\.13\.1, or"):
        runpy.run_path(petastorm_reader.__file__)


def test_an_error_of_the_transform_reaches_the_caller_and_ends_the_thread(files, capsys):
    def transform(frame: pd.DataFrame) -> pd.DataFrame:
        raise KeyError("price")

    reader = RowGroupReader(groups_of(files), ["row"], transform, [("x", np.dtype("int64"))])
    with pytest.raises(KeyError, match="price"):
        next(reader)
    reader.stop()
    reader.join()
    assert "Worker 0 terminated" in capsys.readouterr().err
