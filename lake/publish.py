"""Publish what a run staged: one Delta commit a table, if its audit passed. No Spark.

    python -m lake.publish --table quarantine --table events --run-id R

A commit replaces exactly the partitions that the run owns. Every owned partition carries a *basis*, a number that says
what it was computed from: the version of `events` that was read, or, for what comes from landing files, the number of
the staging (lake/order.py). A partition is never replaced by one of an older basis, nor, of the same basis, by that of
an older staging: the newer one already contains what the older knew, so it is kept and the older is refused. Hence runs
may publish in any order, or at once, and all orders end in the same tables; docs/decisions/0003 has the argument.
"""

import argparse
import json
import logging
import random
import time
from datetime import UTC, date, datetime
from typing import Any

from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake import Schema as DeltaSchema
from deltalake.exceptions import CommitFailedError
from deltalake.transaction import AddAction, RemoveAction

from lake import storage
from lake.errors import CommitContended, PublishRefused, run_main
from lake.order import FIRST
from lake.places import staged_folder, table_path
from lake.schemas import TABLES
from lake.staging import Staged, Verdict, partition_of, read_staged, verdict_on
from lake.table import WHOLE_LOG, Table, create_missing

log = logging.getLogger(__name__)

ATTEMPTS = 20


def publish(table: str, run_id: str) -> dict[str, Any]:
    """Make what run `run_id` staged for `table` the rows that readers see.

    Of several stagings of the run, the newest counts. Publishing the same one again changes nothing.

    Returns:
        what readers see of it: table, run_id, version, rows, partitions, refused (days of which they see newer rows),
        verdict, docs, and already (true when an earlier call had published it).

    Raises:
        NotStaged: the run has staged nothing for this table.
        PublishRefused: it was not audited since it was last staged, failed its audit, or its files are gone.
        CommitContended: other publishes won the commit 20 times in a row.
    """
    staged = read_staged(table, run_id)
    verdict = require_passed(staged)
    ensure_table(table)
    for attempt in range(ATTEMPTS):
        current = Table(table)
        refused = [day for day in staged.owns if is_newer(current, day, staged)]
        if is_published(current, staged):
            return report(staged, verdict, current.version, refused, already=True)
        require_files(current, staged)
        replaced = [day for day in staged.owns if day not in refused]
        try:
            commit(current.delta, staged, verdict, replaced, refused)
        except CommitFailedError:
            # Another publish was first. Look again: it may have made some of our partitions old.
            time.sleep(random.uniform(0, 0.1 * (attempt + 1)))
            continue
        if refused:
            days = ", ".join(map(str, refused))
            log.warning("%s: kept %s, of which readers see newer rows than those of run %r", table, days, run_id)
        # Without retries inside delta-rs, a commit that succeeds is the one after the version that was looked at.
        return report(staged, verdict, current.version + 1, refused, already=False)
    raise CommitContended(
        f"{table}: other publishes won {ATTEMPTS} times; nothing of run {run_id!r} is visible, try again"
    )


def require_passed(staged: Staged) -> Verdict:
    """Return the verdict on this very staging.

    Raises:
        PublishRefused: there is none, or it is not good enough.
    """
    verdict = verdict_on(staged)
    name = f"{staged.table} of run {staged.run_id!r}"
    if verdict is None:
        raise PublishRefused(f"{name} has not been audited since it was staged; run expectations.audit, then publish")
    if verdict.verdict == "failed":
        raise PublishRefused(f"{name} failed its audit: {'; '.join(verdict.failed)}; readers keep what they had")
    return verdict


def is_newer(current: Table, day: date, staged: Staged) -> bool:
    """Tell whether what readers see of a day is newer than what was staged for it."""
    basis = current.basis(day) or 0
    if basis != staged.basis:
        return basis > staged.basis
    return (current.delta.transaction_version(f"staged={day}") or 0) > staged.order


def is_published(current: Table, staged: Staged) -> bool:
    """Tell whether a run has published this staging, or a newer one of its own.

    Raises:
        PublishRefused: clocks alone say so, by which stagings were ordered before they had numbers.
    """
    published = current.delta.transaction_version(f"run={staged.run_id}") or 0
    if published < staged.order:
        return False
    if published >= FIRST or any(commit["stage_id"] == staged.stage_id for commit in current.commits()):
        return True
    raise PublishRefused(
        f"{staged.table} of run {staged.run_id!r} was staged by a clock that was behind the one of what the run has "
        "published; nobody can say which is newer: run the stage step again"
    )


def given_up(stage_id: str) -> str:
    """Return the name of the transaction by which upkeep gives a staging up in the log, before it removes its files."""
    return f"given-up={stage_id}"


def require_files(current: Table, staged: Staged) -> None:
    """Check that the staged files are still there: upkeep removes those of a run that was given up.

    Raises:
        PublishRefused: some are gone; a commit that names them would break the table for every reader.
    """
    folder = staged_folder(staged.table, staged.stage_id)
    removed = current.delta.transaction_version(given_up(staged.stage_id)) is not None
    there = storage.list_files(folder) if staged.files and not removed else {}
    gone = [file.path for file in staged.files if file.path.split("/", 1)[1] not in there]
    if gone:
        raise PublishRefused(
            f"{len(gone)} files that run {staged.run_id!r} staged for {staged.table} are gone, the first is {gone[0]}: "
            "upkeep removes them MEANDER_RETENTION_DAYS after staging; run the stage step again"
        )


def ensure_table(table: str) -> None:
    """Create the empty Delta table the first time."""
    spec = TABLES[table]
    create_missing(
        table_path(table),
        DeltaSchema.from_json(spec.schema.json()),
        partition_by=list(spec.partition_by),
        name=table,
        description=spec.meaning,
        configuration=WHOLE_LOG,
    )


def commit(delta: DeltaTable, staged: Staged, verdict: Verdict, replaced: list[date], refused: list[date]) -> None:
    """Replace the partitions `replaced` by the staged files that belong to them, in one commit."""
    spec = TABLES[staged.table]
    mine = {str(day) for day in replaced}
    actions: list[AddAction | RemoveAction] = []
    for file in staged.files:
        values = partition_of(file.path)
        if values[spec.owned_by] in mine:
            stats: dict[str, Any] = {"numRecords": file.rows}
            if file.times:
                stats["minValues"] = {column: first for column, (first, _) in file.times.items()}
                stats["maxValues"] = {column: last for column, (_, last) in file.times.items()}
            actions.append(AddAction(file.path, file.bytes, values, int(time.time() * 1000), True, json.dumps(stats)))
    metadata = {
        "run_id": staged.run_id,
        "stage_id": staged.stage_id,
        "order": staged.order,
        "first": str(staged.first),
        "last": str(staged.last),
        "rows": staged.rows,
        "published_rows": rows_without(staged, refused),
        "counts": staged.counts,
        "inputs": staged.inputs,
        "verdict": verdict.verdict,
        "docs": verdict.docs,
        "refused": [str(day) for day in refused],
        "started": staged.started,
        "stage_seconds": staged.seconds,
        "audit_seconds": verdict.seconds,
        "published": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    delta.create_write_transaction(
        actions,
        "overwrite" if replaced else "append",
        delta.schema(),
        list(spec.partition_by),
        partition_filters=[(spec.owned_by, "in", sorted(mine))] if replaced else None,
        commit_properties=CommitProperties(
            custom_metadata={
                key: value if isinstance(value, str) else json.dumps(value) for key, value in metadata.items()
            },
            # delta-rs may not retry for us: what we are allowed to replace has to be looked at again each time.
            max_commit_retries=0,
            app_transactions=[
                Transaction(f"run={staged.run_id}", staged.order),
                *(Transaction(f"{spec.owned_by}={day}", staged.basis) for day in replaced),
                # Of stagings that a number is the basis of, no two have the same.
                *(Transaction(f"staged={day}", staged.order) for day in replaced if staged.basis != staged.order),
            ],
        ),
    )


def report(staged: Staged, verdict: Verdict, version: int, refused: list[date], *, already: bool) -> dict[str, Any]:
    """Say what a publish did, for the log, for Airflow's asset events and for people; refused days are not counted."""
    return {
        "table": staged.table,
        "run_id": staged.run_id,
        "version": version,
        "rows": rows_without(staged, refused),
        "partitions": len(staged.owns) - len(refused),
        "refused": [str(day) for day in refused],
        "verdict": verdict.verdict,
        "docs": verdict.docs,
        "already": already,
    }


def rows_without(staged: Staged, refused: list[date]) -> int:
    """Count the staged rows that lie on other days than the refused ones."""
    owned_by, kept = TABLES[staged.table].owned_by, {str(day) for day in refused}
    return sum(file.rows for file in staged.files if partition_of(file.path)[owned_by] not in kept)


def main(argv: list[str] | None = None) -> None:
    """Publish one table, or several in the order given, and print a JSON line for each."""
    parser = argparse.ArgumentParser(prog="lake.publish", description="Commit what a run staged, if its audit passed.")
    parser.add_argument(
        "--table",
        action="append",
        required=True,
        choices=TABLES,
        metavar="TABLE",
        help="a table of docs/tables.md; may be repeated",
    )
    parser.add_argument("--run-id", required=True, help="the run that staged")
    args = parser.parse_args(argv)
    for table in args.table:
        print(json.dumps(publish(table, args.run_id)))  # noqa: T201  the answer, for a machine to read


if __name__ == "__main__":
    run_main(main)
