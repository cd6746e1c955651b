"""Rows of Avro are what their types say; a file that is damaged, or would take the memory, is refused by its name."""

import bz2
import io
import json
import lzma
import struct
import uuid
import zlib
from datetime import UTC, date, datetime
from decimal import Decimal

import fastavro
import pyarrow as pa
import pytest
from pyspark.sql import functions as F

from jobs import ingest
from jobs.avro_rows import BLOCK_BYTES, avro_schema, json_lines, rows_of
from jobs.file_sample import look_into
from jobs.landing_files import check_files
from jobs.packed import BROKEN
from jobs.preview import preview
from jobs.raw_rows import read_rows
from jobs.rejections import judge
from jobs.source import load_source
from lake.errors import LandingUnreadable, SourceMismatch
from lake.landing import Landing
from lake.settings import Settings, settings

FIELDS = [
    {"name": "user", "type": ["null", "long"]},
    {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
    {"name": "wall", "type": {"type": "long", "logicalType": "local-timestamp-millis"}},
    {"name": "what", "type": {"type": "enum", "name": "What", "symbols": ["look", "buy"]}},
    {"name": "item", "type": {"type": "record", "name": "Item", "fields": [{"name": "id", "type": "string"}]}},
    {"name": "others", "type": {"type": "array", "items": "Item"}},
    {"name": "price", "type": ["null", {"type": "bytes", "logicalType": "decimal", "precision": 8, "scale": 2}]},
    {"name": "weight", "type": "float"},
    {"name": "born", "type": ["null", {"type": "int", "logicalType": "date"}]},
    {"name": "key", "type": {"type": "string", "logicalType": "uuid"}},
    {"name": "more", "type": {"type": "map", "values": ["null", "int", "string"]}},
]
SCHEMA = {"type": "record", "name": "shop.Event", "fields": FIELDS}
KEY = uuid.UUID(int=7)
ROW = {
    "user": 1 << 60,
    "at": datetime(2025, 3, 2, 10, 0, 0, 250_000, tzinfo=UTC),
    "wall": datetime(2025, 3, 2, 18),
    "what": "buy",
    "item": {"id": "i1"},
    "others": [{"id": "i2"}, {"id": "i3"}],
    "price": Decimal("1.50"),
    "weight": 0.1,
    "born": date(2025, 3, 1),
    "key": KEY,
    "more": {"a": 1, "b": "x"},
}
CODECS = ["null", "deflate", "bzip2", "xz"]


def avro(rows, schema=SCHEMA, codec="deflate", **how) -> bytes:
    """Return an Avro file."""
    file = io.BytesIO()
    fastavro.writer(file, schema, rows, codec=codec, **how)
    return file.getvalue()


def packed_otherwise(codec: str, rows) -> bytes:
    """Return an Avro file whose one block is packed by a codec for which the library needs another one."""
    plain = avro(rows, codec="null", sync_marker=b"s" * 16, sync_interval=1 << 20)
    begin = plain.index(b"s" * 16) + 16
    block = io.BytesIO(plain[begin:])
    count = fastavro.schemaless_reader(block, "long")
    data = fastavro.schemaless_reader(block, "bytes")
    if codec == "snappy":
        data = pa.compress(data, "snappy", asbytes=True) + struct.pack(">I", zlib.crc32(data))
    else:
        data = pa.compress(data, "zstd", asbytes=True)
    head = plain[:begin].replace(b"\x08null", bytes([2 * len(codec)]) + codec.encode())
    block = io.BytesIO()
    fastavro.schemaless_writer(block, "long", count)
    fastavro.schemaless_writer(block, "bytes", data)
    return head + block.getvalue() + b"s" * 16


@pytest.fixture
def write(tmp_path):
    """Return a function that writes a file and returns its path."""

    def put(content: bytes, name="part-0") -> str:
        file = tmp_path / "landing" / "dt=2025-03-02" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        return str(file)

    return put


@pytest.mark.parametrize("codec", [*CODECS, "snappy", "zstandard"])
def test_rows_are_json_of_what_their_types_say(write, codec):
    rows = [ROW] * 3
    file = write(avro(rows, codec=codec) if codec in CODECS else packed_otherwise(codec, rows))
    found = [json.loads(line) for line in json_lines(file)]
    assert (
        found
        == [
            {
                "user": 1 << 60,
                "at": "2025-03-02T10:00:00.250000+00:00",
                "wall": "2025-03-02T18:00:00",
                "what": "buy",
                "item": {"id": "i1"},
                "others": [{"id": "i2"}, {"id": "i3"}],
                "price": "1.50",
                "weight": "0.1",
                "born": "2025-03-01",
                "key": str(KEY),
                "more": {"a": 1, "b": "x"},
            }
        ]
        * 3
    )
    assert list(rows_of(file, ["item.id", "user"])) == [{"user": 1 << 60, "item": {"id": "i1"}}] * 3


def test_types_are_those_that_parquet_would_have(write):
    assert avro_schema(write(avro([]))) == pa.schema(
        {
            "user": pa.int64(),
            "at": pa.timestamp("us", "UTC"),
            "wall": pa.timestamp("ms"),
            "what": pa.string(),
            "item": pa.struct({"id": pa.string()}),
            "others": pa.list_(pa.struct({"id": pa.string()})),
            "price": pa.decimal128(8, 2),
            "weight": pa.float32(),
            "born": pa.date32(),
            "key": pa.string(),
            "more": pa.map_(pa.string(), pa.string()),
        }
    )


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        (["int", "long"], pa.int64()),
        (["null", "int", "double"], pa.float64()),
        (["null", "string", "long"], pa.string()),
        (["string", {"type": "record", "name": "r", "fields": [{"name": "a", "type": "int"}]}], "map<string, string>"),
        (
            {"type": "fixed", "name": "f", "size": 4, "logicalType": "decimal", "precision": 9, "scale": 1},
            "decimal128(9, 1)",
        ),
        ({"type": "long", "logicalType": "timestamp-nanos"}, pa.int64()),
        (["null"], pa.null()),
    ],
)
def test_a_choice_of_types_is_the_one_that_holds_them_all(write, kind, found):
    schema = {"type": "record", "name": "e", "fields": [{"name": "a", "type": kind}, {"name": "b", "type": "int"}]}
    assert str(avro_schema(write(avro([], schema))).field("a").type) == str(found)


def test_a_date_that_python_has_not_is_no_matter_where_nobody_reads_it(write):
    # Days since 1970: beyond the year 9999.
    born = ["null", {"type": "int", "logicalType": "date"}]
    fields = [{"name": "user", "type": "int"}, {"name": "born", "type": born}]
    row = io.BytesIO()
    fastavro.schemaless_writer(row, of(["null", "int"]), {"a": 7, "b": 9_999_999})
    file = write(header({"type": "record", "name": "e", "fields": fields}) + block(1, row.getvalue()))
    assert list(rows_of(file, ["user"])) == [{"user": 7}]
    with pytest.raises(ValueError, match="a row that cannot be read"):
        list(rows_of(file, ["born"]))


def change(fields) -> dict:
    """Return a schema of changes as Debezium writes them: rows before and after are of one type, described once."""
    kind = {"type": "record", "name": "Value", "fields": fields}
    return {
        "type": "record",
        "name": "Envelope",
        "namespace": "shop.carts",
        "fields": [{"name": "before", "type": ["null", kind]}, {"name": "after", "type": ["null", "Value"]}],
    }


PRICE = {"type": "bytes", "logicalType": "decimal", "precision": 10, "scale": 2}
AT = {"type": "long", "logicalType": "timestamp-millis"}
PAID = {"price": Decimal("125.94"), "at": datetime(2025, 3, 2, 10, 0, 0, 250_000, tzinfo=UTC)}
TOLD = {"price": "125.94", "at": "2025-03-02T10:00:00.250000+00:00"}


@pytest.mark.parametrize("used", ["after.price", "before.price"])
def test_a_type_that_is_described_in_a_column_that_nobody_reads_keeps_its_meaning(write, used):
    schema = change([{"name": "price", "type": PRICE}, {"name": "at", "type": ["null", AT]}])
    file = write(avro([{"before": PAID, "after": PAID}, {"before": None, "after": PAID}], schema))
    column, _, _ = used.partition(".")
    first, second = (json.loads(line) for line in json_lines(file, [used]))
    assert first == {column: TOLD}
    assert second == {column: TOLD if column == "after" else None}


def test_so_do_the_types_that_are_in_it_wherever_they_are_described(write):
    money = {"type": "record", "name": "Money", "fields": [{"name": "price", "type": PRICE}]}

    def person(born) -> dict:
        return {"type": "record", "name": "Person", "fields": [{"name": "born", "type": born}]}

    # What is described in a type of a namespace has that namespace too.
    fees = [{"name": "all", "type": {"type": "array", "items": money}}]
    paid = [{"name": "sum", "type": ["null", "bank.Money"]}, {"name": "at", "type": AT}]
    value = {"type": "record", "name": "Value", "fields": paid}
    schema = {
        "type": "record",
        "name": "Event",
        "namespace": "shop",
        "fields": [
            {"name": "fees", "type": {"type": "record", "name": "Fees", "namespace": "bank", "fields": fees}},
            {"name": "history", "type": {"type": "map", "values": value}},
            {"name": "after", "type": "shop.Value"},
            # Nobody reads it, and nothing that is read has its type.
            {"name": "person", "type": person({"type": "int", "logicalType": "date"})},
        ],
    }
    row = {"sum": {"price": PAID["price"]}, "at": PAID["at"]}
    content = io.BytesIO()
    bare = {**schema, "fields": [*schema["fields"][:3], {"name": "person", "type": person("int")}]}
    written = {"fees": {"all": [row["sum"]]}, "history": {}, "after": row, "person": {"born": 9_999_999}}
    fastavro.schemaless_writer(content, bare, written)
    file = write(header(schema) + block(1, content.getvalue()))
    assert [json.loads(line) for line in json_lines(file, ["after.at"])] == [
        {"after": {"sum": {"price": "125.94"}, "at": TOLD["at"]}}
    ]


@pytest.mark.parametrize(
    ("kind", "value", "found"),
    [
        ("float", 19.99, "19.99"),
        (["null", "float"], 19.99, "19.99"),
        (["null", "float"], None, None),
        (["string", "float"], 19.99, "19.99"),
        (["int", "float"], 19.99, "19.99"),
        ({"type": "float", "unit": "EUR"}, 19.99, "19.99"),
        ({"type": "array", "items": "float"}, [19.99, 3.0], ["19.99", 3]),
        ({"type": "map", "values": "float"}, {"a": 19.99}, {"a": "19.99"}),
        (
            {"type": "record", "name": "p", "fields": [{"name": "price", "type": "float"}]},
            {"price": 19.99},
            {"price": "19.99"},
        ),
        (
            ["null", {"type": "record", "name": "p", "fields": [{"name": "price", "type": ["null", "float"]}]}],
            {"price": 19.99},
            {"price": "19.99"},
        ),
        # In eight bytes, these digits are the number.
        ("double", 19.989999771118164, "19.989999771118164"),
        ({"type": "array", "items": ["null", "double"]}, [19.989999771118164], ["19.989999771118164"]),
    ],
)
def test_numbers_in_four_bytes_have_the_digits_that_tell_them_apart_wherever_they_are(write, kind, value, found):
    schema = of(kind)
    assert [json.loads(line) for line in json_lines(write(avro([{"a": 1, "b": value}], schema)))] == [
        {"a": 1, "b": found}
    ]


def header(schema, codec="null") -> bytes:
    """Return the beginning of a file, up to its first block."""
    noted = io.BytesIO()
    text = schema if isinstance(schema, bytes) else json.dumps(schema).encode()
    content = {"avro.schema": text, "avro.codec": codec.encode()}
    fastavro.schemaless_writer(noted, {"type": "map", "values": "bytes"}, content)
    return b"Obj\x01" + noted.getvalue() + b"s" * 16


def block(count: int, data: bytes, size: int | None = None) -> bytes:
    found = io.BytesIO()
    for number in (count, len(data) if size is None else size):
        fastavro.schemaless_writer(found, "long", number)
    return found.getvalue() + data + b"s" * 16


def deflated(content: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(content) + packer.flush()


ONE = {"type": "record", "name": "e", "fields": [{"name": "a", "type": "string"}]}
BOMB = b"0" * (BLOCK_BYTES + 1)


def of(kind) -> dict:
    return {"type": "record", "name": "e", "fields": [{"name": "a", "type": "int"}, {"name": "b", "type": kind}]}


def doubling() -> dict:
    """Return a schema of a few lines in which each of twenty types has the one before twice."""
    kind = {"type": "record", "name": "t0", "fields": [{"name": "a", "type": "int"}]}
    fields = [{"name": "f0", "type": kind}]
    for n in range(20):
        twice = [{"name": name, "type": f"t{n}"} for name in "ab"]
        fields.append({"name": f"f{n + 1}", "type": {"type": "record", "name": f"t{n + 1}", "fields": twice}})
    return {"type": "record", "name": "e", "fields": fields}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        pytest.param(b"", "first bytes are not those of Avro", id="no byte"),
        pytest.param(b"Obj\x01", "cannot be read", id="cut off in its first bytes"),
        pytest.param(header(b"{"), "Expecting", id="a schema that is no JSON"),
        pytest.param(header(b"[" * 100_000), "schema of too many levels", id="a deep schema"),
        pytest.param(header("int"), "its rows are no records", id="no records"),
        pytest.param(header({"type": "record"}), "none of Avro", id="a record without fields"),
        pytest.param(header({"type": "record", "name": "e", "fields": []}), "rows without a byte", id="no columns"),
        pytest.param(header(of("e")), "the type e, which has itself in it", id="a record in itself"),
        pytest.param(header(of({"type": "array", "items": "null"})), "elements have no bytes", id="a list of nulls"),
        pytest.param(header(of({"type": "fixed", "name": "f", "size": 0})), "a type of no bytes", id="no bytes"),
        pytest.param(header(of("shop.Lost")), "none of Avro", id="a type that is nowhere"),
        pytest.param(header(doubling()), "schema of more than 100,000 parts", id="types that double"),
        pytest.param(header(ONE) + block(2, b"\x02x"), "a row that cannot be read", id="too few rows in a block"),
        pytest.param(header(ONE) + block(1, b"\x02x\x02y"), "more bytes than its rows", id="too many"),
        pytest.param(header(ONE) + block(1, b"\x02x")[:-1], "another end, or none", id="cut off in a block"),
        pytest.param(header(ONE) + block(1, b"\x02x")[:1], "ends before its content", id="cut off in a number"),
        pytest.param(header(ONE) + block(1, b"\x02x", 1 << 40), "expected 67,108,864 at most", id="a large block"),
        pytest.param(header(ONE) + b"\xff" * 20, "more than 64 bits", id="a large number"),
        pytest.param(header(ONE, "lzo") + block(1, b"\x02x"), "blocks packed by lzo", id="another codec"),
        pytest.param(header(ONE, "deflate") + block(1, deflated(BOMB)), "block of more than", id="a bomb of deflate"),
        pytest.param(header(ONE, "bzip2") + block(1, bz2.compress(BOMB)), "block of more than", id="a bomb of bzip2"),
        pytest.param(header(ONE, "xz") + block(1, lzma.compress(BOMB)), "block of more than", id="a bomb of xz"),
        pytest.param(
            header(ONE, "zstandard") + block(1, pa.compress(BOMB, "zstd", asbytes=True)), "more than", id="of zstandard"
        ),
        pytest.param(
            header(ONE, "snappy") + block(1, b"\xff\xff\xff\xff\x0f" + b"x" * 9), "expected 67,108,864", id="of snappy"
        ),
        pytest.param(
            header(ONE, "snappy") + block(1, pa.compress(b"\x02x", "snappy", asbytes=True) + b"0000"),
            "a block that is damaged",
            id="snappy with another sum",
        ),
        pytest.param(
            header(ONE, "deflate") + block(1, deflated(b"\x02x" * 99)[:-3]),
            "a block that is damaged",
            id="half deflate",
        ),
    ],
)
def test_a_file_that_is_damaged_or_would_take_the_memory_says_so(write, content, told):
    file = write(content)
    with pytest.raises(BROKEN, match=told):
        list(json_lines(file))


SOURCE = (
    "{name: mine, description: x, format: avro, user_id: user, item_id: item.id, price: price, query: weight, "
    "time: {column: %s, format: iso8601, zone: Asia/Shanghai}, "
    "behavior: {column: what, values: {buy: purchase, look: view}}}"
)


@pytest.fixture
def source(tmp_path):
    def load(time="at"):
        (tmp_path / "mine.yaml").write_text(SOURCE % time)
        return load_source(str(tmp_path / "mine.yaml"))

    return load


@pytest.mark.spark
@pytest.mark.parametrize(("time", "at"), [("at", "2025-03-02 10:00:00.25"), ("wall", "2025-03-02 10:00:00")])
def test_rows_of_avro_are_judged_as_those_of_orc(write, source, spark, time, at):
    rows = [ROW, {**ROW, "user": None, "price": None}]
    judged = judge(read_rows(spark, source(time), [write(avro(rows))]), source(time), Settings())
    columns = ("user_id", F.col("event_time").cast("string"), "item_id", "price", "query", "behavior")
    found = judged.orderBy("position").select(F.coalesce("reason", "outcome"), *columns).collect()
    assert [tuple(row) for row in found] == [
        ("event", str(1 << 60), at, "i1", Decimal("1.5"), "0.1", "purchase"),
        ("missing_user", None, at, "i1", None, "0.1", "purchase"),
    ]


@pytest.mark.spark
def test_a_file_that_is_damaged_further_down_is_named_and_nothing_is_staged(lake, spark, source, monkeypatch):
    source()
    monkeypatch.setenv("MEANDER_SOURCE", str(lake / "mine.yaml"))
    (lake / "mine.yaml").write_text(SOURCE % "at")
    folder = lake / "landing" / "dt=2025-03-02"
    folder.mkdir(parents=True)
    (folder / "a.avro").write_bytes(avro([ROW] * 50_000)[:-30])
    (folder / "b.avro").write_bytes(avro([ROW]))
    mine = load_source(str(lake / "mine.yaml"))
    found = preview(spark, mine, Landing.of(settings()), [date(2025, 3, 2)], settings())
    assert set(found.outcomes) == {"event"}, "the first blocks are whole"
    with pytest.raises(LandingUnreadable, match=r"a\.avro: expected a readable file, found ValueError: a block"):
        ingest.main(["--day", "2025-03-02", "--run-id", "r1"])
    assert not list((lake / "lake").glob("_runs/*/*.json"))


def test_columns_and_types_are_checked_before_spark_starts(write, source):
    assert check_files(source(), [write(avro([ROW]))]).tables == [write(avro([ROW]))]
    renamed = {**SCHEMA, "fields": [{**each, "name": each["name"].replace("user", "User")} for each in FIELDS]}
    with pytest.raises(SourceMismatch, match="it has 'User' where the source says 'user'"):
        check_files(source(), [write(avro([], renamed))])
    with pytest.raises(LandingUnreadable, match=r"c\.avro: expected an Avro file, found ValueError"):
        check_files(source(), [write(b"user,at\n", "c.avro")])
    with pytest.raises(LandingUnreadable, match="Avro in it; Avro is not packed again: unpack it"):
        check_files(source(), [write(lzma.compress(avro([ROW])), "d.xz")])


def test_a_first_source_has_the_columns_of_avro(write):
    sample = look_into(write(avro([ROW] * 5)))
    assert (sample.keys, sample.rows, sample.columns["user"]) == (
        {"format": "parquet", "each": "others"},
        5,
        [str(1 << 60)] * 5,
    )
    assert sample.columns["item.id"] == ["i1"] * 5
