"""A plan from what is published now, or from any history."""

from datetime import date

from lake.backfill.costs import Costs
from lake.backfill.history import History
from lake.backfill.partitions import Asked, partitions
from lake.backfill.plan import CODE, REASONS, Plan, Redo, Untouched
from lake.backfill.runs import optional_runs, runs, whole_range
from lake.errors import SettingsInvalid
from lake.schemas import TABLES
from lake.settings import Settings, settings

# So many of the newest commits of a table say how long one takes.
REMEMBERED = 50


def make(reason: str, first: date | None = None, last: date | None = None, table: str = "events") -> Plan:
    """Plan a backfill from what is published now.

    Args:
        reason: `late-data`: whatever does not know all events that have landed since. `bad-day`: landing days that are
            delivered again. `code`: the job of a table has changed.
        first: of `late-data` and `bad-day`, the first landing day that is looked at; of `code`, the first day of the
            table. Only `late-data` can do without: it looks at all.
        last: the last such day, included.
        table: of `code`, whose job has changed.

    Raises:
        SettingsInvalid: an argument cannot be taken.
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
    return plan(History.read(), settings(), Asked(reason, first, last, table))


def plan(history: History, config: Settings, asked: Asked) -> Plan:
    """Find the partitions, then the runs that make them."""
    why = partitions(history, config, asked)
    costs = Costs(
        {name: [(c.rows, c.seconds) for c in commits[:REMEMBERED]] for name, commits in history.commits.items()}
    )
    planned = list(runs(history, config, why, costs))
    kept = {name: [n for day, n in history.rows[name].items() if day not in why[name]] for name in TABLES}
    return Plan(
        asked.reason,
        asked.first,
        asked.last,
        asked.table,
        redo=[
            Redo(name, day, history.rows[name].get(day, 0), found)
            for name in TABLES
            for day, found in sorted(why[name].items())
        ],
        runs=planned,
        whole=whole_range(history, why, planned, costs),
        optional=list(optional_runs(history, config, asked, why, costs)),
        untouched=[Untouched(name, len(left), sum(left)) for name, left in kept.items()],
        costs=costs,
    )
