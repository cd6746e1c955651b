"""Validate what a run staged for a table, before anyone can read it.

    python -m expectations.audit --table X --run-id R

A broken critical expectation fails the audit: nothing is published and readers keep what they had. A broken warning is
recorded and shown. Each audit leaves a page of data docs, and a line for each expectation in the table `audits`.
"""

import argparse
import json
import logging
import os
import time
from datetime import UTC, datetime
from importlib import import_module
from typing import Any

# Great Expectations reports usage to its makers by default; the jobs of a data platform must not.
os.environ.setdefault("GX_ANALYTICS_ENABLED", "False")

import great_expectations as gx
import pandas as pd
from great_expectations.core import ExpectationValidationResult
from great_expectations.data_context.types.base import ProgressBarsConfig
from great_expectations.expectations.expectation import Expectation
from great_expectations.expectations.expectation_configuration import ExpectationConfiguration
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from expectations.docs import Check, render
from expectations.suite import CRITICAL, Suite
from lake import storage
from lake.audits import AuditLine, record
from lake.errors import AuditFailed, run_main
from lake.places import docs_page
from lake.schemas import TABLES
from lake.session import spark_session
from lake.settings import Settings, settings
from lake.staging import Staged, Verdict, read_staged, write_verdict

log = logging.getLogger(__name__)

# The arguments of expectations that name the columns they look at.
COLUMN_ARGUMENTS = ("column", "column_A", "column_B")


def suite_of(table: str) -> Suite:
    """Return the suite of a table, and import no other one."""
    suite: Suite = import_module(f"expectations.{table}").SUITE
    return suite


def measure(suite: Suite, rows: DataFrame, staged: Staged, config: Settings) -> pd.DataFrame:
    """Return one line of figures for each partition that the run owns, empty ones included, in one Spark job."""
    owned_by = TABLES[staged.table].owned_by
    aggregates = [aggregate.alias(name) for name, aggregate in suite.measures(config).items()]
    measured = rows.groupBy(F.col(owned_by).alias("day")).agg(F.count("*").alias("rows"), *aggregates)
    figures = pd.DataFrame([row.asDict() for row in measured.collect()], columns=measured.columns).set_index("day")
    # An owned partition without a row has 0 of everything.
    figures = figures.reindex(pd.Index(staged.owns, name="day")).reset_index()
    numbers = [name for name in figures.columns if name != "day"]
    return figures.assign(**{name: pd.to_numeric(figures[name]).fillna(0) for name in numbers})


def validate(
    context: Any,
    name: str,
    frame: DataFrame | pd.DataFrame,
    expectations: list[Expectation],
    result_format: str,
) -> list[ExpectationValidationResult]:
    """Run expectations on a frame and return their results."""
    sources = context.data_sources
    # persist=False: Great Expectations never releases persisted rows; the caller has persisted them.
    on_spark = not isinstance(frame, pd.DataFrame)
    source = sources.add_spark(name, persist=False) if on_spark else sources.add_pandas(name)
    batch = source.add_dataframe_asset(name).add_batch_definition_whole_dataframe(name)
    suite = context.suites.add(gx.ExpectationSuite(name=name, expectations=expectations))
    definition = context.validation_definitions.add(gx.ValidationDefinition(name=name, data=batch, suite=suite))
    results = definition.run(batch_parameters={"dataframe": frame}, result_format=result_format).results
    broken = [r for r in results if could_not_run(r)]
    if broken:
        raise RuntimeError(f"{name}: {expectation_of(broken[0]).type} could not run: {broken[0].exception_info}")
    return list(results)


def could_not_run(result: ExpectationValidationResult) -> bool:
    """Return whether an expectation ended in an error: Great Expectations reports it as not met otherwise."""
    # An error of the expectation is the content itself, an error of a metric is listed under the id of that metric.
    info = result.exception_info or {}
    each = [info] if "raised_exception" in info else info.values()
    return any(one.get("raised_exception") for one in each)


def validate_rows(context: Any, rows: DataFrame, expectations: list[Expectation]) -> list[ExpectationValidationResult]:
    """Check for yes or no first, which is cheap; collect examples only for the expectations that are not met."""
    results = validate(context, "rows", rows, expectations, "BOOLEAN_ONLY")
    failed = [expectation_of(r).to_domain_obj() for r in results if not r.success]
    if not failed:
        return results
    for expectation in failed:
        expectation.id = None  # a suite takes only expectations that belong to no other
    return [r for r in results if r.success] + validate(context, "failed_rows", rows, failed, "SUMMARY")


def expectation_of(result: ExpectationValidationResult) -> ExpectationConfiguration:
    """Return the expectation of a result; Great Expectations always fills it in, though its type is optional."""
    assert result.expectation_config is not None
    return result.expectation_config


def arguments(result: ExpectationValidationResult) -> dict[str, Any]:
    """Return the arguments of the expectation of a result, without those that say nothing."""
    kwargs = expectation_of(result).kwargs
    return {name: value for name, value in kwargs.items() if name not in ("batch_id", "severity") and value is not None}


def masked(value: Any) -> str:
    """Return a value for a message: of a text only its length, since messages go to logs, alerts and chats.

    The data docs show what it says, to those who may see runs.

    >>> masked("ann@example.org"), masked(-2.5), masked((1, None))
    ('text of 15 characters', '-2.5', '(1, None)')
    """
    if isinstance(value, str):
        return f"text of {len(value):,} characters"
    if isinstance(value, list | tuple):
        return f"({', '.join(map(masked, value))})"
    return str(value)


def describe(result: ExpectationValidationResult) -> str:
    """Return one line with the expectation and the unexpected values."""
    config, expected = expectation_of(result), arguments(result)
    expectation = config.description or f"{config.type} {json.dumps(expected, default=str)}"
    examples = result.result.get("partial_unexpected_list") or []
    count = result.result.get("unexpected_count", "?")
    observed = f"{count} unexpected, such as [{', '.join(map(masked, examples[:3]))}]" if examples else "not met"
    columns = ", ".join(str(expected[k]) for k in COLUMN_ARGUMENTS if k in expected)
    return f"{expectation} [{columns}: {observed}]"


def audit(spark: SparkSession, table: str, run_id: str, config: Settings) -> Verdict:
    """Validate one staging, write its data docs, its lines in `audits` and its verdict; return the verdict."""
    began = time.time()
    suite, staged = suite_of(table), read_staged(table, run_id)
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False, metric_calculations=False)
    rows = staged.read(spark).persist()
    try:
        figures = suite.extend(spark, rows, staged, measure(suite, rows, staged, config), config)
        results = validate_rows(context, rows, suite.rows(config))
    finally:
        rows.unpersist()
    results += validate(context, "figures", figures, suite.figures(config), "COMPLETE")
    results.sort(key=lambda r: (r.success, severity(r) != CRITICAL))
    failed = [result for result in results if not result.success]
    verdict = "failed" if any(severity(r) == CRITICAL for r in failed) else "warned" if failed else "passed"
    docs = write_docs(staged, results, figures, verdict, config)
    seconds = round(time.time() - began, 3)
    record([audit_line(staged, result, verdict, docs) for result in results])
    outcome = Verdict(
        table,
        run_id,
        staged.stage_id,
        verdict,
        [describe(r) for r in failed],
        docs,
        seconds,
        datetime.now(UTC).isoformat(),
    )
    write_verdict(outcome)
    log.info(
        "%s: %s, %d expectations, %d broken, %.1f s, %s",
        table,
        verdict,
        len(results),
        len(failed),
        seconds,
        docs,
    )
    for line in outcome.failed:
        log.warning("%s: %s", table, line)
    return outcome


def severity(result: ExpectationValidationResult) -> Any:
    """Return whether an expectation is critical or a warning."""
    return expectation_of(result).severity


def audit_line(staged: Staged, result: ExpectationValidationResult, verdict: str, docs: str) -> AuditLine:
    """Turn one result into a line of the history table."""
    return AuditLine(
        table=staged.table,
        run_id=staged.run_id,
        stage_id=staged.stage_id,
        first=staged.first,
        last=staged.last,
        audited=datetime.now(UTC),
        expectation=expectation_of(result).type,
        column=str(expectation_of(result).kwargs.get("column") or expectation_of(result).kwargs.get("column_A")),
        severity=str(getattr(severity(result), "value", severity(result))),
        success=bool(result.success),
        said=describe(result),
        verdict=verdict,
        docs=docs,
    )


def check_of(result: ExpectationValidationResult) -> Check:
    """Turn one result into what the data docs show of it."""
    details = result.result
    limits = arguments(result)
    columns = [str(limits.pop(name)) for name in COLUMN_ARGUMENTS if name in limits]
    return Check(
        expectation=expectation_of(result).description or expectation_of(result).type.replace("_", " "),
        limits=limits,
        columns=columns,
        severity=str(getattr(severity(result), "value", severity(result))),
        success=bool(result.success),
        unexpected=None if result.success else details.get("unexpected_count"),
        looked_at=None if result.success else details.get("element_count"),
        examples=[] if result.success else details.get("partial_unexpected_list") or [],
    )


def write_docs(
    staged: Staged,
    results: list[ExpectationValidationResult],
    figures: pd.DataFrame,
    verdict: str,
    config: Settings,
) -> str:
    """Write the data docs of an audit and return their address.

    Great Expectations would make a site, whose index of all runs is built again at each audit: that gets slower every
    day, and concurrent audits overwrite it. Its pages escape nothing, and load scripts from the network.
    """
    page = render(staged, verdict, [check_of(result) for result in results], figures, datetime.now(UTC))
    place = docs_page(staged.run_id, staged.table)
    fs, inner = storage.filesystem(storage.join(config.docs_folder, place))
    fs.makedirs(fs._parent(inner), exist_ok=True)
    fs.pipe_file(inner, page.encode())
    return storage.join(config.docs_url or config.docs_folder, place)


def main(argv: list[str] | None = None) -> list[Verdict]:
    """Audit one table, or several; all are audited before a failure is raised.

    Raises:
        AuditFailed: a critical expectation of one of them is not met.
    """
    parser = argparse.ArgumentParser(
        prog="expectations.audit", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--table",
        action="append",
        required=True,
        choices=TABLES,
        metavar="TABLE",
        help="a table of docs/tables.md; may be repeated",
    )
    parser.add_argument("--run-id", required=True, help="the run that staged")
    args = parser.parse_args(argv)
    config = settings()
    spark = spark_session("audit", config)
    verdicts = [audit(spark, table, args.run_id, config) for table in args.table]
    failed = [v for v in verdicts if v.verdict == "failed"]
    if failed:
        text = "; ".join(f"{v.table}: {line}" for v in failed for line in v.failed)
        raise AuditFailed(f"run {args.run_id!r} is not published, readers keep what they had. {text}. {failed[0].docs}")
    return verdicts


if __name__ == "__main__":
    run_main(main)
