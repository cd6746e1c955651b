"""`meander source`: a contract that files are compared with, and a first source that a person looks at."""

import json
from datetime import date

import pytest
import yaml
from typer.testing import CliRunner

from dags.cli.main import app
from dags.cli.source import asked
from jobs.source import load_source
from lake.errors import LandingUnreadable, SettingsInvalid, SourceInvalid, SourceMismatch

DAY, NEXT = date(2025, 1, 1), date(2025, 1, 2)


def invoke(*args, **options):
    """Run a command and return what it printed; a failure is raised as it is."""
    return CliRunner().invoke(app, ["source", *args], catch_exceptions=False, **options)


def event(user, **more):
    return {"user_id": user, "event_time": "2025-01-01T12:00:00Z", "behavior": "view", "item_id": "i", **more}


def test_a_contract_is_written_and_then_kept_or_not(lake, land):
    land(DAY, [event("u1"), event("u2", price=1.5)])
    written = invoke("contract", "--version", "2.0.0")
    assert written.exit_code == 0
    about = yaml.safe_load(written.stdout)
    assert [(each["name"], each["physicalType"]) for each in about["schema"]] == [
        ("landing", "jsonl file"),
        ("events", "delta table"),
    ]
    assert (about["version"], about["name"]) == ("2.0.0", "canonical")
    types = {each["name"]: each.get("physicalType") for each in about["schema"][0]["properties"]}
    # Half of the rows have a price, none has a category.
    assert types == {
        **{"user_id": "text", "event_time": "text", "behavior": "text", "item_id": "text", "price": "number"},
        **{"category_id": None, "query": None},
    }
    file = lake / "contract.yaml"
    file.write_text(written.stdout)
    kept = invoke("contract", "--check", str(file))
    assert (kept.exit_code, kept.stdout) == (0, f"2025-01-01: as agreed in {file}\n")

    land(NEXT, [event(7, price=1.5, shop="a"), event(8, price=2.5, shop="a")])
    broken = invoke("contract", "--check", str(file))
    assert broken.exit_code == 1, "a script asks it"
    assert broken.stdout == (
        f"files: new: 'shop' (text)\nfiles: 'user_id' was text, is number\n2025-01-02: differs from {file}\n"
    )


def test_each_kind_of_files_has_its_part_of_the_contract(lake, land, monkeypatch):
    source = {
        "name": "mine",
        "description": "two kinds",
        "format": "jsonl",
        "user_id": "u",
        "time": {"column": "t", "format": "iso8601"},
        "behavior": {"constant": "view"},
        "versions": [{"files": "orders*", "user_id": "buyer", "behavior": {"constant": "purchase"}}],
    }
    (lake / "mine.yaml").write_text(yaml.safe_dump(source))
    monkeypatch.setenv("MEANDER_SOURCE", str(lake / "mine.yaml"))
    land(DAY, [{"u": "a", "t": "2025-01-01T12:00:00Z"}], "views.jsonl")
    land(DAY, [{"buyer": 7, "t": "2025-01-01T12:00:00Z"}], "orders.jsonl")
    file = lake / "contract.yaml"
    file.write_text(invoke("contract").stdout)
    about = {each["name"]: each for each in yaml.safe_load(file.read_text())["schema"]}
    assert list(about) == ["landing", "landing orders*", "events"]
    assert [each["name"] for each in about["landing orders*"]["properties"]] == ["buyer", "t"]
    assert about["landing orders*"]["physicalName"] == "dt=YYYY-MM-DD/orders*"
    land(DAY, [{"buyer": "b", "t": "2025-01-01T12:00:00Z"}], "orders.jsonl")
    assert invoke("contract", "--check", str(file)).stdout.splitlines()[0] == "orders*: 'buyer' was number, is text"


def test_without_a_landing_a_contract_has_what_the_source_reads_and_nothing_to_compare(lake):
    written = invoke("contract")
    names = [each["name"] for each in yaml.safe_load(written.stdout)["schema"][0]["properties"]]
    assert names == ["user_id", "item_id", "category_id", "query", "price", "event_time", "behavior"]
    assert "has no complete landing day with a file" in written.stderr
    with pytest.raises(SourceMismatch, match="has no complete landing day with a file to compare with"):
        invoke("contract", "--check", "any.yaml")


def test_a_contract_is_compared_with_the_newest_day_that_is_complete_and_has_files(lake, land, monkeypatch):
    land(DAY, [event("u1")])
    file = lake / "contract.yaml"
    file.write_text(invoke("contract").stdout)
    empty = lake / "landing" / f"dt={NEXT}"
    empty.mkdir()
    (empty / "a.jsonl").touch()
    assert invoke("contract", "--check", str(file)).stdout == f"2025-01-01: as agreed in {file}\n"
    # Of a day that is not complete nothing is read.
    land(NEXT, [event(7)])
    assert invoke("contract", "--check", str(file)).exit_code == 1
    monkeypatch.setenv("MEANDER_LANDING_MARKER", "_SUCCESS")
    (lake / "landing" / f"dt={DAY}" / "_SUCCESS").touch()
    assert invoke("contract", "--check", str(file)).stdout == f"2025-01-01: as agreed in {file}\n"
    # Nor is a file of another place.
    (empty / "_SUCCESS").touch()
    (empty / "b.jsonl").symlink_to("/etc/hosts")
    with pytest.raises(LandingUnreadable, match="a link that leads out of it"):
        invoke("contract")


def test_what_is_no_contract_is_said(lake, land):
    land(DAY, [event("u1")])
    with pytest.raises(SourceInvalid, match=r"none.yaml cannot be read: No such file"):
        invoke("contract", "--check", str(lake / "none.yaml"))
    (lake / "other.yaml").write_text("name: x\n")
    with pytest.raises(SourceInvalid, match="expected a contract of the Open Data Contract Standard"):
        invoke("contract", "--check", str(lake / "other.yaml"))


@pytest.mark.spark
def test_a_first_source_is_written_and_shown_with_what_becomes_of_the_rows(spark, lake, tmp_path, monkeypatch):
    # When a file of long ago lands is not known yet.
    monkeypatch.setenv("MEANDER_MAX_DAYS_LATE", "1")
    file, to = tmp_path / "log.csv", tmp_path / "My Shop.yaml"
    good = "".join(f"u{n},2025-01-01T12:00:{n:02}Z,i,view\n" for n in range(11))
    file.write_text(f"user,time,item,event\n{good}bob,soon,i,view\n")
    told = invoke("init", str(file), "--to", str(to))
    assert load_source(str(to)).name == "my_shop"
    assert to.read_text() in told.stdout
    assert "rows: 11 event, 1 unparsable_time (does `time.format` fit?)\n" in told.stdout
    assert f"Written to {to}. Look at its comments, then: MEANDER_SOURCE={to}\n" in told.stdout


def test_a_first_source_that_does_not_load_is_not_written(lake, tmp_path):
    file, to = tmp_path / "log.csv", tmp_path / "a.yaml"
    # More lines above the header than a source can skip.
    file.write_text("about\n" * 51 + "user,time,item\n" + "a,2025-01-01T12:00:00Z,x\n" * 99)
    with pytest.raises(
        SourceInvalid, match=r"a\.yaml: skip_lines: .* So it was not written; answer otherwise"
    ) as error:
        invoke("init", str(file), "--to", str(to), "--no-preview")
    assert (to.exists(), str(to) in str(error.value)) == (False, True)


def test_a_first_source_takes_no_file_away(lake, tmp_path):
    file, to = tmp_path / "log.csv", tmp_path / "a.yaml"
    file.write_text("who,time,item\na,2025-01-01T12:00:00Z,x\n")
    with pytest.raises(SourceMismatch, match="name it by --user COLUMN"):
        invoke("init", str(file), "--to", str(to), "--no-preview")
    assert not to.exists()
    invoke("init", str(file), "--to", str(to), "--no-preview", "--user", "who")
    assert load_source(str(to)).user_id.columns == ("who",)
    before = to.read_text()
    with pytest.raises(SettingsInvalid, match="exists; write to another file"):
        invoke("init", str(file), "--to", str(to), "--no-preview", "--user", "who")
    assert to.read_text() == before
    with pytest.raises(SettingsInvalid, match=r"is the name of a file that ends in \.yaml; received x\.txt"):
        invoke("init", str(file), "--to", "x.txt")
    with pytest.raises(SettingsInvalid, match="cannot be written: No such file"):
        invoke("init", str(file), "--to", str(tmp_path / "none" / "a.yaml"), "--no-preview", "--user", "who")


@pytest.mark.parametrize(
    ("typed", "answer"),
    [
        pytest.param(["b"], "b", id="one of them"),
        pytest.param([""], "a", id="the likely one"),
        pytest.param(["x", "b"], "b", id="asked again"),
        pytest.param(["none"], "", id="none of them"),
    ],
)
def test_a_question_is_asked_until_it_is_answered(monkeypatch, typed, answer):
    given = iter(typed)
    monkeypatch.setattr("typer.prompt", lambda _, default: next(given) or default)
    assert asked("Which?", ["", "a", "b"], "a") == answer


def test_a_column_of_any_name_is_shown_as_text_and_can_be_answered(monkeypatch):
    hostile = "\x1b[2J\u202euser"
    shown = []

    def prompt(text, default):
        assert not shown, "asked again: the answer was not understood"
        shown.append(text + default)
        return default

    monkeypatch.setattr("typer.prompt", prompt)
    assert asked(f"What is {hostile}?", ["", hostile], hostile) == hostile
    assert all(each.isprintable() for each in shown)


def test_a_question_with_any_answer(monkeypatch):
    monkeypatch.setattr("typer.prompt", lambda *_, **__: " Europe/Berlin ")
    assert asked("In which zone?", [], "UTC") == "Europe/Berlin"


def test_what_the_supplier_has_changed_is_shown_with_the_days(lake):
    from lake.publish import publish
    from tests.lake.stagings import stage_files

    changes = {"since": "2024-12-31", "changes": ["gone: '[b]rand'"]}
    stage_files("events", "r", [], [DAY], 1, counts={"input": 0, "accepted": 0, "supplied": changes})
    publish("events", "r")
    shown = CliRunner().invoke(app, ["days"], catch_exceptions=False).stdout
    assert "2025-01-01: columns since 2024-12-31: gone: '[b]rand'; see docs/runbook.md#supplier-changed\n" in shown
    (run,) = json.loads(CliRunner().invoke(app, ["days", "--json"], catch_exceptions=False).stdout)
    assert run["supplied"] == ["columns since 2024-12-31: gone: '[b]rand'"]
