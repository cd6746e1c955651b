"""Forget users in one Delta table: every file that has rows of theirs, whichever version, pin or staging names it.

Files that the newest version or a pinned one names are written anew, beside the old ones; one commit puts the new ones
in the place of the old ones, and only then are the old ones removed. So readers of the newest version see all rows but
those, at each instant, and a process that is killed anywhere is repaired by running it again.

The commit changes no basis and is no publish: nothing that was computed gets stale by it. It fails if another commit
came after the version that was looked at, and that of a publish fails if this one came first; each then looks again.

A file that cannot be read keeps no other from being written anew. It stays what readers have, and is named. So does a
log that cannot be read, or is gone: nobody knows which files of its table are needed, so none of them is written anew
or removed.
"""

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake.transaction import AddAction, RemoveAction

from lake import storage
from lake.commits import until_first
from lake.compact import LiveFile, live_files
from lake.log import UNREADABLE_LOG, history, read_log
from lake.maintenance import data_files, had_log, pinned, published_stagings, staging_of
from lake.order import take_number
from lake.places import audits_path, runs_folder, table_path
from lake.privacy.forgotten import note_absent
from lake.privacy.logs import LOG, redact_log
from lake.privacy.matching import Chosen
from lake.privacy.rewriting import FileUnreadable, Rewritten, count_chosen, rewrite
from lake.publish import added
from lake.schemas import TABLES
from lake.staging import UNREADABLE, StagedFile, parse_staged, partition_of
from lake.table import FORGOTTEN, FORGOTTEN_BY, FORGOTTEN_FILES, files_today

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Unread:
    """A file of the newest version or of a pinned one that cannot be read, or is gone: it may have rows of the users.

    Attributes:
        table, file: its place; of a table whose log cannot be read, the folder of that log.
        day: the date of its rows; empty if its path has none.
        error: the class of the error.
        is_newest: whether it is of the newest version; else a training or a model has pinned it.
    """

    table: str
    file: str
    day: str
    error: str
    is_newest: bool


@dataclass
class Cleaned:
    """What was done in one table.

    Attributes:
        table: its name.
        files: files of versions that were rewritten or emptied, by all commits of the request.
        rows: rows that were removed from them.
        removed: old files that this call has removed.
        logs: files of the log from which this call has taken texts.
        stagings: unpublished stagings from which this call has taken rows.
        kept: files of stagings with rows of theirs that could not be written anew; with the error.
        pending: files of stagings without a manifest, with the date on which upkeep removes them at the latest.
        unread: files that cannot be read, and that neither the newest version nor a pinned one names; with the error.
        damaged: files that cannot be read, and that one of these versions names; also of the log, or that as a whole.
        dates: dates of rows that were removed.
        before_version: older versions than this one name files that are gone; None if none was rewritten.
        has_log: whether it has a log that can be read; else nothing was done.
    """

    table: str
    files: int = 0
    rows: int = 0
    removed: int = 0
    logs: int = 0
    stagings: int = 0
    kept: dict[str, str] = field(default_factory=dict)
    pending: dict[str, str] = field(default_factory=dict)
    unread: dict[str, str] = field(default_factory=dict)
    damaged: list[Unread] = field(default_factory=list)
    dates: list[str] = field(default_factory=list)
    before_version: int | None = None
    has_log: bool = True


def tables_with_files() -> Iterator[tuple[str, str]]:
    """Yield name and path of each table that has a log, or files, in the order in which they are made of each other.

    Of one without a log, the list of forgotten users tells it to the publish of what is staged, or is being computed.
    """
    for name in TABLES:
        path = table_path(name)
        if not is_there(path):
            note_absent(name, take_number())
        if is_there(path) or data_files(path):
            yield name, path
    if is_there(audits_path()) or data_files(audits_path()):
        yield "audits", audits_path()


def is_there(path: str) -> bool:
    """Return whether a table has a log, also one that cannot be read."""
    try:
        return bool(storage.list_names(storage.join(path, LOG)))
    except OSError:
        return True


def log_error(name: str, path: str) -> str:
    """Return the class of what reading the log of a table raises; empty if it can be read."""
    try:
        delta = DeltaTable(path)
        live_files(delta)
        history(path, delta.version())
        of_pinned_versions(name, path)
    except UNREADABLE_LOG as error:
        return type(error).__name__
    return ""


def forget_in_table(
    name: str, path: str, chosen: Chosen, request: str, retention: timedelta, progress: Progress
) -> Cleaned:
    """Remove the chosen rows from every file of a table that can be read, and texts of rows from its log.

    Args:
        name: of the table, also `audits`.
        path: its folder.
        chosen: the rows.
        request: recorded with the commit.
        retention: after which upkeep removes stagings that were not published.
        progress: is told of each step.

    Raises:
        CommitContended: other commits came first, 50 times in a row; nothing of the newest version was removed.
    """
    # Taken when all that this table is made from has been cleaned: whatever is staged by a later run has read that.
    number = take_number()
    cleaned = Cleaned(name)
    # Of audits, nothing is ever staged.
    if name in TABLES and not is_there(path) and not had_log(name):
        return only_staged(name, path, chosen, retention)
    if error := log_error(name, path):
        return Cleaned(name, damaged=[Unread(name, LOG, "", error, is_newest=True)], has_log=False)
    cleaned.damaged = commit_without(name, path, chosen, request, number, progress)
    progress(f"{name}: committed")
    if clean_stagings(cleaned, path, chosen, progress):
        # A publish that has looked at the table before this commit fails, looks again, and finds the new manifest; if
        # it was first, its files are those of the newest version now. So no file is removed that a publish may name.
        cleaned.damaged = commit_without(name, path, chosen, request, number, progress)
        progress(f"{name}: committed again")
    remove_the_rest(cleaned, path, chosen, retention, progress)
    cleaned.logs, unread = redact_log(path)
    cleaned.damaged += [
        Unread(name, storage.join(LOG, file), "", error, is_newest=False) for file, error in unread.items()
    ]
    progress(f"{name}: log looked through")
    return with_history(cleaned, path, request)


def only_staged(name: str, path: str, chosen: Chosen, retention: timedelta) -> Cleaned:
    """Name the files with chosen rows of a table that has no log, and by all that is known never had one.

    None of them is removed: if its log is gone after all, they are those of readers.
    """
    cleaned = Cleaned(name, has_log=False)
    until = f"{datetime.now(UTC) + retention:%Y-%m-%d}"
    cleaned.pending = {file: until for file in data_files(path) if count_or_gone(cleaned, path, file, chosen)}
    return cleaned


def commit_without(name: str, path: str, chosen: Chosen, request: str, number: int, progress: Progress) -> list[Unread]:
    """Put files without the chosen rows in the place of those of the newest version and of pinned ones.

    Returns:
        those that cannot be read, which stay: without them, rows of others would be lost to readers in silence.
    """
    known: dict[str, Rewritten | None] = {}

    def attempt() -> list[Unread]:
        damaged = []
        delta = DeltaTable(path)
        live = {file.path: file for file in live_files(delta)}
        there = storage.list_files(path)
        for file in sorted({*live, *of_pinned_versions(name, path)}):
            if file in known and file in there:
                continue
            try:
                known[file] = rewrite(name, path, file, chosen)
            # One that another forget has removed meanwhile is found gone too; then that was first, and we look again.
            except (FileUnreadable, FileNotFoundError) as error:
                why = error.error if isinstance(error, FileUnreadable) else type(error).__name__
                damaged.append(Unread(name, file, date_in(file) or "", why, file in live))
                continue
            if known[file]:
                progress(f"{name}: {file} written anew")
        made = [file for path_, file in known.items() if file and path_ in there]
        commit(delta, live, made, request, number)
        return damaged

    return until_first(attempt, f"other commits to {name}", "nobody was forgotten there, run the same command again")


def commit(delta: DeltaTable, live: Mapping[str, LiveFile], made: list[Rewritten], request: str, number: int) -> None:
    """Commit the new files in the place of the old ones; those of pinned versions are only noted."""
    now = int(time.time() * 1000)
    actions: list[AddAction | RemoveAction] = []
    for file in made:
        if file.old in live:
            old = live[file.old]
            actions.append(RemoveAction(old.path, True, now, old.bytes, old.partition))
            if file.new:
                actions.append(added(file.new, old.partition, data_change=True, written=old.written))
    files = {file.old: described(file.new) for file in made}
    said = {
        FORGOTTEN_BY: request,
        FORGOTTEN_FILES: json.dumps(files),
        "forgotten_rows": str(sum(file.rows for file in made)),
    }
    delta.create_write_transaction(
        actions,
        "append",
        delta.schema(),
        delta.metadata().partition_columns,
        commit_properties=CommitProperties(
            custom_metadata=said,
            # delta-rs may not retry for us: which files the newest version has is to be looked at again each time.
            max_commit_retries=0,
            # Another request may have taken a later number and been first.
            app_transactions=[Transaction(FORGOTTEN, max(number, delta.transaction_version(FORGOTTEN) or 0))],
        ),
    )


def described(file: StagedFile | None) -> dict[str, Any] | None:
    """Return what the log says of a file in the place of another one."""
    return {"path": file.path, "rows": file.rows, "bytes": file.bytes} if file else None


def of_pinned_versions(name: str, path: str) -> set[str]:
    """Return the files of the versions that trainings and models have pinned, by their names of today."""
    # A pin may be of a lake that was deleted, or of a version that is no longer in the log.
    versions = sorted(pins & read_log(path, DeltaTable(path).version()).keys()) if (pins := pinned(name)) else []
    return {file for version in versions for file in files_today(path, version)}


def others_with(cleaned: Cleaned, path: str, chosen: Chosen) -> tuple[list[str], dict[str, list[str]]]:
    """Return the files with chosen rows that neither the newest version nor a pinned one names.

    Returns:
        those of older versions, and, by its id, those of each staging that was not published.
    """
    delta = DeltaTable(path)
    needed = {*(file.path for file in live_files(delta)), *of_pinned_versions(cleaned.table, path)}
    published = published_stagings(read_log(path, delta.version()))
    old: list[str] = []
    stagings: dict[str, list[str]] = defaultdict(list)
    cleaned.unread = {}
    for file in data_files(path):
        if file not in needed and count_or_gone(cleaned, path, file, chosen):
            staging = staging_of(file)
            (stagings[staging] if staging and staging not in published else old).append(file)
    return old, stagings


def clean_stagings(cleaned: Cleaned, path: str, chosen: Chosen, progress: Progress) -> bool:
    """Write the files of unpublished stagings anew, and their manifests; return whether there was one."""
    _, stagings = others_with(cleaned, path, chosen)
    manifests = manifests_of(cleaned.table) if stagings else {}
    for staging in sorted(stagings.keys() & manifests.keys()):
        if clean_staging(cleaned, path, manifests[staging], chosen):
            cleaned.stagings += 1
            progress(f"{cleaned.table}: staging {staging} written anew")
    return cleaned.stagings > 0


def remove_the_rest(cleaned: Cleaned, path: str, chosen: Chosen, retention: timedelta, progress: Progress) -> None:
    """Remove the files with chosen rows that nobody needs: of older versions, and those that were written anew.

    A staging without a manifest may be one that a run is writing now: the log tells its publish to leave the rows out,
    and if there is none, upkeep removes it.
    """
    old, stagings = others_with(cleaned, path, chosen)
    manifests = manifests_of(cleaned.table) if stagings else {}
    for staging, files in stagings.items():
        content = storage.read_json(manifests[staging]) if staging in manifests else None
        named = {file["path"] for file in content["files"]} if content else set(files)
        old += [file for file in files if file not in named]
        until = f"{datetime.now(UTC) + retention:%Y-%m-%d}"
        cleaned.pending |= {file: until for file in files if file in named}
        cleaned.unread |= {file: cleaned.kept[file] for file in files if file in cleaned.kept}
    for file in sorted(old):
        storage.remove_files(path, [file])
        cleaned.removed += 1
        progress(f"{cleaned.table}: {file} removed")


def count_or_gone(cleaned: Cleaned, path: str, file: str, chosen: Chosen) -> int:
    """Count the chosen rows of a file; none if it has been removed meanwhile, or cannot be read, which is noted.

    It may be damaged, not complete yet, or no file of the table at all.
    """
    try:
        return count_chosen(path, file, chosen)
    except FileNotFoundError:
        return 0
    except FileUnreadable as error:
        # Beside the files, Hadoop writes checksums of them, which have no rows.
        if not file.endswith(".crc"):
            cleaned.unread[file] = error.error
        return 0


def manifests_of(table: str) -> dict[str, str]:
    """Return the manifest of each staging of a table, by its id."""
    found = {}
    for file in storage.list_files(runs_folder()):
        name = file.rsplit("/", 1)[-1]
        if name.startswith(f"{table}.") and name.endswith(".json") and not name.endswith(".audit.json"):
            manifest = storage.join(runs_folder(), file)
            # One that is damaged lets nothing be published: its files are those of a staging without a manifest.
            with suppress(*UNREADABLE):
                content = storage.read_json(manifest)
                if content:
                    found[str(content["stage_id"])] = manifest
    return found


def clean_staging(cleaned: Cleaned, path: str, manifest: str, chosen: Chosen) -> bool:
    """Write the files of a staging anew, then its manifest; return whether one had chosen rows.

    A file that cannot be read stays, and is noted: its publish leaves the rows out, or cannot read it either.
    """
    staged = parse_staged(storage.read_json(manifest) or {})
    there = storage.list_files(path)
    made: dict[str, Rewritten | None] = {}
    for file in staged.files:
        if file.path in there:
            try:
                made[file.path] = rewrite(cleaned.table, path, file.path, chosen)
            except FileUnreadable as error:
                cleaned.kept[file.path] = error.error
    if not any(made.values()):
        return False
    files = [new.new if (new := made.get(file.path)) else file for file in staged.files]
    storage.write_json(manifest, asdict(replace(staged, files=[file for file in files if file])))
    return True


def with_history(cleaned: Cleaned, path: str, request: str) -> Cleaned:
    """Add what all commits of a request have done, also those of earlier calls that were killed."""
    delta = DeltaTable(path)
    dates: set[str] = set()
    for said in history(path, delta.version()):
        files = json.loads(said.get(FORGOTTEN_FILES, "{}"))
        if said.get(FORGOTTEN_BY) == request and files:
            cleaned.files += len(files)
            cleaned.rows += int(said["forgotten_rows"])
            cleaned.before_version = max(said["version"], cleaned.before_version or 0)
            dates |= {day for file in files if (day := date_in(file))}
    cleaned.dates = sorted(dates)
    return cleaned


def date_in(file: str) -> str | None:
    """Return the date of a file's partition.

    >>> date_in("stage=7-ab/dt=2017-01-01/landed=2017-01-02/part-0.parquet"), date_in("dt=2017-01-01/part-0.parquet")
    ('2017-01-01', '2017-01-01')
    """
    return partition_of(file if file.startswith("stage=") else f"stage=/{file}").get("dt")
