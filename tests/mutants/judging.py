"""Wrong changes to what measures, compares, promotes, scores, watches and explains models."""

from tests.mutants.mutant import Mutant

JUDGING = ("metrics", "comparison", "gate", "baselines", "boosted", "report")
METRICS, EVALUATION, GATE, BASELINES, BOOSTED, REPORT = (f"tests/model/judging/test_{name}.py" for name in JUDGING)
COMMANDS = ("evaluate", "score", "monitor", "explain")
EVALUATE, SCORE, MONITOR, EXPLAIN = (f"tests/model/test_{name}.py" for name in COMMANDS)
REGISTRY = "tests/model/versions/test_registry.py"
SEGMENTS = "tests/model/versions/test_segments.py"

MUTANTS = [
    # ---- how good, and how sure ----
    Mutant(
        "metrics_interval_80",
        "model/judging/metrics.py",
        "level: float = 0.95",
        "level: float = 0.8",
        f"{METRICS}::test_an_interval_leaves_out_a_fortieth_on_each_side",
    ),
    Mutant(
        "metrics_interval_one_sided",
        "model/judging/metrics.py",
        "[(1 - level) / 2, (1 + level) / 2]",
        "[1 - level, level]",
        f"{EVALUATION}::test_values_and_bounds_are_those_of_a_bootstrap_by_hand",
    ),
    Mutant("metrics_ece_one_bin", "model/judging/metrics.py", "CALIBRATION_BINS = 15", "CALIBRATION_BINS = 1", METRICS),
    Mutant(
        "metrics_ece_ten_bins", "model/judging/metrics.py", "CALIBRATION_BINS = 15", "CALIBRATION_BINS = 10", METRICS
    ),
    Mutant(
        "metrics_tie_optimistic",
        "model/judging/metrics.py",
        "(part[rows] >= own[:, None]).sum(axis=1)",
        "(part[rows] > own[:, None]).sum(axis=1) + 1",
        METRICS,
    ),
    Mutant(
        "metrics_bootstrap_rows",
        "model/judging/metrics.py",
        "self.user, names = pd.factorize(np.asarray(users))",
        "self.user, names = pd.factorize(np.arange(len(users)))",
        METRICS,
    ),
    Mutant(
        "metrics_recall_min_k",
        "model/judging/metrics.py",
        "hits_at_k / relevant",
        "hits_at_k / np.minimum(relevant, k)",
        "model/judging/metrics.py",
    ),
    Mutant(
        "metrics_nothing_is_zero",
        "model/judging/metrics.py",
        "none = np.where(n > 0, 0.0, np.nan)",
        "none = np.zeros(len(n))",
        METRICS,
    ),
    Mutant(
        "metrics_threshold_of_precision",
        "model/judging/metrics.py",
        "thresholds[np.argmax(f1[:-1])]",
        "thresholds[np.argmax(precision[:-1])]",
        METRICS,
    ),
    Mutant("metrics_area_ties_won", "model/judging/metrics.py", "hits - true / 2", "hits", METRICS),
    # ---- side by side ----
    Mutant(
        "eval_diff_unpaired_sign",
        "model/judging/comparison.py",
        "interval(one.samples - other.samples)",
        "interval(other.samples - one.samples)",
        EVALUATION,
    ),
    Mutant(
        "eval_diff_value_sign",
        "model/judging/comparison.py",
        "value = one.value - other.value",
        "value = other.value - one.value",
        EVALUATION,
    ),
    Mutant(
        "evaluation_recall_of_the_first_item",
        "dags/shared/evaluation.py",
        '("next items recall@20", "next_items",',
        '("next items recall@20", "first_item",',
        "tests/dags/shared/test_evaluation.py",
    ),
    Mutant(
        "eval_next_item_any",
        "model/judging/comparison.py",
        "first = [keys[:1] for keys in relevant]",
        "first = [keys[:3] for keys in relevant]",
        EVALUATION,
    ),
    Mutant(
        "eval_slices_by_test",
        "model/judging/comparison.py",
        'light, heavy = train["frequency"]',
        'light, heavy = test["frequency"]',
        EVALUATION,
    ),
    Mutant(
        "eval_new_users_lt",
        "model/judging/comparison.py",
        '(test["tenure_seconds"] <= lookback_days * 86_400)',
        '(test["tenure_seconds"] < lookback_days * 86_400)',
        EVALUATION,
    ),
    Mutant(
        "eval_unseen_left_out",
        "model/judging/comparison.py",
        'by_category, test["next_category"].notna().to_numpy())',
        "by_category, truth >= 0)",
        EVALUATION,
    ),
    Mutant(
        "eval_threshold_half", "model/judging/comparison.py", "method.thresholds.get(label, 0.5)", "0.5", EVALUATION
    ),
    Mutant(
        "eval_slice_by_other_seed",
        "model/judging/comparison.py",
        'UserBootstrap(test["user_id"].to_numpy(), resamples, seed)',
        'UserBootstrap(test["user_id"].to_numpy(), resamples)',
        EVALUATION,
    ),
    # ---- the gate ----
    Mutant("gate_low_ge_0", "model/judging/gate.py", "passed = low > 0 or", "passed = low >= 0 or", GATE),
    Mutant("gate_tolerance_x2", "model/judging/gate.py", "tolerance: float = 0.02", "tolerance: float = 0.04", GATE),
    Mutant("gate_tolerance_gt", "model/judging/gate.py", "passed = gain >= -rule", "passed = gain > -rule", GATE),
    Mutant(
        "gate_fewest_users_le", "model/judging/gate.py", "users < rule.fewest_users", "users <= rule.fewest_users", GATE
    ),
    Mutant("gate_fewest_users_500", "model/judging/gate.py", "fewest_users: int = 50", "fewest_users: int = 500", GATE),
    Mutant("gate_slice_by_high", "model/judging/gate.py", "passed = gain >= -rule", "passed = high >= -rule", GATE),
    Mutant(
        "gate_uncertain_champion",
        "model/judging/gate.py",
        '"the champion", rule.better_than_champion, differences))',
        '"the champion", rule.better_than_champion, differences, rule.certain_over_baselines))',
        GATE,
    ),
    Mutant("gate_one_is_enough", "model/judging/gate.py", "promote = all(", "promote = any(", GATE),
    Mutant(
        "gate_baseline_on_noise", "model/judging/gate.py", "low > 0 or (gain > 0 and not certain)", "high > 0", GATE
    ),
    Mutant("gate_sign_of_losses", "model/judging/gate.py", "return -1 if self.metric", "return 1 if self.metric", GATE),
    # ---- a run is measured ----
    Mutant(
        "evaluate_rule_loosened",
        "model/evaluate.py",
        "certain_over_baselines=False)",
        "certain_over_baselines=False, tolerance=1.0)",
        GATE,
    ),
    Mutant("evaluate_rule_of_ten", "model/evaluate.py", '"recall@5"), certain', '"recall@10"), certain', GATE),
    Mutant(
        "evaluate_thresholds_of_test",
        "model/evaluate.py",
        "thresholds(valid, binary(artifact.predict(valid)))",
        "thresholds(test, binary(prediction))",
        EVALUATE,
    ),
    Mutant(
        "evaluate_baseline_thresholds_of_test", "model/evaluate.py", ", test, valid))\n", ", test, test))\n", EVALUATE
    ),
    Mutant(
        "evaluate_baselines_of_five_rows",
        "model/evaluate.py",
        "baseline.fit(train, valid, categories)",
        "baseline.fit(train.head(5), valid.head(5), categories)",
        EVALUATE,
    ),
    Mutant(
        "evaluate_baselines_know_validation",
        "model/evaluate.py",
        "baseline.fit(train, valid, categories)",
        "baseline.fit(pd.concat([train, valid]), valid, categories)",
        EVALUATE,
    ),
    Mutant(
        "evaluate_newest_table",
        "model/evaluate.py",
        'Table("examples", plan.tables["examples"])',
        'Table("examples")',
        EVALUATE,
    ),
    Mutant(
        "evaluate_newest_champion",
        "model/evaluate.py",
        "registry.find_champion(plan.as_of)",
        "registry.champion()",
        EVALUATE,
    ),
    Mutant(
        "evaluate_columns_of_another",
        "model/evaluate.py",
        "prediction.categories[:, column[category]]",
        "prediction.categories[:, min(place, len(column) - 1)]",
        EVALUATE,
    ),
    Mutant("evaluate_seed_fixed", "model/evaluate.py", "        seed=plan.seed,\n", "", EVALUATE),
    Mutant(
        "evaluate_registers_another",
        "model/evaluate.py",
        '"finetuned" if candidate.card["name"] == "finetuned" else "lora")',
        '"scratch")',
        EVALUATE,
    ),
    # ---- what has to be beaten ----
    Mutant(
        "baselines_blend_on_train",
        "model/judging/baselines.py",
        'labelled = valid[columns_of(self.categories, valid["next_category"]) >= 0]',
        'labelled = train[columns_of(self.categories, train["next_category"]) >= 0]',
        BASELINES,
    ),
    Mutant(
        "baselines_markov_gaps",
        "model/judging/baselines.py",
        "follows = (rows[1:] == rows[:-1]) & (places[1:] == places[:-1] - 1)",
        "follows = rows[1:] == rows[:-1]",
        BASELINES,
    ),
    Mutant(
        "baselines_markov_backwards",
        "model/judging/baselines.py",
        "steps = (columns[:-1][follows], columns[1:][follows])\n        counts",
        "steps = (columns[1:][follows], columns[:-1][follows])\n        counts",
        BASELINES,
    ),
    Mutant(
        "baselines_markov_eleven_events",
        "model/judging/baselines.py",
        "recent = places < 10",
        "recent = places <= 10",
        BASELINES,
    ),
    Mutant(
        "baselines_rate_of_the_unknown",
        "model/judging/baselines.py",
        "train[label].dropna().astype(float)",
        "train[label].fillna(False).astype(float)",
        BASELINES,
    ),
    Mutant(
        "baselines_decay_left_out",
        "model/judging/baselines.py",
        '"longterm_categories", "longterm_shares", self.categories',
        '"longterm_categories", "longterm_counts", self.categories',
        BASELINES,
    ),
    Mutant(
        "baselines_oldest_neighbours",
        "model/judging/baselines.py",
        ".tail(self.most_rows)",
        ".head(self.most_rows)",
        BASELINES,
    ),
    Mutant(
        "baselines_regression_without_tenure",
        "model/judging/baselines.py",
        '"history_events", "tenure_seconds")',
        '"history_events")',
        BASELINES,
    ),
    Mutant(
        "boosted_most_rows_60", "model/judging/boosted.py", "most_rows: int = 12_000", "most_rows: int = 60", BOOSTED
    ),
    Mutant(
        "boosted_most_rows_1200",
        "model/judging/boosted.py",
        "most_rows: int = 12_000",
        "most_rows: int = 1_200",
        BOOSTED,
    ),
    Mutant(
        "boosted_first_rows",
        "model/judging/boosted.py",
        "labelled = labelled.iloc[np.sort(chosen)]",
        "labelled = labelled.head(len(chosen))",
        BOOSTED,
    ),
    Mutant("boosted_rows_repeat", "model/judging/boosted.py", "replace=False", "replace=True", BOOSTED),
    Mutant(
        "boosted_stops_on_train",
        "model/judging/boosted.py",
        "lgb.Dataset(*valid, reference=rows)",
        "lgb.Dataset(*train, reference=rows)",
        BOOSTED,
    ),
    Mutant(
        "boosted_recent_quarter", "model/judging/boosted.py", "pd.Timedelta(days=28)", "pd.Timedelta(days=90)", BOOSTED
    ),
    Mutant(
        "boosted_ranks_turned",
        "model/judging/boosted.py",
        '"rank_by_decayed": rank_within(rows, decayed)',
        '"rank_by_decayed": rank_within(rows, -decayed)',
        BOOSTED,
    ),
    # ---- a day is scored ----
    Mutant(
        "score_rule_swapped",
        "model/versions/segments.py",
        'int(card["lookback_days"]), int(card["min_events"])',
        'int(card["min_events"]), int(card["lookback_days"])',
        f"{SCORE}::test_a_day_is_scored_by_its_champion_and_published",
    ),
    Mutant(
        "score_reads_all_days",
        "model/score.py",
        "table.read(spark, args.day, args.day)",
        "table.read(spark, last=args.day)",
        f"{SCORE}::test_a_day_is_scored_by_its_champion_and_published",
    ),
    Mutant(
        "score_newest_champion",
        "model/score.py",
        "registry.champion_at(args.day)",
        "registry.champion()",
        f"{SCORE}::test_a_day_is_scored_by_its_champion_and_published",
    ),
    Mutant(
        "score_new_days_lt",
        "model/versions/segments.py",
        "(tenure_seconds <= rule.new_days * DAY_SECONDS)",
        "(tenure_seconds < rule.new_days * DAY_SECONDS)",
        f"{SEGMENTS}::test_a_user_is_in_the_first_segment_that_applies",
    ),
    Mutant(
        "score_migrating_before_at_risk",
        "model/versions/segments.py",
        "[is_new, churned >= rule.at_risk, migrated >= rule.migrating], SEGMENTS[:3]",
        '[is_new, migrated >= rule.migrating, churned >= rule.at_risk], ("new", "migrating", "at_risk")',
        f"{SEGMENTS}::test_a_user_is_in_the_first_segment_that_applies",
    ),
    Mutant(
        "score_thresholds_swapped",
        "model/versions/segments.py",
        'own.get("at_risk", 0.5), own.get("migrating", 0.5)',
        'own.get("migrating", 0.5), own.get("at_risk", 0.5)',
        f"{SEGMENTS}::test_a_user_is_in_the_first_segment_that_applies",
    ),
    Mutant(
        "score_rule_not_of_the_card",
        "model/score.py",
        "SegmentRule.of(artifact.card)",
        'SegmentRule.of({**artifact.card, "lookback_days": 99})',
        f"{SCORE}::test_segments_go_by_what_the_model_was_made_with_and_other_interests_are_told",
    ),
    Mutant(
        "score_other_lookback_is_not_told",
        "model/score.py",
        'if "lookback_days" in differences(made_with, learnt_with):',
        'if "lookback_days" in differences(learnt_with, learnt_with):',
        f"{SCORE}::test_segments_go_by_what_the_model_was_made_with_and_other_interests_are_told",
    ),
    Mutant(
        "segments_fewer_at_risk",
        "model/versions/segments.py",
        "SEGMENT_PERCENTILE = 80",
        "SEGMENT_PERCENTILE = 90",
        "model/versions/segments.py",
    ),
    Mutant(
        "score_five_categories",
        "lake/rules.py",
        "TOP_CATEGORIES = 10",
        "TOP_CATEGORIES = 5",
        f"{SCORE}::test_of_many_categories_the_ten_likeliest_are_named_best_first",
    ),
    # ---- a day is watched ----
    Mutant(
        "monitor_horizon_not_over",
        "model/monitor.py",
        "if horizon is None or judged + timedelta(days=horizon) > day:",
        "if horizon is None or judged >= day:",
        MONITOR,
    ),
    Mutant(
        "monitor_horizon_lt",
        "model/monitor.py",
        "timedelta(days=horizon) > day:",
        "timedelta(days=horizon) >= day:",
        MONITOR,
    ),
    Mutant(
        "monitor_horizon_of_today",
        "model/monitor.py",
        'horizon = learnt_with.get("horizon_days")',
        "horizon = settings().horizon_days",
        MONITOR,
    ),
    Mutant(
        "monitor_judges_by_labels_of_another_horizon",
        "model/monitor.py",
        "        if not names:\n            return judged\n",
        "        return judged\n",
        f"{MONITOR}::test_outcomes_are_judged_by_examples_of_the_settings_of_the_model_and_others_are_told",
    ),
    Mutant("monitor_recall_at_6", "model/monitor.py", "list(ranked)[:5]", "list(ranked)[:6]", MONITOR),
    Mutant("monitor_interval_90", "model/monitor.py", "[2.5, 97.5]", "[5, 95]", MONITOR),
    Mutant("monitor_below_the_value", "model/monitor.py", "high < evaluation[1]", "high < evaluation[0]", MONITOR),
    Mutant("monitor_promise_of_a_baseline", "model/monitor.py", 'entry["method"] != "model" or ', "", MONITOR),
    Mutant(
        "monitor_chance_is_drift", "model/monitor.py", "limit = max(MAJOR_SHIFT,", "limit = min(MAJOR_SHIFT,", MONITOR
    ),
    Mutant(
        "monitor_day_before",
        "model/monitor.py",
        "week = [day - timedelta(days=7), day - timedelta(days=14)]",
        "week = [day - timedelta(days=1), day - timedelta(days=14)]",
        MONITOR,
    ),
    Mutant("monitor_recent_13", "model/monitor.py", "RECENT_DAYS) <= d < day", "RECENT_DAYS) < d < day", MONITOR),
    Mutant(
        "monitor_volume_of_the_day_before",
        "model/monitor.py",
        "day - timedelta(days=7 * n) for n",
        "day - timedelta(days=n) for n",
        MONITOR,
    ),
    Mutant(
        "evaluate_champion_of_another_horizon",
        "model/evaluate.py",
        "return None if differences(now, then) else version",
        "return version",
        f"{EVALUATE}::test_a_champion_that_answers_another_question_is_left_out_and_told",
    ),
    # ---- who is champion ----
    Mutant(
        "registry_champion_lt",
        "model/versions/registry.py",
        "if entry[0] <= day]",
        "if entry[0] < day]",
        f"{REGISTRY}::test_a_past_day_has_the_champion_of_that_day",
    ),
    Mutant(
        "registry_alias_to_the_last",
        "model/versions/registry.py",
        "newest = max(self._promotions())[2]",
        "newest = version",
        f"{REGISTRY}::test_a_past_day_has_the_champion_of_that_day",
    ),
    Mutant(
        "registry_champion_by_number",
        "model/versions/registry.py",
        "return max(until)[2] if until",
        "return max(entry[2] for entry in until) if until",
        f"{REGISTRY}::test_a_past_day_has_the_champion_of_that_day",
    ),
    Mutant(
        "registry_version_of_another_run",
        "model/versions/registry.py",
        'version.tags.get("artifact") == digest and version.tags.get("run_id") == tracked.run_id',
        'version.tags.get("artifact") == digest',
        f"{REGISTRY}::test_registering_the_same_files_again_gives_the_same_version",
    ),
    Mutant(
        "promote_without_asking",
        "model/promote.py",
        'if not decision["promote"]:',
        "if not decision:",
        f"{REGISTRY}::test_a_candidate_that_did_not_pass_leaves_the_champion",
    ),
    Mutant(
        "promote_since_the_plan_ends",
        "model/promote.py",
        "registry.promote(version, plan.as_of)",
        "registry.promote(version, plan.as_of.replace(day=1))",
        f"{REGISTRY}::test_a_candidate_that_passed_the_gate_becomes_champion_from_its_date_on",
    ),
    # ---- in words, and drawn ----
    Mutant(
        "explain_by_the_champion",
        "model/explain.py",
        "version or published_version(day) or registry",
        "version or registry",
        EXPLAIN,
    ),
    Mutant(
        "explain_lookback_of_the_model",
        "model/explain.py",
        "lookback_days=lookback_days or rule.new_days",
        "lookback_days=rule.new_days",
        EXPLAIN,
    ),
    Mutant(
        "explain_rule_of_the_state",
        "model/explain.py",
        "reason=reason(known, prediction, rule)",
        "reason=reason(known, prediction, SegmentRule(lookback_days or rule.new_days, 5, 0.4, 0.5))",
        EXPLAIN,
    ),
    Mutant("explain_oldest_first", "model/explain.py", "    ][::-1]", "    ]", EXPLAIN),
    Mutant(
        "explain_attention_to_the_oldest",
        "model/explain.py",
        '[None] * (len(known["item_keys"]) - kept) + weights[:kept].tolist()',
        'weights[:kept].tolist() + [None] * (len(known["item_keys"]) - kept)',
        EXPLAIN,
    ),
    Mutant(
        "report_not_escaped",
        "model/judging/report/render.py",
        "autoescape=True",
        "autoescape=False",
        f"{REPORT}::test_what_comes_from_the_shop_is_escaped",
    ),
    Mutant(
        "report_flows_numbered_last",
        "model/judging/report/render.py",
        "    flows, first_choices = flow_plots(report, plots)\n    sections = heads(report, plots)\n",
        "    sections = heads(report, plots)\n    flows, first_choices = flow_plots(report, plots)\n",
        f"{REPORT}::test_every_figure_has_its_place_and_is_a_valid_plot",
    ),
    Mutant(
        "report_worst_in_bold", "model/judging/report/render.py", "best = max(measured[", "best = min(measured[", REPORT
    ),
    Mutant(
        "report_failed_speak_for_it",
        "model/judging/report/render.py",
        '(~decision.checks["passed"]).sum()',
        'decision.checks["passed"].sum()',
        REPORT,
    ),
    Mutant(
        "report_flows_turned",
        "model/judging/report/figures.py",
        "np.add.at(grouped.T, into, chances.T)",
        "np.add.at(grouped.T, into, (1 - chances).T)",
        REPORT,
    ),
    Mutant(
        "report_bounds_swapped",
        "model/judging/report/figures.py",
        '(part["high"] - part["value"]).clip(lower=0)',
        '(part["value"] - part["low"]).clip(lower=0)',
        REPORT,
    ),
    Mutant(
        "report_calibration_turned",
        "model/judging/report/figures.py",
        "observed, predicted = calibration_curve(",
        "predicted, observed = calibration_curve(",
        f"{REPORT}::test_rows_of_equal_probability_are_one_point_of_the_calibration",
    ),
    Mutant(
        "report_axes_swapped", "model/judging/report/figures.py", "thinned(false, true)", "thinned(true, false)", REPORT
    ),
    Mutant(
        "report_confusion_turned", "model/judging/report/figures.py", "(at[0], at[1]), 1)", "(at[1], at[0]), 1)", REPORT
    ),
    Mutant(
        "report_least_is_best",
        "model/judging/report/figures.py",
        "ascending=metric not in LOWER_IS_BETTER",
        "ascending=True",
        REPORT,
    ),
    Mutant(
        "evaluate_best_epoch_by_recall",
        "model/evaluate.py",
        "min(epochs, key=lambda e: e[LOSS])['valid_recall_at_5']",
        "max(e['valid_recall_at_5'] for e in epochs)",
        EVALUATE,
    ),
    Mutant(
        "score_loads_for_each_batch",
        "model/score.py",
        "@functools.lru_cache(maxsize=1)",
        "@functools.lru_cache(maxsize=0)",
        f"{SCORE}::test_spark_says_what_one_process_says_however_the_rows_are_cut_and_loads_a_model_once_a_worker",
    ),
]
