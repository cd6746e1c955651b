"""What the jobs after ingest read: published events, which must hold the days that are asked for."""

from lake.errors import TableMissing
from lake.landing import days_between
from lake.staging import Run
from lake.table import Table


def published_events(run: Run) -> Table:
    """Return the newest version of `events`, which must hold what landed on the days of the run.

    Raises:
        TableMissing: the events of a day have not been published.
    """
    events = Table("events")
    missing = [day for day in days_between(run.first, run.last) if events.basis(day) is None]
    if missing:
        days = ", ".join(map(str, missing[:10]))
        raise TableMissing(f"events that landed on {days} are not published yet; run jobs.ingest for these days first")
    return events
