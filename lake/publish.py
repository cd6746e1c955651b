"""Publish what a run staged: one Delta commit a table, if its audit passed. No Spark.

    python -m lake.publish --table quarantine --table events --run-id R

A commit replaces exactly the partitions that the run owns. Every owned partition carries a *basis*, a number that says
what it was computed from: the version of `events` that was read, or, for what comes from landing files, the number of
the staging (lake/order.py). A partition is never replaced by one of an older basis, nor, of the same basis, by that of
an older staging: the newer one already contains what the older knew, so it is kept and the older is refused. Hence runs
may publish in any order, or at once, and all orders end in the same tables; docs/decisions/0003 has the argument.

A day of a run that has failed its audit is *withheld*: the others are published, and it is kept as it was, like one
that is refused (docs/decisions/0036).
"""

import json
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake import Schema as DeltaSchema
from deltalake.transaction import AddAction, RemoveAction

from lake import storage
from lake.arguments import parser_of_tables
from lake.commits import until_first
from lake.days import days_in_words
from lake.deliveries import all_read_by, require_no_loss
from lake.errors import AuditFailed, PublishRefused, SchemaMismatch, run_main
from lake.order import FIRST
from lake.places import staged_folder, table_path
from lake.privacy.forgotten import ForgottenUsers, noted
from lake.privacy.matching import ListedUsers, rows_of
from lake.privacy.rewriting import rewrite
from lake.pseudonyms import TRANSACTION, require_key, to_number
from lake.schemas import TABLES
from lake.settings import settings
from lake.staging import Staged, StagedFile, Verdict, partition_of, read_again, read_staged, read_verdict, verdict_on
from lake.table import FORGOTTEN, WHOLE_LOG, Table, create_once

log = logging.getLogger(__name__)


def publish(table: str, run_id: str) -> dict[str, Any]:
    """Make what run `run_id` staged for `table` the rows that readers see.

    Of several stagings of the run, the newest counts. Publishing the same one again changes nothing.

    Returns:
        what readers see of it: table, run_id, version, rows, partitions, refused (days of which they see newer rows),
        withheld (days that failed the audit), verdict (on the days that were published), docs, and already (true when
        an earlier call had published it).

    Raises:
        NotStaged: the run has staged nothing for this table.
        PublishRefused: it was not audited since it was last staged, failed its audit, or its files are gone; or it was
            published without a day that an audit lets through since.
        TableUnreadable: the log of the table, or of the list of forgotten users, is gone.
        PseudonymsDiffer: the published rows have users by another key.
        DeliveryShrunk: of a landing day, readers see files or rows that this run has not found.
        CommitContended: other publishes came first 50 times in a row.
        SchemaMismatch: lake/schemas.py no longer has what is published, see `schema_after`.
    """
    staged = read_staged(table, run_id)
    verdict = require_passed(staged)
    ensure_table(table)
    return until_first(
        lambda: publish_as_seen_now(staged, verdict),
        f"{table}: other publishes",
        f"nothing of run {run_id!r} is visible, try again",
    )


def publish_as_seen_now(staged: Staged, verdict: Verdict) -> dict[str, Any]:
    """Publish a staging if no other commit comes between the look at the table and this one.

    Raises:
        CommitFailedError: one came; it may have made some of our partitions old.
    """
    current = Table(staged.table)
    # After the table: where users were forgotten, the files of the staging have been written anew meanwhile.
    staged = read_again(staged)
    refused = [day for day in staged.owns if is_newer(current, day, staged)]
    name = f"{staged.table} of run {staged.run_id!r}"
    if is_published(current, staged):
        lacking = lacking_after_publish(current, staged)
        # An audit may run again, with other limits. What it says then changes nothing of what readers see.
        if passed := [day for day in lacking if str(day) not in verdict.withheld]:
            raise PublishRefused(
                f"{name} was published without {days_in_words(passed)}, which failed an audit; one that ran since lets "
                "it through, but a staging is published once: run the stage step again"
            )
        return report(staged, verdict, current.version, refused, lacking, already=True)
    withheld = [day for day in staged.owns if str(day) in verdict.withheld and day not in refused]
    require_key(name, current.key_id, staged.key_id)
    require_files(current, staged)
    staged, replaced_files = without_forgotten(current, staged)
    replaced = [day for day in staged.owns if day not in refused and day not in withheld]
    if not staged.counts.get("allow_shrink"):
        # Looked at when it was staged, and now again: another run may have published more since.
        require_no_loss(current, all_read_by(staged.counts, staged.run_id, staged.order, replaced))
    commit(current.delta, staged, verdict, replaced, withheld)
    if refused:
        days = ", ".join(map(str, refused))
        log.warning("%s: kept %s, of which readers see newer rows than those of it", name, days)
    if withheld:
        log.error("%s: withheld %s, which failed the audit", name, days_in_words(withheld))
    storage.remove_files(current.path, replaced_files)
    # Without retries inside delta-rs, a commit that succeeds is the one after the version that was looked at.
    return report(staged, verdict, current.version + 1, refused, withheld, already=False)


def require_passed(staged: Staged) -> Verdict:
    """Return the verdict on this very staging.

    Raises:
        PublishRefused: there is none, or it is not good enough.
    """
    verdict = verdict_on(staged)
    name = f"{staged.table} of run {staged.run_id!r}"
    if verdict is None:
        raise PublishRefused(f"{name} has not been audited since it was staged; run expectations.audit, then publish")
    if verdict.of_published == "failed":
        raise PublishRefused(f"{name} failed its audit: {'; '.join(verdict.failed)}; readers keep what they had")
    return verdict


def is_newer(current: Table, day: date, staged: Staged) -> bool:
    """Tell whether what readers see of a day is newer than what was staged for it."""
    basis = current.basis(day) or 0
    if basis != staged.basis:
        return basis > staged.basis
    return (current.transaction(f"staged={day}") or 0) > staged.order


def lacking_after_publish(current: Table, staged: Staged) -> list[date]:
    """Return the days of a published staging of which readers see older rows, or none: those that were withheld."""
    # Before stagings had numbers, no day was withheld.
    return [day for day in staged.owns if is_older(current, day, staged)] if staged.order >= FIRST else []


def is_older(current: Table, day: date, staged: Staged) -> bool:
    """Tell whether what readers see of a day is older than what was staged for it; also if they see nothing."""
    basis = current.basis(day)
    if basis is None or basis != staged.basis:
        return basis is None or basis < staged.basis
    # Of stagings that a number is the basis of, no two have the same.
    return staged.basis != staged.order and (current.transaction(f"staged={day}") or 0) < staged.order


def is_published(current: Table, staged: Staged) -> bool:
    """Tell whether a run has published this staging, or a newer one of its own.

    Raises:
        PublishRefused: clocks alone say so, by which stagings were ordered before they had numbers.
    """
    published = current.transaction(f"run={staged.run_id}") or 0
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
    removed = current.transaction(given_up(staged.stage_id)) is not None
    there = storage.list_files(folder) if staged.files and not removed else {}
    gone = [file.path for file in staged.files if file.path.split("/", 1)[1] not in there]
    if gone:
        raise PublishRefused(
            f"{len(gone)} files that run {staged.run_id!r} staged for {staged.table} are gone, the first is {gone[0]}: "
            "upkeep removes them MEANDER_RETENTION_DAYS after staging; run the stage step again"
        )


def without_forgotten(current: Table, staged: Staged) -> tuple[Staged, list[str]]:
    """Return a staging without the rows of users who were forgotten after it had begun, and the files with those rows.

    A staging that began later was computed without them. The log of the table decides which is which, as for given_up:
    a commit that forgets users makes that of a publish fail which has looked at the version before. Of a table that had
    none, the list of forgotten users says it.
    """
    if max(current.delta.transaction_version(FORGOTTEN) or 0, noted(staged.table)) < staged.order:
        return staged, []
    chosen = rows_of(staged.table, ListedUsers(ForgottenUsers.read()))
    new = {file.path: rewrite(staged.table, current.path, file.path, chosen) for file in staged.files}
    files = [made.new if (made := new[file.path]) else file for file in staged.files]
    old = [path for path, made in new.items() if made]
    if old:
        log.warning("%s: left rows of forgotten users out of %d staged files", staged.table, len(old))
    return replace(staged, files=[file for file in files if file]), old


def ensure_table(table: str) -> None:
    """Create the empty Delta table the first time.

    Raises:
        TableUnreadable: there was one, and its log is gone.
    """
    spec = TABLES[table]
    create_once(
        table_path(table),
        DeltaSchema.from_json(spec.schema.json()),
        partition_by=list(spec.partition_by),
        name=table,
        description=spec.meaning,
        configuration=WHOLE_LOG,
    )


def schema_after(table: str, published: DeltaSchema) -> DeltaSchema:
    """Return the schema that a table has after its next publish: that of lake/schemas.py, which may have new columns.

    Of partitions that were published before, readers see null in a new column.

    Raises:
        SchemaMismatch: a published column is gone or has another type, or a new one may not be null.
    """
    declared = DeltaSchema.from_json(TABLES[table].schema.json())
    now = {field.name: field for field in pa.schema(declared.to_arrow())}
    then = {field.name: field for field in pa.schema(published.to_arrow())}
    kept = [(field, now[name]) for name, field in then.items() if name in now]
    problems = [f"{name} {field.type} is gone" for name, field in then.items() if name not in now]
    problems += [f"{old.name} {old.type} has become {new.type}" for old, new in kept if old.type != new.type]
    problems += [f"{name} is new and not nullable" for name, f in now.items() if name not in then and not f.nullable]
    if problems:
        raise SchemaMismatch(
            f"{table} has other published columns than lake/schemas.py: {'; '.join(problems)}. A table keeps its "
            "columns as they are, and new ones have to be nullable; nothing was published"
        )
    return declared


def added(
    file: StagedFile, partition: Mapping[str, str | None], *, data_change: bool, written: int | None = None
) -> AddAction:
    """Return the action that adds a file to a table.

    Args:
        file: the new file.
        partition: its values, as the log has them.
        data_change: whether readers see other rows.
        written: when its rows came into the table, in milliseconds since 1970; now when None. A file that takes the
            place of others has the time of the newest of them, or the age of rejected rows would begin anew.

    The log gets the ends of times alone: those of texts would be ids of users, or whole rejected rows, which nobody
    could take out of it again.
    """
    stats: dict[str, Any] = {"numRecords": file.rows}
    if file.times:
        stats["minValues"] = {column: first for column, (first, _) in file.times.items()}
        stats["maxValues"] = {column: last for column, (_, last) in file.times.items()}
    return AddAction(
        file.path, file.bytes, partition, written or int(time.time() * 1000), data_change, json.dumps(stats)
    )


def commit(delta: DeltaTable, staged: Staged, verdict: Verdict, replaced: list[date], withheld: list[date]) -> None:
    """Replace the partitions `replaced` by the staged files that belong to them, in one commit."""
    spec = TABLES[staged.table]
    mine = {str(day) for day in replaced}
    kept = [day for day in staged.owns if day not in replaced]
    actions: list[AddAction | RemoveAction] = []
    for file in staged.files:
        values = partition_of(file.path)
        if values[spec.owned_by] in mine:
            actions.append(added(file, values, data_change=True))
    metadata = {
        "run_id": staged.run_id,
        "stage_id": staged.stage_id,
        "order": staged.order,
        "first": str(staged.first),
        "last": str(staged.last),
        "rows": staged.rows,
        "published_rows": rows_without(staged, kept),
        "counts": staged.counts,
        "inputs": staged.inputs,
        "key_id": staged.key_id,
        "verdict": verdict.of_published,
        "unmet": sorted(verdict.unmet.keys() - set(verdict.withheld)),
        "docs": verdict.docs,
        # All days that it owns and has not replaced; of these, those that failed their audit.
        "refused": [str(day) for day in kept],
        "withheld": [str(day) for day in withheld],
        "started": staged.started,
        "stage_seconds": staged.seconds,
        "audit_seconds": verdict.seconds,
        "published": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    delta.create_write_transaction(
        actions,
        "overwrite" if replaced else "append",
        # An append does not change the schema.
        schema_after(staged.table, delta.schema()) if replaced else delta.schema(),
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
                Transaction(TRANSACTION, to_number(staged.key_id)),
                *(Transaction(f"{spec.owned_by}={day}", staged.basis) for day in replaced),
                # Of stagings that a number is the basis of, no two have the same.
                *(Transaction(f"staged={day}", staged.order) for day in replaced if staged.basis != staged.order),
            ],
        ),
    )


def report(
    staged: Staged, verdict: Verdict, version: int, refused: list[date], withheld: list[date], *, already: bool
) -> dict[str, Any]:
    """Say what a publish did, for the log, for Airflow's asset events and for people; rows are of published days."""
    return {
        "table": staged.table,
        "run_id": staged.run_id,
        "version": version,
        "rows": rows_without(staged, [*refused, *withheld]),
        "partitions": len(staged.owns) - len(refused) - len(withheld),
        "refused": [str(day) for day in refused],
        "withheld": [str(day) for day in withheld],
        "verdict": verdict.of_published,
        "docs": verdict.docs,
        "already": already,
    }


def rows_without(staged: Staged, days: list[date]) -> int:
    """Count the staged rows that lie on other days than these."""
    owned_by, left_out = TABLES[staged.table].owned_by, {str(day) for day in days}
    return sum(file.rows for file in staged.files if partition_of(file.path)[owned_by] not in left_out)


def require_whole(reports: Iterable[Mapping[str, Any]]) -> None:
    """Check that publishes have withheld no day.

    Args:
        reports: what `publish` has returned, of any tables and runs.

    Raises:
        AuditFailed: some have; all other days are published.
    """
    by_table: dict[str, list[Mapping[str, Any]]] = {}
    for report in reports:
        if report["withheld"]:
            by_table.setdefault(report["table"], []).append(report)
    if by_table:
        raise AuditFailed(f"{'; '.join(map(in_words, by_table.values()))}. All other days are published")


def in_words(reports: Sequence[Mapping[str, Any]]) -> str:
    """Name the days that publishes of one table have withheld, with what broke on the first of them."""
    first = reports[0]
    days = [date.fromisoformat(day) for report in reports for day in report["withheld"]]
    verdict = read_verdict(first["table"], first["run_id"])
    why = verdict.unmet.get(first["withheld"][0], []) if verdict else []
    what = f"{first['table']} of {days_in_words(days, at_most=10)} failed the audit and is not published"
    return f"{what}: {why[0]}" if why else what


def main(argv: list[str] | None = None) -> None:
    """Publish one table, or several in the order given, and print a JSON line for each.

    Raises:
        AuditFailed: all are published, but for days that failed their audit.
        SettingsInvalid: a `MEANDER_*` variable has an invalid value, or is no setting; the lake may be another one.
    """
    args = parser_of_tables("lake.publish", "Commit what a run staged, if its audit passed.").parse_args(argv)
    settings()
    reports = []
    for table in args.table:
        reports.append(publish(table, args.run_id))
        print(json.dumps(reports[-1]))  # noqa: T201  the answer, for a machine to read
    require_whole(reports)


if __name__ == "__main__":
    run_main(main)
