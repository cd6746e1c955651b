"""The arrays of an input's rows in a file of this process, so that each row group is read and transformed once.

The file has no name: it is gone when the process is, however that ends. It is mapped, so the kernel decides how much of
it lies in memory, and takes that back when others need it.
"""

import logging
import os
import tempfile
from collections.abc import Mapping, Sequence

import numpy as np

from model.arrays import Array
from model.data.petastorm_reader import RowGroup

log = logging.getLogger("meander")

ALIGNED = 64  # bytes: where each array begins


class Kept:
    """Room for the arrays of all rows, filled row group by row group.

    Args:
        groups: all row groups of the input.
        fields: {name: (dtype, shape of one row)}.

    Raises:
        OSError: the folder for temporary files has no room.
    """

    def __init__(self, groups: Sequence[RowGroup], fields: Mapping[str, tuple[object, tuple[int, ...]]]):
        rows = sum(group.rows for group in groups)
        ends = np.cumsum([0, *(group.rows for group in groups)])
        self.first = dict(zip(groups, ends.tolist(), strict=False))
        self.arrays: dict[str, Array] = {}
        self._made: set[RowGroup] = set()
        with tempfile.TemporaryFile(prefix="meander-rows-") as file:
            reserve(file.fileno(), bytes_of(fields, rows))
            at = 0
            for name, (dtype, shape) in fields.items():
                mapped = np.memmap(file, np.dtype(dtype), "r+", at, (rows, *shape))  # type: ignore[call-overload]
                self.arrays[name] = np.asarray(mapped)
                at += _aligned(mapped.nbytes)

    def __contains__(self, group: RowGroup) -> bool:
        return group in self._made

    def put(self, group: RowGroup, arrays: Mapping[str, Array]) -> None:
        """Keep the arrays of the rows of a row group."""
        begin = self.first[group]
        for name, values in arrays.items():
            self.arrays[name][begin : begin + group.rows] = values
        self._made.add(group)


def bytes_of(fields: Mapping[str, tuple[object, tuple[int, ...]]], rows: int) -> int:
    """Return the size of the file of `rows` rows.

    >>> bytes_of({"items": ("int32", (3,)), "count": ("float32", ())}, 10)
    192
    """
    sizes = (np.dtype(dtype).itemsize * int(np.prod(shape, dtype=np.int64)) * rows for dtype, shape in fields.values())  # type: ignore[call-overload]
    return sum(map(_aligned, sizes))


def _aligned(size: int) -> int:
    return -(-size // ALIGNED) * ALIGNED


def reserve(file: int, size: int) -> None:
    """Make a file `size` bytes long and take the room for it, where the system can.

    Raises:
        OSError: there is no room. Later a write into the mapping would end the process, without an error to catch.
    """
    if hasattr(os, "posix_fallocate"):  # not on macOS
        os.posix_fallocate(file, 0, size)
    else:
        os.truncate(file, size)
