"""Wrong changes to what has to hold of staged tables, and to the audit."""

from tests.mutants.mutant import Mutant

AUDIT = "tests/expectations/test_audit.py"
DOCS = "tests/expectations/test_docs.py"
EVENTS = "tests/expectations/test_events.py"
EXAMPLES = "tests/expectations/test_examples.py"
INTERESTS = "tests/expectations/test_interests.py"
PREDICTIONS = "tests/expectations/test_predictions.py"
QUARANTINE = "tests/expectations/test_quarantine.py"
SESSIONS = "tests/expectations/test_sessions.py"
SUITE = "tests/expectations/test_suite.py"
FAILED_AUDIT = f"{AUDIT}::test_a_failed_audit_says_what_was_found_where_people_look_and_readers_keep_what_they_had"
QUARANTINE_LIMITS = f"{QUARANTINE}::test_more_rejections_than_the_setting_allows_fail_and_more_than_a_fifth_of_it_warn"
PREDICTIONS_LIMITS = f"{PREDICTIONS}::test_changes_warn_beyond_their_limits_and_not_at_them"
DAY_BEFORE = f"{PREDICTIONS}::test_the_day_before_is_the_newest_of_the_28_before"

MUTANTS = [
    # ---- the audit ----
    Mutant(
        "exp_audit_fails_only_if_all_fail",
        "expectations/audit.py",
        '"failed" if any(severity(r) == CRITICAL for r in failed)',
        '"failed" if failed and all(severity(r) == CRITICAL for r in failed)',
        FAILED_AUDIT,
    ),
    Mutant(
        "exp_audit_warnings_fail",
        "expectations/audit.py",
        '"warned" if failed else "passed"',
        '"failed" if failed else "passed"',
        f"{QUARANTINE}::test_rejections_within_the_budget_only_warn_and_readers_get_them",
    ),
    Mutant(
        "exp_audit_stops_at_first_failure",
        "expectations/audit.py",
        "verdicts = [audit(spark, table, args.run_id, config) for table in args.table]",
        "verdicts = [audit(spark, table, args.run_id, config) for table in args.table[:1]]",
        FAILED_AUDIT,
    ),
    Mutant(
        "exp_audit_only_days_with_rows",
        "expectations/audit.py",
        'figures = figures.reindex(pd.Index(staged.owns, name="day")).reset_index()',
        "figures = figures.loc[[day for day in staged.owns if day in figures.index]].reset_index()",
        QUARANTINE,
    ),
    Mutant(
        "exp_audit_forgets_failed_rows",
        "expectations/audit.py",
        'return [r for r in results if r.success] + validate(context, "failed_rows", rows, failed, "SUMMARY")',
        "return [r for r in results if r.success]",
        FAILED_AUDIT,
    ),
    Mutant(
        "exp_message_quotes_texts", "expectations/audit.py", "if isinstance(value, str):", "if not value:", FAILED_AUDIT
    ),
    Mutant("exp_docs_not_escaped", "expectations/docs.py", "autoescape=True", "autoescape=False", DOCS),
    Mutant(
        "exp_docs_controls_as_they_are",
        "expectations/docs.py",
        "repr(value) if isinstance(value, str) else str(value)",
        "str(value)",
        DOCS,
    ),
    Mutant(
        "exp_audit_errors_pass",
        "expectations/audit.py",
        'each = [info] if "raised_exception" in info else info.values()',
        "each = [info]",
        f"{AUDIT}::test_an_expectation_that_cannot_be_judged_is_an_error_and_no_verdict",
    ),
    Mutant(
        "exp_audit_warnings_first",
        "expectations/audit.py",
        "results.sort(key=lambda r: (r.success, severity(r) != CRITICAL))",
        "results.sort(key=lambda r: (r.success, severity(r) == CRITICAL))",
        QUARANTINE,
    ),
    # ---- what all suites share ----
    Mutant("exp_volume_recent_7", "expectations/suite.py", "RECENT_DAYS = 28", "RECENT_DAYS = 20", SUITE),
    Mutant("exp_volume_recent_lt", "expectations/suite.py", "<= other < day]", "< other < day]", SUITE),
    Mutant("exp_volume_itself", "expectations/suite.py", "<= other < day]", "<= other <= day]", SUITE),
    Mutant("exp_volume_mean", "expectations/suite.py", "float(median(before))", "sum(before) / len(before)", SUITE),
    Mutant("exp_volume_enough_8", "expectations/suite.py", "len(before) >= 7", "len(before) > 7", SUITE),
    Mutant(
        "exp_volume_published_over_staged",
        "expectations/suite.py",
        'history = {**history, **dict(zip(figures["day"], figures["rows"], strict=True))}',
        'history = {**dict(zip(figures["day"], figures["rows"], strict=True)), **history}',
        SUITE,
    ),
    Mutant(
        "exp_volume_by_dt",
        "expectations/suite.py",
        "table.rows_by(table.spec.owned_by)",
        "table.rows_by()",
        SUITE,
    ),
    Mutant(
        "exp_rejected_limit_as_a_warning",
        "expectations/suite.py",
        'return between("rejected_share", 0, limit, why)',
        'return between("rejected_share", 0, limit, why, WARNING)',
        QUARANTINE_LIMITS,
    ),
    # ---- events ----
    Mutant(
        "exp_events_after_landing",
        "expectations/events.py",
        '"after_landing": F.count_if(F.col("dt") > F.col("landed"))',
        '"after_landing": F.count_if(F.col("dt") > F.date_add("landed", 1))',
        EVENTS,
    ),
    Mutant(
        "exp_events_late_share",
        "expectations/events.py",
        'between("late_share", None, 0.5,',
        'between("late_share", None, 0.95,',
        f"{EVENTS}::test_a_strange_day_warns_beyond_its_limits_and_not_at_them",
    ),
    Mutant(
        "exp_events_late_le",
        "expectations/events.py",
        'F.count_if(F.col("dt") < F.col("landed"))',
        'F.count_if(F.col("dt") <= F.col("landed"))',
        EVENTS,
    ),
    Mutant(
        "exp_events_ignored_not_accounted_for",
        "expectations/events.py",
        'figures["copies"] + ignored + quarantined',
        'figures["copies"] + quarantined',
        EVENTS,
    ),
    Mutant(
        "exp_events_floor_le",
        "expectations/events.py",
        'F.col("dt") < F.lit(config.time_floor)',
        'F.col("dt") <= F.lit(config.time_floor)',
        EVENTS,
    ),
    Mutant(
        "exp_events_purchases_without_item",
        "expectations/events.py",
        '(F.col("behavior") != "search") & F.col("item_id").isNull()',
        '(F.col("behavior") == "view") & F.col("item_id").isNull()',
        EVENTS,
    ),
    # ---- quarantine ----
    Mutant(
        "exp_quarantine_one_reason_counted",
        "expectations/quarantine.py",
        'rejected=[sum(day["rejected"].values()) for day in counted]',
        'rejected=[max(day["rejected"].values(), default=0) for day in counted]',
        QUARANTINE,
    ),
    Mutant(
        "exp_quarantine_warns_at_half",
        "expectations/quarantine.py",
        "float(config.max_rejected_share) / 5",
        "float(config.max_rejected_share) / 2",
        QUARANTINE_LIMITS,
    ),
    Mutant(
        "exp_quarantine_reason_forgotten",
        "expectations/quarantine.py",
        '        "field_too_long",\n',
        "",
        f"{QUARANTINE}::test_the_reasons_expected_are_those_that_ingest_gives",
    ),
    # ---- sessions ----
    Mutant(
        "exp_sessions_days_all",
        "expectations/sessions.py",
        "days = [day for day in staged.owns if day + ONE_DAY in owned or day + ONE_DAY not in dates]",
        "days = list(staged.owns)",
        SESSIONS,
    ),
    Mutant(
        "exp_sessions_days_none",
        "expectations/sessions.py",
        "days = [day for day in staged.owns if day + ONE_DAY in owned or day + ONE_DAY not in dates]",
        "days = [day for day in staged.owns if day + ONE_DAY not in dates]",
        SESSIONS,
    ),
    Mutant(
        "exp_sessions_events_by_partition",
        "expectations/sessions.py",
        'times.groupBy(F.to_date("time").alias("day"))',
        'staged_rows.select(F.explode("events"), F.col("dt").alias("day")).groupBy("day")',
        SESSIONS,
    ),
    Mutant(
        "exp_sessions_copies_counted",
        "expectations/sessions.py",
        'F.count_distinct("event_id").alias("count")',
        'F.count("event_id").alias("count")',
        SESSIONS,
    ),
    Mutant("exp_sessions_gap_ge", "expectations/sessions.py", "(pause > gap)", "(pause >= gap)", SESSIONS),
    Mutant("exp_sessions_any_order", "expectations/sessions.py", " | (pause < none))", ")", SESSIONS),
    Mutant(
        "exp_sessions_no_midnight",
        "expectations/sessions.py",
        'F.datediff("end_time", "start_time") > 1)',
        'F.datediff("end_time", "start_time") > 2)',
        SESSIONS,
    ),
    # ---- interests ----
    Mutant(
        "exp_interests_known",
        "expectations/interests.py",
        'at_each(recent, config.lookback_days).groupBy("day")',
        'at_each(recent, config.lookback_days + 1).groupBy("day")',
        INTERESTS,
    ),
    Mutant(
        "exp_interests_active_le",
        "expectations/interests.py",
        'F.col("age") < config.lookback_days',
        'F.col("age") <= config.lookback_days',
        INTERESTS,
    ),
    Mutant(
        "exp_interests_landed_on_t_unknown",
        "expectations/interests.py",
        'F.col("landed") <= day',
        'F.col("landed") < day',
        INTERESTS,
    ),
    Mutant(
        "exp_interests_history_is_the_lookback",
        "expectations/interests.py",
        "at_each(visits, config.history_days)",
        "at_each(visits, config.lookback_days)",
        INTERESTS,
    ),
    Mutant(
        "exp_interests_history_off",
        "expectations/interests.py",
        "timedelta(days=config.history_days - 1)",
        "timedelta(days=config.history_days - 2)",
        INTERESTS,
    ),
    Mutant(
        "exp_interests_landings_before_the_first",
        "expectations/interests.py",
        "days_between(max(begins, day - lookback), day)",
        "days_between(day - lookback, day)",
        INTERESTS,
    ),
    Mutant(
        "exp_interests_last_second",
        "expectations/interests.py",
        "lambda age: age < 1)",
        "lambda age: age < 0)",
        INTERESTS,
    ),
    Mutant(
        "exp_interests_week_in_any_lookback",
        "expectations/interests.py",
        "(current, week) if config.lookback_days < WEEK_DAYS else (week, current)",
        "(week, current)",
        f"{INTERESTS}::test_a_lookback_shorter_than_a_week_lies_in_the_week",
    ),
    # ---- examples ----
    Mutant(
        "exp_examples_drift_days",
        "expectations/examples.py",
        "ENOUGH_DATES = 3",
        "ENOUGH_DATES = 2",
        f"{EXAMPLES}::test_a_drift_is_the_difference_from_the_median_of_at_least_three_recent_dates",
    ),
    Mutant(
        "exp_examples_drift_one_way",
        "expectations/examples.py",
        'between("churned_drift", -USUAL_DRIFT, USUAL_DRIFT,',
        'between("churned_drift", None, USUAL_DRIFT,',
        f"{EXAMPLES}::test_shares_that_moved_either_way_only_warn",
    ),
    Mutant(
        "exp_examples_horizon_closed",
        "expectations/examples.py",
        "(first < begin) | (last >= close)",
        "(first < begin) | (last > close)",
        EXAMPLES,
    ),
    Mutant(
        "exp_examples_events_of_t",
        "expectations/examples.py",
        ".between(1, config.horizon_days)",
        ".between(0, config.horizon_days)",
        EXAMPLES,
    ),
    Mutant(
        "exp_examples_known_late",
        "expectations/examples.py",
        'F.datediff("landed", "day") <= config.horizon_days',
        'F.datediff("landed", "day") <= config.horizon_days + 1',
        EXAMPLES,
    ),
    Mutant(
        "exp_examples_users_of_any_t",
        "expectations/examples.py",
        '.join(users, on=["user_id", "day"], how="left_semi")',
        '.join(users.select("user_id"), on="user_id", how="left_semi")',
        EXAMPLES,
    ),
    Mutant(
        "exp_examples_landings_but_the_last",
        "expectations/examples.py",
        "days_between(day + timedelta(days=1), day + horizon)",
        "days_between(day + timedelta(days=1), day + horizon - timedelta(days=1))",
        EXAMPLES,
    ),
    Mutant(
        "exp_examples_significance_le",
        "expectations/examples.py",
        'F.col("g_p_value") < SIGNIFICANCE',
        'F.col("g_p_value") <= SIGNIFICANCE',
        EXAMPLES,
    ),
    Mutant(
        "exp_examples_moved_by_p_alone",
        "expectations/examples.py",
        '(F.col("dominant_category") != F.col("next_category")) & (F.col',
        "(F.col",
        EXAMPLES,
    ),
    Mutant(
        "exp_examples_judged_by_the_labels_alone",
        "expectations/examples.py",
        'F.least(total("current_counts"), total("next_counts"))',
        'total("next_counts")',
        EXAMPLES,
    ),
    Mutant(
        "exp_examples_state_without_arrays",
        "expectations/examples.py",
        "if name in EXAMPLES.fieldNames()]",
        'if name in EXAMPLES.fieldNames() and not name.startswith("longterm")]',
        f"{EXAMPLES}::test_any_feature_that_changes_changes_the_sum_of_the_states",
    ),
    # ---- predictions ----
    Mutant(
        "exp_pred_drift_signed",
        "expectations/predictions.py",
        'f"drift_{score}": abs(now[score] - then[score])',
        'f"drift_{score}": max(0.0, now[score] - then[score])',
        PREDICTIONS,
    ),
    Mutant(
        "exp_pred_changed_70",
        "expectations/predictions.py",
        'between("changed_top", 0, 0.5,',
        'between("changed_top", 0, 0.55,',
        PREDICTIONS_LIMITS,
    ),
    Mutant(
        "exp_pred_usual_drift",
        "expectations/predictions.py",
        "USUAL_DRIFT = 0.1",
        "USUAL_DRIFT = 0.12",
        PREDICTIONS_LIMITS,
    ),
    Mutant("exp_pred_rounding", "expectations/predictions.py", "ROUNDING = 1e-6", "ROUNDING = 1e-5", PREDICTIONS),
    Mutant(
        "exp_pred_oldest_before",
        "expectations/predictions.py",
        "return max((d for d in days",
        "return min((d for d in days",
        DAY_BEFORE,
    ),
    Mutant(
        "exp_pred_before_lt",
        "expectations/predictions.py",
        "timedelta(days=RECENT_DAYS) <= d < day",
        "timedelta(days=RECENT_DAYS) < d < day",
        DAY_BEFORE,
    ),
    Mutant(
        "exp_pred_missing_by_number",
        "expectations/predictions.py",
        'upstream.join(ours, on="user_id", how="left_anti").count()',
        "max(0, upstream.count() - ours.count())",
        PREDICTIONS,
    ),
    Mutant(
        "exp_pred_new_users_changed",
        "expectations/predictions.py",
        'on="user_id", how="inner"',
        'on="user_id", how="left"',
        PREDICTIONS,
    ),
]
