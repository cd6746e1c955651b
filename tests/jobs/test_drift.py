"""Columns that have other types than on the days before are refused, and headers that differ are told."""

import json
from datetime import date

import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import orc

from jobs import ingest
from jobs.drift import (
    MOST_COLUMNS,
    column_difference,
    column_types,
    columns_of,
    columns_seen,
    csv_header,
    header_difference,
    plain,
    require_same_types,
    said_before,
    told,
)
from jobs.input_counts import unknown_behaviors
from jobs.rejections import REJECTED
from jobs.source import Value, load_source
from lake.errors import SourceMismatch
from lake.privacy.forgotten import list_users
from lake.publish import publish
from tests.lake.stagings import stage_files

DAY, BEFORE = date(2025, 3, 10), date(2025, 3, 9)
TYPES = {"user_id": "int64", "event_time": "string", "behavior": "string", "item_id": "int64", "price": "double"}


def source(**changes):
    return load_source("canonical").model_copy(update=changes)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        pytest.param({}, None, id="the same"),
        pytest.param({"brand": "string", "category_id": "int64"}, None, id="more columns"),
        pytest.param({"user_id": "double"}, "user_id: was int64, is double", id="another type"),
        pytest.param({"price": "null"}, None, id="without any value, as of a day without rows"),
        pytest.param({"price": None}, "price: was double, is missing", id="gone"),
        pytest.param(
            {"price": None, "cost": "double", "shop": "string"},
            r"price: was double, is missing \(of that type there are cost\)",
            id="renamed",
        ),
        pytest.param(
            {"user_id": "string", "item_id": "string"},
            "user_id: was int64, is string; item_id: was int64, is string",
            id="several",
        ),
    ],
)
def test_columns_are_compared_with_those_of_the_day_before(changes, says):
    now = {name: kind for name, kind in {**TYPES, **changes}.items() if kind}
    # The day after a day without any value.
    require_same_types(source(), TYPES, (BEFORE, dict.fromkeys(TYPES, "null")))
    # The order of columns in Parquet means nothing.
    now = dict(sorted(now.items(), reverse=True))
    require_same_types(source(), now, None)
    require_same_types(source(evolve=True), now, (BEFORE, TYPES))
    if says is None:
        require_same_types(source(), now, (BEFORE, TYPES))
        return
    with pytest.raises(SourceMismatch, match=f"canonical: the columns differ from those of 2025-03-09: {says}\\. Have"):
        require_same_types(source(), now, (BEFORE, TYPES))


def test_a_column_that_may_vanish_may_but_not_become_another_one():
    without = {name: kind for name, kind in TYPES.items() if name != "price"}
    require_same_types(source(may_vanish=["price"]), without, (BEFORE, TYPES))
    with pytest.raises(SourceMismatch, match="price: was double, is string"):
        require_same_types(source(may_vanish=["price"]), {**TYPES, "price": "string"}, (BEFORE, TYPES))


def test_a_run_over_text_has_no_types_to_compare():
    require_same_types(source(), {}, (BEFORE, TYPES))


def commit(last: str, price: str, of: str = "canonical") -> dict:
    return {"last": last, "counts": json.dumps({"source": of, "types": {"price": price}})}


@pytest.mark.parametrize(
    ("commits", "found"),
    [
        pytest.param([], None, id="none"),
        pytest.param([commit("2025-03-07", "old"), commit("2025-03-08", "near")], "near", id="the nearest day"),
        pytest.param([commit("2025-03-08", "new"), commit("2025-03-08", "old")], "new", id="its newest publish"),
        pytest.param([commit("2025-03-11", "later"), commit("2025-03-10", "same")], None, id="later days say nothing"),
        pytest.param([commit("2025-02-10", "old")], "old", id="28 days before"),
        pytest.param([commit("2025-02-09", "older")], None, id="29 days before"),
        pytest.param([commit("2025-03-08", "other", of="taobao")], None, id="another source"),
        pytest.param([{"last": "2025-03-08", "counts": "{}"}], None, id="before types were written down"),
        pytest.param(
            [{**commit("2025-03-08", "bad"), "refused": '["2025-03-08"]'}, commit("2025-03-07", "good")],
            "good",
            id="of a day that was withheld nobody reads",
        ),
        pytest.param(
            [{**commit("2025-03-08", "kept"), "refused": '["2025-03-07"]'}], "kept", id="another was withheld"
        ),
    ],
)
def test_the_types_before_are_those_of_the_nearest_day_before(commits, found):
    before = said_before("types", commits, "canonical", DAY)
    assert (before and before[1]["price"]) == found


def test_types_are_those_of_the_file(tmp_path):
    file = tmp_path / "a.parquet"
    pd.DataFrame({"a": [1], "b": ["x"], "c": [1.5]}).to_parquet(file)
    text = tmp_path / "a.jsonl"
    text.touch()
    assert {name: kind for name, kind in column_types([str(text), str(file)]).items() if name != "b"} == {
        "a": "int64",
        "c": "double",
    }
    assert column_types([str(text)]) == {}
    file.write_bytes(b"cut off")
    assert column_types([str(file)]) == {}, "the check of the files says what is wrong with it"


@pytest.mark.parametrize("name", ["a.orc", "000000_0"])
def test_types_of_orc_are_compared_too(tmp_path, name):
    file = tmp_path / "dt=2025-03-10" / name
    file.parent.mkdir()
    orc.write_table(pa.table({"user_id": [1.5], "price": [1.5]}), file)
    assert column_types([str(file)]) == {"user_id": "double", "price": "double"}
    days_before = [commit(BEFORE, types={"user_id": "int64"})]
    with pytest.raises(SourceMismatch, match="user_id: was int64, is double"):
        columns_of(source(), [(source(), [str(file)])], DAY, DAY, days_before)


def test_the_job_refuses_a_day_whose_ids_have_become_fractions_before_it_starts_spark(lake):
    counts = {"source": "canonical", "types": {"user_id": "int64"}}
    stage_files("events", "r", [], [BEFORE], None, counts=counts)
    publish("events", "r")
    folder = lake / "landing" / f"dt={DAY}"
    folder.mkdir(parents=True)
    pd.DataFrame({"user_id": [1.0], "event_time": ["2025-03-10T00:00:00Z"], "behavior": ["view"]}).to_parquet(
        folder / "a.parquet"
    )
    with pytest.raises(SourceMismatch, match=r"differ from those of 2025-03-09: user_id: was int64, is double"):
        ingest.main(["--day", str(DAY), "--run-id", "r2"])


# ---- headers of CSV ----

HEADER = ["event_time", "event_type", "product_id", "price", "user_id"]


@pytest.mark.parametrize(
    ("now", "says"),
    [
        pytest.param(HEADER, "", id="the same"),
        pytest.param(
            ["event_time", "event_type", "product", "price", "user_id"],
            "'product_id' is gone, and 'product' is in its place (renamed?)",
            id="renamed",
        ),
        pytest.param(
            ["event_time", "kind", "product", "price", "user_id"],
            "'event_type' is gone, and 'kind' is in its place (renamed?); "
            "'product_id' is gone, and 'product' is in its place (renamed?)",
            id="two renamed",
        ),
        pytest.param([*HEADER, "shop"], "new: 'shop'", id="one more"),
        pytest.param(["shop", *HEADER], "new: 'shop'", id="one more before all others, which keep their order"),
        pytest.param(HEADER[:3] + HEADER[4:], "gone: 'price'", id="one fewer"),
        pytest.param(
            ["event_time", "event_type", "price", "product_id", "user_id"],
            "in another order: 'event_time', 'event_type', 'price', 'product_id', 'user_id'",
            id="two have changed places",
        ),
        pytest.param(
            ["user_id", "event_time", "event_type", "cost", "product_id"],
            "'price' is gone, and 'cost' is in its place (renamed?); "
            "in another order: 'user_id', 'event_time', 'event_type', 'product_id'",
            id="renamed and moved",
        ),
        pytest.param(
            ["price", "event_time", "cost", "user_id", "event_type", "shop"],
            "gone: 'product_id'; new: 'cost', 'shop'; in another order: 'price', 'event_time', 'user_id', 'event_type'",
            id="of two new ones nobody can tell",
        ),
    ],
)
def test_what_a_supplier_has_changed_of_a_header(now, says):
    assert header_difference(HEADER, now) == says


def test_a_header_is_compared_with_one_alone():
    commits = [
        {"last": str(BEFORE), "counts": json.dumps({"source": "rees46", "header": HEADER})},
        {"last": str(BEFORE), "counts": json.dumps({"source": "rees46", "types": {"a": "int64"}})},
    ]
    assert said_before("header", commits, "rees46", DAY) == (BEFORE, HEADER)
    assert said_before("header", commits, "taobao", DAY) is None


@pytest.mark.parametrize(
    ("content", "found"),
    [
        pytest.param("a,b c,d-e\n1,2,3\n", ["a", "b c", "d-e"], id="a header"),
        pytest.param('"a", b ,c\n1,2,3\n', ["a", "b", "c"], id="quotes and blanks are no part of a name"),
        pytest.param("sep=,\na,b\n1,2\n", ["a", "b"], id="below the line of a spreadsheet"),
        pytest.param("2019-10-01 00:00:00 UTC,view,7\n", [], id="a row of the log is told to nobody"),
        pytest.param("", [], id="an empty file"),
    ],
)
def test_the_header_of_a_file(tmp_path, content, found):
    empty, parquet, file = (tmp_path / name for name in ("a.csv", "b.parquet", "c.csv"))
    empty.touch()
    pd.DataFrame({"z": [1]}).to_parquet(parquet)
    file.write_text(content)
    rees46 = load_source("rees46")
    assert csv_header(rees46, map(str, (empty, parquet, file))) == found
    assert csv_header(load_source("taobao"), [str(file)]) == [], "it has no header"
    assert csv_header(load_source("canonical"), [str(file)]) == [], "it is no CSV"


def test_the_job_tells_what_became_of_a_column_that_it_then_refuses_to_do_without(lake, caplog, monkeypatch):
    monkeypatch.setenv("MEANDER_SOURCE", "rees46")
    header = "event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session"
    stage_files("events", "r", [], [BEFORE], None, counts={"source": "rees46", "header": header.split(",")})
    publish("events", "r")
    file = lake / "landing" / f"dt={DAY}" / "a.csv"
    file.parent.mkdir(parents=True)
    file.write_text(header.replace("user_id", "client") + "\n")
    # Without Spark: the check of the files comes first.
    monkeypatch.setattr(ingest, "spark_session", lambda *_: None)
    with pytest.raises(SourceMismatch, match=r"found the names .* price, client, user_session"):
        ingest.main(["--day", str(DAY), "--run-id", "r2"])
    assert "differ from those of 2025-03-09: 'user_id' is gone, and 'client' is in its place (renamed?)" in caplog.text


# ---- what a supplier has changed ----


def commit(day, of="canonical", **counts):
    return {"last": str(day), "counts": json.dumps({"source": of, **counts})}


def supplied(source, file, commits):
    """Return what is told of one file, and what is written down of it."""
    found = columns_of(source, [(source, [str(file)])], DAY, DAY, commits)
    return found.pop("supplied", None), found


@pytest.mark.parametrize(
    ("before", "now", "says"),
    [
        pytest.param({"a": "int64"}, {"a": "int64"}, [], id="the same"),
        pytest.param({"a": "int64", "b": "string"}, {"b": "string", "a": "int64"}, [], id="their order means nothing"),
        pytest.param({"a": "int64"}, {"a": "int64", "c": "double"}, ["new: 'c' (double)"], id="one more"),
        pytest.param({"a": "int64", "b": "string"}, {"a": "int64"}, ["gone: 'b'"], id="one fewer"),
        pytest.param({"a": "int64"}, {"a": "double"}, ["'a' was int64, is double"], id="of another type"),
        pytest.param({"a": "null"}, {"a": "double"}, [], id="of a type that nobody knew"),
        pytest.param({"a": "double"}, {"a": "null"}, [], id="without a value"),
    ],
)
def test_columns_that_differ_are_told(before, now, says):
    assert column_difference(before, now) == says


def test_columns_of_parquet_that_are_not_read_are_compared_too(tmp_path):
    """A type that was known stays known over a day without any value; of very wide files the used ones count alone."""
    file = tmp_path / "a.parquet"
    pd.DataFrame({"user_id": [1], "shop": [1.5], "brand": [None]}).to_parquet(file)
    wanted = source(evolve=True)
    told_first, kept = supplied(wanted, file, [])
    assert (told_first, kept["columns"]) == (None, {"user_id": "int64", "shop": "double", "brand": "null"})
    assert kept["types"] == {"user_id": "int64"}
    before = {"user_id": "int64", "shop": "int64", "brand": "string", "color": "string"}
    changes, kept = supplied(wanted, file, [commit(BEFORE, columns=before)])
    assert changes == {"since": "2025-03-09", "changes": ["gone: 'color'", "'shop' was int64, is double"]}
    assert kept["columns"] == {"user_id": "int64", "shop": "double", "brand": "string"}
    pd.DataFrame({"user_id": [1], **{f"c{n}": [1] for n in range(MOST_COLUMNS)}}).to_parquet(file)
    found = supplied(wanted, file, [])[1]
    assert (found["columns"], found["used_alone"]) == ({"user_id": "int64"}, True)
    # Neither the day before nor the day after differs from it by what was not compared.
    narrow = dict.fromkeys(("user_id", *(f"c{n}" for n in range(MOST_COLUMNS - 1))), "int64")
    assert supplied(wanted, file, [commit(BEFORE, columns=narrow)])[0] is None
    pd.DataFrame({name: [1] for name in narrow}).to_parquet(file)
    after, kept = supplied(wanted, file, [commit(BEFORE, columns=found["columns"], used_alone=True)])
    assert (after, kept["columns"]) == (None, narrow)
    assert supplied(wanted, file, [commit(BEFORE, columns={"user_id": "int64"})])[0] is not None


def test_keys_that_may_be_people_are_told_to_nobody(tmp_path):
    """Not as they are now, and not as they were kept before; what the source reads is in its file already."""
    file = tmp_path / "a.jsonl"
    file.write_text('{"user_id": 1, "ann@example.org": {"x": 1}, "by": {"7f3a": 1, "shop": 2}, "@t": 1, "@v": 1}\n')
    wanted = source(time=source().time.model_copy(update={"column": Value(columns=("@t",))}))
    _, kept = supplied(wanted, file, [])
    assert kept["columns"] == {"user_id": "number", "by.shop": "number", "@t": "number"}
    found = columns_of(
        wanted, [(wanted, [str(file)])], DAY, DAY, [commit(BEFORE, columns={"ann": "x"})], used_alone=True
    )
    assert found == {"types": {}, "used_alone": True, "columns": {"user_id": "number", "@t": "number"}}
    csv = tmp_path / "a.csv"
    csv.write_text(",".join([*HEADER, "shop"]) + "\n")
    rees46 = load_source("rees46")
    assert columns_of(rees46, [(rees46, [str(csv)])], DAY, DAY, [], used_alone=True)["header"] == HEADER


def test_what_is_inside_of_a_struct_is_told_only_as_names():
    kind = pa.list_(pa.struct([("shop", pa.int64()), ("by", pa.struct([("first name", pa.string())]))]))
    assert plain(kind) == "list<item: struct<shop: int64, by: struct<first name: string>>>"
    assert plain(pa.list_(pa.struct([("by", pa.struct([("ann@example.org", pa.int64())]))]))) == "list"


def test_keys_of_json_that_most_objects_have_are_compared(tmp_path):
    rows = [{"user_id": f"u{n}", "shop": {"id": n}, **({"rare": 1} if n < 4 else {})} for n in range(10)]
    file = tmp_path / "a.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    told_first, kept = supplied(source(), file, [])
    assert (told_first, kept["columns"]) == (None, {"user_id": "text", "shop.id": "number"})
    before = {"user_id": "number", "shop.id": "number or text", "rare": "number", "gone": "list"}
    changes, kept = supplied(source(), file, [commit(BEFORE, columns=before)])
    assert changes["changes"] == ["gone: 'gone'", "'user_id' was number, is text"]
    assert kept["columns"] == {"user_id": "text", "shop.id": "number or text", "rare": "number"}
    assert kept["types"] == {}


def test_the_header_is_compared_with_that_of_the_day_before(tmp_path):
    rees46 = load_source("rees46")
    file = tmp_path / "a.csv"
    file.write_text(",".join([*HEADER, "shop"]) + "\n")
    commits = [commit(BEFORE, "rees46", header=HEADER)]
    changes, kept = supplied(rees46, file, commits)
    assert changes == {"since": "2025-03-09", "changes": ["new: 'shop'"]}
    assert (kept["header"], "columns" in kept) == ([*HEADER, "shop"], False)
    (message,) = told(rees46, {"supplied": changes})
    assert message.startswith(
        "source rees46: the columns of the files differ from those of 2025-03-09: new: 'shop'. Columns that the source "
        "reads: user_id"
    )
    assert told(rees46, {"header": HEADER}) == []
    assert supplied(rees46, file, [])[0] is None
    assert supplied(rees46, file, [commit(BEFORE, "rees46", header=[*HEADER, "shop"])])[0] is None


def test_all_columns_of_a_file_and_their_types(tmp_path):
    csv, jsonl, parquet = (tmp_path / f"a.{suffix}" for suffix in ("csv", "jsonl", "parquet"))
    csv.write_text(",".join(HEADER) + "\n")
    jsonl.write_text('{"b": 1, "a": "x"}\n')
    pd.DataFrame({"z": [1]}).to_parquet(parquet)
    assert columns_seen(load_source("rees46"), [str(csv)]) == dict.fromkeys(HEADER, "text")
    assert columns_seen(source(), [str(jsonl)]) == {"b": "number", "a": "text"}
    assert columns_seen(source(), [str(parquet)]) == {"z": "int64"}


@pytest.mark.spark
def test_values_without_a_meaning_are_told_and_kept_with_the_day(spark, lake, land, caplog, monkeypatch):
    """What may be no name of a behavior is told by its shape."""
    monkeypatch.setenv("MEANDER_MAX_REJECTED_SHARE", "1")

    def rows(behavior, n):
        time = "2025-03-10T00:00:00Z"
        return [{"user_id": f"u{k}", "event_time": time, "behavior": behavior, "item_id": "i"} for k in range(n)]

    # One that nobody else has may be a person, as may one that is no name. Of a forgotten user nothing is said.
    one_user = [{**row, "user_id": "u0"} for row in rows("u12345", 4)]
    of_few = [*rows("swipe", 3), *rows("ann@example.org", 3), *one_user, *rows("John Smith", 2)]
    forgotten = [{**row, "user_id": "forgotten"} for row in rows("gone", 5)]
    land(DAY, [*rows("view", 2), *of_few, *rows(None, 1), *forgotten, "broken"], "with a blank.jsonl")
    land(DAY, rows("view", 1), "b.jsonl")
    list_users({"forgotten"})
    monkeypatch.setenv("MEANDER_MIN_GROUP", "3")
    events, _ = ingest.main(["--day", str(DAY), "--run-id", "r"])
    assert events.counts["rejected"] == {"malformed_line": 1, "unknown_behavior": 13}
    assert events.counts["unknown_behaviors"] == {"x": 4, "a@a.a": 3, "swipe": 3, "a a": 2, "": 1}
    # With pseudonyms nothing is said of it.
    monkeypatch.setenv("MEANDER_LAKE", str(lake / "another"))
    monkeypatch.setenv("MEANDER_PSEUDONYM_KEY", bytes(range(7, 39)).hex())
    events, _ = ingest.main(["--day", str(DAY), "--run-id", "r2"])
    assert events.counts["rejected"]["unknown_behavior"] == 18
    assert "unknown_behaviors" not in events.counts


@pytest.mark.spark
def test_values_of_a_column_with_more_of_them_than_behaviors_are_told_by_their_shape(spark):
    def told(values):
        rows = [(REJECTED, "unknown_behavior", "n" * (n + 1), f"u{k}") for n in range(values) for k in range(2)]
        names = "outcome string, reason string, unknown_behavior string, user_id string"
        return unknown_behaviors(spark.createDataFrame(rows, names), 2)

    assert told(3) == {"n": 2, "nn": 2, "nnn": 2}
    assert told(51) == {"a": 102}


@pytest.mark.spark
def test_the_job_keeps_what_the_supplier_has_changed(spark, lake, land, caplog):
    counts = {"source": "canonical", "columns": {"user_id": "text", "brand": "text"}}
    stage_files("events", "r", [], [BEFORE], None, counts=counts)
    publish("events", "r")
    land(DAY, [{"user_id": "u", "event_time": "2025-03-10T00:00:00Z", "behavior": "view", "item_id": "i"}])
    events, _ = ingest.main(["--day", str(DAY), "--run-id", "r2"])
    changes = ["new: 'event_time' (text), 'behavior' (text), 'item_id' (text)", "gone: 'brand'"]
    assert events.counts["supplied"] == {"since": "2025-03-09", "changes": changes}
    assert f"differ from those of 2025-03-09: {'; '.join(changes)}. Columns that the source reads" in caplog.text
    assert events.counts["columns"] == dict.fromkeys(("user_id", "event_time", "behavior", "item_id"), "text")
