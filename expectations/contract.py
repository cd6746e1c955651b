"""What readers of a table may rely on, as an object of the Open Data Contract Standard: its columns and its suite."""

from importlib import import_module
from typing import Any

from great_expectations.expectations.expectation import Expectation
from pyspark.sql.types import BooleanType, DataType, DateType, IntegralType, NumericType, TimestampType

from expectations.suite import Suite
from lake.schemas import TABLES
from lake.settings import Settings

LOGICAL_TYPES: tuple[tuple[type[DataType], str], ...] = (
    (BooleanType, "boolean"),
    (DateType, "date"),
    (TimestampType, "timestamp"),
    (IntegralType, "integer"),
    (NumericType, "number"),
)


def table_object(table: str, config: Settings) -> dict[str, Any]:
    """Return the contract of one table, with each expectation of its suite as a rule for Great Expectations.

    Rules on single rows are at their column; those on the figures of a day, at the table.
    """
    spec = TABLES[table]
    suite: Suite = import_module(f"expectations.{table}").SUITE
    by_column: dict[str, list[dict[str, Any]]] = {name: [] for name in spec.schema.fieldNames()}
    of_table = [rule(each) for each in suite.figures(config)]
    required = set()
    for each in suite.rows(config):
        column = each.configuration.kwargs.get("column")
        if each.configuration.type == "expect_column_values_to_not_be_null":
            required.add(column)
        by_column.get(str(column), of_table).append(rule(each))
    properties = []
    for field in spec.schema.fields:
        kind = next((name for of, name in LOGICAL_TYPES if isinstance(field.dataType, of)), "string")
        said = {
            "name": field.name,
            "logicalType": kind,
            "physicalType": field.dataType.simpleString(),
            "required": field.name in required,
            "description": field.metadata["comment"],
        }
        properties.append({**said, **({"quality": rules} if (rules := by_column[field.name]) else {})})
    return {
        "name": table,
        "physicalName": table,
        "physicalType": "delta table",
        "logicalType": "object",
        "description": spec.meaning,
        "properties": properties,
        "quality": of_table,
    }


def rule(expectation: Expectation) -> dict[str, Any]:
    """Return an expectation as a rule of the standard."""
    what = expectation.configuration
    given = {name: value for name, value in what.kwargs.items() if value is not None}
    severity = getattr(expectation.severity, "value", str(expectation.severity))
    return {
        "type": "custom",
        "engine": "great-expectations",
        "severity": severity,
        **({"description": expectation.description} if expectation.description else {}),
        "implementation": {"type": what.type, "kwargs": given},
    }
