"""Pseudonyms at the door: the same events under other names, and nothing of a person in rejected rows."""

import base64
import json
import os
import random
import subprocess
import sys
from ast import literal_eval
from collections import Counter
from datetime import date
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pyspark.sql import functions as F

from jobs import ingest, sessionize
from jobs.landing_files import shape as shape_for_messages
from jobs.pseudonymize import shape, with_pseudonyms
from jobs.raw_rows import read_rows
from jobs.rejections import judge
from jobs.source import load_source
from lake.errors import PseudonymsDiffer, SettingsInvalid
from lake.landing import Landing
from lake.pseudonyms import IdentityMap, Key, pseudonym
from lake.publish import publish
from lake.settings import settings
from tests.lake.stagings import audit as audited

pytestmark = pytest.mark.spark

KEY = Key.of_bytes(bytes(range(7, 39)))
OTHER = Key.of_bytes(bytes(range(32, 0, -1)))
DAY = "2025-03-01"


def view(user, clock="10:00:00", item="i", **more):
    return {"user_id": user, "event_time": f"{DAY}T{clock}Z", "behavior": "view", "item_id": item, **more}


@pytest.fixture
def keyed(lake, monkeypatch):
    """Switch pseudonyms on, with a map."""
    monkeypatch.setenv("MEANDER_PSEUDONYM_KEY", KEY.secret.hex())
    monkeypatch.setenv("MEANDER_IDENTITY_MAP", str(lake / "whose"))
    return lake


def kept_of(spark, source=None):
    """Return {reason: raw} of the quarantine of the day."""
    source = source or load_source(settings().source)
    files = Landing.of(settings()).files(date.fromisoformat(DAY))
    judged = judge(read_rows(spark, source, files), source, settings()).persist()
    rows = with_pseudonyms(spark, judged, KEY, None, "x")
    return {row["reason"]: row["raw"] for row in ingest.to_quarantine(rows, source).collect()}


def test_a_rejected_row_keeps_what_was_understood_and_the_shape_of_the_rest(spark, land):
    land(
        DAY,
        [
            view("ann-7", behavior="like", item="i1"),  # the value of a behavior that nobody knows may be anything
            view("ann-7", event_time="ann@example.org"),
            view("ann-7", price="+49 170 1234567", query="call +49 170 123 45 67 or ann@example.org, size 44"),
            view("ann-7", price=-1, item="ann-7", category_id="of ann-7", query="ann-7 again"),
            view("ann-7", item=None, email="ann@example.org"),  # a column that the source does not name
            view("ann\x007"),
            view("ann-7" * 3000),
            "ann-7;ann@example.org;0170 1234567",
            {key: value for key, value in view("", item="b@c.org").items() if key != "user_id"},
            view("ann-7", event_time=None),
        ],
    )
    kept = kept_of(spark)
    pieces = {reason: json.loads(raw) for reason, raw in kept.items() if raw.startswith("{")}
    shapes = {reason: piece.pop("shape") for reason, piece in pieces.items()}
    ann = pseudonym("ann-7", KEY)
    at = "2025-03-01T10:00:00.000Z"
    assert pieces == {
        "unknown_behavior": {"user_id": ann, "event_time": at, "item_id": "i1"},
        "unparsable_time": {"user_id": ann, "behavior": "view", "item_id": "i"},
        "invalid_price": {
            "user_id": ann,
            "event_time": at,
            "behavior": "view",
            "item_id": "i",
            "query": "call <number> or <mail> size 44",
        },
        "negative_price": {
            "user_id": ann,
            "event_time": at,
            "behavior": "view",
            "item_id": "<user>",
            "category_id": "<user>",
            "query": "<user>",
            "price": -1.0,
        },
        "missing_item": {"user_id": ann, "event_time": at, "behavior": "view"},
        "missing_user": {"event_time": at, "behavior": "view", "item_id": "<mail>"},
        "missing_time": {"user_id": ann, "behavior": "view", "item_id": "i"},
    }
    assert shapes["unparsable_time"] == ('89 characters like {"x": "a-9", "x": "a@a.a", "a": "a", "x": "a"}')
    assert kept["malformed_line"] == "34 characters like a-9;a@a.a;9 9"
    assert kept["unusable_text"] == '99 characters like {"x": "a\\x", "x": "9-9-x:9:x", "a": "a", "x": "a"}'
    assert kept["field_too_long"].startswith(f"{len(json.dumps(view('ann-7' * 3000)))} characters like {{")
    assert len(kept["field_too_long"]) < 350
    assert "ann" not in " ".join(kept.values())


def test_the_shape_is_that_of_messages(spark):
    # Of a line that is a list no more is kept than that.
    kept = spark.createDataFrame([("a" * 8192,)], "raw string").select(shape().alias("s")).collect()
    assert kept[0]["s"].startswith("8192 or more characters like a")
    draw = random.Random(4)
    alphabet = [*"aZ09_ \t,;:.@-{}\"'\\<>", "é", "漢", "用", "🙂", "\uff0c", "\ufffd", "\x01"]
    lines = ["".join(draw.choices(alphabet, k=draw.randrange(60))) for _ in range(400)] + ["a" * 5000, "a;" * 5000]
    found = spark.createDataFrame([(line,) for line in lines], "raw string").select("raw", shape().alias("s")).collect()
    for row in found:
        said = shape_for_messages(row["raw"])
        expected = said.removeprefix("a line of ").removesuffix(" (9: digits, a: letters, x: both)")
        count, like = expected.split(" characters like ", 1)
        assert row["s"] == f"{int(count.replace(',', ''))} characters like {literal_eval(like)}", row["raw"]


# --- a run with and one without --------------------------------------------------------------------------


def log_of(draw, users, rows):
    """Draw a landing day: events of users, some equal, some rejected."""
    lines = []
    for _ in range(rows):
        clock = f"{draw.randrange(24):02}:{draw.randrange(60):02}:00"
        line = view(draw.choice(users), clock, f"i{draw.randrange(5)}")
        lines += [line] * draw.choice([1, 1, 1, 2])
        if draw.random() < 0.1:
            lines.append({**line, "behavior": "like"})
    return lines


def published(spark, lake, monkeypatch, name, key):
    """Load the landing into a lake of its own; return (events, sessions, counts)."""
    monkeypatch.setenv("MEANDER_LAKE", str(lake / name))
    monkeypatch.setenv("MEANDER_PSEUDONYM_KEY", key.secret.hex() if key else "")
    staged = ingest.main(["--from", DAY, "--to", "2025-03-02", "--run-id", "r"])
    for each in staged:
        audited(each)
        publish(each.table, "r")
    sessions = sessionize.main(["--from", DAY, "--to", "2025-03-02", "--run-id", "r"])
    assert sessions.key_id == (key.id if key else "")
    events = [row.asDict(recursive=True) for row in staged[0].read(spark).collect()]
    return events, [row.asDict(recursive=True) for row in sessions.read(spark).collect()], staged[0].counts


def test_with_pseudonyms_a_lake_has_the_same_events_and_sessions_of_the_same_users_by_other_names(
    spark, lake, land, monkeypatch
):
    draw = random.Random(11)
    # Whatever the door accepts, also two Unicode forms of one name, which is one user, and what looks like a pseudonym.
    users = ["ann", "ann ", "é", "e\u0301", "漢字", "🙂", "x" * 1000, "1", "10", "a\u200db", f"{KEY.id}-{'0' * 32}"]
    first = log_of(draw, users, 60)
    land(DAY, first)
    land("2025-03-02", first[:20])  # delivered again: equal events fold

    plain, plain_sessions, plain_counts = published(spark, lake, monkeypatch, "plain", None)
    events, sessions, counts = published(spark, lake, monkeypatch, "keyed", KEY)

    assert plain_counts.pop("unknown_behaviors"), "of rejected rows, a lake without pseudonyms alone tells"
    assert counts.pop("used_alone"), "and it keeps the names of the columns alone that the source reads"
    assert counts == plain_counts
    name = {user: pseudonym(user, KEY) for user in {row["user_id"] for row in plain}}
    # Nor are blanks around an id a part of it.
    assert len(set(name.values())) == len(name) == len(users) - 2

    def told(row, renamed):
        return (
            renamed.get(row["user_id"], row["user_id"]),
            row["event_time"],
            row["item_id"],
            row["copies"],
            row["landed"],
        )

    assert Counter(told(row, name) for row in plain) == Counter(told(row, {}) for row in events)
    assert {row["event_id"] for row in plain}.isdisjoint(row["event_id"] for row in events)
    again = Counter(row["event_id"] for row in events)
    assert sorted(again.values()) == sorted(Counter(row["event_id"] for row in plain).values()), "as many folds"
    assert set(again.values()) == {1, 2}

    def session(row, renamed):
        inside = Counter((each["event_time"], each["item_id"]) for each in row["events"])
        return (
            renamed.get(row["user_id"], row["user_id"]),
            row["start_time"],
            row["end_time"],
            frozenset(inside.items()),
        )

    assert Counter(session(row, name) for row in plain_sessions) == Counter(session(row, {}) for row in sessions)


def test_a_lake_takes_no_second_key_and_no_ids_of_the_shop_and_says_which_it_has(spark, keyed, land, monkeypatch):
    land(DAY, [view("ann")])
    for staged in ingest.main(["--day", DAY, "--run-id", "r"]):
        audited(staged)
        publish(staged.table, "r")
    ann = pseudonym("ann", KEY)
    assert IdentityMap(str(keyed / "whose")).user_of(ann) == "ann"
    before = sorted(path for path in keyed.rglob("*") if path.is_file())

    for other, said in ((OTHER.secret.hex(), f"pseudonyms by key {OTHER.id}"), ("", "the shop's own ids of users")):
        monkeypatch.setenv("MEANDER_PSEUDONYM_KEY", other)
        with pytest.raises(PseudonymsDiffer, match=f"expected pseudonyms by key {KEY.id}.*received {said}"):
            ingest.main(["--day", DAY, "--run-id", "s"])
    monkeypatch.setenv("MEANDER_PSEUDONYM_KEY", "secret")
    with pytest.raises(SettingsInvalid) as told:
        ingest.main(["--day", DAY, "--run-id", "s"])
    assert "secret" not in str(told.value)
    left = [path for path in keyed.rglob("*") if path.is_file() and path not in before]
    assert [path for path in left if "_order" not in path.parts] == [], "nothing is staged"


# --- nothing of a person, nothing of the key --------------------------------------------------------------


def everything(root: Path) -> str:
    """Return the bytes of every file below a folder, and the values of those that are Parquet, as one text."""
    found = []
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        found += [str(path), path.read_bytes().decode("latin-1")]
        if path.suffix == ".parquet":
            found.append(repr(pq.ParquetFile(path).read().to_pylist()))
    return "\n".join(found)


def test_no_id_of_a_user_and_nothing_of_the_key_is_in_lake_logs_plans_or_data_docs(keyed, land, spark):
    users = [f"planted-user-{n}" for n in range(8)]
    rows = [view(user, f"{hour:02}:00:00", f"i{hour}") for user in users for hour in range(9, 12)]
    broken = [{**row, "behavior": "like"} for row in rows[:2]] + [
        f"planted-user-0;{DAY};view",
        view("planted-user-1", price=-3, query="planted-user-1", phone="planted-user-1"),
    ]
    land(DAY, rows + broken)
    land("2025-03-02", rows)
    (keyed / "events").mkdir()
    plans = {
        "spark.eventLog.enabled": "true",
        "spark.eventLog.dir": str(keyed / "events"),
        "spark.eventLog.compress": "false",
    }
    done = subprocess.run(
        [sys.executable, "-m", "dags.cli", "daily", "--from", DAY, "--to", "2025-03-02", "--chunk-days", "2"],
        env={
            **os.environ,
            "PYSPARK_SUBMIT_ARGS": " ".join([*(f"--conf {k}={v}" for k, v in plans.items()), "pyspark-shell"]),
            # Few rows, so that a few broken ones are a large share.
            "MEANDER_MAX_REJECTED_SHARE": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    looked_at = {name: everything(keyed / name) for name in ("lake", "events")} | {"log": done.stdout + done.stderr}
    assert all(looked_at.values())
    for name in ("audits", "quarantine", "sessions", "interests", "_docs", "_runs"):
        assert (keyed / "lake" / name).exists(), name
    assert "LocalTableScan" in looked_at["events"] or "pseudonym" in looked_at["events"], "plans are in there"
    # The search finds what is there: ids in the map and the landing, pseudonyms in the lake.
    assert all(user in everything(keyed / "whose") and user in everything(keyed / "landing") for user in users)
    assert all(pseudonym(user, KEY) in looked_at["lake"] for user in users)
    secrets = {KEY.secret.hex(), KEY.secret.hex().upper(), KEY.secret.decode("latin-1"), repr(KEY.secret)[2:-1]}
    secrets.add(base64.b64encode(KEY.secret).decode().rstrip("="))
    for name, text in looked_at.items():
        assert "planted-user" not in text, name
        assert not [secret for secret in secrets if secret in text], name


def test_no_plan_holds_an_id_or_the_key(spark, keyed, land):
    land(DAY, [view("planted-user-1"), view("planted-user-2", behavior="like")])
    source = load_source("canonical")
    files = Landing.of(settings()).files(date.fromisoformat(DAY))
    judged = judge(read_rows(spark, source, files), source, settings()).persist()
    rows = with_pseudonyms(spark, judged, KEY, None, "x")
    plan = rows.where(F.col("outcome") == "event")._jdf.queryExecution().toString()
    assert "pseudonym" in plan
    assert "planted-user" not in plan
    assert KEY.secret.hex() not in plan
