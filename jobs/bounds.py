"""Reject the events of a user and date beyond the first so many that land on one day: of robots and broken clients.

Why it is so says docs/decisions/0042-how-many-events-a-user-may-have.md.
"""

from collections.abc import Sequence

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from jobs.rejections import CONTENT, EVENT, REJECTED, TOO_MANY
from jobs.source import Source

# Whose events are counted together. What landed on another day is not: so any order of days gives the same rows.
TOGETHER = ("landed", "user_id", "date")


def with_bound(judged: DataFrame, most: int, source: Source, kept: list[DataFrame]) -> DataFrame:
    """Return judged rows, of which those beyond the first events of a user and date are rejected.

    First are the events with the earliest times; of one instant, a hash of the content decides. Rows that are folded
    into one event count once, and stay or go together. So which events stay depends on the rows that landed on the day
    alone, not on their files or on the order in which Spark reads them.

    Args:
        judged: as jobs.rejections.judge returns them, persisted, with the text of each row in `raw`.
        most: so many events stay of a user and date; 0 for all.
        source: tells whether identical rows are one event or several.
        kept: gets what has to be unpersisted in the end.
    """
    if not most:
        return judged
    dated = judged.withColumn("date", F.to_date("event_time"))
    is_event = F.col("outcome") == EVENT
    # Few users have so many: the rows of all others need no order, and stay where they are.
    counted = dated.where(is_event).groupBy(*TOGETHER).count()
    whose = counted.where(F.col("count") > most).select(*TOGETHER, F.lit(True).alias("is_listed")).persist()
    kept.append(whose)
    if whose.isEmpty():
        return judged
    is_theirs = is_event & F.coalesce("is_listed", F.lit(False))
    listed = dated.join(whose, on=[*TOGETHER], how="left").withColumn("is_theirs", is_theirs)
    in_order = Window.partitionBy(*TOGETHER).orderBy("place")
    number = (F.row_number() if source.repeats == "keep" else F.dense_rank()).over(in_order)
    # Of several sources, an event of each is one of its own.
    own = [name for name in ("source",) if name in judged.columns]
    theirs = listed.where("is_theirs").withColumn("place", place(source, own)).withColumn("is_beyond", number > most)
    theirs = theirs.withColumns(
        {
            "outcome": F.when(F.col("is_beyond"), REJECTED).otherwise(F.col("outcome")),
            "reason": F.when(F.col("is_beyond"), TOO_MANY),
        }
    )
    theirs = theirs.select(*judged.columns).persist()
    kept.append(theirs)
    return listed.where(~F.col("is_theirs")).select(*judged.columns).unionByName(theirs)


def place(source: Source, own: Sequence[str] = ()) -> Column:
    """Return the place of an event among those of its user and date.

    Args:
        source: tells whether identical rows are one event or several.
        own: what tells events apart beside their content.
    """
    # An item table fills in categories, and may be delivered anew in the folder of an earlier day: so they have no part
    # in the hash, and come last, for events that are alike in all else.
    content = [name for name in CONTENT if name not in ("user_id", "event_time", "category_id")]
    # By the content itself, views would always be the last ones where a log has no more than the day.
    parts = [F.col("event_time"), F.xxhash64(*content).alias("hash"), *map(F.col, (*content, "category_id", *own))]
    if source.repeats == "keep":
        # Which of identical rows get into the quarantine; it has no column that differs between those equal here too.
        parts += [F.col("raw"), F.col("file"), F.col("position")]
    return F.struct(*parts)
