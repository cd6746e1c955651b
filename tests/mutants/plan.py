"""Wrong changes to what plans a backfill, and to what says the plan."""

from tests.mutants.mutant import Mutant

HISTORY, PARTITIONS, RUNS = (f"lake/backfill/{name}.py" for name in ("history", "partitions", "runs"))
PENDING, PENDED = "lake/backfill/pending.py", "tests/lake/test_pending.py"
PLAN, COMMANDS = "tests/lake/test_plan.py", "tests/dags/shared/test_backfill.py"
STATES = f"{PLAN}::test_states_whose_history_reaches_to_an_event_are_planned_from_the_day_on_that_it_landed"
LABELS = f"{PLAN}::test_labels_in_whose_horizon_an_event_lies_and_has_landed_are_planned"
AGAIN = f"{PLAN}::test_a_landing_day_that_comes_again_changes_states_and_labels_that_count_its_events"
TOO_LATE = f"{PLAN}::test_events_are_too_late_when_they_land_more_than_the_days_that_are_set_after_their_date"
RESTATED = f"{PLAN}::test_a_state_and_labels_that_were_made_with_late_events_are_made_so_again"
REAL = f"{PLAN}::test_the_logs_of_a_real_lake_tell_the_history_that_these_runs_have_in_memory"
FOLLOWED = f"{PLAN}::test_a_bad_day_is_followed_to_the_predictions_that_were_made_from_it"
CHANGED_CODE = f"{PLAN}::test_what_changed_code_has_made_is_planned_with_what_was_made_from_it"
OFFERED = f"{PLAN}::test_what_the_run_of_its_landing_day_puts_into_sessions_is_not_planned"
TAKEN_BACK = f"{PLAN}::test_no_state_is_offered_for_late_events_that_were_taken_back"
MADE_SINCE = f"{PLAN}::test_what_was_made_from_interests_is_made_again_when_they_were"
OLDER = f"{PLAN}::test_older_sessions_than_the_run_of_a_bad_day_restates_are_made_by_other_runs"
LEFT = f"{PLAN}::test_what_the_run_of_one_bad_day_leaves_is_made_after_all_of_them_though_another_has_made_it_before"
KNOW = f"{PLAN}::test_sessions_that_know_an_older_version_than_the_one_of_an_event_are_planned"
SAYS = f"{PLAN}::test_the_plan_says_why_and_with_which_runs_and_what_stays"
EVERY = f"{PLAN}::test_the_interests_of_a_range_are_as_far_apart_as_those_that_there_are"
CHUNKS = f"{PLAN}::test_a_range_is_cut_into_chunks_of_ninety_days_and_each_costs_its_jobs"
NO_RANGE = f"{PLAN}::test_no_range_is_named_that_is_not_sooner_or_makes_days_that_were_not_asked_for"
ESTIMATE = f"{PLAN}::test_an_estimate_is_never_less_than_nothing_and_does_not_fall_with_rows"

EARLY = f"{PLAN}::test_a_folder_with_events_of_the_date_after_changes_what_counts_these"
EARLY_PLANNED = f"{PLAN}::test_early_events_are_planned_for_sessions_once_their_date_has_landed"

MUTANTS = [
    # -- what the log says
    Mutant("plan_costs_no_audit", HISTORY, 'staging + float(entry["audit_seconds"]),', "staging,", REAL),
    Mutant(
        "plan_costs_quarantine_staged_twice",
        HISTORY,
        '0.0 if table == "quarantine" else float(entry["stage_seconds"])',
        'float(entry["stage_seconds"])',
        REAL,
    ),
    Mutant("plan_refused_days_are_made", HISTORY, ' - set(json.loads(entry["refused"]))', "", REAL),
    Mutant(
        "plan_sparse_jobs_make_all_their_days",
        HISTORY,
        'as_of = counts.get("as_of") or [str(day) for day in requested]',
        "as_of = [str(day) for day in requested]",
        REAL,
    ),
    Mutant("plan_taken_back_after_the_fact", HISTORY, "days := delivered & set(commit.owns)", "days := set()", REAL),
    Mutant(
        "plan_first_delivery_takes_back",
        HISTORY,
        "if days := delivered & set(commit.owns):",
        "if days := set(commit.owns):",
        REAL,
    ),
    Mutant(
        "plan_oldest_publish_counts", HISTORY, "for commit in commits:", "for commit in reversed(commits):", MADE_SINCE
    ),
    Mutant(
        "plan_known_by_events_alone",
        HISTORY,
        'for file in self.files if self.counts(file)} | set(self.rows["sessions"])',
        "for file in self.files if self.counts(file)}",
        f"{PLAN}::test_sessions_of_a_day_whose_events_were_all_taken_back_are_planned",
    ),
    Mutant("plan_dates_by_landing", HISTORY, 'add(file.partition["dt"])', 'add(file.partition["landed"])', AGAIN),
    # -- which partitions, for late data
    Mutant(
        "plan_too_late_le",
        PARTITIONS,
        "return change.day < change.landed",
        "return change.day <= change.landed",
        TOO_LATE,
    ),
    Mutant(
        "plan_history_le",
        PARTITIONS,
        "(config.history_days - 1) * ONE_DAY",
        "config.history_days * ONE_DAY",
        STATES,
    ),
    Mutant(
        "plan_history_not_its_own_day",
        PARTITIONS,
        "return counts_from(change, late=late), change.day",
        "return counts_from(change, late=late) + ONE_DAY, change.day",
        STATES,
    ),
    Mutant(
        "plan_state_landed_lt",
        PARTITIONS,
        "max(change.day, change.landed)",
        "max(change.day, change.landed + ONE_DAY)",
        STATES,
    ),
    Mutant(
        "plan_states_never_late",
        PARTITIONS,
        "in_history(change, config, late=late)",
        "in_history(change, config, late=False)",
        STATES,
    ),
    Mutant("plan_horizon_lt", PARTITIONS, "late=late) - days * ONE_DAY", "late=late) - (days - 1) * ONE_DAY", LABELS),
    Mutant("plan_horizon_from_t", PARTITIONS, "ONE_DAY, change.day - ONE_DAY", "ONE_DAY, change.day", LABELS),
    Mutant("plan_landed_never_counts", PARTITIONS, "max(change.day, change.landed)", "change.day", LABELS),
    Mutant(
        "plan_labels_never_late",
        PARTITIONS,
        "in_horizon(change, horizon, late=late)",
        "in_horizon(change, horizon, late=False)",
        LABELS,
    ),
    Mutant(
        "plan_sessions_never_made_are_left",
        PARTITIONS,
        "if day not in basis or basis[day] < change.in_sessions",
        "if basis.get(day, change.in_sessions) < change.in_sessions",
        KNOW,
    ),
    Mutant(
        "plan_sessions_know_version_le",
        PARTITIONS,
        "basis[day] < change.in_sessions",
        "basis[day] <= change.in_sessions",
        KNOW,
    ),
    Mutant(
        "plan_landing_days_not_looked_at",
        PARTITIONS,
        "if not request.within(change.landed):",
        "if not request.within(change.day):",
        SAYS,
    ),
    Mutant(
        "plan_until_excludes_the_last_day",
        PARTITIONS,
        "day <= self.last)",
        "day < self.last)",
        SAYS,
    ),
    Mutant(
        "plan_made_again_since_is_not_seen",
        PARTITIONS,
        'commit.inputs["interests"] < states[day].version',
        'commit.inputs["interests"] > states[day].version',
        MADE_SINCE,
    ),
    Mutant(
        "plan_follows_to_predictions_alone",
        PARTITIONS,
        'for table in ("examples", "predictions"):\n        for day in why',
        'for table in ("predictions",):\n        for day in why',
        CHANGED_CODE,
    ),
    # -- which partitions, for bad days and changed code
    Mutant(
        "plan_redeliver_late_interests",
        PARTITIONS,
        "begins = oldest if commit.include_late else landed\n        if begins",
        "begins = landed\n        if begins",
        AGAIN,
    ),
    Mutant(
        "plan_redeliver_late_examples",
        PARTITIONS,
        "begins = oldest if commit.include_late else landed\n        if day < newest and",
        "begins = landed\n        if day < newest and",
        AGAIN,
    ),
    Mutant(
        "plan_redeliver_history",
        PARTITIONS,
        "newest + config.history_days * ONE_DAY",
        "newest + (config.history_days - 1) * ONE_DAY",
        AGAIN,
    ),
    Mutant(
        "plan_redeliver_labels_of_its_own_day",
        PARTITIONS,
        "if day < newest and begins",
        "if day <= newest and begins",
        AGAIN,
    ),
    Mutant("plan_redeliver_early", PARTITIONS, "max([landed, *dates])", "landed", EARLY),
    Mutant(
        "plan_early_is_in_sessions_at_once",
        HISTORY,
        "since = version if day <= landed else self.loaded_first.get(day)",
        "since = version",
        EARLY_PLANNED,
    ),
    Mutant(
        "plan_early_does_not_wait", HISTORY, ' or file.partition["dt"] in self.loaded_first', " or True", EARLY_PLANNED
    ),
    Mutant("plan_redeliver_horizon_lt", PARTITIONS, "begins <= end_of_horizon", "begins < end_of_horizon", AGAIN),
    Mutant(
        "plan_redeliver_its_own_sessions_alone",
        PARTITIONS,
        "{landed}.union(*map(session_days, dates))",
        "{landed}",
        FOLLOWED,
    ),
    Mutant(
        "plan_changed_sessions_by_landing",
        PARTITIONS,
        'history.rows["sessions"] if request.table == "sessions" else history.latest[request.table]',
        "history.latest[request.table]",
        f"{PLAN}::test_sessions_of_changed_code_are_those_that_there_are_whatever_day_has_landed",
    ),
    # -- which runs
    Mutant("plan_left_by_one_run_taken_from_another", RUNS, "days - uncertain}", "days}", LEFT),
    Mutant(
        "plan_a_bad_day_again_for_what_only_its_new_events_reach",
        RUNS,
        "cover_sessions(remaining, staged)",
        "cover_sessions(remaining, staged | settled)",
        LEFT,
    ),
    Mutant(
        "plan_a_neighbour_that_may_be_gone_draws_in",
        RUNS,
        'populated = lasting if why["events"] else history.populated',
        "populated = history.populated",
        f"{PLAN}::test_sessions_that_a_bad_day_draws_in_by_a_neighbour_that_may_be_gone_are_made_by_another_run",
    ),
    Mutant(
        "plan_interests_before_the_events_of_their_day",
        RUNS,
        "(redelivered if day in redelivered else others)",
        "others",
        FOLLOWED,
    ),
    Mutant(
        "plan_restated_states_by_the_dag_too",
        RUNS,
        'if table != "interests" or day not in restated:',
        "if True:",
        RESTATED,
    ),
    Mutant(
        "plan_restated_states_by_the_dag",
        RUNS,
        'if history.latest["interests"][day].include_late]',
        "if False]",
        RESTATED,
    ),
    Mutant(
        "plan_examples_late_flag",
        RUNS,
        'late = history.latest["examples"][day].include_late',
        "late = False",
        RESTATED,
    ),
    Mutant("plan_scored_by_the_champion", RUNS, "model_version=version)", "model_version=None)", FOLLOWED),
    Mutant("plan_least_covering_run", RUNS, "best = max(candidates,", "best = min(candidates,", PLAN),
    Mutant(
        "plan_any_run_before_the_day_itself",
        RUNS,
        "(len(candidates[landed]), landed == oldest, landed)",
        "(len(candidates[landed]), landed)",
        f"{PLAN}::test_of_two_runs_that_make_the_same_the_day_itself_is_chosen",
    ),
    Mutant(
        "plan_older_sessions_of_a_bad_day_are_taken_for_made",
        RUNS,
        "return reached_by(history, landed) - postponed",
        "return reached_by(history, landed)",
        OLDER,
    ),
    Mutant(
        "plan_offers_what_is_restated",
        RUNS,
        "if day in late and not commit.include_late and",
        "if day in late and",
        RESTATED,
    ),
    Mutant("plan_offers_for_what_was_taken_back", RUNS, " and not change.taken_back", "", TAKEN_BACK),
    Mutant(
        "plan_offers_for_what_each_run_restates",
        RUNS,
        "if too_late(change, config) and unaware",
        "if unaware",
        TOO_LATE,
    ),
    Mutant(
        "plan_offers_for_events_in_time",
        RUNS,
        "min(c.landed - ONE_DAY, in_history",
        "max(c.landed - ONE_DAY, in_history",
        OFFERED,
    ),
    Mutant(
        "plan_run_of_a_day_stages_others_alone",
        RUNS,
        "{landed}.union(*map(session_days, changed))",
        "set().union(*map(session_days, changed))",
        f"{PLAN}::test_the_run_of_an_empty_landing_day_can_make_the_sessions_of_its_date",
    ),
    Mutant("pending_takes_again", PENDING, 'self.least[node] = float("inf")\n', "pass\n", PENDED),
    Mutant("pending_last_excluded", PENDING, "bisect_right(self.days, last)", "bisect_left(self.days, last)", PENDED),
    Mutant("pending_knows_itself", PENDING, "self.least[node] >= version", "self.least[node] > version", PENDED),
    # -- what it costs
    Mutant(
        "plan_range_of_gaps",
        RUNS,
        "if len(days) < 2 or days != days_between(days[0], days[-1]):",
        "if len(days) < 2:",
        NO_RANGE,
    ),
    Mutant("plan_range_as_long", RUNS, "chunk * chunks >= one_by_one", "chunk * chunks > one_by_one", NO_RANGE),
    Mutant("plan_range_in_one_chunk", RUNS, "chunks = math.ceil(len(days) / CHUNK_DAYS)", "chunks = 1", CHUNKS),
    Mutant(
        "plan_range_counts_states_forward", RUNS, "len(steps) == 1 and states[-1] == last", "len(steps) == 1", EVERY
    ),
    Mutant("plan_range_states_each_day", RUNS, "1 if states else len(days)", "1", EVERY),
    Mutant(
        "plan_slope_may_fall",
        "lake/backfill/costs.py",
        "slope = max(0.0, statistics.median(slopes)) if",
        "slope = statistics.median(slopes) if",
        ESTIMATE,
    ),
    Mutant(
        "plan_base_may_be_negative",
        "lake/backfill/costs.py",
        "base = max(0.0, statistics.median(seconds - slope * n for n, seconds in past))",
        "base = statistics.median(seconds - slope * n for n, seconds in past)",
        ESTIMATE,
    ),
    Mutant(
        "plan_mean_slope",
        "lake/backfill/costs.py",
        "statistics.median(slopes)",
        "statistics.mean(slopes)",
        "lake/backfill/costs.py",
    ),
    Mutant(
        "plan_remembers_all",
        "lake/backfill/planner.py",
        "in commits[:SAMPLE]]",
        "in commits]",
        f"{PLAN}::test_the_newest_fifty_runs_of_a_table_say_what_one_takes",
    ),
    Mutant(
        "plan_backwards_is_taken",
        "lake/backfill/planner.py",
        "if first and last and first > last:",
        "if first and last and first < date.min:",
        f"{PLAN}::test_what_cannot_be_planned_is_said",
    ),
    # -- the commands and the words
    Mutant(
        "plan_days_apart_are_one_backfill",
        "dags/shared/backfill.py",
        "lambda a, b, _: b - a == ONE_DAY",
        "lambda a, b, _: b > a",
        COMMANDS,
    ),
    Mutant("plan_any_distance_is_every", "dags/shared/backfill.py", "step in (None, b - a)", "True", COMMANDS),
    Mutant(
        "plan_model_versions_mixed",
        "dags/shared/backfill.py",
        "(run.job, run.tables, run.model_version, run.include_late)",
        "(run.job, run.tables, run.include_late)",
        COMMANDS,
    ),
    Mutant(
        "plan_late_flag_not_typed",
        "dags/shared/backfill.py",
        '["--include-late"] if runs[0].include_late else []',
        "[]",
        COMMANDS,
    ),
    Mutant(
        "plan_backfill_skips_what_was_made",
        "dags/shared/backfill.py",
        '"--reprocess-behavior", "completed"',
        '"--reprocess-behavior", "none"',
        COMMANDS,
    ),
    Mutant(
        "plan_backfill_makes_all_tables",
        "dags/shared/backfill.py",
        'conf: dict[str, Any] = {"tables": tables}',
        "conf: dict[str, Any] = {}",
        COMMANDS,
    ),
    Mutant(
        "plan_job_alone_as_long",
        "dags/shared/backfill.py",
        "alone.seconds < step.seconds",
        "alone.seconds <= step.seconds",
        COMMANDS,
    ),
    Mutant(
        "plan_one_reason_for_all",
        "dags/shared/backfill.py",
        "if part and (entry.why != part[0].why or entry.day",
        "if part and (entry.day",
        COMMANDS,
    ),
    Mutant("plan_minutes_from_one", "dags/shared/backfill.py", "if seconds < 120", "if seconds < 60", COMMANDS),
    Mutant(
        "plan_history_each_day",
        "dags/shared/backfill.py",
        '"interests_every": plan.whole.every',
        '"interests_every": 1',
        COMMANDS,
    ),
]
