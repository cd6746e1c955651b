"""Landing days that were loaded without Spark: what the run has read is written down as jobs.ingest does it."""

from datetime import date
from pathlib import Path
from typing import Any

from lake.deliveries import summary, write_list
from lake.landing import Landing
from lake.publish import publish
from lake.settings import settings
from lake.staging import Run, Staged
from tests.lake.stagings import rejected, stage_files


def stage_read(table: str, run_id: str, *days: date, **more: Any) -> Staged:
    """Stage what lies in the landing of some days now, a row for each line.

    Args:
        table: `events` or `quarantine`.
        run_id: names the run.
        days: the landing days.
        more: other counts, such as `allow_shrink`.
    """
    landing, run = Landing.of(settings()), Run(run_id, min(days), max(days))
    delivered = landing.deliveries(days)
    rows = {
        day: {name: len(Path(landing.folder(day), name).read_text().splitlines()) for name in files}
        for day, files in delivered.items()
    }
    total = {day: sum(of_day.values()) for day, of_day in rows.items()}
    by_day = {str(day): {"input": n, "accepted": n, "ignored": 0, "rejected": {}} for day, n in total.items()}
    counts = {"input": sum(total.values()), "accepted": sum(total.values()), "ignored": 0, "by_day": by_day}
    write_list(run_id, run.order, delivered, rows)
    if table == "events":
        made = [{"event_id": f"{day} {n}", "dt": day, "landed": day} for day in days for n in range(total[day])]
    else:
        made = [row for day in days for row in rejected(day, *map(str, range(total[day])))]
    counts |= {"landing": summary(delivered, rows), **more}
    return stage_files(table, run_id, made, list(days), None, run=run, counts=counts)


def load(run_id: str, *days: date, **more: Any) -> Staged:
    """Stage and publish the events of some landing days."""
    staged = stage_read("events", run_id, *days, **more)
    publish("events", run_id)
    return staged
