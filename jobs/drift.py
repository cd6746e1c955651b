"""Columns that are others than on the days before, told as a difference that a person can read.

Of Parquet, ORC and Avro, names and types. Of CSV with a header, names and their order: text has no types. Of JSON, the
keys that most objects have, and the kinds of their values. Whether a file has the columns that its source names is
checked for each file alone (jobs/landing_files.py).
"""

import json
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import date, timedelta
from typing import Any

import pyarrow as pa

from jobs.avro_rows import avro_schema, is_avro
from jobs.json_columns import seen_in, usual_kinds
from jobs.landing_files import TABLES, are_names, first_bytes, first_records, header_line, is_parquet, split_header
from jobs.orc_rows import is_orc, orc_schema
from jobs.packed import parts_of
from jobs.source import Source
from lake import storage
from lake.errors import LandingUnreadable, SourceMismatch

# Types are compared with those of the nearest day before, if it is not older.
RECENT_DAYS = 28
# All columns of wider files are too much for each commit: of those, the used ones are compared alone.
MOST_COLUMNS = 200


def column_types(files: Sequence[str]) -> dict[str, str]:
    """Return {column: type} of the first file of Parquet, ORC or Avro; those of one run agree. Empty if none is one.

    A file is known by its name, and the first of all by its bytes too. A column without any value has no type: pandas
    writes it as one of nulls. One file that cannot be read has none either: the check of the files, which follows,
    says so.
    """
    file = next((file for file in files if file.endswith(TABLES)), next(iter(files), None))
    if file is None:
        return {}
    fs, inner = storage.filesystem(file)
    with suppress(OSError, ValueError):
        with fs.open(inner, "rb") as stream:
            head = stream.read(len(b"PAR1"))
        if is_parquet(file, head):
            with storage.parquet_file(file) as opened:
                return {field.name: plain(field.type) for field in opened.schema_arrow}
        if is_orc(file, head):
            return {field.name: plain(field.type) for field in orc_schema(file)}
        if is_avro(file, head):
            return {field.name: plain(field.type) for field in avro_schema(file)}
    return {}


def texts(files: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    """Yield the files of text among some, and those in each .zip, with their first bytes; none without a byte.

    One that cannot be read is left out: the check of the files, which follows, says so.
    """
    for file in files:
        with suppress(LandingUnreadable):
            for part in parts_of(file):
                head = first_bytes(part)
                if head and not is_table(part, head):
                    yield part, head


def is_table(file: str, head: bytes) -> bool:
    """Return whether a file is Parquet, ORC or Avro."""
    return is_parquet(file, head) or is_orc(file, head) or is_avro(file, head)


def plain(kind: pa.DataType) -> str:
    """Return the name of a type; of the ways in which Arrow keeps the same values in memory, one name.

    What is inside of a struct is left out where it may be something else than names, such as ids of users.

    >>> [plain(kind) for kind in (pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string()), pa.null())]
    ['string', 'string', 'string', 'null']
    """
    if pa.types.is_dictionary(kind):
        return plain(kind.value_type)
    if not all(are_names([name]) for name in names_inside(kind)):
        return str(kind).partition("<")[0]
    # Writers do not agree on the name of what is inside of a list.
    return str(kind).removeprefix("large_").removesuffix("_view").replace("<element: ", "<item: ")


def names_inside(kind: pa.DataType) -> Iterator[str]:
    """Yield the names of all that is inside of a struct, at any depth, also inside of lists and maps."""
    if pa.types.is_nested(kind):
        for n in range(kind.num_fields):
            yield kind.field(n).name
            yield from names_inside(kind.field(n).type)


def said_before(name: str, commits: Iterable[Mapping[str, Any]], source: str, first: date) -> tuple[date, Any] | None:
    """Return the last day of the nearest publish before a landing day, and what it says; None if none is recent.

    A publish that has withheld its last day, which is the one that it tells of, does not count.

    Args:
        name: of what is counted, such as `types` or `header`.
        commits: those of `events`, newest first.
        source: the name of the source, which may be one of several that a run has read.
        first: the first landing day of the run.
    """
    known: dict[date, Any] = {}
    for commit in commits:
        last, counts = date.fromisoformat(commit["last"]), json.loads(commit["counts"])
        is_withheld = str(last) in json.loads(commit.get("refused", "[]"))
        said = counts if counts.get("source") == source else counts.get("by_source", {}).get(source, {})
        if said.get(name) and last < first and not is_withheld:
            known.setdefault(last, said[name])
    nearest = max(known, default=None)
    recent = nearest is not None and first - nearest <= timedelta(days=RECENT_DAYS)
    return (nearest, known[nearest]) if nearest and recent else None


def require_same_types(source: Source, now: Mapping[str, str], before: tuple[date, Mapping[str, str]] | None) -> None:
    """Check that the columns that a source uses have the types that they had before; nothing if it may evolve.

    An id that was a whole number and is a fraction now would be another id: 7 becomes 7.0.

    Raises:
        SourceMismatch: a column has another type, or is gone and may not be.
    """
    if not now or before is None or source.evolve:
        return
    day, types = before
    vanishing = [value for field in source.may_vanish if (value := getattr(source, field))]
    may_go = {name for value in vanishing for name in value.columns}
    lines = []
    for name in source.used_columns:
        was, found = types.get(name), now.get(name)
        # Of nulls alone, nobody can tell the type.
        if was is None or "null" in (was, found):
            continue
        if was != found and not (found is None and name in may_go):
            is_now = f"is {found}" if found else f"is missing{candidates(source, was, now)}"
            lines.append(f"{name}: was {was}, {is_now}")
    if lines:
        raise SourceMismatch(
            f"source {source.name}: the columns differ from those of {day}: {'; '.join(lines)}. Have the files "
            "repaired; if the change is right, correct the source file, and set `evolve: true` in it for the days on "
            "which it changes"
        )


def candidates(source: Source, kind: str, now: Mapping[str, str]) -> str:
    """Return what a missing column may be called now, for a message: unused columns of its type."""
    new = sorted(other for other, found in now.items() if found == kind and other not in source.used_columns)
    return f" (of that type there are {', '.join(new)})" if new else ""


# ---- headers of CSV ---------------------------------------------------------------------------------------


def csv_header(source: Source, files: Iterable[str]) -> list[str]:
    """Return the columns that the first file of CSV with a header names, in its order; none where none has one.

    Nor is a first line that may be a row of the log a header: what it holds is nobody's business.
    """
    if source.format != "csv" or not source.header:
        return []
    for file, head in texts(files):
        with suppress(LandingUnreadable):
            if line := header_line(source, file, head):
                names = split_header(source, line)
                return list(names) if are_names(names) else []
    return []


def header_difference(before: Sequence[str], now: Sequence[str]) -> str:
    """Return what a supplier has changed of a header, in words; empty where nothing is.

    A column that is gone, and a new one in its place, may be one that was renamed.

    >>> header_difference(["user", "item", "time"], ["user", "item_id", "time"])
    "'item' is gone, and 'item_id' is in its place (renamed?)"
    >>> header_difference(["user", "item"], ["item", "user", "shop"])
    "new: 'shop'; in another order: 'item', 'user'"
    """
    gone, new = ([name for name in one if name not in other] for one, other in ((before, now), (now, before)))
    said = []
    for name in list(gone):
        place = before.index(name)
        if len(before) == len(now) and now[place] in new:
            said.append(f"{name!r} is gone, and {now[place]!r} is in its place (renamed?)")
            gone.remove(name)
            new.remove(now[place])
    for what, names in (("gone", gone), ("new", new)):
        if names:
            said.append(f"{what}: {', '.join(map(repr, names))}")
    stayed = [name for name in now if name in before]
    if stayed != [name for name in before if name in now]:
        said.append(f"in another order: {', '.join(map(repr, stayed))}")
    return "; ".join(said)


# ---- what a supplier has changed -------------------------------------------------------------------------


def json_columns(source: Source, files: Iterable[str]) -> dict[str, tuple[float, frozenset[str]]]:
    """Return the columns that the first lines of the first file of JSON with an object have; see `seen_in`.

    A key may also be the id or the name of somebody: a column that is not read counts only if each step is a name.
    """
    if source.format != "jsonl":
        return {}
    for file, head in texts(files):
        with suppress(LandingUnreadable):
            if seen := seen_in(first_records(source, file, head)):
                used = source.used_columns
                return {name: of for name, of in seen.items() if name in used or are_names(name.split("."))}
    return {}


def columns_seen(source: Source, files: Sequence[str], known: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return {column: type} of the first file among some, in its order; empty if they do not say.

    Which keys a few lines of JSON have is partly chance: a known column stays one until hardly any object has it.
    """
    return (
        column_types(files)
        or usual_kinds(json_columns(source, files), known or {})
        or dict.fromkeys(csv_header(source, files), "text")
    )


def column_difference(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Return what a supplier has changed of columns and their types, in words.

    Of a column without any value nobody can tell the type.

    >>> column_difference({"user": "int64", "shop": "string"}, {"user": "string", "price": "double"})
    ["new: 'price' (double)", "gone: 'shop'", "'user' was int64, is string"]
    """
    new, gone = ([name for name in one if name not in other] for one, other in ((now, before), (before, now)))
    retyped = [
        f"{name!r} was {before[name]}, is {kind}"
        for name, kind in now.items()
        if name in before and kind != before[name] and "null" not in (kind, before[name])
    ]
    return [
        *([f"new: {', '.join(f'{name!r} ({now[name]})' for name in new)}"] if new else []),
        *([f"gone: {', '.join(map(repr, gone))}"] if gone else []),
        *retyped,
    ]


def columns_of(
    source: Source,
    parts: Sequence[tuple[Source, list[str]]],
    first: date,
    last: date,
    commits: list[dict[str, Any]],
    *,
    used_alone: bool = False,
) -> dict[str, Any]:
    """Return what is counted of the columns of files, before they are read.

    They are those of the first files that are read as those of the last day: a later run compares its own with what is
    said of that day.

    Args:
        source: with all its versions, or the sources that it consists of.
        parts: files by the version of the source that counts for them.
        first: the first landing day.
        last: the last one.
        commits: those of `events`, newest first.
        used_alone: only columns that the source reads count, as with pseudonyms: another name may tell of a person.

    Returns:
        `types` of used columns of Parquet or ORC; `header` of CSV; `columns`, all of Parquet, ORC or JSON lines with
        their types; `used_alone`, true where these are only columns that the source reads; `supplied`, what the
        supplier has changed of them since the nearest day before, where that is something. Of several sources, each has
        these for its own files: they are below its name in `by_source`.

    Raises:
        SourceMismatch: a column has another type than before.
    """
    found = {
        name: _columns_of_one(source, name, parts, first, last, commits, used_alone=used_alone) for name in source.names
    }
    return found.get(source.name, {"by_source": found})


def _columns_of_one(
    source: Source,
    name: str,
    parts: Sequence[tuple[Source, list[str]]],
    first: date,
    last: date,
    commits: list[dict[str, Any]],
    *,
    used_alone: bool,
) -> dict[str, Any]:
    """Return what `columns_of` does, of the source with a name: the only one, or one of several."""
    last_ones = _versions_on(source, name, last)
    parts = [(version, files) for version, files in parts if version in last_ones]
    typed, types = next(((one, types) for one, names in parts if (types := column_types(names))), (source, {}))
    named, header = next(((one, names) for one, group in parts if (names := csv_header(one, group))), (source, []))
    keyed, seen = next(((one, seen) for one, names in parts if (seen := json_columns(one, names))), (source, {}))

    def before(what: str, version: Source) -> tuple[date, Any] | None:
        said = said_before(what, commits, name, first)
        return said if said and _versions_on(source, name, said[0]) == last_ones == [version] else None

    version = typed if types else keyed
    used = {name for each in last_ones for name in each.used_columns}
    found: dict[str, Any] = {"types": {name: types[name] for name in typed.used_columns if name in types}}
    said = before("columns", version)
    known = said[1] if said else {}
    require_same_types(typed, types, before("types", typed))
    if alone := used_alone or max(len(types), len(seen)) > MOST_COLUMNS:
        found["used_alone"] = True
        types, seen = only(types, used), only(seen, used)
    if used_alone:
        header = [name for name in header if name in used]
    if types:
        # A day without any value of a column does not make its type unknown.
        columns = {name: known.get(name, kind) if kind == "null" else kind for name, kind in types.items()}
    else:
        columns = usual_kinds(seen, known)
    # The same columns are compared on both sides.
    compared = [known, columns]
    if alone or (said and before("used_alone", version) == (said[0], True)):
        compared = [only(each, used) for each in compared]
    changes = column_difference(*compared) if all(compared) else []
    if header and (of_header := before("header", named)) and (difference := header_difference(of_header[1], header)):
        said, changes = of_header, [*changes, *difference.split("; ")]
    if said and changes:
        found["supplied"] = {"since": str(said[0]), "changes": changes}
    return {**found, **({"header": header} if header else {}), **({"columns": columns} if columns else {})}


def _versions_on(source: Source, name: str, day: date) -> list[Source]:
    """Return the different ways in which files of a day are read by the source with a name."""
    found: list[Source] = []
    for version in source.on(day).values():
        if version.name == name and version not in found:
            found.append(version)
    return found


def only(columns: Mapping[str, Any], names: Container[str]) -> dict[str, Any]:
    """Return those of some columns that have one of some names."""
    return {name: of for name, of in columns.items() if name in names}


def told(source: Source, columns: Mapping[str, Any]) -> list[str]:
    """Return a message for each source with columns that differ from those of an earlier day.

    Columns are found by their names, so they may change: who reads the message has to say whether it was meant.

    Args:
        source: that has read the files.
        columns: as `columns_of` returns them.
    """
    messages = []
    for name, found in columns.get("by_source", {source.name: columns}).items():
        if supplied := found.get("supplied"):
            readers = [source] if name == source.name else [v.source for v in source.versions if v.source.name == name]
            used = dict.fromkeys(column for reader in readers for column in reader.used_columns)
            messages.append(
                f"source {name}: the columns of the files differ from those of {supplied['since']}: "
                f"{'; '.join(supplied['changes'])}. Columns that the source reads: {', '.join(used)}"
            )
    return messages
