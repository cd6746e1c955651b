"""Say in words what a model expects of one user, and why: what they did, where they are, what the model looked at.

Reads one row of `interests` and the files of a registered version, without Spark; `meander explain` prints it. It
predicts again what `model.score` published, by the same functions.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import date
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql.pandas.types import to_arrow_schema

from lake import storage
from lake.errors import SettingsInvalid
from lake.labels import LABELS, NAMES
from lake.rules import BEHAVIORS
from lake.table import Table
from model.arrays import Array
from model.data.lineage import publishes, settings_of_state
from model.score import load_artifact, predict_rows, published_interests, to_frame
from model.versions.registry import Registry
from model.versions.segments import DAY_SECONDS, SegmentRule
from model.versions.sets import sizes

if TYPE_CHECKING:
    from model.versions.artifact import Artifact

SHOWN = 5


@dataclass(frozen=True)
class Event:
    """One event of the sequence.

    Attributes:
        behavior, item, category: what was done; the raw ids as the model's vocabulary knows them.
        seconds_ago: from the event to the end of the day.
        attention: share of the model's attention, 0 to 1; None for events further back than it looks.
    """

    behavior: str
    item: str
    category: str
    seconds_ago: int
    attention: float | None


@dataclass(frozen=True)
class Side:
    """One answer of a stack, and what it is made of.

    Attributes:
        answer: a category, or what a label's user does.
        network, trees: what each says by itself, a probability. The trees judge each category by itself: theirs need
            not add up to 1.
        together: what is published.
    """

    answer: str
    network: float
    trees: float
    together: float


@dataclass(frozen=True)
class CategorySet:
    """The smallest set of categories that holds the next one with a stated probability (model/versions/sets.py).

    Attributes:
        coverage: that probability, as an average over users.
        categories: likeliest first.
    """

    coverage: float
    categories: list[str]


@dataclass(frozen=True)
class Explanation:
    """What is known of a user at the end of a day, and what a model version makes of it.

    Attributes:
        horizon_days: H of the model, which says how far its prediction reaches.
        lookback_days: W of the state, the days behind `current`.
        learnt_lookback_days: W of the states that the model learnt from.
        events: newest first.
        current, history: (category, share) of the lookback and of the whole history, largest first.
        prediction: the row of `predictions`.
        reason: why the user is in the segment.
        sides: the answers of a version that is a stack, the likeliest categories first; none of a network alone.
        set: None where the version was registered without.
        never: the labels that no example of the lake has: of a log without purchases, `purchased`.
    """

    user: str
    day: date
    version: int
    horizon_days: int
    lookback_days: int
    learnt_lookback_days: int
    events: list[Event]
    current: list[tuple[str, float]]
    history: list[tuple[str, float]]
    prediction: dict[str, Any]
    reason: str
    sides: list[Side] = field(default_factory=list)
    set: CategorySet | None = None
    never: frozenset[str] = frozenset()


def explain(
    user: str,
    day: date,
    registry: Registry,
    version: int | None = None,
    load: Callable[[str], "Artifact"] = load_artifact,
) -> Explanation:
    """Explain one user at one date.

    Args:
        user: the shop's own id.
        day: T.
        registry: of the model.
        version: of the model; by default the one that made the published predictions of that date, else its champion.
        load: makes an artifact of an address.

    Raises:
        SettingsInvalid: there is no state of that user at that date.
        TableMissing: there are no states at that date.
        ModelMissing: there is no such version, or none was champion.
    """
    table = published_interests(day)
    state = find_user(table, day, user)
    if state is None:
        raise SettingsInvalid(
            f"user {user!r} has no state at {day}: none of their events in the lookback up to it was known then; "
            "check the id, or choose another --day"
        )
    chosen = version or published_version(day) or registry.champion_at(day)
    artifact = load(registry.artifact_folder(chosen))
    lookback = settings_of_state(publishes(table), day).get("lookback_days")
    found = explanation(artifact, chosen, state, None if lookback is None else int(lookback))
    return replace(found, never=labels_without_users())


def labels_without_users() -> frozenset[str]:
    """Return the labels that no example has; none if there are no examples, which then tell nothing."""
    table = Table.find("examples")
    if table is None:
        return frozenset()
    (known,) = table.query(f"select {', '.join(f'max({name}) as {name}' for name in NAMES)} from examples").to_pylist()
    return frozenset(name for name, some in known.items() if some is False)


def published_version(day: date) -> int | None:
    """Return the model version behind the published predictions of a date, or None when there are none."""
    table = Table.find("predictions")
    rows = table.head(day, 1) if table else []
    return int(rows[0]["model_version"]) if rows else None


def find_user(table: Table, day: date, user: str) -> pa.RecordBatch | None:
    """Return the row of one user at one date as a batch of one row, or None: reads little but the column of ids."""
    schema = to_arrow_schema(table.spec.schema)
    for data in (file for file in table.files if file.partition["dt"] == day):
        with storage.parquet_file(storage.join(table.path, data.path)) as file:
            for group in range(file.num_row_groups):
                users = file.read_row_group(group, columns=["user_id"]).column(0)
                place = pc.index(users, user).as_py()
                if place < 0:
                    continue
                row = file.read_row_group(group).slice(place, 1).combine_chunks()
                values = {name: row[name].combine_chunks() for name in row.column_names} | {"dt": pa.array([day])}
                return pa.RecordBatch.from_arrays([values[f.name].cast(f.type) for f in schema], schema=schema)
    return None


def explanation(
    artifact: "Artifact", version: int, state: pa.RecordBatch, lookback_days: int | None = None
) -> Explanation:
    """Return what an artifact makes of one row of `interests`.

    Args:
        artifact: the model.
        version: its number.
        state: the row.
        lookback_days: W that the row was made with; None where nobody noted it: then it is taken for that of the model.
    """
    rule = SegmentRule.of(artifact.card)
    (known,) = state.to_pylist()
    (prediction,) = predict_rows(artifact, version, state).to_pylist()
    frame = to_frame(state)
    weights = np.asarray(artifact.attention(frame), np.float64)
    return Explanation(
        user=known["user_id"],
        day=known["dt"],
        version=version,
        horizon_days=int(artifact.card["horizon_days"]),
        lookback_days=lookback_days or rule.new_days,
        learnt_lookback_days=rule.new_days,
        events=_events(artifact, known, weights),
        current=list(zip(known["current_categories"], known["current_shares"], strict=True)),
        history=list(zip(known["longterm_categories"], known["longterm_shares"], strict=True)),
        prediction=prediction,
        reason=reason(known, prediction, rule),
        sides=sides_of(artifact, frame),
        set=set_of(artifact, frame),
    )


def sides_of(artifact: "Artifact", frame: pd.DataFrame) -> list[Side]:
    """Return what network and trees of a stack say of the one user of a frame; nothing of a network alone."""
    stack = artifact.stack
    if stack is None:
        return []
    alone = artifact.predict_alone(frame)
    together = stack.applied(alone, frame)
    sides = []
    if stack.category is not None:
        shown = np.argsort(-together.categories, axis=1, kind="stable")[:, :SHOWN]
        trees = stack.trees.of_offered(frame, shown)[0]
        for place, column in enumerate(shown[0]):
            both = float(alone.categories[0, column]), float(trees[place])
            sides.append(Side(artifact.category_ids[column], *both, float(together.categories[0, column])))
    said = stack.trees.binary(frame)
    for label in (label for label in LABELS if label.name in stack.answers):
        both = float(alone.answers[label.name][0]), float(said[label.name][0])
        sides.append(Side(label.does, *both, float(together.answers[label.name][0])))
    return sides


def set_of(artifact: "Artifact", frame: pd.DataFrame) -> CategorySet | None:
    """Return the set of categories of the one user of a frame, None of a model whose card has no reach for it."""
    if (reach := artifact.card.get("set_reach")) is None:
        return None
    categories = artifact.predict(frame).categories
    many = int(sizes(categories, float(reach))[0])
    columns = np.argsort(-categories, axis=1, kind="stable")[0, :many]
    return CategorySet(float(artifact.card["set_coverage"]), [artifact.category_ids[column] for column in columns])


def _events(artifact: "Artifact", known: dict[str, Any], weights: Array) -> list[Event]:
    # The model keeps the last of the events, oldest first, and padding after them.
    kept = min(len(known["item_keys"]), len(weights))
    attention = [None] * (len(known["item_keys"]) - kept) + weights[:kept].tolist()
    categories = artifact.categories.index(np.asarray(known["category_keys"], np.int64))
    end = (known["dt"] - date(1970, 1, 1)).days * DAY_SECONDS + DAY_SECONDS
    rows = zip(known["behaviors"], known["item_ids"], categories, known["event_seconds"], attention, strict=True)
    return [
        Event(
            BEHAVIORS[behavior - 1],
            item or "",
            artifact.categories.id_of(int(category)),
            end - second,
            weight,
        )
        for behavior, item, category, second, weight in rows
    ][::-1]


def reason(known: dict[str, Any], prediction: dict[str, Any], rule: SegmentRule) -> str:
    """Return in words why a user is in the segment that `model.versions.segments.segments` says.

    Args:
        known: the row of `interests`.
        prediction: the row of `predictions`.
        rule: of the model.
    """
    leaves, moves = prediction["churn_probability"], prediction["migration_probability"]
    match prediction["segment"]:
        case "new" if known["tenure_seconds"] <= rule.new_days * DAY_SECONDS:
            return f"first seen {ago(known['tenure_seconds'])} before, within the lookback of {rule.new_days} days"
        case "new":
            return f"{known['history_events']} events in the whole history, fewer than {rule.new_events}"
        case "at_risk":
            threshold = percent(rule.at_risk)
            return f"the probability of leaving, {percent(leaves)}, reaches the model's threshold of {threshold}"
        case "migrating":
            others = (category for category in prediction["category_ids"] if category != prediction["current_category"])
            target = next(others, None)
            where = f", most likely to {target}" if target else ""
            threshold = percent(rule.migrating)
            return (
                f"the probability of moving on, {percent(moves)}, reaches the model's threshold of {threshold}{where}"
            )
        case _:
            limits = f"{percent(rule.at_risk)} and {percent(rule.migrating)}"
            return f"leaving ({percent(leaves)}) and moving on ({percent(moves)}) stay below the thresholds of {limits}"


def in_words(explained: Explanation, shown: int = SHOWN) -> str:
    """Return an explanation as lines of text.

    Args:
        explained: the user.
        shown: how many events, categories and items are listed at most.
    """
    events, prediction = explained.events, explained.prediction
    percentile = prediction["risk_percentile"]
    unseen = prediction["unseen_events"]
    labels = [label for label in LABELS if label.name not in explained.never]
    untold = {label.does for label in LABELS if label.name in explained.never}
    lines = [
        f"user {explained.user} at the end of {explained.day}, by version {explained.version} of the model",
        "",
        f"Last {min(shown, len(events))} of {len(events)} events, and how much of its attention each got:",
        *(f"  {line}" for line in _event_lines(events[:shown])),
        *([f"  {unseen} of them have an item that the model does not know"] if unseen else []),
        f"Interest of the last {explained.lookback_days} days: {_shares(explained.current[:shown])}",
        f"Interest of the whole history: {_shares(explained.history[:shown])}",
        "",
        f"Expected of the next {explained.horizon_days} days:",
        f"  category: {_shares(_pairs(prediction, 'category')[:shown])}",
        *_set_lines(explained.set, shown),
        f"  item:     {_shares(_pairs(prediction, 'item')[:shown])}",
        "  " + ", ".join(f"{label.does} {percent(prediction[label.probability])}" for label in labels),
        "  risk: "
        + (
            "too few events to say how surprising they are"
            if percentile is None
            else f"recent events are more surprising than those of {percentile:.0f} % of users"
        ),
        *_side_lines([side for side in explained.sides if side.answer not in untold]),
        f"Segment {prediction['segment']}: {explained.reason}.",
    ]
    if explained.lookback_days != explained.learnt_lookback_days:
        lines.append(
            f"Take this with care: the model learnt from interests of {explained.learnt_lookback_days} days, and this "
            f"one is of {explained.lookback_days} (MEANDER_LOOKBACK_DAYS)."
        )
    return "\n".join(lines)


def _event_lines(events: list[Event]) -> list[str]:
    cells = [
        (
            f"{ago(event.seconds_ago)} before",
            event.behavior,
            event.item or "-",
            event.category or "-",
            "further back than it looks" if event.attention is None else percent(event.attention),
        )
        for event in events
    ]
    widths = [max(len(cell[place]) for cell in cells) for place in range(4)] if cells else []
    return ["  ".join([*(part.ljust(n) for part, n in zip(cell, widths, strict=False)), cell[4]]) for cell in cells]


def _set_lines(found: CategorySet | None, shown: int) -> list[str]:
    if found is None:
        return []
    many = len(found.categories)
    names = ", ".join(found.categories[:shown]) + (", ..." if many > shown else "")
    categories = "1 category holds" if many == 1 else f"{many} categories hold"
    return [f"            {categories} the next one with {percent(found.coverage)}: {names}"]


def _side_lines(sides: list[Side]) -> list[str]:
    if not sides:
        return []
    lines = (
        f"  {side.answer}: network {percent(side.network)}, trees {percent(side.trees)}, "
        f"together {percent(side.together)}"
        for side in sides
    )
    return ["The model is a stack, of a network and of boosted trees:", *lines]


def _pairs(prediction: dict[str, Any], kind: str) -> list[tuple[str, float]]:
    return list(zip(prediction[f"{kind}_ids"], prediction[f"{kind}_probabilities"], strict=True))


def _shares(pairs: list[tuple[str, float]]) -> str:
    return ", ".join(f"{name} {percent(share)}" for name, share in pairs) or "none"


def percent(share: float) -> str:
    """Return a share as a percentage; small ones keep a digit more.

    >>> percent(0.4567), percent(0.0123), percent(1.0)
    ('46 %', '1.2 %', '100 %')
    """
    return f"{100 * share:.1f} %" if share < 0.1 else f"{100 * share:.0f} %"


def ago(seconds: int) -> str:
    """Return a duration in its largest fitting unit.

    >>> ago(59), ago(3600), ago(86_400), ago(12 * 86_400)
    ('0 min', '1 h', '1 day', '12 days')
    """
    if seconds < 3600:
        return f"{seconds // 60} min"
    if seconds < DAY_SECONDS:
        return f"{seconds // 3600} h"
    days = seconds // DAY_SECONDS
    return f"{days} day{'' if days == 1 else 's'}"
