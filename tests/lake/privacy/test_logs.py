"""No text of a row stays in the log of a table: neither in its commits nor in its checkpoints."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from lake.places import table_path
from lake.privacy.logs import redact_log
from lake.publish import publish
from lake.settings import settings
from lake.table import Table
from tests.lake.published import rows
from tests.lake.stagings import JAN_1, JAN_2, rejected, stage_files

TEXT = "ann@example.org"


def put(day, *texts: str) -> None:
    run = f"{len(list(Path(settings().lake).rglob('*.parquet')))}"
    stage_files("quarantine", run, rejected(day, *texts), [day], None)
    publish("quarantine", run)


@pytest.fixture
def table(lake) -> Path:
    """Return a table whose log delta-rs has filled with texts, in commits and in a checkpoint."""
    put(JAN_1, f"{TEXT} 1", f"{TEXT} 2")
    for day in (JAN_1, JAN_2):
        put(day, f"{TEXT} 3")
    path = table_path("quarantine")
    # What other tools write, and compactions of earlier versions.
    DeltaTable(path).optimize.z_order(["raw"])
    DeltaTable(path).create_checkpoint()
    put(JAN_2, "bob")
    return Path(path)


def files_with_texts(table: Path) -> list[str]:
    log = table / "_delta_log"
    return [file.name.split(".", 1)[1] for file in sorted(log.iterdir()) if TEXT.encode() in file.read_bytes()]


def test_texts_of_rows_are_taken_out_of_the_log_and_readers_see_what_they_saw(table):
    assert files_with_texts(table) == ["checkpoint.parquet", "json"]
    before = rows("quarantine")
    versions = [rows_at(version) for version in range(DeltaTable(table).version() + 1)]
    assert redact_log(str(table)) == (2, {})
    assert files_with_texts(table) == []
    assert rows("quarantine") == before
    # Each version is read anew, by way of the checkpoint and without it.
    assert [rows_at(version) for version in range(DeltaTable(table).version() + 1)] == versions
    assert Table("quarantine").basis(JAN_1) is not None
    put(JAN_1, "a publish goes on")
    assert redact_log(str(table)) == (0, {}), "and there is nothing left to do"


def rows_at(version: int) -> int:
    actions = DeltaTable(table_path("quarantine"), version=version).get_add_actions()
    return sum(actions.column("num_records").to_pylist())


def test_times_stay_since_plans_are_made_from_them(lake):
    stage_files("events", "r", [{"event_id": "e", "event_time": None, "dt": JAN_1, "landed": JAN_1}], [JAN_1], None)
    publish("events", "r")
    log = Path(table_path("events")) / "_delta_log" / f"{1:020}.json"
    lines = log.read_text().splitlines()
    stats = {"numRecords": 1, "minValues": {"event_time": "2025-01-01T00:00:00.000000Z", "user_id": TEXT}}
    with log.open("w") as file:
        for line in lines:
            entry = json.loads(line)
            if "add" in entry:
                entry["add"]["stats"] = json.dumps(stats)
            file.write(json.dumps(entry, separators=(",", ":")) + "\n")
    assert redact_log(table_path("events")) == (1, {})
    (said,) = [json.loads(line)["add"]["stats"] for line in log.read_text().splitlines() if line.startswith('{"add"')]
    assert json.loads(said) == {"numRecords": 1, "minValues": {"event_time": "2025-01-01T00:00:00.000000Z"}}


# Lines that are no action of Delta, with the class of the error.
NO_ACTIONS = (
    ('{"add":null}', "AttributeError"),
    ('{"add":[]}', "AttributeError"),
    ('{"add":{"path":"x","stats":"[1]"}}', "AttributeError"),
    ('{"add":{"path":"x","stats":[1]}}', "TypeError"),
    ('{"add":{"path":"x","stats":"{\\"minValues\\":7}"}}', "TypeError"),
    ('{"add":{"path":"x","stats":"{\\"minValues\\""}}', "JSONDecodeError"),
    # Damaged where the name of its action stands, or before it.
    (f'{{"adX":{{"stats":"{TEXT}"}}}}', "ValueError"),
    (f'\0"add":{{"stats":"{TEXT}"}}}}', "JSONDecodeError"),
    ("{}", "ValueError"),
    ("null", "AttributeError"),
    ('{"add":{"path":"x"},"remove":{"path":"x"}}', "ValueError"),
)


def test_a_commit_with_a_line_that_is_no_action_is_named_and_stays(table):
    commit = min((table / "_delta_log").glob("*.json"))
    before = commit.read_text()
    for line, error in NO_ACTIONS:
        commit.write_text(f"{before}\n{line}\n")
        assert redact_log(str(table))[1] == {commit.name: error}, line
        assert commit.read_text() == f"{before}\n{line}\n"


def test_statistics_without_a_number_of_rows_stay_without(table):
    commit = min((table / "_delta_log").glob("*.json"))
    text = commit.read_text()
    statistics = json.dumps({"minValues": {"raw": TEXT, "dt": "2025-01-01"}, "maxValues": None})
    added = json.dumps({"add": {"path": "x", "stats": statistics}}, separators=(",", ":"))
    commit.write_text(f"{text}\n\n{added}\n")
    assert redact_log(str(table)) == (3, {})
    kept = json.dumps({"minValues": {"dt": "2025-01-01"}})
    added = json.dumps({"add": {"path": "x", "stats": kept}}, separators=(",", ":"))
    assert commit.read_text() == f"{text}\n\n{added}\n"


def test_a_checkpoint_whose_statistics_are_cut_off_is_named_and_stays(table):
    (checkpoint,) = (table / "_delta_log").glob("*.checkpoint.parquet")
    rows = pq.read_table(checkpoint)
    added = rows["add"].combine_chunks()
    columns = {field.name: added.field(field.name) for field in added.type}
    cut = [text and text[:-3] for text in columns["stats"].to_pylist()]
    columns["stats"] = pa.array(cut, columns["stats"].type)
    struct = pa.StructArray.from_arrays(list(columns.values()), fields=list(added.type), mask=added.is_null())
    pq.write_table(rows.set_column(rows.column_names.index("add"), "add", struct), checkpoint)
    content = checkpoint.read_bytes()
    assert redact_log(str(table)) == (1, {checkpoint.name: "JSONDecodeError"})
    assert checkpoint.read_bytes() == content


def test_a_dry_run_only_counts(table):
    assert redact_log(str(table), dry_run=True) == (2, {})
    assert len(files_with_texts(table)) == 2


def test_a_file_of_the_log_that_cannot_be_read_keeps_no_text_in_another_and_is_named(table):
    log = table / "_delta_log"
    (checkpoint,) = log.glob("*.checkpoint.parquet")
    content = checkpoint.read_bytes()
    # The newest one is another.
    DeltaTable(table).create_checkpoint()
    checkpoint.write_bytes(content[:-20])
    commit = min(log.glob("*.json"))
    commit.write_text(commit.read_text() + '\n{"add":{"path":\n')
    # The second checkpoint, and the commit of the compaction.
    assert redact_log(str(table)) == (2, {commit.name: "JSONDecodeError", checkpoint.name: "ArrowInvalid"})
    assert files_with_texts(table) == ["checkpoint.parquet"]
