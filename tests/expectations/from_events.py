"""What was known of the users at the dates T, read from all events of the history: the rule of the audit until 0031."""

from collections.abc import Sequence
from datetime import date, timedelta

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from lake.settings import Settings
from lake.table import Table


def upstream(
    spark: SparkSession, events: Table, as_of: Sequence[date], config: Settings, *, include_late: bool = False
) -> dict[date, tuple[int, int, int]]:
    """Return, by T, the active users, their events in the lookback, and their days in the history."""
    lookback, history = timedelta(days=config.lookback_days - 1), timedelta(days=config.history_days - 1)

    def at_each(rows: DataFrame, days: int) -> DataFrame:
        def counts_at(day: Column) -> Column:
            near = (F.col("dt") <= day) & (F.datediff(day, "dt") < days)
            return near if include_late else near & (F.col("landed") <= day)

        every = F.array(*(F.lit(day) for day in as_of))
        return rows.withColumn("day", F.explode(F.filter(every, counts_at)))

    recent = events.read(spark, as_of[0] - lookback, as_of[-1]).select("event_id", "dt", "landed")
    happened = at_each(recent, config.lookback_days).groupBy("day").agg(F.count_distinct("event_id").alias("n"))
    visits = events.read(spark, as_of[0] - history, as_of[-1])
    visits = visits.groupBy("user_id", "dt").agg(F.min("landed").alias("landed"))
    users = (
        at_each(visits, config.history_days)
        .groupBy("user_id", "day")
        .agg(F.count("*").alias("days"), F.min(F.datediff("day", "dt")).alias("age"))
        .where(F.col("age") < config.lookback_days)
    )
    active = users.groupBy("day").agg(F.count("*").alias("users"), F.sum("days").alias("days"))
    numbers = {row["day"]: row["n"] for row in happened.collect()}
    counts = {row["day"]: (row["users"], numbers[row["day"]], row["days"]) for row in active.collect()}
    return {day: counts.get(day, (0, 0, 0)) for day in as_of}
