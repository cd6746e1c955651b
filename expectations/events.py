"""Expectations of staged `events`, a landing day at a time."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import great_expectations.expectations as gxe
import numpy as np
import numpy.typing as npt
import pandas as pd
from great_expectations.expectations.expectation import Expectation
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from expectations.duplicates import duplicates
from expectations.fields import fields_are_there, with_fields
from expectations.suite import (
    CRITICAL,
    WARNING,
    Suite,
    between,
    equal,
    few_rejected,
    not_null,
    rejected_share,
    usual_volume,
    with_volume_ratio,
    zero,
)
from lake.days import ONE_DAY, days_between
from lake.rules import BEHAVIORS, EVENTS_TO_JUDGE_USERS, LARGE_USER_SHARE, MAX_ID_BYTES
from lake.settings import Settings
from lake.staging import NO_VALUE, Staged, partition_of
from lake.table import Table

# So many days before a landing day tell how late events usually are. After a lasting change of the delivery, it is
# warned of for half of them.
WEEK = timedelta(days=7)

# The characters that no id may hold: the definition of lake/text.py as a list of code points. A query may hold a tab
# and a line feed.
CONTROLS = [*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029]
REORDERING = [*range(0x202A, 0x202F), *range(0x2066, 0x206A)]
NONCHARACTERS = [
    *range(0xFDD0, 0xFDF0),
    *(plane + last for plane in range(0, 0x110000, 0x10000) for last in (0xFFFE, 0xFFFF)),
]
UNUSABLE = [*CONTROLS, *REORDERING, *NONCHARACTERS, 0xFEFF, 0xFFFD]


def one_of(codes: list[int]) -> str:
    """Return the regular expression of one of some characters."""
    return "[" + "".join(rf"\x{{{code:X}}}" for code in codes) + "]"


# Java compares each character with each of a list. Most texts have none but these, and are looked at no further.
NOT_PLAIN = "[^ -~]"


def unusable_text() -> Column:
    """Return whether an event has an id or a query that not every sink can hold."""
    ids = ("user_id", "item_id", "category_id")
    joined, query = F.concat_ws("", *ids), F.concat_ws("", "query")
    in_query = [code for code in UNUSABLE if chr(code) not in "\t\n"]
    return (
        (joined.rlike(NOT_PLAIN) & joined.rlike(one_of(UNUSABLE)))
        | (query.rlike(NOT_PLAIN) & query.rlike(one_of(in_query)))
        | F.coalesce(F.greatest(*(F.octet_length(name) for name in ids)) > MAX_ID_BYTES, F.lit(False))
    )


def rows(config: Settings) -> list[Expectation]:
    """Expect that each event is whole and its values are possible."""
    return [
        *not_null("event_id", "user_id", "event_time", "behavior", "source", "copies", "dt", "landed"),
        gxe.ExpectColumnValueLengthsToEqual(column="event_id", value=32, severity=CRITICAL),
        gxe.ExpectColumnValueLengthsToBeBetween(
            column="user_id", min_value=1, max_value=config.max_field_length, severity=CRITICAL
        ),
        gxe.ExpectColumnValuesToBeInSet(column="behavior", value_set=list(BEHAVIORS), severity=CRITICAL),
        between("price", 0, None, "no price is negative"),
        between("copies", 1, None, "an event has at least one input row"),
    ]


def measures(config: Settings) -> dict[str, Column]:
    """Measure one landing day."""
    return {
        "copies": F.coalesce(F.sum("copies"), F.lit(0)),
        "outside_partition": F.count_if(F.to_date("event_time") != F.col("dt")),
        "after_landing": F.count_if(F.col("dt") > F.col("landed")),
        "before_floor": F.count_if(F.col("dt") < F.lit(config.time_floor)),
        "too_late": F.count_if((F.datediff("landed", "dt") > config.max_days_late) & (config.max_days_late > 0)),
        "without_item": F.count_if((F.col("behavior") != "search") & F.col("item_id").isNull()),
        "unusable_text": F.count_if(unusable_text()),
        "purchases": F.count_if(F.col("behavior") == "purchase"),
        "users": F.approx_count_distinct("user_id"),
        "late": F.count_if(F.col("dt") < F.col("landed")),
    }


def extend(
    spark: SparkSession, staged_rows: DataFrame, staged: Staged, figures: pd.DataFrame, config: Settings
) -> pd.DataFrame:
    """Add the counts that the ingest made of the landing files."""
    counted = [staged.counts["by_day"][str(day)] for day in figures["day"]]
    input_rows = pd.Series([day["input"] for day in counted], index=figures.index)
    ignored = pd.Series([day["ignored"] for day in counted], index=figures.index)
    quarantined = pd.Series([sum(day["rejected"].values()) for day in counted], index=figures.index)
    forgotten = pd.Series([day.get("forgotten", 0) for day in counted], index=figures.index)
    figures = figures.assign(
        input=input_rows,
        accounted_for=figures["copies"] + ignored + quarantined + forgotten,
        rejected_share=rejected_share(quarantined, input_rows),
        late_share=figures["late"] / figures["rows"].where(figures["rows"] > 0),
        # Not known of days with few events.
        largest_user_share=[day.get("largest_user_share", float("nan")) for day in counted],
    )
    figures["duplicate_ids"] = duplicates(staged_rows, staged, "event_id", figures)
    figures["after_landing"] = after_landing(staged_rows, staged, figures)
    figures["lateness_moved"] = lateness_moved(staged, figures)
    figures["strangers"] = strangers(staged_rows, staged, figures)
    figures["beyond_bound"] = beyond_bound(staged_rows, figures, config)
    return with_fields(staged, with_volume_ratio(staged, figures), failed_otherwise(figures, config))


def failed_otherwise(figures: pd.DataFrame, config: Settings) -> set[date]:
    """Return the days that fail by what is counted of them, and so are not published, whatever fields they have.

    Rejections are the usual case: of the few rows that are left, a field may be missing by chance. Days with an
    impossible row are not among them.
    """
    fails = (
        (figures["rejected_share"] > float(config.max_rejected_share))
        | (figures["accounted_for"] != figures["input"])
        | (figures["strangers"] > 0)
    )
    return set(figures["day"][fails])


def after_landing(staged_rows: DataFrame, staged: Staged, figures: pd.DataFrame) -> "pd.Series[int]":
    """Count by day the events from after its end: in UTC, as measured, or in the zones that the ingest has told.

    Where folders of several zones were read, the last end counts.
    """
    told = {date.fromisoformat(day): zones for day, zones in staged.counts.get("folder_zones", {}).items()}
    after = dict(zip(figures["day"], figures["after_landing"], strict=True))
    if told:
        ends = {day: max(end_of_day(day, zone) for zone in zones) for day, zones in told.items()}
        literals = [F.lit(each) for pair in ends.items() for each in pair]
        late = F.col("event_time") >= F.try_element_at(F.create_map(*literals), F.col("landed"))
        counted = {row["landed"]: row["count"] for row in staged_rows.where(late).groupBy("landed").count().collect()}
        after |= {day: counted.get(day, 0) for day in told}
    return pd.Series([after[day] for day in figures["day"]], index=figures.index)


def end_of_day(day: date, zone: str) -> datetime:
    """Return the instant at which a day ends in a zone.

    >>> str(end_of_day(date(2024, 3, 9), "America/New_York")), str(end_of_day(date(2024, 3, 10), "America/New_York"))
    ('2024-03-10 05:00:00+00:00', '2024-03-11 04:00:00+00:00')
    """
    return datetime.combine(day + ONE_DAY, time(), ZoneInfo(zone)).astimezone(UTC)


def lateness_moved(staged: Staged, figures: pd.DataFrame) -> "pd.Series[float]":
    """Return by day which share of its events came on another number of days after their date than they usually do.

    For each number of days, the share of events that came so late or later is compared with the median of the days of
    the week before, published or staged here; the largest difference counts. So a shop that delivers a log a day late
    each morning has 0, and has 1 on a day on which it delivers it at once, or a day later than that. Without such days,
    events are compared with those that all come on their date. Null of a day without events.
    """
    days = list(figures["day"])
    counted: dict[date, Counter[int]] = defaultdict(Counter)
    for day, landed, rows in landed_rows(staged, days):
        # What came in the folder of the day before its date is not late.
        counted[landed][max((landed - day).days, 0)] += rows
    length = max((max(of) for of in counted.values()), default=0) + 1
    shares = {day: shares_of_late(of, length) for day, of in counted.items() if of.total()}

    def moved(day: date) -> float | None:
        if day not in shares:
            return None
        before = [shares[other] for other in shares if day - WEEK <= other < day]
        usual = np.median(before, axis=0) if before else shares_of_late(Counter([0]), length)
        return float(np.abs(shares[day] - usual).max())

    return pd.Series([moved(day) for day in days], dtype="float64", index=figures.index)


def landed_rows(staged: Staged, days: list[date]) -> Iterator[tuple[date, date, int]]:
    """Yield date, landing day and number of events of the days of a staging, and of those published before them."""
    for file in staged.files:
        parts = partition_of(file.path)
        if NO_VALUE not in parts.values():
            yield date.fromisoformat(parts["dt"]), date.fromisoformat(parts["landed"]), file.rows
    if days and (table := Table.find("events")):
        before = set(days_between(min(days) - WEEK, max(days))) - set(days)
        for published in table.files_of("landed", before):
            yield published.partition["dt"], published.partition["landed"], published.rows


def shares_of_late(rows: Counter[int], length: int) -> "npt.NDArray[np.float64]":
    """Return for each number of days from 0 to below `length` the share of events that are so late, or later.

    >>> shares_of_late(Counter({0: 3, 2: 1}), 4).tolist()
    [1.0, 0.25, 0.25, 0.0]
    """
    counted = np.bincount(list(rows), weights=list(rows.values()), minlength=length)
    so_late: npt.NDArray[np.float64] = counted[::-1].cumsum()[::-1] / counted.sum()
    return so_late


def strangers(staged_rows: DataFrame, staged: Staged, figures: pd.DataFrame) -> "pd.Series[int]":
    """Count by day the events of users without a pseudonym by the key of the staging; none where it has no key."""
    by_day = {}
    if staged.key_id:
        is_one = F.col("user_id").rlike(rf"^{staged.key_id}-[0-9a-f]{{32}}\z")
        counted = staged_rows.where(~is_one).groupBy("landed").agg(F.count("*").alias("n"))
        by_day = {row["landed"]: row["n"] for row in counted.collect()}
    return pd.Series([by_day.get(day, 0) for day in figures["day"]], index=figures.index)


def beyond_bound(staged_rows: DataFrame, figures: pd.DataFrame, config: Settings) -> "pd.Series[int]":
    """Count by day the users and dates with more events than the bound of the settings; none where it has none."""
    by_day = {}
    if config.max_events_per_user_day:
        counted = staged_rows.groupBy("landed", "user_id", "dt").agg(F.count_distinct("event_id").alias("n"))
        beyond = counted.where(F.col("n") > config.max_events_per_user_day).groupBy("landed").count()
        by_day = {row["landed"]: row["count"] for row in beyond.collect()}
    return pd.Series([by_day.get(day, 0) for day in figures["day"]], index=figures.index)


def expected_figures(config: Settings) -> list[Expectation]:
    """Expect that nothing was lost, nothing is there twice, and the day resembles the days before."""
    return [
        zero("duplicate_ids", "event_id is unique within a landing day"),
        equal("input", "accounted_for", "input rows = events + duplicates + ignored + quarantined + forgotten"),
        zero("outside_partition", "dt is the date of event_time"),
        zero("after_landing", "no event is from after the day of its folder, in the zone of the folders"),
        zero("before_floor", "no event is from before MEANDER_TIME_FLOOR"),
        zero("too_late", "no event is from more than MEANDER_MAX_DAYS_LATE days before it landed"),
        zero("without_item", "only a search may lack an item"),
        zero("strangers", "with pseudonyms, each user has one by the key of the lake"),
        zero("beyond_bound", "no user has more events of a date than MEANDER_MAX_EVENTS_PER_USER_DAY"),
        zero("unusable_text", "every sink can hold each id and each query"),
        few_rejected(config),
        between("rows", 1, None, "the day has events", WARNING),
        between(
            "lateness_moved",
            None,
            0.5,
            "at most half of the events come more days late, or fewer, than in the week before; "
            "on a first day: than on their date",
            WARNING,
        ),
        between(
            "largest_user_share",
            None,
            LARGE_USER_SHARE,
            f"of {EVENTS_TO_JUDGE_USERS:,} events or more, at most {LARGE_USER_SHARE:.0%} are one user's; name one "
            "that stands for people without an account in `guests` of the source",
            WARNING,
        ),
        usual_volume(0.5, 2.0),
        *fields_are_there(),
    ]


SUITE = Suite(rows, measures, extend, expected_figures)
