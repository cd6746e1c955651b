"""What monitor_daily has found, day by day: from the files that model.monitor leaves in the lake."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from lake import storage
from lake.places import monitor_folder

# Days of files that are read: a season is enough to see what an outcome has become.
NEWEST = 120
# Findings of an older day than this, against the newest one, are history.
RECENT = timedelta(days=7)


@dataclass(frozen=True)
class Watched:
    """The findings of one day; each is a dict of the fields of model.monitor.Finding and `section`."""

    day: date
    findings: list[dict[str, Any]]


def watched(days: int = NEWEST) -> list[Watched]:
    """Return the newest days that were looked at, the oldest first."""
    folder = monitor_folder()
    names = [name for name in storage.list_files(folder) if name.endswith(".json")][-days:]
    # A store far away takes its time for each file.
    with ThreadPoolExecutor(max_workers=16) as pool:
        files = list(pool.map(storage.read_json, (storage.join(folder, name) for name in names)))
    return [Watched(date.fromisoformat(one["day"]), one["findings"]) for one in files if one]


def newest_findings() -> list[dict[str, Any]]:
    """Return what somebody has to look at now, from the few files that can hold it: the page begins with this."""
    return open_findings(watched(RECENT.days))


def open_findings(days: list[Watched]) -> list[dict[str, Any]]:
    """Return what somebody has to look at: of each thing that was looked at lately, the newest word on it, if not well.

    >>> bad = {"kind": "volume", "name": "events", "model_version": None, "ok": False}
    >>> well = {**bad, "ok": True}
    >>> len(open_findings([Watched(date(2025, 3, 1), [bad])]))
    1
    >>> open_findings([Watched(date(2025, 3, 1), [bad]), Watched(date(2025, 3, 2), [well])])
    []
    """
    newest: dict[tuple[Any, ...], dict[str, Any]] = {}
    for one in days:
        if one.day > days[-1].day - RECENT:
            newest |= {(f["kind"], f["name"], f["model_version"]): f for f in one.findings}
    return [finding for finding in newest.values() if not finding["ok"]]


def outcomes(days: list[Watched], metric: str) -> dict[str, dict[date, float]]:
    """Return {"version V": {T: value}} of what came true of predictions, by the metric's name."""
    by_version: dict[str, dict[date, float]] = {}
    for one in days:
        for finding in one.findings:
            if finding["kind"] == "outcome" and finding["name"] == metric:
                series = by_version.setdefault(f"version {finding['model_version']}", {})
                series[date.fromisoformat(finding["day"])] = finding["value"]
                if finding["reference"] is not None:
                    promised = by_version.setdefault(f"version {finding['model_version']}, as evaluated", {})
                    promised[date.fromisoformat(finding["day"])] = finding["reference"]
    return by_version
