"""Read landing files by their source: every input row once, as text, with the values of its columns.

Rows are not validated here, and only header lines are dropped: jobs/rejections.py classifies rows. *Files* are
validated: one that cannot be opened, or does not have the columns that its source declares, fails the run.
"""

import codecs
import json
import re
import zlib
from concurrent.futures import ThreadPoolExecutor
from functools import reduce
from itertools import pairwise

import fsspec
import pyarrow.parquet as pq
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import TimestampType

from jobs.source import Source, quoted
from lake import storage
from lake.errors import LandingUnreadable, SourceMismatch

# The lines by which a file without a header is checked against its source: a few of them may be broken.
SAMPLE_LINES = 100
# The longest line, in bytes; a file is checked by no more of it than that, decompressed.
LINE_BYTES = 1 << 20
# What is kept of a longer line, for the quarantine: at least 4,096 characters.
KEPT_BYTES = 1 << 14
# Characters of a line's shape that a message shows.
SHOWN = 300
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
BROKEN = "_broken"

# Escapes of JSON for one half of a character beyond U+FFFF, without the other half. A backslash that is escaped itself
# begins no escape, so the number of backslashes has to be odd. Java's lookbehind needs a limit, here of nine pairs.
HIGH, LOW = r"\\u[dD][89abAB]\p{XDigit}{2}", r"\\u[dD][c-fC-F]\p{XDigit}{2}"
PAIRS = r"(?<!\\)(?:\\\\)"
LONE_HALF = rf"({PAIRS}*){HIGH}(?!{LOW})|((?<!{PAIRS}{{0,9}}{HIGH}){PAIRS}*){LOW}"


def read_rows(spark: SparkSession, source: Source, files: list[str]) -> DataFrame:
    """Return one row for each input row.

    Columns: `landed` date, `file` string, `whole_file` boolean (one task reads the file from start to end, so that
    lines can be counted by `position`, a rising number), `raw` string, `undecodable` and `malformed` booleans, and
    `values`, a struct of strings, one for each column that the source uses. Without files there are no rows.

    Raises:
        LandingUnreadable: a file cannot be opened.
        SourceMismatch: a file does not have the columns that its source declares.
    """
    check_files(source, files)
    parquet = [file for file in files if is_parquet(file)]
    text = [file for file in files if not is_parquet(file)]
    frames = []
    if text:
        frames.append(read_text(spark, source, text))
    if parquet:
        frames.append(read_parquet_rows(spark, source, parquet))
    if not frames:
        values = ", ".join(f"{quoted(name)}: string" for name in source.used_columns)
        return spark.createDataFrame(
            [],
            "landed date, file string, whole_file boolean, position bigint, raw string, undecodable boolean, "
            f"malformed boolean, values struct<{values}>",
        )
    return reduce(DataFrame.unionByName, frames)


def is_parquet(file: str) -> bool:
    """Return whether a file is Parquet, by its name."""
    return file.endswith(".parquet")


def spark_name(file: str) -> str:
    r"""Return the name by which Spark reads exactly this file; `log [1].csv` would be a pattern for `log 1.csv`.

    >>> print(spark_name("s3://shop/log [1].csv"))
    s3a://shop/log \[1\].csv
    """
    return re.sub(r"([\\{}\[\]*?])", r"\\\1", storage.spark_path(file))


def file_address() -> Column:
    """Return the address of the row's file for people: only Hadoop writes s3a for S3."""
    return F.regexp_replace("_metadata.file_path", "^s3a://", "s3://")


def landed_day() -> Column:
    """Return the landing day, from the `dt=` folder of the row's file."""
    return F.to_date(F.regexp_extract("_metadata.file_path", r"/dt=(\d{4}-\d{2}-\d{2})/", 1))


def read_text(spark: SparkSession, source: Source, files: list[str]) -> DataFrame:
    """Read files of one record a line."""
    whole_file = F.col("_metadata.file_block_length") == F.col("_metadata.file_size")
    # Spark reads a line whole, however long it is; its many copies from here on are cut.
    too_long = F.octet_length("value") > LINE_BYTES
    content = F.col("value").cast("binary")
    lines = spark.read.text([spark_name(file) for file in files]).select(
        too_long.alias("too_long"),
        landed_day().alias("landed"),
        file_address().alias("file"),
        whole_file.alias("whole_file"),
        # Rising within a file that one task reads from start to end; ingest turns it into a line number.
        F.monotonically_increasing_id().alias("position"),
        # Undecodable bytes become U+FFFD (lake/session.py sets that), so that one broken row stays one broken row.
        F.decode(F.when(too_long, F.substring(content, 1, KEPT_BYTES)).otherwise(content), source.encoding).alias(
            "raw"
        ),
    )
    if source.format == "csv" and source.header:
        lines = lines.where(F.col("raw") != source.delimiter.join(source.columns))
    # Names are quoted: a shop may have any column names.
    options = {"mode": "PERMISSIVE", "columnNameOfCorruptRecord": BROKEN}
    if source.format == "csv":
        schema = ", ".join(f"{quoted(name)} string" for name in [*source.columns, BROKEN])
        # A quote inside a quoted field is doubled (RFC 4180): without `escape`, Spark would want a backslash.
        csv = {"sep": source.delimiter, "quote": source.quote, "escape": source.quote}
        # Spark's parser takes U+FFFF for the end of all lines, and would lose the beginning of the next one.
        parsed = F.from_csv(F.replace("raw", F.lit("\uffff"), F.lit(REPLACEMENT)), schema, {**options, **csv})
        values, complete = "parsed", F.trim("raw") != ""
    else:
        # Spark would read the first object of a line and drop the rest. As a value inside another object, with a key
        # after it, a line is read only if it is one object from its first to its last character.
        schema = ", ".join(f"{quoted(name)}: string" for name in source.used_columns)
        framed = F.concat(F.lit('{"line":'), without_lone_halves(F.col("raw")), F.lit(',"end":1}'))
        parsed = F.from_json(framed, f"line struct<{schema}>, end string, {BROKEN} string", options)
        values, complete = "parsed.line", F.col("parsed.line").isNotNull() & F.col("parsed.end").isNotNull()
    return lines.withColumn("parsed", parsed).select(
        "landed",
        "file",
        "whole_file",
        "position",
        "raw",
        # The cut may be inside a character.
        (~F.col("too_long") & F.contains("raw", F.lit(REPLACEMENT))).alias("undecodable"),
        (F.col("too_long") | F.col(f"parsed.{BROKEN}").isNotNull() | F.col("parsed").isNull() | ~complete).alias(
            "malformed"
        ),
        F.struct(*(F.col(f"{values}.{quoted(name)}").alias(name) for name in source.used_columns)).alias("values"),
    )


def without_lone_halves(raw: Column) -> Column:
    """Replace, in a line of JSON, each lone half of a character by U+FFFD, which no id may hold.

    Spark would read it as a question mark, so that users with different ids would become one.
    """
    # Hardly any line has such an escape, and to look for the first letters costs less than the expression.
    has_halves = raw.contains(r"\ud") | raw.contains(r"\uD")
    return F.when(has_halves, F.regexp_replace(raw, LONE_HALF, r"$1$2\\ufffd")).otherwise(raw)


def read_parquet_rows(spark: SparkSession, source: Source, files: list[str]) -> DataFrame:
    """Read Parquet files; the row as JSON is its raw text."""
    rows = spark.read.parquet(*(spark_name(file) for file in files))

    def text(name: str) -> Column:
        if name not in rows.columns:
            return F.lit(None).cast("string")
        value = F.col(quoted(name)).cast("string")
        # Such a column holds instants, which the session writes in UTC; wall-clock times are timestamp_ntz.
        is_instant = rows.schema[name].dataType == TimestampType() and source.time.format == "iso8601"
        return F.concat(value, F.lit("Z")) if is_instant else value

    values = [text(name).alias(name) for name in source.used_columns]
    return rows.select(
        landed_day().alias("landed"),
        file_address().alias("file"),
        F.lit(False).alias("whole_file"),
        F.lit(0).cast("bigint").alias("position"),
        F.to_json(F.struct(*(F.col(quoted(name)) for name in rows.columns))).alias("raw"),
        F.lit(False).alias("undecodable"),
        F.lit(False).alias("malformed"),
        F.struct(*values).alias("values"),
    )


def check_files(source: Source, files: list[str]) -> None:
    """Check the beginning of every file, before Spark reads any.

    Raises:
        LandingUnreadable, SourceMismatch: see `read_rows`.
    """
    text = [file for file in files if not is_parquet(file)]
    if text and source.format == "parquet":
        raise SourceMismatch(f"{text[0]}: source {source.name} expects files that end in .parquet, found this one")
    with ThreadPoolExecutor(max_workers=16) as pool:
        list(pool.map(lambda file: check_text(source, file), text))
        kinds = list(pool.map(lambda file: check_parquet(source, file), [f for f in files if is_parquet(f)]))
    for other, (file, types) in pairwise(kinds):
        # Spark reads all files by the schema of one, so a column whose type differs between files has to fail here.
        if types != other[1]:
            raise SourceMismatch(f"{file}: column types {types} differ from those of {other[0]}, {other[1]}")


def first_lines(source: Source, file: str) -> list[str]:
    """Return the first lines of a text file, decompressed; undecodable bytes are replaced.

    A few kilobytes of a compressed file may be gigabytes, and one line. So no more than `LINE_BYTES` are read.

    Raises:
        LandingUnreadable: the file cannot be opened or decompressed, or its first line is too long.
    """
    try:
        with fsspec.open(file, "rb", compression="infer") as stream:
            head = stream.read(LINE_BYTES + len(b"\r\n"))
    except (OSError, EOFError, zlib.error) as error:
        raise LandingUnreadable(f"{file}: expected a readable file, found {type(error).__name__}: {error}") from error
    lines = head.removeprefix(codecs.BOM_UTF8).splitlines()
    if lines and len(lines[0]) > LINE_BYTES:
        raise LandingUnreadable(
            f"{file}: expected lines of at most {LINE_BYTES:,} bytes, found a first line that is longer; deliver the "
            "file as text of one record a line"
        )
    if len(lines) > 1 and len(head) > LINE_BYTES:
        lines = lines[:-1]  # only the beginning of it was read
    return [line.decode(source.encoding, errors="replace") for line in lines[:SAMPLE_LINES]]


def check_text(source: Source, file: str) -> None:
    """Check one CSV or JSON lines file against its source."""
    if fsspec.utils.infer_compression(file) and not file.endswith((".gz", ".bz2")):
        # fsspec could decompress it here, but Spark would read the compressed bytes as text.
        raise LandingUnreadable(
            f"{file}: expected plain text, or text in a .gz or .bz2, found another compression; unpack it"
        )
    lines = first_lines(source, file)
    if source.format == "csv" and source.header:
        expected = source.delimiter.join(source.columns)
        if not lines or lines[0] != expected:
            header = names_or_shape(lines[0].split(source.delimiter), lines[0]) if lines else "an empty file"
            raise SourceMismatch(f"{file}: source {source.name} expects the header line {expected!r}, found {header}")
    elif source.format == "csv" and lines:
        # An approximate count is enough here: a quoted delimiter can only make it larger.
        counts = [line.count(source.delimiter) + 1 for line in lines]
        if max(counts) < len(source.columns) or min(counts) > len(source.columns):
            raise SourceMismatch(
                f"{file}: source {source.name} expects {len(source.columns)} columns ({', '.join(source.columns)}), "
                f"found {counts[0]} in {shape(lines[0])}"
            )
    elif lines:
        required = set(source.required_columns)
        if not any(required <= json_keys(line) for line in lines):
            raise SourceMismatch(
                f"{file}: source {source.name} expects JSON lines with {', '.join(source.required_columns)}, "
                f"found {names_or_shape(sorted(json_keys(lines[0])), lines[0])}"
            )


def names_or_shape(names: list[str], line: str) -> str:
    """Return for a message what a line names as columns; only its shape, if it may be a row of the log."""
    # Each row has a time, and no time is a name: it begins with a digit, or has colons.
    is_head = bool(names) and all(re.sub(r"[ .-]", "_", name.strip(" \"'")).isidentifier() for name in names)
    return f"the names {', '.join(names)[:SHOWN]!r}" if is_head else shape(line)


def shape(line: str) -> str:
    """Return for a message how a line is built, without what it says: messages go to logs, alerts and chats.

    >>> print(shape("ann@example.org;2017-11-24;b7 x"))
    a line of 31 characters like 'a@a.a;9-9-9;x a' (9: digits, a: letters, x: both)
    """

    def kind(word: re.Match[str]) -> str:
        return "9" if word[0].isdigit() else "a" if word[0].isalpha() else "x"

    # All that is not ASCII counts as a part of words.
    like = re.sub(r"(?:\w|[^\x00-\x7f])+", kind, line)[:SHOWN]
    return f"a line of {len(line):,} characters like {like!r} (9: digits, a: letters, x: both)"


def json_keys(line: str) -> set[str]:
    """Return the keys of a JSON object; none if the line is not an object."""
    try:
        record = json.loads(line)
    except ValueError:
        return set()
    return set(record) if isinstance(record, dict) else set()


def check_parquet(source: Source, file: str) -> tuple[str, dict[str, str]]:
    """Check one Parquet file against its source; return it with the types of the columns that are used."""
    fs, inner = storage.filesystem(file)
    try:
        with fs.open(inner, "rb") as stream:
            schema = pq.read_schema(stream)
    except Exception as error:
        raise LandingUnreadable(f"{file}: expected a Parquet file, found {type(error).__name__}: {error}") from error
    missing = [name for name in source.required_columns if name not in schema.names]
    if missing:
        raise SourceMismatch(
            f"{file}: source {source.name} expects {', '.join(source.required_columns)}, "
            f"found {', '.join(schema.names)}; missing: {', '.join(missing)}"
        )
    nanoseconds = [name for name in schema.names if "[ns" in str(schema.field(name).type)]
    if nanoseconds:
        raise SourceMismatch(
            f"{file}: expected timestamps in microseconds, found nanoseconds in {', '.join(nanoseconds)}, which "
            "Spark does not read; write the file with microseconds (pandas: to_parquet(..., coerce_timestamps='us'))"
        )
    return file, {name: str(schema.field(name).type) for name in source.used_columns if name in schema.names}
