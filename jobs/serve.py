"""Load the predictions of a day into the serving store, and choose the day that applications see. No Spark.

Reads   predictions                dt=T, one version of the table; only `load`
Writes  the serving store          PostgreSQL at MEANDER_SERVING_URL; nothing in the lake

`load` changes nothing that applications see; `switch` and `rollback` do, each in one transaction. All three may be
killed and repeated. The last printed line is the result as JSON.
"""

import argparse
import json
from datetime import date
from typing import Any

from lake.days import utc_date
from lake.errors import run_main
from lake.serving import load as serving_load
from lake.serving import pointer as serving
from lake.serving.pointer import Limits
from lake.serving.store import open_store
from lake.settings import Settings, settings


def load(values: Settings, day: date, run_id: str, workers: int = serving_load.WORKERS) -> dict[str, Any]:
    """Load a day; applications see no change; see `serving_load.load`."""
    with open_store(values) as store:
        return serving_load.load(
            store,
            day,
            run_id,
            keep=values.serving_keep,
            max_set_aside=values.serving_max_set_aside,
            workers=workers,
        )


def switch(values: Settings, day: date, run_id: str, *, force: bool = False, if_newer: bool = False) -> dict[str, Any]:
    """Let applications see a loaded day, then drop generations beyond the retention; see `serving.switch`."""
    with open_store(values) as store:
        result = serving.switch(store, day, run_id, Limits.of(values), force=force, if_newer=if_newer)
        dropped = serving_load.prune_unless_busy(store, values.serving_keep)
    return {**result, "dropped": dropped}


def rollback(
    values: Settings,
    run_id: str,
    day: date | None = None,
    model_version: int | None = None,
    generation: int | None = None,
) -> dict[str, Any]:
    """Let applications see an older generation again; see `serving.rollback`."""
    with open_store(values) as store:
        return serving.rollback(store, run_id, Limits.of(values), day, model_version, generation)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the three commands."""
    whole = argparse.ArgumentParser(
        prog="jobs.serve", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = whole.add_subparsers(dest="command", required=True)
    load = commands.add_parser("load", help="load a day; applications see no change")
    load.add_argument("--day", type=utc_date, required=True, metavar="T", help="date of the predictions, YYYY-MM-DD")
    load.add_argument(
        "--workers", type=int, default=serving_load.WORKERS, metavar="N", help="connections that copy at once"
    )
    switch = commands.add_parser("switch", help="let applications see a loaded day")
    switch.add_argument("--day", type=utc_date, required=True, metavar="T", help="date of the predictions, YYYY-MM-DD")
    switch.add_argument("--force", action="store_true", help="even if more would change than the limits allow")
    switch.add_argument(
        "--if-newer",
        action="store_true",
        help="only if no later day has been served yet, and this load was not replaced before",
    )
    back = commands.add_parser("rollback", help="let applications see an older day or model again")
    back.add_argument("--day", type=utc_date, metavar="T", help="back to this day; default: the generation before")
    back.add_argument(
        "--model-version", type=int, metavar="N", help="back to the newest day that this version predicted"
    )
    back.add_argument("--generation", type=int, metavar="G", help="back to this generation")
    for command in (load, switch, back):
        command.add_argument(
            "--run-id",
            required=True,
            metavar="R",
            help="recorded in the store; a rollback with the same id happens once",
        )
    return whole


def main(argv: list[str] | None = None) -> None:
    """Run one command and print its result as a JSON line."""
    args = parser().parse_args(argv)
    if args.command == "load":
        result = load(settings(), args.day, args.run_id, args.workers)
    elif args.command == "switch":
        result = switch(settings(), args.day, args.run_id, force=args.force, if_newer=args.if_newer)
    else:
        result = rollback(settings(), args.run_id, args.day, args.model_version, args.generation)
    print(json.dumps(result))  # noqa: T201  the answer, for a machine to read


if __name__ == "__main__":
    run_main(main)
