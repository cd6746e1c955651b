"""A forgotten user is in no generation of the serving store any more; applications see all others as before."""

from lake.serving.forget import forget_users
from tests.lake.predicted import DAY_1, DAY_2, publish_users
from tests.lake.served import load, opened, switch


def users(serving, generation: int) -> list[str]:
    rows = serving.execute(f"select user_id from meander.prediction_rows_{generation} order by 1")
    return [user for (user,) in rows]


def test_all_generations_lose_the_user_and_count_who_is_left(serving):
    for day in (DAY_1, DAY_2):
        publish_users(day, "ann", "bob", "cem")
        load(day, f"r{day}")
    with opened() as store:
        switch(store, DAY_1, "s")
        assert forget_users(store, ["ann", "nobody"]) == {1: 1, 2: 1}
    assert users(serving, 1) == users(serving, 2) == ["bob", "cem"]
    assert serving.execute("select users from meander.generations").fetchall() == [(2,), (2,)]
    assert serving.execute("select count(*) from meander.predictions").fetchone() == (2,)
    with opened() as store:
        assert forget_users(store, ["ann"]) == {}, "and again there is nothing to do"


def test_what_a_killed_load_has_left_is_looked_through_as_well(serving):
    publish_users(DAY_1, "ann", "bob")
    load(DAY_1, "r")
    # As a load leaves them that is killed after its copy: rows in a table of their own, of a generation without users.
    serving.execute("update meander.generations set state = 'loading', users = null")
    serving.execute("alter table meander.prediction_rows detach partition meander.prediction_rows_1")
    with opened() as store:
        assert forget_users(store, ["ann"]) == {1: 1}
    assert users(serving, 1) == ["bob"]
    assert serving.execute("select users from meander.generations").fetchall() == [(None,)]


def test_a_store_that_was_never_loaded_has_nobody(serving):
    with opened() as store:
        assert forget_users(store, ["ann"]) == {}
