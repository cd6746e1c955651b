"""Whose a landing row is, which files have rows of a user, and those files without them."""

import bz2
import codecs
import gzip
import io
import json
import lzma
import os
import subprocess
import sys
from datetime import date
from decimal import Decimal
from pathlib import Path

import fastavro
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.local import LocalFileSystem
from pyarrow import orc

from jobs.landing_users import forget_in_landing, user_of, whose_of
from jobs.source import Source, Value, Version, load_source
from lake.landing import Landing
from lake.privacy.forget import Done, Left
from lake.privacy.landed import LandedRows, read_landed
from lake.privacy.matching import NamedUsers
from tests.jobs import test_packed

DAY = date(2025, 1, 1)
JSON, TAOBAO, ZH, REES46 = (load_source(name) for name in ("canonical", "taobao", "export_zh", "rees46"))
NESTED, EITHER = (JSON.model_copy(update={"user_id": Value(columns=of)}) for of in (("who.id",), ("user", "cookie")))


@pytest.mark.parametrize(
    ("source", "raw", "user"),
    [
        pytest.param(JSON, '{"user_id": "ann", "query": "bob"}', "ann", id="by its column"),
        pytest.param(JSON, '{"user_id": 12}', "12", id="a number"),
        pytest.param(JSON, '{"user_id": 12.0}', None, id="a number that ingest reads as another text"),
        pytest.param(JSON, '{"user_id": "1.2E3"}', None, id="such a number in quotes"),
        pytest.param(JSON, '{"user_id": "\\tann\\u00a0"}', "ann", id="without what surrounds it"),
        pytest.param(JSON, '{"user_id": " ann "}', "ann", id="without blanks around it"),
        pytest.param(JSON, '{"user_id": "rene\u0301"}', "ren\u00e9", id="in the form of the lake"),
        pytest.param(JSON, '{"user_id": "rene\\u0301"}', "ren\u00e9", id="also where JSON escapes it"),
        pytest.param(JSON, '{"user_id": "ann"', None, id="a broken row has no user"),
        pytest.param(JSON, '["user_id"]', None, id="nor has what is no object"),
        pytest.param(JSON, '{"user_id": null}', None, id="nor has a row of nobody"),
        pytest.param(TAOBAO, "7,2,3,pv,1511544070", "7", id="by its place"),
        pytest.param(TAOBAO, "7,2,3", None, id="too few values"),
        pytest.param(TAOBAO, '"7,a",2,3,pv,1511544070', "7,a", id="quoted"),
        pytest.param(TAOBAO, '{"user": "7"}', "7", id="a row of a Parquet file is JSON in the quarantine"),
        pytest.param(
            REES46, "2019-10-01 00:00:00 UTC,view,7,2,x,b,1.5,9,s", None, id="only the header knows its place"
        ),
        pytest.param(NESTED, '{"who": {"id": "ann"}}', "ann", id="inside of an object"),
        pytest.param(NESTED, '{"who.id": "ann"}', "ann", id="a key with a dot in it"),
        pytest.param(EITHER, '{"user": "ann", "cookie": "c"}', None, id="the first of two columns: nobody can tell"),
    ],
)
def test_the_user_of_a_row(source, raw, user):
    assert user_of(source, raw) == user


def test_a_row_is_read_by_the_source_that_it_names():
    whose = whose_of(JSON)
    assert whose("taobao", "7,2,3,pv,1511544070") == "7"
    assert whose("canonical", '{"user_id": "ann"}') == "ann"
    assert whose("gone", '{"user_id": "ann"}') is None


def forget(
    landing: Landing, user: str, source: Source, *, rewrite: bool, is_new: bool = False
) -> tuple[list[Done], list[Left]]:
    users = NamedUsers(frozenset({user}))
    new = users if is_new else NamedUsers(frozenset())
    return forget_in_landing(landing, users, source, rewrite=rewrite, request="forget-1", new=new)


ANN = json.dumps({"user_id": "ann", "item_id": "x"})
# Another user who typed the id; a row that cannot be read; one with another id in which it is.
OTHERS = [json.dumps({"user_id": "bob", "query": "ann"}), '{"user_id": "joanna"', json.dumps({"user_id": "ann-marie"})]
BROKEN = '{"user_id": "ann"'


def table_of_avro(*lines: str) -> bytes:
    """Return rows of JSON, of which each value is a text, as an Avro file."""
    rows, sink = [json.loads(line) for line in lines], io.BytesIO()
    fields = [{"name": name, "type": "string"} for name in rows[0]]
    fastavro.writer(sink, {"type": "record", "name": "row", "fields": fields}, rows)
    return sink.getvalue()


def table_of_orc(*lines: str) -> bytes:
    """Return rows of JSON as an ORC file."""
    sink = io.BytesIO()
    orc.write_table(pa.Table.from_pylist([json.loads(line) for line in lines]), sink)
    return sink.getvalue()


def text(*lines: str) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


@pytest.fixture
def landing(tmp_path) -> Landing:
    folder = tmp_path / f"dt={DAY}"
    folder.mkdir()
    both = text(OTHERS[0], ANN, OTHERS[1], BROKEN, OTHERS[2])
    (folder / "plain.jsonl").write_bytes(both)
    (folder / "packed.jsonl.gz").write_bytes(gzip.compress(both))
    (folder / "packed.jsonl.bz2").write_bytes(bz2.compress(both))
    (folder / "others.jsonl").write_bytes(text(*OTHERS))
    (folder / "_SUCCESS").write_bytes(b"ann")
    rows = pa.table({"user_id": ["bob", "ann", "cem"], "item_id": ["x", "y", "z"]})
    pq.write_table(rows, folder / "rows.parquet", row_group_size=2)
    pq.write_table(rows.slice(1, 1), folder / "alone.parquet")
    return Landing(str(tmp_path))


def test_files_with_rows_of_a_user_are_named_and_stay_as_they_are(landing):
    folder = Path(landing.folder(DAY))
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    done, left = forget(landing, "ann", JSON, rewrite=False)
    assert [one.what.split(" has ")[0].rsplit("/", 1)[1] for one in left] == [
        "alone.parquet", "packed.jsonl.bz2", "packed.jsonl.gz", "plain.jsonl", "rows.parquet"
    ]  # fmt: skip
    assert [one.files for one in done] == [0]
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_files_are_written_anew_without_the_user_and_with_all_other_bytes(landing):
    folder = Path(landing.folder(DAY))
    names = {file.name for file in folder.iterdir()}
    others = (folder / "others.jsonl").stat()
    (done,), left = forget(landing, "ann", JSON, rewrite=True)
    assert (done.files, done.rows, len(left)) == (5, 8, 5)
    kept = text(*OTHERS)
    assert (folder / "plain.jsonl").read_bytes() == kept
    assert gzip.decompress((folder / "packed.jsonl.gz").read_bytes()) == kept
    assert bz2.decompress((folder / "packed.jsonl.bz2").read_bytes()) == kept
    assert pq.read_table(folder / "rows.parquet").to_pylist() == [
        {"user_id": "bob", "item_id": "x"}, {"user_id": "cem", "item_id": "z"}
    ]  # fmt: skip
    # A file that is gone would be a delivery that lost one.
    assert pq.read_table(folder / "alone.parquet").schema.names == ["user_id", "item_id"]
    assert len(pq.read_table(folder / "alone.parquet")) == 0
    assert {file.name for file in folder.iterdir()} == names, "nothing unfinished is left"
    assert (folder / "others.jsonl").stat().st_mtime_ns == others.st_mtime_ns
    assert forget(landing, "ann", JSON, rewrite=True)[0][0].files == 0


def test_each_file_is_read_by_the_version_of_the_source_that_counts_for_it(tmp_path):
    orders = Version(date.min, "orders*", JSON.model_copy(update={"user_id": Value(columns=("buyer",))}))
    source = JSON.model_copy(update={"versions": (orders,)})
    folder = tmp_path / f"dt={DAY}"
    folder.mkdir()
    # Which of two ids in a row is its user, only the version knows.
    rows = [json.dumps({"user_id": "ann", "buyer": "bob"}), json.dumps({"user_id": "bob", "buyer": "ann"})]
    for name in ("orders.jsonl", "views.jsonl"):
        (folder / name).write_bytes(text(*rows))
    (done,), _ = forget(Landing(str(tmp_path)), "ann", source, rewrite=True)
    assert (done.files, done.rows) == (2, 2)
    assert (folder / "views.jsonl").read_bytes() == text(rows[1])
    assert (folder / "orders.jsonl").read_bytes() == text(rows[0])
    # A row in the quarantine does not say which version has read it.
    assert whose_of(source)("canonical", rows[0]) is None


def test_of_one_source_with_two_patterns_a_rejected_row_is_whose_it_says(tmp_path):
    both = tmp_path / "both.yaml"
    both.write_text('name: s\ndescription: d\nsources: {"web/*": canonical, "old*": canonical, "app/*": taobao}\n')
    whose = whose_of(load_source(str(both)))
    assert whose("canonical", '{"user_id": "ann"}') == "ann"
    assert whose("taobao", "7,2,3,pv,1511544070") == "7"
    assert whose("s", '{"user_id": "ann"}') is None


def test_the_encoding_of_a_source_is_respected(tmp_path):
    source = ZH.model_copy(update={"encoding": "gb18030"})
    file = tmp_path / f"dt={DAY}" / "a.csv"
    file.parent.mkdir()
    lines = ["用户一,浏览,1511544070,1", "用户二,浏览,1511544070,1"]
    delimiter = source.delimiter
    lines = [line.replace(",", delimiter) for line in lines]
    file.write_bytes("".join(f"{line}\n" for line in lines).encode("gb18030"))
    forget(Landing(str(tmp_path)), "用户一", source, rewrite=True)
    assert file.read_bytes().decode("gb18030") == f"{lines[1]}\n"


def test_columns_are_those_of_the_header_in_any_order(tmp_path):
    # The ids of user and item are alike here, and the price is written as the id.
    rows = {"theirs": "42,7,view,2019-10-01 00:00:00 UTC,1", "others": "7,42,view,2019-10-01 00:00:00 UTC,42"}
    header = "user_id,product_id,event_type,event_time,price"
    file = tmp_path / f"dt={DAY}" / "a.csv"
    file.parent.mkdir()
    source = REES46.model_copy(update={"columns": [], "category_id": None})
    file.write_bytes(text(header, *rows.values()))
    (done,), _ = forget(Landing(str(tmp_path)), "42", source, rewrite=True)
    assert (done.rows, file.read_bytes()) == (1, text(header, rows["others"]))


def test_files_of_a_zip_are_searched_by_the_header_that_each_has(tmp_path):
    # Of four rows with 42 in them, three have it as their user; by the header of the first file, two.
    files = {
        "a.csv": text("user_id,product_id,event_type,event_time,price", "42,7,view,2019-10-01 00:00:00 UTC,1"),
        "b.csv": text(
            "product_id,user_id,event_type,event_time,price",
            *(f"{item},{user},view,2019-10-01 00:00:00 UTC,1" for item, user in ((42, 7), (7, 42), (8, 42))),
        ),
    }
    file = tmp_path / f"dt={DAY}" / "a.zip"
    file.parent.mkdir()
    file.write_bytes(test_packed.zipped(**files))
    source = REES46.model_copy(update={"columns": [], "category_id": None})
    (done,), (left,) = forget(Landing(str(tmp_path)), "42", source, rewrite=True)
    assert (done.files, "has 3 rows of theirs" in left.what) == (0, True)


@pytest.mark.parametrize(
    ("name", "content", "changes"),
    [
        pytest.param("a.jsonl.xz", lzma.compress(text(ANN)), {}, id="packed, and read by Python"),
        pytest.param("part-0", table_of_orc(ANN), {"format": "parquet"}, id="ORC"),
        pytest.param("part-0", table_of_orc(ANN), {"encoding": "utf-16"}, id="ORC among texts of UTF-16"),
        pytest.param(
            "part-0.orc",
            table_of_orc(ANN),
            {"format": "csv", "encoding": "cp500"},
            id="ORC among texts of another kind",
        ),
        pytest.param("a.jsonl", f"{ANN}\n".encode("utf-16"), {"encoding": "utf-16"}, id="two bytes a character"),
        pytest.param("part-0", table_of_avro(ANN), {"format": "parquet"}, id="Avro"),
        pytest.param("a.json", f"[{ANN},\n{OTHERS[0]}]".encode(), {}, id="an array"),
        pytest.param("a.json", f"[{ANN}]".encode("utf-16"), {"encoding": "utf-16"}, id="an array of UTF-16"),
        pytest.param("a.zip", test_packed.zipped(a=text(OTHERS[0]), b=f"[{ANN}]".encode()), {}, id="second in a .zip"),
        pytest.param("a.csv", b'ann,"x\ny"\n', {"format": "csv", "multiline": True}, id="records of several lines"),
    ],
)
def test_what_is_not_plain_lines_is_named_and_left_to_the_shop(tmp_path, name, content, changes):
    source = JSON.model_copy(update=changes)
    file = tmp_path / f"dt={DAY}" / name
    file.parent.mkdir()
    file.write_bytes(content)
    (done,), (left,) = forget(Landing(str(tmp_path)), "ann", source, rewrite=True)
    assert (done.files, "remove them by the shop" in left.what) == (0, True)
    assert "has 1 rows of theirs" in left.what
    assert file.read_bytes() == content


def test_lines_may_end_as_on_old_macs_and_each_is_one_row(tmp_path):
    file = tmp_path / f"dt={DAY}" / "a.jsonl"
    file.parent.mkdir()
    file.write_bytes("\r".join([ANN, OTHERS[0], ANN, f"{OTHERS[2]}\r\n{ANN}"]).encode())
    (done,), _ = forget(Landing(str(tmp_path)), "ann", JSON, rewrite=True)
    # As one line, all would be hers.
    assert (done.rows, file.read_bytes()) == (3, f"{OTHERS[0]}\r{OTHERS[2]}\r\n".encode())


# Looks for a user in a folder, and prints the memory that it took beyond what the modules take, in MiB.
SEARCH = """
import sys
from pathlib import Path
from jobs.landing_users import files_of
from jobs.source import load_source
from lake.landing import Landing
from lake.privacy.matching import NamedUsers

most = lambda: int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) // 1024
source, before, unread = load_source("canonical"), most(), []
files = files_of(Landing(sys.argv[1]), NamedUsers({"ann"}), source, unread)
found = [(one.rows, one.can_be_rewritten()) for one in files]
print(found, [one.what.rpartition("/")[2] for one in unread], most() - before, sep="|")
"""


@pytest.mark.parametrize(("name", "opened"), [("a.jsonl", open), ("a.jsonl.gz", gzip.open), ("a.jsonl.bz2", bz2.open)])
def test_an_endless_line_is_searched_in_little_memory_and_named(tmp_path, name, opened):
    file = tmp_path / f"dt={DAY}" / name
    file.parent.mkdir()
    with opened(file, "wb") as stream:
        stream.write(text(ANN))
        for _ in range(300):
            stream.write(b"0" * (1 << 20))
        stream.write(text("", ANN))
    done = subprocess.run([sys.executable, "-c", SEARCH, tmp_path], capture_output=True, text=True, check=True)
    found, unread, memory = done.stdout.split("|")
    assert found == "[(2, False)]"
    assert unread == f"['{name} has lines of more than 1,048,576 bytes, of which the beginnings alone were searched']"
    assert int(memory) < 100


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.xz"])
def test_of_two_bytes_a_character_the_file_says_which_comes_first(tmp_path, name, encoding):
    # Read with the bytes the other way round, the end of a line would be none, and what comes after a mebibyte unread.
    # Ann's id in another column does not make a row hers.
    others = [json.dumps({"user_id": "bob", "query": "ann"}), json.dumps({"user_id": "bob", "query": "q" * (1 << 19)})]
    content = "\n".join([*others, ANN, ANN, others[0]]).encode("utf-16-be")
    file = tmp_path / f"dt={DAY}" / name
    file.parent.mkdir()
    file.write_bytes((lzma.compress if name.endswith("xz") else bytes)(codecs.BOM_UTF16_BE + content))
    source = JSON.model_copy(update={"encoding": encoding})
    _, (long, left) = forget(Landing(str(tmp_path)), "ann", source, rewrite=True)
    assert "has lines of more than 1,048,576 bytes" in long.what
    assert "has 2 rows of theirs" in left.what


def test_a_mark_of_the_byte_order_makes_no_row_of_another_user_theirs(tmp_path):
    file = tmp_path / f"dt={DAY}" / "a.jsonl"
    file.parent.mkdir()
    # The item of the first user is called as the user who goes.
    both = (("bob", "ann"), ("ann", "x"), ("eve", "y"))
    rows = [json.dumps({"user_id": user, "item_id": item}) for user, item in both]
    file.write_bytes(codecs.BOM_UTF8 + text(*rows))
    (done,), _ = forget(Landing(str(tmp_path)), "ann", JSON, rewrite=True)
    assert (done.rows, file.read_bytes()) == (1, codecs.BOM_UTF8 + text(rows[0], rows[2]))
    (done,), _ = forget(Landing(str(tmp_path)), "bob", JSON, rewrite=True)
    assert (done.rows, file.read_bytes()) == (1, text(rows[2]))


def test_the_rows_that_were_there_are_written_down_once_for_a_user(lake, landing):
    forget(landing, "ann", JSON, rewrite=False)
    assert read_landed() == [], "an earlier request has written them down"
    forget(landing, "ann", JSON, rewrite=False, is_new=True)
    (first,) = read_landed()
    # Two rows in each of three files of text, and one in each of two of Parquet.
    assert first == LandedRows(first.number, {DAY: 8})
    forget(landing, "ann", JSON, rewrite=True, is_new=True)
    forget(landing, "ann", JSON, rewrite=True, is_new=True)
    assert read_landed() == [first], "a request that was killed and is repeated finds those that are left"


def test_of_several_users_the_rows_of_those_count_whom_no_request_has_named(lake, landing):
    both, bob = (NamedUsers(frozenset(users)) for users in (("ann", "bob"), ("bob",)))
    forget_in_landing(landing, both, JSON, rewrite=False, request="forget-2", new=bob)
    # Four of text, of which bob has one in each; one of Parquet.
    assert [each.rows for each in read_landed()] == [{DAY: 5}]


@pytest.mark.parametrize(
    "theirs",
    [
        pytest.param('{"user_id": 12000000, "item_id": "x"}', id="a whole number"),
        pytest.param('{"user_id": 12000000.0, "item_id": "x"}', id="a fraction"),
        pytest.param('{"user_id": 1.2E7, "item_id": "x"}', id="as Java writes it"),
        pytest.param('{"user_id": "1.2E7", "item_id": "x"}', id="in quotes"),
    ],
)
def test_an_id_of_digits_is_found_however_the_landing_writes_it(tmp_path, theirs):
    # Another number that begins alike, one that is longer, and the number of another user in scientific notation.
    others = ['{"user_id": 120000001}', '{"user_id": 11.2E7}', '{"user_id": 1.2E8}', '{"user_id": 1.25E7}']
    file = tmp_path / f"dt={DAY}" / "a.jsonl"
    file.parent.mkdir()
    file.write_bytes(text(others[0], theirs, *others[1:]))
    (done,), _ = forget(Landing(str(tmp_path)), "12000000", JSON, rewrite=True)
    assert (done.rows, file.read_bytes()) == (1, text(*others))


def test_an_id_of_digits_is_found_in_a_column_of_fractions(tmp_path):
    file = tmp_path / f"dt={DAY}" / "a.parquet"
    file.parent.mkdir()
    pq.write_table(pa.table({"user_id": [1.2e10, 1.2e11, 12000000000.5, None, float("nan"), 3e40, 7.0]}), file)
    # Arrow writes it as 1.2e+10.
    (done,), _ = forget(Landing(str(tmp_path)), "12000000000", JSON, rewrite=True)
    assert done.rows == 1
    assert str(pq.read_table(file)["user_id"].to_pylist()) == "[120000000000.0, 12000000000.5, None, nan, 3e+40, 7.0]"


@pytest.mark.parametrize(
    ("ids", "user", "left"),
    [
        pytest.param([1234567890123456.0, 7.0], "1234567890123456", [7.0], id="a fraction of 16 digits"),
        pytest.param([Decimal("7.00"), Decimal("7.50")], "7", [Decimal("7.50")], id="a decimal"),
        pytest.param(["7.0", "7.5", "17.0", "7"], "7", ["7.5", "17.0"], id="text that pandas wrote"),
        pytest.param(["1.2E7", "1.25E1", "1.2E8"], "12000000", ["1.25E1", "1.2E8"], id="text that Java wrote"),
        pytest.param(
            ["1.2E7", "1.0E30", "1.0E999999999", f"1.{'1' * 60}E9"],
            "12000000",
            ["1.0E30", "1.0E999999999", f"1.{'1' * 60}E9"],
            id="texts that are no number that a log has",
        ),
        pytest.param([" ann\t", "ann b", "an"], "ann", ["ann b", "an"], id="with blanks around it"),
    ],
)
def test_an_id_is_found_in_parquet_however_ingest_would_read_it(tmp_path, ids, user, left):
    file = tmp_path / f"dt={DAY}" / "a.parquet"
    file.parent.mkdir()
    pq.write_table(pa.table({"user_id": ids}), file)
    forget(Landing(str(tmp_path)), user, JSON, rewrite=True)
    assert pq.read_table(file)["user_id"].to_pylist() == left


@pytest.mark.parametrize("form", ["ren\u00e9", "rene\u0301"])
def test_an_id_is_found_in_both_forms_of_unicode(tmp_path, form):
    folder = tmp_path / f"dt={DAY}"
    folder.mkdir()
    rows = [{"user_id": form}, {"user_id": "rene"}, {"user_id": "bob"}]
    for name, escaped in (("a.jsonl", True), ("b.jsonl", False)):
        (folder / name).write_bytes(text(*(json.dumps(row, ensure_ascii=escaped) for row in rows)))
    pq.write_table(pa.table({"user_id": [row["user_id"] for row in rows]}), folder / "c.parquet")
    (done,), _ = forget(Landing(str(tmp_path)), "ren\u00e9", JSON, rewrite=True)
    assert (done.files, done.rows) == (3, 3)
    assert (folder / "a.jsonl").read_bytes() == (folder / "b.jsonl").read_bytes() == text(*map(json.dumps, rows[1:]))
    assert pq.read_table(folder / "c.parquet")["user_id"].to_pylist() == ["rene", "bob"]


def test_rows_that_were_loaded_in_the_other_form_are_found_by_the_statistics_of_their_files():
    users = NamedUsers(frozenset({"ren\u00e9"}))
    assert users.between("rene\u0301", "rene\u0301")
    assert users.between("ren\u00e9", "ren\u00e9")
    assert not users.between("renf", "ren\u00c0")


def test_what_is_no_file_of_its_day_is_named_and_neither_read_nor_written(tmp_path):
    """A pipe would be waited for without end, and a link would have files of others written anew."""
    landing, elsewhere = tmp_path / "landing", tmp_path / "elsewhere"
    day, linked = landing / f"dt={DAY}", landing / "dt=2025-01-02"
    for folder in (day, elsewhere):
        folder.mkdir(parents=True)
    (elsewhere / "a.jsonl").write_bytes(text(ANN))
    (day / "a.jsonl").write_bytes(text(ANN, OTHERS[0]))
    (day / "link.jsonl").symlink_to(elsewhere / "a.jsonl")
    os.mkfifo(day / "pipe.jsonl")
    linked.symlink_to(elsewhere)
    (done,), left = forget(Landing(str(landing)), "ann", JSON, rewrite=True)
    assert (done.files, done.rows, (day / "a.jsonl").read_bytes()) == (1, 1, text(OTHERS[0]))
    assert (elsewhere / "a.jsonl").read_bytes() == text(ANN)
    assert [each.what for each in left if "not searched" in each.what] == [
        f"{file} was not searched: it is no file, or leads out of its day"
        for file in (day / "link.jsonl", day / "pipe.jsonl", linked)
    ]


WHOLE = text(*(f'{{"user_id": "u{n}", "item_id": "x"}}' for n in range(500)), ANN)
ZSTD = pa.Codec("zstd").compress(WHOLE, asbytes=True)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        pytest.param("a.jsonl.gz", gzip.compress(WHOLE)[:-20], id="a gzip that was cut off"),
        pytest.param("a.jsonl.gz", WHOLE, id="no gzip"),
        pytest.param("a.jsonl.gz", gzip.compress(WHOLE)[:200] + b"x" * 200, id="a gzip that was damaged"),
        pytest.param("a.jsonl.bz2", bz2.compress(WHOLE)[:-20], id="a bzip2 that was cut off"),
        pytest.param("a.jsonl.bz2", WHOLE, id="no bzip2"),
        pytest.param("a.parquet", b"", id="no Parquet"),
        pytest.param("a.jsonl", b"PAR1" + WHOLE, id="the beginning of Parquet"),
        pytest.param("a.jsonl.xz", lzma.compress(WHOLE)[:-20], id="an xz that was cut off"),
        pytest.param("a.jsonl.xz", lzma.compress(WHOLE * 80)[:-20], id="an xz that was cut off behind its first MiB"),
        pytest.param("a.jsonl.zst", ZSTD[:-20], id="a zstd that was cut off"),
        pytest.param("a.jsonl.zst", WHOLE, id="no zstd"),
        pytest.param("a.zip", test_packed.many(2, "same"), id="two files of one name in a zip"),
        pytest.param("a.zip", test_packed.zipped(a=WHOLE, b=b"PAR1"), id="a zip whose second file is a table"),
        pytest.param("a.json", b"[%b}" % ANN.encode(), id="an array with another end"),
        pytest.param("a.jsonl.lz4", WHOLE, id="packed in a way that nobody here unpacks"),
        pytest.param("a.jsonl", test_packed.zipped(a=WHOLE), id="packed, by its bytes alone"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_and_keeps_nobody_from_being_forgotten_elsewhere(tmp_path, name, content):
    """Such a file fails the ingest of its day, and lies in the landing until somebody repairs it."""
    folder = tmp_path / f"dt={DAY}"
    folder.mkdir()
    (folder / name).write_bytes(content)
    (folder / "b.jsonl").write_bytes(text(ANN, OTHERS[0]))
    (done,), left = forget(Landing(str(tmp_path)), "ann", JSON, rewrite=True)
    assert (done.files, done.rows, (folder / "b.jsonl").read_bytes()) == (1, 1, text(OTHERS[0]))
    assert left[0].what.startswith(f"{folder / name} cannot be read to its end (")
    assert (folder / name).read_bytes() == content


def test_a_folder_that_cannot_be_listed_is_named_and_the_others_of_its_day_are_searched(tmp_path, monkeypatch):
    day = tmp_path / f"dt={DAY}"
    for name in ("a", "b", "c"):
        (day / name).mkdir(parents=True)
        (day / name / "a.jsonl").write_bytes(text(ANN, OTHERS[0]))
    scandir = os.scandir

    def scan(place):
        if str(place).endswith(("/a", "/c")):
            raise PermissionError(13, "Permission denied", str(place))
        return scandir(place)

    monkeypatch.setattr(os, "scandir", scan)
    (done,), left = forget(Landing(str(tmp_path)), "ann", JSON, rewrite=True)
    assert (done.files, (day / "b" / "a.jsonl").read_bytes()) == (1, text(OTHERS[0]))
    assert [each.what for each in left if "not searched" in each.what] == [
        f"{day}/{name} was not searched: it cannot be listed" for name in ("a", "c")
    ]


def test_what_a_killed_forget_has_left_is_named_and_its_rows_are_none_of_the_delivery(lake, tmp_path):
    day = tmp_path / f"dt={DAY}"
    day.mkdir()
    (day / "a.jsonl").write_bytes(text(ANN))
    (day / "_forget-12ab34cd").write_bytes(text(ANN))
    _, left = forget(Landing(str(tmp_path)), "ann", JSON, rewrite=True, is_new=True)
    assert left[0].what.startswith(f"{day}/_forget-12ab34cd was not searched: a forget with --rewrite-landing has")
    assert [each.rows for each in read_landed()] == [{DAY: 1}]


def test_a_file_that_cannot_be_written_is_named_and_stays_and_the_next_one_is_written(tmp_path, monkeypatch):
    """The landing may be one that the jobs can only read."""
    day = tmp_path / f"dt={DAY}"
    day.mkdir()
    for name in ("a.jsonl", "b.jsonl"):
        (day / name).write_bytes(text(ANN, OTHERS[0]))
    move = LocalFileSystem.mv

    def mv(self, old, new, **more):
        if new.endswith("a.jsonl"):
            raise PermissionError(13, "Permission denied", new)
        move(self, old, new, **more)

    monkeypatch.setattr(LocalFileSystem, "mv", mv)
    (done,), left = forget(Landing(str(tmp_path)), "ann", JSON, rewrite=True)
    assert (done.files, done.rows) == (1, 1)
    assert [each.what for each in left if "could not" in each.what] == [
        f"{day}/a.jsonl has 1 rows of theirs, which runs leave out, and could not be written anew (PermissionError): "
        "remove them"
    ]
    assert {file.name: file.read_bytes() for file in day.iterdir()} == {
        "a.jsonl": text(ANN, OTHERS[0]), "b.jsonl": text(OTHERS[0])
    }  # fmt: skip
