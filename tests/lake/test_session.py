"""What Spark is told of S3, and what its results depend on whoever started it."""

import pytest
from py4j.clientserver import JavaClient
from pyspark.sql import functions as F

from lake.jvm import FROM_ARCHIVE, ONE_COMPILER, options_of
from lake.session import NOTHING, listing_conf, s3_conf, spark_session
from lake.settings import settings

MAGIC = "fs.s3a.committer.name"
ELSEWHERE = "fs.s3a.path.style.access"


@pytest.fixture
def _no_endpoint(monkeypatch):
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)


@pytest.mark.usefixtures("_no_endpoint")
@pytest.mark.parametrize(
    ("lake", "landing", "on_s3"),
    [
        pytest.param("/data/lake", "/data/landing", False, id="on a disk"),
        pytest.param("s3://shop/lake", "/data/landing", True, id="the lake on S3"),
        # Spark reads these files too.
        pytest.param("/data/lake", "s3://shop/landing", True, id="only the landing on S3"),
        pytest.param("gs://shop/lake", "gs://shop/landing", False, id="on another store"),
    ],
)
def test_spark_is_told_of_s3_when_anything_lies_there(monkeypatch, lake, landing, on_s3):
    monkeypatch.setenv("MEANDER_LAKE", lake)
    monkeypatch.setenv("MEANDER_LANDING", landing)
    conf = s3_conf(settings())
    assert (MAGIC in conf) is on_s3
    assert ELSEWHERE not in conf, "Amazon's own store has a host name for each bucket"
    assert on_s3 or conf == NOTHING


def test_a_store_that_is_not_amazons_is_asked_by_paths(monkeypatch):
    monkeypatch.setenv("MEANDER_LAKE", "s3://shop/lake")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://minio:9000")
    conf = s3_conf(settings())
    assert (conf[ELSEWHERE], conf[MAGIC]) == ("true", "magic")


@pytest.mark.parametrize(
    ("lake", "landing", "told"),
    [("lake", "/landing", True), ("s3://shop/lake", "/landing", False), ("lake", "hdfs:///landing", False)],
)
def test_files_on_a_disk_are_looked_at_without_a_job(monkeypatch, lake, landing, told):
    monkeypatch.setenv("MEANDER_LAKE", lake)
    monkeypatch.setenv("MEANDER_LANDING", landing)
    assert bool(listing_conf(settings())) is told


def test_a_jvm_starts_from_an_archive_only_where_there_is_one(tmp_path, monkeypatch):
    archive = tmp_path / "classes.jsa"
    monkeypatch.setattr("lake.jvm.ARCHIVE", archive)
    assert options_of(short_lived=True) == "", "an image has none"
    archive.touch()
    assert options_of(short_lived=True) == "", "an empty file stands for none"
    archive.write_bytes(b"classes")
    assert options_of(short_lived=False) == FROM_ARCHIVE
    assert options_of(short_lived=True) == f"{ONE_COMPILER} {FROM_ARCHIVE}"
    assert "GC" not in options_of(short_lived=True), "with another one of the environment, the JVM would not start"


@pytest.mark.spark
def test_a_column_expression_is_one_call_of_the_jvm(spark, monkeypatch):
    """PySpark by itself makes 15 of these: it looks classes and functions up anew, and tells the line of Python."""
    assert spark_session("another", settings()) is spark
    F.lit(0), F.col("seen before")  # each function is looked up once
    asked, send = [], JavaClient.send_command

    def listen(self, command, *arguments, **more):
        asked.append(command.split("\n"))
        return send(self, command, *arguments, **more)

    monkeypatch.setattr(JavaClient, "send_command", listen)
    F.col("a") + F.lit(1)
    # Besides, objects that Python needs no more are given back ("m").
    assert [name for kind, _, name, *_ in asked if kind != "m"] == ["col", "lit", "plus"]
