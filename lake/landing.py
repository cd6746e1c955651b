"""The landing area: `<landing>/dt=YYYY-MM-DD/`, one folder for each day on which files arrived."""

import contextlib
import os
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from lake import storage
from lake.days import ONE_DAY
from lake.errors import LandingMissing, LandingUnreadable, SettingsInvalid
from lake.settings import Settings
from lake.text import is_usable_id

# Names of data do not begin with these.
HIDDEN = ("_", ".")
DAY_FOLDER = re.compile(r"dt=[0-9]{4}-[0-9]{2}-[0-9]{2}")
# So many days are listed one by one.
FEW_DAYS = 16
# What file systems call the mark of a content, and the time at which a file was last changed.
MARKS = ("ETag", "etag", "md5Hash")
TIMES = ("LastModified", "last_modified", "updated", "mtime")


@dataclass(frozen=True)
class LandingFile:
    """A landing file, as its storage tells of it.

    Attributes:
        bytes: its size.
        stamp: changes when its content does: the ETag of an object store, or the time of the last change.
    """

    bytes: int
    stamp: str


# The data files of one landing day, by their names below its folder.
Delivery = Mapping[str, LandingFile]


@dataclass(frozen=True)
class Landing:
    """One landing area.

    Attributes:
        address: the folder or address of the days.
        marker: the files that complete a day, such as _SUCCESS, separated by commas; empty if a quiet time does. One
            with `*` is a pattern, of which any data file of the day has to be: web/*, app/*.
        quiet: the time in which no file of a recent day may have changed before it is complete. It does not count
            where files without `*` complete a day.
    """

    address: str
    marker: str = ""
    quiet: timedelta = timedelta(0)

    @classmethod
    def of(cls, config: Settings) -> "Landing":
        """Return the landing area that the settings name.

        Raises:
            SettingsInvalid: it lies below a folder that is named as a landing day is; or no file can be a marker.
        """
        # The landing day of a file is that of the first such folder in its address.
        parts = config.landing.split("/") if "://" in config.landing else Path(config.landing).absolute().parts
        if above := next((part for part in parts if DAY_FOLDER.fullmatch(part)), None):
            raise SettingsInvalid(
                f"MEANDER_LANDING={config.landing} lies below a folder {above}, which would be taken for the landing "
                "day of each file; move it to a folder that has no dt=YYYY-MM-DD above it, or let a link lead to it"
            )
        landing = cls(config.landing, config.landing_marker, timedelta(minutes=config.landing_quiet_minutes))
        for name in landing.markers:
            why = ""
            if "?" in name or "[" in name:
                why = "* alone stands for other characters; write it in the place of ? and [...]"
            elif "*" in name and any(part.startswith(HIDDEN) for part in name.split("/")):
                why = "* stands for data files, whose names do not begin with _ or .; name each file: web/_SUCCESS"
            if why:
                raise SettingsInvalid(f"MEANDER_LANDING_MARKER has {name}: {why}")
        return landing

    def folder(self, day: date) -> str:
        """Return the folder of the files that arrived on one day."""
        return storage.join(self.address, f"dt={day}")

    def days(self) -> list[date]:
        """Return every day that has a folder, sorted, whether it is complete or not; see `has_landed`."""
        fs, root = storage.filesystem(self.address)
        paths = fs.ls(root, detail=False) if fs.exists(root) else ()
        return sorted(day for path in paths if (day := day_of(path.rstrip("/").rsplit("/", 1)[-1])))

    @property
    def markers(self) -> list[str]:
        """The names, and the patterns of names, of which a complete day has a file each."""
        return [name for part in self.marker.split(",") if (name := part.strip())]

    def beside(self, folder: str) -> "Landing":
        """Return the landing of a table beside the log, whose days do not have the files and folders of exporters.

        Without a marker that is the name of a file, a quiet time completes them.
        """
        own = ", ".join(name for name in self.markers if "/" not in name and "*" not in name)
        return Landing(storage.join(self.address, folder), own, self.quiet)

    def has_landed(self, day: date) -> bool:
        """Return whether a day is complete: its folder exists, and has the markers or is quiet, whichever is set."""
        return not self.lacks(day)

    def lacks(self, day: date) -> str:
        """Return what a day lacks to be complete, in words; empty if it lacks nothing."""
        folder = self.folder(day)
        if (missing := self.missing(folder)) is not None:
            needed = storage.join(folder, missing) if missing else folder
            empty = "; where nothing happened, a file without a byte does" if "*" in missing else ""
            return f"there is no {needed}; deliver it, then run this day again{empty}"
        # Whoever still writes does so into the folder of today, or of the day that has just ended. Older days cost no
        # look at their files.
        tells_itself = bool(self.markers) and not any("*" in name for name in self.markers)
        if tells_itself or not self.quiet or day < now().date() - ONE_DAY or leads_out(folder):
            return ""
        # A time ahead of this clock by more than that tells nothing.
        age = abs(now() - last_change(folder))
        if age >= self.quiet:
            return ""
        return (
            f"{folder} changed {age // timedelta(minutes=1)} minutes ago, and a day is complete once it has not "
            f"changed for {self.quiet // timedelta(minutes=1)} minutes (MEANDER_LANDING_QUIET_MINUTES); wait, or let "
            "the shop write a marker file last and set MEANDER_LANDING_MARKER"
        )

    def missing(self, folder: str) -> str | None:
        """Return the first marker that the folder of a day has no file for, empty for the folder itself; None if none.

        Nothing behind a link out of the landing is listed: `delivery` refuses it.
        """
        if not self.markers:
            return None if storage.exists(folder) else ""
        patterns = [name for name in self.markers if "*" in name and not leads_out(folder)]
        files = data_files(storage.list_entries(folder)) if patterns else {}
        for name in self.markers:
            if "*" not in name and not storage.exists(storage.join(folder, name)):
                return name
            if name in patterns and not any(fnmatchcase(file, name) for file in files):
                return name
        return None

    def misnamed(self, day: date) -> str:
        """Return the name of a folder that is meant for a day and is not read, such as dt=2025-3-1; empty if none."""
        fs, root = storage.filesystem(self.address)
        names = [path.rstrip("/").rsplit("/", 1)[-1] for path in (fs.ls(root, detail=False) if fs.exists(root) else ())]

        def meant(name: str) -> date | None:
            with contextlib.suppress(ValueError):
                return datetime.strptime(name, "dt=%Y-%m-%d").date()  # noqa: DTZ007  a date has no zone
            return None

        return next((name for name in sorted(names) if meant(name) == day and name != f"dt={day}"), "")

    def delivery(self, day: date) -> dict[str, LandingFile]:
        """Return the data files of a landed day, sorted by name; names that start with `_` or `.` are not data.

        Raises:
            LandingMissing: the day has not landed. A day without a single event is an empty folder
                (on an object store: a folder that holds only a marker such as `_SUCCESS`).
            LandingUnreadable: a file is a symbolic link that leads out of the folder, or no file at all; or a folder is
                none, or cannot be listed, so that nobody knows which files are missing.
        """
        if lacks := self.lacks(day):
            other = self.misnamed(day)
            remedy = f". The folder {other} is not read; rename it to dt={day}" if other else ""
            raise LandingMissing(f"{day} has not landed: {lacks}{remedy}")
        folder = self.folder(day)
        require_inside(folder)
        try:
            files = described(folder, data_files(storage.list_entries(folder, complete=True)))
        except (PermissionError, NotADirectoryError) as error:  # any other may be gone when it is tried again
            raise LandingUnreadable(
                f"{error.filename or folder}: expected a folder that can be listed, found {type(error).__name__}; give "
                "the user of the jobs the right to read it, or deliver the day as a folder"
            ) from error
        require_files_inside(folder, list(files))
        return files

    def present(self, day: date) -> dict[str, LandingFile]:
        """Return the data files that are in the folder of a day now, unchecked; see `delivery`.

        None where the folder is a link out of the landing: it may be one to all files of this machine.
        """
        folder = self.folder(day)
        return {} if leads_out(folder) else described(folder, data_files(storage.list_entries(folder)))

    def deliveries(self, days: Iterable[date], *, complete: bool = True) -> dict[date, dict[str, LandingFile]]:
        """Return the data files of several days: those of `delivery`, or of `present` unless `complete`."""
        days = list(days)
        # Mostly it waits for the storage.
        with ThreadPoolExecutor(max_workers=16) as pool:
            return dict(zip(days, pool.map(self.delivery if complete else self.present, days), strict=True))

    def found(self, days: Iterable[date]) -> dict[date, dict[str, LandingFile]]:
        """Return the data files of those of some days that have a folder, complete or not."""
        wanted = sorted(set(days) & set(self.days()))
        fs, _ = storage.filesystem(self.address)
        if isinstance(fs, LocalFileSystem) or len(wanted) <= FEW_DAYS:
            return self.deliveries(wanted, complete=False)
        # An object store lists a thousand names at a time, whichever days they are of.
        by_day: dict[date, dict[str, dict[str, Any]]] = {day: {} for day in wanted}
        for path, entry in storage.list_entries(self.address).items():
            folder, _, name = path.partition("/")
            if name and (day := day_of(folder)) in by_day:
                by_day[day][name] = entry
        return {day: described(self.folder(day), data_files(entries)) for day, entries in by_day.items()}

    def files(self, day: date) -> list[str]:
        """Return the addresses of the data files of a landed day, sorted; see `delivery`."""
        return [storage.join(self.folder(day), name) for name in self.delivery(day)]


def now() -> datetime:
    """Return the time, UTC."""
    return datetime.now(UTC)


def day_of(folder: str) -> date | None:
    """Return the day of a folder of the landing; None for other folders, and dates that are not in the calendar.

    >>> day_of("dt=2025-02-28"), day_of("dt=2025-02-30"), day_of("incoming")
    (datetime.date(2025, 2, 28), None, None)
    """
    if DAY_FOLDER.fullmatch(folder):
        with contextlib.suppress(ValueError):
            return date.fromisoformat(folder.removeprefix("dt="))
    return None


def data_files(entries: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the entries that are data: no part of their name is hidden."""
    return {
        name: entry for name, entry in entries.items() if not any(part.startswith(HIDDEN) for part in name.split("/"))
    }


def described(folder: str, entries: Mapping[str, dict[str, Any]]) -> dict[str, LandingFile]:
    """Return the files of a folder by what its storage says of them."""
    fs, inner = storage.filesystem(folder)
    if not isinstance(fs, LocalFileSystem):
        return {
            name: LandingFile(
                int(entry["size"]), next((str(entry[key]).strip('"') for key in (*MARKS, *TIMES) if entry.get(key)), "")
            )
            for name, entry in entries.items()
        }
    files = {}
    for name in entries:
        try:
            # Of a link it is the file behind it that counts.
            stat = Path(inner, name).stat()
            files[name] = LandingFile(stat.st_size, str(stat.st_mtime_ns))
        except OSError:  # it is gone since, or a link to nothing
            files[name] = LandingFile(0, "")
    return files


def last_change(folder: str) -> datetime:
    """Return the time of the last change of a folder, of the files in it, or of hidden ones."""
    fs, inner = storage.filesystem(folder)
    if not isinstance(fs, LocalFileSystem):
        times = [
            next((entry[key] for key in TIMES if entry.get(key)), None)
            for entry in storage.list_entries(folder).values()
        ]
        return max(map(as_time, filter(None, times)), default=datetime.fromtimestamp(0, UTC))
    newest = 0.0
    for place, _, names in os.walk(inner):
        for path in (place, *(os.path.join(place, name) for name in names)):  # noqa: PTH118  there may be many
            with contextlib.suppress(FileNotFoundError):
                stat = os.lstat(path)
                # A copy that keeps the time of the original is new here all the same.
                newest = max(newest, stat.st_mtime, stat.st_ctime)
    return datetime.fromtimestamp(newest, UTC)


def as_time(value: Any) -> datetime:
    """Return a time as storages give it, in UTC.

    >>> print(as_time(86400.0), as_time("1970-01-02T00:00:00Z"))
    1970-01-02 00:00:00+00:00 1970-01-02 00:00:00+00:00
    """
    if isinstance(value, int | float):
        return datetime.fromtimestamp(value, UTC)
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def require_files_inside(folder: str, names: list[str]) -> None:
    """Check that each name is that of a file inside the folder, so that no text of another place becomes an event.

    Raises:
        LandingUnreadable: one is a symbolic link that leads out of the folder, or a folder, a pipe or a device; or its
            name cannot be stored everywhere, or read.
    """
    is_local = isinstance(storage.filesystem(folder)[0], LocalFileSystem)
    for name in names:
        if not is_usable_id(name):
            raise LandingUnreadable(
                f"{storage.join(folder, name)!a}: expected a name that can be stored and shown everywhere, found "
                "control or similar characters, or more than 2,048 bytes; rename the file"
            )
        if is_local and ":" in name:
            raise LandingUnreadable(
                f"{storage.join(folder, name)}: expected a name without `:`, which Spark cannot read on a local disk; "
                "rename it"
            )
        if found := stray(folder, name):
            raise LandingUnreadable(
                f"{storage.join(folder, name)}: expected a file, or a link to one of the same landing day, found "
                f"{found}; deliver the file itself"
            )


def require_inside(folder: str) -> None:
    """Check that the folder of a day is inside of its landing, before anything of it is listed.

    Raises:
        LandingUnreadable: it is a symbolic link that leads out of it.
    """
    if leads_out(folder):
        raise LandingUnreadable(
            f"{folder}: expected a folder, or a link to one of the same landing, found a link that leads out of it; "
            "deliver the files themselves"
        )


def leads_out(folder: str) -> bool:
    """Return whether the folder of a day is a link to a place outside of the folder that it lies in."""
    fs, inner = storage.filesystem(folder)
    if not isinstance(fs, LocalFileSystem):
        return False
    return not Path(os.path.realpath(inner)).is_relative_to(os.path.realpath(Path(inner).parent))


def stray(folder: str, name: str) -> str:
    """Return what a name below a folder is, if it is no file inside of it; empty if it is one."""
    fs, inner = storage.filesystem(folder)
    if not isinstance(fs, LocalFileSystem):
        return ""
    place = Path(os.path.realpath(Path(inner) / name))
    if place.is_file() and place.is_relative_to(os.path.realpath(inner)):
        return ""
    return "a link that leads out of it" if place.is_file() else "something else"
