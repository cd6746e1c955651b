"""Load one day of `predictions` into the serving store as a generation of its own, and drop generations that are old.

Nothing that applications see changes here: lake/serving/pointer.py moves the pointer.
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
from lake.serving.layout import COLUMNS, ensure_layout, query, rows_table
from lake.serving.pointer import DROPPING, READY, before, current, generations, switching, try_to_load, wait_to_load
from lake.serving.postgres import Connection, connect, copy_rows, in_short
from lake.settings import settings
from lake.table import Table

log = logging.getLogger(__name__)

WORKERS = 2
ROWS_AT_ONCE = 5_000  # some 7 MB as text
WAIT_SECONDS = 600  # for another load
READERS_SECONDS = 60  # for readers of a generation that is dropped

# What must not be true of any row. A comparison with NaN or null is not true, so what is wanted stands inside.
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


def load(day: date, run_id: str, workers: int = WORKERS) -> dict[str, Any]:
    """Load the predictions of a day, as one version of the Delta table has them; applications see no change.

    Rows that are in the store already are not loaded again. May be killed at any instant and called again.

    Args:
        day: the date T.
        run_id: noted with the generation.
        workers: connections that copy at once.

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
    # A staging has fresh file names, so these say which rows they are.
    fingerprint = hashlib.sha256("\n".join(file.path for file in files).encode()).hexdigest()
    began = time.monotonic()
    with connect() as connection:
        wait_for_turn(connection)
        ensure_layout(connection)
        prune(connection)
        known = connection.execute(
            query(
                "select generation, model_version, users from {s}.generations "
                "where state = 'ready' and day = %s and fingerprint = %s"
            ),
            [day, fingerprint],
        ).fetchone()
        if known:
            return report(day, time.monotonic() - began, *known, already=True)
        generation = begin(connection, day, table.version, fingerprint, run_id)
        try:
            copy(generation, table, day, workers)
            version, users = check(connection, generation, day, sum(file.rows for file in files))
            admit(connection, generation, version, users, time.monotonic() - began)
        except (MeanderError, psycopg.Error):
            # Not needed for what is right, the next load would do it: but a failed load should not fill the disk.
            if not connection.broken:
                drop(connection, generation)
            raise
    return report(day, time.monotonic() - began, generation, version, users, already=False)


def report(day: date, seconds: float, generation: int, version: int, users: int, *, already: bool) -> dict[str, Any]:
    """Say what a load did, for the log and for Airflow."""
    return {
        "generation": generation,
        "day": str(day),
        "model_version": version,
        "users": users,
        "seconds": round(seconds, 3),
        "already": already,
    }


def wait_for_turn(connection: Connection) -> None:
    """Take the lock of loads; a killed load has lost it, since it ends with the connection.

    Raises:
        ServingBusy: another load has it for ten minutes.
    """
    ends = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            return wait_to_load(connection, max(0.1, ends - time.monotonic()))
        except psycopg.errors.DeadlockDetected:
            # Whoever has it drops an old generation, and waits for every statement that began before: for this one too.
            continue
        except psycopg.errors.LockNotAvailable:
            raise ServingBusy(
                f"another load has held the serving store for {WAIT_SECONDS} s; look at it, then try again"
            ) from None


def begin(connection: Connection, day: date, lake_version: int, fingerprint: str, run_id: str) -> int:
    """Make an empty table for a new generation, which no reader can see, and return its number."""
    with connection.transaction():
        row = connection.execute(
            query(
                "insert into {s}.generations (state, day, lake_version, fingerprint, run_id) "
                "values ('loading', %s, %s, %s, %s) returning generation"
            ),
            [day, lake_version, fingerprint, run_id],
        ).fetchone()
        number = int(row[0]) if row else 0
        connection.execute(
            # The check lets the table become a partition without a scan. What is the same in all rows is not copied.
            query(
                "create table {table} (like {s}.prediction_rows including defaults, check (generation = {number}));"
                "alter table {table} alter dt set default {day}, alter generation set default {number}",
                table=rows_table(number),
                number=sql.Literal(number),
                day=sql.Literal(day),
            )
        )
    return number


def copy(generation: int, table: Table, day: date, workers: int) -> None:
    """Copy the rows of a day into the table of a generation.

    Raises:
        ServingRefused: PostgreSQL cannot store a value.
    """
    columns = [name for name in COLUMNS if name not in table.spec.partition_by]
    batches = (batch for _, batch in table.batches(day, ROWS_AT_ONCE))
    try:
        copy_rows(rows_table(generation), batches, columns, workers)
    except psycopg.errors.NotNullViolation as error:
        raise ServingRefused(f"the predictions of {day} have a row without a user: {in_short(error)}") from None
    except psycopg.DataError as error:
        raise ServingRefused(
            f"PostgreSQL cannot store a value of the predictions of {day}: {in_short(error)}; applications see what "
            "they saw before"
        ) from None


def check(connection: Connection, generation: int, day: date, rows: int) -> tuple[int, int]:
    """Check keys, counts and ranges of what was copied, and return the model version and the number of users.

    Raises:
        ServingRefused: something is not as it has to be; every broken rule is told.
    """
    table = rows_table(generation)
    try:
        with connection.transaction():
            connection.execute("set local maintenance_work_mem = '256MB'")
            connection.execute(query("alter table {table} add primary key (user_id, generation)", table=table))
    except psycopg.errors.UniqueViolation as error:
        raise ServingRefused(f"the predictions of {day} have a user twice: {in_short(error)}") from None
    connection.execute(query("analyze {table}", table=table))
    counted = [sql.SQL("count(*) filter (where " + broken + ")") for broken in BREAKS.values()]
    found = connection.execute(
        query(
            "select count(*), min(model_version), max(model_version), count(model_version), {counted} from {table}",
            counted=sql.SQL(", ").join(counted),
            table=table,
        )
    ).fetchone()
    count, lowest, highest, with_version, *broken = found or (0, None, None, 0)
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


def admit(connection: Connection, generation: int, version: int, users: int, seconds: float) -> None:
    """Make a checked generation one that the pointer can point to."""
    with connection.transaction():
        # Readers go on: this takes no lock that a select would wait for.
        connection.execute(
            query(
                "alter table {s}.prediction_rows attach partition {table} for values in ({number})",
                table=rows_table(generation),
                number=sql.Literal(generation),
            )
        )
        connection.execute(
            query(
                "update {s}.generations set state = 'ready', model_version = %s, users = %s, seconds = %s "
                "where generation = %s"
            ),
            [version, users, seconds, generation],
        )


# ---- retention ----


def prune(connection: Connection) -> list[int]:
    """Drop what killed loads left and what is older than the retention; the caller holds the lock of loads.

    The newest `MEANDER_SERVING_KEEP` loads stay, and so do the current one and the one to go back to. Readers are not
    disturbed; if one of them keeps a transaction open for more than a minute, the rest is left to the next call.

    Returns:
        the numbers of the generations that are gone.
    """
    gone = []
    try:
        for generation in mark_for_dropping(connection):
            drop(connection, generation)
            gone.append(generation)
    except (
        psycopg.errors.QueryCanceled,
        psycopg.errors.LockNotAvailable,
        psycopg.errors.DeadlockDetected,
    ) as error:
        log.warning("an old generation is left to the next run, a reader still uses it: %s", in_short(error))
    return gone


def prune_unless_busy(connection: Connection) -> list[int]:
    """As `prune`, unless a load is under way, which does it itself."""
    return prune(connection) if try_to_load(connection) else []


def mark_for_dropping(connection: Connection) -> list[int]:
    """Take generations out of the choice of switches, and return them, those first that were marked before."""
    with switching(connection):
        everything = generations(connection)
        kept = {each.generation for each in [g for g in everything if g.state == READY][: settings().serving_keep]}
        seen = current(connection)
        if seen:
            kept.add(seen.generation)
            with suppress(GenerationMissing):
                kept.add(before(connection).generation)
        marked = sorted(
            (g for g in everything if g.generation not in kept), key=lambda g: (g.state != DROPPING, g.generation)
        )
        numbers = [each.generation for each in marked]
        connection.execute(query("update {s}.generations set state = 'dropping' where generation = any(%s)"), [numbers])
    return numbers


def drop(connection: Connection, generation: int) -> None:
    """Drop the rows of a generation, then its entry; killed anywhere, the next call does the rest."""
    table = rows_table(generation)
    connection.execute("select set_config('statement_timeout', %s, false)", [f"{READERS_SECONDS}s"])
    try:
        pending = connection.execute(
            "select inhdetachpending from pg_inherits where inhrelid = to_regclass(%s)", [table.as_string(connection)]
        ).fetchone()
        if pending is not None:
            # Concurrently: it waits for readers instead of keeping them out. What was cancelled can only be finished.
            how = sql.SQL("finalize" if pending[0] else "concurrently")
            connection.execute(
                query("alter table {s}.prediction_rows detach partition {table} {how}", table=table, how=how)
            )
        connection.execute(query("drop table if exists {table}", table=table))
        connection.execute(query("delete from {s}.generations where generation = %s"), [generation])
    finally:
        if not connection.broken:
            connection.execute("reset statement_timeout")
