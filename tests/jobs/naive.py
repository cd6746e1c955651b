"""States and labels the naive way: one user at a time, in plain Python, from the rules in docs/design.md alone.

It shares no code with `jobs.interests` and `jobs.examples`, so that where the two agree, both are right.
"""

import calendar
import re
from collections.abc import Iterable
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from typing import Any

import pytest
from scipy.spatial.distance import jensenshannon
from scipy.stats import chi2_contingency

from lake.settings import Settings

Row = dict[str, Any]

WEIGHTS = {"view": 1, "search": 1, "favorite": 2, "cart": 3, "purchase": 4}
CODES = {"view": 1, "search": 2, "cart": 3, "favorite": 4, "purchase": 5}
BILLION = 1_000_000_000


def key(text: str | None) -> int:
    """Return the XXH64 of a short text with seed 42, signed, and 0 for none: what Spark calls xxhash64."""
    if text is None:
        return 0
    data, mask = text.encode(), 2**64 - 1
    assert len(data) < 32, "longer texts are hashed in stripes"
    p1, p2, p3, p4, p5 = (
        0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5,
    )  # fmt: skip

    def rotated(number: int, bits: int) -> int:
        return (number << bits | number >> (64 - bits)) & mask

    found, place = (42 + p5 + len(data)) & mask, 0
    while place + 8 <= len(data):
        found ^= rotated(int.from_bytes(data[place : place + 8], "little") * p2 & mask, 31) * p1 & mask
        found, place = (rotated(found, 27) * p1 + p4) & mask, place + 8
    if place + 4 <= len(data):
        found ^= int.from_bytes(data[place : place + 4], "little") * p1 & mask
        found, place = (rotated(found, 23) * p2 + p3) & mask, place + 4
    for byte in data[place:]:
        found = rotated(found ^ byte * p5 & mask, 11) * p1 & mask
    found = (found ^ found >> 33) * p2 & mask
    found = (found ^ found >> 29) * p3 & mask
    found ^= found >> 32
    return found - 2**64 if found >> 63 else found


def event(
    event_id: str,
    user: str,
    when: datetime,
    behavior: str = "view",
    item: str | None = "i1",
    category: str | None = "a",
    **more: Any,
) -> Row:
    """Make a row of `events` that landed on its date; `more` are other columns."""
    return {
        "event_id": event_id,
        "user_id": user,
        "event_time": when,
        "behavior": behavior,
        "item_id": item,
        "category_id": category,
        "price": None,
        "dt": when.date(),
        "landed": when.date(),
        **more,
    }


def end_of(day: date) -> datetime:
    """Return the midnight at which a date is over."""
    return datetime.combine(day, time(), UTC) + timedelta(days=1)


def known(log: Iterable[Row], landed_by: date | None) -> list[Row]:
    """Return the events that had arrived by a date, in order, each once."""
    once = {row["event_id"]: row for row in log if landed_by is None or row["landed"] <= landed_by}
    return sorted(once.values(), key=lambda row: (row["event_time"], row["event_id"]))


def second(moment: datetime) -> int:
    """Return the whole second of a time."""
    return calendar.timegm(moment.utctimetuple())


def by_category(events: Iterable[Row]) -> dict[str, list[Row]]:
    """Return the events of each category, without those that have none."""
    found: dict[str, list[Row]] = {}
    for row in events:
        if row["category_id"] is not None:
            found.setdefault(row["category_id"], []).append(row)
    return found


def weight(events: Iterable[Row], config: Settings) -> int:
    """Return how much events say about interest."""
    return sum(weight_of(row, config) for row in events)


def weight_of(row: Row, config: Settings) -> int:
    """Return how much an event says: what the setting has for its behavior, or what a shop begins with."""
    said = re.search(rf"(?:^|,){row['behavior']}=([0-9]+)", config.behavior_weights)
    return int(said[1]) if said else WEIGHTS[row["behavior"]]


def state(log: Iterable[Row], user: str, day: date, config: Settings, *, include_late: bool = False) -> Row | None:
    """Return the row of `interests` of a user at T = `day`, None when there is none."""

    def within(events: list[Row], days: int) -> list[Row]:
        return [row for row in events if 0 <= (day - row["dt"]).days < days]

    mine = known((row for row in log if row["user_id"] == user), None if include_late else day)
    history = within(mine, config.history_days)
    window, week = within(history, config.lookback_days), within(history, 7)
    if not window:
        return None
    end = second(end_of(day))
    last = history[-config.sequence_length :]
    seconds = [second(row["event_time"]) for row in last]
    now = by_category(window)
    current = sorted(now, key=lambda category: (-weight(now[category], config), category))
    ever = by_category(history)
    decayed = {
        category: sum(
            weight_of(row, config) * round(BILLION * 0.5 ** ((day - row["dt"]).days / config.half_life_days))
            for row in rows
        )
        for category, rows in ever.items()
    }
    longterm = sorted((c for c in ever if decayed[c]), key=lambda category: (-decayed[category], category))
    bought = [row for row in window if row["behavior"] == "purchase"]
    return {
        "user_id": user,
        "dt": day,
        "item_keys": [key(row["item_id"]) for row in last],
        "item_ids": [row["item_id"] for row in last],
        "category_keys": [key(row["category_id"]) for row in last],
        "behaviors": [CODES[row["behavior"]] for row in last],
        "event_seconds": seconds,
        "gap_seconds": [0, *(b - a for a, b in pairwise(seconds))],
        "current_categories": current,
        "current_counts": [len(now[category]) for category in current],
        "current_shares": [
            weight(now[category], config) / sum(weight(rows, config) for rows in now.values()) for category in current
        ],
        "dominant_category": current[0] if current else None,
        "longterm_categories": longterm,
        "longterm_shares": [decayed[category] / sum(decayed.values()) for category in longterm],
        "longterm_category_keys": [key(category) for category in longterm],
        "longterm_counts": [len(ever[category]) for category in longterm],
        "longterm_days": [len({row["dt"] for row in ever[category]}) for category in longterm],
        "longterm_current_counts": [len(now.get(category, [])) for category in longterm],
        "longterm_week_counts": [sum(row["category_id"] == category for row in week) for category in longterm],
        "longterm_age_seconds": [end - max(second(row["event_time"]) for row in ever[c]) for c in longterm],
        "last_event_time": history[-1]["event_time"],
        "recency_seconds": end - second(history[-1]["event_time"]),
        "frequency": len(window),
        "active_days": len({row["dt"] for row in window}),
        "purchases": len(bought),
        "spend": float(sum(row["price"] for row in bought if row["price"] is not None)),
        "week_frequency": len(week),
        "history_events": len(history),
        "history_days_active": len({row["dt"] for row in history}),
        "tenure_seconds": end - second(history[0]["event_time"]),
    }


def states(log: list[Row], days: Iterable[date], config: Settings, *, include_late: bool = False) -> list[Row]:
    """Return every row of `interests` at some dates."""
    users = sorted({row["user_id"] for row in log})
    found = [state(log, user, day, config, include_late=include_late) for day in days for user in users]
    return [row for row in found if row is not None]


def labels(log: Iterable[Row], then: Row, config: Settings, *, include_late: bool = False) -> Row:
    """Return the labels of a row of `interests`."""
    day, horizon = then["dt"], timedelta(days=config.horizon_days)
    everyone = [
        row
        for row in known(log, None if include_late else day + horizon)
        if end_of(day) <= row["event_time"] < end_of(day + horizon)
    ]
    later = [row for row in everyone if row["user_id"] == then["user_id"]]
    next_ones, popular = by_category(later), by_category(everyone)
    order = sorted(next_ones, key=lambda c: (-weight(next_ones[c], config), -weight(popular[c], config), c))
    counts = [len(next_ones[category]) for category in order]
    items = list(dict.fromkeys(row["item_id"] for row in later if row["item_id"] is not None))
    migrated = distance = p_value = None
    if min(sum(then["current_counts"]), sum(counts)) >= config.min_events:
        now = dict(zip(then["current_categories"], then["current_counts"], strict=True))
        union = sorted({*now, *order})
        table = [[now.get(c, 0) for c in union], [len(next_ones.get(c, [])) for c in union]]
        p_value = chi2_contingency(table, correction=False, lambda_="log-likelihood").pvalue
        distance = jensenshannon(*table, base=2)
        migrated = then["current_categories"][0] != order[0] and p_value < 0.05
    return {
        "horizon_days": config.horizon_days,
        "next_categories": order,
        "next_counts": counts,
        "next_shares": [
            weight(next_ones[c], config) / sum(weight(rows, config) for rows in next_ones.values()) for c in order
        ],
        "next_category": order[0] if order else None,
        "next_category_key": key(order[0] if order else None),
        "next_item_keys": [key(item) for item in items[:100]],
        "next_events": len(later),
        "migrated": migrated,
        "js_distance": distance,
        "g_p_value": p_value,
        "purchased": any(row["behavior"] == "purchase" for row in later),
        "churned": not later,
        "first_label_time": later[0]["event_time"] if later else None,
        "last_label_time": later[-1]["event_time"] if later else None,
    }


def about(row: Row) -> Row:
    """Return a row whose floating-point numbers equal others that were added up in another order."""

    def is_real(value: Any) -> bool:
        return isinstance(value, float) or (isinstance(value, list) and any(isinstance(v, float) for v in value))

    # The distance is a root: of what is left of a zero by rounding, it makes more.
    return {
        name: pytest.approx(value, rel=1e-6, abs=1e-6 if name == "js_distance" else 1e-9) if is_real(value) else value
        for name, value in row.items()
    }


def differences(found: Iterable[Row], expected: Iterable[Row]) -> dict[tuple[str, date], Any]:
    """Return {(user, T): {column: (found, expected)}} of rows that are not alike, or the word for one that is alone."""
    mine, wanted = ({(row["user_id"], row["dt"]): row for row in rows} for rows in (list(found), list(expected)))
    told: dict[tuple[str, date], Any] = {who: "missing" for who in wanted if who not in mine}
    told |= {who: "not expected" for who in mine if who not in wanted}
    for who, row in wanted.items():
        other, row = mine.get(who, row), about(row)
        if wrong := {name: (value, row[name]) for name, value in other.items() if value != row[name]}:
            told[who] = wrong
    return told
