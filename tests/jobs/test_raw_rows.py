"""Landing files: one that cannot be read, or is not what its source says, fails the run with its name."""

import bz2
import gzip
import json
import random
import re
import subprocess
import sys

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs import ingest
from jobs.raw_rows import check_files, read_rows
from jobs.source import load_source
from lake.errors import LandingUnreadable, SourceMismatch

CANONICAL = load_source("canonical")
RETAILROCKET = load_source("retailrocket")
TAOBAO = load_source("taobao")

HEADER = b"timestamp,visitorid,event,itemid,transactionid\n"
RECORD = {"user_id": "u", "event_time": "2025-03-02T10:00:00Z", "behavior": "view", "item_id": "i"}


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
        pytest.param(TAOBAO, "a.csv", b"1,2\n1,2,3,pv,1511544070\n", id="no header, a broken line among good ones"),
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
            "JSON lines with user_id, event_time, behavior",
            "the names 'action, event_time, item_id, user, user_id'",
            id="JSON lines with other keys",
        ),
        pytest.param(
            CANONICAL,
            "a.jsonl",
            HEADER,
            "JSON lines with",
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
        pytest.param("a.zip", b"PK", "another compression; unpack it", id="a compression that Spark does not read"),
        pytest.param("a.jsonl.GZ", gzip.compress(b"{}\n"), "another compression", id="nor does it know this as gzip"),
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
    columns = {column: [value] for column, value in {**RECORD, **changes}.items() if value is not None}
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


def test_parquet_files_of_different_types_are_told_before_spark_reads_both_by_the_schema_of_one(file):
    paths = [parquet(file, "a.parquet", item_id="1"), parquet(file, "b.parquet", item_id=1)]
    with pytest.raises(SourceMismatch) as raised:
        check_files(CANONICAL, paths)
    told = str(raised.value)
    assert told.startswith(f"{paths[1]}: ")
    assert "'item_id': 'int64'" in told
    assert f"differ from those of {paths[0]}" in told


def test_parquet_with_nanoseconds_is_told_with_what_to_do(file):
    path = parquet(file, event_time=pa.scalar(0, pa.timestamp("ns")))
    with pytest.raises(SourceMismatch, match=r"found nanoseconds in event_time.*coerce_timestamps='us'"):
        check_files(CANONICAL, [path])


def test_text_for_a_source_that_is_parquet_is_told(file):
    path = file("a.csv", HEADER)
    with pytest.raises(SourceMismatch, match=r"a\.csv: source completejourney expects files that end in \.parquet"):
        check_files(load_source("completejourney"), [path])


# --- lines without an end, and what grows when it is unpacked ---------------------------------------------

MIB = 1 << 20
# Checks one file in a process of its own and prints the memory that it took beyond what the modules take, in MiB.
PEAK = """
import resource, sys
from jobs.raw_rows import check_files
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
    with pytest.raises(SourceMismatch, match=r"b\.jsonl: source canonical expects JSON lines"):
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
