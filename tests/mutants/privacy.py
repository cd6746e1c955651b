"""Wrong changes to what forgets users, to how long rows are kept, and to what a log may say of them."""

from tests.mutants.mutant import Mutant

FORGET, TABLES, LISTED, MATCHING, REWRITING, LOGS, RETENTION, FOLDERS = (
    f"lake/privacy/{name}.py"
    for name in ("forget", "tables", "forgotten", "matching", "rewriting", "logs", "retention", "folders")
)
TESTS = "tests/lake/privacy/test_forget.py"
NOWHERE = f"{TESTS}::test_the_user_is_nowhere_and_all_other_rows_are_as_before"
KILLED = f"{TESTS}::test_killed_after_each_step_it_is_finished_by_running_it_again"
BEFORE = f"{TESTS}::test_a_staging_that_began_before_is_published_without_the_user"
LOOKS_AGAIN = f"{TESTS}::test_a_publish_that_looked_before_the_user_was_forgotten_looks_again"
IN_BETWEEN = f"{TESTS}::test_publishes_in_between_are_not_lost_and_are_looked_through"
UPKEEP = f"{TESTS}::test_upkeep_finds_nothing_wrong_afterwards"
READS = "tests/jobs/test_forgotten.py"
WHOSE = f"{READS}::test_whose_rows_are_forgotten"
LANDING = "tests/jobs/test_landing_users.py"
STORE = "tests/lake/serving/test_forget.py"
KEPT = "tests/lake/privacy/test_retention.py"
LOG = "tests/lake/privacy/test_logs.py"
FORGET_COMMAND = "tests/dags/cli/test_forget.py"

UNREAD = f"{TESTS}::test_a_file_of_readers_that_cannot_be_read_ends_nothing_and_is_named_until_it_can"
PINNED_UNREAD = f"{TESTS}::test_a_file_that_a_training_alone_needs_and_that_cannot_be_read_is_named_with_what_to_do"

LOG_UNREAD = f"{TESTS}::test_a_log_that_cannot_be_read_ends_nothing_and_is_named_until_it_can"
SUMMARY_UNREAD = f"{TESTS}::test_a_summary_of_a_file_that_cannot_be_read_goes"
CHECKPOINT = f"{TESTS}::test_a_checkpoint_that_nobody_needs_and_cannot_be_read_is_named_and_its_rows_are_gone"
ONLY_STAGED = f"{TESTS}::test_a_table_that_was_only_staged_is_published_without_the_user"
LOG_GONE = f"{TESTS}::test_a_log_that_is_gone_beside_files_of_readers_is_one_that_cannot_be_read"
FIRST_ROWS = f"{TESTS}::test_a_run_at_work_on_the_first_rows_of_a_table_publishes_them_without_the_user"
TEXTS_UNREAD = f"{KEPT}::test_an_old_file_that_cannot_be_read_keeps_no_other_text_and_is_named_until_it_can"

MUTANTS = [
    # -- logs that cannot be read, and tables without one
    Mutant(
        "forget_ends_at_a_damaged_log",
        TABLES,
        "except UNREADABLE_LOG as error:",
        "except (OSError, KeyError) as error:",
        LOG_UNREAD,
    ),
    Mutant(
        "forget_looks_at_the_newest_version_alone",
        TABLES,
        "        history(path, delta.version())\n        of_pinned",
        "        of_pinned",
        LOG_UNREAD,
    ),
    Mutant(
        "forget_takes_a_closed_log_for_none",
        TABLES,
        "        return True\n",
        "        return False\n",
        f"{TESTS}::test_a_log_that_may_not_be_listed_is_named",
    ),
    Mutant(
        "forget_keeps_summaries_of_a_damaged_log",
        FORGET,
        " - unread if known else set[str]()",
        " - unread",
        LOG_UNREAD,
    ),
    Mutant(
        "forget_keeps_summaries_of_a_damaged_file",
        FORGET,
        'data_files(table_path("events")).keys() - unread if',
        'data_files(table_path("events")).keys() if',
        SUMMARY_UNREAD,
    ),
    Mutant("forget_is_finished_without_a_checkpoint", TABLES, "    cleaned.damaged += [\n", "    _ = [\n", CHECKPOINT),
    Mutant(
        "forget_leaves_out_what_was_only_staged",
        TABLES,
        "        if is_there(path) or data_files(path):\n",
        "        if is_there(path):\n",
        ONLY_STAGED,
    ),
    Mutant(
        "forget_takes_files_of_readers_for_stagings",
        TABLES,
        "and not had_log(name)",
        "",
        LOG_GONE,
    ),
    Mutant(
        "a_publish_begins_a_lost_log_anew",
        "lake/table.py",
        "    if not has_log(path):\n        create_missing",
        "    if not DeltaTable.is_deltatable(path):\n        create_missing",
        "tests/lake/test_publish.py::test_a_table_whose_log_is_gone_is_not_begun_anew_and_its_rows_are_back_with_the_log",
    ),
    Mutant(
        "a_lost_list_of_forgotten_users_is_an_empty_one",
        "lake/privacy/forgotten.py",
        "        if not has_log(path):",
        "        if not DeltaTable.is_deltatable(path):",
        "tests/lake/test_publish.py::test_nothing_is_published_where_the_log_of_the_list_of_forgotten_users_is_gone",
    ),
    Mutant("a_table_is_not_marked", "lake/table.py", "    mark_made(path)\n", "", LOG_GONE),
    Mutant(
        "a_log_is_gone_only_where_its_folder_is_left",
        "lake/maintenance.py",
        "if any(table in json",
        "if any(other in json",
        LOG_GONE,
    ),
    Mutant(
        "upkeep_removes_the_files_of_a_log_that_is_gone",
        "lake/upkeep.py",
        "if old and had_log(name):",
        "if not old and had_log(name):",
        "tests/lake/test_upkeep.py::test_the_files_of_a_table_whose_log_is_gone_stay",
    ),
    Mutant(
        "forget_tells_to_remove_a_commit",
        FORGET,
        'if ".checkpoint" in each.file:',
        "if True:",
        f"{TESTS}::test_nobody_is_told_to_remove_a_commit",
    ),
    Mutant(
        "log_ends_at_a_damaged_text_of_a_checkpoint",
        LOGS,
        "            unread[name] = error.error\n            continue\n        except UNREADABLE as error:",
        "            unread[name] = error.error\n            continue\n        except KeyError as error:",
        f"{LOG}::test_a_checkpoint_whose_statistics_are_cut_off_is_named_and_stays",
    ),
    Mutant(
        "log_passes_over_a_line_of_another_name",
        LOGS,
        "        if kind not in ACTIONS:",
        "        if not kind:",
        f"{LOG}::test_a_commit_with_a_line_that_is_no_action_is_named_and_stays",
    ),
    Mutant(
        "log_needs_a_number_of_rows",
        LOGS,
        '    rows = content.get("numRecords")',
        '    rows = content["numRecords"]',
        f"{LOG}::test_statistics_without_a_number_of_rows_stay_without",
    ),
    Mutant(
        "upkeep_counts_no_merge_beside_one_that_failed",
        "lake/compact.py",
        "    return merged, skipped, problem\n",
        "    return 0 if problem else merged, skipped, problem\n",
        "tests/lake/test_upkeep.py::"
        "test_a_file_that_cannot_be_read_keeps_no_other_from_being_merged_and_nothing_old_from_going",
    ),
    Mutant(
        "a_publish_takes_a_damaged_list_for_none",
        LISTED,
        "    except UNREADABLE_LOG as error:\n        raise unreadable(forgotten_path(),",
        "    except KeyError as error:\n        raise unreadable(forgotten_path(),",
        "tests/lake/test_publish.py::"
        "test_where_the_list_of_forgotten_users_cannot_be_read_nothing_is_published_and_the_error_names_it",
    ),
    Mutant(
        "forget_notes_no_absent_table",
        TABLES,
        "            note_absent(name, take_number())\n",
        "            pass\n",
        FIRST_ROWS,
    ),
    Mutant(
        "forget_publish_does_not_ask_the_list",
        "lake/publish.py",
        "max(current.delta.transaction_version(FORGOTTEN) or 0, noted(staged.table))",
        "(current.delta.transaction_version(FORGOTTEN) or 0)",
        FIRST_ROWS,
    ),
    Mutant(
        "forget_notes_an_earlier_number",
        LISTED,
        "Transaction(mark, max(number, delta.transaction_version(mark) or 0))",
        "Transaction(mark, number)",
        FIRST_ROWS,
    ),
    Mutant(
        "log_ends_at_a_damaged_commit",
        LOGS,
        "            new = redacted_commit(text, times)\n        except UNREADABLE as error:",
        "            new = redacted_commit(text, times)\n        except KeyError as error:",
        LOG,
    ),
    Mutant(
        "pseudonyms_by_events_alone",
        "lake/table.py",
        "    for name in TABLES:\n        try:",
        '    for name in ("events",):\n        try:',
        f"{FORGET_COMMAND}::test_a_log_that_cannot_be_read_ends_no_forget_as_long_as_another_table_says_how_users_are_named",
    ),
    Mutant(
        "retention_ends_at_a_damaged_file",
        RETENTION,
        "            except (FileUnreadable, FileNotFoundError) as error:",
        "            except FileNotFoundError as error:",
        TEXTS_UNREAD,
    ),
    Mutant(
        "retention_ends_at_a_file_that_is_gone",
        RETENTION,
        "            except (FileUnreadable, FileNotFoundError) as error:",
        "            except FileUnreadable as error:",
        TEXTS_UNREAD,
    ),
    Mutant(
        "retention_is_silent",
        "lake/upkeep.py",
        "filter(None, [unread, result.problem])",
        "filter(None, [result.problem])",
        TEXTS_UNREAD,
    ),
    Mutant(
        "retention_counts_a_day_that_stays",
        RETENTION,
        "gone = [day for day in old if day not in stuck]",
        "gone = old",
        f"{KEPT}::test_an_old_landing_day_that_cannot_be_removed_keeps_no_other",
    ),
    Mutant(
        "landing_items_lead_out",
        "jobs/item_table.py",
        "    require_inside(place.address)\n",
        "",
        "tests/jobs/test_item_table.py::test_a_table_is_checked_as_a_day_of_the_log_is",
    ),
    # -- files that cannot be read
    Mutant(
        "forget_ends_at_a_damaged_file",
        TABLES,
        "except (FileUnreadable, FileNotFoundError) as error:\n                why",
        "except FileNotFoundError as error:\n                why",
        UNREAD,
    ),
    Mutant(
        "forget_ends_at_a_file_that_is_gone",
        TABLES,
        "except (FileUnreadable, FileNotFoundError) as error:\n                why",
        "except FileUnreadable as error:\n                why",
        UNREAD,
    ),
    Mutant(
        "forget_texts_of_a_file_that_is_gone",
        FORGET,
        "except (FileUnreadable, FileNotFoundError):",
        "except FileUnreadable:",
        UNREAD,
    ),
    Mutant(
        "forget_leaves_out_files_that_are_gone",
        TABLES,
        "for file in sorted({*live, *of_pinned_versions(name, path)}):",
        "for file in sorted({*live, *of_pinned_versions(name, path)} & there.keys()):",
        UNREAD,
    ),
    Mutant("forget_is_finished_without_a_file", FORGET, "    if not receipt.unread:\n", "    if True:\n", UNREAD),
    Mutant(
        "forget_takes_identities_too_early",
        FORGET,
        "if places.at_last and not receipt.unread else []",
        "if places.at_last else []",
        UNREAD,
    ),
    Mutant(
        "forget_leaves_half_a_file",
        REWRITING,
        "    except BaseException:\n        storage.remove(storage.join(root, target))\n",
        "    except BaseException:\n",
        UNREAD,
    ),
    Mutant(
        "forget_leaves_half_a_file_on_a_full_disk",
        REWRITING,
        "    except BaseException:\n",
        "    except FileUnreadable:\n",
        f"{TESTS}::test_where_a_file_cannot_be_written_anew_the_error_is_that_of_writing_and_nothing_is_left",
    ),
    Mutant(
        "forget_loses_a_file_at_the_second_look",
        REWRITING,
        "            with reading(path):\n                file =",
        "            if True:\n                file =",
        f"{TESTS}::test_a_file_that_is_lost_after_its_rows_were_counted_is_told_as_one_that_cannot_be_read",
    ),
    Mutant(
        "forget_swallows_a_staging",
        TABLES,
        "cleaned.kept[file.path] = error.error",
        "del error",
        f"{TESTS}::test_a_staging_whose_storage_does_not_answer_is_named_and_published_without_the_user",
    ),
    Mutant("forget_sends_readers_to_a_training", TABLES, "why, file in live", "why, True", PINNED_UNREAD),
    Mutant(
        "forget_cannot_say_that_it_is_incomplete",
        "dags/cli/forget.py",
        "    if receipt.unread:\n",
        "    if False:\n",
        f"{FORGET_COMMAND}::test_a_forget_that_could_not_read_a_file_ends_with_an_error_that_names_it_and_the_next_one_with_none",
    ),
    # -- tables
    Mutant("forget_keeps_pinned_files", TABLES, "{*live, *of_pinned_versions(name, path)}", "{*live}", NOWHERE),
    Mutant("forget_retries_inside_delta", TABLES, "            max_commit_retries=0,\n", "", IN_BETWEEN),
    Mutant(
        "forget_without_a_mark",
        TABLES,
        "app_transactions=[Transaction(FORGOTTEN, max(number, delta.transaction_version(FORGOTTEN) or 0))],",
        "app_transactions=[],",
        BEFORE,
    ),
    Mutant(
        "forget_earlier_number",
        TABLES,
        "max(number, delta.transaction_version(FORGOTTEN) or 0)",
        "number",
        f"{TESTS}::test_of_two_at_once_the_later_number_counts",
    ),
    Mutant(
        "forget_is_a_publish",
        TABLES,
        "        FORGOTTEN_BY: request,\n",
        '        FORGOTTEN_BY: request,\n        "run_id": request,\n',
        f"{TESTS}::test_to_the_planner_and_to_days_nothing_has_happened",
    ),
    Mutant(
        "forget_says_no_new_names", TABLES, "FORGOTTEN_FILES: json.dumps(files),", 'FORGOTTEN_FILES: "{}",', NOWHERE
    ),
    Mutant(
        "forget_receipt_of_this_call_alone",
        TABLES,
        "if said.get(FORGOTTEN_BY) == request and files:",
        "if False:",
        KILLED,
    ),
    Mutant(
        "forget_upkeep_misses_files",
        "lake/upkeep.py",
        "*(files_today(path, version) for version in pins)",
        '*(set(DeltaTable(path, version=version).get_add_actions().column("path").to_pylist()) for version in pins)',
        UPKEEP,
    ),
    Mutant(
        "forget_old_names_of_pinned",
        "lake/table.py",
        "if self._is_pinned else {}",
        "if not self._is_pinned else {}",
        NOWHERE,
    ),
    Mutant(
        "forget_twice_loses_the_chain",
        "lake/table.py",
        'moved = {old: new.get(file["path"], file) if file else None for old, file in moved.items()} | new',
        "moved = moved | new",
        f"{TESTS}::test_a_pinned_version_is_read_after_two_users_were_forgotten",
    ),
    Mutant("forget_keeps_old_files", TABLES, "        storage.remove_files(path, [file])\n", "", NOWHERE),
    Mutant(
        "forget_removes_what_a_pin_needs",
        TABLES,
        "*of_pinned_versions(cleaned.table, path)}",
        "}",
        NOWHERE,
        harmless="files of pinned versions have been written anew before, so nothing is found in them",
    ),
    Mutant(
        "forget_leaves_stagings",
        TABLES,
        "for staging in sorted(stagings.keys() & manifests.keys()):",
        "for staging in ():",
        NOWHERE,
    ),
    Mutant("forget_removes_what_is_named", TABLES, "if file not in named]", "]", BEFORE),
    Mutant(
        "forget_no_second_commit",
        TABLES,
        "    if clean_stagings(cleaned, path, chosen, progress):",
        "    if clean_stagings(cleaned, path, chosen, progress) and False:",
        f"{TESTS}::test_a_publish_that_looks_before_its_staging_is_written_anew",
    ),
    # -- publish
    Mutant("forget_publish_is_lost", "lake/publish.py", "    staged = read_again(staged)\n", "", LOOKS_AGAIN),
    Mutant(
        "forget_publish_brings_back",
        "lake/publish.py",
        "staged, replaced_files = without_forgotten(current, staged)",
        "replaced_files = without_forgotten(current, staged)[1]",
        BEFORE,
    ),
    Mutant(
        "forget_publish_cleans_nothing_older",
        "lake/publish.py",
        "max(current.delta.transaction_version(FORGOTTEN) or 0, noted(staged.table)) < staged.order",
        "True",
        BEFORE,
    ),
    Mutant(
        "forget_publish_keeps_originals",
        "lake/publish.py",
        "    storage.remove_files(current.path, replaced_files)\n",
        "",
        BEFORE,
    ),
    # -- who is meant
    Mutant(
        "forget_parts_of_words",
        MATCHING,
        r"(?<!\w)(?:{",
        r"(?:{",
        f"{LANDING}::test_files_are_written_anew_without_the_user_and_with_all_other_bytes",
        harmless="a row that can be read is its user's, and one that cannot may go",
    ),
    Mutant(
        "forget_rows_that_quote",
        MATCHING,
        "return user is None or bool(users.among(pa.chunked_array([[user]]))[0].as_py())",
        "return True",
        f"{TESTS}::test_a_rejected_row_in_which_another_user_names_the_id_stays",
    ),
    Mutant(
        "forget_only_what_can_be_read",
        MATCHING,
        "return user is None or bool(",
        "return user is not None and bool(",
        NOWHERE,
    ),
    Mutant("forget_skips_by_the_wrong_end", MATCHING, "lowest <= form <= highest", "lowest < form < highest", NOWHERE),
    Mutant(
        "forget_unsalted",
        LISTED,
        "hmac.new(self.salt.encode(),",
        'hmac.new(b"",',
        f"{READS}::test_the_hash_is_the_one_of_the_list {WHOSE}",
    ),
    Mutant("forget_docs_stay", FORGET, "remove_pages(places.docs, distinct(named))", "0, {}", NOWHERE),
    Mutant("forget_alerts_stay", FORGET, "redact_messages(folder, distinct(named))", "0, {}", NOWHERE),
    Mutant(
        "forget_models_by_examples_alone",
        FORGET,
        '*content.get("valid", []), ',
        "",
        f"{TESTS}::test_trainings_are_listed_by_the_dates_that_they_have_read",
    ),
    Mutant(
        "forget_short_ids_in_texts",
        FOLDERS,
        "DISTINCT = 5",
        "DISTINCT = 1",
        f"{TESTS}::test_a_short_id_is_looked_for_only_where_a_column_says_that_it_is_a_user",
    ),
    Mutant(
        "forget_groups_are_merged",
        REWRITING,
        "                if left.num_rows:\n",
        "                if True:\n",
        NOWHERE,
    ),
    # -- what is read
    Mutant(
        "forgotten_come_back",
        "jobs/forgotten.py",
        '.withColumn("outcome", F.when(F.col("is_theirs"), FORGOTTEN)',
        '.withColumn("outcome", F.when(F.lit(False), FORGOTTEN)',
        WHOSE,
    ),
    Mutant(
        "forgotten_by_a_quote",
        "jobs/forgotten.py",
        '& (F.col("user_id").isNull() | F.col("reason").isin(*UNREAD))',
        "",
        WHOSE,
    ),
    Mutant(
        "forgotten_ignored_are_ignored",
        "jobs/forgotten.py",
        'F.coalesce("is_listed", F.when',
        'F.coalesce(F.when(F.col("outcome") != "ignored", F.col("is_listed")), F.when',
        WHOSE,
    ),
    Mutant(
        "forgotten_not_counted",
        "jobs/input_counts.py",
        'day[FORGOTTEN] = day.get(FORGOTTEN, 0) + row["n"]',
        "pass",
        READS,
    ),
    Mutant(
        "forgotten_not_accounted_for", "expectations/events.py", " + quarantined + forgotten,", " + quarantined,", READS
    ),
    # -- landing and store
    Mutant(
        "forget_landing_always",
        "jobs/landing_users.py",
        "if rewrite and possible:",
        "if possible:",
        LANDING,
    ),
    Mutant(
        "forget_landing_order_of_the_source",
        "jobs/landing_users.py",
        "names = names or ([] if source.header else source.columns)",
        "names = source.columns",
        LANDING,
    ),
    Mutant(
        "forget_landing_breaks_records",
        "jobs/landing_users.py",
        "not self.has_long and not source.multiline and",
        "not self.has_long and",
        LANDING,
    ),
    Mutant(
        "forget_landing_bytes_the_other_way_round",
        "jobs/landing_users.py",
        "_, encoding = first_lines(source, file, first_bytes(file))",
        "encoding = source.charset",
        LANDING,
    ),
    Mutant(
        "forget_landing_byte_order_mark_is_text",
        "jobs/landing_users.py",
        'line = line.removeprefix("\\ufeff")',
        "line = str(line)",
        LANDING,
    ),
    Mutant(
        "forget_identity_comes_back",
        "jobs/pseudonymize.py",
        "pairs if is_kept is None else",
        "pairs if True else",
        FORGET_COMMAND,
    ),
    Mutant(
        "forget_landing_counts_users_twice",
        "jobs/landing_users.py",
        "found.rows if new == users else count_rows(found.address, found.names, new, found.source)",
        "found.rows",
        LANDING,
    ),
    Mutant(
        "forget_landing_counts_again",
        "lake/privacy/landed.py",
        'if most != content["rows"]:',
        "if True:",
        LANDING,
    ),
    Mutant(
        "forget_landing_counts_what_is_left",
        "lake/privacy/landed.py",
        'max(count, content["rows"].get(str(day), 0))',
        "count",
        "tests/lake/privacy/test_landed.py",
    ),
    Mutant(
        "forget_every_request_is_the_first",
        LISTED,
        "by_user.get(listed.hash_of(user)) == request",
        "listed.hash_of(user) in by_user",
        "tests/lake/privacy/test_landed.py",
    ),
    Mutant("forget_landing_loses_quotes", "jobs/landing_users.py", 'in {"", *users.ids}', 'not in {"-"}', LANDING),
    Mutant(
        "forget_landing_unfinished",
        "jobs/landing_users.py",
        "        fs.mv(place, storage.filesystem(file)[1])\n",
        "",
        LANDING,
    ),
    Mutant(
        "forget_current_generation_alone",
        "lake/serving/forget.py",
        "select generation from {s}.generations order by",
        "select generation from {s}.pointer order by",
        STORE,
    ),
    Mutant(
        "forget_store_counts_them",
        "lake/serving/forget.py",
        "set users = users - %s",
        "set users = users - 0 * %s",
        STORE,
    ),
    # -- logs and retention
    Mutant(
        "log_keeps_texts",
        LOGS,
        "for column, value in of.items() if column in times}",
        "for column, value in of.items()}",
        LOG,
    ),
    Mutant("log_keeps_checkpoints", LOGS, '".checkpoint" in name and name.endswith(".parquet")', "False", LOG),
    Mutant("log_forgets_times", LOGS, '"timestamp", "timestamp_ntz", "date"', '"timestamp_ntz", "date"', LOG),
    Mutant(
        "log_dry_run_writes",
        LOGS,
        "            if not dry_run:\n                storage.write_bytes(storage.join(log, name), new.encode())",
        "            storage.write_bytes(storage.join(log, name), new.encode())",
        LOG,
    ),
    Mutant("retention_young_go", RETENTION, " if file.written < moment.timestamp() * 1000]", "]", KEPT),
    Mutant(
        "retention_last_day_goes",
        RETENTION,
        "old = [day for day in sizes if day < first]",
        "old = [day for day in sizes if day <= first]",
        KEPT,
    ),
    Mutant("retention_first_day_goes", RETENTION, "day < str(first)", "day <= str(first)", KEPT),
    Mutant(
        "retention_before_the_history",
        RETENTION,
        "if config.keep_events_days < config.history_days:",
        "if False:",
        KEPT,
    ),
    Mutant(
        "retention_retries_inside_delta",
        RETENTION,
        "max_commit_retries=0",
        "max_commit_retries=5",
        KEPT,
        harmless="delta-rs refuses a commit that removes a file twice; what others add is ended by the next upkeep",
    ),
    # -- small groups
    Mutant(
        "groups_by_expected_users",
        "dags/page/flows.py",
        "small = flows.members < least",
        "small = flows.users < least",
        "tests/dags/page/test_flows.py",
    ),
    Mutant(
        "groups_added_up",
        "dags/page/flows.py",
        "kept = ~small | has_large",
        "kept = small | ~small",
        "tests/dags/page/test_flows.py",
    ),
    Mutant(
        "groups_told_by_what_is_left",
        "dags/page/flows.py",
        "    added[firsts] = True\n",
        "",
        "tests/dags/page/test_flows.py",
    ),
    Mutant(
        "groups_with_the_largest",
        "dags/page/flows.py",
        "-flows.users, flows.members, flows.target != rest,",
        "-flows.users, -flows.members, flows.target != rest,",
        "tests/dags/page/test_flows.py",
    ),
    Mutant(
        "groups_beside_any_other",
        "dags/page/flows.py",
        "flows.members, flows.target != rest, small",
        "flows.members, small",
        "tests/dags/page/test_flows.py",
    ),
    Mutant(
        "groups_count_members_twice",
        "dags/page/flows.py",
        "np.maximum.at(members",
        "np.add.at(members",
        "tests/dags/page/test_flows.py",
    ),
    Mutant(
        "groups_shown",
        "dags/page/views.py",
        "least = known_settings().min_group",
        "least = 1",
        "tests/dags/page/test_views.py",
    ),
    # -- one form, and other spellings
    Mutant(
        "one_form_above_the_first_accents_alone",
        "jobs/rejections.py",
        r"[^\x00-\x{2FF}]",
        r"[^\x00-\x{36F}]",
        "tests/jobs/test_one_form.py",
    ),
    Mutant(
        "one_form_of_few_texts",
        "jobs/rejections.py",
        "in_one_form(F.trim(text, F.lit(SURROUNDING)))",
        "F.trim(text, F.lit(SURROUNDING))",
        "tests/jobs/test_one_form.py",
    ),
    Mutant(
        "forget_in_one_form_of_a_table",
        MATCHING,
        "for form in (user, decomposed(user)))",
        "for form in (user,))",
        LANDING,
    ),
    Mutant("forget_no_numbers_of_java", MATCHING, "            as_fraction,\n", "", LANDING),
    Mutant("forget_no_fractions", "jobs/landing_users.py", "pa.types.is_floating(ids.type)", "False", LANDING),
    Mutant(
        "header_of_a_row",
        "jobs/drift.py",
        "return list(names) if are_names(names) else []",
        "return list(names)",
        "tests/jobs/test_drift.py",
    ),
    Mutant(
        "header_order_is_nothing",
        "jobs/drift.py",
        "if stayed != [name for name in before if name in now]:",
        "if False:",
        "tests/jobs/test_drift.py",
    ),
    Mutant(
        "audit_any_key_of_pseudonyms",
        "expectations/events.py",
        'rf"^{staged.key_id}-[0-9a-f]{{32}}\\z"',
        'r"^[0-9a-f]{8}-[0-9a-f]{32}\\z"',
        "tests/expectations/test_events.py",
    ),
]
