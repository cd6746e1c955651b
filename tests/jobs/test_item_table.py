"""Categories from a table of items: as of each landing day, one for each item, and no row lost or doubled."""

import gzip
import os
import random
import re
from datetime import date, timedelta
from importlib import resources
from pathlib import Path

import pytest
import yaml

from jobs import ingest
from jobs.drift import require_same_types
from jobs.item_table import files_of, place_of, version_of
from jobs.preview import preview, read_from
from jobs.source import load_source
from lake.errors import (
    LandingChanged,
    LandingMissing,
    LandingUnreadable,
    MeanderError,
    NotStaged,
    SourceInvalid,
    SourceMismatch,
)
from lake.landing import Landing, now
from lake.publish import publish
from lake.settings import settings
from lake.staging import read_staged
from lake.table import Table
from tests.lake.stagings import audit

DOCUMENT = Path(__file__).parents[2] / "docs" / "sources.md"
DAY, NEXT = date(2025, 3, 1), date(2025, 3, 2)
SOURCE = {
    "name": "mine",
    "description": "a log beside a table of products",
    "format": "csv",
    "user_id": "user",
    "item_id": "item",
    "time": {"column": "time", "format": "iso8601"},
    "behavior": {"constant": "view"},
    "items": {"item_id": "id", "category_id": "kind"},
}
CHANGES = {
    "folder": "properties",
    "delimiter": ";",
    "item_id": "itemid",
    "category_id": "value",
    "changed": {"column": "timestamp", "format": "epoch_s"},
    "where": "property = 'categoryid'",
}


@pytest.fixture
def shop(lake, monkeypatch):
    """Write files below the landing, and the source with other keys."""
    monkeypatch.setenv("MEANDER_SOURCE", str(lake / "mine.yaml"))

    def write(files, **changes):
        for name, text in files.items():
            file = lake / "landing" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        content = {key: value for key, value in {**SOURCE, **changes}.items() if value is not None}
        (lake / "mine.yaml").write_text(yaml.safe_dump(content))
        return load_source(str(lake / "mine.yaml"))

    return write


def log(day, *items):
    return "user,time,item\n" + "".join(f"u{n},{day}T0{n}:00:00Z,{item}\n" for n, item in enumerate(items))


def categories_of(first, last=None):
    """Load days and return item and category of each event, and what was counted."""
    events, quarantine = ingest.main(["--from", str(first), "--to", str(last or first), "--run-id", "r"])
    audit(events)
    publish("events", "r")
    rows = Table("events").query("select cast(landed as varchar) as day, item_id, category_id from events").to_pylist()
    return sorted((tuple(row.values()) for row in rows), key=str), events.counts, quarantine


@pytest.mark.spark
def test_an_event_gets_the_category_that_its_item_had_on_the_day_on_which_it_arrived(spark, shop):
    shop(
        {
            f"dt={DAY}/a.csv": log(DAY, "i1", "i2", "i9", "i1") + "u5,broken,i1\n",
            f"dt={NEXT}/a.csv": log(NEXT, "i1", "i2", "i3"),
            # 100.0 is the id 100 here as in the log. The table of a day long before holds until the next one.
            "items/dt=2024-12-01/a.csv": "id,kind\ni1,old\ni2,old\n100.0,n\n",
            f"items/dt={NEXT}/a.csv": "id,kind\ni1,new\ni3,\n,x\nNULL,y\n",
            f"items/dt={NEXT}/_SUCCESS": "",
            "items/dt=2025-03-03/a.csv": "id,kind\ni1,later\n",
        }
    )
    found, counts, quarantine = categories_of(DAY, NEXT)
    assert found == [
        ("2025-03-01", "i1", "old"),
        ("2025-03-01", "i1", "old"),
        ("2025-03-01", "i2", "old"),
        ("2025-03-01", "i9", None),
        ("2025-03-02", "i1", "new"),
        ("2025-03-02", "i2", None),
        ("2025-03-02", "i3", None),
    ]
    assert (counts["input"], counts["accepted"], quarantine.rows) == (8, 7, 1)
    # It is counted as filled, so that the audit notices a table that is empty.
    assert {day: each["category_id"] for day, each in counts["filled"].items()} == {"2025-03-01": 3, "2025-03-02": 1}


@pytest.mark.spark
def test_of_the_changes_of_an_item_the_latest_that_was_known_counts(spark, shop, monkeypatch):
    """A table in the long form: a row for each change of a property."""
    # No change is too old, as an event may be.
    monkeypatch.setenv("MEANDER_MAX_DAYS_LATE", "1")
    table = (
        "timestamp;itemid;property;value\n"
        "1740700800;i1;categoryid;a\n"  # 28 February
        "1740873600;i1;categoryid;c\n"  # 2 March 00:00, after the first day
        "1740787200;i1;categoryid;b\n"  # 1 March, in any order
        "1740787300;i1;available;0\n"
        "-86400;i2;categoryid;z\n"  # before 1970: an item may be older than any event
        "1740787200;i3;available;1\n"
    )
    table += (
        "1740700800;i4;categoryid;x\n1740700800;i4;categoryid;y\n1740787200;i4;categoryid;d\n"  # two, but long ago
        "1740700800;i5;categoryid;e\n1740787200;i5;categoryid;\n"  # taken out of its category
        "1740700800;;available;1\n"  # of no item
        "1743465600;i1;categoryid;later\n"  # 1 April
    )
    items = ("i1", "i2", "i3", "i4", "i5")
    files = {f"dt={DAY}/a.csv": log(DAY, *items), f"dt={NEXT}/a.csv": log(NEXT, *items)}
    # One file with the changes of months, in the folder of its first day. `no` is a word for null here.
    shop({**files, f"properties/dt={DAY}/p.csv": table}, items=CHANGES, nulls=["no"])
    found, _, _ = categories_of(DAY, NEXT)
    assert found == [
        ("2025-03-01", "i1", "b"),
        ("2025-03-01", "i2", "z"),
        ("2025-03-01", "i3", None),
        ("2025-03-01", "i4", "d"),
        ("2025-03-01", "i5", None),
        ("2025-03-02", "i1", "c"),
        ("2025-03-02", "i2", "z"),
        ("2025-03-02", "i3", None),
        ("2025-03-02", "i4", "d"),
        ("2025-03-02", "i5", None),
    ]
    # Of two at the last instant nobody knows which one counts.
    shop({f"properties/dt={DAY}/p.csv": table + "1740787200;i4;categoryid;f\n"}, items=CHANGES, nulls=["no"])
    with pytest.raises(
        SourceMismatch, match=r"has 1 items with more than one category or price\. They have them since the same"
    ):
        categories_of(DAY, NEXT)


@pytest.mark.spark
def test_a_change_is_known_until_the_end_of_the_folders_day_in_its_zone(spark, shop):
    # 2 March 04:00 UTC is 23:00 of 1 March in New York, and 05:00 is midnight.
    table = "timestamp;itemid;property;value\n1740700800;i1;categoryid;a\n1740888000;i1;categoryid;b\n"
    table += "1740891600;i1;categoryid;c\n"
    files = {f"dt={DAY}/a.csv": log(DAY, "i1"), f"properties/dt={DAY}/p.csv": table}
    for zone, category in (("UTC", "a"), ("America/New_York", "b"), ("America/Chicago", "c")):
        shop(files, items=CHANGES, folder_zone=zone)
        assert categories_of(DAY, DAY)[0] == [("2025-03-01", "i1", category)], zone


@pytest.mark.spark
def test_a_category_of_the_log_itself_comes_first(spark, shop):
    day = f"user,time,item,category\nu1,{DAY}T01:00:00Z,i1,own\nu2,{DAY}T01:00:00Z,i1,\n"
    shop({f"dt={DAY}/a.csv": day, f"items/dt={DAY}/a.csv": "id,kind\ni1,table\n"}, category_id="category")
    assert categories_of(DAY)[0] == [("2025-03-01", "i1", "own"), ("2025-03-01", "i1", "table")]


@pytest.mark.spark
def test_a_row_without_a_price_gets_that_of_its_item_on_the_day_on_which_it_arrived(spark, shop):
    shop(
        {
            f"dt={DAY}/a.csv": "user,time,item,paid\n"
            + "".join(
                f"u{n},{DAY}T00:00:00Z,{item},{paid}\n"
                for n, (item, paid) in enumerate((("i1", '"3,50"'), ("i1", ""), ("i2", ""), ("i3", "")))
            ),
            f"dt={NEXT}/a.csv": f"user,time,item,paid\nu1,{NEXT}T00:00:00Z,i1,\n",
            f"items/dt={DAY}/a.csv": "id;kind;list\ni1;a;9.99\ni2;b;\n",
            f"items/dt={NEXT}/a.csv": "id;kind;list\ni1;a;8\n",
        },
        price="paid",
        amounts={"decimal": ","},
        items={
            **SOURCE["items"],
            **{"delimiter": ";", "price": "list", "amounts": {"decimal": "."}},
        },
    )
    ingest.main(["--from", str(DAY), "--to", str(NEXT), "--run-id", "p"])
    rows = read_staged("events", "p").read(spark).select("landed", "user_id", "item_id", "price").collect()
    assert sorted((str(day), user, item, price and float(price)) for day, user, item, price in rows) == [
        ("2025-03-01", "u0", "i1", 3.5),
        ("2025-03-01", "u1", "i1", 9.99),
        ("2025-03-01", "u2", "i2", None),
        ("2025-03-01", "u3", "i3", None),
        ("2025-03-02", "u1", "i1", 8.0),
    ]
    assert [each["price"] for each in read_staged("events", "p").counts["filled"].values()] == [2, 1]


@pytest.mark.spark
def test_an_item_with_two_prices_is_refused_and_so_is_a_price_that_is_none(spark, shop):
    items = {**SOURCE["items"], "price": "list"}
    shop(
        {f"dt={DAY}/a.csv": log(DAY, "i1"), f"items/dt={DAY}/a.csv": "id,kind,list\ni1,a,1\ni1,a,2\ni1,a,2\n"},
        items=items,
    )
    with pytest.raises(SourceMismatch, match=r"has 1 items with more than one category or price.*`items\.changed`"):
        categories_of(DAY)
    shop({f"items/dt={DAY}/a.csv": "id,kind,list\ni1,a,cheap\n"}, items=items)
    with pytest.raises(SourceMismatch, match="has rows that cannot be read: 1 invalid_price"):
        categories_of(DAY)


@pytest.mark.spark
def test_a_row_without_a_value_does_not_make_two_values_of_an_item(spark, shop):
    items = {**SOURCE["items"], "price": "list"}
    shop(
        {f"dt={DAY}/a.csv": log(DAY, "i1", "i2"), f"items/dt={DAY}/a.csv": "id,kind,list\ni1,a,\ni1,,3\ni2,,\ni2,,\n"},
        items=items,
    )
    assert categories_of(DAY)[0] == [("2025-03-01", "i1", "a"), ("2025-03-01", "i2", None)]
    # Two prices of an item are two, also beside one without any category.
    shop({f"items/dt={DAY}/a.csv": "id,kind,list\ni1,,1\ni1,,\ni1,,2\ni2,b,\n"}, items=items)
    with pytest.raises(SourceMismatch, match="has 1 items with more than one category or price"):
        categories_of(DAY)


# What Retailrocket's item_properties files hold, of two items: hashed properties, prices, categories, availability.
PROPERTIES = """\
timestamp,itemid,property,value
1430622000000,100,categoryid,1338
1430622000000,100,888,1116713 960601 n277.200
1430622000000,101,790,n91200.000
1430622000000,101,categoryid,209
1431226800000,100,categoryid,1114
1431831600000,100,categoryid,7
"""


@pytest.mark.spark
def test_the_properties_of_retailrocket_are_the_item_table_of_its_events(spark, lake, monkeypatch):
    """By the shipped source and the lines of the documents alone."""
    blocks = re.findall(r"```yaml\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    (items,) = (block for block in blocks if "folder: properties" in block)
    shipped = (resources.files("jobs") / "sources" / "retailrocket.yaml").read_text(encoding="utf-8")
    (lake / "mine.yaml").write_text(shipped + items)
    monkeypatch.setenv("MEANDER_SOURCE", str(lake / "mine.yaml"))
    # 3 and 10 May 2015 are the days of the first changes, 17 May that of the last.
    for name, text in {
        "dt=2015-05-12/events.csv": "timestamp,visitorid,event,itemid,transactionid\n"
        "1431388800000,1,view,100,\n1431388801000,1,transaction,101,5\n1431388802000,2,view,102,\n",
        "properties/dt=2015-05-03/item_properties_part1.csv": PROPERTIES,
    }.items():
        file = lake / "landing" / name
        file.parent.mkdir(parents=True)
        file.write_text(text)
    found, counts, _ = categories_of("2015-05-12")
    assert found == [("2015-05-12", "100", "1114"), ("2015-05-12", "101", "209"), ("2015-05-12", "102", None)]
    assert counts["accepted"] == 3


@pytest.mark.spark
def test_an_item_with_two_categories_is_refused_unless_something_says_which_is_newer(spark, shop):
    shop({f"dt={DAY}/a.csv": log(DAY, "i1"), f"items/dt={DAY}/a.csv": "id,kind\ni1,a\ni1,b\ni2,c\ni2,c\n"})
    with pytest.raises(SourceMismatch, match=r"has 1 items with more than one category.*`items\.changed`"):
        categories_of(DAY)
    # The same row twice is one.
    shop({f"items/dt={DAY}/a.csv": "id,kind\ni1,a\ni1,a\n"})
    assert categories_of(DAY)[0] == [("2025-03-01", "i1", "a")]


@pytest.mark.spark
def test_the_doctor_shows_categories_of_the_table(spark, shop):
    source = shop({f"dt={DAY}/a.csv": log(DAY, "i1", "i2"), f"items/dt={DAY}/a.csv": "id,kind\ni1,a\n"})
    found = preview(spark, source, Landing.of(settings()), [DAY], settings())
    field = {each.name: each for each in found.fields}["category_id"]
    assert (field.read_from, field.filled) == ("items/ by item", 0.5)


@pytest.mark.spark
def test_a_table_that_is_cut_off_is_named(spark, shop, lake):
    """Its columns are at the beginning, so only Spark comes to its end."""
    shop({f"dt={DAY}/a.csv": log(DAY, "i1")})
    whole = gzip.compress("".join(f"i{n},{random.Random(n).random()}\n" for n in range(100_000)).encode())
    file = lake / "landing" / "items" / f"dt={DAY}" / "a.csv.gz"
    file.parent.mkdir(parents=True)
    file.write_bytes(gzip.compress(b"id,kind\n") + whole[: len(whole) // 2])
    persisted = spark.sparkContext._jsc.getPersistentRDDs
    before = set(persisted())  # what other tests of this session have left
    with pytest.raises(LandingUnreadable, match=r"items/dt=2025-03-01/a\.csv\.gz: expected a readable file, found"):
        categories_of(DAY)
    assert not set(persisted()) - before, "what was persisted is released"


@pytest.mark.spark
def test_a_table_that_changes_while_it_is_read_leaves_nothing_that_could_be_published(spark, shop, lake, monkeypatch):
    shop({f"dt={DAY}/a.csv": log(DAY, "i1"), f"items/dt={DAY}/a.csv": "id,kind\ni1,old\n"})
    write_rows = ingest.write_rows

    def write(rows, table, *more, **named):
        (lake / "landing" / "items" / f"dt={DAY}" / "b.csv").write_text("id,kind\ni2,new\n")
        return write_rows(rows, table, *more, **named)

    monkeypatch.setattr(ingest, "write_rows", write)
    with pytest.raises(LandingChanged, match=r"changed while it was read, .* came later: 1 \(b\.csv\)"):
        ingest.main(["--day", str(DAY), "--run-id", "r"])
    with pytest.raises(NotStaged):
        read_staged("events", "r")


def led_to_the_table_of_another_shop(folder: Path) -> None:
    """Put a link in the place of `items`."""
    elsewhere = folder.parents[2] / "another shop"
    folder.parent.rename(elsewhere)
    (elsewhere / folder.name / "a.csv").write_text("id,kind\ni1,secret\n")
    folder.parent.symlink_to(elsewhere)


@pytest.mark.parametrize(
    ("prepare", "says"),
    [
        pytest.param(lambda _: None, r"items/dt=2025-03-01: .* has no file with a byte", id="an empty folder"),
        pytest.param(lambda folder: (folder / "a.csv").touch(), r"has no file with a byte", id="an empty file"),
        pytest.param(
            lambda folder: os.mkfifo(folder / "a.csv"), r"expected a file, .* found something else", id="a pipe"
        ),
        pytest.param(
            lambda folder: (folder / "a.csv").symlink_to("/etc/hosts"),
            r"found a link that leads out of it",
            id="a link",
        ),
        pytest.param(
            led_to_the_table_of_another_shop,
            r"landing/items: expected a folder, .* found a link that leads out of it",
            id="a link in the place of all tables",
        ),
        pytest.param(lambda folder: (folder / "a:b.csv").write_text("id\n"), r"a name without `:`", id="a name"),
    ],
)
def test_a_table_is_checked_as_a_day_of_the_log_is(shop, lake, prepare, says):
    source = shop({})
    folder = lake / "landing" / "items" / f"dt={DAY}"
    folder.mkdir(parents=True)
    prepare(folder)
    with pytest.raises(MeanderError, match=says):
        files_of(place_of(source, Landing(str(lake / "landing"))), DAY, source)


def test_a_table_is_complete_by_the_same_sign_as_a_day(shop, lake):
    today = now().date()
    source = shop({f"items/dt={today}/a.csv": "id,kind\n"})
    for landing in (
        Landing(str(lake / "landing"), quiet=timedelta(hours=1)),
        Landing(str(lake / "landing"), marker="_SUCCESS"),
    ):
        with pytest.raises(LandingMissing, match=f"{today} has not landed: .*items"):
            files_of(place_of(source, landing), today, source)
    (lake / "landing" / "items" / f"dt={today}" / "_SUCCESS").touch()
    assert len(files_of(place_of(source, landing), today, source)) == 1


def test_an_object_of_an_item_may_lack_its_category(shop):
    items = {"item_id": "id", "category_id": ["kind", "id"], "format": "jsonl"}
    source = shop({}, items=items)
    assert source.items.as_source(source).may_lack == ["kind"]
    with_header = shop({}, items={**items, "format": "csv"})
    assert with_header.items.as_source(with_header).may_lack == []


def test_a_category_of_the_table_may_vanish(shop):
    source = shop({}, may_vanish=["category_id"], versions=[{"from": NEXT, "delimiter": ";"}])
    assert [version.source.may_vanish for version in source.versions] == [["category_id"]]
    # Of no column of the log, so nothing is missing in it.
    require_same_types(source, {"user": "string"}, (DAY, {"user": "string", "price": "double"}))


def test_the_table_of_a_day_is_the_newest_that_was_there(shop, lake):
    source = shop({f"items/dt={day}/a.csv": "id,kind\n" for day in (DAY, NEXT)})
    place = Landing(str(lake / "landing" / "items"))
    assert version_of(place, DAY, source) == DAY
    assert version_of(place, date(2026, 1, 1), source) == NEXT
    with pytest.raises(SourceMismatch, match=r"there is no table as of 2025-02-28 in .*items; put its files into"):
        version_of(place, date(2025, 2, 28), source)


@pytest.mark.parametrize(
    ("items", "says"),
    [
        ({"item_id": "id"}, r"items\.category_id: Field required"),
        ({"item_id": "id", "category_id": "kind", "query": "p"}, r"items\.query: Extra inputs are not permitted"),
        ({"item_id": "id", "category_id": "kind", "folder": "dt=items"}, r"items\.folder: String should match pattern"),
        ({"item_id": "id", "category_id": "kind", "folder": "../x"}, r"items\.folder: String should match pattern"),
        ({"item_id": "id", "category_id": "kind", "where": "cast(a as int) = 1"}, r"items: .*write try_cast"),
        ({"item_id": "id", "category_id": "kind", "header": False}, r"items: .*lists its `columns` in file order"),
    ],
)
def test_a_table_that_cannot_be_read_is_told_before_a_run(shop, items, says):
    with pytest.raises(SourceInvalid, match=says):
        shop({}, items=items)


def test_a_field_may_be_there_by_a_column_or_by_the_table(shop):
    with_table = shop({})
    assert (with_table.has("category_id"), with_table.has("price"), with_table.has("item_id")) == (True, False, True)
    assert not shop({}, items=None).has("category_id")
    priced = shop({}, items={**SOURCE["items"], "price": "list"})
    assert (priced.has("price"), read_from(priced, "price"), read_from(priced, "query")) == (True, "items/ by item", "")
    assert read_from(shop({}, category_id="c"), "category_id") == "c, items/ by item"


@pytest.mark.spark
def test_which_events_of_a_user_are_too_many_does_not_depend_on_the_table(spark, shop, monkeypatch):
    monkeypatch.setenv("MEANDER_MAX_EVENTS_PER_USER_DAY", "10")
    items = [f"i{n}" for n in range(30)]
    robot = "user,time,item\n" + "".join(f"robot,{DAY}T10:00:00Z,{item}\n" for item in items)
    stayed = []
    for kind in ("a", "b"):
        table = "id,kind\n" + "".join(f"{item},{kind}{item}\n" for item in items)
        # Of one instant, so that a hash decides; and the table is delivered anew in the folder of an earlier day.
        shop({f"dt={DAY}/a.csv": robot, "items/dt=2025-02-01/a.csv": table})
        events, quarantine = ingest.main(["--day", str(DAY), "--run-id", "r"])
        rows = events.read(spark).select("item_id", "category_id").collect()
        assert (len(rows), quarantine.rows) == (10, 20)
        assert all(row.category_id == f"{kind}{row.item_id}" for row in rows)
        stayed.append({row.item_id for row in rows})
    assert stayed[0] == stayed[1]
