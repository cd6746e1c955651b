"""Forget users: put them on the list, take their rows out of everything below the lake, and say what is left to do.

Each step may be killed and the same command run again: it does what is left, and its receipt has what was done before.
A file that cannot be read ends nothing: all others are written anew, and the receipt names it and is not finished.
docs/decisions/0023 has the reasons.
"""

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from deltalake import DeltaTable

from lake import storage
from lake.compact import live_files
from lake.errors import SettingsInvalid
from lake.maintenance import data_files
from lake.places import CARD, PLAN, below_lake, models_folder, receipt_file, registry_folder, table_path
from lake.privacy.folders import DISTINCT, Found, distinct, redact_messages, remove_pages, search, search_below
from lake.privacy.forgotten import list_users
from lake.privacy.logs import LOG
from lake.privacy.matching import NamedUsers, Whose, mentions, rows_of
from lake.privacy.rewriting import FileUnreadable, reading
from lake.privacy.tables import Cleaned, Progress, Unread, forget_in_table, tables_with_files
from lake.schemas import TABLES
from lake.summaries import KEPT_BLOCKS, remove_summaries, unneeded
from lake.text import composed, is_usable_id

log = logging.getLogger(__name__)

# The texts of a table that people typed, in which one user may have written the id of another.
TYPED = {"events": ("query",), "sessions": ("events",), "quarantine": ("raw",)}


@dataclass(frozen=True)
class Left:
    """Something that is left to do: what, by whom, and until when; empty where nobody can say."""

    what: str
    by: str
    until: str = ""


@dataclass
class Done:
    """What was done in one place: files rewritten, rows removed, files removed."""

    where: str
    files: int = 0
    rows: int = 0
    removed: int = 0
    note: str = ""


@dataclass
class Receipt:
    """What was done to forget some users, and what is left to do. It has no id of a user.

    Attributes:
        request: its name, the same for the same users.
        users: how many.
        finished: when the last call ended, UTC, ISO 8601; empty as long as `unread` names a file.
        done: by place.
        models: trainings and registered models that have learned from rows of theirs.
        left: what is left to do.
        unread: files of readers and of trainings that cannot be read, and may have rows of theirs.
    """

    request: str
    users: int
    finished: str = ""
    done: list[Done] = field(default_factory=list)
    models: list[dict[str, Any]] = field(default_factory=list)
    left: list[Left] = field(default_factory=list)
    unread: list[Unread] = field(default_factory=list)


# A place outside the lake: forgets some users there, and says what was done and what is left.
Elsewhere = Callable[[NamedUsers], tuple[list[Done], list[Left]]]


@dataclass(frozen=True)
class Places:
    """What differs between lakes.

    Attributes:
        docs: the folder of data docs.
        alerts: the folders with alerts.
        logs: folders that are searched, and not changed.
        retention: after which upkeep removes what nobody needs.
        whose: says whose a rejected row is.
        elsewhere: by name, what is no file of the lake: the serving store, the landing.
        at_last: what may be done only when no table may have rows of theirs any more.
        log_files: single files that are searched as `logs` are.
    """

    docs: str
    alerts: Sequence[str]
    logs: Sequence[str]
    retention: timedelta
    whose: Whose | None = None
    elsewhere: Sequence[Elsewhere] = ()
    at_last: Elsewhere | None = None
    log_files: Sequence[str] = ()


def as_in_lake(user: str) -> str:
    """Return the id that the lake has of a user; the one place to resolve another one, such as that of the shop.

    Raises:
        SettingsInvalid: no event can have this id.
    """
    user = composed(user.strip(" "))
    if not user or not is_usable_id(user):
        raise SettingsInvalid(
            "meander forget needs the id of a user as events have it, received "
            f"{'an empty one' if not user else f'one of {len(user)} characters that no event can have'}; "
            "give one id, or a file with one id in each line"
        )
    return user


def forget(users: Collection[str], places: Places, progress: Progress = log.info) -> Receipt:
    """Forget some users everywhere, and return the receipt, which is also kept in the lake.

    Args:
        users: their ids, as `as_in_lake` returns them.
        places: where else to look, beside the lake of the settings.
        progress: is told of each step.

    Raises:
        CommitContended: other commits came first, 50 times in a row; run it again.
    """
    named = NamedUsers(frozenset(users))
    # First the list: a run that begins from now on does not take them in again.
    receipt = Receipt(list_users(named.ids), len(named.ids))
    progress("listed")
    cleaned = {}
    # A table after those that it is made from: what is computed later has read those without these users.
    for name, path in tables_with_files():
        chosen = rows_of(name, distinct(named) if name == "audits" else named, places.whose)
        cleaned[name] = forget_in_table(name, path, chosen, receipt.request, places.retention, progress)
        receipt.done.append(done_in(cleaned[name]))
        receipt.left += left_in(cleaned[name], named)
        receipt.unread += cleaned[name].damaged
    # Those with rows of theirs were made from files that are gone now, or cannot be read. A run that has begun before,
    # and writes one from now on, finds the commit to `events`, and removes it again.
    unread = {each.file for each in receipt.unread if each.table == "events"}
    known = "events" in cleaned and cleaned["events"].has_log
    events = data_files(table_path("events")).keys() - unread if known else set[str]()
    for kind in KEPT_BLOCKS:
        old = unneeded(kind, events, datetime.now(UTC), unnamed=False)
        remove_summaries(kind, old)
        receipt.done.append(Done(f"summaries: {kind}", removed=len(old)))
        progress(f"summaries: {kind} removed")
    removed, unsearched = remove_pages(places.docs, distinct(named))
    receipt.done.append(Done("data docs", removed=removed))
    progress("data docs removed")
    for folder in places.alerts:
        redacted, of_folder = redact_messages(folder, distinct(named))
        receipt.done.append(Done(f"alerts in {folder}", files=redacted))
        unsearched |= of_folder
    progress("alerts redacted")
    # Before the last of the places, after which a user may be known by no name.
    receipt.models = models_of(cleaned)
    at_last = [places.at_last] if places.at_last and not receipt.unread else []
    for place in (*places.elsewhere, *at_last):
        done, left = place(named)
        receipt.done += done
        receipt.left += left
        progress("elsewhere")
    receipt.left += left_to_people(named, receipt.models, places, unsearched)
    if not receipt.unread:
        receipt.finished = datetime.now(UTC).isoformat(timespec="seconds")
    storage.write_json(receipt_file(receipt.request), asdict(receipt))
    progress("receipt written")
    return receipt


def done_in(cleaned: Cleaned) -> Done:
    """Return what was done in a table."""
    notes = []
    if cleaned.before_version:
        notes.append(
            f"versions before {cleaned.before_version} can no longer be opened in whole by other readers; those that "
            "a training or a model has pinned are read from the new files"
        )
    if cleaned.stagings:
        notes.append(f"{cleaned.stagings} unpublished stagings written anew")
    if cleaned.logs:
        notes.append(f"texts taken out of {cleaned.logs} files of the log")
    if any(each.file == LOG for each in cleaned.damaged):
        notes.append("nothing was done: its log cannot be read")
    elif not cleaned.has_log:
        notes.append("nothing was published: the publish of what is staged leaves the rows out")
    return Done(cleaned.table, cleaned.files, cleaned.rows, cleaned.removed, "; ".join(notes))


def left_in(cleaned: Cleaned, users: NamedUsers) -> list[Left]:
    """Return what is left to do in a table."""
    left = []
    if cleaned.pending:
        left.append(
            Left(
                f"{cleaned.table}: {len(cleaned.pending)} files of stagings that are being written, wait to be "
                "published, or were given up; their publish leaves the rows out, or lake.upkeep removes them",
                "upkeep_weekly",
                max(cleaned.pending.values()),
            )
        )
    for file, error in cleaned.unread.items():
        what = f"{cleaned.table}: {file} cannot be read ({error}), and may have rows of theirs"
        who = "a run that is writing it leaves them out, or lake.upkeep removes it"
        again = "if it was the rights or the connection, run this command again"
        left.append(Left(f"{what}: {who}; {again}", "upkeep_weekly"))
    left += [Left(cannot_be_read(each), "you") for each in cleaned.damaged]
    if cleaned.table in TYPED and cleaned.has_log:
        found, unsearched = typed_elsewhere(cleaned.table, distinct(users))
        if found:
            left.append(
                Left(f"{cleaned.table}: {found} rows of other users whose texts have such an id", "you: decide")
            )
        known = {each.file for each in cleaned.damaged}
        left += [Left(f"{cleaned.table}: texts of {file} cannot be read", "you") for file in unsearched - known]
    return left


def cannot_be_read(each: Unread) -> str:
    """Say of a file that may have rows, or ids, of the users what it is, and what to do."""
    otherwise = "otherwise put it back from a copy"
    if each.file == LOG:
        what = f"{LOG} cannot be read ({each.error}), so no file of the table was searched"
    elif each.file.startswith(LOG):
        what = f"{each.file} cannot be read ({each.error}), and may have ids of theirs"
        # A commit is needed by all that asks what was published; a checkpoint only repeats what commits say.
        if ".checkpoint" in each.file:
            otherwise += ", or remove it, if there is a newer one"
    else:
        what = f"{each.file} of {each.day or 'no date'} cannot be read ({each.error}), and may have rows of theirs"
        if each.is_newest:
            otherwise += ", or have its date published anew"
        else:
            otherwise += ", or remove the training or model that has pinned its version"
    return (
        f"{each.table}: {what}: see to the rights or the connection, if it is that; {otherwise}; then run this command "
        "again"
    )


def typed_elsewhere(table: str, users: NamedUsers) -> tuple[int, set[str]]:
    """Count the rows of other users in whose queries, or rejected rows, one of the ids stands.

    Returns:
        how many, and the files that cannot be read.
    """
    if not users.ids:
        return 0, set()
    path = table_path(table)
    found, unread = 0, set()
    for file in live_files(DeltaTable(path)):
        try:
            with reading(file.path), storage.parquet_file(storage.join(path, file.path)) as opened:
                for batch in opened.iter_batches(columns=list(TYPED[table])):
                    found += mentions(batch, users, TYPED[table])
        except (FileUnreadable, FileNotFoundError):
            unread.add(file.path)
    return found, unread


def models_of(cleaned: dict[str, Cleaned]) -> list[dict[str, Any]]:
    """Return the trainings and models that have read rows of the users: their plans have dates of removed rows."""
    dates = {name: set(table.dates) for name, table in cleaned.items()}
    found = []
    for root, name in ((models_folder(), PLAN), (registry_folder(), CARD)):
        for file in storage.list_files(root):
            if file.rsplit("/", 1)[-1] != name:
                continue
            content = storage.read_json(storage.join(root, file)) or {}
            days = {
                "examples": [*content.get("train", []), *content.get("valid", []), *content.get("test", [])],
                "interests": content.get("pretrain", []),
            }
            shared = {day for table, of in days.items() for day in of if day in dates.get(table, ())}
            if shared:
                found.append(
                    {"file": storage.join(root, file), "run_id": content.get("run_id", ""), "dates": sorted(shared)}
                )
    return found


def left_to_people(
    users: NamedUsers, models: list[dict[str, Any]], places: Places, unsearched: dict[str, str]
) -> list[Left]:
    """Return what only people can do, with the files in which an id still stands, or that could not be searched."""
    left = []
    if models:
        left.append(
            Left(
                f"{len(models)} plans and cards of models that have learned from their rows: train again", "you: decide"
            )
        )
    left.append(
        Left(
            "numbers over all users, such as popularity in the labels of other users, findings of days and "
            "vocabularies, were computed with them and stay; the next run of each computes them without",
            "the runs to come",
        )
    )
    left.append(
        Left(
            "copies that are not below the lake: backups, old versions of an object store's bucket, logs on other "
            "machines, MLflow's database",
            "whoever keeps them",
        )
    )
    distinct_ones = distinct(users)
    if len(distinct_ones.ids) < len(users.ids):
        left.append(
            Left(
                f"ids of fewer than {DISTINCT} characters cannot be told from other words: no text was searched "
                "for them",
                "you: look through data docs, alerts and logs",
            )
        )
    # The rows of tables have been looked through.
    tables = tuple(f"{name}/" for name in (*TABLES, "audits"))
    folders = [(below_lake(), tables), *((storage.join(table_path(name), "_delta_log"), ()) for name in TABLES)]
    found = Found()
    for folder, beside in (*folders, *((folder, ()) for folder in places.logs)):
        found.add(search_below(folder, distinct_ones, beside))
    found.add(search(places.log_files, distinct_ones))
    left += [Left(f"the id stands in {file}", "you: remove it, or the file") for file in found.files]
    left += [Left(f"{file} {why}", "whoever may") for file, why in (unsearched | found.unsearched).items()]
    return left
