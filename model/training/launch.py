"""Train on several machines: one TensorFlow process for each worker, started together and ended together.

    python -m model.pretrain ... --workers 2 --launcher process     # as 2 replicas of this process, see make_strategy
    python -m model.pretrain ... --workers 2 --launcher spark       # one process in each task of a Spark barrier stage

TensorFlow opens a server in each of several processes, on all interfaces and without a password. Whoever reaches it
reads and writes files as its owner. So on one machine there is no second process: the replicas of one process train the
same. Where Spark puts all tasks on one machine, the first task trains alone, with all replicas. Where it uses several
machines, each server takes calls of these machines only (peers.py). Decision 0019 has the reasons.

The module that is launched is the module that launches: `main` calls `launch("model.pretrain", argv, ...)` unless
`in_worker()`, and inside the workers the same `main` gets its strategy from `make_strategy()`.

A worker gets the addresses of all in TF_CONFIG. When one ends with an error, or is killed, the others are ended and
`WorkerFailed` names it; when the launcher itself dies, they end as well. Nothing is started again: the same command
goes on from the last checkpoint.

Barrier tasks run plain DataFrame code (`mapInArrow`), so a Spark Connect session will do. TensorFlow never runs inside
Spark's own Python workers, which are forks of a daemon, but in a process of its own below each.
"""

import hmac
import importlib.util
import json
import logging
import os
import runpy
import secrets
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from lake.environment import environment_of, handed_to_tasks
from lake.errors import WorkerFailed
from model.training.peers import only_peers

log = logging.getLogger("meander")

POLL_SECONDS = 0.2
CONNECT_SECONDS = 60.0  # for the tasks of a barrier stage to find each other
GRACE_SECONDS = 5.0  # between asking a worker to end and ending it
TAIL_LINES = 200
KEY_LENGTH = 32  # characters by which the tasks of a stage know each other
# Spark would wait, perhaps for ever, until it has as many machines as before. Whoever called the launcher tries again.
ONE_ATTEMPT = {"spark.stage.maxConsecutiveAttempts": "1"}


@dataclass(frozen=True)
class Outcome:
    """How one worker ended.

    Attributes:
        worker: its number.
        code: exit code; negative for a signal.
        reason: why it was ended from outside; empty when it ended by itself.
        lines: the last lines it wrote.
    """

    worker: int
    code: int
    reason: str
    lines: list[str]


def in_worker() -> bool:
    """Tell whether this process is a worker that `launch` started."""
    return "TF_CONFIG" in os.environ


def make_strategy(workers: int = 1) -> Any:
    """Return the strategy for where this process runs; call it before anything else of TensorFlow.

    Several workers in TF_CONFIG: MultiWorkerMirroredStrategy. Otherwise several GPUs: MirroredStrategy over all.
    Otherwise, without a GPU, MirroredStrategy over as many parts of the CPU as `workers` says. Otherwise the default
    strategy, which has one replica.
    """
    from model.network import tf

    config = json.loads(os.environ.get("TF_CONFIG", "{}"))
    addresses = config.get("cluster", {}).get("worker", [])
    if len(addresses) > 1:
        with only_peers(addresses, config["task"]["index"]):
            return tf.distribute.MultiWorkerMirroredStrategy()
    gpus = tf.config.list_physical_devices("GPU")
    if len(gpus) > 1:
        # By what NCCL's threads find each other; by default they listen on the first interface to the outside.
        os.environ.setdefault("NCCL_SOCKET_IFNAME", "lo")
        return tf.distribute.MirroredStrategy()
    if workers > 1 and not gpus:
        parts = [tf.config.LogicalDeviceConfiguration() for _ in range(workers)]
        tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], parts)
        return tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(workers)])
    return tf.distribute.get_strategy()


def launch(module: str, argv: Sequence[str], workers: int, timeout: float | None = None) -> list[Outcome]:
    """Run `python -m module *argv` as `workers` workers in tasks of Spark, and wait for all.

    Args:
        module: has a `main` under `if __name__ == "__main__"`, and takes `--launcher`.
        argv: its arguments, the same for every worker.
        workers: how many.
        timeout: seconds after which the whole run fails; None for no limit.

    Returns:
        how each worker ended, all with exit code 0.

    Raises:
        WorkerFailed: a worker did not end well; the message names the first one and has its last lines.
        ValueError: an argument makes no sense.
    """
    if workers < 1:
        raise ValueError(f"workers must be 1 or more, got {workers}")
    if importlib.util.find_spec(module) is None:
        raise ValueError(f"module must be one that Python can import, got {module!r}")
    log.info("launch: %s on %d workers of Spark", module, workers)
    outcomes = _launch_on_spark(module, list(argv), workers, timeout)
    first = root_failure(outcomes)
    if first:
        tail = "\n".join(f"    {line}" for line in first.lines[-20:])
        # The cause is the last line: that is what logs and alerts show of a long message.
        raise WorkerFailed(
            f"the last lines of worker {first.worker}:\n{tail}\n"
            f"worker {first.worker} of {workers} ({module}) ended with {_code_name(first.code)}"
            + (f": {first.reason}" if first.reason else "")
            + "; the others were ended. The same command goes on from the last checkpoint."
        )
    return outcomes


ENDED = "another worker failed"
LOST = "another worker could not be reached any more: its machine or the network is gone"
LACKS = "{} holds a password, which is not sent to tasks of Spark: set it in the environment of Spark's executors"


def root_failure(outcomes: Sequence[Outcome]) -> Outcome | None:
    """Return the failure that explains the others, or None when all ended well.

    One that was ended because of another explains nothing, one that lost another explains little, and one that was
    killed explains the errors of those that lost it in the middle of a collective, whichever the launcher saw first.
    """
    failed = [outcome for outcome in outcomes if outcome.code]
    explains = {ENDED: 2, LOST: 1}
    return min(failed, key=lambda one: (explains.get(one.reason, 0), one.code > 0, one.worker), default=None)


def _code_name(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"


# --- one worker ---


class _Worker:
    """A worker process, its output passed on line by line. It gets what a worker needs of ours, and `env`."""

    def __init__(self, index: int, module: str, argv: list[str], env: Mapping[str, str]):
        self.index = index
        self.reason = ""
        self.lines: deque[str] = deque(maxlen=TAIL_LINES)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "model.training.launch", module, *argv],
            # A pipe that nobody writes to: it closes when this process dies, and the worker then ends itself.
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**environment_of("worker", os.environ), **env, "PYTHONUNBUFFERED": "1"},
        )
        self.pump = threading.Thread(target=self._pump, daemon=True)
        self.pump.start()

    def _pump(self) -> None:
        stream: IO[bytes] | None = self.process.stdout
        assert stream is not None
        for raw in stream:
            line = raw.decode(errors="replace").rstrip("\n")
            self.lines.append(line)
            sys.stderr.write(f"[worker {self.index}] {line}\n")
            sys.stderr.flush()

    @property
    def code(self) -> int | None:
        return self.process.poll()

    def end(self, reason: str) -> None:
        """End the process if it still runs."""
        if self.code is not None:
            return
        self.reason = reason
        self.process.terminate()
        try:
            self.process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def outcome(self) -> Outcome:
        """Return how the process ended; it must have."""
        code = self.process.wait()
        # A child that outlives it may hold the pipe open for long.
        self.pump.join(GRACE_SECONDS)
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None and not self.pump.is_alive():
                stream.close()
        return Outcome(self.index, code, self.reason, list(self.lines))


# --- Spark barrier tasks ---


def _launch_on_spark(module: str, argv: list[str], workers: int, timeout: float | None) -> list[Outcome]:
    from lake.session import spark_session
    from lake.settings import settings

    spark = spark_session(f"launch {module}", settings(), ONE_ATTEMPT)
    task = _barrier_task(module, argv, workers, timeout, *handed_to_tasks(os.environ), str(Path.cwd()))
    stage = spark.range(0, workers, 1, numPartitions=workers).mapInArrow(
        task, "worker int, code int, reason string, lines array<string>", barrier=True
    )
    try:
        rows = stage.collect()
    except Exception as error:
        if "ExecutorLostFailure" in str(error):
            reason = next(line for line in str(error).splitlines() if "ExecutorLostFailure" in line)
            raise WorkerFailed(
                f"Spark has lost a machine of the training ({module}, {workers} workers), and the others were ended. "
                f"The same command goes on from the last checkpoint. Spark says: {reason.strip()[:500]}"
            ) from error
        raise
    outcomes = [Outcome(row["worker"], row["code"], row["reason"], list(row["lines"])) for row in rows]
    for outcome in sorted(outcomes, key=lambda outcome: outcome.worker):
        # What they wrote while they ran is in the stderr of their executors.
        for line in outcome.lines:
            sys.stderr.write(f"[worker {outcome.worker}] {line}\n")
    return outcomes


def _barrier_task(
    module: str,
    argv: list[str],
    workers: int,
    timeout: float | None,
    env: dict[str, str],
    theirs: list[str],
    folder: str,
) -> Callable[[Iterable[Any]], Iterator[Any]]:
    def task(batches: Iterable[Any]) -> Iterator[Any]:
        import pyarrow as pa
        from pyspark import BarrierTaskContext

        for _ in batches:
            pass
        outcome = run_in_barrier(BarrierTaskContext.get(), module, argv, workers, timeout, env, theirs, folder)
        yield pa.RecordBatch.from_arrays(
            [
                pa.array([outcome.worker], pa.int32()),
                pa.array([outcome.code], pa.int32()),
                pa.array([outcome.reason]),
                pa.array([outcome.lines], pa.list_(pa.string())),
            ],
            ["worker", "code", "reason", "lines"],
        )

    return task


def run_in_barrier(
    context: Any,
    module: str,
    argv: list[str],
    workers: int,
    timeout: float | None,
    env: dict[str, str],
    theirs: list[str],
    folder: str,
) -> Outcome:
    """Run the worker of one barrier task, and end it when another one fails.

    A failure is returned, not raised: Spark would run a stage with a failed task up to four times.

    Args:
        context: Spark's, of the task.
        module: as for `launch`.
        argv: as for `launch`.
        workers: as for `launch`.
        timeout: as for `launch`.
        env: variables of the driver.
        theirs: variables that the executor itself has to have.
        folder: where the driver runs.
    """
    rank = context.partitionId()
    host = context.getTaskInfos()[rank].address.rsplit(":", 1)[0]
    gpus = context.resources().get("gpu")
    # TensorFlow will listen on all interfaces: the port has to be free on each. Nobody listens on it until then.
    port = _bound("")
    lifeline = _bound(host)
    lifeline.listen(workers)
    lifeline.settimeout(CONNECT_SECONDS)
    mine = {
        "host": host,
        "server": f"{host}:{port.getsockname()[1]}",
        "lifeline": lifeline.getsockname()[1],
        "key": secrets.token_hex(KEY_LENGTH // 2),
        "gpus": list(gpus.addresses) if gpus else [],
        "lacks": [name for name in theirs if not os.environ.get(name)],
    }
    everyone = [json.loads(message) for message in context.allGather(json.dumps(mine))]
    port.close()
    first = everyone[0]
    if lacking := sorted({name for one in everyone for name in one["lacks"]}):
        lifeline.close()
        return Outcome(rank, 1, ENDED if rank else LACKS.format(" and ".join(lacking)), [])
    if Path(folder).is_dir():
        os.chdir(folder)  # relative paths then mean what they mean to the driver
    if len({one["host"] for one in everyone}) == 1:
        lifeline.close()
        gpus_of_all = [gpu for one in everyone for gpu in one["gpus"]]
        return _run_on_one_machine(context, module, argv, timeout, {**env, **_seen(gpus_of_all)})
    if rank == 0:
        peers = _admitted(lifeline, first["key"], workers - 1)
    else:
        peers = [socket.create_connection((first["host"], first["lifeline"]), timeout=CONNECT_SECONDS)]
        peers[0].sendall(first["key"].encode())
    lifeline.close()
    for peer in peers:
        _notice_loss(peer)
    cluster = {"worker": [one["server"] for one in everyone]}
    config = {"cluster": cluster, "task": {"type": "worker", "index": rank}}
    worker = _Worker(rank, module, argv, {**env, **_seen(mine["gpus"]), "TF_CONFIG": json.dumps(config)})
    try:
        _watch(worker, peers, timeout)
    finally:
        worker.end(ENDED)
        for peer in peers:
            peer.close()
    return worker.outcome()


def _run_on_one_machine(
    context: Any, module: str, argv: list[str], timeout: float | None, env: Mapping[str, str]
) -> Outcome:
    """Train by the first task alone, as replicas of one process; the others keep their cores and GPUs for it."""
    rank = context.partitionId()
    outcome = Outcome(rank, 0, "", [])
    if rank == 0:
        worker = _Worker(rank, module, [*argv, "--launcher", "process"], env)
        try:
            _watch(worker, [], timeout)
        finally:
            worker.end(ENDED)
        outcome = worker.outcome()
    context.barrier()
    return outcome


def _seen(gpus: list[str]) -> dict[str, str]:
    """Let a worker see the GPUs that Spark has given to its task; all of its machine where Spark gives none."""
    return {"CUDA_VISIBLE_DEVICES": ",".join(gpus)} if gpus else {}


def _bound(host: str) -> socket.socket:
    """Return a socket bound to a free port; close it just before somebody else takes the port."""
    bound = socket.socket()
    bound.bind((host, 0))
    return bound


def _admitted(lifeline: socket.socket, key: str, number: int) -> list[socket.socket]:
    """Return the connections of the other tasks, which know the key; whoever else calls is sent away."""
    peers: list[socket.socket] = []
    while len(peers) < number:
        caller = lifeline.accept()[0]
        caller.settimeout(CONNECT_SECONDS)
        with suppress(OSError):
            received = b""
            # The key may come in parts, also with MSG_WAITALL: a socket with a time-out does not wait for all.
            while len(received) < KEY_LENGTH and (part := caller.recv(KEY_LENGTH - len(received))):
                received += part
            if hmac.compare_digest(received, key.encode()):
                peers.append(caller)
                continue
        caller.close()
    return peers


def _notice_loss(connection: socket.socket) -> None:
    """Let a connection break within half a minute when its other end is gone without a word, as from a cut network."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 4)):
        if hasattr(socket, option):  # macOS calls the first one otherwise; its default is two hours
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def _watch(worker: _Worker, peers: list[socket.socket], timeout: float | None) -> None:
    """Return when the worker has ended well and, on worker 0, the others too; or when anyone has failed.

    Every task holds a connection to that of worker 0. One byte on it says that a worker ended well; a connection that
    closes without says that it did not, or that its machine is gone. Worker 0 then closes all, so everyone learns.
    """
    deadline = time.monotonic() + timeout if timeout else None
    waiting = list(peers)
    while worker.code is None or (worker.index == 0 and waiting):
        for peer in select.select(waiting, [], [], POLL_SECONDS)[0]:
            try:
                failed = "" if peer.recv(1) else ENDED
            except OSError as error:
                failed = ENDED if isinstance(error, ConnectionResetError) else LOST
            if failed:
                worker.end(failed)
                return
            waiting.remove(peer)
        if not waiting:
            time.sleep(POLL_SECONDS)
        if worker.code:
            return
        if deadline and time.monotonic() > deadline:
            worker.end(f"it was not done after {timeout:g} s")
            return
    if worker.index and not worker.code:
        for peer in peers:
            peer.sendall(b"1")


# --- inside a worker ---


def _end_with_parent() -> None:
    """End this process as soon as the launcher is gone: its end of our stdin closes."""
    os.read(0, 1)
    os._exit(1)


def run_worker(module: str, argv: list[str]) -> None:
    """Run a module as the main program of a worker, then end the process."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sys.argv = [module, *argv]
    code = 0
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as asked:
        # As Python itself does: a number is the exit code, anything else a message.
        code = asked.code if isinstance(asked.code, int) else int(asked.code is not None)
        if isinstance(asked.code, str):
            sys.stderr.write(asked.code + "\n")
    except BaseException:  # noqa: BLE001  # whatever it is, the process must end, and not in the usual way
        traceback.print_exc()
        code = 1
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    # Not the usual way out: it waits for the threads of readers and collectives, and one that hangs or aborts would
    # turn a training that is done and saved into one that failed.
    os._exit(code)


if __name__ == "__main__":
    run_worker(sys.argv[1], sys.argv[2:])
