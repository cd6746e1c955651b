"""Write the archive of Spark's classes (lake/jvm.py), by running our jobs over a small log.

    python -m dags.local.jvm

It is the JDK's AppCDS (JEP 350), belongs to one JDK and to the jars of this environment, and takes more than a third of
its work from each JVM that finds it. `make setup` calls this.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from lake.jvm import ARCHIVE, FRUGAL, SILENT

DAY = "2025-01-01"
EXERCISE = "exercise"


def exercise() -> None:
    """Take a day from a simulated log to its sessions and interests, all in one JVM."""
    from expectations import audit
    from jobs import ingest, interests, sessionize, simulate
    from lake.publish import publish

    simulate.main(["--from", DAY, "--days", "1", "--events", "2000", "--users", "40"])
    ingest.main(["--day", DAY, "--run-id", EXERCISE])
    audit.main(["--table", "events", "--run-id", EXERCISE])
    publish("events", EXERCISE)
    for job in (sessionize, interests):
        job.main(["--day", DAY, "--run-id", EXERCISE])


def write_archive(archive: Path = ARCHIVE) -> None:
    """Run the exercise, and put the classes that its JVM has loaded where the next ones look for them.

    Where none can be written, an empty file stands for it: JVMs start without, and `make` does not try again.
    """
    with tempfile.TemporaryDirectory(dir=archive.parent) as folder:
        # What is half written would end each JVM that reads it.
        written = Path(folder, archive.name)
        others = ("MEANDER_", "SPARK_", "PYSPARK_")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(others)}
        environment |= {
            "MEANDER_LAKE": f"{folder}/lake",
            "MEANDER_LANDING": f"{folder}/landing",
            "MEANDER_SOURCE": "canonical",
            "PYSPARK_PYTHON": sys.executable,
            "SPARK_LOCAL_IP": "127.0.0.1",
            "SPARK_SUBMIT_OPTS": f'{FRUGAL} {SILENT} "-XX:ArchiveClassesAtExit={written}"',
        }
        submit = [str(Path(sys.executable).with_name("spark-submit")), "--master", "local[2]"]
        # 2,000 events: Spark's 200 partitions would be 200 near-empty tasks.
        submit += ["--conf", "spark.sql.shuffle.partitions=2", __file__, EXERCISE]
        done = subprocess.run(submit, env=environment, capture_output=True, text=True, check=False)
        # A JDK without an archive of its own classes fails; one that is no HotSpot passes over the option.
        if done.returncode or not written.exists():
            output = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
            sys.stderr.write(f"There is no archive, and each JVM starts as ever. What was tried said last:\n{output}\n")
            written.write_bytes(b"")
        written.replace(archive)


if __name__ == "__main__":
    exercise() if sys.argv[1:] == [EXERCISE] else write_archive()
