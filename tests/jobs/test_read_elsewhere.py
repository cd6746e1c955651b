"""Each kind of landing file, where Spark is no part of the process: on a Connect server, and in an object store."""

import gzip
import io
import json
import lzma
import os
import secrets
import subprocess
import sys

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import orc

from dags.local.ports import free_port, port_open
from dags.local.standalone import LocalAirflow
from lake.staging import read_staged
from tests.jobs.tables import staged_rows
from tests.jobs.test_packed import zipped, zstd

pytestmark = pytest.mark.spark

DAY = "2025-03-02"
# Those that Python reads, on the workers.
BY_PYTHON = {"a.zip": lambda text: zipped(log=text), "b.jsonl.xz": lzma.compress, "c.jsonl.zst": zstd}
BY_SPARK = {"d.jsonl": bytes, "e.jsonl.gz": gzip.compress}


def rows_of(user: str) -> list[dict[str, str]]:
    """Return an event of a user, and a row without a user."""
    event = {"user_id": user, "event_time": f"{DAY}T10:00:00Z", "behavior": "view", "item_id": "i"}
    return [event, {**event, "user_id": ""}]


def table(kind, user: str) -> bytes:
    sink = io.BytesIO()
    kind.write_table(pa.Table.from_pylist(rows_of(user)), sink)
    return sink.getvalue()


def files(kinds) -> dict[str, bytes]:
    """Return a file of each kind; the name of its user is that of the file."""
    texts = {name: "".join(f"{json.dumps(row)}\n" for row in rows_of(name)) for name in kinds}
    return {name: pack(texts[name].encode()) for name, pack in kinds.items()}


@pytest.fixture
def connect_server(lake, tmp_path):
    """Start the Spark server of `make up`, and return the environment of those who use it."""
    local = LocalAirflow(tmp_path / "home", {})
    local.make_private_home()
    local.remember(port=0, settings={}, spark_port=free_port(), spark_token=secrets.token_hex(32))
    local.spawn_spark()
    try:
        local.wait("spark", lambda: port_open(local.state["spark_port"]))
        names = ("MEANDER_SPARK_MASTER", "SPARK_CONNECT_AUTHENTICATE_TOKEN", "NO_PROXY", "no_proxy")
        yield {**os.environ, **{name: local.environment[name] for name in names}}
    finally:
        local.stop()


def ingest(environment: dict[str, str], run_id: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "jobs.ingest", "--day", DAY, "--run-id", run_id]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_a_connect_server_reads_each_kind_of_file_and_names_one_that_is_damaged(lake, connect_server):
    folder = lake / "landing" / f"dt={DAY}"
    folder.mkdir(parents=True)
    delivered = files(BY_PYTHON | BY_SPARK) | {"f.orc": table(orc, "f.orc"), "g.parquet": table(pq, "g.parquet")}
    for name, content in delivered.items():
        (folder / name).write_bytes(content)
    done = ingest(connect_server, "r")
    assert done.returncode == 0, done.stderr
    events, quarantine = (read_staged(name, "r") for name in ("events", "quarantine"))
    assert sorted(row["user_id"] for row in staged_rows(events)) == sorted(delivered)
    rejected = sorted((row["file"].rsplit("/", 1)[1], row["reason"], row["line"]) for row in staged_rows(quarantine))
    # Spark reads Parquet in parts, and so has no lines of it.
    assert rejected == [(name, "missing_user", None if name == "g.parquet" else 2) for name in sorted(delivered)]
    # Its end is missing, behind what is looked at before Spark reads it.
    noise = b"".join(secrets.token_hex(4096).encode() + b"\n" for _ in range(400))
    (folder / "b.jsonl.xz").write_bytes(lzma.compress(delivered["d.jsonl"] + noise)[:-5000])
    damaged = ingest(connect_server, "damaged")
    assert damaged.returncode == 1
    assert f"{folder}/b.jsonl.xz: expected " in damaged.stderr
    assert "[docs/runbook.md#landing-unreadable]" in damaged.stderr


READ = """
import json, sys
from jobs.raw_rows import read_rows
from jobs.rejections import judge
from jobs.source import load_source
from lake.landing import Landing
from lake.session import spark_session
from lake.settings import settings
from datetime import date
config, source = settings(), load_source("canonical")
found = Landing.of(config).files(date.fromisoformat(sys.argv[1]))
# Spark itself reads nothing there, and so needs no jars for it.
spark = spark_session("test", config.model_copy(update={"lake": "here", "landing": "here"}))
rows = judge(read_rows(spark, source, found), source, config)
print(json.dumps([[row.user_id, row.reason, row.file] for row in rows.collect()]))
"""


def test_workers_read_from_an_object_store(lake_on_s3):
    delivered = files(BY_PYTHON) | {"f.orc": table(orc, "f.orc")}
    folder = f"{lake_on_s3}/landing/dt={DAY}"
    for name, content in delivered.items():
        with fsspec.open(f"{folder}/{name}", "wb") as stream:
            stream.write(content)
    # A process of its own: its workers have the environment in which its Spark was started.
    done = subprocess.run([sys.executable, "-c", READ, DAY], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = sorted(map(tuple, json.loads(done.stdout.splitlines()[-1])), key=str)
    expected = [(name, None, f"{folder}/{name}") for name in delivered]
    expected += [(None, "missing_user", f"{folder}/{name}") for name in delivered]
    assert found == sorted(expected, key=str)
