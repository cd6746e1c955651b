"""The facts of every table that others than its job have to know, each in one place.

Columns are in lake/schemas.py. Nothing heavy is imported: DAG files read this.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class TableFacts:
    """What is true of one table.

    Attributes:
        meaning: one row, in words.
        made_by: the module whose command stages it.
        made_in: the DAG that makes its days.
        group: tables of one group are staged by one command, and audited and published together.
        reads: the tables that it is made from.
        partition_by: the partition columns.
        owned_by: the partition column whose values a run replaces as a whole.
        every_day: whether each landing day has a partition, also when it is empty: a gap is a problem.
        touching: whether a row may hold events of the day before its own: neighbouring days are published together.
    """

    meaning: str
    made_by: str
    made_in: str
    group: str
    reads: tuple[str, ...] = ()
    partition_by: tuple[str, ...] = ("dt",)
    owned_by: str = "dt"
    every_day: bool = False
    touching: bool = False


# Each after those that it is made from; in this order they are made and shown everywhere. Of a group, it is the order
# in which they are published: whoever sees the events of a landing day can also see what was rejected from it.
TABLES = {
    "quarantine": TableFacts(
        "a rejected input row", "jobs.ingest", made_in="behavior_daily", group="events", every_day=True
    ),
    "events": TableFacts(
        "a cleaned event",
        "jobs.ingest",
        made_in="behavior_daily",
        group="events",
        partition_by=("dt", "landed"),
        owned_by="landed",
        every_day=True,
    ),
    "sessions": TableFacts(
        "a user's events without a long pause",
        "jobs.sessionize",
        made_in="behavior_daily",
        group="sessions",
        reads=("events",),
        every_day=True,
        touching=True,
    ),
    "interests": TableFacts(
        "an active user's state at the end of dt",
        "jobs.interests",
        made_in="behavior_daily",
        group="interests",
        reads=("events",),
    ),
    "examples": TableFacts(
        "an active user's state at the end of dt, with what the user did in the days after it",
        "jobs.examples",
        made_in="model_weekly",
        group="examples",
        reads=("interests", "events"),
    ),
    "predictions": TableFacts(
        "what a model expects of a user after dt",
        "model.score",
        made_in="predict_daily",
        group="predictions",
        reads=("interests",),
    ),
}

# The tables of each group.
GROUPS = {
    group: tuple(name for name, facts in TABLES.items() if facts.group == group)
    for group in dict.fromkeys(facts.group for facts in TABLES.values())
}


def made_by(group: str) -> str:
    """Return the module whose command stages the tables of a group."""
    return TABLES[GROUPS[group][0]].made_by


def read_by(group: str) -> tuple[str, ...]:
    """Return the tables that a group is made from."""
    return TABLES[GROUPS[group][0]].reads


def comes_after(group: str) -> tuple[str, ...]:
    """Return the groups whose tables a group is made from.

    >>> comes_after("examples")
    ('interests', 'events')
    """
    return tuple(dict.fromkeys(TABLES[name].group for name in read_by(group)))


def made_in(dag: str) -> tuple[str, ...]:
    """Return the tables whose days a DAG makes.

    >>> made_in("predict_daily")
    ('predictions',)
    """
    return tuple(name for name, facts in TABLES.items() if facts.made_in == dag)


def groups_of(dag: str) -> tuple[str, ...]:
    """Return the groups whose days a DAG makes, in order.

    >>> groups_of("predict_daily")
    ('predictions',)
    """
    return tuple(dict.fromkeys(TABLES[name].group for name in made_in(dag)))


def way_to(table: str) -> list[str]:
    """Return the tables that have to hold a day before `table` can, in order, and `table` itself as the last.

    >>> way_to("predictions")
    ['events', 'interests', 'predictions']
    """
    before = {name for read in TABLES[table].reads for name in way_to(read)}
    return [*(name for name in TABLES if name in before), table]
