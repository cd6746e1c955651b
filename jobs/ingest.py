"""Clean what landed on one day, or on a range of days, and stage it as events and quarantine.

Reads   landing     dt=D, as the source file says
Writes  events      landed=D, over whatever dates the events have; staged only
        quarantine  dt=D, staged only

Input rows = events + duplicates + ignored + quarantined + forgotten, where duplicates are `copies - 1` summed over
events, and forgotten the rows of users on the list of forgotten ones, of which nothing is kept.
With MEANDER_PSEUDONYM_KEY, users have pseudonyms in both.
"""

import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from functools import reduce
from typing import Any
from urllib.parse import unquote

from pyspark.sql import Column, DataFrame, Row, SparkSession
from pyspark.sql import functions as F

from jobs.arguments import job_parser, parse_run
from jobs.drift import columns_of, told
from jobs.forgotten import FORGOTTEN, mark_forgotten
from jobs.item_table import item_deliveries, table_files, with_categories
from jobs.landing_files import are_names, by_version, check_files, days_of, like
from jobs.pseudonymize import with_pseudonyms
from jobs.raw_rows import REPLACEMENT, read_rows
from jobs.rejections import (
    CONTENT,
    EVENT,
    IGNORED,
    REASONS,
    REJECTED,
    UNUSABLE_IN_QUERIES,
    judge,
)
from jobs.source import Source, load_source
from lake import storage
from lake.days import days_between
from lake.deliveries import all_read_by, require_no_copies, require_no_loss, require_unchanged, summary, write_list
from lake.errors import LandingUnreadable, SettingsInvalid, run_main
from lake.landing import Delivery, Landing, now
from lake.privacy.forgotten import ForgottenUsers
from lake.pseudonyms import IdentityMap, Key, require_key
from lake.schemas import EVENTS, QUARANTINE
from lake.session import spark_session
from lake.settings import settings
from lake.staging import Run, Staged, new_stage_id, write_rows, write_staged
from lake.table import Table

log = logging.getLogger(__name__)

RAW_CHARACTERS = 4096
# A user with a larger share of the events of so many is looked at: it may stand for everybody without an account.
LARGE_SHARE, EVENTS_TO_TELL = 0.2, 1000
# Values without a meaning that are told, of how many the shapes are looked at, and how many behaviors a log may have:
# of a column with more values it is another one that is read.
VALUES_TO_TELL, VALUES_TO_SHAPE, MOST_BEHAVIORS = 5, 1000, 50
# Events that are counted by user: of more, these are a sample.
COUNTED_BY_USER = 100_000
# Places with the files of their days, as they were before they were read.
Listings = Sequence[tuple[Landing, Mapping[date, Delivery]]]
# Fields that an event may lack. The audit compares how often they are there with the days before.
MAY_BE_NULL = ("item_id", "category_id", "query", "price")


def event_id(source: Source, occurrence: Column | None = None) -> Column:
    """Hash the identity of an event: its source, its content and, where repeats are kept, its occurrence number.

    So two input rows with the same id are equal in every column, and it does not matter which one is kept.
    """
    parts = [
        F.unix_micros("event_time").cast("string") if name == "event_time" else F.col(name).cast("string")
        for name in CONTENT
    ]
    if occurrence is not None:
        parts.append(occurrence.cast("string"))
    # Each part has its length in front, or two rows that differ only in where one part ends would be equal.
    framed = [F.coalesce(F.concat(F.length(part), F.lit(":"), part), F.lit("-")) for part in parts]
    return F.substring(F.sha2(F.concat_ws(",", F.lit(source.name), *framed), 256), 1, 32)


def to_events(judged: DataFrame, source: Source) -> DataFrame:
    """Fold identical rows of a landing day, or number them where the source keeps repeats."""
    counted = (
        judged.where(F.col("outcome") == EVENT).groupBy("landed", *CONTENT).agg(F.count("*").cast("int").alias("n"))
    )
    if source.repeats == "keep":
        counted = counted.withColumn("occurrence", F.explode(F.sequence(F.lit(1), "n"))).withColumn("n", F.lit(1))
        identity = event_id(source, F.col("occurrence"))
    else:
        identity = event_id(source)
    return counted.select(
        identity.alias("event_id"),
        *CONTENT,
        F.lit(source.name).alias("source"),
        F.col("n").alias("copies"),
        F.to_date("event_time").alias("dt"),
        "landed",
    ).select(*EVENTS.fieldNames())


def to_quarantine(judged: DataFrame, source: Source) -> DataFrame:
    """Return rejected rows as they were delivered, with the reason and the place.

    Their text has to be held by every sink too: a character that cannot be is replaced by U+FFFD.
    """
    line = F.col("position") - F.col("first_position") + F.col("lines_above") + 1
    starts = judged.groupBy("file").agg(F.min("position").alias("first_position"))
    rejected = judged.where(F.col("outcome") == REJECTED)
    return (
        rejected.join(F.broadcast(starts), on="file", how="left")
        .select(
            "reason",
            F.regexp_replace(F.substring("raw", 1, RAW_CHARACTERS), UNUSABLE_IN_QUERIES, REPLACEMENT).alias("raw"),
            "file",
            F.when(F.col("whole_file"), line).alias("line"),
            F.lit(source.name).alias("source"),
            F.col("landed").alias("dt"),
        )
        .select(*QUARANTINE.fieldNames())
    )


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
    """Return the input rows of each file, by day and by its name below the folder of the day, from `count_rows`."""
    counted: dict[date, dict[str, int]] = {}
    for row in rows:
        # Spark writes an address with %20 for a blank.
        name = unquote(row["file"]).split(f"/dt={row['landed']}/", 1)[1]
        files = counted.setdefault(row["landed"], {})
        files[name] = files.get(name, 0) + row["n"]
    return counted


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


def largest_user_share(judged: DataFrame, events: int) -> float:
    """Return the share of the events that the user with most of them has; of many events, about that of a sample.

    Forgotten users have none.
    """
    one_of = max(1, events // COUNTED_BY_USER)
    sample = judged.where((F.col("outcome") == EVENT) & (F.pmod(F.xxhash64("raw"), F.lit(one_of)) == 0))
    by_user = sample.groupBy("user_id").count()
    found = by_user.agg(F.max("count").alias("most"), F.sum("count").alias("total")).collect()[0]
    return found["most"] / found["total"] if found["total"] else 0.0


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


def unreadable_file_error(spark_error: str) -> LandingUnreadable | None:
    """Return the error for a file that cannot be read to its end, None if Spark's error is about anything else.

    Such a file, for example a gzip that ends too early, is detected only when Spark reads it. A local session and
    Spark Connect raise different errors then, with the same text.
    """
    if of_python := re.search(r"LandingUnreadable: (.+?)(?: \[docs/\S+\])?$", spark_error, re.MULTILINE):
        return LandingUnreadable(of_python[1])
    file = re.search(r"FAILED_READ_FILE\S* Encountered error while reading file (\S+)", spark_error)
    if file is None:
        return None
    return LandingUnreadable(f"{file[1].rstrip('.')}: expected a readable file, found {cause_of(spark_error)}")


def is_of_a_task(error: Exception) -> bool:
    """Return whether it is the error of a job of Spark, one of whose tasks has failed."""
    return "Job aborted due to stage failure" in str(error)


def damaged_parquet_error(spark: SparkSession, parts: list[tuple[Source, list[str]]]) -> LandingUnreadable | None:
    """Return the error for the first Parquet file that cannot be read alone, None if each can be.

    Values of Parquet are decoded late, where Spark no longer knows the file: of a damaged page its error names none. So
    each is read again, until one fails.
    """
    for source, files in parts:
        for file in (file for group in check_files(source, files).parquet.values() for file in group):
            try:
                read_rows(spark, source, [file]).write.format("noop").mode("overwrite").save()
            except Exception as error:  # noqa: BLE001  of Spark or of Py4J, whatever the damage leads to
                return LandingUnreadable(f"{file}: expected a readable Parquet file, found {cause_of(str(error))}")
    return None


def cause_of(spark_error: str) -> str:
    """Return the innermost cause that an error of Spark names."""
    lost = re.findall(r"Lost task [^\n]*?\): (.+)", spark_error)
    causes: list[str] = re.findall(r"Caused by: (.+)", spark_error) or lost
    return causes[-1] if causes else "an error in the middle of it"


def require_as_listed(listings: Listings) -> None:
    """Check that the files of the log, and of tables beside it, are those that were listed before they were read.

    Raises:
        LandingChanged: files came, changed or went.
    """
    for place, listed in listings:
        require_unchanged(listed, place.deliveries(listed, complete=False))


def tell(counts: Mapping[str, Any], run: Run, parts: list[tuple[Source, list[str]]]) -> None:
    """Log what a run has counted, and warn of what a person should look at."""
    if counts.get("largest_user_share", 0) > LARGE_SHARE:
        log.warning(
            "one user has %.0f %% of the events of %s to %s; if it stands for people without an account, name it in "
            "`guests` of the source",
            100 * counts["largest_user_share"],
            run.first,
            run.last,
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


def main(argv: list[str] | None = None) -> list[Staged]:
    """Read the landing files, classify every row, stage events and quarantine."""
    parser = job_parser("jobs.ingest", __doc__)
    parser.add_argument(
        "--allow-shrink",
        action="store_true",
        help="take a delivery that has fewer files or rows of a day than readers see",
    )
    run, args = parse_run(parser, argv)
    if run.last > now().date():
        raise SettingsInvalid(
            f"{run.last} is after today, {now().date()} UTC: nothing can have landed on it; received --day or --to "
            f"{run.last}. Move its files into the folder of the day on which they arrived"
        )
    config = settings()
    source = load_source(config.source)
    key, identities = Key.of(config), IdentityMap.of(config)
    key_id = key.id if key else ""
    for table in ("events", "quarantine"):
        if published := Table.find(table):
            require_key(table, published.key_id, key_id)
    landing, days = Landing.of(config), days_between(run.first, run.last)
    delivered = landing.deliveries(days)
    files = [storage.join(landing.folder(day), name) for day in days for name in delivered[day]]
    published = Table.find("events")
    parts = by_version(source, files)
    listings: Listings = [(landing, delivered), *item_deliveries(parts, landing)]
    commits = published.commits() if published else []
    columns = columns_of(source, parts, run.first, run.last, commits, used_alone=key is not None)
    if "supplied" in columns:
        log.warning("%s", told(source, columns["supplied"]))
    spark = spark_session("ingest", config)
    # The list is read after the run has its number: lake/privacy/tables.py relies on it.
    forgotten = ForgottenUsers.read()
    kept: list[DataFrame] = []
    try:
        judged = [
            with_categories(
                spark, judge(read_rows(spark, each, names), each, config), each, landing, days_of(names), config, kept
            )
            for each, names in parts
        ]
        rows = reduce(DataFrame.unionByName, judged).persist()
        kept.append(rows)
        if key:
            rows = with_pseudonyms(spark, rows, key, identities, new_stage_id(run))
        # The list has users by the names that the lake has for them.
        rows = mark_forgotten(rows, forgotten)
        counted = count_rows(rows)
        of_files = rows_of_files(counted)
        counts = {
            **count_outcomes(counted, days),
            "files": len(files),
            "landing": summary(delivered, of_files),
            "filled": filled_fields(counted, source, days),
            "may_vanish": source.may_vanish,
            "source": source.name,
            **columns,
        }
        if counts["accepted"] >= EVENTS_TO_TELL:
            counts["largest_user_share"] = largest_user_share(rows, counts["accepted"])
        # With pseudonyms, nothing of a rejected row is written down that may tell of a person.
        if counts["rejected"].get("unknown_behavior") and not key:
            counts["unknown_behaviors"] = unknown_behaviors(rows, config.min_group)
        require_no_copies(landing, delivered, of_files)
        write_list(run.run_id, run.order, delivered, of_files)
        if args.allow_shrink:
            counts["allow_shrink"] = True
        else:
            require_no_loss(published, all_read_by(counts, run.run_id, run.order, days))
        # Where nothing was rejected, the rows need not be looked through for it again.
        rejected = to_quarantine(rows, source) if counts["quarantined"] else spark.createDataFrame([], QUARANTINE)
        staged = [
            write_rows(to_events(rows, source), "events", run, days, run.basis, counts, key_id=key_id),
            write_rows(rejected, "quarantine", run, days, run.basis, counts, key_id=key_id),
        ]
        # All has been read by now. Until the manifests are written, nothing of it can be published.
        require_as_listed(listings)
        for one in staged:
            write_staged(one)
    except Exception as error:
        unreadable = unreadable_file_error(str(error))
        if not unreadable and is_of_a_task(error):
            tables = [table_files(each, landing, days_of(names)) for each, names in parts if each.items and names]
            unreadable = damaged_parquet_error(spark, [*parts, *tables])
        if unreadable:
            # A file that was replaced under Spark's hands is none that is broken.
            require_as_listed(listings)
            raise unreadable from error
        raise
    finally:
        for persisted in kept:
            persisted.unpersist()
    tell(counts, run, parts)
    return staged


if __name__ == "__main__":
    run_main(main)
