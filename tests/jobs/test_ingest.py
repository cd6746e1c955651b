"""What landed becomes events: nothing is lost, equal rows are one event, and sources are read as they are."""

import gzip
import hashlib
import json
from collections import Counter
from datetime import UTC, date, datetime
from decimal import Decimal

import pandas as pd
import pytest
import yaml
from pyspark.sql import functions as F

from jobs import ingest, input_counts
from jobs.ingest import to_events, to_quarantine
from jobs.raw_rows import read_rows
from jobs.rejections import judge
from jobs.source import load_source
from lake.errors import LandingMissing
from lake.landing import Landing
from lake.order import take_number
from lake.privacy.forgotten import list_users
from lake.settings import settings

pytestmark = pytest.mark.spark


@pytest.fixture
def deliver(lake):
    """Write a landing file of a day: text, or bytes as they are; a name that ends in .gz is compressed."""

    def write(day, name, content):
        file = lake / "landing" / f"dt={day}" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        data = content.encode() if isinstance(content, str) else content
        file.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)

    return write


def run(*days, run_id="r"):
    """Ingest one day, or the days from the first to the last, and return what was staged."""
    asked = ["--day", days[0]] if len(days) == 1 else ["--from", days[0], "--to", days[1]]
    return ingest.main([*asked, "--run-id", run_id])


def read(spark, *days):
    """Read what landed on some days as the command does; return events and quarantine, neither of them staged."""
    source = load_source(settings().source)
    files = [file for day in days for file in Landing.of(settings()).files(date.fromisoformat(day))]
    judged = judge(read_rows(spark, source, files), source, settings()).persist()
    return to_events(judged, source), to_quarantine(judged, source)


def told(rows, *columns):
    """Return rows, sorted; times as text, since they are in UTC and this machine may not be."""
    if "event_time" in rows.columns:
        rows = rows.withColumn("event_time", F.col("event_time").cast("string"))
    return sorted((tuple(row) for row in rows.select(*columns or "*").collect()), key=repr)


# --- every input row is told of ------------------------------------------------------------------------


def test_input_is_events_and_their_copies_ignored_and_quarantined_on_each_day(spark, deliver, monkeypatch):
    monkeypatch.setenv("MEANDER_SOURCE", "rees46")
    header = "event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session"
    bought = "2019-10-01 00:00:01 UTC,purchase,1,10,a.b,,2.50,7,s"
    undone = "2019-10-01 00:00:02 UTC,remove_from_cart,1,10,a.b,,2.50,7,s"
    viewed = "2019-10-01 00:00:03 UTC,view,2,10,a.b,acme,,7,s"
    no_user = "2019-10-01 00:00:04 UTC,view,2,10,a.b,acme,3,,s"
    too_short = "2019-10-01 00:00:05 UTC,view,2"
    too_long = "2019-10-01 00:00:06 UTC,view,2," + "ü" * 5_000
    lines = [header, bought, too_short, undone, bought, no_user, too_long]
    deliver("2019-10-01", "plain.csv", "\n".join(lines) + "\n")
    deliver("2019-10-01", "part/packed.csv.gz", "\r\n".join([header, bought, viewed, no_user, ""]))
    deliver("2019-10-01", "_SUCCESS", "")
    deliver("2019-10-02", ".being-written.csv", "not a file of ours yet")
    deliver(
        "2019-10-03",
        "again.csv",
        "\n".join([header, viewed, undone, bought.replace("01 00:00:01", "03 10:00:00")]),
    )

    before = take_number()
    events, quarantine = run("2019-10-01", "2019-10-03")

    columns = ("event_time", "behavior", "item_id", "category_id", "price", "copies", "dt", "landed")
    assert told(events.read(spark), *columns) == [
        # `bought` three times in two files, `viewed` on two landing days: an event of each.
        (
            "2019-10-01 00:00:01",
            "purchase",
            "1",
            "10",
            Decimal("2.5000"),
            3,
            date(2019, 10, 1),
            date(2019, 10, 1),
        ),
        ("2019-10-01 00:00:03", "view", "2", "10", None, 1, date(2019, 10, 1), date(2019, 10, 1)),
        ("2019-10-01 00:00:03", "view", "2", "10", None, 1, date(2019, 10, 1), date(2019, 10, 3)),
        (
            "2019-10-03 10:00:00",
            "purchase",
            "1",
            "10",
            Decimal("2.5000"),
            1,
            date(2019, 10, 3),
            date(2019, 10, 3),
        ),
    ]
    place = ("reason", "file", "line", "raw", "source", "dt")
    found = [(row[0], row[1].rsplit("/dt=", 1)[1], *row[2:]) for row in told(quarantine.read(spark), *place)]
    # The header is line 1, and of a long row the beginning is kept, counted in characters.
    assert found == [
        ("malformed_line", "2019-10-01/plain.csv", 3, too_short, "rees46", date(2019, 10, 1)),
        ("malformed_line", "2019-10-01/plain.csv", 7, too_long[:4096], "rees46", date(2019, 10, 1)),
        ("missing_user", "2019-10-01/part/packed.csv.gz", 4, no_user, "rees46", date(2019, 10, 1)),
        ("missing_user", "2019-10-01/plain.csv", 6, no_user, "rees46", date(2019, 10, 1)),
    ]
    counts = events.counts
    assert counts == quarantine.counts
    assert counts["by_day"] == {
        "2019-10-01": {
            "input": 9,
            "accepted": 4,
            "ignored": 1,
            "rejected": {"malformed_line": 2, "missing_user": 2},
        },
        "2019-10-02": {"input": 0, "accepted": 0, "ignored": 0, "rejected": {}},
        "2019-10-03": {"input": 3, "accepted": 2, "ignored": 1, "rejected": {}},
    }
    total = {name: counts[name] for name in ("input", "accepted", "ignored", "quarantined", "rejected", "files")}
    assert total == {
        "input": 12,
        "accepted": 6,
        "ignored": 2,
        "quarantined": 4,
        "rejected": {"malformed_line": 2, "missing_user": 2},
        "files": 3,
    }
    # Of two runs over a day the one wins that began to read later: it has the higher number.
    assert before < events.basis == quarantine.basis == events.order < take_number()
    assert events.owns == quarantine.owns == [date(2019, 10, n) for n in (1, 2, 3)]


def test_a_user_with_an_unusual_share_of_the_events_of_a_day_is_told_without_its_name(
    spark, deliver, monkeypatch, caplog
):
    monkeypatch.setenv("MEANDER_SOURCE", "taobao")
    monkeypatch.setattr(input_counts, "EVENTS_TO_JUDGE_USERS", 50)
    monkeypatch.setattr(input_counts, "FEWEST_COUNTED", 1)

    def counted(guests, others=100):
        """Ingest a day with events of which some are of one user, one of as many users, and one that is too small."""
        users = ["guest-7"] * guests + [f"u{n}" for n in range(others - guests)]
        for day, of_day in (("25", users), ("26", [f"u{n}" for n in range(50)]), ("27", ["one"] * 49)):
            # The beginning of a day in China is in the one before, in UTC.
            rows = "".join(f"{user},{n},1,pv,1511568000\n" for n, user in enumerate(of_day))
            deliver(f"2017-11-{day}", "a.csv", rows)
        caplog.clear()
        events, _ = run("2017-11-25", "2017-11-27")
        return [of_day.get("largest_user_share") for of_day in events.counts["by_day"].values()], caplog.text

    shares, said = counted(20)
    assert (shares, "one user" in said) == ([0.2, 0.02, None], False)
    shares, said = counted(21)
    assert shares == [0.21, 0.02, None]
    assert "one user has 21 % of the events of 2017-11-25; if it" in said
    assert "guest-7" not in said
    # Of a forgotten user nothing is told, and the 50 others have one event each.
    list_users(["guest-7"])
    shares, said = counted(50)
    assert (shares, "one user" in said) == ([0.02, 0.02, None], False)


def test_of_a_sample_that_is_too_small_no_share_is_told(spark, deliver, monkeypatch):
    monkeypatch.setenv("MEANDER_SOURCE", "taobao")
    monkeypatch.setattr(input_counts, "EVENTS_TO_JUDGE_USERS", 50)
    deliver("2017-11-25", "a.csv", "".join(f"u,{n},1,pv,1511568000\n" for n in range(999)))
    assert "largest_user_share" not in run("2017-11-25")[0].counts["by_day"]["2017-11-25"]
    deliver("2017-11-25", "a.csv", "".join(f"u,{n},1,pv,1511568000\n" for n in range(1000)))
    assert run("2017-11-25")[0].counts["by_day"]["2017-11-25"]["largest_user_share"] == 1
    # Of 1,000 events one in ten is counted.
    monkeypatch.setattr(input_counts, "COUNTED_BY_USER", 100)
    assert "largest_user_share" not in run("2017-11-25")[0].counts["by_day"]["2017-11-25"]


def test_events_of_an_hour_that_the_clocks_show_twice_are_counted_and_told(deliver, lake, monkeypatch, caplog):
    source = {
        "name": "mine",
        "description": "times of New York",
        "format": "csv",
        "columns": ["time", "user", "item"],
        "user_id": "user",
        "item_id": "item",
        "time": {"column": "time", "format": "yyyy-MM-dd HH:mm", "zone": "America/New_York"},
        "behavior": {"constant": "view"},
    }
    (lake / "mine.yaml").write_text(yaml.safe_dump(source))
    monkeypatch.setenv("MEANDER_SOURCE", str(lake / "mine.yaml"))
    # Clocks went from 2 to 1; the last row is rejected, so nothing has to be said of it.
    rows = ["2025-11-02 00:30,u,i", "2025-11-02 01:30,u,i", "2025-11-02 01:45,u,i", "2025-11-02 01:50,,i"]
    deliver("2025-11-02", "a.csv", "\n".join(["time,user,item", *rows]))
    events, _ = run("2025-11-02")
    assert events.counts["doubtful_hour"] == 2
    assert "2 rows are from an hour that the clocks of America/New_York show twice or never" in caplog.text


def test_where_no_header_stands_the_first_line_is_line_1(spark, deliver, monkeypatch):
    monkeypatch.setenv("MEANDER_SOURCE", "taobao")
    good = "1,2,3,pv,1511544070"
    deliver("2017-11-30", "a.csv", f"bad\n{good}\n\n{good}\nworse")
    deliver("2017-11-30", "b.csv.gz", f"{good}\n{good}\nbad again\n")
    _, quarantine = read(spark, "2017-11-30")
    found = [(raw, file.rsplit("/", 1)[1], line) for raw, file, line in told(quarantine, "raw", "file", "line")]
    assert found == [
        ("", "a.csv", 3),
        ("bad again", "b.csv.gz", 3),
        ("bad", "a.csv", 1),
        ("worse", "a.csv", 5),
    ]


def test_a_file_that_several_tasks_read_loses_no_row_and_tells_no_line(spark, deliver, monkeypatch):
    monkeypatch.setenv("MEANDER_SOURCE", "retailrocket")
    header = "timestamp,visitorid,event,itemid,transactionid"
    lines = [f"{1433221332117 + n},{n},{'view' if n % 10 else 'gaze'},1," for n in range(100)]
    deliver("2015-06-02", "whole.csv", "\n".join([header, *lines[:15]]))
    deliver("2015-06-02", "parts.csv", "\n".join([header, *lines]))
    usual = spark.conf.get("spark.sql.files.maxPartitionBytes")
    spark.conf.set("spark.sql.files.maxPartitionBytes", "800")
    try:
        events, quarantine = read(spark, "2015-06-02")
        copies = Counter(copies for (copies,) in told(events, "copies"))
        places = told(quarantine, F.substring_index("file", "/", -1), "line")
    finally:
        spark.conf.set("spark.sql.files.maxPartitionBytes", usual)
    # Every tenth line gazes, so that 13 lines of the short file stand in the long one too.
    assert copies == {1: 90 - 13, 2: 13}
    assert places == [*[("parts.csv", None)] * 10, ("whole.csv", 12), ("whole.csv", 2)]


def test_an_empty_landing_day_is_staged_as_a_day_without_rows(spark, deliver):
    deliver("2025-03-02", "_SUCCESS", "")
    events, quarantine = run("2025-03-02")
    assert (events.rows, quarantine.rows, events.owns) == (0, 0, [date(2025, 3, 2)])
    assert events.counts["by_day"] == {"2025-03-02": {"input": 0, "accepted": 0, "ignored": 0, "rejected": {}}}
    assert told(events.read(spark)) == []


def test_a_day_that_has_not_landed_is_told_and_nothing_of_the_range_is_staged(lake, deliver):
    deliver("2025-03-02", "_SUCCESS", "")
    with pytest.raises(LandingMissing, match=r"2025-03-03 has not landed: there is no .*/dt=2025-03-03"):
        run("2025-03-02", "2025-03-03")
    assert [path.name for path in (lake / "lake").iterdir()] == ["_order"], "the run has its number, and no more"


# --- what is the same event ----------------------------------------------------------------------------


def hashed(source, user, when, behavior, item, category=None, query=None, price=None, occurrence=None):
    """Compute an event's id as docs/decisions say it is made, without Spark."""
    micros = int(datetime.fromisoformat(when).replace(tzinfo=UTC).timestamp()) * 1_000_000
    parts = [user, str(micros), behavior, item, category, query, price, *([occurrence] if occurrence else [])]
    framed = ",".join([source, *("-" if part is None else f"{len(part)}:{part}" for part in parts)])
    return hashlib.sha256(framed.encode()).hexdigest()[:32]


def test_events_on_two_days_have_ids_that_anyone_can_compute(spark, land):
    rows = [
        {"user_id": "u", "event_time": "2025-03-01T10:00:00Z", "behavior": "view", "item_id": "i"},
        {
            "user_id": "用户",
            "event_time": "2025-03-01T10:00:00Z",
            "behavior": "cart",
            "item_id": "商品",
            "price": 2,
        },
        {
            "user_id": "u",
            "event_time": "2025-03-01T10:00:00Z",
            "behavior": "search",
            "query": "a,b",
            "category_id": "c",
        },
        # A character that moves from one field to the next makes another event.
        {
            "user_id": "u",
            "event_time": "2025-03-01T10:00:00Z",
            "behavior": "view",
            "item_id": "i",
            "category_id": "cd",
        },
        {
            "user_id": "u",
            "event_time": "2025-03-01T10:00:00Z",
            "behavior": "view",
            "item_id": "ic",
            "category_id": "d",
        },
    ]
    land("2025-03-01", [*rows, rows[0]])
    # Delivered again, written in other ways: the very same events.
    land(
        "2025-03-02",
        [{**row, "event_time": "2025-03-01T18:00:00.000+08:00", "price": row.get("price")} for row in rows],
    )

    events, _ = read(spark, "2025-03-01", "2025-03-02")

    at = "2025-03-01T10:00:00"
    ids = {
        hashed("canonical", "u", at, "view", "i"): 2,
        hashed("canonical", "用户", at, "cart", "商品", price="2.0000"): 1,
        hashed("canonical", "u", at, "search", None, "c", "a,b"): 1,
        hashed("canonical", "u", at, "view", "i", "cd"): 1,
        hashed("canonical", "u", at, "view", "ic", "d"): 1,
    }
    first, second = date(2025, 3, 1), date(2025, 3, 2)
    assert len(ids) == 5
    assert told(events, "event_id", "copies", "landed") == sorted(
        [(key, copies, first) for key, copies in ids.items()] + [(key, 1, second) for key in ids], key=repr
    )


def test_where_repeats_are_kept_equal_rows_are_numbered_and_still_recognised(spark, lake, land, monkeypatch):
    source = {
        "name": "till",
        "description": "two units on one receipt are two rows",
        "format": "jsonl",
        "user_id": "who",
        "item_id": "what",
        "time": {"column": "at", "format": "epoch_s"},
        "behavior": {"constant": "purchase"},
        "repeats": "keep",
    }
    (lake / "till.yaml").write_text(yaml.safe_dump(source))
    monkeypatch.setenv("MEANDER_SOURCE", str(lake / "till.yaml"))
    unit = {"who": "u", "what": "tea", "at": 1740823200}
    land("2025-03-01", [unit, unit, unit, {**unit, "what": "salt"}])
    land("2025-03-02", [unit, unit, unit, unit])

    events, _ = read(spark, "2025-03-01", "2025-03-02")

    at = "2025-03-01T10:00:00"
    tea = [hashed("till", "u", at, "purchase", "tea", occurrence=str(n)) for n in (1, 2, 3, 4)]
    salt = hashed("till", "u", at, "purchase", "salt", occurrence="1")
    first, second = date(2025, 3, 1), date(2025, 3, 2)
    assert told(events, "event_id", "copies", "landed") == sorted(
        [*((key, 1, first) for key in [*tea[:3], salt]), *((key, 1, second) for key in tea)], key=repr
    )


# --- sources, on lines as they really are --------------------------------------------------------------

READ = ("user_id", "event_time", "behavior", "item_id", "category_id", "query", "price", "source")


def test_taobao_has_no_header_and_seconds(spark, deliver, monkeypatch):
    monkeypatch.setenv("MEANDER_SOURCE", "taobao")
    lines = [
        "1,2268318,2520377,pv,1511544070",
        "1,2333346,2520771,buy,1511561733",
        "100,1603476,2951233,fav,1511579908",
    ]
    deliver("2017-11-25", "log.csv", "\n".join([*lines, "100,1603476,2951233,cart,1511600000"]))
    events, _ = read(spark, "2017-11-25")
    assert told(events, *READ) == [
        ("1", "2017-11-24 17:21:10", "view", "2268318", "2520377", None, None, "taobao"),
        ("1", "2017-11-24 22:15:33", "purchase", "2333346", "2520771", None, None, "taobao"),
        ("100", "2017-11-25 03:18:28", "favorite", "1603476", "2951233", None, None, "taobao"),
        ("100", "2017-11-25 08:53:20", "cart", "1603476", "2951233", None, None, "taobao"),
    ]


def test_export_zh_has_full_width_commas_and_times_of_shanghai(spark, deliver, monkeypatch):
    monkeypatch.setenv("MEANDER_SOURCE", "export_zh")

    def exported(*lines, newline="\n"):
        """Write lines as the export does: the delimiter is a full-width comma."""
        return newline.join(["用户ID,行为类型,时间戳,商品ID", *lines, ""]).replace(",", "\N{FULLWIDTH COMMA}")

    plain = exported("1001,浏览,2021-01-01 10:00:00,5001", "1001,收藏,2021-01-01 10:01:00,5001")
    marked = exported("1002,加购,2021-01-01 00:30:00,5002", "1002,购买,2021-01-02 07:59:59,5002", newline="\r\n")
    packed = exported("1003,搜索,2021-01-01 12:00:00,", "1003,比较,2021-01-01 12:00:00,1")
    deliver("2021-01-01", "plain.csv", plain)
    # Excel puts a byte order mark before the header, and ends lines as Windows does.
    deliver("2021-01-01", "marked.csv", f"\ufeff{marked}")
    deliver("2021-01-01", "packed.csv.gz", f"\ufeff{packed}")
    events, quarantine = read(spark, "2021-01-01")
    assert told(events, *READ[:4], "dt") == [
        ("1001", "2021-01-01 02:00:00", "view", "5001", date(2021, 1, 1)),
        ("1001", "2021-01-01 02:01:00", "favorite", "5001", date(2021, 1, 1)),
        ("1002", "2020-12-31 16:30:00", "cart", "5002", date(2020, 12, 31)),
        ("1002", "2021-01-01 23:59:59", "purchase", "5002", date(2021, 1, 1)),
        ("1003", "2021-01-01 04:00:00", "search", None, date(2021, 1, 1)),
    ]
    assert told(quarantine, "reason", "line") == [("unknown_behavior", 3)]


def test_retailrocket_has_milliseconds(spark, deliver, monkeypatch):
    monkeypatch.setenv("MEANDER_SOURCE", "retailrocket")
    lines = ["1433221332117,257597,view,355908,", "1433224214164,992329,addtocart,248676,"]
    lines = [
        "timestamp,visitorid,event,itemid,transactionid",
        *lines,
        "1433222276276,599528,transaction,356475,4000",
    ]
    deliver("2015-06-02", "events.csv", "\n".join(lines))
    events, _ = read(spark, "2015-06-02")
    assert told(events, *READ[:4]) == [
        ("257597", "2015-06-02 05:02:12.117", "view", "355908"),
        ("599528", "2015-06-02 05:17:56.276", "purchase", "356475"),
        ("992329", "2015-06-02 05:50:14.164", "cart", "248676"),
    ]


def test_canonical_is_json_lines_and_parquet_side_by_side(spark, lake, deliver):
    record = {
        "user_id": "u",
        "event_time": "2025-03-02T10:00:00Z",
        "behavior": "view",
        "item_id": "i",
        "price": 1.5,
    }
    unknown = {**record, "user_id": "v", "behavior": "like"}
    deliver("2025-03-02", "a.jsonl.gz", json.dumps({**record, "unused": {"deep": [1]}}) + "\n")
    folder = lake / "landing" / "dt=2025-03-02"
    frame = pd.DataFrame([record, unknown, {**record, "user_id": None}])
    frame.to_parquet(folder / "b.parquet", index=False)
    # On another day the same columns come with types: an instant and a number.
    typed = frame.assign(event_time=pd.to_datetime(frame["event_time"]), user_id=[1, 2, 3], category_id=7)
    (lake / "landing" / "dt=2025-03-03").mkdir()
    typed.to_parquet(lake / "landing" / "dt=2025-03-03" / "c.parquet", index=False, coerce_timestamps="us")

    events, quarantine = read(spark, "2025-03-02")
    typed_events, _ = read(spark, "2025-03-03")

    price = Decimal("1.5000")
    assert told(events, *READ[:6], "price", "copies") == [
        ("u", "2025-03-02 10:00:00", "view", "i", None, None, price, 2)
    ]
    assert told(typed_events, *READ[:6], "price") == [
        ("1", "2025-03-02 10:00:00", "view", "i", "7", None, price),
        ("3", "2025-03-02 10:00:00", "view", "i", "7", None, price),
    ]
    # A row of Parquet is told as JSON, and has no line.
    rejected = told(quarantine, "reason", "line", "raw")
    assert [(reason, line, json.loads(raw)) for reason, line, raw in rejected] == [
        ("missing_user", None, {key: value for key, value in record.items() if key != "user_id"}),
        ("unknown_behavior", None, unknown),
    ]
