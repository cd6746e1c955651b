"""What a run has read of the landing, written down, so that a later look can tell whether the landing is another one.

Of each landing day, the manifest and the commit of a staging have the numbers of files, bytes and rows, and a digest of
names, sizes and stamps (`counts["landing"]`): a hundred bytes a day, however many files. The files themselves are
listed in one file beside the manifest, which is opened only where a digest differs.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import IO, Any

from lake import storage
from lake.days import days_between
from lake.errors import DeliveredTwice, DeliveryShrunk, LandingChanged
from lake.landing import Delivery, Landing, LandingFile
from lake.places import deliveries_file
from lake.privacy.landed import forgotten_since, read_landed
from lake.staging import UNREADABLE
from lake.table import Table

# The input rows of files, by day and name.
Rows = Mapping[date, Mapping[str, int]]
# Opens a file to read it, for as long as a block lasts.
Opened = Callable[[str], AbstractContextManager[IO[bytes]]]
# Files of one size are told apart by so much of their beginning first; it is rare that more has to be read.
HEAD_BYTES = 64 * 1024
BLOCK_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True)
class Read:
    """What a run has read of one landing day.

    Attributes:
        day: the landing day.
        run_id, order: of its stagings.
        rows: input rows.
        forgotten: those of them that are of forgotten users, and were left out.
        source: the name of their source, of several separated by commas; empty where it was not written down.
        files: number of files; None where the run did not write it down, as runs did before.
        digest: of their names, sizes and stamps; empty where it was not written down.
        sources: of several sources, those that have read a file of the day; empty where that was not written down.
    """

    day: date
    run_id: str
    order: int
    rows: int
    files: int | None = None
    digest: str = ""
    forgotten: int = 0
    source: str = ""
    sources: str = ""

    @cached_property
    def listed(self) -> dict[str, tuple[LandingFile, int]]:
        """The files, each with its rows, by name; empty if there is no list any more, or it cannot be read."""
        with suppress(*UNREADABLE):
            content = storage.read_json(deliveries_file(self.run_id, self.order)) or {}
            return {
                name: (LandingFile(size, stamp), rows)
                for name, (size, stamp, rows) in content.get(str(self.day), {}).items()
            }
        return {}


@dataclass(frozen=True)
class Difference:
    """How the landing of a published day differs from what was read of it.

    Attributes:
        day: the landing day.
        files: the number of files there now.
        read: the number of files that were read.
        came, changed, gone: the names of files; of none where there is no list of what was read any more.
    """

    day: date
    files: int
    read: int
    came: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()

    @property
    def has_more(self) -> bool:
        """Whether there is something that was not read: what is only gone cannot be loaded again."""
        return bool(self.came or self.changed or not self.gone)

    def __str__(self) -> str:
        parts = [
            f"{what}: {len(names):,} ({names[0]}{', ...' if len(names) > 1 else ''})"
            for what, names in (("came later", self.came), ("changed", self.changed), ("gone", self.gone))
            if names
        ]
        what = ", ".join(parts) or "their names, sizes or times are others"
        return f"files in the landing: {self.files:,}, read: {self.read:,}; {what}"


# ---- writing down ----


def digest(files: Delivery) -> str:
    """Return 16 hexadecimal digits that differ when a name, size or stamp does."""
    content = json.dumps([[name, file.bytes, file.stamp] for name, file in sorted(files.items())])
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def summary(deliveries: Mapping[date, Delivery], rows: Rows) -> dict[str, dict[str, Any]]:
    """Return what manifest and commit tell of each day that a run has read."""
    return {
        str(day): {
            "files": len(files),
            "bytes": sum(file.bytes for file in files.values()),
            "rows": sum(rows.get(day, {}).values()),
            "digest": digest(files),
        }
        for day, files in deliveries.items()
    }


def write_list(run_id: str, order: int, deliveries: Mapping[date, Delivery], rows: Rows) -> None:
    """List the files that a run has read, beside its manifests."""
    content = {
        str(day): {name: [file.bytes, file.stamp, rows.get(day, {}).get(name, 0)] for name, file in files.items()}
        for day, files in deliveries.items()
    }
    storage.write_json(deliveries_file(run_id, order), content)


# ---- checks of a run ----


def require_unchanged(before: Mapping[date, Delivery], after: Mapping[date, Delivery]) -> None:
    """Check that landing days are as they were when their files were listed.

    Raises:
        LandingChanged: files came, changed or went while the run read.
    """
    for day, files in before.items():
        if files != after[day]:
            found = compare(day, files, after[day])
            raise LandingChanged(
                f"the landing of {day} changed while it was read, so nothing was staged: {found}; run this day again "
                "once its delivery is complete. Let the shop write a marker file last and set MEANDER_LANDING_MARKER"
            )


def require_no_copies(
    landing: Landing,
    deliveries: Mapping[date, Delivery],
    rows: Rows,
    packed: tuple[str, ...] = (),
    unpacked: Opened | None = None,
) -> None:
    """Check that no two files of a landing day are equal, byte by byte, packed or not. Files without a row may be.

    Args:
        landing: where they are.
        deliveries: the files of each day.
        rows: of each file.
        packed: how the names of packed files end.
        unpacked: opens a file; of a packed one it gives the text.

    Raises:
        DeliveredTwice: two are.
    """
    for day, files in deliveries.items():
        folder, of_day = landing.folder(day), rows.get(day, {})
        pair, how = equal_files(folder, {name: file for name, file in files.items() if of_day.get(name)}), ""
        if not pair and unpacked:
            with_rows = {name: of_day[name] for name in files if of_day.get(name)}
            pair, how = equal_texts(folder, with_rows, packed, unpacked), ", once they are unpacked"
        if pair:
            raise DeliveredTwice(
                f"{day}: {pair[0]} and {pair[1]} in {folder} are equal, byte by byte{how}: a log under two names, of "
                "which each row would count twice. Remove one of them, then run this day again"
            )


def as_it_is(file: str) -> AbstractContextManager[IO[bytes]]:
    """Open a file."""
    fs, inner = storage.filesystem(file)
    opened: AbstractContextManager[IO[bytes]] = fs.open(inner, "rb")
    return opened


def equal_files(folder: str, files: Delivery) -> tuple[str, str] | None:
    """Return the names of two files that are equal, or None. Only files of the same size are read."""
    return first_equal(folder, in_groups({name: file.bytes for name, file in files.items()}), as_it_is)


def equal_texts(
    folder: str, rows: Mapping[str, int], packed: tuple[str, ...], unpacked: Opened
) -> tuple[str, str] | None:
    """Return the names of two files of which one is packed, at least, and whose texts are equal, or None.

    Two packings of a text differ, if only in the time that each of them has noted. Only files with as many rows as a
    packed one are read.
    """
    alike = [names for names in in_groups(rows) if any(name.lower().endswith(packed) for name in names)]
    return first_equal(folder, alike, unpacked)


def in_groups(files: Mapping[str, int]) -> list[list[str]]:
    """Return the names of two or more files that have the same number.

    >>> in_groups({"a": 2, "b": 1, "c": 2})
    [['a', 'c']]
    """
    by_number: dict[int, list[str]] = defaultdict(list)
    for name, number in files.items():
        by_number[number].append(name)
    return [names for _, names in sorted(by_number.items()) if len(names) > 1]


def first_equal(folder: str, alike: list[list[str]], opened: Opened) -> tuple[str, str] | None:
    """Return the names of two files of one of some groups that are equal, or None."""
    # Mostly the beginning tells them apart.
    for size in (HEAD_BYTES, None):
        alike = [group for names in alike for group in same_content(folder, names, size, opened)]
    return (alike[0][0], alike[0][1]) if alike else None


def same_content(folder: str, names: list[str], size: int | None, opened: Opened) -> list[list[str]]:
    """Return the groups of two or more files whose first `size` bytes are equal; all their bytes when None."""

    def content(name: str) -> bytes:
        hashed, left = hashlib.blake2b(), size
        with opened(storage.join(folder, name)) as stream:
            # What is unpacked may come in smaller parts than were asked for.
            while block := stream.read(BLOCK_BYTES if left is None else left):
                hashed.update(block)
                left = None if left is None else left - len(block)
        return hashed.digest()

    groups: dict[bytes, list[str]] = defaultdict(list)
    with ThreadPoolExecutor(max_workers=8) as pool:
        for name, found in zip(names, pool.map(content, names), strict=True):
            groups[found].append(name)
    return [group for group in groups.values() if len(group) > 1]


def require_no_loss(table: Table | None, now: Mapping[date, Read]) -> None:
    """Check that landing days have all that readers see of them, and are of the source that they were of.

    Args:
        table: `events` or `quarantine` as readers see it; None before the first publish.
        now: what the run has read.

    Raises:
        DeliveryShrunk: rows or files are gone, or the rows of another source would take their place.
    """
    # The whole log is read only for days that are published already.
    if table is None or all(table.basis(day) is None for day in now):
        return
    before = published(table.commits())
    known = [day for day in sorted(now) if day in before]
    landed = read_landed() if any(now[day].rows < before[day].rows for day in known) else []
    lost = {
        day: what
        for day in known
        if (what := loss(before[day], now[day], forgotten_since(landed, day, before[day].order)))
    }
    if lost:
        day, what = next(iter(lost.items()))
        more = f"; so do {len(lost) - 1} more days" if len(lost) > 1 else ""
        if not still_has(before[day], now[day]):
            raise DeliveryShrunk(
                f"landing day {day}: {what}{more}. Readers keep what they have. Is MEANDER_SOURCE right? If the other "
                "rows are to go, run jobs.ingest or `meander daily` with --allow-shrink (in Airflow: the parameter "
                "allow_shrink)"
            )
        raise DeliveryShrunk(
            f"the landing of {day} has less than readers see: {what}{more}. Readers keep what they have. Restore the "
            "files; if it is right that they are gone, run jobs.ingest or `meander daily` with --allow-shrink (in "
            "Airflow: the parameter allow_shrink)"
        )


def still_has(before: Read, now: Read) -> bool:
    """Return whether each source that has read a file of a day is among those of the run now, where both are known."""
    had = before.sources or before.source
    return not (had and now.source) or set(had.split(", ")) <= set(now.source.split(", "))


def loss(before: Read, now: Read, forgotten: int = 0) -> str:
    """Return what of a landing day was read before and would be gone, in words; empty if nothing would.

    Args:
        before: what readers see.
        now: what a run has read.
        forgotten: how many of the rows that were read before are of users who were forgotten since. Like those that
            a run has left out, they may be gone.
    """
    if not still_has(before, now):
        return (
            f"its {before.rows:,} rows are those of the source {before.sources or before.source}, and those of "
            f"{now.source} would take their place; two logs of a day are `sources` of one source, two kinds of "
            "files its `versions`"
        )
    kept = before.rows - before.forgotten - forgotten
    if now.rows < before.rows and now.rows - now.forgotten < kept:
        return f"{before.rows:,} rows were read, now it has {now.rows:,}"
    if before.files is None or before.digest == now.digest:
        return ""
    if not before.listed:
        return f"{before.files:,} files were read, now it has {now.files:,}" if (now.files or 0) < before.files else ""
    moved = {file for file, _ in now.listed.values()}
    gone = [
        name for name, (file, rows) in before.listed.items() if rows and name not in now.listed and file not in moved
    ]
    # A day that is delivered anew may have other names throughout: then its rows alone can tell.
    if not gone or not before.listed.keys() & now.listed.keys():
        return ""
    return f"{len(gone)} of {before.files:,} files that were read are gone, such as {gone[0]}"


# ---- looking back ----


def read_by(content: Mapping[str, Any], run_id: str, order: int, day: date) -> Read | None:
    """Return what a run has read of a day, by the counts of its manifest or commit; None if they do not tell."""
    counted, source = content.get("by_day", {}).get(str(day)), content.get("source", "")
    if known := content.get("landing", {}).get(str(day)):
        forgotten = (counted or {}).get("forgotten", 0)
        sources = ", ".join(known.get("sources", ()))
        return Read(day, run_id, order, known["rows"], known["files"], known["digest"], forgotten, source, sources)
    return Read(day, run_id, order, counted["input"], source=source) if counted else None


def all_read_by(content: Mapping[str, Any], run_id: str, order: int, days: Iterable[date]) -> dict[date, Read]:
    """Return what a run has read of some days; without those of which it does not tell. See `read_by`."""
    return {day: read for day in days if (read := read_by(content, run_id, order, day))}


def published(commits: Iterable[Mapping[str, Any]]) -> dict[date, Read]:
    """Return what was read of each landing day that readers see.

    Args:
        commits: the commits of `events` or `quarantine`, as Table.commits() returns them: newest first.
    """
    reads: dict[date, Read | None] = {}
    for commit in commits:
        counts, refused = json.loads(commit["counts"]), set(json.loads(commit["refused"]))
        for day in days_between(date.fromisoformat(commit["first"]), date.fromisoformat(commit["last"])):
            if day not in reads and str(day) not in refused:
                reads[day] = read_by(counts, commit["run_id"], int(commit.get("order", 0)), day)
    return {day: read for day, read in reads.items() if read}


def compare(day: date, before: Delivery, now: Delivery) -> Difference:
    """Return how the files of a day differ."""
    return Difference(
        day,
        len(now),
        len(before),
        came=tuple(sorted(now.keys() - before.keys())),
        changed=tuple(sorted(name for name in now.keys() & before.keys() if now[name] != before[name])),
        gone=tuple(sorted(before.keys() - now.keys())),
    )


def since(read: Read, now: Delivery) -> Difference:
    """Return how the files of a day differ from those that were read."""
    if read.files and not read.listed:
        return Difference(read.day, len(now), read.files)
    return compare(read.day, {name: file for name, (file, _) in read.listed.items()}, now)


def listed(landing: Landing, first: date) -> dict[date, str]:
    """Return the digest of each day from `first` on that has a folder; `changed_since_read` can be given it often."""
    try:
        days = [day for day in landing.days() if day >= first]
        return {day: digest(files) for day, files in landing.found(days).items()}
    except OSError:
        return {}


def changed_since_read(
    landing: Landing, reads: Mapping[date, Read], before: Mapping[date, str] | None = None
) -> dict[date, Difference]:
    """Return the published days whose landing is another than what was read, sorted; no file is opened.

    A day without a folder is none of them: the shop may have archived it. Nor is one of which no run wrote down what it
    read. Where the landing cannot be seen from here, there are none.

    Args:
        landing: the landing area.
        reads: what was read of each day.
        before: an earlier listing: a day that was then as it was read is not listed again. None lists all of them.
    """
    try:
        found = landing.found(
            day for day, read in reads.items() if read.digest and (before is None or before.get(day) != read.digest)
        )
    except OSError:
        return {}
    return {
        day: since(read, found[day])
        for day, read in sorted(reads.items())
        if day in found and read.digest != digest(found[day])
    }
