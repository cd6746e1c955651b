"""What the rows of a date were made with, as their publish wrote it into the log of the table. No data is read."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

from lake.rules import WEIGHTS
from lake.settings import as_text

if TYPE_CHECKING:
    from lake.table import Table

# The settings that examples and models depend on: name in a publish, a plan and a card, and the variable that sets it.
SETTINGS = {
    "horizon_days": "MEANDER_HORIZON_DAYS",
    "min_events": "MEANDER_MIN_EVENTS",
    "lookback_days": "MEANDER_LOOKBACK_DAYS",
    "behavior_weights": "MEANDER_BEHAVIOR_WEIGHTS",
}
# Those that stand behind the interests, and so behind the examples as well.
OF_INTERESTS = ("lookback_days", "behavior_weights")
# A whole number, or the text of a setting that is one.
Value = int | str
# What was made by a code that noted no weights had these.
BEFORE = {"behavior_weights": as_text(WEIGHTS)}


@dataclass(frozen=True)
class Publish:
    """One publish of a date.

    Attributes:
        version: of the table that it made.
        counts: what the job noted, settings among it.
        inputs: {name: version} of the tables that the job read.
    """

    version: int
    counts: Mapping[str, Any]
    inputs: Mapping[str, int]


Publishes = Mapping[date, Sequence[Publish]]


def publishes(table: "Table") -> Publishes:
    """Return the publishes of each as-of date up to the version of a table, newest first."""
    by_date: dict[date, list[Publish]] = defaultdict(list)
    for commit in table.commits():
        counts, inputs = json.loads(commit["counts"]), json.loads(commit["inputs"])
        as_of = counts.get("as_of", [])
        kept = json.loads(commit["refused"])
        for day in [as_of] if isinstance(as_of, str) else as_of:
            if day not in kept:
                by_date[date.fromisoformat(day)].append(Publish(commit["version"], counts, inputs))
    return dict(by_date)


def settings_of_state(states: Publishes, day: date, version: int | None = None) -> dict[str, Value]:
    """Return those of SETTINGS that the interests at a date were made with, as far as their publish says it.

    Args:
        states: publishes of `interests`.
        day: the as-of date.
        version: of `interests`, in which they are looked at; the newest by default.
    """
    publish = next((p for p in states.get(day, ()) if version is None or p.version <= version), None)
    return _settings(publish) if publish else {}


def settings_of_examples(labels: Publishes, states: Publishes, day: date) -> dict[str, Value]:
    """Return those of SETTINGS that the examples at a date, and the interests in them, were made with.

    Weights of behaviors stand behind both; where those of the two differ, they are told as one text with an "and".

    Args:
        labels: publishes of `examples`.
        states: publishes of `interests`.
        day: the as-of date.
    """
    if day not in labels:
        return {}
    publish = labels[day][0]
    state, own = settings_of_state(states, day, publish.inputs.get("interests")), _settings(publish)
    both = dict.fromkeys(made["behavior_weights"] for made in (state, own) if made)
    return {**state, **own, "behavior_weights": " and ".join(map(str, both))}


def value_of(name: str, value: object) -> Value:
    """Return the value of one of SETTINGS, also from the text of a tag."""
    return str(value) if name == "behavior_weights" else int(str(value))


def _settings(publish: Publish) -> dict[str, Value]:
    made_with = {**BEFORE, **publish.counts}
    return {name: value_of(name, made_with[name]) for name in SETTINGS if name in made_with}


def differences(one: Mapping[str, Value], other: Mapping[str, Value]) -> list[str]:
    """Return the names of the settings that both know and that differ.

    >>> differences({"horizon_days": 7, "min_events": 5}, {"horizon_days": 28, "min_events": 5, "lookback_days": 30})
    ['horizon_days']
    """
    return [name for name in SETTINGS if name in one and name in other and one[name] != other[name]]


def listed(days: Sequence[date]) -> str:
    """Name up to ten dates for a message.

    >>> listed([date(2017, 1, 1), date(2017, 1, 2)])
    '2017-01-01, 2017-01-02'
    """
    more = f" and {len(days) - 10} more" if len(days) > 10 else ""
    return ", ".join(map(str, days[:10])) + more


def spans(days: Sequence[date]) -> list[list[date]]:
    """Divide dates, given in their order, into parts of equal steps: a job makes each part in one run.

    >>> weekly = [date(2017, 1, 1), date(2017, 1, 8), date(2017, 1, 15)]
    >>> [[day.day for day in part] for part in spans([*weekly, date(2017, 1, 16), date(2017, 1, 18)])]
    [[1, 8, 15], [16, 18]]
    """
    parts: list[list[date]] = []
    for day in days:
        if parts and (len(parts[-1]) == 1 or day - parts[-1][-1] == parts[-1][1] - parts[-1][0]):
            parts[-1].append(day)
        else:
            parts.append([day])
    return parts


def as_arguments(span: Sequence[date]) -> str:
    """Return the arguments by which a job makes just the dates of one of `spans`.

    >>> as_arguments([date(2017, 1, 1), date(2017, 1, 8), date(2017, 1, 15)])
    '--from 2017-01-01 --to 2017-01-15 --every 7'
    >>> as_arguments([date(2017, 1, 1)])
    '--day 2017-01-01'
    """
    if len(span) == 1:
        return f"--day {span[0]}"
    return f"--from {span[0]} --to {span[-1]} --every {(span[1] - span[0]).days}"


def commands(labels: Publishes, name: str, value: Value, days: Sequence[date]) -> str:
    """Return the commands that make the examples of some dates again, as they were made: with late events or without.

    Args:
        labels: publishes of `examples`.
        name: of the setting that differs; the lookback and the weights are those of `interests`, which are made again
            first.
        value: the setting in force, which becomes a part of the run ids.
        days: the dates, in their order.
    """
    lines = []
    value = str(value).replace("=", "-").replace(",", "-")
    for table in ("interests", "examples") if name in OF_INTERESTS else ("examples",):
        for flag in ("", " --include-late"):
            for span in spans([day for day in days if bool(labels[day][0].counts.get("include_late")) == bool(flag)]):
                run = f"--run-id {name}-{value}-{span[-1]}"
                lines.append(
                    f"python -m jobs.{table} {as_arguments(span)}{flag} {run} && "
                    f"python -m expectations.audit --table {table} {run} && "
                    f"python -m lake.publish --table {table} {run}"
                )
    return "; ".join(lines)
