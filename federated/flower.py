"""Let shops train together by Flower: average their heads and adapters, weighted by their rows.

    python federated/flower.py --shops SHOPS.json --arrays FIRST.npz --out LAST.npz [--rounds N] [--passes N]

Flower has an environment of its own (requirements.lock beside this file), without TensorFlow and without Meander. A
shop is a lake and the Python that has Meander: its client starts `python -m model.federated round` there, hands a file
of arrays to it and takes one back (model/federated.py). SHOPS.json lists the shops, each with

    name, run_id          of the shop, and of its training
    command               that starts Python with Meander, such as ["/opt/meander/.venv/bin/python"]
    environment           what this process has in its environment, such as {"MEANDER_LAKE": "/data/lake"}; nothing else

Here all clients run in this process, one below the other in a list, and no port is opened: `Here` stands in for
Flower's servers. Whoever uses these gives them the same client, strategy and checks.
"""

import argparse
import json
import os
import random
import subprocess
import tempfile
import zipfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"  # Flower reads it when it is imported

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg
from flwr.supercore.task_identity import TaskIdentity

# In a file beside the arrays, see model/federated.py.
ENCODER, ROWS = "encoder", "rows"

client = ClientApp()


@client.train()
def train(message: Message, context: Context) -> Message:
    """Give the arrays of the round to the shop, and reply with what it has learnt: arrays, and how many rows."""
    shop, config = context.node_config, message.content["config"]
    with tempfile.TemporaryDirectory() as folder:
        given, taken = Path(folder, "given.npz"), Path(folder, "taken.npz")
        write(given, message.content["arrays"], config["encoder"])
        command = [*json.loads(shop["command"]), "-m", "model.federated", "round", "--run-id", shop["run_id"]]
        command += ["--arrays", given, "--out", taken, "--passes", str(config["passes"])]
        # What it logs stays with the shop: an error may quote its rows, and this one is for everybody.
        status = subprocess.run(command, env=json.loads(shop["environment"]), check=False).returncode
        if status:
            raise RuntimeError(
                f"{shop['name']} could not train: its process ended with {status}, and its own log says why"
            )
        arrays, encoder, rows = read(taken)
    if encoder != config["encoder"]:
        raise RuntimeError(f"{shop['name']} has another pretrained encoder than the others")
    return Message(RecordDict({"arrays": arrays, "metrics": MetricRecord({ROWS: rows})}), reply_to=message)


def write(file: Path, arrays: ArrayRecord, encoder: str) -> None:
    """Write the arrays for a shop."""
    with file.open("wb") as stream:
        np.savez(stream, **{name: array.numpy() for name, array in arrays.items()}, **{ENCODER: np.array(encoder)})


def read(file: Path) -> tuple[ArrayRecord, str, int]:
    """Return the arrays of a file of a shop, which encoder they belong to, and of how many rows they are."""
    with zipfile.ZipFile(file) as archive:
        # Packed, a few kilobytes of zeros are gigabytes of an array.
        if any(part.compress_type != zipfile.ZIP_STORED for part in archive.infolist()):
            raise ValueError(f"{file.name} must hold arrays that are not packed")
    with np.load(file, allow_pickle=False) as stored:
        content = {name: stored[name] for name in stored.files}
    encoder, rows = str(content.pop(ENCODER)), int(content.pop(ROWS))
    return ArrayRecord({name: Array(values) for name, values in content.items()}), encoder, rows


class Checked(FedAvg):
    """Federated averaging of all shops, or of none: a shop that fails or sends anything else ends the training."""

    def __init__(self, shops: int, first: ArrayRecord):
        super().__init__(fraction_evaluate=0.0, min_train_nodes=shops, min_available_nodes=shops, weighted_by_key=ROWS)
        self.shapes = {name: array.numpy().shape for name, array in first.items()}

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Average the arrays of all replies."""
        replies = list(replies)
        for reply in replies:
            require_shared(reply, self.shapes)
        return super().aggregate_train(server_round, replies)


def require_shared(reply: Message, shapes: dict[str, tuple[int, ...]]) -> None:
    """Raise a ValueError unless a reply holds finite arrays of these names and shapes, the number of rows, no more."""
    content = reply.content
    if set(content) != {"arrays", "metrics"} or set(content["metrics"]) != {ROWS}:
        raise ValueError(f"a shop must send arrays and the number of its rows alone, got {sorted(content)}")
    rows = content["metrics"][ROWS]
    if not isinstance(rows, int) or rows < 1:
        raise ValueError(f"a shop must have learnt from a row at least, got {rows}")
    arrays = {name: array.numpy() for name, array in content["arrays"].items()}
    if {name: values.shape for name, values in arrays.items()} != shapes:
        raise ValueError("a shop sent arrays of other names or shapes than those that it got")
    if not all(values.dtype == np.float32 and np.isfinite(values).all() for values in arrays.values()):
        raise ValueError("a shop sent something else than finite 32-bit numbers")


class Here(Grid):
    """Hands messages to the clients of shops in this process, and notes what crosses.

    Attributes:
        shops: by the number of their node.
        crossed: for each message from a shop, its name, the names of its arrays, their bytes and its other numbers.
    """

    def __init__(self, shops: list[dict[str, str]]):
        self.shops = dict(enumerate(shops, 1))
        self.crossed: list[dict] = []
        # Messages say who wrote them; Flower's servers would set it.
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 0, 0

    def set_run(self, run) -> None:
        """Do nothing: there is one run."""

    @property
    def run(self):
        """None: nobody asks for it here."""

    def create_message(self, content, message_type, dst_node_id, group_id, ttl=None) -> Message:
        """Return a message to a shop."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Return the numbers of all shops."""
        return list(self.shops)

    def push_messages(self, messages):
        """Refuse: messages are answered at once here."""
        raise NotImplementedError("use send_and_receive")

    def pull_messages(self, message_ids):
        """Refuse: messages are answered at once here."""
        raise NotImplementedError("use send_and_receive")

    def send_and_receive(
        self,
        messages: Iterable[Message],
        *,
        timeout: float | None = None,  # noqa: ARG002
    ) -> Iterable[Message]:
        """Return the reply of each shop, in the order of the shops; all train at the same time."""
        ordered = sorted(messages, key=lambda message: message.metadata.dst_node_id)
        with ThreadPoolExecutor(max_workers=len(ordered) or 1) as pool:
            replies = list(pool.map(self.answer, ordered))
        for reply in replies:
            arrays, numbers = reply.content["arrays"], reply.content["metrics"]
            self.crossed.append(
                {
                    "shop": self.shops[reply.metadata.src_node_id]["name"],
                    "arrays": sorted(arrays),
                    "bytes": sum(array.numpy().nbytes for array in arrays.values()),
                    "numbers": dict(numbers),
                }
            )
        return replies

    def answer(self, message: Message) -> Message:
        """Return what the client of a shop says to a message."""
        node = message.metadata.dst_node_id
        return client(message, Context(1, node, self.shops[node], RecordDict(), {}))


def main() -> None:
    """Train, and write the arrays of the last round."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shops", type=Path, required=True, metavar="FILE")
    parser.add_argument("--arrays", type=Path, required=True, metavar="FILE", help="of `model.federated begin`")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="for `model.federated keep`")
    parser.add_argument("--crossed", type=Path, metavar="FILE", help="where to say what left each shop, as JSON")
    parser.add_argument("--rounds", type=int, default=4, metavar="N")
    parser.add_argument("--passes", type=int, default=1, metavar="N", help="over the rows of a shop in a round")
    args = parser.parse_args()
    shops = [
        shop | {name: json.dumps(shop[name]) for name in ("command", "environment")}  # Flower takes no lists
        for shop in json.loads(args.shops.read_text(encoding="utf-8"))
    ]
    first, encoder, _ = read(args.arrays)
    random.seed(0)  # Flower draws the order of the shops; sums depend on it in their last digits
    grid = Here(shops)
    result = Checked(len(shops), first).start(
        grid, first, num_rounds=args.rounds, train_config=ConfigRecord({"encoder": encoder, "passes": args.passes})
    )
    write(args.out, result.arrays, encoder)
    if args.crossed:
        args.crossed.write_text(json.dumps(grid.crossed, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
