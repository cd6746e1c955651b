"""Forget users in files that are no tables: data docs, alerts; and where else their ids stand."""

import os
import stat
import zlib
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import fsspec
from fsspec.implementations.local import LocalFileSystem

from lake import storage
from lake.privacy.matching import NamedUsers

# An id of fewer characters stands for many things in a text: `42` is also a number of rows.
DISTINCT = 5
PART_BYTES = 8 * 1024 * 1024
SHOWN_INSTEAD = "(forgotten)"
MAY_NOT_BE_READ, NO_FILE = (f"{why}, so it was not searched" for why in ("may not be read", "is no file"))


def distinct(users: NamedUsers) -> NamedUsers:
    """Return those users whose ids can be told from other words and numbers of a text."""
    return NamedUsers(frozenset(user for user in users.ids if len(user) >= DISTINCT))


@dataclass
class Found:
    """What a search has found.

    Attributes:
        files: those that have an id.
        unsearched: what was not searched, or only in part, with the end of a sentence that says why.
    """

    files: list[str] = field(default_factory=list)
    unsearched: dict[str, str] = field(default_factory=dict)

    def add(self, other: "Found") -> None:
        """Add what another search has found."""
        self.files += other.files
        self.unsearched |= other.unsearched


def search_below(folder: str, users: NamedUsers, beside: tuple[str, ...] = ()) -> Found:
    """Search the files below a folder.

    Links to what is in that folder are left out, since it is searched where it is: Airflow makes one to its newest log.

    Args:
        folder: its path or address.
        users: whose ids are searched for; of none, nothing is looked at.
        beside: files whose paths below the folder begin with one of these are left out.
    """
    if not users.ids:
        return Found()
    names, denied = storage.list_readable(folder)
    files = [storage.join(folder, name) for name in names if not name.startswith(beside)]
    found = search([file for file in files if not links_into(file, folder)], users)
    found.unsearched = dict.fromkeys(denied, MAY_NOT_BE_READ) | found.unsearched
    return found


def search(files: Iterable[str], users: NamedUsers) -> Found:
    """Search single files."""
    found = Found()
    for file in files if users.ids else ():
        try:
            if is_no_file(file):
                found.unsearched[file] = NO_FILE
            elif file_has_id(file, users):
                found.files.append(file)
        except (OSError, EOFError, zlib.error):  # of another user, or a .gz that is cut off or damaged
            found.unsearched[file] = MAY_NOT_BE_READ
    return found


def links_into(file: str, folder: str) -> bool:
    """Return whether a file on this machine is a link to what is in a folder."""
    fs, inner = storage.filesystem(file)
    if not isinstance(fs, LocalFileSystem) or not Path(inner).is_symlink():
        return False
    return Path(os.path.realpath(inner)).is_relative_to(os.path.realpath(storage.filesystem(folder)[1]))


def is_no_file(file: str) -> bool:
    """Return whether something on this machine is no file, such as a pipe, which would be waited for without end.

    Raises:
        OSError: nobody may say what it is.
    """
    fs, inner = storage.filesystem(file)
    if not isinstance(fs, LocalFileSystem):
        return False
    with suppress(FileNotFoundError):  # it is gone by now, or a link to nothing
        return not stat.S_ISREG(Path(inner).stat().st_mode)
    return False


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


def remove_pages(folder: str, users: NamedUsers) -> tuple[int, dict[str, str]]:
    """Remove the data docs that show an id; the history of audits keeps their verdicts.

    Returns:
        how many were removed; and what was not searched, or could not be removed, with the reason.
    """
    return change(folder, users, ".html", storage.remove)


def redact_messages(folder: str, users: NamedUsers) -> tuple[int, dict[str, str]]:
    """Replace each id in the JSON files below a folder.

    Returns:
        how many files had one; and what was not searched, or could not be changed, with the reason.
    """

    def redact(file: str) -> None:
        fs, inner = storage.filesystem(file)
        # By bytes: a message may be in any encoding, and has to lose what the search finds.
        content = users.bytes_pattern.sub(SHOWN_INSTEAD.encode(), bytes(fs.cat_file(inner)))
        storage.write_bytes(file, content)

    return change(folder, users, ".json", redact)


def change(folder: str, users: NamedUsers, suffix: str, what: Callable[[str], None]) -> tuple[int, dict[str, str]]:
    """Do something to each file below a folder that has an id and a suffix; see `remove_pages`."""
    found = search_below(folder, users)
    changed = 0
    for file in found.files:
        if file.endswith(suffix):
            try:
                what(file)
                changed += 1
            except OSError as error:
                found.unsearched[file] = f"has the id, and could not be changed ({type(error).__name__})"
    return changed, found.unsearched
