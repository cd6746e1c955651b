"""The log of a Delta table, read directly: what commits say, and the transactions of a version, each in one go.

delta-rs answers one question at a time: `transaction_version` looks through all transactions for one, and a version has
to be opened to see its files.
"""

import json
import re
from collections.abc import Mapping
from datetime import datetime
from math import inf
from typing import Any

import pyarrow as pa
from deltalake.exceptions import DeltaError

from lake import storage
from lake.errors import TableUnreadable

COMMIT_FILE = re.compile(r"\d{20}\.json")
CHECKPOINT_FILE = re.compile(r"\d{20}\.checkpoint\.parquet")
# What reading a log raises that is damaged or gone, or that its storage does not give: by delta-rs, by the storage, and
# where an action is other JSON than Delta's.
UNREADABLE_LOG = (
    *(TableUnreadable, DeltaError, OSError, pa.ArrowException),
    *(ValueError, KeyError, TypeError, AttributeError),
)
# The time of a commit, which has one line of this kind; quotes inside of a text are escaped.
TOLD_AT = re.compile(r'\{"commitInfo": ?\{(?:.*?, ?)?"timestamp": ?(\d+)')
# So many commits are read at once, the newest first, until all of them are too old: of some, the clock may have been
# wrong.
COMMITS_AT_ONCE = 128


def read_log(path: str, last: int, after: int = -1, since: datetime | None = None) -> dict[int, str]:
    """Return {version: text} of the commits after one version of a table up to `last`, newest first.

    Where the log was cleaned, it begins with the oldest commit that is left. With `since`, it begins with the oldest
    commit that says to be of that time or later; at most two blocks of COMMITS_AT_ONCE more are read.
    """
    # Not by `DeltaTable.history`: it also returns commits that came after the table was opened, and counts versions
    # down from the open one, so that each commit would get the version of another.
    names = _log_files(path)
    if since is None:
        return _read(path, names, last, after)
    found: dict[int, str] = {}
    while last > after:
        begin = max(after, last - COMMITS_AT_ONCE)
        some = _read(path, names, last, begin)
        found |= some
        if all(_told_at(commit) < since.timestamp() for commit in some.values()):
            break
        last = begin
    # Clocks of hosts differ: a commit that seems to be older than the one before it hides none.
    young = [version for version, commit in found.items() if _told_at(commit) >= since.timestamp()]
    return {version: commit for version, commit in found.items() if young and version >= min(young)}


def _told_at(commit: str) -> float:
    """Return when a commit says that it was made, in seconds since 1970; infinity where it does not say."""
    found = TOLD_AT.search(commit, max(0, commit.find('{"commitInfo":')))
    return int(found[1]) / 1000 if found else inf


def actions(commit: str, kind: str) -> list[dict[str, Any]]:
    """Return the actions of one kind, such as `remove`, in the text of a commit."""
    begin = f'{{"{kind}":'
    if begin not in commit:
        return []
    # A commit has a line for each action.
    return [json.loads(line)[kind] for line in commit.splitlines() if line.startswith(begin)]


def history(path: str, last: int) -> list[dict[str, Any]]:
    """Return what is said of each commit up to version `last`, newest first, each with its `version`."""
    return said_in(read_log(path, last))


def said_in(commits: Mapping[int, str]) -> list[dict[str, Any]]:
    """Return what is said of each of some commits, as `read_log` returns them, each with its `version`."""
    return [
        {**info, "version": version} for version, commit in commits.items() for info in actions(commit, "commitInfo")
    ]


def transactions(path: str, version: int) -> dict[str, int] | None:
    """Return {id of an application: its newest number} of a version: those of a checkpoint, and of the commits since.

    None where the log cannot tell: another tool has cleaned it, and its checkpoints are of another kind.
    """
    names = _log_files(path)
    checkpoints = [int(name[:20]) for name in names if CHECKPOINT_FILE.fullmatch(name)]
    begin = max((number for number in checkpoints if number <= version), default=-1)
    known: dict[str, int] = {}
    if begin >= 0:
        with storage.parquet_file(storage.join(path, "_delta_log", f"{begin:020}.checkpoint.parquet")) as file:
            if "txn" in file.schema_arrow.names:
                column = file.read(columns=["txn"]).column("txn").drop_null()
                known = {txn["appId"]: txn["version"] for txn in column.to_pylist()}
    commits = _read(path, names, version, begin)
    if len(commits) != version - begin:
        return None
    for commit in reversed(commits.values()):  # oldest first
        known |= {txn["appId"]: txn["version"] for txn in actions(commit, "txn")}
    return known


def _log_files(path: str) -> list[str]:
    return storage.list_names(storage.join(path, "_delta_log"))


def _read(path: str, names: list[str], last: int, after: int) -> dict[int, str]:
    versions = {int(name[:20]): name for name in names if COMMIT_FILE.fullmatch(name)}
    wanted = {version: versions[version] for version in sorted(versions, reverse=True) if after < version <= last}
    texts = storage.read_texts(storage.join(path, "_delta_log"), list(wanted.values()))
    return {version: texts[name] for version, name in wanted.items() if name in texts}
