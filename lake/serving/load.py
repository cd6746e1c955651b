"""Load one day of `predictions` into the serving store as a generation of its own, and drop old generations.

Applications see no change: lake/serving/pointer.py moves the pointer.
"""

import hashlib
import logging
import time
from contextlib import suppress
from datetime import date
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from lake.errors import GenerationMissing, MeanderError, ServingBusy, ServingRefused, SettingsInvalid, TableMissing
from lake.labels import PROBABILITIES
from lake.rules import SEGMENTS
from lake.serving.layout import COLUMNS, ensure_layout
from lake.serving.pointer import DROPPING, READY, before, current, generations, switching, try_to_load, wait_to_load
from lake.serving.postgres import copy_rows, in_short
from lake.serving.store import Store
from lake.table import Table

log = logging.getLogger(__name__)

WORKERS = 2
ROWS_AT_ONCE = 5_000  # some 7 MB as text
WAIT_SECONDS = 600  # for another load
READERS_SECONDS = 60  # for readers of a generation that is dropped

# Conditions of broken rows. A comparison with NaN or null is not true, so each condition negates the valid case.
BREAKS: dict[str, LiteralString] = {
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
    "the segment is none that there is": (
        "not coalesce(segment in (" + ", ".join(f"'{name}'" for name in SEGMENTS) + "), false)"
    ),
}


def load(store: Store, day: date, run_id: str, *, keep: int, workers: int = WORKERS) -> dict[str, Any]:
    """Load the predictions of a day, from one version of the Delta table; applications see no change.

    Rows that are already in the store are not loaded again. May be killed at any instant and called again.

    Args:
        store: open.
        day: the date T.
        run_id: recorded with the generation.
        keep: number of newest generations that are not dropped.
        workers: number of concurrent connections that copy.

    Returns:
        generation, day, model_version, users, seconds, and already (true when an earlier call had loaded it).

    Raises:
        SettingsInvalid: no workers.
        TableMissing: the predictions of the day are not published.
        ServingRefused: the rows broke a check.
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
    files = [file for file in table.files if file.partition["dt"] == day]
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
        return report(day, time.monotonic() - began, *loaded, already=True)
    generation = begin(store, day, table.version, fingerprint, run_id)
    try:
        copy(store, generation, table, day, workers)
        version, users = check(store, generation, day, sum(file.rows for file in files))
        admit(store, generation, version, users, time.monotonic() - began)
    except (MeanderError, psycopg.Error):
        # The next load would drop it too, but a failed load should not fill the disk.
        if not store.connection.broken:
            drop(store, generation)
        raise
    return report(day, time.monotonic() - began, generation, version, users, already=False)


def report(day: date, seconds: float, generation: int, version: int, users: int, *, already: bool) -> dict[str, Any]:
    """Return the result of a load, for the log and for Airflow."""
    return {
        "generation": generation,
        "day": str(day),
        "model_version": version,
        "users": users,
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
                f"another load has held the serving store for {WAIT_SECONDS} s; look at it, then try again"
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


def copy(store: Store, generation: int, table: Table, day: date, workers: int) -> None:
    """Copy the rows of a day into the table of a generation.

    Raises:
        ServingRefused: PostgreSQL cannot store a value.
    """
    columns = [name for name in COLUMNS if name not in table.spec.partition_by]
    batches = (batch for _, batch in table.batches(day, ROWS_AT_ONCE))
    try:
        copy_rows(store.url, store.rows_table(generation), batches, columns, workers)
    except psycopg.errors.NotNullViolation as error:
        raise ServingRefused(f"the predictions of {day} have a row without a user: {in_short(error)}") from None
    except psycopg.DataError as error:
        raise ServingRefused(
            f"PostgreSQL cannot store a value of the predictions of {day}: {in_short(error)}; applications see what "
            "they saw before"
        ) from None


def check(store: Store, generation: int, day: date, rows: int) -> tuple[int, int]:
    """Check keys, counts and ranges of the copied rows, and return the model version and the number of users.

    Raises:
        ServingRefused: the rows break a rule; the message names all broken rules.
    """
    table = store.rows_table(generation)
    try:
        with store.connection.transaction():
            store.execute("set local maintenance_work_mem = '256MB'")
            store.execute("alter table {table} add primary key (user_id, generation)", table=table)
    except psycopg.errors.UniqueViolation as error:
        raise ServingRefused(f"the predictions of {day} have a user twice: {in_short(error)}") from None
    store.execute("analyze {table}", table=table)
    counted = [sql.SQL("count(*) filter (where " + broken + ")") for broken in BREAKS.values()]
    counts = store.execute(
        "select count(*), min(model_version), max(model_version), count(model_version), {counted} from {table}",
        counted=sql.SQL(", ").join(counted),
        table=table,
    ).fetchone()
    count, lowest, highest, with_version, *broken = counts or (0, None, None, 0)
    problems = [f"{name}: {n} rows" for name, n in zip(BREAKS, broken, strict=False) if n]
    if count != rows:
        problems.append(f"the lake has {rows} rows, and {count} arrived")
    if not count:
        problems.append("there is no user")
    if lowest != highest or with_version != count:
        problems.append(f"rows of one day must be of one model version, found {lowest} to {highest}")
    if problems:
        raise ServingRefused(f"the predictions of {day} may not be served: {'; '.join(problems)}")
    return lowest, count


def admit(store: Store, generation: int, version: int, users: int, seconds: float) -> None:
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
        log.warning("an old generation is left to the next run, a reader still uses it: %s", in_short(error))
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
