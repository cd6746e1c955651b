"""Paths and small files on any storage that fsspec supports: local folders and object stores alike."""

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem


def join(folder: str, *parts: str) -> str:
    """Join path parts with single slashes; works for local paths and for addresses."""
    return "/".join([folder.rstrip("/"), *parts])


def spark_path(path: str) -> str:
    """Return the address under which Spark reads `path`: Hadoop calls the S3 protocol s3a.

    >>> spark_path("s3://bucket/lake"), spark_path("/data/lake")
    ('s3a://bucket/lake', '/data/lake')
    """
    return "s3a://" + path.removeprefix("s3://") if path.startswith("s3://") else path


def filesystem(path: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """Return the file system of `path`, with no cached listings, and the path as that system knows it."""
    fs, inner = fsspec.core.url_to_fs(path, use_listings_cache=False)
    return fs, inner


def exists(path: str) -> bool:
    """Return whether a file or folder exists at `path`."""
    fs, inner = filesystem(path)
    return bool(fs.exists(inner))


def list_files(folder: str) -> dict[str, int]:
    """Return {path below `folder`: size in bytes} of every file under it, sorted; empty when there is none."""
    fs, inner = filesystem(folder)
    entries = fs.find(inner, detail=True)
    return {path[len(inner.rstrip("/")) + 1 :]: int(entries[path]["size"]) for path in sorted(entries)}


def list_older(folder: str, moment: datetime) -> list[str]:
    """Return the paths below `folder` of the files that were last written before a moment, sorted."""
    fs, inner = filesystem(folder)
    older = []
    for name in list_files(folder):
        # A file that was removed after it was listed is no error.
        with suppress(FileNotFoundError):
            if fs.modified(join(inner, name)) < moment:
                older.append(name)
    return older


def remove_files(folder: str, names: list[str]) -> None:
    """Remove files below `folder`; those that are gone are no error."""
    with ThreadPoolExecutor(max_workers=16) as pool:
        list(pool.map(lambda name: remove(join(folder, name)), names))


def remove(path: str) -> None:
    """Remove a file, if it exists."""
    fs, inner = filesystem(path)
    with suppress(FileNotFoundError):
        fs.rm_file(inner)


def create(path: str, stale: timedelta) -> bool:
    """Create an empty file, and return whether it did not exist, or was older than `stale`.

    Of several concurrent callers one gets True; all do on a store that cannot create a file only where none exists.
    """
    fs, inner = filesystem(path)
    try:
        fs.makedirs(fs._parent(inner), exist_ok=True)
        if isinstance(fs, LocalFileSystem):
            fs.open(inner, "xb").close()  # its pipe_file checks first and writes then
        else:
            fs.pipe_file(inner, b"", mode="create")
    except FileExistsError:
        try:
            # A time ahead of this clock tells nothing: such a file would be in the way until then.
            return bool(abs(datetime.now(UTC) - fs.modified(inner)) > stale)
        except FileNotFoundError:
            return False  # it was there, and its creator has just removed it
    except (NotImplementedError, ValueError):
        return True
    return True


@contextmanager
def parquet_file(path: str) -> Iterator[pq.ParquetFile]:
    """Open one Parquet file on any storage, and close it at the end of the block.

    Its columns are those in the file, without partition columns of the folders above it.
    """
    fs, inner = filesystem(path)
    with fs.open(inner, "rb") as stream:
        yield pq.ParquetFile(stream)


def read_file(path: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Return the rows of one Parquet file, with all columns or those that are named."""
    with parquet_file(path) as file:
        return file.read(columns=columns)


def read_footers(folder: str, files: list[str]) -> list[pq.FileMetaData]:
    """Return the footer of each Parquet file below `folder`; no rows are read."""

    def footer(name: str) -> pq.FileMetaData:
        with parquet_file(join(folder, name)) as file:
            return file.metadata

    # Footers are a few KiB each: the time is spent waiting for storage, not in the CPU.
    with ThreadPoolExecutor(max_workers=16) as pool:
        return list(pool.map(footer, files))


def read_texts(folder: str, names: list[str]) -> dict[str, str]:
    """Return {name: content} of small text files below `folder`, without those that are gone."""

    def text(name: str) -> str | None:
        fs, inner = filesystem(join(folder, name))
        with suppress(FileNotFoundError):
            return bytes(fs.cat_file(inner)).decode()
        return None

    with ThreadPoolExecutor(max_workers=16) as pool:
        return {name: content for name, content in zip(names, pool.map(text, names), strict=True) if content}


def write_json(path: str, content: dict[str, Any]) -> None:
    """Write a small JSON file atomically: a reader sees all of it or none of it."""
    fs, inner = filesystem(path)
    data = json.dumps(content, indent=2, sort_keys=True, default=str).encode()
    if not isinstance(fs, LocalFileSystem):
        fs.pipe_file(inner, data)  # one PUT is atomic on an object store
        return
    fs.makedirs(fs._parent(inner), exist_ok=True)
    unfinished = f"{inner}.{uuid4().hex}.tmp"
    fs.pipe_file(unfinished, data)
    fs.mv(unfinished, inner)


def read_json(path: str) -> dict[str, Any] | None:
    """Return the content of a JSON file, or None if it does not exist."""
    fs, inner = filesystem(path)
    try:
        content: dict[str, Any] = json.loads(fs.cat_file(inner))
    except FileNotFoundError:
        return None
    return content
