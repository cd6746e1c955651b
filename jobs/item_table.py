"""Categories and prices of items from a table of its own, beside the log: a product table, or the changes of items.

Reads   landing     items/dt=D, or another folder that the source names: the table as it was on D

An event gets the category that its item had on the day on which the row arrived, so that a day that is loaded again has
what it had; so it gets the price, if the table has some. No row of the log is lost or doubled: each item has one
category and one price, or the run fails.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import date
from functools import reduce

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs.landing_files import days_of
from jobs.raw_rows import read_rows
from jobs.rejections import EVENT, REJECTED, end_of_landing_day, judge
from jobs.source import Source
from lake import storage
from lake.errors import SourceMismatch
from lake.landing import Delivery, Landing, require_inside
from lake.settings import Settings

# An item may be older than any event, and a table of changes may go on after the day of its folder.
SINCE_EVER, FOR_EVER = date(1900, 1, 1), date(9999, 12, 30)


def with_categories(
    spark: SparkSession,
    judged: DataFrame,
    source: Source,
    landing: Landing,
    days: list[date],
    config: Settings,
    kept: list[DataFrame],
) -> DataFrame:
    """Fill in category and price of rows that have none, from the item table of a source; without one, return the rows.

    Args:
        spark: the session.
        judged: rows of the log, as `jobs.rejections.judge` returns them.
        source: how they were read.
        landing: where the table is.
        days: the landing days of the rows.
        config: limits of length.
        kept: gets the tables that are persisted; whoever calls unpersists them after the rows were computed, and also
            when that fails: a later run would be answered from them, and not from the files that were repaired.

    Raises:
        LandingMissing: the table is not complete yet.
        LandingUnreadable: one of its files is none, or a link that leads out of its folder.
        SourceMismatch: there is no table as of a day, or it is empty, has rows that cannot be read, or an item twice.
    """
    if source.items is None or not days:
        return judged
    table = categories(spark, source, landing, days, config, kept)
    found = judged.join(table, on=["landed", "item_id"], how="left")
    of_item = {"category_id": "category_of_item", "price": "price_of_item"}
    return found.select(
        *(F.coalesce(name, of_item[name]).alias(name) if name in of_item else F.col(name) for name in judged.columns)
    )


def categories(
    spark: SparkSession,
    source: Source,
    landing: Landing,
    days: list[date],
    config: Settings,
    kept: list[DataFrame],
) -> DataFrame:
    """Return one row for each item and landing day, with its category and price. See `with_categories`.

    Columns: `landed`, `item_id`, `category_of_item`, `price_of_item`.
    """
    assert source.items is not None
    described = source.items.as_source(source)
    place = place_of(source, landing)
    limits = config.model_copy(update={"time_floor": SINCE_EVER, "max_days_late": 0})
    days_of_version: dict[date, list[date]] = defaultdict(list)
    for day in days:
        days_of_version[version_of(place, day, source)].append(day)
    tables = []
    for version, landed in days_of_version.items():
        folder, files = place.folder(version), files_of(place, version, source)
        # No change is wrong since it comes after the day of the folder: until its own day it is not known.
        read = read_rows(spark, described, files).withColumn("landed", F.lit(FOR_EVER))
        # Persisted, since rows are chosen by what was judged: see there.
        rows = judge(read, described, limits)
        rows = rows.select("item_id", "category_id", "price", "event_time", "outcome", "reason").persist()
        kept.append(rows)
        wrong = rows.where(F.col("outcome") == REJECTED).groupBy("reason").count().orderBy("reason").collect()
        if wrong:
            said = ", ".join(f"{row['count']:,} {row['reason']}" for row in wrong)
            raise SourceMismatch(
                f"{folder}: the item table of source {source.name} has rows that cannot be read: {said}; correct "
                "`items` of the source, or have the table repaired"
            )
        of_days = spark.createDataFrame([(day,) for day in landed], "landed date")
        # A change may also take the category away.
        changes = rows.where(F.col("outcome") == EVENT).groupBy("item_id", "event_time")
        # Nulls beside one value are not several. Distinct counts of two columns would make Spark double the rows.
        differ = [~F.min(name).eqNullSafe(F.max(name)) for name in ("category_id", "price")]
        several = differ[0] | differ[1]
        known = changes.agg(
            F.max("category_id").alias("category"), F.max("price").alias("price"), several.alias("several")
        )
        known = known.crossJoin(F.broadcast(of_days))
        # What changed after a day was not known on it.
        known = known.where(F.col("event_time") < end_of_landing_day(source))
        newest = F.max(F.struct("event_time", "category", "price", "several"))
        by_item = known.groupBy("landed", "item_id").agg(newest.alias("newest"))
        doubled = by_item.where("newest.several").agg(F.count_distinct("item_id")).collect()[0][0]
        if doubled:
            remedy = (
                "Name the column that says when a row was changed, by `items.changed`: then the latest counts"
                if source.items.changed is None
                else "They have them since the same instant; have the table repaired"
            )
            raise SourceMismatch(
                f"{folder}: the item table of source {source.name} has {doubled:,} items with more than one category "
                f"or price. {remedy}"
            )
        category, price = F.col("newest.category"), F.col("newest.price")
        tables.append(
            by_item.select("landed", "item_id", category.alias("category_of_item"), price.alias("price_of_item"))
        )
    return reduce(DataFrame.unionByName, tables)


def place_of(source: Source, landing: Landing) -> Landing:
    """Return where the item table of a source is: beside the days of the log, and complete by the same sign.

    Raises:
        LandingUnreadable: it is a symbolic link that leads out of the landing.
    """
    assert source.items is not None
    place = landing.beside(source.items.folder)
    require_inside(place.address)
    return place


def files_of(place: Landing, version: date, source: Source) -> list[str]:
    """Return the files of a table, which is complete.

    Raises:
        LandingMissing: it is not complete yet.
        LandingUnreadable: a file is none, or a link that leads out of the folder.
        SourceMismatch: it has no file with a byte.
    """
    folder = place.folder(version)
    files = [storage.join(folder, name) for name, file in place.delivery(version).items() if file.bytes]
    if not files:
        raise SourceMismatch(
            f"{folder}: the item table of source {source.name} has no file with a byte, so no item would have a "
            "category; deliver it, or remove the folder, so that the table before it counts"
        )
    return files


def item_deliveries(
    parts: Iterable[tuple[Source, list[str]]], landing: Landing
) -> list[tuple[Landing, Mapping[date, Delivery]]]:
    """Return the files of the item tables that a run will read, by place and day, to compare them once it has.

    Args:
        parts: the files of the log by how they are read.
        landing: where they are.

    Raises:
        SourceMismatch: there is no table as of a day.
    """
    found: list[tuple[Landing, Mapping[date, Delivery]]] = []
    for source, files in parts:
        if source.items is not None:
            place = place_of(source, landing)
            versions = dict.fromkeys(version_of(place, day, source) for day in days_of(files))
            found.append((place, {version: place.present(version) for version in versions}))
    return found


def table_files(source: Source, landing: Landing, days: list[date]) -> tuple[Source, list[str]]:
    """Return how the item tables of some days are read, and their files as they are now, unchecked."""
    assert source.items is not None
    place = place_of(source, landing)
    versions = dict.fromkeys(version_of(place, day, source) for day in days)
    names = [storage.join(place.folder(version), name) for version in versions for name in place.present(version)]
    return source.items.as_source(source), names


def version_of(place: Landing, day: date, source: Source) -> date:
    """Return the day of the newest table that was there on a day.

    Raises:
        SourceMismatch: there is none.
    """
    known = [version for version in place.days() if version <= day]
    if not known:
        raise SourceMismatch(
            f"source {source.name} has `items`, and there is no table as of {day} in {place.address}; put its files "
            f"into {place.folder(day)}, or into the folder of an earlier day"
        )
    return known[-1]
