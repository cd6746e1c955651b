"""The landing area: `<landing>/dt=YYYY-MM-DD/`, one folder for each day on which files arrived."""

import contextlib
import os
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

from fsspec.implementations.local import LocalFileSystem

from lake import storage
from lake.errors import LandingMissing, LandingUnreadable
from lake.settings import Settings
from lake.text import is_usable_id


@dataclass(frozen=True)
class Landing:
    """One landing area.

    Attributes:
        address: the folder or address of the days.
        marker: the file that completes a day, such as _SUCCESS; empty if the folder alone does.
    """

    address: str
    marker: str = ""

    @classmethod
    def of(cls, config: Settings) -> "Landing":
        """Return the landing area that the settings name."""
        return cls(config.landing, config.landing_marker)

    def folder(self, day: date) -> str:
        """Return the folder of the files that arrived on one day."""
        return storage.join(self.address, f"dt={day}")

    def days(self) -> list[date]:
        """Return every day that has a folder, sorted, whether it is complete or not; see `has_landed`."""
        fs, root = storage.filesystem(self.address)
        days = []
        for path in fs.ls(root, detail=False) if fs.exists(root) else ():
            # Other folders, and dates that are not in the calendar, are no days.
            with contextlib.suppress(ValueError):
                days.append(datetime.strptime(path.rstrip("/").rsplit("/", 1)[-1], "dt=%Y-%m-%d").date())  # noqa: DTZ007
        return sorted(days)

    def has_landed(self, day: date) -> bool:
        """Return whether a day is complete: its folder exists, and the marker file too if one is configured."""
        folder = self.folder(day)
        return storage.exists(storage.join(folder, self.marker) if self.marker else folder)

    def files(self, day: date) -> list[str]:
        """Return the data files of a landed day, sorted; names that start with `_` or `.` are not data.

        Raises:
            LandingMissing: the day has not landed. A day without a single event is an empty folder
                (on an object store: a folder that holds only a marker such as `_SUCCESS`).
            LandingUnreadable: a file is a symbolic link that leads out of the folder, or no file at all.
        """
        folder = self.folder(day)
        if not self.has_landed(day):
            missing = storage.join(folder, self.marker)
            raise LandingMissing(f"{day} has not landed: there is no {missing}; deliver it, then run this day again")
        hidden = ("_", ".")
        names = [
            name for name in storage.list_files(folder) if not any(part.startswith(hidden) for part in name.split("/"))
        ]
        require_files_inside(folder, names)
        return [storage.join(folder, name) for name in names]


def require_files_inside(folder: str, names: list[str]) -> None:
    """Check that each name is that of a file inside the folder, so that no text of another place becomes an event.

    Raises:
        LandingUnreadable: one is a symbolic link that leads out of the folder, or a folder, a pipe or a device; or its
            name cannot be stored everywhere, or read.
    """
    for name in names:
        if not is_usable_id(name):
            raise LandingUnreadable(
                f"{storage.join(folder, name)!a}: expected a name that can be stored and shown everywhere, found "
                "control or similar characters, or more than 2,048 bytes; rename the file"
            )
    fs, inner = storage.filesystem(folder)
    if not isinstance(fs, LocalFileSystem):
        return
    root = os.path.realpath(inner)
    for name in names:
        if ":" in name:
            raise LandingUnreadable(
                f"{storage.join(folder, name)}: expected a name without `:`, which Spark cannot read on a local disk; "
                "rename it"
            )
        place = Path(os.path.realpath(Path(inner) / name))
        if not place.is_file() or not place.is_relative_to(root):
            raise LandingUnreadable(
                f"{storage.join(folder, name)}: expected a file, or a link to one of the same landing day, found "
                f"{'a link that leads out of it' if place.is_file() else 'something else'}; deliver the file itself"
            )
