"""What `jobs.ingest` writes down of the files that it has read, and which deliveries it does not take."""

import gzip
import io
import json
from datetime import UTC, date, datetime, timedelta
from importlib import resources
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from jobs import ingest
from jobs.drift import columns_of, told
from jobs.landing_files import by_version, check_files
from jobs.source import load_source
from lake import storage
from lake.deliveries import published
from lake.errors import (
    DeliveredTwice,
    DeliveryShrunk,
    LandingChanged,
    LandingMissing,
    LandingUnreadable,
    NotStaged,
    SettingsInvalid,
    SourceMismatch,
)
from lake.landing import Landing
from lake.places import deliveries_file
from lake.publish import publish
from lake.runs import supplied_changes
from lake.settings import settings
from lake.staging import Verdict, read_staged, write_verdict
from lake.table import Table

DAY, NEXT = date(2025, 3, 1), date(2025, 3, 2)


def event(user: str, day: date = DAY) -> dict:
    return {"user_id": user, "event_time": f"{day}T10:00:00Z", "behavior": "view", "item_id": "i"}


def run(run_id: str, *more: str, last: date = DAY) -> list:
    return ingest.main(["--from", str(DAY), "--to", str(last), "--run-id", run_id, *more])


def publish_all(run_id: str) -> None:
    for table in ("quarantine", "events"):
        staged = read_staged(table, run_id)
        write_verdict(Verdict(table, run_id, staged.stage_id, "passed", [], "", 0.0))
        publish(table, run_id)


@pytest.mark.spark
def test_each_file_is_written_down_with_its_rows_whatever_it_is_called(spark, land):
    hard = ["a b%20c.jsonl", "a+b&c=d.jsonl", "häßlich #1 [x].jsonl", "{x}?.jsonl", "dt=2025-03-01/x.jsonl"]
    for n, name in enumerate(hard):
        # The last line of each is rejected, and is an input row too.
        land(DAY, [*(event(f"{n} {i}") for i in range(n + 1)), {**event(""), "price": 1}], name)
    land(DAY, [], "empty.jsonl")
    land(NEXT, [event("u", NEXT)], hard[0])
    events, quarantine = run("r", last=NEXT)
    landing = Landing.of(settings())
    listed = storage.read_json(deliveries_file("r", events.order))
    rows = {name: n + 2 for n, name in enumerate(hard)} | {"empty.jsonl": 0}
    assert listed == {
        str(DAY): {n: [f.bytes, f.stamp, rows[n]] for n, f in landing.delivery(DAY).items()},
        str(NEXT): {n: [f.bytes, f.stamp, 1] for n, f in landing.delivery(NEXT).items()},
    }
    told = events.counts["landing"]
    assert {day: (one["files"], one["rows"]) for day, one in told.items()} == {str(DAY): (6, 20), str(NEXT): (1, 1)}
    assert quarantine.counts["landing"] == told
    # Each accepted row has an item; none has a price. A rejected one has nothing that would count.
    assert events.counts["filled"] == {
        str(day): {"item_id": n, "category_id": 0, "query": 0, "price": 0} for day, n in ((DAY, 15), (NEXT, 1))
    }
    assert (events.counts["source"], events.counts["types"], events.counts["may_vanish"]) == ("canonical", {}, [])
    publish_all("r")
    (commit, *_) = Table("events").commits()
    assert json.loads(commit["counts"])["landing"] == told
    assert published([commit])[DAY].listed.keys() == rows.keys()


EDITS = {
    "came": lambda folder: (folder / "new.jsonl").write_text("{}\n"),
    "grew": lambda folder: (folder / "part-0.jsonl").write_text("{}\n{}\n"),
    "went": lambda folder: (folder / "part-0.jsonl").unlink(),
}


@pytest.mark.spark
@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS.keys())
def test_a_folder_that_changes_before_all_is_read_leaves_nothing_that_could_be_published(
    spark, lake, land, monkeypatch, edit
):
    folder = land(DAY, [event("u")]).parent
    write_rows = ingest.write_rows

    def write(rows, table, *more, **named):
        staged = write_rows(rows, table, *more, **named)
        if table == "quarantine":
            edit(folder)
        return staged

    monkeypatch.setattr(ingest, "write_rows", write)
    with pytest.raises(LandingChanged, match=r"landing of 2025-03-01 changed while it was read, so nothing was staged"):
        run("r")
    for table in ("events", "quarantine"):
        with pytest.raises(NotStaged):
            read_staged(table, "r")


@pytest.mark.spark
def test_a_log_under_two_names_is_refused_and_no_event_of_it_counts_twice(spark, lake, land, monkeypatch):
    shipped = resources.files("jobs") / "sources" / "canonical.yaml"
    (lake / "till.yaml").write_text(yaml.safe_dump({**yaml.safe_load(shipped.read_bytes()), "repeats": "keep"}))
    monkeypatch.setenv("MEANDER_SOURCE", str(lake / "till.yaml"))
    land(DAY, [event("u"), event("v")], "log")
    copy = land(DAY, [event("u"), event("v")], "log.1")
    with pytest.raises(DeliveredTwice, match=r"2025-03-01: log and log\.1 in .*Remove one of them"):
        run("r")
    # As whoever rotates logs does with the one before.
    copy.with_name("log.1.gz").write_bytes(gzip.compress(copy.read_bytes()))
    copy.unlink()
    with pytest.raises(DeliveredTwice, match=r"2025-03-01: log and log\.1\.gz in .* once they are unpacked"):
        run("r")
    with pytest.raises(NotStaged):
        read_staged("events", "r")


@pytest.mark.spark
def test_a_delivery_that_has_lost_rows_is_not_staged_unless_a_person_says_so(spark, land):
    file = land(DAY, [event("u"), event("v"), event("w")])
    run("r")
    publish_all("r")
    land(DAY, [event("u")])
    with pytest.raises(DeliveryShrunk, match=r"2025-03-01 has less than readers see: 3 rows were read, now it has 1"):
        run("again")
    with pytest.raises(NotStaged):
        read_staged("events", "again")
    file.unlink()
    run("emptied", "--allow-shrink")
    publish_all("emptied")
    assert Table("events").rows_by("landed") == {}


def test_a_landing_day_after_today_is_refused(land):
    tomorrow = datetime.now(UTC).date() + timedelta(days=1)
    land(tomorrow, [event("u")])
    with pytest.raises(SettingsInvalid, match=rf"{tomorrow} is after today, .* nothing can have landed on it"):
        ingest.main(["--day", str(tomorrow), "--run-id", "r"])


VERSIONED = """
name: mine
description: a log whose format changed, and that has orders beside it
format: csv
user_id: user
item_id: item
price: price
time: {column: time, format: iso8601}
behavior: {column: what, values: {view: view}}
versions:
  - from: 2025-03-02
    format: jsonl
    user_id: userId
    price: null
  - files: "orders/*"
    delimiter: ";"
    behavior: {constant: purchase}
    amounts: {decimal: ","}
"""


@pytest.mark.spark
def test_a_run_reads_each_file_by_the_version_of_its_source(spark, land, lake, monkeypatch):
    (lake / "mine.yaml").write_text(VERSIONED)
    monkeypatch.setenv("MEANDER_SOURCE", str(lake / "mine.yaml"))
    land(DAY, ["time,user,item,what,price", f"{DAY}T10:00:00Z,a,i1,view,1.5"], "views.csv")
    land(DAY, ["user;item;time;price", f"a;i1;{DAY}T11:00:00Z;1.299,00", f";i1;{DAY}T11:00:00Z;1"], "orders/1.csv")
    land(NEXT, [{"userId": "b", "item": "i2", "time": f"{NEXT}T10:00:00Z", "what": "view"}], "views.jsonl")
    land(NEXT, ["user;item;time;price", f"b;i2;{NEXT}T11:00:00Z;7"], "orders/2.csv")
    events, quarantine = run("r", last=NEXT)
    found = events.read(spark).select("dt", "user_id", "behavior", "item_id", "price", "source").collect()
    assert sorted((str(row[0]), *row[1:4], float(row[4] or 0), row[5]) for row in found) == [
        (str(DAY), "a", "purchase", "i1", 1299.0, "mine"),
        (str(DAY), "a", "view", "i1", 1.5, "mine"),
        (str(NEXT), "b", "purchase", "i2", 7.0, "mine"),
        (str(NEXT), "b", "view", "i2", 0.0, "mine"),
    ]
    (rejected,) = quarantine.read(spark).collect()
    assert (rejected.reason, rejected.line, rejected.file[-len("orders/1.csv") :]) == (
        "missing_user",
        3,
        "orders/1.csv",
    )
    # The views of the second day have no price, but its orders have, so that it may be missed there.
    assert events.counts["filled"] == {
        str(DAY): {"item_id": 2, "price": 2},
        str(NEXT): {"item_id": 2, "price": 1},
    }


WEB = """
name: web
description: the tracker of the site
format: jsonl
user_id: user
item_id: item
time: {column: at, format: iso8601}
behavior: {constant: view}
"""
APP = """
name: app
description: the export of the app
format: csv
delimiter: ";"
user_id: login
item_id: product
time: {column: time, format: iso8601}
behavior: {constant: view}
versions:
  - from: 2025-03-02
    delimiter: "|"
"""
SHOP = """
name: shop
description: the site and the app, each delivered at its own time
sources:
  "web/*": web.yaml
  "app/*": app.yaml
"""


@pytest.fixture
def shop(lake, monkeypatch):
    """Write two sources and the one that consists of them; return what sets which one counts."""
    for name, text in (("web", WEB), ("app", APP), ("shop", SHOP)):
        (lake / f"{name}.yaml").write_text(text)

    def read_by(name: str) -> None:
        monkeypatch.setenv("MEANDER_SOURCE", str(lake / f"{name}.yaml"))

    return read_by


def test_what_one_of_two_exporters_has_changed_is_told_by_its_own_days_before(land, shop):
    shop("shop")
    source = load_source(settings().source)

    def found(day, commits, names=("web/a.jsonl", "app/a.csv")):
        folder = Path(Landing.of(settings()).folder(day))
        parts = by_version(source, [str(folder / name) for name in names])
        return columns_of(source, parts, day, day, commits)

    eve = DAY - timedelta(days=1)
    for day, shop_column, more in ((eve, "shop", {}), (DAY, "store", {"brand": "b"}), (NEXT, "branch", {"brand": "b"})):
        sign = "|" if day == NEXT else ";"
        land(day, [{"user": "ann", "item": "i", "at": f"{day}T10:00:00Z", **more}], "web/a.jsonl")
        land(day, [f"login{sign}product{sign}time{sign}{shop_column}"], "app/a.csv")
    first = found(eve, [])
    assert first["by_source"]["app"]["header"] == ["login", "product", "time", "shop"]
    assert told(source, first) == []

    def commit(day, said):
        return {"last": str(day), "counts": json.dumps(said)}

    # After a day of both the app alone was delivered: the web is compared with the day before that one.
    app_alone = {"source": "app", **first["by_source"]["app"]}
    days = [commit(eve, app_alone), commit(eve - timedelta(days=1), {"source": "app, web", **first})]
    second = found(DAY, days)
    assert told(source, second) == [
        "source app: the columns of the files differ from those of 2025-02-28: 'shop' is gone, and 'store' is in its "
        "place (renamed?). Columns that the source reads: login, time, product",
        "source web: the columns of the files differ from those of 2025-02-27: new: 'brand' (text). Columns that the "
        "source reads: user, at, item",
    ]
    assert supplied_changes(second) == [
        "columns of app since 2025-02-28: 'shop' is gone, and 'store' is in its place (renamed?)",
        "columns of web since 2025-02-27: new: 'brand' (text)",
    ]
    # From the day on which another version of the app counts, its header may be another one; the web goes on.
    third = found(NEXT, [commit(DAY, {"source": "app, web", **first}), *days])
    assert [message[:11] for message in told(source, third)] == ["source web:"]
    assert third["by_source"]["app"]["header"] == ["login", "product", "time", "branch"]
    # With the web alone again, days of both count.
    shop("web")
    source = load_source(settings().source)
    assert found(DAY, days, ["web/a.jsonl"])["supplied"] == {"since": "2025-02-27", "changes": ["new: 'brand' (text)"]}


def test_an_id_of_one_of_two_exporters_that_has_become_a_fraction_is_refused(lake, shop):
    shop("shop")
    source = load_source(settings().source)

    def found(day, kind, commits):
        folder = Path(Landing.of(settings()).folder(day), "web")
        folder.mkdir(parents=True)
        row = {"user": pa.array([1], kind), "item": ["i"], "at": [f"{day}T10:00:00Z"]}
        pq.write_table(pa.table(row), folder / "a.parquet")
        return columns_of(source, by_version(source, [str(folder / "a.parquet")]), day, day, commits)

    counts = {"source": "app, web", **found(DAY, pa.int64(), [])}
    assert counts["by_source"]["web"]["types"]["user"] == "int64"
    with pytest.raises(SourceMismatch, match=r"source web: .* 2025-03-01: user: was int64, is double"):
        found(NEXT, pa.float64(), [{"last": str(DAY), "counts": json.dumps(counts)}])


def ids_of(spark) -> dict[tuple[str, str], str]:
    """Return the ids of the published events by source and user."""
    found = Table("events").read(spark).select("source", "user_id", "event_id").collect()
    return {(source, user): event_id for source, user, event_id in found}


@pytest.mark.spark
def test_two_exporters_of_one_day_are_read_each_by_its_source_whoever_is_late(spark, land, lake, shop, monkeypatch):
    shop("web")
    at = f"{DAY}T10:00:00Z"
    land(DAY, [{"user": "ann", "item": "i", "at": at}, {"user": "bob", "item": "i", "at": at}], "web/a.jsonl")
    run("early")
    publish_all("early")
    alone = ids_of(spark)
    # The app joins. Its first delivery is late: with a marker for each of both, the day waits for it.
    shop("shop")
    monkeypatch.setenv("MEANDER_LANDING_MARKER", "web/*, app/*")
    with pytest.raises(LandingMissing, match=r"there is no \S+/dt=2025-03-01/app/\*; deliver it"):
        run("too early")
    lines = ["login;product;time", f"ann;i;{at}", f";i;{at}"]
    land(DAY, lines, "app/log.csv")
    _, quarantine = run("both")
    (rejected,) = quarantine.read(spark).select("reason", "source", "line").collect()
    assert tuple(rejected) == ("missing_user", "app", 3)
    publish_all("both")
    both = ids_of(spark)
    assert both.keys() == {("web", "ann"), ("web", "bob"), ("app", "ann")}
    assert {key: both[key] for key in alone} == alone, "what the site has told are the same events"
    assert both["app", "ann"] != both["web", "ann"], "one of the app is another one, with the same content"
    # The app alone is delivered again, with more.
    land(DAY, [*lines, f"eve;i;{at}"], "app/log.csv")
    assert run("again")[0].counts["source"] == "app, web"
    publish_all("again")
    assert ids_of(spark) == {**both, ("app", "eve"): ids_of(spark)["app", "eve"]}
    # The next day, which the app writes in another way, and a day without any event of the site.
    land(NEXT, ["login|product|time", f"ann|i|{NEXT}T10:00:00Z"], "app/log.csv")
    land(NEXT, [], "web/empty.jsonl")
    run("range", last=NEXT)
    publish_all("range")
    assert Table("events").rows_by("landed") == {DAY: 4, NEXT: 1}


def test_an_exporter_without_an_event_delivers_a_file_without_a_byte_also_one_whose_files_have_a_header(land, shop):
    shop("shop")
    source = load_source(settings().source)
    land(DAY, [{"user": "ann", "item": "i", "at": f"{DAY}T10:00:00Z"}], "web/a.jsonl")
    land(DAY, [], "app/none.csv")
    parts = by_version(source, Landing.of(settings()).files(DAY))
    assert {version.name: len(check_files(version, files).text) for version, files in parts} == {"web": 1, "app": 0}
    assert columns_of(source, parts, DAY, DAY, [])["by_source"] == {
        "web": {"types": {}, "columns": {"at": "text", "item": "text", "user": "text"}},
        "app": {"types": {}},
    }
    # A source that is none of several has nothing else that tells that there was no event.
    shop("app")
    with pytest.raises(SourceMismatch, match=r"none\.csv: source app expects a header .*, found an empty file"):
        check_files(load_source(settings().source), parts[0][1] if parts[0][0].name == "app" else parts[1][1])


@pytest.mark.spark
def test_a_day_of_two_exporters_loses_neither_of_them(spark, land, lake, shop):
    shop("shop")
    at = f"{DAY}T10:00:00Z"
    land(DAY, [{"user": "ann", "item": "i", "at": at}], "web/a.jsonl")
    # A day of which the app has told nothing is none of its days.
    assert run("before the app")[0].counts["landing"][str(DAY)]["sources"] == ["web"]
    publish_all("before the app")
    shop("web")
    run("without the app again")
    shop("shop")
    app = land(DAY, ["login;product;time", f"ann;i;{at}"], "app/log.csv")
    run("r")
    publish_all("r")
    app.unlink()
    with pytest.raises(DeliveryShrunk, match="2 rows were read, now it has 1"):
        run("without the app")
    land(DAY, [{"user": user, "item": "i", "at": at} for user in ("ann", "bob", "eve")], "web/a.jsonl")
    shop("web")
    with pytest.raises(DeliveryShrunk, match="its 2 rows are those of the source app, web, and those of web would"):
        run("by the site's source")
    shop("shop")
    land(DAY, [{"user": "ann", "item": "i", "at": at}], "other/a.jsonl")
    with pytest.raises(SourceMismatch, match=r"dt=2025-03-01/other/a\.jsonl: .*its patterns are web/\*, app/\*"):
        run("another folder")


@pytest.mark.spark
def test_rows_of_another_source_do_not_take_the_place_of_a_published_day_unless_a_person_says_so(
    spark, land, lake, monkeypatch
):
    land(DAY, [event("u")])
    run("r")
    publish_all("r")
    (lake / "mine.yaml").write_text(VERSIONED)
    monkeypatch.setenv("MEANDER_SOURCE", str(lake / "mine.yaml"))
    monkeypatch.setenv("MEANDER_LANDING", str(lake / "other"))
    file = lake / "other" / f"dt={DAY}" / "a.csv"
    file.parent.mkdir(parents=True)
    file.write_text("time,user,item,what,price\n" + f"{DAY}T10:00:00Z,a,i1,view,1.5\n" * 9)
    with pytest.raises(DeliveryShrunk, match="its 1 rows are those of the source canonical, and those of mine would"):
        run("s")
    assert run("t", "--allow-shrink")[0].counts["source"] == "mine"


@pytest.mark.spark
def test_a_parquet_file_with_a_damaged_page_is_named_and_nothing_of_the_day_is_staged(spark, lake, land):
    land(DAY, [event("u")])
    rows = pa.table({name: [value] for name, value in event("u1").items()})
    content = io.BytesIO()
    pq.write_table(rows, content, compression="none")
    # The length that stands before the only user says 64 MiB. Footer and statistics are whole, so that it is not told
    # before the values are decoded, where Spark no longer knows the file.
    whole, broken = b"\x02\0\0\0u1", b"\x02\0\0\x04u1"
    assert content.getvalue().count(whole) == 1
    file = Path(Landing.of(settings()).folder(DAY)) / "b.parquet"
    file.write_bytes(content.getvalue().replace(whole, broken))
    with pytest.raises(LandingUnreadable, match=r"b\.parquet: expected a readable Parquet file, found .*newLimit"):
        run("r")
    with pytest.raises(NotStaged):
        read_staged("events", "r")


def test_a_later_day_is_compared_with_the_version_of_the_last_day_of_a_run(lake, land):
    """A chunk of days that crosses a change of format does not say of its last day what its first files had."""
    base = yaml.safe_load((resources.files("jobs") / "sources" / "canonical.yaml").read_text())
    base |= {"format": "parquet", "may_lack": ["category_id", "query", "price"]}
    newer = {"from": NEXT, "time": {"column": "event_time", "format": "epoch_s"}}
    (lake / "mine.yaml").write_text(yaml.safe_dump({**base, "versions": [newer]}))
    source = load_source(str(lake / "mine.yaml"))
    files = []
    for day, times in ((DAY, ["2025-03-01T10:00:00Z"]), (NEXT, [1740909600])):
        folder = Path(Landing.of(settings()).folder(day))
        folder.mkdir(parents=True)
        pq.write_table(
            pa.table({**{n: ["x"] for n in ("user_id", "behavior", "item_id")}, "event_time": times}),
            folder / "a.parquet",
        )
        files.append(str(folder / "a.parquet"))
    parts = by_version(source, files)
    assert [version.time.format for version, _ in parts] == ["iso8601", "epoch_s"]
    said = {last: columns_of(source, parts, DAY, last, [])["types"]["event_time"] for last in (DAY, NEXT)}
    assert said == {DAY: "string", NEXT: "int64"}
