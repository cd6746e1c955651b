"""Great Expectations' rules on rows as Spark aggregates: how many rows break one is counted with the figures.

Each expectation on rows that Great Expectations judges costs jobs of Spark, met or not. So those that no row breaks are
not put to it, and of the others it says by which values they are broken.
"""

from great_expectations.core import ExpectationValidationResult
from great_expectations.expectations.expectation import Expectation
from pyspark.sql import Column
from pyspark.sql import functions as F


def count_broken(expectation: Expectation) -> Column:
    """Return the aggregate that counts the rows which break an expectation, by its rule in Great Expectations on Spark.

    A null breaks none but the expectation that there is none.

    Raises:
        ValueError: the expectation is of a kind, or has an argument, whose rule is not here.
    """
    rule = expectation.configuration
    kwargs = {name: value for name, value in rule.kwargs.items() if value is not None}
    value = F.col(kwargs.pop("column"))
    if rule.type == "expect_column_values_to_not_be_null":
        broken = value.isNull()
    elif rule.type == "expect_column_values_to_be_in_set":
        broken = ~value.isin(list(kwargs.pop("value_set")))
    elif rule.type == "expect_column_value_lengths_to_equal":
        broken = F.length(value) != kwargs.pop("value")
    elif rule.type in ("expect_column_values_to_be_between", "expect_column_value_lengths_to_be_between"):
        compared = F.length(value) if "lengths" in rule.type else value
        low, high = kwargs.pop("min_value", None), kwargs.pop("max_value", None)
        broken = F.lit(False)
        if low is not None:
            broken = broken | (compared < low)
        if high is not None:
            broken = broken | (compared > high)
    else:
        raise ValueError(f"{rule.type}: expected a kind of expectation with a rule in expectations/row_rules.py")
    kwargs.pop("severity", None)
    if kwargs:
        raise ValueError(
            f"{rule.type} has {', '.join(kwargs)}: expected none, or its rule in expectations/row_rules.py"
        )
    return F.count_if(broken)


def met(expectation: Expectation) -> ExpectationValidationResult:
    """Return the result of an expectation that no row breaks."""
    return ExpectationValidationResult(success=True, expectation_config=expectation.configuration, result={})
