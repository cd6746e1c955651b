"""What was known of the users at the dates T: from summaries of landing days, which are compared with their events.

The audit of `interests` compares the states with it. It reads the summaries that the states are made from, not the
events of the history: its cost does not grow with the age of the lake. Three comparisons take the place of that reading
(docs/decisions/0031 has what they notice, and what they do not):

- the states with the summaries: users, events of the lookback, days of the history;
- the summaries with what has landed, by *control totals*: sums over all rows, each number times a hash of whose it is.
  Those of a block are those of its days added up, so each date is read once, when it is new;
- the states of a fixed sample of users with the events of the lookback.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import pandas as pd
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from lake.blocks import Block
from lake.kinds import LATE, ON_TIME, Kind, blocks_of
from lake.settings import Settings
from lake.summaries import Key, Landings, Summaries, Totals, keep_totals, kept_totals
from lake.table import Table

# A prime near 2^31: a hash below it, times the events of years, is far from the end of 38 digits.
HASHES = 2_147_483_647
# Of a table of more users, between so many and twice as many are in the sample; of a smaller one all.
SAMPLE = 1_000
NOTHING = dict.fromkeys(("n", "weight", "purchases", "spend", "days"), 0)


@dataclass(frozen=True)
class Known:
    """The events that the states at some dates T are made of.

    Attributes:
        events: the pinned table.
        landings: its files by landing day.
        as_of: the dates T, in order.
        config: W, the length of the history, and the weights of behaviors.
        sizes: the sizes of blocks in days.
        include_late: whether events count that arrived after T.
    """

    spark: SparkSession
    events: Table
    landings: Landings
    as_of: Sequence[date]
    config: Settings
    sizes: Sequence[int]
    include_late: bool

    def blocks(self, kind: Kind) -> dict[Block, Key]:
        """Return the blocks that have an event of the history, with the keys of their summaries."""
        blocks = blocks_of(kind, self.as_of, self.config, self.landings, self.sizes, include_late=self.include_late)
        return kind.keys(self.landings, blocks, self.config.weights)

    def at_each(self, rows: DataFrame, first: str, last: str, days: int) -> DataFrame:
        """Repeat each row, of the dates `first` to `last`, for every T in whose last `days` days they lie, as `day`."""

        def counts_at(day: Column) -> Column:
            near = (F.col(last) <= day) & (F.datediff(day, F.col(first)) < days)
            return near if self.include_late else near & (F.col("landed") <= day)

        every = F.array(*(F.lit(day) for day in self.as_of))
        return rows.withColumn("day", F.explode(F.filter(every, counts_at)))


# ---- the states, from summaries ----


def upstream(known: Known) -> dict[date, dict[str, int]]:
    """Return, by T, the active `users`, their `events` in the lookback, and their `days` in the history."""
    # Before rows are repeated: one row a user, block and landing is left of all categories, and stays where it is.
    spans = ("user_id", "first", "last", "landed", "block")
    of_user = visits(known).repartition("user_id").groupBy(*spans).agg(F.sum("n").alias("n"), merged("dates"))
    active = (
        known.at_each(of_user, "first", "last", known.config.history_days)
        .withColumn("n", F.when(F.datediff("day", "first") < known.config.lookback_days, F.col("n")).otherwise(0))
        .groupBy("user_id", "day", "block")
        .agg(F.sum("n").alias("n"), merged("dates"))
        .groupBy("user_id", "day")
        .agg(F.sum("n").alias("n"), F.sum(F.bit_count("dates")).alias("days"))
        .where(F.col("n") > 0)
        .groupBy("day")
        .agg(F.count("*").alias("users"), F.sum("n").alias("events"), F.sum("days").alias("days"))
    )
    return {row["day"]: row.asDict() for row in active.collect()}


def merged(dates: str) -> Column:
    """Return the aggregate of the dates in the bits of several rows, by the same name: each counts once."""
    return F.bit_or(dates).alias(dates)


def visits(known: Known) -> DataFrame:
    """Return rows of users: `n` events of `dates` within `first` to `last`, all in one `block` of 64, by `landed`.

    `dates` are the bits of a number: days are counted once, whatever summary they are from.
    """
    on_time, late = on_time_visits(known), late_visits(known)

    def ordinal(day: Column) -> Column:
        return F.unix_date(day) + date(1970, 1, 1).toordinal()  # by which blocks are aligned

    def with_bit(bits: Column, day: Column) -> Column:
        place = F.pmod(ordinal(day), 64)
        return bits.bitwiseOR(F.call_function("shiftleft", F.lit(1).cast("bigint"), place))

    bits = F.aggregate("days", F.lit(0).cast("bigint"), with_bit)
    return (
        on_time.unionByName(late)
        .withColumn("dates", bits)
        .withColumn("block", F.floor(ordinal(F.col("first")) / 64))
        .select("user_id", "first", "last", "landed", "n", "dates", "block")
    )


def on_time_visits(known: Known) -> DataFrame:
    """Return the visits whose events were on time, with `days`; from events where a summary is gone."""
    wanted, kept = known.blocks(ON_TIME), Summaries.of(ON_TIME.name, ON_TIME.schema)
    there = {block: key for block, key in wanted.items() if kept.has(block, key)}
    columns = ("user_id", "first", "last", "landed", "n", "days")
    summed = kept.read(known.spark, there.items()).withColumns({"landed": F.col("last"), "days": F.col("days.dt")})
    days = {day for block in wanted.keys() - there.keys() for day in block.days}
    each = on_time_events(known, days).groupBy("user_id", "dt").agg(F.count("*").alias("n"))
    return summed.select(*columns).unionByName(of_dates(each.withColumn("landed", F.col("dt"))).select(*columns))


def on_time_events(known: Known, days: Collection[date]) -> DataFrame:
    """Return the events of some dates that landed by the end of their date, each once."""
    two = known.landings.dates_of_two(days)
    files, more = (known.landings.on_time_of(some) for some in (set(days) - two, two))
    once = known.events.read_files(known.spark, files)
    # Within a landing day an event is there once, so that most dates need no look at ids.
    again = known.events.read_files(known.spark, more).dropDuplicates(["dt", "user_id", "event_id"]) if more else None
    return once if again is None else once.unionByName(again)


def late_visits(known: Known) -> DataFrame:
    """Return the others, each event once, with the first day on which it landed."""
    wanted, kept = known.blocks(LATE), Summaries.of(LATE.name, LATE.schema)
    there = {block: key for block, key in wanted.items() if kept.has(block, key)}
    ids = ["user_id", "event_id"]
    files = known.landings.late_on(day for block in wanted.keys() - there.keys() for day in block.days)
    before = known.events.read_files(known.spark, known.landings.first_seen(files)).select(*ids)
    fresh = known.events.read_files(known.spark, files).join(before, on=ids, how="left_anti")
    columns = (*ids, "dt", "landed")
    each = kept.read(known.spark, there.items()).select(*columns).unionByName(fresh.select(*columns))
    once = each.groupBy(*ids).agg(F.min("landed").alias("landed"), F.first("dt").alias("dt"))
    return of_dates(once.withColumn("n", F.lit(1).cast("bigint"))).drop("event_id", "dt")


def of_dates(rows: DataFrame) -> DataFrame:
    """Return rows of a date `dt` as rows of the dates `first` to `last`."""
    return rows.withColumns({"first": F.col("dt"), "last": F.col("dt"), "days": F.array("dt")})


# ---- the summaries, and what has landed ----


def different_blocks(known: Known) -> list[Block]:
    """Return the blocks whose summary of what was on time has not the control totals of their events."""
    wanted, kept = known.blocks(ON_TIME), Summaries.of(ON_TIME.name, ON_TIME.schema)
    there = {block: key for block, key in wanted.items() if kept.has(block, key)}
    summed = kept.read(known.spark, there.items()).groupBy("first").agg(*totals_of_sums()).collect()
    found = {row["first"]: totals_in(row.asDict()) for row in summed}
    landed = totals_of_landings(known, there)
    return [block for block in there if found.get(block.first, NOTHING) != landed[block]]


def whose(*more: str | Column) -> Column:
    """Return the hash of the user and the category of a row, and of `more`, below `HASHES`."""
    return F.pmod(F.xxhash64("user_id", "category_id", *more), F.lit(HASHES)).cast("decimal(10, 0)")


def control_total(name: str, number: Column) -> Column:
    """Return a control total."""
    return F.coalesce(F.sum(number), F.lit(0)).cast("decimal(38, 4)").alias(name)


def totals_of_sums() -> list[Column]:
    """Return the control totals of sums."""

    def add(total: Column, day: Column) -> Column:
        return (total + day["weight"] * whose(day["dt"])).cast("decimal(38, 0)")

    return [
        *(control_total(name, F.col(name) * whose()) for name in ("n", "weight", "purchases", "spend")),
        control_total("days", F.aggregate("days", F.lit(0).cast("decimal(38, 0)"), add)),
    ]


def totals_of_events(weights: Mapping[str, int]) -> list[Column]:
    """Return the same of the events themselves."""
    weight = F.create_map(*(F.lit(part) for pair in weights.items() for part in pair))[F.col("behavior")]
    bought = F.col("behavior") == "purchase"
    return [
        control_total("n", whose()),
        control_total("weight", weight * whose()),
        control_total("purchases", F.when(bought, whose())),
        control_total("spend", F.when(bought, F.col("price") * whose())),
        control_total("days", weight * whose("dt")),
    ]


def totals_in(row: Mapping[str, object]) -> Totals:
    """Return the totals in a row, as whole numbers: those of Python have no end."""
    return {name: int(f"{value:.4f}".replace(".", "")) for name, value in row.items() if name not in ("first", "dt")}


def totals_of_landings(known: Known, wanted: Mapping[Block, Key]) -> dict[Block, Totals]:
    """Return the control totals of what was on time in blocks: those that are kept, the others from events."""
    found = kept_totals(wanted)
    missing = [block for block in wanted if block not in found]
    single = [Block(day, day) for block in missing for day in block.days]
    days = ON_TIME.keys(known.landings, single, known.config.weights)
    of_days = kept_totals(days)
    if unread := [day.first for day in days if day not in of_days]:
        rows = on_time_events(known, unread).groupBy("dt").agg(*totals_of_events(known.config.weights)).collect()
        new = {Block(day, day): NOTHING for day in unread}
        new |= {Block(row["dt"], row["dt"]): totals_in(row.asDict()) for row in rows}
        keep_totals(days, new)
        of_days |= new
    sums = {
        block: added(of for day, of in of_days.items() if block.first <= day.first <= block.last) for block in missing
    }
    keep_totals(wanted, sums)
    return found | sums


def added(totals: Iterable[Totals]) -> Totals:
    """Add up control totals."""
    each = list(totals)
    return {name: sum(one[name] for one in each) for name in NOTHING}


# ---- a sample of users, and their events ----


def in_sample(users: float) -> Column:
    """Return whether the user of a row is in the sample of a table of so many: the same ones on each day."""
    halvings = max((int(users) // SAMPLE).bit_length() - 1, 0)
    return F.pmod(F.xxhash64("user_id"), F.lit(2**halvings)) == 0


def sample_differs(known: Known, states: DataFrame, users: float) -> dict[date, int]:
    """Return, by T, how many users of the sample have not the events and days of the lookback in their state.

    Args:
        known: the events that the states are made of.
        states: the staged rows.
        users: how many have a state at one T.
    """
    span = timedelta(days=known.config.lookback_days - 1)
    recent = known.events.read(known.spark, known.as_of[0] - span, known.as_of[-1]).where(in_sample(users))
    # Before rows are repeated: events by date, each once, with the first day on which it landed.
    of_date = (
        recent.repartition("user_id")
        .groupBy("user_id", "event_id")
        .agg(F.min("landed").alias("landed"), F.first("dt").alias("dt"))
        .groupBy("user_id", "dt", "landed")
        .agg(F.count("*").alias("n"))
    )
    happened = (
        known.at_each(of_date, "dt", "dt", known.config.lookback_days)
        .groupBy("user_id", "day")
        .agg(F.sum("n").alias("n"), F.count_distinct("dt").alias("days"))
    )
    stated = states.where(in_sample(users)).select("user_id", F.col("dt").alias("day"), "frequency", "active_days")
    both = happened.join(stated, on=["user_id", "day"], how="full_outer")
    alike = F.col("n").eqNullSafe(F.col("frequency")) & F.col("days").eqNullSafe(F.col("active_days"))
    rows = both.groupBy("day").agg(F.count_if(~alike).alias("different")).collect()
    return {row["day"]: row["different"] for row in rows}


# ---- all of it ----


def with_what_was_known(known: Known, states: DataFrame, figures: pd.DataFrame) -> pd.DataFrame:
    """Add the figures of all three comparisons to those of each T."""
    counts, sampled = upstream(known), sample_differs(known, states, figures["rows"].mean())
    different = different_blocks(known)

    def near(day: date) -> int:
        oldest = day - timedelta(days=known.config.history_days - 1)
        return sum(block.first <= day and block.last >= oldest for block in different)

    days = list(figures["day"])
    return figures.assign(
        active_upstream=[counts[day]["users"] if day in counts else 0 for day in days],
        events_upstream=[counts[day]["events"] if day in counts else 0 for day in days],
        days_upstream=[counts[day]["days"] if day in counts else 0 for day in days],
        summaries_differ=[near(day) for day in days],
        sample_differs=[sampled.get(day, 0) for day in days],
    )
