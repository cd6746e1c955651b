"""Load one day of `predictions` into the serving store as a generation of its own, and drop old generations.

Single rows that cannot be served are *set aside*: counted by reason, and left out. Too many of them, or a fault of the
whole day, stop the load. Applications see no change: lake/serving/pointer.py moves the pointer.
"""

import hashlib
import logging
import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import date
from decimal import Decimal
from typing import Any, LiteralString

import psycopg
import pyarrow as pa
import pyarrow.compute as pc
from psycopg import sql

from lake.errors import GenerationMissing, MeanderError, ServingBusy, ServingRefused, SettingsInvalid, TableMissing
from lake.labels import PROBABILITIES
from lake.rules import SEGMENTS
from lake.serving.layout import COLUMNS, ensure_layout
from lake.serving.pointer import (
    DROPPING,
    READY,
    before,
    current,
    generations,
    rows_set_aside,
    switching,
    try_to_load,
    wait_to_load,
)
from lake.serving.postgres import copy_rows, in_short, rows_not_storable
from lake.serving.store import Store
from lake.table import Table

log = logging.getLogger(__name__)

WORKERS = 2
ROWS_AT_ONCE = 5_000  # some 7 MB as text
WAIT_SECONDS = 600  # for another load
READERS_SECONDS = 60  # for readers of a generation that is dropped

# Reasons to set a row aside before it is copied.
NO_USER = "the user id is missing"
NO_TEXT = "a text is not UTF-8, or has a NUL"

MAX_ID_BYTES = 2688  # A row of a B-tree has 2,704 bytes, of which the index of users and generations needs 16 itself.

# Reasons to set a copied row aside, each with its condition. A comparison with NaN or null is not true, so most
# conditions negate the valid case.
BREAKS: dict[str, LiteralString] = {
    "the user id is too long for an index": f"octet_length(user_id) > {MAX_ID_BYTES}",
    "a probability is missing, or not from 0 to 1": (
        "not coalesce(" + " and ".join(f"{name} between 0 and 1" for name in PROBABILITIES) + ", false)"
    ),
    "a probability in a list is missing, or not from 0 to 1": (
        "not coalesce(0 <= all (category_probabilities) and 1 >= all (category_probabilities) "
        "and 0 <= all (item_probabilities) and 1 >= all (item_probabilities), false)"
    ),
    "a list of ids is not as long as that of its probabilities": (
        "cardinality(category_ids) is distinct from cardinality(category_probabilities) "
        "or cardinality(item_ids) is distinct from cardinality(item_probabilities)"
    ),
    "the risk percentile is not from 0 to 100": "not coalesce(risk_percentile between 0 and 100, true)",
    "the segment is unknown": ("not coalesce(segment in (" + ", ".join(f"'{name}'" for name in SEGMENTS) + "), false)"),
}


def load(
    store: Store, day: date, run_id: str, *, keep: int, max_set_aside: float, workers: int = WORKERS
) -> dict[str, Any]:
    """Load the predictions of a day, from one version of the Delta table; applications see no change.

    Rows that are already in the store are not loaded again. May be killed at any instant and called again.

    Args:
        store: open.
        day: the date T.
        run_id: recorded with the generation.
        keep: number of newest generations that are not dropped.
        max_set_aside: share of the day's rows that may be set aside.
        workers: number of concurrent connections that copy.

    Returns:
        generation, day, model_version, users, set_aside (rows by reason), seconds, and already (true when an earlier
        call had loaded it). Users and rows set aside add up to the rows of the day.

    Raises:
        SettingsInvalid: no workers.
        TableMissing: the predictions of the day are not published.
        ServingRefused: too many rows cannot be served, or the day as a whole cannot.
        ServingBusy: another load takes more than ten minutes.
        ServingUnavailable: as `lake.serving.postgres.connect`.
    """
    if workers < 1:
        raise SettingsInvalid(f"--workers counts connections and must be at least 1; received {workers}")
    table = Table("predictions")
    if table.basis(day) is None:
        raise TableMissing(
            f"the predictions of {day} are not published yet; run model.score --day {day}, audit, publish"
        )
    files = table.files_of("dt", [day])
    # Each staging has new file names, so these identify the rows.
    fingerprint = hashlib.sha256("\n".join(file.path for file in files).encode()).hexdigest()
    began = time.monotonic()
    wait_for_turn(store)
    ensure_layout(store)
    prune(store, keep)
    loaded = store.execute(
        "select generation, model_version, users from {s}.generations "
        "where state = 'ready' and day = %s and fingerprint = %s",
        [day, fingerprint],
    ).fetchone()
    if loaded:
        generation, version, users = loaded
        left_out = rows_set_aside(store).get(generation, {})
        return report(day, time.monotonic() - began, generation, version, users, left_out, already=True)
    generation = begin(store, day, table.version, fingerprint, run_id)
    try:
        set_aside = copy(store, generation, table, day, workers) + remove_broken(store, generation)
        version, users = check(store, generation, day, sum(file.rows for file in files), set_aside, max_set_aside)
        admit(store, generation, version, users, set_aside, time.monotonic() - began)
    except (MeanderError, psycopg.Error):
        # The next load would drop it too, but a failed load should not fill the disk.
        if not store.connection.broken:
            drop(store, generation)
        raise
    if set_aside:
        log.warning("rows of the predictions of %s are set aside, and not served: %s", day, in_words(set_aside))
    return report(day, time.monotonic() - began, generation, version, users, set_aside, already=False)


def in_words(set_aside: Mapping[str, int]) -> str:
    """Return for people how many rows are set aside by reason.

    >>> in_words({"the user id is missing": 2, "the segment is unknown": 1})
    'the segment is unknown: 1 rows; the user id is missing: 2 rows'
    """
    return "; ".join(f"{reason}: {rows:,} rows" for reason, rows in sorted(set_aside.items()))


def report(
    day: date, seconds: float, generation: int, version: int, users: int, set_aside: Mapping[str, int], *, already: bool
) -> dict[str, Any]:
    """Return the result of a load, for the log and for Airflow."""
    return {
        "generation": generation,
        "day": str(day),
        "model_version": version,
        "users": users,
        "set_aside": dict(set_aside),
        "seconds": round(seconds, 3),
        "already": already,
    }


def wait_for_turn(store: Store) -> None:
    """Take the lock of loads; a killed load no longer holds it, since the lock ends with the connection.

    Raises:
        ServingBusy: another load holds it for ten minutes.
    """
    ends = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            return wait_to_load(store, max(0.1, ends - time.monotonic()))
        except psycopg.errors.DeadlockDetected:
            # The load that holds it drops an old generation, and waits for all earlier statements, including this one.
            continue
        except psycopg.errors.LockNotAvailable:
            raise ServingBusy(
                f"another load has held the serving store for {WAIT_SECONDS} s; wait until it has ended, then try again"
            ) from None


def begin(store: Store, day: date, lake_version: int, fingerprint: str, run_id: str) -> int:
    """Create an empty table for a new generation, which no reader can see, and return its number."""
    with store.connection.transaction():
        row = store.execute(
            "insert into {s}.generations (state, day, lake_version, fingerprint, run_id) "
            "values ('loading', %s, %s, %s, %s) returning generation",
            [day, lake_version, fingerprint, run_id],
        ).fetchone()
        number = int(row[0]) if row else 0
        store.execute(
            # The check lets the table become a partition without a scan. Columns with one value are not copied.
            "create table {table} (like {s}.prediction_rows including defaults, check (generation = {number}));"
            "alter table {table} alter dt set default {day}, alter generation set default {number}",
            table=store.rows_table(number),
            number=sql.Literal(number),
            day=sql.Literal(day),
        )
    return number


def copy(store: Store, generation: int, table: Table, day: date, workers: int) -> Counter[str]:
    """Copy the rows of a day into the table of a generation, and return how many are set aside, by reason.

    A value that PostgreSQL rejects would end the COPY of all rows, so rows with such a value are not sent.
    """
    columns = [name for name in COLUMNS if name not in table.spec.partition_by]
    set_aside: Counter[str] = Counter()

    def storable() -> Iterator[pa.RecordBatch]:
        for _, batch in table.batches(day, ROWS_AT_ONCE):
            reasons = dict.fromkeys(rows_not_storable(batch.select(columns)), NO_TEXT)
            reasons |= dict.fromkeys(pc.indices_nonzero(pc.is_null(batch["user_id"])).to_pylist(), NO_USER)
            set_aside.update(reasons.values())
            yield batch.filter(pa.array([row not in reasons for row in range(len(batch))])) if reasons else batch

    copy_rows(store.url, store.rows_table(generation), storable(), columns, workers)
    return set_aside


def remove_broken(store: Store, generation: int) -> Counter[str]:
    """Delete the copied rows that break a rule, and return how many, each by the first rule that it breaks."""
    rules = [(sql.Literal(reason), sql.SQL(condition)) for reason, condition in BREAKS.items()]
    removed = store.execute(
        "with removed as (delete from {table} where {broken} returning case {reasons} end as reason) "
        "select reason, count(*) from removed group by reason order by reason",
        table=store.rows_table(generation),
        broken=sql.SQL(" or ").join(sql.SQL("({})").format(condition) for _, condition in rules),
        reasons=sql.SQL(" ").join(sql.SQL("when {} then {}").format(condition, reason) for reason, condition in rules),
    )
    return Counter(dict(removed.fetchall()))


def check(
    store: Store, generation: int, day: date, rows: int, set_aside: Counter[str], max_set_aside: float
) -> tuple[int, int]:
    """Check keys and counts of the copied rows, and return the model version and the number of users.

    Raises:
        ServingRefused: the day breaks a rule; the message names all broken rules.
    """
    table = store.rows_table(generation)
    counts = store.execute(
        "select count(*), min(model_version), max(model_version), count(model_version) from {table}", table=table
    ).fetchone()
    count, lowest, highest, with_version = counts or (0, None, None, 0)
    problems = []
    # Rounded up: one bad row does not stop the serving of a shop with few users. As a decimal number, since 28 of 100
    # are 0.28, and as floating-point numbers 0.28 * 100 is more than 28.
    may_be_set_aside = math.ceil(Decimal(str(max_set_aside)) * rows)
    if set_aside.total() > may_be_set_aside:
        problems.append(
            f"{set_aside.total():,} of {rows:,} rows cannot be served, and {may_be_set_aside:,} may be by "
            f"MEANDER_SERVING_MAX_SET_ASIDE={max_set_aside:g} ({in_words(set_aside)})"
        )
    if count + set_aside.total() != rows:
        problems.append(f"the lake has {rows} rows, and {count + set_aside.total()} arrived")
    if not count:
        problems.append("there is no user")
    if lowest != highest or with_version != count:
        problems.append(f"rows of one day must be of one model version, found {lowest} to {highest}")
    if problems:
        raise ServingRefused(f"the predictions of {day} may not be served: {'; '.join(problems)}")
    try:
        with store.connection.transaction():
            store.execute("set local maintenance_work_mem = '256MB'")
            store.execute("alter table {table} add primary key (user_id, generation)", table=table)
    except psycopg.errors.UniqueViolation as error:
        raise ServingRefused(f"the predictions of {day} have a user twice: {in_short(error)}") from None
    store.execute("analyze {table}", table=table)
    return lowest, count


def admit(
    store: Store, generation: int, version: int, users: int, set_aside: Mapping[str, int], seconds: float
) -> None:
    """Make a checked generation one that the pointer can point to."""
    with store.connection.transaction():
        # Takes no lock that a reader's select would wait for.
        store.execute(
            "alter table {s}.prediction_rows attach partition {table} for values in ({number})",
            table=store.rows_table(generation),
            number=sql.Literal(generation),
        )
        store.execute(
            "update {s}.generations set state = 'ready', model_version = %s, users = %s, seconds = %s "
            "where generation = %s",
            [version, users, seconds, generation],
        )
        for reason, rows in set_aside.items():
            store.execute(
                "insert into {s}.set_aside (generation, reason, rows) values (%s, %s, %s)", [generation, reason, rows]
            )


# ---- retention ----


def prune(store: Store, keep: int) -> list[int]:
    """Drop generations of killed loads and those older than the retention; the caller holds the lock of loads.

    The newest `keep` generations stay, and so do the current one and the previous one. Readers are not disturbed; if
    one of them keeps a transaction open for more than a minute, the next call drops the remaining generations.

    Returns:
        the numbers of the dropped generations.
    """
    dropped = []
    try:
        for generation in mark_for_dropping(store, keep):
            drop(store, generation)
            dropped.append(generation)
    except (
        psycopg.errors.QueryCanceled,
        psycopg.errors.LockNotAvailable,
        psycopg.errors.DeadlockDetected,
    ) as error:
        log.warning(
            "an old generation was not dropped, a reader still uses it; the next run tries again: %s", in_short(error)
        )
    return dropped


def prune_unless_busy(store: Store, keep: int) -> list[int]:
    """As `prune`, unless a load is running, which does it itself."""
    return prune(store, keep) if try_to_load(store) else []


def mark_for_dropping(store: Store, keep: int) -> list[int]:
    """Exclude generations from switches, and return them, those first that an earlier call has marked."""
    with switching(store):
        everything = generations(store)
        kept = {each.generation for each in [g for g in everything if g.state == READY][:keep]}
        served = current(store)
        if served:
            kept.add(served.generation)
            with suppress(GenerationMissing):
                kept.add(before(store).generation)
        marked = sorted(
            (g for g in everything if g.generation not in kept), key=lambda g: (g.state != DROPPING, g.generation)
        )
        numbers = [each.generation for each in marked]
        store.execute("update {s}.generations set state = 'dropping' where generation = any(%s)", [numbers])
    return numbers


def drop(store: Store, generation: int) -> None:
    """Drop the rows of a generation, then its entry; if it is killed, the next call drops the remainder."""
    table = store.rows_table(generation)
    store.execute("select set_config('statement_timeout', %s, false)", [f"{READERS_SECONDS}s"])
    try:
        pending = store.execute(
            "select inhdetachpending from pg_inherits where inhrelid = to_regclass(%s)",
            [table.as_string(store.connection)],
        ).fetchone()
        if pending is not None:
            # Concurrently: it waits for readers and does not block them. A cancelled one can only be finished.
            how = sql.SQL("finalize" if pending[0] else "concurrently")
            store.execute("alter table {s}.prediction_rows detach partition {table} {how}", table=table, how=how)
        store.execute("drop table if exists {table}", table=table)
        store.execute("delete from {s}.generations where generation = %s", [generation])
    finally:
        if not store.connection.broken:
            store.execute("reset statement_timeout")
