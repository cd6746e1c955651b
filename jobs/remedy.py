"""What to change in a source that does not fit its files, where it is certain: for `meander doctor`.

A change is guessed by looking at the files, as `meander source init` does. Then it is tried on the same files and rows,
by the functions of the job, and counts only if with it the files are as the source says, or the rows that were rejected
for a reason no longer are. What would fit in two ways, such as 03/04/2024, is not certain.
"""

import difflib
import re
import shlex
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import date
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from jobs.file_sample import MOST, Sample, look_into
from jobs.first_source import is_time, time_format
from jobs.landing_files import are_names, by_version, check_files, first_bytes, near
from jobs.preview import Preview
from jobs.rejections import CURRENCY, EVENT, REASONS
from jobs.source import Source, Sources, java_charset, load_source, shipped_sources
from jobs.yaml_edit import in_one_line, renamed, with_key
from jobs.yaml_file import STEPS
from lake import storage
from lake.errors import LandingUnreadable, MeanderError, SourceInvalid, SourceMismatch
from lake.landing import Landing

# Keys that say how a file of CSV is read, with what they are where the source does not say it.
OF_CSV = {"delimiter": ",", "skip_lines": 0, "header": True, "escape": "quote"}
# A change of a reason's rows counts if so few of them are left: a log has some broken rows of each kind.
FEW = 0.5
# Words that mean no value: so few different ones, each so short and in so many rows that it is nobody's name.
MOST_WORDS, LONGEST_WORD, ROWS_OF_A_WORD = 3, 20, 2
# How a number of a price is written, by any of its signs; Python knows no class of signs of currencies.
AROUND = CURRENCY.replace(r"\p{Sc}", r"[^\w\s]")
AMOUNT = re.compile(rf"[+-]?\s*{AROUND}?\s*\d[\d.,'\u2019\s]*{AROUND}?")
# Of encodings of one byte a letter, what computers in the west have written for decades.
USUAL = "windows-1252"
# A misspelt name is so like the one that is meant.
ALIKE = 0.75


@dataclass(frozen=True)
class Edit:
    """One change of the text of a source's file.

    Attributes:
        what: the key that is changed, for tests of what is certain.
        on: returns the changed text; None where it cannot be written.
        other: the change that would be made if it were understood otherwise; the first is certain only if this one
            does not fit.
    """

    what: str
    on: Callable[[str], str | None]
    other: "Edit | None" = None


@dataclass
class Trial:
    """A source, the files of some days, and what becomes of their rows.

    Attributes:
        landing, days: whose files are looked at.
        judge: returns what becomes of rows of some days by a source.
    """

    landing: Landing
    days: Sequence[date]
    judge: Callable[[Source, Sequence[date]], Preview]

    def load(self, text: str) -> Source | None:
        """Return the source that a text is; None if it is none."""
        with tempfile.TemporaryDirectory() as folder, suppress(SourceInvalid):
            place = Path(folder, "source.yaml")
            place.write_text(text, encoding="utf-8")
            return load_source(str(place))
        return None

    def groups(self, source: Source) -> list[tuple[Source, list[str]]]:
        """Return the files of each day by how they are read."""
        found = []
        for day in self.days:
            present = self.landing.present(day).items()
            names = [storage.join(self.landing.folder(day), name) for name, file in present if file.bytes]
            found += by_version(source, names) if names else []
        return found

    def fits(self, text: str | None) -> bool:
        """Return whether all files have what the source says that a text is."""
        source = self.load(text) if text is not None else None
        if source is None:
            return False
        with suppress(SourceMismatch, LandingUnreadable):
            for version, files in self.groups(source):
                check_files(version, files)
            return True
        return False


@dataclass(frozen=True)
class Change:
    """What to change in the file of a source: in words, and as a diff that `patch` reads."""

    words: str
    diff: str


def certain_change(trial: Trial, name: str, found: Preview | None) -> Change | None:
    """Return what has to be changed in the file of a source; None if nothing is certain.

    Args:
        trial: by which a change is tried.
        name: of a shipped source, or the path of its file.
        found: what became of the rows; None if the files are not as the source says.
    """
    is_shipped = name in shipped_sources()
    file = str(resources.files("jobs") / "sources" / f"{name}.yaml") if is_shipped else name
    before = Path(file).read_bytes().decode("utf-8")
    # Who saves the file in an editor of Windows changes it by hand: `patch` and terminals treat its ends in many ways.
    if "\r" in before or before.startswith("\ufeff"):
        return None
    try:
        after = mended(trial, before, found)
        if after == before and found is None:
            after = with_version(trial, before)
    except MeanderError:
        # What is wrong is told already, and no change of single keys mends it, such as two patterns that match a file.
        return None
    if after == before:
        return None
    target = f"{name}.yaml" if is_shipped else name
    copy = f"copy {file} to {target}, " if is_shipped else ""
    then = f", and set MEANDER_SOURCE={target}" if is_shipped else ""
    words = (
        f"what to change in {target} is below, and was tried on these rows: {copy}"
        f"`meander doctor | patch {shlex.quote(target)}`{then}"
    )
    if "\n+encoding: " in (diff := as_diff(target, before, after)) and "encoding: utf-16" not in diff:
        words += "; the encoding was guessed by its letters: do names with accents look right?"
    return Change(words, diff)


def mended(trial: Trial, text: str, found: Preview | None) -> str:
    """Return the text of a source's file with all changes that are certain; the same text if there are none.

    Args:
        trial: by which a change is tried.
        text: of the file.
        found: what became of the rows; None if the files are not as the source says.
    """
    source = trial.load(text)
    if source is None or isinstance(source, Sources):
        return text
    changed = text
    if found is None:
        changed = mended_files(trial, text, source)
        if (judged := judged_by(trial, changed)) is None:
            return text
        source, found = judged
    tried: set[str] = set()
    while better := next(better_rows(trial, changed, source, found, tried), None):
        changed, source, found = better
    # A change by which the files can be read and no row can is a wrong guess.
    return changed if found.outcomes.get(EVENT) else text


def with_version(trial: Trial, text: str) -> str:
    """Return the text of a source's file with a version for files that have changed; the same text if there is none.

    It counts from the first day on of which the files fit as those of the newest day do, and not as the source says.
    """
    said = yaml.safe_load(text)
    if len(trial.days) < 2 or "versions" in said or "sources" in said:
        return text
    changed = mended(replace(trial, days=trial.days[-1:]), text, None)
    keys = {key: value for key, value in yaml.safe_load(changed).items() if value != said.get(key)}
    if not keys:
        return text
    since = trial.days[-1]
    for day in reversed(trial.landing.days()):
        one = replace(trial, days=[day])
        if day < since and (one.fits(text) or not one.fits(changed)):
            break
        since = min(day, since)
    end = "" if text.endswith("\n") else "\n"
    lines = "".join(f"    {in_one_line(key)}: {in_one_line(value)}\n" for key, value in keys.items())
    whole = f"{text}{end}versions:\n  - from: {since}\n{lines}"
    return whole if judged_by(trial, whole) else text


def mended_files(trial: Trial, text: str, source: Source) -> str:
    """Return a text with which all files are as the source says; the same text if none is known.

    All that is guessed is tried together, since one file may differ in several ways; then each change without which the
    files fit too is left out.
    """
    edits: list[Edit] = []
    changed = text
    for guess in (file_edits, name_edits, typed_time_edits):
        described = trial.load(changed) or source
        for version, files in trial.groups(described):
            for file in suspects(version, files):
                for edit in guess(described, version, file):
                    if edit.what not in [each.what for each in edits] and (after := edit.on(changed)) is not None:
                        edits.append(edit)
                        changed = after
    if not edits or not trial.fits(changed):
        return text
    for edit in list(edits):
        others = [each for each in edits if each is not edit]
        if trial.fits(applied(text, others)):
            edits = others
    return applied(text, edits) or text


def applied(text: str, edits: Sequence[Edit]) -> str | None:
    """Return a text with some changes, one after the other; None if one of them cannot be made."""
    changed: str | None = text
    for edit in edits:
        changed = edit.on(changed) if changed is not None else None
    return changed


def suspects(version: Source, files: Sequence[str]) -> list[str]:
    """Return the first of some files that is not as its source says; the first one if each by itself is."""
    for file in files:
        try:
            check_files(version, [file])
        except (SourceMismatch, LandingUnreadable):
            return [file]
    return list(files[:1])


def better_rows(
    trial: Trial, text: str, source: Source, found: Preview, tried: set[str]
) -> Iterator[tuple[str, Source, Preview]]:
    """Yield each text with which fewer rows are rejected, its source, and what then becomes of the rows."""
    for version, files in trial.groups(source):
        for file in dict.fromkeys((files[0], files[-1])):
            for reason in found.rejected:
                for edit in GUESSES.get(reason, lambda *_: ())(source, version, file):
                    if (after := edit.on(text)) is None or after in tried:
                        continue
                    tried.add(after)
                    judged = judged_by(trial, after)
                    if judged is None or not is_better(reason, found, judged[1]):
                        continue
                    other = judged_by(trial, edit.other.on(text)) if edit.other else None
                    if other is None or not is_better(reason, found, other[1]):
                        yield after, *judged


def judged_by(trial: Trial, text: str | None) -> tuple[Source, Preview] | None:
    """Return the source that a text is and what becomes of the rows; None if it does not fit the files."""
    if not trial.fits(text):
        return None
    source = trial.load(str(text))
    assert source is not None
    with suppress(MeanderError):
        return source, trial.judge(source, trial.days)
    return None


def is_better(reason: str, before: Preview, after: Preview) -> bool:
    """Return whether rows are no longer rejected for a reason, and no more than before for one that comes earlier."""
    earlier = list(REASONS)[: list(REASONS).index(reason)]
    was, is_now = before.rejected, after.rejected
    return (
        is_now.get(reason, 0) <= (1 - FEW) * was[reason]
        and all(is_now.get(name, 0) <= was.get(name, 0) for name in earlier)
        and sum(is_now.values()) <= sum(was.values())
        and after.outcomes.get(EVENT, 0) >= before.outcomes.get(EVENT, 0)
    )


# ---- what may be meant -----------------------------------------------------------------------------------


def place_of(source: Source, version: Source, key: str) -> STEPS:
    """Return the way to a key of a version of a source: its own, where the version has other values than the source."""
    kinds = [each.source for each in source.versions]
    own = version in kinds and getattr(version, key) != getattr(source, key)
    return ["versions", kinds.index(version), key] if own else [key]


def set_key(what: str, place: STEPS, value: Any, other: Edit | None = None) -> Edit:
    """Return the change that gives a key a value."""
    return Edit(what, lambda text: with_key(text, place, value), other)


def sample_of(file: str, version: Source) -> Sample | None:
    """Return the first rows of a file, under the names that its source gives them; None if they cannot be read."""
    with suppress(SourceMismatch, LandingUnreadable):
        sample = look_into(file, version.columns)
        names = sample.keys.get("columns")
        if names and len(names) == len(version.columns):
            columns = {version.columns[names.index(name)]: values for name, values in sample.columns.items()}
            return Sample(sample.keys, columns, sample.rows, sample.doubts, sample.types)
        if version.format == "csv" and version.quote not in ('"', ""):
            bare = {name.strip(version.quote): values for name, values in sample.columns.items()}
            columns = {name: [text.strip(version.quote) for text in values] for name, values in bare.items()}
            return Sample(sample.keys, columns, sample.rows, sample.doubts, sample.types)
        return sample
    return None


def file_edits(source: Source, version: Source, file: str) -> Iterator[Edit]:
    """Yield what may have to be changed of how a file is read."""
    sample = sample_of(file, version)
    if sample is None or sample.keys["format"] == "parquet":
        return
    said = sample.keys
    if said["format"] != version.format:
        yield set_key("format", place_of(source, version, "format"), said["format"])
    yield from encoding_edits(source, version, file)
    if said["format"] == "csv":
        for key in ("delimiter", "skip_lines", "header"):
            value = said.get(key, OF_CSV[key])
            # A first line `sep=;` is found without the key.
            if value != getattr(version, key) and (key != "header" or version.columns):
                yield set_key(key, place_of(source, version, key), value)
        names = [*sample.columns, *(value for values in sample.columns.values() for value in values)]
        if version.quote != "'" and in_quotes("'", names) >= MOST:
            yield set_key("quote", place_of(source, version, "quote"), "'")


def in_quotes(quote: str, values: Sequence[str]) -> float:
    """Return the share of values that stand in quotes."""
    return sum(len(each) > 1 and each[0] == each[-1] == quote for each in values) / max(1, len(values))


def encoding_edits(source: Source, version: Source, file: str) -> Iterator[Edit]:
    """Yield the encoding that a file has; ASCII is the same in all but UTF-16."""
    sample = sample_of(file, version)
    said = sample.keys.get("encoding", "utf-8") if sample else "utf-8"
    wide = version.charset.startswith("UTF-16")
    if said not in ("utf-8", "utf-16"):
        head = first_bytes(file)
        # Of encodings that read the same texts, the one that most such files have.
        if head.decode(said, "replace") == head.decode(USUAL, "replace"):
            said = USUAL
    if java_charset(said) != version.charset and (said != "utf-8" or wide):
        yield set_key("encoding", place_of(source, version, "encoding"), said)


def name_edits(source: Source, version: Source, file: str) -> Iterator[Edit]:
    """Yield the names of columns that the file has where the source has them in another spelling."""
    sample = sample_of(file, version)
    if sample is None:
        return
    known = [name for name in sample.columns if are_names(name.split("."))]
    free = [name for name in known if name not in version.used_columns]
    names: dict[str, str] = {}
    wanted = dict.fromkeys([*version.used_columns, *version.columns]) if version.format == "csv" else {}
    for name in wanted or version.used_columns:
        if name in sample.columns or (name in version.may_lack and not near(name, known)):
            continue
        alike = difflib.get_close_matches(name, free, n=2, cutoff=ALIKE)
        meant = near(name, free) or (alike[0] if len(alike) == 1 else None)
        if meant and meant not in names.values():
            names[name] = meant
    if names:
        fields = [[key] for key in ("user_id", "item_id", "category_id", "query", "price", "columns", "may_lack")]
        fields += [["time", "column"], ["behavior", "column"]]
        kinds = [each.source for each in source.versions]
        above: STEPS = ["versions", kinds.index(version)] if version in kinds else []
        places: list[STEPS] = [[*above, *field] for field in fields] + [list(field) for field in fields]
        yield Edit("names", lambda text: renamed(text, places, names))


def time_column(version: Source) -> str | None:
    """Return the only column of the time; None where there are several, or an expression."""
    value = version.time.column
    return value.columns[0] if value.sql is None and len(value.columns) == 1 else None


def typed_time_edits(source: Source, version: Source, file: str) -> Iterator[Edit]:
    """Yield the format of times that Parquet has as such."""
    sample, column = sample_of(file, version), time_column(version)
    if sample and column and is_time(sample.types.get(column)) and "iso8601" not in version.time.formats:
        yield set_key("time", [*place_of(source, version, "time"), "format"], "iso8601")


def time_edits(source: Source, version: Source, file: str) -> Iterator[Edit]:
    """Yield how times are written, and whether the first line is a header."""
    sample, column = sample_of(file, version), time_column(version)
    if sample is None or column is None:
        return
    if not version.header and sample.keys.get("header", True) and set(version.columns) <= set(sample.columns):
        yield set_key("header", place_of(source, version, "header"), True)
    read = time_format(sample.columns.get(column, [])) if sample.columns.get(column) else None
    if read and not read[2] and read[0] not in version.time.formats:
        yield set_key("time", [*place_of(source, version, "time"), "format"], read[0])


def quote_edits(source: Source, version: Source, file: str) -> Iterator[Edit]:
    """Yield how values in quotes may be written in a file of CSV."""
    sample = sample_of(file, version)
    if sample is None or version.format != "csv":
        return
    if version.escape == "quote" and sample.keys.get("escape") == "backslash":
        yield set_key("escape", place_of(source, version, "escape"), "backslash")
        return
    values = [value for column in sample.columns.values() for value in column]
    if version.quote and not any(value[:1] == value[-1:] == version.quote for value in values):
        # Where some value is in quotes, those that are in none may be broken.
        several = set_key("multiline", place_of(source, version, "multiline"), True)
        yield set_key("quote", place_of(source, version, "quote"), "", several)
    if version.quote and version.escape == "quote" and not version.multiline:
        yield set_key("multiline", place_of(source, version, "multiline"), True)


def price_edits(source: Source, version: Source, file: str) -> Iterator[Edit]:
    """Yield how prices may be written, and words that may stand for none."""
    sample, value = sample_of(file, version), version.price
    if sample is None or value is None or value.sql is not None:
        return
    prices = [text for name in value.columns for text in sample.columns.get(name, [])]
    words = Counter(text for text in prices if not any(letter.isdigit() for letter in text))
    told = [word for word, n in words.items() if len(word) <= LONGEST_WORD and n >= ROWS_OF_A_WORD]
    # In a column that is hardly ever a number, such as one of names, words are what it is about.
    has_prices = 2 * sum(bool(AMOUNT.fullmatch(text)) for text in prices) >= len(prices)
    if has_prices and told and len(words) <= MOST_WORDS and told == list(words):
        yield set_key("nulls", place_of(source, version, "nulls"), [*version.nulls, *told])
    place = place_of(source, version, "amounts")
    if version.amounts:
        yield set_key("amounts", [*place, "decimal"], "," if version.amounts.decimal == "." else ".")
    else:
        comma, point = (set_key("amounts", place, {"decimal": sign}) for sign in ",.")
        yield Edit("amounts", comma.on, point)
        yield Edit("amounts", point.on, comma)


def behavior_edits(source: Source, version: Source, file: str) -> Iterator[Edit]:
    """Yield values of the behavior that differ from those of the source in the case of their letters alone."""
    sample, value = sample_of(file, version), version.behavior.column
    if sample is None or value is None or value.sql is not None:
        return
    seen = {text for name in value.columns for text in sample.columns.get(name, [])}
    meanings: Mapping[str, str] = {name.lower(): meaning for name, meaning in version.behavior.values.items()}
    unclear = {name for name, meaning in version.behavior.values.items() if meanings[name.lower()] != meaning}
    found = {
        text: meanings[text.lower()]
        for text in sorted(seen - set(version.behavior.values) - unclear)
        if text.lower() in meanings
    }
    if found:
        place = [*place_of(source, version, "behavior"), "values"]

        def add(text: str) -> str | None:
            changed: str | None = text
            for name, meaning in found.items():
                changed = with_key(changed, [*place, name], meaning) if changed is not None else None
            return changed

        yield Edit("behavior", add)


GUESSES: dict[str, Callable[[Source, Source, str], Iterator[Edit]]] = {
    "undecodable": encoding_edits,
    "malformed_line": quote_edits,
    "unparsable_time": time_edits,
    "unknown_behavior": behavior_edits,
    "invalid_price": price_edits,
}


def as_diff(name: str, before: str, after: str) -> str:
    """Return the difference of two texts of a file, as `patch` reads it; empty if there is none."""
    lines = difflib.unified_diff(
        before.splitlines(keepends=True), after.splitlines(keepends=True), fromfile=name, tofile=name
    )
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)
