"""Damaged landing files, for each shipped source and each codec: a clear error and nothing staged, or nothing lost.

Hypothesis draws the files, one for each landing day, and one job reads them all: input rows, counted here without
Spark, are events + duplicates + ignored + quarantined, on each day.
"""

# ruff: noqa: RUF001  export_zh has full-width commas

import bz2
import gzip
import io
import json
import lzma
import re
import shutil
import struct
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import fastavro
import pyarrow as pa
import pyarrow.orc as orc
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs import ingest
from jobs.json_array import is_array
from jobs.landing_files import LINE_BYTES, check_files
from jobs.source import Source, load_source, shipped_sources
from lake.errors import LandingUnreadable, SourceMismatch
from tests.jobs.tables import staged_rows
from tests.jobs.test_packed import zipped, zstd

# A test draws its examples itself, to read them by one job.
pytestmark = [pytest.mark.spark, pytest.mark.torture]

FIRST_DAY = date(2024, 3, 1)
# Beyond this a job has so many partitions that it is slower than two jobs.
FILES_OF_A_JOB = 125
CODECS: dict[str, Callable[[bytes], bytes]] = {
    **{"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstd},
    ".zip": lambda content: zipped(log=content),
}
UNPACK: dict[str, Callable[[bytes], bytes]] = {
    **{".gz": gzip.decompress, ".bz2": bz2.decompress, ".xz": lzma.decompress},
    ".zst": lambda content: zstandard.ZstdDecompressor().stream_reader(content, read_across_frames=True).read(),
    ".zip": lambda content: zipfile.ZipFile(io.BytesIO(content)).read("log"),
}
ACTION = "unstruct_event_com_snowplowanalytics_snowplow_ecommerce_snowplow_ecommerce_action_1"
PRODUCTS = "contexts_com_snowplowanalytics_snowplow_ecommerce_product_1"
# Rows of each source: two that are equal, one with a quoted separator or quote, one that is ignored or broken.
LINES = {
    "canonical": [
        '{"user_id": "u1", "event_time": "2024-01-01T10:00:00Z", "behavior": "view", "item_id": "i1", "price": 1.5}',
        '{"user_id": "u1", "event_time": "2024-01-01T10:00:00Z", "behavior": "view", "item_id": "i1", "price": 1.5}',
        '{"user_id": "ü2", "event_time": "2024-01-01T10:00:00+08:00", "behavior": "search", "query": "a \\"b\\", c"}',
        '{"user_id": "u3", "event_time": "yesterday", "behavior": "cart", "item_id": "i2"}',
    ],
    "export_zh": [
        "用户ID，行为类型，时间戳，商品ID",
        "u1，浏览，2024-01-01 10:00:00，i1",
        "u1，浏览，2024-01-01 10:00:00，i1",
        '"u，2"，购买，2024-01-01 10:00:01，"i ""2"""',
        "u3，看，2024-01-01 10:00:00，i1",
    ],
    "diginetica": [
        "sessionId;userId;itemId;timeframe;eventdate",
        "1;NA;10;1000;2024-01-01",
        "1;NA;10;1000;2024-01-01",
        '2;"7;8";"1""0";0;2024-01-01',
        "2;7;10;0;soon",
    ],
    "dunnhumby": [
        "SHOP_WEEK,SHOP_DATE,SHOP_HOUR,SPEND,PROD_CODE,PROD_CODE_10,CUST_CODE",
        "202401,20240101,9,2.06,10,CL1,C1",
        "202401,20240101,9,2.06,10,CL1,C1",
        '202401,20240101,19,2.06,"1,0","C""L1",C1',
        "202401,20240101,9,0.5,10,CL1,",
        "202401,soon,9,0.5,10,CL1,C2",
    ],
    # A row for each item, and one for a line without an item.
    "ga4": [
        '{"user_id": "u1", "user_pseudo_id": "p1", "event_timestamp": 1704067200000000, "event_name": "add_to_cart", '
        '"items": [{"item_id": "i1", "item_category": "a", "price": 1.5}, {"item_id": "i1", "item_category": "a", '
        '"price": 1.5}, {"item_id": "i \\"2\\""}]}',
        '{"user_pseudo_id": "p2", "event_timestamp": 1704067200000001, "event_name": "view_item", "items": []}',
        '{"user_pseudo_id": "p2", "event_timestamp": 1704067200000001, "event_name": "session_start"}',
    ],
    "jd": [
        "user_id,sku_id,time,model_id,type,cate,brand",
        "1,10,2024-01-01 10:00:00,,1,4,7",
        "1,10,2024-01-01 10:00:00,,1,4,7",
        '"1,2","1""0",2024-01-01 10:00:01,216,4,4,7',
        "2,10,2024-01-01 10:00:02,216,6,4,7",
        "3,10,soon,,1,4,7",
    ],
    # A row for each action of a visit, and for each item of an order.
    "matomo": [
        '{"visitorId": "u1", "actionDetails": [{"type": "action", "timestamp": 1704067200}, {"type": "ecommerceOrder", '
        '"timestamp": 1704067201, "itemDetails": [{"itemSKU": "i1", "price": 1.5}, {"itemSKU": "i1", "price": 1.5}]}]}',
        '{"visitorId": "ü \\"2\\", 3", "actionDetails": [{"type": "search", "timestamp": "soon", "siteSearchKeyword": '
        '"a"}]}',
        '{"visitorId": "u3", "actionDetails": []}',
    ],
    "otto": [
        '{"session": "u1", "events": [{"aid": 1, "ts": 1704067200000, "type": "clicks"}, {"aid": 1, "ts": '
        '1704067200000, "type": "clicks"}, {"aid": 2, "ts": 1704067200001, "type": "orders"}]}',
        '{"session": "ü \\"2\\", 3", "events": [{"aid": 3, "ts": "soon", "type": "carts"}]}',
        '{"session": 3, "events": []}',
    ],
    "rees46": [
        "event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session",
        "2024-01-01 00:00:01 UTC,purchase,1,10,a.b,,2.50,7,s",
        "2024-01-01 00:00:01 UTC,purchase,1,10,a.b,,2.50,7,s",
        '2024-01-01 00:00:01 UTC,view,1,10,"a,b","the ""best""",2.50,7,s',
        "2024-01-01 00:00:02 UTC,remove_from_cart,1,10,a.b,,2.50,7,s",
        "2024-01-01 00:00:04 UTC,view,2,10,a.b,acme,3,,s",
    ],
    "retailrocket": [
        "timestamp,visitorid,event,itemid,transactionid",
        "1704067200000,1,view,10,",
        "1704067200000,1,view,10,",
        '1704067200001,"1,2",addtocart,10,',
        "1704067200002,1,bought,10,5",
    ],
    # A row for each product of an order, and one for a call without products.
    "segment": [
        '{"userId": "u1", "timestamp": "2024-01-01T10:00:00.000Z", "event": "Order Completed", "properties": '
        '{"products": [{"product_id": "i1", "category": "a", "price": 2.5}, {"product_id": "i1", "category": "a", '
        '"price": 2.5}, {"product_id": "i2"}]}}',
        '{"anonymousId": "ü2", "timestamp": "2024-01-01T10:00:00+08:00", "event": "Products Searched", "properties": '
        '{"query": "a \\"b\\", c"}}',
        '{"userId": "u3", "timestamp": "2024-01-01T10:00:00Z", "event": "Product Viewed", "properties": {}}',
        '{"userId": "u3", "timestamp": "2024-01-01T10:00:00Z", "event": "Signed In"}',
    ],
    "snowplow": [
        f'{{"domain_userid": "u1", "derived_tstamp": "2024-01-01T10:00:00.000Z", "event": "unstruct", "{ACTION}": '
        f'{{"type": "transaction"}}, "{PRODUCTS}": [{{"id": "i1", "price": 2.5}}, {{"id": "i1", "price": 2.5}}]}}',
        f'{{"user_id": "ü2", "derived_tstamp": "yesterday", "event": "unstruct", "{ACTION}": {{"type": "add_to_cart"}}'
        "}",
        '{"domain_userid": "u3", "derived_tstamp": "2024-01-01T10:00:00.000Z", "event": "page_view"}',
    ],
    "tmall": [
        "user_id,item_id,cat_id,seller_id,brand_id,time_stamp,action_type",
        "1,10,100,5,6,511,0",
        "1,10,100,5,6,511,0",
        '"1,2","1""0",100,5,6,1111,2',
        "2,10,100,5,6,511,9",
        "3,10,100,5,6,0,0",
    ],
    "yoochoose": [
        "1,2024-01-01T10:00:00.000Z,10,S",
        "1,2024-01-01T10:00:00.000Z,10,S",
        '"1,2",2024-01-01T10:00:00.001Z,"1""0",0',
        "2,soon,10,7",
    ],
    "taobao": ["1,10,100,pv,1704067200", "1,10,100,pv,1704067200", "1,10,100,buy,1704067201", "2,10,100,pv,soon"],
}
HEADERS = {
    name: lines[0] for name, lines in LINES.items() if load_source(name).header and load_source(name).format == "csv"
}


def valid_text(source: str, line_end: bytes, *, is_large: bool) -> bytes:
    """Return a file as a shop delivers it; a large one is larger than what is checked before Spark reads."""
    head = [HEADERS[source]] if source in HEADERS else []
    rows = LINES[source][len(head) :]
    if is_large:
        # Of long lines, since each line is one more row to judge.
        long = rows[0].replace("u1" if "u1" in rows[0] else "10", "x" * 5_000, 1)
        rows = [*[long] * (LINE_BYTES // len(long) + 2), *rows]
    return line_end.join([*(line.encode() for line in [*head, *rows]), b""])


def valid_array(source: str) -> bytes:
    """Return the rows of a source of JSON lines as one array."""
    return b"[\n  " + b",\n  ".join(line.encode() for line in LINES[source]) + b"\n]\n"


# How writers of tables may pack their parts, as pyarrow and fastavro call it; of others there is no reader.
PARQUET_CODECS = ("none", "snappy", "gzip", "zstd", "lz4")
ORC_CODECS = ("uncompressed", "snappy", "zlib", "zstd", "lz4")
AVRO_CODECS = ("null", "deflate", "bzip2", "xz")
# Each: the end of the name, the codec, the version of Parquet's pages, whether it has a dictionary.
TABLES = [
    *product(["parquet"], PARQUET_CODECS, ["1.0", "2.0"], [True, False]),
    *product(["orc"], ORC_CODECS, [""], [False]),
    *product(["avro"], AVRO_CODECS, [""], [False]),
]
FIELDS = [
    *({"name": name, "type": ["null", "string"]} for name in ("household_id", "product_id", "product_category")),
    {"name": "sales_value", "type": ["null", "double"]},
    {"name": "transaction_timestamp", "type": {"type": "long", "logicalType": "local-timestamp-micros"}},
]


@cache
def valid_table(kind: str, codec: str, version: str, dictionary: bool) -> bytes:
    """Return a file of the source `completejourney`, packed and encoded in one of the usual ways."""
    table = pa.table(
        {
            "household_id": ["1", "1", "2", None],
            "product_id": ["10", "10", "11", "12"],
            "product_category": ["a", "a", "b", None],
            "sales_value": [1.5, 1.5, -2.0, None],
            "transaction_timestamp": pa.array([1_704_067_200_000_000 + n for n in (0, 0, 1, 2)], pa.timestamp("us")),
        }
    )
    file = io.BytesIO()
    if kind == "orc":
        orc.write_table(table, file, compression=codec)
    elif kind == "avro":
        fastavro.writer(file, {"type": "record", "name": "Row", "fields": FIELDS}, table.to_pylist(), codec, 40)
    else:
        options = {"data_page_version": version, "use_dictionary": dictionary}
        pq.write_table(table, file, row_group_size=2, compression=codec, **options)
    return file.getvalue()


def rows_of_table(name: str, content: bytes) -> int:
    """Return how many rows a Parquet, ORC or Avro file says that it has."""
    file = io.BytesIO(content)
    if name.endswith(".orc"):
        return orc.ORCFile(file).nrows
    if name.endswith(".avro"):
        return sum(1 for _ in fastavro.reader(file))
    return pq.ParquetFile(file).metadata.num_rows


# What stands in a damaged place: characters with a meaning for some reader, and those that nobody reads.
PIECES = st.sampled_from(
    [
        *(b",", "，".encode(), b";", b"\t", b'"', b'""', b"'", b"\\", b'\\"', b"{", b"}", b"[", b":", b"null"),
        *(b"\n", b"\r", b"\r\n", b"\n\n", b"\x0b", b"\x0c", b"\x1c", b"\x85", "\u0085".encode(), "\u2028".encode()),
        *(b"\x00", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xef\xbb\xbf", "\uffff".encode()),
        *(b"\x1a", b"\x1b[2J", b"\\ud800", b"\\u0000", "\ufffd".encode(), "e\u0301".encode(), b" ", b"9" * 40),
        *(b"x" * 5_000, b"x" * (LINE_BYTES + 1)),
    ]
) | st.binary(min_size=1, max_size=6)


@dataclass(frozen=True)
class Case:
    """A landing file: its name, its bytes, and whether they were changed."""

    name: str
    content: bytes
    is_damaged: bool


@st.composite
def edited(draw: Any, content: bytes) -> bytes:
    """Return a content with up to three places cut, replaced, inserted or turned around."""
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(content)))
        kind = draw(st.sampled_from(["cut", "insert", "replace", "flip", "remove", "twice"]))
        if kind == "cut":
            content = content[:at]
        elif kind == "insert":
            content = content[:at] + draw(PIECES) + content[at:]
        elif kind == "replace":
            piece = draw(PIECES)
            content = content[:at] + piece + content[at + len(piece) :]
        elif kind == "flip" and at < len(content):
            content = content[:at] + bytes([content[at] ^ (1 << draw(st.integers(0, 7)))]) + content[at + 1 :]
        elif kind == "remove":
            content = content[:at] + content[at + draw(st.integers(1, 20)) :]
        elif kind == "twice":
            content = content[:at] + content[max(0, at - 30) :]
    return content


@st.composite
def cases(draw: Any, source: str) -> Case:
    """Return a file of a source: a valid one with edits, before or after it was compressed, or any bytes."""
    if source == "completejourney":
        how = draw(st.sampled_from(TABLES))
        whole = valid_table(*how)
        content = draw(edited(whole) | st.binary(max_size=60))
        return Case(f"a.{how[0]}", content, content != whole)
    suffix = draw(st.sampled_from(list(CODECS)))
    # What is checked before Spark reads is the first MiB: now and then the damage is further down.
    is_large = draw(st.integers(0, 7)) == 0
    whole = valid_text(source, draw(st.sampled_from([b"\n", b"\r\n", b"\r"])), is_large=is_large)
    end = f".{load_source(source).format}"
    if end == ".jsonl" and draw(st.integers(0, 2)) == 0:
        whole, is_large = valid_array(source), False
    if draw(st.integers(0, 9)) == 0:
        content = draw(st.binary(max_size=200))
    elif suffix and draw(st.integers(0, 2)) == 0:
        packed = CODECS[suffix](whole)
        content = draw(edited(packed))
        return Case(f"a{end}{suffix}", content, content != packed)
    else:
        head = len(whole) - 400 if is_large else 0
        content = whole[:head] + draw(edited(whole[head:]))
    return Case(f"a{end}{suffix}", CODECS[suffix](content), content != whole)


def given_files(source: str) -> list[Case]:
    """Return a whole file by each codec, since chance leaves few as they are, and one whose lines are easily lost."""
    if source == "completejourney":
        return [Case(f"a.{how[0]}", valid_table(*how), is_damaged=False) for how in TABLES]
    text, end = valid_text(source, b"\n", is_large=False), load_source(source).format
    # A line without a character, and one that begins as the header does.
    first, rest = text.split(b"\n", 1)
    odd = Case(f"a.{end}", b"\n".join([first, b"", first[: len(first) * 2 // 3], rest]), is_damaged=True)
    texts = [text, valid_array(source)] if end == "jsonl" else [text]
    whole = [(suffix, pack(each)) for suffix, pack in CODECS.items() for each in texts]
    return [odd, *(Case(f"a.{end}{suffix}", content, is_damaged=False) for suffix, content in whole)]


def drawn(source: str) -> list[Case]:
    """Return the files above, and as many drawn ones as the profile says, each once."""
    found: dict[Case, None] = dict.fromkeys(given_files(source))

    @settings(suppress_health_check=list(HealthCheck))
    @given(cases(source))
    def keep(case: Case) -> None:
        found.setdefault(case)

    keep()
    return list(found)


def input_rows(source: Source, case: Case) -> range | None:
    """Return how many rows a file may have, by Python alone; None if it cannot be read to its end.

    It is one number, but where an element of a list is a row: of a damaged line, nobody can say how many are left.
    """
    if source.format == "parquet":
        try:
            rows = rows_of_table(case.name, case.content)
        except Exception:  # noqa: BLE001  whatever it is, it cannot be read
            return None
        return range(rows, rows + 1)
    text = case.content
    try:
        # A file without a byte has no rows, whatever its name is.
        text = UNPACK.get(Path(case.name).suffix, bytes)(text) if text else text
    except Exception:  # noqa: BLE001  as above
        return None
    if source.format == "jsonl" and text == valid_array(source.name):
        text = b"\n".join(line.encode() for line in LINES[source.name])
    elif source.format == "jsonl" and is_array(text.decode("utf-8-sig", "replace")):
        # Of a damaged one that is not refused, nobody can say how many rows are left.
        return range(text.count(b",") + 2)
    # Lines end as a text file's do; what follows the last end is a line unless it is empty.
    lines = re.split(rb"\r\n|\n|\r", text.removeprefix(b"\xef\xbb\xbf"))
    lines = lines if lines[-1] else lines[:-1]
    texts = [line.decode("utf-8", "replace") for line in lines]
    header = HEADERS.get(source.name)
    if header:
        # Of a file that was not refused it names all columns, and may name more: a damaged one is still the header.
        header = next(iter(texts), "")
    rows_of = [rows_of_line(source, text) for text in texts if text != header]
    return range(sum(least for least, _ in rows_of), sum(most for _, most in rows_of) + 1)


def rows_of_line(source: Source, line: str) -> tuple[int, int]:
    """Return the least and the greatest number of rows that a line may be."""
    if not source.each:
        return 1, 1
    if line.replace("x" * 5_000, "u1") not in LINES[source.name]:
        return 1, line.count(",") + 1
    rows = rows_of_lists(json.loads(line), source.each)
    return rows, rows


def rows_of_lists(row: Any, each: Sequence[str]) -> int:
    """Return how many rows an object is, by the paths of its lists."""
    if not each:
        return 1
    part, (outer, *others) = row, each
    for step in outer.split("."):
        part = part.get(step, {})
    return max(1, sum(rows_of_lists(element, [inner[len(outer) + 1 :] for inner in others]) for element in part))


def chunks(things: list[Any]) -> Iterator[list[Any]]:
    yield from (things[start : start + FILES_OF_A_JOB] for start in range(0, len(things), FILES_OF_A_JOB))


@pytest.mark.parametrize("name", shipped_sources())
def test_a_damaged_file_is_refused_and_nothing_of_it_staged_or_every_row_of_it_is_somewhere(
    name, lake, spark, monkeypatch
):
    monkeypatch.setenv("MEANDER_SOURCE", name)
    source = load_source(name)
    for number, chunk in enumerate(chunks(drawn(name))):
        landing = lake / "landing"
        shutil.rmtree(landing, ignore_errors=True)
        days = {FIRST_DAY + timedelta(days=n): case for n, case in enumerate(chunk)}
        if source.items:
            table = landing / source.items.folder / f"dt={FIRST_DAY}" / "table.csv"
            table.parent.mkdir(parents=True)
            table.write_text("itemId;categoryId\n10;7\n")
        for day, case in days.items():
            file = landing / f"dt={day}" / case.name
            file.parent.mkdir(parents=True)
            file.write_bytes(case.content)
            try:
                check_files(source, [str(file)])
            except (LandingUnreadable, SourceMismatch) as error:
                if not case.is_damaged:
                    raise AssertionError(f"a good file is refused: {case.name}") from error
                file.unlink()
        staged = None
        while staged is None:
            try:
                staged = ingest.main(["--from", str(min(days)), "--to", str(max(days)), "--run-id", f"r{number}"])
            except LandingUnreadable as error:
                # The rest is read again without it.
                (day,) = (day for day in days if f"/dt={day}/" in str(error))
                if list((lake / "lake").glob("_runs/*/*.json")) or not days[day].is_damaged:
                    raise AssertionError(f"staged, or a good file is refused: {days[day].name}") from error
                (landing / f"dt={day}" / days[day].name).unlink()
        events, quarantine = staged
        require_conserved(source, landing, days, events, quarantine)
        shutil.rmtree(lake / "lake")


def require_conserved(source: Source, landing: Path, days: dict[date, Case], events: Any, quarantine: Any) -> None:
    """Compare the rows of each day's file with what was staged of it."""
    accepted: Counter[date] = Counter()
    for row in staged_rows(events):
        accepted[row["landed"]] += row["copies"]
    rejected = Counter(row["dt"] for row in staged_rows(quarantine))
    wrong = []
    for day, case in days.items():
        told = events.counts["by_day"][str(day)]
        is_there = (landing / f"dt={day}" / case.name).exists()
        wanted = input_rows(source, case) if is_there else range(1)
        found = accepted[day] + told["ignored"] + rejected[day]
        if wanted is None or told["input"] not in wanted or told["input"] != found:
            wrong.append((wanted, told, accepted[day], rejected[day], case.name, case.content[-600:]))
        assert told["accepted"] == accepted[day]
        assert sum(told["rejected"].values()) == rejected[day]
    assert wrong == [], "rows by Python, by the job, as events and in quarantine"
    assert json.dumps(events.counts) == json.dumps(quarantine.counts)


def damaged_footers() -> dict[str, bytes]:
    """Return Parquet files of which Spark would read another number of rows than the footer says, without a word."""
    whole = valid_table("parquet", "none", "1.0", False)
    (length,) = struct.unpack("<I", whole[-8:-4])
    start = len(whole) - 8 - length
    found = {}
    for at, bit in product(range(start, len(whole) - 8), range(8)):
        turned = whole[:at] + bytes([whole[at] ^ (1 << bit)]) + whole[at + 1 :]
        with suppress(Exception):
            footer = pq.read_metadata(io.BytesIO(turned))
            of_groups = [footer.row_group(n).num_rows for n in range(2)]
            if (footer.num_rows, of_groups) == (4, [0, 2]):
                found["no rows in a group"] = turned
            if (footer.num_rows, of_groups) == (0, [2, 2]):
                found["no rows in all"] = turned
    # A whole number of Thrift: its sign is the last bit, and seven bits are in a byte. Spark tells by the middle of a
    # group whose task it is.
    offset = 2 * pq.read_metadata(io.BytesIO(whole)).row_group(1).column(0).data_page_offset
    assert 128 <= offset < 1 << 14
    as_thrift, negative = (bytes([(number & 127) | 128, number >> 7]) for number in (offset, offset + 1))
    found["a group before the file"] = whole[:start] + whole[start:].replace(as_thrift, negative)
    return found


@pytest.mark.parametrize("damage", ["no rows in a group", "no rows in all", "a group before the file"])
def test_a_parquet_file_is_refused_of_which_not_as_many_rows_are_read_as_it_has(damage, lake, spark, monkeypatch):
    monkeypatch.setenv("MEANDER_SOURCE", "completejourney")
    file = lake / "landing" / f"dt={FIRST_DAY}" / "a.parquet"
    file.parent.mkdir(parents=True)
    file.write_bytes(damaged_footers()[damage])
    with pytest.raises(LandingUnreadable, match=r"a\.parquet: expected"):
        ingest.main(["--day", str(FIRST_DAY), "--run-id", "r"])
    assert not list((lake / "lake").glob("_runs/*/*.json"))
