"""A lake that is filled again under another key by the real jobs and audits; test_pseudonyms.py has what is refused."""

from datetime import date

import pytest
from typer.testing import CliRunner

from dags.cli.main import app
from lake.places import table_path
from lake.pseudonyms import Key, pseudonym
from lake.table import Table

pytestmark = pytest.mark.spark

OLD, NEW = Key.of_bytes(bytes(range(32))), Key.of_bytes(bytes(range(1, 33)))
FIRST, LAST = date(2025, 1, 1), date(2025, 1, 2)


def run(*arguments):
    done = CliRunner().invoke(app, [*arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def contents(key):
    """Return who has how many rows on which day of each table, by the shop's ids, and check that all are pseudonyms."""
    names = {pseudonym(user, key): user for user in ("ann", "bob")}
    tables = {}
    for name in ("events", "sessions", "interests"):
        table = Table(name)
        assert table.key_id == key.id
        day = "landed" if name == "events" else "dt"
        rows = [row for each in table.rows_by(day) for row in table.head(each, 100)]
        tables[name] = sorted((str(row[day]), names[row["user_id"]]) for row in rows)
    return tables


def test_a_new_lake_has_the_rows_of_the_old_one_by_the_new_key(spark, lake, land, monkeypatch):
    view = {"behavior": "view", "item_id": "i", "category_id": "c"}
    land(FIRST, [{**view, "user_id": user, "event_time": f"{FIRST}T10:00:00Z"} for user in ("ann", "bob", "ann")])
    land(LAST, [{**view, "user_id": "bob", "event_time": f"{LAST}T10:00:00Z"}])
    monkeypatch.setenv("MEANDER_PSEUDONYM_KEY", OLD.secret.hex())
    run("daily", "--from", str(FIRST), "--to", str(LAST))
    before, version = contents(OLD), Table("events").version
    assert before["events"] == [(str(FIRST), "ann"), (str(FIRST), "bob"), (str(LAST), "bob")]

    monkeypatch.setenv("MEANDER_PSEUDONYM_KEY", NEW.secret.hex())
    into = str(lake / "anew")
    assert "as many rows" in run("rekey", "--into", into)

    assert (contents(OLD), Table("events").version) == (before, version), "the lake as it is does not change"
    monkeypatch.setenv("MEANDER_LAKE", into)
    assert table_path("events") == f"{into}/events"
    assert contents(NEW) == before
