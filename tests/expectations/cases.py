"""What the tests of every suite share: one audit of rows with many faults, and what it counted of each.

An audit takes seconds, whatever it finds. So the rows of a suite are staged together, each with what is wrong with it
beside it, audited once, and the counts compared with those worked out from the list.
"""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date
from importlib import import_module
from typing import Any

import great_expectations as gx
import pandas as pd
import pytest
from great_expectations.expectations.expectation import Expectation
from pyspark.sql import SparkSession

from expectations.audit import audit, suite_of, validate
from expectations.suite import CRITICAL
from lake import audits
from lake.schemas import TABLES
from lake.settings import settings
from lake.staging import NO_VALUE, Verdict, read_staged
from tests.lake.stagings import stage_files

# What a critical expectation is called in these tests: its kind, in few words, and its column.
KINDS = {
    "expect_column_values_to_not_be_null": "not null",
    "expect_column_values_to_be_in_set": "in set",
    "expect_column_values_to_be_between": "between",
    "expect_column_value_lengths_to_equal": "length",
    "expect_column_value_lengths_to_be_between": "length",
    "expect_column_pair_values_to_be_equal": "equal",
}
Tagged = list[tuple[dict[str, Any], str]]


def name(kind: str, column: str, severity: str) -> str:
    """Return what an expectation is called here, such as "between price", or "warning rows"."""
    return f"{KINDS[kind] if severity == 'critical' else severity} {column}"


def column_of(expectation: Expectation) -> str:
    """Return the column of an expectation, the first of a pair."""
    return getattr(expectation, "column", None) or expectation.column_A


def name_of(expectation: Expectation) -> str:
    return name(expectation.expectation_type, column_of(expectation), expectation.severity.value)


def names_of(expectations: Iterable[Expectation]) -> set[str]:
    """Return the names of expectations, of which no two may be called the same."""
    names = [name_of(expectation) for expectation in expectations]
    assert len(set(names)) == len(names)
    return set(names)


def all_of(table: str) -> set[str]:
    """Return the name of every expectation of a suite."""
    suite, config = suite_of(table), settings()
    return names_of([*suite.rows(config), *suite.figures(config)])


def warnings_of(table: str) -> set[str]:
    """Return the names of the expectations that only warn."""
    return {found for found in all_of(table) if found.startswith("warning ")}


def stage_rows(table: str, run_id: str, rows: list[dict[str, Any]], owns: list[date], **manifest: Any) -> None:
    """Stage rows (dicts; what they do not name is null) under a manifest that says what is given; no audit yet."""
    by = TABLES[table].partition_by
    # Spark has a name of its own for the folder of what has no date.
    placed = [{**row, **{column: row.get(column) or NO_VALUE for column in by}} for row in rows]
    stage_files(table, run_id, placed, owns, 1, audited="", **manifest)


@dataclass(frozen=True)
class Seen:
    """What one audit found.

    Attributes:
        table: whose audit it is.
        verdict: as it was written.
        broken: what its history says of each expectation that broke, by name.
        figures: what it measured, a row for each partition, by day.
    """

    table: str
    verdict: Verdict
    broken: dict[str, str]
    figures: pd.DataFrame

    def rows_counted(self) -> Counter[str]:
        """Return how many rows broke each expectation of rows."""
        asked = names_of(suite_of(self.table).rows(settings()))
        found = {each: re.search(r": (\d+) unexpected", said) for each, said in self.broken.items() if each in asked}
        return Counter({each: int(number[1]) for each, number in found.items()})

    def counted(self, day: date) -> Counter[str]:
        """Return the figures of a day that have to be 0 and are not."""
        zeros = {column_of(e) for e in suite_of(self.table).figures(settings()) if is_zero(e)}
        return Counter({f"between {column}": n for column in zeros if (n := self.figures.loc[day, column]) != 0})

    def on(self, day: date, *columns: str) -> tuple[float | None, ...]:
        """Return figures of a day; None for one that is not known."""
        return tuple(None if pd.isna(value) else float(value) for value in self.figures.loc[day, list(columns)])


def is_zero(expectation: Expectation) -> bool:
    """Tell whether it is a critical expectation that a figure is 0."""
    limits = getattr(expectation, "min_value", None), getattr(expectation, "max_value", None)
    return limits == (0, 0) and expectation.severity == CRITICAL


def see(spark: SparkSession, table: str, run_id: str) -> Seen:
    """Audit a staging, and return what it found: its verdict, its lines in `audits`, and what it measured."""
    suite, kept = suite_of(table), []

    def extend(*arguments: Any) -> pd.DataFrame:
        kept.append(suite.extend(*arguments))
        return kept[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(import_module(f"expectations.{table}"), "SUITE", replace(suite, extend=extend))
        verdict = audit(spark, read_staged(table, run_id), settings())
    lines = [line for line in audits.read(table).to_pylist() if line["stage_id"] == verdict.stage_id]
    broken = {
        name(line["expectation"], line["column"], line["severity"]): line["said"]
        for line in lines
        if not line["success"]
    }
    return Seen(table, verdict, broken, kept[0].set_index("day"))


def expected(rows: Tagged) -> Counter[str]:
    """Return how often each expectation has to be broken by rows that are listed with the names of those they break."""
    return Counter(each for _, names in rows for each in names.split(", ") if each)


def without_tags(rows: Tagged) -> list[dict[str, Any]]:
    return [row for row, _ in rows]


def refused(table: str, values: dict[str, list[float]]) -> dict[str, list[float]]:
    """Return which values of figures each expectation of a table refuses, by Great Expectations itself.

    Each figure that has a range has to be given some. Those that have to be 0 or to agree with another are looked at
    here: 1 is refused, and so is 1 beside 2.
    """
    expectations = suite_of(table).figures(settings())
    frame: dict[str, list[float]] = {}
    for expectation in expectations:
        if hasattr(expectation, "column_A"):
            frame |= {expectation.column_A: [1, 1], expectation.column_B: [1, 2]}
        elif is_zero(expectation):
            frame[expectation.column] = [0, 1]
        else:
            assert expectation.column in values, f"{expectation.column} has a range: give values at its ends"
    # A pair is looked at by itself: its columns may have ranges as well.
    results = []
    for asked, given in (
        ([e for e in expectations if hasattr(e, "column_A")], frame),
        ([e for e in expectations if not hasattr(e, "column_A")], frame | values),
    ):
        columns = {column: pd.Series(each, dtype="float64") for column, each in given.items()}
        context = gx.get_context(mode="ephemeral")
        results += validate(context, "figures", pd.DataFrame(columns), asked, "COMPLETE") if asked else []
    found = {}
    for result in results:
        config = result.expectation_config
        expectation = config.to_domain_obj()
        if hasattr(expectation, "column_A"):
            assert result.result["unexpected_list"] == [(1, 2)], expectation
        elif is_zero(expectation):
            assert result.result["unexpected_list"] == [1], expectation
        else:
            found[name_of(expectation)] = result.result["unexpected_list"]
    return found
