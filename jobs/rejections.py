"""Turn the text values of an input row into an event's columns, or give the reason why a row cannot be an event.

Every row gets exactly one outcome: an event, ignored (its source maps the behavior to `ignore`), or the first reason
below that applies. The reasons are the values of `quarantine.reason`.
"""

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from jobs.source import Source, Time, quoted
from lake.rules import MAX_ID_BYTES
from lake.schemas import PRICE
from lake.settings import Settings

# In order of precedence: reasons that make the rest of a row meaningless come first.
REASONS = {
    "undecodable": "holds bytes that are not of the source's encoding",
    "malformed_line": "is not a record of the source's format with its number of columns, or is longer than 1 MiB",
    "field_too_long": "an id or query is longer than MEANDER_MAX_FIELD_LENGTH",
    "unusable_text": "an id or query has a character that not every sink can hold, or an id more than 2,048 bytes",
    "missing_time": "no event time",
    "unparsable_time": "the event time is not in the source's time format",
    "time_before_floor": "the event time is before MEANDER_TIME_FLOOR",
    "time_after_landing": "the event time lies after the day on which the row arrived",
    "missing_user": "no user",
    "unknown_behavior": "the source file does not name this behavior",
    "missing_item": "no item, and the behavior is not a search",
    "invalid_price": "the price is not a number below 10^14",
    "negative_price": "the price is below zero",
}

EVENT, IGNORED, REJECTED = "event", "ignored", "rejected"
CONTENT = ("user_id", "event_time", "behavior", "item_id", "category_id", "query", "price")

# The characters that no id may hold, see lake/text.py; and those that no query may hold.
UNUSABLE_IN_IDS = r"[\p{Cc}\p{Zl}\p{Zp}\p{IsNoncharacter_Code_Point}\x{FEFF}\x{FFFD}\x{202A}-\x{202E}\x{2066}-\x{2069}]"
UNUSABLE_IN_QUERIES = rf"[{UNUSABLE_IN_IDS}&&[^\t\n]]"


def text_value(column: str | None) -> Column:
    """Return a value without surrounding blanks; null if it is empty, or the source has no such column."""
    if column is None:
        return F.lit(None).cast("string")
    trimmed = F.trim(F.col(f"values.{quoted(column)}"))
    return F.when(trimmed != "", trimmed)


def event_time(time: Time) -> Column:
    """Return the instant of an event; null if its text is not in the source's format."""
    text = text_value(time.column)
    per_second = {"epoch_s": 1, "epoch_ms": 1_000, "epoch_us": 1_000_000}
    if time.format in per_second:
        # 18 digits before the point: an epoch in microseconds fits, and so do the fractions of one in seconds.
        number = F.expr(f"try_cast(trim(values.{quoted(time.column)}) as decimal(24, 6))")
        micros = number * (1_000_000 // per_second[time.format])
        # Beyond the year 9999 a timestamp cannot be written, so it cannot be an event's time either.
        representable = F.abs(micros) < 253_402_300_800_000_000
        return F.when(representable, F.timestamp_micros(micros.cast("bigint")))
    if time.format == "iso8601":
        # Spark would also take "2021" or "12:30"; an event time needs a date and a time of day.
        complete = text.rlike(r"^\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}")
        instant = F.when(complete, F.expr(f"try_cast(trim(values.{quoted(time.column)}) as timestamp)"))
        # Spark accepts many notations of a zone (Z, +08:00, GMT, Asia/Shanghai), so times without one are recognised.
        has_no_zone = text.rlike(r"^\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{1,2}(\.\d*)?)?$")
        return F.when(has_no_zone, F.to_utc_timestamp(instant, time.zone)).otherwise(instant)
    return F.to_utc_timestamp(F.try_to_timestamp(text, F.lit(time.format)), time.zone)


def behavior_of(source: Source) -> Column:
    """Return the behavior that the source file maps a raw value to, `ignore` included; null if it maps it to none."""
    if source.behavior.constant is not None:
        return F.lit(source.behavior.constant)
    meaning = F.create_map(*(F.lit(part) for pair in source.behavior.values.items() for part in pair))
    return F.try_element_at(meaning, text_value(source.behavior.column))


def has_unusable_text() -> Column:
    """Return whether a row has an id or a query that not every sink can hold, as lake/text.py defines it."""
    ids = ("user_id", "item_id", "category_id")
    return (
        F.concat_ws(" ", *ids).rlike(UNUSABLE_IN_IDS)
        | F.coalesce("query", F.lit("")).rlike(UNUSABLE_IN_QUERIES)
        | (F.greatest(*(F.octet_length(F.coalesce(name, F.lit(""))) for name in ids)) > MAX_ID_BYTES)
    )


def judge(rows: DataFrame, source: Source, config: Settings) -> DataFrame:
    """Add an event's columns, `outcome` (event, ignored or rejected) and `reason` (null unless rejected).

    Args:
        rows: as jobs.raw_rows.read_rows returns them.
        source: the meaning of their values.
        config: limits of time and length.
    """
    names = {
        "user_id": source.user_id,
        "item_id": source.item_id,
        "category_id": source.category_id,
        "query": source.query,
    }
    price_text = text_value(source.price)
    price = F.lit(None)
    if source.price:
        price = F.expr(f"try_cast(trim(values.{quoted(source.price)}) as {PRICE.simpleString()})")
    rows = rows.select(
        *("landed", "file", "whole_file", "position", "raw", "undecodable", "malformed"),
        *(text_value(column).alias(name) for name, column in names.items()),
        event_time(source.time).alias("event_time"),
        behavior_of(source).alias("behavior"),
        price.cast(PRICE).alias("price"),
        text_value(source.time.column).alias("time_text"),
        price_text.alias("price_text"),
    )
    too_long = F.greatest(*(F.length(F.coalesce(name, F.lit(""))) for name in names)) > config.max_field_length
    needs_item = F.col("behavior") != "search"
    applies = {
        "undecodable": F.col("undecodable"),
        "malformed_line": F.col("malformed"),
        "field_too_long": too_long,
        "unusable_text": has_unusable_text(),
        "missing_time": F.col("time_text").isNull(),
        "unparsable_time": F.col("event_time").isNull(),
        "time_before_floor": F.col("event_time") < F.lit(config.time_floor).cast("timestamp"),
        "time_after_landing": F.col("event_time") >= F.date_add("landed", 1).cast("timestamp"),
        "missing_user": F.col("user_id").isNull(),
        "unknown_behavior": F.col("behavior").isNull(),
        "missing_item": needs_item & F.col("item_id").isNull(),
        "invalid_price": F.col("price_text").isNotNull() & F.col("price").isNull(),
        "negative_price": F.col("price") < 0,
    }
    reason = F.coalesce(*(F.when(applies[code], F.lit(code)) for code in REASONS))
    readable = ~F.col("undecodable") & ~F.col("malformed")
    ignored = readable & (F.coalesce("behavior", F.lit("")) == "ignore")
    outcome = F.when(ignored, IGNORED).when(reason.isNotNull(), REJECTED).otherwise(EVENT)
    return rows.select(
        *("landed", "file", "whole_file", "position", "raw", *CONTENT),
        outcome.alias("outcome"),
        F.when(~ignored, reason).alias("reason"),
    )
