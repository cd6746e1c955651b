"""What Spark is told of S3, and what its results depend on whoever started it."""

import pytest

from lake.session import NOTHING, s3_conf
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
