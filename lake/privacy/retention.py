"""How long rows are kept: the texts of rejected rows, events and landing files, by the settings; a part of lake.upkeep.

Rows go in a commit that is no publish and changes no basis. Their old files are removed as all that was replaced is, so
`MEANDER_RETENTION_DAYS` later. What a training or a model has pinned stays until its pin goes.

An old file that cannot be read, or removed, keeps no other from going; it is named, and upkeep ends with an error.
"""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable
from deltalake.transaction import AddAction, RemoveAction

from lake import storage
from lake.audits import remove_before
from lake.commits import until_first
from lake.compact import live_files
from lake.errors import SettingsInvalid
from lake.landing import Landing, leads_out
from lake.maintenance import MaintenanceResult
from lake.privacy.logs import LOG, redact_log
from lake.privacy.matching import Chosen
from lake.privacy.rewriting import FileUnreadable, Rewritten, count_chosen, rewrite
from lake.publish import added
from lake.schemas import TABLES
from lake.settings import Settings

log = logging.getLogger(__name__)

RAW = Chosen(("raw",), lambda rows: pc.is_valid(rows["raw"]))

Old = Callable[[DeltaTable], list[str]]
# Returns what becomes of a file, given its path in the folder of its table; None where nothing has to go.
Ending = Callable[[str], Rewritten | None]


@dataclass
class Expired:
    """What was done to old files.

    Attributes:
        files: in how many there was something to go.
        unread: those that cannot be read, with the class of the error.
    """

    files: int = 0
    unread: dict[str, str] = field(default_factory=dict)


def expire_rows(name: str, path: str, config: Settings, *, dry_run: bool = False) -> str:
    """Remove the rows of one table, and the texts of rows, that the settings do not keep, also those in its log.

    Returns:
        which files cannot be read, and what to do; empty if all can.

    Raises:
        SettingsInvalid: events would be gone before they are out of the history of a user.
        CommitContended: other commits came first, 50 times in a row.
    """
    # A clock decides what is old, as it does for all of upkeep.
    now, expired = datetime.now(UTC), Expired()
    if name == "quarantine" and config.keep_raw_days:
        old = written_before(now - timedelta(days=config.keep_raw_days))
        expired = expire(name, path, old, lambda file: end_texts(path, file, dry_run=dry_run), dry_run=dry_run)
    if name == "events" and config.keep_events_days:
        if config.keep_events_days < config.history_days:
            raise SettingsInvalid(
                f"MEANDER_KEEP_EVENTS_DAYS must be 0 or at least MEANDER_HISTORY_DAYS={config.history_days}, received "
                f"{config.keep_events_days}: interests are computed from the events of these days"
            )
        old = dated_before((now - timedelta(days=config.keep_events_days)).date())
        expired = expire(name, path, old, end_file, dry_run=dry_run)
    if name == "audits" and config.keep_audits_days:
        lines = remove_before(now - timedelta(days=config.keep_audits_days), dry_run=dry_run)
        log.info("audits: %d lines that are no longer kept", lines)
    # The history of audits quotes no row.
    logs, unread_logs = redact_log(path, dry_run=dry_run) if name in TABLES else (0, {})
    log.info(
        "%s: %d files with rows that are no longer kept, %d files of the log with texts of rows",
        name, expired.files, logs,
    )  # fmt: skip
    problems = []
    if expired.unread:
        problems.append(
            f"{len(expired.unread)} files with texts that are no longer kept cannot be read: {named(expired.unread)}; "
            "see to the rights or the connection, if it is that; otherwise put them back from a copy, or load their "
            "days again and publish them"
        )
    if unread_logs:
        problems.append(
            f"{len(unread_logs)} files of {LOG} cannot be read, and may have texts of rows: {named(unread_logs)}; see "
            "to the rights or the connection, if it is that; otherwise put them back from a copy; a checkpoint may be "
            "removed, if there is a newer one"
        )
    return "; ".join(problems)


def named(unread: dict[str, str]) -> str:
    """Name files that cannot be read, each with the class of the error."""
    return ", ".join(f"{file} ({error})" for file, error in sorted(unread.items()))


def end_file(file: str) -> Rewritten:
    """Let a file go as a whole, of which nothing has to be read."""
    return Rewritten(file, None, 0)


def end_texts(path: str, file: str, *, dry_run: bool = False) -> Rewritten | None:
    """Let the texts of the rejected rows of a file go.

    Raises:
        FileUnreadable: a part of it is damaged, or its storage does not give it.
        FileNotFoundError: it is gone.
    """
    if dry_run:
        return Rewritten(file, None, found) if (found := count_chosen(path, file, RAW)) else None
    return rewrite("quarantine", path, file, RAW, without_raw)


def without_raw(rows: pa.Table, mask: pa.Array) -> pa.Table:
    """Return rejected rows without the texts of those that are chosen."""
    column = rows.schema.get_field_index("raw")
    field = rows.schema.field(column)
    return rows.set_column(column, field, pc.if_else(mask, pa.scalar(None, field.type), rows["raw"]))


def expire(table: str, path: str, old: Old, end: Ending, *, dry_run: bool = False) -> Expired:
    """Let old files go, or something in them; those that cannot be read stay.

    Raises:
        CommitContended: other commits came first, 50 times in a row.
    """
    known: dict[str, Rewritten | None] = {}

    def attempt() -> Expired:
        delta, expired = DeltaTable(path), Expired()
        live = {file.path: file for file in live_files(delta)}
        names = old(delta)
        for name in names:
            try:
                if name not in known:
                    known[name] = end(name)
            except (FileUnreadable, FileNotFoundError) as error:
                expired.unread[name] = error.error if isinstance(error, FileUnreadable) else type(error).__name__
        made = [ended for name in names if (ended := known.get(name))]
        expired.files = len(made)
        if not made or dry_run:
            return expired
        now = int(time.time() * 1000)
        actions: list[AddAction | RemoveAction] = []
        for file in made:
            before = live[file.old]
            actions.append(RemoveAction(before.path, True, now, before.bytes, before.partition))
            if file.new:
                actions.append(added(file.new, before.partition, data_change=True, written=before.written))
        delta.create_write_transaction(
            actions,
            "append",
            delta.schema(),
            list(TABLES[table].partition_by),
            # delta-rs may not retry for us: which files the newest version has is looked at again each time.
            commit_properties=CommitProperties(custom_metadata={"expired": table}, max_commit_retries=0),
        )
        return expired

    return until_first(attempt, f"other commits to {table}", "nothing was removed, try again")


def written_before(moment: datetime) -> Old:
    """Choose the files that were written before a moment: a log may be loaded long after its days."""

    def old(delta: DeltaTable) -> list[str]:
        return [file.path for file in live_files(delta) if file.written < moment.timestamp() * 1000]

    return old


def dated_before(first: date) -> Old:
    """Choose the files of the dates before one."""
    return lambda delta: [file.path for file in live_files(delta) if (day := file.partition["dt"]) and day < str(first)]


def expire_landing(config: Settings, *, dry_run: bool = False) -> MaintenanceResult:
    """Remove the landing days that the settings do not keep.

    The marker of a day goes too, and on a disk its folder: a day without a folder fails a run, and empties no table.
    """
    landing = Landing.of(config)
    first = (datetime.now(UTC) - timedelta(days=config.keep_landing_days)).date()
    # What a link leads to out of the landing is none of it, and may be all files of a machine.
    sizes = {
        day: [] if leads_out(folder := landing.folder(day)) else list(storage.list_files(folder).values())
        for day in landing.days()
    }
    files, size = (sum(map(count, sizes.values())) for count in (len, sum))
    old = [day for day in sizes if day < first]
    stuck: dict[date, str] = {}
    for day in old if not dry_run else ():
        fs, place = storage.filesystem(landing.folder(day))
        try:
            # Another upkeep may have removed it meanwhile.
            with suppress(FileNotFoundError):
                fs.rm(place, recursive=True)  # of a link, the link alone
        except OSError as error:
            stuck[day] = type(error).__name__
    gone = [day for day in old if day not in stuck]
    removed, freed = (sum(count(sizes[day]) for day in gone) for count in (len, sum))
    left = (files, size) if dry_run else (files - removed, size - freed)
    problem = ""
    if stuck:
        named = ", ".join(f"{landing.folder(day)} ({error})" for day, error in stuck.items())
        problem = (
            f"{len(stuck)} days that are no longer kept could not be removed, or in part: {named}; see to the rights"
        )
    return MaintenanceResult("landing", files, size, *left, removed=removed, problem=problem)
