"""The flow of interest between categories on a day, predicted and actual; and the drift of predictions.

One pass over a few columns of one partition each, by delta-rs, which opens only the files that the log names for them.
A `Cache` keeps an answer for the version of the table that it was computed from, and the drift by files.

A shop with thousands of categories has a flow between almost any two of them. So flows are arrays: as objects of
Python they took 450 bytes each.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dags.page.cache import Cache
from lake.labels import LABELS, PROBABILITIES
from lake.looking_back import before
from lake.table import DataFile, Table

Array = NDArray[Any]
ROUNDING = 1e-6  # tolerance of sums of probabilities
NO_CATEGORY, NOTHING, REST = "(no category)", "(did nothing)", "(any other)"

# Both give (source, target, users, members); the number of users of a prediction is expected, so it is a sum of
# probabilities. Members are the users behind a number.
# Each user has the most likely categories, and the probability of all others.
PREDICTED = """
select source, target, sum(share) as users, count(*) as members from (
    select coalesce(current_category, '{none}') as source,
           unnest(array_append(category_ids, '{rest}')) as target,
           unnest(array_append(category_probabilities, 1 - coalesce(array_sum(category_probabilities), 0))) as share
    from predictions where dt = date '{day}'
) group by 1, 2 having target <> '{rest}' or sum(share) > {rounding}
"""
ACTUAL = """
select coalesce(dominant_category, '{none}') as source,
       case when next_events = 0 then '{nothing}' else coalesce(next_category, '{none}') end as target,
       cast(count(*) as double) as users, count(*) as members
from examples where dt = date '{day}' group by 1, 2
"""


@dataclass(frozen=True)
class Flows:
    """Users whose interest goes from one category to another (or stays); an expected number is a fraction.

    Attributes:
        names: of all categories, sorted.
        source, target: the two categories of each flow, by their places in `names`.
        users: how many go.
        members: the users behind each number, of whom each may count for a part of one.
    """

    names: list[str]
    source: Array
    target: Array
    users: Array
    members: Array

    @staticmethod
    def of(rows: pa.Table) -> "Flows":
        """Return the flows of rows with the columns source, target, users and members; none stands there twice."""
        names = sorted({REST, *pc.unique(rows["source"]).to_pylist(), *pc.unique(rows["target"]).to_pylist()})
        known = pa.array(names)
        source, target = (pc.index_in(rows[side].combine_chunks(), known).to_numpy() for side in ("source", "target"))
        return Flows(names, source, target, rows["users"].to_numpy(), rows["members"].to_numpy())

    @property
    def now(self) -> dict[str, float]:
        """Return how many users come from each category."""
        return self._sums(self.source)

    @property
    def then(self) -> dict[str, float]:
        """Return how many users go to each category."""
        return self._sums(self.target)

    def _sums(self, side: Array) -> dict[str, float]:
        sums, there = np.bincount(side, self.users), np.unique(side)
        return {self.names[place]: float(sums[place]) for place in there}

    def among(self, kept: Collection[str]) -> dict[tuple[str, str], float]:
        """Return how many users go between categories; all but `kept` are one, (any other)."""
        shown = np.isin(self.names, list(kept))
        rest = self.names.index(REST)
        start, end = (np.where(shown[side], side, rest) for side in (self.source, self.target))
        source, target, of = _pairs(start, end, len(self.names))
        sums = np.bincount(of, self.users)
        return {(self.names[a], self.names[b]): float(n) for a, b, n in zip(source, target, sums, strict=True)}


NO_FLOWS = Flows([REST], *(np.zeros(0, kind) for kind in (np.int32, np.int32, float, np.int64)))


@dataclass(frozen=True)
class Mover:
    """A category that gains or loses users: the users with it as their main interest, now and then."""

    category: str
    now: float
    then: float

    @property
    def change(self) -> float:
        return self.then - self.now


def available_days() -> list[date]:
    """Return the days with a flow, predicted or actual, the newest first."""
    days: set[date] = set()
    for name in ("predictions", "examples"):
        table = Table.find(name)
        days |= set(table.rows_by("dt")) if table else set()
    return sorted(days, reverse=True)


def predicted(cache: Cache, day: date, min_group: int = 1) -> Flows:
    """Return the expected flows of the published predictions of a day; none without them."""
    return _flows(cache, Table.find("predictions"), day, PREDICTED, min_group)


def actual(cache: Cache, day: date, min_group: int = 1) -> Flows:
    """Return the flows in the horizon after a day; none before its `examples` are published."""
    return _flows(cache, Table.find("examples"), day, ACTUAL, min_group)


def of_groups(flows: Flows, least: int) -> Flows:
    """Return flows of which each has `least` members: smaller ones say of single people what they did.

    They are added up to (any other) of their source, with the smallest of its larger flows where they would be told by
    themselves otherwise. Where there is none, the source is left out. A user may be behind several small flows, so the
    largest of them says how many are behind all of them at least.
    """
    small = flows.members < least
    if not small.any():
        return flows
    rest = flows.names.index(REST)
    has_small, has_large = (np.isin(flows.source, flows.source[some]) for some in (small, ~small))
    # By source, the large ones first; of these, one that is (any other) already, then the smallest.
    order = np.lexsort((flows.target, -flows.users, flows.members, flows.target != rest, small, flows.source))
    firsts = order[np.unique(flows.source[order], return_index=True)[1]]
    added = small.copy()
    added[firsts] = True
    target = np.where(added & has_small, rest, flows.target)
    kept = ~small | has_large
    source, target, of = _pairs(flows.source[kept], target[kept], len(flows.names))
    members = np.zeros(len(source), np.int64)
    np.maximum.at(members, of, flows.members[kept])
    return Flows(flows.names, source, target, np.bincount(of, flows.users[kept], len(source)), members)


def movers(flows: Flows) -> list[Mover]:
    """Return the categories by how many users they gain or lose, the greatest change first."""
    now, then = flows.now, flows.then
    categories = (set(now) | set(then)) - {NO_CATEGORY, NOTHING, REST}
    changes = [Mover(category, now.get(category, 0.0), then.get(category, 0.0)) for category in sorted(categories)]
    return sorted(changes, key=lambda mover: -abs(mover.change))


def drift(cache: Cache, span: timedelta, min_group: int = 1) -> list[dict[str, Any]]:
    """Return for each day of predictions, no further back than `span` before the newest, the oldest first.

    Each has dt, users, and the mean of each score of `LABELS`. A file is read once: none is ever changed. A day of
    fewer users than `min_group` is left out: its mean would tell of single people.
    """
    table = Table.find("predictions")
    if table is None or not table.files:
        return []
    first = before(max(table.rows_by("dt")), span)
    by_path = {f"{table.path}/{file.path}": file for file in table.files if file.partition["dt"] > first}
    sums = cache.of_files(dict.fromkeys(by_path, ""), partial(_scores, table, by_path))
    by_day: dict[date, list[Any]] = {}
    for path, of in sums.items():
        by_day.setdefault(by_path[path].partition["dt"], []).append(of)
    days = [{"dt": day, **_means(by_day[day])} for day in sorted(by_day)]
    return [day for day in days if day["users"] >= min_group]


def _flows(cache: Cache, table: Table | None, day: date, sql: str, min_group: int) -> Flows:
    if table is None:
        return NO_FLOWS
    # The text contains a date and constants of this module, and nothing that a person has typed.
    text = sql.format(day=day, none=NO_CATEGORY, nothing=NOTHING, rest=REST, rounding=ROUNDING)
    return cache.of_version(table, f"{text} of {min_group}", lambda: of_groups(Flows.of(table.query(text)), min_group))


def _pairs(source: Array, target: Array, names: int) -> tuple[Array, Array, Array]:
    """Return source and target of each pair that is there, and the place of each of the given ones among them."""
    pairs, of = np.unique(source.astype(np.int64) * names + target, return_inverse=True)
    return (pairs // names).astype(np.int32), (pairs % names).astype(np.int32), of


def _scores(table: Table, files: Mapping[str, DataFile], path: str) -> dict[str, tuple[float, int]]:
    """Return the sum and the number of each score in a file, and its rows as `users`."""
    rows = table.read_file(files[path], PROBABILITIES)
    sums = {
        label.score: (pc.sum(rows[label.probability]).as_py() or 0.0, pc.count(rows[label.probability]).as_py())
        for label in LABELS
    }
    return {"users": (0.0, rows.num_rows), **sums}


def _means(files: list[dict[str, tuple[float, int]]]) -> dict[str, Any]:
    """Return the users in files, and the mean of each score over all of them; None without a value."""
    means: dict[str, Any] = {"users": sum(of["users"][1] for of in files)}
    for label in LABELS:
        total, number = (sum(part) for part in zip(*(of[label.score] for of in files), strict=True))
        means[label.score] = total / number if number else None
    return means
