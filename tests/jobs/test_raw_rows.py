"""Landing files: one that cannot be read, or is not what its source says, fails the run with its name."""

import bz2
import gzip
import io
import json
import random
import re
import subprocess
import sys
import tarfile

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import orc

from jobs import ingest
from jobs.landing_files import Layout, check_files
from jobs.raw_rows import read_rows
from jobs.rejections import judge
from jobs.source import load_source
from lake.errors import LandingUnreadable, SourceMismatch
from lake.settings import Settings
from tests.jobs.test_packed import zipped

CANONICAL = load_source("canonical")
RETAILROCKET = load_source("retailrocket")
TAOBAO = load_source("taobao")

ORC_LOG = RETAILROCKET.model_validate(
    {
        "name": "orc_log",
        "description": "its first column begins as an ORC file does",
        "format": "csv",
        "user_id": "ORC_ID",
        "time": {"column": "time", "format": "epoch_s"},
        "behavior": {"constant": "view"},
    }
)

HEADER = b"timestamp,visitorid,event,itemid,transactionid\n"
RECORD = {"user_id": "u", "event_time": "2025-03-02T10:00:00Z", "behavior": "view", "item_id": "i"}


def orc_file():
    """Return an ORC file of one record."""
    sink = io.BytesIO()
    orc.write_table(pa.Table.from_pylist([RECORD]), sink)
    return sink.getvalue()


def tar_of(**members):
    """Return a .tar of some files."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return sink.getvalue()


@pytest.fixture
def file(tmp_path):
    """Write one file under `dt=2025-03-02` and return its path."""

    def write(name, content):
        path = tmp_path / "landing" / "dt=2025-03-02" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return str(path)

    return write


# --- what is told before Spark starts ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "name", "content"),
    [
        pytest.param(RETAILROCKET, "a.csv", HEADER, id="a header and nothing else"),
        pytest.param(
            RETAILROCKET,
            "a.csv",
            b"\xef\xbb\xbf" + HEADER[:-1] + b"\r\n",
            id="a byte order mark, Windows lines",
        ),
        pytest.param(RETAILROCKET, "a.csv.gz", gzip.compress(HEADER), id="compressed"),
        pytest.param(TAOBAO, "a.csv", b"", id="no header and no line"),
        # It says `ustar` where the mark of an archive would be.
        pytest.param(TAOBAO, "a.csv", b"1,2,3,pv," + b"0" * 247 + b"Mustard\n", id="mustard in the place of a tar"),
        pytest.param(ORC_LOG, "a.csv.gz", gzip.compress(b"ORC_ID,time\n7,1\n"), id="a text that begins as ORC"),
        pytest.param(TAOBAO, "a.csv", b"1,2\n1,2,3,pv,1511544070\n", id="no header, a broken line among good ones"),
        pytest.param(TAOBAO, "a.csv", b'1,"2,3",3,pv,1511544070\n', id="no header, a delimiter in quotes"),
        pytest.param(CANONICAL, "a.jsonl", b"", id="no JSON line"),
        pytest.param(
            CANONICAL, "a.jsonl", b"oops\n" + json.dumps(RECORD).encode(), id="a broken line among JSON lines"
        ),
    ],
)
def test_files_that_are_what_their_source_says(file, source, name, content):
    check_files(source, [file(name, content)])


@pytest.mark.parametrize(
    ("source", "name", "content", "expected", "found"),
    [
        pytest.param(
            RETAILROCKET,
            "a.csv",
            b"timestamp,visitorid,event,itemid\n1,2,view,3\n",
            "the header line 'timestamp,visitorid,event,itemid,transactionid'",
            "the names 'timestamp, visitorid, event, itemid'",
            id="another header",
        ),
        pytest.param(
            RETAILROCKET,
            "a.csv",
            b"1433221332117,2,view,3,\n",
            "the header line",
            "a line of 23 characters like '9,9,a,9,'",
            id="no header",
        ),
        pytest.param(
            RETAILROCKET,
            "a.csv",
            b"",
            "the header line",
            "an empty file",
            id="an empty file in place of a header",
        ),
        pytest.param(
            TAOBAO,
            "a.csv",
            b"1,2,pv,1511544070\n" * 3,
            "5 columns (user, item, category, type, time)",
            "4 in a line of 17 characters like '9,9,a,9'",
            id="a column too few on every line",
        ),
        pytest.param(
            TAOBAO,
            "a.csv.gz",
            gzip.compress(b"1,2,3,pv,1511544070,x\n"),
            "5 columns",
            "6 in a line of 21 characters like '9,9,9,a,9,a'",
            id="a column too many",
        ),
        pytest.param(
            CANONICAL,
            "a.jsonl",
            json.dumps({**RECORD, "behavior": None, "user": 1}).replace("behavior", "action").encode(),
            "JSON objects with user_id, event_time, behavior",
            "the names 'action, event_time, item_id, user, user_id'",
            id="JSON lines with other keys",
        ),
        pytest.param(
            CANONICAL,
            "a.jsonl",
            HEADER,
            "JSON objects with",
            "a line of 46 characters like 'a,a,a,a,a'",
            id="CSV in place of JSON lines",
        ),
    ],
)
def test_a_file_of_another_kind_is_named_with_what_was_expected_and_found(file, source, name, content, expected, found):
    path = file(name, content)
    with pytest.raises(SourceMismatch) as raised:
        check_files(source, [path])
    told = str(raised.value)
    assert told.startswith(f"{path}: source {source.name} expects {expected}")
    assert f"found {found}" in told


PERSONAL = (
    "Ann Meier",
    "ann.meier@example.org",
    "4111111111111111",
    "何か",
    "2017-11-24T18:01:10Z",
    "Nov 24 18:01",
    "1511544070",
)
ROWS = {
    "a column too few": (TAOBAO, ",".join(PERSONAL[:3])),
    "another delimiter": (TAOBAO, ";".join(PERSONAL)),
    "no header": (RETAILROCKET, ",".join(PERSONAL)),
    "no header, and one column": (RETAILROCKET, PERSONAL[4]),
    "no JSON": (CANONICAL, " ".join(PERSONAL)),
    "JSON with other keys": (CANONICAL, json.dumps(dict(enumerate(PERSONAL)))),
    "JSON with keys of people": (CANONICAL, json.dumps(dict.fromkeys(PERSONAL, 1))),
    "a JSON list": (CANONICAL, json.dumps(PERSONAL)),
}


@pytest.mark.parametrize("case", ROWS)
def test_no_message_says_what_a_row_says(file, case):
    source, row = ROWS[case]
    with pytest.raises(SourceMismatch) as raised:
        check_files(source, [file("a.jsonl" if source is CANONICAL else "a.csv", f"{row}\n".encode())])
    found = str(raised.value).split(", found ")[1].split(" [docs/")[0]
    assert f"a line of {len(row)} characters like " in found
    told = found.split("like ")[1].split(" (9:")[0]
    assert re.search(r"[^\W_]{2}", told.replace(r"\u", "")) is None, "no two letters or digits beside each other"


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        pytest.param("a.jsonl.gz", gzip.compress(b"{}\n" * 50)[:-12], "EOFError", id="gzip that ends too early"),
        pytest.param("a.jsonl.gz", b"{}\n", "BadGzipFile", id="gzip in name only"),
        pytest.param("a.zip", b"PK", "BadZipFile", id="zip in name only"),
        pytest.param("a.jsonl.deflate", b"{}\n", "another compression; unpack it", id="a compression of Hadoop"),
        pytest.param("a.jsonl.GZ", gzip.compress(b"{}\n"), "another compression", id="nor does it know this as gzip"),
        pytest.param("a.jsonl.zst", b"{}\n", "OSError: ZSTD decompress failed", id="Zstandard in name only"),
        pytest.param("a.tar.xz", b"{}\n", "another compression; unpack it", id="an archive in xz"),
        pytest.param("a.LZ4", b"{}\n", "another compression; unpack it", id="nor what no library here knows"),
        pytest.param(
            "a.tar.gz", gzip.compress(b"{}\n"), "another compression; unpack it", id="nor an archive of files"
        ),
        pytest.param(
            "a.jsonl",
            b"PK\x03\x04{}\n",
            "bytes that begin as those of zip; give it a name that ends in .zip",
            id="zip, by its bytes",
        ),
        pytest.param(
            "a.xlsx", b"PK\x03\x04{}\n", "bytes that begin as those of zip; it is a spreadsheet", id="a spreadsheet"
        ),
        pytest.param(
            "part-0",
            b"\x28\xb5\x2f\xfd{}\n",
            "bytes that begin as those of zstd; give it a name that ends in .zst",
            id="zstd too",
        ),
        pytest.param(
            "a.csv.gz",
            gzip.compress(b"PK\x03\x04"),
            "bytes that begin as those of zip; unpack it",
            id="zip in gzip, to which a name that ends in .zip would be no help",
        ),
        pytest.param(
            "a.orc", gzip.compress(b"ORC"), "bytes that begin as those of gzip; unpack it", id="ORC that was packed"
        ),
        pytest.param(
            "a.parquet.gz",
            gzip.compress(b"PAR1"),
            "Parquet in it; Parquet is not packed again: unpack it",
            id="Parquet in gzip",
        ),
        pytest.param(
            "a.zip", zipped(a=b"PAR1"), "Parquet in it; Parquet is not packed again: unpack it", id="Parquet in zip"
        ),
        pytest.param("a.orc.gz", gzip.compress(orc_file()), "ORC in it; ORC is not packed again", id="ORC in gzip"),
        pytest.param("a.zip", zipped(a=orc_file()), "ORC in it; ORC is not packed again: unpack it", id="ORC in zip"),
        pytest.param(
            "a.csv.gz",
            gzip.compress(tar_of(a=b"x\n")),
            "an archive of files (tar); deliver each of its files alone",
            id="an archive in gzip",
        ),
        pytest.param("a.csv", tar_of(a=b"x\n"), "an archive of files (tar)", id="an archive, by its bytes"),
        pytest.param(
            "a.zip", zipped(a=zipped(b=b"x\n")), "bytes that begin as those of zip; unpack it", id="zip in zip"
        ),
        pytest.param(
            "a.csv",
            bz2.compress(b"x\n"),
            "bytes that begin as those of bzip2; give it a name that ends in .bz2",
            id="bzip2, by its bytes",
        ),
        pytest.param("a.csv", b"\x04\x22\x4d\x18", "bytes that begin as those of lz4; unpack it", id="lz4, too"),
        pytest.param("a.avro", b"Obj\x01\x02", "ValueError: a row that cannot be read", id="Avro that was cut off"),
        pytest.param("a.feather", b"ARROW1\0\0", "Arrow, or Feather; write it as Parquet", id="Feather"),
        pytest.param("a.xls", b"\xd0\xcf\x11\xe0\xa1", "a file of Excel; export it as CSV", id="an old spreadsheet"),
        pytest.param(
            "part-0",
            gzip.compress(b"{}\n"),
            "bytes that begin as those of gzip; give it a name that ends in .gz",
            id="gzip that is not named so",
        ),
        pytest.param("a.parquet", b"{}\n", "ArrowInvalid", id="Parquet in name only"),
        pytest.param("a.parquet", b"PAR1" + b"\0" * 20, "ArrowInvalid", id="Parquet that was cut off"),
    ],
)
def test_a_file_that_cannot_be_opened_is_named(file, name, content, found):
    path = file(name, content)
    with pytest.raises(LandingUnreadable) as raised:
        check_files(CANONICAL, [path])
    told = str(raised.value)
    assert told.startswith(f"{path}: expected ")
    assert f"found {found}" in told


def parquet(file, name="a.parquet", **changes):
    """Write one record as Parquet, with other or (None) without some columns."""
    columns = {
        column: value if isinstance(value, pa.Array) else [value]
        for column, value in {**RECORD, **changes}.items()
        if value is not None
    }
    path = file(name, b"")
    pq.write_table(pa.table(columns), path)
    return path


def test_parquet_without_a_column_that_every_event_needs_is_told(file):
    path = parquet(file, user_id=None, user="u")
    with pytest.raises(SourceMismatch) as raised:
        check_files(CANONICAL, [path])
    assert str(raised.value).startswith(
        f"{path}: source canonical expects user_id, event_time, behavior, "
        "found event_time, behavior, item_id, user; missing: user_id"
    )


def test_names_of_columns_are_told_as_text_in_one_short_line(file):
    """A message goes to a terminal, to alerts and to pages, and a file may name its columns as it likes."""
    hostile = {f"\x1b[2J\nERROR meander: all is well [docs/runbook.md#x] {n}": ["x"] for n in range(20)}
    path = file("a.parquet", b"")
    pq.write_table(pa.table(hostile), path)
    with pytest.raises(SourceMismatch) as raised:
        check_files(CANONICAL, [path])
    said = str(raised.value)
    assert said.isprintable()
    assert r"found \x1b[2J\nERROR meander: " in said
    assert len(said) < 700


def test_parquet_files_of_different_types_are_told_before_spark_reads_both_by_the_schema_of_one(file):
    paths = [parquet(file, "a.parquet", item_id="1"), parquet(file, "b.parquet", item_id=1)]
    with pytest.raises(SourceMismatch) as raised:
        check_files(CANONICAL, paths)
    told = str(raised.value)
    assert told.startswith(f"{paths[1]}: ")
    assert f"item_id is number, which differs from that of {paths[0]}, text" in told


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(pa.array(["1"]), pa.array(["1"], pa.large_string()), id="a text of Arrow, and a large one"),
        pytest.param(pa.array(["1"]), pa.array([None], pa.null()), id="a column of nulls alone has no type"),
        pytest.param(pa.array([1]), pa.array([1.0]), id="pandas makes fractions of numbers if one is missing"),
        pytest.param(pa.array(["1"]), pa.array(["1"]).dictionary_encode(), id="a text in a dictionary"),
    ],
)
def test_parquet_types_that_are_the_same_text_are_not_different(file, one, other):
    check_files(CANONICAL, [parquet(file, "a.parquet", item_id=one), parquet(file, "b.parquet", item_id=other)])


@pytest.mark.parametrize(
    ("column", "value", "found"),
    [
        ("item_id", {"name": "i"}, r"expects text or whole numbers in item_id, found struct.*item_id\.id"),
        ("user_id", True, r"expects text or whole numbers in user_id, found bool"),
        ("category_id", ["a"], r"expects text or whole numbers in category_id, found list"),
        ("price", pd.Timestamp("2025-03-02"), r"expects a number in price, found timestamp"),
        ("event_time", True, r"expects a time in event_time, found bool"),
    ],
)
def test_parquet_types_that_are_no_ids_times_or_prices_are_told(file, column, value, found):
    with pytest.raises(SourceMismatch, match=found):
        check_files(CANONICAL, [parquet(file, **{column: value})])


def test_a_timestamp_of_parquet_for_a_source_of_epochs_is_told_with_what_to_write(file):
    time = CANONICAL.time.model_copy(update={"format": "epoch_ms"})
    with pytest.raises(SourceMismatch, match=r"event_time as epoch_ms, found timestamp.*write `format: iso8601`"):
        check_files(CANONICAL.model_copy(update={"time": time}), [parquet(file, event_time=pd.Timestamp("2025-03-02"))])


# --- columns that are missing ----------------------------------------------------------------------------

STRICT = CANONICAL.model_copy(update={"may_lack": []})


def test_a_parquet_column_that_the_source_names_and_the_file_lacks_is_told(file):
    with pytest.raises(SourceMismatch, match=r"missing: category_id, query, price"):
        check_files(STRICT, [parquet(file)])


@pytest.mark.parametrize("source", [STRICT, CANONICAL])
def test_a_column_in_another_spelling_is_told_even_if_it_may_be_lacking(file, source):
    with pytest.raises(SourceMismatch, match=r"missing: .*price.*it has 'PRICE' where the source says 'price'"):
        check_files(source, [parquet(file, Category_Id="c", PRICE=1.5)])
    lines = [json.dumps({**RECORD, "categoryId": "c", "query": "q", "price": 1})]
    with pytest.raises(SourceMismatch, match=r"reads category_id, found in none.*it has 'categoryId' where"):
        check_files(source, [file("a.jsonl", "\n".join(lines).encode())])


def test_a_key_that_no_json_line_has_is_told_with_what_to_do(file):
    paths = [file(f"{n}.jsonl", json.dumps({**RECORD, "category_id": "c", "price": 1}).encode()) for n in range(2)]
    with pytest.raises(SourceMismatch, match=r"reads query, found in none of the first 100 lines.*`may_lack`"):
        check_files(STRICT, paths)
    # One line of one file is enough: not each visit is a search.
    check_files(STRICT, [*paths, file("c.jsonl", json.dumps({**RECORD, "query": "q"}).encode())])


# --- the lines above the rows ----------------------------------------------------------------------------

ANY_ORDER = RETAILROCKET.model_copy(update={"columns": []})


def laid_out(source, path):
    """Return the names, the header and the number of lines above the first row that were found in a file."""
    (layout,) = check_files(source, [path]).text
    return layout.names, layout.header, layout.lines_above


@pytest.mark.parametrize(
    ("header", "names"),
    [
        pytest.param('"timestamp","visitorid","event","itemid"', "timestamp visitorid event itemid", id="quoted"),
        pytest.param("timestamp, visitorid,\tevent , itemid", "timestamp visitorid event itemid", id="blanks"),
        pytest.param("itemid,event,x,timestamp,visitorid", "itemid event x timestamp visitorid", id="in any order"),
        pytest.param('"a, b",timestamp,"visitorid",event,itemid', "a, b|timestamp|visitorid|event|itemid", id="commas"),
    ],
)
def test_names_are_read_from_the_header_without_quotes_and_blanks(file, header, names):
    expected = tuple(names.split("|") if "|" in names else names.split())
    assert laid_out(ANY_ORDER, file("a.csv", f"{header}\n1,2,3,4\n".encode())) == (expected, header, 1)


def test_lines_above_the_header_are_found_out_or_counted_by_the_source(file):
    columns = ("timestamp", "visitorid", "event", "itemid", "transactionid")
    header = HEADER.decode().strip()
    assert laid_out(RETAILROCKET, file("a.csv", b"sep=,\r\n" + HEADER)) == (columns, header, 2)
    skipping = RETAILROCKET.model_copy(update={"skip_lines": 3})
    assert laid_out(skipping, file("b.csv", b"Export of 2 March\n\nby Ann\n" + HEADER)) == (columns, header, 4)


def test_a_header_that_names_a_used_column_twice_is_told(file):
    path = file("a.csv", b"timestamp,visitorid,event,itemid,event\n")
    with pytest.raises(SourceMismatch, match=r"reads the column event, found it 2 times"):
        check_files(ANY_ORDER, [path])


def test_a_header_with_a_name_in_another_case_is_told(file):
    path = file("a.csv", b"timestamp,VisitorID,event,itemid\n")
    with pytest.raises(SourceMismatch, match=r"a header with .*it has 'VisitorID' where the source says 'visitorid'"):
        check_files(ANY_ORDER, [path])


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_the_byte_order_of_utf_16_is_told_by_its_mark(file, encoding):
    path = file("a.csv", ("\ufeff" + HEADER.decode().replace("\n", "\r\n") + "1,2,view,4,\r\n").encode(encoding))
    (layout,) = check_files(RETAILROCKET.model_copy(update={"encoding": "utf-16"}), [path]).text
    assert (layout.charset.lower(), layout.header) == (
        encoding.replace("-l", "l").replace("-b", "b"),
        HEADER.decode().strip(),
    )


def test_an_empty_file_beside_others_has_no_rows(file):
    full, empty = file("a.csv", HEADER), file("b.csv", b"")
    assert list(check_files(RETAILROCKET, [full, empty]).text.values()) == [[full]]


def test_an_empty_parquet_file_was_cut_off(file):
    full, empty = parquet(file, "a.parquet"), file("b.parquet", b"")
    with pytest.raises(LandingUnreadable, match=r"b\.parquet: expected a Parquet file, found"):
        check_files(CANONICAL, [full, empty])


def test_parquet_is_known_by_its_first_bytes_too(file):
    path = parquet(file, "20240305_100000_00037_v74wa")
    found = check_files(CANONICAL, [path])
    assert (list(found.parquet.values()), list(found.text)) == ([[path]], [])


@pytest.mark.parametrize(
    ("text", "encoding", "python"),
    [
        (json.dumps([RECORD]), "utf-8", "utf-8"),
        ("\r\n" + json.dumps([RECORD, {}], indent=2), "utf-8-sig", "utf-8"),
        (json.dumps([{}, RECORD], ensure_ascii=False), "latin-1", "latin-1"),
        ("\ufeff" + json.dumps([RECORD], indent="\t"), "utf-16-be", "utf-16-be"),
        ("[]", "utf-8", "utf-8"),
    ],
)
def test_an_array_of_json_is_known_by_its_beginning(file, text, encoding, python):
    source = CANONICAL.model_copy(update={"encoding": "utf-16" if encoding == "utf-16-be" else encoding})
    path = file("a", text.encode(encoding))
    # Its rows are written in UTF-8.
    assert dict(check_files(source, [path]).text) == {Layout("UTF-8", by_python=True, array=python): [path]}


def test_a_broken_first_line_that_begins_with_a_bracket_makes_no_array(file):
    path = file("a.jsonl", b"[warning] queue was full\n" + json.dumps(RECORD).encode())
    assert dict(check_files(CANONICAL, [path]).text) == {Layout("UTF-8"): [path]}


@pytest.mark.spark
@pytest.mark.parametrize("end", ["\n", "\r\n", " \n"])
def test_lines_behind_an_empty_batch_are_lines(file, spark, end):
    path = file("a.jsonl", f"[]{end}{json.dumps(RECORD)}{end}{json.dumps(RECORD)}{end}".encode())
    assert dict(check_files(CANONICAL, [path]).text) == {Layout("UTF-8"): [path]}
    judged = judge(read_rows(spark, CANONICAL, [path]), CANONICAL, Settings())
    found = judged.orderBy("position").select("reason", "outcome").collect()
    assert [row.reason or row.outcome for row in found] == ["malformed_line", "event", "event"]


@pytest.mark.parametrize(
    ("content", "error", "told"),
    [
        (b'[{"user": 7}]', SourceMismatch, r"expects JSON objects with .*, found the names 'user'"),
        (b"[{}, \n]", LandingUnreadable, r"expected an array of JSON, with a row behind row 1, at byte 6"),
        (f"[{json.dumps(RECORD)}".encode(), LandingUnreadable, r"with , or \] behind row 1, .* the end of the file"),
        (b'[{"a": "' + b"x" * (2 << 20) + b'"}]', LandingUnreadable, "rows of at most 1,048,576 bytes, found a first"),
    ],
)
@pytest.mark.parametrize("name", ["a.json", "a.json.gz"])
def test_an_array_that_does_not_fit_is_told(file, name, content, error, told):
    path = file(name, gzip.compress(content) if name.endswith(".gz") else content)
    with pytest.raises(error, match=rf"{re.escape(path)}: .*{told}"):
        check_files(CANONICAL, [path])


def test_an_array_of_one_line_may_have_more_than_a_line_may(file):
    path = file("a.json", json.dumps([RECORD] * 20_000).encode())
    assert list(check_files(CANONICAL, [path]).text.values()) == [[path]]


def test_text_for_a_source_that_is_parquet_is_told(file):
    path = file("a.csv", HEADER)
    with pytest.raises(
        SourceMismatch, match=r"a\.csv: source completejourney expects Parquet, ORC or Avro files, found text"
    ):
        check_files(load_source("completejourney"), [path])


# --- lines without an end, and what grows when it is unpacked ---------------------------------------------

MIB = 1 << 20
# Checks one file in a process of its own and prints the memory that it took beyond what the modules take, in MiB.
PEAK = """
import resource, sys
from jobs.landing_files import check_files
from jobs.source import load_source
from lake.errors import LandingUnreadable

peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
source, before = load_source(sys.argv[1]), peak()
try:
    check_files(source, [sys.argv[2]])
except LandingUnreadable as error:
    print(error, file=sys.stderr)
print(peak() - before)
"""


def pressed(opened, line_end, size=300 * MIB):
    """Write a file of very many equal bytes, or lines, which is small when it is compressed."""
    with opened as stream:
        for _ in range(size // MIB):
            stream.write(b"0" * (MIB - len(line_end)) + line_end)


@pytest.mark.parametrize("name", ["bomb.csv.gz", "bomb.csv.bz2", "endless.csv"])
def test_a_file_with_an_endless_line_is_refused_in_little_memory(file, name):
    path = file(name, b"")
    opened = {"gz": gzip.open, "bz2": bz2.open, "csv": open}[name.rpartition(".")[2]]
    pressed(opened(path, "wb"), b"")
    done = subprocess.run([sys.executable, "-c", PEAK, "taobao", path], capture_output=True, text=True, check=True)
    assert done.stderr.startswith(
        f"{path}: expected lines of at most 1,048,576 bytes, found a first line that is longer"
    )
    assert int(done.stdout) < 100


def test_of_a_file_with_an_endless_line_further_down_only_the_beginning_is_read(file):
    path = file("log.csv.gz", b"")
    with gzip.open(path, "wb") as stream:
        stream.write(b"1,2,3,pv,1511544070\n")
        pressed(stream, b"")
    done = subprocess.run([sys.executable, "-c", PEAK, "taobao", path], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert int(done.stdout) < 100


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n", b"\n1,2,3,pv,1511544070\n"])
def test_a_line_of_a_mebibyte_is_a_line_and_one_byte_more_is_too_long(file, end):
    line = b"1,2,3,pv,".ljust(MIB, b"1")
    check_files(TAOBAO, [file("a.csv", line + end), file("b.csv", b"\xef\xbb\xbf" + line[:-3] + end)])
    with pytest.raises(LandingUnreadable, match="a first line that is longer"):
        check_files(TAOBAO, [file("a.csv", line + b"1" + end)])


def test_of_a_line_of_which_only_the_beginning_was_read_no_column_is_counted(file):
    # Each whole line has a column too many; the beginning of the last one has fewer.
    content = b"1,2,3,pv,1511544070,6\n1,2," + b"3" * MIB + b",pv,1511544070,6\n"
    with pytest.raises(SourceMismatch, match=r"expects 5 columns .* found 6"):
        check_files(TAOBAO, [file("a.csv", content)])


@pytest.mark.spark
@pytest.mark.parametrize("character", ["1", "漢", "🙂"])
def test_a_line_that_is_too_long_is_one_rejected_row_and_loses_no_other(spark, file, character):
    good = "1,2,3,pv,1511544070"
    longest = good.replace("3", "3".ljust(MIB - len(good) + 1, "3"))
    too_long = f"{good},x{character * MIB}"
    path = file("log.csv", "\n".join([good, longest, too_long, good]).encode())
    rows = read_rows(spark, TAOBAO, [path]).orderBy("position").collect()
    assert [(row.malformed, row.undecodable) for row in rows] == [
        (False, False),
        (False, False),
        (True, False),
        (False, False),
    ]
    assert rows[1].raw == longest
    # Of the one that is too long the quarantine gets its 4,096 characters, and nothing after this holds all of it.
    assert rows[2].raw[:4095] == too_long[:4095]
    assert len(rows[2].raw.encode()) <= 16 * 1024 + 2


@pytest.mark.spark
def test_no_character_of_one_line_changes_what_is_read_of_the_next(spark, file):
    few = [*range(0x100), 0x2028, 0x2029, 0x202E, 0xFEFF, 0xFFFD, 0xFFFE, 0xFFFF, 0x1FFFF, 0x10FFFF]
    characters = [chr(code) for code in few if chr(code) not in "\r\n"]
    good = "12,3,4,pv,1511544070"
    lines = [
        each for c in characters for each in (f"{c}1,2,3,pv,1", good, f"1,{c}2,3,pv,1", good, f"1,2,3,pv,1{c}", good)
    ]
    path = file("log.csv", "\n".join([good, *lines]).encode())
    rows = read_rows(spark, TAOBAO, [path]).orderBy("position").collect()
    assert len(rows) == 1 + len(lines)
    assert {(row.raw, row.malformed, *row["values"]) for row in rows[::2]} == {
        (good, False, "12", "1511544070", "pv", "3", "4")
    }


# --- what only Spark finds -----------------------------------------------------------------------------


@pytest.mark.spark
def test_a_file_that_breaks_in_its_middle_is_named_and_nothing_is_staged(lake, land):
    rng = random.Random(1)
    rows = [json.dumps({**RECORD, "item_id": f"{rng.random()}"}) for _ in range(20_000)]
    land("2025-03-02", rows[:10], "whole.jsonl")
    broken = lake / "landing" / "dt=2025-03-02" / "broken.jsonl.gz"
    content = gzip.compress("\n".join(rows).encode())
    broken.write_bytes(content[: len(content) // 2])

    with pytest.raises(LandingUnreadable, match=r"dt=2025-03-02/broken\.jsonl\.gz.*expected .*, found ") as raised:
        ingest.main(["--day", "2025-03-02", "--run-id", "r"])

    assert "whole.jsonl" not in str(raised.value)
    assert [path.name for path in (lake / "lake").iterdir()] == ["_order"], "the run has its number, and no more"


@pytest.mark.spark
def test_a_file_of_another_kind_stops_the_run_before_anything_is_staged(lake, land):
    land("2025-03-02", [RECORD], "a.jsonl")
    land("2025-03-02", ["who,when,what", "u,now,view"], "b.jsonl")
    with pytest.raises(SourceMismatch, match=r"b\.jsonl: source canonical expects JSON objects"):
        ingest.main(["--day", "2025-03-02", "--run-id", "r"])
    assert [path.name for path in (lake / "lake").iterdir()] == ["_order"], "the run has its number, and no more"


@pytest.mark.spark
def test_names_that_look_like_patterns_are_names(spark, file):
    names = [
        "log (1).jsonl",
        "log [12].jsonl",
        "log *.jsonl",
        "log {a,b}.jsonl",
        "log 1.jsonl",
        "50% off?.jsonl",
    ]
    paths = [file(name, json.dumps({**RECORD, "user_id": name}).encode()) for name in names]
    rows = read_rows(spark, CANONICAL, paths).select("values.user_id", "landed").collect()
    assert sorted(row.user_id for row in rows) == sorted(names)
    assert {str(row.landed) for row in rows} == {"2025-03-02"}


@pytest.mark.spark
def test_a_parquet_column_of_instants_needs_no_zone_and_one_of_wall_clock_times_takes_that_of_its_source(spark, file):
    from jobs.rejections import judge
    from lake.settings import Settings

    in_shanghai = CANONICAL.model_copy(update={"time": CANONICAL.time.model_copy(update={"zone": "Asia/Shanghai"})})
    moment = pd.Timestamp("2025-03-02 10:00:00.000001").as_unit("us")
    found = {}
    for name, time in (("instant", moment.tz_localize("UTC")), ("wall clock", moment)):
        judged = judge(read_rows(spark, in_shanghai, [parquet(file, event_time=time)]), in_shanghai, Settings())
        found[name] = judged.select(judged.event_time.cast("string")).head()[0]
    assert found == {"instant": "2025-03-02 10:00:00.000001", "wall clock": "2025-03-02 02:00:00.000001"}
