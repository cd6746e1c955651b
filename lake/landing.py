"""The landing area: `<landing>/dt=YYYY-MM-DD/`, one folder for each day on which files arrived."""

import argparse
import contextlib
from datetime import date, datetime, timedelta

from lake import storage
from lake.errors import LandingMissing
from lake.settings import settings


def days_between(first: date, last: date) -> list[date]:
    """Return every date from `first` to `last`, both included.

    >>> days_between(date(2017, 2, 28), date(2017, 3, 1))
    [datetime.date(2017, 2, 28), datetime.date(2017, 3, 1)]
    """
    return [first + timedelta(days=n) for n in range((last - first).days + 1)]


def folder(day: date) -> str:
    """Return the folder in which the files of one arrival day stand."""
    return storage.join(settings().landing, f"dt={day}")


def days() -> list[date]:
    """Return every day that has a folder in the landing, sorted; whether a day is complete tells `has_landed`."""
    fs, root = storage.filesystem(settings().landing)
    found = []
    for path in fs.ls(root, detail=False) if fs.exists(root) else ():
        # What is not dt=YYYY-MM-DD, or no date of the calendar, is nobody's day.
        with contextlib.suppress(ValueError):
            found.append(datetime.strptime(path.rstrip("/").rsplit("/", 1)[-1], "dt=%Y-%m-%d").date())  # noqa: DTZ007
    return sorted(found)


def has_landed(day: date) -> bool:
    """Tell whether a day is complete: its folder is there, and the marker file too if one is configured."""
    marker = settings().landing_marker
    return storage.exists(storage.join(folder(day), marker) if marker else folder(day))


def files(day: date) -> list[str]:
    """Return the data files of a landed day, sorted; names that start with `_` or `.` are not data.

    Raises:
        LandingMissing: the day has not landed. A day without a single event is an empty folder
            (on an object store: a folder that holds only a marker such as `_SUCCESS`).
    """
    if not has_landed(day):
        wanted = storage.join(folder(day), settings().landing_marker)
        raise LandingMissing(f"{day} has not landed: there is no {wanted}; deliver it, then run this day again")
    names = storage.list_files(folder(day))
    hidden = ("_", ".")
    return [
        storage.join(folder(day), name)
        for name in names
        if not any(part.startswith(hidden) for part in name.split("/"))
    ]


def utc_date(text: str) -> date:
    """Read a date argument."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a date; give YYYY-MM-DD, such as 2017-09-30") from None
