"""The tables, written down by hand once for all tests, of which one compares this with lake/tables.py.

A test whose list came from there would pass without a table that somebody has dropped there.
"""

from typing import NamedTuple


class Known(NamedTuple):
    """What lake/tables.py has to say of a table."""

    group: str
    made_in: str
    reads: tuple[str, ...]
    every_day: bool


KNOWN = {
    "quarantine": Known("events", "behavior_daily", (), every_day=True),
    "events": Known("events", "behavior_daily", (), every_day=True),
    "sessions": Known("sessions", "behavior_daily", ("events",), every_day=True),
    # Of days that are asked for.
    "interests": Known("interests", "behavior_daily", ("events",), every_day=False),
    # Once a week.
    "examples": Known("examples", "model_weekly", ("interests", "events"), every_day=False),
    # Where there is a model.
    "predictions": Known("predictions", "predict_daily", ("interests",), every_day=False),
}


def of_dag(dag: str) -> tuple[str, ...]:
    """Return the tables whose days a DAG makes."""
    return tuple(name for name, known in KNOWN.items() if known.made_in == dag)


def of_group(group: str) -> tuple[str, ...]:
    """Return the tables of a group, in the order in which they are published."""
    return tuple(name for name, known in KNOWN.items() if known.group == group)


def groups_of(dag: str) -> tuple[str, ...]:
    """Return the groups of the tables whose days a DAG makes."""
    return tuple(dict.fromkeys(KNOWN[name].group for name in of_dag(dag)))
