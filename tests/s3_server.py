"""An S3 server of the tests' own: that of moto, in a process of its own, with one bucket, all in memory."""

import logging
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import EndpointConnectionError

from dags.local.ports import HOST, free_port
from tests.waiting import until

BUCKET = "shop"
SECRET_KEY = "no+one/knows+it"
AGE = "/_age/"
SPECIAL = {"copy": "HTTP_X_AMZ_COPY_SOURCE", "if-none-match": "HTTP_IF_NONE_MATCH"}


@dataclass
class S3Server:
    """A server that runs until `stop`.

    Args:
        log: file that gets a line for every change that is asked for: its method, what it is about, and `copy` or
            `if-none-match` where it is one.

    Attributes:
        environment: by which every client here finds it: fsspec's, that of delta-rs, Spark's and Airflow's.
    """

    log: Path
    port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        self.environment = {
            "AWS_ENDPOINT_URL": f"http://{HOST}:{self.port}",
            "AWS_ACCESS_KEY_ID": "tester",
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_REGION": "us-east-1",
            "AWS_ALLOW_HTTP": "true",  # delta-rs refuses an address without TLS otherwise
        }
        self.process = subprocess.Popen([sys.executable, "-m", "tests.s3_server", str(self.port), str(self.log)])
        until("the S3 server to make its bucket", self.has_bucket)

    def has_bucket(self) -> bool:
        """Make the bucket, and tell whether the server already answers."""
        try:
            self.client().create_bucket(Bucket=BUCKET)
        except EndpointConnectionError:
            assert self.process.poll() is None, "the S3 server did not start"
            return False
        return True

    def client(self) -> Any:
        """Return a client for what a test wants to see or break."""
        return boto3.client(
            "s3",
            endpoint_url=self.environment["AWS_ENDPOINT_URL"],
            aws_access_key_id=self.environment["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.environment["AWS_SECRET_ACCESS_KEY"],
            region_name=self.environment["AWS_REGION"],
        )

    def changes(self) -> list[str]:
        """Return what has been asked for so far."""
        return self.log.read_text().splitlines()

    def age(self, prefix: str, days: int) -> None:
        """Let the objects whose names begin with `prefix` be older, which no client of S3 can."""
        urllib.request.urlopen(f"http://{HOST}:{self.port}{AGE}{days}/{prefix}").close()

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()


def serve(port: int, log: Path) -> None:
    """Answer requests until the process ends."""
    from moto.core import DEFAULT_ACCOUNT_ID
    from moto.moto_server.werkzeug_app import create_backend_app
    from moto.s3.models import s3_backends
    from werkzeug.serving import run_simple

    answer, one_at_a_time = create_backend_app("s3"), threading.Lock()
    asked = log.open("a", buffering=1)

    def grow_old(days: int, prefix: str) -> None:
        for name, key in s3_backends[DEFAULT_ACCOUNT_ID]["aws"].buckets[BUCKET].keys.items():
            if name.startswith(prefix):
                key.last_modified -= timedelta(days=days)

    def app(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        if environ["PATH_INFO"].startswith(AGE):
            days, prefix = environ["PATH_INFO"].removeprefix(AGE).split("/", 1)
            grow_old(int(days), prefix)
            start("204 No Content", [])
            return []
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            special = [name for name, key in SPECIAL.items() if key in environ]
            print(environ["REQUEST_METHOD"], environ["PATH_INFO"], *special, file=asked)
        # S3 looks whether an object is there and writes it in one step, which moto does in two.
        if "HTTP_IF_NONE_MATCH" in environ or "HTTP_IF_MATCH" in environ:
            with one_at_a_time:
                return [b"".join(answer(environ, start))]
        return answer(environ, start)

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    run_simple(HOST, port, app, threaded=True)


if __name__ == "__main__":
    serve(int(sys.argv[1]), Path(sys.argv[2]))
