"""Wrong changes to what has to hold of staged tables, and to the audit."""

from tests.mutants.mutant import Mutant

AUDIT = "tests/expectations/test_audit.py"
DOCS = "tests/expectations/test_docs.py"
EVENTS = "tests/expectations/test_events.py"
EXAMPLES = "tests/expectations/test_examples.py"
INTERESTS = "tests/expectations/test_interests.py"
KNOWN, OF_KNOWN = "expectations/known.py", "tests/expectations/test_known.py"
GOOD = "test_good_states_have_the_figures_of_a_reading_of_all_events"
BROKEN = "test_summaries_that_do_not_say_what_has_landed_are_refused_as_the_states_made_from_them"
PREDICTIONS = "tests/expectations/test_predictions.py"
QUARANTINE = "tests/expectations/test_quarantine.py"
SESSIONS = "tests/expectations/test_sessions.py"
SESSIONS_BY_HASH = f"{SESSIONS}::test_what_is_counted_by_hashes_is_counted_by_ids_in_the_end"
SUITE = "tests/expectations/test_suite.py"
ROW_RULES = "tests/expectations/test_row_rules.py"
FAILED_AUDIT = f"{AUDIT}::test_a_failed_audit_says_what_was_found_where_people_look_and_readers_keep_what_they_had"
QUARANTINE_LIMITS = f"{QUARANTINE}::test_more_rejections_than_the_setting_allows_fail_and_more_than_a_fifth_of_it_warn"
PREDICTIONS_LIMITS = f"{PREDICTIONS}::test_changes_warn_beyond_their_limits_and_not_at_them"
WITHHELD = f"{AUDIT}::test_which_days_are_withheld"
DAY_BEFORE = f"{PREDICTIONS}::test_the_day_before_is_the_newest_of_the_28_before"

MUTANTS = [
    # ---- why rows were rejected ----
    Mutant(
        "quarantine_tells_the_last_line",
        "expectations/quarantine.py",
        'F.min(F.struct("file", "line"))',
        'F.max(F.struct("file", "line"))',
        QUARANTINE,
    ),
    Mutant(
        "quarantine_tells_reasons_by_their_names",
        "expectations/quarantine.py",
        'key=lambda row: (-row["n"], row["reason"] or "")',
        'key=lambda row: row["reason"] or ""',
        QUARANTINE,
    ),
    Mutant(
        "audit_tells_reasons_twice",
        "expectations/audit.py",
        "behind.pop(figure)",
        "behind[figure]",
        QUARANTINE,
    ),
    # ---- fields that vanish ----
    Mutant(
        "fields_alarm_where_a_day_had_none",
        "expectations/fields.py",
        " or not min(before)",
        "",
        "tests/expectations/test_fields.py",
    ),
    Mutant(
        "fields_excused_by_a_day_that_fails_otherwise",
        "expectations/fields.py",
        "fails = day in failed",
        "fails = False",
        "tests/expectations/test_fields.py",
    ),
    Mutant(
        "fields_excused_by_a_day_with_many_rejections",
        "expectations/events.py",
        '(figures["rejected_share"] > float(config.max_rejected_share))',
        '(figures["rejected_share"] > 1)',
        "tests/expectations/test_fields.py",
    ),
    Mutant(
        "fields_alarm_below_the_median",
        "expectations/fields.py",
        "if share < min(before) else 1.0",
        "if share < median(before) else 1.0",
        "tests/expectations/test_fields.py",
    ),
    Mutant(
        "fields_days_after_count",
        "expectations/fields.py",
        "if first <= at < day and field in other",
        "if first <= at and field in other",
        "tests/expectations/test_fields.py",
    ),
    Mutant(
        "fields_what_may_vanish_fails",
        "expectations/fields.py",
        ' and field not in staged.counts.get("may_vanish", [])',
        "",
        "tests/expectations/test_fields.py",
    ),
    Mutant(
        "fields_of_the_oldest_publish",
        "expectations/fields.py",
        "found.setdefault(day, share)",
        "found[day] = share",
        "tests/expectations/test_fields.py",
    ),
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
        "found = [audit(spark, staged, config) for staged in stagings]",
        "found = [audit(spark, staged, config) for staged in stagings[:1]]",
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
        'return results + validate(context, "failed_rows", rows, failed, "SUMMARY")',
        "return results",
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
    Mutant(
        "exp_interests_any_cut_will_do",
        "expectations/interests.py",
        "(F.size(shares) < kept if kept else F.lit(True))",
        "F.lit(not kept)",
        f"{INTERESTS}::test_where_categories_are_cut_shares_may_add_up_to_less_and_no_more_categories_than_that_are_kept",
    ),
    Mutant(
        "exp_interests_any_number_of_categories",
        "expectations/interests.py",
        "if config.longterm_categories:",
        "if False:",
        f"{INTERESTS}::test_where_categories_are_cut_shares_may_add_up_to_less_and_no_more_categories_than_that_are_kept",
    ),
    # ---- days that are withheld ----
    Mutant(
        "withhold_each_table_its_own",
        "expectations/audit.py",
        "return [with_days_withheld(verdict, bad, verdicts) for verdict in verdicts]",
        "return [with_days_withheld(verdict, set(verdict.withheld), verdicts) for verdict in verdicts]",
        WITHHELD,
    ),
    Mutant(
        "withhold_against_the_setting",
        "expectations/audit.py",
        "if not publish_good_days or fails or",
        "if fails or",
        WITHHELD,
    ),
    Mutant(
        "withhold_what_is_of_no_day",
        "expectations/audit.py",
        "if not publish_good_days or fails or",
        "if not publish_good_days or",
        WITHHELD,
    ),
    Mutant(
        "withhold_all_days",
        "expectations/audit.py",
        "or bad >= {str(day) for day in owns}:",
        "or not owns:",
        WITHHELD,
    ),
    Mutant(
        "withhold_one_day_of_sessions",
        "expectations/audit.py",
        "bad = with_neighbours(bad, owns)",
        "pass",
        f"{AUDIT}::test_sessions_of_a_day_take_those_that_touch_it_along_and_no_others",
    ),
    Mutant(
        "withhold_sessions_of_days_apart",
        "expectations/audit.py",
        " and abs(after - day) == ONE_DAY:",
        ":",
        f"{AUDIT}::test_sessions_of_a_day_take_those_that_touch_it_along_and_no_others",
    ),
    Mutant(
        "withhold_neighbours_after_it",
        "expectations/audit.py",
        "for days in (sorted(owns), sorted(owns, reverse=True)):",
        "for days in (sorted(owns),):",
        f"{AUDIT}::test_sessions_of_a_day_take_those_that_touch_it_along_and_no_others",
    ),
    Mutant(
        "withhold_warned_days",
        "expectations/audit.py",
        "critical = [name_of(result) for result in failed if severity(result) == CRITICAL]",
        "critical = [name_of(result) for result in failed]",
        f"{AUDIT}::test_one_bad_day_of_three_is_withheld_by_a_setting_and_else_all_of_them",
    ),
    Mutant(
        "withhold_rows_of_no_day",
        "expectations/audit.py",
        "of_no_day = any(not on_days[name] for name in critical)",
        "of_no_day = False",
        f"{AUDIT}::test_rows_of_no_day_let_no_day_through",
    ),
    Mutant(
        "fields_a_failed_day_excuses_the_next",
        "expectations/fields.py",
        "        if fails:\n",
        "        if False:\n",
        "tests/expectations/test_fields.py",
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
        'figures["copies"] + ignored + quarantined + forgotten',
        'figures["copies"] + quarantined + forgotten',
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
        "counts.subtract(by_day(",
        "Counter(by_day(",
        SESSIONS_BY_HASH,
    ),
    Mutant(
        "exp_sessions_equal_hashes_are_equal_ids",
        "expectations/sessions.py",
        'agg(less_than_rows("event_id"))',
        'agg(less_than_rows("key"))',
        SESSIONS_BY_HASH,
    ),
    Mutant(
        "exp_sessions_no_second_count",
        "expectations/sessions.py",
        'agg(less_than_rows("session_id"))',
        'agg(F.lit(1).alias("count"))',
        SESSIONS_BY_HASH,
    ),
    Mutant(
        "exp_sessions_a_missing_id_is_one",
        "expectations/sessions.py",
        'F.when(F.col("session_id").isNotNull(), F.xxhash64("session_id"))',
        'F.xxhash64("session_id")',
        SESSIONS_BY_HASH,
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
        KNOWN,
        'F.datediff("day", "first") < known.config.lookback_days',
        'F.datediff("day", "first") <= known.config.lookback_days',
        INTERESTS,
    ),
    Mutant("exp_interests_not_active", KNOWN, '.where(F.col("n") > 0)', '.where(F.col("n") >= 0)', INTERESTS),
    Mutant("exp_interests_landed_on_t_unknown", KNOWN, 'F.col("landed") <= day', 'F.col("landed") < day', INTERESTS),
    Mutant(
        "audit_warnings_before_why_a_day_is_withheld",
        "expectations/audit.py",
        'f"not published, since {why}", *unmet.get(day, [])]',
        '*unmet.get(day, []), f"not published, since {why}"]',
        "tests/expectations/test_audit.py::test_a_day_that_its_table_only_warns_of_says_first_why_it_is_withheld",
    ),
    Mutant(
        "exp_interests_history_is_the_lookback",
        KNOWN,
        '"last", known.config.history_days)',
        '"last", known.config.lookback_days)',
        INTERESTS,
    ),
    Mutant(
        "exp_known_a_date_twice_is_no_date", KNOWN, 'F.bit_or("dates")', 'F.bit_xor("dates")', f"{OF_KNOWN}::{GOOD}"
    ),
    Mutant(
        "exp_known_totals_of_anybody",
        KNOWN,
        'F.xxhash64("user_id", "category_id", *more)',
        'F.xxhash64("category_id", *more)',
        f"{OF_KNOWN}::{BROKEN}",
    ),
    Mutant(
        "exp_known_totals_without_spend",
        KNOWN,
        'for name in ("n", "weight", "purchases", "spend")),',
        'for name in ("n", "weight", "purchases", "purchases")),',
        f"{OF_KNOWN}::{BROKEN}",
    ),
    Mutant("exp_known_sample_of_nobody", KNOWN, "F.lit(2**halvings)) == 0", "F.lit(2**halvings)) < 0", INTERESTS),
    Mutant(
        "exp_known_repeats_where_a_summary_is_gone",
        KNOWN,
        '.join(before, on=ids, how="left_anti")',
        '.join(before.limit(0), on=ids, how="left_anti")',
        f"{OF_KNOWN}::test_where_summaries_are_gone_events_are_read",
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
    # ---- rows that break a rule, and the days of a verdict ----
    Mutant(
        "rows_above_is_not_below", "expectations/row_rules.py", "(compared > high)", "(compared >= high)", ROW_RULES
    ),
    Mutant("rows_below_or_equal", "expectations/row_rules.py", "(compared < low)", "(compared <= low)", ROW_RULES),
    Mutant(
        "rows_null_is_in_no_set",
        "expectations/row_rules.py",
        'broken = ~value.isin(list(kwargs.pop("value_set")))',
        'broken = ~F.coalesce(value.isin(list(kwargs.pop("value_set"))), F.lit(False))',
        ROW_RULES,
    ),
    Mutant(
        "rows_other_arguments_are_passed_over",
        "expectations/row_rules.py",
        "    if kwargs:\n",
        '    if "mostly" in kwargs:\n',
        ROW_RULES,
    ),
    Mutant(
        "rows_of_no_day_pass",
        "expectations/audit.py",
        "{day: count for day, count in counts.items() if count}",
        "{day: count for day, count in counts.items() if count and day}",
        f"{AUDIT}::test_rows_that_break_an_expectation_are_counted_on_their_days_and_those_of_no_day_fail_all",
    ),
    Mutant(
        "verdict_of_all_days",
        "expectations/audit.py",
        "for day in days if day in counts}",
        "for day in days for counts in [{day: 1}]}",
        f"{AUDIT}::test_rows_that_break_an_expectation_are_counted_on_their_days_and_those_of_no_day_fail_all",
    ),
    Mutant(
        "verdict_names_no_days",
        "expectations/audit.py",
        "if days and len(staged.owns) > 1",
        "if days and len(staged.owns) < 1",
        f"{AUDIT}::test_a_verdict_on_several_days_says_which_of_them_it_is_about",
    ),
]
