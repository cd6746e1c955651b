"""How many rows break an expectation: Spark counts what Great Expectations, asked of the same rows, says."""

import math
from decimal import Decimal
from importlib import import_module

import great_expectations as gx
import great_expectations.expectations as gxe
import pandas as pd
import pytest
from great_expectations.expectations.expectation import Expectation
from pyspark.sql import types as T

from expectations.audit import arguments, describe, validate
from expectations.row_rules import count_broken, met
from expectations.suite import CRITICAL, WARNING, between
from lake.settings import settings
from tests.tables import KNOWN

COLUMNS = T.StructType(
    [
        T.StructField("text", T.StringType()),
        T.StructField("whole", T.LongType()),
        T.StructField("share", T.DoubleType()),
        T.StructField("price", T.DecimalType(10, 2)),
    ]
)
ROWS = [
    ("abc", 1, 0.5, Decimal("9.99")),
    (None, None, None, None),  # a null breaks nothing but that there is one
    ("", 0, 0.0, Decimal("0.00")),
    ("abcd", 2, 1.0, Decimal("-0.01")),
    ("other", 3, 1.0000001, Decimal("10.00")),
    ("abc", -1, math.nan, Decimal("10.01")),  # NaN is larger than every number
    ("é🙂x", 4, -math.inf, None),  # three characters, eight bytes
]


def cases() -> dict[str, tuple[Expectation, int]]:
    """Return expectations, new ones since one belongs to the first suite it is put into, and how many rows break each.

    The rows are counted by hand.
    """
    return {
        "no null": (gxe.ExpectColumnValuesToNotBeNull(column="text", severity=CRITICAL), 1),
        "in a set": (gxe.ExpectColumnValuesToBeInSet(column="text", value_set=["abc", ""], severity=CRITICAL), 3),
        "of one length": (gxe.ExpectColumnValueLengthsToEqual(column="text", value=3, severity=CRITICAL), 3),
        "of some length": (
            gxe.ExpectColumnValueLengthsToBeBetween(column="text", min_value=1, max_value=4, severity=WARNING),
            2,
        ),
        "not below": (between("whole", 1, None, "at least 1"), 2),
        "not above": (between("whole", None, 2, "at most 2"), 2),
        "a probability": (between("share", 0, 1, "in 0 to 1"), 3),
        "a share, NaN too": (between("share", 0, None, "not negative"), 1),
        "a price": (between("price", 0, 10, "0 to 10"), 2),
    }


@pytest.mark.spark
def test_spark_counts_the_rows_that_great_expectations_finds(spark):
    rows = spark.createDataFrame(ROWS, COLUMNS).coalesce(1)
    expectations = [expectation for expectation, _ in cases().values()]
    counted = rows.agg(*(count_broken(each).alias(name) for name, (each, _) in cases().items())).collect()[0].asDict()
    assert counted == {name: count for name, (_, count) in cases().items()}
    results = validate(gx.get_context(mode="ephemeral"), "rows", rows, expectations, "SUMMARY")
    found = {result.expectation_config.type + str(arguments(result)): result for result in results}
    assert len(found) == len(cases())
    for name, (expectation, count) in cases().items():
        config = expectation.configuration
        said = found[config.type + str(arguments(met(expectation)))]
        assert (said.result["unexpected_count"], said.success) == (count, False), name


def test_an_expectation_that_is_met_is_told_as_great_expectations_tells_it():
    expectations = [expectation for expectation, _ in cases().values()]
    good = pd.DataFrame({"text": ["abc"], "whole": [1], "share": [0.5], "price": [1.0]})
    results = validate(gx.get_context(mode="ephemeral"), "good", good, expectations, "BOOLEAN_ONLY")
    by_rule = {describe(result, ""): result for result in results}
    for expectation in expectations:
        ours = met(expectation)
        theirs = by_rule[describe(ours, "")]
        assert (ours.success, arguments(ours)) == (theirs.success, arguments(theirs))
        for name in ("type", "severity", "description"):
            assert getattr(ours.expectation_config, name) == getattr(theirs.expectation_config, name)


@pytest.mark.spark
@pytest.mark.parametrize("table", KNOWN)
def test_each_suite_has_rules_for_its_rows(spark, table):
    for expectation in import_module(f"expectations.{table}").SUITE.rows(settings()):
        count_broken(expectation)


@pytest.mark.spark
@pytest.mark.parametrize(
    ("expectation", "said"),
    [
        (gxe.ExpectColumnValuesToMatchRegex(column="text", regex="a"), "expected a kind of expectation with a rule"),
        (gxe.ExpectColumnValuesToNotBeNull(column="text", mostly=0.9), "not_be_null has mostly: expected none"),
        (gxe.ExpectColumnValuesToBeBetween(column="whole", min_value=1, strict_min=True), "between has strict_min"),
    ],
)
def test_what_has_no_rule_is_named(spark, expectation, said):
    with pytest.raises(ValueError, match=said):
        count_broken(expectation)
