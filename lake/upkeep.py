"""Keep the lake small: compact, remove what no reader, run or model needs, and old data docs. No Spark.

    python -m lake.upkeep --run-id R [--dry-run]

Nothing that anybody may still read is removed (docs/decisions/0012): files of versions within the retention, of
versions that a model or a training has pinned, and whatever is younger than the retention, such as what a run is
staging now. Compaction changes no row and no basis: to the checks of lake/publish.py it never happened.
"""

import argparse
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError

from lake import storage
from lake.errors import UpkeepFailed, run_main
from lake.places import CARD, PLAN, audits_path, models_folder, registry_folder, table_path
from lake.schemas import TABLES
from lake.settings import Settings, settings
from lake.table import history

log = logging.getLogger(__name__)

ATTEMPTS = 5
# A reader opens each file; beyond this size, fewer of them save nothing.
TARGET_BYTES = 128 * 1024 * 1024


@dataclass(frozen=True)
class MaintenanceResult:
    """The result of upkeep for one folder.

    Attributes:
        what: a table, or `data docs`.
        files_before, bytes_before, files_after, bytes_after: all files below the folder, the log of a table left out.
        compacted: partitions whose small files became fewer.
        skipped: partitions that a publish replaced meanwhile; the next upkeep tries again.
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
    files, size = measure(path)
    compacted, skipped = compact(name, path, dry_run=dry_run)
    delta = DeltaTable(path)
    commits = history(path, delta.version())
    # A pin may be of a lake that was deleted, or of a version that is no longer in the log.
    pins = pinned(name) & {commit["version"] for commit in commits}
    removed = delta.vacuum(
        retention_hours=int(retention.total_seconds() // 3600),
        dry_run=dry_run,
        enforce_retention_duration=False,
        # Also files that are not in the log: stagings that were never published. Younger files stay in any case.
        full=True,
        keep_versions=sorted(pins | versions_since(commits, datetime.now(UTC) - retention)),
    )
    after = measure(path)
    result = MaintenanceResult(name, files, size, *after, compacted, tuple(skipped), len(removed), len(pins))
    log.info(
        "%s: %d files, %d bytes before; %d files, %d bytes after; compacted %d partitions, removed %d files",
        name, files, size, *after, compacted, len(removed),
    )  # fmt: skip
    return result


def versions_since(commits: list[dict[str, Any]], moment: datetime) -> set[int]:
    """Return the versions that were the newest at or after a moment: a reader may have opened them since."""
    versions = set()
    for commit in commits:
        versions.add(int(commit["version"]))
        if commit["timestamp"] < moment.timestamp() * 1000:
            break
    return versions


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
        how many partitions were merged, and those that stay for the next time, since publishes came in between.
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
            log.warning("%s: left %s as it is, publishes came in between", name, "/".join(partition) or "the table")
            skipped.append("/".join(partition))
    return merged, skipped


def merge(path: str, partition: list[tuple[str, str, str]]) -> bool:
    """Merge the small files of one partition; return False if publishes came in between each time."""
    for _ in range(ATTEMPTS):
        try:
            # Opened again each time: a later commit that removes files, also of other partitions, is a conflict.
            DeltaTable(path).optimize.compact(partition_filters=partition or None, target_size=TARGET_BYTES)
        except CommitFailedError:
            continue
        return True
    return False


# ---- folders ----


def measure(folder: str) -> tuple[int, int]:
    """Return the number and the bytes of the files below a folder, the Delta log left out."""
    sizes = [size for name, size in storage.list_files(folder).items() if not name.startswith("_delta_log/")]
    return len(sizes), sum(sizes)


def prune_docs(folder: str, max_age: timedelta, *, dry_run: bool = False) -> MaintenanceResult:
    """Remove the data docs of audits that are older than `max_age`."""
    before = measure(folder)
    old = storage.list_older(folder, datetime.now(UTC) - max_age)
    # Only the pages of audits, <run>/<table>.html: the folder is a setting, and may have other files as well.
    pages = [name for name in old if name.count("/") == 1 and name.endswith(".html")]
    if not dry_run:
        storage.remove_files(folder, pages)
    return MaintenanceResult("data docs", *before, *measure(folder), removed=len(pages))


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
