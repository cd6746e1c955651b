"""Cut events, sorted by user, time and id, into sessions: a batch of Arrow at a time, without a row of Python.

Spark's way to the same rows takes three windows over a partition, and then groups, and sorts, what is in order already.
Here each event is looked at once, and the events of a session are a slice of a batch: of the rows that come in, no more
is kept than those of the session that is still open. The rule is in docs/design.md under "Sessions".
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyspark.sql.pandas.types import to_arrow_schema

from lake.days import ONE_DAY
from lake.rules import BEHAVIORS
from lake.schemas import MONEY, SESSION_EVENT, SESSIONS

# The number of the rule by which events are cut, and of what a session says of them. A change of either takes the next
# one: sessions that are published by another rule are not copied (jobs/copied_sessions.py).
RULE = 1
TICK = timedelta(microseconds=1)
DAY = ONE_DAY // TICK
EPOCH = date(1970, 1, 1)
COUNTS = {behavior: f"{behavior}es" if behavior == "search" else f"{behavior}s" for behavior in BEHAVIORS}


@dataclass(frozen=True)
class Last:
    """The last event so far: whose it is, its time and id, and when its chain began; times in microseconds."""

    user_id: str
    time: int
    event_id: str
    chain: int


def cut(
    batches: Iterable[pa.RecordBatch], gap: timedelta, days: Collection[date] | None = None
) -> Iterator[pa.RecordBatch]:
    """Yield the sessions of events, as rows of `sessions`.

    Args:
        batches: of the columns `user_id` and those of an event in a session, by user, time and id. An event that was
            delivered twice is there twice.
        gap: the longest pause inside a session.
        days: the dates on which a session has to end; all when None.
    """
    last: Last | None = None
    opened: list[pa.RecordBatch] = []
    for batch in batches:
        rows, starts, last = mark_starts(batch, gap, last)
        begins = np.flatnonzero(starts)
        if not len(begins):
            opened.append(rows)
            continue
        before = sum(map(len, opened))
        # The session that is open ends where the first one begins here; there is none before the first batch.
        bounds = np.concatenate([[0] if before + begins[0] else [], before + begins]).astype(np.int32)
        opened.append(rows.slice(0, begins[-1]))
        yield from fold(opened, bounds, days)
        opened = [rows.slice(begins[-1])]
    yield from fold(opened, np.array([0, sum(map(len, opened))], np.int32), days)


def mark_starts(
    batch: pa.RecordBatch, gap: timedelta, last: Last | None
) -> tuple[pa.RecordBatch, NDArray[np.bool_], Last | None]:
    """Return the rows of a batch, each event once, with true for each that starts a session, and the last of them.

    A chain is a run of events with no pause longer than `gap`. A chain opens a session, and one that already fills the
    whole day before a midnight is cut at that midnight.

    Args:
        batch: events in order.
        gap: the longest pause inside a session.
        last: the event before them; None if there is none.
    """
    same_user = equals_previous(batch["user_id"], last.user_id if last else None)
    repeated = same_user & equals_previous(batch["event_id"], last.event_id if last else None)
    if repeated.any():
        batch, same_user = batch.filter(pa.array(~repeated)), same_user[~repeated]
    if not len(batch):
        return batch, same_user, last
    times = microseconds(batch["event_time"])
    previous = np.concatenate([[last.time if last else 0], times[:-1]])
    opens_chain = ~same_user | (times - previous > gap // TICK)
    # The place of the newest event that has opened a chain; before the first, the chain of the last batch goes on.
    opening = np.maximum.accumulate(np.where(opens_chain, np.arange(len(times)), -1))
    chain = np.where(opening < 0, last.chain if last else 0, times[opening])
    midnight = times - times % DAY
    crosses_midnight = previous < midnight
    fills_the_day_before = chain < midnight - DAY
    starts = opens_chain | (crosses_midnight & fills_the_day_before)
    newest = Last(batch["user_id"][-1].as_py(), int(times[-1]), batch["event_id"][-1].as_py(), int(chain[-1]))
    return batch, starts, newest


def equals_previous(column: pa.Array, before: str | None) -> NDArray[np.bool_]:
    """Return for each value whether it is the one before it; `before` is the one before the first."""
    first = pa.array([len(column) > 0 and column[0].as_py() == before], pa.bool_())[: len(column)]
    rest = pc.equal(column.slice(1), column.slice(0, max(len(column) - 1, 0)))
    equal: NDArray[np.bool_] = pa.concat_arrays([first, rest]).to_numpy(zero_copy_only=False)
    return equal


def microseconds(times: pa.Array) -> NDArray[np.int64]:
    """Return times as numbers of microseconds since 1970."""
    numbers: NDArray[np.int64] = times.view(pa.int64()).to_numpy()
    return numbers


def fold(
    batches: list[pa.RecordBatch], bounds: NDArray[np.int32], days: Collection[date] | None
) -> Iterator[pa.RecordBatch]:
    """Yield one row for each session; nothing if there is none.

    Args:
        batches: the events in order.
        bounds: the place of the first event of each session, and the number of all events.
        days: as in `cut`.
    """
    if bounds[-1] == 0:
        return
    (rows,) = pa.Table.from_batches(batches).combine_chunks().to_batches()
    lengths = np.diff(bounds)
    ends = microseconds(rows["event_time"])[bounds[1:] - 1] // DAY
    if days is not None:
        wanted = np.isin(ends, [(day - EPOCH).days for day in days])
        if not wanted.any():
            return
        rows, lengths, ends = rows.filter(pa.array(np.repeat(wanted, lengths))), lengths[wanted], ends[wanted]
    bounds = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    first, final = rows.take(pa.array(bounds[:-1])), rows["event_time"].take(pa.array(bounds[1:] - 1))
    session = np.repeat(np.arange(len(lengths)), lengths)
    of_behavior = {name: pc.equal(rows["behavior"], name).to_numpy(zero_copy_only=False) for name in BEHAVIORS}
    counts = {COUNTS[name]: np.bincount(session[mask], minlength=len(lengths)) for name, mask in of_behavior.items()}
    events = pa.StructArray.from_arrays([rows[name] for name in SESSION_EVENT.fieldNames()], SESSION_EVENT.fieldNames())
    columns = {
        "session_id": first["event_id"],
        "user_id": first["user_id"],
        "start_time": first["event_time"],
        "end_time": final,
        **{name: pa.array(numbers) for name, numbers in counts.items()},
        "revenue": revenue(rows["price"], session, of_behavior["purchase"], len(lengths)),
        "converted": pa.array(counts["purchases"] > 0),
        "events": pa.ListArray.from_arrays(pa.array(bounds), events),
        "dt": pa.array(ends.astype(np.int32)).view(pa.date32()),
    }
    schema = to_arrow_schema(SESSIONS)
    yield pa.RecordBatch.from_arrays([columns[field.name].cast(field.type) for field in schema], schema=schema)


def revenue(price: pa.Array, session: NDArray[np.int64], bought: NDArray[np.bool_], sessions: int) -> pa.Array:
    """Return the sum of the known prices of purchases in each session; 0 where there is none."""
    money = pa.decimal128(MONEY.precision, MONEY.scale)
    paid = pa.table({"session": session[bought], "price": price.filter(pa.array(bought)).cast(money)})
    sums = paid.group_by("session", use_threads=False).aggregate([("price", "sum")])
    place = np.full(sessions, -1)
    place[sums["session"].to_numpy()] = np.arange(len(sums))
    of_each = sums["price_sum"].combine_chunks().take(pa.array(place, mask=place < 0))
    return pc.coalesce(of_each, pa.scalar(0, of_each.type)).cast(money)
