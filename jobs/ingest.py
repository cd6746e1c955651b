"""Clean what landed on one day, or on a range of days, and stage it as events and quarantine.

Reads   landing     dt=D, as the source file says
Writes  events      landed=D, over whatever dates the events have; staged only
        quarantine  dt=D, staged only

Input rows = events + duplicates + ignored + quarantined + forgotten, where duplicates are `copies - 1` summed over
events, and forgotten the rows of users on the list of forgotten ones, of which nothing is kept.
With MEANDER_PSEUDONYM_KEY, users have pseudonyms in both.
"""

import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import reduce
from typing import Any

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs.arguments import job_parser, parse_run
from jobs.bounds import with_bound
from jobs.contract import against_contract
from jobs.drift import columns_of, told
from jobs.forgotten import mark_forgotten
from jobs.input_counts import (
    count_outcomes,
    count_rows,
    filled_fields,
    largest_user_shares,
    require_all_rows,
    rows_of_files,
    tell,
    unknown_behaviors,
)
from jobs.item_table import item_deliveries, table_files, with_categories
from jobs.landing_files import UNPACKED, LandingFiles, by_version, check_files, days_of
from jobs.packed import unpacked
from jobs.pseudonymize import with_pseudonyms
from jobs.raw_rows import REPLACEMENT, read_checked
from jobs.rejections import CONTENT, EVENT, REJECTED, UNUSABLE_IN_QUERIES, judge
from jobs.source import Source, load_source
from jobs.unreadable import unreadable_file
from lake import storage
from lake.days import days_between
from lake.deliveries import all_read_by, require_no_copies, require_no_loss, require_unchanged, summary, write_list
from lake.errors import SettingsInvalid, run_main
from lake.landing import Delivery, Landing, now
from lake.privacy.forgotten import ForgottenUsers
from lake.pseudonyms import IdentityMap, Key, require_key
from lake.runs import told_of_contract
from lake.schemas import EVENTS, QUARANTINE
from lake.session import spark_session
from lake.settings import Settings, settings
from lake.small import in_one_task, is_small
from lake.staging import Run, Staged, new_stage_id, write_rows, write_staged
from lake.table import Table

log = logging.getLogger(__name__)

RAW_CHARACTERS = 4096
# How many times larger the text of a packed log usually is.
PACKED_TIMES = 10


def event_id(source: Column, occurrence: Column | None = None) -> Column:
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
    return F.substring(F.sha2(F.concat_ws(",", source, *framed), 256), 1, 32)


def name_of_source(judged: DataFrame, source: Source) -> Column:
    """Return the name of the source that has read a row: the rows have it where they are of several."""
    return F.col("source") if "source" in judged.columns else F.lit(source.name)


def to_events(judged: DataFrame, source: Source) -> DataFrame:
    """Fold identical rows of a landing day, or number them where the source keeps repeats."""
    name = name_of_source(judged, source)
    alike = ["landed", *CONTENT, *(["source"] if "source" in judged.columns else [])]
    counted = judged.where(F.col("outcome") == EVENT).groupBy(*alike).agg(F.count("*").cast("int").alias("n"))
    if source.repeats == "keep":
        counted = counted.withColumn("occurrence", F.explode(F.sequence(F.lit(1), "n"))).withColumn("n", F.lit(1))
        identity = event_id(name, F.col("occurrence"))
    else:
        identity = event_id(name)
    return counted.select(
        identity.alias("event_id"),
        *CONTENT,
        name.alias("source"),
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
            name_of_source(judged, source).alias("source"),
            F.col("landed").alias("dt"),
        )
        .select(*QUARANTINE.fieldNames())
    )


@dataclass(frozen=True)
class Input:
    """What a run is going to read, found and checked before Spark starts.

    Attributes:
        source: how files are read, where no version of it says otherwise.
        key: by which users get pseudonyms; None without pseudonyms.
        landing, days: where the files are, of which landing days.
        delivered: the files of each day, by name.
        listings: these, and those of tables beside the log, each with its place.
        parts: the files that are read in the same way, with how.
        checked: what was found in the files of each part.
        columns: what is known of their columns, for the manifest.
        published: `events` as readers see it; None before the first publish.
    """

    source: Source
    key: Key | None
    landing: Landing
    days: list[date]
    delivered: Mapping[date, Delivery]
    listings: Sequence[tuple[Landing, Mapping[date, Delivery]]]
    parts: list[tuple[Source, list[str]]]
    checked: list[LandingFiles]
    columns: dict[str, Any]
    published: Table | None

    @property
    def key_id(self) -> str:
        """The name of the key; empty without pseudonyms."""
        return self.key.id if self.key else ""

    @property
    def bytes(self) -> int:
        """About how large all is that is read, the log and tables beside it; packed files as if they were not."""
        return sum(
            file.bytes * (PACKED_TIMES if name.lower().endswith(UNPACKED) else 1)
            for _, listed in self.listings
            for delivery in listed.values()
            for name, file in delivery.items()
        )

    def all_parts(self) -> Iterator[tuple[Source, list[str]]]:
        """Yield the files of `parts`, and then those of item tables, as they are now."""
        yield from self.parts
        for source, files in self.parts:
            if source.items and files:
                yield table_files(source, self.landing, days_of(files))

    def require_unchanged(self) -> None:
        """Check that the files of the log, and of tables beside it, are those that were found.

        Raises:
            LandingChanged: files came, changed or went.
        """
        for place, listed in self.listings:
            require_unchanged(listed, place.deliveries(listed, complete=False))


def find_input(run: Run, config: Settings) -> Input:
    """Find the files of a run's days, and how they are read."""
    if run.last > now().date():
        raise SettingsInvalid(
            f"{run.last} is after today, {now().date()} UTC: nothing can have landed on it; received --day or --to "
            f"{run.last}. Move its files into the folder of the day on which they arrived"
        )
    source, key = load_source(config.source), Key.of(config)
    for table in ("events", "quarantine"):
        if published := Table.find(table):
            require_key(table, published.key_id, key.id if key else "")
    landing, days = Landing.of(config), days_between(run.first, run.last)
    delivered = landing.deliveries(days)
    files = [storage.join(landing.folder(day), name) for day in days for name in delivered[day]]
    published = Table.find("events")
    parts = by_version(source, files)
    listings = [(landing, delivered), *item_deliveries(parts, landing)]
    commits = published.commits() if published else []
    columns = columns_of(source, parts, run.first, run.last, commits, used_alone=key is not None)
    for message in told(source, columns):
        log.warning("%s", message)
    with_rows = {
        day: [storage.join(landing.folder(day), name) for name, file in delivered[day].items() if file.bytes]
        for day in days
    }
    columns |= against_contract(config.contract, source, with_rows, used_alone=key is not None)
    for message in told_of_contract(columns):
        log.warning("%s", message)
    checked = [check_files(version, of_version) for version, of_version in parts]
    return Input(source, key, landing, days, delivered, listings, parts, checked, columns, published)


def read_and_judge(spark: SparkSession, found: Input, run: Run, config: Settings, kept: list[DataFrame]) -> DataFrame:
    """Return every input row with its outcome, as it may be kept: see `jobs.rejections.judge`.

    Args:
        spark: the session.
        found: what is read.
        run: whose rows they are.
        config: bounds, the map of identities.
        kept: gets what has to be unpersisted in the end.
    """
    # The list is read after the run has its number: lake/privacy/tables.py relies on it.
    forgotten = ForgottenUsers.read()
    judged = []
    for (version, files), checked in zip(found.parts, found.checked, strict=True):
        rows = judge(read_checked(spark, version, checked), version, config)
        rows = with_categories(spark, rows, version, found.landing, days_of(files), config, kept)
        judged.append(rows.withColumn("source", F.lit(version.name)) if len(found.source.names) > 1 else rows)
    rows = in_one_task(reduce(DataFrame.unionByName, judged), found.bytes).persist()
    kept.append(rows)
    # Before users have other names: which events are beyond the bound does not depend on a key.
    rows = with_bound(rows, config.max_events_per_user_day, found.source, kept)
    if found.key:
        rows = with_pseudonyms(spark, rows, found.key, IdentityMap.of(config), new_stage_id(run))
    # The list has users by the names that the lake has for them.
    return mark_forgotten(rows, forgotten)


def count(rows: DataFrame, found: Input, config: Settings) -> tuple[dict[str, Any], dict[date, dict[str, int]]]:
    """Return what the manifests tell of a run's input, and the rows of each file by day."""
    counted = count_rows(rows)
    of_files = rows_of_files(counted)
    landing = summary(found.delivered, of_files)
    if len(found.source.names) > 1:
        # A day belongs to those sources alone that have read a file of it.
        for version, files in found.parts:
            for day in days_of(files):
                of_day = landing[str(day)]
                of_day["sources"] = sorted({*of_day.get("sources", ()), version.name})
    zones: dict[str, set[str]] = defaultdict(set)
    for version, files in found.parts:
        for day in days_of(files):
            zones[str(day)].add(version.folder_zone)
    counts = {
        **count_outcomes(counted, found.days),
        "files": sum(map(len, found.delivered.values())),
        "landing": landing,
        "filled": filled_fields(counted, found.source, found.days),
        # Of several sources each may have its own. A day that is not told is one of UTC.
        "folder_zones": {day: sorted(names) for day, names in zones.items() if names != {"UTC"}},
        "may_vanish": found.source.may_vanish,
        "source": ", ".join(found.source.names),
        **found.columns,
    }
    for landed, share in largest_user_shares(rows, counts["by_day"]).items():
        counts["by_day"][landed]["largest_user_share"] = share
    # With pseudonyms, nothing of a rejected row is written down that may tell of a person.
    if counts["rejected"].get("unknown_behavior") and not found.key:
        counts["unknown_behaviors"] = unknown_behaviors(rows, config.min_group)
    return counts, of_files


def write(spark: SparkSession, rows: DataFrame, found: Input, run: Run, counts: dict[str, Any]) -> list[Staged]:
    """Stage events and quarantine, if the landing is as it was."""
    # Where nothing was rejected, the rows need not be looked through for it again.
    rejected = to_quarantine(rows, found.source) if counts["quarantined"] else spark.createDataFrame([], QUARANTINE)
    tables = {"events": to_events(rows, found.source), "quarantine": rejected}
    staged = [
        write_rows(frame, table, run, found.days, run.basis, counts, key_id=found.key_id, small=is_small(found.bytes))
        for table, frame in tables.items()
    ]
    # All has been read by now. Until the manifests are written, nothing of it can be published.
    found.require_unchanged()
    for one in staged:
        write_staged(one)
    return staged


def main(argv: list[str] | None = None) -> list[Staged]:
    """Read the landing files, classify every row, stage events and quarantine."""
    parser = job_parser("jobs.ingest", __doc__)
    parser.add_argument(
        "--allow-shrink",
        action="store_true",
        help="take a delivery that has fewer files or rows of a day than readers see",
    )
    run, args = parse_run(parser, argv)
    config = settings()
    found = find_input(run, config)
    spark = spark_session("ingest", config)
    kept: list[DataFrame] = []
    try:
        rows = read_and_judge(spark, found, run, config, kept)
        counts, of_files = count(rows, found, config)
        for (version, _), checked in zip(found.parts, found.checked, strict=True):
            require_all_rows(version, checked.rows, of_files)
        require_no_copies(found.landing, found.delivered, of_files, UNPACKED, unpacked)
        write_list(run.run_id, run.order, found.delivered, of_files)
        if args.allow_shrink:
            counts["allow_shrink"] = True
        else:
            require_no_loss(found.published, all_read_by(counts, run.run_id, run.order, found.days))
        staged = write(spark, rows, found, run, counts)
    except Exception as error:
        if unreadable := unreadable_file(spark, error, found.all_parts()):
            # A file that was replaced under Spark's hands is none that is broken.
            found.require_unchanged()
            raise unreadable from error
        raise
    finally:
        for persisted in kept:
            persisted.unpersist()
    tell(counts, run, found.parts)
    return staged


if __name__ == "__main__":
    run_main(main)
