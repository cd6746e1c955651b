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
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import unquote

from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake.exceptions import CommitFailedError

from lake import storage
from lake.errors import CommitContended, UpkeepFailed, run_main
from lake.places import CARD, PLAN, audits_path, models_folder, registry_folder, table_path
from lake.publish import given_up
from lake.schemas import TABLES
from lake.settings import Settings, settings
from lake.table import actions, read_log

log = logging.getLogger(__name__)

MERGE_ATTEMPTS, COMMIT_ATTEMPTS = 5, 20
# A reader opens each file; beyond this size, fewer of them save nothing.
TARGET_BYTES = 128 * 1024 * 1024


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


def upkeep(config: Settings, *, dry_run: bool = False) -> list[MaintenanceResult]:
    """Compact and clean every table, then the data docs; `dry_run` returns what would be done and does nothing.

    Where one of them fails, the others are maintained all the same; its result has the problem.
    """
    retention, docs_age = timedelta(days=config.retention_days), timedelta(days=config.docs_days)
    tables = [attempted(name, maintain_table, name, path, retention, dry_run=dry_run) for name, path in delta_tables()]
    return [*tables, attempted("data docs", prune_docs, config.docs_folder, docs_age, dry_run=dry_run)]


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


# ---- tables ----


def maintain_table(name: str, path: str, retention: timedelta, *, dry_run: bool = False) -> MaintenanceResult:
    """Compact one table, then remove files that no version within the retention and no pinned version needs."""
    before = data_files(path)
    compacted, skipped = compact(name, path, dry_run=dry_run)
    delta = DeltaTable(path)
    commits = read_log(path, delta.version())
    # A pin may be of a lake that was deleted, or of a version that is no longer in the log.
    pins = pinned(name) & commits.keys()
    live = live_files(delta).union(*(live_files(DeltaTable(path, version=version)) for version in pins))
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
        unneeded = remove_unneeded(path, delta.version(), unneeded, published_stagings(commits))
    after = data_files(path)
    # Files of replaced rows that were missing before were removed by an upkeep with a shorter retention.
    missing = sorted(file for file in live | (replaced & before.keys()) if file not in after)
    problem = f"{len(missing)} files that readers need are missing, the first is {missing[0]}" if missing else ""
    sizes = len(before), sum(before.values()), len(after), sum(after.values())
    log.info(
        "%s: %d files, %d bytes before; %d files, %d bytes after; compacted %d partitions, removed %d files",
        name, *sizes, compacted, len(unneeded),
    )  # fmt: skip
    if problem:
        log.error("%s: %s", name, problem)
    return MaintenanceResult(name, *sizes, compacted, tuple(skipped), len(unneeded), len(pins), problem)


def live_files(delta: DeltaTable) -> set[str]:
    """Return the files of the version that is open."""
    return set(delta.get_add_actions().column("path").to_pylist())


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
        CommitContended: publishes won the commit 20 times in a row.
    """
    for attempt in range(COMMIT_ATTEMPTS):
        delta = DeltaTable(path)
        stagings = stagings - published_stagings(read_log(path, delta.version(), after=version))
        new = [mark for staging in sorted(stagings) if delta.transaction_version(mark := given_up(staging)) is None]
        if not new:
            return stagings
        try:
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
        except CommitFailedError:
            time.sleep(random.uniform(0, 0.1 * (attempt + 1)))
            continue
        return stagings
    raise CommitContended(f"publishes won {COMMIT_ATTEMPTS} times; no file was removed, try again")


def pinned(table: str) -> set[int]:
    """Return the versions of a table that trainings and registered models were made from, by their plans and cards."""
    versions = set()
    for root, name in ((models_folder(), PLAN), (registry_folder(), CARD)):
        for path in storage.list_files(root):
            if path.rsplit("/", 1)[-1] == name:
                content = storage.read_json(storage.join(root, path)) or {}
                versions |= {int(version) for of, version in content.get("tables", {}).items() if of == table}
    return versions


def compact(name: str, path: str, *, dry_run: bool = False) -> tuple[int, list[str]]:
    """Merge the small files of each partition that has several, each in a commit of its own that changes no row.

    Returns:
        how many partitions were merged, and those that stay for the next time, since other commits came in between.
    """
    by = TABLES[name].partition_by if name in TABLES else ()
    actions = DeltaTable(path).get_add_actions(flatten=True)
    values = [actions.column(f"partition.{column}").to_pylist() for column in by]
    sizes = actions.column("size_bytes").to_pylist()
    small = Counter(tuple(str(column[i]) for column in values) for i, size in enumerate(sizes) if size < TARGET_BYTES)
    merged, skipped = 0, []
    for partition in sorted(partition for partition, files in small.items() if files > 1):
        if dry_run or merge(path, [(column, "=", value) for column, value in zip(by, partition, strict=True)]):
            merged += 1
        else:
            log.warning("%s: left %s as it is, other commits came in between", name, "/".join(partition) or "the table")
            skipped.append("/".join(partition))
    return merged, skipped


def merge(path: str, partition: list[tuple[str, str, str]]) -> bool:
    """Merge the small files of one partition; return False if other commits came in between each time."""
    for _ in range(MERGE_ATTEMPTS):
        try:
            # Opened again each time: a later publish that removes files, also of other partitions, is a conflict. The
            # merge of the same files by another upkeep is none: never run two at once.
            DeltaTable(path).optimize.compact(partition_filters=partition or None, target_size=TARGET_BYTES)
        except CommitFailedError:
            continue
        return True
    return False


# ---- folders ----


def data_files(folder: str) -> dict[str, int]:
    """Return {path: bytes} of the files below a folder, the Delta log left out."""
    return {name: size for name, size in storage.list_files(folder).items() if not name.startswith("_delta_log/")}


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


def main(argv: list[str] | None = None) -> None:
    """Maintain the lake, and print a JSON object with the sums and the result of each part.

    Raises:
        UpkeepFailed: a part has a problem; it is raised when all parts were maintained.
    """
    parser = argparse.ArgumentParser(
        prog="lake.upkeep", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run-id", required=True, metavar="R", help="named in the report")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    args = parser.parse_args(argv)
    parts = [asdict(result) for result in upkeep(settings(), dry_run=args.dry_run)]
    counted = ("files_before", "bytes_before", "files_after", "bytes_after", "compacted", "removed")
    sums = {name: sum(part[name] for part in parts) for name in counted}
    print(json.dumps({"run_id": args.run_id, "dry_run": args.dry_run, **sums, "parts": parts}))  # noqa: T201  for a machine
    problems = [f"{part['what']}: {part['problem']}" for part in parts if part["problem"]]
    if problems:
        raise UpkeepFailed(f"{len(problems)} of {len(parts)} parts of the lake have a problem: {'; '.join(problems)}")


if __name__ == "__main__":
    run_main(main)
