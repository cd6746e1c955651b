"""ORC files: their types, and their rows as JSON lines.

Spark would shift their times by the zone of its machine, and refuses files with a time of a zone, so that Python reads
them: some rows at a time, several times slower than Spark reads Parquet.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
from pyarrow import orc

from lake import storage

MAGIC = b"ORC"
ROWS = 1024
# Beyond it, a fraction cannot tell one whole number from the next.
EXACT = 1 << 53


def is_orc(file: str, head: bytes) -> bool:
    """Return whether a file is ORC, by its name, or by its first bytes and its end: a text may begin with `ORC`."""
    if file.endswith(".orc"):
        return True
    if head.startswith(MAGIC):
        with suppress(OSError, ValueError):
            return orc_schema(file) is not None
    return False


def orc_schema(file: str) -> pa.Schema:
    """Return the types of a file.

    Raises:
        OSError, ValueError: it is no ORC file, or cannot be read.
    """
    fs, inner = storage.filesystem(file)
    with fs.open(inner, "rb") as stream:
        return orc.ORCFile(stream).schema


def batches_of(file: str, rows: int = ROWS) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a file, at most so many at a time."""
    fs, inner = storage.filesystem(file)
    with fs.open(inner, "rb") as stream:
        fragment = ds.OrcFileFormat().make_fragment(stream)
        # Without threads that read ahead: what is in memory is bounded.
        yield from fragment.scanner(batch_size=rows, batch_readahead=1, use_threads=False).to_batches()


def json_lines(file: str) -> Iterator[bytes]:
    """Yield the rows of a file as JSON lines."""
    for batch in batches_of(file):
        # Of 0.1 in four bytes, Python would make 0.10000000149.
        short = [name for name in batch.schema.names if pa.types.is_float32(batch.schema.field(name).type)]
        texts = {name: batch.column(name).cast(pa.string()).to_pylist() for name in short}
        for n, row in enumerate(batch.to_pylist()):
            row |= {name: float(text) for name in short if (text := texts[name][n]) is not None}
            yield json.dumps(plain(row), ensure_ascii=False).encode()


def plain(value: Any) -> Any:
    """Return a value of ORC as JSON has it: a whole number as such, a time in ISO 8601, with its zone if it has one.

    >>> plain({"user": 7.0, "price": Decimal("1.50"), "at": datetime(2025, 3, 2, 10), "tags": [b"a"]})
    {'user': 7, 'price': '1.50', 'at': '2025-03-02T10:00:00', 'tags': ['a']}
    """
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) <= EXACT else value
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, datetime | date):
        return value.isoformat()
    return str(value) if isinstance(value, Decimal) else value
