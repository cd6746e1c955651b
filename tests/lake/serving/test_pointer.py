"""What applications see: one generation, whole; which one it is, who may change that, and what is refused."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import date

import psycopg
import pytest

from lake.errors import (
    GenerationMissing,
    ServingBusy,
    ServingRefused,
    ServingUnavailable,
    SettingsInvalid,
    TableMissing,
)
from lake.serving import load as serving_load
from lake.serving import pointer as serving_store
from lake.serving.layout import COLUMNS
from lake.serving.load import begin, prune
from lake.serving.pointer import Limits, compare, current, find, generations, switches, switching, try_to_load
from lake.settings import settings
from lake.table import Table
from tests.lake.predicted import DAY_1, DAY_2, DAY_3, prediction, publish_rows, publish_users
from tests.lake.served import load, opened, rollback, switch
from tests.postgres import PASSWORD
from tests.waiting import until

TEN = [f"u{n}" for n in range(10)]


def seen(reader: psycopg.Connection) -> list[tuple]:
    """Return (user, day, model version) of every row that applications see."""
    return reader.execute("select user_id, dt, model_version from meander.predictions order by 1").fetchall()


def serve(day: date, run_id: str = "r", **more) -> str:
    """Load a day, switch to it, and return how that ended."""
    load(day, run_id)
    with opened() as store:
        return str(switch(store, day, run_id, **more)["outcome"])


def go_back(run_id: str, **to) -> tuple[str, date]:
    """Go back, and return how that ended and which day applications see."""
    with opened() as store:
        return rollback(store, run_id, **to)["outcome"], current(store).day


# --- a load ---------------------------------------------------------------------------------------------


def test_applications_see_exactly_the_rows_of_the_lake(serving):
    rows = [
        prediction("ann", DAY_1, category_ids=['t"ea', "a,b", "\\"], category_probabilities=[0.5, 1e-9, 0.0]),
        prediction("bob's", DAY_1, surprise=None, risk_percentile=None, item_ids=[], item_probabilities=[]),
        prediction("漢\t1", DAY_1, segment="new", unseen_events=3, migration_probability=1 / 3),
        # The ends of what is possible are possible.
        prediction("🙂1", DAY_1, segment="at_risk", risk_percentile=100.0, churn_probability=1.0),
        prediction("🙂2", DAY_1, segment="migrating", risk_percentile=0.0, churn_probability=0.0),
        prediction("🙂3", DAY_1, item_probabilities=[1.0], category_probabilities=[1.0, 0.0]),
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
    with opened() as store:
        assert len(generations(store)) == 1


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


ONE = "may not be served: 1 of 1 rows cannot be served, and 0 may be by MEANDER_SERVING_MAX_SET_ASIDE=0"
BAD_SCORE = f"{ONE} (a probability is missing, or not from 0 to 1: 1 rows)"
BAD_LIST = f"{ONE} (a probability in a list is missing, or not from 0 to 1: 1 rows)"
BAD_LENGTH = f"{ONE} (a list of ids is not as long as that of its probabilities: 1 rows)"
BAD_PERCENTILE = f"{ONE} (the risk percentile is not from 0 to 100: 1 rows)"
BAD_MODEL = "may not be served: rows of one day must be of one model version, found"

# Rows of a day, as far as they differ from one that may be served, and what is said of them.
BROKEN = {
    "a user twice": ([{}, {}], "have a user twice"),
    "a row of nobody": ([{"user_id": None}], f"{ONE} (the user id is missing: 1 rows)"),
    "an empty day": ([], "may not be served: there is no user [docs/"),
    "less than impossible": ([{"migration_probability": -0.01}], BAD_SCORE),
    "more than certain": ([{"churn_probability": 1.01}], BAD_SCORE),
    "no probability": ([{"purchase_probability": None}], BAD_SCORE),
    "no number": ([{"churn_probability": float("nan")}], BAD_SCORE),
    "a category less than impossible": ([{"category_probabilities": [0.7, -0.1]}], BAD_LIST),
    "a category more than certain": ([{"category_probabilities": [1.1, 0.1]}], BAD_LIST),
    "an item less than impossible": ([{"item_probabilities": [-0.1]}], BAD_LIST),
    "an item more than certain": ([{"item_probabilities": [1.1]}], BAD_LIST),
    "no list": ([{"item_probabilities": None, "item_ids": None}], BAD_LIST),
    "a probability without its item": ([{"item_ids": []}], BAD_LENGTH),
    "a category without its probability": ([{"category_ids": ["a", "b", "c"]}], BAD_LENGTH),
    "below the percentiles": ([{"risk_percentile": -0.1}], BAD_PERCENTILE),
    "above the percentiles": ([{"risk_percentile": 100.1}], BAD_PERCENTILE),
    "an unknown segment": ([{"segment": "vip"}], f"{ONE} (the segment is unknown: 1 rows)"),
    "two models": ([{}, {"user_id": "b", "model_version": 2}], f"{BAD_MODEL} 1 to 2 [docs/"),
    "a user of no model": ([{}, {"user_id": "b", "model_version": None}], f"{BAD_MODEL} 1 to 1 [docs/"),
    "what PostgreSQL has not": ([{"user_id": "a\x00"}], f"{ONE} (a text is not UTF-8, or has a NUL: 1 rows)"),
}


def test_rows_that_break_a_check_are_refused_and_leave_nothing_behind(serving, monkeypatch):
    monkeypatch.setenv("MEANDER_SERVING_MAX_SET_ASIDE", "0")  # by default one row is set aside
    said = {}
    for basis, (what, (rows, _)) in enumerate(BROKEN.items(), start=1):
        publish_rows([{**prediction("ann", DAY_1), **row} for row in rows], DAY_1, basis)
        with pytest.raises(ServingRefused) as refused:
            load(DAY_1, "r")
        said[what] = str(refused.value)
    assert {what: text for what, text in said.items() if BROKEN[what][1] not in text} == {}
    with opened() as store:
        assert generations(store) == []
    assert tables(serving) == []


def test_all_that_is_wrong_with_a_day_is_told_at_once_and_of_how_many_rows(serving):
    faults = [{"segment": "vip"}, {"segment": "vip"}, {"risk_percentile": -1.0}, {"model_version": 2}, {}]
    publish_rows([prediction(f"u{n}", DAY_1) | fault for n, fault in enumerate(faults)], DAY_1)
    all_faults = (
        r"3 of 5 rows .*the risk percentile is .*: 1 rows; the segment is .*: 2 rows\); .* version, found 1 to 2"
    )
    with pytest.raises(ServingRefused, match=all_faults):
        load(DAY_1, "r")


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
    with opened() as other:
        assert try_to_load(other)
        with pytest.raises(ServingBusy, match="another load has held the serving store"):
            load(DAY_1, "r")
    assert not load(DAY_1, "r")["already"]


def test_a_load_that_has_waited_goes_on_and_is_then_waited_for(serving, monkeypatch):
    publish_users(DAY_1, "ann")
    free = []

    def begins(*arguments) -> int:
        with opened() as third:
            free.append(try_to_load(third))
        return begin(*arguments)

    monkeypatch.setattr(serving_load, "begin", begins)
    waiters = "select 1 from pg_locks where locktype = 'advisory' and not granted"
    with ThreadPoolExecutor(1) as pool:
        with opened() as first:
            assert try_to_load(first)
            second = pool.submit(load, DAY_1, "r")
            until("the second load to wait", lambda: first.connection.execute(waiters).fetchone())
        assert second.result()["users"] == 1
    assert free == [False]


# --- a switch -------------------------------------------------------------------------------------------


def test_a_switch_is_repeated_without_effect(serving):
    publish_users(DAY_1, "ann")
    assert [serve(DAY_1), serve(DAY_1)] == ["switched", "already"]
    with opened() as store:
        assert len(switches(store, 10)) == 1
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


def test_a_backfill_is_measured_by_the_newest_day_that_was_ever_served(serving):
    for day in (DAY_1, DAY_3):
        publish_users(day, "ann")
        serve(day)
    go_back("by hand")
    # The first day is current because a person wanted it; a backfill of the second must not undo that.
    publish_users(DAY_2, "ann")
    assert serve(DAY_2, "backfill", if_newer=True) == "kept"
    assert seen(serving) == [("ann", DAY_1, 1)]


def test_a_switch_waits_for_another_one_and_says_when_it_waited_too_long(serving, monkeypatch):
    publish_users(DAY_1, "ann")
    load(DAY_1, "r")
    monkeypatch.setattr(serving_store, "LOCK_SECONDS", 0.1)
    said = pytest.raises(ServingBusy, match="another load or switch holds the serving store")
    with opened() as other, switching(other), said, opened() as store:
        switch(store, DAY_1, "r")
    assert seen(serving) == []
    assert serve(DAY_1) == "switched"


def test_a_switch_that_would_change_too_much_is_refused_unless_forced(serving):
    # The first day: ten users, all of whom care for tea. Each case is a second one, and every limit that it passes.
    cases = {
        "users gone": (TEN[:6], {}, ["share_gone 0.400, MEANDER_SERVING_MAX_USERS is 0.3"]),
        "users added": ([*TEN, *"abcd"], {}, ["share_added 0.400, MEANDER_SERVING_MAX_USERS is 0.3"]),
        "other categories": (
            TEN, {"category_ids": ["milk", "tea"]},
            ["share_with_another_top_category 1.000, MEANDER_SERVING_MAX_MOVED is 0.5"],
        ),
        "one score rises": (
            TEN, {"churn_probability": 0.25},
            ["mean churn_probability changes by 0.150, MEANDER_SERVING_MAX_DRIFT is 0.1"],
        ),
        "another rises": (TEN, {"migration_probability": 0.35}, ["mean migration_probability changes by 0.150"]),
        "one falls": (TEN, {"purchase_probability": 0.25}, ["mean purchase_probability changes by -0.250"]),
        "all at once": (TEN[:6], {"migration_probability": 0.9}, ["share_gone 0.400", "migration_probability changes"]),
    }  # fmt: skip
    publish_users(DAY_1, *TEN)
    serve(DAY_1)
    told = {}
    for basis, (what, (users, changed, _)) in enumerate(cases.items(), start=1):
        publish_rows([prediction(user, DAY_2, **changed) for user in users], DAY_2, basis)
        with pytest.raises(ServingRefused) as refused:
            serve(DAY_2)
        told[what] = str(refused.value)
    expected = {what: limits for what, (_, _, limits) in cases.items()}
    assert {what: [limit for limit in limits if limit in told[what]] for what, limits in expected.items()} == expected
    assert {what: text.count("MEANDER_SERVING_MAX") for what, text in told.items()} == {
        what: len(limits) for what, limits in expected.items()
    }
    assert {day for _, day, _ in seen(serving)} == {DAY_1}

    assert serve(DAY_2, force=True) == "switched"
    assert {day for _, day, _ in seen(serving)} == {DAY_2}
    with opened() as store:
        forced = switches(store, 1)[0]["exceeded"]
    assert [limit.split(",")[0] for limit in forced] == [
        "share_gone 0.400", "mean migration_probability changes by 0.700",
    ], "what was forced is kept"  # fmt: skip


def test_a_switch_that_changes_little_is_not_held_up(serving):
    # One user of ten is gone and another has come; of the nine, four have another top category and a higher score.
    publish_users(DAY_1, *TEN)
    serve(DAY_1)
    rows = [prediction(user, DAY_2) for user in [*TEN[:5], "new"]]
    rows += [prediction(user, DAY_2, category_ids=["milk", "tea"], churn_probability=0.3) for user in TEN[5:9]]
    publish_rows(rows, DAY_2)
    assert serve(DAY_2) == "switched"


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
    with opened() as store:
        report = compare(store, current(store), find(store, DAY_2), Limits.of(settings()))
    assert json.loads(json.dumps(report)) == report
    assert (report["from"]["day"], report["to"]["day"]) == ("2025-01-01", "2025-01-02")
    assert (report["users_added"], report["users_gone"]) == (1, 2)
    assert (report["share_added"], report["share_gone"]) == (0.1, 0.2)
    assert report["share_with_another_top_category"] == 1 / 8
    assert report["drift"]["churn_probability"] == pytest.approx(0.4 / 9)
    assert report["drift"]["purchase_probability"] == pytest.approx(0)


def test_a_day_that_is_not_loaded_cannot_be_switched_to(serving):
    publish_users(DAY_1, "ann")
    with opened() as store, pytest.raises(GenerationMissing, match="holds nothing in its schema meander"):
        switch(store, DAY_1, "r")
    load(DAY_1, "r")
    with opened() as store, pytest.raises(GenerationMissing, match="no generation of day 2025-01-02; it has gen"):
        switch(store, DAY_2, "r")


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
    assert seen(serving) == [("ann", DAY_1, 1)]
    assert go_back("c", generation=3) == ("switched", DAY_3)
    assert go_back("d", generation=3) == ("already", DAY_3)
    with pytest.raises(GenerationMissing, match="no generation of model version 9"):
        go_back("e", model_version=9)


def test_back_to_a_model_leads_to_its_newest_day_and_not_to_what_was_loaded_last(serving):
    # The first model has predicted two days, the second one the third. The first day is loaded last: a backfill.
    for day, version in ((DAY_2, 1), (DAY_3, 2)):
        publish_users(day, "ann", version=version)
        serve(day)
    publish_users(DAY_1, "ann", version=1)
    load(DAY_1, "backfill")
    assert go_back("a", model_version=1) == ("switched", DAY_2)
    # Of one day, it is the newest load.
    publish_rows([prediction("ann again", DAY_2, 1)], DAY_2, basis=9)
    load(DAY_2, "again")
    assert go_back("b", model_version=1) == ("switched", DAY_2)
    assert seen(serving) == [("ann again", DAY_2, 1)]


def test_since_when_a_day_is_served_is_the_last_time_that_it_became_current(serving):
    for day in (DAY_1, DAY_2):
        publish_users(day, "ann")
        serve(day)
    go_back("a")
    with opened() as store:
        moved = [move["switched"] for move in switches(store, 10)]
    assert moved == sorted(moved, reverse=True)
    assert serving.execute("select day, since from meander.served").fetchall() == [(DAY_1, moved[0])]


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
    with opened() as store:
        assert try_to_load(store)
        prune(store, settings().serving_keep)
        left = [each.day for each in generations(store)]
    assert left == [days[6], days[5], days[1], days[0]]
    assert tables(serving) == ["prediction_rows_1", "prediction_rows_2", "prediction_rows_6", "prediction_rows_7"]
    assert seen(serving) == [("ann", days[1], 1)]
    assert go_back("a") == ("switched", days[0])


def test_what_a_killed_load_has_left_is_dropped_by_the_next_one_and_counts_for_nothing(serving, monkeypatch):
    monkeypatch.setenv("MEANDER_SERVING_KEEP", "1")
    publish_users(DAY_1, "ann")
    serve(DAY_1)
    with opened() as store:
        # As far as a load comes that is killed while it copies.
        left = begin(store, DAY_2, 1, "fingerprint", "killed")
        with pytest.raises(GenerationMissing):
            find(store, DAY_2)
        assert try_to_load(store)
        assert prune(store, settings().serving_keep) == [left]
        # It is the load's own connection: what comes next may take longer than readers are waited for.
        assert store.execute("show statement_timeout").fetchone() == ("0",)
        assert [each.day for each in generations(store)] == [DAY_1]
    assert tables(serving) == ["prediction_rows_1"]


def test_a_reader_is_never_kept_out_by_retention_and_what_it_holds_up_is_dropped_later(serving, postgres, monkeypatch):
    monkeypatch.setenv("MEANDER_SERVING_KEEP", "1")
    for day in (DAY_1, DAY_2, DAY_3):
        publish_users(day, "ann")
        serve(day)
    dropped = []

    def clean_up() -> None:
        with opened() as store:
            assert try_to_load(store)
            dropped.append(prune(store, settings().serving_keep))

    with (
        psycopg.connect(serving.info.dsn, password=PASSWORD) as slow,
        psycopg.connect(serving.info.dsn, password=PASSWORD, autocommit=True) as quick,
    ):
        quick.execute("set lock_timeout = '50ms'")
        slow.execute("select count(*) from meander.predictions")  # and its transaction stays open
        monkeypatch.setattr(serving_load, "READERS_SECONDS", 1)
        pruning = threading.Thread(target=clean_up)
        pruning.start()
        waits = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
        while pruning.is_alive() and serving.execute(waits).fetchone() == (0,):
            time.sleep(0.01)
        assert seen(quick) == [("ann", DAY_3, 1)], "while it waits for the slow one"
        pruning.join(45)
        assert dropped == [[]], "it gave up after a second"
        assert seen(quick) == seen(slow) == [("ann", DAY_3, 1)]
        with opened() as store, pytest.raises(GenerationMissing, match="no generation of day 2025-01-01"):
            find(store, DAY_1)
        assert go_back("a") == ("switched", DAY_2)
        with pytest.raises(GenerationMissing, match="there is nothing to go back to"):
            go_back("b")
        slow.rollback()
        monkeypatch.setattr(serving_load, "READERS_SECONDS", 60)
        clean_up()
        assert dropped == [[], [1]]
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
