"""What a supplier is asked to deliver: by hand for one source, and whether files keep to it."""

import json
from datetime import date
from importlib import resources

import pandas as pd
import pyarrow as pa
import pytest
import yaml
from pyarrow import orc
from typer.testing import CliRunner

from dags.cli.main import app
from expectations import audit
from jobs import ingest
from jobs.arguments import job_parser, parse_run
from jobs.contract import against_contract, contract, differences, landing_object, time_type
from jobs.drift import columns_seen
from jobs.source import load_source, shipped_sources
from lake.errors import SettingsInvalid, SourceInvalid
from lake.publish import publish
from lake.settings import Settings
from tests.jobs.test_packed import zipped

MINE = {
    "name": "mine",
    "description": "Our shop.",
    "format": "csv",
    "user_id": ["login", "cookie"],
    "item_id": "item",
    "time": {"column": "at", "format": "dd.MM.yyyy HH:mm", "zone": "Europe/Berlin"},
    "behavior": {"column": "what", "values": {"look": "view", "gone": "ignore"}},
}


@pytest.fixture
def mine(tmp_path):
    def load(**changes):
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump({**MINE, **changes}, sort_keys=False))
        return load_source(str(tmp_path / "mine.yaml"))

    return load


def properties(source, seen):
    about = landing_object(source, "", seen, Settings())
    return {each.pop("name"): each for each in about["properties"]}


def used(*fields):
    return [{"property": "meanderFields", "value": list(fields), "vendor": "meander"}]


def test_what_is_agreed_of_each_column(mine):
    assert properties(mine(), dict.fromkeys(("at", "what", "login", "shop"), "text")) == {
        "at": {
            "logicalType": "timestamp",
            "logicalTypeOptions": {"format": "dd.MM.yyyy HH:mm"},
            "physicalType": "text",
            "required": True,
            "description": "time of the event: dd.MM.yyyy HH:mm, in the zone Europe/Berlin where it says none",
            "customProperties": used("time"),
        },
        "what": {
            "logicalType": "string",
            "physicalType": "text",
            "required": True,
            "description": "what the user did",
            "enum": [{"value": "look", "description": "view"}, {"value": "gone", "description": "ignore"}],
            "customProperties": used("behavior"),
        },
        # The user may also be in the other column, so that neither has to have a value.
        "login": {
            "logicalType": "string",
            "physicalType": "text",
            "description": "user",
            "customProperties": used("user_id"),
        },
        "shop": {"logicalType": "string", "physicalType": "text", "description": "not read"},
        # Not seen yet, so that nobody knows its type.
        "cookie": {"logicalType": "string", "description": "user", "customProperties": used("user_id")},
        "item": {"logicalType": "string", "description": "item", "customProperties": used("item_id")},
    }


def test_values_are_agreed_only_where_others_are_rejected(mine):
    behavior = MINE["behavior"]
    assert "enum" not in properties(mine(behavior={**behavior, "others": "ignore"}), {})["what"]
    by_expression = {"column": {"sql": "lower(what)"}, "values": {"look": "view"}}
    assert "enum" not in properties(mine(behavior=by_expression), {})["what"]
    assert "required" not in properties(mine(behavior=by_expression), {})["what"]


@pytest.mark.parametrize(
    ("form", "seen", "kind"),
    [
        ("epoch_ms", "string", {"logicalType": "integer"}),
        ("epoch_s", "number", {"logicalType": "number"}),
        ("iso8601", "string", {"logicalType": "timestamp"}),
        ("yyyy-MM-dd", "string", {"logicalType": "timestamp", "logicalTypeOptions": {"format": "yyyy-MM-dd"}}),
    ],
)
def test_the_type_of_a_time(form, seen, kind):
    assert time_type(form, seen) == kind


@pytest.mark.parametrize(
    ("pattern", "rows", "says"),
    [
        pytest.param("", [{"at": 1, "who": "a"}] * 2, [], id="as agreed"),
        pytest.param("", [{"at": 1, "who": "a", "shop": 1}] * 2, ["new: 'shop' (number)"], id="one more"),
        pytest.param("", [{"at": 1}] * 2, ["gone: 'who'"], id="one fewer"),
        pytest.param("", [{"at": "1", "who": "a"}] * 2, ["'at' was number, is text"], id="another type"),
        pytest.param("", [{"at": 1, "who": "a", "rare": [1]}] * 2, [], id="of a column without a type nothing is said"),
        pytest.param("", [{"at": 1, "who": "a"}] + [{"at": 1}] * 9, [], id="a key that few objects have is not gone"),
        pytest.param("x*", [{"at": 1}], ["gone: 'b'", "'at' was text, is number"], id="another kind of files"),
    ],
)
def test_how_files_differ_from_a_contract(tmp_path, pattern, rows, says):
    file = tmp_path / "a.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    agreed = {
        "kind": "DataContract",
        "schema": [
            {
                "name": "landing",
                "properties": [
                    {"name": "at", "physicalType": "number"},
                    {"name": "who", "physicalType": "text"},
                    {"name": "rare"},
                ],
            },
            {
                "name": "landing x*",
                "properties": [{"name": "at", "physicalType": "text"}, {"name": "b", "physicalType": "text"}],
            },
        ],
    }
    assert differences(agreed, pattern, load_source("canonical"), [str(file)]) == says


AT_AND_WHO = [{"name": "at", "physicalType": "number"}, {"name": "who", "physicalType": "text"}]


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        pytest.param([{"at": 1, "who": "a"}], [], id="as agreed"),
        pytest.param([{"at": 1}], ["gone: 'who'"], id="one fewer"),
        pytest.param([], [], id="no file has a row"),
    ],
)
def test_files_without_a_row_are_passed_over_beside_others_and_in_a_zip(tmp_path, rows, says):
    agreed = {"kind": "DataContract", "schema": [{"name": "landing", "properties": AT_AND_WHO}]}
    empty, array, full = tmp_path / "00.json", tmp_path / "01.json", tmp_path / "02.json"
    empty.write_text("")
    array.write_text("[]")
    full.write_text(json.dumps(rows))
    packed = tmp_path / "log.zip"
    packed.write_bytes(zipped(a=b"", b=b"[]", c=json.dumps(rows).encode()))
    for files in ([empty, array, full], [packed], [array, packed]):
        assert differences(agreed, "", load_source("canonical"), [str(file) for file in files]) == says


def test_a_file_of_csv_without_a_byte_in_a_zip_lacks_no_column(tmp_path, mine):
    named = [{"name": name, "physicalType": "text"} for name in ("at", "what", "login")]
    agreed = {"kind": "DataContract", "schema": [{"name": "landing", "properties": named}]}
    packed = tmp_path / "log.zip"
    packed.write_bytes(zipped(a=b"", b=b"at,what\n"))
    assert differences(agreed, "", mine(), [str(packed)]) == ["gone: 'login'"]
    packed.write_bytes(zipped(a=b"", b=b""))
    assert differences(agreed, "", mine(), [str(packed)]) == []


@pytest.mark.parametrize(
    ("agreed", "says"),
    [
        (None, "expected a contract of the Open Data Contract Standard"),
        ({"name": "mine"}, "expected a contract of the Open Data Contract Standard"),
        ({"kind": "DataContract"}, "expected a contract of the Open Data Contract Standard"),
        ({"kind": "DataContract", "schema": [{"name": "events"}]}, "has no schema with the name 'landing'"),
        *(
            (
                {"kind": "DataContract", "schema": [{"name": "landing", "properties": wrong}]},
                "the properties of 'landing' in the contract must be a list of columns",
            )
            for wrong in ("user", {"name": "a"}, ["user"], [{"physicalType": "text"}], [{"name": 5}])
        ),
        (
            {"kind": "DataContract", "schema": [{"name": "landing", "properties": [{"name": "a", "physicalType": 5}]}]},
            r"found \{'name': 'a', 'physicalType': 5\}",
        ),
    ],
)
def test_what_is_no_contract_is_told(agreed, says):
    with pytest.raises(SourceInvalid, match=says):
        differences(agreed, "", load_source("canonical"), [])


def test_a_contract_without_properties_agrees_on_nothing():
    agreed = {"kind": "DataContract", "schema": [{"name": "landing", "properties": None}]}
    assert differences(agreed, "", load_source("canonical"), []) == []


def test_a_contract_that_was_just_written_is_kept(tmp_path, mine):
    """Of each kind of file, also after it was a file of YAML."""
    csv, parquet = tmp_path / "a.csv", tmp_path / "a.parquet"
    csv.write_text("at,what,login,cookie,item\n")
    pd.DataFrame({"user_id": [1], "tags": [["a"]], "none": [None]}).to_parquet(parquet)
    for source, file in ((mine(), csv), (load_source("canonical"), parquet)):
        about = landing_object(source, "", columns_seen(source, [str(file)]), Settings())
        written = yaml.safe_load(yaml.safe_dump(contract(source, "1.0.0", [about], Settings())))
        assert differences(written, "", source, [str(file)]) == []
        assert (written["id"], written["version"], written["kind"]) == (
            f"meander-{source.name}",
            "1.0.0",
            "DataContract",
        )


def test_a_contract_about_orc_has_types_and_tells_another_one(tmp_path):
    source, file = load_source("canonical"), tmp_path / "a.orc"
    orc.write_table(pa.table({"user_id": [1], "price": [1.5]}), file)
    about = landing_object(source, "", columns_seen(source, [str(file)]), Settings())
    agreed = contract(source, "1.0.0", [about], Settings())
    types = {each["name"]: each.get("physicalType") for each in agreed["schema"][0]["properties"]}
    assert (types["user_id"], types["price"]) == ("int64", "double")
    orc.write_table(pa.table({"user_id": ["u"], "price": [1.5]}), file)
    assert "'user_id' was int64, is string" in differences(agreed, "", source, [str(file)])


def test_what_is_agreed_of_time(mine):
    def agreed(**settings):
        said = contract(mine(), "1", [], Settings(**settings))["slaProperties"]
        return {each["property"]: (each["value"], each["unit"]) for each in said}

    assert agreed(expected_hours=9) == {"frequency": (1, "d"), "latency": (9, "h")}
    said = contract(mine(folder_zone="Asia/Tokyo"), "1", [], Settings())["slaProperties"]
    assert said[0]["description"] == "one folder for each day of the zone Asia/Tokyo"
    assert agreed(keep_landing_days=40)["retention"] == (40, "d")


def test_all_zones_of_folders_are_named(mine, tmp_path):
    def zones(source):
        return contract(source, "1", [], Settings())["slaProperties"][0]["description"]

    one = [{"from": date(2025, 3, 1), "folder_zone": "Asia/Tokyo"}]
    assert zones(mine(versions=one)) == "one folder for each day of the zone UTC or Asia/Tokyo, by the kind of files"
    same = [{"from": date(2025, 3, 1), "delimiter": ";"}]
    assert zones(mine(versions=same)) == "one folder for each day of the zone UTC"
    mine(folder_zone="America/New_York")
    content = {"name": "both", "description": "Two.", "sources": {"web/*": "mine.yaml", "app/*": "canonical"}}
    (tmp_path / "both.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    assert zones(load_source(str(tmp_path / "both.yaml"))) == (
        "one folder for each day of the zone America/New_York or UTC, by the kind of files"
    )


@pytest.mark.parametrize("name", shipped_sources())
def test_the_contract_of_a_shipped_source_is_one_of_the_standard(name):
    """Checked by the schema that the standard has published."""
    from importlib import resources

    import jsonschema
    from open_data_contract_standard.model import OpenDataContractStandard

    schema = json.loads((resources.files("open_data_contract_standard") / "schema.json").read_text())
    source = load_source(name)
    kinds = source.on(date(2025, 3, 1)).items()
    seen = {"a": "list<item: string>", "b": "struct<c: int64>", "d": "timestamp[us]", "e": "number or text"}
    objects = [landing_object(kind, pattern, seen, Settings()) for pattern, kind in kinds]
    written = yaml.safe_dump(contract(source, "1.0.0", objects, Settings()), sort_keys=False)
    jsonschema.validators.validator_for(schema)(schema).validate(yaml.safe_load(written))
    read = OpenDataContractStandard.from_string(written)
    # One for each kind of files; most sources have one kind.
    patterns = {"diginetica": [" *purchases*", " *queries*"], "yoochoose": [" *buys*"]}
    assert [each.name for each in read.schema_] == [f"landing{pattern}" for pattern in ["", *patterns.get(name, [])]]


# ---- at landing -------------------------------------------------------------------------------------------

FIRST, SECOND = date(2025, 3, 10), date(2025, 3, 11)


def row(day, **more):
    return {"user_id": "u", "event_time": f"{day}T00:00:00Z", "behavior": "view", "item_id": "i", **more}


@pytest.fixture
def agreed(lake, monkeypatch):
    """Agree on columns of the files before any has arrived, and return the contract's file."""

    def write(**types):
        source = load_source("canonical")
        file = lake / "shop.odcs.yaml"
        objects = [landing_object(source, "", types, Settings())]
        file.write_text(yaml.safe_dump(contract(source, "2.1.0", objects, Settings())))
        monkeypatch.setenv("MEANDER_CONTRACT", str(file))
        return file

    return write


@pytest.mark.spark
def test_the_first_day_is_compared_with_what_was_agreed_before_it_and_what_differs_is_kept_with_it(
    spark, lake, land, agreed, caplog
):
    agreed(**dict.fromkeys(("user_id", "event_time", "behavior", "item_id", "shop"), "text"), price="number")
    land(FIRST, [row(FIRST, price="7", brand="b")])
    land(SECOND, [row(SECOND, price=7, shop="s")])
    events, _ = ingest.main(["--from", str(FIRST), "--to", str(SECOND), "--run-id", "r"])
    changes = [
        "files: new: 'brand' (text)",
        "files: gone: 'shop'",
        "files: 'price' was number, is text",
    ]
    assert events.counts["against_contract"] == {
        "file": "shop.odcs.yaml",
        "version": "2.1.0",
        "changes": {"2025-03-10": changes},
    }
    lines = [f"2025-03-10 differs from the contract shop.odcs.yaml 2.1.0: {change}" for change in changes]
    assert all(line in caplog.text for line in lines)
    # The day is published, and what differs is shown with it.
    for table in ("events", "quarantine"):
        audit.main(["--table", table, "--run-id", "r"])
        publish(table, "r")
    (run,) = json.loads(CliRunner().invoke(app, ["days", "--from", str(FIRST), "--json"]).stdout)
    assert [line for line in run["supplied"] if "contract" in line] == lines


def test_with_pseudonyms_a_column_that_nobody_agreed_on_and_nobody_reads_is_not_named(lake, land, agreed):
    file = agreed(user_id="text", event_time="text", behavior="text", item_id="text", shop="number")
    files = {FIRST: [str(land(FIRST, [row(FIRST, ann="x", shop="s")]))]}

    def told(**how):
        found = against_contract(str(file), load_source("canonical"), files, **how)
        return found["against_contract"]["changes"]["2025-03-10"]

    assert told() == ["files: new: 'ann' (text)", "files: 'shop' was number, is text"]
    assert told(used_alone=True) == ["files: 'shop' was number, is text"]


def test_files_that_are_as_agreed_say_nothing_and_a_new_kind_of_files_says_that_nothing_is_agreed(
    lake, land, agreed, tmp_path
):
    file = agreed(user_id="text", event_time="text", behavior="text", item_id="text")
    usual = str(land(FIRST, [row(FIRST)], "a.jsonl"))
    other = str(land(FIRST, [row(FIRST)], "orders/a.jsonl"))
    said = (resources.files("jobs") / "sources" / "canonical.yaml").read_text()
    (tmp_path / "mine.yaml").write_text(
        f"{said}\nversions:\n  - files: orders/*\n    behavior: {{constant: purchase}}\n"
    )
    source = load_source(str(tmp_path / "mine.yaml"))
    assert against_contract(str(file), source, {FIRST: [usual], SECOND: []}) == {}
    assert against_contract("", source, {FIRST: [other]}) == {}
    found = against_contract(str(file), source, {FIRST: [usual, other]})
    assert found["against_contract"]["changes"] == {"2025-03-10": ["orders/*: nothing is agreed of them"]}


def test_a_contract_that_is_none_fails_before_anything_is_read(lake, land, monkeypatch):
    land(FIRST, [row(FIRST)])
    monkeypatch.setenv("MEANDER_CONTRACT", str(lake / "none.yaml"))
    with pytest.raises(
        SettingsInvalid, match=r"MEANDER_CONTRACT=.*none\.yaml cannot be read: No such file.*writes one"
    ):
        ingest.find_input(
            parse_run(job_parser("jobs.ingest", "x"), ["--day", str(FIRST), "--run-id", "r"])[0], Settings()
        )
    (lake / "none.yaml").write_text("kind: Pod\n")
    with pytest.raises(SourceInvalid, match=r"MEANDER_CONTRACT=.*none\.yaml: expected a contract of the Open Data"):
        ingest.find_input(
            parse_run(job_parser("jobs.ingest", "x"), ["--day", str(FIRST), "--run-id", "r"])[0], Settings()
        )
