"""A plan from the published tables, or from any history."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import date

from lake.backfill.costs import Costs
from lake.backfill.history import SAMPLE, History
from lake.backfill.partitions import Request, partitions
from lake.backfill.plan import CODE, REASONS, BackfillPlan, Redo, Untouched
from lake.backfill.runs import optional_runs, runs, whole_range
from lake.errors import SettingsInvalid
from lake.landing import Landing
from lake.looking_back import EVERY_DAY, window
from lake.schemas import TABLES
from lake.settings import Settings
from lake.table import Table


def plan_backfill(
    config: Settings,
    reason: str,
    first: date | None = None,
    last: date | None = None,
    table: str = "events",
    landed: Mapping[date, str] | None = None,
) -> BackfillPlan:
    """Plan a backfill of the published tables.

    Args:
        config: the rules of the tables: session gap, lateness, history.
        reason: `late-data`: partitions computed before some of their events landed, and landing days whose files are
            others than those that were read. `bad-day`: landing days that are
            delivered again. `code`: the job of a table has changed.
        first: of `late-data` and `bad-day`, the first landing day that counts; of `code`, the first day of the table.
            Only `late-data` can do without: the landing days of a year count then, and older ones that were loaded
            within it, see lake/looking_back.py.
        last: the last such day, included.
        table: of `code`, the table whose job has changed.
        landed: of `late-data`, how the landing differs from what was read, where that is known; else it is listed.

    Raises:
        SettingsInvalid: an argument is invalid.
        TableMissing: no events are published.
    """
    if reason not in REASONS:
        raise SettingsInvalid(f"reason is one of {', '.join(REASONS)}; received {reason!r}")
    if table not in CODE:
        raise SettingsInvalid(f"table is one of {', '.join(CODE)}; received {table!r}")
    if (first is None or last is None) and reason != "late-data":
        raise SettingsInvalid(f"a plan for {reason} needs both from and to; received {first} and {last}")
    if first and last and first > last:
        raise SettingsInvalid(f"from must not be after to; received {first} and {last}")
    events = Table("events")
    days = window(config, events, first, last)
    # Where the code has changed, any later run may be the one that makes a day anew.
    needed = EVERY_DAY if reason == "code" else days
    history = History.read(Landing.of(config) if reason == "late-data" and landed is None else None, needed)
    if landed:
        history = replace(history, landing=landed)
    plan = plan_of(history, config, Request(reason, days.first, last, table, days.older))
    left_out = first is None and any(day not in days for day in events.rows_by("landed"))
    return replace(plan, first=first, looked_from=days.first if left_out else None)


def plan_of(history: History, config: Settings, request: Request) -> BackfillPlan:
    """Return the plan for a history: the partitions, then the runs that reprocess them."""
    why = partitions(history, config, request)
    costs = Costs(
        {
            name: [(commit.rows, commit.seconds) for commit in commits[:SAMPLE]]
            for name, commits in history.commits.items()
        }
    )
    planned = list(runs(history, config, why, costs))
    rows_untouched = {name: [n for day, n in history.rows[name].items() if day not in why[name]] for name in TABLES}
    return BackfillPlan(
        request.reason,
        request.first,
        request.last,
        request.table,
        redo=[
            Redo(name, day, history.rows[name].get(day, 0), cause)
            for name in TABLES
            for day, cause in sorted(why[name].items())
        ],
        runs=planned,
        whole=whole_range(history, why, planned, costs),
        optional=list(optional_runs(history, config, request, why, costs)),
        untouched=[Untouched(name, len(rows), sum(rows)) for name, rows in rows_untouched.items()],
        costs=costs,
    )
