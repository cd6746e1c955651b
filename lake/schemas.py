"""The columns of every table, each with its unit and meaning: the authority that staging checks against.

What one row of each table is, who writes it and how it is partitioned says lake/tables.py.
"""

from dataclasses import dataclass

from pyspark.sql.types import (
    ArrayType,
    BooleanType,
    DataType,
    DateType,
    DecimalType,
    DoubleType,
    IntegerType,
    LongType,
    StringType,
    StructField,
    StructType,
    TimestampType,
)

from lake.errors import SchemaMismatch
from lake.labels import LABELS
from lake.rules import BEHAVIOR_CODES, MAX_ITEMS, SEGMENTS, TOP_CATEGORIES, TOP_ITEMS, WEEK_DAYS
from lake.tables import TABLES as FACTS

# Exact sums, so that a total does not depend on the order in which Spark adds.
PRICE = DecimalType(18, 4)
MONEY = DecimalType(28, 4)


def column(name: str, kind: DataType, comment: str) -> StructField:
    """Describe one column; whether it may be null is an expectation, since Parquet from Spark is always nullable."""
    return StructField(name, kind, True, {"comment": comment})


DT = column("dt", DateType(), "partition")

EVENTS = StructType(
    [
        column("event_id", StringType(), "32 hex digits: hash of all that identifies the event"),
        column("user_id", StringType(), "the shop's own id of the user"),
        column("event_time", TimestampType(), "when it happened, UTC, microseconds"),
        column("behavior", StringType(), "view, search, cart, favorite or purchase"),
        column("item_id", StringType(), "the shop's own id of the item; null for a search"),
        column("category_id", StringType(), "the shop's own id of the category, where the log has one"),
        column("query", StringType(), "what was searched for"),
        column("price", PRICE, "price of the row, in the shop's currency"),
        column("source", StringType(), "name of the source that read it"),
        column("copies", IntegerType(), "identical input rows of that landing day, this one included"),
        DT,
        column("landed", DateType(), "day on which the row arrived"),
    ]
)

QUARANTINE = StructType(
    [
        column("reason", StringType(), "why the row was rejected: a code of jobs/rejections.py"),
        column("raw", StringType(), "the input row as text, cut to 4,096 characters; U+FFFD for unusable ones"),
        column("file", StringType(), "file that held the row"),
        column("line", LongType(), "line in that file, from 1, where known"),
        column("source", StringType(), "name of the source that read it"),
        DT,
    ]
)

SESSION_EVENT = StructType(
    [
        column("event_time", TimestampType(), "UTC"),
        column("event_id", StringType(), "breaks ties in event_time"),
        column("behavior", StringType(), "as in events"),
        column("item_id", StringType(), "as in events"),
        column("category_id", StringType(), "as in events"),
        column("query", StringType(), "as in events"),
        column("price", PRICE, "as in events"),
    ]
)

SESSIONS = StructType(
    [
        column("session_id", StringType(), "event_id of the session's first event"),
        column("user_id", StringType(), "whose session it is"),
        column("start_time", TimestampType(), "time of the first event, UTC"),
        column("end_time", TimestampType(), "time of the last event, UTC"),
        *(
            column(f"{name}s", LongType(), f"events of behavior {name}")
            for name in ("view", "cart", "favorite", "purchase")
        ),
        column("searches", LongType(), "events of behavior search"),
        column("revenue", MONEY, "sum of price over purchases"),
        column("converted", BooleanType(), "true when it holds a purchase"),
        column("events", ArrayType(SESSION_EVENT), "all its events, by time, then event_id"),
        DT,
    ]
)

INTERESTS = StructType(
    [
        column("user_id", StringType(), "a user with at least one event in the lookback W"),
        column("item_keys", ArrayType(LongType()), "last L events, oldest first: xxhash64 of item_id, 0 for none"),
        column("item_ids", ArrayType(StringType()), "their item_id, null for none"),
        column("category_keys", ArrayType(LongType()), "their categories: xxhash64 of category_id, 0 for none"),
        column(
            "behaviors",
            ArrayType(IntegerType()),
            f"their behaviors: {', '.join(f'{code} {name}' for name, code in BEHAVIOR_CODES.items())}",
        ),
        column("event_seconds", ArrayType(LongType()), "their times: seconds since 1970-01-01 UTC"),
        column(
            "gap_seconds",
            ArrayType(LongType()),
            "seconds since the user's previous event; 0 for the first in the array",
        ),
        column(
            "current_categories",
            ArrayType(StringType()),
            "categories of the last W days, by falling share, then id",
        ),
        column("current_counts", ArrayType(LongType()), "events in each of them"),
        column("current_shares", ArrayType(DoubleType()), "share of each, weighted by behavior; sums to 1"),
        column(
            "dominant_category",
            StringType(),
            "the first of current_categories; null when no event has a category",
        ),
        column(
            "longterm_categories",
            ArrayType(StringType()),
            "categories of the whole history, by falling share, then id",
        ),
        column(
            "longterm_shares",
            ArrayType(DoubleType()),
            "share of each, weighted by behavior and decayed by age",
        ),
        column("longterm_category_keys", ArrayType(LongType()), "xxhash64 of each of them"),
        column("longterm_counts", ArrayType(LongType()), "events in each of them"),
        column("longterm_days", ArrayType(LongType()), "days with an event of each"),
        column("longterm_current_counts", ArrayType(LongType()), "events in each during the last W days"),
        column("longterm_week_counts", ArrayType(LongType()), f"events in each during the last {WEEK_DAYS} days"),
        column("longterm_age_seconds", ArrayType(LongType()), "from the newest event of each to the end of dt"),
        column("last_event_time", TimestampType(), "latest event behind any column here, UTC"),
        column("recency_seconds", LongType(), "from last_event_time to the end of dt"),
        column("frequency", LongType(), "events in the last W days"),
        column("active_days", LongType(), "days with an event among the last W"),
        column("purchases", LongType(), "purchases in the last W days"),
        column("spend", DoubleType(), "sum of price over those purchases"),
        column("week_frequency", LongType(), f"events in the last {WEEK_DAYS} days"),
        column("history_events", LongType(), "events in the whole history"),
        column("history_days_active", LongType(), "days with an event in the whole history"),
        column("tenure_seconds", LongType(), "from the first event of the history to the end of dt"),
        DT,
    ]
)

EXAMPLES = StructType(
    [
        *(field for field in INTERESTS if field.name != "dt"),
        column("horizon_days", IntegerType(), "H: the labels are of the events of the H days after dt"),
        column(
            "next_categories",
            ArrayType(StringType()),
            "categories of those days, by falling share, then weight with all users, then id",
        ),
        column("next_counts", ArrayType(LongType()), "events in each of them"),
        column("next_shares", ArrayType(DoubleType()), "share of each, weighted by behavior; sums to 1"),
        column("next_category", StringType(), "the first of next_categories; null when no event has a category"),
        column("next_category_key", LongType(), "xxhash64 of next_category, 0 for none"),
        column(
            "next_item_keys",
            ArrayType(LongType()),
            f"distinct items of those days, by their first event, at most {MAX_ITEMS}: xxhash64 of item_id",
        ),
        column("next_events", LongType(), "events in those days"),
        column(
            "migrated",
            BooleanType(),
            "true when interest moved by more than counting noise; null below m events with a category on a side",
        ),
        column(
            "js_distance",
            DoubleType(),
            "Jensen-Shannon distance, base 2, of current_counts and next_counts; null as migrated",
        ),
        column("g_p_value", DoubleType(), "p of the G-test that both are of one distribution; null as migrated"),
        column("purchased", BooleanType(), "true when a purchase is among those events"),
        column("churned", BooleanType(), "true when there is no such event at all"),
        column("first_label_time", TimestampType(), "earliest of those events, UTC; null when there is none"),
        column("last_label_time", TimestampType(), "latest of those events, UTC; null when there is none"),
        DT,
    ]
)

PREDICTIONS = StructType(
    [
        column("user_id", StringType(), "a user of interests at dt"),
        column("model_version", IntegerType(), "version of the registered model that predicted"),
        column(
            "category_ids",
            ArrayType(StringType()),
            f"most likely next categories, at most {TOP_CATEGORIES}, best first",
        ),
        column("category_probabilities", ArrayType(DoubleType()), "probability of each to be the next dominant one"),
        column("current_category", StringType(), "dominant category at dt; null when no event has a category"),
        *(column(label.probability, DoubleType(), label.comment) for label in LABELS),
        column("item_ids", ArrayType(StringType()), f"most likely next items, at most {TOP_ITEMS}, best first"),
        column("item_probabilities", ArrayType(DoubleType()), "probability of each to be the next item"),
        column("surprise", DoubleType(), "mean negative log likelihood of the recent events; null for too few of them"),
        column("risk_percentile", DoubleType(), "share of users in percent, when the model was made, less surprising"),
        column("segment", StringType(), f"{', '.join(SEGMENTS[:-1])} or {SEGMENTS[-1]}: the first that applies"),
        column("unseen_events", LongType(), "events of the sequence whose item the model does not know"),
        DT,
    ]
)


@dataclass(frozen=True)
class TableSpec:
    """What the lake needs to know of a table.

    Attributes:
        schema: its columns, the partition columns last.
        partition_by: the partition columns.
        owned_by: the partition column whose values a run replaces as a whole.
        meaning: one row in words.
    """

    schema: StructType
    partition_by: tuple[str, ...]
    owned_by: str
    meaning: str


SCHEMAS = {
    "events": EVENTS,
    "quarantine": QUARANTINE,
    "sessions": SESSIONS,
    "interests": INTERESTS,
    "examples": EXAMPLES,
    "predictions": PREDICTIONS,
}
TABLES = {
    name: TableSpec(SCHEMAS[name], facts.partition_by, facts.owned_by, facts.meaning) for name, facts in FACTS.items()
}


def require_schema(table: str, schema: StructType) -> None:
    """Check that rows to be staged have exactly the declared columns.

    Raises:
        SchemaMismatch: names every missing, unexpected and differently typed column at once.
    """
    wanted = {f.name: f.dataType.simpleString() for f in TABLES[table].schema}
    got = {f.name: f.dataType.simpleString() for f in schema}
    problems = [f"missing {name} {kind}" for name, kind in wanted.items() if name not in got]
    problems += [f"unexpected {name} {kind}" for name, kind in got.items() if name not in wanted]
    problems += [f"{name} is {got[name]}, not {kind}" for name, kind in wanted.items() if got.get(name, kind) != kind]
    if problems:
        raise SchemaMismatch(f"rows for {table} do not fit lake/schemas.py: {'; '.join(problems)}")
