"""Watch a day D: what came true of the predictions, whether inputs and scores drift, whether as much landed as usual.

Reads   predictions, examples, interests    published versions; the log of `events`; the names of landing files
Writes  <lake>/_monitor/<D>.json            the findings, one entry for each number

Outcomes are judged at one date T: the newest one with predictions, and with examples made with the settings of the
model that predicted, once the horizon of that model is over. The metrics are those of model.evaluate, by model version,
beside their values in the evaluation of that version.

Drift is the population stability index (Siddiqi, "Credit Risk Scorecards", 2006): the sum of (p - q) ln(p / q) over
the groups of a number. Above 0.25, it is called a major shift there. With few users, or many groups, chance alone
exceeds that (arXiv:2307.11878): it gives about chi-squared of groups - 1, times 1/n + 1/m for n and m users. So a shift
has to be above the 99th percentile of this as well.

Nothing here runs Spark: delta-rs aggregates the tables, and outcomes are those of a sample of users.
"""

import argparse
import functools
import json
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import chi2

from lake import storage
from lake.days import utc_date
from lake.deliveries import changed_since_read, published
from lake.errors import ModelMissing, run_main
from lake.labels import LABELS, NAMES, PROBABILITIES
from lake.landing import Landing
from lake.places import metrics_file, monitor_file
from lake.settings import Settings, settings
from lake.table import Table
from model.data.lineage import (
    OF_INTERESTS,
    SETTINGS,
    Value,
    commands,
    differences,
    publishes,
    settings_of_examples,
)
from model.judging.metrics import UserBootstrap, binary_metrics, checked_binary
from model.versions.registry import Registry
from model.versions.sets import held

log = logging.getLogger(__name__)

# Newest dates that are searched for one that can be judged: older outcomes are no news.
MAX_DATES = 60

# Enough for intervals of a percent; all users where there are fewer.
SAMPLE = 20_000
RESAMPLES = 300
SETS = "set coverage"
MAJOR_SHIFT = 0.25
CHANCE = 0.99
# The usual volume is the median of the same weekday in so many weeks before. A shop's days differ less than this.
WEEKS, USUAL = 4, (0.5, 2.0)
# A day is compared with the predictions before it if they are not older.
RECENT_DAYS = 14
INPUTS = ("frequency", "recency_seconds", "history_events", "purchases")
# The sections of docs/runbook.md, by kind.
SECTIONS = {
    "outcome": "outcomes-worse",
    "score drift": "scores-drift",
    "input drift": "inputs-drift",
    "volume": "volume-unusual",
    "landing": "landing-changed",
}


@dataclass(frozen=True)
class Finding:
    """One number of a day, and whether it is unusual.

    Attributes:
        kind: a key of SECTIONS.
        name: of the metric or column.
        table: it comes from.
        day: it is about.
        model_version: that predicted; None where no model is behind it.
        value: the number.
        low, high: 95 % interval of `value`; None where it has none.
        reference: what it is compared with; None where there is nothing to compare.
        ok: whether nobody has to look at it.
        why: the number and what was expected, in words.
    """

    kind: str
    name: str
    table: str
    day: date
    model_version: int | None
    value: float
    low: float | None
    high: float | None
    reference: float | None
    ok: bool
    why: str


def psi(now: Mapping[Any, float], before: Mapping[Any, float]) -> float:
    """Return the population stability index of two distributions given as counts by group, 0 for equal shares.

    >>> psi({"a": 50, "b": 50}, {"a": 500, "b": 500})
    0.0
    >>> round(psi({"a": 90, "b": 10}, {"a": 50, "b": 50}), 2)
    0.85
    """
    groups = sorted({*now, *before}, key=str)
    # Half a row more in each: a group that is empty on one side would count infinitely.
    p, q = (np.array([counts.get(group, 0) + 0.5 for group in groups], float) for counts in (now, before))
    p, q = p / p.sum(), q / q.sum()
    return float(np.sum((p - q) * np.log(p / q)))


def tenths(counts: Mapping[int, int], before: Mapping[int, int]) -> dict[int, int]:
    """Return counts by tenths of the users of the day before: most scores are small, and equal widths would hide them.

    Args:
        counts: of the day to be put into groups, by thousandths of the score.
        before: those of the day before.

    >>> tenths({1: 5, 2: 1, 700: 4}, {1: 90, 2: 10})
    {4: 5, 9: 5}
    """
    below, total, by_tenth = 0, sum(before.values()), dict[int, int]()
    for score in sorted({*counts, *before}):
        here = before.get(score, 0)
        # By the middle of its users: a score below or above all of the day before is apart from them.
        tenth = min(9, 10 * (2 * below + here) // (2 * total))
        by_tenth[tenth] = by_tenth.get(tenth, 0) + counts.get(score, 0)
        below += here
    return by_tenth


# --- outcomes ---


def outcomes(day: date, config: Settings) -> list[Finding]:
    """Judge the newest predictions whose horizon is over by `day`; nothing while there are none.

    Args:
        day: D.
        config: names the registry, which a lake without predictions need not have.
    """
    predictions, examples = Table.find("predictions"), Table.find("examples")
    if predictions is None or examples is None:
        return []
    registry = Registry.of(config)
    judged = judged_date(day, predictions, examples, registry)
    if judged is None:
        return []
    share = min(1.0, SAMPLE / max(1, predictions.rows_by()[judged]))
    # A user is in the sample of every day or of none.
    upto = f"{int(share * 0xFFFF):04x}"
    rows = predictions.query(
        f"""
        select p.user_id, p.model_version, p.category_ids, p.category_probabilities, e.next_category,
               {", ".join(f"p.{label.probability}, e.{label.name}" for label in LABELS)}
        from predictions p join examples e on p.user_id = e.user_id
        where p.dt = date '{judged}' and e.dt = date '{judged}' and substr(md5(p.user_id), 1, 4) <= '{upto}'
        order by p.user_id
        """,
        examples,
    ).to_pandas()
    findings = []
    for version in map(int, np.unique(rows["model_version"])):
        evaluation = evaluation_of(version, registry)
        for name, value, low, high in measured(rows[rows["model_version"] == version]):
            findings.append(outcome(name, judged, version, value, low, high, evaluation.get(name)))
        findings += sets(rows[rows["model_version"] == version], judged, version, registry)
    return findings


def sets(rows: pd.DataFrame, day: date, version: int, registry: Registry) -> list[Finding]:
    """Judge whether the sets of categories hold the next one as often as the version promises.

    A prediction has TOP_CATEGORIES categories. Where the set goes on behind them and none of them came, it is not known
    whether the set held what came: such a user counts as held. So what is found is never too low, and an alarm is true.

    Args:
        rows: of `predictions`, with their `next_category`.
        day: T.
        version: that predicted.
        registry: whose tags of the version have the reach and the coverage of its sets; without them nothing is judged.
    """
    tags = registry.describe(version)
    rows = rows[rows["next_category"].notna()]
    if "set_reach" not in tags or rows.empty:
        return []
    reach, coverage = float(tags["set_reach"]), float(tags["set_coverage"])
    may_hold = np.array(
        [
            may_be_held(list(ids), list(chances), came, reach)
            for ids, chances, came in zip(
                rows["category_ids"], rows["category_probabilities"], rows["next_category"], strict=True
            )
        ]
    )
    means = UserBootstrap(rows["user_id"].to_numpy(), RESAMPLES).means(may_hold[:, None].astype(float))[:, 0]
    value, (low, high) = float(may_hold.mean()), between(means)
    ok = high >= coverage
    why = f"sets of categories of version {version} on {day} hold the next one for {value:.1%} of users at most" + (
        f", and {coverage:.0%} is promised" + ("" if ok else ": too few by more than chance explains")
    )
    return [Finding("outcome", SETS, "predictions", day, version, value, low, high, coverage, ok, why)]


def may_be_held(ids: list[str], chances: list[float], came: str, reach: float) -> bool:
    """Return whether a set of categories may hold what came, of which the likeliest categories are known.

    >>> may_be_held(["a", "b"], [0.6, 0.3], "b", 0.6), may_be_held(["a", "b"], [0.6, 0.3], "b", 0.5)
    (True, False)

    The set goes on behind b, or ends with it:

    >>> may_be_held(["a", "b"], [0.6, 0.3], "c", 0.9), may_be_held(["a", "b"], [0.6, 0.3], "c", 0.8)
    (True, False)
    """
    before = chances[: ids.index(came)] if came in ids else chances
    return bool(held(np.array([sum(before)]), reach)[0])


def settings_if_registered(version: int, registry: Registry) -> dict[str, Value]:
    """Return the settings that a version was trained with; none when it was taken out of the registry."""
    try:
        return registry.settings_of(version)
    except ModelMissing:
        return {}


def judged_date(day: date, predictions: Table, examples: Table, registry: Registry) -> date | None:
    """Return the newest date whose predictions `day` can judge, or None when there is none.

    The horizon of the model that predicted has to be over, and the examples have to be made with the settings that the
    model learnt with: a prediction for 28 days is neither right nor wrong by labels of 7.
    """
    interests = Table.find("interests")
    labels, states = publishes(examples), publishes(interests) if interests else {}
    dates = sorted(set(predictions.rows_by()) & set(examples.rows_by()), reverse=True)
    settings_of = functools.cache(functools.partial(settings_if_registered, registry=registry))
    for judged in [judged for judged in dates if judged < day][:MAX_DATES]:
        version = version_on(predictions, judged)
        learnt_with = settings_of(version) if version is not None else {}
        # The horizon is not known of a version that was registered without its card, or has left the registry.
        horizon = learnt_with.get("horizon_days")
        if horizon is None or judged + timedelta(days=int(horizon)) > day:
            continue
        made_with = settings_of_examples(labels, states, judged)
        names = differences(made_with, learnt_with)
        if not names:
            return judged
        has = ", ".join(f"{SETTINGS[name]}={made_with[name]}" for name in names)
        wanted = " ".join(f"{SETTINGS[name]}={learnt_with[name]}" for name in names)
        first = next((name for name in names if name in OF_INTERESTS), names[0])
        log.warning(
            "the outcomes at %s are not judged: its examples were made with %s, and version %d, which predicted it, "
            "learnt with %s; to judge it, make them again: export %s; %s",
            judged, has, version, wanted.replace(" ", ", "), wanted,
            commands(labels, first, learnt_with[first], [judged]),
        )  # fmt: skip
    return None


def measured(rows: pd.DataFrame) -> list[tuple[str, float, float, float]]:
    """Return (metric, value, low, high) of each metric that these rows define."""
    bootstrap = UserBootstrap(rows["user_id"].to_numpy(), RESAMPLES)
    metrics = []
    hits = np.array(
        [true in list(ranked)[:5] for true, ranked in zip(rows["next_category"], rows["category_ids"], strict=True)]
    )
    has = rows["next_category"].notna().to_numpy()
    moved = has & (rows["migrated"] == True).to_numpy()  # noqa: E712  null is no label
    for name, chosen in (("recall@5", has), ("recall@5 migrated", moved)):
        places = np.flatnonzero(chosen)
        if len(places):
            means = bootstrap.means(hits[places, None].astype(float), places)[:, 0]
            metrics.append((name, float(hits[places].mean()), *between(means)))
    for label in LABELS:
        places = np.flatnonzero(rows[label.name].notna())
        labels, probabilities = rows[label.name].iloc[places], rows[label.probability].iloc[places]
        true, scores = checked_binary(labels.astype(bool).to_numpy(), probabilities.to_numpy())
        if 0 < true.sum() < len(true):
            values = binary_metrics(true, scores)
            areas, _ = bootstrap.areas(true, scores, places)
            metrics.append((f"roc_auc {label.name}", values["roc_auc"], *between(areas)))
            metrics += [
                (f"{metric} {label.name}", values[metric], math.nan, math.nan) for metric in ("log_loss", "brier")
            ]
    return metrics


def between(resamples: Iterable[float]) -> tuple[float, float]:
    """Return the 95 % interval of resamples."""
    low, high = np.nanpercentile(np.asarray(list(resamples)), [2.5, 97.5])
    return float(low), float(high)


def evaluation_of(version: int, registry: Registry) -> dict[str, tuple[float, float]]:
    """Return {metric: (value, low end of its interval)} from the evaluation of a model version."""
    run_id = registry.describe(version).get("run_id", "")
    content = storage.read_json(metrics_file(run_id)) if run_id else None
    evaluation = {}
    for entry in (content or {}).get("metrics", []):
        # Of few users the numbers were left out: NaN, and null in files of JSON that know no NaN.
        known = (each is not None and not math.isnan(each) for each in (entry["value"], entry.get("low")))
        if entry["method"] != "model" or not all(known):
            continue
        if entry["task"] == "next_category" and entry["metric"] == "recall@5" and entry["slice"] in ("all", "migrated"):
            name = "recall@5" if entry["slice"] == "all" else "recall@5 migrated"
        elif entry["task"] in NAMES and entry["metric"] == "roc_auc" and entry["slice"] == "all":
            name = f"roc_auc {entry['task']}"
        else:
            continue
        evaluation[name] = (float(entry["value"]), float(entry["low"]))
    return evaluation


def outcome(
    name: str, day: date, version: int, value: float, low: float, high: float, evaluation: tuple[float, float] | None
) -> Finding:
    """Return the finding on one metric: worse only if its whole interval lies below that of the evaluation."""
    worse = evaluation is not None and not math.isnan(high) and high < evaluation[1]
    why = f"{name} of version {version} on {day}: {value:.3f}"
    if evaluation:
        why += f", of its evaluation {evaluation[0]:.3f}" + ("; worse by more than chance explains" if worse else "")
    lowest, highest = (None, None) if math.isnan(low) else (low, high)
    reference = evaluation[0] if evaluation else None
    return Finding("outcome", name, "predictions", day, version, value, lowest, highest, reference, not worse, why)


# --- drift and volume ---


def score_drift(day: date) -> list[Finding]:
    """Compare the scores of `day` with those of the day predicted before it."""
    table = Table.find("predictions")
    before = recent(table, day)
    if table is None or before is None:
        return []
    findings = []
    for name in PROBABILITIES:
        fine = grouped(table, (day, before), f"cast(floor({name} * 1000) as int)")
        counts = {one: tenths(fine[one], fine[before]) for one in (day, before)}
        findings.append(drift("score drift", name, "predictions", day, before, counts, version_on(table, day)))
    return findings


def input_drift(day: date) -> list[Finding]:
    """Compare the users of `day` with those of the same weekday before."""
    table = Table.find("interests")
    week = [day - timedelta(days=7), day - timedelta(days=14)]
    users = table.rows_by() if table else {}
    before = next((d for d in week if users.get(d)), None)
    if table is None or before is None or not users.get(day):
        return []
    # Doublings: what a shop's users do is spread over orders of magnitude.
    findings = [
        drift("input drift", name, "interests", day, before,
              grouped(table, (day, before), f"cast(floor(log2(1 + {name})) as int)"), None)
        for name in INPUTS
    ]  # fmt: skip
    counts = grouped(table, (day, before), "coalesce(dominant_category, '')")
    findings.append(drift("input drift", "dominant_category", "interests", day, before, counts, None))
    return findings


def grouped(table: Table, days: Sequence[date], group: str) -> dict[date, dict[Any, int]]:
    """Return how many rows of each day are in each group."""
    chosen = ", ".join(f"date '{day}'" for day in days)
    rows = table.query(f"select dt, {group} as g, count(*) as n from {table.name} where dt in ({chosen}) group by 1, 2")
    by_day: dict[date, dict[Any, int]] = {day: {} for day in days}
    for row in rows.to_pylist():
        by_day[row["dt"]][row["g"]] = row["n"]
    return by_day


def drift(
    kind: str,
    name: str,
    table: str,
    day: date,
    before: date,
    counts: Mapping[date, Mapping[Any, int]],
    version: int | None,
) -> Finding:
    """Return the finding on one column: how far its distribution has moved from one day to another."""
    value = psi(counts[day], counts[before])
    groups = len({*counts[day], *counts[before]})
    by_chance = sum(1 / max(1, sum(counts[one].values())) for one in (day, before))
    limit = max(MAJOR_SHIFT, float(chi2.ppf(CHANCE, groups - 1)) * by_chance if groups > 1 else 0)
    why = f"{name} of {table} on {day} against {before}: stability index {value:.2f}, expected below {limit:.2f}"
    return Finding(kind, name, table, day, version, value, None, None, limit, value < limit, why)


def recent(table: Table | None, day: date) -> date | None:
    """Return the last of the recent days before `day` with rows, if `day` itself has some."""
    rows_by_day = table.rows_by() if table else {}
    if not rows_by_day.get(day):
        return None
    return max((d for d in rows_by_day if day - timedelta(days=RECENT_DAYS) <= d < day), default=None)


def version_on(table: Table, day: date) -> int | None:
    """Return the model version that predicted a day: the audit lets only one through."""
    rows = table.head(day, 1)
    return int(rows[0]["model_version"]) if rows else None


def volume(day: date) -> list[Finding]:
    """Compare the events that landed on `day` with the same weekday of the weeks before."""
    table = Table.find("events")
    if table is None or table.basis(day) is None:
        return []
    landed = table.rows_by("landed")
    earlier = [day - timedelta(days=7 * n) for n in range(1, WEEKS + 1)]
    usual = [landed.get(d, 0) for d in earlier if table.basis(d) is not None]
    if not usual or not np.median(usual):
        return []
    reference, value = float(np.median(usual)), float(landed.get(day, 0))
    ok = USUAL[0] <= value / reference <= USUAL[1]
    why = (
        f"{value:,.0f} events landed on {day}; the same weekday of the {len(usual)} weeks before: {reference:,.0f}, "
        f"expected {USUAL[0]:g} to {USUAL[1]:g} times that"
    )
    return [Finding("volume", "events", "events", day, None, value, None, None, reference, ok, why)]


def landing(day: date, config: Settings) -> list[Finding]:
    """Return the recent landing days up to `day` whose files are others than those that were read."""
    table = Table.find("events")
    if table is None:
        return []
    recently = {d: read for d, read in published(table.commits()).items() if 0 <= (day - d).days < RECENT_DAYS}
    return [
        Finding(
            *("landing", "files", "events", d, None, float(found.files), None, None, float(found.read)),
            ok=False,
            why=f"landing day {d}: {found}",
        )
        for d, found in changed_since_read(Landing.of(config), recently).items()
    ]


def watch(day: date, config: Settings) -> list[Finding]:
    """Return the findings of all kinds on a day, from the tables as they are now."""
    return [*outcomes(day, config), *score_drift(day), *input_drift(day), *volume(day), *landing(day, config)]


def main(argv: list[str] | None = None) -> list[Finding]:
    """Watch a day, keep the findings, and print them: one JSON line, for a machine to read."""
    parser = argparse.ArgumentParser(
        prog="model.monitor", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--day", type=utc_date, required=True, metavar="D", help="the day to watch")
    parser.add_argument("--run-id", required=True, metavar="R", help="names the run, for people")
    args = parser.parse_args(argv)
    findings = watch(args.day, settings())
    entries = [{**asdict(finding), "section": SECTIONS[finding.kind]} for finding in findings]
    content = json.loads(json.dumps({"day": args.day, "run_id": args.run_id, "findings": entries}, default=str))
    storage.write_json(monitor_file(args.day), content)
    for finding in findings:
        (log.info if finding.ok else log.warning)("%s: %s", finding.kind, finding.why)
    if not findings:
        log.info("there is nothing to compare yet: no horizon is over, and no day before has the same tables")
    print(json.dumps(content))  # noqa: T201  the answer
    return findings


if __name__ == "__main__":
    run_main(main)
