"""Wrong changes to the DAGs, their operators and alerts, the `meander` command and the page."""

from tests.mutants.mutant import Mutant

DAGS = "tests/dags/test_dags.py"
DATABASE = "tests/dags/test_database.py"
WAITS = "tests/dags/shared/test_waits.py"
ENDINGS = "tests/dags/shared/test_endings.py"
RUN_IDS = "tests/dags/shared/test_run_ids.py"
RUNS = "tests/dags/shared/test_runs.py"
LINKS = "tests/dags/shared/test_links.py"
ALERTS = "tests/dags/shared/test_alerts.py"
ALERT_MEMORY = "tests/dags/shared/test_alert_memory.py"
PROBLEMS = "tests/dags/page/test_problems.py"
STATE = "tests/dags/page/test_state.py"
VIEWS = "tests/dags/page/test_views.py"
FLOWS = "tests/dags/page/test_flows.py"
CLI = "tests/dags/cli/test_main.py"
DAILY = f"{CLI}::test_daily_runs_each_chunk_of_days_and_the_questions_after_it_are_answered"
CONSOLE = "tests/dags/cli/test_console.py"
DOCTORS = "tests/dags/cli/test_doctor.py"
DOCTOR = f"{DOCTORS}::test_the_doctor_says_what_is_wrong_and_how_to_mend_it"
WAITING = f"{DATABASE}::test_interests_wait_for_every_earlier_day_that_can_still_publish"

MUTANTS = [
    # --- who waits for what, and for how long
    Mutant("waits_horizon_1", "dags/shared/waits.py", "HORIZON = 31", "HORIZON = 1", WAITING),
    Mutant(
        "waits_ended_no_failed",
        "dags/shared/waits.py",
        'ENDED = ("success", "failed", "upstream_failed", "skipped", "removed")',
        'ENDED = ("success", "upstream_failed")',
        WAITING,
    ),
    Mutant(
        "waits_for_what_has_not_landed",
        "dags/shared/waits.py",
        'not in (None, "up_for_reschedule")',
        "is not None",
        WAITING,
    ),
    Mutant(
        "waits_for_what_has_not_begun",
        "dags/shared/waits.py",
        'not in (None, "up_for_reschedule")',
        'not in ("up_for_reschedule",)',
        WAITING,
    ),
    Mutant(
        "waits_for_later_days",
        "dags/shared/waits.py",
        "midnight - timedelta(days=n) for n",
        "midnight + timedelta(days=n) for n",
        WAITING,
    ),
    Mutant(
        "waits_for_another_task",
        "dags/behavior_daily.py",
        'publishes="events.publish"',
        'publishes="events.audit"',
        WAITING,
    ),
    Mutant(
        "behavior_daily_impatient",
        "dags/behavior_daily.py",
        'wanted=WANTED.format("events"), timeout=timedelta(days=2)',
        'wanted=WANTED.format("events"), timeout=timedelta(hours=2)',
        DAGS,
    ),
    Mutant(
        "waits_holds_its_worker",
        "dags/shared/waits.py",
        'super().__init__(mode="reschedule", poke_interval=timedelta(minutes=1), **kwargs)',
        'super().__init__(mode="poke", poke_interval=timedelta(minutes=1), **kwargs)',
        DAGS,
    ),
    Mutant(
        "waits_published_by_version",
        "dags/shared/waits.py",
        "return published is not None and published.basis(date.fromisoformat(self.day)) is not None",
        "return published is not None",
        WAITS,
    ),
    # --- what is tried again
    Mutant(
        "endings_busy_is_not_retried",
        "dags/shared/endings.py",
        '"serving-busy", "serving-unavailable", "upkeep-failed"}',
        '"serving-unavailable", "upkeep-failed"}',
        ENDINGS,
    ),
    Mutant(
        "endings_first_error_told", "dags/shared/endings.py", "actionable[-1].strip()", "actionable[0].strip()", ENDINGS
    ),
    Mutant(
        "runs_killed_by_memory_for_good",
        "dags/shared/runs.py",
        "if code > 0:  # the last",
        "if code:  # the last",
        RUNS,
    ),
    Mutant("wiring_one_retry", "dags/shared/wiring.py", '"retries": 2,', '"retries": 1,', DAGS),
    Mutant(
        "wiring_retries_after_hours",
        "dags/shared/wiring.py",
        '"retry_delay": timedelta(minutes=1)',
        '"retry_delay": timedelta(hours=1)',
        DAGS,
    ),
    Mutant(
        "wiring_failures_told_to_nobody", "dags/shared/wiring.py", '"on_failure_callback": FailureNotifier(),', "", DAGS
    ),
    # --- what a run does
    Mutant(
        "run_ids_dag_left_out",
        "dags/shared/run_ids.py",
        'return f"{dag_id}--{run}"',
        "return run",
        RUN_IDS,
    ),
    Mutant(
        "run_ids_dag_of_another_name",
        "dags/shared/run_ids.py",
        '"upkeep_weekly")',
        '"upkeep_daily")',
        f"{DAGS}::test_a_run_id_leads_to_the_run_of_airflow_that_has_made_it",
    ),
    Mutant(
        "run_ids_chunk_by_the_first_dashes",
        "dags/shared/run_ids.py",
        'run_id.rpartition("--")',
        'run_id.partition("--")',
        RUN_IDS,
    ),
    Mutant(
        "run_ids_plans_are_history",
        "dags/shared/run_ids.py",
        'WITHOUT_AIRFLOW = ("cli-", "plan--")',
        'WITHOUT_AIRFLOW = ("cli-",)',
        RUN_IDS,
    ),
    Mutant(
        "wiring_publish_before_audit",
        "dags/shared/wiring.py",
        "    stage >> audit >> publish\n",
        "    stage >> [audit, publish]\n",
        DAGS,
    ),
    Mutant(
        "wiring_events_without_quarantine",
        "lake/tables.py",
        'made_in="behavior_daily", group="events", every_day',
        'made_in="behavior_daily", group="quarantine", every_day',
        DAGS,
    ),
    Mutant(
        "behavior_daily_sessions_after_failed_events",
        "dags/behavior_daily.py",
        '"all_success" if table == "events" else "none_failed"',
        '"all_success" if table == "events" else "all_done"',
        DAGS,
    ),
    Mutant(
        "behavior_daily_interests_before_earlier_days",
        "dags/behavior_daily.py",
        '[earlier] if table == "interests" else ',
        "",
        DAGS,
    ),
    Mutant(
        "behavior_history_all_tables_at_once",
        "dags/behavior_history.py",
        "        [groups[name] for name in comes_after(table)] >> group\n",
        "        pass\n",
        DAGS,
    ),
    Mutant(
        "behavior_history_interests_each_day",
        "dags/behavior_history.py",
        '"interests": ["--every", "{{ params.interests_every }}"]',
        '"interests": []',
        DAGS,
    ),
    Mutant(
        "behavior_history_chunks_off_rhythm",
        "dags/behavior_history.py",
        "days = -(-days // every) * every",
        "days = days // every * every or every",
        "dags/behavior_history.py",
    ),
    Mutant(
        "behavior_history_chunks_overlap",
        "dags/behavior_history.py",
        "max(first, end - timedelta(days=days - 1))",
        "max(first, end - timedelta(days=days))",
        DAGS,
    ),
    Mutant(
        "model_weekly_labels_of_the_future", "dags/model_weekly.py", "-(-horizon // WEEK)", "(horizon // WEEK)", DAGS
    ),
    Mutant(
        "model_weekly_on_monday",
        "dags/model_weekly.py",
        'CronDataIntervalTimetable("0 0 * * 0"',
        'CronDataIntervalTimetable("0 0 * * 1"',
        DAGS,
    ),
    Mutant(
        "model_weekly_day_not_over",
        "dags/model_weekly.py",
        "return end.date() - timedelta(days=1)",
        "return end.date()",
        DAGS,
    ),
    Mutant("model_weekly_two_at_once", "dags/model_weekly.py", "max_active_runs=1", "max_active_runs=2", DAGS),
    Mutant(
        "serve_daily_older_days_too",
        "dags/serve_daily.py",
        "'' if params.even_if_older else '--if-newer'",
        "'--if-newer' if params.even_if_older else ''",
        DAGS,
    ),
    Mutant(
        "deadlines_of_backfills",
        "dags/shared/deadlines.py",
        'run is not None and run.run_type == "scheduled"',
        "run is not None",
        DATABASE,
    ),
    Mutant(
        "deadlines_in_minutes",
        "dags/shared/deadlines.py",
        "timedelta(hours=settings().expected_hours)",
        "timedelta(minutes=settings().expected_hours)",
        DATABASE,
    ),
    # --- what people are asked and told
    Mutant(
        "model_approve_unasked",
        "dags/shared/model.py",
        'elif decision is None or not decision["promote"]:',
        'elif decision is None or decision["promote"]:',
        DATABASE,
    ),
    Mutant(
        "model_silence_approves",
        "dags/shared/model.py",
        "defaults=self.REJECT",
        "defaults=self.APPROVE",
        DATABASE,
    ),
    Mutant(
        "publish_warn_never",
        "dags/shared/publish.py",
        'if report["verdict"] == "warned":',
        'if report["verdict"] == "no such verdict":',
        DATABASE,
    ),
    Mutant(
        "model_outcome_told_daily",
        "dags/shared/model.py",
        'final = kind == "outcome"',
        "final = False",
        ALERTS,
    ),
    Mutant(
        "alerts_quiet_days",
        "dags/shared/alerts.py",
        "timedelta(hours=settings().alert_quiet_hours)",
        "timedelta(days=settings().alert_quiet_hours)",
        ALERTS,
    ),
    Mutant(
        "alerts_each_day_a_cause", "dags/shared/alerts.py", 'VARIABLE_PARTS.sub("#", self.what)', "self.what", ALERTS
    ),
    Mutant(
        "alerts_lost_by_a_kill",
        "dags/shared/alerts.py",
        "        obstacle = deliver(alert, text, context)\n        if obstacle:\n",
        "        memory.remove_sent(cause)\n        obstacle = deliver(alert, text, context)\n        if obstacle:\n",
        ALERTS,
    ),
    Mutant(
        "alerts_lost_without_a_memory",
        "dags/shared/alerts.py",
        "    obstacle = deliver(alert, alert.text, context)\n",
        "    return False\n    obstacle = deliver(alert, alert.text, context)\n",
        ALERTS,
    ),
    Mutant(
        "alerts_in_a_folder_of_anybody",
        "dags/shared/alerts.py",
        "status.st_uid != os.getuid() or status.st_mode & 0o077",
        "False",
        ALERTS,
    ),
    Mutant(
        "alerts_silenced_by_a_clock_ahead",
        "dags/shared/alert_memory.py",
        'min(datetime.fromisoformat(content["told"]), datetime.now(UTC))',
        'datetime.fromisoformat(content["told"])',
        ALERTS,
    ),
    Mutant(
        "alerts_claims_from_the_future",
        "lake/storage.py",
        "abs(datetime.now(UTC) - fs.modified(inner))",
        "(datetime.now(UTC) - fs.modified(inner))",
        ALERTS,
    ),
    Mutant(
        "publish_warns_each_time",
        "dags/shared/publish.py",
        "verdict.audited if verdict and already",
        '"" if already',
        ALERTS,
    ),
    Mutant("publish_queue_waits", "dags/shared/publish.py", "        resend_queued(context)\n", "", ALERTS),
    Mutant(
        "alerts_unsent_sent_for_ever",
        "dags/shared/alerts.py",
        "                memory.remove_unsent(name)\n",
        "",
        ALERTS,
    ),
    Mutant(
        "alerts_claims_for_ever",
        "dags/shared/alert_memory.py",
        "storage.create(place, CLAIM)",
        "storage.create(place, timedelta(days=999))",
        ALERTS,
    ),
    Mutant(
        "alerts_claims_of_others_removed",
        "dags/shared/alert_memory.py",
        "            if is_ours:\n                storage.remove(place)\n",
        "            storage.remove(place)\n",
        ALERT_MEMORY,
    ),
    Mutant(
        "alerts_oldest_days_kept",
        "dags/shared/alert_memory.py",
        "[*earlier.suppressed, day][-MAX_DAYS:]",
        "[*earlier.suppressed, day][:MAX_DAYS]",
        ALERT_MEMORY,
    ),
    Mutant(
        "alerts_on_their_way_sent_twice",
        "dags/shared/alert_memory.py",
        "datetime.now(UTC) - CLAIM",
        "datetime.now(UTC) + CLAIM",
        ALERT_MEMORY,
    ),
    Mutant(
        "alerts_first_section", "dags/shared/alerts.py", "sections[-1] if sections", "sections[0] if sections", ALERTS
    ),
    Mutant(
        "alerts_day_after",
        "dags/shared/alerts.py",
        'return ""\n    return str(end.date() - timedelta(days=1))',
        'return ""\n    return str(end.date())',
        ALERTS,
    ),
    Mutant(
        "alerts_predictions_need_events",
        "lake/tables.py",
        'reads=("interests",),',
        'reads=("events",),',
        ALERTS,
    ),
    Mutant(
        "process_deaf_trainings_stay",
        "dags/shared/process.py",
        'kill -s KILL -- "-$0"\n',
        "",
        "tests/dags/shared/test_process.py",
    ),
    Mutant(
        "process_group_ends_alone",
        "dags/shared/process.py",
        "                release()\n            follower.join()",
        "                leader.kill()\n            follower.join()",
        "tests/dags/shared/test_process.py",
    ),
    Mutant(
        "evaluation_link_shows_the_password",
        "dags/shared/evaluation.py",
        're.sub(r"//[^/@]*@", "//", uri)',
        "uri",
        LINKS,
    ),
    Mutant(
        "serving_setting_before_connection",
        "dags/shared/serve.py",
        "    try:\n        uri = Connection.get(CONNECTION).get_uri()",
        "    if address := settings().serving_url.get_secret_value():\n        return address\n"
        "    try:\n        uri = Connection.get(CONNECTION).get_uri()",
        "tests/dags/shared/test_serve.py",
    ),
    # --- the command
    Mutant("cli_markup_of_values", "dags/cli/console.py", "markup=False, emoji", "markup=True, emoji", CONSOLE),
    Mutant("cli_escape_sequences", "dags/cli/console.py", "render_str(visible(text), ", "render_str(text, ", CONSOLE),
    Mutant("cli_json_as_it_is", "dags/cli/console.py", ", ensure_ascii=True", "", CONSOLE),
    Mutant(
        "cli_every_day_of_interests",
        "dags/cli/main.py",
        '["--every", str(every)] if name == "interests" else []',
        "[]",
        DAILY,
    ),
    Mutant("cli_chunks_overlap", "dags/cli/main.py", "days[i : i + chunk_days]", "days[i : i + chunk_days + 1]", DAILY),
    Mutant("cli_doctor_always_well", "dags/cli/doctor.py", "typer.Exit(0 if all(", "typer.Exit(0 if any(", DOCTOR),
    Mutant(
        "cli_java_23",
        "dags/cli/doctor.py",
        "<= 22:",
        "<= 23:",
        f"{DOCTORS}::test_the_doctor_knows_which_java_spark_starts_on",
    ),
    Mutant(
        "cli_refused_predictions_shown",
        "dags/cli/model.py",
        'if commit["first"] not in json.loads(commit["refused"]):',
        "if True:",
        "tests/dags/cli/test_model.py::test_published_predictions_are_counted_by_day_and_name_the_version_behind_them",
    ),
    Mutant(
        "images_default_password",
        "docker/compose.yaml",
        "${REDIS_PASSWORD:?set it in docker/.env}",
        "${REDIS_PASSWORD:-redis}",
        "tests/docker/test_images.py::test_compose_takes_every_secret_from_outside_and_the_example_names_them_all",
    ),
    # --- the page
    Mutant(
        "page_docs_oldest_first",
        "dags/page/app.py",
        "reverse=True)[:MAX_PAGES]",
        ")[:MAX_PAGES]",
        "tests/dags/test_plugin.py",
    ),
    Mutant(
        "page_docs_may_run_scripts",
        "dags/page/app.py",
        'headers("sandbox")',
        'headers("sandbox allow-scripts")',
        "tests/dags/test_plugin.py",
    ),
    Mutant(
        "page_not_escaped",
        "dags/page/views.py",
        "autoescape=True",
        "autoescape=False",
        "tests/dags/test_plugin.py::test_the_tab_of_a_run_says_what_the_gate_decided_and_why",
    ),
    Mutant(
        "page_busy_runs_stopped_soon",
        "dags/page/problems.py",
        "STOPPED_AFTER = timedelta(hours=6)",
        "STOPPED_AFTER = timedelta(hours=1)",
        PROBLEMS,
    ),
    Mutant(
        "page_gaps_told_first",
        "dags/page/problems.py",
        "    entries = _failed(cells)\n    entries += _unfinished(cells, lake, airflow)",
        "    entries = _unfinished(cells, lake, airflow)\n    entries += _failed(cells)",
        PROBLEMS,
    ),
    Mutant(
        "page_repaired_before_it_failed",
        "dags/page/problems.py",
        "commit.published > run.ended",
        "commit.published < run.ended",
        PROBLEMS,
    ),
    Mutant(
        "page_restated_from_the_first",
        "dags/page/state.py",
        "max(0, self._times[table][day] - 1)",
        "self._times[table][day]",
        STATE,
    ),
    Mutant(
        "page_refused_days_published",
        "dags/page/state.py",
        "days=frozenset(days) - refused",
        "days=frozenset(days)",
        STATE,
    ),
    Mutant(
        "page_answers_of_another_lake",
        "dags/page/cache.py",
        "table.delta.metadata().id",
        "table.path",
        "tests/dags/page/test_cache.py",
    ),
    Mutant(
        "page_answers_of_an_older_version",
        "dags/page/cache.py",
        "if version == table.version:",
        "if version is not None:",
        "tests/dags/page/test_cache.py",
    ),
    Mutant(
        "page_changed_files_not_read",
        "dags/page/cache.py",
        "if path not in cached or cached[path][0] != stamp",
        "if path not in cached",
        "tests/dags/page/test_cache.py",
    ),
    Mutant(
        "page_newest_by_the_clock",
        "dags/page/state.py",
        "some.sort(key=lambda staging: staging.staged.order)",
        "some.sort(key=lambda staging: staging.staged.started)",
        STATE,
    ),
    Mutant("page_refused_for_ever", "dags/page/state.py", "refused[name].pop(day, None)", "pass", STATE),
    Mutant(
        "page_warning_of_a_refused_run",
        "dags/page/state.py",
        "newest and newest.staged.stage_id == commit.stage_id and newest.verdict",
        "newest and not pending and newest.verdict",
        STATE,
    ),
    Mutant(
        "page_work_of_a_clock_that_was_ahead",
        "dags/page/problems.py",
        "abs(lake.now - began) < STOPPED_AFTER",
        "lake.now - began < STOPPED_AFTER",
        PROBLEMS,
    ),
    Mutant(
        "refused_days_are_not_told",
        "dags/shared/publish.py",
        'if report["refused"]:',
        "if False:",
        "tests/dags/shared/test_alerts.py::test_days_that_are_refused_are_told_once_for_each_table_however_many_they_are",
    ),
    Mutant("page_late_for_ever", "dags/page/state.py", "            restated |= commit.days\n", "", STATE),
    Mutant(
        "page_verdict_of_an_earlier_staging",
        "dags/page/state.py",
        'if verdict and verdict["stage_id"] == staged.stage_id else None',
        "if verdict else None",
        STATE,
    ),
    Mutant(
        "page_findings_for_ever",
        "dags/page/findings.py",
        "monitored.day > days[-1].day - RECENT",
        "monitored.day >= days[-1].day - RECENT",
        VIEWS,
    ),
    Mutant(
        "page_drift_swapped",
        "dags/page/flows.py",
        "avg({label.probability}) as",
        "avg({LABELS[0].probability}) as",
        FLOWS,
    ),
    Mutant(
        "page_lines_upside_down",
        "dags/page/drawing.py",
        "(WIDTH - 20) * (day - first).days / span, height * (1 - value / top)",
        "(WIDTH - 20) * (day - first).days / span, height * (value / top)",
        FLOWS,
    ),
    Mutant(
        "page_failed_runs_forgotten_in_a_day",
        "dags/page/airflow_state.py",
        "FAILURE_WINDOW = timedelta(days=7)",
        "FAILURE_WINDOW = timedelta(days=1)",
        DATABASE,
    ),
    Mutant(
        "page_failed_runs_never_over",
        "dags/page/airflow_state.py",
        'DagRun.state.in_(("failed", "success"))',
        'DagRun.state.in_(("failed",))',
        DATABASE,
    ),
    Mutant(
        "page_oldest_end_counts",
        "dags/page/airflow_state.py",
        ".order_by(DagRun.end_date)",
        ".order_by(DagRun.end_date.desc())",
        DATABASE,
    ),
]
