"""The schema check at the door of the lake."""

import pytest
from pyspark.sql.types import IntegerType, StringType, StructField, StructType

from lake.errors import SchemaMismatch
from lake.schemas import QUARANTINE, TABLES, require_schema


@pytest.mark.parametrize("table", TABLES)
def test_a_table_takes_its_own_columns_in_any_order(table):
    require_schema(table, StructType(list(TABLES[table].schema)[::-1]))


def test_every_discrepancy_is_told_at_once():
    found = [field for field in QUARANTINE if field.name not in ("raw", "line")]
    found += [StructField("line", IntegerType()), StructField("Raw", StringType())]
    with pytest.raises(SchemaMismatch) as caught:
        require_schema("quarantine", StructType(found))
    said = str(caught.value)
    assert "missing raw string" in said
    assert "unexpected Raw string" in said
    assert "line is int, not bigint" in said


def test_a_type_inside_an_array_counts_too():
    fields = {field.name: field for field in TABLES["interests"].schema}
    fields["behaviors"] = StructField("behaviors", fields["item_keys"].dataType)
    with pytest.raises(SchemaMismatch, match="behaviors is array<bigint>, not array<int>"):
        require_schema("interests", StructType(list(fields.values())))


@pytest.mark.parametrize("spec", TABLES.values(), ids=TABLES)
def test_every_column_says_what_it_means_and_partition_columns_stand_last(spec):
    assert all(field.metadata["comment"] for field in spec.schema)
    assert tuple(spec.schema.fieldNames()[-len(spec.partition_by) :]) == spec.partition_by
    assert spec.owned_by in spec.partition_by
