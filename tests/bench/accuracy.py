"""Judge the model on a log of your own, beside every baseline: the steps of the DAGs, one after the other, no Airflow.

    python -m tests.bench.accuracy --log events.parquet --work /tmp/judge --from 2011-01-03 --to 2011-12-05 \
        --every 7 --horizon 28
    python -m tests.bench.accuracy --log UserBehavior.csv --source taobao --work /tmp/judge --from 2017-11-25 \
        --to 2017-12-03 --horizon 1 --lookback 3

With `--seeds 1 2 3` it is trained once for each, as run `accuracy` (seed 1), `accuracy-2`, `accuracy-3`, and the gain
by pretraining is told over users and seeds together (`tests.bench.seeds`). With `--adapters`, low-rank adapters are
trained as well; a run that was evaluated without them is evaluated again.

The log is laid out as if each event had landed on its own day. A CSV is one of the source `taobao`; a Parquet file has
the columns of the source `canonical`; where it has no category, the first letters of the item's code are one (stock
codes number like things alike). What is there is not made again, so a stopped run goes on. Prints what `meander model
--run-id accuracy` prints; the report lies in the lake.
"""

import argparse
import json
import os
import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path

import pandas as pd

from lake.errors import InputInvalid

RUN = "accuracy"
# What a command makes, and the module with its arguments.
Step = tuple[Path, list[object]]
TAOBAO = ["user", "item", "category", "type", "time"]


def land(log: Path, source: str, landing: Path, first: date, last: date, prefix: int) -> list[date]:
    """Write the events of `first` to `last` into the folders of their days, and return the days."""
    if source == "taobao":
        events = pd.read_csv(log, header=None, names=TAOBAO)
        dates = pd.to_datetime(events["time"], unit="s").dt.date
    else:
        events = pd.read_parquet(log)
        events["category_id"] = events["category_id"].fillna(events["item_id"].str[:prefix])
        events["behavior"] = events["behavior"].replace("buy", "purchase")
        dates = events["event_time"].dt.date
    days = [first + timedelta(days=n) for n in range((last - first).days + 1)]
    # Days without an event land too: they were quiet, not missing.
    for day in days:
        folder = landing / f"dt={day}"
        folder.mkdir(parents=True, exist_ok=True)
        part = events[dates == day]
        if source == "taobao":
            part.to_csv(folder / "part.csv", header=False, index=False)
        elif len(part):
            part.to_parquet(folder / "part.parquet", index=False)
    return days


def run_of(seed: int, lake: Path) -> str:
    """Return the name of the run of a seed.

    Raises:
        InputInvalid: the run is there, with another seed.
    """
    run = RUN if seed == 1 else f"{RUN}-{seed}"
    plan = lake / "_models" / run / "plan.json"
    if plan.exists() and (found := json.loads(plan.read_text())["seed"]) != seed:
        raise InputInvalid(
            f"--seeds: run {run!r} in {lake} was made with the seed {found}, not {seed}; give another --work, or "
            f"remove {plan.parent}"
        )
    return run


def training_steps(run: str, seed: int, lake: Path, last: date, dates: list[object], *, adapters: bool) -> list[Step]:
    """Return the steps of a run, in order."""
    models, of_run = lake / "_models" / run, ["--run-id", run]
    lora: list[Step] = [(models / "lora", ["model.finetune", "--adapter", "lora", *of_run])] if adapters else []
    return [
        (models / "plan.json", ["model.prepare", "--day", last, "--cold", "--seed", seed, *dates, *of_run]),
        (models / "pretrained", ["model.pretrain", *of_run]),
        (models / "finetuned", ["model.finetune", *of_run]),
        (models / "scratch", ["model.finetune", "--start", "scratch", *of_run]),
        *lora,
        (models / "evaluation", ["model.evaluate", *of_run]),
    ]


def due(steps: list[Step]) -> list[list[object]]:
    """Return the commands from the first one on whose result is not there: what comes after it reads what it makes."""
    first = next((place for place, (made, _) in enumerate(steps) if not made.exists()), len(steps))
    return [command for _, command in steps[first:]]


def main() -> None:
    """Run all steps."""
    parser = argparse.ArgumentParser(
        prog="tests.bench.accuracy", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--source", choices=["canonical", "taobao"], default="canonical")
    parser.add_argument("--work", type=Path, required=True, help="folder of the landing, the lake and the models")
    parser.add_argument("--from", dest="first", type=date.fromisoformat, required=True)
    parser.add_argument("--to", dest="last", type=date.fromisoformat, required=True)
    parser.add_argument("--prefix", type=int, default=3, help="letters of an item's code that make its category")
    parser.add_argument("--chunk-days", type=int, default=91)
    parser.add_argument("--every", type=int, default=1, help="days from one T to the next")
    parser.add_argument("--skip", type=int, default=0, help="dates T at the start that teach nothing yet")
    parser.add_argument("--horizon", type=int, default=7)
    parser.add_argument("--lookback", type=int, default=30)
    parser.add_argument("--valid-dates", type=int, default=1)
    parser.add_argument("--test-dates", type=int, default=2)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1], help="one training for each")
    parser.add_argument("--adapters", action="store_true", help="train low-rank adapters too")
    args = parser.parse_args()
    landing, lake = args.work / "landing", args.work / "lake"
    os.environ |= {
        "MEANDER_LAKE": str(lake),
        "MEANDER_LANDING": str(landing),
        "MEANDER_SOURCE": args.source,
        "MEANDER_HORIZON_DAYS": str(args.horizon),
        "MEANDER_LOOKBACK_DAYS": str(args.lookback),
    }
    # A whole number of steps in all and in each chunk: the dates T, the last of each step, are equally far apart.
    first = args.first + timedelta(days=((args.last - args.first).days + 1) % args.every)
    days = land(args.log, args.source, landing, first, args.last, args.prefix)
    chunk = max(args.every, args.chunk_days - args.chunk_days % args.every)
    states = days[args.every - 1 :: args.every]
    judged = [day for day in states if day + timedelta(days=args.horizon) <= args.last][args.skip :]
    examples = ["--from", judged[0], "--to", judged[-1], "--every", args.every, "--run-id", RUN]
    dates: list[object] = ["--valid-dates", args.valid_dates, "--test-dates", args.test_dates]
    runs = {run_of(seed, lake): seed for seed in args.seeds}
    tables: list[Step] = [
        (
            lake / "interests",
            ["dags.cli", "daily", "--from", days[0], "--to", days[-1], "--chunk-days", chunk, "--every", args.every],
        ),
        (lake / "examples", ["jobs.examples", *examples]),
        (lake / "examples", ["expectations.audit", "--table", "examples", "--run-id", RUN]),
        (lake / "examples" / "_delta_log", ["lake.publish", "--table", "examples", "--run-id", RUN]),
    ]
    commands = due(tables)
    for run, seed in runs.items():
        commands += due(training_steps(run, seed, lake, days[-1], dates, adapters=args.adapters))
    for command in commands:
        subprocess.run([sys.executable, "-m", *map(str, command)], check=True)
    for run in runs:
        subprocess.run([sys.executable, "-m", "dags.cli", "model", "--run-id", run], check=True)
    if len(runs) > 1:
        subprocess.run([sys.executable, "-m", "tests.bench.seeds", "--run-ids", *runs], check=True)


if __name__ == "__main__":
    main()
