"""Wrong changes to what keeps hostile files from their readers: links, names and texts; and what users are left in."""

from tests.mutants.mutant import Mutant

LANDING = "tests/lake/test_landing.py"
USERS = "tests/jobs/test_landing_users.py::test_what_is_no_file_of_its_day_is_named_and_neither_read_nor_written"
ITEMS = "tests/jobs/test_item_table.py"
LOG = "tests/lake/test_errors.py"
NAMES = "tests/jobs/test_raw_rows.py::test_names_of_columns_are_told_as_text_in_one_short_line"
WRITTEN = "tests/jobs/test_first_source.py::test_a_column_of_any_name_is_written_so_that_it_is_read_as_it_is"
FORGET = "tests/lake/privacy/test_forget.py"

MUTANTS = [
    Mutant("hostile_day_is_a_link", "lake/landing.py", "    if leads_out(folder):\n", "    if False:\n", LANDING),
    Mutant(
        "hostile_landing_is_no_link",
        "lake/landing.py",
        ".is_relative_to(os.path.realpath(Path(inner).parent))",
        ".is_relative_to(Path(inner).parent)",
        f"{LANDING}::test_the_landing_itself_may_be_a_link",
    ),
    Mutant(
        "hostile_unlisted_folder_is_empty",
        "lake/landing.py",
        "storage.list_entries(folder, complete=True)",
        "storage.list_entries(folder)",
        LANDING,
    ),
    Mutant(
        "hostile_linked_day_is_searched",
        "jobs/landing_users.py",
        "        if leads_out(folder):\n",
        "        if False:\n",
        USERS,
    ),
    Mutant(
        "hostile_strays_are_not_named",
        "jobs/landing_users.py",
        'unread.append(Left(f"{file} was not searched',
        'str(Left(f"{file} was not searched',
        USERS,
    ),
    Mutant(
        "hostile_damaged_files_stop_forgetting",
        "jobs/landing_users.py",
        "        except UNREADABLE as error:",
        "        except SourceMismatch as error:",
        "tests/jobs/test_landing_users.py",
    ),
    Mutant(
        "hostile_numbers_stop_forgetting",
        "jobs/landing_users.py",
        "for text in short if",
        "for text in numbers if",
        "tests/jobs/test_landing_users.py::test_an_id_is_found_in_parquet_however_ingest_would_read_it",
    ),
    Mutant(
        "hostile_linked_day_is_removed",
        "lake/privacy/retention.py",
        "isinstance(fs, LocalFileSystem) and Path(place).is_symlink()",
        "False",
        "tests/lake/privacy/test_retention.py::test_of_an_old_day_that_is_a_link_only_the_link_goes",
    ),
    Mutant(
        "hostile_items_change_unseen",
        "jobs/ingest.py",
        "[(landing, delivered), *item_deliveries(parts, landing)]",
        "[(landing, delivered)]",
        f"{ITEMS}::test_a_table_that_changes_while_it_is_read_leaves_nothing_that_could_be_published",
    ),
    Mutant(
        "hostile_lines_of_jobs",
        "lake/errors.py",
        "return visible(super().format(record))",
        "return super().format(record)",
        LOG,
    ),
    Mutant(
        "hostile_tracebacks",
        "lake/errors.py",
        '        logging.getLogger("meander").exception("unexpected")\n        sys.exit(1)\n',
        "        raise\n",
        LOG,
    ),
    Mutant(
        "hostile_names_of_parquet",
        "jobs/landing_files.py",
        "found {in_a_line(schema.names)}",
        "found {', '.join(schema.names)}",
        NAMES,
    ),
    Mutant("hostile_names_end_the_line", "jobs/landing_files.py", '.replace("\\n", "\\\\n")\n', "\n", NAMES),
    Mutant(
        "hostile_answers",
        "dags/cli/source.py",
        'named = {visible(answer) or "none"',
        'named = {answer or "none"',
        "tests/dags/cli/test_source.py::test_a_column_of_any_name_is_shown_as_text_and_can_be_answered",
    ),
    Mutant(
        "hostile_text_in_a_chat",
        "dags/shared/alerts.py",
        '"text": for_chat(text)}',
        '"text": text}',
        "tests/dags/shared/test_alerts.py::test_a_name_of_a_file_calls_nobody_in_a_chat_and_is_no_link_there",
    ),
    Mutant(
        "hostile_ends_of_lines_in_yaml",
        "jobs/yaml_file.py",
        "style=None if text.isprintable() else '\"'",
        "style=None",
        WRITTEN,
    ),
    Mutant(
        "hostile_packed_arrays",
        "model/federated.py",
        "if part.compress_type != zipfile.ZIP_STORED]",
        "if False]",
        "tests/model/test_federated.py::test_arrays_of_anybody_are_refused_with_what_is_wrong_with_them",
    ),
    Mutant(
        "hostile_tracebacks_of_the_command",
        "dags/cli/main.py",
        '        err.print(traceback.format_exc(), soft_wrap=True, end="")\n',
        "        traceback.print_exc()\n",
        "tests/dags/cli/test_main.py::test_an_error_of_another_kind_is_shown_as_text_too",
    ),
    Mutant(
        "forget_typed_rejected_rows",
        "lake/privacy/forget.py",
        ', "quarantine": ("raw",)}',
        "}",
        f"{FORGET}::test_what_other_users_typed_is_theirs_and_counted",
    ),
    Mutant(
        "forget_single_logs",
        "lake/privacy/forget.py",
        "[file for file in places.log_files if",
        "[file for file in () if",
        f"{FORGET}::test_where_an_id_still_stands_is_told",
    ),
    Mutant(
        "forget_short_ids_in_logs",
        "lake/privacy/forget.py",
        "if searched.ids and file_has_id(file, searched)",
        "if file_has_id(file, searched)",
        f"{FORGET}::test_where_an_id_still_stands_is_told",
    ),
    Mutant(
        "forget_copies_for_training",
        "dags/cli/forget.py",
        "for folder, what in there.items() if folder.is_dir()",
        "for folder, what in there.items() if folder.is_file()",
        "tests/dags/cli/test_forget.py::test_the_logs_and_copies_of_this_machine_are_looked_at",
    ),
]
