"""Keep the lake small: compact, remove what no reader, run or model needs, and old data docs. No Spark.

    python -m lake.upkeep --run-id R [--dry-run]

Nothing that anybody may still read is removed (docs/decisions/0012): files of versions within the retention, of
versions that a model or a training has pinned, and whatever is younger than the retention, such as what a run is
staging now. A staging that was never published is given up in the log before its files are removed, so that no publish
can name them (docs/decisions/0020). Compaction changes no row and no basis: to the checks of lake/publish.py it never
happened.
"""

import argparse
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from deltalake import CommitProperties, DeltaTable, Transaction

from lake import storage
from lake.commits import until_first
from lake.compact import compact, live_files
from lake.errors import UpkeepFailed, run_main
from lake.log import read_log, transactions
from lake.maintenance import (
    MaintenanceResult,
    data_files,
    had_log,
    pinned,
    published_stagings,
    replaced_since,
    staging_of,
)
from lake.places import (
    alerts_folder,
    audits_path,
    forgotten_path,
    models_folder,
    monitor_folder,
    order_path,
    receipts_folder,
    registry_folder,
    runs_folder,
    summaries_folder,
    table_path,
)
from lake.privacy.retention import expire_landing, expire_rows
from lake.publish import ensure_table, given_up
from lake.schemas import TABLES
from lake.settings import Settings, settings
from lake.summaries import KEPT_BLOCKS, remove_summaries, unneeded
from lake.table import files_today, mark_made

log = logging.getLogger(__name__)


def upkeep(config: Settings, *, dry_run: bool = False) -> list[MaintenanceResult]:
    """Compact and clean every table, then data docs and alerts; `dry_run` returns what would be done and does nothing.

    Where one of them fails, the others are maintained all the same; its result has the problem.
    """
    retention, docs_age = timedelta(days=config.retention_days), timedelta(days=config.docs_days)
    tables = [attempted(name, end_and_maintain, name, path, config, dry_run=dry_run) for name, path in delta_tables()]
    staged = [attempted(name, maintain_stagings, name, retention, dry_run=dry_run) for name in only_staged()]
    kinds = [kind for kind in KEPT_BLOCKS if storage.exists(summaries_folder(kind))]
    summaries = [attempted(f"summaries: {kind}", prune_summaries, kind, retention, dry_run=dry_run) for kind in kinds]
    docs = [attempted("data docs", prune_docs, config.docs_folder, docs_age, dry_run=dry_run)]
    docs += [attempted("alerts", prune_alerts, config.lake, docs_age, dry_run=dry_run)]
    landing = [attempted("landing", expire_landing, config, dry_run=dry_run)] if config.keep_landing_days else []
    return [*tables, *staged, *summaries, *docs, *landing]


def end_and_maintain(name: str, path: str, config: Settings, *, dry_run: bool = False) -> MaintenanceResult:
    """End what the settings do not keep for ever in one table, then maintain it."""
    unread = expire_rows(name, path, config, dry_run=dry_run)
    result = maintain_table(name, path, timedelta(days=config.retention_days), dry_run=dry_run)
    return replace(result, problem="; ".join(filter(None, [unread, result.problem])))


def attempted(
    what: str, maintain: Callable[..., MaintenanceResult], *arguments: Any, dry_run: bool
) -> MaintenanceResult:
    """Return the result of maintaining one folder, or, if that fails, one that has the problem."""
    try:
        return maintain(*arguments, dry_run=dry_run)
    except Exception as error:
        log.exception("%s: upkeep failed", what)
        return MaintenanceResult(what, 0, 0, 0, 0, problem=f"{type(error).__name__}: {error}")


def delta_tables() -> Iterator[tuple[str, str]]:
    """Yield name and path of each table that exists; the history of audits is one as well."""
    for name, path in (*((name, table_path(name)) for name in TABLES), ("audits", audits_path())):
        if DeltaTable.is_deltatable(path):
            yield name, path


def only_staged() -> Iterator[str]:
    """Yield the tables of which runs have staged files, and none was ever published."""
    for name in TABLES:
        if not DeltaTable.is_deltatable(table_path(name)) and storage.list_files(table_path(name)):
            yield name


# ---- tables ----


def maintain_stagings(name: str, retention: timedelta, *, dry_run: bool = False) -> MaintenanceResult:
    """Remove old stagings of a table that was never published; they are given up in a log that it gets for it."""
    path = table_path(name)
    old = storage.list_older(path, datetime.now(UTC) - retention)
    files = data_files(path)
    sizes = len(files), sum(files.values())
    if old and had_log(name):
        problem = (
            "its log is gone, so nobody knows which of its files readers need, and none was removed; put the folder "
            f"{storage.join(path, '_delta_log')} back from a copy"
        )
        return MaintenanceResult(name, *sizes, *sizes, problem=problem)
    if old and not dry_run:
        ensure_table(name)
        return maintain_table(name, path, retention)
    return MaintenanceResult(name, *sizes, *sizes, removed=len(old))


def maintain_table(name: str, path: str, retention: timedelta, *, dry_run: bool = False) -> MaintenanceResult:
    """Compact one table, then remove files that no version within the retention and no pinned version needs."""
    before = data_files(path)
    # A partition that cannot be merged must not keep what nobody needs, such as rows that are no longer kept.
    compacted, skipped, unmerged = compact(name, path, dry_run=dry_run)
    problems = [unmerged] if unmerged else []
    delta = DeltaTable(path)
    commits = read_log(path, delta.version())
    # A pin may be of a lake that was deleted, or of a version that is no longer in the log.
    pins = pinned(name) & commits.keys()
    live = {file.path for file in live_files(delta)}.union(*(files_today(path, version) for version in pins))
    replaced = replaced_since(commits, datetime.now(UTC) - retention)
    old = delta.vacuum(
        retention_hours=int(retention.total_seconds() // 3600),
        dry_run=True,
        enforce_retention_duration=False,
        # Also files that are not in the log: stagings that were never published. Younger files stay in any case.
        full=True,
    )
    unneeded = [file for file in old if file not in live and file not in replaced]
    if not dry_run:
        mark_made(path)
        unneeded = remove_unneeded(path, delta.version(), unneeded, published_stagings(commits))
    after = data_files(path)
    # Files of replaced rows that were missing before were removed by an upkeep with a shorter retention.
    missing = sorted(file for file in live | (replaced & before.keys()) if file not in after)
    if missing:
        problems.append(f"{len(missing)} files that readers need are missing, the first is {missing[0]}")
    problem = "; ".join(problems)
    sizes = len(before), sum(before.values()), len(after), sum(after.values())
    log.info(
        "%s: %d files, %d bytes before; %d files, %d bytes after; compacted %d partitions, removed %d files",
        name, *sizes, compacted, len(unneeded),
    )  # fmt: skip
    if problem:
        log.error("%s: %s", name, problem)
    return MaintenanceResult(name, *sizes, compacted, tuple(skipped), len(unneeded), len(pins), problem)


def remove_unneeded(path: str, version: int, files: list[str], published: set[str]) -> list[str]:
    """Remove files that no version to keep needs, and return them.

    Those of a published staging are named by no later commit. Any other staging might still be published: it is given
    up first.
    """
    stagings = {staging for file in files if (staging := staging_of(file))} - published
    if stagings:
        late = stagings - give_up(path, version, stagings)
        files = [file for file in files if staging_of(file) not in late]
    storage.remove_files(path, files)
    return files


def give_up(path: str, version: int, stagings: set[str]) -> set[str]:
    """Give up those stagings that were not published after a version either, and return them.

    The log decides, as it does between two publishes: the commit that gives a staging up fails if another commit came
    after the version that was looked at, and so does that of a publish. docs/decisions/0020 has the argument.

    Raises:
        CommitContended: publishes came first 50 times in a row.
    """

    def attempt() -> set[str]:
        delta = DeltaTable(path)
        unpublished = stagings - published_stagings(read_log(path, delta.version(), after=version))
        new = [mark for staging in sorted(unpublished) if delta.transaction_version(mark := given_up(staging)) is None]
        if new:
            delta.create_write_transaction(
                [],
                "append",
                delta.schema(),
                delta.metadata().partition_columns,
                # delta-rs may not retry for us: what was published has to be looked at again each time.
                commit_properties=CommitProperties(
                    max_commit_retries=0, app_transactions=[Transaction(mark, 1) for mark in new]
                ),
            )
        return unpublished

    return until_first(attempt, "publishes", "no file was removed, try again")


# ---- folders ----


def prune_docs(folder: str, max_age: timedelta, *, dry_run: bool = False) -> MaintenanceResult:
    """Remove the data docs of audits that are older than `max_age`."""
    before = data_files(folder)
    old = storage.list_older(folder, datetime.now(UTC) - max_age)
    # Only the pages of audits, <run>/<table>.html: the folder is a setting, and may have other files as well.
    pages = [name for name in old if name.count("/") == 1 and name.endswith(".html")]
    if not dry_run:
        storage.remove_files(folder, pages)
    after = data_files(folder)
    sizes = len(before), sum(before.values()), len(after), sum(after.values())
    return MaintenanceResult("data docs", *sizes, removed=len(pages))


def prune_alerts(lake: str, max_age: timedelta, *, dry_run: bool = False) -> MaintenanceResult:
    """Remove what is known of causes of which the last alert was sent before `max_age`; not what waits to be sent.

    So are claims of that age, which tasks left that were killed.
    """
    folder = alerts_folder(lake)
    before = storage.list_files(folder)
    old = storage.list_older(folder, datetime.now(UTC) - max_age)
    done = [name for name in old if (name.endswith(".json") and "/" not in name) or name.startswith("claims/")]
    if not dry_run:
        storage.remove_files(folder, done)
    after = storage.list_files(folder)
    sizes = len(before), sum(before.values()), len(after), sum(after.values())
    return MaintenanceResult("alerts", *sizes, removed=len(done))


def never_removed(lake: str) -> dict[str, dict[str, int]]:
    """Return the files and the bytes of what upkeep leaves, by folder of the lake: it grows with each run.

    Of a log, also how many transactions its newest version has: at least one for each run and for each day.
    """
    folders = [runs_folder(), models_folder(), registry_folder(), monitor_folder(), receipts_folder()]
    logs = [path for _, path in delta_tables()]
    logs += [path for path in (order_path(), forgotten_path()) if DeltaTable.is_deltatable(path)]
    sizes = {folder: storage.list_files(folder).values() for folder in folders}
    kept = {folder: {"files": len(found), "bytes": sum(found)} for folder, found in sizes.items() if found}
    for path in logs:
        found = storage.list_files(storage.join(path, "_delta_log")).values()
        told = {"files": len(found), "bytes": sum(found)}
        # The log of a table that failed cannot be read.
        with suppress(Exception):
            told["transactions"] = len(transactions(path, DeltaTable(path).version()) or ())
        kept[storage.join(path, "_delta_log")] = told
    return {folder.removeprefix(lake).lstrip("/"): what for folder, what in kept.items()}


def prune_summaries(kind: str, retention: timedelta, *, dry_run: bool = False) -> MaintenanceResult:
    """Remove the summaries of one kind whose events are gone, and what runs that were killed have written."""
    folder = summaries_folder(kind)
    before = storage.list_files(folder)
    events = data_files(table_path("events"))
    old = unneeded(kind, events, datetime.now(UTC) - retention, KEPT_BLOCKS[kind])
    if not dry_run:
        remove_summaries(kind, old)
    after = storage.list_files(folder)
    sizes = len(before), sum(before.values()), len(after), sum(after.values())
    return MaintenanceResult(f"summaries: {kind}", *sizes, removed=len(old))


def main(argv: list[str] | None = None) -> None:
    """Maintain the lake, and print a JSON object: sums, the result of each part, and what is kept for good.

    Raises:
        UpkeepFailed: a part has a problem; it is raised when all parts were maintained.
    """
    parser = argparse.ArgumentParser(
        prog="lake.upkeep", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run-id", required=True, metavar="R", help="named in the report")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    args = parser.parse_args(argv)
    config = settings()
    parts = [asdict(result) for result in upkeep(config, dry_run=args.dry_run)]
    counted = ("files_before", "bytes_before", "files_after", "bytes_after", "compacted", "removed")
    sums = {name: sum(part[name] for part in parts) for name in counted}
    report = {
        "run_id": args.run_id,
        "dry_run": args.dry_run,
        **sums,
        "parts": parts,
        "kept": never_removed(config.lake),
    }
    print(json.dumps(report))  # noqa: T201  for a machine
    problems = [f"{part['what']}: {part['problem']}" for part in parts if part["problem"]]
    if problems:
        raise UpkeepFailed(f"{len(problems)} of {len(parts)} parts of the lake have a problem: {'; '.join(problems)}")


if __name__ == "__main__":
    run_main(main)
