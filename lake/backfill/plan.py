"""What a plan says: partitions to make again, the runs that do it, what they cost, and what stays."""

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
    """A partition to make again: `day` is the date by which a run owns it, `rows` what readers see of it now."""

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
        tables: what it makes, in the order of the DAG's groups.
        covers: partitions of the plan that it makes again.
        rows: rows in them now.
        seconds: staging and auditing them, by what past runs took; None when there was none.
        model_version: the version that made the predictions there are.
        include_late: what there is was made with late events, and is to be so again.
        note: what a person has to see to first.
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
    """What stays as it is in one table."""

    table: str
    partitions: int
    rows: int


@dataclass(frozen=True)
class Whole:
    """The days whose events are planned, side by side, made in large jobs: few starts, but every table of them.

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
class Plan:
    """What to make again.

    Attributes:
        reason, first, last, table: what was asked.
        redo: the partitions, by table and day.
        runs: the runs that make them, in the order in which they have to be made.
        whole: what takes less time than the runs that make events, if there is such a range.
        optional: runs that restate states which are right by their rule: they were made before late events arrived.
        untouched: what stays, for each table.
        costs: what the times are estimated by.
    """

    reason: str
    first: date | None
    last: date | None
    table: str
    redo: list[Redo] = field(default_factory=list)
    runs: list[DayRun] = field(default_factory=list)
    whole: Whole | None = None
    optional: list[DayRun] = field(default_factory=list)
    untouched: list[Untouched] = field(default_factory=list)
    costs: Costs = field(default_factory=lambda: Costs({}))
