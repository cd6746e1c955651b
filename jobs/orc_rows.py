"""ORC files: their types, and their rows as JSON lines.

Spark would shift their times by the zone of its machine, and refuses files with a time of a zone, so that Python reads
them: some rows at a time, several times slower than Spark reads Parquet. Columns that a source does not use are not
read: a value there that Python cannot hold must not refuse the file.
"""

import json
import math
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.dataset as ds
from pyarrow import orc

from lake import storage

MAGIC = b"ORC"
ROWS = 1024
# So many bytes tell a table from a text.
HEAD = 512
# Beyond it, a fraction cannot tell one whole number from the next.
EXACT = 1 << 53


def is_orc(file: str, head: bytes) -> bool:
    """Return whether a file is ORC, by its name, or by its first bytes and its end: a text may begin with `ORC`."""
    if file.endswith(".orc"):
        return True
    if head.startswith(MAGIC):
        with suppress(OSError, ValueError, pa.ArrowException):
            return orc_schema(file) is not None
    return False


def may_be_orc(head: bytes) -> bool:
    r"""Return whether a file may be ORC by its first bytes alone: behind the mark, no text has such signs.

    >>> may_be_orc(b"ORC\n\x1c\n\x04\x08"), may_be_orc(b"ORC_ID,time\n7,")
    (True, False)
    """
    return head.startswith(MAGIC) and any(byte < ord("\t") for byte in head[:HEAD])


def orc_schema(file: str) -> pa.Schema:
    """Return the types of a file.

    Raises:
        OSError, ValueError, pa.ArrowException: it is no ORC file, or cannot be read.
    """
    fs, inner = storage.filesystem(file)
    with fs.open(inner, "rb") as stream:
        return orc.ORCFile(stream).schema


def columns_for(schema: pa.Schema, used: Collection[str]) -> list[str] | None:
    """Return the columns that hold some values, of which one may be a part of a column; None if it has none of them.

    >>> columns_for(pa.schema([("user", "int64"), ("item", pa.struct([("id", "int64")])), ("note", "string")]),
    ...             ["user", "item.id"])
    ['user', 'item']
    """
    # A name with dots may be that of a column.
    wanted = {*used, *(name.split(".")[0] for name in used)}
    return [name for name in schema.names if name in wanted] or None


def orc_batches(file: str, rows: int = ROWS, used: Collection[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a file, at most so many at a time.

    Args:
        file: its name.
        rows: most rows of a batch.
        used: the values that are needed, see `columns_for`; without it, all columns are read.
    """
    fs, inner = storage.filesystem(file)
    with fs.open(inner, "rb") as stream:
        fragment = ds.OrcFileFormat().make_fragment(stream)
        columns = None if used is None else columns_for(fragment.physical_schema, used)
        # Without threads that read ahead: what is in memory is bounded.
        scanner = fragment.scanner(columns=columns, batch_size=rows, batch_readahead=1, use_threads=False)
        yield from scanner.to_batches()


def json_lines(file: str, used: Collection[str] | None = None, ids: Collection[str] = ()) -> Iterator[bytes]:
    """Yield the rows of a file as JSON lines.

    Args:
        file: its name.
        used: the values that are needed; without it, all columns are read.
        ids: those that are ids, see `plain`.
    """
    at_ids = paths_of(ids)
    for batch in orc_batches(file, used=used):
        # Of 0.1 in four bytes, Python would make 0.10000000149.
        short = [name for name in batch.schema.names if pa.types.is_float32(batch.schema.field(name).type)]
        texts = {name: batch.column(name).cast(pa.string()).to_pylist() for name in short}
        for n, row in enumerate(batch.to_pylist()):
            row |= {name: float(text) for name in short if (text := texts[name][n]) is not None}
            yield json.dumps(plain(row, at_ids), ensure_ascii=False).encode()


def paths_of(ids: Collection[str]) -> frozenset[str]:
    """Return where ids are, see `plain`, by their names, which may have numbers of elements."""
    return frozenset(".".join(step for step in name.split(".") if not step.isdigit()) for name in ids)


def plain(value: Any, ids: Collection[str] = (), at: str = "") -> Any:
    """Return a value of ORC or Avro as JSON has it: whole numbers as such, a time in ISO 8601, with its zone if any.

    Other numbers are texts of digits: as numbers of JSON, Spark would write large ones in scientific notation.

    Args:
        value: of a row, or the row.
        ids: where ids are, as names with dots, through lists too. A fraction is none, and is written in scientific
            notation, which is rejected as no id.
        at: where the value is.

    >>> plain({"user": 7.0, "price": Decimal("1.50"), "at": datetime(2025, 3, 2, 10), "tags": [b"a"]})
    {'user': 7, 'price': '1.50', 'at': '2025-03-02T10:00:00', 'tags': ['a']}
    >>> plain({"user": 12.5, "at": 1740909600.25, "price": math.nan}, ["user"])
    {'user': '1.25E+1', 'at': '1740909600.25', 'price': None}
    """
    if isinstance(value, float):
        return number(value, is_id=at in ids)
    if isinstance(value, Mapping):
        return {str(key): plain(each, ids, f"{at}.{key}" if at else str(key)) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each, ids, at) for each in value]
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    return f"{value:f}" if isinstance(value, Decimal) else value


def number(value: float, *, is_id: bool) -> int | str | None:
    """Return a number in eight bytes as `plain` does; of nan, which says that there is none, None."""
    if math.isnan(value):
        return None
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    if value.is_integer() and abs(value) <= EXACT:
        return int(value)
    # Of the digits that tell the number from the next one.
    digits = Decimal(repr(value))
    if not is_id:
        return f"{digits:f}"
    text = f"{digits:E}"
    return text if "." in text else text.replace("E", ".0E")
