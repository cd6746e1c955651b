"""Leave the rows of forgotten users out of what a run reads, by the list of the lake, which has no ids."""

import hashlib

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from jobs.rejections import REJECTED, in_one_form
from lake.privacy.forgotten import TOKENS, ForgottenUsers

FORGOTTEN = "forgotten"
# Of these rows, what was read as the user may be something else.
UNREAD = ("undecodable", "malformed_line")
BLOCK_BYTES = hashlib.sha256().block_size


def keyed_hash(key: str, text: Column) -> Column:
    """Return HMAC-SHA256 of a text in hexadecimal digits, as RFC 2104 composes it of two hashes; null for null."""
    padded = key.encode().ljust(BLOCK_BYTES, b"\0")
    inner, outer = (F.lit(bytes(byte ^ pad for byte in padded)) for pad in (0x36, 0x5C))
    return F.sha2(F.concat(outer, F.unhex(F.sha2(F.concat(inner, text.cast("binary")), 256))), 256)


def unescaped(token: Column) -> Column:
    """Return a token without the escapes of JSON, as lake.privacy.forgotten does."""
    read = F.from_json(F.concat(F.lit('{"token":"'), token, F.lit('"}')), "token string")
    return F.coalesce(read.getField("token"), token)


def mark_forgotten(judged: DataFrame, listed: ForgottenUsers) -> DataFrame:
    """Give the rows of forgotten users the outcome `forgotten`, and no reason; all others stay as they are.

    Args:
        judged: as jobs.rejections.judge returns it. A rejected row whose user is not known counts as theirs if one of
            their ids stands in it.
        listed: the forgotten users.
    """
    if not listed.hashes:
        return judged
    hashes = sorted(listed.hashes)
    known = judged.sparkSession.createDataFrame(
        [(user, True) for user in hashes], "user_hash string, is_listed boolean"
    )
    is_unread = (F.col("outcome") == REJECTED) & (F.col("user_id").isNull() | F.col("reason").isin(*UNREAD))
    tokens = F.array_distinct(F.concat(*(F.split("raw", pattern) for pattern in TOKENS)))
    in_text = F.arrays_overlap(
        F.transform(tokens, lambda token: keyed_hash(listed.salt, in_one_form(F.trim(unescaped(token))))),
        F.split(F.lit(",".join(hashes)), ","),
    )
    is_theirs = F.coalesce("is_listed", F.when(is_unread, in_text), F.lit(False))
    return (
        judged.withColumn("user_hash", keyed_hash(listed.salt, F.col("user_id")))
        # Of an id there is one hash, so no row is doubled.
        .join(F.broadcast(known), on="user_hash", how="left")
        .withColumn("is_theirs", is_theirs)
        .withColumn("outcome", F.when(F.col("is_theirs"), FORGOTTEN).otherwise(F.col("outcome")))
        .withColumn("reason", F.when(~F.col("is_theirs"), F.col("reason")))
        .select(*judged.columns)
    )
