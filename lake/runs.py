"""What each run did, from the manifests, verdicts and commits that it left: the table at the end of `meander daily`."""

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from typing import Any

from lake import storage
from lake.deliveries import changed_since_read, published
from lake.landing import Landing
from lake.looking_back import is_since, loaded_since, nothing_before
from lake.places import is_landing_list, is_manifest, run_name, runs_folder
from lake.schemas import TABLES
from lake.staging import UNREADABLE, Staged, Verdict, order_in_name, parse_staged, verdict_names
from lake.table import Table
from lake.tables import TABLES as FACTS

ORDER = ("unreadable", "failed", "not audited", "not published", "refused", "warned", "passed")
# What became of the input rows, then the rows of each table that is made from them.
OUTCOMES = ("input", "events", "duplicates", "ignored", "quarantined", "forgotten")
COUNTS = (*OUTCOMES, *(table for table in TABLES if FACTS[table].reads))


@dataclass(frozen=True)
class RunSummary:
    """One run, a day or a chunk of days, in numbers.

    Attributes:
        counts: a number for each of COUNTS: what the run has published, as its newest commit says; of a table that it
            has not published, what it has staged; None when that table has not been staged.
        first, last: its days; None if no manifest of it can be read.
        verdict: the worst over its tables: unreadable (a manifest), failed (some days, or all), not audited, not
            published, refused (some days), warned or passed.
        seconds: from the start of its first stage to its last audit, waiting included.
        postponed: session partitions older than the lookback for late events, left to a backfill.
        refused: by table, the days that were not published, since readers see rows of a newer staging.
        withheld: by table, the days that were not published, though others were, since they failed their audit.
        unmet: by day, what the audits of its tables say that broke on it; of a day that readers see, warnings.
        landing: by day, how the landing differs from what this run has read, where readers see its rows.
        supplied: what the supplier has changed since the days before: of columns, and values without a meaning.
    """

    first: date | None
    last: date | None
    run_id: str
    counts: dict[str, int | None]
    verdict: str
    seconds: float
    postponed: list[str]
    refused: dict[str, list[str]]
    unmet: dict[str, list[str]] = field(default_factory=dict)
    landing: dict[str, str] = field(default_factory=dict)
    withheld: dict[str, list[str]] = field(default_factory=dict)
    supplied: list[str] = field(default_factory=list)

    @property
    def period(self) -> str:
        """Its days in words."""
        return str(self.first or "?") if self.first == self.last else f"{self.first} to {self.last}"

    def as_json(self) -> dict[str, Any]:
        """Return it as `meander days --json` prints it: each number under its own name."""
        first, last = (day and str(day) for day in (self.first, self.last))
        days = {"first": first, "last": last, "run_id": self.run_id}
        outcome = {
            "verdict": self.verdict,
            "seconds": self.seconds,
            "postponed": self.postponed,
            "refused": self.refused,
            "withheld": self.withheld,
            "unmet": self.unmet,
            "landing": self.landing,
            "supplied": self.supplied,
        }
        return {**days, **self.counts, **outcome}


def summarize(
    first: date | None = None, last: date | None = None, landing: Landing | None = None, *, with_older: bool = False
) -> list[RunSummary]:
    """Return the runs whose days touch `first` to `last`, by day, then by start; last those whose days nobody can read.

    Args:
        first: no limit when None. With it, what runs have left long before that day is not read.
        last: no limit when None.
        landing: where the published days are compared with what was read of them; nowhere when None.
        with_older: also the runs of older days that have staged or published since `first`.
    """

    def within(begins: date, ends: date, *, lately: bool = False) -> bool:
        return (first is None or ends >= first or lately) and (last is None or begins <= last)

    def lately(moments: Iterable[str]) -> bool:
        return with_older and first is not None and any(is_since(first, moment) for moment in moments)

    root, since = runs_folder(), nothing_before(first or date.min)
    said: dict[str, dict[str, str]] = defaultdict(dict)
    names = [name for name in storage.list_entries(root, since) if not is_landing_list(name.rpartition("/")[2])]
    for path, text in storage.read_texts(root, names).items():
        run, _, name = path.partition("/")
        said[run][name] = text
    stagings = {folder: _read(texts) for folder, texts in said.items()}
    by_table = {table.name: table.commits(since) for table in filter(None, map(Table.find, TABLES))}
    commits = _newest(by_table)
    loaded = loaded_since(first, by_table.get("events", [])) if first and with_older else ()
    changed = _changed(by_table.get("events", []), landing, lambda day: within(day, day, lately=day in loaded))
    runs, lost = [], []
    for folder, (staged, unreadable) in stagings.items():
        days = [(s.first, s.last) for s, _ in staged.values()]
        moments = [s.started for s, _ in staged.values()]
        moments += [c["published"] for s, _ in staged.values() if (c := commits.get((s.table, s.run_id)))]
        if days and within(min(d[0] for d in days), max(d[1] for d in days), lately=lately(moments)):
            summary = _summary(staged, commits)
            verdict = "unreadable" if unreadable else summary.verdict
            summary = replace(summary, verdict=verdict, landing=changed.get(summary.run_id, {}))
            runs.append((min(s.started for s, _ in staged.values()), summary))
        elif unreadable and not days:  # without either, it was killed before its first manifest
            lost.append(_unreadable(folder, commits))
    # Of these, each has its days.
    known = [run for _, run in sorted(runs, key=lambda pair: (str(pair[1].first), str(pair[1].last), pair[0]))]
    lost.sort(key=lambda run: (run.first is None, str(run.first), run.run_id))
    # Whatever is listed was written lately.
    return known + [
        run for run in lost if run.first is None or run.last is None or within(run.first, run.last, lately=with_older)
    ]


def _read(said: Mapping[str, str]) -> tuple[dict[str, tuple[Staged, Verdict | None]], list[str]]:
    """Return the newest staging of each table with its verdict, and the tables whose newest manifest cannot be read.

    Args:
        said: the texts of the files of a run, by name.
    """
    found, unreadable = {}, []
    for table in TABLES:
        newest, broken = None, -1
        for name in said:
            if is_manifest(name, table):
                try:
                    staged = parse_staged(json.loads(said[name]))
                except UNREADABLE:
                    broken = max(broken, order_in_name(name, table))
                    continue
                newest = staged if newest is None or staged.order > newest.order else newest
        if broken > (newest.order if newest else -1):
            unreadable.append(table)
        elif newest:
            found[table] = newest, _verdict(newest, said)
    return found, unreadable


def _verdict(staged: Staged, said: Mapping[str, str]) -> Verdict | None:
    """Return the verdict on a staging; None if there is none, or it cannot be read."""
    for name in verdict_names(staged):
        with suppress(*UNREADABLE):
            content = json.loads(said[name])
            if content["stage_id"] == staged.stage_id:
                return Verdict(**content)
    return None


def _newest(by_table: Mapping[str, list[dict[str, Any]]]) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the newest publish of each table and run."""
    newest: dict[tuple[str, str], dict[str, Any]] = {}
    for table, commits in by_table.items():
        for commit in commits:
            newest.setdefault((table, commit["run_id"]), commit)
    return newest


def _changed(
    commits: list[dict[str, Any]], landing: Landing | None, wanted: Callable[[date], bool]
) -> dict[str, dict[str, str]]:
    """Return, by run and day, how the landing differs from what the run has read."""
    reads = {day: read for day, read in published(commits).items() if wanted(day)} if landing else {}
    changed: dict[str, dict[str, str]] = defaultdict(dict)
    for day, difference in (changed_since_read(landing, reads) if landing and reads else {}).items():
        changed[reads[day].run_id][str(day)] = str(difference)
    return changed


def _unreadable(folder: str, commits: Mapping[tuple[str, str], Mapping[str, Any]]) -> RunSummary:
    """Return what is known of a run without a manifest that can be read: its days, if it has published."""
    commit = next((commit for (_, run_id), commit in commits.items() if run_name(run_id) == folder), None)
    days = [date.fromisoformat(commit[name]) if commit else None for name in ("first", "last")]
    run_id = commit["run_id"] if commit else folder
    return RunSummary(days[0], days[1], run_id, dict.fromkeys(COUNTS), "unreadable", 0.0, [], {})


def _summary(
    staged: dict[str, tuple[Staged, Verdict | None]], commits: dict[tuple[str, str], dict[str, Any]]
) -> RunSummary:
    anyone = next(iter(staged.values()))[0]
    published = {table: commit for table in staged if (commit := commits.get((table, anyone.run_id)))}
    withheld = {
        table: days for table, commit in published.items() if (days := json.loads(commit.get("withheld", "[]")))
    }
    refused = {
        table: days
        for table, commit in published.items()
        if (days := [day for day in json.loads(commit["refused"]) if day not in withheld.get(table, ())])
    }

    def rows(table: str) -> int | None:
        if commit := published.get(table):
            # Commits of earlier versions of this code say how much was staged alone.
            return int(commit.get("published_rows", commit["rows"]))
        return staged[table][0].rows if table in staged else None

    def state(table: str) -> str:
        what, verdict = staged[table]
        commit = published.get(table)
        if commit and commit["stage_id"] == what.stage_id:
            return "failed" if table in withheld else "refused" if table in refused else str(commit["verdict"])
        if verdict is None:
            return "not audited"
        return "failed" if verdict.of_published == "failed" else "not published"

    unmet: dict[str, list[str]] = defaultdict(list)
    for table, (_, verdict) in staged.items():
        if verdict is None:
            continue
        for day, lines in verdict.unmet.items():
            unmet[day] += [f"{table} {verdict.said_of(day)}: {line}" for line in lines]

    events = published.get("events")
    counts = json.loads(events["counts"]) if events else staged["events"][0].counts if "events" in staged else {}
    once = int(events["rows"]) if events else rows("events") or 0
    if events and (kept := set(json.loads(events["refused"]))) and "by_day" in counts:
        counts, once = counts | of_other_days(counts["by_day"], kept), rows("events") or 0
    outcomes = (
        counts.get("input"),
        rows("events"),
        counts["accepted"] - once if counts else None,
        counts.get("ignored"),
        rows("quarantine"),
        counts.get("forgotten", 0) if counts else None,
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
        unmet=dict(sorted(unmet.items())),
        withheld=withheld,
        supplied=supplied_changes(counts),
    )


def of_other_days(by_day: Mapping[str, Mapping[str, Any]], left_out: Collection[str]) -> dict[str, int]:
    """Return what an ingest has counted of all days but some, so that it adds up to the rows that are published.

    >>> by_day = {"2025-01-01": {"input": 3, "accepted": 2, "ignored": 1}, "2025-01-02": {"input": 9, "accepted": 9}}
    >>> of_other_days(by_day, ["2025-01-02"])
    {'input': 3, 'accepted': 2, 'ignored': 1, 'forgotten': 0}
    """
    of_days = [of_day for day, of_day in by_day.items() if day not in left_out]
    return {
        name: sum(of_day.get(name, 0) for of_day in of_days) for name in ("input", "accepted", "ignored", "forgotten")
    }


def told_of_contract(counts: Mapping[str, Any]) -> list[str]:
    """Return how the files of an ingest differ from the agreed contract, in words, each a line.

    >>> changes = {"2025-03-10": ["files: gone: 'shop'"]}
    >>> told_of_contract({"against_contract": {"file": "shop.odcs.yaml", "version": "1.0.0", "changes": changes}})
    ["2025-03-10 differs from the contract shop.odcs.yaml 1.0.0: files: gone: 'shop'"]
    """
    found = counts.get("against_contract", {})
    return [
        f"{day} differs from the contract {found['file']} {found['version']}: {line}"
        for day, lines in found.get("changes", {}).items()
        for line in lines
    ]


def supplied_changes(counts: Mapping[str, Any]) -> list[str]:
    """Return what an ingest has counted of changes by the supplier, in words, each a line.

    >>> supplied_changes({"supplied": {"since": "2025-03-09", "changes": ["gone: 'shop'"]}})
    ["columns since 2025-03-09: gone: 'shop'"]
    >>> supplied_changes({"by_source": {"app": {"supplied": {"since": "2025-03-09", "changes": ["new: 'x'"]}}}})
    ["columns of app since 2025-03-09: new: 'x'"]
    >>> supplied_changes({"unknown_behaviors": {"swipe": 1203}})
    ["values of the behavior without a meaning: 'swipe' (1,203 rows)"]
    """
    # Of several sources, each has columns of its own.
    found = {"": counts, **{f" of {name}": of_source for name, of_source in counts.get("by_source", {}).items()}}
    lines = [
        f"columns{whose} since {each['supplied']['since']}: {change}"
        for whose, each in found.items()
        if "supplied" in each
        for change in each["supplied"]["changes"]
    ]
    lines += told_of_contract(counts)
    if values := counts.get("unknown_behaviors"):
        said = ", ".join(f"{value!r} ({n:,} rows)" for value, n in sorted(values.items(), key=lambda each: -each[1]))
        lines.append(f"values of the behavior without a meaning: {said}")
    return lines
