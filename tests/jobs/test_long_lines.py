"""A line that is too long is one rejected row, wherever it stands: it takes no memory, and no other row."""

import bz2
import gzip
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jobs import long_lines, raw_rows
from jobs.landing_files import check_files, end_of_line
from jobs.long_lines import are_few_bytes, by_reader, has_long_line
from jobs.raw_rows import read_rows
from jobs.source import load_source
from lake.errors import LandingUnreadable

MIB = 1 << 20
TAOBAO = load_source("taobao")
GOOD = "1,2,{},pv,1511544070"
# In UTF-16 some of them have the bytes of an end of a line within characters, or across two.
PARTS = ["a", "aaaa", "\n", "\r", "\r\n", "\u0a00", "\u000a\u0a0a", "\u0d0a"]
OPENED = {"csv": open, "gz": gzip.open, "bz2": bz2.open}


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "dt=2017-11-25"
    made.mkdir()
    return made


def written(place, content: bytes) -> str:
    with OPENED[place.suffix[1:]](place, "wb") as stream:
        stream.write(content)
    return str(place)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be"])
@given(
    parts=st.lists(st.sampled_from(["a", "aaaa", "\n", "\r", "\r\n", "\u0a00", "\u000a\u0a0a", "\u0d0a"]), max_size=30)
)
# A line that ends by the rarer sign; a byte too many; and bytes of an end that are halves of two characters.
@example(parts=["aaaa", "aaaa", "\r"])
@example(parts=["aaaa", "aaaa", "a"])
@example(parts=["\n\u0a0a", "\u0a00", "a", "\r", "\r"])
def test_a_file_has_a_long_line_where_one_of_its_lines_is_longer(tmp_path_factory, encoding, parts):
    content, end = "".join(parts).encode(encoding), end_of_line(encoding)
    file = tmp_path_factory.mktemp("lines") / "a.csv"
    file.write_bytes(content)
    text = content.decode(encoding)
    lines = text.split("\n") if end else re.split("\r\n|\n|\r", text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(long_lines, "LINE_BYTES", 8)
        assert has_long_line(str(file), end) == any(len(line.encode(encoding)) > 8 for line in lines)


@pytest.mark.spark
def test_many_bytes_are_those_of_all_files_and_ten_times_those_of_a_packed_one(tmp_path, monkeypatch):
    monkeypatch.setattr(long_lines, "HERE_BYTES", 100)
    plain, packed, gone = (str(tmp_path / name) for name in ("a.csv", "a.csv.gz", "gone.csv"))
    for file, size in ((plain, 50), (packed, 5)):
        Path(file).write_bytes(b"x" * size)
    assert are_few_bytes([plain, plain])
    assert are_few_bytes([plain, packed])
    assert not are_few_bytes([plain, packed, packed])
    # What comes after many bytes is not even asked for.
    assert not are_few_bytes([plain, plain, plain, gone])


@pytest.mark.parametrize("most", [0, long_lines.HERE_BYTES], ids=["workers", "here"])
def test_python_reads_the_files_with_such_a_line_and_no_others(spark, folder, monkeypatch, most):
    monkeypatch.setattr(long_lines, "HERE_BYTES", most)
    # Of 3 MiB each: one line too long by a byte, lines that are as long as they may be, and rows as always.
    first, longest = GOOD.format(3), "0" * MIB
    files = {
        "over.csv": f"{first}\n{longest}\n{longest}0\n{longest}",
        "longest.csv": f"{first}\n{longest}\n{longest}\r{longest}",
        "over.csv.gz": f"{first}\n{first}\n{longest * 3}\n{first}",
        "last.csv.bz2": f"{first}\n{longest * 2}",
        "rows.csv.gz": f"{first}\n" * (3 * MIB // 20),
        "short.csv": f"{first}\n",
    }
    names = [written(folder / name, content.encode()) for name, content in files.items()]
    groups = {layout.by_python: read for layout, read in by_reader(spark, check_files(TAOBAO, names)).items()}
    assert {name.rpartition("/")[2] for name in groups[True]} == {"over.csv", "over.csv.gz", "last.csv.bz2"}
    assert {name.rpartition("/")[2] for name in groups[False]} == {"longest.csv", "rows.csv.gz", "short.csv"}


@pytest.mark.spark
@pytest.mark.parametrize("most", [0, long_lines.HERE_BYTES], ids=["workers", "here"])
def test_a_file_that_is_cut_off_beyond_its_beginning_is_named(spark, folder, monkeypatch, most):
    monkeypatch.setattr(long_lines, "HERE_BYTES", most)
    file = folder / "a.csv.gz"
    file.write_bytes(gzip.compress(f"{GOOD.format(3)}\n".encode() * 100_000)[:-20])
    with pytest.raises(LandingUnreadable, match=r"a\.csv\.gz: expected a readable file, found EOFError"):
        by_reader(spark, check_files(TAOBAO, [str(file)]))


@pytest.mark.spark
@pytest.mark.parametrize("name", ["log.csv", "log.csv.gz", "log.csv.bz2"])
def test_a_long_line_is_one_rejected_row_and_all_others_are_read_in_their_places(spark, folder, name):
    lines = [GOOD.format(n) for n in range(5)]
    lines[3] = GOOD.format("3" * 3 * MIB)
    path = written(folder / name, "\n".join(lines).encode())
    rows = read_rows(spark, TAOBAO, [path]).orderBy("position").collect()
    assert [row.malformed for row in rows] == [False, False, False, True, False]
    assert [row.raw for row in rows if not row.malformed] == lines[:3] + lines[4:]
    assert lines[3].startswith(rows[3].raw)
    assert 4096 <= len(rows[3].raw) < MIB
    assert {(row.file, row.whole_file, str(row.landed)) for row in rows} == {(f"file://{path}", True, "2017-11-25")}


# Reads a file in a session of its own, and prints how many rows are whole and how many are not.
READ = """
import sys
from pathlib import Path
from jobs.raw_rows import read_rows
from jobs.source import load_source
from lake.session import spark_session
from lake.settings import settings

spark = spark_session("long lines", settings(), short_lived=True)
rows = read_rows(spark, load_source("taobao"), [sys.argv[1]]).groupBy("malformed").count().orderBy("malformed")
print([row["count"] for row in rows.collect()])
"""


@pytest.mark.spark
def test_an_endless_line_in_the_middle_of_a_packed_file_takes_no_memory_of_a_worker(folder, monkeypatch):
    monkeypatch.setenv("MEANDER_DRIVER_MEMORY", "512m")
    path = folder / "log.csv.gz"
    with gzip.open(path, "wb", compresslevel=1) as stream:
        stream.write(f"{GOOD.format(3)}\n".encode() * 1000)
        for _ in range(400):
            stream.write(b"0" * MIB)
        stream.write(f"\n{GOOD.format(3)}".encode() * 1000)
    done = subprocess.run([sys.executable, "-c", READ, path], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[2000, 1]", done.stderr[-2000:]


@pytest.mark.spark
def test_of_a_record_whose_quote_stays_open_no_more_is_kept_than_of_a_long_line(spark, monkeypatch):
    monkeypatch.setattr(raw_rows, "LINE_BYTES", 8)
    # In this order: a record of one line; one of three, of as many bytes as a line may have; one of all that follow.
    texts = ["a,b", '"1', "22", '3"', '"x', *["y" * 3] * 50]
    columns = "file string, block bigint, position bigint, raw string, undecodable boolean, too_long boolean, "
    columns += "whole_file boolean, landed date, lines_above int"
    rows = [("f", 0, n, text, False, False, True, None, 0) for n, text in enumerate(texts)]
    joined = raw_rows.join_lines(spark.createDataFrame(rows, columns), '"').orderBy("position").collect()
    assert [(row.position, row.raw, row.too_long) for row in joined] == [
        (0, "a,b", False),
        (1, '"1\n22\n3"', False),
        (4, '"x\nyyy\nyyy', True),
    ]
    assert [len(row.parts) for row in joined] == [1, 3, 3]
