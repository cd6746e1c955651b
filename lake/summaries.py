"""Summaries of landing days: computed once from files of `events`, and kept for every later date that needs them.

<lake>/_summaries/<kind>/<first>_<last>_<key>.json            the summary of a block of days: names its files
<lake>/_summaries/<kind>/stage=<id>/first=<first>/*.parquet   its rows
<lake>/_summaries/totals/<first>_<last>_<key>.json            control totals of the events of a block, for the audit

A summary is a function of files of `events`, and a file is never changed: the key is a hash of their paths. Whoever
looks for a summary knows the files of the version of `events` that it has pinned, and so finds the summary of exactly
these, or none. An outdated one has another name. So a summary that is missing costs time, and none can cost rows: days
may be loaded in any order, at once, again, or empty, and other tools may compact or delete from `events`.
docs/decisions/0026 has the argument.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import NamedTuple
from uuid import uuid4

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import StructType

from lake import storage
from lake.blocks import Block
from lake.places import summaries_folder
from lake.staging import partition_of
from lake.table import FORGOTTEN, DataFile, Table, read_parquet

# Control totals by name; all are added up over days.
Totals = dict[str, int]
TOTALS = "totals"
# The kinds of summaries, and how many blocks of each stay, whatever their age; None is all. The last events as of a day
# are made from those as of any day before, and each of these holds all users.
KEPT_BLOCKS = {"on_time": None, "late": None, "last": 8, TOTALS: None}


class Key(NamedTuple):
    """What a summary was computed from: the paths of files of `events`, and a hash of them and of the rules."""

    text: str
    files: tuple[str, ...]


def key_of(files: Iterable[DataFile], *rules: object) -> Key:
    """Return the key of what is computed from files, and from the values of the rules that it depends on."""
    paths = tuple(sorted(file.path for file in files))
    parts = [*paths, *map(repr, rules)]
    return Key(hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32], paths)


class Landings:
    """The files of a version of `events`: those that landed by the end of their date, and the others.

    Events are known from the later of their date and their landing day on. A folder of a shop's own day, where the day
    ends after midnight UTC, has events of the date after it: they are on time, and known from their date on.

    Attributes:
        on_time: by date, the files that landed on it, or before it.
        late: by landing day, the files of events of earlier dates.
    """

    def __init__(self, events: Table):
        self.on_time: Mapping[date, list[DataFile]] = defaultdict(list)
        self.late: Mapping[date, list[DataFile]] = defaultdict(list)
        for file in events.files:
            day, landed = file.partition["dt"], file.partition["landed"]
            (self.on_time if landed <= day else self.late)[max(day, landed)].append(file)

    @property
    def newest(self) -> date | None:
        """The newest day from which on events are known."""
        return max([*self.on_time, *self.late], default=None)

    def known_since(self, days: Iterable[date]) -> list[DataFile]:
        """Return the files of the events that are known from one of some days on."""
        return [file for day in days for file in (*self.on_time.get(day, ()), *self.late.get(day, ()))]

    def on_time_of(self, days: Iterable[date]) -> list[DataFile]:
        """Return the files of events of some dates that landed by the end of their date."""
        return [file for day in days for file in self.on_time.get(day, ())]

    def dates_of_two(self, days: Iterable[date]) -> set[date]:
        """Return those of some dates whose events on time are of two landing days: an event may be in both."""
        return {day for day in days if len({file.partition["landed"] for file in self.on_time.get(day, ())}) > 1}

    def late_on(self, days: Iterable[date]) -> list[DataFile]:
        """Return the files of events of earlier dates that landed on some days."""
        return [file for day in days for file in self.late.get(day, ())]

    def first_seen(self, late: Iterable[DataFile]) -> list[DataFile]:
        """Return the files on time for the dates of files that were not."""
        return self.on_time_of({file.partition["dt"] for file in late})


@dataclass(frozen=True)
class Summaries:
    """The summaries of one kind that the lake keeps.

    Attributes:
        kind: its name.
        schema: its columns; the last is `first`, the first day of the block.
        found: {path below the folder: bytes} of all its files, as they were listed.
    """

    kind: str
    schema: StructType
    found: Mapping[str, int]

    @staticmethod
    def of(kind: str, schema: StructType) -> "Summaries":
        """List what there is now."""
        return Summaries(kind, schema, storage.list_files(summaries_folder(kind)))

    def has(self, block: Block, key: Key) -> bool:
        """Tell whether the summary of a block is kept."""
        return name_of(block, key) in self.found

    def read(self, spark: SparkSession, wanted: Collection[tuple[Block, Key]]) -> DataFrame:
        """Return the rows of summaries that are kept.

        Raises:
            FileNotFoundError: upkeep has removed one meanwhile; run the job again, and it computes that one again.
        """
        folder, names = summaries_folder(self.kind), [name_of(block, key) for block, key in wanted]
        texts = storage.read_texts(folder, names)
        if gone := sorted(set(names) - texts.keys()):
            raise FileNotFoundError(f"{folder}/{gone[0]} was removed while it was in use: run this job again")
        files = {file: self.found.get(file, 0) for name in names for file in json.loads(texts[name])["files"]}
        return read_parquet(spark, folder, files, self.schema)

    def keep(self, rows: DataFrame, keys: Mapping[Block, Key], events: Table) -> "Summaries":
        """Write the summaries of blocks, and return what is kept then.

        A summary exists from the moment its JSON file does, which is written last: a process that is killed, or two
        that write the same one, leave files that none names, for upkeep to remove.

        Args:
            rows: of all these blocks; the column `first` says of which.
            keys: the blocks, each with its key; one without a row is kept as empty.
            events: the version that they were made from.

        Raises:
            FileNotFoundError: users were forgotten meanwhile, and rows of theirs may be in what was written: it is gone
                again; run the job again.
        """
        folder, stage = summaries_folder(self.kind), f"stage={uuid4().hex}"
        (
            rows.select(*self.schema.fieldNames())
            .hint("rebalance", "first")
            .write.partitionBy("first")
            .parquet(storage.spark_path(storage.join(folder, stage)))
        )
        written: dict[str, list[str]] = defaultdict(list)
        for name in storage.list_files(storage.join(folder, stage)):
            if name.endswith(".parquet"):
                written[partition_of(f"{stage}/{name}")["first"]].append(f"{stage}/{name}")
        for block, key in keys.items():
            content = {"inputs": key.files, "files": written[str(block.first)]}
            storage.write_json(storage.join(folder, name_of(block, key)), content)
        # Whoever forgets users commits to `events` first, and looks for summaries last: either they find this one, or
        # their commit is there now.
        newest = Table(events.name)
        if newest.transaction(FORGOTTEN) != events.transaction(FORGOTTEN):
            there = {file.path for file in newest.files}
            if gone := [block for block, key in keys.items() if not there.issuperset(key.files)]:
                storage.remove_files(folder, [name_of(block, keys[block]) for block in gone])
                storage.remove_files(folder, [file for block in gone for file in written[str(block.first)]])
                raise FileNotFoundError(f"users were forgotten while {folder} was written: run this job again")
        return Summaries.of(self.kind, self.schema)


def name_of(block: Block, key: Key) -> str:
    """Return the file that names the files of a summary."""
    return f"{block.first}_{block.last}_{key.text}.json"


def kept_totals(keys: Mapping[Block, Key]) -> dict[Block, Totals]:
    """Return the control totals that are kept of blocks."""
    names = {name_of(block, key): block for block, key in keys.items()}
    texts = storage.read_texts(summaries_folder(TOTALS), list(names))
    return {names[name]: json.loads(text)["totals"] for name, text in texts.items()}


def keep_totals(keys: Mapping[Block, Key], totals: Mapping[Block, Totals]) -> None:
    """Keep the control totals of blocks, beside the files that they were made from."""
    for block, of in totals.items():
        content = {"inputs": keys[block].files, "files": [], "totals": of}
        storage.write_json(storage.join(summaries_folder(TOTALS), name_of(block, keys[block])), content)


def unneeded(
    kind: str, events: Collection[str], before: datetime, blocks: int | None = None, *, unnamed: bool = True
) -> list[str]:
    """Return the files of summaries that no run needs any longer, in the order in which they can be removed.

    A summary goes with the files of `events` that it was made from: while these are there, a run may read a version of
    `events` that has them. Then the Parquet files go that no summary names.

    Args:
        kind: the kind of the summaries.
        events: the paths of all files of `events` that exist, also of those that no version has any longer.
        before: what was written since then stays.
        blocks: how many blocks stay, the newest; all when None.
        unnamed: whether files go that no summary names; a run that is at work has some.
    """
    folder = summaries_folder(kind)
    older = storage.list_older(folder, before)
    there = storage.list_files(folder)
    names = [name for name in there if name.endswith(".json")]
    contents = {name: json.loads(text) for name, text in storage.read_texts(folder, names).items()}
    present = set(events)
    newest = sorted({name.rpartition("_")[0] for name in contents}, reverse=True)[:blocks]
    outdated = [
        name
        for name, content in contents.items()
        if name in older
        and (
            name.rpartition("_")[0] not in newest
            or not present.issuperset(content["inputs"])
            # It would stop each run that looks for it.
            or not there.keys() >= set(content["files"])
        )
    ]
    named = {file for name in contents.keys() - set(outdated) for file in contents[name]["files"]}
    if not unnamed:
        return [*outdated, *sorted({file for name in outdated for file in contents[name]["files"]} - named)]
    return [*outdated, *(name for name in older if not name.endswith(".json") and name not in named)]


def remove_summaries(kind: str, names: list[str]) -> None:
    """Remove files of summaries: a summary before its files, since it would name some that are gone."""
    folder = summaries_folder(kind)
    for some in ([name for name in names if name.endswith(".json")], [n for n in names if not n.endswith(".json")]):
        storage.remove_files(folder, some)
