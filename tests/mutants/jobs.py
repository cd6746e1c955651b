"""Wrong changes to the jobs from landing files to examples, and to the one that serves."""

from tests.mutants.mutant import Mutant

RULE = "tests/jobs/test_session_rule.py"
WHOLE_JOB = f"{RULE}::test_the_job_over_a_range_and_then_for_days_that_come_again_has_the_sessions_of_the_oracle"
STARTS = "tests/jobs/test_sessionize.py::test_where_sessions_start"
SAYS = "tests/jobs/test_sessionize.py::test_what_a_session_says"
TAKEN_BACK = f"{RULE}::test_a_late_event_that_is_taken_back_leaves_its_session"
COMES_AGAIN = f"{RULE}::test_what_a_delivery_of_several_days_brought_late_leaves_when_one_of_them_comes_again"
STATES = "tests/jobs/test_interests.py::test_a_sparse_range_has_the_states_of_a_naive_reading_at_its_dates"
HISTORY = "tests/jobs/test_interests.py::test_a_run_reads_the_whole_history_and_not_the_lookback_alone"
RESTATED = "tests/jobs/test_interests.py::test_a_restatement_counts_what_came_late_and_still_nothing_after_t"
EXAMPLES = "tests/jobs/test_examples.py"
LABELS = f"{EXAMPLES}::test_a_sparse_range_has_the_labels_of_a_naive_reading_under_the_states_as_they_were_published"
MISSING = (
    f"{EXAMPLES}::test_only_dates_that_have_states_and_no_examples_are_missing_and_the_last_one_is_made_in_any_case"
)
REFUSED = f"{EXAMPLES}::test_a_date_whose_horizon_is_not_complete_is_refused"
INGEST = "tests/jobs/test_ingest.py"
INPUT = f"{INGEST}::test_input_is_events_and_their_copies_ignored_and_quarantined_on_each_day"
REJECTIONS = "tests/jobs/test_rejections.py"
RAW_ROWS = "tests/jobs/test_raw_rows.py"
ARGUMENTS = "tests/jobs/test_arguments.py"
SIMULATE = "tests/jobs/test_simulate.py"
SERVE = "tests/jobs/test_serve.py"
RECEIPTS = (
    "tests/jobs/test_export_completejourney.py::test_ingest_makes_an_event_of_every_receipt_line_also_of_equal_ones"
)

MUTANTS = [
    # ---- sessions ----
    Mutant(
        "sess_gap_ge",
        "jobs/sessionize.py",
        'F.col("event_time") - F.col("previous") > F.lit(gap)',
        'F.col("event_time") - F.col("previous") >= F.lit(gap)',
        STARTS,
    ),
    Mutant(
        "sess_full_day_le",
        "jobs/sessionize.py",
        'F.col("chain_start") < midnight - F.lit(ONE_DAY)',
        'F.col("chain_start") <= midnight - F.lit(ONE_DAY)',
        STARTS,
    ),
    Mutant(
        "sess_cut_after_an_event_at_midnight",
        "jobs/sessionize.py",
        'F.col("previous") < midnight',
        'F.col("previous") <= midnight',
        STARTS,
    ),
    Mutant(
        "sess_revenue_of_what_was_only_seen",
        "jobs/sessionize.py",
        'F.sum(F.when(F.col("behavior") == "purchase", F.col("price")))',
        'F.sum(F.col("price"))',
        SAYS,
    ),
    Mutant(
        "sess_in_the_partition_of_its_start",
        "jobs/sessionize.py",
        'F.to_date("end_time")',
        'F.to_date("start_time")',
        SAYS,
    ),
    Mutant(
        "sess_overwritten_first_only",
        "jobs/sessionize.py",
        'str(run.first) <= commit["last"]',
        'str(run.first) <= commit["first"]',
        COMES_AGAIN,
    ),
    Mutant(
        "sess_overwritten_last_only",
        "jobs/sessionize.py",
        'commit["first"] <= str(run.last)',
        'commit["last"] <= str(run.last)',
        COMES_AGAIN,
    ),
    Mutant(
        "sess_what_was_taken_back_stays",
        "jobs/sessionize.py",
        "for table in (events, *overwritten):",
        "for table in (events,):",
        TAKEN_BACK,
    ),
    Mutant(
        "sess_partition_left_without_events_stays",
        "jobs/sessionize.py",
        'set(events.rows_by("dt")) | (set(sessions.rows_by("dt")) if sessions else set())',
        'set(events.rows_by("dt"))',
        TAKEN_BACK,
    ),
    Mutant(
        "sess_read_one_day_less",
        "jobs/sessionize.py",
        "events.read(spark, start.date(), end.date())",
        "events.read(spark, days[0] - ONE_DAY, end.date())",
        WHOLE_JOB,
    ),
    Mutant(
        "sess_read_no_next_day",
        "jobs/sessionize.py",
        "events.read(spark, start.date(), end.date())",
        "events.read(spark, start.date(), days[-1])",
        WHOLE_JOB,
    ),
    Mutant(
        "sess_window_without_its_gap",
        "jobs/sessionize.py",
        "datetime.combine(first, time(), UTC) - ONE_DAY - gap",
        "datetime.combine(first, time(), UTC) - ONE_DAY",
        f"{RULE}::test_the_sessions_of_a_day_depend_on_the_events_of_its_window_alone",
    ),
    Mutant(
        "sess_basis_of_the_clock",
        "jobs/sessionize.py",
        "basis=events.version",
        "basis=run.basis",
        f"{RULE}::test_an_event_later_than_is_allowed_is_named_and_a_restatement_puts_it_in",
    ),
    # ---- interests ----
    Mutant(
        "int_read_history_off",
        "jobs/interests.py",
        "timedelta(days=config.history_days - 1)",
        "timedelta(days=config.history_days - 2)",
        HISTORY,
    ),
    Mutant(
        "int_read_lookback_only",
        "jobs/interests.py",
        "timedelta(days=config.history_days - 1)",
        "timedelta(days=config.lookback_days + 5)",
        HISTORY,
    ),
    Mutant(
        "int_history_le",
        "jobs/interests.py",
        'F.datediff(day, F.col("dt")) < config.history_days',
        'F.datediff(day, F.col("dt")) <= config.history_days',
        HISTORY,
    ),
    Mutant(
        "int_window_le",
        "jobs/interests.py",
        'F.col("age") < config.lookback_days',
        'F.col("age") <= config.lookback_days',
        STATES,
    ),
    Mutant("int_week_of_six_days", "lake/rules.py", "WEEK_DAYS = 7", "WEEK_DAYS = 6", STATES),
    Mutant(
        "int_landed_max",
        "jobs/interests.py",
        'F.min("landed").alias("landed")',
        'F.max("landed").alias("landed")',
        STATES,
    ),
    Mutant(
        "int_late_not_read",
        "jobs/interests.py",
        "landed_by=None if args.include_late else as_of[-1]",
        "landed_by=as_of[-1]",
        RESTATED,
    ),
    Mutant(
        "int_late_counted_by_daily_runs",
        "jobs/interests.py",
        "interests(once, as_of, config, include_late=args.include_late)",
        "interests(once, as_of, config, include_late=True)",
        STATES,
    ),
    Mutant("int_every_ignored", "jobs/interests.py", "as_of_days(run, args.every)", "as_of_days(run, 1)", STATES),
    Mutant("int_cart_weighs_2", "jobs/interests.py", '"cart": 3', '"cart": 2', STATES),
    Mutant(
        "int_decay_too_slow",
        "jobs/interests.py",
        'F.pow(F.lit(0.5), F.col("age") / half_life_days)',
        'F.exp(-F.col("age") / half_life_days)',
        STATES,
    ),
    Mutant(
        "int_spend_of_what_was_not_bought",
        "jobs/interests.py",
        'F.sum(F.when(bought, F.col("price")))',
        'F.sum(F.col("price"))',
        STATES,
    ),
    Mutant(
        "int_ties_in_the_sequence_turned",
        "jobs/interests.py",
        'F.desc("event_time"), F.desc("event_id")',
        'F.desc("event_time"), F.asc("event_id")',
        STATES,
    ),
    # ---- examples ----
    Mutant(
        "ex_horizon_0",
        "jobs/examples.py",
        'F.datediff("dt", day).between(1, horizon_days)',
        'F.datediff("dt", day).between(0, horizon_days)',
        LABELS,
    ),
    Mutant(
        "ex_horizon_landed_lt",
        "jobs/examples.py",
        'F.datediff("landed", day) <= horizon_days',
        'F.datediff("landed", day) < horizon_days',
        LABELS,
    ),
    Mutant(
        "ex_read_last_no_horizon",
        "jobs/examples.py",
        "as_of[0] + timedelta(days=1), as_of[-1] + horizon",
        "as_of[0] + timedelta(days=1), as_of[-1] + horizon - timedelta(days=1)",
        LABELS,
    ),
    Mutant(
        "ex_late_landed_read",
        "jobs/examples.py",
        "landed_by=None if args.include_late else last",
        "landed_by=last",
        f"{EXAMPLES}::test_a_restatement_has_the_labels_of_everything_that_landed_since",
    ),
    Mutant(
        "ex_missing_ignored",
        "jobs/examples.py",
        "states and states.basis(day) and not (existing and existing.basis(day))",
        "existing and existing.basis(day)",
        MISSING,
    ),
    Mutant(
        "ex_missing_made_again",
        "jobs/examples.py",
        "states and states.basis(day) and not (existing and existing.basis(day))",
        "states and states.basis(day)",
        MISSING,
    ),
    Mutant(
        "ex_last_left_out",
        "jobs/examples.py",
        "[*without_examples(as_of[:-1]), as_of[-1]]",
        "without_examples(as_of)",
        MISSING,
    ),
    Mutant(
        "ex_basis_of_events_alone",
        "jobs/examples.py",
        "events.version + interests.version",
        "events.version",
        f"{EXAMPLES}::test_a_staging_says_what_it_was_made_from",
    ),
    Mutant("ex_migrated_by_chance", "lake/rules.py", "SIGNIFICANCE = 0.05", "SIGNIFICANCE = 0.6", LABELS),
    Mutant("ex_enough_gt", "jobs/examples.py", ") >= min_events", ") > min_events", LABELS),
    Mutant(
        "ex_ties_by_name_alone",
        "jobs/examples.py",
        'ties=[-F.col("popularity")]',
        "ties=[]",
        LABELS,
    ),
    Mutant(
        "ex_items_in_any_order",
        "jobs/examples.py",
        'F.struct("first", "key")',
        'F.struct("key", "first")',
        LABELS,
    ),
    # ---- what they read, and which days are meant ----
    Mutant(
        "in_horizon_without_its_last_day",
        "jobs/inputs.py",
        "range(1, horizon_days + 1)",
        "range(1, horizon_days)",
        REFUSED,
    ),
    Mutant(
        "in_late_log_is_always_complete",
        "jobs/inputs.py",
        "(newest and newest >= horizon[-1])",
        "newest",
        REFUSED,
    ),
    Mutant(
        "arg_dates_counted_from_the_first",
        "jobs/arguments.py",
        "[::-1][::every]",
        "[::every]",
        ARGUMENTS,
    ),
    # ---- ingest ----
    Mutant("ingest_raw_cut", "jobs/ingest.py", "RAW_CHARACTERS = 4096", "RAW_CHARACTERS = 2048", INPUT),
    Mutant(
        "ingest_id_without_price",
        "jobs/ingest.py",
        "for name in CONTENT\n    ]",
        "for name in CONTENT[:-1]\n    ]",
        f"{INGEST}::test_events_on_two_days_have_ids_that_anyone_can_compute",
    ),
    Mutant(
        "ingest_id_without_lengths",
        "jobs/ingest.py",
        'F.concat(F.length(part), F.lit(":"), part)',
        "part",
        f"{INGEST}::test_events_on_two_days_have_ids_that_anyone_can_compute",
    ),
    Mutant(
        "ingest_days_of_one_event_fold",
        "jobs/ingest.py",
        '.groupBy("landed", *CONTENT).agg(F.count("*").cast("int").alias("n"))',
        '.groupBy(*CONTENT).agg(F.count("*").cast("int").alias("n"), F.min("landed").alias("landed"))',
        INPUT,
    ),
    Mutant(
        "ingest_basis_of_nothing",
        "jobs/ingest.py",
        'stage(to_events(judged, source), "events", run, days, run.basis, counts)',
        'stage(to_events(judged, source), "events", run, days, 1, counts)',
        INPUT,
    ),
    Mutant(
        "ingest_header_is_no_line",
        "jobs/ingest.py",
        'first_line = 2 if source.format == "csv" and source.header else 1',
        "first_line = 1",
        INPUT,
    ),
    Mutant(
        "rej_after_landing_gt",
        "jobs/rejections.py",
        'F.col("event_time") >= F.date_add("landed", 1)',
        'F.col("event_time") > F.date_add("landed", 1)',
        REJECTIONS,
    ),
    Mutant(
        "rej_floor_le",
        "jobs/rejections.py",
        'F.col("event_time") < F.lit(config.time_floor)',
        'F.col("event_time") <= F.lit(config.time_floor)',
        REJECTIONS,
    ),
    Mutant(
        "rej_length_ge", "jobs/rejections.py", "> config.max_field_length", ">= config.max_field_length", REJECTIONS
    ),
    Mutant(
        "rej_wall_clocks_in_utc",
        "jobs/rejections.py",
        "F.to_utc_timestamp(F.try_to_timestamp(text, F.lit(time.format)), time.zone)",
        "F.try_to_timestamp(text, F.lit(time.format))",
        REJECTIONS,
    ),
    Mutant(
        "rej_milliseconds_for_seconds",
        "jobs/rejections.py",
        '"epoch_ms": 1_000,',
        '"epoch_ms": 1,',
        f"{REJECTIONS}::test_how_event_times_are_read",
    ),
    Mutant(
        "rej_tabs_in_ids",
        "jobs/rejections.py",
        'F.concat_ws(" ", *ids).rlike(UNUSABLE_IN_IDS)',
        'F.concat_ws(" ", *ids).rlike(UNUSABLE_IN_QUERIES)',
        REJECTIONS,
    ),
    Mutant(
        "rej_length_of_ids_in_characters",
        "jobs/rejections.py",
        "F.octet_length(F.coalesce(",
        "F.length(F.coalesce(",
        REJECTIONS,
    ),
    Mutant("raw_lone_halves_of_pairs", "jobs/raw_rows.py", "{HIGH}(?!{LOW})", "{HIGH}", REJECTIONS),
    Mutant(
        "raw_escaped_backslashes_begin_escapes",
        "jobs/raw_rows.py",
        r'PAIRS = r"(?<!\\)(?:\\\\)"',
        r'PAIRS = r"(?:\\\\)"',
        REJECTIONS,
    ),
    Mutant(
        "raw_ffff_ends_all_lines",
        "jobs/raw_rows.py",
        'F.replace("raw", F.lit("\\uffff"), F.lit(REPLACEMENT))',
        '"raw"',
        RAW_ROWS,
    ),
    Mutant("raw_the_beginning_of_a_line_is_a_line", "jobs/raw_rows.py", "lines = lines[:-1]", "pass", RAW_ROWS),
    Mutant(
        "raw_reads_until_the_line_ends",
        "jobs/raw_rows.py",
        'stream.read(LINE_BYTES + len(b"\\r\\n"))',
        "stream.readline()",
        RAW_ROWS,
    ),
    Mutant(
        "raw_backslash_escapes",
        "jobs/raw_rows.py",
        '"quote": source.quote, "escape": source.quote}',
        '"quote": source.quote}',
        REJECTIONS,
    ),
    Mutant(
        "raw_a_broken_line_fails_the_file",
        "jobs/raw_rows.py",
        "max(counts) < len(source.columns) or min(counts) > len(source.columns)",
        "min(counts) < len(source.columns) or max(counts) > len(source.columns)",
        RAW_ROWS,
    ),
    Mutant(
        "raw_message_quotes_the_row",
        "jobs/raw_rows.py",
        're.sub(r"(?:\\w|[^\\x00-\\x7f])+", kind, line)',
        "line",
        RAW_ROWS,
    ),
    Mutant("raw_any_line_is_a_head", "jobs/raw_rows.py", "bool(names) and all(", "bool(names) and any(", RAW_ROWS),
    Mutant(
        "raw_instants_in_the_zone_of_the_source",
        "jobs/raw_rows.py",
        'return F.concat(value, F.lit("Z")) if is_instant else value',
        "return value",
        RAW_ROWS,
    ),
    Mutant(
        "source_needs_no_behavior",
        "jobs/source.py",
        "(self.user_id, self.time.column, self.behavior.column) if c",
        "(self.user_id, self.time.column) if c",
        "tests/jobs/test_source.py",
    ),
    Mutant(
        "source_favorite_and_cart_swapped",
        "jobs/sources/export_zh.yaml",
        "收藏: favorite, 加购: cart",
        "收藏: cart, 加购: favorite",
        f"{INGEST}::test_export_zh_has_full_width_commas_and_times_of_shanghai",
    ),
    Mutant(
        "source_units_of_a_receipt_fold",
        "jobs/sources/completejourney.yaml",
        "repeats: keep",
        "repeats: drop",
        RECEIPTS,
    ),
    Mutant(
        "export_ends_at_the_first_moment_of_its_last_day",
        "jobs/export_completejourney.py",
        "pd.Timestamp(last) + pd.Timedelta(days=1)",
        "pd.Timestamp(last)",
        RECEIPTS,
    ),
    # ---- the simulated log, and what is served ----
    Mutant(
        "sim_a_search_without_item_is_called_broken",
        "jobs/simulate.py",
        'F.when(needs_item & (F.col("act") == "s"), "missing_user").otherwise(reason)',
        "reason",
        SIMULATE,
    ),
    Mutant(
        "sim_late_copies_are_called_late",
        "jobs/simulate.py",
        '(F.col("kind") == "good") & (F.col("landed") > happened_on)',
        'F.col("landed") > happened_on',
        SIMULATE,
    ),
    Mutant(
        "serve_version_for_generation",
        "jobs/serve.py",
        "rollback(settings(), args.run_id, args.day, args.model_version, args.generation)",
        "rollback(settings(), args.run_id, args.day, args.generation, args.model_version)",
        SERVE,
    ),
    Mutant("serve_always_by_force", "jobs/serve.py", "force=args.force, if", "force=True, if", SERVE),
    Mutant(
        "serve_backfills_take_over",
        "jobs/serve.py",
        "if_newer=args.if_newer)",
        "if_newer=False)",
        SERVE,
    ),
    Mutant(
        "serve_nothing_is_dropped",
        "jobs/serve.py",
        "dropped = serving_load.prune_unless_busy(store, values.serving_keep)",
        "dropped: list[int] = []",
        SERVE,
    ),
]
