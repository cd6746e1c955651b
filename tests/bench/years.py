"""A lake of years of daily runs, made in a minute or two: manifests, verdicts and commits, but no data file.

Whatever plans, shows or publishes reads no data. A commit is what `lake.publish` hands to delta-rs, written as its
JSON; delta-rs makes the checkpoints. So what reads the log reads what years of runs would leave.

Each day has events of itself and of eleven days before, a thin tail that reaches back 144 days. Every twentieth day is
delivered again a month later, with what a plan names then, and each run stages what the rules of the tables say. The
sessions that runs postpone are restated each quarter: what there is to plan does not grow with the age of the lake.
"""

import json
import os
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from datetime import time as day_time
from pathlib import Path
from typing import Any

from deltalake import DeltaTable

from lake import storage
from lake.compact import live_files
from lake.days import ONE_DAY, days_between
from lake.order import FIRST
from lake.places import run_folder, table_path
from lake.publish import commit, ensure_table
from lake.reach import changed_by, partitions_to_stage
from lake.schemas import TABLES
from lake.settings import settings
from lake.staging import Staged, StagedFile, Verdict, write_staged, write_verdict
from lake.table import DataFile

FIRST_DAY = date(2022, 1, 1)
LATE_BY = (0, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144)
REDELIVERED_EVERY, REDELIVERED_AFTER = 20, 30
REPAIRED_EVERY = 91
CHECKPOINT_EVERY = 100
HOUR = timedelta(hours=1)


@dataclass
class Log:
    """The log of one table; takes the place of a DeltaTable in `lake.publish.commit`. `now` is the time of a commit."""

    table: str
    live: dict[tuple[str, ...], dict[str, dict[str, Any]]] = field(default_factory=lambda: defaultdict(dict))

    def __post_init__(self) -> None:
        ensure_table(self.table)
        self.last = 0
        self.now = 0.0
        self.opened = DeltaTable(table_path(self.table))

    def read(self) -> None:
        """Take over what is in the log."""
        self.opened = DeltaTable(table_path(self.table))
        self.last = self.opened.version()
        self.live.clear()
        for file in live_files(self.opened):
            owned = TABLES[self.table].owned_by
            action = {"partitionValues": file.partition, "size": file.bytes}
            self.live[owned, str(file.partition[owned])][file.path] = action

    def version(self) -> int:
        return self.last

    def schema(self) -> Any:
        return self.opened.schema()

    def create_write_transaction(
        self,
        added: list[Any],
        mode: str,  # noqa: ARG002  that of DeltaTable
        schema: Any,  # noqa: ARG002
        partition_by: list[str],  # noqa: ARG002
        partition_filters: list[Any] | None,
        commit_properties: Any,
    ) -> None:
        """Write the next commit as delta-rs does."""
        now = int(self.now * 1000)
        published = datetime.fromtimestamp(self.now, UTC).isoformat(timespec="microseconds")
        said = {"timestamp": now, "operation": "WRITE", **commit_properties.custom_metadata, "published": published}
        lines: list[dict[str, Any]] = [{"commitInfo": said}]
        for column, _, values in partition_filters or ():
            for value in values:
                for path, action in self.live.pop((column, value), {}).items():
                    gone = {"path": path, "dataChange": True, "deletionTimestamp": now, "extendedFileMetadata": True}
                    same = {name: action[name] for name in ("partitionValues", "size")}
                    lines.append({"remove": {**gone, **same}})
            for one in added:
                action = {"path": one.path, "partitionValues": dict(one.partition_values), "size": one.size}
                action |= {"modificationTime": now, "dataChange": True, "stats": one.stats}
                self.live[column, one.partition_values[column]][one.path] = action
                lines.append({"add": action})
        lines += [{"txn": {"appId": t.app_id, "version": t.version}} for t in commit_properties.app_transactions]
        self.last += 1
        path = Path(table_path(self.table), "_delta_log", f"{self.last:020}.json")
        path.write_text("".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines))
        if self.last % CHECKPOINT_EVERY == 0:
            DeltaTable(table_path(self.table)).create_checkpoint()


@dataclass
class Years:
    """Runs of a number of days, one after the other, on the lake and landing of the settings."""

    logs: dict[str, Log] = field(default_factory=dict)
    order: int = FIRST
    files: dict[date, list[DataFile]] = field(default_factory=dict)
    sessions: set[date] = field(default_factory=set)
    postponed: set[date] = field(default_factory=set)
    labelled: set[date] = field(default_factory=set)
    today: date = FIRST_DAY

    def run(self, first: int, last: int) -> None:
        """Make the runs of day number `first` up to `last`, excluded, and what is delivered again meanwhile."""
        for n in range(first, last):
            self.today = day = FIRST_DAY + n * ONE_DAY
            folder = Path(settings().landing) / f"dt={day}"
            folder.mkdir(parents=True, exist_ok=True)
            self.behavior(day, f"scheduled__{day}T00:00:00+00:00")
            self.predictions(day)
            if n % 7 == 0 and n >= settings().horizon_days:
                self.examples([day - settings().horizon_days * ONE_DAY])
            again = n - REDELIVERED_AFTER
            if again >= 0 and again % REDELIVERED_EVERY == 0:
                self.deliver_again(FIRST_DAY + again * ONE_DAY, day)
            if n % REPAIRED_EVERY == 0:
                self.restate(day)

    def deliver_again(self, landed: date, day: date) -> None:
        """Run a landing day again, and what its plan names: all that was computed from it up to `day`."""
        self.behavior(landed, f"manual__{day}T12:00:00+00:00")
        self.interests(days_between(landed, day), f"plan--interests--{landed}--{day}")
        for predicted in days_between(landed, day):
            self.predictions(predicted, f"manual__{day}T13:00:00+00:00")
        begin = landed - settings().horizon_days * ONE_DAY
        if stale := sorted(made for made in self.labelled if begin <= made <= day):
            self.examples(stale)

    def restate(self, day: date) -> None:
        """Restate the sessions that runs have postponed."""
        if self.postponed:
            days, events = sorted(self.postponed), self.logs["events"].version()
            run_id, rows = f"plan--sessions--{days[0]}--{day}", {(d,): 30 for d in days}
            more = {"counts": {"postponed": []}, "inputs": {"events": events}}
            self.publish("sessions", run_id, day, days, rows, events, **more)
            self.postponed.clear()

    def behavior(self, day: date, run_id: str) -> None:
        """Run behavior_daily of one day."""
        config = settings()
        before = self.files.get(day, [])
        dated = [day - late * ONE_DAY for late in LATE_BY if day - late * ONE_DAY >= FIRST_DAY]
        noon = {d: datetime.combine(d, day_time(12), UTC) for d in dated}
        outcome = {"input": 120, "accepted": 110, "ignored": 5, "rejected": {"missing_user": 3, "unknown_behavior": 2}}
        counts: dict[str, Any] = {**outcome, "files": 3, "by_day": {str(day): outcome}}
        self.publish("quarantine", run_id, day, [day], {(day,): 5}, counts=counts)
        self.publish("events", run_id, day, [day], {(d, day): 100 if d == day else 1 for d in dated}, counts=counts)
        self.files[day] = [
            DataFile("", 1, 1000, {"dt": d, "landed": day}, {"event_time": (noon[d] - HOUR, noon[d] + HOUR)})
            for d in dated
        ]
        changed = changed_by([*before, *self.files[day]], timedelta(minutes=config.session_gap_minutes))
        populated = {file.partition["dt"] for files in self.files.values() for file in files}
        staged, late = partitions_to_stage(changed, [day], populated, self.sessions, config.late_days)
        events = self.logs["events"].version()
        self.sessions |= set(staged)
        self.postponed = (self.postponed | set(late)) - set(staged)
        postponed = {"postponed": [str(d) for d in late]}
        rows = {(d,): 30 for d in staged}
        self.publish("sessions", run_id, day, staged, rows, events, counts=postponed, inputs={"events": events})
        self.interests([day], run_id)

    def interests(self, days: list[date], run_id: str) -> None:
        """Make the interests of some days."""
        events = self.logs["events"].version()
        more = {"counts": {"as_of": [str(d) for d in days], "include_late": False}, "inputs": {"events": events}}
        self.publish("interests", run_id, days[-1], days, {(d,): 50 for d in days}, events, **more)

    def predictions(self, day: date, run: str = "") -> None:
        """Run predict_daily of one day."""
        run_id = f"predict_daily--{run or f'scheduled__{day}T00:00:00+00:00'}--{day}"
        counts = {"model_version": 1, "as_of": str(day), "events": 100, "unseen_events": 7}
        inputs = {"interests": self.logs["interests"].version()}
        self.publish("predictions", run_id, day, [day], {(day,): 50}, counts=counts, inputs=inputs)

    def examples(self, days: list[date]) -> None:
        """Make the examples of some days."""
        self.labelled |= set(days)
        inputs = {name: self.logs[name].version() for name in ("events", "interests")}
        horizon = settings().horizon_days
        counts = {"as_of": [str(d) for d in days], "include_late": False, "horizon_days": horizon}
        run_id = f"model_weekly--scheduled__{days[-1]}T00:00:00+00:00--{self.order}"
        rows = {(d,): 50 for d in days}
        more = {"counts": counts, "inputs": inputs}
        self.publish("examples", run_id, days[-1], days, rows, sum(inputs.values()), **more)

    def stage(
        self,
        table: str,
        run_id: str,
        day: date,
        owns: list[date],
        rows: dict[tuple[date, ...], int],
        basis: int | None = None,
        **more: Any,
    ) -> tuple[Staged, Verdict]:
        """Leave the manifest of a staging and the verdict on it; `rows` has those of each partition."""
        self.order += 1
        stage_id = f"{self.order}-{self.order:08x}"[:32]
        columns = ("dt", "landed") if table == "events" else ("dt",)
        files = []
        for values, number in rows.items():
            folder = "/".join(f"{c}={v}" for c, v in zip(columns, values, strict=True))
            ends = [f"{values[0]}T{hour}:00:00.000000Z" for hour in (11, 13)]
            times = {"event_time": ends} if table == "events" else {}
            files.append(StagedFile(f"stage={stage_id}/{folder}/part-00000-{self.order}.parquet", number, 9000, times))
        began = datetime.fromtimestamp(self.now(), UTC).isoformat(timespec="microseconds")
        known = self.order if basis is None else basis
        staged = Staged(table, run_id, stage_id, day, day, owns, known, self.order, files, started=began, **more)
        staged = Staged(**{**staged.__dict__, "seconds": 30.0 + self.order % 7})
        page = f"/meander/data-docs/{run_id}/{table}.html"
        verdict = Verdict(table, run_id, stage_id, "passed", [], page, 5.0, f"{self.today + ONE_DAY}T03:01:00+00:00")
        write_staged(staged)
        write_verdict(verdict)
        # As if this were the day of the run, and not now.
        os.utime(run_folder(run_id), (self.now(), self.now()))
        return staged, verdict

    def now(self) -> float:
        """Return a time in the night after the day that is run, in seconds since 1970."""
        return datetime.combine(self.today + ONE_DAY, day_time(3), UTC).timestamp()

    def publish(self, table: str, run_id: str, day: date, owns: list[date], *rows: Any, **more: Any) -> None:
        """Stage and publish."""
        staged, verdict = self.stage(table, run_id, day, owns, *rows, **more)
        if table not in self.logs:
            self.logs[table] = Log(table)
        self.logs[table].now = self.now()
        commit(self.logs[table], staged, verdict, owns, [])  # type: ignore[arg-type]

    def published(self, table: str) -> None:
        """Go on after a publish by `lake.publish` itself."""
        self.logs[table].read()


def files_of(staged: Staged) -> None:
    """Make the files of a staging, empty: a publish looks whether they are there."""
    for file in staged.files:
        fs, place = storage.filesystem(storage.join(table_path(staged.table), file.path))
        fs.makedirs(place.rpartition("/")[0], exist_ok=True)
        fs.pipe_file(place, b"")
