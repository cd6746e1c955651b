"""How a JVM starts that ends soon: without what pays only later, and with Spark's classes from an archive.

`make setup` writes the archive, by dags/local/jvm.py. A JVM that finds none, or one that does not fit, starts as ever.
"""

import sys
from pathlib import Path

ARCHIVE = Path(sys.prefix) / "spark-classes.jsa"
# Without a second compiler, which is worth its work only later; but with room for compiled code: the JVM keeps 48 MB
# for the code of one compiler, and planning Spark's queries fills them in a minute.
ONE_COMPILER = "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=240m"
# And without a parallel collector.
FRUGAL = f"{ONE_COMPILER} -XX:+UseSerialGC"
# Not a word about an archive that does not fit.
SILENT = "-Xlog:cds=off -Xlog:cds+dynamic=off"
# By default the JVM looks for garbage whenever classes have outgrown some megabytes, and again a few later. Those of
# Spark and of its queries take 200, and none of them goes.
ROOM_FOR_CLASSES = "-XX:MetaspaceSize=256m"
FROM_ARCHIVE = f'-Xshare:auto "-XX:SharedArchiveFile={ARCHIVE}" {SILENT} {ROOM_FOR_CLASSES}'
SHORT_LIVED_JVM = f"{FRUGAL} {FROM_ARCHIVE}"

# Spark's configuration of an application that is started here.
APPLICATION = {
    # By itself PySpark tells the JVM before and after each column expression in which line of Python it stands, for
    # messages of errors: ten calls for one, half of those of an ingest of few rows. The traceback says the line too.
    "spark.python.sql.dataFrameDebugging.enabled": "false",
    # Of the code that Spark makes for queries it keeps that of some days, not of a quarter of one.
    "spark.sql.codegen.cache.maxEntries": "2000",
}


def options_of(*, short_lived: bool) -> str:
    """Return the options of a JVM that starts from the archive; none where there is no archive, as in an image.

    Args:
        short_lived: whether it has too little to do for what pays only later. Its collector is the JVM's own choice,
            since a machine may have chosen another one for all, and two choices end a JVM.
    """
    if not ARCHIVE.is_file() or not ARCHIVE.stat().st_size:
        return ""
    return f"{ONE_COMPILER} {FROM_ARCHIVE}" if short_lived else FROM_ARCHIVE
