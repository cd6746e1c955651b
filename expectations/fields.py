"""Fields of events that vanish: how often each is there, compared with recent days.

A shop that stops sending prices, or renames a key of its JSON, sends rows that are all valid. Only the days before tell
that something is missing. To raise few false alarms, a day is judged only if 7 of the 28 days before are known, each
of them has the field, and the day should have it in MIN_EXPECTED rows at least.
"""

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from datetime import date, timedelta
from statistics import median
from typing import Any

import pandas as pd
from great_expectations.expectations.expectation import Expectation

from expectations.suite import RECENT_DAYS, WARNING, between, zero
from lake.staging import Staged
from lake.table import Table

# The fields that an event may lack, as jobs.ingest counts them: a contract between two folders that do not import
# each other. A test compares the two.
FIELDS = ("item_id", "category_id", "query", "price")
KNOWN_DAYS = 7
MIN_EXPECTED = 50
# Below this part of the usual share, and below that of each recent day, people are warned.
FEW = 0.5


def accepted(counts: Mapping[str, Any], day: date) -> int:
    """Return the accepted rows of a day, from the counts of jobs.ingest."""
    return int(counts["by_day"][str(day)].get("accepted", 0))


def shares(counts: Mapping[str, Any]) -> dict[date, dict[str, float]]:
    """Return, by day with accepted rows, the share of them that has each field, from the counts of jobs.ingest."""
    filled = {date.fromisoformat(day): of_day for day, of_day in counts.get("filled", {}).items()}
    return {
        day: {name: n / rows for name, n in of_day.items()}
        for day, of_day in filled.items()
        if (rows := accepted(counts, day))
    }


def recent_shares(commits: Iterable[Mapping[str, Any]]) -> dict[date, dict[str, float]]:
    """Return the shares of each published landing day, from the commits of `events`, newest first."""
    found: dict[date, dict[str, float]] = {}
    for commit in commits:
        refused = set(json.loads(commit["refused"]))
        for day, share in shares(json.loads(commit["counts"])).items():
            if str(day) not in refused:
                found.setdefault(day, share)
    return found


def compare(day: date, rows: int, known: Mapping[date, Mapping[str, float]], field: str) -> tuple[bool, float]:
    """Return whether a field has vanished on a day, and its share against the usual one; NaN where nothing is to say.

    Args:
        day: the landing day.
        rows: its accepted rows.
        known: the shares of this day and of others.
        field: one of FIELDS.
    """
    share = known.get(day, {}).get(field)
    first = day - timedelta(days=RECENT_DAYS)
    before = [other[field] for at, other in known.items() if first <= at < day and field in other]
    nothing = False, float("nan")
    if share is None or len(before) < KNOWN_DAYS or not min(before) or median(before) * rows < MIN_EXPECTED:
        return nothing
    # Where days differ much, one that is like any of them is nothing unusual.
    ratio = share / median(before) if share < min(before) else 1.0
    return share == 0, ratio


def with_fields(staged: Staged, figures: pd.DataFrame, failed: Collection[date] = ()) -> pd.DataFrame:
    """Add for each field `<field>_vanished`, 0 or 1, and `<field>_ratio`, its share against the usual one.

    Args:
        staged: the staging.
        figures: a line for each day, the oldest first.
        failed: days that fail the audit for other reasons.
    """
    table = Table.find(staged.table)
    published = recent_shares(table.commits()) if table else {}
    known = {**published, **shares(staged.counts)}
    columns: dict[str, list[float]] = defaultdict(list)
    for day in figures["day"]:  # the oldest first
        fails = day in failed
        for field in FIELDS:
            vanished, ratio = compare(day, accepted(staged.counts, day), known, field)
            vanished = vanished and field not in staged.counts.get("may_vanish", [])
            columns[f"{field}_vanished"].append(int(vanished))
            columns[f"{field}_ratio"].append(ratio)
            fails |= vanished
        if fails:
            # It is not published, so it is no reason why the field need not be there on the days after it.
            known.pop(day, None)
            known |= {day: published[day]} if day in published else {}
    return figures.assign(**columns)


def fields_are_there() -> list[Expectation]:
    """Expect that no field has vanished, and that none is there much less often than on any recent day."""
    often = "is there at least half as often as on the days before"
    return [
        *(zero(f"{field}_vanished", f"{field} is there, as on the days before") for field in FIELDS),
        *(between(f"{field}_ratio", FEW, None, f"{field} {often}", WARNING) for field in FIELDS),
    ]
