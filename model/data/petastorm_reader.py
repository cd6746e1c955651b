"""Rows of chosen Parquet row groups in a chosen order, by a Petastorm reader.

The only module that imports Petastorm. Petastorm 0.13.1 was written for names that pyarrow 16 and numpy 2 removed; here
they are given to Petastorm's own modules, and to nobody else: `pyarrow` and `numpy` stay as they are.

| Petastorm asks for | and gets |
| --- | --- |
| `pyarrow.filesystem.LocalFileSystem` (import of `petastorm.utils`) | an empty class, while it is imported |
| `petastorm.hdfs.namenode` (import of `petastorm.fs_utils`; needs `pyarrow.hdfs`) | two empty classes, as long |
| `pyarrow.parquet.ParquetDataset` with `pieces`, `fs`, `metadata`, `common_metadata` | `_Dataset` |
| `pyarrow.parquet.ParquetDatasetPiece` with `path`, `row_group`, `partition_keys`, `get_metadata` | `_Piece` |
| `infer_or_load_unischema`, which leaves out lists of lists and other types | `_schema`, with every column |
| `numpy.unicode_` | `numpy.str_` |
"""

import logging
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from lake import storage

WRITTEN_FOR = "0.13.1"
if version("petastorm") != WRITTEN_FOR:
    raise ImportError(
        f"petastorm {version('petastorm')} is installed, and {__file__} replaces names inside of petastorm "
        f"{WRITTEN_FOR}. Install petastorm=={WRITTEN_FOR}, or take that module's table and tests to the other version."
    )


def _module(name: str, **attributes: Any) -> ModuleType:
    module = ModuleType(name)
    vars(module).update(attributes)
    return module


@contextmanager
def _importable(*modules: ModuleType) -> Iterator[None]:
    """Let these modules be imported by their names, inside of the block alone."""
    before = {module.__name__: sys.modules.get(module.__name__) for module in modules}
    sys.modules.update({module.__name__: module for module in modules})
    try:
        yield
    finally:
        for name, module in before.items():
            del sys.modules[name]
            if module is not None:
                sys.modules[name] = module


with _importable(
    _module("pyarrow.filesystem", LocalFileSystem=type("LocalFileSystem", (), {})),
    _module(
        "petastorm.hdfs.namenode",
        HdfsNamenodeResolver=type("HdfsNamenodeResolver", (), {}),
        HdfsConnector=type("HdfsConnector", (), {}),
    ),
):
    from petastorm import arrow_reader_worker, reader, unischema
    from petastorm.etl import dataset_metadata
    from petastorm.transform import TransformSpec
    from petastorm.workers_pool.thread_pool import ThreadPool

# Of every reader it says that the table was not written by Petastorm.
logging.getLogger("petastorm").setLevel(logging.WARNING)


@dataclass(frozen=True)
class RowGroup:
    """One row group of one file and its number of rows."""

    path: str
    index: int
    rows: int


@dataclass(frozen=True)
class _Piece:
    """A file, or one row group of it."""

    path: str
    open_file_func: Callable[[str], Any]
    row_group: int | None = None
    partition_keys: Sequence[tuple[str, int]] = ()

    def get_metadata(self) -> Any:
        with self.open_file_func(self.path) as file:
            return pq.read_metadata(file)


class _Dataset:
    """Parquet files of one schema, none of them written by Petastorm. Their paths are not searched for partitions."""

    metadata = common_metadata = None

    def __init__(self, paths: Sequence[str], filesystem: "_Files", **_options: Any):
        self.fs = filesystem
        self.pieces = [_Piece(path, filesystem.open) for path in paths]


class _Files:
    """Opens files of a local disk, or of a store that fsspec knows.

    Local files are opened without Python in between: Petastorm does not close them, of which Python's own would warn.
    """

    def __init__(self, fs: Any):
        self.fs = fs

    def open(self, path: str) -> Any:
        return pa.OSFile(path, "rb") if isinstance(self.fs, LocalFileSystem) else self.fs.open(path, "rb")


class _Worker(arrow_reader_worker.ArrowReaderWorker):  # type: ignore[misc]
    """Petastorm's worker, which reads a row group by the file that it has opened for it, and closes that file.

    Its own way opens the file and reads the footer a second time, and copies all rows into the order they have already.
    """

    def _read_with_shuffle_row_drop(self, piece: _Piece, file: pq.ParquetFile, columns: set[str], _: Any) -> pa.Table:
        try:
            return file.read_row_group(piece.row_group, sorted(columns))
        finally:
            file.close(force=True)  # Petastorm had opened it, not pyarrow


def _schema(dataset: _Dataset) -> unischema.Unischema:
    """Return every column of the files. Types do not matter: frames are Arrow's, and `TransformSpec` names its own."""
    names = dataset.pieces[0].get_metadata().schema.to_arrow_schema().names
    return unischema.Unischema("columns", [unischema.UnischemaField(name, np.object_, ()) for name in names])


_parquet = _module("pyarrow.parquet for Petastorm", ParquetDataset=_Dataset, ParquetDatasetPiece=_Piece)
reader.pq = dataset_metadata.pq = arrow_reader_worker.pq = _parquet
reader.infer_or_load_unischema = _schema
arrow_reader_worker.np = _module("numpy for Petastorm", unicode_=np.str_, __getattr__=lambda name: getattr(np, name))


class RowGroupReader(reader.Reader):  # type: ignore[misc]
    """Reads these row groups in this order, one at a time, in a thread of its own.

    `make_batch_reader` reads all row groups of its files, in their order or a random one. This is the one place in
    which a reader chooses. Iterating yields a named tuple for each row group, of what `transform` made of its frame.

    Args:
        groups: row groups of files of one schema.
        columns: the columns to decode; columns that only the path has are not among them.
        transform: makes a frame of one row, its cells flat numpy arrays, of the frame of a row group.
        fields: (name, numpy type) of each column of what `transform` returns.
    """

    def __init__(
        self,
        groups: Sequence[RowGroup],
        columns: Iterable[str],
        transform: Callable[[Any], Any],
        fields: Sequence[tuple[str, np.dtype[Any]]],
    ):
        self._groups = groups
        fs, _ = storage.filesystem(groups[0].path)
        super().__init__(
            _Files(fs),
            list(dict.fromkeys(storage.filesystem(group.path)[1] for group in groups)),
            schema_fields=[re.escape(column) for column in columns],
            worker_class=_Worker,
            # One thread, the only way to a fixed order of results.
            reader_pool=ThreadPool(1, results_queue_size=1),
            shuffle_row_groups=False,
            is_batched_reader=True,
            transform_spec=TransformSpec(
                transform,
                # One dimension only: Petastorm handles further ones row by row.
                edit_fields=[(name, dtype, (None,), False) for name, dtype in fields],
                selected_fields=[name for name, _ in fields],
            ),
            convert_early_to_numpy=True,
        )

    def __next__(self) -> Any:
        # Petastorm asks first whether its thread is done with all it was given and then whether all was given. When the
        # last row groups are given in between, it says that the end has come and would lose them.
        try:
            return super().__next__()
        except StopIteration:
            return super().__next__()

    def _filter_row_groups(self, _dataset: Any, row_groups: Any, *_: Any) -> tuple[list[int], None]:
        place = {(piece.path, piece.row_group): i for i, piece in enumerate(row_groups)}
        return [place[storage.filesystem(group.path)[1], group.index] for group in self._groups], None
