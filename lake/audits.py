"""The history of audits: a small Delta table `audits`, one row for each expectation of each audit."""

from dataclasses import asdict, dataclass, fields
from datetime import date, datetime

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable, write_deltalake

from lake import storage
from lake.commits import until_first
from lake.places import audits_path
from lake.table import WHOLE_LOG, create_missing


@dataclass(frozen=True)
class AuditLine:
    """The result of one expectation on one staging; `said` describes it."""

    table: str
    run_id: str
    stage_id: str
    first: date
    last: date
    audited: datetime
    expectation: str
    column: str
    severity: str
    success: bool
    said: str
    verdict: str
    docs: str


TYPES = {str: pa.string(), date: pa.date32(), datetime: pa.timestamp("us", tz="UTC"), bool: pa.bool_()}
SCHEMA = pa.schema([(field.name, TYPES[field.type]) for field in fields(AuditLine)])  # type: ignore[index]


def record(lines: list[AuditLine]) -> None:
    """Append the lines of one audit. Appends do not conflict with each other, so audits may run concurrently."""
    rows = pa.Table.from_pylist([asdict(line) for line in lines], SCHEMA)

    def attempt() -> None:
        create_missing(audits_path(), SCHEMA, name="audits", configuration=WHOLE_LOG)
        # The first audits of a lake may create the table twice, which an append in between does not survive.
        write_deltalake(audits_path(), rows, mode="append")

    until_first(attempt, "other audits", "the history of audits has no line of this one, try again")


def remove_before(moment: datetime, *, dry_run: bool = False) -> int:
    """Remove the lines of the audits that ended before a moment, and return how many there are."""
    old = pc.less(read()["audited"], pa.scalar(moment, TYPES[datetime]))
    lines = int(pc.sum(old).as_py() or 0)
    if lines and not dry_run:
        # Audits append meanwhile; a merge of the same files by another upkeep is looked at again.
        until_first(
            lambda: DeltaTable(audits_path()).delete(f"audited < '{moment:%Y-%m-%dT%H:%M:%S.%fZ}'"),
            "other upkeeps",
            "no line was removed, try again",
        )
    return lines


def read(table: str | None = None) -> pa.Table:
    """Return the history, oldest first: of one table, or of all."""
    if not DeltaTable.is_deltatable(audits_path()):
        return SCHEMA.empty_table()
    parts = [storage.read_file(uri).cast(SCHEMA) for uri in DeltaTable(audits_path()).file_uris()]
    lines = pa.concat_tables([SCHEMA.empty_table(), *parts]).sort_by("audited")
    return lines.filter(pc.equal(lines["table"], table)) if table else lines
