"""Which rows and texts are of users that are to be forgotten, by their ids or by the list of the lake."""

import html
import json
import re
import unicodedata
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc

from lake.privacy.forgotten import ForgottenUsers
from lake.text import composed

# The user of a rejected row, by its source and its text; None where the row cannot be read.
Whose = Callable[[str, str], str | None]


def decomposed(text: str) -> str:
    """Return a text with accents as characters of their own, as some systems write it."""
    return unicodedata.normalize("NFD", text)


def as_fraction(user: str) -> str:
    """Return the id that is a whole number of at least eight digits as Java writes a fraction; others as they are.

    >>> as_fraction("12000000"), as_fraction("-12345678"), as_fraction("1234567"), as_fraction("u1")
    ('1.2E7', '-1.2345678E7', '1234567', 'u1')
    """
    number = re.fullmatch(r"(-?)([1-9])(\d{7,14})", user)
    return f"{number[1]}{number[2]}.{number[3].rstrip('0') or '0'}E{len(number[3])}" if number else user


class Users(Protocol):
    """Some users: how their rows are told from those of others."""

    def among(self, values: pa.ChunkedArray) -> pa.Array:
        """Return for each id whether it is one of theirs; false for none."""
        ...

    def in_text(self, text: str) -> bool:
        """Return whether one of their ids stands in a text, as a word of its own."""
        ...

    def between(self, lowest: str, highest: str) -> bool:
        """Return whether one of their ids may be between two, in the order of their bytes."""
        ...


@dataclass(frozen=True)
class NamedUsers:
    """Users by their ids, in the form that the lake has: those of a file may have another, and so old rows."""

    ids: frozenset[str]

    def among(self, values: pa.ChunkedArray) -> pa.Array:
        # Both are brought into one form: pyarrow 25 makes NFD when asked for NFC.
        ids = pc.utf8_normalize(pa.array(sorted(self.ids), pa.string()), form="NFC")
        return pc.is_in(pc.utf8_normalize(values.cast(pa.string()), form="NFC"), value_set=ids)

    def in_text(self, text: str) -> bool:
        # Of no ids at all, the pattern would find nothing between any two words.
        return bool(self.ids) and bool(self.pattern.search(composed(text)))

    def between(self, lowest: str, highest: str) -> bool:
        # Code points and the bytes of UTF-8 have the same order.
        return any(lowest <= form <= highest for user in self.ids for form in (user, decomposed(user)))

    def spellings(self) -> list[str]:
        """Return the ids as JSON, CSV and HTML write them, the longest first."""
        ways = (
            str,
            decomposed,
            lambda user: json.dumps(user)[1:-1],
            lambda user: json.dumps(decomposed(user))[1:-1],
            lambda user: json.dumps(user, ensure_ascii=False)[1:-1],
            lambda user: user.replace('"', '""'),
            html.escape,
            as_fraction,
        )
        return sorted({way(user) for user in self.ids for way in ways}, key=lambda text: (-len(text), text))

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """What finds an id in a text: `ann` is not in `joanna`, but it is in `ann-marie`."""
        return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, self.spellings()))})(?!\w)")

    @cached_property
    def bytes_pattern(self) -> re.Pattern[bytes]:
        """The same for files of any kind."""
        words = b"|".join(re.escape(spelling.encode()) for spelling in self.spellings())
        return re.compile(rb"(?<![0-9A-Za-z_])(?:" + words + rb")(?![0-9A-Za-z_])")


@dataclass(frozen=True)
class ListedUsers:
    """The users of the list of the lake, whose ids nobody knows."""

    listed: ForgottenUsers

    def among(self, values: pa.ChunkedArray) -> pa.Array:
        ids = [user for user in pc.unique(values).to_pylist() if user is not None and user in self.listed]
        return pc.is_in(values, value_set=pa.array(ids, pa.string()))

    def in_text(self, text: str) -> bool:
        return self.listed.in_text(text)

    def between(self, lowest: str, highest: str) -> bool:
        # Hashes have another order than ids; an id that is alone between two is one of both.
        return lowest != highest or lowest in self.listed


@dataclass(frozen=True)
class Chosen:
    """Which rows of a table are chosen: a mask, and the columns that it is made of."""

    columns: tuple[str, ...]
    mask: Callable[[pa.Table], pa.Array]
    # Whether a file may have such rows, by the least and the greatest value of the first of the columns.
    between: Callable[[str, str], bool] | None = None


def rows_of(table: str, users: Users, whose: Whose | None = None) -> Chosen:
    """Return which rows of a table are of some users.

    Args:
        table: one of lake/tables.py, or `audits`.
        users: the users.
        whose: says of a rejected row whose it is. Where it cannot, the row is theirs if it has one of their ids.
    """
    if table == "quarantine":
        return Chosen(("raw", "source"), lambda rows: rejected_of(rows, users, whose))
    if table == "audits":
        return Chosen(("said",), lambda rows: pa.array([users.in_text(said or "") for said in texts(rows, "said")]))
    return Chosen(("user_id",), lambda rows: users.among(rows["user_id"]), users.between)


def texts(rows: pa.Table, column: str) -> list[str | None]:
    """Return a column as Python's strings."""
    values: list[str | None] = rows[column].to_pylist()
    return values


def rejected_of(rows: pa.Table, users: Users, whose: Whose | None) -> pa.Array:
    """Return which rejected rows are of some users."""

    def is_theirs(source: str | None, raw: str | None) -> bool:
        if raw is None or not users.in_text(raw):
            return False
        user = whose(source or "", raw) if whose else None
        return user is None or bool(users.among(pa.chunked_array([[user]]))[0].as_py())

    return pa.array(list(map(is_theirs, texts(rows, "source"), texts(rows, "raw"))), pa.bool_())


def mentions(rows: pa.Table, users: Users, columns: Collection[str]) -> int:
    """Count the rows in which a text, also one inside a list, has the id of one of some users."""
    found = set()
    for name in columns:
        for n, value in enumerate(rows[name].to_pylist()):
            if value is not None and users.in_text(value if isinstance(value, str) else str(value)):
                found.add(n)
    return len(found)
