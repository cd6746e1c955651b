"""Measure what shops gain that train together without pooling their logs: `make federated`.

    python -m tests.bench.federated --flower PYTHON [--demo] [--folder FOLDER] [--rounds N]

Loads five months of the log of the demo, or takes, with --demo, the lake that `make demo` has made of a year of it
(that of MEANDER_LAKE), and makes five lakes of it below FOLDER:

    public             a quarter of the households: what pretrains the encoder, and gives the vocabulary
    one, two, three    three shops of different sizes, each with the households that favour its part of the categories
    pooled             the rows of these three together, which in truth nobody may have

Then the heads and adapters are trained in three ways from the same arrays, with as many passes: by each shop alone, by
the three together (`model.federated`, averaged by Flower in the environment of PYTHON), and on the pooled rows. Each
is measured on the test dates of each shop. At the end it says what it took.
"""

import argparse
import ctypes
import json
import logging
import os
import resource
import shutil
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Mapping
from contextlib import suppress
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import write_deltalake
from rich.console import Console
from rich.table import Table as Grid

from lake.places import network_folder, table_path, vocabulary_folder
from lake.table import Table
from model.data.frames import read_frame
from model.data.vocabulary import Vocabulary
from model.training.plan import TrainingPlan
from tests.bench.privacy import METRICS

REPO = Path(__file__).resolve().parents[2]
RUN = "federated"
LOG = "log"
# Of five months, weekly states: with gaps of the horizon between, three dates to train on, and two each to judge by.
FIRST, LAST = date(2017, 3, 1), date(2017, 7, 30)
FIRST_STATES, HORIZON_DAYS = date(2017, 4, 9), 28
PUBLIC, POOLED = "public", "pooled"
# Which share of the households that favour its categories a shop has.
SHOPS = {"one": 1.0, "two": 0.5, "three": 0.2}
DATES = 8  # the newest ones to train on, of each user
PR_SET_CHILD_SUBREAPER = 36
log = logging.getLogger(__name__)


def shop_of_users(states: pd.DataFrame) -> dict[str, str]:
    """Return the shop of each user, or `public`.

    The categories are dealt to the shops by turns, most frequent first. Of the users, one in four, drawn at random, is
    public; each of the others goes to the shop whose categories are the largest part of the user's events, against what
    is usual. A shop that is smaller than its share drops the rest.

    Args:
        states: `user_id`, `longterm_category_keys` and `longterm_counts` of one date.
    """
    names = list(SHOPS)
    keys = np.concatenate(list(states["longterm_category_keys"]))
    counts = np.concatenate(list(states["longterm_counts"]))
    user = np.repeat(np.arange(len(states)), [len(cell) for cell in states["longterm_category_keys"]])
    totals = pd.Series(counts).groupby(keys).sum().sort_values(ascending=False, kind="stable")
    part = pd.Series(np.arange(len(totals)) % len(names), totals.index)
    sums = np.zeros((len(states), len(names)))
    np.add.at(sums, (user, part.loc[keys].to_numpy()), counts)
    against_usual = (sums / sums.sum(axis=1, keepdims=True)) / (sums.sum(axis=0) / sums.sum())
    favourite = against_usual.argmax(axis=1)
    draws = np.random.default_rng(0).random((len(states), 2))
    found = {}
    for number, name in enumerate(states["user_id"]):
        shop = names[favourite[number]]
        if draws[number, 0] < 0.25:
            found[name] = PUBLIC
        elif draws[number, 1] < SHOPS[shop]:
            found[name] = shop
    return found


def in_lake(folder: Path) -> dict[str, str]:
    """Return the environment of a process that has this lake."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "LANG") if name in os.environ}
    return kept | {
        "PYTHONPATH": str(REPO),
        "MEANDER_LAKE": str(folder / "lake"),
        "MEANDER_LANDING": str(folder / "landing"),
        "MEANDER_SOURCE": "completejourney",
        "MEANDER_HORIZON_DAYS": str(HORIZON_DAYS),
        "MEANDER_MLFLOW_URI": f"sqlite:///{folder / 'mlflow.db'}",
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }


def start(folder: Path, *command: str | Path) -> str:
    """Run a module of ours in a lake, and return what it printed; its log goes to where ours goes."""
    log.info("%s: %s", folder.name, " ".join(map(str, command)))
    command = (sys.executable, "-m", *map(str, command))
    return subprocess.run(command, env=in_lake(folder), stdout=subprocess.PIPE, text=True, check=True, cwd=REPO).stdout


def load(folder: Path) -> None:
    """Make a lake of a part of the demo's log, with what a training is planned from."""
    start(folder, "jobs.export_completejourney", "--from", str(FIRST), "--to", str(LAST))
    days = ("--from", str(FIRST_STATES), "--to", str(LAST - timedelta(days=HORIZON_DAYS)), "--every", "7")
    for job, tables, wanted in (
        ("ingest", ("quarantine", "events"), ("--from", str(FIRST), "--to", str(LAST))),
        ("interests", ("interests",), days),
        ("examples", ("examples",), (*days, "--missing")),
    ):
        start(folder, f"jobs.{job}", "--run-id", LOG, *wanted)
        of_run = (*(part for table in tables for part in ("--table", table)), "--run-id", LOG)
        start(folder, "expectations.audit", *of_run)
        start(folder, "lake.publish", *of_run)
    # The states of the gap before the validation too: pretraining needs no labels.
    dates = ("--valid-dates", "2", "--test-dates", "2")
    start(folder, "model.prepare", "--day", str(LAST), "--run-id", LOG, "--cold", *dates)


def cut(folder: Path) -> None:
    """Write the five lakes from that of the settings."""
    runs = sorted(path.parent for path in Path(table_path("examples")).parent.glob("_models/*/plan.json"))
    if not runs:
        raise SystemExit(
            f"there is no training in {Path(table_path('examples')).parent}; run `make demo`, or leave out --demo"
        )
    content = json.loads((runs[-1] / "plan.json").read_text(encoding="utf-8"))
    whole = TrainingPlan.load(content["run_id"])
    days = [*whole.train[-DATES:], *whole.valid, *whole.test]
    tables = {name: Table(name, whole.tables[name]) for name in ("examples", "interests")}
    owner = shop_of_users(
        read_frame(tables["examples"], [days[0]], ["user_id", "longterm_category_keys", "longterm_counts"])
    )
    (folder / "owners.json").write_text(json.dumps(owner), encoding="utf-8")
    for lake in (PUBLIC, *SHOPS, POOLED):
        shops = {PUBLIC: [PUBLIC], POOLED: list(SHOPS)}.get(lake, [lake])
        wanted = {user for user, shop in owner.items() if shop in shops}
        for name, of_days in (("interests", whole.pretrain), ("examples", days)):
            if (name == "interests") != (lake == PUBLIC):
                continue
            copy(tables[name], of_days, wanted, folder / lake / "lake" / name)
        versions = dict.fromkeys(("interests",) if lake == PUBLIC else ("examples",), 0)
        plan = vars(whole) | {"run_id": RUN, "tables": versions, "train": whole.train[-DATES:], "warm_start": None}
        place = folder / lake / "lake" / "_models" / RUN
        place.mkdir(parents=True)
        (place / "plan.json").write_text(json.dumps(plan, default=str), encoding="utf-8")
        log.info("%s: %d households", lake, len(wanted))
    known = [Vocabulary.load(vocabulary_folder(whole.run_id), field) for field in ("item_id", "category_id")]
    sequences = read_frame(tables["interests"], whole.pretrain[-1:], ["user_id", "item_keys", "category_keys"])
    sequences = sequences[sequences["user_id"].map(owner) == PUBLIC]
    for vocabulary, column in zip(known, ("item_keys", "category_keys"), strict=True):
        of_public(vocabulary, sequences[column]).save(str(folder / PUBLIC / "lake" / "_models" / RUN / "vocabulary"))


def copy(table: Table, days: list[Any], users: set[str], target: Path) -> None:
    """Write the rows of some users at some dates as a table of one version."""
    parts = []
    for file in table.files:
        if file.partition["dt"] in days:
            names = [name for name in table.spec.schema.fieldNames() if name not in table.spec.partition_by]
            rows = table.read_file(file, names)
            rows = rows.filter(pc.is_in(rows["user_id"], pa.array(sorted(users), rows["user_id"].type)))
            parts.append(rows.append_column("dt", pa.array([file.partition["dt"]] * len(rows), pa.date32())))
    write_deltalake(str(target), pa.concat_tables(parts, promote_options="permissive"), partition_by=["dt"])


def of_public(whole: Vocabulary, lists: "pd.Series[Any]") -> Vocabulary:
    """Return what a log with these events alone knows of a vocabulary: keys with 5 events, most frequent first."""
    counts = pd.Series(np.concatenate(list(lists))).value_counts()
    counts = (
        counts[(counts >= 5) & counts.index.isin(whole.keys)].sort_index().sort_values(ascending=False, kind="stable")
    )
    place = whole.index(counts.index.to_numpy()) - 1 - whole.buckets
    return Vocabulary(
        whole.field, counts.index.to_numpy(), [whole.ids[i] for i in place], whole.buckets, counts.to_numpy()
    )


# --- in a lake of a shop --------------------------------------------------------------------------------


def alone(rounds: int, first: Path, last: Path) -> None:
    """Train on the rows of this lake alone, the rounds one after the other."""
    from model import federated
    from model.versions.artifact import Artifact

    plan, base = TrainingPlan.load(RUN), Artifact.load(network_folder(RUN, "pretrained"))
    arrays, args = (
        federated.read(first, base),
        Namespace(passes=1, batch=None, learning_rate=None, workers=1, jit=False),
    )
    rows = 0
    for _ in range(rounds):
        arrays, rows = federated.one_round(plan, base, arrays, args)
    federated.write(last, arrays, base, rows)


def measured(arrays: Mapping[str, Path], owners: Mapping[str, str]) -> dict[str, dict[str, list[float]]]:
    """Return the metrics on the test dates of this lake, for each file of arrays and each shop that has users here."""
    from keras import ops

    from model import federated
    from model.network.losses import FinetuneTask
    from model.versions.artifact import Artifact

    plan, base = TrainingPlan.load(RUN), Artifact.load(network_folder(RUN, "pretrained"))
    rows = read_frame(Table("examples", plan.tables["examples"]), plan.test)
    found: dict[str, dict[str, list[float]]] = {}
    for way, file in arrays.items():
        task = FinetuneTask(federated.network_with(plan, base, federated.read(file, base)))
        for shop, of_shop in rows.groupby(rows["user_id"].map(owners)):
            sums = dict.fromkeys(METRICS, np.zeros(2))
            for at in range(0, len(of_shop), 256):
                part = base.features.labelled(of_shop.iloc[at : at + 256].reset_index(drop=True))
                batch = {name: ops.convert_to_tensor(values) for name, values in part.items()}
                batch["weight"] = ops.ones(len(part["next_category"]))
                metrics = task.loss(batch, training=False)[2]
                sums = {name: sums[name] + np.array([float(value) for value in metrics[name]]) for name in METRICS}
            found.setdefault(str(shop), {})[way] = [float(total / count) for total, count in sums.values()]
    return found


# --- all together ---------------------------------------------------------------------------------------


def compare(folder: Path, flower: Path, rounds: int) -> None:
    """Train in three ways, and print what each gives each shop."""
    arrays = {name: folder / f"{name}.npz" for name in ("first", "federated", *SHOPS, POOLED)}
    start(folder / PUBLIC, "model.pretrain", "--run-id", RUN)
    pretrained = folder / PUBLIC / "lake" / "_models" / RUN / "pretrained"
    for name in (*SHOPS, POOLED):
        shutil.copytree(pretrained, folder / name / "lake" / "_models" / RUN / "pretrained")
    start(folder / PUBLIC, "model.federated", "begin", "--run-id", RUN, "--out", arrays["first"])
    shops = [
        {"name": name, "run_id": RUN, "command": [sys.executable], "environment": in_lake(folder / name)}
        for name in SHOPS
    ]
    (folder / "shops.json").write_text(json.dumps(shops), encoding="utf-8")
    crossed = folder / "crossed.json"
    command = [flower, REPO / "federated" / "flower.py", "--shops", folder / "shops.json", "--rounds", rounds]
    command += ["--arrays", arrays["first"], "--out", arrays["federated"], "--crossed", crossed]
    log.info("Flower: %s", " ".join(map(str, command)))
    home = {"PATH": os.environ["PATH"], "HOME": str(folder), "FLWR_HOME": str(folder / "flower")}
    subprocess.run([str(part) for part in command], env=home, check=True)
    told: dict[str, dict[str, list[float]]] = {}
    for name in (*SHOPS, POOLED):
        ways = {"alone": name, "together": "federated"} if name in SHOPS else {POOLED: name}
        # One process trains and measures: to start one takes longer than to train a shop.
        said = start(
            folder / name, "tests.bench.federated", "--folder", folder, "--rounds", rounds,
            "--alone", arrays["first"], arrays[name], "--measure", *(f"{way}={arrays[of]}" for way, of in ways.items()),
        )  # fmt: skip
        for shop, of_ways in json.loads(said.splitlines()[-1]).items():
            told.setdefault(shop, {}).update(of_ways)
    show(told, json.loads(crossed.read_text(encoding="utf-8")))


def show(told: Mapping[str, Mapping[str, list[float]]], crossed: list[dict[str, Any]]) -> None:
    """Print the table, and what left each shop."""
    grid = Grid("shop", "training rows", "trained", *METRICS.values())
    for shop in SHOPS:
        rows = next(entry["numbers"]["rows"] for entry in crossed if entry["shop"] == shop)
        for way, numbers in told[shop].items():
            grid.add_row(shop, f"{rows:,}", way, *(f"{value:.3f}" for value in numbers))
    console = Console(width=160)
    console.print(grid)
    kinds = {(tuple(entry["arrays"]), tuple(entry["numbers"])) for entry in crossed}
    (names, numbers), *others = kinds
    assert not others, "each message has the same arrays"
    console.print(
        f"{len(crossed)} messages left the shops, each of {len(names)} arrays, {crossed[0]['bytes']:,} bytes, and the "
        f"number of its {', '.join(numbers)}. The arrays: {', '.join(names)}"
    )


def main() -> None:
    """Make the lakes and compare; or, started by it in the lake of a shop, train or measure there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flower", type=Path, metavar="PYTHON", help="of Flower's environment")
    parser.add_argument("--folder", type=Path, default=REPO / ".meander" / "federated", help="is made anew")
    parser.add_argument("--rounds", type=int, default=2, metavar="N")
    parser.add_argument("--demo", action="store_true", help="take the lake of `make demo`, a year of the log")
    parser.add_argument("--alone", type=Path, nargs=2, metavar=("FIRST", "LAST"), help=argparse.SUPPRESS)
    parser.add_argument("--measure", nargs="+", metavar="WAY=FILE", help=argparse.SUPPRESS)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    if args.alone or args.measure:
        in_a_lake(args)
        return
    began = time.monotonic()
    # A JVM outlives the process that has started it: by this we get it, and its CPU seconds count.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    shutil.rmtree(args.folder, ignore_errors=True)
    args.folder.mkdir(parents=True, mode=0o700)
    if not args.demo:
        load(args.folder / LOG)
        os.environ.update(in_lake(args.folder / LOG))
    cut(args.folder)
    compare(args.folder, args.flower, args.rounds)
    with suppress(ChildProcessError):
        while True:
            os.wait()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    Console().print(
        f"It took {(time.monotonic() - began) / 60:.1f} minutes and {used.ru_utime + used.ru_stime:.0f} CPU seconds."
    )


def in_a_lake(args: Namespace) -> None:
    """Train in the lake of the settings, then measure there."""
    if args.alone:
        alone(args.rounds, *args.alone)
    if args.measure:
        owners = json.loads((args.folder / "owners.json").read_text(encoding="utf-8"))
        files = {way: Path(file) for way, file in (entry.split("=", 1) for entry in args.measure)}
        sys.stdout.write(json.dumps(measured(files, owners)) + "\n")


if __name__ == "__main__":
    main()
