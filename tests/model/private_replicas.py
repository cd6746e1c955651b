"""A private training on one replica, then on two of the same process: what the test of replicas starts.

python -m tests.model.private_replicas FOLDER
"""

import json
import sys
from pathlib import Path

import tensorflow as tf

from model.data.users import UserDraws
from model.training import loop
from model.training.loop import fit
from model.training.private import Privacy
from tests.model.tiny_rows import source
from tests.model.tiny_task import TinyTask, config


def main(folder: Path) -> None:
    """Write the weights of both as one line of JSON each."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration() for _ in range(2)])
    loop.new_key = lambda: "5ec12e7" * 4
    how = config(privacy=Privacy(0.5, 0.8), global_batch=16, epochs=2, precision="float64")
    files = sorted(str(path) for path in folder.glob("train/**/*.parquet"))
    strategies = {"one": tf.distribute.get_strategy(), "two": tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])}
    for name, strategy in strategies.items():
        train = UserDraws(source(files, keep_bytes=1 << 30))
        result = fit(lambda: TinyTask(0.0), strategy, train, None, how, str(folder / name))
        weights = [variable.numpy().tolist() for variable in result.task.model.trainable_variables]
        said = {"replicas": strategy.num_replicas_in_sync, "history": result.history, "weights": weights}
        sys.stdout.write("RESULT " + json.dumps(said) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
