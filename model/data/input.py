"""Rows of one pinned table version, by Petastorm, as batches of static shape.

Which rows make up the global batch of a step depends on the files, the seed, the epoch, the global batch and the
number of shards, never on the number of workers or on timing:

1. An epoch's order is its row groups, shuffled by (seed, epoch). Their lengths come from the Parquet footers, so every
   worker knows the whole plan before it reads a row, and every worker gets the same number of steps.
2. The rows in that order are cut into `shards` ranges of equal length; what is left over at the end is skipped in this
   epoch. Shard s of S belongs to worker `s * workers // shards`.
3. Inside a shard, rows are shuffled within a window of `shuffle_rows`: a row is sorted by its place plus a random
   number below the window, so that at most about a window of rows waits in memory.
4. The global batch of step k is slice k of every shard, in the order of the shards.

Since the order is known beforehand, an epoch is resumed at any step: only the row groups are read of which some row is
still to come. Every shard has a Petastorm reader of its own. With `keep_bytes`, what was made of a row group stays
(kept.py), and later epochs read it no more: they differ in their order alone.

The caller gives `transform`, which turns the frame of one row group into arrays of fixed shape, and `fields`, which
declares them:

    data = Input(files, ["item_keys", "count"], transform, {"items": ("int32", (50,)), "count": ("float32", ())})
    epoch = data.epoch(0, global_batch=512, shards=4, seed=1)
    for batch in epoch.batches():
        batch["items"], batch["weight"]     # (512, 50) int32, (512,) float32
    epoch.counts                            # rows read, used, skipped, repeated

`weight` is added to every batch: 1, or 0 for the rows that only fill up the last batches of an evaluation.
Partition columns (`dt`, `stage`) are not in the files; asked for in `columns`, they are taken from the path.
"""

import logging
import re
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import date
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from lake import storage
from lake.errors import InputInvalid
from lake.table import Table
from model.arrays import Array
from model.data.kept import Kept, bytes_of
from model.data.petastorm_reader import RowGroup, RowGroupReader

log = logging.getLogger("meander")

Transform = Callable[[pd.DataFrame], Mapping[str, Array]]
Fields = Mapping[str, tuple[Any, tuple[int, ...]]]
Batch = dict[str, Array]


@dataclass
class Counts:
    """Rows of one epoch on one worker.

    Added up over all workers of an undisturbed epoch, `used + skipped == total`.

    Attributes:
        total: rows in all files, the same on every worker.
        read: rows that came out of the readers. More than `used` where a row group lies across the edge of a shard, or
            where an epoch is resumed; fewer where an epoch before has kept them.
        used: rows put into batches with weight 1.
        skipped: rows that no worker uses in this epoch because they do not fill a global batch; counted on worker 0.
        repeated: rows put into batches again, with weight 0, so that an evaluation has whole batches.
    """

    total: int = 0
    read: int = 0
    used: int = 0
    skipped: int = 0
    repeated: int = 0


@dataclass(frozen=True)
class _Piece:
    """A row group as a shard needs it: rows `start..stop` of it are places `place..` of the shard."""

    group: RowGroup
    start: int
    stop: int
    place: int


@dataclass(frozen=True)
class Input:
    """Where rows come from and what is made of them.

    Args:
        files: paths or addresses of Parquet files, of one table version, all of one schema.
        columns: the columns that `transform` needs; no other is decoded.
        transform: called with a frame of the rows of one row group (list columns hold numpy arrays), in a reader
            thread. Returns one array for each of `fields`, its first dimension being the rows of the frame.
        fields: {name: (dtype, shape of one row)}; `weight` is taken.
        shuffle_rows: rows of the shuffle window of each shard; about as many are held in memory. 0 keeps the order.
        keep_bytes: when the arrays of all rows are no larger, they are kept in a temporary file for later epochs.

    Raises:
        InputInvalid: there is no file, or one lacks a column.
    """

    files: Sequence[str]
    columns: Sequence[str]
    transform: Transform
    fields: Fields
    shuffle_rows: int = 16_384
    keep_bytes: int = 0

    def __post_init__(self) -> None:
        if not self.files:
            raise InputInvalid("files is empty: no file of the table lies in the days asked for")
        if "weight" in self.fields:
            raise InputInvalid("fields declares 'weight', which every batch gets anyway; name yours otherwise")

    @classmethod
    def of_table(cls, table: Table, days: Iterable[date], columns: Sequence[str], *args: Any, **kwargs: Any) -> "Input":
        """Return the input of some days (`dt`) of a pinned table version."""
        wanted = set(days)
        files = [storage.join(table.path, file.path) for file in table.files if file.partition["dt"] in wanted]
        return cls(files, columns, *args, **kwargs)

    @cached_property
    def row_groups(self) -> list[RowGroup]:
        """Every row group with rows, in the order of `files`; read from the footers once."""

        def groups(path: str) -> list[RowGroup]:
            with storage.parquet_file(path) as file:
                footer = file.metadata
            missing = set(self.columns) - set(footer.schema.to_arrow_schema().names) - set(_partition(path))
            if missing:
                raise InputInvalid(f"columns asks for {', '.join(sorted(missing))}, which {path} does not have")
            return [RowGroup(path, i, footer.row_group(i).num_rows) for i in range(footer.num_row_groups)]

        with ThreadPoolExecutor(max_workers=16) as pool:
            return [group for of_file in pool.map(groups, self.files) for group in of_file if group.rows]

    @property
    def rows(self) -> int:
        """Rows in all files."""
        return sum(group.rows for group in self.row_groups)

    @cached_property
    def kept(self) -> Kept | None:
        """What epochs have made of the rows so far; None where it is not kept."""
        size = bytes_of(self.fields, self.rows)
        if size > self.keep_bytes:
            return None
        try:
            return Kept(self.row_groups, self.fields)
        except OSError as error:
            log.warning(
                "input: no room for %d MiB in %s (%s), so each epoch makes its arrays anew; set TMPDIR to a disk with "
                "more room to train faster",
                size >> 20, tempfile.gettempdir(), error,
            )  # fmt: skip
            return None

    def steps(self, global_batch: int) -> int:
        """Return the whole global batches in an epoch of training."""
        return self.rows // global_batch

    def epoch(
        self,
        epoch: int,
        global_batch: int,
        shards: int = 1,
        worker: int = 0,
        workers: int = 1,
        seed: int = 0,
        start_step: int = 0,
    ) -> "Epoch":
        """Return the batches of a training epoch on one worker, shuffled by (seed, epoch), from `start_step` on.

        Every row is seen at most once.

        Raises:
            InputInvalid: the rows do not make one global batch, or the sizes do not divide.
        """
        _require_layout(global_batch, shards, workers)
        steps = self.steps(global_batch)
        if not steps:
            raise InputInvalid(f"global_batch is {global_batch}, but there are only {self.rows} rows; choose less")
        random = np.random.default_rng([seed, epoch])
        groups = [self.row_groups[i] for i in random.permutation(len(self.row_groups))]
        return Epoch(self, groups, steps, start_step, global_batch, shards, worker, workers, (seed, epoch))

    def once(self, global_batch: int, shards: int = 1, worker: int = 0, workers: int = 1) -> "Epoch":
        """Return the batches of an evaluation on one worker: every row once, in order, filled up with weight 0.

        Raises:
            InputInvalid: there is no row, or the sizes do not divide.
        """
        _require_layout(global_batch, shards, workers)
        if not self.rows:
            raise InputInvalid("no file has a row: there is nothing to evaluate on")
        steps = -(-self.rows // global_batch)
        return Epoch(self, self.row_groups, steps, 0, global_batch, shards, worker, workers, None)


def _require_layout(global_batch: int, shards: int, workers: int) -> None:
    if global_batch % shards:
        raise InputInvalid(f"global_batch must be a multiple of shards, got {global_batch} and {shards}")
    if shards % workers:
        raise InputInvalid(f"shards must be a multiple of workers, got {shards} and {workers}; use --shards {workers}")


def _partition(path: str) -> dict[str, str]:
    return dict(re.findall(r"([^/=]+)=([^/=]+)(?=/)", path))


@dataclass
class Epoch:
    """One pass over an `Input` on one worker; made by `Input.epoch` and `Input.once`.

    Attributes:
        steps: steps of the whole pass, the same on every worker.
        start_step: the first step that is given out.
        counts: rows so far; final once the batches are used up.
    """

    source: Input
    groups: list[RowGroup]
    steps: int
    start_step: int
    global_batch: int
    shards: int
    worker: int
    workers: int
    seeds: tuple[int, int] | None
    counts: Counts = field(default_factory=Counts)

    @property
    def batch(self) -> int:
        """Rows of a batch on this worker."""
        return self.global_batch // self.workers

    def batches(self) -> Generator[Batch, None, None]:
        """Yield the batches as numpy arrays `(batch, ...)`. Counts start anew with each call."""
        rows = sum(group.rows for group in self.groups)
        self.counts.__init__(total=rows)  # type: ignore[misc]
        if self.worker == 0:
            self.counts.skipped = max(0, rows - self.steps * self.global_batch)
        own = self.shards // self.workers
        streams = [_Stream(self, shard) for shard in range(self.worker * own, (self.worker + 1) * own)]
        try:
            for step in range(self.start_step, self.steps):
                slices = [stream.slice(step) for stream in streams]
                yield {name: np.concatenate([part[name] for part in slices]) for name in slices[0]}
        finally:
            for stream in streams:
                stream.close()
            log.info("input: %s worker=%d/%d %s", self._name, self.worker, self.workers, asdict(self.counts))

    @property
    def _name(self) -> str:
        return f"epoch={self.seeds[1]} from step {self.start_step}" if self.seeds else "evaluation"


class _Slots:
    """Where rows wait from being read to being used: arrays with a slot for each.

    A place of the shard gets a slot when its row group is read and gives it back when it is used.
    """

    def __init__(self, fields: Fields, wanted: Array):
        self.fields, self.wanted = fields, wanted
        self.slot = np.full(len(wanted), -1, np.int32)
        self.store: Batch = {}
        self.slots = 0
        self.free = np.empty(0, np.int32)

    def put(self, piece: _Piece, arrays: Batch) -> None:
        places = np.arange(piece.place, piece.place + piece.stop - piece.start)
        wanted = self.wanted[places]
        rows = np.arange(piece.start, piece.stop)[wanted]
        slots = self._take(len(rows))
        self.slot[places[wanted]] = slots
        for name, values in arrays.items():
            self.store[name][slots] = values[rows]

    def take(self, places: Array) -> Batch:
        slots = self.slot[places]
        self.free = np.concatenate([self.free, slots])
        return {name: values[slots] for name, values in self.store.items()}

    def _take(self, count: int) -> Array:
        """Return free slots, making more when there are too few."""
        if len(self.free) < count:
            now = self.slots
            more = max(count - len(self.free), now // 4)
            self.slots += more
            for name, (dtype, shape) in self.fields.items():
                new = np.empty((now + more, *shape), dtype)
                if name in self.store:
                    new[:now] = self.store[name]
                self.store[name] = new
            self.free = np.concatenate([self.free, np.arange(now, now + more, dtype=np.int32)])
        taken, self.free = self.free[:count], self.free[count:]
        return taken


class _KeptRows:
    """The rows of a shard among those that are kept."""

    def __init__(self, kept: Kept, pieces: list[_Piece], places: int):
        self.kept = kept
        self.row = np.zeros(places, np.int64)
        for piece in pieces:
            rows = kept.first[piece.group] + np.arange(piece.start, piece.stop)
            self.row[piece.place : piece.place + len(rows)] = rows

    def put(self, piece: _Piece, arrays: Batch) -> None:
        self.kept.put(piece.group, arrays)

    def take(self, places: Array) -> Batch:
        rows = self.row[places]
        return {name: values[rows] for name, values in self.kept.arrays.items()}


class _Stream:
    """The rows of one shard in the order of the epoch: slice k goes to step k.

    `order` says which place of the shard comes when.
    """

    def __init__(self, epoch: Epoch, shard: int):
        self.epoch = epoch
        self.size = epoch.global_batch // epoch.shards
        places = epoch.steps * self.size
        self.begin = shard * places  # of this shard's places among those of all shards
        self.order = self._shuffled(places, shard)
        # A place that was used before `start_step` needs no row any more.
        wanted = np.ones(places, bool)
        wanted[self.order[: epoch.start_step * self.size]] = False
        pieces = [p for p in self._pieces(places) if wanted[p.place : p.place + p.stop - p.start].any()]
        kept = epoch.source.kept
        self.rows = _Slots(epoch.source.fields, wanted) if kept is None else _KeptRows(kept, pieces, places)
        if kept is not None:
            # An evaluation that repeats rows has the first row groups twice. Another shard may be about to read one of
            # these as well: it needs it at another time.
            first = {piece.group: piece for piece in reversed(pieces)}
            pieces = [piece for piece in pieces if piece.group not in kept and first[piece.group] is piece]
        self.pieces = pieces
        self.next_piece = 0
        self.reader: RowGroupReader | None = None
        # For the reader thread: it transforms the pieces in their order.
        self.transformed = iter(self.pieces)

    def _shuffled(self, places: int, shard: int) -> Array:
        window = self.epoch.source.shuffle_rows
        if self.epoch.seeds is None or window < 2:
            return np.arange(places)
        random = np.random.default_rng([*self.epoch.seeds, shard])
        if window >= places:
            return random.permutation(places)
        return np.argsort(np.arange(places) + random.random(places) * window, kind="stable")

    def _pieces(self, places: int) -> Iterator[_Piece]:
        """Cut the row groups, over and over where an evaluation repeats rows, to the range of this shard."""
        rows = sum(group.rows for group in self.epoch.groups)
        at = self.begin // rows * rows
        while at < self.begin + places:
            for group in self.epoch.groups:
                start, stop = max(at, self.begin), min(at + group.rows, self.begin + places)
                if start < stop:
                    yield _Piece(group, start - at, stop - at, start - self.begin)
                at += group.rows

    def slice(self, step: int) -> Batch:
        """Return the rows of one step."""
        places = self.order[step * self.size : (step + 1) * self.size]
        self._read_up_to(int(places.max()))
        batch = self.rows.take(places)
        total = self.epoch.counts.total
        real = self.begin + places < total
        batch["weight"] = real.astype(np.float32)
        used = int(real.sum())
        self.epoch.counts.used += used
        self.epoch.counts.repeated += len(places) - used
        return batch

    def _read_up_to(self, place: int) -> None:
        while self.next_piece < len(self.pieces) and self.pieces[self.next_piece].place <= place:
            if self.reader is None:
                self.reader = self._open()
            piece = self.pieces[self.next_piece]
            self.next_piece += 1
            flat = next(self.reader)._asdict()
            self.epoch.counts.read += piece.group.rows
            fields = self.epoch.source.fields.items()
            shaped = {n: flat[n].view(dtype).reshape(piece.group.rows, *shape) for n, (dtype, shape) in fields}
            self.rows.put(piece, shaped)

    def _open(self) -> RowGroupReader:
        source = self.epoch.source
        in_files = [c for c in source.columns if c not in _partition(self.pieces[0].group.path)]
        return RowGroupReader(
            [piece.group for piece in self.pieces],
            in_files,
            self._transform,
            [(name, _plain(dtype)) for name, (dtype, _) in source.fields.items()],
        )

    def _transform(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Hand the arrays through Petastorm as a frame of one row, each cell a whole array laid flat.

        A cell for each row costs Petastorm and Arrow several microseconds a row and field; one cell for all costs a
        copy.
        """
        source = self.epoch.source
        piece = next(self.transformed)
        for column, value in _partition(piece.group.path).items():
            if column in source.columns:
                frame[column] = value
        arrays = source.transform(frame)
        if set(arrays) != set(source.fields):
            raise InputInvalid(f"transform returned {sorted(arrays)}, but fields declares {sorted(source.fields)}")
        cells: dict[str, list[Array]] = {}
        for name, (dtype, shape) in source.fields.items():
            values = np.asarray(arrays[name])
            if values.shape != (len(frame), *shape) or values.dtype != np.dtype(dtype):
                raise InputInvalid(
                    f"transform returned {name} as {values.dtype} {values.shape} for {len(frame)} rows; "
                    f"fields declares {np.dtype(dtype)} {(len(frame), *shape)}"
                )
            cells[name] = [np.ascontiguousarray(values).reshape(-1).view(_plain(dtype))]
        return pd.DataFrame(cells)

    def close(self) -> None:
        """Stop the reader thread."""
        if self.reader is not None:
            self.reader.stop()
            self.reader.join()
            self.reader = None


def _plain(dtype: Any) -> np.dtype[Any]:
    """Return the type under which Arrow lists hold `dtype`: it has no fast way for booleans."""
    return np.dtype(np.uint8) if np.dtype(dtype) == np.bool_ else np.dtype(dtype)
