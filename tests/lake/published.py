"""What readers see of a table, whatever files it lies in."""

import hashlib

import pyarrow.parquet as pq

from lake import storage
from lake.table import Table


def rows(table: str) -> list[str]:
    """Return every published row, in an order that does not depend on files."""
    opened = Table(table)
    found = []
    for file in opened.files:
        fs, path = storage.filesystem(storage.join(opened.path, file.path))
        with fs.open(path, "rb") as stream:
            found += [
                repr(sorted({**row, **file.partition}.items())) for row in pq.ParquetFile(stream).read().to_pylist()
            ]
    return sorted(found)


def checksum(table: str) -> str:
    """Return the sha256 of these rows."""
    return hashlib.sha256("\n".join(rows(table)).encode()).hexdigest()
