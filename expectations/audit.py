"""Validate what a run staged for a table, before anyone can read it.

    python -m expectations.audit --table X --run-id R

A broken critical expectation fails the days on which it is broken. They are withheld: readers keep what they had of
them, and see the other days of the run. Where no day is left, or MEANDER_PUBLISH_GOOD_DAYS is false, the audit fails
and nothing is published. A broken warning is recorded and shown. Each audit leaves a page of data docs, and a line for
each expectation in the table `audits`.
"""

import argparse
import json
import logging
import time
from collections.abc import Iterable, Sequence, Set
from dataclasses import replace
from datetime import UTC, date, datetime
from importlib import import_module
from itertools import pairwise
from typing import Any

import great_expectations as gx
import pandas as pd
from great_expectations.core import ExpectationValidationResult
from great_expectations.data_context.types.base import ProgressBarsConfig
from great_expectations.expectations.expectation import Expectation
from great_expectations.expectations.expectation_configuration import ExpectationConfiguration
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from expectations.docs import Check, figure_text, render
from expectations.row_rules import count_broken, met
from expectations.suite import CRITICAL, Suite
from lake import storage
from lake.arguments import parser_of_tables
from lake.audits import AuditLine, record
from lake.days import ONE_DAY, days_in_words
from lake.errors import AuditFailed, run_main
from lake.places import docs_page
from lake.schemas import TABLES
from lake.session import spark_session
from lake.settings import Settings, settings
from lake.staging import Staged, Verdict, read_staged, require_one_try, write_verdict
from lake.tables import TABLES as FACTS

log = logging.getLogger(__name__)

# The arguments of expectations that name the columns they look at.
COLUMN_ARGUMENTS = ("column", "column_A", "column_B")


def suite_of(table: str) -> Suite:
    """Return the suite of a table, and import no other one."""
    suite: Suite = import_module(f"expectations.{table}").SUITE
    return suite


def measure(
    suite: Suite, rows: DataFrame, staged: Staged, config: Settings
) -> tuple[pd.DataFrame, list[dict[date | None, int]]]:
    """Measure what was staged, in one Spark job; in none where there is no row.

    Returns:
        One line of figures for each partition that the run owns, empty ones included; and of each expectation on rows,
        in their order, how many break it by partition: those without a value of the partition column, too.
    """
    owned_by, measures = TABLES[staged.table].owned_by, suite.measures(config)
    aggregates = [aggregate.alias(name) for name, aggregate in measures.items()]
    rules = suite.rows(config)
    broken = [count_broken(rule).alias(f"rule_{number}") for number, rule in enumerate(rules)]
    measured = rows.groupBy(F.col(owned_by).alias("day")).agg(F.count("*").alias("rows"), *aggregates, *broken)
    found = measured.collect() if staged.files else []
    names = ["day", "rows", *measures]
    figures = pd.DataFrame([[row[name] for name in names] for row in found], columns=names).set_index("day")
    # An owned partition without a row has 0 of everything.
    figures = figures.reindex(pd.Index(staged.owns, name="day")).reset_index()
    figures = figures.assign(**{name: pd.to_numeric(figures[name]).fillna(0) for name in names[1:]})
    by_rule = [{row["day"]: row[f"rule_{number}"] for row in found} for number in range(len(rules))]
    return figures, [{day: count for day, count in counts.items() if count} for counts in by_rule]


def validate(
    context: Any,
    name: str,
    frame: DataFrame | pd.DataFrame,
    expectations: list[Expectation],
    result_format: str,
) -> list[ExpectationValidationResult]:
    """Run expectations on a frame and return their results."""
    sources = context.data_sources
    # persist=False: Great Expectations never releases rows that it has persisted.
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


def validate_rows(
    context: Any, rows: DataFrame, expectations: list[Expectation], broken: list[dict[date | None, int]]
) -> list[ExpectationValidationResult]:
    """Return the results of expectations on rows; by which values one is not met, Great Expectations says.

    Args:
        context: of Great Expectations.
        rows: the staged rows.
        expectations: on them.
        broken: by how many rows of which partitions each is broken.
    """
    results = [met(rule) for rule, counts in zip(expectations, broken, strict=True) if not counts]
    failed = [rule for rule, counts in zip(expectations, broken, strict=True) if counts]
    if not failed:
        return results
    rows = rows.persist()
    try:
        return results + validate(context, "failed_rows", rows, failed, "SUMMARY")
    finally:
        rows.unpersist()


def expectation_of(result: ExpectationValidationResult) -> ExpectationConfiguration:
    """Return the expectation of a result; Great Expectations always fills it in, though its type is optional."""
    assert result.expectation_config is not None
    return result.expectation_config


def arguments(result: ExpectationValidationResult) -> dict[str, Any]:
    """Return the arguments of the expectation of a result, without those that say nothing."""
    kwargs = expectation_of(result).kwargs
    return {name: value for name, value in kwargs.items() if name not in ("batch_id", "severity") and value is not None}


def masked(value: Any) -> str:
    """Return a value for a message or the data docs: of a text only its length, since a text may be of a person.

    `meander show TABLE --run` shows rows, to those who may read the lake.

    >>> masked("ann@example.org"), masked(-2.5), masked((1, None))
    ('text of 15 characters', '-2.5', '(1, None)')
    """
    if isinstance(value, str):
        return f"text of {len(value):,} characters"
    if isinstance(value, list | tuple):
        return f"({', '.join(map(masked, value))})"
    return str(value)


def describe(result: ExpectationValidationResult, observed: str) -> str:
    """Return one line with the expectation, its columns and what was observed of them."""
    config, expected = expectation_of(result), arguments(result)
    expectation = config.description or f"{config.type} {json.dumps(expected, default=str)}"
    return f"{expectation} [{', '.join(columns_of(result))}: {observed}]"


def columns_of(result: ExpectationValidationResult) -> list[str]:
    """Return the columns that an expectation looks at."""
    expected = arguments(result)
    return [str(expected[name]) for name in COLUMN_ARGUMENTS if name in expected]


def observed_in_all(result: ExpectationValidationResult) -> str:
    """Return how many rows, or days of figures, do not meet an expectation, with some of the unexpected values."""
    examples = result.result.get("partial_unexpected_list") or []
    count = result.result.get("unexpected_count", "?")
    return f"{count} unexpected, such as [{', '.join(map(masked, examples[:3]))}]" if examples else "not met"


def observed_on_days(
    result: ExpectationValidationResult, of_rows: dict[str, dict[date | None, int]], figures: pd.DataFrame
) -> dict[date, str]:
    """Return what was observed on each day that does not meet an expectation: of figures the value, of rows how many.

    Args:
        result: of an expectation that is not met.
        of_rows: by the name of an expectation on rows, how many of which days do not meet it.
        figures: a line for each day that the run owns.
    """
    days = list(figures["day"])
    counts = of_rows.get(name_of(result))
    if counts is not None:
        return {day: f"{counts[day]:,} row{'s' if counts[day] > 1 else ''}" for day in days if day in counts}
    # Great Expectations names every line, but no more than 200 values.
    columns = [arguments(result)[name] for name in COLUMN_ARGUMENTS if name in arguments(result)]
    return {
        days[line]: " and ".join(figure_text(figures[column].iloc[line]) for column in columns)
        for line in result.result["unexpected_index_list"]
    }


def name_of(said: ExpectationValidationResult | Expectation) -> str:
    """Return what names an expectation among those of its suite, of which two may differ in their words alone."""
    result = met(said) if isinstance(said, Expectation) else said
    return f"{expectation_of(result).type} {arguments(result)} {expectation_of(result).description}"


def audit(spark: SparkSession, staged: Staged, config: Settings) -> Verdict:
    """Validate one staging, write its data docs and its lines in `audits`; return the verdict.

    Its `withheld` are all days that failed; none if a failure cannot be told of a day.
    """
    began = time.time()
    table, run_id, suite = staged.table, staged.run_id, suite_of(staged.table)
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False, metric_calculations=False)
    rows = staged.read(spark)
    rules = suite.rows(config)
    measured, broken = measure(suite, rows, staged, config)
    figures = suite.extend(spark, rows, staged, measured, config)
    results = validate_rows(context, rows, rules, broken)
    results += validate(context, "figures", figures, suite.figures(config), "COMPLETE")
    results.sort(key=lambda r: (r.success, severity(r) != CRITICAL))
    failed = [result for result in results if not result.success]
    verdict = "failed" if any(severity(r) == CRITICAL for r in failed) else "warned" if failed else "passed"
    of_rows = {name_of(rule): counts for rule, counts in zip(rules, broken, strict=True) if counts}
    on_days = {name_of(result): observed_on_days(result, of_rows, figures) for result in failed}
    explained = suite.explain(rows, staged) if failed and suite.explain else {}
    behind = {name_of(result): what for result in failed if (what := taken_out(explained, result))}
    docs = write_docs(staged, results, on_days, behind, figures, verdict, config)
    seconds = round(time.time() - began, 3)
    said = {
        (name := name_of(result)): in_words(result, on_days.get(name, {}), staged, behind.get(name, ""))
        for result in results
    }
    record([audit_line(staged, result, said[name_of(result)], verdict, docs) for result in results])
    unmet: dict[str, list[str]] = {}
    for result in failed:
        for day, observed in on_days[name_of(result)].items():
            unmet.setdefault(str(day), []).append(describe(result, observed))
    critical = [name_of(result) for result in failed if severity(result) == CRITICAL]
    # What is broken on no day that the run owns, such as by rows without one, cannot be withheld.
    of_no_day = any(not on_days[name] for name in critical)
    bad = set() if of_no_day else {day for name in critical for day in on_days[name]}
    outcome = Verdict(
        table,
        run_id,
        staged.stage_id,
        verdict,
        [said[name_of(result)] for result in failed],
        docs,
        seconds,
        datetime.now(UTC).isoformat(),
        unmet,
        [str(day) for day in sorted(bad)],
    )
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


def withhold(verdicts: Sequence[Verdict], owns: Sequence[date], *, publish_good_days: bool) -> list[Verdict]:
    """Return the verdicts on tables that are published together, with the days that all of them withhold.

    A day that failed in one table is withheld in each: readers see the events of a day with what was rejected of it. So
    are its neighbours where a row may hold events of the day before: of one old and one new day, an event could be in
    two sessions, or in none.

    Args:
        verdicts: as `audit` returns them.
        owns: the days that the run owns in each of these tables.
        publish_good_days: whether the other days are published.

    Returns:
        verdicts that withhold no day if not: because it is not wanted, no day is left, or one of the tables fails as a
        whole.
    """
    bad = {day for verdict in verdicts for day in verdict.withheld}
    if any(FACTS[verdict.table].touching for verdict in verdicts):
        bad = with_neighbours(bad, owns)
    fails = any(verdict.verdict == "failed" and not verdict.withheld for verdict in verdicts)
    if not publish_good_days or fails or bad >= {str(day) for day in owns}:
        return [replace(verdict, withheld=[]) for verdict in verdicts]
    return [with_days_withheld(verdict, bad, verdicts) for verdict in verdicts]


def with_neighbours(bad: Set[str], owns: Sequence[date]) -> set[str]:
    """Return days with all owned ones that are connected to them without a gap.

    >>> owns = [date(2025, 1, n) for n in (1, 2, 4, 5)]
    >>> sorted(with_neighbours({"2025-01-04"}, owns))
    ['2025-01-04', '2025-01-05']
    """
    found = set(bad)
    # Once in each direction.
    for days in (sorted(owns), sorted(owns, reverse=True)):
        for day, after in pairwise(days):
            if str(day) in found and abs(after - day) == ONE_DAY:
                found.add(str(after))
    return found


def with_days_withheld(verdict: Verdict, bad: Set[str], together: Sequence[Verdict]) -> Verdict:
    """Return a verdict that withholds days, and says why of those that have not failed in its table."""
    unmet = dict(verdict.unmet)
    for day in bad - set(verdict.withheld):
        others = [other.table for other in together if day in other.withheld]
        why = f"{' and '.join(others)} of the day failed" if others else "a day that touches it failed"
        # First, since readers of one line are told why the day is not there, not what its table has only warned of.
        unmet[day] = [f"not published, since {why}", *unmet.get(day, [])]
    return replace(verdict, withheld=sorted(bad), unmet=dict(sorted(unmet.items())))


def taken_out(explained: dict[str, str], result: ExpectationValidationResult) -> str:
    """Return what is behind the figure of a result, empty if nothing is known, and take it out.

    So it is said by the first line on the figure that is not met, and by no other.
    """
    figure = next((name for name in columns_of(result) if name in explained), "")
    return explained.pop(figure, "")


def in_words(result: ExpectationValidationResult, on_days: Iterable[date], staged: Staged, behind: str) -> str:
    """Return one line on the whole staging, which names the days where it has several, and what is `behind` it."""
    line, days = describe(result, observed_in_all(result)), list(on_days)
    if days and len(staged.owns) > 1:
        line += f" on {days_in_words(days)}"
    return f"{line}: {behind}" if behind else line


def severity(result: ExpectationValidationResult) -> Any:
    """Return whether an expectation is critical or a warning."""
    return expectation_of(result).severity


def audit_line(staged: Staged, result: ExpectationValidationResult, said: str, verdict: str, docs: str) -> AuditLine:
    """Turn one result, with what is `said` of it, into a line of the history table."""
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
        said=said,
        verdict=verdict,
        docs=docs,
    )


def check_of(result: ExpectationValidationResult, days: Iterable[date] = (), behind: str = "") -> Check:
    """Turn one result into what the data docs show of it."""
    details = result.result
    limits = arguments(result)
    examples = [] if result.success else details.get("partial_unexpected_list") or []
    columns = [str(limits.pop(name)) for name in COLUMN_ARGUMENTS if name in limits]
    return Check(
        expectation=expectation_of(result).description or expectation_of(result).type.replace("_", " "),
        limits=limits,
        columns=columns,
        severity=str(getattr(severity(result), "value", severity(result))),
        success=bool(result.success),
        unexpected=None if result.success else details.get("unexpected_count"),
        looked_at=None if result.success else details.get("element_count"),
        examples=[each if isinstance(each, int | float) else masked(each) for each in examples],
        days=tuple(days),
        behind=behind,
    )


def write_docs(
    staged: Staged,
    results: list[ExpectationValidationResult],
    on_days: dict[str, dict[date, str]],
    behind: dict[str, str],
    figures: pd.DataFrame,
    verdict: str,
    config: Settings,
) -> str:
    """Write the data docs of an audit and return their address.

    Great Expectations would make a site, whose index of all runs is built again at each audit: that gets slower every
    day, and concurrent audits overwrite it. Its pages escape nothing, and load scripts from the network.
    """
    checks = [check_of(result, on_days.get(name := name_of(result), ()), behind.get(name, "")) for result in results]
    page = render(staged, verdict, checks, figures, datetime.now(UTC))
    place = docs_page(staged.run_id, staged.table)
    fs, inner = storage.filesystem(storage.join(config.docs_folder, place))
    fs.makedirs(fs._parent(inner), exist_ok=True)
    fs.pipe_file(inner, page.encode())
    return storage.join(config.docs_url or config.docs_folder, place)


def main(argv: list[str] | None = None) -> list[Verdict]:
    """Audit one table, or several; all are audited before a failure is raised.

    Raises:
        AuditFailed: a critical expectation of one of them is not met, and no day of it is published.
        NotStaged: they were not staged together: readers would get new events beside old rejected rows.
    """
    parser = parser_of_tables("expectations.audit", __doc__ or "", formatter_class=argparse.RawDescriptionHelpFormatter)
    args = parser.parse_args(argv)
    config = settings()
    require_one_try(args.table, args.run_id)
    spark = spark_session("audit", config)
    stagings = [read_staged(table, args.run_id) for table in args.table]
    found = [audit(spark, staged, config) for staged in stagings]
    verdicts = []
    for group in dict.fromkeys(FACTS[table].group for table in args.table):
        of_group = [verdict for verdict in found if FACTS[verdict.table].group == group]
        owns = next(staged.owns for staged in stagings if FACTS[staged.table].group == group)
        verdicts += withhold(of_group, owns, publish_good_days=config.publish_good_days)
    # Not before all are known: a day that failed in one table is withheld in the others too.
    for verdict in verdicts:
        write_verdict(verdict)
        for day in verdict.withheld:
            log.error("%s of %s is withheld: %s", verdict.table, day, "; ".join(verdict.unmet[day]))
    failed = [v for v in verdicts if v.of_published == "failed"]
    if failed:
        text = "; ".join(f"{v.table}: {line}" for v in failed for line in v.failed)
        raise AuditFailed(f"run {args.run_id!r} is not published, readers keep what they had. {text}. {failed[0].docs}")
    return verdicts


if __name__ == "__main__":
    run_main(main)
