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
from model.data.lineage import SETTINGS, differences, listed, publishes, settings_of_examples, span
from model.data.vocabulary import Vocabulary
from model.training.plan import TrainingPlan, split
from model.versions import registry

log = logging.getLogger(__name__)

# An id with fewer events says too little to be learnt; it shares a bucket with others of its kind.
MIN_COUNT = {"item_id": 5, "category_id": 1}
BUCKETS = {"item_id": 16, "category_id": 2}
MAX_SIZE = {"item_id": 1_000_000, "category_id": 50_000}


def plan(run_id: str, as_of: date, valid_dates: int, test_dates: int, *, cold: bool, seed: int) -> TrainingPlan:
    """Pin the newest tables and choose the dates.

    Raises:
        TableMissing: there are no examples up to `as_of`.
        SettingsInvalid: there are too few.
        InputInvalid: some were made with other settings than those in force.
    """
    config = settings()
    tables = {name: Table(name) for name in ("examples", "interests", "events")}
    last = as_of - timedelta(days=config.horizon_days)
    days = [day for day, rows in tables["examples"].rows_by("dt").items() if rows and day <= last]
    if not days:
        raise TableMissing(
            f"there are no examples whose horizon of {config.horizon_days} days ends by {as_of}; run jobs.examples"
        )
    require_alike(tables["examples"], tables["interests"], days, config)
    parts = split(days, config.horizon_days, valid_dates, test_dates)
    known = tables["interests"].rows_by("dt")
    return TrainingPlan(
        run_id,
        as_of,
        {name: table.version for name, table in tables.items()},
        pretrain=[day for day in days if day <= parts.valid[0] and known.get(day)],
        train=parts.train,
        valid=parts.valid,
        test=parts.test,
        horizon_days=config.horizon_days,
        lookback_days=config.lookback_days,
        min_events=config.min_events,
        sequence_length=config.sequence_length,
        warm_start=None if cold else registry.find_champion(as_of),
        seed=seed,
    )


def require_alike(examples: Table, interests: Table, days: Sequence[date], config: Settings) -> None:
    """Refuse examples that were made with other settings than those in force: their labels mean something else.

    Raises:
        InputInvalid: the message names the dates, both values, and how to make the examples again.
    """
    labels, states = publishes(examples), publishes(interests)
    in_force = {name: int(getattr(config, name)) for name in SETTINGS}
    made_with = {day: settings_of_examples(labels, states, day) for day in days}
    for name, variable in SETTINGS.items():
        other = [day for day in days if name in differences(made_with[day], in_force)]
        if other:
            values = " or ".join(str(value) for value in sorted({made_with[day][name] for day in other}))
            tables = ["interests", "examples"] if name == "lookback_days" else ["examples"]
            late = " --include-late" if any(labels[day][0].counts.get("include_late") for day in other) else ""
            commands = "; ".join(
                f"python -m jobs.{table} {span(other)}{late} --run-id again, then expectations.audit and lake.publish "
                f"with --table {table} --run-id again"
                for table in tables
            )
            raise InputInvalid(
                f"the examples at {listed(other)} were made with {variable}={values}, and this training has "
                f"{variable}={in_force[name]}: one model cannot learn from both. Make them again with "
                f"{variable}={in_force[name]}: {commands}. Or train with {variable} as they have it"
            )


def vocabularies(made: TrainingPlan) -> list[Vocabulary]:
    """Return the vocabularies of items and categories, from the events that the training may know."""
    spark = spark_session("prepare", settings())
    until = made.train[-1] + timedelta(days=made.horizon_days)
    events = Table("events", made.tables["events"]).read(spark, last=until, landed_by=until)
    found = []
    for field in ("item_id", "category_id"):
        fresh = build(events, field, BUCKETS[field], MIN_COUNT[field], MAX_SIZE[field])
        if made.warm_start is not None:
            old = Vocabulary.load(storage.join(registry.artifact_folder(made.warm_start), "vocabulary"), field)
            fresh = old.extend(fresh.keys, fresh.ids, fresh.counts)
        found.append(fresh)
    return found


def main(argv: list[str] | None = None) -> TrainingPlan:
    """Write the vocabulary, then the plan: a plan that is there is whole."""
    parser = argparse.ArgumentParser(
        prog="model.prepare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--day", type=utc_date, required=True, metavar="D", help="last date that may be known")
    parser.add_argument("--run-id", required=True, metavar="R", help="names the training")
    parser.add_argument("--valid-dates", type=int, default=2, metavar="N", help="as-of dates for validation")
    parser.add_argument("--test-dates", type=int, default=3, metavar="N", help="as-of dates for the test, the newest")
    parser.add_argument("--cold", action="store_true", help="start from nothing, even if there is a champion")
    parser.add_argument("--seed", type=int, default=1, help="of all that is random")
    args = parser.parse_args(argv)
    made = plan(args.run_id, args.day, args.valid_dates, args.test_dates, cold=args.cold, seed=args.seed)
    for found in vocabularies(made):
        found.save(vocabulary_folder(args.run_id))
    made.save()
    log.info(
        "train %s to %s (%d dates), validate %s to %s, test %s to %s, start from %s",
        made.train[0],
        made.train[-1],
        len(made.train),
        made.valid[0],
        made.valid[-1],
        made.test[0],
        made.test[-1],
        f"version {made.warm_start}" if made.warm_start is not None else "nothing",
    )
    return made


if __name__ == "__main__":
    run_main(main)
