"""`meander forget` on a lake that the jobs have filled: no byte of a user is left, and nobody else loses a row."""

import json
from datetime import date
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dags.cli.forget import Names, copies, ids, local_files, local_logs, needed_for_the_store, places_of
from dags.cli.main import app
from jobs import ingest
from lake.errors import ForgetIncomplete, SettingsInvalid, TableMissing
from lake.privacy.forgotten import list_users
from lake.privacy.matching import NamedUsers
from lake.pseudonyms import IdentityMap, Key, pseudonym
from lake.publish import publish
from lake.serving.store import open_store
from lake.settings import settings
from lake.table import Table
from tests.lake.predicted import DAY_1, prediction, publish_rows, publish_users
from tests.lake.privacy.test_forget import found_in
from tests.lake.published import rows as rows_seen
from tests.lake.served import load, switch
from tests.lake.stagings import audit as audited
from tests.lake.stagings import stage_files

DAYS = [date(2025, 1, 1), date(2025, 1, 2)]
TABLES = ("events", "quarantine", "sessions", "interests", "predictions")
# As in the test of the lake, which has the spellings of it.
ANN = "ann<ÿ>73194517qz"


def meander(*arguments: str) -> str:
    """Run a command, and return what it prints."""
    shown = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert shown.exit_code == 0, shown.output
    return shown.stdout


def row(user: str, day: date, hour: int, **more: str) -> dict:
    return {"user_id": user, "event_time": f"{day}T{hour:02}:00:00Z", "behavior": "view", "item_id": f"i{hour}",
            "category_id": "tea", **more}  # fmt: skip


@pytest.mark.spark
def test_a_user_of_two_days_is_forgotten_and_does_not_come_back(spark, land, serving, lake, monkeypatch):
    # Of so few rows, the rejected ones are many.
    monkeypatch.setenv("MEANDER_MAX_REJECTED_SHARE", "1")
    for day in DAYS:
        rows = [row(user, day, hour) for user in (ANN, "bob", "cem") for hour in (9, 12)]
        rows += [row(user, day, 13, behavior="search", query=f"orders of {user}") for user in (ANN, "bob")]
        # Rejected: an unknown behavior, and a row that is cut off.
        rows += [row(user, day, 14, behavior="dance") for user in (ANN, "bob")]
        land(day, [*rows, json.dumps(row(ANN, day, 15))[:40], '{"user_id": "bo'])
    both = ["--from", f"{DAYS[0]}", "--to", f"{DAYS[1]}"]
    meander("daily", *both, "--chunk-days", "2")
    publish_rows([prediction(user, DAYS[1]) for user in (ANN, "bob", "cem")], DAYS[1])
    load(DAYS[1], "r")
    with open_store(settings()) as store:
        switch(store, DAYS[1], "r")
    before = {table: [one for one in rows_seen(table) if "73194517qz" not in one] for table in TABLES}
    bases = {table: Table(table).basis(DAYS[1]) for table in TABLES}
    assert {name.split("/")[0] for name in found_in(lake / "lake")} >= {*TABLES}

    (lake / "users.txt").write_text(f"{ANN}\n\nsomebody else\n")
    receipt = json.loads(meander("forget", "--file", str(lake / "users.txt"), "--json"))
    assert receipt["users"] == 2
    assert list(found_in(lake / "lake")) == []
    assert {table: rows_seen(table) for table in TABLES} == before
    assert {table: Table(table).basis(DAYS[1]) for table in TABLES} == bases
    assert serving.execute("select user_id from meander.predictions order by 1").fetchall() == [("bob",), ("cem",)]
    done = {each["where"]: each["rows"] for each in receipt["done"]}
    # On each day two views and a search; a rejected row and one that is cut off; a session of all.
    assert {name: done[name] for name in TABLES} == {
        "events": 6, "quarantine": 4, "sessions": 6, "interests": 2, "predictions": 1
    }  # fmt: skip
    assert [left["by"] for left in receipt["left"] if "landing" in left["what"]] == ["the shop"] * 2

    # The same files are read again: all rows are accounted for, by an audit too, and the tables stay as they are.
    meander("daily", *both, "--chunk-days", "2")
    assert {table: rows_seen(table) for table in TABLES if table != "quarantine"} == {
        table: before[table] for table in TABLES if table != "quarantine"
    }

    def outcomes() -> list[tuple[int, ...]]:
        names = ("input", "events", "quarantined", "forgotten")
        runs = json.loads(meander("days", "--json"))
        return [tuple(run[name] for name in names) for run in runs if run["input"] is not None]

    # The first run is told of as it was.
    assert outcomes() == [(24, 16, 8, 0), (24, 10, 4, 10)]
    assert list(found_in(lake / "lake")) == []

    shown = meander("forget", ANN, "--rewrite-landing")
    assert "1 users forgotten; receipt forget-" in shown
    assert list(found_in(lake)) == [str(Path("users.txt"))]

    # Of the rows that readers saw, none is lost but theirs: so the files are loaded again without a flag.
    for staged in ingest.main([*both, "--run-id", "without"]):
        audited(staged)
        publish(staged.table, "without")
    assert outcomes()[-1] == (14, 10, 4, 0)


@pytest.mark.spark
def test_with_pseudonyms_a_user_is_given_by_the_shops_own_id_and_leaves_the_map_too(spark, land, lake, monkeypatch):
    key, day = Key.of_bytes(bytes(range(7, 39))), DAYS[0]
    monkeypatch.setenv("MEANDER_PSEUDONYM_KEY", key.secret.hex())
    monkeypatch.setenv("MEANDER_IDENTITY_MAP", str(lake / "whose"))
    ann, bob = (pseudonym(user, key) for user in (ANN, "bob"))
    identities = IdentityMap(str(lake / "whose"))

    def delivered(run_id: str) -> list[str]:
        for staged in ingest.main(["--day", str(day), "--run-id", run_id]):
            audited(staged)
            publish(staged.table, run_id)
        return [one["user_id"] for one in Table("events").head(day, 9)]

    land(day, [row(user, day, 9) for user in (ANN, "bob")])
    assert sorted(delivered("first")) == sorted([ann, bob])
    receipt = json.loads(meander("forget", ANN, "--json"))
    done = {each["where"]: (each["files"], each["rows"]) for each in receipt["done"]}
    assert (done["events"], done["identity map"]) == ((1, 1), (1, 0))
    # The landing has no pseudonyms: it was searched for the id of the shop.
    assert [left["by"] for left in receipt["left"] if "has 1 rows of theirs" in left["what"]] == ["the shop"]
    assert delivered("again") == [bob]
    assert [identities.user_of(each) for each in (ann, bob)] == [None, "bob"]
    kept = [path for path in lake.rglob("*") if path.is_file() and "landing" not in str(path)]
    assert [path for path in kept if ann.encode() in path.read_bytes()] == []

    # By a pseudonym the map says whose it is, as long as it has it.
    receipt = json.loads(meander("forget", bob, "--json"))
    assert identities.user_of(bob) is None
    assert [left["by"] for left in receipt["left"] if "has 1 rows of theirs" in left["what"]] == ["the shop"]
    # Of a pseudonym that nobody can resolve, no row of the landing is taken for theirs.
    monkeypatch.delenv("MEANDER_IDENTITY_MAP")
    files = {path: path.read_bytes() for path in Path(settings().landing).rglob("*") if path.is_file()}
    receipt = json.loads(meander("forget", pseudonym("cem", key), "--rewrite-landing", "--json"))
    assert any("was not searched for 1 users" in left["what"] for left in receipt["left"])
    assert {path: path.read_bytes() for path in files} == files


@pytest.mark.parametrize(
    ("user", "file", "message"),
    [
        pytest.param(None, None, "needs one USER, or --file", id="nothing"),
        pytest.param("ann", "users.txt", "needs one USER, or --file", id="both"),
        pytest.param(" ", None, "received an empty one", id="a blank"),
        pytest.param("a\0b", None, "received one of 3 characters that no event can have", id="no id"),
        pytest.param(None, "gone.txt", "gone.txt cannot be read: FileNotFoundError", id="no file"),
        pytest.param(None, "empty.txt", "empty.txt has no ids; write one in each line", id="no line"),
        pytest.param(None, "latin.txt", "latin.txt cannot be read: UnicodeDecodeError", id="another encoding"),
    ],
)
def test_what_is_no_user_is_told(tmp_path, user, file, message):
    (tmp_path / "users.txt").write_text("ann\n")
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "latin.txt").write_bytes("ÿ".encode("latin-1"))
    with pytest.raises(SettingsInvalid, match=message):
        ids(user, tmp_path / file if file else None)


def test_who_may_not_write_to_the_lake_forgets_in_the_serving_store_alone(serving, lake, monkeypatch):
    publish_users(DAY_1, "ann", "bob")
    load(DAY_1, "r")

    def files() -> dict[Path, tuple[int, int]]:
        return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in lake.rglob("*") if path.is_file()}

    before = files()
    said = json.loads(meander("forget", "ann", "--only-store", "--json"))
    assert [(done["where"], done["rows"]) for done in said["done"]] == [("serving store, generation 1", 1)]
    assert serving.execute("select user_id from meander.prediction_rows_1").fetchall() == [("bob",)]
    # Nobody on the list: who loads the next day would bring her back.
    left = [one["what"] for one in said["left"]]
    assert len(left) == 2
    assert left[1].startswith("the lake, for 1 users: until `meander forget` has run there")
    assert files() == before
    list_users(["ann"])
    said = json.loads(meander("forget", "ann", "--only-store", "--json"))
    assert [one["what"][:10] for one in said["left"]] == ["PostgreSQL"]
    monkeypatch.delenv("MEANDER_SERVING_URL")
    with pytest.raises(SettingsInvalid, match="--only-store needs the serving store"):
        meander("forget", "ann", "--only-store")
    with pytest.raises(SettingsInvalid, match="takes no --rewrite-landing"):
        meander("forget", "ann", "--only-store", "--rewrite-landing")


def test_each_line_of_a_file_is_a_user_once(tmp_path):
    (tmp_path / "users.txt").write_text("bob\n ann \r\nbob\n\n")
    assert ids(None, tmp_path / "users.txt") == ["ann", "bob"]


def test_the_logs_and_copies_of_this_machine_are_looked_at(tmp_path, monkeypatch):
    """`make up` and `make federated` write them beside the lake."""
    home = tmp_path / "home"
    monkeypatch.setenv("MEANDER_HOME", str(home))
    monkeypatch.delenv("AIRFLOW_HOME", raising=False)
    assert (local_logs(), local_files(), copies()) == ([], [], [])
    for name in (
        "airflow/logs/x.log",
        "airflow/airflow.db",
        "spark.log",
        "steps.log",
        "airflow/airflow.db-wal",
        "mlflow.db",
        "mlflow.db-wal",
        "federated/a",
        "tmp/a",
    ):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).touch()
    assert local_logs() == [f"{home}/airflow/logs"]
    assert local_files() == [
        f"{home}/{name}"
        for name in (
            "airflow/airflow.db",
            "airflow/airflow.db-wal",
            "mlflow.db",
            "mlflow.db-wal",
            "spark.log",
            "steps.log",
        )
    ]
    assert [left.what for left in copies()] == [
        f"{home}/federated has copies of rows, made by `make federated`: remove the folder",
        f"{home}/tmp is what Spark keeps while it runs, and may have rows: it goes with `make down`, or remove it then",
    ]
    (tmp_path / "other" / "logs").mkdir(parents=True)
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path / "other"))
    assert local_logs() == [f"{tmp_path}/other/logs", f"{home}/airflow/logs"]
    # As `make up` sets it, from the folder of the checkout.
    monkeypatch.chdir(home)
    monkeypatch.setenv("AIRFLOW_HOME", "airflow")
    assert local_logs() == [f"{home}/airflow/logs"]


def test_identities_are_the_last_to_go_so_that_a_store_that_is_down_keeps_a_forget_repeatable(lake, monkeypatch):
    """By the shop's own id, and without the key, only the map says who is meant."""
    gone = []
    monkeypatch.setattr("dags.cli.forget.forget_identities", lambda *_: gone.append("identities") or ([], []))
    monkeypatch.setattr("lake.serving.forget.forget_in_store", lambda *_: gone.append("store") or ([], []))
    monkeypatch.setenv("MEANDER_SERVING_URL", "postgresql://nobody@localhost/none")
    (lake / "landing").mkdir()
    where = places_of(settings(), [Names("9c3f01aa-x", "ann")], rewrite_landing=False)
    for place in where.elsewhere:
        place(NamedUsers(frozenset({"9c3f01aa-x"})))
    assert gone == ["store"]
    where.at_last(NamedUsers(frozenset({"9c3f01aa-x"})))
    assert gone == ["store", "identities"]


def test_a_forget_that_could_not_read_a_file_ends_with_an_error_that_names_it_and_the_next_one_with_none(lake):
    publish_rows([prediction(user, DAY_1) for user in (ANN, "bob")], DAY_1)
    (file,) = Table("predictions").files
    place = lake / "lake" / "predictions" / file.path
    content = place.read_bytes()
    place.write_bytes(content[:-1])
    for options in ([], ["--json"]):
        shown = CliRunner().invoke(app, ["forget", ANN, *options])
        assert isinstance(shown.exception, ForgetIncomplete)
        assert f"found 1 that cannot: {file.path} of predictions. All others are" in str(shown.exception)
        assert "users forgotten" not in shown.stdout
    receipt = json.loads(shown.stdout)
    assert (receipt["finished"], receipt["unread"][0]["day"]) == ("", str(DAY_1))
    place.write_bytes(content)
    assert "1 users forgotten" in meander("forget", ANN)
    assert [row["user_id"] for row in Table("predictions").head(DAY_1, 9)] == ["bob"]


def test_a_log_that_cannot_be_read_ends_no_forget_as_long_as_another_table_says_how_users_are_named(lake):
    publish_rows([prediction(user, DAY_1) for user in (ANN, "bob")], DAY_1)
    one = {"event_id": "e", "user_id": ANN, "behavior": "view", "copies": 1, "dt": DAY_1, "landed": DAY_1}
    stage_files("events", "r", [one], [DAY_1], None)
    publish("events", "r")
    logs = {name: max((lake / "lake" / name / "_delta_log").glob("*.json")) for name in ("events", "predictions")}
    content = logs["events"].read_bytes()
    logs["events"].write_bytes(content[:50])
    shown = CliRunner().invoke(app, ["forget", ANN])
    assert isinstance(shown.exception, ForgetIncomplete)
    assert "found 1 that cannot: _delta_log of events. All others are" in str(shown.exception)
    assert [row["user_id"] for row in Table("predictions").head(DAY_1, 9)] == ["bob"]
    # Of no table at all, nobody knows whether the id that was given is the one that events have.
    logs["predictions"].write_bytes(logs["predictions"].read_bytes()[:50])
    with pytest.raises(TableMissing, match=r"has pseudonyms: the logs of events \(DeltaError\), predictions \(Delta"):
        meander("forget", ANN)
    logs["events"].write_bytes(content)
    assert "left to do" in CliRunner().invoke(app, ["forget", ANN]).stdout
    assert [row["user_id"] for row in Table("events").head(DAY_1, 9)] == []


def test_how_events_name_a_user_is_told_where_nobody_can_say_it_afterwards(lake, monkeypatch):
    given, users = ["ann", "9c3f01aa-y"], [Names("9c3f01aa-x", "ann"), Names("9c3f01aa-y", None)]
    assert needed_for_the_store(given, users, settings()) == ["9c3f01aa-x"]
    with monkeypatch.context() as patch:
        patch.setenv("MEANDER_PSEUDONYM_KEY", bytes(range(32)).hex())
        assert needed_for_the_store(given, users, settings()) == [], "the key says it"
    monkeypatch.setenv("MEANDER_SERVING_URL", "postgresql://nobody@localhost/none")
    assert needed_for_the_store(given, users, settings()) == [], "this command does it"
