"""The pages that are written from the code: they are current, and list everything once."""

import re
from pathlib import Path

import pytest

from lake.docs import FOLDER, PAGES, main, settings_page, tables_page
from lake.schemas import INTERESTS, TABLES
from lake.settings import Settings


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_current(name):
    assert (FOLDER / name).read_text(encoding="utf-8") == PAGES[name](), "run `make docs`"


def test_the_command_writes_the_pages(tmp_path, monkeypatch):
    monkeypatch.setattr("lake.docs.FOLDER", tmp_path)
    main()
    assert {file.name: file.read_text(encoding="utf-8") for file in Path(tmp_path).iterdir()} == {
        "tables.md": tables_page(),
        "settings.md": settings_page(),
    }


def section(table: str) -> str:
    return tables_page().split(f"\n## `{table}`\n")[1].split("\n## ")[0]


@pytest.mark.parametrize("table", TABLES)
def test_every_column_of_a_table_is_listed_once_in_its_order(table):
    listed = re.findall(r"^\| `(\w+)` \|", section(table), re.MULTILINE)
    taken_over = INTERESTS.fieldNames()[:-1] if table == "examples" else []
    assert [*taken_over, *listed] == TABLES[table].schema.fieldNames()


def test_a_column_stands_with_its_type_and_meaning():
    assert "| `price` | `decimal(18,4)` | price of the row, in the shop's currency |" in section("events")
    assert "| `events` | array of structs | all its events, by time, then event_id |" in section("sessions")
    # Of what applications read, also as PostgreSQL calls it.
    assert "| `churn_probability` | `double` | `double precision` | that the user does nothing" in section(
        "predictions"
    )


def test_a_table_stands_with_what_makes_it_of_what():
    assert section("events").startswith(
        "\n|  |  |\n| --- | --- |\n"
        "| one row is | a cleaned event |\n"
        "| made by | `jobs.ingest`, in `behavior_daily` |\n"
        "| reads | landing files |\n"
        "| partitioned by | `dt`, `landed` |\n"
        "| a run replaces | its values of `landed`, each as a whole |\n"
        "| each landing day has a partition | yes |\n"
        "| audited and published with | `quarantine` |\n"
    )
    assert "| reads | `interests`, `events` |\n" in section("examples")


def test_every_setting_is_listed_with_its_type_and_default():
    rows = re.findall(r"^\| `(\w+)` \| ([^|]*) \| ([^|]*) \|", settings_page(), re.MULTILINE)
    assert [name for name, _, _ in rows] == [f"MEANDER_{name.upper()}" for name in Settings.model_fields]
    assert ("MEANDER_HORIZON_DAYS", "whole number", "`7`") in rows
    assert ("MEANDER_SERVING_URL", "text, a secret", "") in rows
    assert ("MEANDER_TIME_FLOOR", "date", "`2000-01-01`") in rows
