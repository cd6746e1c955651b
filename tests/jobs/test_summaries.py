"""Interests from summaries: the rows of a naive reading of all events, whatever has happened to the landing days.

The blocks are of two and four days here, and the history of nine, so that ten days have all edges.
"""

import random
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace

import hypothesis
import pytest
from deltalake import DeltaTable

from jobs import interests
from jobs.summaries import Source, on_time_of_days
from lake import storage
from lake.blocks import Block
from lake.days import ONE_DAY, days_between
from lake.kinds import KEPT_EVENT, ON_TIME, SUMS
from lake.places import summaries_folder, table_path
from lake.privacy.forget import Places, forget
from lake.rules import WEIGHTS
from lake.settings import settings
from lake.summaries import Key, Landings, Summaries, key_of
from lake.table import DataFile, Table
from tests.jobs import naive
from tests.jobs.tables import publish_rows, staged_rows

pytestmark = pytest.mark.spark

# One in each `make test`, and 20 in each round of `make torture`.
ROUNDS = hypothesis.settings().max_examples // 25
FIRST = date(2025, 1, 1)
DAYS = [FIRST + timedelta(days=n) for n in range(10)]
USERS, CATEGORIES = ["u1", "u2", "u3"], ["a", "b", None]
SPANS = {"LOOKBACK_DAYS": 2, "HISTORY_DAYS": 9, "HALF_LIFE_DAYS": 2, "SEQUENCE_LENGTH": 5}


@pytest.fixture
def shop(lake, spark, monkeypatch):
    """Return a shop on a lake of its own, under spans of a few days."""
    monkeypatch.setattr(interests, "BLOCK_DAYS", (2, 4))
    monkeypatch.setattr(interests, "LARGEST", 4)
    for name, value in SPANS.items():
        monkeypatch.setenv(f"MEANDER_{name}", str(value))
    return Shop()


class Shop:
    """What each landing day holds, and what a run reads of it."""

    def __init__(self):
        self.landing = {}
        self.number = 0

    def deliver(self, day, rows):
        """Publish the events of a landing day, in place of those that it had."""
        self.landing[day] = [{**row, "landed": day} for row in rows]
        publish_rows("events", self.landing[day], day)

    def event(self, day, user="u1", second=0, **more):
        """Make an event of a date."""
        self.number += 1
        when = datetime.combine(day, datetime.min.time(), UTC) + timedelta(seconds=second)
        return naive.event(f"e{self.number:04}", user, when, **more)

    def log(self):
        return [row for rows in self.landing.values() for row in rows]

    def wrong(self, first, last=None, *flags):
        """Return in what the states of a run differ from those of a naive reading."""
        self.number += 1
        last = last or first
        args = ["--from", str(first), "--to", str(last), "--run-id", f"run {self.number}", *flags]
        rows = staged_rows(interests.main(args))
        late = "--include-late" in flags
        return naive.differences(
            rows, naive.states(self.log(), days_between(first, last), settings(), include_late=late)
        )


@pytest.fixture
def events_read(monkeypatch):
    """Collect the files of events that runs read, as (date, landing day)."""
    found, plain = [], Table.read_files

    def noted(table, spark, files):
        files = list(files)
        found.extend((file.partition["dt"], file.partition["landed"]) for file in files)
        return plain(table, spark, files)

    monkeypatch.setattr(Table, "read_files", noted)
    return found


def states_of(shop, day):
    """Return the states of a day, as a run stages them."""
    shop.number += 1
    return staged_rows(interests.main(["--day", str(day), "--run-id", f"run {shop.number}"]))


# ---- any order ----


def some_events(shop, draw, day, count):
    """Draw events that land on a day: of its date, late or early ones, and ones that have landed on other days too."""
    rows = []
    for _ in range(count):
        known = [row for row in shop.log() if row["dt"] <= day + ONE_DAY and row["landed"] != day]
        if known and draw.random() < 0.25:
            rows.append(draw.choice(known))
            continue
        # One in seven is of the date after, as in a folder of a shop's own day that ends after midnight UTC.
        happened = day - timedelta(days=draw.choice([0, 0, 0, 1, 2, 5, -1]))
        behavior, price = draw.choice(list(naive.WEIGHTS)), draw.choice([None, Decimal(draw.randint(0, 999)) / 4])
        more = {"item": draw.choice(["i1", "i2", None]), "category": draw.choice(CATEGORIES), "price": price}
        rows.append(shop.event(happened, draw.choice(USERS), draw.choice([0, 7, 86_399]), behavior=behavior, **more))
    return list({row["event_id"]: row for row in rows}.values())


def changed(shop, draw, day):
    """Draw what a day is delivered with: for the first time, with other events, with fewer, or empty."""
    before, what = shop.landing.get(day), draw.choice(["new", "new", "changed", "changed", "empty"])
    if not before or what == "new":
        return some_events(shop, draw, day, draw.randint(1, 6))
    if what == "empty":
        return []
    kept = {row["event_id"]: row for row in before if draw.random() < 0.5}
    return list((kept | {row["event_id"]: row for row in some_events(shop, draw, day, 2)}).values())


@pytest.mark.torture
@pytest.mark.parametrize("seed", range(ROUNDS))
def test_in_any_order_of_deliveries_the_states_are_those_of_all_events(shop, seed):
    draw = random.Random(seed)
    order = draw.sample(DAYS, len(DAYS)) if seed % 2 else DAYS
    for day in order[:6]:
        shop.deliver(day, changed(shop, draw, day))
    for step in range(6):
        for day in order[6 + step : 7 + step] or draw.choices(DAYS, k=3):
            shop.deliver(day, changed(shop, draw, day))
        if ROUNDS == 1 and step % 2 == 0:
            continue  # a run takes seconds: after every second delivery, and in torture after each
        first = draw.choice(sorted(shop.landing))
        reached = [day for day in sorted(shop.landing) if day >= first]
        together = [day for n, day in enumerate(reached) if day == first + timedelta(days=n)]
        last = draw.choice(together) if draw.random() < 0.4 else first
        flags = ["--include-late"] if draw.random() < 0.25 else []
        assert shop.wrong(first, last, *flags) == {}, f"step {step}: {first} to {last} {flags}"


# ---- by example ----


def test_a_date_that_late_and_timely_events_share_is_one_day(shop):
    day, after = DAYS[0], DAYS[1]
    shop.deliver(day, [shop.event(day, second=1)])
    shop.deliver(after, [shop.event(day, second=2), shop.event(after)])
    shop.deliver(DAYS[2], [])
    shop.deliver(DAYS[3], [])
    shop.deliver(DAYS[4], [shop.event(DAYS[4])])
    shop.deliver(DAYS[5], [shop.event(DAYS[5]), shop.event(DAYS[4], second=1)])
    # The first four days are one block, and the late events are not in it. The last but one is in the lookback.
    assert shop.wrong(DAYS[5]) == {}


def test_a_late_event_that_had_landed_before_counts_once(shop):
    timely, late = shop.event(DAYS[0]), shop.event(DAYS[0], second=5)
    shop.deliver(DAYS[0], [timely])
    shop.deliver(DAYS[1], [timely, late])
    shop.deliver(DAYS[2], [timely, late])
    assert shop.wrong(DAYS[0], DAYS[2]) == {}
    # Without the first delivery, the second one is the first.
    shop.deliver(DAYS[0], [])
    assert shop.wrong(DAYS[0], DAYS[2]) == {}


def test_an_event_that_lands_before_its_date_counts_from_its_date_on_and_once(shop):
    early, other = shop.event(DAYS[1], second=5), shop.event(DAYS[1], second=6)
    shop.deliver(DAYS[0], [shop.event(DAYS[0]), early, other])
    # Of the last five events as of the first day, none is of the day after, though these are newer.
    assert [row["frequency"] for row in states_of(shop, DAYS[0])] == [1]
    # One of them comes again on its date, and both once more after it.
    shop.deliver(DAYS[1], [early, shop.event(DAYS[1], second=60)])
    shop.deliver(DAYS[2], [early, other])
    assert [row["frequency"] for row in states_of(shop, DAYS[1])] == [4]
    assert [row["frequency"] for row in states_of(shop, DAYS[2])] == [3], "a lookback of two days"
    assert shop.wrong(DAYS[0], DAYS[2]) == {}
    # The summaries that were made from the folder of the day before are none of this one.
    shop.deliver(DAYS[0], [])
    assert [row["frequency"] for row in states_of(shop, DAYS[1])] == [2]
    assert shop.wrong(DAYS[0], DAYS[2]) == {}


def test_the_last_events_as_of_the_end_of_a_block_are_none_of_the_day_after(shop):
    for day in DAYS[:4]:
        # The five newest events of all but the last day land on the day before.
        shop.deliver(day, [shop.event(day, second=9), *(shop.event(day + ONE_DAY, second=n) for n in range(6))])
        assert shop.wrong(day) == {}, day


def test_a_day_costs_what_has_landed_on_it_and_a_repair_the_repaired_day(shop, events_read):
    for day in DAYS[:8]:
        shop.deliver(day, [shop.event(day, user) for user in USERS])
    assert shop.wrong(DAYS[7]) == {}
    assert {landed for _, landed in events_read} == set(DAYS[:8]), "the history, once"
    for number in (8, 9):
        day = DAYS[number]
        # One of them late, by two days.
        shop.deliver(day, [shop.event(day), shop.event(day - timedelta(days=2))])
        events_read.clear()
        assert shop.wrong(day) == {}
        # Its own; the one in which the late event is looked for; and, for the last events, those since the last block.
        assert {landed for _, landed in events_read} == {day, day - timedelta(days=2), *DAYS[8:number]}
    shop.deliver(DAYS[8], [shop.event(DAYS[8], "u1", behavior="purchase", price=Decimal(3))])
    events_read.clear()
    assert shop.wrong(DAYS[9]) == {}
    # That of 9 January is repaired; the last events of 8 January were kept, and all since are read.
    assert {landed for _, landed in events_read} == {DAYS[8], DAYS[9]}


def test_a_chunk_of_days_after_another_one_sums_up_what_has_landed_since(shop, caplog):
    caplog.set_level("INFO", "jobs.summaries")
    for day in DAYS[:8]:
        shop.deliver(day, [shop.event(day, user) for user in USERS])
    assert shop.wrong(DAYS[0], DAYS[3]) == {}
    assert shop.wrong(DAYS[4], DAYS[7]) == {}
    summed = [record.args for record in caplog.records if record.msg.startswith("summing up")]
    assert summed == [(4, "on_time", DAYS[0], DAYS[3]), (4, "on_time", DAYS[4], DAYS[7])]


def test_rows_that_another_tool_has_deleted_are_in_no_state(shop):
    for day in DAYS[:4]:
        shop.deliver(day, [shop.event(day, "u1"), shop.event(day, "u2")])
    assert shop.wrong(DAYS[3]) == {}
    DeltaTable(table_path("events")).delete("user_id = 'u2'")
    for day, rows in shop.landing.items():
        shop.landing[day] = [row for row in rows if row["user_id"] != "u2"]
    assert shop.wrong(DAYS[3]) == {}


# ---- what is kept ----


def file(path, day=FIRST, landed=FIRST):
    return DataFile(path, 1, 1, {"dt": day, "landed": landed}, {})


def test_a_key_names_the_files_in_any_order_and_the_rules():
    assert key_of([file("a"), file("b")], 1) == key_of([file("b"), file("a")], 1)
    others = [key_of([file("a")], 1), key_of([file("a"), file("c")], 1), key_of([file("a"), file("b")], 2)]
    # The text alone is in the name of a summary.
    assert len({key.text for key in (key_of([file("a"), file("b")], 1), *others)}) == 4


def test_late_files_are_those_of_an_earlier_date_and_are_looked_for_in_the_timely_ones_of_it():
    timely, late, other = file("a"), file("b", landed=DAYS[1]), file("c", DAYS[1], DAYS[1])
    early = file("d", DAYS[2], DAYS[1])
    landings = Landings(SimpleNamespace(files=[timely, late, other, early]))
    assert landings.on_time_of([FIRST]) == [timely]
    assert landings.on_time_of(DAYS) == [timely, other, early]
    assert landings.late_on(DAYS) == [late]
    assert landings.first_seen([late]) == [timely]
    assert landings.first_seen([file("e", DAYS[2], DAYS[3])]) == [early]
    assert landings.known_since([DAYS[1]]) == [other, late]
    assert landings.known_since([DAYS[2]]) == [early]
    assert landings.newest == DAYS[2]
    assert landings.dates_of_two(DAYS) == set(), "each date on time has landed on one day"
    again = Landings(SimpleNamespace(files=[file("a", DAYS[2], DAYS[2]), early, late]))
    assert again.dates_of_two(DAYS) == {DAYS[2]}


def test_a_summary_that_is_written_after_users_were_forgotten_is_gone_again(shop, spark):
    for user in ("u1", "u2"):
        day = DAYS[int(user[1])]
        shop.deliver(day, [shop.event(day, user)])
    pinned = Table("events")
    landings, folder = Landings(pinned), Path(summaries_folder(ON_TIME.name))
    keys = ON_TIME.keys(landings, [Block(day, day) for day in DAYS[1:3]], WEIGHTS)
    # What a run has computed before they were forgotten.
    rows = on_time_of_days(Source(spark, pinned, landings, (), WEIGHTS), DAYS[1:3]).collect()
    forget(["u2"], Places(settings().docs_folder, [], [], timedelta(days=7)))
    with pytest.raises(FileNotFoundError, match=r"forgotten while .*on_time was written: run this job again"):
        Summaries.of(ON_TIME.name, SUMS).keep(spark.createDataFrame(rows, SUMS), keys, pinned)
    assert [name.name[:10] for name in folder.glob("*.json")] == [str(DAYS[1])], "that of others stays"
    assert [name.parent.name for name in folder.rglob("*.parquet")] == [f"first={DAYS[1]}"]


def test_a_summary_exists_only_when_its_files_are_written_and_may_be_empty(shop, spark):
    shop.deliver(FIRST, [shop.event(FIRST)])
    block, kept, key = Block(FIRST, FIRST), Summaries.of("late", KEPT_EVENT), Key("k", ("a",))
    assert not kept.has(block, key)
    kept = kept.keep(spark.createDataFrame([], KEPT_EVENT), {block: key}, Table("events"))
    assert kept.has(block, key)
    assert not kept.has(block, Key("other", ("a",)))
    assert kept.read(spark, [(block, key)]).collect() == []
    storage.remove(storage.join(summaries_folder("late"), f"{FIRST}_{FIRST}_k.json"))
    with pytest.raises(FileNotFoundError, match=r"2025-01-01_2025-01-01_k.json was removed .* run this job again"):
        kept.read(spark, [(block, key)])
