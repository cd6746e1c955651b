"""What each run did, from the manifests, verdicts and commits that it left: the table at the end of `meander daily`."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from lake import storage
from lake.places import runs_folder
from lake.schemas import TABLES
from lake.staging import Staged, Verdict, read_staged_in, read_verdict_in
from lake.table import Table
from lake.tables import TABLES as FACTS

ORDER = ("failed", "not audited", "not published", "warned", "passed")
# What became of the input rows, then the rows of each table that is made from them.
OUTCOMES = ("input", "events", "duplicates", "ignored", "quarantined")
COUNTS = (*OUTCOMES, *(table for table in TABLES if FACTS[table].reads))


@dataclass(frozen=True)
class RunSummary:
    """One run, a day or a chunk of days, in numbers.

    Attributes:
        counts: a number for each of COUNTS; None when that table has not been staged.
        verdict: the worst over its tables: failed, not audited, not published, warned or passed.
        seconds: from the start of its first stage to its last audit, waiting included.
        postponed: session partitions older than the lookback for late events, left to a backfill.
    """

    first: date
    last: date
    run_id: str
    counts: dict[str, int | None]
    verdict: str
    seconds: float
    postponed: list[str]

    def as_json(self) -> dict[str, Any]:
        """Return it as `meander days --json` prints it: each number under its own name."""
        days = {"first": str(self.first), "last": str(self.last), "run_id": self.run_id}
        return {**days, **self.counts, "verdict": self.verdict, "seconds": self.seconds, "postponed": self.postponed}


def summarize(first: date | None = None, last: date | None = None) -> list[RunSummary]:
    """Return the runs whose days touch `first` to `last`, by day, then by start."""
    root = runs_folder()
    folders = sorted({name.split("/", 1)[0] for name in storage.list_files(root)})
    with ThreadPoolExecutor(max_workers=16) as pool:
        found = list(pool.map(lambda name: _read(storage.join(root, name)), folders))
    published = {name: Table.find(name) for name in TABLES}
    runs = []
    for staged in found:
        if not staged:  # a run that was killed before its first manifest
            continue
        days = [(s.first, s.last) for s, _ in staged.values()]
        touches = (first is None or max(d[1] for d in days) >= first) and (
            last is None or min(d[0] for d in days) <= last
        )
        if touches:
            runs.append((min(s.started for s, _ in staged.values()), _summary(staged, published)))
    return [run for _, run in sorted(runs, key=lambda pair: (pair[1].first, pair[1].last, pair[0]))]


def _read(folder: str) -> dict[str, tuple[Staged, Verdict | None]]:
    return {
        table: (staged, read_verdict_in(folder, table))
        for table in TABLES
        if (staged := read_staged_in(folder, table)) is not None
    }


def _summary(staged: dict[str, tuple[Staged, Verdict | None]], published: dict[str, Table | None]) -> RunSummary:
    def rows(table: str) -> int | None:
        return staged[table][0].rows if table in staged else None

    def state(table: str) -> str:
        what, verdict = staged[table]
        if verdict is None or verdict.stage_id != what.stage_id:
            return "not audited"
        if verdict.verdict == "failed":
            return "failed"
        version = published[table].delta.transaction_version(f"run={what.run_id}") if published[table] else None  # type: ignore[union-attr]
        return verdict.verdict if (version or 0) >= what.sequence else "not published"

    anyone = next(iter(staged.values()))[0]
    counts = staged["events"][0].counts if "events" in staged else {}
    outcomes = (
        counts.get("input"),
        rows("events"),
        counts["accepted"] - (rows("events") or 0) if counts else None,
        counts.get("ignored"),
        rows("quarantine"),
    )
    made = {table: rows(table) for table in COUNTS[len(OUTCOMES) :]}
    begins = min(datetime.fromisoformat(s.started).timestamp() for s, _ in staged.values())
    ends = max(
        datetime.fromisoformat(v.audited).timestamp()
        if v and v.audited
        else datetime.fromisoformat(s.started).timestamp() + s.seconds
        for s, v in staged.values()
    )
    return RunSummary(
        first=anyone.first,
        last=anyone.last,
        run_id=anyone.run_id,
        counts=dict(zip(OUTCOMES, outcomes, strict=True)) | made,
        verdict=min((state(table) for table in staged), key=ORDER.index),
        seconds=round(ends - begins, 1),
        postponed=staged["sessions"][0].counts.get("postponed", []) if "sessions" in staged else [],
    )
