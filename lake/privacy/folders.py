"""Forget users in files that are no tables: data docs, alerts; and where else their ids stand."""

from collections.abc import Iterator
from contextlib import suppress
from typing import IO

import fsspec

from lake import storage
from lake.privacy.matching import NamedUsers

# An id of fewer characters stands for many things in a text: `42` is also a number of rows.
DISTINCT = 5
PART_BYTES = 8 * 1024 * 1024
SHOWN_INSTEAD = "(forgotten)"


def distinct(users: NamedUsers) -> NamedUsers:
    """Return those users whose ids can be told from other words and numbers of a text."""
    return NamedUsers(frozenset(user for user in users.ids if len(user) >= DISTINCT))


def files_with(folder: str, users: NamedUsers, beside: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield the files below a folder that have an id, in their bytes or, of .gz, in what is packed; paths below it.

    Those whose paths begin with one of `beside` are not looked at.
    """
    if not users.ids:
        return
    for name in storage.list_files(folder):
        if not name.startswith(beside) and file_has_id(storage.join(folder, name), users):
            yield name


def file_has_id(file: str, users: NamedUsers) -> bool:
    """Return whether a file has an id, in its bytes or, of .gz, in what is packed; one that is gone by now has none."""
    with (
        suppress(FileNotFoundError),
        fsspec.open(file, "rb", compression="gzip" if file.endswith(".gz") else None) as s,
    ):
        return has_id(s, users)
    return False


def has_id(stream: IO[bytes], users: NamedUsers) -> bool:
    """Return whether a stream has an id; it is read in parts, of which each begins with the end of the one before."""
    longest = max(len(spelling.encode()) for spelling in users.spellings()) + 1
    end = b""
    while part := stream.read(PART_BYTES):
        if users.bytes_pattern.search(end + part):
            return True
        end = (end + part)[-longest:]
    return False


def remove_pages(folder: str, users: NamedUsers) -> int:
    """Remove the data docs that show an id, and return how many; the history of audits keeps their verdicts."""
    pages = [name for name in files_with(folder, users) if name.endswith(".html")]
    storage.remove_files(folder, pages)
    return len(pages)


def redact_messages(folder: str, users: NamedUsers) -> int:
    """Replace each id in the JSON files below a folder, and return how many files had one."""
    fs, inner = storage.filesystem(folder)
    names = [name for name in files_with(folder, users) if name.endswith(".json")]
    for name in names:
        text = users.pattern.sub(SHOWN_INSTEAD, bytes(fs.cat_file(storage.join(inner, name))).decode())
        storage.write_bytes(storage.join(folder, name), text.encode())
    return len(names)
