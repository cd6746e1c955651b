"""Why a row cannot be an event: every reason, by rows that really arrive, and how times are read."""

import json
import random
import re
from collections import Counter
from datetime import date
from decimal import Decimal

import pytest
import yaml
from pyspark.sql import functions as F

from jobs.raw_rows import read_rows
from jobs.rejections import (
    NO_ID,
    PRINTED_FRACTION,
    REASONS,
    TOO_MANY,
    WHOLE_FRACTION,
    event_time,
    judge,
    plain_text,
    texts_of,
)
from jobs.source import NULLS, Time, load_source
from lake.landing import Landing
from lake.settings import settings

pytestmark = pytest.mark.spark

GOOD = {"user_id": "u", "event_time": "2025-03-02T10:00:00Z", "behavior": "view", "item_id": "i"}


def line(**changes):
    """Make a good JSON line of 2 March 2025, but for the fields given; `...` leaves a field out."""
    fields = {key: value for key, value in {**GOOD, **changes}.items() if value is not ...}
    return json.dumps(fields, ensure_ascii=False)


def escaped(user_id):
    """Make a good JSON line whose user is written as given, with escapes."""
    return line(user_id="@").replace("@", user_id)


def judged(spark, lake, name, content):
    """Deliver a file on 2 March 2025 and judge it.

    Returns:
        how often each outcome came, {rejected row: reason}, and (user, item, price) of each event.
    """
    file = lake / "landing" / "dt=2025-03-02" / name
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    source = load_source(settings().source)
    rows = judge(read_rows(spark, source, Landing.of(settings()).files(date(2025, 3, 2))), source, settings())
    found = rows.select("outcome", "reason", "raw", "user_id", "item_id", "price").collect()
    assert all((row.outcome == "rejected") == (row.reason is not None) for row in found)
    events = [(row.user_id, row.item_id, row.price) for row in found if row.outcome == "event"]
    return Counter(row.outcome for row in found), {row.raw: row.reason for row in found if row.reason}, events


def test_json_lines_are_rejected_each_for_its_own_reason(spark, lake, monkeypatch):
    monkeypatch.setenv("MEANDER_MAX_FIELD_LENGTH", "20")
    monkeypatch.setenv("MEANDER_TIME_FLOOR", "2010-01-01")
    rejected = {
        # Nothing else can be said of a row whose bytes are no text: U+FFFD stands where they were.
        line(user_id="u�"): "undecodable",
        # One line is one object, from its first character to its last.
        line()[:-1]: "malformed_line",
        line() + line(): "malformed_line",
        f"[{line()}]": "malformed_line",
        f"{line()},": "malformed_line",
        f'{line()},"more":{{}}': "malformed_line",
        "view u i": "malformed_line",
        "null": "malformed_line",
        "": "malformed_line",
        line(user_id="u" * 21): "field_too_long",
        line(item_id="i" * 21): "field_too_long",
        line(category_id="c" * 21): "field_too_long",
        line(behavior="search", query="q" * 21): "field_too_long",
        # One character of each kind that some sink cannot hold: a control, a mark that reorders its neighbours, the end
        # of a paragraph, a byte order mark, no character at all, half of one, and the place of a lost one.
        line(user_id="u\0"): "unusable_text",
        line(item_id="i\t1"): "unusable_text",
        line(category_id="c\x9b"): "unusable_text",
        line(item_id="i\u202e1"): "unusable_text",
        line(item_id="i\u20291"): "unusable_text",
        line(item_id="i\ufeff1"): "unusable_text",
        line(category_id="c\U0010ffff"): "unusable_text",
        line(behavior="search", query="tea\rmilk"): "unusable_text",
        escaped(user_id=r"u\ud83d"): "unusable_text",
        escaped(user_id=r"\uDE00u"): "unusable_text",
        escaped(user_id=r"\ude00\ud83d"): "unusable_text",  # the halves the wrong way round
        escaped(user_id=r"\\ud83d\ude00"): "unusable_text",  # an escaped backslash, a word, and half a character
        escaped(user_id=r"\\\ud83d"): "unusable_text",
        escaped(user_id=r"\ud83d\ud83d\ude00"): "unusable_text",
        escaped(user_id=r"u\ufffd"): "unusable_text",
        # What is certainly no id: an object, a list, a truth value, a number with a fraction or with lost digits.
        line(user_id={"$oid": "65e6"}): "not_an_id",
        line(item_id=["i1", "i2"]): "not_an_id",
        line(item_id=[]): "not_an_id",
        line(category_id={}): "not_an_id",
        line(user_id=True): "not_an_id",
        line(user_id="false"): "not_an_id",
        line(item_id="@").replace('"@"', "1.23e+8"): "not_an_id",
        line(item_id="@").replace('"@"', "123456789.5"): "not_an_id",
        line(item_id="1.23E+08"): "not_an_id",
        line(item_id="@").replace('"@"', "Infinity"): "not_an_id",
        line(event_time=None): "missing_time",
        line(event_time=...): "missing_time",
        line(event_time="  "): "missing_time",
        line(event_time="yesterday"): "unparsable_time",
        line(event_time="2025-02-30T10:00:00Z"): "unparsable_time",
        line(event_time="2025-03-02"): "unparsable_time",  # a date without a time of day
        line(event_time="10:00"): "unparsable_time",
        line(event_time="2009-12-31T23:59:59.999999Z"): "time_before_floor",
        line(event_time="2025-03-03T00:00:00Z"): "time_after_landing",
        line(event_time="2025-03-02T20:00:00-05:00"): "time_after_landing",  # 01:00 UTC on the next day
        line(user_id=None): "missing_user",
        line(user_id=...): "missing_user",
        line(user_id=" "): "missing_user",
        line(user_id="\t\u3000\xa0"): "missing_user",
        line(user_id="NULL"): "missing_user",
        line(user_id="(not set)"): "missing_user",
        line(user_id="@").replace('"@"', "NaN"): "missing_user",
        line(behavior="like"): "unknown_behavior",
        line(behavior="View"): "unknown_behavior",
        line(behavior=None): "unknown_behavior",
        line(item_id=None): "missing_item",
        line(item_id="n/a"): "missing_item",
        line(behavior="purchase", item_id=""): "missing_item",
        line(price="free"): "invalid_price",
        line(price="12,50"): "invalid_price",
        line(price="12 EUR"): "invalid_price",
        line(price=100_000_000_000_000): "invalid_price",  # one digit more than the column holds
        line(price=-0.01): "negative_price",
    }
    # Broken in many ways, and with each row in one way less: the first reason of the list is told.
    much = {"user_id": None, "behavior": "like", "item_id": None, "price": -1}
    rejected |= {
        "{� " + line(query="q" * 21, event_time=None, **much): "undecodable",
        "{{ " + line(query="q" * 21, event_time=None, **much): "malformed_line",
        line(query="q" * 21, event_time=None, **much): "field_too_long",
        line(query="q\0", event_time=None, **much): "unusable_text",
        line(event_time=None, category_id=[], **much): "not_an_id",
        line(event_time=None, **much): "missing_time",
        line(event_time="soon", **much): "unparsable_time",
        line(event_time="1999-12-31T00:00:00Z", **much): "time_before_floor",
        line(event_time="2039-12-31T00:00:00Z", **much): "time_after_landing",
        line(**much): "missing_user",
        line(**{**much, "user_id": "u"}): "unknown_behavior",
        line(item_id=None, price="free"): "missing_item",
    }
    accepted = [
        line(user_id="u" * 20),
        line(user_id="é" * 20),  # as many characters, and twice as many bytes
        line(event_time="2010-01-01T00:00:00Z"),  # the floor itself
        line(event_time="2025-03-02T23:59:59.999999Z"),
        line(event_time="2025-03-02 23:30"),  # no zone is UTC
        line(behavior="search", item_id=None, query="q"),  # only a search needs no item
        line(price=0),
        line(price=""),  # no price is none, not a wrong one
        line(price="NaN"),  # a word for null
        line(behavior="search", item_id=None, query="tea\tand\nmilk"),
        escaped(user_id=r"u\uD83D\uDE00"),
        escaped(user_id=r"\ud83d\ude00\ud83d\ude00"),
        escaped(user_id=r"\\ud83d \\\ud83d\ude00"),  # words that only look like half a character
        escaped(user_id="u").replace('"u"', r'"u", "title": "cut \ud83d"'),  # in a column that is not used
        line(user_id=7, item_id=12345678901234567890),  # numbers are ids too
    ]
    content = "\n".join([*rejected, *accepted]).encode().replace("�".encode(), b"\xff")

    counts, found, events = judged(spark, lake, "log.jsonl", content)

    assert found == rejected
    assert set(found.values()) == set(REASONS) - {TOO_MANY, "too_late"}, "each reason of a row has one here"
    assert counts == {"event": len(accepted), "rejected": len(rejected)}
    assert events[-9:] == [
        ("u", "i", 0),
        ("u", "i", None),
        ("u", "i", None),
        ("u", None, None),
        ("u😀", "i", None),
        ("😀😀", "i", None),
        (r"\ud83d \😀", "i", None),
        ("u", "i", None),
        ("7", "12345678901234567890", None),
    ]


def test_with_a_bound_an_event_of_too_many_days_before_it_landed_is_rejected(spark, lake, monkeypatch):
    monkeypatch.setenv("MEANDER_MAX_DAYS_LATE", "2")
    rejected = {
        # Two days before 2 March is 28 February, all of it.
        line(event_time="2025-02-27T23:59:59.999999Z"): "too_late",
        line(event_time="2025-02-28T00:30:00+01:00"): "too_late",
        line(event_time="2024-03-02T10:00:00Z", user_id=None): "too_late",
        line(event_time="1999-12-31T00:00:00Z"): "time_before_floor",
    }
    accepted = [line(event_time="2025-02-28T00:00:00Z"), line(), line(event_time="2025-02-27T23:30:00-01:00")]
    content = "\n".join([*rejected, *accepted]).encode()
    counts, found, _ = judged(spark, lake, "log.jsonl", content)
    assert (counts, found) == ({"event": len(accepted), "rejected": len(rejected)}, rejected)


def test_no_id_that_is_none_looks_plain_nor_does_a_fraction_or_a_word_for_null():
    # Java's, in Python.
    plain = re.compile(rf"(?m)\A{plain_text(load_source('canonical'), is_id=True)}\Z")
    odd = [re.compile(pattern) for pattern in (NO_ID, PRINTED_FRACTION, WHOLE_FRACTION, r"(?s).*[^ -~]|^ |.* \Z")]
    words = {word.lower() for word in NULLS}
    draw = random.Random(6)
    parts = [
        *"0123456789",
        "12",
        "1.5",
        "e+",
        "E+",
        "E-3",
        "E7",
        ".",
        ".0",
        "+",
        "-",
        "[",
        "]",
        "{",
        "}",
        '"',
        ",",
        " ",
    ]
    parts += ["true", "True", "TRUE", "false", "inf", "Infinity", "-INF", "a", "item", "\t", "\n", "\x7f", "é", "\0"]
    parts += ["NULL", "none", "N/A", "n/A", "nan", "(", ")", "not set"]
    seen = {True: 0, False: 0}
    for _ in range(30_000):
        text = "".join(draw.choices(parts, k=draw.randrange(1, 4)))
        is_odd = any(pattern.match(text) for pattern in odd) or text.lower() in words
        if plain.match(text):
            assert not is_odd, text
        seen[is_odd] += 1
    assert min(seen.values()) > 5000
    # These are what most ids are like.
    usual = [
        "10012345",
        "u-7",
        "c_1:a/b",
        "f3b1c2d4-0000-4000-8000-0123456789ab",
        "Trueman",
        "a b",
        "x|y;z",
        "",
        r"a\b",
    ]
    usual += ["ann@example.org", "0042", "-7", "nil-7", "1e7"]
    assert [each for each in usual if not plain.match(each)] == ["Trueman"]


def test_lines_of_a_csv_file_are_rejected_each_for_its_own_reason(spark, lake, monkeypatch):
    source = {
        "name": "till",
        "description": "the export of a till, in an encoding and with times of its own",
        "format": "csv",
        "delimiter": ";",
        "encoding": "gb18030",
        "columns": ["谁", "何`时", "做", "什么", "`元"],
        "user_id": "谁",
        "item_id": "什么",
        "price": "`元",
        "time": {"column": "何`时", "format": "dd.MM.yyyy HH:mm", "zone": "Asia/Shanghai"},
        "behavior": {"column": "做", "values": {"买": "purchase", "看": "view", "退": "ignore"}},
    }
    (lake / "till.yaml").write_text(yaml.safe_dump(source, allow_unicode=True), encoding="utf-8")
    monkeypatch.setenv("MEANDER_SOURCE", str(lake / "till.yaml"))
    rejected = {
        "坏�;02.03.2025 10:00;买;茶;1": "undecodable",
        "甲;02.03.2025 10:00;买;茶": "malformed_line",  # a column too few
        "甲;02.03.2025 10:00;买;茶;1;2": "malformed_line",  # a column too many
        '"甲;02.03.2025 10:00;买;茶;1': "malformed_line",  # a quote that nobody closes
        "": "malformed_line",
        "甲" * 1025 + ";02.03.2025 10:00;买;茶;1": "field_too_long",
        "甲\0;02.03.2025 10:00;买;茶;1": "unusable_text",
        "甲" * 683 + ";02.03.2025 10:00;买;茶;1": "unusable_text",  # 2,049 bytes in the lake, where text is UTF-8
        "甲;02.03.2025 10:00;买;1.23E+08;1": "not_an_id",
        "甲;;买;茶;1": "missing_time",
        "甲;2.3.2025 10:00;买;茶;1": "unparsable_time",
        "甲;2025-03-02 10:00;买;茶;1": "unparsable_time",
        "甲;01.01.1999 10:00;买;茶;1": "time_before_floor",
        "甲;03.03.2025 08:00;买;茶;1": "time_after_landing",  # midnight UTC in Shanghai
        ";02.03.2025 10:00;买;茶;1": "missing_user",
        "甲;02.03.2025 10:00;卖;茶;1": "unknown_behavior",
        "甲;02.03.2025 10:00;买;;1": "missing_item",
        "甲;02.03.2025 10:00;买;茶;一": "invalid_price",
        "甲;02.03.2025 10:00;买;茶;-1": "negative_price",
    }
    ignored = [
        "甲;02.03.2025 10:00;退;茶;1",
        ";;退;;",  # whatever else may be wrong with it
    ]
    accepted = [
        "甲" * 682 + ";02.03.2025 10:00;买;茶;1",
        '"甲;乙";02.03.2025 10:00;看;"双""引""号"; 2.5 ',
        "丙;03.03.2025 07:59;看;C:\\;",
    ]
    header = ";".join(source["columns"])
    text = "\r\n".join([header, *rejected, *ignored, *accepted])
    # 0xff begins no character of gb18030.
    content = b"\xff".join(part.encode("gb18030") for part in text.split("�"))

    counts, found, events = judged(spark, lake, "till.csv", content)

    assert found == rejected
    assert set(found.values()) == set(REASONS) - {TOO_MANY, "too_late"}, "each reason of a row has one here"
    assert counts == {"event": len(accepted), "ignored": len(ignored), "rejected": len(rejected)}
    # A quote inside of quotes is doubled, and a backslash is one.
    assert events == [("甲" * 682, "茶", 1), ("甲;乙", '双"引"号', Decimal("2.5")), ("丙", "C:\\", None)]


def with_time(form, zone):
    """Return a source of one column, a time."""
    source, time = load_source("taobao"), Time(column="t", format=form, zone=zone)
    behavior = source.behavior.model_copy(update={"column": time.column})
    fields = {"user_id": time.column, "item_id": None, "category_id": None, "behavior": behavior, "time": time}
    return source.model_copy(update=fields)


def of_times(spark, texts):
    """Return a row for each text, as the value of that column."""
    kind = "raw string, instant timestamp, values struct<t: string>"
    rows = spark.createDataFrame([(text, None, (text,)) for text in texts], kind)
    return texts_of(rows, with_time("iso8601", "UTC"))


def test_how_event_times_are_read(spark):
    expected = {
        ("epoch_s", "UTC"): {
            "1740909600": "2025-03-02 10:00:00",
            " 1740909600.25 ": "2025-03-02 10:00:00.25",
            "-1": "1969-12-31 23:59:59",
            "253402300799": "9999-12-31 23:59:59",
            "253402300800": None,  # the year 10000
            "999999999999999999": None,
            "1740909600s": None,
            "\t1740909600\xa0": "2025-03-02 10:00:00",  # what surrounds it is no part of it
            "1.7409096E+9": None,  # in scientific notation digits are lost
            "1.7409096E9": None,
            "17409096e2": None,
            "1,740,909,600": None,
            "": None,
        },
        ("epoch_ms", "Asia/Shanghai"): {  # an epoch has no zone to be in
            "1740909600001": "2025-03-02 10:00:00.001",
            "2025-03-02 10:00:00": None,
        },
        ("epoch_us", "UTC"): {
            "1740909600000001": "2025-03-02 10:00:00.000001",
        },
        ("epoch_ns", "UTC"): {
            "1740909600000001999": "2025-03-02 10:00:00.000001",
            "1.740909600000001999E18": None,
        },
        ("iso8601", "UTC"): {
            "2025-03-02T10:00:00": "2025-03-02 10:00:00",
            "2025-03-02 10:00": "2025-03-02 10:00:00",
            "2025-03-02T10:00:00.123456789Z": "2025-03-02 10:00:00.123456",
            "2025-03-02T10:00:00+08:00": "2025-03-02 02:00:00",
            "2025": None,
            "2025-13-02T10:00:00": None,
        },
        ("iso8601", "Asia/Shanghai"): {
            "2025-03-02T10:00:00": "2025-03-02 02:00:00",
            "2025-03-02 10:00:00.5": "2025-03-02 02:00:00.5",
            # What says its zone is in that one.
            "2025-03-02T10:00:00Z": "2025-03-02 10:00:00",
            "2025-03-02 10:00:00 UTC": "2025-03-02 10:00:00",
            "2025-03-02T10:00:00 GMT": "2025-03-02 10:00:00",
            "2025-03-02T10:00:00+08": "2025-03-02 02:00:00",
            "2025-03-02T10:00:00-0500": "2025-03-02 15:00:00",
            "2025-03-02 10:00:00 America/New_York": "2025-03-02 15:00:00",
            # What surrounds a time does not switch the zone off.
            "2025-03-02 10:00:00\t": "2025-03-02 02:00:00",
            "\ufeff2025-03-02 10:00:00\u3000": "2025-03-02 02:00:00",
            # Abbreviations mean several zones: here China, for Spark Chicago.
            "2025-03-02 10:00:00 CST": None,
            "2025-03-02 10:00:00 EST": None,
            "2025-03-02T10:00:00 IST": None,
        },
        ("iso8601", "America/New_York"): {
            "2025-03-09T01:59:00": "2025-03-09 06:59:00",
            "2025-03-09T03:00:00": "2025-03-09 07:00:00",  # summer time began a minute after the line above
        },
        ("yyyy-MM-dd HH:mm:ss 'UTC'", "UTC"): {
            "2025-03-02 10:00:00 UTC": "2025-03-02 10:00:00",
            "2025-03-02 10:00:00": None,
        },
        ("dd.MM.yyyy HH:mm", "Asia/Shanghai"): {
            "02.03.2025 10:00": "2025-03-02 02:00:00",
            "30.02.2025 10:00": None,
        },
        # What says its zone is in that one: the zone of the source is not applied again.
        ("yyyy-MM-dd HH:mm:ssXXX", "Asia/Shanghai"): {
            "2025-03-02 18:00:00+08:00": "2025-03-02 10:00:00",
            "2025-03-02 10:00:00Z": "2025-03-02 10:00:00",
        },
        ("dd/MMM/yyyy:HH:mm:ss Z", "America/New_York"): {
            "02/Mar/2025:05:00:00 -0500": "2025-03-02 10:00:00",
        },
        ("yyyy-MM-dd HH:mm[:ss][ Z]", "Asia/Shanghai"): {
            "2025-03-02 10:00:00 -0500": "2025-03-02 15:00:00",
            "2025-03-02 10:00": "2025-03-02 02:00:00",
        },
        ("EEE, dd MMM yyyy HH:mm:ss z", "Asia/Shanghai"): {
            "Sun, 02 Mar 2025 10:00:00 GMT": "2025-03-02 10:00:00",
            "Sun, 02 Mar 2025 10:00:00 CST": None,
        },
    }
    texts = sorted({text for cases in expected.values() for text in cases})
    rows = of_times(spark, texts)
    read = {
        key: event_time(with_time(*key), F.col("raw"))[0].cast("string").alias(str(n)) for n, key in enumerate(expected)
    }
    found = {row["raw"]: row for row in rows.select(F.col("raw"), *read.values()).collect()}

    assert {
        key: {text: found[text][str(n)] for text in cases} for n, (key, cases) in enumerate(expected.items())
    } == expected


def test_an_hour_that_the_clocks_show_twice_or_never_is_told(spark):
    shown = {
        ("America/New_York", "2025-03-09 01:59:59"): ("2025-03-09 06:59:59", False),
        ("America/New_York", "2025-03-09 02:30:00"): ("2025-03-09 07:30:00", True),  # clocks go from 2 to 3
        ("America/New_York", "2025-03-09 03:00:00"): ("2025-03-09 07:00:00", False),
        ("America/New_York", "2025-11-02 00:59:59"): ("2025-11-02 04:59:59", False),
        ("America/New_York", "2025-11-02 01:30:00"): ("2025-11-02 05:30:00", True),  # and from 2 to 1
        ("America/New_York", "2025-11-02 02:00:00"): ("2025-11-02 07:00:00", False),
        ("America/New_York", "2025-11-02 01:30:00-05:00"): ("2025-11-02 06:30:00", False),  # which of both, it says
        ("Australia/Lord_Howe", "2025-04-06 01:45:00"): ("2025-04-05 14:45:00", True),  # from 2:00 to 1:30
        ("Australia/Lord_Howe", "2025-04-06 02:00:00"): ("2025-04-05 15:30:00", False),
        ("Asia/Shanghai", "2025-11-02 01:30:00"): ("2025-11-01 17:30:00", False),
    }
    found = {}
    for zone in {zone for zone, _ in shown}:
        rows = of_times(spark, [text for of, text in shown if of == zone])
        for form in ("iso8601", "yyyy-MM-dd HH:mm:ss[XXX]"):
            instant, doubtful = event_time(with_time(form, zone), F.col("raw"))
            told = rows.select("raw", instant.cast("string").alias("instant"), doubtful.alias("doubtful"))
            found |= {(form, zone, row.raw): (row.instant, row.doubtful) for row in told.collect()}
    assert found == {
        (form, *key): value for key, value in shown.items() for form in ("iso8601", "yyyy-MM-dd HH:mm:ss[XXX]")
    }
    # An instant of Parquet has no text, and is in no doubt.
    row = spark.createDataFrame([(None, date(2025, 3, 9))], "time_text string, instant date")
    _, doubtful = event_time(with_time("iso8601", "America/New_York"), F.lit(""))
    told = row.withColumn("instant", F.col("instant").cast("timestamp")).select(doubtful.alias("doubtful"))
    assert told.first().doubtful is False
