"""Users in landing files: whose a row is, which files have rows of some users, and the files without. No Spark."""

import csv
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any
from uuid import uuid4

import fsspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs import python_rows
from jobs.landing_files import (
    LINE_BYTES,
    array_encoding,
    day_and_name,
    end_of_line,
    first_bytes,
    first_lines,
    is_parquet,
    look_at,
)
from jobs.packed import BROKEN, is_packed, lines_of, parts_of, unpacked
from jobs.rejections import PRINTED_FRACTION, WHOLE_FRACTION
from jobs.source import Source, load_source, shipped_sources
from lake import storage
from lake.errors import LandingUnreadable, SourceMismatch
from lake.landing import HIDDEN, Landing, leads_out, stray
from lake.privacy.forget import Done, Left
from lake.privacy.landed import note_landed
from lake.privacy.matching import Chosen, NamedUsers, Whose
from lake.privacy.rewriting import count_chosen, rewrite
from lake.text import SURROUNDING, composed

# A number that ingest may read as another text.
FRACTION = re.compile(r"[-+]?\d+(?:\.\d*(?:[eE][-+]?\d+)?|[eE][-+]?\d+)")
# A number in scientific notation that ingest takes for a whole one has no larger exponent, and is no longer.
MOST_DIGITS, MOST_CHARACTERS = 15, 40
# What a file raises that was cut off or damaged, is packed in a way that nobody here unpacks, or belongs to two
# versions of its source.
UNREADABLE = (*BROKEN, pa.ArrowException, LandingUnreadable, SourceMismatch)
# How a file begins that is written in the place of another one, until it is whole. Such a name is no data.
UNFINISHED = "_forget-"
# Why something in the landing is not searched.
STRAY, UNLISTED = "it is no file, or leads out of its day", "it cannot be listed"
LEFT_OVER = (
    "a forget with --rewrite-landing has written it, with rows of a file beside it, and was killed; remove it, unless "
    "one is at work"
)
# Packed line by line, as Spark reads them too.
PACKED = (".gz", ".bz2")


def user_of(source: Source, raw: str, names: Sequence[str] = ()) -> str | None:
    """Return the user of a row as a source reads it; None where that cannot be told, or there is none.

    It cannot be told of a row that cannot be read, nor where a source makes the user of several columns or of an
    element of a list, nor of a line of CSV whose columns only the header of its file names.

    Args:
        source: of the row.
        raw: the row as it was delivered.
        names: csv: the columns of the file in their order, if they are known.

    >>> user_of(load_source("canonical"), '{"user_id": 7, "item_id": "x"}')
    '7'
    """
    if source.user_id.sql or len(source.user_id.columns) > 1 or source.each:
        return None
    (column,) = source.user_id.columns
    text = raw.strip()
    try:
        # A row of a Parquet file is JSON in the quarantine, whatever the source says.
        if source.format != "csv" or text.startswith("{"):
            value = in_object(json.loads(text, parse_int=str, parse_float=str), column)
        else:
            names = names or ([] if source.header else source.columns)
            value = dict(zip(names, fields_of(source, text), strict=True)).get(column)
    except (ValueError, csv.Error):
        return None
    user = composed(value.strip(SURROUNDING)) if isinstance(value, str) else ""
    # Ingest takes 7.0 for the id 7.
    return user if user and not FRACTION.fullmatch(user) else None


def in_object(row: Any, column: str) -> Any:
    """Return what a JSON object has for a column: its key, or a path of keys; None where it has neither."""
    if not isinstance(row, dict):
        return None
    if column in row or "." not in column:
        return row.get(column)
    first, _, rest = column.partition(".")
    return in_object(row.get(first), rest)


def fields_of(source: Source, line: str) -> list[str]:
    """Return the values of a line of CSV.

    Raises:
        ValueError: Python's parser would not read them as Spark does.
    """
    if not source.quote or source.quote not in line:
        if source.escape == "backslash" and "\\" in line:
            raise ValueError("an escape outside of quotes")
        return line.split(source.delimiter)
    if len(source.delimiter) > 1 or source.escape == "backslash":
        raise ValueError("quotes with a delimiter or an escape that Python's parser does not know")
    (values,) = csv.reader([line], delimiter=source.delimiter, quotechar=source.quote, strict=True)
    return values


def whose_of(current: Source) -> Whose:
    """Return what says whose a rejected row is: by the source of the settings, and by those that ship."""
    known = {name: load_source(name) for name in shipped_sources()} | {current.name: current}
    # Of a name that several ways to read files have, nobody knows which one has read a row. Patterns that share one
    # source are one way.
    sources = list({id(version.source): version.source for version in current.versions}.values())
    ways = Counter([current.name, *(source.name for source in sources)])
    for source in sources:
        known[source.name] = source if ways[source.name] == 1 else current

    def whose(name: str, raw: str) -> str | None:
        source = known.get(name)
        # Which version of a source has read a row, the quarantine does not say.
        return user_of(source, raw) if source and not source.versions else None

    return whose


def is_theirs(users: NamedUsers, source: Source, names: Sequence[str] = ()) -> Callable[[str], bool]:
    """Return what says of a line of a file whether it is of some users: also if that cannot be told, but it has an id.

    Args:
        users: whose lines are meant.
        source: of the file.
        names: csv: its columns, see `user_of`.
    """

    def theirs(line: str) -> bool:
        line = line.removeprefix("\ufeff")  # the mark of the byte order, behind which nothing is JSON
        return users.in_text(line) and (user_of(source, line, names) or "") in {"", *users.ids}

    return theirs


@dataclass(frozen=True)
class LandingFile:
    """A landing file that has rows of some users.

    Attributes:
        day: its landing day.
        address: where it is.
        source: how it is read.
        names: csv: its columns, if they are known.
        rows: how many there are of theirs.
        has_long: whether it has a line of more than `LINE_BYTES`, of which nobody takes the whole into memory.
    """

    day: date
    address: str
    source: Source
    names: tuple[str, ...]
    rows: int
    has_long: bool

    @property
    def is_parquet(self) -> bool:
        """Whether it is Parquet."""
        return begins_as_parquet(self.address)

    def can_be_rewritten(self) -> bool:
        """Return whether it can be written without some of its rows: lines, plain or packed, and Parquet."""
        source = self.source
        if self.is_parquet:
            return len(source.user_id.columns) == 1 and source.user_id.columns[0] in names_in_parquet(self.address)
        # A record that has several lines is no line, and the end of a line of UTF-16 is two bytes.
        has_lines = not self.has_long and not source.multiline and not source.charset.startswith("UTF-16")
        if has_lines and array_encoding(source, first_bytes(self.address)):
            return False
        return has_lines and not is_packed(self.address) and not python_rows.table_kind(self.address)


def addresses_of(landing: Landing) -> Iterator[tuple[date, str, str]]:
    """Yield each address in the landing that may have rows, with its day, and why it is not searched; empty if it is.

    Some are read by no ingest: a pipe would be waited for without end, and what a link leads to is not ours to write.
    """
    try:
        days = landing.days()
    except OSError:
        yield date.min, landing.address, UNLISTED
        return
    for day in days:
        folder = landing.folder(day)
        if leads_out(folder):
            yield day, folder, STRAY
            continue
        names, denied = storage.list_readable(folder)
        for place in denied:
            yield day, place, UNLISTED
        for name in names:
            parts = name.split("/")
            if parts[-1].startswith(UNFINISHED):
                yield day, storage.join(folder, name), LEFT_OVER
            elif not any(part.startswith(HIDDEN) for part in parts):
                yield day, storage.join(folder, name), STRAY if is_stray(folder, name) else ""


def is_stray(folder: str, name: str) -> bool:
    """Return whether a name below the folder of a day is no file of that day, or nobody may say what it is."""
    try:
        return bool(stray(folder, name))
    except OSError:
        return True


def files_of(landing: Landing, users: NamedUsers, source: Source, unread: list[Left]) -> Iterator[LandingFile]:
    """Yield the landing files that have rows of some users.

    Args:
        landing: where they are.
        users: whose rows.
        source: how they are read.
        unread: gets the files of which nobody can say. One of them must not keep users from being forgotten elsewhere.
    """
    for day, file, obstacle in addresses_of(landing):
        if obstacle:
            unread.append(Left(f"{file} was not searched: {obstacle}", "the shop"))
            continue
        try:
            version = source.of(*day_and_name(file))
            names = names_in_header(version, file)
            rows, has_long = count_rows(file, names, users, version)
        except UNREADABLE as error:
            what = f"{file} cannot be read to its end ({type(error).__name__}), and may have rows of theirs"
            unread.append(Left(f"{what}: have it delivered again, or removed", "the shop"))
            continue
        if has_long:
            what = f"{file} has lines of more than {LINE_BYTES:,} bytes, of which the beginnings alone were searched"
            unread.append(Left(what, "the shop"))
        if rows:
            yield LandingFile(day, file, version, names, rows, has_long)


def names_in_header(source: Source, file: str) -> tuple[str, ...]:
    """Return the columns of a file of CSV; none if it is another file, or is not as the source says."""
    if source.format != "csv":
        return ()
    try:
        look = look_at(source, file)
    except (LandingUnreadable, SourceMismatch):
        return ()
    return look.text.names if look.text else ()


def begins_as_parquet(file: str) -> bool:
    """Return whether a file is Parquet, by its name or its first bytes."""
    if is_packed(file):
        return False
    with fsspec.open(file, "rb") as stream:
        return is_parquet(file, stream.read(4))


def count_rows(file: str, names: Sequence[str], users: NamedUsers, source: Source) -> tuple[int, bool]:
    """Count the rows of some users in a file; return whether of a longer line its beginning alone was searched, too.

    Raises:
        UNREADABLE: it cannot be read to its end.
    """
    if (parts := parts_of(file)) != [file]:
        # Each file in a .zip may have a header of its own.
        counted = [count_rows(part, names_in_header(source, part), users, source) for part in parts]
        return sum(rows for rows, _ in counted), any(has_long for _, has_long in counted)
    if begins_as_parquet(file):
        if (chosen := in_parquet(users, source, file)) is None:
            return sum(users.in_text(str(row)) for batch in batches_of(file) for row in batch.to_pylist()), False
        folder, _, name = file.rpartition("/")
        return count_chosen(folder, name, chosen), False
    theirs = is_theirs(users, source, names)
    encoding, is_table = source.encoding, bool(python_rows.table_kind(file))
    # It also knows what is packed, or a table, in a way that would be read as text.
    array = "" if is_table else array_encoding(source, first_bytes(file))
    if is_table or array:
        encoding = "utf-8"  # in which its rows are written, whatever the text files of the source have
    elif source.charset.startswith("UTF-16"):
        try:
            # Which byte of a character comes first, the file may say otherwise than its source; its rows may be others.
            _, encoding = first_lines(source, file, first_bytes(file))
        except LandingUnreadable:
            encoding = source.charset  # no run takes it
    found, has_long = 0, False
    for line in python_rows.lines_of(file, LINE_BYTES + 1, end_of_line(encoding), array=array):
        has_long |= len(line) > LINE_BYTES
        found += theirs(line.decode(encoding, "replace"))
    return found, has_long


def batches_of(file: str) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a Parquet file, some at a time."""
    with storage.parquet_file(file) as opened:
        yield from opened.iter_batches()


def names_in_parquet(file: str) -> list[str]:
    """Return the names of the columns of a Parquet file."""
    with storage.parquet_file(file) as opened:
        return list(opened.schema_arrow.names)


def in_parquet(users: NamedUsers, source: Source, file: str) -> Chosen | None:
    """Return which rows of a Parquet file are of some users; None if its user is not one column of its own.

    Ids may be numbers there, also fractions.
    """
    column = source.user_id.columns[0]
    if source.user_id.sql or len(source.user_id.columns) > 1 or column not in names_in_parquet(file):
        return None
    return Chosen((column,), lambda rows: users.among(as_texts(rows[column])))


def as_texts(ids: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return ids of a Parquet file as ingest reads them: whole numbers as such, also if they are fractions or texts."""
    if pa.types.is_floating(ids.type):
        wide = ids.cast(pa.float64())
        is_whole = pc.and_(pc.equal(wide, pc.trunc(wide)), pc.less_equal(pc.abs(wide), 2.0**53))
        ids = pc.if_else(is_whole, wide, pa.scalar(None, pa.float64())).cast(pa.int64())
    texts = pc.utf8_trim(ids.cast(pa.string()), characters=SURROUNDING)
    texts = pc.replace_substring_regex(texts, pattern=WHOLE_FRACTION, replacement=r"\1")
    numbers = pc.unique(texts.filter(pc.match_substring_regex(texts, PRINTED_FRACTION))).to_pylist()
    # Of more digits ingest takes none for a number either.
    short = (text for text in numbers if len(text) < MOST_CHARACTERS and int(text.partition("E")[2]) < MOST_DIGITS)
    whole = {text: f"{Decimal(text):f}" for text in short if Decimal(text) % 1 == 0}
    return pa.chunked_array([[whole.get(text, text) for text in texts.to_pylist()]], pa.string()) if whole else texts


def rewrite_file(found: LandingFile, users: NamedUsers) -> None:
    """Write a landing file without the rows of some users, in its place, in one step; all other rows stay as they are.

    A row of which it cannot be told whose it is, but that has one of their ids, goes too.

    Raises:
        OSError: it, or its folder, cannot be written to. The file is as it was.
    """
    file = found.address
    folder, _, name = file.rpartition("/")
    # Such a name is no data, so that a run that lists the folder meanwhile does not read it.
    unfinished = f"{UNFINISHED}{uuid4().hex[:8]}{''.join(end for end in PACKED if name.endswith(end))}"
    try:
        write_without(found, users, unfinished)
        fs, place = storage.filesystem(storage.join(folder, unfinished))
        fs.mv(place, storage.filesystem(file)[1])
    except UNREADABLE:
        with suppress(OSError):
            storage.remove(storage.join(folder, unfinished))
        raise


def write_without(found: LandingFile, users: NamedUsers, unfinished: str) -> None:
    """Write a landing file without the rows of some users, under another name beside it; see `rewrite_file`."""
    file, source = found.address, found.source
    folder, _, name = file.rpartition("/")
    fs, place = storage.filesystem(storage.join(folder, unfinished))
    chosen = in_parquet(users, source, file) if found.is_parquet else None
    if chosen:
        made = rewrite("landing", folder, name, chosen, target=unfinished)
        if made and not made.new:
            with storage.parquet_file(file) as old, fs.open(place, "wb") as stream:
                pq.write_table(old.schema_arrow.empty_table(), stream)
    else:
        theirs = is_theirs(users, source, found.names)
        with (
            unpacked(file) as stream,
            fsspec.open(storage.join(folder, unfinished), "wb", compression="infer") as left,
        ):
            # None is longer: `can_be_rewritten`.
            lines = lines_of(stream, LINE_BYTES + len(b"\r\n"), with_ends=True)
            left.writelines(line for line in lines if not theirs(line.decode(source.encoding, "replace")))


def forget_in_landing(
    landing: Landing, users: NamedUsers, source: Source, *, rewrite: bool, request: str, new: NamedUsers
) -> tuple[list[Done], list[Left]]:
    """Write the landing files that have rows of some users anew, or name them; return what was done and is left.

    Args:
        landing: where they are.
        users: whose rows.
        source: how they are read.
        rewrite: whether to write the files anew.
        request: how many rows there are is written down for it, since a later delivery may be without them.
        new: those of the users whom no earlier request has named: the rows of others are written down already.
    """
    done, left = Done("landing"), list[Left]()
    files = list(files_of(landing, users, source, left))
    by_day: Counter[date] = Counter()
    for found in files if new.ids else ():
        by_day[found.day] += (
            found.rows if new == users else count_rows(found.address, found.names, new, found.source)[0]
        )
    note_landed(request, +by_day)
    for found in files:
        file, possible = found.address, found.can_be_rewritten()
        if rewrite and possible:
            try:
                rewrite_file(found, users)
            except UNREADABLE as error:
                what = f"{file} has {found.rows} rows of theirs, which runs leave out, and could not be written anew"
                left.append(Left(f"{what} ({type(error).__name__}): remove them", "the shop"))
                continue
            done.files, done.rows = done.files + 1, done.rows + found.rows
            left.append(
                Left(
                    f"{file} was written anew: its landing day, {found.day}, counts as changed since it was read",
                    "you: know",
                )
            )
        else:
            how = (
                "with --rewrite-landing, or by the shop" if possible else "by the shop: it is packed, or no plain lines"
            )
            left.append(
                Left(f"{file} has {found.rows} rows of theirs, which runs leave out: remove them {how}", "the shop")
            )
    return [done], left
