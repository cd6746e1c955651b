"""Whose a pseudonym is, rows of a user by either id, and a lake that is filled again under another key."""

from datetime import date

import pytest
from typer.testing import CliRunner

from dags.cli.main import app
from dags.cli.pseudonyms import compare, spans
from lake.errors import IdentityUnknown, LandingMissing, SettingsInvalid
from lake.places import table_path
from lake.pseudonyms import Key, pseudonym
from lake.publish import publish
from lake.table import Table
from tests.lake.stagings import JAN_1, JAN_2, JAN_3, stage_files

OLD, NEW = Key.of_bytes(bytes(range(32))), Key.of_bytes(bytes(range(1, 33)))


def run(*arguments):
    """Run a command as a person does; return what it printed."""
    done = CliRunner().invoke(app, [*arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def publish_days(table, key_id, rows, days):
    stage_files(table, f"of {table}", rows, days, None, key_id=key_id)
    publish(table, f"of {table}")


@pytest.fixture
def keyed(lake):
    """Publish two days of two users, by pseudonyms of the old key."""
    ann, bob = pseudonym("ann", OLD), pseudonym("bob", OLD)
    for table in ("events", "sessions", "interests"):
        rows = [{"user_id": user, "dt": day, "landed": day} for user in (bob, ann, bob) for day in (JAN_1, JAN_2)]
        publish_days(table, OLD.id, rows, [JAN_1, JAN_2, JAN_3])
    publish_days("quarantine", OLD.id, [], [JAN_1, JAN_2, JAN_3])
    return lake


def test_an_identity_is_told_to_those_with_the_key_or_the_map(keyed, monkeypatch):
    ann = pseudonym("ann", OLD)
    with pytest.raises(IdentityUnknown):
        run("identity", "ann")
    with pytest.raises(IdentityUnknown):
        run("identity", ann)
    monkeypatch.setenv("MEANDER_PSEUDONYM_KEY", OLD.secret.hex())
    assert run("identity", "ann").strip() == ann
    with pytest.raises(IdentityUnknown, match="one-way"):
        run("identity", ann)


def test_a_lake_without_pseudonyms_has_nothing_to_resolve(lake):
    assert "nothing to resolve" in run("identity", "ann")


def test_rows_of_a_user_are_shown_by_pseudonym_and_by_the_shops_id(keyed, monkeypatch):
    ann, bob = pseudonym("ann", OLD), pseudonym("bob", OLD)
    shown = run("show", "sessions", "--user", ann)
    assert (shown.count(ann), shown.count(bob)) == (1, 0)
    with pytest.raises(IdentityUnknown):
        run("show", "sessions", "--user", "bob")
    monkeypatch.setenv("MEANDER_PSEUDONYM_KEY", OLD.secret.hex())
    shown = run("show", "sessions", "--user", "bob", "--day", "2025-01-01")
    assert (shown.count(ann), shown.count(bob)) == (0, 2)
    assert run("show", "sessions", "--user", "bob", "--limit", "1").count(bob) == 1
    with pytest.raises(SettingsInvalid, match="quarantine has no column user_id"):
        run("show", "quarantine", "--user", "bob")


def test_staged_rows_of_a_user_are_shown_by_pseudonym_and_by_the_shops_id(keyed, monkeypatch):
    rows = [{"user_id": pseudonym(user, OLD), "dt": JAN_1, "landed": JAN_1} for user in ("ann", "bob")]
    stage_files("events", "bad", rows, [JAN_1], None, audited="failed", key_id=OLD.id)
    ann, bob = pseudonym("ann", OLD), pseudonym("bob", OLD)
    with pytest.raises(IdentityUnknown):
        run("show", "events", "--run", "bad", "--user", "ann")
    shown = run("show", "events", "--run", "bad", "--user", ann)
    assert (shown.count(ann), shown.count(bob)) == (1, 0)
    monkeypatch.setenv("MEANDER_PSEUDONYM_KEY", OLD.secret.hex())
    shown = run("show", "events", "--run", "bad", "--user", "bob")
    assert (shown.count(ann), shown.count(bob)) == (0, 1)


@pytest.fixture
def landed(keyed):
    for day in (JAN_1, JAN_2, JAN_3):
        (keyed / "landing" / f"dt={day}").mkdir(parents=True)
    return keyed


def test_a_new_lake_gets_each_landing_day_under_the_new_key_and_the_old_one_stays(landed, monkeypatch):
    """What loads the days is `meander daily`, which has tests of its own; here it is stood in for."""
    asked, lost = [], []

    def daily(first, last, chunk_days):
        asked.append((first.date(), last.date(), chunk_days, table_path("events")))
        days = [day for day in (JAN_1, JAN_2, JAN_3) if first.date() <= day <= last.date()]
        for table in ("quarantine", "events", "sessions", "interests"):
            rows = [
                {"user_id": pseudonym(user, NEW), "dt": day, "landed": day}
                for user in ("bob", "ann", "bob")
                for day in days
                if day != JAN_3 and (table, day) not in lost
            ]
            publish_days(table, NEW.id, rows if table != "quarantine" else [], days)

    monkeypatch.setattr("dags.cli.main.daily", daily)
    monkeypatch.setenv("MEANDER_PSEUDONYM_KEY", NEW.secret.hex())
    into = str(landed / "anew")
    assert "as many rows" in run("rekey", "--into", into, "--chunk-days", "7")
    # The empty day too: that it is empty is known.
    assert asked == [(JAN_1, JAN_3, 7, f"{into}/events")]
    assert table_path("events") == f"{landed}/lake/events"
    assert Table("events").key_id == OLD.id
    assert Table("events").version == 1
    # Again: there is nothing left to do.
    run("rekey", "--into", into)
    assert len(asked) == 1

    lost.append(("sessions", JAN_2))
    done = CliRunner().invoke(app, ["rekey", "--into", str(landed / "other")])
    assert done.exit_code == 1
    assert "sessions" in done.stdout
    assert "2025-01-02" in done.stdout
    assert "2025-01-01" not in done.stdout


def test_what_cannot_be_filled_again_is_told_before_anything_is_loaded(landed, monkeypatch):
    monkeypatch.setattr("dags.cli.main.daily", lambda *_: pytest.fail("it began"))
    monkeypatch.setenv("MEANDER_PSEUDONYM_KEY", OLD.secret.hex())
    with pytest.raises(SettingsInvalid, match=f"has pseudonyms by key {OLD.id} already"):
        run("rekey", "--into", str(landed / "anew"))
    monkeypatch.setenv("MEANDER_PSEUDONYM_KEY", NEW.secret.hex())
    with pytest.raises(SettingsInvalid, match="MEANDER_LAKE itself"):
        run("rekey", "--into", f"{landed}/lake/")
    (landed / "landing" / "dt=2025-01-02").rmdir()
    with pytest.raises(LandingMissing, match="2025-01-02"):
        run("rekey", "--into", str(landed / "anew"))


def test_days_are_loaded_span_by_span():
    first, second, fourth = (date(2025, 1, n) for n in (1, 2, 4))
    assert spans([]) == []
    assert spans([first, second, fourth]) == [(first, second), (fourth, fourth)]


def test_only_what_is_missing_or_too_much_is_a_difference():
    before = {"events": {JAN_1: 2, JAN_2: 3}, "interests": {JAN_2: 1}}
    anew = {"events": {JAN_1: 2, JAN_2: 4}, "interests": {JAN_1: 1, JAN_2: 1}, "sessions": {JAN_1: 1}}
    assert [(each.table, each.day) for each in compare(before, anew)] == [("events", JAN_2)]
