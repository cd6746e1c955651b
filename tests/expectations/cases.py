"""What the tests of every suite share: stage rows, audit them, and see which critical expectations failed."""

from collections.abc import Iterable
from datetime import UTC, date, datetime
from typing import Any

from great_expectations.expectations.expectation import Expectation
from pyspark.sql import SparkSession

from expectations.audit import SUITES, audit
from expectations.suite import CRITICAL
from lake import audits
from lake.schemas import TABLES
from lake.settings import settings
from lake.staging import Run, Verdict, stage

# What an expectation is called in these tests: its kind, in few words, and its column.
KINDS = {
    "expect_column_values_to_not_be_null": "not null",
    "expect_column_values_to_be_in_set": "in set",
    "expect_column_values_to_be_between": "between",
    "expect_column_value_lengths_to_equal": "length",
    "expect_column_value_lengths_to_be_between": "length",
    "expect_column_pair_values_to_be_equal": "equal",
}


def name_of(expectation: Expectation) -> str:
    """Return what an expectation is called here, such as "between price"."""
    column = getattr(expectation, "column", None) or expectation.column_A
    return f"{KINDS[expectation.expectation_type]} {column}"


def critical(table: str) -> dict[str, Expectation]:
    """Return every critical expectation of a suite by its name."""
    suite, config = SUITES[table], settings()
    found = [e for e in (*suite.rows(config), *suite.figures(config)) if e.severity == CRITICAL]
    named = {name_of(e): e for e in found}
    assert len(named) == len(found)
    return named


def stage_rows(
    spark: SparkSession,
    table: str,
    run_id: str,
    rows: list[dict[str, Any]],
    owns: list[date],
    **manifest: Any,
) -> None:
    """Stage rows (dicts; what they do not name is null) under a manifest that says what is given."""
    schema = TABLES[table].schema
    # One partition: Spark would otherwise make a task a core for a handful of rows.
    frame = spark.createDataFrame([tuple(row.get(name) for name in schema.fieldNames()) for row in rows], schema)
    stage(frame.coalesce(1), table, Run(run_id, min(owns), max(owns)), owns, basis=1, **manifest)


def audit_and_see(spark: SparkSession, table: str, run_id: str) -> tuple[Verdict, set[str]]:
    """Audit a staging, and return the verdict and the names of the critical expectations that the history says failed.

    Each of them must be named by the verdict: in its own words or by its type, with its column.
    """
    began = datetime.now(UTC)
    verdict = audit(spark, table, run_id)
    lines = [line for line in audits.read(table).to_pylist() if line["audited"] >= began]
    broken = [line for line in lines if not line["success"] and line["severity"] == "critical"]
    names = {f"{KINDS[line['expectation']]} {line['column']}" for line in broken}
    wanted = critical(table)
    for name in names:
        words = wanted[name].description or wanted[name].expectation_type
        column = name.rsplit(" ", 1)[1]
        assert any(words in said and f"[{column}" in said for said in verdict.failed), (
            f"{name} is not in {verdict.failed}"
        )
    assert (verdict.verdict == "failed") == bool(names)
    return verdict, names


def not_null(*columns: str) -> set[str]:
    return {f"not null {column}" for column in columns}


def between(*columns: str) -> set[str]:
    return {f"between {column}" for column in columns}


def require_all_were_seen_failing(table: str, cases: Iterable[set[str]]) -> None:
    """Check that the cases of a suite break every critical expectation that it has, and none that it has not."""
    assert set().union(*cases) == set(critical(table))
