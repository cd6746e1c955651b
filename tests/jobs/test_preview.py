"""From where the doctor says that a field is read; what it makes of rows is in tests/dags/cli/test_doctor.py."""

from pathlib import Path

import pytest

from jobs.preview import ROWS, read_from, summary, write_first
from jobs.source import load_source, shipped_sources


@pytest.mark.parametrize("name", shipped_sources())
def test_each_shipped_source_can_be_shown(name):
    shown = {field.name: field.read_from for field in summary(load_source(name), []).fields}
    assert all(shown[required] for required in ("user_id", "event_time", "behavior"))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le"])
def test_of_a_large_file_the_first_rows_are_cut_between_lines(tmp_path, encoding):
    source = load_source("canonical").model_copy(update={"encoding": encoding})
    lines = [
        f'{{"user_id": "{n:06}", "event_time": "2025-01-01T00:00:00Z", "behavior": "view"}}\n' for n in range(20_000)
    ]
    place = tmp_path / "dt=2025-01-01" / "a.jsonl"
    place.parent.mkdir()
    place.write_bytes("".join(lines).encode(encoding))
    target = tmp_path / "target"
    target.mkdir()
    written = Path(write_first(source, str(place), target))
    assert written.read_bytes() == "".join(lines[:ROWS]).encode(encoding)


def test_a_field_is_read_from_a_column_a_constant_or_nothing():
    source = load_source("completejourney")
    assert read_from(source, "behavior") == "constant: purchase"
    assert read_from(source, "event_time") == ", ".join(source.time.column.columns)
    assert read_from(source, "query") == ""
