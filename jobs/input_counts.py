"""Count what a run has read of the landing: rows by day, file and outcome, and what a person should look at."""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import date
from typing import Any
from urllib.parse import unquote

from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F

from jobs.forgotten import FORGOTTEN
from jobs.landing_files import are_names, day_and_name, like
from jobs.packed import on_storage
from jobs.rejections import CONTENT, EVENT, IGNORED, REASONS, REJECTED
from jobs.source import Source
from lake.errors import LandingUnreadable
from lake.rules import EVENTS_TO_JUDGE_USERS, LARGE_USER_SHARE
from lake.staging import Run

log = logging.getLogger(__name__)

# Values without a meaning that are told, of how many the shapes are looked at, and how many behaviors a log may have:
# of a column with more values it is another one that is read.
VALUES_TO_TELL, VALUES_TO_SHAPE, MOST_BEHAVIORS = 5, 1000, 50
# Events of a day that are counted by user: of more, on the average of the days, these are a sample. A day of which
# fewer than the second number are in it is not judged.
COUNTED_BY_USER, FEWEST_COUNTED = 100_000, 1000
# Fields that an event may lack. The audit compares how often they are there with the days before.
MAY_BE_NULL = ("item_id", "category_id", "query", "price")


def count_rows(judged: DataFrame) -> list[Row]:
    """Count input rows by `landed`, `file`, `outcome` and `reason`, and those that have a field, in one pass."""
    filled = (F.count(name).alias(name) for name in MAY_BE_NULL)
    counted = (F.count("*").alias("n"), F.count_if("doubtful_hour").alias("doubtful"), *filled)
    return judged.groupBy("landed", "file", "outcome", "reason").agg(*counted).collect()


def filled_fields(rows: Iterable[Row], source: Source, days: list[date]) -> dict[str, dict[str, int]]:
    """Return, by day, how many accepted rows have each field that the source names a column for and need not have."""
    kinds = {day: source.on(day).values() for day in days}
    filled = {
        str(day): {name: 0 for name in MAY_BE_NULL if any(kind.has(name) for kind in of_day)}
        for day, of_day in kinds.items()
    }
    for row in rows:
        if row["outcome"] == EVENT:
            of_day = filled[str(row["landed"])]
            of_day.update({name: n + row[name] for name, n in of_day.items()})
    return filled


def rows_of_files(rows: Iterable[Row]) -> dict[date, dict[str, int]]:
    """Return the input rows of each file, by day and by its name below the folder of the day, from `count_rows`.

    Those of all files in a .zip are its own.
    """
    counted: dict[date, dict[str, int]] = {}
    for row in rows:
        # Spark writes an address with %20 for a blank.
        name = on_storage(unquote(row["file"]).split(f"/dt={row['landed']}/", 1)[1])
        files = counted.setdefault(row["landed"], {})
        files[name] = files.get(name, 0) + row["n"]
    return counted


def require_all_rows(source: Source, stored: Mapping[str, int], of_files: Mapping[date, Mapping[str, int]]) -> None:
    """Check that as many rows of each Parquet file were read as its footer says; more, where a row may be several.

    Of a damaged footer, Spark may pass over a group of rows, or read one that is not there, without a word.

    Args:
        source: of the files.
        stored: rows of each file, by its address.
        of_files: rows that were read, see `rows_of_files`.

    Raises:
        LandingUnreadable: it is another number.
    """
    for file, rows in stored.items():
        day, name = day_and_name(file)
        found = of_files.get(day, {}).get(name, 0)
        if found < rows or (found > rows and not source.each):
            raise LandingUnreadable(
                f"{file}: expected the {rows:,} rows that its footer says, found {found:,}: the file is damaged"
            )


def count_outcomes(rows: Iterable[Row], days: list[date]) -> dict[str, Any]:
    """Count input rows by day, outcome and reason, from `count_rows`."""
    by_day: dict[str, dict[str, Any]] = {
        str(day): {"input": 0, "accepted": 0, "ignored": 0, "rejected": {}} for day in days
    }
    for row in rows:
        day: dict[str, Any] = by_day[str(row["landed"])]
        day["input"] += row["n"]
        if row["outcome"] == REJECTED:
            day["rejected"][row["reason"]] = day["rejected"].get(row["reason"], 0) + row["n"]
        elif row["outcome"] == FORGOTTEN:
            day[FORGOTTEN] = day.get(FORGOTTEN, 0) + row["n"]
        else:
            day["accepted" if row["outcome"] == EVENT else IGNORED] += row["n"]
    total: dict[str, Any] = {
        name: sum(day[name] for day in by_day.values()) for name in ("input", "accepted", "ignored")
    }
    total["rejected"] = {
        reason: n for reason in REASONS if (n := sum(day["rejected"].get(reason, 0) for day in by_day.values()))
    }
    # Of hours that the clocks of the source's zone show twice or never.
    total["doubtful_hour"] = sum(row["doubtful"] for row in rows if row["outcome"] == EVENT)
    # As of reasons, it is said only where there are some.
    if forgotten := sum(day.get(FORGOTTEN, 0) for day in by_day.values()):
        total[FORGOTTEN] = forgotten
    return {**total, "quarantined": sum(total["rejected"].values()), "by_day": by_day}


def largest_user_shares(judged: DataFrame, by_day: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Return by landing day the share of its events that the user with most of them has; of few events none.

    Of many events it is about that of a sample. Forgotten users have no events.

    Args:
        judged: rows as `jobs.forgotten.mark_forgotten` returns them.
        by_day: what `count_outcomes` has counted of each day.
    """
    events = {day: of_day["accepted"] for day, of_day in by_day.items() if of_day["accepted"] >= EVENTS_TO_JUDGE_USERS}
    if not events:
        return {}
    one_of = max(1, sum(events.values()) // (COUNTED_BY_USER * len(events)))
    is_counted = F.col("landed").isin(*map(date.fromisoformat, events)) & (F.col("outcome") == EVENT)
    sample = judged.where(is_counted & (F.pmod(F.xxhash64(*CONTENT), F.lit(one_of)) == 0))
    by_user = sample.groupBy("landed", "user_id").count()
    found = by_user.groupBy("landed").agg(F.max("count").alias("most"), F.sum("count").alias("total")).collect()
    return {str(row["landed"]): row["most"] / row["total"] for row in found if row["total"] >= FEWEST_COUNTED}


def unknown_behaviors(rows: DataFrame, min_group: int) -> dict[str, int]:
    """Return the values for which the source names no behavior, the commonest ones with their rows.

    Where the source reads the wrong column, a value is an id or a name of somebody. So it is told as it is only if it
    can be the name of a behavior, if several users have it, and if there are as few of them as behaviors are; of
    others, their shapes are told. Rows of forgotten users do not count.

    Args:
        rows: as `jobs.forgotten.mark_forgotten` returns them.
        min_group: so many users have to have a value.
    """
    unknown = rows.where((F.col("outcome") == REJECTED) & (F.col("reason") == "unknown_behavior"))
    values = unknown.groupBy("unknown_behavior").agg(
        F.count("*").alias("n"), F.count_distinct("user_id").alias("users")
    )
    commonest = values.orderBy(F.desc("n"), "unknown_behavior").limit(VALUES_TO_SHAPE).collect()
    are_few = len(commonest) <= MOST_BEHAVIORS
    found: Counter[str] = Counter()
    for value, n, users in commonest:
        is_told = are_few and users >= min_group and len(value or "") <= 40 and are_names([value or ""])
        # Rows without a value tell of nobody.
        found[(value if is_told else like(value)) if value else ""] += n
    return dict(found.most_common(VALUES_TO_TELL))


def tell(counts: Mapping[str, Any], run: Run, parts: list[tuple[Source, list[str]]]) -> None:
    """Log what a run has counted, and warn of what a person should look at."""
    for day, of_day in counts["by_day"].items():
        if of_day.get("largest_user_share", 0) > LARGE_USER_SHARE:
            log.warning(
                "one user has %.0f %% of the events of %s; if it stands for people without an account, name it in "
                "`guests` of the source",
                100 * of_day["largest_user_share"],
                day,
            )
    if counts["doubtful_hour"]:
        log.warning(
            "%s rows are from an hour that the clocks of %s show twice or never; of two instants the first was taken. "
            "Times with an offset would be certain",
            counts["doubtful_hour"],
            ", ".join(dict.fromkeys(version.time.zone for version, _ in parts)),
        )
    of_days = ("by_day", "landing", "filled")
    log.info("%s to %s: %s", run.first, run.last, {k: v for k, v in counts.items() if k not in of_days})
