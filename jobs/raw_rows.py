"""Read landing files by their source: every input row once, as text, with the values of its columns.

Rows are not validated here, and only header lines and the lines above them are dropped: jobs/rejections.py classifies
rows, and jobs/landing_files.py has checked the files.
"""

import re
from collections.abc import Callable, Sequence
from functools import reduce
from uuid import uuid4

from pyspark.sql import Column, DataFrame, SparkSession, Window
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, BinaryType, DataType, MapType, StringType, StructField, StructType

from jobs.landing_files import (
    LINE_BYTES,
    LandingFiles,
    Layout,
    ParquetLayout,
    check_files,
    day_and_name,
    days_of,
    end_of_line,
)
from jobs.long_lines import by_reader
from jobs.python_rows import read_lines
from jobs.source import Source, quoted
from lake import storage

# What is kept of a longer line, for the quarantine: at least 4,096 characters.
KEPT_BYTES = 1 << 14
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
BROKEN = "_broken"

# Escapes of JSON for one half of a character beyond U+FFFF, without the other half. A backslash that is escaped itself
# begins no escape, so the number of backslashes has to be odd. Java's lookbehind needs a limit, here of nine pairs.
HIGH, LOW = r"\\u[dD][89abAB]\p{XDigit}{2}", r"\\u[dD][c-fC-F]\p{XDigit}{2}"
PAIRS = r"(?<!\\)(?:\\\\)"
LONE_HALF = rf"({PAIRS}*){HIGH}(?!{LOW})|((?<!{PAIRS}{{0,9}}{HIGH}){PAIRS}*){LOW}"
# Stand for what a backslash has escaped while a line of CSV is parsed. No text of a log has these noncharacters.
ESCAPED_BACKSLASH, ESCAPED_QUOTE, ESCAPED_DELIMITER = "\ufdd0", "\ufdd1", "\ufdd2"
# Keys beside those of a line of JSON, for its end and for a line that cannot be parsed. No log has them: each process
# draws new ones.
END_KEY, BROKEN_KEY = (f"{word} {uuid4().hex[:12]}" for word in ("end", "broken"))


def read_rows(spark: SparkSession, source: Source, files: list[str]) -> DataFrame:
    """Return one row for each input row of some files, which are checked before; see `read_checked`.

    Raises:
        LandingUnreadable: a file cannot be opened.
        SourceMismatch: a file does not have the columns that its source declares.
    """
    return read_checked(spark, source, check_files(source, files))


def read_checked(spark: SparkSession, source: Source, found: LandingFiles) -> DataFrame:
    """Return one row for each input row of files that were checked; one for each element of its list (`each`).

    Columns: `landed` date, `file` string, `whole_file` boolean (one task reads the file from start to end, so that
    lines can be counted by `position`, a rising number), `lines_above` int (lines of the file above its first row),
    `raw` string, `undecodable` and `malformed` booleans, and `values`, a struct of strings, one for each column that
    the source uses. Where all files are Parquet of the same types, `raw` is the row itself, a struct: to write it as
    text costs more than all else, and few rows need it. Without files there are no rows.

    Raises:
        LandingUnreadable: a file cannot be read to its end.
    """
    frames = [read_text(spark, source, layout, names) for layout, names in by_reader(spark, found).items()]
    frames += [read_parquet_rows(spark, source, layout, names) for layout, names in found.parquet.items()]
    if found.tables:
        # Python reads its rows as lines of JSON.
        as_lines = source.model_copy(update={"format": "jsonl", "multiline": False})
        frames.append(read_text(spark, as_lines, Layout("UTF-8", by_python=True), found.tables))
    if not frames:
        values = ", ".join(f"{quoted(name)}: string" for name in source.used_columns)
        return spark.createDataFrame(
            [],
            "landed date, file string, whole_file boolean, position bigint, lines_above int, raw string, "
            f"undecodable boolean, malformed boolean, instant timestamp, values struct<{values}>",
        )
    if len(frames) > 1:
        frames = [frame.withColumn("raw", raw_text(frame)) for frame in frames]
    return reduce(DataFrame.unionByName, frames)


def raw_text(rows: DataFrame) -> Column:
    """Return the text of each row, as `read_rows` returns them; of Parquet it is the row as JSON.

    Bytes are texts there, as they are among the values of a row: as base64 they would hide what stands around an id,
    and whose a row is.
    """
    kind = rows.schema["raw"].dataType
    return F.to_json(F.col("raw").cast(with_texts(kind))) if isinstance(kind, StructType) else F.col("raw")


def with_texts(kind: DataType) -> DataType:
    """Return a type with texts in place of bytes, also inside of it."""
    if isinstance(kind, StructType):
        return StructType([StructField(field.name, with_texts(field.dataType)) for field in kind.fields])
    if isinstance(kind, ArrayType):
        return ArrayType(with_texts(kind.elementType))
    if isinstance(kind, MapType):
        return MapType(with_texts(kind.keyType), with_texts(kind.valueType))
    return StringType() if isinstance(kind, BinaryType) else kind


def spark_name(file: str) -> str:
    r"""Return the name by which Spark reads exactly this file; `log [1].csv` would be a pattern for `log 1.csv`.

    >>> print(spark_name("s3://shop/log [1].csv"))
    s3a://shop/log \[1\].csv
    """
    return re.sub(r"([\\{}\[\]*?])", r"\\\1", storage.spark_path(file))


def file_address(files: list[str]) -> Column:
    """Return the address of the row's file, one of some, for people: only Hadoop writes s3a for S3."""
    path = F.col("_metadata.file_path")
    if not any(file.startswith("s3://") for file in files):
        return path
    return F.when(path.startswith("s3a://"), F.overlay(path, F.lit("s3://"), 1, len("s3a://"))).otherwise(path)


def landed_day(files: list[str]) -> Column:
    """Return the landing day, from the `dt=` folder of the row's file, one of some."""
    days = days_of(files)
    # Mostly there is one, and to look for it in each row's path costs as much as to judge the row's price.
    if len(days) == 1:
        return F.lit(days[0])
    return F.to_date(F.regexp_extract("_metadata.file_path", r"/dt=(\d{4}-\d{2}-\d{2})/", 1))


def read_text(spark: SparkSession, source: Source, layout: Layout, files: list[str]) -> DataFrame:
    """Read files of one record a line, all laid out in the same way."""
    lines = python_lines(spark, source, layout, files) if layout.by_python else spark_lines(spark, layout, files)
    # A file that has one is read by Python, which keeps no more of it; its many copies from here on are shorter still.
    too_long = F.octet_length("value") > LINE_BYTES
    content = F.col("value").cast("binary")
    cut = F.when(too_long, F.substring(content, 1, KEPT_BYTES)).otherwise(content)
    # Undecodable bytes become U+FFFD (lake/session.py sets that), so that one broken row stays one broken row.
    raw = F.decode(cut, layout.charset)
    # The replacement character may also be in the file itself; and the cut may be inside a character.
    undecodable = ~too_long & F.contains(raw, F.lit(REPLACEMENT)) & (F.encode(raw, layout.charset) != content)
    if layout.charset == "UTF-8":
        # Nearly each line is as it is, and to look whether it is costs less than to decode it.
        is_text = F.is_valid_utf8("value")
        raw, undecodable = F.when(~too_long & is_text, F.col("value")).otherwise(raw), ~too_long & ~is_text
    if layout.charset.startswith("UTF-16"):
        # What stands around a line is taken off by its reader only where it is UTF-8.
        raw = F.rtrim(F.ltrim(raw, F.lit("\ufeff")), F.lit("\r"))
    lines = lines.select(
        too_long.alias("too_long"),
        *("landed", "file", "whole_file", "block", "position"),
        F.lit(layout.lines_above).alias("lines_above"),
        raw.alias("raw"),
        undecodable.alias("undecodable"),
    )
    if layout.header is not None:
        lines = lines.where(F.col("raw") != layout.header)
    if layout.preamble:
        lines = lines.where((F.col("block") > 0) | ~F.col("raw").isin(*layout.preamble))
    if source.multiline:
        lines = join_lines(lines, source.quote)
    parsed, values, complete = csv_values(source, layout) if source.format == "csv" else json_values(source)
    lines = lines.withColumn("parsed", parsed)
    lines = with_elements(lines, json_row(), source.lists)
    if source.split:
        lines, values, is_whole = with_parts(lines, values, source)
        complete = complete & is_whole
    return lines.select(
        "landed",
        "file",
        "whole_file",
        "position",
        "lines_above",
        "raw",
        "undecodable",
        (F.col("too_long") | ~complete).alias("malformed"),
        F.lit(None).cast("timestamp").alias("instant"),
        F.struct(*(values(name).alias(name) for name in source.used_columns)).alias("values"),
    )


def spark_lines(spark: SparkSession, layout: Layout, files: list[str]) -> DataFrame:
    """Return the lines of files that Spark reads: `value`, with their place."""
    reader = spark.read
    if layout.charset.startswith("UTF-16"):
        # Spark knows the end of a line by its bytes.
        reader = reader.option("encoding", layout.charset).option("lineSep", "\n")
    whole_file = F.col("_metadata.file_block_length") == F.col("_metadata.file_size")
    return reader.text([spark_name(file) for file in files]).select(
        "value",
        landed_day(files).alias("landed"),
        file_address(files).alias("file"),
        whole_file.alias("whole_file"),
        F.col("_metadata.file_block_start").alias("block"),
        # Rising within a file that one task reads from start to end; ingest turns it into a line number.
        F.monotonically_increasing_id().alias("position"),
    )


def python_lines(spark: SparkSession, source: Source, layout: Layout, files: list[str]) -> DataFrame:
    """Return the lines of files that Python reads, as `spark_lines`."""
    ids = [name for value in (source.user_id, source.item_id, source.category_id) if value for name in value.columns]
    days = [day_and_name(file)[0] for file in files]
    # Of a line that is too long, what tells so is enough.
    most, end = LINE_BYTES + 1, end_of_line(layout.charset)
    lines = read_lines(spark, files, days, most, end, source.file_columns, ids, layout.array)
    return lines.select(
        F.col("value").cast("string").alias("value"),
        *("landed", "file"),
        F.lit(True).alias("whole_file"),
        F.lit(0).cast("bigint").alias("block"),
        "position",
    )


def join_lines(lines: DataFrame, quote: str) -> DataFrame:
    """Join the lines of each record whose quotes are still open at the end of a line."""
    # A quote inside of quotes is doubled, so that only the number of quotes counts, be it even or odd.
    in_order = Window.partitionBy("file").orderBy("block", "position")
    quotes = F.length("raw") - F.length(F.replace("raw", F.lit(quote), F.lit("")))
    earlier, until_here = (in_order.rowsBetween(Window.unboundedPreceding, last) for last in (-1, 0))
    before = F.coalesce(F.sum(quotes).over(earlier), F.lit(0))
    size = F.octet_length("raw")
    starts = lines.withColumns({"starts": before % 2 == 0, "at": F.coalesce(F.sum(size + 1).over(earlier), F.lit(0))})
    numbered = starts.withColumns(
        {
            "record": F.count_if("starts").over(until_here),
            # Places rise, so that the greatest one is that of the newest start.
            "within": F.col("at") - F.coalesce(F.max(F.when(F.col("starts"), F.col("at"))).over(until_here), F.lit(0)),
        }
    )
    # One quote too few makes all that follows one record: no more of it is taken into memory than of a long line.
    part = F.when(F.col("within") <= LINE_BYTES, F.struct("block", "position", "raw"))
    joined = numbered.groupBy("file", "record").agg(
        F.array_sort(F.collect_list(part)).alias("parts"),
        F.max(F.col("within") + size).alias("bytes"),
        F.bool_or("undecodable").alias("undecodable"),
        F.bool_or("too_long").alias("too_long"),
        F.bool_and("whole_file").alias("whole_file"),
        *(F.min(name).alias(name) for name in ("landed", "position", "lines_above")),
    )
    raw = F.array_join("parts.raw", "\n")
    too_long = F.col("too_long") | (F.col("bytes") > LINE_BYTES)
    return joined.withColumns(
        {"raw": F.when(too_long, F.left(raw, F.lit(KEPT_BYTES))).otherwise(raw), "too_long": too_long}
    )


def csv_values(source: Source, layout: Layout) -> tuple[Column, Callable[[str], Column], Column]:
    """Return the parsed line, a function from a column's name to its value, and whether the line is complete."""
    # Numbered, since a shop may have any names for its columns.
    fields = {name: f"c{n}" for n, name in reversed(list(enumerate(layout.names)))}
    schema = ", ".join([*(f"c{n} string" for n in range(len(layout.names))), f"{BROKEN} string"])
    # A quote inside a quoted field is doubled (RFC 4180): without `escape`, Spark would want a backslash.
    options = {"sep": source.delimiter, "quote": source.quote, "escape": source.quote}
    # Spark's parser takes U+FFFF for the end of all lines, and would lose the beginning of the next one.
    line = F.replace("raw", F.lit("\uffff"), F.lit(REPLACEMENT))
    escapes = [("\\\\", ESCAPED_BACKSLASH, "\\"), (f"\\{source.quote}", ESCAPED_QUOTE, source.quote)]
    escapes.append((f"\\{source.delimiter}", ESCAPED_DELIMITER, source.delimiter))
    escaped = F.lit(False)
    if source.escape == "backslash":
        escaped = F.col("raw").contains("\\")
        # Pairs of backslashes come first, so that what is left of a run begins an escape. Spark's parser would know
        # escapes inside of quotes alone.
        hidden = reduce(lambda text, each: F.replace(text, F.lit(each[0]), F.lit(each[1])), escapes, line)
        line = F.when(escaped, hidden).otherwise(line)

    def value(name: str) -> Column:
        if name not in fields:
            return F.lit(None).cast("string")
        found = F.col("parsed")[fields[name]]
        if source.escape != "backslash":
            return found
        shown = reduce(lambda text, each: F.replace(text, F.lit(each[1]), F.lit(each[2])), escapes, found)
        return F.when(escaped, shown).otherwise(found)

    parser = {"mode": "PERMISSIVE", "columnNameOfCorruptRecord": BROKEN}
    parsed = F.from_csv(line, schema, {**parser, **options})
    # Of a line that is broken, the parser keeps the text.
    is_parsed = F.col("parsed").isNotNull() & F.col("parsed")[BROKEN].isNull()
    return parsed, value, is_parsed & (F.trim("raw") != "")


def json_values(source: Source) -> tuple[Column, Callable[[str], Column], Column]:
    """Return the parsed line, a function from a column's name to its value, and whether the line is complete."""
    options = {"mode": "PERMISSIVE", "columnNameOfCorruptRecord": BROKEN_KEY}
    wanted = object_type([path for name in source.file_columns for path in paths(name)], source.lists)
    schema = StructType([*wanted.fields, StructField(END_KEY, StringType()), StructField(BROKEN_KEY, StringType())])
    row = json_row()

    def value(name: str) -> Column:
        return F.coalesce(*(follow_row(row, path, source.lists) for path in paths(name)))

    # Spark interprets this expression for each line, and does not compile it.
    line = without_lone_halves(with_end(F.col("raw")), F.col("raw"))
    return F.from_json(line, schema, options), value, row.isNotNull() & row[BROKEN_KEY].isNull()


def with_end(raw: Column) -> Column:
    """Return a line of JSON with one more key before its last bracket; null if it does not end with one.

    Spark reads the first object of a line and drops the rest. The key is one of that object only if the object ends
    where the line does. A frame around the line would tell that too, by a list and an object more around each line.
    """
    bare = F.when(raw.endswith("}"), raw).otherwise(F.rtrim(raw, F.lit(" \t\r\n")))
    # As bytes, since the last character of a text is found by counting all of them.
    content = F.substring(bare.cast("binary"), F.lit(1), F.octet_length(bare) - 1)
    after_others, alone = (F.concat(content, F.lit(f'{comma}"{END_KEY}":""}}'.encode())) for comma in (",", ""))
    # Without a colon there is no other key. Of a number, Spark would print the text anew.
    ended = F.when(raw.contains(":"), after_others).otherwise(alone).cast("string")
    return F.when(bare.endswith("}"), ended)


def json_row() -> Column:
    """Return the object that a line of JSON is. Of a line that is more than one object nothing is known."""
    parsed = F.col("parsed")
    return F.when(parsed[END_KEY].isNotNull(), parsed)


def paths(name: str) -> list[list[str]]:
    """Return the ways in which an object may hold a column: as a key with dots in it, or inside of other objects.

    >>> paths("properties.product_id")
    [['properties.product_id'], ['properties', 'product_id']]
    """
    return [[name], name.split(".")] if "." in name else [[name]]


def object_type(wanted: list[list[str]], each: Sequence[str], prefix: tuple[str, ...] = ()) -> StructType:
    """Return the type of an object that holds a text at each of some paths; numbers in a path lead into lists."""
    inside: dict[str, list[list[str]]] = {}
    for path in wanted:
        inside.setdefault(path[0], []).append(path[1:])
    fields = []
    for key, rests in inside.items():
        deeper = [rest for rest in rests if rest]
        at = (*prefix, key)
        of: DataType = ArrayType(StringType()) if ".".join(at) in each else StringType()
        if deeper:
            is_list = ".".join(at) in each or any(rest[0].isdigit() for rest in deeper)
            if is_list:
                deeper = [rest[1:] if rest[0].isdigit() else rest for rest in deeper]
                deeper = [rest for rest in deeper if rest]
            of = object_type(deeper, each, at) if deeper else StringType()
            of = ArrayType(of) if is_list else of
        fields.append(StructField(key, of))
    return StructType(fields)


def follow(part: Column, path: list[str]) -> Column:
    """Return what a path leads to; a number leads to an element of a list, from 0."""
    for step in path:
        part = F.get(part, F.lit(int(step))) if step.isdigit() else part.getField(step)
    return part


def with_elements(rows: DataFrame, row: Column, each: Sequence[str]) -> DataFrame:
    """Return a row for each element of a list, and for each element of the lists in it; one row for an empty list.

    Args:
        rows: of the log.
        row: their column that has the lists.
        each: the paths of the lists, each one inside of an element of the one before.
    """
    for n, name in enumerate(each):
        # By the element of the list before, where there is one.
        elements = follow_row(row, name.split("."), each[:n])
        rows = rows.withColumn(f"element{n}", F.explode_outer(elements))
    return rows


def with_parts(
    rows: DataFrame, values: Callable[[str], Column], source: Source
) -> tuple[DataFrame, Callable[[str], Column], Column]:
    """Return a row for each element of a list that is one text, the function that gives its values, and if it is whole.

    A text without an element gives one row without it, and so does one that is not a whole list of JSON.

    Args:
        rows: of the log.
        values: gives the text of a column of these rows.
        source: says how the text is split.
    """
    (name,) = source.each
    if source.split == "json":
        inside = [column.removeprefix(f"{name}.") for column in source.used_columns if column.startswith(f"{name}.")]
        of = object_type([column.split(".") for column in inside], ()) if inside else StringType()
        rows = rows.withColumn("listed", json_list(values(name), of, source))
        parts, is_whole = F.col("listed.parts"), F.col("listed.is_whole")
    else:
        parts = F.filter(F.split(values(name), rf"\Q{source.split}\E"), lambda part: F.trim(part) != "")
        is_whole = F.lit(True)
    rows = rows.withColumn("element0", F.explode_outer(parts))

    def value(column: str) -> Column:
        if source.file_column(column) != name:
            return values(column)
        return follow_row(F.lit(None), column.split("."), source.each)

    return rows, value, is_whole


def json_list(text: Column, of: DataType, source: Source) -> Column:
    """Return the elements of a text that is a list of JSON, `parts`, and whether it is one from end to end, `is_whole`.

    One object is a list of one. No text, and a word that means no value, is a list without an element.

    Args:
        text: of each row.
        of: the type of an element.
        source: has the words.
    """
    bare = F.trim(text)
    is_none = F.coalesce((bare == "") | bare.rlike(source.null_pattern()), F.lit(True))
    is_object = text.rlike(r"^\s*\{")
    # In a frame, with a key after it: without one, Spark would drop what follows the first list.
    schema = StructType(
        [
            StructField("lists", ArrayType(ArrayType(of))),
            StructField("end", StringType()),
            StructField(BROKEN, StringType()),
        ]
    )
    content = without_lone_halves(text, text)
    content = F.when(is_object, F.concat(F.lit("["), content, F.lit("]"))).otherwise(content)
    framed = F.concat(F.lit('{"lists":['), content, F.lit('],"end":1}'))
    options = {"mode": "PERMISSIVE", "columnNameOfCorruptRecord": BROKEN}

    def judged(found: Column) -> Column:
        parts = F.get(found["lists"], F.lit(0))
        is_one = (F.size(found["lists"]) == 1) & (~is_object | (F.size(parts) == 1))
        is_whole = is_none | F.coalesce(found[BROKEN].isNull() & found["end"].isNotNull() & is_one, F.lit(False))
        return F.struct(F.when(is_whole & ~is_none, parts).alias("parts"), is_whole.alias("is_whole"))

    # As the only element of a list, so that the text is parsed once for all that is asked of it.
    return F.get(F.transform(F.array(F.from_json(framed, schema, options)), judged), F.lit(0))


def follow_row(row: Column, path: list[str], each: Sequence[str]) -> Column:
    """Return what a path leads to: from the element of the innermost of a row's lists through which the path goes."""
    for n, through in reversed(list(enumerate(name.split(".") for name in each))):
        if path[: len(through)] == through:
            return follow(F.col(f"element{n}"), path[len(through) :])
    return follow(row, path)


def without_lone_halves(line: Column, raw: Column) -> Column:
    """Replace, in a line of JSON, each escape for a lone half of a character by U+FFFD, which no id may hold.

    Spark would read it as a question mark, so that users with different ids would become one.

    Args:
        line: made of `raw`, with the same escapes.
        raw: the text in which escapes are looked for.
    """
    # Hardly any line has such an escape, and to look for the first letters costs less than the pattern.
    has_halves = raw.contains("\\") & (raw.contains(r"\ud") | raw.contains(r"\uD"))
    return F.when(has_halves, F.regexp_replace(line, LONE_HALF, r"$1$2\\ufffd")).otherwise(line)


def read_parquet_rows(spark: SparkSession, source: Source, layout: ParquetLayout, files: list[str]) -> DataFrame:
    """Read Parquet files of the same types; `raw` is the row."""
    rows = spark.read.parquet(*(spark_name(file) for file in files))
    kinds, names = dict(layout.kinds), set(rows.columns)
    rows = rows.select(landed_day(files).alias("landed"), file_address(files).alias("file"), F.struct("*").alias("raw"))
    rows = with_elements(rows, F.col("raw"), source.lists)
    time = time_alone(source)
    instant = time if kinds.get(time, "").startswith("instant") and "iso8601" in source.time.formats else ""

    def at(name: str) -> Column:
        path = [name] if name in names else name.split(".")
        return follow_row(F.col("raw"), path, source.lists)

    def text(name: str) -> Column:
        if name not in kinds or kinds[name] == "nothing" or name == instant:
            return F.lit(None).cast("string")
        if kinds[name] == "other":
            # As a log of JSON has it: an expression reads both in the same way.
            whole = rows.select(at(name).alias(name)).schema[name].dataType
            if isinstance(whole, ArrayType | MapType | StructType):
                return F.to_json(at(name).cast(with_texts(whole)))
        return parquet_text(at(name), name, kinds[name], source)

    value: Callable[[str], Column] = text
    is_whole = F.lit(True)
    if source.split:
        rows, value, is_whole = with_parts(rows, text, source)
    values = [value(name).alias(name) for name in source.used_columns]
    return rows.select(
        "landed",
        "file",
        F.lit(False).alias("whole_file"),
        F.lit(0).cast("bigint").alias("position"),
        F.lit(0).alias("lines_above"),
        "raw",
        F.lit(False).alias("undecodable"),
        (~is_whole).alias("malformed"),
        (in_micros(at(instant), kinds[instant]) if instant else F.lit(None).cast("timestamp")).alias("instant"),
        F.struct(*values).alias("values"),
    )


def time_alone(source: Source) -> str:
    """Return the column of the time, if it is one column that the source reads for nothing else; otherwise empty."""
    time = source.time.column
    uses = [name for value in (*source.required, *source.optional) for name in value.columns]
    is_alone = time.sql is None and len(time.columns) == 1 and uses.count(time.columns[0]) == 1
    return time.columns[0] if is_alone else ""


def in_micros(value: Column, kind: str) -> Column:
    """Return a value of a Parquet column without nanoseconds, which the session reads as numbers (lake/session.py)."""
    if not kind.endswith("in nanoseconds"):
        return value
    return F.timestamp_micros(F.floor(value.cast("decimal(20, 0)") / 1000).cast("bigint"))


def parquet_text(value: Column, name: str, kind: str, source: Source) -> Column:
    """Return a value of a Parquet column as the text that a log of text would have."""
    value = in_micros(value, kind)
    text = value.cast("string")
    # Such a column holds instants, which the session writes in UTC; wall-clock times are timestamp_ntz.
    if kind.startswith("instant") and "iso8601" in source.time.formats:
        return F.concat(text, F.lit("Z"))
    if kind == "fraction" and name in source.time.column.columns:
        return value.cast("decimal(24, 6)").cast("string")
    ids = [each for each in (source.user_id, source.item_id, source.category_id) if each]
    if kind == "fraction" and any(name in each.columns for each in ids):
        # Beyond 2^53 a fraction cannot tell one whole number from the next.
        exact = (value == F.floor(value)) & (F.abs(value) <= (1 << 53))
        rounded = F.when(F.contains(text, F.lit("E")), text).otherwise(F.concat(text, F.lit("E+0")))
        return F.when(exact, value.cast("bigint").cast("string")).when(~F.isnan(value), rounded)
    return text
