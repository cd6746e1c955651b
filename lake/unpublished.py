"""What runs have staged and readers do not see: rows that an audit has refused, for a person to look at. No Spark.

Only what a manifest names is read: a staging without one was given up half written, or is being written now. Rows of
users who were forgotten since are left out, as its publish would leave them out.
"""

import json
from collections.abc import Iterator
from contextlib import suppress
from datetime import date
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from lake import storage
from lake.days import days_in_words
from lake.errors import NotStaged
from lake.looking_back import nothing_before
from lake.places import is_manifest, runs_folder, table_path
from lake.privacy.forgotten import ForgottenUsers
from lake.privacy.matching import ListedUsers, rows_of
from lake.publish import is_older
from lake.staging import NO_VALUE, UNREADABLE, Staged, Verdict, parse_staged, partition_of, verdict_on
from lake.table import ROWS_AT_ONCE, Table, stored_columns, with_columns


def rows_by_date(staged: Staged) -> dict[date | None, int]:
    """Return {dt: rows} of a staging, by date; last those without one."""
    totals: dict[date | None, int] = {}
    for file in staged.files:
        day = _partition(file.path)["dt"]
        totals[day] = totals.get(day, 0) + file.rows
    return dict(sorted(totals.items(), key=lambda item: item[0] or date.max))


def head(staged: Staged, day: date | None, limit: int, user_id: str | None = None) -> tuple[list[dict[str, Any]], int]:
    """Return up to `limit` staged rows with dt = `day`, of one user if one is given.

    Returns:
        the rows, and how many rows of forgotten users were left out on the way to them.

    Raises:
        NotStaged: a file is gone.
    """
    listed = ForgottenUsers.read()
    forgotten = rows_of(staged.table, ListedUsers(listed)) if listed.hashes else None
    rows: list[dict[str, Any]] = []
    left_out = 0
    for partition, batch in _batches(staged, day, limit if user_id is None else ROWS_AT_ONCE):
        found = pa.Table.from_batches([batch])
        if user_id is not None:
            found = found.filter(pc.equal(found["user_id"], user_id))
        if forgotten:
            known = found.filter(pc.invert(forgotten.mask(found)))
            left_out += found.num_rows - known.num_rows
            found = known
        rows += [{**row, **partition} for row in found.to_pylist()]
        if len(rows) >= limit:
            break
    return rows[:limit], left_out


def _batches(staged: Staged, day: date | None, size: int) -> Iterator[tuple[dict[str, date | None], pa.RecordBatch]]:
    """Yield the staged rows of a date, at most `size` at once, with the values of the partition columns."""
    stored = stored_columns(staged.table)
    for file in staged.files:
        partition = _partition(file.path)
        if partition["dt"] != day:
            continue
        try:
            with storage.parquet_file(storage.join(table_path(staged.table), file.path)) as opened:
                for batch in opened.iter_batches(batch_size=size):
                    yield partition, with_columns(batch, stored)
        except FileNotFoundError as error:
            raise NotStaged(
                f"{file.path}, which run {staged.run_id!r} staged for {staged.table}, is gone: upkeep removes files "
                "of stagings, and of published rows that were replaced, after MEANDER_RETENTION_DAYS, and `meander "
                "forget` writes them anew; show it again, or run the stage step again"
            ) from error


def _partition(path: str) -> dict[str, date | None]:
    return {
        name: None if value == NO_VALUE else date.fromisoformat(value) for name, value in partition_of(path).items()
    }


def failed_on(verdict: Verdict, day: date) -> bool:
    """Return whether a day that a run owns has failed its audit, or is withheld with one that has."""
    return verdict.of_published == "failed" or str(day) in verdict.withheld


def failed_days(staged: Staged) -> list[date]:
    """Return the days of a staging that have failed its audit; none where it was not audited."""
    verdict = verdict_on(staged)
    return [day for day in staged.owns if failed_on(verdict, day)] if verdict else []


def standing(staged: Staged) -> str:
    """Say what the audit found of a staging, and so whether readers may see it."""
    verdict = verdict_on(staged)
    if verdict is None:
        return "it was not audited, so readers do not see it"
    if verdict.of_published == "failed":
        return "it failed its audit, so readers do not see it"
    if verdict.withheld:
        withheld = days_in_words(map(date.fromisoformat, verdict.withheld))
        return f"{withheld} failed the audit, so readers do not see that of it"
    return f"its audit {verdict.verdict}, so readers see it once it is published"


def refused_by_audit(table: str, first: date | None, last: date | None) -> dict[date, Staged]:
    """Return the stagings that have failed their audit and are newer than what readers see, by day that they own.

    Of each day the newest staging counts, so none of a day that was repaired since, or is being repaired now.

    Args:
        table: its name.
        first: first day that is looked at; no limit when None.
        last: last day that is looked at; no limit when None.
    """
    root = runs_folder()
    listed = storage.list_entries(root, nothing_before(first or date.min))
    names = [name for name in listed if is_manifest(name.rpartition("/")[2], table)]
    newest: dict[date, Staged] = {}
    for text in storage.read_texts(root, names).values():
        # One that cannot be read is told by `meander days`.
        with suppress(*UNREADABLE):
            staged = parse_staged(json.loads(text))
            for day in staged.owns:
                known = newest.get(day)
                if (first or day) <= day <= (last or day) and (known is None or staged.order > known.order):
                    newest[day] = staged
    current = Table.find(table)
    failed = {staged.stage_id: failed_days(staged) for staged in newest.values()}
    return {
        day: staged
        for day, staged in sorted(newest.items())
        if day in failed[staged.stage_id] and (current is None or is_older(current, day, staged))
    }
