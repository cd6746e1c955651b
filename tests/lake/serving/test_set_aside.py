"""Rows that cannot be served: single ones are set aside and counted, and too many of them stop the load."""

import logging
import random
from itertools import count

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lake.errors import ServingRefused
from lake.places import table_path
from lake.serving.load import MAX_ID_BYTES
from lake.serving.pointer import generations, rows_set_aside
from lake.table import Table
from tests.lake.predicted import DAY_1, DAY_2, prediction, publish_rows
from tests.lake.served import load, opened, switch

GOOD = [f"good {n}" for n in range(9)]
NO_TEXT, NO_USER = "a text is not UTF-8, or has a NUL", "the user id is missing"
TOO_LONG = "the user id is too long for an index"


def incompressible(size: int) -> str:
    """Return text of so many bytes that PostgreSQL cannot make shorter."""
    return "".join(random.Random(1).choices([chr(n) for n in range(33, 127)], k=size))


def publish_with(*faults: dict, basis: int = 1, good: int = 9) -> None:
    """Publish a day of good rows, and one row for each fault: its differences from a good row."""
    rows = [prediction(f"good {n}", DAY_1) for n in range(good)]
    publish_rows([*rows, *(prediction(f"bad {n}", DAY_1) | fault for n, fault in enumerate(faults))], DAY_1, basis)


def served(serving: psycopg.Connection) -> list[str]:
    """Switch to the newest load of the day, and return the users that applications see."""
    with opened() as store:
        switch(store, DAY_1, "r", force=True)
    return [user for (user,) in serving.execute("select user_id from meander.predictions order by 1")]


# A row that cannot be served, as far as it differs from a good one, and the reason that is counted.
BAD_ROWS = {
    "NUL in the user": ({"user_id": "a\0b"}, NO_TEXT),
    "NUL in an item": ({"item_ids": ["green\0tea"]}, NO_TEXT),
    "NUL in a category": ({"category_ids": ["tea", "\0"]}, NO_TEXT),
    "NUL in the category of today": ({"current_category": "\0"}, NO_TEXT),
    "nobody": ({"user_id": None}, NO_USER),
    "one byte too long for the index": ({"user_id": incompressible(2689)}, TOO_LONG),
    "a thousand characters of three bytes": ({"user_id": "漢" * 1000}, TOO_LONG),
    "more than certain": ({"churn_probability": 1.01}, "a probability is missing, or not from 0 to 1"),
    "no number": ({"item_probabilities": [float("nan")]}, "a probability in a list is missing, or not from 0 to 1"),
    "no item": ({"item_ids": []}, "a list of ids is not as long as that of its probabilities"),
    "percentile": ({"risk_percentile": -0.1}, "the risk percentile is not from 0 to 100"),
    "segment": ({"segment": "vip"}, "the segment is unknown"),
    "two faults are one row": ({"segment": "vip", "risk_percentile": -1.0}, "the risk percentile is not from 0 to 100"),
    "and before it is copied": ({"user_id": None, "current_category": "\0"}, NO_USER),
}  # fmt: skip


def test_a_single_row_that_cannot_be_served_is_set_aside_and_the_others_are_served(serving, monkeypatch):
    monkeypatch.setenv("MEANDER_SERVING_MAX_SET_ASIDE", "0.1")
    expected = {what: (9, {reason: 1}, GOOD) for what, (_, reason) in BAD_ROWS.items()}
    results = {}
    for basis, (what, (fault, _)) in enumerate(BAD_ROWS.items(), start=1):
        publish_with(fault, basis=basis)
        report = load(DAY_1, "r")
        results[what] = (report["users"], report["set_aside"], served(serving))
    assert results == expected


def test_texts_that_are_not_utf_8_are_set_aside(serving, monkeypatch):
    monkeypatch.setenv("MEANDER_SERVING_MAX_SET_ASIDE", "1")
    publish_with({"user_id": "SURROGATE"}, {"item_ids": ["SURROGATE", "tea"], "item_probabilities": [0.1, 0.1]})
    (file,) = Table("predictions").files
    path = f"{table_path('predictions')}/{file.path}"
    # Written by a program that checks nothing: an encoded lone surrogate in place of the word.
    rows = pq.read_table(path).to_batches()[0]
    broken = [with_surrogate(column) for column in rows.columns]
    pq.write_table(pa.Table.from_batches([pa.RecordBatch.from_arrays(broken, schema=rows.schema)]), path)
    assert load(DAY_1, "r")["set_aside"] == {NO_TEXT: 2}
    assert served(serving) == GOOD


def with_surrogate(column: pa.Array) -> pa.Array:
    """Return the column with a lone surrogate for each word SURROGATE."""
    if pa.types.is_list(column.type):
        return pa.ListArray.from_arrays(column.offsets, with_surrogate(column.values), type=column.type)
    if not pa.types.is_string(column.type):
        return column
    texts = column.view(pa.binary()).to_pylist()
    return pa.array([text and text.replace(b"SURROGATE", b"\xed\xa0\x80") for text in texts], pa.binary()).view(
        pa.string()
    )


def test_an_id_that_just_fits_the_index_is_served(serving):
    assert MAX_ID_BYTES == 2688
    publish_with({"user_id": (longest := incompressible(2688))})
    report = load(DAY_1, "r")
    assert (report["users"], report["set_aside"]) == (10, {})
    assert longest in served(serving)
    # And the server would not take one byte more.
    with pytest.raises(psycopg.errors.ProgramLimitExceeded):
        serving.execute(
            "insert into meander.prediction_rows (user_id, generation) values (%s, 1)", [incompressible(2689)]
        )


def test_rows_are_set_aside_up_to_a_share_and_above_it_the_load_is_refused(serving, monkeypatch):
    nul, vip = {"user_id": "\0"}, {"segment": "vip"}
    # By default one of each 1,000 that have begun, so one of any number, and no more.
    publish_with(nul, good=999)
    assert load(DAY_1, "r")["set_aside"] == {NO_TEXT: 1}
    publish_with(nul, nul, basis=2, good=998)
    said = (
        r"2 of 1,000 rows cannot be served, and 1 may be by MEANDER_SERVING_MAX_SET_ASIDE=0.001 \(a text .*: 2 rows\)"
    )
    with pytest.raises(ServingRefused, match=said):
        load(DAY_1, "r")
    with opened() as store:
        assert [each.users for each in generations(store)] == [999]
    # The share counts rows of all reasons; 29 of 100 is 0.29, though 0.29 * 100 is less than 29.
    publish_with(*[nul] * 14, *[vip] * 15, basis=3, good=71)
    monkeypatch.setenv("MEANDER_SERVING_MAX_SET_ASIDE", "0.28")
    with pytest.raises(ServingRefused, match="29 of 100 rows cannot be served"):
        load(DAY_1, "r")
    monkeypatch.setenv("MEANDER_SERVING_MAX_SET_ASIDE", "0.29")
    report = load(DAY_1, "r")
    assert (report["users"], sum(report["set_aside"].values())) == (71, 29)
    # A day of nobody is not served at any share.
    publish_with(nul, basis=4, good=0)
    monkeypatch.setenv("MEANDER_SERVING_MAX_SET_ASIDE", "1")
    with pytest.raises(ServingRefused, match="there is no user"):
        load(DAY_1, "r")


def test_one_row_stops_the_serving_of_no_shop_however_small_and_a_share_of_zero_lets_none_through(serving, monkeypatch):
    publish_with({"user_id": "\0"}, good=1)
    report = load(DAY_1, "r")
    assert (report["users"], report["set_aside"]) == (1, {NO_TEXT: 1})
    publish_with({"user_id": "\0"}, {"user_id": "\0"}, basis=2, good=10)
    with pytest.raises(ServingRefused, match="2 of 12 rows cannot be served, and 1 may be"):
        load(DAY_1, "r")
    monkeypatch.setenv("MEANDER_SERVING_MAX_SET_ASIDE", "0")
    publish_with({"user_id": "\0"}, basis=3, good=2000)
    with pytest.raises(ServingRefused, match="1 of 2,001 rows cannot be served, and 0 may be"):
        load(DAY_1, "r")


def test_rows_that_are_set_aside_are_told_by_their_kind_and_nothing_of_their_content(serving, monkeypatch, caplog):
    monkeypatch.setenv("MEANDER_SERVING_MAX_SET_ASIDE", "0.2")
    secret = "alice@example.org"
    publish_with({"user_id": f"{secret}\0"}, {"user_id": secret, "segment": secret})
    expected = {NO_TEXT: 1, "the segment is unknown": 1}
    with caplog.at_level(logging.WARNING):
        assert load(DAY_1, "r")["set_aside"] == expected
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert told == [
        "rows of the predictions of 2025-01-01 are set aside, and not served: a text is not UTF-8, or has a NUL: 1 "
        "rows; the segment is unknown: 1 rows"
    ]
    assert secret not in caplog.text
    assert load(DAY_1, "again")["set_aside"] == expected, "as the first call, though nothing is loaded again"
    with opened() as store:
        assert rows_set_aside(store) == {1: expected}
    monkeypatch.setenv("MEANDER_SERVING_MAX_SET_ASIDE", "0.09")
    publish_with({"user_id": f"{secret}\0"}, {"user_id": secret, "segment": secret}, basis=2)
    with pytest.raises(ServingRefused) as refused:
        load(DAY_1, "r")
    assert secret not in str(refused.value)


def test_the_counts_go_with_their_generation(serving, monkeypatch):
    monkeypatch.setenv("MEANDER_SERVING_MAX_SET_ASIDE", "0.1")
    monkeypatch.setenv("MEANDER_SERVING_KEEP", "1")
    for basis in (1, 2, 3):
        publish_with({"user_id": "\0"}, basis=basis)
        load(DAY_1, "r")
    with opened() as store:
        assert sorted(rows_set_aside(store)) == sorted(each.generation for each in generations(store)) == [2, 3]


def test_a_store_of_an_earlier_version_counts_from_its_next_load(serving, monkeypatch):
    monkeypatch.setenv("MEANDER_SERVING_MAX_SET_ASIDE", "0.1")
    publish_with()
    load(DAY_1, "r")
    serving.execute("drop table meander.set_aside")
    with opened() as store:
        assert rows_set_aside(store) == {}
    publish_rows([prediction("ann", DAY_2)], DAY_2)
    load(DAY_2, "r")
    publish_with({"user_id": "\0"}, basis=2)
    load(DAY_1, "r")
    with opened() as store:
        assert rows_set_aside(store) == {3: {NO_TEXT: 1}}


# --- any text -------------------------------------------------------------------------------------------

# All of Unicode but surrogates, which no string of Spark or Arrow has; and as long as ingest lets ids be.
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
LONG_TEXT = st.builds(
    lambda seed, size: "".join(random.Random(seed).choices("aé漢🙂\t\\\x01", k=size)),
    st.integers(),
    st.integers(700, 1024),
)
TEXT = st.one_of(ANY_TEXT, LONG_TEXT, ANY_TEXT.map(lambda text: f"{text}\0"))
BASIS = count(1)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(users=st.lists(TEXT, unique=True, max_size=6), texts=st.lists(TEXT, min_size=7, max_size=7), data=st.data())
def test_any_text_is_served_as_it_is_or_set_aside_and_the_rest_of_the_day_is_served(
    serving, monkeypatch, users, texts, data
):
    monkeypatch.setenv("MEANDER_SERVING_MAX_SET_ASIDE", "1")
    monkeypatch.setenv("MEANDER_SERVING_KEEP", "1")
    column = data.draw(st.sampled_from(["item_ids", "current_category", "category_ids"]))
    rows = [prediction("a plain user", DAY_1)]
    for user, text in zip(users, texts, strict=False):
        many = {"item_ids": [text], "category_ids": ["tea", text]}
        rows.append(prediction(user, DAY_1) | {column: many.get(column, text)})
    if "a plain user" in users:
        rows = rows[1:]
    publish_rows(rows, DAY_1, next(BASIS))
    report = load(DAY_1, "r")
    with opened() as store:
        switch(store, DAY_1, "r", force=True)
    good = [
        (user, row["current_category"], row["item_ids"], row["category_ids"])
        for row in rows
        if len((user := row["user_id"]).encode()) <= 2688
        and not any("\0" in text for text in (user, row["current_category"], *row["item_ids"], *row["category_ids"]))
    ]
    answer = serving.execute("select user_id, current_category, item_ids, category_ids from meander.predictions")
    assert sorted(answer.fetchall()) == sorted(good)
    assert report["users"] + sum(report["set_aside"].values()) == len(rows)
