"""Rows of forgotten users: told by the list of the lake, counted, and kept nowhere."""

import hashlib
import hmac
import json
from datetime import date

import pytest
import yaml
from pyspark.sql import functions as F

from jobs import ingest
from jobs.forgotten import keyed_hash, mark_forgotten
from lake.privacy.forgotten import ForgottenUsers, list_users

DAY = date(2025, 1, 1)
LISTED = ForgottenUsers("salt", frozenset())
LISTED = ForgottenUsers("salt", frozenset({LISTED.hash_of("ann"), LISTED.hash_of("ü 7,x")}))


@pytest.mark.spark
def test_the_hash_is_the_one_of_the_list(spark):
    users = ["ann", "", "ü 7,x", "漢🙂", "x" * 200]
    rows = spark.createDataFrame([(user,) for user in [*users, None]], "u string")
    found = [row.h for row in rows.select(keyed_hash("salt", F.col("u")).alias("h")).collect()]
    # Python's own, which is not made of two hashes by hand.
    assert found == [*(hmac.new(b"salt", user.encode(), hashlib.sha256).hexdigest() for user in users), None]


ROWS = [
    ("ann", "event", None, "{}", "forgotten", "their event"),
    ("ann", "ignored", None, "{}", "forgotten", "also what would be ignored"),
    ("ann", "rejected", "missing_item", "{}", "forgotten", "a rejected row of theirs"),
    ("ü 7,x", "event", None, "{}", "forgotten", "any characters"),
    ("bob", "event", None, "{}", "event", "another user"),
    ("Ann", "event", None, "{}", "event", "ids differ in their letters"),
    ("bob", "rejected", "missing_item", '{"q": "ann"}', "rejected", "another user's, who typed the id"),
    (None, "rejected", "missing_user", '{"q": "ann"}', "forgotten", "nobody's, with the id"),
    (None, "rejected", "malformed_line", "1,ann ,x", "forgotten", "an id between commas"),
    (None, "rejected", "malformed_line", '"ü 7,x"', "forgotten", "an id between quotes"),
    (None, "rejected", "malformed_line", "user=ann&x", "forgotten", "an id between other delimiters"),
    (None, "rejected", "malformed_line", r'{"user": "\u00fc 7,x", "t', "forgotten", "an id with an escape of JSON"),
    (None, "rejected", "malformed_line", "joanna", "rejected", "part of another word"),
    ("b", "rejected", "undecodable", "b;ann", "forgotten", "what was read as the user may be something else"),
]


def test_a_publish_finds_the_same_ids_in_texts():
    unread = [
        (raw, expected == "forgotten", why) for user, _, reason, raw, expected, why in ROWS if reason and not user
    ]
    assert {why: LISTED.in_text(raw) for raw, _, why in unread} == {why: expected for _, expected, why in unread}
    assert len(unread) == 6


@pytest.mark.spark
def test_whose_rows_are_forgotten(spark):
    columns = "user_id string, outcome string, reason string, raw string, expected string, why string"
    found = mark_forgotten(spark.createDataFrame(ROWS, columns), LISTED).collect()
    assert {row.why: row.outcome for row in found} == {row[5]: row[4] for row in ROWS}
    assert len(found) == len(ROWS)
    assert all(row.reason is None for row in found if row.outcome == "forgotten")
    assert [row.reason for row in found if row.outcome == "rejected"] == ["missing_item", "malformed_line"]


@pytest.mark.spark
def test_without_forgotten_users_nothing_is_done(spark):
    rows = spark.createDataFrame([("ann",)], "user_id string")
    assert mark_forgotten(rows, ForgottenUsers("", frozenset())) is rows


@pytest.mark.spark
def test_a_file_that_is_delivered_again_does_not_bring_a_user_back(spark, land, monkeypatch):
    monkeypatch.setenv("MEANDER_MAX_REJECTED_SHARE", "1")

    def row(user, item="i", time="2025-01-01T10:00:00Z"):
        return {"user_id": user, "event_time": time, "behavior": "view", "item_id": item}

    list_users(["ann"])
    no_rows = ['{"ann', f"{'x' * 9000};ann"]
    land(DAY, [row("ann"), row("ann"), row("bob"), row("bob"), row("ann", time="x"), row("bob", time="x"), *no_rows])
    events, quarantine = ingest.main(["--day", str(DAY), "--run-id", "r"])
    counts = events.counts
    assert [counts[name] for name in ("input", "accepted", "ignored", "quarantined", "forgotten")] == [8, 2, 0, 1, 5]
    assert counts["by_day"][str(DAY)]["forgotten"] == 5
    assert (events.rows, quarantine.rows) == (1, 1)
    assert {row.user_id for row in events.read(spark).collect()} == {"bob"}
    assert [json.loads(row.raw)["user_id"] for row in quarantine.read(spark).collect()] == ["bob"]
    # 8 = 1 event + 1 duplicate + 1 quarantined + 5 forgotten: the audit of the events agrees.
    from expectations import audit

    audit.main(["--table", "events", "--table", "quarantine", "--run-id", "r"])


@pytest.mark.spark
def test_of_an_id_far_behind_in_a_line_of_many_rows_nothing_is_kept(spark, land, lake, monkeypatch):
    """Such a row counts as rejected and not as forgotten, as docs/promises.md says; what is kept has not the id."""
    source = {
        "name": "lists",
        "description": "visits",
        "format": "jsonl",
        "each": "all",
        "user_id": "user",
        "item_id": "all.item",
        "time": {"column": "time", "format": "iso8601"},
        "behavior": {"column": "event", "values": {"view": "view"}},
    }
    (lake / "lists.yaml").write_text(yaml.safe_dump(source))
    monkeypatch.setenv("MEANDER_SOURCE", str(lake / "lists.yaml"))
    monkeypatch.setenv("MEANDER_MAX_REJECTED_SHARE", "1")
    list_users(["ann"])
    visit = {"time": "2025-01-01T10:00:00Z", "event": "view", "all": [{"item": "i"}]}
    of_nobody = [json.dumps({**visit, "pad": "x" * pad, "who": "ann"}) for pad in (9, 8192)]
    land(DAY, [json.dumps({**visit, "user": "bob"}), *of_nobody])
    events, quarantine = ingest.main(["--day", str(DAY), "--run-id", "r"])
    assert [events.counts[name] for name in ("accepted", "quarantined", "forgotten")] == [1, 1, 1]
    (row,) = quarantine.read(spark).collect()
    assert (row.reason, len(row.raw), "ann" in row.raw) == ("missing_user", 4096, False)
