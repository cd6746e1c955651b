"""What the parts of upkeep share: the result of one folder, and which files of a table somebody still needs."""

import json
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import unquote

from deltalake import DeltaTable

from lake import storage
from lake.errors import UpkeepFailed
from lake.log import UNREADABLE_LOG, actions, history
from lake.places import CARD, PLAN, models_folder, registry_folder, table_path
from lake.schemas import TABLES
from lake.staging import UNREADABLE
from lake.table import MADE, was_made


@dataclass(frozen=True)
class MaintenanceResult:
    """The result of upkeep for one folder.

    Attributes:
        what: a table, or `data docs`.
        files_before, bytes_before, files_after, bytes_after: all files below the folder, the log of a table left out.
        compacted: partitions whose small files became fewer.
        skipped: partitions whose merge other commits overtook each time; the next upkeep tries again.
        removed: files that are no longer needed.
        pinned: versions kept for models and trainings.
        problem: why the folder needs a person; empty if it does not.
    """

    what: str
    files_before: int
    bytes_before: int
    files_after: int
    bytes_after: int
    compacted: int = 0
    skipped: tuple[str, ...] = ()
    removed: int = 0
    pinned: int = 0
    problem: str = ""


def data_files(folder: str) -> dict[str, int]:
    """Return {path: bytes} of the files below a folder; the Delta log, and the mark that it was made, are left out."""
    hidden = ("_delta_log/", MADE)
    return {name: size for name, size in storage.list_files(folder).items() if not name.startswith(hidden)}


def had_log(table: str) -> bool:
    """Return whether a table without a log is known to have had one, so that its files may be those of readers.

    What tells: the mark of a table that was made, the folder of a log, a file that a compaction has written, or a
    commit of another table that was made from a version of this one.
    """
    path = table_path(table)
    if was_made(path) or storage.exists(storage.join(path, "_delta_log")):
        return True
    if any(file.startswith("stage=merged-") for file in data_files(path)):
        return True
    for other in (table_path(name) for name in TABLES if name != table):
        with suppress(*UNREADABLE_LOG):
            commits = history(other, DeltaTable(other).version())
            if any(table in json.loads(said.get("inputs", "{}")) for said in commits):
                return True
    return False


def pinned(table: str) -> set[int]:
    """Return the versions of a table that trainings and registered models were made from, by their plans and cards.

    Raises:
        UpkeepFailed: one cannot be read. To go on would be to remove what it may need.
    """
    versions = set()
    for root, name in ((models_folder(), PLAN), (registry_folder(), CARD)):
        for path in storage.list_files(root):
            if path.rsplit("/", 1)[-1] == name:
                file = storage.join(root, path)
                try:
                    content = storage.read_json(file) or {}
                    versions |= {int(version) for of, version in content.get("tables", {}).items() if of == table}
                except UNREADABLE as error:
                    raise UpkeepFailed(
                        f"{file} cannot be read ({type(error).__name__}), so nobody knows which versions of {table} it "
                        "needs, and nothing of that table was removed; restore the file, or remove its folder"
                    ) from error
    return versions


def replaced_since(commits: dict[int, str], moment: datetime) -> set[str]:
    """Return the files, by the commits from the newest, of versions that were the newest at or after a moment.

    A reader may have opened those since. Files of the newest version itself are not among them.
    """
    files: set[str] = set()
    for commit in commits.values():
        if any(said["timestamp"] < moment.timestamp() * 1000 for said in actions(commit, "commitInfo")):
            break
        files |= {unquote(removed["path"]) for removed in actions(commit, "remove")}
    return files


def published_stagings(commits: dict[int, str]) -> set[str]:
    """Return the ids of the stagings that commits have published."""
    said = [said for commit in commits.values() for said in actions(commit, "commitInfo")]
    return {str(commit["stage_id"]) for commit in said if "stage_id" in commit}


def staging_of(file: str) -> str | None:
    """Return the id of the staging that a file is of; None if a compaction or an audit wrote it.

    >>> staging_of("stage=7-ab/dt=2017-01-01/part-0.parquet"), staging_of("dt=2017-01-01/part-0.parquet")
    ('7-ab', None)
    """
    return file.split("/", 1)[0].removeprefix("stage=") if file.startswith("stage=") else None
