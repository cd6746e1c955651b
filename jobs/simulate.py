"""Write a behaviour log of any size as landing files, and the truth that was planted in it.

Reads   nothing
Writes  <landing>/dt=D/   rows of the `canonical` source, for every day D of the range, `_SUCCESS` last
        <truth>/counts/   dt, kind, rows, late: what landed on each day (kind is `good`, `duplicate`,
                          `redelivered`, or the reason for which the row is to be rejected)
        <truth>/states/   user_id, dt, category_id: the hidden interest of each person on each day

Every row is a function of the seed and its place in the plan (user, day, burst, visit, step) alone, by
hashing: no state is carried from row to row and no random generator is used, so the same plan gives the same
rows on any number of cores.

How the log comes about, from the top down:

    person, day  ->  burst (a session)  ->  visit (one item)  ->  event  ->  row that lands
"""

import argparse
import logging
from dataclasses import dataclass
from datetime import date, timedelta

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from lake import storage
from lake.days import days_between
from lake.errors import SettingsInvalid, run_main
from lake.landing import Landing
from lake.session import spark_session
from lake.settings import settings

log = logging.getLogger(__name__)

# Times are whole microseconds since the first midnight of the log until a row is written out.
SECOND = 1_000_000
MINUTE = 60 * SECOND
DAY = 24 * 60 * MINUTE

# One item's visit, a letter an event. No letter twice: equal rows are then always planted duplicates.
BEHAVIORS = {"s": "search", "v": "view", "f": "favorite", "c": "cart", "p": "purchase"}
VISITS = ["v"] * 24 + ["sv"] * 6 + ["vf"] * 3 + ["vc"] * 3 + ["svc"] * 1 + ["vcp"] * 2 + ["svcp"] * 1
EVENTS_PER_VISIT = sum(map(len, VISITS)) / len(VISITS)

# Not all ASCII: a reader with the wrong encoding should show.
QUERY_WORDS = ["blue", "gift", "größe m", "礼物", "детский", "size 42"]

# Inside a burst two events are at most two steps apart, and bursts at least one pause.
LONGEST_STEP = 14 * MINUTE
SHORTEST_PAUSE = 31 * MINUTE
BURSTS_A_DAY = 6

EVENTS_A_TASK = 500_000  # some 80 MB of JSON
CRAWLER_STEP = 5 * MINUTE
WHALE_DAY = (7 * 60 * MINUTE, 16 * 60 * MINUTE)  # opens at 07:00, for 16 hours
WHALE_BURST = 1000  # visits; many short bursts, so that many tasks share the user who has most events

# The reasons of jobs/rejections.py, each planted; typed Parquet columns can only hold the first list.
BROKEN_ANYWHERE = [
    "missing_time",
    "time_after_landing",
    "time_before_floor",
    "missing_user",
    "unknown_behavior",
    "missing_item",
    "negative_price",
    "field_too_long",
    "unusable_text",
    "not_an_id",
]
BROKEN_IN_TEXT = ["unparsable_time", "invalid_price", "malformed_line", "undecodable"]


@dataclass(frozen=True)
class LogSpec:
    """What to simulate. Shares are of `events`; rows that repeat or break an event come on top of it."""

    events: int = 100_000
    users: int = 0  # 0: one for each 100 events
    start: date = date(2025, 1, 1)
    days: int = 10
    seed: int = 0
    categories: int = 50
    items: int = 200  # in each category
    switch: float = 0.15  # chance that a person's interest moves on from one day to the next
    focus: float = 0.8  # share of a person's visits that follow their current interest
    whale: float = 0.05  # share of all events that one user has
    crawlers: int = 2  # users with an event every few minutes, day and night
    late: float = 0.01  # events that land one or two days after their date
    very_late: float = 0.0005  # events that land later still
    duplicates: float = 0.005  # events written twice on the day they land
    redelivered: float = 0.005  # events written again on a later day
    broken: float = 0.003  # events followed by a broken copy of themselves
    file_format: str = "json"  # or parquet
    gzip: bool = False

    def __post_init__(self) -> None:
        """Refuse a log that cannot be made."""
        if self.file_format not in ("json", "parquet"):
            raise SettingsInvalid(f"file_format must be json or parquet, got {self.file_format!r}")
        if self.days < 1 or self.categories < 2 or self.items < 2 or self.items % 2:
            raise SettingsInvalid("days must be 1 or more, categories 2 or more, items an even number")
        if self.person_events <= 0:
            raise SettingsInvalid(
                f"{self.crawlers} crawlers and a whale with a share of {self.whale} leave none of "
                f"{self.events:,} events for people; ask for more events, fewer crawlers or a smaller whale"
            )

    @property
    def last(self) -> date:
        """The last day of the log."""
        return self.start + timedelta(days=self.days - 1)

    @property
    def people(self) -> int:
        """Number of ordinary users."""
        return self.users or max(1, self.events // 100)

    @property
    def person_events(self) -> float:
        """Events left for the ordinary users."""
        return self.events * (1 - self.whale) - self.crawlers * self.days * DAY / CRAWLER_STEP

    @property
    def kinds_of_broken(self) -> list[str]:
        """The ways in which rows are broken: text can be broken in more ways than typed columns."""
        return BROKEN_ANYWHERE + (BROKEN_IN_TEXT if self.file_format == "json" else [])


# ---- chance, by hashing ----


def mark(spec: LogSpec, tag: str, *keys: Column | str) -> Column:
    """Return a 64-bit number that depends on the seed, a tag and the keys alone."""
    return F.xxhash64(F.lit(spec.seed).cast("bigint"), F.lit(tag), *keys)


def uniform(spec: LogSpec, tag: str, *keys: Column | str) -> Column:
    """Return a number in [0, 1) that depends on the seed, a tag and the keys alone."""
    return F.shiftrightunsigned(mark(spec, tag, *keys), 11) / F.lit(2.0**53)


def exponential(spec: LogSpec, tag: str, *keys: Column | str) -> Column:
    """Return a number from the exponential distribution of mean 1."""
    return -F.log(1 - uniform(spec, tag, *keys))


def one_of(options: list[str], number: Column) -> Column:
    """Return one of some texts, chosen by a number."""
    return F.element_at(F.array(*map(F.lit, options)), (F.pmod(number, F.lit(len(options))) + 1).cast("int"))


def whole(number: Column) -> Column:
    """Round down to a bigint."""
    return F.floor(number).cast("bigint")


# ---- who does what when ----


def next_interest(spec: LogSpec, interest: Column, user: Column, day: Column) -> Column:
    """Return tomorrow's interest: the Markov chain.

    An interest stays with probability 1 - `switch`. Otherwise it moves, 7 times in 10 to one of three
    categories that follow this one (so that where people go next can be learnt), else to any, popular ones
    more often.
    """
    neighbour = interest * 7 + 1 + whole(3 * uniform(spec, "neighbour", user, day))
    anywhere = popular(spec.categories, uniform(spec, "anywhere", user, day))
    moved = F.when(uniform(spec, "near", user, day) < 0.7, neighbour % spec.categories).otherwise(anywhere)
    return F.when(uniform(spec, "stay", user, day) < 1 - spec.switch, interest).otherwise(moved)


def popular(size: int, chance: Column) -> Column:
    """Return a number below `size`, small ones more often."""
    return whole(size * F.pow(chance, 1.5))


def person_days(spark: SparkSession, spec: LogSpec) -> DataFrame:
    """Return one row a person and day: the hidden interest.

    A person's day starts when they wake, so it lasts into the next date; hence a day before the first.
    """
    start = F.array(popular(spec.categories, uniform(spec, "start", "user")))
    interests = F.aggregate(
        F.sequence(F.lit(0), F.lit(spec.days - 1)),
        start,
        lambda so_far, day: F.concat(
            so_far, F.array(next_interest(spec, F.element_at(so_far, -1), F.col("user"), day))
        ),
    )
    return (
        spark.range(spec.people)
        .withColumnRenamed("id", "user")
        .select("user", F.posexplode(interests).alias("day", "interest"))
        .withColumn("day", F.col("day").cast("bigint") - 1)
    )


def person_bursts(spark: SparkSession, spec: LogSpec) -> DataFrame:
    """Return the bursts of ordinary people: up to six a day, never less than a pause apart.

    How active a person is, and how much of it shows on a day, are both exponential: most do little, a few do
    a lot. A person's day is cut in equal slots from the hour they wake, one burst in each, so that the late
    risers' last bursts run over midnight.
    """
    mean = spec.person_events / EVENTS_PER_VISIT / spec.people / spec.days
    visits = mean * exponential(spec, "person", "user") * exponential(spec, "person day", "user", "day")
    slots = F.least(F.ceil(F.col("day_visits") / 6), F.lit(BURSTS_A_DAY)).cast("bigint")
    slot = F.lit(DAY) / F.col("slots")
    wakes = F.col("day") * DAY + whole(uniform(spec, "wakes", "user") * DAY)
    step = SECOND + (LONGEST_STEP - SECOND) * F.pow(uniform(spec, "step", "user", "day", "burst"), 3)
    return (
        person_days(spark, spec)
        .withColumn("day_visits", whole(visits + uniform(spec, "visits", "user", "day")))
        .where("day_visits > 0")
        .withColumn("slots", slots)
        .withColumn("burst", F.explode(F.sequence(F.lit(0).cast("bigint"), F.col("slots") - 1)))
        .withColumn(
            "visits",
            whole(F.col("day_visits") * (F.col("burst") + 1) / F.col("slots"))
            - whole(F.col("day_visits") * F.col("burst") / F.col("slots")),
        )
        .withColumn("span", whole(F.least(F.col("visits") * step, slot - SHORTEST_PAUSE)))
        .withColumn(
            "start",
            wakes
            + whole(
                slot * F.col("burst")
                + (slot - SHORTEST_PAUSE - F.col("span")) * uniform(spec, "begin", "user", "day", "burst")
            ),
        )
        # Half of the clients tell the time to the second: a good source of ties.
        .withColumn(
            "precision",
            F.when(
                (mark(spec, "clock", "user") % 2 == 0) & (F.col("span") >= F.col("visits") * SECOND), SECOND
            ).otherwise(1),
        )
        .select(
            F.format_string("u%08d", "user").alias("user_id"),
            *("user", "day", "burst", "start", "span", "visits", "interest", "precision"),
        )
    )


def crawler_bursts(spark: SparkSession, spec: LogSpec) -> DataFrame:
    """Return the bursts of crawlers: one a day that lasts the whole day."""
    return spark.range(spec.crawlers * spec.days).select(
        F.format_string("crawler-%03d", (F.col("id") / spec.days).cast("int")).alias("user_id"),
        (-1 - whole(F.col("id") / spec.days)).alias("user"),
        (F.col("id") % spec.days).alias("day"),
        F.lit(0).cast("bigint").alias("burst"),
        (F.col("id") % spec.days * DAY).alias("start"),
        F.lit(DAY).alias("span"),
        F.lit(DAY // CRAWLER_STEP).alias("visits"),
        F.lit(None).cast("bigint").alias("interest"),
        F.lit(SECOND).alias("precision"),
    )


def whale_bursts(spark: SparkSession, spec: LogSpec) -> DataFrame:
    """Return the bursts of the one user with a large share of the log, such as an account that is shared."""
    visits = round(spec.events * spec.whale / EVENTS_PER_VISIT / spec.days)
    bursts = -(-visits // WHALE_BURST)
    opens, hours = WHALE_DAY
    burst = F.col("id") % max(bursts, 1)
    day = whole(F.col("id") / max(bursts, 1))
    return spark.range(bursts * spec.days).select(
        F.lit("whale").alias("user_id"),
        F.lit(-1 - spec.crawlers).cast("bigint").alias("user"),
        day.alias("day"),
        burst.alias("burst"),
        (day * DAY + opens + whole(burst * hours / max(bursts, 1))).alias("start"),
        F.lit(hours // max(bursts, 1)).cast("bigint").alias("span"),
        (whole((burst + 1) * visits / max(bursts, 1)) - whole(burst * visits / max(bursts, 1))).alias("visits"),
        F.lit(None).cast("bigint").alias("interest"),
        F.lit(1).alias("precision"),
    )


def events(spark: SparkSession, spec: LogSpec) -> DataFrame:
    """Return one row an event that truly happened in the range, `time` in microseconds since its start."""
    bursts = person_bursts(spark, spec)
    for more in (crawler_bursts(spark, spec), whale_bursts(spark, spec)):
        bursts = bursts.unionByName(more)
    # One task makes a stretch of one day: few files a day, whatever the size. Hashing spreads a day's whale.
    tasks = max(1, round(spec.events / EVENTS_A_TASK))
    place = ("user", "day", "burst")
    bursts = bursts.repartitionByRange(tasks, "day", F.xxhash64(*place)) if tasks > 1 else bursts.coalesce(1)

    # An interest decides the category; a crawler (no interest) looks at everything alike.
    follows = F.col("interest").isNotNull() & (uniform(spec, "focus", "visit_mark") < spec.focus)
    anything = popular(spec.categories, uniform(spec, "category", "visit_mark"))
    # Neighbouring visits may share a second but never an item: odd and even items take turns.
    item = 2 * popular(spec.items // 2, uniform(spec, "item", "visit_mark")) + F.col("visit") % 2
    is_crawler = F.col("user").between(-spec.crawlers, -1)
    shape = F.when(is_crawler, "v").otherwise(one_of(VISITS, mark(spec, "shape", "visit_mark")))
    inside = (F.col("step") - 1 + uniform(spec, "moment", "visit_mark", "step")) / F.length("shape")
    exact = F.col("start") + whole(F.col("span") * ((F.col("visit") + inside) / F.col("visits")))
    return (
        bursts.where("visits > 0")
        .withColumn("visit", F.explode(F.sequence(F.lit(0).cast("bigint"), F.col("visits") - 1)))
        .withColumn("visit_mark", mark(spec, "visit", *place, "visit"))
        .withColumn("shape", shape)
        .withColumn("category", F.when(follows, F.col("interest")).otherwise(anything))
        .withColumn("item", item)
        .withColumn("step", F.explode(F.sequence(F.lit(1), F.length("shape"))))
        .withColumn("time", exact - F.pmod(exact, F.col("precision")))
        .where((F.col("time") >= 0) & (F.col("time") < spec.days * DAY))
        .select(
            mark(spec, "event", "visit_mark", "step").alias("event_mark"),
            "user_id",
            "time",
            (F.col("precision") == SECOND).alias("to_the_second"),
            F.substring("shape", F.col("step"), F.lit(1)).alias("act"),
            "category",
            "item",
        )
    )


# ---- what of it lands when ----


def landed_rows(happened: DataFrame, spec: LogSpec) -> DataFrame:
    """Return one row for each row that lands: an event, with `landed` (day number), `late` and `kind`.

    An event lands on its date, or late. Some are written twice, some again on a later day, and some
    are followed by a broken copy. What would land after the last day lands on it.
    """

    def chance(tag: str) -> Column:
        return uniform(spec, tag, "event_mark")

    today, last = F.col("landed"), F.lit(spec.days - 1)
    happened_on = whole(F.col("time") / DAY)
    days_late = (
        F.when(chance("late") < spec.late, 1 + whole(2 * chance("by")))
        .when(chance("very late") < spec.very_late, 3 + whole(spec.days * chance("by")))
        .otherwise(0)
    )
    again_on = F.least(today + 1 + whole(3 * chance("again on")), last)
    again = F.when(again_on > today, "redelivered").otherwise("duplicate")
    reason = one_of(spec.kinds_of_broken, mark(spec, "reason", "event_mark"))
    # A search names no item: its lack does not break it, and with another behavior it would be broken twice.
    needs_item = reason.isin("missing_item", "unknown_behavior")
    reason = F.when(needs_item & (F.col("act") == "s"), "missing_user").otherwise(reason)

    def copy(landed: Column, kind: Column) -> Column:
        return F.array(F.struct(landed.alias("landed"), kind.alias("kind")))

    none = F.array().cast("array<struct<landed: bigint, kind: string>>")
    copies = F.concat(
        copy(today, F.lit("good")),
        F.when(chance("twice") < spec.duplicates, copy(today, F.lit("duplicate"))).otherwise(none),
        F.when(chance("again") < spec.redelivered, copy(again_on, again)).otherwise(none),
        F.when(chance("broken") < spec.broken, copy(today, reason)).otherwise(none),
    )
    return (
        happened.withColumn("landed", F.least(happened_on + days_late, last))
        .withColumn("copy", F.explode(copies))
        .withColumn("landed", F.col("copy.landed"))
        .withColumn("kind", F.col("copy.kind"))
        .withColumn("late", (F.col("kind") == "good") & (F.col("landed") > happened_on))
        .drop("copy")
    )


def fields(rows: DataFrame, spec: LogSpec) -> DataFrame:
    """Return the fields of every row in typed columns, broken where those can be; `dt` and `kind` too."""
    kind = F.col("kind")
    act = F.col("act")
    item = F.col("category") * spec.items + F.col("item")
    item_id = F.concat(F.lit("i"), item.cast("string"))
    query = F.concat_ws(" ", one_of(QUERY_WORDS, item), item.cast("string"))
    # An item has one price: 0.50 up to about 400, most of them small.
    price = (0.5 + F.pow(uniform(spec, "price", item), 3) * 400).cast("decimal(18,2)")
    second_of_day = F.pmod(F.col("event_mark"), F.lit(86_400)) * SECOND
    before_floor = (date(1999, 12, 31) - spec.start).days * DAY + second_of_day
    time = (
        F.when(kind == "time_after_landing", (F.col("landed") + 1) * DAY + second_of_day)
        .when(kind == "time_before_floor", before_floor)
        .when(kind != "missing_time", F.col("time"))
    )
    behavior = F.element_at(F.create_map(*(F.lit(x) for pair in BEHAVIORS.items() for x in pair)), act)
    searches = act == "s"
    epoch = (spec.start - date(1970, 1, 1)).days * DAY
    return rows.select(
        F.date_add(F.lit(spec.start), F.col("landed").cast("int")).alias("dt"),
        "kind",
        "to_the_second",
        F.when(kind != "missing_user", F.col("user_id")).alias("user_id"),
        F.timestamp_micros(F.lit(epoch) + time).alias("event_time"),
        F.when(kind == "unknown_behavior", "hover").otherwise(behavior).alias("behavior"),
        F.when(kind == "field_too_long", F.repeat(item_id, 1025))
        .when(kind == "unusable_text", F.concat(item_id, F.lit("\0")))
        .when(kind == "not_an_id", F.lit("1.23E+08"))
        .when(~searches & (kind != "missing_item"), item_id)
        .alias("item_id"),
        F.when(~searches, F.concat(F.lit("c"), F.col("category").cast("string"))).alias("category_id"),
        F.when(searches, query).alias("query"),
        F.when(kind == "negative_price", -price).when(~searches, price).alias("price"),
    )


def lines(typed: DataFrame) -> DataFrame:
    """Return the rows as JSON lines, broken where only text can be: `dt`, `value`.

    What no JSON writer would produce is spliced in before the closing brace: a price that is a word, and
    the bytes FF FE, which no UTF-8 text contains (a cast from binary keeps them as they are).
    """
    kind = F.col("kind")
    bytes_in_query = F.concat(F.lit(',"query":"'), F.unhex(F.lit("FFFE")).cast("string"), F.lit('"}'))
    time = F.when(F.col("to_the_second"), F.date_format("event_time", "yyyy-MM-dd'T'HH:mm:ss'Z'")).otherwise(
        F.date_format("event_time", "yyyy-MM-dd'T'HH:mm:ss.SSSSSS'Z'")
    )
    record = F.struct(
        "user_id",
        F.when(kind == "unparsable_time", "31/31/2025 25:61").otherwise(time).alias("event_time"),
        *("behavior", "item_id", "category_id"),
        F.when(kind != "undecodable", F.col("query")).alias("query"),
        F.when(kind != "invalid_price", F.col("price")).alias("price"),
    )
    open_record = F.expr("substring(value, 1, length(value) - 1)")
    return (
        typed.withColumn("value", F.to_json(record))
        .withColumn(
            "value",
            F.when(kind == "malformed_line", F.expr("substring(value, 1, length(value) div 2)"))
            .when(kind == "invalid_price", F.concat(open_record, F.lit(',"price":"free"}')))
            .when(kind == "undecodable", F.concat(open_record, bytes_in_query))
            .otherwise(F.col("value")),
        )
        .select("dt", "value")
    )


# ---- the job ----


def simulate(spark: SparkSession, spec: LogSpec, landing: str, truth: str | None = None) -> None:
    """Write the log under `landing`, and the truth under `truth` if given.

    Raises:
        SettingsInvalid: one of the days has landed before; a simulation never adds to or replaces real files.
    """
    days = days_between(spec.start, spec.last)
    area = Landing(landing)
    for day in days:
        if storage.exists(area.folder(day)):
            raise SettingsInvalid(f"{landing} holds dt={day} already; choose another folder or other dates")

    rows = landed_rows(events(spark, spec), spec)
    typed = fields(rows, spec)
    table = typed.drop("kind", "to_the_second") if spec.file_format == "parquet" else lines(typed)
    writer = table.write.partitionBy("dt").mode("append")
    if spec.gzip:
        writer = writer.option("compression", "gzip")
    # Spark would write one marker next to the days; each day gets its own below.
    writer = writer.option("mapreduce.fileoutputcommitter.marksuccessfuljobs", "false")
    writer.format("parquet" if spec.file_format == "parquet" else "text").save(storage.spark_path(landing))
    for day in days:
        fs, folder = storage.filesystem(area.folder(day))
        fs.makedirs(folder, exist_ok=True)
        fs.touch(storage.join(folder, "_SUCCESS"))
    log.info("simulated %s to %s in %s", spec.start, spec.last, landing)

    if truth:
        counts(rows, spec).write.parquet(storage.spark_path(storage.join(truth, "counts")))
        states(spark, spec).write.parquet(storage.spark_path(storage.join(truth, "states")))
        log.info("wrote what was planted to %s", truth)


def counts(rows: DataFrame, spec: LogSpec) -> DataFrame:
    """Return what landed: one row a landing day and kind, with its rows and the late ones among them."""
    return (
        rows.groupBy(F.date_add(F.lit(spec.start), F.col("landed").cast("int")).alias("dt"), "kind")
        .agg(F.count("*").alias("rows"), F.count_if("late").alias("late"))
        .coalesce(1)
        .sortWithinPartitions("dt", "kind")
    )


def states(spark: SparkSession, spec: LogSpec) -> DataFrame:
    """Return the hidden interest of each person on each day: one row a person and day."""
    return (
        person_days(spark, spec)
        .where("day >= 0")
        .select(
            F.format_string("u%08d", "user").alias("user_id"),
            F.date_add(F.lit(spec.start), F.col("day").cast("int")).alias("dt"),
            F.concat(F.lit("c"), F.col("interest").cast("string")).alias("category_id"),
        )
    )


def main(argv: list[str] | None = None) -> None:
    """Parse, and write the files."""
    default = LogSpec()
    parser = argparse.ArgumentParser(
        prog="jobs.simulate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )

    def number(name: str, text: str, group: argparse._ActionsContainer = parser) -> None:
        value = getattr(default, name)
        text = f"{text} (default: {value})"
        group.add_argument(f"--{name.replace('_', '-')}", type=type(value), metavar="N", default=value, help=text)

    number("events", "about how many events")
    number("users", "ordinary users; 0: one for each 100 events")
    text = f"first day (default: {default.start})"
    parser.add_argument("--from", dest="start", metavar="D", type=date.fromisoformat, default=default.start, help=text)
    number("days", "number of days")
    number("seed", "other seed, other log")
    number("categories", "number of categories")
    number("items", "items in each category, an even number")
    number("switch", "chance that an interest moves on from one day to the next")
    number("focus", "share of a person's visits that follow the interest")
    number("crawlers", "users who never sleep")
    shares = parser.add_argument_group("shares of all events")
    number("whale", "one user's events", shares)
    number("late", "land one or two days after their date", shares)
    number("very_late", "land three days after their date, or later", shares)
    number("duplicates", "written twice on one day", shares)
    number("redelivered", "written again on a later day", shares)
    number("broken", "followed by a broken copy, in turn in each way that is rejected", shares)
    text = "json, or parquet, which has no rows that only text can break (default: json)"
    parser.add_argument("--format", dest="file_format", choices=["json", "parquet"], default="json", help=text)
    parser.add_argument("--gzip", action="store_true", help="compress the files")
    parser.add_argument("--landing", metavar="DIR", help="folder for the log (default: MEANDER_LANDING)")
    parser.add_argument("--truth", metavar="DIR", help="folder for what was planted (default: not written)")
    args = vars(parser.parse_args(argv))
    config = settings()
    landing, truth = args.pop("landing") or config.landing, args.pop("truth")
    simulate(spark_session("simulate", config), LogSpec(**args), landing, truth)


if __name__ == "__main__":
    run_main(main)
