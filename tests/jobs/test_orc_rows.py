"""Rows of ORC become lines of JSON that are judged as the same rows of Parquet."""

import io
import json
from datetime import date, datetime
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import orc

from jobs.landing_files import by_version, look_at
from jobs.orc_rows import json_lines
from jobs.packed import BROKEN
from jobs.preview import write_first
from jobs.python_rows import in_batches, lines_of
from jobs.source import load_source
from lake.errors import LandingUnreadable, SourceMismatch

# The first day that Python's dates do not have is 2932897 days after 1970-01-01.
AFTER_9999 = pa.array([2_932_897], pa.int32()).cast(pa.date32())
LATEST = pa.array([datetime(9999, 12, 31, 23, 59, 59)], pa.timestamp("us"))
# The bytes of `Zoë` in Latin-1.
NOT_UTF_8 = pa.Array.from_buffers(pa.string(), 1, [None, *pa.array([b"Zo\xeb"]).buffers()[1:]])


def written(path, columns) -> str:
    sink = io.BytesIO()
    orc.write_table(pa.table(columns), sink)
    path.write_bytes(sink.getvalue())
    return str(path)


def rows(file, used=None, ids=()):
    return [json.loads(line) for line in json_lines(file, used, ids)]


@pytest.mark.parametrize(
    "unread",
    [
        pytest.param(AFTER_9999, id="a day after 9999"),
        pytest.param(LATEST, id="a time that nanoseconds do not reach"),
        pytest.param(NOT_UTF_8, id="a text that is not UTF-8"),
    ],
)
def test_a_value_that_nobody_reads_may_be_anything_and_one_that_is_read_names_the_file(tmp_path, unread):
    file = written(tmp_path / "a.orc", {"user": [7], "item": [{"id": 3}], "odd": unread})
    assert rows(file, ["user", "item.id"]) == [{"user": 7, "item": {"id": 3}}]
    with pytest.raises(BROKEN):
        rows(file)
    with pytest.raises(LandingUnreadable, match=r"a\.orc: expected a readable file, found \w+: "):
        list(in_batches(file, datetime(2025, 3, 2).date(), lines_of(file, 100, b"", ["user", "odd"])))


def test_doctor_copies_what_is_read_alone_and_names_a_file_that_cannot_be_read(tmp_path):
    day = tmp_path / "dt=2025-03-02"
    day.mkdir()
    columns = {"user_id": ["u"], "event_time": ["2025-03-02T10:00:00Z"], "behavior": ["view"], "item_id": ["i"]}
    file = written(day / "a.orc", {**columns, "note": LATEST})
    ((source, _),) = by_version(load_source("canonical"), [file])
    source = source.model_copy(update={"may_lack": ["category_id", "query", "price"]})
    copy = write_first(source, file, tmp_path)
    assert rows(copy) == [{name: value for name, (value,) in columns.items()}]
    file = written(day / "b.orc", {**columns, "event_time": LATEST})
    with pytest.raises(LandingUnreadable, match=r"b\.orc: expected a readable file, found ArrowInvalid"):
        write_first(source, file, tmp_path)


def test_a_name_with_dots_may_be_that_of_a_column(tmp_path):
    # Hive writes the table before the name.
    file = written(tmp_path / "a.orc", {"log.user": [1], "c": [2]})
    assert rows(file, ["log.user"]) == [{"log.user": 1}]


def test_of_a_file_without_any_of_its_columns_each_row_counts(tmp_path):
    # The reader would find no row where it has to read no column.
    file = written(tmp_path / "a.orc", {"c": [2, 3]})
    assert rows(file, ["user"]) == [{"c": 2}, {"c": 3}]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        pytest.param(1740909600.25, "1740909600.25", id="seconds with a fraction"),
        pytest.param(1.7409096e18, "1740909600000000000", id="nanoseconds, of more digits than are exact"),
        pytest.param(12345678.5, "12345678.5", id="that Java writes with an exponent"),
        pytest.param(0.0001, "0.0001", id="that Python writes without one, and Java with one"),
        pytest.param(1e-07, "0.0000001", id="that both write with one"),
        pytest.param(7.0, 7, id="a whole number"),
        pytest.param(float("nan"), None, id="none, as pandas writes it"),
        pytest.param(float("-inf"), "-Infinity", id="no number"),
        pytest.param(Decimal("0E-18"), "0.000000000000000000", id="a zero of many places"),
        pytest.param(Decimal("1.50"), "1.50", id="a price"),
    ],
)
def test_numbers_have_no_exponent(tmp_path, value, text):
    file = written(
        tmp_path / "a.orc", {"n": pa.array([value], pa.decimal128(38, 18)) if text == "0." + "0" * 18 else [value]}
    )
    assert rows(file) == [{"n": text}]


def test_a_fraction_that_is_to_be_an_id_is_none(tmp_path):
    items = [[{"id": 12.5, "price": 12.5}, {"id": 3.0, "price": 3.0}]]
    columns = {"user": [7.5], "brand": [1e-07], "shop": [1e300], "items": items}
    file = written(tmp_path / "a.orc", columns)
    assert rows(
        file, ["user", "brand", "shop", "items.id", "items.price"], ["user", "brand", "shop", "items.0.id"]
    ) == [
        {
            **{"user": "7.5E+0", "brand": "1.0E-7", "shop": "1.0E+300"},
            "items": [{"id": "1.25E+1", "price": "12.5"}, {"id": 3, "price": 3}],
        }
    ]


def test_a_damaged_file_is_named_whatever_arrow_raises(tmp_path):
    # By zlib, whose errors are Arrow's own, and of no other kind. Its rows are damaged, and so is its end.
    sink = io.BytesIO()
    orc.write_table(pa.table({"user_id": [f"user {n * n}" for n in range(5000)]}), sink, compression="zlib")
    content = sink.getvalue()
    file = tmp_path / "dt=2025-03-02" / "part-0"
    file.parent.mkdir()
    file.write_bytes(content[:200] + bytes(2000) + content[2200:])
    with pytest.raises(LandingUnreadable, match=r"part-0: expected a readable file, found ArrowException"):
        list(in_batches(str(file), date(2025, 3, 2), lines_of(str(file), 1 << 20, b"")))
    causes = set()
    for at in range(len(content) - 150, len(content)):
        file.write_bytes(content[:at] + bytes([content[at] ^ 255]) + content[at + 1 :])
        for name in ("part-0", "a.orc"):
            file = file.rename(file.with_name(name))
            try:
                look_at(load_source("canonical"), str(file))
            except (LandingUnreadable, SourceMismatch) as error:
                causes.add(type(error.__cause__).__name__)
    assert "ArrowException" in causes


@pytest.mark.parametrize("write", [orc.write_table, pq.write_table])
def test_a_file_with_a_column_whose_name_is_no_text_is_named(tmp_path, write):
    sink = io.BytesIO()
    write(pa.table({"user_id": ["u"], "naame": ["x"]}), sink)
    file = tmp_path / f"a.{write.__module__.rpartition('.')[2].removeprefix('core')}"
    file.write_bytes(sink.getvalue().replace(b"naame", b"na\xffme"))
    with pytest.raises(LandingUnreadable, match="found UnicodeDecodeError"):
        look_at(load_source("canonical"), str(file))
