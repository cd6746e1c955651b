"""The log of a table without texts of its rows: of the least and greatest values, only those of times stay.

Statistics of texts are ids, queries and whole rejected rows, in a log that is kept for a hundred years. Nothing here
writes them today, but compactions of earlier versions did, and so do other tools. Each file of the log that has some is
written anew under its own name, which is one step for its readers; versions, actions and all else stay as they are.
"""

import io
import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable

from lake import storage
from lake.log import COMMIT_FILE
from lake.privacy.rewriting import FileUnreadable, reading
from lake.staging import UNREADABLE

# The folder of the log, in that of a table.
LOG = "_delta_log"
STATISTICS_OF = ("add", "remove")
# What the lines of a commit may be, by Delta's protocol; anything else may be a line that is damaged.
ACTIONS = {*STATISTICS_OF, "cdc", "commitInfo", "domainMetadata", "metaData", "protocol", "txn"}


def redact_log(path: str, *, dry_run: bool = False) -> tuple[int, dict[str, str]]:
    """Take the texts out of the statistics in the log of a table.

    Returns:
        how many of its files had some; and those that cannot be read, and that readers of the newest version do not
        need, with the class of the error.
    """
    schema = json.loads(DeltaTable(path).schema().to_json())
    times = {field["name"] for field in schema["fields"] if field["type"] in ("timestamp", "timestamp_ntz", "date")}
    log = storage.join(path, LOG)
    names = list(storage.list_files(log))
    changed, unread = 0, dict[str, str]()
    for name, text in storage.read_texts(log, [name for name in names if COMMIT_FILE.fullmatch(name)]).items():
        try:
            new = redacted_commit(text, times)
        except UNREADABLE as error:
            unread[name] = type(error).__name__
            continue
        if new != text:
            changed += 1
            if not dry_run:
                storage.write_bytes(storage.join(log, name), new.encode())
    for name in (name for name in names if ".checkpoint" in name and name.endswith(".parquet")):
        try:
            with reading(name):
                rows = storage.read_file(storage.join(log, name))
            new_rows = redacted_checkpoint(rows, times)
        except FileNotFoundError:
            continue  # it was removed meanwhile, as Delta does with old ones
        except FileUnreadable as error:
            unread[name] = error.error
            continue
        except UNREADABLE as error:
            unread[name] = type(error).__name__
            continue
        if new_rows is not rows:
            changed += 1
            if not dry_run:
                stream = io.BytesIO()
                pq.write_table(new_rows, stream, store_schema=False)
                storage.write_bytes(storage.join(log, name), stream.getvalue())
    return changed, unread


def redacted(statistics: str, times: set[str]) -> str:
    """Return the statistics of a file without the ends of anything but times.

    >>> redacted('{"numRecords":2,"minValues":{"t":"2025-01-01","user":"ann"},"nullCount":{"user":0}}', {"t"})
    '{"numRecords": 2, "minValues": {"t": "2025-01-01"}}'
    >>> redacted('{"numRecords":2}', {"t"})
    '{"numRecords":2}'
    >>> redacted('{"minValues":{"user":"ann"}}', set())
    '{}'
    """
    content: dict[str, Any] = json.loads(statistics)
    ends = {name: content.get(name) or {} for name in ("minValues", "maxValues")}
    if all(column in times for of in ends.values() for column in of):
        return statistics
    kept = {name: {column: value for column, value in of.items() if column in times} for name, of in ends.items()}
    # Delta lets a writer leave out how many rows there are.
    rows = content.get("numRecords")
    return json.dumps(({} if rows is None else {"numRecords": rows}) | {name: of for name, of in kept.items() if of})


def redacted_commit(text: str, times: set[str]) -> str:
    """Return the text of a commit with redacted statistics; lines without any stay byte by byte.

    Raises:
        ValueError: a line is no action of Delta, so it may be a damaged one, with texts.
    """
    lines = text.splitlines()
    for n, line in enumerate(lines):
        if not line.strip():
            continue
        ((kind, action),) = json.loads(line).items()
        if kind not in ACTIONS:
            raise ValueError(f"a line of a commit has to be one of {sorted(ACTIONS)}, received {len(line)} characters")
        if (
            kind in STATISTICS_OF
            and (statistics := action.get("stats"))
            and (new := redacted(statistics, times)) != statistics
        ):
            lines[n] = json.dumps({kind: {**action, "stats": new}}, separators=(",", ":"), ensure_ascii=False)
    return "\n".join(lines) + ("\n" if text.endswith("\n") else "")


def redacted_checkpoint(rows: pa.Table, times: set[str]) -> pa.Table:
    """Return a checkpoint with redacted statistics; itself if it has none to redact."""
    result = rows
    for kind in STATISTICS_OF:
        if kind not in rows.column_names:
            continue
        actions = rows[kind].combine_chunks()
        fields = {field.name: actions.field(field.name) for field in actions.type}
        # The same statistics as columns, which a writer may add; readers do without them.
        parsed = fields.pop("stats_parsed", None)
        if "stats" in fields:
            old = fields["stats"].to_pylist()
            new = [redacted(statistics, times) if statistics else statistics for statistics in old]
            if new == old and parsed is None:
                continue
            fields["stats"] = pa.array(new, fields["stats"].type)
        elif parsed is None:
            continue
        struct = pa.StructArray.from_arrays(
            list(fields.values()),
            fields=[field for field in actions.type if field.name in fields],
            mask=actions.is_null(),
        )
        result = result.set_column(result.column_names.index(kind), kind, struct)
    return result
