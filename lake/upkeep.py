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
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError

from lake import storage
from lake.errors import run_main
from lake.places import CARD, PLAN, audits_path, models_folder, registry_folder, table_path
from lake.schemas import TABLES
from lake.settings import settings
from lake.table import history

log = logging.getLogger(__name__)

# A reader opens each file; beyond this size, fewer of them save nothing.
ATTEMPTS = 5
TARGET_BYTES = 128 * 1024 * 1024


@dataclass(frozen=True)
class Kept:
    """What upkeep did to one folder.

    Attributes:
        what: a table, or `data docs`.
        files_before, bytes_before, files_after, bytes_after: all files below the folder, the log of a table left out.
        compacted: partitions whose small files became fewer.
        skipped: partitions that a publish replaced meanwhile; the next upkeep looks again.
        removed: files that nobody needs any more.
        pinned: versions kept for models and trainings.
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


def upkeep(*, dry_run: bool = False) -> list[Kept]:
    """Compact and clean every table, then the data docs; with `dry_run`, say what would be done and do nothing."""
    found = [keep_table(name, path, dry_run=dry_run) for name, path in delta_tables()]
    return [*found, keep_docs(dry_run=dry_run)]


def delta_tables() -> Iterator[tuple[str, str]]:
    """Return name and path of each table that there is; the history of audits is one as well."""
    for name, path in (*((name, table_path(name)) for name in TABLES), ("audits", audits_path())):
        if DeltaTable.is_deltatable(path):
            yield name, path


# ---- tables ----


def keep_table(name: str, path: str, *, dry_run: bool = False) -> Kept:
    """Compact one table, then remove files that no version to keep needs."""
    files, size = measure(path)
    compacted, skipped = compact(name, path, dry_run=dry_run)
    retention = timedelta(days=settings().retention_days)
    delta = DeltaTable(path)
    pins = pinned(name) & set(range(delta.version() + 1))
    removed = delta.vacuum(
        retention_hours=int(retention.total_seconds() // 3600),
        dry_run=dry_run,
        enforce_retention_duration=False,
        # Also what the log does not know: stagings that were given up. Younger files stay, whoever they belong to.
        full=True,
        keep_versions=sorted(pins | versions_since(delta, datetime.now(UTC) - retention)),
    )
    after = measure(path)
    done = Kept(name, files, size, *after, compacted, tuple(skipped), len(removed), len(pins))
    log.info(
        "%s: %d files, %d bytes before; %d files, %d bytes after; compacted %d partitions, removed %d files",
        name, files, size, *after, compacted, len(removed),
    )  # fmt: skip
    return done


def versions_since(delta: DeltaTable, moment: datetime) -> set[int]:
    """Return the versions that were the newest at or after a moment: those a reader may have opened since."""
    found = set()
    for entry in history(delta):
        found.add(int(entry["version"]))
        if entry["timestamp"] < moment.timestamp() * 1000:
            break
    return found


def pinned(table: str) -> set[int]:
    """Return the versions of a table that trainings and registered models were made from, by their plans and cards."""
    found = set()
    for root, name in ((models_folder(), PLAN), (registry_folder(), CARD)):
        for path in storage.list_files(root):
            if path.rsplit("/", 1)[-1] == name:
                content = storage.read_json(storage.join(root, path)) or {}
                found |= {int(version) for of, version in content.get("tables", {}).items() if of == table}
    return found


def compact(name: str, path: str, *, dry_run: bool = False) -> tuple[int, list[str]]:
    """Merge the small files of each partition that has several, each in a commit of its own that changes no row.

    Returns:
        how many partitions were merged, and those that are left for the next time, since publishes came in between.
    """
    by = TABLES[name].partition_by if name in TABLES else ()
    actions = DeltaTable(path).get_add_actions(flatten=True)
    places = [actions.column(f"partition.{column}").to_pylist() for column in by]
    sizes = actions.column("size_bytes").to_pylist()
    small = Counter(tuple(str(place[i]) for place in places) for i, size in enumerate(sizes) if size < TARGET_BYTES)
    merged, skipped = 0, []
    for partition in sorted(place for place, files in small.items() if files > 1):
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
            # Opened anew: a commit since then that removes files, also of other partitions, is a conflict.
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


def keep_docs(*, dry_run: bool = False) -> Kept:
    """Remove the data docs of audits that are older than their setting."""
    folder = settings().docs_folder
    before = measure(folder)
    old = storage.list_older(folder, datetime.now(UTC) - timedelta(days=settings().docs_days))
    # Only what an audit wrote, <run>/<table>.html: the folder is a setting, and may hold other things as well.
    pages = [name for name in old if name.count("/") == 1 and name.endswith(".html")]
    if not dry_run:
        storage.remove_files(folder, pages)
    return Kept("data docs", *before, *measure(folder), removed=len(pages))


def main(argv: list[str] | None = None) -> None:
    """Keep the lake, and print a JSON object: what was done in all, and to each part."""
    parser = argparse.ArgumentParser(
        prog="lake.upkeep", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run-id", required=True, metavar="R", help="named in the report")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    args = parser.parse_args(argv)
    parts = [asdict(kept) for kept in upkeep(dry_run=args.dry_run)]
    counted = ("files_before", "bytes_before", "files_after", "bytes_after", "compacted", "removed")
    sums = {name: sum(part[name] for part in parts) for name in counted}
    print(json.dumps({"run_id": args.run_id, "dry_run": args.dry_run, **sums, "parts": parts}))  # noqa: T201  for a machine


if __name__ == "__main__":
    run_main(main)
