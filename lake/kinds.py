"""The kinds of summaries of landing days: their columns, and the files of `events` that each depends on.

jobs/summaries.py says what they hold and makes them; the audit of `interests` compares them with what has landed. Both
find the summary of a block by its key.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from pyspark.sql.types import (
    ArrayType,
    DateType,
    DecimalType,
    LongType,
    StringType,
    StructField,
    StructType,
    TimestampType,
)

from lake.blocks import Block, block_of, cover, cuts_of
from lake.schemas import PRICE
from lake.settings import Settings
from lake.summaries import Key, Landings, key_of
from lake.table import DataFile

# A part of each key: raise it when a summary of the same files would have other rows or columns.
FORM = 1

FIRST = StructField("first", DateType())
SUMS = StructType(
    [
        StructField("user_id", StringType()),
        StructField("category_id", StringType()),
        StructField("first_event_time", TimestampType()),
        StructField("last_event_time", TimestampType()),
        StructField("n", LongType()),
        StructField("weight", LongType()),
        StructField("purchases", LongType()),
        StructField("spend", DecimalType(38, 4)),
        # The weight of each date that has an event.
        StructField("days", ArrayType(StructType([StructField("dt", DateType()), StructField("weight", LongType())]))),
        # Of the block, whose first day is `first`.
        StructField("last", DateType()),
        FIRST,
    ]
)
EVENT = StructType(
    [
        StructField("event_id", StringType()),
        StructField("user_id", StringType()),
        StructField("event_time", TimestampType()),
        StructField("behavior", StringType()),
        StructField("item_id", StringType()),
        StructField("category_id", StringType()),
        StructField("price", PRICE),
        StructField("dt", DateType()),
        StructField("landed", DateType()),
    ]
)
KEPT_EVENT = StructType([*EVENT, FIRST])


@dataclass(frozen=True)
class Kind:
    """A kind of summaries.

    Attributes:
        name, schema: as they are kept.
        files: the files of the events that a block of days sums up.
        inputs: all files that its summary depends on: those, and others that it is compared with.
    """

    name: str
    schema: StructType
    files: Callable[[Landings, Block], list[DataFile]]
    inputs: Callable[[Landings, Block], list[DataFile]]

    def key(self, landings: Landings, block: Block, weights: Mapping[str, int]) -> Key:
        """Return the key of the summary of a block, whose sums depend on the weight of each behavior."""
        return key_of(self.inputs(landings, block), FORM, sorted(weights.items()))

    def keys(self, landings: Landings, blocks: Collection[Block], weights: Mapping[str, int]) -> dict[Block, Key]:
        """Return the key of each block that has an event: one without has no summary."""
        return {block: self.key(landings, block, weights) for block in blocks if self.files(landings, block)}


def on_time_files(landings: Landings, block: Block) -> list[DataFile]:
    """Return the files of the events of the dates in a block that landed by the end of their date."""
    return landings.on_time_of(block.days)


def late_files(landings: Landings, block: Block) -> list[DataFile]:
    """Return the files of the late events that landed in a block."""
    return landings.late_on(block.days)


def late_inputs(landings: Landings, block: Block) -> list[DataFile]:
    """Return those files, and those of the events among which the late ones are looked for."""
    late = late_files(landings, block)
    return [*late, *landings.first_seen(late)]


ON_TIME = Kind("on_time", SUMS, on_time_files, on_time_files)
LATE = Kind("late", KEPT_EVENT, late_files, late_inputs)


def blocks_of(
    kind: Kind, as_of: Sequence[date], config: Settings, landings: Landings, sizes: Sequence[int], *, include_late: bool
) -> list[Block]:
    """Return the blocks whose summaries have the events of the history of the dates `as_of`, in order.

    Args:
        kind: `ON_TIME` or `LATE`.
        as_of: the dates T, in order.
        config: W and the length of the history.
        landings: the files of the events.
        sizes: the sizes of blocks in days.
        include_late: also those that landed after the last T.
    """
    oldest, newest = as_of[0] - timedelta(days=config.history_days - 1), as_of[-1]
    if kind is ON_TIME:
        # No row crosses a day at which something changes for one of these dates.
        return cover(oldest, newest, sizes, cuts_of(as_of, config.lookback_days, config.history_days))
    landed_by = max(newest, landings.newest or newest) if include_late else newest
    # Late events have their own dates, so they need no cut: whole blocks from the one that holds the oldest day.
    return cover(block_of(oldest, max(sizes)).first, landed_by, sizes)
