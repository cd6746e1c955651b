"""Paths and small files on any storage that fsspec supports: local folders and object stores alike."""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

# Threads that wait for storage at once.
READERS = 16


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


def list_names(folder: str) -> list[str]:
    """Return the names of what is directly in a folder, sorted; nothing is asked about each. None where it is missing.

    >>> list_names("/no/such/folder")
    []
    """
    fs, inner = filesystem(folder)
    with suppress(FileNotFoundError):
        if isinstance(fs, LocalFileSystem):
            return sorted(os.listdir(inner))  # noqa: PTH208  names alone
        return sorted(path.rstrip("/").rsplit("/", 1)[-1] for path in fs.ls(inner, detail=False))
    return []


def list_entries(folder: str, since: datetime | None = None, *, complete: bool = False) -> dict[str, dict[str, Any]]:
    """Return {path below `folder`: what the storage says of it} of every file under it, sorted; empty without any.

    With `since`, those of the folders directly below it in which no file was created, replaced or removed since that
    time are left out.

    Raises:
        OSError: with `complete`, a folder on this machine cannot be listed; otherwise its files are left out.
    """
    fs, inner = filesystem(folder)
    if isinstance(fs, LocalFileSystem):
        # fsspec asks three times about each file, and the log of a lake of years has thousands.
        denied = _raise if complete else _leave_out
        return dict(sorted(_local_entries(inner, "", since, denied)))
    found = fs.find(inner, detail=True)
    root = inner.rstrip("/")
    entries = {path[len(root) + 1 :]: found[path] for path in sorted(found)}
    if since is None:
        return entries
    young = {
        name.partition("/")[0] for name, entry in entries.items() if last_written(fs, f"{root}/{name}", entry) >= since
    }
    return {name: entry for name, entry in entries.items() if name.partition("/")[0] in young}


def list_readable(folder: str) -> tuple[list[str], list[str]]:
    """Return the paths below a folder of the files in it, sorted, and the local folders that cannot be listed.

    The files of the other folders are among them, so that what cannot be looked at is known by name, and is all.
    """
    fs, inner = filesystem(folder)
    if not isinstance(fs, LocalFileSystem):
        return list(list_entries(folder)), []
    denied: list[str] = []
    found = _local_entries(inner, "", None, lambda place, _: denied.append(place))
    return sorted(name for name, _ in found), sorted(denied)


def _local_entries(
    folder: str, below: str, since: datetime | None, denied: Callable[[str, OSError], None]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what `list_entries` returns of a folder on this machine, with `below` before each name.

    A link is a file, whatever it leads to, and has the size of that, 0 of nothing. `denied` is told of each folder that
    cannot be listed.
    """
    try:
        with os.scandir(folder) as found:
            for entry in found:
                if entry.is_dir(follow_symlinks=False):
                    # A folder has the time at which a name in it came or went, and files are replaced by a new name.
                    is_young = since is None
                    if since is not None:
                        with suppress(FileNotFoundError):  # it is gone by now
                            is_young = entry.stat().st_mtime >= since.timestamp()
                    if is_young:
                        yield from _local_entries(entry.path, f"{below}{entry.name}/", None, denied)
                    continue
                with suppress(FileNotFoundError):  # it is gone since
                    told = entry.stat(follow_symlinks=False)
                    size = told.st_size
                    if entry.is_symlink():
                        try:
                            size = entry.stat().st_size
                        except OSError:
                            size = 0
                    yield f"{below}{entry.name}", {"size": size, "mtime": told.st_mtime}
    except FileNotFoundError:
        pass  # a folder that is gone by now has no files
    except OSError as error:
        denied(folder, error)


def _leave_out(_: str, error: OSError) -> None:
    """Leave out a folder that cannot be listed."""


def _raise(_: str, error: OSError) -> None:
    """Tell of a folder that cannot be listed by an error."""
    raise error


def list_files(folder: str) -> dict[str, int]:
    """Return {path below `folder`: size in bytes} of every file under it, sorted; empty when there is none."""
    return {name: int(entry["size"]) for name, entry in list_entries(folder).items()}


def list_older(folder: str, moment: datetime) -> list[str]:
    """Return the paths below `folder` of the files that were last written before a moment, sorted."""
    fs, inner = filesystem(folder)
    root = inner.rstrip("/")
    older = []
    for name, entry in list_entries(folder).items():
        # A file that was removed after it was listed is no error.
        with suppress(FileNotFoundError):
            if last_written(fs, f"{root}/{name}", entry) < moment:
                older.append(name)
    return older


def last_written(fs: fsspec.AbstractFileSystem, path: str, entry: Mapping[str, Any]) -> datetime:
    """Return when a listed file was last written; most listings say it, so that no file has to be asked for."""
    if "mtime" in entry:
        return datetime.fromtimestamp(entry["mtime"], UTC)
    written: datetime = entry.get("LastModified") or fs.modified(path)
    return written


def remove_files(folder: str, names: list[str]) -> None:
    """Remove files below `folder`; those that are gone are no error."""
    with ThreadPoolExecutor(max_workers=READERS) as pool:
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
    with ThreadPoolExecutor(max_workers=READERS) as pool:
        return list(pool.map(footer, files))


def parts(names: Sequence[str], number: int) -> list[Sequence[str]]:
    """Return names in at most so many parts, none of them empty.

    >>> parts(["a", "b", "c"], 2), parts([], 2)
    ([['a', 'c'], ['b']], [])
    """
    return [names[n::number] for n in range(min(number, len(names)))]


def read_texts(folder: str, names: Sequence[str]) -> dict[str, str]:
    """Return {name: content} of small text files below `folder`, without those that are gone.

    A byte that is none of a text becomes U+FFFD.
    """
    fs, inner = filesystem(folder)
    root = inner.rstrip("/")

    def texts(some: Sequence[str]) -> dict[str, str]:
        found = {}
        for name in some:
            with suppress(FileNotFoundError):
                found[name] = bytes(fs.cat_file(f"{root}/{name}")).decode(errors="replace")
        return found

    found: dict[str, str] = {}
    # A part of the names for each thread: to hand over one name at a time takes longer than to read a local file.
    with ThreadPoolExecutor(max_workers=READERS) as pool:
        for some in pool.map(texts, parts(names, READERS)):
            found |= some
    return {name: found[name] for name in names if name in found}


def write_json(path: str, content: dict[str, Any]) -> None:
    """Write a small JSON file atomically: a reader sees all of it or none of it."""
    write_bytes(path, json.dumps(content, indent=2, sort_keys=True, default=str).encode())


def write_bytes(path: str, data: bytes) -> None:
    """Write a small file atomically: a reader sees all of it or none of it."""
    fs, inner = filesystem(path)
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
