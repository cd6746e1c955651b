"""What a run has read is written down: a landing that is another one is told, and nothing is lost in silence."""

import gzip
import json
import os
import shutil
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.landing_files import UNPACKED
from jobs.packed import unpacked
from lake import deliveries, storage
from lake.days import days_between
from lake.deliveries import (
    HEAD_BYTES,
    Read,
    all_read_by,
    changed_since_read,
    digest,
    equal_files,
    loss,
    published,
    read_by,
    require_no_copies,
    require_unchanged,
    summary,
    write_list,
)
from lake.errors import DeliveredTwice, DeliveryShrunk, LandingChanged
from lake.landing import FEW_DAYS, Landing, LandingFile
from lake.privacy.landed import note_landed, read_landed
from lake.publish import publish
from lake.settings import settings
from lake.table import Table
from tests.lake.landed import load, stage_read
from tests.lake.stagings import JAN_1, JAN_2, JAN_3, stage_files


def told() -> dict[date, str]:
    """Return how the landing differs from what was read of it."""
    found = changed_since_read(Landing.of(settings()), published(Table("events").commits()))
    return {day: str(difference) for day, difference in found.items()}


# ---- files that come after the run ----


def test_a_landing_that_is_as_it_was_read_is_not_told_of(land):
    for day in (JAN_1, JAN_2):
        land(day, ["{}"], "a.jsonl")
        land(day, ["{}"], "hour=01/b.jsonl")
    load("r", JAN_1, JAN_2)
    assert told() == {}
    # What is hidden is no data, today or later.
    land(JAN_1, ["{}"], "_SUCCESS")
    land(JAN_1, ["{}"], ".part")
    assert told() == {}


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        pytest.param(
            lambda day: (day / "c.jsonl").write_text("{}\n"),
            "files in the landing: 3, read: 2; came later: 1 (c.jsonl)",
            id="came",
        ),
        pytest.param(
            lambda day: [(day / name).write_text("{}\n") for name in ("d.jsonl", "c.jsonl")],
            "files in the landing: 4, read: 2; came later: 2 (c.jsonl, ...)",
            id="several came",
        ),
        pytest.param(
            lambda day: (day / "a.jsonl").write_text("{}\n{}\n"),
            "files in the landing: 2, read: 2; changed: 1 (a.jsonl)",
            id="grew",
        ),
        pytest.param(
            # Same name and size: the time alone tells it.
            lambda day: ((day / "a.jsonl").write_text("[]\n"), os.utime(day / "a.jsonl", ns=(7, 7))),
            "files in the landing: 2, read: 2; changed: 1 (a.jsonl)",
            id="overwritten",
        ),
        pytest.param(
            lambda day: (day / "b.jsonl").unlink(),
            "files in the landing: 1, read: 2; gone: 1 (b.jsonl)",
            id="gone",
        ),
        pytest.param(
            lambda day: (day / "b.jsonl").rename(day / "c.jsonl"),
            "files in the landing: 2, read: 2; came later: 1 (c.jsonl), gone: 1 (b.jsonl)",
            id="renamed",
        ),
    ],
)
def test_a_landing_that_has_changed_since_is_told_by_its_files(land, edit, expected):
    folder = land(JAN_1, ["{}"], "a.jsonl").parent
    land(JAN_1, ["{}", "{}"], "b.jsonl")
    land(JAN_2, ["{}"])
    load("r", JAN_1, JAN_2)
    edit(folder)
    assert told() == {JAN_1: expected}
    load("again", JAN_1, allow_shrink=True)
    assert told() == {}, "it is the newest publish that counts"


def test_a_day_that_the_shop_has_archived_is_no_change_and_one_that_it_has_emptied_is(land):
    folder = land(JAN_1, ["{}"]).parent
    kept = land(JAN_2, ["{}"])
    load("r", JAN_1, JAN_2)
    shutil.rmtree(folder)
    kept.unlink()
    assert told() == {JAN_2: "files in the landing: 0, read: 1; gone: 1 (part-0.jsonl)"}
    (found,) = changed_since_read(Landing.of(settings()), published(Table("events").commits())).values()
    assert not found.has_more


@pytest.mark.parametrize("content", [None, "", "[]", '{"2025-01-01": {"part-0.jsonl": "of a newer version"}}'])
def test_without_the_list_the_digest_still_tells_that_the_landing_is_another_one(lake, land, content):
    folder = land(JAN_1, ["{}"]).parent
    load("r", JAN_1)
    (file,) = (lake / "lake" / "_runs" / "r").glob("landing.*")
    if content is None:
        file.unlink()
    else:
        file.write_text(content)
    assert told() == {}
    (folder / "b.jsonl").write_text("{}\n")
    assert told() == {JAN_1: "files in the landing: 2, read: 1; their names, sizes or times are others"}


def test_days_that_were_loaded_before_runs_wrote_down_what_they_read_are_not_told_of(land):
    land(JAN_1, ["{}"])
    counts = {"by_day": {str(JAN_1): {"input": 5, "accepted": 5, "ignored": 0, "rejected": {}}}}
    stage_files("events", "r", [], [JAN_1], None, counts=counts)
    publish("events", "r")
    assert told() == {}
    read = published(Table("events").commits())[JAN_1]
    assert (read.rows, read.files, read.digest) == (5, None, "")


def test_a_landing_that_cannot_be_seen_is_not_told_of(land, monkeypatch):
    land(JAN_1, ["{}"])
    load("r", JAN_1)

    def denied(*_):
        raise PermissionError

    monkeypatch.setattr(Landing, "found", denied)
    assert told() == {}


names = st.sampled_from(["a", "b", "hour=01/c", "_hidden"])
contents = st.dictionaries(names, st.sampled_from(["x", "y", "long"]))


@given(before=contents, now=contents)
def test_a_day_is_told_of_exactly_when_a_name_or_a_content_differs(tmp_path_factory, before, now):
    landing = Landing(str(tmp_path_factory.mktemp("landing")))

    def deliver(files: dict[str, str]) -> None:
        folder = Path(landing.folder(JAN_1))
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for name, content in files.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(content)
            # The clock of a file is as coarse as the kernel's; who writes other content does so at another time.
            os.utime(folder / name, ns=(0, ord(content[0])))

    deliver(before)
    known = summary({JAN_1: landing.delivery(JAN_1)}, {})
    read = read_by({"landing": known}, "no run", 1, JAN_1)
    deliver(now)
    visible = [{name: text for name, text in files.items() if name[0] != "_"} for files in (before, now)]
    assert bool(changed_since_read(landing, {JAN_1: read})) == (visible[0] != visible[1])


def test_an_object_store_tells_by_etags_and_lists_many_days_at_once(lake_on_s3, monkeypatch):
    landing = Landing.of(settings())
    days = days_between(JAN_1, date(2025, 1, FEW_DAYS + 1))
    fs, root = storage.filesystem(landing.address)
    for day in days:
        fs.pipe_file(f"{root}/dt={day}/part 0.jsonl", b"{}\n")
        fs.pipe_file(f"{root}/dt={day}/_SUCCESS", b"")
    reads = all_read_by({"landing": summary(landing.deliveries(days), {})}, "r", 1, days)
    write_list("r", 1, landing.deliveries(days), {})
    # The same bytes again have another time, and the same ETag.
    fs.pipe_file(f"{root}/dt={days[0]}/part 0.jsonl", b"{}\n")
    fs.pipe_file(f"{root}/dt={days[1]}/part 0.jsonl", b"[]\n")
    fs.pipe_file(f"{root}/dt={days[2]}/part 1.jsonl", b"[]\n")
    fs.rm_file(f"{root}/dt={days[3]}/part 0.jsonl")
    expected = {
        days[1]: "files in the landing: 1, read: 1; changed: 1 (part 0.jsonl)",
        days[2]: "files in the landing: 2, read: 1; came later: 1 (part 1.jsonl)",
        days[3]: "files in the landing: 0, read: 1; gone: 1 (part 0.jsonl)",
    }
    some = dict(list(reads.items())[:5])
    for asked in (reads, some):  # by one listing, and day by day
        assert {day: str(found) for day, found in changed_since_read(landing, asked).items()} == expected


def test_what_a_commit_tells_of_a_day_does_not_grow_with_its_files(lake):
    days = days_between(date(2025, 1, 1), date(2025, 6, 29))
    files = {f"part-{n:05}-{'0' * 36}.c000.snappy.parquet": LandingFile(n, str(10**18 + n)) for n in range(600)}
    delivered = dict.fromkeys(days, files)  # 108,000 files
    told = json.dumps(summary(delivered, {day: dict.fromkeys(files, 10**6) for day in days}))
    assert len(told) < 120 * len(days)
    assert json.loads(told)["2025-01-01"] == {
        "files": 600, "bytes": 600 * 599 // 2, "rows": 600 * 10**6, "digest": digest(files),
    }  # fmt: skip


# ---- a folder that changed while it was read ----


def test_a_folder_that_changed_while_it_was_read_is_told_with_its_files():
    one, other = LandingFile(3, "1"), LandingFile(3, "2")
    before = {JAN_1: {"a": one}, JAN_2: {"a": one, "b": one}}
    require_unchanged(before, {day: dict(files) for day, files in before.items()})
    what = r"2025-01-02 changed while it was read, so nothing was staged: .*: 3, read: 2; came later: 2 \(c, "
    with pytest.raises(LandingChanged, match=what + r"\.\.\.\), changed: 1 \(a\), gone: 1 \(b\)"):
        require_unchanged(before, {JAN_1: {"a": one}, JAN_2: {"a": other, "c": one, "d": one}})


# ---- a log under two names ----


@pytest.fixture
def day(tmp_path):
    """Write files of a day, and return their equal pair if there is one."""
    landing = Landing(str(tmp_path))

    def equal(**contents: bytes) -> tuple[str, str] | None:
        for name, content in contents.items():
            file = Path(landing.folder(JAN_1), name)
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(content)
        return equal_files(landing.folder(JAN_1), landing.delivery(JAN_1))

    return equal


LONG = b"x" * (HEAD_BYTES + 10)


@pytest.mark.parametrize(
    ("contents", "expected"),
    [
        pytest.param({"log": b"1\n", "log1": b"1\n"}, ("log", "log1"), id="equal"),
        pytest.param({"a": b"1\n", "b": b"2\n", "c": b"1\n", "d": b"33\n"}, ("a", "c"), id="equal among others"),
        pytest.param({"a": b"1\n", "b": b"2\n", "c": b"22\n"}, None, id="of one size only"),
        pytest.param({"a": LONG, "b": LONG}, ("a", "b"), id="longer than its head"),
        pytest.param({"a": LONG + b"1", "b": LONG + b"2"}, None, id="alike in their heads alone"),
        pytest.param({}, None, id="none"),
    ],
)
def test_equal_files_are_found_by_their_bytes(day, tmp_path, contents, expected):
    (tmp_path / "dt=2025-01-01").mkdir()
    assert day(**contents) == expected


def test_only_files_of_one_size_are_opened(day, monkeypatch):
    opened, same_content = [], deliveries.same_content

    def counting(folder, names, size, how):
        opened.append((names, size))
        return same_content(folder, names, size, how)

    monkeypatch.setattr(deliveries, "same_content", counting)
    assert day(a=b"1", b=b"22", c=b"333") is None
    assert opened == []
    assert day(d=b"444") is None
    assert opened == [(["c", "d"], HEAD_BYTES)], "and whole ones only if they begin alike"


def test_equal_files_of_a_day_are_refused_by_their_names_unless_they_hold_no_row(land, lake):
    landing = Landing.of(settings())
    for name, line in (("head", "a,b"), ("head.1", "a,b"), ("log", "1,2"), ("log.1", "1,2")):
        land(JAN_1, [line], name)
    land(JAN_2, ["1,2"], "log")
    delivered = landing.deliveries([JAN_1, JAN_2])
    rows = {JAN_1: {"log": 1}, JAN_2: {"log": 1}}
    require_no_copies(landing, delivered, rows)  # the same file on two days is two deliveries
    with pytest.raises(DeliveredTwice, match=r"2025-01-01: log and log\.1 in .*dt=2025-01-01 are equal, byte by byte"):
        require_no_copies(landing, delivered, {**rows, JAN_1: {"log": 1, "log.1": 1}})


def gz(text: bytes, time: int) -> bytes:
    return gzip.compress(text, mtime=time)


@pytest.mark.parametrize(
    ("contents", "expected"),
    [
        pytest.param({"a.gz": gz(b"1\n", 1), "b.gz": gz(b"1\n", 2)}, "a.gz and b.gz", id="two packings of a text"),
        pytest.param({"log.1": b"1\n", "log.1.gz": gz(b"1\n", 1)}, "log.1 and log.1.gz", id="a rotated log"),
        pytest.param({"A.GZ": gz(b"1\n", 1), "b": b"1\n"}, "A.GZ and b", id="capital letters"),
        pytest.param({"a.gz": gz(LONG, 1), "b.gz": gz(LONG, 2)}, "a.gz and b.gz", id="longer than its head"),
        pytest.param({"a.gz": gz(LONG + b"1", 1), "b.gz": gz(LONG + b"2", 2)}, None, id="alike in their heads alone"),
        pytest.param({"a.gz": gz(b"1\n", 1), "b.gz": gz(b"2\n", 2), "c": b"3\n"}, None, id="others"),
    ],
)
def test_equal_texts_are_found_however_they_are_packed(tmp_path, contents, expected):
    landing = Landing(str(tmp_path))
    Path(landing.folder(JAN_1)).mkdir()
    for name, content in contents.items():
        Path(landing.folder(JAN_1), name).write_bytes(content)
    delivered, rows = landing.deliveries([JAN_1]), {JAN_1: dict.fromkeys(contents, 1)}
    require_no_copies(landing, delivered, rows)  # their bytes differ
    if expected is None:
        require_no_copies(landing, delivered, rows, UNPACKED, unpacked)
        return
    with pytest.raises(
        DeliveredTwice, match=f"{expected} in .* are equal, byte by byte, once they are unpacked: a log"
    ):
        require_no_copies(landing, delivered, rows, UNPACKED, unpacked)


def test_of_packed_files_only_those_with_as_many_rows_are_unpacked(tmp_path):
    landing, opened = Landing(str(tmp_path)), []
    Path(landing.folder(JAN_1)).mkdir()
    for name in ("a.gz", "b.gz", "c.gz", "d", "e", "f.gz"):
        Path(landing.folder(JAN_1), name).write_bytes(gz(name.encode(), 1) if ".gz" in name else name.encode())
    rows = {JAN_1: {"a.gz": 1, "b.gz": 2, "c.gz": 2, "d": 3, "e": 3, "f.gz": 0}}

    def note(file):
        opened.append(file[-4:])
        return unpacked(file)

    require_no_copies(landing, landing.deliveries([JAN_1]), rows, UNPACKED, note)
    assert sorted(opened) == ["b.gz", "c.gz"]


# ---- a delivery that has lost something ----


def read(*files: tuple[str, int], rows: int | None = None, stamp: str = "") -> Read:
    """Make what was read: (name, rows) of each file; without a list if `rows` are given."""
    listed = {name: (LandingFile(n, stamp + name), n) for name, n in files}
    known = {name: file for name, (file, _) in listed.items()}
    made = Read(JAN_1, "r", 1, sum(n for _, n in files) if rows is None else rows, len(files), digest(known))
    made.__dict__["listed"] = listed if rows is None else {}
    return made


@pytest.mark.parametrize(
    ("before", "now", "lost"),
    [
        pytest.param([("a", 5)], [("a", 5)], "", id="the same"),
        pytest.param([("a", 5)], [("a", 5), ("b", 1)], "", id="more"),
        pytest.param([], [], "", id="nothing, as before"),
        pytest.param([("a", 5)], [("a", 4)], "5 rows were read, now it has 4", id="fewer rows"),
        pytest.param([("a", 5)], [], "5 rows were read, now it has 0", id="emptied"),
        pytest.param(
            [("a", 5), ("b", 5)], [("a", 20)], "1 of 2 files that were read are gone, such as b",
            id="a file is gone, and another has grown",
        ),
        pytest.param([("a", 5), ("b", 5)], [("c", 6), ("d", 4)], "", id="delivered anew under other names"),
        pytest.param([("a", 5), ("b", 5)], [("c", 10)], "", id="delivered anew as one file"),
        pytest.param([("a", 5), ("empty", 0)], [("a", 5)], "", id="a file without a row is gone"),
    ],
)  # fmt: skip
def test_what_a_delivery_has_lost(before, now, lost):
    assert loss(read(*before), read(*now)) == lost


@pytest.mark.parametrize(
    ("before", "now", "lost"),
    [
        pytest.param(
            "a", "b", "its 5 rows are those of the source a, and those of b would take their place; two logs of a "
            "day are `sources` of one source, two kinds of files its `versions`", id="another",
        ),
        pytest.param("a", "a", "", id="the same"),
        pytest.param("", "b", "", id="a run that did not write it down"),
        pytest.param("a", "a, b", "", id="one more"),
        pytest.param(
            "a, b", "b", "its 5 rows are those of the source a, b, and those of b would take their place; two logs of "
            "a day are `sources` of one source, two kinds of files its `versions`", id="one of two",
        ),
    ],
)  # fmt: skip
def test_rows_of_another_source_do_not_take_the_place_of_those_of_a_day(before, now, lost):
    had, has = (Read(JAN_1, "r", 1, rows, source=name) for rows, name in ((5, before), (9, now)))
    assert loss(had, has) == lost


def test_of_several_sources_those_that_have_read_a_file_of_a_day_are_those_of_the_day():
    known = {"files": 1, "bytes": 9, "rows": 5, "digest": ""}
    run = {"source": "app, web", "landing": {str(JAN_1): {**known, "sources": ["web"]}, str(JAN_2): known}}
    of_web = Read(JAN_1, "s", 2, 9, source="web")
    assert loss(read_by(run, "r", 1, JAN_1), of_web) == ""
    # A run that did not write it down may have had files of each.
    assert "those of the source app, web," in loss(read_by(run, "r", 1, JAN_2), of_web)
    of_app = Read(JAN_1, "s", 2, 9, source="app")
    assert "its 5 rows are those of the source web, and those of app" in loss(read_by(run, "r", 1, JAN_1), of_app)
    # The other way round, what a run may read counts: it may find no file of one of them today.
    both = read_by(run, "s", 2, JAN_1)
    assert loss(Read(JAN_1, "r", 1, 5, source="app, web"), both) == ""


@pytest.mark.parametrize(
    ("before", "now", "since", "is_lost"),
    [
        # Each of them: input rows, and how many of those were left out as forgotten ones.
        pytest.param((14, 0), (14, 5), 0, False, id="the same files, after users were forgotten"),
        pytest.param((14, 0), (9, 0), 5, False, id="files without them"),
        pytest.param((14, 0), (9, 0), 0, True, id="nobody was forgotten"),
        pytest.param((14, 0), (8, 0), 5, True, id="one more row is gone"),
        pytest.param((14, 0), (13, 5), 5, True, id="theirs are there, and another row is gone"),
        pytest.param((14, 5), (9, 0), 0, False, id="those that were left out are gone"),
        pytest.param((14, 5), (8, 0), 0, True, id="and one more"),
        pytest.param((14, 5), (7, 0), 2, False, id="some were left out, and more were forgotten since"),
    ],
)
def test_rows_of_forgotten_users_are_not_lost(before, now, since, is_lost):
    had, has = (Read(JAN_1, "r", 1, rows, forgotten=forgotten) for rows, forgotten in (before, now))
    assert bool(loss(had, has, since)) == is_lost


def test_what_a_request_has_found_in_the_landing_counts_for_what_was_read_before_it(land):
    land(JAN_1, ["{}"] * 5)
    load("r", JAN_1)
    note_landed("forget-1", {JAN_1: 2, JAN_2: 9})
    land(JAN_1, ["{}"] * 2)
    stage_read("events", "less", JAN_1)
    with pytest.raises(DeliveryShrunk, match="5 rows were read, now it has 2"):
        publish("events", "less")
    land(JAN_1, ["{}"] * 3)
    load("without", JAN_1)
    # This run has not seen their rows.
    land(JAN_1, ["{}"] * 2)
    stage_read("events", "less again", JAN_1)
    with pytest.raises(DeliveryShrunk, match="3 rows were read, now it has 2"):
        publish("events", "less again")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"number": 1, "rows": {"no day": 1}}'])
def test_a_damaged_note_allows_no_loss(land, lake, content):
    land(JAN_1, ["{}"] * 5)
    load("r", JAN_1)
    note_landed("forget-1", {JAN_1: 2})
    (note,) = (lake / "lake" / "_receipts").iterdir()
    note.write_text(content)
    assert read_landed() == []


def test_a_file_that_was_renamed_is_not_lost():
    before, now = read(("log", 5), ("old", 3)), read(("log", 9), ("old", 3), ("log.1", 5))
    # log became log.1, and a new log began, with fewer rows than that had.
    now.__dict__["listed"] = {**now.listed, "log.1": before.listed["log"]}
    assert loss(before, now) == ""
    gone = read(("old", 9), ("log.1", 5))
    gone.__dict__["listed"] = {"old": (LandingFile(9, "x"), 9), "log.1": before.listed["log"]}
    assert loss(before, gone) == ""


def test_without_a_list_rows_and_the_number_of_files_tell():
    without = read(("a", 5), ("b", 5), rows=10)
    assert loss(without, read(("a", 10))) == "2 files were read, now it has 1"
    assert loss(without, read(("c", 5), ("d", 5))) == ""
    assert loss(Read(JAN_1, "r", 1, 10), read(("a", 10))) == "", "a run that wrote down no files"
    assert loss(Read(JAN_1, "r", 1, 10), read(("a", 9))) == "10 rows were read, now it has 9"


@pytest.mark.parametrize("table", ["events", "quarantine"])
def test_an_emptied_folder_empties_no_published_day_unless_a_person_says_so(land, table):
    file = land(JAN_1, ["{}", "{}"])
    land(JAN_2, ["{}"])
    stage_read(table, "r", JAN_1, JAN_2)
    publish(table, "r")
    file.unlink()
    land(JAN_2, ["{}"] * 3)
    stage_read(table, "again", JAN_1, JAN_2)
    with pytest.raises(DeliveryShrunk, match=r"landing of 2025-01-01 has less than readers see: 2 rows were read, "
                       r"now it has 0\. .*--allow-shrink"):  # fmt: skip
        publish(table, "again")
    by = Table(table).spec.owned_by
    assert Table(table).rows_by(by) == {JAN_1: 2, JAN_2: 1}, "of the other days neither: it is one commit"
    stage_read(table, "again", JAN_1, JAN_2, allow_shrink=True)
    publish(table, "again")
    assert Table(table).rows_by(by) == {JAN_2: 3}


def test_days_that_are_loaded_for_the_first_time_cost_no_look_at_the_log(land, monkeypatch):
    land(JAN_1, ["{}"])
    land(JAN_2, [])
    load("r", JAN_1)
    monkeypatch.setattr(Table, "commits", lambda _: pytest.fail("it reads each commit of the log"))
    load("s", JAN_2)


def test_what_another_run_has_published_since_is_looked_at_when_it_is_published(land):
    # The first run has found one file, the second one both; the second was quicker to stage, the first began later.
    land(JAN_1, ["{}"], "a")
    second = land(JAN_1, ["{}"], "b")
    stage_read("events", "both", JAN_1)
    second.unlink()
    stage_read("events", "one", JAN_1)
    publish("events", "both")
    with pytest.raises(DeliveryShrunk, match="2 rows were read, now it has 1"):
        publish("events", "one")
    assert Table("events").rows_by("landed") == {JAN_1: 2}


def test_a_day_that_was_refused_is_compared_with_what_readers_see(land):
    land(JAN_1, ["{}"] * 3)
    land(JAN_2, ["{}"])
    stage_read("events", "older", JAN_1, JAN_2)
    land(JAN_1, ["{}"] * 5)
    load("newer", JAN_1)
    publish("events", "older")
    reads = published(Table("events").commits())
    assert {day: (one.run_id, one.rows) for day, one in reads.items()} == {JAN_1: ("newer", 5), JAN_2: ("older", 1)}
    assert JAN_3 not in reads


def test_a_lake_from_before_runs_wrote_down_what_they_read_keeps_its_rows_too(land):
    counts = {"by_day": {str(JAN_1): {"input": 5, "accepted": 5, "ignored": 0, "rejected": {}}}}
    stage_files("events", "before", [{"event_id": "e", "dt": JAN_1, "landed": JAN_1}], [JAN_1], None, counts=counts)
    publish("events", "before")
    land(JAN_1, ["{}"] * 4)
    stage_read("events", "r", JAN_1)
    with pytest.raises(DeliveryShrunk, match="5 rows were read, now it has 4"):
        publish("events", "r")
    land(JAN_1, ["{}"] * 5)
    load("r", JAN_1)
