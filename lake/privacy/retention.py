"""How long rows are kept: the texts of rejected rows, events and landing files, by the settings; a part of lake.upkeep.

Rows go in a commit that is no publish and changes no basis. Their old files are removed as all that was replaced is, so
`MEANDER_RETENTION_DAYS` later. What a training or a model has pinned stays until its pin goes.
"""

import logging
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable
from deltalake.transaction import AddAction, RemoveAction
from fsspec.implementations.local import LocalFileSystem

from lake import storage
from lake.audits import remove_before
from lake.commits import until_first
from lake.compact import live_files
from lake.errors import SettingsInvalid
from lake.landing import Landing, leads_out
from lake.maintenance import MaintenanceResult
from lake.privacy.logs import redact_log
from lake.privacy.matching import Chosen
from lake.privacy.rewriting import Change, Rewritten, count_chosen, rewrite
from lake.publish import added
from lake.schemas import TABLES
from lake.settings import Settings

log = logging.getLogger(__name__)

RAW = Chosen(("raw",), lambda rows: pc.is_valid(rows["raw"]))
EVERY_ROW = Chosen(("event_id",), lambda rows: pa.array([True] * rows.num_rows))

Old = Callable[[DeltaTable], list[str]]


def expire_rows(name: str, path: str, config: Settings, *, dry_run: bool = False) -> None:
    """Remove the rows of one table, and the texts of rows, that the settings do not keep, also those in its log.

    Raises:
        SettingsInvalid: events would be gone before they are out of the history of a user.
        CommitContended: other commits came first, 50 times in a row.
    """
    # A clock decides what is old, as it does for all of upkeep.
    now, files = datetime.now(UTC), 0
    if name == "quarantine" and config.keep_raw_days:
        old = written_before(now - timedelta(days=config.keep_raw_days))
        files = expire(name, path, old, RAW, without_raw, dry_run=dry_run)
    if name == "events" and config.keep_events_days:
        if config.keep_events_days < config.history_days:
            raise SettingsInvalid(
                f"MEANDER_KEEP_EVENTS_DAYS must be 0 or at least MEANDER_HISTORY_DAYS={config.history_days}, received "
                f"{config.keep_events_days}: interests are computed from the events of these days"
            )
        old = dated_before((now - timedelta(days=config.keep_events_days)).date())
        files = expire(name, path, old, EVERY_ROW, no_row, dry_run=dry_run)
    if name == "audits" and config.keep_audits_days:
        lines = remove_before(now - timedelta(days=config.keep_audits_days), dry_run=dry_run)
        log.info("audits: %d lines that are no longer kept", lines)
    # The history of audits quotes no row.
    logs = redact_log(path, dry_run=dry_run) if name in TABLES else 0
    log.info(
        "%s: %d files with rows that are no longer kept, %d files of the log with texts of rows", name, files, logs
    )


def no_row(rows: pa.Table, mask: pa.Array) -> pa.Table:
    """Return none of the rows, which are all chosen."""
    return rows.slice(0, len(mask) - pc.sum(mask).as_py())


def without_raw(rows: pa.Table, mask: pa.Array) -> pa.Table:
    """Return rejected rows without the texts of those that are chosen."""
    column = rows.schema.get_field_index("raw")
    field = rows.schema.field(column)
    return rows.set_column(column, field, pc.if_else(mask, pa.scalar(None, field.type), rows["raw"]))


def expire(table: str, path: str, old: Old, chosen: Chosen, change: Change, *, dry_run: bool = False) -> int:
    """Change the chosen rows of old files, and return in how many files there were some.

    Raises:
        CommitContended: other commits came first, 50 times in a row.
    """
    known: dict[str, Rewritten | None] = {}

    def attempt() -> int:
        delta = DeltaTable(path)
        live, files = {file.path: file for file in live_files(delta)}, old(delta)
        if dry_run:
            return sum(count_chosen(path, file, chosen) > 0 for file in files)
        known.update({file: rewrite(table, path, file, chosen, change) for file in files if file not in known})
        made = [file for name in files if (file := known[name])]
        if not made:
            return 0
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
        return len(made)

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
    if not dry_run:
        for day in old:
            fs, place = storage.filesystem(landing.folder(day))
            if isinstance(fs, LocalFileSystem) and Path(place).is_symlink():
                Path(place).unlink()  # what it leads to is not ours to remove
            else:
                fs.rm(place, recursive=True)
    removed, freed = (sum(count(sizes[day]) for day in old) for count in (len, sum))
    left = (files, size) if dry_run else (files - removed, size - freed)
    return MaintenanceResult("landing", files, size, *left, removed=removed)
