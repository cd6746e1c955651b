"""Wrong changes to what a source may say, to what is said of one that does not fit, and to what was agreed of files."""

from tests.mutants.mutant import Mutant

REMEDY, FIRST_SOURCE = "tests/jobs/test_remedy.py", "tests/jobs/test_first_source.py"
FITS = f"{REMEDY}::test_the_diff_of_the_doctor_makes_the_source_fit_the_files"
DOUBT = f"{REMEDY}::test_what_is_not_certain_is_left_to_people"
CONTRACT = "tests/jobs/test_contract.py"
ANY_LOG, ITEMS = "tests/jobs/test_any_log.py", "tests/jobs/test_item_table.py"
INGEST = "tests/jobs/test_ingest.py"
USERS = f"{INGEST}::test_a_user_with_an_unusual_share_of_the_events_of_a_day_is_told_without_its_name"
FIRST_DAY = (
    f"{CONTRACT}::test_the_first_day_is_compared_with_what_was_agreed_before_it_and_what_differs_is_kept_with_it"
)
PSEUDONYMS = f"{CONTRACT}::test_with_pseudonyms_a_column_that_nobody_agreed_on_and_nobody_reads_is_not_named"

MUTANTS = [
    Mutant(
        "remedy_keeps_guesses_without_need",
        "jobs/remedy.py",
        "        if trial.fits(applied(text, others)):\n            edits = others\n",
        "",
        f"{FITS}[separator-not-the-encoding]",
    ),
    Mutant(
        "remedy_takes_what_fits_in_two_ways",
        "jobs/remedy.py",
        "if other is None or not is_better(reason, found, other[1]):",
        "if True:",
        f"{DOUBT}[thousands-or-a-fraction]",
    ),
    Mutant(
        "remedy_days_for_months",
        "jobs/remedy.py",
        "if read and not read[2] and",
        "if read and",
        f"{DOUBT}[day-or-month]",
    ),
    Mutant(
        "remedy_takes_one_of_two_names",
        "jobs/remedy.py",
        "alike[0] if len(alike) == 1 else None",
        "alike[0] if alike else None",
        f"{DOUBT}[two-names-that-are-alike]",
    ),
    Mutant(
        "remedy_of_a_version_in_the_source",
        "jobs/remedy.py",
        '["versions", kinds.index(version), key] if own else [key]',
        "[key]",
        f"{REMEDY}::test_a_change_of_one_version_of_a_source_is_written_into_that_version",
    ),
    Mutant(
        "remedy_any_encoding_that_can_be",
        "jobs/remedy.py",
        "            said = USUAL\n",
        "            pass\n",
        f"{FITS}[bytes-that-are-not-UTF-8]",
    ),
    Mutant(
        "sample_end_of_a_short_file_left_out",
        "jobs/file_sample.py",
        "range(4 if len(head) > LINE_BYTES else 1)",
        "range(4)",
        f"{FITS}[bytes-that-are-not-UTF-8]",
    ),
    Mutant(
        "sample_of_a_long_array_ends_with_its_text",
        "jobs/file_sample.py",
        "ROWS, is_cut=is_cut)",
        "ROWS, is_cut=len(text.encode()) > LINE_BYTES)",
        f"{FIRST_SOURCE}::test_of_a_long_array_the_first_rows_are_described",
    ),
    Mutant(
        "sample_an_empty_batch_is_a_row",
        "jobs/file_sample.py",
        'line.strip() not in ("", "[]")',
        "line.strip()",
        f"{FIRST_SOURCE}::test_a_first_line_that_is_an_empty_batch_is_no_row_of_csv",
    ),
    Mutant(
        "remedy_forgets_words_that_were_there",
        "jobs/remedy.py",
        "[*version.nulls, *told]",
        "[*told]",
        f"{FITS}[word-for-no-price]",
    ),
    Mutant(
        "remedy_comment_becomes_the_key",
        "jobs/yaml_edit.py",
        '(not lines[n - 1].strip() or lines[n - 1].lstrip().startswith("#"))',
        "False",
        f"{REMEDY}::test_a_key_that_a_file_has_in_other_lines_is_added_without_a_change_of_them",
    ),
    Mutant(
        "doctor_refused_files_without_a_diff",
        "dags/cli/doctor.py",
        "{error.message}{change(None)}",
        "{error.message}",
        f"{FITS}[separator]",
    ),
    Mutant(
        "contract_of_the_last_day_alone",
        "jobs/contract.py",
        "    for day, of_day in files.items():\n        kinds, lines",
        "    for day, of_day in list(files.items())[-1:]:\n        kinds, lines",
        FIRST_DAY,
    ),
    Mutant(
        "contract_names_what_nobody_agreed_on",
        "jobs/contract.py",
        "    if used_alone or len(seen) > MOST_COLUMNS:",
        "    if len(seen) > MOST_COLUMNS:",
        PSEUDONYMS,
    ),
    Mutant(
        "contract_forgets_agreed_columns_with_pseudonyms",
        "jobs/contract.py",
        "{*columns, *source.used_columns}",
        "{*source.used_columns}",
        PSEUDONYMS,
    ),
    Mutant(
        "contract_is_not_shown_with_the_day",
        "lake/runs.py",
        "    lines += told_of_contract(counts)\n",
        "",
        FIRST_DAY,
    ),
    Mutant(
        "large_user_of_all_days_together",
        "jobs/input_counts.py",
        'by_user = sample.groupBy("landed", "user_id").count()',
        'by_user = sample.groupBy("user_id").agg(F.max("landed").alias("landed"), F.count("*").alias("count"))',
        USERS,
    ),
    Mutant(
        "large_user_of_days_of_few_events",
        "jobs/input_counts.py",
        'if of_day["accepted"] >= EVENTS_TO_JUDGE_USERS}',
        'if of_day["accepted"]}',
        USERS,
    ),
    Mutant(
        "large_user_of_a_sample_of_few",
        "jobs/input_counts.py",
        ' for row in found if row["total"] >= FEWEST_COUNTED}',
        " for row in found}",
        f"{INGEST}::test_of_a_sample_that_is_too_small_no_share_is_told",
    ),
    Mutant(
        "large_user_is_no_warning",
        "expectations/events.py",
        "            LARGE_USER_SHARE,\n            f",
        "            1,\n            f",
        "tests/expectations/test_events.py::test_a_strange_day_warns_beyond_its_limits_and_not_at_them",
    ),
    Mutant(
        "parquet_list_as_spark_shows_it",
        "jobs/raw_rows.py",
        "            if isinstance(whole, ArrayType | MapType | StructType):",
        "            if False:",
        f"{ANY_LOG}::test_the_search_term_of_ga4_is_found_among_the_parameters_of_its_event[parquet]",
    ),
    Mutant(
        "time_in_the_last_format_that_fits",
        "jobs/rejections.py",
        "F.coalesce(*(instant for instant, _ in read))",
        "F.coalesce(*(instant for instant, _ in read[:1]))",
        f"{ANY_LOG}::test_times_of_one_column_are_in_the_first_of_several_formats_that_fits[csv]",
    ),
    Mutant(
        "time_doubt_of_another_format",
        "jobs/rejections.py",
        "doubts = [F.when(instant.isNotNull(), doubtful) for instant, doubtful in read]",
        "doubts = [doubtful for _, doubtful in read]",
        f"{ANY_LOG}::test_times_of_one_column_are_in_the_first_of_several_formats_that_fits[csv]",
    ),
    Mutant(
        "time_numbers_before_patterns",
        "jobs/source.py",
        "[each for each in formats[:-1] if each in time_pattern.EPOCHS]",
        "[]",
        "tests/jobs/test_source.py::test_a_mistake_in_a_version_is_told",
    ),
    Mutant(
        "items_any_of_two_prices",
        "jobs/item_table.py",
        "several = differ[0] | differ[1]",
        "several = differ[0]",
        f"{ITEMS}::test_an_item_with_two_prices_is_refused_and_so_is_a_price_that_is_none",
    ),
    Mutant(
        "items_price_is_not_counted_as_filled",
        "jobs/source.py",
        'field in ("category_id", "price") and getattr(self.items, field, None) is not None',
        'field == "category_id" and self.items is not None',
        f"{ITEMS}::test_a_field_may_be_there_by_a_column_or_by_the_table",
    ),
    Mutant(
        "items_prices_as_those_of_the_log",
        "jobs/source.py",
        '"amounts": self.amounts or of.amounts',
        '"amounts": of.amounts',
        f"{ITEMS}::test_a_row_without_a_price_gets_that_of_its_item_on_the_day_on_which_it_arrived",
    ),
    Mutant(
        "remedy_version_of_the_newest_day_alone",
        "jobs/remedy.py",
        "        since = min(day, since)\n",
        "",
        f"{REMEDY}::test_files_that_are_others_from_a_day_on_get_a_version_of_the_source",
    ),
    Mutant(
        "remedy_version_of_days_that_fit_as_they_are",
        "jobs/remedy.py",
        "        if day < since and (one.fits(text) or not one.fits(changed)):\n            break\n",
        "",
        f"{REMEDY}::test_files_that_are_others_from_a_day_on_get_a_version_of_the_source",
    ),
]
