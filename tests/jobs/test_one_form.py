"""Both forms in which Unicode writes a letter are one id in the lake, against Python's own tables."""

import unicodedata
from datetime import date

import hypothesis
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyspark.sql import functions as F

from jobs import ingest
from jobs.rejections import in_one_form
from lake.text import composed, is_usable_id

DAY = date(2025, 1, 1)
EVERY = hypothesis.settings().max_examples > 25
# What Python's tables know; Spark's may be of a newer Unicode, which changes nothing that an older one has assigned.
CHARACTERS = [
    chr(code)
    for code in range(0x110000)
    if not 0xD800 <= code < 0xE000
    and (EVERY or code < 0x10000 or not 0x3000 <= code & 0xFFFF < 0xF000)
    and unicodedata.category(chr(code)) != "Cn"
]
# Marks of several classes, in an order that is not theirs; vowels of Hangul and of Indic letters; a mark of music.
MARKS = ["\u0301", "\u0323", "\u0307", "\u0327", "\u0345", "\u1161", "\u11a8", "\u09be", "\u3099", "\U0001d165"]


@pytest.mark.torture
@pytest.mark.spark
def test_spark_has_the_form_of_python_for_every_character_and_marks_after_it(spark, tmp_path):
    texts = [*CHARACTERS, *(c + mark for c in CHARACTERS for mark in (MARKS if ord(c) < 0x3100 else MARKS[:1]))]
    texts += [f"{a}{b}{c}" for a in ("e", "\u0915", "\u1100", "s") for b in MARKS for c in MARKS]
    pq.write_table(pa.table({"text": texts, "python": list(map(composed, texts))}), tmp_path / "texts.parquet")
    rows = spark.read.parquet(str(tmp_path / "texts.parquet")).select("text", "python", in_one_form(F.col("text")))
    formed = rows.toDF("text", "python", "spark")
    # Some have another form, and all have Python's.
    assert formed.where("text != spark").count() > 5_000
    assert formed.where("python != spark").take(3) == []


TEXT = st.text(st.one_of(st.characters(), st.sampled_from(["e", "s", "\u00e9", "\u1100", *MARKS])), max_size=12)


@given(TEXT)
def test_a_text_in_one_form_stays_as_it_is_and_is_as_usable(text):
    once = composed(text)
    assert composed(once) == once
    assert composed(unicodedata.normalize("NFD", text)) == once
    assert is_usable_id(once) == is_usable_id(text)


def test_below_the_first_mark_each_text_has_the_form():
    # What lets Spark leave nearly all texts alone: no two of these characters make another one.
    below = [chr(code) for code in range(0x300)]
    assert all(composed(a + b) == a + b for a in below for b in below)


@pytest.mark.spark
def test_both_forms_of_a_letter_are_one_user_item_category_and_query(spark, land):
    forms = ("caf\u00e9", "cafe\u0301")
    event = {"event_time": f"{DAY}T10:00:00Z", "behavior": "view"}
    land(DAY, [{**event, **dict.fromkeys(("user_id", "item_id", "category_id", "query"), form)} for form in forms])
    # The same by the bytes themselves instead of JSON's escapes, and one in which nothing is to be done.
    land(DAY, [f'{{"event_time": "{DAY}T10:00:00Z", "behavior": "view", "user_id": "{form}", "item_id": "{form}", '
               f'"category_id": "{form}", "query": "{form}"}}' for form in forms], "part-1.jsonl")  # fmt: skip
    land(DAY, [{**event, "user_id": "u", "item_id": "i"}], "part-2.jsonl")

    events, quarantine = ingest.main(["--day", f"{DAY}", "--run-id", "r"])

    assert quarantine.rows == 0
    found = {row.user_id: row for row in events.read(spark).collect()}
    assert found.keys() == {"caf\u00e9", "u"}
    both = found["caf\u00e9"]
    assert (both.item_id, both.category_id, both.query, both.copies) == (*("caf\u00e9",) * 3, 4)
