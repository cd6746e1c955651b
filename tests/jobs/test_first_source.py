"""A first source: what is found out of a file, what is guessed, what is asked, and what is written down as assumed."""

import gzip
import json
from datetime import datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from jobs.first_source import first_source
from jobs.landing_files import LINE_BYTES, header_line
from jobs.source import load_source
from lake.errors import LandingUnreadable, SourceMismatch
from tests.jobs.test_packed import zipped


@pytest.fixture
def look(tmp_path):
    """Write a file and return its first source, after it was loaded as a source."""

    def build(content, name="log", chosen=None, ask=None):
        file = tmp_path / name
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        found = first_source(str(file), "mine", chosen or {}, ask)
        (tmp_path / "mine.yaml").write_text(found.as_yaml(), encoding="utf-8")
        source = load_source(str(tmp_path / "mine.yaml"))
        assert source.name == "mine"
        return found

    return build


def keys(found):
    return {key: value for key, value in found.content.items() if key not in ("name", "description")}


def doubts(found):
    return [text for texts in found.doubts.values() for text in texts]


def test_a_plain_log_of_csv(look):
    found = look(
        "user_id,event_time,event_type,product_id,category_id,price,brand\n"
        "u1,2024-03-05T10:00:00Z,view,i1,c1,1.50,b\n"
        "u2,2024-03-05T10:01:00Z,remove_from_cart,i2,c1,,b\n"
        "u2,2024-03-05T10:02:00Z,add_to_cart,i2,c1,2,b\n"
    )
    assert keys(found) == {
        "format": "csv",
        "user_id": "user_id",
        "item_id": "product_id",
        "category_id": "category_id",
        "price": "price",
        "time": {"column": "event_time", "format": "iso8601"},
        "behavior": {
            "column": "event_type",
            "values": {"view": "view", "remove_from_cart": "ignore", "add_to_cart": "cart"},
        },
    }
    assert doubts(found) == []


@pytest.mark.parametrize(
    ("columns", "item"),
    [
        ("user_id,timestamp,parent_asin,asin,rating", "parent_asin"),  # of two alike, the first
        ("CustomerID,InvoiceDate,StockCode,Description,Quantity", "StockCode"),
        ("user_id,timestamp,EAN,leanness,n", "EAN"),
    ],
)
def test_goods_that_are_known_by_a_number_of_trade_are_items(look, columns, item):
    found = look(f"{columns}\nu1,2024-03-05T10:00:00Z,x1,x2,1\nu2,2024-03-05T10:01:00Z,y1,y2,2\n")
    assert found.content["item_id"] == item


def test_an_export_of_a_german_spreadsheet(look):
    found = look(
        "\ufeffDatum;Kunde;Aktion;Artikel;Warengruppe;Preis\r\n"
        "05.03.2024 10:00;k1;Ansicht;a1;Möbel;1.299,00 €\r\n"
        "17.03.2024 10:01;k2;Kauf;a2;Möbel;12,00 €\r\n"
    )
    assert keys(found) == {
        "format": "csv",
        "delimiter": ";",
        "user_id": "Kunde",
        "item_id": "Artikel",
        "category_id": "Warengruppe",
        "price": "Preis",
        "amounts": {"decimal": ","},
        "time": {"column": "Datum", "format": "dd.MM.yyyy HH:mm", "zone": "UTC"},
        "behavior": {"column": "Aktion", "values": {"Ansicht": "view", "Kauf": "purchase"}},
    }
    assert doubts(found) == [
        "Assumed: times are in UTC. Write the shop's zone, such as Europe/Berlin, if they are not."
    ]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param("user\ttime\titem\na\t1709596800\tx\nb\t1709596801\ty\n", {"delimiter": "\t"}, id="tabs"),
        pytest.param("user||time||item\na||1709596800||x\n", {"delimiter": "||"}, id="two signs"),
        pytest.param("user::time::item\na::1709596800::x\n", {"delimiter": "::"}, id="MovieLens"),
        pytest.param("sep=;\nuser;time;item\na;1709596800;x\n", {"delimiter": ";"}, id="found again when it is read"),
        pytest.param(
            "Export\nof May\nuser,time,item\na,1709596800,x\nb,1709596801,y\n", {"skip_lines": 2}, id="preamble"
        ),
        pytest.param(
            "Report of March\n\nuser,time,item\na,1709596800,x\nb,1709596801,y\n", {"skip_lines": 2}, id="a blank line"
        ),
        pytest.param(
            "sep=,\nReport of March\nuser,time,item\na,1709596800,x\nb,1709596801,y\n",
            {"skip_lines": 2},
            id="the line of a spreadsheet counts among others",
        ),
        pytest.param(",user,time,item\n0,a,1709596800,x\n1,b,1709596801,y\n", {}, id="the index of pandas"),
        pytest.param("user,time,item,weight (kg)\na,1709596800,x,1\n", {}, id="a name with signs"),
        pytest.param("user,time,item,tag,tag\na,1709596800,x,1,2\n", {}, id="a name twice that is not read"),
        pytest.param(
            'user,time,item\na,1709596800,"x, \\"y\\""\nb,1709596801,z\n', {"escape": "backslash"}, id="MySQL"
        ),
        pytest.param('"user", "time", "item"\na,1709596800,x\n', {}, id="a header in quotes, with blanks"),
    ],
)
def test_how_a_file_of_csv_is_read(look, content, expected):
    found = keys(look(content))
    assert found["time"] == {"column": "time", "format": "epoch_s"}
    assert (found["user_id"], found["item_id"]) == ("user", "item")
    assert {key: found[key] for key in ("delimiter", "skip_lines", "escape") if key in found} == expected


def test_the_lines_above_are_those_that_are_skipped_when_it_is_read(look, tmp_path):
    text = "Report of March\n\nuser,time,item\na,1709596800,x\nb,1709596801,y\n"
    for content in (text, "sep=,\n" + text, "\n" + text.split("\n\n")[1], "sep=,\n" + text.split("\n\n")[1]):
        look(content)
        source = load_source(str(tmp_path / "mine.yaml"))
        assert header_line(source, "log", content.encode()) == "user,time,item"


def test_a_first_line_with_a_column_that_was_named_is_a_header(look):
    found = look("2023,2024,what is it?\na,1709596800,x\n", chosen={"user_id": "2023", "time": "2024"})
    assert (keys(found)["user_id"], "header" in keys(found)) == ("2023", False)


def test_what_a_file_says_does_not_become_a_key(look, tmp_path):
    """A name in a comment stays in it; YAML ends a line at more characters than one."""
    evil = ["b_user\nevolve: true", "b_user\u2028evolve: true", "b_user\x85evolve: true", "b_user\x07"]
    for name in evil:
        found = look(json.dumps({"a_user": "a", name: "b", "time": 1709596800, "item": "x"}) + "\n")
        assert load_source(str(tmp_path / "mine.yaml")).evolve is False
        assert any("not b_user" in text for text in doubts(found)), "the comment has the name"


def test_a_behavior_without_a_value_is_told(look):
    with pytest.raises(
        SourceMismatch, match=r"event, the column of the behavior, has no value in the first 1 rows; name"
    ):
        look("user,time,item,event\na,1709596800,x,\n", chosen={"behavior": "event"})


def test_a_zone_is_asked_for_until_it_is_one(look):
    asked, answers = [], iter(["Berlin", "Europe/Berlin"])

    def ask(question, _, likely):
        asked.append(question)
        return next(answers) if "zone" in question else likely

    found = look("user,time,item\na,2024-03-05 10:00:00,x\n", ask=ask)
    assert found.content["time"]["zone"] == "Europe/Berlin"
    assert [each[:35] for each in asked if "zone" in each] == [
        "In which zone are times (such as Eu",
        "'Berlin' is no IANA time zone. In w",
    ]


@pytest.mark.parametrize(
    ("value", "meaning"),
    [
        ("begin_checkout", "ignore"),
        ("InitiateCheckout", "ignore"),
        ("view_cart", "ignore"),
        ("unlike", "ignore"),
        ("dislike", "ignore"),
        ("add_shipping_info", "ignore"),
        ("add_payment_info", "ignore"),
        ("like", "favorite"),
        ("add_to_wishlist", "favorite"),
        ("checkout", "purchase"),
        ("add_to_cart", "cart"),
        ("view_item", "view"),
        ("view_item_list", "view"),
        ("view_search_results", "search"),
        ("change of sort order", "ignore"),
        ("filter selection", "ignore"),
    ],
)
def test_what_a_behavior_is_called(look, value, meaning):
    found = look(f"user,time,item,event\na,1709596800,x,{value}\n")
    assert found.content["behavior"]["values"] == {value: meaning}


def test_bytes_of_parquet_are_text(look, tmp_path):
    rows = {"user": [b"a", b"b"], "time": [1709596800, 1709596801], "item": ["x", "y"], "event": [b"view", b"buy"]}
    file = tmp_path / "written"
    pq.write_table(pa.table(rows), file)
    found = look(file.read_bytes())
    assert found.content["behavior"]["values"] == {"view": "view", "buy": "purchase"}


def test_a_file_without_a_header_is_asked_for_by_its_values(look):
    with pytest.raises(SourceMismatch, match=r"no column looks like a user among c1, c2, c3; name it by --user COLUMN"):
        look("7,2024-03-05 10:00:00,x\n8,2024-03-05 10:00:01,y\n")
    found = look("7,2024-03-05 10:00:00,x\n8,2024-03-05 10:00:01,y\n", chosen={"user_id": "c1", "item_id": "c3"})
    assert keys(found) == {
        "format": "csv",
        "header": False,
        "columns": ["c1", "c2", "c3"],
        "user_id": "c1",
        "item_id": "c3",
        "time": {"column": "c2", "format": "iso8601", "zone": "UTC"},
        "behavior": {"constant": "view"},
    }
    assert doubts(found)[:2] == [
        "The file has no header: give the columns their names, here and below.",
        "Assumed by its values alone: time is c2.",
    ]
    with pytest.raises(SourceMismatch, match=r"has no column c9; it has c1, c2, c3"):
        look("7,2024-03-05 10:00:00,x\n8,2024-03-05 10:00:01,y\n", chosen={"user_id": "c9"})


@pytest.mark.parametrize(
    ("times", "expected", "is_in_doubt"),
    [
        (["2024-03-05 10:00:00 UTC"], {"format": "iso8601"}, False),
        (["2024-03-05 10:00:00", "2024-03-05 10:00:00.5"], {"format": "iso8601", "zone": "UTC"}, True),
        (["1709596800000"], {"format": "epoch_ms"}, False),
        (["1709596800.25"], {"format": "epoch_s"}, False),
        (["1709596800000000000"], {"format": "epoch_ns"}, False),
        (["05/Mar/2024:05:00:00 -0500"], {"format": "dd/MMM/yyyy:HH:mm:ss Z"}, False),
        (["20240305100000"], {"format": "yyyyMMddHHmmss", "zone": "UTC"}, True),
        (["25/03/2024 10:00"], {"format": "dd/MM/yyyy HH:mm", "zone": "UTC"}, True),
        (["03/25/2024 10:00"], {"format": "MM/dd/yyyy HH:mm", "zone": "UTC"}, True),
        (["2024-03-05T10:00:00Z"] * 19 + ["broken"], {"format": "iso8601"}, False),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_how_times_are_written(look, times, expected, is_in_doubt):
    found = look("user,time,item,event\n" + "".join(f"a,{each},x,view\n" for each in times))
    assert keys(found)["time"] == {"column": "time", **expected}
    assert bool(doubts(found)) == is_in_doubt


def test_days_that_could_be_months_are_told(look):
    log = "user,time,item,event\na,03/04/2024 10:00,x,view\n"
    assert "Assumed: days come before months. If not, write 'MM/dd/yyyy HH:mm'." in doubts(look(log))
    asked = []

    def ask(question, answers, likely):
        asked.append((question, tuple(answers), likely))
        return "America/New_York" if "zone" in question else answers[-1]

    found = look(log, ask=ask)
    assert keys(found)["time"] == {"column": "time", "format": "MM/dd/yyyy HH:mm", "zone": "America/New_York"}
    assert asked == [
        (
            "No day in time tells day from month. How are dates written?",
            ("dd/MM/yyyy HH:mm", "MM/dd/yyyy HH:mm"),
            "dd/MM/yyyy HH:mm",
        ),
        ("In which zone are times (such as Europe/Berlin)?", (), "UTC"),
    ]
    assert doubts(found) == []


def test_what_nothing_tells_is_asked_or_assumed(look):
    """Codes say nothing: without an answer they are views, other words are left out."""
    log = (
        "user,time,item,action\n"
        + "".join(f"a,170959680{n},x,{word}\n" for n, word in enumerate("0102"))
        + ("a,1709596809,x,swipe\n")
    )
    found = look(log)
    assert keys(found)["behavior"]["values"] == {"0": "view", "1": "view", "2": "view", "swipe": "ignore"}
    assert doubts(found)[-1] == "Assumed, since nothing tells it: 'swipe' is ignore."
    answers = {"'0'": "view", "'1'": "cart", "'2'": "purchase", "'swipe'": "favorite"}
    found = look(log, ask=lambda question, *_: answers[question.split()[-1].rstrip("?")])
    assert keys(found)["behavior"]["values"] == {"0": "view", "1": "cart", "2": "purchase", "swipe": "favorite"}
    assert doubts(found) == []


def test_of_several_columns_one_is_assumed_or_chosen(look):
    log = "user_id,customer_id,time,item,event\na,b,1709596800,x,view\n"
    found = look(log)
    assert keys(found)["user_id"] == "user_id"
    assert "Assumed: user_id is user_id, not customer_id." in doubts(found)
    found = look(log, ask=lambda question, _, likely: "customer_id" if "user" in question else likely)
    assert keys(found)["user_id"] == "customer_id"
    assert keys(look(log, chosen={"user_id": "customer_id"}))["user_id"] == "customer_id"


def test_calls_of_a_tracker(look):
    """Parts of objects, a user who may be anonymous, and an order without a product of its own."""
    rows = [
        {"event": "Product Viewed", "userId": "u", "anonymousId": "a", "timestamp": "2024-03-05T10:00:00Z",
         "properties": {"product_id": "p1", "price": 1.5}},
        {"event": "Product Added", "userId": None, "anonymousId": "b", "timestamp": "2024-03-05T10:01:00Z",
         "properties": {"product_id": "p1"}},
    ]  # fmt: skip
    found = look("".join(json.dumps(row) + "\n" for row in rows))
    assert keys(found) == {
        "format": "jsonl",
        "user_id": ["userId", "anonymousId"],
        "item_id": "properties.product_id",
        "price": "properties.price",
        "may_lack": ["properties.product_id", "properties.price"],
        "time": {"column": "timestamp", "format": "iso8601"},
        "behavior": {"column": "event", "values": {"Product Viewed": "view", "Product Added": "cart"}},
    }
    assert doubts(found) == ["Assumed: where userId is empty, anonymousId is the user."]


def test_a_list_of_events_in_each_row(look):
    row = {"session": 7, "events": [{"aid": n, "ts": 1709596800000 + n, "type": "clicks"} for n in range(30)]}
    found = look(json.dumps(row) + "\n")
    assert keys(found) == {
        "format": "jsonl",
        "each": "events",
        "user_id": "session",
        "item_id": "events.aid",
        "may_lack": ["events.aid"],
        "time": {"column": "events.ts", "format": "epoch_ms"},
        "behavior": {"column": "events.type", "values": {"clicks": "view"}},
    }


def test_parquet(look, tmp_path):
    times = [datetime(2024, 3, 5) + timedelta(minutes=n) for n in range(3)]
    pq.write_table(
        pa.table(
            {"visitorid": [1, 2, 3], "when": times, "itemid": [1, None, 3], "event": ["view", "view", "transaction"]}
        ),
        tmp_path / "written",
    )
    found = look((tmp_path / "written").read_bytes(), "part-0")
    assert keys(found) == {
        "format": "parquet",
        "user_id": "visitorid",
        "item_id": "itemid",
        "time": {"column": "when", "format": "iso8601", "zone": "UTC"},
        "behavior": {"column": "event", "values": {"view": "view", "transaction": "purchase"}},
    }


@pytest.mark.parametrize(
    ("encoding", "is_certain"),
    [("utf-8", True), ("utf-8-sig", True), ("utf-16", True), ("gb18030", False), ("windows-1252", False)],
)
def test_the_encoding_of_a_file(look, encoding, is_certain):
    words = (
        "电子产品 家居用品 服装鞋帽 图书音像" if encoding == "gb18030" else "Möbel für große Räume, Küche und Gärten"
    )
    rows = "".join(f"u{n};2024-03-05T10:00:{n:02}Z;{words};view\n" for n in range(60))
    found = look(f"user;time;item;event\n{rows}".encode(encoding))
    # Several encodings have the same letters.
    assert words.encode(encoding).decode(found.content.get("encoding", "utf-8-sig")) == words
    assert bool(doubts(found)) == (not is_certain)
    assert look(gzip.compress(f"user;time;item;event\n{rows}".encode()), "log.gz").content["format"] == "csv"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("indent", [None, 2])
def test_an_array_of_json_is_described_as_lines_are(look, encoding, indent):
    rows = [{"user": f"u{n}", "at": 1740909600 + n, "item": {"id": n}, "action": "view"} for n in range(30)]
    lines = look("".join(f"{json.dumps(row)}\n" for row in rows).encode(encoding)).content
    found = look(json.dumps(rows, indent=indent).encode(encoding)).content
    assert found == lines
    assert (found["format"], found["item_id"], found["time"]["format"]) == ("jsonl", "item.id", "epoch_s")
    # In a .zip, the first of its files.
    packed = look(zipped(b=b"x", a=json.dumps(rows, indent=indent).encode(encoding)), "log.zip").content
    assert packed == {**lines, "description": "Written by `meander source init` from log.zip."}


@pytest.mark.parametrize(
    ("encoding", "note", "rows"),
    [
        # In UTF-8, what is looked at has half as many bytes.
        ("utf-16", "x" * 600, 1500),
        # The mark is no part of the text, and so little is behind the last whole row.
        ("utf-8-sig", "x" * 1050, 1100),
        # Of the last character that is looked at, the end is missing.
        ("utf-8", "\u6b4c" * 400_000, 2),
    ],
)
def test_of_a_long_array_the_first_rows_are_described(look, encoding, note, rows):
    texts = [
        json.dumps({"user": f"u{n}", "at": 1740909600 + n, "item": n, "note": note}, ensure_ascii=False)
        for n in range(rows)
    ]
    # Rows of few bytes before the long ones: of these, none may be whole.
    first = [json.dumps({"user": f"v{n}", "at": 1740909600 + n, "item": n}) for n in range(5)]
    content = f"[{','.join([*first, *texts])}]".encode(encoding)
    assert len(content) > LINE_BYTES
    found = look(content).content
    assert (found["format"], found["user_id"], found["item_id"], found["time"]["format"]) == (
        "jsonl",
        "user",
        "item",
        "epoch_s",
    )


def test_a_first_line_that_is_an_empty_batch_is_no_row_of_csv(look):
    rows = "".join(json.dumps({"user": f"u{n}", "at": 1740909600 + n, "item": n}) + "\n" for n in range(5))
    assert look(f"[]\n{rows}").content == look(rows).content


@pytest.mark.parametrize("first", [b"", b"user;at;item;action\n", b"\n\n", b"[]"])
def test_of_a_zip_the_first_file_that_has_a_row_is_described(look, first):
    rows = b"user;at;item;action\nu1;2025-03-02T10:00:00Z;i1;view\nu2;2025-03-02T11:00:00Z;i2;buy\n"
    found = look(zipped(a=first, b=rows, c=b"x"), "log.zip").content
    assert found == {**look(rows).content, "description": "Written by `meander source init` from log.zip."}


@pytest.mark.parametrize(
    ("last", "says"),
    [
        (b"", r"log\.zip has no row; a source is written by looking at some"),
        (b"user;at;item;action\n", "no column looks like a time"),
    ],
)
def test_a_zip_without_a_row_is_told(look, last, says):
    with pytest.raises(SourceMismatch, match=says):
        look(zipped(a=b"", b=last, c=b"[]"), "log.zip")


def test_a_damaged_array_is_told(look):
    with pytest.raises(LandingUnreadable, match=r"expected an array of JSON, with , or \] behind row 1, at byte 15"):
        look('[{"user": "a"}\n{"user": "b"}]\n')


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "has no row"),
        ("\n\n", "has no row"),
        ("[ ]\n", "has no row"),
        ("a,b\n1,2\n", "found 2 columns by ','; an event needs at least a user, a time and an item"),
        ("user,price,item\na,1,x\n", "no column looks like a time among user, price, item; name it by --time COLUMN"),
    ],
)
def test_what_is_no_log_is_told(look, content, says):
    with pytest.raises(SourceMismatch, match=says):
        look(content)


@pytest.mark.parametrize(
    "name", ["user\x85", "\u2028user", "a: b", "- user", "*user", "null", "2024-01-01", "\x1b[2J", "#u"]
)
def test_a_column_of_any_name_is_written_so_that_it_is_read_as_it_is(tmp_path, name):
    """An end of a line that few know was read as a blank: the source named a column that no file has."""
    file = tmp_path / "log.jsonl"
    rows = [{name: "u1", "time": "2024-01-01T10:00:00Z", "item": f"i{n}"} for n in range(3)]
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    found = first_source(str(file), "mine", {"user_id": name, "time": "time", "item_id": "item"}, None)
    assert yaml.safe_load(found.as_yaml()) == found.content
    assert all(each.isprintable() for each in found.as_yaml().replace("\n", ""))
