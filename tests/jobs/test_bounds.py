"""A bound of the events of a user and date: which rows stay, whatever files they are in, and none is lost."""

import json
import random
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from pyspark.sql import functions as F

from expectations.quarantine import reasons
from jobs import ingest
from lake.privacy.forgotten import list_users

pytestmark = pytest.mark.spark

DAY, NEXT_DAY = "2025-03-01", "2025-03-02"


@pytest.fixture
def bound(monkeypatch):
    """Set the bound."""
    return lambda most: monkeypatch.setenv("MEANDER_MAX_EVENTS_PER_USER_DAY", str(most))


def act(user, clock, item="i", day=DAY, **more):
    return {"user_id": user, "event_time": f"{day}T{clock}:00Z", "behavior": "view", "item_id": item, **more}


def run(day=DAY, last=None):
    """Ingest one day, or several, and return what was staged: events and quarantine."""
    return ingest.main(["--from", day, "--to", last or day, "--run-id", "r"])


def kept(spark, staged, *columns):
    """Return staged rows, sorted; times as HH:mm."""
    rows = staged.read(spark)
    if "event_time" in columns:
        rows = rows.withColumn("event_time", F.date_format("event_time", "HH:mm"))
    return sorted(tuple(row) for row in rows.select(*columns).collect())


def test_the_earliest_events_of_a_user_and_date_stay_and_all_rows_are_accounted_for(spark, land, bound):
    late = "2025-02-28"
    robot = [act("robot", f"1{n}:00", f"i{n}") for n in range(5)]
    again = robot[2]  # folded into one event, which is the third
    land(DAY, [*robot[::-1], again, robot[4], act("ann", "09:00"), act("ann", "09:01"), act("ann", "09:02")])
    # Another date, and rows that are no events: none of them counts towards the three.
    more = [act("robot", "23:00", f"l{n}", late) for n in range(3)]
    more += [act("robot", "08:00", behavior="like"), act("robot", "08:01", None)]
    land(DAY, more, "late.jsonl")
    bound(3)

    events, quarantine = run()

    assert kept(spark, events, "user_id", "dt", "event_time", "copies") == sorted(
        [
            *(("ann", events.owns[0], f"09:0{n}", 1) for n in range(3)),
            ("robot", events.owns[0], "10:00", 1),
            ("robot", events.owns[0], "11:00", 1),
            ("robot", events.owns[0], "12:00", 2),
            *[("robot", events.owns[0].replace(month=2, day=28), "23:00", 1)] * 3,
        ]
    )
    # The fifth came twice: both rows go.
    rejected = [(reason, json.loads(raw)["item_id"]) for reason, raw in kept(spark, quarantine, "reason", "raw")]
    assert Counter(rejected) == {
        ("too_many_events", "i3"): 1,
        ("too_many_events", "i4"): 2,
        ("unknown_behavior", "i"): 1,
        ("missing_item", None): 1,
    }
    counts = events.counts["by_day"][DAY]
    assert counts == {
        "input": 15,
        "accepted": 10,
        "ignored": 0,
        "rejected": {"too_many_events": 3, "unknown_behavior": 1, "missing_item": 1},
    }
    assert counts["input"] == sum(n for (n,) in kept(spark, events, "copies")) + quarantine.rows


def test_without_a_bound_and_with_one_that_nobody_reaches_all_events_stay(spark, land, bound):
    land(DAY, [act("robot", f"10:{n:02}") for n in range(30)])
    assert run()[0].rows == 30
    bound(30)
    events, quarantine = run()
    assert (events.rows, quarantine.rows) == (30, 0)
    bound(29)
    assert kept(spark, run()[1], "reason", "line") == [("too_many_events", 30)]


def test_equal_events_of_two_sources_are_two_of_a_users_events(spark, lake, land, bound, monkeypatch):
    shared = {"description": "x", "format": "jsonl", "user_id": "user_id", "item_id": "item_id"}
    shared |= {"time": {"column": "event_time", "format": "iso8601"}, "behavior": {"constant": "view"}}
    for name in ("web", "app"):
        (lake / f"{name}.yaml").write_text(yaml.safe_dump({"name": name, **shared}))
    both = {"name": "both", "description": "x", "sources": {"web/*": "web.yaml", "app/*": "app.yaml"}}
    (lake / "both.yaml").write_text(yaml.safe_dump(both))
    monkeypatch.setenv("MEANDER_SOURCE", str(lake / "both.yaml"))
    # In another order: two files that are equal would be refused.
    land(DAY, [act("robot", "10:00"), act("robot", "11:00")], "web/a.jsonl")
    land(DAY, [act("robot", "11:00"), act("robot", "10:00")], "app/a.jsonl")
    bound(3)
    events, quarantine = run()
    # The two at ten, and that of the first source by name.
    assert kept(spark, events, "event_time", "source") == [("10:00", "app"), ("10:00", "web"), ("11:00", "app")]
    assert kept(spark, quarantine, "reason", "source") == [("too_many_events", "web")]


@pytest.mark.parametrize("repeats", ["drop", "keep"])
def test_files_and_their_order_do_not_matter(spark, lake, land, bound, monkeypatch, repeats):
    source = {
        **{"name": "mine", "description": "identical rows are as the parameter says", "format": "jsonl"},
        **{"user_id": "user_id", "item_id": "item_id", "repeats": repeats},
        "time": {"column": "event_time", "format": "iso8601"},
        "behavior": {"column": "behavior", "values": {"view": "view", "cart": "cart"}},
    }
    (lake / "mine.yaml").write_text(yaml.safe_dump(source))
    monkeypatch.setenv("MEANDER_SOURCE", str(lake / "mine.yaml"))
    draw = random.Random(8)
    # Many of one instant, as where a log has no more than the day, and some of them equal.
    clocks, behaviors = ["00:00", "00:00", "12:00"], ["view", "cart"]
    rows = [
        act(user, draw.choice(clocks), f"i{draw.randrange(40)}", behavior=draw.choice(behaviors))
        for user in ["robot"] * 120 + ["crawler"] * 60 + ["ann"] * 5
    ]
    bound(20)
    found = []
    for files in (1, 3):
        draw.shuffle(rows)
        for n in range(files):
            land(DAY, rows[n::files], f"{n}.jsonl")
        events, quarantine = run()
        raw = Counter(raw for (raw,) in kept(spark, quarantine, "raw"))
        found.append((kept(spark, events, "event_id", "user_id", "copies"), raw))
    assert found[0] == found[1]
    events, raw = found[0]
    assert Counter(user for _, user, _ in events) == {"robot": 20, "crawler": 20, "ann": 5}
    assert sum(copies for *_, copies in events) + raw.total() == len(rows)
    # Of one instant it is not one behavior that stays.
    stayed = Counter(json.dumps(row) for row in rows) - raw
    assert {json.loads(row)["behavior"] for row in stayed if "robot" in row} == {"view", "cart"}
    first = {json.loads(row)["event_time"] for row in stayed if "robot" in row}
    assert first == {f"{DAY}T00:00:00Z"}


def test_equal_rows_that_are_several_events_count_each_also_where_they_have_no_place(spark, lake, bound, monkeypatch):
    source = {
        **{"name": "mine", "description": "each row is an event", "format": "parquet", "repeats": "keep"},
        **{"user_id": "user_id", "item_id": "item_id", "behavior": {"constant": "view"}},
        "time": {"column": "event_time", "format": "iso8601"},
    }
    (lake / "mine.yaml").write_text(yaml.safe_dump(source))
    monkeypatch.setenv("MEANDER_SOURCE", str(lake / "mine.yaml"))
    # Rows of Parquet have no number in their file, by which equal ones would differ.
    file = lake / "landing" / f"dt={DAY}" / "a.parquet"
    file.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist([act("robot", "10:00")] * 5), file)
    bound(3)
    events, quarantine = run()
    assert (events.rows, kept(spark, quarantine, "reason")) == (3, [("too_many_events",)] * 2)


def test_landing_days_are_counted_each_for_itself_in_any_order(spark, land, bound):
    land(DAY, [act("robot", f"10:0{n}") for n in range(4)])
    land(NEXT_DAY, [act("robot", f"09:0{n}") for n in range(4)] + [act("robot", "11:00", day=NEXT_DAY)])
    bound(2)
    columns = ("landed", "event_time", "event_id")
    together = run(DAY, NEXT_DAY)
    alone = [run(NEXT_DAY), run(DAY)]
    events = kept(spark, together[0], *columns)
    assert [time for _, time, _ in events] == ["10:00", "10:01", "09:00", "09:01", "11:00"]
    assert events == sorted(row for one in alone for row in kept(spark, one[0], *columns))
    rejected = kept(spark, together[1], "dt", "raw")
    assert len(rejected) == 4
    assert rejected == sorted(row for one in alone for row in kept(spark, one[1], "dt", "raw"))


def test_rows_of_forgotten_users_are_forgotten_and_not_too_many(land, bound):
    land(DAY, [act(user, f"10:0{n}") for user in ("ann", "bob") for n in range(4)])
    list_users(["ann"])
    bound(3)
    assert run()[0].counts["by_day"][DAY] == {
        "input": 8,
        "accepted": 3,
        "ignored": 0,
        "rejected": {"too_many_events": 1},
        "forgotten": 4,
    }


def test_with_pseudonyms_the_same_events_stay_and_no_row_is_told_as_it_is(spark, land, bound, monkeypatch):
    land(DAY, [act("ann@example.org", "10:00", f"i{n}") for n in range(6)])
    bound(2)
    plain, _ = run()
    monkeypatch.setenv("MEANDER_PSEUDONYM_KEY", bytes(range(7, 39)).hex())
    events, quarantine = run()
    assert kept(spark, events, "item_id") == kept(spark, plain, "item_id")
    rejected = [json.loads(raw) for (raw,) in kept(spark, quarantine, "raw")]
    assert len(rejected) == 4
    assert "ann" not in str(rejected)
    assert {row["user_id"] for row in rejected} == {user for (user,) in kept(spark, events, "user_id")}


def test_the_audit_tells_the_reason_and_what_to_look_at(spark, land, bound):
    land(DAY, [act("robot", f"10:{n:02}") for n in range(30)])
    bound(10)
    _, quarantine = run()
    said = reasons(quarantine.read(spark), quarantine)["rejected_share"]
    assert said.startswith(f"of 30 rows 20 too_many_events, such as {DAY}/part-0.jsonl line 11 (")
    assert "MEANDER_MAX_EVENTS_PER_USER_DAY" in said
