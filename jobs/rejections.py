"""Turn the text values of an input row into an event's columns, or give the reason why a row cannot be an event.

Every row gets exactly one outcome: an event, ignored (its source maps the behavior to `ignore`), or the first reason
below that applies. The reasons are the values of `quarantine.reason`.
"""

from datetime import datetime
from functools import reduce
from operator import or_
from zoneinfo import ZoneInfo

from pyspark.errors import AnalysisException, ParseException
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import StructType

from jobs import sql_value, time_pattern
from jobs.raw_rows import raw_text
from jobs.source import Source, Value, quoted
from jobs.time_pattern import EPOCHS
from lake.errors import SourceInvalid
from lake.rules import MAX_ID_BYTES
from lake.schemas import PRICE
from lake.settings import Settings
from lake.text import SURROUNDING, composed

# In order of precedence: reasons that make the rest of a row meaningless come first.
REASONS = {
    "undecodable": "holds bytes that are not of the source's encoding",
    "malformed_line": "is no record of the source's format with its number of columns, cut off, or longer than 1 MiB",
    "field_too_long": "an id or query is longer than MEANDER_MAX_FIELD_LENGTH",
    "unusable_text": "an id or query has a character that not every sink can hold, or an id more than 2,048 bytes",
    "not_an_id": "a user, item or category is an object, a list, true or false, or not a whole number",
    "missing_time": "no event time",
    "unparsable_time": "the event time is not in the source's time format",
    "time_before_floor": "the event time is before MEANDER_TIME_FLOOR",
    "too_late": "the event is from more than MEANDER_MAX_DAYS_LATE days before the day on which the row arrived",
    "time_after_landing": "the event time lies after the day on which the row arrived",
    "missing_user": "no user",
    "unknown_behavior": "the source file does not name this behavior",
    "missing_item": "no item, and the behavior is not a search",
    "invalid_price": "the price is not a number below 10^14",
    "negative_price": "the price is below zero",
    "too_many_events": "the user has MEANDER_MAX_EVENTS_PER_USER_DAY earlier events of its date and landing day",
}
# The only reason that is none of the row by itself: see jobs/bounds.py.
TOO_MANY = "too_many_events"

# So much is kept of the text of an element of a list until it is staged, more than the quarantine takes by the longest
# id: a line of a mebibyte may be a hundred thousand rows, each with the text of all. Other texts are kept whole, since
# an id of a forgotten user may stand anywhere in them.
KEPT_CHARACTERS = 8192

EVENT, IGNORED, REJECTED = "event", "ignored", "rejected"
CONTENT = ("user_id", "event_time", "behavior", "item_id", "category_id", "query", "price")

# So much is kept of a value that the source names no behavior for: what is longer is no name.
UNKNOWN_CHARACTERS = 100

# The characters that no id may hold, see lake/text.py; and those that no query may hold.
UNUSABLE_IN_IDS = r"[\p{Cc}\p{Zl}\p{Zp}\p{IsNoncharacter_Code_Point}\x{FEFF}\x{FFFD}\x{202A}-\x{202E}\x{2066}-\x{2069}]"
UNUSABLE_IN_QUERIES = rf"[{UNUSABLE_IN_IDS}&&[^\t\n]]"

# A fraction as Java prints it, and so Spark: 1.23456789E8. It has all digits, but for numbers of more than 15 of them;
# spreadsheets, which write 1.23E+08, have rounded.
PRINTED_FRACTION = r"^-?[1-9]\.(?:\d*[1-9]|0)E\d+$"
# Whole numbers that pandas has made fractions of, because one row had none.
WHOLE_FRACTION = r"^(-?(?:0|[1-9]\d{0,14}))\.0+$"
# A character that is not printable ASCII.
UNUSUAL = "[^ -~]"
# Ids, with blanks between them, of which each can be one, as nearly all can: printable ASCII, without the signs and the
# words of NO_ID. To see that costs less than to look for what cannot.
WORD_OF_NO_ID = r"(?!-?(?:[Tt]rue|TRUE|[Ff]alse|FALSE|[Ii][Nn][Ff]))"
PLAIN = rf"^{WORD_OF_NO_ID}[!#-*,\-/-Z\\\]-z|}}~]*+(?: {WORD_OF_NO_ID}[!#-*,\-/-Z\\\]-z|}}~]*+)*+\z"
# What is certainly no id: an object, a list, a truth value, a number that is not whole, one that was rounded.
NO_ID = (
    r'^"?(?:\{(?:"|\}).*|\[(?:["\d\-{\[\]]|true|false|null).*|[Tt]rue|TRUE|[Ff]alse|FALSE|-?(?i:inf(?:inity)?)'
    r'|-?\d+(?:\.\d+)?[eE]\+\d+|-?\d\.\d+E-?\d+)"?$'
)
# A number of JSON in scientific notation, before Spark has written it in its own way; and one that no Java has written.
SCIENTIFIC = r"[:\[,]\s*-?\d+(?:\.\d+)?[eE][-+]?\d+\s*[,}\]]"
ROUNDED = r"[:\[,]\s*-?\d+(?:(?:\.\d+)?(?:e[-+]?|E\+)|E)\d+\s*[,}\]]"

# A date and a time of day, then nothing, or what names one zone for everybody. Spark would take CST for Chicago.
ISO_WALL_CLOCK = r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(?::\d{1,2}(?:\.\d*)?)?"
ISO_ZONE = r" ?(?:Z|(?:UTC|GMT|UT)?(?:[+-]\d{1,2}(?::?\d{2}(?::?\d{2})?)?)?|[A-Z][A-Za-z_]+/[A-Za-z0-9_+/\-]+)"

# What stands around the number of a price: signs of currencies, and their codes.
CURRENCY = r"(?:\p{Sc}|[A-Z]{3}|[A-Z]{1,2}\p{Sc}|kr\.?|zł|Kč|Ft|lei|元|円)"


def has_odd_characters(rows: DataFrame, source: Source) -> Column:
    """Return whether a row may have more around a value than blanks, or more in it than ASCII; few rows have.

    Args:
        rows: as jobs.raw_rows.read_rows returns them.
        source: of which `format` they are.
    """
    if isinstance(rows.schema["raw"].dataType, StructType):
        return F.concat_ws("", *(F.col("values")[name] for name in source.used_columns)).rlike(UNUSUAL)
    raw = F.col("raw")
    # The other characters of SURROUNDING are beyond ASCII. In JSON, and so in rows of Parquet, all may be escapes.
    signs = ("\t", "\v", "\f", "\\") if source.format == "csv" else ("\\",)
    found = [F.contains(raw, F.lit(sign)) for sign in signs]
    return reduce(or_, found, F.octet_length(raw) != F.length(raw))


def text_value(value: Value | None, columns: dict[str, Column]) -> Column:
    """Return the text of a value of an event; null if it has none, or is not in the source."""
    if value is None:
        return F.lit(None).cast("string")
    texts = [columns[column] for column in ([value.sql] if value.sql is not None else value.columns)]
    return F.coalesce(*texts)


def in_one_form(text: Column) -> Column:
    """Return a text in Unicode's form NFC, as `lake.text.composed` does.

    Spark has no expression for it, but has the library that knows. Texts without a character from U+0300 on, which
    nearly all are, have that form already.
    """
    nfc = F.reflect(F.lit("com.ibm.icu.text.Normalizer"), F.lit("compose"), text, F.lit(False))
    return F.when(text.rlike(r"[^\x00-\x{2FF}]"), nfc).otherwise(text)


def is_null_word(text: Column, source: Source, *, is_ascii: bool) -> Column:
    """Return whether a text without surroundings is empty, or a word that means no value.

    Args:
        text: of a value.
        source: has the words.
        is_ascii: whether each text is. Of letters beyond ASCII, some have the same capital letter as one of ASCII; only
            the pattern knows them.
    """
    if is_ascii and all(word.isascii() for word in source.nulls):
        # In the same order in each process: Spark keeps the code that it has compiled.
        words = sorted({"", *(word.lower() for word in source.nulls)})
        # Nearly all texts have another length than each word, or begin with a digit as none does.
        may_be = F.octet_length(text).isin(*sorted({len(word) for word in words}))
        if not any(word[:1] in set("123456789") for word in words):
            may_be = may_be & ~((text >= "1") & (text < ":"))
        return may_be & F.lower(text).isin(*words)
    return (text == "") | text.rlike(source.null_pattern())


def in_row(sql: str) -> Column:
    """Return the column of an expression over the row's values."""
    return F.expr(sql_value.with_columns(sql, lambda name: f"values.{quoted(name)}"))


def require_expressions(rows: DataFrame, source: Source) -> None:
    """Check that Spark understands each expression of a source.

    Raises:
        SourceInvalid: one is no expression, or computes with values of other types than it may.
    """
    for value in (*source.required, *source.optional):
        if value.sql is not None:
            try:
                rows.select(in_row(value.sql).cast("string")).schema  # noqa: B018  asks Spark
            except (ParseException, AnalysisException) as error:
                said = str(error).splitlines()[0]
                raise SourceInvalid(f"source {source.name}: Spark does not take {value.sql!r}: {said}") from error


def id_value(text: Column, source: Source, raw: Column) -> Column:
    """Return an id, from its text and that of the row; a whole number as such, also if written as a fraction."""

    def converted(fraction: Column) -> Column:
        digits = F.length(F.regexp_extract(fraction, r"\.(\d+)E", 1))
        exponent = F.regexp_extract(fraction, r"E(\d+)$", 1).try_cast("int")
        is_short = (exponent < 15) & ((digits <= exponent) | fraction.rlike(r"\.0E"))
        is_whole = fraction.rlike(PRINTED_FRACTION) & is_short
        if source.format == "jsonl":
            is_whole = is_whole & ~raw.rlike(ROUNDED)
        whole = fraction.try_cast("decimal(38, 0)").cast("string")
        return F.when(is_whole, whole).otherwise(F.regexp_replace(fraction, WHOLE_FRACTION, "$1"))

    # Few ids have a point, and to look for one costs less than these expressions. As one over a list they are no part
    # of the code of this step: with them, it would be too long for Java to compile; see lake/session.py.
    of_fraction = F.get(F.transform(F.array(text), converted), F.lit(0))
    return F.when(F.contains(text, F.lit(".")), of_fraction).otherwise(text)


def event_time(source: Source, raw: Column) -> tuple[Column, Column]:
    """Return the instant of an event, null if its text is not in the source's format; and whether its hour is in doubt.

    An hour is in doubt if the clocks of the source's zone show it twice, or never, on that day.

    Args:
        source: its format and zone.
        raw: the text of the row, which has that of the time as `time_text`, or an `instant` in its place.
    """
    time, text = source.time, F.col("time_text")
    if time.format in EPOCHS:
        # 18 digits before the point: an epoch in microseconds fits, and so do the fractions of one in seconds.
        number = text.try_cast("decimal(24, 6)" if time.format != "epoch_ns" else "decimal(38, 6)")
        # In scientific notation digits are lost. Spark writes fractions of JSON that way, but with all digits.
        written = ~F.contains(text, F.lit("E")) & ~F.contains(text, F.lit("e"))
        if source.format == "jsonl":
            written = written | (text.rlike(PRINTED_FRACTION) & ~raw.rlike(SCIENTIFIC))
        per_second = EPOCHS[time.format]
        micros = number * (1_000_000 // per_second) if per_second <= 1_000_000 else F.floor(number / 1_000)
        # Beyond the year 9999 a timestamp cannot be written, so it cannot be an event's time either.
        representable = written & (F.abs(micros) < 253_402_300_800_000_000)
        return F.when(representable, F.timestamp_micros(micros.cast("bigint"))), F.lit(False)
    if time.format == "iso8601":
        # Spark would also take "2021" or "12:30"; an event time needs a date and a time of day.
        complete = text.rlike(f"^{ISO_WALL_CLOCK}{ISO_ZONE}$")
        instant = F.coalesce(F.when(complete, text.try_cast("timestamp")), instant_of_year())
        if time.zone == "UTC":
            return instant, F.lit(False)
        has_no_zone = text.rlike(f"^{ISO_WALL_CLOCK}$")
        in_zone, doubtful = at_wall_clock(instant, time.zone)
        return F.when(has_no_zone, in_zone).otherwise(instant), F.coalesce(has_no_zone & doubtful, F.lit(False))
    if time_pattern.without_weekday(time.format) != time.format:
        text = F.regexp_replace(text, r"^\p{L}+[.,]* +", "")
    instants, doubts = [], []
    for pattern in time_pattern.variants(time_pattern.without_weekday(time.format)):
        read = F.try_to_timestamp(text, F.lit(pattern))
        if "z" in "".join(time_pattern.fields(pattern)):
            read = F.when(~text.rlike(time_pattern.ABBREVIATION), read)
        if time_pattern.has_offset(pattern):
            in_zone, doubtful = read, F.lit(False)
        else:
            in_zone, doubtful = at_wall_clock(read, time.zone)
        doubts.append(F.when(in_zone.isNotNull(), doubtful))
        instants.append(in_zone)
    return F.coalesce(*instants), F.coalesce(*doubts, F.lit(False))


def instant_of_year() -> Column:
    """Return the instant that a row has instead of a text, if its year has four digits, as that of a text has to."""
    return F.when(F.unix_micros("instant").between(-62_167_219_200_000_000, 253_402_300_799_999_999), F.col("instant"))


def at_wall_clock(shown: Column, zone: str) -> tuple[Column, Column]:
    """Return the instant at which the clocks of a zone show a time, and whether they show it twice or never."""
    instant = F.to_utc_timestamp(shown, zone)
    if not changes_clocks(zone):
        return instant, F.lit(False)

    def shows_it(minutes: int) -> Column:
        return F.from_utc_timestamp(instant + F.expr(f"interval {minutes} minutes"), zone) == shown

    # Of two instants Spark takes the first. Clocks are put back by an hour, and on Lord Howe Island by half of one.
    return instant, ~shows_it(0) | shows_it(60) | shows_it(30)


def changes_clocks(zone: str) -> bool:
    """Return whether the clocks of a zone are changed in our days.

    >>> changes_clocks("America/New_York"), changes_clocks("Asia/Shanghai")
    (True, False)
    """
    place = ZoneInfo(zone)
    offsets = {
        datetime(year, month, 1, tzinfo=place).utcoffset() for year in range(2000, 2040) for month in (1, 4, 7, 10)
    }
    return len(offsets) > 1


def behavior_of(source: Source) -> Column:
    """Return the behavior that the source file maps a raw value to, `ignore` included; null if it maps it to none."""
    behavior = source.behavior
    if behavior.column is None:
        return F.lit(behavior.constant)
    meaning = F.create_map(*(F.lit(composed(part)) for pair in behavior.values.items() for part in pair))
    # A word for null may be one of the values.
    nulls = source.null_pattern(but=behavior.values)
    text = F.col("behavior_text")
    found = F.try_element_at(meaning, text)
    if behavior.others == "ignore":
        return F.coalesce(found, F.when(text.isNotNull() & ~text.rlike(nulls), F.lit("ignore")))
    return found


def price_value(source: Source) -> Column:
    """Return the price; null if there is none, or it is not written as the source says."""
    if source.price is None:
        return F.lit(None).cast(PRICE)
    text = F.col("price_text")
    if source.amounts is None:
        return text.try_cast(PRICE)
    decimal = source.amounts.decimal
    groups = {".": ",", ",": "."}[decimal]
    bare = F.regexp_replace(text, rf"^([+-]?)\s*{CURRENCY}[\s\xa0\u202f]*|[\s\xa0\u202f]*{CURRENCY}$", "$1")
    whole = rf"\d{{1,3}}(?:([{groups}'\u2019 \xa0\u202f])(?:\d{{2}}\1)*\d{{3}}(?:\1\d{{3}})*)|\d+"
    is_number = bare.rlike(rf"^[+-]?(?:{whole})(?:[{decimal}]\d+)?$")
    plain = F.replace(F.regexp_replace(bare, rf"[^\d+\-{decimal}]", ""), F.lit(decimal), F.lit("."))
    number = F.when(is_number, plain.try_cast("decimal(30, 8)"))
    return (number / source.amounts.divide_by).try_cast(PRICE)


def text_reasons() -> dict[str, Column]:
    """Return the reasons that are about the characters of ids and queries, `unusable_text` and `not_an_id`, or null.

    Which texts every sink can hold defines lake/text.py. What is certainly no id is an object, a list, a truth value or
    a rounded number.
    """
    ids = ("user_id", "item_id", "category_id")
    text, query = F.concat_ws(" ", *ids), F.col("query")
    # Hardly any row has such a character, and to look for one costs less than the expressions.
    unusable_query = F.coalesce(query.rlike(UNUSUAL) & query.rlike(UNUSABLE_IN_QUERIES), F.lit(False))
    too_many_bytes = F.greatest(*(F.octet_length(F.coalesce(name, F.lit(""))) for name in ids)) > MAX_ID_BYTES
    is_no_id = reduce(or_, (F.coalesce(F.col(name).rlike(NO_ID), F.lit(False)) for name in ids))
    of_ids = F.coalesce(
        F.when(text.rlike(UNUSABLE_IN_IDS), F.lit("unusable_text")), F.when(is_no_id, F.lit("not_an_id"))
    )
    return {
        "unusable_text": F.when(unusable_query | too_many_bytes, F.lit("unusable_text")),
        "not_an_id": F.when(~text.rlike(PLAIN), of_ids),
    }


def texts_of(rows: DataFrame, source: Source) -> DataFrame:
    """Replace `values` by the text of each field of an event."""
    values = {
        **{"user_id": source.user_id, "item_id": source.item_id, "category_id": source.category_id},
        **{"query": source.query, "time_text": source.time.column, "price_text": source.price},
    }
    fields = [value for value in (*values.values(), source.behavior.column) if value]
    texts = {name: F.col("values")[name] for value in fields if value.sql is None for name in value.columns}
    # An expression may make characters beyond ASCII in a row that has none.
    texts |= {value.sql: in_one_form(in_row(value.sql).cast("string")) for value in fields if value.sql is not None}
    place = [name for name in rows.columns if name != "values"]

    def cleaned(text: Column) -> Column:
        """Return a text in one form, without what surrounds it, and whether it means no value."""
        # Of a row with one odd text, the others are nearly always as plain as those of all other rows.
        is_odd, plain = text.rlike(UNUSUAL), F.trim(text)
        written = F.when(is_odd, in_one_form(F.trim(text, F.lit(SURROUNDING)))).otherwise(plain)
        is_null = F.when(is_odd, is_null_word(written, source, is_ascii=False))
        is_null = is_null.otherwise(is_null_word(plain, source, is_ascii=True))
        return F.struct(written.alias("text"), is_null.alias("is_null"))

    # Of the few rows that need it, as one expression over all texts: it would be more code than all else together, and
    # for a day of few rows, Java takes longer to compile the code than to run it. Null for all other rows.
    odd = F.when(has_odd_characters(rows, source), F.transform(F.array(*texts.values()), cleaned))
    plain_texts = (F.trim(text).alias(f"text{n}") for n, text in enumerate(texts.values()))
    rows = rows.select(*place, odd.alias("odd"), *plain_texts)
    as_written, known = {}, {}
    for n, name in enumerate(texts):
        found, plain, is_odd = F.get("odd", F.lit(n)), F.col(f"text{n}"), F.col("odd").isNotNull()
        as_written[name] = F.when(is_odd, found["text"]).otherwise(plain)
        is_null = is_null_word(plain, source, is_ascii=True)
        known[name] = F.when(is_odd, F.when(~found["is_null"], found["text"])).otherwise(F.when(~is_null, plain))
    behavior = text_value(source.behavior.column, as_written)
    return rows.select(
        *place,
        *(text_value(value, known).alias(name) for name, value in values.items()),
        # A word for null may be one of the values that the source names.
        F.when(behavior != "", behavior).alias("behavior_text"),
    )


def too_late(config: Settings) -> dict[str, Column]:
    """Return the reason of events that are too old on the day on which they land; none where every age is accepted.

    It depends on the row and its landing day alone, so that a day can be loaded at any time, and again.
    """
    if not config.max_days_late:
        return {}
    first = F.date_sub("landed", config.max_days_late).cast("timestamp")
    return {"too_late": F.col("event_time") < first}


def judge(rows: DataFrame, source: Source, config: Settings) -> DataFrame:
    """Add an event's columns, `outcome` (event, ignored or rejected) and `reason` (null unless rejected).

    `unknown_behavior` is the beginning of a value that the source names no behavior for, null in all other rows; `raw`
    is the text of a rejected row, of an element of a list the beginning of it. With a bound of the events of a user,
    which may reject any row, all have it.

    Persist the rows before they are chosen by what is added: Spark would move such a condition below all steps here,
    compute them twice, and take a minute to compile it.

    Args:
        rows: as jobs.raw_rows.read_rows returns them.
        source: the meaning of their values.
        config: limits of time and length.
    """
    require_expressions(rows, source)
    ids = ("user_id", "item_id", "category_id")
    place = ("landed", "file", "whole_file", "position", "lines_above", "raw", "undecodable", "malformed")
    raw = raw_text(rows)
    instant, doubtful = event_time(source, raw)
    # Two steps, since a text is used several times in the second one.
    rows = texts_of(rows.select(*place, "instant", "values"), source)
    rows = rows.select(
        *place,
        *(id_value(F.col(name), source, raw).alias(name) for name in ids),
        "query",
        instant.alias("event_time"),
        doubtful.alias("doubtful_hour"),
        behavior_of(source).alias("behavior"),
        "behavior_text",
        price_value(source).alias("price"),
        # Each step copies its rows: of these texts no more is needed.
        (F.col("time_text").isNull() & F.col("instant").isNull()).alias("lacks_time"),
        F.col("price_text").isNotNull().alias("has_price"),
    )
    is_guest = F.col("user_id").isNull()
    if source.guests.users:
        guests = map(composed, source.guests.users)
        rows = rows.withColumn("user_id", F.when(~F.col("user_id").isin(*guests), F.col("user_id")))
    texts = [F.coalesce(name, F.lit("")) for name in (*ids, "query")]
    # There are as many bytes as characters, or more, and they need not be counted.
    may_be_too_long = F.greatest(*map(F.octet_length, texts)) > config.max_field_length
    too_long = may_be_too_long & (F.greatest(*map(F.length, texts)) > config.max_field_length)
    needs_item = F.col("behavior") != "search"
    applies = {
        "undecodable": F.col("undecodable"),
        "malformed_line": F.col("malformed"),
        "field_too_long": too_long,
        "missing_time": F.col("lacks_time"),
        "unparsable_time": F.col("event_time").isNull(),
        "time_before_floor": F.col("event_time") < F.lit(config.time_floor).cast("timestamp"),
        **too_late(config),
        "time_after_landing": F.col("event_time") >= F.date_add("landed", 1).cast("timestamp"),
        "missing_user": F.col("user_id").isNull(),
        "unknown_behavior": F.col("behavior").isNull(),
        "missing_item": needs_item & F.col("item_id").isNull(),
        "invalid_price": F.col("has_price") & F.col("price").isNull(),
        "negative_price": F.col("price") < 0,
    }
    found = {code: F.when(condition, F.lit(code)) for code, condition in applies.items()} | text_reasons()
    # A step of its own, since it is used several times below.
    rows = rows.withColumn("reason", F.coalesce(*(found[code] for code in REASONS if code in found)))
    reason = F.col("reason")
    kept = raw
    if source.each:
        kept = F.when(F.octet_length(raw) > KEPT_CHARACTERS, F.left(raw, F.lit(KEPT_CHARACTERS))).otherwise(raw)
    readable = ~F.col("undecodable") & ~F.col("malformed")
    ignored = readable & (F.coalesce("behavior", F.lit("")) == "ignore")
    if source.guests.are == "ignored":
        ignored = ignored | (readable & is_guest)
    outcome = F.when(ignored, IGNORED).when(reason.isNotNull(), REJECTED).otherwise(EVENT)
    unknown = F.when(F.col("behavior").isNull(), F.substring("behavior_text", 1, UNKNOWN_CHARACTERS))
    return rows.select(
        *("landed", "file", "whole_file", "position", "lines_above"),
        (kept if config.max_events_per_user_day else F.when(~ignored & reason.isNotNull(), kept)).alias("raw"),
        *CONTENT,
        "doubtful_hour",
        unknown.alias("unknown_behavior"),
        outcome.alias("outcome"),
        F.when(~ignored, reason).alias("reason"),
    )
