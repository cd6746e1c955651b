"""How the Spark server that all tasks of this machine share is started."""

import itertools
from pathlib import Path
from urllib.parse import urlsplit
from xml.etree import ElementTree

from dags.local.standalone import LocalAirflow


def test_jobs_of_all_tasks_take_turns(tmp_path: Path):
    local = LocalAirflow(tmp_path, {})
    local.remember(spark_port=1)
    command = local.spark_command()
    conf = dict(part.split("=", 1) for before, part in itertools.pairwise(command) if before == "--conf")
    assert conf["spark.scheduler.mode"] == "FAIR"
    pools = ElementTree.parse(urlsplit(conf["spark.scheduler.allocation.file"]).path).getroot()
    # A session that names no pool is in the one of this name, and within it jobs take turns too.
    assert [(pool.get("name"), pool.findtext("schedulingMode")) for pool in pools] == [("default", "FAIR")]
