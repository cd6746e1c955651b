"""Which time formats a source may have: what Spark cannot read, or would read as another time, is told at once."""

import re

EPOCHS = {"epoch_s": 1, "epoch_ms": 1_000, "epoch_us": 1_000_000, "epoch_ns": 1_000_000_000}
NAMED = (*EPOCHS, "iso8601")

# Letters of a pattern by which Spark parses, with the largest number of times that each may stand in a row.
LENGTHS = {
    **{"G": 4, "y": 6, "M": 4, "L": 4, "d": 2, "D": 3, "a": 1, "H": 2, "k": 2, "K": 2, "h": 2, "m": 2, "s": 2},
    **{"S": 9, "V": 2, "z": 3, "O": 4, "X": 5, "x": 5, "Z": 5},
}
OFFSETS = set("VzOXxZ")
OPTIONAL = r"\[([^\[\]]*)\]"
STRFTIME = {
    **{"%Y": "yyyy", "%y": "yy", "%m": "MM", "%d": "dd", "%e": "d", "%H": "HH", "%I": "hh", "%M": "mm", "%S": "ss"},
    **{"%f": "SSSSSS", "%p": "a", "%b": "MMM", "%B": "MMMM", "%j": "DDD", "%z": "xx", "%Z": "z"},
    **{"%T": "HH:mm:ss", "%F": "yyyy-MM-dd", "%R": "HH:mm", "%D": "MM/dd/yy"},
}
# Optional parts that have the zone: each doubles the variants of a pattern.
MOST_ZONES = 4
# A word of capitals in a time that names a zone, but for those that mean one zone everywhere.
ABBREVIATION = r"(?:^|[^A-Za-z/_])(?!(?:UTC|GMT|UT|Z|AM|PM|T)(?![A-Za-z]))[A-Z]{2,5}(?![A-Za-z/_])"


def fields(pattern: str) -> list[str]:
    """Return the runs of pattern letters outside of quotes, in order.

    >>> fields("yyyy-MM-dd'T'HH:mm[:ss]XXX")
    ['yyyy', 'MM', 'dd', 'HH', 'mm', 'ss', 'XXX']
    """
    return [run[0] for run in re.finditer(r"([A-Za-z])\1*", re.sub(r"'[^']*'", "''", pattern))]


def has_offset(pattern: str) -> bool:
    """Return whether a pattern reads the zone of a time from its text."""
    return any(field[0] in OFFSETS for field in fields(pattern))


def without_weekday(pattern: str) -> str:
    """Return a pattern without the day of the week at its beginning, by which Spark does not parse.

    >>> without_weekday("EEE, dd MMM yyyy HH:mm:ss z")
    'dd MMM yyyy HH:mm:ss z'
    """
    return re.sub(r"^E+[.,]* +", "", pattern)


def variants(pattern: str) -> list[str]:
    """Return a pattern with and without each optional part that has the zone, so that each variant says if it has one.

    >>> variants("yyyy-MM-dd HH:mm[:ss][XXX]")
    ['yyyy-MM-dd HH:mm[:ss]XXX', 'yyyy-MM-dd HH:mm[:ss]']
    """
    for optional in re.finditer(OPTIONAL, pattern):
        if has_offset(optional[1]):
            before, after = pattern[: optional.start()], pattern[optional.end() :]
            return [*variants(before + optional[1] + after), *variants(before + after)]
    return [pattern]


def from_strftime(pattern: str) -> str:
    """Return the Spark pattern of a pattern for strftime.

    >>> from_strftime("%Y-%m-%dT%H:%M:%SZ")
    "yyyy-MM-dd'T'HH:mm:ss'Z'"
    """
    parts = re.findall(r"%[A-Za-z]|[A-Za-z]+|[^A-Za-z%]+|%", pattern)
    return "".join(STRFTIME.get(part, f"'{part}'" if part.isalpha() else part) for part in parts)


def problem(pattern: str) -> str | None:
    """Return why a source cannot have a time format and what to write; None if it can have it."""
    names = f"one of {', '.join(NAMED)}, or a Spark pattern such as yyyy-MM-dd HH:mm:ss"
    word = re.sub(r"[^a-z0-9]", "", pattern.lower())
    if pattern in NAMED:
        return None
    if "iso" in word or "rfc3339" in word:
        return f"{pattern!r} is no time format; write iso8601"
    if pattern == "%s" or re.search(
        r"epoch|unix|timestamp|^(s|ms|us|ns|seconds?|milliseconds?|millis)$", pattern.lower()
    ):
        return (
            f"{pattern!r} is no time format; write {', '.join(EPOCHS)} for seconds, milliseconds and so on since 1970"
        )
    if "%" in pattern:
        return f"{pattern!r} is a pattern of strftime; write it as a Spark pattern, {from_strftime(pattern)!r}"
    if pattern.count("'") % 2:
        return f"{pattern!r} has a quote that is not closed"
    outside = re.sub(r"'[^']*'", "", pattern)
    if outside.count("[") != outside.count("]") or re.search(r"\][^\[]*\]|\[[^\]]*\[", outside):
        return f"{pattern!r} has brackets that are not closed, or inside of each other"
    zones = sum(has_offset(part) for part in re.findall(OPTIONAL, pattern))
    if zones > MOST_ZONES:
        return f"{pattern!r} has {zones} optional parts with the zone; Meander takes at most {MOST_ZONES}"
    if re.search("[{}#]", outside):
        return f"{pattern!r}: write each of {{ }} # in single quotes"
    read = without_weekday(pattern)
    return _wrong_letters(read) or _missing_part(read, names)


def _wrong_letters(pattern: str) -> str | None:
    if set("Yu") & {field[0] for field in fields(pattern)} and "y" not in pattern:
        # Moment.js, and what many write: a year by weeks, and the day of the year.
        mended = re.sub("Y|u", "y", pattern)
        if "M" in mended and "d" not in mended:
            mended = mended.replace("D", "d")
        return f"{pattern!r} has no year in the letters of Spark; for year, month and day write {mended!r}"
    for field in fields(pattern):
        letter = field[0]
        if letter not in LENGTHS:
            return f"{pattern!r}: Spark does not parse by {field!r}; a fixed text stands in single quotes"
        if len(field) > LENGTHS[letter] or (letter == "V" and len(field) != 2):
            allowed = "VV" if letter == "V" else f"at most {LENGTHS[letter]} of {letter!r}"
            return f"{pattern!r} has {field!r}; Spark takes {allowed}"
        if letter == "O" and len(field) not in (1, 4):
            return f"{pattern!r} has {field!r}; Spark takes O or OOOO"
    return None


def _missing_part(pattern: str, names: str) -> str | None:
    letters = {field[0] for field in fields(pattern)}
    if not letters:
        return f"{pattern!r} is no time format; write {names}"
    if "y" not in letters:
        return f"{pattern!r} has no year (y); a time without one cannot be an event's: write {names}"
    if not letters & set("MLD") or ("D" not in letters and "d" not in letters):
        return f"{pattern!r} has no month (M) or no day (d); m are minutes and D is the day of the year"
    if letters & set("hK") and "a" not in letters:
        return f"{pattern!r}: h counts hours to 12, so it needs AM or PM (a); H counts them to 24"
    if "m" in letters and not letters & set("HkhK"):
        return f"{pattern!r} has minutes (m) and no hours (H)"
    if ("s" in letters and "m" not in letters) or ("S" in letters and "s" not in letters):
        return f"{pattern!r} has a part of a minute without the parts above it: minutes are m, seconds s, fractions S"
    return None
