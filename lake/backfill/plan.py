"""The parts of a plan: partitions to reprocess, the runs that do it, their cost, and the partitions that stay."""

from dataclasses import dataclass, field
from datetime import date

from lake.backfill.costs import Costs
from lake.tables import GROUPS

REASONS = ("late-data", "code", "bad-day")
# What the code of a job makes; events bring quarantine with them.
CODE = tuple(GROUPS)
# As behavior_history cuts a range unless it is told otherwise.
CHUNK_DAYS = 90


@dataclass(frozen=True)
class Redo:
    """A partition to reprocess: `day` is the date by which a run owns it, `rows` its published rows."""

    table: str
    day: date
    rows: int
    why: str


@dataclass(frozen=True)
class DayRun:
    """One run of one day.

    Attributes:
        job: `behavior` or `predictions`, each a DAG; `interests` (with late events) or `examples`, each a job alone.
        day: the day it is run for.
        tables: the tables that it stages, in the order of the DAG's groups.
        covers: the number of partitions of the plan that it reprocesses.
        rows: rows in them now.
        seconds: of staging and audit, estimated from past runs; None when there was none.
        model_version: the version that made the published predictions.
        include_late: the published rows include late events, and the new ones have to as well.
        note: what a person has to do first.
    """

    job: str
    day: date
    tables: tuple[str, ...]
    covers: int
    rows: int
    seconds: float | None
    model_version: int | None = None
    include_late: bool = False
    note: str = ""


@dataclass(frozen=True)
class Untouched:
    """The partitions of one table that stay as they are, and their rows."""

    table: str
    partitions: int
    rows: int


@dataclass(frozen=True)
class HistoryRange:
    """Consecutive days that one run of behavior_history reprocesses: few large jobs, but every table of these days.

    Attributes:
        first, last: the range, both included.
        every: days between its interests.
        rows: rows in it now.
        seconds: of its jobs, each a table of up to CHUNK_DAYS days.
    """

    first: date
    last: date
    every: int
    rows: int
    seconds: float


@dataclass(frozen=True)
class BackfillPlan:
    """The partitions to reprocess, and the runs that do it.

    Attributes:
        reason, first, last, table: the request.
        redo: the partitions, by table and day.
        runs: the runs that reprocess them, in the order in which they have to run.
        whole: a range that takes less time than the runs that stage its events, if there is one.
        optional: runs that restate interests with late events; without them these are right by their rule.
        untouched: the partitions that stay, for each table.
        costs: times of past jobs, for estimates.
        looked_from: without `first`, the day before which landing days count only if they were loaded since then;
            None where every landing day counts.
    """

    reason: str
    first: date | None
    last: date | None
    table: str
    redo: list[Redo] = field(default_factory=list)
    runs: list[DayRun] = field(default_factory=list)
    whole: HistoryRange | None = None
    optional: list[DayRun] = field(default_factory=list)
    untouched: list[Untouched] = field(default_factory=list)
    costs: Costs = field(default_factory=lambda: Costs({}))
    looked_from: date | None = None

    @property
    def scope(self) -> str:
        """Which landing days count where not every one does, in words; empty where every one does."""
        if self.looked_from is None:
            return ""
        older = "older ones that were loaded since then; others with --from"
        return f"Landing days from {self.looked_from} on count, and {older}."
