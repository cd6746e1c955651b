"""What applications see: one generation, whole; which one it is, who may change that, and what is refused."""

import json
from datetime import date

import psycopg
import pytest

from lake import serving_load
from lake.errors import (
    GenerationMissing,
    ServingBusy,
    ServingRefused,
    ServingUnavailable,
    SettingsInvalid,
    TableMissing,
)
from lake.postgres import connect
from lake.serving import compare, current, find, generations, rollback, switch, switches, try_to_load
from lake.serving_layout import COLUMNS
from lake.serving_load import load, prune
from lake.table import Table
from tests.lake.predicted import DAY_1, DAY_2, DAY_3, prediction, publish_rows, publish_users
from tests.postgres import PASSWORD

TEN = [f"u{n}" for n in range(10)]


def seen(reader: psycopg.Connection) -> list[tuple]:
    """Return (user, day, model version) of every row that applications see."""
    return reader.execute("select user_id, dt, model_version from meander.predictions order by 1").fetchall()


def serve(day: date, run_id: str = "r", **more) -> str:
    """Load a day, switch to it, and return how that ended."""
    load(day, run_id)
    with connect() as connection:
        return str(switch(connection, day, run_id, **more)["outcome"])


def go_back(run_id: str, **to) -> tuple[str, date]:
    """Go back, and return how that ended and which day applications see."""
    with connect() as connection:
        return rollback(connection, run_id, **to)["outcome"], current(connection).day


# --- a load ---------------------------------------------------------------------------------------------


def test_applications_see_exactly_the_rows_of_the_lake(serving):
    rows = [
        prediction("ann", DAY_1, category_ids=['t"ea', "a,b", "\\"], category_probabilities=[0.5, 1e-9, 0.0]),
        prediction("bob's", DAY_1, surprise=None, risk_percentile=None, item_ids=[], item_probabilities=[]),
        prediction("漢\t1", DAY_1, segment="new", unseen_events=3, migration_probability=1 / 3),
    ]  # fmt: skip
    publish_rows(rows, DAY_1)
    assert serve(DAY_1) == "switched"
    names = serving.execute("select * from meander.predictions limit 0").description
    assert [column.name for column in names] == list(COLUMNS)
    found = serving.execute("select * from meander.predictions order by user_id").fetchall()
    assert found == [tuple(row.values()) for row in rows]


def test_a_load_alone_changes_nothing_that_is_seen(serving):
    publish_users(DAY_1, "ann")
    publish_users(DAY_2, "ann", version=2)
    serve(DAY_1)
    report = load(DAY_2, "r2")
    assert (report["day"], report["model_version"], report["users"], report["already"]) == ("2025-01-02", 2, 1, False)
    assert seen(serving) == [("ann", DAY_1, 1)]


def test_a_repeated_load_changes_nothing(serving):
    publish_users(DAY_1, "ann")
    first = load(DAY_1, "r")
    assert load(DAY_1, "r") | {"seconds": 0} == first | {"seconds": 0, "already": True}
    assert load(DAY_1, "another run")["already"]
    with connect() as connection:
        assert len(generations(connection)) == 1


def test_a_day_that_was_predicted_again_is_a_new_generation(serving):
    publish_users(DAY_1, "ann", version=1)
    serve(DAY_1)
    publish_users(DAY_1, "ann", version=2)
    assert serve(DAY_1, if_newer=True) == "switched"
    assert seen(serving) == [("ann", DAY_1, 2)]


def test_the_load_reads_one_version_of_the_lake_whatever_is_published_meanwhile(serving, monkeypatch):
    publish_users(DAY_1, "old 1", "old 2")
    batches = Table.batches

    def publish_in_between(table, day, size):
        publish_users(DAY_1, "new", version=2)
        return batches(table, day, size)

    monkeypatch.setattr(Table, "batches", publish_in_between)
    assert serve(DAY_1) == "switched"
    assert [user for user, *_ in seen(serving)] == ["old 1", "old 2"]


def test_a_day_that_is_not_published_cannot_be_loaded(serving):
    with pytest.raises(TableMissing, match="predictions has no published version"):
        load(DAY_1, "r")
    publish_users(DAY_1, "ann")
    with pytest.raises(TableMissing, match="the predictions of 2025-01-02 are not published yet"):
        load(DAY_2, "r")
    with pytest.raises(SettingsInvalid, match="must be at least 1; received 0"):
        load(DAY_1, "r", workers=0)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        pytest.param([{}, {}], "have a user twice", id="a user twice"),
        pytest.param([{"user_id": None}], "have a row without a user", id="a row of nobody"),
        pytest.param([], "there is no user", id="an empty day"),
        pytest.param([{"churn_probability": 1.01}], "a probability is missing, or .*: 1 rows", id="more than certain"),
        pytest.param([{"churn_probability": None}], "a probability is missing", id="no probability"),
        pytest.param([{"churn_probability": float("nan")}], "a probability is missing", id="no number"),
        pytest.param([{"category_probabilities": [0.7, -0.1]}], "a probability in a list", id="less than nothing"),
        pytest.param([{"item_probabilities": None, "item_ids": None}], "a probability in a list", id="no list"),
        pytest.param([{"item_ids": []}], "is not as long as", id="a probability without its item"),
        pytest.param([{"risk_percentile": 101.0}], "the risk percentile is", id="above the highest percentile"),
        pytest.param([{"segment": "vip"}], "the segment is none", id="an unknown segment"),
        pytest.param([{}, {"user_id": "b", "model_version": 2}], "of one model version, found 1 to 2", id="two models"),
        pytest.param([{"model_version": None}], "of one model version", id="no model"),
        pytest.param([{"user_id": "a\x00"}], "cannot store a value", id="a character that PostgreSQL has not"),
        pytest.param([{"segment": "vip", "risk_percentile": -1.0}], "percentile.*; the segment", id="all at once"),
    ],
)  # fmt: skip
def test_rows_that_break_a_check_are_refused_and_leave_nothing_behind(serving, rows, said):
    publish_rows([{**prediction("ann", DAY_1), **row} for row in rows], DAY_1)
    with pytest.raises(ServingRefused, match=said):
        load(DAY_1, "r")
    with connect() as connection:
        assert generations(connection) == []
    assert tables(serving) == []


def tables(connection: psycopg.Connection) -> list[str]:
    """Return the tables that hold generations."""
    found = connection.execute("select relname from pg_class where relname ~ '^prediction_rows_[0-9]+$' order by 1")
    return [name for (name,) in found]


def test_rows_that_do_not_arrive_are_missed(serving, monkeypatch):
    publish_users(DAY_1, "ann", "bob")
    batches = Table.batches
    monkeypatch.setattr(Table, "batches", lambda *args: ((f, batch.slice(1)) for f, batch in batches(*args)))
    with pytest.raises(ServingRefused, match="the lake has 2 rows, and 1 arrived"):
        load(DAY_1, "r")


def test_a_second_load_waits_for_its_turn_and_says_when_it_waited_too_long(serving, monkeypatch):
    publish_users(DAY_1, "ann")
    monkeypatch.setattr(serving_load, "WAIT_SECONDS", 0.2)
    with connect() as other:
        assert try_to_load(other)
        with pytest.raises(ServingBusy, match="another load has held the serving store"):
            load(DAY_1, "r")
    assert not load(DAY_1, "r")["already"]


# --- a switch -------------------------------------------------------------------------------------------


def test_a_switch_is_repeated_without_effect(serving):
    publish_users(DAY_1, "ann")
    assert [serve(DAY_1), serve(DAY_1)] == ["switched", "already"]
    with connect() as connection:
        assert len(switches(connection, 10)) == 1
    served = serving.execute("select day, model_version, users, generation, since is not null from meander.served")
    assert served.fetchall() == [(DAY_1, 1, 1, 1, True)]


def test_a_backfilled_day_is_loaded_but_becomes_current_only_when_asked(serving):
    publish_users(DAY_1, "ann")
    publish_users(DAY_2, "ann")
    serve(DAY_2)
    assert serve(DAY_1, if_newer=True) == "kept"
    assert seen(serving) == [("ann", DAY_2, 1)]
    assert serve(DAY_1) == "switched"
    assert seen(serving) == [("ann", DAY_1, 1)]


def test_what_a_person_went_back_from_does_not_come_back_by_itself_but_the_next_day_does(serving):
    for day in (DAY_1, DAY_2, DAY_3):
        publish_users(day, "ann")
    serve(DAY_1)
    serve(DAY_2)
    go_back("by hand")
    assert serve(DAY_2, "the task again", if_newer=True) == "kept"
    assert seen(serving) == [("ann", DAY_1, 1)]
    assert serve(DAY_3, if_newer=True) == "switched"


@pytest.mark.parametrize(
    ("users", "changed", "said"),
    [
        pytest.param(TEN[:6], {}, ["share_gone 0.400"], id="users gone"),
        pytest.param([*TEN, "a", "b", "c", "d"], {}, ["share_added 0.400"], id="users added"),
        pytest.param(TEN, {"category_ids": ["milk", "tea"]}, ["another_top_category 1.000"], id="other categories"),
        pytest.param(TEN, {"churn_probability": 0.25}, ["mean churn_probability changes by 0.150"], id="a score rises"),
        pytest.param(TEN, {"purchase_probability": 0.25}, ["purchase_probability changes by -0.250"], id="one falls"),
        pytest.param(TEN[:9], {"category_ids": ["tea"], "category_probabilities": [1.0]}, [], id="little changes"),
        pytest.param(
            TEN[:6], {"migration_probability": 0.9}, ["share_gone", "migration_probability"], id="all is told at once"
        ),
    ],
)
def test_a_switch_that_would_change_too_much_is_refused_unless_forced(serving, users, changed, said):
    publish_users(DAY_1, *TEN)
    serve(DAY_1)
    publish_users(DAY_2, *users, version=2, **changed)
    if not said:
        assert serve(DAY_2) == "switched"
        return
    with pytest.raises(ServingRefused) as refused:
        serve(DAY_2)
    assert [part for part in said if part not in str(refused.value)] == []
    assert str(refused.value).count("MEANDER_SERVING_MAX") == len(said)
    assert {day for _, day, _ in seen(serving)} == {DAY_1}
    assert serve(DAY_2, force=True) == "switched"
    assert {day for _, day, _ in seen(serving)} == {DAY_2}
    with connect() as connection:
        assert len(switches(connection, 1)[0]["exceeded"]) == len(said), "what was forced is kept"


def test_the_limits_are_settings(serving, monkeypatch):
    publish_users(DAY_1, *TEN)
    serve(DAY_1)
    publish_users(DAY_2, *TEN[:6])
    monkeypatch.setenv("MEANDER_SERVING_MAX_USERS", "0.4")
    assert serve(DAY_2) == "switched"


def test_the_difference_is_told_in_numbers(serving):
    publish_users(DAY_1, *TEN)
    serve(DAY_1)
    moved = [prediction(user, DAY_2, category_ids=["milk", "tea"], churn_probability=0.3) for user in ("u0", "new")]
    publish_rows([*moved, *(prediction(user, DAY_2) for user in TEN[1:8])], DAY_2)
    load(DAY_2, "r")
    with connect() as connection:
        report = compare(connection, current(connection), find(connection, DAY_2))
    assert json.loads(json.dumps(report)) == report
    assert (report["from"]["day"], report["to"]["day"]) == ("2025-01-01", "2025-01-02")
    assert (report["users_added"], report["users_gone"]) == (1, 2)
    assert (report["share_added"], report["share_gone"]) == (0.1, 0.2)
    assert report["share_with_another_top_category"] == 1 / 8
    assert report["drift"]["churn_probability"] == pytest.approx(0.4 / 9)
    assert report["drift"]["purchase_probability"] == pytest.approx(0)


def test_a_day_that_is_not_loaded_cannot_be_switched_to(serving):
    publish_users(DAY_1, "ann")
    with connect() as connection, pytest.raises(GenerationMissing, match="holds nothing in its schema meander"):
        switch(connection, DAY_1, "r")
    load(DAY_1, "r")
    with connect() as connection, pytest.raises(GenerationMissing, match="no generation of day 2025-01-02; it has gen"):
        switch(connection, DAY_2, "r")


# --- back -----------------------------------------------------------------------------------------------


def test_back_goes_one_further_each_time_and_once_for_each_run(serving):
    for day in (DAY_1, DAY_2, DAY_3):
        publish_users(day, "ann")
        serve(day)
    assert go_back("a") == ("switched", DAY_2)
    assert go_back("a") == ("already", DAY_2), "a task that is cleared does not go further"
    assert go_back("b") == ("switched", DAY_1)
    with pytest.raises(GenerationMissing, match="there is nothing to go back to"):
        go_back("c")
    assert seen(serving) == [("ann", DAY_1, 1)]


def test_back_leads_to_a_day_a_model_or_a_generation(serving):
    for day, version in ((DAY_1, 1), (DAY_2, 2), (DAY_3, 3)):
        publish_users(day, "ann", version=version)
        serve(day)
    assert go_back("a", model_version=2) == ("switched", DAY_2)
    assert go_back("b", day=DAY_1) == ("switched", DAY_1)
    assert go_back("c", generation=3) == ("switched", DAY_3)
    assert go_back("d", generation=3) == ("already", DAY_3)
    with pytest.raises(GenerationMissing, match="no generation of model version 9"):
        go_back("e", model_version=9)


def test_no_limit_stands_in_the_way_back(serving):
    publish_users(DAY_1, *TEN)
    serve(DAY_1)
    publish_users(DAY_2, "somebody else")
    serve(DAY_2, force=True)
    assert go_back("a") == ("switched", DAY_1)


# --- retention ------------------------------------------------------------------------------------------


def test_old_generations_are_dropped_but_never_the_current_one_nor_the_one_before(serving, monkeypatch):
    monkeypatch.setenv("MEANDER_SERVING_KEEP", "2")
    days = [date(2025, 1, n) for n in range(1, 8)]
    for day in days:
        publish_users(day, "ann")
    for day in days[:2]:
        serve(day)
    for day in days[2:]:
        load(day, "r")
    with connect() as connection:
        assert try_to_load(connection)
        prune(connection)
        left = [each.day for each in generations(connection)]
    assert left == [days[6], days[5], days[1], days[0]]
    assert tables(serving) == ["prediction_rows_1", "prediction_rows_2", "prediction_rows_6", "prediction_rows_7"]
    assert seen(serving) == [("ann", days[1], 1)]
    assert go_back("a") == ("switched", days[0])


def test_a_reader_is_never_kept_out_by_retention_and_what_it_holds_up_is_dropped_later(serving, postgres, monkeypatch):
    monkeypatch.setenv("MEANDER_SERVING_KEEP", "1")
    monkeypatch.setattr(serving_load, "READERS_SECONDS", 1)
    for day in (DAY_1, DAY_2, DAY_3):
        publish_users(day, "ann")
        serve(day)
    with (
        psycopg.connect(serving.info.dsn, password=PASSWORD) as slow,
        psycopg.connect(serving.info.dsn, password=PASSWORD, autocommit=True) as quick,
        connect() as connection,
    ):
        slow.execute("select count(*) from meander.predictions")  # and its transaction stays open
        assert try_to_load(connection)
        assert prune(connection) == []
        quick.execute("set statement_timeout = '1s'")
        assert seen(quick) == [("ann", DAY_3, 1)]
        assert seen(slow) == [("ann", DAY_3, 1)]
        with pytest.raises(GenerationMissing, match="no generation of day 2025-01-01"):
            find(connection, DAY_1)
        slow.rollback()
        assert prune(connection) == [1]
    assert tables(serving) == ["prediction_rows_2", "prediction_rows_3"]


# --- the store ------------------------------------------------------------------------------------------


def test_a_store_that_was_made_for_other_columns_is_not_touched(serving, monkeypatch):
    publish_users(DAY_1, "ann")
    serve(DAY_1)
    monkeypatch.setitem(COLUMNS, "mood", "text")
    publish_users(DAY_2, "ann")
    with pytest.raises(ServingUnavailable, match=r"was made for other columns .* set MEANDER_SERVING_SCHEMA"):
        load(DAY_2, "r")
    assert seen(serving) == [("ann", DAY_1, 1)]


def test_the_columns_are_explained_in_the_database(serving):
    publish_users(DAY_1, "ann")
    load(DAY_1, "r")
    said = serving.execute("select col_description('meander.predictions'::regclass, 1)").fetchone()
    assert said == ("a user of interests at dt",)


def test_a_lookup_uses_the_index_of_the_current_generation_and_reads_no_other(serving):
    for day in (DAY_1, DAY_2):
        publish_users(day, *(f"user {n}" for n in range(3000)))
        serve(day)
    look = "explain (analyze, costs off, timing off) select * from meander.predictions where user_id = 'user 7'"
    plan = [line.strip() for (line,) in serving.execute(look)]
    executed = [line for line in plan if "Scan" in line and "never executed" not in line and "pointer" not in line]
    assert executed == ["->  Index Scan using prediction_rows_2_pkey on prediction_rows_2 (actual rows=1 loops=1)"], (
        plan
    )
