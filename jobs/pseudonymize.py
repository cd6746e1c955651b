"""Put pseudonyms in the place of user ids, before an event gets its id and a rejected row is kept.

Spark sees ids and pseudonyms, as it sees the landing; the key stays in this process, see lake/pseudonyms.py.
"""

import logging

import pyarrow as pa
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs.rejections import CONTENT, IGNORED, KEPT_CHARACTERS, REJECTED
from lake.privacy.forgotten import ForgottenUsers
from lake.pseudonyms import IdentityMap, Key, pairs_of

log = logging.getLogger(__name__)

# Of these rows no column is known, or an id is of any length.
UNREADABLE = ("undecodable", "malformed_line", "field_too_long", "unusable_text")
SHAPE_OF = 4096  # characters of a row that its shape is of
SHAPE_SHOWN = 300
WORD = r"[\p{L}\p{M}\p{N}_\x{80}-\x{10FFFF}]"
# A word of digits alone, or of letters alone, is not mixed. The mark stands for nothing that a log may hold.
MIXED = rf"(?<!{WORD})(?!\p{{N}}+(?!{WORD}))(?!\p{{L}}+(?!{WORD})){WORD}+"
MARK = "\0"
MAIL = r"[^\s@<>]+@[^\s@<>]+"
# Seven digits or more, as people write the number of a telephone.
PHONE = r"\+?\p{Nd}(?:[ ()./-]*\p{Nd}){6,}"


def with_pseudonyms(
    spark: SparkSession,
    judged: DataFrame,
    key: Key,
    identities: IdentityMap | None,
    name: str,
) -> DataFrame:
    """Return judged rows with pseudonyms for user ids, and `raw` of rejected ones without what tells of a person.

    Args:
        spark: the session.
        judged: as jobs.rejections.judge returns them.
        key: what pseudonyms are made by.
        identities: the map that whose they are is added to, if there is one.
        name: of the file in the map.
    """
    needed = (F.col("outcome") != IGNORED) & ~is_unreadable()
    users = judged.where(needed & F.col("user_id").isNotNull()).select("user_id").distinct().toArrow()
    pairs = pairs_of(users["user_id"], key)
    if identities:
        # Read as late as can be: who is forgotten by now does not get into the map again.
        forgotten = ForgottenUsers.read()
        is_kept = [each not in forgotten for each in pairs["pseudonym"].to_pylist()] if forgotten.hashes else None
        identities.add(key.id, name, pairs if is_kept is None else pairs.filter(pa.array(is_kept, pa.bool_())))
    log.info("%d users have pseudonyms by key %s", pairs.num_rows, key.id)
    rows = judged.join(spark.createDataFrame(pairs), on="user_id", how="left")
    return rows.withColumn("raw", redacted()).withColumn("user_id", F.col("pseudonym")).drop("pseudonym")


def is_unreadable() -> Column:
    """Return whether a row was rejected before its columns were known."""
    return F.coalesce(F.col("reason").isin(*UNREADABLE), F.lit(False))


def redacted() -> Column:
    """Return what is kept of a row: its shape, and, if its columns are known, the values that were understood.

    The row has its own user id, and its pseudonym as `pseudonym`.
    """
    values = {name: F.col(name) for name in CONTENT} | {
        "user_id": F.col("pseudonym"),
        "item_id": without_person(F.col("item_id")),
        "category_id": without_person(F.col("category_id")),
        "query": F.regexp_replace(without_person(F.col("query")), PHONE, "<number>"),
    }
    understood = F.to_json(F.struct(*(value.alias(name) for name, value in values.items()), shape().alias("shape")))
    kept = F.when(is_unreadable(), shape()).otherwise(understood)
    return F.when(F.col("outcome") == REJECTED, kept)


def without_person(text: Column) -> Column:
    """Return a text without what looks like an address of e-mail, and without the user's id."""
    masked = F.regexp_replace(text, MAIL, "<mail>")
    return F.when(F.contains(text, F.col("user_id")), "<user>").otherwise(masked)


def shape() -> Column:
    """Return how a row is built, without what it says, as `jobs.landing_files.shape` does for messages."""
    like = F.regexp_replace(F.substring("raw", 1, SHAPE_OF), MARK, "")
    for pattern, kind in ((MIXED, MARK), (r"\p{N}+", "9"), (r"\p{L}+", "a"), (MARK, "x")):
        like = F.regexp_replace(like, pattern, kind)
    length = F.length("raw")
    # Of a line that is a list, no more may be kept than that.
    told = F.when(length == KEPT_CHARACTERS, F.lit(f"{KEPT_CHARACTERS} or more")).otherwise(length.cast("string"))
    return F.format_string("%s characters like %s", told, F.substring(like, 1, SHAPE_SHOWN))
