"""The state of each table on each day, from manifests, verdicts, commits and the names of landing files alone.

No data file is opened here, so that a year of days takes well under a second. A `Cache` keeps a manifest until its
file changes, and the commits of a table until its version does.
"""

import json
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import cached_property
from typing import Any

from dags.page.cache import Cache
from lake import storage
from lake.days import days_between
from lake.deliveries import Difference, changed_since_read, listed, read_by
from lake.errors import NotStaged
from lake.landing import Landing
from lake.looking_back import first_day, is_since, nothing_before
from lake.places import is_manifest, runs_folder, verdict_beside
from lake.settings import known_settings
from lake.staging import UNREADABLE, Staged, Verdict, order_of, parse_staged
from lake.table import Table
from lake.tables import TABLES, made_in

# In the order in which a day is processed.
SHOWN = tuple(TABLES)
# Tables with a partition for every landed day, even an empty one.
EACH_DAY = tuple(name for name, facts in TABLES.items() if facts.every_day)
# The tables that each day brings to readers; and those of them that are computed from other tables.
FOR_READERS = tuple(
    name for dag in ("behavior_daily", "predict_daily") for name in made_in(dag) if name != "quarantine"
)
COMPUTED = tuple(name for name in FOR_READERS if TABLES[name].reads)
# The worst first.
STATES = ("failed", "unfinished", "missing", "warned", "published")
# Reasons of a cell; dags/page/problems.py distinguishes problems by them.
NOT_AUDITED = "staged, but not audited"
NOT_PUBLISHED = "audited, but not published"
NOT_LANDED = "has not landed"
PUBLISHED_WITHOUT = "withheld by an audit; a later one lets it through, but a staging is published once: stage it again"
# A view of the page may be so old in what has landed for days that were loaded long ago.
LISTED_SECONDS = 300
# The complete weeks of a calendar: a year and the week in which it ends.
WEEKS = 53


@dataclass(frozen=True)
class Staging:
    """A staging of a table by a run, and its verdict; None before its audit."""

    staged: Staged
    verdict: Verdict | None


@dataclass(frozen=True)
class Commit:
    """One publish of a table.

    Attributes:
        order: the number of the staging: a newer one has a higher number.
        days: the partitions that it replaced.
        refused: those of which readers had rows of a newer staging; not those that failed their audit.
        withheld: those that failed their audit.
        counts: what the stage step counted.
        unmet: the days of which the audit has said that something broke on them; None if it has named no days.
    """

    run_id: str
    stage_id: str
    order: int
    days: frozenset[date]
    refused: frozenset[date]
    withheld: frozenset[date]
    counts: dict[str, Any]
    verdict: str
    unmet: frozenset[date] | None
    docs: str
    published: datetime
    one_day: bool


@dataclass(frozen=True)
class Cell:
    """One table on one day.

    Attributes:
        state: one of STATES.
        rows: the number of rows that readers see; None when nothing is published.
        published: the time of that publish.
        restated: how often the day was published after the first time.
        run_id: the newest run of the day; empty when there is none.
        docs: address of the data docs of that run.
        reasons: the failed expectations, the step or input that is missing, or the run whose rows were refused.
    """

    table: str
    day: date
    state: str
    rows: int | None = None
    published: datetime | None = None
    restated: int = 0
    run_id: str = ""
    docs: str = ""
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class LateSessions:
    """A day whose sessions do not include events that landed later than MEANDER_LATE_DAYS allows.

    Attributes:
        day: the day of the sessions.
        landed: the first and last landing day of the run that read the events.
        detected: the time at which that run published.
    """

    day: date
    landed: tuple[date, date]
    run_id: str
    detected: datetime


@dataclass
class LakeSnapshot:
    """The state of the lake at one time.

    Attributes:
        now: that time, UTC.
        expected: the newest day that should be published by now; None where no schedule runs.
        tables: the newest version of each table; None where nothing is published.
        commits: the publishes of each table, newest first.
        stagings: the stagings of each table, oldest first.
        landed: the days that have landed; None where the landing cannot be read or is empty.
        first: the first day that is looked at; of days before it, it is known what rows they have, and what was done
            to them since.
        changed: the published landing days of which the landing is another than what was read.
        unreadable: the manifests that cannot be read, below the folder of the runs.
    """

    now: datetime
    expected: date | None
    tables: dict[str, Table | None]
    commits: dict[str, list[Commit]]
    stagings: dict[str, list[Staging]]
    landed: frozenset[date] | None
    first: date = date.min
    changed: dict[date, Difference] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)

    @classmethod
    def load(
        cls, cache: Cache, now: datetime, expected: date | None = None, first: date | None = None
    ) -> "LakeSnapshot":
        """Read the state of the lake, except for the parts in the cache.

        Args:
            cache: of the web server.
            now: the time, UTC.
            expected: the newest day that should be published by now.
            first: the first day that is asked for, where that is before the days that are always looked at.
        """
        begins = min(first or date.max, first_day(known_settings(), Table.find("events")))
        since = nothing_before(begins)
        # Before the tables: what is published between the two would look as if it waited for its publish.
        stagings, unreadable = read_stagings(cache, since)
        with ThreadPoolExecutor(max_workers=len(SHOWN)) as pool:
            tables = dict(zip(SHOWN, pool.map(Table.find, SHOWN), strict=True))
        lake = cls(now, expected, tables, {}, stagings, _landed_days(), begins, unreadable=unreadable)
        lake.commits = {name: lake._publishes(cache, name, since) for name in SHOWN}
        lake.changed = lake._changed(cache)
        return lake

    @cached_property
    def cells(self) -> dict[str, dict[date, Cell]]:
        """Every day on which a table has rows, was staged or is due, by table and day."""
        return {
            table: {
                day: self._cell(table, day)
                for day in sorted(self._touched(table) | self._due(table))
                if day >= self.first or day in older
            }
            for table in SHOWN
            # Once a run has made what a table is made from, the table is due as well.
            for older in [set().union(*(self._lately[name] for name in (table, *TABLES[table].reads)))]
        }

    @cached_property
    def last(self) -> date | None:
        """The newest day of all cells."""
        return max((max(days) for days in self.cells.values() if days), default=None)

    @cached_property
    def late(self) -> list[LateSessions]:
        """Days whose sessions have to be restated, oldest first."""
        late: dict[date, LateSessions] = {}
        restated: set[date] = set()
        for commit in self.commits["sessions"]:  # newest first: a day that a newer one replaced is restated
            for text in commit.counts.get("postponed", []):
                day = date.fromisoformat(text)
                if day not in restated and day not in commit.days:
                    first, last = self._span("sessions", commit)
                    late[day] = LateSessions(day, (first, last), commit.run_id, commit.published)
            restated |= commit.days
        return [late[day] for day in sorted(late)]

    def weeks(self, until: date) -> list[list[date]]:
        """Return WEEKS weeks, Monday first, of which the last one holds `until`."""
        monday = until - timedelta(days=until.weekday() + 7 * (WEEKS - 1))
        return [[monday + timedelta(days=7 * w + d) for d in range(7)] for w in range(WEEKS)]

    @cached_property
    def current(self) -> dict[str, dict[date, Commit]]:
        """The publish whose rows readers see, by table and day."""
        current: dict[str, dict[date, Commit]] = {name: {} for name in SHOWN}
        for name, commits in self.commits.items():
            for commit in commits:  # newest first
                for day in commit.days:
                    current[name].setdefault(day, commit)
        return current

    @cached_property
    def refused(self) -> dict[str, dict[date, tuple[str, ...]]]:
        """The runs whose rows were refused since a day was published, by table and day: its rows are newer."""
        refused: dict[str, dict[date, tuple[str, ...]]] = {name: {} for name in SHOWN}
        for name, commits in self.commits.items():
            for commit in reversed(commits):  # oldest first
                for day in commit.refused:
                    refused[name][day] = (*refused[name].get(day, ()), commit.run_id)
                for day in commit.days:
                    refused[name].pop(day, None)
        return refused

    @cached_property
    def rows(self) -> dict[str, dict[date, int]]:
        """The rows that readers see, by table and by the partition that a run owns."""
        return {name: table.rows_by(table.spec.owned_by) if table else {} for name, table in self.tables.items()}

    # ---- parts ----

    def _publishes(self, cache: Cache, name: str, since: datetime | None) -> list[Commit]:
        """Return the publishes of a table since a time; all of them, if its newest day was published before."""
        table = self.tables[name]
        if table is None:
            return []
        owns = _owns(self.stagings[name])
        commits = [_commit(entry, owns) for entry in commits_of(cache, table, since)]
        newest = max(self.rows[name], default=None)
        if since and (not commits or (newest and not any(newest in commit.days for commit in commits))):
            # A table that was not published for so long is told as it is. What waits for its publish is known already.
            entries = commits_of(cache, table, None)
            further = {entry["stage_id"] for entry in entries} - {s.staged.stage_id for s in self.stagings[name]}
            found = [s for s in read_stagings(cache, None)[0][name] if s.staged.stage_id in further]
            self.stagings[name] = sorted([*found, *self.stagings[name]], key=lambda s: s.staged.order)
            owns = _owns(self.stagings[name])
            return [_commit(entry, owns) for entry in entries]
        return commits

    @cached_property
    def _lately(self) -> dict[str, set[date]]:
        """The days on which a run has staged or published since the first day that is looked at, by table."""
        staged = {
            name: {day for day, one in days.items() if is_since(self.first, one.staged.started)}
            for name, days in self._newest.items()
        }
        published = {
            name: {day for day, commit in days.items() if is_since(self.first, commit.published)}
            for name, days in self.current.items()
        }
        return {name: staged[name] | published[name] for name in SHOWN}

    @cached_property
    def _times(self) -> dict[str, dict[date, int]]:
        """How often each day was published, by table."""
        times: dict[str, dict[date, int]] = {name: defaultdict(int) for name in SHOWN}
        for name, commits in self.commits.items():
            for commit in commits:
                for day in commit.days:
                    times[name][day] += 1
        return times

    @cached_property
    def _newest(self) -> dict[str, dict[date, Staging]]:
        """The newest staging of each day, by table."""
        newest: dict[str, dict[date, Staging]] = {name: {} for name in SHOWN}
        for name, stagings in self.stagings.items():
            for staging in stagings:  # oldest first
                newest[name] |= dict.fromkeys(staging.staged.owns, staging)
        return newest

    @cached_property
    def _stage_ids(self) -> set[str]:
        return {commit.stage_id for commits in self.commits.values() for commit in commits}

    @cached_property
    def _withheld(self) -> set[tuple[str, date]]:
        """The stagings that were published without a day, with that day: so it is, whatever an audit has said since."""
        return {(c.stage_id, day) for commits in self.commits.values() for c in commits for day in c.withheld}

    def _changed(self, cache: Cache) -> dict[date, Difference]:
        reads = {
            day: read
            for day, commit in self.current["events"].items()
            if (day >= self.first or is_since(self.first, commit.published)) and day in (self.landed or ())
            if (read := read_by(commit.counts, commit.run_id, commit.order, day))
        }
        landing = Landing.of(known_settings())
        return changed_since_read(landing, reads, listed_landing(cache, self.first)) if reads else {}

    def _touched(self, table: str) -> set[date]:
        return set(self._newest[table]) | set(self.current[table]) | set(self.rows[table])

    def _due(self, table: str) -> set[date]:
        """Return the days on which a table should have a partition."""
        if table in EACH_DAY:
            loaded = self._touched("events")
            if not loaded:
                return set()
            last = max(loaded)
            if self.expected:
                # A newer day may have begun to land; it is not due before its time.
                last = max(last, self.expected)
            elif self.landed:
                # A folder with a date in the future is a typing error.
                last = max([last, *(day for day in self.landed if day <= self.now.date())])
            return set(days_between(min(loaded), last))
        if table == "interests":
            # `behavior_history` may compute them for some days only; the run of a single day always computes them.
            return {day for day, commit in self.current["events"].items() if commit.one_day}
        if table == "predictions":
            first = min(self._touched(table), default=None)
            due = {day for day, commit in self.current["interests"].items() if commit.one_day}
            return {day for day in due if first and day >= first}
        return set()

    def _cell(self, table: str, day: date) -> Cell:
        commit, newest = self.current[table].get(day), self._newest[table].get(day)
        seen: dict[str, Any] = {
            "rows": self.rows[table].get(day, 0) if commit or day in self.rows[table] else None,
            "published": commit.published if commit else None,
            "restated": max(0, self._times[table][day] - 1),
        }
        reasons: tuple[str, ...]
        # A staging that is older than what readers see has been overtaken, whatever became of it.
        stage_id = newest.staged.stage_id if newest else ""
        left_out = (stage_id, day) in self._withheld
        pending = left_out or stage_id not in self._stage_ids
        verdict = newest.verdict if newest else None
        withheld = verdict is not None and str(day) in verdict.withheld
        if newest and pending and (commit is None or newest.staged.order > commit.order):
            if verdict is None:
                state, reasons = "unfinished", (NOT_AUDITED,)
            elif withheld:
                state, reasons = "failed", of_day(verdict, day)
            elif left_out:
                state, reasons = "failed", (PUBLISHED_WITHOUT,)
            elif verdict.of_published == "failed":
                state, reasons = "failed", tuple(verdict.failed)
            else:
                state, reasons = "unfinished", (NOT_PUBLISHED,)
            docs = verdict.docs if verdict else ""
            return Cell(table, day, state, run_id=newest.staged.run_id, docs=docs, reasons=reasons, **seen)
        if commit:
            current = newest and newest.staged.stage_id == commit.stage_id and newest.verdict
            reasons = of_day(current, day) if current else ()
            if table == "events" and day in self.changed:
                reasons += (str(self.changed[day]),)
            reasons += tuple(f"refused, since this is newer: {run}" for run in self.refused[table].get(day, ()))
            warned = commit.verdict == "warned" and (commit.unmet is None or day in commit.unmet)
            state = "warned" if warned else "published"
            return Cell(table, day, state, run_id=commit.run_id, docs=commit.docs, reasons=reasons, **seen)
        if seen["rows"] is None and day < self.first and (known := self.tables[table]) and known.basis(day) is not None:
            seen["rows"] = 0  # published without a row, before what was read of the log
        if seen["rows"] is not None:
            return Cell(table, day, "published", **seen)
        return Cell(table, day, "missing", reasons=(self._why_missing(table, day),), **seen)

    def _why_missing(self, table: str, day: date) -> str:
        if table not in EACH_DAY:
            return "no run has produced it"
        if self.landed is None:
            return "no run has loaded it"
        return "landed, but no run has loaded it" if day in self.landed else NOT_LANDED

    @cached_property
    def _by_stage_id(self) -> dict[tuple[str, str], Staged]:
        return {(s.staged.table, s.staged.stage_id): s.staged for some in self.stagings.values() for s in some}

    def _span(self, table: str, commit: Commit) -> tuple[date, date]:
        staged = self._by_stage_id.get((table, commit.stage_id))
        return (staged.first, staged.last) if staged else (min(commit.days), max(commit.days))


def of_day(verdict: Verdict, day: date) -> tuple[str, ...]:
    """Return what an audit has said of a day; of all days together, if it has named none."""
    return tuple(verdict.unmet.get(str(day), ()) if verdict.unmet else verdict.failed)


def commits_of(cache: Cache, table: Table, since: datetime | None) -> list[dict[str, Any]]:
    """Return what `table.commits` returns, by the cache."""
    return cache.of_version(table, f"commits since {since}", lambda: table.commits(since))


def read_stagings(cache: Cache, since: datetime | None) -> tuple[dict[str, list[Staging]], list[str]]:
    """Return every staging that has a manifest, by table, oldest first; and the manifests that cannot be read.

    Those of runs that have written nothing since a time are left out.
    """
    fs, root = storage.filesystem(runs_folder())
    files = {f"{root}/{name}": entry for name, entry in storage.list_entries(runs_folder(), since).items()}
    names = ((path, path.rsplit("/", 1)[1]) for path in files)
    manifests = [path for path, name in names if (table := name.split(".")[0]) in SHOWN and is_manifest(name, table)]
    # What the storage says of size and time, of the manifest and of the verdict beside it.
    stamps = {path: f"{files[path]} {files.get(verdict_beside(path))}" for path in manifests}
    read = cache.of_files(stamps, lambda path: _staging(fs, path, has_verdict=verdict_beside(path) in files))
    stagings: dict[str, list[Staging]] = {name: [] for name in SHOWN}
    for staging in read.values():
        if isinstance(staging, Staging):
            stagings[staging.staged.table].append(staging)
    for some in stagings.values():
        some.sort(key=lambda staging: staging.staged.order)
    return stagings, sorted(path[len(root) + 1 :] for path, one in read.items() if isinstance(one, NotStaged))


def _staging(fs: Any, path: str, *, has_verdict: bool) -> Staging | NotStaged | None:
    """Return a staging; the reason if its manifest cannot be read; None if that is gone."""
    try:
        staged = parse_staged(json.loads(fs.cat_file(path)))
    except FileNotFoundError:  # removed since it was listed
        return None
    except UNREADABLE as error:  # it hides its own staging, and no other
        return NotStaged(str(error))
    try:
        verdict = json.loads(fs.cat_file(verdict_beside(path))) if has_verdict else None
        # Where stagings have no numbers yet, it may be a verdict on an earlier one of the same run.
        return Staging(staged, Verdict(**verdict) if verdict and verdict["stage_id"] == staged.stage_id else None)
    except (FileNotFoundError, *UNREADABLE):
        return Staging(staged, None)


def listed_landing(cache: Cache, first: date) -> dict[date, str]:
    """Return a listing of the landing from a day on, or of more, at most LISTED_SECONDS old.

    It is one for all parts of the page, and one more for those who ask for older days than the first that asked.
    """
    landing = Landing.of(known_settings())

    def since(day: date) -> tuple[date, dict[date, str]]:
        return day, listed(landing, day)

    begins, found = cache.for_a_while(f"landing {landing.address}", LISTED_SECONDS, lambda: since(first))
    if begins <= first:
        return found
    return cache.for_a_while(f"whole landing {landing.address}", LISTED_SECONDS, lambda: since(date.min))[1]


def _landed_days() -> frozenset[date] | None:
    try:
        # The web server need not see the landing; the page then tells gaps of `events` alone.
        return frozenset(Landing.of(known_settings()).days()) or None
    except OSError:
        return None


def _owns(stagings: list[Staging]) -> dict[str, list[date]]:
    """Return the days of stagings, by their ids."""
    return {one.staged.stage_id: one.staged.owns for one in stagings}


def _commit(entry: dict[str, Any], owns: dict[str, list[date]]) -> Commit:
    first, last = date.fromisoformat(entry["first"]), date.fromisoformat(entry["last"])
    kept, withheld = (set(map(date.fromisoformat, json.loads(entry.get(of, "[]")))) for of in ("refused", "withheld"))
    # Before stagings had numbers, a run that staged again overwrote the manifest of this commit.
    days = owns.get(entry["stage_id"]) or days_between(first, last)
    return Commit(
        run_id=entry["run_id"],
        stage_id=entry["stage_id"],
        order=order_of(entry),
        days=frozenset(days) - kept,
        refused=frozenset(kept - withheld),
        withheld=frozenset(withheld),
        counts=json.loads(entry["counts"]),
        verdict=entry["verdict"],
        unmet=frozenset(map(date.fromisoformat, json.loads(entry.get("unmet", "[]")))) or None,
        docs=entry["docs"],
        published=datetime.fromisoformat(entry["published"]),
        one_day=first == last,
    )
