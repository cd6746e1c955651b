"""What the doctor says to change in a source: the diff is applied by `patch`, and the rows are read again."""

import json
import re
import subprocess
from datetime import UTC, date, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from dags.cli.doctor import check_rows
from dags.cli.main import app
from jobs.preview import judged_ends
from jobs.remedy import AMOUNT
from jobs.yaml_edit import renamed, with_key
from lake.errors import SourceMismatch

DAY = date(2025, 3, 2)
SAID = """\
# Our tracker's export.
name: mine
description: a log of my own

format: csv
user_id: user       # the login
item_id: item
price: price
time: {column: time, format: iso8601}
behavior:
  column: event
  values: {look: view, buy: purchase}
"""
HEADER = "time,user,event,item,price"
# What the rows of each log mean.
MEANT = [
    ("u1", "2025-03-02 10:00:00", "view", "i1", "1299.5000"),
    ("u2", "2025-03-02 10:05:00", "purchase", "i2", "3.0000"),
    ("u3", "2025-03-02 13:30:00", "view", "i\u00e9", None),
]
TIMES = ("2025-03-02 10:00:00", "2025-03-02 10:05:00", "2025-03-02 13:30:00")
EVENTS, PRICES = ("look", "buy", "look"), ("1299.5", "3", "")


def table(*, header=HEADER, delimiter=",", times=TIMES, events=EVENTS, prices=PRICES):
    """Return the three rows as CSV."""
    rows = zip(times, ("u1", "u2", "u3"), events, ("i1", "i2", "i\u00e9"), prices, strict=True)
    return "\n".join([header.replace(",", delimiter), *(delimiter.join(row) for row in rows)]) + "\n"


def german(text):
    return text.replace("2025-03-02", "02.03.2025")


DELIMITED = SAID.replace("format: csv\n", "format: csv\ndelimiter: ';'   # theirs\n")
LISTED = SAID.replace("format: csv\n", "format: csv\ncolumns: [time, user, event, item, price]\n")
QUOTED = "time,user,event,item,price\n" + "".join(
    f'{time},{user},{event},"{item}",{price}\n'
    for time, user, event, item, price in zip(
        TIMES, ("u1", "u2", "u3"), EVENTS, (r"a \"b\", c", "i2", "i\u00e9"), PRICES, strict=True
    )
)
JSONL = [
    {"time": time, "user": user, "event": event, "item": item, "price": price}
    for time, user, event, item, price in zip(
        TIMES, ("u1", "u2", "u3"), EVENTS, ("i1", "i2", "i\u00e9"), (1299.5, 3, None), strict=True
    )
]
OF_JSON = SAID.replace("format: csv", "format: jsonl").replace("item_id: item", "item_id: productId")
# A log, its source, the lines of the diff without those around them, and what was wrong.
MISMATCHES = {
    "separator": (SAID, table(delimiter=";"), ["+delimiter: ;"], "expects a header"),
    "another separator": (DELIMITED, table(), ["-delimiter: ';'   # theirs", "+delimiter: ','   # theirs"], "expects"),
    "separator, not the encoding": (
        SAID.replace("format: csv", "format: csv\nencoding: iso-8859-15"),
        table(delimiter=";").encode("iso-8859-15"),
        ["+delimiter: ;"],
        "expects a header",
    ),
    "tab": (SAID, table(delimiter="\t"), ['+delimiter: "\\t"'], "expects a header"),
    "encoding": (SAID, table().encode("utf-16"), ["+encoding: utf-16"], "expects a header"),
    "bytes that are not UTF-8": (SAID, table().encode("latin-1"), ["+encoding: windows-1252"], "1 undecodable"),
    "time": (
        SAID,
        table(times=tuple(map(german, TIMES))).replace("02.03", "13.02"),
        [
            "-time: {column: time, format: iso8601}",
            "+time: {column: time, format: 'dd.MM.yyyy HH:mm:ss'}",
        ],
        "3 unparsable_time",
    ),
    "column in another case": (
        SAID,
        table(header="Time,user,event,ITEM,price"),
        [
            "-item_id: item",
            "+item_id: ITEM",
            "-time: {column: time, format: iso8601}",
            "+time: {column: Time, format: iso8601}",
        ],
        "it has 'Time' where the source says 'time'",
    ),
    "misspelt column": (
        LISTED.replace("user_id: user ", "user_id: usr ").replace("[time, user", "[time, usr"),
        table(),
        [
            "-columns: [time, usr, event, item, price]",
            "-user_id: usr       # the login",
            "+columns: [time, user, event, item, price]",
            "+user_id: user       # the login",
        ],
        "expects the header line",
    ),
    "key of JSON": (
        OF_JSON,
        "".join(json.dumps({**row, "product_id": row["item"]}) + "\n" for row in JSONL),
        ["-item_id: productId", "+item_id: product_id"],
        "reads productId",
    ),
    "lines above": (SAID, f"Export of March\n\n{table()}", ["+skip_lines: 2"], "expects a header"),
    "no header": (LISTED, table().split("\n", 1)[1], ["+header: false"], "expects the header line"),
    "a header": (
        LISTED.replace("columns:", "header: false\ncolumns:"),
        table(),
        ["-header: false", "+header: true"],
        "1 unparsable_time",
    ),
    "single quotes": (
        SAID,
        "\n".join(",".join(f"'{value}'" for value in line.split(",")) for line in table().splitlines()) + "\n",
        ["+quote: ''''"],
        "it has \"'time'\" where the source says 'time'",
    ),
    "prices": (
        DELIMITED,
        table(delimiter=";", prices=("1.299,50 €", "3,00 €", "")),
        ["+amounts: {decimal: ','}"],
        "2 invalid_price",
    ),
    "word for no price": (
        SAID.replace("format: csv\n", "format: csv\nnulls: [none]\n"),
        table() + "".join(f"2025-03-02 14:00:00,u{n},look,i1,k.A.\n" for n in (4, 5)),
        ["-nulls: [none]", "+nulls: [none, k.A.]"],
        "2 invalid_price",
    ),
    "format and separator and column": (
        SAID.replace("format: csv", "format: jsonl"),
        table(delimiter="|", header="time,User,event,item,price"),
        [
            "-format: jsonl",
            "-user_id: user       # the login",
            "+format: csv",
            "+user_id: User       # the login",
            "+delimiter: '|'",
        ],
        "expects JSON objects",
    ),
    "behavior in another case": (
        SAID,
        table(events=("Look", "buy", "Look")),
        ["-  values: {look: view, buy: purchase}", "+  values: {look: view, buy: purchase, Look: view}"],
        "2 unknown_behavior",
    ),
}


@pytest.fixture
def deliver(lake, monkeypatch):
    """Write a source and a file of the day, and return the source's file."""

    def write(said, content, name="a.txt"):
        file = lake / "landing" / f"dt={DAY}" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, pa.Table):
            pq.write_table(content, file)
        else:
            file.write_bytes(content.encode() if isinstance(content, str) else content)
        (lake / "mine.yaml").write_text(said, encoding="utf-8")
        monkeypatch.setenv("MEANDER_SOURCE", "mine.yaml")
        monkeypatch.chdir(lake)
        monkeypatch.setenv("MEANDER_MAX_REJECTED_SHARE", "0")
        return lake / "mine.yaml"

    return write


def told():
    """Return what the doctor says of the rows, right or wrong, and the diff that it gives."""
    changes = []
    try:
        return check_rows(changes), changes
    except (RuntimeError, SourceMismatch) as error:
        return str(error), changes


@pytest.fixture
def seen(monkeypatch):
    """Return the rows that the doctor has judged last, sorted."""
    rows = []

    def judged(*args):
        found = judged_ends(*args)
        columns = ("user_id", "event_time", "behavior", "item_id", "price")
        rows[:] = sorted(tuple(row[name] for name in columns) for row in found)
        return found

    monkeypatch.setattr("jobs.preview.judged_ends", judged)
    return rows


@pytest.mark.spark
@pytest.mark.parametrize("kind", MISMATCHES, ids=lambda kind: re.sub(r"\W+", "-", kind))
def test_the_diff_of_the_doctor_makes_the_source_fit_the_files(spark, deliver, seen, kind):
    said, content, lines, wrong = MISMATCHES[kind]
    file = deliver(said, content)
    before, changes = told()
    assert wrong in before
    assert "what to change in mine.yaml is below" in before
    (diff,) = changes
    changed = [line for line in diff.splitlines()[2:] if line.startswith(("+", "-"))]
    assert changed == lines
    # What else the doctor prints is above it.
    subprocess.run(["patch", "-p0"], input=f"ok   python\nwrong rows: x\n\n{diff}", text=True, check=True)
    comments = [line for line in said.splitlines() if "#" in line]
    assert [line.partition("#")[2] for line in comments] == [
        line.partition("#")[2] for line in file.read_text(encoding="utf-8").splitlines() if "#" in line
    ]
    after, changes = told()
    assert changes == []
    assert wrong not in after
    meant = MEANT
    if kind == "time":
        meant = [(user, time.replace("03-02", "02-13"), *others) for user, time, *others in MEANT]
    assert seen[: len(MEANT)] == meant


# A log, its source and what nobody can be certain of.
DOUBTS = {
    "day or month": (SAID, table(times=("03/02/2025 10:00", "03/02/2025 10:05", "02/02/2025 13:30"))),
    "thousands or a fraction": (
        DELIMITED,
        # 1.299 by both signs is a number.
        table(delimiter=";", prices=("1,299", "3,500", "")),
    ),
    "a behavior of another name": (SAID, table(events=("glance", "buy", "look"))),
    "two names that are alike": (SAID, table(header="time,user1,event,item,price,user2", prices=("1,x", "2,y", "3,z"))),
    "a price that is a name": (
        SAID,
        table(prices=("ann", "ann", "bob")) + "2025-03-02 14:00:00,u4,look,i4,bob\n",
    ),
    "a price that is hardly ever a number": (
        SAID,
        table(prices=("ann", "ann", "ann")) + "".join(f"2025-03-02 14:00:00,u{n},look,i4,7\n" for n in (4, 5)),
    ),
    "broken rows among others": (SAID, table() + "soon,u4,look,i4,1\n"),
}


@pytest.mark.spark
@pytest.mark.parametrize("kind", DOUBTS, ids=lambda kind: re.sub(r"\W+", "-", kind))
def test_what_is_not_certain_is_left_to_people(spark, deliver, kind):
    said, content = DOUBTS[kind]
    file = deliver(said, content)
    _, changes = told()
    assert changes == []
    assert file.read_text(encoding="utf-8") == said


@pytest.mark.spark
def test_the_format_of_a_time_that_parquet_has_as_such_is_told(spark, deliver, seen):
    rows = pa.table(
        {
            "time": pa.array([datetime(2025, 3, 2, 10, 0, tzinfo=UTC)], pa.timestamp("us", tz="UTC")),
            **{"user": ["u1"], "event": ["look"], "item": ["i1"], "price": [1299.5]},
        }
    )
    said = SAID.replace("format: iso8601", "format: epoch_s").replace("format: csv", "format: parquet")
    deliver(said, rows, "a.parquet")
    _, (diff,) = told()
    subprocess.run(["patch", "mine.yaml"], input=diff, text=True, check=True)
    assert told()[1] == []
    assert seen == MEANT[:1]


@pytest.mark.spark
def test_a_change_of_one_version_of_a_source_is_written_into_that_version(spark, deliver, lake):
    said = f"{SAID}versions:\n  - from: {DAY}\n    delimiter: ';'   # since March\n"
    deliver(said, table(delimiter="|"))
    (lake / "landing" / "dt=2025-03-01").mkdir()
    (lake / "landing" / "dt=2025-03-01" / "a.txt").write_text(table().replace("03-02", "03-01"))
    _, (diff,) = told()
    assert [line for line in diff.splitlines()[2:] if line.startswith(("+", "-"))] == [
        "-    delimiter: ';'   # since March",
        "+    delimiter: '|'   # since March",
    ]


@pytest.mark.spark
def test_files_that_are_others_from_a_day_on_get_a_version_of_the_source(spark, deliver, lake, seen):
    file = deliver(SAID, table(delimiter=";", header="time,User,event,item,price"))
    for day, delimiter in (("02-26", ","), ("02-27", ";"), ("02-28", ","), ("03-01", ";")):
        folder = lake / "landing" / f"dt=2025-{day}"
        folder.mkdir()
        header = HEADER if delimiter == "," else "time,User,event,item,price"
        (folder / "a.txt").write_text(table(delimiter=delimiter, header=header).replace("03-02", day))
    said, (diff,) = told()
    assert "expects a header" in said
    subprocess.run(["patch", "-p0"], input=diff, text=True, check=True)
    # Since 1 March; a single day before is another matter.
    assert file.read_text(encoding="utf-8") == (
        f"{SAID}versions:\n  - from: 2025-03-01\n    user_id: User\n    delimiter: ;\n"
    )
    said, changes = told()
    assert (said.splitlines()[0], changes) == ("6 of 2025-02-26 and 2025-03-02: 6 event", [])
    assert seen[1::2] == MEANT


@pytest.mark.spark
def test_all_that_the_doctor_prints_is_what_patch_takes(spark, deliver):
    said = SAID.replace("# Our", "#\tOur")
    file = deliver(said, table(delimiter=";"))
    runner = CliRunner()
    (rows,) = [each for each in json.loads(runner.invoke(app, ["doctor", "--json"]).stdout) if each["check"] == "rows"]
    assert rows["diff"].startswith("--- mine.yaml\n+++ mine.yaml\n@@")
    shown = runner.invoke(app, ["doctor"])
    assert shown.exit_code == 1
    subprocess.run(["patch", "mine.yaml"], input=shown.stdout, text=True, check=True)
    assert file.read_text(encoding="utf-8") == f"{said}delimiter: ;\n"


@pytest.mark.spark
def test_files_for_which_two_versions_count_are_told_without_a_diff(spark, deliver):
    deliver(f"{SAID}versions:\n  - files: a*\n    skip_lines: 1\n  - files: '*.txt'\n    skip_lines: 2\n", table())
    said, changes = told()
    assert "has several versions for it" in said
    assert changes == []


@pytest.mark.spark
def test_the_diff_of_a_shipped_source_is_for_a_copy_of_it(spark, deliver, monkeypatch):
    deliver(SAID, "timestamp;visitorid;event;itemid;transactionid\n1740909600000;7;view;9;\n")
    monkeypatch.setenv("MEANDER_SOURCE", "retailrocket")
    said, (diff,) = told()
    assert "retailrocket.yaml to retailrocket.yaml, `meander doctor | patch retailrocket.yaml`, and set " in said
    assert "+++ retailrocket.yaml\n" in diff
    assert "\n+delimiter: ;\n" in diff


@pytest.mark.parametrize(
    ("text", "is_amount"),
    [
        *(
            (text, True)
            for text in ("7", "1299.5", "-3", "1.299,50 \u20ac", "$ 1'299.50", "EUR 3", "3 kr.", "1 299 z\u0142")
        ),
        *((text, False) for text in ("ann", "shop 7", "i1", "7 of 9", "2025-03-02", "")),
    ],
)
def test_what_looks_like_a_price(text, is_amount):
    assert bool(AMOUNT.fullmatch(text)) == is_amount


def test_a_key_that_a_file_has_in_other_lines_is_added_without_a_change_of_them():
    said = "# ours\ntime:\n  column: at\n  format: iso8601\n\n  # the end of it\nformat: csv"
    assert with_key(said, ["time", "zone"], "Europe/Berlin") == said.replace(
        "iso8601\n", "iso8601\n  zone: Europe/Berlin\n"
    )
    assert with_key(said, ["delimiter"], "\t") == f'{said}\ndelimiter: "\\t"\n'
    # Behind the last value, and not behind what stands below it.
    last = "format: csv\nbehavior:\n  values:\n    a: view\n"
    assert with_key(f"{last}\n  # below\n\n", ["skip_lines"], 2) == f"{last}skip_lines: 2\n\n  # below\n\n"
    # What stands in several lines is left to people.
    assert with_key("price:\n  sql: >\n    price\n", ["price"], "price") is None
    assert with_key("values:\n  - a\n", ["values"], ["b"]) is None


def test_names_change_where_they_stand_alone_and_not_in_an_expression():
    said = "user_id: [a, 'b']\nprice: {sql: a}\ncolumns:\n  - a   # the first\n  - c\n"
    places = [["user_id"], ["price"], ["columns"], ["query"]]
    assert renamed(said, places, {"a": "x: y", "b": "z"}) == (
        "user_id: ['x: y', z]\nprice: {sql: a}\ncolumns:\n  - 'x: y'   # the first\n  - c\n"
    )
    assert renamed(said, places, {"d": "e"}) is None
