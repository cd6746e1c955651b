"""The serving store: generations of `predictions` in PostgreSQL, of which a pointer says which one applications see.

A generation is one day of `predictions`, loaded (lake/serving/load.py) into a table of its own. Applications read one
view. It follows the pointer, a single row that is changed in one transaction: a statement of a reader sees the
generation before or the one after, whole. docs/decisions/0013 says why, docs/serving.md how to use it.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any, LiteralString

from psycopg import sql
from psycopg.rows import class_row, dict_row

from lake.errors import GenerationMissing, ServingRefused
from lake.labels import PROBABILITIES
from lake.serving.layout import query, require_layout
from lake.serving.postgres import Connection
from lake.settings import settings

LOADING, READY, DROPPING = "loading", "ready", "dropping"

LOCK_SECONDS = 60  # for another switch


@dataclass(frozen=True)
class Generation:
    """One day of `predictions` in the store.

    Attributes:
        generation: its number; a later load has a higher one.
        state: loading (or left behind by a load that was killed), ready, or dropping.
        day: the date T of the predictions.
        model_version: that made them; None until it is ready.
        users: how many rows it has; None until it is ready.
        lake_version: of the Delta table that was read.
    """

    generation: int
    state: str
    day: date
    model_version: int | None
    users: int | None
    lake_version: int

    def __str__(self) -> str:
        return f"generation {self.generation} (day {self.day}, model version {self.model_version})"


# ---- locks ----


def try_to_load(connection: Connection) -> bool:
    """Take the lock of loads for this connection, unless another one has it. It ends with the connection."""
    taken = connection.execute("select pg_try_advisory_lock(hashtext(%s), 1)", [settings().serving_schema])
    return taken.fetchone() == (True,)


def wait_to_load(connection: Connection, seconds: float) -> None:
    """Take the same lock, and wait for whoever has it.

    Raises:
        psycopg.errors.LockNotAvailable: it was not free for so many seconds.
    """
    with connection.transaction():
        connection.execute("select set_config('lock_timeout', %s, true)", [f"{seconds}s"])
        # Not that of the transaction: this one stays when it ends.
        connection.execute("select pg_advisory_lock(hashtext(%s), 1)", [settings().serving_schema])


@contextmanager
def switching(connection: Connection) -> Iterator[None]:
    """Run a transaction beside which no other one moves the pointer or marks a generation for dropping.

    Raises:
        ServingBusy: (by `connect`) another one takes more than a minute.
    """
    with connection.transaction():
        connection.execute("select set_config('lock_timeout', %s, true)", [f"{LOCK_SECONDS}s"])
        connection.execute("select pg_advisory_xact_lock(hashtext(%s), 2)", [settings().serving_schema])
        yield


# ---- generations ----


FIELDS: LiteralString = "g.generation, g.state, g.day, g.model_version, g.users, g.lake_version"


def generations(connection: Connection) -> list[Generation]:
    """Return every generation, newest load first."""
    with connection.cursor(row_factory=class_row(Generation)) as cursor:
        text: LiteralString = "select " + FIELDS + " from {s}.generations g order by generation desc"
        return cursor.execute(query(text)).fetchall()


def current(connection: Connection) -> Generation | None:
    """Return the generation that applications see."""
    with connection.cursor(row_factory=class_row(Generation)) as cursor:
        text: LiteralString = "select " + FIELDS + " from {s}.pointer join {s}.generations g using (generation)"
        return cursor.execute(query(text)).fetchone()


def switches(connection: Connection, limit: int) -> list[dict[str, Any]]:
    """Return the last moves of the pointer, newest first; `exceeded` names the limits that were passed by force."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            query(
                "select switched, generation, day, run_id, report->'exceeded' as exceeded from {s}.switches "
                "order by switch desc limit %s"
            ),
            [limit],
        ).fetchall()


def find(
    connection: Connection,
    day: date | None = None,
    model_version: int | None = None,
    generation: int | None = None,
) -> Generation:
    """Return the ready generation of the newest day, and of that the newest load, that fits everything that is given.

    Raises:
        GenerationMissing: there is none.
    """
    ready = [each for each in generations(connection) if each.state == READY]
    fitting = [
        each
        for each in ready
        if day in (None, each.day)
        and model_version in (None, each.model_version)
        and generation in (None, each.generation)
    ]
    if not fitting:
        wanted = {"day": day, "model version": model_version, "generation": generation}
        asked = ", ".join(f"{name} {value}" for name, value in wanted.items() if value is not None) or "any day"
        raise GenerationMissing(
            f"the serving store has no generation of {asked}; it has {', '.join(map(str, ready)) or 'none'}. "
            "`meander serve load --day D` loads a day again"
        )
    return max(fitting, key=lambda each: (each.day, each.generation))


def before(connection: Connection) -> Generation:
    """Return the generation that applications saw before they first saw the current one, and that is still there.

    Asked again after a rollback it goes back one further, and not forward again.

    Raises:
        GenerationMissing: there is none.
    """
    with connection.cursor(row_factory=class_row(Generation)) as cursor:
        text: LiteralString = (
            "with first_seen as (select generation, min(switch) as at from {s}.switches group by generation) "
            "select " + FIELDS + " from {s}.generations g join first_seen f using (generation) "
            "where g.state = 'ready' and f.at < (select at from first_seen join {s}.pointer using (generation)) "
            "order by f.at desc limit 1"
        )
        found = cursor.execute(query(text)).fetchone()
    if found is None:
        raise GenerationMissing(
            "there is nothing to go back to: the serving store has no older generation that applications have seen; "
            "`meander serve status` lists what it has, and `meander serve load --day D` loads a day again"
        )
    return found


# ---- what a switch would change ----


def compare(connection: Connection, old: Generation | None, new: Generation) -> dict[str, Any]:
    """Return in numbers what readers would see change; `exceeded` says in words which limits are passed."""
    report: dict[str, Any] = {"from": summary(old), "to": summary(new), "exceeded": []}
    if old is None:
        return report
    drifts = sql.SQL(", ").join(
        sql.SQL("avg(a.{0}) - avg(b.{0})").format(sql.Identifier(score)) for score in PROBABILITIES
    )
    row = connection.execute(
        query(
            """
select count(*) filter (where b.user_id is null), count(*) filter (where a.user_id is null),
    count(*) filter (where a.category_ids[1] is distinct from b.category_ids[1]
        and a.user_id is not null and b.user_id is not null),
    {drifts}
from (select * from {s}.prediction_rows where generation = %s) b
full join (select * from {s}.prediction_rows where generation = %s) a using (user_id)
""",
            drifts=drifts,
        ),
        [old.generation, new.generation],
    ).fetchone()
    added, gone, moved, *drift = row or ()
    users = old.users or 0
    report |= {
        "users_added": added,
        "users_gone": gone,
        "share_added": added / max(users, 1),
        "share_gone": gone / max(users, 1),
        "share_with_another_top_category": moved / max(users - gone, 1),
        "drift": {score: change or 0.0 for score, change in zip(PROBABILITIES, drift, strict=True)},
    }
    limits = settings()
    measured = [
        ("share_gone", report["share_gone"], "serving_max_users", limits.serving_max_users),
        ("share_added", report["share_added"], "serving_max_users", limits.serving_max_users),
        (
            "share_with_another_top_category",
            report["share_with_another_top_category"],
            "serving_max_moved",
            limits.serving_max_moved,
        ),
        *(
            (f"mean {score} changes by", change, "serving_max_drift", limits.serving_max_drift)
            for score, change in report["drift"].items()
        ),
    ]
    report["exceeded"] = [
        f"{name} {value:.3f}, MEANDER_{limit.upper()} is {allowed:g}"
        for name, value, limit, allowed in measured
        if abs(value) > allowed
    ]
    return report


def summary(generation: Generation | None) -> dict[str, Any] | None:
    """Return a generation for a report."""
    return None if generation is None else {**asdict(generation), "day": str(generation.day)}


# ---- the pointer ----


def switch(
    connection: Connection, day: date, run_id: str, *, force: bool = False, if_newer: bool = False
) -> dict[str, Any]:
    """Let applications see the newest load of a day.

    Args:
        connection: to the store.
        day: which must be loaded.
        run_id: noted with the switch.
        force: also when more changes than the limits allow.
        if_newer: only when no later day has been served yet, and this load was not replaced before: then a backfill
            or a repeated run does not undo what a person, or a later day, has decided.

    Returns:
        `outcome` (switched, already or kept), `why`, and, when it was looked at, the report of `compare`.

    Raises:
        GenerationMissing: the day is not loaded.
        ServingRefused: more changes than the limits allow.
    """
    require_layout(connection)
    with switching(connection):
        old, new = current(connection), find(connection, day)
        if new == old:
            return {"outcome": "already", "why": f"{new} is current"}
        if if_newer and (reason := why_not_newer(connection, new)):
            return {"outcome": "kept", "why": f"{old} stays current: {reason}"}
        report = compare(connection, old, new)
        if report["exceeded"] and not force:
            raise ServingRefused(
                f"{new} would change more than is allowed: {'; '.join(report['exceeded'])}. {old} stays current; look "
                f"at `meander serve diff --day {day}`, then `meander serve switch --day {day} --force` if it is right"
            )
        point_to(connection, new, run_id, report)
    return {"outcome": "switched", "why": f"{new} is current, in the place of {old or 'nothing'}", "report": report}


def why_not_newer(connection: Connection, new: Generation) -> str:
    """Return why a load is not news for applications; empty when it is."""
    latest, seen = connection.execute(
        query("select max(day), count(*) filter (where generation = %s) from {s}.switches"), [new.generation]
    ).fetchone() or (None, 0)
    if seen:
        return f"{new} was current before and has been replaced"
    if latest and new.day < latest:
        return f"{new} is older than day {latest}, which has been served"
    return ""


def rollback(
    connection: Connection,
    run_id: str,
    day: date | None = None,
    model_version: int | None = None,
    generation: int | None = None,
) -> dict[str, Any]:
    """Let applications see an older generation again: the one before, or the newest one that fits what is given.

    No limit stands in the way. The same `run_id` goes back once, however often it is called.

    Returns:
        as `switch`.

    Raises:
        GenerationMissing: there is nothing to go back to.
    """
    require_layout(connection)
    with switching(connection):
        old = current(connection)
        done = connection.execute(query("select 1 from {s}.switches where run_id = %s limit 1"), [run_id]).fetchone()
        if done:
            return {"outcome": "already", "why": f"run {run_id} has switched before; {old} is current"}
        given = day or model_version or generation
        new = find(connection, day, model_version, generation) if given else before(connection)
        if new == old:
            return {"outcome": "already", "why": f"{new} is current"}
        report = compare(connection, old, new)
        point_to(connection, new, run_id, report)
    return {"outcome": "switched", "why": f"{new} is current, in the place of {old or 'nothing'}", "report": report}


def point_to(connection: Connection, new: Generation, run_id: str, report: dict[str, Any]) -> None:
    """Move the pointer and keep a line of it; both are seen when the transaction around it commits."""
    connection.execute(
        query(
            "insert into {s}.pointer (generation) values (%s) "
            "on conflict (only_row) do update set generation = excluded.generation"
        ),
        [new.generation],
    )
    connection.execute(
        query("insert into {s}.switches (generation, day, run_id, report) values (%s, %s, %s, %s)"),
        [new.generation, new.day, run_id, json.dumps(report)],
    )
