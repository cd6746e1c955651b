"""Wrong changes to Airflow and Spark on one machine: `make up`, `make down`, `make demo`."""

from tests.mutants.mutant import Mutant

TESTS = "tests/dags/local/test_commands.py"
PROCESSES = "tests/dags/local/test_processes.py"
DOORS = "tests/dags/local/test_doors.py"

MUTANTS = [
    Mutant(
        "local_start_tells_nothing",
        "dags/local/standalone.py",
        "if self.tell and now - last_word > TELL_SECONDS:",
        "if self.tell and now - began < TELL_SECONDS < 0:",
        f"{TESTS}::test_a_start_that_takes_long_says_so_until_it_is_taken_for_one_that_hangs",
    ),
    Mutant(
        "local_ended_process_is_waited_for",
        "dags/local/standalone.py",
        "            if not self.groups[name].alive:\n",
        "            if name not in self.groups:\n",
        f"{TESTS}::test_a_process_that_ends_while_starting_shows_its_log",
    ),
    Mutant(
        "local_environment_wins_over_settings",
        "dags/local/standalone.py",
        "            **inherited(),\n            **self.settings,\n",
        "            **self.settings,\n            **inherited(),\n",
        f"{TESTS}::test_the_environment_wins_over_what_was_remembered_and_settings_win_over_both",
    ),
    Mutant(
        "local_remembered_wins_over_environment",
        "dags/local/standalone.py",
        '            **self.state["settings"],\n            **inherited(),\n',
        '            **inherited(),\n            **self.state["settings"],\n',
        f"{TESTS}::test_the_environment_wins_over_what_was_remembered_and_settings_win_over_both",
    ),
    Mutant(
        "local_password_for_all",
        "dags/local/standalone.py",
        "    file.chmod(0o600)\n",
        "",
        f"{TESTS}::test_only_the_owner_reads_the_password",
    ),
    Mutant(
        "local_home_for_all",
        "dags/local/standalone.py",
        "self.home.chmod(0o700)",
        "self.home.chmod(0o755)",
        f"{DOORS}::test_no_other_user_reads_what_is_kept_of_a_start",
    ),
    Mutant(
        "local_files_for_all",
        "dags/local/standalone.py",
        "start_new_session=True, umask=PRIVATE,",
        "start_new_session=True,",
        f"{DOORS}::test_no_other_user_reads_what_is_kept_of_a_start",
    ),
    Mutant(
        "local_password_is_printed",
        "dags/local/commands.py",
        "{local.url}   user {USER}   password in {local.password_file}",
        "{local.url}   user {USER}   password in {local.password_file}: {local.password}",
        f"{DOORS}::test_people_are_told_where_the_password_is_and_not_what",
    ),
    Mutant(
        "local_mlflow_for_all",
        "dags/local/commands.py",
        ', "--app-name", "basic-auth"',
        "",
        f"{DOORS}::test_mlflows_page_asks_for_the_password_and_listens_on_loopback",
    ),
    Mutant(
        "local_spark_for_all",
        "dags/local/standalone.py",
        '            "SPARK_CONNECT_AUTHENTICATE_TOKEN": self.state["spark_token"],\n',
        "",
        f"{DOORS}::test_who_has_the_token_may_use_spark_and_nobody_else",
    ),
    Mutant(
        "local_spark_knows_what_airflow_knows",
        "dags/local/standalone.py",
        'environment_of("spark-connect-server", self.environment)',
        "self.environment",
        f"{DOORS}::test_spark_listens_on_loopback_alone_and_gets_no_secret_that_it_has_no_use_for",
    ),
    Mutant(
        "local_logs_served_to_all",
        "dags/local/standalone.py",
        '"$0" scheduler --skip-serve-logs &',
        '"$0" scheduler &',
        "tests/e2e/test_backfill.py",
    ),
    Mutant(
        "local_ends_somebody_elses_group",
        "dags/local/processes.py",
        "                return []\n",
        "                pass\n",
        f"{PROCESSES}::test_a_group_whose_number_now_belongs_to_another_is_left_alone",
    ),
    Mutant(
        "local_ends_descendants_alone",
        "dags/local/processes.py",
        "[process for process in psutil.process_iter() if runs_in(process, self.group)]",
        "psutil.Process(self.group).children(recursive=True) if psutil.pid_exists(self.group) else []",
        f"{PROCESSES}::test_a_child_is_ended_whose_parent_is_gone",
    ),
    Mutant(
        "local_deaf_processes_stay",
        "dags/local/processes.py",
        "os.killpg(self.group, how)",
        "os.killpg(self.group, signal.SIGTERM)",
        f"{PROCESSES}::test_what_does_not_end_when_it_is_asked_to_is_ended_for_good",
    ),
    Mutant(
        "local_group_by_the_clock",
        "dags/local/processes.py",
        "process.create_time() - psutil.boot_time()",
        "process.create_time()",
        f"{PROCESSES}::test_a_group_is_found_again_after_the_clock_was_set",
    ),
    Mutant(
        "local_remember_forgets_the_rest",
        "dags/local/standalone.py",
        "write_private(self.state_file, {**self.state, **changes})",
        "write_private(self.state_file, changes)",
        f"{TESTS}::test_what_was_remembered_of_a_start_is_kept_by_the_next_one",
    ),
    Mutant(
        "local_lock_cancels_what_is_at_work",
        "dags/local/standalone.py",
        """            if any(run["state"] in ("queued", "running") for run in self.runs(dag["dag_id"])):
                continue
""",
        "",
        f"{TESTS}::test_a_backfill_without_runs_that_a_lock_has_left_is_cancelled_and_one_at_work_is_not",
    ),
    Mutant(
        "local_lock_leaves_the_backfill",
        "dags/local/standalone.py",
        '                if orphan["completed_at"] is None:\n',
        '                if orphan["completed_at"] is not None:\n',
        f"{TESTS}::test_a_backfill_without_runs_that_a_lock_has_left_is_cancelled_and_one_at_work_is_not",
    ),
    Mutant(
        "demo_predicts_with_the_candidate_beside_a_champion",
        "dags/local/commands.py",
        '    if decision["champion"]:\n',
        '    if not decision["champion"]:\n',
        f"{TESTS}::test_without_a_champion_the_demo_predicts_with_the_candidate_and_says_so",
    ),
    Mutant(
        "demo_goes_on_after_a_failed_run",
        "dags/local/commands.py",
        '                if run["state"] == "failed":\n',
        '                if run["state"] == "no such state":\n',
        f"{TESTS}::test_a_run_that_fails_and_a_scheduler_that_is_gone_end_the_demo",
    ),
    Mutant(
        "demo_waits_for_a_scheduler_that_is_gone",
        "dags/local/commands.py",
        "alive = time.monotonic() if local.healthy() else alive",
        "alive = time.monotonic()",
        f"{TESTS}::test_a_run_that_fails_and_a_scheduler_that_is_gone_end_the_demo",
    ),
    Mutant(
        "demo_names_the_day_after",
        "dags/local/commands.py",
        "datetime.fromisoformat(end).date() - timedelta(days=1)",
        "datetime.fromisoformat(end).date()",
        f"{TESTS}::test_what_people_wait_for_is_one_line_with_the_last_day_of_its_interval",
    ),
]
