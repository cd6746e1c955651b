"""Files that Python reads give the rows that the same log gives as plain text or Parquet."""

import gzip
import io
import json
import lzma
from datetime import UTC, date, datetime
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import orc
from pyspark.sql import functions as F

from jobs import ingest
from jobs.landing_files import LINE_BYTES, check_files
from jobs.raw_rows import read_rows
from jobs.rejections import judge
from jobs.source import load_source
from lake.errors import LandingUnreadable, SourceMismatch
from lake.settings import Settings
from tests.jobs.tables import staged_rows
from tests.jobs.test_packed import zipped, zstd

pytestmark = pytest.mark.spark

PACK = {"zip": lambda text: zipped(**{"a.csv": text}), "xz": lzma.compress, "zst": zstd, "gz": gzip.compress}
HEADER = "timestamp,visitorid,event,itemid,transactionid"


@pytest.fixture
def deliver(lake):
    """Return a function that writes a landing file of 2 March 2025 and returns its path."""

    def write(name, content):
        file = lake / "landing" / "dt=2025-03-02" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        return str(file)

    return write


@pytest.mark.parametrize("kind", ["zip", "xz", "zst"])
def test_each_row_of_a_packed_file_is_an_event_or_in_quarantine_with_its_line(deliver, spark, monkeypatch, kind):
    monkeypatch.setenv("MEANDER_SOURCE", "retailrocket")
    rows = [f"1740909600000,{n},view,i{n}," for n in range(15_000)]  # of several batches
    rows[12_345] = "1740909600000,,view,i,"
    rows[14_000] = f"1740909600000,u,view,{'x' * LINE_BYTES},"
    text = "\r\n".join(["\ufeff" + HEADER, *rows, ""]).encode()
    packed = deliver(f"log 1.csv.{kind}", PACK[kind](text))
    deliver("plain.csv", f"{HEADER}\n1740909600000,u,view,plain,\n".encode())
    events, quarantine = ingest.main(["--day", "2025-03-02", "--run-id", "r1"])
    assert events.counts["input"] == 15_001
    assert events.counts["accepted"] == 14_999
    found = sorted((row["line"], row["reason"], row["file"]) for row in staged_rows(quarantine))
    address = f"file://{packed.replace(' ', '%20')}"
    assert found == [
        (12_347, "missing_user", address),  # the header is line 1
        (14_002, "malformed_line", address),
    ]


def test_a_packed_file_is_read_in_the_encoding_and_the_way_of_its_source(deliver, spark, tmp_path):
    text = '"time";"user";"item"\n2025-03-02T10:00:00Z;Zoë;"a\nb"\n2025-03-02T10:00:00Z;u;i\n'
    file = tmp_path / "mine.yaml"
    for encoding in ("utf-16", "latin-1"):
        file.write_text(
            f"{{name: mine, description: x, format: csv, delimiter: ';', multiline: true, encoding: {encoding}, "
            "user_id: user, query: item, time: {column: time, format: iso8601}, behavior: {constant: search}}"
        )
        source = load_source(str(file))
        rows = judge(
            read_rows(spark, source, [deliver("a.xz", lzma.compress(text.encode(encoding)))]), source, Settings()
        )
        found = rows.orderBy("position").select("outcome", "user_id", "query").collect()
        assert [tuple(row) for row in found] == [("event", "Zoë", "a\nb"), ("event", "u", "i")]


@pytest.mark.parametrize("kind", ["xz", "zst", "zip"])
def test_a_packed_file_that_is_damaged_further_down_is_named_and_nothing_is_staged(deliver, monkeypatch, lake, kind):
    monkeypatch.setenv("MEANDER_SOURCE", "retailrocket")
    rows = "\n".join(f"1740909600000,{n * 7919 % 99991}{n},view,i{n * 104729 % 99991}," for n in range(120_000))
    content = PACK[kind](f"{HEADER}\n{rows}\n".encode())
    if kind == "zip":
        # The list of its files is at its end, and is left whole.
        at = len(content) - 2_000
        content = content[:at] + bytes(byte ^ 255 for byte in content[at : at + 50]) + content[at + 50 :]
    else:
        content = content[:-2_000]
    file = deliver(f"a.csv.{kind}", content)
    deliver("b.csv", f"{HEADER}\n1740909600000,u,view,plain,\n".encode())
    with pytest.raises(LandingUnreadable) as raised:
        ingest.main(["--day", "2025-03-02", "--run-id", "r1"])
    assert str(raised.value).startswith(f"{file}: expected a readable file, found ")
    assert str(raised.value).count("[docs/runbook.md#landing-unreadable]") == 1
    assert not list((lake / "lake").glob("_runs/*/*.json"))


def test_each_file_of_a_zip_has_its_own_header_and_its_own_lines(deliver, spark, monkeypatch, lake):
    monkeypatch.setenv("MEANDER_SOURCE", "retailrocket")
    files = {
        "b.csv": f"{HEADER}\n1740909600000,u1,view,i1,\n1740909600000,,view,i2,\n",
        # In another order, without an end of its last line.
        "a.csv": "event,itemid,timestamp,visitorid,transactionid\r\nview,,1740909600000,u2,",
        "c.csv": HEADER,
        "d.csv": "",
    }
    packed = deliver("log 1.zip", zipped(**{name: text.encode() for name, text in files.items()}))
    events, quarantine = ingest.main(["--day", "2025-03-02", "--run-id", "r1"])
    assert [(row["user_id"], row["item_id"]) for row in staged_rows(events)] == [("u1", "i1")]
    address = f"file://{packed.replace(' ', '%20')}"
    found = sorted((row["file"], row["line"], row["reason"]) for row in staged_rows(quarantine))
    assert found == [(f"{address}!/a.csv", 2, "missing_item"), (f"{address}!/b.csv", 3, "missing_user")]
    # For what is compared with a later delivery, it is one file.
    assert (events.counts["input"], events.counts["files"]) == (3, 1)
    (listed,) = json.loads(next((lake / "lake").rglob("landing.*.json")).read_text()).values()
    assert {name: rows for name, (_, _, rows) in listed.items()} == {"log 1.zip": 3}


ROWS_OF_JSON = [
    '{"u": 12345678901234567890, "i": 1.0E8, "t": 1740909600, "note": "a],[{\\"b"}',
    '{"u": "u\\u00e9", "i": 1.23E+08,\n "t": 1740909600, "x": [[], {"y": {}}]}',
    '{"t": 1740909600, "i": "i"}',
    '{"u": "x", "i": "i", "t": 17409096e2}',
    "null",
]
JUDGED = [
    ("event", "12345678901234567890", "100000000"),
    ("not_an_id", "u\u00e9", "1.23E8"),
    ("missing_user", None, "i"),
    ("unparsable_time", "x", "i"),
    ("malformed_line", None, None),
]
OF_JSON = (
    "{name: mine, description: x, format: jsonl, user_id: u, item_id: i, encoding: %s, "
    "time: {column: t, format: epoch_s}, behavior: {constant: view}}"
)


@pytest.mark.parametrize(
    ("name", "encoding", "pack"),
    [
        ("a.json", "utf-8", bytes),
        ("a.json.gz", "utf-8", gzip.compress),
        ("a.xz", "utf-8", lzma.compress),
        ("a.zip", "utf-16", lambda text: zipped(a=text)),
        ("a", "gb18030", bytes),
    ],
)
def test_rows_of_an_array_are_judged_as_lines_are(deliver, spark, tmp_path, name, encoding, pack):
    file = tmp_path / "mine.yaml"
    file.write_text(OF_JSON % encoding)
    source = load_source(str(file))
    arrays = ["[\n" + ",\n".join(ROWS_OF_JSON) + "\n]\n", f"[{','.join(ROWS_OF_JSON)}]"]
    for text in arrays:
        path = deliver(name, pack(text.encode(encoding)))
        judged = judge(read_rows(spark, source, [path]), source, Settings()).orderBy("position")
        found = judged.select(F.coalesce("reason", "outcome"), "user_id", "item_id", "raw").collect()
        assert [tuple(row)[:3] for row in found] == JUDGED
        # What is kept of a rejected row is one line.
        assert [row["raw"] for row in found[1:]] == [row.replace("\n ", " ") for row in ROWS_OF_JSON[1:]]


def test_a_long_element_is_one_rejected_row_and_so_is_one_that_is_not_of_the_encoding(deliver, spark, monkeypatch):
    monkeypatch.setenv("MEANDER_SOURCE", "canonical")
    row = '{"user_id": "%s", "event_time": "2025-03-02T10:00:00Z", "behavior": "view", "item_id": "i"}'
    rows = [(row % f"u{n}").encode() for n in range(15_000)]  # of several batches
    rows[12_345] = (row % ("x" * LINE_BYTES)).encode()
    rows[14_000] = (row % "U").encode().replace(b"U", b"\xff")
    deliver("a.json", b"[" + b",\n  ".join(rows) + b"]")
    deliver("plain.jsonl", (row % "plain").encode())
    events, quarantine = ingest.main(["--day", "2025-03-02", "--run-id", "r1"])
    assert (events.counts["input"], events.counts["accepted"]) == (15_001, 14_999)
    found = sorted((row["line"], row["reason"], len(row["raw"])) for row in staged_rows(quarantine))
    # A row of an array is what a line is of other files: its number is told.
    assert found == [(12_346, "malformed_line", 4096), (14_001, "undecodable", len(row) - 1)]


@pytest.mark.parametrize("name", ["a.json", "a.json.gz", "a.zip"])
def test_an_array_that_is_damaged_further_down_is_named_with_the_place_and_nothing_is_staged(
    deliver, monkeypatch, lake, name
):
    monkeypatch.setenv("MEANDER_SOURCE", "canonical")
    row = b'{"user_id": "u", "event_time": "2025-03-02T10:00:00Z", "behavior": "view", "item_id": "i"}'
    content = b"[" + b",".join([row] * 20_000)  # without its end
    path = deliver(
        name,
        {"a.json": bytes, "a.json.gz": gzip.compress, "a.zip": lambda text: zipped(b=text, a=b"[]")}[name](content),
    )
    with pytest.raises(LandingUnreadable) as raised:
        ingest.main(["--day", "2025-03-02", "--run-id", "r1"])
    place = f"behind row 20,000, at byte {len(content):,} of its text"
    named = f"{path}!/b" if name == "a.zip" else path
    told = f"{named}: expected an array of JSON, with , or ] {place}, found the end of the file"
    assert raised.value.message.startswith(told)
    assert not list((lake / "lake").glob("_runs/*/*.json"))


@pytest.mark.parametrize("kind", ["zip", "xz", "zst"])
def test_a_first_line_of_many_megabytes_in_a_small_file_is_refused(deliver, kind):
    file = deliver(f"a.csv.{kind}", PACK[kind](b"0" * (20 << 20)))
    with pytest.raises(LandingUnreadable, match="expected lines of at most 1,048,576 bytes"):
        check_files(load_source("retailrocket"), [file])


TYPES = {
    "user": pa.float64(),  # as pandas makes of numbers, of which one is missing
    "time": pa.timestamp("us"),
    "event": pa.string(),
    "item": pa.struct([("id", pa.int64())]),
    "price": pa.decimal128(8, 2),
    "weight": pa.float32(),
}
AT = datetime(2025, 3, 2, 10, 0, 0, 250_000)
BOUGHT = [
    {"user": 7.0, "time": AT, "event": "buy", "item": {"id": 1 << 60}, "price": Decimal("1.50"), "weight": 0.1},
    {"user": None, "time": AT, "event": "buy", "item": {"id": 2}, "price": None, "weight": None},
    {"user": 8.0, "time": None, "event": "buy", "item": {"id": 1 << 61}, "price": Decimal("2.50"), "weight": None},
]
SOURCE = (
    "{name: mine, description: x, format: %s, user_id: user, item_id: item.id, price: price, query: weight, "
    "time: {column: time, format: iso8601, zone: Asia/Shanghai}, behavior: {column: event, values: {buy: purchase}}}"
)


@pytest.mark.parametrize(
    ("zone", "at"), [(None, "2025-03-02 02:00:00.25"), ("UTC", "2025-03-02 10:00:00.25")], ids=["wall clock", "instant"]
)
@pytest.mark.parametrize("format_", ["parquet", "jsonl"])
def test_rows_of_orc_are_what_their_types_say(deliver, spark, tmp_path, zone, at, format_):
    rows = [{**row, "time": row["time"] and row["time"].replace(tzinfo=UTC if zone else None)} for row in BOUGHT]
    file = tmp_path / "mine.yaml"
    file.write_text(SOURCE % format_)
    source = load_source(str(file))
    sink = io.BytesIO()
    schema = pa.schema(list({**TYPES, "time": pa.timestamp("us", zone)}.items()))
    orc.write_table(pa.Table.from_pylist(rows, schema), sink)
    judged = judge(read_rows(spark, source, [deliver("part-0", sink.getvalue())]), source, Settings())
    columns = ("user_id", F.col("event_time").cast("string"), "item_id", "price", "query")
    found = judged.orderBy("position").select(F.coalesce("reason", "outcome"), *columns).collect()
    assert [tuple(row) for row in found] == [
        ("event", "7", at, str(1 << 60), Decimal("1.5"), "0.1"),
        ("missing_user", None, at, "2", None, None),
        ("missing_time", "8", None, str(1 << 61), Decimal("2.5"), None),
    ]
    # What is kept of a rejected row.
    raw = json.loads(judged.where("reason = 'missing_time'").first()["raw"])
    assert (raw["user"], raw["item"], raw["price"]) == (8, {"id": 1 << 61}, "2.50")


@pytest.mark.parametrize("kind", ["orc", "parquet"])
def test_numbers_of_orc_are_judged_as_those_of_parquet(deliver, spark, tmp_path, kind):
    file = tmp_path / "mine.yaml"
    file.write_text(
        "{name: mine, description: x, format: parquet, user_id: user, item_id: item, price: price, "
        "amounts: {decimal: '.'}, time: {column: time, format: epoch_s}, behavior: {constant: purchase}}"
    )
    source = load_source(str(file))
    rows = [
        {"user": 7.0, "time": 1740909600.25, "item": 1, "price": Decimal(0)},  # a free one, 250 ms past ten
        {"user": 7.5, "time": 1740909600.0, "item": 2, "price": None},
        {"user": 12.5, "time": 1740909600.0, "item": 3, "price": None},
        {"user": 8.0, "time": 1740909600.0, "item": 4, "price": Decimal("1.5")},
    ]
    types = [("user", pa.float64()), ("time", pa.float64()), ("item", pa.int64()), ("price", pa.decimal128(38, 18))]
    sink = io.BytesIO()
    (orc if kind == "orc" else pq).write_table(pa.Table.from_pylist(rows, pa.schema(types)), sink)
    judged = judge(read_rows(spark, source, [deliver("part-0", sink.getvalue())]), source, Settings())
    found = judged.orderBy("item_id").select(
        F.coalesce("reason", "outcome"), "user_id", F.col("event_time").cast("string"), "price"
    )
    ten = "2025-03-02 10:00:00"
    accepted = [row for row in map(tuple, found.collect()) if row[0] == "event"]
    assert accepted == [("event", "7", f"{ten}.25", Decimal(0)), ("event", "8", ten, Decimal("1.5"))]
    assert judged.where("reason = 'not_an_id'").count() == 2


@pytest.mark.parametrize("encoding", ["utf-16", "gb18030"])
def test_orc_is_read_whatever_the_encoding_of_the_texts_beside_it_is(deliver, spark, tmp_path, encoding):
    file = tmp_path / "mine.yaml"
    file.write_text(
        f"{{name: mine, description: x, format: jsonl, encoding: {encoding}, user_id: user, item_id: item, "
        "time: {column: time, format: iso8601}, behavior: {constant: view}}"
    )
    row = {"user": "\u7532", "item": "\u9e21\u86cb", "time": "2025-03-02T10:00:00Z"}
    text = deliver("a.jsonl", f"{json.dumps(row, ensure_ascii=False)}\n".encode(encoding))
    sink = io.BytesIO()
    orc.write_table(pa.Table.from_pylist([row | {"user": "\u4e59"}]), sink)
    source = load_source(str(file))
    judged = judge(read_rows(spark, source, [text, deliver("b.orc", sink.getvalue())]), source, Settings())
    found = judged.orderBy("user_id").select("user_id", "item_id", "outcome").collect()
    assert [tuple(row) for row in found] == [("\u4e59", "\u9e21\u86cb", "event"), ("\u7532", "\u9e21\u86cb", "event")]


def test_orc_that_is_not_what_the_source_says_is_told(deliver):
    sink = io.BytesIO()
    orc.write_table(pa.table({"user_id": ["u"], "event_time": [True], "behavior": ["view"]}), sink)
    with pytest.raises(SourceMismatch, match=r"part-0: source canonical expects a time in event_time, found bool"):
        check_files(load_source("canonical"), [deliver("part-0", sink.getvalue())])
    with pytest.raises(LandingUnreadable, match=r"a\.orc: expected an ORC file, found"):
        check_files(load_source("canonical"), [deliver("a.orc", b"ORC" + b"\0" * 50)])


def test_a_text_that_begins_as_orc_does_is_text(deliver, spark, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(
        "{name: mine, description: x, format: csv, user_id: ORC, item_id: i, "
        "time: {column: t, format: iso8601}, behavior: {constant: view}}"
    )
    source = load_source(str(file))
    rows = read_rows(spark, source, [deliver("a.csv", b"ORC,i,t\nu,1,2025-03-02T10:00:00Z\n")])
    assert [row.raw for row in rows.collect()] == ["u,1,2025-03-02T10:00:00Z"]


def test_a_file_is_of_its_landing_day(deliver, spark):
    source = load_source("retailrocket")
    rows = read_rows(spark, source, [deliver("a.csv.xz", lzma.compress(f"{HEADER}\n1,2,view,3,\n".encode()))])
    assert [(row.landed, row.whole_file, row.lines_above) for row in rows.collect()] == [(date(2025, 3, 2), True, 1)]
