"""A forgotten user is nowhere in the lake any more, in no byte of it, and the rows of all others are as they were."""

import gzip
import io
import json
import os
import re
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from lake import audits, storage
from lake import publish as publishing
from lake.audits import AuditLine
from lake.backfill.history import History
from lake.errors import UpkeepFailed
from lake.places import (
    alerts_folder,
    audits_path,
    docs_page,
    manifest_file,
    plan_file,
    receipt_file,
    run_folder,
    summaries_folder,
)
from lake.privacy import folders, matching
from lake.privacy import tables as forgetting
from lake.privacy.forget import Places, Receipt, forget, left_in
from lake.privacy.forgotten import note_absent, noted
from lake.privacy.matching import NamedUsers
from lake.privacy.rewriting import FileUnreadable, rewrite
from lake.publish import publish
from lake.runs import summarize
from lake.schemas import TABLES
from lake.settings import settings
from lake.staging import Run, find_staged
from lake.table import MADE, Table
from lake.upkeep import main as upkeep
from tests.lake.predicted import prediction
from tests.lake.published import rows as rows_seen
from tests.lake.stagings import JAN_1, JAN_2, JAN_3, stage_files

# Unusual, so that its bytes are nowhere by chance; with a character that JSON and HTML write in other ways.
ANN, BOB = "ann<ÿ>73194517qz", "bob"
SPELLINGS = [each.encode() for each in (ANN, json.dumps(ANN)[1:-1], "ann&lt;ÿ&gt;73194517qz", "73194517qz")]
TIME = datetime(2025, 1, 1, 12, tzinfo=UTC)


def event(user: str, item: str, day: date = JAN_1, **more: Any) -> dict[str, Any]:
    return {"event_id": f"{user}{item}", "user_id": user, "event_time": TIME, "behavior": "view", "item_id": item,
            "copies": 1, "dt": day, "landed": day, **more}  # fmt: skip


def rejected(user: str, n: int) -> dict[str, Any]:
    return {"reason": "missing_item", "raw": json.dumps({"user_id": user, "n": n}), "file": "f", "source": "canonical",
            "dt": JAN_1}  # fmt: skip


def put(table: str, run: str, rows: list[dict[str, Any]], days: list[date], **more: Any) -> None:
    stage_files(table, run, rows, days, None, **more)
    publish(table, run)


def session(user: str, query: str | None) -> dict[str, Any]:
    inside = {"event_time": TIME, "event_id": "e", "behavior": "search", "query": query}
    return {"session_id": user, "user_id": user, "start_time": TIME, "end_time": TIME, "events": [inside], "dt": JAN_1}


@pytest.fixture
def full(lake: Path) -> Path:
    """Fill a lake with rows of two users in every place that is known to hold some."""
    both = [event(user, item, day) for user in (ANN, BOB) for item in "xy" for day in (JAN_1, JAN_2)]
    # The first delivery of a day, which a training has pinned, and the second one.
    put("events", "old", [event(ANN, "old"), event(BOB, "old")], [JAN_1])
    storage.write_json(
        plan_file("weekly"),
        {"run_id": "weekly", "tables": {"events": Table("events").version, "examples": 1}, "train": [str(JAN_1)],
         "valid": [str(JAN_3)], "test": [], "pretrain": []},
    )  # fmt: skip
    put(
        "events",
        "r",
        [*both, event(ANN, "z", query=f"orders of {ANN}"), event(BOB, "z")],
        [JAN_1, JAN_2],
        rows_in_group=3,
    )
    put(
        "quarantine",
        "r",
        [rejected(ANN, 1), rejected(BOB, 2), {**rejected(BOB, 3), "raw": f'{{"user_id": "{ANN}'}],
        [JAN_1],
    )
    put("sessions", "r", [session(ANN, f"where is {ANN}"), session(BOB, None)], [JAN_1])
    for table in ("interests", "examples"):
        put(table, "r", [{"user_id": user, "frequency": n, "dt": JAN_1} for n, user in enumerate((ANN, BOB))], [JAN_1])
        # A partition that nobody but the user has rows in.
        put(table, "alone", [{"user_id": ANN, "dt": JAN_2}], [JAN_2])
    put("predictions", "r", [prediction(ANN, JAN_1), prediction(BOB, JAN_1)], [JAN_1])
    # A staging whose audit failed, and one that will be published.
    stage_files("events", "failed", [event(ANN, "f", JAN_3), event(BOB, "f", JAN_3)], [JAN_3], None, audited="failed")
    stage_files("events", "later", [event(ANN, "l", JAN_3), event(BOB, "l", JAN_3)], [JAN_3], None)
    when = datetime(2025, 1, 1, tzinfo=UTC)
    line = AuditLine("events", "r", "s", JAN_1, JAN_1, when, "ids", "user_id", "warning", True, "met", "passed", "")
    audits.record([line, replace(line, said=f"1 unexpected, such as {ANN}", success=False)])
    for run, text in (("r", "ann&lt;ÿ&gt;73194517qz"), ("bobs", BOB)):
        page = lake / "lake" / "_docs" / docs_page(run, "events")
        page.parent.mkdir(parents=True)
        page.write_text(f"<p>{text}</p>")
    storage.write_json(
        f"{alerts_folder(settings().lake)}/unsent/1.json", {"text": f"found {ANN} in events", "code": "x"}
    )
    return lake


# Of events 2 items on 2 days and z, and 1 of the pinned version; a rejected row that cannot be read counts as theirs.
ROWS = {"events": 6, "quarantine": 2, "sessions": 1, "interests": 2, "examples": 2, "predictions": 1}


def places(**more: Any) -> Places:
    config = settings()
    return Places(config.docs_folder, [alerts_folder(config.lake)], [], timedelta(days=7), whose, **more)


def whose(source: str, raw: str) -> str | None:
    try:
        return str(json.loads(raw)["user_id"])
    except ValueError:
        return None


def found_in(root: Path, but: Path | None = None) -> Iterator[str]:
    """Yield each file but one in which the user is: in its bytes, in what is packed, or in a page of a Parquet file."""
    for file in sorted(root.rglob("*")):
        if not file.is_file() or file == but:
            continue
        content = file.read_bytes()
        if file.suffix == ".gz":
            content = gzip.decompress(content)
        if file.suffix == ".parquet":
            content += repr(pq.ParquetFile(file).read().to_pylist()).encode()
        if any(spelling in content for spelling in SPELLINGS):
            yield str(file.relative_to(root))


def others() -> dict[str, list[str]]:
    """Return all rows that are not of the user, also of the pinned version and of the staging."""
    found = {table: [row for row in rows_seen(table) if "73194517qz" not in row] for table in TABLES}
    return found | {"pinned": [row for row in rows_of(Table("events", 1)) if "73194517qz" not in row]}


def rows_of(table: Table) -> list[str]:
    return [repr(row) for file in table.files for row in storage.read_file(f"{table.path}/{file.path}").to_pylist()]


def forgotten(**more: Any) -> Receipt:
    return forget([ANN], places(), **more)


def test_the_user_is_nowhere_and_all_other_rows_are_as_before(full):
    # The rest of the lake is searched by the same function, so it has to find what is there.
    kinds = {re.sub(r"stage=.*", "data", file) for file in found_in(full / "lake")}
    assert {f"{table}/data" for table in TABLES} <= kinds
    before, bases = others(), {table: Table(table).basis(JAN_1) for table in TABLES}
    receipt = forgotten()
    assert list(found_in(full / "lake")) == []
    assert others() == before
    assert {table: Table(table).basis(JAN_1) for table in TABLES} == bases, "nothing is newer or older than it was"
    rows = {done.where: done.rows for done in receipt.done if done.where in TABLES}
    assert rows == ROWS
    assert [model["dates"] for model in receipt.models] == [[str(JAN_1)]]
    assert storage.read_json(receipt_file(receipt.request))["users"] == 1


def test_upkeep_finds_nothing_wrong_afterwards(full, capsys):
    forgotten()
    upkeep(["--run-id", "u"])
    assert all(not part["problem"] for part in json.loads(capsys.readouterr().out)["parts"])
    assert list(found_in(full / "lake")) == []


def test_to_the_planner_and_to_days_nothing_has_happened(full):
    def told() -> tuple[Any, ...]:
        # Of a run that has not been published, the rows that it has staged are counted.
        runs = [run for run in summarize() if run.run_id not in ("failed", "later")]
        changes = [(change.landed, change.day, change.version) for change in History.read().changes]
        return {table: Table(table).commits() for table in TABLES}, runs, changes

    before = told()
    forgotten()
    assert told() == before


def test_a_pinned_version_is_read_after_two_users_were_forgotten(full):
    put("events", "pin", [event(user, "p", JAN_3) for user in (ANN, BOB, "cem")], [JAN_3])
    version = Table("events").version
    storage.write_json(plan_file("second"), {"tables": {"events": version}})
    put("events", "again", [event("dan", "p", JAN_3)], [JAN_3])
    forgotten()
    forget([BOB], places())
    assert [row for row in rows_of(Table("events", version)) if "'p'" in row] == [
        row for row in rows_of(Table("events", version)) if "'cem'" in row
    ]
    assert sum("'cem'" in row for row in rows_of(Table("events", version))) == 1


def test_a_rejected_row_in_which_another_user_names_the_id_stays(full):
    theirs = {**rejected(BOB, 4), "raw": json.dumps({"user_id": BOB, "query": ANN}), "dt": JAN_2}
    put("quarantine", "quotes", [theirs, {**rejected(ANN, 5), "dt": JAN_2}], [JAN_2])
    forgotten()
    (row,) = [row for row in rows_seen("quarantine") if "73194517qz" in row]
    assert BOB in row


def test_what_other_users_typed_is_theirs_and_counted(full):
    put("events", "typed", [event(BOB, "t", JAN_3, query=f"who is {ANN}?"), event(BOB, "u", JAN_3)], [JAN_3])
    # What is kept of it is told, also where the row was rejected.
    theirs = {**rejected(BOB, 4), "raw": json.dumps({"user_id": BOB, "query": ANN}), "dt": JAN_2}
    put("quarantine", "quotes", [theirs, {**rejected(BOB, 5), "dt": JAN_2}], [JAN_2])
    left = [left.what for left in forgotten().left if "other users whose" in left.what]
    assert left == [
        "quarantine: 1 rows of other users whose texts have such an id",
        "events: 1 rows of other users whose texts have such an id",
    ]


def test_trainings_are_listed_by_the_dates_that_they_have_read(full):
    empty = {name: [] for name in ("train", "valid", "test", "pretrain")}
    plans = {
        "trained": {"train": [str(JAN_1)]},
        "validated": {"valid": [str(JAN_2)]},
        "pretrained": {"pretrain": [str(JAN_1), str(JAN_3)]},
        "others": {"train": [str(JAN_3)], "pretrain": [str(JAN_3)]},
    }
    for run, dates in plans.items():
        storage.write_json(plan_file(run), {"run_id": run, "tables": {}, **empty, **dates})
    found = {model["run_id"]: model["dates"] for model in forgotten().models}
    assert found == {
        "weekly": [str(JAN_1)], "trained": [str(JAN_1)], "validated": [str(JAN_2)], "pretrained": [str(JAN_1)]
    }  # fmt: skip


def test_a_manifest_that_is_cut_off_keeps_nobody_from_being_forgotten(full):
    """A publish refuses it, and it stays where a full disk has left it."""
    later = find_staged("events", "later")
    manifest = Path(manifest_file(run_folder("later"), "events", later.stage_id))
    manifest.write_text(manifest.read_text()[:40])
    # The files of that staging are told; in no table is the user.
    assert any(left.what.startswith("events: 1 files of stagings") for left in forgotten().left)
    assert not [row for table in ROWS for row in rows_seen(table) if "73194517qz" in row]


def test_a_plan_that_is_cut_off_is_named_since_nobody_knows_what_it_needs(full):
    Path(plan_file("weekly")).write_text("{")
    with pytest.raises(UpkeepFailed, match=r"_models/weekly/plan\.json cannot be read \(JSONDecodeError\), so nobody"):
        forgotten()


def test_a_short_id_is_looked_for_only_where_a_column_says_that_it_is_a_user(full):
    page = full / "lake" / "_docs" / docs_page("r", "events")
    page.write_text("42 rows")
    put("events", "short", [event("42", "s", JAN_3), event(BOB, "s", JAN_3)], [JAN_3])
    before = audits.read()
    receipt = forget(["42"], places())
    assert page.exists()
    assert audits.read().equals(before)
    assert before.num_rows > 0
    assert sum("'s'" in row for row in rows_seen("events")) == 1
    assert any("fewer than 5 characters" in left.what for left in receipt.left)


def test_of_no_users_at_all_nothing_is_theirs():
    nobody = NamedUsers(frozenset())
    assert not nobody.in_text("a text of anybody")
    assert not nobody.between("a", "z")


def test_an_id_is_found_across_the_parts_in_which_a_file_is_read(monkeypatch):
    users = NamedUsers(frozenset({ANN}))
    for size in range(1, 40):
        monkeypatch.setattr(folders, "PART_BYTES", size)
        assert folders.has_id(io.BytesIO(f"a long text, {ANN} and more".encode()), users)
        assert not folders.has_id(io.BytesIO(f"a long text, {ANN[:-1]} and more".encode()), users)


def test_where_an_id_still_stands_is_told_and_what_may_not_be_read(full, tmp_path, monkeypatch):
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "task.log").write_text(f"user {ANN}")
    (logs / "old.log.gz").write_bytes(gzip.compress(f"user {ANN}".encode()))
    (logs / "other.log").write_text("user bob")
    storage.write_json(f"{settings().lake}/_monitor/x.json", {"note": ANN})
    # Of another user; and cut off by a full disk.
    (logs / "theirs").mkdir()
    (logs / "cut.log.gz").write_bytes(gzip.compress(f"user {ANN}".encode() * 99)[:40])
    scandir = os.scandir

    def scan(place):
        if str(place).endswith("/theirs"):
            raise PermissionError(13, "Permission denied", str(place))
        return scandir(place)

    monkeypatch.setattr(os, "scandir", scan)
    alone = [tmp_path / name for name in ("spark.log", "steps.log", "gone.log")]
    alone[0].write_text(f"java.lang.RuntimeException: {ANN}")
    alone[1].write_text("user bob")
    where = replace(places(), logs=[str(logs)], log_files=[str(file) for file in alone])
    told = [left.what for left in forget([ANN], where).left]
    assert [what for what in told if "may not be read" in what] == [
        f"{logs}/{name} may not be read, so it was not searched" for name in ("theirs", "cut.log.gz")
    ]
    left = [what for what in told if "stands in" in what]
    assert [what.rsplit("/", 1)[1] for what in left] == ["x.json", "old.log.gz", "task.log", "spark.log"]
    # Of an id that is no word of its own, none of them is searched.
    assert not [left for left in forget(["42"], where).left if "stands in" in left.what]


def test_a_file_of_a_table_that_cannot_be_read_is_named_and_one_that_is_gone_is_not(tmp_path):
    folder = tmp_path / "stage=1-ab"
    folder.mkdir()
    # Being written, or damaged; the checksum that Hadoop writes has no rows.
    for name in ("a.parquet", ".a.parquet.crc"):
        (folder / name).write_bytes(b"PAR1")
    cleaned = forgetting.Cleaned("events")
    chosen = matching.rows_of("events", NamedUsers(frozenset({ANN})))
    for name in ("a.parquet", ".a.parquet.crc", "gone.parquet"):
        assert forgetting.count_or_gone(cleaned, str(folder), name, chosen) == 0
    assert cleaned.unread == {"a.parquet": "ArrowInvalid"}
    (left,) = left_in(replace(cleaned, table="interests"), NamedUsers(frozenset({ANN})))
    assert left.what.startswith("interests: a.parquet cannot be read (ArrowInvalid), and may have rows of theirs")


def place_of(table: str, day: date, version: int | None = None) -> Path:
    """Return the first file of a table, or of a version of it, with rows of a date."""
    found = Table(table, version)
    return Path(found.path, next(file.path for file in found.files if file.partition["dt"] == day))


def cut_off(content: bytes) -> bytes:
    return content[:-20]


def with_a_damaged_page(content: bytes, column: str = "item_id") -> bytes:
    """Return a file of which, in its last rows, one column cannot be read: its pages are zeros."""
    footer = pq.ParquetFile(io.BytesIO(content)).metadata
    group = footer.row_group(footer.num_row_groups - 1)
    pages = next(group.column(n) for n in range(group.num_columns) if group.column(n).path_in_schema.endswith(column))
    start = pages.dictionary_page_offset or pages.data_page_offset
    return content[:start] + bytes(pages.total_compressed_size) + content[start + pages.total_compressed_size :]


def require_that_a_second_try_finishes(full, where, gone, before):
    """The same command, of what could not be read the first time, leaves nothing of the user and all of others."""
    receipt = forget([ANN], where)
    assert (receipt.unread, gone) == ([], ["identities"])
    assert receipt.finished
    assert list(found_in(full / "lake")) == []
    assert others() == before
    assert {done.where: done.rows for done in receipt.done if done.where in TABLES} == ROWS


@pytest.mark.parametrize(
    ("damaged", "error"),
    [(cut_off, "ArrowInvalid"), (with_a_damaged_page, "OSError"), (None, "FileNotFoundError")],
    ids=["cut off", "a damaged page", "gone"],
)
def test_a_file_of_readers_that_cannot_be_read_ends_nothing_and_is_named_until_it_can(full, damaged, error):
    before, gone = others(), []
    place = place_of("events", JAN_1)
    content, file = place.read_bytes(), str(place.relative_to(Table("events").path))
    if damaged:
        place.write_bytes(damaged(content))
    else:
        place.unlink()
    where = replace(places(), at_last=lambda _: gone.append("identities") or ([], []))
    receipt = forget([ANN], where)
    assert receipt.unread == [forgetting.Unread("events", file, str(JAN_1), error, is_newest=True)]
    (told,) = [left.what for left in receipt.left if file in left.what]
    assert told == (
        f"events: {file} of 2025-01-01 cannot be read ({error}), and may have rows of theirs: see to the rights or "
        "the connection, if it is that; otherwise put it back from a copy, or have its date published anew; then run "
        "this command again"
    )
    # It is not finished, and whoever can say the other name of the user still can.
    assert (receipt.finished, gone) == ("", [])
    assert storage.read_json(receipt_file(receipt.request))["unread"] == [vars(receipt.unread[0])]
    # No other file has rows of theirs, and those of others are all there: the damaged file is still that of readers.
    assert list(found_in(full / "lake", place)) == []
    assert {table: rows_seen(table) for table in TABLES if table != "events"} == {
        table: before[table] for table in TABLES if table != "events"
    }
    assert place_of("events", JAN_1) == place
    # Nothing is left of the file that was begun in its place.
    assert [each.name for each in place.parent.iterdir()] == ([place.name] if damaged else [])
    # Put back, it has rows of theirs again, and the same command does the rest.
    place.write_bytes(content)
    require_that_a_second_try_finishes(full, where, gone, before)


def test_a_file_that_a_training_alone_needs_and_that_cannot_be_read_is_named_with_what_to_do(full):
    before, place = others(), place_of("events", JAN_1, 1)
    place.write_bytes(cut_off(place.read_bytes()))
    receipt = forgotten()
    assert [(each.day, each.is_newest, receipt.finished) for each in receipt.unread] == [(str(JAN_1), False, "")]
    (told,) = [left.what for left in receipt.left if place.name in left.what]
    assert "or remove the training or model that has pinned its version; then run this command again" in told
    assert list(found_in(full / "lake", place)) == []
    assert rows_seen("events") == before["events"]
    # Without the training nobody needs the file: it is told as one that upkeep removes, and keeps nothing open.
    Path(plan_file("weekly")).unlink()
    receipt = forgotten()
    assert receipt.unread == []
    assert receipt.finished
    assert [left.by for left in receipt.left if place.name in left.what] == ["upkeep_weekly"]


def test_a_day_that_is_published_anew_finishes_a_forget_that_could_not_read_it(full):
    place = place_of("events", JAN_1)
    place.write_bytes(b"PAR1")
    assert not forgotten().finished
    put("events", "again", [event(ANN, "x"), event(BOB, "x")], [JAN_1])
    assert forgotten().finished
    assert list(found_in(full / "lake", place)) == []
    assert sum("datetime.date(2025, 1, 1))" in row and "'bob'" in row for row in rows_seen("events")) == 1


def test_a_summary_of_a_file_that_cannot_be_read_goes(full):
    """It has sums of single users, and is made again of what can be read then."""
    damaged = place_of("events", JAN_1)
    put("events", "third", [event(BOB, "t", JAN_3)], [JAN_3])
    kept = place_of("events", JAN_3)
    root = Path(Table("events").path)
    for name, inputs in (("1_2_x", [damaged]), ("3_4_y", [kept])):
        files = [str(file.relative_to(root)) for file in inputs]
        storage.write_json(f"{summaries_folder('on_time')}/{name}.json", {"inputs": files, "files": []})
    damaged.write_bytes(cut_off(damaged.read_bytes()))
    forgotten()
    assert list(storage.list_files(summaries_folder("on_time"))) == ["3_4_y.json"]


# ---- a log that cannot be read ----


def log_of(table: str) -> Path:
    return Path(Table(table).path, "_delta_log")


def files_below(folder: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def cut(log: Path) -> str:
    """Cut the newest commit off, as a full disk does."""
    newest = max(log.glob("*.json"))
    newest.write_bytes(newest.read_bytes()[:50])
    return "DeltaError"


def lacks_its_beginning(log: Path) -> str:
    min(log.glob("*.json")).unlink()
    return "DeltaError"


def is_garbled_where_delta_does_not_look(log: Path) -> str:
    """Damage what an old commit says of itself, which nobody needs who reads the newest version."""
    DeltaTable(str(log.parent)).create_checkpoint()
    oldest = sorted(log.glob("*.json"))[1]
    oldest.write_text(oldest.read_text() + '\n{"commitInfo":{"stage_id":\n')
    return "JSONDecodeError"


@pytest.mark.parametrize("damage", [cut, lacks_its_beginning, is_garbled_where_delta_does_not_look])
@pytest.mark.parametrize("table", ["events", "sessions"])
def test_a_log_that_cannot_be_read_ends_nothing_and_is_named_until_it_can(full, table, damage):
    # A summary of its events has sums of the user's.
    summary = Path(summaries_folder("last"))
    names = [f"{summary}/{name}" for name in ("1_2_x.json", "a.bin")]
    storage.write_json(names[0], {"inputs": [file.path for file in Table("events").files], "files": ["a.bin"]})
    storage.write_bytes(names[1], ANN.encode())
    before, gone, log = others(), [], log_of(table)
    folder, content = log.parent, files_below(log)
    error = damage(log)
    as_it_was = files_below(folder)
    where = replace(places(), at_last=lambda _: gone.append("identities") or ([], []))
    receipt = forget([ANN], where)
    assert receipt.unread == [forgetting.Unread(table, "_delta_log", "", error, is_newest=True)]
    assert [left.what for left in receipt.left if "_delta_log" in left.what] == [
        f"{table}: _delta_log cannot be read ({error}), so no file of the table was searched: see to the rights or the "
        "connection, if it is that; otherwise put it back from a copy; then run this command again"
    ]
    assert [done.note for done in receipt.done if done.where == table] == ["nothing was done: its log cannot be read"]
    assert (receipt.finished, gone) == ("", [])
    assert storage.read_json(receipt_file(receipt.request))["unread"] == [vars(receipt.unread[0])]
    # Nobody knows which of its files are needed, so all are as they were; in no other place is the user.
    assert files_below(folder) == as_it_was
    assert [file for file in found_in(full / "lake") if not file.startswith(f"{table}/")] == []
    # Put back, the same command does the rest.
    for file, text in content.items():
        file.write_bytes(text)
    require_that_a_second_try_finishes(full, where, gone, before)


def unmarked(log: Path) -> None:
    """Leave the folder of a log as tables had it before they were marked."""
    (log.parent / MADE).unlink()


def is_marked(log: Path) -> None:
    assert (log.parent / MADE).is_file()


def is_an_empty_folder(log: Path) -> None:
    unmarked(log)
    log.mkdir()


def was_told_to_another_table(log: Path) -> None:
    unmarked(log)
    stage_files("sessions", "s", [session(BOB, None)], [JAN_1], None, inputs={"events": 2})
    publish("sessions", "s")


def was_there_for_a_compaction(log: Path) -> None:
    unmarked(log)
    shutil.copytree(next(log.parent.glob("stage=*")), log.parent / "stage=merged-ab")


@pytest.mark.parametrize("sign", [is_marked, is_an_empty_folder, was_told_to_another_table, was_there_for_a_compaction])
def test_a_log_that_is_gone_beside_files_of_readers_is_one_that_cannot_be_read(lake, sign):
    for run, day in (("a", JAN_1), ("b", JAN_2)):
        put("events", run, [event(ANN, run, day), event(BOB, run, day)], [day])
    log, moved = log_of("events"), lake / "moved"
    log.rename(moved)
    sign(log)
    as_it_was = files_below(log.parent)
    receipt = forgotten()
    assert receipt.unread == [forgetting.Unread("events", "_delta_log", "", "TableNotFoundError", is_newest=True)]
    assert not receipt.finished
    assert [done.note for done in receipt.done if done.where == "events"] == [
        "nothing was done: its log cannot be read"
    ]
    assert files_below(log.parent) == as_it_was
    # Put back, all rows of the others are there, and the same command does the rest.
    for made in (log, log.parent / "stage=merged-ab"):
        shutil.rmtree(made, ignore_errors=True)
    moved.rename(log)
    assert sum(BOB in row for row in rows_seen("events")) == 2
    assert forgotten().finished
    assert [BOB in row for row in rows_seen("events")] == [True, True]
    assert list(found_in(lake / "lake")) == []


def test_where_nothing_tells_that_a_log_is_gone_no_file_is_lost_either(lake):
    put("events", "a", [event(ANN, "x"), event(BOB, "x")], [JAN_1])
    log = log_of("events")
    log.rename(lake / "moved")
    unmarked(log)
    forgotten()
    (lake / "moved").rename(log)
    assert sum(BOB in row for row in rows_seen("events")) == 1
    assert forgotten().finished
    assert list(found_in(lake / "lake")) == []
    assert sum(BOB in row for row in rows_seen("events")) == 1


def test_a_log_of_audits_that_is_gone_is_named(full):
    shutil.rmtree(Path(audits_path()) / "_delta_log")
    assert [(each.table, each.file) for each in forgotten().unread] == [("audits", "_delta_log")]


def test_a_log_that_may_not_be_listed_is_named(full, monkeypatch):
    log, list_names = str(log_of("interests")), storage.list_names

    def maybe(folder: str) -> list[str]:
        if folder == log:
            raise PermissionError(13, "Permission denied", folder)
        return list_names(folder)

    monkeypatch.setattr(storage, "list_names", maybe)
    receipt = forgotten()
    assert [(each.table, each.file, each.error) for each in receipt.unread] == [
        ("interests", "_delta_log", "PermissionError")
    ]
    # Its publishes need not look at what was staged before.
    assert noted("interests") == 0


def test_a_checkpoint_that_nobody_needs_and_cannot_be_read_is_named_and_its_rows_are_gone(full):
    Table("quarantine").delta.create_checkpoint()
    put("quarantine", "more", [rejected(BOB, 7)], [JAN_2])
    Table("quarantine").delta.create_checkpoint()
    old = min(log_of("quarantine").glob("*.checkpoint.parquet"))
    old.write_bytes(b"PAR1")
    receipt = forgotten()
    (unread,) = receipt.unread
    assert (unread.table, unread.file) == ("quarantine", f"_delta_log/{old.name}")
    (told,) = [left.what for left in receipt.left if old.name in left.what]
    assert told == (
        f"quarantine: _delta_log/{old.name} cannot be read (ArrowInvalid), and may have ids of theirs: see to the "
        "rights or the connection, if it is that; otherwise put it back from a copy, or remove it, if there is a newer "
        "one; then run this command again"
    )
    assert not receipt.finished
    assert list(found_in(full / "lake", old)) == []
    old.unlink()
    assert forgotten().finished


def test_nobody_is_told_to_remove_a_commit(full):
    Table("quarantine").delta.create_checkpoint()
    commit = sorted(log_of("quarantine").glob("*.json"))[1]
    content = commit.read_bytes()
    commit.write_bytes(content.replace(b'{"add":', b'{"adX":'))
    (told,) = [left.what for left in forgotten().left if commit.name in left.what]
    assert told == (
        f"quarantine: _delta_log/{commit.name} cannot be read (ValueError), and may have ids of theirs: see to the "
        "rights or the connection, if it is that; otherwise put it back from a copy; then run this command again"
    )
    commit.write_bytes(content)
    assert forgotten().finished


def test_a_commit_that_is_other_json_than_deltas_is_a_log_that_cannot_be_read(full):
    Table("quarantine").delta.create_checkpoint()
    commit = sorted(log_of("quarantine").glob("*.json"))[1]
    commit.write_text(commit.read_text() + '\n{"commitInfo":null}\n')
    assert [(each.file, each.error) for each in forgotten().unread] == [("_delta_log", "TypeError")]


# ---- a table of which nothing was published ----


def test_a_table_that_was_only_staged_is_published_without_the_user(lake):
    written = stage_files("events", "first", [event(ANN, "x"), event(BOB, "x")], [JAN_1], None)
    running = stage_files("events", "running", [event(ANN, "r", JAN_2), event(BOB, "r", JAN_2)], [JAN_2], None)
    stage_files("events", "others", [event(BOB, "o", JAN_3)], [JAN_3], None)
    manifest = Path(manifest_file(run_folder("running"), "events", running.stage_id))
    hidden = manifest.read_text()
    manifest.unlink()
    as_it_was = files_below(lake / "lake" / "events")
    receipt = forgotten()
    # Nothing says that these are no files of readers whose log is gone, so all stay.
    assert files_below(lake / "lake" / "events") == as_it_was
    (left,) = [left for left in receipt.left if "stagings" in left.what]
    assert left.what == (
        "events: 2 files of stagings that are being written, wait to be published, or were given up; their publish "
        "leaves the rows out, or lake.upkeep removes them"
    )
    assert left.until == f"{datetime.now(UTC) + timedelta(days=7):%Y-%m-%d}"
    (done,) = [done for done in receipt.done if done.where == "events"]
    assert done.note == "nothing was published: the publish of what is staged leaves the rows out"
    assert receipt.finished
    manifest.write_text(hidden)
    for run in ("first", "running", "others"):
        publish("events", run)
    assert [("'bob'" in row, "73194517qz" in row) for row in rows_seen("events")] == [(True, False)] * 3
    assert list(found_in(lake / "lake")) == []
    assert written.rows == running.rows == 2
    assert not [left for left in forgotten().left if "stagings" in left.what]


def test_a_run_at_work_on_the_first_rows_of_a_table_publishes_them_without_the_user(lake):
    put("events", "r", [event(BOB, "x")], [JAN_1])
    run = Run("running", JAN_1, JAN_1)  # it has read events, and has written no file yet
    forgotten()
    assert not (lake / "lake" / "sessions").exists()
    stage_files("sessions", "running", [session(ANN, None), session(BOB, None)], [JAN_1], None, run=run)
    assert publish("sessions", "running")["rows"] == 1
    assert list(found_in(lake / "lake")) == []
    # What begins later has read the list, and is not looked through; also where an earlier number is noted later.
    note_absent("sessions", 1)
    assert noted("sessions") > run.order
    later = stage_files("sessions", "later", [session(BOB, None)], [JAN_1], None)
    assert noted("sessions") < later.order


def lose(monkeypatch: pytest.MonkeyPatch, file: str, time: int) -> None:
    """Let the storage not answer when a file is opened for the so many-th time."""
    opened, parquet_file = [], storage.parquet_file

    def maybe(path: str) -> Any:
        if path.endswith(file):
            opened.append(path)
            if len(opened) == time:
                raise ConnectionResetError(104, "Connection reset by peer")
        return parquet_file(path)

    monkeypatch.setattr(storage, "parquet_file", maybe)


OF_ANN = matching.rows_of("events", NamedUsers(frozenset({ANN})))


def test_a_file_that_is_lost_after_its_rows_were_counted_is_told_as_one_that_cannot_be_read(tmp_path, monkeypatch):
    pq.write_table(pa.table({"user_id": [ANN, BOB]}), tmp_path / "a.parquet")
    lose(monkeypatch, "a.parquet", 2)
    with pytest.raises(FileUnreadable, match=r"a\.parquet cannot be read \(ConnectionResetError\)"):
        rewrite("landing", str(tmp_path), "a.parquet", OF_ANN)
    assert [file.name for file in tmp_path.iterdir()] == ["a.parquet"]


def test_where_a_file_cannot_be_written_anew_the_error_is_that_of_writing_and_nothing_is_left(tmp_path, monkeypatch):
    def full_disk(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    pq.write_table(pa.table({"user_id": [ANN, BOB]}), tmp_path / "a.parquet")
    monkeypatch.setattr(pq.ParquetWriter, "write_table", full_disk)
    with pytest.raises(OSError, match="No space left on device"):
        rewrite("landing", str(tmp_path), "a.parquet", OF_ANN)
    assert [file.name for file in tmp_path.iterdir()] == ["a.parquet"]


def test_a_staging_whose_storage_does_not_answer_is_named_and_published_without_the_user(full, monkeypatch):
    (file,) = [each.path for each in find_staged("events", "later").files]
    lose(monkeypatch, file, 2)
    receipt = forgotten()
    assert [left.what for left in receipt.left if file in left.what] == [
        f"events: {file} cannot be read (ConnectionResetError), and may have rows of theirs: a run that is writing it "
        "leaves them out, or lake.upkeep removes it; if it was the rights or the connection, run this command again"
    ]
    # The other staging was written anew.
    assert [done.note for done in receipt.done if "1 unpublished stagings" in done.note]
    publish("events", "later")
    assert [BOB in row for row in rows_seen("events") if repr(JAN_3) in row] == [True]


def test_texts_that_cannot_be_read_are_named_where_the_ids_beside_them_can(full):
    forgotten()
    place = place_of("sessions", JAN_1)
    place.write_bytes(with_a_damaged_page(place.read_bytes(), "query"))
    receipt = forgotten()
    assert receipt.finished, "each row is somebody's, and none is theirs"
    assert [left.what for left in receipt.left if place.name in left.what] == [
        f"sessions: texts of {place.relative_to(Table('sessions').path)} cannot be read"
    ]


# ---- killed, and beside publishes ----


class Killed(BaseException):
    """The end of a process, after which nothing of it runs."""


def test_killed_after_each_step_it_is_finished_by_running_it_again(full):
    before, expected = others(), None
    # Each call is killed one step later than the one before, as long as there is one to be killed after.
    for survived in range(1000):
        left = survived

        def progress(step: str) -> None:
            nonlocal left
            if not left:
                raise Killed
            left -= 1

        try:
            expected = forgotten(progress=progress)
            break
        except Killed:
            assert others() == before, f"killed after {survived} steps"
    assert survived > 15, "the steps are those that matter"
    assert list(found_in(full / "lake")) == []
    assert others() == before
    # The receipt also tells of what calls have done that were killed.
    assert {done.where: done.rows for done in expected.done if done.where in TABLES} == ROWS
    assert [model["dates"] for model in expected.models] == [[str(JAN_1)]]


def test_a_staging_that_began_before_is_published_without_the_user(full):
    # Its files hold the user and have no manifest yet: a job is writing them.
    staged = stage_files("events", "running", [event(ANN, "r", JAN_3), event(BOB, "r", JAN_3)], [JAN_3], None)
    (manifest,) = (full / "lake" / "_runs" / "running").glob(f"events.{staged.stage_id}.json")
    hidden = manifest.read_text()
    manifest.unlink()
    receipt = forgotten()
    assert [left.by for left in receipt.left if "stagings" in left.what] == ["upkeep_weekly"]
    manifest.write_text(hidden)
    said = publish("events", "running")
    assert said["rows"] == 1
    assert sum("'r'" in row for row in rows_seen("events")) == 1, "the other user's"
    assert list(found_in(full / "lake")) == []
    assert publish("events", "running")["already"]


def test_a_publish_that_looked_before_the_user_was_forgotten_looks_again(full, monkeypatch):
    first, commit = [True], publishing.commit

    def forget_in_between(*arguments: Any) -> None:
        if first:
            first.clear()
            forgotten()
        commit(*arguments)

    monkeypatch.setattr(publishing, "commit", forget_in_between)
    publish("events", "later")
    assert "73194517qz" not in "".join(rows_seen("events"))
    assert sum("'l'" in row for row in rows_seen("events")) == 1, "the other user's"
    assert list(found_in(full / "lake")) == []


def test_a_publish_that_looks_before_its_staging_is_written_anew(full, monkeypatch):
    looked, go, commit, staging = threading.Event(), threading.Event(), publishing.commit, []

    def wait(*arguments: Any) -> None:
        looked.set()
        go.wait(timeout=600)
        commit(*arguments)

    def publish_now(step: str) -> None:
        # It looks at the table that was committed first, and names the very files of its manifest.
        if step == "events: committed":
            staging.append(threading.Thread(target=publish, args=("events", "later")))
            staging[0].start()
            assert looked.wait(timeout=600)

    monkeypatch.setattr(publishing, "commit", wait)
    monkeypatch.setattr(publishing, "without_forgotten", lambda _, staged: (staged, []))
    forgotten(progress=publish_now)
    go.set()
    staging[0].join()
    assert sum("'l'" in row for row in rows_seen("events")) == 1
    assert list(found_in(full / "lake")) == []


def test_publishes_in_between_are_not_lost_and_are_looked_through(full, monkeypatch):
    commit = forgetting.commit
    both = [{**session(user, None), "dt": JAN_3} for user in (ANN, BOB)]
    stage_files("sessions", "later", both, [JAN_3], None)
    # One that replaces what was written anew, and one of another day, whose staging began before.
    between = {
        "quarantine": lambda: put("quarantine", "between", [rejected(ANN, 8), rejected(BOB, 9)], [JAN_1]),
        "sessions": lambda: publish("sessions", "later"),
    }

    def publish_in_between(delta: DeltaTable, *arguments: Any) -> None:
        between.pop(str(delta.metadata().name), lambda: None)()
        commit(delta, *arguments)

    monkeypatch.setattr(forgetting, "commit", publish_in_between)
    forgotten()
    assert [row for row in rows_seen("quarantine") if '"n": 9' in row] == rows_seen("quarantine")
    assert Table("sessions").rows_by() == {JAN_1: 1, JAN_3: 1}
    assert list(found_in(full / "lake")) == []


def test_of_two_at_once_the_later_number_counts(full, monkeypatch):
    commit, marks = forgetting.commit, []

    def mark() -> int | None:
        return Table("quarantine").delta.transaction_version("forgotten")

    def forget_in_between(*arguments: Any) -> None:
        if not marks:
            marks.append(None)
            forget([BOB], places())
            marks.append(mark())
        commit(*arguments)

    monkeypatch.setattr(forgetting, "commit", forget_in_between)
    forgotten()
    # Else a staging between both numbers would bring back a user of the later one.
    assert mark() == marks[1]


def test_a_run_that_begins_later_publishes_as_always(full):
    forgotten()
    put("events", "next", [event(BOB, "new")], [JAN_1])
    assert [row for row in rows_seen("events") if "'new'" in row]
