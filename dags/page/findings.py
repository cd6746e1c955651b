"""The findings of monitor_daily by day, from the files that model.monitor writes into the lake."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from lake import storage
from lake.places import monitor_folder

# Files that are read, one a day: a season of outcomes.
MAX_DAYS = 120
# A finding that is this much older than the newest day needs no attention any more.
RECENT = timedelta(days=7)


@dataclass(frozen=True)
class MonitoredDay:
    """The findings of one day; each is a dict of the fields of model.monitor.Finding and `section`."""

    day: date
    findings: list[dict[str, Any]]


def load_findings(max_days: int = MAX_DAYS) -> list[MonitoredDay]:
    """Return the newest monitored days, the oldest first."""
    folder = monitor_folder()
    names = [name for name in storage.list_names(folder) if name.endswith(".json")][-max_days:]
    # A remote store takes a while for each file.
    with ThreadPoolExecutor(max_workers=16) as pool:
        files = list(pool.map(storage.read_json, (storage.join(folder, name) for name in names)))
    return [MonitoredDay(date.fromisoformat(content["day"]), content["findings"]) for content in files if content]


def newest_findings() -> list[dict[str, Any]]:
    """Return the findings that need attention, from the few files that can have one: the page begins with them."""
    return open_findings(load_findings(RECENT.days))


def open_findings(days: list[MonitoredDay]) -> list[dict[str, Any]]:
    """Return the findings that need attention: the newest of each kind, name and model version, if it is not ok.

    >>> bad = {"kind": "volume", "name": "events", "model_version": None, "ok": False}
    >>> good = {**bad, "ok": True}
    >>> len(open_findings([MonitoredDay(date(2025, 3, 1), [bad])]))
    1
    >>> open_findings([MonitoredDay(date(2025, 3, 1), [bad]), MonitoredDay(date(2025, 3, 2), [good])])
    []
    """
    newest: dict[tuple[Any, ...], dict[str, Any]] = {}
    for monitored in days:
        if monitored.day > days[-1].day - RECENT:
            newest |= {(f["kind"], f["name"], f["model_version"]): f for f in monitored.findings}
    return [finding for finding in newest.values() if not finding["ok"]]


def outcomes(days: list[MonitoredDay], metric: str) -> dict[str, dict[date, float]]:
    """Return {"version V": {T: value}} of the observed outcomes of predictions by a metric."""
    by_version: dict[str, dict[date, float]] = {}
    for monitored in days:
        for finding in monitored.findings:
            if finding["kind"] == "outcome" and finding["name"] == metric:
                series = by_version.setdefault(f"version {finding['model_version']}", {})
                series[date.fromisoformat(finding["day"])] = finding["value"]
                if finding["reference"] is not None:
                    offline = by_version.setdefault(f"version {finding['model_version']}, as evaluated", {})
                    offline[date.fromisoformat(finding["day"])] = finding["reference"]
    return by_version
