"""All that users ever did with items: `interests` has the last L events alone, which is less than judges should know.

Only baselines look at this. It is read when a run is judged, for the users that it is judged on, and never written.

Shapes: N rows, U users, E events, I items, P pairs of a row and an item that its user had.
"""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import date, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from lake.table import Table
from model.arrays import Array
from model.data.keys import keys_of

log = logging.getLogger(__name__)

# Events kept at most, of as many users as have no more: an event takes 16 bytes, and some 60 while it is sorted.
MOST_EVENTS = 20_000_000
# Rows of the table looked through at most, those of all its users: a year of a large shop is no work for one process.
MOST_ROWS = 500_000_000


@dataclass(frozen=True)
class ItemPairs:
    """What the users of N rows had done by their date, one line for each row and item.

    Attributes:
        rows: `(P,)`, sorted.
        columns: `(P,)` of `ItemHistory.keys`, sorted within a row.
        count: events.
        days: dates with an event.
        age: days from the newest of them to the date of the row.
        span: days from the oldest of them to the newest.
        newest: place of the newest event among all of the user's, 0 for the last.
    """

    rows: Array
    columns: Array
    count: Array
    days: Array
    age: Array
    span: Array
    newest: Array


@dataclass(frozen=True)
class ItemHistory:
    """The events with an item of some users.

    Attributes:
        users: ids, each once.
        first: `(U + 1,)`, where the events of each user begin; they are in the order of their time, then of their id.
        item: `(E,)` int32, column in `keys`.
        day: `(E,)` int32, date of the event, in days since 1970.
        landed: `(E,)` int32, the day it first arrived.
        keys: `(I,)` int64, key of each item that occurs, sorted.
        since: the first date that is known; None where nothing older was left out.
    """

    users: "pd.Index[str]"
    first: Array
    item: Array
    day: Array
    landed: Array
    keys: Array
    since: date | None = None

    @staticmethod
    def read(
        table: Table,
        users: Iterable[str],
        last: date,
        most_events: int = MOST_EVENTS,
        most_rows: int = MOST_ROWS,
    ) -> "ItemHistory":
        """Return all events of these users up to a date, or of as many users, and as many dates, as the budgets allow.

        Too many events leave users out, and not their older dates: a history that begins in the middle says other
        things of its user than a whole one. Users are left out by the hash of their ids, so those who stay are as all.

        Args:
            table: a pinned version of `events`.
            users: whose events.
            last: the last date, also of landing.
            most_events: of these users at most.
            most_rows: of all users at most, by the table's own count, but for those of the newest date; of older dates
                no event is known then.
        """
        ids = by_hash(sorted(set(users)))
        sizes = np.zeros(len(ids), np.int64)
        many, held, looked_through = len(ids), 0, 0
        by_day: list[pa.Table] = []
        since = None
        rows_by_date = _rows_by_date(table, last)
        for day in sorted(rows_by_date, reverse=True):
            looked_through += rows_by_date[day]
            if by_day and looked_through > most_rows:
                since = day + timedelta(days=1)
                log.warning(
                    "item baselines know the events from %s on: with older dates it would be more than %d of all users "
                    "to look through",
                    since, most_rows,
                )  # fmt: skip
                break
            by_day.append(_events_of(table, day, last, pa.array(ids[:many], pa.string())))
            held += len(by_day[-1])
            sizes[:many] += np.bincount(_places(by_day[-1], ids[:many]), minlength=many)
            many = int(np.searchsorted(np.cumsum(sizes[:many]), most_events, side="right"))
            # Not at each date: it goes through all that is held.
            if held > most_events + most_events // 4:
                by_day = [_of_users(rows, ids[:many]) for rows in by_day]
                held = sum(len(rows) for rows in by_day)
        if many < len(ids):
            log.warning(
                "item baselines know the events of %d of %d users: with the others it would be more than %d",
                many, len(ids), most_events,
            )  # fmt: skip
            by_day = [_of_users(rows, ids[:many]) for rows in by_day]
        return replace(ItemHistory.of(ids[:many].sort_values(), by_day[::-1]), since=since)

    @staticmethod
    def of(users: "pd.Index[str]", by_day: Iterable[pa.Table]) -> "ItemHistory":
        """Return the history of the events of some dates, each in its order; `user_id`, `item_id`, `dt`, `landed`."""
        owners, items, days, landings = [], [], [], []
        ids: dict[str, int] = {}
        for rows in by_day:
            coded = rows["item_id"].combine_chunks().dictionary_encode()
            numbers = np.array([ids.setdefault(one, len(ids)) for one in coded.dictionary.to_pylist()], np.int64)
            items.append(numbers[coded.indices.to_numpy()].astype(np.int32))
            owners.append(_places(rows, users).astype(np.int32))
            days.append(rows["dt"].cast(pa.int32()).to_numpy())
            landings.append(rows["landed"].cast(pa.int32()).to_numpy())
        none = [np.zeros(0, np.int32)]
        owner, item, day, landed = (np.concatenate(parts or none) for parts in (owners, items, days, landings))
        # Ids with one key are one item to the tables, so they are one here.
        keys, column = np.unique(keys_of(list(ids)), return_inverse=True)
        order = np.argsort(owner, kind="stable")
        first = np.searchsorted(owner[order], np.arange(len(users) + 1))
        return ItemHistory(users, first, column[item[order]].astype(np.int32), day[order], landed[order], keys)

    @property
    def events(self) -> int:
        """How many events these are."""
        return len(self.item)

    def until(self, day: date) -> Iterator[tuple[Array, Array]]:
        """Yield whose event each is, `(n,)`, and the item, `(n,)`, of what was known at the end of a date, in order.

        Users come in parts, which bounds the memory.
        """
        end = (day - date(1970, 1, 1)).days
        owner = np.repeat(np.arange(len(self.users), dtype=np.int32), np.diff(self.first))
        known = (self.day <= end) & (self.landed <= end)
        for start in range(0, len(self.users), 2048):
            part = slice(self.first[start], self.first[min(start + 2048, len(self.users))])
            yield owner[part][known[part]], self.item[part][known[part]]

    def within(self, most_events: int) -> "ItemHistory":
        """Return the history of as many users as have no more events together, left out as by `read`; the same keys."""
        sizes = np.diff(self.first)
        order = self.users.get_indexer(by_hash(self.users))
        kept = np.zeros(len(self.users), bool)
        kept[order[np.cumsum(sizes[order]) <= most_events]] = True
        chosen = np.repeat(kept, sizes)
        first = np.append(0, np.cumsum(sizes[kept]))
        item, day, landed = self.item[chosen], self.day[chosen], self.landed[chosen]
        return ItemHistory(self.users[kept], first, item, day, landed, self.keys, self.since)

    def has(self, frame: pd.DataFrame) -> Array:
        """Return of which rows the user is among these, `(N,)` bool."""
        return np.asarray(self.users.get_indexer(pd.Index(frame["user_id"], dtype=object)) >= 0)

    def pairs(self, frame: pd.DataFrame) -> ItemPairs:
        """Return what was known of the users of some rows at the end of their dates; nothing of users who are not here.

        Args:
            frame: N rows with `user_id` and `dt`.
        """
        user = self.users.get_indexer(pd.Index(frame["user_id"], dtype=object))
        end = pd.to_datetime(frame["dt"]).to_numpy().astype("datetime64[D]").astype(np.int64)
        starts = np.where(user >= 0, self.first[user], 0)
        sizes = np.where(user >= 0, self.first[user + 1] - starts, 0)
        rows = np.repeat(np.arange(len(frame)), sizes)
        events = np.arange(len(rows)) - np.repeat(np.cumsum(sizes) - sizes, sizes) + np.repeat(starts, sizes)
        known = (self.day[events] <= end[rows]) & (self.landed[events] <= end[rows])
        rows, events = rows[known], events[known]
        sizes = np.bincount(rows, minlength=len(frame))
        place = np.repeat(np.cumsum(sizes), sizes) - 1 - np.arange(len(rows))

        codes = rows * max(len(self.keys), 1) + self.item[events]
        order = np.argsort(codes, kind="stable")  # in a pair, events stay in the order of their time
        codes, days = codes[order], self.day[events][order]
        begins = np.flatnonzero(np.diff(codes, prepend=-1))
        ends = np.append(begins[1:], len(codes)) - 1 if len(begins) else begins
        # A date counts once, however many events it has.
        is_new = np.ones(len(codes), np.int64)
        is_new[1:] = (codes[1:] != codes[:-1]) | (days[1:] != days[:-1])
        of_row = rows[order][begins]
        return ItemPairs(
            of_row,
            self.item[events][order][begins].astype(np.int64),
            ends - begins + 1,
            np.add.reduceat(is_new, begins) if len(begins) else begins,
            end[of_row] - days[ends],
            (days[ends] - days[begins]).astype(np.int64),
            place[order][ends],
        )


def by_hash(users: Iterable[str]) -> "pd.Index[str]":
    """Return ids in an order that says nothing about their users, and is the same in each process."""
    ids = pd.Index(list(users), dtype=object)
    return ids[np.argsort(pd.util.hash_array(ids.to_numpy()), kind="stable")]


def _rows_by_date(table: Table, last: date) -> dict[date, int]:
    """Return how many rows of each date have to be looked through: those in files of up to the last landing day."""
    rows: dict[date, int] = {}
    for file in table.files:
        if max(file.partition["dt"], file.partition["landed"]) <= last:
            rows[file.partition["dt"]] = rows.get(file.partition["dt"], 0) + file.rows
    return rows


def _places(rows: pa.Table, users: "pd.Index[str]") -> Array:
    """Return the place of the user of each row, -1 for others."""
    return np.asarray(users.get_indexer(pd.Index(rows["user_id"].to_numpy(), dtype=object)))


def _of_users(rows: pa.Table, users: "pd.Index[str]") -> pa.Table:
    return rows.filter(pa.array(_places(rows, users) >= 0))


def _events_of(table: Table, day: date, last: date, users: pa.Array) -> pa.Table:
    """Return the events of a date with an item, each once as it first arrived, by their time, then their id."""
    parts = []
    for file in table.files_of("dt", [day]):
        if file.partition["landed"] > last:
            continue
        rows = table.read_file(file, ["event_id", "user_id", "item_id", "event_time"])
        known = pc.is_in(rows["user_id"], value_set=users.cast(rows["user_id"].type))
        rows = rows.filter(pc.and_(known, pc.is_valid(rows["item_id"])))
        rows = pa.table(
            {name: rows[name].cast(pa.string()) for name in ("event_id", "user_id", "item_id")}
            | {
                "event_time": rows["event_time"].cast(pa.timestamp("us")),
                "dt": pa.array([day] * len(rows), pa.date32()),
                "landed": pa.array([file.partition["landed"]] * len(rows), pa.date32()),
            }
        )
        parts.append(rows)
    if not parts:
        return EMPTY
    joined = pa.concat_tables(parts).sort_by(
        [("event_time", "ascending"), ("event_id", "ascending"), ("landed", "ascending")]
    )
    ids = joined["event_id"].to_numpy()
    # All copies of an event have its time, so they stand together, the first to arrive before the others.
    is_first = np.ones(len(ids), bool)
    is_first[1:] = ids[1:] != ids[:-1]
    return joined.filter(pa.array(is_first))


EMPTY = pa.table(
    {name: pa.array([], pa.string()) for name in ("event_id", "user_id", "item_id")}
    | {"event_time": pa.array([], pa.timestamp("us"))}
    | {name: pa.array([], pa.date32()) for name in ("dt", "landed")}
)
