"""The serving store: generations of `predictions` in PostgreSQL, and a pointer to the generation that applications see.

A generation is one day of `predictions`, loaded (lake/serving/load.py) into a table of its own. Applications read one
view. The view follows the pointer, a single row that changes in one transaction: a reader's statement sees either the
previous generation or the new one, complete. The reasons are in docs/decisions/0013, the usage in docs/serving.md.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any, LiteralString, Self

from psycopg import sql
from psycopg.rows import class_row, dict_row

from lake.errors import GenerationMissing, ServingRefused
from lake.labels import PROBABILITIES
from lake.serving.layout import require_layout
from lake.serving.store import Store
from lake.settings import Settings

LOADING, READY, DROPPING = "loading", "ready", "dropping"

LOCK_SECONDS = 60  # for another switch


@dataclass(frozen=True)
class Generation:
    """One day of `predictions` in the store.

    Attributes:
        generation: its number; a later load has a higher one.
        state: loading (also after its load was killed), ready, or dropping.
        day: the date T of the predictions.
        model_version: of the model that predicted; None until the generation is ready.
        users: number of rows; None until the generation is ready.
        lake_version: version of the Delta table that the load read.
    """

    generation: int
    state: str
    day: date
    model_version: int | None
    users: int | None
    lake_version: int

    def __str__(self) -> str:
        return f"generation {self.generation} (day {self.day}, model version {self.model_version})"


@dataclass(frozen=True)
class Limits:
    """What a switch may change without force.

    Attributes:
        users: share of users gone, or added.
        moved: share of users with another top category.
        drift: change of the mean probability of a score.
    """

    users: float
    moved: float
    drift: float

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return the limits that the settings name."""
        return cls(settings.serving_max_users, settings.serving_max_moved, settings.serving_max_drift)


# ---- locks ----


def try_to_load(store: Store) -> bool:
    """Take the lock of loads, unless another connection holds it. It ends with the connection."""
    taken = store.execute("select pg_try_advisory_lock(hashtext(%s), 1)", [store.schema])
    return taken.fetchone() == (True,)


def wait_to_load(store: Store, seconds: float) -> None:
    """Take the same lock, and wait while another connection holds it.

    Raises:
        psycopg.errors.LockNotAvailable: it was not free for so many seconds.
    """
    with store.connection.transaction():
        store.execute("select set_config('lock_timeout', %s, true)", [f"{seconds}s"])
        # A lock of the session, not of the transaction: it outlives this block.
        store.execute("select pg_advisory_lock(hashtext(%s), 1)", [store.schema])


@contextmanager
def switching(store: Store) -> Iterator[None]:
    """Run a transaction during which no other one moves the pointer or marks a generation for dropping.

    Raises:
        ServingBusy: (by `connect`) another one takes more than a minute.
    """
    with store.connection.transaction():
        store.execute("select set_config('lock_timeout', %s, true)", [f"{LOCK_SECONDS}s"])
        store.execute("select pg_advisory_xact_lock(hashtext(%s), 2)", [store.schema])
        yield


# ---- generations ----


FIELDS: LiteralString = "g.generation, g.state, g.day, g.model_version, g.users, g.lake_version"


def generations(store: Store) -> list[Generation]:
    """Return every generation, newest load first."""
    with store.connection.cursor(row_factory=class_row(Generation)) as cursor:
        text: LiteralString = "select " + FIELDS + " from {s}.generations g order by generation desc"
        return cursor.execute(store.query(text)).fetchall()


def current(store: Store) -> Generation | None:
    """Return the generation that applications see."""
    with store.connection.cursor(row_factory=class_row(Generation)) as cursor:
        text: LiteralString = "select " + FIELDS + " from {s}.pointer join {s}.generations g using (generation)"
        return cursor.execute(store.query(text)).fetchone()


def rows_set_aside(store: Store) -> dict[int, dict[str, int]]:
    """Return by generation how many rows its load has set aside, by reason; only for generations with such rows."""
    table = store.query("{s}.set_aside").as_string(store.connection)
    if store.execute("select to_regclass(%s)", [table]).fetchone() == (None,):
        return {}  # a store of an earlier version, before its next load
    rows = store.execute("select generation, jsonb_object_agg(reason, rows) from {s}.set_aside group by generation")
    return dict(rows.fetchall())


def switches(store: Store, limit: int) -> list[dict[str, Any]]:
    """Return the last moves of the pointer, newest first; `exceeded` names the limits that a forced one exceeded."""
    with store.connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            store.query(
                "select switched, generation, day, run_id, report->'exceeded' as exceeded from {s}.switches "
                "order by switch desc limit %s"
            ),
            [limit],
        ).fetchall()


def find(
    store: Store,
    day: date | None = None,
    model_version: int | None = None,
    generation: int | None = None,
) -> Generation:
    """Return the ready generation with the given attributes: of the newest day, and of that day the newest load.

    Raises:
        GenerationMissing: there is none.
    """
    ready = [each for each in generations(store) if each.state == READY]
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


def before(store: Store) -> Generation:
    """Return the generation that applications saw before they first saw the current one, if it is still in the store.

    After a rollback it is the one before that, so that a second rollback does not go forward again.

    Raises:
        GenerationMissing: there is none.
    """
    with store.connection.cursor(row_factory=class_row(Generation)) as cursor:
        text: LiteralString = (
            "with first_seen as (select generation, min(switch) as at from {s}.switches group by generation) "
            "select " + FIELDS + " from {s}.generations g join first_seen f using (generation) "
            "where g.state = 'ready' and f.at < (select at from first_seen join {s}.pointer using (generation)) "
            "order by f.at desc limit 1"
        )
        previous = cursor.execute(store.query(text)).fetchone()
    if previous is None:
        raise GenerationMissing(
            "there is nothing to go back to: the serving store has no older generation that applications have seen. "
            "`meander serve status` lists its generations, and `meander serve load --day D` loads a day again"
        )
    return previous


# ---- the effect of a switch ----


def compare(store: Store, old: Generation | None, new: Generation, limits: Limits) -> dict[str, Any]:
    """Return in numbers what would change for readers; `exceeded` lists in words the limits that this exceeds."""
    report: dict[str, Any] = {"from": summary(old), "to": summary(new), "exceeded": []}
    if old is None:
        return report
    drifts = sql.SQL(", ").join(
        sql.SQL("avg(a.{0}) - avg(b.{0})").format(sql.Identifier(score)) for score in PROBABILITIES
    )
    row = store.execute(
        """
select count(*) filter (where b.user_id is null), count(*) filter (where a.user_id is null),
    count(*) filter (where a.category_ids[1] is distinct from b.category_ids[1]
        and a.user_id is not null and b.user_id is not null),
    {drifts}
from (select * from {s}.prediction_rows where generation = %s) b
full join (select * from {s}.prediction_rows where generation = %s) a using (user_id)
""",
        [old.generation, new.generation],
        drifts=drifts,
    ).fetchone()
    added, gone, moved, *drift = row or ()
    users = old.users or 0
    moved_share = "share_with_another_top_category"
    report |= {
        "users_added": added,
        "users_gone": gone,
        "share_added": added / max(users, 1),
        "share_gone": gone / max(users, 1),
        moved_share: moved / max(users - gone, 1),
        "drift": {score: change or 0.0 for score, change in zip(PROBABILITIES, drift, strict=True)},
    }
    measured = [
        ("share_gone", report["share_gone"], "serving_max_users", limits.users),
        ("share_added", report["share_added"], "serving_max_users", limits.users),
        (moved_share, report[moved_share], "serving_max_moved", limits.moved),
        *(
            (f"mean {score} changes by", change, "serving_max_drift", limits.drift)
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
    store: Store, day: date, run_id: str, limits: Limits, *, force: bool = False, if_newer: bool = False
) -> dict[str, Any]:
    """Let applications see the newest load of a day.

    Args:
        store: open.
        day: a loaded day.
        run_id: recorded with the switch.
        limits: that the change has to respect.
        force: switch even if the change exceeds the limits.
        if_newer: switch only when no later day has been served yet, and this load was not replaced before: then a
            backfill or a repeated run does not undo the switch of a person or of a later day.

    Returns:
        `outcome` (switched, already or kept), `why`, and, if the generations were compared, the report of `compare`.

    Raises:
        GenerationMissing: the day is not loaded.
        ServingRefused: more changes than the limits allow.
    """
    require_layout(store)
    with switching(store):
        old, new = current(store), find(store, day)
        if new == old:
            return {"outcome": "already", "why": f"{new} is current"}
        if if_newer and (reason := why_not_newer(store, new)):
            return {"outcome": "kept", "why": f"{old} stays current: {reason}"}
        report = compare(store, old, new, limits)
        if report["exceeded"] and not force:
            raise ServingRefused(
                f"{new} would change more than is allowed: {'; '.join(report['exceeded'])}. {old} stays current. "
                f"Check `meander serve diff --day {day}`, then run `meander serve switch --day {day} --force` if the "
                "change is right"
            )
        point_to(store, new, run_id, report)
    return {"outcome": "switched", "why": f"{new} is current, in the place of {old or 'nothing'}", "report": report}


def why_not_newer(store: Store, new: Generation) -> str:
    """Return why a generation must not replace the current one by itself; empty when it may."""
    latest, switches_to_it = store.execute(
        "select max(day), count(*) filter (where generation = %s) from {s}.switches", [new.generation]
    ).fetchone() or (None, 0)
    if switches_to_it:
        return f"{new} was current before and has been replaced"
    if latest and new.day < latest:
        return f"{new} is older than day {latest}, which has been served"
    return ""


def rollback(
    store: Store,
    run_id: str,
    limits: Limits,
    day: date | None = None,
    model_version: int | None = None,
    generation: int | None = None,
) -> dict[str, Any]:
    """Let applications see an older generation again: the previous one, or the newest with the given attributes.

    The limits are compared for the record only. Calls with the same `run_id` go back once.

    Returns:
        as `switch`.

    Raises:
        GenerationMissing: there is nothing to go back to.
    """
    require_layout(store)
    with switching(store):
        old = current(store)
        if store.execute("select 1 from {s}.switches where run_id = %s limit 1", [run_id]).fetchone():
            return {"outcome": "already", "why": f"run {run_id} has switched before; {old} is current"}
        given = day or model_version or generation
        new = find(store, day, model_version, generation) if given else before(store)
        if new == old:
            return {"outcome": "already", "why": f"{new} is current"}
        report = compare(store, old, new, limits)
        point_to(store, new, run_id, report)
    return {"outcome": "switched", "why": f"{new} is current, in the place of {old or 'nothing'}", "report": report}


def point_to(store: Store, new: Generation, run_id: str, report: dict[str, Any]) -> None:
    """Move the pointer and record the switch; both become visible when the enclosing transaction commits."""
    store.execute(
        "insert into {s}.pointer (generation) values (%s) "
        "on conflict (only_row) do update set generation = excluded.generation",
        [new.generation],
    )
    store.execute(
        "insert into {s}.switches (generation, day, run_id, report) values (%s, %s, %s, %s)",
        [new.generation, new.day, run_id, json.dumps(report)],
    )
