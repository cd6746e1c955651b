"""What each run did, from the manifests, verdicts and commits that it left: the table at the end of `meander daily`."""

import json
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from lake import storage
from lake.places import runs_folder
from lake.schemas import TABLES
from lake.staging import Staged, Verdict, read_newest, verdict_on
from lake.table import Table
from lake.tables import TABLES as FACTS

ORDER = ("failed", "not audited", "not published", "refused", "warned", "passed")
# What became of the input rows, then the rows of each table that is made from them.
OUTCOMES = ("input", "events", "duplicates", "ignored", "quarantined")
COUNTS = (*OUTCOMES, *(table for table in TABLES if FACTS[table].reads))


@dataclass(frozen=True)
class RunSummary:
    """One run, a day or a chunk of days, in numbers.

    Attributes:
        counts: a number for each of COUNTS: what the run has published, as its newest commit says; of a table that it
            has not published, what it has staged; None when that table has not been staged.
        verdict: the worst over its tables: failed, not audited, not published, refused (some days), warned or passed.
        seconds: from the start of its first stage to its last audit, waiting included.
        postponed: session partitions older than the lookback for late events, left to a backfill.
        refused: by table, the days that were not published, since readers see rows of a newer staging.
    """

    first: date
    last: date
    run_id: str
    counts: dict[str, int | None]
    verdict: str
    seconds: float
    postponed: list[str]
    refused: dict[str, list[str]]

    def as_json(self) -> dict[str, Any]:
        """Return it as `meander days --json` prints it: each number under its own name."""
        days = {"first": str(self.first), "last": str(self.last), "run_id": self.run_id}
        outcome = {
            "verdict": self.verdict,
            "seconds": self.seconds,
            "postponed": self.postponed,
            "refused": self.refused,
        }
        return {**days, **self.counts, **outcome}


def summarize(first: date | None = None, last: date | None = None) -> list[RunSummary]:
    """Return the runs whose days touch `first` to `last`, by day, then by start."""
    root = runs_folder()
    files: dict[str, list[str]] = defaultdict(list)
    for path in storage.list_files(root):
        run, _, name = path.partition("/")
        files[run].append(name)
    with ThreadPoolExecutor(max_workers=16) as pool:
        stagings = list(pool.map(lambda run: _read(storage.join(root, run), files[run]), files))
    commits = _commits()
    runs = []
    for staged in stagings:
        if not staged:  # a run that was killed before its first manifest
            continue
        days = [(s.first, s.last) for s, _ in staged.values()]
        touches = (first is None or max(d[1] for d in days) >= first) and (
            last is None or min(d[0] for d in days) <= last
        )
        if touches:
            runs.append((min(s.started for s, _ in staged.values()), _summary(staged, commits)))
    return [run for _, run in sorted(runs, key=lambda pair: (pair[1].first, pair[1].last, pair[0]))]


def _read(folder: str, files: list[str]) -> dict[str, tuple[Staged, Verdict | None]]:
    newest = {table: read_newest(folder, files, table) for table in TABLES}
    return {table: (staged, verdict_on(staged)) for table, staged in newest.items() if staged}


def _commits() -> dict[tuple[str, str], dict[str, Any]]:
    """Return the newest publish of each table and run."""
    newest: dict[tuple[str, str], dict[str, Any]] = {}
    for table in filter(None, map(Table.find, TABLES)):
        for commit in table.commits():
            newest.setdefault((table.name, commit["run_id"]), commit)
    return newest


def _summary(
    staged: dict[str, tuple[Staged, Verdict | None]], commits: dict[tuple[str, str], dict[str, Any]]
) -> RunSummary:
    anyone = next(iter(staged.values()))[0]
    published = {table: commit for table in staged if (commit := commits.get((table, anyone.run_id)))}
    refused = {table: days for table, commit in published.items() if (days := json.loads(commit["refused"]))}

    def rows(table: str) -> int | None:
        if commit := published.get(table):
            # Commits of earlier versions of this code say how much was staged alone.
            return int(commit.get("published_rows", commit["rows"]))
        return staged[table][0].rows if table in staged else None

    def state(table: str) -> str:
        what, verdict = staged[table]
        commit = published.get(table)
        if commit and commit["stage_id"] == what.stage_id:
            return "refused" if table in refused else str(commit["verdict"])
        if verdict is None:
            return "not audited"
        return "failed" if verdict.verdict == "failed" else "not published"

    events = published.get("events")
    counts = json.loads(events["counts"]) if events else staged["events"][0].counts if "events" in staged else {}
    once = int(events["rows"]) if events else rows("events") or 0
    outcomes = (
        counts.get("input"),
        rows("events"),
        counts["accepted"] - once if counts else None,
        counts.get("ignored"),
        rows("quarantine"),
    )
    further = {table: rows(table) for table in COUNTS[len(OUTCOMES) :]}
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
        counts=dict(zip(OUTCOMES, outcomes, strict=True)) | further,
        verdict=min((state(table) for table in staged), key=ORDER.index),
        seconds=round(ends - begins, 1),
        postponed=staged["sessions"][0].counts.get("postponed", []) if "sessions" in staged else [],
        refused=refused,
    )
