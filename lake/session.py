"""The one way to a Spark session: of a Spark Connect server, of spark-submit, or started in this process."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from py4j.java_gateway import JavaClass
from pyspark.sql import SparkSession

from lake.jvm import APPLICATION, options_of
from lake.settings import Settings

NOTHING: Mapping[str, str] = MappingProxyType({})
LOG_CONFIG = Path(__file__).with_name("log4j2.properties")

# Results, and how long they take, depend on these, so they are set however Spark was started.
SQL_CONF = {
    "spark.sql.session.timeZone": "UTC",
    # Delta tables have microseconds; few readers support Spark's default, INT96.
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    # pandas writes timestamps in nanoseconds. Spark would refuse the file, whether they are used or not.
    "spark.sql.legacy.parquet.nanosAsLong": "true",
    # decode() then supports GBK and similar encodings, and replaces undecodable bytes by U+FFFD: ingest rejects such
    # rows, where the whole job would fail.
    "spark.sql.legacy.javaCharsets": "true",
    "spark.sql.legacy.codingErrorAction": "true",
    # Java never compiles a method of more bytes than this. A step of many expressions, which Spark writes into one
    # method, would be interpreted for each row; above this limit Spark writes several methods.
    "spark.sql.codegen.hugeMethodLimit": "8000",
    # Rows are collected into arrays group by group, from sorted rows. Else Spark holds the arrays of the first 128
    # groups in memory, and then sorts all rows for the others, twice, in code that it interprets.
    "spark.sql.execution.useObjectHashAggregateExec": "false",
}

# For a lake or landing files on S3, with the jars of docker/s3a.xml: an upload ends, and its file appears in its place,
# when the job commits. Hadoop's default, to write elsewhere and rename, would copy each file.
S3_CONF = {
    "fs.s3a.committer.name": "magic",
    "spark.sql.sources.commitProtocolClass": "org.apache.spark.internal.io.cloud.PathOutputCommitProtocol",
    "spark.sql.parquet.output.committer.class": "org.apache.spark.internal.io.cloud.BindingParquetOutputCommitter",
}


def spark_session(
    name: str, config: Settings, conf: Mapping[str, str] = NOTHING, *, short_lived: bool = False
) -> SparkSession:
    """Return the session of this process, created by the first call.

    `MEANDER_SPARK_MASTER=sc://host:port` joins a Spark Connect server, whose start-up all its clients share; its token,
    if it has one, is in SPARK_CONNECT_AUTHENTICATE_TOKEN.
    Otherwise the master given to spark-submit counts, then `MEANDER_SPARK_MASTER`, then `local[*]`.

    Args:
        name: of the application, for people.
        config: the master, and the memory and shuffle partitions of a local one.
        conf: of the application, if it is started here; a Connect server, and a session that exists, keep their own.
        short_lived: whether a JVM that is started here has little to do: it then leaves out what pays only later.
    """
    # Workers must run the interpreter of this environment, whichever `python3` is first on the PATH.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    if config.spark_master.startswith("sc://"):
        _log_in_on_this_machine(config.spark_master)
        spark = SparkSession.builder.remote(config.spark_master).getOrCreate()
    else:
        builder = SparkSession.builder.appName(f"meander {name}")
        for key, value in {**APPLICATION, **conf}.items():
            builder = builder.config(key, value)
        submitted = "PYSPARK_GATEWAY_PORT" in os.environ
        if not submitted:
            master = config.spark_master or "local[*]"
            builder = (
                builder.master(master)
                .config("spark.ui.showConsoleProgress", "false")
                .config(
                    "spark.driver.extraJavaOptions",
                    f"-Dlog4j2.configurationFile={LOG_CONFIG.as_uri()} {options_of(short_lived=short_lived)}",
                )
            )
            if master.startswith("local"):
                builder = (
                    builder.config("spark.driver.memory", config.driver_memory)
                    .config("spark.sql.shuffle.partitions", str(config.shuffle_partitions))
                    # One machine: nothing outside it connects to this session.
                    .config("spark.driver.bindAddress", "127.0.0.1")
                    .config("spark.driver.host", "127.0.0.1")
                    .config("spark.ui.enabled", "false")
                )
        spark = builder.getOrCreate()
        _look_classes_up_once(spark)
    for key, value in {**SQL_CONF, **listing_conf(config), **s3_conf(config)}.items():
        spark.conf.set(key, value)
    return spark


class _Functions(JavaClass):  # type: ignore[misc]  # py4j has no types
    """A class of the JVM whose static functions are looked up once each."""

    def __getattr__(self, name: str) -> Any:
        found = super().__getattr__(name)
        setattr(self, name, found)
        return found


def _look_classes_up_once(spark: SparkSession) -> None:
    """Keep the classes of which PySpark calls functions for each column expression.

    PySpark asks for them by name each time, and the JVM then looks through all of its jars.
    """
    jvm = spark._jvm
    for name in ("functions", "org.apache.spark.sql.functions", "PythonUtils"):
        if name not in vars(jvm):
            found = getattr(jvm, name)
            # Of a name that a later PySpark does not import, py4j makes a package.
            if isinstance(found, JavaClass):
                setattr(jvm, name, _Functions(found._fqn, found._gateway_client))


def listing_conf(config: Settings) -> Mapping[str, str]:
    """Return how Spark looks at the files that it is told to read, one by one: from a disk, without a job.

    Of more than 32, by default each is looked at by a task of its own: 358 files took 3.5 s, and take 0.1 s.
    """
    on_disk = not any("://" in address for address in (config.lake, config.landing))
    return {"spark.sql.sources.parallelPartitionDiscovery.threshold": "10000"} if on_disk else NOTHING


def _log_in_on_this_machine(address: str) -> None:
    """Join a Connect server at 127.0.0.1 with its token; PySpark then takes the session that is made here.

    PySpark sends a token by TLS, or to a server whose address is the name `localhost`. That name has an IPv6 address
    too, and whoever listens there, on the same port, would be told the token.
    """
    import grpc
    from pyspark.sql.connect.client import DefaultChannelBuilder
    from pyspark.sql.connect.session import SparkSession as ConnectSession

    class Here(DefaultChannelBuilder):
        def toChannel(self) -> Any:  # noqa: N802  PySpark's name
            token = grpc.access_token_call_credentials(self.token)
            credentials = grpc.composite_channel_credentials(grpc.local_channel_credentials(), token)
            return self._secure_channel(self.endpoint, credentials)

    server = Here(address)
    if server.host == "127.0.0.1" and server.token and not server.use_ssl:
        ConnectSession.builder.channelBuilder(server).getOrCreate()


def s3_conf(config: Settings) -> Mapping[str, str]:
    """Return Spark's configuration of S3, if the lake or the landing files are there.

    Spark takes the endpoint and the key from the same variables as all other tools, AWS_ENDPOINT_URL,
    AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; without a key, it uses the role of the machine.
    """
    if not any(address.startswith("s3://") for address in (config.lake, config.landing)):
        return NOTHING
    # Stores other than Amazon's have no host name for each bucket.
    elsewhere = {"fs.s3a.path.style.access": "true"} if os.environ.get("AWS_ENDPOINT_URL") else {}
    return {**S3_CONF, **elsewhere}
