"""What a supplier is asked to deliver: by hand for one source, and whether files keep to it."""

import json
from datetime import date

import pandas as pd
import pyarrow as pa
import pytest
import yaml
from pyarrow import orc

from jobs.contract import contract, differences, landing_object, time_type
from jobs.drift import columns_seen
from jobs.source import load_source, shipped_sources
from lake.errors import SourceInvalid
from lake.settings import Settings

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
