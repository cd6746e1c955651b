"""The list of forgotten users, without their ids: so that a file that is delivered again does not bring them back.

Of each user the list has a hash, HMAC-SHA256 of the id with a salt of this lake: the random id of the list's own Delta
table, which is made once and never again. Whoever may read the lake can test whether an id is on the list, and can
find ids that are easy to count through, such as numbers; with pseudonyms there is nothing to count through.
"""

import hashlib
import hmac
import json
import re
from collections.abc import Collection
from dataclasses import dataclass

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError

from lake import storage
from lake.commits import until_first
from lake.log import UNREADABLE_LOG
from lake.places import forgotten_path
from lake.table import WHOLE_LOG, create_once, has_log, mark_made, unreadable
from lake.text import composed

SCHEMA = pa.schema([("user", pa.string()), ("request", pa.string())])

# How a row that cannot be read by its source is divided into what may be an id: between quotes, between the usual
# delimiters, and between anything that stands around words; then without the escapes of JSON. In the notation that
# Python and Java share.
TOKENS = ('"', r"[,;|\t]", r"[\s\"'`,;:|{}\[\]()<>=&?]+")


@dataclass(frozen=True)
class ForgottenUsers:
    """The list as it is now: the salt, and the hashes of the users."""

    salt: str
    hashes: frozenset[str]

    @staticmethod
    def read() -> "ForgottenUsers":
        """Return the list of this lake; an empty one where nobody was ever forgotten.

        Raises:
            TableUnreadable: its log is damaged or gone: without it, forgotten users would come back.
        """
        path = forgotten_path()
        if not has_log(path):
            return ForgottenUsers("", frozenset())
        # Also that of a lake whose last request is older than this mark.
        mark_made(path)
        try:
            delta = DeltaTable(path)
        except UNREADABLE_LOG as error:
            raise unreadable(path, error) from error
        hashes = {user for uri in delta.file_uris() for user in storage.read_file(uri, ["user"])["user"].to_pylist()}
        return ForgottenUsers(str(delta.metadata().id), frozenset(hashes))

    def hash_of(self, user: str) -> str:
        """Return what the list has in the place of a user."""
        return hmac.new(self.salt.encode(), user.encode(), hashlib.sha256).hexdigest()

    def __contains__(self, user: str) -> bool:
        return bool(self.hashes) and self.hash_of(user) in self.hashes

    def in_text(self, text: str) -> bool:
        """Return whether the id of a forgotten user stands in a text, as one of its TOKENS."""
        return any(
            composed(unescaped(token).strip(" ")) in self for pattern in TOKENS for token in re.split(pattern, text)
        )


def unescaped(token: str) -> str:
    r"""Return a token without the escapes of JSON, as itself where it has none, or others.

    >>> print(unescaped("\\u00fc"), unescaped("a"), unescaped("\\x"))
    ü a \x
    """
    try:
        return str(json.loads(f'"{token}"', strict=False))
    except ValueError:
        return token


def list_users(users: Collection[str]) -> str:
    """Put users on the list, those that are not on it yet, and return the name of the request: the same for the same.

    Raises:
        CommitContended: others wrote the list first, 50 times in a row.
    """

    def attempt() -> str:
        create_once(forgotten_path(), SCHEMA, name="forgotten", configuration=WHOLE_LOG)
        listed = ForgottenUsers.read()
        request = request_of(listed, users)
        new = sorted({listed.hash_of(user) for user in users} - listed.hashes)
        if new:
            rows = pa.table({"user": new, "request": [request] * len(new)}, SCHEMA)
            write_deltalake(forgotten_path(), rows, mode="append")
        if not all(user in ForgottenUsers.read() for user in users):
            raise CommitFailedError("two first requests created the table, and one has hashed with a salt that is gone")
        return request

    return until_first(attempt, "other writers of the list of forgotten users", "nothing else was done")


def note_absent(table: str, number: int) -> None:
    """Note that a table had no log, in which it would stand, when users were forgotten; with the number of the forget.

    A publish makes the log of its table first, and then asks `noted`. So either it finds this, or whoever has noted it
    finds the log.

    Raises:
        CommitContended: others wrote the list first, 50 times in a row.
    """

    def attempt() -> None:
        delta = DeltaTable(forgotten_path())
        mark = mark_of(table)
        delta.create_write_transaction(
            [],
            "append",
            SCHEMA,
            commit_properties=CommitProperties(
                # delta-rs may not retry for us: another request may have noted a later number.
                max_commit_retries=0,
                app_transactions=[Transaction(mark, max(number, delta.transaction_version(mark) or 0))],
            ),
        )

    until_first(attempt, "other writers of the list of forgotten users", "run the same command again")


def noted(table: str) -> int:
    """Return the number of the last forget that found no log of a table; 0 if none did.

    Raises:
        TableUnreadable: the log of the list cannot be read or is gone, so nobody knows whether rows of forgotten users
            would come back.
    """
    if not has_log(forgotten_path()):
        return 0
    try:
        return DeltaTable(forgotten_path()).transaction_version(mark_of(table)) or 0
    except UNREADABLE_LOG as error:
        raise unreadable(forgotten_path(), error) from error


def mark_of(table: str) -> str:
    """Return the name of the transaction by which the list says that a table had no log."""
    return f"absent={table}"


def first_named(request: str, users: Collection[str]) -> frozenset[str]:
    """Return those of some users whom no earlier request had put on the list."""
    if not DeltaTable.is_deltatable(forgotten_path()):
        return frozenset()
    listed = ForgottenUsers.read()
    by_user: dict[str, str] = {}
    for uri in DeltaTable(forgotten_path()).file_uris():
        rows = storage.read_file(uri, ["user", "request"])
        by_user |= dict(zip(rows["user"].to_pylist(), rows["request"].to_pylist(), strict=True))
    return frozenset(user for user in users if by_user.get(listed.hash_of(user)) == request)


def request_of(listed: ForgottenUsers, users: Collection[str]) -> str:
    """Return the name of a request to forget users, which tells nothing about them."""
    together = hashlib.sha256("\n".join(sorted(listed.hash_of(user) for user in users)).encode()).hexdigest()
    return f"forget-{together[:12]}"
