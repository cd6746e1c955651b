"""What readers of a table may rely on: its columns, and each expectation of its suite."""

import json
from importlib import resources

import pytest
import yaml

from expectations.contract import table_object
from expectations.events import SUITE
from lake.schemas import TABLES
from lake.settings import Settings


def test_each_column_and_each_expectation_of_events_is_in_the_contract():
    config = Settings(max_field_length=77)
    about = table_object("events", config)
    columns = {each["name"]: each for each in about["properties"]}
    assert list(columns) == TABLES["events"].schema.fieldNames()
    kinds = {name: (each["logicalType"], each["physicalType"]) for name, each in columns.items()}
    assert kinds["price"] == ("number", "decimal(18,4)")
    assert kinds["copies"] == ("integer", "int")
    assert (kinds["dt"], kinds["event_time"][0], kinds["query"][0]) == (("date", "date"), "timestamp", "string")
    # An event may lack these.
    assert {name for name, each in columns.items() if not each["required"]} == {
        "item_id",
        "category_id",
        "query",
        "price",
    }
    assert columns["user_id"]["quality"][1] == {
        "type": "custom",
        "engine": "great-expectations",
        "severity": "critical",
        "implementation": {
            "type": "expect_column_value_lengths_to_be_between",
            "kwargs": {"column": "user_id", "min_value": 1, "max_value": 77},
        },
    }
    of_columns = sum(len(each.get("quality", ())) for each in columns.values())
    assert of_columns + len(about["quality"]) == len(SUITE.rows(config)) + len(SUITE.figures(config))
    described = [rule["description"] for rule in about["quality"] if "description" in rule]
    assert any("MEANDER_MAX_REJECTED_SHARE" in text for text in described)
    assert {rule["severity"] for rule in about["quality"]} == {"critical", "warning"}


@pytest.mark.parametrize("table", TABLES)
def test_each_table_can_be_described_by_the_standard(table):
    import jsonschema

    schema = json.loads((resources.files("open_data_contract_standard") / "schema.json").read_text())
    written = yaml.safe_load(
        yaml.safe_dump(
            {
                "version": "1.0.0",
                "apiVersion": "v3.2.0",
                "kind": "DataContract",
                "id": "x",
                "schema": [table_object(table, Settings())],
            }
        )
    )
    jsonschema.validators.validator_for(schema)(schema).validate(written)
