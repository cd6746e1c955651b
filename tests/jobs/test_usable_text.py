"""What ingest accepts, every sink holds: over all of Unicode, from the landing file to the serving store.

`make test` takes what Unicode uses: the first plane whole, of each other plane its beginning and its end, which has
emoji and the two non-characters. `make torture` takes all 1,112,064 characters.
"""

import io
import json
import unicodedata
from collections.abc import Callable
from xml.etree import ElementTree
from xml.sax.saxutils import escape

import hypothesis
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake
from hypothesis import given
from hypothesis import strategies as st
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from rich.console import Console

from expectations.events import unusable_text
from jobs import ingest
from jobs.rejections import text_reasons
from lake.places import table_path
from lake.publish import publish
from lake.rules import MAX_ID_BYTES
from lake.serving.load import MAX_ID_BYTES as MAX_SERVED_BYTES
from lake.text import composed, is_usable_character, is_usable_id, is_usable_query
from tests.lake.predicted import DAY_1, prediction, publish_rows
from tests.lake.served import load, opened, switch
from tests.lake.stagings import audit

EVERY = hypothesis.settings().max_examples > 25
# A string of Spark or Arrow has no surrogates.
CHARACTERS = [
    chr(code)
    for code in range(0x110000)
    if not 0xD800 <= code < 0xE000 and (EVERY or code < 0x10000 or not 0x100 <= code & 0xFFFF < 0xF000)
]
USABLE = [character for character in CHARACTERS if is_usable_character(character)]
# Each usable character once, as ids of at most 1,751 bytes, and of no more than 2,048 in one form of Unicode, in which
# some characters are two. No character combines with a full stop.
IDS = [f".{'.'.join(USABLE[n : n + 350])}." for n in range(0, len(USABLE), 350)]


def is_rejected_as_unusable():
    """Return whether ingest rejects a row for its characters."""
    return F.coalesce(*text_reasons().values()) == "unusable_text"


def unusable(rows: DataFrame, formula: Callable[[], Column], **columns: Column) -> set[str]:
    """Return the characters for which a formula calls an event unusable, one with these columns."""
    event = {"user_id": F.lit("u"), "item_id": F.lit("i"), "category_id": F.lit(None).cast("string"), **columns}
    event = {"query": F.lit(None).cast("string"), **event}
    found = rows.select("character", *(value.alias(name) for name, value in event.items())).where(formula())
    return {row.character for row in found.select("character").collect()}


@pytest.mark.torture
@pytest.mark.spark
@pytest.mark.parametrize("formula", [is_rejected_as_unusable, unusable_text], ids=["ingest", "audit"])
def test_ingest_and_audit_agree_with_the_definition_on_every_character(spark, tmp_path, formula):
    pq.write_table(pa.table({"character": CHARACTERS}), tmp_path / "characters.parquet")
    rows = spark.read.parquet(str(tmp_path / "characters.parquet")).repartition(2)
    text = F.concat(F.lit("a"), "character", F.lit("b"))
    assert unusable(rows, formula, user_id=text) == {c for c in CHARACTERS if not is_usable_id(f"a{c}b")}
    assert unusable(rows, formula, query=text) == {c for c in CHARACTERS if not is_usable_query(f"a{c}b")}
    # The other two ids are held to the same, and the length of each is counted in bytes.
    few = spark.createDataFrame([(c,) for c in "\0\tzé漢🙂"], "character string").coalesce(1)
    assert unusable(few, formula, item_id=text) == unusable(few, formula, category_id=text) == {"\0", "\t"}
    for size in (512, 513, 682, 683, 1024, 1025, 2048, 2049):
        for name in ("user_id", "item_id", "category_id"):
            found = unusable(few, formula, **{name: F.expr(f"repeat(character, {size})")})
            assert found == {c for c in "\0\tzé漢🙂" if not is_usable_id(c * size)}, (name, size)
    assert unusable(few, formula, query=F.expr("repeat(character, 3000)")) == {"\0"}


def test_an_id_that_is_accepted_has_room_in_the_index_of_the_serving_store():
    assert MAX_ID_BYTES <= MAX_SERVED_BYTES
    assert is_usable_id("é" * (MAX_ID_BYTES // 2))
    assert not is_usable_id("é" * (MAX_ID_BYTES // 2) + "e")


@pytest.mark.torture
@pytest.mark.spark
def test_every_character_that_ingest_accepts_is_in_the_lake_and_is_served_as_it_was_delivered(spark, serving, land):
    event = {"event_time": f"{DAY_1}T10:00:00Z", "behavior": "search"}
    rows = [{**event, "user_id": text, "item_id": text, "category_id": text, "query": text} for text in IDS]
    land(DAY_1, [json.dumps(row, ensure_ascii=bool(n % 2)) for n, row in enumerate(rows)])

    events, quarantine = ingest.main(["--day", f"{DAY_1}", "--run-id", "r"])

    assert (events.rows, quarantine.rows) == (len(IDS), 0)
    audit(events)
    publish("events", "r")
    published = DeltaTable(table_path("events")).to_pyarrow_table()
    for column in ("user_id", "item_id", "category_id", "query"):
        # As it was, but in one form of Unicode.
        assert sorted(published[column].to_pylist()) == sorted(map(composed, IDS))

    publish_rows([prediction(text, DAY_1) | {"item_ids": [text], "current_category": text} for text in IDS], DAY_1)
    assert load(DAY_1, "r")["set_aside"] == {}
    with opened() as store:
        switch(store, DAY_1, "r", force=True)
    answer = serving.execute("select user_id, item_ids[1], current_category from meander.predictions").fetchall()
    assert sorted(answer) == sorted((text, text, text) for text in IDS)


@pytest.mark.torture
def test_every_character_that_ingest_accepts_may_be_in_the_statistics_of_delta_s_log(tmp_path):
    parts = [IDS[n : n + 2] for n in range(0, len(IDS), 2)]
    for n in range(0, len(parts), 70):
        rows = [{"user_id": text, "part": part} for part, texts in enumerate(parts[n : n + 70], n) for text in texts]
        write_deltalake(tmp_path, pa.Table.from_pylist(rows), mode="append", partition_by=["part"])
    files = pa.table(DeltaTable(tmp_path).get_add_actions(flatten=True)).to_pylist()
    # Of a long text the log has the beginning.
    smallest = sorted(file["min.user_id"] for file in files)
    assert len(smallest) == len(parts)
    assert all(min(texts).startswith(text) for text, texts in zip(smallest, sorted(parts, key=min), strict=True))


def shown(text: str) -> str:
    """Return what a terminal gets of a text, in one line."""
    terminal = Console(file=io.StringIO(), force_terminal=True, color_system="truecolor", width=100)
    terminal.print(text, markup=False, highlight=False, emoji=False, soft_wrap=True)
    return terminal.file.getvalue().removesuffix("\n")


def held_by_texts(text: str, *, lines: int = 1) -> None:
    """Check the sinks that are text themselves: JSON lines, a page, a terminal."""
    assert json.loads(json.dumps(text)) == json.loads(json.dumps(text, ensure_ascii=False)) == text
    assert text.encode().decode() == text
    # XML allows fewer characters than HTML, and has no exceptions.
    assert ElementTree.fromstring(f"<td>{escape(text)}</td>").text == text
    # A terminal gets blanks for a tab.
    assert shown(text).replace(" ", "") == text.replace(" ", "").replace("\t", "")
    assert len(f"{text}.".splitlines()) == lines
    # Nothing but a line feed or a tab moves the cursor, and nothing changes the direction of what follows.
    assert not {unicodedata.category(c) for c in text if c not in "\t\n"} & {"Cc", "Cs", "Zl", "Zp"}
    assert not {unicodedata.bidirectional(c) for c in text} & {
        "LRE",
        "RLE",
        "LRO",
        "RLO",
        "PDF",
        "LRI",
        "RLI",
        "FSI",
        "PDI",
    }


@pytest.mark.torture
def test_texts_of_every_usable_character_are_held_by_json_pages_and_terminals():
    for text in IDS:
        held_by_texts(text)


# Hardly any character drawn from all of Unicode would be one of those that matter.
TEXT = st.text(
    st.one_of(
        st.characters(),
        st.sampled_from("\0\t\n\r\x1b\x85\u2028\u202e\u2066\u200d\ufeff\ufffd\ufffe\U0001ffff<&]>'\"\\"),
    ),
    min_size=1,
    max_size=20,
)


@given(TEXT)
def test_any_text_is_held_or_is_not_accepted(text):
    if is_usable_id(text):
        held_by_texts(text)
    if is_usable_query(text):
        held_by_texts(text, lines=1 + text.count("\n"))


@pytest.mark.spark
def test_the_raw_text_of_a_rejected_row_is_held_too(spark, lake, monkeypatch):
    monkeypatch.setenv("MEANDER_SOURCE", "taobao")
    every = "".join(c for c in CHARACTERS if not is_usable_character(c) and c not in "\r\n")
    line = f"u,i\t,c,pv,1735725600,{every},🙂"
    file = lake / "landing" / "dt=2025-01-01" / "log.csv"
    file.parent.mkdir(parents=True)
    file.write_text(f"{line}\n1,2,3,pv,1735725600\n", encoding="utf-8")
    _, quarantine = ingest.main(["--day", "2025-01-01", "--run-id", "r"])
    rows = quarantine.read(spark).collect()
    row = next(row for row in rows if row.line == 1)
    # A tab stays, since logs are separated by them.
    left = "".join(c if c == "\t" else "\ufffd" for c in every)
    assert (row.reason, row.line, row.raw) == ("malformed_line", 1, f"u,i\t,c,pv,1735725600,{left},🙂")
    held_by_texts(row.raw)
