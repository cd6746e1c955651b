"""The flow of interest between categories on a day, predicted and actual; and the drift of predictions.

Small aggregates of one partition or a few columns, computed by delta-rs: it opens only the files that the log names
for them. A `Cache` keeps an answer for the version of the table that it was computed from.
"""

from collections import defaultdict
from dataclasses import dataclass
from datetime import date
from typing import Any

from dags.page.cache import Cache
from lake.labels import LABELS
from lake.table import Table

ROUNDING = 1e-6  # tolerance of sums of probabilities
NO_CATEGORY, NOTHING, REST = "(no category)", "(did nothing)", "(any other)"

# All give (source, target, users, members); the number of users of a prediction is expected, so it is a sum of
# probabilities. Members are the users behind a number.
PREDICTED = """
select source, target, sum(users) as users, count(*) as members from (
    select coalesce(current_category, '{none}') as source, unnest(category_ids) as target,
           unnest(category_probabilities) as users
    from predictions where dt = date '{day}'
) group by 1, 2
"""
# The probability of all but the ten most likely categories.
REMAINDER = """
select coalesce(current_category, '{none}') as source, '{rest}' as target,
       sum(1 - coalesce(array_sum(category_probabilities), 0)) as users, count(*) as members
from predictions where dt = date '{day}' group by 1
"""
ACTUAL = """
select coalesce(dominant_category, '{none}') as source,
       case when next_events = 0 then '{nothing}' else coalesce(next_category, '{none}') end as target,
       cast(count(*) as double) as users, count(*) as members
from examples where dt = date '{day}' group by 1, 2
"""
DRIFT = """
select dt, count(*) as users, {means} from predictions group by dt order by dt
""".format(means=", ".join(f"avg({label.probability}) as {label.score}" for label in LABELS))


@dataclass(frozen=True)
class Flow:
    """Users whose interest goes from one category to another (or stays); an expected number is a fraction.

    `members` are the users behind the number, of whom each may count for a part of one.
    """

    source: str
    target: str
    users: float
    members: int


@dataclass(frozen=True)
class Mover:
    """A category that gains or loses users: the users with it as their main interest, now and then."""

    category: str
    now: float
    then: float

    @property
    def change(self) -> float:
        return self.then - self.now


def available_days() -> list[date]:
    """Return the days with a flow, predicted or actual, the newest first."""
    days: set[date] = set()
    for name in ("predictions", "examples"):
        table = Table.find(name)
        days |= set(table.rows_by("dt")) if table else set()
    return sorted(days, reverse=True)


def predicted(cache: Cache, day: date, min_group: int = 1) -> list[Flow]:
    """Return the expected flows of the published predictions of a day, the greatest first; none without them."""
    table = Table.find("predictions")
    if table is None:
        return []
    rest = [flow for flow in _flows(cache, table, day, REMAINDER) if flow.users > ROUNDING]
    return in_groups(_flows(cache, table, day, PREDICTED) + rest, min_group)


def actual(cache: Cache, day: date, min_group: int = 1) -> list[Flow]:
    """Return the flows in the horizon after a day, the greatest first; none before its `examples` are published."""
    table = Table.find("examples")
    return in_groups(_flows(cache, table, day, ACTUAL), min_group) if table else []


def in_groups(flows: list[Flow], least: int) -> list[Flow]:
    """Return flows of which each has `least` members: smaller ones say of single people what they did.

    They are added up to (any other) of their source, with the smallest of its larger flows where they would be told by
    themselves otherwise. Where there is none, the source is left out. A user may be behind several small flows, so the
    largest of them says how many are behind all of them at least.
    """
    if least == 1:
        return flows
    kept: list[Flow] = []
    for source in dict.fromkeys(flow.source for flow in flows):
        mine = sorted((flow for flow in flows if flow.source == source), key=lambda flow: flow.members)
        small = [flow for flow in mine if flow.members < least]
        large = mine[len(small) :]
        # Those that are (any other) already come first.
        large.sort(key=lambda flow: flow.target != REST)
        if small and large:
            small.append(large.pop(0))
            kept.append(Flow(source, REST, sum(flow.users for flow in small), max(flow.members for flow in small)))
        kept += large
    return sorted(kept, key=lambda flow: (flow.target == REST, -flow.users, flow.source, flow.target))


def movers(flows: list[Flow]) -> list[Mover]:
    """Return the categories by how many users they gain or lose, the greatest change first."""
    now: dict[str, float] = defaultdict(float)
    then: dict[str, float] = defaultdict(float)
    for flow in flows:
        now[flow.source] += flow.users
        then[flow.target] += flow.users
    categories = (set(now) | set(then)) - {NO_CATEGORY, NOTHING, REST}
    changes = [Mover(category, now[category], then[category]) for category in sorted(categories)]
    return sorted(changes, key=lambda mover: -abs(mover.change))


def drift(cache: Cache) -> list[dict[str, Any]]:
    """Return for each day of predictions: dt, users, and the mean of each score of `LABELS`."""
    table = Table.find("predictions")
    return _answer(cache, table, DRIFT) if table else []


def _flows(cache: Cache, table: Table, day: date, sql: str) -> list[Flow]:
    # The text contains a date and constants of this module, and nothing that a person has typed.
    text = sql.format(day=day, none=NO_CATEGORY, nothing=NOTHING, rest=REST)
    flows = [Flow(**row) for row in _answer(cache, table, text)]
    return sorted(flows, key=lambda flow: (-flow.users, flow.source, flow.target))


def _answer(cache: Cache, table: Table, sql: str) -> list[dict[str, Any]]:
    return cache.of_version(table, sql, lambda: table.query(sql).to_pylist())
