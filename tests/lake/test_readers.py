"""Readers see one version of a table, whole: while publishes go on, with other tools, and after a compaction."""

import threading
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any

import duckdb
import duckdb_extension_delta
import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, QueryBuilder
from pyspark.sql import Row
from pyspark.sql.pandas.types import to_arrow_schema
from pyspark.sql.types import (
    ArrayType,
    BooleanType,
    DataType,
    DateType,
    DecimalType,
    DoubleType,
    IntegerType,
    LongType,
    StringType,
    StructType,
    TimestampType,
)

from lake import audits
from lake.errors import TableMissing, TableUnreadable
from lake.places import table_path
from lake.publish import publish
from lake.schemas import TABLES
from lake.staging import Run, StagedFile, stage, write_staged
from lake.table import Table
from tests.lake.stagings import JAN_1, JAN_2, JAN_3, audit, read_files, rejected, stage_files

# Text that does not compress, so that its file is larger than two small ones.
BIG = " ".join(str(n * n) for n in range(2_000))


def published(run_id: str, rows: list, owns: list, basis: int) -> None:
    stage_files("quarantine", run_id, rows, owns, basis)
    publish("quarantine", run_id)


# ---- while publishes go on ----


def test_a_reader_that_has_pinned_a_version_keeps_its_rows(lake):
    published("1", rejected(JAN_1, "a") + rejected(JAN_2, "b"), [JAN_1, JAN_2], 1)
    pinned = Table("quarantine")
    published("2", rejected(JAN_1, "c", "d"), [JAN_1], 2)
    published("3", [], [JAN_1, JAN_2], 3)
    assert read_files(pinned, "raw") == [(JAN_1, "a"), (JAN_2, "b")]
    # Also one that comes late and asks for an old version by its number.
    assert read_files(Table("quarantine", pinned.version), "raw") == [(JAN_1, "a"), (JAN_2, "b")]
    assert read_files(Table("quarantine", pinned.version + 1), "raw") == [
        (JAN_1, "c"),
        (JAN_1, "d"),
        (JAN_2, "b"),
    ]
    assert read_files(Table("quarantine"), "raw") == []


def test_a_table_tells_its_own_commits_also_when_others_came_after_it_was_opened(lake):
    published("1", rejected(JAN_1, "a"), [JAN_1], 1)
    pinned = Table("quarantine")
    published("2", rejected(JAN_1, "b"), [JAN_1], 2)
    assert [(said["version"], said["run_id"]) for said in pinned.commits()] == [(1, "1")]
    assert [(said["version"], said["run_id"]) for said in Table("quarantine").commits()] == [(2, "2"), (1, "1")]


def test_a_query_sees_the_version_that_is_pinned(lake):
    published("1", rejected(JAN_1, "a") + rejected(JAN_2, "b", "c"), [JAN_1, JAN_2], 1)
    pinned = Table("quarantine")
    published("2", rejected(JAN_2, "d"), [JAN_2], 2)
    counted = "select dt, count(*) as n from quarantine group by dt order by dt desc"
    assert pinned.query(counted).to_pylist() == [{"dt": JAN_2, "n": 2}, {"dt": JAN_1, "n": 1}]
    assert Table("quarantine").query(counted).to_pylist() == [{"dt": JAN_2, "n": 1}, {"dt": JAN_1, "n": 1}]


def test_a_query_answers_with_plain_strings_also_in_lists_and_without_a_row(lake):
    rows = [
        {"user_id": "u", "dt": JAN_1, "item_ids": ["i", None], "frequency": 2},
        {"user_id": None, "dt": JAN_1, "item_ids": None, "frequency": None},
    ]
    stage_files("interests", "r", rows, [JAN_1], 1)
    publish("interests", "r")
    asked = "select user_id, item_ids, frequency from interests where {} order by frequency"
    answer = Table("interests").query(asked.format("true"))
    assert answer.to_pylist() == [
        {"user_id": "u", "item_ids": ["i", None], "frequency": 2},
        {"user_id": None, "item_ids": None, "frequency": None},
    ]
    nobody = Table("interests").query(asked.format("frequency > 2"))
    assert nobody.to_pylist() == []
    for found in (answer, nobody):
        assert [str(kind) for kind in found.schema.types] == ["string", "list<element: string>", "int64"]


def test_a_query_answers_with_plain_strings_in_structs_and_in_lists_of_structs(lake):
    # The events of a session are a list of structs, most of whose fields are strings.
    noon = datetime(2025, 1, 1, 12, tzinfo=UTC)
    event = {"event_time": noon, "event_id": "e", "behavior": "view", "item_id": None, "category_id": "c"}
    event |= {"query": None, "price": None}
    stage_files("sessions", "r", [{"session_id": "s", "dt": JAN_1, "events": [event]}], [JAN_1], 1)
    publish("sessions", "r")
    answer = Table("sessions").query("select events, events[1] as first from sessions")
    assert answer.to_pylist() == [{"events": [event], "first": event}]
    struct = (
        "struct<event_time: timestamp[us, tz=UTC], event_id: string, behavior: string, item_id: string, "
        "category_id: string, query: string, price: decimal128(18, 4)>"
    )
    assert [str(kind) for kind in answer.schema.types] == [f"list<element: {struct}>", struct]
    nobody = Table("sessions").query("select events from sessions where user_id = 'x'")
    assert nobody.schema.types == answer.schema.types[:1]


def test_a_query_may_join_other_tables(lake):
    published("1", rejected(JAN_1, "a", "b"), [JAN_1], 1)
    stage_files("sessions", "r", [{"session_id": "s", "user_id": "b", "dt": JAN_1}], [JAN_1], 1)
    publish("sessions", "r")
    joined = "select q.raw, s.session_id from quarantine q join sessions s on q.raw = s.user_id"
    assert Table("quarantine").query(joined, Table("sessions")).to_pylist() == [{"raw": "b", "session_id": "s"}]


def test_a_reader_never_sees_a_mix_of_two_publishes(lake):
    # Run n replaces both days by n rows each, all marked n.
    published("1", rejected(JAN_1, "1") + rejected(JAN_2, "1"), [JAN_1, JAN_2], 1)
    done, seen, mixed = threading.Event(), set(), []

    def read() -> None:
        while not done.is_set():
            table = Table("quarantine")
            by_log, by_files = table.rows_by(), read_files(table, "raw")
            marks = {mark for _, mark in by_files}
            n = int(next(iter(marks)))
            if len(marks) > 1 or by_log != {JAN_1: n, JAN_2: n} or len(by_files) != 2 * n:
                mixed.append((table.version, by_log, by_files))
            seen.add(table.version)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    # However slow the readers are, they see some publishes go by.
    runs = count(2)
    while len(seen) <= 8 and not mixed and all(reader.is_alive() for reader in readers):
        n = next(runs)
        rows = rejected(JAN_1, *[f"{n}"] * n) + rejected(JAN_2, *[f"{n}"] * n)
        published(f"{n}", rows, [JAN_1, JAN_2], n)
    done.set()
    for reader in readers:
        reader.join()
    assert mixed == []
    assert len(seen) > 8, "a reader failed"


# ---- what is not there ----


def test_a_table_or_version_that_is_not_there_is_named(lake):
    with pytest.raises(TableMissing, match=r"events has no published version at .*/lake/events"):
        Table("events")
    published("1", rejected(JAN_1, "a"), [JAN_1], 1)
    with pytest.raises(TableMissing, match=r"quarantine has no version 7 at .*/lake/quarantine"):
        Table("quarantine", 7)


@pytest.mark.parametrize(
    "read", [Table, Table.find, lambda name: Table(name, 1)], ids=["asked for", "looked for", "a version of it"]
)
def test_a_table_whose_log_is_damaged_or_gone_is_named_and_is_not_taken_for_one_that_never_was(lake, read):
    published("1", rejected(JAN_1, "a"), [JAN_1], 1)
    log = Path(table_path("quarantine"), "_delta_log")
    newest = max(log.glob("*.json"))
    content = newest.read_bytes()
    newest.write_bytes(content[:20])
    with pytest.raises(TableUnreadable, match=rf"the log {log} cannot be read \(DeltaError\); see to"):
        read("quarantine")
    newest.write_bytes(content)
    log.rename(lake / "moved")
    with pytest.raises(TableUnreadable, match=f"the log of {log.parent} is gone"):
        read("quarantine")


def test_a_look_at_a_day_shows_its_rows_with_their_partition_and_no_more_than_asked_for(lake):
    # Two landing days, so the day of the events lies in two files.
    for n, landed in enumerate((JAN_2, JAN_3)):
        rows = [{"event_id": f"{landed:%d}{i}", "dt": JAN_2, "landed": landed} for i in range(3)]
        stage_files("events", f"{n}", [*rows, {"event_id": "old", "dt": JAN_1, "landed": landed}], [landed], n)
        publish("events", f"{n}")
    table = Table("events")
    assert [len(table.head(JAN_2, limit)) for limit in (1, 3, 4, 6, 10)] == [1, 3, 4, 6, 6]
    found = {(row["event_id"], row["dt"], row["landed"]) for row in table.head(JAN_2, 10)}
    assert found == {(f"{landed:%d}{i}", JAN_2, landed) for landed in (JAN_2, JAN_3) for i in range(3)}


# ---- other tools ----


def query(sql: str, table: str = "quarantine") -> list[tuple]:
    """Ask deltalake's own SQL engine, which knows nothing of us."""
    answer = QueryBuilder().register("t", DeltaTable(table_path(table))).execute(sql).read_all()
    columns = [answer.column(name).to_pylist() for name in answer.column_names]
    return sorted(zip(*columns, strict=True))


def sample(kind: DataType, seed: int) -> Any:
    """Return a value of a type; other seeds give other values, and 0 the empty or least ones."""
    match kind:
        case StructType():
            return {field.name: sample(field.dataType, seed + i) for i, field in enumerate(kind.fields)}
        case ArrayType():
            return [sample(kind.elementType, seed + i) for i in range(seed)]
        case StringType():
            return "straße, 北 " * seed
        case DecimalType():
            return Decimal(seed).scaleb(-kind.scale)
        case TimestampType():
            return datetime(2025, 1, 1, 23, 59, 59, 999_999 * (seed > 0), tzinfo=UTC)
        case DateType():
            return JAN_1
        case BooleanType():
            return seed > 0
        case DoubleType():
            return seed / 4
        case IntegerType() | LongType():
            return seed
    raise AssertionError(f"{kind} is new: give it a sample")


def by_pandas(table: DeltaTable, schema: pa.Schema) -> pa.Table:
    return pa.Table.from_pandas(table.to_pandas(), schema)


def by_pyarrow(table: DeltaTable, schema: pa.Schema) -> pa.Table:
    return table.to_pyarrow_table().select(schema.names).cast(schema)


def by_polars(table: DeltaTable, schema: pa.Schema) -> pa.Table:
    # Its own Parquet reader takes every `name=value` folder for a partition, and so refuses our `stage=...`.
    return polars.read_delta(table.table_uri, use_pyarrow=True).to_arrow().select(schema.names).cast(schema)


def by_duckdb(table: DeltaTable, schema: pa.Schema) -> pa.Table:
    (extension,) = Path(duckdb_extension_delta.__file__).parent.rglob("delta.duckdb_extension")
    with duckdb.connect() as connection:
        connection.load_extension(str(extension))
        answer = connection.execute("select * from delta_scan(?)", [table.table_uri]).to_arrow_table()
    return answer.select(schema.names).cast(schema)


READERS = [by_pandas, by_pyarrow, by_polars, by_duckdb]


@pytest.fixture(scope="module")
def every_table(spark, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, list[dict[str, Any]]]]:
    """Publish rows in every table, as jobs do, and return them: values, empty or least values, and nulls."""
    rows: dict[str, list[dict[str, Any]]] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEANDER_LAKE", str(tmp_path_factory.mktemp("lake")))
        for name, spec in TABLES.items():
            partition = dict.fromkeys(spec.partition_by, JAN_1)
            nulls = dict.fromkeys(spec.schema.names)
            rows[name] = [row | partition for row in (sample(spec.schema, 2), sample(spec.schema, 0), nulls)]
            frame = spark.createDataFrame([Row(**row) for row in rows[name]], spec.schema)
            audit(stage(frame, name, Run("r", JAN_1, JAN_1), [JAN_1], 1))
            publish(name, "r")
        yield rows


@pytest.mark.spark
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", TABLES)
def test_every_table_is_read_by_what_people_read_delta_tables_with(every_table, name, reader):
    schema = to_arrow_schema(TABLES[name].schema)
    read = reader(DeltaTable(table_path(name)), schema).to_pylist()
    assert sorted(read, key=repr) == sorted(every_table[name], key=repr)


@pytest.mark.parametrize("reader", READERS)
def test_the_history_of_audits_is_read_alike(lake, reader):
    line = audits.AuditLine(
        *("events", "run", "stage", JAN_1, JAN_2, datetime(2025, 1, 3, 4, 5, 6, 7, tzinfo=UTC)),
        *("rows are as many as were read", "", "critical", False, "3 rows, expected 4", "failed", "/docs/page.html"),
    )
    audits.record([line])
    assert reader(DeltaTable(audits.audits_path()), audits.SCHEMA).to_pylist() == [asdict(line)]


def test_any_delta_reader_can_open_a_table(lake):
    published("1", rejected(JAN_1, "old") + rejected(JAN_2, "b"), [JAN_1, JAN_2], 1)
    published("2", rejected(JAN_1, "a", "c"), [JAN_1], 2)
    stage_files("quarantine", "3", rejected(JAN_1, "not published"), [JAN_1], 3)
    assert query("select dt, raw from t where dt >= date '2025-01-01'") == [
        (JAN_1, "a"),
        (JAN_1, "c"),
        (JAN_2, "b"),
    ]
    assert query("select count(*) from t where dt = date '2025-01-01'") == [(2,)]


def test_a_reader_that_skips_files_by_the_times_in_the_log_skips_no_row(lake):
    # One file of four row groups, of which neither the first nor the last holds the ends.
    rows = [
        {"event_id": f"{hour}", "event_time": datetime(2025, 1, 1, hour, tzinfo=UTC), "dt": JAN_1, "landed": JAN_1}
        for hour in (12, 22, 2, 9)
    ]
    stage_files("events", "r", rows, [JAN_1], 1, rows_in_group=1)
    publish("events", "r")
    wanted = {"event_time < '2025-01-01T03:00:00Z'": ["2"], "event_time > '2025-01-01T21:00:00Z'": ["22"]}
    for condition, ids in wanted.items():
        assert query(f"select event_id from t where {condition}", "events") == [(name,) for name in ids]


@pytest.mark.spark
def test_a_table_that_another_tool_has_compacted_in_part_keeps_its_rows(spark, lake):
    # Three files on the first day, of which the two small ones are compacted: the third stays where it was, and the two
    # dead ones still lie beside it.
    staged = stage_files("quarantine", "1", rejected(JAN_1, BIG) + rejected(JAN_2, "b"), [JAN_1, JAN_2], 1)
    first = Path(table_path("quarantine")) / staged.files[0].path
    small = pq.ParquetFile(first).read().slice(0, 0)
    files = list(staged.files)
    for n in (1, 2):
        row = small.from_pylist([{"reason": "missing_user", "raw": f"small {n}"}], schema=small.schema)
        pq.write_table(row, first.with_name(f"part-{n}.parquet"))
        path = staged.files[0].path.replace("part-0", f"part-{n}")
        files.append(StagedFile(path, 1, first.with_name(f"part-{n}.parquet").stat().st_size))
    assert files[0].bytes > files[2].bytes + files[3].bytes
    staged = replace(staged, files=files)
    write_staged(staged)
    audit(staged)
    publish("quarantine", "1")
    expected = [(JAN_1, BIG), (JAN_1, "small 1"), (JAN_1, "small 2"), (JAN_2, "b")]

    assert DeltaTable(table_path("quarantine")).optimize.compact(target_size=files[0].bytes)["numFilesRemoved"] == 2
    table = Table("quarantine")
    assert sorted(path.startswith("stage=") for path in (f.path for f in table.files)) == [False, True, True]
    assert sorted((row.dt, row.raw) for row in table.read(spark).collect()) == expected
    assert read_files(table, "raw") == query("select dt, raw from t") == expected

    # And a publish replaces what was compacted as it does any other file.
    published("2", rejected(JAN_1, "new"), [JAN_1], 2)
    assert sorted((row.dt, row.raw) for row in Table("quarantine").read(spark).collect()) == [
        (JAN_1, "new"),
        (JAN_2, "b"),
    ]


@pytest.mark.spark
def test_events_and_sessions_survive_compaction_by_another_tool(spark, lake):
    # Two partition columns in the one, an array of structs in the other.
    sight = {"event_id": "e", "behavior": "view", "price": None}
    for n, landed in enumerate((JAN_2, JAN_3)):
        rows = [{"event_id": f"{landed}", "user_id": "u", "dt": dt, "landed": landed} for dt in (JAN_1, JAN_2)]
        stage_files("events", f"{n}", rows, [landed], n)
        publish("events", f"{n}")
    rows = [{"session_id": f"{dt}", "events": [sight, sight], "dt": dt} for dt in (JAN_1, JAN_2)]
    stage_files("sessions", "s", rows, [JAN_1, JAN_2], 1)
    publish("sessions", "s")
    before = {table: sorted(Table(table).read(spark).collect(), key=repr) for table in ("events", "sessions")}
    for table, column in (("events", "user_id"), ("sessions", "session_id")):
        # z_order writes every partition anew, also those of one file.
        DeltaTable(table_path(table)).optimize.z_order([column])
        assert not any(file.path.startswith("stage=") for file in Table(table).files)
        assert sorted(Table(table).read(spark).collect(), key=repr) == before[table]
    assert Table("events").read(spark, first=JAN_2, landed_by=JAN_2).count() == 1
