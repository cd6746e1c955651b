"""The tiny task as a program: started on its own, by the launcher, and as one of its workers."""

import argparse
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dags.local.standalone import HANGS_SECONDS
from model.training.launch import in_worker, launch, make_strategy

MODULE = "tests.model.tiny_training"


def main(argv: list[str]) -> None:
    """Train on the files of a folder, and write what came out as one line of JSON for each training."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--launcher", default="process")
    parser.add_argument("--checkpoint", default="checkpoint")
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--replicas", type=int, default=1, help="logical CPUs, on which it trains again after one")
    parser.add_argument("--jit", action="store_true")
    parser.add_argument("--dies", default="", help="WORKER:BATCH, where a worker kills itself")
    parser.add_argument("--tells", default="", help="WORKER:BATCH, where a worker makes a file `told` and stays")
    args = parser.parse_args(argv)
    if args.launcher == "spark" and not in_worker():
        launch(MODULE, argv, args.workers, timeout=HANGS_SECONDS)
        return

    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    strategies = {args.checkpoint: lambda: make_strategy(args.workers)}
    if args.replicas > 1:
        import tensorflow as tf

        cpu = tf.config.list_physical_devices("CPU")[0]
        parts = [tf.config.LogicalDeviceConfiguration() for _ in range(args.replicas)]
        tf.config.set_logical_device_configuration(cpu, parts)
        names = [f"CPU:{i}" for i in range(args.replicas)]
        strategies[f"{args.checkpoint}-mirrored"] = lambda: tf.distribute.MirroredStrategy(names)
    # A strategy of several workers has to be the first that TensorFlow hears of.
    made = {checkpoint: make() for checkpoint, make in strategies.items()}
    from model.training.loop import fit
    from tests.model.tiny_rows import source
    from tests.model.tiny_task import TinyTask, config

    worker = json.loads(os.environ.get("TF_CONFIG", '{"task": {"index": 0}}'))["task"]["index"]
    for place, act in ((args.dies, die), (args.tells, lambda: tell(args.folder / "told"))):
        if place and int(place.split(":")[0]) == worker:
            at_batch(int(place.split(":")[1]), act)
    files = sorted(str(path) for path in args.folder.glob("train/**/*.parquet"))
    valid = sorted(str(path) for path in args.folder.glob("valid/**/*.parquet"))
    for checkpoint, strategy in made.items():
        result = fit(
            lambda: TinyTask(args.dropout),
            strategy,
            source(files, shuffle_rows=64),
            source(valid),
            config(precision=args.precision, jit_compile=args.jit),
            str(args.folder / checkpoint),
        )
        weights = [variable.numpy().tolist() for variable in result.task.model.trainable_variables]
        said = {"worker": worker, "checksum": result.checksum, "history": result.history, "weights": weights}
        sys.stdout.write("RESULT " + json.dumps(said | {"counts": [vars(counts) for counts in result.counts]}) + "\n")


def die() -> None:
    """Kill this process, as nothing can be caught."""
    os.kill(os.getpid(), signal.SIGKILL)


def tell(file: Path) -> None:
    """Say that training is under way, and stay there as long as the file does: time to do something to this process."""
    file.touch()
    while file.exists():
        time.sleep(0.1)


def at_batch(batch: int, act: Callable[[], None]) -> None:
    """Do something when the reader of any epoch comes to that batch."""
    from model.data.input import Epoch

    undisturbed = Epoch.batches

    def batches(epoch: Epoch) -> Iterator[dict[str, Any]]:
        for number, rows in enumerate(undisturbed(epoch)):
            if number == batch:
                act()
            yield rows

    Epoch.batches = batches  # type: ignore[method-assign]


if __name__ == "__main__":
    main(sys.argv[1:])
