"""A short-lived JVM takes Spark's classes from the archive of `make setup`, and does without where it does not fit."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dags.local.jvm import write_archive
from lake.jvm import ARCHIVE, SHORT_LIVED_JVM

pytestmark = pytest.mark.spark


@pytest.mark.skipif(not ARCHIVE.exists() or not ARCHIVE.stat().st_size, reason="no archive; this JDK may write none")
@pytest.mark.parametrize("fits", [True, False])
def test_spark_submit_starts_from_the_archive_or_quietly_without(tmp_path: Path, fits: bool):
    job, loaded, conf = tmp_path / "job.py", tmp_path / "loaded.txt", tmp_path / "conf"
    job.write_text("print('done')")
    # spark-submit looks for Spark with it; what is `python3` on the PATH may lead nowhere.
    environment = {**os.environ, "PYSPARK_PYTHON": sys.executable}
    environment["SPARK_SUBMIT_OPTS"] = f"{SHORT_LIVED_JVM} -Xlog:class+load:file={loaded}"
    if not fits:  # a folder that comes before the jars on the class path
        conf.mkdir()
        (conf / "spark-defaults.conf").write_text("spark.ui.enabled false\n")
        environment["SPARK_CONF_DIR"] = str(conf)
    submit = Path(sys.executable).with_name("spark-submit")
    done = subprocess.run([submit, job], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "done"
    assert "archive" not in done.stderr
    spark = [line for line in loaded.read_text().splitlines() if " org.apache.spark." in line]
    from_jars = [line for line in spark if "source: file:" in line]
    from_archive = [line for line in spark if "source: shared objects file (top)" in line]
    assert len(from_archive) > 100 > len(from_jars) if fits else len(from_jars) > 100 and not from_archive


def test_where_none_can_be_written_an_empty_file_stands_for_it(tmp_path: Path, monkeypatch, capsys):
    # As in a JDK that has no archive of its own classes.
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-Xshare:off")
    write_archive(tmp_path / "classes.jsa")
    assert [(path.name, path.stat().st_size) for path in tmp_path.iterdir()] == [("classes.jsa", 0)]
    assert "There is no archive, and each JVM starts as ever" in capsys.readouterr().err
    # Other JVMs take it for what it is.
    monkeypatch.delenv("JAVA_TOOL_OPTIONS")
    java = str(Path(os.environ["JAVA_HOME"], "bin", "java")) if os.environ.get("JAVA_HOME") else "java"
    with_it = [java, f"-XX:SharedArchiveFile={tmp_path}/classes.jsa", "-Xlog:cds=off", "-Xlog:cds+dynamic=off"]
    done = subprocess.run([*with_it, "-version"], capture_output=True, text=True, check=True)
    assert "warning" not in done.stdout + done.stderr
