"""From where the doctor says that a field is read; what it makes of rows is in tests/dags/cli/test_doctor.py."""

import json
import lzma
import zipfile
from datetime import date
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import orc

from dags.cli.doctor import became
from expectations.quarantine import REMEDIES
from jobs.preview import ROWS, preview, read_from, summary, write_first
from jobs.source import load_source, shipped_sources
from lake.errors import SourceMismatch
from lake.landing import Landing
from lake.settings import settings


@pytest.mark.parametrize("name", shipped_sources())
def test_each_shipped_source_can_be_shown(name):
    shown = {field.name: field.read_from for field in summary(load_source(name), []).fields}
    assert all(shown[required] for required in ("user_id", "event_time", "behavior"))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le"])
def test_of_a_large_file_the_first_rows_are_cut_between_lines(tmp_path, encoding):
    source = load_source("canonical").model_copy(update={"encoding": encoding})
    lines = [
        f'{{"user_id": "{n:06}", "event_time": "2025-01-01T00:00:00Z", "behavior": "view"}}\n' for n in range(20_000)
    ]
    place = tmp_path / "dt=2025-01-01" / "a.jsonl"
    place.parent.mkdir()
    place.write_bytes("".join(lines).encode(encoding))
    target = tmp_path / "target"
    target.mkdir()
    written = Path(write_first(source, str(place), target))
    assert written.read_bytes() == "".join(lines[:ROWS]).encode(encoding)


def test_a_field_is_read_from_a_column_a_constant_or_nothing():
    source = load_source("completejourney")
    assert read_from(source, "behavior") == "constant: purchase"
    assert read_from(source, "event_time") == ", ".join(source.time.column.columns)
    assert read_from(source, "query") == ""


@pytest.mark.spark
def test_a_key_that_only_a_file_in_the_middle_has_is_shown_and_missed_by_no_other(spark, lake, land):
    row = {"user_id": "u", "event_time": "2025-03-02T10:00:00Z", "behavior": "view", "item_id": "i"}
    for name, more in (("a", {}), ("b", {"price": 7}), ("c", {"price": 8}), ("d", {})):
        land("2025-03-02", [{**row, **more}] * 2, f"{name}.jsonl")
    # Files may not lack a price, as they may in the shipped source.
    source = load_source("canonical").model_copy(update={"may_lack": ["category_id", "query"]})
    found = preview(spark, source, Landing.of(settings()), [date(2025, 3, 2)], settings())
    # The first two, the two of the first file with a price, and the last two.
    assert (found.rows, found.outcomes) == (6, {"event": 6})
    (price,) = (field for field in found.fields if field.name == "price")
    assert (round(price.filled, 2), price.samples) == (0.33, ("7.0000",))


@pytest.mark.spark
def test_of_two_exporters_each_is_shown_by_its_own_columns(spark, lake, land):
    keys = "format: jsonl\nbehavior: {constant: view}\ndescription: x\n"
    (lake / "web.yaml").write_text(f"{keys}name: web\nuser_id: u\nitem_id: i\ntime: {{column: t, format: iso8601}}\n")
    (lake / "app.yaml").write_text(
        f"{keys}name: app\nuser_id: login\nitem_id: id\ntime: {{column: at, format: epoch_s}}\n"
    )
    (lake / "shop.yaml").write_text("name: shop\ndescription: x\nsources: {'web/*': web.yaml, 'app/*': app.yaml}\n")
    land("2025-03-02", [{"u": "ann", "i": "i", "t": "2025-03-02T10:00:00Z"}] * 3, "web/a.jsonl")
    land("2025-03-02", [{"login": "bob", "id": "i", "at": 1740909600}, {"id": "i", "at": 1740909600}], "app/a.jsonl")
    source = load_source(str(lake / "shop.yaml"))
    found = preview(spark, source, Landing.of(settings()), [date(2025, 3, 2)], settings())
    assert (found.rows, found.outcomes, found.fields) == (5, {"event": 4, "missing_user": 1}, ())
    shown = {
        name: (part.rows, part.outcomes, [(f.read_from, f.filled) for f in part.fields if f.name == "user_id"])
        for name, part in found.parts.items()
    }
    assert shown == {
        "app": (2, {"event": 1, "missing_user": 1}, [("login", 0.5)]),
        "web": (3, {"event": 3}, [("u", 1.0)]),
    }
    told = became(found).splitlines()
    assert told[0] == "4 event, 1 missing_user (" + REMEDIES["missing_user"] + ")"
    assert [line for line in told if "user_id" in line or line.startswith(("app", "web"))] == [
        f"app, 2 rows: 1 event, 1 missing_user ({REMEDIES['missing_user']})",
        "  user_id     from login: 50%, such as a",
        "web, 3 rows: 3 event",
        "  user_id     from u: 100%, such as a",
    ]


@pytest.mark.spark
def test_a_key_that_no_file_has_is_told_by_the_names_of_the_files(spark, lake, land):
    row = {"user_id": "u", "event_time": "2025-03-02T10:00:00Z", "behavior": "view", "item_id": "i"}
    file = land("2025-03-02", [row])
    source = load_source("canonical").model_copy(update={"may_lack": ["category_id", "query"]})
    with pytest.raises(
        SourceMismatch, match=rf"^{file} and other files of the run: source canonical reads price, found"
    ):
        preview(spark, source, Landing.of(settings()), [date(2025, 3, 2)], settings())


@pytest.mark.spark
@pytest.mark.parametrize("name", ["a.jsonl.xz", "part-0"])
def test_rows_that_python_reads_are_shown(spark, lake, name):
    rows = [
        {"user_id": f"u{n}", "event_time": "2025-03-02T10:00:00Z", "behavior": "view", "item_id": "i"} for n in range(3)
    ]
    file = lake / "landing" / "dt=2025-03-02" / name
    file.parent.mkdir(parents=True)
    if name.endswith(".xz"):
        file.write_bytes(lzma.compress("".join(f"{json.dumps(row)}\n" for row in rows).encode()))
    else:
        orc.write_table(pa.Table.from_pylist(rows), file)
    found = preview(spark, load_source("canonical"), Landing.of(settings()), [date(2025, 3, 2)], settings())
    assert found.outcomes == {"event": 3}


@pytest.mark.spark
@pytest.mark.parametrize(
    ("encoding", "written"),
    [
        ("utf-8", "utf-8"),
        ("utf-16", "utf-16"),
        ("utf-16", "utf-16-be"),
        ("utf-16-be", "utf-16-be"),
        ("latin-1", "latin-1"),
    ],
)
def test_first_rows_of_an_array_and_of_each_file_in_a_zip_are_shown(spark, lake, land, encoding, written):
    source = load_source("canonical").model_copy(update={"encoding": encoding})
    row = {"user_id": "\u00e9", "event_time": "2025-03-02T10:00:00Z", "behavior": "view", "item_id": "i"}
    mark = "\ufeff" if encoding == "utf-16" and written != encoding else ""
    array = (mark + json.dumps([row] * (ROWS + 500) + [{}], indent=1, ensure_ascii=False)).encode(written)
    (lake / "landing/dt=2025-03-02").mkdir(parents=True)
    (lake / "landing/dt=2025-03-02/a.json").write_bytes(array)
    found = preview(spark, source, Landing.of(settings()), [date(2025, 3, 2)], settings())
    assert found.outcomes == {"event": ROWS}
    # The price is in no other file than the second one of the .zip.
    with zipfile.ZipFile(lake / "landing/dt=2025-03-02/a.zip", "w") as packed:
        packed.writestr("a", json.dumps([{**row, "user_id": None}]).encode(encoding))
        packed.writestr("b", json.dumps({**row, "price": 7}, ensure_ascii=False).encode(encoding))
    found = preview(spark, source, Landing.of(settings()), [date(2025, 3, 2)], settings())
    assert found.outcomes == {"event": ROWS + 1}


CSV = """\
name: mine
description: a log of CSV
format: csv
user_id: who
item_id: item
time: {column: at, format: iso8601}
behavior: {constant: view}
"""


def csv(*users):
    return "who,at,item\n" + "".join(f"{user},2025-03-02T10:00:00Z,i\n" for user in users)


@pytest.mark.spark
@pytest.mark.parametrize("first", ["", csv(), csv() + "\n"], ids=["no byte", "a header", "a blank line"])
def test_files_in_a_zip_without_a_row_are_passed_over_and_rows_of_the_last_one_are_shown(spark, lake, first):
    (lake / "mine.yaml").write_text(CSV)
    source = load_source(str(lake / "mine.yaml"))
    (lake / "landing/dt=2025-03-02").mkdir(parents=True)
    with zipfile.ZipFile(lake / "landing/dt=2025-03-02/log.zip", "w") as packed:
        # Neither the first file with rows nor the last one is the third.
        for name, content in {"00": first, "01": csv("a", "b"), "02": csv("c"), "03": csv("d", "d", "d", "")}.items():
            packed.writestr(f"{name}.csv", content)
    found = preview(spark, source, Landing.of(settings()), [date(2025, 3, 2)], settings())
    assert found.outcomes == {"event": 5, "missing_user": 1}
    # Of one file with rows, each is shown once.
    with zipfile.ZipFile(lake / "landing/dt=2025-03-02/log.zip", "w") as packed:
        packed.writestr("00.csv", first)
        packed.writestr("01.csv", csv("a", "b"))
    found = preview(spark, source, Landing.of(settings()), [date(2025, 3, 2)], settings())
    assert found.outcomes == {"event": 2}


@pytest.mark.spark
def test_a_first_file_that_is_an_empty_array_is_passed_over(spark, lake):
    source = load_source("canonical")
    optional = [name for value in source.optional for name in value.columns]
    row = {"user_id": "u", "event_time": "2025-03-02T10:00:00Z", "behavior": "view"}
    folder = lake / "landing/dt=2025-03-02"
    folder.mkdir(parents=True)
    for name, rows in (("00", []), ("01", [row] * 2), ("02", [])):
        (folder / f"{name}.json").write_text(json.dumps(rows))
    source = source.model_copy(update={"may_lack": optional})
    assert preview(spark, source, Landing.of(settings()), [date(2025, 3, 2)], settings()).rows == 2
