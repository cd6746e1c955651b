"""Forget users in the serving store: their rows in every generation, also in those that applications do not see."""

from collections.abc import Collection

from lake.privacy.forget import Done, Left
from lake.serving.layout import columns_in_store
from lake.serving.load import wait_for_turn
from lake.serving.pointer import switching
from lake.serving.store import Store, open_store
from lake.settings import Settings


def forget_users(store: Store, users: Collection[str]) -> dict[int, int]:
    """Delete the rows of some users from all generations, and return how many by generation, of those that had some.

    It waits for a load that is in progress: one that begins later reads the lake without them. What a killed load has
    left is dropped by the next one, and has their rows until then, so they are deleted there too.

    Raises:
        ServingBusy: a load, or a switch, takes longer than each of them waits for another.
        ServingUnavailable, ServingRefused: as `lake.serving.postgres.connect`.
    """
    if not columns_in_store(store):
        return {}
    wait_for_turn(store)
    deleted = {}
    numbers = [number for (number,) in store.execute("select generation from {s}.generations order by generation")]
    for number in numbers:
        table = store.rows_table(number)
        there = store.execute("select to_regclass(%s)", [table.as_string(store.connection)]).fetchone()
        if there == (None,):
            continue
        # A switch compares the users of generations: it sees rows and their number before, or after.
        with switching(store):
            rows = store.execute("delete from {table} where user_id = any(%s)", [list(users)], table=table).rowcount
            store.execute(
                "update {s}.generations set users = users - %s where generation = %s and users is not null",
                [rows, number],
            )
        if rows:
            deleted[number] = rows
            # Deleted rows stay in the pages of a table until it is vacuumed. It takes no lock that a reader waits for.
            store.execute("vacuum {table}", table=table)
    return deleted


def forget_in_store(config: Settings, users: Collection[str]) -> tuple[list[Done], list[Left]]:
    """Forget some users in the store of the settings; return what was done and what is left."""
    with open_store(config) as store:
        deleted = forget_users(store, users)
    done = [Done(f"serving store, generation {number}", rows=rows) for number, rows in deleted.items()]
    left = Left("PostgreSQL's write-ahead log, replicas and backups of the serving store", "whoever runs the database")
    return done or [Done("serving store")], [left]
