"""Turn the text values of an input row into an event's columns, or give the reason why a row cannot be an event.

Every row gets exactly one outcome: an event, ignored (its source maps the behavior to `ignore`), or the first reason
below that applies. The reasons are the values of `quarantine.reason`.
"""

import re
from collections.abc import Iterable
from datetime import datetime
from functools import reduce
from operator import or_
from zoneinfo import ZoneInfo

from pyspark.errors import AnalysisException, ParseException
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

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
    "time_after_landing": "the event time lies after the day of the row's folder, in the source's folder_zone",
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
# What a text of nearly each row is made of: printable ASCII. Ids with the others of them may be none, see NO_ID.
PRINTABLE = "".join(map(chr, range(ord("!"), ord("~") + 1)))
NOT_IN_PLAIN_IDS = '"+[{'
WORD_OF_NO_ID = r"-?(?:[Tt]rue|TRUE|[Ff]alse|FALSE|[Ii][Nn][Ff])"
FRACTION = r"-?\d++\."
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


def one_of(characters: str) -> str:
    """Return a class of a regular expression; Java looks for a character among listed ones in one step."""
    return "[" + "".join(rf"\x{ord(character):02x}" for character in characters) + "]"


def plain_text(source: Source, *, is_id: bool = False) -> str:
    """Return the pattern of a text of a row that means what is written, as nearly all do.

    It is printable ASCII without blanks around it, and no word that means no value. An id has no sign and no word of
    NO_ID either, and is no fraction. The pattern ends before a line feed, or with the text.

    Args:
        source: has the words that mean no value.
        is_id: whether the text is an id.
    """
    signs = PRINTABLE.translate({ord(sign): None for sign in NOT_IN_PLAIN_IDS}) if is_id else PRINTABLE
    looked_at = {letter for word in source.nulls for letter in (word[:1].lower(), word[:1].upper())}
    none = [rf"(?iu:{'|'.join(map(re.escape, source.nulls))})$"] if source.nulls else []
    digits = "".join(digit for digit in "0123456789" if digit not in looked_at)
    if is_id:
        looked_at |= set("-0123456789TtFfIi")
        none += [FRACTION, WORD_OF_NO_ID]
    # Of letters beyond ASCII, some are the same as one of ASCII where capital letters do not count.
    are_ascii = all(word.isascii() for word in source.nulls)
    # Nearly all texts begin with a letter or a digit as none of those words does, and need not be compared with them.
    safe = "".join(sign for sign in signs if sign not in looked_at)
    begins = [one_of(safe)] if are_ascii and safe else []
    begins += [rf"{one_of(digits)}(?!\d*+\.)"] if are_ascii and is_id and digits else []
    begins += ["".join(f"(?!{pattern})" for pattern in none) + one_of(signs)]
    return rf"(?:(?:{'|'.join(begins)}){one_of(f' {signs}')}*+(?<! ))?+"


def columns_of(values: Iterable[Value | None]) -> dict[str, Column]:
    """Return the columns of the log, and the expressions over them, that some values are read from."""
    columns: dict[str, Column] = {}
    for value in values:
        if value and value.sql is not None:
            columns[value.sql] = in_row(value.sql).cast("string")
        elif value:
            columns |= {name: F.col("values")[name] for name in value.columns}
    return columns


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

    return F.when(F.contains(text, F.lit(".")), converted(text)).otherwise(text)


def event_time(source: Source, raw: Column) -> tuple[Column, Column]:
    """Return the instant of an event, null if its text is not in the source's format; and whether its hour is in doubt.

    An hour is in doubt if the clocks of the source's zone show it twice, or never, on that day. Of several formats, the
    first counts that the text is in.

    Args:
        source: its formats and zone.
        raw: the text of the row, which has that of the time as `time_text`, or an `instant` in its place.
    """
    read = [time_by(form, source, raw) for form in source.time.formats]
    if len(read) == 1:
        return read[0]
    doubts = [F.when(instant.isNotNull(), doubtful) for instant, doubtful in read]
    return F.coalesce(*(instant for instant, _ in read)), F.coalesce(*doubts, F.lit(False))


def time_by(form: str, source: Source, raw: Column) -> tuple[Column, Column]:
    """Return what `event_time` does, by one format of a source."""
    time, text = source.time, F.col("time_text")
    if form in EPOCHS:
        # 18 digits before the point: an epoch in microseconds fits, and so do the fractions of one in seconds.
        number = text.try_cast("decimal(24, 6)" if form != "epoch_ns" else "decimal(38, 6)")
        # In scientific notation digits are lost. Spark writes fractions of JSON that way, but with all digits.
        written = ~F.contains(text, F.lit("E")) & ~F.contains(text, F.lit("e"))
        if source.format == "jsonl":
            written = written | (text.rlike(PRINTED_FRACTION) & ~raw.rlike(SCIENTIFIC))
        per_second = EPOCHS[form]
        micros = number * (1_000_000 // per_second) if per_second <= 1_000_000 else F.floor(number / 1_000)
        # Beyond the year 9999 a timestamp cannot be written, so it cannot be an event's time either.
        representable = written & (F.abs(micros) < 253_402_300_800_000_000)
        return F.when(representable, F.timestamp_micros(micros.cast("bigint"))), F.lit(False)
    if form == "iso8601":
        # Spark would also take "2021" or "12:30"; an event time needs a date and a time of day.
        complete = text.rlike(f"^{ISO_WALL_CLOCK}{ISO_ZONE}$")
        instant = F.coalesce(F.when(complete, text.try_cast("timestamp")), instant_of_year())
        if time.zone == "UTC":
            return instant, F.lit(False)
        has_no_zone = text.rlike(f"^{ISO_WALL_CLOCK}$")
        in_zone, doubtful = at_wall_clock(instant, time.zone)
        return F.when(has_no_zone, in_zone).otherwise(instant), F.coalesce(has_no_zone & doubtful, F.lit(False))
    if time_pattern.without_weekday(form) != form:
        text = F.regexp_replace(text, r"^\p{L}+[.,]* +", "")
    instants, doubts = [], []
    for pattern in time_pattern.variants(time_pattern.without_weekday(form)):
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
    unusable_query = F.coalesce(query.rlike(UNUSABLE_IN_QUERIES), F.lit(False))
    too_many_bytes = F.greatest(*(F.octet_length(F.coalesce(name, F.lit(""))) for name in ids)) > MAX_ID_BYTES
    is_no_id = reduce(or_, (F.coalesce(F.col(name).rlike(NO_ID), F.lit(False)) for name in ids))
    of_ids = F.coalesce(
        F.when(text.rlike(UNUSABLE_IN_IDS), F.lit("unusable_text")), F.when(is_no_id, F.lit("not_an_id"))
    )
    return {
        "unusable_text": F.when(unusable_query | too_many_bytes, F.lit("unusable_text")),
        "not_an_id": of_ids,
    }


def texts_of(rows: DataFrame, source: Source, most: int = MAX_ID_BYTES) -> DataFrame:
    """Replace `values` by the text of each field of an event, and by `is_plain`.

    The texts of a plain row mean what is written, and have no more than `most` bytes together: nothing about them has
    to be looked at one by one, which costs more than all else.

    Args:
        rows: as jobs.raw_rows.read_rows returns them.
        source: the meaning of their values.
        most: bytes of the texts of a plain row.
    """
    ids = {"user_id": source.user_id, "item_id": source.item_id, "category_id": source.category_id}
    others = {"query": source.query, "time_text": source.time.column, "price_text": source.price}
    place = [name for name in rows.columns if name != "values"]
    # A column may be an id and something else.
    id_columns = columns_of(ids.values())
    text_columns = columns_of([*others.values(), source.behavior.column])
    id_names = [f"id{n}" for n in range(len(id_columns))]
    text_names = [f"text{n}" for n in range(len(text_columns))]
    names = [*id_names, *text_names]
    written = zip([*id_columns.values(), *text_columns.values()], names, strict=True)
    rows = rows.select(*place, *(text.alias(name) for text, name in written))

    # Each text has its place, and a line feed in one is one too many.
    joined = F.concat_ws("\n", *(F.coalesce(name, F.lit("")) for name in names))
    pattern = "\n".join([plain_text(source, is_id=True)] * len(id_names) + [plain_text(source)] * len(text_names))
    is_plain = (F.octet_length(joined) <= most) & joined.rlike(rf"(?m)\A{pattern}\z")
    raw = raw_text(rows)

    def cleaned(text: Column, *, is_id: bool = False) -> Column:
        """Return a text in one form, without what surrounds it, and whether it means no value."""
        bare = in_one_form(F.trim(text, F.lit(SURROUNDING)))
        is_none = (bare == "") | bare.rlike(source.null_pattern())
        content = id_value(bare, source, raw) if is_id else bare
        # Of a row that is not plain, most texts are.
        as_it_is = text.rlike(rf"(?m)\A{plain_text(source, is_id=is_id)}\z")
        return F.struct(
            F.when(as_it_is, text).otherwise(content).alias("text"),
            F.when(as_it_is, text == "").otherwise(is_none).alias("is_none"),
        )

    # Of the few other rows, as expressions over lists. Spark does not write these into the code for all rows, where
    # they would be more than all else together, and longer than what Java compiles; see lake/session.py.
    ids_of_odd = F.transform(F.array(*id_names), lambda text: cleaned(text, is_id=True))
    texts_of_odd = F.transform(F.array(*text_names), lambda text: cleaned(text))
    odd = F.when(~is_plain, F.struct(ids_of_odd.alias("ids"), texts_of_odd.alias("texts")))
    rows = rows.select(*place, *names, odd.alias("odd"))
    is_plain = F.col("odd").isNull()

    def of_all(columns: Iterable[str], names: list[str], kind: str) -> tuple[dict[str, Column], dict[str, Column]]:
        """Return the texts of columns as they are written, and those that are values."""
        as_written, known = {}, {}
        for n, (column, name) in enumerate(zip(columns, names, strict=True)):
            found, plain = F.get(F.col("odd")[kind], F.lit(n)), F.col(name)
            as_written[column] = F.when(is_plain, plain).otherwise(found["text"])
            of_odd = F.when(~found["is_none"], found["text"])
            known[column] = F.when(is_plain, F.nullif(plain, F.lit(""))).otherwise(of_odd)
        return as_written, known

    _, known_ids = of_all(id_columns, id_names, "ids")
    as_written, known = of_all(text_columns, text_names, "texts")
    behavior = text_value(source.behavior.column, as_written)
    return rows.select(
        *place,
        is_plain.alias("is_plain"),
        *(text_value(value, known_ids).alias(name) for name, value in ids.items()),
        *(text_value(value, known).alias(name) for name, value in others.items()),
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


def end_of_landing_day(source: Source) -> Column:
    """Return the instant at which the day of a row's folder, `landed`, ends in the zone of the source's folders.

    Where clocks are put forward at midnight, the next day begins at that instant; where they are put back to midnight,
    at the first of the two.
    """
    midnight = F.date_add("landed", 1).cast("timestamp")
    return midnight if source.folder_zone == "UTC" else F.to_utc_timestamp(midnight, source.folder_zone)


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
    most = min(config.max_field_length, MAX_ID_BYTES)
    rows = texts_of(rows.select(*place, "instant", "values"), source, most)
    rows = rows.select(
        *place,
        "is_plain",
        *ids,
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
    too_long = F.greatest(*map(F.length, texts)) > config.max_field_length
    needs_item = F.col("behavior") != "search"
    applies = {
        "undecodable": F.col("undecodable"),
        "malformed_line": F.col("malformed"),
        "field_too_long": ~F.col("is_plain") & too_long,
        "missing_time": F.col("lacks_time"),
        "unparsable_time": F.col("event_time").isNull(),
        "time_before_floor": F.col("event_time") < F.lit(config.time_floor).cast("timestamp"),
        **too_late(config),
        "time_after_landing": F.col("event_time") >= end_of_landing_day(source),
        "missing_user": F.col("user_id").isNull(),
        "unknown_behavior": F.col("behavior").isNull(),
        "missing_item": needs_item & F.col("item_id").isNull(),
        "invalid_price": F.col("has_price") & F.col("price").isNull(),
        "negative_price": F.col("price") < 0,
    }
    found = {code: F.when(condition, F.lit(code)) for code, condition in applies.items()}
    found |= {code: F.when(~F.col("is_plain"), reason) for code, reason in text_reasons().items()}
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
