"""The roles that `meander serve grants` makes may do what they must, and nothing else."""

from contextlib import suppress

import psycopg
import pytest
from psycopg import sql

from lake.errors import ServingUnavailable
from lake.serving.layout import grants
from lake.serving.load import prune
from lake.serving.pointer import try_to_load
from tests.lake.predicted import DAY_1, DAY_2, publish_users
from tests.lake.served import load, opened, rollback, switch


@pytest.fixture
def roles(serving, postgres, monkeypatch):
    """Run the printed SQL as the administrator, give passwords, and let ours be the writer; return the reader."""
    writer, reader = (f"{kind} of {serving.info.dbname}" for kind in ("writer", "reader"))
    serving.execute(grants("meander", writer, reader))
    for role in (writer, reader):
        serving.execute(sql.SQL("alter role {} password 'secret'").format(sql.Identifier(role)))
    address = postgres.url(writer.replace(" ", "%20"), "secret", serving.info.dbname)
    monkeypatch.setenv("MEANDER_SERVING_URL", address)
    with psycopg.connect(
        postgres.url(reader.replace(" ", "%20"), "secret", serving.info.dbname), autocommit=True
    ) as connection:
        yield connection
    for role in (writer, reader):
        for text in ("drop owned by {} cascade", "drop role {}"):
            serving.execute(sql.SQL(text).format(sql.Identifier(role)))


def test_the_writer_may_do_all_that_serving_needs(roles, monkeypatch):
    monkeypatch.setenv("MEANDER_SERVING_KEEP", "1")
    for day in (DAY_1, DAY_2):
        publish_users(day, "ann")
        load(day, "r")
        with opened() as store:
            assert switch(store, day, "r")["outcome"] == "switched"
    with opened() as store:
        assert rollback(store, "back")["outcome"] == "switched"
        assert try_to_load(store)
        assert prune(store, keep=1) == []
    assert roles.execute("select user_id, dt from meander.predictions").fetchall() == [("ann", DAY_1)]
    assert roles.execute("select day, users from meander.served").fetchall() == [(DAY_1, 1)]


REFUSED = (
    "select * from meander.prediction_rows",
    "select * from meander.prediction_rows_1",
    "select * from meander.generations",
    "update meander.pointer set generation = 1",
    "delete from meander.predictions",
    "create table meander.mine (n int)",
)


def test_the_reader_sees_the_views_and_nothing_else_and_is_told_what_a_writer_needs(roles, monkeypatch):
    publish_users(DAY_1, "ann")
    load(DAY_1, "r")
    allowed = []
    for wanted in REFUSED:
        with suppress(psycopg.errors.InsufficientPrivilege):
            roles.execute(wanted)
            allowed.append(wanted)
    assert allowed == []
    for view in ("predictions", "served"):
        roles.execute(f"select * from meander.{view}")
    reader = f"reader%20of%20{roles.info.dbname}"
    monkeypatch.setenv(
        "MEANDER_SERVING_URL", f"postgresql://{reader}:secret@127.0.0.1:{roles.info.port}/{roles.info.dbname}"
    )
    with pytest.raises(ServingUnavailable, match=r"does not allow this .*meander serve grants"):
        load(DAY_1, "r")
