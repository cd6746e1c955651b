"""Plan a training: pin the tables, split the dates by time, and build the vocabulary.

Reads   examples, interests, events    one pinned version of each
Writes  <lake>/_models/<run>/plan.json and vocabulary/

The vocabulary knows the items and categories of the events up to the end of the last training label window. When there
is a champion, the training starts from it: its vocabulary keeps its indices, and what is new follows.
"""

import argparse
import logging
from collections.abc import Sequence
from datetime import date, timedelta

from lake import storage
from lake.days import utc_date
from lake.errors import InputInvalid, TableMissing, run_main
from lake.places import vocabulary_folder
from lake.session import spark_session
from lake.settings import Settings, settings
from lake.table import Table
from model.data.build_vocabulary import build
from model.data.lineage import (
    SETTINGS,
    commands,
    differences,
    listed,
    publishes,
    settings_of_examples,
    value_of,
)
from model.data.vocabulary import Vocabulary
from model.training.plan import TrainingPlan, split
from model.versions.heads import require_heads
from model.versions.registry import Registry

log = logging.getLogger(__name__)

# An id with fewer events says too little to be learnt; it shares a bucket with others of its kind.
MIN_COUNT = {"item_id": 5, "category_id": 1}
BUCKETS = {"item_id": 16, "category_id": 2}
MAX_SIZE = {"item_id": 1_000_000, "category_id": 50_000}


def plan(
    run_id: str,
    as_of: date,
    valid_dates: int,
    test_dates: int,
    config: Settings,
    *,
    alike_from: date | None,
    warm_start: int | None,
    seed: int,
) -> TrainingPlan:
    """Pin the newest tables and choose the dates.

    Args:
        run_id: names the training.
        as_of: D, the last date whose data it may know.
        valid_dates: as-of dates for validation.
        test_dates: as-of dates for the test.
        config: the settings in force.
        alike_from: see `alike`.
        warm_start: registered version to start from, or None.
        seed: of all that is random.

    Raises:
        TableMissing: there are no examples up to `as_of`.
        SettingsInvalid: there are too few.
        InputInvalid: some were made with other settings than those in force.
    """
    tables = {name: Table(name) for name in ("examples", "interests", "events")}
    last = as_of - timedelta(days=config.horizon_days)
    days = [day for day, rows in tables["examples"].rows_by("dt").items() if rows and day <= last]
    if not days:
        raise TableMissing(
            f"there are no examples whose horizon of {config.horizon_days} days ends by {as_of}; run jobs.examples"
        )
    days = alike(tables["examples"], tables["interests"], days, config, alike_from)
    parts = split(days, config.horizon_days, valid_dates, test_dates)
    users = tables["interests"].rows_by("dt")
    return TrainingPlan(
        run_id,
        as_of,
        {name: table.version for name, table in tables.items()},
        pretrain=[day for day in days if day <= parts.valid[0] and users.get(day)],
        train=parts.train,
        valid=parts.valid,
        test=parts.test,
        horizon_days=config.horizon_days,
        lookback_days=config.lookback_days,
        min_events=config.min_events,
        sequence_length=config.sequence_length,
        warm_start=warm_start,
        seed=seed,
        behavior_weights=config.behavior_weights,
    )


def alike(
    examples: Table, interests: Table, days: Sequence[date], config: Settings, alike_from: date | None = None
) -> list[date]:
    """Return the dates whose examples were made with the settings in force: labels of others mean something else.

    model_weekly makes the examples of its weeks alone, and earlier ones may never be made again. So dates before
    `alike_from` are left out, with a warning, where examples of other settings on later dates are an error: a training
    that shrank by itself to the weeks since a setting was changed would be a bad model, and nobody would know why.

    Args:
        examples: the table.
        interests: the table.
        days: dates with examples, in their order.
        config: the settings in force.
        alike_from: first date from which on all examples have to be alike; None: all have to.

    Raises:
        InputInvalid: the message names the dates, both values, and the commands that make the examples again.
    """
    labels, states = publishes(examples), publishes(interests)
    in_force = {name: value_of(name, getattr(config, name)) for name in SETTINGS}
    made_with = {day: settings_of_examples(labels, states, day) for day in days}
    left_out: set[date] = set()
    for name, variable in SETTINGS.items():
        unlike = [day for day in days if name in differences(made_with[day], in_force)]
        required = [day for day in unlike if alike_from is None or day >= alike_from]
        values = " or ".join(str(value) for value in sorted({made_with[day][name] for day in required or unlike}))
        wanted = f"{variable}={in_force[name]}"
        # Of several values, or of labels and states that differ, there is none to train with.
        otherwise = "" if " " in values else f". Or train with {variable} as they have it"
        if required:
            raise InputInvalid(
                f"the examples at {listed(required)} were made with {variable}={values}, and this training has "
                f"{wanted}: one model cannot learn from both. Make them again with {wanted}: "
                f"{commands(labels, name, in_force[name], required)}{otherwise}"
            )
        if unlike:
            log.warning(
                "the examples at %s are left out: they were made with %s=%s, and this training has %s; to learn from "
                "them too, make them again with %s: %s",
                listed(unlike), variable, values, wanted, wanted, commands(labels, name, in_force[name], unlike),
            )  # fmt: skip
            left_out.update(unlike)
    return [day for day in days if day not in left_out]


def vocabularies(plan: TrainingPlan, registry: Registry, config: Settings) -> list[Vocabulary]:
    """Return the vocabularies of items and categories, from the events that the training may know."""
    if plan.warm_start is not None:
        require_heads(registry.artifact_folder(plan.warm_start))
    spark = spark_session("prepare", config)
    until = plan.train[-1] + timedelta(days=plan.horizon_days)
    events = Table("events", plan.tables["events"]).read(spark, last=until, landed_by=until)
    of_fields = []
    for field in ("item_id", "category_id"):
        vocabulary = build(events, field, BUCKETS[field], MIN_COUNT[field], MAX_SIZE[field])
        if plan.warm_start is not None:
            old = Vocabulary.load(storage.join(registry.artifact_folder(plan.warm_start), "vocabulary"), field)
            vocabulary = old.extend(vocabulary.keys, vocabulary.ids, vocabulary.counts)
        of_fields.append(vocabulary)
    return of_fields


def main(argv: list[str] | None = None) -> TrainingPlan:
    """Write the vocabulary, then the plan: a plan that is there is whole."""
    parser = argparse.ArgumentParser(
        prog="model.prepare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--day", type=utc_date, required=True, metavar="D", help="last date that may be known")
    parser.add_argument("--run-id", required=True, metavar="R", help="names the training")
    parser.add_argument("--valid-dates", type=int, default=2, metavar="N", help="as-of dates for validation")
    parser.add_argument("--test-dates", type=int, default=3, metavar="N", help="as-of dates for the test, the newest")
    parser.add_argument(
        "--alike-from",
        type=utc_date,
        metavar="T",
        help="examples of other settings are left out before this date, and an error from it on; default: an error",
    )
    parser.add_argument("--cold", action="store_true", help="start from nothing, even if there is a champion")
    parser.add_argument("--seed", type=int, default=1, help="of all that is random")
    args = parser.parse_args(argv)
    config = settings()
    registry = Registry.of(config)
    training = plan(
        args.run_id,
        args.day,
        args.valid_dates,
        args.test_dates,
        config,
        alike_from=args.alike_from,
        warm_start=None if args.cold else registry.find_champion(args.day, other_than=args.run_id),
        seed=args.seed,
    )
    for vocabulary in vocabularies(training, registry, config):
        vocabulary.save(vocabulary_folder(args.run_id))
    training.save()
    log.info(
        "train %s to %s (%d dates), validate %s to %s, test %s to %s, start from %s",
        training.train[0],
        training.train[-1],
        len(training.train),
        training.valid[0],
        training.valid[-1],
        training.test[0],
        training.test[-1],
        f"version {training.warm_start}" if training.warm_start is not None else "nothing",
    )
    return training


if __name__ == "__main__":
    run_main(main)
